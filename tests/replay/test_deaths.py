"""A worker or a node that dies in the middle of a replay costs its task only: the result is the same, once."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cluster.archive.filesystem import Place
from cluster.replay import jobs, result
from cluster.replay.jobs import Cancelled, Request
from tests.replay.test_whatif import ASKED
from tests.replay.three_nodes import PARTS, archive, kill_a_worker

ROOT = Path(__file__).resolve().parents[2]


def test_a_worker_that_is_killed_costs_its_task_only(ray_session: None, tmp_path: Path) -> None:
    parts = archive(tmp_path)
    request = Request(result.WHAT_IF, rules=ASKED)
    undisturbed = jobs.run("a", request, parts, Place.of(tmp_path / "a"))
    place, killed = Place.of(tmp_path / "b"), []
    striker = threading.Thread(target=kill_a_worker, args=(place, killed))
    striker.start()
    made = jobs.run("b", Request(result.WHAT_IF, rules=ASKED, slow_s=0.3), parts, place, tasks_at_once=2)
    striker.join()
    assert killed, "a worker was killed while it was at work"
    assert (made.digest, made.counts) == (undisturbed.digest, undisturbed.counts)
    assert made.counts["parts"] == PARTS
    assert [name for name, _ in place.ages() if name.startswith(jobs.TASKS)] == []


def test_a_replay_that_was_cut_off_goes_on_where_it_was(ray_session: None, tmp_path: Path) -> None:
    parts = archive(tmp_path)
    request, place = Request(result.WHAT_IF, rules=ASKED), Place.of(tmp_path / "r")
    done = [0]

    def enough() -> bool:
        return done[0] >= 2

    with pytest.raises(Cancelled):
        jobs.run("r", request, parts, place, tasks_at_once=1, cancelled=enough, progress=lambda many, *_: done.__setitem__(0, many))
    written = {name for name, _ in place.ages()}
    assert 2 <= len(written) < PARTS
    made = jobs.run("r", request, parts, place)
    assert made.counts["parts"] == PARTS
    assert made.digest == jobs.run("s", request, parts, Place.of(tmp_path / "s")).digest
    assert jobs.run("r", request, parts, place) == made, "what is there is the result"


@pytest.mark.long
@pytest.mark.parametrize("victim", ["worker", "node"])
def test_a_dead_worker_or_node_of_a_cluster_of_three_changes_nothing(victim: str, tmp_path: Path) -> None:
    told = {}
    for kind in ("none", victim):
        command = [sys.executable, "-m", "tests.replay.three_nodes", str(tmp_path), kind]
        out = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=400).stdout
        told[kind] = json.loads(next(line for line in out.splitlines() if line.startswith("{")))
        for old in (tmp_path / "archive").rglob("*.parquet"):
            old.unlink()
    assert told[victim]["killed"]
    assert told[victim]["digest"] == told["none"]["digest"]
    assert told[victim]["counts"] == told["none"]["counts"]
