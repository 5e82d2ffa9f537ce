"""Lateness: decided by the clock's ticks, one alert per shipment, ended by an arrival that is told or seen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actors.journal.tables import Visit
from tests.actors.business import DAY_US, HOUR_US, START_US, World, world_on

DUE_US = START_US + 10 * HOUR_US
TOLERANCE_US = HOUR_US


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with world_on(database_url) as world:
        stops = [
            {"stop_id": "from"},
            {"stop_id": "hub", "latitude_deg": 50.0, "longitude_deg": 8.0, "planned_arrival_us": DUE_US},
            {"stop_id": "to", "planned_arrival_us": DUE_US + DAY_US},
        ]
        world.do("shipment.create", shipment={"shipment_id": "S1", "stops": stops, "lateness_tolerance_us": TOLERANCE_US})
        yield world


def arrive(world: World, stop_id: str, at_us: int) -> None:
    world.do("shipment.milestone", shipment_id="S1", milestone={"kind": "ARRIVED", "stop_id": stop_id, "at_us": at_us})


def test_nothing_is_late_until_plan_and_tolerance_have_passed(world: World) -> None:
    assert not world.tick(DUE_US)
    assert not world.tick(DUE_US + TOLERANCE_US)
    assert world.tick(DUE_US + TOLERANCE_US + 1)
    (alert,) = world.alerts()
    assert (alert.kind, alert.carrier, alert.active, alert.started_us) == ("late", "shipment/S1", True, DUE_US + TOLERANCE_US)
    assert alert.detail["stops"] == ["hub"]


def test_lateness_is_raised_once(world: World) -> None:
    world.tick(DUE_US + 2 * TOLERANCE_US)
    assert not world.tick(DUE_US + 2 * TOLERANCE_US + 1)
    assert not world.tick(DUE_US + 9 * TOLERANCE_US)
    assert world.events().count("alert.raised") == 1


def test_shipment_that_comes_after_a_quiet_tick_is_looked_for_in_time(world: World) -> None:
    assert not world.tick(START_US + HOUR_US)
    stops = [{"stop_id": "near", "planned_arrival_us": START_US + 2 * HOUR_US}]
    world.do("shipment.create", shipment={"shipment_id": "S2", "stops": stops})
    assert world.tick(START_US + 2 * HOUR_US + 1)
    assert [alert.carrier for alert in world.alerts()] == ["shipment/S2"]


def test_told_arrival_ends_lateness_at_its_time(world: World) -> None:
    world.tick(DUE_US + 2 * HOUR_US)
    arrive(world, "hub", DUE_US + 2 * HOUR_US - 1)
    (alert,) = world.alerts()
    assert (alert.active, alert.state, alert.ended_us) == (False, "OPEN", DUE_US + 2 * HOUR_US - 1)


def test_arrival_in_time_that_is_told_late_withdraws_the_alert(world: World) -> None:
    world.tick(DUE_US + 2 * HOUR_US)
    arrive(world, "hub", DUE_US - HOUR_US)
    (alert,) = world.alerts()
    assert (alert.active, alert.state) == (False, "WITHDRAWN")


def test_visit_to_the_stops_fence_ends_lateness_without_a_milestone(world: World) -> None:
    world.tick(DUE_US + 2 * HOUR_US)
    visit = Visit(
        visit_id=1, shard=1, tag_id="t", carrier="shipment/S1", custody_id=1, fence_id="stop/hub", entered_us=DUE_US + 90 * 60_000_000
    )
    with world.write.begin() as connection:
        connection.execute(Visit.__table__.insert(), visit.model_dump())
    assert world.tick(DUE_US + 3 * HOUR_US)
    (alert,) = world.alerts()
    assert (alert.active, alert.ended_us) == (False, DUE_US + 90 * 60_000_000)
    assert not world.tick(DUE_US + 4 * HOUR_US)


def test_reaching_a_later_stop_ends_the_wait_for_an_earlier_one(world: World) -> None:
    world.tick(DUE_US + 2 * HOUR_US)
    arrive(world, "to", DUE_US + 2 * HOUR_US)
    (alert,) = world.alerts()
    assert not alert.active


def test_next_late_stop_raises_the_condition_again(world: World) -> None:
    world.tick(DUE_US + 2 * HOUR_US)
    arrive(world, "hub", DUE_US + 2 * HOUR_US)
    assert world.tick(DUE_US + DAY_US + 2 * HOUR_US)
    standing = [alert for alert in world.alerts() if alert.active]
    assert [alert.detail["stops"] for alert in standing] == [["to"]]


def test_cancelled_shipment_is_not_late(world: World) -> None:
    world.tick(DUE_US + 2 * HOUR_US)
    world.do("shipment.cancel", shipment_id="S1", actor="ann", reason="recalled")
    assert [alert.active for alert in world.alerts()] == [False]
    assert not world.tick(DUE_US + 40 * DAY_US)


def test_later_plan_ends_lateness(world: World) -> None:
    world.tick(DUE_US + 2 * HOUR_US)
    stops = [{"stop_id": "from"}, {"stop_id": "hub", "planned_arrival_us": DUE_US + DAY_US}]
    world.do("shipment.update", shipment={"shipment_id": "S1", "stops": stops, "etag": "1"}, update_mask=["stops"])
    assert [alert.active for alert in world.alerts()] == [False]
