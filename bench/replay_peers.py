"""The peers of the replay measurement, in their own environment: a plain Python loop, Bytewax, polars. Imports nothing of ours.

    python bench/replay_peers.py plain|polars PREFIX.parquet OUT.json UNTIL_US
    python -m bytewax.testing "bench/replay_peers.py:flow('PREFIX.parquet', 'OUT', UNTIL_US)" -p 4

The prefix has a row a reading: ride, at_us, t (degrees C), lat, lon; sorted by ride and time.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent))

import replay_rules as rules  # beside this file, and not of any package here
from replay_rules import PlainRide, outcome

COLUMNS = ("ride", "at_us", "t", "lat", "lon")


def plain(path: str, until_us: int) -> dict[str, Any]:
    """A plain Python loop."""
    started = time.perf_counter()
    table = pq.read_table(path)
    rides: dict[int, PlainRide] = {}
    for ride, at_us, t, lat, lon in zip(*(table.column(name).to_pylist() for name in COLUMNS), strict=True):
        mine = rides.get(ride)
        if mine is None:
            mine = rides[ride] = PlainRide(ride)
        mine.read(at_us, t, lat, lon)
    mkt_c = {ride: one.end(until_us) for ride, one in rides.items()}
    return outcome(rides, mkt_c, time.perf_counter() - started, table.num_rows)


# ---------------------------------------------------------------- Bytewax


def flow(path: str, out: str, until_us: int, processes: int = 4) -> Any:
    """The dataflow: each process reads its share of the rides, and judges by `stateful_batch` those that are keyed to it."""
    import bytewax.operators as op
    from bytewax.dataflow import Dataflow
    from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
    from bytewax.operators import StatefulBatchLogic
    from bytewax.outputs import DynamicSink, StatelessSinkPartition

    class Share(StatefulSourcePartition[Any, int]):
        def __init__(self, number: int) -> None:
            self.started = time.time()
            table = pq.read_table(path)
            ride = table.column("ride").to_numpy()
            rows = np.flatnonzero(ride % processes == number)
            mine = table.take(rows)
            self.rows = zip(
                map(str, mine.column("ride").to_pylist()), zip(*(mine.column(name).to_pylist() for name in COLUMNS[1:]), strict=True),
                strict=True,
            )  # fmt: skip
            Path(f"{out}.started-{number}").write_text(repr(self.started))

        def next_batch(self) -> list[Any]:
            batch = [row for _, row in zip(range(2_000), self.rows, strict=False)]
            if not batch:
                raise StopIteration
            return batch

        def snapshot(self) -> int:
            return 0

    class Source(FixedPartitionedSource[Any, int]):
        def list_parts(self) -> list[str]:
            return [str(number) for number in range(processes)]

        def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> Share:
            return Share(int(for_part))

    class Judge(StatefulBatchLogic[Any, Any, Any]):
        def __init__(self) -> None:
            self.ride = PlainRide(-1)

        def on_batch(self, values: list[Any]) -> tuple[list[Any], bool]:
            read = self.ride.read
            for at_us, t, lat, lon in values:
                read(at_us, t, lat, lon)
            return [], StatefulBatchLogic.RETAIN

        def on_eof(self) -> tuple[list[Any], bool]:
            mkt_c = self.ride.end(until_us)
            return [(self.ride.excursions, self.ride.visits, mkt_c)], StatefulBatchLogic.DISCARD

        def snapshot(self) -> Any:
            return None

    class Writer(StatelessSinkPartition[Any]):
        def __init__(self, number: int) -> None:
            self.number, self.found = number, []

        def write_batch(self, items: list[Any]) -> None:
            self.found += items

        def close(self) -> None:
            body = {"ended": time.time(), "rides": [[int(key), *told] for key, told in self.found]}
            Path(f"{out}.found-{self.number}").write_text(json.dumps(body))

    class Sink(DynamicSink[Any]):
        def build(self, step_id: str, worker_index: int, worker_count: int) -> Writer:
            return Writer(worker_index)

    made = Dataflow("replay")
    stream = op.input("in", made, Source())
    judged = op.stateful_batch("judge", stream, lambda resumed: Judge())
    op.output("out", judged, Sink())
    return made


# ---------------------------------------------------------------- polars


def polars_batch(path: str, until_us: int) -> dict[str, Any]:
    """The same rules as one polars query each: expressions over rides, on all cores."""
    import polars as pl

    started = time.perf_counter()
    per = "ride"
    raw = pl.scan_parquet(path)
    spike = (pl.col("t") - (pl.col("t").shift(1) + pl.col("t").shift(-1)) / 2).abs().over(per)
    kept = raw.filter(pl.col("t").is_between(rules.FAIL_LOW_C, rules.FAIL_HIGH_C) & ~(spike.fill_null(0.0) > rules.SPIKE_FAIL_C))
    held = (pl.col("at_us").shift(-1).over(per).fill_null(until_us) - pl.col("at_us")).clip(upper_bound=rules.GAP_US)
    good = kept.select(per, "at_us", "t").with_columns(held=held)

    state = (
        pl.when(pl.col("t") > rules.WARM_ABOVE_C).then(True).when(pl.col("t") <= rules.WARM_CLEAR_C).then(False)
        .otherwise(None).forward_fill().over(per).fill_null(False)
    )  # fmt: skip
    warm = _runs(pl, good.with_columns(inside=state), "warm", 1).with_columns(triggered=pl.col("start") + rules.WARM_ALLOWANCE_US)
    warm = warm.filter(pl.col("covered") >= rules.WARM_ALLOWANCE_US)
    cold = _runs(pl, good.with_columns(inside=pl.col("t") < rules.COLD_BELOW_C), "cold", -1).with_columns(triggered=pl.col("start"))
    total = _runs(pl, good.with_columns(inside=pl.col("t") > rules.WARM_ABOVE_C), "total", 1)
    before = pl.col("covered").cum_sum().over(per) - pl.col("covered")
    total = total.with_columns(missing=(rules.TOTAL_ALLOWANCE_US - before).clip(lower_bound=0))
    total = total.filter(pl.col("covered") >= pl.col("missing")).with_columns(triggered=pl.col("start") + pl.col("missing"))

    factor = (-10_000.0 / (pl.col("t") + 273.15) - rules.SHIFT).exp()
    kinetic = good.group_by(per).agg((factor * pl.col("held")).sum().alias("sum"), pl.col("held").sum())
    mkt = kinetic.select(per, 10_000.0 / -(rules.SHIFT + (pl.col("sum") / pl.col("held")).log()) - 273.15)

    order = (per, "limit", "start", "triggered", "end", "covered", "extreme", "extreme_us", "mean", "readings")
    wanted = [one.select(order) for one in (warm, cold, total)]
    frames = pl.collect_all([*wanted, _visits(pl, raw, until_us), mkt])
    excursions = [row for frame in frames[:3] for row in frame.rows()]
    return {
        "excursions": excursions, "visits": frames[3].rows(), "mkt_c": sorted(frames[4].rows()),
        "seconds": time.perf_counter() - started, "readings": pl.scan_parquet(path).select(pl.len()).collect().item(),
    }  # fmt: skip


def _runs(pl: Any, good: Any, name: str, sign: int) -> Any:
    """The runs of a limit: consecutive readings inside it."""
    edge = (pl.col("inside") != pl.col("inside").shift(1)).over("ride").fill_null(True)
    worst = pl.col("t") * sign
    return (
        good.with_columns(run=edge.cum_sum()).filter("inside").group_by("ride", "run", maintain_order=True)
        .agg(
            start=pl.col("at_us").first(), end_last=pl.col("at_us").last(), last_held=pl.col("held").last(), covered=pl.col("held").sum(),
            extreme=worst.max() * sign, extreme_us=pl.col("at_us").get(worst.arg_max()),
            mean=(pl.col("t") * pl.col("held")).sum() / pl.col("held").sum(), readings=pl.len(),
        )
        .with_columns(limit=pl.lit(name), end=pl.col("end_last") + pl.col("last_held"))
    )  # fmt: skip


def _visits(pl: Any, raw: Any, until_us: int) -> Any:
    """Visits by two consecutive fixes on a side. The data keep far enough from the boundary for the haversine to decide."""
    latitude, longitude = pl.col("lat").radians(), pl.col("lon").radians()
    c_lat, c_lon = np.radians(rules.CENTER)
    half = ((latitude - c_lat) / 2).sin() ** 2 + latitude.cos() * float(np.cos(c_lat)) * ((longitude - c_lon) / 2).sin() ** 2
    inside = 2 * 6_371_008.8 * half.sqrt().arcsin() <= rules.RADIUS_M
    per = "ride"
    same = (pl.col("inside") == pl.col("inside").shift(1)).over(per).fill_null(False)
    confirmed = pl.when(same).then(pl.col("inside")).otherwise(None).forward_fill().over(per)
    first = pl.col("at_us").shift(1).over(per)  # an event is dated at the first of the two
    sides = raw.with_columns(inside=inside).with_columns(side=confirmed, first=first)
    change = (pl.col("side") != pl.col("side").shift(1)).over(per) | (
        pl.col("side").is_not_null() & pl.col("side").shift(1).over(per).is_null()
    )
    events = sides.filter(change.fill_null(False)).select(per, "side", "first")
    left = pl.col("first").shift(-1).over(per).fill_null(until_us)
    return events.with_columns(left=left).filter("side").select(per, "first", "left")


if __name__ == "__main__":
    kind, source, target, until = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    Path(target).write_text(json.dumps(plain(source, until) if kind == "plain" else polars_batch(source, until)))
