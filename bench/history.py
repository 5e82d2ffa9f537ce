"""How long it takes to read one tag's last 30 days of hourly readings among 100,000 tags: 72 million readings, 4 shards.

    python -m bench.history            all of it: some minutes, 3 GB of disk
    python -m bench.history --quick    a tenth of the tags

The journal is written through the committer, an entry an hour and shard, and sorted by the code that a shard runs in the background; then
tags are read at random and compared with what was written. "cold" means that the database's file was dropped from the system's cache.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import func, select

from actors.journal import fence, history, snapshot
from actors.journal.committer import READY
from actors.journal.compaction import Compactor
from actors.journal.database import reader, sqlite_path
from actors.journal.prepared import JournalEntry, PreparedCommit
from actors.journal.sorted_rows import BATCH, PAGE, SEGMENT
from actors.journal.store import open_store
from actors.rules import codec
from actors.rules.readings import Batch

HOUR_US = 3_600_000_000
START_US = 1_700_000_000_000_000
SHARDS, HOURS = 4, 30 * 24
READS = 300


def temperature_c(tag: Any, hour: Any) -> Any:
    """What a tag reads at an hour: noise that can be computed again, in hundredths of a degree."""
    mixed = np.asarray(tag, np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.asarray(hour, np.uint64) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ mixed >> np.uint64(31)) * np.uint64(0x94D049BB133111EB)
    return (mixed >> np.uint64(40)) % np.uint64(1_000) / 100.0


def sensed_us(tag: Any, hour: Any) -> Any:
    """When: each tag at a moment of its own within the hour."""
    return START_US + np.asarray(hour, np.int64) * HOUR_US + np.asarray(tag, np.int64) * 7_919 % 3_600 * 1_000_000


def fill(url: str, shard: int, tags: int) -> dict[str, float]:
    """Write and sort one shard's journal; how long each took, and the most memory."""
    store = open_store(url)
    owner = store.write(fence.acquire, shard, fence.Claimant(os.getpid()), START_US).result(60)
    chance = np.random.default_rng(shard)
    one = Compactor(store, shard, owner.epoch, lambda: START_US)
    took = {"write_s": 0.0, "sort_s": 0.0}

    def sort() -> None:
        began = time.perf_counter()
        while one.step():
            pass
        took["sort_s"] += time.perf_counter() - began

    for hour in range(HOURS):
        began = time.perf_counter()
        tag = chance.permutation(tags).astype(np.int32)
        at_us = sensed_us(tag, hour)
        known = np.full(tags, 5, np.int64)
        batch = Batch(tag, at_us, known, np.full(tags, hour, np.int64), (0,), temperature_c(tag, hour)[None, :])
        entry = JournalEntry(
            sequence=hour + 1, kind="readings", blob=codec.encode(batch), received_us=int(at_us.max()),
            min_sensed_us=int(at_us.min()), max_sensed_us=int(at_us.max()), readings=tags,
        )  # fmt: skip
        store.commit(PreparedCommit(shard=shard, epoch=owner.epoch, now_us=START_US, journal=entry)).result(60)
        if hour >= HOURS - 40 and hour % 20 == 0:  # two snapshots: what is behind the older one is removed once it is sorted
            for commit in snapshot.save(shard, owner.epoch, hour + 1, b"state", START_US):
                store.commit(commit).result(60)
        took["write_s"] += time.perf_counter() - began
        sort()
    store.close()
    return took | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def forget(url: str) -> None:
    """Drop the database's files from the system's cache."""
    for path in sqlite_path(url).parent.glob("*.db*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def look(url: str, tags: int, reads: int, cold: bool) -> list[float]:
    """Read tags at random, each on a connection that has read none before where `cold`; the times in ms."""
    chance = np.random.default_rng(99)
    took = []
    engine = reader(url)
    for _ in range(reads):
        shard, tag = int(chance.integers(SHARDS)), int(chance.integers(tags))
        if cold:
            engine.dispose()
            forget(url)
        began = time.perf_counter()
        _, found = history.read(engine, shard, [tag], START_US, START_US + HOURS * HOUR_US)
        took.append(1_000 * (time.perf_counter() - began))
        hours = np.arange(HOURS)
        assert np.array_equal(found.sensed_us, sensed_us(tag, hours)), "every hour, in order"
        assert np.array_equal(found.values[0], temperature_c(tag, hours))
    engine.dispose()
    return sorted(took)


def unsorted(url: str, tags: int) -> float:
    """What the same costs on entries that are not sorted, in ms a hundred entries of the size of the journal's."""
    store = open_store(url)
    shard = SHARDS
    owner = store.write(fence.acquire, shard, fence.Claimant(os.getpid()), START_US).result(60)
    known = np.full(tags, 5, np.int64)
    for hour in range(100):
        tag = np.arange(tags, dtype=np.int32)
        at_us = sensed_us(tag, hour)
        batch = Batch(tag, at_us, known, np.full(tags, hour, np.int64), (0,), temperature_c(tag, hour)[None, :])
        low, high = int(at_us.min()), int(at_us.max())
        entry = JournalEntry(hour + 1, "readings", codec.encode(batch), high, low, high, tags)
        store.commit(PreparedCommit(shard=shard, epoch=owner.epoch, now_us=START_US, journal=entry)).result(60)
    began = time.perf_counter()
    _, found = history.read(store.engine, shard, [tags // 2], START_US, START_US + HOURS * HOUR_US)
    took = 1_000 * (time.perf_counter() - began)
    assert len(found) == 100
    store.close()
    return took


def measure(folder: Path, tags: int, workers: int) -> dict[str, Any]:
    """Write, sort and read a history of `tags` tags."""
    url = f"sqlite:///{folder / 'history.db'}"
    command = [sys.executable, "-m", "actors.journal.committer", "--url", url, "--parent", str(os.getpid())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as committer:
        assert committer.stdout is not None
        assert committer.stdout.readline().strip() == READY
        try:
            with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
                shards = list(pool.map(fill, [url] * SHARDS, range(SHARDS), [tags // SHARDS] * SHARDS))
            engine = reader(url)
            with engine.connect() as connection:
                made = connection.execute(select(func.count(), func.sum(SEGMENT.c.readings)).select_from(SEGMENT)).one()
                packed = connection.execute(select(func.sum(func.length(PAGE.c.blob)))).scalar_one()
                waiting = connection.execute(select(func.count()).select_from(BATCH)).scalar_one()
            engine.dispose()
            warm = look(url, tags // SHARDS, READS, cold=False)
            cold = look(url, tags // SHARDS, READS // 6, cold=True)
            plain_ms = unsorted(url, tags // SHARDS)
        finally:
            committer.terminate()
    total = tags * HOURS
    sort_s = sum(one["sort_s"] for one in shards)
    return {
        "label": f"one tag's 30 days of hourly readings among {tags:,} tags",
        "unit": "ms",
        "readings": total,
        "shards": SHARDS,
        "p50_ms": warm[len(warm) // 2],
        "p99_ms": warm[len(warm) * 99 // 100],
        "most_ms": warm[-1],
        "cold_p50_ms": cold[len(cold) // 2],
        "cold_most_ms": cold[-1],
        "unsorted_ms": plain_ms * HOURS / 100,
        "segments": made[0],
        "sorted_readings": int(made[1]),
        "entries_not_sorted_or_kept": waiting,
        "bytes_a_reading": packed / int(made[1]),
        "sorted_per_second_and_core": total / sort_s,
        "written_per_second": total / max(one["write_s"] for one in shards),
        "sorting_peak_mb": max(one["peak_mb"] for one in shards),
    }


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.history", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10,000 tags")
    parser.add_argument("--tags", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=SHARDS, help="shards written at a time")
    parser.add_argument("--folder", type=Path, help="where the database is made; default: a temporary folder")
    options = parser.parse_args()
    tags = 10_000 if options.quick else options.tags
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        print(json.dumps(measure(Path(folder), tags, options.workers), indent=2))


if __name__ == "__main__":
    main()
