"""Which readings beside a span its flags look at: with these the flags are those of the whole series, and fewer are asked for than all."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from actors.rules import neighbours, quality, readings
from actors.rules.quality import MetricSettings, QualitySettings
from actors.rules.readings import EARLIEST_US, LATITUDE, LONGITUDE, MINUTE_US, NO_SEQUENCE, Batch

SETTINGS = QualitySettings(
    {
        "temperature_c": MetricSettings(spike_suspect=2.0, spike_fail=5.0, rate_per_s=0.05, gap_us=40 * MINUTE_US),
        "relative_humidity_pct": MetricSettings(flat_tolerance=1.0, flat_suspect_us=20 * MINUTE_US, flat_fail_us=90 * MINUTE_US),
        "light_lux": MetricSettings(fail_high=9.0),
    },
    speed_fail_mps=30.0,
)
CODES = (0, 1, 3, LATITUDE, LONGITUDE)
NAN = math.nan


@st.composite
def whole_series(draw: Any) -> Batch:
    steps = draw(st.lists(st.sampled_from([0, 1, 1, 5, 30, 600]), min_size=1, max_size=60))
    n = len(steps)
    some = st.sampled_from([NAN, 1.0, 1.0, 1.5, 9.5])
    values = np.array([[draw(some) for _ in range(n)] for _ in CODES])
    values[4] = np.where(np.isnan(values[3]), NAN, 8.0)
    none = np.full(n, NO_SEQUENCE, np.int64)
    return Batch(np.zeros(n, np.int32), EARLIEST_US + np.cumsum(steps) * MINUTE_US, none, none, CODES, values)


@given(whole_series(), st.integers(-10, 2_000), st.integers(1, 1_500))
def test_the_flags_of_a_span_among_its_neighbours_are_those_of_the_whole_series(batch: Batch, begin: int, lasting: int) -> None:
    from_us = EARLIEST_US + begin * MINUTE_US
    until_us = from_us + lasting * MINUTE_US

    def read(low_us: int, high_us: int) -> Batch:
        return readings.subset(batch, (batch.sensed_us >= low_us) & (batch.sensed_us < high_us))

    def flags(some: Batch) -> Any:
        found = quality.flags(SETTINGS, some.codes, some.sensed_us, some.values)
        return found[:, (some.sensed_us >= from_us) & (some.sensed_us < until_us)]

    expected = flags(batch)
    gathered = neighbours.gather(SETTINGS, read, from_us, until_us, int(batch.sensed_us[-1]))
    assert np.array_equal(flags(gathered), expected)
    beside = neighbours.beside(SETTINGS, CODES, gathered.sensed_us, gathered.values, from_us, until_us, None)
    assert np.array_equal(flags(readings.subset(gathered, slice(beside.low, beside.high))), expected)


@given(whole_series(), st.permutations(range(60)), st.integers(0, 60), st.integers(0, 2_000), st.integers(1, 1_500))
def test_at_every_moment_of_arrival_what_was_beside_is_there(batch: Batch, turns: list[int], came: int, begin: int, lasting: int) -> None:
    from_us = EARLIEST_US + begin * MINUTE_US
    until_us = from_us + lasting * MINUTE_US
    arrival = np.array(turns[: len(batch)], np.int64)
    inside = (batch.sensed_us >= from_us) & (batch.sensed_us < until_us)
    kept = inside | neighbours.ever_beside(SETTINGS, batch, arrival, from_us, until_us)

    def flags(rows: Any) -> Any:
        return quality.flags(SETTINGS, batch.codes, batch.sensed_us[rows], batch.values[:, rows])[:, inside[rows]]

    by_then = arrival < came
    assert np.array_equal(flags(by_then & kept), flags(by_then))


def test_a_test_that_looks_at_the_value_alone_asks_for_no_neighbour() -> None:
    assert neighbours.looking(SETTINGS, CODES) == [0, 1, LATITUDE, LONGITUDE]
    assert neighbours.longest_us(SETTINGS) == 90 * MINUTE_US
