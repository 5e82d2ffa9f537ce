"""Values that a device reports as decimals, as whole numbers and back, bit for bit.

What is measured has few digits: a temperature comes in hundredths, a position in millionths of a degree. The float64 nearest to such a
decimal is the quotient of two whole numbers, for a division rounds its result as reading the decimal does (IEEE 754). So
21.37 is kept as 2137 over 100, in two bytes instead of eight, and is exactly the same float again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from actors.rules.readings import B1, F8, I8

DIGITS_MOST = 9
"""Neither this nor anything else that decides what is a decimal may change: entries are known by their bytes (actors/rules/codec.py)."""
_SCALES: F8 = np.array([10.0**digits for digits in range(DIGITS_MOST + 1)])
_WHOLE_MOST = float(1 << 52)
"""So that the difference of two numbers is exact as a float, too."""
_SAMPLE = 32
_ABSENT_BITS, _NEGATIVE_ZERO_BITS = np.array([np.nan, -0.0]).view(np.int64)


class Decimals(NamedTuple):
    """Values as numbers / scale. numbers: of the values that are not absent; scale: a power of ten; absent: which are, None: none;
    negative: which of the numbers stand for a negative zero (what rounding makes of a little frost), None: none.
    """

    numbers: I8
    scale: int
    absent: B1 | None
    negative: B1 | None = None


def decimals(column: F8) -> Decimals | None:
    """The values (contiguous, NaN where absent) as decimals of as few digits as all have; the same values always give the same.

    None where one is no decimal: of more than DIGITS_MOST digits, past 2^52 with them, infinite, a NaN of another kind.
    """
    absent = column.view(np.int64) == _ABSENT_BITS
    known = column[~absent] if (any_absent := bool(absent.any())) else column
    missing = absent if any_absent else None
    if not len(known):
        return Decimals(np.empty(0, np.int64), 1, missing)
    negative = known.view(np.int64) == _NEGATIVE_ZERO_BITS
    if any_negative := bool(negative.any()):
        known = np.where(negative, 0.0, known)
    most = max(float(known.max()), -float(known.min()))  # NaN where one is NaN
    if not most <= _WHOLE_MOST:
        return None
    some = known[:: -(-len(known) // _SAMPLE)]
    for digits in np.flatnonzero(_fits(some, _SCALES[:, np.newaxis])[1].all(axis=1)).tolist():
        scale = _SCALES[digits]
        if most * scale > _WHOLE_MOST:
            return None
        numbers, fits = _fits(known, scale)
        if fits.all():
            return Decimals(numbers.astype(np.int64), int(scale), missing, negative if any_negative else None)
    return None


def _fits(values: F8, scale: F8) -> tuple[F8, B1]:
    """The whole numbers nearest to the values times the scale, and which of them give the value again, bit for bit."""
    numbers = np.rint(values * scale)
    return numbers, (numbers / scale).view(np.int64) == values.view(np.int64)


def as_float32(column: F8) -> npt.NDArray[np.float32] | None:
    """The values as float32 where each is the same again, bit for bit."""
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = column.astype("<f4")
        return narrow if np.array_equal(narrow.astype(np.float64).view(np.int64), column.view(np.int64)) else None


def values(found: Decimals) -> F8:
    """What `decimals` was given."""
    known = found.numbers / float(found.scale)
    if found.negative is not None:
        known[found.negative] = -0.0
    if found.absent is None:
        return known
    whole = np.full(len(found.absent), np.nan)
    whole[~found.absent] = known
    return whole
