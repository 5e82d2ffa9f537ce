"""Changing an archive as somebody with access to its files could: one value of one dataset of one part, the manifest left as it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.archive import layout


def tamper(part: Mapping[str, Any], dataset: str, change: Callable[[dict[str, Any]], bool]) -> None:
    """Write a part's dataset anew with the first row that `change` takes changed."""
    name = next(file["name"] for file in part["files"] if file["dataset"] == dataset)
    path = Path(part["location"]) / name
    table = pq.read_table(path)
    plain = [column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in table.columns]
    rows = pa.table(plain, names=table.column_names).to_pylist()
    assert any(change(row) for row in rows), "nothing was changed"
    pq.write_table(pa.Table.from_pylist(rows, schema=layout.DATASETS[dataset]), path)
