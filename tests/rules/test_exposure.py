"""Exposure, handbook section 3, sentence by sentence. Times in minutes from the custody's start; the limit is +8 °C unless said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from actors.rules import exposure
from actors.rules.readings import COLUMNS, Groups
from tests.reference import exposure as plain
from tests.reference.exposure import CUMULATIVE, Limit, Window
from tests.rules.exposures import HOUR, MINUTE, judge, limit_rows, tables, track_of

NAN = float("nan")


def above(threshold: float = 8.0, **settings: Any) -> Limit:
    for name in ("allowance", "beyond_allowance", "max_gap"):
        if settings.get(name) is not None:
            settings[f"{name}_us"] = settings.pop(name) * MINUTE
    return Limit(threshold, **settings)


def at(*readings: tuple[float, float]) -> list[tuple[int, float]]:
    return [(int(minute * MINUTE), value) for minute, value in readings]


def judged(
    readings: Sequence[tuple[float, float]], limit: Limit | list[Window], start: float = 0, until: float | None = None, **settings: Any
) -> plain.Exposure:
    """Judge by the kernel, and make sure that the plain reference says the same."""
    end_us = None if until is None else int(until * MINUTE)
    found = judge(at(*readings), limit, int(start * MINUTE), end_us, **settings)
    windows = [Window(-exposure.FOREVER_US, exposure.FOREVER_US, limit)] if isinstance(limit, Limit) else limit
    expected = plain.judge(at(*readings), windows, int(start * MINUTE), end_us, **settings)
    expected.runs = expected.excursions
    assert found == expected
    return found


def in_window(low: float, high: float, limit: Limit) -> Window:
    return Window(int(low * MINUTE), int(high * MINUTE), limit)


def minutes(us: int | None) -> float | None:
    return None if us is None else us / MINUTE


class TestHoldRule:
    def test_a_reading_holds_until_the_next_one(self) -> None:
        found = judged([(0, 9), (10, 5), (20, 5)], above())
        assert (minutes(found.violation_us), minutes(found.covered_us)) == (10, 20)

    def test_the_newest_reading_holds_nothing_yet(self) -> None:
        found = judged([(0, 5), (10, 9)], above(allowance=5))
        assert (found.violation_us, found.runs) == (0, [])

    def test_a_gap_counts_only_up_to_max_gap_and_the_rest_is_uncovered(self) -> None:
        found = judged([(0, 9), (100, 5)], above(max_gap=60))
        assert [minutes(us) for us in (found.violation_us, found.covered_us, found.uncovered_us)] == [60, 60, 40]
        assert minutes(found.runs[0].uncovered_us) == 40

    def test_a_gap_of_exactly_max_gap_is_covered_to_its_end(self) -> None:
        assert judged([(0, 9), (60, 5)], above(max_gap=60)).uncovered_us == 0

    def test_a_gap_does_not_end_a_run(self) -> None:
        (run,) = judged([(0, 9), (500, 9), (510, 5)], above(max_gap=60, allowance=65)).runs
        assert [minutes(us) for us in (run.start_us, run.triggered_us, run.end_us, run.run_us)] == [0, 505, 510, 70]

    def test_the_last_reading_holds_until_custody_ends(self) -> None:
        (run,) = judged([(0, 9)], above(allowance=25), until=30).runs
        assert [minutes(us) for us in (run.triggered_us, run.end_us, run.run_us)] == [25, 30, 30]

    def test_the_last_reading_holds_at_most_max_gap_when_custody_ends_later(self) -> None:
        (run,) = judged([(0, 9)], above(max_gap=60), until=100).runs
        assert [minutes(us) for us in (run.end_us, run.run_us, run.uncovered_us)] == [100, 60, 40]

    def test_nothing_holds_into_a_custody_the_time_up_to_its_first_reading_is_uncovered(self) -> None:
        found = judged([(30, 5), (40, 5)], above())
        assert [minutes(us) for us in (found.covered_us, found.uncovered_us)] == [10, 30]

    def test_a_custody_without_a_reading_is_wholly_uncovered(self) -> None:
        found = judged([], above(), until=90)
        assert [minutes(us) for us in (found.covered_us, found.uncovered_us)] == [0, 90]
        assert found.extreme is None

    def test_a_failed_reading_is_as_if_it_were_not_there(self) -> None:
        assert judged([(0, 9), (10, NAN), (20, 5)], above()) == judged([(0, 9), (20, 5)], above())

    def test_equal_sensed_times_are_judged_in_their_order(self) -> None:
        (run,) = judged([(0, 5), (10, 9), (10, 5), (20, 5)], above()).runs
        assert [minutes(us) for us in (run.start_us, run.triggered_us, run.end_us, run.run_us)] == [10, 10, 10, 0]
        assert (run.readings, run.extreme) == (1, 9)

    def test_a_reading_at_the_end_of_custody_belongs_to_the_next(self) -> None:
        found = judged([(0, 5), (30, 9)], above(), until=30)
        assert (found.readings, found.runs) == (1, [])
        assert minutes(found.covered_us) == 30


class TestViolation:
    @pytest.mark.parametrize(
        ("inclusive", "value", "violates"), [(False, 8.0, False), (True, 8.0, True), (False, 8.001, True), (True, 7.999, False)]
    )
    def test_above_is_strict_unless_inclusive(self, inclusive: bool, value: float, violates: bool) -> None:
        assert bool(judged([(0, value)], above(inclusive=inclusive)).runs) is violates

    @pytest.mark.parametrize(
        ("inclusive", "value", "violates"), [(False, -0.5, False), (True, -0.5, True), (False, -0.501, True), (True, -0.499, False)]
    )
    def test_below_is_strict_unless_inclusive(self, inclusive: bool, value: float, violates: bool) -> None:
        assert bool(judged([(0, value)], above(-0.5, direction=-1, inclusive=inclusive)).runs) is violates

    def test_zero_degrees_is_a_threshold_like_any_other(self) -> None:
        assert judged([(0, -0.1)], above(0.0, direction=-1)).runs
        assert not judged([(0, 0.0)], above(0.0, direction=-1)).runs

    def test_any_metric_has_limits(self) -> None:
        for metric in range(len(COLUMNS)):
            limits = limit_rows(Limit(0.5))
            limits["metric"] = metric
            tracks = exposure.fresh(metric, exposure.SINGLE, 0, 1, 0)
            window_rows = np.array([(0, exposure.FOREVER_US, 0)], exposure.WINDOW)
            groups = Groups(np.zeros(1, np.int32), np.array([0, 1]), np.zeros(1, np.int64))
            one = np.ones(1, np.int32)
            runs = exposure.advance(
                tracks, np.zeros(1, np.int32), one, groups, np.array([5]), (metric,), np.ones((1, 1)), window_rows, limits
            )
            assert runs["start_us"].tolist() == [5]


class TestRun:
    def test_without_a_clear_threshold_it_goes_on_exactly_while_values_violate(self) -> None:
        runs = judged([(0, 9), (10, 8), (20, 9), (30, 5)], above()).runs
        assert [(minutes(run.start_us), minutes(run.end_us)) for run in runs] == [(0, 10), (20, 30)]

    def test_with_hysteresis_it_goes_on_until_a_value_is_at_the_clear_threshold(self) -> None:
        (run,) = judged([(0, 9), (10, 7.5), (20, 7.1), (30, 7.0), (40, 7.5)], above(clear=7.0)).runs
        assert [minutes(us) for us in (run.start_us, run.end_us, run.run_us)] == [0, 30, 30]
        assert run.readings == 3
        assert run.mean == pytest.approx((9 + 7.5 + 7.1) / 3)

    def test_hysteresis_below(self) -> None:
        (run,) = judged([(0, 1), (10, 2.5), (20, 3.0)], above(2.0, direction=-1, clear=3.0)).runs
        assert (minutes(run.end_us), run.extreme) == (20, 1)

    def test_a_value_in_the_hysteresis_band_begins_no_run(self) -> None:
        assert judged([(0, 7.5), (10, 7.5)], above(clear=7.0)).violation_us == 0

    def test_with_zero_covered_time_the_mean_is_the_extreme(self) -> None:
        (run,) = judged([(0, 9.5)], above()).runs
        assert (run.run_us, run.mean, run.end_us) == (0, 9.5, None)

    def test_the_extreme_is_dated_at_the_earliest_of_equals(self) -> None:
        found = judged([(0, 9), (10, 11), (20, 11), (30, 10), (40, 5)], above())
        assert (found.runs[0].extreme, minutes(found.runs[0].extreme_us)) == (11, 10)
        assert (found.extreme, minutes(found.extreme_us)) == (11, 10)

    def test_the_reading_that_ends_a_run_is_not_of_it(self) -> None:
        (run,) = judged([(0, 9), (10, 5)], above()).runs
        assert (run.readings, run.weighted) == (1, 9.0 * 10 * MINUTE)

    def test_a_run_open_when_custody_ends_ends_there(self) -> None:
        (run,) = judged([(0, 5), (10, 9), (20, 9)], above(), until=25).runs
        assert (minutes(run.end_us), minutes(run.run_us)) == (25, 15)


class TestSingle:
    def test_the_trigger_lies_inside_the_hold_interval(self) -> None:
        (run,) = judged([(0, 9), (40, 10), (80, 10), (90, 5)], above(allowance=60)).runs
        assert [minutes(us) for us in (run.start_us, run.triggered_us)] == [0, 60]

    def test_allowance_zero_triggers_at_the_first_violating_reading(self) -> None:
        (run,) = judged([(0, 5), (10, 9)], above(allowance=0)).runs
        assert minutes(run.triggered_us) == 10

    def test_a_run_that_never_reaches_the_allowance_is_no_excursion_but_its_time_and_extreme_are_kept(self) -> None:
        found = judged([(0, 9), (59, 5)], above(allowance=60))
        assert (found.runs, minutes(found.violation_us), found.extreme) == ([], 59, 9)

    def test_an_allowance_reached_exactly_at_the_end_is_reached(self) -> None:
        (run,) = judged([(0, 9), (60, 5)], above(allowance=60)).runs
        assert minutes(run.triggered_us) == minutes(run.end_us) == 60

    def test_an_allowance_reached_exactly_where_cover_ends_is_reached_there(self) -> None:
        (run,) = judged([(0, 9), (100, 5)], above(allowance=60, max_gap=60)).runs
        assert minutes(run.triggered_us) == 60

    def test_uncovered_time_does_not_count_towards_the_allowance(self) -> None:
        assert not judged([(0, 9), (100, 5)], above(allowance=61, max_gap=60)).runs

    def test_each_run_is_held_against_the_allowance_alone(self) -> None:
        assert not judged([(0, 9), (40, 5), (50, 9), (90, 5)], above(allowance=60)).runs

    def test_a_limit_without_allowance_is_counted_and_never_an_excursion(self) -> None:
        found = judged([(0, 9), (600, 5)], above(allowance_us=None, max_gap=1000))
        assert (found.runs, minutes(found.violation_us)) == ([], 600)

    def test_the_trigger_that_comes_with_the_custodys_end(self) -> None:
        (run,) = judged([(0, 9)], above(allowance=30), until=30).runs
        assert (minutes(run.triggered_us), minutes(run.end_us)) == (30, 30)


class TestSecondAllowance:
    """FDA Food Code: 4 h above 5 °C, or 6 h if never above 21 °C."""

    def fda(self) -> Limit:
        return above(5.0, allowance=360, beyond=21.0, beyond_allowance=240, max_gap=60)

    def hourly(self, *values: float) -> list[tuple[float, float]]:
        return [(60 * hour, value) for hour, value in enumerate(values)]

    def test_never_beyond_six_hours_are_allowed(self) -> None:
        (run,) = judged(self.hourly(20, 20, 20, 20, 20, 20, 20, 5), self.fda()).runs
        assert minutes(run.triggered_us) == 360

    def test_at_the_extreme_is_not_beyond_it(self) -> None:
        assert not judged(self.hourly(21, 21, 21, 21, 21, 5), self.fda()).runs

    def test_once_beyond_four_hours_are_allowed(self) -> None:
        (run,) = judged(self.hourly(20, 22, 20, 20, 20, 5), self.fda()).runs
        assert minutes(run.triggered_us) == 240

    def test_beyond_after_the_shorter_allowance_has_passed_triggers_at_that_reading(self) -> None:
        (run,) = judged(self.hourly(20, 20, 20, 20, 20, 22, 5), self.fda()).runs
        assert minutes(run.triggered_us) == 300

    def test_each_run_starts_again_with_the_longer_allowance(self) -> None:
        assert not judged(self.hourly(22, 5, 20, 20, 20, 20, 20, 5), self.fda()).runs


class TestCumulative:
    def limit(self, allowance: float = 60) -> Limit:
        return above(mode=CUMULATIVE, allowance=allowance)

    def test_time_in_violation_adds_up_and_never_resets(self) -> None:
        runs = judged([(0, 9), (40, 5), (50, 9), (90, 5)], self.limit()).runs
        assert [[minutes(us) for us in (run.start_us, run.triggered_us, run.end_us)] for run in runs] == [[50, 70, 90]]

    def test_every_run_after_the_sum_reached_the_allowance_is_an_excursion_from_its_start(self) -> None:
        runs = judged([(0, 9), (60, 5), (70, 9), (71, 5), (80, 9)], self.limit()).runs
        assert [[minutes(us) for us in (run.start_us, run.triggered_us)] for run in runs] == [[0, 60], [70, 70], [80, 80]]

    def test_custodies_of_one_tag_on_one_carrier_add_up(self) -> None:
        (run,) = judged([(0, 9), (30, 5)], self.limit(), violation_us=50 * MINUTE).runs
        assert minutes(run.triggered_us) == 10

    def test_a_sum_reached_in_an_earlier_custody_makes_every_run_an_excursion(self) -> None:
        (run,) = judged([(5, 9), (6, 5)], self.limit(), violation_us=60 * MINUTE).runs
        assert minutes(run.triggered_us) == 5

    def test_the_sum_goes_on_across_windows_of_the_limit(self) -> None:
        windows = [in_window(0, 40, self.limit()), in_window(100, 400, self.limit())]
        (run,) = judged([(0, 9), (50, 5), (100, 9), (130, 5)], windows).runs
        assert [minutes(us) for us in (run.start_us, run.triggered_us)] == [100, 120]


class TestWindows:
    def test_a_hold_into_a_window_begins_the_run_at_the_windows_start(self) -> None:
        found = judged([(0, 9), (50, 5)], [in_window(20, 100, above())])
        (run,) = found.runs
        assert [minutes(us) for us in (run.start_us, run.end_us, run.run_us, run.extreme_us)] == [20, 50, 30, 20]
        assert (run.readings, found.readings) == (1, 2)

    def test_a_run_ends_at_latest_at_the_windows_end(self) -> None:
        (run,) = judged([(0, 9), (50, 9)], [in_window(0, 30, above())]).runs
        assert [minutes(us) for us in (run.end_us, run.run_us)] == [30, 30]

    def test_one_hold_interval_crosses_several_windows(self) -> None:
        windows = [in_window(low, low + 5, above(allowance=3)) for low in (10, 20, 30)]
        runs = judged([(0, 9), (50, 5)], windows).runs
        assert [[minutes(us) for us in (run.start_us, run.triggered_us, run.end_us)] for run in runs] == [
            [10, 13, 15],
            [20, 23, 25],
            [30, 33, 35],
        ]

    def test_cover_that_ends_before_a_window_begins_no_run_in_it(self) -> None:
        found = judged([(0, 9), (50, 5)], [in_window(20, 40, above(max_gap=20))])
        assert (found.runs, found.covered_us, minutes(found.uncovered_us), found.readings) == ([], 0, 20, 0)

    def test_cover_that_reaches_into_a_window_begins_a_run_in_it(self) -> None:
        (run,) = judged([(0, 9), (50, 5)], [in_window(20, 40, above(max_gap=21))]).runs
        assert [minutes(us) for us in (run.start_us, run.end_us, run.run_us, run.uncovered_us)] == [20, 40, 1, 19]

    def test_a_reading_at_the_windows_start_is_inside(self) -> None:
        assert judged([(20, 9)], [in_window(20, 40, above())]).readings == 1

    def test_a_reading_at_the_windows_end_is_outside(self) -> None:
        found = judged([(10, 5), (40, 9), (50, 9)], [in_window(0, 40, above())])
        assert (found.readings, found.runs) == (1, [])

    def test_a_reading_at_the_windows_start_ends_what_held_before_it(self) -> None:
        found = judged([(0, 9), (20, 5), (30, 5)], [in_window(20, 40, above())])
        assert (found.runs, found.readings) == ([], 2)

    def test_a_new_profile_version_ends_the_run_and_the_hold_begins_the_next(self) -> None:
        runs = judged([(0, 9), (50, 5)], [in_window(0, 30, above(8.0)), in_window(30, 100, above(8.5))]).runs
        assert [(minutes(run.start_us), minutes(run.end_us)) for run in runs] == [(0, 30), (30, 50)]

    def test_a_new_profile_version_that_allows_the_value_begins_no_run(self) -> None:
        runs = judged([(0, 9), (50, 9)], [in_window(0, 30, above(8.0)), in_window(30, 100, above(9.5))]).runs
        assert [(minutes(run.start_us), minutes(run.end_us)) for run in runs] == [(0, 30)]

    def test_hysteresis_does_not_carry_a_run_into_the_next_window(self) -> None:
        limit = above(clear=5.0)
        runs = judged([(0, 9), (10, 7), (50, 7)], [in_window(0, 30, limit), in_window(30, 100, above(8.1, clear=5.0))]).runs
        assert [(minutes(run.start_us), minutes(run.end_us)) for run in runs] == [(0, 30)]

    def test_a_gap_reaches_to_the_windows_end_without_ending_the_run_before(self) -> None:
        (run,) = judged([(0, 9), (500, 5)], [in_window(0, 120, above(max_gap=60))]).runs
        assert [minutes(us) for us in (run.end_us, run.run_us, run.uncovered_us)] == [120, 60, 60]

    def test_an_ignore_period_clips_like_a_window(self) -> None:
        found = judged([(0, 9), (10, 12), (50, 5)], above(), start=30)
        (run,) = found.runs
        assert [minutes(us) for us in (run.start_us, run.end_us, run.extreme_us)] == [30, 50, 30]
        assert (found.readings, found.uncovered_us) == (2, 0)

    def test_uncovered_time_counts_in_windows_only(self) -> None:
        found = judged([(100, 5)], [in_window(10, 20, above()), in_window(60, 200, above())], until=300)
        assert [minutes(us) for us in (found.covered_us, found.uncovered_us)] == [60, 10 + 40 + 40]

    def test_a_window_begun_at_the_custodys_end_is_not_met(self) -> None:
        found = judged([(0, 9)], [in_window(0, 30, above()), in_window(30, 60, above(7.0))], until=30)
        assert [(minutes(run.start_us), minutes(run.end_us)) for run in found.runs] == [(0, 30)]

    def test_without_windows_nothing_is_judged(self) -> None:
        assert judged([(0, 9), (10, 9)], [], until=50) == plain.Exposure()


class TestStream:
    def rows(self, limit: Limit) -> tuple[Any, Any, Any]:
        windows = [Window(0, exposure.FOREVER_US, limit)]
        return (track_of(windows, 0), *tables(windows))

    def test_a_confirmed_run_is_told_at_once_and_again_when_it_ended(self) -> None:
        track, windows, limits = self.rows(above(allowance=30))
        times, values = np.array([0, 20, 40]) * MINUTE, np.array([9.0, 10.0, 9.0])
        (told,) = exposure.advance_series(track, 0, times, values, windows, limits)
        assert (told["kind"], told["end_us"], told["triggered_us"]) == (exposure.CONFIRMED, exposure.FOREVER_US, 30 * MINUTE)
        (ended,) = exposure.advance_series(track, 0, np.array([50 * MINUTE]), np.array([5.0]), windows, limits)
        assert (ended["kind"], ended["end_us"], ended["triggered_us"]) == (exposure.ENDED, 50 * MINUTE, 30 * MINUTE)
        assert (ended["run_us"], ended["readings"], ended["extreme_us"]) == (50 * MINUTE, 3, 20 * MINUTE)

    def test_an_open_run_is_told_as_it_stands(self) -> None:
        track, windows, limits = self.rows(above())
        exposure.advance_series(track, 0, np.array([0, 20]) * MINUTE, np.array([9.0, 10.0]), windows, limits)
        (run,) = exposure.open_runs(track, [0], windows)
        assert (run["limit"], run["run_us"], run["extreme"], run["end_us"]) == (0, 20 * MINUTE, 10.0, exposure.FOREVER_US)
        assert len(exposure.open_runs(exposure.fresh(0, 1, 0, 1, 0), [0], windows)) == 0

    def test_more_runs_than_a_buffer_holds_are_all_told(self) -> None:
        n = 20_000
        track, windows, limits = self.rows(above())
        runs = exposure.advance_series(track, 0, np.arange(n) * MINUTE, np.where(np.arange(n) % 2, 5.0, 9.0), windows, limits)
        assert len(runs) == n
        assert runs["start_us"].tolist() == [2 * (i // 2) * MINUTE for i in range(n)]

    def test_more_windows_than_a_buffer_holds_are_crossed_by_one_hold(self) -> None:
        many = [Window(10 * i, 10 * i + 5, Limit(8.0)) for i in range(1000)]
        windows, limits = tables(many)
        track = track_of(many, 0)
        runs = exposure.advance_series(track, 0, np.array([0, HOUR]), np.array([9.0, 5.0]), windows, limits)
        assert runs["kind"].tolist() == [exposure.CONFIRMED, exposure.ENDED] * 1000

    def test_closing_many_tracks_tells_all_their_ends(self) -> None:
        windows, limits = tables([Window(0, exposure.FOREVER_US, above(allowance=10))])
        tracks = exposure.fresh(0, exposure.SINGLE, 0, np.ones(3000), 0)
        for row in range(0, 3000, 2):
            exposure.advance_series(tracks, row, np.array([0]), np.array([9.0]), windows, limits)
        runs = exposure.close(tracks, np.arange(3000), 20 * MINUTE, windows, limits)
        ended = runs[runs["kind"] == exposure.ENDED]
        assert ended["track"].tolist() == list(range(0, 3000, 2))
        assert len(runs) == 3000
        assert set(tracks["until_us"]) == {20 * MINUTE}

    def test_a_custody_cannot_be_closed_before_what_was_judged(self) -> None:
        track, windows, limits = self.rows(above())
        exposure.advance_series(track, 0, np.array([20 * MINUTE]), np.array([9.0]), windows, limits)
        with pytest.raises(ValueError, match="judge it again"):
            exposure.close(track, 0, 20 * MINUTE, windows, limits)

    def test_mkt_tracks_are_left_to_their_own_series(self) -> None:
        windows, limits = tables([Window(0, exposure.FOREVER_US, above(mode=plain.MKT))])
        track = exposure.fresh(0, exposure.MKT, 0, 1, 0)
        groups = Groups(np.zeros(1, np.int32), np.array([0, 1]), np.zeros(1, np.int64))
        one = np.ones(1, np.int32)
        runs = exposure.advance(track, one - 1, one, groups, np.array([5]), (0,), np.full((1, 1), 30.0), windows, limits)
        assert len(runs) == 0
        assert track["readings"].tolist() == [0]

    def test_read_only_columns_are_taken_as_they_are(self) -> None:
        track, windows, limits = self.rows(above())
        times = np.frombuffer(np.array([0, 10], np.int64).tobytes(), np.int64)
        values = np.frombuffer(np.array([9.0, 5.0]).tobytes(), np.float64)
        assert len(exposure.advance_series(track, 0, times, values, windows, limits)) == 2

    def test_a_row_is_small(self) -> None:
        assert exposure.TRACK.itemsize == 128

    def test_too_many_windows_are_refused(self) -> None:
        with pytest.raises(ValueError, match="windows"):
            exposure.fresh(0, exposure.SINGLE, 0, exposure.MAX_WINDOWS + 1, 0)
