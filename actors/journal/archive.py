"""The archive's manifest in SQL: which journeys are due, what a journey's records are, and the transactions that publish and drop.

The functions that write are for `Store.write`: harmless when they are sent again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, select, tuple_, update
from sqlmodel import Session, col
from sqlmodel import select as select_rows

from actors.journal import rows, snapshot
from actors.journal.archive_place import ROOT, SETTING, located
from actors.journal.sorted_rows import BATCH, ENTRIES, PAGE, SEGMENT
from actors.journal.tables import (
    Alert,
    AlertHistory,
    ArchivedCarrier,
    ArchivedCustody,
    ArchivePart,
    CarrierPlan,
    Custody,
    CustodyRevision,
    Event,
    ExcursionRevision,
    Exposure,
    HandlingUnit,
    HandlingUnitLot,
    JournalRetained,
    Milestone,
    Replay,
    ShardOwner,
    Shipment,
    Stop,
    Tag,
    Visit,
)
from actors.rules.errors import FailedPrecondition

PART, CARRIER, CUSTODY, RETAINED = (rows.table_of(one) for one in (ArchivePart, ArchivedCarrier, ArchivedCustody, JournalRetained))
SHIPMENT, EVENT, RIDE, TAG, OWNER = (rows.table_of(one) for one in (Shipment, Event, Custody, Tag, ShardOwner))
REPLAY = rows.table_of(Replay)
CLOSED_STATES = ("DELIVERED", "CANCELLED")


@dataclass(frozen=True, slots=True)
class Due:
    """A closed shipment that is not in the archive as it is now. part_id: of the part that has it as it was."""

    shipment_id: str
    carrier: str
    closed_us: int
    part_id: str | None


@dataclass(slots=True)
class Journey:
    """All rows of a closed shipment, as plain values by column."""

    carrier: str
    shipment: dict[str, Any]
    plan: dict[str, Any]
    custodies: list[dict[str, Any]]
    custody_revisions: list[dict[str, Any]] = field(default_factory=list)
    exposures: list[dict[str, Any]] = field(default_factory=list)
    excursions: list[dict[str, Any]] = field(default_factory=list)
    visits: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    tags: dict[str, dict[str, Any]] = field(default_factory=dict)
    tag_events: list[dict[str, Any]] = field(default_factory=list)
    record: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    lots: dict[str, list[str]] = field(default_factory=dict)


# ---------------------------------------------------------------- what is due


def due(engine: Engine, closed_before_us: int) -> list[Due]:
    """Shipments closed before a time, with all custodies ended, that are not in the archive or have changed since; by closing time."""
    with engine.connect() as connection:
        still = select(RIDE.c.carrier).where(RIDE.c.until_us.is_(None) & RIDE.c.retracted.is_(False)).distinct()
        open_carriers = set(connection.execute(still).scalars())
        closed = (
            select(SHIPMENT.c.shipment_id, func.coalesce(SHIPMENT.c.closed_us, SHIPMENT.c.updated_us).label("closed_us"))
            .where(SHIPMENT.c.state.in_(CLOSED_STATES))
            .where(func.coalesce(SHIPMENT.c.closed_us, SHIPMENT.c.updated_us) < closed_before_us)
        )
        known = {
            row.carrier: row
            for row in connection.execute(select(CARRIER.c.carrier, CARRIER.c.part_id, CARRIER.c.last_event, CARRIER.c.stale))
        }
        newest: dict[str, int] = {}
        if known:
            after = min(row.last_event for row in known.values())
            numbers = select(EVENT.c.carrier, func.max(EVENT.c.number)).where(EVENT.c.number > after).group_by(EVENT.c.carrier)
            newest = {carrier: number for carrier, number in connection.execute(numbers).all() if carrier}
        found = []
        for shipment_id, closed_us in connection.execute(closed).all():
            carrier = f"shipment/{shipment_id}"
            there = known.get(carrier)
            if carrier in open_carriers or (there and not there.stale and newest.get(carrier, 0) <= there.last_event):
                continue
            found.append(Due(shipment_id, carrier, int(closed_us), there.part_id if there else None))
    return sorted(found, key=lambda one: (one.closed_us, one.shipment_id))


def companions(engine: Engine, part_ids: Sequence[str]) -> list[Due]:
    """All shipments of some parts: a part is made anew as a whole."""
    found = []
    with engine.connect() as connection:
        for some in rows.chunks(list(part_ids)):
            query = select(CARRIER.c.carrier, CARRIER.c.closed_us, CARRIER.c.part_id).where(CARRIER.c.part_id.in_(some))
            found += [
                Due(row.carrier.removeprefix("shipment/"), row.carrier, row.closed_us, row.part_id) for row in connection.execute(query)
            ]
    return found


# ---------------------------------------------------------------- a journey's records


def journeys(engine: Engine, dues: Sequence[Due]) -> list[Journey]:
    """The records of some shipments, in the order given, from one state of the database. Those that are not there are left out."""
    with engine.connect() as connection:
        carriers = [one.carrier for one in dues]
        ids = [one.shipment_id for one in dues]
        shipments = {row["shipment_id"]: row for row in _rows(connection, Shipment, "shipment_id", ids)}
        plans = {row["carrier"]: row["body"] for row in _rows(connection, CarrierPlan, "carrier", carriers)}
        found = {
            one.carrier: Journey(one.carrier, shipments[one.shipment_id], plans[one.carrier], [])
            for one in dues
            if one.shipment_id in shipments and one.carrier in plans
        }
        for table, name in (
            (Custody, "custodies"), (Exposure, "exposures"), (ExcursionRevision, "excursions"), (Visit, "visits"), (Event, "events"),
            (Alert, "alerts"),
        ):  # fmt: skip
            for row in _rows(connection, table, "carrier", carriers):
                if row["carrier"] in found:
                    getattr(found[row["carrier"]], name).append(row)
        _by_parent(connection, found, CustodyRevision, "custody_id", "custodies", "custody_revisions")
        _by_parent(connection, found, AlertHistory, "alert_id", "alerts", "decisions")
        by_id = {journey.shipment["shipment_id"]: journey for journey in found.values()}
        for people, name in ((Stop, "stops"), (Milestone, "milestones")):
            for row in _rows(connection, people, "shipment_id", ids):
                if row["shipment_id"] in by_id:
                    by_id[row["shipment_id"]].record.setdefault(name, []).append(row)
        _units(connection, found)
        _tags(connection, found)
    for journey in found.values():
        journey.events.sort(key=lambda row: int(row["number"]))
        journey.excursions.sort(key=lambda row: (row["excursion_id"], row["revision"]))
    return list(found.values())


def _rows(connection: Connection, model: Any, column: str, wanted: Sequence[Any]) -> Iterator[dict[str, Any]]:
    table = rows.table_of(model)
    for some in rows.chunks(list(wanted)):
        for row in connection.execute(select(table).where(table.c[column].in_(some))).mappings():
            yield dict(row)


def _by_parent(connection: Connection, found: Mapping[str, Journey], model: Any, key: str, parents: str, name: str) -> None:
    of = {row[key]: journey for journey in found.values() for row in getattr(journey, parents)}
    for row in _rows(connection, model, key, list(of)):
        getattr(of[row[key]], name).append(row)


def _units(connection: Connection, found: Mapping[str, Journey]) -> None:
    """Handling units by the plan, which remembers them when the goods have moved on."""
    of: dict[str, list[Journey]] = {}
    for journey in found.values():
        for unit in journey.plan.get("handling_units", ()):
            of.setdefault(unit, []).append(journey)
    for row in _rows(connection, HandlingUnit, "handling_unit_id", list(of)):
        for journey in of[row["handling_unit_id"]]:
            journey.record.setdefault("handling_units", []).append(row)
            journey.lots.setdefault(row["handling_unit_id"], [])
    for row in _rows(connection, HandlingUnitLot, "handling_unit_id", list(of)):
        for journey in of[row["handling_unit_id"]]:
            journey.record.setdefault("handling_unit_lots", []).append({**row, "quantity": str(row["quantity"])})
            journey.lots.setdefault(row["handling_unit_id"], []).append(row["lot_id"])


def _tags(connection: Connection, found: Mapping[str, Journey]) -> None:
    of: dict[str, list[Journey]] = {}
    for journey in found.values():
        for custody in journey.custodies:
            of.setdefault(custody["tag_id"], []).append(journey)
    for row in _rows(connection, Tag, "tag_id", list(of)):
        for journey in of[row["tag_id"]]:
            journey.tags[row["tag_id"]] = row
    changed = ("tag.registered", "tag.updated")
    for some in rows.chunks(list(of)):
        query = select(EVENT).where(EVENT.c.tag_id.in_(some) & EVENT.c.kind.in_(changed)).order_by(EVENT.c.number)
        for event in connection.execute(query).mappings():
            for journey in of[event["tag_id"]]:
                if event["tag_id"] in journey.tags:
                    journey.tag_events.append(dict(event))


def commands(engine: Engine, shard: int, since_us: int) -> Iterator[tuple[int, str, int, dict[str, Any]]]:
    """The commands and ticks of a shard's journal received since a time: (sequence, kind, received_us, body)."""
    query = (
        select(BATCH.c.sequence, BATCH.c.kind, BATCH.c.received_us, BATCH.c.blob)
        .where((BATCH.c.shard == shard) & BATCH.c.kind.in_(("command", "tick")) & (BATCH.c.received_us >= since_us))
        .order_by(BATCH.c.sequence)
    )
    with engine.connect() as connection:
        for row in connection.execution_options(yield_per=1_000).execute(query):
            yield row.sequence, row.kind, row.received_us, json.loads(row.blob)


