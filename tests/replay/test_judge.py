"""One rule, two speeds, one truth: whole files judged as columns give what custodies judged one by one give."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from actors.rules import exposure, geofence, mkt
from actors.rules.plan import PlannedFence, make_plan
from actors.rules.profiles import Limit, Profile
from actors.rules.quality import MetricSettings, QualitySettings
from actors.rules.readings import FOREVER_US, LATITUDE, LONGITUDE, Batch
from actors.tags import whole
from actors.tags.carriers import Rulebook
from cluster.archive.filesystem import Place
from cluster.replay import judge, result
from cluster.replay.jobs import Request, judge_part
from cluster.replay.rides import Columns, Rides
from tests.replay.made import profile as made_profile
from tests.replay.made import simulate, write
from tests.replay.test_whatif import WARM

MINUTE_US = 60_000_000
BEGIN_US = 1_740_000_000_000_000
CODES = (0, 1, LATITUDE, LONGITUDE)
SETTINGS = QualitySettings({"temperature_c": MetricSettings(spike_fail=6.0, fail_high=30.0)}, speed_fail_mps=300.0)


def profile(rng: random.Random) -> Profile:
    return Profile(
        "p", 1, "p",
        (
            Limit("warm", "temperature_c", "above", 8.0, clear=7.0, allowance_us=rng.choice((0, 10)) * MINUTE_US),
            Limit("total", "temperature_c", "above", 7.5, mode="cumulative", allowance_us=20 * MINUTE_US),
            Limit("damp", "relative_humidity_pct", "above", 60.0, allowance_us=5 * MINUTE_US, stages=("IN_TRANSIT",)),
            Limit("mkt", "temperature_c", "above", 6.5, mode="mkt", window_us=60 * MINUTE_US),
        ),
        max_gap_us=rng.choice((10, 60)) * MINUTE_US, ignore_us=rng.choice((0, 15)) * MINUTE_US,
    )  # fmt: skip


def ride(rng: random.Random, from_us: int) -> tuple[int, Batch]:
    """A custody's end and its readings, none in some."""
    n = rng.choice((0, 1, 40, 90))
    sensed = np.sort(np.array([from_us + rng.randrange(0, 180) * MINUTE_US for _ in range(n)], np.int64))
    values = np.full((len(CODES), n), np.nan)
    for k in range(n):
        values[0, k] = round(6 + 3 * np.sin(k / 7) + rng.uniform(-1, 1), 2) if rng.random() < 0.9 else np.nan
        values[1, k] = rng.choice((50.0, 55.0, 70.0)) if rng.random() < 0.5 else np.nan
        if rng.random() < 0.6:
            values[2, k], values[3, k] = 52.0 + rng.choice((0.001, 0.001, 0.3)), 4.0
    if n > 10:
        values[0, n // 2] = 29.0
    index = np.arange(n)
    return from_us + 180 * MINUTE_US, Batch(np.zeros(n, np.int32), sensed, np.ones(n, np.int64), index, CODES, values)


@pytest.mark.parametrize("seed", range(6))
def test_columns_of_many_rides_give_what_each_ride_gives_alone(seed: int) -> None:
    rng = random.Random(seed)
    book = Rulebook()
    fence = PlannedFence("depot", "circle", {"center": [52.0, 4.0], "radius_m": 1000.0})
    stages = [(0, "PACKING"), (BEGIN_US + 60 * MINUTE_US, "IN_TRANSIT")]
    carriers = [book.of(make_plan(f"c{at}", 1, [(0, profile(rng))], stages, fences=(fence,) if at % 2 else ())) for at in range(3)]
    rides: list[tuple[int, int, int, int, Batch, QualitySettings | None]] = []
    for tag in range(12):
        carrier, from_us = rng.randrange(3), BEGIN_US
        for _ in range(rng.choice((1, 1, 3))):  # later custodies on one carrier go on from the earlier ones' sums
            until_us, batch = ride(rng, from_us)
            rides.append((carrier, tag, from_us, until_us, batch, SETTINGS if tag % 3 == 0 else None))
            from_us = until_us + rng.randrange(5) * MINUTE_US
    start = np.concatenate([[0], np.cumsum([len(one[4]) for one in rides])]).astype(np.int64)
    columns = Columns(
        np.concatenate([one[4].sensed_us for one in rides]),
        CODES,
        np.ascontiguousarray(np.concatenate([one[4].values for one in rides], 1)),
    )
    whole_columns = [np.array([one[k] for one in rides], kind) for k, kind in enumerate((np.int32, np.int32, np.int64, np.int64))]
    table = Rides(np.arange(len(rides)), *whole_columns, start, [one[5] for one in rides])
    judged = judge.judge(columns, table, book, carriers)

    prior: dict[tuple[int, int], dict[str, int]] = {}
    excursions: list[Any] = []
    visits: list[Any] = []
    for number, (carrier, tag, from_us, until_us, batch, settings) in enumerate(rides):
        found, sums, mkt_c = alone(book, carriers[carrier], from_us, until_us, batch, settings, prior.setdefault((carrier, tag), {}))
        excursions += [(number, one.limit_id, *one.facts()) for one in found.excursions]
        visits += [(number, one.fence_id, one.kind, one.entered_us, one.exited_us) for one in found.stated_visits]
        mine = judged.sums[judged.sums["ride"] == number]
        assert {judged.names[row["name"]]: int(row["violation_us"]) for row in mine} == sums
        assert judged.mkt_c[number] == mkt_c or (np.isnan(mkt_c) and np.isnan(judged.mkt_c[number]))
        for name, value in sums.items():
            prior[carrier, tag][name] = prior[carrier, tag].get(name, 0) + value
    fields = ("started_us", "triggered_us", "ended_us", "violation_us", "uncovered_us", "extreme", "extreme_us", "mean", "readings")
    ours = [(int(row["ride"]), judged.names[row["name"]], *(row[name].item() for name in fields)) for row in judged.excursions]
    assert sorted(ours) == sorted(excursions)
    assert len(ours) > 10
    seen = [
        (int(row["ride"]), judged.names[row["name"]], ("VISIT", "PASSED")[row["kind"]], int(row["entered_us"]), int(row["exited_us"]))
        for row in judged.visits
    ]
    assert sorted(seen) == sorted(visits)


def alone(
    book: Rulebook, carrier: Any, from_us: int, until_us: int, batch: Batch, settings: QualitySettings | None, prior: dict[str, int]
) -> tuple[whole.Judgement, dict[str, int], float]:
    """One custody as the shards judge one that was closed: (what it states, its own sums, its MKT)."""
    begin_us = min(from_us + carrier.plan.ignore_us(from_us), until_us)
    specs = carrier.tracks
    columns = zip(*((one.metric, one.mode, one.windows_start, one.windows_count) for one in specs), strict=True)
    tracks = exposure.fresh(*map(list, columns), begin_us, until_us, [prior.get(one.limit_id, 0) for one in specs])
    visits = geofence.fresh(carrier.fence_rows, from_us, until_us)
    usable = whole.usable(batch, settings)
    found = whole.judge_whole(book, carrier, 0, tracks, visits, usable, until_us)
    sums = {one.limit_id: int(row["violation_us"]) - prior.get(one.limit_id, 0) for one, row in zip(specs, found.tracks, strict=True)}
    held = ~np.isnan(usable.values[0])
    at = np.array([until_us], np.int64)
    gap_us = carrier.plan.profiles[0].max_gap_us
    mkt_c = mkt.trailing_mkt_c(usable.sensed_us[held], usable.values[0][held], at, until_us - begin_us, gap_us, begin_us)[0]
    assert until_us < FOREVER_US
    return found, sums, float(mkt_c)


def test_of_a_part_that_has_none_of_the_asked_shipments_nothing_is_judged(tmp_path: Any) -> None:
    parts = write(Place.of(tmp_path), [simulate(random.Random(1), number) for number in range(3)], made_profile(60, WARM), ())
    counts = judge_part(parts[0], Request(result.VERIFY, shipment_ids=("another",)), Place.of(tmp_path / "none"))
    assert counts == {"parts": 1, "shipments": 0, "differences": 0}
    counts = judge_part(parts[0], Request(result.WHAT_IF, ("s-0001",), rules={"ignore_us": 0}), Place.of(tmp_path / "one"))
    assert (counts["shipments"], counts["custodies"], counts["differences"]) == (1, 1, 0)


def test_shipments_that_lie_apart_in_a_part_are_judged_without_those_between(tmp_path: Any) -> None:
    parts = write(Place.of(tmp_path), [simulate(random.Random(number), number) for number in range(5)], made_profile(60, WARM), ())
    alone = [judge_part(parts[0], Request(result.VERIFY, (one,)), Place.of(tmp_path / one)) for one in ("s-0001", "s-0003")]
    both = judge_part(parts[0], Request(result.VERIFY, ("s-0001", "s-0003")), Place.of(tmp_path / "both"))
    assert both == {**{name: sum(one[name] for one in alone) for name in both}, "parts": 1}
    assert both["shipments"] == 2
