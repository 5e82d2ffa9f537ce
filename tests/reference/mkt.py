"""Mean kinetic temperature by its formula, as plainly as possible."""

from __future__ import annotations

import math
from collections.abc import Sequence


def mkt_c(parts: Sequence[tuple[float, float]]) -> float:
    """MKT of (temperature in degrees C, weight) parts; NaN without weight."""
    weight = math.fsum(w for _, w in parts)
    if weight == 0:
        return math.nan
    mean = math.fsum(w * math.exp(-10000 / (c + 273.15)) for c, w in parts) / weight
    return 10000 / -math.log(mean) - 273.15


def held(
    readings: Sequence[tuple[int, float]],
    from_us: int,
    until_us: int,
    max_gap_us: int,
    windows: Sequence[tuple[int, int]] | None = None,
) -> list[tuple[float, int]]:
    """What held in [from_us, until_us), as (temperature, microseconds); readings in judging order, NaN = not there."""
    there = [(t, c) for t, c in readings if not math.isnan(c)]
    parts = []
    for i, (t, c) in enumerate(there):
        ends_us = t + max_gap_us
        if i + 1 < len(there):
            ends_us = min(ends_us, there[i + 1][0])
        for low, high in windows if windows is not None else [(from_us, until_us)]:
            us = min(ends_us, high, until_us) - max(t, low, from_us)
            if us > 0:
                parts.append((c, us))
    return parts


def trailing_mkt_c(
    readings: Sequence[tuple[int, float]],
    at_us: int,
    window_us: int,
    max_gap_us: int,
    from_us: int,
    windows: Sequence[tuple[int, int]] | None = None,
) -> float:
    """MKT over the window that ends at `at_us`."""
    return mkt_c(held(readings, max(from_us, at_us - window_us), at_us, max_gap_us, windows))


def largest_mkt_c(
    readings: Sequence[tuple[int, float]],
    window_us: int,
    max_gap_us: int,
    from_us: int,
    until_us: int,
    must_contain: tuple[int, int] | None = None,
) -> float:
    """The largest MKT over the windows that begin at *any* microsecond: for very short series."""
    length_us = min(window_us, until_us - from_us)
    starts = range(from_us, until_us - length_us + 1)
    if must_contain is not None:
        first, last = must_contain
        if last - first <= length_us:
            starts = range(max(from_us, last - length_us), min(until_us - length_us, first) + 1)
        else:
            starts = range(first, last - length_us + 1)
    means = [mkt_c(held(readings, start, start + length_us, max_gap_us)) for start in starts]
    return max((mean for mean in means if not math.isnan(mean)), default=math.nan)
