"""Ten times what it can bear: `python -m tests.faults.overload --seconds 300`, on a machine that does nothing else.

The server is held to one core, the load comes from the others. First the sustainable load is measured (what closed loops of few messages
get through), then how fast answers are at 80 % of it; then gateways offer ten times as much: their writing waits where the door does not
read, and they back off where they are refused; then they offer half of it again. Printed, with `--out` also as JSON: the memory of each
process during the overload (it must not grow by more than 20 % after the first minute, or after a fifth of a shorter run), the 99th
percentile of accepted messages (at most three times the normal one), and how long after the overload answers were as fast as before (at
most 30 s).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil

from actors.rules.readings import Batch
from cluster.client import INGEST, Client, encode_columns
from services.check import timestamp
from tests.faults.gateway import PROFILE_ID, asked_s, profile
from tests.faults.limits import LIMITS
from tests.faults.system import System, launched
from waybill.v1 import profile_pb2, shipment_pb2, tag_pb2, telemetry_pb2

ROWS = 500
"""Readings in a message."""
GATEWAYS = 16
TAGS = 20
"""Of each gateway. (A message has 25 readings of each. With more tags, to prepare them took longer than the load.)"""
FEW = 2
"""Messages in flight of a gateway that does not push."""
MANY = 32
SERVER_CORE = min(os.sched_getaffinity(0))
TIMES = 10
GROWTH, SLOWER, RECOVERED_S = 1.2, 3.0, 30.0
LONG_S, AFTER_S = 120.0, 45.0
"""From so many seconds of overload on a run is a long one; what comes after it is then looked at for so long."""
SAMPLE_S = 1.0
OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))


@dataclass
class Phase:
    """What one process of gateways saw: a row (time, seconds) for each accepted message, and counts. `held`: messages that could not be
    sent a second after they were due, for too many had no answer or their writing waited."""

    accepted: list[tuple[float, float]] = field(default_factory=list)
    refused: int = 0
    held: int = 0
    seconds: float = 0.0


class Message:
    """A message whose times and sequences are written over for each sending: readings are new each time, encoding costs nothing."""

    def __init__(self, gateway: int) -> None:
        n = ROWS
        self._sensed = np.arange(n, dtype=np.int64) + (gateway << 40) + (1 << 60)
        self._sequence = np.arange(n, dtype=np.int64) + (gateway << 40) + (1 << 61)
        tag = (np.arange(n) % TAGS).astype(np.int32)
        boot = np.full(n, time.time_ns() // 1_000_000_000, np.int64)
        values = 5.0 + np.sin(np.arange(n))[None, :]
        batch = Batch(tag, self._sensed, boot, self._sequence, (0,), np.ascontiguousarray(values))
        data = bytearray(encode_columns([f"overload-{gateway}-{one}" for one in range(TAGS)], batch))
        self._data = data
        self._at = [data.find(column.tobytes()) for column in (self._sensed, self._sequence)]
        assert min(self._at) > 0, "the columns are not laid out as they were"
        self._number = 0
        self._from_us = 0

    def next(self) -> bytes:
        """The bytes to send now."""
        n = ROWS
        self._from_us = max(self._from_us + n, time.time_ns() // 1000)  # a sensor's readings follow each other, however fast they are sent
        each = np.arange(n) // TAGS + self._number * (n // TAGS)  # and so do the numbers it gives them
        for at, column in ((self._at[0], self._from_us + np.arange(n)), (self._at[1], each)):
            self._data[at : at + 8 * n] = column.astype(np.int64).tobytes()
        self._number += 1
        return bytes(self._data)


async def _gateway(target: str, message: Message, window: int, per_s: float, until: float, phase: Phase) -> None:
    """Offer `per_s` messages a second (0: as many as the window lets through) until a monotonic time."""
    async with grpc.aio.insecure_channel(target, options=OPTIONS) as channel:
        open_call: Any = channel.stream_stream(
            INGEST, request_serializer=None, response_deserializer=telemetry_pb2.IngestResponse.FromString
        )
        call = open_call()
        sent: list[float] = []
        resume = [0.0]
        backoff = [0.05]
        freed = asyncio.Event()

        async def read() -> None:
            async for answer in call:
                now = time.monotonic()
                since = sent.pop(0)
                freed.set()
                if answer.HasField("error"):
                    phase.refused += 1
                    resume[0] = max(resume[0], now + max(asked_s(answer), backoff[0]) * (0.5 + np.random.random()))
                    backoff[0] = min(2 * backoff[0], 2.0)
                else:
                    backoff[0] = 0.05
                    phase.accepted.append((now, now - since))

        reader = asyncio.create_task(read())
        due = time.monotonic()
        while (now := time.monotonic()) < until:
            wait = max(resume[0] - now, due - now if per_s else 0.0)
            if wait > 0:
                await asyncio.sleep(min(wait, until - now))
                continue
            if len(sent) >= window:
                freed.clear()
                await freed.wait()
                continue
            due += 1.0 / per_s if per_s else 0.0
            if per_s and due < now - 1.0:  # what could not be sent for a second is kept by the gateway, and is no burst later
                due = now - 1.0
                phase.held += 1
            sent.append(time.monotonic())
            await call.write(message.next())
        await call.done_writing()
        await reader


def _process(target: str, gateways: list[int], pipe: Any) -> None:
    """A process of gateways: does the phases it is told."""
    os.sched_setaffinity(0, set(os.sched_getaffinity(0)) - {SERVER_CORE} or {SERVER_CORE})
    messages = {gateway: Message(gateway) for gateway in gateways}
    while (told := pipe.recv()) is not None:
        window, per_s, seconds = told
        phase = Phase()

        async def whole(phase: Phase = phase, window: int = window, per_s: float = per_s, seconds: float = seconds) -> None:
            until = time.monotonic() + seconds
            await asyncio.gather(*(_gateway(target, message, window, per_s, until, phase) for message in messages.values()))

        begun = time.monotonic()
        asyncio.run(whole())
        phase.seconds = time.monotonic() - begun
        pipe.send(phase)


def prepare(target: str) -> None:
    """The gateways' tags ride on shipments with limits, so that what is accepted is judged."""
    start = timestamp(time.time_ns() // 1000 - 3_600_000_000)
    with Client(target) as client:
        client.call(
            client.profiles.CreateProfile, profile_pb2.CreateProfileRequest(profile=profile(PROFILE_ID, LIMITS), request_id="profile")
        )
        for gateway in range(GATEWAYS):
            shipment_id = f"OVERLOAD-{gateway}"
            made = shipment_pb2.Shipment(shipment_id=shipment_id, profile_id=PROFILE_ID)
            client.call(client.shipments.CreateShipment, shipment_pb2.CreateShipmentRequest(shipment=made, request_id=shipment_id))
            for tag in range(TAGS):
                ride = shipment_pb2.AssignTagRequest(
                    shipment_id=shipment_id, tag_id=f"overload-{gateway}-{tag}", from_time=start, actor="overload"
                )
                client.call(client.shipments.AssignTag, ride)


def stored(target: str) -> int:
    """Readings that are accepted, as the tags' twins count them."""
    with Client(target) as client:
        asked = [tag_pb2.GetTagTwinRequest(tag_id=f"overload-{gateway}-{tag}") for gateway in range(GATEWAYS) for tag in range(TAGS)]
        return sum(client.call(client.tags.GetTagTwin, one).twin.counters.accepted for one in asked)


class Load:
    """All gateways, in some processes."""

    def __init__(self, target: str, processes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes = []
        self._processes = []
        for number in range(processes):
            here, there = context.Pipe()
            process = context.Process(target=_process, args=(target, list(range(number, GATEWAYS, processes)), there), daemon=True)
            process.start()
            self._pipes.append(here)
            self._processes.append(process)

    def run(self, window: int, readings_per_s: float, seconds: float) -> Phase:
        """One phase of all gateways: (0 readings a second: closed loops)."""
        for pipe in self._pipes:
            pipe.send((window, readings_per_s / ROWS / GATEWAYS, seconds))
        phases = [pipe.recv() for pipe in self._pipes]
        whole = Phase(seconds=max(phase.seconds for phase in phases))
        for phase in phases:
            whole.accepted += phase.accepted
            whole.refused += phase.refused
            whole.held += phase.held
        whole.accepted.sort()
        return whole

    def close(self) -> None:
        """End the processes."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(None)
            process.join(10)


class Memory(threading.Thread):
    """Resident memory of every process of the system, by the second."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self._root = psutil.Process(root)
        self._over = threading.Event()
        self.samples: dict[str, list[tuple[float, int]]] = {}

    def run(self) -> None:
        """Sample until stopped."""
        begun = time.monotonic()
        while not self._over.wait(SAMPLE_S):
            for process in [self._root, *self._root.children(recursive=True)]:
                try:
                    name = process.name() if "python" not in process.name() else " ".join(process.cmdline()[1:3])[-30:]
                    self.samples.setdefault(f"{name} {process.pid}", []).append((time.monotonic() - begun, process.memory_info().rss))
                except psutil.NoSuchProcess:
                    continue

    def stop(self) -> None:
        """No more."""
        self._over.set()
        self.join()

    def growth(self, after_s: float) -> dict[str, tuple[int, int]]:
        """By process: resident bytes when the first stretch was over, and the most after it."""
        found = {}
        for name, samples in self.samples.items():
            before = [rss for at, rss in samples if at <= after_s]
            rest = [rss for at, rss in samples if at > after_s]
            if before and rest:
                found[name] = max(before), max(rest)
        return found


def p99(phase: Phase) -> float:
    """Seconds."""
    return float(np.percentile([seconds for _, seconds in phase.accepted], 99)) if phase.accepted else float("nan")


def measure(system: System, root: int, seconds: float, calibrate_s: float, processes: int) -> dict[str, Any]:
    """All phases; the figures."""
    prepare(system.target)
    load = Load(system.target, processes)
    try:
        warm = load.run(FEW, 0, calibrate_s / 2)
        closed = load.run(FEW, 0, calibrate_s)
        sustainable = len(closed.accepted) * ROWS / closed.seconds
        normal = load.run(MANY, 0.8 * sustainable, calibrate_s)
        memory = Memory(root)
        memory.start()
        pushed = load.run(MANY, TIMES * sustainable, seconds)
        memory.stop()
        over = time.monotonic()
        after = load.run(MANY, 0.5 * sustainable, AFTER_S if seconds >= LONG_S else max(calibrate_s, 5.0))
    finally:
        load.close()
    usual = p99(normal)
    slow = [at - over for at, took in after.accepted if took > 3 * usual]
    growth = memory.growth(60.0 if seconds >= LONG_S else seconds / 5)
    worst = {name: round(most / before, 3) for name, (before, most) in growth.items()}
    facts = {
        "sustainable_readings_per_s": round(sustainable),
        "normal_p99_s": round(usual, 4),
        "normal_refused": normal.refused,
        "offered_times": TIMES,
        "overload_s": round(pushed.seconds, 1),
        "accepted_readings_per_s": round(len(pushed.accepted) * ROWS / pushed.seconds),
        "refused_messages": pushed.refused,
        "held_messages": pushed.held,
        "overload_p99_s": round(p99(pushed), 4),
        "recovered_after_s": round(max(slow, default=0.0), 1) if after.accepted else float("inf"),
        "acknowledged": sum(len(phase.accepted) for phase in (warm, closed, normal, pushed, after)) * ROWS,
        "stored": stored(system.target),
        "rss_mb": {name: [round(before / 1e6), round(most / 1e6)] for name, (before, most) in sorted(growth.items())},
        "largest_growth": max(worst.values(), default=0.0),
    }
    facts["met"] = {
        "memory": facts["largest_growth"] <= GROWTH,
        "p99": facts["overload_p99_s"] <= SLOWER * facts["normal_p99_s"],
        "recovery": facts["recovered_after_s"] <= RECOVERED_S,
        "overloaded": pushed.refused + pushed.held > 0 and normal.held == 0,
        "stored": facts["stored"] == facts["acknowledged"],
    }
    return facts


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0, help="of overload")
    parser.add_argument("--calibrate", type=float, default=10.0, help="seconds of each measurement before it")
    parser.add_argument("--processes", type=int, default=2, help="of gateways")
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="waybill-overload-"))
    try:
        with launched(folder, {"shards": 1, "spares": False, "tick_s": 5.0}, core=SERVER_CORE) as system:
            facts = measure(system, system.pid, options.seconds, options.calibrate, options.processes)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for name, value in facts.items():
        print(f"{name}: {value}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(facts, indent=1))
    return 0 if all(facts["met"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
