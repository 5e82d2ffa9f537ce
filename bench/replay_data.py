"""The archive that the replay measurement judges: parts of journeys made from seeds, each part from its own, written as the archive is.

A tag reports temperature and position every minute. Seldom and at random it gets too warm, too cold, drives into the geofence, or
measures nonsense (a spike or a value out of range, which its quality settings fail). What is recorded of the journeys is what our rules say
of them; the peers, which share nothing with these, say it of a prefix.

    python -m bench.replay_data FOLDER      # 100 million readings, for `python -m bench replay --data FOLDER`
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from actors.rules.plan import PlannedFence, make_plan
from actors.rules.profiles import Limit, MktSettings, Profile
from actors.rules.quality import MetricSettings, QualitySettings
from actors.rules.readings import LATITUDE, LONGITUDE
from actors.tags.carriers import Rulebook
from bench import replay_rules as rules
from bench.replay_rules import CENTER, MINUTE_US
from cluster.archive import layout
from cluster.archive.filesystem import Place
from cluster.archive.writer import PartWriter, as_json
from cluster.replay import judge
from cluster.replay.flags import flags_of
from cluster.replay.journeys import plan_of, rules_of
from cluster.replay.rides import Columns, Rides

RIDES, MINUTES, TAGS_A_SHIPMENT = 4_000, 1_000, 10
PART = RIDES * MINUTES
"""Readings of a part."""
START_US = 1_735_689_600_000_000
CODES = (0, LATITUDE, LONGITUDE)
READINGS_PER_EPISODE, READINGS_PER_VISIT, READINGS_PER_FAULT = 3_500, 12_000, 2_000

PROFILE = Profile(
    "bench", 1, "bench",
    (
        Limit("warm", "temperature_c", "above", rules.WARM_ABOVE_C, clear=rules.WARM_CLEAR_C, allowance_us=rules.WARM_ALLOWANCE_US),
        Limit("cold", "temperature_c", "below", rules.COLD_BELOW_C, allowance_us=0),
        Limit("total", "temperature_c", "above", rules.WARM_ABOVE_C, mode="cumulative", allowance_us=rules.TOTAL_ALLOWANCE_US),
    ),
    max_gap_us=rules.GAP_US, mkt=MktSettings(24 * 60 * MINUTE_US),
)  # fmt: skip
FENCE = PlannedFence("depot", "circle", {"center": list(CENTER), "radius_m": rules.RADIUS_M})
PLAN = rules_of(make_plan("", 1, [(0, PROFILE)], state="closed", fences=(FENCE,)).to_data())
QUALITY = QualitySettings(
    {
        "temperature_c": MetricSettings(
            fail_low=rules.FAIL_LOW_C, fail_high=rules.FAIL_HIGH_C, spike_suspect=rules.SPIKE_SUSPECT_C, spike_fail=rules.SPIKE_FAIL_C
        )
    }
)
F8 = npt.NDArray[np.float64]


def values(seed: int, part: int) -> F8:
    """(3, RIDES, MINUTES): temperature, latitude, longitude."""
    rng = np.random.default_rng([seed, part])
    made = rng.random((3, RIDES, MINUTES))
    made[0] = np.round(4.0 + 2.0 * made[0], 2)
    made[1] = CENTER[0] + 0.5 + 0.1 * made[1]
    made[2] = CENTER[1] - 0.05 + 0.1 * made[2]
    n = RIDES * MINUTES
    for _ in range(n // READINGS_PER_EPISODE):
        ride, kind = rng.integers(RIDES), rng.random()
        length = int(rng.integers(15, 40)) if kind < 0.45 else int(rng.integers(2, 9))
        start = int(rng.integers(MINUTES - length))
        wave = np.sin(np.pi * (np.arange(length) + 1) / (length + 1))
        made[0, ride, start : start + length] = np.round(7.5 + 6.0 * wave if kind < 0.55 else 1.5 - 3.0 * wave, 2)
    for _ in range(n // READINGS_PER_VISIT):
        ride, length = rng.integers(RIDES), int(rng.integers(16, 50))
        start = int(rng.integers(MINUTES - length))
        away = np.abs(2 * np.arange(length) / (length - 1) - 1.0)
        made[1, ride, start : start + length] = CENTER[0] + 0.01 + 0.45 * away**2
        made[2, ride, start : start + length] = CENTER[1]
    faults = n // READINGS_PER_FAULT
    made[0].reshape(-1)[rng.integers(0, n, faults)] = np.where(rng.random(faults) < 0.5, 30.0, 70.0)
    return made


def sensed_us() -> npt.NDArray[np.int64]:
    """(RIDES * MINUTES,) the sensed times of a part."""
    return np.tile(START_US + np.arange(MINUTES, dtype=np.int64) * MINUTE_US, RIDES)


def archive(folder: Path, parts: int) -> tuple[int, list[dict[str, Any]]]:
    """(seed, rows of the manifest) of an archive of so many parts: what lies in the folder, or made there anew from a new seed."""
    told = folder / "made.json"
    made: dict[str, Any] = json.loads(told.read_text()) if told.is_file() else {"seed": time.time_ns() % (1 << 32), "parts": []}
    missing = range(len(made["parts"]), parts)
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        made["parts"] += pool.map(write, repeat(str(folder)), repeat(made["seed"]), missing)
    told.write_text(json.dumps(made))
    return made["seed"], made["parts"][:parts]


def write(location: str, seed: int, part: int) -> dict[str, Any]:
    """Make a part of the archive; its row of the manifest."""
    pa.set_cpu_count(1)
    out = PartWriter(Place.of(location), "2025-01", f"2025-01-bench-{seed}-{part:05d}")
    made = values(seed, part)
    columns = Columns(sensed_us(), CODES, made.reshape(3, -1))
    shipments = [f"bench-{part:05d}-{at:03d}" for at in range(RIDES // TAGS_A_SHIPMENT)]
    tag_ids = [f"tag-{part:05d}-{at:04d}" for at in range(RIDES)]
    custody = np.arange(RIDES, dtype=np.int64) + part * RIDES
    end_us = START_US + MINUTES * MINUTE_US
    from_us, until_us = np.full(RIDES, START_US, np.int64), np.full(RIDES, end_us, np.int64)
    rides = Rides(
        custody, np.zeros(RIDES, np.int32), np.arange(RIDES, dtype=np.int32), from_us, until_us,
        np.arange(RIDES + 1, dtype=np.int64) * MINUTES, [QUALITY] * RIDES,
    )  # fmt: skip
    book = Rulebook()
    judged = judge.judge(columns, rides, book, [book.of(plan_of(PLAN))])
    flags = flags_of(columns, rides)
    assert flags is not None
    carriers = [f"shipment/{shipments[at // TAGS_A_SHIPMENT]}" for at in range(RIDES)]
    for low in range(0, RIDES, RIDES // 16):
        _readings(out, columns, flags, carriers, tag_ids, custody, low, low + RIDES // 16, part)
    _records(out, judged, shipments, carriers, tag_ids, custody)
    row = out.close(0, "bench").model_dump()
    return {**row, "excursions": len(judged.excursions), "visits": len(judged.visits)}


def _readings(
    out: PartWriter,
    columns: Columns,
    flags: Any,
    carriers: list[str],
    tag_ids: list[str],
    custody: Any,
    low: int,
    high: int,
    part: int,
) -> None:
    n = (high - low) * MINUTES
    rows = slice(low * MINUTES, high * MINUTES)
    each = np.repeat(np.arange(high - low, dtype=np.int32), MINUTES)

    def repeated(words: list[str]) -> Any:
        return pa.DictionaryArray.from_arrays(pa.array(each), pa.array(words[low:high])).cast(pa.string())

    minute = np.tile(np.arange(MINUTES, dtype=np.int64), high - low)
    made: dict[str, Any] = {
        "carrier": repeated(carriers), "tag_id": repeated(tag_ids), "custody_id": custody[low + each],
        "sensed_at": layout.times(columns.sensed_us[rows]), "received_at": layout.times(columns.sensed_us[rows]),
        "boot": np.ones(n, np.int64), "sequence": minute, "journal_shard": np.zeros(n, np.int16),
        "journal_sequence": 1 + part * MINUTES + minute, "journal_row": (low + each).astype(np.int32),
    }  # fmt: skip
    for k, code in enumerate(columns.codes):
        made[layout.VALUE_COLUMNS[code]] = columns.values[k, rows]
        made[layout.FLAG_COLUMNS[code]] = flags[k, rows]
    arrays = [made[field.name] if field.name in made else pa.nulls(n, field.type) for field in layout.READINGS]
    out.add("readings", pa.Table.from_arrays([pa.array(one) for one in arrays], schema=layout.READINGS))


def _records(out: PartWriter, judged: judge.Judged, shipments: list[str], carriers: list[str], tag_ids: list[str], custody: Any) -> None:
    end_us, quality = START_US + MINUTES * MINUTE_US, as_json(QUALITY.to_data())
    whole = zip(custody.tolist(), carriers, tag_ids, judged.mkt_c.tolist(), strict=True)
    out.add_rows(
        "custodies",
        [
            {
                "custody_id": number, "carrier": carrier, "tag_id": tag_id, "from_at": START_US, "until_at": end_us,
                "retracted": False, "journal_shard": 0, "local_index": ride, "quality": quality, "first_row": ride * MINUTES,
                "readings": MINUTES,
                "mkt_c": mkt_c, "history": "[]", "etag": 2,
            }
            for ride, (number, carrier, tag_id, mkt_c) in enumerate(whole)
        ],
    )  # fmt: skip

    def named(row: Any) -> dict[str, Any]:
        ride = int(row["ride"])
        return {"carrier": carriers[ride], "tag_id": tag_ids[ride], "custody_id": int(custody[ride])}

    facts = ("violation_us", "uncovered_us", "extreme", "readings")
    out.add_rows(
        "exposures",
        [
            {
                **named(row), "limit_id": judged.names[row["name"]], "covered_us": int(row["covered_us"]),
                "extreme_at": int(row["extreme_us"]), **{name: row[name].item() for name in facts},
            }
            for row in judged.sums
        ],
    )  # fmt: skip
    out.add_rows(
        "excursions",
        [
            {
                **named(row), "excursion_id": at, "revision": 1, "final": True, "state": "ENDED", "cause": "reading",
                "limit_id": judged.names[row["name"]], "severity": "CRITICAL", "started_at": int(row["started_us"]),
                "triggered_at": int(row["triggered_us"]), "ended_at": int(row["ended_us"]), "extreme_at": int(row["extreme_us"]),
                "mean": float(row["mean"]), "lots": [], **{name: row[name].item() for name in facts},
            }
            for at, row in enumerate(judged.excursions)
        ],
    )  # fmt: skip
    out.add_rows(
        "visits",
        [
            {
                **named(row), "visit_id": at, "revision": 1, "state": "STATED", "kind": ("VISIT", "PASSED")[row["kind"]],
                "fence_id": judged.names[row["name"]], "entered_at": int(row["entered_us"]), "exited_at": int(row["exited_us"]),
            }
            for at, row in enumerate(judged.visits)
        ],
    )  # fmt: skip
    out.add_rows(
        "shipments",
        [
            {
                "carrier": f"shipment/{name}", "shipment_id": name, "state": "DELIVERED", "profile_id": "bench", "profile_version": 1,
                "closed_at": end_us, "custodies": TAGS_A_SHIPMENT, "readings": TAGS_A_SHIPMENT * MINUTES, "first_sensed_at": START_US,
                "last_sensed_at": end_us - MINUTE_US, "rules": PLAN, "lots": "{}", "record": "{}",
            }
            for name in shipments
        ],
    )  # fmt: skip


if __name__ == "__main__":
    archive(Path(sys.argv[1]), 25)
