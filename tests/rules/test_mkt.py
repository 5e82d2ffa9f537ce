"""Mean kinetic temperature, handbook section 3 (USP): its laws, its windows, and the limits held against it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.rules import exposure, mkt
from tests.reference import exposure as plain
from tests.reference import mkt as plain_mkt
from tests.rules.exposures import HOUR, MINUTE, series, tables, told, track_of

DAY = 24 * HOUR
TOLERANCE_K = 1e-9

temperatures = st.floats(-200, 200, allow_nan=False)
parts = st.lists(st.tuples(temperatures, st.integers(0, 10**12)), max_size=30)
near = st.sampled_from([2.0, 5.0, 8.0, 25.0, 40.0, float("nan")])
short = st.lists(st.integers(0, 40), max_size=10).map(sorted).flatmap(lambda ts: st.tuples(*(st.tuples(st.just(t), near) for t in ts)))


def close_to(expected: float) -> Any:
    return pytest.approx(expected, abs=TOLERANCE_K, rel=0, nan_ok=True)


class TestFormula:
    def test_a_worked_example(self) -> None:
        # 20 and 40 °C for equal times: ln of the mean of exp(-10000/293.15) and exp(-10000/313.15)
        assert mkt.mkt_c([20.0, 40.0], [HOUR, HOUR]) == close_to(34.357879876262)

    @given(temperatures, st.lists(st.integers(1, 10**12), min_size=1, max_size=30))
    def test_constant_temperature_gives_that_temperature(self, value: float, weights: list[int]) -> None:
        assert mkt.mkt_c([value] * len(weights), weights) == close_to(value)

    @given(parts)
    def test_it_is_never_below_the_time_weighted_mean(self, given_parts: list[tuple[float, int]]) -> None:
        weight = sum(w for _, w in given_parts)
        if weight:
            assert mkt.mkt_c(*series_of(given_parts)) >= sum(c * w for c, w in given_parts) / weight - TOLERANCE_K

    @given(parts)
    def test_splitting_an_interval_changes_nothing(self, given_parts: list[tuple[float, int]]) -> None:
        split = [(c, w) for c, whole in given_parts for w in (whole // 3, whole - whole // 3)]
        assert mkt.mkt_c(*series_of(split)) == close_to(mkt.mkt_c(*series_of(given_parts)))

    @given(parts)
    def test_it_is_what_the_plain_formula_gives(self, given_parts: list[tuple[float, int]]) -> None:
        assert mkt.mkt_c(*series_of(given_parts)) == close_to(plain_mkt.mkt_c(given_parts))

    def test_without_time_there_is_none(self) -> None:
        assert math.isnan(mkt.mkt_c([], []))
        assert math.isnan(mkt.mkt_c([5.0], [0]))


def series_of(given_parts: list[tuple[float, int]]) -> tuple[list[float], list[int]]:
    return [c for c, _ in given_parts], [w for _, w in given_parts]


class TestTrailing:
    @settings(deadline=None, max_examples=200)
    @given(
        short,
        st.sampled_from([1, 5, 12, 100]),
        st.sampled_from([1, 4, 50]),
        st.integers(-5, 20),
        st.sampled_from([None, [(0, 50)], [(3, 9), (15, 30)]]),
    )
    def test_it_is_the_plain_formula_over_what_held_in_the_window(
        self,
        readings: tuple[tuple[int, float], ...],
        window_us: int,
        max_gap_us: int,
        from_us: int,
        spans: list[tuple[int, int]] | None,
    ) -> None:
        at = [*sorted({t for t, _ in readings}), 45]
        windows = None if spans is None else np.array([(*span, 0) for span in spans], exposure.WINDOW)
        found = mkt.trailing_mkt_c(*series(readings), np.array(at), window_us, max_gap_us, from_us, windows)
        expected = [plain_mkt.trailing_mkt_c(readings, t, window_us, max_gap_us, from_us, spans) for t in at]
        assert found.tolist() == [close_to(value) for value in expected]

    def test_what_lies_before_the_window_does_not_touch_a_bit_of_it(self) -> None:
        rng = np.random.default_rng(7)
        times = np.cumsum(rng.integers(1, 20, 500)) * MINUTE
        values = rng.normal(25, 8, 500)
        window_us = 3 * HOUR
        whole = mkt.trailing_mkt_c(times, values, times, window_us, HOUR, 0)
        for k in (100, 250, 499):
            first = int(np.searchsorted(times, times[k] - window_us, side="right")) - 1
            alone = mkt.trailing_mkt_c(times[first : k + 1], values[first : k + 1], times[k : k + 1], window_us, HOUR, 0)
            assert alone.tobytes() == whole[k : k + 1].tobytes()

    def test_constant_temperature_is_not_above_itself(self) -> None:
        assert not judged([(k * MINUTE, 25.0) for k in range(500)], plain.Limit(25.0, mode=plain.MKT), DAY, until_us=DAY).runs

    def test_trapezoidal_weights_take_the_mean_of_both_readings(self) -> None:
        readings = [(0, 20.0), (10, 40.0), (30, 20.0)]
        found = mkt.trailing_mkt_c(*series(readings), np.array([30]), 100, 50, 0, weights="trapezoid")
        assert found[0] == close_to(plain_mkt.mkt_c([(20.0, 5 + 10), (40.0, 5 + 10)]))

    def test_trapezoidal_weights_do_not_reach_across_a_gap(self) -> None:
        found = mkt.trailing_mkt_c(*series([(0, 20.0), (100, 40.0)]), np.array([100]), 1000, 50, 0, weights="trapezoid")
        assert found[0] == close_to(20.0)


class TestLargest:
    @settings(deadline=None, max_examples=200)
    @given(
        short, st.sampled_from([3, 10, 25, 60]), st.sampled_from([2, 6, 50]), st.none() | st.tuples(st.integers(0, 40), st.integers(0, 12))
    )
    def test_it_is_the_largest_over_windows_at_every_microsecond(
        self, readings: tuple[tuple[int, float], ...], window_us: int, max_gap_us: int, excursion: tuple[int, int] | None
    ) -> None:
        must_contain = None if excursion is None else (excursion[0], min(45, excursion[0] + excursion[1]))
        found = mkt.largest_mkt_c(*series(readings), window_us, max_gap_us, -2, 45, must_contain)
        assert found.mkt_c == close_to(plain_mkt.largest_mkt_c(readings, window_us, max_gap_us, -2, 45, must_contain))
        length_us = min(window_us, 47)
        held = plain_mkt.held(readings, found.window_start_us, found.window_start_us + length_us, max_gap_us)
        assert found.covered_us == sum(us for _, us in held)
        assert found.full_window == (found.covered_us == window_us)

    def test_it_contains_the_excursion_and_not_a_hotter_hour_elsewhere(self) -> None:
        hours = [20.0] * 100
        hours[10], hours[80] = 40.0, 30.0
        readings = [(k * HOUR, value) for k, value in enumerate(hours)]
        arguments = (*series(readings), DAY, 2 * HOUR, 0, 100 * HOUR)
        assert mkt.largest_mkt_c(*arguments).mkt_c == close_to(plain_mkt.mkt_c([(40.0, 1), (20.0, 23)]))
        around = mkt.largest_mkt_c(*arguments, must_contain=(80 * HOUR, 81 * HOUR))
        assert around.mkt_c == close_to(plain_mkt.mkt_c([(30.0, 1), (20.0, 23)]))
        assert around.full_window

    def test_with_less_data_than_a_window_it_uses_what_there_is_and_says_so(self) -> None:
        found = mkt.largest_mkt_c(*series([(0, 30.0)]), 30 * DAY, HOUR, 0, 2 * HOUR)
        assert found == mkt.LargestMkt(close_to(30.0), 0, HOUR, False)

    def test_without_a_reading_there_is_none(self) -> None:
        found = mkt.largest_mkt_c(*series([]), DAY, HOUR, 0, DAY)
        assert math.isnan(found.mkt_c)
        assert (found.covered_us, found.full_window) == (0, False)


def judged(
    readings: list[tuple[int, float]], limit: plain.Limit, window_us: int, until_us: int | None = None, cut: int | None = None
) -> plain.Exposure:
    """Judge an MKT limit by the kernel, in one part or cut in two, and hold it to the plain reference."""
    windows = [plain.Window(-exposure.FOREVER_US, exposure.FOREVER_US, limit)]
    window_rows, limits = tables(windows, window_us)
    track = track_of(windows, 0, until_us)
    times, values = series(readings)
    runs = []
    if cut is not None:
        track, before = mkt.judge_mkt(times[:cut], values[:cut], track, window_rows, limits, closed=False)
        runs.append(before)
    track, after = mkt.judge_mkt(times, values, track, window_rows, limits, closed=until_us is not None, judged_before=cut or 0)
    found = told(track, np.concatenate([*runs, after]), window_rows)
    there = [(t, v) for t, v in readings if until_us is None or t < until_us]
    course = [(t, round(plain_mkt.trailing_mkt_c(there, t, window_us, limit.max_gap_us, 0), 10)) for t, v in there if not math.isnan(v)]
    end_value = None if until_us is None else round(plain_mkt.trailing_mkt_c(there, until_us, window_us, limit.max_gap_us, 0), 10)
    expected = plain.judge(course, windows, 0, until_us, end_value=None if end_value is None or math.isnan(end_value) else end_value)
    expected.runs = expected.excursions
    assert [(run.start_us, run.triggered_us, run.end_us, run.run_us, run.readings) for run in found.runs] == [
        (run.start_us, run.triggered_us, run.end_us, run.run_us, run.readings) for run in expected.runs
    ]
    assert [run.extreme for run in found.runs] == [close_to(run.extreme) for run in expected.runs]
    assert [run.extreme_us for run in found.runs] == [run.extreme_us for run in expected.runs]
    return found


class TestLimit:
    def cold(self, **settings: Any) -> plain.Limit:
        return plain.Limit(8.0, mode=plain.MKT, max_gap_us=HOUR, **settings)

    def test_the_run_begins_at_the_reading_where_the_window_reaches_the_threshold(self) -> None:
        hourly = [5.0] * 24 + [12.0] * 24
        (run,) = judged([(k * HOUR, value) for k, value in enumerate(hourly)], self.cold(), DAY).runs
        hours_needed = next(n for n in range(24) if plain_mkt.mkt_c([(12.0, n), (5.0, 24 - n)]) > 8.0)
        assert run.start_us == run.triggered_us == (24 + hours_needed) * HOUR

    @pytest.mark.parametrize("seed", [10, 25, 54])
    def test_of_windows_that_hold_the_same_in_another_order_the_earliest_is_the_worst(self, seed: int) -> None:
        course = np.tile(np.random.default_rng(seed).integers(0, 40, 60) / 2.0, 5).tolist()
        times, values = series([(k * MINUTE, value) for k, value in enumerate(course)])
        limit = plain.Limit(0.0, mode=plain.MKT, max_gap_us=HOUR)
        windows = [plain.Window(0, exposure.FOREVER_US, limit)]
        window_rows, limits = tables(windows, HOUR)
        track = track_of(windows, 0, None)
        at_us = times[60:]
        assert len(set(mkt.evaluate(times, values, at_us, track, window_rows, limits).tolist())) == 1

    def test_the_mkt_at_the_end_of_custody_counts(self) -> None:
        found = judged([(0, 5.0), (HOUR, 20.0)], self.cold(), DAY, until_us=2 * HOUR)
        (run,) = found.runs
        assert (run.start_us, run.triggered_us, run.end_us, run.run_us, run.readings) == (2 * HOUR, 2 * HOUR, 2 * HOUR, 0, 0)
        assert run.extreme == close_to(plain_mkt.mkt_c([(5.0, 1), (20.0, 1)]))
        assert found.extreme == run.extreme

    def test_the_end_of_custody_that_is_the_windows_end_counts_by_the_version_that_ends_there(self) -> None:
        next_version = plain.Limit(8.0, mode=plain.MKT, max_gap_us=MINUTE)
        windows = [plain.Window(0, 2 * HOUR, self.cold()), plain.Window(2 * HOUR, 9 * HOUR, next_version)]
        window_rows, limits = tables(windows, DAY)
        readings = [(0, 5.0), (90 * MINUTE, 20.0)]
        _, runs = mkt.judge_mkt(*series(readings), track_of(windows, 0, 2 * HOUR), window_rows, limits, closed=True)
        (ended,) = runs[runs["kind"] == exposure.ENDED]
        assert (ended["start_us"], ended["end_us"], ended["limit"]) == (2 * HOUR, 2 * HOUR, 0)
        assert ended["extreme"] == close_to(plain_mkt.mkt_c([(5.0, 60), (20.0, 30)]))

    def test_the_first_reading_has_no_mkt(self) -> None:
        assert judged([(0, 50.0)], self.cold(), DAY).runs == []

    def test_an_earlier_versions_windows_are_looked_back_on(self) -> None:
        windows = [plain.Window(0, 2 * HOUR, plain.Limit(90.0, mode=plain.MKT)), plain.Window(2 * HOUR, 9 * HOUR, self.cold())]
        window_rows, limits = tables(windows, DAY)
        readings = [(0, 20.0), (HOUR, 20.0), (2 * HOUR, 20.0), (3 * HOUR, 5.0)]
        _, runs = mkt.judge_mkt(*series(readings), track_of(windows, 0), window_rows, limits, closed=False)
        assert runs["start_us"].tolist() == [2 * HOUR]

    @settings(deadline=None, max_examples=150)
    @given(short, st.sampled_from([3, 10, 60]), st.sampled_from([None, 45, 60]), st.none() | st.integers(0, 10), st.booleans())
    def test_in_one_part_or_two_it_is_what_the_plain_reference_says(
        self, readings: tuple[tuple[int, float], ...], window_us: int, until_us: int | None, cut: int | None, inclusive: bool
    ) -> None:
        limit = plain.Limit(8.0, mode=plain.MKT, inclusive=inclusive, clear=7.0, allowance_us=2, max_gap_us=7)
        judged(list(readings), limit, window_us, until_us, cut)
