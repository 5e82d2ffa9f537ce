"""Rows to columns at the speed of bytes: a compiled walk over the encodings of messages, many at a time.

Reading a Python attribute of every field of every message costs 0.2 us each, presence as much again; a hundred thousand rows would
hold the door's event loop for seconds. And thirty calls of numpy a message, for a message of one row, cost as much as gRPC does. So this
kernel reads the bytes of all messages that wait as they came (`read_together`). What is unusual in one (a field that this version does
not know, one that is there twice, text that is no UTF-8) is protobuf's to judge: it parses the message, and the walk reads what protobuf
makes of it (`read_parsed`). Property tests hold both equal to reading attribute by attribute.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt

from actors.rules._compile import frozen
from actors.rules.readings import COLUMNS, F8, I4, I8, LATITUDE, LONGITUDE, NO_SEQUENCE, U1
from services.tag_ids import TagIds
from waybill.v1 import telemetry_pb2

B1 = npt.NDArray[np.bool_]

_FIRST_MEASUREMENT = telemetry_pb2.Reading.TEMPERATURE_C_FIELD_NUMBER
_LAST_MEASUREMENT = telemetry_pb2.Reading.O2_PCT_FIELD_NUMBER
_POSITION = telemetry_pb2.Reading.POSITION_FIELD_NUMBER
_BATCH_ID = telemetry_pb2.IngestRequest.BATCH_ID_FIELD_NUMBER
_ROWS = telemetry_pb2.IngestRequest.ROWS_FIELD_NUMBER
_TAG_ID, _SENSED, _BOOT, _SEQUENCE = 1, 2, 3, 4
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_ID, _ID_END, _BODY, _BODY_END, _MANY, _FIRST, _READ, _PLACES = range(8)
"""Of a message: where its batch id and its rows begin and end, how many rows, the line of its first row, whether it is read."""
_NOTHING = frozen(np.zeros(0, np.uint8))


class Rows(NamedTuple):
    """Rows as columns: `tag` indexes `ids`; values and present are (len(codes), n)."""

    ids: TagIds
    tag: I4
    sensed_us: I8
    boot: I8
    sequence: I8
    codes: tuple[int, ...]
    values: F8
    present: B1


class Together(NamedTuple):
    """Messages read together. batch_ids: of each, None where it is unusual and was not read. The rows of message k are
    starts[k] to starts[k + 1]; all share one table of ids.
    """

    batch_ids: list[str | None]
    starts: list[int]
    rows: Rows


def read_together(messages: Sequence[bytes], rows_max: int) -> Together:
    """Of encoded IngestRequests those that have a batch id, at most rows_max rows, and nothing else."""
    raw = b"".join(messages)
    bounds = np.zeros(len(messages) + 1, np.int64)
    np.cumsum([len(one) for one in messages], out=bounds[1:])
    places = np.zeros((len(messages), _PLACES), np.int64)
    buffer = np.frombuffer(raw, np.uint8)
    total = _outlines(buffer, bounds, rows_max, places)
    start, length, times, values, present = _empty(total)
    mask = _read_all(buffer, places, start, length, times.view(np.uint8), values.view(np.uint8), present)
    told = places.tolist()
    try:
        rows = _columns(buffer, start, length, times, mask, values, present)
        batch_ids = [raw[one[0] : one[1]].decode() if one[_READ] else None for one in told]
    except UnicodeDecodeError:
        if len(messages) == 1:
            return Together([None], [0, 0], _columns(_NOTHING, *_empty(0)[:3], 0, *_empty(0)[3:]))
        return _one_by_one(messages, rows_max)
    return Together(batch_ids, [*(one[_FIRST] for one in told), total], rows)


def _one_by_one(messages: Sequence[bytes], rows_max: int) -> Together:
    """Some id of some message is no UTF-8: the others are read without it."""
    good = [read_together([one], rows_max).batch_ids[0] is not None for one in messages]
    return read_together([one if fine else b"" for one, fine in zip(messages, good, strict=True)], rows_max)


def read_parsed(rows: telemetry_pb2.ReadingRows) -> Rows:
    """The same of what protobuf has parsed; fields that this version does not know are passed over."""
    raw = rows.SerializeToString()
    buffer = np.frombuffer(raw, np.uint8)
    start, length, times, values, present = _empty(len(rows.readings))
    mask = _read(buffer, 0, len(raw), False, 0, len(rows.readings), start, length, times.view(np.uint8), values.view(np.uint8), present)
    if mask < 0:
        raise AssertionError("protobuf gave an encoding that the row reader does not follow")
    return _columns(buffer, start, length, times, mask, values, present)


def _empty(n: int) -> tuple[I4, I4, I8, F8, B1]:
    """Where the ids of n rows begin and how long they are; sensed time, boot and sequence; all columns; what is present."""
    places, times = np.zeros((2, n), np.int32), np.full((3, n), NO_SEQUENCE, np.int64)
    times[0] = 0
    values = np.empty((len(COLUMNS), n))
    values.fill(np.nan)
    return places[0], places[1], times, values, np.zeros((len(COLUMNS), n), np.bool_)


def _columns(buffer: U1, start: I4, length: I4, times: I8, mask: int, values: F8, present: B1) -> Rows:
    n = len(start)
    size = 16
    while size < 2 * n:
        size *= 2
    tag, first = np.empty(n, np.int32), np.empty(n, np.int32)
    many = _same_ids(buffer, start, length, np.full(size, -1, np.int32), tag, first)
    begin = start[first[:many]].astype(np.int64)
    ids = TagIds(buffer, begin, begin + length[first[:many]]).compact()
    ids.text.tobytes().decode()  # raises where one is no UTF-8: protobuf's to judge
    codes = [code for code in range(len(COLUMNS)) if mask >> code & 1]
    return Rows(ids, tag, times[0], times[1], times[2], tuple(codes), values[codes], present[codes])


@nb.njit(cache=True, nogil=True)
def _same_ids(raw: U1, start: I4, length: I4, slots: I4, tag: I4, first: I4) -> int:
    """Number the different ids in the order of their first rows; `slots` (all -1, a power of two long) is a hash table of rows."""
    many, mask = 0, len(slots) - 1
    for row in range(len(start)):
        a, size = start[row], length[row]
        key = np.uint64(1469598103934665603)  # FNV-1a
        for k in range(size):
            key = (key ^ np.uint64(raw[a + k])) * np.uint64(1099511628211)
        at = np.int64((key ^ (key >> np.uint64(32))) & np.uint64(mask))
        while slots[at] >= 0:
            other = slots[at]
            same = length[other] == size
            k = 0
            while same and k < size:
                same = raw[start[other] + k] == raw[a + k]
                k += 1
            if same:
                tag[row] = tag[other]
                break
            at = (at + 1) & mask
        else:
            slots[at] = row
            tag[row] = many
            first[many] = row
            many += 1
    return many


@nb.njit(cache=True, nogil=True)
def _varint(raw: U1, at: int) -> tuple[int, int]:
    """The varint at `at` and the place after it; (0, -1) where it does not end."""
    value = 0
    for k in range(10):
        if at + k >= len(raw):
            return 0, -1
        byte = int(raw[at + k])
        value |= (byte & 0x7F) << (7 * k)
        if byte < 0x80:
            return value, at + k + 1
    return 0, -1


@nb.njit(cache=True, nogil=True)
def _copy8(raw: U1, at: int, into: U1, item: int) -> None:
    for k in range(8):
        into[8 * item + k] = raw[at + k]


@nb.njit(cache=True, nogil=True)
def _passed(raw: U1, at: int, kind: int, end: int) -> int:
    """The place after a field that is not known here, whose value begins at `at`; -1 where it does not end."""
    if kind == _VARINT:
        _, at = _varint(raw, at)
    elif kind == _FIXED64:
        at += 8
    elif kind == _FIXED32:
        at += 4
    elif kind == _BYTES:
        size, at = _varint(raw, at)
        if at >= 0:
            at = at + size if 0 <= size <= end - at else -1
    else:
        return -1
    return at if at <= end else -1


@nb.njit(cache=True, nogil=True)
def _outline(raw: U1, at: int, stop: int, places: I8) -> bool:
    """Find what a message's `places` tell, but for its first row. False where there is anything else in it."""
    ids, rows = 0, 0
    while at < stop:
        key, at = _varint(raw, at)
        if at < 0 or key & 7 != _BYTES:
            return False
        size, at = _varint(raw, at)
        if at < 0 or size < 0 or size > stop - at:
            return False
        if key >> 3 == _BATCH_ID:
            places[_ID], places[_ID_END] = at, at + size
            ids += 1
        elif key >> 3 == _ROWS:
            places[_BODY], places[_BODY_END] = at, at + size
            rows += 1
        else:
            return False
        at += size
    if ids > 1 or rows != 1:
        return False
    at, end = places[_BODY], places[_BODY_END]
    while at < end:
        key, at = _varint(raw, at)
        if at < 0 or key != (1 << 3 | _BYTES):
            return False
        size, at = _varint(raw, at)
        if at < 0 or size < 0 or size > end - at:
            return False
        at += size
        places[_MANY] += 1
    return bool(at == end)


