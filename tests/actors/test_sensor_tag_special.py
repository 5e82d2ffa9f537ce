"""Tags with mkt limits or quality settings: their windows and neighbours reach back, and any arrival still gives the same."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
import pytest

from actors.rules import mkt
from actors.rules.plan import make_plan
from actors.rules.profiles import Limit, Profile, shipped
from actors.rules.readings import MINUTE_US, NO_SEQUENCE, Batch
from tests.actors.memory import OneShard

START = 1_700_000_000_000_000
NOW = START + 100 * 24 * 60 * MINUTE_US
CARRIER = "shipment/S1"
MKT = Limit(limit_id="mkt", metric="temperature_c", direction="above", threshold=8.0, mode="mkt", window_us=24 * 60 * MINUTE_US)
HOT = Limit(limit_id="hot", metric="temperature_c", direction="above", threshold=20.0)


def batch(minutes: list[int], temperatures: list[float]) -> Batch:
    n = len(minutes)
    none = np.full(n, NO_SEQUENCE, np.int64)
    times = np.array([START + minute * MINUTE_US for minute in minutes], np.int64)
    return Batch(np.zeros(n, np.int32), times, none, none, (0,), np.array([temperatures]))


def shard_with(*limits: Limit) -> OneShard:
    shard = OneShard()
    profile = Profile(profile_id="p", version=1, name="p", limits=limits)
    shard.put_plan(make_plan(CARRIER, 1, [(0, profile)]))
    return shard


def shard_under(profiles: list[tuple[int, Profile]], stages: list[tuple[int, str]]) -> OneShard:
    shard = OneShard()
    shard.put_plan(make_plan(CARRIER, 1, profiles, stages))
    shard.command("tag.assign", NOW, tag_id="T", carrier=CARRIER, from_us=START)
    return shard


def facts(shard: OneShard) -> list[tuple[Any, ...]]:
    rows = shard.excursions()
    return [(row.limit_id, row.started_us, row.triggered_us, row.ended_us) for row in rows]


@pytest.mark.parametrize("seed", range(12))
def test_mkt_excursions_are_those_of_in_order_arrival(seed: int) -> None:
    chance = random.Random(seed)
    minutes = sorted(chance.sample(range(3 * 24 * 60), 120))
    temperatures = [chance.choice([3.0, 6.0, 9.0, 15.0]) for _ in minutes]
    ordered = shard_with(MKT, HOT)
    ordered.command("tag.assign", NOW, tag_id="T", carrier=CARRIER, from_us=START)
    ordered.ingest(["T"], batch(minutes, temperatures), NOW)
    pairs = list(zip(minutes, temperatures, strict=True))
    chance.shuffle(pairs)
    shuffled = shard_with(MKT, HOT)
    told = chance.randint(0, 100)
    for at in range(0, len(pairs), 10):
        if at >= told >= 0:
            shuffled.command("tag.assign", NOW, tag_id="T", carrier=CARRIER, from_us=START)
            told = -1
        some = pairs[at : at + 10]
        shuffled.ingest(["T"], batch([m for m, _ in some], [t for _, t in some]), NOW)
        if chance.random() < 0.2:
            shuffled = shuffled.restarted()
    assert facts(shuffled) == facts(ordered)
    # The trailing MKT itself, at the readings at which the excursions begin: at or above the threshold, and not before.
    times = np.array([START + minute * MINUTE_US for minute in minutes], np.int64)
    series = mkt.trailing_mkt_c(times, np.array(temperatures), times, MKT.window_us, 60 * MINUTE_US, START)
    begins = [int(t) for t, m, before in zip(times[1:], series[1:], series[:-1], strict=True) if m > 8.0 and not before > 8.0]
    assert [row[1] for row in facts(ordered) if row[0] == "mkt"] == begins


def test_an_mkt_limit_does_not_look_back_beyond_its_stages() -> None:
    moving = Profile(profile_id="p", version=1, name="p", limits=(dataclasses.replace(MKT, stages=("IN_TRANSIT",)),))
    shard = shard_under([(0, moving)], [(START, "PACKING"), (START + 60 * MINUTE_US, "IN_TRANSIT")])
    shard.ingest(["T"], batch(list(range(0, 180, 10)), [25.0] * 6 + [5.0] * 12), NOW)
    assert shard.excursions() == []
    shard.command("tag.release", NOW, tag_id="T", carrier=CARRIER, until_us=START + 175 * MINUTE_US)
    assert shard.excursions() == []


def test_each_version_of_an_mkt_limit_looks_back_over_its_own_window() -> None:
    short = dataclasses.replace(MKT, window_us=10 * MINUTE_US)
    first, second = (Profile(profile_id="p", version=k + 1, name="p", limits=(limit,)) for k, limit in enumerate((MKT, short)))
    shard = shard_under([(0, first), (START + 120 * MINUTE_US, second)], [])
    shard.ingest(["T"], batch(list(range(0, 180, 10)), [6.0] * 4 + [9.0] + [6.0] * 9 + [9.0] + [6.0] * 3), NOW)
    assert [row[1] for row in facts(shard)] == [START + 150 * MINUTE_US], "9 degrees for ten minutes are little in a day"


QUALITY = {"metrics": {"temperature_c": {"fail_high": 60.0, "spike_suspect": 5.0, "spike_fail": 10.0}}}


def test_a_failing_sensor_raises_a_sensor_alert_and_no_goods_alert() -> None:
    shard = shard_with(HOT)
    shard.command("tag.register", NOW, tag_id="T", quality=QUALITY)
    shard.command("tag.assign", NOW, tag_id="T", carrier=CARRIER, from_us=START)
    shard.ingest(["T"], batch([0, 1, 2, 3], [5.0, 5.0, 85.0, 5.0]), NOW)
    assert shard.excursions() == []
    changes = [(c.key, c.change) for commit in shard.journal.commits for c in commit.conditions]
    assert changes == [("sensor|T|temperature_c", "raise"), ("sensor|T|temperature_c", "clear")]


def test_a_spike_is_an_excursion_until_its_successor_shows_that_it_was_one() -> None:
    shard = shard_with(HOT)
    shard.command("tag.register", NOW, tag_id="T", quality=QUALITY)
    shard.command("tag.assign", NOW, tag_id="T", carrier=CARRIER, from_us=START)
    shard.ingest(["T"], batch([0, 1, 2], [5.0, 5.0, 30.0]), NOW)
    assert [row.started_us for row in shard.excursions()] == [START + 2 * MINUTE_US]
    shard.ingest(["T"], batch([3], [5.0]), NOW)
    assert shard.excursions() == []
    assert [(row.revision, row.state, row.cause) for row in shard.journal.revisions] == [
        (1, "CONFIRMED", "reading"),
        (2, "RETRACTED", "quality"),
    ]


def test_quality_settings_hold_at_once_for_the_open_custody_and_for_a_closed_one_when_it_is_judged_again() -> None:
    shard = shard_with(HOT)
    shard.command("tag.assign", NOW, tag_id="T", carrier=CARRIER, from_us=START, until_us=START + 10 * MINUTE_US)
    shard.command("tag.assign", NOW, tag_id="T", carrier=CARRIER, from_us=START + 20 * MINUTE_US)
    shard.ingest(["T"], batch([0, 5, 8, 20, 25, 30], [5.0, 85.0, 5.0, 5.0, 85.0, 5.0]), NOW)
    begun = [START + 5 * MINUTE_US, START + 25 * MINUTE_US]
    assert [row.started_us for row in shard.excursions()] == begun
    shard.command("tag.update", NOW, tag_id="T", quality=QUALITY)
    assert [row.started_us for row in shard.excursions()] == begun[:1], "the open custody's is retracted at once"
    assert (shard.journal.revisions[-1].state, shard.journal.revisions[-1].cause) == ("RETRACTED", "quality")
    shard.ingest(["T"], batch([2], [5.0]), NOW)
    assert shard.excursions() == [], "a late reading has the closed one judged again"


def test_the_shipped_room_temperature_profile_finds_its_excursions_in_order() -> None:
    shard = shard_with(*shipped()["usp-crt"].limits)
    shard.command("tag.assign", NOW, tag_id="T", carrier=CARRIER, from_us=START)
    for at in range(0, 600, 60):
        shard.ingest(["T"], batch(list(range(at, at + 60, 10)), [30.0] * 6), NOW)
    stated = shard.excursions()
    assert {row.limit_id for row in stated} == {limit.limit_id for limit in shipped()["usp-crt"].limits if limit.mode == "mkt"}
    assert not any(row.found_late for row in stated)
