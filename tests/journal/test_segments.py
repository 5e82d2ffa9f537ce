"""History sorted by tag says what the journal said: the same readings, in the same order, entry by entry, whatever is cut where."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, func, select

from actors.journal import fence, history, quarantine, segments, snapshot, sorted_rows
from actors.journal.commit import JournalEntry, PreparedCommit
from actors.journal.compaction import Compactor, Settings
from actors.journal.store import Store, open_store
from actors.journal.tables import ShardOwner
from actors.rules import codec
from actors.rules.errors import FailedPrecondition, Superseded
from actors.rules.readings import ACCEPTED, DUPLICATE, NO_SEQUENCE, Batch
from tests.journal.conftest import NOW_US, serving, take

SMALL = Settings(least_entries=1, least_readings=1, sort_readings=12, sort_entries=5, fan_in=3, read_rows=8, page_rows=4)
"""Segments of a few readings and pages of four: what takes a million readings elsewhere happens here within twenty."""


def put(store: Store, owner: ShardOwner, sequence: int, kind: str, blob: bytes, readings: Batch | None = None) -> None:
    one = JournalEntry(sequence=sequence, kind=kind, blob=blob, received_us=NOW_US + sequence, worker=f"worker {sequence}")
    if readings is not None and len(readings):
        one.readings = len(readings)
        one.min_sensed_us, one.max_sensed_us = int(readings.sensed_us.min()), int(readings.sensed_us.max())
    store.commit(PreparedCommit(shard=owner.shard, epoch=owner.epoch, now_us=NOW_US, journal=one)).result(20)


def put_batch(store: Store, owner: ShardOwner, sequence: int, tags: list[int], sensed: list[int], codes: tuple[int, ...] = (0,)) -> Batch:
    """A batch of which every value tells its entry and row."""
    n = len(tags)
    values = 1000.0 * sequence + np.arange(len(codes) * n, dtype=np.float64).reshape(len(codes), n) / 10
    batch = Batch(
        np.array(tags, np.int32),
        np.array(sensed, np.int64),
        np.full(n, sequence % 2, np.int64),
        np.arange(n, dtype=np.int64),
        codes,
        values,
    )
    put(store, owner, sequence, "readings", codec.encode(batch, None, None, {"new_tags": [f"T{sequence}"]}), batch)
    return batch


def snapshots(store: Store, owner: ShardOwner, *sequences: int) -> None:
    for sequence in sequences:
        for commit in snapshot.save(owner.shard, owner.epoch, sequence, b"state", NOW_US):
            store.commit(commit).result(20)


def compactor(store: Store, owner: ShardOwner, settings: Settings = SMALL) -> Compactor:
    return Compactor(store, owner.shard, owner.epoch, lambda: NOW_US, settings)


def until_done(one: Compactor, *, force: bool = True) -> int:
    steps = 0
    while one.step(force=force):
        steps += 1
        assert steps < 500, "the work comes to an end"
    return steps


def count(store: Store, table: Any, shard: int = 0) -> int:
    with store.engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(table).where(table.c.shard == shard)).scalar_one())


def kept(store: Store, shard: int = 0) -> list[int]:
    """The entries that still stand in the journal."""
    with store.engine.connect() as connection:
        mine = select(sorted_rows.BATCH.c.sequence).where(sorted_rows.BATCH.c.shard == shard).order_by(sorted_rows.BATCH.c.sequence)
        return list(connection.execute(mine).scalars())


def told(store: Store, shard: int = 0, after: int = 0) -> list[tuple[Any, ...]]:
    """The whole journal: each entry as it was committed."""
    names = ("sequence", "kind", "received_us", "worker", "epoch", "readings", "min_sensed_us", "max_sensed_us", "checksum", "blob")
    return [tuple(getattr(entry, name) for name in names) for entry in segments.entries(store.engine, shard, after, readings_at_once=9)]


def seen(store: Store, shard: int, tags: list[int], low: int, high: int, before: int | None = None) -> list[tuple[Any, ...]]:
    position, found = history.read(store.engine, shard, tags, low, high, before_sequence=before)
    values = [
        {code: value.tobytes() for code, value in zip(found.codes, found.values[:, row], strict=True) if value == value}
        for row in range(len(found))
    ]
    columns = (position, found.tag, found.sensed_us, found.boot, found.sequence)
    return list(zip(*(column.tolist() for column in columns), values, strict=True))


# ---------------------------------------------------------------- any journal


@st.composite
def journals(draw: st.DrawFn) -> list[tuple[str, bytes, Batch | None]]:
    """Entries of readings of a few tags in any order of time, with or without sequences and statuses, ticks and commands between."""
    entries: list[tuple[str, bytes, Batch | None]] = []
    for number in range(draw(st.integers(1, 14))):
        if draw(st.integers(0, 4)) == 0:
            entries.append((draw(st.sampled_from(["tick", "command"])), f'{{"n":{number}}}'.encode(), None))
            continue
        n = draw(st.integers(0, 9) | st.just(codec.DECIMALS_LEAST))
        codes = tuple(sorted(draw(st.sets(st.sampled_from([0, 1, 5, 11]), min_size=1, max_size=2))))
        tag = np.array(draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)), np.int32)
        sensed = np.array(draw(st.lists(st.integers(0, 12), min_size=n, max_size=n)), np.int64)
        sequenced = draw(st.booleans())
        boot = np.full(n, draw(st.integers(0, 2)) if sequenced else NO_SEQUENCE, np.int64)
        sequence = np.array(draw(st.lists(st.integers(0, 5), min_size=n, max_size=n)), np.int64) if sequenced else boot
        values = np.array(
            draw(st.lists(st.sampled_from([4.5, 21.37, 0.1, float("nan")]), min_size=n * len(codes), max_size=n * len(codes)))
        )
        batch = Batch(tag, sensed, boot, sequence, codes, values.reshape(len(codes), n))
        status = None
        if draw(st.integers(0, 3)) == 0:
            status = np.array(draw(st.lists(st.sampled_from([ACCEPTED, DUPLICATE]), min_size=n, max_size=n)), np.uint8)
        extra: dict[str, Any] = draw(st.sampled_from([{}, {"past_counter": 7, "slow": [[1, 2]]}, {"new_tags": ["é", "b"]}]))
        version = draw(st.integers(1, codec.VERSION))  # entries of before an upgrade, too
        entries.append(("readings", codec.encode(batch, None, status, extra, version), batch))
    return entries


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def many(request: pytest.FixtureRequest, new_database: Callable[[str], str]) -> Iterator[tuple[Store, Iterator[int]]]:
    """One store for many examples, each on a shard of its own."""
    url = new_database(request.param)
    with serving(url):
        store = open_store(url)
        yield store, itertools.count()
        store.close()


@settings(max_examples=25)
@given(
    entries=journals(),
    sorting=st.builds(
        Settings, least_entries=st.just(1), least_readings=st.just(1), sort_readings=st.integers(1, 30), sort_entries=st.integers(1, 6),
        fan_in=st.integers(2, 4), read_rows=st.integers(1, 10), page_rows=st.integers(1, 5),
    ),
    cuts=st.tuples(st.integers(0, 14), st.integers(0, 14)),
    work=st.integers(0, 40),
    windows=st.lists(st.tuples(st.integers(-1, 12), st.integers(0, 14)), min_size=2, max_size=2),
)  # fmt: skip
def test_sorting_changes_nothing_that_is_read(
    many: tuple[Store, Iterator[int]],
    entries: list[Any],
    sorting: Settings,
    cuts: tuple[int, int],
    work: int,
    windows: list[tuple[int, int]],
) -> None:
    store, numbers = many
    shard = next(numbers)
    owner = take(store, shard)
    for at, (kind, blob, batch) in enumerate(entries):
        put(store, owner, at + 1, kind, blob, batch)
    asked = [
        (tags, low, high, before) for tags in ([0], [3, 1], [4, 0, 2, 9]) for low, high in windows for before in (None, len(entries) // 2)
    ]
    before = [seen(store, shard, *one) for one in asked], told(store, shard), told(store, shard, len(entries) // 2)
    snapshots(store, owner, *sorted({min(cut, len(entries)) for cut in cuts}))
    one = compactor(store, owner, sorting)
    for _ in range(work):
        if not one.step(force=True):
            break
    assert ([seen(store, shard, *one) for one in asked], told(store, shard), told(store, shard, len(entries) // 2)) == before


# ---------------------------------------------------------------- what is sorted when, and what goes


def fill(store: Store, owner: ShardOwner, entries: int, first: int = 1) -> None:
    for sequence in range(first, first + entries):
        put_batch(store, owner, sequence, [sequence % 3, 3, 4], [10 * sequence, 10 * sequence + 5, 1000 - sequence])


def test_little_waits_and_enough_is_sorted(store: Store, owner: ShardOwner) -> None:
    one = compactor(store, owner, dataclasses.replace(SMALL, least_entries=4, least_readings=1000))
    fill(store, owner, 3)
    assert not one.step()
    fill(store, owner, 1, first=4)
    assert one.step()
    assert not one.step()
    assert (count(store, segments.SEGMENT), kept(store)) == (1, [1, 2, 3, 4])


def test_entries_are_removed_only_behind_the_older_of_two_snapshots(store: Store, owner: ShardOwner) -> None:
    fill(store, owner, 4)
    put(store, owner, 5, "command", b"{}")
    fill(store, owner, 4, first=6)
    whole = told(store)
    until_done(compactor(store, owner))
    assert kept(store) == list(range(1, 10)), "recovery may need any of them"
    snapshots(store, owner, 9)
    until_done(compactor(store, owner))
    assert kept(store) == list(range(1, 10)), "the only snapshot may be damaged"
    fill(store, owner, 1, first=10)
    snapshots(store, owner, 10)
    until_done(compactor(store, owner))
    assert kept(store) == [5, 10], "the command stays"
    assert told(store)[:9] == whole


def test_neighbours_are_merged_so_that_a_tag_lies_in_few_segments(store: Store, owner: ShardOwner) -> None:
    fill(store, owner, 40)
    before = seen(store, 0, [3, 1], 0, 10_000)
    until_done(compactor(store, owner))
    assert seen(store, 0, [3, 1], 0, 10_000) == before
    with store.engine.connect() as connection:
        found = connection.execute(select(segments.SEGMENT).order_by(segments.SEGMENT.c.first_sequence)).all()
        known = quarantine.known(connection, 0)
        read = list(segments.read_tags(connection, 0, np.array([3]), 0, 10_000, known))
    assert len(found) <= 4
    assert max(segment.level for segment in found) == 2
    assert [segment.first_sequence for segment in found[1:]] == [segment.last_sequence + 1 for segment in found[:-1]], "no gap, no overlap"
    assert sum(segment.readings for segment in found) == 120
    assert len(read) < count(store, segments.PAGE) / 2, "only pages that may hold the tag are read"


def test_a_segment_does_not_grow_beyond_its_bound(store: Store, owner: ShardOwner) -> None:
    fill(store, owner, 30)
    until_done(compactor(store, owner, dataclasses.replace(SMALL, most_readings=36)))
    with store.engine.connect() as connection:
        assert max(connection.execute(select(segments.SEGMENT.c.readings)).scalars()) <= 36


def test_a_damaged_directory_costs_time_and_nothing_else(store: Store, owner: ShardOwner) -> None:
    fill(store, owner, 8)
    before = seen(store, 0, [3, 1], 0, 10_000)
    until_done(compactor(store, owner))
    store.write(spoil_directories).result(20)
    assert seen(store, 0, [3, 1], 0, 10_000) == before


def spoil_directories(connection: Connection) -> None:
    connection.execute(segments.SEGMENT.update().values(directory=b"x" * 24))


# ---------------------------------------------------------------- deaths and successors


class Died(Exception):
    """The process ends here."""


@pytest.mark.parametrize("at", range(14))
def test_a_death_at_any_write_leaves_old_or_new(store: Store, owner: ShardOwner, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, owner, 12)
    snapshots(store, owner, 8, 9)
    before = seen(store, 0, [0, 1, 2, 3, 4], 0, 10_000), told(store)
    one = compactor(store, owner)
    whole, calls = one._call, itertools.count()

    def dying(function: Callable[..., Any], *arguments: Any) -> Any:
        if next(calls) == at:
            raise Died
        return whole(function, *arguments)

    monkeypatch.setattr(one, "_call", dying)
    with contextlib.suppress(Died):
        until_done(one)
    assert (seen(store, 0, [0, 1, 2, 3, 4], 0, 10_000), told(store)) == before
    successor = take(store, 0)
    until_done(compactor(store, successor))
    assert (seen(store, 0, [0, 1, 2, 3, 4], 0, 10_000), told(store)) == before
    with store.engine.connect() as connection:
        pages = connection.execute(select(func.sum(segments.SEGMENT.c.pages))).scalar_one()
    assert count(store, segments.PAGE) == pages, "what the dead one left behind is swept"


def test_each_write_sent_again_is_done_once(store: Store, owner: ShardOwner, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, owner, 12)
    snapshots(store, owner, 8, 9)
    before = seen(store, 0, [0, 1, 2, 3, 4], 0, 10_000), told(store)
    one = compactor(store, owner)
    whole = one._call

    def twice(function: Callable[..., Any], *arguments: Any) -> Any:
        whole(function, *arguments)
        return whole(function, *arguments)

    monkeypatch.setattr(one, "_call", twice)
    until_done(one)
    assert (seen(store, 0, [0, 1, 2, 3, 4], 0, 10_000), told(store)) == before


def test_a_superseded_owner_sorts_nothing(store: Store, owner: ShardOwner) -> None:
    fill(store, owner, 6)
    late = compactor(store, owner)
    successor = take(store, 0)
    with pytest.raises(Superseded):
        late.step(force=True)
    assert [count(store, table) for table in (segments.SEGMENT, segments.PAGE, segments.ENTRIES)] == [0, 0, 0]
    until_done(compactor(store, successor))
    for function, arguments in (
        (sorted_rows.write_pages, (99, 0, [b"x"])),
        (sorted_rows.remove_pages, ([(1, 0)],)),
        (sorted_rows.remove_entries, (6,)),
        (sorted_rows.publish_merged, ([1], None)),
    ):
        with pytest.raises(Superseded):
            store.write(function, 0, owner.epoch, *arguments).result(20)


def test_pages_that_are_not_there_are_not_published(store: Store, owner: ShardOwner, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, owner, 6)
    one = compactor(store, owner)
    whole = one._call
    monkeypatch.setattr(one, "_call", lambda function, *rest: None if function is sorted_rows.write_pages else whole(function, *rest))
    with pytest.raises(FailedPrecondition, match="has 0 of"):
        one.step(force=True)
    assert count(store, segments.ENTRIES) == 0


def test_a_reader_in_the_middle_sees_one_or_the_other(store: Store, owner: ShardOwner) -> None:
    fill(store, owner, 12)
    snapshots(store, owner, 11, 12)
    with store.engine.connect() as connection:
        known = quarantine.known(connection, 0)
        assert sorted_rows.sorted_sequence(connection, 0) == 0
        until_done(compactor(store, owner))
        # This transaction began before: for it the entries are there and the segments are not.
        assert sorted_rows.sorted_sequence(connection, 0) == 0
        assert not list(segments.read_tags(connection, 0, np.arange(5), 0, 10_000, known))
        assert len(connection.execute(select(sorted_rows.BATCH.c.blob)).all()) == 12
    assert kept(store) == [12]


def test_the_owner_row_is_taken_over_with_what_is_sorted(store: Store, owner: ShardOwner) -> None:
    fill(store, owner, 4)
    until_done(compactor(store, owner))
    again = store.write(fence.acquire, 0, fence.Claimant(os.getpid()), NOW_US).result(20)
    assert again.sorted_sequence == 4
