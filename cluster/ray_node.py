"""Ray on this machine, or a Ray cluster joined: started and ended without touching any other Ray.

Never `ray stop`: it ends every Ray of the machine. Token authentication stays on, as Ray's default is.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Collection, Sequence

import psutil
import ray

from cluster.processes import Recorded
from cluster.settings import Settings

HEAD_NAMES = ("ray gcs_server", "ray raylet")
"""Processes of a Ray head without which nothing goes on."""


def connect(settings: Settings) -> bool:
    """Make this process a Ray driver. True where this call started or joined a Ray, False where the process had one already."""
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    joined = bool(settings.ray_address)
    ray.init(
        address=settings.ray_address or "local",
        namespace=settings.ray_namespace,
        include_dashboard=None if joined else False,
        object_store_memory=None if joined else settings.ray_object_store_bytes,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    return True


def address() -> str:
    """Address at which other processes join the Ray of this driver."""
    found: str = ray.get_runtime_context().gcs_address
    return found


def head_processes() -> list[Recorded]:
    """The Ray head processes that this process started; none where it joined another's."""
    return [process for process in _descendants(recursive=False) if process.name in HEAD_NAMES]


def helpers(ours: Collection[int]) -> list[Recorded]:
    """Ray's other processes below this one (agents, monitors, workers); `ours`: pids that are not Ray's.

    Ray ends them with its head, but its agents outlive a raylet that was killed.
    """
    return [process for process in _descendants(recursive=True) if process.name not in HEAD_NAMES and process.pid not in ours]


def _descendants(*, recursive: bool) -> list[Recorded]:
    found = []
    for child in psutil.Process().children(recursive=recursive):
        try:
            found.append(Recorded(f"ray {child.name()}", child.pid, child.create_time()))
        except psutil.NoSuchProcess:
            continue
    return found


def disconnect(heads: Sequence[Recorded], others: Sequence[Recorded], timeout_s: float) -> None:
    """Leave Ray; what this process started of it ends. A Ray that is broken is ended first: leaving it would wait for its dead parts."""
    if not all(head.alive() for head in heads):
        for head in heads:
            head.end(0, first=signal.SIGKILL)
    ray.shutdown()
    for process in (*heads, *others):
        process.end(timeout_s)
