"""The client: columns as the contract has them, and readings that get through overload and broken streams.

The server here is a fake, for failure: a real one is not overloaded or killed on cue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from actors.rules.readings import CODE, NO_SEQUENCE, Batch
from cluster import client as under_test
from cluster.client import Client, Outgoing, Problem, encode_columns, micros, timestamp
from waybill.v1 import shipment_pb2, shipment_pb2_grpc, telemetry_pb2, telemetry_pb2_grpc

Answer = Callable[[telemetry_pb2.IngestRequest], telemetry_pb2.IngestResponse]


def batch_of(first: int, n: int = 3, *, sequences: bool = True) -> Batch:
    at = np.arange(first, first + n, dtype=np.int64)
    none = np.full(n, NO_SEQUENCE, np.int64)
    values = np.array([np.arange(n) + 0.5, np.where(np.arange(n) % 2, np.nan, 3.3), np.full(n, np.nan)])
    codes = (CODE["temperature_c"], CODE["battery_v"], CODE["co2_pct"])
    return Batch((at % 2).astype(np.int32), at, at if sequences else none, at if sequences else none, codes, values)


def test_columns_are_written_as_protobuf_reads_them() -> None:
    request = telemetry_pb2.IngestRequest.FromString(encode_columns(["a", "ä b"], batch_of(1 << 40), "batch-7"))
    columns = request.columns
    assert request.batch_id == "batch-7"
    assert list(columns.tag_ids) == ["a", "ä b"]
    assert list(columns.tag_index) == [0, 1, 0]
    assert list(columns.sensed_at_us) == list(columns.boot) == list(columns.sequence) == [(1 << 40) + i for i in range(3)]
    by_metric = {column.metric: column for column in columns.columns}
    assert set(by_metric) == {CODE["temperature_c"] + 1, CODE["battery_v"] + 1}
    assert list(by_metric[1].values) == [0.5, 1.5, 2.5]
    assert not by_metric[1].rows
    assert (list(by_metric[7].values), list(by_metric[7].rows)) == ([3.3, 3.3], [0, 2])


def test_readings_without_a_sequence_have_no_such_columns_or_all_bits_set() -> None:
    columns = telemetry_pb2.IngestRequest.FromString(encode_columns(["a", "b"], batch_of(0, sequences=False))).columns
    assert not columns.boot
    assert not columns.sequence
    mixed = batch_of(0)
    mixed.boot[1] = mixed.sequence[1] = NO_SEQUENCE
    columns = telemetry_pb2.IngestRequest.FromString(encode_columns(["a", "b"], mixed)).columns
    assert list(columns.boot) == [0, 2**64 - 1, 2]


@pytest.mark.parametrize("us", [0, 1, 1_767_225_600_123_456])
def test_times_keep_their_microseconds(us: int) -> None:
    assert micros(timestamp(us)) == us


class Fake(telemetry_pb2_grpc.TelemetryServiceServicer, shipment_pb2_grpc.ShipmentServiceServicer):
    """Answers messages by `answer`; a None from it ends the stream there, an exception breaks it."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.answer: Callable[[telemetry_pb2.IngestRequest], telemetry_pb2.IngestResponse | None] = self.accept
        self.failures: list[tuple[grpc.StatusCode, status_pb2.Status]] = []

    def accept(self, request: telemetry_pb2.IngestRequest) -> telemetry_pb2.IngestResponse:
        self.taken.append(request.columns.sensed_at_us[0])
        return telemetry_pb2.IngestResponse(accepted=len(request.columns.sensed_at_us))

    def Ingest(self, requests: Iterator[telemetry_pb2.IngestRequest], context: grpc.ServicerContext) -> Iterator[Any]:
        for request in requests:
            answer = self.answer(request)
            if answer is None:
                return
            yield answer

    def GetShipment(self, request: Any, context: grpc.ServicerContext) -> Any:
        if self.failures:
            code, details = self.failures.pop(0)
            context.set_trailing_metadata((("grpc-status-details-bin", details.SerializeToString()),))
            context.abort(code, "no")
        return shipment_pb2.GetShipmentResponse(shipment=shipment_pb2.Shipment(shipment_id=request.shipment_id))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Fake, Client]]:
    monkeypatch.setattr(under_test, "FIRST_WAIT_S", 0.001)
    service, server = Fake(), grpc.server(ThreadPoolExecutor(4))
    telemetry_pb2_grpc.add_TelemetryServiceServicer_to_server(service, server)
    shipment_pb2_grpc.add_ShipmentServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with Client(f"127.0.0.1:{port}") as client:
        yield service, client
    server.stop(None).wait()


def packed(detail: Any) -> AnyMessage:
    found = AnyMessage()
    found.Pack(detail)
    return found


