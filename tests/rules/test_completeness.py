"""How complete a tag's record is: expected, received, missing (handbook 6)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from actors.rules.completeness import Completeness, complete, merge, merge_ranges
from actors.rules.readings import NO_SEQUENCE
from tests.reference import completeness as slow

Numbers = list[tuple[int, int]]
NUMBERS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), max_size=40)


def record(numbers: Numbers, unnumbered: int = 0) -> Completeness:
    pairs = np.array(numbers + [(NO_SEQUENCE, NO_SEQUENCE)] * unnumbered, np.int64).reshape(-1, 2)
    return complete(pairs[:, 0].copy(), pairs[:, 1].copy())


def spelled_out(found: Completeness) -> dict[int, tuple[int, int, list[int]]]:
    return {
        boot: (mine.expected, mine.received, [number for first, last in mine.missing for number in range(first, last + 1)])
        for boot, mine in found.boots.items()
    }


@given(NUMBERS)
def test_completeness_agrees_with_the_number_by_number_reference(numbers: Numbers) -> None:
    assert spelled_out(record(numbers)) == slow.account(numbers)


@given(NUMBERS, NUMBERS)
def test_late_numbers_merged_in_give_the_record_of_all_at_once(early: Numbers, late: Numbers) -> None:
    assert merge([record(early, 1), record(late, 2)]) == record(sorted(early + late), 3)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)).map(lambda r: (r[0], r[0] + r[1])), max_size=12))
def test_merged_ranges_hold_the_same_numbers_in_the_shortest_form(ranges: list[tuple[int, int]]) -> None:
    merged = merge_ranges(ranges)
    assert {n for first, last in merged for n in range(first, last + 1)} == {n for first, last in ranges for n in range(first, last + 1)}
    assert all(a[1] + 1 < b[0] for a, b in pairwise(merged))


def test_a_repeated_number_is_received_once() -> None:
    assert record([(1, 4), (1, 4), (1, 5)]).received == 2


def test_a_counter_that_restarts_after_a_boot_is_counted_apart() -> None:
    found = record([(1, 100), (1, 102), (2, 0), (2, 1)])
    assert (found.expected, found.received, found.missing) == (5, 4, 1)
    assert found.boots[1].missing == ((101, 101),)


def test_readings_without_a_sequence_are_counted_and_prove_nothing() -> None:
    found = record([], 7)
    assert (found.unnumbered, found.expected, found.received) == (7, 0, 0)
