"""The plan of a carrier: all that its rules ask of the tags that ride on it, resolved, as one pure value.

The carrier's shard makes a plan when its profile, stages, fences or route change, and every shard that holds tags of the
carrier applies it. A plan says what holds over all sensed time, past included, so applying the newest one is enough.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from actors.rules import windows
from actors.rules.profiles import MODES, Limit, LimitRow, MktSettings, Profile, limit_from_data
from actors.rules.readings import CODE
from actors.rules.windows import LimitWindow

OPEN, CLOSED = "open", "closed"
ENTER, EXIT, PASSED_THROUGH = "ENTER", "EXIT", "PASSED_THROUGH"
FENCE_EVENTS = (ENTER, EXIT, PASSED_THROUGH)


@dataclass(frozen=True, slots=True)
class ProfileInForce:
    """One profile version of the carrier: from when it is in force, and its settings that are not limits."""

    from_us: int
    profile_id: str
    version: int
    name: str
    max_gap_us: int
    ignore_us: int
    mkt: MktSettings | None
    hold_on_excursion: bool


@dataclass(frozen=True, slots=True)
class PlannedFence:
    """A geofence of the carrier as data; `alert_on` lists which of FENCE_EVENTS raise an alert. `stop_id` where it is a stop's."""

    fence_id: str
    kind: str
    geometry: Mapping[str, Any]
    confirm: int = 2
    dwell_us: int | None = None
    alert_on: tuple[str, ...] = ()
    stop_id: str = ""


@dataclass(frozen=True, slots=True)
class PlannedRoute:
    """The planned polyline, (latitude_deg, longitude_deg) each, how far off is off, and for how long before it counts."""

    points: tuple[tuple[float, float], ...]
    tolerance_m: float
    hold_us: int = 0


class TrackRow(NamedTuple):
    """One limit id of a plan, for the judging kernel: its slice of the window table, and what its first window measures."""

    limit_id: str
    windows_start: int
    windows_count: int
    metric: int
    mode: int


