"""SQLite's write-ahead log goes into the database beside the commits: they do not wait, it does not grow, and nothing is lost by it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from actors.journal import log_mover
from actors.journal.database import sqlite_path, writer
from actors.journal.log_mover import LogMover
from actors.journal.writer import Call, GroupWriter

PAGE_BYTES = 16_384
PATIENCE_S = 30.0
READ_AGAIN_AND_AGAIN = """
import sqlite3, sys
for _ in range(200):
    connection = sqlite3.connect(sys.argv[1])
    connection.execute("SELECT count(*), sum(length(blob)) FROM kept").fetchone()
    connection.close()
"""


def put(connection: Connection, size: int) -> None:
    connection.execute(text("INSERT INTO kept (blob) VALUES (:blob)"), {"blob": os.urandom(size)})


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.01)


class Writing:
    """A group writer of a database with a table, whose log is moved after 100 pages."""

    def __init__(self, url: str) -> None:
        with writer(url).begin() as connection:
            connection.execute(text("CREATE TABLE kept (blob BLOB)"))
        self.path = sqlite_path(url)
        self.writer = GroupWriter(url)
        log = self.writer._log
        assert log is not None
        self.log: LogMover = log

    def commit(self, pages: int) -> None:
        """Write so many pages, durably."""
        told: list[Any] = []
        answered = threading.Event()
        self.writer.submit(Call(put, (pages * PAGE_BYTES,)), lambda outcome: (told.append(outcome), answered.set()))  # type: ignore[arg-type,return-value]
        assert answered.wait(PATIENCE_S)
        assert told == [None]

    @property
    def pages(self) -> int:
        """In the log and not moved."""
        return self.log._files.pages_to_move()

    def reader(self) -> sqlite3.Connection:
        """Somebody who reads, and so holds the log as it is now."""
        connection = sqlite3.connect(self.path, isolation_level=None)
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM kept").fetchone()
        return connection


@pytest.fixture
def writing(new_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Writing]:
    """See Writing."""
    monkeypatch.setattr(log_mover, "WAL_PAGES", 100)
    monkeypatch.setattr(log_mover, "WAL_PAGES_MOST", 2_000)
    monkeypatch.setattr(log_mover, "AGAIN_S", 0.02)
    made = Writing(new_database("sqlite"))
    yield made
    made.writer.close()


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads that moved the log, a name for each pass."""
    made: list[str] = []
    genuine = LogMover._move

    def move(self: LogMover, connection: Connection, how: str = "PASSIVE") -> None:
        genuine(self, connection, how)
        made.append(threading.current_thread().name)

    monkeypatch.setattr(LogMover, "_move", move)
    return made


def test_the_header_of_the_logs_index_says_how_much_is_to_be_moved(writing: Writing) -> None:
    with writer(f"sqlite:///{writing.path}").connect() as connection:
        raw: Any = connection.connection.driver_connection
        for number in range(1, 6):
            with connection.begin():
                put(connection, 3 * PAGE_BYTES)
            assert writing.pages >= 3 * number
        pages = writing.pages
        assert raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone() == (0, pages, pages)
        assert writing.pages == 0


