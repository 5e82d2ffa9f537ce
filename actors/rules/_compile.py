"""How the ground floor's loops are compiled: to machine code, cached on disk, without holding the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """numba's njit with cache and nogil, and without fast-math: sums are folded strictly in order (handbook).

    The type stays the Python one, so that mypy checks callers.
    """
    fast: Callable[P, R] = numba.njit(cache=True, nogil=True, fastmath=False, error_model="numpy")(function)
    return fast
