"""Writing a part: one file in each dataset, under names that were never used, with a SHA-256 of each.

Readings are written journey by journey as they come, so that memory holds a row group or two and not the part.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actors.journal.tables import ArchivePart
from actors.rules.readings import MISSING, NO_SEQUENCE, NOT_EVALUATED, Batch
from cluster.archive import layout
from cluster.archive.filesystem import Place

PART_READINGS = 4_000_000
"""A part holds about so many readings: what one replay task reads, 0.2 GB unpacked."""


class _Hashed:
    """A stream that knows the SHA-256 and length of what went through it."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.seen, self.bytes = stream, hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        self.seen.update(data)
        size = memoryview(data).nbytes
        self.bytes += size
        self.stream.write(data)
        return size

    def flush(self) -> None:
        self.stream.flush()

    def close(self) -> None:
        self.stream.close()

    @property
    def closed(self) -> bool:
        return bool(self.stream.closed)

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


@dataclass
class _Dataset:
    """One dataset's file of a part while it is written."""

    name: str
    stream: _Hashed
    writer: pq.ParquetWriter
    rows: int = 0
    waiting: list[pa.Table] = field(default_factory=list)
    waiting_rows: int = 0

    def add(self, table: pa.Table, group: int) -> None:
        self.waiting.append(table)
        self.waiting_rows += table.num_rows
        if self.waiting_rows >= group:
            self.flush(group)

    def flush(self, group: int) -> None:
        if self.waiting_rows:
            self.writer.write_table(pa.concat_tables(self.waiting), row_group_size=group)
            self.rows += self.waiting_rows
            self.waiting, self.waiting_rows = [], 0


class PartWriter:
    """Writes a part's files. Journeys come in the order of their carriers, custodies in theirs; `close` gives the manifest's row."""

    def __init__(self, place: Place, month: str, part_id: str = "", datasets: Sequence[str] = layout.JOURNEYS) -> None:
        self.place, self.month, self.datasets = place, month, tuple(datasets)
        self.part_id = part_id or f"{month}-{uuid.uuid4().hex[:12]}"
        self.readings = 0
        self.carriers = 0
        self._open: dict[str, _Dataset] = {}

    def add(self, dataset: str, table: pa.Table) -> None:
        """Rows of a dataset, in its order."""
        if table.num_rows:
            self._dataset(dataset).add(table, _group(dataset))
        if dataset in ("readings", "loose"):
            self.readings += table.num_rows
        if dataset == "shipments":
            self.carriers += table.num_rows

    def add_rows(self, dataset: str, records: Sequence[Mapping[str, Any]]) -> None:
        """Rows as records: times as microseconds, JSON columns as text."""
        if records:
            self.add(dataset, pa.Table.from_pylist(list(records), schema=layout.DATASETS[dataset]))

    def close(self, made_us: int, software: str) -> ArchivePart:
        """Finish all files. Only what the manifest names after this counts."""
        files = []
        for name in self.datasets:
            if name in layout.WHERE_THERE_ARE_ANY and name not in self._open:
                continue
            one = self._dataset(name)
            one.flush(_group(name))
            one.writer.close()
            one.stream.close()
            files.append(
                {
                    "dataset": name, "name": layout.file_of(name, self.month, self.part_id), "rows": one.rows, "bytes": one.stream.bytes,
                    "sha256": one.stream.seen.hexdigest(),
                }
            )  # fmt: skip
        self.place.sync(str(file["name"]) for file in files)
        return ArchivePart(
            part_id=self.part_id, location=self.place.location, month=self.month, made_us=made_us, carriers=self.carriers,
            readings=self.readings, software=software, files=files,
        )  # fmt: skip

    def abandon(self) -> None:
        """Close and remove what was written."""
        for one in self._open.values():
            one.writer.close()
            one.stream.close()
            self.place.remove(layout.file_of(one.name, self.month, self.part_id))
        self._open = {}

    def _dataset(self, name: str) -> _Dataset:
        if name not in self._open:
            stream = _Hashed(self.place.create(layout.file_of(name, self.month, self.part_id)))
            writer = pq.ParquetWriter(pa.PythonFile(stream, "w"), layout.DATASETS[name], **layout.encodings(name))
            self._open[name] = _Dataset(name, stream, writer)
        return self._open[name]


def _group(dataset: str) -> int:
    """Rows of a row group."""
    return layout.ROW_GROUP if dataset in ("readings", "loose") else 65_536


def readings_table(
    carrier: str, tag_id: str, custody_id: int, batch: Batch, flags: Any, received_us: Any, shard: Any, journal: Any, row: Any
) -> pa.Table:
    """One custody's readings, in judging order, as rows of the dataset. flags: as `batch.values`, or None: not evaluated."""
    n = len(batch)
    at = {code: k for k, code in enumerate(batch.codes)}
    columns: list[Any] = [
        _repeated(carrier, n),
        _repeated(tag_id, n),
        pa.array(np.full(n, custody_id, np.int64)),
        layout.times(batch.sensed_us),
        layout.times(received_us),
        pa.array(batch.boot, mask=batch.boot == NO_SEQUENCE),
        pa.array(batch.sequence, mask=batch.sequence == NO_SEQUENCE),
    ]
    nothing = pa.nulls(n, pa.float64())
    no_flag = pa.nulls(n, pa.uint8())
    values, stated = [], []
    for code in range(len(layout.VALUE_COLUMNS)):
        if code not in at:
            values.append(nothing)
            stated.append(no_flag)
            continue
        column = batch.values[at[code]]
        absent = np.isnan(column)
        mask = absent if absent.any() else None
        values.append(pa.array(column, mask=mask))
        flag = np.full(n, NOT_EVALUATED, np.uint8) if flags is None else flags[at[code]]
        stated.append(pa.array(flag, mask=absent | (flag == MISSING)))
    places = [
        pa.array(np.broadcast_to(shard, n).astype(np.int16)),
        pa.array(np.asarray(journal, np.int64)),
        pa.array(np.asarray(row, np.int32)),
    ]
    return pa.Table.from_arrays([*columns, *values, *stated, *places], schema=layout.READINGS)


def _repeated(text: str, n: int) -> pa.Array:
    return pa.repeat(pa.scalar(text), n)


def as_json(value: Any) -> str:
    """JSON text, the same for the same value; what JSON does not know is written as text."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True, default=str)


def write_manifest(place: Place, parts: Iterable[Mapping[str, Any]]) -> None:
    """manifest.json: the parts that count, for readers without the database."""
    kept = ("part_id", "month", "made_us", "carriers", "readings", "software", "files")
    mine = [{name: part[name] for name in kept} for part in parts if part["location"] == place.location]
    place.put(layout.MANIFEST, json.dumps({"format": layout.FORMAT, "parts": mine}, indent=1).encode())


def read_manifest(place: Place) -> list[dict[str, Any]]:
    """The parts that manifest.json names, as rows of the database's manifest. Raises FileNotFoundError, ValueError."""
    found = json.loads(place.read(layout.MANIFEST))
    if found.get("format") != layout.FORMAT:
        raise ValueError(f"{place.location}: an archive of format {found.get('format')!r} is not known here")
    return [{**part, "location": place.location} for part in found["parts"]]
