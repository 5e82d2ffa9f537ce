"""Inventory as virtual actors: the ledgers of one shard's warehouses, holds of lots, mappings and books of other systems.

Requests are read and checked here; what depends on stock is decided inside the commit (journal.apply_stock, journal.apply_holds).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Engine
from sqlmodel import Session

from actors import carrier, requests
from actors.decision import Decision, Handler
from actors.journal import books
from actors.journal.prepared import HoldAct, StockWork
from actors.requests import Arguments
from actors.rules import identifiers, stock
from actors.rules.errors import DomainError, InvalidArgument

MOST_MOVEMENTS = 5_000
MOST_MAPPINGS = 1_000
MOST_SERIALS = 1_000
MOST_PLACES = 100
KEY_MAX = 128
NOTE_MAX = 1_024

DECISIONS = ("release", "partially_release", "reject")
TAKES = {
    "to_zone_id": {"PUT_AWAY", "PICK"},
    "to_handling_unit_id": {"PUT_AWAY", "PICK", "SHIP", "RECEIVE"},
    "shipment_id": {"RECEIVE", "SHIP", "ADJUST"},
    "damaged": {"RECEIVE"},
    "expiry_us": {"RECEIVE", "COUNT", "ADJUST"},
}
"""Fields that only some kinds of movement take."""

Write = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function and its arguments for Store.write: what is written in one transaction without an event."""


class InventoryPopulation:
    """The ledgers of one shard. `commands` decide, `writes` are run in a writing transaction as they are, the commit decides a `move`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.commands: dict[str, Handler] = {
            "hold.place": carrier.once(engine, "hold.place", self.place_hold),
            "hold.decide": self.decide_hold,
        }
        self.writes: dict[str, Callable[[Arguments, int], Write]] = {
            "mapping.put": self.put_mappings,
            "mapping.delete": self.delete_mappings,
            "book.put": self.put_book,
            "lot.expiry": self.set_expiry,
        }

    @staticmethod
    def move(arguments: Arguments) -> StockWork:
        """stock.move {warehouse_id, movements, all_or_nothing}: the commit answers per movement."""
        warehouse_id = requests.identity(arguments, "warehouse_id")
        told = arguments.get("movements") or []
        if not told:
            raise InvalidArgument("must be given", field="movements")
        if len(told) > MOST_MOVEMENTS:
            raise InvalidArgument(f"must have at most {MOST_MOVEMENTS} entries, has {len(told)}", field="movements", value=len(told))
        whole = requests.flag(arguments, "all_or_nothing")
        return StockWork(warehouse_id, [_read_or_refuse(one, warehouse_id) for one in told], whole)

    def place_hold(self, session: Session, arguments: Arguments, now_us: int) -> Decision:
        """hold.place {item_id, lot_number, actor, reason, system, request_id} -> {lot_id}."""
        lot_id = stock.lot_id_of(requests.identity(arguments, "item_id"), requests.text(arguments, "lot_number"))
        act = HoldAct("place", *_who(arguments, now_us), lot_id=lot_id, system=requests.text(arguments, "system"))
        return Decision(answer={"lot_id": lot_id}, hold_acts=[act])

    def decide_hold(self, arguments: Arguments, now_us: int) -> Decision:
        """hold.decide {hold_id, etag, decision, places, actor, reason, system, exposure} -> {hold_id}."""
        hold_id = requests.text(arguments, "hold_id", required=True)
        etag = requests.etag(arguments)
        if etag is None:
            raise InvalidArgument("must be given: read the hold, then decide", field="etag")
        decision = requests.one_of(arguments, "decision", DECISIONS)
        places = [
            {name: requests.text(entry, name, within=at) for name in ("handling_unit_id", "warehouse_id", "zone_id")}
            for at, entry in requests.each(arguments, "places", most=MOST_PLACES)
        ]
        for at, place in enumerate(places):
            if bool(place["handling_unit_id"]) == bool(place["warehouse_id"]):
                raise InvalidArgument("must name a handling unit or a warehouse", field=f"places[{at}].handling_unit_id")
        if (decision == "partially_release") != bool(places):
            raise InvalidArgument("must be given for a partial release, and only there", field="places", value=len(places))
        who = _who(arguments, now_us)
        act = HoldAct(decision, *who, hold_id=hold_id, etag=etag, places=places, system=requests.text(arguments, "system"))
        act.exposure = list(arguments.get("exposure") or [])
        return Decision(answer={"hold_id": hold_id}, hold_acts=[act])

    # ------------------------------------------------------------ other systems

    def put_mappings(self, arguments: Arguments, now_us: int) -> Write:
        """mapping.put {mappings}."""
        return books.put_mappings, (_mappings(arguments, whole=True), now_us)

    def delete_mappings(self, arguments: Arguments, now_us: int) -> Write:
        """mapping.delete {mappings}."""
        return books.delete_mappings, (_mappings(arguments, whole=False),)

    def put_book(self, arguments: Arguments, now_us: int) -> Write:
        """book.put {sync, lines, last}: a part of another system's book, see journal.books.put."""
        return books.put, (arguments["sync"], arguments["lines"], bool(arguments["last"]), now_us)

    def set_expiry(self, arguments: Arguments, now_us: int) -> Write:
        """lot.expiry {lots}: [(lot_id, expires_us)] of lots that are there."""
        return books.set_expiry, (arguments["lots"], now_us)


