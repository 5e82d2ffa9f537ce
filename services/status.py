"""One table: what each domain error is on the wire, and the interceptor that applies it to every RPC of every service.

A failed call carries a google.rpc.Status with an ErrorInfo (domain "waybill", a stable reason) and the details that its row of the
table names; docs/api.md shows the same table. The interceptor also parses requests itself, so that garbage is answered with
INVALID_ARGUMENT (gRPC alone would say UNKNOWN), and refuses what no request may carry (see services.check).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import grpc
from google.protobuf.any_pb2 import Any as AnyDetail
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from actors.rules import errors
from services import check

log = logging.getLogger(__name__)

DOMAIN = "waybill"
STALL_S = 30.0
"""A stream whose reader takes nothing for so long, while messages wait, is cut."""

RETRY_AFTER_S = 0.5
"""When the error does not say itself when to try again."""

INTERNAL_TEXT = "a defect of Waybill; its log says more"


class SlowConsumer(errors.Overloaded):
    """A stream's reader did not keep up and is cut; it resumes from its cursor."""

    reason = "SLOW_CONSUMER"


@dataclass(frozen=True)
class Wire:
    """What an error is on the wire: a status code and one kind of detail beside the ErrorInfo."""

    code: grpc.StatusCode
    detail: Literal["bad_request", "resource", "precondition", "retry", "none"]


TABLE: dict[type[errors.DomainError], Wire] = {
    errors.InvalidArgument: Wire(grpc.StatusCode.INVALID_ARGUMENT, "bad_request"),
    errors.NotFound: Wire(grpc.StatusCode.NOT_FOUND, "resource"),
    errors.AlreadyExists: Wire(grpc.StatusCode.ALREADY_EXISTS, "resource"),
    errors.StaleEtag: Wire(grpc.StatusCode.ABORTED, "none"),
    errors.FailedPrecondition: Wire(grpc.StatusCode.FAILED_PRECONDITION, "precondition"),
    errors.CustodyOverlap: Wire(grpc.StatusCode.FAILED_PRECONDITION, "precondition"),
    errors.OutOfRange: Wire(grpc.StatusCode.OUT_OF_RANGE, "bad_request"),
    errors.Overloaded: Wire(grpc.StatusCode.RESOURCE_EXHAUSTED, "retry"),
    SlowConsumer: Wire(grpc.StatusCode.RESOURCE_EXHAUSTED, "retry"),
    errors.StorageFull: Wire(grpc.StatusCode.RESOURCE_EXHAUSTED, "retry"),
    errors.Unavailable: Wire(grpc.StatusCode.UNAVAILABLE, "retry"),
    errors.Superseded: Wire(grpc.StatusCode.UNAVAILABLE, "retry"),
}


def status_of(error: errors.DomainError) -> Status:
    """The error as google.rpc.Status. A class without a row of its own (there is none, by test) takes its nearest base's."""
    row = next((TABLE[kind] for kind in type(error).__mro__ if kind in TABLE), Wire(grpc.StatusCode.INTERNAL, "none"))
    info = ErrorInfo(reason=error.reason, domain=DOMAIN)
    if error.field:
        info.metadata["field"] = error.field
    if error.value:
        info.metadata["value"] = error.value
    status = Status(code=row.code.value[0], message=str(error), details=[_packed(info)])
    detail = _detail(row, error)
    if detail is not None:
        status.details.append(_packed(detail))
    return status


def _detail(row: Wire, error: errors.DomainError) -> Message | None:
    detail: Message | None = None
    if row.detail == "bad_request":
        violation = BadRequest.FieldViolation(field=error.field, description=error.rule, reason=error.reason)
        detail = BadRequest(field_violations=[violation])
    elif row.detail == "resource":
        detail = ResourceInfo(resource_type=error.field, resource_name=error.value, description=error.rule)
    elif row.detail == "precondition":
        subject = error.value or error.field
        broken = PreconditionFailure.Violation(type=error.reason, subject=subject, description=error.rule)
        detail = PreconditionFailure(violations=[broken])
    elif row.detail == "retry":
        delay = Duration()
        delay.FromMicroseconds(round((error.retry_after_s or RETRY_AFTER_S) * 1e6))
        detail = RetryInfo(retry_delay=delay)
    return detail


def _packed(message: Message) -> AnyDetail:
    packed = AnyDetail()
    packed.Pack(message)
    return packed


if TYPE_CHECKING:  # the stubs' classes take type arguments, the real ones do not
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]
    Interceptor = grpc.aio.ServerInterceptor[Any, Any]
else:
    Interceptor = grpc.aio.ServerInterceptor


