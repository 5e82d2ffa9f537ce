"""Visits: confirmation, custody and passing through, in the handbook's words and against the slow reference."""

import numpy as np
import pytest
from geopy.distance import geodesic
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from actors.rules import geofence
from actors.rules.geofence import FenceTable
from actors.rules.readings import Groups
from tests.reference import geo
from tests.rules.fences import (
    DEPOT,
    FAR_EAST,
    FAR_WEST,
    HOLE,
    IN,
    MIN,
    OUT,
    SQUARE,
    as_reference,
    beside,
    circle,
    columns,
    corridor,
    events,
    polygon,
    readable,
    shape,
)

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
