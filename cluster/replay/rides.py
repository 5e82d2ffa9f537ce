"""The custodies of a part and their readings as columns: what is judged, block by block.

A ride is one custody of one tag. Its readings are consecutive rows in judging order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actors.rules.quality import QualitySettings
from actors.rules.readings import F8, I4, I8, U1, Groups

BLOCK = 1 << 17
"""So many readings are judged together, about: 4 MB with three values, which a processor's cache holds."""


@dataclass(slots=True)
class Columns:
    """A part's readings. values: (len(codes), n), NaN where absent. flags: as recorded, 0 where there is no value; None: not asked for."""

    sensed_us: I8
    codes: tuple[int, ...]
    values: F8
    flags: U1 | None = None


@dataclass(slots=True)
class Rides:
    """The custodies of a part: arrays of length r. carrier: index into the list given with them; start: (r + 1,), rows of the columns.

    beside: readings outside of the custodies that their flags look at, those of ride k in rows beside_start[k] … beside_start[k + 1] - 1 in
    judging order, with every column; None where nothing is known of any.
    """

    custody_id: I8
    carrier: I4
    tag: I4
    from_us: I8
    until_us: I8
    start: I8
    quality: list[QualitySettings | None]
    beside: Columns | None = None
    beside_start: I8 | None = None

    def __len__(self) -> int:
        return len(self.custody_id)

    def some(self, low: int, high: int, quality: list[QualitySettings | None] | None = None) -> Rides:
        """The rides from `low` to before `high`, as if their readings were all; quality: other settings than these."""
        few = slice(low, high)
        settings = (self.quality if quality is None else quality)[few]
        start = self.start[low : high + 1] - self.start[low]
        beside_start = None if self.beside_start is None else self.beside_start[low : high + 1]
        return Rides(
            self.custody_id[few], self.carrier[few], self.tag[few], self.from_us[few], self.until_us[few], start, settings, self.beside,
            beside_start,
        )  # fmt: skip


def blocks(rides: Rides) -> list[tuple[int, int]]:
    """Ranges of rides with about BLOCK readings each, none of which parts a carrier's."""
    many = len(rides)
    ends = np.append(np.flatnonzero(np.diff(rides.carrier)) + 1, many) if many else np.zeros(0, np.int64)
    blocks, low = [], 0
    for end in ends.tolist():
        if rides.start[end] - rides.start[low] >= BLOCK or end == many:
            blocks.append((low, end))
            low = end
    return blocks


def block_index(starts: I8, sizes: I8) -> I8:
    """Concatenation of arange(start, start + size)."""
    total = int(sizes.sum())
    before = np.cumsum(sizes) - sizes
    return np.repeat(starts - before, sizes) + np.arange(total)


def groups_of(rides: Rides, chosen: I8) -> tuple[Groups, I8]:
    """The chosen rides as groups numbered 0 … (those without readings left out), and which of them those are."""
    sizes = np.diff(rides.start)[chosen]
    filled = np.flatnonzero(sizes)
    starts = rides.start[:-1][chosen][filled]
    start = np.concatenate([[0], np.cumsum(sizes[filled])]).astype(np.int64)
    return Groups(filled.astype(np.int32), start, block_index(starts, sizes[filled])), filled
