"""A commit as data: what a shard decided and wants written, all of it or nothing. Picklable, made without a database."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from actors.journal.columns import Row
from actors.journal.tables import NO_SHARD, Alert, Excursion, Mailbox, Outbox
from actors.rules.errors import DomainError

Key: TypeAlias = tuple[Any, ...]
"""Values of a table's primary key columns, in the table's order."""

Table: TypeAlias = type[Row]


@dataclass(slots=True)
class JournalEntry:
    """One entry of a shard's journal. `sequence` must be the shard's head + 1. Sensed times are None where there are no readings."""

    sequence: int
    kind: str  # readings, command, tick
    blob: bytes
    received_us: int
    min_sensed_us: int | None = None
    max_sensed_us: int | None = None
    readings: int = 0
    worker: str = ""
    checksum: int = -1  # CRC-32 of blob, computed here where not given: in the shard, not in the committer

    def __post_init__(self) -> None:
        if self.checksum < 0:
            self.checksum = zlib.crc32(self.blob)


@dataclass(slots=True)
class EventDraft:
    """An event that has no number yet. `body`: the whole new state of what changed, JSON without NaN; `text`: the same as JSON, where it
    has been made already."""

    kind: str
    at_us: int
    body: dict[str, Any]
    carrier: str | None = None
    tag_id: str | None = None
    text: str = ""


@dataclass(slots=True)
class Condition:
    """A condition other than goods that begins, goes on with other facts, or ends; see alerts.py.

    key: "sensor|TAG|REASON", "silence|TAG", "late|shipment/ID", "fence|CARRIER|FENCE". kind: sensor, silence, late, fence.
    change: "raise" (also: goes on, facts changed), "clear" (it is over), "withdraw" (it never was).
    at_us: sensed or stated time of the begin (raise) or the end (clear).
    cause: why, for the history; a late cause (alerts.LATE_CAUSES) reopens a resolved alert.
    """

    key: str
    kind: str
    change: str
    at_us: int
    severity: str = "WARNING"
    carrier: str | None = None
    tag_id: str | None = None
    fence_id: str | None = None
    metric: str | None = None
    reason: str = ""
    cause: str = ""
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class AlertAction:
    """What a person does with an alert. action: acknowledge, assign (text: to whom), comment (text), resolve (text: the reason)."""

    alert_id: str
    action: str
    by: str
    at_us: int
    text: str = ""
    etag: int | None = None  # None: whatever it is


@dataclass(slots=True)
class HoldAct:
    """What a person does with a lot's hold. action: place (lot_id), release, partially_release (places), reject (hold_id, etag). text: why.

    places: {handling_unit_id, warehouse_id, zone_id} each. system: the system outside that tells it; it is not told back. exposure: what
    the lot had used of its stability budget, as the person who decided could see it.
    """

    action: str
    by: str
    at_us: int
    text: str
    hold_id: str = ""
    lot_id: str = ""
    etag: int | None = None
    places: list[dict[str, str]] = field(default_factory=list)
    system: str = ""
    exposure: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class StockWork:
    """Movements for a warehouse's ledger, in order: each as plain data (actors.inventory.read), or the error that refuses it already.

    Idempotent by their keys, so it bears being applied twice. all_or_nothing: the first refusal refuses the commit.
    """

    warehouse_id: str
    movements: list[dict[str, Any] | DomainError]
    all_or_nothing: bool = False


@dataclass(slots=True)
class SnapshotPart:
    """Part `part` of `parts` of a shard's state after journal entry `sequence`."""

    sequence: int
    part: int
    parts: int
    blob: bytes
    made_us: int = 0
    checksum: int = -1

    def __post_init__(self) -> None:
        if self.checksum < 0:
            self.checksum = zlib.crc32(self.blob)


@dataclass(slots=True)
class PreparedCommit:
    """All that one commit writes, applied in the order of the fields below; `now_us` is our clock, as data.

    shard, epoch: the fence; NO_SHARD stands under none. journal: None where the shard's state does not change; then `commit_key`
    (any unique text) makes a resend harmless. expect: (table, key, etag): the row must be there with this etag (None: any), else
    StaleEtag or NotFound. inserts: must not exist, else AlreadyExists. upserts: whole rows, written over what is there. Rows of
    one table are written together, tables in the order of their foreign keys. bulk_upserts: the same for many rows as plain
    dicts (faster; every dict of one list has the same keys). deletes: (table, key); children before parents by the caller.
    excursions: whole new revisions in the order of their happening; the commit keeps the history, makes the events and the goods alerts;
    they put lots on hold. stock: movements, decided inside the transaction. hold_acts: what people do with holds.
    """

    shard: int = NO_SHARD
    epoch: int = 0
    now_us: int = 0
    journal: JournalEntry | None = None
    commit_key: str | None = None
    expect: list[tuple[Table, Key, int | None]] = field(default_factory=list)
    deletes: list[tuple[Table, Key]] = field(default_factory=list)
    inserts: list[Row] = field(default_factory=list)
    upserts: list[Row] = field(default_factory=list)
    bulk_upserts: list[tuple[Table, Sequence[Mapping[str, Any]]]] = field(default_factory=list)
    events: list[EventDraft] = field(default_factory=list)
    excursions: list[Excursion] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    actions: list[AlertAction] = field(default_factory=list)
    stock: StockWork | None = None
    hold_acts: list[HoldAct] = field(default_factory=list)
    mailbox: list[Mailbox] = field(default_factory=list)
    mailbox_done: list[int] = field(default_factory=list)
    outbox: list[Outbox] = field(default_factory=list)
    snapshot: list[SnapshotPart] = field(default_factory=list)


@dataclass(slots=True)
class CommitResult:
    """What a commit became. Its events, if it has any, are numbered first_event..last_event.

    last_event without events of its own: the newest number given so far, so a watcher that has read up to it has seen this commit.
    already_done: a resend of a commit that was applied before. alerts: the alerts that its actions changed, as they are now.
    stock: per movement {movement, repeated} or {error} (a DomainError). events: those of readings, where they
    are few, as rows with the body as JSON.
    """

    last_event: int = 0
    first_event: int | None = None
    already_done: bool = False
    alerts: list[Alert] = field(default_factory=list)
    stock: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
