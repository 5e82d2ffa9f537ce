"""ShipmentService: journeys of goods, from plan to verdict."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

from actors.journal import queries_business as queries
from actors.journal.queries_business import ShipmentRecord, shipment_carrier
from actors.journal.tables import Event, Milestone
from actors.rules.errors import FailedPrecondition, InvalidArgument, NotFound
from actors.rules.plan import Plan
from actors.rules.readings import FOREVER_US
from actors.shipment import record_of
from services import alerts, carriers, check, convert, exposure, records, track
from services.backend import Backend, Context
from services.carriers import command, given
from services.feed import Feed
from services.paging import Page
from waybill.v1 import shipment_pb2, shipment_pb2_grpc

CHANGEABLE = (
    "reference",
    "description",
    "profile_id",
    "profile_version",
    "stops",
    "handling_units",
    "geofences",
    "route",
    "container_number",
    "labels",
    "lateness_tolerance_s",
)
INSIDE = {"profile_version": "profile_id", "lateness_tolerance_s": "lateness_tolerance_us"}
"""Masked fields that the command has under another name."""

MOST_VISITS = 10_000


class Shipments(shipment_pb2_grpc.ShipmentServiceServicer):
    """See shipment.proto."""

    def __init__(self, backend: Backend, feed: Feed) -> None:
        self._backend = backend
        self._feed = feed

    # ------------------------------------------------------------ the shipment itself

    async def CreateShipment(self, request: shipment_pb2.CreateShipmentRequest, context: Context) -> shipment_pb2.CreateShipmentResponse:
        """A new shipment."""
        body = convert.shipment(given(request, "shipment"))
        body.pop("etag")
        request_id = check.text(request.request_id, "request_id")
        if not body["shipment_id"]:
            # Made from the request's id, so that the request sent again is the same request.
            seed = uuid.uuid5(uuid.NAMESPACE_OID, f"waybill/{request_id}") if request_id else uuid.uuid4()
            body["shipment_id"] = f"s-{seed.hex[:20]}"
        answer = await self._command("shipment.create", body["shipment_id"], {"shipment": body, "request_id": request_id}, context)
        return shipment_pb2.CreateShipmentResponse(shipment=records.shipment(record_of(answer)))

    async def GetShipment(self, request: shipment_pb2.GetShipmentRequest, context: Context) -> shipment_pb2.GetShipmentResponse:
        """One shipment."""
        record = await self._record(request.shipment_id)
        return shipment_pb2.GetShipmentResponse(shipment=(await self._shown([record]))[0])

    async def ListShipments(self, request: shipment_pb2.ListShipmentsRequest, context: Context) -> shipment_pb2.ListShipmentsResponse:
        """Newest created first."""
        page = Page(request, (int, str))
        states = [check.word(shipment_pb2.ShipmentState, state) for state in request.states]
        if "" in states:
            raise InvalidArgument("must name a state", field="states", value=0)
        created = check.interval_us(request, "created_from_time", "created_until_time")
        after: Any = page.after
        rows = await self._backend.read(
            queries.shipments,
            after=after,
            limit=page.limit,
            states=states,
            reference=check.text(request.reference, "reference"),
            created_from_us=created[0],
            created_until_us=created[1],
        )
        shown, token = page.cut(rows, lambda row: (row.created_us, row.shipment_id))
        found = await self._backend.read(queries.shipment_records, shown)
        return shipment_pb2.ListShipmentsResponse(shipments=await self._shown(found), next_page_token=token)

    async def UpdateShipment(self, request: shipment_pb2.UpdateShipmentRequest, context: Context) -> shipment_pb2.UpdateShipmentResponse:
        """Some fields of a shipment are replaced."""
        changes = given(request, "shipment")
        body = convert.shipment(changes)
        named = check.masked(changes, request.update_mask, CHANGEABLE)
        if "profile_version" in named and "profile_id" not in named:
            body["profile_id"] = (await self._record(body["shipment_id"], "shipment.shipment_id")).shipment.profile_id or ""
        arguments = {
            "shipment": body,
            "update_mask": list(dict.fromkeys(INSIDE.get(field, field) for field in named)),
            "effective_us": check.time_us(request, "effective_time"),
            "request_id": request.request_id,
        }
        answer = await self._command("shipment.update", body["shipment_id"], arguments, context)
        return shipment_pb2.UpdateShipmentResponse(shipment=(await self._shown([record_of(answer)]))[0])

    async def CancelShipment(self, request: shipment_pb2.CancelShipmentRequest, context: Context) -> shipment_pb2.CancelShipmentResponse:
        """The journey does not take place, or ends here."""
        arguments = {
            "shipment_id": request.shipment_id,
            "etag": request.etag,
            "actor": request.actor,
            "reason": request.reason,
            "cancel_us": check.time_us(request, "cancel_time"),
            "request_id": request.request_id,
        }
        answer = await self._command("shipment.cancel", request.shipment_id, arguments, context)
        record = record_of(answer)
        await self._release_all(record, request.actor, context)
        return shipment_pb2.CancelShipmentResponse(shipment=(await self._shown([record]))[0])

    # ------------------------------------------------------------ tags

    async def AssignTag(self, request: shipment_pb2.AssignTagRequest, context: Context) -> shipment_pb2.AssignTagResponse:
        """A tag is put on the shipment."""
        record = await self._record(request.shipment_id)
        if record.shipment.state == "CANCELLED":
            raise FailedPrecondition("is cancelled", field="shipment_id", value=request.shipment_id)
        unit_id = check.text(request.handling_unit_id, "handling_unit_id")
        name = shipment_carrier(request.shipment_id)
        return shipment_pb2.AssignTagResponse(custody=await carriers.assign(self._backend, name, request, unit_id, context))

    async def ReleaseTag(self, request: shipment_pb2.ReleaseTagRequest, context: Context) -> shipment_pb2.ReleaseTagResponse:
        """A tag is taken off the shipment."""
        await self._record(request.shipment_id)
        name = shipment_carrier(request.shipment_id)
        return shipment_pb2.ReleaseTagResponse(custody=await carriers.release(self._backend, name, request, context))

    # ------------------------------------------------------------ what happens to it

    async def RecordMilestone(self, request: shipment_pb2.RecordMilestoneRequest, context: Context) -> shipment_pb2.RecordMilestoneResponse:
        """Something happened."""
        said = convert.milestone(given(request, "milestone"))
        arguments = {"shipment_id": request.shipment_id, "milestone": said, "request_id": request.request_id}
        answer = await self._command("shipment.milestone", request.shipment_id, arguments, context)
        record = record_of(answer)
        await self._release_all(record, said["actor"], context)
        new = records.milestone(Milestone(**answer["milestone"]), record.stops)
        return shipment_pb2.RecordMilestoneResponse(milestone=new, shipment=(await self._shown([record]))[0])

    async def ListMilestones(self, request: shipment_pb2.ListMilestonesRequest, context: Context) -> shipment_pb2.ListMilestonesResponse:
        """Milestones by time."""
        page = Page(request, (int, int))
        record = await self._record(request.shipment_id)
        after: Any = page.after or (-1, -1)
        rows = [row for row in record.milestones if (row.at_us, row.ordinal) > after]
        shown, token = page.cut(rows, lambda row: (row.at_us, row.ordinal))
        return shipment_pb2.ListMilestonesResponse(
            milestones=[records.milestone(row, record.stops) for row in shown], next_page_token=token
        )

    async def GetTrack(self, request: shipment_pb2.GetTrackRequest, context: Context) -> shipment_pb2.GetTrackResponse:
        """Where it has been."""
        record = await self._record(request.shipment_id)
        from_us, until_us = check.interval_us(request)
        if request.max_positions < 0:
            raise InvalidArgument("must be 0 or more", field="max_positions", value=request.max_positions)
        name = shipment_carrier(request.shipment_id)
        custodies = await self._backend.read(queries.custodies, name, limit=exposure.MOST_CUSTODIES)
        rides = await asyncio.gather(*(exposure.ride(self._backend, custody, context) for custody in custodies))
        visits = await self._backend.read(queries.visits, name, limit=MOST_VISITS)
        row = await self._backend.read(queries.plan, name)
        plan = Plan(name, 0, "open") if row is None else Plan.from_data(row.body)
        span = (from_us or 0, FOREVER_US if until_us is None else until_us)
        pairs = [(one.custody, one.batch, one.usable) for one in rides]
        return await asyncio.to_thread(track.answer, pairs, visits, plan, record.stops, span, track.most_positions(request.max_positions))

    async def GetExposure(self, request: shipment_pb2.GetExposureRequest, context: Context) -> shipment_pb2.GetExposureResponse:
        """Exposure and verdict."""
        await self._record(request.shipment_id)
        found = await exposure.of_carrier(self._backend, shipment_carrier(request.shipment_id), context)
        return shipment_pb2.GetExposureResponse(exposure=found)

    async def ListExcursions(self, request: shipment_pb2.ListExcursionsRequest, context: Context) -> shipment_pb2.ListExcursionsResponse:
        """Excursions by start."""
        await self._record(request.shipment_id)
        rows, token = await carriers.list_excursions(self._backend, shipment_carrier(request.shipment_id), request, context)
        return shipment_pb2.ListExcursionsResponse(excursions=rows, next_page_token=token)

    async def WatchShipment(
        self, request: shipment_pb2.WatchShipmentRequest, context: Context
    ) -> AsyncIterator[shipment_pb2.WatchShipmentResponse]:
        """Everything that happens to the shipment, for as long as the caller stays."""
        await self._record(request.shipment_id)
        after = request.after_event_number if request.HasField("after_event_number") else None
        if after is not None and after < 0:
            raise InvalidArgument("must be 0 or more", field="after_event_number", value=after)
        async for piece in self._feed.follow(after, carrier=shipment_carrier(request.shipment_id)):
            for event in piece.events:
                yield shipment_pb2.WatchShipmentResponse(event_number=event.number, event=happened(event))
            if not piece.events or piece.events[-1].number < piece.up_to:
                yield shipment_pb2.WatchShipmentResponse(event_number=piece.up_to)

    # ------------------------------------------------------------ parts

    async def _command(self, name: str, shipment_id: str, arguments: dict[str, Any], context: Context) -> dict[str, Any]:
        return await command(self._backend, shipment_id, name, arguments, context)

    async def _record(self, shipment_id: str, field: str = "shipment_id") -> ShipmentRecord:
        check.text(shipment_id, field, required=True)
        record = await self._backend.read(queries.shipment, shipment_id)
        if record is None:
            raise NotFound("no such shipment", field=field, value=shipment_id)
        return record

    async def _shown(self, found: list[ShipmentRecord]) -> list[shipment_pb2.Shipment]:
        """Shipments with the arrivals that nobody told but a visit shows."""
        awaiting = [shipment_carrier(one.shipment.shipment_id) for one in found if any(stop.arrived_us is None for stop in one.stops)]
        visited = await self._backend.read(queries.visited_fences, awaiting) if awaiting else {}
        messages = []
        for one in found:
            name = shipment_carrier(one.shipment.shipment_id)
            mine = {fence: entered_us for (carrier, fence), entered_us in visited.items() if carrier == name}
            messages.append(records.shipment(one, mine))
        return messages

    async def _release_all(self, record: ShipmentRecord, actor: str, context: Context) -> None:
        """A closed shipment's tags are free from its end on."""
        row = record.shipment
        if row.closed_us is not None:
            await carriers.release_all(self._backend, shipment_carrier(row.shipment_id), row.closed_us, actor, context)


