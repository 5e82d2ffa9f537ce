"""QARTOD flags of one tag's whole series, value by value and test by test: neighbours are the tag's adjacent readings.

Imports nothing from actors/.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from geopy.distance import geodesic

GOOD, NOT_EVALUATED, SUSPECT, FAIL, MISSING = 1, 2, 3, 4, 9


def usable(rules: Mapping[str, float], times_us: Sequence[int], values: Sequence[float]) -> list[float]:
    """A metric's values of a tag's whole series, whatever it rode on, with those flagged *fail* as if they were not there (NaN)."""
    found = flags(rules, times_us, values)
    return [math.nan if flag == FAIL else value for flag, value in zip(found, values, strict=True)]


def worst(found: Sequence[int]) -> int:
    """Fail before suspect before good before not evaluated."""
    return next((flag for flag in (FAIL, SUSPECT, GOOD) if flag in found), NOT_EVALUATED)


def flags(rules: Mapping[str, float], times_us: Sequence[int], values: Sequence[float | None]) -> list[int]:
    """One flag a value; None is an absent value. `rules` holds only the settings that are given."""
    present = [i for i, value in enumerate(values) if value is not None]
    series = [(time_us, value) for time_us, value in zip(times_us, values, strict=True) if value is not None]
    out = [MISSING] * len(values)
    for k, i in enumerate(present):
        out[i] = worst(
            [gross(rules, series, k), spike(rules, series, k), rate(rules, series, k), gap(rules, series, k), flat(rules, series, k)]
        )
    return out


Series = Sequence[tuple[int, float]]


def gross(rules: Mapping[str, float], series: Series, k: int) -> int:
    if not {"fail_low", "fail_high", "suspect_low", "suspect_high"} & set(rules):
        return NOT_EVALUATED
    value = series[k][1]
    if value < rules.get("fail_low", value) or value > rules.get("fail_high", value):
        return FAIL
    if value < rules.get("suspect_low", value) or value > rules.get("suspect_high", value):
        return SUSPECT
    return GOOD


def spike(rules: Mapping[str, float], series: Series, k: int) -> int:
    if k == 0 or k == len(series) - 1 or not {"spike_suspect", "spike_fail"} & set(rules):
        return NOT_EVALUATED
    size = abs(series[k][1] - (series[k - 1][1] + series[k + 1][1]) / 2)
    if "spike_fail" in rules and size > rules["spike_fail"]:
        return FAIL
    if "spike_suspect" in rules and size > rules["spike_suspect"]:
        return SUSPECT
    return GOOD


def rate(rules: Mapping[str, float], series: Series, k: int) -> int:
    if k == 0 or "rate_per_s" not in rules or series[k][0] == series[k - 1][0]:
        return NOT_EVALUATED
    seconds = (series[k][0] - series[k - 1][0]) / 1e6
    return SUSPECT if abs(series[k][1] - series[k - 1][1]) / seconds > rules["rate_per_s"] else GOOD


def gap(rules: Mapping[str, float], series: Series, k: int) -> int:
    if k == 0 or "gap_us" not in rules:
        return NOT_EVALUATED
    return SUSPECT if series[k][0] - series[k - 1][0] > rules["gap_us"] else GOOD


def flat(rules: Mapping[str, float], series: Series, k: int) -> int:
    if "flat_tolerance" not in rules:
        return NOT_EVALUATED
    begin = k
    while begin > 0:
        stretch = [value for _, value in series[begin - 1 : k + 1]]
        if max(stretch) - min(stretch) >= rules["flat_tolerance"]:
            break
        if "gap_us" in rules and series[begin][0] - series[begin - 1][0] > rules["gap_us"]:
            break
        begin -= 1
    lasted = series[k][0] - series[begin][0]
    if "flat_fail_us" in rules and lasted >= rules["flat_fail_us"]:
        return FAIL
    if "flat_suspect_us" in rules and lasted >= rules["flat_suspect_us"]:
        return SUSPECT
    return GOOD


def speed_flags(suspect: float | None, fail: float | None, times_us: Sequence[int], fixes: Sequence[tuple[float, float]]) -> list[int]:
    """Flags of the jumps of position from fix to fix."""
    out = [NOT_EVALUATED] * len(fixes)
    for k in range(1, len(fixes)):
        seconds = (times_us[k] - times_us[k - 1]) / 1e6
        if seconds == 0:
            continue
        metres = geodesic(fixes[k - 1], fixes[k]).meters
        if fail is not None and metres > fail * seconds:
            out[k] = FAIL
        elif suspect is not None and metres > suspect * seconds:
            out[k] = SUSPECT
        else:
            out[k] = GOOD
    return out
