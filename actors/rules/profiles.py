"""Profiles: the limits that a product is stored and shipped under (handbook 3), as plain data with validation.

The profiles that ship with Waybill are in data/profiles.toml; `shipped()` reads them. Users make their own as `Profile`
objects and `validate` them. Windows, stages and versions are resolved in `windows`.
"""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from actors.rules.errors import InvalidArgument
from actors.rules.readings import CODE, COLUMNS, MINUTE_US

SECOND_US = 1_000_000
STAGES = ("PACKING", "LOADING", "IN_TRANSIT", "UNLOADING", "STORED", "DELIVERED")
SEVERITIES = ("INFO", "WARNING", "CRITICAL")
DIRECTIONS = {"above": 1, "below": -1}
MODES = {"single": 1, "cumulative": 2, "mkt": 3}
WEIGHTS = ("hold", "trapezoid")
LIMITED = tuple(name for name in CODE if name not in ("latitude_deg", "longitude_deg", "gps_accuracy_m"))
"""What can have limits. Where a tag is, is for geofences and the route."""
LONGEST_US = 100 * 366 * 86_400 * SECOND_US
"""No duration of a profile is longer than this century."""
MOST_LIMITS = 64

LimitRow = tuple[int, int, bool, int, float, float, int, float, int, int, int]
"""The fields of `exposure.LIMIT` in their order."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One rule of a profile.

    A value violates it above (or below) `threshold`; at the threshold too where `inclusive`. `clear` is the hysteresis: a run
    goes on until a value is at or inside it. `allowance_us` is the violated time at which the run is an excursion: 0 at once,
    None counted for the report and never an excursion. `beyond` with `beyond_allowance_us` is the second, shorter allowance of
    a `single` limit once the value went further than `beyond`. `window_us` is the trailing window of an `mkt` limit.
    Empty `stages`: it holds always.
    """

    limit_id: str
    metric: str
    direction: str
    threshold: float
    inclusive: bool = False
    mode: str = "single"
    clear: float | None = None
    allowance_us: int | None = 0
    beyond: float | None = None
    beyond_allowance_us: int | None = None
    window_us: int | None = None
    stages: tuple[str, ...] = ()
    severity: str = "CRITICAL"
    name: str = ""

    def row(self, max_gap_us: int) -> LimitRow:
        """The limit for the judging kernel: the fields of `exposure.LIMIT` in order, absent as NaN or -1 (window: 0)."""
        return (
            CODE[self.metric],
            DIRECTIONS[self.direction],
            self.inclusive,
            MODES[self.mode],
            self.threshold,
            math.nan if self.clear is None else self.clear,
            -1 if self.allowance_us is None else self.allowance_us,
            math.nan if self.beyond is None else self.beyond,
            -1 if self.beyond_allowance_us is None else self.beyond_allowance_us,
            0 if self.window_us is None else self.window_us,
            max_gap_us,
        )

    def rule(self) -> tuple[object, ...]:
        """All that decides what is violated, when, and how grave it is: what must be equal for two versions to be one rule."""
        kept = ("name", "stages")
        return tuple(getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in kept)


@dataclass(frozen=True, slots=True)
class MktSettings:
    """How the mean kinetic temperature is used for a release decision; `usable` says whether it may excuse an excursion at all."""

    window_us: int
    weights: str = "hold"
    usable: bool = True


@dataclass(frozen=True, slots=True)
class Profile:
    """A named, versioned set of limits. (profile_id, version) never changes its content once stored.

    mkt: None where it is not offered (frozen goods). hold_on_excursion: an excursion puts the lots it touched on hold.
    allowance_chosen_by_user: its range limits ship with allowance 0 and are meant to be copied by `with_allowance`.
    """

    profile_id: str
    version: int
    name: str
    limits: tuple[Limit, ...]
    source: str = ""
    edition: str = ""
    max_gap_us: int = 60 * MINUTE_US
    ignore_us: int = 0
    mkt: MktSettings | None = None
    hold_on_excursion: bool = False
    allowance_chosen_by_user: bool = False

    def to_data(self) -> dict[str, Any]:
        """JSON-ready data; `from_data` gives an equal profile."""
        return dataclasses.asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Profile:
        """A profile from `to_data`. Does not validate: what is stored was validated."""
        mkt = data.get("mkt")
        limits = tuple(limit_from_data(limit) for limit in data["limits"])
        return cls(**{**data, "limits": limits, "mkt": None if mkt is None else MktSettings(**mkt)})


