"""2,000 items, 1,000 mixed movements on both sides, 54 kills of the connector, of Tryton and of every part of Waybill (make test-long).

Prints what it saw and leaves it in build/erp-long.json.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from actors.journal import delivery
from cluster.processes import read_record
from tests.erp.people import Clerk, Storeman
from tests.erp.test_in_step import ZONES
from tests.erp.tryton_server import TrytonServer, tryton
from tests.erp.world import Outside, settled, until

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
ITEMS, MOVEMENTS, KILLS = 2_000, 1_000, 54
DELAY_S = 60.0
"""Within so long after the last of the work and of the kills the books must be one."""

BUSY = 5
"""So many messages should be on their way when something is killed."""

KINDS = ("connector", "tryton", "connector", "committer", "tryton", "connector", "door", "tryton", "connector", "waybill")


class Up:
    """`waybill up` as a process that can be killed."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.target = f"127.0.0.1:{self.port}"
        self.folder = folder
        told = {"DATA_DIR": folder / "data", "PORT": self.port, "SHARDS": 2}
        self._environment = {**os.environ, **{f"WAYBILL_{name}": str(value) for name, value in told.items()}}
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"sqlite:///{folder / 'data' / 'waybill.db'}"

    def start(self) -> None:
        with open(self.folder / "up.log", "ab") as log:
            command = [sys.executable, "-m", "cluster.cli", "up"]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environment, cwd=ROOT, start_new_session=True)

    def kill(self) -> None:
        """The supervisor alone: its successor ends what it leaves behind."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()

    def end(self, name: str) -> bool:
        """SIGKILL a part by its recorded name; whether it was there."""
        for process in read_record(self.folder / "data" / "processes.json"):
            if process.name.startswith(name) and process.alive():
                os.kill(process.pid, signal.SIGKILL)
                return True
        return False


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrytonServer]:
    with tryton(tmp_path_factory.mktemp("tryton"), ITEMS) as running:
        yield running


@pytest.fixture
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    system = Up(tmp_path_factory.mktemp("up"))
    system.start()
    yield system
    system.stop()


@pytest.fixture
def outside(up: Up, server: TrytonServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """Started again at once by the test: `waybill up` would wait longer after each death, and there are many."""
    until(lambda: grpc_serves(up.target), 180, "a Waybill")
    process = Outside(tmp_path_factory.mktemp("outside"), up.url, up.target, server, poll_s=1.0)
    process.start()
    yield process
    process.close()


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_the_books_are_one_after_a_thousand_movements_and_fifty_kills(up: Up, outside: Outside, server: TrytonServer) -> None:
    begun = time.monotonic()
    lots = [(f"V{number:04d}", f"L{number:04d}A") for number in range(ITEMS)]
    until(lambda: bool((quietly(outside.status) or {}).get("told")), 300, "the first sync")
    first_s = time.monotonic() - begun
    verdict, _ = settled(server, up.target, 60)
    assert verdict.clean, verdict
    assert verdict.lines == ITEMS * 3 // 2

    def counts() -> dict[str, int]:
        return quietly(outside.counts) or {}

    def pending() -> int:
        return counts().get(delivery.PENDING, 0)

    storeman, clerk = Storeman(up.target, 21, ZONES, lots), Clerk(server.url, 22)
    failed: list[BaseException] = []
    chance, kills, delivered = random.Random(23), Counter[str](), 0

    def work(act: Callable[[], bool]) -> None:
        """A share of the movements, spread over the kills: as fast as they come, so that the run says the same on any machine."""
        try:
            taken = 0
            while taken < MOVEMENTS // 2:
                if taken * KILLS <= (sum(kills.values()) + 2) * MOVEMENTS // 2:
                    taken += act()
                time.sleep(0.1)
        except BaseException as error:
            failed.append(error)

    people = [threading.Thread(target=work, args=(person.act,)) for person in (storeman, clerk)]
    for person in people:
        person.start()
    while sum(kills.values()) < KILLS and not failed:
        kind = KINDS[sum(kills.values()) % len(KINDS)]
        # At work, not on its way up: something was delivered since the last kill, and something is to be delivered.
        until(
            lambda seen=delivered: at_work(counts(), seen) or keep_busy(pending(), storeman),
            180,
            "a connector at work with a message in flight",
        )
        time.sleep(chance.random() * 0.3)
        if not pending():
            continue
        delivered = counts().get(delivery.DELIVERED, 0)
        if kind == "connector":
            outside.kill()
            outside.start()
        elif kind == "tryton":
            server.kill()
            time.sleep(chance.random())
            server.start()
        elif kind == "waybill":
            up.kill()
            up.start()
        elif not up.end(kind):
            time.sleep(0.5)
            continue
        kills[kind] += 1
        print(f"kill {sum(kills.values())} {kind}, {pending()} in flight, {time.monotonic() - begun:.0f} s", flush=True)
    for person in people:
        person.join()
    assert not failed, failed
    verdict, took_s = settled(server, up.target, DELAY_S)
    told = {
        "items": ITEMS, "first_sync_s": round(first_s, 1), "waybill": dict(storeman.did), "tryton": dict(clerk.did), "kills": dict(kills),
        "one_after_s": round(took_s, 1), "verdict": str(verdict), "whole_s": round(time.monotonic() - begun),
    }  # fmt: skip
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "erp-long.json").write_text(json.dumps(told, indent=1))
    print(json.dumps(told, indent=1))
    storeman.close()
    assert verdict.clean, verdict
    assert sum(kills.values()) >= 50


def at_work(counts: dict[str, int], before: int) -> bool:
    """Whether messages wait, and some were delivered since there were so many of them."""
    return counts.get(delivery.PENDING, 0) > 0 and counts.get(delivery.DELIVERED, 0) > before


def keep_busy(pending: int, storeman: Storeman) -> bool:
    """More work where there is nothing left that a kill could meet on its way."""
    if pending < BUSY:
        storeman.act()
    return False


def grpc_serves(target: str) -> bool:
    """Whether a door answers there."""
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def quietly(look: Callable[[], T]) -> T | None:
    """What a look at the database gives; None while it is away."""
    try:
        return look()
    except Exception:
        return None
