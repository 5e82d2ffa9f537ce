"""What a batch of movements needs to know of goods: items with their units, lots with their expiry, pieces with their serial numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, func, select, tuple_

from actors.journal import rows
from actors.journal.once import Once, among, listed
from actors.journal.tables import Item, Lot, Serial
from actors.journal.tables import Mapping as MappingRow
from actors.rules import stock
from actors.rules.errors import FailedPrecondition, InvalidArgument, NotFound
from actors.rules.stock import Book, Found, Line, Movement

ITEM, LOT, SERIAL, MAPPING = (rows.table_of(model) for model in (Item, Lot, Serial, MappingRow))


def _pieces(dialect: str) -> Any:
    """How many pieces are known by number, by place."""
    place = (SERIAL.c.warehouse_id, SERIAL.c.zone_id, SERIAL.c.shipment_id, SERIAL.c.lot_id)
    mine = among(SERIAL.c.item_id, dialect, "items") & among(SERIAL.c.lot_id, dialect)
    return select(*place, func.count()).where(mine).group_by(*place)


_LOTS, _PIECES = Once(lambda dialect: select(LOT).where(among(LOT.c.lot_id, dialect))), Once(_pieces)

LEAVES = frozenset({"SHIP", "SCRAP"})
"""Kinds after which a piece is not in the warehouse any more."""

UNLOADS = frozenset({"PUT_AWAY", "RECEIVE"})
"""Kinds after which a piece is on no other handling unit than the one that it is put on."""


@dataclass(frozen=True, slots=True)
class Units:
    """An item's units of measure: its base unit, and how many of it one of each other unit is."""

    item_id: str
    unit: str
    factors: Mapping[str, Decimal] = field(default_factory=dict)

    def base(self, quantity: str, unit: str, name: str) -> Decimal:
        """A quantity as told, in the base unit."""
        return stock.convert(Decimal(quantity or 0), unit, self.unit, self.factors, name)


def units_of(item_id: str, unit: str, attributes: Mapping[str, Any] | None) -> Units:
    """The units of an item's row."""
    return Units(item_id, unit, {one["unit"]: Decimal(one["factor"]) for one in (attributes or {}).get("units", [])})


