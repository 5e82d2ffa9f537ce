"""Requests of the contract as the plain data that commands take; and the commands' refusals in the contract's words.

Inside, times end in `_us` and are microseconds, durations too; enum values are words. What is absent is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.message import Message

from actors.rules.errors import DomainError, InvalidArgument
from services import check
from waybill.v1 import common_pb2, item_pb2, profile_pb2, shipment_pb2, warehouse_pb2

SECOND_US = 1_000_000
LONGEST_S = 4e11
"""No duration is longer; it bounds what is turned into an integer."""

RENAMED = {
    "at_us": "time",
    "allowance_us": "allowance_s",
    "beyond_allowance_us": "beyond_allowance_s",
    "beyond_allowance": "beyond_allowance_s",
    "allowance": "allowance_s",
    "max_gap_us": "max_gap_s",
    "max_gap": "max_gap_s",
    "ignore_us": "ignore_s",
    "ignore": "ignore_s",
    "window_us": "window_s",
    "window": "window_s",
    "dwell_us": "dwell_s",
    "hold_us": "hold_s",
    "lateness_tolerance_us": "lateness_tolerance_s",
    "in_force_us": "in_force_from_time",
    "from": "from_time",
    "until": "until_time",
    "mkt.window": "mkt_window_s",
    "mkt.window_us": "mkt_window_s",
    "mkt.weights": "mkt_method",
}
"""Last part of a field's path inside: its name in the contract. Others that end in `_us` end in `_time` there."""

LOCATED = ("shipment.stops[", "warehouse.latitude", "warehouse.longitude")


def told(error: DomainError) -> DomainError:
    """The same refusal, its field named as in the request."""
    path, dot, last = error.field.rpartition(".")
    if path.endswith("mkt") or path == "mkt":
        path, dot, last = path.removesuffix("mkt").rstrip("."), "." if len(path) > 3 else "", f"mkt.{last}"
    if last in RENAMED:
        last = RENAMED[last]
    elif last.endswith("_us"):
        last = last.removesuffix("_us") + "_time"
    elif last in ("latitude_deg", "longitude_deg") and error.field.startswith(LOCATED):
        last = f"location.{last}"
    return type(error)(error.rule, field=f"{path}{dot}{last}", value=error.value, retry_after_s=error.retry_after_s)


def duration_us(message: Message, field: str, within: str) -> int | None:
    """Seconds of an optional field as microseconds; None where absent."""
    if not message.HasField(field):
        return None
    seconds: float = getattr(message, field)
    if not abs(seconds) <= LONGEST_S:
        raise InvalidArgument("is longer than any duration here", field=within + field, value=seconds)
    return round(seconds * SECOND_US)


def optional(message: Message, *fields: str) -> dict[str, Any]:
    """Those of the optional fields that are there."""
    return {field: getattr(message, field) for field in fields if message.HasField(field)}


def times(message: Message, fields: Mapping[str, str], within: str) -> dict[str, int]:
    """Timestamps that are there, by the names given for them."""
    found = {name: check.time_us(message, field, within) for field, name in fields.items()}
    return {name: value for name, value in found.items() if value is not None}


def point(place: common_pb2.LatLng) -> list[float]:
    """[latitude, longitude] in degrees."""
    return [place.latitude_deg, place.longitude_deg]


def _words(enum: Any, numbers: Iterable[int], field: str) -> list[str]:
    words = [check.word(enum, number) for number in numbers]
    if "" in words:
        raise InvalidArgument("must name a value", field=f"{field}[{words.index('')}]", value=0)
    return words


# ---------------------------------------------------------------- shipments


def shipment(message: shipment_pb2.Shipment) -> dict[str, Any]:
    """What a caller says of a shipment; output-only fields are not read."""
    at = "shipment."
    data: dict[str, Any] = {
        "shipment_id": message.shipment_id,
        "reference": message.reference,
        "description": message.description,
        "profile_id": message.profile_id,
        "profile_version": message.profile_version,
        "stops": [_stop(stop, f"{at}stops[{k}].") for k, stop in enumerate(message.stops)],
        "handling_units": [_unit(unit, f"{at}handling_units[{k}].") for k, unit in enumerate(message.handling_units)],
        "geofences": geofences(message.geofences, at),
        "container_number": message.container_number,
        "labels": dict(message.labels),
        "lateness_tolerance_us": duration_us(message, "lateness_tolerance_s", at),
        "etag": message.etag,
    }
    if message.HasField("route"):
        hold_us = duration_us(message.route, "hold_s", at + "route.")
        points = [point(one) for one in message.route.points]
        data["route"] = {"points": points, "tolerance_m": message.route.tolerance_m, "hold_us": hold_us}
    return data


def _stop(stop: shipment_pb2.Stop, at: str) -> dict[str, Any]:
    data: dict[str, Any] = {name: getattr(stop, name) for name in ("stop_id", "name", "locode", "gln", "warehouse_id")}
    if stop.HasField("location"):
        data["latitude_deg"], data["longitude_deg"] = point(stop.location)
    named = {"planned_arrival_time": "planned_arrival_us", "planned_departure_time": "planned_departure_us"}
    return data | optional(stop, "radius_m") | times(stop, named, at)


def _unit(unit: shipment_pb2.HandlingUnit, at: str) -> dict[str, Any]:
    lots = [
        {"item_id": lot.item_id, "lot_number": lot.lot_number, "quantity": lot.quantity, "unit": lot.unit}
        | times(lot, {"expiry_time": "expiry_us"}, f"{at}lots[{k}].")
        for k, lot in enumerate(unit.lots)
    ]
    return {"handling_unit_id": unit.handling_unit_id, "sscc": unit.sscc, "kind": unit.kind, "lots": lots}


