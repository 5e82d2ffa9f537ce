"""A batch as bytes: the blob of the journal, and what crosses process borders. Little-endian columns behind a checked header.

Layout, every part padded with zeros to a multiple of 8 bytes so that columns are read in place:

    header (32 bytes): magic "WBRB", crc32 (uint32, of all that follows it), format version (uint16), parts present (uint16, the
                       bits below), number of value columns m (uint32), number of readings n (uint64), length of the JSON (uint64)
    sensed_us · boot · sequence (if SEQUENCED) · m columns of values · tag
    flags uint8[m][n] (if FLAGGED) · status uint8[n] (if STATED) · codes uint8[m] · extra, a JSON object in UTF-8 (if any)

A column of whole numbers is its least number (int64), the unit of its differences to that (uint32), the bytes of a difference (uint32: 0
where all are alike, 1, 2, 4 or 8), and the n differences in units. The unit of sensed_us is a second or a millisecond where the differences
take more than 32 bits in microseconds and are whole ones of it, else 1 like that of the others.

A column of values has the same head. Where they are decimals (`actors.rules.decimals`) the unit is what the whole numbers are divided by,
and the highest difference that its bytes can say stands for an absent value; where 16 is added to the bytes of a difference, the one below
it for a negative zero. A unit of 0: float32 or float64, as many bytes as are said,
each bit for bit, or nothing, where all are absent.

Fewer than DECIMALS_LEAST values are float64. The same values always give the same bytes, by which an entry is known when it is made again:
what a column becomes cannot change without another version.

Version 2 had values float64[m][n]; version 1 also int64[n] for the other columns and int32[n] for tag: 52 bytes a reading of temperature
and position, then 32, now 18. Both are read, and written where an old entry is made again (see `actors.journal.segments`).
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.rules import decimals
from actors.rules.readings import COLUMNS, F8, NO_SEQUENCE, U1, Batch

MAGIC = b"WBRB"
VERSION = 3
_SEQUENCED, _FLAGGED, _STATED = 1, 2, 4
_CHECKED = 8  # bytes before what the checksum covers: magic and checksum itself
_HEADER = struct.Struct("<HHIQQ")
_NARROW = struct.Struct("<qII")
_UNITS_US = (1_000_000, 1_000)
_SIZES = (0, 1, 2, 4, 8)
_NEGATIVE_ZEROS = 16
_NOTHING = np.empty(0, np.uint8)
_PADDING = bytes(8)
_READINGS_MOST = 1 << 28
_MISFIT = "the header does not fit what follows it"
DECIMALS_LEAST = 64
"""Fewer values are written as floats: a database's page holds them anyway."""


class DamagedBatch(ValueError):
    """The bytes are not a batch that `encode` made: cut short, changed, or of a version that is not known here."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a blob holds. flags: (m, n) beside batch.values; status: (n,), what became of each reading; extra: any JSON object."""

    batch: Batch
    flags: U1 | None = None
    status: U1 | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def encode(
    batch: Batch, flags: U1 | None = None, status: U1 | None = None, extra: Mapping[str, Any] | None = None, version: int = VERSION
) -> bytes:
    """The batch as bytes. Where no reading tells boot and sequence, these take no room. The same input always gives the same bytes."""
    n, m = len(batch), len(batch.codes)
    text = json.dumps(extra, separators=(",", ":"), sort_keys=True).encode() if extra else b""
    sequenced = bool((batch.sequence != NO_SEQUENCE).any() or (batch.boot != NO_SEQUENCE).any())
    present = _SEQUENCED * sequenced | _FLAGGED * (flags is not None) | _STATED * (status is not None)
    whole = [_column(column, "<i8", n) for column in (batch.sensed_us, *((batch.boot, batch.sequence) if sequenced else ()))]
    values, tag = _column(batch.values, "<f8", m * n), _column(batch.tag, "<i4", n)
    if version == 1:
        parts = [*whole, values, tag]
    else:
        parts = [piece for k, column in enumerate(whole) for piece in _narrow(column, () if k else _UNITS_US)]
        parts += [values] if version == 2 else [piece for column in values.reshape(m, n) for piece in _narrow_values(column)]
        parts += _narrow(tag.astype(np.int64))
    parts += [_column(part, "u1", size) for part, size in ((flags, m * n), (status, n)) if part is not None]
    parts += [_column(np.array(batch.codes, np.uint8), "u1", m), _column(np.frombuffer(text, np.uint8), "u1", len(text))]
    pieces: list[Any] = [_HEADER.pack(version, present, m, n, len(text))]
    for part in parts:
        pieces.append(part)
        if part.nbytes % 8:
            pieces.append(_PADDING[part.nbytes % 8 :])
    checksum = 0
    for piece in pieces:
        checksum = zlib.crc32(piece, checksum)
    return b"".join([MAGIC, checksum.to_bytes(4, "little"), *pieces])


def _column(array: npt.NDArray[Any], dtype: str, size: int) -> npt.NDArray[Any]:
    if array.size != size:
        raise ValueError(f"a column of {array.size} beside {size}")
    return np.ascontiguousarray(array, dtype).reshape(-1)


