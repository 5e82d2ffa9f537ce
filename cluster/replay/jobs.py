"""A replay as Ray tasks: one a part, retried where its worker or node dies, each result written once under its task's key.

A task reads its part, judges it and writes `tasks/PART.json` (with its differences and shipments) into the result's folder; what is there
already is not judged again, so a replay that is started again goes on where it was. Memory is bounded by a part, not by history.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import ray

from actors.rules.errors import FailedPrecondition, NotFound
from cluster.archive.filesystem import Place
from cluster.archive.reader import Part
from cluster.replay import arrival, compare, result, whatif
from cluster.replay.journeys import load, recorded
from cluster.replay.judge import Judging
from cluster.replay.result import Result

TASKS = "tasks"
ASKED = "asked.json"
"""What a replay that has not ended yet was asked."""
NICE = 10
"""Priority of what judges history, beside live readings and alerts, which have 0."""
TASK_RETRIES = 20
"""A part is judged again so often where its worker or node died; a part that kills its worker every time ends the replay."""
POLL_S = 0.5
DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a replay. kind: VERIFY, ARRIVAL or WHAT_IF. shipment_ids, months: empty: all. rules: of a what-if (whatif.py)."""

    kind: str
    shipment_ids: tuple[str, ...] = ()
    months: tuple[str, ...] = ()
    rules: Mapping[str, Any] = field(default_factory=dict)
    slow_s: float = 0.0
    """For tests: each task waits so long before it writes, so that it can be killed there."""

    def to_data(self) -> dict[str, Any]:
        """As result.json keeps it."""
        return {
            "kind": self.kind, "shipment_ids": list(self.shipment_ids), "months": list(self.months), "rules": dict(self.rules),
        }  # fmt: skip


class Cancelled(Exception):
    """Somebody asked to end the replay."""


def judge_part(row: Mapping[str, Any], request: Request, place: Place) -> dict[str, int]:
    """Replay one part; its counts. What was written before under this task's key stands."""
    part = Part.of(row)
    name = f"{TASKS}/{part.part_id}.json"
    if place.exists(name):
        counts: dict[str, int] = json.loads(place.read(name))["counts"]
        return counts
    only = frozenset(request.shipment_ids) or None
    if request.kind == result.ARRIVAL:
        found, shipments, counts = arrival.replay(part, only)
    else:
        found, shipments, counts = _judge(part, request, only)
    if request.slow_s:
        time.sleep(request.slow_s)
    body = {"counts": counts, "differences": found, "shipments": shipments}
    place.put(name, json.dumps(body, separators=(",", ":"), allow_nan=False).encode())  # a second task of this key puts the same
    return counts


def _judge(part: Part, request: Request, only: frozenset[str] | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, int]]:
    journeys = load(part, only)
    strays = compare.strays(journeys) if request.kind == result.VERIFY else []
    if not len(journeys.rides):
        shipments = compare.without_rides(journeys, strays)
        return strays, shipments, {"parts": 1, "shipments": len(shipments), "differences": len(strays)}
    names: list[str] = []
    rules = journeys.rules()
    what_if = request.kind == result.WHAT_IF
    asked = whatif.read(request.rules) if what_if else None
    other = rules if asked is None else journeys.rules(asked.plan, asked.settings)
    old, new = (Judging(one.book, one.carriers, names) for one in (rules, other))
    flags: list[dict[str, Any]] = []
    for low, high, columns in journeys.blocks(rules, other, flagged=not what_if):
        new.take(columns, journeys.ruled(other, low, high))
        if what_if:
            old.take(columns, journeys.ruled(rules, low, high))
        else:
            flags += compare.flags(journeys, low, high, columns, rules)
    after = new.judged()
    before = old.judged() if what_if else recorded(journeys, names)
    found = compare.differences(journeys, before, after, other, sums=request.kind == result.VERIFY)
    if request.kind == result.VERIFY:
        found = compare.in_order(found + strays + flags)
    shipments = compare.shipments(journeys, before, after, (rules, other), found)
    counts = {
        "parts": 1, "shipments": len(journeys.shipments), "custodies": len(journeys.rides), "readings": after.readings,
        "excursions": len(after.excursions), "visits": len(after.visits), "sums": len(after.sums), "differences": len(found),
    }  # fmt: skip
    for row in found:
        key = f"{row['subject']}.{row['change']}"
        counts[key] = counts.get(key, 0) + 1
    return found, shipments, counts


