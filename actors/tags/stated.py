"""What a shard has stated: the excursions and visits of its tags' open custodies, and how a new judgement becomes revisions.

Nothing stated is overwritten: each change is a new revision with its cause (handbook 3). Within one commit an excursion is
revised at most once, so a run that is confirmed and ends inside one batch is stated once, as ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from actors.rules.readings import FOREVER_US


@dataclass(slots=True)
class StatedExcursion:
    """An excursion as last stated. `ended_us` is None while it is open."""

    excursion_id: int
    revision: int
    custody_id: int
    limit_id: str
    limit_row: int
    started_us: int
    triggered_us: int
    ended_us: int | None
    violation_us: int
    uncovered_us: int
    extreme: float
    extreme_us: int
    mean: float
    readings: int
    found_late: bool
    retracted: bool = False

    def facts(self) -> tuple[Any, ...]:
        """What a revision is about. The running sums of an open excursion grow with time and are no change."""
        if self.ended_us is None:
            return (self.started_us, self.triggered_us, None, self.extreme, self.extreme_us)
        return (
            self.started_us, self.triggered_us, self.ended_us, self.violation_us, self.uncovered_us,
            self.extreme, self.extreme_us, self.mean, self.readings,
        )  # fmt: skip


@dataclass(slots=True)
class StatedVisit:
    """A visit as last stated. Kind: VISIT or PASSED."""

    visit_id: int
    revision: int
    custody_id: int
    fence_id: str
    kind: str
    entered_us: int
    exited_us: int | None
    found_late: bool
    retracted: bool = False

    def facts(self) -> tuple[Any, ...]:
        """What a revision is about."""
        return (self.kind, self.entered_us, self.exited_us)


def excursion_of_run(run: Any, limit_id: str, custody_id: int) -> StatedExcursion:
    """A RUN row as an excursion without an id."""
    covered, readings = int(run["run_us"]), int(run["readings"])
    extreme = float(run["extreme"])
    end_us = int(run["end_us"])
    return StatedExcursion(
        excursion_id=-1,
        revision=0,
        custody_id=custody_id,
        limit_id=limit_id,
        limit_row=int(run["limit"]),
        started_us=int(run["start_us"]),
        triggered_us=int(run["triggered_us"]),
        ended_us=None if end_us >= FOREVER_US else end_us,
        violation_us=covered,
        uncovered_us=int(run["uncovered_us"]),
        extreme=extreme,
        extreme_us=int(run["extreme_us"]),
        mean=float(run["weighted"]) / covered if covered > 0 else extreme,
        readings=readings,
        found_late=False,
    )


def take_facts(stated: StatedExcursion, found: StatedExcursion) -> None:
    """`stated` says from now on what `found` says; its identity and history stay."""
    for name in (
        "limit_row", "started_us", "triggered_us", "ended_us", "violation_us", "uncovered_us", "extreme", "extreme_us", "mean", "readings",
    ):  # fmt: skip
        setattr(stated, name, getattr(found, name))


def _overlap(a_from: int, a_until: int | None, b_from: int, b_until: int | None) -> int:
    a_end, b_end = FOREVER_US if a_until is None else a_until, FOREVER_US if b_until is None else b_until
    return min(a_end, b_end) - max(a_from, b_from)


def match_excursions(
    before: Iterable[StatedExcursion], found: Iterable[StatedExcursion]
) -> tuple[list[tuple[StatedExcursion, StatedExcursion]], list[StatedExcursion], list[StatedExcursion]]:
    """Pair what was stated with what is found now: (pairs, gone, new). An excursion keeps its identity where it begins at the same
    time, else where it touches a found one most; of several that join, the earliest goes on.
    """
    left = [one for one in before if not one.retracted]
    rest = list(found)
    pairs: list[tuple[StatedExcursion, StatedExcursion]] = []

    def pair(accept: Callable[[StatedExcursion, StatedExcursion], int | None]) -> None:
        for old in sorted(left, key=lambda one: one.started_us):
            best, chosen = None, None
            for new in rest:
                if new.limit_id != old.limit_id:
                    continue
                score = accept(old, new)
                if score is not None and (best is None or score > best):
                    best, chosen = score, new
            if chosen is not None:
                pairs.append((old, chosen))
                rest.remove(chosen)
                left.remove(old)

    pair(lambda old, new: 0 if old.started_us == new.started_us else None)

    def touching(old: StatedExcursion, new: StatedExcursion) -> int | None:
        shared = _overlap(old.started_us, old.ended_us, new.started_us, new.ended_us)
        return shared if shared >= 0 else None

    pair(touching)
    return pairs, left, rest


def match_visits(
    before: Iterable[StatedVisit], found: Iterable[StatedVisit]
) -> tuple[list[tuple[StatedVisit, StatedVisit]], list[StatedVisit], list[StatedVisit]]:
    """As `match_excursions`, for visits: same fence and kind, same entry first, else the one that overlaps."""
    left = [one for one in before if not one.retracted]
    rest = list(found)
    pairs: list[tuple[StatedVisit, StatedVisit]] = []
    for exact in (True, False):
        for old in sorted(left, key=lambda one: one.entered_us):
            for new in rest:
                if (new.fence_id, new.kind) != (old.fence_id, old.kind):
                    continue
                same = new.entered_us == old.entered_us
                if same or (not exact and _overlap(old.entered_us, old.exited_us, new.entered_us, new.exited_us) > 0):
                    pairs.append((old, new))
                    rest.remove(new)
                    left.remove(old)
                    break
    return pairs, left, rest
