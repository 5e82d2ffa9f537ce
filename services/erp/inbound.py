"""The ERP's changes into Waybill: its moves, each recorded once under a key made of the system and the move's id.

A done move of an ERP is a fact. Where our ledger refuses it as what it is (a lot on hold was shipped over there) it is recorded as
an adjustment that says so. Where it does not fit at all (more was taken than lies here) it is kept and tried again at each sync,
beside the others, until it fits; `Inbound.refused` tells which and why.

A move that was taken back is undone by adjustments of the opposite sign for each leg of what it had changed here.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from services.erp.catalogue import Catalogue
from services.erp.connector import CUSTOMER, SUPPLIER, Changes, Connector, ErpMove
from services.erp.waybill import ApiRefused, Mappings, Waybill
from waybill.v1 import inventory_pb2

log = logging.getLogger(__name__)

BATCH = 2_000
KEY_MAX = 128
KINDS = inventory_pb2.MovementKind
STATUS = inventory_pb2.StockStatus
CHECKED = 2_000
"""So many of the moves that we know are looked up in the ERP at a time: half of them the newest, the others in turn from the ledgers."""

CHECK_EVERY_S = 5.0
"""How often, where syncs follow each other faster."""

REMEMBERED = 200_000
"""So many moves, and so many movements that were undone, are remembered not to be looked at twice."""

LOTS = 10_000
"""So many lots are named whose stock an ERP changed in one sync; of more it is said that it may be any."""

Key = tuple[str, str]
"""A warehouse and a movement's key there."""


@dataclass
class Told:
    """What a sync did."""

    items: int = 0
    places: int = 0
    recorded: int = 0
    undone: int = 0
    refused: int = 0
    lots: set[Key] = field(default_factory=set)
    """Lots whose stock the ERP changed: (item, lot number), `LOTS` of them at most."""

    def __str__(self) -> str:
        return f"{self.items} items, {self.places} places, {self.recorded} movements, {self.undone} undone, {self.refused} refused"


