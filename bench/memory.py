"""What a tag costs in memory: (RSS of all processes at a million tags - at a thousand) / 999,000."""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from typing import Any

from bench.clients import Clients
from bench.ingest import new_workload
from bench.system import started

READINGS = 2_400_000
"""So many are sent at least in both cases, so that the rings of recent readings are full in both."""
MINUTES = 3
PER_SHIPMENT = 1_000
PER_GATEWAY = 10_000
FEW = 1_000
RING_BYTES = 16 << 20
"""Of each shard: so small that it turns in both cases, so large that a batch is a part of it."""


def _measure(tags: int) -> dict[str, tuple[int, int]]:
    """(RSS, PSS) by kind of process of a system whose tags all ride on shipments and have sent readings, when nothing goes on."""
    minutes = max(MINUTES, -(-READINGS // tags))
    gateways = max(8, tags // PER_GATEWAY)
    work = replace(new_workload(tags, minutes, gateways), tags_per_shipment=min(PER_SHIPMENT, tags))
    with started(work, ring_bytes=RING_BYTES) as system:
        with Clients(system.target, work, processes=1, size=10_000, rows=False, streams=8, window=2, connections=8) as clients:
            step = max(1, 500_000 // tags)
            for minute in range(0, minutes, step):
                clients.send(minute, min(minute + step, minutes))
        return system.settled_memory()


def _sum(memory: dict[str, tuple[int, int]], kind: int) -> int:
    return sum(one[kind] for one in memory.values())


def per_tag(quick: bool) -> dict[str, Any]:
    """Tags on shipments with three limits and a geofence, each with readings; the ring of recent readings small, and full in both."""
    many = 100_000 if quick else 1_000_000
    pairs = [(_measure(FEW), _measure(many))]  # once: at a million tags what varies is some tens of bytes
    rss, pss = ([(_sum(after, k) - _sum(before, k)) / (many - FEW) for before, after in pairs] for k in (0, 1))
    few, most = pairs[0]
    by_process = {name: round((most[name][0] - few[name][0]) / (many - FEW), 1) for name in most if name in few}
    row = {
        "label": f"memory of a tag: (RSS at {many:,} tags - at {FEW:,}) / {many - FEW:,}", "unit": "bytes", "repeats": rss,
        "median": median(rss),
        "least": min(rss), "most": max(rss), "pss_median": median(pss),
        "rss_at_few": _sum(few, 0), "rss_at_many": _sum(most, 0), "rss_by_process": by_process,
    }  # fmt: skip
    return {"rows": [row], "tags": many, "clients": 0}
