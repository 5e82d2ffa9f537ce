"""How the ground floor's loops are compiled: to machine code, cached on disk, without holding the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numba
import numpy.typing as npt

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A", bound=npt.NDArray[Any])


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """numba's njit with cache and nogil, and without fast-math: sums are folded strictly in order (handbook).

    The type stays the Python one, so that mypy checks callers.
    """
    fast: Callable[P, R] = numba.njit(cache=True, nogil=True, fastmath=False, error_model="numpy")(function)
    return fast


def frozen(array: A) -> A:
    """A read-only view. numba compiles a function once for writable and once for read-only arguments, in every mixture of them;
    some columns that come from Ray or from `codec.decode` are read-only, others not. Frozen, they are one kind: no call compiles again."""
    view = array.view()
    view.flags.writeable = False
    return view
