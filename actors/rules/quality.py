"""Signal quality: QARTOD flags beside the values, never instead of them (handbook 4; vocabulary and tests as in `ioos_qc`).

A series is one tag's accepted readings in judging order. NaN is absent and gets MISSING; the neighbours of a value are the adjacent
*present* values of the same metric, whatever their flags. A reading's flag is the worst of its tests: fail, suspect, good, not evaluated.

| test | flag |
|---|---|
| impossible date | fail outside [not_before_us, not_after_us]; to pass it makes no value good |
| gross range | fail outside the fail span, suspect outside the suspect span |
| spike | \\|v − (before + after) / 2\\| > threshold; first and newest value: not evaluated |
| rate of change | suspect where \\|v − before\\| / seconds > rate; first value and equal times: not evaluated |
| flat line | the longest stretch ending here whose range stays below the tolerance has lasted that long; a gap (if set) breaks it |
| gap | suspect where the time since the value before is longer; first value: not evaluated |
| impossible speed | (position) geodesic distance from the fix before / seconds > speed; first fix and equal times: not evaluated |

One kernel does it: `flags_of_segments` takes many series at once, `flags` one tag's columns, `advance` the newest readings with as much
of what came before as `tail_start` asks for. All give the same flags (held by property tests).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actors.rules._compile import compiled, frozen
from actors.rules.errors import InvalidArgument
from actors.rules.geodesy import bounds, distance_m, normal
from actors.rules.profiles import LONGEST_US
from actors.rules.readings import (
    CODE,
    COLUMNS,
    EARLIEST_US,
    F8,
    FAIL,
    GOOD,
    I8,
    LATEST_US,
    LATITUDE,
    LONGITUDE,
    MISSING,
    NOT_EVALUATED,
    SUSPECT,
    U1,
)

ROW = np.dtype(
    [
        *((name, "f8") for name in ("fail_low", "fail_high", "suspect_low", "suspect_high", "spike_suspect", "spike_fail")),
        *((name, "f8") for name in ("rate_per_s", "flat_tolerance")),
        *((name, "i8") for name in ("flat_suspect_us", "flat_fail_us", "gap_us", "not_before_us", "not_after_us")),
    ],
    align=True,
)
"""The settings of one metric for the kernel; absent is NaN, or -1 for a duration."""
Rows = npt.NDArray[np.void]

_UNDECIDED = 255


@dataclass(frozen=True, slots=True)
class MetricSettings:
    """The tests of one metric, in its own unit. None: not tested. Spans include their ends."""

    fail_low: float | None = None
    fail_high: float | None = None
    suspect_low: float | None = None
    suspect_high: float | None = None
    spike_suspect: float | None = None
    spike_fail: float | None = None
    rate_per_s: float | None = None
    flat_tolerance: float | None = None
    flat_suspect_us: int | None = None
    flat_fail_us: int | None = None
    gap_us: int | None = None

    @property
    def lookback_us(self) -> int:
        """How far before a value its flat line test looks."""
        return max(self.flat_suspect_us or 0, self.flat_fail_us or 0)


@dataclass(frozen=True, slots=True)
class QualitySettings:
    """The quality settings of a tag: per metric (by column name), for its position, and between which dates it can have measured."""

    metrics: Mapping[str, MetricSettings] = field(default_factory=dict)
    speed_suspect_mps: float | None = None
    speed_fail_mps: float | None = None
    not_before_us: int = EARLIEST_US
    not_after_us: int = LATEST_US

    def to_data(self) -> dict[str, Any]:
        """JSON-ready data; `from_data` gives equal settings."""
        return dataclasses.asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> QualitySettings:
        """Settings from `to_data`. Raises TypeError for data of another shape; the values are for `validate`."""
        metrics = data.get("metrics", {})
        if not isinstance(metrics, Mapping):
            raise TypeError("metrics must be an object")
        return cls(**{**data, "metrics": {name: MetricSettings(**metric) for name, metric in metrics.items()}})

    def row(self, code: int) -> Rows:
        """The kernel's settings of one column, shape (1,)."""
        metric = self.metrics.get(COLUMNS[code].name, MetricSettings())
        given = [getattr(metric, name) for name in ROW.names[:11]] if ROW.names else []
        absent = [math.nan] * 8 + [-1] * 3
        values = (*(a if v is None else v for v, a in zip(given, absent, strict=True)), self.not_before_us, self.not_after_us)
        return np.array([values], ROW)

    @property
    def tests_position(self) -> bool:
        """Whether jumps of position are tested."""
        return self.speed_suspect_mps is not None or self.speed_fail_mps is not None


