"""What a batch of movements needs to know of shipments and handling units, and what it changes there.

What a shipment carries is in `handling_unit_lot`, by its own papers or by what was shipped onto it, whichever is more. Receiving takes off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, delete, select

from actors.journal import rows
from actors.journal.stock_goods import Units as ItemUnits
from actors.journal.stock_goods import units_of
from actors.journal.tables import HandlingUnit, HandlingUnitLot, Item, Shipment
from actors.rules import stock
from actors.rules.errors import FailedPrecondition, InvalidArgument, NotFound
from actors.rules.stock import IN_TRANSIT, Book, Line, Movement

UNIT, UNIT_LOT, SHIPMENT, ITEM = (rows.table_of(model) for model in (HandlingUnit, HandlingUnitLot, Shipment, Item))

OPEN_STATES = ("PLANNED", "IN_TRANSIT")


class Units:
    """The shipments that a batch names, the units it names, and what those carry."""

    def __init__(self, connection: Connection, warehouse_id: str, asked: Sequence[Mapping[str, Any]], now_us: int) -> None:
        self._connection, self._warehouse_id, self._now_us = connection, warehouse_id, now_us
        named = sorted({one["shipment_id"] for one in asked if one["shipment_id"]})
        self.shipments: dict[str, str] = {}  # state by id
        self._units: dict[str, dict[str, Any]] = {}
        self._carried: dict[tuple[str, str], tuple[Decimal, str]] = {}  # (unit, lot): quantity and unit of measure
        self._items: dict[str, ItemUnits] = {}
        self._changed_units: set[str] = set()
        self._changed_lots: set[tuple[str, str]] = set()
        for some in rows.chunks(named):
            query = select(SHIPMENT.c.shipment_id, SHIPMENT.c.state).where(SHIPMENT.c.shipment_id.in_(some))
            self.shipments.update((row.shipment_id, row.state) for row in connection.execute(query))
        self._load(asked)

    def _load(self, asked: Sequence[Mapping[str, Any]]) -> None:
        wanted = {one[name] for one in asked for name in ("handling_unit_id", "to_handling_unit_id") if one[name]}
        held = select(UNIT).order_by(UNIT.c.handling_unit_id).with_for_update()
        carriers = [f"shipment/{name}" for name in sorted(self.shipments)]
        for column, names in ((UNIT.c.handling_unit_id, sorted(wanted)), (UNIT.c.carrier, carriers)):
            for some in rows.chunks(names):
                for row in self._connection.execute(held.where(column.in_(some))).mappings():
                    self._units[row["handling_unit_id"]] = dict(row)
        aboard = [name for name, unit in self._units.items() if (unit["carrier"] or "").startswith("shipment/")]
        for some in rows.chunks(sorted(aboard)):
            for row in self._connection.execute(select(UNIT_LOT).where(UNIT_LOT.c.handling_unit_id.in_(some))).mappings():
                self._carried[row["handling_unit_id"], row["lot_id"]] = (row["quantity"], row["unit"])
        items = sorted({stock.item_of(lot_id) for _, lot_id in self._carried})
        for some in rows.chunks(items):
            query = select(ITEM.c.item_id, ITEM.c.unit, ITEM.c.attributes).where(ITEM.c.item_id.in_(some))
            self._items.update({item_id: units_of(item_id, unit, more) for item_id, unit, more in self._connection.execute(query)})

    # ------------------------------------------------------------ questions

    def aboard(self, movement: Movement, book: Book) -> list[tuple[Line, Decimal]]:
        """What the shipment of a receipt carries of the lot, line by line; a line without shipment stands for its papers alone."""
        if movement.kind != "RECEIVE" or not movement.shipment_id:
            return []
        self._known(movement)
        carrier = f"shipment/{movement.shipment_id}"
        names = [name for name, unit in self._units.items() if unit["carrier"] == carrier and (name, movement.lot_id) in self._carried]
        if movement.handling_unit_id:
            if movement.handling_unit_id not in self._units:
                raise NotFound("no such handling unit", field="handling_unit_id", value=movement.handling_unit_id)
            names = [name for name in names if name == movement.handling_unit_id]
        elif len(names) > 1:
            told = f"must be given: the lot is on {', '.join(sorted(names))}"
            raise InvalidArgument(told, field="handling_unit_id")
        found = []
        for name in sorted(names):
            left = self._base(name, movement.lot_id)
            for line, quantity in sorted(book.lines.items()):
                same = (line.lot_id, line.handling_unit_id, line.shipment_id) == (movement.lot_id, name, movement.shipment_id)
                if same and line.status == IN_TRANSIT and quantity > 0 and left > 0:
                    found.append((line, min(quantity, left)))
                    left -= min(quantity, left)
            if left > 0:
                found.append((Line("", "", movement.lot_id, name), left))
        return found

    def check(self, movement: Movement) -> None:
        """Whether shipment and units are such that the movement may be. Raises NotFound, FailedPrecondition, InvalidArgument."""
        if movement.kind == "SHIP" and movement.shipment_id:
            self._known(movement)
            unit_id = movement.to_handling_unit_id or movement.handling_unit_id
            if not unit_id:
                raise InvalidArgument("must be given: goods ride on a handling unit", field="to_handling_unit_id")
            if self.shipments[movement.shipment_id] not in OPEN_STATES:
                told = f"is {self.shipments[movement.shipment_id]}"
                raise FailedPrecondition(told, field="shipment_id", value=movement.shipment_id)
            carrier = (self._units.get(unit_id) or {}).get("carrier") or ""
            if carrier.startswith("shipment/") and carrier != f"shipment/{movement.shipment_id}" and self._loaded(unit_id):
                raise FailedPrecondition(f"is on {carrier}", field="to_handling_unit_id", value=unit_id)

    def _loaded(self, unit_id: str) -> bool:
        return any(name == unit_id and quantity for (name, _), (quantity, _) in self._carried.items())

    def _known(self, movement: Movement) -> None:
        if movement.shipment_id not in self.shipments:
            raise NotFound("no such shipment", field="shipment_id", value=movement.shipment_id)

    def _base(self, unit_id: str, lot_id: str) -> Decimal:
        quantity, unit = self._carried[unit_id, lot_id]
        item = self._items.get(stock.item_of(lot_id))
        return quantity if item is None or unit == item.unit or unit not in item.factors else quantity * item.factors[unit]

    # ------------------------------------------------------------ changes

    def move(self, movement: Movement, book: Book, aboard: Sequence[tuple[Line, Decimal]]) -> None:
        """What a movement that was taken (and is in the book) does to units and their contents."""
        if movement.kind == "SHIP" and movement.shipment_id:
            unit_id = movement.to_handling_unit_id or movement.handling_unit_id
            self._put(unit_id, f"shipment/{movement.shipment_id}")
            # Papers that were written beforehand say what is to be shipped: shipping it does not make it more.
            papers = self._base(unit_id, movement.lot_id) if (unit_id, movement.lot_id) in self._carried else stock.ZERO
            mine = (movement.lot_id, unit_id, movement.shipment_id)
            shipped = (amount for line, amount in book.lines.items() if (line.lot_id, line.handling_unit_id, line.shipment_id) == mine)
            self._carry(unit_id, movement.lot_id, max(papers, sum(shipped, stock.ZERO)))
        elif movement.status == IN_TRANSIT:
            # An ADJUST settles what was short, so that the unit does not carry it any more; or takes a receipt back: it carries it again.
            unit_id = movement.handling_unit_id
            there = (unit_id, movement.lot_id) in self._carried
            if there or (self._units.get(unit_id) or {}).get("carrier") == f"shipment/{movement.shipment_id}":
                rest = (self._base(unit_id, movement.lot_id) if there else stock.ZERO) + movement.quantity
                self._carry(unit_id, movement.lot_id, max(rest, stock.ZERO))
        elif movement.kind == "RECEIVE":
            left = movement.quantity + movement.damaged
            for line, carried in aboard:
                taken = min(left, carried)
                left -= taken
                if taken:
                    rest = self._base(line.handling_unit_id, movement.lot_id) - taken
                    self._carry(line.handling_unit_id, movement.lot_id, rest)
            if movement.to_handling_unit_id:
                self._put(movement.to_handling_unit_id, f"zone/{self._warehouse_id}/{movement.zone_id}")
        elif movement.kind in ("PUT_AWAY", "PICK") and movement.to_handling_unit_id:
            self._put(movement.to_handling_unit_id, f"zone/{self._warehouse_id}/{movement.to_zone_id or movement.zone_id}")

    def _put(self, unit_id: str, carrier: str) -> None:
        """A unit is on a carrier; it is made where it is new. One that still carries goods of a shipment stays on it."""
        unit = self._units.get(unit_id)
        if unit is None:
            sscc = unit_id if unit_id.isdigit() and len(unit_id) == 18 else None
            unit = {
                "handling_unit_id": unit_id, "sscc": sscc, "kind": "", "carrier": carrier, "parent_id": None, "attributes": {},
                "created_us": self._now_us, "updated_us": self._now_us, "etag": 1,
            }  # fmt: skip
        elif unit["carrier"] != carrier:
            if self._loaded(unit_id) and not carrier.startswith("shipment/"):
                return
            unit = {**unit, "carrier": carrier, "updated_us": self._now_us, "etag": unit["etag"] + 1}
        else:
            return
        self._units[unit_id] = unit
        self._changed_units.add(unit_id)

    def _carry(self, unit_id: str, lot_id: str, quantity: Decimal) -> None:
        item = self._items.get(stock.item_of(lot_id))
        base = item.unit if item is not None else self._base_unit(stock.item_of(lot_id))
        self._carried[unit_id, lot_id] = (quantity, base)
        self._changed_lots.add((unit_id, lot_id))

    def _base_unit(self, item_id: str) -> str:
        query = select(ITEM.c.item_id, ITEM.c.unit, ITEM.c.attributes).where(ITEM.c.item_id == item_id)
        found = units_of(*self._connection.execute(query).one())
        self._items[item_id] = found
        return found.unit

    def write(self) -> None:
        """Units and their contents as they are now."""
        rows.upsert(self._connection, UNIT, [self._units[name] for name in sorted(self._changed_units)])
        kept, gone = [], []
        for unit_id, lot_id in sorted(self._changed_lots):
            quantity, unit = self._carried[unit_id, lot_id]
            if quantity > 0:
                kept.append({"handling_unit_id": unit_id, "lot_id": lot_id, "quantity": quantity, "unit": unit})
            else:
                gone.append((unit_id, lot_id))
        rows.upsert(self._connection, UNIT_LOT, kept)
        for unit_id, lot_id in gone:
            self._connection.execute(delete(UNIT_LOT).where((UNIT_LOT.c.handling_unit_id == unit_id) & (UNIT_LOT.c.lot_id == lot_id)))
