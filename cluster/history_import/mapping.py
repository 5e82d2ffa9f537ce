"""What the columns of a file are: the TOML file that `waybill history import` is given (docs/history-import.md)."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from actors.rules.readings import CODE
from cluster.importers.base import zone

FACTORS: dict[str, dict[str, tuple[float, float]]] = {
    "temperature_c": {"C": (1.0, 0.0), "F": (1.8, 32.0), "K": (1.0, 273.15)},
    "relative_humidity_pct": {"%": (1.0, 0.0), "fraction": (0.01, 0.0)},
    "pressure_hpa": {"hPa": (1.0, 0.0), "mbar": (1.0, 0.0), "Pa": (100.0, 0.0), "kPa": (0.1, 0.0), "bar": (0.001, 0.0)},
    "shock_g": {"g": (1.0, 0.0), "mg": (1000.0, 0.0), "m/s2": (9.80665, 0.0)},
    "battery_v": {"V": (1.0, 0.0), "mV": (1000.0, 0.0)},
    "speed_mps": {"m/s": (1.0, 0.0), "km/h": (3.6, 0.0), "knots": (3600 / 1852, 0.0), "mph": (3600 / 1609.344, 0.0)},
    "co2_pct": {"%": (1.0, 0.0), "ppm": (10_000.0, 0.0)},
    "o2_pct": {"%": (1.0, 0.0), "ppm": (10_000.0, 0.0)},
}
"""By metric and unit: ours = (theirs - offset) / factor."""


class MappingError(ValueError):
    """A mapping that cannot be used. The text has one line per problem: where, the rule, what was given."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileForm(_Strict):
    """How the file is written. `skip_lines`: lines before the header (or before the first row where there is none)."""

    format: Literal["csv", "parquet"] | None = None
    delimiter: str = Field(",", min_length=1, max_length=1)
    quote: str = Field('"', min_length=1, max_length=1)
    decimal: Literal[".", ","] = "."
    encoding: Literal["utf-8", "latin-1", "cp1252"] = "utf-8"
    header: bool = True
    columns: tuple[str, ...] = ()
    skip_lines: int = Field(0, ge=0, le=1_000)
    missing: tuple[str, ...] = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "-")

    @model_validator(mode="after")
    def _together(self) -> FileForm:
        if not self.header and not self.columns:
            raise ValueError("without a header line the names of the columns must be given: columns = [...]")
        if self.decimal == "," and self.delimiter == ",":
            raise ValueError("decimal and delimiter cannot both be a comma")
        return self


class TagColumn(_Strict):
    """Where the tag's id comes from: a column, the same for all, or the file's name without its endings."""

    column: str | None = None
    value: str | None = None
    file_name: bool = False
    prefix: str = ""

    @model_validator(mode="after")
    def _one(self) -> TagColumn:
        if (self.column is not None) + (self.value is not None) + self.file_name != 1:
            raise ValueError("give exactly one of column, value, file_name")
        return self


class TimeColumn(_Strict):
    """The sensor's time. format: iso, unix, unix_ms, unix_us, or a strptime format; zone: of times that carry none."""

    column: str
    format: str = "iso"
    zone: str | None = None

    @model_validator(mode="after")
    def _known(self) -> TimeColumn:
        zone(self.zone)
        if self.format not in ("iso", "unix", "unix_ms", "unix_us") and "%" not in self.format:
            raise ValueError("format is iso, unix, unix_ms, unix_us or a strptime format such as '%d/%m/%Y %H:%M'")
        return self

    @property
    def where(self) -> ZoneInfo | None:
        """The zone; None: times carry their own, or are refused."""
        return zone(self.zone)


class ValueColumn(_Strict):
    """A column of values: the metric is ours = ((theirs × scale + offset) in `unit`)."""

    column: str
    unit: str | None = None
    scale: float = 1.0
    offset: float = 0.0


def _value_column(given: Any) -> Any:
    return {"column": given} if isinstance(given, str) else given


class LongName(_Strict):
    """What a name of the long form is here: a metric, with the unit of its values."""

    metric: str
    unit: str | None = None
    scale: float = 1.0
    offset: float = 0.0


def _long_name(given: Any) -> Any:
    return {"metric": given} if isinstance(given, str) else given


class LongForm(_Strict):
    """One value a row: a column that names the metric, one with the value, and what their names are here."""

    metric: str
    value: str
    names: dict[str, Annotated[LongName, BeforeValidator(_long_name)]]


class Counter(_Strict):
    """The device's own count of its readings. `boot` names a column; without one all rows are of boot 0."""

    sequence: str
    boot: str | None = None


class Mapping(_Strict):
    """The whole mapping."""

    tag: TagColumn
    time: TimeColumn
    values: dict[str, Annotated[ValueColumn, BeforeValidator(_value_column)]] = Field(default_factory=dict)
    long: LongForm | None = None
    counter: Counter | None = None
    file: FileForm = Field(default_factory=lambda: FileForm.model_validate({}))

    @model_validator(mode="after")
    def _metrics(self) -> Mapping:
        if bool(self.values) == (self.long is not None):
            raise ValueError("give [values] (a column for each metric) or [long] (one value a row), one of them")
        for name, one in self.units():
            if name not in CODE:
                raise ValueError(f"{name} is no metric; there are {', '.join(CODE)}")
            known = FACTORS.get(name, {})
            if one is not None and one not in known:
                raise ValueError(f"{name}: unit {one!r} is not one of {', '.join(known) or 'none: it has a single unit'}")
        names = {name for name, _ in self.units()}
        if ("latitude_deg" in names) != ("longitude_deg" in names):
            raise ValueError("latitude_deg and longitude_deg come together")
        return self

    def units(self) -> list[tuple[str, str | None]]:
        """The metrics with their units."""
        if self.long is None:
            return [(name, one.unit) for name, one in self.values.items()]
        return [(one.metric, one.unit) for one in self.long.names.values()]

    def columns(self) -> list[str]:
        """All columns that the file must have, each once."""
        wanted = [self.tag.column, self.time.column, *(one.column for one in self.values.values())]
        if self.long is not None:
            wanted += [self.long.metric, self.long.value]
        if self.counter is not None:
            wanted += [self.counter.sequence, self.counter.boot]
        return list(dict.fromkeys(name for name in wanted if name))


def load(path: Path) -> Mapping:
    """The mapping in a TOML file. Raises MappingError."""
    try:
        return of(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise MappingError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MappingError(f"{path} is no TOML: {error}") from None


def of(data: dict[str, Any]) -> Mapping:
    """The mapping from data. Raises MappingError."""
    try:
        return Mapping.model_validate(data)
    except ValidationError as error:
        raise MappingError("\n".join(_line(problem) for problem in error.errors())) from None


def _line(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    text = re.sub(r"^Value error, ", "", problem["msg"])
    return f"{where}: {text}" if where else text