def _who(arguments: Arguments, now_us: int) -> tuple[str, int, str]:
    by = requests.text(arguments, "actor", required=True)
    return by, now_us, requests.text(arguments, "reason", required=True, longest=NOTE_MAX)


def _read_or_refuse(one: Any, warehouse_id: str) -> dict[str, Any] | DomainError:
    try:
        return read(one, warehouse_id)
    except DomainError as error:
        return error


def read(told: Arguments, warehouse_id: str) -> dict[str, Any]:
    """A movement as told, checked as far as it can be by itself: plain data with the digest that makes two tellings the same.

    Raises InvalidArgument.
    """
    named = requests.text(told, "warehouse_id")
    if named not in ("", warehouse_id):
        raise InvalidArgument(f"must be empty or {warehouse_id}", field="warehouse_id", value=named)
    kind = requests.one_of(told, "kind", stock.KINDS)
    signed, zero = kind == "ADJUST", kind in ("COUNT", "RECEIVE")
    one: dict[str, Any] = {
        "key": requests.text(told, "key", required=True, longest=KEY_MAX),
        "kind": kind,
        "item_id": requests.text(told, "item_id", longest=KEY_MAX),
        "gtin": (requests.identifier(told, "gtin", identifiers.gtin) or "").zfill(14) if told.get("gtin") else "",
        "lot_number": requests.text(told, "lot_number"),
        "quantity": stock.text(stock.quantity(told.get("quantity") or "", "quantity", signed=signed, zero=zero)),
        "unit": requests.unit(told, default="") if told.get("unit") else "",
        "status": requests.one_of(told, "status", stock.STATUSES, default=""),
        "damaged": "",
        "allow_expired": requests.flag(told, "allow_expired"),
        "at_us": requests.time_us(told, "at_us"),
        "expiry_us": requests.time_us(told, "expiry_us"),
        "reason": requests.text(told, "reason", longest=NOTE_MAX),
        "serials": _serials(told),
    }
    for name in ("zone_id", "to_zone_id", "shipment_id", "system", "actor", "reference"):
        one[name] = requests.text(told, name)
    for name in ("handling_unit_id", "to_handling_unit_id"):
        one[name] = requests.identity(told, name, required=False)
        if len(one[name]) == 18 and one[name].isdigit():
            identifiers.sscc(one[name], name)
    if told.get("damaged"):
        one["damaged"] = stock.text(stock.quantity(told["damaged"], "damaged_quantity"))
    _fits(one, kind)
    one["digest"] = requests.digest(one)
    return one


