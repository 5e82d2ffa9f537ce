"""ShipmentService through a running Waybill: from creation to verdict, track and watch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.services.clients import DEADLINE_S, HOUR_S, Clients, at, place, refused
from waybill.v1 import alert_pb2, common_pb2, exposure_pb2, item_pb2, profile_pb2, shipment_pb2

if TYPE_CHECKING:
    from cluster.boot import Running

INVALID, NOT_FOUND, EXISTS = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
SSCC = "106141412345678908"
FROM = shipment_pb2.Stop(stop_id="from", location=place(51.95, 4.14), locode="NLRTM")
TO = shipment_pb2.Stop(stop_id="to", location=place(52.5, 4.14), radius_m=1000.0)


@pytest.fixture(scope="module")
def door(waybill: Running) -> Iterator[Clients]:
    clients = Clients(waybill.target)
    clients.items.CreateItem(item_pb2.CreateItemRequest(item=item_pb2.Item(item_id="vaccine", unit="EA"), request_id="vaccine"))
    create(clients, "there", request_id="there")
    yield clients
    clients.close()


def shipment(shipment_id: str, **fields: Any) -> shipment_pb2.Shipment:
    return shipment_pb2.Shipment(**({"shipment_id": shipment_id, "profile_id": "usp-cold", "stops": [FROM, TO]} | fields))


def create(door: Clients, shipment_id: str, request_id: str = "", **fields: Any) -> shipment_pb2.Shipment:
    request = shipment_pb2.CreateShipmentRequest(shipment=shipment(shipment_id, **fields), request_id=request_id)
    return door.shipments.CreateShipment(request, timeout=DEADLINE_S).shipment


def assign(door: Clients, shipment_id: str, tag_id: str, from_s: float, **fields: Any) -> Any:
    request = shipment_pb2.AssignTagRequest(shipment_id=shipment_id, tag_id=tag_id, from_time=at(from_s), actor="ann", **fields)
    return door.shipments.AssignTag(request, timeout=DEADLINE_S).custody


def milestone(door: Clients, shipment_id: str, kind: str, after_s: float, **fields: Any) -> shipment_pb2.RecordMilestoneResponse:
    number = shipment_pb2.MilestoneKind.Value(f"MILESTONE_KIND_{kind}")
    said = shipment_pb2.Milestone(kind=number, time=at(after_s), **fields)
    request = shipment_pb2.RecordMilestoneRequest(shipment_id=shipment_id, milestone=said)
    return door.shipments.RecordMilestone(request, timeout=DEADLINE_S)


def exposure(door: Clients, shipment_id: str) -> exposure_pb2.CarrierExposure:
    return door.shipments.GetExposure(shipment_pb2.GetExposureRequest(shipment_id=shipment_id), timeout=DEADLINE_S).exposure


def excursions(door: Clients, shipment_id: str, **fields: Any) -> list[exposure_pb2.Excursion]:
    request = shipment_pb2.ListExcursionsRequest(shipment_id=shipment_id, **fields)
    return list(door.shipments.ListExcursions(request, timeout=DEADLINE_S).excursions)


def test_shipment_comes_back_as_it_was_created(door: Clients) -> None:
    lot = shipment_pb2.LotQuantity(item_id="vaccine", lot_number="L7", quantity="12.50", expiry_time=at(1e7))
    unit = shipment_pb2.HandlingUnit(sscc=SSCC, kind="pallet", lots=[lot])
    ring = common_pb2.LinearRing(points=[place(0.0, 0.0), place(0.0, 1.0), place(1.0, 1.0)])
    fence = common_pb2.Geofence(fence_id="yard", polygon=common_pb2.PolygonShape(outer=ring), alert_on=[common_pb2.FENCE_EVENT_EXIT])
    route = shipment_pb2.PlannedRoute(points=[place(51.9, 4.1), place(52.5, 4.1)], tolerance_m=2000.0)
    made = create(
        door,
        "S-1",
        reference="PO 1",
        handling_units=[unit],
        geofences=[fence],
        route=route,
        container_number="CSQU3054383",
        labels={"lane": "north"},
        lateness_tolerance_s=600.0,
    )
    assert door.shipments.GetShipment(shipment_pb2.GetShipmentRequest(shipment_id="S-1")).shipment == made
    assert made.state == shipment_pb2.SHIPMENT_STATE_PLANNED
    assert made.handling_units[0].handling_unit_id == SSCC
    assert (made.handling_units[0].lots[0].quantity, made.handling_units[0].lots[0].unit) == ("12.5", "EA")
    assert (made.stops[0].radius_m, made.stops[1].radius_m) == (500.0, 1000.0)
    assert (made.geofences[0].confirm, made.geofences[0].alert_on) == (2, [common_pb2.FENCE_EVENT_EXIT])
    assert (made.route.hold_s, made.lateness_tolerance_s, made.container_number) == (300.0, 600.0, "CSQU3054383")


def test_id_made_by_the_server_is_the_same_when_the_request_comes_again(door: Clients) -> None:
    first = create(door, "", request_id="no-id")
    assert first.shipment_id
    assert create(door, "", request_id="no-id") == first
    assert create(door, "").shipment_id != create(door, "").shipment_id


def test_list_is_filtered_and_paged_newest_first(door: Clients) -> None:
    for k in range(3):
        create(door, f"listed-{k}", reference="listed")
    request = shipment_pb2.ListShipmentsRequest(reference="listed", page_size=2)
    first = door.shipments.ListShipments(request)
    request.page_token = first.next_page_token
    second = door.shipments.ListShipments(request)
    found = [one.shipment_id for one in [*first.shipments, *second.shipments]]
    assert found == ["listed-2", "listed-1", "listed-0"]
    assert second.next_page_token == ""
    cancelled = shipment_pb2.ListShipmentsRequest(reference="listed", states=[shipment_pb2.SHIPMENT_STATE_CANCELLED])
    assert not door.shipments.ListShipments(cancelled).shipments


def test_verdict_is_no_data_until_something_was_judged(door: Clients) -> None:
    create(door, "empty")
    found = exposure(door, "empty")
    assert (found.verdict, found.closed, found.excursions) == (common_pb2.VERDICT_NO_DATA, False, 0)
    assert {limit.limit.limit_id for limit in found.limits} >= {"mkt-8", "cold-2"}


def test_exposure_adds_up_and_the_verdict_follows_the_excursions(door: Clients) -> None:
    create(door, "cold")
    assign(door, "cold", "cold-tag", 0)
    door.send("cold-tag", [(k * 600, 5.0 if k < 6 else 1.0 if k < 9 else 5.0) for k in range(18)])
    found = exposure(door, "cold")
    assert found.verdict == common_pb2.VERDICT_EXCURSION
    (frozen,) = [limit for limit in found.limits if limit.limit.limit_id == "cold-2"]
    assert (frozen.violation_us, frozen.extreme, frozen.extreme_time) == (1800 * 10**6, 1.0, at(3600))
    assert (frozen.covered_us, frozen.uncovered_us, frozen.readings) == (17 * 600 * 10**6, 0, 18)
    assert (frozen.profile_id, frozen.profile_version, frozen.excursions) == ("usp-cold", 1, 1)
    assert 1.0 < frozen.mkt.mkt_c < 5.0
    assert not frozen.mkt.full_window
    assert [(tag.tag_id, tag.in_violation) for tag in frozen.tags] == [("cold-tag", False)]
    assert found.judged_until_time == at(17 * 600)
    (record,) = found.completeness
    assert (record.tag_id, record.boot, record.received) == ("cold-tag", 1, 18)
    (excursion,) = excursions(door, "cold")
    assert (excursion.state, excursion.started_time, excursion.ended_time) == (exposure_pb2.EXCURSION_STATE_ENDED, at(3600), at(5400))
    assert found.worst_severity == excursion.severity


def test_constant_temperature_is_its_own_mkt(door: Clients) -> None:
    create(door, "flat")
    assign(door, "flat", "flat-tag", 0)
    door.send("flat-tag", [(k * 900, 5.0) for k in range(100)])
    found = exposure(door, "flat")
    assert found.verdict == common_pb2.VERDICT_WITHIN_LIMITS
    (limit,) = [one for one in found.limits if one.limit.limit_id == "mkt-8"]
    assert limit.mkt.mkt_c == pytest.approx(5.0, abs=1e-9)
    assert (limit.mkt.full_window, limit.mkt.window_us) == (True, 24 * HOUR_S * 10**6)


def test_late_readings_revise_an_excursion_and_its_revisions_are_kept(door: Clients) -> None:
    create(door, "late")
    assign(door, "late", "late-tag", 0)
    door.send("late-tag", [(0, 5.0), (600, 1.0), (1800, 5.0)])
    door.send("late-tag", [(1200, 5.0)])
    (excursion,) = excursions(door, "late", include_revisions=True)
    assert (excursion.ended_time, excursion.cause) == (at(1200), exposure_pb2.REVISION_CAUSE_LATE)
    assert [revision.ended_time for revision in excursion.revisions][-1] == at(1800)


def test_tag_assigned_afterwards_brings_its_readings_with_it(door: Clients) -> None:
    create(door, "backdated")
    door.send("backdated-tag", [(k * 600, 1.0) for k in range(12)])
    assert exposure(door, "backdated").verdict == common_pb2.VERDICT_NO_DATA
    assign(door, "backdated", "backdated-tag", 0, until_time=at(HOUR_S))
    found = exposure(door, "backdated")
    assert (found.verdict, found.closed) == (common_pb2.VERDICT_EXCURSION, True)
    again = assign(door, "backdated", "backdated-tag", 0, until_time=at(HOUR_S))
    assert (again.etag, again.until_time) == ("1", at(HOUR_S))


def test_overlapping_custody_is_refused(door: Clients) -> None:
    create(door, "first")
    create(door, "second")
    assign(door, "first", "wanted", 0)
    request = shipment_pb2.AssignTagRequest(shipment_id="second", tag_id="wanted", from_time=at(HOUR_S))
    assert refused(door.shipments.AssignTag, request).reason == "CUSTODY_OVERLAP"


def test_delivery_ends_the_custodies_and_what_comes_after_is_not_judged(door: Clients) -> None:
    create(door, "delivered")
    assign(door, "delivered", "delivered-tag", 0)
    door.send("delivered-tag", [(k * 600, 5.0) for k in range(6)])
    answer = milestone(door, "delivered", "DELIVERED", HOUR_S, actor="dock")
    assert answer.shipment.state == shipment_pb2.SHIPMENT_STATE_DELIVERED
    assert answer.shipment.delivered_time == at(HOUR_S)
    door.send("delivered-tag", [(k * 600, 30.0) for k in range(7, 60)])
    found = exposure(door, "delivered")
    assert (found.verdict, found.closed) == (common_pb2.VERDICT_WITHIN_LIMITS, True)
    release = shipment_pb2.ReleaseTagRequest(shipment_id="delivered", tag_id="delivered-tag", until_time=at(HOUR_S))
    assert door.shipments.ReleaseTag(release).custody.until_time == at(HOUR_S)


def test_milestones_are_listed_by_time_however_they_came(door: Clients) -> None:
    create(door, "stages")
    milestone(door, "stages", "DEPARTED", 2 * HOUR_S)
    answer = milestone(door, "stages", "PACKING", HOUR_S)
    assert (answer.milestone.ordinal, answer.shipment.stage) == (2, common_pb2.STAGE_IN_TRANSIT)
    listed = door.shipments.ListMilestones(shipment_pb2.ListMilestonesRequest(shipment_id="stages")).milestones
    assert [one.time for one in listed] == [at(HOUR_S), at(2 * HOUR_S)]
    assert listed[1].stop_id == "from"


def test_track_shows_positions_visits_stops_and_stretches_off_the_route(door: Clients) -> None:
    route = shipment_pb2.PlannedRoute(points=[place(51.95, 4.14), place(52.5, 4.14)], tolerance_m=2000.0, hold_s=0.0)
    create(door, "tracked", route=route)
    assign(door, "tracked", "tracked-tag", 0)
    north = [(51.95 + 0.55 * k / 30, 4.14 if not 10 <= k < 20 else 4.34) for k in range(31)]
    places = [(51.95, 4.14)] * 10 + north + [(52.5, 4.14)] * 10
    door.send("tracked-tag", [(k * 120, 5.0) for k in range(len(places))], places)
    asked = shipment_pb2.GetTrackRequest(shipment_id="tracked", max_positions=10)
    track = door.shipments.GetTrack(asked)
    assert (track.total_positions, len(track.positions)) == (len(places), 10)
    assert track.positions[0].sensed_time == at(0)
    assert track.last.position.latitude_deg == 52.5
    by_kind: dict[int, list[common_pb2.Visit]] = {}
    for visit in track.visits:
        by_kind.setdefault(visit.kind, []).append(visit)
    stays = {visit.stop_id: visit for visit in by_kind[common_pb2.VISIT_KIND_VISIT]}
    assert set(stays) == {"from", "to"}
    assert not stays["to"].HasField("left_time")
    stood = by_kind[common_pb2.VISIT_KIND_STOP]
    assert [visit.location.latitude_deg for visit in stood] == [51.95, 52.5]
    assert not stood[1].HasField("left_time")
    (off,) = by_kind[common_pb2.VISIT_KIND_OFF_ROUTE]
    assert 10_000 < off.distance_m < 15_000
    arrived = door.shipments.GetShipment(shipment_pb2.GetShipmentRequest(shipment_id="tracked")).shipment.stops[1].arrived_time
    assert arrived == stays["to"].entered_time


def test_changed_profile_judges_what_comes_after_its_time(door: Clients) -> None:
    create(door, "changed", profile_id="who-type-1")
    assign(door, "changed", "changed-tag", 0)
    door.send("changed-tag", [(k * 600, 1.0) for k in range(18)])
    assert exposure(door, "changed").verdict == common_pb2.VERDICT_WITHIN_LIMITS
    change = shipment_pb2.UpdateShipmentRequest(shipment=shipment("changed", etag="1"), effective_time=at(HOUR_S))
    change.update_mask.paths.append("profile_id")
    assert door.shipments.UpdateShipment(change).shipment.profile_id == "usp-cold"
    until = time.monotonic() + DEADLINE_S  # the shards of its tags hear of the new plan in a moment
    while not (found := excursions(door, "changed")) and time.monotonic() < until:
        time.sleep(0.05)
    (excursion,) = found
    assert (excursion.limit_id, excursion.started_time) == ("cold-2", at(HOUR_S))
    assert (excursion.cause, excursion.found_late) == (exposure_pb2.REVISION_CAUSE_PROFILE, True)


def test_new_version_of_a_profile_reaches_the_shipments_that_follow_it(door: Clients) -> None:
    limit = profile_pb2.Limit(
        limit_id="warm",
        metric=common_pb2.METRIC_TEMPERATURE_C,
        direction=profile_pb2.DIRECTION_ABOVE,
        mode=profile_pb2.LIMIT_MODE_SINGLE,
        threshold=8.0,
        allowance_s=0.0,
    )
    first = profile_pb2.Profile(profile_id="moving", limits=[limit])
    door.profiles.CreateProfile(profile_pb2.CreateProfileRequest(profile=first))
    create(door, "follows", profile_id="moving")
    create(door, "stays", profile_id="moving", profile_version=1)
    for shipment_id in ("follows", "stays"):
        assign(door, shipment_id, f"{shipment_id}-tag", 0)
        door.send(f"{shipment_id}-tag", [(k * 600, 5.0) for k in range(12)])
    limit.threshold = 4.0
    second = profile_pb2.Profile(profile_id="moving", limits=[limit], etag="1")
    door.profiles.UpdateProfile(profile_pb2.UpdateProfileRequest(profile=second, in_force_from_time=at(HOUR_S)))
    until = time.monotonic() + DEADLINE_S
    while not (found := excursions(door, "follows")) and time.monotonic() < until:
        time.sleep(0.05)
    (excursion,) = found
    assert (excursion.started_time, excursion.profile_version, excursion.threshold) == (at(HOUR_S), 2, 4.0)
    assert not excursions(door, "stays")


def test_cancelled_shipment_takes_no_tags(door: Clients) -> None:
    create(door, "cancelled")
    request = shipment_pb2.CancelShipmentRequest(shipment_id="cancelled", actor="ann", reason="recalled", etag="1")
    answer = door.shipments.CancelShipment(request).shipment
    assert answer.state == shipment_pb2.SHIPMENT_STATE_CANCELLED
    assert door.shipments.CancelShipment(request).shipment.etag == answer.etag
    refusal = refused(door.shipments.AssignTag, shipment_pb2.AssignTagRequest(shipment_id="cancelled", tag_id="t"))
    assert (refusal.code, refusal.field) == (PRECONDITION, "shipment_id")


def test_shipment_whose_planned_arrival_has_passed_is_late_until_it_arrives(door: Clients) -> None:
    create(door, "overdue", stops=[FROM, shipment_pb2.Stop(stop_id="to", planned_arrival_time=at(0))])
    asked = alert_pb2.ListAlertsRequest(filter=alert_pb2.AlertFilter(shipment_id="overdue", kinds=[alert_pb2.ALERT_KIND_LATENESS]))
    until = time.monotonic() + DEADLINE_S  # the clock of its shard ticks every few seconds
    while not (found := door.alerts.ListAlerts(asked).alerts) and time.monotonic() < until:
        time.sleep(0.1)
    (alert,) = found
    assert (alert.active, alert.stop_id, alert.started_time) == (True, "to", at(0))
    milestone(door, "overdue", "ARRIVED", HOUR_S, stop_id="to")
    (ended,) = door.alerts.ListAlerts(asked).alerts
    assert (ended.active, ended.ended_time, ended.state) == (False, at(HOUR_S), alert_pb2.ALERT_STATE_OPEN)


def test_open_excursion_is_shown_as_it_stands_now(door: Clients) -> None:
    create(door, "open")
    assign(door, "open", "open-tag", 0)
    door.send("open-tag", [(0, 1.5)])
    door.send("open-tag", [(600, 0.5), (1200, 1.0)])
    (excursion,) = excursions(door, "open")
    assert (excursion.state, excursion.extreme, excursion.extreme_time) == (exposure_pb2.EXCURSION_STATE_CONFIRMED, 0.5, at(600))


def test_watch_tells_everything_once_and_resumes_from_a_number(door: Clients) -> None:
    create(door, "watched")
    assign(door, "watched", "watched-tag", 0)
    door.send("watched-tag", [(0, 5.0), (600, 1.0), (1200, 5.0)])
    milestone(door, "watched", "DEPARTED", 0)
    seen: list[tuple[int, str]] = []
    for answer in door.shipments.WatchShipment(shipment_pb2.WatchShipmentRequest(shipment_id="watched", after_event_number=0)):
        if answer.HasField("event"):
            seen.append((answer.event_number, answer.event.kind))
            if answer.event.kind == "shipment.milestone":
                assert answer.event.milestone.kind == shipment_pb2.MILESTONE_KIND_DEPARTED
                break
    kinds = [kind for _, kind in seen]
    assert kinds[:2] == ["shipment.created", "custody.assigned"]
    assert {"excursion.confirmed", "alert.raised"} <= set(kinds)
    middle = seen[1][0]
    resumed = shipment_pb2.WatchShipmentRequest(shipment_id="watched", after_event_number=middle)
    for answer in door.shipments.WatchShipment(resumed):
        if answer.HasField("event"):
            assert (answer.event_number, answer.event.kind) == seen[2]
            break


def creation(**fields: Any) -> shipment_pb2.CreateShipmentRequest:
    return shipment_pb2.CreateShipmentRequest(shipment=shipment("bad", **fields))


def lots(**fields: Any) -> list[shipment_pb2.HandlingUnit]:
    said: dict[str, Any] = {"item_id": "vaccine", "lot_number": "1", "quantity": "1"}
    return [shipment_pb2.HandlingUnit(handling_unit_id="u", lots=[shipment_pb2.LotQuantity(**(said | fields))])]


def circle(**fields: Any) -> list[common_pb2.Geofence]:
    shape = common_pb2.CircleShape(**({"center": place(0.0, 0.0), "radius_m": 10.0} | fields))
    return [common_pb2.Geofence(fence_id="f", circle=shape)]


def told(kind: int, shipment_id: str = "there", **fields: Any) -> shipment_pb2.RecordMilestoneRequest:
    said: dict[str, Any] = {"kind": kind, "time": at(0)}
    return shipment_pb2.RecordMilestoneRequest(shipment_id=shipment_id, milestone=shipment_pb2.Milestone(**(said | fields)))


def assignment(**fields: Any) -> shipment_pb2.AssignTagRequest:
    return shipment_pb2.AssignTagRequest(shipment_id="there", tag_id="t", **fields)


NORTH_OF_THE_POLE = shipment_pb2.Stop(location=place(91.0, 0.0))
TOO_FAR_EAST = place(0.0, 181.0)
FUTURE_S = 60 * 365 * 24 * HOUR_S
MASKED = shipment_pb2.UpdateShipmentRequest(shipment=shipment("there", etag="1"))
MASKED.update_mask.paths.append("state")


@pytest.mark.parametrize(
    ("method", "request_", "code", "field"),
    [
        ("CreateShipment", shipment_pb2.CreateShipmentRequest(), INVALID, "shipment"),
        ("CreateShipment", shipment_pb2.CreateShipmentRequest(shipment=shipment("a b")), INVALID, "shipment.shipment_id"),
        ("CreateShipment", shipment_pb2.CreateShipmentRequest(shipment=shipment("there")), EXISTS, "shipment.shipment_id"),
        ("CreateShipment", creation(profile_id="none"), NOT_FOUND, "shipment.profile_id"),
        ("CreateShipment", creation(profile_version=-1), INVALID, "shipment.profile_version"),
        ("CreateShipment", creation(container_number="CSQU3054384"), INVALID, "shipment.container_number"),
        ("CreateShipment", creation(stops=[shipment_pb2.Stop(gln="4012345000001")]), INVALID, "shipment.stops[0].gln"),
        ("CreateShipment", creation(stops=[shipment_pb2.Stop(locode="N")]), INVALID, "shipment.stops[0].locode"),
        ("CreateShipment", creation(stops=[FROM, FROM]), INVALID, "shipment.stops[1].stop_id"),
        (
            "CreateShipment",
            creation(stops=[NORTH_OF_THE_POLE]),
            INVALID,
            "shipment.stops[0].location.latitude_deg",
        ),
        ("CreateShipment", creation(stops=[shipment_pb2.Stop(warehouse_id="none")]), NOT_FOUND, "shipment.stops[0].warehouse_id"),
        ("CreateShipment", creation(handling_units=lots(item_id="none")), NOT_FOUND, "shipment.handling_units[0].lots[0].item_id"),
        ("CreateShipment", creation(handling_units=lots(quantity="-1")), INVALID, "shipment.handling_units[0].lots[0].quantity"),
        ("CreateShipment", creation(handling_units=lots(unit="kilo")), INVALID, "shipment.handling_units[0].lots[0].unit"),
        ("CreateShipment", creation(geofences=[common_pb2.Geofence(fence_id="f")]), INVALID, "shipment.geofences[0].kind"),
        ("CreateShipment", creation(geofences=circle(radius_m=0.0)), INVALID, "shipment.geofences[0].circle.radius_m"),
        (
            "CreateShipment",
            creation(geofences=circle(center=TOO_FAR_EAST)),
            INVALID,
            "shipment.geofences[0].circle.center.longitude_deg",
        ),
        ("CreateShipment", creation(lateness_tolerance_s=-1.0), INVALID, "shipment.lateness_tolerance_s"),
        ("CreateShipment", creation(lateness_tolerance_s=float("inf")), INVALID, "shipment.lateness_tolerance_s"),
        ("GetShipment", shipment_pb2.GetShipmentRequest(), INVALID, "shipment_id"),
        ("GetShipment", shipment_pb2.GetShipmentRequest(shipment_id="none"), NOT_FOUND, "shipment_id"),
        ("ListShipments", shipment_pb2.ListShipmentsRequest(page_token="garbage"), INVALID, "page_token"),
        ("ListShipments", shipment_pb2.ListShipmentsRequest(states=[0]), INVALID, "states"),
        ("ListShipments", shipment_pb2.ListShipmentsRequest(states=[77]), INVALID, "states[0]"),
        ("UpdateShipment", shipment_pb2.UpdateShipmentRequest(shipment=shipment("none", etag="1")), NOT_FOUND, "shipment.shipment_id"),
        ("UpdateShipment", shipment_pb2.UpdateShipmentRequest(shipment=shipment("there")), INVALID, "shipment.etag"),
        ("UpdateShipment", MASKED, INVALID, "update_mask"),
        ("CancelShipment", shipment_pb2.CancelShipmentRequest(shipment_id="none", actor="a", reason="r"), NOT_FOUND, "shipment_id"),
        ("CancelShipment", shipment_pb2.CancelShipmentRequest(shipment_id="there", actor="a"), INVALID, "reason"),
        ("AssignTag", shipment_pb2.AssignTagRequest(shipment_id="none", tag_id="t"), NOT_FOUND, "shipment_id"),
        ("AssignTag", shipment_pb2.AssignTagRequest(shipment_id="there"), INVALID, "tag_id"),
        (
            "AssignTag",
            assignment(handling_unit_id="none"),
            NOT_FOUND,
            "handling_unit_id",
        ),
        (
            "AssignTag",
            assignment(from_time=at(9), until_time=at(3)),
            INVALID,
            "until_time",
        ),
        ("ReleaseTag", shipment_pb2.ReleaseTagRequest(shipment_id="there", tag_id="never"), NOT_FOUND, "tag_id"),
        ("RecordMilestone", shipment_pb2.RecordMilestoneRequest(shipment_id="there"), INVALID, "milestone"),
        ("RecordMilestone", told(0), INVALID, "milestone.kind"),
        ("RecordMilestone", told(99), INVALID, "milestone.kind"),
        ("RecordMilestone", told(4), INVALID, "milestone.stop_id"),
        ("RecordMilestone", told(4, stop_id="none"), NOT_FOUND, "milestone.stop_id"),
        ("RecordMilestone", told(3, time=at(FUTURE_S)), INVALID, "milestone.time"),
        ("RecordMilestone", told(3, time=None), INVALID, "milestone.time"),
        ("RecordMilestone", told(3, shipment_id="none"), NOT_FOUND, "shipment_id"),
        ("ListMilestones", shipment_pb2.ListMilestonesRequest(shipment_id="none"), NOT_FOUND, "shipment_id"),
        ("GetTrack", shipment_pb2.GetTrackRequest(shipment_id="there", max_positions=-1), INVALID, "max_positions"),
        ("GetTrack", shipment_pb2.GetTrackRequest(shipment_id="none"), NOT_FOUND, "shipment_id"),
        ("GetExposure", shipment_pb2.GetExposureRequest(shipment_id="none"), NOT_FOUND, "shipment_id"),
        ("ListExcursions", shipment_pb2.ListExcursionsRequest(shipment_id="none"), NOT_FOUND, "shipment_id"),
        ("WatchShipment", shipment_pb2.WatchShipmentRequest(shipment_id="none"), NOT_FOUND, "shipment_id"),
        (
            "WatchShipment",
            shipment_pb2.WatchShipmentRequest(shipment_id="there", after_event_number=1 << 40),
            grpc.StatusCode.OUT_OF_RANGE,
            "after_event_number",
        ),
    ],
)
def test_refusal_names_the_field(door: Clients, method: str, request_: Any, code: grpc.StatusCode, field: str) -> None:
    refusal = refused(getattr(door.shipments, method), request_)
    assert (refusal.code, refusal.field) == (code, field)
