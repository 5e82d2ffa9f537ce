"""Distances: every bound holds against geopy's geodesic, over the whole globe, and known geodesics come out right."""

import math

import numpy as np
import pytest
from geopy.distance import geodesic
from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors.rules import geodesy
from actors.rules.geopath import Path
from tests.reference import geo

latitudes = st.one_of(st.floats(-90, 90), st.sampled_from([-90.0, 90.0, 0.0, 89.9999999, -89.9999]))
longitudes = st.one_of(st.floats(-180, 180), st.sampled_from([-180.0, 180.0, 179.9999999, 0.0]))
fixes = st.tuples(latitudes, longitudes)
# How far the second fix lies from the first: from a micrometre to all round the Earth.
distances = st.floats(-6, 7.3).map(lambda power: 10**power)


def beside(fix, bearing, metres):
    at = geodesic(meters=metres).destination(fix, bearing)
    return at.latitude, (at.longitude + 180) % 360 - 180


@pytest.mark.parametrize(
    ("a", "b", "metres"),
    [
        ((0, 0), (0, 1), 111319.491),
        ((0, 0), (90, 0), 10001965.729),
        ((40.6, -73.8), (51.6, -0.5), 5551759.400),  # New York to London, GeographicLib's own example
        ((0, 0), (0.5, 179.5), 19936288.579),  # nearly antipodal: Vincenty's method fails here
        ((0, 179.9), (0, -179.9), 22263.898),
        ((-90, 0), (90, 77), 20003931.459),
    ],
)
def test_known_geodesics(a, b, metres):
    assert geodesy.distance_m(*a, *b) == pytest.approx(metres, abs=0.001)
    low, high = geodesy.distance_bounds_m(np.array([float(a[0])]), np.array([float(a[1])]), *map(float, b))
    assert low[0] <= metres + 0.001
    assert high[0] >= metres - 0.001


def check_bounds(a, b):
    truth = geodesic(a, b).meters
    low, high = geodesy.bounds(*geodesy.normal(*a), *geodesy.normal(*b))
    assert low <= truth <= high
    low, high = geodesy.cheap_bounds(*a, *b)
    assert low <= truth <= high


@settings(max_examples=500, deadline=None)
@given(fixes, fixes)
@example((0.0, 0.0), (0.0, 180.0))
@example((30.0, 10.0), (-30.0, -170.0))
@example((90.0, 0.0), (-90.0, 0.0))
@example((0.0, 0.0), (0.0, 179.4))
@example((0.0, 0.0), (1.0, 0.0))  # the meridian at the equator: the shortest degree
@example((89.0, 0.0), (90.0, 0.0))  # at the pole: the longest
def test_bounds_hold_between_any_two_fixes(a, b):
    check_bounds(a, b)


@settings(max_examples=500, deadline=None)
@given(fixes, st.floats(0, 360), distances)
def test_bounds_hold_at_every_distance(a, bearing, metres):
    check_bounds(a, beside(a, bearing, metres))


@settings(max_examples=200, deadline=None)
@given(fixes, st.floats(0, 360), st.floats(1, 10_000))
def test_bounds_leave_a_millimetre_open_within_ten_kilometres(a, bearing, metres):
    b = beside(a, bearing, metres)
    low, high = geodesy.bounds(*geodesy.normal(*a), *geodesy.normal(*b))
    assert high - low < 0.0011


@settings(max_examples=300, deadline=None)
@given(fixes, fixes)
def test_haversine_is_off_by_no_more_than_the_curvatures_ratio_allows(a, b):
    truth = geodesic(a, b).meters
    theta = geodesy.angle(*geodesy.normal(*a), *geodesy.normal(*b))
    assert geodesy.LEAST_RADIUS_M * theta - 1e-6 <= truth <= geodesy.GREATEST_RADIUS_M * theta + 1e-6


def test_haversine_off_by_half_a_percent_would_decide_wrongly():
    # 1000 m on the mean sphere are 995.2 m of meridian at the equator.
    theta = geodesy.angle(*geodesy.normal(0.0, 0.0), *geodesy.normal(0.009, 0.0))
    assert abs(theta * 6371008.8 / geodesic((0, 0), (0.009, 0)).meters - 1) > 0.0055


@settings(max_examples=100, deadline=None)
@given(fixes, st.floats(0, 360), st.floats(1, 3e6), fixes | st.none(), st.floats(0, 360), distances)
def test_distance_to_a_segment_is_that_of_a_slow_search(a, bearing, length, anywhere, turn, metres):
    b = beside(a, bearing, length)
    p = beside(geo.along(a, b, 0.4), turn, min(metres, 3e6))
    assert geodesy.segment_distance_m(*p, a, b) == pytest.approx(geo.segment_distance(p, a, b), abs=1e-3)


@settings(max_examples=200, deadline=None)
@given(fixes, st.floats(0, 360), st.floats(10, 5e6), st.floats(0, 1), st.floats(0, 360), distances)
@example((0.0, 0.0), 45.0, 5e6, 0.5, 0.0, 1e-6)
@example((45.0, 0.0), 90.0, 5e6, 0.5, 0.0, 1e-6)
@example((0.0, 0.0), 45.0, 10.0, 0.5, 135.0, 10.0)  # where angles on the sphere are most wrong
@example((89.5, 10.0), 10.0, 2e5, 0.3, 120.0, 10.0)
def test_bounds_of_the_distance_to_a_path_hold(a, bearing, length, part, turn, metres):
    b = beside(a, bearing, length)
    p = beside(geo.along(a, b, part), turn, min(metres, 5e6))
    path = Path.of(((a, b),))
    low, high, middle = (float(x[0]) for x in path.measure_m(np.array([p[0]]), np.array([p[1]])))
    truth = geodesy.segment_distance_m(*p, a, b)
    assert low - 2e-6 <= truth <= high + 2e-6
    assert path.exact_m(*p) == pytest.approx(truth, abs=1e-5)
    if truth < 90_000:
        assert high - low < 3 * path.delta_m + 6e-5 * truth + 1e-5
        assert middle == pytest.approx(truth, abs=path.delta_m + 3e-5 * truth + 1e-5)


@settings(max_examples=200, deadline=None)
@given(fixes, st.floats(0, 360), st.floats(100, 50_000), st.floats(0, 1))
@example((45.0, 0.0), 90.0, 50_000.0, 0.5)
def test_a_geodesic_stays_within_delta_of_its_great_circle_arc(a, bearing, length, part):
    b = beside(a, bearing, length)
    path = Path.of(((a, b),))
    p = geo.along(a, b, part)
    low, _, _ = path.measure_m(np.array([p[0]]), np.array([p[1]]))
    assert low[0] == 0.0


def test_an_edge_is_the_geodesic_not_the_straight_line_on_the_map():
    # Amsterdam to Vancouver: the geodesic runs over Greenland, 27 degrees north of the map's line.
    path = Path.of((((52.0, 4.0), (49.0, -123.0)),))
    low, _, _ = path.measure_m(np.array([73.3, 50.5]), np.array([-64.0, -60.0]))
    assert low[0] < 500_000
    assert low[1] > 2_000_000


def test_nan_gives_nan():
    low, high = geodesy.distance_bounds_m(np.array([math.nan]), np.array([0.0]), 0.0, 0.0)
    assert math.isnan(low[0]) or math.isnan(high[0])
