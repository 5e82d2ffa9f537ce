"""Geofences: sides, confirmation, visits and passing through, against the handbook's words and the slow reference."""

import itertools
import math

import numpy as np
import pytest
from geopy.distance import geodesic
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from actors.rules import geofence
from actors.rules.errors import InvalidArgument
from actors.rules.geofence import ENTER, EXIT, PASSED_THROUGH, Fence, FenceTable
from actors.rules.readings import FOREVER_US, Groups
from tests.reference import geo

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

SQUARE = [(51.9, 3.9), (51.9, 4.1), (52.1, 4.1), (52.1, 3.9)]
HOLE = [(51.98, 3.98), (51.98, 4.02), (52.02, 4.02), (52.02, 3.98)]


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


# --- confirmation --------------------------------------------------------------------------------------------------------------


def test_two_consecutive_fixes_confirm_and_the_event_is_dated_at_the_first():
    assert events(circle(), (0, OUT), (1, OUT), (5, IN), (6, IN), (20, OUT), (21, OUT)) == [("ENTER", 5), ("EXIT", 5, 20)]


def test_first_confirmed_inside_is_an_enter():
    assert events(circle(), (0, IN), (1, IN)) == [("ENTER", 0)]


def test_first_confirmed_outside_is_nothing():
    assert events(circle(), (0, OUT), (1, OUT), (2, OUT)) == []


def test_a_single_fix_inside_is_no_visit():
    assert events(circle(), (0, OUT), (1, OUT), (2, IN), (3, OUT), (4, OUT), until_min=10) == []


def test_a_single_stray_fix_outside_does_not_end_a_visit():
    assert events(circle(), (0, IN), (1, IN), (2, OUT), (3, IN), (4, OUT), (5, IN)) == [("ENTER", 0)]


def test_an_ambiguous_fix_neither_counts_nor_resets():
    assert events(circle(), (0, IN), (1, IN, 5000), (2, IN)) == [("ENTER", 0)]
    assert events(circle(), (0, IN), (1, IN, 5000), (2, IN, 5000)) == []


def test_a_reading_without_a_fix_neither_counts_nor_resets():
    assert events(circle(), (0, IN), (1, None), (2, IN)) == [("ENTER", 0)]


def test_dwell_confirms_before_the_count_does():
    assert events(circle(confirm=5, dwell_us=10 * MIN), (0, IN), (4, IN), (10, IN)) == [("ENTER", 0)]
    assert events(circle(confirm=5, dwell_us=10 * MIN), (0, IN), (4, IN), (9.9, IN)) == []


def test_the_count_confirms_before_dwell_does():
    assert events(circle(confirm=2, dwell_us=10 * MIN), (0, IN), (1, IN)) == [("ENTER", 0)]


def test_dwell_begins_again_after_a_fix_on_the_other_side():
    assert events(circle(confirm=5, dwell_us=10 * MIN), (0, IN), (6, OUT), (7, IN), (12, IN)) == []


def test_silence_confirms_nothing():
    assert events(circle(dwell_us=10 * MIN), (0, IN), (600, OUT), until_min=700) == []


def test_confirm_one_takes_every_fix_at_its_word():
    assert events(circle(confirm=1), (0, IN), (1, OUT), (2, IN)) == [("ENTER", 0), ("ENTER", 2), ("EXIT", 0, 1)]


# --- custody -------------------------------------------------------------------------------------------------------------------


def test_the_end_of_custody_closes_a_visit():
    assert events(circle(), (0, IN), (1, IN), until_min=30) == [("ENTER", 0), ("EXIT", 0, 30)]


def test_an_exit_not_confirmed_before_custody_ends_is_dated_at_its_end():
    assert events(circle(), (0, IN), (1, IN), (29, OUT), until_min=30) == [("ENTER", 0), ("EXIT", 0, 30)]


def test_fixes_outside_custody_do_not_count():
    assert events(circle(), (0, IN), (1, IN), from_min=1) == []
    assert events(circle(), (0, IN), (1, IN), until_min=1) == []


def test_closing_twice_gives_no_second_exit():
    table = FenceTable()
    state = geofence.fresh([table.add(circle())], 0)
    state, _ = geofence.judge(*columns([(0, IN), (1, IN)]), state, table)
    assert len(geofence.close(state, [0], 5 * MIN)) == 1
    assert len(geofence.close(state, [0], 5 * MIN)) == 0


# --- passed through ------------------------------------------------------------------------------------------------------------


def test_two_outside_fixes_whose_geodesic_meets_the_fence_pass_through():
    assert events(circle(), (0, FAR_WEST), (5, FAR_EAST)) == [("PASSED_THROUGH", 0, 5)]


