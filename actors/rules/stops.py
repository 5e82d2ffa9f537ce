"""Stops: when a tag stood still (handbook 5; the defaults are Traccar's: 500 m, 300 s).

A stop is judged from its first fix: it goes on while fixes are within `radius_m` (geodesic, <=) of that one. The first fix beyond
ends it and is the first fix of the next attempt (ours). It is a stop where its last fix within comes `least_us` or more after its first;
it lasts from the first to the last fix within. Accuracy plays no part. Custody's end ends a stop, at its last fix within.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.rules._arrays import own, own_groups
from actors.rules._compile import compiled
from actors.rules.geodesy import bounds, cheap_bounds, distance_m, normal
from actors.rules.readings import F8, FOREVER_US, I4, I8, Groups

Rows = npt.NDArray[Any]

RADIUS_M = 500.0
LEAST_US = 300_000_000

BEGAN, ENDED = 1, 2
UNDECIDED, WITHIN, BEYOND = 0, 1, 2

STOP = np.dtype(
    [
        ("from_us", "i8"),
        ("until_us", "i8"),
        ("first_us", "i8"),
        ("last_us", "i8"),
        ("latitude_deg", "f8"),
        ("longitude_deg", "f8"),
        ("fixes", "i4"),
        ("confirmed", "i4"),
    ],
    align=True,
)
"""State of one tag in one custody [from_us, until_us): the attempt's first fix (latitude NaN: none), its last fix within, the number
of fixes, and whether it lasts long enough already (then the tag is standing now). No padding: equal states are equal bytes."""

STOP_EVENT = np.dtype(
    [
        ("stop", "i4"),
        ("kind", "u1"),
        ("fixes", "i4"),
        ("at_us", "i8"),
        ("from_us", "i8"),
        ("to_us", "i8"),
        ("known_us", "i8"),
        ("latitude_deg", "f8"),
        ("longitude_deg", "f8"),
    ],
    align=True,
)
"""stop: index into the STOP rows. kind BEGAN: at_us = from_us is the first fix, to_us FOREVER_US. kind ENDED: at_us = to_us is the last fix
within. known_us: the fix that told (close: the end of custody). latitude, longitude: the first fix. fixes: how many, so far."""


@compiled
def _emit(events: Rows, n: int, stop: int, state: Any, kind: int, known_us: int, forever_us: int) -> None:
    event = events[n]
    event["stop"] = stop
    event["kind"] = kind
    event["fixes"] = state["fixes"]
    event["from_us"] = state["first_us"]
    event["at_us"] = state["first_us"] if kind == BEGAN else state["last_us"]
    event["to_us"] = forever_us if kind == BEGAN else state["last_us"]
    event["known_us"] = known_us
    event["latitude_deg"] = state["latitude_deg"]
    event["longitude_deg"] = state["longitude_deg"]


@compiled
def _side(state: Any, latitude: float, longitude: float, radius_m: float) -> int:
    lower, upper = cheap_bounds(latitude, longitude, state["latitude_deg"], state["longitude_deg"])
    if upper <= radius_m:
        return WITHIN
    if lower > radius_m:
        return BEYOND
    px, py, pz = normal(latitude, longitude)
    qx, qy, qz = normal(state["latitude_deg"], state["longitude_deg"])
    lower, upper = bounds(px, py, pz, qx, qy, qz)
    if upper <= radius_m:
        return WITHIN
    if lower > radius_m:
        return BEYOND
    return UNDECIDED


@compiled
def _step(
    stops: Rows, first: I4, count: I4, tags: I4, start: I8, order: I8, sensed_us: I8, latitude: F8, longitude: F8,
    radius_m: float, least_us: int, events: Rows, cursor: I8, answer: int, forever_us: int,
) -> int:  # fmt: skip
    """Run from cursor (group, state, row); returns the number of events.

    Stops early where the buffer is nearly full, or with cursor[3] = 1 where only the geodesic can tell the side of the row under the
    cursor: call again with that side as `answer`.
    """
    n = 0
    g, v0, i0 = cursor[0], cursor[1], cursor[2]
    cursor[3] = 0
    while g < len(tags):
        f, c = first[tags[g]], count[tags[g]]
        for v in range(v0, c):
            state = stops[f + v]
            for i in range(i0, start[g + 1] - start[g]):
                row = order[start[g] + i]
                t, la, lo = sensed_us[row], latitude[row], longitude[row]
                if math.isnan(la) or math.isnan(lo) or t < state["from_us"] or t >= state["until_us"]:
                    continue
                side = BEYOND
                if not math.isnan(state["latitude_deg"]):
                    side = _side(state, la, lo, radius_m) if answer == UNDECIDED else answer
                    answer = UNDECIDED
                if side == UNDECIDED or n + 2 > len(events):
                    cursor[0], cursor[1], cursor[2] = g, v, i
                    cursor[3] = 1 if side == UNDECIDED else 0
                    return n
                if side == BEYOND:
                    if state["confirmed"]:
                        _emit(events, n, f + v, state, ENDED, t, forever_us)
                        n += 1
                    state["first_us"] = t
                    state["latitude_deg"] = la
                    state["longitude_deg"] = lo
                    state["fixes"] = 0
                    state["confirmed"] = 0
                state["last_us"] = t
                state["fixes"] += 1
                if not state["confirmed"] and t - state["first_us"] >= least_us:
                    state["confirmed"] = 1
                    _emit(events, n, f + v, state, BEGAN, t, forever_us)
                    n += 1
            i0 = 0
        v0 = 0
        g += 1
    cursor[0], cursor[1], cursor[2] = g, 0, 0
    return n


def fresh(count: int, from_us: int, until_us: int = FOREVER_US) -> Rows:
    """STOP rows (usually one a tag) for a custody [from_us, until_us)."""
    stops: Rows = np.zeros(count, STOP)
    stops["from_us"], stops["until_us"] = from_us, until_us
    stops["latitude_deg"] = stops["longitude_deg"] = np.nan
    return stops


def advance(
    stops: Rows, first: I4, count: I4, groups: Groups, sensed_us: I8, latitude: F8, longitude: F8,
    radius_m: float = RADIUS_M, least_us: int = LEAST_US,
) -> Rows:  # fmt: skip
    """Take the rows of a batch into stops[first[t] : first[t] + count[t]] of their tags t, in place; returns STOP_EVENT rows.

    Rows without a fix (NaN) or outside custody do nothing. A tag's rows come in order and not older than what its state has seen.
    """
    first, count, groups = own(first, np.int32), own(count, np.int32), own_groups(groups)
    sensed_us, latitude, longitude = own(sensed_us, np.int64), own(latitude), own(longitude)
    found: list[Rows] = []
    cursor = np.zeros(4, np.int64)
    answer = UNDECIDED
    while cursor[0] < len(groups.tag):
        buffer: Rows = np.zeros(256, STOP_EVENT)
        n = _step(stops, first, count, *groups, sensed_us, latitude, longitude, radius_m, least_us, buffer, cursor, answer, FOREVER_US)
        found.append(buffer[:n])
        answer = UNDECIDED
        if cursor[3]:
            g, v, i = cursor[:3].tolist()
            row = groups.order[groups.start[g] + i]
            state = stops[first[groups.tag[g]] + v]
            far = distance_m(latitude[row], longitude[row], state["latitude_deg"], state["longitude_deg"])
            answer = WITHIN if far <= radius_m else BEYOND
    return np.concatenate(found) if found else np.zeros(0, STOP_EVENT)


def close(stops: Rows, rows: I8 | Sequence[int], until_us: int | I8) -> Rows:
    """The custody of these states (indices) ends at until_us (one for all or one each): who stands still stops at the last fix within."""
    found: Rows = np.zeros(len(rows), STOP_EVENT)
    n = 0
    for row, until in zip(rows, np.broadcast_to(until_us, len(rows)).tolist(), strict=True):
        state = stops[row]
        if state["confirmed"]:
            last = state["last_us"]
            at = (state["latitude_deg"], state["longitude_deg"])
            found[n] = (row, ENDED, state["fixes"], last, state["first_us"], last, until, *at)
            n += 1
        state["until_us"] = until
        state["latitude_deg"] = state["longitude_deg"] = np.nan
        state["confirmed"], state["fixes"] = 0, 0
    return found[:n]


def judge(
    sensed_us: I8, latitude: F8, longitude: F8, stops: Rows, *,
    until_us: int | None = None, radius_m: float = RADIUS_M, least_us: int = LEAST_US,
) -> tuple[Rows, Rows]:  # fmt: skip
    """The whole-history form: one tag's series in order; with until_us custody ends there.

    Returns (states as they are afterwards, STOP_EVENT rows); `stops` is not changed.
    """
    stops = stops.copy()
    if until_us is not None:
        stops["until_us"] = np.minimum(stops["until_us"], until_us)
    n = len(sensed_us)
    groups = Groups(np.zeros(1, np.int32), np.array([0, n]), np.arange(n))
    one = np.array([len(stops)], np.int32)
    events = advance(stops, np.zeros(1, np.int32), one, groups, sensed_us, latitude, longitude, radius_m, least_us)
    if until_us is not None:
        events = np.concatenate([events, close(stops, range(len(stops)), until_us)])
    return stops, events


def warm_up() -> None:
    """Compile, or load, the loop: before the first batch is served."""
    at = np.array([0, LEAST_US, 2 * LEAST_US])
    judge(at, np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.001, 0.0]), fresh(1, 0), until_us=3 * LEAST_US)
