"""Stored records, and the plain data that commands answer with, as messages of the contract."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from actors.journal import tables
from actors.journal.queries_business import ShipmentRecord
from actors.rules.profiles import Limit, Profile
from services import check
from waybill.v1 import common_pb2, exposure_pb2, item_pb2, profile_pb2, shipment_pb2, warehouse_pb2

SECOND_US = 1_000_000
CIRCLE, POLYGON, CORRIDOR = "circle", "polygon", "corridor"
VISIT_KINDS = {"PASSED": "PASSED_THROUGH"}
"""The journal's word for a kind of visit: the contract's, where they differ."""


def seconds(us: int | None) -> float | None:
    """A duration in seconds; None stays None."""
    return None if us is None else us / SECOND_US


def place(latitude_deg: float | None, longitude_deg: float | None) -> common_pb2.LatLng | None:
    """A point; None where there is none."""
    if latitude_deg is None or longitude_deg is None:
        return None
    return common_pb2.LatLng(latitude_deg=latitude_deg, longitude_deg=longitude_deg)


def _line(points: Iterable[Sequence[float]]) -> list[common_pb2.LatLng]:
    return [common_pb2.LatLng(latitude_deg=latitude, longitude_deg=longitude) for latitude, longitude in points]


# ---------------------------------------------------------------- shipments


def shipment(record: ShipmentRecord, visited: Mapping[str, int] | None = None) -> shipment_pb2.Shipment:
    """A shipment. `visited`: first visits by fence id, for stops whose arrival nobody told."""
    row = record.shipment
    own = row.attributes
    message = shipment_pb2.Shipment(
        shipment_id=row.shipment_id,
        reference=row.reference,
        description=row.description,
        state=check.number(shipment_pb2.ShipmentState, row.state),
        stage=check.number(common_pb2.Stage, row.stage),
        profile_id=row.profile_id or "",
        profile_version=_pinned(own),
        stops=[stop(one, visited or {}) for one in record.stops],
        handling_units=[_unit(one) for one in own.get("handling_units", [])],
        geofences=[geofence(one) for one in row.fences],
        container_number=own.get("container_number") or "",
        labels=own.get("labels", {}),
        departed_time=check.timestamp(row.departed_us),
        delivered_time=check.timestamp(row.closed_us if row.state == "DELIVERED" else None),
        cancelled_time=check.timestamp(row.closed_us if row.state == "CANCELLED" else None),
        created_time=check.timestamp(row.created_us),
        updated_time=check.timestamp(row.updated_us),
        etag=str(row.etag),
        lateness_tolerance_s=seconds(row.lateness_tolerance_us) or None,
    )
    if row.route is not None:
        route = shipment_pb2.PlannedRoute(
            points=_line(row.route["points"]), tolerance_m=row.route["tolerance_m"], hold_s=seconds(row.route["hold_us"])
        )
        message.route.CopyFrom(route)
    return message


def _pinned(attributes: Mapping[str, Any]) -> int:
    """The version that is kept; 0 where the profile is followed."""
    assignments = attributes.get("profiles", [])
    return int(assignments[-1][2]) if assignments else 0


def stop(row: tables.Stop, visited: Mapping[str, int]) -> shipment_pb2.Stop:
    """A planned stop."""
    return shipment_pb2.Stop(
        stop_id=row.stop_id,
        name=row.name,
        locode=row.locode or "",
        gln=row.gln or "",
        warehouse_id=row.warehouse_id or "",
        location=place(row.latitude_deg, row.longitude_deg),
        radius_m=row.radius_m,
        planned_arrival_time=check.timestamp(row.planned_arrival_us),
        planned_departure_time=check.timestamp(row.planned_departure_us),
        arrived_time=check.timestamp(row.arrived_us or visited.get(row.fence_id or "")),
        departed_time=check.timestamp(row.departed_us),
    )


def _unit(unit: Mapping[str, Any]) -> shipment_pb2.HandlingUnit:
    lots = [
        shipment_pb2.LotQuantity(
            item_id=lot["item_id"],
            lot_number=lot["lot_number"],
            quantity=lot["quantity"],
            unit=lot["unit"],
            expiry_time=check.timestamp(lot["expiry_us"]),
        )
        for lot in unit["lots"]
    ]
    identity = unit["handling_unit_id"]
    return shipment_pb2.HandlingUnit(handling_unit_id=identity, sscc=unit["sscc"] or "", kind=unit["kind"], lots=lots)


def geofence(fence: Mapping[str, Any]) -> common_pb2.Geofence:
    """A fence of a carrier's own."""
    geometry = fence["geometry"]
    message = common_pb2.Geofence(
        fence_id=fence["fence_id"],
        name=fence["name"],
        confirm=fence["confirm"],
        dwell_s=seconds(fence["dwell_us"]),
        alert_on=[check.number(common_pb2.FenceEvent, event) for event in fence["alert_on"]],
    )
    if fence["kind"] == CIRCLE:
        center = place(*geometry["center"])
        message.circle.CopyFrom(common_pb2.CircleShape(center=center, radius_m=geometry["radius_m"]))
    elif fence["kind"] == CORRIDOR:
        message.corridor.CopyFrom(common_pb2.CorridorShape(points=_line(geometry["points"]), half_width_m=geometry["half_width_m"]))
    else:
        rings = [common_pb2.LinearRing(points=_line(ring)) for ring in geometry["rings"]]
        message.polygon.CopyFrom(common_pb2.PolygonShape(outer=rings[0], holes=rings[1:]))
    return message


