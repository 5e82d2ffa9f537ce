"""Folding a shard's journal into the state of its tags, and what is done where an entry of it is damaged.

A damaged entry is met only after it was recorded and told (`quarantine.record`), and then:

- Readings or a tick: the fold goes on without it. Tags that it registered are those of the database, what was stated from it stands,
  and what is stated later goes on from what stands (tags/adopt.py). Its readings are missing, by name and time range.
- A command: nobody may guess what was assigned or planned. The shard does not serve until the database is restored from a copy.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from actors.journal.segments import QUARANTINED
from actors.rules.errors import Unavailable
from actors.sensor_tag import PAST_IDS
from actors.tags import adopt

if TYPE_CHECKING:
    from actors.journal.queries_tags import TagReads
    from actors.sensor_tag import SensorTags

log = logging.getLogger("waybill.recovery")


def fold(tags: SensorTags, reads: TagReads, after: int) -> tuple[int, int, int]:
    """Move the tags on by all entries after `after`: (the last entry, readings folded, entries left out). Raises Unavailable."""
    sequence, count, left_out = after, 0, 0
    try:
        for entry in reads.journal_after(sequence):
            if entry.sequence != sequence + 1:
                raise Unavailable(f"the journal of shard {reads.shard} has no entry {sequence + 1}")
            reads.until_sequence = entry.sequence
            if not entry.kind.startswith(QUARANTINED):
                tags.replay(entry.kind, entry.blob, entry.received_us)
                count += entry.readings
            elif entry.kind == QUARANTINED + "command":
                raise Unavailable(f"journal entry {entry.sequence} of shard {reads.shard} is a damaged command: restore the database")
            else:
                log.error("shard %d goes on without the damaged journal entry %d", reads.shard, entry.sequence)
                adopt.registered(tags, reads.tag_ids())
                left_out += 1
            sequence = entry.sequence
    finally:
        reads.until_sequence = None
    if left_out:
        adopt.identities(tags, reads.largest_counter(0, PAST_IDS), reads.largest_counter(PAST_IDS, 2 * PAST_IDS) - PAST_IDS)
    return sequence, count, left_out
