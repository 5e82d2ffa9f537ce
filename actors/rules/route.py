"""Route deviation: how far a tag is from its planned way, and when it left it (handbook 5).

The deviation of a fix is its geodesic distance to the planned polyline, clamped to its segments; the segments are geodesics. Off
route: the deviation stays > tolerance for `hold_us` (a fix at most the tolerance off starts anew); dated at the first fix beyond,
known at the fix that is `hold_us` or more after it. Back on: at the first fix whose deviation is <= half the tolerance. Custody's end
ends it too. Accuracy plays no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.rules._arrays import own, own_groups
from actors.rules._compile import compiled
from actors.rules.errors import InvalidArgument
from actors.rules.geopath import Fix, Path
from actors.rules.readings import F8, FOREVER_US, I4, I8, U1, Groups

Rows = npt.NDArray[Any]

OFF_ROUTE, BACK_ON_ROUTE = 1, 2
NO_FIX, NEAR, TOLERATED, BEYOND = 0, 1, 2, 3
"""Zones of a fix: deviation <= half the tolerance, <= tolerance, beyond."""

DEVIATION = np.dtype(
    [
        ("route", "i4"),
        ("off", "i2"),
        ("beyond", "i2"),
        ("from_us", "i8"),
        ("until_us", "i8"),
        ("since_us", "i8"),
        ("extreme_m", "f8"),
        ("extreme_us", "i8"),
    ],
    align=True,
)
"""State of one (tag, route) in one custody [from_us, until_us). since_us: where `beyond` or `off`, the first fix of it."""

DEVIATION_EVENT = np.dtype(
    [
        ("deviation", "i4"),
        ("kind", "u1"),
        ("at_us", "i8"),
        ("from_us", "i8"),
        ("to_us", "i8"),
        ("known_us", "i8"),
        ("extreme_m", "f8"),
        ("extreme_us", "i8"),
    ],
    align=True,
)
"""deviation: index into the DEVIATION rows. from_us, to_us: the time off route (to_us FOREVER_US for OFF_ROUTE). extreme_m: the
largest deviation so far and its time (the earliest of equals), good to 3 parts in 10^5 below 99 km, else to 0.6 %."""


@dataclass(frozen=True, slots=True)
class Route:
    """A planned way: two or more points (latitude_deg, longitude_deg). Raises InvalidArgument."""

    points: tuple[Fix, ...]
    tolerance_m: float
    hold_us: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.tolerance_m <= 10_000_000.0:
            raise InvalidArgument("more than 0 and at most 10,000 km", field="tolerance_m", value=self.tolerance_m)
        if self.hold_us < 0:
            raise InvalidArgument("not negative", field="hold_us", value=self.hold_us)
        for latitude, longitude in self.points:
            if not (-90.0 <= latitude <= 90.0 and -180.0 <= longitude <= 180.0):
                raise InvalidArgument("latitude -90 to 90, longitude -180 to 180", field="points", value=(latitude, longitude))
        if len(set(self.points)) < 2:
            raise InvalidArgument("a route needs two different points", field="points", value=len(self.points))


class RouteTable:
    """The routes a shard knows, as rows that DEVIATION rows point to. Equal routes share a row."""

    def __init__(self) -> None:
        self.routes: list[Route | None] = []
        self.paths: dict[int, Path] = {}
        self._row: dict[Route, int] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._row)

    def add(self, route: Route) -> int:
        """The row of this route; made where it is new. Raises InvalidArgument where a segment is longer than 10,000 km."""
        if route in self._row:
            return self._row[route]
        path = Path.of((route.points,))
        if self._free:
            row = self._free.pop()
        else:
            row = len(self.routes)
            self.routes.append(None)
        self.routes[row], self.paths[row], self._row[route] = route, path, row
        return row

    def remove(self, row: int) -> None:
        """Give a row back for other routes. No DEVIATION row may point to it any more."""
        route = self.routes[row]
        if route is not None:
            del self._row[route], self.paths[row]
            self.routes[row] = None
            self._free.append(row)

    def zones(self, row: int, latitude: F8, longitude: F8) -> tuple[U1, F8]:
        """Zone (NEAR, TOLERATED, BEYOND) and deviation in metres of each fix; bounds first, else the geodesic."""
        route = self.routes[row]
        if route is None:
            raise ValueError(f"route row {row} was removed, but a deviation still points to it")
        tolerance, half = route.tolerance_m, route.tolerance_m / 2
        lower, upper, deviation = self.paths[row].measure_m(latitude, longitude)
        for limit in (half, tolerance):
            for i in np.flatnonzero((lower <= limit) & (upper > limit)).tolist():
                lower[i] = upper[i] = deviation[i] = self.paths[row].exact_m(latitude[i], longitude[i])
        zone = np.where(lower > tolerance, BEYOND, np.where(lower > half, TOLERATED, NEAR)).astype(np.uint8)
        return zone, deviation


@compiled
def _pairs(first: I4, count: I4, tags: I4, start: I8, order: I8, states: I4, rows: I8) -> None:
    """For each pair of a state and a row of its tag: the state, the row; state after state, in it row after row."""
    at = 0
    for g in range(len(tags)):
        for v in range(first[tags[g]], first[tags[g]] + count[tags[g]]):
            for i in range(start[g], start[g + 1]):
                states[at] = v
                rows[at] = order[i]
                at += 1


@compiled
def _emit(events: Rows, n: int, row: int, state: Any, kind: int, until_us: int, known_us: int) -> None:
    event = events[n]
    event["deviation"] = row
    event["kind"] = kind
    event["at_us"] = state["since_us"] if kind == OFF_ROUTE else until_us
    event["from_us"] = state["since_us"]
    event["to_us"] = until_us
    event["known_us"] = known_us
    event["extreme_m"] = state["extreme_m"]
    event["extreme_us"] = state["extreme_us"]


@compiled
def _step(
    deviations: Rows, states: I4, rows: I8, zones: U1, deviation: F8, hold_us: I8, sensed_us: I8,
    events: Rows, begin: int, forever_us: int,
) -> tuple[int, int]:  # fmt: skip
    """Run the pairs from `begin`; returns (events written, where to go on): early where the buffer is full."""
    n = 0
    for at in range(begin, len(states)):
        zone = zones[at]
        if zone == NO_FIX:
            continue
        if n == len(events):
            return n, at
        state = deviations[states[at]]
        t, far = sensed_us[rows[at]], deviation[at]
        if not state["off"] and zone != BEYOND:
            state["beyond"] = 0
            continue
        if not state["off"] and not state["beyond"]:
            state["beyond"] = 1
            state["since_us"] = t
            state["extreme_m"] = far
            state["extreme_us"] = t
        if far > state["extreme_m"]:
            state["extreme_m"] = far
            state["extreme_us"] = t
        if state["off"] and zone == NEAR:
            _emit(events, n, states[at], state, BACK_ON_ROUTE, t, t)
            n += 1
            state["off"] = 0
            state["beyond"] = 0
        elif not state["off"] and t - state["since_us"] >= hold_us[state["route"]]:
            state["off"] = 1
            _emit(events, n, states[at], state, OFF_ROUTE, forever_us, t)
            n += 1
    return n, len(states)


def fresh(route: I4 | Sequence[int], from_us: int, until_us: int = FOREVER_US) -> Rows:
    """DEVIATION rows of one tag's custody [from_us, until_us): one for each route (rows of the table)."""
    deviations: Rows = np.zeros(len(route), DEVIATION)
    deviations["route"], deviations["from_us"], deviations["until_us"] = route, from_us, until_us
    deviations["extreme_m"] = np.nan
    return deviations


