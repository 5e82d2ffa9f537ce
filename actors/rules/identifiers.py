"""Identifiers of goods, places and boxes, with their check digits (handbook 6).

Each function gives the identifier back as it is to be stored, or raises InvalidArgument with the field, the value and the rule;
where only the check digit is wrong, the rule names the right one.
"""

from __future__ import annotations

import re

from actors.rules.errors import InvalidArgument

LONGEST = 64
"""The most characters of any identifier."""

_DIGITS = re.compile(r"[0-9]+", re.ASCII)
_CONTAINER = re.compile(r"[A-Z]{3}[UJZR][0-9]{7}", re.ASCII)
_LOCODE = re.compile(r"[A-Z]{2}[A-Z2-9]{3}", re.ASCII)
_GRAI_SERIAL = re.compile(r"[!\"%-?A-Z_a-z]{0,16}", re.ASCII)
"""GS1's character set 82, as in the General Specifications, section 7.11."""
_LETTER_VALUE = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", (n for n in range(10, 39) if n % 11), strict=True))


def gs1_check_digit(digits: str) -> int:
    """The check digit that follows `digits`: weights 3, 1, 3, … from the right; (10 − sum mod 10) mod 10 (GS1 General Specifications 7.9).

    >>> gs1_check_digit("629104150021")
    3
    """
    total = sum(int(digit) * (3 if k % 2 == 0 else 1) for k, digit in enumerate(reversed(digits)))
    return (10 - total % 10) % 10


def sscc(value: str, field: str = "sscc") -> str:
    """A serial shipping container code: 18 digits, the last checks."""
    return _gs1(value, (18,), "an SSCC", field)


def gtin(value: str, field: str = "gtin") -> str:
    """A global trade item number of 8, 12, 13 or 14 digits, the last checks. Kept in the length given."""
    return _gs1(value, (8, 12, 13, 14), "a GTIN", field)


def gln(value: str, field: str = "gln") -> str:
    """A global location number: 13 digits, the last checks."""
    return _gs1(value, (13,), "a GLN", field)


def grai(value: str, field: str = "grai") -> str:
    """A global returnable asset identifier: 14 digits (a leading 0 first, the 14th checks) and a serial of up to 16 characters."""
    digits, serial = value[:14], value[14:]
    _require(digits.startswith("0"), "a GRAI begins with 0", field, value)
    _gs1(digits, (14,), "a GRAI before its serial", field, value)
    _require(bool(_GRAI_SERIAL.fullmatch(serial)), "a GRAI's serial has up to 16 characters of GS1's set 82", field, value)
    return value


def iso6346_check_digit(code: str) -> int:
    """The check digit of a container number's first ten characters: Σ value·2^i, mod 11, mod 10 (ISO 6346:2022 annex A).

    >>> iso6346_check_digit("CSQU305438")
    3
    """
    values = (_LETTER_VALUE[c] if c in _LETTER_VALUE else int(c) for c in code)
    return sum(value << i for i, value in enumerate(values)) % 11 % 10


def container(value: str, field: str = "container") -> str:
    """A freight container number by ISO 6346: owner (3 letters), category (U, J, Z or R), 6 digits, check digit."""
    _require(bool(_CONTAINER.fullmatch(value)), "a container number is 3 letters, one of U J Z R, and 7 digits", field, value)
    _require_check_digit(iso6346_check_digit(value[:10]), value, field, value)
    return value


def locode(value: str, field: str = "locode") -> str:
    """A UN/LOCODE: two letters of the country and three of A–Z and 2–9, written together."""
    _require(bool(_LOCODE.fullmatch(value)), "a UN/LOCODE is two letters and three of A-Z and 2-9", field, value)
    return value


def free_text(value: str, field: str, *, required: bool = True) -> str:
    """Any other identifier: up to 64 printable characters, without space at its ends; not empty where `required`."""
    _require(bool(value) or not required, "must be given", field, value)
    _require(len(value) <= LONGEST, f"must have at most {LONGEST} characters", field, value)
    _require(value.isprintable(), "must have printable characters only", field, value)
    _require(value == value.strip(), "must not begin or end with space", field, value)
    return value


def _gs1(value: str, lengths: tuple[int, ...], what: str, field: str, shown: str | None = None) -> str:
    sizes = " or ".join(map(str, lengths)) if len(lengths) < 3 else f"{', '.join(map(str, lengths[:-1]))} or {lengths[-1]}"
    rule = f"{what} has {sizes} digits"
    _require(len(value) in lengths and bool(_DIGITS.fullmatch(value)), rule, field, shown or value)
    _require_check_digit(gs1_check_digit(value[:-1]), value, field, shown or value)
    return value


def _require_check_digit(expected: int, value: str, field: str, shown: str) -> None:
    _require(value[-1] == str(expected), f"wrong check digit: {value[-1]} where {expected} is expected", field, shown)


def _require(holds: bool, rule: str, field: str, value: str) -> None:
    if not holds:
        raise InvalidArgument(rule, field=field, value=value)