def _fits(one: Mapping[str, Any], kind: str) -> None:
    """The fields fit the kind of movement."""
    if bool(one["item_id"]) == bool(one["gtin"]):
        raise InvalidArgument("exactly one of item_id, gtin must be given", field="item_id", value=one["item_id"])
    for name, kinds in TAKES.items():
        if one[name] and kind not in kinds:
            field = {"damaged": "damaged_quantity", "expiry_us": "expiry_time"}.get(name, name)
            raise InvalidArgument(f"is not taken by {kind}", field=field, value=one[name])
    in_transit = one["status"] == stock.IN_TRANSIT
    if in_transit and not (kind == "ADJUST" and one["shipment_id"]):
        raise InvalidArgument("needs ADJUST and a shipment", field="status", value=stock.IN_TRANSIT)
    if kind == "ADJUST" and one["shipment_id"] and not in_transit:
        raise InvalidArgument("must be IN_TRANSIT to adjust what a shipment carries", field="status", value=one["status"])
    if not one["zone_id"] and not in_transit:
        raise InvalidArgument("must be given", field="zone_id")
    if kind == "PUT_AWAY" and not one["to_zone_id"]:
        raise InvalidArgument("must be given", field="to_zone_id")
    if kind in ("ADJUST", "SCRAP") and not one["reason"]:
        raise InvalidArgument("must be given", field="reason")
    if kind == "RECEIVE":
        if not one["shipment_id"] and (one["damaged"] or one["handling_unit_id"]):
            field = "damaged_quantity" if one["damaged"] else "handling_unit_id"
            raise InvalidArgument("needs a shipment", field=field, value=one["damaged"] or one["handling_unit_id"])
        if one["quantity"] == "0" and not one["shipment_id"]:
            raise InvalidArgument("must not be zero", field="quantity", value="0")
    if one["serials"] and kind == "COUNT":
        raise InvalidArgument("is not taken by COUNT", field="serials", value=len(one["serials"]))


def _serials(told: Arguments) -> list[str]:
    given: Sequence[Any] = told.get("serials") or []
    if len(given) > MOST_SERIALS:
        raise InvalidArgument(f"must have at most {MOST_SERIALS} entries", field="serials", value=len(given))
    return [requests.text({"serials": serial}, "serials", required=True) for serial in given]


def _mappings(arguments: Arguments, *, whole: bool) -> list[dict[str, Any]]:
    """Mappings as plain data; `whole`: with what they mean."""
    found: list[dict[str, Any]] = []
    for at, entry in requests.each(arguments, "mappings", most=MOST_MAPPINGS):
        one: dict[str, Any] = {
            "system": requests.text(entry, "system", within=at, required=True),
            "kind": requests.one_of(entry, "kind", ("ITEM", "LOCATION"), within=at),
            "external_id": requests.text(entry, "external_id", within=at, required=True, longest=KEY_MAX),
            "at": at,
        }
        if whole:
            one["item_id"] = requests.identity(entry, "item_id", within=at, required=False)
            one["gtin"] = (requests.identifier(entry, "gtin", identifiers.gtin, within=at) or "").zfill(14) if entry.get("gtin") else ""
            one["warehouse_id"] = requests.identity(entry, "warehouse_id", within=at, required=False)
            one["gln"] = requests.identifier(entry, "gln", identifiers.gln, within=at) or ""
            one["zone_id"] = requests.text(entry, "zone_id", within=at)
            one["etag"] = requests.etag(entry)
            mine, other = (("item_id", "gtin"), ("warehouse_id", "gln"))[:: 1 if one["kind"] == "ITEM" else -1]
            if sum(bool(one[name]) for name in mine) != 1:
                raise InvalidArgument(f"exactly one of {', '.join(mine)} must be given", field=at + mine[0])
            if any(one[name] for name in other) or (one["kind"] == "ITEM" and one["zone_id"]):
                raise InvalidArgument(f"is not taken by {one['kind']}", field=at + other[0])
        found.append(one)
    if not found:
        raise InvalidArgument("must be given", field="mappings")
    return found
