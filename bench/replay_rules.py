"""The rules of the replay measurement in plain Python, for one ride's readings in order: what the peers judge by. Imports nothing of ours.

Quality (range, spike against the mean of both neighbours), three limits, the mean kinetic temperature, one geofence.
"""

from __future__ import annotations

import math
from typing import Any

from geopy.distance import geodesic

MINUTE_US = 60_000_000
GAP_US = 60 * MINUTE_US
CENTER, RADIUS_M = (53.5511, 9.9937), 5_000.0
WARM_ABOVE_C, WARM_CLEAR_C, WARM_ALLOWANCE_US = 8.0, 7.0, 10 * MINUTE_US
COLD_BELOW_C = 2.0
TOTAL_ALLOWANCE_US = 60 * MINUTE_US
FAIL_LOW_C, FAIL_HIGH_C, SPIKE_SUSPECT_C, SPIKE_FAIL_C = -40.0, 45.0, 8.0, 15.0
LATITUDE_BAND_DEG = 0.06
"""Farther from the fence's centre than this in latitude no fix can be inside."""
SHIFT = -10_000.0 / 298.15

NAMES = ("warm", "cold", "total")
Excursion = tuple[int, str, int, int, int, int, float, int, float, int]
"""(ride, limit, started, triggered, ended, in violation us, extreme, its time, mean, readings)."""
Visit = tuple[int, int, int]
"""(ride, entered, left)."""


class _Run:
    """An open run of one limit."""

    __slots__ = ("covered", "extreme", "extreme_us", "readings", "start", "triggered", "weighted")

    def __init__(self, at: int, value: float) -> None:
        self.start, self.extreme, self.extreme_us, self.readings = at, value, at, 1
        self.covered, self.weighted, self.triggered = 0, 0.0, -1


class PlainRide:
    """One custody of one tag."""

    def __init__(self, ride: int) -> None:
        self.ride = ride
        self.before = self.pending = math.nan
        self.pending_us = -1
        self.last_us = -1
        self.last = math.nan
        self.runs: list[_Run | None] = [None, None, None]
        self.total_us = 0
        self.kinetic = 0.0
        self.covered_us = 0
        self.side, self.candidate, self.candidate_us, self.entered_us = 0, 0, 0, 0
        self.excursions: list[Excursion] = []
        self.visits: list[Visit] = []

    def read(self, at: int, value: float, latitude: float, longitude: float) -> None:
        """Take the next reading. Its spike test waits for its successor."""
        self._fence(at, latitude, longitude)
        if self.pending_us >= 0:
            self._settle(value)
        self.before, self.pending, self.pending_us = self.pending, value, at

    def end(self, until: int) -> float:
        """The custody ends: its MKT."""
        if self.pending_us >= 0:
            self._settle(math.nan)
        self._hold(until)
        for limit in range(3):
            self._ended(limit, until)
        if self.side == 1:
            self.visits.append((self.ride, self.entered_us, until))
        return 10_000.0 / -(SHIFT + math.log(self.kinetic / self.covered_us)) - 273.15 if self.covered_us else math.nan

    def _settle(self, after: float) -> None:
        value = self.pending
        spike = abs(value - (self.before + after) / 2)  # NaN without both neighbours: no spike
        if not (FAIL_LOW_C <= value <= FAIL_HIGH_C) or spike > SPIKE_FAIL_C:
            return
        at = self.pending_us
        self._hold(at)
        self.last_us, self.last = at, value
        warm = value > WARM_ABOVE_C
        self._judge(0, at, value, warm, value <= WARM_CLEAR_C, 1)
        self._judge(1, at, value, value < COLD_BELOW_C, value >= COLD_BELOW_C, -1)
        self._judge(2, at, value, warm, not warm, 1)

    def _hold(self, at: int) -> None:
        """The last value held until now."""
        if self.last_us < 0:
            return
        held = min(at - self.last_us, GAP_US)
        self.kinetic += math.exp(-10_000.0 / (self.last + 273.15) - SHIFT) * held
        self.covered_us += held
        for limit, run in enumerate(self.runs):
            if run is None:
                continue
            if run.triggered < 0:
                missing = WARM_ALLOWANCE_US - run.covered if limit == 0 else TOTAL_ALLOWANCE_US - self.total_us
                if held >= missing:
                    run.triggered = self.last_us + missing
            run.covered += held
            run.weighted += self.last * held
            if limit == 2:
                self.total_us += held

    def _judge(self, limit: int, at: int, value: float, violates: bool, ends: bool, sign: int) -> None:
        run = self.runs[limit]
        if run is None:
            if violates:
                self.runs[limit] = run = _Run(at, value)
                if limit == 1 or (limit == 2 and self.total_us >= TOTAL_ALLOWANCE_US):
                    run.triggered = at
            return
        if ends:
            self._ended(limit, at)
            return
        run.readings += 1
        if (value - run.extreme) * sign > 0:
            run.extreme, run.extreme_us = value, at

    def _ended(self, limit: int, at: int) -> None:
        run = self.runs[limit]
        if run is not None and run.triggered >= 0:
            mean = run.weighted / run.covered if run.covered else run.extreme
            told = (self.ride, NAMES[limit], run.start, run.triggered, at, run.covered, run.extreme, run.extreme_us, mean, run.readings)
            self.excursions.append(told)
        self.runs[limit] = None

    def _fence(self, at: int, latitude: float, longitude: float) -> None:
        near = abs(latitude - CENTER[0]) < LATITUDE_BAND_DEG
        side = 1 if near and geodesic(CENTER, (latitude, longitude)).meters <= RADIUS_M else 2
        if side == self.side:
            self.candidate = 0
        elif side != self.candidate:
            self.candidate, self.candidate_us = side, at
        else:
            if side == 1:
                self.entered_us = self.candidate_us
            elif self.side == 1:
                self.visits.append((self.ride, self.entered_us, self.candidate_us))
            self.side, self.candidate = side, 0


def outcome(rides: dict[int, PlainRide], mkt_c: dict[int, float], seconds: float, readings: int) -> dict[str, Any]:
    """What a peer reports."""
    return {
        "excursions": [one for ride in rides.values() for one in ride.excursions],
        "visits": [one for ride in rides.values() for one in ride.visits],
        "mkt_c": sorted(mkt_c.items()),
        "seconds": seconds,
        "readings": readings,
    }
