"""What the clock decides for tags: silence, and readings whose sensed time is no longer in the future.

A tick that decides something is journaled with what it decided, so that a replay repeats it whatever its own clock says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.journal.prepared import Condition
from actors.tags.changes import Changes
from actors.tags.columns import MIN_US

if TYPE_CHECKING:
    from actors.sensor_tag import SensorTags

SILENT_AFTER = 3
"""A tag is silent after this many of its usual intervals (handbook 4)."""

LEARNT_AFTER = 5
"""Readings after which a learnt interval is believed."""

Key = tuple[int, int, int]
"""(sensed_us, boot, sequence) of a reading."""


def decide(tags: SensorTags, now_us: int) -> dict[str, Any] | None:
    """The body of a tick that has something to decide; None where it has not."""
    rows = tags.head.tags[: tags.head.size]
    learnt_us = np.where(rows["accepted"] >= LEARNT_AFTER, rows["usual_interval_us"], 0)
    usual_us = learnt_us
    for tag, interval_us in tags.head.set_interval_us.items():
        usual_us[tag] = interval_us
    heard = (rows["silent"] == 0) & (rows["received_us"] > MIN_US)
    silent = (usual_us > 0) & heard & (now_us - rows["received_us"] > SILENT_AFTER * usual_us)
    released = {str(tag): due for tag, keys in tags.held.items() if (due := sorted(key for key in keys if key[0] <= now_us))}
    if not silent.any() and not released:
        return None
    return {"now_us": now_us, "silent": np.flatnonzero(silent).tolist(), "released": released}


def apply(tags: SensorTags, body: Mapping[str, Any], changes: Changes) -> None:
    """Move the state on by a tick, live and in replay."""
    tags.moving = True
    tags.clock_us = max(tags.clock_us, int(body["now_us"]))
    for tag in body["silent"]:
        row = tags.head.tags[tag]
        row["silent"] = 1
        if tag in tags.head.custodies:
            usual_us = tags.head.set_interval_us.get(tag) or int(row["usual_interval_us"])
            detail = {"usual_interval_us": usual_us, "last_received_us": int(row["received_us"])}
            changes.conditions.append(silence(tags, tag, "raise", int(row["newest_us"]), "clock", detail))
    slow_tag, slow_from = [], []
    for name, keys in body["released"].items():
        tag = int(name)
        slow_tag.append(tag)
        slow_from.append(_release(tags, tag, [(int(at), int(boot), int(sequence)) for at, boot, sequence in keys]))
        tags.series.pop(tag, None)
    if slow_tag:
        tags.judge_slow(np.array(slow_tag, np.int32), np.array(slow_from, np.int64), "reading", changes)


def speaks_again(tags: SensorTags, tag: int, changes: Changes) -> None:
    """A silent tag was heard of."""
    changes.conditions.append(silence(tags, tag, "clear", int(tags.head.tags[tag]["received_us"]), "reading", {}))


def silence(tags: SensorTags, tag: int, change: str, at_us: int, cause: str, detail: dict[str, Any]) -> Condition:
    """The silence of a tag begins or ends."""
    custody = tags.head.custodies.get(tag)
    return Condition(
        key=f"silence|{tags.ids[tag]}", kind="silence", change=change, at_us=at_us, carrier=custody.carrier if custody else None,
        tag_id=tags.ids[tag], reason="SILENT", cause=cause, detail=detail,
    )  # fmt: skip


def _release(tags: SensorTags, tag: int, keys: list[Key]) -> int:
    """The named readings are no longer in the future. Returns the earliest of their sensed times."""
    mine = tags.held.get(tag, {})
    for key in keys:
        tags.latest.put(tag, key[0], mine.pop(key, {}))
    if not mine:
        tags.held.pop(tag, None)
    row, ring = tags.head.tags[tag], tags.ring
    number, floor = int(row["ring_last"]), int(ring.head[0]) - ring.capacity
    while number >= 0 and number >= floor:
        slot = number % ring.capacity
        if (int(ring.sensed_us[slot]), int(ring.boot[slot]), int(ring.sequence[slot])) in keys:
            ring.mark[slot] = 0
        number = int(ring.previous[slot])
    newest = max(keys)
    if newest > (int(row["newest_us"]), int(row["newest_boot"]), int(row["newest_sequence"])):
        row["newest_us"], row["newest_boot"], row["newest_sequence"] = newest
    return min(keys)[0]
