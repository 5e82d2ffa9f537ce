"""InventoryService: movements, stock, lots and holds. The comparison of books is in book_sync.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from actors.inventory import MOST_MOVEMENTS
from actors.journal import queries_business as business
from actors.journal import queries_stock as queries
from actors.journal.prepared import CommitResult
from actors.journal.queries_stock import Which
from actors.journal.tables import Event, Hold, Movement
from actors.journal.tables import Mapping as MappingRow
from actors.rules import stock
from actors.rules.errors import DomainError, FailedPrecondition, InvalidArgument, NotFound, OutOfRange, StaleEtag
from actors.rules.stability import worst_place
from actors.rules.stock import Line
from actors.shipment import record_of
from services import book_compare, book_sync, check, records, stability, stock_records
from services.backend import Backend, Context
from services.carriers import command, given
from services.convert import told
from services.feed import Feed
from services.paging import Page
from services.shards import now_us
from waybill.v1 import inventory_pb2, inventory_pb2_grpc, shipment_pb2

PART = 500
"""Movements that go into one commit: what else is written waits no longer than for these."""
DIMENSIONS = ("WAREHOUSE", "ZONE", "ITEM", "LOT")
COLUMNS = dict(zip(DIMENSIONS, ("warehouse_id", "zone_id", "item_id", "lot_id"), strict=True))
LINE_KEY = (str, str, str, str, str)
WATCHED = ("movement.", "hold.", "shipment.milestone")
DECIDED = {"RELEASE": "released", "PARTIALLY_RELEASE": "partially_released", "REJECT": "rejected"}
"""What a decision leaves in a hold's history."""


