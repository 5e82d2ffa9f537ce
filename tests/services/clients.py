"""What tests of the doors have in common: stubs on one channel, times, readings, and refusals taken apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from waybill.v1 import (
    alert_pb2_grpc,
    common_pb2,
    item_pb2_grpc,
    profile_pb2_grpc,
    shipment_pb2_grpc,
    tag_pb2_grpc,
    telemetry_pb2,
    telemetry_pb2_grpc,
    warehouse_pb2_grpc,
)

HOUR_S = 3600
T0_S = 1_700_000_000
"""When the journeys of these tests begin: 2023-11-14 22:13:20 UTC."""

DEADLINE_S = 30.0


class Clients:
    """A client of every service, over one channel."""

    def __init__(self, target: str) -> None:
        self.channel = grpc.insecure_channel(target)
        self.shipments = shipment_pb2_grpc.ShipmentServiceStub(self.channel)
        self.warehouses = warehouse_pb2_grpc.WarehouseServiceStub(self.channel)
        self.profiles = profile_pb2_grpc.ProfileServiceStub(self.channel)
        self.items = item_pb2_grpc.ItemServiceStub(self.channel)
        self.alerts = alert_pb2_grpc.AlertServiceStub(self.channel)
        self.tags = tag_pb2_grpc.TagServiceStub(self.channel)
        self.telemetry = telemetry_pb2_grpc.TelemetryServiceStub(self.channel)

    def close(self) -> None:
        """Let go of the channel."""
        self.channel.close()

    def send(self, tag_id: str, readings: Iterable[tuple[float, float]], places: Iterable[tuple[float, float]] = ()) -> None:
        """Readings (seconds after T0, degrees Celsius) of a tag, with positions where given; all must be accepted."""
        where = list(places)
        rows = telemetry_pb2.ReadingRows()
        for k, (after_s, temperature_c) in enumerate(readings):
            row = rows.readings.add(tag_id=tag_id, sensed_at_us=us(after_s), temperature_c=temperature_c, boot=1, sequence=int(after_s))
            if where:
                row.position.latitude_deg, row.position.longitude_deg = where[k]
        request = telemetry_pb2.IngestBatchRequest(batch=telemetry_pb2.IngestRequest(rows=rows))
        answer = self.telemetry.IngestBatch(request, timeout=DEADLINE_S)
        assert answer.result.accepted == len(rows.readings), answer.result


def us(after_s: float) -> int:
    """Microseconds of a time given as seconds after T0."""
    return round((T0_S + after_s) * 1e6)


def at(after_s: float) -> Timestamp:
    """A time given as seconds after T0."""
    return Timestamp(seconds=T0_S + int(after_s), nanos=round(after_s % 1 * 1e9))


def place(latitude_deg: float, longitude_deg: float) -> common_pb2.LatLng:
    """A point."""
    return common_pb2.LatLng(latitude_deg=latitude_deg, longitude_deg=longitude_deg)


@dataclass(frozen=True)
class Refusal:
    """A failed call: its code, the reason for programs, the field it names."""

    code: grpc.StatusCode
    reason: str
    field: str


def refused(call: Any, request: Any) -> Refusal:
    """The refusal that a call ends with; it must end with one."""
    with pytest.raises(grpc.RpcError) as failed:
        _outcome(call, request)
    error: Any = failed.value
    status = rpc_status.from_call(error)
    assert status is not None, f"no details in {error}"
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "waybill"
    return Refusal(error.code(), info.reason, info.metadata["field"])


def _outcome(call: Any, request: Any) -> None:
    """Make the call and, where it is a stream, take its first message."""
    answer = call(request, timeout=DEADLINE_S)
    if hasattr(answer, "__next__"):
        next(answer)
