"""Migrations bring an empty database to the tables of this version, and are harmless where they are done."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from actors.journal.database import writer
from actors.journal.migrate import differences, migrate
from actors.rules.errors import FailedPrecondition


def test_migrations_from_empty_give_the_tables(bare_database_url: str) -> None:
    migrate(bare_database_url)
    assert differences(bare_database_url) == []


def test_a_second_migration_changes_nothing(bare_database_url: str) -> None:
    migrate(bare_database_url)
    engine = writer(bare_database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE event_counter SET number = 7"))
    migrate(bare_database_url)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT number FROM event_counter")).scalars().all() == [7]
    engine.dispose()


def test_a_database_of_a_newer_version_is_refused(bare_database_url: str) -> None:
    migrate(bare_database_url)
    engine = writer(bare_database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(FailedPrecondition, match="newer version"):
        migrate(bare_database_url)
