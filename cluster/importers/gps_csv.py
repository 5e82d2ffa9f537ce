"""Positions from any CSV with a header line: say which columns are the tag, the time, the latitude and the longitude."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

from cluster.importers.base import Bad, Clock, Item, Reading, RowError, Skipped, UnusableFile, number, numbered_lines, open_text

MPS: dict[str, float] = {"mps": 1.0, "kmh": 1 / 3.6, "knots": 1852 / 3600, "mph": 1609.344 / 3600}
"""Metres per second by unit of speed."""


@dataclass(frozen=True)
class GpsCsv:
    """Parser with its options: names of columns, unit of speed, format and zone of times (see base.Clock)."""

    tag_column: str
    time_column: str
    lat_column: str
    lon_column: str
    speed_column: str | None = None
    speed_unit: str = "mps"
    accuracy_column: str | None = None
    time_format: str = "iso"
    zone: ZoneInfo | None = None
    delimiter: str = ","

    def __call__(self, path: Path) -> Iterator[Item]:
        """Items of one file. A field in quotes may not run over several lines."""
        clock = Clock(self.time_format, self.zone)
        with open_text(path) as text:
            lines = numbered_lines(text)
            _, first = next(lines, (0, ""))
            header = next(csv.reader([first], delimiter=self.delimiter), [])
            header = [name.strip() for name in header]
            at = {name: self._find(header, name) for name in self._columns()}
            for line, row in lines:
                if not row.strip():
                    yield Skipped(line, "empty line")
                    continue
                try:
                    cells = next(csv.reader([row], delimiter=self.delimiter, strict=True))
                except csv.Error as error:
                    yield Bad(line, f"not CSV: {error}")
                    continue
                if len(cells) != len(header):
                    yield Bad(line, f"{len(cells)} columns where the header has {len(header)}")
                    continue
                yield self._row(line, {name: cells[place].strip() for name, place in at.items()}, clock)

    def _columns(self) -> list[str]:
        optional = [self.speed_column, self.accuracy_column]
        return [self.tag_column, self.time_column, self.lat_column, self.lon_column, *(name for name in optional if name)]

    def _find(self, header: list[str], name: str) -> int:
        if name not in header:
            raise UnusableFile(f"it has no column {name!r}; its columns are {', '.join(header)}")
        return header.index(name)

    def _row(self, line: int, cells: dict[str, str], clock: Clock) -> Item:
        tag = cells[self.tag_column]
        if not tag:
            return Bad(line, f"no tag in column {self.tag_column!r}")
        try:
            values = {
                "latitude_deg": number(cells[self.lat_column], "latitude"),
                "longitude_deg": number(cells[self.lon_column], "longitude"),
            }
            if self.speed_column and cells[self.speed_column]:
                values["speed_mps"] = number(cells[self.speed_column], "speed") * MPS[self.speed_unit]
            if self.accuracy_column and cells[self.accuracy_column]:
                values["gps_accuracy_m"] = number(cells[self.accuracy_column], "accuracy")
            return Reading(line, tag, clock.read(cells[self.time_column]), values)
        except RowError as error:
            return Bad(line, str(error))
