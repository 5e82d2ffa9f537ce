"""Waybill's ledger against the ERP's book, line by line, through the public API: a dry run of `Sync`, which records nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

import grpc

from services.erp.connector import Connector
from services.erp.waybill import Mappings, Waybill, refusal
from waybill.v1 import inventory_pb2

LINES = 5_000
"""Of a message."""
TIMEOUT_S = 600.0

Place = tuple[str, str, str]
"""Zone, item, lot number."""


@dataclass
class Report:
    """What came out. `unknown`: lines of the ERP whose item or place means nothing here."""

    equal: int = 0
    differences: list[tuple[str, inventory_pb2.BookDifference]] = field(default_factory=list)
    unknown: int = 0
    refused: list[str] = field(default_factory=list)


def book_of(connector: Connector, mappings: Mappings) -> tuple[dict[str, dict[Place, Decimal]], int]:
    """The ERP's book in our words, by warehouse; and how many of its lines mean nothing here."""
    book: dict[str, dict[Place, Decimal]] = {warehouse_id: {} for warehouse_id, zone_id in mappings.zones().values() if zone_id}
    unknown = 0
    for line in connector.book():
        zone, item_id = mappings.zone_of(line.place_id), mappings.item_of(line.item_id)
        if zone is None or item_id is None:
            unknown += 1
            continue
        place = (zone[1], item_id, line.lot_number)
        book[zone[0]][place] = book[zone[0]].get(place, Decimal(0)) + line.quantity
    return book, unknown


def reconcile(waybill: Waybill, connector: Connector, mappings: Mappings, name: str, now_us: int) -> Report:
    """Compare. `name` tells this comparison from others. Raises OutsideError, ApiRefused."""
    report = Report()
    books, report.unknown = book_of(connector, mappings)
    for warehouse_id, book in sorted(books.items()):
        header = inventory_pb2.SyncHeader(
            warehouse_id=warehouse_id,
            system=connector.system,
            sync_id=f"{name}/{warehouse_id}"[:64],
            scope=inventory_pb2.SYNC_SCOPE_FULL,
            dry_run=True,
        )
        header.as_of_time.FromMicroseconds(now_us)
        try:
            for answer in waybill.inventory.Sync(_requests(header, book), timeout=TIMEOUT_S):
                if answer.HasField("difference"):
                    report.differences.append((warehouse_id, answer.difference))
                elif answer.HasField("refusal"):
                    report.refused.append(f"{warehouse_id}: {answer.refusal.error.message}")
                else:
                    report.equal += answer.summary.equal
        except grpc.RpcError as error:
            raise refusal(error) from None
    return report


def _requests(header: inventory_pb2.SyncHeader, book: Mapping[Place, Decimal]) -> Iterator[inventory_pb2.SyncRequest]:
    yield inventory_pb2.SyncRequest(header=header)
    lines = [
        inventory_pb2.BookLine(zone_id=zone_id, item_id=item_id, lot_number=lot_number, quantity=format(amount, "f"), any_status=True)
        for (zone_id, item_id, lot_number), amount in book.items()
        if amount
    ]
    for start in range(0, len(lines), LINES):
        yield inventory_pb2.SyncRequest(lines=lines[start : start + LINES])
