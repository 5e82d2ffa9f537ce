"""What Alembic runs: the connection comes from `migrate`, the wanted schema from the tables."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from sqlmodel.sql.sqltypes import AutoString

from actors.journal.tables import metadata


def render(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """Write new migrations with SQLAlchemy's names alone, so that they outlive what the tables are made with."""
    return "sa.String()" if kind == "type" and isinstance(item, AutoString) else False


connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=connection.dialect.name == "sqlite", render_item=render)
context.run_migrations()
