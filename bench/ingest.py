"""Readings a second from a gRPC client until each is durable and judged."""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import median
from typing import Any

from bench import expected
from bench.clients import Clients
from bench.system import System, started
from bench.workload import MINUTE_US, Workload

SIZE = 10_000
TAGS = 10_000
DOORS = 2
"""WAYBILL_DOORS, as docs/operations.md advises where there are four cores. One door takes as much as one core decodes."""


def new_workload(tags: int, minutes: int, gateways: int) -> Workload:
    """A workload that ends shortly before now, for readings from the future are judged later."""
    start_us = (time.time_ns() // 1000 - (minutes + 30) * MINUTE_US) // MINUTE_US * MINUTE_US
    return Workload(tags, minutes, start_us, gateways)


def checked(system: System, work: Workload, minutes: int) -> expected.Expected:
    """What was expected of the first minutes of the workload, when the reference agrees and the database states exactly that."""
    wanted = expected.judge(work, minutes)
    expected.against_reference(work, wanted, minutes)
    system.check(wanted)
    return wanted


def percentile(ordered: list[float], share: int) -> float:
    """The value that `share` percent of an ascending list lie below.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 50)
    3.0
    """
    return ordered[min(len(ordered) - 1, len(ordered) * share // 100)]


def spent(before: dict[str, float], after: dict[str, float], sent: list[Any], others: int = 0) -> dict[str, float]:
    """Processor seconds for a million readings by kind of process; what goes on in the background meanwhile is part of it.

    others: further readings that came in the time.
    """
    millions = (sum(one.readings for one in sent) + others) / 1e6
    return {kind: round((after[kind] - before.get(kind, 0.0)) / millions, 3) for kind in after}


def row(label: str, sent: list[Any], **more: Any) -> dict[str, Any]:
    """A row of the results: every repeat, their median and spread, and how long a message waited for its answer."""
    rates = [one.per_second for one in sent]
    waits = sorted(wait for one in sent for wait in one.waits_s)
    return {
        "label": label,
        "unit": "readings/s",
        "repeats": rates,
        "median": median(rates),
        "least": min(rates),
        "most": max(rates),
        "wait_p50_ms": 1000 * percentile(waits, 50),
        "wait_p99_ms": 1000 * percentile(waits, 99),
        "readings": sum(one.readings for one in sent),
        "late": sum(one.late for one in sent),
        "duplicate": sum(one.duplicate for one in sent),
        **more,
    }


def _facts(wanted: expected.Expected, tags: int, clients: int) -> dict[str, int]:
    return {"excursions": len(wanted.excursions), "visits": len(wanted.visits), "tags": tags, "clients": clients, "doors": DOORS}


def columns(quick: bool) -> dict[str, Any]:
    """Columns: batches of 10,000 readings of 10,000 tags behind 8 gateways, 1 and 64 in flight."""
    repeats, alone, many = (2, 40, 80) if quick else (5, 60, 480)  # minutes of readings in a repeat, of 10,000 each
    warm = 16
    work = new_workload(TAGS, 2 * warm + repeats * (alone + many), 8)
    with started(work, doors=DOORS) as system:
        at, rows = 0, []
        for streams, window, minutes in ((1, 1, alone), (8, 8, many)):
            sending = {"processes": 1, "size": SIZE, "streams": streams, "window": window, "connections": streams}
            with Clients(system.target, work, rows=False, **sending) as clients:
                clients.send(at, at + warm)
                at += warm
                sent, before = [], system.cpu_s()
                for _ in range(repeats):
                    sent.append(clients.send(at, at + minutes))
                    at += minutes
                cost = spent(before, system.cpu_s(), sent)
            rows.append(row(f"columns, 10,000 a batch, {streams * window} in flight", sent, cpu_s_a_million=cost))
        wanted = checked(system, work, at)
    return {"rows": rows, **_facts(wanted, TAGS, 1)}


def small_gateways(quick: bool) -> dict[str, Any]:
    """Rows: 1,000 gateways of 10 tags each, 100 readings a message, one message in flight at each gateway."""
    repeats, minutes, gateways = (2, 20, 200) if quick else (5, 40, 1_000)
    warm = 10
    work = new_workload(10 * gateways, warm + repeats * minutes, gateways)
    with started(work, doors=DOORS) as system:
        with Clients(system.target, work, processes=2, size=100, rows=True, streams=gateways, window=1, connections=4) as clients:
            clients.send(0, warm)
            before = system.cpu_s()
            sent = [clients.send(warm + k * minutes, warm + (k + 1) * minutes) for k in range(repeats)]
            cost = spent(before, system.cpu_s(), sent)
        wanted = checked(system, work, work.minutes)
    rows = [row(f"rows, 100 a message, {gateways:,} gateways with 1 in flight each", sent, cpu_s_a_million=cost)]
    return {"rows": rows, **_facts(wanted, work.tags, 2)}


def single_readings(quick: bool) -> dict[str, Any]:
    """One reading a call: 64 callers, each with a tag of its own and one call at a time."""
    repeats, minutes, callers = (2, 100, 64) if quick else (5, 200, 64)
    warm = 50
    work = replace(new_workload(callers, warm + repeats * minutes, callers), seed=3)  # so few readings: a seed with excursions enough
    with started(work, doors=DOORS) as system:
        sending = {"processes": 2, "size": 1, "streams": callers, "window": 1, "connections": 4}
        with Clients(system.target, work, rows=True, unary=True, **sending) as clients:
            clients.send(0, warm)
            before = system.cpu_s()
            sent = [clients.send(warm + k * minutes, warm + (k + 1) * minutes) for k in range(repeats)]
            cost = spent(before, system.cpu_s(), sent)
        wanted = checked(system, work, work.minutes)
    rows = [row(f"one reading a call, {callers} callers", sent, cpu_s_a_million=cost)]
    return {"rows": rows, **_facts(wanted, work.tags, 2)}
