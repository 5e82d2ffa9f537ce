"""Geofences: when a tag was inside one, and when it passed through (handbook 5).

Inside means: circle, the geodesic distance to the centre <= radius; corridor, the distance to the nearest geodesic segment of its
line <= half-width; polygon, in or on the outer ring and not strictly within a hole. All edges are geodesics (ours).

Polygon rings (ours): a ring lies within 9,000 km of its centre (the mean of its corners) and encloses the side that does not hold
the centre's antipode. So the order of its corners does not matter, the antimeridian is a line like any other, and a ring round a
pole encloses that pole. A ring that crosses itself encloses what it winds round an odd number of times.

Distance to the boundary, against a fix's accuracy: circle |d - radius|, corridor |d - half-width| (ours), polygon the distance to
the nearest edge of any ring. A fix nearer than its accuracy is ambiguous: it neither counts nor resets.

A side is confirmed at a fix: by `confirm` consecutive unambiguous fixes on it, or by a fix on it `dwell` or more after the first
of them (silence confirms nothing, ours). Passed through: two outside fixes with no other unambiguous fix between them, at most
60 min apart, whose geodesic meets the fence, whatever side is confirmed then; dated from the first to the second.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.rules import geofence_kernel as kernel
from actors.rules._arrays import own, own_groups
from actors.rules.errors import InvalidArgument
from actors.rules.geodesy import distance_bounds_m, distance_m, normal, segment_distance_m
from actors.rules.geofence_kernel import (
    AMBIGUOUS,
    CIRCLE,
    CORRIDOR,
    ENTER,
    EXIT,
    FENCE,
    I1,
    INSIDE,
    MAYBE_PASSED,
    OUTSIDE,
    PASSED_THROUGH,
    POLYGON,
    RAW_EVENT,
    UNSURE,
    VISIT,
    Rows,
)
from actors.rules.geopath import TOUCH_M, Fix, Path
from actors.rules.readings import F8, FOREVER_US, I4, I8, Groups

__all__ = [
    "ENTER", "EXIT", "INSIDE", "OUTSIDE", "PASSED_THROUGH", "VISIT", "VISIT_EVENT", "Fence", "FenceTable",
    "advance", "close", "fresh", "judge", "sides", "union", "warm_up",
]  # fmt: skip

KINDS = {"circle": CIRCLE, "polygon": POLYGON, "corridor": CORRIDOR}
LARGEST_M = 10_000_000.0
RING_REACH_M = 9_000_000.0
PAIRS_AT_ONCE = 1 << 22

VISIT_EVENT = np.dtype(
    [("visit", "i4"), ("kind", "u1"), ("at_us", "i8"), ("from_us", "i8"), ("to_us", "i8"), ("known_us", "i8")], align=True
)
"""visit: index into the VISIT rows given. kind: ENTER, EXIT or PASSED_THROUGH. at_us: the date of the event.

