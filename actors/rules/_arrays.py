"""Arrays as the compiled loops want them: a read-only or strided array would be another type, and compiled anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from actors.rules.readings import Groups


def own(column: npt.ArrayLike, dtype: npt.DTypeLike = np.float64) -> npt.NDArray[Any]:
    """The column itself where it is contiguous, writable and of this type, else a copy."""
    return np.require(column, dtype, ["C", "W"])


def own_groups(groups: Groups) -> Groups:
    """The groups' three arrays likewise."""
    return Groups(own(groups.tag, np.int32), own(groups.start, np.int64), own(groups.order, np.int64))
