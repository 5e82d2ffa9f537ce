"""`waybill archive retain`: the journal gives up old readings that the archive has.

Only what is old enough, sorted, and behind both kept snapshots goes, from the journal's beginning on, as whole segments. Readings in it
that are on no archived journey (of tags that rode nowhere, in storage, or on a journey that goes on) go into the archive first, into
the dataset `loose`; so nothing is dropped that the archive has not. A file that is to stand in for the journal is held against its
checksum first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from actors.journal import archive, pages, segments
from actors.journal.pages import Rows
from actors.journal.store import Store
from actors.journal.tables import ArchivedCustody
from actors.rules import codec, readings
from actors.rules.errors import FailedPrecondition
from actors.rules.readings import ACCEPTED, NO_SEQUENCE
from cluster.archive import check, layout, reader
from cluster.archive.filesystem import Place
from cluster.archive.reader import Part
from cluster.archive.run import Account, scan
from cluster.archive.writer import PartWriter, write_manifest

TIMEOUT_S = 300.0
AT_ONCE = 2_000_000
"""So many readings are looked at together."""


@dataclass(slots=True)
class Retained:
    """What one shard's journal gave up. upto: the entry up to which its readings are in the archive alone."""

    shard: int
    upto: int
    loose: int = 0
    held_back: str = ""  # why nothing more


@dataclass(slots=True)
class _Loose:
    """Readings on no archived journey, with when they were received."""

    rows: list[Rows] = field(default_factory=list)
    received_us: dict[int, int] = field(default_factory=dict)


def retain(store: Store, place: Place, received_before_us: int, now_us: Callable[[], int]) -> list[Retained]:
    """Have every shard's journal give up what was received before a time. Safe beside a running system and an archive run."""
    checked: set[str] = set()
    found = [_retain_shard(store, place, shard, received_before_us, now_us, checked) for shard in archive.shards(store.engine)]
    write_manifest(place, archive.parts(store.engine))
    return found


def _retain_shard(
    store: Store, place: Place, shard: int, received_before_us: int, now_us: Callable[[], int], checked: set[str]
) -> Retained:
    _, dropped = archive.retained(store.engine, shard)
    # What came late for an archived journey must be known before it leaves the journal: nobody would look for it in `loose`.
    upto = min(archive.droppable(store.engine, shard), scan(store, shard, Account()))
    if upto <= dropped:
        return Retained(shard, dropped, 0, "recovery needs the rest: it lies after the older snapshot, or is not sorted yet")
    last, loose = _look(store, shard, dropped, upto, received_before_us, checked)
    if last <= dropped:
        return Retained(shard, dropped, 0, "the rest was received later than that")
    count = _put_loose(store, place, shard, loose, now_us)
    before = archive.segment_numbers(store.engine, shard)
    gone = store.write(archive.drop, shard, last, now_us()).result(TIMEOUT_S)
    for number in sorted(set(before) - set(archive.segment_numbers(store.engine, shard))):
        while store.write(archive.drop_pages, shard, number).result(TIMEOUT_S):
            pass
    return Retained(shard, max(gone, dropped), count, "" if gone > dropped else "what could go is part of a segment that cannot")


def _look(store: Store, shard: int, after: int, upto: int, received_before_us: int, checked: set[str]) -> tuple[int, _Loose]:
    """The last entry that is old enough, and what of the entries up to it the archive lacks."""
    loose = _Loose()
    known = _Archived(store, shard, checked)
    last, count = after, 0
    waiting: list[Rows] = []
    for entry in segments.entries(store.engine, shard, after):
        if entry.sequence > upto or entry.received_us >= received_before_us:
            break
        last = entry.sequence
        if entry.kind != "readings":
            continue
        decoded = codec.decode(entry.blob)
        rows = pages.of_entry(decoded.batch, entry.sequence, decoded.status)
        waiting.append(rows)
        loose.received_us[entry.sequence] = entry.received_us
        count += len(rows)
        if count >= AT_ONCE:
            loose.rows += known.lacks(waiting)
            waiting, count = [], 0
    loose.rows += known.lacks(waiting)
    return last, loose