from_us, to_us: ENTER: the entering fix, FOREVER_US; EXIT: the visit that it ends; PASSED_THROUGH: the two outside fixes.
known_us: sensed time of the fix that confirmed it (for `close`: the end of custody).
"""


@dataclass(frozen=True, slots=True)
class Fence:
    """A geofence, checked. Equal fences share a row of a FenceTable.

    lines: circle: ((centre,),); polygon: its rings, the outer first, then holes; corridor: (its line,). Fixes are (latitude_deg,
    longitude_deg). size_m: radius or half-width; 0 for a polygon. Raises InvalidArgument.
    """

    fence_id: str
    kind: str
    lines: tuple[tuple[Fix, ...], ...]
    size_m: float = 0.0
    confirm: int = 2
    dwell_us: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidArgument("circle, polygon or corridor", field="kind", value=self.kind)
        if self.kind != "polygon" and not 0.0 < self.size_m <= LARGEST_M:
            raise InvalidArgument("more than 0 and at most 10,000 km", field="radius_m", value=self.size_m)
        if not 1 <= self.confirm <= 1000:
            raise InvalidArgument("1 to 1000 fixes", field="confirm", value=self.confirm)
        if self.dwell_us is not None and self.dwell_us < 0:
            raise InvalidArgument("not negative", field="dwell_us", value=self.dwell_us)
        least = {"circle": 1, "polygon": 3, "corridor": 2}[self.kind]
        if not self.lines or (self.kind != "polygon" and len(self.lines) != 1):
            raise InvalidArgument("one line, or a polygon's rings", field="geometry", value=len(self.lines))
        for line in self.lines:
            for latitude, longitude in line:
                if not (-90.0 <= latitude <= 90.0 and -180.0 <= longitude <= 180.0):
                    raise InvalidArgument("latitude -90 to 90, longitude -180 to 180", field="geometry", value=(latitude, longitude))
            if len(set(line)) < least or (self.kind == "circle" and len(line) != 1):
                raise InvalidArgument(f"a {self.kind} needs {least} different points", field="geometry", value=len(set(line)))

    @classmethod
    def of(cls, fence_id: str, kind: str, geometry: Mapping[str, Any], confirm: int = 2, dwell_us: int | None = None) -> Fence:
        """A fence from plain data.

        geometry: circle {"center": [lat, lon], "radius_m"}; polygon {"rings": [[[lat, lon], ...], ...]}; corridor {"points":
        [[lat, lon], ...], "half_width_m"}.

        >>> Fence.of("depot", "circle", {"center": [52.0, 4.0], "radius_m": 300}).size_m
        300.0
        """
        try:
            raw = [[geometry["center"]]] if kind == "circle" else geometry["rings"] if kind == "polygon" else [geometry["points"]]
            lines = tuple(tuple((float(latitude), float(longitude)) for latitude, longitude in line) for line in raw)
            name = {"circle": "radius_m", "corridor": "half_width_m"}.get(kind)
            size = float(geometry[name]) if name else 0.0
        except (KeyError, TypeError, ValueError) as wrong:
            raise InvalidArgument(f"the geometry of a {kind} is not complete: {wrong!r}", field="geometry") from None
        return cls(fence_id, kind, lines, size, confirm, dwell_us)

    def geometry(self) -> dict[str, Any]:
        """The plain data that `of` reads."""
        points = [[list(fix) for fix in line] for line in self.lines]
        if self.kind == "circle":
            return {"center": points[0][0], "radius_m": self.size_m}
        if self.kind == "polygon":
            return {"rings": points}
        return {"points": points[0], "half_width_m": self.size_m}


class FenceTable:
    """The fences a shard knows, as rows that VISIT rows point to. `rows` are for the compiled loops, `paths` for what has edges."""

    def __init__(self) -> None:
        self.rows: Rows = np.zeros(16, FENCE)
        self.fences: list[Fence | None] = []
        self.paths: dict[int, Path] = {}
        self._row: dict[Fence, int] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._row)

    def add(self, fence: Fence) -> int:
        """The row of this fence; made where it is new. Raises InvalidArgument for edges or rings that are too long."""
        if fence in self._row:
            return self._row[fence]
        path = None if fence.kind == "circle" else Path.of(fence.lines, closed=fence.kind == "polygon")
        latitude, longitude, radius = _around(fence, path)
        if self._free:
            row = self._free.pop()
        else:
            row = len(self.fences)
            self.fences.append(None)
            if row == len(self.rows):
                self.rows = np.concatenate([self.rows, np.zeros(row, FENCE)])
        dwell = -1 if fence.dwell_us is None else fence.dwell_us
        self.rows[row] = (*normal(latitude, longitude), latitude, longitude, radius, dwell, fence.confirm, KINDS[fence.kind])
        self.fences[row] = fence
        self._row[fence] = row
        if path is not None:
            self.paths[row] = path
        return row

    def remove(self, row: int) -> None:
        """Give a row back for other fences. No VISIT row may point to it any more."""
        fence = self.fences[row]
        if fence is not None:
            del self._row[fence]
            self.fences[row] = None
            self.paths.pop(row, None)
            self._free.append(row)


def _around(fence: Fence, path: Path | None) -> tuple[float, float, float]:
    """A circle that holds the fence: latitude and longitude of its centre, its radius."""
    if path is None:
        latitude, longitude = fence.lines[0][0]
        return float(latitude), float(longitude), fence.size_m
    # A polygon's outer ring holds all of it, for a hole outside it takes nothing away.
    ends = path.fixes[: path.rings[1]]
    mean = path.pieces[: path.rings[1], :3].mean(axis=0)
    size = float(np.linalg.norm(mean))
    x, y, z = (mean / size).tolist() if size > 1e-6 else path.pieces[0, :3].tolist()
    latitude, longitude = math.degrees(math.atan2(z, math.hypot(x, y))), math.degrees(math.atan2(y, x))
    far = distance_bounds_m(ends[:, 0].copy(), ends[:, 1].copy(), latitude, longitude)[1]
    last = distance_bounds_m(ends[:, 2].copy(), ends[:, 3].copy(), latitude, longitude)[1]
    radius = max(float(far.max()), float(last.max())) + path.longest_m / 2 + 1.0
    if fence.kind == "polygon" and radius > RING_REACH_M:
        raise InvalidArgument("a ring must lie within 9,000 km of its centre", field="geometry", value=fence.fence_id)
    return latitude, longitude, radius + fence.size_m


def sides(fence: I4, latitude: F8, longitude: F8, accuracy: F8, table: FenceTable) -> I1:
    """Side of each pair (row of the table, fix), (n,): INSIDE +1, OUTSIDE -1, AMBIGUOUS 0 (also where there is no fix).

    accuracy is metres, NaN where absent (0).
    """
    fence, latitude, longitude, accuracy = own(fence, np.int32), own(latitude), own(longitude), own(accuracy)
    out = np.empty(len(fence), np.int8)
    kernel.plain_sides(fence, latitude, longitude, accuracy, table.rows, out)
    pairs = np.flatnonzero(out == UNSURE)
    if len(pairs):
        _ask(out, pairs, pairs, fence[pairs], latitude, longitude, accuracy, table)
    return out


def _ask(out: I1, pairs: I8, rows: I8, fence: I4, latitude: F8, longitude: F8, accuracy: F8, table: FenceTable) -> None:
    """Settle the UNSURE sides `out[pairs]`, of fix `rows` and fence `fence` each: paths by their bounds, the rest by the geodesic."""
    for row in np.unique(fence).tolist():
        mine = fence == row
        at = rows[mine]
        out[pairs[mine]] = _settle(table, row, latitude[at], longitude[at], np.nan_to_num(accuracy[at], nan=0.0))


def _settle(table: FenceTable, row: int, latitude: F8, longitude: F8, accuracy: F8) -> I1:
    fence, path = table.fences[row], table.paths.get(row)
    if fence is None:
        raise ValueError(f"fence row {row} was removed, but a visit still points to it")
    out = np.full(len(latitude), UNSURE, np.int8)
    if path is None:
        centre = fence.lines[0][0]
        for i in range(len(out)):
            far = distance_m(latitude[i], longitude[i], *centre)
            out[i] = kernel.band(far, far, fence.size_m, accuracy[i])
        return out
    lower, upper, _ = path.measure_m(latitude, longitude)
    if fence.kind == "corridor":
        kernel.bands(lower, upper, fence.size_m, accuracy, out)
        for i in np.flatnonzero(out == UNSURE).tolist():
            far = path.exact_m(latitude[i], longitude[i])
            out[i] = kernel.band(far, far, fence.size_m, accuracy[i])
        return out
    return _polygon_sides(path, latitude, longitude, accuracy, lower, upper)


def _polygon_sides(path: Path, latitude: F8, longitude: F8, accuracy: F8, lower: F8, upper: F8) -> I1:
    holes = range(1, len(path.rings) - 1)
    inside = path.winds_round(latitude, longitude, 0)
    for hole in holes:
        inside &= ~path.winds_round(latitude, longitude, hole)
    out = np.where(inside, INSIDE, OUTSIDE).astype(np.int8)
    out[upper < accuracy] = AMBIGUOUS
    for i in np.flatnonzero((upper >= accuracy) & ((lower <= 0.0) | (lower < accuracy))).tolist():
        far = path.exact_m(latitude[i], longitude[i])
        if far < accuracy[i]:
            out[i] = AMBIGUOUS
        elif far <= TOUCH_M:
            out[i] = INSIDE
        elif lower[i] <= 0.0:
            within = path.exactly_winds_round(latitude[i], longitude[i], 0) and not any(
                path.exactly_winds_round(latitude[i], longitude[i], hole) for hole in holes
            )
            out[i] = INSIDE if within else OUTSIDE
    return out


def fresh(fence: I4 | Sequence[int], from_us: int, until_us: int = FOREVER_US) -> Rows:
    """VISIT rows of one tag's custody [from_us, until_us): one for each fence (rows of the table)."""
    visits: Rows = np.zeros(len(fence), VISIT)
    visits["fence"] = fence
    visits["from_us"] = from_us
    visits["until_us"] = until_us
    visits["outside_latitude_deg"] = np.nan
    return visits


