"""Snapshots of a shard's state: written in parts of bounded size, read back whole or not at all."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator

from sqlalchemy import Connection, Engine, func, select

from actors.journal import rows
from actors.journal.prepared import PreparedCommit, SnapshotPart
from actors.journal.tables import Snapshot

log = logging.getLogger(__name__)

PART_BYTES = 16 * 1024 * 1024
"""A part is at most so long: other shards' commits wait no longer than its write takes."""

SNAPSHOTS_KEPT = 2
"""The newest complete snapshot of a shard and the one before it, should the newest be damaged."""

SNAPSHOT = rows.table_of(Snapshot)


def save(shard: int, epoch: int, sequence: int, state: bytes, now_us: int, *, part_bytes: int = PART_BYTES) -> Iterator[PreparedCommit]:
    """The commits that store a shard's state after journal entry `sequence`, one for each part, to be committed in order.

    The snapshot counts once the last of them is committed; commits of readings may come between. A snapshot that was not
    finished, and all but the newest two, are dropped when a later one is.
    """
    view = memoryview(state)
    parts = max(1, -(-len(view) // part_bytes))
    for number in range(parts):
        blob = bytes(view[number * part_bytes : (number + 1) * part_bytes])
        part = SnapshotPart(sequence=sequence, part=number, parts=parts, blob=blob, made_us=now_us)
        key = f"snapshot|{shard}|{epoch}|{sequence}|{number}"
        yield PreparedCommit(shard=shard, epoch=epoch, now_us=now_us, commit_key=key, snapshot=[part])


def load(engine: Engine, shard: int, head: int | None = None) -> tuple[int, bytes] | None:
    """The newest whole, undamaged snapshot of a shard as (sequence, state), at most at journal entry `head`; None where there is none.

    A damaged one is reported and the one before it is taken: the journal after it is longer, the state is the same.
    """
    with engine.connect() as connection:
        mine = SNAPSHOT.c.shard == shard
        if head is not None:
            mine &= SNAPSHOT.c.sequence <= head
        newest_first = select(SNAPSHOT.c.sequence).where(mine).distinct().order_by(SNAPSHOT.c.sequence.desc())
        for sequence in connection.execute(newest_first).scalars().all():
            query = select(SNAPSHOT.c.part, SNAPSHOT.c.parts, SNAPSHOT.c.checksum, SNAPSHOT.c.blob)
            found = connection.execute(query.where(mine & (SNAPSHOT.c.sequence == sequence)).order_by(SNAPSHOT.c.part)).all()
            if [row.part for row in found] != list(range(found[0].parts)):
                continue  # it was never finished
            damaged = [row.part for row in found if zlib.crc32(row.blob) != row.checksum]
            if not damaged:
                return sequence, b"".join(row.blob for row in found)
            log.error("snapshot %d of shard %d is damaged in parts %s: taking the one before it", sequence, shard, damaged)
    return None


def whole(connection: Connection, shard: int) -> list[int]:
    """The entries after which a shard's whole snapshots stand, those that are kept, the newest first."""
    query = (
        select(SNAPSHOT.c.sequence)
        .where(SNAPSHOT.c.shard == shard)
        .group_by(SNAPSHOT.c.sequence)
        .having(func.count() == func.max(SNAPSHOT.c.parts))
        .order_by(SNAPSHOT.c.sequence.desc())
        .limit(SNAPSHOTS_KEPT)
    )
    return list(connection.execute(query).scalars())


def older(connection: Connection, shard: int) -> int:
    """The entry of the oldest whole snapshot that is kept: recovery needs nothing before it. 0 where there are not as many as are kept."""
    found = whole(connection, shard)
    return found[-1] if len(found) == SNAPSHOTS_KEPT else 0
