"""A shipment that ends lets go of its tags by itself: through the mailboxes of their shards, whatever becomes of the door that was told."""

from __future__ import annotations

from typing import Any

import pytest

from actors.directory import Shipment
from actors.journal.tables import Custody, Mailbox
from tests.acceptance.client import eventually, us
from tests.actors.system import System


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("shipment.milestone", {"milestone": {"kind": "DELIVERED", "at_us": us(20), "actor": "driver"}}),
        ("shipment.cancel", {"cancel_us": us(20), "actor": "driver", "reason": "sold"}),
    ],
)
def test_custodies_end_with_the_shipment_though_no_door_ends_them(system: System, command: str, arguments: dict[str, Any]) -> None:
    tags = [system.tag_in(number % 2) for number in range(4)]
    shipment = system.client.shipment("", *tags[:3])
    system.client.assign(shipment, tags[3], 30)  # after the end: a person's mistake stays for a person
    Shipment(shipment, system.directory).command(command, shipment_id=shipment, **arguments)

    def ended() -> bool:
        return not system.rows(Mailbox)

    assert eventually(ended)
    found = {row.tag_id: (row.until_us, row.ended_by) for row in system.rows(Custody, Custody.carrier == f"shipment/{shipment}")}
    assert found == {**dict.fromkeys(tags[:3], (us(20), "driver")), tags[3]: (None, "")}
