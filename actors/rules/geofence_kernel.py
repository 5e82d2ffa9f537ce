"""The compiled loops of the geofences: which side of a fence a fix is on, and what a tag's sides in order amount to.

Two passes: `fast_sides` decides by proven bounds and marks the rest UNSURE; the caller asks the geodesic for those; `step` then
runs every visit's state over its sides. `actors/rules/geofence.py` documents the rules and the fields.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.rules._compile import compiled
from actors.rules.geodesy import CHORD_LIMIT_M, GREATEST_DEGREE_M, LEAST_RADIUS_M, SLACK_M, bounds, cheap_bounds, normal, north_m
from actors.rules.geopath import WIDTH, path_bounds
from actors.rules.readings import F8, I4, I8, MINUTE_US

I1 = npt.NDArray[np.int8]
Rows = npt.NDArray[Any]
"""A structured array: FENCE, VISIT or RAW_EVENT rows."""

INSIDE, AMBIGUOUS, OUTSIDE, UNSURE = 1, 0, -1, 2
"""Sides of one fix. A row without a fix, or outside the visit's custody, is AMBIGUOUS: it neither counts nor resets."""

ENTER, EXIT, PASSED_THROUGH, MAYBE_PASSED = 1, 2, 3, 4
CIRCLE, POLYGON, CORRIDOR = 1, 2, 3
PASS_GAP_US = 60 * MINUTE_US

FENCE = np.dtype(
    [
        ("nx", "f8"),
        ("ny", "f8"),
        ("nz", "f8"),
        ("latitude_deg", "f8"),
        ("longitude_deg", "f8"),
        ("radius_m", "f8"),
        ("dwell_us", "i8"),
        ("confirm", "i2"),
        ("kind", "u1"),
    ],
    align=True,
)
"""What the loops know of a fence: a circle (by its centre's normal), or the circle that holds a polygon or corridor."""

VISIT = np.dtype(
    [
        ("fence", "i4"),
        ("count", "i2"),
        ("side", "i1"),
        ("candidate", "i1"),
        ("candidate_us", "i8"),
        ("from_us", "i8"),
        ("until_us", "i8"),
        ("entered_us", "i8"),
        ("outside_us", "i8"),
        ("outside_latitude_deg", "f8"),
        ("outside_longitude_deg", "f8"),
    ],
    align=True,
)

RAW_EVENT = np.dtype(
    [
        ("visit", "i4"),
        ("kind", "u1"),
        ("at_us", "i8"),
        ("from_us", "i8"),
        ("to_us", "i8"),
        ("known_us", "i8"),
        ("latitude0_deg", "f8"),
        ("longitude0_deg", "f8"),
        ("latitude_deg", "f8"),
        ("longitude_deg", "f8"),
    ],
    align=True,
)


@compiled
def band(lower: float, upper: float, limit_m: float, accuracy_m: float) -> int:
    """Side of a fix whose distance lies in [lower, upper], for "inside is distance <= limit"; UNSURE where the bounds do not decide.

    A fix nearer to the limit than its accuracy is AMBIGUOUS. Never UNSURE where lower == upper.
    """
    if lower > limit_m and lower >= limit_m + accuracy_m:
        return OUTSIDE
    if upper <= limit_m - accuracy_m:
        return INSIDE
    if lower > limit_m - accuracy_m and upper < limit_m + accuracy_m:
        return AMBIGUOUS
    return UNSURE


@compiled
def bands(lower: F8, upper: F8, limit_m: float, accuracy_m: F8, out: I1) -> None:
    """`band` for each fix."""
    for i in range(len(lower)):
        out[i] = band(lower[i], upper[i], limit_m, accuracy_m[i])


@compiled
def _circle_side(fence: Any, px: float, py: float, pz: float, accuracy_m: float) -> int:
    radius = fence["radius_m"]
    lower, upper = bounds(px, py, pz, fence["nx"], fence["ny"], fence["nz"])
    if fence["kind"] == CIRCLE:
        return band(lower, upper, radius, accuracy_m)
    if lower > radius and lower >= radius + accuracy_m:
        return OUTSIDE
    return UNSURE


