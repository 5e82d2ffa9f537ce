"""The shards as a door calls them: readings go over the line of a shard that is on the door's own machine, all else as a call of Ray."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Awaitable
from typing import Any, cast

import ray

from actors import line
from actors.directory import Directory
from actors.rules.errors import Unavailable


class Lines:
    """Stands for a `Directory` (services.shards.Shards). For one event loop."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._here = ray.get_runtime_context().get_node_id()
        self._ways: list[_End | None] = [None] * directory.shards
        self._far = [False] * directory.shards
        self._opening = [asyncio.Lock() for _ in range(directory.shards)]

    @property
    def shards(self) -> int:
        """How many there are."""
        return self._directory.shards

    def call(self, shard: int, method: str, *arguments: Any) -> Awaitable[Any]:
        """Call a method of a shard. Raises Unavailable where the shard is not there, or went before it answered."""
        if method != "ingest" or self._far[shard]:
            return self._directory.call(shard, method, *arguments)
        return self._send(shard, *arguments)

    def forget(self, shard: int) -> None:
        """Look the shard up again at the next call."""
        self._far[shard] = False
        self._directory.forget(shard)

    async def _send(self, shard: int, packed: bytes, received_us: int) -> Any:
        way = self._ways[shard]
        if way is None or way.lost:
            async with self._opening[shard]:
                way = self._ways[shard]
                if way is None or way.lost:
                    way = self._ways[shard] = await self._open(shard)
        if way is None:
            self._far[shard] = True
            return await self._directory.call(shard, "ingest", packed, received_us)
        return await way.send(packed, received_us)

    async def _open(self, shard: int) -> _End | None:
        """A way to a shard; None: it is on another machine."""
        facts = await self._directory.call(shard, "info")
        if facts["node"] != self._here or facts["line"] is None:
            return None
        try:
            _, end = await asyncio.get_running_loop().create_unix_connection(_End, facts["line"])
        except OSError:
            raise Unavailable(f"shard {shard} is starting or moving") from None
        return end


class _End(asyncio.Protocol):
    """A door's end of a line."""

    def __init__(self) -> None:
        self.lost = False
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._next = 0
        self._read = bytearray()

    def send(self, packed: bytes, received_us: int) -> asyncio.Future[Any]:
        """A request; its answer, or what the shard raised. Raises Unavailable where the line is lost before there is one."""
        answer = asyncio.get_running_loop().create_future()
        if self.lost or self._transport is None:
            answer.set_exception(Unavailable("the shard is starting or moving"))
            return answer
        self._waiting[self._next] = answer
        self._transport.write(line.REQUEST.pack(len(packed), self._next, received_us) + packed)
        self._next += 1
        return answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The kernel says who is there."""
        self._transport = cast("asyncio.Transport", transport)
        if not line.same_user(transport.get_extra_info("socket")):
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Some of the answers, or a piece of one."""
        read, at = self._read, 0
        read += data
        while len(read) - at >= line.ANSWER.size:
            size, number = line.ANSWER.unpack_from(read, at)
            begin, end = at + line.ANSWER.size, at + line.ANSWER.size + size
            if len(read) < end:
                break
            answer, outcome = self._waiting.pop(number), pickle.loads(memoryview(read)[begin:end].tobytes())
            at = end
            if answer.done():  # nobody waits for it any more
                continue
            if isinstance(outcome, BaseException):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)
        del read[:at]

    def connection_lost(self, error: Exception | None) -> None:
        """The shard's process has ended: whether it had committed what waits is not known; readings may be sent again."""
        self.lost = True
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            if not answer.done():
                answer.set_exception(Unavailable("the shard is starting or moving"))
