"""The first hour of a stranger with docs/api.md: from a shipment to an alert that a person has dealt with."""

from __future__ import annotations

import threading

import grpc
import pytest

from tests.acceptance.client import PATIENCE_S, Client, at, every, limit, minute_of, new_id, refused, told, us
from waybill.v1 import alert_pb2, common_pb2, shipment_pb2, telemetry_pb2


@pytest.fixture(scope="module")
def cold(client: Client) -> str:
    """A profile: 2 to 8 degrees, ten minutes allowed."""
    return client.profile(limit("above-8", 8, minutes=10), limit("below-2", 2, below=True, minutes=10))


def rows(tag_id: str, readings: list[tuple[float, float]]) -> telemetry_pb2.IngestRequest:
    one = [
        telemetry_pb2.Reading(tag_id=tag_id, sensed_at_us=us(minute), boot=1, sequence=int(minute), temperature_c=value)
        for minute, value in readings
    ]
    return telemetry_pb2.IngestRequest(batch_id="rows", rows=telemetry_pb2.ReadingRows(readings=one))


def columns(tag_id: str, readings: list[tuple[float, float]]) -> telemetry_pb2.IngestRequest:
    made = telemetry_pb2.ReadingColumns(tag_ids=[tag_id])
    made.tag_index.extend([0] * len(readings))
    made.sensed_at_us.extend(us(minute) for minute, _ in readings)
    made.boot.extend([1] * len(readings))
    made.sequence.extend(int(minute) for minute, _ in readings)
    made.columns.add(metric=common_pb2.METRIC_TEMPERATURE_C, values=[value for _, value in readings])
    return telemetry_pb2.IngestRequest(batch_id="columns", columns=made)


def test_a_client_creates_a_shipment_streams_readings_and_receives_the_alert(client: Client, cold: str) -> None:
    item = client.item()
    pallet = new_id("pallet")
    stops = [
        shipment_pb2.Stop(name="Basel", locode="CHBSL", planned_departure_time=at(0)),
        shipment_pb2.Stop(name="Rotterdam", locode="NLRTM", planned_arrival_time=at(24 * 60)),
    ]
    unit = shipment_pb2.HandlingUnit(
        handling_unit_id=pallet, kind="pallet", lots=[shipment_pb2.LotQuantity(item_id=item, lot_number="L1", quantity="12.5")]
    )
    shipment = client.shipment(cold, stops=stops, handling_units=[unit], reference="PO 4711")
    tag = new_id("logger")
    client.assign(shipment, tag, 0, unit=pallet)

    good, warm = every(5, [5.0] * 4), every(5, [9.0, 9.5, 9.2, 8.8], start=20)
    answers = client.stream([rows(tag, good), columns(tag, warm)])

    assert [(answer.batch_id, answer.accepted, answer.refused) for answer in answers] == [("rows", 4, 0), ("columns", 4, 0)]
    [message], cursor = client.watch(0, 1, shipment_id=shipment)
    assert message.change == alert_pb2.ALERT_CHANGE_RAISED
    assert message.event_number == cursor <= answers[1].last_event_number
    alert = message.alert
    assert (alert.kind, alert.state, alert.active) == (alert_pb2.ALERT_KIND_GOODS, alert_pb2.ALERT_STATE_OPEN, True)
    assert (alert.carrier, alert.limit_id, list(alert.tag_ids)) == (f"shipment/{shipment}", "above-8", [tag])
    assert minute_of(alert.started_time) == 20
    [excursion] = client.excursions(shipment)
    assert told(excursion)[:5] == ("above-8", "CONFIRMED", 20, 30, None), "confirmed when ten minutes were full"
    assert [(lot.item_id, lot.lot_number) for lot in excursion.lots] == [(item, "L1")]
    assert excursion.handling_unit_id == pallet
    assert excursion.alert_id == alert.alert_id
    assert client.exposure(shipment).verdict == common_pb2.VERDICT_EXCURSION


