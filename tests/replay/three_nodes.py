"""A replay on a Ray cluster of three nodes on this machine, of which one is killed in the middle. Prints the digest and what was killed.

python -m tests.replay.three_nodes FOLDER none|worker|node
"""

from __future__ import annotations

import json
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.cluster_utils import Cluster

from cluster.archive.filesystem import Place
from cluster.replay import jobs, result
from cluster.replay.jobs import Request
from tests.replay.made import profile, simulate, write
from tests.replay.test_whatif import ASKED, COLD, FENCE, TOTAL, WARM

PARTS = 8


def archive(folder: Path) -> list[dict[str, Any]]:
    """The archive that all replays of a test judge."""
    journeys = [simulate(random.Random(number), number) for number in range(80)]
    return write(Place.of(folder / "archive"), journeys, profile(60, WARM, COLD, TOTAL), (FENCE,), parts=PARTS)


def workers() -> list[psutil.Process]:
    """The processes below this one that run a replay's task now."""
    return [one for one in psutil.Process().children(recursive=True) if _name(one).startswith("ray::_task")]


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


def kill_a_worker(place: Place, killed: list[str]) -> None:
    """As soon as two parts are judged, SIGKILL a worker that is at another."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        written = sum(name.startswith(jobs.TASKS) for name, _ in place.ages())
        at_work = workers()
        if written >= 2 and at_work:
            at_work[0].send_signal(signal.SIGKILL)
            killed.append(f"worker after {written} parts")
            return
        time.sleep(0.02)


def main() -> None:
    """See the module."""
    folder, victim = Path(sys.argv[1]), sys.argv[2]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 << 20})
    others = [cluster.add_node(num_cpus=1, object_store_memory=80 << 20) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    killed: list[str] = []
    try:
        parts = archive(folder)
        place = Place.of(folder / f"result-{victim}")

        def strike() -> None:
            if victim == "worker":
                kill_a_worker(place, killed)
            elif victim == "node":
                while sum(name.startswith(jobs.TASKS) for name, _ in place.ages()) < 2:
                    time.sleep(0.05)
                cluster.remove_node(others[0], allow_graceful=False)
                killed.append("node")

        threading.Thread(target=strike, daemon=True).start()
        made = jobs.run("n", Request(result.WHAT_IF, rules=ASKED, slow_s=1.0), parts, place)
        print(json.dumps({"digest": made.digest, "counts": made.counts, "killed": killed}), flush=True)
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()
