"""The connector and a real Tryton: what is booked there, once, and what is read from there. Tryton's side is read by SQL."""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import Any

import pytest

from services.erp.connector import SUPPLIER
from services.erp.jsonrpc import TrytonRpc
from services.erp.tryton import Tryton
from services.erp.tryton_read import MARK
from services.outside import Done, LockedOut, Message, Refused
from tests.erp.conftest import Books, Ledger
from tests.erp.tryton_server import PASSWORD, TrytonServer

AT_US = 1_780_000_000_000_000
numbers = itertools.count(1)


def movement(lot: tuple[str, str], kind: str, *legs: tuple[str, str, str]) -> Message:
    """A message of a movement of (item, lot number); a leg is (warehouse/zone, status, quantity)."""
    number = next(numbers)
    told: list[list[str]] = []
    for place, status, quantity in legs:
        warehouse_id, _, zone_id = place.partition("/")
        told.append([warehouse_id, zone_id, "/".join(lot), "", "", status, quantity])
    body: dict[str, Any] = {"item_id": lot[0], "lot_number": lot[1], "kind": kind, "at_us": AT_US, "legs": told}
    return Message(number, f"movement|NORTH|m{number}", "movement", body)


def hold(lot: tuple[str, str], change: str = "placed") -> Message:
    number = next(numbers)
    return Message(number, f"hold|H-{number}|1", f"hold.{change}", {"hold": {"item_id": lot[0], "lot_number": lot[1]}, "change": change})


def lot_of(books: Books, number: str) -> tuple[str, str]:
    """A lot by its number, as (item, lot number), with at least 100 pieces in one of the rooms."""
    return f"item-{books.one('SELECT product FROM stock_lot WHERE number = ?', number)}", number


def room_of(books: Books, ledger: Ledger, number: str) -> tuple[str, str]:
    """Where a lot's first stock lies: Tryton's place, and ours as warehouse/zone."""
    place = next(place for place in ledger.places if books.on_hand(number, place) > 0)
    return place, "/".join(ledger.places[place])


@pytest.fixture
def clerk(erp: TrytonServer) -> TrytonRpc:
    """A person who works in Tryton."""
    return TrytonRpc(erp.url, "clerk", lambda: PASSWORD)


def test_movements_become_documents_that_carry_their_keys(connector: Tryton, books: Books, ledger: Ledger) -> None:
    lot = lot_of(books, "L0000A")
    place, here = room_of(books, ledger, "L0000A")
    before = books.on_hand("L0000A", place)
    told = [
        movement(lot, "RECEIVE", (here, "FREE", "12")),
        movement(lot, "SHIP", (here, "FREE", "-5")),
        movement(lot, "ADJUST", (here, "FREE", "-2")),
        movement(lot, "COUNT", (here, "FREE", "1")),
        movement(lot, "RESERVE", (here, "FREE", "-3"), (here, "RESERVED", "3")),
    ]
    assert list(connector.deliver(told)) == [Done.BOOKED] * 4 + [Done.NOTHING_TO_DO]
    assert books.on_hand("L0000A", place) == before + 12 - 5 - 2 + 1
    kinds = [
        books.rows(f"SELECT state FROM {table} WHERE reference = ?", MARK + message.key)
        for table, message in zip(
            ("stock_shipment_in", "stock_shipment_out", "stock_shipment_internal", "stock_shipment_internal"), told, strict=False
        )
    ]
    assert kinds == [[("done",)]] * 4


def test_what_is_told_again_is_booked_once(connector: Tryton, books: Books, ledger: Ledger) -> None:
    lot = lot_of(books, "L0001A")
    place, here = room_of(books, ledger, "L0001A")
    told = [movement(lot, "RECEIVE", (here, "FREE", "7"))]
    list(connector.deliver(told))
    once = books.on_hand("L0001A", place)
    assert list(connector.deliver(told)) == [Done.BOOKED]
    assert books.on_hand("L0001A", place) == once