# ---------------------------------------------------------------- publishing


def publish(
    connection: Connection, parts: Sequence[ArchivePart], carriers: Sequence[ArchivedCarrier], custodies: Sequence[ArchivedCustody],
    replaced: Sequence[str], scanned: Mapping[int, int],
) -> None:  # fmt: skip
    """From now on these parts count and `replaced` do not. scanned: entry numbers up to which shards were looked through.

    Raises FailedPrecondition where another run has archived one of the carriers meanwhile.
    """
    allowed = {*replaced, *(one.part_id for one in parts)}
    for some in rows.chunks([one.carrier for one in carriers]):
        for row in connection.execute(select(CARRIER.c.carrier, CARRIER.c.part_id).where(CARRIER.c.carrier.in_(some))):
            if row.part_id not in allowed:
                raise FailedPrecondition("was archived by another run meanwhile: run again", field="carrier", value=row.carrier)
    for part_id in replaced:
        moved = {one.carrier for one in carriers}
        left = [
            one for one in connection.execute(select(CARRIER.c.carrier).where(CARRIER.c.part_id == part_id)).scalars() if one not in moved
        ]
        if left:
            raise FailedPrecondition("a part that is replaced has journeys that are in no other part", field="part", value=part_id)
        connection.execute(delete(PART).where(PART.c.part_id == part_id))
        connection.execute(delete(CUSTODY).where(CUSTODY.c.part_id == part_id))
    home = connection.execute(select(SETTING.c.value).where(SETTING.c.name == ROOT)).scalar()
    for part in parts:
        part.location = "" if part.location == home else part.location
    for table, some in ((PART, parts), (CARRIER, carriers), (CUSTODY, custodies)):
        rows.upsert(connection, table, [rows.values(one) for one in some])
    for shard, sequence in scanned.items():
        note_scanned(connection, shard, sequence)


