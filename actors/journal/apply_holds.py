"""The SQL around holds.py: which lots an excursion touches, holding their rows, and writing what becomes of their holds.

Called inside the commit that states the excursions, so that no pick can come between. Where no profile holds on excursion, this
costs a look into a dictionary; the profiles' flags are kept with the connection, for a version of a profile never changes.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, BindParameter, Connection, and_, bindparam, func, insert, literal_column, or_, select, text, tuple_

from actors.journal import rows
from actors.journal.holds import Change, on_act, on_excursion
from actors.journal.once import Once, among, listed
from actors.journal.outbox import Message, told_anyone
from actors.journal.prepared import EventDraft, HoldAct, PreparedCommit
from actors.journal.tables import (
    Excursion,
    HandlingUnit,
    HandlingUnitLot,
    Hold,
    HoldHistory,
    HoldOfExcursion,
    Lot,
    Movement,
    Profile,
    Stock,
)
from actors.rules.errors import NotFound

HOLD, HISTORY, ABOUT = rows.table_of(Hold), rows.table_of(HoldHistory), rows.table_of(HoldOfExcursion)
STOCK, LOT, PROFILE, MOVEMENT = rows.table_of(Stock), rows.table_of(Lot), rows.table_of(Profile), rows.table_of(Movement)
UNIT, UNIT_LOT, EXCURSION = rows.table_of(HandlingUnit), rows.table_of(HandlingUnitLot), rows.table_of(Excursion)

SERIAL_LOCKS = 64
"""Serial numbers share so many locks: a server has room for some thousands."""

FLAGS = "waybill.hold_on_excursion"
"""Where a connection keeps the flags of profile versions that it has seen."""

_SOME: BindParameter[Any] = bindparam("some", expanding=True)
_LAST = select(HOLD.c.lot_id, func.max(HOLD.c.ordinal)).where(HOLD.c.lot_id.in_(_SOME)).group_by(HOLD.c.lot_id)
_STANDING = (HOLD.c.lot_id.in_(_SOME)) & (HOLD.c.state == "ACTIVE")
_NEWEST = select(HOLD).where(or_(tuple_(HOLD.c.lot_id, HOLD.c.ordinal).in_(_LAST), _STANDING))
_ABOUT = select(ABOUT.c.excursion_id, ABOUT.c.hold_id, HOLD.c.lot_id).join(HOLD, HOLD.c.hold_id == ABOUT.c.hold_id)
_LOCK = select(LOT.c.lot_id).where(LOT.c.lot_id.in_(_SOME)).order_by(LOT.c.lot_id).with_for_update(key_share=True)


class Told:
    """What holds entailed: events and messages of one commit."""

    def __init__(self) -> None:
        self.events: list[EventDraft] = []
        self.messages: list[Message] = []


def lock_carriers(connection: Connection, commits: Sequence[PreparedCommit]) -> None:
    """On PostgreSQL hold the carriers whose lots these commits put on hold, and those they bring lots to, in one order for all.

    So an excursion and a lot's arrival on its carrier cannot miss each other; nor can two warehouses that take in one piece, whose serial
    number nobody has a row of yet. SQLite has one writer and needs no lock.
    """
    if connection.dialect.name != "postgresql":
        return
    keys = {one.carrier for commit in commits for one in commit.excursions if _holds(connection, one.profile_id, one.profile_version)}
    for commit in commits:
        if commit.stock is not None:
            for one in commit.stock.movements:
                if isinstance(one, dict):
                    zones = {one["zone_id"], one["to_zone_id"]} - {""}
                    keys |= {f"zone/{commit.stock.warehouse_id}/{zone}" for zone in zones}
                    keys |= {f"shipment/{one['shipment_id']}"} if one["shipment_id"] else set()
                    keys |= {f"serials/{zlib.crc32(serial.encode()) % SERIAL_LOCKS}" for serial in one["serials"]}
    if keys:
        hashes = sorted({int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big", signed=True) for key in keys})
        connection.execute(text("SELECT pg_advisory_xact_lock(k) FROM unnest(CAST(:keys AS bigint[])) AS k"), {"keys": hashes})


def _lasting(dialect: str) -> Any:
    """The excursions of some carriers that were going on at a time, or came later."""
    lasting = or_(EXCURSION.c.ended_us.is_(None), EXCURSION.c.ended_us > bindparam("earliest", type_=BigInteger))
    found = select(EXCURSION).where(among(EXCURSION.c.carrier, dialect), EXCURSION.c.state != literal_column("'RETRACTED'"), lasting)
    return found.order_by(EXCURSION.c.carrier, EXCURSION.c.excursion_id)


_LASTING = Once(_lasting)


def lock_lots(connection: Connection, lot_ids: Iterable[str]) -> set[str]:
    """Hold the rows of some lots for this transaction, in one order for all; those that are there."""
    found: set[str] = set()
    for some in rows.chunks(sorted(set(lot_ids))):
        found.update(connection.execute(_LOCK, {"some": some}).scalars())
    return found


def on_excursions(
    connection: Connection, revised: Sequence[Mapping[str, Any]], now_us: int, *, arrived: frozenset[str] | None = None
) -> Told:
    """Place, change and reopen holds for the new revisions of excursions (as their events tell them), in order.

    arrived: given where the revisions were stated before: the lots, held by the caller, that they may touch now. No other's row is
    locked, for the caller holds rows that come behind the lots already.
    """
    told = Told()
    relevant = [one for one in revised if _holds(connection, one["profile_id"], one["profile_version"])]
    if not relevant:
        return told
    touched: dict[int, set[str]] = {one["excursion_id"]: set() for one in relevant}
    about: dict[tuple[int, str], str] = {}
    again = [one["excursion_id"] for one in relevant if one["revision"] > 1 or arrived is not None]
    for some in rows.chunks(again):
        for excursion_id, hold_id, lot_id in connection.execute(_ABOUT.where(ABOUT.c.excursion_id.in_(some))):
            touched[excursion_id].add(lot_id)
            about[excursion_id, hold_id] = lot_id
    for one in relevant:
        if one["state"] != "RETRACTED":
            touched[one["excursion_id"]] |= lots_touched(connection, one)
        if arrived is not None:
            touched[one["excursion_id"]] &= arrived
    everything = set().union(*touched.values())
    if not everything:
        return told
    if arrived is None:
        lock_lots(connection, everything)
    newest = newest_holds(connection, everything)
    decided = _by_id(connection, {hold_id for (_, hold_id), lot_id in about.items() if lot_id in everything})
    changes: list[Change] = []
    for one in relevant:
        for lot_id in sorted(touched[one["excursion_id"]]):
            hold = newest.get(lot_id)
            known = hold is not None and (one["excursion_id"], hold.hold_id) in about
            if hold is not None and hold.state != "ACTIVE" and not known:  # a hold before it may be the one that was decided about this
                mine = [old for old in decided.values() if old.lot_id == lot_id and (one["excursion_id"], old.hold_id) in about]
                hold, known = (max(mine, key=lambda old: old.ordinal), True) if mine else (hold, False)
            change = on_excursion(hold, lot_id, one, known, now_us)
            if change is not None:
                if change.hold.state == "ACTIVE" or change.hold.ordinal >= newest.get(lot_id, change.hold).ordinal:
                    newest[lot_id] = change.hold
                decided[change.hold.hold_id] = change.hold
                about[one["excursion_id"], change.hold.hold_id] = lot_id
                changes.append(change)
                told.events.append(EventDraft(f"hold.{change.history.change}", one["started_us"], change.body(), one["carrier"]))
    told.messages = save(connection, changes)
    return told


def on_arrivals(connection: Connection, arrivals: Iterable[tuple[str, str, str, int]], now_us: int) -> Told:
    """Lots came onto carriers (carrier, handling unit, lot, when): excursions that go on there touch them, too."""
    told = Told()
    by_carrier: dict[str, int] = {}
    lots: dict[str, set[str]] = {}
    for carrier, _, lot_id, at_us in arrivals:
        by_carrier[carrier] = min(at_us, by_carrier.get(carrier, at_us))
        lots.setdefault(carrier, set()).add(lot_id)
    if not by_carrier:
        return told
    asked = {"some": listed(connection, sorted(by_carrier)), "earliest": min(by_carrier.values())}
    going_on = [dict(zip(EXCURSION.columns.keys(), row, strict=True)) for row in _LASTING.rows(connection, asked)]
    for one in going_on:
        if one["ended_us"] is not None and one["ended_us"] <= by_carrier[one["carrier"]]:
            continue
        found = on_excursions(connection, [one], now_us, arrived=frozenset(lots[one["carrier"]]))
        told.events += found.events
        told.messages += found.messages
    return told


def act(connection: Connection, acts: Sequence[HoldAct]) -> Told:
    """What people do with holds, in order. Raises NotFound, StaleEtag, FailedPrecondition, InvalidArgument."""
    told = Told()
    changes = []
    for one in acts:
        lot_id = one.lot_id
        if one.hold_id:
            lot_id = connection.execute(select(HOLD.c.lot_id).where(HOLD.c.hold_id == one.hold_id)).scalar() or ""
            if not lot_id:
                raise NotFound("no such hold", field="hold_id", value=one.hold_id)
        if not lock_lots(connection, [lot_id]):
            raise NotFound("no such lot", field="lot_number", value=lot_id)
        if one.hold_id:
            found = connection.execute(select(HOLD).where(HOLD.c.hold_id == one.hold_id)).mappings().one()
            hold: Hold | None = rows.record(Hold, dict(found))
        else:
            hold = newest_holds(connection, [lot_id]).get(lot_id)
        change = on_act(hold, one)
        changes.append(change)
        told.events.append(EventDraft(f"hold.{change.history.change}", one.at_us, change.body()))
        told.messages += save(connection, [change])
    return told


def newest_holds(connection: Connection, lot_ids: Iterable[str]) -> dict[str, Hold]:
    """The ACTIVE hold of each lot, or else the newest, where it ever had one. The lots' rows are held by the caller."""
    found: dict[str, Hold] = {}
    for some in rows.chunks(sorted(lot_ids)):
        for row in connection.execute(_NEWEST, {"some": some}).mappings():
            if row["state"] == "ACTIVE" or row["lot_id"] not in found:
                found[row["lot_id"]] = rows.record(Hold, dict(row))
    return found


