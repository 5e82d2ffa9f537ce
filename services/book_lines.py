"""Lines of another system's book in our words: ids through mappings, GTIN and GLN, quantities in base units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from actors.journal import queries_business as business
from actors.journal import queries_stock as queries
from actors.journal.stock_goods import Units, units_of
from actors.journal.tables import Item
from actors.rules import identifiers, stock
from actors.rules.errors import DomainError, InvalidArgument, NotFound
from actors.rules.stock import ANY, BookKey
from services import check
from services.backend import Backend
from waybill.v1 import inventory_pb2


@dataclass(slots=True)
class Told:
    """A book as another system told it: quantities and expiries in our words, and the lines that could not be read."""

    quantities: dict[BookKey, Decimal] = field(default_factory=dict)
    expires_us: dict[str, int] = field(default_factory=dict)
    refused: list[tuple[int, DomainError]] = field(default_factory=list)
    lines: int = 0


async def read_book(backend: Backend, warehouse_id: str, system: str, lines: Sequence[inventory_pb2.BookLine]) -> Told:
    """Lines in our words. Lines with one key add up."""
    book = Told(lines=len(lines))
    found = await backend.read(business.warehouse, warehouse_id)
    if found is None:
        raise NotFound("no such warehouse", field="warehouse_id", value=warehouse_id)
    zones = {zone.zone_id for zone in found[1]}
    items_of = await backend.read(queries.mapped, system, "ITEM", {one.external_item_id for one in lines if one.external_item_id})
    places = await backend.read(queries.mapped, system, "LOCATION", {one.external_location_id for one in lines if one.external_location_id})
    ids = {one.item_id for one in lines if one.item_id} | {row.item_id for row in items_of.values()}
    gtins = {_gtin(one.gtin) for one in lines if one.gtin}
    items: list[Item] = await backend.read(queries.items_by, ids=ids, gtins=gtins - {""})
    units = {item.item_id: units_of(item.item_id, item.unit, item.attributes) for item in items}
    by_gtin = {item.gtin: item.item_id for item in items if item.gtin}
    by_status: dict[tuple[str, str], bool] = {}
    for at, line in enumerate(lines):
        try:
            item = _item(line, units, items_of, by_gtin)
            zone_id = _zone(line, places, zones, warehouse_id)
            status = ANY if line.any_status else check.word(inventory_pb2.StockStatus, line.status) or stock.FREE
            if status == stock.IN_TRANSIT or (line.any_status and line.status):
                raise InvalidArgument("must be a status of goods in a warehouse, or none with any_status", field="status", value=status)
            amount = item.base(stock.text(stock.quantity(line.quantity, "quantity", signed=True, zero=True)), line.unit, "quantity")
            lot_id = stock.lot_id_of(item.item_id, check.text(line.lot_number, "lot_number"))
            expires_us = check.time_us(line, "expiry_time")
            if expires_us is not None and not line.lot_number:
                raise InvalidArgument("needs a lot number", field="expiry_time", value=expires_us)
            if by_status.setdefault((zone_id, lot_id), status != ANY) != (status != ANY):
                told = "must be the same for all lines of a zone and lot: an earlier line tells it the other way"
                raise InvalidArgument(told, field="any_status", value=line.any_status)
        except DomainError as error:
            book.refused.append((at, error))
            continue
        key = BookKey(zone_id, lot_id, status)
        book.quantities[key] = book.quantities.get(key, stock.ZERO) + amount
        if expires_us is not None:
            book.expires_us[lot_id] = expires_us
    return book


def _gtin(text: str) -> str:
    try:
        return identifiers.gtin(text).zfill(14)
    except DomainError:
        return ""


def _item(line: inventory_pb2.BookLine, units: Mapping[str, Units], mapped: Mapping[str, Any], by_gtin: Mapping[str, str]) -> Units:
    name = check.one_of(line, ("item_id", "external_item_id", "gtin"))
    value = getattr(line, name)
    if name == "gtin":
        identifiers.gtin(value, "gtin")
        item_id = by_gtin.get(value.zfill(14), "")
    else:
        item_id = value if name == "item_id" else (mapped[value].item_id if value in mapped else "")
    if item_id not in units:
        raise NotFound("no such item" if name != "external_item_id" else "is not mapped to an item", field=name, value=value)
    return units[item_id]


def _zone(line: inventory_pb2.BookLine, mapped: Mapping[str, Any], zones: set[str], warehouse_id: str) -> str:
    name = check.one_of(line, ("zone_id", "external_location_id"))
    value = str(getattr(line, name))
    if name == "zone_id":
        if value not in zones:
            raise NotFound("the warehouse has no such zone", field=name, value=value)
        return value
    place = mapped.get(value)
    if place is None or place.warehouse_id != warehouse_id or place.zone_id not in zones:
        raise NotFound("is not mapped to a zone of this warehouse", field=name, value=value)
    return str(place.zone_id)
