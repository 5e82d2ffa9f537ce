"""Ray on this machine, or a Ray cluster joined: started and ended without touching any other Ray.

Never `ray stop`: it ends every Ray of the machine. Token authentication stays on, as Ray's default is.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Collection, Sequence
from typing import Any

import grpc
import psutil
import ray

from cluster.processes import Recorded, StartError
from cluster.settings import Settings

log = logging.getLogger("waybill.ray")

HEAD_NAMES = ("ray gcs_server", "ray raylet")
"""Processes of a Ray head without which nothing goes on."""


PRELOADED = "actors.shard"
INLINE = {"RAY_max_direct_call_object_size": "1000000"}
TUNING = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ray would run its workers with the least priority but a few; the shards are no batch jobs.
    "RAY_worker_niceness": "0",
    # A call to a process that died is told so after this, not after a second.
    "RAY_timeout_ms_task_wait_for_death_info": "100",
    # A node that died is found in about four seconds, not in fifteen and more.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    # Arguments up to a megabyte go with the call. Past Ray's 100 kB they would go through the object store, which takes 2 ms more each.
    **INLINE,
    # Ray's workers have some thirty threads before our code runs; each would get a heap of its own (actors.journal.allocator).
    "MALLOC_ARENA_MAX": "2",
}
"""Ray's settings, where the environment does not give them. A cluster that is joined needs them where its head and nodes are started."""
SPARES = {
    # Worker processes load a shard's modules before they are needed, and one idle worker is kept (see `start_spare`).
    "RAY_preload_python_modules": PRELOADED,
    "RAY_num_workers_soft_limit": "1",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
}
SPARE_S = 10.0
JOIN_S = 5.0
JOINING = (
    "Is its head running? Is this machine one of its nodes (`ray start --address=HEAD:6379`; "
    "--num-cpus=0 --memory=0 for one with doors only)? "
    "Has it the head's token (RAY_AUTH_MODE=token and ~/.ray/auth_token, or RAY_AUTH_TOKEN)?"
)
"""What to look at when a cluster cannot be joined."""


def connect(settings: Settings) -> bool:
    """Make this process a Ray driver. True where this call started or joined a Ray, False where the process had one already."""
    if ray.is_initialized():
        return False
    for name, value in {**TUNING, **(SPARES if settings.spares else {})}.items():
        os.environ.setdefault(name, value)
    joined = bool(settings.ray_address)
    if joined:
        must_answer(settings.ray_address)
    try:
        ray.init(
            address=settings.ray_address or "local",
            namespace=settings.ray_namespace,
            include_dashboard=None if joined else False,
            object_store_memory=None if joined else settings.ray_object_store_bytes,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        if not joined:
            raise
        raise StartError(f"cannot join Ray at {settings.ray_address}: {error}\n{JOINING}") from error
    return True


def must_answer(address: str) -> None:
    """Raises StartError where nothing listens at HOST:PORT: Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        return  # "auto", which Ray looks up on this machine
    try:
        socket.create_connection((host.strip("[]"), int(port)), JOIN_S).close()
    except OSError as error:
        raise StartError(f"cannot join Ray at {address}: {error.strerror or error}\n{JOINING}") from None


def door_environment(settings: Settings) -> dict[str, str]:
    """What a process that starts before our own Ray needs to join it: that Ray will have token authentication on."""
    return {**INLINE, **({} if settings.ray_address else {"RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token")})}


def address() -> str:
    """Address at which other processes join the Ray of this driver."""
    found: str = ray.get_runtime_context().gcs_address
    return found


def start_spare(node_ids: Collection[str] | None = None) -> None:
    """Have each of some nodes (None: all) start a worker process that a shard can take at once when its own has died.

    It only makes a restart faster: where Ray refuses, shards start in new processes. Ray has no public way to ask for it.
    """
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import node_manager_pb2, node_manager_pb2_grpc, runtime_environment_pb2

    messages: Any = node_manager_pb2  # Ray's generated modules say nothing of their types
    stub: Any = node_manager_pb2_grpc.NodeManagerServiceStub
    environment: Any = runtime_environment_pb2
    nodes: Any = ray.nodes
    job_id = bytes.fromhex(ray.get_runtime_context().get_job_id())
    request = messages.PrestartWorkersRequest(
        num_workers=1, job_id=job_id, runtime_env_info=environment.RuntimeEnvInfo(serialized_runtime_env="{}")
    )
    for node in nodes():
        if not node["Alive"] or (node_ids is not None and node["NodeID"] not in node_ids):
            continue
        where = f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"
        try:
            with init_grpc_channel(where, [("grpc.enable_http_proxy", 0)]) as channel:
                stub(channel).PrestartWorkers(request, timeout=SPARE_S)
        except grpc.RpcError as error:
            log.warning("node %s keeps no spare process: %s", node["NodeID"], error)


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
    broken = not all(head.alive() for head in heads)
    if broken:
        for process in (*heads, *others):
            process.end(0, first=signal.SIGKILL)
    ray.shutdown()
    for process in (*heads, *others):
        process.end(timeout_s)