@nb.njit(cache=True, nogil=True)
def _outlines(raw: U1, bounds: I8, rows_max: int, places: I8) -> int:
    """Fill a line of `places` for each message; the rows of all. A message that is not plain, or has more rows, has none."""
    total = 0
    for k in range(len(places)):
        plain = _outline(raw, bounds[k], bounds[k + 1], places[k])
        if not plain or places[k, _MANY] > rows_max:
            places[k, _MANY] = 0
        else:
            places[k, _READ] = 1
        places[k, _FIRST] = total
        total += places[k, _MANY]
    return total


@nb.njit(cache=True, nogil=True)
def _read_all(raw: U1, places: I8, start: I4, length: I4, times: U1, values: U1, present: B1) -> int:
    """Fill the columns with the rows of all messages that are plain; the columns found, a bit for each. The lines of one that turns out
    to be unusual are left as they are, and it is marked so.
    """
    found = 0
    for k in range(len(places)):
        if places[k, _READ]:
            first = places[k, _FIRST]
            mask = _read(
                raw, places[k, _BODY], places[k, _BODY_END], True, first, places[k, _MANY], start, length, times, values, present
            )  # fmt: skip
            if mask < 0:
                places[k, _READ] = 0
            else:
                found |= mask
    return found


@nb.njit(cache=True, nogil=True)
def _read(
    raw: U1, at: int, stop: int, strict: bool, row: int, n: int, start: I4, length: I4, times: U1, values: U1, present: B1
) -> int:  # fmt: skip
    """Fill the columns (given as bytes where they are eight bytes wide) with the n rows in raw[at:stop], from line `row` on; the columns
    found, a bit for each.

    times: sensed time, boot and sequence. -1 where the encoding is not what it must be, or strict and unusual.
    """
    after, mask = row + n, 0
    while at < stop:
        key, at = _varint(raw, at)
        if at < 0:
            return -1
        if key != (1 << 3 | _BYTES):
            at = _passed(raw, at, key & 7, stop)
            if at < 0 or strict:
                return -1
            continue
        size, at = _varint(raw, at)
        end = at + size
        if at < 0 or size < 0 or end > stop or row >= after:
            return -1
        seen = 0
        while at < end:
            key, at = _varint(raw, at)
            if at < 0:
                return -1
            field, kind = key >> 3, key & 7
            if kind == _FIXED64 and at + 8 <= end and _SENSED <= field <= _SEQUENCE:
                _copy8(raw, at, times[field - _SENSED], row)
                at += 8
            elif kind == _FIXED64 and at + 8 <= end and _FIRST_MEASUREMENT <= field <= _LAST_MEASUREMENT:
                code = field - _FIRST_MEASUREMENT
                _copy8(raw, at, values[code], row)
                present[code, row] = True
                mask |= 1 << code
                at += 8
            elif kind == _BYTES and field in (_TAG_ID, _POSITION):
                size, at = _varint(raw, at)
                if at < 0 or size < 0 or at + size > end or (strict and seen >> field & 1):
                    return -1
                seen |= 1 << field
                if field == _TAG_ID:
                    start[row], length[row] = at, size
                else:
                    # A position that is there has both coordinates: what is not on the wire is zero.
                    for code in (LATITUDE, LONGITUDE):
                        for k in range(8):
                            values[code, 8 * row + k] = 0
                        present[code, row] = True
                        mask |= 1 << code
                    inner = at
                    while inner < at + size:
                        key, inner = _varint(raw, inner)
                        if inner < 0:
                            return -1
                        part = key >> 3
                        if key & 7 == _FIXED64 and 1 <= part <= 4 and inner + 8 <= at + size:
                            _copy8(raw, inner, values[LATITUDE + part - 1], row)
                            present[LATITUDE + part - 1, row] = True
                            mask |= 1 << (LATITUDE + part - 1)
                            inner += 8
                        else:
                            inner = _passed(raw, inner, key & 7, at + size)
                            if inner < 0 or strict:
                                return -1
                at += size
            else:
                at = _passed(raw, at, kind, end)
                if at < 0 or strict:
                    return -1
        row += 1
    return mask if row == after else -1


def warm_up() -> None:
    """Compile (or load from the cache) what the first message would otherwise wait for."""
    rows = telemetry_pb2.ReadingRows(readings=[telemetry_pb2.Reading(tag_id="t", position=telemetry_pb2.Position())])
    read_parsed(rows)
    read_together([telemetry_pb2.IngestRequest(rows=rows).SerializeToString()], 1)