def note_scanned(connection: Connection, shard: int, sequence: int, stale: Sequence[str] = ()) -> None:
    """The shard's journal was looked through up to an entry; readings of the carriers `stale` were found that the archive lacks."""
    if stale:
        connection.execute(update(CARRIER).where(CARRIER.c.carrier.in_(list(stale))).values(stale=True))
    there = connection.execute(select(RETAINED.c.scanned_sequence).where(RETAINED.c.shard == shard)).scalar()
    if there is None:
        connection.execute(RETAINED.insert(), rows.values(JournalRetained(shard=shard, scanned_sequence=sequence)))
    elif sequence > there:
        connection.execute(update(RETAINED).where(RETAINED.c.shard == shard).values(scanned_sequence=sequence))


def parts(engine: Engine) -> list[dict[str, Any]]:
    """The parts that count, by month and id."""
    with engine.connect() as connection:
        plain = [column for column in PART.c if column.name != "location"]
        return [dict(row) for row in connection.execute(select(*plain, located()).order_by(PART.c.month, PART.c.part_id)).mappings()]


def keep_root(connection: Connection, location: str) -> None:
    """The system's archive lies here from now on. Parts that were published here before are its own."""
    rows.upsert(connection, SETTING, [{"name": ROOT, "value": location}])
    connection.execute(update(PART).where(PART.c.location == location).values(location=""))