def geofences(fences: Iterable[common_pb2.Geofence], at: str) -> list[dict[str, Any]]:
    """Fences with their geometry by kind."""
    return [_geofence(fence, f"{at}geofences[{k}].") for k, fence in enumerate(fences)]


def _geofence(fence: common_pb2.Geofence, at: str) -> dict[str, Any]:
    kind = fence.WhichOneof("shape") or ""
    geometry: dict[str, Any] = {}
    if kind == "circle":
        geometry = {"radius_m": fence.circle.radius_m}
        if fence.circle.HasField("center"):
            geometry["center"] = point(fence.circle.center)
    elif kind == "polygon":
        rings = [fence.polygon.outer, *fence.polygon.holes]
        geometry = {"rings": [[point(one) for one in ring.points] for ring in rings]}
    elif kind == "corridor":
        geometry = {"points": [point(one) for one in fence.corridor.points], "half_width_m": fence.corridor.half_width_m}
    return {
        "fence_id": fence.fence_id,
        "name": fence.name,
        "kind": kind,
        "geometry": geometry,
        "dwell_us": duration_us(fence, "dwell_s", at),
        "alert_on": _words(common_pb2.FenceEvent, fence.alert_on, at + "alert_on"),
    } | optional(fence, "confirm")


def milestone(message: shipment_pb2.Milestone) -> dict[str, Any]:
    """Something that happened, as a caller says it."""
    kind = check.word(shipment_pb2.MilestoneKind, message.kind)
    data = {"kind": kind, "stop_id": message.stop_id, "note": message.note, "actor": message.actor}
    return data | times(message, {"time": "at_us"}, "milestone.")


# ---------------------------------------------------------------- warehouses, items


def warehouse(message: warehouse_pb2.Warehouse) -> dict[str, Any]:
    """What a caller says of a warehouse."""
    data: dict[str, Any] = {name: getattr(message, name) for name in ("warehouse_id", "name", "gln", "locode", "etag")}
    data["labels"] = dict(message.labels)
    data["zones"] = [zone(one, f"warehouse.zones[{k}].") for k, one in enumerate(message.zones)]
    data["allow_negative_stock"] = message.allow_negative_stock
    if message.HasField("location"):
        data["latitude_deg"], data["longitude_deg"] = point(message.location)
    return data


def zone(message: warehouse_pb2.Zone, at: str = "zone.") -> dict[str, Any]:
    """What a caller says of a zone."""
    names = ("warehouse_id", "zone_id", "name", "profile_id", "profile_version", "etag")
    data: dict[str, Any] = {name: getattr(message, name) for name in names}
    return data | {"labels": dict(message.labels), "geofences": geofences(message.geofences, at)}


def item(message: item_pb2.Item) -> dict[str, Any]:
    """What a caller says of an item."""
    data: dict[str, Any] = {name: getattr(message, name) for name in ("item_id", "gtin", "sku", "name", "unit", "profile_id", "etag")}
    data["labels"] = dict(message.labels)
    data["units"] = [{"unit": one.unit, "factor": one.factor} for one in message.units]
    data["stability_budget"] = [_band(band, f"item.stability_budget[{k}].") for k, band in enumerate(message.stability_budget)]
    return data


def _band(band: item_pb2.StabilityBand, at: str) -> dict[str, Any]:
    if not 0 <= band.allowance_s <= LONGEST_S:
        raise InvalidArgument("must be 0 or more seconds", field=at + "allowance_s", value=band.allowance_s)
    metric = check.word(common_pb2.Metric, band.metric).lower()
    return {"metric": metric, "allowance_us": round(band.allowance_s * SECOND_US)} | optional(band, "low", "high")


# ---------------------------------------------------------------- profiles


def profile(message: profile_pb2.Profile) -> dict[str, Any]:
    """What a caller says of a profile."""
    at = "profile."
    data: dict[str, Any] = {name: getattr(message, name) for name in ("profile_id", "name", "description", "source", "edition", "etag")}
    data["limits"] = [_limit(limit, f"{at}limits[{k}].") for k, limit in enumerate(message.limits)]
    data["max_gap_us"] = duration_us(message, "max_gap_s", at)
    data["ignore_us"] = duration_us(message, "ignore_s", at)
    data["hold_on_excursion"] = message.hold_on_excursion
    window_us = duration_us(message, "mkt_window_s", at)
    if window_us is not None:
        weights = check.word(profile_pb2.MktMethod, message.mkt_method).lower()
        data["mkt"] = {"window_us": window_us, "weights": weights, "usable": message.mkt_allowed}
    return data


def _limit(limit: profile_pb2.Limit, at: str) -> dict[str, Any]:
    data: dict[str, Any] = {name: getattr(limit, name) for name in ("limit_id", "name", "inclusive", "threshold")}
    data["metric"] = check.word(common_pb2.Metric, limit.metric).lower()
    data["direction"] = check.word(profile_pb2.Direction, limit.direction).lower()
    data["mode"] = check.word(profile_pb2.LimitMode, limit.mode).lower()
    data["severity"] = check.word(common_pb2.Severity, limit.severity)
    data["stages"] = _words(common_pb2.Stage, limit.stages, at + "stages")
    for field in ("allowance_s", "beyond_allowance_s", "window_s"):
        data[field.removesuffix("_s") + "_us"] = duration_us(limit, field, at)
    return data | optional(limit, "clear", "beyond")


def basis(request: profile_pb2.CreateProfileRequest) -> dict[str, Any] | None:
    """From which profile a new one starts; None where from none."""
    if not request.HasField("based_on"):
        return None
    given = request.based_on
    allowance_us = duration_us(given, "allowance_s", "based_on.")
    return {"profile_id": given.profile_id, "version": given.version, "allowance_us": allowance_us}
