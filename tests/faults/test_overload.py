"""The short form of `python -m tests.faults.overload`: what comes to one core is far more than it can bear, and it stays on its feet.

The figures (memory flat, answers at most three times as slow) need minutes and a quiet machine; here it is held to what must be anywhere.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.overload import SERVER_CORE, measure
from tests.faults.system import launched

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]


def test_ten_times_too_much_is_refused_with_a_hint_and_costs_no_memory(tmp_path: Path) -> None:
    settings = {"shards": 1, "spares": False, "in_flight_bytes": 1 << 20}  # one process of gateways fills no more
    with launched(tmp_path, settings, core=SERVER_CORE) as system:
        facts = measure(system, system.pid, seconds=14.0, calibrate_s=2.0, processes=1)
    print(facts)
    assert facts["refused_messages"] > 0
    assert facts["accepted_readings_per_s"] > 0.3 * facts["sustainable_readings_per_s"], "it did nothing but refuse"
    doors = [most - before for name, (before, most) in facts["rss_mb"].items() if "services.door" in name]
    assert doors, facts["rss_mb"]
    assert max(doors) < 100, "megabytes by which a door grew"
    assert facts["recovered_after_s"] <= 30.0
    assert facts["stored"] == facts["acknowledged"]