@pytest.mark.parametrize("led", [(), ("wait",), ("wait", "assign_force")], ids=["draft", "waiting", "assigned"])
def test_drafts_that_a_lost_answer_left_behind_are_not_booked_beside(
    connector: Tryton, books: Books, ledger: Ledger, clerk: TrytonRpc, led: tuple[str, ...]
) -> None:
    lot = lot_of(books, "L0002A")
    place, here = room_of(books, ledger, "L0002A")
    told = movement(lot, "ADJUST", (here, "FREE", "-4"))
    before = books.on_hand("L0002A", place)
    lost = clerk.call("model.stock.location.search", [["type", "=", "lost_found"]])[0]
    company = clerk.context["company"]
    ends = {"from_location": int(place), "to_location": lost, "company": company}
    move = {
        **ends, "product": int(lot[0].removeprefix("item-")), "lot": books.one("SELECT id FROM stock_lot WHERE number = 'L0002A'"),
        "quantity": 4.0, "unit": books.one("SELECT id FROM product_uom WHERE symbol = 'u'"),
    }  # fmt: skip
    for _ in range(2):  # as a courier leaves it that dies between the creation and the next step, twice
        made = clerk.call("model.stock.shipment.internal.create", [{**ends, "reference": MARK + told.key, "moves": [["create", [move]]]}])
    for step in led:
        clerk.call(f"model.stock.shipment.internal.{step}", made)
    assert list(connector.deliver([told])) == [Done.BOOKED]
    assert books.on_hand("L0002A", place) == before - 4
    states = books.rows("SELECT state FROM stock_shipment_internal WHERE reference = ? ORDER BY id", MARK + told.key)
    assert sorted(states) == [("cancelled",), ("done",)]


def test_a_refusal_concerns_its_own_message_alone(connector: Tryton, books: Books, ledger: Ledger) -> None:
    lot = lot_of(books, "L0003A")
    place, here = room_of(books, ledger, "L0003A")
    before = books.on_hand("L0003A", place)
    told = [
        movement(lot, "RECEIVE", (here, "FREE", "1")),
        movement(lot, "RECEIVE", (here, "FREE", "1.25")),  # Tryton's unit has no decimals
        movement(("unknown", "L1"), "RECEIVE", (here, "FREE", "1")),
        movement(lot, "RECEIVE", (here, "FREE", "2")),
    ]
    outcomes = list(connector.deliver(told))
    assert [outcomes[0], outcomes[3]] == [Done.BOOKED, Done.BOOKED]
    assert isinstance(outcomes[1], Refused)
    assert "digits" in str(outcomes[1])
    assert isinstance(outcomes[2], Refused)
    assert "unknown" in str(outcomes[2])
    assert books.on_hand("L0003A", place) == before + 3


def test_a_lot_on_hold_cannot_be_picked(connector: Tryton, books: Books, ledger: Ledger, clerk: TrytonRpc) -> None:
    lot = lot_of(books, "L0004A")
    place, here = room_of(books, ledger, "L0004A")
    zone = ledger.places[place]
    whole = books.on_hand("L0004A", place)
    move = {
        "product": int(lot[0].removeprefix("item-")), "lot": books.one("SELECT id FROM stock_lot WHERE number = 'L0004A'"),
        "quantity": 3.0, "unit": books.one("SELECT id FROM product_uom WHERE symbol = 'u'"), "from_location": int(place),
        "to_location": int(books.place("OUT")), "company": clerk.call("model.company.company.search", [])[0],
    }  # fmt: skip
    ends = {name: move[name] for name in ("from_location", "to_location", "company")}
    pick = clerk.call("model.stock.shipment.internal.create", [{**ends, "moves": [["create", [move]]]}])
    clerk.call("model.stock.shipment.internal.wait", pick)
    clerk.call("model.stock.shipment.internal.assign_try", pick)
    state = "SELECT state FROM stock_shipment_internal WHERE id = ?"
    assert books.one(state, pick[0]) == "assigned"

    ledger.blocked[lot] = {zone: None}
    assert list(connector.deliver([hold(lot)])) == [Done.BOOKED]
    aside = books.place(f"WB-HOLD-{place}")
    assert (books.on_hand("L0004A", place), books.on_hand("L0004A", aside)) == (0, whole)
    assert books.one(state, pick[0]) == "waiting"  # what had been assigned waits again
    clerk.call("model.stock.shipment.internal.assign_try", pick)
    assert books.one(state, pick[0]) == "waiting"

    # Goods of the lot that come in while it is on hold are put aside, too.
    list(connector.deliver([movement(lot, "RECEIVE", (here, "FREE", "5"))]))
    assert (books.on_hand("L0004A", place), books.on_hand("L0004A", aside)) == (0, whole + 5)

    ledger.blocked[lot] = {}
    assert list(connector.deliver([hold(lot, "released")])) == [Done.BOOKED]
    assert (books.on_hand("L0004A", place), books.on_hand("L0004A", aside)) == (whole + 5, 0)


