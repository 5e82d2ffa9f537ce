"""The newest value of each metric of each tag, for the tags' twins: (sensed_us, value) per column code, 17 bytes each, a position 25.

Kept beside the ring, so that neither a ring that has moved on nor a restart forgets what a tag last said of its battery. Newest is in the
handbook's order: sensed time, boot, sequence. Boot and sequence are not kept here: where two readings have the newest time of a metric
that is noted, and who asks looks at these readings (`queries.twin`).
"""

from __future__ import annotations

from collections.abc import Iterable

import numba as nb
import numpy as np

from actors.rules.readings import COLUMNS, F8, I4, I8, LATITUDE, LONGITUDE, U1
from actors.tags.columns import MIN_US, grown
from actors.tags.prefetch import AHEAD, prefetch
from actors.tags.ring import FUTURE, Ring


@nb.njit(cache=True, nogil=True)
def _note(
    begin: int, end: int, capacity: int, tag: I4, mark: U1, sensed_us: I8, values: F8, rows: I8, times: I8, leads: U1,
    newest_us: I8, newest: F8, tied: U1,
) -> None:  # fmt: skip
    """Ring rows begin … end - 1; rows[k], times[k]: where its k-th column is kept; leads[k]: no earlier column shares its time."""
    for number in range(begin, end):
        if number + AHEAD < end:
            coming = tag[(number + AHEAD) % capacity]
            for k in range(len(rows)):
                prefetch(newest[rows[k]], coming, 0)
                prefetch(newest_us[times[k]], coming, 0)
                prefetch(tied[times[k]], coming, 0)
        slot = number % capacity
        if mark[slot] == FUTURE:
            continue
        t, at = tag[slot], sensed_us[slot]
        for k in range(len(rows)):
            value = values[k, slot]
            if not np.isnan(value) and at >= newest_us[times[k], t]:
                if leads[k]:
                    tied[times[k], t] = at == newest_us[times[k], t]
                    newest_us[times[k], t] = at
                newest[rows[k], t] = value


class Latest:
    """See the module. `row_of_code[code]`, `time_of_code[code]`: the rows of the tables that hold a column code, -1 where none yet.

    A fix has both its coordinates, so they have one time. `tied`: several readings have the newest time.
    """

    def __init__(self) -> None:
        self.row_of_code: I8 = np.full(len(COLUMNS), -1, dtype=np.int64)
        self.time_of_code: I8 = np.full(len(COLUMNS), -1, dtype=np.int64)
        self.sensed_us: I8 = np.zeros((0, 64), dtype=np.int64)
        self.value: F8 = np.zeros((0, 64), dtype=np.float64)
        self.tied: U1 = np.zeros((0, 64), dtype=np.uint8)

    def _make_room(self, codes: Iterable[int], tags: int) -> None:
        self.sensed_us, self.value, self.tied = grown(self.sensed_us, tags, MIN_US), grown(self.value, tags), grown(self.tied, tags)
        for code in codes:
            if self.row_of_code[code] >= 0:
                continue
            self.row_of_code[code] = len(self.value)
            self.value = np.concatenate([self.value, np.zeros((1, self.value.shape[1]))])
            other = {LATITUDE: LONGITUDE, LONGITUDE: LATITUDE}.get(code, code)
            if self.time_of_code[other] < 0:
                self.time_of_code[other] = len(self.sensed_us)
                self.sensed_us = np.concatenate([self.sensed_us, np.full((1, self.sensed_us.shape[1]), MIN_US, dtype=np.int64)])
                self.tied = np.concatenate([self.tied, np.zeros((1, self.tied.shape[1]), dtype=np.uint8)])
            self.time_of_code[code] = self.time_of_code[other]

    def note(self, ring: Ring, begin: int, tags: int) -> None:
        """Take the ring's rows from number `begin` on, without those still in the future; `tags`: how many tags there are."""
        end = int(ring.head[0])
        if end == begin:
            return
        codes = ring.codes
        self._make_room(codes, tags)
        rows, times = self.row_of_code[list(codes)], self.time_of_code[list(codes)]
        leads = np.zeros(len(times), np.uint8)
        leads[np.unique(times, return_index=True)[1]] = 1
        columns = ring.tag, ring.mark, ring.sensed_us, ring.values
        _note(begin, end, ring.capacity, *columns, rows, times, leads, self.sensed_us, self.value, self.tied)

    def put(self, tag: int, at_us: int, values: dict[int, float]) -> None:
        """A reading that is no longer in the future: its values by column code."""
        self._make_room(values, tag + 1)
        known = {code: int(self.sensed_us[self.time_of_code[code], tag]) for code in values}
        for code, value in values.items():
            row, time = self.row_of_code[code], self.time_of_code[code]
            if at_us >= known[code]:
                self.sensed_us[time, tag], self.value[row, tag], self.tied[time, tag] = at_us, value, at_us == known[code]

    def of(self, tag: int) -> dict[int, tuple[int, float, bool]]:
        """A tag's (sensed_us, value, whether another reading with a value has this time) by column code."""
        if tag >= min(self.value.shape[1], self.sensed_us.shape[1], self.tied.shape[1]):
            return {}
        held = [(code, self.row_of_code[code], time) for code, time in enumerate(self.time_of_code) if time >= 0]
        return {
            code: (int(self.sensed_us[time, tag]), float(self.value[row, tag]), bool(self.tied[time, tag]))
            for code, row, time in held
            if self.sensed_us[time, tag] > MIN_US
        }
