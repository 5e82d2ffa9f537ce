"""Start a whole Waybill and end it: what `waybill up`, the tests and the benchmarks have in common.

Order of starting: database, committer (SQLite only), Ray, shards, doors. Ending goes the other way, so that each part can finish
what it has taken. Every process is known by pid and start time, and written to `processes.json` in the data folder, so that
a successor can end what a killed predecessor left behind.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import grpc
import psutil
import ray
from grpc_health.v1 import health_pb2, health_pb2_grpc

from actors.directory import shard_name
from actors.journal.committer import READY
from actors.shard import Shard, ShardConfig
from cluster import compiled, database, ray_node
from cluster.outside import outside_config, talks_outside
from cluster.processes import Recorded, StartError, read_record, spawn, tell, write_record
from cluster.settings import LOOPBACK, Settings, SettingsError
from services.replay import NAME as REPLAYS

log = logging.getLogger("waybill.boot")

POLL_S = 0.05
SHARD_BYTES = 1 << 20
"""What a shard asks for of a node's memory in a joined cluster, only to ask for something: actors that ask for nothing Ray puts on nodes
drawn by lot, whatever the strategy (2.60). A node started with `--memory=0` gets no shards."""

REPLAY_OPENER = "cluster.replay.runner:open_replays"
"""What a door has run in a worker when the first replay is asked for."""
SPARE_READY = "spare door ready, process"
"""What a spare door (services.door) prints when it may be called, with its pid; not imported, to start faster."""


@dataclass
class Running:
    """A running Waybill. `settings` are those in force: the number of shards and the port are filled in.

    `shards`: handles of those that this Waybill started (an actor lives no longer than its handles); in a joined cluster others may
    be served already.
    """

    settings: Settings
    ray_address: str
    shards: dict[int, Any] = field(default_factory=dict)
    committer: Recorded | None = None
    doors: dict[int, Recorded] = field(default_factory=dict)
    spare: Recorded | None = None
    outside: Recorded | None = None
    heads: list[Recorded] = field(default_factory=list)
    helpers: list[Recorded] = field(default_factory=list)
    owns_ray: bool = False
    lock: IO[str] | None = None
    reserved: socket.socket | None = None

    @property
    def target(self) -> str:
        """Where gRPC clients connect: host and port."""
        host = self.settings.host
        return f"[{host}]:{self.settings.port}" if ":" in host else f"{host}:{self.settings.port}"

    def processes(self) -> list[Recorded]:
        """The processes that are watched. The shards are Ray's, which watches them."""
        alone = [one for one in (self.committer, self.outside) if one is not None]
        return [*self.doors.values(), *alone, *self.heads]

    def everything(self) -> list[Recorded]:
        """All processes that this Waybill must end."""
        return [*self.processes(), *([self.spare] if self.spare else []), *self.helpers]

    def start_committer(self) -> None:
        """Start the one process that writes to the SQLite file; return when it takes commits."""
        self.launch_committer()()

    def launch_committer(self) -> Callable[[], None]:
        """Start the committer without waiting; what is returned waits until it takes commits."""
        log_file = _logs(self.settings, "committer")
        written = log_file.stat().st_size if log_file.exists() else 0
        arguments = ["--url", self.settings.url_text, "--parent", str(os.getpid())]
        self.committer = committer = spawn("committer", "actors.journal.committer", arguments, log_file, {})
        self.record()

        def ready() -> bool:
            return READY.encode() in log_file.read_bytes()[written:]

        return lambda: _wait(ready, "the committer", log_file, self.settings.start_timeout_s, [committer])

    def start_door(self, number: int) -> Recorded:
        """Start door process `number`; it shares the port with the others. A spare door that is ready takes the place at once."""
        spare, self.spare = self.spare, None
        if spare is not None and spare.alive() and self._spare_ready(spare):
            os.kill(spare.pid, signal.SIGUSR1)
            self.doors[number] = replace(spare, name=f"door {number}")
        else:
            if spare is not None:
                spare.end(0)
            self.launch_door(number)()
        self.record()
        return self.doors[number]

    def launch_door(self, number: int) -> Callable[[], None]:
        """Start door process `number`, which loads its modules; what is returned tells it where Ray is, so that it can serve."""
        log_file, environment = _logs(self.settings, f"door-{number}"), ray_node.door_environment(self.settings)
        self.doors[number] = door = spawn(f"door {number}", "services.door", [], log_file, environment, secret=None)
        return lambda: tell(door, json.dumps(door_config(self.settings, self.ray_address)))

    def start_spare(self) -> None:
        """Start a door that listens only when it is needed, where the settings ask for it and there is only one door."""
        if not self.settings.spares or self.settings.doors > 1 or (self.spare is not None and self.spare.alive()):
            return
        config = json.dumps({**door_config(self.settings, self.ray_address), "spare": True})
        log_file, environment = _logs(self.settings, "door-spare"), ray_node.door_environment(self.settings)
        self.spare = spawn("spare door", "services.door", [], log_file, environment, secret=config)
        self.record()

    def _spare_ready(self, spare: Recorded) -> bool:
        """Whether a spare door says that it may be called."""
        return f"{SPARE_READY} {spare.pid}\n".encode() in _logs(self.settings, "door-spare").read_bytes()

    def start_outside(self) -> None:
        """Start the process that delivers the outbox and keeps in step with the ERP, where the settings name somebody to talk to."""
        if not talks_outside(self.settings):
            return
        config = json.dumps(outside_config(self.settings, self.target))
        self.outside = spawn("outside", "services.erp.run", [], _logs(self.settings, "outside"), {}, secret=config)
        self.record()

    def wait_until_serving(self) -> None:
        """Return when the doors say that they serve. Raises StartError where a door ends or time runs out."""
        log_file = _logs(self.settings, "door-0")
        _wait(lambda: serving(self.settings), "the doors", log_file, self.settings.start_timeout_s, list(self.doors.values()))

    def record(self) -> None:
        """Write the processes down for a successor."""
        write_record(self.settings.data_dir / "processes.json", self.everything())

    def stop(self) -> None:
        """End everything that this Waybill started, doors first, so that nothing taken is lost. Can be called again."""
        patience = self.settings.stop_timeout_s
        if self.outside is not None:
            self.outside.end(patience)
        self.outside = None
        ray_serves = ray.is_initialized() and all(head.alive() for head in self.heads)
        for door in self.doors.values():  # without Ray a door can finish nothing
            door.end(patience, first=signal.SIGTERM if ray_serves else signal.SIGKILL)
        self.doors = {}
        if self.spare is not None:
            self.spare.end(0, first=signal.SIGKILL)  # it holds nothing
        self.spare = None
        keep = bool(self.settings.ray_address) and self.settings.keep_shards
        for number in self.shards if ray_serves and not keep else ():
            _end_actor(self.settings, shard_name(number))
        if ray_serves and self.shards and not self.settings.ray_address:
            _end_actor(self.settings, REPLAYS)
        self.shards = {}
        if self.owns_ray:
            ray_node.disconnect(self.heads, self.helpers, patience)
        self.heads, self.helpers, self.owns_ray = [], [], False
        if self.committer is not None:
            self.committer.end(patience)
        self.committer = None
        if self.reserved is not None:
            self.reserved.close()
        if self.lock is not None:
            self.record()
            self.lock.close()
        self.reserved = self.lock = None

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start(settings: Settings, *, say: Callable[[str], None] = log.info) -> Running:
    """Start a Waybill and return when its doors serve. `say` is told what is being done.

    Uses the Ray that this process is connected to where it is (and leaves it running at the end).
    Raises SettingsError, StartError; what had been started by then is ended.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    running = Running(settings, "", lock=_lock(settings))
    try:
        _end_leftovers(settings)
        say("preparing the database")
        count = database.prepare(settings)
        running.reserved, port = _reserve(settings)
        running.settings = settings = settings.model_copy(update={"shards": count, "port": port})
        committed = running.launch_committer() if settings.is_sqlite else None
        doors = [running.launch_door(number) for number in range(settings.doors)]
        compile_rules = compiled.start(say)
        say("starting Ray" if not settings.ray_address else f"joining Ray at {settings.ray_address}")
        others = {child.pid for child in psutil.Process().children(recursive=True)}
        running.owns_ray = ray_node.connect(settings)
        running.ray_address = ray_node.address()
        running.heads = ray_node.head_processes() if running.owns_ray else []
        running.record()
        if committed is not None:
            committed()
        compile_rules()
        say(f"starting {count} shards and {settings.doors} door{'s' if settings.doors > 1 else ''}")
        shards = [ensure_shard(running, number) for number in range(count)]
        for open_door in doors:  # a door finds the shards by name and waits until they serve
            open_door()
        _wait_for_shards(settings, shards)
        if running.owns_ray:
            running.helpers = [one for one in ray_node.helpers(others) if one.pid not in {part.pid for part in running.everything()}]
            running.record()
        running.wait_until_serving()
        running.start_outside()
        return running
    except BaseException:
        running.stop()
        raise


def door_config(settings: Settings, ray_address: str) -> dict[str, Any]:
    """What a door process is told, on its standard input."""
    return {
        "host": settings.host,
        "port": settings.port,
        "reuse_port": True,
        "shards": settings.shards,
        "ray_address": ray_address,
        "ray_namespace": settings.ray_namespace,
        "database_url": settings.url_text,
        "tls_cert": _absolute(settings.tls_cert),
        "tls_key": _absolute(settings.tls_key),
        "tls_client_ca": _absolute(settings.tls_client_ca),
        "reflection": settings.reflection,
        "auto_register": settings.auto_register,
        "report_key": _absolute(settings.signing_key),
        "archive": settings.archive_location,
        "replay_opener": REPLAY_OPENER,
        "gather_ms": settings.gather_ms,
        "in_flight_bytes": settings.in_flight_bytes,
        "queue_s": settings.queue_s,
        "unread_bytes": settings.unread_bytes,
        "log_level": settings.log_level,
    }


def serving(settings: Settings, timeout_s: float = 2.0) -> bool:
    """Whether the doors' health service says SERVING. With TLS: whether the port takes connections."""
    host = settings.host if settings.host in LOOPBACK else "127.0.0.1"
    if settings.tls_cert is not None:
        try:
            socket.create_connection((host, settings.port), timeout_s).close()
            return True
        except OSError:
            return False
    target = f"[{host}]:{settings.port}" if ":" in host else f"{host}:{settings.port}"
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def ensure_shard(running: Running, number: int) -> Any:
    """Handle of a shard's actor, which is made where there is none (or Ray has given it up for dead)."""
    settings = running.settings
    try:
        return ray.get_actor(shard_name(number), namespace=settings.ray_namespace)
    except ValueError:
        pass
    options: dict[str, Any] = {
        "name": shard_name(number),
        "namespace": settings.ray_namespace,
        "num_cpus": 0,  # the shards share the cores; a machine with fewer cores than shards still runs them all
        "max_restarts": -1,
        "max_task_retries": 0,  # Ray's retries lose the order of calls; the doors retry, and the journal recognises what is there
    }
    if settings.ray_address:
        options |= {"lifetime": "detached", "get_if_exists": True, "memory": SHARD_BYTES, "scheduling_strategy": "SPREAD"}
    made: Any = Shard  # what ray.remote makes of a class is not what the type checker sees
    handle = made.options(**options).remote(number, _shard_config(running))
    running.shards[number] = handle
    return handle


