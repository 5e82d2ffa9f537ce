"""Stock: what a movement changes, whether it may, and how two books compare (handbook 7). Pure: lines and quantities in, legs out.

A *line* is one (warehouse, zone, lot, handling unit, shipment, status); a book gives each line's quantity, an exact decimal in the item's
base unit. A movement has *legs*: so much more or less of a line. Stock is the sum of the legs, and nothing else changes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from actors.rules.errors import FailedPrecondition, InvalidArgument

FREE, RESERVED, PICKED, HELD, IN_TRANSIT = "FREE", "RESERVED", "PICKED", "HELD", "IN_TRANSIT"
ON_HAND = (FREE, RESERVED, PICKED, HELD)
STATUSES = (*ON_HAND, IN_TRANSIT)
ANY = "ANY"
"""The status of a book's line that stands for all that is on hand there."""

KINDS = ("RECEIVE", "PUT_AWAY", "RESERVE", "UNRESERVE", "PICK", "SHIP", "ADJUST", "COUNT", "HOLD", "RELEASE", "SCRAP")
CHECKS_HOLDS = frozenset({"RESERVE", "PICK", "SHIP"})
"""Movements that a hold of the lot refuses, and its expiry."""

SOURCES: dict[str, tuple[str, ...]] = {
    "PUT_AWAY": (FREE, RESERVED, PICKED, HELD),
    "RESERVE": (FREE,),
    "UNRESERVE": (RESERVED,),
    "PICK": (FREE, RESERVED),
    "SHIP": (PICKED, FREE, RESERVED),
    "ADJUST": (FREE, RESERVED, PICKED, HELD, IN_TRANSIT),
    "COUNT": (FREE, RESERVED, PICKED, HELD),
    "HOLD": (FREE, RESERVED, PICKED),
    "RELEASE": (HELD,),
    "SCRAP": (HELD, FREE, RESERVED, PICKED),
    "RECEIVE": (FREE,),
}
"""The statuses that a kind of movement takes from; the first where none is told."""

TARGETS = {"RESERVE": RESERVED, "UNRESERVE": FREE, "PICK": PICKED, "HOLD": HELD, "RELEASE": FREE}

ZERO = Decimal(0)
DECIMALS = 6
LARGEST = Decimal(10) ** 12
KNOWN_QUANTITIES = 4_096
"""Quantities repeat: so many are remembered with their texts."""

_DECIMAL = re.compile(r"-?\d{1,12}(\.\d{1,6})?", re.ASCII)


class Line(NamedTuple):
    """One line of stock: the key of its sum. No zone while in transit; no shipment else."""

    warehouse_id: str
    zone_id: str
    lot_id: str
    handling_unit_id: str = ""
    shipment_id: str = ""
    status: str = FREE


class Leg(NamedTuple):
    """So much more (or less, below zero) of a line, in the item's base unit."""

    line: Line
    quantity: Decimal


def lot_id_of(item_id: str, lot_number: str) -> str:
    """The id of an item's lot; of its goods without lot where the number is empty."""
    return f"{item_id}/{lot_number}"


def item_of(lot_id: str) -> str:
    """The item of a lot: an item's id has no "/"."""
    return lot_id.partition("/")[0]


# ---------------------------------------------------------------- quantities


def quantity(text: str, field: str, *, signed: bool = False, zero: bool = False) -> Decimal:
    """A quantity from its text. Raises InvalidArgument for anything but plain digits, for a sign or a zero where none may be.

    >>> quantity("12.50", "quantity")
    Decimal('12.5')
    """
    value = _decimal(text) if isinstance(text, str) else None
    if value is None:
        rule = "must be a decimal such as 12.5: at most 12 digits before and 6 after the point, no exponent"
        raise InvalidArgument(rule, field=field, value=text)
    if value < 0 and not signed:
        raise InvalidArgument("must not be negative", field=field, value=text)
    if value == 0 and not zero:
        raise InvalidArgument("must not be zero", field=field, value=text)
    return value


@lru_cache(maxsize=KNOWN_QUANTITIES)
def _decimal(text: str) -> Decimal | None:
    return normal(Decimal(text)) if _DECIMAL.fullmatch(text) else None


