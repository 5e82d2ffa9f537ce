"""Segments: a shard's history sorted by tag, read back (compaction.py writes them).

A segment has the readings of a range of journal entries in the order (tag, sensed_us), cut into pages; its directory says which tags
and times each page holds, so that reading a tag unpacks a page or two. Every reading keeps the number of its entry and its row there, and
SortedEntries keeps what else an entry said: history in journal order, and each entry byte for byte, come out as they went in.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine, Row, bindparam, func, select

from actors.journal import pages, quarantine, rows
from actors.journal.pages import DamagedPage, Rows
from actors.journal.quarantine import DamagedJournal, Known, damaged_entry
from actors.journal.sorted_rows import BATCH, ENTRIES, PAGE, SEGMENT, sorted_sequence
from actors.journal.tables import JournalBatch
from actors.rules import codec
from actors.rules.readings import I4, I8, Batch

log = logging.getLogger("waybill.segments")

# Statements are made once: building one costs more than running it.
_SHARD: Any = bindparam("its_shard")
_MY_PAGES = select(PAGE.c.page, PAGE.c.blob).where((PAGE.c.shard == _SHARD) & (PAGE.c.segment == bindparam("its_segment")))
_PAGES_BETWEEN = _MY_PAGES.where(PAGE.c.page.between(bindparam("low"), bindparam("high"))).order_by(PAGE.c.page)
_PAGES_OF = _MY_PAGES.where(PAGE.c.page.in_(bindparam("some", expanding=True))).order_by(PAGE.c.page)
_SEGMENTS_OF_TIME = (
    select(SEGMENT)
    .where((SEGMENT.c.shard == _SHARD) & (SEGMENT.c.max_sensed_us >= bindparam("low")) & (SEGMENT.c.min_sensed_us < bindparam("high")))
    .order_by(SEGMENT.c.first_sequence)
)

PAGES_AT_ONCE = 64
ENTRIES_AT_ONCE = 64
READINGS_AT_ONCE = 2_000_000
"""So many readings are held at a time when entries are made again; each such portion passes over its segments once."""

MOST = 1 << 62
_FIRST_KEPT = select(func.min(BATCH.c.sequence)).where(
    (BATCH.c.shard == bindparam("its_shard")) & (BATCH.c.sequence > bindparam("position")) & (BATCH.c.kind == "readings")
)
"""The first entry of readings after a position that still stands in the journal; those before it were removed."""

QUARANTINED = "quarantined "
"""Before the kind of an entry that is left out: its blob is empty."""


@dataclass(frozen=True, slots=True)
class Directory:
    """How many readings, of which tags and sensed times (both ends included), each page of a segment holds."""

    rows: I4
    first_tag: I4
    last_tag: I4
    min_sensed_us: I8
    max_sensed_us: I8

    @classmethod
    def of(cls, parts: Sequence[Rows]) -> Directory:
        """The directory of pages in order."""
        return cls(
            np.array([len(part) for part in parts], np.int32),
            np.array([part.batch.tag[0] for part in parts], np.int32),
            np.array([part.batch.tag[-1] for part in parts], np.int32),
            np.array([part.batch.sensed_us.min() for part in parts], np.int64),
            np.array([part.batch.sensed_us.max() for part in parts], np.int64),
        )

    def encode(self) -> bytes:
        """Its columns, little-endian, one after the other."""
        tags = [column.astype("<i4").tobytes() for column in (self.rows, self.first_tag, self.last_tag)]
        times = [column.astype("<i8").tobytes() for column in (self.min_sensed_us, self.max_sensed_us)]
        return b"".join([*tags, *times])

    @classmethod
    def decode(cls, data: bytes) -> Directory:
        """Back from `encode`."""
        n = len(data) // 28
        tags = np.frombuffer(data, "<i4", 3 * n).reshape(3, n)
        times = np.frombuffer(data, "<i8", 2 * n, 12 * n).reshape(2, n)
        return cls(*tags, *times)

    def pages_of(self, tags: npt.NDArray[np.integer[Any]], from_us: int, until_us: int) -> npt.NDArray[np.intp]:
        """The pages that may hold readings of these tags (ascending) with from_us <= sensed_us < until_us."""
        held = np.searchsorted(tags, self.last_tag, "right") > np.searchsorted(tags, self.first_tag, "left")
        return np.flatnonzero(held & (self.max_sensed_us >= from_us) & (self.min_sensed_us < until_us))


@dataclass(frozen=True, slots=True)
class Head:
    """What of a sorted entry of readings is no reading. checksum: CRC-32 of the blob that was committed; stated: it had a status column."""

    sequence: int
    received_us: int
    worker: str
    epoch: int
    checksum: int
    readings: int
    min_sensed_us: int | None
    max_sensed_us: int | None
    codes: tuple[int, ...]
    stated: bool
    extra: dict[str, Any]
    damaged: bool = False


def pack_heads(heads: Sequence[Head]) -> bytes:
    """Heads as bytes."""
    return zlib.compress(json.dumps([asdict(head) for head in heads], separators=(",", ":")).encode(), 1)


def unpack_heads(blob: bytes) -> list[Head]:
    """Back from `pack_heads`."""
    return [Head(**{**one, "codes": tuple(one["codes"])}) for one in json.loads(zlib.decompress(blob))]


def directory(connection: Connection, segment: Row[Any]) -> Directory:
    """A segment's directory; made from its pages again where it is damaged."""
    if zlib.crc32(segment.directory) == segment.checksum:
        return Directory.decode(segment.directory)
    log.error("the directory of segment %d of shard %d is damaged: reading all its pages instead", segment.number, segment.shard)
    n = segment.pages
    largest = np.iinfo(np.int32).max
    return Directory(
        np.zeros(n, np.int32),
        np.zeros(n, np.int32),
        np.full(n, largest, np.int32),
        np.full(n, segment.min_sensed_us),
        np.full(n, segment.max_sensed_us),
    )


