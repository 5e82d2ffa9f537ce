"""The door's heart: the readings of all streams that wait are sent as one call per shard.

A message is split by the shard its tags live in. Each shard has a lane: what waits there goes out as one Ray call (a list of
parts), at most CALLS_IN_FLIGHT at a time, so that while one call is committed the next one fills by itself; an idle shard is called at
once. A message is answered when every part of it is durable, and never before. A shard that is dead or moving is called again with
the same parts until the caller's deadline: readings carry their own identity, so a part that was committed before the answer was
lost is found to be a duplicate of itself. Bytes in flight are bounded: past the bound a message is refused with Overloaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from ray.exceptions import RayActorError, RayError

from actors.directory import shard_of
from actors.rules import readings
from actors.rules.errors import DomainError, Overloaded, Unavailable
from actors.rules.readings import Batch
from actors.sensor_tag import Part
from services.shards import Backoff, Shards, meaning_of, now_us
from services.wire import valid_tag_id

U1 = npt.NDArray[np.uint8]
I8 = npt.NDArray[np.int64]

CALLS_IN_FLIGHT = 2
"""Calls to one shard at a time: one is committed while the next is judged."""
CALL_READINGS_MAX = 200_000
"""Readings in one call; what waits beyond goes into the next."""
KNOWN_IDS_MAX = 1_500_000
"""Tag ids whose shard the door remembers; past it the memory is emptied."""
PATIENCE_S = 30.0
"""How long a message without a deadline is tried while its shard is away."""


class Outcome(NamedTuple):
    """What became of a message's readings: a status per reading (readings.ACCEPTED, ...) and the newest event number."""

    status: U1
    last_event_number: int


@dataclass(eq=False, slots=True)
class _Part:
    """One message's readings for one shard, waiting in its lane."""

    ids: bytes
    batch: Batch
    answer: asyncio.Future[tuple[U1, int]]
    until: float  # monotonic
    size: int
    since: float = field(default_factory=time.monotonic)


class Routes:
    """Tag id to shard, and whether the id is well formed, remembered for ids that are."""

    def __init__(self, shards: int) -> None:
        self._shards = shards
        self._known: dict[str, int] = {}

    def rule_broken(self, tag_id: str) -> str:
        """The rule that a tag id breaks, "" where it breaks none."""
        if tag_id in self._known:
            return ""
        rule = valid_tag_id(tag_id)
        if not rule:
            if len(self._known) >= KNOWN_IDS_MAX:
                self._known.clear()
            self._known[tag_id] = shard_of(tag_id, self._shards)
        return rule

    def of(self, tag_ids: Sequence[str]) -> npt.NDArray[np.int32]:
        """The shard of each id."""
        try:
            return np.fromiter(map(self._known.__getitem__, tag_ids), np.int32, len(tag_ids))
        except KeyError:
            return np.array([shard_of(tag_id, self._shards) for tag_id in tag_ids], np.int32)


class Gatherer:
    """Takes decoded messages and gives their outcomes. For one event loop; `start` and `stop` belong to it."""

    def __init__(self, shards: Shards, *, gather_s: float = 0.002, bytes_max: int = 256 << 20) -> None:
        self.routes = Routes(shards.shards)
        self.bytes_in_flight = 0
        self.last_event_number = 0
        self._bytes_max = bytes_max
        self._lanes = [_Lane(self, shards, shard, gather_s) for shard in range(shards.shards)]
        self._listeners: list[asyncio.Event] = []

    def listen(self, event: asyncio.Event) -> None:
        """Set `event` whenever a reply says that there are newer events."""
        self._listeners.append(event)

    def close(self) -> None:
        """End the lanes; what still waits is answered with Unavailable."""
        for lane in self._lanes:
            lane.close()

    async def ingest(self, ids: Sequence[str], batch: Batch, remaining_s: float | None = None) -> Outcome:
        """Have the readings committed and judged. Returns when all are durable.

        Raises Overloaded (nothing was taken), Unavailable (no answer until the deadline; some readings may be durable: send again),
        StorageFull.
        """
        size = _size(batch)
        if self.bytes_in_flight + size > self._bytes_max:
            raise Overloaded(f"{self.bytes_in_flight} bytes of readings are in flight", retry_after_s=0.2)
        patience_s = PATIENCE_S if remaining_s is None else remaining_s
        until = time.monotonic() + patience_s
        status = np.zeros(len(batch), np.uint8)
        split = self._split(ids, batch)
        answers = [self._lanes[shard].put(part_ids, part, until) for shard, part_ids, part, _ in split]
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + patience_s):
                replies = await asyncio.gather(*answers)
        except TimeoutError:
            raise Unavailable("there was no answer in time; the outcome is unknown: send it again") from None
        finally:
            for answer in answers:
                answer.cancel()  # without effect on those that are there
        for (_, _, _, rows), (part_status, _) in zip(split, replies, strict=True):
            status[rows] = part_status
        return Outcome(status, max((number for _, number in replies), default=0))

    def heard_of(self, number: int) -> None:
        """A reply told the newest event number of its shard: wake those who wait for events."""
        if number > self.last_event_number:
            self.last_event_number = number
            for event in self._listeners:
                event.set()

    def _split(self, ids: Sequence[str], batch: Batch) -> list[tuple[int, bytes, Batch, I8 | slice]]:
        """(shard, its ids joined by line ends, its rows, which rows these are) for each shard that has any."""
        used = np.zeros(len(ids), np.bool_)
        used[batch.tag] = True
        shard_of_tag = self.routes.of(ids)
        parts: list[tuple[int, bytes, Batch, I8 | slice]] = []
        present = np.unique(shard_of_tag[used]).tolist()
        shard_of_row = shard_of_tag[batch.tag] if len(present) > 1 else None
        index = np.zeros(len(ids), np.int32)
        for shard in present:
            tags = np.flatnonzero(used & (shard_of_tag == shard))
            index[tags] = np.arange(len(tags), dtype=np.int32)
            rows: I8 | slice = slice(None) if shard_of_row is None else np.flatnonzero(shard_of_row == shard)
            mine = batch if isinstance(rows, slice) else readings.subset(batch, rows)
            part = Batch(index[mine.tag], mine.sensed_us, mine.boot, mine.sequence, mine.codes, mine.values)
            parts.append((shard, "\n".join([ids[tag] for tag in tags.tolist()]).encode(), part, rows))
        return parts


