"""Reading a command's arguments: each reader gives a checked value or raises InvalidArgument naming field, value and rule.

Arguments are plain data (dict, list, str, int, float, bool, None): they cross process borders and are kept in the journal.
An argument that is absent and one that is None or empty text mean the same: not given.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from actors.rules.errors import InvalidArgument, StaleEtag
from actors.rules.readings import FOREVER_US

Arguments = Mapping[str, Any]

EARLIEST_US = 0
"""Times before 1970 are mistakes, not history."""

LATEST_US = 9_214_646_400_000_000
"""2262-01-01: later times do not fit into common clocks."""

TEXT_MAX = 64
"""Longest identifier (handbook 6)."""

NAME_MAX = 256
NOTE_MAX = 4096
DESCRIPTION_MAX = NOTE_MAX

_IDENTITY = re.compile(r"[A-Za-z0-9._:~-]{1,64}", re.ASCII)
_UNIT = re.compile(r"[A-Z0-9]{2,3}", re.ASCII)


def digest(arguments: Arguments) -> str:
    """What makes two requests the same: SHA-256 of the canonical JSON of everything but the request id."""
    body = {key: value for key, value in arguments.items() if key != "request_id" and value not in (None, "", [], {})}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def text(arguments: Arguments, name: str, *, within: str = "", required: bool = False, longest: int = TEXT_MAX) -> str:
    """Printable text of at most `longest` characters, "" where not given. Texts longer than a name may have line breaks."""
    field = within + name
    value = arguments.get(name)
    if value is None or value == "":
        if required:
            raise InvalidArgument("must be given", field=field)
        return ""
    if not isinstance(value, str):
        raise InvalidArgument("must be text", field=field, value=value)
    if len(value) > longest:
        raise InvalidArgument(f"must have at most {longest} characters, has {len(value)}", field=field, value=value)
    plain = value.replace("\n", "") if longest > NAME_MAX else value
    if not plain.isprintable() or value != value.strip():
        raise InvalidArgument("must be printable characters without blanks at the ends", field=field, value=value)
    return value


def identity(arguments: Arguments, name: str, *, within: str = "", required: bool = True) -> str:
    """An id that the caller chose: a part of carrier names and of lists, so of a narrow alphabet. "" where not given."""
    value = text(arguments, name, within=within, required=required)
    if value and not _IDENTITY.fullmatch(value):
        raise InvalidArgument("must be 1 to 64 of A-Z a-z 0-9 . _ : ~ -", field=within + name, value=value)
    return value


def identifier(arguments: Arguments, name: str, check: Callable[[str, str], str], *, within: str = "") -> str | None:
    """An identifier of a standard (see actors.rules.identifiers), None where not given."""
    value = arguments.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise InvalidArgument("must be text", field=within + name, value=value)
    return check(value, within + name)


def time_us(arguments: Arguments, name: str, *, within: str = "", required: bool = False) -> int | None:
    """Microseconds since 1970 UTC, in 1970 to 2261; None where not given."""
    field = within + name
    value = arguments.get(name)
    if value is None:
        if required:
            raise InvalidArgument("must be given", field=field)
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument("must be a time in whole microseconds", field=field, value=value)
    if not EARLIEST_US <= value < LATEST_US:
        raise InvalidArgument("must lie in the years 1970 to 2261", field=field, value=value)
    return value


def number(
    arguments: Arguments,
    name: str,
    *,
    within: str = "",
    low: float = -math.inf,
    high: float = math.inf,
    required: bool = False,
) -> float | None:
    """A finite number with low <= value <= high; None where not given. NaN and infinities are never valid."""
    field = within + name
    value = arguments.get(name)
    if value is None:
        if required:
            raise InvalidArgument("must be given", field=field)
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidArgument("must be a finite number", field=field, value=value)
    if not low <= value <= high:
        raise InvalidArgument(f"must lie between {low:g} and {high:g}", field=field, value=value)
    return float(value)


def duration_us(arguments: Arguments, name: str, *, within: str = "", low_us: int = 0, high_us: int = FOREVER_US) -> int | None:
    """A length of time in microseconds with low_us <= value <= high_us; None where not given."""
    field = within + name
    value = arguments.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument("must be a duration in whole microseconds", field=field, value=value)
    if not low_us <= value <= high_us:
        raise InvalidArgument(f"must lie between {low_us} and {high_us} microseconds", field=field, value=value)
    return value


def quantity(arguments: Arguments, name: str, *, within: str = "") -> str:
    """A positive decimal as text (never a float), at most 12 digits before and 6 after the point, in plain notation."""
    field = within + name
    value = arguments.get(name)
    if value is None or value == "":
        raise InvalidArgument("must be given", field=field)
    if not isinstance(value, str):
        raise InvalidArgument("must be a decimal written as text", field=field, value=value)
    try:
        decimal = Decimal(value)
    except InvalidOperation:
        raise InvalidArgument("must be a decimal such as 12.5", field=field, value=value) from None
    if not decimal.is_finite() or decimal <= 0:
        raise InvalidArgument("must be above zero", field=field, value=value)
    plain = format(decimal.normalize(), "f")
    whole, _, fraction = plain.partition(".")
    if len(whole) > 12 or len(fraction) > 6:
        raise InvalidArgument("must have at most 12 digits before and 6 after the point", field=field, value=value)
    return plain


def unit(arguments: Arguments, name: str = "unit", *, within: str = "", default: str = "EA") -> str:
    """A unit of measure by its UN/CEFACT Recommendation 20 code: two or three of A-Z and 0-9."""
    value = text(arguments, name, within=within) or default
    if not _UNIT.fullmatch(value):
        raise InvalidArgument("must be a UN/CEFACT Rec 20 code such as EA or KGM", field=within + name, value=value)
    return value


def flag(arguments: Arguments, name: str, *, within: str = "", default: bool = False) -> bool:
    """True or false."""
    value = arguments.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidArgument("must be true or false", field=within + name, value=value)
    return value


def one_of(arguments: Arguments, name: str, choices: Sequence[str], *, within: str = "", default: str | None = None) -> str:
    """One of the given words."""
    value = arguments.get(name)
    if value is None or value == "":
        if default is None:
            raise InvalidArgument(f"must be one of {', '.join(choices)}", field=within + name)
        return default
    if value not in choices:
        raise InvalidArgument(f"must be one of {', '.join(choices)}", field=within + name, value=value)
    return str(value)


def section(arguments: Arguments, name: str, *, within: str = "") -> Arguments | None:
    """A nested message; None where not given."""
    value = arguments.get(name)
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidArgument("must be a message", field=within + name, value=value)
    return value


def each(arguments: Arguments, name: str, *, within: str = "", most: int) -> Iterator[tuple[str, Arguments]]:
    """The entries of a list of at most `most` messages, each with the path of its fields ("stops[2].")."""
    value = arguments.get(name)
    if value is None:
        return
    field = within + name
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise InvalidArgument("must be a list", field=field, value=value)
    if len(value) > most:
        raise InvalidArgument(f"must have at most {most} entries, has {len(value)}", field=field, value=len(value))
    for index, entry in enumerate(value):
        if not isinstance(entry, Mapping):
            raise InvalidArgument("must be a message", field=f"{field}[{index}]", value=entry)
        yield f"{field}[{index}].", entry


def labels(arguments: Arguments, name: str = "labels", *, within: str = "", most: int = 32) -> dict[str, str]:
    """Free key and value texts of the caller, at most `most` of them."""
    value = section(arguments, name, within=within)
    if value is None:
        return {}
    if len(value) > most:
        raise InvalidArgument(f"must have at most {most} entries", field=within + name, value=len(value))
    field = within + name
    return {text({"key": key}, "key", within=f"{field}.", required=True): text(value, key, within=f"{field}.") for key in value}


def etag(arguments: Arguments, name: str = "etag") -> int | None:
    """The version that the caller decided on; None where the caller does not care."""
    value = arguments.get(name)
    if value is None or value == "":
        return None
    try:
        return int(value)
    except (TypeError, ValueError):
        raise InvalidArgument("must be an etag that was given by an earlier answer", field=name, value=value) from None


def check_etag(arguments: Arguments, current: int, *, within: str = "", required: bool = True) -> None:
    """Refuse a decision that was made on another version than the current one; an empty etag where one is required."""
    value = arguments.get("etag")
    if value is None or value == "":
        if required:
            raise InvalidArgument("must be given, as it was read", field=within + "etag")
        return
    if str(value) != str(current):
        raise StaleEtag(f"is not the current one ({current})", field=within + "etag", value=value)


def point(arguments: Arguments, *, within: str = "", required: bool = False) -> tuple[float, float] | None:
    """(latitude_deg, longitude_deg) of WGS-84: both or neither."""
    latitude = number(arguments, "latitude_deg", within=within, low=-90.0, high=90.0, required=required)
    longitude = number(arguments, "longitude_deg", within=within, low=-180.0, high=180.0, required=required)
    if latitude is None and longitude is None:
        return None
    if latitude is None or longitude is None:
        missing = "latitude_deg" if latitude is None else "longitude_deg"
        raise InvalidArgument("latitude and longitude come together", field=within + missing)
    return latitude, longitude


def masked(mask: Sequence[str] | None, changes: Arguments, allowed: Sequence[str], field: str = "update_mask") -> list[str]:
    """The fields to change: those of the mask, "*" for all, and without a mask every field that is given."""
    if not mask:
        return [name for name in allowed if changes.get(name) not in (None, "", [], {})]
    if list(mask) == ["*"]:
        return list(allowed)
    for path in mask:
        if path not in allowed:
            raise InvalidArgument(f"must be of {', '.join(allowed)}", field=field, value=path)
    return [name for name in allowed if name in mask]
