"""What is read from Tryton: places, items, and the moves that are done or were taken back.

Changes are found by `create_date` and `write_date` (which is empty until the first write). Both are the begin of a transaction there,
so one that commits late is dated back: a reading looks `OVERLAP_S` back from the newest date that was seen, until one has that began when
this date had been known for so long. By then every transaction that began before it has ended, and only what is newer is read.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from services.erp.connector import CUSTOMER, LOSS, SUPPLIER, Changes, ErpItem, ErpMove, ErpPlace, ErpStock
from services.erp.jsonrpc import TrytonRpc

OVERLAP_S = 120
"""Longer than any transaction in Tryton should take. What is told again because of it is recognised by its key."""

PAGE = 1_000
SEEN_MOST = 200_000
"""So many records are remembered not to be told twice."""

ITEM, MOVE = "model.product.product", "model.stock.move"
MARK = "waybill:"
"""Begins the reference of every document that we make: the message's key follows."""

ASIDE_CODE = "WB-HOLD-"
"""Begins the code of the places where what must not be picked is put aside; the id of the place it is beside follows."""

UNITS = {
    "u": "EA", "kg": "KGM", "g": "GRM", "l": "LTR", "cm³": "CMQ", "m³": "MTQ", "m": "MTR", "cm": "CMT", "mm": "MMT", "km": "KMT",
    "m²": "MTK", "oz": "ONZ", "lb": "LBR", "ft": "FOT", "in": "INH", "yd": "YRD", "gal": "GLL", "c": "CTM", "d": "DAY", "h": "HUR",
    "min": "MIN", "s": "SEC", "ha": "HAR", "cm²": "CMK", "ft²": "FTK", "in²": "INK", "yd²": "YDK", "ft³": "FTQ", "in³": "INQ", "mi": "SMI",
}  # fmt: skip
"""Tryton's units by symbol, as UN/CEFACT Rec 20 codes."""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_OUTSIDE = {"supplier": SUPPLIER, "production": SUPPLIER, "customer": CUSTOMER, "drop": CUSTOMER, "lost_found": LOSS}

_ITEM_FIELDS = [
    "code", "active", "create_date", "write_date", "template.name", "template.active", "template.write_date", "default_uom.symbol",
    "identifiers.type", "identifiers.code",
]  # fmt: skip
_MOVE_FIELDS = [
    "product", "lot.number", "internal_quantity", "product.default_uom.symbol", "from_location", "to_location", "state", "shipment",
    "shipment.reference", "effective_date", "create_date", "write_date",
]  # fmt: skip
DOCUMENTS = ("stock.shipment.in", "stock.shipment.internal", "stock.shipment.out")
"""The kinds of documents that we make."""


@dataclass(frozen=True, slots=True)
class Places:
    """Tryton's locations: which are in a warehouse, and what those outside of all are. Ids as text, but `warehouse`'s."""

    told: Sequence[ErpPlace] = ()
    warehouse: Mapping[str, int] = field(default_factory=dict)
    outside: Mapping[str, str] = field(default_factory=dict)
    aside: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)

    def plain(self, location: int, *, goes: bool) -> str:
        """A move's end as the connector names it: what lies aside lies, for Waybill, in the place that it is beside."""
        name = str(location)
        name = self.beside.get(name, name)
        if name in self.warehouse:
            return name
        return self.outside.get(name, CUSTOMER if goes else SUPPLIER)


def read_places(rpc: TrytonRpc) -> Places:
    """All locations, those that are no longer active included."""
    fields = ["name", "code", "type", "parent", "active"]
    found = rpc.call("model.stock.location.search_read", [], 0, None, [["id", "ASC"]], fields, context={"active_test": False})
    by_id = {row["id"]: row for row in found}
    aside = {row["code"].removeprefix(ASIDE_CODE): str(row["id"]) for row in found if (row["code"] or "").startswith(ASIDE_CODE)}
    beside = {there: here for here, there in aside.items()}
    told, warehouse = [], {}
    for row in found:
        if row["type"] == "warehouse":
            told.append(_place(row, ""))
        elif row["type"] == "storage" and str(row["id"]) not in beside:
            above = _warehouse_of(row, by_id)
            if above is not None:
                told.append(_place(row, str(above)))
                warehouse[str(row["id"])] = above
    outside = {str(row["id"]): _OUTSIDE[row["type"]] for row in found if row["type"] in _OUTSIDE}
    return Places(sorted(told, key=lambda place: bool(place.warehouse_id)), warehouse, outside, aside, beside)


def _place(row: Mapping[str, Any], warehouse_id: str) -> ErpPlace:
    return ErpPlace(str(row["id"]), row["code"] or "", row["name"], warehouse_id, bool(row["active"]))


