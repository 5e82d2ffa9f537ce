"""The SQL around alerts.py: loads the alerts that a commit touches, lets the pure rules decide, writes alerts, history, revisions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Select, bindparam, func, insert, select, text, tuple_

from actors.journal import rows
from actors.journal.alerts import (
    LATE_CAUSES,
    STANDING,
    Facts,
    GoodsChange,
    Outcome,
    Stated,
    facts_of,
    facts_on,
    goods_key,
    grew_in_order,
    on_action,
    on_condition,
    on_goods,
)
from actors.journal.once import Once, among, listed
from actors.journal.prepared import AlertAction, Condition, EventDraft, PreparedCommit
from actors.journal.rows import Model
from actors.journal.tables import Alert, AlertHistory, Excursion, ExcursionRevision
from actors.rules.errors import NotFound

ALERT, HISTORY = rows.table_of(Alert), rows.table_of(AlertHistory)
EXCURSION, REVISION = rows.table_of(Excursion), rows.table_of(ExcursionRevision)

UNTOLD = frozenset({"revision", "cause", "recorded_us", "alert_id", "found_late"})
"""What may differ between two revisions of an excursion without anything having changed."""

_TOLD = itemgetter(*(column.name for column in EXCURSION.columns if column.name not in UNTOLD))
_STATED = itemgetter(*Stated._fields)

_EXCURSIONS = Once(lambda dialect: select(EXCURSION).where(among(EXCURSION.c.excursion_id, dialect)))
_STATED_OF_ALERT = Once(
    lambda _: select(*(EXCURSION.c[name] for name in Stated._fields)).where(EXCURSION.c.alert_id == bindparam("its_alert"))
)
_ALERTS = Once(lambda dialect: select(ALERT).where(among(ALERT.c.alert_id, dialect)).order_by(ALERT.c.alert_id).with_for_update())
_INSERT_REVISION = Once(lambda _: insert(REVISION), REVISION.columns.keys())
_INSERT_HISTORY = Once(lambda _: insert(HISTORY), HISTORY.columns.keys())


def _newest_of_keys(dialect: str) -> Select[Any]:
    last = select(ALERT.c.key, func.max(ALERT.c.ordinal)).where(among(ALERT.c.key, dialect)).group_by(ALERT.c.key)
    return select(ALERT).where(tuple_(ALERT.c.key, ALERT.c.ordinal).in_(last)).order_by(ALERT.c.alert_id).with_for_update()


_NEWEST = Once(_newest_of_keys)


def lock_conditions(connection: Connection, commits: Sequence[PreparedCommit]) -> None:
    """On PostgreSQL hold the conditions that these commits may raise, in one order for all, so that none is raised twice.

    SQLite has one writer and needs no lock.
    """
    if connection.dialect.name != "postgresql":
        return
    keys = {goods_key(one.carrier, one.limit_id) for commit in commits for one in commit.excursions}
    keys |= {change.key for commit in commits for change in commit.conditions}
    if keys:
        hashes = sorted({int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big", signed=True) for key in keys})
        connection.execute(text("SELECT pg_advisory_xact_lock(k) FROM unnest(CAST(:keys AS bigint[])) AS k"), {"keys": hashes})


# ---------------------------------------------------------------- excursions


def apply_excursions(connection: Connection, changes: Sequence[Excursion], now_us: int) -> tuple[list[EventDraft], list[Outcome]]:
    """Write the excursions' new revisions, their events, and what becomes of their alerts.

    A revision that says what the one before said is left out. Revision numbers and alert ids are given here.
    """
    before = {one.excursion_id: one for one in _found(connection, _EXCURSIONS, Excursion, {change.excursion_id for change in changes})}
    now: dict[int, Excursion] = dict(before)
    revised: list[Excursion] = []
    for change in changes:
        old = now.get(change.excursion_id)
        found = rows.values(change)
        if old is not None:
            if _TOLD(found) == _TOLD(rows.values(old)):
                continue
            found |= {"alert_id": old.alert_id, "found_late": old.found_late}
        found |= {"revision": 1 if old is None else old.revision + 1, "recorded_us": now_us}
        now[change.excursion_id] = rows.record(Excursion, found)
        revised.append(now[change.excursion_id])
    if not revised:
        return [], []
    final = {one.excursion_id: one for one in revised}
    outcomes, given = _goods_alerts(connection, before, list(final.values()), now_us)
    written = [rows.values(one) | {"alert_id": given.get(one.excursion_id)} for one in revised]
    rows.upsert(connection, EXCURSION, list({row["excursion_id"]: row for row in written}.values()))
    _INSERT_REVISION.many(connection, written)
    events = [_excursion_event(one, rows.json_ready(row)) for one, row in zip(revised, written, strict=True)]
    return events, _save(connection, outcomes)


def _excursion_event(one: Excursion, body: dict[str, Any]) -> EventDraft:
    if one.state == "RETRACTED":
        kind = "excursion.retracted"
    elif one.revision == 1:
        kind = "excursion.confirmed"
    else:
        kind = "excursion.revised" if one.cause in LATE_CAUSES or one.state == "CONFIRMED" else "excursion.ended"
    return EventDraft(kind, one.started_us, body, one.carrier, one.tag_id)


def _stated(one: Excursion) -> Stated:
    return Stated._make(_STATED(one.__dict__))


class _Touched:
    """What a commit does to the excursions of one alert (or of one that is to be raised), gathered before it is decided."""

    def __init__(self, alert: Alert | None, ordinal: int) -> None:
        self.alert, self.ordinal = alert, ordinal
        self.old: dict[int, Stated] = {}
        self.new: list[Excursion] = []
        self.gone: set[int] = set()  # went to another alert: their carrier or limit changed
        self.late = False


def _goods_alerts(
    connection: Connection, before: dict[int, Excursion], changed: list[Excursion], now_us: int
) -> tuple[list[Outcome], dict[int, str | None]]:
    """Decide the alerts of the changed excursions; also the id of each excursion's alert, where it has one."""
    newest = _newest(connection, {goods_key(one.carrier, one.limit_id) for one in changed})
    own = {alert.alert_id: alert for alert in newest.values()}
    own |= _by_id(connection, {one.alert_id for one in before.values() if one.alert_id and one.alert_id not in own})
    touched: dict[tuple[str, int], _Touched] = {}

    def touch(alert: Alert | None, key: str, ordinal: int) -> _Touched:
        return touched.setdefault((key, ordinal), _Touched(alert, ordinal))

    newcomers: list[Excursion] = []
    for one in changed:
        old = before.get(one.excursion_id)
        alert = own.get(old.alert_id or "") if old is not None else None
        if old is None or alert is None:
            newcomers.append(one)
            continue
        key, current = goods_key(one.carrier, one.limit_id), newest.get(alert.key)
        restated = old.state == "RETRACTED" and one.state != "RETRACTED"
        if key != alert.key or (restated and current is not None and current.alert_id != alert.alert_id):
            moved = touch(alert, alert.key, alert.ordinal)
            moved.gone.add(one.excursion_id)
            moved.old[one.excursion_id] = _stated(old)
            moved.new.append(one)
            moved.late = True
            newcomers.append(one)
            continue
        group = touch(alert, alert.key, alert.ordinal)
        group.old[one.excursion_id] = _stated(old)
        group.new.append(one)
        group.late |= one.cause in LATE_CAUSES or restated
    for one in newcomers:
        if one.state == "RETRACTED":
            continue
        key = goods_key(one.carrier, one.limit_id)
        current = newest.get(key)
        group_now = touched.get((key, current.ordinal)) if current is not None else None
        joins = current is not None and (current.state in STANDING or (group_now is not None and group_now.late))
        if current is None or not joins:
            touch(None, key, 1 if current is None else current.ordinal + 1).new.append(one)
        else:
            touch(current, key, current.ordinal).new.append(one)
    return _decide(connection, touched, newest, now_us)


