"""Tables of inventory: each warehouse's ledger of movements, the stock that is its sum, holds of lots, other systems' books, the outbox.

Import them from `actors.journal.tables`, which states the conventions. Quantities are exact decimals in the item's base unit.
A lot's id is "ITEM/NUMBER"; goods without lot have the lot id "ITEM/" (a row of `lot` with an empty number).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from sqlalchemy import JSON, BigInteger, Index, UniqueConstraint
from sqlmodel import Field

from actors.journal.columns import ROWID, Quantity, Row

# ---------------------------------------------------------------- ledger and stock


class Ledger(Row, table=True):
    """The head of a warehouse's ledger: the last number given. Its row is locked by whoever adds to the ledger."""

    warehouse_id: str = Field(primary_key=True)
    head: int = Field(default=0, sa_type=BigInteger)


class Movement(Row, table=True):
    """One entry of a ledger; never changed. `body`: the movement as it is answered (rules.stock), its legs and findings in it."""

    __table_args__ = (
        UniqueConstraint("warehouse_id", "key"),
        Index(None, "warehouse_id", "lot_id", "number"),
        Index(None, "shipment_id", "number"),
    )

    warehouse_id: str = Field(primary_key=True)
    number: int = Field(primary_key=True, sa_type=BigInteger)  # from 1, gapless per warehouse
    key: str  # idempotency key
    digest: str = ""  # of what was asked
    kind: str  # RECEIVE, PUT_AWAY, RESERVE, UNRESERVE, PICK, SHIP, ADJUST, COUNT, HOLD, RELEASE, SCRAP
    item_id: str = ""
    lot_id: str = ""
    shipment_id: str | None = None
    system: str = ""
    at_us: int = Field(sa_type=BigInteger)
    recorded_us: int = Field(default=0, sa_type=BigInteger)
    body: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)


class StockLeg(Row, table=True):
    """What a movement changed in one line of stock. The sum of a line's legs with at_us <= T is its stock as of T.

    `ledger`: the warehouse whose ledger has the movement. It is the line's, but for what a receipt takes off a shipment of another one.
    """

    __table_args__ = (Index(None, "lot_id", "at_us"), Index(None, "warehouse_id", "item_id", "at_us"))

    ledger: str = Field(primary_key=True)
    number: int = Field(primary_key=True, sa_type=BigInteger)
    ordinal: int = Field(primary_key=True)
    warehouse_id: str = ""
    zone_id: str = ""
    item_id: str = ""
    lot_id: str = ""
    handling_unit_id: str = ""
    shipment_id: str = ""
    status: str = "FREE"  # FREE, RESERVED, PICKED, HELD, IN_TRANSIT
    quantity: Decimal = Field(default=Decimal(0), sa_type=Quantity)
    at_us: int = Field(sa_type=BigInteger)


class Stock(Row, table=True):
    """The sum of a ledger's legs per line, kept so that picks need not add up. Lines stay when they reach zero: they say who was here.

    `zone_id` is empty while IN_TRANSIT, `shipment_id` is empty else; `handling_unit_id` is empty for what is loose.
    """

    __table_args__ = (
        Index(None, "lot_id"),
        Index(None, "shipment_id"),
        Index(None, "warehouse_id", "item_id"),
    )

    warehouse_id: str = Field(primary_key=True)
    zone_id: str = Field(primary_key=True)
    lot_id: str = Field(primary_key=True)
    handling_unit_id: str = Field(primary_key=True)
    shipment_id: str = Field(primary_key=True)
    status: str = Field(primary_key=True)
    item_id: str = ""
    quantity: Decimal = Field(default=Decimal(0), sa_type=Quantity)
    first_us: int = Field(default=0, sa_type=BigInteger)  # when the first of it came here
    left_us: int = Field(default=0, sa_type=BigInteger)  # when the last of it left; counts while the quantity is zero


class Serial(Row, table=True):
    """Where a piece with a serial number is; no zone and no shipment: gone."""

    item_id: str = Field(primary_key=True)
    serial: str = Field(primary_key=True)
    lot_id: str = ""
    warehouse_id: str = ""
    zone_id: str = ""
    handling_unit_id: str = ""
    shipment_id: str = ""
    updated_us: int = Field(default=0, sa_type=BigInteger)


# ---------------------------------------------------------------- holds


class Hold(Row, table=True):
    """Why a lot may not be reserved, picked or shipped. State: ACTIVE, RELEASED, PARTIALLY_RELEASED, REJECTED; all but RELEASED block.

    A lot has one undecided hold at most; the next one after a decision has the next ordinal. Written under a lock of its lot's row.
    """

    __table_args__ = (
        UniqueConstraint("lot_id", "ordinal"),
        Index(None, "state", "placed_us", "hold_id"),
        Index(None, "placed_us", "hold_id"),
    )

    hold_id: str = Field(primary_key=True)
    lot_id: str
    ordinal: int = 1
    item_id: str = ""
    lot_number: str = ""
    state: str = "ACTIVE"
    source: str = "EXCURSION"  # EXCURSION, PERSON
    reason: str = ""
    excursions: list[dict[str, Any]] = Field(default_factory=list, sa_type=JSON)  # holds.excursion_entry, by id
    places: list[dict[str, Any]] = Field(
        default_factory=list, sa_type=JSON
    )  # PARTIALLY_RELEASED: {handling_unit_id, warehouse_id, zone_id}
    started_us: int = Field(default=0, sa_type=BigInteger)
    placed_us: int = Field(default=0, sa_type=BigInteger)
    placed_by: str = ""
    decided_us: int | None = Field(default=None, sa_type=BigInteger)
    decided_by: str = ""
    decision_reason: str = ""
    reopened: int = 0
    etag: int = Field(default=1, sa_type=BigInteger)