class Inventory(inventory_pb2_grpc.InventoryServiceServicer):
    """See inventory.proto."""

    def __init__(self, backend: Backend, feed: Feed) -> None:
        self._backend = backend
        self._feed = feed

    # ------------------------------------------------------------ movements

    async def RecordMovement(self, request: inventory_pb2.RecordMovementRequest, context: Context) -> inventory_pb2.RecordMovementResponse:
        """One movement."""
        message = given(request, "movement")
        [answer], _ = await self._move(message.warehouse_id, [message], False, context)
        if "error" in answer:
            error = stock_records.line_error(answer["error"])
            raise type(answer["error"])(answer["error"].rule, field=f"movement.{error.field}", value=error.value)
        return inventory_pb2.RecordMovementResponse(
            movement=stock_records.movement(answer["movement"], answer["event"]), repeated_before=answer["repeated"]
        )

    async def RecordMovements(
        self, request: inventory_pb2.RecordMovementsRequest, context: Context
    ) -> inventory_pb2.RecordMovementsResponse:
        """Many movements of one warehouse."""
        answers, last_event = await self._move(request.warehouse_id, request.movements, request.all_or_nothing, context)
        results = []
        for answer in answers:
            if "error" in answer:
                results.append(inventory_pb2.MovementResult(error=stock_records.line_error(answer["error"])))
                continue
            movement = stock_records.movement(answer["movement"], answer["event"])
            results.append(inventory_pb2.MovementResult(movement=movement, repeated_before=answer["repeated"]))
        return inventory_pb2.RecordMovementsResponse(results=results, last_event_number=last_event)

    async def _move(
        self, warehouse_id: str, movements: Sequence[inventory_pb2.Movement], whole: bool, context: Context
    ) -> tuple[list[dict[str, Any]], int]:
        check.text(warehouse_id, "warehouse_id", required=True)
        if len(movements) > MOST_MOVEMENTS:
            raise InvalidArgument(f"must have at most {MOST_MOVEMENTS} entries", field="movements", value=len(movements))
        data = [stock_records.movement_data(one) for one in movements]
        part = len(data) if whole else PART
        answers: list[dict[str, Any]] = []
        last_event = 0
        for start in range(0, len(data) or 1, part or 1):
            some, last_event = await record(self._backend, warehouse_id, data[start : start + part], whole, context)
            answers += some
        self._feed.look()
        return answers, last_event

    async def GetMovement(self, request: inventory_pb2.GetMovementRequest, context: Context) -> inventory_pb2.GetMovementResponse:
        """One movement by its key."""
        check.text(request.warehouse_id, "warehouse_id", required=True)
        row = await self._backend.read(queries.movement, request.warehouse_id, request.key)
        if row is None:
            raise NotFound("no movement of this warehouse has this key", field="key", value=request.key)
        return inventory_pb2.GetMovementResponse(movement=stock_records.movement(row.body))

    async def ListMovements(self, request: inventory_pb2.ListMovementsRequest, context: Context) -> inventory_pb2.ListMovementsResponse:
        """Movements of one ledger by number."""
        await self._warehouse(request.warehouse_id)
        page = Page(request, (int,))
        from_us, until_us = check.interval_us(request)
        rows: list[Movement] = await self._backend.read(
            queries.movements,
            request.warehouse_id,
            above=request.after_number,
            after=page.after[0] if page.after else None,
            newest_first=request.newest_first,
            limit=page.limit,
            item_id=request.item_id,
            lot_id=_lot(request),
            shipment_id=request.shipment_id,
            system=request.system,
            kinds=[check.word(inventory_pb2.MovementKind, kind) for kind in request.kinds],
            from_us=from_us,
            until_us=until_us,
        )
        shown, token = page.cut(rows, lambda row: (row.number,))
        return inventory_pb2.ListMovementsResponse(movements=[stock_records.movement(row.body) for row in shown], next_page_token=token)

    # ------------------------------------------------------------ stock

    async def ListStock(self, request: inventory_pb2.ListStockRequest, context: Context) -> inventory_pb2.ListStockResponse:
        """Stock line by line."""
        await self._warehouse(request.warehouse_id)
        page = Page(request, LINE_KEY)
        at_us = stock_records.as_of_us(request, now_us())
        which = Which(request.warehouse_id, request.zone_id, request.item_id, _lot(request), request.handling_unit_id)
        after: Any = page.after
        rows = await self._backend.read(queries.lines, which, as_of_us=at_us, after=after, limit=page.limit)
        shown, token = page.cut(rows, lambda row: tuple(getattr(row[0], name) for name in queries.SHOWN))
        return inventory_pb2.ListStockResponse(lines=await self._lines(shown, at_us), next_page_token=token)

    async def QueryStock(self, request: inventory_pb2.QueryStockRequest, context: Context) -> inventory_pb2.QueryStockResponse:
        """Sums over the dimensions that are not asked for."""
        if request.warehouse_id:
            await self._warehouse(request.warehouse_id)
        words = [check.word(inventory_pb2.StockDimension, one) for one in request.group_by] or ["WAREHOUSE", "ITEM"]
        by = {*words, "ITEM"} - {""}
        if "ZONE" in by and "WAREHOUSE" not in by:
            raise InvalidArgument("ZONE needs WAREHOUSE", field="group_by", value="ZONE")
        page = Page(request, (str, str, str, str))
        at_us = stock_records.as_of_us(request, now_us())
        which = Which(request.warehouse_id, request.zone_id, request.item_id, _lot(request))
        columns = [COLUMNS[name] for name in DIMENSIONS if name in by]
        after: Any = None if page.after is None else [value for name, value in zip(DIMENSIONS, page.after, strict=True) if name in by]
        found = await self._backend.read(queries.stock_groups, which, columns, as_of_us=at_us, after=after, limit=page.limit)
        shown, token = page.cut(found, lambda group: [dict(zip(columns, group, strict=True)).get(name, "") for name in COLUMNS.values()])
        between = (columns, shown[0], shown[-1]) if shown else None
        rows = await self._backend.read(queries.lines, which, as_of_us=at_us, groups=between) if shown else []
        blocks = await self._backend.read(queries.blocks, [line.lot_id for line, _ in rows], at_us)
        groups: dict[tuple[str, ...], list[tuple[Line, Decimal]]] = {group: [] for group in shown}
        for line, quantity in rows:
            values = {**line._asdict(), "item_id": stock.item_of(line.lot_id)}
            mine = groups.get(tuple(values[name] for name in columns))
            if mine is not None:  # else it came between the two reads: the next question tells it
                mine.append((line, quantity))
        keys = {group: _key(dict(zip(columns, group, strict=True))) for group in shown}
        units = await self._backend.read(queries.units, [key[2] for key in keys.values()])
        sums = [_sum(keys[group], stock.sums(groups[group], blocks), units.get(keys[group][2], "")) for group in shown]
        return inventory_pb2.QueryStockResponse(sums=sums, next_page_token=token)

    async def VerifyStock(self, request: inventory_pb2.VerifyStockRequest, context: Context) -> inventory_pb2.VerifyStockResponse:
        """The kept stock against the sum of its ledger."""
        await self._warehouse(request.warehouse_id)
        lines, movements, differ = await self._backend.read(queries.mismatches, request.warehouse_id)
        units = await self._backend.read(queries.units, [stock.item_of(line.lot_id) for line, _, _ in differ])
        found = [
            inventory_pb2.StockMismatch(
                line=stock_records.stock_line(line, kept, units.get(stock.item_of(line.lot_id), ""), {}), ledger_quantity=stock.text(summed)
            )
            for line, kept, summed in differ
        ]
        return inventory_pb2.VerifyStockResponse(lines=lines, movements=movements, mismatches=found)

    async def _lines(self, rows: Sequence[tuple[Line, Decimal]], at_us: int | None = None) -> list[inventory_pb2.StockLine]:
        units = await self._backend.read(queries.units, [stock.item_of(line.lot_id) for line, _ in rows])
        blocks = await self._backend.read(queries.blocks, [line.lot_id for line, _ in rows], at_us)
        return [stock_records.stock_line(line, amount, units.get(stock.item_of(line.lot_id), ""), blocks) for line, amount in rows]

    async def _warehouse(self, warehouse_id: str) -> None:
        check.text(warehouse_id, "warehouse_id", required=True)
        if await self._backend.read(business.warehouse, warehouse_id) is None:
            raise NotFound("no such warehouse", field="warehouse_id", value=warehouse_id)

    # ------------------------------------------------------------ lots and holds

    async def GetLot(self, request: inventory_pb2.GetLotRequest, context: Context) -> inventory_pb2.GetLotResponse:
        """One lot with its places, holds and what is left of its stability budget."""
        check.text(request.item_id, "item_id", required=True)
        lot_id = stock.lot_id_of(request.item_id, request.lot_number)
        found = await self._backend.read(queries.lots_by, [lot_id])
        item = await self._backend.read(business.item, request.item_id)
        if lot_id not in found or item is None:
            raise NotFound("no such lot", field="lot_number", value=lot_id)
        holds = await self._backend.read(queries.holds_of, [lot_id])
        message = stock_records.lot(found[lot_id], holds[lot_id])
        message.stock.extend(await self._lines(await self._backend.read(queries.lines, Which(lot_id=lot_id))))
        bands, uses = await stability.of_lot(self._backend, lot_id, item, context)
        worst = worst_place(bands, uses)
        message.exposures.extend(stock_records.exposure(place, uses[place], bands, place == worst) for place in sorted(uses))
        return inventory_pb2.GetLotResponse(lot=message)

    async def ListLots(self, request: inventory_pb2.ListLotsRequest, context: Context) -> inventory_pb2.ListLotsResponse:
        """Lots by item and number."""
        page = Page(request, (str, str))
        after: Any = page.after
        rows = await self._backend.read(
            queries.lots,
            after=after,
            limit=page.limit,
            item_id=request.item_id,
            on_hold=request.on_hold_only,
            warehouse_id=request.warehouse_id,
            expires_before_us=check.time_us(request, "expires_before_time"),
        )
        shown, token = page.cut(rows, lambda row: (row.item_id, row.lot_number))
        holds = await self._backend.read(queries.holds_of, [row.lot_id for row in shown])
        return inventory_pb2.ListLotsResponse(lots=[stock_records.lot(row, holds[row.lot_id]) for row in shown], next_page_token=token)

    async def PlaceHold(self, request: inventory_pb2.PlaceHoldRequest, context: Context) -> inventory_pb2.PlaceHoldResponse:
        """A person puts a lot on hold."""
        names = ("item_id", "lot_number", "actor", "reason", "system", "request_id")
        arguments = {name: getattr(request, name) for name in names}
        answer = await command(self._backend, request.item_id, "hold.place", arguments, context)
        holds = await self._backend.read(queries.holds_of, [answer["lot_id"]])
        return inventory_pb2.PlaceHoldResponse(hold=stock_records.hold(holds[answer["lot_id"]][0].model_dump()))

    async def GetHold(self, request: inventory_pb2.GetHoldRequest, context: Context) -> inventory_pb2.GetHoldResponse:
        """One hold with its history."""
        return inventory_pb2.GetHoldResponse(hold=await self._hold(request.hold_id))

    async def ListHolds(self, request: inventory_pb2.ListHoldsRequest, context: Context) -> inventory_pb2.ListHoldsResponse:
        """Holds, newest placed first."""
        page = Page(request, (int, str))
        after: Any = page.after
        rows: list[Hold] = await self._backend.read(
            queries.holds,
            after=after,
            limit=page.limit,
            states=[check.word(inventory_pb2.HoldState, state) for state in request.states],
            item_id=request.item_id,
            lot_id=_lot(request),
            shipment_id=request.shipment_id,
        )
        shown, token = page.cut(rows, lambda row: (row.placed_us, row.hold_id))
        return inventory_pb2.ListHoldsResponse(holds=[stock_records.hold(row.model_dump()) for row in shown], next_page_token=token)

    async def DecideHold(self, request: inventory_pb2.DecideHoldRequest, context: Context) -> inventory_pb2.DecideHoldResponse:
        """A person's decision."""
        check.text(request.hold_id, "hold_id", required=True)
        word = check.word(inventory_pb2.HoldDecision, request.decision)
        places = [
            {"handling_unit_id": one.handling_unit_id, "warehouse_id": one.warehouse_id, "zone_id": one.zone_id} for one in request.places
        ]
        arguments = {
            "hold_id": request.hold_id, "etag": request.etag, "decision": word.lower(), "places": places, "actor": request.actor,
            "reason": request.reason, "system": request.system, "exposure": await self._exposure(request.hold_id, context),
        }  # fmt: skip
        try:
            await self._backend.command(request.hold_id, "hold.decide", arguments, context, again=True)
        except (StaleEtag, FailedPrecondition) as refusal:
            shown = await self._hold(request.hold_id)
            if not _was_done(shown, request, DECIDED.get(word, "")):
                raise told(refusal) from None
            return inventory_pb2.DecideHoldResponse(hold=shown)
        except DomainError as refusal:
            raise told(refusal) from None
        return inventory_pb2.DecideHoldResponse(hold=await self._hold(request.hold_id))

    async def _exposure(self, hold_id: str, context: Context) -> list[dict[str, Any]]:
        """What the lot of a hold has used of its stability budget, as plain data: it is kept with the decision."""
        found = await self._backend.read(queries.hold, hold_id)
        item = None if found is None else await self._backend.read(business.item, found[0].item_id)
        if found is None or item is None:
            return []
        bands, uses = await stability.of_lot(self._backend, found[0].lot_id, item, context)
        return [
            {"carrier": place.carrier, "handling_unit_id": place.handling_unit_id, "bands": [tuple(band) for band in bands],
             "used_us": use.used_us, "uncovered_us": use.uncovered_us}
            for place, use in sorted(uses.items())
        ]  # fmt: skip

    async def _hold(self, hold_id: str) -> inventory_pb2.Hold:
        check.text(hold_id, "hold_id", required=True)
        found = await self._backend.read(queries.hold, hold_id)
        if found is None:
            raise NotFound("no such hold", field="hold_id", value=hold_id)
        return stock_records.hold(found[0].model_dump(), found[1])

    # ------------------------------------------------------------ books and mappings

    async def Sync(self, requests: AsyncIterator[inventory_pb2.SyncRequest], context: Context) -> AsyncIterator[inventory_pb2.SyncResponse]:
        """Another system's book against the ledger."""
        async for answer in book_sync.sync(self._backend, requests, context):
            yield answer

    async def Reconcile(self, request: inventory_pb2.ReconcileRequest, context: Context) -> AsyncIterator[inventory_pb2.ReconcileResponse]:
        """Two books line by line."""
        await self._warehouse(request.warehouse_id)
        async for answer in book_compare.reconcile(self._backend, request):
            yield answer

    async def PutMappings(self, request: inventory_pb2.PutMappingsRequest, context: Context) -> inventory_pb2.PutMappingsResponse:
        """What ids of another system mean."""
        rows: Any = await self._mapping("mapping.put", request.mappings, context)
        return inventory_pb2.PutMappingsResponse(mappings=[stock_records.mapping(row) for row in rows])

    async def DeleteMappings(self, request: inventory_pb2.DeleteMappingsRequest, context: Context) -> inventory_pb2.DeleteMappingsResponse:
        """Forget mappings."""
        await self._mapping("mapping.delete", request.mappings, context)
        return inventory_pb2.DeleteMappingsResponse()

    async def _mapping(self, name: str, mappings: Sequence[inventory_pb2.Mapping], context: Context) -> Any:
        fields = ("system", "external_id", "item_id", "gtin", "warehouse_id", "gln", "zone_id", "etag")
        data = [
            {field: getattr(one, field) for field in fields} | {"kind": check.word(inventory_pb2.MappingKind, one.kind)} for one in mappings
        ]
        # Mappings of one system are written by one shard, so that two writers of one id do not meet.
        home = mappings[0].system if mappings else ""
        return await self._backend.command(home, name, {"mappings": data}, context, again=True)

    async def ListMappings(self, request: inventory_pb2.ListMappingsRequest, context: Context) -> inventory_pb2.ListMappingsResponse:
        """A system's mappings."""
        check.text(request.system, "system", required=True)
        page = Page(request, (str, str))
        after: Any = page.after
        kind = check.word(inventory_pb2.MappingKind, request.kind)
        rows: list[MappingRow] = await self._backend.read(queries.mappings, request.system, kind=kind, after=after, limit=page.limit)
        shown, token = page.cut(rows, lambda row: (row.kind, row.external_id))
        return inventory_pb2.ListMappingsResponse(
            mappings=[stock_records.mapping(row.model_dump()) for row in shown], next_page_token=token
        )

    # ------------------------------------------------------------ watching

    async def WatchInventory(
        self, request: inventory_pb2.WatchInventoryRequest, context: Context
    ) -> AsyncIterator[inventory_pb2.WatchInventoryResponse]:
        """Movements, holds and milestones after a number, in order, for as long as the caller stays."""
        feed = await self._backend.read(queries.feed_id)
        if request.feed and request.feed != feed:
            raise OutOfRange(f"is another feed's: this one is {feed}", field="feed", value=request.feed)
        after = request.after_event_number if request.HasField("after_event_number") else None
        name = request.warehouse_id

        def wanted(event: Event) -> bool:
            if event.kind.startswith("movement.") and name:
                return bool(event.body["movement"]["warehouse_id"] == name)
            return event.kind.startswith(WATCHED)

        async for piece in self._feed.follow(after, wanted=wanted):
            for event in piece.events:
                yield happened(event, feed)
            if not piece.events or piece.events[-1].number < piece.up_to:
                yield inventory_pb2.WatchInventoryResponse(event_number=piece.up_to, feed=feed)