def milestone(row: tables.Milestone, stops: Sequence[tables.Stop]) -> shipment_pb2.Milestone:
    """Something that happened."""
    stop_id = next((one.stop_id for one in stops if one.ordinal == row.stop_ordinal), "")
    return shipment_pb2.Milestone(
        kind=check.number(shipment_pb2.MilestoneKind, row.kind),
        stop_id=stop_id,
        time=check.timestamp(row.at_us),
        note=row.note,
        actor=row.recorded_by,
        recorded_time=check.timestamp(row.recorded_us),
        ordinal=row.ordinal,
    )


# ---------------------------------------------------------------- warehouses, items


def warehouse(row: tables.Warehouse, zones: Iterable[tables.Zone]) -> warehouse_pb2.Warehouse:
    """A warehouse with its zones."""
    return warehouse_pb2.Warehouse(
        warehouse_id=row.warehouse_id,
        name=row.name,
        gln=row.gln or "",
        locode=row.locode or "",
        location=place(row.latitude_deg, row.longitude_deg),
        labels=row.attributes.get("labels", {}),
        zones=[zone(one) for one in zones],
        allow_negative_stock=bool(row.attributes.get("allow_negative_stock")),
        created_time=check.timestamp(row.created_us),
        updated_time=check.timestamp(row.updated_us),
        etag=str(row.etag),
    )


def zone(row: tables.Zone) -> warehouse_pb2.Zone:
    """A zone."""
    return warehouse_pb2.Zone(
        warehouse_id=row.warehouse_id,
        zone_id=row.zone_id,
        name=row.name,
        profile_id=row.profile_id or "",
        profile_version=_pinned(row.attributes),
        labels=row.attributes.get("labels", {}),
        geofences=[geofence(one) for one in row.fences],
        created_time=check.timestamp(row.created_us),
        updated_time=check.timestamp(row.updated_us),
        etag=str(row.etag),
    )


def item(row: tables.Item) -> item_pb2.Item:
    """An item."""
    bands = [
        item_pb2.StabilityBand(
            metric=check.number(common_pb2.Metric, band["metric"]),
            low=band["low"],
            high=band["high"],
            allowance_s=band["allowance_us"] / SECOND_US,
        )
        for band in row.stability_budget
    ]
    return item_pb2.Item(
        item_id=row.item_id,
        gtin=row.gtin or "",
        sku=row.sku or "",
        name=row.name,
        unit=row.unit,
        profile_id=row.profile_id or "",
        stability_budget=bands,
        labels=row.attributes.get("labels", {}),
        units=[item_pb2.ItemUnit(**unit) for unit in row.attributes.get("units", [])],
        created_time=check.timestamp(row.created_us),
        updated_time=check.timestamp(row.updated_us),
        etag=str(row.etag),
    )


# ---------------------------------------------------------------- profiles


