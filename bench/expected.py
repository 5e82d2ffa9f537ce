"""What a workload must lead to, worked out in another way than Waybill does it, before any figure is printed.

`judge` goes minute by minute with all tags as one numpy vector. `against_reference` holds it against the slow reference of the
tests on some tags. `differences` compares it with what the database says, excursion for excursion and visit for visit.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from geopy.distance import geodesic

from bench import workload
from bench.workload import CENTER, COLD, MINUTE_US, RADIUS_M, TOTAL, WARM, Workload
from tests.reference import exposure as plain
from tests.reference import geo

B1 = npt.NDArray[np.bool_]
I8 = npt.NDArray[np.int64]
F8 = npt.NDArray[np.float64]

SEGMENT = 256
EARTH_M = 6_371_008.8
BAND = 0.01
"""The haversine distance may be this much off; nearer to the boundary than that the geodesic decides."""

Excursion = tuple[int, str, int, int, int | None]
"""(tag, limit, started_us, triggered_us, ended_us or None while open)."""
Visit = tuple[int, int, int | None]
"""(tag, entered_us, left_us or None)."""


@dataclass
class Expected:
    """What stands in the end: sets, so that a repetition would be found."""

    readings: int = 0
    excursions: list[Excursion] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)


class _Limit:
    """One limit's runs over all tags."""

    def __init__(self, name: str, tags: int, allowance_us: int, cumulative: bool) -> None:
        self.name, self.allowance_us, self.cumulative = name, allowance_us, cumulative
        self.inside = np.zeros(tags, np.bool_)
        self.started = np.zeros(tags, np.int64)
        self.triggered = np.full(tags, -1, np.int64)
        self.spent = np.zeros(tags, np.int64)
        self.before = np.zeros(tags, np.int64)

    def minute(self, at_us: int, violating: B1, ending: B1, found: Expected) -> None:
        """Readings at `at_us`, one a tag, each a minute after the one before."""
        self.spent[self.inside] += MINUTE_US
        total = self.spent + self.before if self.cumulative else self.spent
        reached = self.inside & (self.triggered < 0) & (total >= self.allowance_us)
        self.triggered[reached] = at_us - (total[reached] - self.allowance_us)
        over = self.inside & ending
        for tag in np.flatnonzero(over & (self.triggered >= 0)).tolist():
            found.excursions.append((tag, self.name, int(self.started[tag]), int(self.triggered[tag]), at_us))
        self.before[over] += self.spent[over]
        begins = ~self.inside & violating
        self.started[begins] = at_us
        self.spent[begins] = 0
        self.triggered[over] = -1
        at_once = begins & ((self.before if self.cumulative else 0) >= np.int64(self.allowance_us))
        self.triggered[begins] = -1
        self.triggered[at_once] = at_us
        self.inside = (self.inside & ~over) | begins

    def still_open(self, found: Expected) -> None:
        """Confirmed runs that go on."""
        for tag in np.flatnonzero(self.inside & (self.triggered >= 0)).tolist():
            found.excursions.append((tag, self.name, int(self.started[tag]), int(self.triggered[tag]), None))


def judge(work: Workload, minutes: int | None = None) -> Expected:
    """The excursions and visits of the first `minutes` minutes (default all) of a workload."""
    until = work.minutes if minutes is None else minutes
    found = Expected(readings=work.tags * until)
    warm = _Limit(WARM, work.tags, workload.WARM_ALLOWANCE_US, False)
    cold = _Limit(COLD, work.tags, 0, False)
    total = _Limit(TOTAL, work.tags, workload.TOTAL_ALLOWANCE_US, True)
    confirmed, candidate = np.zeros(work.tags, np.int8), np.zeros(work.tags, np.int8)
    candidate_us, entered_us = np.zeros(work.tags, np.int64), np.zeros(work.tags, np.int64)
    for first in range(0, until, SEGMENT):
        last = min(first + SEGMENT, until)
        values = work.values(first, last)
        for k, at_us in enumerate(work.sensed_us(first, last).tolist()):
            t = values[k, :, 0]
            warm.minute(at_us, t > workload.WARM_ABOVE_C, t <= workload.WARM_CLEAR_C, found)
            cold.minute(at_us, t < workload.COLD_BELOW_C, t >= workload.COLD_BELOW_C, found)
            total.minute(at_us, t > workload.WARM_ABOVE_C, t <= workload.WARM_ABOVE_C, found)
            side = np.where(inside_fence(values[k, :, 1], values[k, :, 2]), 1, 2).astype(np.int8)
            second = (side != confirmed) & (candidate == side)
            for tag in np.flatnonzero(second & (side == 2) & (confirmed == 1)).tolist():
                found.visits.append((tag, int(entered_us[tag]), int(candidate_us[tag])))
            enters = second & (side == 1)
            entered_us[enters] = candidate_us[enters]
            confirmed[second] = side[second]
            fresh = (side != confirmed) & (candidate != side)
            candidate_us[fresh] = at_us
            candidate = np.where(side == confirmed, 0, side).astype(np.int8)
    for limit in (warm, cold, total):
        limit.still_open(found)
    found.visits += [(tag, int(entered_us[tag]), None) for tag in np.flatnonzero(confirmed == 1).tolist()]
    return found


