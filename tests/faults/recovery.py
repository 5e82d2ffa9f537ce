"""How long Waybill is away when a part of it dies: `python -m tests.faults.recovery`, on a machine that does nothing else.

- shard: SIGKILL of a shard's process with a million readings in its journal after its newest snapshot; until a reading that was sent
  after the kill is acknowledged.
- door: SIGKILL of the door a client is connected to; until the client, which does nothing but wait for its channel, has an answer. With one
  door that is the start of another; with two the client goes on at the other.
- node: SIGKILL of everything on one of three Ray nodes (PostgreSQL); until readings of the shards that were there are acknowledged.

Prints a line per kind, with `--out` also JSON; the exit code says whether all targets were met.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
from sqlalchemy import text

from tests.faults.system import Nodes, System, launched
from tests.postgres import PostgreSQL
from waybill.v1 import common_pb2, telemetry_pb2, telemetry_pb2_grpc

TARGETS_S = {"shard": 3.0, "node": 15.0, "door": 5.0, "two doors": 5.0}
READINGS_AFTER_SNAPSHOT = 1_000_000
TAGS = 1_000
BATCH = 20_000
START_US = 1_700_000_000_000_000
SECOND_US = 1_000_000
PATIENCE_S = 90.0
OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 1_000), ("grpc.initial_reconnect_backoff_ms", 100)]
"""As docs/api.md advises clients."""


@dataclass
class Outages:
    """The outages of one kind, in seconds."""

    kind: str
    seconds: list[float] = field(default_factory=list)
    detail: str = ""

    @property
    def met(self) -> bool:
        """Whether each was within the target."""
        return bool(self.seconds) and max(self.seconds) <= TARGETS_S[self.kind]

    def text(self) -> str:
        """For people."""
        times = " ".join(f"{one:.2f}" for one in self.seconds)
        median = sorted(self.seconds)[len(self.seconds) // 2]
        mark = "met" if self.met else "MISSED"
        return f"{self.kind:<10} {median:6.2f} s median, {max(self.seconds):6.2f} s longest of {len(self.seconds)} ({times});" + (
            f" target {TARGETS_S[self.kind]:g} s: {mark}{'; ' + self.detail if self.detail else ''}"
        )


class Probe:
    """One client with readings for each shard; every message is new."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.channel = grpc.insecure_channel(system.target, options=[*OPTIONS, ("grpc.use_local_subchannel_pool", 1)])
        self.stub: Any = telemetry_pb2_grpc.TelemetryServiceStub(self.channel)  # type: ignore[no-untyped-call]
        from tests.faults.world import World

        world = World(seed=9, tags=8 * TAGS, prefix="recovery")
        self.ids: dict[int, list[str]] = {shard: [] for shard in range(system.shards)}
        for tag in range(world.tags):
            self.ids[world.shard(tag, system.shards)].append(world.tag_id(tag))
        self.minute = 0

    def message(self, shard: int, tags: int, minutes: int) -> telemetry_pb2.IngestRequest:
        """Readings of the next minutes of a shard's tags."""
        ids = self.ids[shard][:tags]
        n = len(ids) * minutes
        minute = self.minute + np.arange(n) // len(ids)
        self.minute += minutes
        columns = telemetry_pb2.ReadingColumns(
            tag_ids=ids,
            tag_index=np.arange(n) % len(ids),
            sensed_at_us=START_US + minute * 60 * SECOND_US,
            boot=np.ones(n, np.int64),
            sequence=minute,
            columns=[telemetry_pb2.Column(metric=common_pb2.METRIC_TEMPERATURE_C, values=5.0 + np.sin(minute / 60.0))],
        )
        return telemetry_pb2.IngestRequest(batch_id="r", columns=columns)

    def send(self, shard: int, tags: int = 8, minutes: int = 1) -> None:
        """Have readings acknowledged, however long that takes. Asks again as a client should."""
        request = telemetry_pb2.IngestBatchRequest(batch=self.message(shard, tags, minutes))
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer = self.stub.IngestBatch(request, timeout=PATIENCE_S, wait_for_ready=True).result
                assert answer.accepted + answer.duplicate == tags * minutes, answer
                return
            except grpc.RpcError as error:
                if time.monotonic() > until:
                    raise
                again = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED)
                if not (isinstance(error, grpc.Call) and error.code() in again):
                    raise
                time.sleep(0.05)

    def outage(self, shards: list[int]) -> float:
        """Seconds from now until readings sent from now on are acknowledged by each of the shards."""
        begun = time.monotonic()
        for shard in shards:
            self.send(shard)
        return time.monotonic() - begun

    def close(self) -> None:
        """Hang up."""
        self.channel.close()


@contextlib.contextmanager
def probing(system: System) -> Iterator[Probe]:
    """A probe, connected."""
    probe = Probe(system)
    try:
        for shard in range(system.shards):
            probe.send(shard)
        yield probe
    finally:
        probe.close()


