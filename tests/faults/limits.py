"""The rules that the fault tests judge by, in the words of the slow reference."""

from __future__ import annotations

from tests.faults.world import FENCE_CENTER, FENCE_RADIUS_M, MINUTE_US
from tests.reference.exposure import CUMULATIVE, MKT, Limit

LIMITS: dict[str, Limit] = {
    "hot": Limit(25.0, clear=24.0, max_gap_us=60 * MINUTE_US),
    "warm": Limit(8.0, allowance_us=30 * MINUTE_US, max_gap_us=60 * MINUTE_US),
    "total": Limit(8.0, inclusive=True, mode=CUMULATIVE, allowance_us=45 * MINUTE_US, max_gap_us=60 * MINUTE_US),
    "cold": Limit(2.0, direction=-1, allowance_us=10 * MINUTE_US, max_gap_us=60 * MINUTE_US),
}
"""At once with hysteresis; a run alone; all runs of a custody together, the threshold included; below."""

MKT_LIMITS: dict[str, Limit] = {**LIMITS, "kinetic": Limit(8.0, mode=MKT, max_gap_us=60 * MINUTE_US)}
MKT_WINDOW_US = 120 * MINUTE_US
"""On some shipments the MKT over two hours too."""

FENCE = {"kind": "circle", "center": FENCE_CENTER, "radius": FENCE_RADIUS_M}
FENCE_ID = "yard"

QUALITY: dict[str, float] = {
    "fail_low": -2.0,
    "fail_high": 27.0,
    "suspect_high": 26.0,
    "spike_suspect": 3.0,
    "spike_fail": 7.0,
    "rate_per_s": 0.1,
    "gap_us": 45 * MINUTE_US,
    "flat_tolerance": 0.75,
    "flat_suspect_us": 4 * MINUTE_US,
    "flat_fail_us": 9 * MINUTE_US,
}
"""Quality settings of the tags that have any: every test finds something in the temperatures of world.py."""
