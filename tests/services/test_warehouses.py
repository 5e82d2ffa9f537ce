"""WarehouseService through a running Waybill."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.services.clients import HOUR_S, Clients, at, place, refused
from waybill.v1 import common_pb2, warehouse_pb2

if TYPE_CHECKING:
    from cluster.boot import Running

INVALID, NOT_FOUND, EXISTS = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS


@pytest.fixture(scope="module")
def door(waybill: Running) -> Iterator[Clients]:
    clients = Clients(waybill.target)
    zones = [warehouse_pb2.Zone(zone_id="cold", profile_id="who-refrigerator"), warehouse_pb2.Zone(zone_id="dry")]
    body = warehouse_pb2.Warehouse(warehouse_id="W1", name="Basel", gln="4012345000009", location=place(47.5, 7.6), zones=zones)
    clients.warehouses.CreateWarehouse(warehouse_pb2.CreateWarehouseRequest(warehouse=body, request_id="w1"))
    yield clients
    clients.close()


def test_warehouse_comes_back_with_its_zones(door: Clients) -> None:
    row = door.warehouses.GetWarehouse(warehouse_pb2.GetWarehouseRequest(warehouse_id="W1")).warehouse
    assert [(zone.zone_id, zone.profile_id) for zone in row.zones] == [("cold", "who-refrigerator"), ("dry", "")]
    assert (row.gln, row.location.latitude_deg) == ("4012345000009", 47.5)
    listed = door.warehouses.ListWarehouses(warehouse_pb2.ListWarehousesRequest()).warehouses
    assert row in listed


def test_zones_tag_is_judged_by_the_zones_profile(door: Clients) -> None:
    tag = {"warehouse_id": "W1", "zone_id": "cold", "tag_id": "zone-tag"}
    door.warehouses.AssignZoneTag(warehouse_pb2.AssignZoneTagRequest(**tag, from_time=at(0), actor="ann"))
    door.send("zone-tag", [(k * 600, 9.5) for k in range(6 * 12)])
    asked = warehouse_pb2.GetZoneExposureRequest(warehouse_id="W1", zone_id="cold")
    exposure = door.warehouses.GetZoneExposure(asked).exposure
    assert (exposure.carrier, exposure.verdict) == ("zone/W1/cold", common_pb2.VERDICT_EXCURSION)
    listed = door.warehouses.ListZoneExcursions(warehouse_pb2.ListZoneExcursionsRequest(warehouse_id="W1", zone_id="cold"))
    (excursion,) = listed.excursions
    assert (excursion.limit_id, excursion.started_time, excursion.triggered_time) == ("warm-8", at(0), at(10 * HOUR_S))
    ended = door.warehouses.ReleaseZoneTag(warehouse_pb2.ReleaseZoneTagRequest(**tag, until_time=at(12 * HOUR_S), actor="bob")).custody
    assert (ended.until_time, ended.actor) == (at(12 * HOUR_S), "bob")
    assert door.warehouses.GetZoneExposure(asked).exposure.closed


def test_zone_is_added_and_changed(door: Clients) -> None:
    made = door.warehouses.CreateZone(warehouse_pb2.CreateZoneRequest(zone=warehouse_pb2.Zone(warehouse_id="W1", zone_id="new"))).zone
    assert (made.etag, made.profile_id) == ("1", "")
    change = warehouse_pb2.UpdateZoneRequest(zone=warehouse_pb2.Zone(warehouse_id="W1", zone_id="new", profile_id="usp-crt", etag="1"))
    assert door.warehouses.UpdateZone(change).zone.profile_id == "usp-crt"
    assert refused(door.warehouses.UpdateZone, change).reason == "STALE_ETAG"


def test_warehouse_is_changed_by_mask(door: Clients) -> None:
    change = warehouse_pb2.UpdateWarehouseRequest(warehouse=warehouse_pb2.Warehouse(warehouse_id="W1", etag="1"))
    change.update_mask.paths.append("location")
    changed = door.warehouses.UpdateWarehouse(change).warehouse
    assert (changed.HasField("location"), changed.name, changed.etag) == (False, "Basel", "2")


def create(**fields: Any) -> warehouse_pb2.CreateWarehouseRequest:
    return warehouse_pb2.CreateWarehouseRequest(warehouse=warehouse_pb2.Warehouse(**({"warehouse_id": "bad"} | fields)))


def new_zone(warehouse_id: str, zone_id: str) -> warehouse_pb2.CreateZoneRequest:
    return warehouse_pb2.CreateZoneRequest(zone=warehouse_pb2.Zone(warehouse_id=warehouse_id, zone_id=zone_id))


@pytest.mark.parametrize(
    ("method", "request_", "code", "field"),
    [
        ("CreateWarehouse", warehouse_pb2.CreateWarehouseRequest(), INVALID, "warehouse"),
        ("CreateWarehouse", create(warehouse_id="W1"), EXISTS, "warehouse.warehouse_id"),
        ("CreateWarehouse", create(gln="4012345000001"), INVALID, "warehouse.gln"),
        ("CreateWarehouse", create(locode="XX"), INVALID, "warehouse.locode"),
        ("CreateWarehouse", create(location=place(91.0, 0.0)), INVALID, "warehouse.location.latitude_deg"),
        ("CreateWarehouse", create(zones=[warehouse_pb2.Zone(zone_id="z", profile_id="none")]), NOT_FOUND, "warehouse.zones[0].profile_id"),
        (
            "CreateZone",
            new_zone("none", "z"),
            NOT_FOUND,
            "zone.warehouse_id",
        ),
        ("CreateZone", new_zone("W1", "cold"), EXISTS, "zone.zone_id"),
        ("GetWarehouse", warehouse_pb2.GetWarehouseRequest(warehouse_id="none"), NOT_FOUND, "warehouse_id"),
        ("GetZoneExposure", warehouse_pb2.GetZoneExposureRequest(warehouse_id="W1", zone_id="none"), NOT_FOUND, "zone_id"),
        ("ListZoneExcursions", warehouse_pb2.ListZoneExcursionsRequest(warehouse_id="none"), NOT_FOUND, "warehouse_id"),
        ("AssignZoneTag", warehouse_pb2.AssignZoneTagRequest(warehouse_id="W1", zone_id="cold"), INVALID, "tag_id"),
        ("ReleaseZoneTag", warehouse_pb2.ReleaseZoneTagRequest(warehouse_id="W1", zone_id="cold", tag_id="never"), NOT_FOUND, "tag_id"),
        ("ListWarehouses", warehouse_pb2.ListWarehousesRequest(page_token="?"), INVALID, "page_token"),
    ],
)
def test_refusal_names_the_field(door: Clients, method: str, request_: Any, code: grpc.StatusCode, field: str) -> None:
    refusal = refused(getattr(door.warehouses, method), request_)
    assert (refusal.code, refusal.field) == (code, field)