def inside_fence(latitude: F8, longitude: F8) -> B1:
    """Whether each fix is inside: the haversine where it is clear, the geodesic near the boundary."""
    low, high = np.radians(latitude), np.radians(CENTER[0])
    half = np.sin((low - high) / 2) ** 2 + np.cos(low) * np.cos(high) * np.sin(np.radians(longitude - CENTER[1]) / 2) ** 2
    far_m = 2 * EARTH_M * np.arcsin(np.sqrt(half))
    inside = far_m <= RADIUS_M
    for i in np.flatnonzero(np.abs(far_m - RADIUS_M) < BAND * RADIUS_M).tolist():
        inside[i] = geodesic(CENTER, (latitude[i], longitude[i])).meters <= RADIUS_M
    return inside


def against_reference(work: Workload, found: Expected, minutes: int, tags: int = 12) -> None:
    """Raise AssertionError where the slow reference says otherwise on the `tags` tags to which most happens in the first minutes."""
    happens = np.bincount([tag for tag, *_ in found.excursions] + [tag for tag, *_ in found.visits], minlength=work.tags)
    chosen = np.argsort(-happens, kind="stable")[:tags].tolist()
    values = np.concatenate([work.values(a, min(a + SEGMENT, minutes))[:, chosen] for a in range(0, minutes, SEGMENT)])
    at_us = work.sensed_us(0, minutes).tolist()
    limits = {
        WARM: plain.Limit(workload.WARM_ABOVE_C, clear=workload.WARM_CLEAR_C, allowance_us=workload.WARM_ALLOWANCE_US),
        COLD: plain.Limit(workload.COLD_BELOW_C, direction=-1),
        TOTAL: plain.Limit(workload.WARM_ABOVE_C, mode=plain.CUMULATIVE, allowance_us=workload.TOTAL_ALLOWANCE_US),
    }
    fence = {"kind": "circle", "center": CENTER, "radius": RADIUS_M}
    for k, tag in enumerate(chosen):
        series = list(zip(at_us, values[:, k, 0].tolist(), strict=True))
        slow = [
            (tag, name, run.start_us, run.triggered_us, run.end_us)
            for name, limit in limits.items()
            for run in plain.judge(series, [plain.Window(0, 1 << 61, limit)], work.start_us).excursions
        ]
        assert sorted(slow) == sorted(one for one in found.excursions if one[0] == tag), f"excursions of tag {tag}"
        fixes = [(at, *place, None) for at, place in zip(at_us, values[:, k, 1:].tolist(), strict=True)]
        events = geo.visits(fixes, fence, side_of=_side, meeting=lambda p, q, one: False)
        quick = [event for _, entered, left in (one for one in found.visits if one[0] == tag) for event in _as_events(entered, left)]
        assert sorted(events) == sorted(quick), f"visits of tag {tag}"


def _side(place: tuple[float, float], accuracy: float | None, fence: dict[str, object]) -> int:
    """The reference's side, without asking the geodesic of fixes that are 20 km away."""
    if abs(place[0] - CENTER[0]) > 0.2:
        return -1
    return int(geo.side(place, accuracy, fence))


def _as_events(entered: int, left: int | None) -> list[tuple[str, int] | tuple[str, int, int]]:
    return [("ENTER", entered)] if left is None else [("ENTER", entered), ("EXIT", entered, left)]
