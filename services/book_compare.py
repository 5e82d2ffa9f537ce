"""Two books compared: differences as messages, each with the movements that explain it; and Reconcile of InventoryService."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from actors.journal import queries_stock as queries
from actors.rules import stock
from actors.rules.errors import InvalidArgument, NotFound
from actors.rules.stock import ANY, BookKey, Difference
from services import check, stock_records
from services.backend import Backend
from services.book_lines import read_book
from services.shards import now_us
from waybill.v1 import inventory_pb2

LINES_OF_BOOK_MAX = 50_000
EXPLAINED = 20
"""Movements named with a difference."""
DAY_US = 86_400_000_000


async def explain(
    backend: Backend, warehouse_id: str, differences: Sequence[Difference], from_us: int, until_us: int
) -> dict[BookKey, list[tuple[inventory_pb2.Movement, Decimal]]]:
    """Per difference the movements that touched its line in [from_us, until_us], newest first, with what they changed of it."""
    wanted: dict[tuple[str, str], list[BookKey]] = {}
    for one in differences:
        wanted.setdefault((one.key.zone_id, one.key.lot_id), []).append(one.key)
    legs = await backend.read(queries.legs_since, warehouse_id, {lot for _, lot in wanted}, from_us, until_us)
    sums: dict[BookKey, dict[tuple[str, int], Decimal]] = {}
    for ledger, number, leg in legs:
        for key in wanted.get((leg.line.zone_id, leg.line.lot_id), ()):
            for mine in stock.told_by(key, [leg]):
                by_movement = sums.setdefault(key, {})
                by_movement[ledger, number] = by_movement.get((ledger, number), stock.ZERO) + mine.quantity
    named = {number for mine in sums.values() for number in list(mine)[:EXPLAINED]}
    rows = await backend.read(queries.numbered, named)
    messages = {number: stock_records.movement(row.body) for number, row in rows.items()}
    return {
        key: [(messages.get(number, inventory_pb2.Movement()), amount) for number, amount in mine.items()] for key, mine in sums.items()
    }


def difference(
    one: Difference, units: Mapping[str, str], explained: Sequence[tuple[inventory_pb2.Movement, Decimal]]
) -> inventory_pb2.BookDifference:
    """A difference as a message."""
    item_id = stock.item_of(one.key.lot_id)
    return inventory_pb2.BookDifference(
        kind=check.number(inventory_pb2.DifferenceKind, one.kind),
        zone_id=one.key.zone_id,
        item_id=item_id,
        lot_number=stock_records.number_of(one.key.lot_id),
        status=check.number(inventory_pb2.StockStatus, "" if one.key.status == ANY else one.key.status),
        any_status=one.key.status == ANY,
        left_quantity=stock.text(one.left),
        right_quantity=stock.text(one.right),
        difference=stock.text(one.right - one.left),
        unit=units.get(item_id, ""),
        explained_by=[movement for movement, _ in explained[:EXPLAINED]],
        explained=stock.text(sum((amount for _, amount in explained), stock.ZERO)),
        action=inventory_pb2.DIFFERENCE_ACTION_NONE,
    )


def count(summary: Any, differences: Iterable[Difference]) -> None:
    """Count differences by kind into a summary."""
    for one in differences:
        name = {"QUANTITY": "quantity_differs", "ONLY_HERE": "only_here", "ONLY_THERE": "only_there"}[one.kind]
        setattr(summary, name, getattr(summary, name) + 1)


async def reconcile(backend: Backend, request: inventory_pb2.ReconcileRequest) -> AsyncIterator[inventory_pb2.ReconcileResponse]:
    """See InventoryService.Reconcile. The warehouse is there."""
    now = now_us()
    from_us = check.time_us(request, "explain_from_time")
    left = await _book(backend, request.warehouse_id, request.left, "left", now)
    right = await _book(backend, request.warehouse_id, request.right, "right", now)
    equal, differences = stock.reconcile(left, right)
    units = await backend.read(queries.units, {stock.item_of(one.key.lot_id) for one in differences})
    explained = await explain(backend, request.warehouse_id, differences, now - DAY_US if from_us is None else from_us, now)
    summary, digest = inventory_pb2.ReconcileSummary(equal=equal), hashlib.sha256()
    count(summary, differences)
    for one in differences:
        item_id, number = stock.item_of(one.key.lot_id), stock_records.number_of(one.key.lot_id)
        told_as = (one.key.zone_id, item_id, number, one.key.status, stock.text(one.left), stock.text(one.right))
        digest.update(("\t".join(told_as) + "\n").encode())
        yield inventory_pb2.ReconcileResponse(difference=difference(one, units, explained.get(one.key, [])))
    summary.digest_sha256 = digest.hexdigest()
    yield inventory_pb2.ReconcileResponse(summary=summary)


async def _book(backend: Backend, warehouse_id: str, book: inventory_pb2.Book, name: str, now: int) -> dict[BookKey, Decimal]:
    source = book.WhichOneof("source")
    if source == "lines":
        if len(book.lines.lines) > LINES_OF_BOOK_MAX:
            rule = f"must have at most {LINES_OF_BOOK_MAX} entries"
            raise InvalidArgument(rule, field=f"{name}.lines.lines", value=len(book.lines.lines))
        read = await read_book(backend, warehouse_id, "", book.lines.lines)
        if read.refused:
            at, error = read.refused[0]
            raise type(error)(error.rule, field=f"{name}.lines.lines[{at}].{error.field}", value=error.value)
        return read.quantities
    if source == "system":
        if await backend.read(queries.book_sync, book.system, warehouse_id) is None:
            raise NotFound("has told no book of this warehouse", field=f"{name}.system", value=book.system)
        known = await backend.read(queries.book_lines, book.system, warehouse_id)
        return {BookKey(zone, lot, status): amount for zone, lot, status, amount, _ in known}
    as_of_us = stock_records.as_of_us(book.ledger, now) if source == "ledger" else None
    ours = await backend.read(queries.book_of, warehouse_id, as_of_us)
    return {BookKey(*key): sum(units.values(), stock.ZERO) for key, units in ours.items()}
