"""The SQL around rules.stock: loads what a batch of movements touches, lets the pure rules decide one by one, writes ledger and stock.

Everything is decided inside the transaction that writes it, against locked rows: the warehouse's ledger first, then lots, then stock. A
refused movement leaves no trace; one that was recorded before gives its first answer. Lock order of the whole commit: carriers (by
lock_conditions), ledger, lots, stock lines and units, destinations of the outbox, event counter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, literal_column, or_, select, update

from actors.journal import rows
from actors.journal.apply_holds import lock_lots, on_arrivals
from actors.journal.columns import dumps
from actors.journal.holds import block_of
from actors.journal.once import Once, among, listed
from actors.journal.outbox import Message, destinations
from actors.journal.prepared import EventDraft, StockWork
from actors.journal.stock_goods import Goods
from actors.journal.stock_units import Units
from actors.journal.tables import Hold, Ledger, Movement, Stock, StockLeg, Warehouse, Zone
from actors.rules import stock
from actors.rules.errors import DomainError, FailedPrecondition, InvalidArgument, NotFound, Overloaded
from actors.rules.stock import Book, Found, Line

LEDGER, MOVEMENT, LEG, STOCK = (rows.table_of(model) for model in (Ledger, Movement, StockLeg, Stock))
HOLD, WAREHOUSE, ZONE = rows.table_of(Hold), rows.table_of(Warehouse), rows.table_of(Zone)

KEY_OF_STOCK = ("warehouse_id", "zone_id", "lot_id", "handling_unit_id", "shipment_id", "status")


def _recorded(dialect: str) -> Any:
    mine = (MOVEMENT.c.warehouse_id == bindparam("warehouse")) & among(MOVEMENT.c.key, dialect)
    return select(MOVEMENT.c.key, MOVEMENT.c.digest, MOVEMENT.c.body).where(mine)


def _lines(dialect: str) -> Any:
    key = [STOCK.c[name] for name in KEY_OF_STOCK]
    here = or_(STOCK.c.warehouse_id == bindparam("warehouse"), among(STOCK.c.shipment_id, dialect, "shipments"))
    found = select(*key, STOCK.c.quantity, STOCK.c.first_us, STOCK.c.left_us).where(among(STOCK.c.lot_id, dialect), here)
    return found.order_by(*key).with_for_update()


def _holds(dialect: str) -> Any:
    blocking = select(HOLD).where(among(HOLD.c.lot_id, dialect), HOLD.c.state != literal_column("'RELEASED'"))
    return blocking.order_by(HOLD.c.lot_id, HOLD.c.ordinal)


_RECORDED, _LINES, _HOLDS = Once(_recorded), Once(_lines), Once(_holds)
_INSERT_MOVEMENTS = Once(lambda dialect: rows.insert_with_text(MOVEMENT, "body", dialect))
"""`text` is the body as JSON: it goes into the event and the outbox, too, and is made once."""
_INSERT_LEGS = Once(lambda _: insert(LEG), LEG.columns.keys())

CLOCK_TOLERANCE_US = 60_000_000
FULL_RETRY_S = 5.0


def apply_stock(connection: Connection, work: StockWork, now_us: int) -> tuple[list[dict[str, Any]], list[EventDraft], list[Message]]:
    """Record movements: an answer per movement, the events (movements first, in order), the messages of the outbox.

    Raises NotFound for the warehouse, Overloaded where a destination's messages pile up, the first refusal where it is all or nothing.
    """
    _room(connection, work)
    return _Batch(connection, work, now_us).run()


def _room(connection: Connection, work: StockWork) -> None:
    for one in destinations(connection):
        if one.undelivered >= one.most:
            told = f"{one.destination} has not taken {one.undelivered} messages; nothing was recorded"
            raise Overloaded(told, field="warehouse_id", value=work.warehouse_id, retry_after_s=FULL_RETRY_S)


class _Batch:
    """One batch of movements of one warehouse, from loading to writing."""

    def __init__(self, connection: Connection, work: StockWork, now_us: int) -> None:
        self.connection, self.work, self.now_us = connection, work, now_us
        self.warehouse_id = work.warehouse_id
        self.asked = [one for one in work.movements if isinstance(one, dict)]
        self.written: list[dict[str, Any]] = []
        self.legs: list[dict[str, Any]] = []
        self.changed: dict[Line, list[tuple[int, Decimal]]] = {}
        """Legs of this batch by line: when each happened, and how much it was."""
        self.later: dict[int, dict[Line, Decimal]] = {}
        """Per time of a count, what the ledger holds of later legs."""

    def run(self) -> tuple[list[dict[str, Any]], list[EventDraft], list[Message]]:
        self._load()
        answers = []
        for place, one in enumerate(self.work.movements):
            try:
                answers.append(self._one(one))
            except DomainError as error:
                if self.work.all_or_nothing:
                    raise type(error)(error.rule, field=f"movements[{place}].{error.field}", value=error.value) from None
                answers.append({"error": error})
        events, messages = self._write()
        return answers, events, messages

    # ------------------------------------------------------------ loading

    def _load(self) -> None:
        connection, name = self.connection, self.warehouse_id
        warehouse = connection.execute(select(WAREHOUSE.c.attributes).where(WAREHOUSE.c.warehouse_id == name)).first()
        if warehouse is None:
            raise NotFound("no such warehouse", field="warehouse_id", value=name)
        self.zones = set(connection.execute(select(ZONE.c.zone_id).where(ZONE.c.warehouse_id == name)).scalars())
        made = rows.upsert_statement(connection.dialect.name, LEDGER, ("warehouse_id", "head"), nothing=True)
        connection.execute(made, [{"warehouse_id": name, "head": 0}])
        self.head = connection.execute(select(LEDGER.c.head).where(LEDGER.c.warehouse_id == name).with_for_update()).scalar_one()
        self.before = self._recorded()
        fresh = [one for one in self.asked if one["key"] not in self.before]
        self.goods = Goods(connection, fresh, self.now_us)
        lots = {lot_id for lot_id in (self.goods.lot_of(one) for one in fresh) if lot_id}
        lock_lots(connection, lots)
        self.goods.load_lots(lots)
        self.units = Units(connection, name, fresh, self.now_us)
        self.book = Book(allow_negative=bool((warehouse[0] or {}).get("allow_negative_stock")), expires_us=self.goods.expires_us)
        self.first: dict[Line, tuple[int, int]] = {}
        self._lines(lots)
        self.book.blocks = self._blocks(lots)
        self._later(fresh)

    def _recorded(self) -> dict[str, tuple[str, dict[str, Any]]]:
        keys = listed(self.connection, [one["key"] for one in self.asked])
        there = _RECORDED.rows(self.connection, {"warehouse": self.warehouse_id, "some": keys})
        return {key: (digest, body) for key, digest, body in there}

    def _lines(self, lots: Iterable[str]) -> None:
        """The lots' lines in this warehouse and on the shipments that the batch names, held."""
        asked = {
            "warehouse": self.warehouse_id, "some": listed(self.connection, sorted(lots)),
            "shipments": listed(self.connection, sorted(self.units.shipments)),
        }  # fmt: skip
        for *key, quantity, first_us, left_us in _LINES.rows(self.connection, asked):
            line = Line(*key)
            self.book.lines[line] = quantity
            self.first[line] = (first_us, left_us)

    def _blocks(self, lots: Iterable[str]) -> dict[str, list[stock.Block]]:
        blocks: dict[str, list[stock.Block]] = {}
        for row in _HOLDS.rows(self.connection, {"some": listed(self.connection, sorted(lots))}):
            hold = dict(zip(HOLD.columns.keys(), row, strict=True))
            blocks.setdefault(hold["lot_id"], []).append(block_of(hold))
        return blocks

    def _later(self, fresh: Sequence[Mapping[str, Any]]) -> None:
        """For every time of a count: what the ledger has after it of the lots counted then."""
        wanted: dict[int, set[str]] = {}
        for one in fresh:
            if one["kind"] == "COUNT" and one["at_us"] is not None:
                wanted.setdefault(one["at_us"], set()).add(self.goods.lot_of(one))
        for at_us, lots in wanted.items():
            after = self.later[at_us] = {}
            for some in rows.chunks(sorted(lots - {""})):
                sums = select(*(LEG.c[name] for name in KEY_OF_STOCK), func.sum(LEG.c.quantity).label("more"))
                query = sums.where(LEG.c.lot_id.in_(some), LEG.c.warehouse_id == self.warehouse_id, LEG.c.at_us > at_us)
                for row in self.connection.execute(query.group_by(*(LEG.c[name] for name in KEY_OF_STOCK))):
                    after[Line(*row[:6])] = row.more

    # ------------------------------------------------------------ one movement

    def _one(self, one: dict[str, Any] | DomainError) -> dict[str, Any]:
        if isinstance(one, DomainError):
            raise one
        if one["key"] in self.before:
            digest, body = self.before[one["key"]]
            if digest != one["digest"]:
                raise FailedPrecondition("was used before with another movement", field="key", value=one["key"])
            return {"movement": body, "repeated": True}
        at_us = self.now_us if one["at_us"] is None else one["at_us"]
        if at_us > self.now_us + CLOCK_TOLERANCE_US:
            raise InvalidArgument("must not lie in the future", field="time", value=at_us)
        for field in ("zone_id", "to_zone_id"):
            if one[field] and one[field] not in self.zones:
                raise NotFound("the warehouse has no such zone", field=field, value=one[field])
        item = self.goods.item_of(one)
        lot_id = stock.lot_id_of(item.item_id, one["lot_number"])
        movement = stock.Movement(
            self.warehouse_id, one["kind"], lot_id, item.base(one["quantity"], one["unit"], "quantity"), at_us, one["zone_id"],
            one["to_zone_id"], one["handling_unit_id"], one["to_handling_unit_id"], one["status"], one["shipment_id"],
            item.base(one["damaged"], one["unit"], "damaged_quantity"), one["allow_expired"],
        )  # fmt: skip
        self.goods.check_expiry(lot_id, one)
        aboard = self.units.aboard(movement, self.book)
        found = stock.decide(movement, self.book, as_of=self._as_of(movement), aboard=aboard)
        self.units.check(movement)
        pieces = self.goods.pieces(one, movement)
        self.goods.check_named(found, pieces, self.book)
        # Nothing refuses it from here on.
        self.book.take(found.legs)
        self.goods.keep(lot_id, one, pieces, found)
        self.units.move(movement, self.book, aboard)
        body = self._record(one, movement, item.item_id, item.unit, found)
        self.before[one["key"]] = (one["digest"], body)
        return {"movement": body, "repeated": False}

    def _as_of(self, movement: stock.Movement) -> Decimal:
        if movement.kind != "COUNT":
            return stock.ZERO
        status = movement.status or stock.FREE
        line = Line(self.warehouse_id, movement.zone_id, movement.lot_id, movement.handling_unit_id, "", status)
        later = self.later.get(movement.at_us, {}).get(line, stock.ZERO)
        mine = (more for at_us, more in self.changed.get(line, ()) if at_us > movement.at_us)
        return self.book.of(line) - later - sum(mine, stock.ZERO)

    def _record(self, one: Mapping[str, Any], movement: stock.Movement, item_id: str, unit: str, found: Found) -> dict[str, Any]:
        self.head += 1
        body = {
            **{name: value for name, value in one.items() if name not in ("digest", "at_us")},
            "warehouse_id": self.warehouse_id, "number": self.head, "item_id": item_id, "lot_id": movement.lot_id, "base_unit": unit,
            "at_us": movement.at_us, "recorded_us": self.now_us, "short": stock.text(found.short), "over": stock.text(found.over),
            "legs": [[*leg.line, stock.text(leg.quantity)] for leg in found.legs],
        }  # fmt: skip
        self.written.append(
            {
                "warehouse_id": self.warehouse_id, "number": self.head, "key": one["key"], "digest": one["digest"], "kind": one["kind"],
                "item_id": item_id, "lot_id": movement.lot_id, "shipment_id": movement.shipment_id or None, "system": one["system"],
                "at_us": movement.at_us, "recorded_us": self.now_us, "body": body,
            }
        )  # fmt: skip
        for ordinal, leg in enumerate(found.legs):
            self.changed.setdefault(leg.line, []).append((movement.at_us, leg.quantity))
            self.legs.append(
                {
                    "ledger": self.warehouse_id, "number": self.head, "ordinal": ordinal, **dict(zip(KEY_OF_STOCK, leg.line, strict=True)),
                    "item_id": item_id, "quantity": leg.quantity, "at_us": movement.at_us, "line": leg.line,
                }
            )  # fmt: skip
        return body

    # ------------------------------------------------------------ writing

    def _write(self) -> tuple[list[EventDraft], list[Message]]:
        if not self.written:
            return [], []
        connection = self.connection
        moved = update(LEDGER).where(LEDGER.c.warehouse_id == self.warehouse_id).values(head=self.head)
        connection.execute(moved)
        self.goods.write_lots()
        for one in self.written:
            one["text"] = dumps(one["body"])
        _INSERT_MOVEMENTS.many(connection, self.written)
        _INSERT_LEGS.many(connection, self.legs)
        rows.upsert(connection, STOCK, [self._line_row(line, legs) for line, legs in self.changed.items()])
        self.goods.write_serials()
        self.units.write()
        arrivals = [
            (carrier_of(leg["line"]), leg["handling_unit_id"], leg["lot_id"], leg["at_us"]) for leg in self.legs if leg["quantity"] > 0
        ]
        held = on_arrivals(connection, [one for one in arrivals if one[0]], self.now_us)
        events = [
            EventDraft("movement.recorded", one["at_us"], {"movement": one["body"]}, text=f'{{"movement":{one["text"]}}}')
            for one in self.written
        ]
        messages = [
            Message(f"movement|{one['warehouse_id']}|{one['key']}", "movement", one["body"], one["system"], one["text"])
            for one in self.written
        ]
        return events + held.events, messages + held.messages

    def _line_row(self, line: Line, legs: Sequence[tuple[int, Decimal]]) -> dict[str, Any]:
        times = [at_us for at_us, _ in legs]
        first, left = self.first.get(line, (min(times), 0))
        quantity = self.book.of(line)
        return {
            **dict(zip(KEY_OF_STOCK, line, strict=True)), "item_id": stock.item_of(line.lot_id), "quantity": quantity,
            "first_us": min(first, *times), "left_us": left if quantity else max(left, *times),
        }  # fmt: skip


def carrier_of(line: Line) -> str:
    """The carrier that goods on a line ride on; "" for a line without zone."""
    if line.shipment_id:
        return f"shipment/{line.shipment_id}"
    return f"zone/{line.warehouse_id}/{line.zone_id}" if line.zone_id else ""
