"""An ERP's moves in a real Waybill, told by an ERP that is a list: what is taken back, what was deleted, what does not fit."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, cast

import pytest

from cluster.boot import Running
from services.erp import inbound
from services.erp.connector import CUSTOMER, SUPPLIER, Changes, Connector, ErpItem, ErpMove, ErpPlace
from services.erp.inbound import Inbound, Told, message_key
from services.erp.waybill import Access, Mappings, Waybill
from waybill.v1 import inventory_pb2, shipment_pb2, shipment_pb2_grpc

pytestmark = pytest.mark.parametrize("waybill", ["sqlite"], indirect=True, scope="session")

KIND, STATUS = inventory_pb2.MovementKind, inventory_pb2.StockStatus
AT_US = 1_790_000_000_000_000


class ListedErp:
    """Two warehouses with a room each, one item; `moves` are done there, `documents` are ours that stand there."""

    def __init__(self, name: str) -> None:
        self.system = self.name = name
        self.moves: dict[str, ErpMove] = {}
        self.documents: set[str] = set()
        self.news: list[ErpMove] = []
        self.asked = 0

    def do(self, number: int, quantity: str, from_id: str = SUPPLIER, to_id: str = "r1", lot: str = "L") -> None:
        move = ErpMove(str(number), "i", lot, from_id, to_id, Decimal(quantity), "EA", AT_US + number, done=True)
        self.moves[move.external_id] = move
        self.news.append(move)

    def changes(self, cursor: Mapping[str, Any]) -> Changes:
        told, self.news = self.news, []
        places = [
            ErpPlace(f"{what}{one}", f"{self.name}-{what}{one}", "", f"w{one}" if what == "r" else "") for what in "wr" for one in (1, 2)
        ]
        return Changes([ErpItem("i", f"{self.name}-i", "vaccine", "", "EA")], places, told)

    def standing(self, moves: Sequence[str], keys: Sequence[str]) -> tuple[set[str], set[str]]:
        self.asked = len(moves)
        return set(moves) & self.moves.keys(), set(keys) & self.documents


class Books:
    """A Waybill that follows such an ERP."""

    def __init__(self, target: str) -> None:
        self.api = Waybill(Access(target))
        self.erp = ListedErp(f"erp{uuid.uuid4().hex[:6]}")
        self.w1, self.w2, self.item = (f"{self.erp.name}-{name}" for name in ("w1", "w2", "i"))
        self.begin()

    def begin(self) -> None:
        """Another process."""
        self.inbound = Inbound(self.api, cast(Connector, self.erp), Mappings(self.api, self.erp.system))

    def sync(self, *sent: tuple[str, str]) -> Told:
        self.inbound._checked_at -= inbound.CHECK_EVERY_S
        return self.inbound.sync({}, lambda _: None, sent=sent)

    def move(self, kind: str, quantity: str, *, warehouse: str = "", room: str = "r1", **more: Any) -> tuple[str, str]:
        facts = {"key": uuid.uuid4().hex, "item_id": self.item, "lot_number": "L", "zone_id": f"{self.erp.name}-{room}", **more}
        warehouse_id = warehouse or self.w1
        movement = inventory_pb2.Movement(warehouse_id=warehouse_id, kind=KIND.Value(f"MOVEMENT_KIND_{kind}"), quantity=quantity, **facts)
        self.api.call(self.api.inventory.RecordMovement, inventory_pb2.RecordMovementRequest(movement=movement))
        if movement.system != self.erp.system:
            self.erp.documents.add(message_key(warehouse_id, facts["key"]))
        return warehouse_id, facts["key"]

    def shipment(self) -> str:
        name = f"{self.erp.name}-{uuid.uuid4().hex[:6]}"
        request = shipment_pb2.CreateShipmentRequest(shipment=shipment_pb2.Shipment(shipment_id=name))
        self.api.call(shipment_pb2_grpc.ShipmentServiceStub(self.api.channel).CreateShipment, request)
        return name

    def stock(self, warehouse: str = "") -> dict[str, str]:
        """By status."""
        lines = self.api.call(self.api.inventory.ListStock, inventory_pb2.ListStockRequest(warehouse_id=warehouse or self.w1)).lines
        return {STATUS.Name(line.status).removeprefix("STOCK_STATUS_"): line.quantity for line in lines}

    def cancelled(self, key: tuple[str, str]) -> None:
        self.erp.documents.discard(message_key(*key))


@pytest.fixture
def books(waybill: Running) -> Iterator[Books]:
    made = Books(waybill.target)
    made.erp.do(1, "10")
    made.sync()
    yield made
    made.api.close()


def test_a_despatch_that_is_cancelled_there_comes_off_its_shipment_here(books: Books) -> None:
    shipped = books.move(
        "SHIP", "4", status=STATUS.STOCK_STATUS_FREE, shipment_id=books.shipment(), to_handling_unit_id=f"{books.erp.name}-pallet"
    )
    assert books.stock() == {"FREE": "6", "IN_TRANSIT": "4"}
    books.sync(shipped)
    assert books.stock() == {"FREE": "6", "IN_TRANSIT": "4"}
    books.cancelled(shipped)
    assert books.sync(shipped).undone == 1
    assert books.stock() == {"FREE": "10"}
    assert books.sync(shipped).undone == 0


def test_a_receipt_that_is_cancelled_there_is_on_its_way_again_from_where_it_came(books: Books) -> None:
    shipment, pallet = books.shipment(), f"{books.erp.name}-pallet"
    books.move("SHIP", "4", status=STATUS.STOCK_STATUS_FREE, shipment_id=shipment, to_handling_unit_id=pallet)
    there = {"warehouse": books.w2, "room": "r2", "shipment_id": shipment, "handling_unit_id": pallet}
    received = books.move("RECEIVE", "4", **there)
    assert (books.stock(), books.stock(books.w2)) == ({"FREE": "6"}, {"FREE": "4"})
    books.cancelled(received)
    books.sync(received)
    assert (books.stock(), books.stock(books.w2)) == ({"FREE": "6", "IN_TRANSIT": "4"}, {})
    books.move("RECEIVE", "4", **there)
    assert (books.stock(), books.stock(books.w2)) == ({"FREE": "6"}, {"FREE": "4"})


def test_pieces_come_back_by_their_numbers(books: Books) -> None:
    serials = [f"{books.erp.name}-{number}" for number in (1, 2)]
    books.move("RECEIVE", "2", serials=serials)
    shipped = books.move("SHIP", "2", status=STATUS.STOCK_STATUS_FREE, serials=serials)
    books.cancelled(shipped)
    books.sync(shipped)
    assert books.stock() == {"FREE": "12"}
    books.move("SHIP", "2", status=STATUS.STOCK_STATUS_FREE, serials=serials)


def test_what_does_not_fit_waits_until_a_person_records_it_in_other_words(books: Books) -> None:
    serials = [f"{books.erp.name}-{number}" for number in (1, 2)]
    books.move("RECEIVE", "2", serials=serials)
    books.erp.do(2, "11", "r1", CUSTOMER)  # one more than the ledger can take without knowing which piece it was
    assert books.sync().refused == 1
    assert "known by serial number" in next(iter(books.inbound.refused.values()))
    books.move("ADJUST", "-1", key=f"{books.erp.system}/move/2", serials=serials[:1], reason="gone", system=books.erp.system)
    assert books.sync().refused == 0
    assert books.stock() == {"FREE": "11"}


def test_deleted_moves_are_found_in_turn_and_nothing_is_kept_of_the_others(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound, "CHECKED", 40)
    monkeypatch.setattr(inbound, "REMEMBERED", 50)
    for number in range(2, 202):
        books.erp.do(number, "1", to_id="r1" if number % 2 else "r2")
    books.begin()
    assert books.sync().recorded == 200
    kept = {name: len(value) for name, value in vars(books.inbound).items() if hasattr(value, "__len__")}
    assert all(count <= 50 for count in kept.values()), kept
    for process in range(2):
        del books.erp.moves[str(201 - process)], books.erp.moves[str(30 + process)]
        books.begin()
        told = [books.sync() for _ in range(11)]
        assert books.erp.asked <= 40
        assert (told[0].undone, sum(one.undone for one in told)) == (1, 2), process  # the newest at once, the old one in its turn
    assert (books.stock(), books.stock(books.w2)) == ({"FREE": "108"}, {"FREE": "98"})
