"""Custody decides the carrier by sensed time, over half-open intervals (handbook 6)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.rules import custody
from actors.rules.custody import Interval
from actors.rules.errors import CustodyOverlap, FailedPrecondition, InvalidArgument, NotFound
from actors.rules.readings import EARLIEST_US, FOREVER_US, FUTURE_TOLERANCE_US
from tests.reference import custody as slow

T = EARLIEST_US
NOW = T + 1_000


def ride(name: str, from_us: int, until_us: int | None = None, unit: str = "") -> Interval:
    return Interval(name, f"shipment/{name}", unit, T + from_us, FOREVER_US if until_us is None else T + until_us)


A, B = ride("A", 10, 20), ride("B", 20)


def test_a_reading_at_the_hand_over_belongs_to_the_next_carrier() -> None:
    times = T + np.array([9, 10, 19, 20, 21, 10**9])
    assert custody.carrier_of(times, (A, B)).tolist() == [-1, 0, 0, 1, 1, 1]


def test_without_custody_no_reading_has_a_carrier() -> None:
    assert custody.carrier_of(np.array([T]), ()).tolist() == [-1]


RIDES = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=7)


@given(RIDES, st.lists(st.integers(0, 90), max_size=20))
def test_assigning_keeps_intervals_disjoint_and_carriers_as_the_reference_says(rides: list[tuple[int, int]], times: list[int]) -> None:
    intervals: custody.Intervals = ()
    plain: list[tuple[str, int, int]] = []
    for k, (start, length) in enumerate(rides):
        new = ride(str(k), start, start + length)
        would_be = [*plain, (new.carrier, new.from_us, new.until_us)]
        if slow.disjoint(would_be):
            intervals, plain = custody.assign(intervals, new, NOW), would_be
        else:
            with pytest.raises(CustodyOverlap):
                custody.assign(intervals, new, NOW)
    found = custody.carrier_of(T + np.array(times, np.int64), intervals)
    assert [intervals[i].carrier if i >= 0 else None for i in found] == [slow.carrier_at(T + time, plain) for time in times]


def test_an_overlap_is_refused_naming_the_other_carrier_and_custody() -> None:
    with pytest.raises(CustodyOverlap) as error:
        custody.assign((A, B), ride("C", 5, 11), NOW)
    assert "shipment/A" in error.value.rule
    assert "custody A" in error.value.rule
    assert error.value.field == "from"


def test_touching_intervals_do_not_overlap() -> None:
    assert custody.assign((A,), ride("C", 0, 10), NOW) == (ride("C", 0, 10), A)
    assert custody.assign((A,), B, NOW) == (A, B)


def test_an_open_custody_overlaps_everything_after_its_start() -> None:
    with pytest.raises(CustodyOverlap, match="open end"):
        custody.assign((B,), ride("C", 900), NOW)


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (ride("C", 5, 5), "until"),
        (ride("C", 5, 4), "until"),
        (ride("C", 5, 1_001), "until"),
        (Interval("C", "shipment/C", "", T - 1), "from"),
        (Interval("C", "shipment/C", "", NOW + FUTURE_TOLERANCE_US + 1), "from"),
    ],
)
def test_impossible_times_are_refused(bad: Interval, field: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        custody.assign((), bad, NOW)
    assert error.value.field == field


def test_an_end_at_this_very_moment_is_possible() -> None:
    assert custody.release((B,), "B", NOW, NOW) == (ride("B", 20, 1_000),)


def test_a_custody_that_has_ended_is_not_released_again() -> None:
    with pytest.raises(FailedPrecondition, match="correct it"):
        custody.release((A,), "A", T + 15, NOW)


def test_a_correction_moves_the_named_interval_and_keeps_its_identity() -> None:
    assert custody.correct((A, B), "A", T + 12, T + 18, NOW) == (ride("A", 12, 18), B)
    assert custody.correct((A,), "A", T + 12, FOREVER_US, NOW) == (ride("A", 12),)


def test_a_correction_into_another_custody_is_refused_and_changes_nothing() -> None:
    with pytest.raises(CustodyOverlap, match="shipment/B"):
        custody.correct((A, B), "A", T + 10, T + 21, NOW)


def test_an_unknown_custody_is_not_found() -> None:
    with pytest.raises(NotFound):
        custody.remove((A,), "Z")


def test_a_later_end_changes_only_the_time_between_the_ends() -> None:
    after = (ride("A", 10, 30),)
    assert custody.changes((A,), after) == [custody.Change(T + 20, T + 30, None, after[0])]


def test_a_moved_hand_over_changes_the_carrier_between_old_and_new() -> None:
    after = (ride("A", 10, 25), ride("B", 25))
    assert custody.changes((A, B), after) == [custody.Change(T + 20, T + 25, B, after[0])]


def test_a_change_of_handling_unit_alone_is_a_change() -> None:
    assert custody.changes((A,), (ride("A", 10, 20, "pallet"),)) == [custody.Change(T + 10, T + 20, A, ride("A", 10, 20, "pallet"))]


@given(RIDES, RIDES)
def test_outside_the_changes_every_moment_has_the_same_custody_and_inside_another(
    one: list[tuple[int, int]], two: list[tuple[int, int]]
) -> None:
    def build(rides: list[tuple[int, int]]) -> custody.Intervals:
        intervals: custody.Intervals = ()
        for start, length in rides:
            new = Interval(f"{start}", f"shipment/{start}", "", T + start, T + start + length)
            if custody.overlapping(intervals, new) is None and all(i.custody_id != new.custody_id for i in intervals):
                intervals = custody.assign(intervals, new, NOW)
        return intervals

    before, after = build(one), build(two)
    found = custody.changes(before, after)
    for time in range(T, T + 90):
        was = slow.carrier_at(time, [(i.carrier, i.from_us, i.until_us) for i in before])
        now = slow.carrier_at(time, [(i.carrier, i.from_us, i.until_us) for i in after])
        inside = [change for change in found if change.from_us <= time < change.until_us]
        assert len(inside) == (was != now)
        if inside:
            change = inside[0]
            assert (change.before.carrier if change.before else None, change.after.carrier if change.after else None) == (was, now)
