"""Batches of readings between the wire (protobuf rows or packed columns) and the inside (`actors.rules.readings.Batch`).

`decode` keeps the good readings of a message and says of each other one why it is refused. What is wrong with a message as a whole
raises InvalidArgument. Columns go from protobuf to numpy through `__array__` of the repeated fields, a copy of memory each
(the pure-Python protobuf has none; `tests/services/test_wire.py` holds that ours has).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from actors.rules import readings
from actors.rules.errors import InvalidArgument
from actors.rules.readings import COLUMNS, LATITUDE, LONGITUDE, NO_SEQUENCE, POSITION, Batch, Refusal
from services import rows as row_reader
from services.tag_ids import TagIds, malformed
from waybill.v1 import common_pb2, telemetry_pb2

B1 = npt.NDArray[np.bool_]
I8 = npt.NDArray[np.int64]

READINGS_MAX = 100_000
"""Readings in a message."""
BYTES_MAX = 8 << 20
"""Encoded size of a message."""
BATCH_ID_MAX = 64
"""Characters of a batch id."""
_BATCH = bytes([telemetry_pb2.IngestBatchRequest.BATCH_FIELD_NUMBER << 3 | 2])
TOGETHER_BYTES = 64 << 10
"""Messages up to this size that wait are decoded together."""
REFUSALS_MAX = 1_000
"""Refused readings of which the answer says why; the indexes of all are given."""

METRIC_OF_CODE: dict[int, int] = {code: code + 1 for code in range(len(COLUMNS))}
"""The contract's Metric number of a column code. A test holds the names of both equal."""


_EVERY: I8 = np.arange(READINGS_MAX)
_EVERY.flags.writeable = False


@dataclass(frozen=True, slots=True)
class Decoded:
    """A message's good readings (`batch`, its tag column indexing `ids`) and what is said of the others.

    rows: index in the message of each reading of `batch`. refusals: the first REFUSALS_MAX, by row.
    """

    batch_id: str
    ids: TagIds
    batch: Batch
    rows: I8
    total: int
    refusals: list[Refusal]


def decode(request: telemetry_pb2.IngestRequest, received_us: int, size: int | None = None) -> Decoded:
    """The readings of a message. `size`: its ByteSize() where that is known, for protobuf counts anew each time.

    Raises InvalidArgument where the message as a whole cannot be taken.
    """
    size = request.ByteSize() if size is None else size
    if size > BYTES_MAX:
        raise InvalidArgument(f"a message has at most {BYTES_MAX} bytes", value=size)
    _named(request.batch_id)
    payload = request.WhichOneof("payload")
    if payload == "rows":
        _sized(len(request.rows.readings))
        rows = row_reader.read_parsed(request.rows)
        batch = Batch(rows.tag, rows.sensed_us, rows.boot, rows.sequence, rows.codes, rows.values)
        return _checked(request.batch_id, rows.ids, batch, rows.present, None, received_us)
    if payload == "columns":
        return _checked(request.batch_id, *_from_columns(request.columns), received_us)
    raise InvalidArgument("rows or columns must be given", field="payload")


def decode_together(messages: Sequence[bytes], received_us: int) -> list[Decoded | InvalidArgument | Garbage]:
    """Each of some encoded messages as `decode` gives it (it may have columns more, without a value), or why it cannot be taken."""
    found: list[Decoded | InvalidArgument | Garbage | None] = [None] * len(messages)
    small = [k for k, raw in enumerate(messages) if len(raw) <= TOGETHER_BYTES]
    large = [[k] for k, raw in enumerate(messages) if TOGETHER_BYTES < len(raw) <= BYTES_MAX]
    for group in (small, *large):
        together = row_reader.read_together([messages[k] for k in group], READINGS_MAX)
        for k, decoded in zip(group, _parts(together, received_us), strict=True):
            found[k] = decoded
    return [one if one is not None else _parsed(messages[k], received_us) for k, one in enumerate(found)]


