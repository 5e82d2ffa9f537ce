"""What goes wrong in the simulated fleet, and when: schedules of intervals drawn once from the seed.

All intervals are half-open [from, until) in seconds since the fleet's start; a schedule is an array (owners, events, 2).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

F8 = npt.NDArray[np.float64]
DAY_S = 86_400.0


@dataclass(frozen=True)
class Faults:
    """How often each thing goes wrong. Rates are per vehicle (or gateway) and day, shares are of tags or readings; 0 is never."""

    doors: float = 2.5
    """Door openings a day while under way, beside those at loading and unloading."""
    compressors: float = 0.07
    """Failures a day of a vehicle's cooling (a parcel: left out on the tarmac); each lasts 1 to 9 hours."""
    warm_loading: float = 0.12
    """Share of trips whose goods come on board warmer than they may be."""
    dead_zones: float = 0.8
    """Stretches a day without a network: readings are held and sent at its end."""
    gateways: float = 0.2
    """Outages a day of a gateway; each lasts 1 to 7 hours."""
    clocks: float = 0.004
    """Share of tags whose clock is wrong: minutes slow, or hours ahead."""
    duplicates: float = 0.002
    """Share of readings that are sent twice."""
    conflicts: float = 0.00002
    """Share of readings sent again under the same identity with another value."""
    sensors: float = 0.01
    """Share of tags whose temperature sensor fails for a while: stuck, spiking or broken wire."""
    implausible: float = 0.00002
    """Share of readings with an impossible temperature, which Waybill is to refuse."""
    reboots: float = 0.05
    """Reboots a day of a tag: its boot counts up, its sequence starts again."""

    @classmethod
    def parse(cls, text: str) -> Faults:
        """`all`, `none`, or names joined by commas (`dead_zones,duplicates`): those only, at their usual rates.

        Raises ValueError that names the unknown word and the known ones.
        """
        usual = cls()
        if text == "all":
            return usual
        known = [field.name for field in fields(cls)]
        nothing = replace(usual, **dict.fromkeys(known, 0.0))
        if text == "none":
            return nothing
        wanted = [word.strip().replace("-", "_") for word in text.split(",") if word.strip()]
        for word in wanted:
            if word not in known:
                raise ValueError(f"unknown fault {word!r}; known are all, none, {', '.join(known)}")
        return replace(nothing, **{word: getattr(usual, word) for word in wanted})


def schedule(rng: np.random.Generator, owners: int, days: float, rate: float, shortest_s: float, longest_s: float) -> F8:
    """Intervals for each owner: as many as the busiest has (others padded with empty ones), log-uniform in length.

    Returns (owners, events, 2); an absent event is [inf, inf).
    """
    counts = rng.poisson(rate * days, owners)
    events = int(counts.max(initial=0))
    start = rng.uniform(0.0, days * DAY_S, (owners, events))
    length = np.exp(rng.uniform(np.log(shortest_s), np.log(longest_s), (owners, events)))
    start[np.arange(events) >= counts[:, None]] = np.inf
    return np.stack([start, start + length], axis=2)


def ends_of_holding(intervals: F8, at_s: float) -> F8:
    """For each owner the end of the interval that covers `at_s` (the latest of several), NaN where none does."""
    if not intervals.shape[1]:
        return np.full(len(intervals), np.nan)
    inside = (intervals[..., 0] <= at_s) & (at_s < intervals[..., 1])
    return np.asarray(np.where(inside.any(axis=1), np.where(inside, intervals[..., 1], -np.inf).max(axis=1), np.nan))


def covered_share(intervals: F8, from_s: float, until_s: float) -> F8:
    """For each owner the share of [from_s, until_s) that its intervals cover, at most 1."""
    if not intervals.shape[1]:
        return np.zeros(len(intervals))
    overlap = np.minimum(intervals[..., 1], until_s) - np.maximum(np.minimum(intervals[..., 0], until_s), from_s)
    return np.asarray(np.minimum(np.maximum(overlap, 0.0).sum(axis=1) / (until_s - from_s), 1.0))


def active(intervals: F8, at_s: float) -> npt.NDArray[np.bool_]:
    """Whether one of the owner's intervals covers `at_s`."""
    inside = (intervals[..., 0] <= at_s) & (at_s < intervals[..., 1])
    return np.asarray(inside.any(axis=1))
