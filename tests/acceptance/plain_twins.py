"""What the slow reference makes of a party's readings and custodies: what both of its twins must be told."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tests.acceptance.twins import Facts, Leg, Party, Rule, Sensed
from tests.reference import exposure as plain
from tests.reference import geo, mkt, quality

DIGITS = 6
"""Extremes, means and MKT are compared to a millionth of a degree: the reference sums in another order than the product."""

Reading = tuple[int, float]


@dataclass
class Expected:
    """Of one party, by the same keys as `twins.Found`."""

    excursions: dict[Facts, Facts] = field(default_factory=dict)
    sums: dict[Facts, Facts] = field(default_factory=dict)
    mkt: dict[Facts, float] = field(default_factory=dict)
    visits: list[Facts] = field(default_factory=list)


def expected(party: Party) -> Expected:
    """Each tag by itself, each custody from its own readings in sensed order."""
    made = Expected()
    stays: dict[int, list[tuple[int, int]]] = {}
    for name, readings in party.tags.items():
        for limit_id, rule in party.rules.items():
            _judge(made, party, name, limit_id, rule, _series(party, rule, readings))
        for leg in party.legs if party.fence is not None else ():
            for event, *times in _visits(party, leg, readings):
                if event == "PASSED_THROUGH":
                    made.visits.append((leg.shipment, event, name, *times))
                elif event == "EXIT":  # every custody has ended, so each visit has an exit
                    stays.setdefault(leg.shipment, []).append((times[0], times[1]))
    for shipment, mine in stays.items():
        made.visits.extend((shipment, "VISIT", "", *stay) for stay in _union(mine))
    made.visits.sort(key=repr)
    return made


def rounded(facts: Iterable[Any]) -> Facts:
    """With its floats to so many digits as can be compared."""
    return tuple(round(one, DIGITS) + 0.0 if isinstance(one, float) else one for one in facts)


def _series(party: Party, rule: Rule, readings: Sequence[Sensed]) -> list[Reading]:
    """One metric of a tag, whatever it rode on; NaN: absent, or flagged fail, which is the same."""
    times = [one.at_us for one in readings]
    values = [one.values.get(rule.metric) for one in readings]
    if party.quality and rule.metric == "temperature_c":
        flags = quality.flags(party.quality, times, values)
        values = [None if flag == quality.FAIL else value for flag, value in zip(flags, values, strict=True)]
    return [(at_us, math.nan if value is None else value) for at_us, value in zip(times, values, strict=True)]


def _judge(made: Expected, party: Party, name: str, limit_id: str, rule: Rule, series: Sequence[Reading]) -> None:
    """All custodies of one tag under one limit; those on one shipment add up, with uncovered time between."""
    limit = rule.limit
    before: dict[int, list[tuple[Leg, plain.Exposure]]] = {}
    means: dict[int, list[tuple[float, bool]]] = {}
    for leg in party.legs:
        mine = [one for one in series if leg.from_us <= one[0] < leg.until_us]
        course, end_value = (mine, None) if limit.mode != plain.MKT else _kinetic(mine, leg, rule)
        earlier = before.setdefault(leg.shipment, [])
        summed = earlier[-1][1].violation_us if earlier else 0
        judged = plain.judge(course, [plain.Window(-(1 << 60), 1 << 60, limit)], leg.from_us, leg.until_us, summed, end_value)
        earlier.append((leg, judged))
        for run in judged.excursions:
            made.excursions[leg.shipment, name, limit_id, run.start_us] = rounded(
                (run.triggered_us, run.end_us, run.run_us, run.uncovered_us, run.readings, run.extreme, run.extreme_us, run.mean)
            )
        mean = mkt.mkt_c(mkt.held(mine, leg.from_us, leg.until_us, limit.max_gap_us))
        means.setdefault(leg.shipment, []).append((mean, bool(judged.excursions)))
    for shipment, rides in before.items():
        made.sums[shipment, name, limit_id] = _added(limit, rides)
        if rule.metric == "temperature_c" and limit.mode != plain.MKT:
            with_excursions = [mean for mean, excursions in means[shipment] if excursions]
            there = [mean for mean in with_excursions or [mean for mean, _ in means[shipment]] if not math.isnan(mean)]
            if there:
                made.mkt[shipment, name, limit_id] = round(max(there), DIGITS)


def _added(limit: plain.Limit, rides: Sequence[tuple[Leg, plain.Exposure]]) -> Facts:
    extremes = [plain.Stretch(one.extreme_us or 0, 0, one.extreme) for _, one in rides if one.extreme is not None]
    worst = limit.worst(extremes) if extremes else None
    between_us = sum(later.from_us - leg.until_us for (leg, _), (later, _) in itertools.pairwise(rides))
    return rounded(
        (
            rides[-1][1].violation_us,
            sum(one.covered_us for _, one in rides),
            sum(one.uncovered_us for _, one in rides) + between_us,
            sum(one.readings for _, one in rides),
            sum(len(one.excursions) for _, one in rides),
            None if worst is None else worst.value,
            None if worst is None else worst.from_us,
        )
    )


def _kinetic(mine: Sequence[Reading], leg: Leg, rule: Rule) -> tuple[list[Reading], float | None]:
    """The trailing MKT at each reading and at the end of custody, of what can reach into the window."""
    there = [(at_us, value) for at_us, value in mine if not math.isnan(value)]
    times = [at_us for at_us, _ in there]

    def trailing(at_us: int) -> float:
        first = bisect_left(times, at_us - rule.window_us - rule.limit.max_gap_us)
        part = there[first : bisect_right(times, at_us)]
        return round(mkt.trailing_mkt_c(part, at_us, rule.window_us, rule.limit.max_gap_us, leg.from_us), 10)

    last = trailing(leg.until_us)
    return [(at_us, trailing(at_us)) for at_us in times], None if math.isnan(last) else last


@cache
def _distance(p: tuple[float, float], q: tuple[float, float]) -> float:
    return float(geo.distance(p, q))  # type: ignore[no-untyped-call]


def _meets(p: tuple[float, float], q: tuple[float, float], fence: dict[str, Any]) -> bool:
    """No way from p to q comes nearer to the middle than this: so the slow search is left for those that may meet the fence."""
    nearest = (_distance(p, fence["center"]) + _distance(q, fence["center"]) - _distance(p, q)) / 2
    return nearest <= fence["radius"] and bool(geo.meets(p, q, fence))  # type: ignore[no-untyped-call]


def _visits(party: Party, leg: Leg, readings: Sequence[Sensed]) -> list[Facts]:
    fixes = [(one.at_us, *one.fix) for one in readings if one.fix is not None and leg.from_us <= one.at_us < leg.until_us]
    events: list[Facts] = geo.visits(fixes, party.fence, from_us=leg.from_us, until_us=leg.until_us, meeting=_meets)  # type: ignore[no-untyped-call]
    return events


def _union(stays: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Stays of several tags that overlap or touch are one stay of the carrier."""
    found: list[tuple[int, int]] = []
    for entered_us, left_us in sorted(stays):
        if found and entered_us <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], left_us))
        else:
            found.append((entered_us, left_us))
    return found
