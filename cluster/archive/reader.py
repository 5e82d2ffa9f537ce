"""Reading parts of the archive: whole datasets, and the columns that a replay judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
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


def values(table: pa.Table, codes: Sequence[int]) -> F8:
    """Value columns as (len(codes), n), NaN where absent."""
    found = np.empty((len(codes), table.num_rows))
    for k, code in enumerate(codes):
        at = 0
        for chunk in table.column(COLUMNS[code].name).chunks:
            n = len(chunk)
            if chunk.null_count == n:
                found[k, at : at + n] = np.nan
            else:
                found[k, at : at + n] = chunk.to_numpy(zero_copy_only=chunk.null_count == 0)  # a null becomes NaN
            at += n
    return found
