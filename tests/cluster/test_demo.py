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
from cluster.processes import read_record
from cluster.simulate.columns import ROW

MINUTES = 4 * 60


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


def test_the_demo_shows_a_verdict_that_late_data_changes_and_ends_with_a_table(tmp_path: Path) -> None:
    run = subprocess.run(
        demo(tmp_path, "--days", "1", "--seconds", "12"), capture_output=True, text=True, timeout=MINUTES, env=environment(), check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    shown = run.stdout
    before, after = re.search(r"before +([A-Z ]+[A-Z])", shown), re.search(r"after +([A-Z ]+[A-Z])", shown)
    assert before
    assert after
    assert (before[1], after[1]) == ("WITHIN LIMITS", "EXCURSION")
    assert re.search(r"^ +\d+ raised +goods +DEMO-", shown, re.MULTILINE)
    assert re.search(r"^shipment +journey +profile +state +excursions +worst +verdict", shown, re.MULTILINE)
    assert re.search(r"DEMO-ROAD-\d+-00 .*Nairobi to Mombasa.* EXCURSION", shown)
    assert "Where to look next" in shown
    assert "Traceback" not in run.stderr
    assert not [process for process in read_record(tmp_path / "processes.json") if process.alive()]


def test_ctrl_c_ends_all_of_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        demo(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(), start_new_session=True
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if line.startswith("Alerts as they happen"):
                break
        started = read_record(tmp_path / "processes.json")
        below = psutil.Process(run.pid).children(recursive=True)
        assert started
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
        rest = run.stdout.read()
        assert run.wait(60) == 130
    assert "ended" in rest
    assert "Traceback" not in rest
    assert not [process for process in started if process.alive()]
    psutil.wait_procs(below, timeout=10)
    assert not [process for process in below if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
