"""What comes in at the same time is decoded at once.

A message of a few rows costs little to read and much to begin with: thirty small arrays in the door, then a call and a commit in every
shard. So the messages of all streams and calls that came while the gatherer would fill a round are decoded together, and go to it each by
itself. Where several streams speak, small messages wait for each other for a moment even when the shards have nothing to do: of a fleet
that reports a little all the time each message would else be a round of its own, at the price of a large one. Who calls once for each
message waits for its answer before the next, and so may one stream: these are decoded at once where the shards have nothing to do, and so
are many bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Hashable
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
WORTH_BYTES = 32 << 10
"""So much is worth a round by itself: it waits for no others while the shards have nothing to do."""
SPEAKS_S = 1.0
"""A stream is said to speak for so long after it was heard, for three times that at most."""
WAITING_BYTES_MAX = 256 << 20
"""So much waits to be decoded, of all streams and calls; beyond: RESOURCE_EXHAUSTED."""


@dataclass(eq=False, slots=True)
class Given:
    """A message that was given in. `outcome`: None where it has no good reading; raises DomainError, and Garbage where the bytes are no
    message. `since`: when it came, monotonic; `streamed`: on a stream. `decoded` is there before the outcome; then `raw`, of `size` bytes,
    is let go. Of one that is refused only its `batch_id` is kept: it may wait for a long time until it may be answered. `ended`: when the
    outcome came, monotonic; inf before.
    """

    raw: bytes
    size: int
    received_us: int
    remaining_s: float | None
    source: str
    outcome: asyncio.Future[Outcome | None]
    since: float
    streamed: bool = False
    decoded: wire.Decoded | None = None
    batch_id: str = ""
    ended: float = math.inf

    def __post_init__(self) -> None:
        self.outcome.add_done_callback(self._end)

    def _end(self, _: object) -> None:
        self.ended = time.monotonic()

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
        self._decoded_at = self._turned_at = -math.inf  # monotonic
        self._speak: set[Hashable] = set()  # the streams that were heard since _turned_at, and before
        self._spoke: set[Hashable] = set()
        self._waiting: deque[Given] = deque()
        self._bytes = 0
        self._next: asyncio.Handle | None = None
        gatherer.when_calm(self._on_calm)

    def put(self, raw: bytes, remaining_s: float | None, source: str, stream: Hashable = None) -> Given:
        """Have the readings of a message committed and judged; see Gatherer.take. stream: that it came on, None for a call of its own."""
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        given = Given(raw, len(raw), now_us(), remaining_s, source, loop.create_future(), now, stream is not None)
        if stream is not None:
            self._hear(stream, now)
        if self._waiting and self._bytes + given.size > WAITING_BYTES_MAX:
            given.refuse(Overloaded(f"{self._bytes} bytes of messages wait to be read", retry_after_s=RETRY_AFTER_S))
            return given
        self._waiting.append(given)
        self._bytes += given.size
        wait_s = max(self._pause_s(now) if given.streamed else 0.0, self._gatherer.patience_s)
        if self._next is None:
            self._next = loop.call_later(wait_s, self._decode)
        else:
            self._again_in(wait_s)
        if self._bytes >= (WORTH_BYTES if self._gatherer.calm else ENOUGH_BYTES) or (self._gatherer.calm and stream is None):
            self._hurry()
        return given

    def _hear(self, stream: Hashable, now: float) -> None:
        self._turn(now)
        self._speak.add(stream)

    def _turn(self, now: float) -> None:
        """Forget who has not spoken for long."""
        if now - self._turned_at > SPEAKS_S:
            recently = now - self._turned_at < 2 * SPEAKS_S
            self._spoke, self._speak, self._turned_at = self._speak if recently else set(), set(), now

    def _pause_s(self, now: float) -> float:
        """How long what waits is to wait for more: until some time after what was decoded last, where several streams speak."""
        self._turn(now)
        alone = len(self._speak) < 2 and len(self._spoke) < 2
        return 0.0 if alone or self._bytes >= WORTH_BYTES else self._decoded_at + self._gatherer.gather_s - now

    def _on_calm(self) -> None:
        if self._waiting and (pause_s := self._pause_s(time.monotonic())) > 0 and all(one.streamed for one in self._waiting):
            self._again_in(pause_s)
        else:
            self._hurry()

    def _again_in(self, seconds: float) -> None:
        """What waits is decoded then, if not before."""
        loop = asyncio.get_running_loop()
        if isinstance(self._next, asyncio.TimerHandle) and self._next.when() > loop.time() + seconds:
            self._next.cancel()
            self._next = loop.call_later(seconds, self._decode)

    def _hurry(self) -> None:
        """What waits is decoded in the next turn."""
        if isinstance(self._next, asyncio.TimerHandle):
            self._next.cancel()
            self._next = asyncio.get_running_loop().call_soon(self._decode)

    def _decode(self) -> None:
        """Decode the next group and give it to the gatherer, which bounds what is in flight; then the next, in another turn."""
        self._next = None
        self._decoded_at = time.monotonic()
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
