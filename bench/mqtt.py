"""The ingest that users have today: one reading a message over MQTT through a real mosquitto, judged in plain Python, stored in SQLite."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import expected
from bench.environment import ROOT, python_of
from bench.ingest import new_workload
from bench.mosquitto import broker
from bench.peers import RULES, agree, rates_row
from bench.workload import Workload


def ingest(quick: bool) -> dict[str, Any]:
    """A publisher with 1,000 messages in flight, a broker, a consumer: readings in order, durable when they are acknowledged."""
    repeats, minutes = (1, 60) if quick else (3, 200)
    work = new_workload(200, minutes, 1)
    wanted = expected.judge(work)
    expected.against_reference(work, wanted, minutes)
    python = python_of("mqtt")
    rates = [_once(work, wanted, python) for _ in range(repeats)]
    return {
        "rows": [rates_row("MQTT (mosquitto), a reading a message, judged in plain Python, durable", rates)],
        "tags": work.tags,
        "clients": 1,
    }


def _once(work: Workload, wanted: expected.Expected, python: Path) -> float:
    """Readings a second from the first message published until the last is judged and stored."""
    values, at_us = work.values(0, work.minutes).tolist(), work.sensed_us(0, work.minutes).tolist()
    readings = [[tag, at, *values[minute][tag]] for minute, at in enumerate(at_us) for tag in range(work.tags)]
    with tempfile.TemporaryDirectory(prefix="waybill-bench-") as name, broker(Path(name)) as port:
        consumer = _end(python, "consume", port, {"many": len(readings), "rules": asdict(RULES), "database": f"{name}/readings.db"})
        publisher = _end(python, "publish", port, {"readings": readings})
        try:
            sent = json.loads(publisher.communicate("go\n", timeout=300)[0])
            taken = json.loads(consumer.communicate(timeout=300)[0])
        finally:
            for process in (consumer, publisher):
                process.kill()
                process.wait()
    found = [([tuple(one) for one in excursions], [tuple(one) for one in visits]) for excursions, visits in taken["results"]]
    agree(found, wanted)
    return len(readings) / float(taken["end"] - sent["start"])


def _end(python: Path, what: str, port: int, order: dict[str, Any]) -> subprocess.Popen[str]:
    """One end, ready."""
    command = [str(python), str(ROOT / "bench" / "mqtt_peer.py"), what, str(port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()
    if process.stdout.readline() != "ready\n":
        raise RuntimeError(f"the {what} end of MQTT did not start")
    return process
