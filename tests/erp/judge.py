"""Are the two books one, and was nothing booked twice? Reads Tryton's own tables by SQL and Waybill by its public API, and shares no code
with the connector.

    python -m tests.erp.judge TRYTON.sqlite HOST:PORT
"""

from __future__ import annotations

import sqlite3
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc

from waybill.v1 import inventory_pb2, inventory_pb2_grpc

SYSTEM = "tryton"
Line = tuple[str, str, str, str]
"""Warehouse, zone, item, lot number."""

PLACES = """
    WITH RECURSIVE inside(id, warehouse) AS (
        SELECT id, id FROM stock_location WHERE type = 'warehouse'
        UNION ALL SELECT l.id, inside.warehouse FROM stock_location l JOIN inside ON l.parent = inside.id)
    SELECT l.id, w.code, w.id, l.code FROM inside JOIN stock_location l ON l.id = inside.id
    JOIN stock_location w ON w.id = inside.warehouse WHERE l.type = 'storage'"""

MOVES = """
    SELECT m.id, m.from_location, m.to_location, m.internal_quantity, p.id, p.code, coalesce(t.number, ''),
           coalesce(i.reference, n.reference, o.reference, '')
    FROM stock_move m JOIN product_product p ON p.id = m.product LEFT JOIN stock_lot t ON t.id = m.lot
    LEFT JOIN stock_shipment_in i ON m.shipment = 'stock.shipment.in,' || i.id
    LEFT JOIN stock_shipment_internal n ON m.shipment = 'stock.shipment.internal,' || n.id
    LEFT JOIN stock_shipment_out o ON m.shipment = 'stock.shipment.out,' || o.id
    WHERE m.state = 'done'"""


@dataclass
class Verdict:
    """What was found. Everything but the counts must be empty."""

    lines: int = 0
    moves: int = 0
    movements: int = 0
    booked: int = 0
    differences: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    pickable: list[str] = field(default_factory=list)
    """Lots on hold that Tryton would let be picked."""

    @property
    def clean(self) -> bool:
        return not (self.differences or self.doubled or self.missing or self.pickable)

    def __str__(self) -> str:
        told = f"{self.lines:,} lines of stock, {self.moves:,} done moves in Tryton, {self.movements:,} movements in Waybill, "
        told += f"{self.booked:,} of them booked in Tryton: {len(self.differences)} differences, {len(self.doubled)} doubled, "
        told += f"{len(self.missing)} missing, {len(self.pickable)} pickable though on hold"
        shown = [*self.differences[:10], *self.doubled[:10], *self.missing[:10], *self.pickable[:10]]
        return "\n".join([told, *("  " + line for line in shown)])


@dataclass
class Tryton:
    """Tryton's side: stock by line, what of it is pickable, done moves of its own by id, done documents of ours by key."""

    stock: dict[Line, Decimal]
    free: dict[Line, Decimal]
    own: dict[str, tuple[set[str], Decimal]]
    documents: Counter[str]
    moves: int


def read_tryton(file: Path) -> Tryton:
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)
    try:
        zones: dict[int, tuple[str, str]] = {}
        aside: dict[int, int] = {}
        for place, warehouse, warehouse_number, code in connection.execute(PLACES):
            if (code or "").startswith("WB-HOLD-"):
                aside[place] = int(code.removeprefix("WB-HOLD-"))
            else:
                zones[place] = (warehouse or f"{SYSTEM}-{warehouse_number}", code or f"{SYSTEM}-{place}")
        found = Tryton(defaultdict(Decimal), defaultdict(Decimal), {}, Counter(), 0)
        for number, from_place, to_place, quantity, product, code, lot, reference in connection.execute(MOVES):
            found.moves += 1
            amount, item = Decimal(str(quantity)), code or f"{SYSTEM}-{product}"
            ends = []
            for place, sign in ((from_place, -1), (to_place, 1)):
                zone = zones.get(aside.get(place, place))
                ends.append(zone)
                if zone is not None:
                    found.stock[*zone, item, lot] += sign * amount
                    if place not in aside:
                        found.free[*zone, item, lot] += sign * amount
            if reference.startswith("waybill:movement|"):
                found.documents[reference.removeprefix("waybill:")] += 1
            elif ends[0] != ends[1] and amount and not reference.startswith("waybill:"):
                found.own[str(number)] = ({zone[0] for zone in ends if zone}, amount)
        return found
    finally:
        connection.close()


