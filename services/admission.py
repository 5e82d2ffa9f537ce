"""How much a door takes: bounded in bytes, in the time that it would wait, and by source where others wait too."""

from __future__ import annotations

import math
import time
from collections import Counter

from actors.rules.errors import Overloaded

RETRY_AFTER_S = 0.2
FREE_BYTES = 1 << 20
"""So much may always wait: nobody is refused for a queue that is not worth speaking of."""
MEASURED_S = 0.25
"""The rate is measured over stretches of at least so long in which there was always work.

Where less than FREE_BYTES waited, more could have been done in the time: such a stretch shows at most that the rate is higher.
"""
NEWS = 0.3
"""Weight of the newest stretch."""
OUTAGE_S = 1.0
"""A shard that was away for so long says nothing about how fast it is: such a stretch does not count."""
BACKLOG_SHARE = 0.5
"""Backlog is refused when this part of the room is taken; the rest is kept for live readings."""
FAIR_FROM = 0.5
"""When this part of the room is taken, no source may hold more than its share of it."""
ALONE = 0.75
"""The share of a source that is alone: who comes next finds room."""


class Admission:
    """Bytes in flight, and whether more may come. For one event loop.

    The room is `bytes_max`, or what is done in `queue_s` at the measured rate where that is less: a reading that would wait longer is
    refused at once, so that those that are taken are answered soon, whatever comes.
    """

    def __init__(self, bytes_max: int, queue_s: float) -> None:
        self.bytes = 0
        self._bytes_max = bytes_max
        self._queue_s = queue_s
        self._sources: Counter[str] = Counter()
        self._rate = 0.0  # bytes a second; 0: not yet known
        self._since: float | None = None  # since when there has always been work
        self._done = 0
        self._least = math.inf  # so many bytes were in flight at least since the first of the stretch was done
        self._last = 0.0  # when something was last done

    @property
    def room(self) -> float:
        """Bytes that may be in flight."""
        return min(self._bytes_max, max(FREE_BYTES, self._rate * self._queue_s)) if self._rate else self._bytes_max

    def check(self, size: int) -> None:
        """Raise Overloaded where a message of about so many bytes would surely be refused: before it costs anything."""
        if self.bytes and self.bytes + size // 2 > self.room:
            raise Overloaded(f"{self.bytes} bytes of readings are in flight", retry_after_s=RETRY_AFTER_S)

    def admit(self, source: str, size: int, backlog: bool) -> None:
        """Take a message of a source. Raises Overloaded, and has taken nothing then."""
        room = self.room
        after = self.bytes + size
        if self.bytes and after > room * (BACKLOG_SHARE if backlog else 1.0):
            raise Overloaded(f"{self.bytes} bytes of readings are in flight", retry_after_s=RETRY_AFTER_S)
        mine = self._sources.get(source, 0)
        share = room / len(self._sources) if len(self._sources) > 1 else room * ALONE
        if after > self._bytes_max or (mine and after > room * FAIR_FROM and mine + size > share):
            raise Overloaded(f"{mine} bytes of this gateway's readings are in flight, and others wait", retry_after_s=RETRY_AFTER_S)
        self._sources[source] += size
        self.hold(size)

    def answered(self, source: str, size: int) -> None:
        """A message of a source has its answer."""
        self._sources[source] -= size
        if self._sources[source] <= 0:
            del self._sources[source]

    def hold(self, size: int) -> None:
        """So many bytes more are in flight."""
        if self._since is None:
            self._begin(time.monotonic())
        self.bytes += size

    def release(self, size: int, done: bool = False) -> None:
        """So many bytes less are in flight; `done`: they are durable."""
        self.bytes -= size
        self._least = min(self._least, self.bytes)
        if done:
            self._done += size
            self._measure()
        if not self.bytes:
            self._since = None

    def _begin(self, now: float) -> None:
        self._since, self._done, self._least = now, 0, math.inf

    def _measure(self) -> None:
        now = time.monotonic()
        if self._since is not None and now - max(self._last, self._since) > OUTAGE_S:
            self._begin(now)
        self._last = now
        if self._since is None or now - self._since < MEASURED_S:
            return
        rate = self._done / (now - self._since)
        if self._least >= FREE_BYTES or 0 < self._rate < rate:
            self._rate = rate if not self._rate else (1 - NEWS) * self._rate + NEWS * rate
        self._begin(now)