@ray.remote(max_retries=TASK_RETRIES, retry_exceptions=False)
def _task(row: Mapping[str, Any], request: Request, location: str) -> dict[str, int]:
    pa.set_cpu_count(1)
    # On a thread of its own: Ray may make a shard of this process afterwards, and nobody but root takes lower priority back.
    with ThreadPoolExecutor(1, initializer=give_way) as behind:
        return behind.submit(judge_part, row, request, Place.of(location)).result()


def give_way() -> None:
    """This thread computes when live readings do not: what replays history has time."""
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        mine = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, mine, max(NICE, os.getpriority(os.PRIO_PROCESS, mine)))


def chosen(parts: Sequence[Mapping[str, Any]], request: Request) -> list[Mapping[str, Any]]:
    """The parts that a request concerns, as far as the manifest tells."""
    return [part for part in parts if not request.months or part["month"] in request.months]


def run(
    replay_id: str, request: Request, parts: Sequence[Mapping[str, Any]], place: Place, *,
    progress: Callable[[int, int, Mapping[str, int]], None] | None = None, cancelled: Callable[[], bool] = lambda: False,
    tasks_at_once: int | None = None,
) -> Result:  # fmt: skip
    """Replay parts of an archive with the Ray that this process is connected to. Raises Cancelled.

    progress: told (parts done, parts in all, counts so far). A request that breaks a rule, or changes what no shipment has, raises
    InvalidArgument before anything starts.
    One that concerns no archived shipment, or goes where the answer to another one lies, raises FailedPrecondition; a shipment that is
    asked for and not there NotFound: that nothing differs is never said of nothing.
    """
    asked_rules = whatif.read(request.rules) if request.kind == result.WHAT_IF else None
    mine = chosen(parts, request)
    if not mine:
        raise FailedPrecondition("nothing is archived that this concerns", field="months", value=", ".join(request.months))
    asked = json.loads(json.dumps(request.to_data()))
    made = Result(replay_id, request.kind, started_us=now_us(), parameters=asked, versions=versions())
    there = result.read(place)[0] if place.exists(result.RESULT) else None
    known = there.parameters if there else json.loads(place.read(ASKED)) if place.exists(ASKED) else asked
    if known != asked:
        raise FailedPrecondition("holds the answer to another question: take another folder", field="folder", value=place.location)
    if there:
        return there
    if asked_rules is not None:
        whatif.must_be_there(asked_rules, map(Part.of, mine), frozenset(request.shipment_ids) or None)
    place.put(ASKED, json.dumps(asked).encode())
    counts: dict[str, int] = {"parts": 0, "shipments": 0, "custodies": 0, "readings": 0, "differences": 0}
    started = time.perf_counter()
    for done, part in enumerate(_in_parallel(mine, request, place, cancelled, tasks_at_once), 1):
        for name, number in part.items():
            counts[name] = counts.get(name, 0) + number
        if progress is not None:
            progress(done, len(mine), counts)
    differences, shipments = _gather(mine, place)
    missing = sorted(set(request.shipment_ids) - set(shipments.column("shipment_id").to_pylist()))
    if missing:
        raise NotFound("this shipment is not in the archive that is replayed", field="shipment_ids", value=missing[0])
    made.counts = counts
    made.summary = summary(request, differences, shipments)
    made.digest = result.digest_of(differences, shipments)
    made.elapsed_s = time.perf_counter() - started
    made.finished_us, made.state = now_us(), result.SUCCEEDED
    place.put(result.REPORT, _page(made, differences, shipments, mine))
    result.write(place, made, differences, shipments)
    place.remove_folder(TASKS)
    place.remove(ASKED)
    return made