def happened(event: Event) -> shipment_pb2.ShipmentEvent:
    """An event of a shipment as a message of its stream."""
    body = event.body
    subject, _, change = event.kind.partition(".")
    message = shipment_pb2.ShipmentEvent(
        kind=event.kind,
        time=check.timestamp(event.at_us),
        recorded_time=check.timestamp(event.recorded_us),
        tag_id=event.tag_id or "",
        text=_text(event, subject, change),
    )
    if subject == "shipment":
        record = record_of(body)
        if change == "milestone":
            newest = max(record.milestones, key=lambda one: one.ordinal)
            message.milestone.CopyFrom(records.milestone(newest, record.stops))
        else:
            message.shipment.CopyFrom(records.shipment(record))
    elif subject == "custody":
        message.custody.CopyFrom(carriers.custody_of(body))
    elif subject == "excursion":
        message.excursion.CopyFrom(records.excursion(body))
    elif subject == "visit":
        message.visit.CopyFrom(records.visit(body))
    elif subject == "alert":
        message.alert.CopyFrom(alerts.message(body))
    return message


def _text(event: Event, subject: str, change: str) -> str:
    """One line for people."""
    body = event.body
    if subject == "alert":
        return f"{alerts.text_of(body)}: {change}"
    if subject == "shipment":
        kinds = [one["kind"] for one in sorted(body["milestones"], key=lambda one: one["ordinal"])]
        return f"{body['shipment']['shipment_id']}: {kinds[-1].lower() if change == 'milestone' and kinds else change}"
    about = {"custody": "carrier", "excursion": "limit_id", "visit": "fence_id"}.get(subject, "")
    return " ".join(part for part in (f"tag {event.tag_id}" if event.tag_id else "", event.kind, str(body.get(about) or "")) if part)