def _by_id(connection: Connection, hold_ids: Iterable[str]) -> dict[str, Hold]:
    found: dict[str, Hold] = {}
    for some in rows.chunks(sorted(hold_ids)):
        for row in connection.execute(select(HOLD).where(HOLD.c.hold_id.in_(some))).mappings():
            found[row["hold_id"]] = rows.record(Hold, dict(row))
    return found


def save(connection: Connection, changes: Sequence[Change]) -> list[Message]:
    """Write holds, their histories and what they are about; the messages that tell of them."""
    if not changes:
        return []
    final = {change.hold.hold_id: change.hold for change in changes}
    rows.upsert(connection, HOLD, [rows.values(hold) for hold in final.values()])
    connection.execute(insert(HISTORY), [rows.values(change.history) for change in changes])
    links = [{"excursion_id": change.excursion_id, "hold_id": change.hold.hold_id} for change in changes if change.excursion_id is not None]
    if links:
        connection.execute(rows.upsert_statement(connection.dialect.name, ABOUT, ("excursion_id", "hold_id"), nothing=True), links)
    if not told_anyone(connection):
        return []
    return [
        Message(
            f"hold|{change.hold.hold_id}|{change.hold.etag}", f"hold.{change.history.change}",
            change.body() | {"stock": stock_of(connection, change.hold.lot_id)}, change.system,
        )
        for change in changes
    ]  # fmt: skip


