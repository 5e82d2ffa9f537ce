"""What the slow reference makes of each tag's accepted readings: excursions, sums, visits, flags. Imports nothing of Waybill."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.faults.limits import FENCE, LIMITS, MKT_LIMITS, MKT_WINDOW_US, QUALITY
from tests.faults.parallel import on_all_cores
from tests.faults.world import FAR_DEG, FENCE_CENTER, MINUTE_US, ROUND, START_US, Ride, World
from tests.reference import exposure as plain
from tests.reference import geo, mkt, quality

I8 = npt.NDArray[np.int64]
F8 = npt.NDArray[np.float64]
Facts = tuple[Any, ...]
Reading = tuple[int, float]

TOLD_AHEAD = 3
"""A ride is told at most two rounds before its first (see World.rides)."""


@dataclass
class Judged:
    """Of one tag. Excursions by (tag, carrier, limit, start), sums by (tag, start of custody, limit), visits as rows, flags by reading.

    `unheard`: the keys of sums of a custody without a reading, which need not be stated.
    """

    excursions: dict[Facts, Facts] = field(default_factory=dict)
    sums: dict[Facts, Facts] = field(default_factory=dict)
    unheard: set[Facts] = field(default_factory=set)
    visits: list[Facts] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)


def expected(world: World, stops: dict[int, int], series: dict[int, tuple[I8, F8]], readings: int) -> list[Judged]:
    """By tag."""
    work = [(world, tag, stops[tag % world.streams], *series[tag]) for tag in range(world.tags)]
    return on_all_cores(judge_tag, work, readings // 100)


def judge_tag(work: tuple[World, int, int, I8, F8]) -> Judged:
    """One tag's readings (minutes, temperatures) over its rides of some rounds."""
    world, tag, rounds, minutes, temperatures = work
    found = Judged()
    before: Counter[tuple[int, str]] = Counter()
    times = [START_US + minute * MINUTE_US + tag * 1_000 for minute in minutes.tolist()]
    values = temperatures.tolist()
    if world.checked(tag):
        found.flags = quality.flags(QUALITY, times, values)
        values = [math.nan if flag == quality.FAIL else value for value, flag in zip(values, found.flags, strict=True)]
    fixes = world.positions(np.full(len(minutes), tag, np.int32), minutes.astype(np.int32)).T.tolist() if world.positional(tag) else []
    for ride in world.rides(tag, rounds + TOLD_AHEAD):
        if ride.from_minute >= rounds * ROUND:
            _unheard(world, ride, found)
            continue
        low, high = np.searchsorted(minutes, [ride.from_minute, ride.until_minute]).tolist()
        mine = list(zip(times[low:high], values[low:high], strict=True))
        _judge_ride(world, ride, mine, before, found)
        if fixes:
            _visit(world, ride, [(at, *fix, None) for at, fix in zip(times[low:high], fixes[low:high], strict=True)], found)
    return found


def _unheard(world: World, ride: Ride, found: Judged) -> None:
    """The sums of a ride of which nothing was sent any more."""
    for name in MKT_LIMITS if world.has_mkt(ride.shipment) else LIMITS:
        key = (world.tag_id(ride.tag), START_US + ride.from_minute * MINUTE_US, name)
        found.sums[key] = (0, 0, (ride.until_minute - ride.from_minute) * MINUTE_US, 0, None, None)
        found.unheard.add(key)


def _judge_ride(world: World, ride: Ride, mine: list[Reading], before: Counter[tuple[int, str]], found: Judged) -> None:
    tag_id = world.tag_id(ride.tag)
    from_us, until_us = START_US + ride.from_minute * MINUTE_US, START_US + ride.until_minute * MINUTE_US
    carrier = f"shipment/{world.shipment_id(ride.shipment)}"
    for name, limit in (MKT_LIMITS if world.has_mkt(ride.shipment) else LIMITS).items():
        course, end_value = mine, None
        if limit.mode == plain.MKT:
            course, end_value = _kinetic(mine, from_us, until_us, limit.max_gap_us)
        window = plain.Window(-(1 << 60), 1 << 60, limit)
        judged = plain.judge(course, [window], from_us, until_us, before[ride.shipment, name], end_value)
        for run in judged.excursions:
            facts = (run.triggered_us, run.end_us, run.run_us, run.uncovered_us, round(run.extreme, 6), run.extreme_us, run.readings)
            found.excursions[tag_id, carrier, name, run.start_us] = (*facts, round(run.mean, 6))
        violation_us = judged.violation_us - before[ride.shipment, name]
        extreme = None if judged.extreme is None else round(judged.extreme, 6)
        sums = (violation_us, judged.covered_us, judged.uncovered_us, judged.readings)
        found.sums[tag_id, from_us, name] = (*sums, extreme, judged.extreme_us)
        if not mine:
            found.unheard.add((tag_id, from_us, name))
        before[ride.shipment, name] = judged.violation_us


def _kinetic(mine: list[Reading], from_us: int, until_us: int, max_gap_us: int) -> tuple[list[Reading], float | None]:
    """The trailing MKT at each reading, and at the end of custody. Readings that hold nothing in a window are left out of its sum."""
    there = [(at, value) for at, value in mine if not math.isnan(value)]
    times = [at for at, _ in there]

    def trailing(at_us: int) -> float:
        first = bisect_left(times, at_us - MKT_WINDOW_US - max_gap_us)
        part = there[first : bisect_right(times, at_us)]
        return round(mkt.trailing_mkt_c(part, at_us, MKT_WINDOW_US, max_gap_us, from_us), 10)  # nearer ones are equal

    course = [(at, trailing(at)) for at in times]
    last = trailing(until_us)
    return course, None if math.isnan(last) else last


def _side(p: Sequence[float], accuracy: float | None, fence: dict[str, Any]) -> int:
    return -1 if abs(p[0] - FENCE_CENTER[0]) > FAR_DEG else int(geo.side(p, accuracy, fence))


def _meets(p: Sequence[float], q: Sequence[float], fence: dict[str, Any]) -> bool:
    if min(p[0], q[0]) > FENCE_CENTER[0] + FAR_DEG or max(p[0], q[0]) < FENCE_CENTER[0] - FAR_DEG:
        return False  # both on one side, kilometres away
    return bool(geo.meets(p, q, fence))


def _visit(world: World, ride: Ride, fixes: list[tuple[int, float, float, None]], found: Judged) -> None:
    from_us, until_us = START_US + ride.from_minute * MINUTE_US, START_US + ride.until_minute * MINUTE_US
    who = (world.tag_id(ride.tag), f"shipment/{world.shipment_id(ride.shipment)}")
    for event, *times in geo.visits(fixes, FENCE, from_us=from_us, until_us=until_us, side_of=_side, meeting=_meets):
        if event != "ENTER":  # every custody has ended, so each visit has an exit
            found.visits.append((*who, "VISIT" if event == "EXIT" else "PASSED", *times))
