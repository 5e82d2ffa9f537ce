"""docs/runbook.md is followed: on SQLite a backup and its return; on a Ray cluster of several nodes all of it, while readings stream in."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import create_engine, text
from typer.main import get_command

from actors.rules.readings import CODE, NO_SEQUENCE, Batch
from cluster import backup
from cluster.cli import app
from cluster.client import Client, Outgoing
from cluster.settings import load
from tests.services.running import BEGIN_US, MINUTE_US

if TYPE_CHECKING:
    from cluster.boot import Running
    from tests.postgres import PostgreSQL

PAGE = (Path(__file__).parents[2] / "docs" / "runbook.md").read_text(encoding="utf-8")
TAGS = 40


def batch(step: int, name: str = "run") -> Outgoing:
    """One reading of every tag."""
    values = 5.0 + np.arange(TAGS)[None, :] * 0.01
    one = np.full(TAGS, NO_SEQUENCE, np.int64)
    columns = Batch(
        np.arange(TAGS, dtype=np.int32), np.full(TAGS, BEGIN_US + step * MINUTE_US // 100), one, one, (CODE["temperature_c"],), values
    )
    return Outgoing([f"{name}-{k}" for k in range(TAGS)], columns, step)


def sent(server: str, steps: range, name: str = "run") -> int:
    """Readings acknowledged as accepted."""
    with Client(server) as client:
        return sum(answer.accepted for _, answer in client.ingest(batch(step, name) for step in steps))


def test_every_command_of_the_page_is_one() -> None:
    known: Any = get_command(app)
    for line in re.findall(r"`waybill ([a-z ]+)", PAGE) + re.findall(r"^    waybill ([a-z ]+)", PAGE, re.MULTILINE):
        at = known
        for word in line.split():
            if hasattr(at, "commands") and word in at.commands:
                at = at.commands[word]
            else:
                break
        assert at is not known, line


@pytest.mark.parametrize("waybill", ["sqlite"], indirect=True)  # PostgreSQL: the long test
def test_a_backup_of_a_running_waybill_comes_back_as_it_was(waybill: Running, tmp_path: Path) -> None:
    taken = sent(waybill.target, range(50), "backed")
    file = tmp_path / "backups" / "now.db"
    found = backup.backup(waybill.settings, file)
    sent(waybill.target, range(50, 60), "backed")
    with pytest.raises(backup.BackupError, match="already"):
        backup.backup(waybill.settings, file)
    with pytest.raises(backup.BackupError, match="end it first"):
        backup.restore(waybill.settings, file, replace=True)
    elsewhere = load({}, data_dir=tmp_path / "new")
    assert backup.restore(elsewhere, file) == (found, None)
    with pytest.raises(backup.BackupError, match="--replace"):
        backup.restore(elsewhere, file)
    again, aside = backup.restore(elsewhere, file, replace=True)
    assert again == found
    assert aside is not None
    assert aside.exists()
    with sqlite3.connect(tmp_path / "new" / "waybill.db") as database:
        [[shards]] = database.execute("SELECT value FROM setting WHERE name = 'shards'").fetchall()
        heads = dict(database.execute("SELECT shard, journal_head FROM shard_owner").fetchall())
        [[tags]] = database.execute("SELECT COUNT(*) FROM tag WHERE tag_id LIKE 'backed-%'").fetchall()
    assert (int(shards), heads, tags, taken) == (waybill.settings.shards, found.heads, TAGS, 50 * TAGS)


@pytest.mark.parametrize(
    ("content", "why"), [(b"", "no backup"), (b"SQLite format 3\0" + b"x" * 5000, "no database|damaged"), (b"PGDMPx", "pg_restore")]
)
def test_a_file_that_is_no_backup_is_refused_before_anything_is_touched(content: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(content)
    settings = load({}, data_dir=tmp_path / "data")
    with pytest.raises(backup.BackupError, match=why):
        backup.restore(settings, tmp_path / "f", replace=True)
    assert not (tmp_path / "data" / "waybill.db").exists()


# ---------------------------------------------------------------- all of it, on several nodes


class Gateway:
    """Sends without a pause until it is stopped, through whatever happens, and counts what was acknowledged."""

    def __init__(self, server: str) -> None:
        self.server, self.step, self.acknowledged = server, 0, 0
        self.stopping = threading.Event()
        self.failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with Client(self.server) as client:
                for _, answer in client.ingest(self._messages(), patience_s=300):
                    assert answer.accepted + answer.duplicate == TAGS
                    self.acknowledged += TAGS
        except BaseException as error:
            self.failed = error

    def _messages(self) -> Iterator[Outgoing]:
        while not self.stopping.is_set():
            yield batch(self.step)
            self.step += 1
            time.sleep(0.02)

    def goes_on(self, within_s: float = 90.0) -> None:
        """Return when more was acknowledged than now."""
        now, until = self.acknowledged, time.monotonic() + within_s
        while self.acknowledged <= now + 2 * TAGS:
            assert self.failed is None, self.failed
            assert time.monotonic() < until, "nothing is acknowledged any more"
            time.sleep(0.1)

    def stop(self) -> int:
        self.stopping.set()
        self._thread.join(120)
        assert self.failed is None, self.failed
        return self.acknowledged


@contextmanager
def up(environment: dict[str, str], log: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`waybill up` as a process, ended by SIGTERM."""
    with log.open("ab") as out:
        process = subprocess.Popen([sys.executable, "-m", "cluster.cli", "up"], env=environment, stdout=out, stderr=out)
    try:
        until = time.monotonic() + 180
        while f"serves at 127.0.0.1:{port}" not in log.read_text(errors="replace"):
            assert process.poll() is None, log.read_text(errors="replace")[-3000:]
            assert time.monotonic() < until, log.read_text(errors="replace")[-3000:]
            time.sleep(0.2)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(90)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_runbook_on_several_nodes(postgres: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grow by a node, shrink by one with shards, upgrade (end, migrate, start), back up, restore: no acknowledged reading is lost."""
    from tests.faults.system import Nodes

    monkeypatch.setenv("PATH", f"{postgres.binaries}:{os.environ['PATH']}")
    url, port = postgres.new_database(), 50871
    nodes = Nodes(1)
    said: list[str] = []
    began = time.monotonic()

    def tell(what: str) -> None:
        said.append(f"{time.monotonic() - began:6.1f} s  {what}")
        print(said[-1], flush=True)

    try:
        environment = {
            **os.environ,
            "WAYBILL_DATABASE_URL": url,
            "WAYBILL_RAY_ADDRESS": nodes.address,
            "WAYBILL_PORT": str(port),
            "WAYBILL_SHARDS": "4",
            "WAYBILL_DATA_DIR": str(tmp_path / "data"),
        }
        settings = load({}, database_url=url, data_dir=tmp_path / "data", ray_address=nodes.address)
        with up(environment, tmp_path / "first.log", port):
            gateway = Gateway(f"127.0.0.1:{port}")
            gateway.goes_on()
            tell("serving, readings stream in")
            nodes._cluster.add_node(num_cpus=2, object_store_memory=100 << 20)
            gateway.goes_on()
            tell("grown by a node")
        with up(environment, tmp_path / "second.log", port):
            gateway.goes_on()
            tell("waybill up ended and started again: shards spread anew")
            owners = _owners(url)
            victim = next(found for node in owners.values() if (found := nodes.raylet(node)) is not None)
            assert max(Counter(owners.values()).values()) <= 2, "of four shards on three nodes"
            os.kill(victim[1], signal.SIGTERM)
            time.sleep(1)
            gateway.goes_on()
            tell("shrunk by a node that shards ran on")
            found = backup.backup(settings.model_copy(update={"data_dir": tmp_path / "elsewhere"}), tmp_path / "before.dump")
            at_backup = gateway.acknowledged
            tell(f"backed up: {found.bytes:,} bytes while readings stream in")
        with up(environment, tmp_path / "third.log", port):
            gateway.goes_on()
            tell("upgraded: ended, migrated, started")
            acknowledged = gateway.stop()
            with Client(f"127.0.0.1:{port}") as client:
                stored = _stored(client)
        tell(f"{acknowledged:,} acknowledged, {stored:,} stored")
        assert stored >= acknowledged
        assert stored <= (gateway.step + 1) * TAGS
        restored_url = postgres.new_database()
        backup.restore(load({}, database_url=restored_url, data_dir=tmp_path / "restored"), tmp_path / "before.dump")
        other = {**environment, "WAYBILL_DATABASE_URL": restored_url, "WAYBILL_RAY_NAMESPACE": "restored"}
        with up(other, tmp_path / "fourth.log", port), Client(f"127.0.0.1:{port}") as client:
            back = _stored(client)
            again = sum(answer.accepted + answer.duplicate for _, answer in client.ingest(batch(step) for step in range(gateway.step)))
            tell(f"restored with {back:,} readings, {at_backup:,} acknowledged when the backup ended; {again:,} sent again")
            assert at_backup - 200 * TAGS <= back <= stored
            assert _stored(client) == gateway.step * TAGS
    finally:
        nodes.close()


def _stored(client: Client) -> int:
    from waybill.v1 import telemetry_pb2

    total = 0
    for k in range(TAGS):
        seen: list[int] = []
        for message in client.stream(client.telemetry.ReadTagSeries, telemetry_pb2.ReadTagSeriesRequest(tag_id=f"run-{k}")):
            seen += list(message.series.sensed_at_us)
        assert len(seen) == len(set(seen))
        total += len(seen)
    return total


def _owners(url: str) -> dict[int, str]:
    """The Ray node of each shard's owner."""
    engine = create_engine(url)
    with engine.connect() as connection:
        found = {row.shard: row.node for row in connection.execute(text("SELECT shard, node FROM shard_owner"))}
    engine.dispose()
    return found
