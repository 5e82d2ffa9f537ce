"""Deliveries of the SCMS history through the public API: items, a warehouse per country, a shipment per delivery, a receipt per line.

Ids are made from the file's own, so a file that is loaded again makes nothing twice. The lines have no lot numbers: each is a lot of its
own, named by its line.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from cluster.client import Client, Problem
from cluster.importers.scms import UNIT, Line, Read
from waybill.v1 import inventory_pb2, item_pb2, shipment_pb2, warehouse_pb2

ZONE = "IN"
LOTS_OF_UNIT = 100
BATCH = 1_000
CALLERS = 8
LABEL_MAX = 64

AMOUNTS = {
    "weight_kg": "Weight (Kilograms)",
    "freight_usd": "Freight Cost (USD)",
    "insurance_usd": "Line Item Insurance (USD)",
    "value_usd": "Line Item Value",
}
"""Labels of a shipment: the columns that they add up."""

DELIVERED, SCHEDULED = "Delivered to Client Date", "Scheduled Delivery Date"


@dataclass(slots=True)
class Loaded:
    """What was made, and what the API refused."""

    items: int = 0
    warehouses: int = 0
    shipments: int = 0
    receipts: int = 0
    repeated: int = 0
    refused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        made = f"{self.items:,} items, {self.warehouses:,} warehouses, {self.shipments:,} shipments, {self.receipts:,} receipts"
        return f"loaded: {made} ({self.repeated:,} receipts were there before); refused by the API: {len(self.refused):,}"


class Loader:
    """Loads a file that was read. `at(what, done, total)` is told how far it is."""

    def __init__(self, client: Client, prefix: str, at: Callable[[str, int, int], None] = lambda *_: None) -> None:
        self._client, self._prefix, self._at = client, prefix, at
        self.loaded = Loaded()

    def load(self, read: Read) -> Loaded:
        """Items and warehouses, then shipments, then receipts. Raises Problem where the server stays away."""
        lines = list(read.lines())
        items = {(line.item, line.per_pack): line for line in lines}
        self._each("items", list(items.values()), self._item)
        self._each("warehouses", sorted({line.country for line in lines}), self._warehouse)
        self._each("shipments", list(read.deliveries.values()), self._shipment)
        receipts: dict[str, list[Line]] = {}
        for line in lines:
            if line.times_us[DELIVERED] is None:
                self.loaded.refused.append(f"line {line.line_id}: it has no date of delivery, so it was not received")
            else:
                receipts.setdefault(self._warehouse_id(line.country), []).append(line)
        parts = [(name, mine[at : at + BATCH]) for name, mine in receipts.items() for at in range(0, len(mine), BATCH)]
        self._each("receipts", parts, self._receive)
        return self.loaded

    def _each(self, what: str, things: Sequence[Any], make: Callable[[Any], int]) -> None:
        """Make each; what is there already was made by an earlier load of the same file."""
        with ThreadPoolExecutor(CALLERS) as pool:
            for done, made in enumerate(pool.map(make, things), 1):
                setattr(self.loaded, what, getattr(self.loaded, what) + made)
                self._at(what, done, len(things))

    def _make(self, method: Any, request: Any, name: str) -> int:
        try:
            self._client.call(method, request)
        except Problem as problem:
            if problem.reason in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                raise
            self.loaded.refused.append(f"{name}: {problem.message}")
            return 0
        return 1

    def _item(self, line: Line) -> int:
        item = item_pb2.Item(item_id=self._item_id(line), name=line.item[:200], unit="EA")
        if line.per_pack > 1:
            item.units.add(unit=UNIT, factor=str(line.per_pack))
        request = item_pb2.CreateItemRequest(item=item, request_id=item.item_id)
        return self._make(self._client.items.CreateItem, request, f"item {line.item}")

    def _warehouse(self, country: str) -> int:
        body = warehouse_pb2.Warehouse(warehouse_id=self._warehouse_id(country), name=country, zones=[warehouse_pb2.Zone(zone_id=ZONE)])
        request = warehouse_pb2.CreateWarehouseRequest(warehouse=body, request_id=body.warehouse_id)
        return self._make(self._client.warehouses.CreateWarehouse, request, f"warehouse {country}")

    def _shipment(self, lines: list[Line]) -> int:
        first = lines[0]
        shipment_id = self._shipment_id(first)
        shipment = shipment_pb2.Shipment(shipment_id=shipment_id, reference=first.order, labels=_labels(lines))
        shipment.stops.add(stop_id="origin", name=first.vendor[:200])
        due = [us for line in lines if (us := line.times_us[SCHEDULED]) is not None]
        shipment.stops.add(
            stop_id="client",
            name=first.country,
            warehouse_id=self._warehouse_id(first.country),
            planned_arrival_time=_time(max(due, default=None)),
        )
        for at in range(0, len(lines), LOTS_OF_UNIT):
            unit = shipment.handling_units.add(handling_unit_id=f"{shipment_id}.{at // LOTS_OF_UNIT + 1}", kind="delivery")
            for line in lines[at : at + LOTS_OF_UNIT]:
                unit.lots.add(item_id=self._item_id(line), lot_number=line.line_id, **_packs(line))
        request = shipment_pb2.CreateShipmentRequest(shipment=shipment, request_id=shipment_id)
        made = self._make(self._client.shipments.CreateShipment, request, f"shipment {shipment_id}")
        delivered = [us for line in lines if (us := line.times_us[DELIVERED]) is not None]
        if made and delivered:
            arrived = shipment_pb2.Milestone(
                kind=shipment_pb2.MILESTONE_KIND_DELIVERED, time=_time(max(delivered)), actor="scms", stop_id="client"
            )
            told = shipment_pb2.RecordMilestoneRequest(shipment_id=shipment_id, milestone=arrived, request_id=f"{shipment_id}.d")
            self._make(self._client.shipments.RecordMilestone, told, f"shipment {shipment_id}, delivery")
        return made

    def _receive(self, part: tuple[str, list[Line]]) -> int:
        warehouse_id, lines = part
        request = inventory_pb2.RecordMovementsRequest(warehouse_id=warehouse_id)
        for line in lines:
            request.movements.add(
                key=f"{self._prefix}-{line.line_id}",
                kind=inventory_pb2.MOVEMENT_KIND_RECEIVE,
                item_id=self._item_id(line),
                lot_number=line.line_id,
                zone_id=ZONE,
                shipment_id=self._shipment_id(line),
                time=_time(line.times_us[DELIVERED]),
                reference=line.order,
                actor="scms",
                **_packs(line),
            )
        answer = self._client.call(self._client.inventory.RecordMovements, request)
        for line, result in zip(lines, answer.results, strict=True):
            if result.HasField("error"):
                self.loaded.refused.append(f"receipt of line {line.line_id}: {result.error.message}")
        self.loaded.repeated += sum(result.repeated_before for result in answer.results)
        return sum(result.HasField("movement") for result in answer.results)

    def _item_id(self, line: Line) -> str:
        digest = hashlib.blake2b(f"{line.item}|{line.per_pack}".encode(), digest_size=6).hexdigest()
        return f"{self._prefix}-{_word(line.item)[:30]}-{digest}"

    def _warehouse_id(self, country: str) -> str:
        return f"{self._prefix}-{_word(country)}"[:64]

    def _shipment_id(self, line: Line) -> str:
        return f"{self._prefix}-{_word(line.delivery)}-{_word(line.country)}"[:60]


def _packs(line: Line) -> dict[str, str]:
    """The quantity in packs, or in pieces where a pack is one."""
    return {"quantity": str(line.packs), "unit": UNIT if line.per_pack > 1 else "EA"}


def _labels(lines: Sequence[Line]) -> dict[str, str]:
    """What a delivery weighed and cost, where the file tells it of a line."""
    labels = {"mode": lines[0].mode, "vendor": lines[0].vendor[:LABEL_MAX].strip()}
    for name, column in AMOUNTS.items():
        known = [line.amounts[column] for line in lines]
        told = [one for one in known if one is not None]
        if told:
            labels[name] = format(sum(told, Decimal(0)), "f")
            if len(told) < len(known):
                labels[f"{name}_lines"] = f"{len(told)} of {len(known)}"
    return {name: value for name, value in labels.items() if value}


def _word(text: str) -> str:
    """A text as a part of an id: lower-case ASCII letters, digits and hyphens."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "x"


def _time(us: int | None) -> Timestamp | None:
    return None if us is None else Timestamp(seconds=us // 1_000_000, nanos=us % 1_000_000 * 1000)
