"""Imports into a running Waybill: an exact account, the same whether or not the job was broken off."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cluster.cli import main
from cluster.client import Client
from cluster.history_import import job, mapping, pieces
from cluster.history_import.send import Target
from cluster.settings import load
from tests.history_import.made import MAPPING, write
from waybill.v1 import telemetry_pb2

if TYPE_CHECKING:
    from cluster.boot import Running

Made = Callable[[Path, str], job.Job]


class BrokenOff(Exception):
    pass


class Stopping(job.Runner):
    """Sends two pieces and a third whose answer is never kept."""

    def run(self, *given: Any) -> Iterator[Any]:
        for k, done in enumerate(super().run(*given)):
            if k == 2:
                raise BrokenOff
            yield done


def figures(files: list[job.FileAccount]) -> list[tuple[int, int, int, int, int]]:
    return [(one.account.rows, one.account.stored, one.account.conflicting, one.account.refused, one.account.empty) for one in files]


def stored(server: str, tag_id: str) -> int:
    with Client(server) as client:
        stream = client.stream(client.telemetry.ReadTagSeries, telemetry_pb2.ReadTagSeriesRequest(tag_id=tag_id))
        return sum(len(message.series.sensed_at_us) for message in stream)


def test_an_import_that_is_broken_off_and_taken_up_again_gives_the_same_account(
    waybill: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 60_000)
    (tmp_path / "m.toml").write_text(MAPPING)
    how, target = mapping.load(tmp_path / "m.toml"), Target(waybill.target)
    told = []
    for name in ("whole", "broken"):
        counts = write(tmp_path / f"{name}.csv", 8_000, seed=5, tags=10, bad_share=0.02, name=name)
        work = job.Job([tmp_path / f"{name}.csv"], how, target, tmp_path / name)
        if name == "broken":
            with pytest.raises(BrokenOff):
                work.run(Stopping())
            work = job.Job([tmp_path / f"{name}.csv"], how, target, tmp_path / name)
        with job.cluster(load({}), 2) as runner:  # the suite's own Ray
            files = work.run(runner)
        refused = sum(count for kind, count in counts.items() if kind not in ("good", "empty"))
        assert figures(files) == [(8_000, counts["good"], 0, refused, counts["empty"])]
        assert stored(waybill.target, f"{name}-3") > 700
        left_out = list(csv.reader(work.refused.open(encoding="utf-8")))[1:]
        assert len(left_out) == refused
        told.append([[line, reason] for _, line, reason, _ in left_out])
    assert told[0] == told[1]
    assert files[0].resumed == 2


def test_the_command_gives_an_account_and_refuses_what_does_not_fit(
    waybill: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAYBILL_DATA_DIR", str(tmp_path))
    (tmp_path / "m.toml").write_text(MAPPING)
    good, other = tmp_path / "good.csv", tmp_path / "other.csv"
    counts = write(good, 1_000, seed=9, bad_share=0.1, name="told")
    other.write_text("a,b\n1,2\n")
    told = ["--mapping", str(tmp_path / "m.toml"), "--server", waybill.target, "--tasks", "0"]
    with pytest.raises(SystemExit) as ended:
        main(["history", "import", str(good), str(other), *told])
    assert ended.value.code == 2  # a file was refused whole
    said = capsys.readouterr()
    assert f"{counts['good']:,} stored" in said.out
    assert f"{counts['implausible']:,} × temperature_c must be a number from -200 to 200" in said.out
    assert "no column 'logger', 'at', 'temp', 'rh'" in said.err
    with pytest.raises(SystemExit) as ended:
        main(["history", "import", str(good), *told])
    assert ended.value.code == 1
    with pytest.raises(SystemExit) as ended:
        main(["history", "import", str(good), "--mapping", str(tmp_path / "none.toml")])
    assert ended.value.code == 2


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_million_rows_killed_in_the_middle(start_waybill: Callable[..., Running], tmp_path: Path) -> None:
    """kill -9 of the command while its Ray tasks send, then the same command again; held against an import that was not interrupted."""
    (tmp_path / "m.toml").write_text(MAPPING)
    accounts, left_out = [], []
    counts = write(tmp_path / "million.csv", 1_000_000, seed=3, tags=2_000)
    for name in ("whole", "killed"):
        with start_waybill("sqlite") as running:
            state = tmp_path / name
            command = [
                sys.executable,
                "-m",
                "cluster.cli",
                "history",
                "import",
                str(tmp_path / "million.csv"),
                "--mapping",
                str(tmp_path / "m.toml"),
            ]
            command += ["--server", running.target, "--state", str(state), "--tasks", "2"]
            environment = {**os.environ, "WAYBILL_DATA_DIR": str(tmp_path)}
            if name == "killed":
                first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                while len(list(state.glob("*/pieces/*.json"))) < 3:
                    assert first.poll() is None
                    time.sleep(0.02)
                first.send_signal(signal.SIGKILL)
                first.wait()
            begun = time.monotonic()
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
            print(f"{name}: {time.monotonic() - begun:.1f} s\n{done.stdout}")
            assert done.returncode == 1, done.stderr
            [folder] = state.iterdir()
            kept = [json.loads(path.read_text())["account"] for path in sorted((folder / "pieces").glob("*.json"))]
            accounts.append({key: sum(one[key] for one in kept) for key in ("rows", "stored", "conflicting", "refused", "empty")})
            left_out.append((folder / "refused.csv").read_text())
            assert sum(stored(running.target, f"log-{k}") for k in range(0, 2_000, 100)) > 9_800
    refused = sum(count for kind, count in counts.items() if kind not in ("good", "empty"))
    assert accounts[0] == {"rows": 1_000_000, "stored": counts["good"], "conflicting": 0, "refused": refused, "empty": counts["empty"]}
    assert accounts[1] == accounts[0]
    assert left_out[1] == left_out[0]
