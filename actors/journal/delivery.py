"""The rows of the outbox as who delivers them sees them: what is due, what became of it, what a person decides about it.

State: PENDING, then DELIVERED; or DEAD, when the receiver refused it, until a person sends it again (PENDING) or gives it up
(DISCARDED). Only PENDING messages are sent, per destination in the order of their sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, select, update

from actors.journal import outbox, rows
from actors.journal.database import reachable
from actors.journal.prepared import Condition
from actors.journal.tables import Outbox, OutboxDestination, Setting

OUTBOX, DESTINATION, SETTING = rows.table_of(Outbox), rows.table_of(OutboxDestination), rows.table_of(Setting)

PENDING, DELIVERED, DEAD, DISCARDED = "PENDING", "DELIVERED", "DEAD", "DISCARDED"
STATES = (PENDING, DELIVERED, DEAD, DISCARDED)
PRUNED_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of one attempt. state: DELIVERED, DEAD, or PENDING with the time of the next try."""

    id: int
    state: str
    error: str = ""
    next_try_us: int = 0


@dataclass(frozen=True, slots=True)
class Pile:
    """A destination and its messages: how many in each state, and the oldest that waits."""

    destination: str
    enabled: bool
    alert_above: int
    counts: dict[str, int]
    oldest_us: int | None
    attempts: int
    last_error: str
    """Of the message that stands first."""


@reachable()
def waiting(engine: Engine, destination: str, limit: int) -> list[Outbox]:
    """The first messages that are to be sent, in their order."""
    wanted = select(OUTBOX).where((OUTBOX.c.destination == destination) & (OUTBOX.c.state == PENDING))
    with engine.connect() as connection:
        found = connection.execute(wanted.order_by(OUTBOX.c.sequence).limit(limit)).mappings()
        return [Outbox(**row) for row in found]


@reachable()
def destinations(engine: Engine) -> list[Pile]:
    """All destinations, by name."""
    with engine.connect() as connection:
        counted = select(OUTBOX.c.destination, OUTBOX.c.state, func.count()).group_by(OUTBOX.c.destination, OUTBOX.c.state)
        counts: dict[str, dict[str, int]] = {}
        for name, state, count in connection.execute(counted):
            counts.setdefault(name, {})[state] = count
        found = []
        for row in connection.execute(select(DESTINATION).order_by(DESTINATION.c.destination)).mappings():
            first = select(OUTBOX.c.created_us, OUTBOX.c.attempts, OUTBOX.c.last_error)
            first = first.where((OUTBOX.c.destination == row["destination"]) & (OUTBOX.c.state == PENDING)).order_by(OUTBOX.c.sequence)
            oldest = connection.execute(first.limit(1)).first()
            mine = counts.get(row["destination"], {})
            found.append(
                Pile(row["destination"], bool(row["enabled"]), row["alert_above"], mine, *(oldest or (None, 0, "")))
            )  # fmt: skip
        return found


@reachable()
def messages(engine: Engine, *, destination: str = "", states: Sequence[str] = (), limit: int = 50) -> list[Outbox]:
    """Messages, oldest first; those that need a person before others where no state is asked for."""
    wanted = select(OUTBOX).order_by(OUTBOX.c.destination, OUTBOX.c.sequence).limit(limit)
    if destination:
        wanted = wanted.where(OUTBOX.c.destination == destination)
    if states:
        wanted = wanted.where(OUTBOX.c.state.in_(states))
    with engine.connect() as connection:
        return [Outbox(**row) for row in connection.execute(wanted).mappings()]


@reachable()
def message(engine: Engine, number: int) -> Outbox | None:
    """One message by its id."""
    with engine.connect() as connection:
        found = connection.execute(select(OUTBOX).where(OUTBOX.c.id == number)).mappings().first()
        return None if found is None else Outbox(**found)


