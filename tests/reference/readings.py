"""Which readings are plausible and in which order they are judged, one reading at a time. Imports nothing from actors/."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

YEAR_2000_US = 946_684_800 * 1_000_000
YEAR_2200_US = 7_258_118_400 * 1_000_000

BOUNDS: dict[str, tuple[float, float]] = {
    "temperature_c": (-200, 200),
    "relative_humidity_pct": (0, 100),
    "shock_g": (0, math.inf),
    "light_lux": (0, math.inf),
    "tilt_deg": (0, 180),
    "pressure_hpa": (100, 1200),
    "battery_v": (0, math.inf),
    "door_open": (0, 1),
    "vibration_mm_s": (0, math.inf),
    "co2_pct": (0, 100),
    "o2_pct": (0, 100),
    "latitude_deg": (-90, 90),
    "longitude_deg": (-180, 180),
    "gps_accuracy_m": (0, math.inf),
    "speed_mps": (0, math.inf),
}


def plausible(sensed_us: int, boot: int | None, sequence: int | None, values: Mapping[str, float]) -> bool:
    """Whether a reading is taken; `values` holds what the wire carried."""
    if not YEAR_2000_US <= sensed_us <= YEAR_2200_US:
        return False
    if (boot is None) != (sequence is None):
        return False
    if not values:
        return False
    for name, value in values.items():
        low, high = BOUNDS[name]
        if math.isnan(value) or math.isinf(value) or value < low or value > high:
            return False
        if name == "door_open" and value not in (0, 1):
            return False
    return ("latitude_deg" in values) == ("longitude_deg" in values)


def judging_order(readings: Sequence[tuple[int, int, int, int]]) -> dict[int, list[int]]:
    """Rows of each tag in judging order, from (tag, sensed, boot, sequence) each; equal ones stay in order."""
    rows: dict[int, list[int]] = {}
    for row, reading in enumerate(readings):
        rows.setdefault(reading[0], []).append(row)
    return {tag: sorted(mine, key=lambda row: readings[row][1:]) for tag, mine in rows.items()}
