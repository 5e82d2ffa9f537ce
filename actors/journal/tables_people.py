"""Tables of what people manage: items, profiles, lots, fences, shipments, warehouses and the plans made from them.

Import them from `actors.journal.tables`, which states the conventions.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from sqlalchemy import JSON, BigInteger, Index, UniqueConstraint
from sqlmodel import Field

from actors.journal.columns import Quantity, Row

# ---------------------------------------------------------------- master data


class Item(Row, table=True):
    """A product: what lots are quantities of."""

    item_id: str = Field(primary_key=True)
    gtin: str | None = Field(default=None, unique=True)
    sku: str | None = Field(default=None, index=True)
    name: str = ""
    unit: str = "EA"  # UN/CEFACT Rec 20 code of its base unit
    profile_id: str | None = None
    stability_budget: list[dict[str, Any]] = Field(default_factory=list, sa_type=JSON)  # bands: {metric, low, high, allowance_us}
    attributes: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    created_us: int = Field(default=0, sa_type=BigInteger)
    updated_us: int = Field(default=0, sa_type=BigInteger)
    etag: int = Field(default=1, sa_type=BigInteger)


class Profile(Row, table=True):
    """One version of a profile; versions are never changed, a new one is added. `body` is rules.profiles.Profile as JSON."""

    profile_id: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    name: str = ""
    in_force_us: int = Field(default=0, sa_type=BigInteger)  # this version's; it holds until the next one's
    body: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    attributes: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)  # description, basis, shipped
    created_us: int = Field(default=0, sa_type=BigInteger)
    created_by: str = ""


class Lot(Row, table=True):
    """A quantity of one item with one lot number."""

    __table_args__ = (UniqueConstraint("item_id", "lot_number"),)

    lot_id: str = Field(primary_key=True)
    item_id: str = Field(foreign_key="item.item_id")
    lot_number: str
    expires_us: int | None = Field(default=None, sa_type=BigInteger)
    attributes: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    created_us: int = Field(default=0, sa_type=BigInteger)
    updated_us: int = Field(default=0, sa_type=BigInteger)
    etag: int = Field(default=1, sa_type=BigInteger)


class Geofence(Row, table=True):
    """A fence that people manage; carriers' plans copy what they need. `geometry`: see rules.geofence.Fence."""

    fence_id: str = Field(primary_key=True)
    name: str = ""
    kind: str  # circle, polygon, corridor
    geometry: Any = Field(default=None, sa_type=JSON)
    radius_m: float | None = None
    half_width_m: float | None = None
    confirm: int = 2
    dwell_us: int | None = Field(default=None, sa_type=BigInteger)
    created_us: int = Field(default=0, sa_type=BigInteger)
    updated_us: int = Field(default=0, sa_type=BigInteger)
    etag: int = Field(default=1, sa_type=BigInteger)


# ---------------------------------------------------------------- shipments and warehouses


class Shipment(Row, table=True):
    """A journey of goods. State: PLANNED, IN_TRANSIT, DELIVERED, CANCELLED. `stage` is what stage gating of limits looks at."""

    __table_args__ = (Index(None, "state", "created_us", "shipment_id"), Index(None, "created_us", "shipment_id"))

    shipment_id: str = Field(primary_key=True)
    shard: int
    reference: str = Field(default="", index=True)
    description: str = ""
    state: str = "PLANNED"
    stage: str = ""
    profile_id: str | None = None
    profile_version: int | None = None
    origin: str = ""
    destination: str = ""
    planned_departure_us: int | None = Field(default=None, sa_type=BigInteger)
    planned_arrival_us: int | None = Field(default=None, sa_type=BigInteger)
    lateness_tolerance_us: int = Field(default=0, sa_type=BigInteger)  # an arrival is late when planned + this has passed
    departed_us: int | None = Field(default=None, sa_type=BigInteger)
    arrived_us: int | None = Field(default=None, sa_type=BigInteger)
    closed_us: int | None = Field(default=None, sa_type=BigInteger)
    route: Any = Field(default=None, sa_type=JSON)  # planned polyline and tolerances, see rules.route
    fences: list[Any] = Field(default_factory=list, sa_type=JSON)  # fence ids or fences of its own
    attributes: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    created_us: int = Field(default=0, sa_type=BigInteger)
    created_by: str = ""
    updated_us: int = Field(default=0, sa_type=BigInteger)
    etag: int = Field(default=1, sa_type=BigInteger)


