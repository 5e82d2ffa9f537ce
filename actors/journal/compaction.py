"""Sorting history by tag in the background: new entries into segments, segments into larger ones, and what is replaced away.

All work is prepared outside of transactions. Pages are written in commits of a few MB; nobody sees them until a transaction of
a few rows puts the segment in the place of the entries or segments it was made from. Then these are removed, bit by bit, as nobody
reads them any more. Each of these writes holds the shard's fence; what a process that died has left behind is swept by the next.

The entries of readings themselves are removed only behind the older of the two snapshots that are kept: recovery folds them.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, func, select

from actors.journal import pages, quarantine, segments, snapshot, sorted_rows
from actors.journal.pages import PAGE_ROWS, Rows
from actors.journal.quarantine import DamagedJournal, damaged_entry
from actors.journal.segments import Directory, Head
from actors.journal.sorted_rows import BATCH, PAGE, SEGMENT
from actors.journal.store import Store
from actors.journal.tables import Segment, SortedEntries
from actors.rules import codec
from actors.rules.errors import FailedPrecondition
from actors.rules.readings import Scratch

log = logging.getLogger("waybill.compaction")

TIMEOUT_S = 60.0
WRITE_BYTES = 4 << 20
"""One commit writes so many bytes of pages: others wait no longer than for that."""

PLAIN, PACKED = 0, 1
"""zlib's level for what will soon be merged again, and for what was merged."""


@dataclass(frozen=True, slots=True)
class Settings:
    """When to sort and how much at a time.

    least_entries, least_readings: entries are sorted once so many wait (of either); looking a tag up reads all that waits.
    sort_readings, sort_entries: a segment is made of at most so many. fan_in: so many neighbours of one level become one of the next.
    most_readings: no segment gets larger by merging. read_rows: rows of each merged segment held at a time.
    """

    least_entries: int = 1_024
    least_readings: int = 65_536
    sort_readings: int = 262_144
    sort_entries: int = 4_096
    fan_in: int = 8
    most_readings: int = 1 << 25
    read_rows: int = 8 * PAGE_ROWS
    page_rows: int = PAGE_ROWS