class Doorman(Interceptor):
    """Stands before every handler: parses and checks requests, turns errors into statuses.

    `requests` gives the request class of a full method name ("/waybill.v1.TagService/GetTag"); methods that it does not know
    (health, reflection) are left alone. Methods in `raw` get their requests as bytes, and check them themselves.
    """

    def __init__(self, requests: Callable[[str], type[Message] | None], raw: frozenset[str] = frozenset()) -> None:
        self._requests = requests
        self._raw = raw

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """The handler of this call, wrapped."""
        handler: Any = await continuation(handler_call_details)
        method: str = handler_call_details.method
        kind = self._requests(method)
        if handler is None or kind is None:
            return handler
        parse: Parse = bytes if method in self._raw else _parser(kind)
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                _unary(handler.unary_unary, parse),
                response_serializer=handler.response_serializer,
            )
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                _stream(handler.unary_stream, parse),
                response_serializer=handler.response_serializer,
            )
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(
                _both(handler.stream_stream, parse),
                response_serializer=handler.response_serializer,
            )
        raise NotImplementedError(f"{method}: the contract has no call of this shape")


Parse = Callable[[bytes], Message | bytes]


def _parser(kind: type[Message]) -> Parse:
    name = kind.DESCRIPTOR.full_name

    def parse(raw: bytes) -> Message:
        try:
            message = kind.FromString(raw)
        except DecodeError:
            raise errors.InvalidArgument(f"the request is not a {name}: its bytes cannot be parsed") from None
        check.request(message)
        return message

    return parse


def _unary(behaviour: Callable[[Any, Context], Awaitable[Any]], parse: Parse) -> Callable[[bytes, Context], Awaitable[Any]]:
    async def call(raw: bytes, context: Context) -> Any:
        try:
            return await behaviour(parse(raw), context)
        except Exception as error:
            await refuse(context, error)

    return call


def _stream(behaviour: Callable[[Any, Context], AsyncIterator[Any]], parse: Parse) -> Callable[[bytes, Context], Awaitable[None]]:
    async def call(raw: bytes, context: Context) -> None:
        try:
            await _write_all(behaviour(parse(raw), context), context)
        except Exception as error:
            await refuse(context, error)

    return call


def _both(
    behaviour: Callable[[AsyncIterator[Any], Context], AsyncIterator[Any]], parse: Parse
) -> Callable[[AsyncIterator[bytes], Context], Awaitable[None]]:
    def parsed(frames: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        return frames if parse is bytes else (parse(raw) async for raw in frames)

    async def call(frames: AsyncIterator[bytes], context: Context) -> None:
        try:
            await _write_all(behaviour(parsed(frames), context), context)
        except Exception as error:
            await refuse(context, error)

    return call


async def _write_all(answers: AsyncIterator[Any], context: Context) -> None:
    """Write the answers one by one. Raises SlowConsumer where one is not taken within STALL_S."""
    watch = _StallWatch()
    try:
        async for answer in answers:
            watch.begin()
            try:
                await context.write(answer)
            except asyncio.CancelledError:
                if not watch.has_cut():
                    raise
                told = f"nothing was taken for {STALL_S:g} s while messages waited: go on from the last one that was seen"
                raise SlowConsumer(told, retry_after_s=1.0) from None
            watch.end()
    finally:
        watch.close()
        await answers.aclose()  # type: ignore[attr-defined]  # every handler is a generator


class _StallWatch:
    """Cancels its task where something that was begun has not ended within STALL_S. One timer serves all that a stream writes:
    asyncio.timeout would make and drop one for each.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._cut = False

    def begin(self) -> None:
        self._since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(STALL_S, self._look)

    def end(self) -> None:
        self._since = None

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def has_cut(self) -> bool:
        """Whether it was this watch, and nobody else, who cancelled the task; it goes on then."""
        return self._cut and self._task is not None and self._task.uncancel() == 0

    def _look(self) -> None:
        self._timer = None
        if self._since is None or self._task is None:
            return
        left_s = self._since + STALL_S - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        else:
            self._cut = True
            self._task.cancel()


async def refuse(context: Context, error: Exception) -> None:
    """End the call with the error's status. Raises always (that is how grpc.aio ends a call)."""
    if isinstance(error, grpc.aio.AbortError | asyncio.CancelledError):
        raise error
    if isinstance(error, errors.DomainError):
        await context.abort_with_status(rpc_status.to_status(status_of(error)))  # type: ignore[attr-defined]  # the stubs lack it
    if isinstance(error, asyncio.TimeoutError):
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed; the outcome is unknown")
    log.error("a call failed", exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, INTERNAL_TEXT)