def _size(batch: Batch) -> int:
    """Bytes of a batch's columns."""
    return len(batch) * 28 + batch.values.nbytes


class _Lane:
    """What waits for one shard, and the calls to it."""

    def __init__(self, gatherer: Gatherer, shards: Shards, shard: int, gather_s: float) -> None:
        self._gatherer = gatherer
        self._shards = shards
        self._shard = shard
        self._gather_s = gather_s
        self._waiting: deque[_Part] = deque()
        self._filled = asyncio.Event()
        self._freed = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._pump: asyncio.Task[None] | None = None
        self._closed = False

    def put(self, ids: bytes, batch: Batch, until: float) -> asyncio.Future[tuple[U1, int]]:
        """Queue a part; the future gives the status of its readings and the newest event number."""
        answer: asyncio.Future[tuple[U1, int]] = asyncio.get_running_loop().create_future()
        if self._closed:
            answer.set_exception(Unavailable("the door is closing"))
            return answer
        if self._pump is None:
            self._pump = asyncio.create_task(self._run())
        part = _Part(ids, batch, answer, until, _size(batch) + len(ids))
        self._gatherer.bytes_in_flight += part.size
        self._waiting.append(part)
        self._filled.set()
        return answer

    def close(self) -> None:
        """End the calls; answer what waits with Unavailable."""
        self._closed = True
        if self._pump is not None:
            self._pump.cancel()
        for call in self._calls:
            call.cancel()
        while self._waiting:
            self._done(self._waiting.popleft(), Unavailable("the door is closing"))

    async def _run(self) -> None:
        while True:
            await self._filled.wait()
            if self._calls:
                # A call is out: gather a little, the next call is cheaper the more it carries.
                patience = self._waiting[0].since + self._gather_s - time.monotonic()
                if patience > 0:
                    self._freed.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(patience):
                            await self._freed.wait()
            else:
                await asyncio.sleep(0)  # whatever other streams have ready in this turn of the loop goes along
            while len(self._calls) >= CALLS_IN_FLIGHT:
                self._freed.clear()
                await self._freed.wait()
            parts = self._take()
            if parts:
                call = asyncio.create_task(self._call(parts))
                self._calls.add(call)
                call.add_done_callback(self._ended)

    def _take(self) -> list[_Part]:
        parts: list[_Part] = []
        room = CALL_READINGS_MAX
        while self._waiting and (not parts or len(self._waiting[0].batch) <= room):
            part = self._waiting.popleft()
            if part.answer.done():
                self._done(part)  # its caller has gone
                continue
            parts.append(part)
            room -= len(part.batch)
        if not self._waiting:
            self._filled.clear()
        return parts

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._freed.set()

    async def _call(self, parts: list[_Part]) -> None:
        """Call the shard with the parts until it answers, or each part's deadline has passed."""
        backoff = Backoff()
        try:
            while parts:
                try:
                    async with asyncio.timeout(max(max(part.until for part in parts) - time.monotonic(), 0.001)):
                        sent = [Part(part.ids, part.batch) for part in parts]
                        replies = await self._shards.call(self._shard, "ingest", sent, now_us())
                except (DomainError, RayError) as error:
                    meaning = meaning_of(error)
                    if isinstance(error, RayActorError):
                        self._shards.forget(self._shard)
                    patient = isinstance(meaning, Unavailable) and await backoff.wait(max(part.until for part in parts))
                    now = time.monotonic()
                    for part in parts:
                        if not patient or part.until <= now or part.answer.done():
                            self._done(part, meaning)
                    parts = [part for part in parts if patient and part.until > now and not part.answer.done()]
                    continue
                for part, reply in zip(parts, replies, strict=True):
                    self._done(part, None, (reply.status, reply.last_event_number))
                    self._gatherer.heard_of(reply.last_event_number)
                return
        except asyncio.CancelledError:
            for part in parts:
                self._done(part, Unavailable("the door is closing"))
            raise
        except Exception as error:
            for part in parts:
                self._done(part, error)

    def _done(self, part: _Part, error: BaseException | None = None, result: Any = None) -> None:
        """Give a part its answer, once, and its bytes back."""
        self._gatherer.bytes_in_flight -= part.size
        if part.answer.done():
            return
        if error is not None:
            part.answer.set_exception(error)
        elif result is not None:
            part.answer.set_result(result)
        else:
            part.answer.cancel()
