"""Flame graphs of the hot path: where the door, the committer and a shard spend their time while columns come as fast as they are answered.

    python -m bench.flame        # writes docs/flame-door.svg, docs/flame-committer.svg, docs/flame-shard.svg

py-spy looks at each process a hundred times a second and counts what it finds running; what compiled rules do counts for the line that
calls them. The figures of `make bench` are measured without it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.clients import Clients
from bench.environment import python_of
from bench.ingest import SIZE, TAGS, checked, new_workload
from bench.system import started

DOCS = Path(__file__).resolve().parents[1] / "docs"
RECORD_S, WARM, MINUTES = 5, 32, 1_800
"""Seconds of looking at each; minutes of 10,000 readings each, that last longer than that."""


def look(spy: Path, name: str, pid: int) -> subprocess.Popen[bytes]:
    """Begin to record a process."""
    command = [spy, "record", "--pid", pid, "--duration", RECORD_S, "--rate", 100, "--threads", "--output", DOCS / f"flame-{name}.svg"]
    return subprocess.Popen([str(word) for word in command])


def seen(clients: Clients, at: int, spy: Path, name: str, pid: int) -> float:
    """Record a process while readings from minute `at` on are sent; readings a second meanwhile."""
    looking: list[subprocess.Popen[bytes]] = []
    sent = clients.send(at, at + MINUTES, before=lambda: looking.append(look(spy, name, pid)))
    assert sent.seconds > RECORD_S, "it was over before it was seen"
    assert looking[0].wait(60) == 0, "py-spy saw nothing (it needs the right to trace)"
    anonymous(DOCS / f"flame-{name}.svg")
    return sent.per_second


def main() -> None:
    """Record one process after the other: to be looked at costs time, too."""
    spy = python_of("flame").with_name("py-spy")
    work = new_workload(TAGS, WARM + 3 * MINUTES, 8)
    with started(work) as system:
        sending = {"processes": 1, "size": SIZE, "streams": 8, "window": 8, "connections": 8}
        with Clients(system.target, work, rows=False, **sending) as clients:
            clients.send(0, WARM)
            known = system.processes()
            at = WARM
            for name, process in (("door", "door 0"), ("committer", "committer"), ("shard", "shard 0")):
                rate = seen(clients, at, spy, name, known[process].pid)
                at += MINUTES
                print(f"{rate:,.0f} readings/s while the {name} was looked at; docs/flame-{name}.svg")
        checked(system, work, at)


def anonymous(path: Path) -> None:
    """Take out where this machine keeps things."""
    told = path.read_text(encoding="utf-8")
    for place in (f"{DOCS.parent}/", f"{sys.prefix}/", f"{sys.base_prefix}/", f"{Path.home()}/"):
        told = told.replace(place, "")
    path.write_text(told, encoding="utf-8")


if __name__ == "__main__":
    main()