def stock_of(connection: Connection, lot_id: str) -> list[dict[str, Any]]:
    """Where a lot is, line by line, quantities as text: JSON-ready."""
    found = connection.execute(select(STOCK).where((STOCK.c.lot_id == lot_id) & (STOCK.c.quantity != 0))).mappings()
    names = ("warehouse_id", "zone_id", "handling_unit_id", "shipment_id", "status")
    return [{name: row[name] for name in names} | {"quantity": format(row["quantity"].normalize(), "f")} for row in found]


def lots_touched(connection: Connection, excursion: Mapping[str, Any]) -> set[str]:
    """The lots that were on the excursion's carrier (on the tag's handling unit, where it rides on one) while it lasted.

    By stock, by the papers of a shipment, and by what was received from it, which its papers do not name any more. A lot that left and came
    back counts for the time between, too.
    """
    kind, _, name = excursion["carrier"].partition("/")
    unit = excursion["handling_unit_id"]
    found: set[str] = set()
    if kind == "zone":
        warehouse_id, _, zone_id = name.partition("/")
        here = and_(STOCK.c.warehouse_id == warehouse_id, STOCK.c.zone_id == zone_id)
    else:
        here = STOCK.c.shipment_id == name
        aboard = select(UNIT_LOT.c.lot_id).join(UNIT, UNIT.c.handling_unit_id == UNIT_LOT.c.handling_unit_id)
        aboard = aboard.where(UNIT.c.carrier == excursion["carrier"])
        found.update(connection.execute(aboard.where(UNIT.c.handling_unit_id == unit) if unit else aboard).scalars())
        received = select(MOVEMENT.c.lot_id, MOVEMENT.c.body).where(MOVEMENT.c.shipment_id == name, MOVEMENT.c.kind == "RECEIVE")
        for lot_id, body in connection.execute(received.where(MOVEMENT.c.at_us > excursion["started_us"])):
            if not unit or body["handling_unit_id"] in ("", unit):
                found.add(lot_id)
    then = or_(STOCK.c.quantity != 0, STOCK.c.left_us > excursion["started_us"])
    if excursion["ended_us"] is not None:
        then = and_(then, STOCK.c.first_us < excursion["ended_us"])
    lots = select(STOCK.c.lot_id).where(here, then)
    found.update(connection.execute(lots.where(STOCK.c.handling_unit_id == unit) if unit else lots).scalars())
    return found


def _holds(connection: Connection, profile_id: str, version: int) -> bool:
    """Whether this version of a profile puts lots on hold."""
    if not profile_id:
        return False
    known: dict[tuple[str, int], bool] = connection.info.setdefault(FLAGS, {})
    flag = known.get((profile_id, version))
    if flag is None:
        mine = (PROFILE.c.profile_id == profile_id) & (PROFILE.c.version == version)
        body = connection.execute(select(PROFILE.c.body).where(mine)).scalar()
        if body is None:
            return False
        flag = known[profile_id, version] = bool(body.get("hold_on_excursion"))
    return flag
