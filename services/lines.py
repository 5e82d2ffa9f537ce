"""The shards as a door calls them: readings go over the line of a shard that is on the door's own machine, all else as a call of Ray."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import time
from collections.abc import Awaitable
from typing import Any, cast

import ray
from ray.exceptions import RayError

from actors import line
from actors.directory import Directory
from actors.rules.errors import DomainError, Unavailable

log = logging.getLogger("waybill.lines")

FAR_S = 30.0
"""For so long a shard that has no line to here is called by Ray, before its line is looked for again."""
SILENT_S = 3.0
"""When a line that owes answers has said nothing for so long, Ray is asked whether its shard is still there."""
GONE = "the shard is starting or moving"


class Lines:
    """Stands for a `Directory` (services.shards.Shards). For one event loop."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._here = ray.get_runtime_context().get_node_id()
        self._ways: list[_End | None] = [None] * directory.shards
        self._far_until = [0.0] * directory.shards  # monotonic
        self._opening = [asyncio.Lock() for _ in range(directory.shards)]

    @property
    def shards(self) -> int:
        """How many there are."""
        return self._directory.shards

    def call(self, shard: int, method: str, *arguments: Any) -> Awaitable[Any]:
        """Call a method of a shard. Raises Unavailable where the shard is not there, or went before it answered."""
        if method != "ingest" or time.monotonic() < self._far_until[shard]:
            return self._directory.call(shard, method, *arguments)
        return self._send(shard, *arguments)

    def forget(self, shard: int) -> None:
        """Look the shard up again at the next call."""
        self._far_until[shard] = 0.0
        self._directory.forget(shard)

    async def _send(self, shard: int, packed: bytes, received_us: int) -> Any:
        way = self._ways[shard]
        if way is None or way.lost:
            async with self._opening[shard]:
                way = self._ways[shard]
                if way is None or way.lost:
                    way = self._ways[shard] = await self._open(shard)
        if way is None:
            self._far_until[shard] = time.monotonic() + FAR_S
            return await self._directory.call(shard, "ingest", packed, received_us)
        return await way.send(packed, received_us)

    async def _open(self, shard: int) -> _End | None:
        """A way to a shard; None: there is none from here, but Ray can carry the call, or will say that the shard is gone."""
        facts = await self._directory.call(shard, "info")
        address = facts["line"]
        if facts["node"] != self._here or address is None:
            return None
        try:
            _, end = await asyncio.get_running_loop().create_unix_connection(_End, address)
        except OSError as error:
            log.warning("shard %d is called by Ray, its line cannot be had: %s", shard, error)
            return None
        if not end.is_ours():
            log.warning("shard %d is called by Ray, its process belongs to another user", shard)
            return None
        end.watch = asyncio.create_task(self._watch(shard, address, end))
        return end

    async def _watch(self, shard: int, address: str, end: _End) -> None:
        """Hang up where Ray says that the shard has died or is elsewhere: a frozen process keeps its end of the line open."""
        while not end.lost:
            await asyncio.sleep(SILENT_S)
            if end.silent_s() < SILENT_S:
                continue
            there = None
            with contextlib.suppress(RayError, DomainError):
                there = (await self._directory.call(shard, "info"))["line"]
            if there != address:
                end.hang_up()


class _End(asyncio.Protocol):
    """A door's end of a line."""

    def __init__(self) -> None:
        self.lost = False
        self.watch: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._next = 0
        self._read = bytearray()
        self._heard = 0.0  # monotonic: when something was read, or first waited for

    def is_ours(self) -> bool:
        """Whether the kernel says that the other end is our user's; it is told nothing otherwise."""
        assert self._transport is not None
        if line.same_user(self._transport.get_extra_info("socket")):
            return True
        self.hang_up()
        return False

    def silent_s(self) -> float:
        """How long answers have been waited for in vain."""
        return time.monotonic() - self._heard if self._waiting else 0.0

    def hang_up(self) -> None:
        """Whoever waits is told that the shard has gone."""
        if self._transport is not None:
            self._transport.abort()

    def send(self, packed: bytes, received_us: int) -> asyncio.Future[Any]:
        """A request; its answer, or what the shard raised. Raises Unavailable where the line is lost before there is one."""
        answer = asyncio.get_running_loop().create_future()
        if self.lost or self._transport is None:
            answer.set_exception(Unavailable(GONE))
            return answer
        if not self._waiting:
            self._heard = time.monotonic()
        self._waiting[self._next] = answer
        self._transport.write(line.REQUEST.pack(len(packed), self._next, received_us) + packed)
        self._next += 1
        return answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The line is open."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Some of the answers, or a piece of one."""
        read, at = self._read, 0
        read += data
        self._heard = time.monotonic()
        while len(read) - at >= line.ANSWER.size:
            size, number = line.ANSWER.unpack_from(read, at)
            begin, end = at + line.ANSWER.size, at + line.ANSWER.size + size
            if len(read) < end:
                break
            answer = self._waiting.pop(number)
            if not answer.done():  # else nobody waits for it any more
                _give(answer, bytes(memoryview(read)[begin:end]))
            at = end
        del read[:at]

    def connection_lost(self, error: Exception | None) -> None:
        """The shard's process has ended: whether it had committed what waits is not known; readings may be sent again."""
        self.lost = True
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            if not answer.done():
                answer.set_exception(Unavailable(GONE))


def _give(answer: asyncio.Future[Any], data: bytes) -> None:
    try:
        outcome = pickle.loads(data)
    except Exception as error:  # an exception whose class does not bear it
        outcome = RuntimeError(f"the shard's answer cannot be read: {error!r}")
    if isinstance(outcome, BaseException):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