def advance(
    visits: Rows, first: I4, count: I4, groups: Groups,
    sensed_us: I8, latitude: F8, longitude: F8, accuracy: F8, table: FenceTable,
) -> Rows:  # fmt: skip
    """Take the rows of a batch into the visits of their tags, in place; returns VISIT_EVENT rows.

    visits[first[t] : first[t] + count[t]] are the visits of tag t (first, count: int32). sensed_us, latitude, longitude, accuracy:
    columns of the batch, NaN where absent; rows without a fix or outside a visit's custody do nothing. A tag's rows come in
    order and are not older than what its visits have seen. Events come group by group, in it visit by visit, in it as they are known.
    """
    found: list[Rows] = []
    first, count, groups = own(first, np.int32), own(count, np.int32), own_groups(groups)
    sensed_us, latitude, longitude, accuracy = own(sensed_us, np.int64), own(latitude), own(longitude), own(accuracy)
    sizes = np.diff(groups.start) * count[groups.tag]
    ends = np.cumsum(sizes)
    g0 = 0
    while g0 < len(groups.tag):
        taken = int(ends[g0 - 1]) if g0 else 0
        g1 = max(g0 + 1, int(np.searchsorted(ends, taken + PAIRS_AT_ONCE, side="right")))
        found += _advance_some(
            visits, first, count, groups, g0, g1, int(ends[g1 - 1]) - taken, sensed_us, latitude, longitude, accuracy, table
        )
        g0 = g1
    return np.concatenate(found) if found else np.zeros(0, VISIT_EVENT)


