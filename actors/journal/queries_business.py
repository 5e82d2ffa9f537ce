"""Reads of what people manage: items, profiles, shipments, warehouses, their custodies, excursions and visits.

Every function takes an open read connection's Session and gives detached records. Lists are pages: at most `limit` rows after
the key of the last row seen, in an order that does not change while pages are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, and_, func, or_
from sqlmodel import Session, col, select

from actors.journal.tables import (
    Alert,
    CarrierPlan,
    Custody,
    EventCounter,
    Excursion,
    ExcursionRevision,
    HandlingUnit,
    HandlingUnitLot,
    Item,
    Lot,
    Milestone,
    Profile,
    Request,
    Shipment,
    Stop,
    Visit,
    Warehouse,
    Zone,
)
from actors.rules.errors import FailedPrecondition


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A session for reads whose records stay usable after it."""
    with Session(engine, expire_on_commit=False, autoflush=False) as session:
        yield session
        session.expunge_all()


# ---------------------------------------------------------------- items and profiles


def item(session: Session, item_id: str) -> Item | None:
    """The item of that id."""
    return session.get(Item, item_id)


def item_of_gtin(session: Session, gtin: str) -> Item | None:
    """The item with that GTIN."""
    return session.exec(select(Item).where(Item.gtin == gtin).order_by(col(Item.item_id)).limit(1)).first()


def items(session: Session, *, after: str = "", limit: int, gtin: str = "", sku: str = "") -> list[Item]:
    """Items by id, only those of a GTIN (14 digits) or a SKU where these are given."""
    query = select(Item).where(col(Item.item_id) > after)
    if gtin:
        query = query.where(Item.gtin == gtin)
    if sku:
        query = query.where(Item.sku == sku)
    return list(session.exec(query.order_by(col(Item.item_id)).limit(limit)))


def profile_versions(session: Session, profile_id: str) -> list[Profile]:
    """All versions of a profile, oldest first."""
    return list(session.exec(select(Profile).where(Profile.profile_id == profile_id).order_by(col(Profile.version))))


def profile_version(session: Session, profile_id: str, version: int) -> Profile | None:
    """One version of a profile."""
    return session.get(Profile, (profile_id, version))


def newest_profile(session: Session, profile_id: str) -> Profile | None:
    """The newest version of a profile."""
    query = select(Profile).where(Profile.profile_id == profile_id).order_by(col(Profile.version).desc()).limit(1)
    return session.exec(query).first()


def profiles(session: Session, *, after: str = "", limit: int) -> list[Profile]:
    """The newest version of each profile, by id."""
    newest = (
        select(Profile.profile_id, func.max(Profile.version).label("version"))
        .where(col(Profile.profile_id) > after)
        .group_by(Profile.profile_id)
        .order_by(col(Profile.profile_id))
        .limit(limit)
        .subquery()
    )
    query = select(Profile).join(newest, and_(col(Profile.profile_id) == newest.c.profile_id, col(Profile.version) == newest.c.version))
    return list(session.exec(query.order_by(col(Profile.profile_id))))


# ---------------------------------------------------------------- shipments


@dataclass(slots=True)
class ShipmentRecord:
    """A shipment with its stops in order of travel and its milestones in order of time."""

    shipment: Shipment
    stops: list[Stop] = field(default_factory=list)
    milestones: list[Milestone] = field(default_factory=list)


def shipment_carrier(shipment_id: str) -> str:
    """The carrier's name of a shipment."""
    return f"shipment/{shipment_id}"


def shipment(session: Session, shipment_id: str) -> ShipmentRecord | None:
    """A shipment with its stops and milestones."""
    row = session.get(Shipment, shipment_id)
    return shipment_records(session, [row])[0] if row else None


def shipment_records(session: Session, rows: Sequence[Shipment]) -> list[ShipmentRecord]:
    """The records of many shipments, in a fixed number of queries."""
    records = {row.shipment_id: ShipmentRecord(row) for row in rows}
    ids = list(records)
    if not ids:
        return []
    for stop in session.exec(select(Stop).where(col(Stop.shipment_id).in_(ids)).order_by(col(Stop.ordinal))):
        records[stop.shipment_id].stops.append(stop)
    milestones = select(Milestone).where(col(Milestone.shipment_id).in_(ids))
    for milestone in session.exec(milestones.order_by(col(Milestone.at_us), col(Milestone.ordinal))):
        records[milestone.shipment_id].milestones.append(milestone)
    return list(records.values())