def end_shard(running: Running, number: int) -> None:
    """Have Ray end the process of a shard's actor, wherever it runs and though it be frozen, and start another."""
    try:
        ray.kill(ray.get_actor(shard_name(number), namespace=running.settings.ray_namespace), no_restart=False)
    except ValueError:
        ensure_shard(running, number)


def _shard_config(running: Running) -> ShardConfig:
    settings = running.settings
    return ShardConfig(
        database_url=settings.url_text,
        shards=settings.shards or 0,
        namespace=settings.ray_namespace,
        ring_bytes=settings.ring_bytes,
        snapshot_readings=settings.snapshot_readings,
        tick_s=settings.tick_s,
        heartbeat_s=settings.heartbeat_s,
        auto_register=settings.auto_register,
        silence_floor_s=settings.silence_floor_s,
    )


def _wait_for_shards(settings: Settings, shards: list[Any]) -> None:
    """Return when all shards serve. Raises StartError."""
    try:
        ray.get([shard.info.remote() for shard in shards], timeout=settings.start_timeout_s)
    except ray.exceptions.GetTimeoutError:
        raise StartError(f"the shards did not serve within {settings.start_timeout_s:g} s") from None
    except ray.exceptions.RayError as error:
        raise StartError(f"a shard did not start: {error}") from error


