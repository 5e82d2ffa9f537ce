"""Readings back, by tag and sensed time: from the archive what the journal has given up, from segments where they are sorted, from the
entries after them, as one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np
from sqlalchemy import Connection, Engine, bindparam, select

from actors.journal import pages, quarantine, rows, segments, sorted_rows
from actors.journal.pages import Rows
from actors.journal.quarantine import DamagedJournal as DamagedJournal
from actors.journal.quarantine import Known
from actors.journal.tables import JournalBatch, JournalRetained
from actors.rules import codec
from actors.rules.readings import ACCEPTED, I4, Batch

BATCH, RETAINED = rows.table_of(JournalBatch), rows.table_of(JournalRetained)

_UNSORTED = (
    select(BATCH.c.sequence, BATCH.c.min_sensed_us, BATCH.c.max_sensed_us, BATCH.c.readings, BATCH.c.blob)
    .where((BATCH.c.shard == bindparam("its_shard")) & BATCH.c.sequence.between(bindparam("first"), bindparam("last")))
    .where((BATCH.c.max_sensed_us >= bindparam("low")) & (BATCH.c.min_sensed_us < bindparam("high")))
    .order_by(BATCH.c.sequence)
)

_DROPPED = select(RETAINED.c.dropped_sequence).where(RETAINED.c.shard == bindparam("its_shard"))
"""Readings of entries up to this one are in the archive alone."""

BATCHES_AT_ONCE = 32
"""So many blobs are held in memory at a time."""


def read(
    engine: Engine, shard: int, tags: Sequence[int], from_us: int, until_us: int, *, before_sequence: int | None = None
) -> tuple[I4, Batch]:
    """The accepted readings of some tags of a shard with from_us <= sensed_us < until_us, in journal order.

    tags: local indices. Returns (position in `tags` of each row, the rows; their `tag` column is the local index, their codes all that any
    of them has). before_sequence: only of journal entries before this one. What is in quarantine is left out; raises
    DamagedJournal for what is damaged and not there yet.
    """
    position, found = read_rows(engine, shard, tags, from_us, until_us, before_sequence=before_sequence)
    return position, found.batch


def read_rows(
    engine: Engine, shard: int, tags: Sequence[int], from_us: int, until_us: int, *, before_sequence: int | None = None
) -> tuple[I4, Rows]:
    """As `read`, with where each reading stands in the journal."""
    wanted = np.full(max(tags, default=-1) + 1, -1, np.int32)
    wanted[list(tags)] = np.arange(len(tags), dtype=np.int32)
    ascending = np.unique(np.array(tags, np.int64))
    parts, in_order = [], True
    with engine.connect() as connection:  # one transaction: all of it sees one state of the database
        known = quarantine.known(connection, shard)
        dropped = (connection.execute(_DROPPED, {"its_shard": shard}).scalar() or 0) if len(tags) else 0
        if dropped:
            for part in _archived(connection, shard, tags, from_us, until_us, dropped):
                parts.append(_found(part, wanted, from_us, until_us, before_sequence))
                in_order = False
        after = sorted_rows.sorted_sequence(connection, shard) if len(tags) else 0
        if after:
            for page in segments.read_tags(connection, shard, ascending, from_us, until_us, known):
                part = _found(page, wanted, from_us, until_us, before_sequence)
                if len(part):
                    parts.append(part)
                    in_order = False
        for entry in _entries(connection, shard, from_us, until_us, after, before_sequence, known) if len(tags) else ():
            part = _found(entry, wanted, from_us, until_us, before_sequence)
            if len(part):
                parts.append(part)
    if not parts:
        empty = np.empty(0, np.int64)
        nothing = Batch(np.empty(0, np.int32), empty, empty, empty, (), np.empty((0, 0)))
        return np.empty(0, np.int32), Rows(nothing, empty, np.empty(0, np.int32), np.empty(0, np.uint8))
    found = pages.concatenate(parts)
    if not in_order:
        found = pages.in_journal_order(found)
    return wanted[found.batch.tag], found


def portion(engine: Engine, shard: int, tag: int, from_us: int, until_us: int, readings: int) -> int:
    """A time after from_us, at most until_us, up to which about `readings` of a tag's stored readings are at most to be unpacked.

    It is told from directories. Entries that are not sorted yet do not count: there are few of them.
    """
    with engine.connect() as connection:
        dropped = connection.execute(_DROPPED, {"its_shard": shard}).scalar() or 0
        found = list(segments.weights(connection, shard, tag, from_us, until_us))
        if dropped:
            from actors.journal import archived  # see _archived

            found += archived.weights(connection, shard, tag, from_us, until_us)
    count = 0
    for start_us, held in sorted(found):
        count += held
        if count > readings and start_us > from_us:
            return start_us
    return until_us


def _archived(connection: Connection, shard: int, tags: Sequence[int], from_us: int, until_us: int, upto: int) -> list[Rows]:
    """What the archive has of entries up to `upto`, each reading once: one that was dropped before its journey closed is there twice."""
    from actors.journal import archived  # with it comes Arrow, which a shard whose journal has everything need not load

    parts = list(archived.read_tags(connection, shard, tags, from_us, until_us, upto))
    if not parts:
        return []
    found = pages.concatenate(parts)
    _, first = np.unique(found.journal << 24 | found.row, return_index=True)
    return [pages.subset(found, first) if len(first) < len(found) else found]


def _found(part: Rows, wanted: I4, from_us: int, until_us: int, before_sequence: int | None) -> Rows:
    batch = part.batch
    inside = batch.tag < len(wanted)
    mask = inside & (wanted[np.where(inside, batch.tag, 0)] >= 0) & (batch.sensed_us >= from_us) & (batch.sensed_us < until_us)
    mask &= part.status == ACCEPTED
    if before_sequence is not None:
        mask &= part.journal < before_sequence
    return pages.subset(part, np.flatnonzero(mask))


def _entries(
    connection: Connection, shard: int, from_us: int, until_us: int, after: int, before_sequence: int | None, known: Known
) -> Iterator[Rows]:
    """The entries that are not sorted yet and may hold readings of that time, in journal order."""
    last = segments.MOST if before_sequence is None else before_sequence - 1
    asked = {"its_shard": shard, "first": after + 1, "last": last, "low": from_us, "high": until_us}
    # Closed whatever happens: on SQLite an open cursor would keep its connection at this state of the database.
    with closing(connection.execution_options(yield_per=BATCHES_AT_ONCE).execute(_UNSORTED, asked)) as found:
        for row in found:
            if row.sequence in known.entries:
                continue
            try:
                entry = codec.decode(row.blob)
            except codec.DamagedBatch as error:
                raise quarantine.damaged_entry(
                    shard, row.sequence, row.min_sensed_us, row.max_sensed_us, row.readings, row.blob, str(error)
                ) from error
            yield pages.of_entry(entry.batch, row.sequence, entry.status)
