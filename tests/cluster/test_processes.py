"""Processes are ended by pid and start time: never somebody else's, never by name."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from cluster.processes import Recorded, read_record, recorded, spawn, write_record

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
        child.kill()


def test_a_process_that_ignores_the_request_to_end_is_killed(sleeper: subprocess.Popen[str]) -> None:
    process = recorded("sleeper", sleeper.pid)
    assert process.alive()
    process.end(0.1)
    assert not process.alive()
    assert sleeper.wait() == -signal.SIGKILL


def test_a_process_that_took_over_the_pid_is_left_alone(sleeper: subprocess.Popen[str]) -> None:
    process = recorded("sleeper", sleeper.pid)
    earlier = replace(process, started=process.started - 100)
    assert not earlier.alive()
    earlier.end(0.1)
    assert process.alive()


def test_a_child_that_ended_but_was_not_reaped_is_not_alive(sleeper: subprocess.Popen[str]) -> None:
    process = recorded("sleeper", sleeper.pid)
    sleeper.send_signal(signal.SIGKILL)
    process.end(5)
    assert not process.alive()


def test_records_survive_in_a_file_and_a_damaged_file_gives_none(tmp_path: Path) -> None:
    path = tmp_path / "processes.json"
    assert read_record(path) == []
    records = [Recorded("door 0", 12, 1700000000.25), Recorded("committer", 13, 1700000001.5)]
    write_record(path, records)
    assert read_record(path) == records
    path.write_text(path.read_text()[:20])
    assert read_record(path) == []


def test_a_secret_reaches_the_process_but_not_its_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "echo_secret.py").write_text("import sys, time; print(sys.argv[1:], sys.stdin.read(), flush=True); time.sleep(60)")
    log = tmp_path / "log"
    monkeypatch.chdir(tmp_path)
    process = spawn("echo", "echo_secret", ["--loud"], log, {}, secret="hush")
    try:
        while not log.read_text():
            assert process.alive()
        assert log.read_text() == "['--loud'] hush\n"
        assert "hush" not in " ".join(psutil.Process(process.pid).cmdline())
    finally:
        process.end(0.1, first=signal.SIGKILL)
