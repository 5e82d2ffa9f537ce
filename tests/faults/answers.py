"""What the doors tell of tags when all is over: their counters, and the flags of their readings."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from tests.faults.world import World
from waybill.v1 import common_pb2, tag_pb2, tag_pb2_grpc, telemetry_pb2, telemetry_pb2_grpc

Counts = npt.NDArray[np.int64]
CALL_S = 60.0


def _channel(target: str) -> grpc.Channel:
    return grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 64 << 20)])


def counters_of(world: World, target: str) -> Counts:
    """(tags, 3): accepted, duplicate, conflicting."""
    told = np.zeros((world.tags, 3), np.int64)
    with _channel(target) as channel:
        tags: Any = tag_pb2_grpc.TagServiceStub(channel)
        for tag in range(world.tags):
            request = tag_pb2.GetTagTwinRequest(tag_id=world.tag_id(tag))
            try:
                counters = tags.GetTagTwin(request, timeout=CALL_S, wait_for_ready=True).twin.counters
            except grpc.RpcError as error:
                if not (isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.NOT_FOUND):
                    raise
                continue
            told[tag] = counters.accepted, counters.duplicate, counters.conflicting
    return told


def flags_of(tag_id: str, target: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Sensed times and flags of a tag's temperatures, in order."""
    times, flags = [np.empty(0, np.int64)], [np.empty(0, np.uint8)]
    with _channel(target) as channel:
        telemetry: Any = telemetry_pb2_grpc.TelemetryServiceStub(channel)
        request = telemetry_pb2.ReadTagSeriesRequest(tag_id=tag_id, metrics=[common_pb2.METRIC_TEMPERATURE_C])
        for answer in telemetry.ReadTagSeries(request, timeout=CALL_S, wait_for_ready=True):
            (column,) = answer.series.columns
            times.append(np.array(answer.series.sensed_at_us, np.int64))
            flags.append(np.frombuffer(column.flags, np.uint8))
    return np.concatenate(times), np.concatenate(flags)