def _decide(
    connection: Connection, touched: dict[tuple[str, int], _Touched], newest: dict[str, Alert], now_us: int
) -> tuple[list[Outcome], dict[int, str | None]]:
    outcomes: list[Outcome] = []
    given: dict[int, str | None] = {}
    for (key, ordinal), group in sorted(touched.items(), key=lambda pair: pair[0]):
        facts = _facts(connection, group)
        current = newest.get(key)
        raised_beside = group.alert is not None and (key, ordinal + 1) in touched and touched[key, ordinal + 1].alert is None
        other = current is not None and group.alert is not None and current.alert_id != group.alert.alert_id
        stands = raised_beside or (other and current is not None and current.state in STANDING)
        staying = [one for one in group.new if one.excursion_id not in group.gone]
        last = staying[-1] if staying else group.new[-1]
        added = any(one.excursion_id not in group.old for one in staying if one.state != "RETRACTED")
        change = GoodsChange(facts, last, added, group.late, last.cause, stands)
        outcome = on_goods(group.alert, ordinal, change, now_us)
        alert = outcome.alert if outcome is not None else group.alert
        for one in staying:
            given[one.excursion_id] = alert.alert_id if alert is not None else None
        if outcome is not None:
            outcomes.append(outcome)
    return outcomes, given


