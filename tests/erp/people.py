"""People at work on both sides, by chance from a seed: what they do must end up in both books, whatever dies meanwhile."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from services.erp.jsonrpc import TrytonRpc
from services.erp.waybill import Access, ApiRefused, Waybill
from services.outside import Away, OutsideError
from tests.erp.tryton_server import PASSWORD
from waybill.v1 import inventory_pb2

KINDS = inventory_pb2.MovementKind


class Clerk:
    """Works in Tryton: receives, moves, ships, corrects, edits drafts, cancels what is done, and deletes what is cancelled."""

    def __init__(self, url: str, seed: int) -> None:
        self._rpc = TrytonRpc(url, "clerk", lambda: PASSWORD, read_s=15)
        self._chance = random.Random(seed)
        self.did: Counter[str] = Counter()
        self._look()

    def _look(self) -> None:
        rows = self.patient("model.stock.location.search_read", [], 0, None, None, ["code", "type"])
        self.rooms = [row["id"] for row in rows if (row["code"] or "").startswith("COLD-")]
        self.kinds = {row["type"]: row["id"] for row in reversed(rows)}
        lots = self.patient("model.stock.lot.search_read", [], 0, None, [["id", "ASC"]], ["number", "product", "product.default_uom"])
        self.lots = [(row["id"], row["product"], row["product."]["default_uom"]) for row in lots]
        self._party = self.patient("model.party.party.search_read", [["code", "=", "CUSTOMER"]], 0, 1, None, ["addresses"])[0]
        self._company = self.patient("model.company.company.search_read", [], 0, 1, None, ["currency"])[0]
        first = self.patient(
            "model.stock.move.search_read", [["state", "=", "done"]], 0, len(self.lots), [["id", "ASC"]], ["lot", "to_location"]
        )
        self._home = {row["lot"]: row["to_location"] for row in first}
        self._opening = max(row["id"] for row in first)
        """The last move of the first stock: it is not taken back, for what has gone since would be missing then."""
        self._busy = self.lots[: max(4, len(self.lots) // 20)]
        """Lots that both sides work on all the time."""

    def patient(self, method: str, *arguments: Any) -> Any:
        """A call by a person who tries again until Tryton is back."""
        until = time.monotonic() + 60
        while True:
            try:
                return self._rpc.call(method, *arguments)
            except Away:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    def act(self) -> bool:
        """One thing that a person does; whether Tryton took it (it refuses what is on hold, for one).

        Stock is taken where a lot's first stock lies, so that no two people take the last piece: what then is to happen has its own test.
        """
        deeds = (self.receive, self.move, self.ship, self.correct, self.edit, self.cancel, self.delete)
        deed: Callable[[], None] = self._chance.choice(deeds)
        try:
            deed()
            self.did[deed.__name__] += 1
            return True
        except OutsideError as error:
            if isinstance(error, Away):
                raise
            self.did["refused"] += 1
            return False

    def _lot(self) -> tuple[int, int, int]:
        return self._chance.choice(self._busy if self._chance.random() < 0.6 else self.lots)

    def _what(self) -> dict[str, Any]:
        lot, product, unit = self._lot()
        quantity = float(self._chance.randrange(1, 6))
        return {"lot": lot, "product": product, "unit": unit, "quantity": quantity, "company": self._company["id"]}

    def _price(self) -> dict[str, Any]:
        return {"unit_price": Decimal(1), "currency": self._company["currency"]}

    def receive(self) -> None:
        move = {**self._what(), **self._price(), "from_location": self.kinds["supplier"], "to_location": self._chance.choice(self.rooms)}
        made = self.patient("model.stock.move.create", [move])
        self.patient("model.stock.move.do", made)

    def edit(self) -> None:
        """A draft, changed before it is done."""
        move = {**self._what(), **self._price(), "from_location": self.kinds["supplier"], "to_location": self._chance.choice(self.rooms)}
        made = self.patient("model.stock.move.create", [move])
        self.patient("model.stock.move.write", made, {"quantity": move["quantity"] + 1, "to_location": self._chance.choice(self.rooms)})
        self.patient("model.stock.move.do", made)

    def _internal(self, to_place: int | None) -> None:
        """From where the goods lie to a place, or to another room."""
        what = self._what()
        home = self._home[what["lot"]]
        to_place = to_place or self._chance.choice([room for room in self.rooms if room != home])
        ends = {"from_location": home, "to_location": to_place, "company": self._company["id"]}
        made = self.patient("model.stock.shipment.internal.create", [{**ends, "moves": [["create", [{**what, **ends}]]]}])
        for step in ("wait", "assign_try"):
            self.patient(f"model.stock.shipment.internal.{step}", made)
        self.patient("model.stock.shipment.internal.do", made)  # refused where there is not enough, or it is on hold

    def move(self) -> None:
        self._internal(None)

    def correct(self) -> None:
        if self._chance.random() < 0.5:
            self._internal(self.kinds["lost_found"])
        else:
            move = {**self._what(), "from_location": self.kinds["lost_found"], "to_location": self._chance.choice(self.rooms)}
            made = self.patient("model.stock.move.create", [move])
            self.patient("model.stock.move.do", made)

    def ship(self) -> None:
        what = self._what()
        room = self._home[what["lot"]]
        move = {**what, **self._price(), "from_location": room, "to_location": self.kinds["customer"]}
        warehouse = self._warehouse(room)
        document = {
            "customer": self._party["id"], "delivery_address": self._party["addresses"][0], "company": self._company["id"],
            "warehouse": warehouse, "warehouse_storage": room, "warehouse_output": room, "moves": [["create", [move]]],
        }  # fmt: skip
        made = self.patient("model.stock.shipment.out.create", [document])
        for step in ("wait", "assign_try", "pack", "do"):
            self.patient(f"model.stock.shipment.out.{step}", made)

    def _warehouse(self, place: int) -> int:
        while True:
            row = self.patient("model.stock.location.read", [place], ["parent", "type"])[0]
            if row["type"] == "warehouse":
                return int(place)
            place = row["parent"]

    def _newer(self) -> list[list[Any]]:
        return [["state", "=", "done"], ["id", ">", self._opening]]

    def cancel(self) -> None:
        """A move that was done is taken back: it may be Waybill's own."""
        asides = self._asides()
        wanted = [*self._newer(), ["from_location", "not in", asides], ["to_location", "not in", asides]]
        newest = self.patient("model.stock.move.search_read", wanted, 0, 60, [["id", "DESC"]], ["shipment"])
        if not newest:
            return
        chosen = self._chance.choice(newest)
        model, _, document = (chosen["shipment"] or f"stock.move,{chosen['id']}").partition(",")
        self.patient(f"model.{model}.cancel", [int(document)])

    def delete(self) -> None:
        """Cancelled and deleted at once, so that only its absence tells."""
        wanted = [*self._newer(), ["shipment", "=", None]]
        newest = self.patient("model.stock.move.search", wanted, 0, 40, [["id", "DESC"]])
        if newest:
            chosen = [self._chance.choice(newest)]
            self.patient("model.stock.move.cancel", chosen)
            self.patient("model.stock.move.delete", chosen)

    def _asides(self) -> list[int]:
        return self.patient("model.stock.location.search", [["code", "like", "WB-HOLD-%"]])  # type: ignore[no-any-return]


