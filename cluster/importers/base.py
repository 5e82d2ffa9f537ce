"""What all importers share: the items a parser yields, opening files, times and numbers in text.

A parser is a function from a path to an iterator of `Reading`, `Bad`, `Skipped` and `Remark`. It never stops at a bad row; it
raises `UnusableFile` where the file as a whole is not of its format.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, TextIO
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from actors.rules.readings import NO_SEQUENCE

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ONE_US = timedelta(microseconds=1)


class Reading(NamedTuple):
    """One reading of a file. `values` is by metric name (`temperature_c`, ...); `boot` and `sequence` where the device tells them."""

    line: int
    tag_id: str
    sensed_us: int
    values: dict[str, float]
    boot: int = NO_SEQUENCE
    sequence: int = NO_SEQUENCE


class Bad(NamedTuple):
    """A row that should be a reading and cannot be used; the reason names what is wrong with it."""

    line: int
    reason: str


class Skipped(NamedTuple):
    """A row that is right and is no reading (a join, a frame without measurements); counted by kind."""

    line: int
    kind: str


class Remark(NamedTuple):
    """What the file says beside its readings and people should see (a logger's own alarms)."""

    line: int
    text: str


Item = Reading | Bad | Skipped | Remark
Parser = Callable[[Path], Iterator[Item]]


class UnusableFile(Exception):
    """The file as a whole cannot be imported; the message says why and what to do."""


class RowError(ValueError):
    """A value of a row cannot be used; the message is the reason."""


def open_text(path: Path) -> TextIO:
    """Opens UTF-8 text (a byte order mark is skipped), gunzipped where the content is gzip, whatever its name.

    Raises UnusableFile where it is missing, unreadable or empty.
    """
    try:
        raw = path.open("rb")
    except OSError as error:
        raise UnusableFile(error.strerror or str(error)) from error
    magic = raw.peek(2)[:2]
    if not magic:
        raw.close()
        raise UnusableFile("the file is empty")
    stream = gzip.GzipFile(fileobj=raw) if magic == b"\x1f\x8b" else raw
    return io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")


def numbered_lines(text: TextIO) -> Iterator[tuple[int, str]]:
    """Lines with their numbers from 1, without line ends. Damage in mid-file raises UnusableFile that names the place.

    What came before the damage has been yielded: its readings are kept.
    """
    number = 0
    while True:
        try:
            line = text.readline()
        except UnicodeDecodeError as error:
            raise UnusableFile(f"not UTF-8 text after line {number}: {error.reason}") from error
        except (OSError, EOFError, zlib.error) as error:
            raise UnusableFile(f"compressed data damaged after line {number}: {error}") from error
        if not line:
            return
        number += 1
        yield number, line.rstrip("\r\n")


def zone(name: str | None) -> ZoneInfo | None:
    """The time zone by IANA name (`America/Chicago`). Raises ValueError with an example where there is none such."""
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"unknown time zone {name!r}; give an IANA name such as Europe/Berlin, America/Chicago or UTC") from error


class Clock:
    """Turns a device's texts into microseconds since 1970 UTC.

    form: `iso`, `unix` (seconds), `unix_ms`, or a strptime format. zone: of times that carry none; without it such times are
    refused, never guessed. Where a local hour happens twice (the end of daylight saving), the second is meant as soon as the
    clock would otherwise step back.
    """

    def __init__(self, form: str, zone: ZoneInfo | None, *, ascending: bool = False) -> None:
        self.form, self.zone, self.ascending = form, zone, ascending
        self._newest_us = -(2**62)

    def read(self, text: str) -> int:
        """Microseconds. Raises RowError with the reason."""
        text = text.strip()
        if not text:
            raise RowError("no time")
        if self.form in ("unix", "unix_ms"):
            return round(number(text, "time") * (1e6 if self.form == "unix" else 1e3))
        try:
            moment = datetime.fromisoformat(text) if self.form == "iso" else datetime.strptime(text, self.form)  # noqa: DTZ007
        except ValueError as error:
            raise RowError(f"time {text!r} does not fit the format {self.form!r}") from error
        if moment.tzinfo is None:
            moment = self._local(moment, text)
        sensed_us = (moment - EPOCH) // ONE_US
        self._newest_us = max(self._newest_us, sensed_us)
        return sensed_us

    def _local(self, moment: datetime, text: str) -> datetime:
        if self.zone is None:
            raise UnusableFile(f"its times (first: {text!r}) carry no time zone: say which, e.g. --timezone America/Chicago")
        first = moment.replace(tzinfo=self.zone)
        there_and_back = first.astimezone(UTC).astimezone(self.zone).replace(tzinfo=None)
        if there_and_back != moment:
            raise RowError(f"time {text!r} does not exist in {self.zone.key} (the clock is put forward there)")
        second = first.replace(fold=1)
        if self.ascending and (first - EPOCH) // ONE_US <= self._newest_us < (second - EPOCH) // ONE_US:
            return second
        return first


def number(text: str, what: str) -> float:
    """A finite number. Raises RowError that names `what` it was to be."""
    try:
        value = float(text)
    except ValueError as error:
        raise RowError(f"{what} {text!r} is not a number") from error
    if not math.isfinite(value):
        raise RowError(f"{what} {text!r} is not a finite number")
    return value


def celsius(value: float, unit: str) -> float:
    """A temperature in °C from C or F. Raises RowError for another unit."""
    if unit.upper() in ("C", "°C"):
        return value
    if unit.upper() in ("F", "°F"):
        return (value - 32.0) / 1.8
    raise RowError(f"temperature unit {unit!r} is neither C nor F")
