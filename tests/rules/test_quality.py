"""Signal quality: flags beside the values, the same however the readings came (handbook 4)."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from geopy.distance import geodesic
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.rules import quality
from actors.rules.errors import InvalidArgument
from actors.rules.quality import MetricSettings, QualitySettings
from actors.rules.readings import CODE, EARLIEST_US, FAIL, GOOD, LATITUDE, LONGITUDE, MISSING, NOT_EVALUATED, SUSPECT
from tests.reference import quality as slow

MINUTE_US = 60_000_000
TEMPERATURE = (CODE["temperature_c"],)


def flags_of(metric: MetricSettings | None, values: list[float], minutes: list[float] | None = None) -> list[int]:
    """The flags of a temperature series, one reading a minute where no times are given."""
    times = EARLIEST_US + (np.array(minutes or range(len(values)), np.float64) * MINUTE_US).astype(np.int64)
    rules = QualitySettings({} if metric is None else {"temperature_c": metric})
    found: list[int] = quality.flags(rules, TEMPERATURE, times, np.array([values], np.float64))[0].tolist()
    return found


def test_without_settings_nothing_is_evaluated_but_the_date() -> None:
    values = np.array([[4.0, math.nan, 99.0]])
    times = EARLIEST_US + np.arange(3)
    assert quality.flags(None, TEMPERATURE, times, values).tolist() == [[NOT_EVALUATED, MISSING, NOT_EVALUATED]]
    assert quality.untested(values).tolist() == [[NOT_EVALUATED, MISSING, NOT_EVALUATED]]
    assert quality.flags(None, TEMPERATURE, times - 1, values).tolist() == [[FAIL, MISSING, NOT_EVALUATED]]


def test_a_date_before_the_tag_was_made_is_a_fail_and_a_possible_date_makes_no_value_good() -> None:
    rules = QualitySettings(not_before_us=EARLIEST_US + 10, not_after_us=EARLIEST_US + 20)
    times = EARLIEST_US + np.array([9, 10, 20, 21])
    assert quality.flags(rules, TEMPERATURE, times, np.zeros((1, 4))).tolist() == [[FAIL, NOT_EVALUATED, NOT_EVALUATED, FAIL]]


def test_the_gross_range_includes_its_ends() -> None:
    span = MetricSettings(fail_low=-40, suspect_low=0, suspect_high=8, fail_high=60)
    assert flags_of(span, [-40.1, -40, -0.1, 0, 8, 8.1, 60, 60.1]) == [FAIL, SUSPECT, SUSPECT, GOOD, GOOD, SUSPECT, SUSPECT, FAIL]


def test_zero_degrees_is_a_threshold_like_any_other() -> None:
    assert flags_of(MetricSettings(fail_high=0.0), [-1.0, 0.0, 0.1]) == [GOOD, GOOD, FAIL]


def test_a_spike_is_measured_against_the_mean_of_both_neighbours() -> None:
    spike = MetricSettings(spike_suspect=2.0, spike_fail=5.0)
    assert flags_of(spike, [4, 6, 4]) == [NOT_EVALUATED, GOOD, NOT_EVALUATED]
    assert flags_of(spike, [4, 6.5, 4]) == [NOT_EVALUATED, SUSPECT, NOT_EVALUATED]
    assert flags_of(spike, [4, 10, 6]) == [NOT_EVALUATED, SUSPECT, NOT_EVALUATED]
    assert flags_of(spike, [4, 9.5, 4]) == [NOT_EVALUATED, FAIL, NOT_EVALUATED]


def test_the_neighbours_of_a_spike_are_judged_with_it_whatever_its_own_flag() -> None:
    assert flags_of(MetricSettings(spike_fail=5.0), [4, 4, 40, 4, 4]) == [NOT_EVALUATED, FAIL, FAIL, FAIL, NOT_EVALUATED]


def test_absent_values_are_missing_and_no_neighbours() -> None:
    nan = math.nan
    spike = MetricSettings(spike_suspect=2.0)
    assert flags_of(spike, [4, nan, 9, nan, nan, 4, nan]) == [NOT_EVALUATED, MISSING, SUSPECT, MISSING, MISSING, NOT_EVALUATED, MISSING]


def test_the_rate_of_change_is_per_second_and_needs_time_to_pass() -> None:
    rate = MetricSettings(rate_per_s=0.1)
    assert flags_of(rate, [4, 10, 16.5, 16.5], [0, 1, 2, 2]) == [NOT_EVALUATED, GOOD, SUSPECT, NOT_EVALUATED]


def test_a_flat_line_begins_when_it_has_lasted_and_ends_with_the_first_real_change() -> None:
    flat = MetricSettings(flat_tolerance=0.1, flat_suspect_us=2 * MINUTE_US, flat_fail_us=4 * MINUTE_US)
    assert flags_of(flat, [4, 4.05, 4, 4.02, 4, 4, 4.2, 4.2]) == [GOOD, GOOD, SUSPECT, SUSPECT, FAIL, FAIL, GOOD, GOOD]


def test_a_range_equal_to_the_tolerance_is_not_flat() -> None:
    flat = MetricSettings(flat_tolerance=0.5, flat_fail_us=2 * MINUTE_US)
    assert flags_of(flat, [4, 4.5, 4, 4.5]) == [GOOD] * 4
    assert flags_of(flat, [4, 4.25, 4, 4.25]) == [GOOD, GOOD, FAIL, FAIL]


def test_a_slow_drift_is_no_flat_line() -> None:
    assert flags_of(MetricSettings(flat_tolerance=0.5, flat_fail_us=3 * MINUTE_US), [0.25 * k for k in range(9)]) == [GOOD] * 9


def test_silence_between_two_equal_values_is_no_flat_line_where_gaps_are_known() -> None:
    values, minutes = [4.0, 4.0, 4.0], [0.0, 1.0, 500.0]
    flat = MetricSettings(flat_tolerance=0.5, flat_fail_us=60 * MINUTE_US)
    assert flags_of(flat, values, minutes) == [GOOD, GOOD, FAIL]
    assert flags_of(dataclasses.replace(flat, gap_us=10 * MINUTE_US), values, minutes) == [GOOD, GOOD, SUSPECT]


def test_the_reading_after_a_gap_is_suspect() -> None:
    assert flags_of(MetricSettings(gap_us=2 * MINUTE_US), [4, 4, 4], [0, 2, 4.1]) == [NOT_EVALUATED, GOOD, SUSPECT]


def test_the_worst_test_decides() -> None:
    both = MetricSettings(fail_high=60.0, spike_suspect=5.0)
    assert flags_of(both, [20, 20, 70, 20]) == [GOOD, SUSPECT, FAIL, GOOD]


def test_a_jump_of_position_is_flagged_on_both_its_coordinates_and_on_nothing_else() -> None:
    rules = QualitySettings(speed_suspect_mps=50.0, speed_fail_mps=300.0)
    codes = (CODE["temperature_c"], LATITUDE, LONGITUDE)
    times = EARLIEST_US + np.arange(4) * MINUTE_US
    values = np.array([[4.0, 4, 4, 4], [50.0, 50.01, 51.0, math.nan], [4.0, 4.0, 4.0, math.nan]])
    found = quality.flags(rules, codes, times, values)
    assert found[0].tolist() == [NOT_EVALUATED] * 4
    assert found[1].tolist() == found[2].tolist() == [NOT_EVALUATED, GOOD, FAIL, MISSING]


def test_the_geodesic_decides_a_speed_that_the_fast_bounds_cannot() -> None:
    """Antipodal jumps are where the bounds are widest; half the limits lie within them."""
    start = np.array([0, 2], np.int64)
    times = EARLIEST_US + np.array([0, 1_000_000])
    latitude, longitude = np.array([0.3, -0.2]), np.array([0.0, 179.4])
    truth = geodesic((0.3, 0.0), (-0.2, 179.4)).meters
    for limit, expected in ((truth * (1 - 1e-9), FAIL), (truth * (1 + 1e-9), GOOD), (truth * 0.9, FAIL), (truth * 1.1, GOOD)):
        limits = np.array([[math.nan, limit]])
        assert quality.speed_flags_of_segments(limits, start, times, latitude, longitude).tolist() == [NOT_EVALUATED, expected]


GRID = st.sampled_from([0.0, 0.25, 0.5, 1.0, 4.0, 4.25, 9.0, -3.0])
TIMES = st.lists(st.integers(0, 4), min_size=0, max_size=25).map(lambda steps: np.cumsum(steps, dtype=np.int64) * MINUTE_US + EARLIEST_US)


@st.composite
def metric_settings(draw: st.DrawFn) -> MetricSettings:
    rules: dict[str, Any] = {}
    for names, values in (
        (("fail_low", "suspect_low", "suspect_high", "fail_high"), (-2.0, 0.25, 4.0, 8.0)),
        (("spike_suspect", "spike_fail"), (0.5, 3.0)),
        (("rate_per_s",), (1 / 60,)),
        (("gap_us",), (2 * MINUTE_US,)),
    ):
        for name, value in zip(names, values, strict=True):
            if draw(st.booleans()):
                rules[name] = value
    durations = draw(st.sampled_from([(), ("flat_suspect_us",), ("flat_fail_us",), ("flat_suspect_us", "flat_fail_us")]))
    if durations:
        rules["flat_tolerance"] = draw(st.sampled_from([0.5, 1.0]))
        rules |= {name: {"flat_suspect_us": 3, "flat_fail_us": 6}[name] * MINUTE_US for name in durations}
    return MetricSettings(**rules)


@settings(max_examples=300, deadline=None)
@given(st.data(), metric_settings(), TIMES)
def test_flags_agree_with_the_value_by_value_reference(data: st.DataObject, metric: MetricSettings, times: Any) -> None:
    values = data.draw(st.lists(GRID | st.none(), min_size=len(times), max_size=len(times)))
    row = np.array([[math.nan if value is None else value for value in values]], np.float64)
    found = quality.flags(QualitySettings({"temperature_c": metric}), TEMPERATURE, times, row)
    rules = {name: value for name, value in dataclasses.asdict(metric).items() if value is not None}
    assert found[0].tolist() == slow.flags(rules, times.tolist(), values)


FIXES = st.sampled_from([(0.0, 0.0), (0.0, 0.001), (0.001, 0.0), (89.9, 10.0), (0.0, 179.99), (0.0, -179.99), (-45.0, 70.0)])


@settings(max_examples=100, deadline=None)
@given(st.data(), TIMES, st.sampled_from([(None, 3.0), (1.0, None), (1.0, 20_000.0)]))
def test_speed_flags_agree_with_the_geodesic_reference(data: st.DataObject, times: Any, limits: tuple[float | None, float | None]) -> None:
    fixes = data.draw(st.lists(FIXES, min_size=len(times), max_size=len(times)))
    rules = QualitySettings(speed_suspect_mps=limits[0], speed_fail_mps=limits[1])
    found = quality.flags(rules, (LATITUDE, LONGITUDE), times, np.array(fixes, np.float64).reshape(-1, 2).T.copy())
    assert found[0].tolist() == found[1].tolist() == slow.speed_flags(*limits, times.tolist(), fixes)


@settings(max_examples=300, deadline=None)
@given(st.data(), metric_settings(), metric_settings(), TIMES, st.booleans())
def test_readings_that_come_in_pieces_get_the_flags_of_the_whole_series(
    data: st.DataObject, warm: MetricSettings, humid: MetricSettings, times: Any, position: bool
) -> None:
    """The newest readings with only the tail that is asked for, the flags kept from piece to piece with the changes applied."""
    n = len(times)
    values = np.full((4, n), math.nan)
    for i in range(n):
        for k in range(2):
            value = data.draw(GRID | st.none())
            values[k, i] = math.nan if value is None else value
        fix = data.draw(FIXES | st.none())
        if fix is not None:
            values[2:, i] = fix
    codes = (0, 1, LATITUDE, LONGITUDE)
    rules = QualitySettings({"temperature_c": warm, "relative_humidity_pct": humid}, speed_fail_mps=30.0 if position else None)
    kept = np.zeros((4, n), np.uint8)
    done = 0
    while done < n:
        until = done + data.draw(st.integers(1, n - done))
        first = quality.tail_start(rules, codes, times[:done], values[:, :done])
        new, changed = quality.advance(
            rules, codes, times[first:done], values[:, first:done], kept[:, first:done], times[done:until], values[:, done:until]
        )
        kept[:, done:until] = new
        for change in changed:
            assert kept[change.k, first + change.i] == change.before
            kept[change.k, first + change.i] = change.after
        done = until
    np.testing.assert_array_equal(kept, quality.flags(rules, codes, times, values))


def test_the_newest_readings_spike_waits_for_its_successor_and_is_then_a_change() -> None:
    rules = QualitySettings({"temperature_c": MetricSettings(spike_fail=5.0)})
    times = EARLIEST_US + np.arange(3) * MINUTE_US
    before = quality.flags(rules, TEMPERATURE, times[:2], np.array([[4.0, 40.0]]))
    assert before.tolist() == [[NOT_EVALUATED, NOT_EVALUATED]]
    new, changed = quality.advance(rules, TEMPERATURE, times[:2], np.array([[4.0, 40.0]]), before, times[2:], np.array([[4.0]]))
    assert new.tolist() == [[NOT_EVALUATED]]
    assert changed == [quality.Changed(0, 1, NOT_EVALUATED, FAIL)]


def test_many_series_at_once_are_judged_each_by_itself() -> None:
    spike = QualitySettings({"temperature_c": MetricSettings(spike_fail=5.0)}).row(0)
    high = QualitySettings({"temperature_c": MetricSettings(fail_high=8.0)}).row(0)
    rows = np.concatenate([spike, high, spike])
    start = np.array([0, 3, 5, 5])
    found = quality.flags_of_segments(rows, start, EARLIEST_US + np.arange(5), np.array([4.0, 40, 4, 40, 4]))
    assert found.tolist() == [NOT_EVALUATED, FAIL, NOT_EVALUATED, FAIL, GOOD]


FULL = QualitySettings(
    {"temperature_c": MetricSettings(-40, 60, 0, 8, 1.0, 2.0, 0.1, 0.5, 10, 20, 30), "shock_g": MetricSettings(fail_high=100)},
    speed_suspect_mps=40.0,
    speed_fail_mps=300.0,
    not_before_us=EARLIEST_US + 1,
)


def test_settings_survive_json() -> None:
    assert QualitySettings.from_data(json.loads(json.dumps(FULL.to_data()))) == FULL
    assert QualitySettings.from_data({}) == quality.DEFAULT
    quality.validate(FULL)
    quality.validate(quality.DEFAULT)


@pytest.mark.parametrize(
    "data", [{"metrics": 5}, {"metrics": {"temperature_c": 5}}, {"metrics": {"temperature_c": {"warm": 1}}}, {"speed": 1}]
)
def test_data_of_another_shape_is_no_settings(data: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        QualitySettings.from_data(data)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"fail_low": math.nan}, "fail_low"),
        ({"fail_high": math.inf}, "fail_high"),
        ({"fail_low": 60.0}, "fail_high"),
        ({"suspect_high": 0.0}, "suspect_high"),
        ({"suspect_low": -41.0}, "suspect_low"),
        ({"suspect_high": 61.0}, "fail_high"),
        ({"spike_suspect": 0.0}, "spike_suspect"),
        ({"spike_fail": 1.0}, "spike_fail"),
        ({"rate_per_s": -1.0}, "rate_per_s"),
        ({"flat_tolerance": 0.0}, "flat_tolerance"),
        ({"flat_tolerance": None}, "flat_tolerance"),
        ({"flat_suspect_us": None, "flat_fail_us": None}, "flat_tolerance"),
        ({"flat_suspect_us": 20}, "flat_fail"),
        ({"gap_us": 0}, "gap"),
        ({"gap_us": 1.5}, "gap"),
        ({"flat_fail_us": 2**63}, "flat_fail"),
        ({"fail_low": "cold"}, "fail_low"),
        ({"spike_fail": True}, "spike_fail"),
    ],
)
def test_wrong_settings_are_refused_with_their_field(change: dict[str, Any], field: str) -> None:
    wrong = dataclasses.replace(FULL.metrics["temperature_c"], **change)
    with pytest.raises(InvalidArgument) as error:
        quality.validate(QualitySettings({"temperature_c": wrong}))
    assert error.value.field == f"quality.metrics.temperature_c.{field}"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (QualitySettings({"warmth": MetricSettings()}), "metrics"),
        (QualitySettings({"latitude_deg": MetricSettings(fail_high=1.0)}), "metrics"),
        (QualitySettings(speed_fail_mps=0.0), "speed_fail_mps"),
        (QualitySettings(speed_suspect_mps=9.0, speed_fail_mps=9.0), "speed_fail_mps"),
        (QualitySettings(not_after_us=EARLIEST_US), "not_after"),
        (QualitySettings(not_before_us=-(2**70)), "not_before"),
    ],
)
def test_wrong_tag_settings_are_refused_with_their_field(wrong: QualitySettings, field: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        quality.validate(wrong)
    assert error.value.field == f"quality.{field}"
