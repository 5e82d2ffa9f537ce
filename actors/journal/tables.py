"""The tables, which are also the records that shards and doors pass around: detached SQLModel objects, picklable.

Conventions. `*_us`: microseconds since 1970 UTC. `etag`: version of a row, 1 when created, +1 with each change.
A carrier is named "shipment/ID" or "zone/WAREHOUSE/ZONE". A 64-bit id (`custody_id`, `excursion_id`, `visit_id`) is made by the
tag's shard with `row_id`, so a replay of the journal makes the same ids. Text states are upper-case words, listed beside their
table. What is absent is NULL, never NaN. Tables of many rows carry no foreign keys; those of people's records do.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Index, LargeBinary, UniqueConstraint
from sqlmodel import Field

from actors.journal.columns import ROWID, Row
from actors.journal.columns import metadata as metadata
from actors.journal.columns import row_id as row_id
from actors.journal.tables_archive import ArchivedCarrier as ArchivedCarrier
from actors.journal.tables_archive import ArchivedCustody as ArchivedCustody
from actors.journal.tables_archive import ArchivePart as ArchivePart
from actors.journal.tables_archive import JournalRetained as JournalRetained
from actors.journal.tables_archive import Replay as Replay
from actors.journal.tables_people import CarrierPlan as CarrierPlan
from actors.journal.tables_people import Geofence as Geofence
from actors.journal.tables_people import HandlingUnit as HandlingUnit
from actors.journal.tables_people import HandlingUnitLot as HandlingUnitLot
from actors.journal.tables_people import Item as Item
from actors.journal.tables_people import Lot as Lot
from actors.journal.tables_people import Milestone as Milestone
from actors.journal.tables_people import Profile as Profile
from actors.journal.tables_people import Shipment as Shipment
from actors.journal.tables_people import Stop as Stop
from actors.journal.tables_people import Warehouse as Warehouse
from actors.journal.tables_people import Zone as Zone
from actors.journal.tables_stock import BookLine as BookLine
from actors.journal.tables_stock import BookSync as BookSync
from actors.journal.tables_stock import Hold as Hold
from actors.journal.tables_stock import HoldHistory as HoldHistory
from actors.journal.tables_stock import HoldOfExcursion as HoldOfExcursion
from actors.journal.tables_stock import Ledger as Ledger
from actors.journal.tables_stock import Mapping as Mapping
from actors.journal.tables_stock import Movement as Movement
from actors.journal.tables_stock import Outbox as Outbox
from actors.journal.tables_stock import OutboxDestination as OutboxDestination
from actors.journal.tables_stock import Serial as Serial
from actors.journal.tables_stock import Stock as Stock
from actors.journal.tables_stock import StockLeg as StockLeg

NO_SHARD = -1
"""The shard of a commit that stands under no fence (settings, made by the roof)."""


# ---------------------------------------------------------------- tags and custody


class Tag(Row, table=True):
    """A sensor device. `local_index` is its index in its shard's columns and in that shard's journal blobs."""

    __table_args__ = (UniqueConstraint("shard", "local_index"),)

    tag_id: str = Field(primary_key=True)
    shard: int
    local_index: int
    kind: str = ""
    description: str = ""
    usual_interval_us: int | None = Field(default=None, sa_type=BigInteger)  # NULL: learnt
    quality: dict[str, Any] | None = Field(default=None, sa_type=JSON)  # rules.quality.QualitySettings; NULL: none
    attributes: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    created_us: int = Field(default=0, sa_type=BigInteger)
    updated_us: int = Field(default=0, sa_type=BigInteger)
    etag: int = Field(default=1, sa_type=BigInteger)


class Custody(Row, table=True):
    """Which tag rides on which carrier over [from_us, until_us) of sensed time; until NULL: still.

    A correction changes the row and keeps what it said before in CustodyRevision; `retracted`: it never was.
    """

    __table_args__ = (Index(None, "tag_id", "from_us"), Index(None, "carrier", "from_us"))

    custody_id: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    shard: int
    tag_id: str
    carrier: str
    handling_unit_id: str | None = None
    from_us: int = Field(sa_type=BigInteger)
    until_us: int | None = Field(default=None, sa_type=BigInteger)
    retracted: bool = False
    assigned_by: str = ""
    assigned_us: int = Field(default=0, sa_type=BigInteger)
    ended_by: str = ""
    ended_us: int | None = Field(default=None, sa_type=BigInteger)
    note: str = ""
    etag: int = Field(default=1, sa_type=BigInteger)


class CustodyRevision(Row, table=True):
    """What a custody said at each etag: the whole row as JSON, who changed it, when and why."""

    custody_id: int = Field(primary_key=True, foreign_key="custody.custody_id", sa_type=BigInteger)
    etag: int = Field(primary_key=True, sa_type=BigInteger)
    cause: str = ""  # assigned, released, corrected, retracted
    by: str = ""
    at_us: int = Field(default=0, sa_type=BigInteger)
    body: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)


class Exposure(Row, table=True):
    """Exposure sums of one custody under one limit, written when the custody closes or is judged again."""

    custody_id: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    limit_id: str = Field(primary_key=True)
    tag_id: str
    carrier: str = Field(index=True)
    violation_us: int = Field(default=0, sa_type=BigInteger)
    covered_us: int = Field(default=0, sa_type=BigInteger)
    uncovered_us: int = Field(default=0, sa_type=BigInteger)
    extreme: float | None = None
    extreme_us: int | None = Field(default=None, sa_type=BigInteger)
    readings: int = Field(default=0, sa_type=BigInteger)


class Conflict(Row, table=True):
    """A reading put aside: its identity was taken by a reading with other content, which stays."""

    __table_args__ = (Index(None, "tag_id", "sensed_us"),)

    shard: int = Field(primary_key=True)
    sequence: int = Field(primary_key=True, sa_type=BigInteger)  # of the journal commit that met it
    ordinal: int = Field(primary_key=True)
    tag_id: str
    sensed_us: int = Field(sa_type=BigInteger)
    boot: int = Field(default=-1, sa_type=BigInteger)
    reading_sequence: int = Field(default=-1, sa_type=BigInteger)
    received_us: int = Field(default=0, sa_type=BigInteger)
    content: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)  # column name: value


# ---------------------------------------------------------------- what is decided from readings


class ExcursionBase(Row):
    """What an excursion states (handbook 3). State: CONFIRMED (open), ENDED, RETRACTED.

    `cause` of a revision: reading (in order), closed (custody ended), late, custody, profile, quality. `found_late`: its first
    revision came from a late reading or a change afterwards. `mean` is time-weighted over the violation.
    """

    state: str = "CONFIRMED"
    cause: str = "reading"
    shard: int
    tag_id: str
    carrier: str
    custody_id: int = Field(sa_type=BigInteger)
    handling_unit_id: str | None = None
    lots: list[str] = Field(default_factory=list, sa_type=JSON)
    limit_id: str
    profile_id: str = ""
    profile_version: int = 0
    metric: str = ""
    direction: int = 1  # +1 above, -1 below
    threshold: float = 0.0
    mode: str = "single"
    severity: str = "WARNING"  # INFO, WARNING, CRITICAL
    started_us: int = Field(sa_type=BigInteger)
    triggered_us: int = Field(sa_type=BigInteger)
    ended_us: int | None = Field(default=None, sa_type=BigInteger)
    violation_us: int = Field(default=0, sa_type=BigInteger)
    uncovered_us: int = Field(default=0, sa_type=BigInteger)
    extreme: float | None = None
    extreme_us: int | None = Field(default=None, sa_type=BigInteger)
    mean: float | None = None
    readings: int = Field(default=0, sa_type=BigInteger)
    found_late: bool = False
    recorded_us: int = Field(default=0, sa_type=BigInteger)  # of this revision
    alert_id: str | None = None  # given by the commit


class Excursion(ExcursionBase, table=True):
    """The current revision of an excursion."""

    __table_args__ = (
        Index(None, "carrier", "started_us"),
        Index(None, "tag_id", "started_us"),
        Index(None, "custody_id"),
        Index(None, "alert_id"),
        Index(None, "state", "started_us"),
    )

    excursion_id: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    revision: int = 1


class ExcursionRevision(ExcursionBase, table=True):
    """Every revision of every excursion: nothing that was judged is overwritten. Written by the commit itself."""

    excursion_id: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    revision: int = Field(primary_key=True)


class Visit(Row, table=True):
    """A tag's visit to a fence, a pass through it, a stop, or a stretch off its route.

    Kind: VISIT (fence), PASSED (fence; entered_us, exited_us are the two outside fixes), STOP (place), OFF_ROUTE. State: STATED, RETRACTED.
    """

    __table_args__ = (Index(None, "carrier", "entered_us"), Index(None, "tag_id", "entered_us"), Index(None, "custody_id"))

    visit_id: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    revision: int = 1
    state: str = "STATED"
    kind: str = "VISIT"
    cause: str = "reading"
    shard: int
    tag_id: str
    carrier: str
    custody_id: int = Field(sa_type=BigInteger)
    fence_id: str | None = Field(default=None, index=True)
    entered_us: int = Field(sa_type=BigInteger)
    exited_us: int | None = Field(default=None, sa_type=BigInteger)
    latitude_deg: float | None = None
    longitude_deg: float | None = None
    distance_m: float | None = None  # OFF_ROUTE: the largest
    recorded_us: int = Field(default=0, sa_type=BigInteger)


class Alert(Row, table=True):
    """What a person must act on. One open alert per condition `key`; see alerts.py for its life.

    Kind: goods, sensor, silence, late, fence. State: OPEN, ACKNOWLEDGED, RESOLVED, WITHDRAWN. `active`: the condition holds now.
    """

    __table_args__ = (
        UniqueConstraint("key", "ordinal"),
        Index(None, "state", "raised_us", "alert_id"),
        Index(None, "carrier", "state", "raised_us"),
        Index(None, "tag_id", "state", "raised_us"),
        Index(None, "raised_us", "alert_id"),
    )

    alert_id: str = Field(primary_key=True)
    key: str
    ordinal: int = 1  # the n-th alert of this condition
    kind: str
    severity: str = "WARNING"
    state: str = "OPEN"
    active: bool = True
    carrier: str | None = None
    tag_id: str | None = None
    limit_id: str | None = None
    profile_id: str | None = None
    metric: str | None = None
    fence_id: str | None = None
    reason: str = ""
    tags: list[str] = Field(default_factory=list, sa_type=JSON)  # goods: all tags that saw it, sorted
    excursions: int = 0  # goods: how many stand (not retracted)
    open_excursions: int = 0
    started_us: int = Field(default=0, sa_type=BigInteger)  # sensed time at which the condition (its first excursion) began
    ended_us: int | None = Field(default=None, sa_type=BigInteger)  # sensed time of the end, while not active
    extreme: float | None = None
    extreme_us: int | None = Field(default=None, sa_type=BigInteger)
    detail: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    assigned_to: str = ""
    acknowledged_by: str = ""
    acknowledged_us: int | None = Field(default=None, sa_type=BigInteger)
    resolved_by: str = ""
    resolved_us: int | None = Field(default=None, sa_type=BigInteger)
    resolution: str = ""
    reopened: int = 0  # how often
    raised_us: int = Field(default=0, sa_type=BigInteger)  # our clock
    updated_us: int = Field(default=0, sa_type=BigInteger)
    etag: int = Field(default=1, sa_type=BigInteger)


class AlertHistory(Row, table=True):
    """One change of an alert. `etag` is the alert's after the change.

    Change: raised, updated, cleared, recurred, reopened, corrected, withdrawn; by people: acknowledged, assigned, commented, resolved.
    """

    alert_id: str = Field(primary_key=True, foreign_key="alert.alert_id")
    etag: int = Field(primary_key=True, sa_type=BigInteger)
    change: str
    cause: str = ""
    by: str = ""
    text: str = ""
    at_us: int = Field(default=0, sa_type=BigInteger)
    state: str = "OPEN"
    active: bool = True
    severity: str = "WARNING"
    excursion_id: int | None = Field(default=None, sa_type=BigInteger)


# ---------------------------------------------------------------- events, mail


class Event(Row, table=True):
    """One entry of the global, gapless, ordered event log. `body` is the whole new state of what changed."""

    __table_args__ = (Index(None, "carrier", "number"), Index(None, "tag_id", "number"))

    number: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    kind: str  # excursion.*, alert.*, shipment.*, custody.*, visit.*, tag.*, …
    at_us: int = Field(sa_type=BigInteger)  # sensed or stated time
    recorded_us: int = Field(sa_type=BigInteger)  # our clock
    shard: int = NO_SHARD
    carrier: str | None = None
    tag_id: str | None = None
    body: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)


class EventCounter(Row, table=True):
    """One row, id 1: the last event number given. Updated last in a transaction; its row lock keeps events in order."""

    id: int = Field(primary_key=True)
    number: int = Field(default=0, sa_type=BigInteger)


class Mailbox(Row, table=True):
    """A message from a carrier to a shard; deleted in the transaction that journals its effect."""

    __table_args__ = (Index(None, "shard", "id"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=ROWID)
    shard: int
    key: str  # e.g. the carrier
    posted_us: int = Field(default=0, sa_type=BigInteger)
    body: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)


# ---------------------------------------------------------------- the shards' own


class ShardOwner(Row, table=True):
    """Who may write for a shard: the fence. The head and the snapshot watermark move in the commits themselves."""

    shard: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    epoch: int = Field(default=0, sa_type=BigInteger)
    journal_head: int = Field(default=0, sa_type=BigInteger)
    snapshot_sequence: int = Field(default=0, sa_type=BigInteger)
    sorted_sequence: int = Field(default=0, sa_type=BigInteger)  # readings up to this entry are read from segments
    pid: int = 0
    pid_started: str = ""  # start time of the process as its system tells it, against reuse of the pid
    node: str = ""
    worker: str = ""
    acquired_us: int = Field(default=0, sa_type=BigInteger)
    heartbeat_us: int = Field(default=0, sa_type=BigInteger)


class JournalBatch(Row, table=True):
    """One entry of a shard's journal. Kind: readings (rules.codec blob), command (JSON), tick (JSON). Sequence from 1, gapless."""

    __table_args__ = (Index("ix_journal_batch_sensed", "shard", "max_sensed_us", "min_sensed_us"),)

    shard: int = Field(primary_key=True)
    sequence: int = Field(primary_key=True, sa_type=BigInteger)
    kind: str = "readings"
    worker: str = ""
    epoch: int = Field(default=0, sa_type=BigInteger)
    received_us: int = Field(default=0, sa_type=BigInteger)
    min_sensed_us: int | None = Field(default=None, sa_type=BigInteger)  # NULL: no readings
    max_sensed_us: int | None = Field(default=None, sa_type=BigInteger)
    readings: int = 0
    checksum: int = Field(default=0, sa_type=BigInteger)  # CRC-32 of blob
    blob: bytes = Field(default=b"", sa_type=LargeBinary)


