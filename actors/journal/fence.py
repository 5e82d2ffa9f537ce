"""Who may write for a shard: epochs, taken by compare-and-set, checked by every commit (commit.py).

The functions run inside a writing transaction: give them to `Store.write`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, select, text, update
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from actors.journal import rows
from actors.journal.tables import ShardOwner
from actors.rules.errors import Superseded

log = logging.getLogger(__name__)

OWNER = rows.table_of(ShardOwner)

HOLDER_MS = 4_000
"""So long a new owner waits for the transaction of the old one; longer than PostgreSQL lets it sit idle (database.IDLE_TIMEOUT_MS)."""
LOCK_NOT_AVAILABLE = "55P03"
END_HOLDER = text(
    "SELECT pg_terminate_backend(holder.pid) FROM pg_locks AS held JOIN pg_stat_activity AS holder USING (pid)"
    " WHERE held.locktype = 'relation' AND held.relation = 'shard_owner'::regclass AND held.database = holder.datid AND held.granted"
    " AND held.mode IN ('RowShareLock', 'RowExclusiveLock') AND holder.pid <> pg_backend_pid() AND holder.datname = current_database()"
    " AND holder.xact_start < clock_timestamp() - make_interval(secs => :age_s) AND holder.wait_event_type IS DISTINCT FROM 'Lock'"
)
"""Who has locked or changed a row of the table for so long, and waits for no lock itself. (The row's own xmax names nobody once the
savepoint of that change is released. A commit of another shard that takes so long is sent once more by its shard.)"""


@dataclass(frozen=True, slots=True)
class Claimant:
    """The process that wants to own a shard. `pid_started`: its start time as its system tells it, against reuse of the pid."""

    pid: int
    node: str = ""
    worker: str = ""
    pid_started: str = ""


def process_started() -> str:
    """Start time of this process in clock ticks since boot, as its system tells it; empty where it does not."""
    try:
        return Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


def acquire(connection: Connection, shard: int, claimant: Claimant, now_us: int, expected_epoch: int | None = None) -> ShardOwner:
    """Take a shard over: from now on every commit with an earlier epoch is refused. Returns the row, with the new epoch.

    expected_epoch: only from this epoch, else Superseded (None: from whoever has it). Waits for a commit that is
    under way, on PostgreSQL for HOLDER_MS, then its connection is ended. Sent twice it takes the shard twice, which does no harm.
    """
    seen = _locked_epoch(connection, shard)
    if seen is None:  # nobody has ever had it
        first = rows.upsert_statement(connection.dialect.name, OWNER, ("shard",), nothing=True)
        connection.execute(first, rows.values(ShardOwner(shard=shard)))
        seen = _locked_epoch(connection, shard)
    if expected_epoch is not None and seen != expected_epoch:
        raise Superseded(f"shard {shard} is at epoch {seen}", field="epoch", value=expected_epoch)
    who = {"pid": claimant.pid, "node": claimant.node, "worker": claimant.worker, "pid_started": claimant.pid_started}
    taken = connection.execute(
        update(OWNER)
        .where((OWNER.c.shard == shard) & (OWNER.c.epoch == seen))
        .values(epoch=OWNER.c.epoch + 1, acquired_us=now_us, heartbeat_us=now_us, **who)
        .returning(OWNER)
    )
    return ShardOwner(**taken.mappings().one())


def _locked_epoch(connection: Connection, shard: int) -> int | None:
    """The epoch of a shard, its row locked; None where it has none. On PostgreSQL a connection that holds the row for too long is ended:
    the server's own clock does not run between the messages of a pipeline, so an owner that freezes there would hold its shard, and the
    counter of events that all shards write, for as long as it is frozen.
    """
    lock = select(OWNER.c.epoch).where(OWNER.c.shard == shard).with_for_update()
    if connection.dialect.name != "postgresql":
        return connection.execute(lock).scalar()
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {HOLDER_MS}")
    try:
        with connection.begin_nested():
            epoch = connection.execute(lock).scalar()
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", "") != LOCK_NOT_AVAILABLE:
            raise
        ended = connection.execute(END_HOLDER, {"age_s": HOLDER_MS / 1000}).scalars().all()
        log.warning("shard %d: %d connections that held its row, or another, for %d ms were ended", shard, len(ended), HOLDER_MS)
        epoch = connection.execute(lock).scalar()
    connection.exec_driver_sql("SET LOCAL lock_timeout TO DEFAULT")
    return epoch


def heartbeat(connection: Connection, shard: int, epoch: int, now_us: int) -> None:
    """Say that the owner lives. Raises Superseded where another has taken over."""
    mine = (OWNER.c.shard == shard) & (OWNER.c.epoch == epoch)
    if connection.execute(update(OWNER).where(mine).values(heartbeat_us=now_us)).rowcount == 0:
        raise Superseded(f"shard {shard} has another owner", field="epoch", value=epoch)


def owners(engine: Engine) -> list[ShardOwner]:
    """All shards' owners, by shard."""
    with Session(engine) as session:
        return list(session.execute(select(ShardOwner).order_by(OWNER.c.shard)).scalars())


def owner(engine: Engine, shard: int) -> ShardOwner | None:
    """One shard's owner; None where nobody ever had it."""
    with Session(engine) as session:
        return session.get(ShardOwner, shard)
