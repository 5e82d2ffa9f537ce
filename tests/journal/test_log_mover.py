"""SQLite's write-ahead log goes into the database beside the commits: they do not wait for it, and it does not grow."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from actors.journal import log_mover
from actors.journal.database import sqlite_path, writer
from actors.journal.log_mover import LogMover, pages_to_move
from actors.journal.writer import Call, GroupWriter

PAGE_BYTES = 16_384


def put(connection: Connection, size: int) -> None:
    connection.execute(text("INSERT INTO kept (blob) VALUES (:blob)"), {"blob": os.urandom(size)})


@pytest.fixture
def url(new_database: Callable[[str], str]) -> str:
    """A database with a table."""
    url = new_database("sqlite")
    with writer(url).begin() as connection:
        connection.execute(text("CREATE TABLE kept (blob BLOB)"))
    return url


@pytest.fixture
def index(url: str) -> Path:
    """Of its log."""
    return Path(f"{sqlite_path(url)}-shm")


@pytest.fixture
def moved(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[LogMover, GroupWriter]]:
    """A writer, and the mover of its log: after 100 pages."""
    monkeypatch.setattr(log_mover, "WAL_PAGES", 100)
    mover = LogMover(url)
    writing = GroupWriter(url, aside=lambda connection, idle: mover.when_idle() if idle else mover.between_commits(connection))
    yield mover, writing
    writing.close()
    mover.close()


def written(writing: GroupWriter, size: int) -> Any:
    """What became of one commit."""
    told: list[Any] = []
    answered = threading.Event()
    writing.submit(Call(put, (size,)), lambda outcome: (told.append(outcome), answered.set()))  # type: ignore[arg-type,return-value]
    assert answered.wait(20)
    return told[0]


def test_the_header_of_the_logs_index_says_how_much_is_to_be_moved(url: str, index: Path) -> None:
    engine = writer(url)
    with engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert pages_to_move(index) == 0
        for number in range(1, 6):
            with connection.begin():
                put(connection, 3 * PAGE_BYTES)
            pages = pages_to_move(index)
            assert pages >= 3 * number
        assert raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone() == (0, pages, pages)
        assert pages_to_move(index) == 0
    engine.dispose()
    assert pages_to_move(index) == 0
    assert pages_to_move(index.with_name("there-is-no-such-file")) == 0


def test_a_log_that_has_become_long_is_moved_while_commits_go_on(
    moved: tuple[LogMover, GroupWriter], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No commit waits for it: the one that found the log long, and the next ones, are answered while it is being moved."""
    _, writing = moved
    begun, go_on, movers = threading.Event(), threading.Event(), []
    genuine = log_mover.move

    def move(connection: Connection) -> None:
        movers.append(threading.current_thread().name)
        begun.set()
        assert go_on.wait(20)
        genuine(connection)

    monkeypatch.setattr(log_mover, "move", move)
    while not begun.is_set():
        assert written(writing, 5 * PAGE_BYTES) is None
    for _ in range(10):
        assert written(writing, 5 * PAGE_BYTES) is None
    assert movers == ["log-mover"]
    go_on.set()
    for _ in range(300):
        assert written(writing, 5 * PAGE_BYTES) is None
    assert movers.count("log-mover") > 3
    log_bytes = Path(f"{sqlite_path(url)}-wal").stat().st_size
    assert log_bytes < 1_000 * PAGE_BYTES, "of more than 1,500 pages written the log keeps some hundreds"


def test_a_log_is_moved_when_nothing_waits(moved: tuple[LogMover, GroupWriter], index: Path) -> None:
    _, writing = moved
    for _ in range(4):
        assert written(writing, 20 * PAGE_BYTES) is None
    assert pages_to_move(index) > log_mover.FEW_PAGES
    until = time.monotonic() + 20
    while pages_to_move(index) and time.monotonic() < until:
        time.sleep(0.05)
    assert pages_to_move(index) == 0


def test_a_move_that_fails_is_tried_again(moved: tuple[LogMover, GroupWriter], index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, writing = moved
    monkeypatch.setattr(log_mover, "AGAIN_S", 0.05)
    genuine, failures = log_mover.move, [OSError("disk I/O error")] * 2

    def move(connection: Connection) -> None:
        if failures and threading.current_thread().name == "log-mover":
            raise failures.pop()
        genuine(connection)

    monkeypatch.setattr(log_mover, "move", move)
    until = time.monotonic() + 20
    while failures and time.monotonic() < until:
        assert written(writing, 5 * PAGE_BYTES) is None
    while pages_to_move(index) > log_mover.FEW_PAGES and time.monotonic() < until:
        time.sleep(0.05)
    assert not failures
    assert pages_to_move(index) <= log_mover.FEW_PAGES
