"""Telemetry, tags and alerts of a running Waybill, seen by a gRPC client: what is promised."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc.error_details_pb2 import BadRequest

from tests.services.running import BEGIN_US, MINUTE_US, NOW_US, Client, at, refusal, shipment_with
from waybill.v1 import (
    alert_pb2,
    common_pb2,
    profile_pb2,
    shipment_pb2,
    tag_pb2,
    telemetry_pb2,
)

if TYPE_CHECKING:
    from cluster.boot import Running


@pytest.fixture(scope="module")
def client(waybill: Running) -> Iterator[Client]:
    made = Client(waybill.target)
    yield made
    made.channel.close()


@pytest.fixture(scope="module")
def profile(client: Client) -> str:
    """2 to 8 degrees, an excursion at once."""
    limit = profile_pb2.Limit(
        limit_id="above-8",
        metric=common_pb2.METRIC_TEMPERATURE_C,
        direction=profile_pb2.DIRECTION_ABOVE,
        mode=profile_pb2.LIMIT_MODE_SINGLE,
        threshold=8.0,
        allowance_s=0.0,
        severity=common_pb2.SEVERITY_CRITICAL,
    )
    made = profile_pb2.Profile(profile_id="at-once", name="above 8 at once", limits=[limit])
    client.profiles.CreateProfile(profile_pb2.CreateProfileRequest(profile=made), timeout=30)
    return "at-once"


# ---------------------------------------------------------------- readings


def test_a_batch_is_accepted_once_and_its_copy_is_a_duplicate(client: Client) -> None:
    assert client.send("r1", [5.0, 6.0]).accepted == 2
    again = client.send("r1", [5.0, 6.0])
    assert (again.accepted, again.duplicate) == (0, 2)


def test_other_content_under_the_same_identity_is_put_aside_and_listed(client: Client) -> None:
    client.send("c1", [5.0, 6.0, 7.0], sequence=10)
    result = client.send("c1", [5.0, 6.5, 7.0], sequence=10)
    assert (result.duplicate, result.conflicting, list(result.conflicting_indexes)) == (2, 1, [1])
    [conflict] = client.tags.ListConflicts(tag_pb2.ListConflictsRequest(tag_id="c1"), timeout=30).conflicts
    assert (conflict.boot, conflict.sequence) == (1, 11)
    [value] = conflict.values
    assert (value.metric, value.kept, value.aside) == (common_pb2.METRIC_TEMPERATURE_C, 6.0, 6.5)


def test_in_a_batch_the_good_readings_are_kept_and_each_other_one_is_answered(client: Client) -> None:
    result = client.send("g1", [5.0, -400.0, float("nan"), 6.0])
    assert (result.accepted, result.refused, list(result.refused_indexes)) == (2, 2, [1, 2])
    assert [(one.index, one.field, bool(one.rule)) for one in result.refusals] == [(1, "temperature_c", True), (2, "temperature_c", True)]


def test_a_stream_answers_in_order_and_goes_on_after_a_message_that_is_wrong_as_a_whole(client: Client) -> None:
    uneven = telemetry_pb2.ReadingColumns(tag_ids=["s1"], tag_index=[0, 0], sensed_at_us=[BEGIN_US])
    good = telemetry_pb2.Reading(tag_id="s1", sensed_at_us=BEGIN_US, temperature_c=5.0)
    rows = telemetry_pb2.ReadingRows(readings=[good])
    messages = [
        telemetry_pb2.IngestRequest(batch_id="a", rows=rows),
        telemetry_pb2.IngestRequest(batch_id="b", columns=uneven),
        telemetry_pb2.IngestRequest(batch_id="c"),
        telemetry_pb2.IngestRequest(batch_id="d", rows=rows),
    ]
    answers = list(client.telemetry.Ingest(iter(messages), timeout=30))
    assert [answer.batch_id for answer in answers] == ["a", "b", "c", "d"]
    assert [answer.error.code for answer in answers] == [0, 3, 3, 0]
    assert [answer.accepted + answer.duplicate for answer in answers] == [1, 0, 0, 1]
    bad = BadRequest()
    answers[1].error.details[1].Unpack(bad)
    assert bad.field_violations[0].field == "columns.tag_index"


def test_a_frame_that_is_no_message_ends_the_stream_after_the_answers_before_it(client: Client) -> None:
    rows = telemetry_pb2.ReadingRows(readings=[telemetry_pb2.Reading(tag_id="before-a-frame", sensed_at_us=BEGIN_US, temperature_c=5.0)])
    good = telemetry_pb2.IngestRequest(batch_id="good", rows=rows).SerializeToString()
    ingest = client.channel.stream_stream("/waybill.v1.TelemetryService/Ingest", None, telemetry_pb2.IngestResponse.FromString)
    answers = ingest(iter([good, b"\xff\xff\xff"]), timeout=30)
    assert next(answers).batch_id == "good"
    with pytest.raises(grpc.RpcError) as ended:
        next(answers)
    assert ended.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"\x0a\x64abc", b"\x0a\x03\xff\xff\xff"])
def test_a_call_whose_bytes_are_no_message_is_invalid_argument_not_unknown(client: Client, garbage: bytes) -> None:
    call = client.channel.unary_unary("/waybill.v1.TelemetryService/IngestBatch", None, None)
    with pytest.raises(grpc.RpcError) as refused:
        call(garbage, timeout=30)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_many_streams_at_once_are_all_answered(client: Client) -> None:
    def messages(gateway: int) -> Iterator[telemetry_pb2.IngestRequest]:
        for number in range(5):
            columns = telemetry_pb2.ReadingColumns(tag_ids=[f"m{gateway}-{i}" for i in range(10)])
            columns.tag_index.extend(range(10))
            columns.sensed_at_us.extend([BEGIN_US + number * MINUTE_US] * 10)
            columns.columns.add(metric=common_pb2.METRIC_TEMPERATURE_C, values=[5.0] * 10)
            yield telemetry_pb2.IngestRequest(batch_id=str(number), columns=columns)

    calls = [client.telemetry.Ingest(messages(gateway), timeout=60) for gateway in range(30)]
    for call in calls:
        answers = list(call)
        assert [answer.batch_id for answer in answers] == list("01234")
        assert [answer.accepted for answer in answers] == [10] * 5


def test_a_time_far_in_the_future_is_kept_and_counted(client: Client) -> None:
    result = client.send("f1", [5.0], from_us=NOW_US + 24 * 60 * MINUTE_US)
    assert result.accepted == 1
    twin = client.tags.GetTagTwin(tag_pb2.GetTagTwinRequest(tag_id="f1"), timeout=30).twin
    assert twin.counters.future == 1
    [message] = client.telemetry.ReadTagSeries(telemetry_pb2.ReadTagSeriesRequest(tag_id="f1"), timeout=30)
    assert list(message.series.columns[0].flags) == [common_pb2.QUALITY_FLAG_FAIL], "an impossible date, until it has come"


def test_a_series_is_read_back_in_sensed_order_with_flags_whatever_the_order_of_arrival(client: Client) -> None:
    client.send("o1", [7.0, 8.0], from_us=BEGIN_US + 10 * MINUTE_US)
    client.send("o1", [5.0, 6.0], from_us=BEGIN_US)
    [message] = client.telemetry.ReadTagSeries(telemetry_pb2.ReadTagSeriesRequest(tag_id="o1"), timeout=30)
    assert list(message.series.sensed_at_us) == [BEGIN_US + i * MINUTE_US for i in (0, 1, 10, 11)]
    [column] = message.series.columns
    assert list(column.values) == [5.0, 6.0, 7.0, 8.0]
    assert set(column.flags) == {common_pb2.QUALITY_FLAG_NOT_EVALUATED}
    part = list(
        client.telemetry.ReadTagSeries(
            telemetry_pb2.ReadTagSeriesRequest(tag_id="o1", from_time=at(BEGIN_US + MINUTE_US), until_time=at(BEGIN_US + 10 * MINUTE_US)),
            timeout=30,
        )
    )
    assert [list(one.series.columns[0].values) for one in part] == [[6.0]]


def test_a_long_series_comes_in_pieces_of_ten_thousand_rows(client: Client) -> None:
    n = 25_000
    columns = telemetry_pb2.ReadingColumns(tag_ids=["l1"], tag_index=[0] * n, sensed_at_us=[BEGIN_US - i * 1_000_000 for i in range(n)])
    columns.columns.add(metric=common_pb2.METRIC_TEMPERATURE_C, values=[5.0] * n)
    request = telemetry_pb2.IngestBatchRequest(batch=telemetry_pb2.IngestRequest(columns=columns))
    assert client.telemetry.IngestBatch(request, timeout=60).result.accepted == n
    pieces = list(client.telemetry.ReadTagSeries(telemetry_pb2.ReadTagSeriesRequest(tag_id="l1"), timeout=60))
    assert [len(piece.series.sensed_at_us) for piece in pieces] == [10_000, 10_000, 5_000]
    times = [us for piece in pieces for us in piece.series.sensed_at_us]
    assert times == sorted(times)


def test_a_shipments_series_is_what_its_custodies_hold(client: Client, profile: str) -> None:
    shipment_id = shipment_with(client, profile, "sh1", "sh2")
    client.send("sh1", [4.0, 5.0], from_us=BEGIN_US - MINUTE_US)  # the first one is from before the custody
    client.send("sh2", [6.0])
    request = telemetry_pb2.ReadShipmentSeriesRequest(shipment_id=shipment_id)
    pieces = list(client.telemetry.ReadShipmentSeries(request, timeout=30))
    assert [(piece.series.tag_id, list(piece.series.columns[0].values)) for piece in pieces] == [("sh1", [5.0]), ("sh2", [6.0])]
    assert all(piece.custody_id for piece in pieces)


# ---------------------------------------------------------------- tags


def test_the_twin_knows_newest_values_counters_and_where_the_tag_rides(client: Client, profile: str) -> None:
    shipment_id = shipment_with(client, profile, "tw1")
    client.send("tw1", [4.0, 5.0, 6.0])
    client.send("tw1", [4.0])
    twin = client.tags.GetTagTwin(tag_pb2.GetTagTwinRequest(tag_id="tw1"), timeout=30).twin
    assert twin.carrier == f"shipment/{shipment_id}"
    assert (twin.counters.accepted, twin.counters.duplicate) == (3, 1)
    [last] = twin.last_values
    assert (last.metric, last.value, last.sensed_time) == (common_pb2.METRIC_TEMPERATURE_C, 6.0, at(BEGIN_US + 2 * MINUTE_US))


def test_quality_settings_flag_what_they_test(client: Client) -> None:
    client.send("q1", [5.0, 95.0, 6.0])
    tests = tag_pb2.QualityTests(metric=common_pb2.METRIC_TEMPERATURE_C, fail_low=-50, fail_high=60)
    registered = client.tags.RegisterTag(tag_pb2.RegisterTagRequest(tag=tag_pb2.Tag(tag_id="q1", quality=[tests])), timeout=30).tag
    assert [(one.fail_low, one.fail_high) for one in registered.quality] == [(-50.0, 60.0)]
    twin = client.tags.GetTagTwin(tag_pb2.GetTagTwinRequest(tag_id="q1"), timeout=30).twin
    assert twin.counters.fail == 1
    assert twin.last_values[0].flag == common_pb2.QUALITY_FLAG_GOOD


def test_registering_the_same_again_does_no_harm_and_other_content_is_refused(client: Client) -> None:
    request = tag_pb2.RegisterTagRequest(tag=tag_pb2.Tag(tag_id="reg1", kind=tag_pb2.TAG_KIND_LOGGER, usual_interval_s=600))
    first = client.tags.RegisterTag(request, timeout=30).tag
    assert client.tags.RegisterTag(request, timeout=30).tag == first
    request.tag.usual_interval_s = 60
    code, reason, field = refusal(lambda: client.tags.RegisterTag(request, timeout=30))
    assert (code, reason, field) == (grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS", "tag_id")


def test_an_update_changes_what_its_mask_names_and_needs_the_current_etag(client: Client) -> None:
    client.tags.RegisterTag(tag_pb2.RegisterTagRequest(tag=tag_pb2.Tag(tag_id="up1", description="a", labels={"k": "v"})), timeout=30)
    old = client.tags.GetTag(tag_pb2.GetTagRequest(tag_id="up1"), timeout=30).tag
    change = tag_pb2.Tag(tag_id="up1", description="b", etag=old.etag)
    request = tag_pb2.UpdateTagRequest(tag=change, update_mask=FieldMask(paths=["description"]))
    new = client.tags.UpdateTag(request, timeout=30).tag
    assert (new.description, dict(new.labels)) == ("b", {"k": "v"})
    assert new.etag != old.etag
    assert refusal(lambda: client.tags.UpdateTag(request, timeout=30))[:2] == (grpc.StatusCode.ABORTED, "STALE_ETAG")


def test_tags_are_listed_in_pages(client: Client) -> None:
    for i in range(7):
        client.send(f"page-{i}", [5.0])
    seen: list[str] = []
    token = ""
    while True:
        answer = client.tags.ListTags(tag_pb2.ListTagsRequest(page_size=3, id_prefix="page-", page_token=token), timeout=30)
        seen += [tag.tag_id for tag in answer.tags]
        token = answer.next_page_token
        if not token:
            break
    assert seen == [f"page-{i}" for i in range(7)]


def test_silences_are_found_in_the_series(client: Client) -> None:
    client.send("si1", [5.0] * 10)
    client.send("si1", [5.0] * 10, from_us=BEGIN_US + 60 * MINUTE_US)
    found = client.tags.ListSilences(
        tag_pb2.ListSilencesRequest(tag_id="si1", until_time=at(BEGIN_US + 100 * MINUTE_US)), timeout=30
    ).silences
    assert [(one.from_time, one.until_time) for one in found] == [(at(BEGIN_US + 9 * MINUTE_US), at(BEGIN_US + 60 * MINUTE_US))]


def test_completeness_names_what_is_missing(client: Client, profile: str) -> None:
    shipment_with(client, profile, "co1")
    client.send("co1", [5.0, 5.0], sequence=1)
    client.send("co1", [5.0, 5.0], from_us=BEGIN_US + 5 * MINUTE_US, sequence=6)
    [row] = client.tags.GetCompleteness(tag_pb2.GetCompletenessRequest(tag_id="co1"), timeout=30).completeness
    assert (row.expected, row.received, row.missing) == (7, 4, 3)
    assert [(hole.first, hole.last) for hole in row.missing_ranges] == [(3, 5)]
    assert row.custody_id


def test_a_corrected_custody_re_judges_and_keeps_what_it_said(client: Client, profile: str) -> None:
    shipment_id = shipment_with(client, profile, "cc1")
    client.send("cc1", [9.0, 5.0])
    exposure = client.shipments.GetExposure(shipment_pb2.GetExposureRequest(shipment_id=shipment_id), timeout=30).exposure
    assert exposure.verdict == common_pb2.VERDICT_EXCURSION
    [custody] = client.tags.ListCustodies(tag_pb2.ListCustodiesRequest(tag_id="cc1"), timeout=30).custodies
    custody.from_time.CopyFrom(at(BEGIN_US + MINUTE_US))
    request = tag_pb2.CorrectCustodyRequest(
        custody=custody, update_mask=FieldMask(paths=["from_time"]), actor="test", reason="packed a minute later"
    )
    corrected = client.tags.CorrectCustody(request, timeout=30).custody
    assert corrected.from_time == at(BEGIN_US + MINUTE_US)
    exposure = client.shipments.GetExposure(shipment_pb2.GetExposureRequest(shipment_id=shipment_id), timeout=30).exposure
    assert exposure.verdict == common_pb2.VERDICT_WITHIN_LIMITS
    carrier = f"shipment/{shipment_id}"
    [listed] = client.tags.ListCustodies(tag_pb2.ListCustodiesRequest(carrier=carrier, include_history=True), timeout=30).custodies
    assert [said.cause for said in listed.history] == ["assigned", "corrected"]
    assert refusal(lambda: client.tags.CorrectCustody(request, timeout=30))[1] == "STALE_ETAG"


def test_the_same_tag_on_two_carriers_at_once_is_refused(client: Client, profile: str) -> None:
    shipment_with(client, profile, "ov1")
    code, reason, _ = refusal(lambda: shipment_with(client, profile, "ov1"))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CUSTODY_OVERLAP")


# ---------------------------------------------------------------- alerts


def test_an_alert_is_raised_and_a_person_acknowledges_assigns_comments_and_resolves_it(client: Client, profile: str) -> None:
    shipment_id = shipment_with(client, profile, "al1", "al2")
    client.send("al1", [5.0, 9.5])
    client.send("al2", [9.0])
    wanted = alert_pb2.AlertFilter(shipment_id=shipment_id)
    alert = client.watched(0, 2, wanted)[-1].alert
    assert (alert.kind, alert.state, alert.active) == (alert_pb2.ALERT_KIND_GOODS, alert_pb2.ALERT_STATE_OPEN, True)
    assert sorted(alert.tag_ids) == ["al1", "al2"]
    assert (alert.extreme, alert.metric) == (9.5, common_pb2.METRIC_TEMPERATURE_C)
    assert [one.alert_id for one in client.alerts.ListAlerts(alert_pb2.ListAlertsRequest(filter=wanted), timeout=30).alerts] == [
        alert.alert_id
    ]

    acknowledge = alert_pb2.AcknowledgeAlertRequest(alert_id=alert.alert_id, etag=alert.etag, actor="ann", comment="seen")
    alert = client.alerts.AcknowledgeAlert(acknowledge, timeout=30).alert
    assert (alert.state, alert.acknowledged_by) == (alert_pb2.ALERT_STATE_ACKNOWLEDGED, "ann")
    assert client.alerts.AcknowledgeAlert(acknowledge, timeout=30).alert.etag == alert.etag, "sent again after a lost answer"
    other = alert_pb2.AcknowledgeAlertRequest(alert_id=alert.alert_id, etag=acknowledge.etag, actor="bob")
    assert refusal(lambda: client.alerts.AcknowledgeAlert(other, timeout=30))[1] == "STALE_ETAG"

    alert = client.alerts.AssignAlert(
        alert_pb2.AssignAlertRequest(alert_id=alert.alert_id, etag=alert.etag, actor="ann", assignee="bob"), timeout=30
    ).alert
    alert = client.alerts.CommentAlert(
        alert_pb2.CommentAlertRequest(alert_id=alert.alert_id, actor="bob", comment="on my way"), timeout=30
    ).alert
    alert = client.alerts.ResolveAlert(
        alert_pb2.ResolveAlertRequest(alert_id=alert.alert_id, etag=alert.etag, actor="bob", reason="moved to the cold room"), timeout=30
    ).alert
    assert (alert.state, alert.assigned_to, alert.resolved_by) == (alert_pb2.ALERT_STATE_RESOLVED, "bob", "bob")
    told = [(entry.change, entry.actor, entry.text) for entry in alert.history if entry.actor]
    assert told == [
        (alert_pb2.ALERT_CHANGE_ACKNOWLEDGED, "ann", "seen"),
        (alert_pb2.ALERT_CHANGE_ASSIGNED, "ann", "bob"),
        (alert_pb2.ALERT_CHANGE_COMMENTED, "bob", "on my way"),
        (alert_pb2.ALERT_CHANGE_RESOLVED, "bob", "moved to the cold room"),
    ]
    again = alert_pb2.ResolveAlertRequest(alert_id=alert.alert_id, etag=alert.etag, actor="ann", reason="twice")
    assert refusal(lambda: client.alerts.ResolveAlert(again, timeout=30))[1] == "FAILED_PRECONDITION"


def test_a_watch_resumes_anywhere_with_nothing_missed_and_nothing_twice(client: Client, profile: str) -> None:
    shipments = [shipment_with(client, profile, f"w{i}") for i in range(4)]
    for i in range(4):
        client.send(f"w{i}", [9.0, 5.0, 9.0])
    everything = client.watched(0, len(client.watched(0, 1)) + 7)
    numbers = [one.event_number for one in everything]
    assert numbers == sorted(set(numbers))
    for cut in (0, len(numbers) // 2, len(numbers) - 2):
        resumed = client.watched(numbers[cut], len(numbers) - cut - 1)
        assert resumed == everything[cut + 1 :]
    mine = client.watched(0, 1, alert_pb2.AlertFilter(shipment_id=shipments[2]))
    assert mine[0].alert.carrier == f"shipment/{shipments[2]}"


def test_a_watch_that_breaks_again_and_again_under_concurrent_commits_sees_what_an_unbroken_one_sees(client: Client, profile: str) -> None:
    """Tags of all shards raise alerts at once, so commits race for event numbers; a watch is cut after every few messages."""
    start = next(iter(client.alerts.WatchAlerts(alert_pb2.WatchAlertsRequest(), timeout=30))).event_number
    count = 24
    for i in range(count):
        shipment_with(client, profile, f"race{i}")
    unbroken = client.alerts.WatchAlerts(alert_pb2.WatchAlertsRequest(after_event_number=start), timeout=60)
    broken: list[tuple[int, str]] = []

    def keep_watching() -> None:
        cursor = start
        while len(broken) < count:
            call = client.alerts.WatchAlerts(alert_pb2.WatchAlertsRequest(after_event_number=cursor), timeout=60)
            for taken, message in enumerate(call):
                cursor = message.event_number
                if message.change == alert_pb2.ALERT_CHANGE_RAISED:
                    broken.append((cursor, message.alert.carrier))
                if taken == 2 or len(broken) >= count:
                    break
            call.cancel()

    watcher = threading.Thread(target=keep_watching)
    watcher.start()
    with ThreadPoolExecutor(8) as senders:
        list(senders.map(lambda i: client.send(f"race{i}", [9.0]), range(count)))
    whole: list[tuple[int, str]] = []
    for message in unbroken:
        if message.change == alert_pb2.ALERT_CHANGE_RAISED:
            whole.append((message.event_number, message.alert.carrier))
        if len(whole) == count:
            break
    unbroken.cancel()
    watcher.join(60)
    assert not watcher.is_alive()
    assert broken == whole
    assert len({carrier for _, carrier in whole}) == count


def test_a_watch_from_now_on_begins_with_progress_and_hears_a_new_alert_soon(client: Client, profile: str) -> None:
    shipment_with(client, profile, "soon1")
    call = client.alerts.WatchAlerts(alert_pb2.WatchAlertsRequest(), timeout=30)
    messages = iter(call)
    first = next(messages)
    assert not first.HasField("alert")
    sent = time.monotonic()
    client.send("soon1", [9.0])
    raised = next(messages)
    assert raised.event_number > first.event_number
    assert raised.change == alert_pb2.ALERT_CHANGE_RAISED
    assert time.monotonic() - sent < 5
    call.cancel()
