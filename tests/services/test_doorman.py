"""What stands before every handler: parsing, checking, errors as statuses, slow readers cut. A real gRPC server, servicers made for it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from actors.rules.errors import InvalidArgument, NotFound
from services import status
from services.door import Config, ConfigError, is_loopback, request_class
from services.status import Doorman
from waybill.v1 import alert_pb2, alert_pb2_grpc, shipment_pb2, tag_pb2, tag_pb2_grpc, telemetry_pb2, telemetry_pb2_grpc


class TagsForTest(tag_pb2_grpc.TagServiceServicer):
    """GetTag does what its tag id says."""

    async def GetTag(self, request: tag_pb2.GetTagRequest, context: Any) -> tag_pb2.GetTagResponse:
        if request.tag_id == "missing":
            raise NotFound("no such tag", field="tag_id", value=request.tag_id)
        if request.tag_id == "defect":
            raise ZeroDivisionError("a secret of the inside")
        if request.tag_id == "slow":
            await asyncio.sleep(30)
        return tag_pb2.GetTagResponse(tag=tag_pb2.Tag(tag_id=request.tag_id))


class TelemetryForTest(telemetry_pb2_grpc.TelemetryServiceServicer):
    """Ingest gives back batch ids."""

    async def Ingest(self, request_iterator: Any, context: Any) -> AsyncIterator[telemetry_pb2.IngestResponse]:
        async for request in request_iterator:
            if request.batch_id == "wrong":
                raise InvalidArgument("is wrong", field="batch_id", value=request.batch_id)
            yield telemetry_pb2.IngestResponse(batch_id=request.batch_id)


class AlertsForTest(alert_pb2_grpc.AlertServiceServicer):
    """WatchAlerts sends without end, and notes its own end."""

    ended = False

    async def WatchAlerts(self, request: Any, context: Any) -> AsyncIterator[alert_pb2.WatchAlertsResponse]:
        try:
            number = 0
            while True:
                number += 1
                yield alert_pb2.WatchAlertsResponse(event_number=number, alert=alert_pb2.Alert(text="x" * 10_000))
        finally:
            AlertsForTest.ended = True


def served(work: Callable[[grpc.aio.Channel], Awaitable[Any]]) -> Any:
    """Run `work` against a server with a doorman."""

    async def whole() -> Any:
        server = grpc.aio.server(interceptors=[Doorman(request_class)])
        tag_pb2_grpc.add_TagServiceServicer_to_server(TagsForTest(), server)
        telemetry_pb2_grpc.add_TelemetryServiceServicer_to_server(TelemetryForTest(), server)
        alert_pb2_grpc.add_AlertServiceServicer_to_server(AlertsForTest(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                return await work(channel)
        finally:
            await server.stop(0)

    return asyncio.run(whole())


def raw(channel: grpc.aio.Channel, method: str) -> Any:
    return channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)


async def refused(call: Awaitable[Any]) -> tuple[grpc.StatusCode, Status]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    packed = dict(error.value.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    return error.value.code(), Status.FromString(packed)  # type: ignore[arg-type]


def violation(found: Status) -> tuple[str, str]:
    bad = BadRequest()
    assert found.details[1].Unpack(bad)
    return bad.field_violations[0].field, bad.field_violations[0].description


def test_a_domain_error_reaches_the_caller_with_its_details() -> None:
    async def work(channel: grpc.aio.Channel) -> None:
        code, found = await refused(tag_pb2_grpc.TagServiceStub(channel).GetTag(tag_pb2.GetTagRequest(tag_id="missing")))
        info = ErrorInfo()
        assert code == grpc.StatusCode.NOT_FOUND
        assert found.details[0].Unpack(info)
        assert info.reason == "NOT_FOUND"

    served(work)


def test_a_defect_is_internal_and_tells_nothing_of_the_inside() -> None:
    async def work(channel: grpc.aio.Channel) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await tag_pb2_grpc.TagServiceStub(channel).GetTag(tag_pb2.GetTagRequest(tag_id="defect"))
        assert error.value.code() == grpc.StatusCode.INTERNAL
        assert "secret" not in str(error.value.details())

    served(work)


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"\x0a\x64abc", b"\x0a\x02\xff\xfe"])
def test_garbage_and_truncated_bytes_are_invalid_argument_not_unknown(garbage: bytes) -> None:
    async def work(channel: grpc.aio.Channel) -> None:
        code, found = await refused(raw(channel, "/waybill.v1.TagService/GetTag")(garbage))
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert "waybill.v1.GetTagRequest" in found.message

    served(work)


def test_a_garbage_frame_ends_a_stream_after_the_answers_before_it() -> None:
    async def work(channel: grpc.aio.Channel) -> None:
        good = telemetry_pb2.IngestRequest(batch_id="good").SerializeToString()
        call = channel.stream_stream("/waybill.v1.TelemetryService/Ingest", request_serializer=bytes, response_deserializer=bytes)()
        await call.write(good)
        assert telemetry_pb2.IngestResponse.FromString(await call.read()).batch_id == "good"
        await call.write(b"\xff\xff\xff")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call.read()
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT

    served(work)


def test_a_deadline_ends_a_slow_call() -> None:
    async def work(channel: grpc.aio.Channel) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await tag_pb2_grpc.TagServiceStub(channel).GetTag(tag_pb2.GetTagRequest(tag_id="slow"), timeout=0.2)
        assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED

    served(work)


def test_a_cancelled_stream_ends_its_handler() -> None:
    async def work(channel: grpc.aio.Channel) -> None:
        AlertsForTest.ended = False
        call = alert_pb2_grpc.AlertServiceStub(channel).WatchAlerts(alert_pb2.WatchAlertsRequest())
        await call.read()  # type: ignore[attr-defined]
        call.cancel()
        for _ in range(100):
            if AlertsForTest.ended:
                return
            await asyncio.sleep(0.02)
        raise AssertionError("the handler goes on")

    served(work)


def test_a_reader_that_takes_nothing_is_cut_and_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(channel: grpc.aio.Channel) -> None:
        call: Any = alert_pb2_grpc.AlertServiceStub(channel).WatchAlerts(alert_pb2.WatchAlertsRequest())
        first = (await call.read()).event_number
        await asyncio.sleep(1.5)
        numbers = [first]

        async def read_on() -> None:
            while True:
                numbers.append((await call.read()).event_number)

        with pytest.raises(grpc.aio.AioRpcError) as error:
            await read_on()
        assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        found = Status.FromString(dict(error.value.trailing_metadata() or ())["grpc-status-details-bin"])  # type: ignore[arg-type]
        info, again = ErrorInfo(), RetryInfo()
        assert found.details[0].Unpack(info)
        assert info.reason == "SLOW_CONSUMER"
        assert found.details[1].Unpack(again)
        assert numbers == list(range(1, len(numbers) + 1)), "what was sent before the cut is in order, without a hole"

    monkeypatch.setattr(status, "STALL_S", 0.3)
    served(work)


def bad_requests() -> list[Any]:
    """(request, method, field) of what no request may carry."""
    point = shipment_pb2.Stop(location={"latitude_deg": math.nan})  # type: ignore[arg-type]
    endless = shipment_pb2.Stop(radius_m=math.inf)
    early, nanos = Timestamp(seconds=-1), Timestamp(seconds=5, nanos=-1)
    unknown = tag_pb2.Tag(tag_id="x", kind=99)  # type: ignore[arg-type]
    create, register = "/waybill.v1.ShipmentService/CreateShipment", "/waybill.v1.TagService/RegisterTag"

    def stops(*given: shipment_pb2.Stop) -> shipment_pb2.CreateShipmentRequest:
        return shipment_pb2.CreateShipmentRequest(shipment=shipment_pb2.Shipment(stops=given))

    return [
        pytest.param(stops(shipment_pb2.Stop(), point), create, "shipment.stops[1].location.latitude_deg", id="nan"),
        pytest.param(stops(endless), create, "shipment.stops[0].radius_m", id="infinite"),
        pytest.param(
            stops(shipment_pb2.Stop(planned_arrival_time=early)), create, "shipment.stops[0].planned_arrival_time", id="before 1970"
        ),
        pytest.param(
            stops(shipment_pb2.Stop(planned_arrival_time=Timestamp(seconds=5_000_000_000))),
            create,
            "shipment.stops[0].planned_arrival_time",
            id="after 2099",
        ),
        pytest.param(
            stops(shipment_pb2.Stop(planned_departure_time=nanos)), create, "shipment.stops[0].planned_departure_time", id="negative nanos"
        ),
        pytest.param(tag_pb2.RegisterTagRequest(tag=unknown), register, "tag.kind", id="unknown enum"),
        pytest.param(
            tag_pb2.RegisterTagRequest(tag=tag_pb2.Tag(quality=[tag_pb2.QualityTests(metric=77)])),  # type: ignore[arg-type]
            register,
            "tag.quality[0].metric",
            id="unknown metric",
        ),
    ]


@pytest.mark.parametrize(("request_", "method", "field"), bad_requests())
def test_what_no_request_may_carry_is_refused_by_its_path(request_: Any, method: str, field: str) -> None:
    kind = request_class(method)
    assert kind is type(request_)
    parse = status._parser(kind)
    with pytest.raises(InvalidArgument) as refusal:
        parse(request_.SerializeToString())
    assert refusal.value.field == field


def test_methods_of_other_services_are_left_alone() -> None:
    assert request_class("/grpc.health.v1.Health/Check") is None
    assert request_class("/waybill.v1.TagService/NoSuchMethod") is None


# ---------------------------------------------------------------- how a door may be told to listen


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_needs_no_tls(host: str) -> None:
    assert is_loopback(host)
    assert Config.of({"database_url": "x", "ray_address": "y", "host": host}).credentials() is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_anything_but_loopback_is_refused_without_tls(host: str) -> None:
    with pytest.raises(ConfigError, match="TLS"):
        Config.of({"database_url": "x", "ray_address": "y", "host": host})


@pytest.mark.parametrize(
    "given",
    [
        {"tls_cert": "a.pem"},
        {"tls_client_ca": "a.pem"},
        {"no_such_setting": 1},
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Config.of({"database_url": "x", "ray_address": "y", **given})


def test_a_missing_certificate_is_named() -> None:
    config = Config.of({"database_url": "x", "ray_address": "y", "tls_cert": "/no/such.pem", "tls_key": "/no/such.key"})
    with pytest.raises(ConfigError, match="/no/such"):
        config.credentials()