def test_the_book_counts_what_is_put_aside_to_its_room(connector: Tryton, books: Books, ledger: Ledger) -> None:
    lot = lot_of(books, "L0006A")
    place, here = room_of(books, ledger, "L0006A")
    whole = books.on_hand("L0006A", place)
    ledger.blocked[lot] = {ledger.places[place]: Decimal(10)}
    list(connector.deliver([movement(lot, "HOLD", (here, "FREE", "-10"), (here, "HELD", "10"))]))
    assert books.on_hand("L0006A", books.place(f"WB-HOLD-{place}")) == 10
    product = lot[0].removeprefix("item-")
    mine = [line for line in connector.book() if (line.item_id, line.lot_number) == (product, "L0006A")]
    assert [(line.place_id, line.quantity) for line in mine] == [(place, Decimal(str(whole)))]
    assert lot in connector.lots_put_aside()


def test_changes_tell_everything_once_and_then_what_is_new(connector: Tryton, books: Books, ledger: Ledger, clerk: TrytonRpc) -> None:
    changes = connector.changes({})
    assert len(changes.items) == 60
    assert {place.code for place in changes.places} >= {"NORTH", "SOUTH", "COLD-1", "COLD-2", "COLD-3"}
    assert not changes.more
    item = next(item for item in changes.items if item.code == "V0001")
    assert (item.name, item.unit, item.gtin) == ("Vaccine 0001", "EA", "2900000000018")

    place, _ = room_of(books, ledger, "L0008A")
    lot = lot_of(books, "L0008A")
    move = {
        "product": int(lot[0].removeprefix("item-")), "lot": books.one("SELECT id FROM stock_lot WHERE number = 'L0008A'"),
        "quantity": 2.0, "unit": books.one("SELECT id FROM product_uom WHERE symbol = 'u'"), "to_location": int(place),
        "from_location": books.one("SELECT id FROM stock_location WHERE type = 'supplier'"),
        "currency": books.one("SELECT id FROM currency_currency"), "unit_price": Decimal(1),
    }  # fmt: skip
    made = str(clerk.call("model.stock.move.create", [move])[0])
    assert made not in {one.external_id for one in connector.changes(changes.cursor).moves}  # a draft moves nothing

    clerk.call("model.stock.move.write", [int(made)], {"quantity": 3.0})  # an edit before it is done
    clerk.call("model.stock.move.do", [int(made)])
    told = next(one for one in connector.changes(changes.cursor).moves if one.external_id == made)
    assert (told.from_id, told.to_id, told.quantity, told.lot_number, told.done) == (SUPPLIER, place, Decimal(3), "L0008A", True)
    assert connector.standing([made], []) == ({made}, set())

    clerk.call("model.stock.move.cancel", [int(made)])
    told = next(one for one in connector.changes(changes.cursor).moves if one.external_id == made)
    assert not told.done
    clerk.call("model.stock.move.delete", [int(made)])
    assert connector.standing([made], []) == (set(), set())


def test_our_own_documents_are_known_as_ours(connector: Tryton, books: Books, ledger: Ledger, clerk: TrytonRpc) -> None:
    lot = lot_of(books, "L0010A")
    _, here = room_of(books, ledger, "L0010A")
    cursor = connector.changes({}).cursor
    told = movement(lot, "RECEIVE", (here, "FREE", "9"))
    list(connector.deliver([told]))
    assert connector.standing([], [told.key]) == (set(), {told.key})
    mine = [one for one in connector.changes(cursor).moves if one.key == told.key]
    assert [(one.from_id, one.quantity, one.done) for one in mine] == [(SUPPLIER, Decimal(9), True)]

    document = books.one("SELECT id FROM stock_shipment_in WHERE reference = ?", MARK + told.key)
    clerk.call("model.stock.shipment.in.cancel", [document])
    mine = [one for one in connector.changes(cursor).moves if one.key == told.key]
    assert [one.done for one in mine] == [False]
    assert connector.standing([], [told.key]) == (set(), set())


def test_a_wrong_password_locks_us_out(erp: TrytonServer, ledger: Ledger) -> None:
    stranger = Tryton(erp.url, "waybill", lambda: "wrong-secret", ledger, ledger, now_us=lambda: AT_US)
    with pytest.raises(LockedOut, match="wrong user or password") as caught:
        stranger.check()
    assert "wrong-secret" not in str(caught.value)
