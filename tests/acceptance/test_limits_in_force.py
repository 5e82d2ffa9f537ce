"""Which limits hold when: profile versions from a stated time, stages opened and closed by milestones, the ignore period."""

from __future__ import annotations

from google.protobuf.field_mask_pb2 import FieldMask

from tests.acceptance.client import Client, at, cause_of, eventually, every, limit, new_id
from waybill.v1 import common_pb2, profile_pb2, shipment_pb2

WARM, GOOD = 9.0, 5.0
DEPARTED, DELIVERED = shipment_pb2.MILESTONE_KIND_DEPARTED, shipment_pb2.MILESTONE_KIND_DELIVERED
STORED, UNLOADING = shipment_pb2.MILESTONE_KIND_STORED, shipment_pb2.MILESTONE_KIND_UNLOADING


def change_profile(client: Client, profile_id: str, in_force_from: float, *limits: profile_pb2.Limit) -> None:
    """A new version of a profile from a minute on."""
    now = client.profiles.GetProfile(profile_pb2.GetProfileRequest(profile_id=profile_id), timeout=30).profile
    new = profile_pb2.Profile(profile_id=profile_id, name=now.name, limits=limits, etag=now.etag)
    client.profiles.UpdateProfile(profile_pb2.UpdateProfileRequest(profile=new, in_force_from_time=at(in_force_from)), timeout=30)


def test_a_new_version_judges_what_lies_after_its_stated_time_and_nothing_before(client: Client) -> None:
    profile = client.profile(limit("max", 8, minutes=10))
    tag = new_id("t")
    shipment = client.shipment(profile, tag)
    client.send(tag, *every(5, [7.0] * 13))  # 0 to 60
    assert client.told(shipment) == []
    change_profile(client, profile, 30, limit("max", 6, minutes=10))
    found = eventually(lambda: client.told(shipment))
    assert found == [("max", "CONFIRMED", 30, 40, None, 30)], "the run begins where the version does"
    [excursion] = client.excursions(shipment)
    assert cause_of(excursion) == "PROFILE"
    assert (excursion.profile_version, excursion.threshold) == (2, 6)


def test_a_new_version_retracts_what_it_allows(client: Client) -> None:
    profile = client.profile(limit("max", 8, minutes=10))
    tag = new_id("t")
    shipment = client.shipment(profile, tag)
    client.send(tag, *every(5, [WARM, WARM, WARM, WARM, GOOD] * 2))
    assert [one[2:5] for one in client.told(shipment)] == [(0, 10, 20), (25, 35, 45)]
    change_profile(client, profile, 22, limit("max", 10, minutes=10))
    assert [one[2:5] for one in eventually(lambda: client.told(shipment), lambda found: len(found) == 1)] == [(0, 10, 20)]


def test_cumulative_sums_go_on_across_versions_of_the_same_limit(client: Client) -> None:
    summed = profile_pb2.LIMIT_MODE_CUMULATIVE
    profile = client.profile(limit("sum", 8, minutes=60, mode=summed))
    tag = new_id("t")
    shipment = client.shipment(profile, tag)
    client.send(tag, (0, WARM), (20, GOOD), (60, WARM), (80, GOOD))
    change_profile(client, profile, 50, limit("sum", 8, minutes=30, mode=summed))
    assert eventually(lambda: client.told(shipment)) == [("sum", "ENDED", 60, 70, 80, 20)]


def test_another_profile_holds_from_its_effective_time(client: Client) -> None:
    loose, strict = client.profile(limit("max", 20)), client.profile(limit("max", 8))
    tag = new_id("t")
    shipment = client.shipment(loose, tag)
    client.send(tag, (0, WARM), (10, WARM), (20, WARM), (30, GOOD))
    request = shipment_pb2.UpdateShipmentRequest(
        shipment=shipment_pb2.Shipment(shipment_id=shipment, profile_id=strict, etag=client.get(shipment).etag),
        update_mask=FieldMask(paths=["profile_id"]),
        effective_time=at(15),
    )  # fmt: skip
    client.shipments.UpdateShipment(request, timeout=30)
    assert eventually(lambda: client.told(shipment)) == [("max", "ENDED", 15, 15, 30, 15)]
    change_profile(client, loose, 0, limit("max", 1))
    client.send(tag, (40, GOOD))
    assert [one[0:3] for one in client.told(shipment)] == [("max", "ENDED", 15)], "what was in force before stays as it was"


def test_a_limit_holds_only_in_its_stages_which_milestones_open_and_close(client: Client) -> None:
    profile = client.profile(limit("moving", 8, minutes=5, stages=[common_pb2.STAGE_IN_TRANSIT]), limit("always", 30))
    tag = new_id("t")
    shipment = client.shipment(profile, tag)
    client.send(tag, *every(5, [WARM] * 13))
    assert [one[2] for one in client.told(shipment)] == [0], "while nobody tells its stage it counts as in transit"
    client.milestone(shipment, DEPARTED, 17)
    moved = eventually(lambda: client.told(shipment), lambda found: found[0][2] == 17)
    assert moved == [("moving", "CONFIRMED", 17, 22, None, 43)]
    client.milestone(shipment, UNLOADING, 40)
    ended = eventually(lambda: client.told(shipment), lambda found: found[0][4] is not None)
    assert ended == [("moving", "ENDED", 17, 22, 40, 23)]
    client.milestone(shipment, STORED, 41)
    client.send(tag, (70, WARM))
    assert client.told(shipment) == ended


def test_delivery_ends_all_custodies_at_its_time(client: Client) -> None:
    profile = client.profile(limit("max", 8, minutes=10))
    tags = [new_id("t"), new_id("t")]
    shipment = client.shipment(profile, *tags)
    for tag in tags:
        client.send(tag, (0, WARM), (30, WARM))
    client.milestone(shipment, DELIVERED, 20)
    found = eventually(lambda: client.told(shipment), lambda found: len(found) == 2 and all(one[4] is not None for one in found))
    assert found == [("max", "ENDED", 0, 10, 20, 20)] * 2
    assert eventually(lambda: client.exposure(shipment).closed)
    assert client.get(shipment).state == shipment_pb2.SHIPMENT_STATE_DELIVERED


def test_the_ignore_period_begins_with_the_custody(client: Client) -> None:
    profile = client.profile(limit("max", 8, minutes=10), ignore_s=15 * 60)
    tag = new_id("t")
    shipment = client.shipment(profile, tag)
    client.send(tag, (0, WARM), (20, WARM), (30, GOOD))
    assert client.told(shipment) == [("max", "ENDED", 15, 25, 30, 15)]


def test_a_reading_holds_no_longer_than_the_profiles_largest_gap(client: Client) -> None:
    profile = client.profile(limit("max", 8, minutes=40), max_gap_s=30 * 60)
    tag = new_id("t")
    shipment = client.shipment(profile, tag)
    client.send(tag, (0, WARM), (120, WARM), (130, GOOD))
    assert client.told(shipment) == [("max", "ENDED", 0, 130, 130, 40)], "30 minutes, 90 uncovered, 10 minutes; a gap ends no run"
    [excursion] = client.excursions(shipment)
    assert excursion.uncovered_us == 90 * 60_000_000
