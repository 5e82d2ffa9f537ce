"""Stops: within 500 m of the first fix for 300 s or more, until the last fix within."""

import math

import numpy as np
from geopy.distance import geodesic
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.rules import stops
from actors.rules.readings import FOREVER_US, Groups
from actors.rules.stops import BEGAN, ENDED
from tests.reference import geo

S = 1_000_000
PORT = (51.95, 4.05)


def beside(fix, bearing, metres):
    at = geodesic(meters=metres).destination(fix, bearing)
    return at.latitude, (at.longitude + 180) % 360 - 180


def columns(fixes):
    """(seconds, fix or None) of each reading as arrays."""
    at = [fix if fix is not None else (math.nan, math.nan) for _, fix in fixes]
    return np.array([int(s * S) for s, _ in fixes], np.int64), np.array([p[0] for p in at], float), np.array([p[1] for p in at], float)


def readable(events):
    """("BEGAN", first, known) and ("ENDED", first, last, known), in seconds."""
    out = []
    for e in events:
        first, last, known = (int(e[name]) / S for name in ("from_us", "to_us", "known_us"))
        if e["kind"] == BEGAN:
            assert (e["at_us"], e["to_us"]) == (e["from_us"], FOREVER_US)
            out.append(("BEGAN", first, known))
        else:
            assert e["at_us"] == e["to_us"]
            out.append(("ENDED", first, last, known))
    return out


def judge(*fixes, until_s=None, from_s=0, **parameters):
    until = None if until_s is None else until_s * S
    return readable(stops.judge(*columns(fixes), stops.fresh(1, from_s * S), until_us=until, **parameters)[1])


NEAR, FAR = beside(PORT, 10, 400), beside(PORT, 10, 5000)


def test_a_stop_lasts_from_its_first_fix_to_the_last_fix_within():
    assert judge((0, PORT), (200, NEAR), (300, PORT), (500, NEAR), (900, FAR)) == [("BEGAN", 0, 300), ("ENDED", 0, 500, 900)]


def test_less_than_300_seconds_is_no_stop():
    assert judge((0, PORT), (299, NEAR), (900, FAR)) == []


def test_500_metres_are_within_and_a_micrometre_more_is_not():
    edge = beside(PORT, 30, 500)
    radius = geodesic(PORT, edge).meters
    assert judge((0, PORT), (300, edge), radius_m=radius) == [("BEGAN", 0, 300)]
    assert judge((0, PORT), (300, edge), radius_m=math.nextafter(radius, 0)) == []


def test_creeping_away_from_the_first_fix_ends_the_stop_though_each_step_is_small():
    creep = [(100 * k, beside(PORT, 90, 120 * k)) for k in range(10)]
    # Within of the first are 0 to 480 m (0 to 400 s); then 600 m begins anew and holds up to 1080 m.
    assert judge(*creep) == [("BEGAN", 0, 300), ("ENDED", 0, 400, 500), ("BEGAN", 500, 800)]


def test_the_fix_that_leaves_is_the_first_of_the_next_attempt():
    assert judge((0, PORT), (10, FAR), (310, FAR)) == [("BEGAN", 10, 310)]


def test_readings_without_a_fix_and_outside_custody_do_nothing():
    assert judge((0, PORT), (150, None), (300, PORT), from_s=0) == [("BEGAN", 0, 300)]
    assert judge((0, PORT), (300, PORT), from_s=1) == []
    assert judge((0, PORT), (300, PORT), until_s=300) == []


def test_the_end_of_custody_ends_a_stop_at_its_last_fix_within():
    assert judge((0, PORT), (400, PORT), until_s=1000) == [("BEGAN", 0, 400), ("ENDED", 0, 400, 1000)]


def test_a_stop_across_the_antimeridian():
    assert judge((0, (0, 179.999)), (300, (0, -179.999))) == [("BEGAN", 0, 300)]


def test_closing_twice_gives_no_second_end():
    state, _ = stops.judge(*columns([(0, PORT), (400, PORT)]), stops.fresh(1, 0))
    assert len(stops.close(state, [0], 1000 * S)) == 1
    assert len(stops.close(state, [0], 1000 * S)) == 0


series = st.lists(
    st.tuples(st.sampled_from([0, 30, 100, 100, 300, 4000]), st.sampled_from([0, 100, 499.9, 500, 500.1, 700, 9000]), st.floats(0, 360)),
    max_size=40,
)
places = st.sampled_from([PORT, (0.0, 180.0), (90.0, 0.0), (-89.999, 77.0)])


def walk(place, moves):
    t, out = 0, []
    for wait, far, bearing in moves:
        t += wait
        out.append((t, beside(place, bearing, far)))
    return out


@settings(max_examples=150)
@given(places, series)
def test_stops_are_the_slow_references(place, moves):
    fixes = walk(place, moves)
    expected = [(a / S, b / S) for a, b in geo.stops([(t * S, *fix) for t, fix in fixes])]
    found = judge(*fixes, until_s=10**7)
    assert [(e[1], e[2]) for e in found if e[0] == "ENDED"] == expected
    assert [e[1] for e in found if e[0] == "BEGAN"] == [a for a, _ in expected]


@settings(max_examples=60)
@given(places, series, st.lists(st.integers(0, 40), max_size=5).map(sorted))
def test_splitting_a_series_over_calls_changes_nothing(place, moves, cuts):
    t, latitude, longitude = columns(walk(place, moves))
    whole, events = stops.judge(t, latitude, longitude, stops.fresh(1, 0))
    state = stops.fresh(1, 0)
    found = []
    for a, b in zip([0, *cuts], [*cuts, 40], strict=True):
        state, more = stops.judge(t[a:b], latitude[a:b], longitude[a:b], state)
        found += readable(more)
    assert found == readable(events)
    assert state.tobytes() == whole.tobytes()


def test_many_tags_in_one_call_each_keep_their_own_stop():
    tags = 300
    state = stops.fresh(tags, 0)
    order = np.arange(2 * tags).reshape(2, tags).T.ravel().copy()  # all first fixes, then all second fixes
    groups = Groups(np.arange(tags, dtype=np.int32), np.arange(tags + 1) * 2, order)
    t = np.repeat([0, 400 * S], tags)
    latitude, longitude = np.tile(np.linspace(-80, 80, tags), 2), np.zeros(2 * tags)
    events = stops.advance(state, np.arange(tags, dtype=np.int32), np.ones(tags, np.int32), groups, t, latitude, longitude)
    assert events["stop"].tolist() == list(range(tags))
    assert set(events["kind"]) == {BEGAN}
    assert np.array_equal(events["latitude_deg"], latitude[:tags])
    ended = stops.close(state, np.arange(tags), 500 * S)
    assert len(ended) == tags
    assert set(ended["kind"]) == {ENDED}
    assert set(ended["fixes"]) == {2}