def _warehouse_of(row: Mapping[str, Any], by_id: Mapping[int, Mapping[str, Any]]) -> int | None:
    above = by_id.get(row["parent"])
    while above is not None and above["type"] != "warehouse":
        above = by_id.get(above["parent"])
    return None if above is None else int(above["id"])


class Seen:
    """Which state of which record was told already, so that looking back costs little. What a page told counts from when its cursor
    comes back, for then it was taken; any other cursor begins anew."""

    def __init__(self) -> None:
        self._dates: dict[tuple[str, int], str] = {}
        self._offered: tuple[Mapping[str, Any], dict[tuple[str, int], str]] = ({}, {})

    def begin(self, cursor: Mapping[str, Any]) -> None:
        """A page is asked for."""
        before, dates = self._offered
        if before != cursor or len(self._dates) > SEEN_MOST:
            self._dates.clear()
        if before == cursor:
            self._dates |= dates
        self._offered = ({}, {})

    def offer(self, cursor: Mapping[str, Any], dates: dict[tuple[str, int], str]) -> None:
        """A page was read: the cursor behind it, and the dates of its records."""
        self._offered = (cursor, dates)

    def knows(self, kind: str, row: Mapping[str, Any]) -> bool:
        """Whether a record was told as it is now."""
        return self._dates.get((kind, row["id"])) == changed(row)

    def __bool__(self) -> bool:
        return bool(self._dates)


def read_changes(rpc: TrytonRpc, places: Places, cursor: Mapping[str, Any], now_us: int, seen: Seen) -> Changes:
    """One page of what changed: items first, and moves when there are no more items. What was told already (`seen`) is left out.

    A cursor has, per kind, `since` (the newest date that was seen, ISO), `seen_us` (when that was, by our clock), `took_us` (how long the
    set of pages took that found it: what changed meanwhile on a page that was read already is older than it), `settled` (nothing older
    can come) and, inside a set, `begun_us`, `newest` and `after` (an id).
    """
    seen.begin(cursor)
    fields = _ITEM_FIELDS if not seen else ["create_date", "write_date", "template.write_date"]
    rows, after_items, more = _page(rpc, ITEM, [], fields, cursor.get("items", {}), ["template.write_date"], now_us)
    dates = {(ITEM, row["id"]): changed(row) for row in rows}
    items = [_item(row) for row in _fresh(rpc, ITEM, rows, _ITEM_FIELDS, seen)]
    if more:
        changes = Changes(items, places.told, (), {**cursor, "items": after_items}, more)
    else:
        domain = [["state", "in", ["done", "cancelled"]], ["company", "=", rpc.context.get("company")]]
        fields = _MOVE_FIELDS if not seen else ["create_date", "write_date"]
        rows, after_moves, more = _page(rpc, MOVE, domain, fields, cursor.get("moves", {}), [], now_us)
        dates |= {(MOVE, row["id"]): changed(row) for row in rows}
        moves = _moves(rpc, places, _fresh(rpc, MOVE, rows, _MOVE_FIELDS, seen))
        changes = Changes(items, places.told, moves, {"items": after_items, "moves": after_moves}, more)
    seen.offer(changes.cursor, dates)
    return changes


def _fresh(rpc: TrytonRpc, model: str, rows: Sequence[dict[str, Any]], fields: list[str], seen: Seen) -> Sequence[dict[str, Any]]:
    """The records that were not told yet, whole: of a page that was read by its dates alone the others are read now."""
    if not seen:
        return rows
    fresh = [row["id"] for row in rows if not seen.knows(model, row)]
    wanted = [["id", "in", fresh]]
    return rpc.call(f"{model}.search_read", wanted, 0, None, [["id", "ASC"]], fields, context={"active_test": False}) if fresh else []


def _page(
    rpc: TrytonRpc, model: str, domain: list[Any], fields: list[str], cursor: Mapping[str, Any], dates: list[str], now_us: int
) -> tuple[list[dict[str, Any]], dict[str, Any], bool]:
    since, after = cursor.get("since"), int(cursor.get("after", 0))
    seen_us, begun_us = int(cursor.get("seen_us", now_us)), int(cursor.get("begun_us", now_us))
    wanted = [*domain, ["id", ">", after]]
    if since:
        start, operator = dt.datetime.fromisoformat(since), ">"
        if not cursor.get("settled"):
            back = dt.timedelta(seconds=OVERLAP_S, microseconds=int(cursor.get("took_us", 0)))
            start, operator = start - back, ">="
        wanted.append(["OR", *([name, operator, start] for name in ("write_date", "create_date", *dates))])
    rows = rpc.call(f"{model}.search_read", wanted, 0, PAGE, [["id", "ASC"]], fields, context={"active_test": False})
    newest = max([cursor.get("newest") or since or "", *(changed(row) for row in rows)])
    if len(rows) == PAGE:
        return rows, {**cursor, "seen_us": seen_us, "begun_us": begun_us, "after": rows[-1]["id"], "newest": newest}, True
    if newest != (since or ""):
        return rows, {"since": newest, "seen_us": now_us, "took_us": now_us - begun_us}, False
    settled = bool(cursor.get("settled")) or begun_us - seen_us >= OVERLAP_S * 1_000_000
    return rows, {"since": since, "seen_us": seen_us, "took_us": cursor.get("took_us", 0), "settled": settled}, False


