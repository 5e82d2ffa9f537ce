"""`waybill demo` as a newcomer sees it: a verdict changes, a table ends it, and Ctrl-C leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from cluster.demo import DEAF_GATEWAY, Scene
from cluster.processes import Recorded, read_record
from cluster.simulate.columns import ROW


def demo(folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "cluster.cli", "demo", "--data-dir", str(folder), *more]


def environment() -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("WAYBILL_", "RAY_"))}
    return plain | {"COLUMNS": "160", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.mark.parametrize("seed", [1, 7, 8])
def test_the_lorrys_goods_are_warm_only_while_its_gateway_is_deaf(seed: int) -> None:
    scene = Scene(seed, 1.5)
    fleet, trip = scene.fleet, scene.trip
    batch = fleet.truth().accepted
    from_us, until_us = fleet.time_us(trip.custody_from_s), fleet.time_us(trip.custody_until_s)
    mine = (batch.tag >= trip.first_tag) & (batch.tag < trip.end_tag) & (batch.sensed_us >= from_us) & (batch.sensed_us < until_us)
    deaf = mine & (batch.sensed_us >= scene.deaf_us) & (batch.sensed_us < scene.heard_us)
    temperature = batch.values[ROW["temperature_c"]]
    assert temperature[deaf].max() > 16
    assert temperature[mine & ~deaf].min() > 2
    assert temperature[mine & ~deaf].max() < 14.5
    backlog = [piece for piece in fleet.slices() if piece.gateway == DEAF_GATEWAY and piece.backlog]
    assert min(piece.at_us for piece in backlog) >= scene.heard_us
    assert len(np.unique(fleet.vehicle_of_tag[np.concatenate([piece.batch.tag for piece in backlog])])) == 1


def below(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def nothing_is_left(folder: Path, started: list[Recorded], children: list[psutil.Process]) -> bool:
    psutil.wait_procs(children, timeout=10)
    children = [process for process in children if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    return not children and not [process for process in (*started, *read_record(folder / "processes.json")) if process.alive()]


def run_until(folder: Path, line_begins: str, *more: str) -> tuple[str, int, bool]:
    """Run the demo, press Ctrl-C after a line: (what it printed, exit code, whether nothing is left of it)."""
    with (
        open(folder / "errors", "w+", encoding="utf-8") as errors,
        subprocess.Popen(
            demo(folder, *more), stdout=subprocess.PIPE, stderr=errors, text=True, env=environment(), start_new_session=True
        ) as run,
    ):
        assert run.stdout is not None
        lines = []
        for line in run.stdout:
            lines.append(line)
            if line.startswith(line_begins):
                break
        else:
            pytest.fail(f"the demo ended: {''.join(lines[-20:])}\n{Path(errors.name).read_text()[-3000:]}")
        started, children = read_record(folder / "processes.json"), below(run.pid)
        assert started
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
        lines.append(run.stdout.read())
        code = run.wait(60)
        errors.seek(0)
        assert "Traceback" not in errors.read()
    return "".join(lines), code, nothing_is_left(folder, started, children)


def test_the_demo_shows_a_verdict_that_late_data_changes_ends_with_a_table_and_ctrl_c_ends_all_of_it(tmp_path: Path) -> None:
    shown, code, clean = run_until(tmp_path, "  docs/api.md", "--days", "1", "--seconds", "10", "--stay")
    before, after = re.search(r"before +([A-Z ]+[A-Z])", shown), re.search(r"after +([A-Z ]+[A-Z])", shown)
    assert before
    assert after
    assert (before[1], after[1]) == ("WITHIN LIMITS", "EXCURSION")
    assert re.search(r"^ +\d+ raised +goods +DEMO-", shown, re.MULTILINE)
    assert re.search(r"^shipment +journey +profile +state +excursions +worst +verdict", shown, re.MULTILINE)
    assert re.search(r"DEMO-ROAD-\d+-00 .*Nairobi to Mombasa.* EXCURSION", shown)
    assert "Where to look next" in shown
    assert shown.rstrip().endswith("ended")
    assert (code, clean) == (130, True)


@pytest.mark.long  # its short twin is the test above: there Ctrl-C comes when all is played
def test_ctrl_c_in_the_middle_ends_all_of_it(tmp_path: Path) -> None:
    shown, code, clean = run_until(tmp_path, "Alerts as they happen")
    assert "ended" in shown
    assert "Traceback" not in shown
    assert (code, clean) == (130, True)