@reachable()
def delivered(engine: Engine, destination: str, kind: str, limit: int, before: int | None = None) -> list[Outbox]:
    """Delivered messages of a kind, newest first, from a sequence on downwards."""
    wanted = select(OUTBOX).where((OUTBOX.c.destination == destination) & (OUTBOX.c.state == DELIVERED) & (OUTBOX.c.kind == kind))
    if before is not None:
        wanted = wanted.where(OUTBOX.c.sequence < before)
    with engine.connect() as connection:
        found = connection.execute(wanted.order_by(OUTBOX.c.sequence.desc()).limit(limit)).mappings()
        return [Outbox(**row) for row in found]


def settle(connection: Connection, destination: str, settled: Sequence[Settled], now_us: int) -> list[Condition]:
    """Write what became of attempts; the alert to raise or clear, if any. For Store.write."""
    for one in settled:
        changed: dict[str, Any] = {
            "state": one.state, "last_error": one.error[:1000], "next_try_us": one.next_try_us, "attempts": OUTBOX.c.attempts + 1,
        }  # fmt: skip
        if one.state == DELIVERED:
            changed["delivered_us"] = now_us
        # A message that a person gave up meanwhile stays given up.
        connection.execute(update(OUTBOX).where((OUTBOX.c.id == one.id) & (OUTBOX.c.state == PENDING)).values(**changed))
    return _counted(connection, destination, now_us)


def _counted(connection: Connection, destination: str, now_us: int) -> list[Condition]:
    """Alerts by the messages that wait, where there were many when last counted."""
    found: list[Condition] = []
    held = connection.execute(select(DESTINATION).where(DESTINATION.c.destination == destination)).mappings().first()
    if held is not None and held["undelivered"] > held["alert_above"]:
        count = outbox.undelivered(connection, destination)
        condition = outbox.pile(destination, count, held["alert_above"], now_us, held["undelivered"])
        found += [condition] if condition is not None else []
        connection.execute(update(DESTINATION).where(DESTINATION.c.destination == destination).values(undelivered=count))
    return found


def dead(connection: Connection, destination: str) -> int:
    """How many messages wait for a person. For Store.write."""
    wanted = select(func.count()).select_from(OUTBOX).where((OUTBOX.c.destination == destination) & (OUTBOX.c.state == DEAD))
    return int(connection.execute(wanted).scalar_one())


def retry(connection: Connection, numbers: Sequence[int]) -> int:
    """Send dead messages again: they stand first, for they are the oldest; how many. For Store.write."""
    return _move(connection, numbers, {"state": PENDING, "next_try_us": 0, "attempts": 0})


def discard(connection: Connection, numbers: Sequence[int], why: str) -> int:
    """Give dead messages up; they stay to be seen, with the reason. How many. For Store.write."""
    return _move(connection, numbers, {"state": DISCARDED, "last_error": why[:1000]})


def _move(connection: Connection, numbers: Sequence[int], changed: dict[str, Any]) -> int:
    moved = 0
    for some in rows.chunks(list(numbers)):
        moved += connection.execute(update(OUTBOX).where(OUTBOX.c.id.in_(some) & (OUTBOX.c.state == DEAD)).values(**changed)).rowcount
    return moved


def prune(connection: Connection, destination: str, before_us: int) -> int:
    """Forget messages that were delivered before a time, some thousand of them; how many. For Store.write."""
    old = select(OUTBOX.c.id).where(
        (OUTBOX.c.destination == destination) & (OUTBOX.c.state == DELIVERED) & (OUTBOX.c.delivered_us < before_us)
    )
    found = list(connection.execute(old.order_by(OUTBOX.c.sequence).limit(PRUNED_AT_ONCE)).scalars())
    for some in rows.chunks(found):
        connection.execute(delete(OUTBOX).where(OUTBOX.c.id.in_(some)))
    return len(found)


# ---------------------------------------------------------------- what a connector remembers


@reachable()
def remembered(engine: Engine, name: str) -> str | None:
    """A setting's value."""
    with engine.connect() as connection:
        found: str | None = connection.execute(select(SETTING.c.value).where(SETTING.c.name == name)).scalar()
        return found


def remember(connection: Connection, name: str, value: str) -> None:
    """Write a setting. For Store.write."""
    rows.upsert(connection, SETTING, [{"name": name, "value": value}])
