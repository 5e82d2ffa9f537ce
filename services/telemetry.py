"""TelemetryService: readings come in on streams and go to the shards gathered; series are read back."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator

import numpy as np

from actors.journal import queries_business as business
from actors.rules import readings
from actors.rules.errors import DomainError, InvalidArgument, NotFound, Unavailable
from actors.rules.readings import ACCEPTED, CONFLICTING, DUPLICATE, FOREVER_US, REFUSED
from services import check, wire
from services.backend import Backend, Context, left
from services.gather import Gatherer, Outcome
from services.intake import Given, Intake
from services.status import status_of
from waybill.v1 import telemetry_pb2, telemetry_pb2_grpc

MESSAGES_AT_ONCE = 64
BYTES_AT_ONCE = 32 << 20
"""What is worked on of one stream; past either the stream is not read."""
READY_S = 0.05
"""Where an answer of a stream could have gone out for so long, answers go first: what would be read now would wait for them."""
SERIES_ROWS = 10_000
"""Rows in a message of a series."""


class _Room:
    """A bound on what is worked on of one stream (one message always fits), and on how long its answers wait for each other."""

    def __init__(self) -> None:
        self._bytes = 0
        self._sending = False
        self._could_go = -math.inf  # since when the answer that goes out could, monotonic
        self._freed = asyncio.Event()

    async def take(self, size: int) -> None:
        """Wait until there is room for `size` bytes, and answers are not behind."""
        while (self._bytes and self._bytes + size > BYTES_AT_ONCE) or self._behind:
            self._freed.clear()
            await self._freed.wait()
        self._bytes += size

    @property
    def _behind(self) -> bool:
        return self._sending and time.monotonic() - self._could_go > READY_S

    def send(self, given: Given) -> None:
        """A message's answer goes out: it could since it was there, and the answer before it could."""
        self._sending, self._could_go = True, max(self._could_go, min(given.ended, time.monotonic()))

    def sent(self, given: Given) -> None:
        """It is out."""
        self._sending = False
        self._bytes -= given.size
        self._freed.set()


