"""What the tests of geofences share: fences, fixes and how events are read."""

import math

import numpy as np
from geopy.distance import geodesic
from hypothesis import strategies as st

from actors.rules import geofence
from actors.rules.geofence import ENTER, EXIT, PASSED_THROUGH, Fence, FenceTable
from actors.rules.readings import FOREVER_US

MIN = 60_000_000
DEPOT = (52.0, 4.0)
NAMES = {ENTER: "ENTER", EXIT: "EXIT", PASSED_THROUGH: "PASSED_THROUGH"}


def circle(center=DEPOT, radius=1000.0, **rule):
    return Fence.of("fence", "circle", {"center": center, "radius_m": radius}, **rule)


def polygon(*rings, **rule):
    return Fence.of("fence", "polygon", {"rings": rings}, **rule)


def corridor(*points, half_width=500.0, **rule):
    return Fence.of("fence", "corridor", {"points": points, "half_width_m": half_width}, **rule)


def as_reference(fence):
    if fence.kind == "circle":
        return {"kind": "circle", "center": fence.lines[0][0], "radius": fence.size_m}
    if fence.kind == "polygon":
        return {"kind": "polygon", "rings": [list(ring) for ring in fence.lines]}
    return {"kind": "corridor", "points": list(fence.lines[0]), "half_width": fence.size_m}


def beside(fix, bearing, metres):
    at = geodesic(meters=metres).destination(fix, bearing)
    return at.latitude, (at.longitude + 180) % 360 - 180


def side(fence, fix, accuracy=math.nan):
    table = FenceTable()
    row = table.add(fence)
    columns = [np.array([x], np.float64) for x in (*fix, accuracy)]
    return int(geofence.sides(np.array([row], np.int32), *columns, table)[0])


def columns(fixes):
    """(minutes, (latitude, longitude) or None, accuracy) of each fix as arrays."""
    t = np.array([int(minutes * MIN) for minutes, *_ in fixes], np.int64)
    at = [fix if fix is not None else (math.nan, math.nan) for _, fix, *_ in fixes]
    accuracy = [rest[0] if rest and rest[0] is not None else math.nan for _, _, *rest in fixes]
    return t, np.array([p[0] for p in at], float), np.array([p[1] for p in at], float), np.array(accuracy, float)


def events(fence, *fixes, from_min=0, until_min=None):
    """What the fixes amount to, in minutes: ("ENTER", at), ("EXIT", entered, at), ("PASSED_THROUGH", first, second)."""
    table = FenceTable()
    until = None if until_min is None else until_min * MIN
    state = geofence.fresh([table.add(fence)], from_min * MIN)
    _, found = geofence.judge(*columns(fixes), state, table, until_us=until)
    return readable(found, MIN)


def readable(found, unit=1):
    out = []
    for e in found:
        times = (int(e["from_us"]), int(e["to_us"]))
        assert int(e["at_us"]) == times[1 if e["kind"] == EXIT else 0]
        out.append((NAMES[int(e["kind"])], *(x / unit if unit > 1 else x for x in times if x != FOREVER_US)))
    return sorted(out)


IN, OUT, FAR_EAST, FAR_WEST = DEPOT, beside(DEPOT, 0, 3000), beside(DEPOT, 90, 3000), beside(DEPOT, 270, 3000)

SQUARE = [(51.9, 3.9), (51.9, 4.1), (52.1, 4.1), (52.1, 3.9)]
HOLE = [(51.98, 3.98), (51.98, 4.02), (52.02, 4.02), (52.02, 3.98)]


def shape(kind):
    """A polygon (a star, so that its edges never cross) or a corridor anywhere on the globe."""

    def build(center, size, bearings, reaches):
        turn = 360 / len(reaches)
        points = [beside(center, (i + b) * turn, size * r) for i, (b, r) in enumerate(zip(bearings, reaches, strict=True))]
        return polygon(points) if kind == "polygon" else corridor(*points, half_width=size / 5)

    def sized(n):
        return st.builds(
            build,
            st.tuples(st.floats(-90, 90), st.floats(-180, 180)),
            st.floats(2, 6).map(lambda power: 10**power),
            st.lists(st.floats(0, 0.7), min_size=n, max_size=n),
            st.lists(st.floats(0.3, 1), min_size=n, max_size=n),
        )

    return st.integers(3, 6).flatmap(sized)