def shipments(
    session: Session,
    *,
    after: tuple[int, str] | None = None,
    limit: int,
    states: Sequence[str] = (),
    profile_id: str = "",
    reference: str = "",
    tag_id: str = "",
    lot_number: str = "",
    created_from_us: int | None = None,
    created_until_us: int | None = None,
) -> list[Shipment]:
    """Shipments, newest first; `after` is (created_us, shipment_id) of the last one seen."""
    query = select(Shipment)
    if after is not None:
        older = col(Shipment.created_us) < after[0]
        same = and_(col(Shipment.created_us) == after[0], col(Shipment.shipment_id) < after[1])
        query = query.where(or_(older, same))
    if states:
        query = query.where(col(Shipment.state).in_(list(states)))
    if profile_id:
        query = query.where(Shipment.profile_id == profile_id)
    if reference:
        query = query.where(Shipment.reference == reference)
    if created_from_us is not None:
        query = query.where(col(Shipment.created_us) >= created_from_us)
    if created_until_us is not None:
        query = query.where(col(Shipment.created_us) < created_until_us)
    if tag_id:
        ridden = select(Custody.carrier).where(Custody.tag_id == tag_id, col(Custody.retracted).is_(False))
        query = query.where((func.concat("shipment/", Shipment.shipment_id)).in_(ridden))
    if lot_number:
        carried = (
            select(HandlingUnit.carrier)
            .join(HandlingUnitLot, col(HandlingUnitLot.handling_unit_id) == col(HandlingUnit.handling_unit_id))
            .join(Lot, col(Lot.lot_id) == col(HandlingUnitLot.lot_id))
            .where(Lot.lot_number == lot_number)
        )
        query = query.where((func.concat("shipment/", Shipment.shipment_id)).in_(carried))
    query = query.order_by(col(Shipment.created_us).desc(), col(Shipment.shipment_id).desc()).limit(limit)
    return list(session.exec(query))


def handling_units(session: Session, ids: Iterable[str]) -> dict[str, HandlingUnit]:
    """Handling units by id, those that are there."""
    wanted = list(ids)
    if not wanted:
        return {}
    rows = session.exec(select(HandlingUnit).where(col(HandlingUnit.handling_unit_id).in_(wanted)))
    return {row.handling_unit_id: row for row in rows}


def lots_in(session: Session, handling_unit_id: str) -> list[str]:
    """The ids of the lots that a handling unit holds."""
    query = select(HandlingUnitLot.lot_id).where(HandlingUnitLot.handling_unit_id == handling_unit_id)
    return list(session.exec(query.order_by(col(HandlingUnitLot.lot_id))))


def lot_of(session: Session, item_id: str, lot_number: str) -> Lot | None:
    """The lot of an item with that number."""
    return session.exec(select(Lot).where(Lot.item_id == item_id, Lot.lot_number == lot_number)).first()


def shipments_under(session: Session, shard: int, profile_id: str, after_us: int) -> list[Shipment]:
    """A shard's shipments under a profile that are open, or were closed after `after_us`."""
    query = select(Shipment).where(
        Shipment.shard == shard,
        Shipment.profile_id == profile_id,
        or_(col(Shipment.closed_us).is_(None), col(Shipment.closed_us) > after_us),
    )
    return list(session.exec(query.order_by(col(Shipment.shipment_id))))


def awaiting(session: Session, shard: int) -> list[ShipmentRecord]:
    """A shard's open shipments that have planned arrivals, without their milestones."""
    query = (
        select(Shipment, Stop)
        .join(Stop, col(Stop.shipment_id) == col(Shipment.shipment_id))
        .where(Shipment.shard == shard, col(Shipment.state).in_(["PLANNED", "IN_TRANSIT"]))
        .order_by(col(Shipment.shipment_id), col(Stop.ordinal))
    )
    records: dict[str, ShipmentRecord] = {}
    for row, stop in session.exec(query):
        records.setdefault(row.shipment_id, ShipmentRecord(row)).stops.append(stop)
    return [record for record in records.values() if any(stop.planned_arrival_us is not None for stop in record.stops)]


def visited_fences(session: Session, carriers: Iterable[str]) -> dict[tuple[str, str], int]:
    """When the earliest standing visit of a carrier to a fence began, by (carrier, fence id)."""
    wanted = list(carriers)
    first: dict[tuple[str, str], int] = {}
    for start in range(0, len(wanted), 500):
        query = (
            select(Visit.carrier, Visit.fence_id, func.min(Visit.entered_us))
            .where(col(Visit.carrier).in_(wanted[start : start + 500]), Visit.kind == "VISIT", Visit.state == "STATED")
            .group_by(col(Visit.carrier), col(Visit.fence_id))
        )
        first.update({(carrier, fence): entered for carrier, fence, entered in session.exec(query) if fence})
    return first


def active_alerts(session: Session, kind: str, carriers: Iterable[str]) -> dict[str, Alert]:
    """The alerts of one kind whose condition holds now, by their condition's key."""
    wanted = list(carriers)
    found: dict[str, Alert] = {}
    for start in range(0, len(wanted), 500):
        query = select(Alert).where(Alert.kind == kind, col(Alert.active).is_(True), col(Alert.carrier).in_(wanted[start : start + 500]))
        found.update({alert.key: alert for alert in session.exec(query)})
    return found


# ---------------------------------------------------------------- warehouses


def zone_carrier(warehouse_id: str, zone_id: str) -> str:
    """The carrier's name of a zone."""
    return f"zone/{warehouse_id}/{zone_id}"