def test_an_alert_reaches_a_watcher_that_waits(client: Client, cold: str) -> None:
    tag = new_id("logger")
    shipment = client.shipment(cold, tag)
    call = client.alerting.WatchAlerts(alert_pb2.WatchAlertsRequest(filter=alert_pb2.AlertFilter(shipment_id=shipment)), timeout=PATIENCE_S)
    first = next(call)
    assert not first.HasField("alert"), "the first message is progress: it tells where the watch begins"
    threading.Timer(0.2, client.send, (tag, *every(5, [9.0] * 3))).start()
    message = next(message for message in call if message.HasField("alert"))
    call.cancel()
    assert message.event_number > first.event_number
    assert message.alert.carrier == f"shipment/{shipment}"


def test_a_watcher_that_reconnects_with_its_cursor_misses_nothing_and_sees_nothing_twice(client: Client, cold: str) -> None:
    tags = [new_id("logger") for _ in range(6)]
    shipments = [client.shipment(cold, tag) for tag in tags]
    start, _ = first_cursor(client), None
    last = 0
    for turn in range(4):  # warm for 15 minutes, cold for 15: each turn raises or brings back, and clears
        for tag in tags:
            last = client.send(tag, *every(5, [9.0, 9.0, 9.0, 5.0, 5.0, 5.0], start=30 * turn)).last_event_number
    whole, _ = client.watch(start, 10**9, until_number=last)
    pieces, cursor = [], start
    while cursor < last:
        some, cursor = client.watch(cursor, 5, until_number=last)
        pieces += some
    numbers = [message.event_number for message in pieces]
    assert numbers == sorted(set(numbers)), "increasing, none twice"
    assert [message.SerializeToString() for message in pieces] == [message.SerializeToString() for message in whole]
    mine = {f"shipment/{shipment}" for shipment in shipments}
    assert {message.alert.carrier for message in pieces} >= mine
    listed = {alert.alert_id: alert.etag for shipment in shipments for alert in client.alerts(shipment)}
    newest = {message.alert.alert_id: message.alert.etag for message in pieces if message.alert.carrier in mine}
    assert newest == listed, "the last message of each alert is what the alert is now"


def first_cursor(client: Client) -> int:
    call = client.alerting.WatchAlerts(alert_pb2.WatchAlertsRequest(), timeout=PATIENCE_S)
    number = next(call).event_number
    call.cancel()
    return number


def test_a_cursor_of_another_database_is_refused(client: Client) -> None:
    request = alert_pb2.WatchAlertsRequest(after_event_number=10**12)
    assert refused(lambda: next(client.alerting.WatchAlerts(request, timeout=PATIENCE_S)))[:2] == (
        grpc.StatusCode.OUT_OF_RANGE, "OUT_OF_RANGE",
    )  # fmt: skip


def test_one_open_alert_stands_for_a_condition_however_many_tags_saw_it(client: Client, cold: str) -> None:
    tags = sorted(new_id("logger") for _ in range(5))
    shipment = client.shipment(cold, *tags)
    for late, tag in enumerate(tags):
        client.send(tag, *every(5, [9.0 + late] * 4, start=late))
    [alert] = client.alerts(shipment)
    assert sorted(alert.tag_ids) == tags
    assert (alert.excursions, alert.open_excursions) == (5, 5)
    assert (alert.extreme, minute_of(alert.extreme_time), minute_of(alert.started_time)) == (13.0, 4, 0)
    for tag in tags:
        client.send(tag, (60, 5.0))
    [alert] = client.alerts(shipment)
    assert (alert.excursions, alert.open_excursions, alert.active) == (5, 0, False)
    assert alert.state == alert_pb2.ALERT_STATE_OPEN, "the condition is over, and a person has still to look"
    changes = [change for change, _ in client.history(alert.alert_id)]
    assert changes[0] == "RAISED"
    assert changes[-1] == "CLEARED"
    assert changes.count("RAISED") == 1


def test_two_limits_are_two_conditions(client: Client, cold: str) -> None:
    tag = new_id("logger")
    shipment = client.shipment(cold, tag)
    client.send(tag, *every(5, [9.0, 9.0, 9.0, 1.0, 1.0, 1.0]))
    assert {alert.limit_id: alert.active for alert in client.alerts(shipment)} == {"above-8": False, "below-2": True}


