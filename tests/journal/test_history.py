"""Readings come back from the journal by tag and sensed time: the accepted ones, in journal order."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import Connection, text

from actors.journal import history
from actors.journal.commit import PreparedCommit
from actors.journal.store import Store
from actors.journal.tables import ShardOwner
from actors.rules import codec
from actors.rules.readings import ACCEPTED, DUPLICATE, REFUSED, U1, Batch
from tests.journal.conftest import NOW_US, entry


def batch(tags: list[int], sensed: list[int], codes: tuple[int, ...] = (0,), *, base: float = 0.0) -> Batch:
    n = len(tags)
    values = base + np.arange(len(codes) * n, dtype=np.float64).reshape(len(codes), n)
    return Batch(np.array(tags, np.int32), np.array(sensed, np.int64), np.full(n, 5, np.int64), np.arange(n, dtype=np.int64), codes, values)


def put(store: Store, owner: ShardOwner, sequence: int, readings: Batch, status: U1 | None = None) -> None:
    blob = codec.encode(readings, None, status, {})
    low, high = int(readings.sensed_us.min()), int(readings.sensed_us.max())
    one = entry(sequence, blob, min_sensed_us=low, max_sensed_us=high, readings=len(readings))
    store.commit(PreparedCommit(shard=0, epoch=owner.epoch, now_us=NOW_US, journal=one)).result(20)


def test_readings_of_the_wanted_tags_and_time_come_back_in_journal_order(store: Store, owner: ShardOwner) -> None:
    put(store, owner, 1, batch([0, 1, 2, 1], [10, 11, 12, 30]))
    put(store, owner, 2, batch([1, 0], [5, 50]))
    put(store, owner, 3, batch([1, 7], [20, 21], base=100.0))
    position, found = history.read(store.engine, 0, [7, 1], 5, 30)
    assert position.tolist() == [1, 1, 1, 0]
    assert found.tag.tolist() == [1, 1, 1, 7]
    assert found.sensed_us.tolist() == [11, 5, 20, 21], "from is included, until is not"
    assert found.values.tolist() == [[1.0, 0.0, 100.0, 101.0]]
    assert (found.boot.tolist(), found.sequence.tolist()) == ([5] * 4, [1, 0, 0, 1])


def test_only_accepted_readings_come_back(store: Store, owner: ShardOwner) -> None:
    put(store, owner, 1, batch([0, 0, 0], [1, 2, 3]), np.array([ACCEPTED, DUPLICATE, REFUSED], np.uint8))
    assert history.read(store.engine, 0, [0], 0, 10)[1].sensed_us.tolist() == [1]


def test_batches_of_different_columns_are_joined_with_what_is_absent_as_nan(store: Store, owner: ShardOwner) -> None:
    put(store, owner, 1, batch([0], [1], (0, 3)))
    put(store, owner, 2, batch([0], [2], (1, 3), base=50.0))
    _, found = history.read(store.engine, 0, [0], 0, 10)
    assert found.codes == (0, 1, 3)
    np.testing.assert_array_equal(found.values, [[0.0, np.nan], [np.nan, 50.0], [1.0, 51.0]])


def test_nothing_is_an_empty_batch(store: Store, owner: ShardOwner) -> None:
    put(store, owner, 1, batch([0], [1]))
    for tags, low, high in (([1], 0, 10), ([0], 2, 10), ([0], 0, 1), ([], 0, 10)):
        position, found = history.read(store.engine, 0, tags, low, high)
        assert (len(position), len(found), found.codes) == (0, 0, ())
    assert len(history.read(store.engine, 1, [0], 0, 10)[1]) == 0, "another shard's tag of the same index is another tag"


def test_a_replay_sees_only_what_was_there_before(store: Store, owner: ShardOwner) -> None:
    for sequence in (1, 2, 3):
        put(store, owner, sequence, batch([0], [sequence]))
    assert history.read(store.engine, 0, [0], 0, 10, before_sequence=3)[1].sensed_us.tolist() == [1, 2]


def damage(connection: Connection) -> None:
    shorter = "substr(blob, 1, length(blob) - 8)" if connection.dialect.name == "sqlite" else "substring(blob, 1, length(blob) - 8)"
    connection.execute(text(f"UPDATE journal_batch SET blob = {shorter} WHERE sequence = 2"))


def test_a_damaged_entry_is_named_with_its_time_range_and_not_skipped(store: Store, owner: ShardOwner) -> None:
    for sequence in (1, 2, 3):
        put(store, owner, sequence, batch([0], [10 * sequence]))
    store.write(damage).result(20)
    with pytest.raises(history.DamagedJournal, match=r"entry 2 of shard 0 \(sensed 20 to 20 us\)") as caught:
        history.read(store.engine, 0, [0], 0, 100)
    assert caught.value.sequence == 2
    assert len(history.read(store.engine, 0, [0], 30, 100)[1]) == 1