def limit_from_data(data: Mapping[str, Any]) -> Limit:
    """A limit from its JSON-ready data."""
    return Limit(**{**data, "stages": tuple(data.get("stages", ()))})


def with_allowance(profile: Profile, allowance_us: int, profile_id: str | None = None) -> Profile:
    """The user's own version of a profile whose allowance is the user's to choose: all its excursion limits get it.

    Raises InvalidArgument for a profile whose source fixes its allowances, and for a negative allowance.
    """
    if not profile.allowance_chosen_by_user:
        raise InvalidArgument("its allowances are fixed by its source", field="profile_id", value=profile.profile_id)
    limits = tuple(
        limit if limit.allowance_us is None else dataclasses.replace(limit, allowance_us=allowance_us) for limit in profile.limits
    )
    own = dataclasses.replace(profile, limits=limits, profile_id=profile_id or profile.profile_id, allowance_chosen_by_user=False)
    validate(own)
    return own


_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def validate(profile: Profile) -> None:
    """Raise InvalidArgument naming the first field that is wrong (`limits[2].clear`), its value and the rule it breaks."""
    _require(bool(_ID.fullmatch(profile.profile_id)), "profile_id", profile.profile_id, "must be 1 to 64 of a-z, 0-9, '.', '_' and '-'")
    _require(profile.version >= 1, "version", profile.version, "must be 1 or more")
    _require(0 < len(profile.name) <= 200, "name", profile.name, "must have 1 to 200 characters")
    _require(0 < profile.max_gap_us <= LONGEST_US, "max_gap", profile.max_gap_us, "must be longer than 0 and at most 100 years")
    _require(0 <= profile.ignore_us <= LONGEST_US, "ignore", profile.ignore_us, "must be from 0 to 100 years")
    _require(0 < len(profile.limits) <= MOST_LIMITS, "limits", len(profile.limits), f"must be 1 to {MOST_LIMITS} limits")
    if profile.mkt is not None:
        _require(0 < profile.mkt.window_us <= LONGEST_US, "mkt.window", profile.mkt.window_us, "must be longer than 0")
        _require(profile.mkt.weights in WEIGHTS, "mkt.weights", profile.mkt.weights, f"must be one of {', '.join(WEIGHTS)}")
    seen: set[str] = set()
    for k, limit in enumerate(profile.limits):
        _validate_limit(f"limits[{k}].", limit)
        _require(limit.limit_id not in seen, f"limits[{k}].limit_id", limit.limit_id, "must be unique within the profile")
        seen.add(limit.limit_id)


def _validate_limit(at: str, limit: Limit) -> None:
    _require(bool(_ID.fullmatch(limit.limit_id)), at + "limit_id", limit.limit_id, "must be 1 to 64 of a-z, 0-9, '.', '_' and '-'")
    _require(limit.metric in LIMITED, at + "metric", limit.metric, f"must be one of {', '.join(LIMITED)}")
    _require(limit.direction in DIRECTIONS, at + "direction", limit.direction, "must be above or below")
    _require(limit.mode in MODES, at + "mode", limit.mode, f"must be one of {', '.join(MODES)}")
    _require(limit.severity in SEVERITIES, at + "severity", limit.severity, f"must be one of {', '.join(SEVERITIES)}")
    _require(len(limit.name) <= 200, at + "name", limit.name, "must have at most 200 characters")
    for stage in limit.stages:
        _require(stage in STAGES, at + "stages", stage, f"must be of {', '.join(STAGES)}")
    _require(len(set(limit.stages)) == len(limit.stages), at + "stages", ", ".join(limit.stages), "must name each stage once")
    sign = DIRECTIONS[limit.direction]
    for field in ("threshold", "clear", "beyond"):
        value = getattr(limit, field)
        column = COLUMNS[CODE[limit.metric]]
        fits = value is None or (math.isfinite(value) and column.low <= value <= column.high)
        _require(fits, at + field, value, f"must be a finite {limit.metric} from {column.low:g} to {column.high:g}")
    if limit.clear is not None:
        side = "below" if sign > 0 else "above"
        _require(
            sign * limit.clear < sign * limit.threshold, at + "clear", limit.clear, f"must be {side} the threshold {limit.threshold:g}"
        )
    for field in ("allowance_us", "beyond_allowance_us"):
        value = getattr(limit, field)
        _require(value is None or 0 <= value <= LONGEST_US, at + field[:-3], value, "must be from 0 to 100 years")
    _validate_second_allowance(at, limit, sign)
    _validate_mkt(at, limit)


