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
        ("custody_from_us", "i8"),  # start of the open custody, FOREVER_US where none
        ("past_until_us", "i8"),  # end of the latest closed custody, MIN_US where none
        ("custody_id", "i8"),  # of the open custody
        ("ring_last", "i8"),  # the tag's newest row in the ring, -1 where none
        ("top_boot", "i8"),  # its top range of sequences, top_low to top_sequence: -1 where none has come (admit.Ranges)
        ("top_low", "i8"),
        ("top_sequence", "i8"),
        ("accepted", "u4"),
        ("duplicate", "u4"),
        ("conflicting", "u4"),
        ("late", "u4"),
        ("range_head", "i4"),  # first of its other ranges, -1 where none
        ("carrier", "i4"),  # the number in the rulebook of what it rides on, -1 where it is in no open custody
        ("unit", "i4"),  # the number of the handling unit it rides on (Custodies)
        ("shape", "i4"),  # of its rows (records.Shapes), 0 where it has none: then nothing is judged
        ("checkpoint", "i4"),  # its place among the checkpoints, -1 where it has none
        ("ranges", "u2"),  # how many they are
        ("silent", "u1"),  # see clock.SILENT
        ("special", "u1"),  # bits: SPECIAL_*
    ],
    align=True,
)

SPECIAL_MKT = 1
"""The tag has an mkt limit: its whole custody is kept as a series."""
SPECIAL_QUALITY = 2
"""The tag has quality settings: flags are judged with every batch."""
SPECIAL_NEIGHBOURS = 4
"""Some of these look at neighbours: what its next readings will look at is kept whether it rides or not."""


def grown(array: npt.NDArray[Any], needed: int, fill: Any = None) -> npt.NDArray[Any]:
    """`array` itself where its last axis holds `needed`, else a copy that grew by half at least, or with `fill` by an eighth.

    What is not written to takes no memory, for the system gives out pages when they are touched; `fill` is written at once.
    """
    held = array.shape[-1]
    if needed <= held:
        return array
    size = max(needed, held + held // (2 if fill is None else 8), 64)
    bigger = np.zeros((*array.shape[:-1], size), dtype=array.dtype)
    if fill is not None:
        bigger[..., held:] = fill
    bigger[..., :held] = array
    return bigger


def empty_tags(count: int) -> npt.NDArray[Any]:
    """`count` TAG rows of tags that nothing is known of."""
    rows = np.zeros(count, dtype=TAG)
    fresh_tags(rows)
    return rows


def fresh_tags(rows: npt.NDArray[Any]) -> None:
    """Make `rows` (a view) those of tags that nothing is known of."""
    from actors.rules.readings import FOREVER_US

    for name in ("known_us", "newest_us", "received_us", "past_until_us"):
        rows[name] = MIN_US
    rows["custody_from_us"] = FOREVER_US
    for name in ("newest_boot", "newest_sequence", "ring_last", "top_boot", "top_sequence", "range_head", "carrier", "checkpoint"):
        rows[name] = -1
