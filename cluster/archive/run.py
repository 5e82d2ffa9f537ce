"""`waybill archive run`: closed journeys into new parts, published in one transaction; what a crash left behind is swept.

Files are written under names that were never used, and are on the disk before the manifest names them; nobody reads them until then. What
it no longer names, and what no run is writing any more, is removed some time later. A crash leaves the old archive or the new one.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import groupby
from typing import Any

import numpy as np

from actors.journal import archive, segments
from actors.journal.archive import Due
from actors.journal.quarantine import DamagedJournal
from actors.journal.store import Store
from actors.journal.tables import ArchivedCarrier, ArchivedCustody, ArchivePart
from actors.rules import codec
from actors.rules.errors import FailedPrecondition
from actors.rules.readings import Batch
from cluster.archive import layout
from cluster.archive.collect import Placed, collect, commands_of
from cluster.archive.filesystem import Place
from cluster.archive.writer import PART_READINGS, PartWriter, write_manifest

log = logging.getLogger("waybill.archive")

FIRST_AT_ONCE, MOST_AT_ONCE = 16, 512
"""Journeys whose readings are held in memory together: as many as have about READINGS_AT_ONCE."""
READINGS_AT_ONCE = 1_000_000
TIMEOUT_S = 60.0
SWEEP_AFTER_S = 3_600.0
"""A file that the manifest does not name is left for so long after a run saw that: another run may be writing it, or a reader reading what
was replaced. How old it is says nothing: a part that is replaced may be years old."""
LEFTOVER = "leftover.json"
"""The files that the manifest did not name when a run last looked, each with when one first saw that (microseconds)."""

Progress = Callable[[int, int, int], None]
"""Told (shipments done, shipments in all, readings)."""


@dataclass(slots=True)
class Account:
    """What a run did."""

    shipments: int = 0
    again: int = 0  # of them, such as were in the archive before
    readings: int = 0
    parts: int = 0
    bytes: int = 0
    swept: int = 0
    stale: list[str] = field(default_factory=list)  # found to have late readings
    elapsed_s: float = 0.0


@dataclass(slots=True)
class _Made:
    part: ArchivePart
    placed: list[Placed]


def run(
    store: Store, place: Place, closed_before_us: int, now_us: Callable[[], int], *, only: frozenset[str] | None = None,
    part_readings: int = PART_READINGS, sweep_after_s: float = SWEEP_AFTER_S, progress: Progress | None = None,
) -> Account:  # fmt: skip
    """Archive what closed before a time and is not in the archive as it is now. One run at a time. only: of these shipments."""
    started = time.perf_counter()
    account = Account()
    scanned = {shard: scan(store, shard, account) for shard in archive.shards(store.engine)}
    dues = [one for one in archive.due(store.engine, closed_before_us) if only is None or one.shipment_id in only]
    replaced = sorted({one.part_id for one in dues if one.part_id})
    known = {one.carrier for one in dues}
    dues += [one for one in archive.companions(store.engine, replaced) if one.carrier not in known]
    account.again = sum(one.part_id is not None for one in dues)
    made: list[_Made] = []
    writing: list[PartWriter] = []
    try:
        for one in _parts(store, place, dues, part_readings, now_us, writing, account, progress, len(dues)):
            made.append(one)
        now = now_us()
        closed = {one.carrier: one.closed_us for one in dues}
        carriers = [_carrier(one, part.part, closed, now) for part in made for one in part.placed]
        custodies = [_custody(row, one, part.part) for part in made for one in part.placed for row in one.custodies]
        _must_be_there(place, [one.part for one in made])
    except BaseException:
        for writer in writing:
            writer.abandon()
        raise
    if made:
        # Whatever this raises, the files stay: what was given to the database may yet be committed. If it is not, they are swept.
        store.write(archive.publish, [one.part for one in made], carriers, custodies, replaced, scanned).result(TIMEOUT_S)
    account.parts = len(made)
    account.bytes = sum(file["bytes"] for one in made for file in one.part.files)
    write_manifest(place, archive.parts(store.engine))
    account.swept = sweep(store, place, sweep_after_s, now_us())
    account.elapsed_s = time.perf_counter() - started
    return account


def _parts(
    store: Store, place: Place, dues: Sequence[Due], part_readings: int, now_us: Callable[[], int], writing: list[PartWriter],
    account: Account, progress: Progress | None, total: int,
) -> Iterator[_Made]:  # fmt: skip
    """Write the parts, month by month, each carrier whole."""
    software = f"waybill {version('waybill')}"
    ordered = sorted(dues, key=lambda one: (layout.month_of(one.closed_us), one.carrier))
    for month, some in groupby(ordered, key=lambda one: layout.month_of(one.closed_us)):
        waiting, at_once = list(some), FIRST_AT_ONCE
        out: PartWriter | None = None
        placed: list[Placed] = []
        while waiting:
            chunk, waiting = waiting[:at_once], waiting[at_once:]
            journeys = archive.journeys(store.engine, chunk)
            if out is None:
                out, placed = PartWriter(place, month), []
                writing.append(out)
            before = out.readings
            placed += collect(store.engine, journeys, out, commands_of(store.engine, journeys))
            account.shipments += len(chunk)
            account.readings += out.readings - before
            if progress is not None:
                progress(account.shipments, total, account.readings)
            each = max(1, (out.readings - before) // max(1, len(chunk)))
            at_once = max(1, min(MOST_AT_ONCE, READINGS_AT_ONCE // each))
            if out.readings >= part_readings or not waiting:
                yield _Made(out.close(now_us(), software), placed)
                out = None


def _carrier(placed: Placed, part: ArchivePart, closed: dict[str, int], now: int) -> ArchivedCarrier:
    return ArchivedCarrier(
        carrier=placed.carrier, part_id=part.part_id, closed_us=closed[placed.carrier], archived_us=now, readings=placed.readings,
        last_event=placed.last_event, stale=False,
    )  # fmt: skip


def _custody(row: tuple[int, int, int, int, int, int, int], placed: Placed, part: ArchivePart) -> ArchivedCustody:
    custody_id, shard, local_index, from_us, until_us, first_row, readings = row
    return ArchivedCustody(
        custody_id=custody_id, part_id=part.part_id, carrier=placed.carrier, shard=shard, local_index=local_index, from_us=from_us,
        until_us=until_us, first_row=first_row, readings=readings,
    )  # fmt: skip


class _Ridden:
    """The archived custodies of a shard, found by tag and time. Custodies of one tag do not overlap."""

    def __init__(self, places: Sequence[Any]) -> None:
        self._rows = sorted(places, key=lambda one: (one.local_index, one.from_us))
        self._tag, self._from_us, self._until_us = (
            np.array([getattr(one, name) for one in self._rows], np.int64) for name in ("local_index", "from_us", "until_us")
        )

    def met(self, batch: Batch) -> set[str]:
        """The carriers on whose custodies some of these readings are."""
        order = np.argsort(batch.tag, kind="stable")
        sensed_us = batch.sensed_us[order]
        tags, starts = np.unique(batch.tag[order], return_index=True)
        found: set[str] = set()
        for tag, start, end in zip(tags.tolist(), starts.tolist(), [*starts.tolist()[1:], len(order)], strict=False):
            mine = sensed_us[start:end]
            low, high = np.searchsorted(self._tag, [tag, tag + 1]).tolist()
            if low == high:
                continue
            at = low + np.searchsorted(self._from_us[low:high], mine, side="right") - 1
            inside = (at >= low) & (mine < self._until_us[at])
            found |= {self._rows[one].carrier for one in np.unique(at[inside]).tolist()}
        return found


def scan(store: Store, shard: int, account: Account) -> int:
    """Look through what a shard's journal got since the last time for readings of journeys that are in the archive: they are stale then."""
    scanned, _ = archive.retained(store.engine, shard)
    head = archive.journal_head(store.engine, shard)
    places = archive.custody_places(store.engine, shard)
    if not places:
        return head
    archived = _Ridden(places)
    stale: set[str] = set()
    try:
        for entry in segments.entries(store.engine, shard, scanned):
            scanned = entry.sequence
            if entry.kind == "readings":
                stale |= archived.met(codec.decode(entry.blob).batch)
    except DamagedJournal as damage:
        log.error("%s: looked through up to entry %d of shard %d only", damage, scanned, shard)
    store.write(archive.note_scanned, shard, scanned, sorted(stale)).result(TIMEOUT_S)
    account.stale += sorted(stale)
    return scanned


def _must_be_there(place: Place, parts: Sequence[ArchivePart]) -> None:
    """Raise FailedPrecondition where a file that is to be published is gone or was cut short meanwhile."""
    for part in parts:
        for file in part.files:
            if place.size(file["name"]) != file["bytes"]:
                raise FailedPrecondition("is not there any more as this run wrote it: run again", field="file", value=file["name"])


def sweep(store: Store, place: Place, after_s: float, now_us: int) -> int:
    """Remove files that no manifest row names, `after_s` after a run first saw that; how many."""
    named = {file["name"] for part in archive.parts(store.engine) if part["location"] == place.location for file in part["files"]}
    seen: dict[str, int] = json.loads(place.read(LEFTOVER)) if place.exists(LEFTOVER) else {}
    left = {name: seen.get(name, now_us) for name, _ in place.ages() if name.partition("/")[0] in layout.DATASETS and name not in named}
    gone = [name for name, since_us in left.items() if now_us - since_us >= after_s * 1e6]
    for name in gone:
        place.remove(name)
        del left[name]
    if left != seen:
        place.put(LEFTOVER, json.dumps(left, indent=1).encode())
    return len(gone)
