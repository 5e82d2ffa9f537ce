"""From the moment a reading is sent to the moment a subscriber has its alert, at a steady rate of readings."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from statistics import median
from typing import Any

from bench.ingest import new_workload, percentile
from bench.paced import COLD_C, Pace, cold_turns, reading_of
from bench.system import System, started
from bench.workload import COLD, COLD_BELOW_C, MINUTE_US
from tests.reference import exposure as plain

TAGS, PER_SHIPMENT = 10_000, 20
ENCODING_S = 20


def latency(quick: bool) -> dict[str, Any]:
    """At 10,000 and at 100,000 readings a second, an excursion at once for every 5,000 readings, each on a shipment of its own."""
    plans = ((10_000, 12, 60, 1), (100_000, 5, 100, 1)) if quick else ((10_000, 30, 200, 3), (100_000, 15, 300, 3))
    rows = []
    for per_second, seconds, probes, repeats in plans:
        label = f"send to alert at {per_second:,} readings/s"
        rows.append(_row(label, [_run(per_second, seconds, probes, seed) for seed in range(repeats)]))
    return {"rows": rows, "tags": TAGS, "clients": 2}


def _row(label: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    p50, p99 = [one["p50_ms"] for one in runs], [one["p99_ms"] for one in runs]
    return {
        "label": label, "unit": "ms", "repeats": p50, "median": median(p50), "least": min(p50), "most": max(p50),
        "p99_repeats": p99, "p99_median": median(p99), "alerts": sum(one["alerts"] for one in runs),
        "sent_behind_plan_p99_ms": max(one["behind_p99_ms"] for one in runs), "readings": sum(one["readings"] for one in runs),
        "answer_p50_ms": median(one["answer_p50_ms"] for one in runs), "answer_p99_ms": median(one["answer_p99_ms"] for one in runs),
    }  # fmt: skip


def _run(per_second: int, seconds: int, probes: int, seed: int) -> dict[str, Any]:
    work = replace(new_workload(TAGS, per_second * seconds // TAGS, 1), tags_per_shipment=PER_SHIPMENT, seed=seed)
    with started(work) as system:
        first = [number * PER_SHIPMENT for number in range(TAGS // PER_SHIPMENT)]
        chosen = first[:: len(first) // probes][:probes]
        pace = Pace(system.target, TAGS, per_second, seconds, time.time() + ENCODING_S, work.start_us, chosen)
        heard, watcher = _watch(system.target)
        try:
            answer = _ask([sys.executable, "-m", "bench.paced", "send"], json.dumps(asdict(pace)))
            deadline = time.monotonic() + 30
            while len(heard) < probes and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            watcher.terminate()
            watcher.wait()
        carriers = {f"shipment/bench-{probe // PER_SHIPMENT}": probe for probe in chosen}
        assert sorted(carrier for carrier, _ in heard) == sorted(carriers), f"{len(heard)} alerts heard, {probes} expected"
        total = pace.slots * pace.per_message * 10
        assert (answer["accepted"], answer["conflicting"], answer["refused"]) == (total, 0, 0), answer
        _check(system, pace)
    waits = sorted(1000 * (at - answer["written"][str(carriers[carrier])]) for carrier, at in heard)
    return {
        "p50_ms": percentile(waits, 50), "p99_ms": percentile(waits, 99), "alerts": len(waits),
        "behind_p99_ms": 1000 * percentile(answer["behind"], 99), "readings": total + answer["duplicate"],
        "answer_p50_ms": 1000 * percentile(answer["waits"], 50), "answer_p99_ms": 1000 * percentile(answer["waits"], 99),
    }  # fmt: skip


def _check(system: System, pace: Pace) -> None:
    """The excursions in the database are those that the reference finds in the probes' readings, and no others."""
    cold = cold_turns(pace)
    series: dict[int, list[tuple[int, float]]] = {probe: [] for probe in pace.probes}
    for gateway in range(10):
        for slot in range(pace.slots):
            tags, turns = reading_of(pace, gateway, slot)
            for tag, turn in zip(tags[::PER_SHIPMENT].tolist(), turns[::PER_SHIPMENT].tolist(), strict=True):
                if tag in series:
                    series[tag].append((pace.start_us + turn * MINUTE_US, COLD_C if cold[tag] == turn else 5.0))
    window = plain.Window(0, 1 << 61, plain.Limit(COLD_BELOW_C, direction=-1))
    wanted = [
        (probe, COLD, run.start_us, run.triggered_us, run.end_us)
        for probe, mine in series.items()
        for run in plain.judge(mine, [window], 0).excursions
    ]
    found, visits = system.found()
    assert not visits, f"{len(visits)} visits of a fence that no tag came near"
    assert sorted(found, key=str) == sorted(wanted, key=str), f"{len(found)} excursions stated, {len(wanted)} expected"


def _watch(target: str) -> tuple[list[tuple[str, float]], subprocess.Popen[str]]:
    """A subscriber process, and the list that its alerts go to as they come."""
    process = subprocess.Popen([sys.executable, "-m", "bench.paced", "watch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(target + "\n")
    process.stdin.flush()
    process.stdout.readline()
    heard: list[tuple[str, float]] = []
    output = process.stdout

    def listen() -> None:
        for line in output:
            carrier, at = json.loads(line)
            heard.append((carrier, at))

    threading.Thread(target=listen, daemon=True).start()
    return heard, process


def _ask(command: list[str], line: str) -> dict[str, Any]:
    done = subprocess.run(command, input=line + "\n", capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with code {done.returncode}:\n{done.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
