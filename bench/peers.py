"""The same readings judged by others, in the same run: one Ray actor a tag, a plain Python loop, and our kernels alone on one core."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import ray

from actors.rules import exposure, geofence, readings
from actors.rules.readings import LATITUDE, LONGITUDE, Batch
from bench import expected, workload
from bench.expected import Excursion, Visit
from bench.ingest import new_workload
from bench.plain_tag import PlainTag, Rules
from bench.workload import CENTER, COLD, RADIUS_M, TOTAL, WARM, Workload, deliver
from cluster import ray_node
from cluster.settings import load

FEW_TAGS = 20


RULES = Rules(
    WARM, COLD, TOTAL, workload.WARM_ABOVE_C, workload.WARM_CLEAR_C, workload.WARM_ALLOWANCE_US, workload.COLD_BELOW_C,
    workload.TOTAL_ALLOWANCE_US, CENTER, RADIUS_M,
)  # fmt: skip


@ray.remote(num_cpus=0)
class TagActor(PlainTag):
    """One Ray actor for one tag."""


def agree(results: list[tuple[list[Excursion], list[Visit]]], wanted: expected.Expected) -> None:
    """Raise AssertionError unless the results state exactly what is wanted."""
    excursions = [one for found, _ in results for one in found]
    visits = [one for _, found in results for one in found]
    assert sorted(excursions, key=str) == sorted(wanted.excursions, key=str), "the peer's excursions differ"
    assert sorted(visits, key=str) == sorted(wanted.visits, key=str), "the peer's visits differ"


def actors(quick: bool) -> dict[str, Any]:
    """20 Ray actors, one a tag, a call for each reading (1,000 in flight): readings in order, kept in memory only."""
    repeats, minutes = (2, 150) if quick else (5, 500)
    work = new_workload(FEW_TAGS, minutes, 1)
    wanted = expected.judge(work)
    expected.against_reference(work, wanted, minutes)
    values, at_us = work.values(0, minutes).tolist(), work.sensed_us(0, minutes).tolist()
    ray_node.connect(load({}))
    heads = ray_node.head_processes()
    rates = []
    try:
        for _ in range(repeats):
            handles: list[Any] = [TagActor.remote(tag, RULES) for tag in range(FEW_TAGS)]
            ray.get([handle.result.remote() for handle in handles])  # they are there
            start, waiting = time.perf_counter(), []
            for minute, at in enumerate(at_us):
                for tag, handle in enumerate(handles):
                    waiting.append(handle.read.remote(at, *values[minute][tag]))
                if len(waiting) > 1_000:
                    ray.get(waiting[:-500])
                    del waiting[:-500]
            ray.get(waiting)
            rates.append(FEW_TAGS * minutes / (time.perf_counter() - start))
            agree(ray.get([handle.result.remote() for handle in handles]), wanted)
            for handle in handles:
                ray.kill(handle)
    finally:
        ray_node.disconnect(heads, [], 10)
    return {"rows": [rates_row("one Ray actor a tag, a call a reading, not durable", rates)], "tags": FEW_TAGS, "clients": 1}


def one_core(quick: bool) -> dict[str, Any]:
    """Judging alone, on one core, readings in order: a plain Python loop, and our compiled kernels (grouping, three limits, a fence)."""
    repeats = 2 if quick else 5
    small = new_workload(200, 300, 1)
    wanted = expected.judge(small)
    expected.against_reference(small, wanted, small.minutes)
    values, at_us = small.values(0, small.minutes).tolist(), small.sensed_us(0, small.minutes).tolist()
    python = []
    for _ in range(repeats):
        tags = [PlainTag(tag, RULES) for tag in range(small.tags)]
        start = time.perf_counter()
        for minute, at in enumerate(at_us):
            row = values[minute]
            for tag in tags:
                tag.read(at, *row[tag.tag])
        python.append(small.tags * small.minutes / (time.perf_counter() - start))
        agree([tag.result() for tag in tags], wanted)
    kernel = _timed_kernel(new_workload(10_000, 200, 1), repeats)
    return {
        "rows": [rates_row("plain Python loop, one core, not durable", python), rates_row("our kernels alone, one core", kernel)],
        "clients": 0,
    }


def _timed_kernel(work: Workload, repeats: int) -> list[float]:
    """Readings a second of grouping and judging batches of 10,000; confirmed runs and entries are counted against what is expected."""
    batches: list[Batch] = []
    ordered = deliver(work, 0, 0, work.minutes)
    rows = np.argsort(ordered.batch.sequence * work.tags + ordered.batch.tag, kind="stable")
    sorted_batch = readings.subset(ordered.batch, rows)
    first = np.ones(len(rows), np.bool_)
    first[1:] = (np.diff(sorted_batch.sequence) != 0) | (np.diff(sorted_batch.tag) != 0)
    whole = readings.subset(sorted_batch, first)
    batches = [readings.subset(whole, slice(at, at + 10_000)) for at in range(0, len(whole), 10_000)]
    wanted = expected.judge(work)
    rates = []
    for _ in range(repeats + 1):
        judge, count = kernel_of(work)
        start = time.perf_counter()
        for batch in batches:
            judge(batch)
        rates.append(len(whole) / (time.perf_counter() - start))
        assert count == [len(wanted.excursions), len(wanted.visits)] or not count, count
        assert tuple(count) == (len(wanted.excursions), len(wanted.visits)), (count, len(wanted.excursions), len(wanted.visits))
    return rates[1:]


def kernel_of(work: Workload) -> tuple[Callable[[Batch], None], list[int]]:
    """A function that judges a batch of the workload, and the counts of excursions and visits that it keeps."""
    hour = 3_600_000_000
    limits = np.zeros(3, exposure.LIMIT)
    for k, (direction, mode, threshold, clear, allowance_us) in enumerate(
        (
            (1, exposure.SINGLE, workload.WARM_ABOVE_C, workload.WARM_CLEAR_C, workload.WARM_ALLOWANCE_US),
            (-1, exposure.SINGLE, workload.COLD_BELOW_C, np.nan, 0),
            (1, exposure.CUMULATIVE, workload.WARM_ABOVE_C, np.nan, workload.TOTAL_ALLOWANCE_US),
        )
    ):
        limits[k]["direction"], limits[k]["mode"], limits[k]["threshold"], limits[k]["clear"] = direction, mode, threshold, clear
        limits[k]["allowance_us"], limits[k]["beyond"], limits[k]["max_gap_us"] = allowance_us, np.nan, hour
    windows = np.zeros(3, exposure.WINDOW)
    windows["until_us"], windows["limit"] = readings.FOREVER_US, np.arange(3)
    one = exposure.fresh([0, 0, 0], limits["mode"].tolist(), [0, 1, 2], [1, 1, 1], work.start_us, readings.FOREVER_US, [0, 0, 0])
    tracks = np.tile(one, work.tags)
    first, count = np.arange(0, 3 * work.tags, 3, dtype=np.int32), np.full(work.tags, 3, np.int32)
    table = geofence.FenceTable()
    fence = table.add(geofence.Fence.of("", "circle", {"center": list(CENTER), "radius_m": RADIUS_M}, 2, None))
    visits = np.tile(geofence.fresh([fence], work.start_us, readings.FOREVER_US), work.tags)
    visit_first, visit_count = np.arange(work.tags, dtype=np.int32), np.ones(work.tags, np.int32)
    scratch, found = readings.Scratch(), [0, 0]

    def judge(batch: Batch) -> None:
        groups = readings.group(batch.tag, batch.sensed_us, batch.boot, batch.sequence, work.tags, scratch)
        runs = exposure.advance(tracks, first, count, groups, batch.sensed_us, batch.codes, batch.values, windows, limits)
        column = dict(zip(batch.codes, batch.values, strict=True))
        events = geofence.advance(
            visits, visit_first, visit_count, groups, batch.sensed_us, column[LATITUDE], column[LONGITUDE],
            np.full(len(batch), np.nan), table,
        )  # fmt: skip
        found[0] += int((runs["kind"] == exposure.CONFIRMED).sum())
        found[1] += int((events["kind"] == geofence.ENTER).sum())

    return judge, found


def rates_row(label: str, rates: list[float]) -> dict[str, Any]:
    """A row of the results for rates in readings a second."""
    return {"label": label, "unit": "readings/s", "repeats": rates, "median": median(rates), "least": min(rates), "most": max(rates)}
