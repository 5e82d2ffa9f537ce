"""How a Waybill stands, read from its database: owners, journal heads, counts; for `waybill status`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func
from sqlalchemy import select as sa_select
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, col, select

from actors.journal.database import reader
from actors.journal.tables import Alert, EventCounter, Excursion, Outbox, Quarantine, ShardOwner, Shipment, Tag
from cluster.settings import Settings

DAMAGED_MOST = 20


@dataclass(frozen=True)
class Damage:
    """Something in quarantine. `from_us`, `until_us`: sensed times of its readings, None where it holds none."""

    shard: int
    name: str
    readings: int
    from_us: int | None
    until_us: int | None
    why: str


@dataclass(frozen=True)
class Overview:
    """The database's view. `bytes` is the size of an SQLite database with its log, None elsewhere."""

    owners: list[ShardOwner]
    tags: dict[int, int]
    shipments: dict[str, int]
    open_alerts: int
    excursions: int
    last_event: int
    outbox: int
    bytes: int | None
    damaged: list[Damage]
    """What stored bytes were found damaged and are left out, the newest first, at most DAMAGED_MOST."""


def overview(settings: Settings) -> Overview | str:
    """The overview, or one line that says why there is none."""
    if settings.is_sqlite and not Path(settings.url.database or "").exists():
        return f"no database yet at {settings.url.database}"
    engine = reader(settings.url_text)
    try:
        with Session(engine) as session:
            counter = session.exec(select(EventCounter)).first()
            standing = select(func.count()).select_from(Alert).where(col(Alert.state).in_(["OPEN", "ACKNOWLEDGED"]))
            return Overview(
                owners=list(session.exec(select(ShardOwner).order_by(col(ShardOwner.shard)))),
                tags=dict(session.exec(select(Tag.shard, func.count()).group_by(col(Tag.shard))).all()),
                shipments=dict(session.exec(select(Shipment.state, func.count()).group_by(col(Shipment.state))).all()),
                open_alerts=session.exec(standing).one(),
                excursions=session.exec(select(func.count()).select_from(Excursion).where(col(Excursion.state) != "RETRACTED")).one(),
                last_event=counter.number if counter else 0,
                outbox=session.exec(select(func.count()).select_from(Outbox)).one(),
                bytes=_size(settings),
                damaged=_damaged(session),
            )
    except SQLAlchemyError as error:
        return f"the database cannot be read: {str(error).splitlines()[0]}"
    finally:
        engine.dispose()


def _damaged(session: Session) -> list[Damage]:
    one = Quarantine  # all of a row but its bytes
    columns = [one.shard, one.name, one.readings, one.from_us, one.until_us, one.why]
    rows = session.execute(sa_select(*columns).order_by(col(one.found_us).desc()).limit(DAMAGED_MOST))  # type: ignore[call-overload]
    return [Damage(*row) for row in rows]


def _size(settings: Settings) -> int | None:
    if not settings.is_sqlite or not settings.url.database:
        return None
    path = Path(settings.url.database)
    return sum(part.stat().st_size for part in (path, path.with_name(path.name + "-wal")) if part.exists())