class Stop(Row, table=True):
    """A planned stop of a shipment, in order of `ordinal` (0 is the origin)."""

    shipment_id: str = Field(primary_key=True, foreign_key="shipment.shipment_id")
    ordinal: int = Field(primary_key=True)
    stop_id: str = ""
    name: str = ""
    locode: str | None = None
    gln: str | None = None
    warehouse_id: str | None = None
    fence_id: str | None = None
    latitude_deg: float | None = None
    longitude_deg: float | None = None
    radius_m: float | None = None
    planned_arrival_us: int | None = Field(default=None, sa_type=BigInteger)
    planned_departure_us: int | None = Field(default=None, sa_type=BigInteger)
    arrived_us: int | None = Field(default=None, sa_type=BigInteger)
    departed_us: int | None = Field(default=None, sa_type=BigInteger)


class HandlingUnit(Row, table=True):
    """A pallet or case. `carrier` is where it is now; its id is its SSCC where it has one."""

    handling_unit_id: str = Field(primary_key=True)
    sscc: str | None = Field(default=None, index=True)
    kind: str = ""  # pallet, case, …
    carrier: str | None = Field(default=None, index=True)
    parent_id: str | None = None
    attributes: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    created_us: int = Field(default=0, sa_type=BigInteger)
    updated_us: int = Field(default=0, sa_type=BigInteger)
    etag: int = Field(default=1, sa_type=BigInteger)


class HandlingUnitLot(Row, table=True):
    """How much of a lot is in a handling unit."""

    handling_unit_id: str = Field(primary_key=True, foreign_key="handling_unit.handling_unit_id")
    lot_id: str = Field(primary_key=True, foreign_key="lot.lot_id", index=True)
    quantity: Decimal = Field(default=Decimal(0), sa_type=Quantity)
    unit: str = "EA"


class Milestone(Row, table=True):
    """Something that happened to a shipment, as recorded by a person or a system: at_us is when, recorded_us when we learnt it."""

    shipment_id: str = Field(primary_key=True, foreign_key="shipment.shipment_id")
    ordinal: int = Field(primary_key=True)
    kind: str
    at_us: int = Field(sa_type=BigInteger)
    recorded_us: int = Field(default=0, sa_type=BigInteger)
    recorded_by: str = ""
    stop_ordinal: int | None = None
    note: str = ""


class Warehouse(Row, table=True):
    """A place with zones."""

    warehouse_id: str = Field(primary_key=True)
    shard: int
    name: str = ""
    gln: str | None = None
    locode: str | None = None
    latitude_deg: float | None = None
    longitude_deg: float | None = None
    attributes: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    created_us: int = Field(default=0, sa_type=BigInteger)
    updated_us: int = Field(default=0, sa_type=BigInteger)
    etag: int = Field(default=1, sa_type=BigInteger)


class Zone(Row, table=True):
    """A part of a warehouse with a profile of its own; its carrier is zone/WAREHOUSE/ZONE."""

    warehouse_id: str = Field(primary_key=True, foreign_key="warehouse.warehouse_id")
    zone_id: str = Field(primary_key=True)
    name: str = ""
    profile_id: str | None = None
    profile_version: int | None = None
    fences: list[Any] = Field(default_factory=list, sa_type=JSON)  # fences of its own
    attributes: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    created_us: int = Field(default=0, sa_type=BigInteger)
    updated_us: int = Field(default=0, sa_type=BigInteger)
    etag: int = Field(default=1, sa_type=BigInteger)


class CarrierPlan(Row, table=True):
    """The rules a carrier has for its tags: rules.plan.Plan as JSON, written by the carrier's shard."""

    carrier: str = Field(primary_key=True)
    shard: int
    revision: int = Field(default=1, sa_type=BigInteger)
    body: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    updated_us: int = Field(default=0, sa_type=BigInteger)