def test_no_commit_waits_for_a_log_that_is_being_moved(writing: Writing, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    genuine = LogMover._move

    def move(self: LogMover, connection: Connection, how: str = "PASSIVE") -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        genuine(self, connection, how)

    monkeypatch.setattr(LogMover, "_move", move)
    for _ in range(40):
        writing.commit(5)
    assert begun.is_set()
    go_on.set()


def test_a_log_that_is_written_to_all_the_time_stays_short(writing: Writing, moves: list[str]) -> None:
    for _ in range(600):
        writing.commit(5)
    assert {"log-mover", "journal-writer"} <= set(moves)
    log_bytes = Path(f"{writing.path}-wal").stat().st_size
    assert log_bytes < 2_000 * PAGE_BYTES, "of more than 3,000 pages written"


def test_a_log_is_moved_when_nothing_waits(writing: Writing, moves: list[str]) -> None:
    for _ in range(4):
        writing.commit(20)
    wait_until(lambda: writing.pages <= log_mover.FEW_PAGES)
    assert set(moves) == {"log-mover"}


def test_a_reader_that_held_the_log_is_forgotten_when_it_has_gone(writing: Writing, moves: list[str]) -> None:
    reader = writing.reader()
    for _ in range(100):
        writing.commit(5)
    assert writing.pages > 3 * log_mover.WAL_PAGES
    reader.close()
    wait_until(lambda: writing.pages <= log_mover.FEW_PAGES)
    moves.clear()
    for _ in range(40):
        writing.commit(5)
    wait_until(lambda: "log-mover" in moves)
    assert writing.log._from == log_mover.WAL_PAGES


def test_what_was_moved_and_could_not_be_flushed_is_moved_again_all_of_it(writing: Writing, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may have let go of the pages; SQLite, which counts them as moved, would not write them again."""
    monkeypatch.setattr(log_mover, "WAL_PAGES", 10_000)  # it is moved when idle alone
    flush, forget = log_mover._Files.flush, log_mover._Files.forget_moved
    disk_fails = threading.Event()
    failures: list[int] = []
    forgotten: list[tuple[int, int]] = []

    def flushed(self: log_mover._Files) -> None:
        if disk_fails.is_set():
            failures.append(self.pages_to_move())
            raise OSError("input/output error")
        flush(self)

    def forgot(self: log_mover._Files) -> None:
        before = self.pages_to_move()
        forget(self)
        forgotten.append((before, self.pages_to_move()))

    monkeypatch.setattr(log_mover._Files, "flush", flushed)
    monkeypatch.setattr(log_mover._Files, "forget_moved", forgot)
    writing.commit(80)
    wait_until(lambda: writing.pages == 0)
    forgotten.clear()
    writing.commit(80)
    reader = writing.reader()
    disk_fails.set()
    writing.commit(80)
    wait_until(lambda: bool(failures))
    assert 80 <= failures[0] < 160, "what was logged before the reader came is moved"
    disk_fails.clear()
    reader.close()
    writing.commit(1)
    wait_until(lambda: writing.pages == 0)
    assert forgotten[0][0] < 160 < forgotten[0][1], "and moved once more with the rest"
    forgotten.clear()
    writing.commit(80)
    wait_until(lambda: writing.pages == 0)
    assert not forgotten, "only after a failure"


def test_pages_that_were_moved_count_again_once_they_are_forgotten(writing: Writing) -> None:
    for _ in range(20):
        writing.commit(5)
    logged = writing.pages
    with writer(f"sqlite:///{writing.path}").connect() as connection, writing.log._moving:
        raw: Any = connection.connection.driver_connection
        raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        logged = raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
        assert writing.pages == 0
        writing.log._files.forget_moved()
        assert writing.pages == logged
        assert raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone() == (0, logged, logged)
        assert writing.pages == 0


def test_after_a_failure_the_writer_waits_for_a_move_that_goes_on(writing: Writing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its new connection has the whole log moved before it answers; SQLite would say at once that another moves it."""
    writing.commit(5)
    writing.writer._suspect = True
    writing.writer._connection, dropped = None, writing.writer._connection
    assert dropped is not None
    dropped.close()
    with writing.log._moving:
        answered = threading.Event()
        writing.writer.submit(Call(put, (PAGE_BYTES,)), lambda _: answered.set())
        assert not answered.wait(0.3)
    assert answered.wait(PATIENCE_S)


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the system does not tell who holds what")
def test_looking_at_the_index_costs_sqlite_none_of_its_locks(writing: Writing) -> None:
    """Who closes a descriptor of a file loses all locks on it; the next to open the database would then take it for abandoned."""

    def locks() -> int:
        inode = Path(f"{writing.path}-shm").stat().st_ino
        mine = [line for line in Path("/proc/locks").read_text().splitlines() if f" {os.getpid()} " in line and f":{inode} " in line]
        return len(mine)

    writing.commit(5)
    wait_until(lambda: locks() > 0)
    for _ in range(50):
        writing.commit(5)
        assert locks() > 0


def test_others_may_come_and_go_while_it_is_moved(writing: Writing) -> None:
    """Two processes open, read and close the database, again and again, while commits and moves go on."""
    others = [subprocess.Popen([sys.executable, "-c", READ_AGAIN_AND_AGAIN, str(writing.path)]) for _ in range(2)]
    written = 0
    while any(one.poll() is None for one in others):
        writing.commit(5)
        written += 1
    assert [one.returncode for one in others] == [0, 0]
    with sqlite3.connect(writing.path) as connection:
        assert connection.execute("SELECT count(*), sum(length(blob)) FROM kept").fetchone() == (written, 5 * PAGE_BYTES * written)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