def _narrow(column: npt.NDArray[np.int64], units: Sequence[int] = ()) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Whole numbers as (least number, unit, bytes of a difference; the differences): see the module. A unit of `units` where one fits."""
    least = int(column.min()) if len(column) else 0
    differences = column.view(np.uint64) - np.uint64(least % (1 << 64))  # modulo 2^64, as two int64 may be further apart than one can say
    most = int(differences.max()) if len(column) else 0
    unit = 1
    for one in units if most >> 32 else ():
        counted = differences // np.uint64(one)
        if bool((counted * np.uint64(one) == differences).all()):
            differences, most, unit = counted, most // one, one
            break
    size = next(size for size in _SIZES if not most >> 8 * size)
    data = differences.astype(f"<u{size}") if size else _NOTHING
    return _head(least, unit, size), data


def _narrow_values(column: F8) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Values as (head, data): see the module."""
    if len(column) < DECIMALS_LEAST:
        return _head(0, 0, 8), column
    found = decimals.decimals(column)
    if found is None:
        narrow = decimals.as_float32(column)
        return (_head(0, 0, 8), column) if narrow is None else (_head(0, 0, 4), narrow)
    if not len(found.numbers):
        return _head(0, 0, 0), _NOTHING
    least = int(found.numbers.min())
    differences = (found.numbers - least).view(np.uint64)
    most = int(differences.max())
    if not most and found.absent is None and found.negative is None:
        return _head(least, found.scale, 0), _NOTHING
    size = next(size for size in _SIZES if not (most + 1 + (found.negative is not None)) >> 8 * size)
    data = differences.astype(f"<u{size}")
    if found.negative is not None:
        data[found.negative] = _highest(size) - 1
    if found.absent is not None:
        known, data = data, np.full(len(column), _highest(size), f"<u{size}")
        data[~found.absent] = known
    return _head(least, found.scale, size | (0 if found.negative is None else _NEGATIVE_ZEROS)), data


def _highest(size: int) -> int:
    """The difference that stands for an absent value."""
    return (1 << 8 * size) - 1


def _head(least: int, unit: int, size: int) -> npt.NDArray[np.uint8]:
    return np.frombuffer(_NARROW.pack(least, unit, size), np.uint8)


def decode(blob: bytes | bytearray | memoryview) -> Encoded:
    """What `encode` was given. Flags and status are views of `blob`: read-only where it is bytes, and they keep it alive.

    Raises DamagedBatch where a single bit differs from what was encoded.
    """
    start = _CHECKED + _HEADER.size
    if len(blob) < start or bytes(blob[:4]) != MAGIC:
        raise DamagedBatch("no batch begins here")
    if zlib.crc32(memoryview(blob)[_CHECKED:]) != int.from_bytes(blob[4:_CHECKED], "little"):
        raise DamagedBatch("the checksum does not match: the batch was changed or cut short")
    version, present, m, n, text_length = _HEADER.unpack_from(blob, _CHECKED)
    if not 1 <= version <= VERSION:
        raise DamagedBatch(f"format version {version} is not known here")
    if n > _READINGS_MOST or m > len(COLUMNS):
        raise DamagedBatch(f"no batch has {n} readings with {m} columns")
    reader = _Reader(blob, start)
    take = reader.take_narrow if version > 1 else lambda n: reader.take("<i8", n)
    sensed_us = take(n)
    if present & _SEQUENCED:
        boot, sequence = take(n), take(n)
    else:
        boot = sequence = np.full(n, NO_SEQUENCE, np.int64)
    values = reader.take("<f8", m * n).reshape(m, n) if version < 3 else reader.take_values(m, n)
    tag = reader.take_narrow(n).astype(np.int32) if version > 1 else reader.take("<i4", n)
    flags = reader.take("u1", m * n).reshape(m, n) if present & _FLAGGED else None
    status = reader.take("u1", n) if present & _STATED else None
    codes = tuple(reader.take("u1", m).tolist())
    text = reader.take("u1", text_length).tobytes()
    if reader.at != len(blob) or any(code >= len(COLUMNS) for code in codes):
        raise DamagedBatch(_MISFIT)
    return Encoded(Batch(tag, sensed_us, boot, sequence, codes, values), flags, status, json.loads(text) if text else {})


class _Reader:
    """Takes one padded column after the other."""

    def __init__(self, blob: bytes | bytearray | memoryview, at: int) -> None:
        self.blob = blob
        self.at = at

    def take(self, dtype: str, count: int) -> npt.NDArray[Any]:
        size = np.dtype(dtype).itemsize * count
        if self.at + size > len(self.blob):
            raise DamagedBatch(_MISFIT)
        column = np.frombuffer(self.blob, dtype, count, self.at)
        self.at += size + -size % 8
        return column

    def take_narrow(self, count: int) -> npt.NDArray[np.int64]:
        """The numbers of `_narrow`."""
        least, unit, size = self._head()
        if not unit or size not in _SIZES:
            raise DamagedBatch(_MISFIT)
        if not size:
            return np.full(count, least, np.int64)
        differences = self.take(f"<u{size}", count).astype(np.uint64)
        if unit > 1:
            differences *= np.uint64(unit)
        differences += np.uint64(least % (1 << 64))
        return differences.view(np.int64)

    def take_values(self, columns: int, count: int) -> F8:
        """The columns of `_narrow_values`."""
        values = np.empty((columns, count))
        for column in values:
            least, scale, size = self._head()
            negative, size = size & _NEGATIVE_ZEROS, size & ~_NEGATIVE_ZEROS
            if size not in _SIZES or (negative and not (scale and size)):
                raise DamagedBatch(_MISFIT)
            if scale and size:
                differences = self.take(f"<u{size}", count)
                np.add(differences, float(least), out=column)  # exact: both and their sum are 2^53 at most
                column /= scale
                column[differences == _highest(size)] = np.nan
                if negative:
                    column[differences == _highest(size) - 1] = -0.0
            elif scale:
                column[:] = least / scale
            elif size in (4, 8):
                column[:] = self.take(f"<f{size}", count)
            elif not size:
                column[:] = np.nan
            else:
                raise DamagedBatch(_MISFIT)
        return values

    def _head(self) -> tuple[int, int, int]:
        least, unit, size = _NARROW.unpack(self.take("u1", _NARROW.size).tobytes())
        return least, unit, size
