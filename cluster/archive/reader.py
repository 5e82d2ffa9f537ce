"""Reading parts of the archive: whole datasets, and the columns that a replay judges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from actors.rules.readings import COLUMNS, F8, I8, NO_SEQUENCE
from cluster.archive.filesystem import Place


@dataclass(frozen=True, slots=True)
class Part:
    """A part as the manifest names it. files: by dataset {name, rows, bytes, sha256}."""

    part_id: str
    location: str
    month: str
    readings: int
    files: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Part:
        """From a row of the manifest."""
        return cls(row["part_id"], row["location"], row["month"], row["readings"], {one["dataset"]: one for one in row["files"]})

    def table(self, dataset: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A dataset of the part."""
        with Place.of(self.location).open(str(self.files[dataset]["name"])) as file:
            return pq.read_table(file, columns=None if columns is None else list(columns), use_threads=False)

    def rows(self, dataset: str, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """A dataset of the part as records, times as microseconds."""
        return records(self.table(dataset, columns))


def records(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as records: times as microseconds since 1970."""
    plain = [
        table.column(index).cast(pa.int64()) if pa.types.is_timestamp(field.type) else table.column(index)
        for index, field in enumerate(table.schema)
    ]
    return pa.table(plain, names=table.column_names).to_pylist() if plain else []


def integers(column: pa.ChunkedArray, absent: int = NO_SEQUENCE) -> I8:
    """A column of numbers or times as int64; `absent` where it is null."""
    plain = column.cast(pa.int64())
    return np.asarray((pc.fill_null(plain, absent) if plain.null_count else plain).to_numpy())


class Rows:
    """Ranges of rows of a part's dataset, asked for in ascending order: each row group is unpacked once, and one at a time is held."""

    def __init__(self, part: Part, dataset: str, columns: Sequence[str]) -> None:
        self._file = Place.of(part.location).open(str(part.files[dataset]["name"]))
        self._parquet = pq.ParquetFile(self._file)
        self._columns = {name: at for at, name in enumerate(self._parquet.schema_arrow.names) if name in columns}
        held = self._parquet.metadata
        self._end = np.cumsum([held.row_group(at).num_rows for at in range(held.num_row_groups)])
        self._group, self._table = -1, pa.table({})

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *_: object) -> None:
        self._parquet.close()
        self._file.close()

    def between(self, low: int, high: int) -> Iterator[pa.Table]:
        """The rows from `low` to before `high`, piece by piece; a column in which a piece has no value may lack."""
        while low < high:
            group = int(np.searchsorted(self._end, low, side="right"))
            if group == len(self._end):
                raise ValueError(f"a file of {self._end[-1] if group else 0} rows was asked for row {low}")
            if group != self._group:
                self._table = self._read(group)
                self._group = group
            begin = int(self._end[group - 1]) if group else 0
            size = min(high, int(self._end[group])) - low
            yield self._table.slice(low - begin, size)
            low += size

    def filled(self) -> set[str]:
        """The columns in which any row has a value."""
        held = self._parquet.metadata
        groups = [held.row_group(at) for at in range(held.num_row_groups)]
        return {name for name, at in self._columns.items() if not all(_is_empty(group.column(at)) for group in groups)}

    def spans(self, column: str) -> list[tuple[int, int, int, int]]:
        """(first row, row after the last, least value, greatest value) of each row group, by the file's own statistics."""
        held = self._parquet.metadata
        index = self._parquet.schema_arrow.names.index(column)
        counted = [held.row_group(at).column(index).statistics for at in range(held.num_row_groups)]
        start = [0, *self._end.tolist()]
        return [(start[at], start[at + 1], int(one.min), int(one.max)) for at, one in enumerate(counted)]

    def _read(self, group: int) -> pa.Table:
        held = self._parquet.metadata.row_group(group)
        wanted = [name for name, at in self._columns.items() if not _is_empty(held.column(at))]
        return self._parquet.read_row_group(group, columns=wanted, use_threads=False)


def _is_empty(chunk: Any) -> bool:
    counted = chunk.statistics
    return counted is not None and counted.has_null_count and bool(counted.null_count == chunk.num_values)


def into(column: pa.ChunkedArray, found: npt.NDArray[Any], absent: Any) -> None:
    """Copy a column of numbers or times to `found`, with `absent` where it is null."""
    at = 0
    for chunk in column.chunks:
        if pa.types.is_timestamp(chunk.type):
            chunk = chunk.view(pa.int64())
        some = found[at : at + len(chunk)]
        some[:] = (chunk.fill_null(absent) if chunk.null_count else chunk).to_numpy(zero_copy_only=True)
        at += len(chunk)


def values(table: pa.Table, codes: Sequence[int]) -> F8:
    """Value columns as (len(codes), n), NaN where absent."""
    found = np.empty((len(codes), table.num_rows))
    for k, code in enumerate(codes):
        into(table.column(COLUMNS[code].name), found[k], np.nan)
    return found
