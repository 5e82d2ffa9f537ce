"""What shipments and zones have in common at the door: their commands, tags put on and taken off, and their excursions."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message

from actors.journal import queries_business as queries
from actors.journal.tables import Custody, Excursion
from actors.rules.errors import DomainError, InvalidArgument
from services import check, records
from services.backend import Backend, Context, left
from services.convert import told
from services.paging import Page
from services.shards import ask, now_us
from services.tags import custody_message, tag_name
from waybill.v1 import exposure_pb2, tag_pb2


async def command(backend: Backend, identity: str, name: str, arguments: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Have a shard carry out a command; its answer, or its refusal in the contract's words.

    A caller who names no request gets a name made here, so that the door may send it again while a shard moves.
    """
    request_id = check.text(arguments.get("request_id") or "", "request_id") or f"~{uuid.uuid4().hex}"
    try:
        answer: dict[str, Any] = await backend.command(identity, name, {**arguments, "request_id": request_id}, context)
    except DomainError as refusal:
        raise told(refusal) from None
    return answer


def given(message: Message, field: str) -> Any:
    """A submessage that the request must have."""
    if not message.HasField(field):
        raise InvalidArgument("must be given", field=field)
    return getattr(message, field)


async def assign(backend: Backend, carrier: str, request: Any, unit_id: str, context: Context) -> tag_pb2.Custody:
    """Put a tag on a carrier that exists."""
    tag_id = tag_name(request.tag_id)
    from_us, until_us = check.interval_us(request)
    arguments = {
        "tag_id": tag_id,
        "carrier": carrier,
        "handling_unit_id": unit_id,
        "from_us": from_us,
        "until_us": until_us,
        "assigned_by": check.text(request.actor, "actor"),
        "request_id": check.text(request.request_id, "request_id"),
    }
    row: Any = await command(backend, tag_id, "tag.assign", arguments, context)
    return custody_message(row)


async def release(backend: Backend, carrier: str, request: Any, context: Context) -> tag_pb2.Custody:
    """Take a tag off a carrier."""
    tag_id = tag_name(request.tag_id)
    until_us = check.time_us(request, "until_time")
    arguments = {
        "tag_id": tag_id,
        "carrier": carrier,
        "until_us": now_us() if until_us is None else until_us,
        "ended_by": check.text(request.actor, "actor"),
        "request_id": check.text(request.request_id, "request_id"),
    }
    row: Any = await command(backend, tag_id, "tag.release", arguments, context)
    return custody_message(row)


async def release_all(backend: Backend, carrier: str, until_us: int, actor: str, context: Context) -> None:
    """End every open custody of a carrier that was closed, before its caller is answered; one that began after the end stays as it is.

    The tags' shards do the same by themselves soon (`carrier.closed`), whatever becomes of this door; in the future they alone do it.
    """
    if until_us > now_us():
        return
    after: tuple[int, int] | None = None
    while rows := await backend.read(queries.custodies, carrier, after=after, limit=1000):
        for row in rows:
            if row.until_us is None and row.from_us < until_us:
                arguments = {"tag_id": row.tag_id, "custody_id": row.custody_id, "until_us": until_us, "ended_by": actor}
                await command(backend, row.tag_id, "tag.release", arguments, context)
        after = (rows[-1].from_us, rows[-1].custody_id)


GROWING = ("violation_us", "uncovered_us", "extreme", "extreme_us", "mean", "readings")
"""What of an open excursion grows without being stated anew."""


async def open_now(backend: Backend, carrier: str, context: Context) -> dict[int, dict[str, Any]]:
    """What the shards know of a carrier's open excursions beyond their last revisions, by excursion."""
    found = await ask_all(backend, "tag.open_runs", {"carrier": carrier}, context)
    return {row["excursion_id"]: {name: row[name] for name in GROWING if name in row} for row in found}


async def ask_all(backend: Backend, name: str, arguments: dict[str, Any], context: Context) -> list[dict[str, Any]]:
    """The rows that all shards answer a question with."""
    asked = [ask(backend.shards, shard, "query", name, arguments, remaining_s=left(context)) for shard in range(backend.shards.shards)]
    return [row for answer in await asyncio.gather(*asked) for row in answer]


async def list_excursions(backend: Backend, carrier: str, request: Any, context: Context) -> tuple[list[exposure_pb2.Excursion], str]:
    """A page of a carrier's excursions, open ones as they stand now, with their revisions where asked."""
    page = Page(request, (int, int))
    after: Any = page.after
    rows: list[Excursion] = await backend.read(
        queries.excursions, carrier, after=after, limit=page.limit, retracted=request.include_retracted
    )
    shown, token = page.cut(rows, lambda row: (row.started_us, row.excursion_id))
    earlier: dict[int, list[Any]] = {}
    if request.include_revisions:
        earlier = dict(await backend.read(queries.excursion_revisions, [row.excursion_id for row in shown]))
    now = await open_now(backend, carrier, context) if any(row.state == "CONFIRMED" for row in shown) else {}
    messages = []
    for row in shown:
        before = [one.model_dump() for one in earlier.get(row.excursion_id, []) if one.revision < row.revision]
        messages.append(records.excursion(row.model_dump() | now.get(row.excursion_id, {}), before))
    return messages, token


def custody_of(body: Mapping[str, Any]) -> tag_pb2.Custody:
    """A custody as its event tells it."""
    return custody_message(Custody(**body))
