"""A tag's series comes in parts of bounded size, its flags are those of the whole, and its twin tells the newest value in judging order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.rules.readings import CODE, FOREVER_US, MINUTE_US, Batch, concatenate_flagged
from actors.tags import queries, whole
from tests.actors.memory import OneShard

START = 1_700_000_000_000_000
NOW = START + 4000 * MINUTE_US
QUALITY = {
    "metrics": {
        "temperature_c": {
            "fail_high": 60.0, "spike_suspect": 3.0, "rate_per_s": 0.05, "flat_tolerance": 0.5, "flat_suspect_us": 20 * MINUTE_US
        },
        "relative_humidity_pct": {"gap_us": 90 * MINUTE_US, "spike_fail": 20.0},
    }
}  # fmt: skip


def send(shard: OneShard, rows: list[tuple[int, int, float, float]]) -> None:
    """(minute, sequence, temperature, humidity)."""
    minute, sequence, temperature, humidity = (np.array(column) for column in zip(*rows, strict=True))
    codes = (CODE["temperature_c"], CODE["relative_humidity_pct"])
    values = np.array([temperature, humidity], np.float64)
    batch = Batch(
        np.zeros(len(rows), np.int32), START + minute * MINUTE_US, np.full(len(rows), 1, np.int64), sequence.astype(np.int64), codes, values
    )
    shard.ingest(["A"], batch, NOW)


temperatures = st.sampled_from([4.0, 4.1, 4.2, 9.0, 70.0, float("nan")])
humidities = st.sampled_from([50.0, 51.0, 90.0, float("nan"), float("nan"), float("nan")])
minutes = st.one_of(st.integers(0, 120), st.integers(0, 3900), st.sampled_from([10, 20, 30]))
times = st.integers(-10, 4000).map(lambda minute: START + minute * MINUTE_US)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(minutes, temperatures, humidities), min_size=1, max_size=60), times, times, st.integers(1, 9))
def test_parts_are_the_whole_and_flags_do_not_depend_on_what_was_asked(
    readings: list[tuple[int, float, float]], one: int, other: int, most: int
) -> None:
    shard = OneShard()
    known = [(minute, k, t, 50.0 if t != t and h != h else h) for k, (minute, t, h) in enumerate(readings)]
    send(shard, known)
    shard.command("tag.update", NOW, tag_id="A", quality=QUALITY)
    everything = whole.ordered(shard.journal.history([0], 0, FOREVER_US)[1])
    flags = whole.quality_flags(everything, shard.tags.quality[0])
    for from_us, until_us in ((0, FOREVER_US), (min(one, other), max(one, other) + 1)):
        parts, start = [], from_us
        while start is not None:
            batch, told, start = queries.series(shard.tags, {"tag_id": "A", "from_us": start, "until_us": until_us, "rows": most})
            assert len(batch) <= most or len(np.unique(batch.sensed_us)) == 1
            parts.append((batch, told))
        batch, told = concatenate_flagged(parts)
        inside = (everything.sensed_us >= from_us) & (everything.sensed_us < until_us)
        assert batch.sequence.tolist() == everything.sequence[inside].tolist()
        for k, code in enumerate(batch.codes):
            assert told[k].tolist() == flags[everything.codes.index(code), inside].tolist()


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_of_readings_of_one_time_the_twin_tells_the_last_in_judging_order_whatever_came_first(order: tuple[int, ...]) -> None:
    rows = [(10, 7, 4.0, 50.0), (10, 8, 5.0, float("nan")), (10, 9, float("nan"), 60.0), (5, 99, 6.0, 70.0)]
    shard = OneShard()
    for number in order:
        send(shard, [rows[number]])
    for one in (shard, shard.restarted(), shard.restarted(shard.tags.dump(), len(shard.journal.entries))):
        values = queries.twin(one.tags, {"tag_id": "A"})["values"]
        assert values["temperature_c"] == {"sensed_us": START + 10 * MINUTE_US, "value": 5.0}
        assert values["relative_humidity_pct"] == {"sensed_us": START + 10 * MINUTE_US, "value": 60.0}


@pytest.mark.parametrize(("quality", "told", "later"), [(None, [2, 2, 4], [2, 2, 2]), (QUALITY, [1, 1, 4], [1, 3, 1])])
def test_a_reading_from_the_future_is_flagged_fail_until_it_has_come_and_is_nobodys_neighbour(
    quality: dict[str, object] | None, told: list[int], later: list[int]
) -> None:
    shard = OneShard()
    shard.command("tag.register", NOW, tag_id="A", **({} if quality is None else {"quality": quality}))
    send(shard, [(3900, 1, 5.0, float("nan")), (3905, 2, 5.0, float("nan")), (5000, 3, 25.0, float("nan"))])
    assert queries.series(shard.tags, {"tag_id": "A"})[1][0].tolist() == told
    shard.tick(START + 5001 * MINUTE_US)
    assert queries.series(shard.tags, {"tag_id": "A"})[1][0].tolist() == later
