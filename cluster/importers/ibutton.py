"""iButton temperature loggers (DS1921, DS1922, DS1923): the CSV that Maxim's OneWireViewer exports.

Twenty lines of facts about the device, then `Date/Time,Unit,Value` rows. The clock is the local one of the computer that
read the logger out, without a zone: `--timezone` says which. The tag is the device's registration number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

from cluster.importers.base import Bad, Clock, Item, Reading, RowError, Skipped, UnusableFile, celsius, number, numbered_lines, open_text

HEADER_LINES = 60
"""The table must begin within this many lines, else it is another kind of file."""


@dataclass(frozen=True)
class IButton:
    """Parser with its options. `tag` replaces the registration number; `time_format` is strptime's."""

    zone: ZoneInfo | None = None
    tag: str | None = None
    time_format: str = "%m/%d/%y %I:%M:%S %p"

    def __call__(self, path: Path) -> Iterator[Item]:
        """Items of one file."""
        clock = Clock(self.time_format, self.zone, ascending=True)
        tag, table = self.tag or "", False
        with open_text(path) as text:
            for line, row in numbered_lines(text):
                if not table:
                    name, _, value = row.partition(":")
                    if name.strip() == "1-Wire/iButton Registration Number":
                        tag = self.tag or value.strip()
                    table = row.replace(" ", "").lower() == "date/time,unit,value"
                    if table and not tag:
                        raise UnusableFile("its header names no '1-Wire/iButton Registration Number'; give the tag with --tag")
                    if line > HEADER_LINES:
                        break
                    continue
                if not row.strip():
                    yield Skipped(line, "empty line")
                    continue
                yield self._row(line, row, tag, clock)
        if not table:
            raise UnusableFile("no 'Date/Time,Unit,Value' line: this is not an iButton logger export")

    def _row(self, line: int, row: str, tag: str, clock: Clock) -> Item:
        cells = [cell.strip() for cell in row.split(",")]
        if len(cells) != 3:
            return Bad(line, f"{len(cells)} columns where time, unit and value are due: {row[:60]!r}")
        try:
            when, unit, value = clock.read(cells[0]), cells[1], number(cells[2], "value")
            if unit.upper() in ("RH", "%RH", "%"):
                return Reading(line, tag, when, {"relative_humidity_pct": value})
            return Reading(line, tag, when, {"temperature_c": celsius(value, unit)})
        except RowError as error:
            return Bad(line, str(error))
