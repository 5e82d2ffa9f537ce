"""`waybill stock`, `lots` and `holds` against a running Waybill."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cluster.client import Client
from tests.data.support import waybill_command
from waybill.v1 import inventory_pb2, item_pb2, warehouse_pb2

if TYPE_CHECKING:
    from cluster.boot import Running

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def server(waybill: Running) -> tuple[str, str]:
    """The connection option of a running Waybill that has ten pieces of one lot."""
    with Client(waybill.target) as client:
        band = item_pb2.StabilityBand(low=8, high=25, allowance_s=7200)
        item = item_pb2.Item(item_id="cli-item", stability_budget=[band])
        client.call(client.items.CreateItem, item_pb2.CreateItemRequest(item=item))
        body = warehouse_pb2.Warehouse(warehouse_id="cli-wh", zones=[warehouse_pb2.Zone(zone_id="A")])
        client.call(client.warehouses.CreateWarehouse, warehouse_pb2.CreateWarehouseRequest(warehouse=body))
        movement = inventory_pb2.Movement(
            warehouse_id="cli-wh", key="1", kind=inventory_pb2.MOVEMENT_KIND_RECEIVE, item_id="cli-item", lot_number="L-7",
            quantity="10", zone_id="A",
        )  # fmt: skip
        client.call(client.inventory.RecordMovement, inventory_pb2.RecordMovementRequest(movement=movement))
    return "--server", waybill.target


def test_stock_lots_and_holds_tell_one_story(server: tuple[str, str], capsys: Captured) -> None:
    assert waybill_command("stock", "show", "--warehouse", "cli-wh", *server) == 0
    assert capsys.readouterr().out.split()[-8:] == ["cli-wh", "cli-item", "10", "0", "0", "10", "0", "EA"]
    assert waybill_command("holds", "place", "cli-item", "L-7", "--reason", "label wrong", "--actor", "ann", *server) == 0
    hold = capsys.readouterr().out.split()[1]
    assert waybill_command("stock", "lines", "cli-wh", *server) == 0
    assert "FREE, on hold" in capsys.readouterr().out.replace("free", "FREE")
    assert waybill_command("lots", "--held", "--warehouse", "cli-wh", *server) == 0
    assert "label wrong" in capsys.readouterr().out
    assert waybill_command("holds", "decide", hold, "release", "--reason", "relabelled", "--actor", "bob", *server) == 0
    assert "is released" in capsys.readouterr().out
    assert waybill_command("holds", "show", hold, *server) == 0
    shown = capsys.readouterr().out
    assert "placed by ann: label wrong" in shown
    assert "released by bob: relabelled" in shown
    assert waybill_command("lots", "cli-item", "L-7", *server) == 0
    assert "temperature c 8 to 25: used 0 s of 2 h, 2 h left" in capsys.readouterr().out.lower().replace("_", " ").replace("120 min", "2 h")
    assert waybill_command("stock", "verify", "cli-wh", *server) == 0
    assert "0 differ" in capsys.readouterr().out


def test_wrong_usage_says_what_to_do(server: tuple[str, str], capsys: Captured) -> None:
    assert waybill_command("holds", "decide", "H-none", "partial", "--reason", "x", *server) == 2
    assert "partial takes --release" in capsys.readouterr().err
    assert waybill_command("stock", "show", "--by", "colour", *server) == 2
    assert "'colour' is not one of warehouse, zone, item, lot" in capsys.readouterr().err
    assert waybill_command("holds", "show", "H-none", *server) == 1
    assert "no such hold" in capsys.readouterr().err
