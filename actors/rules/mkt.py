"""Mean kinetic temperature (USP <1079.2>): the one temperature that would age the goods as the real course did.

    T_K = 10000 / -ln( sum w_i exp(-10000 / T_i) / sum w_i ),   T = degrees C + 273.15,   dH/R = 10 000 K exactly

The weights are the hold times of exposure: a reading holds until the next, at most max_gap, clipped to custody and windows.
Sums are folded strictly in sensed order. Times and durations are integer microseconds, temperatures degrees C.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from actors.rules._compile import compiled, frozen
from actors.rules.exposure import Rows, judge
from actors.rules.readings import F8, FOREVER_US, I8

ACTIVATION_K = 10_000.0
"""dH/R = 83.144 kJ/mol / 0.0083144 kJ/(mol K)."""

ZERO_C_K = 273.15

DIGITS = 10
"""Decimal places of an MKT that is judged; the noise of the sums lies three places further, the replay's tolerance one before."""

_SHIFT = -ACTIVATION_K / (25.0 + ZERO_C_K)
"""Exponents are taken relative to that of 25 degrees C: the log-sum-exp form with one fixed shift, so that a window's
sum does not depend on what lies outside it. Every plausible temperature (-200 to 200) stays far from the ends of the range."""

Weights = Literal["hold", "trapezoid"]
"""Each interval at its earlier reading's value; or at the mean of both readings' exponentials, where the later one came
within max_gap (beyond it, the covered part stays with the earlier reading alone)."""


class LargestMkt(NamedTuple):
    """The largest MKT over windows of one length.

    mkt_c: NaN where nothing is covered. window_start_us: the earliest window with that MKT. covered_us: what the mean is
    over. full_window: all of the window's length was covered; otherwise the figure rests on less data, which must be told.
    """

    mkt_c: float
    window_start_us: int
    covered_us: int
    full_window: bool


def mkt_c(values_c: npt.ArrayLike, weights_us: npt.ArrayLike) -> float:
    """Return the MKT of temperatures that held for some times each; NaN where the times sum to 0.

    >>> round(mkt_c([25.0, 25.0], [60, 3600]), 9)
    25.0
    >>> 30.0 < mkt_c([20.0, 40.0], [1, 1]) < 40.0
    True
    """
    return float(_fold(np.ascontiguousarray(values_c, np.float64), np.ascontiguousarray(weights_us, np.int64)))


def trailing_mkt_c(
    t_us: I8,
    v: F8,
    at_us: I8,
    window_us: int,
    max_gap_us: int,
    from_us: int,
    windows: Rows | None = None,
    weights: Weights = "hold",
) -> F8:
    """Return the MKT over (at - window_us, at] for each `at_us` (ascending); NaN where no time of it is covered.

    t_us, v: one custody's readings in judging order, NaN where absent or fail; those before `at - window_us` do not count,
    but for the last of them, which may hold into the window. The last reading holds on (at most max_gap_us).
    from_us: custody start plus ignore period. windows: the WINDOW rows to which hold intervals are clipped, None for no clipping.
    """
    starts, ends, factors = _segments(t_us, v, max_gap_us, from_us, FOREVER_US, windows, weights)
    return np.asarray(_trailing(starts, ends, factors, np.ascontiguousarray(at_us, np.int64), window_us))


def mkt_of_segments_c(start: I8, sensed_us: I8, values_c: F8, from_us: I8, until_us: I8, max_gap_us: I8) -> F8:
    """Return the MKT of many custodies at once, hold rule; NaN where nothing is covered.

    Custody s has the rows start[s] ... start[s + 1] - 1, in judging order, NaN where absent or fail; from_us (custody start plus ignore
    period), until_us (its end) and max_gap_us are one for each. It is `trailing_mkt_c` at until_us over the whole custody, bit for bit.
    """
    columns: Any = [frozen(np.ascontiguousarray(one)) for one in (start, sensed_us, values_c, from_us, until_us, max_gap_us)]
    return np.asarray(_of_segments(*columns))


