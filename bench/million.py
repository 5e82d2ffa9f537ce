"""A million tags: how soon a start from snapshots acknowledges, how readings/s compare with a thousand tags, what a quiet fleet costs.

All tags ride on shipments with three limits and a geofence. The quiet fleet reports once a minute: 16,667 readings/s in messages of 166.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from typing import Any

from bench.clients import Clients
from bench.ingest import checked, new_workload, percentile, row, spent
from bench.paced import Pace
from bench.system import System, started
from bench.workload import Workload

FEW, MANY, MANY_QUICK = 1_000, 1_000_000, 100_000
PER_GATEWAY, PER_SHIPMENT = 10_000, 1_000
READINGS, WARM, REPEATS = 2_000_000, 1_000_000, 3
QUIET_S = 40
IDLE_CORES, IDLE_S, SETTLING_S = 0.3, 3.0, 180.0


def _work(tags: int) -> Workload:
    minutes = -(-(REPEATS * READINGS + WARM) // tags)
    return replace(new_workload(tags, minutes, max(8, tags // PER_GATEWAY)), tags_per_shipment=min(PER_SHIPMENT, tags))


def _rate(system: System, work: Workload) -> list[Any]:
    """READINGS readings, REPEATS times, after WARM, 10,000 a batch, 64 in flight."""
    warm, minutes = WARM // work.tags, READINGS // work.tags
    with Clients(system.target, work, processes=1, size=10_000, rows=False, streams=8, window=8, connections=8) as clients:
        clients.send(0, warm)
        return [clients.send(warm + k * minutes, warm + (k + 1) * minutes) for k in range(REPEATS)]


def _cores(system: System, seconds: float) -> dict[str, float]:
    """Cores in use by kind of process over some seconds."""
    before, began = system.cpu_s(), time.monotonic()
    time.sleep(seconds)
    after, took_s = system.cpu_s(), time.monotonic() - began
    return {kind: round((after[kind] - before[kind]) / took_s, 3) for kind in after}


def _settle(system: System) -> dict[str, float]:
    """Return when what was sent is sorted and put into snapshots: the cores in use then."""
    deadline = time.monotonic() + SETTLING_S
    while sum((idle := _cores(system, IDLE_S)).values()) > IDLE_CORES and time.monotonic() < deadline:
        pass
    return idle


def _quiet(system: System, work: Workload) -> dict[str, Any]:
    """Cores in use by kind of process while each tag reports once a minute, after the readings of the workload, and how answers waited."""
    start_us = work.start_us + work.minutes * 60_000_000
    pace = Pace(system.target, work.tags, work.tags // 60, QUIET_S, 0.0, start_us, [], first_turn=work.minutes)
    sending = subprocess.Popen([sys.executable, "-m", "bench.paced", "send"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert sending.stdin is not None
    sending.stdin.write(json.dumps(asdict(pace)) + "\n")
    sending.stdin.flush()
    assert sending.stdout is not None
    sending.stdout.readline()  # all is encoded
    time.sleep(3)  # when it runs
    cores = _cores(system, QUIET_S - 5)
    told = json.loads(sending.communicate()[0])
    assert told["conflicting"] == told["refused"] == 0, told
    assert told["accepted"] >= 0.95 * pace.per_second * pace.seconds, told
    waits = {f"wait_p{share}_ms": 1000 * percentile(told["waits"], share) for share in (50, 99)}
    return {"cores": cores, **waits}


def _row(label: str, unit: str, value: float, **more: Any) -> dict[str, Any]:
    return {"label": label, "unit": unit, "repeats": [value], "median": value, "least": value, "most": value, **more}


def million(quick: bool) -> dict[str, Any]:
    """The start, the rate against that of a thousand tags, and the quiet fleet."""
    many = MANY_QUICK if quick else MANY
    few = _work(FEW)
    with started(few) as system:
        before = system.cpu_s()
        small = _rate(system, few)
        small_spent = spent(before, system.cpu_s(), small, WARM)
        checked(system, few, few.minutes)
    work = _work(many)
    with started(work) as system:
        start_s = system.first_acknowledged_s()
        before = system.cpu_s()
        large = _rate(system, work)
        large_spent = spent(before, system.cpu_s(), large, WARM)
        wanted = checked(system, work, work.minutes)
        idle = _settle(system)
        quiet = _quiet(system, work)
    cores = quiet.pop("cores")
    of_few = row(f"columns, {FEW:,} tags", small, cpu_s_a_million=small_spent)
    of_many = row(f"columns, {many:,} tags", large, cpu_s_a_million=large_spent)
    label = f"cores, {many:,} tags reporting once a minute ({many // 60:,} readings/s)"
    rows = [
        _row(f"start with {many:,} tags, from Ray ready to the first acknowledgement", "s", start_s),
        of_few,
        of_many,
        _row(f"readings/s at {many:,} tags against {FEW:,}", "×", of_many["median"] / of_few["median"]),
        _row(label, "cores", sum(cores.values()), by_process=cores, idle=sum(idle.values()), **quiet),
    ]
    return {"rows": rows, "excursions": len(wanted.excursions), "visits": len(wanted.visits), "tags": many, "clients": 1}
