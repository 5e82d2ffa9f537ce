"""Exposure: which excursions a series of readings makes of a limit (handbook 3). Two forms of one kernel (`runs.py`).

The streaming form: `fresh` rows are moved on by `advance` (many tags, a grouped batch) or `advance_series` (one track),
and end by `close`. The whole-history form `judge` is these three in one. Rows are states: copy one to keep a checkpoint,
and judge again from the copy. Late readings are judged by going back to a checkpoint before the earliest of them.

A track is one limit id of one tag in one custody. It is given only readings of that custody, in judging order
(sensed_us, boot, sequence), each newer than all before it; what is sensed at or after its `until_us` is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.rules.readings import COLUMNS, F8, FOREVER_US, I4, I8, Groups
from actors.rules.runs import (
    ABOVE,
    BELOW,
    CONFIRMED,
    CUMULATIVE,
    ENDED,
    LIMIT,
    MKT,
    MKT_TOLERANCE_K,
    NEVER_US,
    NO_ALLOWANCE_US,
    RUN,
    SINGLE,
    TRACK,
    WINDOW,
    close_rows,
    feed,
)

__all__ = [
    "ABOVE",
    "BELOW",
    "CONFIRMED",
    "CUMULATIVE",
    "ENDED",
    "LIMIT",
    "MKT",
    "MKT_TOLERANCE_K",
    "NEVER_US",
    "NO_ALLOWANCE_US",
    "RUN",
    "SINGLE",
    "SUMMARY",
    "TRACK",
    "WINDOW",
    "advance",
    "advance_series",
    "close",
    "fresh",
    "judge",
    "open_runs",
    "summary",
    "warm_up",
]

Rows = npt.NDArray[Any]
"""A structured array of one of the row types of `runs.py`."""

MAX_WINDOWS = np.iinfo(np.uint16).max
"""Windows a track may have."""

SUMMARY = np.dtype(
    [
        ("violation_us", "i8"),
        ("covered_us", "i8"),
        ("uncovered_us", "i8"),
        ("extreme", "f8"),
        ("extreme_us", "i8"),
        ("readings", "i4"),
    ],
    align=True,
)
"""What an exposure summary states of a track: times within its windows, accounted for up to its `prev_us`."""

_FIRST_ROOM = 256
_NO_MODE = 0


def fresh(
    metric: npt.ArrayLike,
    mode: npt.ArrayLike,
    windows_start: npt.ArrayLike,
    windows_count: npt.ArrayLike,
    from_us: npt.ArrayLike,
    until_us: npt.ArrayLike = FOREVER_US,
    violation_us: npt.ArrayLike = 0,
) -> Rows:
    """Make TRACK rows that have seen nothing; all arguments are broadcast to one dimension.

    from_us: custody start plus ignore period. violation_us: time in violation in earlier custodies of the same tag on the
    same carrier, which a cumulative limit goes on from. Raises ValueError for more than MAX_WINDOWS windows.
    """
    if np.max(windows_count, initial=0) > MAX_WINDOWS:
        raise ValueError(f"a track has at most {MAX_WINDOWS} windows")
    columns = np.broadcast_arrays(*np.atleast_1d(metric, mode, windows_start, windows_count, from_us, until_us, violation_us))
    tracks = np.zeros(len(columns[0]), TRACK)
    names = ("metric", "mode", "windows_start", "windows_count", "from_us", "until_us", "violation_us")
    for name, column in zip(names, columns, strict=True):
        tracks[name] = column
    tracks["prev_us"] = tracks["from_us"]
    for name in ("prev_value", "extreme", "run_extreme"):
        tracks[name] = np.nan
    for name in ("extreme_us", "run_start_us", "run_triggered_us", "run_extreme_us"):
        tracks[name] = NEVER_US
    return tracks


def advance(
    tracks: Rows,
    first: I4,
    count: I4,
    groups: Groups,
    sensed_us: I8,
    codes: Sequence[int],
    values: F8,
    windows: Rows,
    limits: Rows,
) -> Rows:
    """Judge a grouped batch for all tracks of its tags but those of mode mkt. Mutates `tracks`; returns RUN rows.

    first, count: per tag index, its slice of `tracks`. codes: column code of each row of `values`, shape (len(codes), n),
    NaN where absent or flagged fail. The RUNs of one track are in order of time; those of a tag stand together.
    """
    return _feed(tracks, first, count, groups, sensed_us, codes, values, windows, limits, MKT)


def advance_series(tracks: Rows, row: int, sensed_us: I8, values: F8, windows: Rows, limits: Rows) -> Rows:
    """Judge one series, in judging order, for the one track `tracks[row]`, whatever its mode. Mutates it; returns RUN rows.

    For mode mkt `values` is the trailing MKT at each reading (`mkt.trailing_mkt_c`), NaN where it has no covered time.
    """
    n = len(sensed_us)
    alone = Groups(np.zeros(1, np.int32), np.array([0, n], np.int64), np.arange(n, dtype=np.int64))
    first, count = np.array([row], np.int32), np.ones(1, np.int32)
    series = np.asarray(values, np.float64).reshape(1, -1)
    return _feed(tracks, first, count, alone, sensed_us, (int(tracks["metric"][row]),), series, windows, limits, _NO_MODE)


def close(
    tracks: Rows, rows: npt.ArrayLike, until_us: npt.ArrayLike, windows: Rows, limits: Rows, end_values: npt.ArrayLike = np.nan
) -> Rows:
    """End custodies: the last reading of each track holds until `until_us` (at most max_gap), and runs end there.

    rows: indices into `tracks`; until_us: one for each, or one for all. end_values: for mode mkt, the trailing MKT at the
    custody's end; NaN for none. Mutates `tracks`; returns RUN rows. Raises ValueError where a track has judged a reading
    that is not before the end: such a custody has to be judged again from a checkpoint.
    """
    chosen = np.atleast_1d(np.asarray(rows, np.int64))
    ends = _plain(np.broadcast_to(np.asarray(until_us, np.int64), chosen.shape), np.int64)
    last_values = _plain(np.broadcast_to(np.asarray(end_values, np.float64), chosen.shape), np.float64)
    held = tracks[chosen]
    if np.any(~np.isnan(held["prev_value"]) & (held["prev_us"] >= ends)):
        raise ValueError("a custody ends after its last reading: judge it again from a checkpoint before its new end")
    return _drain(
        lambda position, out: close_rows(tracks, chosen, ends, last_values, windows, limits, position, out),
        np.zeros(1, np.int64),
        len(chosen),
    )


def judge(
    sensed_us: I8, values: F8, track: Rows, windows: Rows, limits: Rows, closed: bool, end_value: float = np.nan
) -> tuple[Rows, Rows]:
    """Judge a whole series for one track: the same kernel on a copy. Returns (the judged TRACK row, RUN rows).

    track: one row, a `fresh` one or a checkpoint. closed: end the custody at the row's `until_us`.
    """
    judged = np.array(track, TRACK, copy=True).reshape(1)
    runs = [advance_series(judged, 0, sensed_us, values, windows, limits)]
    if closed:
        runs.append(close(judged, 0, judged["until_us"], windows, limits, end_value))
    return judged, np.concatenate(runs)


def open_runs(tracks: Rows, rows: npt.ArrayLike, windows: Rows) -> Rows:
    """Return the open confirmed runs of tracks as they stand, accounted for up to the newest reading (kind CONFIRMED)."""
    chosen = np.atleast_1d(np.asarray(rows, np.int64))
    chosen = chosen[tracks["run_triggered_us"][chosen] != NEVER_US]
    tracked = tracks[chosen]
    runs = np.zeros(len(chosen), RUN)
    runs["track"] = chosen
    runs["limit"] = [_limit_at(windows, track) for track in tracked]
    runs["kind"] = CONFIRMED
    runs["readings"] = tracked["run_readings"]
    runs["start_us"] = tracked["run_start_us"]
    runs["triggered_us"] = tracked["run_triggered_us"]
    runs["end_us"] = FOREVER_US
    runs["run_us"] = tracked["run_us"]
    runs["uncovered_us"] = tracked["prev_us"] - tracked["run_start_us"] - tracked["run_us"]
    runs["extreme"] = tracked["run_extreme"]
    runs["extreme_us"] = tracked["run_extreme_us"]
    runs["weighted"] = tracked["run_weighted"]
    return runs


def summary(tracks: Rows, rows: npt.ArrayLike, windows: Rows) -> Rows:
    """Return the SUMMARY rows of tracks. Uncovered is what the windows hold up to `prev_us` and no reading covers."""
    tracked = tracks[np.atleast_1d(np.asarray(rows, np.int64))]
    result = np.zeros(len(tracked), SUMMARY)
    for name in ("violation_us", "covered_us", "extreme", "extreme_us", "readings"):
        result[name] = tracked[name]
    until_us = np.minimum(tracked["prev_us"], tracked["until_us"])
    for k in range(int(tracked["windows_count"].max(initial=0))):
        has = np.flatnonzero(tracked["windows_count"] > k)
        window = windows[tracked["windows_start"][has] + k]
        low = np.maximum(window["from_us"], tracked["from_us"][has])
        result["uncovered_us"][has] += np.maximum(np.minimum(window["until_us"], until_us[has]) - low, 0)
    result["uncovered_us"] -= tracked["covered_us"]
    return result


def warm_up() -> None:
    """Load the compiled kernels, or compile them: import has done it, and a call proves it."""
    track = fresh(0, SINGLE, 0, 0, 0)
    judge(np.zeros(0, np.int64), np.zeros(0, np.float64), track, np.zeros(0, WINDOW), np.zeros(0, LIMIT), closed=True)


def _feed(
    tracks: Rows,
    first: I4,
    count: I4,
    groups: Groups,
    sensed_us: I8,
    codes: Sequence[int],
    values: F8,
    windows: Rows,
    limits: Rows,
    skipped_mode: int,
) -> Rows:
    arguments = (
        _plain(first, np.int32),
        _plain(count, np.int32),
        _plain(groups.tag, np.int32),
        _plain(groups.start, np.int64),
        _plain(groups.order, np.int64),
        _plain(sensed_us, np.int64),
        _value_row(tuple(codes)),
        _plain(values, np.float64),
        windows,
        limits,
        skipped_mode,
    )
    return _drain(lambda position, out: feed(tracks, *arguments, position, out), np.array([0, 0, -1], np.int64), len(groups.tag))


def _windows_of(windows: Rows, track: Any) -> Rows:
    start = int(track["windows_start"])
    return windows[start : start + int(track["windows_count"])]


def _limit_at(windows: Rows, track: Any) -> int:
    """The LIMIT row in force where the track's open run began."""
    mine = _windows_of(windows, track)
    return int(mine["limit"][np.searchsorted(mine["from_us"], track["run_start_us"], side="right") - 1])


def _plain(array: npt.ArrayLike, dtype: npt.DTypeLike) -> Any:
    """The array as the kernels take it: of this type, contiguous and aligned; not copied where it is so already."""
    if isinstance(array, np.ndarray) and array.dtype == dtype and array.flags.c_contiguous and array.flags.aligned:
        return array
    return np.require(array, dtype, ("C", "A"))


@lru_cache(maxsize=256)
def _value_row(codes: tuple[int, ...]) -> I8:
    """Row of a batch's values by column code, -1 where absent."""
    rows = np.full(len(COLUMNS), -1, np.int64)
    rows[list(codes)] = np.arange(len(codes))
    rows.flags.writeable = False
    return rows


def _drain(kernel: Callable[[I8, Rows], int], position: I8, end: int) -> Rows:
    """Run a kernel until its position reaches `end`, giving it more room whenever it stops for want of it."""
    parts = []
    room = _FIRST_ROOM
    while True:
        out = np.empty(room, RUN)  # a RUN has no padding, so that equal runs are equal bytes
        written = kernel(position, out)
        parts.append(out[:written])
        if position[0] >= end:
            return parts[0] if len(parts) == 1 else np.concatenate(parts)
        room *= 4