def largest_mkt_c(
    t_us: I8,
    v: F8,
    window_us: int,
    max_gap_us: int,
    from_us: int,
    until_us: int,
    must_contain: tuple[int, int] | None = None,
    weights: Weights = "hold",
    windows: Rows | None = None,
) -> LargestMkt:
    """Return the largest MKT over all windows of `window_us` inside [from_us, until_us) that contain `must_contain`.

    Where the custody is shorter than a window, it is the window. Where `must_contain` is longer than a window, the windows
    inside it are taken. Between two neighbouring boundaries of hold intervals the mean is a quotient of two linear functions
    of the window's start, so it is largest where a start or an end of the window meets a boundary: only these are tried.
    """
    starts, ends, factors = _segments(t_us, v, max_gap_us, from_us, until_us, windows, weights)
    length_us = min(window_us, until_us - from_us)
    low, high = from_us, until_us - length_us
    if must_contain is not None:
        first, last = (min(max(bound, from_us), until_us) for bound in must_contain)
        earliest, latest = sorted((last - length_us, first))
        low, high = max(low, earliest), min(high, latest)
    if len(starts) == 0:
        return LargestMkt(np.nan, low, 0, False)
    bounds = np.concatenate([starts, ends])
    tried = np.unique(np.concatenate([[low, high], bounds, bounds - length_us]))
    tried = tried[(tried >= low) & (tried <= high)].astype(np.int64)
    covered = _up_to(starts, ends, np.ones(len(starts)), tried, length_us)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(covered > 0, _up_to(starts, ends, factors, tried, length_us) / covered, -1.0)
    best = int(tried[np.argmax(means >= means.max() * (1 - 1e-12))])
    inside = np.maximum(np.minimum(ends, best + length_us) - np.maximum(starts, best), 0)
    covered_us = int(inside.sum())
    value = _trailing(starts, ends, factors, np.array([best + length_us], np.int64), length_us)[0]
    return LargestMkt(float(value), best, covered_us, covered_us == window_us)


def evaluate(t_us: I8, v: F8, at_us: I8, track: Rows, windows: Rows, limits: Rows, weights: Weights = "hold", *, ends: bool = False) -> F8:
    """Return the trailing MKT at each `at_us` for one TRACK row of mode mkt, each by the limit version in force there.

    What a version's window looks back on are the hold intervals in all windows of the limit, those of earlier versions too.
    Rounded to a tenth of a nano-degree (ours): of windows that hold the same in another order the earliest is the worst, not the one with
    a last bit more (but where the true value lies within that bit of the rounding's own step).
    ends: the times are custody ends, and belong to the window that reaches up to them, not to one that begins there.
    """
    row = track.reshape(1)[0]
    start = int(row["windows_start"])
    mine = windows[start : start + int(row["windows_count"])]
    result = np.full(len(at_us), np.nan)
    if len(mine) == 0:
        return result
    window_row = np.searchsorted(mine["from_us"], at_us, side="left" if ends else "right") - 1
    in_force = mine["limit"][np.maximum(window_row, 0)]
    for limit_row in np.unique(in_force):
        limit, chosen = limits[limit_row], in_force == limit_row
        result[chosen] = trailing_mkt_c(
            t_us, v, at_us[chosen], int(limit["window_us"]), int(limit["max_gap_us"]), int(row["from_us"]), mine, weights
        )
    return np.round(result, DIGITS)


def judge_mkt(
    t_us: I8, v: F8, track: Rows, windows: Rows, limits: Rows, closed: bool, weights: Weights = "hold", judged_before: int = 0
) -> tuple[Rows, Rows]:
    """Judge one custody's temperatures for one TRACK row of mode mkt: at each reading and, where closed, at its end.

    track: a `fresh` row, or a checkpoint; then the first `judged_before` readings are those that it has judged already, as
    far back as a window looks. Returns (the judged TRACK row, RUN rows).
    """
    until_us = track.reshape(1)["until_us"]
    judged = t_us[judged_before:]
    series = evaluate(t_us, v, judged, track, windows, limits, weights)
    series[np.isnan(v[judged_before:])] = np.nan
    end_value = np.nan
    if closed:
        before = t_us < until_us
        end_value = evaluate(t_us[before], v[before], until_us, track, windows, limits, weights, ends=True)[0]
    return judge(judged, series, track, windows, limits, closed, end_value)


def _segments(t_us: I8, v: F8, max_gap_us: int, from_us: int, until_us: int, windows: Rows | None, weights: Weights) -> tuple[I8, I8, F8]:
    """The covered parts of the hold intervals within [from_us, until_us) and the windows: starts, ends, exponentials."""
    present = ~np.isnan(v)
    times, values = np.ascontiguousarray(t_us[present], np.int64), np.asarray(v[present], np.float64)
    factors = np.exp(-ACTIVATION_K / (values + ZERO_C_K) - _SHIFT)
    lengths = np.diff(times, append=FOREVER_US)
    if weights == "trapezoid":
        near = lengths[:-1] <= max_gap_us
        factors[:-1] = np.where(near, (factors[:-1] + factors[1:]) / 2.0, factors[:-1])
    covered_until = times + np.minimum(lengths, max_gap_us)
    spans = [(from_us, until_us)]
    if windows is not None:
        spans = [(max(from_us, int(w["from_us"])), min(until_us, int(w["until_us"]))) for w in windows]
    parts = []
    for low, high in spans:
        starts, ends = np.maximum(times, low), np.minimum(covered_until, high)
        kept = starts < ends
        parts.append((starts[kept], ends[kept], factors[kept]))
    starts, ends, factors = (
        (np.concatenate(column) for column in zip(*parts, strict=True)) if parts else (times[:0], times[:0], factors[:0])
    )
    return starts, ends, factors