def profile(row: tables.Profile) -> profile_pb2.Profile:
    """One version of a profile."""
    body = Profile.from_data(row.body)
    own = row.attributes
    mkt = body.mkt
    return profile_pb2.Profile(
        profile_id=row.profile_id,
        version=row.version,
        name=row.name,
        description=own.get("description", ""),
        source=body.source,
        edition=body.edition,
        limits=[limit(one) for one in body.limits],
        max_gap_s=seconds(body.max_gap_us),
        ignore_s=seconds(body.ignore_us),
        mkt_allowed=mkt is not None and mkt.usable,
        mkt_method=check.number(profile_pb2.MktMethod, mkt.weights if mkt else ""),
        mkt_window_s=seconds(mkt.window_us) if mkt else None,
        hold_on_excursion=body.hold_on_excursion,
        based_on_profile_id=own.get("based_on_profile_id", ""),
        based_on_version=own.get("based_on_version", 0),
        shipped=bool(own.get("shipped")),
        in_force_from_time=check.timestamp(row.in_force_us if row.version > 1 else None),
        created_time=check.timestamp(row.created_us),
        actor=row.created_by,
        etag=str(row.version),
    )


def limit(one: Limit) -> profile_pb2.Limit:
    """One rule of a profile. Stages that the contract has no word for are left out."""
    stages: list[Any] = [number for stage in one.stages if (number := check.number(common_pb2.Stage, stage))]
    return profile_pb2.Limit(
        limit_id=one.limit_id,
        name=one.name,
        metric=check.number(common_pb2.Metric, one.metric),
        direction=check.number(profile_pb2.Direction, one.direction),
        inclusive=one.inclusive,
        mode=check.number(profile_pb2.LimitMode, one.mode),
        threshold=one.threshold,
        clear=one.clear,
        allowance_s=seconds(one.allowance_us),
        beyond=one.beyond,
        beyond_allowance_s=seconds(one.beyond_allowance_us),
        window_s=seconds(one.window_us),
        stages=stages,
        severity=check.number(common_pb2.Severity, one.severity),
    )


# ---------------------------------------------------------------- what was judged


def excursion(row: Mapping[str, Any], revisions: Iterable[Mapping[str, Any]] = ()) -> exposure_pb2.Excursion:
    """A revision of an excursion, from its row's values (also as its event tells them)."""
    lots = [common_pb2.LotRef(item_id=lot.partition("/")[0], lot_number=lot.partition("/")[2]) for lot in row["lots"]]
    return exposure_pb2.Excursion(
        excursion_id=row["excursion_id"],
        revision=row["revision"],
        state=check.number(exposure_pb2.ExcursionState, row["state"]),
        cause=check.number(exposure_pb2.RevisionCause, row["cause"]),
        carrier=row["carrier"],
        tag_id=row["tag_id"],
        handling_unit_id=row["handling_unit_id"] or "",
        custody_id=row["custody_id"],
        lots=lots,
        profile_id=row["profile_id"],
        profile_version=row["profile_version"],
        limit_id=row["limit_id"],
        metric=check.number(common_pb2.Metric, row["metric"]),
        direction=check.number(profile_pb2.Direction, "above" if row["direction"] > 0 else "below"),
        threshold=row["threshold"],
        mode=check.number(profile_pb2.LimitMode, row["mode"]),
        severity=check.number(common_pb2.Severity, row["severity"]),
        started_time=check.timestamp(row["started_us"]),
        triggered_time=check.timestamp(row["triggered_us"]),
        ended_time=check.timestamp(row["ended_us"]),
        violation_us=row["violation_us"],
        uncovered_us=row["uncovered_us"],
        extreme=row["extreme"],
        extreme_time=check.timestamp(row["extreme_us"]),
        mean=row["mean"],
        readings=row["readings"],
        found_late=row["found_late"],
        recorded_time=check.timestamp(row["recorded_us"]),
        alert_id=row["alert_id"] or "",
        revisions=[excursion(one) for one in revisions],
    )


def visit(row: Mapping[str, Any], stop_ids: Mapping[str, str] | None = None) -> common_pb2.Visit:
    """A visit of a tag, from its row's values. `stop_ids`: the planned stops by their fence's id."""
    fence_id = row["fence_id"] or ""
    return common_pb2.Visit(
        kind=check.number(common_pb2.VisitKind, VISIT_KINDS.get(row["kind"], row["kind"])),
        fence_id=fence_id,
        stop_id=(stop_ids or {}).get(fence_id, ""),
        tag_id=row["tag_id"],
        entered_time=check.timestamp(row["entered_us"]),
        left_time=check.timestamp(row["exited_us"]),
        location=place(row.get("latitude_deg"), row.get("longitude_deg")),
        distance_m=row.get("distance_m"),
    )
