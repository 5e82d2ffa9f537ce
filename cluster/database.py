"""The database made ready before anything uses it: migrated, its number of shards fixed for ever, the shipped profiles in it."""

from __future__ import annotations

import os
import time

from sqlmodel import Session

from actors.catalog import seed
from actors.journal import archive
from actors.journal.commit import PreparedCommit, apply
from actors.journal.database import assert_durable, reader, writer
from actors.journal.migrate import migrate
from actors.journal.tables import Setting
from actors.rules.errors import DomainError
from cluster.settings import Settings, SettingsError

SHARDS = "shards"
"""Name of the row of `setting` that holds the number of shards: a tag lives where its id hashes to, so it never changes."""


def prepare(settings: Settings) -> int:
    """Migrate the database and give its number of shards, which the first use fixes; note in it where the archive lies.

    Nothing else may be writing to an SQLite file.

    Raises SettingsError where the settings ask for another number than the database has.
    """
    migrate(settings.url_text)
    wanted = settings.shards or os.cpu_count() or 1
    engine = writer(settings.url_text)
    try:
        with engine.begin() as connection:
            assert_durable(connection)
            apply(connection, [PreparedCommit(inserts=[Setting(name=SHARDS, value=str(wanted))])])  # refused where it is there
            archive.keep_root(connection, settings.archive_location)
        shards = check_shards(settings)
        profiles = seed(engine, shards, time.time_ns() // 1000)
        if profiles is not None:
            with engine.begin() as connection:
                (outcome,) = apply(connection, [profiles])
            if isinstance(outcome, DomainError):
                raise outcome
        return shards
    finally:
        engine.dispose()


def check_shards(settings: Settings) -> int:
    """Number of shards of the database. Raises SettingsError where the settings ask for another."""
    fixed = shards_of(settings)
    if settings.shards is not None and settings.shards != fixed:
        raise SettingsError(f"WAYBILL_SHARDS: this database has {fixed} shards, fixed when it was first used (got {settings.shards})")
    return fixed


def shards_of(settings: Settings) -> int:
    """Number of shards that the database was first used with."""
    engine = reader(settings.url_text)
    try:
        with Session(engine) as session:
            row = session.get(Setting, SHARDS)
    finally:
        engine.dispose()
    if row is None:
        raise SettingsError("WAYBILL_DATABASE_URL: this database was never used by Waybill")
    return int(row.value)
