"""What is damaged is found by its checksum, named with its time range, recorded and told once, and only then left out."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, select, text
from sqlmodel import Session, col

from actors.journal import history, quarantine, segments
from actors.journal.compaction import Compactor
from actors.journal.quarantine import DamagedJournal
from actors.journal.queries_tags import TagReads
from actors.journal.store import Store
from actors.journal.tables import Event, Quarantine, ShardOwner
from actors.rules.errors import Superseded
from tests.journal.conftest import NOW_US, take
from tests.journal.test_segments import compactor, fill, kept, put, seen, snapshots, told, until_done


def flip(connection: Connection, table: str, key: dict[str, int], byte: int, bit: int = 3) -> None:
    """Change one bit of a stored blob."""
    where = " AND ".join(f"{name} = :{name}" for name in key)
    blob = connection.execute(text(f"SELECT blob FROM {table} WHERE {where}"), key).scalar_one()
    changed = bytearray(blob)
    changed[byte] ^= 1 << bit
    connection.execute(text(f"UPDATE {table} SET blob = :changed WHERE {where}"), {**key, "changed": bytes(changed)})


def damage_entry(store: Store, sequence: int, byte: int = 40) -> None:
    store.write(flip, "journal_batch", {"shard": 0, "sequence": sequence}, byte).result(20)


def damage_page(store: Store, segment: int, page: int, byte: int = 20) -> None:
    store.write(flip, "segment_page", {"shard": 0, "segment": segment, "page": page}, byte).result(20)


def recorded(store: Store) -> list[Quarantine]:
    with Session(store.engine) as session:
        return list(session.execute(select(Quarantine).order_by(col(Quarantine.kind), col(Quarantine.number))).scalars())


def events(store: Store) -> list[Event]:
    with Session(store.engine) as session:
        return list(session.execute(select(Event).order_by(col(Event.number))).scalars())


def reads(store: Store, owner: ShardOwner) -> TagReads:
    return TagReads(store.engine, 0, lambda *_: None, lambda damage: quarantine.record(store, owner.epoch, damage, NOW_US))


@pytest.mark.parametrize("byte", [0, 5, 9, 33, 60, -1])
def test_a_look_into_history_reports_a_damaged_entry_and_goes_on_without_it(store: Store, owner: ShardOwner, byte: int) -> None:
    fill(store, owner, 4)
    damage_entry(store, 2, byte)
    with pytest.raises(DamagedJournal, match=r"journal entry 2 of shard 0 \(sensed 20 to 998 us\) is damaged"):
        history.read(store.engine, 0, [3], 0, 10_000)
    assert reads(store, owner).history([3], 0, 10_000)[1].sensed_us.tolist() == [15, 35, 45]
    (row,) = recorded(store)
    assert (row.name, row.from_us, row.until_us, row.readings, row.found_us) == ("journal entry 2", 20, 998, 3, NOW_US)
    assert len(row.blob) > 100, "the bytes are kept as they were found"
    (event,) = events(store)
    assert event.kind == "journal.damaged"
    assert (event.body["name"], event.body["from_us"], event.body["until_us"]) == ("journal entry 2", 20, 998)


def test_it_is_told_once_whoever_meets_it(store: Store, owner: ShardOwner) -> None:
    fill(store, owner, 2)
    damage_entry(store, 1)
    with pytest.raises(DamagedJournal) as caught:
        history.read(store.engine, 0, [3], 0, 10_000)
    for _ in range(2):
        quarantine.record(store, owner.epoch, caught.value, NOW_US)
    assert (len(recorded(store)), len(events(store))) == (1, 1)


def test_who_may_not_record_it_may_not_leave_it_out(store: Store, owner: ShardOwner) -> None:
    fill(store, owner, 2)
    damage_entry(store, 1)
    take(store, 0)
    with pytest.raises(Superseded):
        reads(store, owner).history([3], 0, 10_000)
    assert recorded(store) == []


def test_sorting_leaves_a_damaged_entry_out_and_names_it(store: Store, owner: ShardOwner) -> None:
    fill(store, owner, 6)
    snapshots(store, owner, 5, 6)
    whole = told(store)
    damage_entry(store, 4)
    until_done(compactor(store, owner))
    assert [row.name for row in recorded(store)] == ["journal entry 4"]
    assert kept(store) == [6], "what is sorted goes as ever"
    assert reads(store, owner).history([3], 0, 10_000)[1].sensed_us.tolist() == [15, 25, 35, 55, 65]
    again = told(store)
    assert [entry for entry in again if entry[0] != 4] == [entry for entry in whole if entry[0] != 4]
    assert [entry[1] for entry in again if entry[0] == 4] == ["quarantined readings"]


def test_a_damaged_page_is_left_out_alone(store: Store, owner: ShardOwner) -> None:
    fill(store, owner, 4)
    before = seen(store, 0, [0, 1, 2, 3, 4], 0, 10_000)
    compactor(store, owner).sort(force=True)
    damage_page(store, 1, 1)
    look = reads(store, owner)
    found = look.history([0, 1, 2, 3, 4], 0, 10_000)[1]
    (row,) = recorded(store)
    assert row.name == "page 1 of segment 1 (entries 1 to 4, tags 3 to 3)"
    assert row.readings == 4
    lost = sorted(one[2] for one in before if not (found.sensed_us == one[2]).any())
    assert (row.from_us, row.until_us) == (lost[0], lost[-1])
    assert len(found) == len(before) - 4
    assert events(store)[0].kind == "journal.damaged"
    left = list(segments.entries(store.engine, 0, 0))
    assert [entry.sequence for entry in left] == [1, 2, 3, 4]


def test_merging_leaves_a_damaged_page_out_and_names_it(store: Store, owner: ShardOwner) -> None:
    fill(store, owner, 9)
    one = compactor(store, owner)
    while one.sort(force=True):
        pass
    before = len(history.read(store.engine, 0, [0, 1, 2, 3, 4], 0, 10_000)[1])
    damage_page(store, 2, 0)
    until_done(one)
    assert [row.number for row in recorded(store)] == [2]
    assert len(reads(store, owner).history([0, 1, 2, 3, 4], 0, 10_000)[1]) == before - 4


def test_an_entry_that_was_sorted_before_it_was_damaged_is_taken_from_its_segment(store: Store, owner: ShardOwner) -> None:
    fill(store, owner, 4)
    whole = told(store)
    until_done(compactor(store, owner))
    damage_entry(store, 2)
    assert told(store) == whole
    assert recorded(store) == []


def test_a_page_that_is_gone_is_found(store: Store, owner: ShardOwner) -> None:
    fill(store, owner, 4)
    compactor(store, owner).sort(force=True)
    store.write(remove_page, 1).result(20)
    with pytest.raises(DamagedJournal, match=r"page 1 of segment 1 .* it is not there"):
        history.read(store.engine, 0, [3], 0, 10_000)


def remove_page(connection: Connection, page: int) -> None:
    connection.execute(segments.PAGE.delete().where(segments.PAGE.c.page == page))


def test_damaged_heads_of_sorted_entries_are_named(store: Store, owner: ShardOwner) -> None:
    fill(store, owner, 4)
    snapshots(store, owner, 3, 4)
    one: Compactor = compactor(store, owner)
    until_done(one)
    before = seen(store, 0, [3], 0, 10_000)
    store.write(flip, "sorted_entries", {"shard": 0, "first_sequence": 1}, 9).result(20)
    entries = list(reads(store, owner).journal_after(0))
    assert [row.name for row in recorded(store)] == ["the heads of entries 1 to 4"]
    assert [(entry.sequence, entry.kind) for entry in entries] == [(1 + k, "quarantined readings") for k in range(3)] + [(4, "readings")]
    assert seen(store, 0, [3], 0, 10_000) == before, "what a tag has read is there"


def test_a_damaged_command_is_found(store: Store, owner: ShardOwner) -> None:
    fill(store, owner, 1)
    put(store, owner, 2, "command", b'{"command":"assign"}')
    damage_entry(store, 2, 3)
    found = list(reads(store, owner).journal_after(0))
    assert [entry.kind for entry in found] == ["readings", "quarantined command"]
    assert [row.name for row in recorded(store)] == ["journal entry 2"]
