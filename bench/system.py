"""A Waybill of its own for one measurement: started, given its shipments and tags, checked, and ended."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from actors.directory import Directory
from actors.journal.database import assert_durable, reader
from actors.journal.store import open_store
from bench import seed, workload
from bench.expected import Excursion, Expected, Visit
from bench.workload import Workload
from cluster import boot, ray_node
from cluster.boot import Running
from cluster.client import Client
from cluster.processes import Recorded
from cluster.settings import load
from waybill.v1 import common_pb2, profile_pb2, shipment_pb2, telemetry_pb2

PROFILE = "bench"


class System:
    """A running Waybill and how the bench speaks with it."""

    def __init__(self, running: Running, folder: Path, heads: list[Recorded], began: float = 0.0) -> None:
        self.running, self.folder, self._heads = running, folder, heads
        self._began = began
        self.settings, self.target = running.settings, running.target
        self.directory = Directory(running.settings.shards or 1, running.settings.ray_namespace)

    def assert_durable(self) -> None:
        """Raise unless the committer's own connection says that its commits are on the disk (SQLite: synchronous = FULL)."""
        store = open_store(self.settings.url_text)
        store.write(assert_durable).result(30)
        store.close()

    def first_acknowledged_s(self) -> float:
        """Seconds from when Ray was ready and the system was asked to start until a new tag's reading is acknowledged: call it at once."""
        reading = telemetry_pb2.Reading(tag_id="first", sensed_at_us=time.time_ns() // 1000, temperature_c=5.0)
        request = telemetry_pb2.IngestRequest(rows=telemetry_pb2.ReadingRows(readings=[reading]))
        with Client(self.target) as client:
            answer = client.call(client.telemetry.IngestBatch, telemetry_pb2.IngestBatchRequest(batch=request))
        assert answer.result.accepted == 1, answer
        return time.monotonic() - self._began

    def make_profile(self) -> None:
        """Three limits: too warm for some minutes with hysteresis, too cold at once, warm time in total."""
        celsius, single = common_pb2.METRIC_TEMPERATURE_C, profile_pb2.LIMIT_MODE_SINGLE
        above, below = profile_pb2.DIRECTION_ABOVE, profile_pb2.DIRECTION_BELOW
        limits = [
            profile_pb2.Limit(
                limit_id=workload.WARM, metric=celsius, direction=above, mode=single, threshold=workload.WARM_ABOVE_C,
                clear=workload.WARM_CLEAR_C, allowance_s=workload.WARM_ALLOWANCE_US / 1e6, severity=common_pb2.SEVERITY_WARNING,
            ),
            profile_pb2.Limit(
                limit_id=workload.COLD, metric=celsius, direction=below, mode=single, threshold=workload.COLD_BELOW_C,
                allowance_s=0.0, severity=common_pb2.SEVERITY_CRITICAL,
            ),
            profile_pb2.Limit(
                limit_id=workload.TOTAL, metric=celsius, direction=above, mode=profile_pb2.LIMIT_MODE_CUMULATIVE,
                threshold=workload.WARM_ABOVE_C, allowance_s=workload.TOTAL_ALLOWANCE_US / 1e6, severity=common_pb2.SEVERITY_CRITICAL,
            ),
        ]  # fmt: skip
        profile = profile_pb2.Profile(profile_id=PROFILE, name="bench", limits=limits)
        with Client(self.target) as client:
            client.call(client.profiles.CreateProfile, profile_pb2.CreateProfileRequest(profile=profile))

    def make_shipments(self, work: Workload) -> None:
        """Shipments with the profile and the fence, for all tags of the workload."""
        circle = common_pb2.CircleShape(
            center=common_pb2.LatLng(latitude_deg=workload.CENTER[0], longitude_deg=workload.CENTER[1]), radius_m=workload.RADIUS_M
        )
        fence = common_pb2.Geofence(fence_id="terminal", name="terminal", circle=circle)
        with Client(self.target) as client, ThreadPoolExecutor(16) as pool:

            def create(number: int) -> None:
                shipment = shipment_pb2.Shipment(shipment_id=f"bench-{number}", profile_id=PROFILE, geofences=[fence])
                client.call(client.shipments.CreateShipment, shipment_pb2.CreateShipmentRequest(shipment=shipment))

            list(pool.map(create, range(-(-work.tags // work.tags_per_shipment))))

    def found(self) -> tuple[list[Excursion], list[Visit]]:
        """The excursions and visits that stand in the database, retracted ones left out."""
        engine = reader(self.settings.url_text)
        with engine.connect() as connection:
            excursions = connection.exec_driver_sql(
                "SELECT tag_id, limit_id, started_us, triggered_us, ended_us FROM excursion WHERE state <> 'RETRACTED'"
            ).all()
            visits = connection.exec_driver_sql("SELECT tag_id, entered_us, exited_us, kind FROM visit WHERE state <> 'RETRACTED'").all()
        engine.dispose()
        assert all(kind == "VISIT" for *_, kind in visits), "a tag passed through the fence that never did"
        return (
            [(int(tag[6:]), limit, start, triggered, end) for tag, limit, start, triggered, end in excursions],
            [(int(tag[6:]), entered, left) for tag, entered, left, _ in visits],
        )

    def check(self, expected: Expected) -> None:
        """Raise AssertionError unless the database states what is expected, event for event."""
        excursions, visits = self.found()
        for name, stated, wanted in (("excursions", excursions, expected.excursions), ("visits", visits, expected.visits)):
            missing, surplus = set(wanted) - set(stated), set(stated) - set(wanted)
            assert not missing, f"{name}: {len(missing)} missing {list(missing)[:3]}"
            assert not surplus, f"{name}: {len(surplus)} too many {list(surplus)[:3]}"
            assert len(stated) == len(wanted), f"{name}: {len(stated)} stated, {len(wanted)} expected"
        assert len(excursions) * workload.EXCURSION_EVERY >= expected.readings, "too few excursions for a fair figure"

    def processes(self) -> dict[str, psutil.Process]:
        """Every process of the system by a name: committer, doors, Ray's, the shards."""
        found = {process.name: psutil.Process(process.pid) for process in self.running.processes()}
        found |= {process.name: psutil.Process(process.pid) for process in self._heads}
        known = {process.pid for process in found.values()}
        below = {one.pid: one for one in psutil.Process().children(recursive=True) if one.pid not in known and not _is_client(one)}
        shards = {info["pid"]: info["shard"] for info in self.directory.ask_all("info")}
        for pid, process in below.items():
            found[f"shard {shards[pid]}" if pid in shards else f"ray {pid}"] = process
        return found

    def cpu_s(self) -> dict[str, float]:
        """Processor time that the processes of the system have used, by kind of process."""
        found: dict[str, float] = {}
        for name, process in self.processes().items():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            found[name.split()[0]] = found.get(name.split()[0], 0.0) + times.user + times.system
        return found

    def memory(self) -> dict[str, tuple[int, int]]:
        """(RSS, PSS) in bytes of all processes of the system, by kind of process. PSS counts shared memory once."""
        found: dict[str, tuple[int, int]] = {}
        for name, process in self.processes().items():
            try:
                info = process.memory_full_info()
            except psutil.NoSuchProcess:
                continue
            rss, pss = found.get(name.split()[0], (0, 0))
            found[name.split()[0]] = rss + info.rss, pss + info.pss
        return found

    def settled_memory(self) -> dict[str, tuple[int, int]]:
        """The memory when it has not moved by a percent for some seconds: snapshots are written, what they needed is given back."""
        before = self.memory()
        for _ in range(20):
            time.sleep(3)
            now = self.memory()
            total, total_before = (sum(rss for rss, _ in one.values()) for one in (now, before))
            if abs(total - total_before) < total_before / 100:
                return now
            before = now
        return before


def _is_client(process: psutil.Process) -> bool:
    """Whether it is one of the bench's own processes, or has just ended."""
    try:
        return any(word in ("bench.sender", "bench.paced") for word in process.cmdline())
    except psutil.NoSuchProcess:
        return True


@contextmanager
def started(work: Workload, riding: int | None = None, **given: Any) -> Iterator[System]:
    """A Waybill on a new SQLite database, on any free port, in a folder that goes away with it; further arguments are settings.

    The workload's tags ride on shipments with the profile and the fence from its start on: `riding` of them, default all.
    """
    with tempfile.TemporaryDirectory(prefix="waybill-bench-") as name:
        folder = Path(name)
        settings = load({}, data_dir=folder, port=0, ray_namespace="bench", log_level="WARNING", **{"queue_s": 3600.0, **given})
        ray_node.connect(settings)  # once for both
        heads = ray_node.head_processes()
        try:
            with boot.start(settings) as running:
                first = System(running, folder, heads)
                first.make_profile()
                first.make_shipments(work)
                shards = running.settings.shards or 1
            seed.assign(settings.url_text, shards, settings.ring_bytes, work, 0, work.tags if riding is None else riding)
            began = time.monotonic()
            with boot.start(settings) as running:
                system = System(running, folder, heads, began)
                system.assert_durable()
                yield system
        except BaseException:
            for log in sorted((folder / "logs").glob("*.log")):
                print(f"{log.name} ends with:\n{log.read_text(errors='replace')[-3000:]}", file=sys.stderr)
            raise
        finally:
            ray_node.disconnect(heads, [], 10)
