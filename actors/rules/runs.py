"""The run machine: how one limit's runs begin, are confirmed and end, reading by reading (handbook 3).

All state of a (tag, custody, limit) is one TRACK row, so that a copy of the row is a checkpoint: judging a series
in one go or in any number of parts gives the same rows and the same RUNs, bit for bit. The compiled functions are
together in this file, because numba's disk cache sees a change of a callee only within one file.

What a row does not hold follows from what it holds: a run is open where `run_start_us` is not NEVER_US, confirmed where
`run_triggered_us` is not, has gone beyond where `run_extreme` has; its uncovered time is its length less `run_us`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

from actors.rules.readings import FOREVER_US

SINGLE, CUMULATIVE, MKT = 1, 2, 3
"""LIMIT.mode: how time in violation is held against the allowance."""

ABOVE, BELOW = 1, -1
"""LIMIT.direction: which side of the threshold violates."""

CONFIRMED, ENDED = 1, 2
"""RUN.kind: an excursion was confirmed; a confirmed one ended."""

NO_ALLOWANCE_US = -1
"""LIMIT.allowance_us of a limit whose time is counted but which is never an excursion."""

NEVER_US = -FOREVER_US
"""A time that has not come: no run, not triggered, no extreme."""

MKT_TOLERANCE_K = 1e-9
"""An MKT within this of a threshold is at it: constant T gives T, whatever the last bits of the logarithm."""

LIMIT = np.dtype(
    [
        ("metric", "i1"),
        ("direction", "i1"),
        ("inclusive", "u1"),
        ("mode", "i1"),
        ("threshold", "f8"),
        ("clear", "f8"),
        ("allowance_us", "i8"),
        ("beyond", "f8"),
        ("beyond_allowance_us", "i8"),
        ("window_us", "i8"),
        ("max_gap_us", "i8"),
    ],
    align=True,
)
"""One limit of one profile version. `clear` and `beyond` are NaN where there is none; `beyond` is for mode single only.

metric: column code. inclusive: a value at the threshold violates. allowance_us: NO_ALLOWANCE_US, or >= 0.
beyond_allowance_us: the shorter allowance of a run with a value strictly beyond `beyond`. window_us: of mode mkt.
max_gap_us: how long a reading holds at most.
"""

WINDOW = np.dtype([("from_us", "i8"), ("until_us", "i8"), ("limit", "i4")], align=True)
"""Where row `limit` of the LIMIT table holds: [from_us, until_us). Sorted and disjoint within a track."""

TRACK = np.dtype(
    [
        ("from_us", "i8"),
        ("until_us", "i8"),
        ("prev_us", "i8"),
        ("prev_value", "f8"),
        ("violation_us", "i8"),
        ("covered_us", "i8"),
        ("extreme", "f8"),
        ("extreme_us", "i8"),
        ("run_start_us", "i8"),
        ("run_triggered_us", "i8"),
        ("run_us", "i8"),
        ("run_weighted", "f8"),
        ("run_extreme", "f8"),
        ("run_extreme_us", "i8"),
        ("readings", "i4"),
        ("run_readings", "i4"),
        ("windows_start", "i4"),
        ("windows_count", "u2"),
        ("metric", "i1"),
        ("mode", "i1"),
    ],
    align=True,
)
"""State of one (tag, custody, limit id), 128 bytes.

from_us, until_us: custody start plus ignore period, custody end (FOREVER_US while open); windows are clipped to them.
prev_us: everything before it is accounted for; the newest reading's sensed time, or where there is none: from_us.
prev_value: what holds from prev_us on; NaN where nothing does (no reading yet, or closed).
violation_us: covered time in violation, from the value given at the start on. covered_us: covered time in the windows.
extreme, extreme_us, readings: over the readings inside the windows; the earliest of equals.
run_*: the open run, if any. run_us is its covered time, run_weighted the sum of value x microseconds over it.
windows_start, windows_count: its slice of the WINDOW table.
"""

RUN = np.dtype(
    [
        ("track", "i4"),
        ("limit", "i4"),
        ("kind", "i4"),
        ("readings", "i4"),
        ("start_us", "i8"),
        ("triggered_us", "i8"),
        ("end_us", "i8"),
        ("run_us", "i8"),
        ("uncovered_us", "i8"),
        ("extreme", "f8"),
        ("extreme_us", "i8"),
        ("weighted", "f8"),
    ],
    align=True,
)
"""An excursion as it stood when it was confirmed (end_us = FOREVER_US) or when it ended.

