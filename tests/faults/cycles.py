"""What a kill was and what followed, and what all of them show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

MID_COMMIT_SHARE = 0.2
SHARE_IN_EXCURSIONS = 0.1
MANY = 2
"""So many kills of a kind must have counted before their share between write and commit is held to anything."""
WITHIN_ITSELF = ("full", "enospc")
"""What fails here are the writes of a transaction; there is no moment to choose."""


@dataclass
class Cycle:
    """One kill and what followed."""

    kind: str
    how: str
    """`trap`: between the writes of a transaction and its COMMIT; `signal`: from outside, whenever."""
    victim: str
    waiting: int = 0
    """Messages of the victim's that were unacknowledged when it died; a kill with none does not count."""
    outage_s: float = 0.0
    recovered: bool = False
    found_written: int = 0
    """Messages that were committed and not acknowledged: sent again, found to be there."""

    @property
    def counts(self) -> bool:
        """Whether it proves anything."""
        return self.waiting > 0


def summary(cycles: list[Cycle]) -> dict[str, dict[str, Any]]:
    """By kind: how many kills counted, how many of them fell between write and commit or between commit and answer, the outages."""
    told: dict[str, dict[str, Any]] = {}
    for kind in sorted({cycle.kind for cycle in cycles}):
        mine = [cycle for cycle in cycles if cycle.kind == kind and cycle.counts]
        outages = sorted(cycle.outage_s for cycle in mine) or [0.0]
        told[kind] = {
            "cycles": len(mine),
            "not_counted": sum(1 for cycle in cycles if cycle.kind == kind) - len(mine),
            "between_write_and_commit": sum(1 for cycle in mine if cycle.how == "trap"),
            "written_and_unacknowledged": sum(1 for cycle in mine if cycle.found_written),
            "median_outage_s": outages[len(outages) // 2],
            "longest_outage_s": outages[-1],
            "unrecovered": sum(1 for cycle in mine if not cycle.recovered),
        }
    return told


def too_little(kinds: Iterable[str], cycles: list[Cycle], share_in_excursions: float) -> list[str]:
    """What a long run of these kinds shows too little of: kills, those between write and commit, readings in excursions."""
    told = []
    shown = summary(cycles)
    for kind in sorted(set(kinds)):
        row = shown.get(kind)
        if row is None or not row["cycles"]:
            told.append(f"{kind}: nothing of it counted")
            continue
        share = row["between_write_and_commit"] / row["cycles"]
        if row["cycles"] >= MANY and share < MID_COMMIT_SHARE and kind not in WITHIN_ITSELF:
            told.append(f"{kind}: {share:.0%} of the kills between write and commit, {MID_COMMIT_SHARE:.0%} are asked for")
    if share_in_excursions < SHARE_IN_EXCURSIONS:
        told.append(f"{share_in_excursions:.1%} of the readings in excursions, {SHARE_IN_EXCURSIONS:.0%} are asked for")
    return told