class Storeman:
    """Works in Waybill."""

    def __init__(self, target: str, seed: int, zones: dict[str, list[str]], lots: list[tuple[str, str]]) -> None:
        """`zones`: those of each warehouse; `lots`: (item, lot number), busy ones first. Stock is taken where most of a lot lies."""
        self._waybill = Waybill(Access(target))
        self._chance = random.Random(seed)
        self._zones = zones
        self._numbers = itertools.count()
        self._name = f"p{seed}"
        self.did: Counter[str] = Counter()
        self._home: dict[tuple[str, str], tuple[str, str]] = {}
        most: dict[tuple[str, str], Decimal] = {}
        for warehouse_id in zones:
            request = inventory_pb2.ListStockRequest(warehouse_id=warehouse_id)
            for line in self._waybill.pages(self._waybill.inventory.ListStock, request, "lines"):
                lot, amount = (line.item_id, line.lot_number), Decimal(line.quantity)
                if line.zone_id in zones[warehouse_id] and amount > most.get(lot, Decimal(0)):
                    most[lot], self._home[lot] = amount, (warehouse_id, line.zone_id)
        self._lots = [lot for lot in lots if lot in self._home]
        self._busy = self._lots[: max(4, len(self._lots) // 20)]

    def act(self) -> bool:
        """One movement; whether it was recorded (a refusal, for there is not so much, is let be)."""
        item, lot = self._chance.choice(self._busy if self._chance.random() < 0.6 else self._lots)
        warehouse, zone = self._home[item, lot]
        kinds = ["RECEIVE", "SHIP", "ADJUST", "COUNT", "HOLD", "RELEASE", "SCRAP", "RESERVE"]
        kind = self._chance.choice(kinds + ["PUT_AWAY"] * (2 * (len(self._zones[warehouse]) > 1)))
        quantity = str(self._chance.randrange(1, 6))
        movement = inventory_pb2.Movement(
            warehouse_id=warehouse, key=f"{self._name}-{next(self._numbers)}", kind=KINDS.Value(f"MOVEMENT_KIND_{kind}"), item_id=item,
            lot_number=lot, quantity=quantity, zone_id=zone, actor="storeman",
        )  # fmt: skip
        if kind in ("SHIP", "SCRAP"):
            movement.status = inventory_pb2.STOCK_STATUS_FREE
        if kind in ("ADJUST", "SCRAP"):
            movement.reason = "found so"
        if kind == "ADJUST" and self._chance.random() < 0.5:
            movement.quantity = f"-{quantity}"
        if kind == "PUT_AWAY":
            movement.to_zone_id = self._chance.choice([other for other in self._zones[warehouse] if other != zone])
        if kind == "COUNT":
            there = self._there(warehouse, zone, item, lot)
            movement.quantity = format(max(there + self._chance.randrange(-2, 3), Decimal(0)), "f")
        try:
            self._waybill.call(self._waybill.inventory.RecordMovement, inventory_pb2.RecordMovementRequest(movement=movement))
        except ApiRefused as refused:
            if refused.reason not in ("FAILED_PRECONDITION", "NOT_FOUND"):
                raise
            self.did["refused"] += 1
            return False
        self.did[kind] += 1
        return True

    def _there(self, warehouse: str, zone: str, item: str, lot: str) -> Decimal:
        request = inventory_pb2.ListStockRequest(warehouse_id=warehouse, zone_id=zone, item_id=item, lot_number=lot)
        lines = self._waybill.call(self._waybill.inventory.ListStock, request).lines
        return sum((Decimal(line.quantity) for line in lines if line.status == inventory_pb2.STOCK_STATUS_FREE), Decimal(0))

    def close(self) -> None:
        self._waybill.close()
