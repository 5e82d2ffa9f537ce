"""Where each limit holds: the stages a carrier goes through × the stages a limit is for × the profile versions in force.

A version of a profile is in force from a time until the next one's; a limit with stages holds only during these (handbook 3,
Windows). Adjacent windows in which a limit's rule is equal are one window, so that a change that does not touch it never
splits a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from actors.rules.profiles import Limit, Profile
from actors.rules.readings import FOREVER_US

Span = tuple[int, int]
"""[from_us, until_us)"""


@dataclass(frozen=True, slots=True)
class LimitWindow:
    """A half-open stretch of sensed time in which one limit holds, with the `max_gap` of its profile version."""

    from_us: int
    until_us: int
    limit: Limit
    max_gap_us: int


def stage_spans(timeline: Iterable[tuple[int, str]]) -> list[tuple[int, int, str]]:
    """A timeline of (at_us, stage), in any order, as disjoint (from_us, until_us, stage): each holds until the next, the last for ever.

    Of several at one time the last given counts.
    """
    by_time = sorted(dict(timeline).items())
    ends = [at_us for at_us, _ in by_time[1:]] + [FOREVER_US]
    return [(at_us, until_us, stage) for (at_us, stage), until_us in zip(by_time, ends, strict=False)]


def in_force(versions: Iterable[tuple[int, Profile]]) -> list[tuple[int, int, Profile]]:
    """Profile versions given as (from_us, profile), in any order, as disjoint (from_us, until_us, profile).

    Of several from one time the last given counts. Before the first one no limit holds.
    """
    by_time = sorted(dict(versions).items(), key=lambda item: item[0])
    ends = [from_us for from_us, _ in by_time[1:]] + [FOREVER_US]
    return [(from_us, until_us, profile) for (from_us, profile), until_us in zip(by_time, ends, strict=False)]


def resolve(versions: Iterable[tuple[int, Profile]], timeline: Iterable[tuple[int, str]]) -> dict[str, tuple[LimitWindow, ...]]:
    """For each limit id that any version has: its windows, sorted, disjoint, adjacent ones of equal rule merged.

    A limit id whose stages never come (so far) has no windows.
    """
    stages = stage_spans(timeline)
    windows: dict[str, list[LimitWindow]] = {}
    for from_us, until_us, profile in in_force(versions):
        for limit in profile.limits:
            mine = windows.setdefault(limit.limit_id, [])
            for start_us, end_us in _holding(limit, stages, from_us, until_us):
                _append(mine, LimitWindow(start_us, end_us, limit, profile.max_gap_us))
    return {limit_id: tuple(found) for limit_id, found in windows.items()}


def _holding(limit: Limit, stages: Sequence[tuple[int, int, str]], from_us: int, until_us: int) -> list[Span]:
    """Where in [from_us, until_us) the limit's stages are."""
    if not limit.stages:
        return [(from_us, until_us)]
    clipped = ((max(start, from_us), min(end, until_us)) for start, end, stage in stages if stage in limit.stages)
    return [(start, end) for start, end in clipped if start < end]


def _append(windows: list[LimitWindow], new: LimitWindow) -> None:
    """Add at the end, as a longer last window where the rule goes on unchanged."""
    if windows:
        last = windows[-1]
        if last.until_us == new.from_us and last.max_gap_us == new.max_gap_us and last.limit.rule() == new.limit.rule():
            windows[-1] = LimitWindow(last.from_us, new.until_us, last.limit, last.max_gap_us)
            return
    windows.append(new)
