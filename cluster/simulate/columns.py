"""Batches of the simulated fleet: the metrics it measures, and taking, joining and splitting batches of columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from actors.rules.readings import CODE, Batch

METRICS: tuple[str, ...] = (
    "temperature_c",
    "relative_humidity_pct",
    "shock_g",
    "light_lux",
    "battery_v",
    "door_open",
    "latitude_deg",
    "longitude_deg",
    "gps_accuracy_m",
    "speed_mps",
)
"""What a simulated tag may measure, in the order of the value rows (ascending column codes)."""

CODES: tuple[int, ...] = tuple(CODE[name] for name in METRICS)
ROW: dict[str, int] = {name: row for row, name in enumerate(METRICS)}
"""The row of `Batch.values` that holds a metric."""


def take(batch: Batch, rows: npt.NDArray[np.int64]) -> Batch:
    """The readings at `rows`, in that order."""
    return Batch(
        batch.tag[rows],
        batch.sensed_us[rows],
        batch.boot[rows],
        batch.sequence[rows],
        batch.codes,
        np.ascontiguousarray(batch.values[:, rows]),
    )


def join(batches: Sequence[Batch]) -> Batch:
    """One batch of all, in order. All have the same codes; at least one batch is given."""
    return Batch(
        np.concatenate([batch.tag for batch in batches]),
        np.concatenate([batch.sensed_us for batch in batches]),
        np.concatenate([batch.boot for batch in batches]),
        np.concatenate([batch.sequence for batch in batches]),
        batches[0].codes,
        np.concatenate([batch.values for batch in batches], axis=1),
    )