def test_a_person_acknowledges_assigns_comments_and_resolves(client: Client, cold: str) -> None:
    tag = new_id("logger")
    shipment = client.shipment(cold, tag)
    client.send(tag, *every(5, [9.0] * 3))
    [alert] = client.alerts(shipment)
    service = client.alerting
    stale = alert.etag

    acknowledge = alert_pb2.AcknowledgeAlertRequest(alert_id=alert.alert_id, etag=stale, actor="ana", comment="on it")
    alert = service.AcknowledgeAlert(acknowledge, timeout=PATIENCE_S).alert
    assert (alert.state, alert.acknowledged_by) == (alert_pb2.ALERT_STATE_ACKNOWLEDGED, "ana")
    assert service.AcknowledgeAlert(acknowledge, timeout=PATIENCE_S).alert.etag == alert.etag, "sent again after a lost answer"
    other = alert_pb2.ResolveAlertRequest(alert_id=alert.alert_id, etag=stale, actor="bo", reason="fine")
    assert refused(lambda: service.ResolveAlert(other))[:2] == (grpc.StatusCode.ABORTED, "STALE_ETAG")

    alert = service.AssignAlert(
        alert_pb2.AssignAlertRequest(alert_id=alert.alert_id, etag=alert.etag, actor="ana", assignee="bo"), timeout=PATIENCE_S
    ).alert
    alert = service.CommentAlert(
        alert_pb2.CommentAlertRequest(alert_id=alert.alert_id, etag=alert.etag, actor="bo", comment="door was open"), timeout=PATIENCE_S
    ).alert
    alert = service.ResolveAlert(
        alert_pb2.ResolveAlertRequest(alert_id=alert.alert_id, etag=alert.etag, actor="bo", reason="door closed"), timeout=PATIENCE_S
    ).alert
    assert (alert.state, alert.assigned_to, alert.resolved_by, alert.resolution) == (
        alert_pb2.ALERT_STATE_RESOLVED, "bo", "bo", "door closed",
    )  # fmt: skip
    history = client.alert(alert.alert_id).history
    assert [(alert_pb2.AlertChange.Name(one.change)[13:], one.actor, one.text) for one in history if one.actor] == [
        ("ACKNOWLEDGED", "ana", "on it"), ("ASSIGNED", "ana", history[2].text), ("COMMENTED", "bo", "door was open"),
        ("RESOLVED", "bo", "door closed"),
    ]  # fmt: skip
    assert all(one.recorded_time.seconds for one in history)


def test_after_resolving_the_next_excursion_raises_a_new_alert(client: Client, cold: str) -> None:
    tag = new_id("logger")
    shipment = client.shipment(cold, tag)
    client.send(tag, *every(5, [9.0, 9.0, 9.0, 5.0]))
    [first] = client.alerts(shipment)
    client.alerting.ResolveAlert(
        alert_pb2.ResolveAlertRequest(alert_id=first.alert_id, etag=first.etag, actor="ana", reason="seen"), timeout=PATIENCE_S
    )
    client.send(tag, *every(5, [9.0, 9.0, 9.0], start=60))
    second, again = client.alerts(shipment)
    assert (again.alert_id, again.state) == (first.alert_id, alert_pb2.ALERT_STATE_RESOLVED)
    assert (second.state, second.active, minute_of(second.started_time)) == (alert_pb2.ALERT_STATE_OPEN, True, 60)


def test_a_shipments_watch_tells_everything_that_happens_to_it_in_order(client: Client, cold: str) -> None:
    tag = new_id("logger")
    shipment = client.shipment(cold, tag)
    last = client.send(tag, *every(5, [9.0, 9.0, 9.0, 5.0])).last_event_number
    call = client.shipments.WatchShipment(shipment_pb2.WatchShipmentRequest(shipment_id=shipment, after_event_number=0), timeout=PATIENCE_S)
    seen = []
    for message in call:
        if message.HasField("event"):
            seen.append((message.event_number, message.event.kind))
        if message.event_number >= last:
            break
    call.cancel()
    kinds = [kind for _, kind in seen]
    assert [number for number, _ in seen] == sorted({number for number, _ in seen})
    assert kinds[0] == "shipment.created"
    assert {"custody.assigned", "alert.raised"} <= set(kinds)
    assert any(kind.startswith("excursion.") for kind in kinds)