def _up_to(starts: I8, ends: I8, factors: F8, from_us: I8, length_us: int) -> F8:
    """Sum of factor x covered time over [from_us, from_us + length_us) for many `from_us`, by running sums."""
    sums = np.concatenate([[0.0], np.cumsum(factors * (ends - starts))])

    def until(at_us: I8) -> F8:
        k = np.searchsorted(starts, at_us, side="right")
        last = np.maximum(k - 1, 0)
        cut = np.where(k > 0, np.maximum(ends[last] - at_us, 0) * factors[last], 0.0)
        return np.asarray(sums[k] - cut)

    return until(from_us + length_us) - until(from_us)


@numba.njit(numba.float64(numba.float64[::1], numba.int64[::1]), cache=True, nogil=True, error_model="numpy")
def _fold(values_c: Any, weights_us: Any) -> float:
    highest = -np.inf
    for value_c, weight_us in zip(values_c, weights_us):  # noqa: B905  (numba knows no strict)
        if weight_us > 0:
            highest = max(highest, -ACTIVATION_K / (value_c + ZERO_C_K))
    total = 0.0
    time_us = 0.0
    for value_c, weight_us in zip(values_c, weights_us):  # noqa: B905
        if weight_us > 0:
            total += weight_us * np.exp(-ACTIVATION_K / (value_c + ZERO_C_K) - highest)
            time_us += weight_us
    if time_us == 0.0:
        return float(np.nan)
    return float(ACTIVATION_K / -(highest + np.log(total / time_us)) - ZERO_C_K)


_KEPT = 10
"""Two to this power factors are kept at hand: a sensor that tells hundredths of a degree says few values, and an exponential costs most."""


@compiled
def _of_segments(start: I8, sensed_us: I8, values_c: F8, from_us: I8, until_us: I8, max_gap_us: I8) -> F8:
    found = np.full(len(start) - 1, np.nan)
    bits = values_c.view(np.int64)
    kept_c, kept = np.full(1 << _KEPT, np.nan), np.empty(1 << _KEPT)
    for s in range(len(start) - 1):
        begin_us, end_us, gap_us = from_us[s], until_us[s], max_gap_us[s]
        total = 0.0
        time_us = 0
        before_us = np.int64(0)
        value_c = factor = np.nan
        for i in range(start[s], start[s + 1] + 1):
            last = i == start[s + 1]
            if not last and np.isnan(values_c[i]):
                continue
            at_us = end_us if last else sensed_us[i]
            held_us = min(before_us + min(at_us - before_us, gap_us), end_us) - max(before_us, begin_us)
            if held_us > 0 and not np.isnan(value_c):
                total += factor * held_us
                time_us += held_us
            if not last:
                before_us, value_c = at_us, values_c[i]
                at = ((bits[i] * 0x1E3779B97F4A7C15) >> (64 - _KEPT)) & ((1 << _KEPT) - 1)
                if kept_c[at] != value_c:
                    kept_c[at] = value_c
                    kept[at] = np.exp(-ACTIVATION_K / (value_c + ZERO_C_K) - _SHIFT)
                factor = kept[at]
        if time_us > 0:
            found[s] = ACTIVATION_K / -(_SHIFT + np.log(total / time_us)) - ZERO_C_K
    return found


@numba.njit(
    numba.float64[::1](numba.int64[::1], numba.int64[::1], numba.float64[::1], numba.int64[::1], numba.int64),
    cache=True,
    nogil=True,
    error_model="numpy",
)
def _trailing(starts: Any, ends: Any, factors: Any, at_us: Any, window_us: int) -> Any:
    """The MKT over [at - window_us, at) for ascending `at_us`, each folded anew from its first segment to its last."""
    result = np.full(len(at_us), np.nan)
    first = 0
    for k in range(len(at_us)):
        low, high = at_us[k] - window_us, at_us[k]
        while first < len(starts) and ends[first] <= low:
            first += 1
        total = 0.0
        time_us = 0
        i = first
        while i < len(starts) and starts[i] < high:
            held_us = min(ends[i], high) - max(starts[i], low)
            total += factors[i] * held_us
            time_us += held_us
            i += 1
        if time_us > 0:
            result[k] = ACTIVATION_K / -(_SHIFT + np.log(total / time_us)) - ZERO_C_K
    return result
