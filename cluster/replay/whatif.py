"""The other rules of a what-if, read and checked: other profiles, limits, geofences and quality settings.

    {"profiles":  {"cold-chain": {profile}, "*": {profile}},          whole profiles, by the id of the one replaced ("*": any other)
     "limits":    {"warm": {"threshold": 9.0, "allowance_us": 0}, "cold": null},      fields of one limit changed, or the limit gone
     "max_gap_us": 7200000000, "ignore_us": 0,
     "geofences": {"depot": {"kind": "circle", "geometry": {...}, "confirm": 2}, "yard": null},   changed, added to all, or gone
     "quality":   {"tag-7": {settings}, "*": null}}                                    by tag id ("*": all others); null: none

Profiles, limits, geofences and settings are spelt as the archive's `rules` and `quality` columns spell them. What is changed or taken away
must be there: a name that no replayed shipment knows is an error, not an answer that nothing would be otherwise.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from actors.rules import profiles, quality, windows
from actors.rules.errors import InvalidArgument
from actors.rules.geofence import Fence, FenceTable
from actors.rules.plan import FENCE_EVENTS, Plan, PlannedFence, ProfileInForce
from actors.rules.profiles import Limit, Profile
from actors.rules.quality import QualitySettings
from actors.rules.readings import FOREVER_US
from actors.rules.windows import LimitWindow
from cluster.archive.reader import Part
from cluster.replay.journeys import plan_of

ANY = "*"
_KNOWN = ("profiles", "limits", "max_gap_us", "ignore_us", "geofences", "quality")


@dataclass(frozen=True, slots=True)
class OtherRules:
    """What is asked. Made by `read`, which checks it."""

    profiles: Mapping[str, Profile] = field(default_factory=dict)
    limits: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    max_gap_us: int | None = None
    ignore_us: int | None = None
    fences: Mapping[str, PlannedFence | None] = field(default_factory=dict)
    quality: Mapping[str, QualitySettings | None] = field(default_factory=dict)

    def plan(self, shipment_id: str, recorded: Plan) -> Plan:
        """The plan that is asked about, for a shipment's recorded one. Raises InvalidArgument where a changed limit breaks a rule."""
        del shipment_id
        made = self.with_profiles(recorded)
        if self.limits or self.max_gap_us is not None:
            made = dataclasses.replace(made, limits=self._limits(made))
        if self.ignore_us is not None:
            ignore_us = self.ignore_us
            made = dataclasses.replace(made, profiles=tuple(dataclasses.replace(one, ignore_us=ignore_us) for one in made.profiles))
        if self.fences:
            known = {fence.fence_id: fence for fence in made.fences} | dict(self.fences)
            made = dataclasses.replace(made, fences=tuple(fence for fence in known.values() if fence is not None))
        return made

    def settings(self, tag_id: str, recorded: QualitySettings | None) -> QualitySettings | None:
        """The quality settings that are asked about."""
        return self.quality[tag_id] if tag_id in self.quality else self.quality.get(ANY, recorded)

    def with_profiles(self, recorded: Plan) -> Plan:
        """A recorded plan with the other profiles in the place of its own."""
        if not self.profiles:
            return recorded
        versions: list[tuple[int, Profile]] = []
        in_force: list[ProfileInForce] = []
        kept: dict[str, tuple[LimitWindow, ...]] = {}
        for at, one in enumerate(recorded.profiles):
            until_us = recorded.profiles[at + 1].from_us if at + 1 < len(recorded.profiles) else FOREVER_US
            other = self.profiles.get(one.profile_id, self.profiles.get(ANY))
            if other is None:
                in_force.append(one)
                for limit_id, mine in recorded.limits.items():
                    clipped = [_clip(window, one.from_us, until_us) for window in mine]
                    kept[limit_id] = kept.get(limit_id, ()) + tuple(window for window in clipped if window.from_us < window.until_us)
                versions.append((one.from_us, _empty(one)))
            else:
                in_force.append(_in_force(one.from_us, other))
                versions.append((one.from_us, other))
        made = windows.resolve(versions, recorded.stages)
        for limit_id, mine in kept.items():
            made[limit_id] = tuple(sorted((*mine, *made.get(limit_id, ())), key=lambda window: window.from_us))
        return dataclasses.replace(recorded, profiles=tuple(in_force), limits=made)

    def _limits(self, plan: Plan) -> dict[str, tuple[LimitWindow, ...]]:
        made = {}
        for limit_id, mine in plan.limits.items():
            change = self.limits.get(limit_id, {})
            if change is None:
                continue
            made[limit_id] = tuple(self._window(window, change) for window in mine)
        return made

    def _window(self, window: LimitWindow, change: Mapping[str, Any]) -> LimitWindow:
        limit = dataclasses.replace(window.limit, **change)
        _check_limit(limit)
        return dataclasses.replace(window, limit=limit, max_gap_us=window.max_gap_us if self.max_gap_us is None else self.max_gap_us)


