"""Another system's book against the ledger: Sync of InventoryService.

A book is read line by line into our words (ids, base units), compared by rules.stock.reconcile, and each difference is told with the
movements that explain it. What the other system wins is recorded here under keys made of the sync: sent again, nothing is recorded twice.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from actors.journal import queries_business as business
from actors.journal import queries_stock as queries
from actors.journal.tables import BookSync
from actors.rules import stock
from actors.rules.errors import DomainError, FailedPrecondition, InvalidArgument, OutOfRange
from actors.rules.stock import ANY, BookKey, Difference
from services import check, stock_records
from services.backend import Backend, Context
from services.book_compare import DAY_US, count, difference, explain
from services.book_lines import Told, read_book
from services.convert import told
from services.shards import now_us
from waybill.v1 import inventory_pb2

LINES_MAX = 1_000_000
PART = 5_000
"""Lines that are kept, and differences that are told, at a time."""
COMMIT, IN_FLIGHT = 500, 3
"""Movements that go into one commit, so that what else is written need not wait long; and commits on their way."""
CLOCK_TOLERANCE_US = 60_000_000


@dataclass(slots=True)
class Asked:
    """What a sync asks for, checked."""

    header: inventory_pb2.SyncHeader
    as_of_us: int
    full: bool
    number: int
    before_us: int
    digest: str


async def sync(
    backend: Backend, requests: AsyncIterator[inventory_pb2.SyncRequest], context: Context
) -> AsyncIterator[inventory_pb2.SyncResponse]:
    """See InventoryService.Sync."""
    header, lines = await _gather(requests)
    asked = await _check(backend, header, lines)
    book = await read_book(backend, header.warehouse_id, header.system, lines)
    theirs = dict(book.quantities)
    if not asked.full:
        known = await backend.read(queries.book_lines, header.system, header.warehouse_id)
        theirs = stock.changed({BookKey(zone, lot, status): amount for zone, lot, status, amount, _ in known}, theirs)
    ours = await backend.read(queries.book_of, header.warehouse_id, asked.as_of_us)
    totals = {BookKey(*key): sum(units.values(), stock.ZERO) for key, units in ours.items()}
    equal, differences = stock.reconcile(totals, theirs)
    lots = await backend.read(queries.lots_by, book.expires_us)
    expiries = [
        (lot, lots[lot].expires_us, us) for lot, us in sorted(book.expires_us.items()) if lot in lots and lots[lot].expires_us != us
    ]
    units = await backend.read(
        queries.units, {stock.item_of(one.key.lot_id) for one in differences} | {stock.item_of(lot) for lot, _, _ in expiries}
    )
    explained = await explain(backend, header.warehouse_id, differences, asked.before_us, asked.as_of_us)
    for at, error in book.refused:
        refusal = inventory_pb2.LineRefusal(line=at, error=stock_records.line_error(error))
        yield inventory_pb2.SyncResponse(refusal=refusal)
    summary = inventory_pb2.SyncSummary(lines=len(lines), refused=len(book.refused), equal=equal, expiry_differs=len(expiries))
    count(summary, differences)
    wins = header.quantity_winner == inventory_pb2.SYNC_WINNER_OTHER and not header.dry_run
    action = inventory_pb2.DIFFERENCE_ACTION_NONE if header.dry_run else inventory_pb2.DIFFERENCE_ACTION_BOOK_THERE
    if not header.dry_run:
        await _keep(backend, asked, book, context)
    new = {lot: us for lot, us in book.expires_us.items() if lot not in lots}
    for start in range(0, len(differences), PART):
        some = differences[start : start + PART]
        done = await _follow(backend, asked, some, ours, new, context) if wins else [("", None)] * len(some)
        for one, (key, refused) in zip(some, done, strict=True):
            message = difference(one, units, explained.get(one.key, []))
            message.action = action
            if key:
                message.action, message.recorded_key = inventory_pb2.DIFFERENCE_ACTION_RECORDED_HERE, key
                summary.recorded_here += refused is None
            if refused is not None:
                message.action = inventory_pb2.DIFFERENCE_ACTION_REFUSED
                message.error.CopyFrom(stock_records.line_error(refused))
            yield inventory_pb2.SyncResponse(difference=message)
    theirs_wins = header.expiry_winner == inventory_pb2.SYNC_WINNER_OTHER and not header.dry_run
    if theirs_wins and expiries:
        await _command(backend, header, "lot.expiry", {"lots": [(lot, us) for lot, _, us in expiries]}, context)
    for lot, mine, us in expiries:
        message = inventory_pb2.BookDifference(
            kind=inventory_pb2.DIFFERENCE_KIND_EXPIRY, item_id=stock.item_of(lot), lot_number=stock_records.number_of(lot),
            left_expiry_time=check.timestamp(mine), right_expiry_time=check.timestamp(us), unit=units.get(stock.item_of(lot), ""),
            action=inventory_pb2.DIFFERENCE_ACTION_RECORDED_HERE if theirs_wins else action,
        )  # fmt: skip
        yield inventory_pb2.SyncResponse(difference=message)
    if not header.dry_run:
        summary.cursor = _cursor(header, asked.number)
    summary.last_event_number = await backend.read(business.last_event_number)
    yield inventory_pb2.SyncResponse(summary=summary)


async def _gather(requests: AsyncIterator[inventory_pb2.SyncRequest]) -> tuple[inventory_pb2.SyncHeader, list[inventory_pb2.BookLine]]:
    header: inventory_pb2.SyncHeader | None = None
    lines: list[inventory_pb2.BookLine] = []
    async for request in requests:
        if request.HasField("header") == (header is not None):
            raise InvalidArgument("must be in the first message, and only there", field="header")
        if request.HasField("header"):
            header = request.header
        lines.extend(request.lines)
        if len(lines) > LINES_MAX:
            raise InvalidArgument(f"a book has at most {LINES_MAX} lines", field="lines", value=len(lines))
    if header is None:
        raise InvalidArgument("must be given", field="header")
    return header, lines


async def _check(backend: Backend, header: inventory_pb2.SyncHeader, lines: Sequence[inventory_pb2.BookLine]) -> Asked:
    for name in ("warehouse_id", "system", "sync_id"):
        check.text(getattr(header, name), f"header.{name}", required=True)
    check.text(header.actor, "header.actor")
    if not header.scope:
        raise InvalidArgument("must be given", field="header.scope")
    full = header.scope == inventory_pb2.SYNC_SCOPE_FULL
    as_of_us, now = check.time_us(header, "as_of_time", "header."), now_us()
    if as_of_us is None:
        raise InvalidArgument("must be given", field="header.as_of_time")
    if as_of_us > now + CLOCK_TOLERANCE_US:
        raise InvalidArgument("must not lie in the future", field="header.as_of_time", value=as_of_us)
    last: BookSync | None = await backend.read(queries.book_sync, header.system, header.warehouse_id)
    digest = _digest(header, lines)
    again = last is not None and last.sync_id == header.sync_id
    if last is not None and again and last.digest != digest:
        raise FailedPrecondition("was used before with another book", field="header.sync_id", value=header.sync_id)
    if last is not None and not again and as_of_us < last.as_of_us:
        raise FailedPrecondition("a newer sync of this system has been taken", field="header.as_of_time", value=as_of_us)
    number = 1 if last is None else last.number if again else last.number + 1
    if full == bool(header.cursor):
        raise InvalidArgument("must be given for CHANGES, and only there", field="header.cursor", value=header.cursor)
    if not full and _number(header) != number - 1:
        raise OutOfRange("is not the cursor of the last sync; send a FULL book", field="header.cursor", value=header.cursor)
    before_us = last.as_of_us if last is not None and not again else as_of_us - DAY_US
    return Asked(header, as_of_us, full, number, before_us, digest)


def _digest(header: inventory_pb2.SyncHeader, lines: Iterable[inventory_pb2.BookLine]) -> str:
    found = hashlib.sha256(header.SerializeToString(deterministic=True))
    for line in lines:
        found.update(line.SerializeToString(deterministic=True))
    return found.hexdigest()


def _cursor(header: inventory_pb2.SyncHeader, number: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([header.system, header.warehouse_id, number]).encode()).decode()


def _number(header: inventory_pb2.SyncHeader) -> int:
    """The number in a cursor. Raises OutOfRange where it is another feed's."""
    try:
        system, warehouse_id, number = json.loads(base64.urlsafe_b64decode(header.cursor.encode("ascii")))
    except (ValueError, binascii.Error):
        raise OutOfRange("is no cursor of a sync", field="header.cursor", value=header.cursor) from None
    if (system, warehouse_id) != (header.system, header.warehouse_id) or not isinstance(number, int):
        raise OutOfRange(f"is the cursor of {system} and {warehouse_id}", field="header.cursor", value=header.cursor)
    return number


