"""Growable columns: the state of many virtual actors as rows of numpy structured arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

MIN_US = np.iinfo(np.int64).min // 4
"""Before every sensed time: "nothing yet"."""

TAG = np.dtype(
    [
        ("known_us", "i8"),  # newest sensed time of all accepted readings, the ones in the future included: for identity
        ("newest_us", "i8"),  # newest sensed time inside the rules, with its boot and sequence: for order
        ("newest_boot", "i8"),
        ("newest_sequence", "i8"),
        ("received_us", "i8"),  # when we last received anything of it: for silence
        ("usual_interval_us", "i8"),  # learned from in-order readings, 0 before the second
        ("set_interval_us", "i8"),  # configured, 0 where not
        ("custody_from_us", "i8"),  # start of the open custody, FOREVER_US where none
        ("past_until_us", "i8"),  # end of the latest closed custody, MIN_US where none
        ("stated_us", "i8"),  # when the last of what is stated of its open custody ends, FOREVER_US where something is open
        ("checkpoint_us", "i8"),  # the checkpoint holds every reading up to this sensed time, MIN_US where none
        ("ring_last", "i8"),  # the tag's newest row in the ring, -1 where none
        ("top_boot", "i8"),  # the boot whose highest sequence is top_sequence
        ("top_sequence", "i8"),
        ("accepted", "u4"),
        ("duplicate", "u4"),
        ("conflicting", "u4"),
        ("late", "u4"),
        ("range_head", "i4"),  # first of its sequence ranges, -1 where none
        ("custody", "i4"),  # index of its open custody in the population's list, -1 where none
        ("checkpoint_tracks", "i4"),  # first row of its checkpoint, -1 where none
        ("checkpoint_visits", "i4"),
        ("silent", "u1"),
        ("special", "u1"),  # bits: SPECIAL_*
    ],
    align=True,
)

SPECIAL_MKT = 1
"""The tag has an mkt limit: its whole custody is kept as a series."""
SPECIAL_QUALITY = 2
"""The tag has quality settings: flags are judged with every batch."""


def grown(array: npt.NDArray[Any], needed: int, fill: Any = None) -> npt.NDArray[Any]:
    """`array` itself where its last axis holds `needed`, else a copy that grew by half at least."""
    held = array.shape[-1]
    if needed <= held:
        return array
    size = max(needed, held + held // 2, 64)
    bigger = np.zeros((*array.shape[:-1], size), dtype=array.dtype)
    if fill is not None:
        bigger[..., held:] = fill
    bigger[..., :held] = array
    return bigger


class RowPool:
    """Rows of one dtype given out in contiguous blocks, with a free list per block length.

    `rows` may be replaced when the pool grows: hold indices, not views, across `take`.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.rows = np.zeros(64, dtype=dtype)
        self.used = 0
        self._free: dict[int, list[int]] = {}

    def take(self, count: int) -> int:
        """The first index of a block of `count` rows; their content is whatever was there."""
        if count == 0:
            return 0
        free = self._free.get(count)
        if free:
            return free.pop()
        first = self.used
        self.used += count
        self.rows = grown(self.rows, self.used)
        return first

    def give(self, first: int, count: int) -> None:
        """Return a block."""
        if count:
            self._free.setdefault(count, []).append(first)

    def dump(self) -> dict[str, Any]:
        """State for a snapshot."""
        return {"rows": self.rows[: self.used].copy(), "free": {count: list(blocks) for count, blocks in self._free.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Back from `dump`."""
        self.rows = state["rows"]
        self.used = len(self.rows)
        self._free = state["free"]


def empty_tags(count: int) -> npt.NDArray[Any]:
    """`count` TAG rows of tags that nothing is known of."""
    rows = np.zeros(count, dtype=TAG)
    fresh_tags(rows)
    return rows


def fresh_tags(rows: npt.NDArray[Any]) -> None:
    """Make `rows` (a view) those of tags that nothing is known of."""
    from actors.rules.readings import FOREVER_US

    for name in ("known_us", "newest_us", "received_us", "past_until_us", "stated_us", "checkpoint_us"):
        rows[name] = MIN_US
    rows["custody_from_us"] = FOREVER_US
    for name in (
        "newest_boot",
        "newest_sequence",
        "ring_last",
        "top_boot",
        "top_sequence",
        "range_head",
        "custody",
        "checkpoint_tracks",
        "checkpoint_visits",
    ):
        rows[name] = -1