DEFAULT = QualitySettings()
"""Without settings only the impossible date is tested."""


def validate(settings: QualitySettings) -> None:
    """Raise InvalidArgument naming the first field that is wrong (`metrics.temperature_c.spike_fail`), its value and the rule."""
    for name, metric in settings.metrics.items():
        known = name in CODE and CODE[name] not in (LATITUDE, LONGITUDE)
        _require(known, "metrics", name, f"must be one of {', '.join(n for n in CODE if n not in ('latitude_deg', 'longitude_deg'))}")
        _validate_metric(f"metrics.{name}.", metric)
    for limit in ("speed_suspect_mps", "speed_fail_mps"):
        _require_positive(limit, getattr(settings, limit))
    for name in ("not_before", "not_after"):
        at_us = getattr(settings, f"{name}_us")
        _require(_is_whole(at_us) and EARLIEST_US <= at_us <= LATEST_US, name, at_us, "must lie between the years 2000 and 2200")
    _require_order("speed_fail_mps", settings.speed_suspect_mps, settings.speed_fail_mps, "must be more than speed_suspect_mps")
    _require_order("not_after", settings.not_before_us, settings.not_after_us, "must be later than not_before")


def _validate_metric(at: str, metric: MetricSettings) -> None:
    for name in ("fail_low", "fail_high", "suspect_low", "suspect_high"):
        value = getattr(metric, name)
        _require(value is None or _is_number(value), at + name, value, "must be a finite number")
    for name in ("spike_suspect", "spike_fail", "rate_per_s", "flat_tolerance"):
        _require_positive(at + name, getattr(metric, name))
    for name in ("flat_suspect", "flat_fail", "gap"):
        value = getattr(metric, f"{name}_us")
        fits = value is None or (_is_whole(value) and 0 < value <= LONGEST_US)
        _require(fits, at + name, value, "must be whole microseconds, more than 0 and at most 100 years")
    _require_order(at + "fail_high", metric.fail_low, metric.fail_high, "must be more than fail_low")
    _require_order(at + "suspect_high", metric.suspect_low, metric.suspect_high, "must be more than suspect_low")
    _require_order(at + "suspect_low", metric.fail_low, metric.suspect_low, "must be more than fail_low")
    _require_order(at + "fail_high", metric.suspect_high, metric.fail_high, "must be more than suspect_high")
    _require_order(at + "spike_fail", metric.spike_suspect, metric.spike_fail, "must be more than spike_suspect")
    _require_order(at + "flat_fail", metric.flat_suspect_us, metric.flat_fail_us, "must be longer than flat_suspect")
    has_duration = metric.flat_suspect_us is not None or metric.flat_fail_us is not None
    rule = "a flat line test needs a tolerance and at least one duration"
    _require((metric.flat_tolerance is not None) == has_duration, at + "flat_tolerance", metric.flat_tolerance, rule)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require_positive(name: str, value: float | None) -> None:
    _require(value is None or (_is_number(value) and value > 0), name, value, "must be a number above 0")


def _require_order(name: str, low: float | None, high: float | None, rule: str) -> None:
    _require(low is None or high is None or low < high, name, high, rule)


