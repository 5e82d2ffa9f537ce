"""SQLite's write-ahead log is moved into the database beside the commits, not between them.

A checkpoint of WAL_PAGES takes a quarter of a second and more, most of it for the database's flush, and SQLite has the commit wait that
passes the bound, and all behind it. So a thread with a connection of its own moves the log, in passes: each what was logged during the one
before. What is left in the end the writer moves between two commits, in a few milliseconds, for only where nothing is left does SQLite
begin the log anew.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from actors.journal.database import WAL_PAGES, sqlite_path, writer

log = logging.getLogger(__name__)

FEW_PAGES = 64
"""So much is left to the writer, and is not worth a checkpoint when idle."""
PASSES = 4
AGAIN_S = 1.0
"""After a failure."""
LOGGED, MOVED = 16, 96
"""Where the header of the log's index has the number of pages in the log, and of those moved (https://sqlite.org/walformat.html)."""
NUMBER = struct.Struct("=I")


class LogMover:
    """Moves the log of one database. `between_commits` and `when_idle` are called on the writer's thread."""

    def __init__(self, url: str) -> None:
        path = sqlite_path(url)
        self._index = path.with_name(path.name + "-shm")
        self._engine = writer(url)
        self._most = WAL_PAGES
        self._wanted = threading.Event()
        self._busy = False
        self._rest_is_few = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-mover", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._wanted.set()
        self._thread.join()
        self._engine.dispose()

    def between_commits(self, connection: Connection) -> None:
        """Have the log moved where it has become long; move the rest of it with the writer's connection. Raises the driver's errors."""
        if self._rest_is_few:
            self._rest_is_few = False
            move(connection)
            self._most = max(WAL_PAGES, pages_to_move(self._index) + WAL_PAGES // 4)  # (a reader may hold it: not again at once)
        elif not self._busy and pages_to_move(self._index) >= self._most:
            self._begin()

    def when_idle(self) -> None:
        """Have the log moved, so that a restart reads little."""
        if not self._busy and pages_to_move(self._index) > FEW_PAGES:
            self._begin()

    def _begin(self) -> None:
        self._busy = True
        self._wanted.set()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._closing.is_set():
                return
            try:
                with self._engine.connect() as connection:
                    for _ in range(PASSES):
                        move(connection)
                        if pages_to_move(self._index) <= FEW_PAGES:
                            break
                self._rest_is_few = pages_to_move(self._index) > 0
            except Exception as error:  # nothing depends on it: what is not moved stays in the log
                log.warning("the write-ahead log cannot be moved: %s", error)
                self._closing.wait(AGAIN_S)
            self._busy = False


def move(connection: Connection) -> None:
    """Move what is in the log now, but what readers hold, into the database."""
    raw: Any = connection.connection.driver_connection
    raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def pages_to_move(index: Path) -> int:
    """How many pages of the log are not in the database yet; 0 where there is no log."""
    try:
        file = os.open(index, os.O_RDONLY)
    except FileNotFoundError:
        return 0
    try:
        header = os.pread(file, MOVED + NUMBER.size, 0)
    finally:
        os.close(file)
    if len(header) < MOVED + NUMBER.size:
        return 0
    logged: int = NUMBER.unpack_from(header, LOGGED)[0]
    moved: int = NUMBER.unpack_from(header, MOVED)[0]
    return max(logged - moved, 0)
