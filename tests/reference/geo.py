"""Geofences, stops and route deviation, slowly and plainly: one fix at a time, every distance by the geodesic.

A fix is (latitude_deg, longitude_deg). A fence is a dict: {"kind": "circle", "center", "radius"}, {"kind": "polygon", "rings"} or
{"kind": "corridor", "points", "half_width"}. Nearest points are found by narrowing down, not by formulas.
"""

import itertools
import math

from geographiclib.geodesic import Geodesic
from geopy.distance import geodesic

HOUR_US = 3_600_000_000
EARTH = Geodesic.WGS84


def distance(p, q):
    return geodesic(p, q).meters


def along(a, b, part):
    """The point at part (0 to 1) of the geodesic from a to b."""
    line = EARTH.InverseLine(*a, *b)
    at = line.Position(line.s13 * part)
    return at["lat2"], at["lon2"]


def segment_distance(p, a, b):
    """Golden-section search on the segment."""
    line = EARTH.InverseLine(*a, *b)

    def far(s):
        at = line.Position(s)
        return EARTH.Inverse(at["lat2"], at["lon2"], *p)["s12"]

    golden = (math.sqrt(5) - 1) / 2
    low, high = 0.0, line.s13
    one, two = high - golden * (high - low), low + golden * (high - low)
    d_one, d_two = far(one), far(two)
    while high - low > 1e-3:
        if d_one < d_two:
            high, two, d_two = two, one, d_one
            one = high - golden * (high - low)
            d_one = far(one)
        else:
            low, one, d_one = one, two, d_two
            two = low + golden * (high - low)
            d_two = far(two)
    return min(far((low + high) / 2), distance(p, a), distance(p, b))


def edges(points, closed=False):
    ends = [*points[1:], points[0]] if closed else points[1:]
    return list(zip(points, ends, strict=False))


def line_distance(p, points, closed=False):
    return min(segment_distance(p, a, b) for a, b in edges(points, closed))


def winds_round(p, ring, steps=40):
    """Turn from p to follow the ring round in small steps; a full turn left over means that p is enclosed."""
    turned = 0.0
    for a, b in edges(ring, closed=True):
        directions = [EARTH.Inverse(*p, *along(a, b, k / steps))["azi1"] for k in range(steps + 1)]
        for before, after in itertools.pairwise(directions):
            turned += (after - before + 180) % 360 - 180
    return round(turned / 360) % 2 == 1


def inside_and_boundary(p, fence):
    """Whether p is inside, and how far from the boundary."""
    if fence["kind"] == "circle":
        d = distance(p, fence["center"])
        return d <= fence["radius"], abs(d - fence["radius"])
    if fence["kind"] == "corridor":
        d = line_distance(p, fence["points"])
        return d <= fence["half_width"], abs(d - fence["half_width"])
    boundary = min(line_distance(p, ring, closed=True) for ring in fence["rings"])
    outer, *holes = fence["rings"]
    return winds_round(p, outer) and not any(winds_round(p, hole) for hole in holes), boundary


def side(p, accuracy, fence):
    """+1 inside, -1 outside, 0 ambiguous."""
    inside, boundary = inside_and_boundary(p, fence)
    if boundary < (accuracy or 0.0):
        return 0
    return 1 if inside else -1


def meets(a, b, fence, least_m=0.01):
    """Whether the geodesic a-b meets the fence; None where it comes within least_m of it but not surely in.

    No point of a stretch is nearer to the fence than its middle is, less half the stretch: so halve until that decides.
    """
    if fence["kind"] == "circle":
        gap = segment_distance(fence["center"], a, b) - fence["radius"]
        return None if abs(gap) < least_m else gap <= 0
    line = EARTH.InverseLine(*a, *b)
    stretches = [(0.0, line.s13)]
    unclear = False
    while stretches:
        low, high = stretches.pop()
        at = line.Position((low + high) / 2)
        inside, boundary = inside_and_boundary((at["lat2"], at["lon2"]), fence)
        if inside and boundary > least_m:
            return True
        if not inside and boundary > (high - low) / 2:
            continue
        if high - low < least_m:
            unclear = True
            continue
        middle = (low + high) / 2
        stretches += [(low, middle), (middle, high)]
    return None if unclear else False


def visits(fixes, fence, confirm=2, dwell_us=None, from_us=0, until_us=None, side_of=side, meeting=meets):
    """Events of one tag at one fence: ("ENTER", at), ("EXIT", entered, at), ("PASSED_THROUGH", first, second), in a sorted list.

    fixes: (sensed_us, latitude, longitude, accuracy or None), in order. until_us: custody's end, None while it goes on.
    """
    clear = []
    for t, latitude, longitude, accuracy in fixes:
        if t >= from_us and (until_us is None or t < until_us):
            where = side_of((latitude, longitude), accuracy, fence)
            if where != 0:
                clear.append((t, where, (latitude, longitude)))
    events = []
    confirmed, entered, run, last = 0, None, [], 0
    for t, where, _ in clear:
        if where == confirmed:
            run = []
            continue
        run = [*run, t] if run and last == where else [t]
        last = where
        if len(run) >= confirm or (dwell_us is not None and t - run[0] >= dwell_us):
            if where == 1:
                entered = run[0]
                events.append(("ENTER", entered))
            elif confirmed == 1:
                events.append(("EXIT", entered, run[0]))
            confirmed, run = where, []
    if until_us is not None and confirmed == 1:
        events.append(("EXIT", entered, until_us))
    for (t, where, p), (u, there, q) in itertools.pairwise(clear):
        if where == there == -1 and u - t <= HOUR_US and p != q and meeting(p, q, fence):
            events.append(("PASSED_THROUGH", t, u))
    return sorted(events)


def stops(fixes, radius=500.0, least_us=300_000_000):
    """(first_us, last_us) of every stop; the last one may still go on."""
    found = []
    i = 0
    while i < len(fixes):
        j = i
        while j + 1 < len(fixes) and distance(fixes[i][1:3], fixes[j + 1][1:3]) <= radius:
            j += 1
        if fixes[j][0] - fixes[i][0] >= least_us:
            found.append((fixes[i][0], fixes[j][0]))
        i = j + 1
    return found


def off_route(fixes, points, tolerance, hold_us, until_us=None):
    """(from_us, to_us or None while it goes on, largest deviation) of every time off route."""
    found = []
    far = [(fix[0], line_distance(fix[1:3], points)) for fix in fixes]
    i = 0
    while i < len(far):
        j = i
        while j < len(far) and far[j][1] > tolerance and far[j][0] - far[i][0] < hold_us:
            j += 1
        if j == len(far) or far[j][1] <= tolerance:
            i = j + 1 if j > i or far[i][1] <= tolerance else i + 1
            continue
        back = j
        while back < len(far) and far[back][1] > tolerance / 2:
            back += 1
        end = far[back][0] if back < len(far) else until_us
        found.append((far[i][0], end, max(d for _, d in far[i : back + 1])))
        i = back + 1
    return found
