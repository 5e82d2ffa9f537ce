"""SQLite's write-ahead log is moved into the database beside the commits, not between them.

A checkpoint of WAL_PAGES takes a quarter of a second and more, most of it for the database's flush, and SQLite has the commit wait that
passes the bound, and all behind it. So a thread with a connection of its own moves the log, in passes: each what was logged during the one
before. The little that is left the writer moves between two commits, for only where nothing is left does SQLite begin the log anew.

SQLite flushes the database only after a pass that leaves nothing, but counts what any pass moved as moved. If such a flush failed, the
system may have let go of pages that no later pass would write again. So every pass is followed by a flush, and after any failure the
count of what was moved is set back: the whole log, from which nothing is lost before all of it is moved, is then moved once more.

POSIX lets go of all of a process's locks on a file when it closes any descriptor of it (https://sqlite.org/howtocorrupt.html, 2.2), so
the descriptors here are never closed while SQLite has those files open.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import threading
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from actors.journal.database import WAL_PAGES, WAL_PAGES_MOST, sqlite_path, writer

log = logging.getLogger(__name__)

FEW_PAGES = 64
"""So few are not worth a pass."""
REST_PAGES = 512
"""So many (8 MB) are left to the writer at most."""
PASSES = 16
AGAIN_S = 1.0
"""After a failure."""
LOGGED, MOVED = 16, 96
"""Where the header of the log's index has the number of pages in the log, and of those moved (https://sqlite.org/walformat.html)."""
NUMBER = struct.Struct("=I")


class LogMover:
    """Moves the log of one database. `between_commits`, `when_idle` and `make_durable` are called on the writer's thread."""

    def __init__(self, url: str) -> None:
        self._path = sqlite_path(url)
        self._engine: Engine = writer(url)
        self._files = _Files(self._path)
        self._moving = threading.Lock()
        self._doubtful = True  # whoever was here before may have died between a pass and its flush
        self._from = WAL_PAGES
        self._busy = False
        self._rest_is_few = False
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-mover", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._wanted.set()
        self._thread.join()

    def between_commits(self, connection: Connection) -> None:
        """Have the log moved where it has become long, move the rest of it with the writer's connection. Raises the driver's errors and
        OSError where pages that were moved could not be flushed: then the connection is suspect.
        """
        pages = self._files.pages_to_move()
        too_long = pages >= max(self._from, WAL_PAGES_MOST)
        if (self._rest_is_few or too_long) and self._moving.acquire(blocking=too_long):
            try:
                self._rest_is_few = False
                self._move(connection)
            finally:
                self._moving.release()
            self._put_off()
        elif not self._busy and pages >= self._from:
            self._begin()

    def when_idle(self) -> None:
        """Have the log moved, so that a restart reads little."""
        if not self._busy and self._files.pages_to_move() > FEW_PAGES:
            self._begin()

    def make_durable(self, connection: Connection) -> None:
        """Move all that is in the log into the database, with new writes and new flushes. Raises where not all of it can be moved.

        After a failed flush the system may hold the log's pages as clean though they are not on the disk; what is read from them
        must not be answered as done before it was written anew.
        """
        with self._moving:
            self._doubtful = True
            self._move(connection, "FULL")

    def _put_off(self) -> None:
        """Where a reader holds the log it is not moved again at once."""
        left = self._files.pages_to_move()
        self._from = left + WAL_PAGES // 4 if left >= WAL_PAGES else WAL_PAGES

    def _begin(self) -> None:
        self._busy = True
        self._wanted.set()

    def _move(self, connection: Connection, how: str = "PASSIVE") -> None:
        """Move what is in the log now, and flush it; of what readers hold nothing unless FULL. `_moving` is held."""
        if self._doubtful:
            self._files.forget_moved()
        self._doubtful = True
        raw: Any = connection.connection.driver_connection
        busy, logged, moved = raw.execute(f"PRAGMA wal_checkpoint({how})").fetchone()
        if how == "FULL" and (busy or logged != moved):
            raise DBAPIError("PRAGMA wal_checkpoint(FULL)", None, OSError("the log is held by others; it could not be made durable"))
        self._files.flush()
        self._doubtful = False

    def _run(self) -> None:
        with contextlib.ExitStack() as stack:
            connection: Connection | None = None
            while True:
                self._wanted.wait()
                self._wanted.clear()
                if self._closing.is_set():
                    return
                try:
                    connection = connection or stack.enter_context(self._engine.connect())
                    self._pass(connection)
                except Exception as error:  # nothing is lost: what is not moved stays in the log
                    log.warning("the write-ahead log cannot be moved: %s", error)
                    self._closing.wait(AGAIN_S)
                self._busy = False

    def _pass(self, connection: Connection) -> None:
        for _ in range(PASSES):
            with self._moving:
                self._move(connection)
            if self._files.pages_to_move() <= FEW_PAGES or self._closing.is_set():
                break
        self._put_off()
        self._rest_is_few = 0 < self._files.pages_to_move() <= REST_PAGES


class _Files:
    """The database and the index of its log, each behind a descriptor that stays open as long as the file is there."""

    def __init__(self, path: Any) -> None:
        self._database_path = path
        self._index_path = path.with_name(path.name + "-shm")
        self._database = -1
        self._index = -1

    def pages_to_move(self) -> int:
        """How many pages of the log are not in the database yet; 0 where there is no log."""
        if not self._there():
            return 0
        header = os.pread(self._index, MOVED + NUMBER.size, 0)
        if len(header) < MOVED + NUMBER.size:
            return 0
        logged: int = NUMBER.unpack_from(header, LOGGED)[0]
        moved: int = NUMBER.unpack_from(header, MOVED)[0]
        return max(logged - moved, 0)

    def forget_moved(self) -> None:
        """Nothing of the log counts as moved any more. Fewer than were moved is always right: pages are written again."""
        if self._there():
            os.pwrite(self._index, NUMBER.pack(0), MOVED)

    def flush(self) -> None:
        """Flush the database. Raises OSError."""
        if self._database < 0:
            self._database = os.open(self._database_path, os.O_RDWR | os.O_CLOEXEC)
        os.fdatasync(self._database)

    def _there(self) -> bool:
        """Whether the index is there and open. One that was removed, and whose descriptor may be closed, was nobody's any more."""
        if self._index >= 0 and not os.fstat(self._index).st_nlink:
            os.close(self._index)
            self._index = -1
        if self._index < 0:
            with contextlib.suppress(FileNotFoundError):
                self._index = os.open(self._index_path, os.O_RDWR | os.O_CLOEXEC)
        return self._index >= 0
