"""Waybill as the connectors see it: its public API, as any other system would use it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from services.outside import Away
from waybill.v1 import (
    inventory_pb2,
    inventory_pb2_grpc,
    item_pb2_grpc,
    warehouse_pb2_grpc,
)

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

CALL_S = 60.0
PATIENCE_S = 120.0
"""A call is tried again for so long while the doors are away; then whoever called begins anew."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0
PAGE = 1_000
RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class ApiRefused(Exception):
    """Waybill refused a call; `reason` is one of common.proto's."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class ApiAway(ApiRefused, Away):
    """Waybill's doors were away for longer than a call is tried again: nobody's fault, neither here nor there."""


@dataclass(frozen=True)
class Access:
    """Where the doors are, and by which PEM files to talk to them; none: without TLS."""

    target: str
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None


class Waybill:
    """A connection to the doors. Thread-safe."""

    def __init__(self, access: Access) -> None:
        options: list[tuple[str, int]] = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_reconnect_backoff_ms", 1_000)]
        if access.target.rpartition(":")[0] in LOOPBACK:
            options.append(("grpc.enable_http_proxy", 0))
        if access.ca is None:
            self.channel = grpc.insecure_channel(access.target, options)
        else:
            read = [Path(path).read_bytes() if path else None for path in (access.ca, access.key, access.certificate)]
            self.channel = grpc.secure_channel(access.target, grpc.ssl_channel_credentials(*read), options)
        self.items = item_pb2_grpc.ItemServiceStub(self.channel)
        self.warehouses = warehouse_pb2_grpc.WarehouseServiceStub(self.channel)
        self.inventory = inventory_pb2_grpc.InventoryServiceStub(self.channel)

    def close(self) -> None:
        """End the connection."""
        self.channel.close()

    def call(self, method: Callable[..., Answer], request: Message) -> Answer:
        """A unary call, tried again while the API says so. Raises ApiRefused."""
        wait_s, until = FIRST_WAIT_S, time.monotonic() + PATIENCE_S
        while True:
            try:
                return method(request, timeout=CALL_S)
            except grpc.RpcError as error:
                if error.code() not in RETRIED or time.monotonic() > until:
                    raise refusal(error) from None
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def found(self, method: Callable[..., Answer], request: Message, *, also: str = "NOT_FOUND") -> Answer | None:
        """A unary call whose answer may be NOT_FOUND (or another reason, too): None."""
        try:
            return self.call(method, request)
        except ApiRefused as refused:
            if refused.reason in ("NOT_FOUND", also):
                return None
            raise

    def pages(self, method: Callable[..., Any], request: Any, field: str) -> Iterator[Any]:
        """Every element of a list, page after page."""
        request.page_size = PAGE
        while True:
            answer = self.call(method, request)
            yield from getattr(answer, field)
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token

    def together(self, method: Any, requests: Sequence[Message], *, at_once: int = 32) -> Iterator[ApiRefused | Any]:
        """The answers to many unary calls in their order, `at_once` of them under way; a refusal stands in its place."""
        for start in range(0, len(requests), at_once):
            some = requests[start : start + at_once]
            for request, under_way in zip(some, [method.future(request, timeout=CALL_S) for request in some], strict=True):
                try:
                    yield under_way.result()
                except grpc.RpcError as error:
                    if error.code() not in RETRIED:
                        yield refusal(error)
                        continue
                    try:
                        yield self.call(method, request)
                    except ApiRefused as refused:
                        yield refused


def refusal(error: grpc.RpcError) -> ApiRefused:
    """What a failed call says."""
    assert isinstance(error, grpc.Call)
    code = error.code()
    reason = code.name if code else "UNKNOWN"
    packed = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    for detail in Status.FromString(packed).details if isinstance(packed, bytes) else ():
        info = ErrorInfo()
        if detail.Unpack(info):
            reason = info.reason or reason
    kind = ApiAway if code in RETRIED else ApiRefused
    return kind(reason, error.details() or reason)


class Mappings:
    """`connector.Known` from Waybill's mappings. What is not known is looked for again, at most once in `AGAIN_S`."""

    AGAIN_S = 1.0

    def __init__(self, waybill: Waybill, system: str) -> None:
        self._waybill, self._system = waybill, system
        self._items: dict[str, str] = {}
        self._external_items: dict[str, str] = {}
        self._zones: dict[str, tuple[str, str]] = {}
        self._places: dict[tuple[str, str], str] = {}
        self._read_at = -self.AGAIN_S

    def item_of(self, external_id: str) -> str | None:
        """Our item."""
        found: str | None = self._look(self._items, external_id)
        return found

    def external_item(self, item_id: str) -> str | None:
        """The ERP's item."""
        found: str | None = self._look(self._external_items, item_id)
        return found

    def zone_of(self, external_id: str) -> tuple[str, str] | None:
        """Our warehouse and zone."""
        found: tuple[str, str] | None = self._look(self._zones, external_id)
        return found

    def external_place(self, warehouse_id: str, zone_id: str) -> str | None:
        """The ERP's place."""
        found: str | None = self._look(self._places, (warehouse_id, zone_id))
        return found

    def zones(self) -> Mapping[str, tuple[str, str]]:
        """All places that are mapped, by the ERP's id."""
        self._zones.clear()
        self._places.clear()
        request = inventory_pb2.ListMappingsRequest(system=self._system, kind=inventory_pb2.MAPPING_KIND_LOCATION)
        self._take(self._waybill.pages(self._waybill.inventory.ListMappings, request, "mappings"))
        return self._zones

    def put(self, mappings: Sequence[inventory_pb2.Mapping]) -> None:
        """Write mappings, and know them."""
        for start in range(0, len(mappings), PAGE):
            request = inventory_pb2.PutMappingsRequest(mappings=mappings[start : start + PAGE])
            self._waybill.call(self._waybill.inventory.PutMappings, request)
        self._take(mappings)

    def read(self) -> None:
        """Read all again."""
        self._read_at = time.monotonic()
        for known in (self._items, self._external_items, self._zones, self._places):
            known.clear()
        request = inventory_pb2.ListMappingsRequest(system=self._system)
        self._take(self._waybill.pages(self._waybill.inventory.ListMappings, request, "mappings"))

    def _take(self, mappings: Iterable[inventory_pb2.Mapping]) -> None:
        for one in mappings:
            if one.kind == inventory_pb2.MAPPING_KIND_ITEM:
                self._items[one.external_id], self._external_items[one.item_id] = one.item_id, one.external_id
            else:
                self._zones[one.external_id] = (one.warehouse_id, one.zone_id)
                self._places[one.warehouse_id, one.zone_id] = one.external_id

    def _look(self, known: Mapping[Any, Any], key: Any) -> Any:
        if key not in known and time.monotonic() - self._read_at > self.AGAIN_S:
            self.read()
        return known.get(key)


