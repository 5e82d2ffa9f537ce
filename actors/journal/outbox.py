"""The outbox: what systems outside are to be told is written in the commit it tells of, per destination in order.

A destination is registered once (`register`); from then on every movement, hold and decision writes a message for it, unless it came from
there. Delivering is services/outbox.py's; here are the rows. Lock order: a destination's row is locked after lots and stock, before the
event counter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, func, select, update

from actors.journal import rows
from actors.journal.columns import dumps
from actors.journal.once import Once
from actors.journal.prepared import Condition
from actors.journal.tables import Outbox, OutboxDestination
from actors.rules.errors import InvalidArgument

OUTBOX, DESTINATION = rows.table_of(Outbox), rows.table_of(OutboxDestination)

COUNT_EVERY = 1_000
"""Undelivered messages are counted whenever so many more have been written, or a tenth of what raises an alert."""

_INSERT = Once(lambda dialect: rows.insert_with_text(OUTBOX, "body", dialect, leave="id"))
_ENABLED = select(DESTINATION).where(DESTINATION.c.enabled).order_by(DESTINATION.c.destination)
_HELD = _ENABLED.with_for_update()


@dataclass(slots=True)
class Message:
    """Something that every destination is told, but the one it came from (`system`). `key` is its idempotency key; `text`: the body as
    JSON, where it has been made already."""

    key: str
    kind: str
    body: Mapping[str, Any]
    system: str = ""
    text: str = ""


@dataclass(slots=True)
class Posted:
    """What posting entailed: alerts of destinations whose undelivered messages pile up."""

    conditions: list[Condition] = field(default_factory=list)


def destinations(connection: Connection) -> list[OutboxDestination]:
    """The destinations that are told, by name; not locked."""
    return [rows.record(OutboxDestination, dict(row)) for row in connection.execute(_ENABLED).mappings()]


def told_anyone(connection: Connection) -> bool:
    """Whether there is a destination at all."""
    return connection.execute(_ENABLED.limit(1)).first() is not None


def post(connection: Connection, messages: Sequence[Message], now_us: int) -> Posted:
    """Write a row per message and destination. The destinations' rows are locked until the transaction ends."""
    posted = Posted()
    if not messages or not told_anyone(connection):
        return posted
    for found in connection.execute(_HELD).mappings().all():
        mine = [message for message in messages if message.system != found["destination"]]
        if mine:
            _append(connection, dict(found), mine, now_us, posted)
    return posted


def append(connection: Connection, given: Sequence[Outbox], now_us: int) -> None:
    """Write messages for named destinations, which are made where they are not there."""
    for name in sorted({one.destination for one in given}):
        register(connection, name, now_us)
        held = select(DESTINATION).where(DESTINATION.c.destination == name).with_for_update()
        found = connection.execute(held).mappings().one()
        mine = [Message(one.key, one.kind, one.body) for one in given if one.destination == name]
        _append(connection, dict(found), mine, now_us, Posted())


def _append(connection: Connection, found: Mapping[str, Any], messages: Sequence[Message], now_us: int, posted: Posted) -> None:
    name, head = str(found["destination"]), int(found["head"])
    written = [
        {
            "destination": name, "sequence": head + place, "key": message.key, "kind": message.kind,
            "text": message.text or dumps(dict(message.body)),
            "created_us": now_us, "attempts": 0, "next_try_us": 0, "state": "PENDING", "delivered_us": None, "last_error": "",
        }
        for place, message in enumerate(messages, 1)
    ]  # fmt: skip
    _INSERT.many(connection, written)
    changed: dict[str, Any] = {"head": head + len(written)}
    every = max(1, min(COUNT_EVERY, found["alert_above"] // 10))
    if head // every != changed["head"] // every or found["undelivered"] > found["alert_above"]:
        changed["undelivered"] = undelivered(connection, name)
        condition = pile(name, changed["undelivered"], int(found["alert_above"]), now_us, int(found["undelivered"]))
        posted.conditions += [condition] if condition is not None else []
    connection.execute(update(DESTINATION).where(DESTINATION.c.destination == name).values(**changed))


def undelivered(connection: Connection, destination: str) -> int:
    """How many messages of a destination wait."""
    waiting = (OUTBOX.c.destination == destination) & (OUTBOX.c.state == "PENDING")
    return int(connection.execute(select(func.count()).select_from(OUTBOX).where(waiting)).scalar_one())


def pile(destination: str, count: int, alert_above: int, now_us: int, before: int) -> Condition | None:
    """The alert of a destination whose messages pile up, raised or cleared; None where nothing changes."""
    key = f"outbox|{destination}"
    if count > alert_above:
        detail = {"destination": destination, "undelivered": count, "alert_above": alert_above}
        return Condition(
            key=key, kind="outbox", change="raise", at_us=now_us, reason=f"{destination} is not taking messages", detail=detail
        )
    if before > alert_above:
        return Condition(key=key, kind="outbox", change="clear", at_us=now_us, reason="delivered")
    return None


def register(connection: Connection, destination: str, now_us: int, *, alert_above: int = 10_000, most: int = 1_000_000) -> None:
    """Make a destination, or leave it as it is. For Store.write. Raises InvalidArgument for an empty name."""
    if not destination:
        raise InvalidArgument("must be given", field="destination")
    row = OutboxDestination(destination=destination, alert_above=alert_above, most=most, created_us=now_us)
    table = rows.upsert_statement(connection.dialect.name, DESTINATION, ("destination",), nothing=True)
    connection.execute(table, [rows.values(row)])


def enable(connection: Connection, destination: str, enabled: bool) -> bool:
    """Whether a destination is told of what happens from now on; false where there is none. For Store.write."""
    changed = update(DESTINATION).where(DESTINATION.c.destination == destination).values(enabled=enabled)
    return bool(connection.execute(changed).rowcount)
