"""`waybill archive retain`: the journal gives up old readings that the archive has.

Only what is old enough, sorted, and behind both kept snapshots goes, from the journal's beginning on, as whole segments. Readings in it
that are on no archived journey (of tags that rode nowhere, in storage, or on a journey that goes on) go into the archive first, into
the dataset `loose`; so nothing is dropped that the archive has not. A file that is to stand in for the journal is held against its
checksum first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

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
AT_ONCE = 1_000_000
"""So many readings are looked at together, and what of them is loose is a part of its own: memory is bounded by it, not by history."""
KEYS = ("journal_shard", "journal_sequence", "journal_row")


@dataclass(slots=True)
class Retained:
    """What one shard's journal gave up. upto: the entry up to which its readings are in the archive alone."""

    shard: int
    upto: int
    loose: int = 0
    held_back: str = ""  # why nothing more


def retain(store: Store, place: Place, received_before_us: int, now_us: Callable[[], int]) -> list[Retained]:
    """Have every shard's journal give up what was received before a time. Safe beside a running system and an archive run."""
    known = _Archived(store)
    found = [_retain_shard(store, place, shard, received_before_us, now_us, known) for shard in archive.shards(store.engine)]
    write_manifest(place, archive.parts(store.engine))
    return found


def _retain_shard(store: Store, place: Place, shard: int, received_before_us: int, now_us: Callable[[], int], known: _Archived) -> Retained:
    _, dropped = archive.retained(store.engine, shard)
    # What came late for an archived journey must be known before it leaves the journal: nobody would look for it in `loose`.
    upto = min(archive.droppable(store.engine, shard), scan(store, shard, Account()))
    if upto <= dropped:
        return Retained(shard, dropped, 0, "recovery needs the rest: it lies after the older snapshot, or is not sorted yet")
    last, count = dropped, 0
    for seen, rows, received_us in _old(store, shard, dropped, upto, received_before_us):
        last = seen
        count += _put_loose(store, place, shard, known.lacks(shard, rows), received_us, now_us)
    if last <= dropped:
        return Retained(shard, dropped, 0, "the rest was received later than that")
    before = archive.segment_numbers(store.engine, shard)
    gone = store.write(archive.drop, shard, last, now_us()).result(TIMEOUT_S)
    for number in sorted(set(before) - set(archive.segment_numbers(store.engine, shard))):
        while store.write(archive.drop_pages, shard, number).result(TIMEOUT_S):
            pass
    return Retained(shard, max(gone, dropped), count, "" if gone > dropped else "what could go is part of a segment that cannot")


def _old(store: Store, shard: int, after: int, upto: int, received_before_us: int) -> Iterator[tuple[int, list[Rows], dict[int, int]]]:
    """The entries that are old enough, some at once: (the last of them, their readings, when each was received)."""
    last, count = after, 0
    waiting: list[Rows] = []
    received_us: dict[int, int] = {}
    for entry in segments.entries(store.engine, shard, after):
        if entry.sequence > upto or entry.received_us >= received_before_us:
            break
        last = entry.sequence
        if entry.kind != "readings":
            continue
        decoded = codec.decode(entry.blob)
        waiting.append(pages.of_entry(decoded.batch, entry.sequence, decoded.status))
        received_us[entry.sequence] = entry.received_us
        count += len(waiting[-1])
        if count >= AT_ONCE:
            yield last, waiting, received_us
            waiting, received_us, count = [], {}, 0
    if last > after:
        yield last, waiting, received_us


class _Archived:
    """Which readings the archive has, by entry and row. Of its files only the row groups are read that may have such entries."""

    def __init__(self, store: Store) -> None:
        self._parts = [Part.of(row) for row in archive.parts(store.engine)]
        self._spans: dict[str, list[tuple[int, int, int, int]]] = {}
        self._checked: set[str] = set()

    def lacks(self, shard: int, waiting: list[Rows]) -> Rows | None:
        """Of some entries' readings (accepted ones) those that are not in the archive; None where there is none."""
        if not waiting:
            return None
        rows = pages.concatenate(waiting)
        low, high = int(rows.journal.min(initial=0)), int(rows.journal.max(initial=0))
        known = [self._keys(part, shard, low, high) for part in self._parts]
        mine = _key(rows.journal, rows.row)
        missing = ~np.isin(mine, np.concatenate([np.zeros(0, np.int64), *known])) & (rows.status == ACCEPTED)
        return pages.subset(rows, np.flatnonzero(missing)) if missing.any() else None

    def _keys(self, part: Part, shard: int, low: int, high: int) -> npt.NDArray[np.int64]:
        dataset = "readings" if "readings" in part.files else "loose"
        if part.part_id not in self._spans:
            with reader.Rows(part, dataset, KEYS) as rows:
                self._spans[part.part_id] = rows.spans("journal_sequence")
        wanted = [(first, last) for first, last, least, most in self._spans[part.part_id] if least <= high and most >= low]
        found = [np.zeros(0, np.int64)]
        if wanted:
            with reader.Rows(part, dataset, KEYS) as rows:
                for table in chain.from_iterable(rows.between(*one) for one in wanted):
                    journal = reader.integers(table.column("journal_sequence"))
                    mine = (journal >= low) & (journal <= high) & (reader.integers(table.column("journal_shard")) == shard)
                    found.append(_key(journal, reader.integers(table.column("journal_row")))[mine])
        keys = np.concatenate(found)
        if len(keys) and part.part_id not in self._checked:
            why = check.check_file(Place.of(part.location), part.files[dataset])
            if why:
                raise FailedPrecondition(f"{why}: nothing is dropped for it", field="file", value=part.files[dataset]["name"])
            self._checked.add(part.part_id)
        return keys


def _key(journal: Any, row: Any) -> npt.NDArray[np.int64]:
    """(entry, row) as one number: an entry has less than 2^24 readings."""
    return np.asarray(journal, np.int64) << 24 | np.asarray(row, np.int64)


def _put_loose(store: Store, place: Place, shard: int, loose: Rows | None, received_us: dict[int, int], now_us: Callable[[], int]) -> int:
    """Publish loose readings as a part of their own; how many."""
    if loose is None:
        return 0
    rows = pages.by_tag(loose)
    now = now_us()
    out = PartWriter(place, layout.month_of(now), f"loose-{shard:04d}-{time.time_ns():x}", datasets=("loose",))
    try:
        names = archive.tag_ids(store.engine, shard)
        table = _table(rows, shard, names, received_us)
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