def _facts(connection: Connection, group: _Touched) -> Facts:
    """What the alert's excursions add up to now: carried on where all only grew, else folded over all of them."""
    facts = facts_on(group.alert) if group.alert is not None else Facts()
    staying = [one for one in group.new if one.excursion_id not in group.gone]
    carried = not group.gone
    for one in staying:
        old, new = group.old.get(one.excursion_id), _stated(one)
        if old is None:
            facts = facts.plus(new)
        elif carried and grew_in_order(old, new, one.cause):
            facts = facts.grown(old, new)
        else:
            carried = False
            break
    if carried or group.alert is None:
        return facts
    found = _STATED_OF_ALERT.rows(connection, {"its_alert": group.alert.alert_id})
    all_stated = {row[0]: Stated(*row) for row in found if row[0] not in group.gone}
    all_stated.update({one.excursion_id: _stated(one) for one in staying})
    return facts_of(all_stated.values())


# ---------------------------------------------------------------- conditions and people


def apply_conditions(connection: Connection, changes: Sequence[Condition], now_us: int) -> list[Outcome]:
    """Raise, update, clear and withdraw the alerts of other conditions, in the given order."""
    newest = _newest(connection, {change.key for change in changes})
    outcomes: list[Outcome] = []
    for change in changes:
        outcome = on_condition(newest.get(change.key), change, now_us)
        if outcome is not None:
            newest[change.key] = outcome.alert
            outcomes.append(outcome)
    return _save(connection, outcomes)


def apply_actions(connection: Connection, actions: Sequence[AlertAction]) -> list[Outcome]:
    """What people do with alerts, in the given order. Raises NotFound, StaleEtag, FailedPrecondition, InvalidArgument."""
    known = _by_id(connection, {action.alert_id for action in actions})
    outcomes: list[Outcome] = []
    for action in actions:
        if action.alert_id not in known:
            raise NotFound("no alert has this id", field="alert_id", value=action.alert_id)
        outcome = on_action(known[action.alert_id], action)
        known[action.alert_id] = outcome.alert
        outcomes.append(outcome)
    return _save(connection, outcomes)


def alerts_of(connection: Connection, actions: Sequence[AlertAction]) -> list[Alert]:
    """The alerts of actions that were taken before, as they are now: the answer to a resend."""
    return list(_by_id(connection, {action.alert_id for action in actions}).values()) if actions else []


# ---------------------------------------------------------------- parts


def _newest(connection: Connection, keys: Iterable[str]) -> dict[str, Alert]:
    """The newest alert of each condition, held for this transaction."""
    return {alert.key: alert for alert in _found(connection, _NEWEST, Alert, keys)}


def _by_id(connection: Connection, ids: Iterable[str]) -> dict[str, Alert]:
    return {alert.alert_id: alert for alert in _found(connection, _ALERTS, Alert, ids)}


def _found(connection: Connection, query: Once, model: type[Model], ids: Iterable[Any]) -> list[Model]:
    """The records that a query of `some` ids finds, all columns in the table's order."""
    names = tuple(rows.table_of(model).columns.keys())
    asked = sorted(ids)
    if not asked:
        return []
    found = query.rows(connection, {"some": listed(connection, asked)})
    return [rows.record(model, dict(zip(names, row, strict=True))) for row in found]


def _save(connection: Connection, outcomes: list[Outcome]) -> list[Outcome]:
    final = {outcome.alert.alert_id: outcome.alert for outcome in outcomes}
    rows.upsert(connection, ALERT, [rows.values(alert) for alert in final.values()])
    _INSERT_HISTORY.many(connection, [rows.values(outcome.history) for outcome in outcomes])
    return outcomes
