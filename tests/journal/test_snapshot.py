"""Snapshots: whole or not at all, the newest that is undamaged, two kept."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, select, text
from sqlmodel import Session

from actors.journal import snapshot
from actors.journal.store import Store
from actors.journal.tables import ShardOwner, Snapshot
from actors.rules.errors import Superseded, Unavailable
from tests.journal.conftest import NOW_US, take

STATE = bytes(range(256)) * 40


def ends_at(connection: Connection, head: int) -> None:
    connection.execute(text("UPDATE shard_owner SET journal_head = :h"), {"h": head})


def save(store: Store, owner: ShardOwner, sequence: int, state: bytes, *, parts: int | None = None) -> None:
    store.write(ends_at, sequence).result(20)
    for number, commit in enumerate(snapshot.save(owner.shard, owner.epoch, sequence, state, NOW_US, part_bytes=3_000)):
        if parts is None or number < parts:
            store.commit(commit).result(20)


def damage(connection: Connection, sequence: int, part: int) -> None:
    connection.execute(text("UPDATE snapshot SET blob = :b WHERE sequence = :s AND part = :p"), {"b": b"x", "s": sequence, "p": part})


def sequences(store: Store) -> set[int]:
    with Session(store.engine) as session:
        return set(session.execute(select(Snapshot.sequence)).scalars())  # type: ignore[call-overload]


def test_a_snapshot_comes_back_byte_for_byte(store: Store, owner: ShardOwner) -> None:
    assert snapshot.load(store.engine, 0) is None
    save(store, owner, 7, STATE)
    assert snapshot.load(store.engine, 0) == (7, STATE)
    assert snapshot.load(store.engine, 1) is None


@pytest.mark.parametrize("state", [b"", b"x", os.urandom(3_000), bytes(3_001)], ids=len)
def test_a_snapshot_of_any_size_comes_back(store: Store, owner: ShardOwner, state: bytes) -> None:
    save(store, owner, 1, state)
    assert snapshot.load(store.engine, 0) == (1, state)


def test_a_snapshot_that_was_not_finished_does_not_count(store: Store, owner: ShardOwner) -> None:
    save(store, owner, 7, STATE)
    save(store, owner, 9, STATE + b"more", parts=2)
    assert snapshot.load(store.engine, 0) == (7, STATE)


def test_a_damaged_snapshot_gives_way_to_the_one_before_it(store: Store, owner: ShardOwner) -> None:
    save(store, owner, 7, STATE)
    save(store, owner, 9, STATE + b"more")
    store.write(damage, 9, 2).result(20)
    assert snapshot.load(store.engine, 0) == (7, STATE)
    store.write(damage, 7, 0).result(20)
    assert snapshot.load(store.engine, 0) is None


def test_the_newest_two_are_kept_and_what_was_not_finished_goes(store: Store, owner: ShardOwner, write: Callable[..., object]) -> None:
    for sequence, parts in ((1, None), (2, None), (3, 1), (4, None), (5, None)):
        save(store, owner, sequence, STATE, parts=parts)
    assert sequences(store) == {4, 5}
    with Session(store.engine) as session:
        found = session.get(ShardOwner, 0)
        assert found is not None
        assert found.snapshot_sequence == 5


def test_a_superseded_owner_cannot_finish_its_snapshot(store: Store, owner: ShardOwner) -> None:
    save(store, owner, 7, STATE, parts=1)
    take(store, 0)
    with pytest.raises(Superseded):
        save(store, owner, 7, STATE)


def test_a_snapshot_of_a_state_that_the_journal_refused_is_refused_too(store: Store, owner: ShardOwner) -> None:
    save(store, owner, 7, STATE)
    [ahead, *_] = snapshot.save(owner.shard, owner.epoch, 8, b"holds what entry 8 did, which a full disk refused", NOW_US)
    with pytest.raises(Unavailable, match="ends at 7"):
        store.commit(ahead).result(20)
    assert sequences(store) == {7}


def test_a_snapshot_that_stands_after_the_end_of_the_journal_is_not_loaded(store: Store, owner: ShardOwner) -> None:
    save(store, owner, 7, STATE)
    save(store, owner, 9, STATE + b"more")
    assert snapshot.load(store.engine, 0, 8) == (7, STATE)
    assert snapshot.load(store.engine, 0, 9) == (9, STATE + b"more")
