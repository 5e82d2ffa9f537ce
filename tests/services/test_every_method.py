"""Bad input of every kind to every method of the contract, found from its descriptors: a method that is added is walked, too.

What only one method can refuse (a wrong check digit, an overlap, a stale etag) stands in the tables of its own page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from services.door import INGEST, SERVICES
from tests.services.running import refusal

if TYPE_CHECKING:
    from cluster.boot import Running

pytestmark = pytest.mark.parametrize("waybill", ["sqlite"], indirect=True)

NOTHING = "nothing-has-this-id"
FAR_FUTURE_S = 5_000_000_000  # the year 2128
DEEPEST = 4
TIMESTAMP = "google.protobuf.Timestamp"
INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
REFUSED = {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "OUT_OF_RANGE"}

METHODS: list[MethodDescriptor] = [
    method
    for service in SERVICES
    for method in descriptor_pool.Default().FindServiceByName(service).methods
    if f"/{service}/{method.name}" not in INGEST  # its bad input: test_wire.py and test_running_door.py
]


@pytest.fixture(scope="module")
def channel(waybill: Running) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(waybill.target, options=[("grpc.enable_http_proxy", 0)]) as made:
        yield made


def send(channel: grpc.Channel, method: MethodDescriptor, raw: bytes) -> Any:
    """Call a method with these bytes; its first answer."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    parse = GetMessageClass(method.output_type).FromString
    if method.client_streaming:
        return next(channel.stream_stream(path, None, parse)(iter([raw]), timeout=30))
    if method.server_streaming:
        return next(channel.unary_stream(path, None, parse)(raw, timeout=30))
    return channel.unary_unary(path, None, parse)(raw, timeout=30)


def fields(kind: Descriptor, path: tuple[FieldDescriptor, ...] = ()) -> Iterator[tuple[FieldDescriptor, ...]]:
    """The ways to every field of a message, through the messages in it."""
    for field in kind.fields:
        way = (*path, field)
        yield way
        inner = field.message_type
        if inner is not None and not inner.full_name.startswith("google.") and len(way) < DEEPEST and not inner.GetOptions().map_entry:
            yield from fields(inner, way)


def bad_values(field: FieldDescriptor) -> list[Any]:
    """What a field may never carry, whatever method it belongs to."""
    if field.enum_type is not None:
        return [99]
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return [math.nan, math.inf]
    if field.message_type is not None and field.message_type.full_name == TIMESTAMP:
        return [FAR_FUTURE_S, -1]
    return []


def with_value(method: MethodDescriptor, way: tuple[FieldDescriptor, ...], value: Any) -> tuple[Message, str]:
    """A request that has nothing but this value, and the path by which it must be named."""
    request: Any = GetMessageClass(method.input_type)()
    message, names = request, []
    for field in way[:-1]:
        inside = getattr(message, field.name)
        message = inside.add() if field.is_repeated else inside
        message.SetInParent()
        names.append(field.name + ("[0]" if field.is_repeated else ""))
    last = way[-1]
    if last.message_type is not None:
        inside = getattr(message, last.name)
        (inside.add() if last.is_repeated else inside).seconds = value
    elif last.is_repeated:
        getattr(message, last.name).append(value)
    else:
        setattr(message, last.name, value)
    return request, ".".join([*names, last.name + ("[0]" if last.is_repeated else "")])


def each(chosen: Callable[[MethodDescriptor], bool] = lambda method: True) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("method", [method for method in METHODS if chosen(method)], ids=lambda method: method.name)


@each()
def test_bytes_that_are_no_request_are_refused(channel: grpc.Channel, method: MethodDescriptor) -> None:
    assert refusal(lambda: send(channel, method, b"\xff\xff\xff\xff")) == (*INVALID, "")


@each()
def test_unknown_enum_values_numbers_that_are_none_and_impossible_times_are_named(channel: grpc.Channel, method: MethodDescriptor) -> None:
    wrong = []
    for way in fields(method.input_type):
        for value in bad_values(way[-1]):
            request, path = with_value(method, way, value)
            found = refusal(lambda request=request: send(channel, method, request.SerializeToString()))
            if found != (*INVALID, path):
                wrong.append((path, value, found))
    assert wrong == []


def ids(method: MethodDescriptor) -> list[str]:
    return [
        field.name
        for field in method.input_type.fields
        if field.name.endswith("_id") and field.name != "request_id" and field.cpp_type == FieldDescriptor.CPPTYPE_STRING
    ]


@each(lambda method: bool(ids(method)))
def test_ids_that_are_missing_malformed_or_of_nothing_are_refused(channel: grpc.Channel, method: MethodDescriptor) -> None:
    chooses = method.name.startswith(("List", "Query", "Watch"))  # among many, where no id may be right
    for name in ids(method):
        for value in ("a\nb", "x" * 300, *(() if chooses else ("", NOTHING))):
            request = GetMessageClass(method.input_type)(**{name: value})
            code, reason, field = refusal(lambda request=request: send(channel, method, request.SerializeToString()))
            assert reason in REFUSED, (name, value, code)
            assert field, (name, value, code)


@each(lambda method: "page_token" in method.input_type.fields_by_name)
def test_pages_from_elsewhere_and_of_a_negative_size_are_refused(channel: grpc.Channel, method: MethodDescriptor) -> None:
    kind = GetMessageClass(method.input_type)
    texts = [field for field in method.input_type.fields if field.cpp_type == FieldDescriptor.CPPTYPE_STRING and not field.is_repeated]
    given = {field.name: NOTHING for field in texts if field.name != "page_token" and field.containing_oneof is None}
    for wrong in ({"page_token": "elsewhere"}, {"page_token": "AAAA"}, {"page_size": -1}):
        code, reason, field = refusal(lambda wrong=wrong: send(channel, method, kind(**given, **wrong).SerializeToString()))
        assert reason in REFUSED, (wrong, code)
        assert field in (*wrong, *given), (wrong, field)


def test_a_method_that_is_not_there_is_unimplemented(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/waybill.v1.TagService/Teleport", None, None)(b"", timeout=30)
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined]
