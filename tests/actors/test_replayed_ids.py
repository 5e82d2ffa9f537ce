"""A successor gives what it folds from the journal the ids that its predecessor gave, whatever was a duplicate in the batches."""

from __future__ import annotations

import numpy as np

from actors.rules.plan import make_plan
from actors.rules.readings import Batch
from tests.actors.memory import OneShard
from tests.actors.test_sensor_tag_order import CARRIER, MINUTE_US, NOW, PROFILE, START


def rows(*readings: tuple[int, int, float]) -> Batch:
    tag, minute, value = (np.array(column) for column in zip(*readings, strict=True))
    sequence = minute.astype(np.int64)
    return Batch(
        tag.astype(np.int32), START + sequence * MINUTE_US, np.full(len(tag), 7, np.int64), sequence, (0,), value[None, :].astype(float)
    )


def two_tags() -> OneShard:
    shard = OneShard()
    shard.put_plan(make_plan(CARRIER, 1, [(0, PROFILE)]))
    for name in ("A", "B"):
        shard.command("tag.assign", NOW, tag_id=name, carrier=CARRIER, from_us=START)
    return shard


def told(shard: OneShard) -> list[tuple[int, int, int]]:
    return sorted((one.excursion_id, tag, one.started_us) for tag, mine in shard.tags.head.excursions.items() for one in mine)


def test_in_order_readings_behind_a_duplicate_of_another_tag() -> None:
    shard = two_tags()
    shard.ingest(["A", "B"], rows((0, 0, 5.0), (1, 0, 5.0)), NOW)
    shard.ingest(["A", "B"], rows((1, 0, 5.0), (0, 1, 26.0), (1, 1, 26.0)), NOW)
    assert told(shard.restarted()) == told(shard) != []


def test_late_readings_behind_a_duplicate_of_another_tag() -> None:
    shard = two_tags()
    shard.ingest(["A", "B"], rows((0, 9, 5.0), (1, 9, 5.0)), NOW)
    shard.ingest(["A", "B"], rows((1, 9, 5.0), (0, 1, 26.0), (1, 1, 26.0)), NOW)
    assert told(shard.restarted()) == told(shard) != []


def test_late_readings_that_the_successors_ring_does_not_reach() -> None:
    shard = two_tags()
    shard.ring_rows = 1 << 12
    shard.ingest(["A", "B"], rows(*((0, minute, 5.0) for minute in range(10, 60)), (1, 70, 5.0)), NOW)
    after, snapshot = len(shard.journal.entries), shard.tags.dump()
    shard.ingest(["A", "B"], rows((1, 80, 5.0), (0, 1, 26.0), (1, 71, 26.0)), NOW)
    assert told(shard.restarted(snapshot, after)) == told(shard) != []