def _clip(window: LimitWindow, from_us: int, until_us: int) -> LimitWindow:
    return dataclasses.replace(window, from_us=max(window.from_us, from_us), until_us=min(window.until_us, until_us))


def _empty(one: ProfileInForce) -> Profile:
    """A version without limits: it ends the one before it."""
    return Profile(one.profile_id, one.version, one.name, (), max_gap_us=one.max_gap_us)


def _in_force(from_us: int, p: Profile) -> ProfileInForce:
    return ProfileInForce(from_us, p.profile_id, p.version, p.name, p.max_gap_us, p.ignore_us, p.mkt, p.hold_on_excursion)


def read(data: Mapping[str, Any]) -> OtherRules:
    """The rules that are asked about. Raises InvalidArgument naming field, value and rule."""
    unknown = sorted(set(data) - set(_KNOWN))
    if unknown:
        raise InvalidArgument(f"must be one of {', '.join(_KNOWN)}", field=unknown[0], value=data[unknown[0]])
    if not data:
        raise InvalidArgument(f"must change something: {', '.join(_KNOWN)}", field="rules", value="{}")
    made = OtherRules(
        profiles={name: _profile(name, body) for name, body in _section(data, "profiles").items()},
        limits={limit_id: _limit_change(limit_id, body) for limit_id, body in _section(data, "limits").items()},
        max_gap_us=_duration(data, "max_gap_us", least=1),
        ignore_us=_duration(data, "ignore_us", least=0),
        fences={fence_id: _fence(fence_id, body) for fence_id, body in _section(data, "geofences").items()},
        quality={tag_id: _quality(tag_id, body) for tag_id, body in _section(data, "quality").items()},
    )
    if made == OtherRules():
        raise InvalidArgument(f"must change something: {', '.join(_KNOWN)}", field="rules", value=json.dumps(data))
    return made


def must_be_there(asked: OtherRules, parts: Iterable[Part], only: frozenset[str] | None = None) -> None:
    """Raise InvalidArgument for a name of `asked` that no shipment of some parts (`only` these) knows. Reads until all are found."""
    wanted = {("profiles", name) for name in asked.profiles} | {("limits", name) for name in asked.limits}
    wanted |= {("geofences", name) for name, fence in asked.fences.items() if fence is None} | {("quality", name) for name in asked.quality}
    wanted -= {("profiles", ANY), ("quality", ANY)}
    known: set[tuple[str, str]] = set()
    for part in parts:
        if wanted <= known:
            return
        table = part.table("shipments", ["carrier", "shipment_id", "rules"])
        if only is not None:
            table = table.filter(pc.is_in(table.column("shipment_id"), pa.array(list(only), pa.string())))
        for text in table.column("rules").unique().to_pylist():
            plan = plan_of(text)
            known |= {("profiles", one.profile_id) for one in plan.profiles} | {("geofences", one.fence_id) for one in plan.fences}
            known |= {("limits", name) for name in asked.with_profiles(plan).limits}
        if asked.quality:
            rides = part.table("custodies", ["carrier", "tag_id"])
            mine = rides.filter(pc.is_in(rides.column("carrier"), table.column("carrier").combine_chunks()))
            known |= {("quality", name) for name in mine.column("tag_id").unique().to_pylist()}
    if not known:
        return  # there is no shipment: who asked is told that
    for section, name in sorted(wanted - known):
        there = sorted(other for kind, other in known if kind == section)
        told = ", ".join(there[:10]) + (f" and {len(there) - 10} more" if len(there) > 10 else "")
        raise InvalidArgument(f"no shipment that is replayed knows it; they know {told or 'none'}", field=f"{section}.{name}", value=name)


