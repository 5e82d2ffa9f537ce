"""The way to the database: in order, durable when answered, once whatever dies; and watchers of events miss nothing."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select, text
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from actors.journal import fence, rows
from actors.journal.commit import CommitResult, EventDraft, PreparedCommit
from actors.journal.database import assert_durable, sqlite_path, writer
from actors.journal.migrate import migrate
from actors.journal.store import Store, key_path, open_store, socket_path
from actors.journal.tables import Event, JournalBatch, Setting, ShardOwner
from actors.journal.writer import GroupWriter
from actors.rules.errors import InvalidArgument, StorageFull, Superseded, Unavailable
from tests.journal.conftest import NOW_US, entry, start_committer, take
from tests.postgres import PostgreSQL


def journaled(owner: ShardOwner, sequence: int, size: int = 2_000) -> PreparedCommit:
    draft = EventDraft("tag.reading", NOW_US, {"shard": owner.shard, "sequence": sequence})
    blob = sequence.to_bytes(8, "little") * (size // 8)
    return PreparedCommit(shard=owner.shard, epoch=owner.epoch, now_us=NOW_US, journal=entry(sequence, blob), events=[draft])


def assert_once_and_in_order(store: Store, count: int, shard: int = 0) -> None:
    """Entries 1..count of the shard are there once, their events once and in their order."""
    with Session(store.engine) as session:
        batches = select(JournalBatch.sequence).where(JournalBatch.shard == shard).order_by(JournalBatch.sequence)  # type: ignore[call-overload]
        assert list(session.execute(batches).scalars()) == list(range(1, count + 1))
        numbers, bodies = [], []
        for event in session.execute(select(Event).order_by(Event.number)).scalars():  # type: ignore[arg-type]
            numbers.append(event.number)
            if event.shard == shard:
                bodies.append(event.body["sequence"])
        assert bodies == list(range(1, count + 1))
        assert numbers == list(range(1, len(numbers) + 1))


def fail_not_at_all(futures: list[Future[CommitResult]]) -> None:
    for future in futures:
        assert future.result(60).last_event > 0


# ---------------------------------------------------------------- what cannot be sent


def unsendable(connection: Connection) -> Any:
    return threading.Lock()


def test_what_cannot_be_pickled_is_refused_and_the_store_goes_on(new_database: Callable[[str], str]) -> None:
    url = new_database("sqlite")
    start_committer(url)
    store = open_store(url)
    for refused in (store.write(assert_durable, threading.Lock()), store.write(lambda connection: None), store.write(unsendable)):
        with pytest.raises(InvalidArgument, match="cannot"):
            refused.result(10)
    store.write(assert_durable).result(10)
    store.close()


# ---------------------------------------------------------------- whatever dies


def test_nothing_is_lost_or_doubled_when_the_committer_is_killed_in_flight(new_database: Callable[[str], str]) -> None:
    url = new_database("sqlite")
    process = start_committer(url)
    store = open_store(url)
    owner = take(store, 0)
    futures: list[Future[CommitResult]] = []
    kills = 0
    for sequence in range(1, 601):
        futures.append(store.commit(journaled(owner, sequence, 60_000)))
        if sequence % 150 == 0:
            assert not futures[-1].done()
            process.kill()
            process.wait()
            kills += 1
            process = start_committer(url)
    fail_not_at_all(futures)
    assert kills == 4
    assert_once_and_in_order(store, 600)
    store.close()
    process.terminate()
    assert process.wait(20) == 0


def test_nothing_is_lost_or_doubled_when_the_server_is_killed_in_flight(new_database: Callable[[str], str], postgres: PostgreSQL) -> None:
    url = new_database("postgresql")
    migrate(url)
    store = open_store(url)
    owner = take(store, 0)
    futures: list[Future[CommitResult]] = []
    for sequence in range(1, 301):
        futures.append(store.commit(journaled(owner, sequence, 20_000)))
        if sequence == 150:
            postgres.kill()
            postgres.start()
    fail_not_at_all(futures)
    assert_once_and_in_order(store, 300)
    store.close()


def test_an_owner_whose_commit_was_in_flight_when_another_took_over_is_told(store: Store, owner: ShardOwner) -> None:
    futures = [store.commit(journaled(owner, sequence)) for sequence in range(1, 51)]
    newer = take(store, 0)
    late = [store.commit(journaled(owner, sequence)) for sequence in range(51, 61)]
    fail_not_at_all(futures)
    assert all(isinstance(future.exception(20), Superseded) for future in late)
    assert newer.journal_head == 50
    assert_once_and_in_order(store, 50)


def test_without_a_committer_a_commit_is_refused_after_patience(new_database: Callable[[str], str]) -> None:
    url = new_database("sqlite")
    store = open_store(url, patience_s=0.3)
    future = store.commit(PreparedCommit(upserts=[Setting(name="a", value="b")]))
    with pytest.raises(Unavailable, match="does not answer"):
        future.result(10)
    store.close()


def test_a_store_waits_for_a_committer_that_comes_up(new_database: Callable[[str], str]) -> None:
    url = new_database("sqlite")
    store = open_store(url)
    future = store.commit(PreparedCommit(upserts=[Setting(name="a", value="b")]))
    process = start_committer(url)
    assert not future.result(20).already_done
    store.close()
    process.terminate()
    process.wait(20)


def test_readers_see_what_was_committed_while_no_committer_runs(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a folder with # and %' / 'waybill.db'}"
    for ends in (subprocess.Popen.terminate, subprocess.Popen.kill):  # in order, and leaving its log behind
        process = start_committer(url)
        store = open_store(url)
        store.commit(PreparedCommit(upserts=[Setting(name=ends.__name__, value="committed")])).result(20)
        ends(process)
        process.wait(20)
        with Session(store.engine) as session:
            found = session.get(Setting, ends.__name__)
            assert found is not None
            assert found.value == "committed"
        store.close()


def test_a_database_in_a_folder_with_a_long_name_has_its_socket_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / ('long' * 40) / 'waybill.db'}"
    process = start_committer(url)
    store = open_store(url)
    assert take(store, 0).epoch == 1
    store.close()
    process.terminate()
    assert process.wait(20) == 0


# ---------------------------------------------------------------- the committer process


def test_a_second_committer_on_the_same_database_is_refused(new_database: Callable[[str], str]) -> None:
    url = new_database("sqlite")
    first = start_committer(url)
    second = subprocess.run([sys.executable, "-m", "actors.journal.committer", "--url", url], capture_output=True, text=True, timeout=30)
    assert (second.returncode, second.stderr.strip()) == (3, "another committer has this database")
    first.terminate()
    assert first.wait(20) == 0


def test_the_committer_ends_with_its_parent(new_database: Callable[[str], str]) -> None:
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    url = new_database("sqlite")
    command = [sys.executable, "-m", "actors.journal.committer", "--url", url, "--parent", str(parent.pid)]
    committer = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert committer.stdout is not None
    committer.stdout.readline()
    parent.kill()  # and not waited for: a dead parent stays a zombie for a while
    assert committer.wait(10) == 0
    parent.wait()


def test_only_the_databases_owner_can_speak_to_the_committer(new_database: Callable[[str], str]) -> None:
    url = new_database("sqlite")
    process = start_committer(url)
    for path in (socket_path(url), key_path(url)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key_path(url).rename(key_path(url).with_suffix(".kept"))
    key_path(url).write_bytes(b"not the secret")
    store = open_store(url, patience_s=0.5)
    assert isinstance(store.commit(PreparedCommit(upserts=[Setting(name="a", value="b")])).exception(10), Unavailable)
    store.close()
    process.terminate()
    process.wait(20)


def test_a_client_that_only_connects_holds_up_nobody(new_database: Callable[[str], str]) -> None:
    import socket

    url = new_database("sqlite")
    process = start_committer(url)
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as rude:
        silent.connect(str(socket_path(url)))
        rude.connect(str(socket_path(url)))
        rude.sendall(b"\xff" * 100)
        store = open_store(url)
        assert take(store, 0).epoch == 1
        store.close()
    process.terminate()
    process.wait(20)


# ---------------------------------------------------------------- failures of the disk and of code


def test_the_writing_connection_is_durable_and_says_so_where_it_is_not(database_url: str) -> None:
    migrate(database_url)
    engine = writer(database_url)
    with engine.connect() as connection:
        assert_durable(connection)
        connection.rollback()
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.execute("PRAGMA synchronous=NORMAL" if engine.dialect.name == "sqlite" else "SET synchronous_commit=off")
        with pytest.raises(RuntimeError, match="not durable"):
            assert_durable(connection)


def fill_the_disk(connection: Connection) -> None:
    pages = connection.execute(text("PRAGMA page_count")).scalar_one()
    connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 4}")  # holds for this connection, which is given up after the failure


def test_a_full_disk_refuses_what_does_not_fit_and_goes_on_when_there_is_room(new_database: Callable[[str], str]) -> None:
    url = new_database("sqlite")
    process = start_committer(url)
    store = open_store(url)
    owner = take(store, 0)
    store.commit(journaled(owner, 1)).result(20)
    store.write(fill_the_disk).result(20)
    with pytest.raises(StorageFull):
        store.commit(journaled(owner, 2, 2_000_000)).result(20)
    store.commit(journaled(owner, 2, 2_000_000)).result(20)
    assert_once_and_in_order(store, 2)
    store.close()
    process.terminate()
    process.wait(20)


@pytest.mark.parametrize("done", [True, False], ids=["written all the same", "not written"])
def test_a_failed_commit_is_never_answered_from_its_connection(
    new_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    url = new_database("sqlite")
    migrate(url)
    group = GroupWriter(url)
    outcomes: list[Any] = []
    engine, connections = group._engine, []

    def fail_once(connection: Connection) -> None:
        if len(connections) == 1:
            if done:
                connections[0].execute("COMMIT")
            connections.append(None)
            raise sqlite3.OperationalError("disk I/O error")

    sqlalchemy_event.listen(engine, "connect", lambda raw, _: connections.append(raw))
    group.submit(_call(fence.acquire, 0, fence.Claimant(1), NOW_US), outcomes.append)
    _wait_for(lambda: len(outcomes) == 1)
    owner = outcomes.pop()
    sqlalchemy_event.listen(engine, "commit", fail_once)
    group.submit(journaled(owner, 1), outcomes.append)
    _wait_for(lambda: len(outcomes) == 1)
    assert outcomes[0].already_done is done
    assert len([raw for raw in connections if raw is not None]) == 2, "the second answer came from a new connection"
    group.close()
    with sqlite3.connect(sqlite_path(url)) as raw:
        assert raw.execute("SELECT count(*) FROM journal_batch").fetchone() == (1,)
        assert raw.execute("SELECT number FROM event_counter").fetchone() == (1,)


def faulty(_connection: Connection) -> None:
    raise KeyError("a fault of ours")


def test_a_fault_in_one_request_does_not_stop_the_others(store: Store, owner: ShardOwner) -> None:
    futures = [store.commit(journaled(owner, sequence)) for sequence in range(1, 11)]
    bad = store.write(faulty)
    futures += [store.commit(journaled(owner, sequence)) for sequence in range(11, 21)]
    fail_not_at_all(futures)
    assert isinstance(bad.exception(20), Unavailable)
    assert_once_and_in_order(store, 20)


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    from actors.journal.writer import Call

    return Call(function, arguments)


def _wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


# ---------------------------------------------------------------- events


def test_a_watcher_misses_no_event_however_many_write(database: str) -> None:
    """Four writers beside each other, a watcher that reads `number > cursor` all the time."""
    each, seen, wrong = 150, [], []
    stores = [open_store(database) for _ in range(4)]
    owners = [take(store, shard) for shard, store in enumerate(stores)]
    finished = threading.Event()

    def watch() -> None:
        cursor = 0
        while len(seen) < 4 * each and not finished.wait(0.001):
            with stores[0].engine.connect() as connection:
                for number in connection.execute(select(Event.number).where(Event.number > cursor).order_by(Event.number)).scalars():  # type: ignore[call-overload]
                    if number != cursor + 1:
                        wrong.append((cursor, number))
                    cursor = number
                    seen.append(number)

    watcher = threading.Thread(target=watch)
    watcher.start()
    futures = []
    for sequence in range(1, each + 1):
        futures += [store.commit(journaled(owner, sequence, 200)) for store, owner in zip(stores, owners, strict=True)]
    fail_not_at_all(futures)
    watcher.join(20)
    finished.set()
    assert wrong == []
    assert seen == list(range(1, 4 * each + 1))
    for store in stores:
        store.close()


def test_shards_that_raise_the_same_alert_at_once_raise_it_once(database: str) -> None:
    from actors.journal.tables import Alert
    from tests.journal.conftest import excursion

    stores = [open_store(database) for _ in range(3)]
    owners = [take(store, shard) for shard, store in enumerate(stores)]
    futures = []
    for number in range(20):
        for shard, (store, owner) in enumerate(zip(stores, owners, strict=True)):
            pair = [excursion(100 * number + shard, limit_id=f"limit-{one}") for one in ((number + shard) % 7, shard)]
            pair[1].excursion_id += 50
            futures.append(store.commit(PreparedCommit(shard=shard, epoch=owner.epoch, now_us=NOW_US, excursions=pair)))
    for future in futures:
        future.result(60)
    with Session(stores[0].engine) as session:
        found = session.execute(select(Alert.ordinal, Alert.excursions)).all()  # type: ignore[call-overload]
    assert [row[0] for row in found] == [1] * 7
    assert sum(row[1] for row in found) == 2 * 3 * 20
    for store in stores:
        store.close()


# ---------------------------------------------------------------- owners


def test_a_shard_is_taken_by_compare_and_set(store: Store) -> None:
    first = take(store, 5)
    assert (first.epoch, first.journal_head, first.pid) == (1, 0, os.getpid())
    claimant = fence.Claimant(pid=1, node="n", worker="w", pid_started="yesterday")
    second = store.write(fence.acquire, 5, claimant, NOW_US + 1, 1).result(20)
    assert (second.epoch, second.pid, second.node, second.heartbeat_us) == (2, 1, "n", NOW_US + 1)
    with pytest.raises(Superseded):
        store.write(fence.acquire, 5, claimant, NOW_US, 1).result(20)
    store.write(fence.heartbeat, 5, 2, NOW_US + 9).result(20)
    with pytest.raises(Superseded):
        store.write(fence.heartbeat, 5, 1, NOW_US).result(20)
    found = fence.owner(store.engine, 5)
    assert found is not None
    assert (found.epoch, found.heartbeat_us) == (2, NOW_US + 9)
    assert [one.shard for one in fence.owners(store.engine)] == [5]
    assert fence.owner(store.engine, 6) is None


@contextmanager
def an_owner_in_a_transaction(url: str) -> Iterator[tuple[Store, Connection]]:
    """A store whose shard 0 is owned, and a connection that has written its row and does not commit."""
    migrate(url)
    store = open_store(url)
    take(store, 0)
    frozen = writer(url).connect()
    try:
        with rows.savepoint(frozen):  # as a commit's, which is released before the transaction ends
            frozen.execute(text("UPDATE shard_owner SET journal_head = 1 WHERE shard = 0"))
        yield store, frozen
    finally:
        frozen.invalidate()
        store.close()


@pytest.mark.parametrize("last", ["one row", "many rows"])
def test_an_owner_that_froze_inside_a_transaction_holds_its_shard_for_seconds_only(last: str, new_database: Callable[[str], str]) -> None:
    """PostgreSQL ends its transaction. (On SQLite no owner has one: the committer writes for all.)"""
    with an_owner_in_a_transaction(new_database("postgresql")) as (store, frozen):
        if last == "many rows":  # sent as a pipeline, after which PostgreSQL's clock has to be started anew
            frozen.execute(text("UPDATE shard_owner SET pid = :pid WHERE shard = 0"), [{"pid": pid} for pid in range(5)])
        newer = store.write(fence.acquire, 0, fence.Claimant(2), NOW_US).result(30)
        assert (newer.epoch, newer.journal_head) == (2, 0)
        with pytest.raises(DBAPIError):
            frozen.execute(text("SELECT 1"))


def test_an_owner_that_froze_within_a_pipeline_is_disconnected(new_database: Callable[[str], str]) -> None:
    """The server waits for the rest of it, and no clock of its own runs: whoever takes over ends the connection."""
    with an_owner_in_a_transaction(new_database("postgresql")) as (store, frozen):
        driver: Any = frozen.connection.driver_connection
        driver.pgconn.enter_pipeline_mode()
        driver.pgconn.send_query_params(b"UPDATE shard_owner SET pid = 9 WHERE shard = 0", None)
        while driver.pgconn.flush():
            time.sleep(0.01)
        newer = store.write(fence.acquire, 0, fence.Claimant(2), NOW_US).result(30)
        assert (newer.epoch, newer.journal_head, newer.pid) == (2, 0, 2)


def test_what_the_committer_is_asked_to_call_makes_it_load_no_compiled_kernels_and_no_parquet() -> None:
    """Loading them takes half a second, in which nothing is committed. The modules are all whose functions are given to Store.write."""
    modules = "committer sorted_rows fence outbox delivery archive books stock_goods stock_units holds snapshot migrate"
    imported = "; ".join(f"import actors.journal.{name}" for name in modules.split())
    code = f"import sys; {imported}; print(sorted({{'numba', 'pyarrow', 'ray'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
