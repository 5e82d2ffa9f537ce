"""A shard's tags as bytes and back: the snapshot from which a successor goes on."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.sensor_tag import SensorTags

SNAPSHOT_VERSION = 10
"""Of the layout of `dump`; another one is not read, the journal is folded instead."""


def dump(tags: SensorTags) -> bytes:
    """The state as bytes; the ring is left out, its readings are in the journal."""
    head = tags.head
    rows = head.tags[: head.size].copy()
    rows["ring_last"] = -1
    state = {
        "version": SNAPSHOT_VERSION,
        "shard": tags.shard,
        "counters": (tags.counter, tags.past_counter),
        "clock_us": tags.clock_us,
        "ids": tags.ids.dump(),
        "tags": rows,
        "set_interval_us": head.set_interval_us,
        "records": head.records.dump(head.size),
        "checkpoints": head.checkpoints.dump(),
        "rulebook": head.rulebook,
        "custodies": head.custodies.dump(),
        "excursions": head.excursions,
        "visits": head.stated_visits,
        "stated_us": head.stated_us,
        "ranges": tags.ranges,
        "series": tags.series,
        "quality": tags.quality,
        "latest": tags.latest,
        "held": tags.held,
        "faults": tags.faults,
    }
    return pickle.dumps(state, protocol=5)


def restore(tags: SensorTags, data: bytes) -> None:
    """Back from `dump`. Raises ValueError for a snapshot of another version: the journal is folded from its start then."""
    state = pickle.loads(data)
    if state["version"] != SNAPSHOT_VERSION:
        raise ValueError(f"snapshot version {state['version']}, this is {SNAPSHOT_VERSION}")
    head = tags.head
    (tags.counter, tags.past_counter), tags.clock_us = state["counters"], state["clock_us"]
    tags.ids.restore(state["ids"])
    head.size = len(tags.ids)
    head.tags, head.set_interval_us, head.rulebook = state["tags"], state["set_interval_us"], state["rulebook"]
    head.records.restore(state["records"])
    head.checkpoints.restore(state["checkpoints"])
    head.custodies.restore(state["custodies"])
    head.excursions, head.stated_visits, head.stated_us = state["excursions"], state["visits"], state["stated_us"]
    tags.ranges, tags.series, tags.quality = state["ranges"], state["series"], state["quality"]
    tags.latest, tags.held, tags.faults = state["latest"], state["held"], state["faults"]
