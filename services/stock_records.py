"""Inventory between the contract and plain data: movements, stock lines, lots, holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from actors.journal import tables
from actors.rules import stock
from actors.rules.errors import DomainError, InvalidArgument
from actors.rules.stability import Band, Place, Use, remaining_us
from actors.rules.stock import Block, Line
from services import check
from services.convert import told
from services.records import SECOND_US
from waybill.v1 import common_pb2, inventory_pb2

TEXTS = (
    "warehouse_id", "key", "item_id", "gtin", "lot_number", "quantity", "unit", "zone_id", "to_zone_id", "handling_unit_id",
    "to_handling_unit_id", "shipment_id", "reason", "reference", "actor", "system",
)  # fmt: skip
"""Fields of a movement that are the same in the contract and inside."""

INSIDE = {"damaged": "damaged_quantity", "at_us": "time", "expiry_us": "expiry_time"}
"""Names inside of fields that have others in the contract."""


def movement_data(message: inventory_pb2.Movement) -> dict[str, Any]:
    """A movement as a caller tells it. What is wrong with it is found line by line, in the shard."""
    data: dict[str, Any] = {name: getattr(message, name) for name in TEXTS}
    data["kind"] = check.word(inventory_pb2.MovementKind, message.kind)
    data["status"] = check.word(inventory_pb2.StockStatus, message.status)
    data["damaged"] = message.damaged_quantity
    data["serials"] = list(message.serials)
    data["allow_expired"] = message.allow_expired
    data["at_us"] = check.time_us(message, "time")
    data["expiry_us"] = check.time_us(message, "expiry_time")
    return data


def movement(body: Mapping[str, Any], event_number: int = 0) -> inventory_pb2.Movement:
    """A movement as its ledger has it."""
    message = inventory_pb2.Movement(
        **{name: body[name] for name in TEXTS},
        kind=check.number(inventory_pb2.MovementKind, body["kind"]),
        status=check.number(inventory_pb2.StockStatus, body["status"]),
        damaged_quantity=body["damaged"],
        serials=body["serials"],
        allow_expired=body["allow_expired"],
        time=check.timestamp(body["at_us"]),
        expiry_time=check.timestamp(body["expiry_us"]),
        number=body["number"],
        recorded_time=check.timestamp(body["recorded_us"]),
        legs=[leg(one) for one in body["legs"]],
        event_number=event_number,
    )
    if body["kind"] == "RECEIVE" and body["shipment_id"]:
        message.short_quantity = body["short"] if body["short"] != "0" else ""
        message.over_quantity = body["over"] if body["over"] != "0" else ""
    return message


def leg(one: Sequence[str]) -> inventory_pb2.StockLeg:
    """A leg as a movement's body has it: the line, and the quantity as text."""
    line, quantity = Line(*one[:6]), one[6]
    return inventory_pb2.StockLeg(
        zone_id=line.zone_id,
        item_id=stock.item_of(line.lot_id),
        lot_number=number_of(line.lot_id),
        handling_unit_id=line.handling_unit_id,
        status=check.number(inventory_pb2.StockStatus, line.status),
        shipment_id=line.shipment_id,
        quantity=quantity,
        warehouse_id=line.warehouse_id,
    )


def number_of(lot_id: str) -> str:
    """The number of a lot; "" for goods without lot."""
    return lot_id.partition("/")[2]


def line_error(error: DomainError) -> inventory_pb2.LineError:
    """Why one line was refused, its field named as in the contract."""
    named = told(error)
    field = INSIDE.get(named.field, named.field)
    if field != named.field:
        named = type(error)(error.rule, field=field, value=error.value)
    return inventory_pb2.LineError(reason=named.reason, field=named.field, value=named.value, message=str(named))


def stock_line(line: Line, quantity: Decimal, unit: str, blocks: Mapping[str, Sequence[Block]]) -> inventory_pb2.StockLine:
    """A line of stock."""
    return inventory_pb2.StockLine(
        warehouse_id=line.warehouse_id,
        zone_id=line.zone_id,
        item_id=stock.item_of(line.lot_id),
        lot_number=number_of(line.lot_id),
        handling_unit_id=line.handling_unit_id,
        status=check.number(inventory_pb2.StockStatus, line.status),
        shipment_id=line.shipment_id,
        quantity=stock.text(quantity),
        unit=unit,
        on_hold=any(block.blocks(line) for block in blocks.get(line.lot_id, ())),
    )


