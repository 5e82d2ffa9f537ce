"""The journal entry of a batch: its accepted readings, and what else a replay needs to know of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actors.journal.tables import Conflict
from actors.rules import codec, readings
from actors.rules.readings import ACCEPTED, CONFLICTING, DUPLICATE, U1, Batch

if TYPE_CHECKING:
    from actors.sensor_tag import Moved, SensorTags


def put_conflicts_aside(tags: SensorTags, offered: Batch, status: U1, received_us: int, moved: Moved) -> None:
    """Keep the whole of every conflicting reading, beside the journal."""
    for ordinal, row in enumerate(np.flatnonzero(status == CONFLICTING).tolist()):
        values = {readings.COLUMNS[code].name: float(offered.values[k, row]) for k, code in enumerate(offered.codes)}
        moved.changes.inserts.append(
            Conflict(
                shard=tags.shard,
                sequence=0,  # the commit fills in the entry's number
                ordinal=ordinal,
                tag_id=tags.ids[int(offered.tag[row])],
                sensed_us=int(offered.sensed_us[row]),
                boot=int(offered.boot[row]),
                reading_sequence=int(offered.sequence[row]),
                received_us=received_us,
                content={name: value for name, value in values.items() if value == value},
            )
        )


def write(tags: SensorTags, batch: Batch, status: U1, past_counter: int, moved: Moved) -> None:
    """Make the entry: the accepted readings, the counts of the others by tag, and what was decided beside the kernels.

    past_counter: the tags' before this batch. No entry where nothing changed.
    """
    whole = bool((status == ACCEPTED).all())
    kept = batch
    if not whole:
        kept_rows = status == ACCEPTED
        partly = [row for row in np.flatnonzero(status == CONFLICTING).tolist() if _in_ring(tags, batch, row)]
        kept_rows[partly] = True  # what is new of a partly conflicting reading
        kept = readings.subset(batch, kept_rows)
    extra: dict[str, Any] = {}
    if tags.past_counter != past_counter:
        extra["past_counter"] = tags.past_counter
    if tags.priors:
        extra["priors"] = list(tags.priors.items())
    if tags.slow:
        extra["slow"] = tags.slow
    if moved.changes.new_tags:
        extra["new_tags"] = [tags.ids[at] for at in moved.changes.new_tags]
    for name, state in (("duplicate", DUPLICATE), ("conflicting", CONFLICTING)):
        if not whole and (status == state).any():
            numbers, counts = np.unique(batch.tag[status == state], return_counts=True)
            extra[name] = [numbers.tolist(), counts.tolist()]
    if not len(kept) and not extra:
        return
    moved.blob = codec.encode(kept, None, None, extra)
    moved.rows = len(kept)
    if len(kept):
        moved.min_sensed_us, moved.max_sensed_us = int(kept.sensed_us.min()), int(kept.sensed_us.max())


def _in_ring(tags: SensorTags, batch: Batch, row: int) -> bool:
    """Whether this batch's row was put into the ring (a reading without a sequence that conflicts only in part)."""
    if batch.sequence[row] >= 0:
        return False
    ring = tags.ring
    number = int(tags.head.tags[int(batch.tag[row])]["ring_last"])
    while number >= tags.batch_begins:
        slot = number % ring.capacity
        if ring.sensed_us[slot] == batch.sensed_us[row] and ring.sequence[slot] < 0:
            values = ring.values[[int(ring.row_of_code[code]) for code in batch.codes], slot]
            if np.array_equal(values, batch.values[:, row], equal_nan=True):
                return True
        number = int(ring.previous[slot])
    return False
