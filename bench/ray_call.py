"""What one call of a Ray actor costs the processors, whatever it carries: the price of every call from a door to a shard.

python -m bench.ray_call
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from typing import Any

import psutil
import ray

from cluster import ray_node
from cluster.settings import load

CALLS = 500
PAUSES_S = (0.0, 0.005, 0.03)


@ray.remote(max_concurrency=32)
class Nothing:
    """Does nothing, in a process of its own, as a shard's does."""

    def pid(self) -> int:
        """Of that process."""
        return os.getpid()

    def take(self, parts: bytes) -> bytes:
        """Half a kilobyte there, one byte back."""
        return parts[:1]


async def _calls(actor: Any, many: int, pause_s: float) -> None:
    for _ in range(many):
        await actor.take.remote(bytes(500))
        await asyncio.sleep(pause_s)


def _spent_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """One call after the other, with pauses."""
    with tempfile.TemporaryDirectory() as folder:
        ray_node.connect(load({}, data_dir=folder, port=0, ray_namespace="bench", log_level="WARNING"))
        heads = ray_node.head_processes()
        try:
            actor = Nothing.remote()  # type: ignore[attr-defined]
            processes = psutil.Process(ray.get(actor.pid.remote())), psutil.Process()
            asyncio.run(_calls(actor, 100, 0.0))
            for pause_s in PAUSES_S:
                before, began = [_spent_s(process) for process in processes], time.monotonic()
                asyncio.run(_calls(actor, CALLS, pause_s))
                took_s = time.monotonic() - began
                there, here = ((_spent_s(process) - was) / CALLS * 1e3 for process, was in zip(processes, before, strict=True))
                print(
                    f"{1e3 * pause_s:4.0f} ms between calls: {there:.1f} ms of processor in the actor's process, {here:.1f} ms in the"
                    f" caller's, {1e3 * (took_s / CALLS - pause_s):.1f} ms until the answer"
                )
        finally:
            ray_node.disconnect(heads, [], 10)


if __name__ == "__main__":
    main()