@dataclass
class Waybill:
    """Waybill's side: stock by line, movements per warehouse, lots on hold."""

    stock: dict[Line, Decimal]
    movements: dict[tuple[str, str], Any]
    on_hold: set[Line]


def read_waybill(target: str, warehouses: set[str]) -> Waybill:
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = inventory_pb2_grpc.InventoryServiceStub(channel)
        found = Waybill(defaultdict(Decimal), {}, set())
        for warehouse in sorted(warehouses):
            for line in pages(stub.ListStock, inventory_pb2.ListStockRequest(warehouse_id=warehouse), "lines"):
                if line.zone_id:
                    where = (warehouse, line.zone_id, line.item_id, line.lot_number)
                    found.stock[where] += Decimal(line.quantity)
                    if line.on_hold:
                        found.on_hold.add(where)
            for movement in pages(stub.ListMovements, inventory_pb2.ListMovementsRequest(warehouse_id=warehouse), "movements"):
                found.movements[warehouse, movement.key] = movement
        return found


def pages(method: Any, request: Any, name: str) -> Iterator[Any]:
    request.page_size = 1_000
    while True:
        answer = method(request, timeout=60)
        yield from getattr(answer, name)
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def judge(file: Path, target: str) -> Verdict:
    """Compare the two."""
    tryton = read_tryton(file)
    warehouses = {line[0] for line in tryton.stock}
    waybill = read_waybill(target, warehouses)
    lines = {line for line in tryton.stock.keys() | waybill.stock.keys() if tryton.stock.get(line) or waybill.stock.get(line)}
    verdict = Verdict(lines=len(lines), moves=tryton.moves, movements=len(waybill.movements))
    for line in sorted(lines):
        here, there = waybill.stock.get(line, Decimal(0)), tryton.stock.get(line, Decimal(0))
        if here != there:
            verdict.differences.append(f"{'/'.join(line)}: Waybill {here}, Tryton {there}")
        if line in waybill.on_hold and tryton.free.get(line):
            verdict.pickable.append(f"{'/'.join(line)}: {tryton.free[line]}")
    undone = {(warehouse, undone_key(key)) for warehouse, key in waybill.movements if key.startswith(f"{SYSTEM}/undo/")}
    _own_moves_of_tryton(verdict, tryton, waybill, undone)
    _own_movements_of_waybill(verdict, tryton, waybill, undone)
    return verdict


def undone_key(key: str) -> str:
    return key.removeprefix(f"{SYSTEM}/undo/").rpartition("/")[0]


def _own_moves_of_tryton(verdict: Verdict, tryton: Tryton, waybill: Waybill, undone: set[tuple[str, str]]) -> None:
    """Each done move stands once in the ledger of each warehouse that it touches, and nothing stands there that is not done."""
    for number, (warehouses, _) in tryton.own.items():
        for warehouse in warehouses:
            key = (warehouse, f"{SYSTEM}/move/{number}")
            if key not in waybill.movements or key in undone:
                verdict.missing.append(f"move {number} of Tryton in {warehouse}")
    for warehouse, key in waybill.movements:
        number = key.removeprefix(f"{SYSTEM}/move/")
        if number != key and number not in tryton.own and (warehouse, key) not in undone:
            verdict.doubled.append(f"{warehouse} {key}: is not done in Tryton")


def _own_movements_of_waybill(verdict: Verdict, tryton: Tryton, waybill: Waybill, undone: set[tuple[str, str]]) -> None:
    """Each movement that changes what lies in a zone is done in Tryton once, but where it was cancelled there and undone here."""
    for (warehouse, key), movement in waybill.movements.items():
        if movement.system == SYSTEM:
            continue
        sums: dict[str, Decimal] = defaultdict(Decimal)
        for leg in movement.legs:
            if leg.zone_id:
                sums[leg.zone_id] += Decimal(leg.quantity)
        wanted = int(any(sums.values()) and (warehouse, key) not in undone)
        times = tryton.documents.pop(f"movement|{warehouse}|{key}", 0)
        verdict.booked += bool(times)
        if times > wanted:
            verdict.doubled.append(f"{warehouse} {key}: done {times} times in Tryton")
        elif times < wanted:
            verdict.missing.append(f"{warehouse} {key} of Waybill")
    verdict.doubled += [f"{key}: in Tryton, but not in Waybill's ledger" for key in tryton.documents]


if __name__ == "__main__":
    result = judge(Path(sys.argv[1]), sys.argv[2])
    print(result)
    sys.exit(not result.clean)