def after_snapshot(system: System, shard: int) -> int:
    """Readings in the shard's journal that its newest snapshot does not hold."""
    newest = "SELECT COALESCE(MAX(sequence), 0) FROM snapshot s WHERE s.shard = :shard AND s.part = s.parts - 1"
    with system.engine.connect() as connection:
        return int(
            connection.execute(
                text(f"SELECT COALESCE(SUM(readings), 0) FROM journal_batch WHERE shard = :shard AND sequence > ({newest})"),
                {"shard": shard},
            ).scalar_one()
        )


def owner_of(system: System, shard: int) -> Any:
    """The owner, waited for."""
    until = time.monotonic() + PATIENCE_S
    while (found := system.owner(shard)) is None:
        if time.monotonic() > until:
            raise RuntimeError(f"shard {shard} has no owner")
        time.sleep(0.05)
    return found


def shard_kills(system: System, probe: Probe, times: int) -> Outages:
    """Kill shard 0 when a million readings are in its journal after its snapshot."""
    found = Outages("shard")
    for _ in range(times):
        while (there := after_snapshot(system, 0)) < READINGS_AFTER_SNAPSHOT:
            probe.send(0, TAGS, max(1, min(BATCH, READINGS_AFTER_SNAPSHOT - there) // TAGS))
        found.detail = f"{after_snapshot(system, 0):,} readings after the snapshot"
        os.kill(owner_of(system, 0).pid, signal.SIGKILL)
        found.seconds.append(probe.outage([0]))
        time.sleep(3)
    return found


def door_kills(system: System, kind: str, times: int) -> Outages:
    """Kill the door that a client is connected to."""
    found = Outages(kind)
    for _ in range(times):
        with probing(system) as probe:
            pid = door_of(system)
            os.kill(pid, signal.SIGKILL)
            found.seconds.append(probe.outage([0]))
        until = time.monotonic() + PATIENCE_S
        while len(system.processes("door")) < (2 if kind == "two doors" else 1) and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(3)
    return found


def door_of(system: System) -> int:
    """The door that this process has a connection to."""
    doors = {one.pid for one in system.processes("door")}
    port = int(system.target.rpartition(":")[2])
    mine = {one.laddr for one in psutil.Process().net_connections("tcp") if one.raddr and one.raddr.port == port}
    for pid in doors:
        if any(one.raddr in mine for one in psutil.Process(pid).net_connections("tcp") if one.raddr):
            return pid
    return doors.pop()


def node_kills(system: System, probe: Probe, times: int) -> Outages:
    """Kill everything on a worker node that has shards."""
    nodes = system.nodes
    assert nodes is not None
    found = Outages("node")
    for _ in range(times):
        owners = [owner_of(system, shard) for shard in range(system.shards)]
        place = next((place for owner in owners if (place := nodes.raylet(owner.node)) is not None), None)
        if place is None:
            found.detail = "no shard was on a worker node"
            break
        moving = [owner.shard for owner in owners if owner.node == place[0].node_id]
        everything = [*psutil.Process(place[1]).children(recursive=True), psutil.Process(place[1])]
        for process in everything:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        found.seconds.append(probe.outage(moving))
        nodes.replace(place[0])
        time.sleep(3)
    return found


def on_sqlite(folder: Path, doors: int, kinds: list[str], times: int) -> list[Outages]:
    """What can be measured on one machine."""
    settings: dict[str, object] = {"shards": 2, "doors": doors, "snapshot_readings": 1_500_000, "log_level": "INFO"}
    found = []
    with launched(folder, settings) as system:
        if "shard" in kinds:
            with probing(system) as probe:
                found.append(shard_kills(system, probe, times))
        for kind in kinds:
            if kind != "shard":
                found.append(door_kills(system, kind, times))
    return found


def on_postgresql(folder: Path, times: int) -> list[Outages]:
    """What needs several nodes."""
    place = Path(tempfile.mkdtemp(prefix="waybill-postgresql-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        server = PostgreSQL(place)
        server.start()
        stack.callback(server.stop)
        nodes = Nodes(2)
        stack.callback(nodes.close)
        settings: dict[str, object] = {"shards": 4, "database_url": server.new_database(), "ray_address": nodes.address}
        system = stack.enter_context(launched(folder, settings, server=server, nodes=nodes))
        with probing(system) as probe:
            return [node_kills(system, probe, times)]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default="shard,door,two doors,node")
    parser.add_argument("--times", type=int, default=3, help="kills of each kind")
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    parser.add_argument("--keep", type=Path, help="folder to keep everything in")
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    folder = options.keep or Path(tempfile.mkdtemp(prefix="waybill-recovery-"))
    found: list[Outages] = []
    try:
        single = [kind for kind in kinds if kind in ("shard", "door")]
        if single:
            found += on_sqlite(folder / "one", 1, single, options.times)
        if "two doors" in kinds:
            found += on_sqlite(folder / "two", 2, ["two doors"], options.times)
        if "node" in kinds:
            found += on_postgresql(folder / "nodes", options.times)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    for one in found:
        print(one.text())
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({one.kind: {"seconds": one.seconds, "target_s": TARGETS_S[one.kind]} for one in found}, indent=1))
    return 0 if all(one.met for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
