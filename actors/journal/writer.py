"""The group writer: takes what waits, writes it in one transaction, answers after COMMIT has returned.

It is the heart of the SQLite committer (one for all shards) and of each shard's own writer on PostgreSQL.

After an error of the connection or the disk the outcome is unknown. It never answers from that connection again: it
closes it, opens another, makes sure that what is read there is on the disk, and applies the group once more; what had been applied is
recognised by (shard, sequence) or by its commit key. Where that fails too, the callers are told: storage full or unavailable.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError

from actors.journal import rows
from actors.journal.commit import apply
from actors.journal.database import assert_durable, writer
from actors.journal.prepared import PreparedCommit
from actors.rules.errors import DomainError, StorageFull, Unavailable

log = logging.getLogger(__name__)

GROUP_BYTES = 32 * 1024 * 1024
GROUP_COMMITS = 512
"""One transaction takes at most so much of what waits: it bounds how long the first in it waits for the last."""

TRANSACTION_BYTES = 64 * 1024
"""About what a transaction writes besides what it was given: some pages."""

INBOX_BYTES = 256 * 1024 * 1024
"""So much may wait; then `submit` blocks, and with it whoever sends."""

PATIENCE_S = 10.0
FIRST_PAUSE_S = 0.05
"""For so long a group is tried again on new connections, with pauses that double up to a second."""

REST_S = 0.5
"""When nothing has come for so long, what was left for a pause is done."""

RETRY_S = 1.0
"""When a caller whose commit could not be written may come again."""

FULL_RETRY_S = 2.0
"""The same, where the database cannot grow: soon, so that all goes on within seconds of room being made."""


@dataclass(slots=True)
class Call:
    """A function to run inside a writing transaction, such as fence.acquire: function(connection, *arguments)."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


Payload: TypeAlias = PreparedCommit | Call
Done: TypeAlias = Callable[[Any], None]
"""Told the outcome: a CommitResult, what the function returned, or the exception that refused it."""


def size_of(payload: Payload) -> int:
    """About how many bytes a request holds."""
    if isinstance(payload, Call):
        return 1_000
    blobs = sum(len(part.blob) for part in payload.snapshot) + (len(payload.journal.blob) if payload.journal else 0)
    return 1_000 + blobs + 500 * (len(payload.upserts) + len(payload.excursions) + len(payload.events))