def normal(value: Decimal) -> Decimal:
    """The same quantity without trailing zeros or exponent."""
    plain = value.normalize()
    return plain.quantize(Decimal(1)) if plain.as_tuple().exponent > 0 else plain  # type: ignore[operator]


@lru_cache(maxsize=KNOWN_QUANTITIES)
def text(value: Decimal) -> str:
    """A quantity as its text."""
    return format(normal(value) if value else ZERO, "f")


def convert(value: Decimal, unit: str, base: str, factors: Mapping[str, Decimal], field: str) -> Decimal:
    """The quantity in the item's base unit; `factors`: how many base units one of each other unit is.

    Raises InvalidArgument where the item does not convert the unit, where six decimals do not hold the result, or it is too large.
    """
    if not unit or unit == base:
        return value
    if unit not in factors:
        known = ", ".join([base, *sorted(factors)])
        raise InvalidArgument(f"is no unit of this item: it has {known}", field=field.rpartition(".")[0] + "unit", value=unit)
    return checked(value * factors[unit], field)


def checked(value: Decimal, field: str) -> Decimal:
    """A quantity that a ledger can hold; InvalidArgument where it needs more decimals or is too large."""
    if abs(value) >= LARGEST:
        raise InvalidArgument("must have at most 12 digits before the point", field=field, value=value)
    if value != round(value, DECIMALS):
        raise InvalidArgument(f"needs more than {DECIMALS} decimals in the item's base unit", field=field, value=value)
    return normal(value)


# ---------------------------------------------------------------- movements


@dataclass(slots=True)
class Movement:
    """A movement as it is to be applied: ids resolved, quantities in the base unit. `quantity` has a sign for ADJUST only."""

    warehouse_id: str
    kind: str
    lot_id: str
    quantity: Decimal
    at_us: int
    zone_id: str = ""
    to_zone_id: str = ""
    handling_unit_id: str = ""
    to_handling_unit_id: str = ""
    status: str = ""
    shipment_id: str = ""
    damaged: Decimal = ZERO
    allow_expired: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """A hold as movements see it: it blocks its lot everywhere but at `places` (handling unit, warehouse, zone; zone "" for all)."""

    hold_id: str
    state: str
    places: tuple[tuple[str, str, str], ...] = ()

    def blocks(self, line: Line) -> bool:
        """Whether goods of its lot on that line may not go out."""
        for unit, warehouse, zone in self.places:
            if unit and unit == line.handling_unit_id:
                return False
            if not unit and not line.handling_unit_id and warehouse == line.warehouse_id and zone in ("", line.zone_id):
                return False
        return True


