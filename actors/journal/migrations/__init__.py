"""Alembic's migrations of the journal, shipped in the package; run by `actors.journal.migrate.migrate`."""
