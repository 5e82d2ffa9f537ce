"""Stability budgets: time in bands by the hold rule, and what a part of a lot carries along; held against tests/reference/stock.py."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from actors.rules.stability import Band, Place, Step, Use, exposures, in_band_us, remaining_us, worst_of, worst_place
from tests.reference import stock as reference

BAND = Band("temperature_c", 8.0, 25.0, 72)
SERIES = st.lists(st.tuples(st.integers(0, 40), st.floats(0, 30)), max_size=8, unique_by=lambda pair: pair[0])


@given(SERIES, st.integers(0, 20), st.integers(0, 30), st.integers(1, 15))
def test_time_in_a_band_is_counted_as_readings_hold(series: list[tuple[int, float]], begin: int, length: int, gap: int) -> None:
    series.sort()
    sensed = np.array([at for at, _ in series], np.int64)
    values = np.array([value for _, value in series], np.float64)
    found, covered = in_band_us(sensed, values, BAND, begin, begin + length, gap)
    assert found == reference.in_band(series, 8.0, 25.0, begin, begin + length, gap)
    assert covered == reference.in_band(series, -1.0, 99.0, begin, begin + length, gap)


def test_a_failed_reading_is_as_if_it_were_not_there() -> None:
    sensed, values = np.array([0, 10, 20]), np.array([9.0, np.nan, 5.0])
    assert in_band_us(sensed, values, BAND, 0, 30, 60) == (20, 30)


PLACES = ["a", "b", "c"]
MOVES = st.lists(st.tuples(st.integers(1, 12), st.sampled_from(PLACES), st.sampled_from(PLACES), st.booleans()), max_size=8)


@given(MOVES, st.lists(st.integers(0, 3), min_size=3, max_size=3))
def test_a_split_copies_and_a_merge_takes_the_largest(moves: list[tuple[int, str, str, bool]], rates: list[int]) -> None:
    rate = dict(zip(PLACES, rates, strict=True))
    there, plan = {"a"}, []
    for at, source, target, emptied in sorted(moves, key=lambda move: move[0]):
        if source in there and source != target:  # goods move from where they are
            plan.append((at, source, target, emptied))
            there = (there - {source} if emptied else there) | {target}
    slow = reference.budgets([(0, "outside", "a", False), *plan], rate, 15)
    steps = [Step(0, (), (Place("a"),))] + [
        Step(at, (Place(source),), (Place(target),), (Place(source),) if emptied else ()) for at, source, target, emptied in plan
    ]
    found = exposures(steps, [], 1, lambda place, begin, end: Use((rate[place.carrier] * (end - begin),), (0,)), 15)
    assert {place.carrier: use.used_us[0] for place, use in found.items()} == slow


def test_what_came_from_outside_counts_from_the_carriers_beginning() -> None:
    ship, zone = Place("shipment/S", "P1"), Place("zone/W/A")
    step = Step(100, (ship,), (zone,), (ship,), since_us=0)
    found = exposures([step], [], 1, lambda place, begin, end: Use(((end - begin) if place == ship else 0,), (0,)), 500)
    assert found == {zone: Use((100,), (0,))}


def test_the_largest_per_band_stands_and_the_least_remaining_is_the_worst() -> None:
    assert worst_of([Use((5, 1), (0, 9)), Use((3, 4), (7, 2))], 2) == Use((5, 4), (0, 2))
    assert worst_of([], 1) == Use((0,), (0,))
    uses = {Place("a"): Use((80,), (0,)), Place("b"): Use((10,), (0,))}
    assert remaining_us([BAND], uses[Place("a")]) == (-8,)
    assert worst_place([BAND], uses) == Place("a")
