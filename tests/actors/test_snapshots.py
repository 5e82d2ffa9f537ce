"""A snapshot is due after so many readings or entries; a large one after as many readings as take as much to journal."""

from __future__ import annotations

import threading

import pytest

from actors import snapshots as snapshots_module
from actors.journal.prepared import PreparedCommit
from actors.rules.errors import Unavailable
from actors.snapshots import READING_BYTES, Snapshots


@pytest.fixture
def stored() -> list[PreparedCommit]:
    return []


@pytest.fixture
def snapshots(stored: list[PreparedCommit]) -> Snapshots:
    return Snapshots(0, 1_000, 50, threading.RLock(), stored.append)


def taken(snapshots: Snapshots, sequence: int, size: int) -> None:
    """A snapshot of so many bytes stands after an entry."""
    snapshots.take(1, sequence, bytes(size), [])
    for thread in threading.enumerate():
        if thread.name == "snapshot":
            thread.join(30)


@pytest.mark.parametrize(("readings", "entries", "due"), [(999, 49, False), (1_000, 1, True), (1, 50, True)])
def test_one_is_due_after_so_many_readings_or_entries(snapshots: Snapshots, readings: int, entries: int, due: bool) -> None:
    snapshots.readings = readings
    assert snapshots.due(entries) == due


def test_after_a_large_one_the_next_is_due_when_as_much_was_journaled(snapshots: Snapshots, stored: list[PreparedCommit]) -> None:
    taken(snapshots, 7, 3_000 * READING_BYTES)
    assert [commit.snapshot[0].sequence for commit in stored] == [7]
    snapshots.readings = 2_999
    assert not snapshots.due(8)
    snapshots.readings = 3_000
    assert snapshots.due(8)
    taken(snapshots, 8, 10)
    snapshots.readings = 1_000
    assert snapshots.due(9), "a small one waits for no more than is set"


def test_one_that_was_large_is_due_by_its_entries_all_the_same(snapshots: Snapshots) -> None:
    taken(snapshots, 7, 3_000 * READING_BYTES)
    assert snapshots.due(57)


def test_one_that_could_not_be_stored_is_due_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(commit: PreparedCommit) -> None:
        raise Unavailable("the disk is full")

    monkeypatch.setattr(snapshots_module, "AGAIN_S", 0.0)
    failing = Snapshots(0, 1_000, 50, threading.RLock(), refuse)
    failing.readings = 1_000
    taken(failing, 7, 3_000 * READING_BYTES)
    assert failing.due(8)
