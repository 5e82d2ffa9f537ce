"""Readings back from the journal, by tag and sensed time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from sqlalchemy import Engine, select

from actors.journal import rows
from actors.journal.tables import JournalBatch
from actors.rules import codec
from actors.rules.readings import ACCEPTED, I4, Batch

BATCH = rows.table_of(JournalBatch)

BATCHES_AT_ONCE = 32
"""So many blobs are held in memory at a time."""


class DamagedJournal(Exception):
    """A journal entry's bytes are not those that were written. Names the entry and the time range of its readings."""

    def __init__(self, shard: int, sequence: int, from_us: int | None, until_us: int | None, why: str) -> None:
        super().__init__(f"journal entry {sequence} of shard {shard} (sensed {from_us} to {until_us} us) is damaged: {why}")
        self.shard, self.sequence, self.from_us, self.until_us = shard, sequence, from_us, until_us


def read(
    engine: Engine, shard: int, tags: Sequence[int], from_us: int, until_us: int, *, before_sequence: int | None = None
) -> tuple[I4, Batch]:
    """The accepted readings of some tags of a shard with from_us <= sensed_us < until_us, in journal order.

    tags: local indices. Returns (position in `tags` of each row, the rows; their `tag` column is the local index, their codes all that any
    of them has). before_sequence: only of journal entries before this one. Raises DamagedJournal.
    """
    positions, batches = [], []
    wanted = np.full(max(tags, default=-1) + 1, -1, np.int32)
    wanted[list(tags)] = np.arange(len(tags), dtype=np.int32)
    for batch, accepted in _sources(engine, shard, from_us, until_us, before_sequence):
        known = batch.tag < len(wanted)
        position = wanted[np.where(known, batch.tag, 0)] if len(wanted) else np.full(len(batch), -1, np.int32)
        mask = known & (position >= 0) & (batch.sensed_us >= from_us) & (batch.sensed_us < until_us)
        if accepted is not None:
            mask &= accepted
        found = np.flatnonzero(mask)
        if len(found):
            positions.append(position[found])
            batches.append(_rows(batch, found))
    if not batches:
        empty = np.empty(0, np.int64)
        return np.empty(0, np.int32), Batch(np.empty(0, np.int32), empty, empty, empty, (), np.empty((0, 0)))
    return np.concatenate(positions), joined(batches)


def _sources(
    engine: Engine, shard: int, from_us: int, until_us: int, before_sequence: int | None
) -> Iterator[tuple[Batch, np.ndarray[tuple[int], np.dtype[np.bool_]] | None]]:
    """All stored batches that may hold readings of that time, in journal order, each with the mask of its accepted rows (None: all)."""
    query = (
        select(BATCH.c.sequence, BATCH.c.min_sensed_us, BATCH.c.max_sensed_us, BATCH.c.blob)
        .where((BATCH.c.shard == shard) & (BATCH.c.max_sensed_us >= from_us) & (BATCH.c.min_sensed_us < until_us))
        .order_by(BATCH.c.sequence)
    )
    if before_sequence is not None:
        query = query.where(BATCH.c.sequence < before_sequence)
    with engine.connect().execution_options(yield_per=BATCHES_AT_ONCE) as connection:
        for row in connection.execute(query):
            try:
                entry = codec.decode(row.blob)
            except codec.DamagedBatch as error:
                raise DamagedJournal(shard, row.sequence, row.min_sensed_us, row.max_sensed_us, str(error)) from error
            yield entry.batch, None if entry.status is None else entry.status == ACCEPTED


def _rows(batch: Batch, found: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Batch:
    return Batch(batch.tag[found], batch.sensed_us[found], batch.boot[found], batch.sequence[found], batch.codes, batch.values[:, found])


def joined(batches: Sequence[Batch]) -> Batch:
    """Batches after each other as one, with all value columns that any of them has."""
    codes = tuple(sorted({code for batch in batches for code in batch.codes}))
    values = np.full((len(codes), sum(len(batch) for batch in batches)), np.nan)
    start = 0
    for batch in batches:
        values[[codes.index(code) for code in batch.codes], start : start + len(batch)] = batch.values
        start += len(batch)
    tag, sensed, boot, sequence = (
        np.concatenate([getattr(batch, name) for batch in batches]) for name in ("tag", "sensed_us", "boot", "sequence")
    )
    return Batch(tag, sensed, boot, sequence, codes, values)
