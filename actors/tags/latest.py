"""The newest value of each metric of each tag, for the tags' twins: (sensed_us, value) per column code, 16 bytes each, a position 24.

Kept beside the ring, so that neither a ring that has moved on nor a restart forgets what a tag last said of its battery.
"""

from __future__ import annotations

from collections.abc import Iterable

import numba as nb
import numpy as np

from actors.rules.readings import COLUMNS, F8, I4, I8, LATITUDE, LONGITUDE, U1
from actors.tags.columns import MIN_US, grown
from actors.tags.ring import FUTURE, Ring


@nb.njit(cache=True, nogil=True)
def _note(
    begin: int, end: int, capacity: int, tag: I4, mark: U1, sensed_us: I8, values: F8, rows: I8, times: I8, newest_us: I8, newest: F8
) -> None:  # fmt: skip
    """Ring rows begin … end - 1; rows[k], times[k]: where its k-th column is kept. Of equal sensed times the later arrival stands."""
    for number in range(begin, end):
        slot = number % capacity
        if mark[slot] == FUTURE:
            continue
        t, at = tag[slot], sensed_us[slot]
        for k in range(len(rows)):
            value = values[k, slot]
            if not np.isnan(value) and at >= newest_us[times[k], t]:
                newest_us[times[k], t] = at
                newest[rows[k], t] = value


class Latest:
    """See the module. `row_of_code[code]`, `time_of_code[code]`: the rows of the two tables that hold a column code, -1 where none yet.

    A fix has both its coordinates, so they have one time.
    """

    def __init__(self) -> None:
        self.row_of_code: I8 = np.full(len(COLUMNS), -1, dtype=np.int64)
        self.time_of_code: I8 = np.full(len(COLUMNS), -1, dtype=np.int64)
        self.sensed_us: I8 = np.zeros((0, 64), dtype=np.int64)
        self.value: F8 = np.zeros((0, 64), dtype=np.float64)

    def _make_room(self, codes: Iterable[int], tags: int) -> None:
        self.sensed_us, self.value = grown(self.sensed_us, tags, MIN_US), grown(self.value, tags)
        for code in codes:
            if self.row_of_code[code] >= 0:
                continue
            self.row_of_code[code] = len(self.value)
            self.value = np.concatenate([self.value, np.zeros((1, self.value.shape[1]))])
            other = {LATITUDE: LONGITUDE, LONGITUDE: LATITUDE}.get(code, code)
            if self.time_of_code[other] < 0:
                self.time_of_code[other] = len(self.sensed_us)
                self.sensed_us = np.concatenate([self.sensed_us, np.full((1, self.sensed_us.shape[1]), MIN_US, dtype=np.int64)])
            self.time_of_code[code] = self.time_of_code[other]

    def note(self, ring: Ring, begin: int, tags: int) -> None:
        """Take the ring's rows from number `begin` on, without those still in the future; `tags`: how many tags there are."""
        end = int(ring.head[0])
        if end == begin:
            return
        codes = ring.codes
        self._make_room(codes, tags)
        rows, times = self.row_of_code[list(codes)], self.time_of_code[list(codes)]
        _note(begin, end, ring.capacity, ring.tag, ring.mark, ring.sensed_us, ring.values, rows, times, self.sensed_us, self.value)

    def put(self, tag: int, at_us: int, values: dict[int, float]) -> None:
        """A reading that is no longer in the future: its values by column code."""
        self._make_room(values, tag + 1)
        for code, value in values.items():
            row, time = self.row_of_code[code], self.time_of_code[code]
            if at_us >= self.sensed_us[time, tag]:
                self.sensed_us[time, tag], self.value[row, tag] = at_us, value

    def of(self, tag: int) -> dict[int, tuple[int, float]]:
        """A tag's (sensed_us, value) by column code."""
        if tag >= min(self.value.shape[1], self.sensed_us.shape[1]):
            return {}
        held = [code for code, time in enumerate(self.time_of_code) if time >= 0 and self.sensed_us[time, tag] > MIN_US]
        return {code: (int(self.sensed_us[self.time_of_code[code], tag]), float(self.value[self.row_of_code[code], tag])) for code in held}
