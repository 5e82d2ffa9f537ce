"""Arrays as the compiled loops want them: any other kind (writable or not, strided, unaligned) would be compiled anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from actors.rules.readings import Groups


def own(column: npt.ArrayLike, dtype: npt.DTypeLike = np.float64) -> npt.NDArray[Any]:
    """A read-only view of the column, contiguous, aligned and of this type; copied only where it is not so already."""
    if not (isinstance(column, np.ndarray) and column.dtype == dtype and column.flags.c_contiguous and column.flags.aligned):
        column = np.require(column, dtype, ["C", "A"])
    view = column.view()
    view.flags.writeable = False
    return view


def own_groups(groups: Groups) -> Groups:
    """The groups' three arrays likewise."""
    return Groups(own(groups.tag, np.int32), own(groups.start, np.int64), own(groups.order, np.int64))