def _section(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = data.get(name, {})
    if not isinstance(found, Mapping):
        raise InvalidArgument("must be an object", field=name, value=found)
    return found


def _duration(data: Mapping[str, Any], name: str, least: int) -> int | None:
    value = data.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not least <= value <= profiles.LONGEST_US):
        raise InvalidArgument(f"must be whole microseconds from {least} to 100 years", field=name, value=value)
    return value


def _profile(name: str, body: Any) -> Profile:
    at = f"profiles.{name}"
    try:
        made = Profile.from_data({"profile_id": name, "version": 1, "name": name, **body})
    except (TypeError, KeyError, AttributeError) as wrong:
        raise InvalidArgument(f"not a profile: {wrong}", field=at, value=body) from None
    try:
        profiles.validate(made)
    except InvalidArgument as refusal:
        raise InvalidArgument(refusal.rule, field=f"{at}.{refusal.field}", value=refusal.value) from None
    return made


def _limit_change(limit_id: str, body: Any) -> Mapping[str, Any] | None:
    if body is None:
        return None
    fields = {one.name for one in dataclasses.fields(Limit)} - {"limit_id", "stages"}
    if not isinstance(body, Mapping) or not body or set(body) - fields:
        raise InvalidArgument(f"must be null or an object of some of {', '.join(sorted(fields))}", field=f"limits.{limit_id}", value=body)
    return dict(body)


def _check_limit(limit: Limit) -> None:
    try:
        profiles.validate(Profile("what-if", 1, "what-if", (limit,)))
    except InvalidArgument as refusal:
        name = refusal.field.rpartition(".")[2]
        raise InvalidArgument(refusal.rule, field=f"limits.{limit.limit_id}.{name}", value=refusal.value) from None
    except TypeError as wrong:
        raise InvalidArgument(f"not a limit: {wrong}", field=f"limits.{limit.limit_id}", value=str(limit)) from None


def _fence(fence_id: str, body: Any) -> PlannedFence | None:
    if body is None:
        return None
    at = f"geofences.{fence_id}"
    if not isinstance(body, Mapping) or not isinstance(body.get("geometry"), Mapping):
        raise InvalidArgument("must be null or an object with kind and geometry", field=at, value=body)
    try:
        made = PlannedFence(fence_id, **{**body, "alert_on": tuple(body.get("alert_on", ()))})
        FenceTable().add(Fence.of(fence_id, made.kind, made.geometry, made.confirm, made.dwell_us))
    except InvalidArgument as refusal:
        raise InvalidArgument(refusal.rule, field=f"{at}.{refusal.field}", value=refusal.value) from None
    except TypeError as wrong:
        raise InvalidArgument(f"not a geofence: {wrong}", field=at, value=body) from None
    if set(made.alert_on) - set(FENCE_EVENTS):
        raise InvalidArgument(f"must be of {', '.join(FENCE_EVENTS)}", field=f"{at}.alert_on", value=made.alert_on)
    return made


def _quality(tag_id: str, body: Any) -> QualitySettings | None:
    if body is None:
        return None
    try:
        made = QualitySettings.from_data(body)
    except TypeError as wrong:
        raise InvalidArgument(f"not quality settings: {wrong}", field=f"quality.{tag_id}", value=body) from None
    try:
        quality.validate(made)
    except InvalidArgument as refusal:
        raise InvalidArgument(refusal.rule, field=f"quality.{tag_id}.{refusal.field}", value=refusal.value) from None
    return made
