"""The door's heart: the readings of all streams that wait are sent as one call per shard.

Messages that wait become one round, as soon as a shard could take a call: their readings are put together and split, once for all, by
the shard their tags live in. Each shard has a lane: what waits there goes out as one Ray call, at most CALLS_IN_FLIGHT at a time, so that
while one call is committed the next one fills by itself. A message is answered when every reading of it is durable, never before, and
waits for no shard that it has no reading for. A shard that is dead or moving is called again with the same readings until the callers'
deadlines: readings carry their own identity, so what was committed before an answer was lost is found to be a duplicate of itself. Bytes
in flight are bounded: past the bound a message is refused with Overloaded (`admission.py`). What waits is taken fairly, live readings first
(`turns.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from ray.exceptions import RayActorError, RayError

from actors.part import Part, pack
from actors.rules.errors import DomainError, Unavailable
from actors.rules.readings import Batch
from services.admission import Admission
from services.deal import split, together
from services.shards import PATIENCE_S, Backoff, Shards, meaning_of, now_us
from services.tag_ids import TagIds, shards_of
from services.turns import Turns

U1 = npt.NDArray[np.uint8]
I8 = npt.NDArray[np.int64]

CALLS_IN_FLIGHT = 2
"""Calls to one shard at a time: one is committed while the next is judged."""
ROUND_READINGS_MAX = 200_000
"""Readings in one round, and in one call; what waits beyond goes into the next."""
LIVE_US = 600_000_000
"""A message whose newest reading is older than this is backlog."""
BACKLOG_READINGS_MAX = 50_000
"""The same of backlog while live readings come: one of them waits no longer than such a call takes."""
NEWS = 0.2
"""Weight of the newest call in what calls take."""
LIVE_S = 10.0
"""Live readings are said to come so long after the last of them. When none come, backlog goes in rounds of full size, a third faster."""


Listener: TypeAlias = Callable[[int, Sequence[Mapping[str, Any]]], None]
"""listener(number, events): the log has grown to this number; some of its newest events, as rows, durable and in order."""


class Outcome(NamedTuple):
    """What became of a message's readings: a status per reading (readings.ACCEPTED, ...) and the newest event number."""

    status: U1
    last_event_number: int