class GroupWriter:
    """Owns one writing connection and the thread that uses it. Requests are applied in the order in which they are submitted."""

    def __init__(self, url: str, name: str = "journal-writer", idle: Callable[[Connection, bool], None] | None = None) -> None:
        """idle(connection, rested) is called outside a transaction when nothing waits, and once more when nothing has come for REST_S."""
        self._engine: Engine = writer(url)
        self._connection: Connection | None = None
        self._idle = idle
        self._inbox: deque[tuple[Payload, Done, int]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        self._suspect = False
        self.bytes_written = 0  # about, since the start
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, payload: Payload, done: Done) -> None:
        """Queue a request; `done` is called from the writer's thread. Blocks while too much waits. Raises Unavailable once closed."""
        size = size_of(payload)
        with self._changed:
            while self._bytes > INBOX_BYTES and not self._closing:
                self._changed.wait()
            if self._closing:
                raise Unavailable("the journal's writer is closed", retry_after_s=RETRY_S)
            self._inbox.append((payload, done, size))
            self._bytes += size
            self._changed.notify_all()

    def close(self) -> None:
        """Write what waits, then end the thread and close the connection."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException:  # without its thread a writer would answer nobody, for ever: whoever watches the process starts another
            log.critical("the writer cannot go on", exc_info=True)
            os._exit(5)

    def _work(self) -> None:
        while group := self._take():
            outcomes = self._write([payload for payload, _, _ in group])
            with self._changed:
                self._bytes -= sum(size for _, _, size in group)
                self._changed.notify_all()
            for (_, done, _), outcome in zip(group, outcomes, strict=True):
                done(outcome)
        self._drop()
        self._engine.dispose()

    def _take(self) -> list[tuple[Payload, Done, int]]:
        """What waits, within the bounds of a group; empty when closed and done."""
        idle = 0 if self._idle is None else 2  # at once, and when it has rested for a while
        while True:
            with self._changed:
                if not self._inbox and not self._closing and idle < 2:
                    self._changed.wait(REST_S if idle else None)
                if self._inbox:
                    group, total = [self._inbox.popleft()], 0
                    while self._inbox and len(group) < GROUP_COMMITS and total + self._inbox[0][2] <= GROUP_BYTES:
                        group.append(self._inbox.popleft())
                        total += group[-1][2]
                    return group
                if self._closing:
                    return []
            if idle and self._idle is not None and self._connection is not None:
                try:
                    self._idle(self._connection, idle == 1)
                except Exception as error:  # the driver's own errors too: a checkpoint speaks with it directly
                    log.error("between commits: %r", error)
                    self._drop(suspect=True)
            idle = max(idle - 1, 0)

    def _write(self, payloads: list[Payload], until: float | None = None) -> list[Any]:
        """Write a group, on new connections for as long as patience lasts (one patience for all of it); a group that fails twice by
        itself, one by one."""
        failures = 0
        until = time.monotonic() + PATIENCE_S if until is None else until
        pause = FIRST_PAUSE_S
        while True:
            connected = False
            try:
                connection = self._connected()
                connected = True
                return self._transaction(connection, payloads)
            except Exception as error:  # the thread must outlive a fault in our own code as well; the callers are told
                log.error("writing %d commits: %r", len(payloads), error, exc_info=not isinstance(error, DBAPIError))
                failure = _as_failure(error)
                self._drop(suspect=isinstance(error, (DBAPIError, OSError)) and not isinstance(failure, StorageFull))
            failures += connected
            if isinstance(failure, StorageFull) or time.monotonic() > until:
                break
            if failures >= 2:
                if len(payloads) == 1:
                    break
                return [self._write([payload], until)[0] for payload in payloads]
            time.sleep(pause)
            pause = min(2 * pause, 1.0)
        return [failure] * len(payloads)

    def _transaction(self, connection: Connection, payloads: list[Payload]) -> list[Any]:
        """Apply all in one transaction. Commits that follow each other go together; a call stands between them where it came."""
        outcomes: list[Any] = []
        with connection.begin():
            run: list[PreparedCommit] = []
            for payload in payloads:
                if isinstance(payload, PreparedCommit):
                    run.append(payload)
                    continue
                outcomes += apply(connection, run) if run else []
                run = []
                outcomes.append(_call(connection, payload))
            outcomes += apply(connection, run) if run else []
        self.bytes_written += TRANSACTION_BYTES + sum(size_of(payload) for payload in payloads)
        return outcomes

    def _connected(self) -> Connection:
        if self._connection is None:
            connection = self._engine.connect()
            try:
                assert_durable(connection)
                connection.rollback()
                if self._suspect and connection.dialect.name == "sqlite":
                    _make_durable(connection)
            except BaseException:
                connection.invalidate()
                raise
            self._connection, self._suspect = connection, False
        return self._connection

    def _drop(self, suspect: bool = False) -> None:
        """Let go of the connection. `suspect`: what it last wrote may be visible without being on the disk."""
        self._suspect |= suspect
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.invalidate() if suspect else connection.close()
        except Exception as error:
            log.warning("closing the writing connection: %s", error)


def _call(connection: Connection, call: Call) -> Any:
    try:
        with rows.savepoint(connection):
            return call.function(connection, *call.arguments)
    except DomainError as refused:
        return refused
    except IntegrityError as refused:
        return rows.as_domain_error(refused)


def _make_durable(connection: Connection) -> None:
    """Move all that SQLite recovered from its log into the database file, with new writes and new flushes, and begin the log anew.

    After a failed flush the system may hold the log's pages as clean though they are not on the disk; what is read from them
    must not be answered as done before it was written anew, and nothing be logged behind them: recovery would stop there.
    """
    raw = connection.connection.driver_connection
    assert raw is not None
    busy, _, _ = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise DBAPIError("PRAGMA wal_checkpoint(TRUNCATE)", None, OSError("a reader holds the log; it could not be made durable"))


def _as_failure(error: Exception) -> DomainError:
    cause = error.orig if isinstance(error, DBAPIError) else error
    text, state = str(cause), getattr(cause, "sqlstate", None)
    if "is full" in text or "disk full" in text or state == "53100":
        return StorageFull("the database cannot grow; nothing was taken", retry_after_s=FULL_RETRY_S)
    return Unavailable(f"the database cannot be written: {text.splitlines()[0] if text else cause!r}", retry_after_s=RETRY_S)