class Telemetry(telemetry_pb2_grpc.TelemetryServiceServicer):
    """See telemetry.proto."""

    def __init__(self, backend: Backend, gatherer: Gatherer) -> None:
        self._backend = backend
        self._intake = Intake(gatherer)
        self._readers: set[asyncio.Task[None]] = set()
        self._closing = False

    def close(self) -> None:
        """Read no more from the streams; what was read is answered, then they end with UNAVAILABLE."""
        self._closing = True
        for reader in self._readers:
            reader.cancel()

    async def Ingest(  # type: ignore[override]  # its messages come as bytes
        self, request_iterator: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[telemetry_pb2.IngestResponse]:
        """Messages (as bytes, see door.RAW) are worked on at once and answered in their order."""
        answers: asyncio.Queue[Given | Exception | None] = asyncio.Queue(MESSAGES_AT_ONCE)
        room = _Room()
        working: set[asyncio.Future[Outcome | None]] = set()
        source, stream = context.peer(), object()

        async def read() -> None:
            ending: Exception | None = None
            try:
                async for raw in request_iterator:
                    await room.take(len(raw))
                    given = self._intake.put(raw, left(context), source, stream)
                    working.add(given.outcome)
                    given.outcome.add_done_callback(working.discard)
                    await answers.put(given)
            except asyncio.CancelledError:
                if not self._closing:
                    raise
                ending = Unavailable("the door is closing")
            except Exception as error:
                ending = error
            await answers.put(ending)

        reader = asyncio.create_task(read())
        self._readers.add(reader)
        if self._closing:
            reader.cancel()
        try:
            while isinstance(given := await answers.get(), Given):
                answer = await _answered(given)
                room.send(given)
                yield answer
                room.sent(given)
            if given is not None:
                raise given
        finally:
            self._readers.discard(reader)
            reader.cancel()
            for one in tuple(working):
                one.cancel()

    async def IngestBatch(  # type: ignore[override]  # it comes as bytes
        self, request: bytes, context: Context
    ) -> telemetry_pb2.IngestBatchResponse:
        """One message as one call; what is wrong with it as a whole is the call's status."""
        given = self._intake.put(wire.batch_of(request), left(context), context.peer())
        try:
            outcome = await given.outcome
        except wire.Garbage:
            raise InvalidArgument("the request is not a waybill.v1.IngestBatchRequest: its bytes cannot be parsed") from None
        assert given.decoded is not None
        return telemetry_pb2.IngestBatchResponse(result=_answer(given.decoded, outcome, given.received_us))

    async def ReadTagSeries(
        self, request: telemetry_pb2.ReadTagSeriesRequest, context: Context
    ) -> AsyncIterator[telemetry_pb2.ReadTagSeriesResponse]:
        """One tag's stored readings."""
        tag_id = check.text(request.tag_id, "tag_id", required=True)
        from_us, until_us = check.interval_us(request)
        codes = wire.codes_of(request.metrics)
        async for series in self._series(tag_id, from_us, until_us, codes, context):
            yield telemetry_pb2.ReadTagSeriesResponse(series=series)

    async def ReadShipmentSeries(
        self, request: telemetry_pb2.ReadShipmentSeriesRequest, context: Context
    ) -> AsyncIterator[telemetry_pb2.ReadShipmentSeriesResponse]:
        """What belongs to a shipment by custody at sensed time, tag after tag."""
        shipment_id = check.text(request.shipment_id, "shipment_id", required=True)
        from_us, until_us = check.interval_us(request)
        codes = wire.codes_of(request.metrics)
        if await self._backend.read(business.shipment, shipment_id) is None:
            raise NotFound("no such shipment", field="shipment_id", value=shipment_id)
        carrier = business.shipment_carrier(shipment_id)
        custodies = await self._backend.read(business.custodies, carrier, limit=wire.READINGS_MAX)
        for custody in sorted(custodies, key=lambda one: (one.tag_id, one.from_us)):
            start = max(custody.from_us, from_us or 0)
            end = min(custody.until_us or FOREVER_US, until_us or FOREVER_US)
            if start < end:
                async for series in self._series(custody.tag_id, start, end, codes, context):
                    yield telemetry_pb2.ReadShipmentSeriesResponse(
                        series=series, custody_id=custody.custody_id, handling_unit_id=custody.handling_unit_id or ""
                    )

    async def _series(
        self, tag_id: str, from_us: int | None, until_us: int | None, codes: tuple[int, ...], context: Context
    ) -> AsyncIterator[telemetry_pb2.SeriesColumns]:
        async for batch, flags in self._backend.series_parts(tag_id, from_us, until_us, context):
            kept = [k for k, code in enumerate(batch.codes) if code in codes]
            values, told = batch.values[kept], flags[kept]
            some = ~np.isnan(values).all(axis=0) if kept else np.zeros(len(batch), np.bool_)
            chosen = readings.Batch(batch.tag, batch.sensed_us, batch.boot, batch.sequence, tuple(batch.codes[k] for k in kept), values)
            rows = np.flatnonzero(some)
            for start in range(0, len(rows), SERIES_ROWS):
                piece = rows[start : start + SERIES_ROWS]
                yield wire.to_series(tag_id, readings.subset(chosen, piece), told[:, piece])


async def _answered(given: Given) -> telemetry_pb2.IngestResponse:
    """The answer to a message of a stream, when there is one. Raises InvalidArgument where its bytes are no message."""
    try:
        outcome = await given.outcome
    except DomainError as error:
        return telemetry_pb2.IngestResponse(
            batch_id=_batch_id(given)[: wire.BATCH_ID_MAX], error=status_of(error), received_time=check.timestamp(given.received_us)
        )
    except wire.Garbage as garbage:
        raise InvalidArgument(str(garbage)) from None
    assert given.decoded is not None
    return _answer(given.decoded, outcome, given.received_us)


def _batch_id(given: Given) -> str:
    return given.batch_id if given.decoded is None else given.decoded.batch_id


def _answer(decoded: wire.Decoded, outcome: Outcome | None, received_us: int) -> telemetry_pb2.IngestResponse:
    """What is said of a message whose good readings had this outcome."""
    received_time, number = check.timestamp(received_us), outcome.last_event_number if outcome is not None else 0
    if outcome is not None and len(outcome.status) == decoded.total and not outcome.status.any():
        return telemetry_pb2.IngestResponse(
            batch_id=decoded.batch_id, accepted=decoded.total, received_time=received_time, last_event_number=number
        )
    status, refusals = np.full(decoded.total, REFUSED, np.uint8), decoded.refusals
    if outcome is not None:
        status[decoded.rows] = outcome.status
        unknown = decoded.rows[outcome.status == REFUSED]
        if len(unknown):
            refusals = _with_unknown_tags(decoded, unknown.tolist())
    counts = np.bincount(status, minlength=REFUSED + 1)
    return telemetry_pb2.IngestResponse(
        batch_id=decoded.batch_id,
        accepted=int(counts[ACCEPTED]),
        duplicate=int(counts[DUPLICATE]),
        conflicting=int(counts[CONFLICTING]),
        refused=int(counts[REFUSED]),
        refusals=[
            telemetry_pb2.Refusal(index=refusal.row, field=refusal.field, value=refusal.value, rule=refusal.rule) for refusal in refusals
        ],
        refused_indexes=np.flatnonzero(status == REFUSED).tolist() if counts[REFUSED] else (),
        conflicting_indexes=np.flatnonzero(status == CONFLICTING).tolist() if counts[CONFLICTING] else (),
        received_time=received_time,
        last_event_number=number,
    )


def _with_unknown_tags(decoded: wire.Decoded, rows: list[int]) -> list[readings.Refusal]:
    """The refusals of a message and those of readings whose tags the shards do not know (where tags must be registered first)."""
    tag_of_row = dict(zip(decoded.rows.tolist(), decoded.batch.tag.tolist(), strict=True))
    unknown = [
        readings.Refusal(row, "tag_id", decoded.ids[tag_of_row[row]], "is not registered, and this system registers no tag by its readings")
        for row in rows[: wire.REFUSALS_MAX]
    ]
    return sorted([*decoded.refusals, *unknown], key=lambda refusal: refusal.row)[: wire.REFUSALS_MAX]