def read_pages(connection: Connection, segment: Row[Any], numbers: Sequence[int], known: Known) -> Iterator[Rows]:
    """Pages of a segment in order, without those in quarantine. Raises DamagedJournal."""
    wanted = [number for number in numbers if (segment.number, number) not in known.pages]
    for some in (wanted[start : start + PAGES_AT_ONCE] for start in range(0, len(wanted), PAGES_AT_ONCE)):
        mine = {"its_shard": segment.shard, "its_segment": segment.number}
        if some[-1] - some[0] + 1 == len(some):
            found = connection.execute(_PAGES_BETWEEN, {**mine, "low": some[0], "high": some[-1]}).all()
        else:
            found = connection.execute(_PAGES_OF, {**mine, "some": some}).all()
        at = 0
        for row in found:
            if row.page != some[at]:
                break
            at += 1
            try:
                yield pages.decode(row.blob)
            except DamagedPage as error:
                raise damaged_page(connection, segment, row.page, row.blob, str(error)) from error
        if at < len(some):
            raise damaged_page(connection, segment, some[at], b"", "it is not there")


def damaged_page(connection: Connection, segment: Row[Any], page: int, blob: bytes, why: str) -> DamagedJournal:
    """Names a page by its tags, and the time range of its readings."""
    where = directory(connection, segment)
    tags = f"tags {where.first_tag[page]} to {where.last_tag[page]}"
    name = f"page {page} of segment {segment.number} (entries {segment.first_sequence} to {segment.last_sequence}, {tags})"
    count = int(where.rows[page])
    low, high = int(where.min_sensed_us[page]), int(where.max_sensed_us[page])
    return DamagedJournal(segment.shard, quarantine.PAGE, segment.number, page, name, low, high, count, blob, why)


def read_tags(
    connection: Connection, shard: int, tags: npt.NDArray[np.integer[Any]], from_us: int, until_us: int, known: Known
) -> Iterator[Rows]:
    """Pages that may hold readings of these tags (ascending) and times, by segment."""
    times = {"its_shard": shard, "low": from_us, "high": until_us}
    for segment in connection.execute(_SEGMENTS_OF_TIME, times).all():
        yield from read_pages(connection, segment, directory(connection, segment).pages_of(tags, from_us, until_us).tolist(), known)


def weights(connection: Connection, shard: int, tag: int, from_us: int, until_us: int) -> Iterator[tuple[int, int]]:
    """(earliest sensed time, readings) of each page that may hold readings of this tag and time: at least as many as there are."""
    times = {"its_shard": shard, "low": from_us, "high": until_us}
    for segment in connection.execute(_SEGMENTS_OF_TIME, times).all():
        where = directory(connection, segment)
        mine = where.pages_of(np.array([tag]), from_us, until_us)
        yield from zip(where.min_sensed_us[mine].tolist(), where.rows[mine].tolist(), strict=True)


# ---------------------------------------------------------------- entries again


