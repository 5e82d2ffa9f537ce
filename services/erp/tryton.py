"""The connector to Tryton (8.0 and later with the modules company, product, stock and stock_lot), over JSON-RPC.

A zone of Waybill is a storage location of Tryton, a warehouse a warehouse. Beside each of these locations, outside of the
warehouse's storage, `prepare` makes one that is called "... (on hold)": what must not be picked lies there, where no assignment looks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from services.erp import plan, tryton_read
from services.erp.connector import Blocked, Changes, ErpStock, Known
from services.erp.jsonrpc import TrytonRpc
from services.erp.plan import Transfer
from services.erp.tryton_read import ASIDE_CODE, PAGE, Places
from services.erp.tryton_write import Writer, by_place
from services.outside import Away, Done, Failed, LockedOut, Message, Outcome, OutsideError, Refused

log = logging.getLogger(__name__)

MODULES = ("company", "product", "stock", "stock_lot")


class Tryton:
    """See Connector."""

    def __init__(
        self,
        url: str,
        user: str,
        password: Callable[[], str],
        known: Known,
        blocked: Blocked,
        *,
        system: str = "tryton",
        now_us: Callable[[], int],
    ) -> None:
        self.system = system
        self._rpc = TrytonRpc(url, user, password)
        self._known, self._blocked, self._now_us = known, blocked, now_us
        self._writer = Writer(self._rpc, known)
        self._cached_places: Places | None = None
        self._seen = tryton_read.Seen()
        self._watched: set[tuple[str, str]] | None = None  # lots that are or were on hold, or of which something lies aside

    def check(self) -> str:
        """See Connector."""
        series = self._rpc.version()
        if tuple(int(part) for part in series.split(".")[:2]) < (8, 0):
            raise Refused(f"Tryton {series} is too old: its shipments lack what is needed, use 8.0 or later")
        company_id = (self._rpc.context or self._log_in()).get("company")
        if not company_id:
            raise Refused("the user has no company in Tryton: set one in its preferences")
        company = self._rpc.call("model.company.company.read", [company_id], ["rec_name"])[0]["rec_name"]
        try:
            self._rpc.call("model.stock.lot.search", [], 0, 1, None)
        except OutsideError as error:
            raise Refused(f"Tryton needs the modules {', '.join(MODULES)}, and the user the groups of stock: {error}") from None
        return f"Tryton {series} at {self._rpc.url}, company {company}"

    def _log_in(self) -> dict[str, Any]:
        self._rpc.call("model.res.user.get_preferences", True)
        return self._rpc.context

    def prepare(self) -> Sequence[str]:
        """See Connector."""
        self.check()
        places = self._places(again=True)
        party_was_there = bool(self._rpc.call("model.party.party.search", [["code", "=", "WAYBILL"]], 0, 1, None))
        self._writer.party()
        made = [] if party_was_there else ["party Waybill, which stands as supplier and customer on what Waybill makes"]
        names = {place.external_id: place.name for place in places.told}
        for place in places.warehouse:
            if place not in places.aside and self._known.zone_of(place) is not None:
                self._make_aside(place, names[place], places)
                made.append(f"location {names[place]} (on hold)")
        if made:
            self._places(again=True)
        return made

    def changes(self, cursor: Mapping[str, Any]) -> Changes:
        """See Connector."""
        return tryton_read.read_changes(self._rpc, self._places(again=True), cursor, self._now_us(), self._seen)

    def standing(self, moves: Sequence[str], keys: Sequence[str]) -> tuple[set[str], set[str]]:
        """See Connector."""
        found: set[str] = set()
        for start in range(0, len(moves), PAGE):
            wanted = [["id", "in", [int(move) for move in moves[start : start + PAGE]]], ["state", "=", "done"]]
            found |= {str(number) for number in self._rpc.call("model.stock.move.search", wanted)}
        return found, tryton_read.standing_keys(self._rpc, set(keys), done_only=True)

    def deliver(self, messages: Sequence[Message]) -> Iterator[Outcome]:
        """See Connector."""
        places = self._places()
        run: list[Message] = []
        for message in messages:
            if message.kind == "movement":
                run.append(message)
                continue
            yield from self._book(run, places)
            run = []
            yield self._hold(message)
        yield from self._book(run, places)

    def _book(self, messages: Sequence[Message], places: Places) -> Iterator[Outcome]:
        """Book movements, then look after the lots on hold that they touched, then tell: what is told is not done again."""
        decided = [self._decide(message) for message in messages]
        wanted = [(message.key, one) for message, one in zip(messages, decided, strict=True) if isinstance(one, Transfer)]
        booked = self._writer.book(wanted, places)
        outcomes: list[Outcome] = []
        lots: dict[tuple[str, str], None] = {}
        stopped: OutsideError | None = None
        for message, one in zip(messages, decided, strict=True):
            try:
                outcome = next(booked) if isinstance(one, Transfer) else one
            except (Away, LockedOut) as error:
                stopped = error
                break
            outcomes.append(outcome)
            lot = str(message.body["item_id"]), str(message.body["lot_number"])
            if plan.touches_what_is_aside(message.body) or (outcome is Done.BOOKED and lot in self._watch()):
                lots[lot] = None
        try:
            self._protect(list(lots))
        except (Refused, Failed):
            for lot in lots:  # who of them it is
                try:
                    self._protect([lot])
                except (Refused, Failed) as error:  # all lots on hold are looked after again within a minute
                    log.warning("lot %s of %s: %s", lot[1], lot[0], error)
        yield from outcomes
        if stopped is not None:
            raise stopped

    def _decide(self, message: Message) -> Transfer | Outcome:
        try:
            return plan.transfer(message.body, self._known) or Done.NOTHING_TO_DO
        except Refused as error:
            return error

    def _hold(self, message: Message) -> Outcome:
        hold = message.body["hold"]
        try:
            self.protect(str(hold["item_id"]), str(hold["lot_number"]))
        except Refused as error:
            return error
        return Done.BOOKED

    def protect(self, item_id: str, lot_number: str) -> int:
        """See Connector."""
        return self._protect([(item_id, lot_number)])

    def _protect(self, lots: Sequence[tuple[str, str]]) -> int:
        """`protect` for several lots: what is to be moved is moved together. Raises Refused, Failed for all of them."""
        wanted = [one for lot in lots for one in self._out_of_line(*lot)]
        self._writer.internal(wanted, self._places())
        return len(wanted)

    def _out_of_line(self, item_id: str, lot_number: str) -> list[tuple[str, Transfer]]:
        """What must be moved, as (key, transfer), so that no more of a lot can be picked than may be. Assignments of it are let go."""
        self._watch().add((item_id, lot_number))
        external = self._known.external_item(item_id)
        if external is None:
            return []
        product = int(external)
        lot = self._writer.lot(product, lot_number, make=False) if lot_number else None
        if lot_number and lot is None:
            return []
        places = self._places()
        blocked = self._blocked.of_lot(item_id, lot_number)
        ids = [int(place) for place in (*places.warehouse, *places.aside.values())]
        context = {"product": product, "with_childs": False, **({"lot": lot} if lot else {})}
        there = by_place(self._rpc.call("model.stock.location.read", ids, ["quantity"], context=context))
        found = []
        for place in places.warehouse:
            zone = self._known.zone_of(place)
            free, aside = there[place], there.get(places.aside.get(place, ""), Decimal(0))
            if zone is None or (not aside and zone not in blocked):
                continue
            everything = max(free + aside, Decimal(0))
            wanted = blocked.get(zone, Decimal(0))
            wanted = everything if wanted is None else min(wanted, everything)
            if wanted > aside:
                self._let_go(product, lot, int(place))
            if wanted != aside:
                found.append((f"hold/{place}/{item_id}/{lot_number}", self._put_aside(item_id, lot_number, place, wanted - aside)))
        return found

    def _watch(self) -> set[tuple[str, str]]:
        if self._watched is None:
            self._watched = self.lots_put_aside() | self._blocked.lots()
        return self._watched

    def _let_go(self, product: int, lot: int | None, place: int) -> None:
        """Take back what is assigned of goods that must not be picked any more: its shipment waits for other goods, or for these."""
        wanted = [["product", "=", product], ["lot", "=", lot], ["from_location", "=", place], ["state", "=", "assigned"]]
        for row in self._rpc.call("model.stock.move.search_read", wanted, 0, None, None, ["shipment"]):
            model, _, shipment = (row["shipment"] or "").partition(",")
            try:
                if model:
                    self._rpc.call(f"model.{model}.wait", [int(shipment)])
                else:
                    self._rpc.call("model.stock.move.draft", [row["id"]])
            except Refused as error:  # packed already: from here on people must stop it
                log.warning("goods on hold stay assigned in Tryton: %s", error)

    def _put_aside(self, item_id: str, lot_number: str, place: str, more: Decimal) -> Transfer:
        places = self._places()
        if place not in places.aside:
            self._make_aside(place, next(one.name for one in places.told if one.external_id == place), places)
            places = self._places(again=True)
        ends = (place, places.aside[place]) if more > 0 else (places.aside[place], place)
        return Transfer(item_id, lot_number, abs(more), *ends, at_us=self._now_us())

    def _make_aside(self, place: str, name: str, places: Places) -> None:
        body = {"name": f"{name} (on hold)", "code": ASIDE_CODE + place, "type": "storage", "parent": places.warehouse[place]}
        self._rpc.call("model.stock.location.create", [body])

    def lots_put_aside(self) -> set[tuple[str, str]]:
        """See Connector."""
        found = set()
        for aside in self._places(again=True).aside.values():
            context = {"locations": [int(aside)], "active_test": False}
            rows = self._rpc.call(
                "model.stock.lot.search_read", [["quantity", "!=", 0]], 0, None, None, ["number", "product"], context=context
            )
            for row in rows:
                item_id = self._known.item_of(str(row["product"]))
                if item_id is not None:
                    found.add((item_id, row["number"]))
        return found

    def book(self) -> Iterator[ErpStock]:
        """See Connector."""
        yield from tryton_read.read_book(self._rpc, self._places(again=True))

    def close(self) -> None:
        """See Connector."""
        self._rpc.close()

    def _places(self, *, again: bool = False) -> Places:
        if self._cached_places is None or again:
            self._cached_places = tryton_read.read_places(self._rpc)
        return self._cached_places