def _page(made: Result, differences: pa.Table, shipments: pa.Table, parts: Sequence[Mapping[str, Any]]) -> bytes:
    """The report for people: HTML that needs nothing from elsewhere."""
    from cluster.reports import journeys, replay  # a task needs none of it

    rules = made.parameters["rules"] if made.kind == result.WHAT_IF else None
    shown = journeys.find(map(Part.of, parts), replay.to_plot(differences, shipments), rules)
    return replay.page(made, differences, shipments, shown)


def _in_parallel(
    parts: Sequence[Mapping[str, Any]], request: Request, place: Place, cancelled: Callable[[], bool], tasks_at_once: int | None
) -> Iterator[dict[str, int]]:
    """The counts of each part as they come; the largest parts first, so that no long one is left for the end."""
    waiting = sorted(parts, key=lambda part: (part["readings"], part["part_id"]))
    # One more than can run, so that a core that is free has work at once.
    at_once = tasks_at_once or 1 + max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]
    running: list[Any] = []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(_task.remote(waiting.pop(), request, place.location))
            done, running = ray.wait(running, num_returns=1, timeout=POLL_S)
            if cancelled():
                raise Cancelled
            for one in done:
                yield ray.get(one)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise cause if isinstance(cause, Exception) else error from None
    finally:
        for one in running:
            ray.cancel(one, force=True)


def _gather(parts: Sequence[Mapping[str, Any]], place: Place) -> tuple[pa.Table, pa.Table]:
    found: list[dict[str, Any]] = []
    shipments: list[dict[str, Any]] = []
    for part in parts:
        body = json.loads(place.read(f"{TASKS}/{part['part_id']}.json"))
        found += body["differences"]
        shipments += body["shipments"]
    found.sort(key=lambda row: (row["shipment_id"], row["tag_id"], row["custody_id"], row["subject"], row["name"]))
    shipments.sort(key=lambda row: str(row["shipment_id"]))
    return pa.Table.from_pylist(found, schema=result.DIFFERENCES), pa.Table.from_pylist(shipments, schema=result.SHIPMENTS)


def summary(request: Request, differences: pa.Table, shipments: pa.Table) -> dict[str, Any]:
    """What a person asks first; see Result."""
    if request.kind != result.WHAT_IF:
        return {"identical": differences.num_rows == 0}
    rows = shipments.to_pylist()
    changes: dict[str, int] = {}
    for row in rows:
        if row["before_verdict"] != row["after_verdict"]:
            key = f"{row['before_verdict']}>{row['after_verdict']}"
            changes[key] = changes.get(key, 0) + 1
    excursions = dict.fromkeys((result.APPEARED, result.VANISHED, result.CHANGED), 0)
    for subject, change in zip(differences.column("subject").to_pylist(), differences.column("change").to_pylist(), strict=True):
        if subject == result.EXCURSION:
            excursions[change] += 1
    firsts = [row["first_sensed_at"] for row in rows if row["first_sensed_at"] is not None]
    lasts = [row["last_sensed_at"] for row in rows if row["last_sensed_at"] is not None]
    days = max((max(lasts) - min(firsts)).total_seconds() / 86_400, 1.0) if firsts else 0.0
    alerts = {side: sum(row[f"{side}_alerts"] for row in rows) for side in ("before", "after")}
    return {
        "verdict_changes": changes,
        "shipments_changed": sum(changes.values()),
        "excursions": excursions,
        "lots_affected": sorted({lot for row in rows for lot in row["lots_affected"]}),
        "days": round(days, 3),
        "alerts": alerts,
        "alerts_per_day": {side: round(number / days, 6) if days else 0.0 for side, number in alerts.items()},
    }


def versions() -> dict[str, str]:
    """What the result was made by."""
    named = {name: version(name) for name in ("waybill", "numpy", "numba", "pyarrow", "ray")}
    return {**named, "python": platform.python_version(), "machine": f"{platform.machine()}, {os.cpu_count()} cores"}


def now_us() -> int:
    """Our clock."""
    return time.time_ns() // 1000
