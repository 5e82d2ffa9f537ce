"""The health-commodity deliveries of ../shared/data: dirty weights, costs and dates, with an exact account, through the public API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cluster.client import Client
from cluster.importers import UnusableFile, scms
from cluster.importers.scms_load import Loader
from waybill.v1 import inventory_pb2, shipment_pb2

if TYPE_CHECKING:
    from cluster.boot import Running

LINES = 100
"""Enough for every kind of dirt; `make test-long` loads the whole file."""


@pytest.fixture(scope="module")
def file(shared_data: Path) -> Path:
    return shared_data / "scms_delivery_history" / "scms_dev.csv.gz"


@pytest.fixture
def client(waybill: Running) -> Iterator[Client]:
    with Client(waybill.target) as made:
        yield made


def test_every_value_of_the_file_is_taken_mended_or_refused(file: Path) -> None:
    read = scms.read(file)
    account = read.account
    assert (account.rows, account.refused_rows, sum(len(lines) for lines in read.deliveries.values())) == (6507, 0, 6507)
    for column in (*scms.DATES, *scms.AMOUNTS, "Line Item Quantity"):
        assert sum(account.of(column, outcome) for outcome in ("taken", "mended", "refused")) == account.rows, column
    assert {column: (account.of(column, "taken"), account.of(column, "mended"), account.of(column, "refused"))
            for column in ("Weight (Kilograms)", "Freight Cost (USD)", "PO Sent to Vendor Date", "Delivered to Client Date")} == {
        "Weight (Kilograms)": (4286, 1477, 744), "Freight Cost (USD)": (4152, 2216, 139), "PO Sent to Vendor Date": (2497, 0, 4010),
        "Delivered to Client Date": (6507, 0, 0),
    }  # fmt: skip


def load(client: Client, file: Path, prefix: str, lines: int) -> scms.Read:
    read = scms.read(file, lines)
    loaded = Loader(client, prefix).load(read)
    assert (loaded.refused, loaded.receipts) == ([], read.account.rows)
    assert loaded.shipments == len(read.deliveries)
    again = Loader(client, prefix).load(read)
    assert (again.refused, again.repeated) == ([], read.account.rows)
    received = {line.line_id: line.packs * line.per_pack for line in read.lines()}
    found: dict[str, int] = {}
    for warehouse in {f"{prefix}-{country}" for country in ("zambia", "nigeria", "vietnam", "cote-d-ivoire")}:
        request = inventory_pb2.ListStockRequest(warehouse_id=warehouse)
        found |= {line.lot_number: int(line.quantity) for line in client.pages(client.inventory.ListStock, request, "lines")}
    assert found
    assert {lot: received[lot] for lot in found} == found
    assert len(found) == sum(line.country in ("Zambia", "Nigeria", "Vietnam", "Côte d'Ivoire") for line in read.lines())
    return read


def test_deliveries_become_shipments_items_and_receipts(client: Client, file: Path) -> None:
    read = load(client, file, "real", LINES)
    lines = next(lines for lines in read.deliveries.values() if lines[0].line_id == "1")
    shipment_id = "real-asn-8-cote-d-ivoire"
    shipment = client.call(client.shipments.GetShipment, shipment_pb2.GetShipmentRequest(shipment_id=shipment_id)).shipment
    assert shipment.state == shipment_pb2.SHIPMENT_STATE_DELIVERED
    assert shipment.labels["weight_kg"] == str(sum(line.amounts["Weight (Kilograms)"] or 0 for line in lines))


@pytest.mark.long
def test_the_whole_file_loads(client: Client, file: Path) -> None:
    load(client, file, "whole", 0)


def test_another_file_is_refused_with_the_column_it_lacks(tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("ID,Name\n1,x\n")
    with pytest.raises(UnusableFile, match="no column 'PO / SO #'"):
        scms.read(other)