async def record(
    backend: Backend, warehouse_id: str, movements: list[dict[str, Any]], whole: bool, context: Context
) -> tuple[list[dict[str, Any]], int]:
    """Record movements in a warehouse's ledger, in one commit: per movement {movement, repeated, event} or {error}; the newest event.

    They carry their keys, so they may always be sent again.
    """
    arguments = {"warehouse_id": warehouse_id, "movements": movements, "all_or_nothing": whole}
    try:
        result: CommitResult = await backend.command(warehouse_id, "stock.move", arguments, context, again=True)
    except DomainError as refusal:
        raise told(refusal) from None
    number = result.first_event or 0
    for answer in result.stock:
        if "movement" in answer:
            answer["event"] = 0 if answer["repeated"] else number
            number += not answer["repeated"]
    return result.stock, result.last_event


def happened(event: Event, feed: str) -> inventory_pb2.WatchInventoryResponse:
    """An event as a message of the stream."""
    message = inventory_pb2.WatchInventoryResponse(event_number=event.number, feed=feed, recorded_time=check.timestamp(event.recorded_us))
    kind, _, change = event.kind.partition(".")
    if kind == "movement":
        message.movement.CopyFrom(stock_records.movement(event.body["movement"], event.number))
    elif kind == "hold":
        message.hold.CopyFrom(inventory_pb2.HoldEvent(change=change, hold=stock_records.hold(event.body["hold"])))
    else:
        shipment = record_of(event.body)
        newest = max(shipment.milestones, key=lambda one: one.ordinal)
        message.milestone.CopyFrom(
            inventory_pb2.MilestoneEvent(
                shipment_id=shipment.shipment.shipment_id,
                state=check.number(shipment_pb2.ShipmentState, shipment.shipment.state),
                milestone=records.milestone(newest, shipment.stops),
            )
        )
    return message