def warehouse(session: Session, warehouse_id: str) -> tuple[Warehouse, list[Zone]] | None:
    """A warehouse with its zones."""
    row = session.get(Warehouse, warehouse_id)
    return (row, zones(session, [warehouse_id])) if row else None


def zones(session: Session, warehouse_ids: Iterable[str]) -> list[Zone]:
    """The zones of some warehouses."""
    query = select(Zone).where(col(Zone.warehouse_id).in_(list(warehouse_ids)))
    return list(session.exec(query.order_by(col(Zone.warehouse_id), col(Zone.zone_id))))


def warehouses(session: Session, *, after: str = "", limit: int) -> list[tuple[Warehouse, list[Zone]]]:
    """Warehouses by id, each with its zones."""
    query = select(Warehouse).where(col(Warehouse.warehouse_id) > after)
    rows = list(session.exec(query.order_by(col(Warehouse.warehouse_id)).limit(limit)))
    inside: dict[str, list[Zone]] = {row.warehouse_id: [] for row in rows}
    for zone in zones(session, inside):
        inside[zone.warehouse_id].append(zone)
    return [(row, inside[row.warehouse_id]) for row in rows]


def zones_under(session: Session, shard: int, profile_id: str) -> list[Zone]:
    """A shard's zones under a profile."""
    query = (
        select(Zone)
        .join(Warehouse, col(Warehouse.warehouse_id) == col(Zone.warehouse_id))
        .where(Warehouse.shard == shard, Zone.profile_id == profile_id)
    )
    return list(session.exec(query.order_by(col(Zone.warehouse_id), col(Zone.zone_id))))


# ---------------------------------------------------------------- what holds for any carrier


def plan(session: Session, carrier: str) -> CarrierPlan | None:
    """The plan of a carrier."""
    return session.get(CarrierPlan, carrier)


def custodies(
    session: Session, carrier: str, *, after: tuple[int, int] | None = None, limit: int, retracted: bool = False
) -> list[Custody]:
    """Custodies on a carrier by (from_us, custody_id); retracted ones on demand."""
    query = select(Custody).where(Custody.carrier == carrier)
    if not retracted:
        query = query.where(col(Custody.retracted).is_(False))
    if after is not None:
        later = col(Custody.from_us) > after[0]
        same = and_(col(Custody.from_us) == after[0], col(Custody.custody_id) > after[1])
        query = query.where(or_(later, same))
    return list(session.exec(query.order_by(col(Custody.from_us), col(Custody.custody_id)).limit(limit)))


def excursions(
    session: Session, carrier: str, *, after: tuple[int, int] | None = None, limit: int, retracted: bool = False
) -> list[Excursion]:
    """Excursions on a carrier by (started_us, excursion_id), each in its newest revision; retracted ones on demand."""
    query = select(Excursion).where(Excursion.carrier == carrier)
    if not retracted:
        query = query.where(Excursion.state != "RETRACTED")
    if after is not None:
        later = col(Excursion.started_us) > after[0]
        same = and_(col(Excursion.started_us) == after[0], col(Excursion.excursion_id) > after[1])
        query = query.where(or_(later, same))
    return list(session.exec(query.order_by(col(Excursion.started_us), col(Excursion.excursion_id)).limit(limit)))


def excursion_revisions(session: Session, excursion_ids: Iterable[int]) -> dict[int, list[ExcursionRevision]]:
    """All revisions of some excursions, oldest first."""
    wanted = list(excursion_ids)
    found: dict[int, list[ExcursionRevision]] = {identity: [] for identity in wanted}
    if wanted:
        query = select(ExcursionRevision).where(col(ExcursionRevision.excursion_id).in_(wanted))
        for row in session.exec(query.order_by(col(ExcursionRevision.excursion_id), col(ExcursionRevision.revision))):
            found[row.excursion_id].append(row)
    return found


def visits(session: Session, carrier: str, *, limit: int, kinds: Sequence[str] = ()) -> list[Visit]:
    """Standing visits of a carrier's tags by the time they began."""
    query = select(Visit).where(Visit.carrier == carrier, Visit.state == "STATED")
    if kinds:
        query = query.where(col(Visit.kind).in_(list(kinds)))
    return list(session.exec(query.order_by(col(Visit.entered_us), col(Visit.visit_id)).limit(limit)))


def last_event_number(session: Session) -> int:
    """The number of the newest event; 0 before the first."""
    counter: Any = session.exec(select(EventCounter.number).limit(1)).first()
    return int(counter or 0)


def first_answer(session: Session, scope: str, request_id: str, digest: str) -> dict[str, Any] | None:
    """What a request with this id was answered; FailedPrecondition where that was another request. None: it is new."""
    row = session.get(Request, (scope, request_id))
    if row is None:
        return None
    if row.digest != digest:
        raise FailedPrecondition("was used before with another request", field="request_id", value=request_id)
    return dict(row.answer or {})