def _advance_some(
    visits: Rows, first: I4, count: I4, groups: Groups, g0: int, g1: int, pairs_count: int,
    sensed_us: I8, latitude: F8, longitude: F8, accuracy: F8, table: FenceTable,
) -> list[Rows]:  # fmt: skip
    if pairs_count == 0:
        return []
    side = np.empty(pairs_count, np.int8)
    unsure = kernel.fast_sides(visits, first, count, *groups, g0, g1, sensed_us, latitude, longitude, accuracy, table.rows, side)
    if unsure:
        pairs, rows, fence = np.empty(unsure, np.int64), np.empty(unsure, np.int64), np.empty(unsure, np.int32)
        kernel.locate(visits, first, count, *groups, g0, g1, side, pairs, rows, fence)
        _ask(side, pairs, rows, fence, latitude, longitude, accuracy, table)
    found: list[Rows] = []
    cursor = np.array([g0, 0, 0, 0])
    buffer: Rows = np.empty(256, RAW_EVENT)
    while cursor[0] < g1:
        n = kernel.step(visits, first, count, *groups, g1, sensed_us, latitude, longitude, side, table.rows, buffer, cursor, FOREVER_US)
        if n:
            found.append(_sure_events(buffer[:n], visits, table))
            buffer = np.empty(min(4 * len(buffer), 65536), RAW_EVENT)
    return found


def _sure_events(raw: Rows, visits: Rows, table: FenceTable) -> Rows:
    """Find out what of that which may have passed through did, and keep that."""
    keep = raw["kind"] != MAYBE_PASSED
    maybe = np.flatnonzero(~keep)
    fence = visits["fence"][raw["visit"][maybe]]
    for row in np.unique(fence).tolist():
        at = maybe[fence == row]
        for i in at[_near(raw[at], row, table)].tolist():
            a = (float(raw[i]["latitude0_deg"]), float(raw[i]["longitude0_deg"]))
            b = (float(raw[i]["latitude_deg"]), float(raw[i]["longitude_deg"]))
            keep[i] = _meets(table, row, a, b)
    events = np.zeros(int(keep.sum()), VISIT_EVENT)
    for name in VISIT_EVENT.names or ():
        events[name] = raw[name][keep]
    events["kind"][events["kind"] == MAYBE_PASSED] = PASSED_THROUGH
    return events


