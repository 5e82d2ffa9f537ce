"""Custody decides the carrier by sensed time, whatever is true when readings arrive."""

from __future__ import annotations

import grpc
import pytest

from tests.acceptance.client import Client, at, cause_of, every, limit, minute_of, new_id, refused, told
from waybill.v1 import alert_pb2, common_pb2, exposure_pb2, profile_pb2, tag_pb2

WARM, GOOD = 9.0, 5.0
HOT = every(5, [WARM, WARM, WARM, WARM, GOOD])  # 0 to 20


@pytest.fixture(scope="module")
def cold(client: Client) -> str:
    """A profile: at most 8 degrees, ten minutes allowed."""
    return client.profile(limit("above-8", 8, minutes=10))


def test_a_backlog_belongs_to_the_first_shipment_though_the_tag_rides_on_the_second(client: Client, cold: str) -> None:
    tag = new_id("t")
    first, second = client.shipment(cold, tag), client.shipment(cold)
    client.send(tag, (0, GOOD))
    client.release(first, tag, 60)
    client.assign(second, tag, 60)
    client.send(tag, (65, GOOD), (70, GOOD))
    client.send(tag, (5, WARM), (10, WARM), (20, GOOD), (55, WARM))  # the gateway was offline until now
    assert client.told(first) == [("above-8", "ENDED", 5, 15, 20, 15)], "the last reading holds five minutes, to the custody's end"
    assert client.told(second) == [], "nothing holds into a custody from before its start"
    [excursion] = client.excursions(first)
    assert excursion.found_late
    assert cause_of(excursion) == "LATE"
    assert [alert.carrier for alert in client.alerts(tag_id=tag)] == [f"shipment/{first}"]
    assert client.exposure(first).verdict == common_pb2.VERDICT_EXCURSION
    assert client.exposure(second).verdict == common_pb2.VERDICT_WITHIN_LIMITS


def test_a_backdated_custody_judges_what_was_there_already(client: Client, cold: str) -> None:
    tag = new_id("t")
    client.send(tag, *HOT)
    shipment = client.shipment(cold)
    client.assign(shipment, tag, 0)
    [excursion] = client.excursions(shipment)
    assert told(excursion) == ("above-8", "ENDED", 0, 10, 20, 20)
    assert cause_of(excursion) == "CUSTODY"
    assert excursion.found_late


def test_a_custody_that_is_wholly_in_the_past_is_judged_too(client: Client, cold: str) -> None:
    tag = new_id("t")
    client.send(tag, *HOT)
    shipment = client.shipment(cold)
    client.assign(shipment, tag, 5, 18)
    assert client.told(shipment) == [("above-8", "ENDED", 5, 15, 18, 13)]
    exposure = client.exposure(shipment)
    assert exposure.closed
    assert exposure.limits[0].violation_us == 13 * 60_000_000


def test_a_backdated_release_takes_readings_away_again(client: Client, cold: str) -> None:
    tag = new_id("t")
    shipment = client.shipment(cold, tag)
    client.send(tag, *HOT)
    client.release(shipment, tag, 8)
    assert client.told(shipment) == []
    [excursion] = client.excursions(shipment, all_of_them=True)
    assert excursion.state == exposure_pb2.EXCURSION_STATE_RETRACTED
    [alert] = client.alerts(shipment)
    assert alert.state == alert_pb2.ALERT_STATE_WITHDRAWN


def test_an_open_run_ends_where_custody_ends_and_the_last_reading_holds_until_then(client: Client, cold: str) -> None:
    tag = new_id("t")
    shipment = client.shipment(cold, tag)
    client.send(tag, (0, GOOD), (5, WARM))
    assert client.told(shipment) == [], "the newest reading holds nothing yet"
    client.release(shipment, tag, 20)
    assert client.told(shipment) == [("above-8", "ENDED", 5, 15, 20, 15)]
    [excursion] = client.excursions(shipment)
    assert cause_of(excursion) == "CLOSED"


