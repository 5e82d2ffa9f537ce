"""The ledger in the journal: movements, idempotency, units, serials, receipts and shipments, holds with the excursions that place them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlmodel import Session

from actors.inventory import read
from actors.journal import outbox, queries_stock, rows
from actors.journal.database import writer
from actors.journal.prepared import CommitResult, HoldAct, PreparedCommit, StockWork
from actors.journal.store import Store, open_store
from actors.journal.tables import (
    Event,
    Excursion,
    HandlingUnit,
    HandlingUnitLot,
    Hold,
    HoldHistory,
    Item,
    Lot,
    Outbox,
    OutboxDestination,
    Profile,
    ShardOwner,
    Shipment,
    Stock,
    StockLeg,
    Warehouse,
    Zone,
)
from actors.rules.errors import DomainError, FailedPrecondition, InvalidArgument, NotFound, Overloaded, StaleEtag

NOW_US = 1_800_000_000_000_000
HOUR_US = 3_600_000_000


class World:
    """A warehouse with two zones, an item in boxes of 12, a shipment; movements told as the door tells them."""

    def __init__(self, store: Store, owner: ShardOwner) -> None:
        self.store, self.owner, self.now_us = store, owner, NOW_US
        self.commit(
            inserts=[
                Warehouse(warehouse_id="W", shard=0), Zone(warehouse_id="W", zone_id="A"), Zone(warehouse_id="W", zone_id="B"),
                Warehouse(warehouse_id="D", shard=0), Zone(warehouse_id="D", zone_id="IN"),
                Item(item_id="IT", unit="EA", attributes={"units": [{"unit": "BX", "factor": "12"}]}),
                Shipment(shipment_id="S", shard=0),
                Profile(profile_id="P", version=1, body={"hold_on_excursion": True}),
                Profile(profile_id="Q", version=1, body={"hold_on_excursion": False}),
            ]
        )  # fmt: skip

    def commit(self, **parts: Any) -> CommitResult:
        return self.store.commit(PreparedCommit(shard=0, epoch=self.owner.epoch, now_us=self.now_us, **parts)).result(20)

    def tell(self, *told: dict[str, Any], warehouse_id: str = "W", whole: bool = False) -> list[dict[str, Any]]:
        movements: list[Any] = []
        for one in told:
            try:
                movements.append(read({"item_id": "IT", "lot_number": "L1", "zone_id": "A", **one}, warehouse_id))
            except DomainError as error:
                movements.append(error)
        return self.commit(stock=StockWork(warehouse_id, movements, whole)).stock

    def move(self, kind: str, key: str, quantity: str, **more: Any) -> dict[str, Any]:
        [answer] = self.tell({"kind": kind, "key": key, "quantity": quantity, **more}, warehouse_id=more.pop("at", "W"))
        if "error" in answer:
            raise answer["error"]
        return dict(answer["movement"])

    def stock(self, **where: str) -> dict[tuple[str, ...], Decimal]:
        with Session(self.store.engine) as session:
            found = session.execute(select(Stock).filter_by(**where)).scalars()
            return {(r.warehouse_id, r.zone_id, r.handling_unit_id, r.status): r.quantity for r in found if r.quantity}

    def all(self, model: Any) -> list[Any]:
        with Session(self.store.engine) as session:
            return list(session.execute(select(model)).scalars())

    def excursion(self, number: int = 1, **more: Any) -> dict[str, Any]:
        facts = {
            "excursion_id": number, "shard": 0, "tag_id": "T", "carrier": "zone/W/A", "custody_id": 1, "limit_id": "above-8",
            "profile_id": "P", "profile_version": 1, "started_us": NOW_US - HOUR_US, "triggered_us": NOW_US - HOUR_US,
        }  # fmt: skip
        self.commit(excursions=[rows.record(Excursion, facts | more)])
        return facts


@pytest.fixture
def world(store: Store, owner: ShardOwner) -> World:
    return World(store, owner)


def test_stock_is_the_sum_of_the_ledger(world: World) -> None:
    world.move("RECEIVE", "r1", "2", unit="BX")
    world.move("PUT_AWAY", "p1", "10", to_zone_id="B")
    world.move("RESERVE", "s1", "4", zone_id="B")
    world.move("PICK", "k1", "4", zone_id="B", status="RESERVED", to_zone_id="A", to_handling_unit_id="PAL")
    world.move("SCRAP", "x1", "1", status="FREE", reason="broken")
    assert world.stock() == {("W", "A", "", "FREE"): 13, ("W", "B", "", "FREE"): 6, ("W", "A", "PAL", "PICKED"): 4}
    with Session(world.store.engine) as session:
        sums = session.execute(select(StockLeg.zone_id, func.sum(StockLeg.quantity)).group_by(StockLeg.zone_id)).all()  # type: ignore[call-overload]
    assert {zone: Decimal(total) for zone, total in sums} == {"A": 17, "B": 6}


def test_a_key_gives_its_first_answer_and_refuses_another_movement(world: World) -> None:
    first = world.move("RECEIVE", "k", "5")
    [again] = world.tell({"kind": "RECEIVE", "key": "k", "quantity": "5.0"})
    assert (again["repeated"], again["movement"]) == (True, first)
    with pytest.raises(FailedPrecondition, match="used before with another movement"):
        world.move("RECEIVE", "k", "6")
    twice = world.tell({"kind": "RECEIVE", "key": "m", "quantity": "1"}, {"kind": "RECEIVE", "key": "m", "quantity": "1"})
    assert [one["repeated"] for one in twice] == [False, True]
    assert world.stock() == {("W", "A", "", "FREE"): 6}


def test_lines_of_a_batch_are_refused_by_themselves_or_take_all_back(world: World) -> None:
    good, bad = {"kind": "RECEIVE", "key": "a", "quantity": "1"}, {"kind": "PICK", "key": "b", "quantity": "2"}
    with pytest.raises(FailedPrecondition) as refused:
        world.tell(good, bad, whole=True)
    assert refused.value.field == "movements[1].quantity"
    assert world.stock() == {}
    answers = world.tell(good, bad, {"kind": "PICK", "key": "c", "quantity": "1"}, {"kind": "PICK", "key": "d", "quantity": "1e0"})
    assert [type(one.get("error")) for one in answers] == [type(None), FailedPrecondition, type(None), InvalidArgument]
    assert [event.kind for event in world.all(Event)][-2:] == ["movement.recorded"] * 2


@pytest.mark.parametrize(("more", "error", "field"), [
    ({"item_id": "NO"}, NotFound, "item_id"), ({"zone_id": "NO"}, NotFound, "zone_id"), ({"unit": "KGM"}, InvalidArgument, "unit"),
    ({"at_us": NOW_US + HOUR_US}, InvalidArgument, "time"), ({"quantity": "-1"}, InvalidArgument, "quantity"),
    ({"quantity": "999999999999", "unit": "BX"}, InvalidArgument, "quantity"), ({"shipment_id": "NO"}, NotFound, "shipment_id"),
    ({"handling_unit_id": "123456789012345678", "kind": "PICK"}, InvalidArgument, "handling_unit_id"),
    ({"reason": "", "kind": "SCRAP"}, InvalidArgument, "reason"), ({"to_zone_id": "B"}, InvalidArgument, "to_zone_id"),
    ({"serials": ["1", "2"]}, InvalidArgument, "serials"), ({"key": ""}, InvalidArgument, "key"),
])  # fmt: skip
def test_bad_movements_are_refused_naming_the_field(world: World, more: dict[str, Any], error: type[DomainError], field: str) -> None:
    [answer] = world.tell({"kind": "RECEIVE", "key": "k", "quantity": "1", **more})
    assert isinstance(answer["error"], error)
    assert answer["error"].field == field


def test_a_count_is_as_of_its_time_and_later_movements_survive(world: World) -> None:
    world.move("RECEIVE", "r", "10", at_us=NOW_US - 3 * HOUR_US)
    world.move("PICK", "k", "4", at_us=NOW_US - HOUR_US)
    world.move("COUNT", "c", "9", at_us=NOW_US - 2 * HOUR_US)  # one was missing before the pick
    assert world.stock() == {("W", "A", "", "FREE"): 5, ("W", "A", "", "PICKED"): 4}
    world.move("COUNT", "c2", "5")
    assert world.move("COUNT", "c3", "5")["legs"] == []


def test_what_is_told_late_explains_a_difference_as_what_happens_late_does(world: World) -> None:
    world.now_us = NOW_US - 3 * HOUR_US
    world.move("RECEIVE", "known", "5", at_us=NOW_US - 5 * HOUR_US)
    world.now_us = NOW_US
    world.move("PICK", "told-late", "1", at_us=NOW_US - 4 * HOUR_US)
    world.move("PICK", "new", "1", at_us=NOW_US - HOUR_US)
    with Session(world.store.engine) as session:
        found = queries_stock.legs_since(session, "W", ["IT/L1"], NOW_US - 2 * HOUR_US, NOW_US)
    assert [(number, leg.quantity) for _, number, leg in found if leg.line.status == "FREE"] == [(3, Decimal(-1)), (2, Decimal(-1))]


def test_serial_numbers_are_in_one_place_at_a_time(world: World) -> None:
    world.move("RECEIVE", "r", "2", serials=["1", "2"])
    with pytest.raises(FailedPrecondition, match="is in W/A already"):
        world.move("RECEIVE", "r2", "1", serials=["2"])
    world.move("PUT_AWAY", "p", "1", serials=["1"], to_zone_id="B")
    with pytest.raises(FailedPrecondition, match="is not there"):
        world.move("PICK", "k", "1", serials=["1"])
    world.move("SCRAP", "s", "1", serials=["1"], zone_id="B", status="FREE", reason="broken")
    world.move("RECEIVE", "r3", "1", serials=["1"])


def test_goods_known_by_serial_do_not_leave_a_place_unnamed(world: World) -> None:
    leaving: list[tuple[str, dict[str, Any]]] = [
        ("SHIP", {"status": "FREE"}), ("SHIP", {"status": "FREE", "shipment_id": "S", "to_handling_unit_id": "PAL"}),
        ("SCRAP", {"status": "FREE", "reason": "broken"}), ("ADJUST", {"reason": "lost"}), ("PUT_AWAY", {"to_zone_id": "B"}),
        ("PICK", {"to_zone_id": "B"}), ("COUNT", {}),
    ]  # fmt: skip
    for number, (kind, more) in enumerate(leaving):
        lot, sign, serials = {"lot_number": f"L{number}"}, "-" if kind == "ADJUST" else "", [f"{number}-1", f"{number}-2"]
        world.move("RECEIVE", f"named-{number}", "2", serials=serials, **lot)
        world.move("RECEIVE", f"unnamed-{number}", "1", **lot)
        with pytest.raises(FailedPrecondition, match=r"2 pieces there are known by serial number, 1 would be left") as failed:
            world.move(kind, f"m{number}", "1" if kind == "COUNT" else f"{sign}2", **more, **lot)
        assert failed.value.field == "serials"
        if kind == "COUNT":
            world.move(kind, f"c{number}", "2", **lot)
        else:
            world.move(kind, f"one-{number}", f"{sign}1", **more, **lot)  # the one that nobody knows by number
            world.move(kind, f"rest-{number}", f"{sign}2", serials=serials, **more, **lot)


def test_goods_known_by_serial_are_named_when_they_come_off_a_shipment(world: World) -> None:
    world.move("RECEIVE", "r", "3", serials=["1", "2", "3"])
    world.move("SHIP", "s", "3", status="FREE", shipment_id="S", to_handling_unit_id="PAL", serials=["1", "2", "3"])
    off = {"kind": "RECEIVE", "shipment_id": "S", "zone_id": "IN"}
    [refused] = world.tell({**off, "key": "d0", "quantity": "1"}, warehouse_id="D")
    assert refused["error"].field == "serials"
    [other] = world.tell({**off, "key": "d1", "quantity": "1", "serials": ["9"]}, warehouse_id="D")  # a stranger's piece came instead: over
    assert "error" in other
    world.tell({**off, "key": "d2", "quantity": "2", "serials": ["1", "2"]}, warehouse_id="D", whole=True)
    transit = {"status": "IN_TRANSIT", "shipment_id": "S", "handling_unit_id": "PAL", "reason": "lost"}
    with pytest.raises(FailedPrecondition, match="known by serial"):
        world.move("ADJUST", "lost", "-1", **transit)
    with pytest.raises(FailedPrecondition, match="is not there"):
        world.move("ADJUST", "lost", "-1", serials=["1"], **transit)
    world.move("ADJUST", "lost", "-1", serials=["3"], **transit)


def test_goods_shipped_from_one_warehouse_are_received_in_another_with_short_over_and_damaged(world: World) -> None:
    world.move("RECEIVE", "r", "20")
    world.move("SHIP", "s", "12", status="FREE", shipment_id="S", to_handling_unit_id="PAL")
    assert world.stock() == {("W", "A", "", "FREE"): 8, ("W", "", "PAL", "IN_TRANSIT"): 12}
    assert [(unit.handling_unit_id, unit.carrier) for unit in world.all(HandlingUnit)] == [("PAL", "shipment/S")]
    [short] = world.tell(
        {"kind": "RECEIVE", "key": "d1", "quantity": "8", "damaged": "1", "shipment_id": "S", "zone_id": "IN"}, warehouse_id="D"
    )
    assert (short["movement"]["short"], short["movement"]["over"]) == ("3", "0")
    [over] = world.tell({"kind": "RECEIVE", "key": "d2", "quantity": "5", "shipment_id": "S", "zone_id": "IN"}, warehouse_id="D")
    assert (over["movement"]["short"], over["movement"]["over"]) == ("0", "2")
    assert world.stock() == {("W", "A", "", "FREE"): 8, ("D", "IN", "", "FREE"): 13, ("D", "IN", "", "HELD"): 1}
    assert world.all(HandlingUnitLot) == []


def test_goods_on_a_cancelled_shipment_come_back_but_none_follow_them(world: World) -> None:
    world.move("RECEIVE", "r", "20")
    onto = {"status": "FREE", "shipment_id": "S", "to_handling_unit_id": "PAL"}
    world.move("SHIP", "s", "12", **onto)
    [shipment] = world.all(Shipment)
    world.commit(upserts=[Shipment(**{**shipment.model_dump(), "state": "CANCELLED"})])
    with pytest.raises(FailedPrecondition, match="is CANCELLED"):
        world.move("SHIP", "s2", "1", **onto)
    world.move("RECEIVE", "back", "12", shipment_id="S")
    assert world.stock() == {("W", "A", "", "FREE"): 20}


def test_a_pallet_is_used_again_once_it_is_empty_or_what_was_short_is_settled(world: World) -> None:
    world.commit(inserts=[Shipment(shipment_id="S2", shard=0)])
    world.move("RECEIVE", "r", "20")
    onto = {"status": "FREE", "to_handling_unit_id": "PAL"}
    world.move("SHIP", "s1", "5", shipment_id="S", **onto)
    world.tell({"kind": "RECEIVE", "key": "d", "quantity": "3", "shipment_id": "S", "zone_id": "IN"}, warehouse_id="D", whole=True)
    with pytest.raises(FailedPrecondition, match="is on shipment/S"):
        world.move("SHIP", "s2", "5", shipment_id="S2", **onto)
    world.move("ADJUST", "lost", "-2", status="IN_TRANSIT", shipment_id="S", handling_unit_id="PAL", reason="lost")
    assert world.all(HandlingUnitLot) == []
    world.move("SHIP", "s2", "5", shipment_id="S2", **onto)
    assert [(unit.handling_unit_id, unit.carrier) for unit in world.all(HandlingUnit)] == [("PAL", "shipment/S2")]


def test_shipping_what_the_papers_announce_does_not_make_it_more(world: World) -> None:
    world.commit(
        inserts=[
            Lot(lot_id="IT/L1", item_id="IT", lot_number="L1"), HandlingUnit(handling_unit_id="U", carrier="shipment/S"),
            HandlingUnitLot(handling_unit_id="U", lot_id="IT/L1", quantity=Decimal(1), unit="BX"),
        ]
    )  # fmt: skip
    world.move("RECEIVE", "r", "20")
    for key, quantity, carried in (("s1", "5", 12), ("s2", "7", 12), ("s3", "2", 14)):
        world.move("SHIP", key, quantity, status="FREE", shipment_id="S", to_handling_unit_id="U")
        assert [unit.quantity for unit in world.all(HandlingUnitLot)] == [carried]
    [told] = world.tell({"kind": "RECEIVE", "key": "d", "quantity": "14", "shipment_id": "S", "zone_id": "IN"}, warehouse_id="D")
    assert (told["movement"]["short"], told["movement"]["over"]) == ("0", "0")
    assert world.stock() == {("W", "A", "", "FREE"): 6, ("D", "IN", "", "FREE"): 14}


def test_a_delivery_from_outside_is_received_by_its_papers(world: World) -> None:
    world.commit(
        inserts=[
            Lot(lot_id="IT/L1", item_id="IT", lot_number="L1"), HandlingUnit(handling_unit_id="U", carrier="shipment/S"),
            HandlingUnitLot(handling_unit_id="U", lot_id="IT/L1", quantity=Decimal(2), unit="BX"),
        ]
    )  # fmt: skip
    assert world.move("RECEIVE", "r", "20", shipment_id="S")["short"] == "4"
    [left] = world.all(HandlingUnitLot)
    assert (left.quantity, left.unit) == (4, "EA")


# ---------------------------------------------------------------- holds


def test_an_excursion_holds_the_lots_it_touches_in_its_own_transaction(world: World) -> None:
    world.move("RECEIVE", "r", "5", at_us=NOW_US - 2 * HOUR_US)
    world.move("RECEIVE", "b", "5", lot_number="L2", zone_id="B", at_us=NOW_US - 2 * HOUR_US)
    world.excursion()
    [hold] = world.all(Hold)
    assert (hold.lot_id, hold.state, hold.source, [one["excursion_id"] for one in hold.excursions]) == ("IT/L1", "ACTIVE", "EXCURSION", [1])
    for kind in ("RESERVE", "PICK", "SHIP"):
        with pytest.raises(FailedPrecondition, match="is on hold"):
            world.move(kind, kind, "1", status="FREE")
    world.move("PICK", "other", "1", lot_number="L2", zone_id="B")
    kinds = [event.kind for event in sorted(world.all(Event), key=lambda event: event.number)]
    at = kinds.index("excursion.confirmed")
    assert "hold.placed" in kinds[at : at + 3]


def test_a_profile_without_the_flag_holds_nothing(world: World) -> None:
    world.move("RECEIVE", "r", "5", at_us=NOW_US - 2 * HOUR_US)
    world.excursion(profile_id="Q")
    assert world.all(Hold) == []


def test_a_lot_that_left_before_or_came_after_is_not_touched(world: World) -> None:
    world.move("RECEIVE", "r", "5", at_us=NOW_US - 4 * HOUR_US)
    world.move("PUT_AWAY", "p", "5", to_zone_id="B", at_us=NOW_US - 3 * HOUR_US)
    world.move("RECEIVE", "late", "5", lot_number="L2", at_us=NOW_US - HOUR_US // 4)
    world.excursion(state="ENDED", ended_us=NOW_US - HOUR_US // 2)
    assert world.all(Hold) == []


def test_a_lot_that_arrives_during_an_excursion_is_touched_too(world: World) -> None:
    world.excursion()
    world.move("RECEIVE", "r", "5")
    assert [hold.lot_id for hold in world.all(Hold)] == ["IT/L1"]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has one writer: nobody else can hold the row
def test_an_arrival_waits_for_no_other_lot_of_the_excursion(world: World) -> None:
    world.move("RECEIVE", "r", "5", at_us=NOW_US - 2 * HOUR_US)
    world.move("RECEIVE", "q", "1", lot_number="L2", zone_id="B", at_us=NOW_US - 2 * HOUR_US)
    world.excursion()
    engine = writer(world.store.url)
    with engine.connect() as other, other.begin():
        other.execute(select(Lot.lot_id).where(Lot.lot_id == "IT/L1").with_for_update())  # type: ignore[call-overload]
        world.move("RECEIVE", "more", "5", lot_number="L2")
    engine.dispose()
    assert sorted(hold.lot_id for hold in world.all(Hold)) == ["IT/L1", "IT/L2"]


def test_a_piece_does_not_come_into_two_warehouses_at_once(world: World) -> None:
    other = open_store(world.store.url)

    def receive(store: Store, warehouse_id: str, zone_id: str, number: int) -> bool:
        told = {"kind": "RECEIVE", "key": f"r{number}", "quantity": "1", "item_id": "IT", "lot_number": warehouse_id, "zone_id": zone_id}
        work = StockWork(warehouse_id, [read({**told, "serials": [f"s{number}"]}, warehouse_id)], False)
        [answer] = store.commit(PreparedCommit(shard=0, epoch=world.owner.epoch, now_us=NOW_US, stock=work)).result(20).stock
        return "movement" in answer

    with ThreadPoolExecutor(2) as pool:
        for number in range(40):
            here, there = pool.submit(receive, world.store, "W", "A", number), pool.submit(receive, other, "D", "IN", number)
            assert here.result() != there.result()
    other.close()


def test_a_late_excursion_of_a_shipment_reaches_lots_that_were_received_from_it(world: World) -> None:
    world.move("RECEIVE", "r", "5", at_us=NOW_US - 9 * HOUR_US)
    world.move("SHIP", "s", "5", status="FREE", shipment_id="S", to_handling_unit_id="PAL", at_us=NOW_US - 8 * HOUR_US)
    world.tell({"kind": "RECEIVE", "key": "d", "quantity": "5", "shipment_id": "S", "zone_id": "IN"}, warehouse_id="D")
    world.excursion(carrier="shipment/S", cause="late", state="ENDED", ended_us=NOW_US - HOUR_US // 2)
    assert [hold.lot_id for hold in world.all(Hold)] == ["IT/L1"]
    with pytest.raises(FailedPrecondition, match="is on hold"):
        world.tell({"kind": "PICK", "key": "k", "quantity": "1", "zone_id": "IN"}, warehouse_id="D", whole=True)


def test_a_late_excursion_reaches_what_was_received_by_papers_alone(world: World) -> None:
    world.commit(
        inserts=[
            Lot(lot_id="IT/L1", item_id="IT", lot_number="L1"), Lot(lot_id="IT/L2", item_id="IT", lot_number="L2"),
            HandlingUnit(handling_unit_id="U", carrier="shipment/S"), HandlingUnit(handling_unit_id="V", carrier="shipment/S"),
            HandlingUnitLot(handling_unit_id="U", lot_id="IT/L1", quantity=Decimal(5), unit="EA"),
            HandlingUnitLot(handling_unit_id="V", lot_id="IT/L2", quantity=Decimal(5), unit="EA"),
        ]
    )  # fmt: skip
    for lot, unit in (("L1", "U"), ("L2", "V")):
        world.move("RECEIVE", lot, "5", lot_number=lot, shipment_id="S", handling_unit_id=unit, at_us=NOW_US - HOUR_US // 4)
    facts = {"carrier": "shipment/S", "cause": "late", "state": "ENDED", "ended_us": NOW_US - HOUR_US // 2}
    world.excursion(1, handling_unit_id="U", **facts)
    assert [hold.lot_id for hold in world.all(Hold)] == ["IT/L1"]
    world.excursion(2, **facts)
    assert sorted(hold.lot_id for hold in world.all(Hold)) == ["IT/L1", "IT/L2"]


def decide(world: World, action: str, etag: int, *, ordinal: int = 1, **more: Any) -> None:
    [hold] = [one for one in world.all(Hold) if one.ordinal == ordinal]
    world.commit(hold_acts=[HoldAct(action, "ann", world.now_us, "tested", hold_id=hold.hold_id, etag=etag, **more)])


def test_a_decision_ends_the_hold_and_a_late_revision_reopens_it(world: World) -> None:
    world.move("RECEIVE", "r", "5", at_us=NOW_US - 2 * HOUR_US)
    world.excursion(state="ENDED", ended_us=NOW_US - HOUR_US // 2)
    with pytest.raises(StaleEtag):
        decide(world, "release", 7)
    decide(world, "release", 1)
    world.move("PICK", "k", "1")
    world.excursion(state="ENDED", ended_us=NOW_US - HOUR_US // 4, cause="late", violation_us=9)
    [hold] = world.all(Hold)
    assert (hold.state, hold.reopened, hold.excursions[0]["revision"]) == ("ACTIVE", 1, 2)
    with pytest.raises(FailedPrecondition, match="is on hold"):
        world.move("PICK", "k2", "1")
    decide(world, "reject", hold.etag)
    with pytest.raises(FailedPrecondition, match="REJECTED"):
        world.move("PICK", "k3", "1")
    with pytest.raises(FailedPrecondition, match="is REJECTED already"):
        decide(world, "release", hold.etag + 1)
    assert [one.change for one in sorted(world.all(HoldHistory), key=lambda one: one.etag)] == [
        "placed",
        "released",
        "reopened",
        "rejected",
    ]


def test_what_comes_onto_the_carrier_later_does_not_reopen_a_decision(world: World) -> None:
    world.move("RECEIVE", "r", "5", at_us=NOW_US - 2 * HOUR_US)
    world.excursion()
    decide(world, "release", 1)
    world.move("RECEIVE", "more", "5", lot_number="L2")
    assert {hold.lot_id: (hold.state, hold.etag) for hold in world.all(Hold)} == {"IT/L1": ("RELEASED", 2), "IT/L2": ("ACTIVE", 1)}


def test_a_partial_release_frees_its_places_alone(world: World) -> None:
    world.move("RECEIVE", "r", "5", at_us=NOW_US - 2 * HOUR_US)
    world.move("RECEIVE", "b", "5", zone_id="B", at_us=NOW_US - 2 * HOUR_US)
    world.excursion()
    decide(world, "partially_release", 1, places=[{"handling_unit_id": "", "warehouse_id": "W", "zone_id": "B"}])
    world.move("PICK", "k", "1", zone_id="B")
    with pytest.raises(FailedPrecondition, match="PARTIALLY_RELEASED"):
        world.move("PICK", "k2", "1")


def test_what_comes_into_a_released_place_from_elsewhere_is_held_there(world: World) -> None:
    world.move("RECEIVE", "r", "5", at_us=NOW_US - 2 * HOUR_US)
    world.move("RECEIVE", "b", "5", zone_id="B", at_us=NOW_US - 2 * HOUR_US)
    world.excursion()
    decide(world, "partially_release", 1, places=[{"handling_unit_id": "", "warehouse_id": "W", "zone_id": "B"}])
    world.move("PUT_AWAY", "p", "2", to_zone_id="B")
    world.move("RECEIVE", "more", "1", zone_id="B")
    assert world.stock() == {("W", "A", "", "FREE"): 3, ("W", "B", "", "FREE"): 5, ("W", "B", "", "HELD"): 3}
    with pytest.raises(FailedPrecondition, match="takes 6 where there are 5"):
        world.move("PICK", "k", "6", zone_id="B")
    world.move("RELEASE", "f", "3", zone_id="B")  # once a person says so
    world.move("PICK", "k", "6", zone_id="B")


def test_an_excursion_that_no_decision_knew_of_places_the_next_hold(world: World) -> None:
    world.move("RECEIVE", "r", "5", at_us=NOW_US - 2 * HOUR_US)
    world.excursion(1)
    decide(world, "release", 1)
    world.excursion(2)
    assert sorted((hold.ordinal, hold.state) for hold in world.all(Hold)) == [(1, "RELEASED"), (2, "ACTIVE")]


def test_a_late_revision_reopens_the_decision_that_was_about_it_though_others_followed(world: World) -> None:
    world.move("RECEIVE", "r", "5", at_us=NOW_US - 2 * HOUR_US)
    for number in (1, 2):
        world.excursion(number, state="ENDED", ended_us=NOW_US - HOUR_US // 2)
        decide(world, "release", 1, ordinal=number)
    world.excursion(1, state="ENDED", ended_us=NOW_US - HOUR_US // 4, cause="late", violation_us=9)
    assert sorted((hold.ordinal, hold.state, hold.reopened) for hold in world.all(Hold)) == [(1, "ACTIVE", 1), (2, "RELEASED", 0)]
    world.excursion(3)  # joins the hold that is open, though a newer one was decided
    assert sorted((hold.ordinal, hold.state) for hold in world.all(Hold)) == [(1, "ACTIVE"), (2, "RELEASED")]


# ---------------------------------------------------------------- outbox


def test_what_is_committed_is_in_the_outbox_in_order_but_not_sent_back(world: World) -> None:
    world.store.write(outbox.register, "erp", NOW_US).result(20)
    world.move("RECEIVE", "r", "5", at_us=NOW_US - 2 * HOUR_US)
    world.move("RECEIVE", "own", "1", system="erp")
    world.excursion()
    decide(world, "release", 1)
    told = sorted(world.all(Outbox), key=lambda one: one.sequence)
    assert [(one.sequence, one.kind, one.state) for one in told] == [
        (1, "movement", "PENDING"), (2, "hold.placed", "PENDING"), (3, "hold.released", "PENDING"),
    ]  # fmt: skip
    assert told[1].body["stock"][0]["quantity"] == "6"


def test_a_disabled_destination_is_told_nothing_and_stops_no_movement(world: World) -> None:
    world.commit(upserts=[OutboxDestination(destination="gone", most=1, undelivered=1)])
    with pytest.raises(Overloaded):
        world.move("RECEIVE", "r", "5")
    assert world.store.write(outbox.enable, "gone", False).result(20)
    world.move("RECEIVE", "r", "5")
    assert world.all(Outbox) == []
    assert not world.store.write(outbox.enable, "nobody", False).result(20)


def test_an_outbox_that_nobody_empties_raises_an_alert_and_bounds_itself(world: World) -> None:
    world.store.write(outbox.register, "erp", NOW_US).result(20)
    world.commit(upserts=[OutboxDestination(destination="erp", alert_above=1, most=3, undelivered=2)])
    for number in range(3):
        world.move("RECEIVE", f"r{number}", "5")
    assert any(event.kind == "alert.raised" and event.body["key"] == "outbox|erp" for event in world.all(Event))
    with pytest.raises(Overloaded, match="erp has not taken 3 messages"):
        world.move("RECEIVE", "more", "1")