def _validate_second_allowance(at: str, limit: Limit, sign: int) -> None:
    both = "beyond and its allowance must be given both or neither"
    if limit.beyond is None or limit.beyond_allowance_us is None:
        _require(limit.beyond is None, at + "beyond", limit.beyond, both)
        _require(limit.beyond_allowance_us is None, at + "beyond_allowance", limit.beyond_allowance_us, both)
        return
    _require(limit.mode == "single", at + "beyond", limit.beyond, "only a limit of mode single can have a second allowance")
    further = "above" if sign > 0 else "below"
    _require(
        sign * limit.beyond > sign * limit.threshold, at + "beyond", limit.beyond, f"must be {further} the threshold {limit.threshold:g}"
    )
    shorter = limit.allowance_us is not None and limit.beyond_allowance_us < limit.allowance_us
    _require(shorter, at + "beyond_allowance", limit.beyond_allowance_us, f"must be shorter than the allowance {limit.allowance_us}")


def _validate_mkt(at: str, limit: Limit) -> None:
    if limit.mode != "mkt":
        _require(limit.window_us is None, at + "window", limit.window_us, "only a limit of mode mkt has a window")
        return
    window = limit.window_us
    _require(limit.metric == "temperature_c", at + "metric", limit.metric, "mode mkt is for temperature_c only")
    _require(limit.direction == "above", at + "direction", limit.direction, "mode mkt is for limits above only")
    _require(window is not None and 0 < window <= LONGEST_US, at + "window", window, "mode mkt needs a window longer than 0")
    _require(limit.threshold > 0, at + "threshold", limit.threshold, "mkt is not offered for frozen goods: must be above 0")


def _require(holds: bool, field: str, value: object, rule: str) -> None:
    if not holds:
        raise InvalidArgument(rule, field=field, value=value)


@cache
def shipped() -> dict[str, Profile]:
    """The profiles that come with Waybill, by id: the handbook's table (source and edition in each)."""
    text = resources.files("actors.rules").joinpath("data/profiles.toml").read_text(encoding="utf-8")
    profiles = {profile_id: _from_toml(profile_id, table) for profile_id, table in tomllib.loads(text).items()}
    for profile in profiles.values():
        validate(profile)
    return profiles


def _from_toml(profile_id: str, table: dict[str, Any]) -> Profile:
    """Durations are written in seconds there (`allowance_s`); `allowance_s = "none"` is an absent allowance."""
    limits = tuple(limit_from_data(_in_us(limit)) for limit in table.pop("limits"))
    mkt = table.pop("mkt", None)
    settings = None if mkt is None else MktSettings(**_in_us(mkt))
    return Profile(profile_id=profile_id, version=1, limits=limits, mkt=settings, **_in_us(table))


def _in_us(table: dict[str, Any]) -> dict[str, Any]:
    def convert(key: str, value: Any) -> tuple[str, Any]:
        if not key.endswith("_s"):
            return key, value
        return key[:-2] + "_us", None if value == "none" else value * SECOND_US

    return dict(convert(key, value) for key, value in table.items())