def test_a_geodesic_that_touches_the_circle_meets_it():
    a, b = beside(FAR_WEST, 0, 1000), beside(FAR_EAST, 0, 1000)
    reach = geo.segment_distance(DEPOT, a, b)
    assert events(circle(radius=reach + 0.01), (0, a), (5, b)) == [("PASSED_THROUGH", 0, 5)]
    assert events(circle(radius=reach - 0.01), (0, a), (5, b)) == []


@pytest.mark.parametrize(("gap", "passes"), [(60, True), (60.001, False)])
def test_fixes_more_than_sixty_minutes_apart_tell_nothing_of_the_way_between(gap, passes):
    assert bool(events(circle(), (0, FAR_WEST), (gap, FAR_EAST))) == passes


def test_a_fix_inside_between_them_is_no_passing_through():
    assert events(circle(), (0, FAR_WEST), (1, IN), (2, FAR_EAST)) == []


def test_an_ambiguous_fix_between_them_does_not_hide_the_passing():
    assert events(circle(), (0, FAR_WEST), (1, IN, 5000), (2, FAR_EAST)) == [("PASSED_THROUGH", 0, 2)]


def test_standing_still_outside_passes_through_nothing():
    assert events(circle(), *((minute, OUT) for minute in range(10))) == []


def test_leaving_and_crossing_again_is_an_exit_and_a_passing():
    assert events(circle(), (0, IN), (1, IN), (2, FAR_WEST), (3, FAR_EAST)) == [
        ("ENTER", 0),
        ("EXIT", 0, 2),
        ("PASSED_THROUGH", 2, 3),
    ]


def test_crossing_a_polygon_a_corridor_and_the_antimeridian():
    assert events(polygon(SQUARE), (0, (52, 3)), (9, (52, 5))) == [("PASSED_THROUGH", 0, 9)]
    assert events(polygon(SQUARE), (0, (52.3, 3)), (9, (52.3, 5))) == []
    assert events(corridor((51, 4), (53, 4)), (0, (52, 3)), (9, (52, 5))) == [("PASSED_THROUGH", 0, 9)]
    assert events(corridor((51, 4), (51.5, 4)), (0, (52, 3)), (9, (52, 5))) == []
    assert events(circle((0, 180), 1000), (0, (0, 179.9)), (9, (0, -179.9))) == [("PASSED_THROUGH", 0, 9)]


def test_a_leg_within_a_hole_does_not_meet_the_polygon():
    fence = polygon(SQUARE, HOLE)
    assert events(fence, (0, (52, 3.99)), (1, (52, 4.01))) == []
    assert events(fence, (0, (52, 4)), (1, (52, 4.3))) == [("PASSED_THROUGH", 0, 1)]


@settings(max_examples=25)
@given(
    shape("polygon") | shape("corridor"),
    st.tuples(st.floats(0, 360), st.floats(0, 1.5)),
    st.tuples(st.floats(0, 360), st.floats(0, 1.5)),
)
def test_passing_through_is_what_halving_the_way_finds(fence, start, end):
    points = list(fence.lines[0])
    size = max(geodesic(points[0], p).meters for p in points)
    assume(size < 300_000)
    a, b = (beside(points[0], bearing, size * far) for bearing, far in (start, end))
    truth = as_reference(fence)
    assume(not geo.inside_and_boundary(a, truth)[0] and not geo.inside_and_boundary(b, truth)[0])
    expected = geo.meets(a, b, truth)
    assume(expected is not None)
    assert bool(events(fence, (0, a), (1, b))) == expected


# --- whole series --------------------------------------------------------------------------------------------------------------

steps = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1, 1, 1, 5, 20, 61]),  # minutes since the last
        st.sampled_from([0.0, 0.5, 0.99, 1.0, 1.01, 1.2, 2, 3, 50]),  # radii from the centre
        st.sampled_from([0.0, 90.0, 180.0, 270.0, 45.0]),
        st.sampled_from([None, None, 0.0, 20.0, 3000.0]),
    ),
    max_size=30,
)
rules = st.tuples(st.integers(1, 4), st.none() | st.sampled_from([0, MIN, 15 * MIN]))
centers = st.sampled_from([DEPOT, (0.0, 180.0), (89.999, 0.0), (-90.0, 0.0), (0.0, 0.0)])


def walk(center, moves):
    t, out = 0.0, []
    for wait, far, bearing, accuracy in moves:
        t += wait
        out.append((t, beside(center, bearing, 1000 * far), accuracy))
    return out


@settings(max_examples=150)
@given(centers, steps, rules, st.none() | st.integers(0, 200))
def test_visits_are_the_slow_references(center, moves, rule, until):
    confirm, dwell = rule
    fence = circle(center, confirm=confirm, dwell_us=dwell)
    fixes = walk(center, moves)
    slow = [(int(t * MIN), *fix, accuracy) for t, fix, accuracy in fixes]
    undecided = False

    def meeting(a, b, of):
        nonlocal undecided
        verdict = geo.meets(a, b, of)
        undecided |= verdict is None
        return verdict

    expected = geo.visits(slow, as_reference(fence), confirm, dwell, 5 * MIN, None if until is None else until * MIN, meeting=meeting)
    assume(not undecided)
    table = FenceTable()
    state = geofence.fresh([table.add(fence)], 5 * MIN)
    _, found = geofence.judge(*columns(fixes), state, table, until_us=None if until is None else until * MIN)
    assert readable(found) == expected


