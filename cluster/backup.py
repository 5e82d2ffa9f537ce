"""A backup of the database while it is in use, and its return while nothing runs. The database is all there is to keep.

SQLite: the online backup of SQLite itself, a consistent state of one moment, checked before it counts. PostgreSQL: `pg_dump` and
`pg_restore`, which must be on PATH (for large databases use base backups with archived write-ahead log; see docs/runbook.md).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL

from cluster.settings import Settings

CHUNK = 1 << 20
SQLITE_MAGIC = b"SQLite format 3\0"
PG_MAGIC = b"PGDMP"
PATIENCE_S = 6 * 3600.0


class BackupError(Exception):
    """It cannot be done; the text says why and what to do."""


@dataclass(frozen=True)
class Facts:
    """What a backup holds. events: the number of the newest one; heads: the newest journal entry of each shard."""

    bytes: int
    sha256: str
    events: int | None
    heads: dict[int, int]


def backup(settings: Settings, file: Path, *, replace: bool = False) -> Facts:
    """Write the database's present state to a file; readings go on being taken. Raises BackupError, with nothing left behind."""
    if file.exists() and not replace:
        raise BackupError(f"{file} is there already; --replace replaces it")
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    part.unlink(missing_ok=True)
    try:
        if settings.is_sqlite:
            _copy_sqlite(Path(settings.url.database or ""), part)
        else:
            _run(["pg_dump", "--format=custom", "--file", str(part), *_connection(settings.url)], settings.url)
        found = check(part)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)
    return found


def check(file: Path) -> Facts:
    """Whether a file is a backup that can be restored, and what it holds. Raises BackupError."""
    try:
        with file.open("rb") as content:
            magic = content.read(len(SQLITE_MAGIC))
            content.seek(0)
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise BackupError(f"{file}: {error.strerror}") from None
    size = file.stat().st_size
    if magic.startswith(PG_MAGIC):
        _run(["pg_restore", "--list", str(file)], None)
        return Facts(size, digest, None, {})
    if magic != SQLITE_MAGIC:
        raise BackupError(f"{file} is no backup of Waybill: neither an SQLite file nor an archive of pg_dump")
    with _opened(file) as database:
        try:
            said = database.execute("PRAGMA integrity_check").fetchone()[0]
            if said != "ok":
                raise BackupError(f"{file} is damaged: {said}")
            events = database.execute("SELECT COALESCE(MAX(number), 0) FROM event_counter").fetchone()[0]
            heads = dict(database.execute("SELECT shard, journal_head FROM shard_owner ORDER BY shard").fetchall())
        except sqlite3.Error as error:
            raise BackupError(f"{file} is no database of Waybill: {error}") from None
    return Facts(size, digest, int(events), heads)


def restore(settings: Settings, file: Path, *, replace: bool = False) -> tuple[Facts, Path | None]:
    """Put a backup back in the place of the database; what was there is moved aside (SQLite) or must be empty (PostgreSQL).

    Gives what was restored, and where the old file went. Raises BackupError; then what was there is untouched.
    """
    found = check(file)
    if settings.is_sqlite == (found.events is None):
        raise BackupError(f"{file} is a backup of {'PostgreSQL' if found.events is None else 'SQLite'}, and the settings name the other")
    with _alone(settings):
        if not settings.is_sqlite:
            flags = ["--clean", "--if-exists"] if replace else []
            _run(
                ["pg_restore", "--exit-on-error", "--single-transaction", "--no-owner", *flags, *_connection(settings.url), str(file)],
                settings.url,
            )
            return found, None
        place = Path(settings.url.database or "")
        if place.exists() and not replace:
            raise BackupError(f"{place} is there already; --replace moves it aside and takes the backup")
        part = place.with_name(f"{place.name}.restoring")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, part)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        aside = _aside(place) if place.exists() else None
        os.replace(part, place)
        return found, aside


def _aside(place: Path) -> Path:
    """Moves a database with its log away, and says where to."""
    aside = place.with_name(f"{place.name}.before-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}")
    for ending in ("-wal", "-shm", ""):  # the log first: a database without its log would be another one
        piece = place.with_name(place.name + ending)
        if piece.exists():
            os.replace(piece, aside.with_name(aside.name + ending))
    return aside


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Hold the data folder as a running Waybill does, so that none starts meanwhile. Raises BackupError where one runs."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with open(settings.data_dir / "lock", "a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise BackupError(f"a Waybill runs in {settings.data_dir} (process {lock.read().strip()}): end it first") from None
        yield


# ---------------------------------------------------------------- the two databases


def _copy_sqlite(source: Path, target: Path) -> None:
    if not source.is_file():
        raise BackupError(f"{source}: there is no database")
    try:
        with _opened(source) as live, closing(sqlite3.connect(target)) as copy:
            live.backup(copy)  # all of it under one read lock, which a write-ahead log does not wait for
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
    except sqlite3.Error as error:
        raise BackupError(f"{source}: {error}") from None


@contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=60)) as database:
        yield database


def _connection(url: URL) -> list[str]:
    """Options of PostgreSQL's programs; the password goes by the environment."""
    given = {"--host": url.host, "--port": url.port, "--username": url.username, "--dbname": url.database}
    return [f"{name}={value}" for name, value in given.items() if value]


def _run(command: list[str], url: URL | None) -> None:
    environment = {**os.environ, **({"PGPASSWORD": str(url.password)} if url is not None and url.password else {})}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except FileNotFoundError:
        raise BackupError(f"{command[0]} is not on PATH: install PostgreSQL's client programs (of the server's version or newer)") from None
    except subprocess.TimeoutExpired:
        raise BackupError(f"{command[0]} did not end within {PATIENCE_S / 3600:g} hours") from None
    if done.returncode:
        raise BackupError(f"{command[0]}: {(done.stderr or done.stdout).strip()[-800:]}")