@compiled
def fast_sides(
    visits: Rows, first: I4, count: I4, tags: I4, start: I8, order: I8, g0: int, g1: int,
    sensed_us: I8, latitude: F8, longitude: F8, accuracy: F8, fences: Rows, sides: I1,
) -> int:  # fmt: skip
    """Fill `sides` for groups g0..g1: group after group, in it visit after visit, in it row after row. Returns how many are UNSURE."""
    base, unsure = 0, 0
    for g in range(g0, g1):
        low, high = start[g], start[g + 1]
        for v in range(first[tags[g]], first[tags[g]] + count[tags[g]]):
            from_us, until_us = visits[v]["from_us"], visits[v]["until_us"]
            fence = fences[visits[v]["fence"]]
            latitude0, longitude0, radius = fence["latitude_deg"], fence["longitude_deg"], fence["radius_m"]
            circle = fence["kind"] == CIRCLE
            for i in range(low, high):
                row = order[i]
                here, there, accuracy_m = latitude[row], longitude[row], accuracy[row]
                if math.isnan(accuracy_m):
                    accuracy_m = 0.0
                beyond = north_m(here, latitude0) - radius
                if math.isnan(here) or math.isnan(there) or sensed_us[row] < from_us or sensed_us[row] >= until_us:
                    side = AMBIGUOUS
                elif beyond > 0.0 and beyond >= accuracy_m:  # Most fixes end here.
                    side = OUTSIDE
                else:
                    lower, upper = cheap_bounds(here, there, latitude0, longitude0)
                    if lower - radius > 0.0 and lower - radius >= accuracy_m:
                        side = OUTSIDE
                    elif circle and upper <= radius - accuracy_m:
                        side = INSIDE
                    else:
                        px, py, pz = normal(here, there)
                        side = _circle_side(fence, px, py, pz, accuracy_m)
                        if side == UNSURE:
                            unsure += 1
                sides[base + i - low] = side
            base += high - low
    return unsure


@compiled
def locate(
    visits: Rows, first: I4, count: I4, tags: I4, start: I8, order: I8, g0: int, g1: int, sides: I1, pairs: I8, rows: I8, fence: I4
) -> None:
    """For each UNSURE side in order: its place in `sides`, its row in the batch, its fence."""
    base, found = 0, 0
    for g in range(g0, g1):
        f, c = first[tags[g]], count[tags[g]]
        n = start[g + 1] - start[g]
        for v in range(c):
            for i in range(n):
                if sides[base + v * n + i] == UNSURE:
                    pairs[found] = base + v * n + i
                    rows[found] = order[start[g] + i]
                    fence[found] = visits[f + v]["fence"]
                    found += 1
        base += c * n


@compiled
def plain_sides(fence: I4, latitude: F8, longitude: F8, accuracy: F8, fences: Rows, sides: I1) -> None:
    """The fast sides of pairs (fence row, fix)."""
    for i in range(len(fence)):
        if math.isnan(latitude[i]) or math.isnan(longitude[i]):
            sides[i] = AMBIGUOUS
        else:
            px, py, pz = normal(latitude[i], longitude[i])
            sides[i] = _circle_side(fences[fence[i]], px, py, pz, 0.0 if math.isnan(accuracy[i]) else accuracy[i])


@compiled
def hops(latitude0: F8, longitude0: F8, latitude: F8, longitude: F8, upper: F8) -> None:
    """Upper bound of the length of each leg, metres."""
    for i in range(len(upper)):
        ax, ay, az = normal(latitude0[i], longitude0[i])
        bx, by, bz = normal(latitude[i], longitude[i])
        upper[i] = bounds(ax, ay, az, bx, by, bz)[1]


@compiled
def _arc_bounds(px: float, py: float, pz: float, a: F8, b: F8, hop_m: float) -> tuple[float, float]:
    """Bounds of the distance from p to the geodesic a-b of length at most hop_m (see geopath)."""
    piece = np.empty((1, WIDTH))
    lx, ly, lz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    nx, ny, nz = a[1] * lz - a[2] * ly, a[2] * lx - a[0] * lz, a[0] * ly - a[1] * lx
    size = math.sqrt(nx * nx + ny * ny + nz * nz)
    nx, ny, nz = nx / size, ny / size, nz / size
    piece[0, 0], piece[0, 1], piece[0, 2], piece[0, 3], piece[0, 4], piece[0, 5] = a[0], a[1], a[2], b[0], b[1], b[2]
    piece[0, 6], piece[0, 7], piece[0, 8] = nx, ny, nz
    piece[0, 9], piece[0, 10], piece[0, 11] = ny * a[2] - nz * a[1], nz * a[0] - nx * a[2], nx * a[1] - ny * a[0]
    piece[0, 12], piece[0, 13], piece[0, 14] = b[1] * nz - b[2] * ny, b[2] * nx - b[0] * nz, b[0] * ny - b[1] * nx
    lower, upper, _ = path_bounds(px, py, pz, piece, 0.004 * hop_m * hop_m / (8 * LEAST_RADIUS_M) + SLACK_M)
    return lower, upper


