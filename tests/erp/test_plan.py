"""What a movement of the ledger means to an ERP: from where to where, and how much."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from services.erp.connector import CUSTOMER, LOSS, SUPPLIER
from services.erp.plan import transfer
from services.outside import Refused
from tests.erp.conftest import Ledger

LEDGER = Ledger({"1": ("W", "A"), "2": ("W", "B"), "3": ("X", "A")})


def told(kind: str, *legs: tuple[str, str, str], item_id: str = "item-5") -> tuple[str, str, Decimal] | None:
    """(from, to, quantity) of a movement with these legs (warehouse/zone, status, quantity); no zone: in transit."""
    body: dict[str, Any] = {"item_id": item_id, "lot_number": "L", "kind": kind, "at_us": 1, "legs": []}
    for place, status, quantity in legs:
        warehouse_id, _, zone_id = place.partition("/")
        body["legs"].append([warehouse_id, zone_id, f"{item_id}/L", "", "" if zone_id else "S", status, quantity])
    found = transfer(body, LEDGER)
    return None if found is None else (found.from_id, found.to_id, found.quantity)


@pytest.mark.parametrize(
    ("kind", "legs", "means"),
    [
        ("RECEIVE", [("W/A", "FREE", "3"), ("W/A", "HELD", "0.5")], (SUPPLIER, "1", Decimal("3.5"))),
        ("RECEIVE", [("X", "IN_TRANSIT", "-3"), ("W/A", "FREE", "3")], (SUPPLIER, "1", Decimal(3))),
        ("SHIP", [("W/B", "PICKED", "-2"), ("W", "IN_TRANSIT", "2")], ("2", CUSTOMER, Decimal(2))),
        ("PUT_AWAY", [("W/A", "FREE", "-1"), ("W/B", "FREE", "1")], ("1", "2", Decimal(1))),
        ("PICK", [("W/A", "FREE", "-1"), ("W/B", "PICKED", "1")], ("1", "2", Decimal(1))),
        ("ADJUST", [("W/A", "FREE", "4")], (LOSS, "1", Decimal(4))),
        ("COUNT", [("W/A", "FREE", "-4")], ("1", LOSS, Decimal(4))),
        ("SCRAP", [("W/A", "HELD", "-4")], ("1", LOSS, Decimal(4))),
        ("RESERVE", [("W/A", "FREE", "-1"), ("W/A", "RESERVED", "1")], None),
        ("HOLD", [("W/A", "FREE", "-1"), ("W/A", "HELD", "1")], None),
        ("COUNT", [], None),
        ("RECEIVE", [("W/elsewhere", "FREE", "1")], None),
        ("PUT_AWAY", [("W/elsewhere", "FREE", "-1"), ("W/B", "FREE", "1")], (LOSS, "2", Decimal(1))),
    ],
)
def test_the_sum_in_each_zone_decides(kind: str, legs: list[tuple[str, str, str]], means: tuple[str, str, Decimal] | None) -> None:
    assert told(kind, *legs) == means


def test_an_item_without_a_mapping_is_refused_by_name_with_what_to_do() -> None:
    with pytest.raises(Refused, match=r"item own is not mapped.*PutMappings.*outbox retry"):
        told("RECEIVE", ("W/A", "FREE", "1"), item_id="own")
