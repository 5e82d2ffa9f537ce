"""Route deviation: off route after staying beyond the tolerance for a time, back on within half of it."""

import math

import numpy as np
import pytest
from geopy.distance import geodesic
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from actors.rules import route
from actors.rules.errors import InvalidArgument
from actors.rules.readings import FOREVER_US, Groups
from actors.rules.route import BACK_ON_ROUTE, OFF_ROUTE, Route, RouteTable
from tests.reference import geo

MIN = 60_000_000
WAY = ((52.0, 4.0), (52.0, 5.0), (52.5, 5.5))


def beside(fix, bearing, metres):
    at = geodesic(meters=metres).destination(fix, bearing)
    return at.latitude, (at.longitude + 180) % 360 - 180


def off(metres, part=0.5):
    """A fix this far north of the first leg."""
    middle = geo.along(WAY[0], WAY[1], part)
    return beside(middle, geo.EARTH.Inverse(*middle, *WAY[1])["azi1"] - 90, metres)


def columns(fixes):
    at = [fix if fix is not None else (math.nan, math.nan) for _, fix in fixes]
    return np.array([int(m * MIN) for m, _ in fixes], np.int64), np.array([p[0] for p in at], float), np.array([p[1] for p in at], float)


def readable(events):
    """("OFF", at, known) and ("BACK", left, at), in minutes."""
    out = []
    for e in events:
        if e["kind"] == OFF_ROUTE:
            assert (e["at_us"], e["to_us"]) == (e["from_us"], FOREVER_US)
            out.append(("OFF", e["at_us"] / MIN, e["known_us"] / MIN))
        else:
            assert e["kind"] == BACK_ON_ROUTE
            assert e["at_us"] == e["to_us"] == e["known_us"]
            out.append(("BACK", e["from_us"] / MIN, e["at_us"] / MIN))
    return out


def run(*fixes, points=WAY, tolerance_m=1000.0, hold_min=10, until_min=None, from_min=0):
    table = RouteTable()
    row = table.add(Route(points, tolerance_m, int(hold_min * MIN)))
    until = None if until_min is None else until_min * MIN
    return route.judge(*columns(fixes), route.fresh([row], from_min * MIN), table, until_us=until)[1]


def judge(*fixes, **parameters):
    return readable(run(*fixes, **parameters))


ON, HALF, TOLERATED, BEYOND = off(100), off(500), off(900), off(1500)


def test_off_route_is_dated_at_the_first_fix_beyond_and_known_after_the_hold():
    assert judge((0, ON), (5, BEYOND), (10, BEYOND), (15, BEYOND)) == [("OFF", 5, 15)]


def test_a_short_detour_is_not_off_route():
    assert judge((0, BEYOND), (9, BEYOND), (10, TOLERATED), (19, BEYOND)) == []


def test_without_a_hold_the_first_fix_beyond_is_off_route():
    assert judge((3, BEYOND), hold_min=0) == [("OFF", 3, 3)]


def test_back_on_only_within_half_the_tolerance():
    assert judge((0, BEYOND), (10, BEYOND), (20, TOLERATED), (30, off(501)), (40, off(499))) == [("OFF", 0, 10), ("BACK", 0, 40)]


def test_the_tolerance_itself_is_tolerated_by_the_geodesic():
    fix = off(1000)
    exact = geo.line_distance(fix, list(WAY))
    assert judge((0, fix), hold_min=0, tolerance_m=exact + 1e-4) == []
    assert judge((0, fix), hold_min=0, tolerance_m=exact - 1e-4) == [("OFF", 0, 0)]


def test_beyond_the_ends_of_the_route_the_distance_is_to_its_ends():
    assert judge((0, beside(WAY[0], 270, 1001)), hold_min=0) == [("OFF", 0, 0)]
    assert judge((0, beside(WAY[0], 270, 999)), hold_min=0) == []


def test_a_leg_of_an_ocean_route_is_the_geodesic():
    leg = ((52.0, 4.0), (49.0, -123.0))
    assert judge((0, geo.along(*leg, 0.5)), points=leg, tolerance_m=1.0, hold_min=0) == []


def test_a_route_across_the_antimeridian():
    leg = ((10.0, 179.0), (10.0, -179.0))
    assert judge((0, (10.0, 180.0)), (1, (10.0, -179.5)), (2, (10.0, 178.9)), points=leg, hold_min=0) == [("OFF", 2, 2)]


def test_the_largest_deviation_and_its_time_are_kept():
    (_, back) = run((0, off(1500)), (10, off(4000)), (20, off(700)), (30, ON))
    assert back["extreme_m"] == pytest.approx(4000, rel=3e-5)
    assert back["extreme_us"] == 10 * MIN


def test_the_end_of_custody_ends_being_off_route():
    assert judge((0, BEYOND), (10, BEYOND), until_min=60) == [("OFF", 0, 10), ("BACK", 0, 60)]


