"""The group writer outlives what goes wrong between commits."""

from __future__ import annotations

import sqlite3
import threading
from typing import Any

from sqlalchemy import Connection, text

from actors.journal.writer import Call, GroupWriter


def one(connection: Connection) -> int:
    return int(connection.execute(text("SELECT 1")).scalar_one())


def test_an_error_of_the_driver_between_commits_ends_no_writer(database_url: str) -> None:
    """A checkpoint that fails raises the driver's own error; after one such the committer took requests and answered none."""
    idled = threading.Semaphore(0)

    def aside(connection: Connection, idle: bool) -> None:
        if not idle:
            return
        idled.release()
        raise sqlite3.OperationalError("disk I/O error")

    writer = GroupWriter(database_url, aside=aside)
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