def _near(raw: Rows, row: int, table: FenceTable) -> I8:
    """Which of these legs are long enough to reach from their first fix to the fence and on to their second one."""
    fence, path = table.fences[row], table.paths.get(row)
    if fence is None or path is None:
        return np.arange(len(raw))
    a = own(raw["latitude0_deg"]), own(raw["longitude0_deg"])
    b = own(raw["latitude_deg"]), own(raw["longitude_deg"])
    hop = np.empty(len(raw))
    kernel.hops(*a, *b, hop)
    to, back = path.measure_m(*a)[0] - fence.size_m, path.measure_m(*b)[0] - fence.size_m
    return np.flatnonzero(np.maximum(to, 0.0) + np.maximum(back, 0.0) <= hop)


def _meets(table: FenceTable, row: int, a: Fix, b: Fix) -> bool:
    """Whether the geodesic between two fixes outside the fence meets it."""
    fence, path = table.fences[row], table.paths.get(row)
    if fence is None:
        raise ValueError(f"fence row {row} was removed, but a visit still points to it")
    if path is None:
        return segment_distance_m(*fence.lines[0][0], a, b) <= fence.size_m
    way = Path.of(((a, b),), limit_m=math.inf)
    lower, upper = path.gap_bounds_m(way)
    if lower > fence.size_m or upper <= fence.size_m:
        return lower <= fence.size_m
    return path.exact_gap_m(way) <= fence.size_m


def close(visits: Rows, rows: I8 | Sequence[int], until_us: int | I8) -> Rows:
    """The custody of these visits (indices) ends at until_us (one for all or one each): open visits get their EXIT there."""
    found = np.zeros(len(rows), VISIT_EVENT)
    n = 0
    for row, until in zip(rows, np.broadcast_to(until_us, len(rows)).tolist(), strict=True):
        visit = visits[row]
        visit["until_us"] = until
        if visit["side"] == INSIDE:
            entered = int(visit["entered_us"])
            end = max(until, entered)
            found[n] = (row, EXIT, end, entered, end, end)
            n += 1
        visit["side"], visit["candidate"], visit["count"] = OUTSIDE, 0, 0
        visit["outside_latitude_deg"] = np.nan
    return found[:n]


def judge(
    sensed_us: I8, latitude: F8, longitude: F8, accuracy: F8, visits: Rows, table: FenceTable, *, until_us: int | None = None
) -> tuple[Rows, Rows]:
    """The whole-history form: one tag's series in order, from its visits' state; with until_us custody ends there.

    Returns (visits as they are afterwards, VISIT_EVENT rows); `visits` is not changed.
    """
    visits = visits.copy()
    if until_us is not None:
        visits["until_us"] = np.minimum(visits["until_us"], until_us)
    n = len(sensed_us)
    groups = Groups(np.zeros(1, np.int32), np.array([0, n]), np.arange(n))
    one = np.array([len(visits)], np.int32)
    events = advance(visits, np.zeros(1, np.int32), one, groups, sensed_us, latitude, longitude, accuracy, table)
    if until_us is not None:
        events = np.concatenate([events, close(visits, range(len(visits)), until_us)])
    return visits, events


def union(intervals: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The carrier's visits to a fence from its tags': intervals [from_us, until_us) that overlap or touch become one; sorted.

    >>> union([(5, 9), (0, 3), (3, 4), (6, 7)])
    [(0, 4), (5, 9)]
    """
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(intervals):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged


def warm_up() -> None:
    """Compile, or load, every loop: before the first batch is served."""
    table = FenceTable()
    square = ((0.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, 0.0))
    rows = [
        table.add(Fence("", "circle", (((0.5, 0.5),),), 1000.0)),
        table.add(Fence("", "polygon", (square,))),
        table.add(Fence("", "corridor", (square,), 1000.0)),
    ]
    latitude, longitude = np.array([0.5, 0.5, 0.5, 0.5]), np.array([0.5, 0.5, -0.1, 1.2])
    accuracy, sensed = np.full(4, np.nan), np.arange(4)
    judge(sensed, latitude, longitude, accuracy, fresh(rows, 0), table, until_us=4)
    sides(np.array(rows, np.int32), latitude[:3], longitude[:3], accuracy[:3], table)
    # What only fixes within a hair of a boundary come to.
    kernel.band(0.0, 0.0, 1.0, 0.0)
    table.paths[rows[2]].exact_m(0.0, 0.5)
