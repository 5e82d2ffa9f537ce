"""What a shipment decides: creation, changes, milestones, cancellation; and the plan that its tags get from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from actors.journal.tables import HandlingUnit, HandlingUnitLot, Mailbox, Shipment
from actors.rules.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, StaleEtag
from actors.rules.plan import CLOSED, OPEN
from tests.actors.business import HOUR_US, SHARDS, START_US, World, world_on

ROTTERDAM = {"stop_id": "rtm", "latitude_deg": 51.95, "longitude_deg": 4.14, "locode": "NLRTM", "gln": "4012345000009"}
BASEL = {"stop_id": "bsl", "latitude_deg": 47.56, "longitude_deg": 7.59, "planned_arrival_us": START_US + 30 * HOUR_US}
SSCC = "106141412345678908"


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with world_on(database_url) as world:
        yield world


def shipment(**fields: Any) -> dict[str, Any]:
    return {"shipment_id": "S1", "profile_id": "who-type-1", "stops": [ROTTERDAM, BASEL], **fields}


def pallet(quantity: str = "12.5", item_id: str = "vaccine", **fields: Any) -> dict[str, Any]:
    lots = [{"item_id": item_id, "lot_number": "L-7", "quantity": quantity, "expiry_us": START_US + 1000 * HOUR_US}]
    return {"sscc": SSCC, "kind": "pallet", "lots": lots, **fields}


def milestone(world: World, kind: str, at_us: int, stop_id: str = "", **fields: Any) -> dict[str, Any]:
    body = {"kind": kind, "at_us": at_us, "stop_id": stop_id, "actor": "dock", **fields}
    return world.do("shipment.milestone", shipment_id="S1", milestone=body)


def test_created_shipment_has_stops_with_fences_and_a_plan_that_holds_over_all_time(world: World) -> None:
    answer = world.do("shipment.create", shipment=shipment(container_number="CSQU3054383", labels={"lane": "north"}))
    assert answer["shipment"]["state"] == "PLANNED"
    assert [stop["stop_id"] for stop in answer["stops"]] == ["rtm", "bsl"]
    plan = world.plan("shipment/S1")
    assert (plan.revision, plan.state) == (1, OPEN)
    assert {limit_id: (windows[0].from_us, len(windows)) for limit_id, windows in plan.limits.items()} == {
        "hot-45": (0, 1),
        "warm-30": (0, 1),
        "freeze": (0, 1),
    }
    assert [(fence.fence_id, fence.geometry["radius_m"]) for fence in plan.fences] == [("stop/rtm", 500.0), ("stop/bsl", 500.0)]
    assert world.events() == ["shipment.created"]


def test_first_plan_is_not_announced_because_no_tag_can_ride_on_it_yet(world: World) -> None:
    world.do("shipment.create", shipment=shipment())
    assert world.rows(Mailbox) == []


def test_request_id_gives_the_first_answer_again_and_refuses_another_request(world: World) -> None:
    first = world.do("shipment.create", shipment=shipment(), request_id="r-1")
    milestone(world, "DEPARTED", START_US)
    assert world.do("shipment.create", shipment=shipment(), request_id="r-1") == first
    with pytest.raises(FailedPrecondition, match="request_id"):
        world.do("shipment.create", shipment=shipment(reference="other"), request_id="r-1")


def test_taken_id_is_refused(world: World) -> None:
    world.do("shipment.create", shipment=shipment(), request_id="r-1")
    with pytest.raises(AlreadyExists, match=r"shipment\.shipment_id"):
        world.do("shipment.create", shipment=shipment(), request_id="r-2")


@pytest.mark.parametrize(
    ("fields", "error", "field"),
    [
        ({"shipment_id": ""}, InvalidArgument, "shipment.shipment_id"),
        ({"shipment_id": "a/b"}, InvalidArgument, "shipment.shipment_id"),
        ({"shipment_id": "x" * 65}, InvalidArgument, "shipment.shipment_id"),
        ({"profile_id": "nobody-knows"}, NotFound, "shipment.profile_id"),
        ({"profile_version": 9}, NotFound, "shipment.profile_version"),
        ({"profile_id": "", "profile_version": 1}, InvalidArgument, "shipment.profile_id"),
        ({"stops": [{**ROTTERDAM, "gln": "4012345000001"}]}, InvalidArgument, "shipment.stops[0].gln"),
        ({"stops": [{**ROTTERDAM, "locode": "NL1TM"}]}, InvalidArgument, "shipment.stops[0].locode"),
        ({"stops": [{**ROTTERDAM, "latitude_deg": 91.0}]}, InvalidArgument, "shipment.stops[0].latitude_deg"),
        ({"stops": [{**ROTTERDAM, "latitude_deg": float("nan")}]}, InvalidArgument, "shipment.stops[0].latitude_deg"),
        ({"stops": [{**ROTTERDAM, "longitude_deg": None}]}, InvalidArgument, "shipment.stops[0].longitude_deg"),
        ({"stops": [{**ROTTERDAM, "radius_m": 0.0}]}, InvalidArgument, "shipment.stops[0].radius_m"),
        ({"stops": [{"stop_id": "a", "radius_m": 5.0}]}, InvalidArgument, "shipment.stops[0].location"),
        ({"stops": [ROTTERDAM, ROTTERDAM]}, InvalidArgument, "shipment.stops[1].stop_id"),
        ({"stops": [{**ROTTERDAM, "warehouse_id": "W9"}]}, NotFound, "shipment.stops[0].warehouse_id"),
        ({"stops": [BASEL, {**ROTTERDAM, "planned_arrival_us": START_US}]}, InvalidArgument, "shipment.stops[1].planned_arrival_us"),
        ({"handling_units": [pallet(sscc="106141412345678900")]}, InvalidArgument, "shipment.handling_units[0].sscc"),
        ({"handling_units": [{"kind": "pallet"}]}, InvalidArgument, "shipment.handling_units[0].handling_unit_id"),
        ({"handling_units": [pallet()]}, NotFound, "shipment.handling_units[0].lots[0].item_id"),
        ({"container_number": "CSQU3054384"}, InvalidArgument, "shipment.container_number"),
        ({"geofences": [{"fence_id": "f", "kind": "square"}]}, InvalidArgument, "shipment.geofences[0].kind"),
        (
            {"geofences": [{"fence_id": "f", "kind": "circle", "geometry": {"center": [0.0, 181.0], "radius_m": 1.0}}]},
            InvalidArgument,
            "shipment.geofences[0].circle.center.longitude_deg",
        ),
        (
            {"geofences": [{"fence_id": "f", "kind": "polygon", "geometry": {"rings": [[[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]]}}]},
            InvalidArgument,
            "shipment.geofences[0].polygon.outer",
        ),
        ({"route": {"points": [[0.0, 0.0]], "tolerance_m": 100.0}}, InvalidArgument, "shipment.route.points"),
        ({"route": {"points": [[0.0, 0.0], [1.0, 1.0]], "tolerance_m": -1.0}}, InvalidArgument, "shipment.route.tolerance_m"),
        ({"labels": {"a": "x" * 65}}, InvalidArgument, "shipment.labels.a"),
    ],
)
def test_wrong_field_is_named_and_nothing_is_kept(sqlite_world: World, fields: dict[str, Any], error: type[Exception], field: str) -> None:
    with pytest.raises(error) as refused:
        sqlite_world.do("shipment.create", shipment=shipment(**fields))
    assert refused.value.field == field
    assert refused.value.rule
    assert sqlite_world.rows(Shipment) == []


@pytest.fixture(scope="module")
def sqlite_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_on(f"sqlite:///{tmp_path_factory.mktemp('world') / 'waybill.db'}") as world:
        world.do("item.create", item={"item_id": "known"})
        yield world


def test_handling_units_bring_their_lots_and_the_items_profile(world: World) -> None:
    world.do("item.create", item={"item_id": "vaccine", "gtin": "4006381333931", "profile_id": "usp-cold", "unit": "EA"})
    answer = world.do("shipment.create", shipment=shipment(profile_id="", handling_units=[pallet()]))
    assert answer["shipment"]["profile_id"] == "usp-cold"
    (unit,) = world.rows(HandlingUnit)
    assert (unit.handling_unit_id, unit.carrier) == (SSCC, "shipment/S1")
    (content,) = world.rows(HandlingUnitLot)
    assert (str(content.quantity.normalize()), content.unit, content.lot_id) == ("12.5", "EA", "vaccine/L-7")
    assert world.plan("shipment/S1").handling_units == (SSCC,)
    with pytest.raises(FailedPrecondition, match="is on shipment/S1"):
        world.do("shipment.create", shipment=shipment(shipment_id="S2", handling_units=[pallet()]))


def test_handling_unit_goes_on_with_the_next_shipment_and_the_first_one_remembers_it(world: World) -> None:
    world.do("item.create", item={"item_id": "vaccine"})
    world.do("shipment.create", shipment=shipment(handling_units=[pallet()]))
    milestone(world, "DELIVERED", START_US)
    world.do("shipment.create", shipment=shipment(shipment_id="S2", handling_units=[pallet("3")]))
    assert [unit.carrier for unit in world.rows(HandlingUnit)] == ["shipment/S2"]
    assert [str(content.quantity.normalize()) for content in world.rows(HandlingUnitLot)] == ["3"]
    (first,) = [row for row in world.rows(Shipment) if row.shipment_id == "S1"]
    assert first.attributes["handling_units"][0]["lots"][0]["quantity"] == "12.5"


@pytest.mark.parametrize("quantity", ["0", "-1", "1e99", "nan", "1.0000001", "1234567890123", "", "a dozen"])
def test_quantity_is_a_decimal_above_zero_that_needs_no_rounding(sqlite_world: World, quantity: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        sqlite_world.do("shipment.create", shipment=shipment(handling_units=[pallet(quantity, item_id="known")]))
    assert refused.value.field == "shipment.handling_units[0].lots[0].quantity"


def test_milestones_move_state_and_stages_and_may_be_told_late(world: World) -> None:
    world.do("shipment.create", shipment=shipment(profile_id="eu-quick-frozen"))
    assert world.plan("shipment/S1").stages == ((0, "IN_TRANSIT"),), "limits for transit hold while nobody tells a stage"
    milestone(world, "DEPARTED", START_US - 2 * HOUR_US)
    answer = milestone(world, "PACKING", START_US - 9 * HOUR_US, note="told afterwards")
    assert answer["shipment"]["state"] == "IN_TRANSIT"
    assert answer["shipment"]["stage"] == "IN_TRANSIT"
    assert answer["milestone"]["recorded_us"] == world.now_us
    assert world.plan("shipment/S1").stages == ((START_US - 9 * HOUR_US, "PACKING"), (START_US - 2 * HOUR_US, "IN_TRANSIT"))
    assert [stop["departed_us"] for stop in answer["stops"]] == [START_US - 2 * HOUR_US, None]


def test_later_milestone_of_one_kind_at_one_stop_corrects_the_earlier_and_both_are_kept(world: World) -> None:
    world.do("shipment.create", shipment=shipment())
    milestone(world, "ARRIVED", START_US - HOUR_US, "bsl")
    answer = milestone(world, "ARRIVED", START_US - 2 * HOUR_US, "bsl")
    assert answer["stops"][1]["arrived_us"] == START_US - 2 * HOUR_US
    assert len(answer["milestones"]) == 2


def test_delivered_shipment_is_judged_until_its_delivery(world: World) -> None:
    world.do("shipment.create", shipment=shipment())
    answer = milestone(world, "DELIVERED", START_US)
    assert answer["shipment"]["state"] == "DELIVERED"
    plan = world.plan("shipment/S1")
    assert (plan.state, plan.revision) == (CLOSED, 2)
    assert {windows[-1].until_us for windows in plan.limits.values()} == {START_US}
    letters = [(row.shard, row.body["command"], row.body.get("revision"), row.body.get("until_us")) for row in world.rows(Mailbox)]
    assert letters == [
        *((shard, "plan.changed", 2, None) for shard in range(SHARDS)),
        *((shard, "carrier.closed", None, START_US) for shard in range(SHARDS)),
    ]


@pytest.mark.parametrize(
    ("body", "error", "field"),
    [
        ({"kind": "TELEPORTED", "at_us": START_US}, InvalidArgument, "milestone.kind"),
        ({"kind": "DEPARTED"}, InvalidArgument, "milestone.at_us"),
        ({"kind": "DEPARTED", "at_us": START_US + 9 * HOUR_US}, InvalidArgument, "milestone.time"),
        ({"kind": "ARRIVED", "at_us": START_US}, InvalidArgument, "milestone.stop_id"),
        ({"kind": "ARRIVED", "at_us": START_US, "stop_id": "moon"}, NotFound, "milestone.stop_id"),
        ({"kind": "NOTE", "at_us": START_US}, InvalidArgument, "milestone.note"),
        ({"kind": "DEPARTED", "at_us": START_US - 5 * HOUR_US, "stop_id": "bsl"}, InvalidArgument, "milestone.time"),
    ],
)
def test_wrong_milestone_names_its_field(world: World, body: dict[str, Any], error: type[Exception], field: str) -> None:
    world.do("shipment.create", shipment=shipment())
    milestone(world, "ARRIVED", START_US - HOUR_US, "bsl")
    with pytest.raises(error) as refused:
        world.do("shipment.milestone", shipment_id="S1", milestone=body)
    assert refused.value.field == field


def test_nothing_happens_after_the_delivery(world: World) -> None:
    world.do("shipment.create", shipment=shipment())
    milestone(world, "DELIVERED", START_US - HOUR_US)
    with pytest.raises(InvalidArgument, match="after the delivery"):
        milestone(world, "ARRIVED", START_US, "bsl")
    assert milestone(world, "ARRIVED", START_US - 2 * HOUR_US, "bsl")["stops"][1]["arrived_us"] == START_US - 2 * HOUR_US


def test_update_replaces_the_masked_fields_under_the_etag(world: World) -> None:
    world.do("shipment.create", shipment=shipment(reference="one", description="old"))
    changed = {"shipment_id": "S1", "reference": "two", "description": "", "etag": "1"}
    answer = world.do("shipment.update", shipment=changed, update_mask=["reference"])
    assert (answer["shipment"]["reference"], answer["shipment"]["description"]) == ("two", "old")
    with pytest.raises(StaleEtag):
        world.do("shipment.update", shipment=changed, update_mask=["reference"])
    with pytest.raises(InvalidArgument, match=r"shipment\.etag"):
        world.do("shipment.update", shipment={"shipment_id": "S1"}, update_mask=["reference"])
    with pytest.raises(InvalidArgument, match="update_mask"):
        world.do("shipment.update", shipment={**changed, "etag": "2"}, update_mask=["state"])


def test_another_profile_holds_from_the_stated_time_and_not_before(world: World) -> None:
    world.do("shipment.create", shipment=shipment())
    change = {"shipment_id": "S1", "profile_id": "usp-cold", "etag": "1"}
    world.do("shipment.update", shipment=change, update_mask=["profile_id"], effective_us=START_US - HOUR_US)
    plan = world.plan("shipment/S1")
    assert [(one.from_us, one.profile_id) for one in plan.profiles] == [(0, "who-type-1"), (START_US - HOUR_US, "usp-cold")]
    assert plan.limits["hot-45"][-1].until_us == START_US - HOUR_US
    assert plan.limits["cold-2"][0].from_us == START_US - HOUR_US
    assert {row.body["command"] for row in world.rows(Mailbox)} == {"plan.changed"}


def test_profile_is_not_changed_in_the_future(world: World) -> None:
    world.do("shipment.create", shipment=shipment())
    change = {"shipment_id": "S1", "profile_id": "usp-cold", "etag": "1"}
    with pytest.raises(InvalidArgument, match="effective_time"):
        world.do("shipment.update", shipment=change, effective_us=START_US + HOUR_US)


def test_change_that_says_nothing_to_tags_makes_no_new_plan(world: World) -> None:
    world.do("shipment.create", shipment=shipment())
    world.do("shipment.update", shipment={"shipment_id": "S1", "reference": "x", "etag": "1"})
    assert world.plan("shipment/S1").revision == 1
    assert world.rows(Mailbox) == []


def test_stop_that_a_milestone_names_keeps_its_place(world: World) -> None:
    world.do("shipment.create", shipment=shipment())
    milestone(world, "ARRIVED", START_US, "bsl")
    with pytest.raises(FailedPrecondition, match="bsl"):
        world.do("shipment.update", shipment={"shipment_id": "S1", "stops": [BASEL], "etag": "2"}, update_mask=["stops"])
    longer = [ROTTERDAM, BASEL, {"stop_id": "end"}]
    answer = world.do("shipment.update", shipment={"shipment_id": "S1", "stops": longer, "etag": "2"}, update_mask=["stops"])
    assert [(stop["stop_id"], stop["arrived_us"]) for stop in answer["stops"]] == [("rtm", None), ("bsl", START_US), ("end", None)]


def test_cancelling_ends_the_plan_and_can_be_said_twice(world: World) -> None:
    world.do("shipment.create", shipment=shipment())
    with pytest.raises(InvalidArgument, match="reason"):
        world.do("shipment.cancel", shipment_id="S1", actor="ann")
    answer = world.do("shipment.cancel", shipment_id="S1", actor="ann", reason="recalled", etag="1")
    assert answer["shipment"]["state"] == "CANCELLED"
    assert world.plan("shipment/S1").state == CLOSED
    again = world.do("shipment.cancel", shipment_id="S1", actor="ann", reason="recalled", etag="1")
    assert again["shipment"]["etag"] == answer["shipment"]["etag"]
    with pytest.raises(FailedPrecondition, match="cancelled"):
        milestone(world, "DEPARTED", START_US)


def test_delivered_shipment_cannot_be_cancelled(world: World) -> None:
    world.do("shipment.create", shipment=shipment())
    milestone(world, "DELIVERED", START_US)
    with pytest.raises(FailedPrecondition, match="delivered"):
        world.do("shipment.cancel", shipment_id="S1", actor="ann", reason="too late")


def test_unknown_shipment_is_not_found(world: World) -> None:
    for command in ("shipment.cancel", "shipment.milestone"):
        with pytest.raises(NotFound) as refused:
            world.do(command, shipment_id="S404", actor="ann", reason="x", milestone={"kind": "DEPARTED", "at_us": START_US})
        assert (refused.value.field, refused.value.value) == ("shipment_id", "S404")
