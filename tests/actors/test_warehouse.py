"""What a warehouse decides: its zones, each a carrier with a profile and a plan of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from actors.rules.errors import AlreadyExists, InvalidArgument, NotFound, StaleEtag
from tests.actors.business import HOUR_US, START_US, World, world_on


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with world_on(database_url) as world:
        zones = [{"zone_id": "frozen", "profile_id": "freezer"}, {"zone_id": "cold", "profile_id": "usp-cold"}]
        body = {"warehouse_id": "W1", "name": "Basel", "gln": "4012345000009", "latitude_deg": 47.5, "longitude_deg": 7.6, "zones": zones}
        world.do("warehouse.create", warehouse=body)
        yield world


def test_each_zone_is_a_carrier_whose_goods_are_stored(world: World) -> None:
    plan = world.plan("zone/W1/cold")
    assert plan.stages == ((0, "STORED"),)
    assert [one.profile_id for one in plan.profiles] == ["usp-cold"]
    assert world.plan("zone/W1/frozen").profiles[0].profile_id == "freezer"
    assert world.events() == ["warehouse.created", "zone.created", "zone.created"]


def test_zone_is_added_once(world: World) -> None:
    fence = {"fence_id": "yard", "kind": "circle", "geometry": {"center": [47.5, 7.6], "radius_m": 50.0}}
    answer = world.do("warehouse.create_zone", zone={"warehouse_id": "W1", "zone_id": "dry", "geofences": [fence]})
    assert answer["zone"]["profile_id"] is None
    assert [one.fence_id for one in world.plan("zone/W1/dry").fences] == ["yard"]
    with pytest.raises(AlreadyExists):
        world.do("warehouse.create_zone", zone={"warehouse_id": "W1", "zone_id": "dry"})


def test_zones_profile_changes_from_a_stated_time(world: World) -> None:
    change = {"warehouse_id": "W1", "zone_id": "cold", "profile_id": "usp-crt", "etag": "1"}
    world.do("warehouse.update_zone", zone=change, effective_us=START_US - HOUR_US)
    plan = world.plan("zone/W1/cold")
    assert [(one.from_us, one.profile_id) for one in plan.profiles] == [(0, "usp-cold"), (START_US - HOUR_US, "usp-crt")]
    with pytest.raises(StaleEtag):
        world.do("warehouse.update_zone", zone=change)


def test_zone_may_go_without_a_profile_and_nothing_is_judged_from_then_on(world: World) -> None:
    change = {"warehouse_id": "W1", "zone_id": "cold", "profile_id": "", "etag": "1"}
    answer = world.do("warehouse.update_zone", zone=change, update_mask=["profile_id"], effective_us=START_US)
    assert answer["zone"]["profile_id"] is None
    assert {windows[-1].until_us for windows in world.plan("zone/W1/cold").limits.values()} == {START_US}
    again = {"warehouse_id": "W1", "zone_id": "cold", "profile_id": "usp-crt", "etag": "2"}
    world.do("warehouse.update_zone", zone=again, effective_us=START_US + 60_000_000)
    assert [one.profile_id for one in world.plan("zone/W1/cold").profiles] == ["usp-cold", "", "usp-crt"]


def test_update_keeps_what_the_mask_leaves_out(world: World) -> None:
    answer = world.do("warehouse.update", warehouse={"warehouse_id": "W1", "name": "Basel 2", "etag": "1"}, update_mask=["name"])
    row = answer["warehouse"]
    assert (row["name"], row["gln"], row["latitude_deg"], row["etag"]) == ("Basel 2", "4012345000009", 47.5, 2)
    cleared = {"warehouse_id": "W1", "etag": "2"}
    assert world.do("warehouse.update", warehouse=cleared, update_mask=["location"])["warehouse"]["latitude_deg"] is None


@pytest.mark.parametrize(
    ("command", "arguments", "error", "field"),
    [
        ("warehouse.create", {}, InvalidArgument, "warehouse"),
        ("warehouse.create", {"warehouse": {"warehouse_id": "a b"}}, InvalidArgument, "warehouse.warehouse_id"),
        ("warehouse.create", {"warehouse": {"warehouse_id": "W1"}}, AlreadyExists, "warehouse.warehouse_id"),
        ("warehouse.create", {"warehouse": {"warehouse_id": "W2", "gln": "1"}}, InvalidArgument, "warehouse.gln"),
        (
            "warehouse.create",
            {"warehouse": {"warehouse_id": "W2", "zones": [{"zone_id": "a"}, {"zone_id": "a"}]}},
            InvalidArgument,
            "warehouse.zones[1].zone_id",
        ),
        (
            "warehouse.create",
            {"warehouse": {"warehouse_id": "W2", "zones": [{"zone_id": "a", "profile_id": "none"}]}},
            NotFound,
            "warehouse.zones[0].profile_id",
        ),
        ("warehouse.update", {"warehouse": {"warehouse_id": "W9", "etag": "1"}}, NotFound, "warehouse.warehouse_id"),
        ("warehouse.update", {"warehouse": {"warehouse_id": "W1"}}, InvalidArgument, "warehouse.etag"),
        ("warehouse.create_zone", {"zone": {"warehouse_id": "W9", "zone_id": "a"}}, NotFound, "zone.warehouse_id"),
        ("warehouse.update_zone", {"zone": {"warehouse_id": "W1", "zone_id": "none"}}, NotFound, "zone.zone_id"),
    ],
)
def test_wrong_request_names_its_field(world: World, command: str, arguments: dict[str, Any], error: type[Exception], field: str) -> None:
    with pytest.raises(error) as refused:
        world.do(command, **arguments)
    assert refused.value.field == field
