"""Tables of the archive's manifest: which Parquet files count, what lies where in them, and what the journal has given up for them.

Import them from `actors.journal.tables`, which states the conventions. A file that no row names is an orphan: nobody reads it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Index
from sqlmodel import Field

from actors.journal.columns import Row


class ArchivePart(Row, table=True):
    """One file of the same name in each dataset of the archive: whole journeys that closed in one month. Parts never change."""

    part_id: str = Field(primary_key=True)
    location: str  # folder or URL of the archive; "": the system's own (Setting "archive"), which may move
    month: str  # "2026-01"
    made_us: int = Field(default=0, sa_type=BigInteger)
    carriers: int = 0
    readings: int = Field(default=0, sa_type=BigInteger)
    software: str = ""
    files: list[dict[str, Any]] = Field(default_factory=list, sa_type=JSON)  # {dataset, name, rows, bytes, sha256}


class ArchivedCarrier(Row, table=True):
    """A carrier whose journey is in the archive, as of event `last_event`; `stale`: something of it came afterwards."""

    carrier: str = Field(primary_key=True)
    part_id: str = Field(index=True)
    closed_us: int = Field(default=0, sa_type=BigInteger)
    archived_us: int = Field(default=0, sa_type=BigInteger)
    readings: int = Field(default=0, sa_type=BigInteger)
    last_event: int = Field(default=0, sa_type=BigInteger)
    stale: bool = False


class ArchivedCustody(Row, table=True):
    """Where a custody's readings lie: rows first_row … first_row + readings - 1 of its part's file of readings."""

    __table_args__ = (Index(None, "shard", "local_index"), Index(None, "part_id"))

    custody_id: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    part_id: str
    carrier: str
    shard: int
    local_index: int  # the tag's, in its shard's journal
    from_us: int = Field(sa_type=BigInteger)
    until_us: int = Field(sa_type=BigInteger)
    first_row: int = Field(default=0, sa_type=BigInteger)
    readings: int = Field(default=0, sa_type=BigInteger)


class JournalRetained(Row, table=True):
    """How far a shard's journal was looked through for readings of archived journeys; up to which entry the archive alone has readings."""

    shard: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    scanned_sequence: int = Field(default=0, sa_type=BigInteger)
    dropped_sequence: int = Field(default=0, sa_type=BigInteger)
    dropped_us: int = Field(default=0, sa_type=BigInteger)


class Replay(Row, table=True):
    """A replay as a long-running operation. State: RUNNING, SUCCEEDED, CANCELLED, FAILED. `location`: where its result is."""

    __table_args__ = (Index(None, "created_us", "replay_id"),)

    replay_id: str = Field(primary_key=True)
    kind: str  # verify, arrival, what-if, live
    state: str = "RUNNING"
    location: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    counts: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    summary: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    parts_done: int = 0
    parts: int = 0
    cancel_requested: bool = False
    created_by: str = ""
    created_us: int = Field(default=0, sa_type=BigInteger)
    updated_us: int = Field(default=0, sa_type=BigInteger)
    finished_us: int | None = Field(default=None, sa_type=BigInteger)
    error: str = ""