class Holds:
    """`connector.Blocked` from Waybill's lots."""

    def __init__(self, waybill: Waybill) -> None:
        self._waybill = waybill

    def lots(self) -> set[tuple[str, str]]:
        """See Blocked."""
        request = inventory_pb2.ListLotsRequest(on_hold_only=True)
        return {(lot.item_id, lot.lot_number) for lot in self._waybill.pages(self._waybill.inventory.ListLots, request, "lots")}

    def of_lot(self, item_id: str, lot_number: str) -> Mapping[tuple[str, str], Decimal | None]:
        """See Blocked. Goods without lot are held by their status alone."""
        request = inventory_pb2.GetLotRequest(item_id=item_id, lot_number=lot_number)
        answer = self._waybill.found(self._waybill.inventory.GetLot, request)
        return {} if answer is None else blocked(answer.lot)


def blocked(lot: inventory_pb2.Lot) -> dict[tuple[str, str], Decimal | None]:
    """What must not be picked of a lot, by zone; None, so all that an ERP has there, where all of it stands under a hold."""
    lines: dict[tuple[str, str], list[inventory_pb2.StockLine]] = {}
    for line in lot.stock:
        if line.zone_id:
            lines.setdefault((line.warehouse_id, line.zone_id), []).append(line)
    found: dict[tuple[str, str], Decimal | None] = {}
    for place, here in lines.items():
        aside = [line for line in here if line.on_hold or line.status == inventory_pb2.STOCK_STATUS_HELD]
        if all(line.on_hold for line in here):
            found[place] = None
        elif aside:
            found[place] = sum((Decimal(line.quantity) for line in aside), Decimal(0))
    return found