def changed(row: Mapping[str, Any]) -> str:
    """When a record (or its template) was last written, ISO in UTC, so that text order is time order."""
    dates = [row["create_date"], row["write_date"], (row.get("template.") or {}).get("write_date")]
    return str(max(date for date in dates if date is not None).isoformat(timespec="microseconds"))


def _item(row: Mapping[str, Any]) -> ErpItem:
    codes = [one["code"] for one in row.get("identifiers.") or () if one["type"] == "ean"]
    active = bool(row["active"] and row["template."]["active"])
    unit = UNITS.get(row["default_uom."]["symbol"], "")
    return ErpItem(str(row["id"]), row["code"] or "", row["template."]["name"], codes[0] if codes else "", unit, active)


def _moves(rpc: TrytonRpc, places: Places, rows: Sequence[Mapping[str, Any]]) -> list[ErpMove]:
    found = [move for row in rows if (move := _move(places, row)) is not None]
    undone = {move.key for move in found if move.key and not move.done}
    standing = standing_keys(rpc, undone, done_only=False)
    # Of several documents of one key those that are not needed were cancelled by us: the key stands while one of them does.
    return [move for move in found if move.done or not move.key or move.key not in standing]


def _move(places: Places, row: Mapping[str, Any]) -> ErpMove | None:
    from_id, to_id = places.plain(row["from_location"], goes=False), places.plain(row["to_location"], goes=True)
    if from_id == to_id or not row["internal_quantity"] or not {from_id, to_id} & places.warehouse.keys():
        return None
    reference = (row.get("shipment.") or {}).get("reference") or ""
    return ErpMove(
        external_id=str(row["id"]),
        item_id=str(row["product"]),
        lot_number=(row.get("lot.") or {}).get("number") or "",
        from_id=from_id,
        to_id=to_id,
        quantity=decimal(row["internal_quantity"]),
        unit=UNITS.get(row["product."]["default_uom."]["symbol"], ""),
        at_us=_happened_us(row),
        done=row["state"] == "done",
        key=reference.removeprefix(MARK) if reference.startswith(MARK) else "",
        document=row["shipment"] or f"stock.move,{row['id']}",
    )


def _happened_us(row: Mapping[str, Any]) -> int:
    """When a move happened, from what never changes about it: its effective day, and the time of its making where that was the same day."""
    made: dt.datetime = row["create_date"]
    day: dt.date = row["effective_date"] or made.date()
    moment = made if day == made.date() else dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)
    return (moment - _EPOCH) // dt.timedelta(microseconds=1)


def decimal(quantity: float) -> Decimal:
    """Tryton's binary quantity as the decimal that it stands for: six places are more than its units have."""
    return round(Decimal(repr(quantity)), 6)


def standing_keys(rpc: TrytonRpc, keys: set[str], *, done_only: bool) -> set[str]:
    """Those of our keys of which a move is there that is done (or at least not cancelled)."""
    wanted = [MARK + key for key in keys]
    states = ["state", "=", "done"] if done_only else ["state", "!=", "cancelled"]
    found = set()
    for start in range(0, len(wanted), PAGE):
        for model in DOCUMENTS:
            domain = [["shipment.reference", "in", wanted[start : start + PAGE], model], states]
            rows = rpc.call("model.stock.move.search_read", domain, 0, None, None, ["shipment.reference"])
            found |= {row["shipment."]["reference"].removeprefix(MARK) for row in rows}
    return found


def read_book(rpc: TrytonRpc, places: Places) -> Iterator[ErpStock]:
    """Stock per place and lot; what has no lot is what the lots leave over. What lies aside counts to the place that it is beside."""
    for place in places.warehouse:
        here = [int(place), *([int(places.aside[place])] if place in places.aside else [])]
        context = {"locations": here, "with_childs": False, "active_test": False}
        lots = rpc.call(
            "model.stock.lot.search_read", [["quantity", "!=", 0]], 0, None, None, ["number", "product", "quantity"], context=context
        )
        products = rpc.call("model.product.product.search_read", [["quantity", "!=", 0]], 0, None, None, ["quantity"], context=context)
        loose = {row["id"]: decimal(row["quantity"]) for row in products}
        for row in lots:
            amount = decimal(row["quantity"])
            loose[row["product"]] = loose.get(row["product"], Decimal(0)) - amount
            yield ErpStock(place, str(row["product"]), row["number"], amount)
        for product, amount in loose.items():
            if amount:
                yield ErpStock(place, str(product), "", amount)