class HoldHistory(Row, table=True):
    """One change of a hold, with the whole hold as it was after it. `etag` is the hold's after the change.

    Change: placed, joined, corrected, released, partially_released, rejected, reopened.
    """

    hold_id: str = Field(primary_key=True, foreign_key="hold.hold_id")
    etag: int = Field(primary_key=True, sa_type=BigInteger)
    change: str
    state: str = "ACTIVE"
    by: str = ""
    text: str = ""
    at_us: int = Field(default=0, sa_type=BigInteger)
    body: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)


class HoldOfExcursion(Row, table=True):
    """Which holds an excursion is about: its next revision finds them here."""

    excursion_id: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    hold_id: str = Field(primary_key=True, foreign_key="hold.hold_id", index=True)


# ---------------------------------------------------------------- other systems


class Mapping(Row, table=True):
    """What an id of another system means. Kind: ITEM (item_id), LOCATION (warehouse_id and, where it means a part of it, zone_id)."""

    __table_args__ = (UniqueConstraint("system", "kind", "item_id", "warehouse_id", "zone_id"),)

    system: str = Field(primary_key=True)
    kind: str = Field(primary_key=True)
    external_id: str = Field(primary_key=True)
    item_id: str = ""
    warehouse_id: str = ""
    zone_id: str = ""
    updated_us: int = Field(default=0, sa_type=BigInteger)
    etag: int = Field(default=1, sa_type=BigInteger)


class BookSync(Row, table=True):
    """The last sync of another system's book of one warehouse. `number` grows with each and is in the cursor."""

    system: str = Field(primary_key=True)
    warehouse_id: str = Field(primary_key=True)
    number: int = Field(default=0, sa_type=BigInteger)
    sync_id: str = ""
    digest: str = ""
    as_of_us: int = Field(default=0, sa_type=BigInteger)
    recorded_us: int = Field(default=0, sa_type=BigInteger)
    complete: bool = True  # false: lines are being replaced; it was interrupted when it stays so


class BookLine(Row, table=True):
    """A line of another system's book as it last told it, by sync `number`. Status ANY: what is on hand there whatever its status."""

    system: str = Field(primary_key=True)
    warehouse_id: str = Field(primary_key=True)
    zone_id: str = Field(primary_key=True)
    lot_id: str = Field(primary_key=True)
    status: str = Field(primary_key=True)
    item_id: str = ""
    quantity: Decimal = Field(default=Decimal(0), sa_type=Quantity)
    expires_us: int | None = Field(default=None, sa_type=BigInteger)
    number: int = Field(default=0, sa_type=BigInteger)


class OutboxDestination(Row, table=True):
    """A system outside that is to be told. Its row is locked by whoever adds messages for it, so their sequence is their order.

    `head`: the last sequence given. While `enabled` is false nothing new is written for it. More than `alert_above` undelivered messages
    raise an alert; at `most` movements are refused (never holds or decisions).
    """

    destination: str = Field(primary_key=True)
    head: int = Field(default=0, sa_type=BigInteger)
    enabled: bool = True
    alert_above: int = 10_000
    most: int = 1_000_000
    undelivered: int = Field(default=0, sa_type=BigInteger)  # as counted when last looked
    created_us: int = Field(default=0, sa_type=BigInteger)


class Outbox(Row, table=True):
    """A message to a system outside, written in the commit it tells of. State: PENDING, DELIVERED, DEAD.

    Delivered per destination in order of `sequence` (1, 2, 3, … without gaps), at least once; `key` lets the receiver take it once.
    Kind: movement, hold.placed, hold.joined, hold.corrected, hold.released, hold.partially_released, hold.rejected, hold.reopened.
    `body`: for a movement that of its row, for a hold {"hold": its row, "change": …, "stock": the lot's lines, where it is}.
    """

    __table_args__ = (
        UniqueConstraint("destination", "sequence"),
        UniqueConstraint("destination", "key"),
        Index(None, "destination", "state", "sequence"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=ROWID)
    destination: str
    sequence: int = Field(default=0, sa_type=BigInteger)
    key: str  # idempotency key: the same for every attempt
    kind: str = ""
    body: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    created_us: int = Field(default=0, sa_type=BigInteger)
    attempts: int = 0
    next_try_us: int = Field(default=0, sa_type=BigInteger)  # not before
    state: str = "PENDING"
    delivered_us: int | None = Field(default=None, sa_type=BigInteger)
    last_error: str = ""
