"""Replay of an archive: readings a second from Parquet with all rules, by workers and readings, and the same work by peers.

    python -m bench replay [--quick] [--data FOLDER]

The archive is made anew in every run, from seeds that no run before had; or it is in FOLDER from a run before (`python -m bench.replay_data
FOLDER` makes it, too), for making 100 million readings takes longer than judging them. A verify must find nothing to differ; the peers must
agree with it event for event on a stated prefix.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from bench import replay_data as data
from bench.environment import ROOT, python_of
from bench.peers import rates_row
from cluster import ray_node
from cluster.archive.filesystem import Place
from cluster.archive.reader import Part
from cluster.replay import jobs, result
from cluster.replay.jobs import Request
from cluster.replay.journeys import Journeys, Rules, load
from cluster.replay.judge import PASSED, Judged, Judging
from cluster.replay.rides import Columns, Rides
from cluster.settings import load as settings

PEERS = Path(__file__).with_name("replay_peers.py")
EXCURSION_EVERY = 5_000
"""There must be at least one excursion for so many readings."""
MOST_BYTES = 4 << 30
UNTIL_US = data.START_US + data.MINUTES * data.MINUTE_US


def replay(quick: bool, kept: Path | None = None) -> dict[str, Any]:
    """See the module. Quick: 8 million readings, small prefixes, one repeat. kept: a folder with the archive, or for it."""
    parts, repeats = (2, 1) if quick else (25, 3)
    ray_node.connect(settings({}, ray_object_store_bytes=128 << 20))
    heads = ray_node.head_processes()
    rows: list[dict[str, Any]] = []
    try:
        with tempfile.TemporaryDirectory(prefix="waybill-bench-") as folder:
            seed, archive = data.archive(kept or Path(folder) / "archive", parts)
            _enough(archive)
            _run(archive[:4], folder, 4, wait_s=10.0)  # all workers are there, kernels loaded
            for workers in (4, 2, 1):  # while all of them are there: Ray ends those that are idle
                for some in (archive[:3], archive) if not quick else (archive,):
                    rows.append(_ours(some, folder, workers, repeats if workers == 4 else 1))
                    print(
                        f"  {rows[-1]['label']}: {rows[-1]['median'] / 1e6:.1f} M/s, {rows[-1]['memory_bytes'] / 2**30:.1f} GB", flush=True
                    )
            rows.append(_kernel(archive[0], repeats))
            rows += _peers(archive[0], folder, quick, repeats)
            rows.append(_bandwidth(repeats))
    finally:
        ray_node.disconnect(heads, [], 10)
    ours = max((row for row in rows if row.get("workers") == 4), key=lambda row: row["readings"])
    for row in rows:
        if row.get("peer"):
            row["ratio"] = ours["median"] / row["median"]
            row["ratio_of"] = ours["label"]
    return {"rows": rows, "seed": seed, "readings": parts * data.PART, "clients": 0}


def _enough(archive: list[dict[str, Any]]) -> None:
    excursions, readings = sum(part["excursions"] for part in archive), sum(part["readings"] for part in archive)
    assert excursions * EXCURSION_EVERY >= readings, f"{excursions} excursions in {readings} readings"


def _run(archive: list[dict[str, Any]], folder: str, workers: int, wait_s: float = 0.0) -> tuple[float, int]:
    """A verify of some parts: (readings a second, largest RSS of this process and all workers together). wait_s: of each task."""
    peak, stop = [0], threading.Event()
    watcher = threading.Thread(target=_watch, args=(peak, stop))
    watcher.start()
    place = Place.of(f"{folder}/result-{time.monotonic_ns()}")
    started = time.perf_counter()
    found = jobs.run("bench", Request(result.VERIFY, slow_s=wait_s), archive, place, tasks_at_once=workers)
    elapsed = time.perf_counter() - started
    stop.set()
    watcher.join()
    assert found.summary == {"identical": True}, found.counts
    assert found.counts["readings"] == sum(part["readings"] for part in archive)
    return found.counts["readings"] / elapsed, peak[0]


def _watch(peak: list[int], stop: threading.Event) -> None:
    while not stop.wait(0.1):
        total = psutil.Process().memory_info().rss
        for child in psutil.Process().children(recursive=True):
            try:
                if child.name().startswith("ray::"):
                    total += child.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peak[0] = max(peak[0], total)


def _ours(archive: list[dict[str, Any]], folder: str, workers: int, repeats: int) -> dict[str, Any]:
    found = [_run(archive, folder, workers) for _ in range(repeats)]
    readings = sum(part["readings"] for part in archive)
    row = rates_row(
        f"replay verify, {readings // 1_000_000} million readings, {workers} worker{'s' * (workers > 1)}", [rate for rate, _ in found]
    )
    memory = max(peak for _, peak in found)
    assert memory <= MOST_BYTES, f"{memory / 2**30:.1f} GB"
    return {**row, "workers": workers, "readings": readings, "memory_bytes": memory}


def _kernel(part: dict[str, Any], repeats: int) -> dict[str, Any]:
    """The rules alone, on one core, columns in memory."""
    journeys = load(Part.of(part))
    rules = journeys.rules()
    blocks = [(columns, journeys.ruled(rules, low, high)) for low, high, columns in journeys.blocks(rules)]
    rates = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        readings = _judged(blocks, rules).readings
        rates.append(readings / (time.perf_counter() - started))
    return rates_row("our kernels alone, columns in memory, one core", rates[1:])


def _judged(blocks: Sequence[tuple[Columns, Rides]], rules: Rules) -> Judged:
    judging = Judging(rules.book, rules.carriers)
    for columns, rides in blocks:
        judging.take(columns, rides)
    return judging.judged()


def _bandwidth(repeats: int) -> dict[str, Any]:
    """How fast memory could give the columns that the rules read (32 bytes a reading), by copying on one core."""
    source = np.ones(1 << 25)
    target = np.empty_like(source)
    rates = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        np.copyto(target, source)
        rates.append(2 * source.nbytes / (time.perf_counter() - started) / 32)
    return rates_row("memory bandwidth: 32 bytes a reading, one core", rates[1:])


# ---------------------------------------------------------------- peers


def _peers(part: dict[str, Any], folder: str, quick: bool, repeats: int) -> list[dict[str, Any]]:
    python = python_of("replay")
    journeys = load(Part.of(part))
    rules = journeys.rules()
    blocks = [(columns, journeys.ruled(rules, low, high)) for low, high, columns in journeys.blocks(rules)]
    judged = _judged(blocks, rules)
    columns = [one for one, _ in blocks]
    rows = []
    for name, rides in (("plain", 40 if quick else 200), ("bytewax", 80 if quick else 800), ("polars", 400 if quick else data.RIDES)):
        path = _prefix(columns, rides, Path(folder) / f"prefix-{rides}.parquet")
        rates = []
        for _ in range(1 if quick else repeats):
            found = _bytewax(python, path, folder) if name == "bytewax" else _script(python, name, path, folder)
            _agree(name, journeys, judged, rides, found)
            rates.append(found["readings"] / found["seconds"])
        labels = {
            "plain": "plain Python loop, one process",
            "bytewax": "Bytewax, 4 processes, stateful_batch",
            "polars": "polars, batch, all cores",
        }
        rows.append({**rates_row(labels[name], rates), "peer": True, "prefix": rides * data.MINUTES})
        print(f"  {labels[name]}: {rows[-1]['median'] / 1e6:.2f} M/s", flush=True)
    return rows


def _prefix(blocks: Sequence[Columns], rides: int, path: Path) -> Path:
    n = rides * data.MINUTES
    index = [blocks[0].codes.index(code) for code in data.CODES]
    t, lat, lon = np.concatenate([one.values for one in blocks], 1)[index, :n]
    at_us = np.concatenate([one.sensed_us for one in blocks])[:n]
    ride = np.repeat(np.arange(rides, dtype=np.int32), data.MINUTES)
    table = pa.table({"ride": ride, "at_us": at_us, "t": t, "lat": lat, "lon": lon})
    pq.write_table(table, path, compression="lz4", use_dictionary=False)
    return path


def _script(python: Path, name: str, path: Path, folder: str) -> dict[str, Any]:
    out = Path(folder) / f"{name}.json"
    subprocess.run([python, PEERS, name, path, out, str(UNTIL_US)], check=True, cwd=ROOT)
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def _bytewax(python: Path, path: Path, folder: str) -> dict[str, Any]:
    out = Path(folder) / f"bytewax-{time.monotonic_ns()}"
    flow = f"{PEERS.relative_to(ROOT)}:flow('{path}', '{out}', {UNTIL_US})"
    processes = min(4, os.cpu_count() or 1)
    subprocess.run([python, "-m", "bytewax.testing", flow, "-p", str(processes)], check=True, cwd=ROOT)
    started = [float(one.read_text()) for one in Path(folder).glob(f"{out.name}.started-*")]
    told = [json.loads(one.read_text()) for one in Path(folder).glob(f"{out.name}.found-*")]
    rides = [(ride, excursions, visits, mkt_c) for one in told for ride, excursions, visits, mkt_c in one["rides"]]
    return {
        "excursions": [[ride, *one[1:]] for ride, excursions, _, _ in rides for one in excursions],
        "visits": [[ride, *one[1:]] for ride, _, visits, _ in rides for one in visits],
        "mkt_c": sorted([ride, mkt_c] for ride, _, _, mkt_c in rides),
        "seconds": max(one["ended"] for one in told) - min(started),
        "readings": len(rides) * data.MINUTES,
    }


def _agree(name: str, journeys: Journeys, judged: Judged, rides: int, found: dict[str, Any]) -> None:
    """The peer says what we say of the rides before `rides`, event for event; means and MKT to 1e-9."""
    order = np.argsort(journeys.rides.custody_id)
    assert np.array_equal(order, np.arange(len(order)))
    ours = {}
    for row in judged.excursions[judged.excursions["ride"] < rides]:
        fields = ("started_us", "triggered_us", "ended_us", "violation_us", "extreme", "extreme_us", "readings")
        ours[(int(row["ride"]), judged.names[row["name"]], *(row[one].item() for one in fields))] = float(row["mean"])
    theirs = {(*one[:8], one[9]): one[8] for one in map(tuple, found["excursions"])}
    assert ours.keys() == theirs.keys(), f"{name}: {sorted(ours.keys() ^ theirs.keys())[:4]}"
    assert all(math.isclose(mean, theirs[key], rel_tol=1e-9) for key, mean in ours.items()), f"{name}: means differ"
    visits = judged.visits[judged.visits["ride"] < rides]
    assert not (visits["kind"] == PASSED).any(), "the data have no passes: the peers know none"
    mine = sorted((int(row["ride"]), int(row["entered_us"]), int(row["exited_us"])) for row in visits)
    assert mine == sorted(map(tuple, found["visits"])), f"{name}: visits differ"
    mkt_c = dict(map(tuple, found["mkt_c"]))
    assert all(math.isclose(mkt_c[ride], judged.mkt_c[ride], abs_tol=1e-9) for ride in range(rides)), f"{name}: MKT differs"
