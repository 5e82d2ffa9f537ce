"""What a movement of Waybill's ledger means to an ERP: so much of a lot goes from one place to another. Pure.

An ERP's book knows no statuses: a reservation changes nothing there, and a hold of goods is a change of what may be picked
(`Connector.protect`). What counts is the sum of a movement's legs in each zone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from actors.rules.stock import HELD, Line
from services.erp.connector import CUSTOMER, LOSS, SUPPLIER, Known
from services.outside import Refused

_OUTSIDE = {"RECEIVE": SUPPLIER, "SHIP": CUSTOMER}
"""Where goods of a kind of movement come from or go to; of all others: LOSS."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A quantity in the item's base unit from one of the ERP's places to another. `item_id` is Waybill's."""

    item_id: str
    lot_number: str
    quantity: Decimal
    from_id: str
    to_id: str
    at_us: int


def transfer(movement: Mapping[str, Any], known: Known) -> Transfer | None:
    """What an ERP should book for a movement (its body in the outbox); None where its places' sums stay as they are.

    Zones that are not mapped are none of the ERP's business: what goes there leaves its book, what comes from there enters it.
    Raises Refused where the movement's goods have no item there.
    """
    changes: dict[str, Decimal] = {}
    for line, more in legs(movement):
        place = known.external_place(line.warehouse_id, line.zone_id) if line.zone_id else None
        if place is not None:
            changes[place] = changes.get(place, Decimal(0)) + more
    gained = [place for place, amount in changes.items() if amount > 0]
    lost = [place for place, amount in changes.items() if amount < 0]
    if not gained and not lost:
        return None
    item_id = str(movement["item_id"])
    if known.external_item(item_id) is None:
        raise Refused(f"item {item_id} is not mapped: give it an id of the ERP's (PutMappings), then `waybill outbox retry`")
    # A movement leads from one zone to another, or changes one: it has no more places than these.
    outside = _OUTSIDE.get(str(movement["kind"]), LOSS)
    from_id, to_id = lost[0] if lost else outside, gained[0] if gained else outside
    amount = abs(changes[gained[0] if gained else lost[0]])
    return Transfer(item_id, str(movement["lot_number"]), amount, from_id, to_id, int(movement["at_us"]))


def touches_what_is_aside(movement: Mapping[str, Any]) -> bool:
    """Whether a movement changes how much is held."""
    return any(line.status == HELD for line, _ in legs(movement))


def legs(movement: Mapping[str, Any]) -> Iterator[tuple[Line, Decimal]]:
    """A movement's legs, from its body in the outbox."""
    for *line, more in movement["legs"]:
        yield Line(*line), Decimal(more)
