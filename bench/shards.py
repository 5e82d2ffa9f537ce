"""How judging and committing grow with the shards: columns that are dealt to their shards beforehand, and the same through gRPC."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.part import Part, pack
from actors.rules.readings import ACCEPTED, DUPLICATE, Batch
from bench.clients import Clients
from bench.ingest import SIZE, TAGS, checked, new_workload, row
from bench.system import System, started
from bench.workload import Workload, deliver
from services.lines import Lines
from services.tag_ids import TagIds, shards_of

ONE, MANY = 1, 4
CALL = 12
"""Minutes of a gateway in one call, dealt out: 15,000 readings for one shard, a quarter for each of four."""
TOGETHER = {ONE: 1, MANY: 4}
"""So many gateways go into a call, that a shard gets the same number of readings whatever their number."""
IN_FLIGHT = 4
"""Calls without an answer at each shard."""


@dataclass(frozen=True)
class _Sent:
    """As bench.clients.Sent, of calls to shards."""

    readings: int
    late: int
    copies: int
    seconds: float
    waits_s: list[float]

    @property
    def duplicate(self) -> int:
        return self.copies

    @property
    def per_second(self) -> float:
        return self.readings / self.seconds


def _dealt(ids: list[str], batch: Batch, shards: int) -> list[Part]:
    """A delivery's readings by shard."""
    shard_of_tag = shards_of(TagIds.of(ids), shards)
    parts = []
    for shard in range(shards):
        rows = np.flatnonzero(shard_of_tag[batch.tag] == shard)
        tags, tag = np.unique(batch.tag[rows], return_inverse=True)
        values = np.ascontiguousarray(batch.values[:, rows])
        part = Batch(tag.astype(np.int32), batch.sensed_us[rows], batch.boot[rows], batch.sequence[rows], batch.codes, values)
        parts.append(Part("\n".join(ids[at] for at in tags.tolist()).encode(), part))
    return parts


def _direct(system: System, work: Workload, first: int, until: int, shards: int) -> _Sent:
    """Give every shard its calls, IN_FLIGHT at a time; how fast all were durable and judged."""
    calls: list[list[bytes]] = [[] for _ in range(shards)]
    readings = late = copies = 0
    for at in range(first, until, CALL):
        values = work.values(at, min(until, at + CALL))
        for gateway in range(0, work.gateways, TOGETHER[shards]):
            made = []
            for one in range(gateway, gateway + TOGETHER[shards]):
                delivery = deliver(work, one, at, min(until, at + CALL), values)
                made.append(_dealt(delivery.tag_ids, delivery.batch, shards))
                readings, late, copies = readings + len(delivery.batch), late + delivery.late, copies + delivery.copies
            for shard in range(shards):
                calls[shard].append(pack([parts[shard] for parts in made]))
    waits: list[float] = []
    accepted = duplicate = 0

    async def give(lines: Lines, shard: int) -> None:
        nonlocal accepted, duplicate
        while calls[shard]:
            since = time.monotonic()
            for reply in await lines.call(shard, "ingest", calls[shard].pop(0), time.time_ns() // 1000):
                accepted += int(np.count_nonzero(reply.status == ACCEPTED))
                duplicate += int(np.count_nonzero(reply.status == DUPLICATE))
            waits.append(time.monotonic() - since)

    async def give_all() -> float:
        lines = Lines(system.directory)  # as a door on the shards' machine calls them
        begun = time.monotonic()
        await asyncio.gather(*(give(lines, shard) for shard in range(shards) for _ in range(IN_FLIGHT)))
        return time.monotonic() - begun

    seconds = asyncio.run(give_all())
    assert (accepted, duplicate) == (readings - copies, copies), (accepted, duplicate, readings, copies)
    return _Sent(readings, late, copies, seconds, waits)


def against_one(quick: bool) -> dict[str, Any]:
    """One shard and four: pre-routed columns, then the whole way through gRPC with 64 batches in flight."""
    repeats, minutes = (2, 48) if quick else (5, 240)
    warm = 24
    rows: list[dict[str, Any]] = []
    found = {}
    for shards in (ONE, MANY):
        work = new_workload(TAGS, 2 * warm + 2 * repeats * minutes, 8)
        with started(work, shards=shards) as system:
            at, direct, through = 0, [], []
            _direct(system, work, at, at + warm, shards)
            at += warm
            for _ in range(repeats):
                direct.append(_direct(system, work, at, at + minutes, shards))
                at += minutes
            sending = {"processes": 1, "size": SIZE, "streams": 8, "window": 8, "connections": 8}
            with Clients(system.target, work, rows=False, **sending) as clients:
                clients.send(at, at + warm)
                at += warm
                for _ in range(repeats):
                    through.append(clients.send(at, at + minutes))
                    at += minutes
            wanted = checked(system, work, at)
        name = f"{shards} shard" + "s" * (shards > 1)
        found[shards] = [
            row(f"judge and commit, pre-routed columns, {name}", direct),
            row(f"columns through gRPC, 64 in flight, {name}", through),
        ]
        rows += found[shards]
    for one, many, what in zip(found[ONE], found[MANY], ("judge and commit", "through gRPC"), strict=True):
        ratio = many["median"] / one["median"]
        least, most = many["least"] / one["most"], many["most"] / one["least"]
        rows.append(
            {
                "label": f"{MANY} shards against {ONE}, {what}",
                "unit": "×",
                "repeats": [ratio],
                "median": ratio,
                "least": least,
                "most": most,
            }
        )
    return {"rows": rows, "excursions": len(wanted.excursions), "visits": len(wanted.visits), "tags": TAGS, "clients": 1}
