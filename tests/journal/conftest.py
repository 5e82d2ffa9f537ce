"""What the journal's tests share: a migrated database of either kind, its store, and ways to make rows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from actors.journal import fence
from actors.journal.commit import JournalEntry, PreparedCommit
from actors.journal.committer import READY, Committer, lock
from actors.journal.database import is_sqlite
from actors.journal.migrate import migrate
from actors.journal.store import Store, open_store
from actors.journal.tables import Excursion, ShardOwner

NOW_US = 1_700_000_000_000_000


def start_committer(url: str) -> subprocess.Popen[str]:
    """A committer process of its own, ready for clients."""
    command = [sys.executable, "-m", "actors.journal.committer", "--url", url, "--parent", str(os.getpid())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == READY
    return process


@contextmanager
def serving(url: str) -> Iterator[None]:
    """What has to run so that the database can be written."""
    if not is_sqlite(url):
        migrate(url)
        yield
        return
    held = lock(url)
    migrate(url)
    committer = Committer(url)  # in this process: a process of its own takes a second to start (test_committer.py has those)
    try:
        yield
    finally:
        committer.close()
        os.close(held)


@pytest.fixture
def database(database_url: str) -> Iterator[str]:
    """URL of a migrated database that can be written."""
    with serving(database_url):
        yield database_url


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    """A store on it."""
    opened = open_store(database)
    yield opened
    opened.close()


@pytest.fixture
def owner(store: Store) -> ShardOwner:
    """Shard 0, taken."""
    return take(store, 0)


def take(store: Store, shard: int) -> ShardOwner:
    return store.write(fence.acquire, shard, fence.Claimant(pid=os.getpid()), NOW_US).result(20)


@pytest.fixture
def write(store: Store, owner: ShardOwner) -> Callable[..., object]:
    """Commit rows under shard 0's fence, without a journal entry, and wait for the result."""

    def commit(**parts: object) -> object:
        return store.commit(PreparedCommit(shard=0, epoch=owner.epoch, now_us=NOW_US, **parts)).result(20)  # type: ignore[arg-type]

    return commit


def entry(sequence: int, blob: bytes = b"readings", **more: int) -> JournalEntry:
    return JournalEntry(sequence=sequence, kind="readings", blob=blob, received_us=NOW_US, worker="a test", **more)


def excursion(number: int, **stated: object) -> Excursion:
    told: dict[str, object] = {
        "excursion_id": number, "shard": 0, "tag_id": f"T{number}", "carrier": "shipment/S1", "custody_id": number, "limit_id": "above-8",
        "threshold": 8.0, "metric": "temperature_c", "started_us": 1_000 * number, "triggered_us": 1_000 * number, "extreme": 9.0,
        "extreme_us": 1_000 * number, "readings": 1,
    }  # fmt: skip
    return Excursion(**{**told, **stated})
