"""What the clock decides for tags: silence, and readings whose sensed time is no longer in the future.

A tick that decides something is journaled with what it decided, so that a replay repeats it whatever its own clock says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.journal.prepared import Condition
from actors.rules.readings import FOREVER_US, Batch
from actors.tags.changes import Changes
from actors.tags.columns import MIN_US

if TYPE_CHECKING:
    from actors.sensor_tag import SensorTags

SILENT_AFTER = 3
"""A tag is silent after this many of its usual intervals (handbook 4)."""

LEARNT_AFTER = 5
"""Readings after which a learnt interval is believed."""

SILENCE_FLOOR_US = 60_000_000
"""With a learnt interval a tag is never silent before this time, for one that sends every second pauses for many small reasons (ours).

Where the interval is configured, three of it decide, however short it is.
"""

SILENCES_AT_ONCE = 1_000
"""One tick tells of at most so many: when a gateway of a hundred thousand tags goes away, readings of others are judged between."""

HEARD, SILENT, SILENT_UNTOLD = 0, 1, 2
"""TAG.silent. SILENT_UNTOLD: it rode nowhere when it fell silent, so there is no alert; one is raised when it rides."""

Key = tuple[int, int, int]
"""(sensed_us, boot, sequence) of a reading."""


def decide(tags: SensorTags, now_us: int) -> dict[str, Any] | None:
    """The body of a tick that has something to decide; None where it has not."""
    rows = tags.head.tags[: tags.head.size]
    learnt = (rows["accepted"] >= LEARNT_AFTER) & (rows["usual_interval_us"] > 0)
    after_us = np.where(learnt, np.maximum(SILENT_AFTER * rows["usual_interval_us"], tags.silence_floor_us), FOREVER_US)
    for tag, interval_us in tags.head.set_interval_us.items():
        after_us[tag] = SILENT_AFTER * interval_us
    heard = (rows["silent"] == HEARD) & (rows["received_us"] > MIN_US)
    untold = (rows["silent"] == SILENT_UNTOLD) & (rows["custody_from_us"] < FOREVER_US)
    silent = np.flatnonzero(untold | (heard & (now_us - rows["received_us"] > after_us)))[:SILENCES_AT_ONCE]
    released = {str(tag): due for tag, keys in tags.held.items() if (due := sorted(key for key in keys if key[0] <= now_us))}
    if not len(silent) and not released:
        return None
    return {"now_us": now_us, "silent": silent.tolist(), "released": released}


def apply(tags: SensorTags, body: Mapping[str, Any], changes: Changes) -> None:
    """Move the state on by a tick, live and in replay."""
    tags.moving = True
    tags.clock_us = max(tags.clock_us, int(body["now_us"]))
    for tag in body["silent"]:
        row = tags.head.tags[tag]
        row["silent"] = SILENT if tag in tags.head.custodies else SILENT_UNTOLD
        if row["silent"] == SILENT:
            usual_us = tags.head.set_interval_us.get(tag) or int(row["usual_interval_us"])
            detail = {"usual_interval_us": usual_us, "last_received_us": int(row["received_us"])}
            changes.conditions.append(silence(tags, tag, "raise", int(row["newest_us"]), "clock", detail))
    released = {
        int(name): _release(tags, int(name), [(int(at), int(boot), int(sequence)) for at, boot, sequence in keys])
        for name, keys in body["released"].items()
    }
    if released:
        slow_from = np.array([batch.sensed_us.min() for batch in released.values()], np.int64)
        tags.judge_slow(np.array(list(released), np.int32), slow_from, "reading", changes, released)


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


def _release(tags: SensorTags, tag: int, keys: list[Key]) -> Batch:
    """The named readings are no longer in the future. Returns them."""
    mine = tags.held.get(tag, {})
    values = [mine.pop(key, {}) for key in keys]
    for key, held in zip(keys, values, strict=True):
        tags.latest.put(tag, key[0], held)
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
    codes = tuple(sorted({code for held in values for code in held}))
    sensed_us, boot, sequence = (np.array(column, np.int64) for column in zip(*keys, strict=True))
    given = np.array([[held.get(code, np.nan) for held in values] for code in codes]).reshape(len(codes), len(keys))
    return Batch(np.zeros(len(keys), np.int32), sensed_us, boot, sequence, codes, given)