def _place(piece: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Where a piece is: warehouse, zone, shipment and lot."""
    return tuple(piece[name] for name in ("warehouse_id", "zone_id", "shipment_id", "lot_id")) if piece else ()


def _place_of(line: Line) -> tuple[str, ...]:
    """The place of pieces on a line of stock: aboard a shipment they are in no warehouse."""
    return ("", "", line.shipment_id, line.lot_id) if line.shipment_id else (line.warehouse_id, line.zone_id, "", line.lot_id)


class Goods:
    """Items, lots and pieces of one batch."""

    def __init__(self, connection: Connection, asked: Sequence[Mapping[str, Any]], now_us: int) -> None:
        self._connection, self._now_us = connection, now_us
        self.items: dict[str, Units] = {}
        self._by_gtin: dict[str, str] = {}
        self._mapped: dict[tuple[str, str], str] = {}
        self._load_items(asked)
        self._load_pieces(asked)
        self.lots: dict[str, dict[str, Any]] = {}
        self.expires_us: dict[str, int] = {}
        self._new_lots: dict[str, dict[str, Any]] = {}
        self._moved: dict[tuple[str, str], dict[str, Any]] = {}
        self._known: Counter[tuple[str, ...]] = Counter()
        """How many pieces are known by their numbers, by warehouse, zone, shipment and lot."""

    def _load_items(self, asked: Sequence[Mapping[str, Any]]) -> None:
        systems = sorted({(one["system"], "ITEM", one["item_id"]) for one in asked if one["system"] and one["item_id"]})
        for some in rows.chunks(systems):
            key = tuple_(MAPPING.c.system, MAPPING.c.kind, MAPPING.c.external_id)
            for system, external, item_id in self._connection.execute(
                select(MAPPING.c.system, MAPPING.c.external_id, MAPPING.c.item_id).where(key.in_(some))
            ):
                self._mapped[system, external] = item_id
        columns = select(ITEM.c.item_id, ITEM.c.unit, ITEM.c.attributes, ITEM.c.gtin)
        wanted = {one["item_id"] for one in asked if one["item_id"]} | set(self._mapped.values())
        for some in rows.chunks(sorted(wanted)):
            self._take(columns.where(ITEM.c.item_id.in_(some)))
        for some in rows.chunks(sorted({one["gtin"] for one in asked if one["gtin"]})):
            self._take(columns.where(ITEM.c.gtin.in_(some)))

    def _take(self, query: Any) -> None:
        for item_id, unit, attributes, gtin in self._connection.execute(query):
            self.items[item_id] = units_of(item_id, unit, attributes)
            if gtin:
                self._by_gtin[gtin] = item_id

    def _id_of(self, one: Mapping[str, Any]) -> str:
        if one["item_id"]:
            return self._mapped.get((one["system"], one["item_id"]), str(one["item_id"]))
        return self._by_gtin.get(one["gtin"], "")

    def item_of(self, one: Mapping[str, Any]) -> Units:
        """The item of a movement. Raises NotFound."""
        found = self.items.get(self._id_of(one))
        if found is None:
            name = "item_id" if one["item_id"] else "gtin"
            raise NotFound("no such item", field=name, value=one[name])
        return found

    def lot_of(self, one: Mapping[str, Any]) -> str:
        """The lot of a movement; "" where its item is not known."""
        item_id = self._id_of(one)
        return stock.lot_id_of(item_id, one["lot_number"]) if item_id in self.items else ""

    # ------------------------------------------------------------ lots

    def load_lots(self, lot_ids: Iterable[str]) -> None:
        """The lots that are there, and how many of their pieces are known where; the lots' rows are held by the caller."""
        ids = listed(self._connection, sorted(lot_ids))
        for values in _LOTS.rows(self._connection, {"some": ids}):
            row = dict(zip(LOT.columns.keys(), values, strict=True))
            self.lots[row["lot_id"]] = row
            if row["expires_us"] is not None:
                self.expires_us[row["lot_id"]] = row["expires_us"]
        items = listed(self._connection, sorted({stock.item_of(lot_id) for lot_id in lot_ids}))
        for *place, count in _PIECES.rows(self._connection, {"items": items, "some": ids}):
            self._known[tuple(place)] = count

    def check_expiry(self, lot_id: str, one: Mapping[str, Any]) -> None:
        """A lot has one expiry, and goods without lot have none."""
        told = one["expiry_us"]
        if told is None:
            return
        if not one["lot_number"]:
            raise InvalidArgument("needs a lot number", field="expiry_time", value=told)
        known = self.expires_us.get(lot_id)
        if known is not None and known != told:
            raise FailedPrecondition("is recorded with another expiry time", field="lot_number", value=one["lot_number"])

    def keep(self, lot_id: str, one: Mapping[str, Any], pieces: Sequence[dict[str, Any]], found: Found) -> None:
        """What a movement makes known of its lot and its pieces."""
        told = one["expiry_us"]
        if lot_id not in self.lots or (told is not None and lot_id not in self.expires_us):
            known = self.lots.get(lot_id)
            item_id = stock.item_of(lot_id)
            row = {
                "lot_id": lot_id, "item_id": item_id, "lot_number": lot_id[len(item_id) + 1 :], "expires_us": told, "attributes": {},
                "created_us": self._now_us, "updated_us": self._now_us, "etag": 1,
            } if known is None else {**known, "expires_us": told, "updated_us": self._now_us, "etag": known["etag"] + 1}  # fmt: skip
            self.lots[lot_id] = self._new_lots[lot_id] = row
            if told is not None:
                self.expires_us[lot_id] = told
        for piece in pieces:
            key = piece["item_id"], piece["serial"]
            self._known[_place(self._pieces.get(key))] -= 1
            self._known[_place(piece)] += 1
            self._moved[key] = self._pieces[key] = piece

    def write_lots(self) -> None:
        """New lots, and expiries that became known: before what names them. One that another warehouse makes meanwhile stays as it is."""
        new = [row for row in self._new_lots.values() if row["expires_us"] is None]
        rows.insert_missing(self._connection, LOT, new)
        rows.upsert(self._connection, LOT, [row for row in self._new_lots.values() if row["expires_us"] is not None])

    # ------------------------------------------------------------ serial numbers

    def _load_pieces(self, asked: Sequence[Mapping[str, Any]]) -> None:
        self._pieces: dict[tuple[str, str], dict[str, Any]] = {}
        wanted = {(self._id_of(one), serial) for one in asked for serial in one["serials"]}
        for some in rows.chunks(sorted(wanted)):
            query = select(SERIAL).where(tuple_(SERIAL.c.item_id, SERIAL.c.serial).in_(some)).order_by(SERIAL.c.item_id, SERIAL.c.serial)
            for row in self._connection.execute(query.with_for_update()).mappings():
                self._pieces[row["item_id"], row["serial"]] = dict(row)

    def pieces(self, one: Mapping[str, Any], movement: Movement) -> list[dict[str, Any]]:
        """The pieces of a movement as they are after it. Raises InvalidArgument, FailedPrecondition."""
        serials = one["serials"]
        if not serials:
            return []
        item_id = stock.item_of(movement.lot_id)
        if len(set(serials)) != len(serials):
            raise InvalidArgument("must not name a piece twice", field="serials", value=len(serials))
        if abs(movement.quantity) + movement.damaged != len(serials):
            told = f"must be as many as the quantity in base units ({stock.text(abs(movement.quantity) + movement.damaged)})"
            raise InvalidArgument(told, field="serials", value=len(serials))
        comes = movement.kind == "RECEIVE" or (movement.kind == "ADJUST" and movement.quantity > 0)
        goes = movement.kind in LEAVES or (movement.kind == "ADJUST" and movement.quantity < 0)
        aboard = movement.status == stock.IN_TRANSIT
        here = ("", "", movement.shipment_id, movement.lot_id) if aboard else (movement.warehouse_id, movement.zone_id, "", movement.lot_id)
        outside = goes or aboard
        after = {
            "warehouse_id": "" if outside else movement.warehouse_id, "zone_id": "" if outside else movement.to_zone_id or movement.zone_id,
            "handling_unit_id": movement.to_handling_unit_id or ("" if movement.kind in UNLOADS else movement.handling_unit_id),
            "shipment_id": movement.shipment_id if movement.kind == "SHIP" or (aboard and comes) else "", "lot_id": movement.lot_id,
            "updated_us": self._now_us,
        }  # fmt: skip
        found = []
        for serial in serials:
            there = self._pieces.get((item_id, serial))
            inside = there is not None and bool(there["warehouse_id"])
            if comes and inside and there is not None:
                told = f"is in {there['warehouse_id']}/{there['zone_id']} already"
                raise FailedPrecondition(told, field="serials", value=serial)
            if not comes and (there is None or _place(there) != here):
                raise FailedPrecondition("is not there", field="serials", value=serial)
            found.append({"item_id": item_id, "serial": serial, **after})
        return found

    def check_named(self, found: Found, pieces: Sequence[Mapping[str, Any]], book: Book) -> None:
        """Pieces that are known by serial number do not leave a zone or a shipment unnamed. Raises FailedPrecondition.

        A movement may take unnamed what the known pieces leave over; so they are never more than the quantity there.
        """
        more: dict[tuple[str, ...], Decimal] = {}
        for line, quantity in found.legs:
            place = _place_of(line)
            more[place] = more.get(place, stock.ZERO) + quantity
        for place, change in more.items():
            if change >= 0 or not self._known[place]:
                continue
            known = self._known[place] - sum(_place(self._pieces.get((one["item_id"], one["serial"]))) == place for one in pieces)
            left = change + sum((amount for line, amount in book.lines.items() if _place_of(line) == place), stock.ZERO)
            if known > max(left, stock.ZERO):
                told = f"must name the pieces: {known} pieces there are known by serial number, {stock.text(left)} would be left"
                raise FailedPrecondition(told, field="serials", value=len(pieces))

    def write_serials(self) -> None:
        """Where the pieces are now."""
        rows.upsert(self._connection, SERIAL, list(self._moved.values()))