def root(engine: Engine) -> str:
    """Where the system's archive lies; "" where no system has been started with this database."""
    with engine.connect() as connection:
        return connection.execute(select(SETTING.c.value).where(SETTING.c.name == ROOT)).scalar() or ""


def part_of(engine: Engine, carriers: Sequence[str]) -> dict[str, str]:
    """The part that has each of some carriers; those that are not archived are left out."""
    found: dict[str, str] = {}
    with engine.connect() as connection:
        for some in rows.chunks(list(carriers)):
            for row in connection.execute(select(CARRIER.c.carrier, CARRIER.c.part_id).where(CARRIER.c.carrier.in_(some))):
                found[row.carrier] = row.part_id
    return found


def custody_places(engine: Engine, shard: int) -> list[Any]:
    """(local_index, from_us, until_us, carrier) of the archived custodies of a shard; places of loose readings are none."""
    query = select(CUSTODY.c.local_index, CUSTODY.c.from_us, CUSTODY.c.until_us, CUSTODY.c.carrier)
    query = query.where((CUSTODY.c.shard == shard) & (CUSTODY.c.carrier != ""))
    with engine.connect() as connection:
        return list(connection.execute(query).all())


# ---------------------------------------------------------------- retention


def shards(engine: Engine) -> list[int]:
    """The numbers of the shards that have a journal."""
    with engine.connect() as connection:
        return list(connection.execute(select(OWNER.c.shard).order_by(OWNER.c.shard)).scalars())


def retained(engine: Engine, shard: int) -> tuple[int, int]:
    """(scanned_sequence, dropped_sequence) of a shard."""
    with engine.connect() as connection:
        row = connection.execute(select(RETAINED).where(RETAINED.c.shard == shard)).first()
    return (row.scanned_sequence, row.dropped_sequence) if row else (0, 0)


def droppable(engine: Engine, shard: int) -> int:
    """The last entry of readings that no recovery needs: behind both snapshots, and sorted."""
    with engine.connect() as connection:
        owner = connection.execute(select(OWNER.c.sorted_sequence).where(OWNER.c.shard == shard)).scalar() or 0
        return min(int(owner), snapshot.older(connection, shard))


def drop(connection: Connection, shard: int, upto: int, now_us: int) -> int:
    """Readings of entries up to `upto` are read from the archive from now on. Returns the entry up to which that is so, 0 where none are.

    Only whole segments go, and nothing that a recovery may need. Their pages, which nobody reads any more, are for `drop_pages`.
    """
    needed = min(upto, droppable_in(connection, shard))
    last = connection.execute(
        select(func.max(SEGMENT.c.last_sequence)).where((SEGMENT.c.shard == shard) & (SEGMENT.c.last_sequence <= needed))
    ).scalar()
    if last is None:
        return 0
    crossing = (SEGMENT.c.shard == shard) & (SEGMENT.c.first_sequence <= last) & (SEGMENT.c.last_sequence > last)
    low = connection.execute(select(func.min(SEGMENT.c.first_sequence)).where(crossing)).scalar()
    upto = last if low is None else low - 1
    if upto < 1:
        return 0
    note_scanned(connection, shard, 0)
    connection.execute(
        update(RETAINED)
        .where((RETAINED.c.shard == shard) & (RETAINED.c.dropped_sequence < upto))
        .values(dropped_sequence=upto, dropped_us=now_us)
    )
    connection.execute(delete(SEGMENT).where((SEGMENT.c.shard == shard) & (SEGMENT.c.last_sequence <= upto)))
    connection.execute(delete(ENTRIES).where((ENTRIES.c.shard == shard) & (ENTRIES.c.last_sequence <= upto)))
    connection.execute(delete(BATCH).where((BATCH.c.shard == shard) & (BATCH.c.kind == "readings") & (BATCH.c.sequence <= upto)))
    return upto