@dataclass(eq=False, slots=True)
class _Message:
    """A message that waits for its outcome. `until` is monotonic."""

    ids: TagIds
    batch: Batch
    until: float
    answer: asyncio.Future[Outcome | None]
    size: int
    source: str
    backlog: bool
    since: float

    def fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Gatherer:
    """Takes decoded messages and gives their outcomes. For one event loop. `gather_s`: so long a round is filled at most; `queue_s`: nobody
    should wait longer than this for a turn."""

    def __init__(self, shards: Shards, *, gather_s: float = 0.04, bytes_max: int = 256 << 20, queue_s: float = 3600.0) -> None:
        self.last_event_number = 0
        self.gather_s = gather_s
        self.admission = Admission(bytes_max, queue_s)
        self._lanes = [_Lane(self, shards, shard) for shard in range(shards.shards)]
        self._waiting: Turns[_Message] = Turns()
        self._filled = asyncio.Event()
        self._freed = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._closed = False
        self._listeners: list[Listener] = []
        self._live_at = -LIVE_S
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked: set[_Message] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf
        self._call_s = gather_s
        self._calm = asyncio.Event()
        self._calm.set()
        self._when_calm: list[Callable[[], None]] = []

    @property
    def bytes_in_flight(self) -> int:
        """Bytes of readings that were taken and have no outcome yet."""
        return self.admission.bytes

    def listen(self, listener: Listener) -> None:
        """Call `listener` whenever a reply says that there are newer events, or brings some."""
        self._listeners.append(listener)

    def heard_of(self, number: int, events: Sequence[Mapping[str, Any]] = ()) -> None:
        """A reply told the newest event number of its shard, perhaps with its events: tell those who wait for events."""
        if events or number > self.last_event_number:
            self.last_event_number = max(number, self.last_event_number)
            for listener in self._listeners:
                listener(number, events)

    def when_calm(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever the shards have nothing to do any more."""
        self._when_calm.append(listener)

    def call_began(self) -> None:
        """A call is out."""
        self._calm.clear()

    def call_ended(self) -> None:
        """A call is over: a round may go out that waited for it."""
        self._freed.set()
        if not any(lane.busy for lane in self._lanes):
            self._calm.set()
            for listener in self._when_calm:
                listener()

    def call_took(self, seconds: float) -> None:
        """A shard answered after so long: rounds follow each other no faster than calls are answered."""
        self._call_s += NEWS * (seconds - self._call_s)

    @property
    def calm(self) -> bool:
        """Whether the shards have nothing to do."""
        return self._calm.is_set()

    @property
    def patience_s(self) -> float:
        """How long a round is filled: for as long as a call takes, and only while shards have something to do."""
        return 0.0 if self.calm else min(self._call_s, self.gather_s)

    def close(self) -> None:
        """End the calls; what still waits is answered with Unavailable."""
        self._closed = True
        if self._pump is not None:
            self._pump.cancel()
        if self._alarm is not None:
            self._alarm.cancel()
        while self._waiting:
            for message in self._waiting.take(ROUND_READINGS_MAX, BACKLOG_READINGS_MAX):
                self.admission.release(message.size)
                message.fail(Unavailable("the door is closing"))
        for lane in self._lanes:
            lane.close()

    async def ingest(self, ids: TagIds, batch: Batch, remaining_s: float | None = None, source: str = "") -> Outcome:
        """`take`, and wait."""
        outcome = await self.take(ids, batch, remaining_s, source)
        assert outcome is not None
        return outcome

    def take(
        self,
        ids: TagIds,
        batch: Batch,
        remaining_s: float | None = None,
        source: str = "",
        answer: asyncio.Future[Outcome | None] | None = None,
        since: float | None = None,
    ) -> asyncio.Future[Outcome | None]:
        """Have the readings committed and judged. The answer comes when all are durable; who wants it no longer cancels it.

        `source`: who sends them; sources take turns. `since`: when they came, monotonic, where that was before now. Raises Overloaded
        (nothing was taken). The answer may raise Unavailable (none until the deadline; some readings may be durable: send again) and
        StorageFull.
        """
        if self._closed:
            raise Unavailable("the door is closing")
        if self._loop is None:  # asking for it each time costs a system call (CPython before 3.12)
            self._loop = asyncio.get_running_loop()
        size = _size(batch)
        now = time.monotonic()
        since = now if since is None else since
        backlog = len(batch) > 0 and int(batch.sensed_us.max()) < now_us() - LIVE_US
        self.admission.admit(source, size, backlog)
        if not backlog:
            self._live_at = now
        until = since + (PATIENCE_S if remaining_s is None else remaining_s)
        answer = self._loop.create_future() if answer is None else answer
        message = _Message(ids, batch, until, answer, size, source, backlog, since)
        self._asked.add(message)
        message.answer.add_done_callback(lambda _: self._answered(message))
        if until < self._alarm_at:
            self._set_alarm(until)
        self._waiting.put(message, source, backlog, len(batch))
        self._filled.set()
        if self._pump is None:
            self._pump = self._loop.create_task(self._run())
        return message.answer

    def _answered(self, message: _Message) -> None:
        self._asked.discard(message)
        if not message.answer.cancelled():
            message.answer.exception()  # nobody may be there any more to be told
        self.admission.answered(message.source, message.size)

    def _set_alarm(self, at: float) -> None:
        """Look for messages whose deadline has passed at `at`, monotonic. One timer for all: most are answered long before."""
        assert self._loop is not None
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = self._loop.call_later(max(at - time.monotonic(), 0), self._ring) if at < math.inf else None

    def _ring(self) -> None:
        now = time.monotonic()
        for message in self._asked:
            if message.until <= now:
                message.fail(Unavailable("there was no answer in time; the outcome is unknown: send it again"))
        self._set_alarm(min((message.until for message in self._asked if message.until > now), default=math.inf))

    async def _run(self) -> None:
        """Make rounds of what waits: at once where the shards have nothing to do, else after gathering a little."""
        while True:
            await self._filled.wait()
            while all(lane.full for lane in self._lanes):
                self._freed.clear()
                await self._freed.wait()
            patience_s = self._waiting.first.since + self.patience_s - time.monotonic()
            if patience_s > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience_s):
                        await self._calm.wait()
            else:
                await asyncio.sleep(0)
            live_come = time.monotonic() - self._live_at < LIVE_S
            taken = self._waiting.take(ROUND_READINGS_MAX, BACKLOG_READINGS_MAX if live_come else ROUND_READINGS_MAX)
            if not self._waiting:
                self._filled.clear()
            for backlog in (False, True):
                messages = [one for one in taken if one.backlog == backlog and not one.answer.done()]  # else its caller has gone
                if messages:
                    self._round(messages)
            for one in taken:
                self.admission.release(one.size)

    def _round(self, messages: list[_Message]) -> None:
        """Send the readings of the messages to their shards' lanes."""
        try:
            ids, batch = together([(one.ids, one.batch) for one in messages])
            parts = split(ids, batch, shards_of(ids, len(self._lanes)))
        except Exception as error:
            for message in messages:
                message.fail(error)
            return
        waited = _Round(messages, len(batch), [rows for _, _, _, rows in parts])
        for number, (shard, part_ids, part, _) in enumerate(parts):
            self._lanes[shard].put(_Waiting(waited, number, Part(part_ids, part), _size(part) + len(part_ids), waited.until(number)))


def _size(batch: Batch) -> int:
    """Bytes of a batch's columns."""
    return len(batch) * 28 + batch.values.nbytes


class _Round:
    """Messages whose readings went out together, and what has come back of them."""

    def __init__(self, messages: list[_Message], total: int, rows: list[I8 | slice]) -> None:
        self._messages = messages
        self._rows = rows
        self._status = np.zeros(total, np.uint8)
        self._ends = np.cumsum([len(message.batch) for message in messages])
        self._number = np.zeros(len(messages), np.int64)
        self._missing = np.zeros(len(messages), np.int64)
        of_row = np.repeat(np.arange(len(messages)), [len(message.batch) for message in messages])
        # Counting them is six times faster than np.unique, which sorts.
        self._touched: list[I8] = [np.flatnonzero(np.bincount(of_row[mine])) for mine in rows]
        for touched in self._touched:
            self._missing[touched] += 1

    def until(self, part: int) -> float:
        """The latest deadline of a part's messages, monotonic."""
        until: float = max(self._messages[i].until for i in self._touched[part].tolist())
        return until

    def wanted(self, part: int) -> bool:
        """Whether anybody still waits for a part."""
        return any(not self._messages[i].answer.done() for i in self._touched[part].tolist())

    def done(self, part: int, status: U1, number: int) -> None:
        """A part is durable: answer the messages that are now complete."""
        self._status[self._rows[part]] = status
        touched = self._touched[part]
        self._missing[touched] -= 1
        self._number[touched] = np.maximum(self._number[touched], number)
        for i in touched[self._missing[touched] == 0].tolist():
            message = self._messages[i]
            if not message.answer.done():
                end = int(self._ends[i])
                message.answer.set_result(Outcome(self._status[end - len(message.batch) : end], int(self._number[i])))

    def failed(self, part: int, error: BaseException) -> None:
        """A part is not to be had: its messages end with the error."""
        for i in self._touched[part].tolist():
            self._messages[i].fail(error)


@dataclass(eq=False, slots=True)
class _Waiting:
    """A part of a round in its shard's lane."""

    round: _Round
    number: int
    part: Part
    size: int
    until: float
    over: bool = False

    @property
    def wanted(self) -> bool:
        return self.round.wanted(self.number)


class _Lane:
    """What waits for one shard, and the calls to it."""

    def __init__(self, gatherer: Gatherer, shards: Shards, shard: int) -> None:
        self._gatherer = gatherer
        self._shards = shards
        self._shard = shard
        self._waiting: deque[_Waiting] = deque()
        self._calls: dict[asyncio.Task[None], list[_Waiting]] = {}
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether a call is out."""
        return bool(self._calls)

    @property
    def full(self) -> bool:
        """Whether no further call may go out now."""
        return len(self._calls) >= CALLS_IN_FLIGHT

    def put(self, waiting: _Waiting) -> None:
        """Queue a part; it goes out as soon as a call may."""
        self._gatherer.admission.hold(waiting.size)
        self._waiting.append(waiting)
        self._send()

    def close(self) -> None:
        """End the calls; answer what waits with Unavailable."""
        self._closed = True
        for call, parts in self._calls.items():
            call.cancel()
            for one in parts:
                self._failed(one, Unavailable("the door is closing"))
        while self._waiting:
            self._failed(self._waiting.popleft(), Unavailable("the door is closing"))

    def _send(self) -> None:
        while self._waiting and len(self._calls) < CALLS_IN_FLIGHT and not self._closed:
            parts: list[_Waiting] = []
            room = ROUND_READINGS_MAX
            while self._waiting and (not parts or len(self._waiting[0].part.batch) <= room):
                one = self._waiting.popleft()
                if one.wanted:
                    parts.append(one)
                    room -= len(one.part.batch)
                else:
                    self._over(one)
            if parts:
                call = asyncio.create_task(self._call(parts))
                self._calls[call] = parts
                self._gatherer.call_began()
                call.add_done_callback(self._ended)

    def _ended(self, call: asyncio.Task[None]) -> None:
        del self._calls[call]
        self._send()
        self._gatherer.call_ended()

    async def _call(self, parts: list[_Waiting]) -> None:
        """Call the shard with the parts until it answers, or the deadlines have passed."""
        backoff = Backoff()
        try:
            while parts:
                until = max(one.until for one in parts)
                began = time.monotonic()
                try:
                    async with asyncio.timeout(max(until - time.monotonic(), 0.001)):
                        replies = await self._shards.call(self._shard, "ingest", pack([one.part for one in parts]), now_us())
                except (DomainError, RayError) as error:
                    meaning = meaning_of(error)
                    if isinstance(error, RayActorError):
                        self._shards.forget(self._shard)
                    again = isinstance(meaning, Unavailable) and await backoff.wait(until)
                    kept = [one for one in parts if again and one.wanted and one.until > time.monotonic()]
                    for one in parts:
                        if one not in kept:
                            self._failed(one, meaning)
                    parts = kept
                    continue
                self._gatherer.call_took(time.monotonic() - began)
                for one, reply in zip(parts, replies, strict=True):
                    self._over(one, done=True)
                    one.round.done(one.number, reply.status, reply.last_event_number)
                    self._gatherer.heard_of(reply.last_event_number, reply.events)
                return
        except TimeoutError:
            for one in parts:
                self._failed(one, Unavailable("there was no answer in time; the outcome is unknown: send it again"))
        except Exception as error:
            for one in parts:
                self._failed(one, error)

    def _failed(self, one: _Waiting, error: BaseException) -> None:
        if self._over(one):
            one.round.failed(one.number, error)

    def _over(self, one: _Waiting, done: bool = False) -> bool:
        """A part is no longer in flight; False where it was not before."""
        if one.over:
            return False
        one.over = True
        self._gatherer.admission.release(one.size, done)
        return True


def warm_up() -> None:
    """Compile (or load from the cache) what the first message would otherwise wait for."""
    one = np.zeros(1, np.int64)
    ids = TagIds.of(["t"])
    split(ids, Batch(np.zeros(1, np.int32), one, one, one, (0,), np.zeros((1, 1))), shards_of(ids, 1))
