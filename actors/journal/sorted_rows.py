"""What sorting history (compaction.py) writes, inside the committer's transactions: for Store.write, harmless when sent again.

Apart from the sorting itself, for the committer imports what it is asked to call: compiled kernels would take it half a second, at the
first pages of a shard, and all commits behind them would wait.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from actors.journal import rows, snapshot
from actors.journal.tables import JournalBatch, Segment, SegmentPage, ShardOwner, SortedEntries
from actors.rules.errors import FailedPrecondition, Superseded

BATCH = rows.table_of(JournalBatch)
OWNER = rows.table_of(ShardOwner)
SEGMENT = rows.table_of(Segment)
PAGE = rows.table_of(SegmentPage)
ENTRIES = rows.table_of(SortedEntries)

_SORTED_TO = select(OWNER.c.sorted_sequence).where(OWNER.c.shard == bindparam("its_shard"))


def sorted_sequence(connection: Connection, shard: int) -> int:
    """Readings up to this entry are in segments."""
    return connection.execute(_SORTED_TO, {"its_shard": shard}).scalar() or 0


def _hold_fence(connection: Connection, shard: int, epoch: int) -> None:
    mine = select(OWNER.c.shard).where((OWNER.c.shard == shard) & (OWNER.c.epoch == epoch))
    if connection.execute(mine.with_for_update(read=True)).first() is None:
        raise Superseded(f"shard {shard} has another owner", field="epoch", value=epoch)


def write_pages(connection: Connection, shard: int, epoch: int, segment: int, first: int, blobs: Sequence[bytes]) -> None:
    """Write pages of a segment that is not published yet."""
    _hold_fence(connection, shard, epoch)
    made = [{"shard": shard, "segment": segment, "page": first + at, "blob": blob} for at, blob in enumerate(blobs)]
    rows.upsert(connection, PAGE, made)


def _insert(connection: Connection, segment: Segment) -> bool:
    """Publish a segment; False where it is published already."""
    mine = (SEGMENT.c.shard == segment.shard) & (SEGMENT.c.number == segment.number)
    if connection.execute(select(SEGMENT.c.number).where(mine)).first() is not None:
        return False
    there = (PAGE.c.shard == segment.shard) & (PAGE.c.segment == segment.number)
    found = connection.execute(select(func.count()).select_from(PAGE).where(there)).scalar_one()
    if found < segment.pages:
        raise FailedPrecondition(f"the segment has {found} of {segment.pages} pages", field="segment", value=segment.number)
    connection.execute(insert(SEGMENT), rows.values(segment))
    return True


def publish_sorted(connection: Connection, shard: int, epoch: int, before: int, segment: Segment | None, entries: SortedEntries) -> None:
    """From now on the entries after `before` are read from the segment (None: there were no readings)."""
    _hold_fence(connection, shard, epoch)
    mine = (OWNER.c.shard == shard) & (OWNER.c.sorted_sequence == before)
    if connection.execute(update(OWNER).where(mine).values(sorted_sequence=entries.last_sequence)).rowcount != 1:
        done = (ENTRIES.c.shard == shard) & (ENTRIES.c.first_sequence == entries.first_sequence) & (ENTRIES.c.checksum == entries.checksum)
        if connection.execute(select(ENTRIES.c.shard).where(done)).first() is None:
            raise FailedPrecondition("other entries were sorted meanwhile", field="sequence", value=before)
        return
    if segment is not None:
        _insert(connection, segment)
    connection.execute(insert(ENTRIES), rows.values(entries))


def publish_merged(connection: Connection, shard: int, epoch: int, replaced: Sequence[int], segment: Segment | None) -> None:
    """From now on the segment (None: all pages are in quarantine) is read in place of those it was made from."""
    _hold_fence(connection, shard, epoch)
    if segment is not None and not _insert(connection, segment):
        return
    mine = (SEGMENT.c.shard == shard) & SEGMENT.c.number.in_(list(replaced))
    if connection.execute(delete(SEGMENT).where(mine)).rowcount != len(replaced) and segment is not None:
        raise FailedPrecondition("a segment that was merged is not there", field="segment", value=list(replaced))


def remove_pages(connection: Connection, shard: int, epoch: int, which: Sequence[tuple[int, int]]) -> None:
    """Remove pages (segment, page) that belong to no segment."""
    _hold_fence(connection, shard, epoch)
    numbers = select(SEGMENT.c.number).where(SEGMENT.c.shard == shard)
    for segment in sorted({segment for segment, _ in which}):
        some = [page for number, page in which if number == segment]
        mine = (PAGE.c.shard == shard) & (PAGE.c.segment == segment) & PAGE.c.segment.not_in(numbers)
        connection.execute(delete(PAGE).where(mine & PAGE.c.page.in_(some)))


def remove_entries(connection: Connection, shard: int, epoch: int, upto: int) -> None:
    """Remove entries of readings that are sorted and that no recovery needs."""
    _hold_fence(connection, shard, epoch)
    safe = min(upto, sorted_sequence(connection, shard), snapshot.older(connection, shard))
    connection.execute(delete(BATCH).where((BATCH.c.shard == shard) & (BATCH.c.kind == "readings") & (BATCH.c.sequence <= safe)))
