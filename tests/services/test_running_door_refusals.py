"""Every bad input of the contract of telemetry, tags and alerts, sent to a running Waybill: its documented status, the field named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from tests.services.running import BEGIN_US, Client, at, refusal
from waybill.v1 import alert_pb2, tag_pb2, telemetry_pb2

if TYPE_CHECKING:
    from cluster.boot import Running

INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
MISSING = (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
LONG = "x" * 65
reversed_ = {"from_time": at(BEGIN_US), "until_time": at(BEGIN_US)}


@pytest.fixture(scope="module")
def client(waybill: Running) -> Iterator[Client]:
    made = Client(waybill.target)
    yield made
    made.channel.close()


def custody(**given: Any) -> tag_pb2.CorrectCustodyRequest:
    return tag_pb2.CorrectCustodyRequest(
        custody=tag_pb2.Custody(**{"tag_id": "bad", "custody_id": 1, "etag": "1", **given}), actor="a", reason="r"
    )


BAD: list[tuple[str, str, Any, tuple[grpc.StatusCode, str], str]] = [
    ("telemetry", "IngestBatch", telemetry_pb2.IngestBatchRequest(), INVALID, "batch"),
    ("telemetry", "IngestBatch", telemetry_pb2.IngestBatchRequest(batch=telemetry_pb2.IngestRequest()), INVALID, "payload"),
    ("telemetry", "ReadTagSeries", telemetry_pb2.ReadTagSeriesRequest(), INVALID, "tag_id"),
    ("telemetry", "ReadTagSeries", telemetry_pb2.ReadTagSeriesRequest(tag_id=LONG), INVALID, "tag_id"),
    ("telemetry", "ReadTagSeries", telemetry_pb2.ReadTagSeriesRequest(tag_id="nobody"), MISSING, "tag_id"),
    ("telemetry", "ReadTagSeries", telemetry_pb2.ReadTagSeriesRequest(tag_id="bad", **reversed_), INVALID, "until_time"),
    ("telemetry", "ReadTagSeries", telemetry_pb2.ReadTagSeriesRequest(tag_id="bad", metrics=[99]), INVALID, "metrics[0]"),  # type: ignore[list-item]
    ("telemetry", "ReadTagSeries", telemetry_pb2.ReadTagSeriesRequest(tag_id="bad", metrics=[0]), INVALID, "metrics"),  # type: ignore[list-item]
    ("telemetry", "ReadShipmentSeries", telemetry_pb2.ReadShipmentSeriesRequest(), INVALID, "shipment_id"),
    ("telemetry", "ReadShipmentSeries", telemetry_pb2.ReadShipmentSeriesRequest(shipment_id="nothing"), MISSING, "shipment_id"),
    ("tags", "RegisterTag", tag_pb2.RegisterTagRequest(), INVALID, "tag.tag_id"),
    ("tags", "RegisterTag", tag_pb2.RegisterTagRequest(tag=tag_pb2.Tag(tag_id="a\nb")), INVALID, "tag.tag_id"),
    ("tags", "RegisterTag", tag_pb2.RegisterTagRequest(tag=tag_pb2.Tag(tag_id="x", kind=99)), INVALID, "tag.kind"),  # type: ignore[arg-type]
    (
        "tags",
        "RegisterTag",
        tag_pb2.RegisterTagRequest(tag=tag_pb2.Tag(tag_id="x", usual_interval_s=-1)),
        INVALID,
        "tag.usual_interval_s",
    ),
    (
        "tags",
        "RegisterTag",
        tag_pb2.RegisterTagRequest(tag=tag_pb2.Tag(tag_id="x", usual_interval_s=float("nan"))),
        INVALID,
        "tag.usual_interval_s",
    ),
    (
        "tags",
        "RegisterTag",
        tag_pb2.RegisterTagRequest(tag=tag_pb2.Tag(tag_id="x", description="y" * 1025)),
        INVALID,
        "tag.description",
    ),
    (
        "tags",
        "RegisterTag",
        tag_pb2.RegisterTagRequest(tag=tag_pb2.Tag(tag_id="x", quality=[tag_pb2.QualityTests(fail_low=1)])),
        INVALID,
        "tag.quality[0].metric",
    ),
    ("tags", "GetTag", tag_pb2.GetTagRequest(), INVALID, "tag_id"),
    ("tags", "GetTag", tag_pb2.GetTagRequest(tag_id="nobody"), MISSING, "tag_id"),
    ("tags", "ListTags", tag_pb2.ListTagsRequest(page_size=-1), INVALID, "page_size"),
    ("tags", "ListTags", tag_pb2.ListTagsRequest(page_token="elsewhere"), INVALID, "page_token"),
    ("tags", "UpdateTag", tag_pb2.UpdateTagRequest(), INVALID, "tag.tag_id"),
    ("tags", "UpdateTag", tag_pb2.UpdateTagRequest(tag=tag_pb2.Tag(tag_id="nobody", description="x")), MISSING, "tag_id"),
    ("tags", "UpdateTag", tag_pb2.UpdateTagRequest(tag=tag_pb2.Tag(tag_id="bad", etag="no number")), INVALID, "tag.etag"),
    (
        "tags",
        "UpdateTag",
        tag_pb2.UpdateTagRequest(tag=tag_pb2.Tag(tag_id="bad"), update_mask=FieldMask(paths=["shard"])),
        INVALID,
        "update_mask",
    ),
    (
        "tags",
        "UpdateTag",
        tag_pb2.UpdateTagRequest(tag=tag_pb2.Tag(tag_id="bad"), update_mask=FieldMask(paths=["no_such"])),
        INVALID,
        "update_mask",
    ),
    ("tags", "GetTagTwin", tag_pb2.GetTagTwinRequest(), INVALID, "tag_id"),
    ("tags", "GetTagTwin", tag_pb2.GetTagTwinRequest(tag_id="nobody"), MISSING, "tag_id"),
    ("tags", "ListSilences", tag_pb2.ListSilencesRequest(tag_id="nobody"), MISSING, "tag_id"),
    ("tags", "ListSilences", tag_pb2.ListSilencesRequest(tag_id="bad", longer_than_s=0), INVALID, "longer_than_s"),
    ("tags", "ListSilences", tag_pb2.ListSilencesRequest(tag_id="bad", **reversed_), INVALID, "until_time"),
    ("tags", "ListConflicts", tag_pb2.ListConflictsRequest(tag_id="nobody"), MISSING, "tag_id"),
    ("tags", "ListConflicts", tag_pb2.ListConflictsRequest(tag_id="bad", page_token="AAAA"), INVALID, "page_token"),
    ("tags", "GetCompleteness", tag_pb2.GetCompletenessRequest(tag_id="nobody"), MISSING, "tag_id"),
    ("tags", "GetCompleteness", tag_pb2.GetCompletenessRequest(tag_id="bad", custody_id=77), MISSING, "custody_id"),
    ("tags", "ListCustodies", tag_pb2.ListCustodiesRequest(), INVALID, "tag_id"),
    ("tags", "ListCustodies", tag_pb2.ListCustodiesRequest(tag_id="bad", carrier="shipment/x"), INVALID, "tag_id"),
    ("tags", "ListCustodies", tag_pb2.ListCustodiesRequest(tag_id="nobody"), MISSING, "tag_id"),
    ("tags", "ListCustodies", tag_pb2.ListCustodiesRequest(carrier="shipment/none"), MISSING, "carrier"),
    ("tags", "CorrectCustody", tag_pb2.CorrectCustodyRequest(), INVALID, "custody.tag_id"),
    ("tags", "CorrectCustody", custody(custody_id=0), INVALID, "custody.custody_id"),
    ("tags", "CorrectCustody", custody(etag=""), INVALID, "custody.etag"),
    ("tags", "CorrectCustody", custody(retracted=True), MISSING, "custody_id"),
    (
        "tags",
        "CorrectCustody",
        tag_pb2.CorrectCustodyRequest(custody=custody().custody, update_mask=FieldMask(paths=["carrier"]), actor="a", reason="r"),
        INVALID,
        "update_mask",
    ),
    ("tags", "CorrectCustody", tag_pb2.CorrectCustodyRequest(custody=custody().custody, reason="r"), INVALID, "actor"),
    ("tags", "CorrectCustody", tag_pb2.CorrectCustodyRequest(custody=custody().custody, actor="a"), INVALID, "reason"),
    ("alerts", "WatchAlerts", alert_pb2.WatchAlertsRequest(after_event_number=-1), INVALID, "after_event_number"),
    (
        "alerts",
        "WatchAlerts",
        alert_pb2.WatchAlertsRequest(after_event_number=10**12),
        (grpc.StatusCode.OUT_OF_RANGE, "OUT_OF_RANGE"),
        "after_event_number",
    ),
    ("alerts", "WatchAlerts", alert_pb2.WatchAlertsRequest(filter=alert_pb2.AlertFilter(kinds=[99])), INVALID, "filter.kinds[0]"),  # type: ignore[list-item]
    ("alerts", "ListAlerts", alert_pb2.ListAlertsRequest(page_size=-5), INVALID, "page_size"),
    ("alerts", "ListAlerts", alert_pb2.ListAlertsRequest(page_token="x"), INVALID, "page_token"),
    ("alerts", "ListAlerts", alert_pb2.ListAlertsRequest(filter=alert_pb2.AlertFilter(states=[0])), INVALID, "filter.states"),  # type: ignore[list-item]
    (
        "alerts",
        "ListAlerts",
        alert_pb2.ListAlertsRequest(filter=alert_pb2.AlertFilter(carrier="shipment/a", shipment_id="b")),
        INVALID,
        "filter.shipment_id",
    ),
    ("alerts", "GetAlert", alert_pb2.GetAlertRequest(), INVALID, "alert_id"),
    ("alerts", "GetAlert", alert_pb2.GetAlertRequest(alert_id="none"), MISSING, "alert_id"),
    ("alerts", "AcknowledgeAlert", alert_pb2.AcknowledgeAlertRequest(alert_id="none", etag="1", actor="a"), MISSING, "alert_id"),
    ("alerts", "AcknowledgeAlert", alert_pb2.AcknowledgeAlertRequest(alert_id="none", etag="1"), INVALID, "actor"),
    ("alerts", "AcknowledgeAlert", alert_pb2.AcknowledgeAlertRequest(alert_id="none", actor="a"), INVALID, "etag"),
    ("alerts", "AssignAlert", alert_pb2.AssignAlertRequest(alert_id="none", etag="1", actor="a"), INVALID, "assignee"),
    ("alerts", "CommentAlert", alert_pb2.CommentAlertRequest(alert_id="none", actor="a"), INVALID, "comment"),
    ("alerts", "CommentAlert", alert_pb2.CommentAlertRequest(alert_id="none", actor="a", comment="c"), MISSING, "alert_id"),
    ("alerts", "ResolveAlert", alert_pb2.ResolveAlertRequest(alert_id="none", etag="1", actor="a"), INVALID, "reason"),
]


@pytest.mark.parametrize(("service", "method", "request_", "expected", "field"), BAD, ids=[f"{row[1]}-{i}" for i, row in enumerate(BAD)])
def test_bad_input_gets_its_documented_status_with_the_field_named(
    client: Client, service: str, method: str, request_: Any, expected: tuple[grpc.StatusCode, str], field: str
) -> None:
    client.send("bad", [5.0])

    def call() -> None:
        answer = getattr(getattr(client, service), method)(request_, timeout=30)
        if hasattr(answer, "__next__"):
            next(answer)

    assert refusal(call) == (*expected, field)


def test_a_message_above_what_the_transport_takes_is_resource_exhausted(client: Client) -> None:
    columns = telemetry_pb2.ReadingColumns(tag_ids=["x" * (17 << 20)])
    request = telemetry_pb2.IngestBatchRequest(batch=telemetry_pb2.IngestRequest(columns=columns))
    with pytest.raises(grpc.RpcError) as error:
        client.telemetry.IngestBatch(request, timeout=30)
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
