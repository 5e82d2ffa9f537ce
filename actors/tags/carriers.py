"""The carriers that a shard's tags ride on: their plans turned into the tables that the kernels read.

Limits and window slices are shared between carriers with the same content, so that a hundred thousand shipments under one
profile cost one row. Rows are never changed once made: a new plan gets new rows, and judged tracks keep meaning what they meant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.rules import exposure, geofence
from actors.rules.exposure import LIMIT, WINDOW
from actors.rules.plan import Plan, PlannedFence
from actors.rules.profiles import Limit
from actors.rules.readings import FOREVER_US
from actors.tags.columns import grown
from actors.tags.records import Shapes

IDLE = 1_024
"""So many carriers that no tag rides on any more may be remembered: their plans may change once more, when they are closed."""


@dataclass(frozen=True, slots=True)
class TrackSpec:
    """One limit id of a carrier: its slice of the window table, its metric and mode."""

    limit_id: str
    windows_start: int
    windows_count: int
    metric: int
    mode: int


@dataclass(slots=True)
class Carrier:
    """A carrier as the shard knows it."""

    name: str
    plan: Plan
    tracks: list[TrackSpec]
    fences: tuple[PlannedFence, ...]
    fence_rows: list[int]
    number: int = -1
    """In the rulebook, as the tags' rows name it; -1 of one that is not kept."""
    shape: int = 0
    """Of its tags' rows."""
    told: int = -1
    """Revision of the plan by which the closed custodies on it were judged last, as far as this shard knows."""

    @property
    def judged_key(self) -> tuple[Any, ...]:
        """What decides how readings are judged: a plan change that leaves it equal needs no judging again."""
        return (
            tuple((spec.limit_id, spec.windows_start, spec.windows_count, spec.metric, spec.mode) for spec in self.tracks),
            tuple(zip((fence.fence_id for fence in self.fences), self.fence_rows, strict=True)),
            tuple((profile.from_us, profile.ignore_us) for profile in self.plan.profiles),
        )


def fresh_rows(
    carrier: Carrier, from_us: int, begin_us: int, until_us: int = FOREVER_US, prior_us: Mapping[str, int] | None = None
) -> tuple[exposure.Rows, exposure.Rows]:
    """TRACK and VISIT rows of a custody [from_us, until_us) on a carrier that have seen nothing; begin_us: from_us plus ignore period."""
    specs, prior_us = carrier.tracks, prior_us or {}
    tracks = exposure.fresh(
        np.array([spec.metric for spec in specs], np.int64),
        np.array([spec.mode for spec in specs], np.int64),
        np.array([spec.windows_start for spec in specs], np.int64),
        np.array([spec.windows_count for spec in specs], np.int64),
        min(begin_us, until_us),
        until_us,
        np.array([prior_us.get(spec.limit_id, 0) for spec in specs], np.int64),
    )
    return tracks, geofence.fresh(carrier.fence_rows, from_us, until_us)


