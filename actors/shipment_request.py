"""Reading a shipment from a request into rows: stops, handling units with their lots, and what the plan needs of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sqlmodel import Session

from actors import requests
from actors.fences import WIDEST_CIRCLE_M, stop_fence_id
from actors.journal import queries_business as queries
from actors.journal.columns import Row
from actors.journal.tables import HandlingUnit, HandlingUnitLot, Lot, Stop
from actors.requests import Arguments
from actors.rules import identifiers
from actors.rules.errors import FailedPrecondition, InvalidArgument, NotFound

MOST_STOPS = 100
MOST_UNITS = 1000
MOST_LOTS = 100
DEFAULT_STOP_RADIUS_M = 500.0
"""Within this of a planned stop's place counts as being there, where the caller says nothing (ours)."""

OPEN_STATES = ("PLANNED", "IN_TRANSIT")


def read_stops(shipment_id: str, arguments: Arguments, within: str, session: Session) -> list[Stop]:
    """The planned stops in order of travel; times must not run backwards, ids must be unique ("stop-1", ... where not given)."""
    stops: list[Stop] = []
    latest_us = 0
    for at, entry in requests.each(arguments, "stops", within=within, most=MOST_STOPS):
        ordinal = len(stops)
        stop_id = requests.identity(entry, "stop_id", within=at, required=False) or f"stop-{ordinal + 1}"
        if any(stop.stop_id == stop_id for stop in stops):
            raise InvalidArgument("must be unique in its shipment", field=at + "stop_id", value=stop_id)
        warehouse_id = requests.identity(entry, "warehouse_id", within=at, required=False) or None
        place = requests.point(entry, within=at)
        if warehouse_id is not None:
            found = queries.warehouse(session, warehouse_id)
            if found is None:
                raise NotFound("no such warehouse", field=at + "warehouse_id", value=warehouse_id)
            if place is None and found[0].latitude_deg is not None and found[0].longitude_deg is not None:
                place = (found[0].latitude_deg, found[0].longitude_deg)
        radius_m = requests.number(entry, "radius_m", within=at, high=WIDEST_CIRCLE_M)
        if radius_m is not None and radius_m <= 0:
            raise InvalidArgument("must be above 0 metres", field=at + "radius_m", value=radius_m)
        if radius_m is not None and place is None:
            raise InvalidArgument("a stop with a radius needs a location", field=at + "location")
        times = {}
        for name in ("planned_arrival_us", "planned_departure_us"):
            times[name] = requests.time_us(entry, name, within=at)
            if (times[name] or latest_us) < latest_us:
                raise InvalidArgument("must not lie before an earlier time of the journey", field=at + name, value=times[name])
            latest_us = times[name] or latest_us
        stops.append(
            Stop(
                shipment_id=shipment_id,
                ordinal=ordinal,
                stop_id=stop_id,
                name=requests.text(entry, "name", within=at, longest=requests.NAME_MAX),
                locode=requests.identifier(entry, "locode", identifiers.locode, within=at),
                gln=requests.identifier(entry, "gln", identifiers.gln, within=at),
                warehouse_id=warehouse_id,
                fence_id=None if place is None else stop_fence_id(stop_id),
                latitude_deg=None if place is None else place[0],
                longitude_deg=None if place is None else place[1],
                radius_m=None if place is None else radius_m or DEFAULT_STOP_RADIUS_M,
                planned_arrival_us=times["planned_arrival_us"],
                planned_departure_us=times["planned_departure_us"],
            )
        )
    return stops


@dataclass(slots=True)
class Load:
    """Handling units as read: `document` is what the shipment keeps of them, the rest are the rows that follow from it."""

    document: list[dict[str, Any]] = field(default_factory=list)
    inserts: list[Row] = field(default_factory=list)
    upserts: list[Row] = field(default_factory=list)
    expect: list[tuple[type[Row], tuple[Any, ...], int | None]] = field(default_factory=list)
    deletes: list[tuple[type[Row], tuple[Any, ...]]] = field(default_factory=list)
    profile_ids: set[str] = field(default_factory=set)


