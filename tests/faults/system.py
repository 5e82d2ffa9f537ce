"""A Waybill under test, as the chaos driver sees it: where it listens, and its processes, found as an operator finds them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from actors.journal.database import reader
from cluster.owners import start_ticks
from cluster.processes import Recorded, read_record
from tests.faults.disk import SmallDisk
from tests.faults.island import Cable, Island
from tests.faults.planted import Traps, successor

if TYPE_CHECKING:
    from cluster.boot import Running
    from tests.postgres import PostgreSQL

START_S = 600.0


@dataclass(frozen=True)
class Owner:
    """The process that owns a shard, by what it wrote down in the database."""

    shard: int
    epoch: int
    pid: int
    head: int
    node: str

    def alive(self) -> bool:
        """Whether it still runs."""
        return alive(self.pid)


ADD_NODE_TRIES = 5
"""A node that is added while the machine starts much else may give up."""


class Nodes:
    """A Ray cluster of several nodes on this machine, whose raylets can be killed.

    `storage`: a folder where its head service keeps its state (RocksDB, which Ray calls alpha), so that it can be killed too. `cable`: one
    more node at its other end.
    """

    def __init__(self, workers: int, storage: Path | None = None, cable: Cable | None = None) -> None:
        from cluster.ray_node import SPARES, TUNING

        keeps = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(storage)} if storage is not None else {}
        if storage is not None:
            storage.mkdir(parents=True, exist_ok=True)
        for name, value in {**TUNING, **SPARES, **keeps}.items():  # as an operator gives them to `ray start`
            os.environ.setdefault(name, value)
        from ray.cluster_utils import Cluster

        self._small = {"num_cpus": 2, "object_store_memory": 100 << 20}
        self._cluster = Cluster(initialize_head=True, connect=False, head_node_args=dict(self._small))
        for _ in range(workers):
            self._cluster.add_node(**self._small)
        self.island: Island | None = None
        if cable is not None:
            self.island = Island(cable, self.address, Path(f"/tmp/{cable.name}.log"), self._living)

    def _living(self) -> list[tuple[str, str]]:
        table = self._cluster.global_state.node_table()
        return [(node["NodeID"], node["NodeManagerAddress"]) for node in table if node["Alive"]]

    def kill_gcs(self) -> None:
        """SIGKILL the head service."""
        self._cluster.head_node.kill_gcs_server(check_alive=False)

    def start_gcs(self) -> None:
        """Start it again on what it kept."""
        self._cluster.head_node.start_gcs_server()

    @property
    def address(self) -> str:
        """Where drivers join."""
        return str(self._cluster.address)

    def raylet(self, node_id: str) -> tuple[Any, int] | None:
        """A worker node and its raylet's pid; None for the head or a node that is not there."""
        for node in self._cluster.worker_nodes:
            if node.node_id == node_id:
                return node, int(node.all_processes["raylet"][0].process.pid)
        return None

    def replace(self, node: Any) -> None:
        """Clear away what is left of a node, and add another."""
        self._cluster.remove_node(node, allow_graceful=False)
        for _ in range(ADD_NODE_TRIES):
            try:
                self._cluster.add_node(**self._small)
                return
            except Exception as error:  # Ray says no more than that: its head was slow to answer
                print(f"a node did not start: {error}", flush=True)
        print("it goes on without that node", flush=True)

    def close(self) -> None:
        """End all of it."""
        if self.island is not None:
            self.island.end()
        self._cluster.shutdown()


