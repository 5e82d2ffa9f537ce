"""A Tryton and a Waybill kept in step by the real process (services/erp/run.py), which can be killed and started again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.journal import delivery
from actors.journal.database import reader
from tests.erp.judge import Verdict, judge
from tests.erp.tryton_server import PASSWORD, TrytonServer

SYSTEM = "tryton"


class Outside:
    """The process that talks to Tryton for a running Waybill."""

    def __init__(self, folder: Path, database_url: str, target: str, server: TrytonServer, *, poll_s: float = 0.5) -> None:
        self._log = folder / "outside.log"
        self._password = folder / "password"
        self._password.write_text(PASSWORD)
        erp = {"url": server.url, "user": "waybill", "system": SYSTEM, "password_file": str(self._password), "poll_s": poll_s}
        self._config: dict[str, Any] = {"database_url": database_url, "target": target, "erp": erp, "longest_wait_s": 1.0}
        self._engine = reader(database_url)
        self._process: subprocess.Popen[bytes] | None = None

    def password(self, text: str) -> None:
        """What its password file says from now on."""
        self._password.write_text(text)

    def start(self) -> None:
        with open(self._log, "ab") as log:
            command = [sys.executable, "-m", "services.erp.run"]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(self._config).encode())
        self._process.stdin.close()

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """As the supervisor ends it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(20)
            self._process = None

    def close(self) -> None:
        self.kill()
        self._engine.dispose()

    def log(self) -> str:
        return self._log.read_text()

    def counts(self) -> dict[str, int]:
        """Its messages by state."""
        return next((pile.counts for pile in delivery.destinations(self._engine) if pile.destination == SYSTEM), {})

    def pending(self) -> int:
        return self.counts().get(delivery.PENDING, 0)

    def status(self) -> dict[str, Any]:
        """How the last sync went."""
        return dict(json.loads(delivery.remembered(self._engine, f"erp/{SYSTEM}/status") or "{}"))


def until(done: Callable[[], bool], timeout_s: float, what: str) -> float:
    """Wait; how long it took. Fails by name."""
    begun = time.monotonic()
    while not done():
        if time.monotonic() - begun > timeout_s:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.1)
    return time.monotonic() - begun


def settled(server: TrytonServer, target: str, timeout_s: float) -> tuple[Verdict, float]:
    """The verdict when it is clean, or the last one when time is up; and how long it took."""
    begun = time.monotonic()
    while True:
        verdict = judge(server.file, target)
        took = time.monotonic() - begun
        if verdict.clean or took > timeout_s:
            return verdict, took
        time.sleep(0.5)