async def _command(backend: Backend, header: inventory_pb2.SyncHeader, name: str, arguments: dict[str, Any], context: Context) -> Any:
    try:
        return await backend.command(header.warehouse_id, name, arguments, context, again=True)
    except DomainError as refusal:
        raise told(refusal) from None


async def _keep(backend: Backend, asked: Asked, book: Told, context: Context) -> None:
    """Keep the book as it was told, part by part."""
    header = asked.header
    lines = [
        (key.zone_id, key.lot_id, key.status, stock.item_of(key.lot_id), amount, book.expires_us.get(key.lot_id))
        for key, amount in sorted(book.quantities.items())
    ]
    facts = {
        "system": header.system, "warehouse_id": header.warehouse_id, "number": asked.number, "sync_id": header.sync_id,
        "digest": asked.digest, "as_of_us": asked.as_of_us, "full": asked.full,
    }  # fmt: skip
    for start in range(0, len(lines) or 1, PART):
        last = start + PART >= len(lines)
        await _command(backend, header, "book.put", {"sync": facts, "lines": lines[start : start + PART], "last": last}, context)


async def _follow(
    backend: Backend, asked: Asked, some: Sequence[Difference], ours: Mapping[tuple[str, str, str], Mapping[str, Decimal]],
    new: Mapping[str, int], context: Context,
) -> list[tuple[str, DomainError | None]]:  # fmt: skip
    """Our ledger follows the other book: (key, refusal) per difference. new: expiries of lots that we do not know
    yet; of the others another expiry is a difference of its own, which does not stand in the way of the quantity.

    A line that is loose and of one status is counted, so that what comes meanwhile survives; else its loose goods are adjusted.
    """
    header = asked.header
    movements = []
    for one in some:
        key = one.key
        status = stock.FREE if key.status == ANY else key.status
        statuses = stock.ON_HAND if key.status == ANY else (status,)
        there = {(name, unit) for name in statuses for unit in ours.get((key.zone_id, key.lot_id, name), {})}
        counted = there <= {(status, "")} and one.right >= 0
        digest = hashlib.blake2b("\0".join([header.system, header.sync_id, *key]).encode(), digest_size=16).hexdigest()
        movements.append(
            {
                "key": f"{queries.SYNC_KEY}{digest}", "kind": "COUNT" if counted else "ADJUST", "item_id": stock.item_of(key.lot_id),
                "lot_number": stock_records.number_of(key.lot_id), "zone_id": key.zone_id, "status": status, "at_us": asked.as_of_us,
                "quantity": stock.text(one.right if counted else one.right - one.left), "reason": f"sync {header.sync_id}",
                "system": header.system, "actor": header.actor, "expiry_us": new.get(key.lot_id),
            }
        )  # fmt: skip
    parts = [movements[start : start + COMMIT] for start in range(0, len(movements), COMMIT)]
    flight = asyncio.Semaphore(IN_FLIGHT)

    async def tell(part: list[dict[str, Any]]) -> list[dict[str, Any]]:
        async with flight:
            arguments = {"warehouse_id": header.warehouse_id, "movements": part, "all_or_nothing": False}
            answers: list[dict[str, Any]] = (await _command(backend, header, "stock.move", arguments, context)).stock
            return answers

    told_parts = await asyncio.gather(*(tell(part) for part in parts))  # lines of a book do not depend on each other
    answers = [answer for part in told_parts for answer in part]
    return [(str(movement["key"]), answer.get("error")) for movement, answer in zip(movements, answers, strict=True)]
