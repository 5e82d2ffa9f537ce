"""What a shard remembers of carriers: those that something rides on, and some that were left lately."""

from __future__ import annotations

import numpy as np
import pytest

from actors.rules.plan import PlannedFence, make_plan
from actors.rules.profiles import Limit, Profile
from actors.rules.readings import MINUTE_US
from actors.tags import carriers
from tests.actors.memory import OneShard
from tests.actors.test_sensor_tag_order import batch

START = 1_700_000_000_000_000
NOW = START + 10_000 * MINUTE_US


def profile(threshold: float) -> Profile:
    limit = Limit(limit_id="warm", metric="temperature_c", direction="above", mode="single", threshold=threshold, allowance_us=0)
    return Profile(profile_id="p", version=1, name="p", limits=(limit,))


def carrier(number: int) -> str:
    return f"shipment/S{number}"


def put_plan(shard: OneShard, number: int, revision: int = 1, threshold: float | None = None) -> None:
    fence = PlannedFence("dock", "circle", {"center": [50.0, number / 10], "radius_m": 100.0})
    limits = profile(8.0 + number if threshold is None else threshold)
    shard.put_plan(make_plan(carrier(number), revision, [(0, limits)], fences=(fence,)))


def ride(shard: OneShard, tag: str, number: int, minute: int) -> None:
    put_plan(shard, number)
    shard.command("tag.assign", NOW, tag_id=tag, carrier=carrier(number), from_us=START + minute * MINUTE_US)


def leave(shard: OneShard, tag: str, number: int, minute: int) -> None:
    shard.command("tag.release", NOW, tag_id=tag, carrier=carrier(number), until_us=START + minute * MINUTE_US)


def test_carriers_that_nothing_rides_on_any_more_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carriers, "IDLE", 8)
    shard = OneShard()
    ride(shard, "stays", 0, 0)
    shard.ingest(["stays"], batch([(minute, minute, 9.0) for minute in range(5)], True), NOW)
    for number in range(1, 60):
        ride(shard, "T", number, 10 * number)
        leave(shard, "T", number, 10 * number + 5)
    book = shard.tags.head.rulebook
    assert len(book.carriers) <= 2 * (8 + 1) + 1
    assert book.windows_used <= len(book.carriers)
    assert len(book.fences) <= len(book.carriers)
    shard.ingest(["stays"], batch([(minute, minute, 5.0) for minute in range(5, 8)], True), NOW)
    (told,) = [one for one in shard.excursions() if one.tag_id == "stays"]
    assert (told.state, told.started_us, told.ended_us) == ("ENDED", START, START + 5 * MINUTE_US), "its rows went on"
    other = shard.restarted()
    assert np.array_equal(other.tags.head.rows_of(0).tracks["prev_us"], shard.tags.head.rows_of(0).tracks["prev_us"])


def test_a_plan_that_an_assignment_brings_before_its_message_judges_everybody() -> None:
    shard = OneShard()
    for tag in ("closed", "open"):
        ride(shard, tag, 1, 0)
        shard.ingest([tag], batch([(minute, minute, 7.0) for minute in range(30)], True), NOW)
    leave(shard, "closed", 1, 20)
    assert shard.excursions() == []
    put_plan(shard, 1, revision=2, threshold=6.0)
    shard.command("tag.assign", NOW, tag_id="late", carrier=carrier(1), from_us=START)
    assert [one.tag_id for one in shard.excursions()] == ["open"]
    shard.command("plan.changed", NOW, carrier=carrier(1))
    assert sorted(one.tag_id for one in shard.excursions()) == ["closed", "open"]
    shard.command("plan.changed", NOW, carrier=carrier(1))
    again = shard.restarted().tags.head.rulebook.carriers[carrier(1)]
    assert (again.plan.revision, again.told) == (2, 2)
