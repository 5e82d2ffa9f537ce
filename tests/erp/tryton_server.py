"""A real Tryton for the tests: its own Python environment and its filled databases are made once and kept in `.tryton/`, which git ignores.

Each server gets a copy of a database, a free port of the loopback and a process of its own, which can be killed and started again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
KEPT = HERE.parents[1] / ".tryton"
CONSTRAINTS, SEED = HERE / "tryton-constraints.txt", HERE / "seed_tryton.py"
PACKAGES = ("trytond", "trytond_company", "trytond_product", "trytond_stock", "trytond_stock_lot")
DATABASE = "tryton"
PASSWORD = "only-for-tests"
START_S = 60.0


class NoTryton(RuntimeError):
    """Tryton cannot be had here, for example because there is no package index."""


def environment() -> Path:
    """The folder of Tryton's environment, made where it is not there. Raises NoTryton."""
    wanted = hashlib.sha256(CONSTRAINTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = KEPT / f"env-{wanted}"
    with _alone():
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            venv.create(folder, with_pip=True)
            _run([str(folder / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", "-c", str(CONSTRAINTS), *PACKAGES])
            (folder / "ready").touch()
    return folder


def database(items: int) -> Path:
    """The file of a database with so many items, filled where it is not there. Raises NoTryton."""
    python = environment() / "bin" / "python"
    made_of = CONSTRAINTS.read_bytes() + SEED.read_bytes() + str(items).encode()
    file = KEPT / f"items-{items}-{hashlib.sha256(made_of).hexdigest()[:12]}.sqlite"
    with _alone():
        if not file.exists():
            scratch = KEPT / "scratch"
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            config = write_config(scratch, 0)
            (scratch / f"{DATABASE}.sqlite").touch()
            (scratch / "password").write_text(PASSWORD)
            admin = [str(python.with_name("trytond-admin")), "-c", str(config), "-d", DATABASE]
            told = {"TRYTONPASSFILE": str(scratch / "password")}
            _run([*admin, "-u", "company", "stock_lot", "--all", "--activate-dependencies", "--email", "nobody@example.org"], told)
            _run([str(python), str(SEED), str(config), DATABASE, str(items), PASSWORD])
            for old in KEPT.glob(f"items-{items}-*.sqlite"):
                old.unlink()
            (scratch / f"{DATABASE}.sqlite").rename(file)
            shutil.rmtree(scratch)
    return file


def write_config(folder: Path, port: int) -> Path:
    """A configuration file for a server whose database lies in the folder."""
    config = folder / "trytond.conf"
    config.write_text(
        f"[database]\nuri = sqlite://\npath = {folder}\n[web]\nlisten = 127.0.0.1:{port}\n[session]\ntimeout = 86400\nmax_age = 86400\n"
    )
    return config


class TrytonServer:
    """A running Tryton on a copy of a database. `url` is what Waybill's setting WAYBILL_ERP_URL says."""

    def __init__(self, folder: Path, items: int) -> None:
        self.file = folder / f"{DATABASE}.sqlite"
        self._python = environment() / "bin" / "python"
        shutil.copyfile(database(items), self.file)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._folder, self._config = folder, write_config(folder, self.port)
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self.port}/{DATABASE}"

    def start(self) -> None:
        """Start it; return when it answers."""
        with open(self._folder / "trytond.log", "ab") as log:
            command = [str(self._python.with_name("trytond")), "-c", str(self._config), "-d", DATABASE]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Tryton did not start; {self._folder}/trytond.log says why")
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """It keeps its connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        body = json.dumps({"id": 1, "method": "common.server.version", "params": []}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/rpc/", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def tryton(folder: Path, items: int) -> Iterator[TrytonServer]:
    """A server for as long as the block lasts. Raises NoTryton."""
    server = TrytonServer(folder, items)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextmanager
def _alone() -> Iterator[None]:
    """One test run at a time makes what is kept."""
    KEPT.mkdir(exist_ok=True)
    with open(KEPT / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(command: list[str], more: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(more or {})}, check=False)
    if done.returncode:
        raise NoTryton(f"{command[0]} failed: {(done.stderr or done.stdout).strip()[-800:]}")
