"""`waybill up` as one whole: it starts, mends what dies, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import ray

from actors.directory import Directory
from cluster import boot, database
from cluster.processes import Recorded, read_record
from cluster.settings import SettingsError, load
from cluster.supervisor import Supervisor

if TYPE_CHECKING:
    from cluster.boot import Running

WAIT_S = 60.0


def wait_until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < deadline, f"{what}: not within {WAIT_S:g} s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def waybill(mortal: Running) -> Running:
    """These tests kill its parts."""
    return mortal


@pytest.fixture
def supervisor(waybill: Running) -> Iterator[Supervisor]:
    supervisor = Supervisor(waybill, say=lambda _text: None)
    yield supervisor
    supervisor.close()


def shard_facts(waybill: Running, number: int) -> dict[str, Any]:
    directory = Directory.connect(waybill.settings.ray_namespace)
    facts: dict[str, Any] = ray.get(directory.call(number, "info"))  # type: ignore[call-overload]
    return facts


def test_the_doors_serve_on_a_port_that_was_free(waybill: Running) -> None:
    assert waybill.settings.port > 0
    assert boot.serving(waybill.settings)


def test_each_shard_is_a_process_of_its_own(waybill: Running) -> None:
    facts = [shard_facts(waybill, number) for number in range(2)]
    assert [fact["shard"] for fact in facts] == [0, 1]
    assert facts[0]["pid"] != facts[1]["pid"]


def test_a_dead_door_is_started_again_on_the_same_port(waybill: Running, supervisor: Supervisor) -> None:
    before = waybill.doors[0]
    before.end(0, first=signal.SIGKILL)
    supervisor.check()
    waybill.wait_until_serving()
    assert waybill.doors[0].pid != before.pid


def test_a_spare_door_takes_the_place_of_a_dead_one(waybill: Running, supervisor: Supervisor) -> None:
    settings = waybill.settings
    waybill.settings = settings.model_copy(update={"spares": True})
    try:
        waybill.start_spare()
        spare = waybill.spare
        assert spare is not None
        log = settings.data_dir / "logs" / "door-spare.log"
        wait_until(lambda: f"{boot.SPARE_READY} {spare.pid}" in log.read_text(), "the spare door")
        waybill.doors[0].end(0, first=signal.SIGKILL)
        supervisor.check()
        assert waybill.doors[0].pid == spare.pid
        waybill.wait_until_serving()
        assert waybill.spare is not None, "another one is kept"
        assert waybill.spare.pid != spare.pid
    finally:
        waybill.settings = settings


def test_a_dead_committer_is_started_again(waybill: Running, supervisor: Supervisor) -> None:
    before = waybill.committer
    if before is None:
        assert not waybill.settings.is_sqlite  # on PostgreSQL each shard commits by itself
        return
    before.end(0, first=signal.SIGKILL)
    supervisor.check()
    assert waybill.committer is not None
    assert waybill.committer.alive()
    assert waybill.committer.pid != before.pid


def test_a_committer_that_hangs_is_ended_and_started_again(waybill: Running) -> None:
    before = waybill.committer
    if before is None:
        return
    settings = waybill.settings
    waybill.settings = settings.model_copy(update={"owner_timeout_s": 3.5})
    supervisor = Supervisor(waybill, say=lambda _text: None)
    try:
        supervisor.check()
        os.kill(before.pid, signal.SIGSTOP)

        def another() -> bool:
            supervisor.check()
            return waybill.committer is not None and waybill.committer.pid != before.pid

        wait_until(another, "another committer")
        assert not before.alive()
    finally:
        supervisor.close()
        waybill.settings = settings


def test_a_killed_shard_comes_back_as_a_new_owner_and_the_other_stays(waybill: Running) -> None:
    killed, other = shard_facts(waybill, 0), shard_facts(waybill, 1)
    os.kill(killed["pid"], signal.SIGKILL)

    def back() -> bool:
        try:
            return bool(shard_facts(waybill, 0)["epoch"] > killed["epoch"])
        except ray.exceptions.RayError:
            return False

    wait_until(back, "a new owner of shard 0")
    assert shard_facts(waybill, 1)["pid"] == other["pid"]


def test_a_frozen_shard_is_ended_and_comes_back(waybill: Running) -> None:
    frozen = shard_facts(waybill, 1)
    quick = waybill.settings.model_copy(update={"owner_timeout_s": 3.5})
    supervisor = Supervisor(boot.Running(quick, waybill.ray_address), say=lambda _text: None)
    os.kill(frozen["pid"], signal.SIGSTOP)
    try:

        def ended() -> bool:
            supervisor.check()
            return not psutil.pid_exists(frozen["pid"])

        wait_until(ended, "the end of the frozen owner")
    finally:
        supervisor.close()

    def back() -> bool:
        try:
            return bool(shard_facts(waybill, 1)["epoch"] > frozen["epoch"])
        except ray.exceptions.RayError:
            return False

    wait_until(back, "a new owner of shard 1")


def test_a_folder_in_use_is_refused(waybill: Running) -> None:
    with pytest.raises(SettingsError, match=f"in use by process {os.getpid()}"):
        boot.start(load({}, data_dir=waybill.settings.data_dir, port=0))


def test_a_port_in_use_is_refused(waybill: Running, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1 port {waybill.settings.port}"):
        boot.start(load({}, data_dir=tmp_path, port=waybill.settings.port))


def test_another_number_of_shards_is_refused(waybill: Running) -> None:

    with pytest.raises(SettingsError, match="this database has 2 shards, fixed when it was first used"):
        database.check_shards(waybill.settings.model_copy(update={"shards": 3}))


class Up:
    """`waybill up` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "up.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WAYBILL_")}
        command = [sys.executable, "-m", "cluster.cli", "up", "--data-dir", str(folder / "data"), "--port", "0", "--shards", "1"]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        wait_until(lambda: self.process.poll() is not None or "serves at" in self.log.read_text(), "waybill up")
        assert self.process.poll() is None, self.log.read_text()

    def parts(self) -> list[Recorded]:
        return read_record(self.folder / "data" / "processes.json")


def test_ctrl_c_ends_everything(tmp_path: Path) -> None:
    up = Up(tmp_path)
    parts = up.parts()
    assert {"door 0", "committer", "ray gcs_server", "ray raylet"} <= {part.name for part in parts}
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(WAIT_S) == 0, up.log.read_text()
    assert [part for part in parts if part.alive()] == []
    assert json.loads((tmp_path / "data" / "processes.json").read_text()) == []


@pytest.mark.long  # a minute and a half: Ray's own time-outs
def test_the_death_of_rays_head_restarts_everything_and_a_killed_up_is_succeeded(tmp_path: Path) -> None:
    up = Up(tmp_path)
    first = up.parts()
    next(part for part in first if part.name == "ray gcs_server").end(0, first=signal.SIGKILL)
    wait_until(lambda: "Ray was started again" in up.log.read_text(), "the restart of everything")
    second = up.parts()
    assert not {part.pid for part in first if part.alive()} & {part.pid for part in first}
    up.process.kill()
    up.process.wait()
    up.log.unlink()
    successor = Up(tmp_path)
    assert [part for part in second if part.alive()] == []
    successor.process.send_signal(signal.SIGTERM)
    assert successor.process.wait(WAIT_S) == 0
