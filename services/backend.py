"""What the doors' servicers stand on: commands and queries to the shards, and reads from the database beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import grpc
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from actors.directory import shard_of
from actors.journal.queries_business import reading
from actors.rules.errors import Overloaded, Unavailable
from actors.rules.readings import FOREVER_US, U1, Batch, concatenate_flagged
from services.shards import Shards, ask, now_us

P = ParamSpec("P")
R = TypeVar("R")

READERS = 8
"""Database reads at a time; more wait."""
READS_MAX = 1_000
"""Reads under way and waiting, at most; beyond: RESOURCE_EXHAUSTED."""

if TYPE_CHECKING:  # the stubs' class takes type arguments, the real one does not
    Context = grpc.aio.ServicerContext[Any, Any]
else:
    Context = grpc.aio.ServicerContext


class Backend:
    """Shards and database for one door. `engine` can only read (journal.database.reader)."""

    def __init__(self, shards: Shards, engine: Engine) -> None:
        self.shards = shards
        self._engine = engine
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="reader")
        self._first = ThreadPoolExecutor(1, thread_name_prefix="reader-first")
        self._reads = 0

    def close(self) -> None:
        """Let go of threads and connections."""
        for threads in (self._threads, self._first):
            threads.shutdown(wait=False, cancel_futures=True)
        self._engine.dispose()

    def shard_of(self, identity: str) -> int:
        """The shard that a tag, shipment or warehouse lives in."""
        return shard_of(identity, self.shards.shards)

    async def command(self, identity: str, name: str, arguments: Mapping[str, Any], context: Context, *, again: bool = False) -> Any:
        """Have the shard that `identity` lives in carry out a command ("tag.register"), durably; its answer.

        While the shard is away it is sent again only where that does no harm: `again`, or a `request_id` in the arguments, by which
        the shard knows it. Raises DomainError, TimeoutError.
        """
        harmless = again or bool(arguments.get("request_id"))
        return await ask(
            self.shards, self.shard_of(identity), "command", name, dict(arguments), now_us(), remaining_s=left(context), again=harmless
        )

    async def query(self, identity: str, name: str, arguments: Mapping[str, Any], context: Context) -> Any:
        """Ask the shard that `identity` lives in, after all that was acknowledged before. Raises DomainError, TimeoutError."""
        return await ask(self.shards, self.shard_of(identity), "query", name, dict(arguments), remaining_s=left(context))

    async def series_parts(
        self, tag_id: str, from_us: int | None, until_us: int | None, context: Context
    ) -> AsyncIterator[tuple[Batch, U1]]:
        """A tag's readings of [from_us, until_us) in judging order with their flags, in parts of bounded size; None: no bound."""
        asked: dict[str, Any] = {"tag_id": tag_id, "from_us": from_us or 0, "until_us": until_us or FOREVER_US}
        while asked["from_us"] is not None:
            batch, flags, asked["from_us"] = await self.query(tag_id, "tag.series", asked, context)
            yield batch, flags

    async def series(self, tag_id: str, from_us: int | None, until_us: int | None, context: Context) -> tuple[Batch, U1]:
        """As `series_parts`, as one."""
        return concatenate_flagged([part async for part in self.series_parts(tag_id, from_us, until_us, context)])

    async def read(self, function: Callable[Concatenate[Session, P], R], *arguments: P.args, **named: P.kwargs) -> R:
        """Call `function(session, ...)` on one state of the database. Raises Unavailable where the database is away, Overloaded where
        READS_MAX reads are under way or wait.
        """
        if self._reads >= READS_MAX:
            raise Overloaded(f"{self._reads} reads wait for the database", retry_after_s=1.0)
        return await self._run(self._threads, function, *arguments, **named)

    async def read_first(self, function: Callable[Concatenate[Session, P], R], *arguments: P.args, **named: P.kwargs) -> R:
        """As `read`, on a thread of its own: for the newest events, which wait for nobody who asks for much."""
        return await self._run(self._first, function, *arguments, **named)

    async def _run(
        self, threads: ThreadPoolExecutor, function: Callable[Concatenate[Session, P], R], *arguments: P.args, **named: P.kwargs
    ) -> R:
        gone = False

        def run() -> R:
            if gone:
                raise Unavailable("nobody waits for it any more")
            with reading(self._engine) as session:
                return function(session, *arguments, **named)

        under_way = asyncio.get_running_loop().run_in_executor(threads, run)
        if threads is self._threads:
            self._reads += 1
            under_way.add_done_callback(self._over)
        try:
            return await asyncio.shield(under_way)  # a read that is cancelled would count no more, and still wait
        except OperationalError as error:
            raise Unavailable("the database does not answer") from error
        except asyncio.CancelledError:
            gone = True
            raise

    def _over(self, _: asyncio.Future[Any]) -> None:
        self._reads -= 1


def left(context: Context) -> float | None:
    """Seconds until the caller's deadline; None where there is none."""
    remaining: float | None = context.time_remaining()
    return remaining