@compiled
def _passes(fence: Any, latitude0: float, longitude0: float, latitude: float, longitude: float) -> int:
    """Whether the geodesic between two outside fixes meets the fence: 0 no, PASSED_THROUGH yes, MAYBE_PASSED ask the geodesic."""
    radius = fence["radius_m"]
    hop = cheap_bounds(latitude, longitude, latitude0, longitude0)[1]
    if cheap_bounds(latitude, longitude, fence["latitude_deg"], fence["longitude_deg"])[0] - radius > hop:
        return 0
    if latitude == latitude0 and longitude == longitude0:
        return 0
    ax, ay, az = normal(latitude0, longitude0)
    bx, by, bz = normal(latitude, longitude)
    cx, cy, cz = fence["nx"], fence["ny"], fence["nz"]
    far_a, far_b = bounds(ax, ay, az, cx, cy, cz)[0], bounds(bx, by, bz, cx, cy, cz)[0]
    hop = bounds(ax, ay, az, bx, by, bz)[1]
    if max(0.0, far_a - radius) + max(0.0, far_b - radius) > hop:
        return 0
    if hop < CHORD_LIMIT_M:
        lower, upper = _arc_bounds(cx, cy, cz, np.array((ax, ay, az)), np.array((bx, by, bz)), hop)
        if lower > radius:
            return 0
        if fence["kind"] == CIRCLE and upper <= radius:
            return PASSED_THROUGH
    return MAYBE_PASSED


@compiled
def _emit(events: Rows, n: int, visit: int, kind: int, at_us: int, from_us: int, to_us: int, known_us: int) -> None:
    event = events[n]
    event["visit"] = visit
    event["kind"] = kind
    event["at_us"] = at_us
    event["from_us"] = from_us
    event["to_us"] = to_us
    event["known_us"] = known_us


@compiled
def _stays_away(fence: Any, latitude0: float, longitude0: float, latitude: float, longitude: float) -> bool:
    """Whether a leg is shown to keep clear of the fence by its length and its end's distance in latitude alone, as most are."""
    east = abs(longitude - longitude0)
    hop = (abs(latitude - latitude0) + min(east, 360.0 - east)) * GREATEST_DEGREE_M + SLACK_M
    return bool(north_m(latitude, fence["latitude_deg"]) - fence["radius_m"] > hop)


@compiled
def step(
    visits: Rows, first: I4, count: I4, tags: I4, start: I8, order: I8, g1: int,
    sensed_us: I8, latitude: F8, longitude: F8, sides: I1, fences: Rows, events: Rows, cursor: I8, forever_us: int,
) -> int:  # fmt: skip
    """Run the visits' states over their sides; returns the number of events written.

    cursor: (group, visit, row, place of the visit's first side). Stops early, with group < g1, when fewer than two events would still
    fit: call again with the same cursor and an emptied buffer.
    """
    n = 0
    base = cursor[3]
    g, v0, i0 = cursor[0], cursor[1], cursor[2]
    while g < g1:
        f, c = first[tags[g]], count[tags[g]]
        rows = start[g + 1] - start[g]
        for v in range(v0, c):
            visit = visits[f + v]
            fence = fences[visit["fence"]]
            confirm, dwell = fence["confirm"], fence["dwell_us"]
            known, candidate, candidate_us, many = visit["side"], visit["candidate"], visit["candidate_us"], visit["count"]
            was, la, lo = visit["outside_us"], visit["outside_latitude_deg"], visit["outside_longitude_deg"]
            i = i0
            while i < rows and n + 2 <= len(events):
                side = sides[base + i]
                row = order[start[g] + i]
                i += 1
                if side == AMBIGUOUS:
                    continue
                t = sensed_us[row]
                if side == known:
                    candidate = 0
                    many = 0
                else:
                    if candidate != side:
                        candidate = side
                        candidate_us = t
                        many = 0
                    many += 1
                    if many >= confirm or (dwell >= 0 and t - candidate_us >= dwell):
                        if side == INSIDE:
                            visit["entered_us"] = candidate_us
                            _emit(events, n, f + v, ENTER, candidate_us, candidate_us, forever_us, t)
                            n += 1
                        elif known == INSIDE:
                            _emit(events, n, f + v, EXIT, candidate_us, visit["entered_us"], candidate_us, t)
                            n += 1
                        known = side
                        candidate = 0
                        many = 0
                if side == INSIDE:
                    la = math.nan
                    continue
                here, there = latitude[row], longitude[row]
                if not math.isnan(la) and t - was <= PASS_GAP_US and not _stays_away(fence, la, lo, here, there):
                    kind = _passes(fence, la, lo, here, there)
                    if kind != 0:
                        _emit(events, n, f + v, kind, was, was, t, t)
                        event = events[n]
                        event["latitude0_deg"] = la
                        event["longitude0_deg"] = lo
                        event["latitude_deg"] = here
                        event["longitude_deg"] = there
                        n += 1
                was, la, lo = t, here, there
            visit["side"], visit["candidate"], visit["candidate_us"], visit["count"] = known, candidate, candidate_us, many
            visit["outside_us"], visit["outside_latitude_deg"], visit["outside_longitude_deg"] = was, la, lo
            if i < rows:
                cursor[0], cursor[1], cursor[2], cursor[3] = g, v, i, base
                return n
            i0 = 0
            base += rows
        v0 = 0
        g += 1
    cursor[0], cursor[1], cursor[2], cursor[3] = g, 0, 0, base
    return n