def test_readings_without_a_fix_and_outside_custody_do_nothing():
    assert judge((0, BEYOND), (5, None), (10, BEYOND)) == [("OFF", 0, 10)]
    assert judge((0, BEYOND), (10, BEYOND), from_min=1) == []
    assert judge((0, BEYOND), (10, BEYOND), until_min=10) == []


series = st.lists(
    st.tuples(st.sampled_from([0, 1, 5, 10, 60]), st.sampled_from([0, 100, 499, 501, 700, 999, 1001, 3000]), st.floats(0, 1)), max_size=25
)


def walk(moves):
    t, out = 0, []
    for wait, far, part in moves:
        t += wait
        out.append((t, off(far, part)))
    return out


@settings(max_examples=40)
@given(series, st.sampled_from([0, 5, 10, 30]), st.booleans())
def test_deviations_are_the_slow_references(moves, hold, closed):
    fixes = walk(moves)
    until = 10_000 if closed else None
    expected = geo.off_route([(t * MIN, *fix) for t, fix in fixes], list(WAY), 1000.0, hold * MIN, until and until * MIN)
    found = run(*fixes, hold_min=hold, until_min=until)
    assert [e["at_us"] for e in found if e["kind"] == OFF_ROUTE] == [e[0] for e in expected]
    back = [e for e in found if e["kind"] == BACK_ON_ROUTE]
    assert [(e["from_us"], e["to_us"]) for e in back] == [e[:2] for e in expected if e[1] is not None]
    for event, (_, _, largest) in zip(back, expected, strict=False):
        assert event["extreme_m"] == pytest.approx(largest, rel=3e-5, abs=1)


@settings(max_examples=60)
@given(series, st.sampled_from([0, 5, 30]), st.lists(st.integers(0, 25), max_size=5).map(sorted))
def test_splitting_a_series_over_calls_changes_nothing(moves, hold, cuts):
    table = RouteTable()
    row = table.add(Route(WAY, 1000.0, hold * MIN))
    t, latitude, longitude = columns(walk(moves))
    whole, events = route.judge(t, latitude, longitude, route.fresh([row], 0), table)
    state, found = route.fresh([row], 0), []
    for a, b in zip([0, *cuts], [*cuts, 25], strict=True):
        state, more = route.judge(t[a:b], latitude[a:b], longitude[a:b], state, table)
        found += readable(more)
    assert found == readable(events)
    assert state.tobytes() == whole.tobytes()


@settings(max_examples=40)
@given(st.tuples(st.floats(-90, 90), st.floats(-180, 180)), st.floats(0, 360), st.floats(3, 6.5), st.floats(-4, 0.5), st.floats(0, 360))
def test_zones_are_the_geodesics_anywhere_on_the_globe(start, bearing, length, far, turn):
    points = (start, beside(start, bearing, 10**length))
    tolerance = 1000.0
    fix = beside(geo.along(*points, 0.3), turn, tolerance * 10**far)
    truth = geo.line_distance(fix, list(points))
    assume(min(abs(truth - tolerance), abs(truth - tolerance / 2)) > 1e-3)
    table = RouteTable()
    zone, _ = table.zones(table.add(Route(points, tolerance)), np.array([fix[0]]), np.array([fix[1]]))
    assert zone[0] == (route.BEYOND if truth > tolerance else route.TOLERATED if truth > tolerance / 2 else route.NEAR)


def test_many_tags_on_two_routes_in_one_call_fill_more_than_one_buffer():
    table = RouteTable()
    rows = [table.add(Route(WAY, 1000.0)), table.add(Route(WAY[:2], 50_000.0))]
    tags = 600
    states = np.concatenate([route.fresh(rows, 0) for _ in range(tags)])
    groups = Groups(np.arange(tags, dtype=np.int32), np.arange(tags + 1), np.arange(tags))
    first, count = np.arange(tags, dtype=np.int32) * 2, np.full(tags, 2, np.int32)
    at = np.array([BEYOND] * tags)
    events = route.advance(states, first, count, groups, np.arange(tags), at[:, 0], at[:, 1], table)
    assert events["deviation"].tolist() == list(range(0, 2 * tags, 2))


@pytest.mark.parametrize(
    ("points", "tolerance", "hold", "field"),
    [
        ((WAY[0],), 10.0, 0, "points"),
        ((WAY[0], (0.0, 181.0)), 10.0, 0, "points"),
        (WAY, 0.0, 0, "tolerance_m"),
        (WAY, math.nan, 0, "tolerance_m"),
        (WAY, 10.0, -1, "hold_us"),
    ],
)
def test_a_route_that_makes_no_sense_is_refused_naming_the_field(points, tolerance, hold, field):
    with pytest.raises(InvalidArgument) as refused:
        Route(points, tolerance, hold)
    assert refused.value.field == field


def test_equal_routes_share_a_row_and_removed_rows_are_used_again():
    table = RouteTable()
    one, two = Route(WAY, 10.0), Route(WAY, 20.0)
    assert [table.add(one), table.add(two), table.add(one)] == [0, 1, 0]
    table.remove(0)
    assert len(table) == 1
    assert table.add(Route(WAY, 30.0)) == 0
