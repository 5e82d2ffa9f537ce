"""The quality flags of rides: those that their settings give, and the values that are left to judge."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from actors.rules import quality
from actors.rules.quality import QualitySettings
from actors.rules.readings import COLUMNS, EARLIEST_US, F8, FAIL, I8, LATEST_US, LATITUDE, LONGITUDE, NOT_EVALUATED, U1
from cluster.replay.rides import Columns, Rides, block_index


def usable(columns: Columns, rides: Rides) -> F8:
    """The values with every one flagged *fail* made absent (handbook 4); the columns' own where nothing is.

    Recorded flags go before the settings: a verify judges what was recorded.
    """
    flags = columns.flags if columns.flags is not None else flags_of(columns, rides)
    if flags is None:
        return columns.values
    failed = flags == FAIL
    if not failed.any():
        return columns.values
    values = columns.values.copy()
    values[failed] = np.nan
    return values


def flags_of(columns: Columns, rides: Rides) -> U1 | None:
    """The flags that the rides' quality settings give among the readings beside them, (len(codes), n); None where no ride has any."""
    tested = np.array([one is not None for one in rides.quality], np.bool_)
    if not tested.any():
        return None
    if rides.beside is not None and rides.beside_start is not None and rides.beside_start[-1] > rides.beside_start[0]:
        wide, its, own = _widened(columns, rides, rides.beside, rides.beside_start)
        return _flags(wide, its, tested)[:, own]
    return _flags(columns, rides, tested)


def _widened(columns: Columns, rides: Rides, beside: Columns, beside_start: I8) -> tuple[Columns, Rides, I8]:
    """The rides with the readings beside them, and in which rows of these their own are."""
    n = len(columns.sensed_us)
    low, high = beside_start[:-1], beside_start[1:]
    whose = np.repeat(rides.from_us, high - low)
    before = np.concatenate([[0], np.cumsum(beside.sensed_us[low[0] : high[-1]] < whose)])
    edge = low + before[high - low[0]] - before[low - low[0]]
    starts = np.stack([low + n, rides.start[:-1], edge + n], 1)
    sizes = np.stack([edge - low, np.diff(rides.start), high - edge], 1)
    order = block_index(starts.ravel(), sizes.ravel())
    held = beside.values[[beside.codes.index(code) for code in columns.codes]]
    values = np.concatenate([columns.values, held], 1).take(order, 1)
    wide = Columns(np.concatenate([columns.sensed_us, beside.sensed_us])[order], columns.codes, values)
    own = np.empty(n, np.int64)
    mine = order < n
    own[order[mine]] = np.flatnonzero(mine)
    start = np.concatenate([[0], np.cumsum(sizes.sum(1))]).astype(np.int64)
    its = Rides(rides.custody_id, rides.carrier, rides.tag, rides.from_us, rides.until_us, start, rides.quality)
    return wide, its, own


def _flags(columns: Columns, rides: Rides, tested: npt.NDArray[np.bool_]) -> U1:
    flags = np.full(columns.values.shape, NOT_EVALUATED, np.uint8)
    for low, high in _stretches(tested):  # neighbouring rides with settings are one call
        first, last = int(rides.start[low]), int(rides.start[high])
        start = rides.start[low : high + 1] - first
        _test(rides.quality[low:high], start, columns, slice(first, last), flags)
    return flags


def _test(settings: Sequence[QualitySettings | None], start: I8, columns: Columns, rows: slice, flags: U1) -> None:
    distinct = {id(one): one for one in settings if one is not None}
    number = {key: at for at, key in enumerate(distinct)}
    which = np.array([number[id(one)] for one in settings])
    sensed_us, codes = columns.sensed_us[rows], columns.codes
    for k, code in enumerate(codes):
        if any(_tests(one, code) for one in distinct.values()):
            each = np.concatenate([one.row(code) for one in distinct.values()])[which]
            flags[k, rows] = quality.flags_of_segments(np.ascontiguousarray(each), start, sensed_us, columns.values[k, rows])
    if LATITUDE in codes and LONGITUDE in codes and any(one.tests_position for one in distinct.values()):
        latitude, longitude = codes.index(LATITUDE), codes.index(LONGITUDE)
        limits = np.array([[_or_nan(one.speed_suspect_mps), _or_nan(one.speed_fail_mps)] for one in distinct.values()])[which]
        speed = quality.speed_flags_of_segments(limits, start, sensed_us, columns.values[latitude, rows], columns.values[longitude, rows])
        for k in (latitude, longitude):
            flags[k, rows] = quality.worst(flags[k, rows], speed)


def _tests(settings: QualitySettings, code: int) -> bool:
    """Whether anything can fail a plausible value of this column."""
    dated = settings.not_before_us > EARLIEST_US or settings.not_after_us < LATEST_US
    return dated or COLUMNS[code].name in settings.metrics


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


def _stretches(mask: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(low), int(high)) for low, high in edges.reshape(-1, 2)]
