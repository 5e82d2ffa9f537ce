"""What the clock decides: silence, lateness, and readings that are no longer in the future."""

from __future__ import annotations

import time

from tests.acceptance.client import BEGIN_US, MINUTE_US, Client, at, eventually, limit, minute_of, new_id, stamp
from waybill.v1 import alert_pb2, shipment_pb2, tag_pb2

SILENCE, LATENESS = alert_pb2.ALERT_KIND_SILENCE, alert_pb2.ALERT_KIND_LATENESS


def minute_now() -> float:
    return (time.time_ns() // 1000 - BEGIN_US) / MINUTE_US


def register(client: Client, tag: str, **settings: float) -> None:
    client.tags.RegisterTag(tag_pb2.RegisterTagRequest(tag=tag_pb2.Tag(tag_id=tag, **settings)), timeout=30)


def test_a_tag_that_rides_and_goes_silent_raises_an_alert_which_its_next_reading_closes(client: Client) -> None:
    tag = new_id("t")
    register(client, tag, usual_interval_s=0.2)
    shipment = client.shipment("", tag)
    client.send(tag, (0, 5.0))
    [alert] = eventually(lambda: client.alerts(shipment, SILENCE))
    assert (alert.kind, alert.tag_id, alert.state, alert.active) == (SILENCE, tag, alert_pb2.ALERT_STATE_OPEN, True)
    assert alert.carrier == f"shipment/{shipment}"
    assert client.twin(tag).silent
    client.send(tag, (5, 5.0))
    assert "CLEARED" in [change for change, _ in client.history(alert.alert_id)], "closed in the commit of the reading"


def test_late_data_closes_a_silence_and_never_rewrites_it(client: Client) -> None:
    tag = new_id("t")
    register(client, tag, usual_interval_s=0.5)
    shipment = client.shipment("", tag)
    client.send(tag, (0, 5.0), (60, 5.0))
    [alert] = eventually(lambda: client.alerts(shipment, SILENCE))
    client.send(tag, (30, 5.0))
    history = client.history(alert.alert_id)
    assert [change for change, _ in history][:2] == ["RAISED", "CLEARED"]
    assert client.alert(alert.alert_id).state != alert_pb2.ALERT_STATE_WITHDRAWN


def test_a_tag_whose_interval_is_not_known_yet_is_not_silent(client: Client) -> None:
    tag = new_id("t")
    shipment = client.shipment("", tag)
    client.send(tag, (0, 5.0))
    time.sleep(1)
    assert client.alerts(shipment, SILENCE) == []
    assert not client.twin(tag).silent


def test_silences_of_the_past_are_found_in_the_series(client: Client) -> None:
    tag = new_id("t")
    client.send(tag, *[(minute, 5.0) for minute in (0, 5, 10, 15, 20, 90, 95, 100)])
    found = client.tags.ListSilences(tag_pb2.ListSilencesRequest(tag_id=tag), timeout=30).silences
    assert (minute_of(found[0].from_time), minute_of(found[0].until_time)) == (20, 90)


def test_an_arrival_that_is_overdue_raises_an_alert_once_and_the_arrival_ends_it(client: Client) -> None:
    stops = [
        shipment_pb2.Stop(stop_id="from", planned_departure_time=at(0)),
        shipment_pb2.Stop(stop_id="to", planned_arrival_time=stamp(time.time_ns() // 1000 + MINUTE_US // 60)),
    ]
    shipment = client.shipment("", stops=stops)
    client.milestone(shipment, shipment_pb2.MILESTONE_KIND_DEPARTED, 1, "from")
    assert client.alerts(shipment, LATENESS) == [], "a second is left"
    [alert] = eventually(lambda: client.alerts(shipment, LATENESS))
    assert (alert.kind, alert.stop_id, alert.active) == (LATENESS, "to", True)
    client.milestone(shipment, shipment_pb2.MILESTONE_KIND_ARRIVED, minute_now(), "to")
    [alert] = eventually(lambda: client.alerts(shipment, LATENESS), lambda found: not found[0].active)
    assert not alert.active
    assert [change for change, _ in client.history(alert.alert_id)] == ["RAISED", "CLEARED"]


def test_a_reading_from_the_future_is_kept_flagged_and_outside_the_rules(client: Client) -> None:
    tag = new_id("t")
    shipment = client.shipment(client.profile(limit("above-8", 8)), tag)
    ahead = round(minute_now() + 30, 3)
    answer = client.send(tag, (0, 5.0), (ahead, 25.0))
    assert answer.accepted == 2
    twin = client.twin(tag)
    assert twin.counters.future == 1
    assert minute_of(twin.last_sensed_time) == 0
    assert client.told(shipment) == []
    assert client.alerts(shipment) == []
    assert client.send(tag, (ahead, 25.0)).duplicate == 1, "it is known all the same"
    client.send(tag, (5, 5.0))
    assert client.twin(tag).counters.late == 0, "not late: what lies in the future is not the newest yet"


def test_a_reading_is_judged_once_it_is_no_longer_in_the_future(client: Client) -> None:
    tag = new_id("t")
    shipment = client.shipment(client.profile(limit("above-8", 8)), tag)
    client.send(tag, (0, 5.0))
    soon = round(minute_now() + 10 + 2 / 60, 3)
    client.send(tag, (soon, 25.0))
    assert client.told(shipment) == []
    assert client.twin(tag).counters.future == 1