def read_load(shipment_id: str, arguments: Arguments, within: str, session: Session, now_us: int) -> Load:
    """The handling units with their lots. Items must be known, lots are made; a unit must not be on another open shipment."""
    load = Load()
    carrier = queries.shipment_carrier(shipment_id)
    lots: dict[str, Lot] = {}
    entries = list(requests.each(arguments, "handling_units", within=within, most=MOST_UNITS))
    named = [(at, entry, _unit_id(entry, at)) for at, entry in entries]
    known = queries.handling_units(session, [unit_id for _, _, unit_id in named])
    seen: set[str] = set()
    for at, entry, unit_id in named:
        if unit_id in seen:
            raise InvalidArgument("must be unique in its shipment", field=at + "handling_unit_id", value=unit_id)
        seen.add(unit_id)
        sscc = requests.identifier(entry, "sscc", identifiers.sscc, within=at)
        kind = requests.text(entry, "kind", within=at)
        contents = _read_lots(unit_id, entry, at, session, now_us, lots, load)
        load.document.append({"handling_unit_id": unit_id, "sscc": sscc, "kind": kind, "lots": contents})
        before = known.get(unit_id)
        unit = HandlingUnit(handling_unit_id=unit_id, sscc=sscc, kind=kind, carrier=carrier, created_us=now_us, updated_us=now_us)
        if before is None:
            load.inserts.append(unit)
        else:
            _refuse_where_elsewhere(session, before, carrier, at)
            unit.created_us, unit.etag = before.created_us, before.etag + 1
            load.expect.append((HandlingUnit, (unit_id,), before.etag))
            load.upserts.append(unit)
            load.deletes.extend((HandlingUnitLot, (unit_id, lot_id)) for lot_id in queries.lots_in(session, unit_id))
    load.upserts.extend(lots.values())
    return load


def _unit_id(entry: Arguments, at: str) -> str:
    """The unit's own id, else its SSCC."""
    unit_id = requests.identity(entry, "handling_unit_id", within=at, required=False)
    sscc = requests.identifier(entry, "sscc", identifiers.sscc, within=at)
    if not unit_id and not sscc:
        raise InvalidArgument("must be given where there is no SSCC", field=at + "handling_unit_id")
    return unit_id or str(sscc)


def _refuse_where_elsewhere(session: Session, unit: HandlingUnit, carrier: str, at: str) -> None:
    elsewhere = unit.carrier or ""
    if elsewhere == carrier or not elsewhere.startswith("shipment/"):
        return
    other = queries.shipment(session, elsewhere.removeprefix("shipment/"))
    if other is not None and other.shipment.state in OPEN_STATES:
        raise FailedPrecondition(f"is on {elsewhere}, which is open", field=at + "handling_unit_id", value=unit.handling_unit_id)


def _read_lots(
    unit_id: str, entry: Arguments, at: str, session: Session, now_us: int, lots: dict[str, Lot], load: Load
) -> list[dict[str, Any]]:
    """The lots in one unit, as the shipment's document keeps them; makes the lots and their rows on the way."""
    found: list[dict[str, Any]] = []
    for within, content in requests.each(entry, "lots", within=at, most=MOST_LOTS):
        item_id = requests.identity(content, "item_id", within=within)
        item = queries.item(session, item_id)
        if item is None:
            raise NotFound("no such item", field=within + "item_id", value=item_id)
        if item.profile_id:
            load.profile_ids.add(item.profile_id)
        number = requests.text(content, "lot_number", within=within, required=True)
        quantity = requests.quantity(content, "quantity", within=within)
        unit = requests.unit(content, within=within, default=item.unit)
        expires_us = requests.time_us(content, "expiry_us", within=within)
        key = f"{item_id}/{number}"
        if any(one["lot_number"] == number and one["item_id"] == item_id for one in found):
            raise InvalidArgument("must name each lot of an item once", field=within + "lot_number", value=number)
        known = lots.get(key) or queries.lot_of(session, item_id, number)
        if known is None or (known.expires_us is None and expires_us is not None):
            lots[key] = Lot(
                lot_id=key,
                item_id=item_id,
                lot_number=number,
                expires_us=expires_us,
                created_us=now_us if known is None else known.created_us,
                updated_us=now_us,
                etag=1 if known is None else known.etag + 1,
            )
        elif expires_us is not None and known.expires_us != expires_us:
            raise FailedPrecondition("is recorded with another expiry time", field=within + "lot_number", value=number)
        load.upserts.append(HandlingUnitLot(handling_unit_id=unit_id, lot_id=key, quantity=Decimal(quantity), unit=unit))
        found.append({"item_id": item_id, "lot_number": number, "quantity": quantity, "unit": unit, "expiry_us": expires_us})
    return found


def stop_named(stops: Sequence[Stop], stop_id: str, field: str) -> Stop:
    """The stop of that id; NotFound naming the field where the shipment has none such."""
    for stop in stops:
        if stop.stop_id == stop_id:
            return stop
    raise NotFound("the shipment has no such stop", field=field, value=stop_id)
