"""Exposure by the handbook (section 3), said as plainly as possible: the whole series at once, window by window.

Differently built from the kernel on purpose: first the stretches that readings hold inside a window, then the runs among
them, then each run's trigger from its list of stretches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

SINGLE, CUMULATIVE, MKT = 1, 2, 3


@dataclass
class Limit:
    threshold: float
    direction: int = 1
    inclusive: bool = False
    mode: int = SINGLE
    clear: float | None = None
    allowance_us: int | None = 0
    beyond: float | None = None
    beyond_allowance_us: int = 0
    max_gap_us: int = 3_600_000_000

    @property
    def tolerance(self) -> float:
        return 1e-9 if self.mode == MKT else 0.0

    def violates(self, value: float) -> bool:
        if self.direction == 1:
            return value >= self.threshold - self.tolerance if self.inclusive else value > self.threshold + self.tolerance
        return value <= self.threshold + self.tolerance if self.inclusive else value < self.threshold - self.tolerance

    def ends_a_run(self, value: float) -> bool:
        if self.violates(value):
            return False
        if self.clear is None:
            return True
        return value <= self.clear + self.tolerance if self.direction == 1 else value >= self.clear - self.tolerance

    def is_beyond(self, value: float) -> bool:
        if self.beyond is None:
            return False
        return value > self.beyond if self.direction == 1 else value < self.beyond

    def worst(self, stretches: Sequence[Stretch]) -> Stretch:
        """The stretch with the extreme value, the earliest of equals."""
        extreme = max if self.direction == 1 else min
        value = extreme(stretch.value for stretch in stretches)
        return next(stretch for stretch in stretches if stretch.value == value)


@dataclass
class Window:
    from_us: int
    until_us: int
    limit: Limit


@dataclass
class Stretch:
    """A reading inside a window: from its sensed time (or the window's start) on, covered up to `covered_until_us`."""

    from_us: int
    covered_until_us: int
    value: float
    is_reading: bool = True

    @property
    def us(self) -> int:
        return self.covered_until_us - self.from_us


@dataclass
class Run:
    start_us: int
    triggered_us: int | None  # None: no excursion
    end_us: int | None  # None: open
    run_us: int
    uncovered_us: int
    extreme: float
    extreme_us: int
    weighted: float
    readings: int

    @property
    def mean(self) -> float:
        return self.weighted / self.run_us if self.run_us else self.extreme


@dataclass
class Exposure:
    violation_us: int = 0
    covered_us: int = 0
    uncovered_us: int = 0
    extreme: float | None = None
    extreme_us: int | None = None
    readings: int = 0
    runs: list[Run] = field(default_factory=list)

    @property
    def excursions(self) -> list[Run]:
        return [run for run in self.runs if run.triggered_us is not None]


def judge(
    readings: Sequence[tuple[int, float]],
    windows: Sequence[Window],
    from_us: int,
    until_us: int | None = None,
    violation_us: int = 0,
    end_value: float | None = None,
) -> Exposure:
    """Judge one tag's readings of one custody (sensed_us, value; in judging order, NaN = not there) against one limit.

    from_us: custody start plus ignore period. until_us: the custody's end; None while it is open. violation_us: from
    earlier custodies. end_value: a value (an MKT) that is there at the custody's end.
    """
    there = [(t, v) for t, v in readings if not math.isnan(v) and (until_us is None or t < until_us)]
    exposure = Exposure(violation_us=violation_us)
    newest_us = there[-1][0] if there else from_us
    known_until_us = newest_us if until_us is None else until_us
    for window in windows:
        low = max(window.from_us, from_us)
        high = window.until_us if until_us is None else min(window.until_us, until_us)
        if low >= high:
            continue
        ended = known_until_us >= high
        stretches = _stretches(there, low, high, known_until_us, window.limit.max_gap_us)
        if end_value is not None and high == until_us:
            stretches.append(Stretch(high, high, end_value, is_reading=False))
        covered_us = sum(stretch.us for stretch in stretches)
        exposure.covered_us += covered_us
        exposure.uncovered_us += max(0, min(high, known_until_us) - low) - covered_us
        exposure.readings += sum(stretch.is_reading for stretch in stretches)
        if stretches:
            worst = window.limit.worst([Stretch(0, 0, exposure.extreme), *stretches] if exposure.extreme is not None else stretches)
            if worst.value != exposure.extreme:
                exposure.extreme, exposure.extreme_us = worst.value, worst.from_us
        for members, end_us in _runs(stretches, window.limit, high if ended else None):
            run = _describe(members, end_us, known_until_us, window.limit, exposure.violation_us)
            exposure.runs.append(run)
            exposure.violation_us += run.run_us
    return exposure


def _stretches(there: list[tuple[int, float]], low: int, high: int, known_until_us: int, max_gap_us: int) -> list[Stretch]:
    stretches = []
    for i, (t, value) in enumerate(there):
        next_us = there[i + 1][0] if i + 1 < len(there) else known_until_us
        held_until_us = min(next_us, t + max_gap_us, high)
        if low <= t < high:
            stretches.append(Stretch(t, held_until_us, value))
        elif t < low < held_until_us:
            stretches.append(Stretch(low, held_until_us, value))
    return stretches


def _runs(stretches: list[Stretch], limit: Limit, window_end_us: int | None) -> list[tuple[list[Stretch], int | None]]:
    """The members of each run and its end; None: open."""
    runs: list[tuple[list[Stretch], int | None]] = []
    members: list[Stretch] = []
    for stretch in stretches:
        if members and limit.ends_a_run(stretch.value):
            runs.append((members, stretch.from_us))
            members = []
        elif members or limit.violates(stretch.value):
            members = [*members, stretch]
    if members:
        runs.append((members, window_end_us))
    return runs


def _describe(members: list[Stretch], end_us: int | None, known_until_us: int, limit: Limit, before_us: int) -> Run:
    weighted = 0.0
    for stretch in members:
        weighted += stretch.value * stretch.us
    worst = limit.worst(members)
    run_us = sum(stretch.us for stretch in members)
    start_us = members[0].from_us
    return Run(
        start_us=start_us,
        triggered_us=_triggered(members, limit, before_us),
        end_us=end_us,
        run_us=run_us,
        uncovered_us=(known_until_us if end_us is None else end_us) - start_us - run_us,
        extreme=worst.value,
        extreme_us=worst.from_us,
        weighted=weighted,
        readings=sum(stretch.is_reading for stretch in members),
    )


def _triggered(members: list[Stretch], limit: Limit, before_us: int) -> int | None:
    if limit.allowance_us is None:
        return None
    reached = [_reached(members, limit.allowance_us - (before_us if limit.mode == CUMULATIVE else 0))]
    if limit.mode == SINGLE:
        first_beyond = next((stretch.from_us for stretch in members if limit.is_beyond(stretch.value)), None)
        sooner = _reached(members, limit.beyond_allowance_us)
        if first_beyond is not None and sooner is not None:
            reached.append(max(first_beyond, sooner))
    return min((at for at in reached if at is not None), default=None)


def _reached(members: list[Stretch], allowance_us: int) -> int | None:
    """When the time in violation reaches the allowance."""
    if allowance_us <= 0:
        return members[0].from_us
    spent_us = 0
    for stretch in members:
        if spent_us + stretch.us >= allowance_us:
            return stretch.from_us + allowance_us - spent_us
        spent_us += stretch.us
    return None
