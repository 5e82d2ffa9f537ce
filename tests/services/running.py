"""What the tests of a running door share: stubs on one channel, readings a minute apart from six hours ago on, refusals taken apart."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from waybill.v1 import (
    alert_pb2,
    alert_pb2_grpc,
    profile_pb2_grpc,
    shipment_pb2,
    shipment_pb2_grpc,
    tag_pb2_grpc,
    telemetry_pb2,
    telemetry_pb2_grpc,
)

MINUTE_US = 60_000_000
NOW_US = time.time_ns() // 1000
BEGIN_US = NOW_US - 6 * 60 * MINUTE_US


def at(us: int) -> Timestamp:
    return Timestamp(seconds=us // 1_000_000, nanos=us % 1_000_000 * 1000)


class Client:
    """The stubs of one channel."""

    def __init__(self, target: str) -> None:
        self.channel = grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)])
        self.telemetry = telemetry_pb2_grpc.TelemetryServiceStub(self.channel)
        self.tags = tag_pb2_grpc.TagServiceStub(self.channel)
        self.alerts = alert_pb2_grpc.AlertServiceStub(self.channel)
        self.shipments = shipment_pb2_grpc.ShipmentServiceStub(self.channel)
        self.profiles = profile_pb2_grpc.ProfileServiceStub(self.channel)

    def send(self, tag_id: str, values: list[float], *, from_us: int = BEGIN_US, sequence: int | None = None) -> Any:
        """Readings of one tag, a minute apart, as one unary call; its result."""
        readings = []
        for i, value in enumerate(values):
            reading = telemetry_pb2.Reading(tag_id=tag_id, sensed_at_us=from_us + i * MINUTE_US, temperature_c=value)
            if sequence is not None:
                reading.boot, reading.sequence = 1, sequence + i
            readings.append(reading)
        request = telemetry_pb2.IngestRequest(rows=telemetry_pb2.ReadingRows(readings=readings))
        return self.telemetry.IngestBatch(telemetry_pb2.IngestBatchRequest(batch=request), timeout=30).result

    def watched(self, cursor: int | None, want: int, filter: alert_pb2.AlertFilter | None = None) -> list[Any]:
        """The first `want` changes of alerts after a number."""
        call = self.alerts.WatchAlerts(alert_pb2.WatchAlertsRequest(after_event_number=cursor, filter=filter), timeout=30)
        found = []
        for message in call:
            if message.HasField("alert"):
                found.append(message)
            if len(found) >= want:
                break
        call.cancel()
        return found


def shipment_with(client: Client, profile_id: str, *tag_ids: str) -> str:
    made = client.shipments.CreateShipment(
        shipment_pb2.CreateShipmentRequest(shipment=shipment_pb2.Shipment(profile_id=profile_id)), timeout=30
    ).shipment
    for tag_id in tag_ids:
        client.shipments.AssignTag(
            shipment_pb2.AssignTagRequest(shipment_id=made.shipment_id, tag_id=tag_id, from_time=at(BEGIN_US), actor="test"), timeout=30
        )
    return str(made.shipment_id)


def refusal(call: Any) -> tuple[grpc.StatusCode, str, str]:
    """(status, reason, field) of a call that must fail."""
    with pytest.raises(grpc.RpcError) as error:
        call()
    packed = dict(error.value.trailing_metadata() or ()).get("grpc-status-details-bin", b"")  # type: ignore[attr-defined]
    info, bad = ErrorInfo(), BadRequest()
    for detail in Status.FromString(packed).details:
        detail.Unpack(info)
        detail.Unpack(bad)
    field = bad.field_violations[0].field if bad.field_violations else info.metadata.get("field", "")
    return error.value.code(), info.reason, field  # type: ignore[attr-defined]