def segment_numbers(engine: Engine, shard: int) -> list[int]:
    """The numbers of a shard's segments."""
    with engine.connect() as connection:
        return list(connection.execute(select(SEGMENT.c.number).where(SEGMENT.c.shard == shard)).scalars())


def drop_pages(connection: Connection, shard: int, segment: int, most: int = 256) -> int:
    """Remove some pages of a segment that was dropped; how many. A bit at a time, so that live commits wait no longer than for it."""
    if connection.execute(select(SEGMENT.c.number).where((SEGMENT.c.shard == shard) & (SEGMENT.c.number == segment))).first() is not None:
        raise FailedPrecondition("the segment is read: only pages of one that was dropped can go", field="segment", value=segment)
    mine = (PAGE.c.shard == shard) & (PAGE.c.segment == segment)
    some = list(connection.execute(select(PAGE.c.page).where(mine).limit(most)).scalars())
    connection.execute(delete(PAGE).where(mine & PAGE.c.page.in_(some)))
    return len(some)


def journal_head(engine: Engine, shard: int) -> int:
    """The newest entry of a shard's journal."""
    with engine.connect() as connection:
        return connection.execute(select(OWNER.c.journal_head).where(OWNER.c.shard == shard)).scalar() or 0


def droppable_in(connection: Connection, shard: int) -> int:
    """As `droppable`, within a transaction."""
    owner = connection.execute(select(OWNER.c.sorted_sequence).where(OWNER.c.shard == shard)).scalar() or 0
    return min(int(owner), snapshot.older(connection, shard))


# ---------------------------------------------------------------- replays


def replay_row(engine: Engine, replay_id: str) -> dict[str, Any] | None:
    """A replay's row."""
    with engine.connect() as connection:
        row = connection.execute(select(REPLAY).where(REPLAY.c.replay_id == replay_id)).mappings().first()
    return None if row is None else dict(row)


def running_replays(engine: Engine) -> list[dict[str, Any]]:
    """The replays that have not ended."""
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(select(REPLAY).where(REPLAY.c.state == "RUNNING")).mappings()]


def note_replay(connection: Connection, replay_id: str, values: Mapping[str, Any]) -> None:
    """Write some columns of a replay, or the whole row of a new one."""
    if connection.execute(update(REPLAY).where(REPLAY.c.replay_id == replay_id).values(**values)).rowcount == 0:
        connection.execute(REPLAY.insert(), dict(values))


def replays(session: Session, *, after: tuple[int, str] | None = None, limit: int) -> list[Replay]:
    """Replays, the newest first, after the (created_us, replay_id) of the last one seen."""
    query = select_rows(Replay).order_by(col(Replay.created_us).desc(), col(Replay.replay_id).desc()).limit(limit)
    if after is not None:
        query = query.where(tuple_(col(Replay.created_us), col(Replay.replay_id)) < after)
    return list(session.exec(query))


def replay(session: Session, replay_id: str) -> Replay | None:
    """A replay."""
    return session.get(Replay, replay_id)


def tag_ids(engine: Engine, shard: int) -> dict[int, str]:
    """The ids of a shard's tags by local index."""
    with engine.connect() as connection:
        return {
            row.local_index: row.tag_id for row in connection.execute(select(TAG.c.local_index, TAG.c.tag_id).where(TAG.c.shard == shard))
        }
