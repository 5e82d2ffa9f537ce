"""Readings of one batch that repeat an identity of the same batch: the first in the message stays, whatever their sensed times."""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

from actors.rules._compile import frozen
from actors.rules.readings import I4, I8


@nb.njit(cache=True, nogil=True)
def _repeats(tag: I4, boot: I8, sequence: I8, slots: I4, repeated: npt.NDArray[np.bool_]) -> int:
    """Mark each row whose (tag, boot, sequence) an earlier row has; `slots` (all -1, a power of two long) is a hash table of rows."""
    mask = len(slots) - 1
    found = 0
    for row in range(len(tag)):
        if sequence[row] < 0:
            continue
        key = np.uint64(sequence[row]) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(tag[row]) * np.uint64(0xC2B2AE3D27D4EB4F)
        key ^= np.uint64(boot[row]) * np.uint64(0x165667B19E3779F9)
        at = np.int64((key ^ (key >> np.uint64(29))) & np.uint64(mask))
        while slots[at] >= 0:
            other = slots[at]
            if tag[other] == tag[row] and sequence[other] == sequence[row] and boot[other] == boot[row]:
                repeated[row] = True
                found += 1
                break
            at = (at + 1) & mask
        else:
            slots[at] = row
    return found


def repeats(tag: I4, boot: I8, sequence: I8) -> npt.NDArray[np.bool_] | None:
    """Which rows repeat the (tag, boot, sequence) of an earlier row; None where none does.

    >>> import numpy as np
    >>> zero = np.zeros(3, np.int64)
    >>> repeats(zero.astype(np.int32), zero, np.array([4, 5, 4])).tolist()
    [False, False, True]
    """
    size = 16
    while size < 2 * len(tag):
        size *= 2
    repeated = np.zeros(len(tag), np.bool_)
    found = _repeats(frozen(tag), frozen(boot), frozen(sequence), np.full(size, -1, np.int32), repeated)
    return repeated if found else None
