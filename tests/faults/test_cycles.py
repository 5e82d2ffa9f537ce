"""What a long run must have shown, and how a transaction is held while something else dies."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.faults.cycles import Cycle, too_little
from tests.faults.planted import Traps


def cycles(kind: str, *how: str) -> list[Cycle]:
    return [Cycle(kind, one, "it", waiting=1) for one in how]


def test_a_kind_that_never_counted_is_missed() -> None:
    (line,) = too_little(["door", "cut"], [*cycles("door", "trap", "signal"), Cycle("cut", "trap", "it", waiting=0)], 0.2)
    assert line.startswith("cut: ")


def test_too_few_kills_between_write_and_commit_are_told() -> None:
    assert too_little(["shard"], cycles("shard", "trap", *["signal"] * 4), 0.2) == []
    (line,) = too_little(["shard"], cycles("shard", "trap", *["signal"] * 5), 0.2)
    assert "17% of the kills" in line
    assert len(too_little(["raylet"], cycles("raylet", "signal", "signal"), 0.2)) == 1
    assert too_little(["full"], cycles("full", "signal", "signal"), 0.2) == []


def test_too_few_readings_in_excursions_are_told() -> None:
    (line,) = too_little(["door"], cycles("door", "trap"), 0.0994)
    assert line.startswith("9.9% of the readings")


def test_a_transaction_is_held_until_it_is_let_go_and_a_new_trap_stays_armed(tmp_path: Path) -> None:
    mine, driver = Traps(tmp_path / "traps", create=True), Traps(tmp_path / "traps")
    driver.arm_to_hold(3)
    held = threading.Thread(target=mine.spring, args=(3,))
    held.start()
    while not driver.held(3):
        pass
    held.join(0.05)
    assert held.is_alive()
    driver.disarm(3)
    driver.arm(3)
    held.join(5)
    assert not held.is_alive()
    assert driver.armed(3)