class _Archived:
    """Which readings of a shard the archive has, by entry and row. checked: files that are known to be what was published."""

    def __init__(self, store: Store, shard: int, checked: set[str]) -> None:
        self.parts = [Part.of(row) for row in archive.parts(store.engine)]
        self.shard, self.checked = shard, checked

    def lacks(self, waiting: list[Rows]) -> Iterator[Rows]:
        """Of some entries' readings (accepted ones) those that are not in the archive."""
        if not waiting:
            return
        rows = pages.concatenate(waiting)
        low, high = int(rows.journal.min(initial=0)), int(rows.journal.max(initial=0))
        known = [self._keys(part, low, high) for part in self.parts]
        mine = _key(rows.journal, rows.row)
        missing = ~np.isin(mine, np.concatenate([np.zeros(0, np.int64), *known])) & (rows.status == ACCEPTED)
        if missing.any():
            yield pages.subset(rows, np.flatnonzero(missing))

    def _keys(self, part: Part, low: int, high: int) -> npt.NDArray[np.int64]:
        dataset = "readings" if "readings" in part.files else "loose"
        table = part.table(dataset, ["journal_shard", "journal_sequence", "journal_row"])
        between = pc.and_(pc.greater_equal(table.column("journal_sequence"), low), pc.less_equal(table.column("journal_sequence"), high))
        table = table.filter(pc.and_(between, pc.equal(table.column("journal_shard"), self.shard)))
        if table.num_rows and part.part_id not in self.checked:
            why = check.check_file(Place.of(part.location), part.files[dataset])
            if why:
                raise FailedPrecondition(f"{why}: nothing is dropped for it", field="file", value=part.files[dataset]["name"])
            self.checked.add(part.part_id)
        return _key(reader.integers(table.column("journal_sequence")), reader.integers(table.column("journal_row")))


def _key(journal: Any, row: Any) -> npt.NDArray[np.int64]:
    """(entry, row) as one number: an entry has less than 2^24 readings."""
    return np.asarray(journal, np.int64) << 24 | np.asarray(row, np.int64)


def _put_loose(store: Store, place: Place, shard: int, loose: _Loose, now_us: Callable[[], int]) -> int:
    """Publish loose readings as a part of their own; how many."""
    if not loose.rows:
        return 0
    rows = pages.by_tag(pages.concatenate(loose.rows))
    now = now_us()
    out = PartWriter(place, layout.month_of(now), f"loose-{shard:04d}-{time.time_ns():x}", datasets=("loose",))
    try:
        names = archive.tag_ids(store.engine, shard)
        table = _table(rows, shard, names, loose.received_us)
        out.add("loose", table)
        part = out.close(now, f"waybill {version('waybill')}")
    except BaseException:
        out.abandon()
        raise
    starts = np.flatnonzero(np.diff(rows.batch.tag, prepend=-1))
    ends = [*starts.tolist()[1:], len(rows)]
    # A place in the archive has a custody's id; that of loose readings is a number below 0 that no other has.
    base = -(time.time_ns() // 1000) << 8
    places = [
        ArchivedCustody(
            custody_id=base - at, part_id=part.part_id, carrier="", shard=shard, local_index=int(rows.batch.tag[start]),
            from_us=int(rows.batch.sensed_us[start]), until_us=int(rows.batch.sensed_us[end - 1]) + 1, first_row=start,
            readings=end - start,
        )
        for at, (start, end) in enumerate(zip(starts.tolist(), ends, strict=True))
    ]  # fmt: skip
    store.write(archive.publish, [part], [], places, [], {}).result(TIMEOUT_S)
    return len(rows)


def _table(rows: Rows, shard: int, names: dict[int, str], received_us: dict[int, int]) -> pa.Table:
    """Rows of the dataset `loose`."""
    batch, n = rows.batch, len(rows)
    received = np.array([received_us[one] for one in rows.journal.tolist()], np.int64)
    made: dict[str, Any] = {
        "tag_id": pa.array([names[one] for one in batch.tag.tolist()]), "sensed_at": layout.times(batch.sensed_us),
        "received_at": layout.times(received), "boot": pa.array(batch.boot, mask=batch.boot == NO_SEQUENCE),
        "sequence": pa.array(batch.sequence, mask=batch.sequence == NO_SEQUENCE), "journal_shard": np.full(n, shard, np.int16),
        "journal_sequence": rows.journal, "journal_row": rows.row,
    }  # fmt: skip
    for k, code in enumerate(batch.codes):
        column = batch.values[k]
        made[readings.COLUMNS[code].name] = pa.array(column, mask=np.isnan(column))
    arrays = [made[one.name] if one.name in made else pa.nulls(n, one.type) for one in layout.LOOSE]
    return pa.Table.from_arrays([one if isinstance(one, pa.Array) else pa.array(one) for one in arrays], schema=layout.LOOSE)
