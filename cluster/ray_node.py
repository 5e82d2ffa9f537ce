"""Ray on this machine, or a Ray cluster joined: started and ended without touching any other Ray.

Never `ray stop`: it ends every Ray of the machine. Token authentication stays on, as Ray's default is.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence

import psutil
import ray

from cluster.processes import Recorded
from cluster.settings import Settings

HEAD_PROCESSES = ("gcs_server", "raylet")
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
    found = []
    for child in psutil.Process().children():
        try:
            if child.name() in HEAD_PROCESSES:
                found.append(Recorded(f"ray {child.name()}", child.pid, child.create_time()))
        except psutil.NoSuchProcess:
            continue
    return found


def disconnect(heads: Sequence[Recorded], timeout_s: float) -> None:
    """Leave Ray; what this process started of it ends. A Ray that is broken is ended first: leaving it would wait for its dead parts."""
    if not all(head.alive() for head in heads):
        for head in heads:
            head.end(0, first=signal.SIGKILL)
    ray.shutdown()
    for head in heads:
        head.end(timeout_s)