def _require(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise InvalidArgument(rule, field=f"quality.{name}", value=value)


def flags(settings: QualitySettings | None, codes: Sequence[int], sensed_us: I8, values: F8) -> U1:
    """The flags (m, n) of one tag's whole series: `values` (m, n) of columns `codes` at `sensed_us` (n,), in judging order.

    >>> import numpy as np
    >>> settings = QualitySettings({"temperature_c": MetricSettings(fail_high=60.0, spike_suspect=5.0)})
    >>> times = EARLIEST_US + np.arange(4) * 60_000_000
    >>> flags(settings, (0,), times, np.array([[20.0, 20.0, 70.0, 20.0]])).tolist()
    [[1, 3, 4, 1]]
    """
    settings = settings or DEFAULT
    start = np.array([0, len(sensed_us)], np.int64)
    found = np.empty(values.shape, np.uint8)
    for k, code in enumerate(codes):
        found[k] = flags_of_segments(settings.row(code), start, sensed_us, values[k])
    if settings.tests_position and LATITUDE in codes and LONGITUDE in codes:
        latitude, longitude = codes.index(LATITUDE), codes.index(LONGITUDE)
        limits = np.array([[_or_nan(settings.speed_suspect_mps), _or_nan(settings.speed_fail_mps)]])
        speed = speed_flags_of_segments(limits, start, sensed_us, values[latitude], values[longitude])
        for k in (latitude, longitude):
            found[k] = worst(found[k], speed)
    return found


def untested(values: F8) -> U1:
    """The flags of plausible readings (see `readings.check`) of a tag without settings: NOT_EVALUATED, or MISSING where absent."""
    return np.where(np.isnan(values), np.uint8(MISSING), np.uint8(NOT_EVALUATED))


def flags_of_segments(settings: Rows, start: I8, sensed_us: I8, values: F8) -> U1:
    """One metric of many series at once: series s is rows start[s]:start[s + 1], under settings[s] (a ROW each). Flags (n,)."""
    found = np.empty(len(values), np.uint8)
    _flags(frozen(settings), frozen(start), frozen(sensed_us), frozen(values), found)
    return found


def speed_flags_of_segments(limits_mps: F8, start: I8, sensed_us: I8, latitude: F8, longitude: F8) -> U1:
    """Impossible speed of many series at once; limits_mps (s, 2): suspect and fail, NaN for none. The geodesic decides near a limit."""
    found = np.empty(len(latitude), np.uint8)
    before = np.empty(len(latitude), np.int64)
    columns = frozen(start), frozen(sensed_us), frozen(latitude), frozen(longitude)
    if _speed_flags(frozen(limits_mps), *columns, found, before):
        for i in np.flatnonzero(found == _UNDECIDED):
            j = before[i]
            metres = distance_m(latitude[i], longitude[i], latitude[j], longitude[j])
            seconds = (sensed_us[i] - sensed_us[j]) / 1e6
            suspect, fail = limits_mps[np.searchsorted(start, i, side="right") - 1]
            found[i] = FAIL if metres > fail * seconds else SUSPECT if metres > suspect * seconds else GOOD
    return found


class Changed(NamedTuple):
    """A flag of an earlier reading that is another now that its successor is known: value row k, tail reading i."""

    k: int
    i: int
    before: int
    after: int


def advance(
    settings: QualitySettings | None,
    codes: Sequence[int],
    tail_us: I8,
    tail_values: F8,
    tail_flags: U1,
    sensed_us: I8,
    values: F8,
) -> tuple[U1, list[Changed]]:
    """The flags of the newest readings, and the flags of earlier ones that changed with them.

    tail_*: the readings before them, from at least `tail_start` on, with the flags they have, in the same columns (m, t). Only the last
    present value of each column can change: its spike test was waiting for a successor.
    """
    t = len(tail_us)
    found = flags(settings, codes, np.concatenate([tail_us, sensed_us]), np.concatenate([tail_values, values], axis=1))
    changed = []
    for k in range(len(codes)):
        present = np.flatnonzero(~np.isnan(tail_values[k]))
        if len(present) and found[k, present[-1]] != tail_flags[k, present[-1]]:
            i = int(present[-1])
            changed.append(Changed(k, i, int(tail_flags[k, i]), int(found[k, i])))
    return found[:, t:], changed


def tail_start(settings: QualitySettings | None, codes: Sequence[int], sensed_us: I8, values: F8) -> int:
    """From which reading on `advance` needs the series so far, n for none of it.

    For each column that is tested: the last present value, the one before it, and back to one at or before its flat line lookback.
    """
    settings = settings or DEFAULT
    first = len(sensed_us)
    for k, code in enumerate(codes):
        metric = settings.metrics.get(COLUMNS[code].name)
        position = code in (LATITUDE, LONGITUDE) and settings.tests_position
        present = np.flatnonzero(~np.isnan(values[k]))
        if (metric is None and not position) or not len(present):
            continue
        lookback_us = metric.lookback_us if metric else 0
        far_enough = int(np.searchsorted(sensed_us[present], sensed_us[present[-1]] - lookback_us, side="right")) - 1
        first = min(first, int(present[max(0, min(far_enough, len(present) - 2))]))
    return first


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def worst(a: U1, b: U1) -> U1:
    """The worse of two flags, elementwise; MISSING stays."""
    return np.where((a == NOT_EVALUATED) & (b != MISSING), b, np.where(b == NOT_EVALUATED, a, np.maximum(a, b))).astype(np.uint8)


@compiled
def _worse(a: int, b: int) -> int:
    if a == NOT_EVALUATED:
        return b
    if b == NOT_EVALUATED:
        return a
    return max(a, b)


@compiled
def _beyond(size: float, suspect: float, fail: float) -> int:
    """The flag of a size against two thresholds, of which either may be NaN for none."""
    if size > fail:
        return FAIL
    if size > suspect:
        return SUSPECT
    return NOT_EVALUATED if suspect != suspect and fail != fail else GOOD


@compiled
def _flags(settings: Rows, start: I8, sensed_us: I8, values: F8, found: U1) -> None:
    for s in range(len(start) - 1):
        rule = settings[s]
        low, high = start[s], start[s + 1]
        not_before_us, not_after_us = rule.not_before_us, rule.not_after_us
        fail_low, fail_high, suspect_low, suspect_high = rule.fail_low, rule.fail_high, rule.suspect_low, rule.suspect_high
        ranged = fail_low == fail_low or fail_high == fail_high or suspect_low == suspect_low or suspect_high == suspect_high
        within = GOOD if ranged else NOT_EVALUATED
        stepped = rule.rate_per_s == rule.rate_per_s or rule.gap_us >= 0
        spike_suspect, spike_fail = rule.spike_suspect, rule.spike_fail
        calm = NOT_EVALUATED if spike_suspect != spike_suspect and spike_fail != spike_fail else GOOD
        g = h = np.int64(-1)  # the two before it that are there
        for i in range(low, high):
            value = values[i]
            if value != value:
                found[i] = MISSING
                continue
            flag = within
            if value < fail_low or value > fail_high or sensed_us[i] < not_before_us or sensed_us[i] > not_after_us:
                flag = FAIL
            elif value < suspect_low or value > suspect_high:
                flag = SUSPECT
            if stepped and h >= 0:
                flag = _worse(flag, _step(value - values[h], sensed_us[i] - sensed_us[h], rule))
            found[i] = flag
            if g >= 0:
                spike = abs(values[h] - (values[g] + value) / 2)
                found[h] = _worse(found[h], FAIL if spike > spike_fail else SUSPECT if spike > spike_suspect else calm)
            g, h = h, np.int64(i)
        if rule.flat_suspect_us >= 0 or rule.flat_fail_us >= 0:
            _flat_line(rule, low + np.flatnonzero(found[low:high] != MISSING), sensed_us, values, found)


@compiled
def _step(change: float, elapsed_us: int, rule: Any) -> int:
    """Rate of change and gap: what a value says together with the one before it."""
    flag = NOT_EVALUATED
    if rule.rate_per_s == rule.rate_per_s and elapsed_us > 0:
        flag = SUSPECT if abs(change) / (elapsed_us / 1e6) > rule.rate_per_s else GOOD
    if rule.gap_us >= 0:
        flag = _worse(flag, SUSPECT if elapsed_us > rule.gap_us else GOOD)
    return flag


@compiled
def _flat_line(rule: Any, at: I8, sensed_us: I8, values: F8, found: U1) -> None:
    """The longest stretch that ends at each value and has a range below the tolerance, by two queues of candidates, O(n)."""
    n = len(at)
    highest, lowest = np.empty(n, np.int64), np.empty(n, np.int64)  # indices into `at`; values fall, and rise, along them
    high_from = high_to = low_from = low_to = left = 0
    for k in range(n):
        i = at[k]
        if k > 0 and rule.gap_us >= 0 and sensed_us[i] - sensed_us[at[k - 1]] > rule.gap_us:
            left, high_from, low_from = k, high_to, low_to
        while high_to > high_from and values[at[highest[high_to - 1]]] <= values[i]:
            high_to -= 1
        highest[high_to] = k
        high_to += 1
        while low_to > low_from and values[at[lowest[low_to - 1]]] >= values[i]:
            low_to -= 1
        lowest[low_to] = k
        low_to += 1
        while values[at[highest[high_from]]] - values[at[lowest[low_from]]] >= rule.flat_tolerance:
            left += 1
            if highest[high_from] < left:
                high_from += 1
            if lowest[low_from] < left:
                low_from += 1
        lasted_us = sensed_us[i] - sensed_us[at[left]]
        flag = GOOD
        if rule.flat_fail_us >= 0 and lasted_us >= rule.flat_fail_us:
            flag = FAIL
        elif rule.flat_suspect_us >= 0 and lasted_us >= rule.flat_suspect_us:
            flag = SUSPECT
        found[i] = _worse(found[i], flag)


@compiled
def _speed_flags(limits_mps: F8, start: I8, sensed_us: I8, latitude: F8, longitude: F8, found: U1, before: I8) -> int:
    """Flags by proven bounds of the distance; the number of fixes that these leave _UNDECIDED, with the fix before each."""
    undecided = 0
    for s in range(len(start) - 1):
        suspect, fail = limits_mps[s, 0], limits_mps[s, 1]
        h = np.int64(-1)
        px, py, pz = 0.0, 0.0, 0.0
        for i in range(start[s], start[s + 1]):
            if latitude[i] != latitude[i] or longitude[i] != longitude[i]:
                found[i] = MISSING
                continue
            x, y, z = normal(latitude[i], longitude[i])
            found[i] = NOT_EVALUATED
            before[i] = h
            if h >= 0 and sensed_us[i] > sensed_us[h]:
                seconds = (sensed_us[i] - sensed_us[h]) / 1e6
                least, most = bounds(px, py, pz, x, y, z)
                flag = _beyond(least, suspect * seconds, fail * seconds)
                if flag != _beyond(most, suspect * seconds, fail * seconds):
                    flag = _UNDECIDED
                    undecided += 1
                found[i] = flag
            h = np.int64(i)
            px, py, pz = x, y, z
    return undecided


def warm_up() -> None:
    """Compile (or load from the cache) what the first real call would otherwise wait for."""
    settings = QualitySettings({"temperature_c": MetricSettings(flat_tolerance=1.0, flat_fail_us=1)}, speed_fail_mps=1.0)
    flags(settings, (0, LATITUDE, LONGITUDE), np.array([EARLIEST_US, EARLIEST_US + 1]), np.zeros((3, 2)))