class Rulebook:
    """The tables for the kernels (`limits`, `windows`, `fences`) and the carriers by name."""

    def __init__(self) -> None:
        self.limits: npt.NDArray[Any] = np.zeros(0, dtype=LIMIT)
        self.windows: npt.NDArray[Any] = np.zeros(0, dtype=WINDOW)
        self.windows_used = 0
        self.fences = geofence.FenceTable()
        self.shapes = Shapes()
        self.limit_meaning: list[Limit] = []
        self.carriers: dict[str, Carrier] = {}
        self.ignoring: set[int] = set()
        """The numbers of the carriers of which some profile ignores the first time of a custody."""
        self._names: list[str] = []
        self._free: list[int] = []
        self._kept = 0
        self._limit_rows: dict[tuple[Limit, int], int] = {}
        self._window_slices: dict[tuple[tuple[int, int, int], ...], int] = {}
        self._alike: dict[Any, Any] = {}

    def put(self, plan: Plan) -> Carrier:
        """The carrier of `plan`, with that plan from now on. An older revision than the known one is ignored."""
        known = self.carriers.get(plan.carrier)
        if known is not None and known.plan.revision >= plan.revision:
            return known
        made = self._carrier(self._sharing(plan))
        made.tracks = self._alike.setdefault(tuple(made.tracks), made.tracks)
        made.shape = self.shapes.of(*fresh_rows(made, 0, 0))
        if known is None:
            made.number = self._number(plan.carrier)
        else:
            made.number, made.told = known.number, known.told
        if any(profile.ignore_us for profile in plan.profiles):
            self.ignoring.add(made.number)
        else:
            self.ignoring.discard(made.number)
        self.carriers[plan.carrier] = made
        return made

    def _sharing(self, plan: Plan) -> Plan:
        """An equal plan whose limits and profiles are the very objects of the other carriers that have the same."""
        limits = self._alike.setdefault(("limits", tuple(plan.limits.items())), plan.limits)
        profiles = self._alike.setdefault(("profiles", plan.profiles), plan.profiles)
        return dataclasses.replace(plan, limits=limits, profiles=profiles)

    def _number(self, name: str) -> int:
        if self._free:
            number = self._free.pop()
            self._names[number] = name
            return number
        self._names.append(name)
        return len(self._names) - 1

    @property
    def grown(self) -> bool:
        """Whether so many carriers came since the last look that some may be idle."""
        return len(self.carriers) > 2 * self._kept + IDLE

    def forget(self, live: set[int]) -> npt.NDArray[np.int32] | None:
        """Forget the carriers but those of these numbers, and the rows that only they used, where they are many.

        Returns the new shape by the old one, None where nothing was forgotten. Rows of limits stay: what is stated names them.
        """
        idle = [carrier for carrier in self.carriers.values() if carrier.number not in live]
        self._kept = len(self.carriers)
        if len(idle) < max(IDLE, len(live)):
            return None
        old, shapes = self.carriers, np.zeros(len(self.shapes.first), np.int32)
        self.carriers, self._kept = {}, len(live)
        self.windows, self.windows_used = np.zeros(0, dtype=WINDOW), 0
        self.fences, self.shapes = geofence.FenceTable(), Shapes()
        self._window_slices, self._alike = {}, {}
        for carrier in idle:
            self._names[carrier.number] = ""
            self._free.append(carrier.number)
            self.ignoring.discard(carrier.number)
        for name, carrier in old.items():
            if carrier.number in live:
                made = self._carrier(self._sharing(carrier.plan))
                made.tracks = self._alike.setdefault(tuple(made.tracks), made.tracks)
                made.number, made.told = carrier.number, carrier.told
                made.shape = self.shapes.of(*fresh_rows(made, 0, 0))
                shapes[carrier.shape] = made.shape
                self.carriers[name] = made
        return shapes

    def name_of(self, number: int) -> str:
        """The carrier of this number."""
        return self._names[number]

    def of(self, plan: Plan) -> Carrier:
        """The carrier of `plan` as `put` would make it, without keeping it: to judge a closed custody."""
        return self._carrier(plan)

    def _carrier(self, plan: Plan) -> Carrier:
        tables = plan.tables()
        meanings: dict[int, tuple[Limit, int]] = {}
        for spec in tables.tracks:
            mine = [w for w in plan.limits[spec.limit_id] if w.limit.row(w.max_gap_us)[0] == spec.metric]
            for row in tables.windows[spec.windows_start : spec.windows_start + spec.windows_count]:
                window = next(w for w in mine if (w.from_us, w.until_us) == row[:2])
                meanings[row[2]] = (window.limit, window.max_gap_us)
        shared = {row: self._limit_row(*meanings[row]) for row in meanings}
        tracks = []
        for spec in tables.tracks:
            rows = tables.windows[spec.windows_start : spec.windows_start + spec.windows_count]
            start = self._window_slice(tuple((from_us, until_us, shared[limit]) for from_us, until_us, limit in rows))
            tracks.append(TrackSpec(spec.limit_id, start, spec.windows_count, spec.metric, spec.mode))
        return Carrier(plan.carrier, plan, tracks, plan.fences, [self._fence_row(fence) for fence in plan.fences])

    def _limit_row(self, limit: Limit, max_gap_us: int) -> int:
        key = (limit, max_gap_us)
        row = self._limit_rows.get(key)
        if row is None:
            row = len(self.limit_meaning)
            self.limits = np.concatenate([self.limits, np.array([tuple(limit.row(max_gap_us))], dtype=LIMIT)])
            self.limit_meaning.append(limit)
            self._limit_rows[key] = row
        return row

    def _window_slice(self, rows: tuple[tuple[int, int, int], ...]) -> int:
        start = self._window_slices.get(rows)
        if start is None:
            start = self.windows_used
            self.windows_used += len(rows)
            self.windows = grown(self.windows, self.windows_used)
            self.windows[start : self.windows_used] = np.array(list(rows), dtype=WINDOW)
            self._window_slices[rows] = start
        return start

    def _fence_row(self, fence: PlannedFence) -> int:
        # Nameless, so that the same place under many names is one row.
        return self.fences.add(geofence.Fence.of("", fence.kind, fence.geometry, fence.confirm, fence.dwell_us))
