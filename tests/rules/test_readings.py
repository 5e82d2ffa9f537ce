"""What a plausible reading is, and in which order readings are judged (handbook 2, 3, 6)."""

from __future__ import annotations

import math
import timeit
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.rules import readings
from actors.rules.readings import CODE, COLUMNS, EARLIEST_US, LATEST_US, NO_SEQUENCE, Batch, Scratch, check, concatenate, group, subset
from tests.reference import readings as slow

NOW_US = EARLIEST_US + 25 * 365 * 86_400_000_000


def batch_of(*rows: dict[str, float], sensed_us: int = NOW_US, boot: int = NO_SEQUENCE, sequence: int = NO_SEQUENCE) -> Batch:
    """A batch with one reading for each dict of values."""
    codes = tuple(sorted({CODE[name] for row in rows for name in row}))
    values = np.array([[row.get(COLUMNS[code].name, math.nan) for row in rows] for code in codes]).reshape(len(codes), len(rows))
    n = len(rows)
    full = np.full
    return Batch(np.arange(n, dtype=np.int32), full(n, sensed_us), full(n, boot), full(n, sequence), codes, values)


def refused(batch: Batch, present: Any = None) -> list[tuple[int, str]]:
    refusals, ok = check(batch, NOW_US, present)
    assert [refusal.row for refusal in refusals] == np.flatnonzero(~ok).tolist()
    return [(refusal.row, refusal.field) for refusal in refusals]


def test_our_bounds_are_the_handbooks() -> None:
    assert {column.name: (column.low, column.high) for column in COLUMNS} == slow.BOUNDS


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_both_bounds_are_plausible_and_nothing_beyond_them(column: readings.Column) -> None:
    other = {"latitude_deg": {"longitude_deg": 0.0}, "longitude_deg": {"latitude_deg": 0.0}}.get(column.name, {})
    highest = column.high if math.isfinite(column.high) else 1e300
    assert refused(batch_of({column.name: column.low, **other}, {column.name: highest, **other})) == []
    too_low = math.nextafter(column.low, -math.inf)
    too_high = math.nextafter(column.high, math.inf) if math.isfinite(column.high) else math.inf
    for value in (too_low, too_high, math.inf, -math.inf):
        assert refused(batch_of({column.name: value, **other})) == [(0, column.name)]


def test_a_cryogenic_tag_is_plausible_and_400_below_zero_is_not() -> None:
    assert refused(batch_of({"temperature_c": -196.0}, {"temperature_c": -400.0})) == [(1, "temperature_c")]


@pytest.mark.parametrize("value", [0.5, 1e-300, 0.9999999999999999, 2.0, -1.0])
def test_a_door_is_open_or_closed_and_nothing_between(value: float) -> None:
    assert refused(batch_of({"door_open": 0.0}, {"door_open": 1.0}, {"door_open": value})) == [(2, "door_open")]


def test_a_value_that_is_present_and_nan_is_refused_and_an_absent_one_is_not() -> None:
    batch = batch_of({"temperature_c": math.nan, "battery_v": 3.0}, {"temperature_c": math.nan, "battery_v": 3.0})
    assert refused(batch) == []
    assert refused(batch, np.array([[True, False], [True, True]])) == [(0, "temperature_c")]


def test_a_reading_with_nothing_but_a_nan_is_refused_for_the_nan() -> None:
    assert refused(batch_of({"temperature_c": math.nan}), np.array([[True]])) == [(0, "temperature_c")]


def test_a_reading_without_any_value_is_refused() -> None:
    assert refused(batch_of({}, {"temperature_c": 1.0})) == [(0, "values")]
    assert refused(batch_of({}, {})) == [(0, "values"), (1, "values")]


def test_half_a_position_is_refused_naming_the_missing_half() -> None:
    assert refused(batch_of({"latitude_deg": 1.0})) == [(0, "longitude_deg")]
    assert refused(batch_of({"longitude_deg": 1.0})) == [(0, "latitude_deg")]
    assert refused(batch_of({"speed_mps": 3.0})) == []


