"""Stability budgets: how much of its bands a part of a lot has used, over shipments and storage, never refunded (handbook 3).

A part of a lot is what is in one *place*: a handling unit on a carrier, or what is loose on it. Its use of a band is the time its carrier's
tags spent in the band while it was there, on top of what it brought along: a split copies, a merge takes the largest per band. Per band the
largest over the unit's own tags counts, or else over the carrier's. Everything is computed anew from readings and movements each time, so
late data needs no correction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from actors.rules.readings import F8, FOREVER_US, I8


class Band(NamedTuple):
    """(low, high] of a metric, as an item's stability budget has it; an end that is None is open. allowance_us: in total."""

    metric: str
    low: float | None
    high: float | None
    allowance_us: int


class Place(NamedTuple):
    """Where a part of a lot is: its carrier, and its handling unit there ("" for what is loose)."""

    carrier: str
    handling_unit_id: str = ""


class Step(NamedTuple):
    """What a movement did to a lot at a time: the places it took from and those it put to, and the places that were left empty.

    `since_us`: from when on the goods were in the places it took from, where no step says so (a delivery from outside: from the beginning).
    """

    at_us: int
    sources: tuple[Place, ...]
    targets: tuple[Place, ...]
    emptied: tuple[Place, ...] = ()
    since_us: int = 0


class Use(NamedTuple):
    """Time used of each band, and time that no reading covers, both in microseconds."""

    used_us: tuple[int, ...]
    uncovered_us: tuple[int, ...]


Accrual = Callable[[Place, int, int], Use]
"""(place, from_us, until_us) -> what goods there used meanwhile."""


def in_band_us(sensed_us: I8, values: F8, band: Band, from_us: int, until_us: int, max_gap_us: int) -> tuple[int, int]:
    """(time in the band, covered time) of one series within [from_us, until_us): a reading holds until the next, at most max_gap_us.

    sensed_us: in judging order; `until_us` (the custody's end at latest) ends the last hold. values: NaN where absent or failed.

    >>> in_band_us(np.array([0, 10]), np.array([9.0, 5.0]), Band("temperature_c", 8.0, 25.0, 0), 0, 30, 60)
    (10, 30)
    """
    there = ~np.isnan(values)
    sensed_us, values = sensed_us[there], values[there]
    if not len(sensed_us):
        return 0, 0
    ends = np.minimum(np.append(sensed_us[1:], FOREVER_US), sensed_us + max_gap_us)
    held = np.maximum(np.minimum(ends, until_us) - np.maximum(sensed_us, from_us), 0)
    inside = np.ones(len(values), np.bool_)
    if band.low is not None:
        inside &= values > band.low
    if band.high is not None:
        inside &= values <= band.high
    return int(held[inside].sum()), int(held.sum())


def worst_of(uses: Iterable[Use], bands: int) -> Use:
    """Per band the largest; of the uncovered time that of whoever used most, the least of equals. Nobody: nothing used."""
    best = [(0, 0)] * bands
    seen = False
    for use in uses:
        mine = [(used, -gap) for used, gap in zip(use.used_us, use.uncovered_us, strict=True)]
        best = mine if not seen else [max(pair) for pair in zip(best, mine, strict=True)]
        seen = True
    return Use(tuple(used for used, _ in best), tuple(-gap for _, gap in best))


@dataclass(slots=True)
class _Part:
    """The part of a lot in one place, up to `until_us`."""

    until_us: int
    used: list[int] = field(default_factory=list)
    uncovered: list[int] = field(default_factory=list)


def exposures(steps: Sequence[Step], aboard: Iterable[tuple[Place, int]], bands: int, accrual: Accrual, now_us: int) -> dict[Place, Use]:
    """What the parts of a lot have used by `now_us`, by place.

    steps: the lot's movements by time. aboard: parts that no movement tells of (on a shipment by its own papers), with their begin.
    """
    parts: dict[Place, _Part] = {}
    began = dict(aboard)

    def upto(place: Place, at_us: int, since_us: int) -> _Part:
        part = parts.get(place)
        if part is None:
            part = parts[place] = _Part(began.get(place, since_us), [0] * bands, [0] * bands)
        if at_us > part.until_us:
            use = accrual(place, part.until_us, at_us)
            part.used = [a + b for a, b in zip(part.used, use.used_us, strict=True)]
            part.uncovered = [a + b for a, b in zip(part.uncovered, use.uncovered_us, strict=True)]
            part.until_us = at_us
        return part

    for step in sorted(steps, key=lambda step: step.at_us):
        brought = [upto(place, step.at_us, step.since_us) for place in step.sources]
        found = worst_of([Use(tuple(part.used), tuple(part.uncovered)) for part in brought], bands)
        for place in step.emptied:
            parts.pop(place, None)
        for place in step.targets:
            part = upto(place, step.at_us, step.at_us)
            mine = worst_of([Use(tuple(part.used), tuple(part.uncovered)), found], bands)
            part.used, part.uncovered = list(mine.used_us), list(mine.uncovered_us)
    for place, since_us in began.items():
        upto(place, now_us, since_us)
    for place in parts:
        upto(place, now_us, now_us)
    return {place: Use(tuple(part.used), tuple(part.uncovered)) for place, part in parts.items()}


def remaining_us(bands: Sequence[Band], use: Use) -> tuple[int, ...]:
    """What is left of each band's allowance; below zero: overdrawn."""
    return tuple(band.allowance_us - used for band, used in zip(bands, use.used_us, strict=True))


def worst_place(bands: Sequence[Band], uses: Mapping[Place, Use]) -> Place | None:
    """The place whose part has the least left of some band; None where there is no part or no band."""
    if not bands or not uses:
        return None
    return min(uses, key=lambda place: (min(remaining_us(bands, uses[place])), place))