class Segment(Row, table=True):
    """Readings of the journal entries first_sequence ... last_sequence of a shard, sorted by tag, in pages (pages.py).

    A page belongs to a segment only while the segment's row is there; pages without one are being written, or waiting to be removed.
    """

    shard: int = Field(primary_key=True)
    number: int = Field(primary_key=True, sa_type=BigInteger)
    level: int = 0  # how often its readings were merged
    first_sequence: int = Field(default=0, sa_type=BigInteger)
    last_sequence: int = Field(default=0, sa_type=BigInteger)
    min_sensed_us: int = Field(default=0, sa_type=BigInteger)
    max_sensed_us: int = Field(default=0, sa_type=BigInteger)
    readings: int = Field(default=0, sa_type=BigInteger)
    pages: int = 0
    made_us: int = Field(default=0, sa_type=BigInteger)
    checksum: int = Field(default=0, sa_type=BigInteger)  # CRC-32 of directory
    directory: bytes = Field(default=b"", sa_type=LargeBinary)  # which tags and times each page holds (segments.Directory)


class SegmentPage(Row, table=True):
    """One page of a segment. Its checksum is in the blob."""

    shard: int = Field(primary_key=True)
    segment: int = Field(primary_key=True, sa_type=BigInteger)
    page: int = Field(primary_key=True)
    blob: bytes = Field(default=b"", sa_type=LargeBinary)


