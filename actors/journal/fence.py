"""Who may write for a shard: epochs, taken by compare-and-set, checked by every commit (commit.py).

The functions run inside a writing transaction: give them to `Store.write`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, select, update
from sqlmodel import Session

from actors.journal import rows
from actors.journal.tables import ShardOwner
from actors.rules.errors import Superseded

OWNER = rows.table_of(ShardOwner)


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
    under way, on PostgreSQL at most the lock timeout. Sent twice it takes the shard twice, which does no harm.
    """
    rows_there = rows.upsert_statement(connection.dialect.name, OWNER, ("shard",), nothing=True)
    connection.execute(rows_there, rows.values(ShardOwner(shard=shard)))
    seen = connection.execute(select(OWNER.c.epoch).where(OWNER.c.shard == shard).with_for_update()).scalar_one()
    if expected_epoch is not None and seen != expected_epoch:
        raise Superseded(f"shard {shard} is at epoch {seen}", field="epoch", value=expected_epoch)
    who = {"pid": claimant.pid, "node": claimant.node, "worker": claimant.worker, "pid_started": claimant.pid_started}
    taken = connection.execute(
        update(OWNER)
        .where((OWNER.c.shard == shard) & (OWNER.c.epoch == seen))
        .values(epoch=seen + 1, acquired_us=now_us, heartbeat_us=now_us, **who)
        .returning(OWNER)
    )
    return ShardOwner(**taken.mappings().one())


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
