"""Readings back from the archive: those that the journal has given up for it, as if they still were there.

A custody's readings lie together in its part's file, so that a tag's history unpacks the row groups it lies in and no other.
"""

from __future__ import annotations

import posixpath
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs
from sqlalchemy import Connection, select

from actors.journal import rows
from actors.journal.archive_place import PART, located
from actors.journal.pages import Rows, subset
from actors.journal.tables import ArchivedCustody
from actors.rules.readings import ACCEPTED, COLUMNS, NO_SEQUENCE, Batch

CUSTODY = rows.table_of(ArchivedCustody)
OPEN_FILES = 32
"""So many parts keep their footers read."""

VALUE_NAMES = tuple(column.name for column in COLUMNS)
LOOSE = "loose"
"""The dataset of readings that were on no archived journey when the journal gave them up; their place has a negative custody id."""

MOST_US = 1 << 62
_PLACE = ("sensed_at", "boot", "sequence", "journal_sequence", "journal_row")


def system_of(location: str) -> tuple[Any, str]:
    """The file system of a folder or URL, and the path in it. Raises ValueError, OSError."""
    if "://" not in location:
        return fs.LocalFileSystem(), location
    if location.partition("://")[0] in ("s3", "gs", "gcs", "hdfs", "viewfs", "file", "mock"):
        system, path = fs.FileSystem.from_uri(location)
        return system, path
    import fsspec  # only where it is asked for: pyarrow serves the usual ones

    found, path = fsspec.core.url_to_fs(location)
    return fs.PyFileSystem(fs.FSSpecHandler(found)), path


class _Files:
    """Open parts, the most recently used ones."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, pq.ParquetFile] = OrderedDict()
        self._lock = Lock()

    def of(self, location: str, name: str) -> pq.ParquetFile:
        key = f"{location}/{name}"
        with self._lock:
            if key in self._open:
                self._open.move_to_end(key)
                return self._open[key]
        system, root = system_of(location)
        found = pq.ParquetFile(system.open_input_file(posixpath.join(root, name)))
        with self._lock:
            self._open[key] = found
            if len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)
        return found


_files = _Files()


_PLACED = ("local_index", "first_row", "readings", "custody_id", "from_us")


def read_tags(connection: Connection, shard: int, tags: Sequence[int], from_us: int, until_us: int, upto: int) -> Iterator[Rows]:
    """Archived readings of some tags (local indices) with from_us <= sensed_us < until_us, of entries up to `upto`."""
    for place in _places(connection, shard, tags, from_us, until_us):
        table = slice_of(_files.of(place.location, _name(place)), place.first_row, place.readings, (*_PLACE, *VALUE_NAMES))
        found = _rows(table, place.local_index)
        sensed_us = found.batch.sensed_us
        keep = np.flatnonzero((sensed_us >= from_us) & (sensed_us < until_us) & (found.journal <= upto))
        if len(keep):
            yield subset(found, keep)


def weights(connection: Connection, shard: int, tag: int, from_us: int, until_us: int) -> Iterator[tuple[int, int]]:
    """(start, readings) of each archived custody of a tag that meets a time."""
    for place in _places(connection, shard, [tag], from_us, until_us):
        yield place.from_us, place.readings


def _places(connection: Connection, shard: int, tags: Sequence[int], from_us: int, until_us: int) -> Iterator[Any]:
    """Where the archived custodies of some tags lie that meet a time."""
    for some in rows.chunks(sorted(set(tags))):
        query = (
            select(*(CUSTODY.c[name] for name in _PLACED), located(), PART.c.files)
            .join(PART, PART.c.part_id == CUSTODY.c.part_id)
            .where((CUSTODY.c.shard == shard) & CUSTODY.c.local_index.in_(list(some)) & (CUSTODY.c.readings > 0))
            .where((CUSTODY.c.from_us < until_us) & (CUSTODY.c.until_us > from_us))
        )
        yield from connection.execute(query).all()


def _name(place: Any) -> str:
    """The file that holds a custody's readings."""
    dataset = "readings" if place.custody_id >= 0 else LOOSE
    return str(next(file["name"] for file in place.files if file["dataset"] == dataset))


def received_of_tags(connection: Connection, shard: int, tags: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(entry, when it was received) of the archived readings of some tags."""
    for place in _places(connection, shard, tags, 0, MOST_US):
        table = slice_of(_files.of(place.location, _name(place)), place.first_row, place.readings, ("received_at", "journal_sequence"))
        yield from zip(_integers(table.column("journal_sequence")).tolist(), _integers(table.column("received_at")).tolist(), strict=True)


def slice_of(file: pq.ParquetFile, first: int, count: int, columns: Sequence[str]) -> pa.Table:
    """Some rows of a file: only the row groups that they lie in are unpacked."""
    sizes = np.array([file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)], np.int64)
    ends = np.cumsum(sizes)
    low, high = int(np.searchsorted(ends, first, "right")), int(np.searchsorted(ends, first + count - 1, "right"))
    table = file.read_row_groups(list(range(low, high + 1)), columns=list(columns), use_threads=False)
    return table.slice(first - int(ends[low] - sizes[low]), count)


def _rows(table: pa.Table, local_index: int) -> Rows:
    n = table.num_rows
    whole = {name: _integers(table.column(name)) for name in _PLACE}
    codes = tuple(code for code, name in enumerate(VALUE_NAMES) if table.column(name).null_count < n)
    values = np.array([_floats(table.column(VALUE_NAMES[code])) for code in codes]) if codes else np.empty((0, n))
    batch = Batch(np.full(n, local_index, np.int32), whole["sensed_at"], whole["boot"], whole["sequence"], codes, values)
    return Rows(batch, whole["journal_sequence"], whole["journal_row"].astype(np.int32), np.full(n, ACCEPTED, np.uint8))


def _integers(column: pa.ChunkedArray) -> Any:
    plain = column.cast(pa.int64())
    return (pc.fill_null(plain, NO_SEQUENCE) if plain.null_count else plain).to_numpy()


def _floats(column: pa.ChunkedArray) -> Any:
    return (pc.fill_null(column, float("nan")) if column.null_count else column).to_numpy()
