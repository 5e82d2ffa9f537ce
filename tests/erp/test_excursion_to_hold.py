"""An excursion on a shipment puts its lots on hold in Waybill and in Tryton, soon; `-m long -s` takes a hundred samples."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.boot import Running
from services.erp.waybill import Access, Waybill
from tests.acceptance.client import Client, limit, new_id
from tests.erp.conftest import Books
from tests.erp.judge import judge
from tests.erp.tryton_server import TrytonServer
from tests.erp.world import Outside, until
from waybill.v1 import inventory_pb2, shipment_pb2

pytestmark = pytest.mark.parametrize("waybill", ["sqlite"], indirect=True, scope="session")

SOON_S = 30.0
WARM_C, COLD_C = 12.0, 5.0


class Goods:
    """Lots that lie in a room of Tryton's, and go by shipments that are measured."""

    def __init__(self, waybill: Running, server: TrytonServer) -> None:
        self.client = Client(waybill.target)
        self.api = Waybill(Access(waybill.target))
        self.books = Books(server.file)
        self.profile = self.client.profile(limit("max", 8), hold_on_excursion=True)

    def close(self) -> None:
        self.client.close()
        self.api.close()

    def pickable(self, lot: str) -> float:
        """What of a lot Tryton would let be picked."""
        query = """SELECT coalesce(sum(CASE WHEN t.code LIKE 'COLD-%' THEN m.internal_quantity ELSE 0 END
                                     - CASE WHEN f.code LIKE 'COLD-%' THEN m.internal_quantity ELSE 0 END), 0)
                   FROM stock_move m JOIN stock_lot l ON l.id = m.lot JOIN stock_location f ON f.id = m.from_location
                   JOIN stock_location t ON t.id = m.to_location WHERE l.number = ? AND m.state = 'done'"""
        return float(str(self.books.one(query, lot)))

    def holds(self, item: str, lot: str) -> list[inventory_pb2.Hold]:
        request = inventory_pb2.ListHoldsRequest(item_id=item, lot_number=lot)
        return list(self.api.call(self.api.inventory.ListHolds, request).holds)

    def excursion(self, item: str, lot: str) -> tuple[float, float]:
        """Seconds from sending the reading to the hold in Waybill, and to nothing of the lot being pickable in Tryton."""
        tag = new_id("t")
        unit = shipment_pb2.HandlingUnit(handling_unit_id=new_id("unit"))
        unit.lots.add(item_id=item, lot_number=lot, quantity="5")
        self.client.shipment(self.profile, tag, handling_units=[unit])
        self.client.send(tag, (1, COLD_C))
        assert self.pickable(lot) > 0
        begun = time.perf_counter()
        self.client.send(tag, (2, WARM_C))
        assert self.holds(item, lot)
        here_s = time.perf_counter() - begun
        while self.pickable(lot) > 0:
            assert time.perf_counter() - begun < SOON_S, f"{lot} can still be picked in Tryton"
            time.sleep(0.01)
        return here_s, time.perf_counter() - begun


@pytest.fixture
def goods(waybill: Running, outside: Outside, own_erp: TrytonServer) -> Iterator[Goods]:
    until(lambda: bool(outside.status().get("told")), 60, "a first sync")
    made = Goods(waybill, own_erp)
    yield made
    made.close()


def test_an_excursion_holds_the_lot_in_both_until_a_person_decides(goods: Goods, waybill: Running, own_erp: TrytonServer) -> None:
    item, lot = "V0020", "L0020A"
    whole = goods.pickable(lot)
    goods.excursion(item, lot)
    [hold] = goods.holds(item, lot)
    decision = inventory_pb2.DecideHoldRequest(
        hold_id=hold.hold_id, etag=hold.etag, decision=inventory_pb2.HOLD_DECISION_RELEASE, actor="qp", reason="within the budget"
    )  # fmt: skip
    goods.api.call(goods.api.inventory.DecideHold, decision)
    until(lambda: goods.pickable(lot) == whole, 20, "the lot can be picked again")
    verdict = judge(own_erp.file, waybill.target)
    assert not verdict.pickable


def test_who_picks_in_tryton_meanwhile_finds_nothing(goods: Goods) -> None:
    """Every other lot of the room stays as it is."""
    others = {lot: goods.pickable(lot) for lot in ("L0024A", "L0026A")}
    goods.excursion("V0022", "L0022A")
    assert {lot: goods.pickable(lot) for lot in others} == others


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_how_long_it_takes(goods: Goods) -> None:
    """100 excursions one after the other, on lots that nothing else touches; the figures are left in build/erp-hold.json."""
    here, there = [], []
    rows = goods.books.rows("SELECT p.code, l.number FROM stock_lot l JOIN product_product p ON p.id = l.product ORDER BY l.id DESC")
    lots = [(str(item), str(lot)) for item, lot in rows if goods.pickable(str(lot)) > 0 and not goods.holds(str(item), str(lot))]
    for number in range(100):
        item, lot = lots[number % len(lots)]
        for hold in goods.holds(item, lot):  # the second time round
            if hold.state == inventory_pb2.HOLD_STATE_ACTIVE:
                goods.api.call(
                    goods.api.inventory.DecideHold,
                    inventory_pb2.DecideHoldRequest(
                        hold_id=hold.hold_id, etag=hold.etag, decision=inventory_pb2.HOLD_DECISION_RELEASE, actor="qp", reason="again"
                    ),
                )
                until(lambda lot=lot: goods.pickable(lot) > 0, 30, "it can be picked again")  # type: ignore[misc]
        here_s, there_s = goods.excursion(item, lot)
        here.append(here_s)
        there.append(there_s)
    told = {name: quantiles(values) for name, values in (("waybill_ms", here), ("tryton_ms", there))}
    build = Path(__file__).resolve().parents[2] / "build"
    build.mkdir(exist_ok=True)
    (build / "erp-hold.json").write_text(json.dumps(told, indent=1))
    print(json.dumps(told))


def quantiles(values: list[float]) -> dict[str, float]:
    cut = statistics.quantiles(values, n=100, method="inclusive")
    return {"samples": len(values), "p50": round(cut[49] * 1e3), "p99": round(cut[98] * 1e3), "most": round(max(values) * 1e3)}