def _lot(request: Any) -> str:
    """The lot that a request names; "" where it names none. A number needs its item."""
    if not request.lot_number:
        return ""
    if not request.item_id:
        raise InvalidArgument("must be given with a lot number", field="item_id")
    return stock.lot_id_of(request.item_id, request.lot_number)


def _key(group: Mapping[str, str]) -> tuple[str, str, str, str]:
    """Warehouse, zone, item and lot number of a group of stock; empty where the group is over all of them."""
    lot_id = group.get("lot_id", "")
    return group.get("warehouse_id", ""), group.get("zone_id", ""), group["item_id"], stock_records.number_of(lot_id)


def _sum(key: tuple[str, ...], sums: stock.Sums, unit: str) -> inventory_pb2.StockSum:
    warehouse_id, zone_id, item_id, number = key
    return inventory_pb2.StockSum(
        warehouse_id=warehouse_id,
        zone_id=zone_id,
        item_id=item_id,
        lot_number=number,
        unit=unit,
        on_hand=stock.text(sums.on_hand),
        held=stock.text(sums.held),
        reserved=stock.text(sums.reserved),
        available=stock.text(sums.available),
        in_transit=stock.text(sums.in_transit),
    )


def _was_done(hold: inventory_pb2.Hold, request: inventory_pb2.DecideHoldRequest, change: str) -> bool:
    """Whether the history has this very decision as the next change after the etag: its answer was lost, and it was sent again."""
    version = check.etag(request.etag)
    return version is not None and any(
        (one.etag, one.change, one.actor, one.text) == (str(version + 1), change, request.actor, request.reason) for one in hold.history
    )
