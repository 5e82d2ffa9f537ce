"""What an ERP must be able to do for Waybill, in words that no ERP owns. A second ERP implements `Connector` and nothing else.

What goes out are the messages of the outbox, told in order, each at least once: `deliver` makes them take effect once by keeping
their key on what it books. What comes in are `Changes` since a cursor that is the connector's own; telling one twice does no harm.
Ids that end in `_id` and have no other prefix are the ERP's, as text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol

from services.outside import Message, Outcome

SUPPLIER, CUSTOMER, LOSS = "supplier", "customer", "loss"
"""Places outside every warehouse: where goods come from, where they go, and where what is missing went or what is found came from."""


@dataclass(frozen=True, slots=True)
class ErpItem:
    """An item. `unit`: UN/CEFACT Rec 20 code, empty where the ERP's unit has none. `code`: what people call it, empty for none."""

    external_id: str
    code: str
    name: str
    gtin: str
    unit: str
    active: bool = True


@dataclass(frozen=True, slots=True)
class ErpPlace:
    """A warehouse (`warehouse_id` empty) or a place in one, where stock can lie."""

    external_id: str
    code: str
    name: str
    warehouse_id: str = ""
    active: bool = True


@dataclass(frozen=True, slots=True)
class ErpMove:
    """A quantity that went from one place to another. A place is an id, or SUPPLIER, CUSTOMER, LOSS.

    `done`: it took place; else it was taken back after it had. `key`: the key of the message of ours that made it; empty for the ERP's own.
    `at_us`: when, from what never changes about it.
    """

    external_id: str
    item_id: str
    lot_number: str
    from_id: str
    to_id: str
    quantity: Decimal
    unit: str
    at_us: int
    done: bool
    key: str = ""
    document: str = ""


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed since a cursor, and the next cursor. `more`: there is more to fetch at once."""

    items: Sequence[ErpItem] = ()
    places: Sequence[ErpPlace] = ()
    moves: Sequence[ErpMove] = ()
    cursor: Mapping[str, Any] = field(default_factory=dict)
    more: bool = False


@dataclass(frozen=True, slots=True)
class ErpStock:
    """One line of the ERP's book: what lies in a place, what is put aside there as not to be picked included."""

    place_id: str
    item_id: str
    lot_number: str
    quantity: Decimal


class Known(Protocol):
    """What means what in the two systems, from Waybill's mappings. Asked for what is not known it looks again before it says so."""

    def item_of(self, external_id: str) -> str | None:
        """Our item."""

    def external_item(self, item_id: str) -> str | None:
        """The ERP's item."""

    def zone_of(self, external_id: str) -> tuple[str, str] | None:
        """Our warehouse and zone; the zone is empty for a whole warehouse."""

    def external_place(self, warehouse_id: str, zone_id: str) -> str | None:
        """The ERP's place."""


class Blocked(Protocol):
    """How much of a lot must not be picked, as Waybill says now."""

    def lots(self) -> set[tuple[str, str]]:
        """Lots that are on hold somewhere: (item, lot number)."""

    def of_lot(self, item_id: str, lot_number: str) -> Mapping[tuple[str, str], Decimal | None]:
        """By (warehouse, zone): the quantity that must not be picked there; None: all of it. Places that are not named: nothing."""


class Connector(Protocol):
    """An ERP. All methods raise OutsideError (services.outside); none of them is called by two threads at once."""

    system: str
    """Its name: the outbox's destination, and the system of movements that come from it."""

    def check(self) -> str:
        """One line about what answers: product, version, database, company. Raises what stands in the way."""

    def prepare(self) -> Sequence[str]:
        """Make what delivering needs there (once; again does no harm); what was made, a line each."""

    def changes(self, cursor: Mapping[str, Any]) -> Changes:
        """What was made or changed since the cursor (empty: everything), from the oldest on, moves after what they name. What is told
        again is harmless; what is left out is lost, so look back as far as the ERP's clock and open transactions may be behind."""

    def standing(self, moves: Sequence[str], keys: Sequence[str]) -> tuple[set[str], set[str]]:
        """Which of these moves, and of our keys' documents, still stand as done: what is missing was cancelled or deleted there."""

    def deliver(self, messages: Sequence[Message]) -> Iterator[Outcome]:
        """Book messages in their order, see services.outside.Receiver."""

    def protect(self, item_id: str, lot_number: str) -> int:
        """Bring what can be picked of one of our lots in line with `Blocked`; how many moves that took."""

    def lots_put_aside(self) -> set[tuple[str, str]]:
        """Our lots of which something is put aside there: (item, lot number)."""

    def book(self) -> Iterator[ErpStock]:
        """Its whole stock in mapped places, one line per place, item and lot."""

    def close(self) -> None:
        """Let go of connections."""