@dataclass
class System:
    """One running Waybill."""

    target: str
    database_url: str
    data_dir: Path
    shards: int
    traps: Traps
    server: PostgreSQL | None = None
    said: list[str] = field(default_factory=list)
    succeed: Callable[[int], None] = lambda shard: None
    """Start a second owner of a shard beside the one that is there."""
    nodes: Nodes | None = None
    disk: SmallDisk | None = None
    pid: int = 0
    """Of the supervisor, where it runs in a process of its own."""
    _engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """For looking at the database from outside."""
        if self._engine is None:
            self._engine = reader(self.database_url, connections=2)
        return self._engine

    def close(self) -> None:
        """Let go of the database."""
        if self._engine is not None:
            self._engine.dispose()

    def owner(self, shard: int) -> Owner | None:
        """The living owner of a shard; None where there is none just now."""
        try:
            with self.engine.connect() as connection:
                row = connection.execute(
                    text("SELECT epoch, pid, pid_started, journal_head, node FROM shard_owner WHERE shard = :shard"), {"shard": shard}
                ).first()
        except SQLAlchemyError:
            return None
        if row is None or not row.pid or start_ticks(row.pid) != row.pid_started or not alive(row.pid):
            return None
        return Owner(shard, row.epoch, row.pid, row.journal_head, row.node)

    def epoch(self, shard: int) -> tuple[int, int]:
        """A shard's epoch and the head of its journal, dead or alive."""
        try:
            with self.engine.connect() as connection:
                row = connection.execute(text("SELECT epoch, journal_head FROM shard_owner WHERE shard = :shard"), {"shard": shard}).one()
        except SQLAlchemyError:
            return 0, 0
        return row.epoch, row.journal_head

    def processes(self, name: str) -> list[Recorded]:
        """The living processes of that name, as Waybill wrote them down."""
        return [one for one in read_record(self.data_dir / "processes.json") if one.name.startswith(name) and alive(one.pid)]

    def newest_event(self) -> int:
        """Number of the newest event."""
        with self.engine.connect() as connection:
            return int(connection.execute(text("SELECT number FROM event_counter")).scalar_one())


def alive(pid: int) -> bool:
    """Whether a process runs and is no zombie."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def supervised(running: Running, traps: Traps, server: PostgreSQL | None = None) -> Iterator[System]:
    """A Waybill of this process with its supervisor on a thread; what the tests use. The caller stops it."""
    from cluster import supervisor as supervising

    settings = running.settings
    system = System(running.target, settings.url_text, settings.data_dir, settings.shards or 0, traps, server)
    successors: list[Any] = []
    system.succeed = lambda shard: successors.append(successor(running, traps, shard))
    supervisor = supervising.Supervisor(running, say=system.said.append)
    backoff, supervising.BACKOFF_S = supervising.BACKOFF_S, (0.2,)  # many deaths a minute are what is asked for here
    thread = threading.Thread(target=supervisor.run, name="supervisor", daemon=True)
    thread.start()
    try:
        yield system
    finally:
        supervisor.stopping.set()
        thread.join()
        supervisor.close()
        supervising.BACKOFF_S = backoff
        system.close()


@contextlib.contextmanager
def launched(
    folder: Path,
    settings: dict[str, Any],
    server: PostgreSQL | None = None,
    nodes: Nodes | None = None,
    disk: SmallDisk | None = None,
    core: int | None = None,
) -> Iterator[System]:
    """A Waybill in processes of its own, as `waybill up` runs it, with its own Ray. `core`: the only one it may use."""
    folder.mkdir(parents=True, exist_ok=True)
    traps = Traps(folder / "traps", create=True)
    config = {"settings": {"data_dir": str(folder / "data"), "port": 0, **settings}, "traps": str(traps.path)}
    config["ready"], config["core"] = str(folder / "up.json"), core
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WAYBILL_")}
    with open(folder / "up.log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.launch"], stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment
        )
    assert process.stdin is not None
    process.stdin.write(json.dumps(config).encode())
    process.stdin.close()
    try:
        deadline = time.monotonic() + START_S
        while not Path(config["ready"]).exists():  # type: ignore[arg-type]
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Waybill did not start: {(folder / 'up.log').read_text()[-3000:]}")
            time.sleep(0.1)
        told = json.loads(Path(config["ready"]).read_text())  # type: ignore[arg-type]
        system = System(told["target"], told["database_url"], Path(told["data_dir"]), told["shards"], traps, server)
        system.succeed = lambda shard: (folder / f"succeed-{shard}").touch()
        system.nodes, system.disk, system.pid = nodes, disk, process.pid
        try:
            yield system
        finally:
            system.close()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
