"""The group writer outlives what goes wrong between commits."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from actors.journal import writer as writer_module
from actors.journal.database import sqlite_path
from actors.journal.writer import Call, GroupWriter
from actors.rules.errors import Unavailable


def one(connection: Connection) -> int:
    return int(connection.execute(text("SELECT 1")).scalar_one())


def put(connection: Connection, name: str) -> None:
    connection.execute(text("INSERT INTO setting (name, value) VALUES (:name, 'x')"), {"name": name})


class Failing:
    """Fails so many times as the system would."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.left = error, times

    def __call__(self, connection: Connection) -> str:
        if self.left:
            self.left -= 1
            raise self.error
        return "written"


def outcome_of(writer: GroupWriter, function: Callable[..., Any], *arguments: Any) -> Any:
    """What became of one call."""
    told: list[Any] = []
    answered = threading.Event()
    writer.submit(Call(function, arguments), lambda outcome: (told.append(outcome), answered.set()))  # type: ignore[arg-type,return-value]
    assert answered.wait(60)
    return told[0]


def failed_flush() -> Exception:
    return OperationalError("COMMIT", None, sqlite3.OperationalError("disk I/O error"))


def test_an_error_of_the_driver_between_commits_ends_no_writer(database_url: str) -> None:
    """A checkpoint that fails raises the driver's own error; after one such the committer took requests and answered none."""
    idled = threading.Semaphore(0)

    def idle(connection: Connection, rested: bool) -> None:
        idled.release()
        raise sqlite3.OperationalError("disk I/O error")

    writer = GroupWriter(database_url, idle=idle)
    try:
        for _ in range(2):
            answered = threading.Event()
            told: list[Any] = []
            writer.submit(Call(one, ()), lambda outcome, told=told, answered=answered: (told.append(outcome), answered.set()))  # type: ignore[misc]
            assert answered.wait(10)
            assert told == [1]
            assert idled.acquire(timeout=10)
    finally:
        writer.close()


def test_after_a_failed_flush_the_log_is_moved_and_begun_anew_before_anything_is_answered(new_database: Callable[[str], str]) -> None:
    """What stood in it may not be on the disk; what was logged behind it would be lost with it."""
    url = new_database("sqlite")
    log_file = Path(f"{sqlite_path(url)}-wal")
    writer = GroupWriter(url)
    try:
        for number in range(20):
            assert outcome_of(writer, put, f"before-{number}") is None
        before = log_file.stat().st_size
        assert outcome_of(writer, Failing(failed_flush(), 1)) == "written"
        assert outcome_of(writer, put, "after") is None
        assert 0 < log_file.stat().st_size < before / 4
    finally:
        writer.close()


def test_while_a_reader_holds_a_log_in_doubt_nothing_is_answered_as_done(
    new_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "PATIENCE_S", 0.5)
    url = new_database("sqlite")
    writer = GroupWriter(url)
    reader = sqlite3.connect(sqlite_path(url), isolation_level=None)
    try:
        assert outcome_of(writer, put, "before") is None
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM setting").fetchone()
        assert isinstance(outcome_of(writer, Failing(failed_flush(), 1)), Unavailable)
        reader.close()
        assert outcome_of(writer, put, "after") is None
    finally:
        writer.close()


@pytest.mark.parametrize(
    "error", [ValueError("a fault of our own"), OperationalError("INSERT", None, sqlite3.OperationalError("database or disk is full"))]
)
def test_a_fault_that_puts_no_flush_in_doubt_waits_for_no_reader(
    error: Exception, new_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_: Connection) -> None:
        raise AssertionError("nothing was in doubt")

    monkeypatch.setattr(writer_module, "_make_durable", never)
    writer = GroupWriter(new_database("sqlite"))
    try:
        assert isinstance(outcome_of(writer, Failing(error, 9)), Exception)
        assert outcome_of(writer, put, "after") is None
    finally:
        writer.close()