class Compactor:
    """Sorts one shard's history. For one thread at a time, of the shard's owner. `now`: our clock."""

    def __init__(self, store: Store, shard: int, epoch: int, now: Callable[[], int], settings: Settings | None = None) -> None:
        self.store, self.shard, self.epoch, self.now = store, shard, epoch, now
        self.settings = settings or Settings()
        self._scratch = Scratch()
        self._unswept = True

    def step(self, *, force: bool = False) -> bool:
        """Do the next bit of work; False where there is none. `force`: sort what waits however little it is.

        What is found damaged is recorded and left out. Raises Superseded, and what else a commit raises: nothing is half done.
        """
        try:
            return self.sweep() or self.sort(force=force) or self.merge()
        except DamagedJournal as damage:
            quarantine.record(self.store, self.epoch, damage, self.now())
            return True

    # ---------------------------------------------------------------- entries into a segment

    def sort(self, *, force: bool = False) -> bool:
        """Make a segment of the next entries where enough of them wait."""
        chosen = self._waiting(force)
        if chosen is None:
            return False
        before, last = chosen
        heads: list[Head] = []
        parts: list[Rows] = []
        with self.store.engine.connect() as connection:
            known = quarantine.known(connection, self.shard)
            mine = (BATCH.c.shard == self.shard) & BATCH.c.sequence.between(before + 1, last) & (BATCH.c.kind == "readings")
            query = select(BATCH).where(mine).order_by(BATCH.c.sequence)
            with closing(connection.execution_options(yield_per=32).execute(query)) as found:
                for row in found:
                    head, part = self._entry(row, row.sequence in known.entries)
                    heads.append(head)
                    if part is not None and len(part):
                        parts.append(part)
        segment = None
        if parts:
            whole = pages.by_tag(pages.concatenate(parts), self._scratch)
            number = self._next_number()
            segment = self._write(number, self._paged([whole]), 0, before + 1, last)
        packed = segments.pack_heads(heads)
        entries = SortedEntries(
            shard=self.shard, first_sequence=before + 1, last_sequence=last, readings=sum(head.readings for head in heads),
            checksum=zlib.crc32(packed), blob=packed,
        )  # fmt: skip
        self._call(sorted_rows.publish_sorted, before, segment, entries)
        return True

    def _waiting(self, force: bool) -> tuple[int, int] | None:
        """The entries to sort next, as (the last one sorted, the last one to sort)."""
        settings = self.settings
        with self.store.engine.connect() as connection:
            before = sorted_rows.sorted_sequence(connection, self.shard)
            mine = (BATCH.c.shard == self.shard) & (BATCH.c.sequence > before)
            query = select(BATCH.c.sequence, BATCH.c.readings).where(mine).order_by(BATCH.c.sequence).limit(settings.sort_entries)
            found = connection.execute(query).all()
        if not found:
            return None
        sums = np.cumsum([row.readings for row in found])
        if not force and len(found) < settings.least_entries and sums[-1] < settings.least_readings:
            return None
        count = max(int(np.searchsorted(sums, settings.sort_readings, "right")), 1)
        return before, found[count - 1].sequence

    def _entry(self, row: Row[Any], left_out: bool) -> tuple[Head, Rows | None]:
        told = (row.sequence, row.received_us, row.worker, row.epoch, row.checksum, row.readings, row.min_sensed_us, row.max_sensed_us)
        if left_out:
            return Head(*told, (), False, {}, damaged=True), None
        try:
            entry = codec.decode(row.blob)
        except codec.DamagedBatch as error:
            raise self._damaged(row, str(error)) from error
        if zlib.crc32(row.blob) != row.checksum:
            raise self._damaged(row, "it is not the batch that was committed")
        if entry.flags is not None:
            raise FailedPrecondition("entries with flags are not sorted", field="sequence", value=row.sequence)
        head = Head(*told, entry.batch.codes, entry.status is not None, dict(entry.extra))
        return head, pages.of_entry(entry.batch, row.sequence, entry.status)

    def _damaged(self, row: Row[Any], why: str) -> DamagedJournal:
        return damaged_entry(self.shard, row.sequence, row.min_sensed_us, row.max_sensed_us, row.readings, row.blob, why)

    # ---------------------------------------------------------------- segments into a larger one

    def merge(self) -> bool:
        """Make one segment of neighbours of the same level where there are enough."""
        with self.store.engine.connect() as connection:
            there = connection.execute(select(SEGMENT).where(SEGMENT.c.shard == self.shard).order_by(SEGMENT.c.first_sequence)).all()
        chosen = self._mergeable(there)
        if not chosen:
            return False
        level = chosen[0].level + 1
        made = self._write(
            self._next_number(), self._paged(self._merged(chosen)), level, chosen[0].first_sequence, chosen[-1].last_sequence
        )
        self._call(sorted_rows.publish_merged, [segment.number for segment in chosen], made)
        self._unswept = True
        return True

    def _mergeable(self, there: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
        for start in range(len(there) - self.settings.fan_in + 1):
            some = there[start : start + self.settings.fan_in]
            if {segment.level for segment in some} == {some[0].level} and sum(row.readings for row in some) <= self.settings.most_readings:
                return some
        return ()

    def _merged(self, sources: Sequence[Row[Any]]) -> Iterator[Rows]:
        """The rows of all sources in order, in portions; of each source some pages are held at a time."""
        streams = [self._stream(source) for source in sources]
        held: list[Rows | None] = [next(stream, None) for stream in streams]
        while any(part is not None for part in held):
            # Up to the smallest of the last keys held, all rows of all sources are here; equal keys may go on behind it.
            ends = [(int(part.batch.tag[-1]), int(part.batch.sensed_us[-1])) for part in held if part is not None]
            cut = min(ends)
            ready: list[Rows] = []
            for at, part in enumerate(held):
                while part is not None:
                    count = _up_to(part, cut)
                    if count:
                        ready.append(pages.subset(part, slice(0, count)))
                    if count < len(part):
                        part = pages.subset(part, slice(count, len(part)))
                        break
                    part = next(streams[at], None)
                held[at] = part
            yield pages.by_tag(pages.concatenate(ready), self._scratch)

    def _stream(self, source: Row[Any]) -> Iterator[Rows]:
        at_once = max(self.settings.read_rows // self.settings.page_rows, 1)
        for first in range(0, source.pages, at_once):
            with self.store.engine.connect() as connection:
                known = quarantine.known(connection, self.shard)
                numbers = range(first, min(first + at_once, source.pages))
                found = list(segments.read_pages(connection, source, numbers, known))
            if found:
                yield pages.concatenate(found)

    # ---------------------------------------------------------------- writing

    def _next_number(self) -> int:
        with self.store.engine.connect() as connection:
            used = connection.execute(select(func.max(SEGMENT.c.number)).where(SEGMENT.c.shard == self.shard)).scalar() or 0
            begun = connection.execute(select(func.max(PAGE.c.segment)).where(PAGE.c.shard == self.shard)).scalar() or 0
        return int(max(used, begun)) + 1

    def _paged(self, portions: Any) -> Iterator[Rows]:
        """Ordered rows in portions as pages."""
        size = self.settings.page_rows
        left: Rows | None = None
        for portion in portions:
            whole = portion if left is None else pages.concatenate([left, portion])
            full = len(whole) // size * size
            for start in range(0, full, size):
                yield pages.subset(whole, slice(start, start + size))
            left = pages.subset(whole, slice(full, len(whole))) if full < len(whole) else None
        if left is not None:
            yield left

    def _write(self, number: int, parts: Iterator[Rows], level: int, first: int, last: int) -> Segment | None:
        """Write a segment's pages; the record that will publish it, None where there are no rows."""
        blobs: list[bytes] = []
        written = readings = 0
        directories: list[Directory] = []
        for part in parts:
            directories.append(Directory.of([part]))
            readings += len(part)
            blobs.append(pages.encode(part, PACKED if level else PLAIN))
            if sum(map(len, blobs)) >= WRITE_BYTES:
                self._call(sorted_rows.write_pages, number, written, blobs)
                written += len(blobs)
                blobs = []
        if blobs:
            self._call(sorted_rows.write_pages, number, written, blobs)
        if not directories:
            return None
        whole = Directory(*(np.concatenate([getattr(one, name) for one in directories]) for name in Directory.__slots__))
        packed = whole.encode()
        return Segment(
            shard=self.shard, number=number, level=level, first_sequence=first, last_sequence=last,
            min_sensed_us=int(whole.min_sensed_us.min()), max_sensed_us=int(whole.max_sensed_us.max()), readings=readings,
            pages=len(directories), made_us=self.now(), checksum=zlib.crc32(packed), directory=packed,
        )  # fmt: skip

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self.store.write(function, self.shard, self.epoch, *arguments).result(TIMEOUT_S)

    # ---------------------------------------------------------------- removing

    def sweep(self) -> bool:
        """Remove a bit of what nobody reads any more: pages without a segment, sorted entries behind the older snapshot."""
        with self.store.engine.connect() as connection:
            if self._unswept:
                numbers = select(SEGMENT.c.number).where(SEGMENT.c.shard == self.shard)
                mine = (PAGE.c.shard == self.shard) & PAGE.c.segment.not_in(numbers)
                orphans = connection.execute(select(PAGE.c.segment, PAGE.c.page).where(mine).limit(128)).all()
                if orphans:
                    found = [tuple(row) for row in orphans]
                else:
                    self._unswept, found = False, []
            else:
                found = []
            done = [] if found else self._removable(connection)
        if found:
            self._call(sorted_rows.remove_pages, found)
        elif done:
            self._call(sorted_rows.remove_entries, done[-1])
        return bool(found or done)

    def _removable(self, connection: Connection) -> list[int]:
        """The first sorted entries that recovery does not need, a few MB of them."""
        upto = min(sorted_rows.sorted_sequence(connection, self.shard), snapshot.older(connection, self.shard))
        mine = (BATCH.c.shard == self.shard) & (BATCH.c.kind == "readings") & (BATCH.c.sequence <= upto)
        found = connection.execute(select(BATCH.c.sequence, BATCH.c.readings).where(mine).order_by(BATCH.c.sequence).limit(512)).all()
        sums = np.cumsum([row.readings for row in found])
        count = max(int(np.searchsorted(sums, self.settings.sort_readings, "right")), 1)
        return [row.sequence for row in found[:count]]


def _up_to(part: Rows, key: tuple[int, int]) -> int:
    """How many rows of a sorted part have (tag, sensed_us) <= key."""
    start, end = np.searchsorted(part.batch.tag, [key[0], key[0] + 1])
    return int(start + np.searchsorted(part.batch.sensed_us[start:end], key[1], "right"))
