"""Which custody a sensed time lies in, by looking at each. Imports nothing from actors/."""

from __future__ import annotations

from collections.abc import Sequence


def carrier_at(sensed_us: int, intervals: Sequence[tuple[str, int, int]]) -> str | None:
    """The carrier of the interval (carrier, from, until) that holds the time, `until` not included."""
    for carrier, from_us, until_us in intervals:
        if from_us <= sensed_us < until_us:
            return carrier
    return None


def disjoint(intervals: Sequence[tuple[str, int, int]]) -> bool:
    """Whether no two share a time, compared pair by pair."""
    return not any(a[1] < b[2] and b[1] < a[2] for k, a in enumerate(intervals) for b in intervals[k + 1 :])