def _parts(together: row_reader.Together, received_us: int) -> list[Decoded | InvalidArgument | None]:
    """The messages that were read together, each by itself. Checked are they together; where something is wrong, one by one."""
    rows = together.rows
    whole = Batch(rows.tag, rows.sensed_us, rows.boot, rows.sequence, rows.codes, rows.values)
    fine = bool(readings.check(whole, received_us, rows.present, 0)[1].all()) and not malformed(rows.ids)
    parts: list[Decoded | InvalidArgument | None] = []
    for batch_id, start, end in zip(together.batch_ids, together.starts, together.starts[1:], strict=False):
        if batch_id is None:
            parts.append(None)
            continue
        try:
            _named(batch_id)
            _sized(end - start)
        except InvalidArgument as error:
            parts.append(error)
            continue
        mine = slice(start, end)
        if fine:
            columns = rows.tag[mine], rows.sensed_us[mine], rows.boot[mine], rows.sequence[mine]
            n = end - start
            parts.append(Decoded(batch_id, rows.ids, Batch(*columns, rows.codes, rows.values[:, mine]), _EVERY[:n], n, []))
        else:
            batch = readings.subset(whole, mine)
            used, tag = np.unique(batch.tag, return_inverse=True)
            batch = replace(batch, tag=tag.astype(np.int32))
            present = np.ascontiguousarray(rows.present[:, mine])
            parts.append(_checked(batch_id, rows.ids.subset(used).compact(), batch, present, None, received_us))
    return parts


def _parsed(raw: bytes, received_us: int) -> Decoded | InvalidArgument | Garbage:
    try:
        return decode(parse(raw), received_us, len(raw))
    except (InvalidArgument, Garbage) as error:
        return error


