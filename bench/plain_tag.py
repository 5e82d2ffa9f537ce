"""One tag's rules in plain Python, for readings in order: three limits and a fence. What a first version of such a system has.

It imports nothing of Waybill, so that a peer in an environment of its own can use it; the numbers come as `Rules`.
"""

from __future__ import annotations

from dataclasses import dataclass

from geopy.distance import geodesic

Excursion = tuple[int, str, int, int, "int | None"]
Visit = tuple[int, int, "int | None"]

LATITUDE_BAND_DEG = 0.06
"""Farther from the fence's centre than this in latitude no fix can be inside (5 km are 0.045 degrees)."""


@dataclass(frozen=True)
class Rules:
    """The names, thresholds in degrees C and allowances in microseconds of the three limits, and the fence's circle."""

    warm: str
    cold: str
    total: str
    warm_above_c: float
    warm_clear_c: float
    warm_allowance_us: int
    cold_below_c: float
    total_allowance_us: int
    center: tuple[float, float]
    radius_m: float


class PlainTag:
    """See the module."""

    def __init__(self, tag: int, rules: Rules) -> None:
        self.tag, self.rules = tag, rules
        self.last_us: int | None = None
        self.runs: dict[str, tuple[int, int, int | None]] = {}
        self.before_us = 0
        self.side, self.candidate, self.candidate_us, self.entered_us = 0, 0, 0, 0
        self.excursions: list[Excursion] = []
        self.visits: list[Visit] = []

    def read(self, at_us: int, temperature: float, latitude: float, longitude: float) -> None:
        """Take a reading that is newer than the one before."""
        rules = self.rules
        step = 0 if self.last_us is None else min(at_us - self.last_us, 3_600_000_000)
        self.last_us = at_us
        warm = temperature > rules.warm_above_c
        self._limit(rules.warm, at_us, step, warm, temperature <= rules.warm_clear_c, rules.warm_allowance_us, 0)
        cold = temperature < rules.cold_below_c
        self._limit(rules.cold, at_us, step, cold, not cold, 0, 0)
        self.before_us += self._limit(rules.total, at_us, step, warm, not warm, rules.total_allowance_us, self.before_us)
        self._fence(at_us, latitude, longitude)

    def _limit(self, name: str, at_us: int, step: int, violates: bool, ends: bool, allowance_us: int, before_us: int) -> int:
        """Move one limit on; returns how long a run was that ended now."""
        run = self.runs.get(name)
        if run is None:
            if violates:
                self.runs[name] = (at_us, 0, at_us if before_us >= allowance_us else None)
            return 0
        started, spent, triggered = run
        spent += step
        if triggered is None and spent + before_us >= allowance_us:
            triggered = at_us - (spent + before_us - allowance_us)
        if not ends:
            self.runs[name] = (started, spent, triggered)
            return 0
        del self.runs[name]
        if triggered is not None:
            self.excursions.append((self.tag, name, started, triggered, at_us))
        return spent

    def _fence(self, at_us: int, latitude: float, longitude: float) -> None:
        center = self.rules.center
        near = abs(latitude - center[0]) < LATITUDE_BAND_DEG
        side = 1 if near and geodesic(center, (latitude, longitude)).meters <= self.rules.radius_m else 2
        if side == self.side:
            self.candidate = 0
        elif side != self.candidate:
            self.candidate, self.candidate_us = side, at_us
        else:
            if side == 1:
                self.entered_us = self.candidate_us
            elif self.side == 1:
                self.visits.append((self.tag, self.entered_us, self.candidate_us))
            self.side, self.candidate = side, 0

    def result(self) -> tuple[list[Excursion], list[Visit]]:
        """What is stated, open ones too."""
        still = [(self.tag, name, run[0], run[2], None) for name, run in self.runs.items() if run[2] is not None]
        inside: list[Visit] = [(self.tag, self.entered_us, None)] if self.side == 1 else []
        return self.excursions + still, self.visits + inside
