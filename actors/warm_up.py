"""Has every compiled function of a shard compiled, by judging a few made-up readings: `python -m actors.warm_up`.

numba compiles at the first call, for half a minute in all, and keeps the result on the disk. Without this every shard of a fresh
installation would do the same at the same time, while its first callers wait.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from actors.journal.tables import CarrierPlan
from actors.part import Part
from actors.rules import codec
from actors.rules.plan import PlannedFence, make_plan
from actors.rules.profiles import Limit, Profile
from actors.rules.readings import CODE, I4, MINUTE_US, NO_SEQUENCE, Batch
from actors.sensor_tag import SensorTags
from actors.tags.commands import COMMANDS

START_US = 1_700_000_000_000_000
CARRIERS = {"plain": "shipment/plain", "special": "shipment/special"}
QUALITY = {"metrics": {"temperature_c": {"fail_high": 60.0, "spike_suspect": 5.0, "spike_fail": 10.0}}}
SQUARE = [[1.0, 1.0], [1.0, 2.0], [2.0, 2.0], [2.0, 1.0]]
HOT = Limit("hot", "temperature_c", "above", 8.0, clear=7.0, allowance_us=2 * MINUTE_US)
SUM = Limit("sum", "temperature_c", "above", 8.0, mode="cumulative", allowance_us=2 * MINUTE_US)
MKT = Limit("mkt", "temperature_c", "above", 8.0, mode="mkt", window_us=60 * MINUTE_US)
FENCES = (
    PlannedFence("circle", "circle", {"center": [1.0, 1.0], "radius_m": 1000.0}),
    PlannedFence("polygon", "polygon", {"rings": [SQUARE]}),
    PlannedFence("corridor", "corridor", {"points": SQUARE, "half_width_m": 1000.0}),
)


class _Nothing:
    """A journal with nothing in it but the carriers' plans (see `actors.sensor_tag.Reads`)."""

    def __init__(self) -> None:
        self.written: list[Batch] = []
        limits = {"plain": (HOT, SUM), "special": (HOT, MKT)}
        self.plans = {
            carrier: make_plan(carrier, 1, [(0, Profile(profile_id=name, version=1, name=name, limits=limits[name]))], fences=FENCES)
            for name, carrier in CARRIERS.items()
        }

    def plan(self, carrier: str) -> CarrierPlan:
        return CarrierPlan(carrier=carrier, shard=0, revision=1, body=self.plans[carrier].to_data())

    def history(self, tags: list[int], from_us: int, until_us: int) -> tuple[I4, Batch]:
        batch = self.written[0]
        return np.zeros(len(batch), np.int32), batch

    def portion(self, tag: int, from_us: int, until_us: int, readings: int) -> int:
        return until_us

    def tag(self, tag_id: str) -> None:
        return None

    def none(self, *_: Any) -> list[Any]:
        return []

    custodies = custodies_of = excursions = visits = exposures = exposures_of = none

    def lots(self, carriers: list[str]) -> dict[tuple[str, str], list[str]]:
        return {}


def readings(minutes: list[int]) -> Batch:
    """Readings of both tags at these minutes, some of them outside the limits, on a way through the fences; as from the journal."""
    times = np.repeat(np.array(minutes, np.int64) * MINUTE_US + START_US, len(CARRIERS))
    tags = np.tile(np.arange(len(CARRIERS), dtype=np.int32), len(minutes))
    none = np.full(len(times), NO_SEQUENCE, np.int64)
    codes = (CODE["temperature_c"], CODE["latitude_deg"], CODE["longitude_deg"])
    values = np.array([5.0 + times // MINUTE_US % 7, 0.9 + times % 13 / 10, 1.0 + times % 11 / 10])
    return codec.decode(codec.encode(Batch(tags, times, none, none, codes, values))).batch


def judge() -> SensorTags:
    """Judge readings in order, late and repeated, with limits of every mode, fences and quality settings; keep the state, take it back."""
    journal, now_us = _Nothing(), START_US + 24 * 60 * MINUTE_US
    tags = SensorTags(0, 1 << 20, journal)
    COMMANDS["tag.register"](tags, {"tag_id": "special", "quality": QUALITY}, now_us)
    for tag_id, carrier in CARRIERS.items():
        COMMANDS["tag.assign"](tags, {"tag_id": tag_id, "carrier": carrier, "from_us": START_US}, now_us)
    ids = "\n".join(CARRIERS).encode()
    for minutes in ([*range(0, 60, 2)], [*range(60, 90, 2)], [31, 33, 35], [30, 32], [100, 91, 92]):
        journal.written.append(readings(minutes))
        tags.ingest([Part(ids, journal.written[-1])], now_us)
    tags.tick(now_us)
    kept = tags.dump()
    tags.restore(kept)
    return tags


if __name__ == "__main__":
    judge()
