"""An owner whose heartbeat stands still is ended; nobody else is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from actors.journal import fence
from actors.journal.database import writer
from actors.journal.migrate import migrate
from cluster.owners import Owners, start_ticks
from cluster.settings import load

SECOND_US = 1_000_000
ACQUIRED_US = 4_000_000_000_000_000  # later than any process started


class Owner:
    """A process that owns shard 0 and may send heartbeats through a connection of ours."""

    def __init__(self, url: str) -> None:
        self.engine = writer(url)
        self.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
        self.started_us = int(psutil.Process(self.process.pid).create_time() * SECOND_US)

    def acquire(self, pid_started: str | None = None, acquired_us: int = ACQUIRED_US, node: str = "") -> None:
        claimant = fence.Claimant(self.process.pid, node, "", start_ticks(self.process.pid) if pid_started is None else pid_started)
        with self.engine.begin() as connection:
            self.epoch = fence.acquire(connection, 0, claimant, acquired_us).epoch

    def heartbeat(self, now_us: int) -> None:
        with self.engine.begin() as connection:
            fence.heartbeat(connection, 0, self.epoch, now_us)

    def runs(self) -> bool:
        return self.process.poll() is None


@pytest.fixture
def owner(database_url: str) -> Iterator[Owner]:
    migrate(database_url)
    owner = Owner(database_url)
    yield owner
    owner.process.kill()
    owner.process.wait()
    owner.engine.dispose()


class Watch:
    """Owners, with a clock that the test moves."""

    def __init__(self, url: str, folder: Path) -> None:
        self.now_s = 1000.0
        self.owners = Owners(load({}, database_url=url, data_dir=folder, owner_timeout_s=15), clock=lambda: self.now_s)

    def after(self, seconds: float) -> list[int]:
        self.now_s += seconds
        return [overdue.shard for overdue in self.owners.overdue()]


@pytest.fixture
def watch(owner: Owner, database_url: str, tmp_path: Path) -> Iterator[Watch]:
    watch = Watch(database_url, tmp_path)
    yield watch
    watch.owners.close()


def test_an_owner_that_beats_is_left_alone(owner: Owner, watch: Watch) -> None:
    owner.acquire()
    for second in range(5):
        owner.heartbeat(ACQUIRED_US + second * 10 * SECOND_US)
        assert watch.after(10) == []


def test_an_owner_that_stops_beating_is_ended_after_the_time_of_the_setting(owner: Owner, watch: Watch) -> None:
    owner.acquire()
    assert watch.after(0) == []
    assert watch.after(15) == []
    assert watch.after(0.1) == [0]
    assert watch.owners.overdue()[0].end()
    assert owner.process.wait(5) < 0


def test_a_database_that_was_away_condemns_nobody(owner: Owner, watch: Watch) -> None:
    owner.acquire()
    watch.after(0)
    watch.owners.forget()
    assert watch.after(20) == []


def test_a_process_that_has_the_pid_of_a_dead_owner_is_left_alone(owner: Owner, watch: Watch) -> None:
    owner.acquire(pid_started=str(int(start_ticks(owner.process.pid)) - 5000))
    watch.after(0)
    assert watch.after(20) == [0]
    assert not watch.owners.overdue()[0].end()
    assert owner.runs()


def test_a_process_younger_than_the_ownership_is_left_alone(owner: Owner, watch: Watch) -> None:
    owner.acquire(pid_started="", acquired_us=owner.started_us - 50 * SECOND_US)
    watch.after(0)
    watch.after(20)
    assert not watch.owners.overdue()[0].end()
    assert owner.runs()


def test_an_owner_on_another_machine_is_not_ours_to_end(owner: Owner, watch: Watch) -> None:
    owner.acquire(node="elsewhere")
    watch.after(0)
    watch.after(20)
    assert not watch.owners.overdue()[0].end()
    assert owner.runs()
