"""Bringing a database to the schema of this version, from empty or from any earlier one."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from actors.journal.database import sqlite_path, writer
from actors.journal.tables import metadata
from actors.rules.errors import FailedPrecondition

MIGRATIONS = Path(__file__).with_name("migrations")

logging.getLogger("alembic").setLevel(logging.WARNING)

MIGRATION_LOCK = 7_208_541
"""Key of PostgreSQL's advisory lock that lets one process migrate at a time."""


def configuration(connection: Connection | None = None) -> Config:
    """Alembic's configuration, without a file: the scripts are in the package, the connection is given."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def migrate(url: str, revision: str = "head") -> None:
    """Create the database's tables or bring them up to date; without effect where they are.

    All of it happens in one transaction. On SQLite no committer may be running on the file.
    Raises FailedPrecondition where a newer version of Waybill has written the database.
    """
    engine = writer(url)
    if engine.dialect.name == "sqlite":
        sqlite_path(url).parent.mkdir(parents=True, exist_ok=True)
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SET LOCAL lock_timeout = '60s'"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            current = MigrationContext.configure(connection).get_current_revision()
            revisions = _revisions()
            if current is not None and current not in revisions:
                raise FailedPrecondition("was written by a newer version of Waybill", field="database", value=current)
            if revision != "head" or current != revisions[0]:
                command.upgrade(configuration(connection), revision)
    finally:
        engine.dispose()


@cache
def _revisions() -> list[str]:
    """All revisions that this version knows, newest first; read once, for it takes longer than looking whether there is anything to do."""
    return [script.revision for script in ScriptDirectory.from_config(configuration()).walk_revisions()]


def differences(url: str) -> list[Any]:
    """Where the database's schema differs from the tables of this version; empty after `migrate`."""
    engine = writer(url)
    try:
        with engine.connect() as connection:
            found: list[Any] = compare_metadata(MigrationContext.configure(connection), metadata)
            return found
    finally:
        engine.dispose()
