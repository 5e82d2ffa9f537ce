"""ReadingRows to columns at the speed of bytes: a compiled walk over the message's own encoding.

Reading a Python attribute of every field of every message costs 0.2 us each, presence as much again; a hundred thousand rows would
hold the door's event loop for seconds. So the message (parsed and thereby proven well formed by protobuf) is encoded again without
unknown fields, and this kernel reads that encoding. A property test holds it equal to reading attribute by attribute.
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
_FIXED64, _BYTES = 1, 2


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
    """The readings of the message as columns, with every column code; `rows` loses fields that this version does not know."""
    n = len(rows.readings)
    rows.DiscardUnknownFields()
    raw = rows.SerializeToString()
    start, length = np.zeros(n, np.int32), np.zeros(n, np.int32)
    sensed_us = np.zeros(n, np.int64)
    boot, sequence = np.full(n, NO_SEQUENCE, np.int64), np.full(n, NO_SEQUENCE, np.int64)
    values, present = np.full((len(COLUMNS), n), np.nan), np.zeros((len(COLUMNS), n), np.bool_)
    if not _read(np.frombuffer(raw, np.uint8), start, length, sensed_us.view(np.uint8), boot.view(np.uint8), sequence.view(np.uint8),
                 values.view(np.uint8), present):  # fmt: skip
        raise AssertionError("protobuf gave an encoding that the row reader does not follow")
    index: dict[bytes, int] = {}
    number = index.setdefault
    tag = [number(raw[a:b], len(index)) for a, b in zip(start.tolist(), (start + length).tolist(), strict=True)]
    return Rows([each.decode() for each in index], np.array(tag, np.int32), sensed_us, boot, sequence, values, present)


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
def _read(raw: U1, start: I4, length: I4, sensed: U1, boot: U1, sequence: U1, values: U1, present: B1) -> bool:
    """Fill the columns (given as bytes where they are eight bytes wide). False where the encoding is not what it must be."""
    n = len(start)
    at, row = 0, 0
    while at < len(raw):
        key, at = _varint(raw, at)
        if at < 0 or key != (1 << 3 | _BYTES) or row >= n:
            return False
        size, at = _varint(raw, at)
        end = at + size
        if at < 0 or size < 0 or end > len(raw):
            return False
        while at < end:
            key, at = _varint(raw, at)
            if at < 0:
                return False
            field, kind = key >> 3, key & 7
            if kind == _FIXED64 and at + 8 <= end:
                if field == _SENSED:
                    _copy8(raw, at, sensed, row)
                elif field == _BOOT:
                    _copy8(raw, at, boot, row)
                elif field == _SEQUENCE:
                    _copy8(raw, at, sequence, row)
                elif _FIRST_MEASUREMENT <= field <= _LAST_MEASUREMENT:
                    code = field - _FIRST_MEASUREMENT
                    _copy8(raw, at, values[code], row)
                    present[code, row] = True
                else:
                    return False
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
                        part = key >> 3
                        if inner < 0 or key & 7 != _FIXED64 or not 1 <= part <= 4 or inner + 8 > at + size:
                            return False
                        _copy8(raw, inner, values[LATITUDE + part - 1], row)
                        present[LATITUDE + part - 1, row] = True
                        inner += 8
                at += size
            else:
                return False
        row += 1
    return row == n


def warm_up() -> None:
    """Compile (or load from the cache) what the first message would otherwise wait for."""
    read(telemetry_pb2.ReadingRows(readings=[telemetry_pb2.Reading(tag_id="t", position=telemetry_pb2.Position())]))
