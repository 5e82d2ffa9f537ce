"""The group writer outlives what goes wrong between commits."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, text

from actors.journal.log_mover import LogMover
from actors.journal.writer import Call, GroupWriter


def one(connection: Connection) -> int:
    return int(connection.execute(text("SELECT 1")).scalar_one())


@pytest.mark.parametrize("when", ["between_commits", "when_idle"])
def test_an_error_of_the_driver_between_commits_ends_no_writer(
    when: str, new_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that fails raises the driver's own error; after one such the committer took requests and answered none."""
    failed = threading.Semaphore(0)

    def fail(*_: Any) -> None:
        failed.release()
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(LogMover, when, fail)
    writer = GroupWriter(new_database("sqlite"))
    try:
        for _ in range(2):
            answered = threading.Event()
            told: list[Any] = []
            writer.submit(Call(one, ()), lambda outcome, told=told, answered=answered: (told.append(outcome), answered.set()))  # type: ignore[misc]
            assert answered.wait(10)
            assert told == [1]
            assert failed.acquire(timeout=10)
    finally:
        writer.close()