def lot(row: tables.Lot, holds: Iterable[tables.Hold]) -> inventory_pb2.Lot:
    """A lot with its holds, newest first."""
    mine = list(holds)
    return inventory_pb2.Lot(
        item_id=row.item_id,
        lot_number=row.lot_number,
        expiry_time=check.timestamp(row.expires_us),
        on_hold=any(one.state != "RELEASED" for one in mine),
        holds=[hold(one.model_dump()) for one in mine],
        created_time=check.timestamp(row.created_us),
        etag=str(row.etag),
    )


def hold(row: Mapping[str, Any], history: Iterable[tables.HoldHistory] = ()) -> inventory_pb2.Hold:
    """A hold, as its row or its event has it."""
    return inventory_pb2.Hold(
        hold_id=row["hold_id"],
        item_id=row["item_id"],
        lot_number=row["lot_number"],
        state=check.number(inventory_pb2.HoldState, row["state"]),
        source=check.number(inventory_pb2.HoldSource, row["source"]),
        started_time=check.timestamp(row["started_us"]),
        placed_time=check.timestamp(row["placed_us"]),
        reason=row["reason"],
        excursions=[_excursion(one) for one in row["excursions"]],
        released_places=[inventory_pb2.HoldPlace(**place) for place in row["places"]],
        decided_by=row["decided_by"],
        decided_time=check.timestamp(row["decided_us"]),
        decision_reason=row["decision_reason"],
        reopened=row["reopened"],
        etag=str(row["etag"]),
        history=[_change(one) for one in history],
    )


def _excursion(one: Mapping[str, Any]) -> inventory_pb2.HoldExcursion:
    return inventory_pb2.HoldExcursion(
        excursion_id=one["excursion_id"],
        revision=one["revision"],
        carrier=one["carrier"],
        limit_id=one["limit_id"],
        tag_id=one["tag_id"],
        started_time=check.timestamp(one["started_us"]),
        ended_time=check.timestamp(one["ended_us"]),
        extreme=one["extreme"],
        violation_s=one["violation_us"] / SECOND_US,
        retracted=one["retracted"],
    )


def _change(one: tables.HoldHistory) -> inventory_pb2.HoldChange:
    return inventory_pb2.HoldChange(
        change=one.change,
        state=check.number(inventory_pb2.HoldState, one.state),
        actor=one.by,
        text=one.text,
        time=check.timestamp(one.at_us),
        etag=str(one.etag),
        exposures=[_known(known) for known in one.body.get("exposure", [])],
    )


def _known(known: Mapping[str, Any]) -> inventory_pb2.LotExposure:
    """What was known of a part of the lot when it was decided."""
    place = Place(known["carrier"], known["handling_unit_id"])
    return exposure(place, Use(tuple(known["used_us"]), tuple(known["uncovered_us"])), [Band(*band) for band in known["bands"]], False)


def exposure(place: Place, use: Use, bands: Sequence[Band], worst: bool) -> inventory_pb2.LotExposure:
    """What one part of a lot has used of its budget."""
    left = remaining_us(bands, use)
    return inventory_pb2.LotExposure(
        carrier=place.carrier,
        handling_unit_id=place.handling_unit_id,
        worst=worst,
        bands=[
            inventory_pb2.BandUse(
                metric=check.number(common_pb2.Metric, band.metric),
                low=band.low,
                high=band.high,
                allowance_s=band.allowance_us / SECOND_US,
                used_s=use.used_us[at] / SECOND_US,
                remaining_s=left[at] / SECOND_US,
                uncovered_s=use.uncovered_us[at] / SECOND_US,
            )
            for at, band in enumerate(bands)
        ],
    )


def mapping(row: Mapping[str, Any]) -> inventory_pb2.Mapping:
    """What an id of another system means."""
    return inventory_pb2.Mapping(
        system=row["system"],
        kind=check.number(inventory_pb2.MappingKind, row["kind"]),
        external_id=row["external_id"],
        item_id=row["item_id"],
        warehouse_id=row["warehouse_id"],
        zone_id=row["zone_id"],
        updated_time=check.timestamp(row["updated_us"]),
        etag=str(row["etag"]),
    )


def as_of_us(message: Any, now_us: int, field: str = "as_of_time") -> int | None:
    """A past time; None for now. Raises InvalidArgument for the future."""
    found = check.time_us(message, field)
    if found is not None and found > now_us:
        raise InvalidArgument("must not lie in the future", field=field, value=found)
    return found
