"""InventoryService through a running Waybill: movements, stock, holds that excursions place, budgets, books, mappings, the change feed."""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tests.services.clients import DEADLINE_S, HOUR_S, Clients, Refusal, at, refused
from waybill.v1 import common_pb2, inventory_pb2, inventory_pb2_grpc, item_pb2, profile_pb2, shipment_pb2, warehouse_pb2

if TYPE_CHECKING:
    from cluster.boot import Running

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
PRECONDITION, RANGE = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.OUT_OF_RANGE
KIND, STATUS = inventory_pb2.MovementKind, inventory_pb2.StockStatus


class Stock(Clients):
    """A client with a warehouse, an item with a budget and a profile that holds; each test takes lots of its own."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.stub = inventory_pb2_grpc.InventoryServiceStub(self.channel)
        tail = uuid.uuid4().hex[:6]
        self.W, self.IT, self.P = f"wh-{tail}", f"it-{tail}", f"hold-{tail}"
        limit = profile_pb2.Limit(
            limit_id="above-8", metric=common_pb2.METRIC_TEMPERATURE_C, direction=profile_pb2.DIRECTION_ABOVE, threshold=8,
            mode=profile_pb2.LIMIT_MODE_SINGLE, allowance_s=0, severity=common_pb2.SEVERITY_CRITICAL,
        )  # fmt: skip
        profile = profile_pb2.Profile(profile_id=self.P, name="holds", limits=[limit], hold_on_excursion=True)
        self.profiles.CreateProfile(profile_pb2.CreateProfileRequest(profile=profile), timeout=DEADLINE_S)
        zones = [warehouse_pb2.Zone(zone_id="A"), warehouse_pb2.Zone(zone_id="B", profile_id=self.P)]
        body = warehouse_pb2.Warehouse(warehouse_id=self.W, zones=zones)
        self.warehouses.CreateWarehouse(warehouse_pb2.CreateWarehouseRequest(warehouse=body), timeout=DEADLINE_S)
        band = item_pb2.StabilityBand(low=8, high=25, allowance_s=72 * HOUR_S)
        item = item_pb2.Item(item_id=self.IT, stability_budget=[band], units=[item_pb2.ItemUnit(unit="BX", factor="12")])
        self.items.CreateItem(item_pb2.CreateItemRequest(item=item), timeout=DEADLINE_S)

    def told(self, kind: str, quantity: str, **more: Any) -> inventory_pb2.Movement:
        facts = {"warehouse_id": self.W, "key": uuid.uuid4().hex, "item_id": self.IT, "lot_number": "L", "zone_id": "A"} | more
        return inventory_pb2.Movement(kind=KIND.Value(f"MOVEMENT_KIND_{kind}"), quantity=quantity, **facts)

    def move(self, kind: str, quantity: str, **more: Any) -> inventory_pb2.Movement:
        request = inventory_pb2.RecordMovementRequest(movement=self.told(kind, quantity, **more))
        return self.stub.RecordMovement(request, timeout=DEADLINE_S).movement

    def tried(self, kind: str, quantity: str, **more: Any) -> bool:
        """Whether the stock allowed it."""
        request = inventory_pb2.RecordMovementsRequest(warehouse_id=self.W, movements=[self.told(kind, quantity, **more)])
        [result] = self.stub.RecordMovements(request, timeout=DEADLINE_S).results
        assert result.error.reason in ("", "FAILED_PRECONDITION"), result.error
        return bool(result.HasField("movement"))

    def refusal(self, kind: str, quantity: str, **more: Any) -> Refusal:
        return refused(self.stub.RecordMovement, inventory_pb2.RecordMovementRequest(movement=self.told(kind, quantity, **more)))

    def sums(self, lot: str, **more: Any) -> tuple[str, ...]:
        request = inventory_pb2.QueryStockRequest(warehouse_id=self.W, item_id=self.IT, lot_number=lot, **more)
        found = self.stub.QueryStock(request, timeout=DEADLINE_S).sums
        return tuple(getattr(found[0], name) for name in ("on_hand", "held", "reserved", "available", "in_transit")) if found else ()

    def sync(self, lines: list[inventory_pb2.BookLine], **more: Any) -> tuple[list[Any], list[Any], Any]:
        now = Timestamp()
        now.GetCurrentTime()
        facts = {
            "warehouse_id": self.W, "system": "erp", "sync_id": uuid.uuid4().hex, "scope": inventory_pb2.SYNC_SCOPE_FULL, "as_of_time": now,
        }  # fmt: skip
        header = inventory_pb2.SyncRequest(header=inventory_pb2.SyncHeader(**{**facts, **more}))
        answers = list(self.stub.Sync(iter([header, inventory_pb2.SyncRequest(lines=lines)]), timeout=DEADLINE_S))
        kinds = [one.WhichOneof("content") for one in answers]
        assert kinds[-1] == "summary"
        return ([one.difference for one in answers if one.HasField("difference")],
                [one.refusal for one in answers if one.HasField("refusal")], answers[-1].summary)  # fmt: skip


@pytest.fixture(scope="module")
def door(waybill: Running) -> Iterator[Stock]:
    client = Stock(waybill.target)
    yield client
    client.close()


def test_stock_is_told_now_and_as_of_a_past_time(door: Stock) -> None:
    door.move("RECEIVE", "2", unit="BX", lot_number="now", time=at(0))
    door.move("RESERVE", "4", lot_number="now", time=at(HOUR_S))
    door.move("SHIP", "5", lot_number="now", status=STATUS.Value("STOCK_STATUS_FREE"), time=at(2 * HOUR_S))
    assert door.sums("now") == ("19", "0", "4", "15", "0")
    assert door.sums("now", as_of_time=at(HOUR_S)) == ("24", "0", "4", "20", "0")
    assert door.sums("now", as_of_time=at(-1)) == ()
    listed = door.stub.ListStock(inventory_pb2.ListStockRequest(warehouse_id=door.W, item_id=door.IT, lot_number="now")).lines
    assert [(line.zone_id, STATUS.Name(line.status)[13:], line.quantity, line.unit) for line in listed] == [
        ("A", "FREE", "15", "EA"), ("A", "RESERVED", "4", "EA"),
    ]  # fmt: skip
    verified = door.stub.VerifyStock(inventory_pb2.VerifyStockRequest(warehouse_id=door.W))
    assert (list(verified.mismatches), verified.lines > 0) == ([], True)


def test_a_movement_sent_again_gives_its_first_answer(door: Stock) -> None:
    request = inventory_pb2.RecordMovementRequest(movement=door.told("RECEIVE", "3", lot_number="again"))
    first, again = (door.stub.RecordMovement(request, timeout=DEADLINE_S) for _ in range(2))
    assert (first.repeated_before, again.repeated_before) == (False, True)
    assert first.movement.event_number > 0
    first.movement.event_number = 0
    assert again.movement == first.movement
    request.movement.quantity = "4"
    assert refused(door.stub.RecordMovement, request) == Refusal(PRECONDITION, "FAILED_PRECONDITION", "movement.key")
    found = door.stub.GetMovement(inventory_pb2.GetMovementRequest(warehouse_id=door.W, key=request.movement.key)).movement
    assert found == first.movement
    listed = door.stub.ListMovements(inventory_pb2.ListMovementsRequest(warehouse_id=door.W, item_id=door.IT, lot_number="again"))
    assert list(listed.movements) == [first.movement]


def test_lines_of_a_batch_are_answered_one_by_one(door: Stock) -> None:
    lines = [door.told("RECEIVE", "1", lot_number="batch"), door.told("PICK", "5", lot_number="batch"), door.told("RECEIVE", "1.5e3")]
    answer = door.stub.RecordMovements(inventory_pb2.RecordMovementsRequest(warehouse_id=door.W, movements=lines), timeout=DEADLINE_S)
    assert [one.WhichOneof("outcome") for one in answer.results] == ["movement", "error", "error"]
    assert [(one.error.reason, one.error.field) for one in answer.results[1:]] == [
        ("FAILED_PRECONDITION", "quantity"), ("INVALID_ARGUMENT", "quantity"),
    ]  # fmt: skip
    whole = inventory_pb2.RecordMovementsRequest(warehouse_id=door.W, movements=lines[1:], all_or_nothing=True)
    assert refused(door.stub.RecordMovements, whole) == Refusal(PRECONDITION, "FAILED_PRECONDITION", "movements[0].quantity")


@pytest.mark.parametrize(("more", "refusal"), [
    ({"item_id": "nobody"}, Refusal(NOT_FOUND, "NOT_FOUND", "movement.item_id")),
    ({"warehouse_id": "nowhere"}, Refusal(NOT_FOUND, "NOT_FOUND", "warehouse_id")),
    ({"zone_id": "nowhere"}, Refusal(NOT_FOUND, "NOT_FOUND", "movement.zone_id")),
    ({"unit": "KGM"}, Refusal(INVALID, "INVALID_ARGUMENT", "movement.unit")),
    ({"quantity": "-5"}, Refusal(INVALID, "INVALID_ARGUMENT", "movement.quantity")),
    ({"quantity": "9999999999999"}, Refusal(INVALID, "INVALID_ARGUMENT", "movement.quantity")),
    ({"quantity": "0.1e1"}, Refusal(INVALID, "INVALID_ARGUMENT", "movement.quantity")),
    ({"time": at(10_000 * 24 * HOUR_S)}, Refusal(INVALID, "INVALID_ARGUMENT", "movement.time")),
    ({"damaged_quantity": "1"}, Refusal(INVALID, "INVALID_ARGUMENT", "movement.damaged_quantity")),
    ({"key": ""}, Refusal(INVALID, "INVALID_ARGUMENT", "movement.key")),
])  # fmt: skip
def test_bad_movements_are_refused_by_field(door: Stock, more: dict[str, Any], refusal: Refusal) -> None:
    facts = {"quantity": "1", **more}
    assert door.refusal("RECEIVE", facts.pop("quantity"), **facts) == refusal


def test_an_excursion_of_a_shipment_holds_its_lots_and_a_person_decides(door: Stock) -> None:
    door.move("RECEIVE", "10", lot_number="ship", time=at(0))
    made = door.shipments.CreateShipment(
        shipment_pb2.CreateShipmentRequest(shipment=shipment_pb2.Shipment(profile_id=door.P)), timeout=DEADLINE_S
    ).shipment
    free = STATUS.Value("STOCK_STATUS_FREE")
    door.move("SHIP", "6", lot_number="ship", status=free, shipment_id=made.shipment_id, to_handling_unit_id=f"u-{door.W}", time=at(HOUR_S))
    assert door.sums("ship") == ("4", "0", "0", "4", "6")
    tag = f"tag-{door.W}"
    ride = shipment_pb2.AssignTagRequest(shipment_id=made.shipment_id, tag_id=tag, from_time=at(HOUR_S), actor="ann")
    door.shipments.AssignTag(ride, timeout=DEADLINE_S)
    door.send(tag, [(HOUR_S + 60 * k, 12.0 if k in (3, 4) else 5.0) for k in range(8)])
    lot = door.stub.GetLot(inventory_pb2.GetLotRequest(item_id=door.IT, lot_number="ship"), timeout=DEADLINE_S).lot
    [hold] = lot.holds
    assert (lot.on_hold, hold.state, hold.excursions[0].carrier) == (True, 1, f"shipment/{made.shipment_id}")
    assert door.refusal("PICK", "1", lot_number="ship") == Refusal(PRECONDITION, "FAILED_PRECONDITION", "movement.lot_number")
    assert door.sums("ship") == ("4", "4", "0", "0", "6")
    on_board = next(one for one in lot.exposures if one.carrier.startswith("shipment/"))
    assert (on_board.worst, on_board.bands[0].used_s, on_board.bands[0].remaining_s) == (True, 120, 72 * HOUR_S - 120)
    stale = inventory_pb2.DecideHoldRequest(
        hold_id=hold.hold_id, etag="999", decision=inventory_pb2.HOLD_DECISION_RELEASE, actor="qa", reason="two minutes"
    )
    assert refused(door.stub.DecideHold, stale).reason == "STALE_ETAG"
    stale.etag = hold.etag
    decided = [door.stub.DecideHold(stale, timeout=DEADLINE_S).hold for _ in range(2)]  # sent again: the same answer
    assert [one.state for one in decided] == [inventory_pb2.HOLD_STATE_RELEASED] * 2
    known = next(one for one in decided[0].history[-1].exposures if one.carrier.startswith("shipment/"))
    assert known.bands[0].used_s == 120
    door.move("PICK", "1", lot_number="ship")
    door.send(tag, [(HOUR_S + 60 * 4 + 30, 14.0)])  # late: the excursion was worse than known
    again = door.stub.GetHold(inventory_pb2.GetHoldRequest(hold_id=hold.hold_id), timeout=DEADLINE_S).hold
    assert (again.state, again.reopened, again.history[-1].change) == (inventory_pb2.HOLD_STATE_ACTIVE, 1, "reopened")
    assert [one.hold_id for one in door.stub.ListHolds(inventory_pb2.ListHoldsRequest(shipment_id=made.shipment_id)).holds] == [
        hold.hold_id
    ]


def test_a_budget_is_used_in_zones_too_and_follows_the_goods(door: Stock) -> None:
    tag = f"zone-{door.W}"
    ride = warehouse_pb2.AssignZoneTagRequest(warehouse_id=door.W, zone_id="A", tag_id=tag, from_time=at(0), actor="ann")
    door.warehouses.AssignZoneTag(ride, timeout=DEADLINE_S)
    door.move("RECEIVE", "4", lot_number="band", time=at(600))
    door.send(tag, [(60 * k, 10.0) for k in range(21)])
    door.move("PUT_AWAY", "2", lot_number="band", to_zone_id="B", time=at(900))
    lot = door.stub.GetLot(inventory_pb2.GetLotRequest(item_id=door.IT, lot_number="band"), timeout=DEADLINE_S).lot
    used = {one.carrier.rpartition("/")[2]: one.bands[0].used_s for one in lot.exposures}
    assert used["B"] == 300
    assert used["A"] == 1200 - 600 + HOUR_S  # the last reading holds an hour
    door.send(tag, [(700, 4.0)])  # late: in the fridge for the next 20 seconds
    lot = door.stub.GetLot(inventory_pb2.GetLotRequest(item_id=door.IT, lot_number="band"), timeout=DEADLINE_S).lot
    assert {one.carrier.rpartition("/")[2]: one.bands[0].used_s for one in lot.exposures}["B"] == 280


def test_a_person_puts_a_lot_on_hold(door: Stock) -> None:
    door.move("RECEIVE", "1", lot_number="person")
    request = inventory_pb2.PlaceHoldRequest(
        item_id=door.IT, lot_number="person", actor="qa", reason="label wrong", request_id=uuid.uuid4().hex
    )
    first, again = (door.stub.PlaceHold(request, timeout=DEADLINE_S).hold for _ in range(2))
    assert first == again
    assert door.refusal("RESERVE", "1", lot_number="person").code == PRECONDITION
    listed = door.stub.ListLots(inventory_pb2.ListLotsRequest(item_id=door.IT, on_hold_only=True), timeout=DEADLINE_S).lots
    assert "person" in [lot.lot_number for lot in listed]
    nobody = inventory_pb2.PlaceHoldRequest(item_id=door.IT, lot_number="none", actor="qa", reason="?")
    assert refused(door.stub.PlaceHold, nobody).code == NOT_FOUND


def test_the_last_pieces_go_to_as_many_pickers_as_there_are_pieces(door: Stock) -> None:
    door.move("RECEIVE", "5", lot_number="race")

    def pick(_: int) -> bool:
        return door.tried("PICK", "1", lot_number="race")

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(pick, range(16))) == 5
    assert door.sums("race") == ("5", "0", "5", "0", "0")


def test_no_pick_is_recorded_after_the_excursion_that_holds_its_lot(door: Stock) -> None:
    tag = f"cold-{door.W}"
    ride = warehouse_pb2.AssignZoneTagRequest(warehouse_id=door.W, zone_id="B", tag_id=tag, from_time=at(0), actor="ann")
    door.warehouses.AssignZoneTag(ride, timeout=DEADLINE_S)
    start = door.move("RECEIVE", "1000", lot_number="order", zone_id="B", time=at(0)).event_number
    stop = threading.Event()

    def pick(_: int) -> int:
        taken = 0
        while not stop.is_set():
            if not door.tried("PICK", "1", lot_number="order", zone_id="B"):
                break
            taken += 1
        return taken

    with ThreadPoolExecutor(4) as pool:
        taken = [pool.submit(pick, number) for number in range(4)]
        time.sleep(0.3)
        door.send(tag, [(60, 12.0)])
        time.sleep(0.5)
        stop.set()
    kinds = []
    call: Any = door.stub.WatchInventory(
        inventory_pb2.WatchInventoryRequest(after_event_number=start, warehouse_id=door.W), timeout=DEADLINE_S
    )
    for message in call:
        if not message.WhichOneof("event"):
            break
        kinds.append(message.WhichOneof("event"))
    call.cancel()
    assert sum(one.result() for one in taken) > 0
    assert "movement" not in kinds[kinds.index("hold") :]


def test_an_item_with_stock_keeps_its_base_unit(door: Stock) -> None:
    door.move("RECEIVE", "1", lot_number="unit")
    item = door.items.GetItem(item_pb2.GetItemRequest(item_id=door.IT), timeout=DEADLINE_S).item
    item.unit = "KGM"
    assert refused(door.items.UpdateItem, item_pb2.UpdateItemRequest(item=item)) == Refusal(
        PRECONDITION, "FAILED_PRECONDITION", "item.unit"
    )


# ---------------------------------------------------------------- books


def test_a_book_is_synchronised_with_differences_and_a_choice_of_who_wins(waybill: Running) -> None:
    door = Stock(waybill.target)
    door.move("RECEIVE", "10", lot_number="a", time=at(0))
    door.move("RECEIVE", "5", lot_number="b", time=at(0))
    lines = [
        inventory_pb2.BookLine(item_id=door.IT, zone_id="A", lot_number="a", quantity="1", unit="BX"),
        inventory_pb2.BookLine(item_id=door.IT, zone_id="A", lot_number="c", quantity="3"),
        inventory_pb2.BookLine(item_id="nobody", zone_id="A", quantity="3"),
        inventory_pb2.BookLine(item_id=door.IT, zone_id="A", quantity="3.0000001"),
        inventory_pb2.BookLine(item_id=door.IT, zone_id="A", quantity="1", unit="KGM"),
        inventory_pb2.BookLine(item_id=door.IT, zone_id="A", quantity="999999999999", unit="BX"),
        inventory_pb2.BookLine(item_id=door.IT, zone_id="nowhere", quantity="1"),
        inventory_pb2.BookLine(external_item_id="4711", zone_id="A", quantity="1"),
    ]
    differences, refusals, summary = door.sync(lines)
    assert [(one.lot_number, one.left_quantity, one.right_quantity, one.difference) for one in differences] == [
        ("a", "10", "12", "2"), ("b", "5", "0", "-5"), ("c", "0", "3", "3"),
    ]  # fmt: skip
    assert {one.action for one in differences} == {inventory_pb2.DIFFERENCE_ACTION_BOOK_THERE}
    assert [(one.line, one.error.reason, one.error.field) for one in refusals] == [
        (2, "NOT_FOUND", "item_id"), (3, "INVALID_ARGUMENT", "quantity"), (4, "INVALID_ARGUMENT", "unit"),
        (5, "INVALID_ARGUMENT", "quantity"), (6, "NOT_FOUND", "zone_id"), (7, "NOT_FOUND", "external_item_id"),
    ]  # fmt: skip
    assert (summary.quantity_differs, summary.only_here, summary.only_there, summary.refused) == (1, 1, 1, 6)
    door.close()


def test_what_the_other_system_wins_is_recorded_and_changes_follow_its_cursor(waybill: Running) -> None:
    door = Stock(waybill.target)
    door.move("RECEIVE", "10", lot_number="a")
    book = [inventory_pb2.BookLine(item_id=door.IT, zone_id="A", lot_number="a", quantity="8")]
    wins = {"quantity_winner": inventory_pb2.SYNC_WINNER_OTHER}
    differences, _, summary = door.sync(book, **wins)
    assert (differences[0].action, summary.recorded_here) == (inventory_pb2.DIFFERENCE_ACTION_RECORDED_HERE, 1)
    assert door.sums("a")[0] == "8"
    door.move("PICK", "1", lot_number="a")
    changes = {"scope": inventory_pb2.SYNC_SCOPE_CHANGES, "cursor": summary.cursor}
    differences, _, after = door.sync([inventory_pb2.BookLine(item_id=door.IT, zone_id="A", lot_number="b", quantity="2")], **changes)
    found = {(one.lot_number, one.status): (one.left_quantity, one.right_quantity) for one in differences}
    assert found == {("a", 1): ("7", "8"), ("a", 3): ("1", "0"), ("b", 1): ("0", "2")}
    explained = next(one for one in differences if one.lot_number == "a" and one.status == 1)
    assert [(KIND.Name(one.kind)[14:], explained.explained) for one in explained.explained_by] == [("PICK", "-1")]
    for cursor in (summary.cursor, "nonsense"):
        with pytest.raises(grpc.RpcError) as failed:
            door.sync([], scope=inventory_pb2.SYNC_SCOPE_CHANGES, cursor=cursor)
        assert failed.value.code() == RANGE
    assert after.cursor != summary.cursor
    with pytest.raises(grpc.RpcError, match="is the cursor of erp and") as failed:
        door.sync([], scope=inventory_pb2.SYNC_SCOPE_CHANGES, cursor=after.cursor, system="another")
    assert failed.value.code() == RANGE
    report = list(door.stub.Reconcile(
        inventory_pb2.ReconcileRequest(warehouse_id=door.W, right=inventory_pb2.Book(system="erp")), timeout=DEADLINE_S
    ))  # fmt: skip
    assert [one.difference.lot_number for one in report[:-1]] == ["a", "a", "b"]
    assert len(report[-1].summary.digest_sha256) == 64
    door.move("RECEIVE", "4", lot_number="e", expiry_time=at(HOUR_S))
    dated = [inventory_pb2.BookLine(item_id=door.IT, zone_id="A", lot_number="e", quantity="3", expiry_time=at(2 * HOUR_S))]
    differences, _, _ = door.sync(dated, **wins)  # whose expiry differs, too: that is another difference, ours wins it
    found = {one.kind: one.action for one in differences if one.lot_number == "e"}
    assert found == {
        inventory_pb2.DIFFERENCE_KIND_QUANTITY: inventory_pb2.DIFFERENCE_ACTION_RECORDED_HERE,
        inventory_pb2.DIFFERENCE_KIND_EXPIRY: inventory_pb2.DIFFERENCE_ACTION_BOOK_THERE,
    }
    door.close()


def test_a_lot_told_for_any_status_and_then_by_status_counts_once(waybill: Running) -> None:
    door = Stock(waybill.target)
    door.move("RECEIVE", "10", lot_number="a")
    door.move("HOLD", "2", lot_number="a")

    def told(quantity: str, **more: Any) -> inventory_pb2.BookLine:
        return inventory_pb2.BookLine(item_id=door.IT, zone_id="A", lot_number="a", quantity=quantity, **more)

    def differs(lines: list[inventory_pb2.BookLine], cursor: str) -> tuple[list[tuple[Any, ...]], str]:
        more = {"scope": inventory_pb2.SYNC_SCOPE_CHANGES, "cursor": cursor} if cursor else {}
        found, _, summary = door.sync(lines, **more)
        return [(one.any_status, one.status, one.left_quantity, one.right_quantity) for one in found], summary.cursor

    found, cursor = differs([told("10", any_status=True)], "")
    assert found == []
    free, held = STATUS.Value("STOCK_STATUS_FREE"), STATUS.Value("STOCK_STATUS_HELD")
    found, cursor = differs([told("7", status=free)], cursor)  # told by status: what is not told is not there
    assert found == [(False, free, "8", "7"), (False, held, "2", "0")]
    found, cursor = differs([told("2", status=held)], cursor)
    assert found == [(False, free, "8", "7")]
    found, cursor = differs([told("11", any_status=True)], cursor)
    assert found == [(True, 0, "10", "11")]
    found, cursor = differs([], cursor)  # and so it is kept
    assert found == [(True, 0, "10", "11")]
    _, refusals, _ = door.sync([told("10", any_status=True), told("1", status=held)])
    assert [(one.line, one.error.reason, one.error.field) for one in refusals] == [(1, "INVALID_ARGUMENT", "any_status")]
    door.close()


def test_sums_come_page_by_page_in_the_groups_order(waybill: Running) -> None:
    door = Stock(waybill.target)
    for number in range(7):
        door.move("RECEIVE", "3", lot_number=f"p{number}", zone_id="AB"[number % 2], time=at(0))
        door.move("RESERVE", "1", lot_number=f"p{number}", zone_id="AB"[number % 2], time=at(HOUR_S))
    door.move("SHIP", "2", lot_number="p0", status=STATUS.Value("STOCK_STATUS_FREE"), time=at(2 * HOUR_S))
    door.move("SHIP", "1", lot_number="p0", status=STATUS.Value("STOCK_STATUS_RESERVED"), time=at(2 * HOUR_S))
    dimension = inventory_pb2.StockDimension
    for words in (["WAREHOUSE", "LOT"], ["LOT"], ["WAREHOUSE", "ZONE"], ["WAREHOUSE", "ZONE", "LOT"], ["ITEM"]):
        for more in ({}, {"as_of_time": at(HOUR_S)}):
            group_by = [dimension.Value(f"STOCK_DIMENSION_{word}") for word in words]
            asked = inventory_pb2.QueryStockRequest(warehouse_id=door.W, group_by=group_by, **more)
            [*whole] = door.stub.QueryStock(asked, timeout=DEADLINE_S).sums
            assert len(whole) == {"LOT": 7 if more else 6, "ZONE": 2, "ITEM": 1}[words[-1]]
            paged = []
            while True:
                asked.page_size = 2
                answer = door.stub.QueryStock(asked, timeout=DEADLINE_S)
                assert len(answer.sums) <= 2
                paged += answer.sums
                asked.page_token = answer.next_page_token
                if not asked.page_token:
                    break
            assert paged == whole
            assert sum(int(one.on_hand) for one in whole) == (21 if more else 18)
            assert sum(int(one.reserved) for one in whole) == (7 if more else 6)
    door.close()


def test_a_sync_as_of_the_future_and_a_sync_id_with_another_book_are_refused(door: Stock) -> None:
    wrong: list[tuple[dict[str, Any], grpc.StatusCode, str]] = [
        ({"as_of_time": Timestamp(seconds=int(time.time()) + HOUR_S)}, INVALID, "header.as_of_time"),
        ({"scope": 0}, INVALID, "header.scope"), ({"warehouse_id": "nowhere"}, NOT_FOUND, "warehouse_id"),
        ({"cursor": "x"}, INVALID, "header.cursor"),
    ]  # fmt: skip
    for more, code, field in wrong:
        with pytest.raises(grpc.RpcError) as failed:
            door.sync([], **more)
        assert (failed.value.code(), field in str(failed.value.details())) == (code, True)
    door.sync([], sync_id="one-book", system="other")
    with pytest.raises(grpc.RpcError) as failed:
        door.sync([inventory_pb2.BookLine(item_id=door.IT, zone_id="A", quantity="1")], sync_id="one-book", system="other")
    assert failed.value.code() == PRECONDITION


def test_ids_of_another_system_mean_items_and_zones(door: Stock) -> None:
    item, zone = inventory_pb2.MAPPING_KIND_ITEM, inventory_pb2.MAPPING_KIND_LOCATION
    system = f"sap-{door.W}"
    mappings = [
        inventory_pb2.Mapping(system=system, kind=item, external_id="4711", item_id=door.IT),
        inventory_pb2.Mapping(system=system, kind=zone, external_id="LOC/1", warehouse_id=door.W, zone_id="B"),
    ]
    for _ in range(2):
        put = door.stub.PutMappings(inventory_pb2.PutMappingsRequest(mappings=mappings), timeout=DEADLINE_S).mappings
        assert [one.etag for one in put] == ["1", "1"]
    moved = door.move("RECEIVE", "1", item_id="4711", system=system, lot_number="mapped", zone_id="B")
    assert moved.legs[0].item_id == door.IT
    line = inventory_pb2.BookLine(external_item_id="4711", external_location_id="LOC/1", lot_number="mapped", any_status=True, quantity="1")
    differences, refusals, _ = door.sync([line], system=system, dry_run=True)
    assert not refusals
    assert "mapped" not in [one.lot_number for one in differences]
    clash = inventory_pb2.Mapping(system=system, kind=item, external_id="4712", item_id=door.IT)
    assert refused(door.stub.PutMappings, inventory_pb2.PutMappingsRequest(mappings=[clash])).reason == "ALREADY_EXISTS"
    clash.etag, clash.external_id = "9", "4711"
    assert refused(door.stub.PutMappings, inventory_pb2.PutMappingsRequest(mappings=[clash])).reason == "STALE_ETAG"
    door.stub.DeleteMappings(inventory_pb2.DeleteMappingsRequest(mappings=mappings[:1]), timeout=DEADLINE_S)
    left = door.stub.ListMappings(inventory_pb2.ListMappingsRequest(system=system), timeout=DEADLINE_S).mappings
    assert [one.external_id for one in left] == ["LOC/1"]


# ---------------------------------------------------------------- the feed


def test_the_feed_tells_everything_in_order_and_resumes_anywhere(door: Stock) -> None:
    start = door.move("RECEIVE", "5", lot_number="feed").event_number
    door.move("RESERVE", "1", lot_number="feed")
    request = inventory_pb2.PlaceHoldRequest(item_id=door.IT, lot_number="feed", actor="qa", reason="look")
    door.stub.PlaceHold(request, timeout=DEADLINE_S)
    made = door.shipments.CreateShipment(shipment_pb2.CreateShipmentRequest(shipment=shipment_pb2.Shipment()), timeout=DEADLINE_S).shipment
    left = shipment_pb2.Milestone(kind=shipment_pb2.MILESTONE_KIND_DEPARTED, time=at(0), actor="ann")
    door.shipments.RecordMilestone(shipment_pb2.RecordMilestoneRequest(shipment_id=made.shipment_id, milestone=left), timeout=DEADLINE_S)

    def watched(after: int, want: int) -> list[Any]:
        call: Any = door.stub.WatchInventory(
            inventory_pb2.WatchInventoryRequest(after_event_number=after, warehouse_id=door.W), timeout=DEADLINE_S
        )
        found = []
        for message in call:
            if message.WhichOneof("event"):
                found.append(message)
            if len(found) == want:
                break
        call.cancel()
        return found

    everything = watched(start, 3)
    assert [one.WhichOneof("event") for one in everything] == ["movement", "hold", "milestone"]
    assert everything[1].hold.change == "placed"
    assert everything[2].milestone.shipment_id == made.shipment_id
    assert watched(everything[0].event_number, 2) == everything[1:]
    other = inventory_pb2.WatchInventoryRequest(after_event_number=0, feed="another")
    assert refused(door.stub.WatchInventory, other) == Refusal(RANGE, "OUT_OF_RANGE", "feed")
    future = inventory_pb2.WatchInventoryRequest(after_event_number=1 << 40)
    assert refused(door.stub.WatchInventory, future).code == RANGE


def test_the_api_pages_example_is_true(door: Stock, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    [example] = re.findall(
        r"```python\n(.*?)```", page.split("<!-- inventory: begin -->")[1].split("<!-- inventory: end -->")[0], re.DOTALL
    )
    exec(compile(example, "docs/api.md", "exec"), {"channel": door.channel})
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "delivery-4711-1: ledger entry 1"
    assert "takes 30 where there are 24" in told[1]
    assert told[2:] == ["on hand 24 EA available 24", "hours left at 8 to 25 °C: 72.0"]
