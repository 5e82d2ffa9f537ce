"""Readings sorted by tag as bytes: the pages of which a segment consists (segments.py).

A page holds some thousand readings in the order (tag, sensed_us, boot, sequence), each with the journal entry and the row in it where it
came from. Its columns are narrowed without loss (differences to the reading before, as few bytes as they need; so are values that are
decimals, others are float32 where that is exact), their bytes put plane by plane, and all of it compressed by zlib.

Layout, little-endian: magic "WBSP", crc32 (uint32, of all that follows it), format version (uint8), compressed body. The body: number of
readings n (uint32), number of columns (uint8), for each column its name (uint8: see below), coding (uint8), first value (int64), and its n
numbers in as many byte planes as the coding says. Before decimals of which some are absent comes a column that says which (1), and the
decimals are only those that are there; before those of which some are negative zeros one that says which. Version 1 had no decimals; it
is read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.rules import decimals, readings
from actors.rules.decimals import DIGITS_MOST, Decimals
from actors.rules.readings import ACCEPTED, B1, COLUMNS, F8, I4, I8, U1, Batch

MAGIC = b"WBSP"
VERSION = 2
PAGE_ROWS = 4096
"""So many readings at most a page: reading one tag unpacks so many."""

_BEFORE = 9
_BODY, _COLUMN = struct.Struct("<IB"), struct.Struct("<BBq")
_TAG, _SENSED, _BOOT, _SEQUENCE, _JOURNAL, _ROW, _STATUS = range(7)
_VALUES, _ABSENT, _NEGATIVE = 32, 64, 96
"""Names of columns; value columns, which of them are absent, and which of the others negative zeros, are this plus their column code."""
_WIDTHS: dict[int, str] = {0: "", 1: "<i1", 2: "<i2", 4: "<i4", 8: "<i8"}
_FLOAT4, _FLOAT8, _DECIMAL, _DIGIT = 24, 28, 32, 8
"""Codings: differences of so many bytes (0: none, all values are the first); values as they are in 4 or 8 bytes; values that are whole
numbers over a power of ten: this, plus 8 for each digit, plus the place of the differences' bytes in `_WIDTHS`."""
_DIGITS = {10**digits: digits for digits in range(DIGITS_MOST + 1)}


class DamagedPage(ValueError):
    """The bytes are not a page that `encode` made."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Readings with where they stand in the journal. journal: the entry's sequence; row: the reading's row in it; status: its status."""

    batch: Batch
    journal: I8
    row: I4
    status: U1

    def __len__(self) -> int:
        return len(self.journal)


def subset(rows: Rows, which: npt.NDArray[np.int64] | npt.NDArray[np.bool_] | slice) -> Rows:
    """Some of the rows, in the order given."""
    return Rows(readings.subset(rows.batch, which), rows.journal[which], rows.row[which], rows.status[which])


def concatenate(parts: Sequence[Rows]) -> Rows:
    """All rows in the order given; at least one part."""
    if len(parts) == 1:
        return parts[0]
    batch = readings.concatenate([part.batch for part in parts])
    journal, row, status = (np.concatenate([getattr(part, name) for part in parts]) for name in ("journal", "row", "status"))
    return Rows(batch, journal, row, status)


def of_entry(batch: Batch, sequence: int, status: U1 | None) -> Rows:
    """The rows of a journal entry."""
    n = len(batch)
    stated = np.full(n, ACCEPTED, np.uint8) if status is None else status
    return Rows(batch, np.full(n, sequence, np.int64), np.arange(n, dtype=np.int32), stated)


def by_tag(rows: Rows, scratch: readings.Scratch | None = None) -> Rows:
    """The rows in the order (tag, sensed_us, boot, sequence); equal ones keep their order."""
    batch = rows.batch
    groups = readings.group(batch.tag, batch.sensed_us, batch.boot, batch.sequence, int(batch.tag.max(initial=0)) + 1, scratch)
    by_number = np.argsort(groups.tag)
    sizes = np.diff(groups.start)[by_number]
    first = np.repeat(groups.start[:-1][by_number] - (np.cumsum(sizes) - sizes), sizes)
    return subset(rows, groups.order[first + np.arange(len(rows))])


def in_journal_order(rows: Rows) -> Rows:
    """The rows as they came."""
    order = np.lexsort((rows.row, rows.journal))
    return subset(rows, order)


def encode(rows: Rows, level: int = 1) -> bytes:
    """A page as bytes. level: zlib's, 0 only wraps (twice as fast as 1, and more than twice as long)."""
    batch = rows.batch
    whole: dict[int, npt.NDArray[Any]] = {
        _TAG: batch.tag, _SENSED: batch.sensed_us, _BOOT: batch.boot, _SEQUENCE: batch.sequence, _JOURNAL: rows.journal, _ROW: rows.row,
        _STATUS: rows.status,
    }  # fmt: skip
    parts = [_differences(name, column) for name, column in whole.items()]
    for k, code in enumerate(batch.codes):
        parts += _values(code, np.ascontiguousarray(batch.values[k], "<f8"))
    body = b"".join([_BODY.pack(len(rows), len(parts)), *(piece for part in parts for piece in part)])
    packed = bytes([VERSION]) + zlib.compress(body, level)
    return MAGIC + zlib.crc32(packed).to_bytes(4, "little") + packed


