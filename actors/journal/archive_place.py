"""Where the archive lies. Apart from what reads it (archived.py): the committer carries out what writes here, and needs no Parquet."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from actors.journal import rows
from actors.journal.tables import ArchivePart, Setting

PART, SETTING = rows.table_of(ArchivePart), rows.table_of(Setting)
ROOT = "archive"
"""Name of the row of `setting` that says where the system's archive lies. Its parts have no location of their own, so that it may move."""


def located() -> Any:
    """The column of the folder or URL below which a part's files lie."""
    root = select(SETTING.c.value).where(SETTING.c.name == ROOT).scalar_subquery()
    return func.coalesce(func.nullif(PART.c.location, ""), root, "").label("location")
