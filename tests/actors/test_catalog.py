"""Items and profiles: versions that never change, and carriers that go over to a new one from its time on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.carrier import in_force, version_at
from actors.catalog import seed
from actors.journal.tables import Mailbox, Profile
from actors.rules.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, StaleEtag
from actors.rules.profiles import shipped
from tests.actors.business import HOUR_US, SHARDS, START_US, World, world_on

LIMIT = {"limit_id": "warm", "metric": "temperature_c", "direction": "above", "threshold": 8.0, "allowance_us": HOUR_US}


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with world_on(database_url) as world:
        yield world


def make(world: World, **fields: Any) -> dict[str, Any]:
    return world.do("profile.create", profile={"profile_id": "ours", "name": "Ours", "limits": [LIMIT], **fields}, actor="ann")


@given(st.lists(st.integers(0, 6), min_size=1, max_size=6))
def test_the_newest_of_the_versions_that_have_begun_is_in_force(begins: list[int]) -> None:
    """The rule as one would say it: at any time, of all versions whose time has come, the one with the highest number."""
    versions = [Profile(profile_id="p", version=k + 1, in_force_us=from_us) for k, from_us in enumerate(begins)]
    for at_us in range(8):
        begun = [row.version for row in versions if row.in_force_us <= at_us]
        found = version_at(versions, at_us)
        assert (found.version if found else None) == max(begun, default=None)
    times = [from_us for from_us, _ in in_force(versions)]
    assert times == sorted(set(times))


def test_shipped_profiles_are_there_once_however_often_waybill_starts(world: World) -> None:
    assert {row.profile_id for row in world.rows(Profile)} == set(shipped())
    assert seed(world.read, SHARDS, START_US) is None


def test_first_version_holds_for_readings_from_before_it_was_made(world: World) -> None:
    make(world)
    world.do("shipment.create", shipment={"shipment_id": "S1", "profile_id": "ours"})
    (window,) = world.plan("shipment/S1").limits["warm"]
    assert window.from_us == 0
    assert window.limit.severity == "WARNING"


def test_next_version_reaches_the_carriers_that_follow_from_its_time_on(world: World) -> None:
    make(world)
    world.do("shipment.create", shipment={"shipment_id": "S1", "profile_id": "ours"})
    world.do("shipment.create", shipment={"shipment_id": "S2", "profile_id": "ours", "profile_version": 1})
    world.do("warehouse.create", warehouse={"warehouse_id": "W1", "zones": [{"zone_id": "z", "profile_id": "ours"}]})
    warmer = {"profile_id": "ours", "name": "Ours", "limits": [{**LIMIT, "threshold": 10.0}], "etag": "1"}
    answer = world.do("profile.update", profile=warmer, in_force_us=START_US - HOUR_US)
    assert answer["profile"]["version"] == 2
    assert {row.body["command"] for row in world.rows(Mailbox)} == {"shipment.profile_changed", "warehouse.profile_changed"}
    world.deliver_mail()
    for carrier in ("shipment/S1", "zone/W1/z"):
        windows = world.plan(carrier).limits["warm"]
        assert [(window.from_us, window.limit.threshold) for window in windows] == [(0, 8.0), (START_US - HOUR_US, 10.0)]
    assert world.plan("shipment/S2").revision == 1, "a pinned version stays"


def test_version_in_force_before_an_earlier_one_replaces_it(world: World) -> None:
    make(world)
    for etag, from_us, threshold in (("1", START_US, 9.0), ("2", START_US - HOUR_US, 10.0)):
        body = {"profile_id": "ours", "limits": [{**LIMIT, "threshold": threshold}], "etag": etag}
        world.do("profile.update", profile=body, in_force_us=from_us)
    world.do("shipment.create", shipment={"shipment_id": "S1", "profile_id": "ours"})
    windows = world.plan("shipment/S1").limits["warm"]
    assert [(window.from_us, window.limit.threshold) for window in windows] == [(0, 8.0), (START_US - HOUR_US, 10.0)]


def test_delivered_shipment_is_not_touched_by_later_versions(world: World) -> None:
    make(world)
    world.do("shipment.create", shipment={"shipment_id": "S1", "profile_id": "ours"})
    world.do("shipment.milestone", shipment_id="S1", milestone={"kind": "DELIVERED", "at_us": START_US})
    body = {"profile_id": "ours", "limits": [{**LIMIT, "threshold": 10.0}], "etag": "1"}
    world.do("profile.update", profile=body, in_force_us=START_US + 60_000_000)
    world.deliver_mail()
    assert world.plan("shipment/S1").revision == 2
    backdated = {"profile_id": "ours", "limits": [{**LIMIT, "threshold": 11.0}], "etag": "2"}
    world.do("profile.update", profile=backdated, in_force_us=START_US - HOUR_US)
    world.deliver_mail()
    assert [window.limit.threshold for window in world.plan("shipment/S1").limits["warm"]] == [8.0, 11.0]


def test_profile_based_on_a_range_takes_the_chosen_allowance(world: World) -> None:
    basis = {"profile_id": "freezer", "allowance_us": 2 * HOUR_US}
    answer = world.do("profile.create", profile={"profile_id": "our-freezer"}, based_on=basis)
    body = answer["profile"]["body"]
    assert {limit["allowance_us"] for limit in body["limits"] if limit["allowance_us"] is not None} == {2 * HOUR_US}
    assert answer["profile"]["attributes"]["based_on_profile_id"] == "freezer"
    with pytest.raises(InvalidArgument) as refused:
        world.do("profile.create", profile={"profile_id": "other"}, based_on={"profile_id": "freezer"})
    assert refused.value.field == "based_on.allowance_s"


def test_limits_replace_those_of_the_basis_by_id_or_are_added(world: World) -> None:
    cold = {**LIMIT, "limit_id": "cold-2", "direction": "below", "threshold": 1.0}
    answer = world.do("profile.create", profile={"profile_id": "mine", "limits": [cold, LIMIT]}, based_on={"profile_id": "usp-cold"})
    limits = {limit["limit_id"]: limit["threshold"] for limit in answer["profile"]["body"]["limits"]}
    assert limits["cold-2"] == 1.0
    assert limits["warm"] == 8.0
    assert limits["mkt-8"] == 8.0


@pytest.mark.parametrize(
    ("command", "arguments", "error", "field"),
    [
        ("profile.create", {"profile": {"profile_id": "ours", "limits": [LIMIT]}}, AlreadyExists, "profile.profile_id"),
        ("profile.create", {"profile": {"profile_id": "New!", "limits": [LIMIT]}}, InvalidArgument, "profile.profile_id"),
        ("profile.create", {"profile": {"profile_id": "new"}}, InvalidArgument, "profile.limits"),
        ("profile.create", {"profile": {"profile_id": "new", "limits": [LIMIT, LIMIT]}}, InvalidArgument, "profile.limits[1].limit_id"),
        (
            "profile.create",
            {"profile": {"profile_id": "new", "limits": [{**LIMIT, "threshold": -400.0}]}},
            InvalidArgument,
            "profile.limits[0].threshold",
        ),
        (
            "profile.create",
            {"profile": {"profile_id": "new", "limits": [{**LIMIT, "clear": 9.0}]}},
            InvalidArgument,
            "profile.limits[0].clear",
        ),
        (
            "profile.create",
            {"profile": {"profile_id": "new", "limits": [{**LIMIT, "metric": "latitude_deg"}]}},
            InvalidArgument,
            "profile.limits[0].metric",
        ),
        ("profile.create", {"profile": {"profile_id": "new"}, "based_on": {"profile_id": "none"}}, NotFound, "based_on.profile_id"),
        ("profile.update", {"profile": {"profile_id": "none", "etag": "1"}}, NotFound, "profile.profile_id"),
        ("profile.update", {"profile": {"profile_id": "ours", "limits": [LIMIT], "etag": "7"}}, StaleEtag, "profile.etag"),
        (
            "profile.update",
            {"profile": {"profile_id": "usp-cold", "limits": [LIMIT], "etag": "1"}},
            FailedPrecondition,
            "profile.profile_id",
        ),
        ("item.create", {"item": {"item_id": "known"}}, AlreadyExists, "item.item_id"),
        ("item.create", {"item": {"item_id": "new", "gtin": "04006381333931"}}, AlreadyExists, "item.gtin"),
        ("item.create", {"item": {"item_id": "new", "gtin": "4006381333930"}}, InvalidArgument, "item.gtin"),
        ("item.create", {"item": {"item_id": "new", "unit": "kilogram"}}, InvalidArgument, "item.unit"),
        ("item.create", {"item": {"item_id": "new", "profile_id": "none"}}, NotFound, "item.profile_id"),
        (
            "item.create",
            {"item": {"item_id": "new", "stability_budget": [{"low": 8.0, "high": 8.0, "allowance_us": 1}]}},
            InvalidArgument,
            "item.stability_budget[0].high",
        ),
        (
            "item.create",
            {"item": {"item_id": "new", "stability_budget": [{"low": 8.0, "allowance_us": 1}, {"high": 9.0, "allowance_us": 1}]}},
            InvalidArgument,
            "item.stability_budget[1].low",
        ),
        ("item.update", {"item": {"item_id": "none", "etag": "1"}}, NotFound, "item.item_id"),
        ("item.update", {"item": {"item_id": "known", "etag": "2"}}, StaleEtag, "item.etag"),
    ],
)
def test_wrong_request_names_its_field(known: World, command: str, arguments: dict[str, Any], error: type[Exception], field: str) -> None:
    with pytest.raises(error) as refused:
        known.do(command, **arguments)
    assert refused.value.field == field


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_on(f"sqlite:///{tmp_path_factory.mktemp('world') / 'waybill.db'}") as world:
        make(world)
        world.do("item.create", item={"item_id": "known", "gtin": "4006381333931"})
        yield world


def test_item_keeps_its_bands_and_is_changed_under_its_etag(world: World) -> None:
    bands = [{"low": 8.0, "high": 25.0, "allowance_us": 72 * HOUR_US}, {"low": 25.0, "high": None, "allowance_us": HOUR_US}]
    answer = world.do("item.create", item={"item_id": "vaccine", "gtin": "4006381333931", "stability_budget": bands})
    assert answer["item"]["gtin"] == "04006381333931"
    assert [band["metric"] for band in answer["item"]["stability_budget"]] == ["temperature_c", "temperature_c"]
    changed = world.do("item.update", item={"item_id": "vaccine", "name": "Vaccine", "etag": "1"})
    assert (changed["item"]["name"], changed["item"]["etag"], changed["item"]["gtin"]) == ("Vaccine", 2, "04006381333931")
