"""Files cut into pieces: lines of a CSV file (gunzipped where it is gzip) or rows of a Parquet file, always cut in the same way.

A file that is read again gives the same pieces, so a job that was broken off goes on with those that are not done.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.history_import.mapping import Mapping
from cluster.importers.base import UnusableFile

PIECE_BYTES = 4 << 20
PIECE_ROWS = 100_000
DIGESTED = 1 << 16
"""Bytes at either end of a file that its fingerprint looks at, besides its size and time."""
GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Piece:
    """A part of a file: whole lines as bytes, or a table with the mapped columns.

    first_line: number of its first line (CSV) or row (Parquet), from 1. columns: the names of the columns of a line. read: how many of
    the file's bytes lie before its end.
    """

    number: int
    first_line: int
    data: bytes | pa.Table
    columns: tuple[str, ...]
    read: int


def is_parquet(path: Path, mapping: Mapping) -> bool:
    """Whether the file is Parquet: as the mapping says, else by its first bytes."""
    if mapping.file.format is not None:
        return mapping.file.format == "parquet"
    with _opened(path) as file:
        return file.read(4) == b"PAR1"


def fingerprint(path: Path) -> str:
    """Tells a file from another, or from itself after a change: name, size, both ends. Raises UnusableFile."""
    made = hashlib.sha256(str(path.resolve()).encode())
    with _opened(path) as file:
        size = file.seek(0, io.SEEK_END)
        made.update(f"\n{size}\n".encode())
        file.seek(0)
        made.update(file.read(DIGESTED))
        file.seek(max(0, size - DIGESTED))
        made.update(file.read(DIGESTED))
    return made.hexdigest()


def pieces(path: Path, mapping: Mapping) -> Iterator[Piece]:
    """The file's pieces in order. Raises UnusableFile where it does not fit the mapping, or is damaged (after what came before)."""
    return _rows(path, mapping) if is_parquet(path, mapping) else _lines(path, mapping)


def _opened(path: Path) -> IO[bytes]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise UnusableFile(error.strerror or str(error)) from None
    return file


# ---------------------------------------------------------------- CSV


def _lines(path: Path, mapping: Mapping) -> Iterator[Piece]:
    form = mapping.file
    with _opened(path) as raw:
        zipped = raw.read(2) == GZIP
        raw.seek(0)
        stream: IO[bytes] = gzip.GzipFile(fileobj=raw) if zipped else raw  # type: ignore[assignment]
        if not zipped and not raw.read(1):
            raise UnusableFile("the file is empty")
        raw.seek(0)
        line = 1
        for _ in range(form.skip_lines):
            stream.readline()
            line += 1
        columns = form.columns
        if form.header:
            columns = _header(stream.readline(), mapping)
            line += 1
        _must_have(columns, mapping)
        number, rest = 0, b""
        while True:
            try:
                block = stream.read(PIECE_BYTES)
            except (OSError, EOFError, zlib.error) as error:
                raise UnusableFile(f"compressed data damaged after line {line - 1}: {error}") from None
            if block:
                data, cut, rest = (rest + block).rpartition(b"\n")
                data += cut
            else:
                data, rest = rest, b""
            if data:
                yield Piece(number, line, data, tuple(columns), raw.tell())
                number += 1
                line += data.count(b"\n") + (not data.endswith(b"\n"))
            if not block:
                return


def _header(line: bytes, mapping: Mapping) -> tuple[str, ...]:
    form = mapping.file
    try:
        text = line.decode(form.encoding).lstrip("\ufeff").rstrip("\r\n")
    except UnicodeDecodeError:
        raise UnusableFile(f"its header line is not {form.encoding} text; is it a CSV file?") from None
    if "\0" in text:
        raise UnusableFile("its header line holds zero bytes; it is no CSV file")
    return tuple(name.strip() for name in next(csv.reader([text], delimiter=form.delimiter, quotechar=form.quote), []))


def _must_have(columns: tuple[str, ...], mapping: Mapping) -> None:
    missing = [name for name in mapping.columns() if name not in columns]
    if missing:
        has = ", ".join(columns[:30]) or "none"
        raise UnusableFile(f"it has no column {', '.join(map(repr, missing))}; its columns are {has}")
    twice = sorted({name for name in mapping.columns() if columns.count(name) > 1})
    if twice:
        raise UnusableFile(f"its column {', '.join(map(repr, twice))} is there twice")


# ---------------------------------------------------------------- Parquet


def _rows(path: Path, mapping: Mapping) -> Iterator[Piece]:
    try:
        with pq.ParquetFile(path) as file:
            _must_have(tuple(file.schema_arrow.names), mapping)
            size, total, line = path.stat().st_size, max(1, file.metadata.num_rows), 1
            for number, batch in enumerate(file.iter_batches(PIECE_ROWS, columns=mapping.columns())):
                table = pa.Table.from_batches([batch])
                line += len(table)
                yield Piece(number, line - len(table), table, tuple(mapping.columns()), size * (line - 1) // total)
    except (OSError, pa.ArrowException) as error:
        raise UnusableFile(f"not a Parquet file, or damaged: {error}") from None
