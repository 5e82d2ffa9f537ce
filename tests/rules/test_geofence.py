"""Geofences as shapes: which side of them a fix is on, everywhere on the globe, and what is refused."""

import itertools
import math

import pytest
from geopy.distance import geodesic
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from actors.rules import geofence
from actors.rules.errors import InvalidArgument
from actors.rules.geofence import Fence, FenceTable
from actors.rules.readings import FOREVER_US
from tests.reference import geo
from tests.rules.fences import (
    DEPOT,
    HOLE,
    SQUARE,
    as_reference,
    beside,
    circle,
    corridor,
    polygon,
    shape,
    side,
)

# --- sides: circle -------------------------------------------------------------------------------------------------------------


def test_inside_a_circle_is_distance_at_most_the_radius_by_the_geodesic():
    near = beside(DEPOT, 30, 1000)
    exact = geodesic(DEPOT, near).meters
    assert side(circle(radius=exact), near) == 1
    assert side(circle(radius=math.nextafter(exact, 0)), near) == -1


def test_haversine_alone_would_put_this_fix_on_the_wrong_side():
    # On the mean sphere 0.009 degrees of meridian at the equator are 1000.8 m, on the ellipsoid 995.2 m.
    assert side(circle(center=(0, 0), radius=998), (0.009, 0)) == 1


def test_a_fix_nearer_to_the_boundary_than_its_accuracy_is_ambiguous():
    exact = geodesic(DEPOT, near := beside(DEPOT, 30, 900)).meters
    gap = 1000 - exact
    assert side(circle(), near, accuracy=gap) == 1
    assert side(circle(), near, accuracy=gap + 1e-7) == 0
    out = beside(DEPOT, 30, 1100)
    gap = geodesic(DEPOT, out).meters - 1000
    assert side(circle(), out, accuracy=gap - 1e-7) == -1
    assert side(circle(), out, accuracy=gap + 1e-7) == 0


def test_absent_accuracy_is_zero():
    assert side(circle(), beside(DEPOT, 30, 1000.001)) == -1


def test_accuracy_worse_than_the_fence_makes_every_near_fix_ambiguous():
    assert side(circle(radius=100), DEPOT, accuracy=150) == 0


@settings(max_examples=300)
@given(
    st.tuples(st.floats(-90, 90), st.floats(-180, 180)),
    st.floats(1, 6.9).map(lambda power: 10**power),
    st.floats(0, 360),
    st.sampled_from([-1e-3, -1e-9, 0.0, 1e-9, 1e-3]) | st.floats(-1, 1.5),
    st.sampled_from([None, 0.0, 10.0, 200.0]),
)
@example((90.0, 0.0), 1e4, 0.0, 0.0, None)
@example((0.0, 180.0), 5e6, 90.0, 1e-9, None)
def test_circle_sides_are_the_geodesics_everywhere_on_the_globe(center, radius, bearing, off, accuracy):
    fix = beside(center, bearing, radius * (1 + off))
    expected = geo.side(fix, accuracy, {"center": center, "radius": radius, "kind": "circle"})
    assert side(circle(center, radius), fix, math.nan if accuracy is None else accuracy) == expected


# --- sides: polygon and corridor -----------------------------------------------------------------------------------------------


def test_a_hole_is_outside_and_its_edge_inside():
    fence = polygon(SQUARE, HOLE)
    assert side(fence, (52.0, 4.0)) == -1
    assert side(fence, (52.05, 4.0)) == 1
    assert side(fence, (51.98, 3.98)) == 1
    assert side(fence, (51.9, 3.9)) == 1


@pytest.mark.parametrize("ring", [SQUARE, SQUARE[::-1], [*SQUARE, SQUARE[0]], SQUARE[2:] + SQUARE[:2]])
def test_neither_the_order_of_the_corners_nor_a_repeated_first_one_matters(ring):
    assert side(polygon(ring), (52.0, 4.0)) == 1
    assert side(polygon(ring), (52.0, 4.2)) == -1
    assert side(polygon(ring), (-52.0, -176.0)) == -1


def test_a_polygon_across_the_antimeridian():
    fiji = polygon([(-20, 177), (-20, -178), (-15, -178), (-15, 177)])
    assert [side(fiji, (-17, lon)) for lon in (176.5, 177.5, 180, -180, -179, -177.5, 0)] == [-1, 1, 1, 1, 1, -1, -1]


@pytest.mark.parametrize("south", [1, -1])
def test_a_ring_round_a_pole_encloses_that_pole(south):
    ring = [(south * 70, lon) for lon in (0, 60, 120, 180, -120, -60)]
    assert side(polygon(ring), (south * 90, 0)) == 1
    assert side(polygon(ring), (south * 80, 33)) == 1
    assert side(polygon(ring), (south * 60, 33)) == -1
    assert side(polygon(ring), (south * -90, 0)) == -1


def test_a_pole_on_the_edge_is_inside():
    assert side(polygon([(80, 0), (90, 0), (80, 90)]), (90, 45)) == 1


def test_polygon_edges_are_geodesics():
    # Between (60, -30) and (60, 30) the geodesic rises to 63.4 degrees.
    fence = polygon([(50, -30), (60, -30), (60, 30), (50, 30)])
    assert side(fence, (63.0, 0)) == 1
    assert side(fence, (64.0, 0)) == -1


