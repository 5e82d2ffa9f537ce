"""Every call that takes an etag refuses one that is not the current one, and every call that gives a tag a custody one that overlaps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import pytest

from tests.services.clients import DEADLINE_S, HOUR_S, Clients, Refusal, at, refused
from waybill.v1 import alert_pb2, common_pb2, item_pb2, profile_pb2, shipment_pb2, tag_pb2, warehouse_pb2

if TYPE_CHECKING:
    from cluster.boot import Running

pytestmark = pytest.mark.parametrize("waybill", ["sqlite"], indirect=True)

STALE = "99"
HOT = profile_pb2.Limit(
    limit_id="hot", metric=common_pb2.METRIC_TEMPERATURE_C, direction=profile_pb2.DIRECTION_ABOVE, mode=profile_pb2.LIMIT_MODE_SINGLE,
    threshold=8.0, allowance_s=0.0, severity=common_pb2.SEVERITY_CRITICAL,
)  # fmt: skip


class World(NamedTuple):
    """One of everything that has an etag."""

    door: Clients
    alert_id: str
    custody_id: int


@pytest.fixture(scope="module")
def world(waybill: Running) -> Iterator[World]:
    door = Clients(waybill.target)
    profile = profile_pb2.Profile(profile_id="stale", name="stale", limits=[HOT])
    door.profiles.CreateProfile(profile_pb2.CreateProfileRequest(profile=profile), timeout=DEADLINE_S)
    door.items.CreateItem(item_pb2.CreateItemRequest(item=item_pb2.Item(item_id="stale")), timeout=DEADLINE_S)
    house = warehouse_pb2.Warehouse(warehouse_id="stale", zones=[warehouse_pb2.Zone(zone_id="z")])
    door.warehouses.CreateWarehouse(warehouse_pb2.CreateWarehouseRequest(warehouse=house), timeout=DEADLINE_S)
    for shipment_id in ("stale", "stale-2"):
        body = shipment_pb2.Shipment(shipment_id=shipment_id, profile_id="stale")
        door.shipments.CreateShipment(shipment_pb2.CreateShipmentRequest(shipment=body), timeout=DEADLINE_S)
    custody = assign(door, "stale", at(0), at(HOUR_S))
    assign(door, "stale-2", at(HOUR_S), at(2 * HOUR_S))
    door.send("stale", [(600, 9.0)])
    found = door.alerts.ListAlerts(alert_pb2.ListAlertsRequest(filter=alert_pb2.AlertFilter(shipment_id="stale")), timeout=DEADLINE_S)
    yield World(door, found.alerts[0].alert_id, custody.custody_id)
    door.close()


def assign(door: Clients, shipment_id: str, from_time: Any, until_time: Any) -> tag_pb2.Custody:
    request = shipment_pb2.AssignTagRequest(shipment_id=shipment_id, tag_id="stale", from_time=from_time, until_time=until_time, actor="a")
    return door.shipments.AssignTag(request, timeout=DEADLINE_S).custody


def correction(world: World, **given: Any) -> tag_pb2.CorrectCustodyRequest:
    return tag_pb2.CorrectCustodyRequest(
        custody=tag_pb2.Custody(tag_id="stale", custody_id=world.custody_id, **given), actor="a", reason="r"
    )


def shipment(world: World) -> tuple[Any, Any]:
    body = shipment_pb2.Shipment(shipment_id="stale", reference="r", etag=STALE)
    return world.door.shipments.UpdateShipment, shipment_pb2.UpdateShipmentRequest(shipment=body)


def cancel(world: World) -> tuple[Any, Any]:
    request = shipment_pb2.CancelShipmentRequest(shipment_id="stale", etag=STALE, actor="a", reason="r")
    return world.door.shipments.CancelShipment, request


def warehouse(world: World) -> tuple[Any, Any]:
    body = warehouse_pb2.Warehouse(warehouse_id="stale", name="n", etag=STALE)
    return world.door.warehouses.UpdateWarehouse, warehouse_pb2.UpdateWarehouseRequest(warehouse=body)


def zone(world: World) -> tuple[Any, Any]:
    body = warehouse_pb2.Zone(warehouse_id="stale", zone_id="z", name="n", etag=STALE)
    return world.door.warehouses.UpdateZone, warehouse_pb2.UpdateZoneRequest(zone=body)


def item(world: World) -> tuple[Any, Any]:
    return world.door.items.UpdateItem, item_pb2.UpdateItemRequest(item=item_pb2.Item(item_id="stale", name="n", etag=STALE))


def profile(world: World) -> tuple[Any, Any]:
    body = profile_pb2.Profile(profile_id="stale", name="n", limits=[HOT], etag=STALE)
    return world.door.profiles.UpdateProfile, profile_pb2.UpdateProfileRequest(profile=body)


def tag(world: World) -> tuple[Any, Any]:
    return world.door.tags.UpdateTag, tag_pb2.UpdateTagRequest(tag=tag_pb2.Tag(tag_id="stale", description="d", etag=STALE))


def custody(world: World) -> tuple[Any, Any]:
    return world.door.tags.CorrectCustody, correction(world, etag=STALE, until_time=at(1800))


def acknowledge(world: World) -> tuple[Any, Any]:
    return world.door.alerts.AcknowledgeAlert, alert_pb2.AcknowledgeAlertRequest(alert_id=world.alert_id, etag=STALE, actor="a")


def give(world: World) -> tuple[Any, Any]:
    return world.door.alerts.AssignAlert, alert_pb2.AssignAlertRequest(alert_id=world.alert_id, etag=STALE, actor="a", assignee="b")


def comment(world: World) -> tuple[Any, Any]:
    return world.door.alerts.CommentAlert, alert_pb2.CommentAlertRequest(alert_id=world.alert_id, etag=STALE, actor="a", comment="c")


def resolve(world: World) -> tuple[Any, Any]:
    return world.door.alerts.ResolveAlert, alert_pb2.ResolveAlertRequest(alert_id=world.alert_id, etag=STALE, actor="a", reason="r")


Asked = Callable[[World], tuple[Any, Any]]
WITH_ETAG: list[tuple[Asked, str]] = [
    (shipment, "shipment.etag"), (cancel, "etag"), (warehouse, "warehouse.etag"), (zone, "zone.etag"), (item, "item.etag"),
    (profile, "profile.etag"), (tag, "tag.etag"), (custody, "custody.etag"), (acknowledge, "etag"), (give, "etag"), (comment, "etag"),
    (resolve, "etag"),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "field"), WITH_ETAG, ids=[one.__name__ for one, _ in WITH_ETAG])
def test_a_stale_etag_is_refused_by_name(world: World, asked: Asked, field: str) -> None:
    assert refused(*asked(world)) == Refusal(grpc.StatusCode.ABORTED, "STALE_ETAG", field)


def overlapping_assignment(world: World) -> tuple[Any, Any]:
    request = shipment_pb2.AssignTagRequest(shipment_id="stale-2", tag_id="stale", from_time=at(60), until_time=at(120), actor="a")
    return world.door.shipments.AssignTag, request


def overlapping_zone(world: World) -> tuple[Any, Any]:
    request = warehouse_pb2.AssignZoneTagRequest(warehouse_id="stale", zone_id="z", tag_id="stale", from_time=at(60), actor="a")
    return world.door.warehouses.AssignZoneTag, request


def overlapping_correction(world: World) -> tuple[Any, Any]:
    return world.door.tags.CorrectCustody, correction(world, etag="1", until_time=at(HOUR_S + 1))


OVERLAPPING: list[tuple[Asked, str]] = [
    (overlapping_assignment, "from_time"), (overlapping_zone, "from_time"), (overlapping_correction, "custody.from_time"),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "field"), OVERLAPPING, ids=[one.__name__ for one, _ in OVERLAPPING])
def test_a_custody_that_overlaps_another_is_refused(world: World, asked: Asked, field: str) -> None:
    assert refused(*asked(world)) == Refusal(grpc.StatusCode.FAILED_PRECONDITION, "CUSTODY_OVERLAP", field)
