"""After a recovery that had to leave damaged journal entries out: the tags' identities and numbers are those of the database.

The readings of such an entry are lost to the state, what was stated from them stands: nothing is retracted because its evidence was
damaged. So that what is stated from now on goes on from what stands, each excursion and visit in memory takes the identity of the one
in the database that it is, and new ones get numbers that were never given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from actors.tags.past import stated_excursion, stated_visit
from actors.tags.stated import match_excursions, match_visits

if TYPE_CHECKING:
    from actors.sensor_tag import SensorTags


def registered(tags: SensorTags, tag_ids: Sequence[str]) -> None:
    """Tags that the entry left out may have registered; `tag_ids`: all of the shard, by local index."""
    tags.add(list(tag_ids[len(tags.ids) :]))


def identities(tags: SensorTags, counter: int, past_counter: int) -> None:
    """At the end of the fold. counter, past_counter: the largest in the ids that the database holds of this shard."""
    tags.counter, tags.past_counter = max(tags.counter, counter), max(tags.past_counter, past_counter)
    head = tags.head
    for tag, custody in head.custodies.items():
        excursions = [stated_excursion(row) for row in tags.reads.excursions([custody.custody_id])]
        pairs, _, unknown = match_excursions(excursions, head.excursions.get(tag, ()))
        for there, here in pairs:
            here.excursion_id, here.revision, here.found_late = there.excursion_id, there.revision, there.found_late
        for one in unknown:
            one.excursion_id, one.revision = tags.next_id(), 0
        visits = [stated_visit(row) for row in tags.reads.visits([custody.custody_id])]
        visit_pairs, _, unknown_visits = match_visits(visits, head.stated_visits.get(tag, ()))
        for stated, found in visit_pairs:
            found.visit_id, found.revision, found.found_late = stated.visit_id, stated.revision, stated.found_late
        for seen in unknown_visits:
            seen.visit_id, seen.revision = tags.next_id(), 0