class Inbound:
    """Brings one ERP's changes into Waybill. What it remembers is bounded: the ledgers say which moves are recorded."""

    def __init__(self, waybill: Waybill, connector: Connector, mappings: Mappings, actor: str = "erp") -> None:
        self._waybill, self._erp, self._mappings, self._actor = waybill, connector, mappings, actor
        self._catalogue = Catalogue(waybill, connector.system, mappings)
        self._pending: dict[Key, inventory_pb2.Movement] = {}
        self._handled: set[tuple[str, bool]] = set()
        self._undone: set[Key] = set()
        self._newest: deque[Key] = deque(maxlen=CHECKED // 2)
        self._turns: dict[str, str] = {}  # per warehouse the page of its ledger that is looked at next
        self._checked_at = -CHECK_EVERY_S
        self.refused: dict[Key, str] = {}

    def sync(self, kept: Mapping[str, Any], keep: Callable[[Mapping[str, Any]], None], *, sent: Iterable[Key] = ()) -> Told:
        """All changes since `kept` (empty: everything); `keep` is given what is to be kept next when all before it is durable here: the
        connector's cursor, and the movements that our ledger refused so far.

        sent: movements of ours that were delivered, to find out whether they still stand there. Raises OutsideError, ApiRefused.
        """
        told = Told()
        for packed in kept.get("refused", ()):
            movement = inventory_pb2.Movement.FromString(base64.b64decode(packed))
            self._pending.setdefault((movement.warehouse_id, movement.key), movement)
        cursor = kept.get("cursor", {})
        while True:
            changes = self._erp.changes(cursor)
            self.take(changes, told)
            cursor = changes.cursor
            refused = [base64.b64encode(movement.SerializeToString()).decode() for movement in self._pending.values()]
            keep({"cursor": cursor, "refused": refused})
            if not changes.more:
                break
        if time.monotonic() - self._checked_at >= CHECK_EVERY_S:
            self._find_the_gone(told, list(sent))
            self._checked_at = time.monotonic()
        told.refused = len(self.refused)
        return told

    def take(self, changes: Changes, told: Told) -> None:
        """One page of changes."""
        told.places += self._catalogue.take_places(changes.places)
        told.items += self._catalogue.take_items(changes.items)
        self._moves(changes.moves, told)

    # ------------------------------------------------------------ moves

    def _moves(self, moves: Sequence[ErpMove], told: Told) -> None:
        fresh = [move for move in moves if (move.external_id, move.done) not in self._handled]
        done = [move for move in fresh if move.done and not move.key]
        todo: dict[str, list[inventory_pb2.Movement]] = defaultdict(list)
        waiting: dict[str, list[inventory_pb2.Movement]] = defaultdict(list)
        for key, movement in self._pending.items():
            waiting[key[0]].append(movement)
        for move in sorted(done, key=lambda move: (move.at_us, int(move.external_id) if move.external_id.isdigit() else 0)):
            for movement in self._movements(move):
                todo[movement.warehouse_id].append(movement)
        for warehouse_id in todo.keys() | waiting.keys():
            self._record(warehouse_id, [*todo[warehouse_id], *waiting[warehouse_id]], told)
        self._undo([key for move in fresh if not move.done for key in self._keys_of(move)], told)
        self._handled |= {(move.external_id, move.done) for move in fresh}
        for remembered in (self._handled, self._undone):
            if len(remembered) > REMEMBERED:
                remembered.clear()  # what is told again because of it is recognised by its key

    def _movements(self, move: ErpMove) -> Iterator[inventory_pb2.Movement]:
        """What a move of the ERP is here: one movement, or one in each of two warehouses. Nothing where its item or place is not known."""
        item_id = self._mappings.item_of(move.item_id)
        here, there = self._mappings.zone_of(move.from_id), self._mappings.zone_of(move.to_id)
        if item_id is None or (here is None and there is None):
            return

        def movement(warehouse_id: str, kind: Any, **given: Any) -> inventory_pb2.Movement:
            made = inventory_pb2.Movement(
                warehouse_id=warehouse_id,
                key=self._key(move.external_id),
                kind=kind,
                item_id=item_id,
                lot_number=move.lot_number,
                unit=move.unit,
                reference=move.document[:64],
                actor=self._actor,
                system=self._erp.system,
                **{"quantity": _text(move.quantity), **given},
            )
            made.time.FromMicroseconds(move.at_us)
            return made

        if here is not None and there is not None and here[0] == there[0]:
            yield movement(here[0], KINDS.MOVEMENT_KIND_PUT_AWAY, zone_id=here[1], to_zone_id=there[1])
            return
        if here is not None:
            if there is not None or move.to_id in (CUSTOMER, SUPPLIER):
                yield movement(here[0], KINDS.MOVEMENT_KIND_SHIP, zone_id=here[1], status=STATUS.STOCK_STATUS_FREE, allow_expired=True)
            else:
                less = _text(-move.quantity)
                yield movement(here[0], KINDS.MOVEMENT_KIND_ADJUST, zone_id=here[1], quantity=less, reason="missing, says the ERP")
        if there is not None:
            if here is not None or move.from_id in (CUSTOMER, SUPPLIER):
                yield movement(there[0], KINDS.MOVEMENT_KIND_RECEIVE, zone_id=there[1])
            else:
                yield movement(there[0], KINDS.MOVEMENT_KIND_ADJUST, zone_id=there[1], reason="found, says the ERP")

    def _record(self, warehouse_id: str, movements: Sequence[inventory_pb2.Movement], told: Told) -> None:
        """Record, and try again as an adjustment what a hold forbids; what is refused all the same waits for the next sync."""
        for start in range(0, len(movements), BATCH):
            some = movements[start : start + BATCH]
            again = []
            for movement, result in zip(some, self._batch(warehouse_id, some), strict=True):
                if not result.HasField("error"):
                    self._recorded(movement, told, new=not result.repeated_before)
                elif movement.kind == KINDS.MOVEMENT_KIND_SHIP and result.error.reason == "FAILED_PRECONDITION":
                    again.append(movement)
                else:
                    self._refuse(movement, result.error, told)
            instead = [_adjustment(movement) for movement in again]
            for movement, adjusted, result in zip(again, instead, self._batch(warehouse_id, instead), strict=True):
                if not result.HasField("error"):
                    log.warning("%s: recorded as an adjustment: %s", adjusted.key, adjusted.reason)
                    self._recorded(movement, told, new=not result.repeated_before)
                else:
                    self._refuse(movement, result.error, told)

    def _batch(self, warehouse_id: str, movements: Sequence[inventory_pb2.Movement]) -> Sequence[inventory_pb2.MovementResult]:
        if not movements:
            return []
        request = inventory_pb2.RecordMovementsRequest(warehouse_id=warehouse_id, movements=movements)
        return self._waybill.call(self._waybill.inventory.RecordMovements, request).results

    def _recorded(self, movement: inventory_pb2.Movement, told: Told, *, new: bool) -> None:
        key = (movement.warehouse_id, movement.key)
        self._pending.pop(key, None)
        self.refused.pop(key, None)
        if new:
            told.recorded += 1
            if len(told.lots) < LOTS:
                told.lots.add((movement.item_id, movement.lot_number))
            if self._move_of(movement.key) is not None:
                self._newest.append(key)

    def _refuse(self, movement: inventory_pb2.Movement, error: inventory_pb2.LineError, told: Told) -> None:
        key = (movement.warehouse_id, movement.key)
        if error.field == "key" and error.reason == "FAILED_PRECONDITION":
            log.warning("%s in %s: a person recorded it in other words", movement.key, movement.warehouse_id)
            self._recorded(movement, told, new=False)
            return
        if key not in self.refused:
            log.warning("%s in %s is refused and tried again: %s", movement.key, movement.warehouse_id, error.message)
        self._pending[key] = movement
        self.refused[key] = error.message

    # ------------------------------------------------------------ what was taken back

    def _keys_of(self, move: ErpMove) -> list[Key]:
        """What may be recorded here for a move: the ERP's own under its key in both warehouses, one of ours under its message's key."""
        zones = [zone for place in (move.from_id, move.to_id) if (zone := self._mappings.zone_of(place)) is not None]
        warehouses = sorted({warehouse_id for warehouse_id, _ in zones})
        if not move.key:
            return [(warehouse_id, self._key(move.external_id)) for warehouse_id in warehouses]
        wanted = {warehouse_id: message_key(warehouse_id, "") for warehouse_id in warehouses}
        return [(warehouse_id, move.key.removeprefix(start)) for warehouse_id, start in wanted.items() if move.key.startswith(start)]

    def _undo(self, keys: Sequence[Key], told: Told) -> None:
        """Undo what was recorded under these keys, if anything was."""
        for key in keys:
            self._pending.pop(key, None)  # it never got in here
            self.refused.pop(key, None)
        keys = [key for key in keys if key not in self._undone]
        requests = [inventory_pb2.GetMovementRequest(warehouse_id=warehouse_id, key=key) for warehouse_id, key in keys]
        for key, answer in zip(keys, self._waybill.together(self._waybill.inventory.GetMovement, requests), strict=True):
            if isinstance(answer, ApiRefused):
                if answer.reason != "NOT_FOUND":
                    raise answer
                continue
            before = told.recorded
            for warehouse_id, movements in self._undoing(key, answer.movement).items():
                self._record(warehouse_id, movements, told)
            self._undone.add(key)
            told.undone += told.recorded > before

    def _undoing(self, key: Key, movement: inventory_pb2.Movement) -> dict[str, list[inventory_pb2.Movement]]:
        """By ledger, the movements that take a movement back: leg by leg, those of goods on a shipment too; what is taken from a zone
        first, and what is taken off a shipment last, when its pieces are named where they came back to."""
        sums: dict[tuple[str, str, str, str, int], Decimal] = {}
        for leg in movement.legs:
            line = (leg.warehouse_id, leg.zone_id, leg.handling_unit_id, leg.shipment_id, leg.status)
            sums[line] = sums.get(line, Decimal(0)) - Decimal(leg.quantity)
        found: dict[str, list[inventory_pb2.Movement]] = {}
        ordered = sorted(sums.items(), key=lambda one: (not one[0][1], one[1]))
        for number, ((warehouse_id, zone_id, unit_id, shipment_id, status), more) in enumerate(ordered):
            undoing = inventory_pb2.Movement(
                warehouse_id=warehouse_id,
                key=undo_key(self._erp.system, key[1], number),
                kind=KINDS.MOVEMENT_KIND_ADJUST,
                item_id=movement.item_id,
                lot_number=movement.lot_number,
                quantity=_text(more),
                zone_id=zone_id,
                handling_unit_id=unit_id,
                shipment_id=shipment_id,
                status=status,  # type: ignore[arg-type]  # a number of the enum
                serials=movement.serials if zone_id and abs(more) == len(movement.serials) else [],
                reason=f"movement {key[1]} was cancelled or deleted in {self._erp.system}"[:1024],
                actor=self._actor,
                system=self._erp.system,
            )
            if more:
                found.setdefault(warehouse_id, []).append(undoing)
        return found

    def _find_the_gone(self, told: Told, sent: Sequence[Key]) -> None:
        """Undo what was deleted there, or cancelled and deleted between two syncs: a part of all that we know at each sync."""
        by_move: dict[str, list[Key]] = {}
        for key in {*self._newest, *self._in_turn()} - self._undone:
            by_move.setdefault(self._move_of(key[1]) or "", []).append(key)
        documents = {message_key(*one): one for one in sent if one not in self._undone}
        standing, standing_keys = self._erp.standing(list(by_move), list(documents))
        gone = [key for move_id, keys in by_move.items() if move_id not in standing for key in keys]
        self._undo(gone + [one for name, one in documents.items() if name not in standing_keys], told)

    def _in_turn(self) -> Iterator[Key]:
        """Moves of the ERP that the ledgers have: of each warehouse a page, from its newest down, and then from the newest again."""
        warehouses = sorted({warehouse_id for warehouse_id, _ in self._mappings.zones().values()})
        for warehouse_id in warehouses:
            size = max(1, CHECKED // 2 // len(warehouses))
            request = inventory_pb2.ListMovementsRequest(
                warehouse_id=warehouse_id, system=self._erp.system, newest_first=True, page_size=size,
                page_token=self._turns.get(warehouse_id, ""),
            )  # fmt: skip
            answer = self._waybill.call(self._waybill.inventory.ListMovements, request)
            self._turns[warehouse_id] = answer.next_page_token
            yield from ((warehouse_id, one.key) for one in answer.movements if self._move_of(one.key) is not None)

    def _key(self, move_id: str) -> str:
        return f"{self._erp.system}/move/{move_id}"

    def _move_of(self, key: str) -> str | None:
        prefix = f"{self._erp.system}/move/"
        return key.removeprefix(prefix) if key.startswith(prefix) else None


def message_key(warehouse_id: str, key: str) -> str:
    """The key of the outbox's message about a movement (actors.journal.apply_stock)."""
    return f"movement|{warehouse_id}|{key}"


def undo_key(system: str, key: str, number: int) -> str:
    """The key of the n-th movement that undoes a movement; a long key is told by its digest, for ours have at most 128 characters."""
    whole = f"{system}/undo/{key}/{number}"
    if len(whole) <= KEY_MAX:
        return whole
    return f"{system}/undo/{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}/{number}"


def _adjustment(movement: inventory_pb2.Movement) -> inventory_pb2.Movement:
    """What left over there although our ledger forbids it, as a fact."""
    instead = inventory_pb2.Movement()
    instead.CopyFrom(movement)
    instead.kind, instead.quantity = KINDS.MOVEMENT_KIND_ADJUST, f"-{movement.quantity}"
    instead.allow_expired = False
    instead.reason = "shipped in the ERP, where Waybill does not allow it: a hold of the lot, or stock that is reserved here"
    return instead


def _text(value: Decimal) -> str:
    return format(value.normalize(), "f")