def test_a_corrected_custody_re_judges_both_carriers_and_keeps_what_it_said(client: Client, cold: str) -> None:
    tag = new_id("t")
    first, second = client.shipment(cold), client.shipment(cold)
    a, b = client.assign(first, tag, 0, 10), client.assign(second, tag, 10, 60)
    client.send(tag, *HOT, (60, GOOD))
    assert client.told(first) == [("above-8", "ENDED", 0, 10, 10, 10)]
    assert client.told(second) == [("above-8", "ENDED", 10, 20, 20, 10)]

    b = client.correct(b, from_time=at(12))
    a = client.correct(a, until_time=at(12))
    assert client.told(first) == [("above-8", "ENDED", 0, 10, 12, 12)]
    assert client.told(second) == [], "12 to 20: eight minutes"
    [gone] = client.excursions(second, all_of_them=True)
    assert (gone.state, cause_of(gone)) == (exposure_pb2.EXCURSION_STATE_RETRACTED, "CUSTODY")
    listed = client.tags.ListCustodies(tag_pb2.ListCustodiesRequest(tag_id=tag, include_history=True), timeout=30).custodies
    assert [(one.carrier, minute_of(one.from_time), minute_of(one.until_time)) for one in listed] == [
        (f"shipment/{first}", 0, 12), (f"shipment/{second}", 12, 60),
    ]  # fmt: skip
    assert [(one.cause, minute_of(one.until_time)) for one in listed[0].history] == [("assigned", 10), ("corrected", 12)]


def test_a_retracted_custody_takes_its_excursions_and_alerts_with_it(client: Client, cold: str) -> None:
    tag = new_id("t")
    shipment, right = client.shipment(cold), client.shipment(cold)
    custody = client.assign(shipment, tag, 0)
    client.send(tag, *HOT)
    client.correct(custody, retracted=True)
    client.assign(right, tag, 0)
    assert client.told(shipment) == []
    assert client.told(right) == [("above-8", "ENDED", 0, 10, 20, 20)]
    assert [alert.state for alert in client.alerts(shipment)] == [alert_pb2.ALERT_STATE_WITHDRAWN]
    assert client.exposure(shipment).verdict == common_pb2.VERDICT_NO_DATA


def test_a_closed_custody_can_be_opened_again(client: Client, cold: str) -> None:
    tag = new_id("t")
    shipment = client.shipment(cold, tag)
    client.send(tag, (0, GOOD), (5, WARM))
    custody = client.release(shipment, tag, 10)
    assert client.told(shipment) == []
    open_again = tag_pb2.CorrectCustodyRequest(
        custody=tag_pb2.Custody(custody_id=custody.custody_id, tag_id=tag, etag=custody.etag),
        update_mask={"paths": ["until_time"]}, actor="test", reason="it rides on",
    )  # fmt: skip
    client.tags.CorrectCustody(open_again, timeout=30)
    client.send(tag, (15, WARM), (25, GOOD))
    assert client.told(shipment) == [("above-8", "ENDED", 5, 15, 25, 20)]


def test_custodies_of_one_tag_on_one_carrier_add_up_for_cumulative_limits(client: Client) -> None:
    profile = client.profile(limit("sum", 8, minutes=30, mode=profile_pb2.LIMIT_MODE_CUMULATIVE))
    tag = new_id("t")
    shipment = client.shipment(profile)
    client.assign(shipment, tag, 0, 20)
    client.assign(shipment, tag, 60)
    client.send(tag, (0, WARM), (60, WARM), (80, GOOD))
    assert client.told(shipment) == [("sum", "ENDED", 60, 70, 80, 20)], "20 minutes in the first custody, 10 of the second"
    client.send(tag, (10, GOOD))
    assert client.told(shipment) == [("sum", "ENDED", 60, 80, 80, 20)], "a late reading in the first moves the trigger in the second"
    client.send(tag, (9, GOOD))
    assert client.told(shipment) == []


def test_overlaps_ends_in_the_future_and_stale_etags_are_refused(client: Client, cold: str) -> None:
    tag = new_id("t")
    first, second = client.shipment(cold, tag), client.shipment(cold)
    status, reason, _ = refused(lambda: client.assign(second, tag, 30))
    assert (status, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CUSTODY_OVERLAP")
    custody = client.assign(first, tag, 0)  # the same again: the first answer
    assert refused(lambda: client.release(first, tag, 10**5))[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    corrected = client.correct(custody, from_time=at(1))
    assert refused(lambda: client.correct(custody, from_time=at(2)))[:2] == (grpc.StatusCode.ABORTED, "STALE_ETAG")
    assert minute_of(corrected.from_time) == 1
    assert refused(lambda: client.correct(corrected, until_time=at(1)))[0] == grpc.StatusCode.INVALID_ARGUMENT
