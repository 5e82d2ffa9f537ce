"""Any order, duplication, lateness or batching of arrival, any time at which custody is told, and any restart give the same final
excursions, sums and counters as in-order, once-only arrival judged by the plain reference.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.journal.tables import Excursion
from actors.rules.plan import make_plan
from actors.rules.profiles import Limit, Profile
from actors.rules.readings import ACCEPTED, CONFLICTING, DUPLICATE, MINUTE_US, NO_SEQUENCE, Batch
from actors.tags import queries
from tests.actors.memory import OneShard
from tests.reference import exposure as plain

START = 1_700_000_000_000_000
NOW = START + 100 * 24 * 60 * MINUTE_US
CARRIER = "shipment/S1"


def limit(limit_id: str, threshold: float, **more: Any) -> Limit:
    facts = {"metric": "temperature_c", "direction": "above", "mode": "single", "allowance_us": 0, "severity": "WARNING"} | more
    return Limit(limit_id=limit_id, threshold=threshold, **facts)


LIMITS = (
    limit("hot", 25.0, clear=24.0),
    limit("warm", 8.0, allowance_us=30 * MINUTE_US),
    limit("total", 8.0, mode="cumulative", allowance_us=45 * MINUTE_US, inclusive=True),
    limit("cold", 2.0, direction="below", allowance_us=10 * MINUTE_US),
)
PLAIN = {
    "hot": plain.Limit(25.0, clear=24.0, max_gap_us=60 * MINUTE_US),
    "warm": plain.Limit(8.0, allowance_us=30 * MINUTE_US, max_gap_us=60 * MINUTE_US),
    "total": plain.Limit(8.0, inclusive=True, mode=plain.CUMULATIVE, allowance_us=45 * MINUTE_US, max_gap_us=60 * MINUTE_US),
    "cold": plain.Limit(2.0, direction=-1, allowance_us=10 * MINUTE_US, max_gap_us=60 * MINUTE_US),
}
PROFILE = Profile(profile_id="p", version=1, name="p", limits=LIMITS, max_gap_us=60 * MINUTE_US)

Reading = tuple[int, int, float]
"""(minutes after START, sequence, temperature_c)."""


@dataclasses.dataclass
class Journey:
    readings: list[Reading]
    custodies: list[tuple[int, int | None]]  # minutes


@st.composite
def journeys(draw: Any) -> Journey:
    steps = draw(st.lists(st.sampled_from([1, 1, 2, 5, 20, 70]), min_size=1, max_size=40))
    temperatures = st.sampled_from([-1.0, 2.0, 5.0, 8.0, 8.5, 24.0, 24.5, 26.0])
    minute, readings = 0, []
    for number, step in enumerate(steps):
        minute += step
        readings.append((minute, number, draw(temperatures)))
    cuts = sorted(draw(st.sets(st.integers(0, minute + 30), min_size=1, max_size=4)))
    spans: list[tuple[int, int | None]] = list(itertools.pairwise(cuts))
    if draw(st.booleans()):
        spans = spans[::2]
    if draw(st.booleans()) or not spans:
        spans.append((cuts[-1], None))
    return Journey(readings, spans)


def expected(journey: Journey) -> tuple[list[tuple[Any, ...]], dict[tuple[int, str], tuple[Any, ...]]]:
    """Excursions as (limit_id, started, triggered, ended, violation, uncovered, extreme, extreme_us, readings) and sums per custody."""
    runs, sums = [], {}
    before = dict.fromkeys(PLAIN, 0)
    for low, high in journey.custodies:
        mine = [(START + m * MINUTE_US, v) for m, _, v in journey.readings if m >= low and (high is None or m < high)]
        until = None if high is None else START + high * MINUTE_US
        for limit_id, rule in PLAIN.items():
            window = plain.Window(-(1 << 60), 1 << 60, rule)
            judged = plain.judge(mine, [window], START + low * MINUTE_US, until, before[limit_id])
            for run in judged.runs:
                if run.triggered_us is not None:
                    runs.append(
                        (limit_id, run.start_us, run.triggered_us, run.end_us, run.run_us, run.uncovered_us, run.extreme, run.extreme_us)
                    )
            sums[(low, limit_id)] = (judged.violation_us - before[limit_id], judged.covered_us, judged.uncovered_us, judged.readings)
            before[limit_id] = judged.violation_us
    return sorted(runs, key=lambda run: (run[0], run[1])), sums


def stated(shard: OneShard) -> list[tuple[Any, ...]]:
    def facts(row: Excursion) -> tuple[Any, ...]:
        return (
            row.limit_id,
            row.started_us,
            row.triggered_us,
            row.ended_us,
            row.violation_us,
            row.uncovered_us,
            row.extreme,
            row.extreme_us,
        )

    return [facts(row) for row in shard.excursions()]


def compare(shard: OneShard, journey: Journey) -> None:
    runs, sums = expected(journey)
    mine = stated(shard)
    # What an open excursion says of sums and extremes grows with time: its start and trigger are what is stated.
    assert [run if run[3] is not None else run[:4] for run in mine] == [run if run[3] is not None else run[:4] for run in runs]
    found = {(row["from_us"], row["limit_id"]): row for row in queries.exposure_of(shard.tags, {"carrier": CARRIER})}
    for (low, limit_id), values in sums.items():
        row = found[(START + low * MINUTE_US, limit_id)]
        assert (row["violation_us"], row["covered_us"], row["uncovered_us"], row["readings"]) == values, limit_id


def batch(readings: list[Reading], sequenced: bool) -> Batch:
    n = len(readings)
    sequence = [number for _, number, _ in readings] if sequenced else [NO_SEQUENCE] * n
    return Batch(
        np.zeros(n, np.int32),
        np.array([START + minute * MINUTE_US for minute, _, _ in readings], np.int64),
        np.full(n, 7 if sequenced else NO_SEQUENCE, np.int64),
        np.array(sequence, np.int64),
        (0,),
        np.array([[value for _, _, value in readings]]),
    )


def tell_custody(shard: OneShard, journey: Journey, number: int, released: bool) -> None:
    low, high = journey.custodies[number]
    from_us = START + low * MINUTE_US
    until_us = None if high is None else START + high * MINUTE_US
    if released and until_us is not None:
        try:
            shard.command("tag.assign", NOW, tag_id="T", carrier=CARRIER, from_us=from_us)
        except Exception:  # a later custody is known already: an open one would overlap it
            shard.command("tag.assign", NOW, tag_id="T", carrier=CARRIER, from_us=from_us, until_us=until_us)
        else:
            shard.command("tag.release", NOW, tag_id="T", until_us=until_us)
    else:
        shard.command("tag.assign", NOW, tag_id="T", carrier=CARRIER, from_us=from_us, until_us=until_us)


@pytest.mark.parametrize("sequenced", [True, False])
@pytest.mark.parametrize("ring_rows", [4096, 16])
@settings(max_examples=25)
@given(data=st.data())
def test_any_arrival_gives_the_excursions_of_in_order_arrival(data: Any, sequenced: bool, ring_rows: int) -> None:
    journey = data.draw(journeys())
    arrival = data.draw(st.permutations(journey.readings))
    arrival += data.draw(st.lists(st.sampled_from(journey.readings), max_size=5))
    acts: list[Any] = []
    while arrival:
        size = data.draw(st.integers(1, 12))
        acts.append(arrival[:size])
        arrival = arrival[size:]
    for number in range(len(journey.custodies)):
        acts.insert(data.draw(st.integers(0, len(acts))), number)
    shard = OneShard(ring_rows)
    shard.put_plan(make_plan(CARRIER, 1, [(0, PROFILE)]))
    for act in acts:
        if isinstance(act, int):
            tell_custody(shard, journey, act, data.draw(st.booleans()))
        else:
            shard.ingest(["T"], batch(act, sequenced), NOW)
        if data.draw(st.integers(0, 5)) == 0:
            shard = shard.restarted() if data.draw(st.booleans()) else shard.restarted(shard.tags.dump(), len(shard.journal.entries))
    compare(shard, journey)
    row = shard.tags.head.tags[0]
    assert int(row["accepted"]) == len(journey.readings)


def test_a_duplicate_has_no_effect_and_other_content_is_put_aside() -> None:
    shard = OneShard()
    first = batch([(0, 1, 5.0), (1, 2, 6.0)], True)
    assert shard.ingest(["T"], first, NOW).tolist() == [ACCEPTED, ACCEPTED]
    again = batch([(0, 1, 5.0), (1, 2, 6.5), (2, 2, 6.0), (3, 3, 7.0)], True)
    assert shard.ingest(["T"], again, NOW).tolist() == [DUPLICATE, CONFLICTING, CONFLICTING, ACCEPTED]
    row = shard.tags.head.tags[0]
    assert (int(row["accepted"]), int(row["duplicate"]), int(row["conflicting"])) == (3, 1, 2)
    aside = [row for commit in shard.journal.commits for row in commit.inserts]
    assert [(row.sensed_us - START) // MINUTE_US for row in aside] == [1, 2]


def test_of_two_readings_of_one_identity_the_first_in_the_message_stays() -> None:
    shard = OneShard()
    both = batch([(10, 1, 5.0), (3, 1, 6.0), (10, 1, 5.0)], True)
    assert shard.ingest(["T"], both, NOW).tolist() == [ACCEPTED, CONFLICTING, DUPLICATE]


def test_a_reading_without_a_sequence_is_known_by_its_time_and_metric() -> None:
    shard = OneShard()

    def both(temperature: float, humidity: float) -> Batch:
        one = batch([(0, 0, temperature)], False)
        return Batch(one.tag, one.sensed_us, one.boot, one.sequence, (0, 1), np.array([[temperature], [humidity]]))

    assert shard.ingest(["T"], batch([(0, 0, 5.0)], False), NOW).tolist() == [ACCEPTED]
    assert shard.ingest(["T"], both(5.0, 60.0), NOW).tolist() == [ACCEPTED], "the humidity is new"
    assert shard.ingest(["T"], both(5.0, 60.0), NOW).tolist() == [DUPLICATE]
    assert shard.ingest(["T"], both(5.5, 60.0), NOW).tolist() == [CONFLICTING]
    twin = queries.twin(shard.tags, {"tag_id": "T"})
    assert {name: value["value"] for name, value in twin["values"].items()} == {"temperature_c": 5.0, "relative_humidity_pct": 60.0}


def test_what_is_kept_is_what_a_restart_finds() -> None:
    shard = OneShard()
    shard.put_plan(make_plan(CARRIER, 1, [(0, PROFILE)]))
    shard.command("tag.assign", NOW, tag_id="T", carrier=CARRIER, from_us=START)
    shard.ingest(["T"], batch([(minute, minute, 26.0 if minute % 7 else 5.0) for minute in range(60)], True), NOW)
    other = shard.restarted()
    mine, its = shard.tags.head, other.tags.head
    assert np.array_equal(mine.tags, its.tags)
    assert mine.rows_of(0).tracks.tobytes() == its.rows_of(0).tracks.tobytes()
    assert mine.excursions == its.excursions
    assert len(mine.excursions[0]) == 11, "nine hot runs of six minutes; the sum of them reaches 45 minutes in the eighth"
