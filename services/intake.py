"""What comes in at the same time is decoded at once.

A message of a few rows costs little to read and much to begin with: thirty small arrays. So the messages of all streams and calls that
came while the gatherer would fill a round are decoded together, and go to it each by itself. Where the shards have nothing to do, one is
decoded at once; so are many bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import dataclass

from actors.rules.errors import DomainError, Overloaded
from services import wire
from services.admission import RETRY_AFTER_S
from services.gather import Gatherer, Outcome
from services.shards import now_us

GROUP_BYTES = 256 << 10
"""So much is decoded at once, or one message. As columns it is up to seventy times that, where rows are empty; more would be no faster."""
ENOUGH_BYTES = 64 << 10
"""When so much waits, more would save nothing: it is decoded at once."""
WAITING_BYTES_MAX = 256 << 20
"""So much waits to be decoded, of all streams and calls; beyond: RESOURCE_EXHAUSTED."""


@dataclass(eq=False, slots=True)
class Given:
    """A message that was given in. `outcome`: None where it has no good reading; raises DomainError, and Garbage where the bytes are no
    message. `since`: when it came, monotonic. `decoded` is there before the outcome; then `raw`, of `size` bytes, is let go. Of one that is
    refused only its `batch_id` is kept: it may wait for a long time until it may be answered.
    """

    raw: bytes
    size: int
    received_us: int
    remaining_s: float | None
    source: str
    outcome: asyncio.Future[Outcome | None]
    since: float
    decoded: wire.Decoded | None = None
    batch_id: str = ""

    def refuse(self, error: DomainError) -> None:
        """It is not taken."""
        if self.decoded is not None:
            self.batch_id = self.decoded.batch_id
        else:
            with contextlib.suppress(wire.Garbage):
                self.batch_id = wire.parse(self.raw).batch_id
        self.raw, self.decoded = b"", None
        self.outcome.set_exception(error)


class Intake:
    """Takes encoded IngestRequests. For one event loop."""

    def __init__(self, gatherer: Gatherer) -> None:
        self._gatherer = gatherer
        self._waiting: deque[Given] = deque()
        self._bytes = 0
        self._next: asyncio.Handle | None = None
        gatherer.when_calm(self._hurry)

    def put(self, raw: bytes, remaining_s: float | None, source: str) -> Given:
        """Have the readings of a message committed and judged; see Gatherer.take."""
        loop = asyncio.get_running_loop()
        given = Given(raw, len(raw), now_us(), remaining_s, source, loop.create_future(), time.monotonic())
        if self._waiting and self._bytes + given.size > WAITING_BYTES_MAX:
            given.refuse(Overloaded(f"{self._bytes} bytes of messages wait to be read", retry_after_s=RETRY_AFTER_S))
            return given
        self._waiting.append(given)
        self._bytes += given.size
        if self._next is None:
            self._next = loop.call_later(self._gatherer.patience_s, self._decode)
        if self._bytes >= ENOUGH_BYTES:
            self._hurry()
        return given

    def _hurry(self) -> None:
        """What waits is decoded in the next turn."""
        if isinstance(self._next, asyncio.TimerHandle):
            self._next.cancel()
            self._next = asyncio.get_running_loop().call_soon(self._decode)

    def _decode(self) -> None:
        """Decode the next group and give it to the gatherer, which bounds what is in flight; then the next, in another turn."""
        self._next = None
        group: list[Given] = []
        size = 0
        while self._waiting and (not group or size + self._waiting[0].size <= GROUP_BYTES):
            one = self._waiting.popleft()
            self._bytes -= one.size
            if one.outcome.done():  # its caller has gone
                continue
            try:
                self._gatherer.admission.check(one.size)  # before it costs anything
            except DomainError as error:
                one.refuse(error)
                continue
            group.append(one)
            size += one.size
        if self._waiting:
            self._next = asyncio.get_running_loop().call_soon(self._decode)
        try:
            decoded = wire.decode_together([one.raw for one in group], now_us()) if group else []
        except Exception as error:
            for one in group:
                one.outcome.set_exception(error)
            return
        for one, found in zip(group, decoded, strict=True):
            self._take(one, found)

    def _take(self, one: Given, found: wire.Decoded | Exception) -> None:
        if isinstance(found, DomainError):
            one.refuse(found)
            return
        if isinstance(found, Exception):
            one.outcome.set_exception(found)
            return
        one.decoded, one.raw = found, b""
        if not len(found.batch):
            one.outcome.set_result(None)
            return
        try:
            self._gatherer.take(found.ids, found.batch, one.remaining_s, one.source, one.outcome, one.since)
        except DomainError as error:
            one.refuse(error)
