"""Engines: how each role connects to the database, with the settings that the journal's promises rest on.

SQLite: one writing connection (the committer's) with WAL and synchronous=FULL, asserted; readers can only read and never checkpoint.
PostgreSQL: a writing connection holds its locks for at most three seconds while it does nothing, and waits at most five for one. The
server looks after eleven seconds whether the other end is still there: a node whose cable was cut holds nothing longer.
"""

from __future__ import annotations

from contextlib import ContextDecorator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from sqlalchemy.pool import NullPool, QueuePool

from actors.journal.columns import dumps
from actors.rules.errors import Unavailable

LOCK_TIMEOUT_MS = 5_000
"""How long a writer waits for a lock."""

IDLE_TIMEOUT_MS = 3_000
"""How long PostgreSQL lets a writer sit idle inside a transaction: shorter, so that who waits for a frozen one gets the lock."""

PAGE_BYTES = 16_384
"""Of a new database; blobs are long."""
WAL_BYTES = 24 << 20
"""The committer moves the write-ahead log into the database after so much of it, or when idle. The commit that passes it waits
for the flushes of both files, and all behind it."""

FULL = 2
"""Value of SQLite's PRAGMA synchronous that makes a commit durable before COMMIT returns."""


def parse(url: str) -> URL:
    """The SQLAlchemy URL of a database, with the driver that Waybill uses. Raises ValueError for anything else."""
    parsed = make_url(url)
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ValueError("a SQLite database must be a file: its readers and its writer are different processes")
        return parsed.set(drivername="sqlite+pysqlite")
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    raise ValueError(f"database {backend!r} is not supported: use sqlite or postgresql")


def is_sqlite(url: str) -> bool:
    """Whether the database is a SQLite file."""
    return parse(url).get_backend_name() == "sqlite"


def sqlite_path(url: str) -> Path:
    """The file of a SQLite database."""
    return Path(parse(url).database or "").absolute()


def reader(url: str, *, connections: int = 4) -> Engine:
    """An engine that can only read. Each transaction sees one state of the database."""
    parsed = parse(url)
    if parsed.get_backend_name() == "sqlite":
        uri = f"file:{quote(str(sqlite_path(url)))}"
        parsed = URL.create("sqlite+pysqlite", database=uri, query={"mode": "ro", "uri": "true"})
        arguments: dict[str, Any] = {"isolation_level": None, "check_same_thread": False, "timeout": LOCK_TIMEOUT_MS / 1000}
        engine = create_engine(
            parsed, connect_args=arguments, poolclass=QueuePool, pool_size=connections, max_overflow=connections, json_serializer=dumps
        )
        event.listen(engine, "connect", _sqlite_reader)
        event.listen(engine, "begin", _begin)
        return engine
    options = "-c default_transaction_read_only=on -c default_transaction_isolation=repeatable\\ read"
    return create_engine(
        parsed,
        connect_args={"options": options, "connect_timeout": 5},
        pool_size=connections,
        max_overflow=connections,
        pool_pre_ping=True,
        json_serializer=dumps,
    )


def writer(url: str) -> Engine:
    """An engine for one writing connection. On SQLite it is the committer's alone; every transaction begins IMMEDIATE."""
    parsed = parse(url)
    if parsed.get_backend_name() == "sqlite":
        arguments: dict[str, Any] = {"isolation_level": None, "check_same_thread": False, "timeout": LOCK_TIMEOUT_MS / 1000}
        engine = create_engine(parsed, connect_args=arguments, poolclass=NullPool, json_serializer=dumps)
        event.listen(engine, "connect", _sqlite_writer)
        event.listen(engine, "begin", _begin_immediate)
        return engine
    options = (
        f"-c lock_timeout={LOCK_TIMEOUT_MS} -c idle_in_transaction_session_timeout={IDLE_TIMEOUT_MS} "
        "-c synchronous_commit=on -c default_transaction_isolation=read\\ committed "
        "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3 -c tcp_user_timeout=10000"
    )
    from actors.journal.watched_cursor import WatchedCursor  # psycopg is slow to load, and not used on SQLite

    arguments = {"options": options, "connect_timeout": 5, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
    arguments["cursor_factory"] = WatchedCursor
    return create_engine(parsed, connect_args=arguments, poolclass=NullPool, json_serializer=dumps)


def assert_durable(connection: Connection) -> None:
    """Raise RuntimeError unless COMMIT on this connection is durable when it returns."""
    if connection.dialect.name == "sqlite":
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        synchronous = connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
        if mode != "wal" or synchronous != FULL:
            raise RuntimeError(f"the writing connection is not durable: journal_mode={mode}, synchronous={synchronous}")
    elif connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "off":
        raise RuntimeError("the writing connection is not durable: synchronous_commit=off")


class reachable(ContextDecorator):
    """Within it, a database that is away (killed, starting, out of connections, a disk that fails) raises Unavailable."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _where: object) -> Literal[False]:
        if isinstance(error, (OperationalError, InterfaceError, NoConnectionFree)):
            raise Unavailable("the database does not answer", retry_after_s=0.5) from error
        return False


def _sqlite_reader(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA query_only=ON")
    connection.execute("PRAGMA wal_autocheckpoint=0")


def _sqlite_writer(connection: Any, _record: Any) -> None:
    connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    connection.execute(f"PRAGMA wal_autocheckpoint={WAL_BYTES // page_bytes}")
    connection.execute("PRAGMA journal_size_limit=134217728")  # a log that grew while a reader held it shrinks again
    connection.execute("PRAGMA cache_size=-65536")
    connection.execute("PRAGMA temp_store=MEMORY")  # what a savepoint may restore went through a file that nobody needs after a crash


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
