"""Completeness: which sequence numbers of a tag's boots were received in a custody, and which are missing (handbook 6).

A device counts its readings from boot to boot. What lies between the lowest and the highest number seen in a custody was sent
there; what of it was not received is missing. Numbers before the lowest or after the highest cannot be known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from actors.rules.readings import I8, NO_SEQUENCE

Range = tuple[int, int]
"""First and last sequence number, both included."""
Ranges = tuple[Range, ...]
"""Sorted, disjoint, and not adjacent: the shortest form of a set of numbers."""


@dataclass(frozen=True, slots=True)
class BootRecord:
    """One boot: the sequence numbers received, as ranges."""

    boot: int
    ranges: Ranges

    @property
    def received(self) -> int:
        """How many different numbers were received."""
        return sum(last - first + 1 for first, last in self.ranges)

    @property
    def expected(self) -> int:
        """How many numbers there are from the lowest to the highest received."""
        return self.ranges[-1][1] - self.ranges[0][0] + 1 if self.ranges else 0

    @property
    def missing(self) -> Ranges:
        """The ranges between, that were not received."""
        return tuple((before[1] + 1, after[0] - 1) for before, after in pairwise(self.ranges))


@dataclass(frozen=True, slots=True)
class Completeness:
    """All boots of one tag in one custody, or of many merged. `unnumbered` counts readings whose device tells no sequence."""

    boots: Mapping[int, BootRecord] = field(default_factory=dict)
    unnumbered: int = 0

    @property
    def received(self) -> int:
        """Different numbers received, over all boots."""
        return sum(boot.received for boot in self.boots.values())

    @property
    def expected(self) -> int:
        """Numbers known to have been sent, over all boots."""
        return sum(boot.expected for boot in self.boots.values())

    @property
    def missing(self) -> int:
        """Numbers known to have been sent and not received."""
        return self.expected - self.received


def complete(boot: I8, sequence: I8) -> Completeness:
    """The completeness of one tag's accepted readings in one custody, in any order, repeats allowed."""
    numbered = sequence != NO_SEQUENCE
    boots, numbers = boot[numbered], sequence[numbered]
    order = np.lexsort((numbers, boots))
    boots, numbers = boots[order], numbers[order]
    if not len(boots):
        return Completeness({}, len(boot))
    begins = np.ones(len(boots), np.bool_)
    begins[1:] = (np.diff(boots) != 0) | (np.diff(numbers) > 1)
    first = np.flatnonzero(begins)
    last = np.append(first[1:], len(boots)) - 1
    found: dict[int, list[Range]] = {}
    for a, b in zip(first.tolist(), last.tolist(), strict=True):
        found.setdefault(int(boots[a]), []).append((int(numbers[a]), int(numbers[b])))
    return Completeness({key: BootRecord(key, tuple(ranges)) for key, ranges in found.items()}, len(boot) - len(order))


def merge_ranges(ranges: Iterable[Range]) -> Ranges:
    """The same numbers in the shortest form.

    >>> merge_ranges([(5, 9), (1, 3), (4, 4), (8, 12)])
    ((1, 12),)
    """
    merged: list[Range] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


def merge(parts: Iterable[Completeness]) -> Completeness:
    """Parts of the record of *one* tag in one custody as one (old readings and new). Not for different tags or custodies: add these up."""
    ranges: dict[int, list[Range]] = {}
    unnumbered = 0
    for part in parts:
        unnumbered += part.unnumbered
        for boot, record in part.boots.items():
            ranges.setdefault(boot, []).extend(record.ranges)
    return Completeness({boot: BootRecord(boot, merge_ranges(mine)) for boot, mine in sorted(ranges.items())}, unnumbered)
