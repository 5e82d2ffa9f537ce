"""An archive of simulated journeys, written without a running system: what was recorded of them is of no matter to a what-if."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from actors.rules.plan import PlannedFence, make_plan
from actors.rules.profiles import Limit, Profile
from actors.rules.readings import CODE, LATITUDE, LONGITUDE, Batch
from actors.tags.carriers import Rulebook
from cluster.archive import writer
from cluster.archive.filesystem import Place
from cluster.archive.writer import PartWriter
from cluster.replay import judge
from cluster.replay.journeys import rules_of
from cluster.replay.rides import Columns, Rides

MINUTE_US = 60_000_000
BEGIN_US = 1_740_000_000_000_000
DEPOT = (52.0, 4.0)
CODES = (CODE["temperature_c"], LATITUDE, LONGITUDE)


@dataclass
class Journey:
    """A shipment with one tag: readings (minute, temperature, latitude or None, longitude or None) from minute 0 until `minutes`."""

    shipment_id: str
    minutes: int
    readings: list[tuple[float, float, float | None, float | None]]
    lots: list[str] = field(default_factory=list)

    @property
    def tag_id(self) -> str:
        return f"tag-of-{self.shipment_id}"


def us(minute: float) -> int:
    return BEGIN_US + round(minute * MINUTE_US)


def simulate(rng: random.Random, number: int, minutes: int = 240) -> Journey:
    """A course with spells of warmth and cold, outages, spikes, and for every fifth a call at the depot."""
    readings: list[tuple[float, float, float | None, float | None]] = []
    minute = rng.uniform(0, 5)
    warm, cold = rng.uniform(20, minutes), rng.uniform(20, minutes)
    lasting, gap = rng.uniform(5, 60), rng.uniform(0, minutes)
    depot = rng.uniform(20, minutes - 60) if number % 5 == 0 else -1.0
    while minute < minutes:
        if not (gap < minute < gap + 75 and number % 3 == 0):
            value = 5 + 1.5 * math.sin(minute / 23 + number) + rng.uniform(-0.3, 0.3)
            value += 4 * (warm < minute < warm + lasting) - 4.5 * (cold < minute < cold + lasting / 3)
            if rng.random() < 0.01:
                value = 45.0
            latitude = longitude = None
            if depot >= 0 and depot - 5 < minute < depot + 45 and rng.random() < 0.7:
                away = 0.012 * max(0.0, abs(minute - depot - 20) - 10)
                latitude, longitude = DEPOT[0] + away, DEPOT[1]
            readings.append((minute, round(value, 2), latitude, longitude))
        minute += rng.choice((2.0, 4.0, 7.0))
    return Journey(f"s-{number:04d}", minutes, readings, [f"lot-{number}"] if number % 2 else [])


def profile(max_gap_minutes: float, *limits: Limit) -> Profile:
    return Profile("p", 1, "p", limits, max_gap_us=round(max_gap_minutes * MINUTE_US))


def write(
    place: Place, journeys: list[Journey], rules: Profile, fences: tuple[PlannedFence, ...], parts: int = 1, *, record: bool = False
) -> list[dict[str, Any]]:
    """The archive of some journeys, in so many parts: their rows of the manifest. record: with their excursions, as our rules find them."""
    made = []
    size = -(-len(journeys) // parts)
    for part in range(parts):
        out = PartWriter(place, "2025-02", f"2025-02-{part}")
        for at, journey in enumerate(sorted(journeys, key=lambda one: one.shipment_id)[part * size : (part + 1) * size]):
            _put(out, journey, part * size + at, rules, fences)
            if record:
                _record(out, journey, part * size + at, rules)
        made.append(out.close(0, "tests").model_dump())
    return made


def _put(out: PartWriter, journey: Journey, custody_id: int, rules: Profile, fences: tuple[PlannedFence, ...]) -> None:
    n = len(journey.readings)
    minutes, temperature, latitude, longitude = zip(*journey.readings, strict=True)
    sensed = np.array([us(minute) for minute in minutes], np.int64)
    values = np.array([[np.nan if one is None else one for one in column] for column in (temperature, latitude, longitude)])
    index = np.arange(n)
    batch = Batch(np.zeros(n, np.int32), sensed, np.ones(n, np.int64), index, CODES, values)
    carrier, first = f"shipment/{journey.shipment_id}", out.readings
    out.add("readings", writer.readings_table(carrier, journey.tag_id, custody_id, batch, None, sensed, 0, index, index))
    out.add_rows(
        "custodies",
        [
            {
                "custody_id": custody_id, "carrier": carrier, "tag_id": journey.tag_id, "from_at": BEGIN_US,
                "until_at": us(journey.minutes), "retracted": False, "journal_shard": 0, "local_index": custody_id,
                "first_row": first, "readings": n, "history": "[]",
            }
        ],
    )  # fmt: skip
    plan = make_plan(carrier, 1, [(0, rules)], state="closed", fences=fences)
    out.add_rows(
        "shipments",
        [
            {
                "carrier": carrier, "shipment_id": journey.shipment_id, "state": "DELIVERED", "closed_at": us(journey.minutes),
                "readings": n, "custodies": 1, "first_sensed_at": int(sensed[0]), "last_sensed_at": int(sensed[-1]),
                "rules": rules_of(plan.to_data()), "lots": writer.as_json({"unit": journey.lots}), "record": "{}",
            }
        ],
    )  # fmt: skip


def _record(out: PartWriter, journey: Journey, custody_id: int, rules: Profile) -> None:
    book = Rulebook()
    carrier = book.of(make_plan("", 1, [(0, rules)]))
    sensed = np.array([us(one[0]) for one in journey.readings], np.int64)
    columns = Columns(sensed, (0,), np.array([[one[1] for one in journey.readings]]))
    one = np.zeros(1, np.int64)
    rides = Rides(
        one, one.astype(np.int32), one.astype(np.int32), one + BEGIN_US, one + us(journey.minutes), np.array([0, len(sensed)]), [None]
    )
    judged = judge.judge(columns, rides, book, [carrier])
    out.add_rows(
        "excursions",
        [
            {
                "carrier": f"shipment/{journey.shipment_id}", "tag_id": journey.tag_id, "custody_id": custody_id, "excursion_id": at,
                "revision": 1, "final": True, "state": "ENDED", "limit_id": judged.names[row["name"]],
                "severity": "CRITICAL", "started_at": int(row["started_us"]), "violation_us": int(row["violation_us"]),
            }
            for at, row in enumerate(judged.excursions)
        ],
    )  # fmt: skip