def test_accuracy_counts_to_the_nearest_edge_of_any_ring():
    fence = polygon(SQUARE, HOLE)
    in_hole = (52.0, 4.0)
    gap = min(geo.line_distance(in_hole, ring, closed=True) for ring in (SQUARE, HOLE))
    assert side(fence, in_hole, accuracy=gap - 0.01) == -1
    assert side(fence, in_hole, accuracy=gap + 0.01) == 0


def test_a_corridor_is_within_half_width_of_its_nearest_segment_ends_rounded():
    road = corridor((52.0, 4.0), (52.0, 5.0), (52.5, 5.0))
    a, b = (52.0, 4.0), (52.0, 5.0)
    middle = geo.along(a, b, 0.5)
    bearing = geo.EARTH.Inverse(*middle, *b)["azi1"]
    assert side(road, beside(middle, bearing + 90, 499.99)) == 1
    assert side(road, beside(middle, bearing + 90, 500.01)) == -1
    assert side(road, beside(a, 270, 499.99)) == 1
    assert side(road, beside(a, 270, 500.01)) == -1
    assert side(road, beside(middle, bearing - 90, 450), accuracy=49.9) == 1
    assert side(road, beside(middle, bearing - 90, 450), accuracy=50.1) == 0


@settings(max_examples=60)
@given(
    shape("polygon") | shape("corridor"),
    st.integers(0, 5),
    st.floats(0, 1),
    st.floats(0, 360),
    st.sampled_from([1e-8, 1e-5, 1e-3, 0.1, 0.2, 0.5]),
    st.sampled_from([None, 5.0, 2000.0]),
)
def test_polygon_and_corridor_sides_are_the_slow_references(fence, edge, part, bearing, off, accuracy):
    points = list(fence.lines[0])
    a, b = geo.edges(points, closed=fence.kind == "polygon")[edge % (len(points) - 1)]
    fix = beside(geo.along(a, b, part), bearing, off * geodesic(a, b).meters)
    inside, boundary = geo.inside_and_boundary(fix, as_reference(fence))
    # The slow search is good to a tenth of a millimetre.
    assume(boundary > 1e-3)
    assume(abs(boundary - (accuracy or 0)) > 1e-3)
    expected = 0 if boundary < (accuracy or 0) else 1 if inside else -1
    assert side(fence, fix, math.nan if accuracy is None else accuracy) == expected


# --- the table and the fence ---------------------------------------------------------------------------------------------------


def test_equal_fences_share_a_row_and_removed_rows_are_used_again():
    table = FenceTable()
    rows = [table.add(circle(radius=r)) for r in range(1, 40)]
    assert rows == list(range(39))
    assert table.add(circle(radius=7)) == 6
    table.remove(6)
    assert len(table) == 38
    assert table.add(polygon(SQUARE)) == 6


def test_a_visit_row_takes_at_most_96_bytes():
    assert geofence.VISIT.itemsize <= 96


@pytest.mark.parametrize("fence", [circle(dwell_us=5), polygon(SQUARE, HOLE, confirm=3), corridor((0, 0), (1, 1))])
def test_a_fence_goes_through_plain_data_unchanged(fence):
    assert Fence.of(fence.fence_id, fence.kind, fence.geometry(), fence.confirm, fence.dwell_us) == fence


@pytest.mark.parametrize(
    ("kind", "geometry", "field"),
    [
        ("sphere", {"points": []}, "kind"),
        ("circle", {"center": DEPOT, "radius_m": 0}, "radius_m"),
        ("circle", {"center": DEPOT, "radius_m": math.nan}, "radius_m"),
        ("circle", {"center": (91, 0), "radius_m": 1}, "geometry"),
        ("circle", {"center": (math.nan, 0), "radius_m": 1}, "geometry"),
        ("circle", {"radius_m": 1}, "geometry"),
        ("polygon", {"rings": [SQUARE[:2]]}, "geometry"),
        ("polygon", {"rings": []}, "geometry"),
        ("corridor", {"points": [DEPOT, DEPOT], "half_width_m": 10}, "geometry"),
        ("corridor", {"points": [DEPOT, "x"], "half_width_m": 10}, "geometry"),
    ],
)
def test_a_fence_that_makes_no_sense_is_refused_naming_the_field(kind, geometry, field):
    with pytest.raises(InvalidArgument) as refused:
        Fence.of("fence", kind, geometry)
    assert refused.value.field == field


@pytest.mark.parametrize("ring", [[(0, 0), (0, 120), (0, -120)], [(0, 0), (1, 179), (-1, 90)]])
def test_rings_and_edges_too_large_to_have_one_meaning_are_refused(ring):
    with pytest.raises(InvalidArgument):
        FenceTable().add(polygon(ring))


# --- the carrier ---------------------------------------------------------------------------------------------------------------


def test_a_carriers_visit_is_the_union_of_its_tags():
    assert geofence.union([]) == []
    assert geofence.union([(10, 20), (15, 30), (40, FOREVER_US), (30, 31)]) == [(10, 31), (40, FOREVER_US)]
    assert geofence.union([(0, 100), (10, 20)]) == [(0, 100)]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10)).map(lambda x: (x[0], x[0] + x[1]))))
def test_the_union_covers_the_same_instants_and_no_others(intervals):
    merged = geofence.union(intervals)
    assert {t for a, b in merged for t in range(a, b)} == {t for a, b in intervals for t in range(a, b)}
    assert all(one[1] < two[0] for one, two in itertools.pairwise(merged))
