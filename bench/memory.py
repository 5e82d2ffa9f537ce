"""What a tag costs in memory: (RSS of all processes at a million tags - at a thousand) / 999,000."""

from __future__ import annotations

from statistics import median
from typing import Any

from bench.clients import Clients
from bench.ingest import new_workload
from bench.system import started
from bench.workload import Workload

MINUTES = 3
PER_SHIPMENT = 1_000
FEW = 1_000


def _measure(tags: int) -> tuple[int, int]:
    """(RSS, PSS) of a system whose tags all ride on shipments and have sent readings; it is asked when nothing is going on."""
    work = new_workload(tags, MINUTES, 8)
    work = Workload(tags, MINUTES, work.start_us, 8, tags_per_shipment=min(PER_SHIPMENT, tags))
    with started(work, ring_bytes=1 << 20) as system:
        with Clients(system.target, work, processes=1, size=10_000, rows=False, streams=8, window=2, connections=8) as clients:
            for minute in range(MINUTES):
                clients.send(minute, minute + 1)
        return system.settled_memory()


def per_tag(quick: bool) -> dict[str, Any]:
    """Tags on shipments with three limits and a geofence, each with readings; the ring of recent readings at its least in both."""
    many = 100_000 if quick else 1_000_000
    pairs = [(_measure(FEW), _measure(many)) for _ in range(1 if quick else 2)]
    rss, pss = ([(after[k] - before[k]) / (many - FEW) for before, after in pairs] for k in (0, 1))
    row = {
        "label": f"memory of a tag: (RSS at {many:,} tags - at {FEW:,}) / {many - FEW:,}", "unit": "bytes", "repeats": rss,
        "median": median(rss),
        "least": min(rss), "most": max(rss), "pss_median": median(pss), "rss_at_few": pairs[0][0][0], "rss_at_many": pairs[0][1][0],
    }  # fmt: skip
    return {"rows": [row], "tags": many, "clients": 0}