def _differences(name: int, column: npt.NDArray[Any]) -> tuple[bytes, bytes]:
    width, first, steps = _steps(column.astype(np.int64))
    return _COLUMN.pack(name, width, first), steps


def _steps(numbers: I8) -> tuple[int, int, bytes]:
    """Whole numbers as (bytes of a difference, the first number, the differences in planes)."""
    if not len(numbers):
        return 0, 0, b""
    steps = np.diff(numbers, prepend=numbers[:1])  # wraps around where it must, and back
    low, high = int(steps.min()), int(steps.max())
    width = next(
        width for width in _WIDTHS if (low, high) == (0, 0) or (width and low >= -(1 << 8 * width - 1) and high < 1 << 8 * width - 1)
    )
    kind = _WIDTHS[width]
    return width, int(numbers[0]), b"" if not kind else _planes(steps.astype(kind), width)


def _values(code: int, column: F8) -> list[tuple[bytes, bytes]]:
    name = _VALUES + code
    found = decimals.decimals(column)
    if found is not None:
        if not len(found.numbers):
            return []  # all are absent
        width, first, steps = _steps(found.numbers)
        coding = _DECIMAL + _DIGIT * _DIGITS[found.scale] + list(_WIDTHS).index(width)
        masks = ((_ABSENT, found.absent), (_NEGATIVE, found.negative))
        told = [(_COLUMN.pack(kind + code, 1, len(mask)), mask.tobytes()) for kind, mask in masks if mask is not None]
        return [*told, (_COLUMN.pack(name, coding, first), steps)]
    narrow = decimals.as_float32(column)
    if narrow is None:
        return [(_COLUMN.pack(name, _FLOAT8, 0), _planes(column, 8))]
    return [(_COLUMN.pack(name, _FLOAT4, 0), _planes(narrow, 4))]


def _planes(column: npt.NDArray[np.generic], width: int) -> bytes:
    return np.ascontiguousarray(column).view(np.uint8).reshape(len(column), width).T.tobytes()


def decode(blob: bytes) -> Rows:
    """What `encode` was given. Raises DamagedPage where a single bit differs."""
    if len(blob) < _BEFORE or blob[:4] != MAGIC:
        raise DamagedPage("no page begins here")
    if zlib.crc32(memoryview(blob)[8:]) != int.from_bytes(blob[4:8], "little"):
        raise DamagedPage("the checksum does not match: the page was changed or cut short")
    if not 1 <= blob[8] <= VERSION:
        raise DamagedPage(f"format version {blob[8]} is not known here")
    try:
        return _rows(zlib.decompress(memoryview(blob)[_BEFORE:]))
    except (zlib.error, struct.error, KeyError, IndexError, ValueError) as error:
        raise DamagedPage(f"what it holds is no page: {error!r}") from error


def _rows(body: bytes) -> Rows:
    n, columns = _BODY.unpack_from(body, 0)
    at = _BODY.size
    whole: dict[int, npt.NDArray[np.int64]] = {}
    codes: list[int] = []
    values: list[F8] = []
    masks: dict[int, B1] = {}
    for _ in range(columns):
        name, coding, first = _COLUMN.unpack_from(body, at)
        at += _COLUMN.size
        count, width = n, coding
        if name >= _ABSENT:
            count = first
            masks[name] = np.frombuffer(body, np.bool_, count, at)
        elif name < _VALUES:
            whole[name] = _summed(body, at, n, width, first)
        elif coding < _DECIMAL:
            width = 4 if coding == _FLOAT4 else 8
            values.append(_unplaned(body, at, n, width).view(f"<f{width}").reshape(n).astype(np.float64))
        else:
            code = name - _VALUES
            missing, negative = masks.get(_ABSENT + code), masks.get(_NEGATIVE + code)
            count = n if missing is None else n - int(np.count_nonzero(missing))
            digits, place = divmod(coding - _DECIMAL, _DIGIT)
            width = list(_WIDTHS)[place]
            values.append(decimals.values(Decimals(_summed(body, at, count, width, first), 10**digits, missing, negative)))
        if _VALUES <= name < _ABSENT:
            codes.append(name - _VALUES)
        at += count * width
    if at != len(body) or any(code >= len(COLUMNS) for code in codes):
        raise ValueError("the header does not fit what follows it")
    batch = Batch(
        whole[_TAG].astype(np.int32), whole[_SENSED], whole[_BOOT], whole[_SEQUENCE], tuple(codes),
        np.array(values) if values else np.empty((0, n)),
    )  # fmt: skip
    return Rows(batch, whole[_JOURNAL], whole[_ROW].astype(np.int32), whole[_STATUS].astype(np.uint8))


def _summed(body: bytes, at: int, n: int, width: int, first: int) -> I8:
    """The numbers of `_steps`."""
    if not width:
        return np.full(n, first, np.int64)
    steps = _unplaned(body, at, n, width).view(_WIDTHS[width]).reshape(n).astype(np.int64)
    steps[0] = first
    return np.cumsum(steps)


def _unplaned(body: bytes, at: int, n: int, width: int) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(np.frombuffer(body, np.uint8, n * width, at).reshape(width, n).T)