@pytest.mark.parametrize(
    ("sensed_us", "fine"), [(EARLIEST_US, True), (EARLIEST_US - 1, False), (LATEST_US, True), (LATEST_US + 1, False), (0, False)]
)
def test_a_date_outside_two_centuries_is_impossible(sensed_us: int, fine: bool) -> None:
    assert refused(batch_of({"temperature_c": 1.0}, sensed_us=sensed_us)) == ([] if fine else [(0, "sensed_us")])


def test_a_sensed_time_in_the_future_is_kept() -> None:
    assert refused(batch_of({"temperature_c": 1.0}, sensed_us=NOW_US + 86_400_000_000)) == []


def test_boot_and_sequence_come_both_or_neither() -> None:
    assert refused(batch_of({"temperature_c": 1.0}, boot=0, sequence=0)) == []
    assert refused(batch_of({"temperature_c": 1.0}, boot=3)) == [(0, "sequence")]
    assert refused(batch_of({"temperature_c": 1.0}, sequence=3)) == [(0, "boot")]
    assert refused(batch_of({"temperature_c": 1.0}, boot=-2, sequence=5)) == [(0, "boot")]
    assert refused(batch_of({"temperature_c": 1.0}, boot=2, sequence=-5)) == [(0, "sequence")]


def test_a_refusal_says_the_value_and_the_rule_and_the_rest_of_the_batch_is_kept() -> None:
    refusals, ok = check(batch_of({"latitude_deg": 91.0, "longitude_deg": 0.0}, {"temperature_c": 4.0}), NOW_US)
    assert refusals == [readings.Refusal(0, "latitude_deg", "91.0", "must be a number from -90 to 90")]
    assert ok.tolist() == [False, True]


ODD = st.sampled_from([0.0, 1.0, 0.5, -1.0, 90.0, 91.0, -200.0, 1e308, math.inf, -math.inf, math.nan, 100.0, 180.5])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, EARLIEST_US - 1, EARLIEST_US, NOW_US, LATEST_US, LATEST_US + 1]),
            st.sampled_from([None, 0, 7]),
            st.sampled_from([None, 0, 7]),
            st.dictionaries(st.sampled_from([column.name for column in COLUMNS]), ODD, max_size=4),
        ),
        max_size=8,
    )
)
def test_check_agrees_with_the_reading_by_reading_reference(rows: list[tuple[int, int | None, int | None, dict[str, float]]]) -> None:
    batch = batch_of(*(values for *_, values in rows))
    batch.sensed_us[:] = [row[0] for row in rows]
    batch.boot[:] = [NO_SEQUENCE if row[1] is None else row[1] for row in rows]
    batch.sequence[:] = [NO_SEQUENCE if row[2] is None else row[2] for row in rows]
    present = np.array([[COLUMNS[code].name in row[3] for row in rows] for code in batch.codes], np.bool_).reshape(batch.values.shape)
    refusals, ok = check(batch, NOW_US, present)
    assert ok.tolist() == [slow.plausible(*row) for row in rows]
    assert [refusal.row for refusal in refusals] == [k for k, row in enumerate(rows) if not slow.plausible(*row)]


def grouped(rows: list[tuple[int, int, int, int]], scratch: Scratch | None = None) -> dict[int, list[int]]:
    columns = np.array(rows, np.int64).reshape(-1, 4).T.copy()
    groups = group(columns[0].astype(np.int32), columns[1], columns[2], columns[3], 9, scratch)
    found = {int(tag): groups.order[groups.start[k] : groups.start[k + 1]].tolist() for k, tag in enumerate(groups.tag)}
    assert groups.start[-1] == len(rows)
    assert list(found) == list(dict.fromkeys(row[0] for row in rows)), "groups come in the order of their first rows"
    return found


SMALL = st.integers(0, 3)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), SMALL, SMALL, SMALL), max_size=60))
def test_groups_are_in_judging_order_and_stable(rows: list[tuple[int, int, int, int]]) -> None:
    assert grouped(rows) == slow.judging_order(rows)


