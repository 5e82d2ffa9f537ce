"""When a shard's state is stored, so that a successor replays little of the journal: and never one that the journal refused."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager

from actors.directory import now_us
from actors.journal import snapshot
from actors.journal.prepared import CommitResult, PreparedCommit
from actors.rules.errors import DomainError

log = logging.getLogger("waybill.shard")

READING_BYTES = 18
"""About what a reading of temperature and position takes in the journal."""
PATIENCE_S = 60.0
AGAIN_S = 5.0
"""Pause after a snapshot that could not be stored."""


class Snapshots:
    """Of one shard: one is due after so many readings or so many entries since the newest; where that is large, after as many readings
    as took about as much to journal, so that snapshots are not most of what is written. Its methods are called with the state lock
    held; the writing is done on a thread. `commit` waits until rows are durable.
    """

    def __init__(
        self,
        shard: int,
        readings_most: int,
        entries_most: int,
        lock: AbstractContextManager[object],
        commit: Callable[[PreparedCommit], object],
    ) -> None:
        self.readings = 0
        """Judged since the newest one."""
        self.at = 0
        """The journal entry after which the newest one stands."""
        self.size = 0
        """Its bytes."""
        self._shard, self._lock, self._commit = shard, lock, commit
        self._readings_most, self._entries_most = readings_most, entries_most
        self._under_way = False
        self._not_before = 0.0  # monotonic

    def due(self, sequence: int) -> bool:
        """Whether one should be taken at a journal entry."""
        much = self.readings >= max(self._readings_most, self.size // READING_BYTES) or sequence - self.at >= self._entries_most
        return much and not self._under_way and time.monotonic() >= self._not_before

    def take(self, epoch: int, sequence: int, state: bytes, pending: list[Future[CommitResult]]) -> None:
        """Store the state after an entry, once that entry and all `pending` with it are durable."""
        self._under_way = True
        before = self.readings, self.at, self.size
        self.readings, self.at, self.size = 0, sequence, len(state)
        saving = threading.Thread(target=self._save, args=(epoch, sequence, state, pending, before), name="snapshot", daemon=True)
        try:
            saving.start()
        except RuntimeError:  # no more threads: later, perhaps
            self.readings, self.at, self.size = before
            self._under_way, self._not_before = False, time.monotonic() + AGAIN_S
            raise

    def _save(self, epoch: int, sequence: int, state: bytes, pending: list[Future[CommitResult]], before: tuple[int, int, int]) -> None:
        try:
            for future in pending:
                future.result(PATIENCE_S)
            for commit in snapshot.save(self._shard, epoch, sequence, state, now_us()):
                self._commit(commit)
        except (DomainError, TimeoutError) as error:
            log.warning("shard %d: no snapshot this time: %s", self._shard, error)
            with self._lock:  # what was due is due again
                self.readings += before[0]
                self.at, self.size = min(self.at, before[1]), before[2]
                self._not_before = time.monotonic() + AGAIN_S
        finally:
            self._under_way = False
