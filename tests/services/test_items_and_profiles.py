"""ItemService and ProfileService through a running Waybill."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.services.clients import HOUR_S, Clients, at, refused
from waybill.v1 import common_pb2, item_pb2, profile_pb2

if TYPE_CHECKING:
    from cluster.boot import Running

INVALID, NOT_FOUND, EXISTS = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS


@pytest.fixture(scope="module")
def door(waybill: Running) -> Iterator[Clients]:
    clients = Clients(waybill.target)
    yield clients
    clients.close()


def limit(**fields: Any) -> profile_pb2.Limit:
    said: dict[str, Any] = {
        "limit_id": "warm",
        "metric": common_pb2.METRIC_TEMPERATURE_C,
        "direction": profile_pb2.DIRECTION_ABOVE,
        "mode": profile_pb2.LIMIT_MODE_SINGLE,
        "threshold": 8.0,
        "allowance_s": HOUR_S,
    }
    return profile_pb2.Limit(**(said | fields))


def test_item_comes_back_as_it_was_created(door: Clients) -> None:
    band = item_pb2.StabilityBand(low=8.0, high=25.0, allowance_s=72 * HOUR_S)
    said = item_pb2.Item(item_id="i-1", gtin="4006381333931", name="Vaccine", profile_id="usp-cold", stability_budget=[band])
    said.labels["class"] = "A"
    made = door.items.CreateItem(item_pb2.CreateItemRequest(item=said, request_id="i-1")).item
    assert door.items.GetItem(item_pb2.GetItemRequest(item_id="i-1")).item == made
    assert (made.gtin, made.unit, made.etag, made.labels["class"]) == ("04006381333931", "EA", "1", "A")
    assert made.stability_budget[0].allowance_s == 72 * HOUR_S
    assert made.stability_budget[0].metric == common_pb2.METRIC_TEMPERATURE_C
    assert door.items.CreateItem(item_pb2.CreateItemRequest(item=said, request_id="i-1")).item == made
    found = door.items.ListItems(item_pb2.ListItemsRequest(gtin="4006381333931")).items
    assert [item.item_id for item in found] == ["i-1"]


def test_item_is_changed_by_mask_under_its_etag(door: Clients) -> None:
    door.items.CreateItem(item_pb2.CreateItemRequest(item=item_pb2.Item(item_id="i-2", name="old", sku="S")))
    change = item_pb2.UpdateItemRequest(item=item_pb2.Item(item_id="i-2", name="new", etag="1"))
    change.update_mask.paths.append("name")
    changed = door.items.UpdateItem(change).item
    assert (changed.name, changed.sku, changed.etag) == ("new", "S", "2")
    assert refused(door.items.UpdateItem, change).reason == "STALE_ETAG"


def test_pages_of_items_lead_through_all_of_them_once(door: Clients) -> None:
    for k in range(5):
        door.items.CreateItem(item_pb2.CreateItemRequest(item=item_pb2.Item(item_id=f"page-{k}", sku="paged")))
    token, seen = "", []
    while True:
        answer = door.items.ListItems(item_pb2.ListItemsRequest(page_size=2, page_token=token, sku="paged"))
        seen.extend(item.item_id for item in answer.items)
        token = answer.next_page_token
        if not token:
            break
    assert seen == [f"page-{k}" for k in range(5)]
    first = door.items.ListItems(item_pb2.ListItemsRequest(page_size=2, sku="paged"))
    elsewhere = item_pb2.ListItemsRequest(page_token=first.next_page_token)
    assert refused(door.items.ListItems, elsewhere).field == "page_token"


def test_shipped_profiles_are_there_from_the_start(door: Clients) -> None:
    listed = door.profiles.ListProfiles(profile_pb2.ListProfilesRequest(page_size=1000)).profiles
    shipped = {profile.profile_id: profile for profile in listed if profile.shipped}
    assert {"who-type-1", "usp-crt", "usp-cold", "freezer", "eu-quick-frozen"} <= set(shipped)
    assert all(profile.source and profile.limits for profile in shipped.values())
    frozen = profile_pb2.UpdateProfileRequest(profile=profile_pb2.Profile(profile_id="usp-cold", etag="1", limits=[limit()]))
    assert refused(door.profiles.UpdateProfile, frozen).code == grpc.StatusCode.FAILED_PRECONDITION


def test_profile_gets_versions_and_none_of_them_changes(door: Clients) -> None:
    first = profile_pb2.Profile(profile_id="ours", name="Ours", limits=[limit(clear=7.0)], max_gap_s=1800, actor="ann")
    made = door.profiles.CreateProfile(profile_pb2.CreateProfileRequest(profile=first)).profile
    assert (made.version, made.etag, made.max_gap_s, made.limits[0].clear) == (1, "1", 1800, 7.0)
    assert made.limits[0].severity == common_pb2.SEVERITY_WARNING
    second = profile_pb2.Profile(profile_id="ours", name="Ours", limits=[limit(threshold=9.0)], etag="1")
    update = profile_pb2.UpdateProfileRequest(profile=second, in_force_from_time=at(0))
    assert door.profiles.UpdateProfile(update).profile.in_force_from_time == at(0)
    assert door.profiles.GetProfile(profile_pb2.GetProfileRequest(profile_id="ours", version=1)).profile.limits == made.limits
    versions = door.profiles.ListProfiles(profile_pb2.ListProfilesRequest(profile_id="ours")).profiles
    assert [(profile.version, profile.limits[0].threshold) for profile in versions] == [(1, 8.0), (2, 9.0)]


def test_profile_is_based_on_a_shipped_one_with_a_chosen_allowance(door: Clients) -> None:
    basis = profile_pb2.ProfileBasis(profile_id="freezer", allowance_s=2 * HOUR_S)
    request = profile_pb2.CreateProfileRequest(profile=profile_pb2.Profile(profile_id="our-freezer"), based_on=basis)
    made = door.profiles.CreateProfile(request).profile
    assert {limit.allowance_s for limit in made.limits if limit.HasField("allowance_s")} == {2 * HOUR_S}
    assert (made.based_on_profile_id, made.based_on_version, made.shipped) == ("freezer", 1, False)


def profile(**fields: Any) -> profile_pb2.CreateProfileRequest:
    return profile_pb2.CreateProfileRequest(profile=profile_pb2.Profile(**({"profile_id": "bad", "limits": [limit()]} | fields)))


def item(**fields: Any) -> item_pb2.CreateItemRequest:
    return item_pb2.CreateItemRequest(item=item_pb2.Item(**({"item_id": "bad"} | fields)))


UNKNOWN = profile_pb2.UpdateProfileRequest(profile=profile_pb2.Profile(profile_id="none"))


@pytest.mark.parametrize(
    ("method", "request_", "code", "field"),
    [
        ("CreateItem", item_pb2.CreateItemRequest(), INVALID, "item"),
        ("CreateItem", item(item_id=""), INVALID, "item.item_id"),
        ("CreateItem", item(item_id="a/b"), INVALID, "item.item_id"),
        ("CreateItem", item(gtin="4006381333930"), INVALID, "item.gtin"),
        ("CreateItem", item(profile_id="none"), NOT_FOUND, "item.profile_id"),
        ("CreateItem", item(unit="kilo"), INVALID, "item.unit"),
        ("CreateItem", item(stability_budget=[item_pb2.StabilityBand(allowance_s=-1)]), INVALID, "item.stability_budget[0].allowance_s"),
        ("CreateItem", item(stability_budget=[item_pb2.StabilityBand(low=float("nan"))]), INVALID, "item.stability_budget[0].low"),
        ("GetItem", item_pb2.GetItemRequest(item_id="none"), NOT_FOUND, "item_id"),
        ("GetItem", item_pb2.GetItemRequest(), INVALID, "item_id"),
        ("ListItems", item_pb2.ListItemsRequest(page_size=-1), INVALID, "page_size"),
        ("ListItems", item_pb2.ListItemsRequest(page_token="~"), INVALID, "page_token"),
        ("ListItems", item_pb2.ListItemsRequest(gtin="12"), INVALID, "gtin"),
        ("UpdateItem", item_pb2.UpdateItemRequest(item=item_pb2.Item(item_id="none", etag="1")), NOT_FOUND, "item.item_id"),
        ("CreateProfile", profile_pb2.CreateProfileRequest(), INVALID, "profile"),
        ("CreateProfile", profile(profile_id="usp-cold"), EXISTS, "profile.profile_id"),
        ("CreateProfile", profile(limits=[]), INVALID, "profile.limits"),
        ("CreateProfile", profile(limits=[limit(metric=0)]), INVALID, "profile.limits[0].metric"),
        ("CreateProfile", profile(limits=[limit(metric=99)]), INVALID, "profile.limits[0].metric"),
        ("CreateProfile", profile(limits=[limit(threshold=-400.0)]), INVALID, "profile.limits[0].threshold"),
        ("CreateProfile", profile(limits=[limit(allowance_s=-1.0)]), INVALID, "profile.limits[0].allowance_s"),
        ("CreateProfile", profile(limits=[limit(allowance_s=1e300)]), INVALID, "profile.limits[0].allowance_s"),
        ("CreateProfile", profile(limits=[limit(stages=[0])]), INVALID, "profile.limits[0].stages[0]"),
        ("CreateProfile", profile(max_gap_s=0.0), INVALID, "profile.max_gap_s"),
        (
            "UpdateProfile",
            UNKNOWN,
            NOT_FOUND,
            "profile.profile_id",
        ),
        ("GetProfile", profile_pb2.GetProfileRequest(profile_id="none"), NOT_FOUND, "profile_id"),
        ("GetProfile", profile_pb2.GetProfileRequest(profile_id="usp-cold", version=9), NOT_FOUND, "version"),
        ("GetProfile", profile_pb2.GetProfileRequest(profile_id="usp-cold", version=-1), INVALID, "version"),
        ("ListProfiles", profile_pb2.ListProfilesRequest(profile_id="none"), NOT_FOUND, "profile_id"),
    ],
)
def test_refusal_names_the_field(door: Clients, method: str, request_: Any, code: grpc.StatusCode, field: str) -> None:
    stub = door.items if hasattr(door.items, method) else door.profiles
    refusal = refused(getattr(stub, method), request_)
    assert (refusal.code, refusal.field) == (code, field)
