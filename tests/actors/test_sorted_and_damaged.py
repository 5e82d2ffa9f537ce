"""A shard's tags on a real database: recovery over sorted history, and over a journal of which an entry is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sqlmodel import Session, col, select

from actors import recovery
from actors.journal import quarantine, snapshot
from actors.journal.compaction import Compactor, Settings
from actors.journal.prepared import JournalEntry, PreparedCommit
from actors.journal.queries_tags import TagReads
from actors.journal.store import Store, open_store
from actors.journal.tables import CarrierPlan, Event, Excursion, ExcursionRevision, ShardOwner, Tag
from actors.part import Part
from actors.rules.errors import Unavailable
from actors.rules.plan import make_plan
from actors.rules.profiles import Limit, Profile
from actors.rules.readings import ACCEPTED, DUPLICATE, MINUTE_US, U1, Batch
from actors.sensor_tag import Moved, SensorTags
from actors.tags import rows as tag_rows
from actors.tags.commands import COMMANDS
from actors.tags.ring import Ring
from tests.journal.conftest import serving, take
from tests.journal.test_quarantine import damage_entry
from tests.journal.test_segments import kept, until_done

START = 1_700_000_000_000_000
CARRIER = "shipment/S1"
WARM = Limit(limit_id="warm", metric="temperature_c", direction="above", mode="single", threshold=8.0, allowance_us=0, severity="WARNING")
PROFILE = Profile(profile_id="p", version=1, name="p", limits=(WARM,), max_gap_us=60 * MINUTE_US)
SMALL = Settings(least_entries=1, least_readings=1, sort_readings=12, sort_entries=5, fan_in=3, read_rows=8, page_rows=4)

PLACES = ("ring_last", "carrier", "unit", "shape", "checkpoint")
"""Where a shard keeps things for itself; a successor keeps them elsewhere."""


class Shard:
    """Shard 0 without Ray: its tags over its database, as actors/shard.py drives them. The ring is so small that history is often asked."""

    def __init__(self, store: Store, owner: ShardOwner) -> None:
        self.store, self.owner, self.sequence, self.left_out = store, owner, 0, 0
        self.reads = TagReads(store.engine, 0, lambda *_: None, lambda damage: quarantine.record(store, owner.epoch, damage, START))
        self.tags = self._fresh()

    def _fresh(self) -> SensorTags:
        tags = SensorTags(0, 0, self.reads)
        tags.ring = tags.head.ring = Ring(0, least=8)
        return tags

    def restarted(self, *, from_snapshot: bool = True) -> Shard:
        """The successor."""
        other = Shard(self.store, take(self.store, 0))
        found = snapshot.load(self.store.engine, 0) if from_snapshot else None
        if found is not None:
            other.tags.restore(found[1])
            other.sequence = found[0]
        other.sequence, _, other.left_out = recovery.fold(other.tags, other.reads, other.sequence)
        return other

    def snapshot(self) -> None:
        for commit in snapshot.save(0, self.owner.epoch, self.sequence, self.tags.dump(), START):
            self.store.commit(commit).result(20)

    def ingest(self, readings: dict[str, tuple[int, float]]) -> U1:
        """One reading a tag: minutes after START and temperature_c."""
        n = len(readings)
        minute = np.array([at for at, _ in readings.values()], np.int64)
        values = np.array([[value for _, value in readings.values()]])
        none = np.full(n, -1, np.int64)
        batch = Batch(np.arange(n, dtype=np.int32), START + minute * MINUTE_US, none, none, (0,), values)
        now_us = START + int(minute.max()) * MINUTE_US
        (status,), moved = self.tags.ingest([Part("\n".join(readings).encode(), batch)], now_us)
        self._commit(moved, now_us)
        return status

    def assign(self, tag_id: str) -> None:
        moved = COMMANDS["tag.assign"](self.tags, {"tag_id": tag_id, "carrier": CARRIER, "from_us": START}, START)
        self._commit(moved, START)

    def _commit(self, moved: Moved, now_us: int) -> None:
        if moved.blob is None:
            return
        commit = PreparedCommit(shard=0, epoch=self.owner.epoch, now_us=now_us)
        commit.journal = JournalEntry(
            sequence=self.sequence + 1, kind=moved.kind, blob=moved.blob, received_us=now_us, min_sensed_us=moved.min_sensed_us,
            max_sensed_us=moved.max_sensed_us, readings=moved.rows,
        )  # fmt: skip
        tag_rows.fill(commit, self.tags, moved.changes, now_us)
        self.store.commit(commit).result(20)
        self.sequence += 1

    def sort(self) -> None:
        until_done(Compactor(self.store, 0, self.owner.epoch, lambda: START, SMALL))

    def state(self) -> list[Any]:
        """What the tags are: everything that a snapshot keeps of their judging."""
        head = self.tags.head
        tracks = [head.rows_of(tag).tracks.tolist() for tag in range(head.size)]
        rows = [{name: row[name].item() for name in row.dtype.names if name not in PLACES} for row in head.tags[: head.size]]
        stated = {tag: many for tag, many in sorted(head.excursions.items()) if many}
        everything = [self.tags.counter, rows, tracks, stated, sorted(head.custodies.items())]
        return [list(self.tags.ids), *map(repr, everything)]  # as text NaN is equal to NaN


@pytest.fixture
def shard(database_url: str) -> Iterator[Shard]:
    with serving(database_url):
        store = open_store(database_url)
        owner = take(store, 0)
        plan = make_plan(CARRIER, 1, [(0, PROFILE)])
        row = CarrierPlan(carrier=CARRIER, shard=0, revision=1, body=plan.to_data())
        store.commit(PreparedCommit(shard=0, epoch=owner.epoch, now_us=START, upserts=[row])).result(20)
        yield Shard(store, owner)
        store.close()


def drive(shard: Shard, first: int, until: int, *tag_ids: str) -> None:
    """A reading a tag every ten minutes; every sixth is too warm, at another time for each tag."""
    for step in range(first, until):
        shard.ingest({tag: (10 * step, 9.0 + place if step % 6 == place else 5.0) for place, tag in enumerate(tag_ids)})


def excursions(shard: Shard) -> list[Excursion]:
    with Session(shard.store.engine) as session:
        return list(session.exec(select(Excursion).order_by(col(Excursion.excursion_id))))


def test_a_successor_over_sorted_history_finds_the_state_that_was_there(shard: Shard) -> None:
    for tag in "AB":
        shard.assign(tag)
    drive(shard, 0, 10, "A", "B")
    shard.snapshot()
    shard.sort()
    drive(shard, 10, 14, "A", "B")
    shard.snapshot()
    shard.sort()
    drive(shard, 14, 17, "A", "B")
    shard.ingest({"A": (15, 12.0)})  # late: judged again on sorted history
    assert len(kept(shard.store)) < shard.sequence - 5, "entries behind the older snapshot are gone"
    assert shard.restarted().state() == shard.state()
    again = shard.restarted()
    assert again.ingest({"B": (30, 5.0)}).tolist() == [DUPLICATE], "known from a segment"
    assert again.ingest({"B": (31, 5.0)}).tolist() == [ACCEPTED]


def test_without_any_snapshot_the_whole_journal_is_folded_from_the_segments(shard: Shard) -> None:
    for tag in "AB":
        shard.assign(tag)
    drive(shard, 0, 10, "A", "B")
    shard.snapshot()
    drive(shard, 10, 12, "A", "B")
    shard.ingest({"A": (15, 12.0)})
    shard.snapshot()
    shard.sort()
    assert shard.restarted(from_snapshot=False).state() == shard.state()


def test_a_damaged_entry_of_readings_is_told_and_what_follows_goes_on_from_what_stands(shard: Shard) -> None:
    for tag in "AB":
        shard.assign(tag)
    drive(shard, 0, 4, "A", "B")
    shard.snapshot()
    shard.ingest({"A": (60, 11.0), "C": (60, 4.0)})  # opens an excursion of A, registers C
    lost = shard.sequence
    shard.ingest({"B": (60, 12.0)})  # opens one of B
    shard.ingest({"D": (60, 4.0), "B": (70, 12.5)})
    before = excursions(shard)
    damage_entry(shard.store, lost)
    again = shard.restarted()
    assert again.left_out == 1
    with Session(shard.store.engine) as session:
        (event,) = session.exec(select(Event).where(col(Event.kind) == "journal.damaged"))
        registered = list(session.exec(select(Tag.tag_id).order_by(col(Tag.local_index))))
    assert (event.body["name"], event.body["from_us"]) == (f"journal entry {lost}", START + 60 * MINUTE_US)
    assert list(again.tags.ids) == registered == ["A", "B", "C", "D"]
    assert [row.revision for row in excursions(again)] == [row.revision for row in before], "what was stated stands"
    again.ingest({"B": (80, 5.0), "A": (80, 5.0)})
    again.ingest({"A": (90, 13.0), "C": (90, 4.0)})
    after = {row.excursion_id: row for row in excursions(again)}
    of_b = next(row for row in before if row.tag_id == "B" and row.ended_us is None)
    ended = after[of_b.excursion_id]
    assert (ended.ended_us, ended.revision, ended.extreme) == (START + 80 * MINUTE_US, of_b.revision + 1, 12.5)
    new = [row for row in after.values() if row.excursion_id not in {one.excursion_id for one in before}]
    assert [(row.tag_id, row.started_us) for row in new] == [("A", START + 90 * MINUTE_US)]
    with Session(shard.store.engine) as session:
        revisions = list(session.exec(select(ExcursionRevision.excursion_id, ExcursionRevision.revision)))
    assert len(revisions) == sum(row.revision for row in after.values())
    assert again.restarted().state()[0] == list(again.tags.ids), "and the next recovery leaves the same entry out"


def test_a_damaged_command_stops_the_shard_until_the_database_is_restored(shard: Shard) -> None:
    drive(shard, 0, 2, "A")
    shard.assign("A")
    damage_entry(shard.store, shard.sequence, 10)
    with pytest.raises(Unavailable, match=f"journal entry {shard.sequence} of shard 0 is a damaged command"):
        shard.restarted()
    with Session(shard.store.engine) as session:
        assert [event.kind for event in session.exec(select(Event)) if event.kind == "journal.damaged"] == ["journal.damaged"]