@pytest.mark.parametrize("shape", ["newest first", "shuffled", "two interleaved backlogs"])
def test_long_unordered_groups_are_sorted_too(shape: str) -> None:
    n = 2_000
    times = {
        "newest first": list(range(n, 0, -1)),
        "shuffled": np.random.default_rng(4).permutation(n // 2).repeat(2).tolist(),
        "two interleaved backlogs": [k // 2 if k % 2 else n - k for k in range(n)],
    }[shape]
    rows = [(3, time, 0, k % 5) for k, time in enumerate(times)]
    assert grouped(rows) == slow.judging_order(rows)


def test_a_backlog_that_comes_newest_first_costs_a_small_multiple_of_one_in_order() -> None:
    """Each 30,000 readings of one tag. Sorting by insertion alone takes a thousand times the time of in-order input."""
    times = np.arange(30_000)
    tag, same = np.zeros(30_000, np.int32), np.zeros(30_000, np.int64)
    seconds = {}
    for name, column in (("in order", times), ("newest first", times[::-1].copy())):
        seconds[name] = min(timeit.repeat(partial(group, tag, column, same, same, 1), number=1, repeat=5))
    assert seconds["newest first"] < 100 * seconds["in order"]


def test_a_scratch_is_clean_after_each_use() -> None:
    scratch = Scratch()
    first = [(5, 2, 0, 0), (1, 1, 0, 0), (5, 1, 0, 0)]
    assert grouped(first, scratch) == {5: [2, 0], 1: [1]}
    assert grouped([(1, 4, 0, 0), (5, 1, 0, 0)], scratch) == {1: [0], 5: [1]}
    assert (scratch.slot == -1).all()


@pytest.mark.parametrize("tag", [-1, 9])
def test_a_tag_outside_the_table_is_an_error_and_not_a_wild_write(tag: int) -> None:
    with pytest.raises(IndexError):
        grouped([(tag, 0, 0, 0)])


def test_read_only_columns_as_ray_hands_them_out_compile_nothing_anew() -> None:
    readings.warm_up()
    batch = batch_of({"temperature_c": 1.0}, {"temperature_c": 2.0})
    before = len(readings._check.signatures), len(readings._group.signatures)  # type: ignore[attr-defined]
    for column in (batch.tag, batch.values, batch.sensed_us, batch.boot, batch.sequence):
        column.flags.writeable = False
        assert refused(batch, np.ones((1, 2), np.bool_)) == []
        group(batch.tag, batch.sensed_us, batch.boot, batch.sequence, 2)
    assert (len(readings._check.signatures), len(readings._group.signatures)) == before  # type: ignore[attr-defined]


def test_a_subset_has_the_rows_asked_for_in_the_order_asked_for() -> None:
    batch = batch_of({"temperature_c": 1.0}, {"battery_v": 2.0}, {"temperature_c": 3.0})
    picked = subset(batch, np.array([2, 0]))
    assert picked.tag.tolist() == [2, 0]
    np.testing.assert_array_equal(picked.values, [[3.0, 1.0], [math.nan, math.nan]])
    masked, sliced = subset(batch, np.array([False, True, True])), subset(batch, slice(1, 3))
    assert masked.tag.tolist() == sliced.tag.tolist() == [1, 2]
    np.testing.assert_array_equal(masked.values, sliced.values)
    assert all(part.values.flags.c_contiguous for part in (picked, masked, sliced))


def test_concatenated_batches_have_all_columns_and_nan_where_one_had_none() -> None:
    whole = concatenate([batch_of({"battery_v": 3.5}), batch_of({"temperature_c": 1.0}, {"temperature_c": 2.0}), batch_of()])
    assert [COLUMNS[code].name for code in whole.codes] == ["temperature_c", "battery_v"]
    np.testing.assert_array_equal(whole.values, [[math.nan, 1.0, 2.0], [3.5, math.nan, math.nan]])
    assert whole.tag.tolist() == [0, 0, 1]
    assert whole.tag.dtype == np.int32
    assert len(concatenate([])) == 0