cuts = st.lists(st.integers(0, 30), max_size=4).map(sorted)


@settings(max_examples=60)
@given(st.lists(st.tuples(steps, cuts), min_size=1, max_size=3), rules, st.integers(0, 1000))
def test_splitting_a_series_over_calls_changes_nothing(series, rule, seed):
    """Several tags, three fences each, any cuts, the rows of a batch in any order: the same events and the same state."""
    confirm, dwell = rule
    table = FenceTable()
    rows = [
        table.add(fence)
        for fence in (
            circle(confirm=confirm, dwell_us=dwell),
            polygon([beside(DEPOT, b, 1500) for b in (45, 135, 225, 315)], confirm=confirm),
            corridor(beside(DEPOT, 0, 2000), beside(DEPOT, 180, 2000), half_width=700, dwell_us=dwell),
        )
    ]
    walks = [columns(walk(DEPOT, moves)) for moves, _ in series]
    whole, ends = [], []
    for walked in walks:
        state, found = geofence.judge(*walked, geofence.fresh(rows, 0), table)
        whole.append(readable(found))
        ends.append(state.tobytes())
    visits = np.concatenate([geofence.fresh(rows, 0) for _ in series])
    tags = np.arange(len(series), dtype=np.int32)
    first, count = tags * 3, np.full(len(series), 3, np.int32)
    got: list[list[tuple]] = [[] for _ in series]
    for call in range(5):
        batch, starts = [], [0]
        for walked, (_, ends_of) in zip(walks, series, strict=True):
            edges = [0, *ends_of, *([30] * (5 - len(ends_of)))]
            batch.append([column[edges[call] : edges[call + 1]] for column in walked])
            starts.append(starts[-1] + len(batch[-1][0]))
        joined = [np.concatenate([part[c] for part in batch]) for c in range(4)]
        shuffle = np.random.default_rng(seed).permutation(starts[-1])
        groups = Groups(tags, np.array(starts), np.argsort(shuffle))
        for event in geofence.advance(visits, first, count, groups, *(column[shuffle] for column in joined), table):
            got[event["visit"] // 3] += readable(np.array([event]))
    assert [sorted(found) for found in got] == whole
    assert [visits[3 * k : 3 * k + 3].tobytes() for k in range(len(series))] == ends


def test_more_events_than_the_buffer_holds_are_all_kept():
    table = FenceTable()
    row = table.add(circle(confirm=1))
    n = 20_000
    latitude, longitude = np.where(np.arange(n) % 2 == 0, IN[0], OUT[0]), np.full(n, IN[1])
    _, found = geofence.judge(np.arange(n) * MIN, latitude, longitude, np.full(n, np.nan), geofence.fresh([row], 0), table)
    assert len(found) == n
    assert np.array_equal(found["at_us"], np.arange(n) * MIN)


def test_more_pairs_than_are_taken_at_once_are_all_judged(monkeypatch):
    monkeypatch.setattr(geofence, "PAIRS_AT_ONCE", 3)
    table = FenceTable()
    row = table.add(circle())
    visits = np.concatenate([geofence.fresh([row], 0) for _ in range(5)])
    groups = Groups(np.arange(5, dtype=np.int32), np.arange(6) * 2, np.arange(10))
    one = np.ones(5, np.int32)
    found = geofence.advance(
        visits, np.arange(5, dtype=np.int32), one, groups, np.arange(10), np.full(10, 52.0), np.full(10, 4.0), np.full(10, np.nan), table
    )
    assert found["visit"].tolist() == [0, 1, 2, 3, 4]


def test_tags_without_fences_and_read_only_columns_are_fine():
    table = FenceTable()
    row = table.add(circle())
    visits = geofence.fresh([row], 0)
    arrays = [np.arange(4), np.full(4, 52.0), np.full(4, 4.0), np.full(4, np.nan)]
    for array in arrays:
        array.flags.writeable = False
    groups = Groups(np.array([0, 1], np.int32), np.array([0, 2, 4]), np.arange(4))
    first, count = np.array([0, 0], np.int32), np.array([0, 1], np.int32)
    assert readable(geofence.advance(visits, first, count, groups, *arrays, table)) == [("ENTER", 2)]
    nothing = Groups(np.zeros(0, np.int32), np.zeros(1, np.int64), np.zeros(0, np.int64))
    assert len(geofence.advance(visits, first, count, nothing, *(a[:0] for a in arrays), table)) == 0


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