class SortedEntries(Row, table=True):
    """What is no reading of the sorted entries first_sequence ... last_sequence; with the segments it gives each entry byte for byte."""

    shard: int = Field(primary_key=True)
    first_sequence: int = Field(primary_key=True, sa_type=BigInteger)
    last_sequence: int = Field(default=0, sa_type=BigInteger)
    readings: int = Field(default=0, sa_type=BigInteger)
    checksum: int = Field(default=0, sa_type=BigInteger)  # CRC-32 of blob
    blob: bytes = Field(default=b"", sa_type=LargeBinary)  # segments.Head of each, as JSON, compressed


class Quarantine(Row, table=True):
    """What was found damaged, and is left out from then on. Kind: entry (number: the journal sequence), page (number: the segment),
    entries (number: the first sequence; SortedEntries). `blob`: the bytes as they were found."""

    shard: int = Field(primary_key=True)
    kind: str = Field(primary_key=True)
    number: int = Field(primary_key=True, sa_type=BigInteger)
    page: int = Field(default=0, primary_key=True)
    name: str = ""
    from_us: int | None = Field(default=None, sa_type=BigInteger)  # sensed times of what it held; NULL: no readings
    until_us: int | None = Field(default=None, sa_type=BigInteger)
    readings: int = 0
    why: str = ""
    found_us: int = Field(default=0, sa_type=BigInteger)
    blob: bytes = Field(default=b"", sa_type=LargeBinary)


class CommitKey(Row, table=True):
    """Key of an applied commit that has no journal entry, so that a resend is recognised."""

    commit_key: str = Field(primary_key=True)
    recorded_us: int = Field(default=0, sa_type=BigInteger, index=True)


class Request(Row, table=True):
    """A request that carried an idempotency key: the same key with the same digest gets `answer` again."""

    scope: str = Field(primary_key=True)  # e.g. the command's name
    request_id: str = Field(primary_key=True)
    digest: str = ""
    answer: Any = Field(default=None, sa_type=JSON)
    recorded_us: int = Field(default=0, sa_type=BigInteger, index=True)


class Snapshot(Row, table=True):
    """A part of a shard's state after journal entry `sequence`. Complete when all `parts` are there."""

    shard: int = Field(primary_key=True)
    sequence: int = Field(primary_key=True, sa_type=BigInteger)
    part: int = Field(primary_key=True)
    parts: int
    made_us: int = Field(default=0, sa_type=BigInteger)
    checksum: int = Field(default=0, sa_type=BigInteger)
    blob: bytes = Field(default=b"", sa_type=LargeBinary)


class Setting(Row, table=True):
    """What is fixed for a database, such as its number of shards."""

    name: str = Field(primary_key=True)
    value: str