def batch_of(raw: bytes) -> bytes:
    """The encoded message that an encoded IngestBatchRequest carries. Raises InvalidArgument."""
    size, at, shift = 0, 1, 0
    if raw[:1] == _BATCH:  # as every encoder writes it: nothing but the one field
        while at < min(len(raw), 6):
            size |= (raw[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if raw[at - 1] < 0x80:
                if size == len(raw) - at:
                    return raw[at:]
                break
    try:
        request = telemetry_pb2.IngestBatchRequest.FromString(raw)
    except DecodeError:
        raise InvalidArgument("the request is not a waybill.v1.IngestBatchRequest: its bytes cannot be parsed") from None
    if not request.HasField("batch"):
        raise InvalidArgument("must be given", field="batch")
    return request.batch.SerializeToString()


def parse(raw: bytes) -> telemetry_pb2.IngestRequest:
    """The message. Raises Garbage."""
    try:
        return telemetry_pb2.IngestRequest.FromString(raw)
    except DecodeError:
        raise Garbage("the request is not a waybill.v1.IngestRequest: its bytes cannot be parsed") from None


class Garbage(ValueError):
    """Bytes that are no message: what follows them on a stream cannot be trusted."""


def _named(batch_id: str) -> None:
    if len(batch_id) > BATCH_ID_MAX or not (batch_id == "" or batch_id.isprintable()):
        raise InvalidArgument(f"must be at most {BATCH_ID_MAX} printable characters", field="batch_id", value=batch_id)


def _checked(
    batch_id: str, ids: TagIds, batch: Batch, present: B1, unknown_tag: npt.NDArray[Any] | None, received_us: int
) -> Decoded:  # fmt: skip
    """The good readings, and what is said of the others."""
    refusals, ok = readings.check(batch, received_us, present, REFUSALS_MAX)
    wrong_ids = malformed(ids)
    if wrong_ids or unknown_tag is not None:
        refusals, ok = _with_wrong_tags(ids, batch, refusals, ok, wrong_ids, unknown_tag)
    if len(refusals) == 0:
        return Decoded(batch_id, ids, batch, np.arange(len(batch)), len(batch), [])
    return Decoded(batch_id, ids, readings.subset(batch, ok), np.flatnonzero(ok), len(batch), refusals[:REFUSALS_MAX])


def _with_wrong_tags(
    ids: TagIds, batch: Batch, refusals: list[Refusal], ok: B1, wrong_ids: dict[int, str], unknown_tag: npt.NDArray[Any] | None
) -> tuple[list[Refusal], B1]:
    """What a reading's tag breaks comes before what its values break. Of each kind the first REFUSALS_MAX are explained."""
    found: dict[int, Refusal] = {refusal.row: refusal for refusal in refusals}
    wrong = np.isin(batch.tag, list(wrong_ids))
    for row in np.flatnonzero(wrong)[:REFUSALS_MAX].tolist():
        index = int(batch.tag[row])
        found[row] = Refusal(row, "tag_id", ids[index][:128], wrong_ids[index])
    if unknown_tag is not None:
        beyond = unknown_tag >= len(ids)
        wrong |= beyond
        for row in np.flatnonzero(beyond)[:REFUSALS_MAX].tolist():
            found[row] = Refusal(row, "tag_index", str(unknown_tag[row]), f"must be below {len(ids)}, the number of tag_ids")
    return [found[row] for row in sorted(found)], ok & ~wrong


def _sized(n: int) -> None:
    if n == 0:
        raise InvalidArgument("a message carries at least one reading", field="payload")
    if n > READINGS_MAX:
        raise InvalidArgument(f"a message carries at most {READINGS_MAX} readings", field="payload", value=n)


def _from_columns(message: telemetry_pb2.ReadingColumns) -> tuple[TagIds, Batch, B1, npt.NDArray[Any] | None]:
    sensed_us = np.array(message.sensed_at_us)
    n = len(sensed_us)
    _sized(n)
    if len(message.tag_ids) > READINGS_MAX:
        raise InvalidArgument(f"must have at most {READINGS_MAX} entries", field="columns.tag_ids", value=len(message.tag_ids))
    index = _column(message.tag_index, n, "columns.tag_index")
    boot, sequence = (_optional(column, n, f"columns.{name}") for column, name in ((message.boot, "boot"), (message.sequence, "sequence")))
    beyond = index if bool(index.max() >= len(message.tag_ids)) else None
    tag = index.astype(np.int32) if beyond is None else np.where(index < len(message.tag_ids), index, 0).astype(np.int32)

    by_code: dict[int, tuple[int, telemetry_pb2.Column]] = {}
    for place, column in enumerate(message.columns):
        code = column.metric - 1
        if not 0 <= code < len(COLUMNS):
            raise InvalidArgument("is no metric that this version knows", field=f"columns.columns[{place}].metric", value=column.metric)
        if code in by_code:
            raise InvalidArgument(f"{COLUMNS[code].name} is there twice", field=f"columns.columns[{place}].metric", value=column.metric)
        by_code[code] = place, column
    codes = tuple(sorted(by_code))
    values, present = np.empty((len(codes), n)), np.empty((len(codes), n), np.bool_)
    for k, code in enumerate(codes):
        place, column = by_code[code]
        _fill(column, values[k], present[k], f"columns.columns[{place}]")
    return TagIds.of(message.tag_ids), Batch(tag, sensed_us, boot, sequence, codes, values), present, beyond


def _column(field: Any, n: int, name: str) -> npt.NDArray[Any]:
    column = np.array(field)
    if len(column) != n:
        raise InvalidArgument(f"must have {n} entries like sensed_at_us, has {len(column)}", field=name, value=len(column))
    return column


def _optional(field: Any, n: int, name: str) -> I8:
    """A column of n numbers as int64, NO_SEQUENCE throughout where it is empty. All bits set is NO_SEQUENCE as it stands."""
    return _column(field, n, name).view(np.int64) if len(field) else np.full(n, NO_SEQUENCE, np.int64)


def _fill(column: telemetry_pb2.Column, values: npt.NDArray[np.float64], present: B1, name: str) -> None:
    n = len(values)
    if not len(column.rows):
        values[:] = _column(column.values, n, f"{name}.values")
        present[:] = True
        return
    places = np.array(column.rows).astype(np.int64)
    given = np.array(column.values)
    if len(given) != len(places):
        raise InvalidArgument(f"must have {len(places)} entries like rows, has {len(given)}", field=f"{name}.values", value=len(given))
    if places[-1] >= n or (len(places) > 1 and bool((np.diff(places) <= 0).any())):
        raise InvalidArgument(f"must be strictly ascending and below {n}", field=f"{name}.rows", value=int(places.max()))
    values[:] = np.nan
    present[:] = False
    values[places] = given
    present[places] = True


# ---------------------------------------------------------------- the other way: for clients, and for reading back


def to_columns(ids: Sequence[str], batch: Batch) -> telemetry_pb2.ReadingColumns:
    """The batch as packed columns, the fastest form to send. `batch.tag` indexes `ids`."""
    message = telemetry_pb2.ReadingColumns(tag_ids=ids)
    message.tag_index.extend(batch.tag.tolist())
    message.sensed_at_us.extend(batch.sensed_us.tolist())
    if len(batch) and bool((batch.boot != NO_SEQUENCE).any()):
        message.boot.extend(batch.boot.view(np.uint64).tolist())
        message.sequence.extend(batch.sequence.view(np.uint64).tolist())
    for code, values in zip(batch.codes, batch.values, strict=True):
        there = ~np.isnan(values)
        if there.all():
            message.columns.add(metric=_metric(code)).values.extend(values.tolist())
        elif there.any():
            places = np.flatnonzero(there)
            message.columns.add(metric=_metric(code), values=values[places].tolist(), rows=places.tolist())
    return message


def to_rows(ids: Sequence[str], batch: Batch) -> telemetry_pb2.ReadingRows:
    """The batch as one message per reading, the simplest form to send."""
    message = telemetry_pb2.ReadingRows()
    for i in range(len(batch)):
        reading = message.readings.add(tag_id=ids[batch.tag[i]], sensed_at_us=int(batch.sensed_us[i]))
        if batch.boot[i] != NO_SEQUENCE:
            reading.boot, reading.sequence = int(batch.boot[i]), int(batch.sequence[i])
        for code, value in zip(batch.codes, batch.values[:, i].tolist(), strict=True):
            if value == value:
                setattr(reading.position if code in POSITION else reading, COLUMNS[code].name, value)
    return message


def _metric(code: int) -> Any:
    return METRIC_OF_CODE[code]


def codes_of(metrics: Sequence[int], field: str = "metrics") -> tuple[int, ...]:
    """Column codes of the metrics asked for, ascending; all where none is. Either coordinate brings both."""
    if not metrics:
        return tuple(range(len(COLUMNS)))
    if common_pb2.METRIC_UNSPECIFIED in metrics:
        raise InvalidArgument("must name a metric", field=field, value=0)
    codes = {metric - 1 for metric in metrics}
    if codes & {LATITUDE, LONGITUDE}:
        codes |= {LATITUDE, LONGITUDE}
    return tuple(sorted(codes))


def to_series(tag_id: str, batch: Batch, flags: npt.NDArray[np.uint8]) -> telemetry_pb2.SeriesColumns:
    """Stored readings of one tag for reading back; flags: (len(codes), n) QARTOD flags."""
    message = telemetry_pb2.SeriesColumns(tag_id=tag_id)
    message.sensed_at_us.extend(batch.sensed_us.tolist())
    if bool((batch.boot != NO_SEQUENCE).any()):
        message.boot.extend(batch.boot.view(np.uint64).tolist())
        message.sequence.extend(batch.sequence.view(np.uint64).tolist())
    for k, code in enumerate(batch.codes):
        if not np.isnan(batch.values[k]).all():
            message.columns.add(metric=_metric(code), values=batch.values[k].tolist(), flags=flags[k].tobytes())
    return message
