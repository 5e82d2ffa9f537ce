"""Owners of shards that miss their heartbeat: found in the database, ended by pid and start time on this machine, by Ray on others.

An epoch stops a late commit, not a process that is frozen with a lock or half dead. Ray starts the successor when the process is gone.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import ray
from sqlalchemy.exc import SQLAlchemyError

from actors.journal.database import reader
from actors.journal.fence import owners
from actors.journal.tables import ShardOwner
from cluster.settings import Settings

log = logging.getLogger("waybill.owners")


@dataclass(frozen=True, slots=True)
class Overdue:
    """A shard whose owner's heartbeat is older than the settings allow."""

    shard: int
    pid: int
    pid_started: str
    node: str
    acquired_us: int
    late_s: float

    @property
    def elsewhere(self) -> bool:
        """Whether it runs on another machine, or another node of Ray."""
        return self.node not in _names_of_this_node()

    def end(self) -> bool:
        """Kill the owner's process where it runs on this machine. False where there is no such process here."""
        if self.pid <= 0 or self.elsewhere:
            return False
        try:
            process = psutil.Process(self.pid)
            if not self._is_owner(process.create_time()):
                return False
            os.kill(self.pid, signal.SIGKILL)  # a frozen process hears nothing softer
        except (psutil.NoSuchProcess, ProcessLookupError):
            return False
        log.warning("ended process %d, which owned shard %d and gave no sign of life for %.0f s", self.pid, self.shard, self.late_s)
        return True

    def _is_owner(self, started: float) -> bool:
        """Whether the process that has the pid now is the one that took the shard: it started before that, and when it said."""
        return started < self.acquired_us / 1e6 + 1.0 and self.pid_started in ("", start_ticks(self.pid))


def start_ticks(pid: int) -> str:
    """Start time of a process in clock ticks since boot, as an owner writes it down; empty where the system does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


class Owners:
    """Watches the owners' heartbeats in one database.

    An owner is late by how long *we* have seen its heartbeat stand still, so that clocks that differ or jump, and a database that
    was away (through which nobody's heartbeat got), condemn nobody.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        """Connects at the first look; `clock` gives seconds from anywhere."""
        self._timeout_s = settings.owner_timeout_s
        self._engine = reader(settings.url_text, connections=1)
        self._clock = clock
        self._beats = 0
        self._seen: dict[int, tuple[int, int, float]] = {}  # shard: epoch, heartbeat, since when both stand still
        self._epochs: dict[int, int] = {}
        self._moved: set[str] = set()

    def overdue(self) -> list[Overdue]:
        """Owners that are overdue now; none where the database cannot be asked."""
        try:
            rows = owners(self._engine)
        except SQLAlchemyError as error:
            log.warning("the owners' heartbeats cannot be read: %s", error)
            self.forget()
            return []
        return [found for row in rows if (found := self._judge(row)).late_s > self._timeout_s]

    def waiting(self) -> bool:
        """Whether no heartbeat of any owner has been seen to move since we began to count."""
        return self._beats == 0

    def moved(self) -> set[str]:
        """Nodes on which owners have taken their shards since this was last asked."""
        moved, self._moved = self._moved, set()
        return moved

    def forget(self) -> None:
        """Count from now on: what carries the heartbeats was away."""
        self._seen.clear()
        self._beats = 0

    def _judge(self, row: ShardOwner) -> Overdue:
        now = self._clock()
        epoch, heartbeat_us, since = self._seen.get(row.shard, (-1, 0, now))
        if (epoch, heartbeat_us) != (row.epoch, row.heartbeat_us):
            self._beats += epoch != -1
            since = now
        self._seen[row.shard] = (row.epoch, row.heartbeat_us, since)
        if row.epoch != self._epochs.get(row.shard):
            self._epochs[row.shard] = row.epoch
            self._moved.add(row.node)
        return Overdue(row.shard, row.pid, row.pid_started, row.node, row.acquired_us, now - since)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()


def _names_of_this_node() -> set[str]:
    """What an owner on this machine may have called it."""
    names = {"", socket.gethostname()}
    if ray.is_initialized():
        context = ray.get_runtime_context()
        names |= {context.get_node_id(), str(ray.util.get_node_ip_address())}  # type: ignore[no-untyped-call]
    return names
