"""All readings of archived journeys in the order in which they were sensed, however many: they are sorted through files of a folder.

The archive has them by carrier. Each reading goes into the file of its stretch of time; the stretches have about AT_ONCE readings each,
and are then read, sorted and given one after the other. Memory holds a row group and a stretch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from actors.rules.readings import COLUMNS, I4, I8, NO_SEQUENCE, Batch
from cluster.archive import reader
from cluster.archive.reader import Part

AT_ONCE = 1_000_000
"""So many readings are sorted together, about."""
BINS = 1 << 14
"""In so many equal pieces time is counted before it is cut into stretches."""
FACTS = ("sensed_at", "boot", "sequence")


@dataclass(slots=True)
class Source:
    """Readings of one part. ranges: of rows of its file, ascending; tag: the tag's index of each of their readings."""

    part: Part
    ranges: Sequence[tuple[int, int]]
    tag: I4

    def tables(self, columns: Sequence[str]) -> Iterator[tuple[I4, pa.Table]]:
        """Some columns, piece by piece, each with the tags' indices."""
        at = 0
        with reader.Rows(self.part, "readings", columns) as rows:
            for low, high in self.ranges:
                for table in rows.between(low, high):
                    yield self.tag[at : at + table.num_rows], table
                    at += table.num_rows


@dataclass(slots=True)
class Ordered:
    """The readings of some sources, given by `batches`. first_us, last_us: the first and the last sensed time."""

    folder: Path
    count: int = 0
    first_us: int = 0
    last_us: int = 0
    codes: tuple[int, ...] = ()
    stretches: list[Path] = field(default_factory=list)

    def batches(self) -> Iterator[Batch]:
        """All readings, ascending, some at once."""
        for path in self.stretches:
            rows = np.fromfile(path, _dtype(len(self.codes)))
            rows = rows[np.argsort(rows["sensed_us"], kind="stable")]
            tag, sensed_us, boot, sequence = (np.ascontiguousarray(rows[name]) for name in ("tag", "sensed_us", "boot", "sequence"))
            yield Batch(tag, sensed_us, boot, sequence, self.codes, np.ascontiguousarray(rows["values"].T))


def order(sources: Sequence[Source], folder: Path) -> Ordered:
    """Sort the readings of some sources into files of a folder."""
    times = [_ends(sensed_us) for sensed_us in _times(sources)]
    found = Ordered(folder)
    if not times:
        return found
    found.first_us, found.last_us = min(low for low, _ in times), max(high for _, high in times)
    width = (found.last_us - found.first_us) // BINS + 1
    counts = np.zeros(BINS, np.int64)
    for sensed_us in _times(sources):
        counts += np.bincount((sensed_us - found.first_us) // width, minlength=BINS)
    _, stretch = np.unique((np.cumsum(counts) - counts) // AT_ONCE, return_inverse=True)  # of each bin, by how many readings lie before
    found.count = int(counts.sum())
    found.stretches = [folder / f"{at:06d}" for at in range(int(stretch[-1]) + 1)]
    found.codes = tuple(sorted({code for source in sources for code in _codes(source)}))
    for source in sources:
        for tag, table in source.tables([*FACTS, *(COLUMNS[code].name for code in found.codes)]):
            rows = _rows(tag, table, found.codes)
            of = stretch[(rows["sensed_us"] - found.first_us) // width]
            for at in np.unique(of).tolist():
                with found.stretches[at].open("ab") as file:
                    rows[of == at].tofile(file)
    return found


def _dtype(many: int) -> npt.DTypeLike:
    return np.dtype([("tag", "i4"), ("sensed_us", "i8"), ("boot", "i8"), ("sequence", "i8"), ("values", "f8", (many,))])


def _times(sources: Sequence[Source]) -> Iterator[I8]:
    for source in sources:
        for _, table in source.tables(["sensed_at"]):
            yield reader.integers(table.column("sensed_at"))


def _ends(sensed_us: I8) -> tuple[int, int]:
    return int(sensed_us.min()), int(sensed_us.max())


def _codes(source: Source) -> tuple[int, ...]:
    """The columns in which the part has any value."""
    with reader.Rows(source.part, "readings", [column.name for column in COLUMNS]) as rows:
        return tuple(code for code, column in enumerate(COLUMNS) if column.name in rows.filled())


def _rows(tag: I4, table: pa.Table, codes: tuple[int, ...]) -> npt.NDArray[Any]:
    made = np.empty(table.num_rows, _dtype(len(codes)))
    made["tag"] = tag
    for name, column in zip(("sensed_us", "boot", "sequence"), FACTS, strict=True):
        made[name] = reader.integers(table.column(column)) if column in table.column_names else NO_SEQUENCE
    for k, code in enumerate(codes):
        if COLUMNS[code].name in table.column_names:
            reader.into(table.column(COLUMNS[code].name), made["values"][:, k], np.nan)
        else:
            made["values"][:, k] = np.nan
    return made
