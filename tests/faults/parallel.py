"""Plain Python over many readings: on all cores where that is worth it."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Work = TypeVar("Work")
Result = TypeVar("Result")

PARALLEL_FROM = 2_000
"""Pieces of work (messages, thousands of readings) from which on it is."""


def on_all_cores(function: Callable[[Work], Result], work: Sequence[Work], size: int) -> list[Result]:
    """The results in order; `function` must be a module's."""
    if size < PARALLEL_FROM:
        return [function(one) for one in work]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(function, work, chunksize=max(1, len(work) // 64)))
