"""The limits that the fault tests judge by, in the words of the slow reference."""

from __future__ import annotations

from tests.faults.world import MINUTE_US
from tests.reference.exposure import CUMULATIVE, Limit

LIMITS: dict[str, Limit] = {
    "hot": Limit(25.0, clear=24.0, max_gap_us=60 * MINUTE_US),
    "warm": Limit(8.0, allowance_us=30 * MINUTE_US, max_gap_us=60 * MINUTE_US),
    "total": Limit(8.0, inclusive=True, mode=CUMULATIVE, allowance_us=45 * MINUTE_US, max_gap_us=60 * MINUTE_US),
    "cold": Limit(2.0, direction=-1, allowance_us=10 * MINUTE_US, max_gap_us=60 * MINUTE_US),
}
"""At once with hysteresis; a run alone; all runs of a custody together, the threshold included; below."""