def details(code: grpc.StatusCode, *parts: Any) -> status_pb2.Status:
    return status_pb2.Status(code=code.value[0], message="no", details=[packed(part) for part in parts])


def messages(n: int) -> Iterator[Outgoing]:
    return (Outgoing(["a", "b"], batch_of(10 * i), token=i) for i in range(n))


def test_every_message_is_answered_in_order(fake: tuple[Fake, Client]) -> None:
    service, client = fake
    answers = list(client.ingest(messages(50), window=4))
    assert [message.token for message, _ in answers] == list(range(50))
    assert service.taken == [10 * i for i in range(50)]
    assert sum(answer.accepted for _, answer in answers) == 150


def test_what_is_refused_for_overload_is_sent_again_after_the_wait_that_is_asked_for(fake: tuple[Fake, Client]) -> None:
    service, client = fake
    seen = []

    def busy(request: telemetry_pb2.IngestRequest) -> telemetry_pb2.IngestResponse:
        seen.append(request.columns.sensed_at_us[0])
        if seen.count(seen[-1]) == 1 and seen[-1] in (20, 50):
            wait = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=50_000_000))
            return telemetry_pb2.IngestResponse(error=details(grpc.StatusCode.RESOURCE_EXHAUSTED, wait))
        return service.accept(request)

    service.answer = busy
    answers = list(client.ingest(messages(10), window=3))
    assert sorted(message.token for message, _ in answers) == list(range(10))
    assert sorted(service.taken) == [10 * i for i in range(10)]


@pytest.mark.parametrize("how", ["ends", "breaks"])
def test_what_a_broken_stream_left_unanswered_is_sent_again(fake: tuple[Fake, Client], how: str) -> None:
    service, client = fake
    served = 0

    def failing(request: telemetry_pb2.IngestRequest) -> telemetry_pb2.IngestResponse | None:
        nonlocal served
        served += 1
        if served in (4, 9):
            if how == "ends":
                return None
            raise ConnectionError
        return service.accept(request)

    service.answer = failing
    with_retry = [grpc.StatusCode.UNKNOWN, *under_test.RETRIED]  # a Python handler's exception is UNKNOWN on the wire
    patch = pytest.MonkeyPatch()
    patch.setattr(under_test, "RETRIED", tuple(with_retry))
    try:
        answers = list(client.ingest(messages(20), window=5))
    finally:
        patch.undo()
    assert [message.token for message, _ in answers] == list(range(20))
    assert set(service.taken) == {10 * i for i in range(20)}


def test_a_message_that_is_wrong_as_a_whole_is_a_problem(fake: tuple[Fake, Client]) -> None:
    service, client = fake
    info = error_details_pb2.ErrorInfo(reason="INVALID_ARGUMENT", domain="waybill")
    field = error_details_pb2.BadRequest(
        field_violations=[error_details_pb2.BadRequest.FieldViolation(field="columns.boot", description="must have 3 values")]
    )
    service.answer = lambda request: telemetry_pb2.IngestResponse(error=details(grpc.StatusCode.INVALID_ARGUMENT, info, field))
    with pytest.raises(Problem) as caught:
        list(client.ingest(messages(3)))
    assert caught.value.reason == "INVALID_ARGUMENT"
    assert caught.value.lines == ["columns.boot: must have 3 values"]


def test_a_call_is_tried_again_where_the_contract_says_so_and_never_elsewhere(fake: tuple[Fake, Client]) -> None:
    service, client = fake
    request = shipment_pb2.GetShipmentRequest(shipment_id="S-1")
    service.failures = [
        (code, details(code, error_details_pb2.ErrorInfo(reason=reason)))
        for code, reason in ((grpc.StatusCode.UNAVAILABLE, "SUPERSEDED"), (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"))
    ]
    assert client.call(client.shipments.GetShipment, request).shipment.shipment_id == "S-1"
    code = grpc.StatusCode.FAILED_PRECONDITION
    broken = error_details_pb2.PreconditionFailure(
        violations=[error_details_pb2.PreconditionFailure.Violation(subject="T1", description="rides on shipment/S-2")]
    )
    service.failures = [(code, details(code, error_details_pb2.ErrorInfo(reason="CUSTODY_OVERLAP"), broken))]
    with pytest.raises(Problem) as caught:
        client.call(client.shipments.GetShipment, request)
    assert (caught.value.reason, caught.value.lines) == ("CUSTODY_OVERLAP", ["T1: rides on shipment/S-2"])
    assert "Release the tag there first" in caught.value.advice


def test_a_server_that_is_not_there_is_a_problem_that_says_how_to_start_it() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(Problem) as caught:
        client.call(client.shipments.GetShipment, shipment_pb2.GetShipmentRequest(shipment_id="S-1"), patience_s=0.3)
    assert caught.value.reason == "UNAVAILABLE"
    assert "waybill up" in caught.value.advice