@dataclass(slots=True)
class Book:
    """What movements are held against: quantities by line, blocks and expiry by lot. `take` adds legs."""

    lines: dict[Line, Decimal] = field(default_factory=dict)
    allow_negative: bool = False
    blocks: Mapping[str, Sequence[Block]] = field(default_factory=dict)
    expires_us: Mapping[str, int] = field(default_factory=dict)

    def of(self, line: Line) -> Decimal:
        """A line's quantity."""
        return self.lines.get(line, ZERO)

    def take(self, legs: Iterable[Leg]) -> None:
        """Add legs."""
        for line, more in legs:
            self.lines[line] = self.lines.get(line, ZERO) + more

    def block(self, line: Line) -> Block | None:
        """The hold that keeps goods on this line from going out."""
        return next((block for block in self.blocks.get(line.lot_id, ()) if block.blocks(line)), None)

    def kept_apart(self, line: Line) -> Line:
        """The line that goods under a hold come onto: HELD in a place that was released, for they are not what was released there."""
        return line._replace(status=HELD) if self.blocks.get(line.lot_id) and self.block(line) is None else line


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a movement: its legs, and for a receipt from a shipment what was short and over."""

    legs: tuple[Leg, ...]
    short: Decimal = ZERO
    over: Decimal = ZERO


def decide(movement: Movement, book: Book, *, as_of: Decimal = ZERO, aboard: Sequence[tuple[Line, Decimal]] = ()) -> Found:
    """The legs of a movement against a book, which is left as it is. Raises FailedPrecondition, InvalidArgument.

    as_of: for a COUNT, the line's sum of legs up to its time. aboard: for a RECEIVE from a shipment, what the shipment still carries of the
    lot, line by line (in transit from a warehouse of ours, or on the unit by the shipment's own papers), in the order it is taken from.
    """
    status = _status(movement)
    here = Line(movement.warehouse_id, movement.zone_id, movement.lot_id, movement.handling_unit_id, "", status)
    if status == IN_TRANSIT:
        here = here._replace(zone_id="", shipment_id=movement.shipment_id)
    if movement.kind == "RECEIVE":
        found = _receive(movement, book, aboard)
    elif movement.kind == "COUNT":
        found = Found(_only((Leg(here, movement.quantity - as_of),)))
    elif movement.kind == "ADJUST":
        found = Found((Leg(here, movement.quantity),))
    else:
        found = Found((Leg(here, -movement.quantity), *_target(movement, here, book)))
    if movement.kind in CHECKS_HOLDS:
        _may_go_out(movement, book, here)
    for line, more in found.legs:
        total = book.of(line) + more
        if abs(total) >= LARGEST:
            raise FailedPrecondition("would hold more than a ledger can count", field="quantity", value=text(total))
        if movement.kind == "RECEIVE":
            continue  # it takes what `aboard` says is there
        if more < 0 and total < 0 and not book.allow_negative:
            place = " ".join(part for part in (line.zone_id, line.handling_unit_id, line.shipment_id, line.status) if part)
            told = f"takes {text(-more)} where there are {text(book.of(line))} ({place}); the warehouse allows no negative stock"
            raise FailedPrecondition(told, field="quantity", value=movement.lot_id)
    return found


def _status(movement: Movement) -> str:
    allowed = SOURCES[movement.kind]
    status = movement.status or allowed[0]
    if status not in allowed:
        raise InvalidArgument(f"must be of {', '.join(allowed)} for {movement.kind}", field="status", value=status)
    return status


def _target(movement: Movement, here: Line, book: Book) -> tuple[Leg, ...]:
    if movement.kind == "SCRAP":
        return ()
    if movement.kind == "SHIP":
        if not movement.shipment_id:
            return ()
        unit = movement.to_handling_unit_id or movement.handling_unit_id
        there = Line(here.warehouse_id, "", here.lot_id, unit, movement.shipment_id, IN_TRANSIT)
    elif movement.kind == "PUT_AWAY":
        there = here._replace(zone_id=movement.to_zone_id, handling_unit_id=movement.to_handling_unit_id)
        there = book.kept_apart(there) if book.block(here) is not None else there
    else:
        there = here._replace(status=TARGETS[movement.kind])
        if movement.kind == "PICK":
            unit = movement.to_handling_unit_id or movement.handling_unit_id
            there = there._replace(zone_id=movement.to_zone_id or here.zone_id, handling_unit_id=unit)
    if there == here:
        raise InvalidArgument("must lead to another place than it takes from", field="to_zone_id", value=movement.to_zone_id)
    return (Leg(there, movement.quantity),)


def _receive(movement: Movement, book: Book, aboard: Sequence[tuple[Line, Decimal]]) -> Found:
    arrived = movement.quantity + movement.damaged
    legs = []
    left = arrived
    for line, carried in aboard:
        taken = min(left, carried)
        if line.shipment_id and taken > 0:
            legs.append(Leg(line, -taken))
        left -= taken
    expected = sum((carried for _, carried in aboard), ZERO)
    unit = movement.to_handling_unit_id
    place = Line(movement.warehouse_id, movement.zone_id, movement.lot_id, unit, "", FREE)
    released = bool(aboard) and all(book.block(line) is None for line, _ in aboard)
    good = place if released else book.kept_apart(place)
    if good.status == HELD:
        legs.append(Leg(good, arrived))
    else:
        legs += [Leg(good, movement.quantity), Leg(good._replace(status=HELD), movement.damaged)]
    return Found(_only(legs), max(expected - arrived, ZERO), max(arrived - expected, ZERO) if movement.shipment_id else ZERO)


def _only(legs: Iterable[Leg]) -> tuple[Leg, ...]:
    return tuple(leg for leg in legs if leg.quantity)


def _may_go_out(movement: Movement, book: Book, line: Line) -> None:
    block = book.block(line)
    if block is not None:
        told = f"is on hold ({block.hold_id}, {block.state}): a person must decide first"
        raise FailedPrecondition(told, field="lot_number", value=movement.lot_id)
    expires_us = book.expires_us.get(movement.lot_id)
    if expires_us is not None and expires_us <= movement.at_us and not movement.allow_expired:
        raise FailedPrecondition("has expired; set allow_expired to move it all the same", field="lot_number", value=movement.lot_id)


# ---------------------------------------------------------------- sums


class Sums(NamedTuple):
    """Stock of a group. available = on_hand - held - reserved."""

    on_hand: Decimal = ZERO
    held: Decimal = ZERO
    reserved: Decimal = ZERO
    in_transit: Decimal = ZERO

    @property
    def available(self) -> Decimal:
        """What may still be promised."""
        return self.on_hand - self.held - self.reserved


def sums(lines: Iterable[tuple[Line, Decimal]], blocked: Mapping[str, Sequence[Block]]) -> Sums:
    """Add lines up. What stands under a hold of its lot is held, whatever its status."""
    on_hand, held, reserved, in_transit = ZERO, ZERO, ZERO, ZERO
    for line, amount in lines:
        if line.status == IN_TRANSIT:
            in_transit += amount
            continue
        on_hand += amount
        if line.status == HELD or any(block.blocks(line) for block in blocked.get(line.lot_id, ())):
            held += amount
        elif line.status in (RESERVED, PICKED):
            reserved += amount
    return Sums(on_hand, held, reserved, in_transit)


# ---------------------------------------------------------------- two books


class BookKey(NamedTuple):
    """A line as two systems compare it; status ANY: whatever the status."""

    zone_id: str
    lot_id: str
    status: str


class Difference(NamedTuple):
    """A line in which two books differ. kind: QUANTITY, ONLY_HERE (left), ONLY_THERE (right); absent counts as zero."""

    kind: str
    key: BookKey
    left: Decimal
    right: Decimal


def changed(book: Mapping[BookKey, Decimal], told: Mapping[BookKey, Decimal]) -> dict[BookKey, Decimal]:
    """A book after changes to it. Where a lot is now told for any status, what was told of it there by status is gone, and vice versa."""
    by_status = {(key.zone_id, key.lot_id): key.status != ANY for key in told}
    kept = {
        key: amount for key, amount in book.items() if by_status.get((key.zone_id, key.lot_id), key.status != ANY) == (key.status != ANY)
    }
    return kept | dict(told)


def reconcile(left: Mapping[BookKey, Decimal], right: Mapping[BookKey, Decimal]) -> tuple[int, list[Difference]]:
    """How many lines are equal, and the differences by key. A line of zero is as good as none.

    Where the right book tells a line for any status, the left book's lines of that place are added up; so are the right's for the left's.
    """
    left, right = _alike(left, right), _alike(right, left)
    equal, found = 0, []
    for key in sorted(left.keys() | right.keys()):
        here, there = left.get(key, ZERO), right.get(key, ZERO)
        if here == there:
            equal += bool(here)
            continue
        kind = "QUANTITY" if here and there else "ONLY_HERE" if here else "ONLY_THERE"
        found.append(Difference(kind, key, here, there))
    return equal, found


def _alike(book: Mapping[BookKey, Decimal], other: Mapping[BookKey, Decimal]) -> dict[BookKey, Decimal]:
    """The book with lines added up where either one does not tell statuses apart."""
    coarse = {(key.zone_id, key.lot_id) for one in (book, other) for key in one if key.status == ANY}
    alike: dict[BookKey, Decimal] = {}
    for key, amount in book.items():
        mine = key._replace(status=ANY) if (key.zone_id, key.lot_id) in coarse else key
        alike[mine] = alike.get(mine, ZERO) + amount
    return alike


def told_by(key: BookKey, legs: Iterable[Leg]) -> Iterator[Leg]:
    """Those of a movement's legs that belong to a line of a book."""
    for leg in legs:
        line = leg.line
        same = (line.zone_id, line.lot_id) == (key.zone_id, key.lot_id) and line.status in ON_HAND
        if same and key.status in (ANY, line.status):
            yield leg
