"""Reads of what the doors list for people and programs: events, alerts, tags with their custodies and conflicts.

Every function takes a Session of an engine that can only read (see `queries_business.reading`) and gives detached records. Lists are
pages: at most `limit` rows after the key of the last row seen, in an order that does not change while pages are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import and_, func, or_, text
from sqlmodel import Session, col, select

from actors.journal.once import Once
from actors.journal.queries_business import last_event_number
from actors.journal.rows import record, table_of
from actors.journal.tables import Alert, AlertHistory, Conflict, Custody, CustodyRevision, Event, Tag

SEVERITIES = ("INFO", "WARNING", "CRITICAL")


def events(session: Session, after: int, limit: int, *, prefix: str = "", carrier: str = "") -> tuple[list[Event], int]:
    """Events with numbers above `after`, in order, whose kind begins with `prefix` and that concern `carrier`; and the number up to which
    these are all there are. One state of the database: a number is given last in its transaction, so what is seen is gapless."""
    query = select(Event).where(col(Event.number) > after)
    if prefix:
        query = query.where(col(Event.kind).startswith(prefix, autoescape=True))
    if carrier:
        query = query.where(Event.carrier == carrier)
    newest = last_event_number(session)
    found = list(session.exec(query.order_by(col(Event.number)).limit(limit)))
    return found, found[-1].number if len(found) == limit else max(newest, found[-1].number if found else 0)


_EVENT = table_of(Event)
_NAMES = _EVENT.columns.keys()
_AFTER = Once(
    lambda _: text(f"SELECT {', '.join(_NAMES)} FROM event WHERE number > :after ORDER BY number LIMIT :most").columns(*_EVENT.columns)
)


def event_of(row: Mapping[str, Any]) -> Event:
    """An event as it was written (prepared.CommitResult.events)."""
    return record(Event, {**row, "body": json.loads(row["body"])})


def newest_events(session: Session, after: int, limit: int) -> list[Event]:
    """Events with numbers above `after`, in order: what the watchers of a door wait for, read as fast as can be."""
    found = _AFTER.rows(session.connection(), {"after": after, "most": limit})
    return [record(Event, dict(zip(_NAMES, row, strict=True))) for row in found]


# ---------------------------------------------------------------- alerts


def newest_event(session: Session, carrier: str) -> int:
    """The number of the newest event that concerns a carrier; 0: none."""
    return session.exec(select(func.max(Event.number)).where(Event.carrier == carrier)).one() or 0


def alert(session: Session, alert_id: str) -> tuple[Alert, list[AlertHistory]] | None:
    """An alert with its history, oldest first."""
    row = session.get(Alert, alert_id)
    if row is None:
        return None
    history = select(AlertHistory).where(AlertHistory.alert_id == alert_id).order_by(col(AlertHistory.etag))
    return row, list(session.exec(history))


def alerts(
    session: Session,
    *,
    after: tuple[int, str] | None = None,
    limit: int,
    kinds: Sequence[str] = (),
    states: Sequence[str] = (),
    min_severity: str = "",
    carriers: Sequence[str] = (),
    active_only: bool = False,
    tag_id: str = "",
) -> list[Alert]:
    """Alerts, newest raised first; `after` is (raised_us, alert_id) of the last one seen. `tag_id`: its tag, or one that saw it."""
    query = select(Alert)
    if kinds:
        query = query.where(col(Alert.kind).in_(list(kinds)))
    if states:
        query = query.where(col(Alert.state).in_(list(states)))
    if min_severity:
        query = query.where(col(Alert.severity).in_(SEVERITIES[SEVERITIES.index(min_severity) :]))
    if carriers:
        query = query.where(col(Alert.carrier).in_(list(carriers)))
    if active_only:
        query = query.where(col(Alert.active).is_(True))
    query = query.order_by(col(Alert.raised_us).desc(), col(Alert.alert_id).desc())
    found: list[Alert] = []
    while len(found) < limit:
        page = query
        if after is not None:
            older = col(Alert.raised_us) < after[0]
            same = and_(col(Alert.raised_us) == after[0], col(Alert.alert_id) < after[1])
            page = page.where(or_(older, same))
        rows = list(session.exec(page.limit(limit)))
        # The tags of a goods alert are a JSON list: looked through here, alike on every database.
        found.extend(row for row in rows if not tag_id or row.tag_id == tag_id or tag_id in row.tags)
        if len(rows) < limit:
            break
        after = rows[-1].raised_us, rows[-1].alert_id
    return found[:limit]


# ---------------------------------------------------------------- tags


def tag(session: Session, tag_id: str) -> Tag | None:
    """A tag's registration."""
    return session.get(Tag, tag_id)


def tags(session: Session, *, after: str = "", limit: int, prefix: str = "", carrier: str = "") -> list[Tag]:
    """Tags by id; with `carrier` those that ride on it now."""
    query = select(Tag).where(col(Tag.tag_id) > after)
    if prefix:
        query = query.where(col(Tag.tag_id).startswith(prefix, autoescape=True))
    if carrier:
        riding = select(Custody.tag_id).where(
            Custody.carrier == carrier, col(Custody.until_us).is_(None), col(Custody.retracted).is_(False)
        )
        query = query.where(col(Tag.tag_id).in_(riding))
    return list(session.exec(query.order_by(col(Tag.tag_id)).limit(limit)))


def tag_custodies(session: Session, tag_id: str, *, after: tuple[int, int] | None = None, limit: int) -> list[Custody]:
    """Custodies of a tag by (from_us, custody_id), retracted ones too."""
    query = select(Custody).where(Custody.tag_id == tag_id)
    if after is not None:
        later = col(Custody.from_us) > after[0]
        same = and_(col(Custody.from_us) == after[0], col(Custody.custody_id) > after[1])
        query = query.where(or_(later, same))
    return list(session.exec(query.order_by(col(Custody.from_us), col(Custody.custody_id)).limit(limit)))


def custody_histories(session: Session, custody_ids: Iterable[int]) -> dict[int, list[CustodyRevision]]:
    """What some custodies said at each etag, oldest first."""
    wanted = list(custody_ids)
    found: dict[int, list[CustodyRevision]] = {identity: [] for identity in wanted}
    query = select(CustodyRevision).where(col(CustodyRevision.custody_id).in_(wanted))
    for row in session.exec(query.order_by(col(CustodyRevision.custody_id), col(CustodyRevision.etag))):
        found[row.custody_id].append(row)
    return found


def conflicts(session: Session, tag_id: str, *, after: tuple[int, int] | None = None, limit: int) -> list[Conflict]:
    """A tag's readings that were put aside, newest first; `after` is (sequence, ordinal) of the last one seen: a tag has one shard."""
    query = select(Conflict).where(Conflict.tag_id == tag_id)
    if after is not None:
        sequence, ordinal = after
        older = col(Conflict.sequence) < sequence
        same = and_(col(Conflict.sequence) == sequence, col(Conflict.ordinal) < ordinal)
        query = query.where(or_(older, same))
    return list(session.exec(query.order_by(col(Conflict.sequence).desc(), col(Conflict.ordinal).desc()).limit(limit)))
