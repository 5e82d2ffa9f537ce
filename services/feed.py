"""Following the event log: one look at the database for all watchers of a door, in number order, nothing missed, nothing twice.

The log is gapless and its numbers are given last in each transaction, so whatever one read sees up to its newest number is complete
(actors/journal). The feed keeps the newest events in memory; a watcher that is behind them reads the database itself until it has
caught up. Most events come to the feed with the answers of the shards, as they were written; where a number is missing between these and
what it knows (another door's, a command's, a clock's), it reads. A watcher takes events at its own pace, so a slow one costs no memory;
one that takes nothing for too long is cut (services.status) and resumes from its cursor.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from actors.journal import queries_business as business
from actors.journal import queries_doors as queries
from actors.journal.tables import Event
from actors.rules.errors import DomainError, OutOfRange, Unavailable
from services.backend import Backend

log = logging.getLogger(__name__)

POLL_S = 0.05
"""The feed looks so often where nobody tells it that there is something new."""
KEPT = 10_000
"""Newest events in memory."""
READ = 1_000
"""Events in one read of the database."""
PROGRESS_S = 10.0
"""A watcher hears at least so often up to which number it has seen everything."""


class Piece(NamedTuple):
    """Some events that a watcher asked for, in order, and the number up to which these are all there are."""

    events: list[Event]
    up_to: int


class Feed:
    """The event log for the watchers of one door. Whoever learns that there are newer events says so: `told`, `look`."""

    def __init__(self, backend: Backend) -> None:
        self._news = asyncio.Event()
        self._told: dict[int, Mapping[str, Any]] = {}
        self._unread = True  # there may be events that nobody told
        self._heard = 0  # the newest number that somebody told
        self._backend = backend
        self._recent: deque[Event] = deque(maxlen=KEPT)
        self._newest = 0
        self._watchers = 0
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def told(self, number: int, events: Sequence[Mapping[str, Any]]) -> None:
        """The log has grown to `number`; some of its newest events, as rows, durable."""
        self._heard = max(self._heard, number, *(event["number"] for event in events))
        if len(self._told) + len(events) > KEPT:
            self._told.clear()  # they are read, then
        if self._watchers:
            self._told.update((event["number"], event) for event in events)
        self._news.set()

    def look(self) -> None:
        """There are newer events."""
        self._unread = True
        self._news.set()

    def close(self) -> None:
        """End the watchers with UNAVAILABLE: they go on at another door."""
        self._closing = True
        self._moved.set()
        if self._task is not None:
            self._task.cancel()

    async def follow(
        self, after: int | None, *, prefix: str = "", carrier: str = "", wanted: Callable[[Event], bool] = lambda _: True
    ) -> AsyncIterator[Piece]:
        """Pieces of the log after number `after` (None: from now on), for ever. An empty piece is progress.

        The first piece comes at once. Raises OutOfRange where `after` has not been given yet, Unavailable when the door closes.
        """
        newest = await self._backend.read_first(business.last_event_number)
        if after is not None and after < 0:
            raise OutOfRange("must be 0 or more", field="after_event_number", value=after)
        if after is not None and after > newest:
            raise OutOfRange(f"no event has this number yet; the newest is {newest}", field="after_event_number", value=after)
        seen = newest if after is None else after
        self._watchers += 1
        if self._task is None:
            self._newest = newest
            self._recent.clear()
            self._told.clear()
            self._task = asyncio.create_task(self._look())
        try:
            first, told = True, time.monotonic()
            while not self._closing:
                moved = self._moved
                if seen < self._newest or first:
                    piece = await self._after(seen, prefix, carrier, wanted)
                    seen = max(seen, piece.up_to)
                    if piece.events or first:
                        yield Piece(piece.events, seen)
                        first, told = False, time.monotonic()
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(told + PROGRESS_S - time.monotonic(), 0)):
                        await moved.wait()
                if time.monotonic() >= told + PROGRESS_S:
                    yield Piece([], seen)
                    told = time.monotonic()
            raise Unavailable("the door is closing")
        finally:
            self._watchers -= 1
            if not self._watchers and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _after(self, seen: int, prefix: str, carrier: str, wanted: Callable[[Event], bool]) -> Piece:
        """What comes after `seen`: from memory where that reaches back so far, else the next events from the database."""
        if seen >= self._newest:
            return Piece([], seen)
        if self._recent and self._recent[0].number <= seen + 1:
            skipped = seen + 1 - self._recent[0].number
            up_to = self._newest
            fresh = [self._recent[i] for i in range(skipped, len(self._recent))]
            return Piece([event for event in fresh if _is(event, prefix, carrier) and wanted(event)], up_to)
        found, up_to = await self._backend.read(queries.events, seen, READ, prefix=prefix, carrier=carrier)
        return Piece([event for event in found if wanted(event)], max(up_to, seen))

    async def _look(self) -> None:
        """Keep the newest events in memory as long as somebody watches."""
        while True:
            try:
                async with asyncio.timeout(POLL_S):
                    await self._news.wait()
            except TimeoutError:
                self._unread = True
            self._news.clear()
            try:
                self._know(self._next_told())
                if not self._unread and self._heard <= self._newest:
                    continue
                self._unread = False
                found = await self._backend.read_first(queries.newest_events, self._newest, READ)
                self._know(found)
            except Exception as error:  # without this task its watchers would wait for ever
                log.warning("the event log cannot be read: %s", error, exc_info=not isinstance(error, DomainError))
                await asyncio.sleep(1)
                continue
            if len(found) == READ:
                self.look()

    def _next_told(self) -> list[Event]:
        """What was told of the numbers right after the newest one; what is known already is forgotten."""
        found: list[Event] = []
        while (row := self._told.pop(self._newest + len(found) + 1, None)) is not None:
            found.append(queries.event_of(row))
        if self._told:
            newest = self._newest + len(found)
            self._told = {number: row for number, row in self._told.items() if number > newest}
        return found

    def _know(self, found: list[Event]) -> None:
        if found:
            self._recent.extend(found)
            self._newest = found[-1].number
            self._moved.set()
            self._moved = asyncio.Event()


def _is(event: Event, prefix: str, carrier: str) -> bool:
    return event.kind.startswith(prefix) and (not carrier or event.carrier == carrier)
