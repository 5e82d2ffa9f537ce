"""Whatever the order of readings, custody and plans, and however often a successor took over: what stands in the end is what in-order,
once-only arrival states.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.journal.tables import Custody, Visit
from actors.part import Part
from actors.rules.readings import FOREVER_US, Batch, subset
from actors.tags import queries
from actors.tags.columns import MIN_US
from tests.actors.memory import OneShard
from tests.actors.test_recovery_of_tags import CARRIERS, GROSS, SPIKES, TAGS, World, days, new_world


def in_order(world: World, quality: list[Any]) -> OneShard:
    """Another shard that was told the final plans and custodies when they began, and got each accepted reading once, in order."""
    other = new_world(world.sequenced, 4096)
    other.now_us = world.now_us
    for carrier, plan in world.plans.items():
        if plan.revision > 1:
            other.shard.put_plan(plan)
            other.shard.command("plan.changed", other.now_us, carrier=carrier, revision=plan.revision)
    for tag, tag_id in enumerate(TAGS):
        other.shard.command("tag.update", other.now_us, tag_id=tag_id, quality=quality[tag])
        accepted = queries.series(world.shard.tags, {"tag_id": tag_id})[0]
        below = MIN_US

        def send(batch: Batch, from_us: int, until_us: int, tag_id: str = tag_id) -> None:
            rows = np.flatnonzero((batch.sensed_us >= from_us) & (batch.sensed_us < until_us))
            for start in range(0, len(rows), 5):
                (_,), moved = other.shard.tags.ingest([Part(tag_id.encode(), subset(batch, rows[start : start + 5]))], other.now_us)
                other.shard.settle(moved, other.now_us)

        for row in world.shard.journal.custodies([tag_id]):
            send(accepted, below, row.from_us)
            other.shard.command("tag.assign", other.now_us, tag_id=tag_id, carrier=row.carrier, from_us=row.from_us)
            below = FOREVER_US if row.until_us is None else row.until_us
            send(accepted, row.from_us, below)
            if row.until_us is not None:
                other.shard.command("tag.release", other.now_us, tag_id=tag_id, until_us=row.until_us)
        send(accepted, below, FOREVER_US)
    return other.shard


def standing(shard: OneShard) -> dict[str, Any]:
    """What is stated in the end, without ids and revisions. Of what is still open: when it began and was confirmed."""
    open_or_whole = []
    for one in shard.excursions():
        facts = (one.tag_id, one.carrier, one.limit_id, one.started_us, one.triggered_us, one.ended_us)
        mean = None if one.mean is None else round(one.mean, 6)
        sums = (one.violation_us, one.uncovered_us, one.extreme, one.extreme_us, one.readings, mean)
        open_or_whole.append(facts if one.ended_us is None else (*facts, *sums))
    visits = [row for row in shard.journal.rows[Visit].values() if row.state != "RETRACTED"]
    known = shard.journal.rows[Custody]
    sums = []
    for carrier in CARRIERS:
        for row in queries.exposure_of(shard.tags, {"carrier": carrier}):
            if known[row["custody_id"]].retracted:
                continue
            names = (
                "tag_id",
                "limit_id",
                "from_us",
                "until_us",
                "violation_us",
                "covered_us",
                "uncovered_us",
                "readings",
                "extreme",
                "extreme_us",
            )
            sums.append((carrier, *(row[name] for name in names)))
    return {
        "excursions": sorted(open_or_whole, key=repr),
        "visits": sorted(
            (row.tag_id, row.carrier, row.fence_id, row.kind, row.entered_us, row.exited_us) for row in visits if row.exited_us
        )
        + sorted((row.tag_id, row.carrier, row.fence_id, row.kind, row.entered_us) for row in visits if not row.exited_us),
        "sums": sorted(sums, key=repr),
    }


@pytest.mark.parametrize("ring_rows", [4096, 24])
@pytest.mark.parametrize("sequenced", [True, False])
@settings(max_examples=30)
@given(data=st.data())
def test_what_stands_in_the_end_is_what_in_order_arrival_states(data: Any, sequenced: bool, ring_rows: int) -> None:
    world = new_world(sequenced, ring_rows)
    quality = [data.draw(st.sampled_from([None, None, SPIKES, GROSS])) for _ in TAGS]
    for tag, settings_of_tag in enumerate(quality):
        world.quality(tag, settings_of_tag)
    for action in data.draw(days):
        if action[0] != "quality":  # other settings hold for what is judged from then on: see TagService.UpdateTag
            world.do(action)
        if data.draw(st.integers(0, 7)) == 0:
            world.shard = world.shard.restarted()
    world.later(60)
    world.tick()
    found, expected = standing(world.shard), standing(in_order(world, quality))
    for name in expected:
        assert found[name] == expected[name], name


def test_a_custody_that_is_opened_again_counts_once() -> None:
    world = new_world(True, 4096)
    world.assign(0, 0, 0, 100)
    world.readings([(0, 10, 9.0, None), (0, 60, 5.0, None)])
    world.correct(0, 0, 0, None)
    assert standing(world.shard) == standing(in_order(world, [None, None]))


def test_a_custody_that_is_opened_again_after_all_readings_states_nothing_any_more() -> None:
    world = new_world(True, 4096)
    world.assign(0, 0, 0, 100)
    world.readings([(0, 10, 9.0, None), (0, 60, 5.0, None)])
    world.correct(0, 0, 110, None)
    assert standing(world.shard)["excursions"] == []
