"""A client, a store and an archive of the session's Waybill."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from actors.journal.store import Store, open_store
from cluster.archive import run as archive_run
from cluster.archive.filesystem import Place
from cluster.archive.run import Account
from tests.acceptance.conftest import client

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.boot import Running

__all__ = ["client"]


@pytest.fixture(scope="session")
def store(waybill: Running) -> Iterator[Store]:
    """The way to its database."""
    made = open_store(waybill.settings.url_text)
    yield made
    made.close()


@pytest.fixture
def archive(store: Store, tmp_path: Path) -> Callable[..., tuple[Place, Account]]:
    """Archive some shipments into a folder of the test: (the folder, the account)."""

    def run(*shipments: str, **options: object) -> tuple[Place, Account]:
        place = Place.of(tmp_path / "archive")
        return place, archive_run.run(store, place, 1 << 60, lambda: time.time_ns() // 1000, only=frozenset(shipments), **options)  # type: ignore[arg-type]

    return run
