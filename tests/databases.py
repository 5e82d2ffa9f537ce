"""Databases for tests: the migrations run once for each kind; a test gets a copy, or one that was emptied after another test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from actors.journal.migrate import migrate
from tests.postgres import PostgreSQL


class Databases:
    """`new`: migrated and otherwise empty, to keep. `lend` and `take_back`: the same for one test. `bare`: not even migrated."""

    def __init__(self, new_folder: Callable[[], Path], postgres: Callable[[], PostgreSQL]) -> None:
        """`postgres` starts the server at its first call."""
        self._new_folder = new_folder
        self._postgres = postgres
        self._idle: list[str] = []

    def bare(self, kind: str) -> str:
        """An empty database of a kind, `sqlite` or `postgresql`; its URL."""
        return f"sqlite:///{self._new_folder() / 'waybill.db'}" if kind == "sqlite" else self._postgres().new_database()

    def new(self, kind: str) -> str:
        """A migrated database of a kind; its URL."""
        if kind == "postgresql":
            return self._postgres().new_database(self._migrated_postgresql)
        path = self._new_folder() / "waybill.db"
        shutil.copyfile(self._migrated_sqlite, path)
        return f"sqlite:///{path}"

    def lend(self, kind: str) -> str:
        """A migrated database; its URL."""
        return self._idle.pop() if kind == "postgresql" and self._idle else self.new(kind)

    def take_back(self, url: str) -> None:
        """Whoever borrowed the database is done with it; whoever is still connected is no longer."""
        if url.startswith("postgresql"):
            self._postgres().restore(url, self._rows)
            self._idle.append(url)

    @cached_property
    def _migrated_sqlite(self) -> Path:
        path = self._new_folder() / "waybill.db"
        migrate(f"sqlite:///{path}")
        assert not path.with_name("waybill.db-wal").exists(), "all of it is in the one file"
        return path

    @cached_property
    def _migrated_postgresql(self) -> str:
        url = self._postgres().new_database()
        migrate(url)
        return url

    @cached_property
    def _rows(self) -> dict[str, list[tuple[Any, ...]]]:
        return self._postgres().rows(self._migrated_postgresql)