def advance(deviations: Rows, first: I4, count: I4, groups: Groups, sensed_us: I8, latitude: F8, longitude: F8, table: RouteTable) -> Rows:
    """Take the rows of a batch into deviations[first[t] : first[t] + count[t]] of their tags t, in place; returns DEVIATION_EVENT rows.

    Rows without a fix (NaN) or outside custody do nothing. A tag's rows come in order and not older than what its state has seen.
    """
    first, count, groups = own(first, np.int32), own(count, np.int32), own_groups(groups)
    sensed_us, latitude, longitude = own(sensed_us, np.int64), own(latitude), own(longitude)
    size = int(np.sum(np.diff(groups.start) * count[groups.tag]))
    if size == 0:
        return np.zeros(0, DEVIATION_EVENT)
    states, rows = np.empty(size, np.int32), np.empty(size, np.int64)
    _pairs(first, count, *groups, states, rows)
    zones, deviation = np.zeros(size, np.uint8), np.full(size, np.nan)
    t, la, lo = sensed_us[rows], latitude[rows], longitude[rows]
    mine = deviations[states]
    judged = ~(np.isnan(la) | np.isnan(lo)) & (t >= mine["from_us"]) & (t < mine["until_us"])
    for route in np.unique(mine["route"][judged]).tolist():
        at = np.flatnonzero(judged & (mine["route"] == route))
        zones[at], deviation[at] = table.zones(route, la[at], lo[at])
    hold_us = np.array([0 if route is None else route.hold_us for route in table.routes], np.int64)
    found: list[Rows] = []
    begin = 0
    while begin < size:
        buffer: Rows = np.zeros(256, DEVIATION_EVENT)
        n, begin = _step(deviations, states, rows, zones, deviation, hold_us, sensed_us, buffer, begin, FOREVER_US)
        found.append(buffer[:n])
    return np.concatenate(found)


def close(deviations: Rows, rows: I8 | Sequence[int], until_us: int | I8) -> Rows:
    """The custody of these states (indices) ends at until_us (one for all or one each): who is off route gets BACK_ON_ROUTE there."""
    found: Rows = np.zeros(len(rows), DEVIATION_EVENT)
    n = 0
    for row, until in zip(rows, np.broadcast_to(until_us, len(rows)).tolist(), strict=True):
        state = deviations[row]
        if state["off"]:
            found[n] = (row, BACK_ON_ROUTE, until, state["since_us"], until, until, state["extreme_m"], state["extreme_us"])
            n += 1
        state["until_us"] = until
        state["off"], state["beyond"] = 0, 0
    return found[:n]


def judge(
    sensed_us: I8, latitude: F8, longitude: F8, deviations: Rows, table: RouteTable, *, until_us: int | None = None
) -> tuple[Rows, Rows]:
    """The whole-history form: one tag's series in order; with until_us custody ends there.

    Returns (states as they are afterwards, DEVIATION_EVENT rows); `deviations` is not changed.
    """
    deviations = deviations.copy()
    if until_us is not None:
        deviations["until_us"] = np.minimum(deviations["until_us"], until_us)
    n = len(sensed_us)
    groups = Groups(np.zeros(1, np.int32), np.array([0, n]), np.arange(n))
    one = np.array([len(deviations)], np.int32)
    events = advance(deviations, np.zeros(1, np.int32), one, groups, sensed_us, latitude, longitude, table)
    if until_us is not None:
        events = np.concatenate([events, close(deviations, range(len(deviations)), until_us)])
    return deviations, events


def warm_up() -> None:
    """Compile, or load, the loops: before the first batch is served."""
    table = RouteTable()
    row = table.add(Route(((0.0, 0.0), (0.0, 1.0)), 1000.0))
    judge(np.arange(3), np.array([0.0, 0.5, 0.0]), np.array([0.0, 0.5, 0.5]), fresh([row], 0), table, until_us=3)
