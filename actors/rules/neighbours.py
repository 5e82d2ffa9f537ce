"""Which readings beside a span of time the quality tests of that span look at (handbook 4: neighbours are the tag's, in whatever custody).

A spike is told by the values before and after, a jump by the one before, a flat line by all of the time that it must have lasted. So the
flags inside a span are those of the tag's whole series as soon as, for each metric with such a test, the readings looked at reach back to
a value that is at least the flat line's duration before the span (two values at the least: then the flag of the last one before the span
is right, too), and on to the first value after it. Nothing else of the series matters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np

from actors.rules.quality import QualitySettings
from actors.rules.readings import B1, COLUMNS, F8, I8, LATITUDE, LONGITUDE, Batch

FIRST_US, FURTHER = 3_600_000_000, 8
"""Neighbours are looked for within an hour, then within so many times as much, and so on."""


class Beside(NamedTuple):
    """Rows low … high - 1 of a series are what the flags of a span look at, the span included.

    before, after: whether they hold all that the tests of the span's values look at on that side; where not, it may lie further off.
    """

    low: int
    high: int
    before: bool
    after: bool


def lookback_us(settings: QualitySettings, code: int) -> int | None:
    """How far back from a value its tests look in time; None where no test of this column looks at other readings."""
    if code in (LATITUDE, LONGITUDE):
        return 0 if settings.tests_position else None
    tests = settings.metrics.get(COLUMNS[code].name)
    if tests is None:
        return None
    looks = (tests.spike_suspect, tests.spike_fail, tests.rate_per_s, tests.gap_us, tests.flat_tolerance)
    return None if all(one is None for one in looks) else tests.lookback_us


def looking(settings: QualitySettings, codes: Collection[int]) -> list[int]:
    """Those of `codes` that have a test that looks at other readings."""
    return [code for code in codes if lookback_us(settings, code) is not None]


def longest_us(settings: QualitySettings) -> int:
    """How far back the test looks that looks furthest."""
    return max((tests.lookback_us for tests in settings.metrics.values()), default=0)


def beside(
    settings: QualitySettings, codes: Sequence[int], sensed_us: I8, values: F8, from_us: int, until_us: int, wanted: Collection[int] | None
) -> Beside:
    """What the flags of [from_us, until_us) look at in a series, values (len(codes), n) at `sensed_us` (n,), in judging order.

    wanted: columns of which the answer is asked even if the span has no value of them (one may come); None: those that it has.
    """
    first, last = (int(at) for at in np.searchsorted(sensed_us, [from_us, until_us]))
    low, high, before, after = first, last, True, True
    for code in looking(settings, codes if wanted is None else wanted):
        if code not in codes:
            before = after = False
            continue
        present = np.flatnonzero(~np.isnan(values[codes.index(code)]))
        i, j = np.searchsorted(present, [first, last]).tolist()
        if wanted is None and i == j:
            continue
        reach_us = from_us - (lookback_us(settings, code) or 0)
        back = min(int(np.searchsorted(sensed_us[present[:i]], reach_us, side="right")) - 1, i - 2)
        before &= back >= 0
        after &= j < len(present)
        if i:
            low = min(low, int(present[max(back, 0)]))
        if j < len(present):
            high = max(high, int(present[j]) + 1)
    return Beside(low, high, before, after)


def gather(settings: QualitySettings, read: Callable[[int, int], Batch], from_us: int, until_us: int, newest_us: int) -> Batch:
    """A tag's readings of [from_us, until_us) with all that their flags look at beside it, in judging order.

    read: its readings of a span of time in judging order, asked with wider and wider ones. newest_us: none is later.
    """
    back_us = ahead_us = FIRST_US
    while True:
        low_us, high_us = max(from_us - longest_us(settings) - back_us, 0), until_us + ahead_us
        batch = read(low_us, high_us)
        found = beside(settings, batch.codes, batch.sensed_us, batch.values, from_us, until_us, None)
        before, after = found.before or low_us == 0, found.after or high_us > newest_us
        if before and after:
            return batch
        back_us *= 1 if before else FURTHER
        ahead_us *= 1 if after else FURTHER


def ever_beside(settings: QualitySettings, batch: Batch, arrival: I8, from_us: int, until_us: int) -> B1:
    """Which readings outside of [from_us, until_us) its flags look at, or looked at before nearer ones came; `arrival`: their order (n,).

    The nearest ones so far, before the span, before the flat line's time before it, and after it. So a replay in order of arrival
    finds the flags of every moment, as far as the batch, in judging order, reaches.
    """
    low, high, _, _ = beside(settings, batch.codes, batch.sensed_us, batch.values, from_us, until_us, None)
    first, last = (int(at) for at in np.searchsorted(batch.sensed_us, [from_us, until_us]))
    chosen = np.zeros(len(batch), np.bool_)
    chosen[low:first] = chosen[last:high] = True
    for code in looking(settings, batch.codes):
        present = ~np.isnan(batch.values[batch.codes.index(code)])
        reach = int(np.searchsorted(batch.sensed_us, from_us - (lookback_us(settings, code) or 0), side="right"))
        for rows, nearest in ((slice(0, first), 1), (slice(0, min(reach, first)), 1), (slice(last, None), -1)):
            at = np.arange(len(batch))[rows][present[rows]]
            at = at[np.argsort(arrival[at], kind="stable")]
            chosen[at[nearest * at == np.maximum.accumulate(nearest * at)]] = True
    return chosen
