"""When a tag is silent, and that a hundred gateways that go away at once do not stop the rest."""

from __future__ import annotations

import numpy as np

from actors.rules.plan import make_plan
from actors.rules.profiles import Limit, Profile
from actors.rules.readings import MINUTE_US, Batch
from actors.tags.clock import LEARNT_AFTER, SILENCES_AT_ONCE
from actors.tags.custodies import OpenCustody
from tests.actors.memory import OneShard

START, SECOND_US = 1_700_000_000_000_000, 1_000_000
LIMIT = Limit(limit_id="warm", metric="temperature_c", direction="above", mode="single", threshold=8.0, allowance_us=0)
PLAN = make_plan("shipment/S", 1, [(0, Profile(profile_id="p", version=1, name="p", limits=(LIMIT,)))])


def riding(*tag_ids: str) -> OneShard:
    shard = OneShard(1 << 15)
    tags = shard.tags.add(tag_ids)
    carrier = shard.tags.head.rulebook.put(PLAN)
    shard.tags.head.bind_all([OpenCustody(tag + 1, tag, PLAN.carrier, "", START, {}) for tag in tags], carrier)
    return shard


def send(shard: OneShard, tags: int, interval_us: int) -> int:
    """Enough readings of tags 0 … tags - 1 for their interval to be learnt; when the last of them came."""
    ids = [shard.tags.ids[tag] for tag in range(tags)]
    tag = np.arange(tags, dtype=np.int32)
    for number in range(LEARNT_AFTER):
        at_us = START + number * interval_us
        sequence = np.full(tags, number, np.int64)
        shard.ingest(ids, Batch(tag, np.full(tags, at_us), np.zeros(tags, np.int64), sequence, (0,), np.full((1, tags), 5.0)), at_us)
    return at_us


def silences(shard: OneShard, now_us: int) -> int:
    """How many tags the clock tells of in one tick."""
    return len(shard.tick(now_us).changes.conditions)


def test_a_tag_that_sends_every_second_is_not_silent_before_a_minute() -> None:
    shard = riding("T")
    last_us = send(shard, 1, SECOND_US)
    assert silences(shard, last_us + 60 * SECOND_US) == 0
    assert silences(shard, last_us + 60 * SECOND_US + 1) == 1


def test_a_slower_tag_is_silent_after_three_of_its_intervals() -> None:
    shard = riding("T")
    last_us = send(shard, 1, 5 * MINUTE_US)
    assert silences(shard, last_us + 15 * MINUTE_US) == 0
    assert silences(shard, last_us + 15 * MINUTE_US + 1) == 1


def test_a_configured_interval_decides_however_short_it_is() -> None:
    shard = riding("T")
    shard.command("tag.update" if shard.journal.tag("T") else "tag.register", START, tag_id="T", usual_interval_us=SECOND_US)
    last_us = send(shard, 1, SECOND_US)
    assert silences(shard, last_us + 3 * SECOND_US) == 0
    assert silences(shard, last_us + 3 * SECOND_US + 1) == 1


def test_many_silences_are_told_in_commits_of_bounded_size_each_tag_once() -> None:
    many = 2 * SILENCES_AT_ONCE + 7
    shard = riding(*(f"T{number}" for number in range(many)))
    now_us = send(shard, many, SECOND_US) + 2 * MINUTE_US
    told, sizes, more = set(), [], True
    while more:
        moved = shard.tags.tick(now_us)
        sizes.append(len(moved.changes.conditions))
        told.update(one.tag_id for one in moved.changes.conditions)
        more = bool(moved.answer)
    assert sizes == [SILENCES_AT_ONCE, SILENCES_AT_ONCE, 7]
    assert len(told) == many


def test_a_tag_that_is_silent_already_is_told_of_when_it_is_put_on_a_carrier() -> None:
    shard = OneShard(1 << 15)
    shard.put_plan(PLAN)
    shard.tags.add(["T"])
    last_us = send(shard, 1, MINUTE_US)
    now_us = last_us + 60 * MINUTE_US
    assert silences(shard, now_us) == 0, "it rides nowhere: nobody waits for it"
    shard.command("tag.assign", now_us, tag_id="T", carrier=PLAN.carrier, from_us=now_us)
    shard = shard.restarted()
    told = shard.tick(now_us + SECOND_US).changes.conditions
    assert [(one.change, one.carrier) for one in told] == [("raise", PLAN.carrier)]
    assert silences(shard, now_us + MINUTE_US) == 0
