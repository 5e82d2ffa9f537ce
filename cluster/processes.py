"""Processes by pid and start time: a pid alone may by now be somebody else's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil


class StartError(RuntimeError):
    """A part did not start; the text says which, why, and where its log is."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A process that runs or ran. `started`: seconds since 1970 as the system tells it, good to a clock tick."""

    name: str
    pid: int
    started: float

    def alive(self) -> bool:
        """Whether this very process still runs. A child of ours that ended is reaped by asking."""
        child = _children.get(self.pid)
        if child is not None and child.poll() is not None:
            del _children[self.pid]
        try:
            process = psutil.Process(self.pid)
            if not same_start(process.create_time(), self.started):
                return False
            # A child with a dead main thread counts as a zombie while its other threads still end; it is alive until it can be reaped.
            return self.pid in _children or process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def end(self, timeout_s: float, *, first: int = signal.SIGTERM) -> None:
        """Ask it to end, wait, and kill it where it does not. Nothing where it is gone."""
        deadline = time.monotonic() + timeout_s
        for how in (first, signal.SIGKILL):
            if not self.alive():
                return
            try:
                os.kill(self.pid, how)
            except ProcessLookupError:
                return
            while self.alive() and (how == signal.SIGKILL or time.monotonic() < deadline):
                time.sleep(0.01)


def recorded(name: str, pid: int) -> Recorded:
    """The record of a process that runs now. Raises psutil.NoSuchProcess."""
    return Recorded(name, pid, psutil.Process(pid).create_time())


def same_start(first: float, second: float) -> bool:
    """Whether two start times of one pid mean one process: the clock may have been set a little in between."""
    return abs(first - second) < 1.0


_children: dict[int, subprocess.Popen[bytes]] = {}
"""What `spawn` started and nobody has yet seen the end of, by pid."""


def spawn(name: str, module: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str], secret: str | None = "") -> Recorded:
    """Start `python -m module arguments` in a session of its own, its output going to the end of the file `log`.

    `secret` is given on standard input, where neither `ps` nor the environment shows it; None: later, by `tell`.
    """
    command = [sys.executable, "-m", module, *arguments]
    with open(log, "ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    _children[process.pid] = process
    started = recorded(name, process.pid)
    if secret is not None:
        tell(started, secret)
    return started


def tell(process: Recorded, secret: str) -> None:
    """Give a process that `spawn` started what it waits for on standard input."""
    told = _children[process.pid].stdin
    assert told is not None
    try:
        told.write(secret.encode())
        told.close()
    except BrokenPipeError:
        pass  # it ended at once; whoever waits for it to serve will see that


def write_record(path: Path, processes: Sequence[Recorded]) -> None:
    """Keep the records in a file, whole or not at all."""
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps([asdict(process) for process in processes], indent=1), encoding="utf-8")
    scratch.replace(path)


def read_record(path: Path) -> list[Recorded]:
    """The records in a file; none where there is no file or it cannot be read."""
    try:
        return [Recorded(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []
