"""A running Waybill from three sides: a gRPC client, a Ray driver with handles, and its database; and ways to kill its parts."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import grpc
import psutil
from sqlalchemy import Engine, create_engine
from sqlmodel import Session, SQLModel, select

from actors.directory import Directory
from actors.journal.tables import ShardOwner
from actors.rules.errors import DomainError
from cluster.boot import Running
from tests.acceptance.client import Client, new_id

Row = TypeVar("Row", bound=SQLModel)
Answer = TypeVar("Answer")


class System:
    """See the module."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.client = Client(running.target)
        self.directory = Directory.connect(running.settings.ray_namespace)
        self.engine: Engine = create_engine(running.settings.url)

    def close(self) -> None:
        """Let go of everything."""
        self.client.close()
        self.engine.dispose()

    @property
    def is_sqlite(self) -> bool:
        """Which database it is."""
        return self.running.settings.is_sqlite

    def rows(self, table: type[Row], *conditions: Any) -> list[Row]:
        """Rows of the database, committed."""
        with Session(self.engine) as session:
            return list(session.exec(select(table).where(*conditions)).all())

    def owner(self, shard: int) -> ShardOwner:
        """Who may write for a shard."""
        [row] = self.rows(ShardOwner, ShardOwner.shard == shard)
        return row

    def info(self, shard: int) -> dict[str, Any]:
        """Facts about a shard, once it answers; its tags are there then."""
        return self.patiently(lambda: self.directory.ask_all("info")[shard])

    def patiently(self, ask: Callable[[], Answer], within_s: float = 60) -> Answer:
        """Ask until there is an answer: a shard that was killed is being made anew."""
        import ray

        deadline = time.monotonic() + within_s
        while True:
            try:
                return ask()
            except (ray.exceptions.RayError, DomainError, grpc.RpcError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def tag_in(self, shard: int) -> str:
        """A new tag id that lives in a shard."""
        while True:
            tag_id = new_id("tag")
            if self.directory.shard_of(tag_id) == shard:
                return tag_id

    def kill(self, shard: int) -> int:
        """End a shard's process at once, by the recorded pid; that pid."""
        owner = self.owner(shard)
        assert owner.pid != os.getpid()
        process = psutil.Process(owner.pid)
        os.kill(owner.pid, signal.SIGKILL)
        process.wait(10)
        return owner.pid

    def kill_the_database_connection(self) -> None:
        """SQLite: kill the committer, and start it again. PostgreSQL: end every connection of the shards."""
        if self.is_sqlite:
            committer = self.running.committer
            assert committer is not None
            os.kill(committer.pid, signal.SIGKILL)
            psutil.wait_procs([psutil.Process(committer.pid)] if psutil.pid_exists(committer.pid) else [], timeout=10)
            self.running.start_committer()
            return
        with self.engine.connect() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    def send_surely(self, tag_id: str, readings: Sequence[tuple[float, float]]) -> tuple[int, int]:
        """Send readings until they are acknowledged: (accepted, duplicate) of the last answer."""
        answer = self.patiently(lambda: self.client.send(tag_id, *readings))
        return answer.accepted, answer.duplicate