track, limit: rows of the tables given. The time-weighted mean is weighted / run_us, or the extreme where run_us is 0.
"""

F = TypeVar("F", bound=Callable[..., Any])


def _kernel(signature: Any) -> Callable[[F], F]:
    """Compile now, for this one signature (read-only and writable arrays alike), or load what was compiled before."""
    compile_one: Any = numba.njit(signature, cache=True, nogil=True, fastmath=False, error_model="numpy")
    return cast("Callable[[F], F]", compile_one)


def _inner(function: F) -> F:
    """Compile as a part of the kernels that call it."""
    part: Any = numba.njit(fastmath=False, error_model="numpy")
    return cast("F", part(function))


def _pasted(function: F) -> F:
    """Paste into the kernels that call it: a call costs 3 ns, and 4 ns more for each array it takes (reference counts)."""
    part: Any = numba.njit(inline="always", fastmath=False, error_model="numpy")
    return cast("F", part(function))


@_inner
def _violates(limit: Any, value: float) -> bool:
    """Whether a value violates; a subtraction never loses the sign, so this is the plain comparison."""
    excess = (value - limit.threshold) * limit.direction
    tolerance = MKT_TOLERANCE_K if limit.mode == MKT else 0.0
    return bool(excess >= -tolerance if limit.inclusive else excess > tolerance)


@_inner
def _cleared(limit: Any, value: float) -> bool:
    """Whether a value that does not violate ends a run: it is at or inside the clear threshold, where there is one."""
    if np.isnan(limit.clear):
        return True
    tolerance = MKT_TOLERANCE_K if limit.mode == MKT else 0.0
    return bool((value - limit.clear) * limit.direction <= tolerance)


@_inner
def _missing_us(track: Any, limit: Any) -> int:
    """Time in violation that is still missing to the allowance of the open run; FOREVER_US where none ever suffices."""
    allowance = limit.allowance_us
    if allowance < 0:
        return FOREVER_US
    if limit.mode == CUMULATIVE:
        return int(allowance - track.violation_us)
    if (
        limit.mode == SINGLE
        and limit.beyond_allowance_us < allowance
        and (track.run_extreme - limit.beyond) * limit.direction > 0.0  # false for NaN: no second allowance
    ):
        allowance = limit.beyond_allowance_us
    return int(allowance - track.run_us)


@_inner
def _state(track: Any, row: int, limit_row: int, kind: int, until_us: int, end_us: int, run: Any) -> None:
    """Write the open run, accounted for up to `until_us`, as a RUN row."""
    run.track = row
    run.limit = limit_row
    run.kind = kind
    run.readings = track.run_readings
    run.start_us = track.run_start_us
    run.triggered_us = track.run_triggered_us
    run.end_us = end_us
    run.run_us = track.run_us
    run.uncovered_us = until_us - track.run_start_us - track.run_us
    run.extreme = track.run_extreme
    run.extreme_us = track.run_extreme_us
    run.weighted = track.run_weighted


@_inner
def _clear(track: Any) -> None:
    """Forget the open run."""
    track.run_start_us = NEVER_US
    track.run_triggered_us = NEVER_US
    track.run_us = 0
    track.run_weighted = 0.0
    track.run_extreme = np.nan
    track.run_extreme_us = NEVER_US
    track.run_readings = 0


@_pasted
def _value(track: Any, limit: Any, at_us: int, value: float, counts: int) -> int:
    """Judge a value that comes (or, held, enters the window) at `at_us`.

    Returns CONFIRMED where it confirms the run, ENDED where it ends it (which is left to `_report`), else 0.
    """
    track.readings += counts
    if not (value - track.extreme) * limit.direction <= 0.0:  # true also for the first, when the extreme is NaN
        track.extreme = value
        track.extreme_us = at_us
    violates = _violates(limit, value)
    if track.run_start_us == NEVER_US:
        if not violates:
            return 0
        track.run_start_us = at_us
        track.run_extreme = value
        track.run_extreme_us = at_us
        track.run_readings = counts
    else:
        if not violates and _cleared(limit, value):
            return ENDED
        track.run_readings += counts
        if (value - track.run_extreme) * limit.direction > 0.0:
            track.run_extreme = value
            track.run_extreme_us = at_us
    if track.run_triggered_us == NEVER_US and _missing_us(track, limit) <= 0:
        track.run_triggered_us = at_us
        return CONFIRMED
    return 0


@_pasted
def _covered(track: Any, limit: Any, from_us: int, us: int) -> int:
    """Account for `us` covered by the value held, from `from_us` on. Returns CONFIRMED where that confirms the run, else 0."""
    track.covered_us += us
    if track.run_start_us == NEVER_US:
        return 0
    missing_us = _missing_us(track, limit)
    track.violation_us += us
    track.run_us += us
    track.run_weighted += track.prev_value * us
    if track.run_triggered_us == NEVER_US and us >= missing_us:
        track.run_triggered_us = from_us + missing_us
        return CONFIRMED
    return 0


@_inner
def _report(what: int, track: Any, row: int, limit_row: int, at_us: int, run: Any) -> int:
    """Write to `run` what became of the open run, accounted for up to `at_us`; forget it where it ended.

    Returns 1 where something was written, else 0: the end of a run that was not confirmed is not told.
    """
    if what == CONFIRMED:
        _state(track, row, limit_row, CONFIRMED, at_us, FOREVER_US, run)
        return 1
    told = 0
    if track.run_triggered_us != NEVER_US:
        _state(track, row, limit_row, ENDED, at_us, at_us, run)
        told = 1
    _clear(track)
    return told


@_pasted
def _hold(
    track: Any, row: int, cursor: int, until_us: int, end_value: float, windows: Any, limits: Any, out: Any, n: int
) -> tuple[int, int]:
    """Account for [prev_us, until_us), over all windows it meets from row `cursor` on, and end what their ends end.

    end_value: judged at `until_us` in the window that reaches up to it or ends there; NaN for none.
    Returns the row of the first window that ends after `until_us`, and the number of RUNs written so far.
    """
    last = track.windows_start + track.windows_count
    while cursor < last and windows[cursor].from_us < until_us:
        window = windows[cursor]
        low = max(window.from_us, track.from_us)
        high = min(window.until_us, track.until_us)
        end = min(high, until_us)
        if low < end:
            limit_row = window.limit
            limit = limits[limit_row]
            start = max(track.prev_us, low)
            covered_until = start
            if not np.isnan(track.prev_value):
                covered_until = max(start, min(end, track.prev_us + limit.max_gap_us))
                if track.prev_us < low < covered_until and _value(track, limit, low, track.prev_value, 1) != 0:
                    n += _report(CONFIRMED, track, row, limit_row, low, out[n])
            if _covered(track, limit, start, covered_until - start) != 0:
                n += _report(CONFIRMED, track, row, limit_row, end, out[n])
            if high == until_us and not np.isnan(end_value):
                what = _value(track, limit, high, end_value, 0)
                if what != 0:
                    n += _report(what, track, row, limit_row, high, out[n])
            if high <= until_us and track.run_start_us != NEVER_US:
                n += _report(ENDED, track, row, limit_row, high, out[n])
        if window.until_us > until_us:
            break
        cursor += 1
    return cursor, n


@_pasted
def _calm(track: Any, window: Any, limit: Any, at: int, stop: int, order: Any, sensed_us: Any, values: Any, column: int) -> int:
    """Judge what most readings are: with no run open and no boundary between them, such as do not violate. Returns where that ends.

    It says of them what `_covered` and `_value` say, without touching the track at each.
    """
    if track.run_start_us != NEVER_US or np.isnan(track.prev_value) or max(window.from_us, track.from_us) > track.prev_us:
        return at
    until_us = min(window.until_us, track.until_us)
    threshold, direction, inclusive, max_gap_us = limit.threshold, limit.direction, limit.inclusive != 0, limit.max_gap_us
    tolerance = MKT_TOLERANCE_K if limit.mode == MKT else 0.0
    prev_us, prev_value, extreme, extreme_us = track.prev_us, track.prev_value, track.extreme, track.extreme_us
    covered_us, readings = track.covered_us, track.readings
    while at < stop:
        value = values[column, order[at]]
        at_us = sensed_us[order[at]]
        excess = (value - threshold) * direction
        if at_us >= until_us or (excess >= -tolerance if inclusive else excess > tolerance):
            break
        at += 1
        if np.isnan(value):
            continue
        covered_us += min(at_us - prev_us, max_gap_us)
        readings += 1
        if not (value - extreme) * direction <= 0.0:
            extreme = value
            extreme_us = at_us
        prev_us = at_us
        prev_value = value
    track.prev_us, track.prev_value, track.extreme, track.extreme_us = prev_us, prev_value, extreme, extreme_us
    track.covered_us, track.readings = covered_us, readings
    return at


_TRACKS = numba.from_dtype(TRACK)[::1]
_RUNS = numba.from_dtype(RUN)[::1]


def _read_only(dtype: np.dtype[Any], dimensions: int = 1) -> Any:
    """The numba type of an array that is only read; it takes writable ones, too."""
    return numba.types.Array(numba.from_dtype(dtype), dimensions, "C", readonly=True)


_WINDOWS, _LIMITS = _read_only(WINDOW), _read_only(LIMIT)
_I8, _I4, _F8 = _read_only(np.dtype(np.int64)), _read_only(np.dtype(np.int32)), _read_only(np.dtype(np.float64))
_VALUES = _read_only(np.dtype(np.float64), 2)


@_kernel(numba.int64(_TRACKS, _I4, _I4, _I4, _I8, _I8, _I8, _I8, _VALUES, _WINDOWS, _LIMITS, numba.int64, numba.int64[::1], _RUNS))
def feed(
    tracks: Any,
    first: Any,
    count: Any,
    tag: Any,
    start: Any,
    order: Any,
    sensed_us: Any,
    value_row: Any,
    values: Any,
    windows: Any,
    limits: Any,
    skipped_mode: int,
    position: Any,
    out: Any,
) -> int:
    """Judge grouped readings for all tracks of their tags but those of one mode, from `position` on.

    value_row: row of `values` by column code, -1 where absent. position: (group, track of the tag, row in `order` or -1);
    left at where `out` was full, or at (groups, 0, -1). Returns the number of RUNs written.

    One loop on purpose: a call that takes arrays would cost as much as judging four readings.
    """
    n = 0
    for group in range(position[0], len(tag)):
        stop = start[group + 1]
        base = first[tag[group]]
        for offset in range(position[1], count[tag[group]]):
            row = base + offset
            track = tracks[row]
            column = value_row[track.metric]
            at = start[group] if position[2] < 0 else position[2]
            position[2] = -1
            if track.mode == skipped_mode or column < 0:
                continue
            room = len(out) - 2 * track.windows_count - 4  # a hold gives at most two RUNs a window, a value at most two
            cursor = track.windows_start
            last = cursor + track.windows_count
            while cursor < last and windows[cursor].until_us <= track.prev_us:
                cursor += 1
            while at < stop:
                if cursor < last:
                    at = _calm(track, windows[cursor], limits[windows[cursor].limit], at, stop, order, sensed_us, values, column)
                    if at == stop:
                        break
                value = values[column, order[at]]
                at_us = sensed_us[order[at]]
                if at_us >= track.until_us:
                    break  # it and what follows belong to a later custody
                if n > room:
                    position[0] = group
                    position[1] = offset
                    position[2] = at
                    return n
                at += 1
                if np.isnan(value):
                    continue
                if cursor < last:
                    what = 0
                    limit_row = windows[cursor].limit
                    if (
                        max(windows[cursor].from_us, track.from_us) <= track.prev_us  # no boundary lies between the two readings
                        and at_us < windows[cursor].until_us
                        and not np.isnan(track.prev_value)
                    ):
                        limit = limits[limit_row]
                        if _covered(track, limit, track.prev_us, min(at_us - track.prev_us, limit.max_gap_us)) != 0:
                            n += _report(CONFIRMED, track, row, limit_row, at_us, out[n])
                        what = _value(track, limit, at_us, value, 1)
                    else:
                        cursor, n = _hold(track, row, cursor, at_us, np.nan, windows, limits, out, n)
                        if cursor < last and windows[cursor].from_us <= at_us and track.from_us <= at_us:
                            limit_row = windows[cursor].limit
                            what = _value(track, limits[limit_row], at_us, value, 1)
                    if what != 0:
                        n += _report(what, track, row, limit_row, at_us, out[n])
                track.prev_us = at_us
                track.prev_value = value
        position[1] = 0
    position[0] = len(tag)
    return n


@_kernel(numba.int64(_TRACKS, _I8, _I8, _F8, _WINDOWS, _LIMITS, numba.int64[::1], _RUNS))
def close_rows(tracks: Any, rows: Any, until_us: Any, end_values: Any, windows: Any, limits: Any, position: Any, out: Any) -> int:
    """Close tracks at their custodies' ends, from `position[0]` on, which is left at where `out` was full.

    An end value (NaN: none) is judged at the end itself, in the window that reaches it, before the end ends the run; it is no reading.
    """
    n = 0
    for k in range(position[0], len(rows)):
        row = rows[k]
        track = tracks[row]
        if n + 2 * track.windows_count + 4 > len(out):
            position[0] = k
            return n
        cursor = track.windows_start
        while cursor < track.windows_start + track.windows_count and windows[cursor].until_us <= track.prev_us:
            cursor += 1
        track.until_us = until_us[k]
        _, n = _hold(track, row, cursor, until_us[k], end_values[k], windows, limits, out, n)
        track.prev_us = until_us[k]
        track.prev_value = np.nan
    position[0] = len(rows)
    return n