def _end_actor(settings: Settings, name: str) -> None:
    """Kill an actor for good. It needs no last word: what it acknowledged is in the database."""
    try:
        ray.kill(ray.get_actor(name, namespace=settings.ray_namespace), no_restart=True)
    except (ray.exceptions.RayError, ValueError) as error:
        log.debug("%s was gone already: %s", name, error)


def _wait(done: Callable[[], bool], what: str, log_file: Path, timeout_s: float, processes: list[Recorded]) -> None:
    """Return when `done`. Raises StartError, with the end of the log, where a process ends before or time runs out."""
    deadline = time.monotonic() + timeout_s
    while not done():
        ended = [process.pid for process in processes if not process.alive()]
        if ended or time.monotonic() > deadline:
            why = f"process {ended[0]} ended" if ended else f"not within {timeout_s:g} s"
            told = log_file.read_text(encoding="utf-8", errors="replace")[-1500:].strip() if log_file.exists() else ""
            raise StartError(f"{what} did not start: {why}; {log_file} ends with:\n{told}")
        time.sleep(POLL_S)


def _reserve(settings: Settings) -> tuple[socket.socket, int]:
    """Hold the port for the doors: nobody else may have it, and a free one is found where the setting is 0.

    A socket that only is bound gets no connections; those with SO_REUSEPORT of the same user may bind beside it.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    probe = socket.socket(family, socket.SOCK_STREAM)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((settings.host, settings.port))  # fails where a listener is there, reuse or not
        port: int = probe.getsockname()[1]
    except OSError as error:
        raise SettingsError(f"WAYBILL_PORT: cannot listen on {settings.host} port {settings.port}: {error.strerror}") from None
    finally:
        probe.close()
    held = socket.socket(family, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind((settings.host, port))
    return held, port


def _lock(settings: Settings) -> IO[str]:
    """The data folder's lock, held as long as the file is open: two Waybills in one folder would write one file."""
    file = open(settings.data_dir / "lock", "a+", encoding="utf-8")  # noqa: SIM115 (it stays open: that is the lock)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        owner = file.read().strip()
        file.close()
        raise SettingsError(f"WAYBILL_DATA_DIR: {settings.data_dir} is in use by process {owner}") from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _end_leftovers(settings: Settings) -> None:
    """End what a predecessor in this data folder left running: it held the lock, and the lock is ours now."""
    for process in read_record(settings.data_dir / "processes.json"):
        if process.alive():
            log.warning("ending %s (process %d), left over from a run that was killed", process.name, process.pid)
            process.end(settings.stop_timeout_s)


def _logs(settings: Settings, name: str) -> Path:
    folder = settings.data_dir / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.log"


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
