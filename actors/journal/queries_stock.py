"""Reads of inventory: stock now and as of a time, movements, lots, holds, mappings, other systems' books.

Every function takes a Session of an engine that can only read (see `queries_business.reading`). Quantities are in base units, exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import and_, func, not_, or_, tuple_
from sqlalchemy import select as columns_of
from sqlmodel import Session, col, select

from actors.journal import rows
from actors.journal.holds import block_of
from actors.journal.tables import (
    BookLine,
    BookSync,
    Excursion,
    HandlingUnit,
    HandlingUnitLot,
    Hold,
    HoldHistory,
    HoldOfExcursion,
    Item,
    Ledger,
    Lot,
    Mapping,
    Movement,
    Setting,
    Stock,
    StockLeg,
)
from actors.rules.stock import IN_TRANSIT, Block, Leg, Line

LINE = ("warehouse_id", "zone_id", "lot_id", "handling_unit_id", "shipment_id", "status")
SHOWN = ("zone_id", "lot_id", "handling_unit_id", "status", "shipment_id")
"""The order in which the lines of one warehouse are listed."""

STOCK, LEG = rows.table_of(Stock), rows.table_of(StockLeg)


class Which(NamedTuple):
    """Which lines: empty fields let all through."""

    warehouse_id: str = ""
    zone_id: str = ""
    item_id: str = ""
    lot_id: str = ""
    handling_unit_id: str = ""


def lines(
    session: Session,
    which: Which,
    *,
    as_of_us: int | None = None,
    after: Sequence[str] | None = None,
    limit: int | None = None,
    groups: tuple[Sequence[str], Sequence[str], Sequence[str]] | None = None,
) -> list[tuple[Line, Decimal]]:
    """Lines of stock that are not zero, by warehouse and SHOWN; `after`: the SHOWN key of the last one seen (of one warehouse).

    groups: (columns, first, last): only lines of the groups from the first to the last, see `stock_groups`.
    """
    table, query, quantity = _nonzero(which, as_of_us, LINE)
    shown = [table.c[name] for name in SHOWN]
    if after is not None:
        query = query.where(tuple_(*shown) > tuple_(*after))
    if groups is not None:
        columns, first, last = groups
        key = tuple_(*(table.c[name] for name in columns))
        query = query.where(key >= tuple_(*first), key <= tuple_(*last))
    query = query.add_columns(quantity).order_by(table.c.warehouse_id, *shown)
    return [(Line(*row[:6]), row[6]) for row in session.execute(query if limit is None else query.limit(limit))]


def stock_groups(
    session: Session, which: Which, columns: Sequence[str], *, as_of_us: int | None = None, after: Sequence[str] | None = None, limit: int
) -> list[tuple[str, ...]]:
    """The values of some columns (of LINE, and item_id) for which there is stock, ascending; `after`: the last ones seen."""
    table, query, _ = _nonzero(which, as_of_us, (*LINE, "item_id"))
    if after is not None:
        query = query.where(tuple_(*(table.c[name] for name in columns)) > tuple_(*after))
    if as_of_us is not None:  # a group is there if one of its lines is
        found: Any = query.subquery()
        table, query = found, columns_of(*found.c)
    key = [table.c[name] for name in columns]
    return [tuple(row) for row in session.execute(query.with_only_columns(*key).distinct().order_by(*key).limit(limit))]


def _nonzero(which: Which, as_of_us: int | None, columns: Sequence[str]) -> tuple[Any, Any, Any]:
    """The table of the kept stock, or of legs for a past time; its columns where the quantity is not zero; and that quantity."""
    table, quantity = (STOCK, STOCK.c.quantity) if as_of_us is None else (LEG, func.sum(LEG.c.quantity))
    key = [table.c[name] for name in columns]
    query: Any = columns_of(*key)
    query = query.where(quantity != 0) if as_of_us is None else query.where(LEG.c.at_us <= as_of_us).group_by(*key).having(quantity != 0)
    for name, value in which._asdict().items():
        if value:
            query = query.where(table.c[name] == value)
    return table, query, quantity


def blocks(session: Session, lot_ids: Iterable[str], as_of_us: int | None = None) -> dict[str, list[Block]]:
    """What holds some lots, now or as it stood then."""
    found: dict[str, list[Block]] = {}
    for some in rows.chunks(sorted(set(lot_ids))):
        holds = select(Hold).where(col(Hold.lot_id).in_(some))
        if as_of_us is None:
            for hold in session.exec(holds.where(Hold.state != "RELEASED")):
                found.setdefault(hold.lot_id, []).append(block_of(hold.model_dump()))
            continue
        last = (
            columns_of(col(HoldHistory.hold_id), func.max(HoldHistory.etag))
            .join(Hold, col(Hold.hold_id) == col(HoldHistory.hold_id))
            .where(col(Hold.lot_id).in_(some), col(HoldHistory.at_us) <= as_of_us)
            .group_by(col(HoldHistory.hold_id))
        )
        then = select(HoldHistory).where(tuple_(col(HoldHistory.hold_id), col(HoldHistory.etag)).in_(last))
        for entry in session.exec(then.where(HoldHistory.state != "RELEASED")):
            found.setdefault(entry.body["lot_id"], []).append(block_of(entry.body))
    return found


def units(session: Session, item_ids: Iterable[str]) -> dict[str, str]:
    """Base units by item."""
    found: dict[str, str] = {}
    for some in rows.chunks(sorted(set(item_ids))):
        for item_id, unit in session.execute(columns_of(col(Item.item_id), col(Item.unit)).where(col(Item.item_id).in_(some))):
            found[item_id] = unit
    return found


def mismatches(session: Session, warehouse_id: str) -> tuple[int, int, list[tuple[Line, Decimal, Decimal]]]:
    """(lines, movements, [(line, kept, ledger's sum)] where they differ) of one warehouse."""
    kept = dict(lines(session, Which(warehouse_id)))
    ledger = dict(lines(session, Which(warehouse_id), as_of_us=1 << 62))
    head = session.execute(columns_of(col(Ledger.head)).where(col(Ledger.warehouse_id) == warehouse_id)).scalar() or 0
    zero = Decimal(0)
    differ = [
        (line, kept.get(line, zero), ledger.get(line, zero))
        for line in sorted(kept.keys() | ledger.keys())
        if kept.get(line, zero) != ledger.get(line, zero)
    ]
    return len(kept.keys() | ledger.keys()), int(head), differ


def stock_lots(session: Session, carriers: Sequence[str], found: dict[tuple[str, str], list[str]]) -> None:
    """Add the lots that some carriers have (a shipment: ever had) by the ledgers, to what is found by (carrier, handling unit)."""
    if session.connection().exec_driver_sql("SELECT 1 FROM stock LIMIT 1").first() is None:
        return  # asked for every commit with excursions: where nobody keeps stock it must cost nothing
    shipments = [carrier.removeprefix("shipment/") for carrier in carriers if carrier.startswith("shipment/")]
    zones = [tuple(carrier.split("/", 2)[1:]) for carrier in carriers if carrier.startswith("zone/")]
    key = (STOCK.c.warehouse_id, STOCK.c.zone_id, STOCK.c.shipment_id, STOCK.c.handling_unit_id, STOCK.c.lot_id)
    some = or_(
        STOCK.c.shipment_id.in_(shipments),
        and_(tuple_(STOCK.c.warehouse_id, STOCK.c.zone_id).in_(zones), STOCK.c.quantity != 0),
    ) if zones else STOCK.c.shipment_id.in_(shipments)  # fmt: skip
    for warehouse_id, zone_id, shipment_id, unit, lot_id in session.execute(columns_of(*key).where(some).distinct()):
        carrier = f"shipment/{shipment_id}" if shipment_id else f"zone/{warehouse_id}/{zone_id}"
        mine = found.setdefault((carrier, unit), [])
        if lot_id not in mine:
            mine.append(lot_id)
            mine.sort()


def in_a_ledger(session: Session, item_id: str) -> bool:
    """Whether some ledger has, or had, goods of an item."""
    return session.execute(columns_of(STOCK.c.lot_id).where(STOCK.c.item_id == item_id).limit(1)).first() is not None


# ---------------------------------------------------------------- movements


def movement(session: Session, warehouse_id: str, key: str) -> Movement | None:
    """A movement by its key."""
    return session.exec(select(Movement).where(Movement.warehouse_id == warehouse_id, Movement.key == key)).first()


def movements(
    session: Session,
    warehouse_id: str,
    *,
    above: int = 0,
    after: int | None = None,
    newest_first: bool = False,
    limit: int,
    lot_id: str = "",
    item_id: str = "",
    shipment_id: str = "",
    system: str = "",
    kinds: Sequence[str] = (),
    from_us: int | None = None,
    until_us: int | None = None,
) -> list[Movement]:
    """Movements of one ledger by number, `above` one; `after`: the number of the last one seen."""
    query = select(Movement).where(Movement.warehouse_id == warehouse_id, Movement.number > above)
    if after is not None:
        query = query.where(Movement.number < after if newest_first else Movement.number > after)
    told = ((Movement.lot_id, lot_id), (Movement.item_id, item_id), (Movement.shipment_id, shipment_id), (Movement.system, system))
    for column, value in told:
        if value:
            query = query.where(column == value)
    if kinds:
        query = query.where(col(Movement.kind).in_(list(kinds)))
    if from_us is not None:
        query = query.where(Movement.at_us >= from_us)
    if until_us is not None:
        query = query.where(Movement.at_us < until_us)
    number = col(Movement.number)
    return list(session.exec(query.order_by(number.desc() if newest_first else number).limit(limit)))


SYNC_KEY = "sync-"
"""The keys of movements that a sync recorded begin with this. They settle the difference that it told, and explain no later one."""


def legs_since(session: Session, warehouse_id: str, lot_ids: Iterable[str], from_us: int, until_us: int) -> list[tuple[str, int, Leg]]:
    """(ledger, number, leg) of what changed some lots there up to until_us and happened or was told after from_us, newest first."""
    found: list[tuple[str, int, Leg]] = []
    key = [LEG.c[name] for name in LINE]
    for some in rows.chunks(sorted(set(lot_ids))):
        query = columns_of(LEG.c.ledger, LEG.c.number, *key, LEG.c.quantity).join(
            Movement, and_(col(Movement.warehouse_id) == LEG.c.ledger, col(Movement.number) == LEG.c.number)
        )
        query = query.where(LEG.c.warehouse_id == warehouse_id, LEG.c.lot_id.in_(some), LEG.c.at_us <= until_us)
        told_late = and_(col(Movement.recorded_us) > from_us, not_(col(Movement.key).startswith(SYNC_KEY)))
        query = query.where(or_(LEG.c.at_us > from_us, told_late))
        for row in session.execute(query.order_by(LEG.c.at_us.desc(), LEG.c.number.desc())):
            found.append((row[0], row[1], Leg(Line(*row[2:8]), row[8])))
    return found


def numbered(session: Session, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Movement]:
    """Movements by (ledger, number)."""
    found: dict[tuple[str, int], Movement] = {}
    for some in rows.chunks(sorted(set(keys))):
        query = select(Movement).where(tuple_(col(Movement.warehouse_id), col(Movement.number)).in_(some))
        found.update({(row.warehouse_id, row.number): row for row in session.exec(query)})
    return found


def legs_of_lot(session: Session, lot_id: str) -> list[tuple[StockLeg, Movement]]:
    """All legs of a lot with their movements, by time, recording, ledger and number."""
    same = and_(col(Movement.warehouse_id) == col(StockLeg.ledger), col(Movement.number) == col(StockLeg.number))
    query = columns_of(StockLeg, Movement).join(Movement, same).where(col(StockLeg.lot_id) == lot_id)
    ordered = query.order_by(col(StockLeg.at_us), col(Movement.recorded_us), col(StockLeg.ledger), col(StockLeg.number))
    return [(row[0], row[1]) for row in session.execute(ordered)]


# ---------------------------------------------------------------- lots and holds


def lots(
    session: Session,
    *,
    after: tuple[str, str] | None = None,
    limit: int,
    item_id: str = "",
    on_hold: bool = False,
    warehouse_id: str = "",
    expires_before_us: int | None = None,
) -> list[Lot]:
    """Lots by item and number."""
    query = select(Lot).order_by(col(Lot.item_id), col(Lot.lot_number)).limit(limit)
    if after is not None:
        query = query.where(tuple_(col(Lot.item_id), col(Lot.lot_number)) > tuple_(*after))
    if item_id:
        query = query.where(Lot.item_id == item_id)
    if on_hold:
        query = query.where(col(Lot.lot_id).in_(columns_of(col(Hold.lot_id)).where(col(Hold.state) != "RELEASED")))
    if warehouse_id:
        here = columns_of(STOCK.c.lot_id).where((STOCK.c.warehouse_id == warehouse_id) & (STOCK.c.quantity != 0))
        query = query.where(col(Lot.lot_id).in_(here))
    if expires_before_us is not None:
        query = query.where(col(Lot.expires_us) < expires_before_us)
    return list(session.exec(query))


def holds_of(session: Session, lot_ids: Sequence[str]) -> dict[str, list[Hold]]:
    """The holds of some lots, newest first."""
    found: dict[str, list[Hold]] = {lot_id: [] for lot_id in lot_ids}
    query = select(Hold).where(col(Hold.lot_id).in_(list(lot_ids))).order_by(col(Hold.lot_id), col(Hold.ordinal).desc())
    for hold in session.exec(query):
        found[hold.lot_id].append(hold)
    return found


def hold(session: Session, hold_id: str) -> tuple[Hold, list[HoldHistory]] | None:
    """A hold with its history, oldest first."""
    row = session.get(Hold, hold_id)
    if row is None:
        return None
    history = select(HoldHistory).where(HoldHistory.hold_id == hold_id).order_by(col(HoldHistory.etag))
    return row, list(session.exec(history))


def holds(
    session: Session,
    *,
    after: tuple[int, str] | None = None,
    limit: int,
    states: Sequence[str] = (),
    item_id: str = "",
    lot_id: str = "",
    shipment_id: str = "",
) -> list[Hold]:
    """Holds, newest placed first."""
    query = select(Hold).order_by(col(Hold.placed_us).desc(), col(Hold.hold_id).desc()).limit(limit)
    if after is not None:
        older = col(Hold.placed_us) < after[0]
        query = query.where(or_(older, and_(col(Hold.placed_us) == after[0], col(Hold.hold_id) < after[1])))
    if states:
        query = query.where(col(Hold.state).in_(list(states)))
    if item_id:
        query = query.where(Hold.item_id == item_id)
    if lot_id:
        query = query.where(Hold.lot_id == lot_id)
    if shipment_id:
        about = (
            columns_of(col(HoldOfExcursion.hold_id))
            .join(Excursion, col(Excursion.excursion_id) == col(HoldOfExcursion.excursion_id))
            .where(col(Excursion.carrier) == f"shipment/{shipment_id}")
        )
        query = query.where(col(Hold.hold_id).in_(about))
    return list(session.exec(query))


def in_transit_by_lot(session: Session, lot_id: str) -> list[tuple[str, str]]:
    """(carrier, handling unit) of a lot by the papers of shipments: what rides there now."""
    query = (
        columns_of(col(HandlingUnit.carrier), col(HandlingUnit.handling_unit_id))
        .join(HandlingUnitLot, col(HandlingUnitLot.handling_unit_id) == col(HandlingUnit.handling_unit_id))
        .where(col(HandlingUnitLot.lot_id) == lot_id)
    )
    return [(carrier, unit) for carrier, unit in session.execute(query) if (carrier or "").startswith("shipment/")]


# ---------------------------------------------------------------- other systems


def mappings(session: Session, system: str, *, kind: str = "", after: tuple[str, str] | None = None, limit: int) -> list[Mapping]:
    """A system's mappings by kind and external id."""
    query = select(Mapping).where(Mapping.system == system).order_by(col(Mapping.kind), col(Mapping.external_id)).limit(limit)
    if kind:
        query = query.where(Mapping.kind == kind)
    if after is not None:
        query = query.where(tuple_(col(Mapping.kind), col(Mapping.external_id)) > tuple_(*after))
    return list(session.exec(query))


def mapped(session: Session, system: str, kind: str, external_ids: Iterable[str]) -> dict[str, Mapping]:
    """What some ids of a system mean."""
    found: dict[str, Mapping] = {}
    for some in rows.chunks(sorted(set(external_ids))):
        query = select(Mapping).where(Mapping.system == system, Mapping.kind == kind, col(Mapping.external_id).in_(some))
        found.update({row.external_id: row for row in session.exec(query)})
    return found


def items_by(session: Session, *, ids: Iterable[str] = (), gtins: Iterable[str] = ()) -> list[Item]:
    """Items by id or GTIN."""
    found: list[Item] = []
    for column, values in ((Item.item_id, ids), (Item.gtin, gtins)):
        for some in rows.chunks(sorted(set(values))):
            found += session.exec(select(Item).where(col(column).in_(some)))
    return found


def lots_by(session: Session, lot_ids: Iterable[str]) -> dict[str, Lot]:
    """Lots by id."""
    found: dict[str, Lot] = {}
    for some in rows.chunks(sorted(set(lot_ids))):
        found.update({row.lot_id: row for row in session.exec(select(Lot).where(col(Lot.lot_id).in_(some)))})
    return found


def feed_id(session: Session) -> str:
    """Which database this is: cursors of another are refused."""
    row = session.get(Setting, "feed")
    return "" if row is None else row.value


def book_sync(session: Session, system: str, warehouse_id: str) -> BookSync | None:
    """The last sync of a system's book of a warehouse."""
    return session.get(BookSync, (system, warehouse_id))


def book_lines(session: Session, system: str, warehouse_id: str) -> list[tuple[str, str, str, Decimal, int | None]]:
    """(zone, lot, status, quantity, expiry) of a system's book as it last told it."""
    names = (BookLine.zone_id, BookLine.lot_id, BookLine.status, BookLine.quantity, BookLine.expires_us)
    query = columns_of(*(col(name) for name in names))
    found = query.where(col(BookLine.system) == system, col(BookLine.warehouse_id) == warehouse_id)
    return [tuple(row) for row in session.execute(found)]


def book_of(session: Session, warehouse_id: str, as_of_us: int | None = None) -> dict[tuple[str, str, str], dict[str, Decimal]]:
    """A warehouse's ledger as a book: (zone, lot, status) to quantities by handling unit; goods in transit left out."""
    found: dict[tuple[str, str, str], dict[str, Decimal]] = {}
    for line, quantity in lines(session, Which(warehouse_id), as_of_us=as_of_us):
        if line.status != IN_TRANSIT:
            found.setdefault((line.zone_id, line.lot_id, line.status), {})[line.handling_unit_id] = quantity
    return found