def entries(engine: Engine, shard: int, after: int, *, readings_at_once: int = READINGS_AT_ONCE) -> Iterator[JournalBatch]:
    """All entries of a shard's journal after entry `after`, in order, as they were committed: sorted or not.

    An entry in quarantine comes with QUARANTINED before its kind and without its blob; one that was sorted and lost a page to it
    comes with what is left. Raises DamagedJournal: record it, and go on after the last entry that came.
    """
    position = after
    while True:
        with engine.connect() as connection:
            known = quarantine.known(connection, shard)
            found = _committed(connection, shard, position)
            if not found or found[0].sequence != position + 1:
                upto = connection.execute(_FIRST_KEPT, {"its_shard": shard, "position": position}).scalar() or MOST
                found = _sorted(connection, shard, position, upto - 1, known, readings_at_once) or found
            if not found:
                return
            checked = []
            damage: DamagedJournal | None = None
            for entry in found:
                try:
                    checked.append(_checked(connection, entry, known))
                except DamagedJournal as error:
                    damage = error
                    break
        for entry in checked:
            yield entry
            position = entry.sequence
        if damage is not None:
            raise damage


def _committed(connection: Connection, shard: int, position: int) -> list[JournalBatch]:
    """The next entries that still stand in the journal; only those without a gap between them."""
    mine = (BATCH.c.shard == shard) & (BATCH.c.sequence > position)
    query = select(BATCH).where(mine).order_by(BATCH.c.sequence).limit(ENTRIES_AT_ONCE)
    found: list[JournalBatch] = []
    for row in connection.execute(query).mappings().all():
        if found and row["sequence"] != found[-1].sequence + 1:
            break
        found.append(rows.record(JournalBatch, dict(row)))
    return found


def _checked(connection: Connection, entry: JournalBatch, known: Known) -> JournalBatch:
    """The entry if its bytes are those that were committed; else its copy in the segments. Raises DamagedJournal where there is none."""
    if entry.kind.startswith(QUARANTINED):
        return entry
    if entry.sequence in known.entries:
        return _left_out(entry)
    if zlib.crc32(entry.blob) == entry.checksum:
        return entry
    if entry.kind == "readings" and entry.sequence <= sorted_sequence(connection, entry.shard):
        for again in _sorted(connection, entry.shard, entry.sequence - 1, entry.sequence, known, 1):
            if again.sequence == entry.sequence and zlib.crc32(again.blob) == entry.checksum:
                log.error("journal entry %d of shard %d is damaged; its readings are whole in a segment", entry.sequence, entry.shard)
                return again
    why = "the checksum does not match: the entry was changed or cut short"
    raise damaged_entry(entry.shard, entry.sequence, entry.min_sensed_us, entry.max_sensed_us, entry.readings, entry.blob, why)


def _left_out(entry: JournalBatch) -> JournalBatch:
    return rows.record(JournalBatch, {**rows.values(entry), "kind": QUARANTINED + entry.kind, "blob": b""})


def _sorted(connection: Connection, shard: int, position: int, upto: int, known: Known, readings_at_once: int) -> list[JournalBatch]:
    """Entries after `position` up to the end of one or more SortedEntries, at most to `upto`, made again from the segments; commands and
    ticks between."""
    heads: list[Head] = []
    end, count = position, 0
    query = select(ENTRIES).where((ENTRIES.c.shard == shard) & (ENTRIES.c.last_sequence > position))
    for row in connection.execute(query.order_by(ENTRIES.c.first_sequence).limit(ENTRIES_AT_ONCE)).all():
        if row.first_sequence > end + 1 and end > position:
            break
        if row.first_sequence in known.heads:
            heads += [_lost(sequence) for sequence in range(row.first_sequence, row.last_sequence + 1)]
        elif zlib.crc32(row.blob) != row.checksum:
            name = f"the heads of entries {row.first_sequence} to {row.last_sequence}"
            why = "the checksum does not match"
            raise DamagedJournal(shard, quarantine.ENTRIES, row.first_sequence, 0, name, None, None, row.readings, row.blob, why)
        else:
            heads += unpack_heads(row.blob)
        end = row.last_sequence
        count += row.readings
        if count >= readings_at_once:
            break
    end = min(end, upto)
    heads = [head for head in heads if position < head.sequence <= end]
    if end <= position:
        return []
    first, last = position + 1, end
    of = {head.sequence: head for head in heads}
    made = {sequence: _left_out(_entry(shard, head, b"")) for sequence, head in of.items() if head.damaged or sequence in known.entries}
    wanted = np.array([sequence for sequence in of if sequence not in made], np.int64)
    if len(wanted):
        parts = _rows_of(connection, shard, wanted, known)
        starts = np.searchsorted(parts.journal, wanted, "left").tolist()
        ends = np.searchsorted(parts.journal, wanted, "right").tolist()
        short = bool(known.pages)
        for sequence, start, stop in zip(wanted.tolist(), starts, ends, strict=True):
            made[sequence] = _made_again(shard, of[sequence], pages.subset(parts, slice(start, stop)), short)
    others = (BATCH.c.shard == shard) & BATCH.c.sequence.between(first, last)
    for other in connection.execute(select(BATCH).where(others & (BATCH.c.kind != "readings"))).mappings():
        made[other["sequence"]] = rows.record(JournalBatch, dict(other))
    return [made[sequence] for sequence in sorted(made)]


