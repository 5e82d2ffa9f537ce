"""Berlinger Fridge-tag 2 / Q-tag exports: a vaccine refrigerator's logger, as the text file on its USB drive.

The file does not hold the readings the device made every few minutes; per day it holds the lowest and the highest temperature with
their times, the day's average, and how long each alarm limit was violated. The importer makes a reading of each lowest and each highest
value at its time. An average has no time and is no reading. The device's own alarm minutes are reported as remarks, to be held
beside what Waybill finds: between two daily extremes most time is *uncovered* and Waybill says so. The clock is local: `--timezone`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

from cluster.importers.base import (
    Bad,
    Clock,
    Item,
    Reading,
    Remark,
    RowError,
    Skipped,
    UnusableFile,
    celsius,
    number,
    numbered_lines,
    open_text,
)

_EXTREME = re.compile(r"(Min|Max) T: *([^,]*), *TS \1 T: *(.*)")
_LIMIT = re.compile(r"T AL: *([^,]+), *t AL: *(\d+)")
_NUMBER = re.compile(r"(\d+):")


@dataclass(frozen=True)
class FridgeTag:
    """Parser with its options. `tag` replaces the device's serial number."""

    zone: ZoneInfo | None = None
    tag: str | None = None

    def __call__(self, path: Path) -> Iterator[Item]:
        """Items of one file."""
        clock = Clock("%Y-%m-%d %H:%M", self.zone)
        tag, unit, section, date, alarm = self.tag or "", "C", "", "", ""
        limits: dict[str, str] = {}
        with open_text(path) as text:
            for line, raw in numbered_lines(text):
                row = raw.strip()
                if line == 1 and not row.startswith("Device:"):
                    raise UnusableFile("its first line is not 'Device: ...': this is not a Fridge-tag export")
                if row in ("Conf:", "Hist:", "Cert:"):
                    section = row[:-1]
                    if section == "Hist" and not tag:
                        raise UnusableFile("no 'Serial:' in its configuration; give the tag with --tag")
                elif row.startswith("Serial:"):
                    tag = self.tag or row.partition(":")[2].strip()
                elif row.startswith("Temp unit:"):
                    unit = row.partition(":")[2].strip()
                elif _NUMBER.fullmatch(row):
                    alarm = row[:-1]
                elif section == "Conf" and (limit := _LIMIT.match(row)):
                    limits[alarm] = f"{limit[1].strip()} °{unit} for {limit[2]} min"
                elif section == "Hist":
                    if row.startswith("Date:"):
                        date = row.partition(":")[2].strip()
                    elif extreme := _EXTREME.match(row):
                        yield self._reading(line, tag, date, extreme[2].strip(), extreme[3].strip(), unit, clock)
                    elif row.startswith(("Min T:", "Max T:")):
                        yield Bad(line, f"an extreme without its time: {row[:60]!r}")
                    elif row.startswith("t Acc:"):
                        minutes = row.partition(":")[2].partition(",")[0].strip()
                        if minutes not in ("0", ""):
                            limit_text = limits.get(alarm, "unknown")
                            yield Remark(line, f"{date}: the device counted {minutes} min beyond its limit {alarm} ({limit_text})")
        if section not in ("Hist", "Cert"):
            raise UnusableFile("it has no 'Hist:' section: there are no recorded days in it")

    def _reading(self, line: int, tag: str, date: str, value: str, time: str, unit: str, clock: Clock) -> Item:
        if "-" in time or not time:
            return Skipped(line, "day without data")
        try:
            temperature_c = round(celsius(number(value, "temperature"), unit), 3)
            return Reading(line, tag, clock.read(f"{date} {time}"), {"temperature_c": temperature_c})
        except RowError as error:
            return Bad(line, str(error))