class Tables(NamedTuple):
    """A plan's limits as rows for `exposure`: `limits` in the order of LIMIT's fields, `windows` as (from_us, until_us, limit row)."""

    tracks: list[TrackRow]
    windows: list[tuple[int, int, int]]
    limits: list[LimitRow]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a tag's shard needs to know of a carrier. `revision` grows with each change; `state` is open or closed.

    profiles: versions in force, by time. limits: per limit id its windows (see `windows.resolve`), in order of the ids' first
    appearance. stages: the carrier's timeline as (at_us, stage), for the report.
    """

    carrier: str
    revision: int
    state: str
    profiles: tuple[ProfileInForce, ...] = ()
    limits: Mapping[str, tuple[LimitWindow, ...]] = dataclasses.field(default_factory=dict)
    stages: tuple[tuple[int, str], ...] = ()
    fences: tuple[PlannedFence, ...] = ()
    route: PlannedRoute | None = None
    handling_units: tuple[str, ...] = ()

    def profile_at(self, sensed_us: int) -> ProfileInForce | None:
        """The profile version in force at a sensed time; None before the first."""
        found = None
        for profile in self.profiles:
            if profile.from_us <= sensed_us:
                found = profile
        return found

    def ignore_us(self, custody_from_us: int) -> int:
        """How long limits do not hold at the start of a custody: by the version in force then (before the first: the first's)."""
        profile = self.profile_at(custody_from_us) or (self.profiles[0] if self.profiles else None)
        return profile.ignore_us if profile else 0

    def hold_on_excursion(self, started_us: int) -> bool:
        """Whether an excursion that started then puts the lots it touched on hold."""
        profile = self.profile_at(started_us)
        return profile is not None and profile.hold_on_excursion

    def limit_at(self, limit_id: str, sensed_us: int) -> Limit | None:
        """The limit of this id that holds at a sensed time, if one does."""
        for window in self.limits.get(limit_id, ()):
            if window.from_us <= sensed_us < window.until_us:
                return window.limit
        return None

    def tables(self) -> Tables:
        """The limits as rows for the judging kernel. Equal limits share a row; a limit id without windows has no track.

        A limit id whose metric or mode changes between versions keeps one track per (metric, mode), each with its own windows:
        sums of different metrics never mix.
        """
        tracks: list[TrackRow] = []
        window_rows: list[tuple[int, int, int]] = []
        limit_rows: list[LimitRow] = []
        known: dict[tuple[Limit, int], int] = {}
        for limit_id, mine in self.limits.items():
            for metric, mode in dict.fromkeys((window.limit.metric, window.limit.mode) for window in mine):
                start = len(window_rows)
                for window in mine:
                    if (window.limit.metric, window.limit.mode) == (metric, mode):
                        key = (window.limit, window.max_gap_us)
                        if key not in known:
                            known[key] = len(limit_rows)
                            limit_rows.append(window.limit.row(window.max_gap_us))
                        window_rows.append((window.from_us, window.until_us, known[key]))
                tracks.append(TrackRow(limit_id, start, len(window_rows) - start, CODE[metric], MODES[mode]))
        return Tables(tracks, window_rows, limit_rows)

    def to_data(self) -> dict[str, Any]:
        """JSON-ready data; `from_data` gives an equal plan."""
        data = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        data["profiles"] = [dataclasses.asdict(profile) for profile in self.profiles]
        data["limits"] = [
            {"limit_id": limit_id, "windows": [dataclasses.asdict(window) for window in mine]} for limit_id, mine in self.limits.items()
        ]
        data["fences"] = [dataclasses.asdict(fence) for fence in self.fences]
        data["route"] = None if self.route is None else dataclasses.asdict(self.route)
        return data

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Plan:
        """A plan from `to_data`."""
        route = data["route"]
        return cls(
            carrier=data["carrier"],
            revision=data["revision"],
            state=data["state"],
            profiles=tuple(
                ProfileInForce(**{**profile, "mkt": None if profile["mkt"] is None else MktSettings(**profile["mkt"])})
                for profile in data["profiles"]
            ),
            limits={
                limit["limit_id"]: tuple(
                    LimitWindow(**{**window, "limit": limit_from_data(window["limit"])}) for window in limit["windows"]
                )
                for limit in data["limits"]
            },
            stages=tuple((at_us, stage) for at_us, stage in data["stages"]),
            fences=tuple(PlannedFence(**{**fence, "alert_on": tuple(fence["alert_on"])}) for fence in data["fences"]),
            route=None if route is None else PlannedRoute(**{**route, "points": tuple((lat, lon) for lat, lon in route["points"])}),
            handling_units=tuple(data["handling_units"]),
        )

    def to_json(self) -> str:
        """The plan as JSON text; the same plan always gives the same text."""
        return json.dumps(self.to_data(), separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan that `to_json` wrote."""
        return cls.from_data(json.loads(text))


def make_plan(
    carrier: str,
    revision: int,
    profiles: Sequence[tuple[int, Profile]],
    stages: Sequence[tuple[int, str]] = (),
    *,
    state: str = OPEN,
    fences: Sequence[PlannedFence] = (),
    route: PlannedRoute | None = None,
    handling_units: Sequence[str] = (),
) -> Plan:
    """The plan of a carrier from its profile versions (from_us, profile), its stages (at_us, stage), fences and route."""
    return Plan(
        carrier=carrier,
        revision=revision,
        state=state,
        profiles=tuple(
            ProfileInForce(from_us, p.profile_id, p.version, p.name, p.max_gap_us, p.ignore_us, p.mkt, p.hold_on_excursion)
            for from_us, _, p in windows.in_force(profiles)
        ),
        limits=windows.resolve(profiles, stages),
        stages=tuple((from_us, stage) for from_us, _, stage in windows.stage_spans(stages)),
        fences=tuple(fences),
        route=route,
        handling_units=tuple(handling_units),
    )