def _lost(sequence: int) -> Head:
    return Head(sequence, 0, "", 0, 0, 0, None, None, (), False, {}, damaged=True)


def _rows_of(connection: Connection, shard: int, wanted: I8, known: Known) -> Rows:
    """All readings of some entries (ascending), in journal order."""
    low, high = int(wanted[0]), int(wanted[-1])
    parts = [Rows(Batch(*(np.empty(0, np.int32), *(np.empty(0, np.int64),) * 3), (), np.empty((0, 0))), *_NO_ROWS)]
    mine = (SEGMENT.c.shard == shard) & (SEGMENT.c.last_sequence >= low) & (SEGMENT.c.first_sequence <= high)
    for segment in connection.execute(select(SEGMENT).where(mine)).all():
        for page in read_pages(connection, segment, range(segment.pages), known):
            which = np.flatnonzero((page.journal >= low) & (page.journal <= high))
            if len(which):
                parts.append(pages.subset(page, which))
    return pages.in_journal_order(pages.concatenate(parts))


_NO_ROWS = (np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.uint8))


def _made_again(shard: int, head: Head, part: Rows, short: bool) -> JournalBatch:
    """The entry of a head and its rows; `short`: rows may be missing. Raises DamagedJournal where it is not what was committed."""
    batch = part.batch
    values = np.full((len(head.codes), len(part)), np.nan)
    for k, code in enumerate(head.codes):
        if code in batch.codes:
            values[k] = batch.values[batch.codes.index(code)]
    own = Batch(batch.tag, batch.sensed_us, batch.boot, batch.sequence, head.codes, values)
    status = part.status if head.stated else None
    blob = codec.encode(own, None, status, head.extra)
    if zlib.crc32(blob) != head.checksum:
        older = (codec.encode(own, None, status, head.extra, version) for version in range(codec.VERSION - 1, 0, -1))
        blob = next((one for one in older if zlib.crc32(one) == head.checksum), blob)
    if zlib.crc32(blob) != head.checksum and not (short and len(part) < head.readings):
        why = "what the segments hold of it is not what was committed"
        raise damaged_entry(shard, head.sequence, head.min_sensed_us, head.max_sensed_us, head.readings, blob, why)
    return _entry(shard, head, blob)


def _entry(shard: int, head: Head, blob: bytes) -> JournalBatch:
    return rows.record(
        JournalBatch,
        {
            "shard": shard, "sequence": head.sequence, "kind": "readings", "worker": head.worker, "epoch": head.epoch,
            "received_us": head.received_us, "min_sensed_us": head.min_sensed_us, "max_sensed_us": head.max_sensed_us,
            "readings": head.readings, "checksum": zlib.crc32(blob), "blob": blob,
        },
    )  # fmt: skip


def received_us(engine: Engine, shard: int, sequences: Sequence[int]) -> dict[int, int]:
    """When the entries of these numbers (ascending) were received, as far as the journal still knows."""
    found: dict[int, int] = {}
    with engine.connect() as connection:
        for some in rows.chunks(list(sequences)):
            query = select(BATCH.c.sequence, BATCH.c.received_us).where((BATCH.c.shard == shard) & BATCH.c.sequence.in_(some))
            found.update({row.sequence: row.received_us for row in connection.execute(query)})
        missing = {one for one in sequences if one not in found}
        if missing:
            query = select(ENTRIES.c.blob, ENTRIES.c.checksum).where(
                (ENTRIES.c.shard == shard) & (ENTRIES.c.last_sequence >= min(missing)) & (ENTRIES.c.first_sequence <= max(missing))
            )
            for row in connection.execute(query):
                if zlib.crc32(row.blob) == row.checksum:
                    found.update({head.sequence: head.received_us for head in unpack_heads(row.blob) if head.sequence in missing})
    return found
