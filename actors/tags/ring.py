"""The ring: a shard's recent accepted readings as columns in arrival order, bounded in bytes.

Row numbers count up for ever; row `number` is at slot `number % capacity` while `number >= head - capacity`.
Each row names the same tag's previous row and the newest sensed time that the tag had before it, so that a walk back
over a tag's rows stops as soon as nothing earlier can matter.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

from actors.rules.readings import COLUMNS, F8, I4, I8, U1

FUTURE = 1
"""`mark` of a row whose sensed time was too far ahead of our clock: outside the rules until a tick releases it."""

ROW_BYTES = 8 * 5 + 4 + 1

LEAST_ROWS = 1 << 18
"""A ring holds at least this many readings: more than a door puts into one call, so that a batch is there as a whole while it is judged."""


class Ring:
    """See the module. `row_of_code[code]` is the row of `values` that holds a column code, -1 where none yet."""

    def __init__(self, bytes_bound: int, usual_columns: int = 4, least: int = LEAST_ROWS) -> None:
        self.capacity = max(least, bytes_bound // (ROW_BYTES + 8 * usual_columns))
        size = self.capacity
        self.head = np.zeros(1, dtype=np.int64)  # the next row number; an array so that kernels may move it
        self.tag: I4 = np.zeros(size, dtype=np.int32)
        self.mark: U1 = np.zeros(size, dtype=np.uint8)
        self.sensed_us: I8 = np.zeros(size, dtype=np.int64)
        self.boot: I8 = np.zeros(size, dtype=np.int64)
        self.sequence: I8 = np.zeros(size, dtype=np.int64)
        self.previous: I8 = np.zeros(size, dtype=np.int64)
        self.before_us: I8 = np.zeros(size, dtype=np.int64)
        self._room: F8 = np.empty((len(COLUMNS), size))  # the system gives memory to what is written, only
        self.values = self._room[:0]
        self.row_of_code: I8 = np.full(len(COLUMNS), -1, dtype=np.int64)

    @property
    def codes(self) -> tuple[int, ...]:
        """The column codes held, in the order of the rows of `values`."""
        held = [(int(row), code) for code, row in enumerate(self.row_of_code) if row >= 0]
        return tuple(code for _, code in sorted(held))

    def make_room(self, codes: tuple[int, ...]) -> None:
        """A row of `values` for each of `codes`; earlier readings have these absent."""
        for code in codes:
            if self.row_of_code[code] < 0:
                row = self.row_of_code[code] = len(self.values)
                self.values = self._room[: row + 1]
                self.values[row, : self.head[0]] = np.nan


@nb.njit(cache=True, nogil=True)
def collect(
    head: int,
    capacity: int,
    mark: U1,
    sensed_us: I8,
    previous: I8,
    before_us: I8,
    ring_last: I8,
    known_us: I8,
    from_us: I8,
    until_us: I8,
) -> tuple[I4, I8, npt.NDArray[np.bool_]]:
    """The ring slots of some tags' readings with from_us <= sensed_us < until_us, in arrival order per tag.

    ring_last, known_us, from_us, until_us: (k,) of each tag asked for. Readings still in the future are left out.
    Returns (position of the tag asked for, slot) per row and, per tag, whether the ring held all of them.
    """
    asked = len(ring_last)
    complete = np.ones(asked, dtype=np.bool_)
    counts = np.zeros(asked + 1, dtype=np.int64)
    for i in range(asked):
        number, upper = ring_last[i], known_us[i]
        while upper >= from_us[i]:
            if number < 0 or number < head - capacity:
                complete[i] = False
                break
            slot = number % capacity
            if mark[slot] == 0 and from_us[i] <= sensed_us[slot] < until_us[i]:
                counts[i + 1] += 1
            upper = before_us[slot]
            number = previous[slot]
    for i in range(asked):
        counts[i + 1] += counts[i]
    position = np.empty(counts[asked], dtype=np.int32)
    slots = np.empty(counts[asked], dtype=np.int64)
    for i in range(asked):
        at = counts[i + 1]
        number, upper = ring_last[i], known_us[i]
        while upper >= from_us[i]:
            if number < 0 or number < head - capacity:
                break
            slot = number % capacity
            if mark[slot] == 0 and from_us[i] <= sensed_us[slot] < until_us[i]:
                at -= 1
                position[at] = i
                slots[at] = slot
            upper = before_us[slot]
            number = previous[slot]
    return position, slots, complete


def rows_of(ring: Ring, tags: npt.NDArray[Any], from_us: I8, until_us: I8) -> tuple[I4, I8, npt.NDArray[np.bool_]]:
    """`collect` for TAG rows: (position in `tags`, slot) per reading and, per tag, whether the ring held all of them."""
    last, known = np.ascontiguousarray(tags["ring_last"]), np.ascontiguousarray(tags["known_us"])
    found: tuple[I4, I8, npt.NDArray[np.bool_]] = collect(
        int(ring.head[0]), ring.capacity, ring.mark, ring.sensed_us, ring.previous, ring.before_us, last, known,
        np.ascontiguousarray(from_us), np.ascontiguousarray(until_us),
    )  # fmt: skip
    return found
