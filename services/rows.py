"""ReadingRows to columns at the speed of bytes: a compiled walk over the message's own encoding.

Reading a Python attribute of every field of every message costs 0.2 us each, presence as much again; a hundred thousand rows would
hold the door's event loop for seconds. So the message (parsed and thereby proven well formed by protobuf) is encoded again, and this
kernel reads that encoding. A property test holds it equal to reading attribute by attribute.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt

from actors.rules.readings import COLUMNS, F8, I4, I8, LATITUDE, LONGITUDE, NO_SEQUENCE, U1
from waybill.v1 import telemetry_pb2

B1 = npt.NDArray[np.bool_]

_FIRST_MEASUREMENT = telemetry_pb2.Reading.TEMPERATURE_C_FIELD_NUMBER
_LAST_MEASUREMENT = telemetry_pb2.Reading.O2_PCT_FIELD_NUMBER
_POSITION = telemetry_pb2.Reading.POSITION_FIELD_NUMBER
_TAG_ID, _SENSED, _BOOT, _SEQUENCE = 1, 2, 3, 4
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Rows(NamedTuple):
    """Rows as columns: `tag` indexes `ids`; values and present are (number of column codes, n)."""

    ids: list[str]
    tag: I4
    sensed_us: I8
    boot: I8
    sequence: I8
    values: F8
    present: B1


def read(rows: telemetry_pb2.ReadingRows) -> Rows:
    """The readings of the message as columns, with every column code; fields that this version does not know are passed over."""
    n = len(rows.readings)
    raw = rows.SerializeToString()
    start, length = np.zeros(n, np.int32), np.zeros(n, np.int32)
    times = np.zeros((3, n), np.int64)
    times[1:] = NO_SEQUENCE
    values, present = np.empty((len(COLUMNS), n)), np.zeros((len(COLUMNS), n), np.bool_)
    values.fill(np.nan)
    buffer = np.frombuffer(raw, np.uint8)
    if not _read(buffer, start, length, times.view(np.uint8), values.view(np.uint8), present):
        raise AssertionError("protobuf gave an encoding that the row reader does not follow")
    size = 16
    while size < 2 * n:
        size *= 2
    tag, first = np.empty(n, np.int32), np.empty(n, np.int32)
    many = _same_ids(buffer, start, length, np.full(size, -1, np.int32), tag, first)
    ids = [raw[a : a + b].decode() for a, b in zip(start[first[:many]].tolist(), length[first[:many]].tolist(), strict=True)]
    return Rows(ids, tag, times[0], times[1], times[2], values, present)


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
def _read(raw: U1, start: I4, length: I4, times: U1, values: U1, present: B1) -> bool:
    """Fill the columns (given as bytes where they are eight bytes wide). False where the encoding is not what it must be.

    times: sensed time, boot and sequence.
    """
    n = len(start)
    at, row = 0, 0
    while at < len(raw):
        key, at = _varint(raw, at)
        if at < 0:
            return False
        if key != (1 << 3 | _BYTES):
            at = _passed(raw, at, key & 7, len(raw))
            if at < 0:
                return False
            continue
        size, at = _varint(raw, at)
        end = at + size
        if at < 0 or size < 0 or end > len(raw) or row >= n:
            return False
        while at < end:
            key, at = _varint(raw, at)
            if at < 0:
                return False
            field, kind = key >> 3, key & 7
            if kind == _FIXED64 and at + 8 <= end and _SENSED <= field <= _SEQUENCE:
                _copy8(raw, at, times[field - _SENSED], row)
                at += 8
            elif kind == _FIXED64 and at + 8 <= end and _FIRST_MEASUREMENT <= field <= _LAST_MEASUREMENT:
                code = field - _FIRST_MEASUREMENT
                _copy8(raw, at, values[code], row)
                present[code, row] = True
                at += 8
            elif kind == _BYTES and field in (_TAG_ID, _POSITION):
                size, at = _varint(raw, at)
                if at < 0 or size < 0 or at + size > end:
                    return False
                if field == _TAG_ID:
                    start[row], length[row] = at, size
                else:
                    # A position that is there has both coordinates: what is not on the wire is zero.
                    for code in (LATITUDE, LONGITUDE):
                        for k in range(8):
                            values[code, 8 * row + k] = 0
                        present[code, row] = True
                    inner = at
                    while inner < at + size:
                        key, inner = _varint(raw, inner)
                        if inner < 0:
                            return False
                        part = key >> 3
                        if key & 7 == _FIXED64 and 1 <= part <= 4 and inner + 8 <= at + size:
                            _copy8(raw, inner, values[LATITUDE + part - 1], row)
                            present[LATITUDE + part - 1, row] = True
                            inner += 8
                        else:
                            inner = _passed(raw, inner, key & 7, at + size)
                            if inner < 0:
                                return False
                at += size
            else:
                at = _passed(raw, at, kind, end)
                if at < 0:
                    return False
        row += 1
    return row == n


def warm_up() -> None:
    """Compile (or load from the cache) what the first message would otherwise wait for."""
    read(telemetry_pb2.ReadingRows(readings=[telemetry_pb2.Reading(tag_id="t", position=telemetry_pb2.Position())]))
