"""A shard's tags as bytes and back: the snapshot from which a successor goes on."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

from actors.tags.columns import fresh_tags, grown

if TYPE_CHECKING:
    from actors.sensor_tag import SensorTags

SNAPSHOT_VERSION = 3
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
        "ids": "\n".join(tags.ids),
        "tags": rows,
        "blocks": [column[: head.size].copy() for column in (head.first, head.count, head.visit_first, head.visit_count)],
        "pools": [pool.dump() for pool in (head.tracks, head.visits, head.old_tracks, head.old_visits)],
        "owners": [head.track_tag[: head.tracks.used].copy(), head.visit_tag[: head.visits.used].copy()],
        "rulebook": head.rulebook,
        "custodies": head.custodies,
        "excursions": head.excursions,
        "visits": head.stated_visits,
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
    tags.ids = state["ids"].split("\n") if state["ids"] else []
    tags.index = {name: at for at, name in enumerate(tags.ids)}
    head.size = len(tags.ids)
    head.tags = grown(state["tags"], 64)
    fresh_tags(head.tags[head.size :])
    head.first, head.count, head.visit_first, head.visit_count = (grown(column, 64) for column in state["blocks"])
    for pool, kept in zip((head.tracks, head.visits, head.old_tracks, head.old_visits), state["pools"], strict=True):
        pool.restore(kept)
    head.track_tag, head.visit_tag = (grown(column, 64) for column in state["owners"])
    head.rulebook, head.custodies = state["rulebook"], state["custodies"]
    head.excursions, head.stated_visits = state["excursions"], state["visits"]
    tags.ranges, tags.series, tags.quality = state["ranges"], state["series"], state["quality"]
    tags.latest, tags.held, tags.faults = state["latest"], state["held"], state["faults"]
