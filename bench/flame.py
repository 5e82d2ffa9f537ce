"""Flame graphs of the hot path: where the door, the committer and a shard spend their time while columns come as fast as they are answered.

    python -m bench.flame        # writes docs/flame-door.svg, docs/flame-committer.svg, docs/flame-shard.svg

py-spy looks at each process a hundred times a second and counts what it finds running; what compiled rules do counts for the line that
calls them. The figures of `make bench` are measured without it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench.clients import Clients
from bench.environment import python_of
from bench.ingest import SIZE, TAGS, checked, new_workload
from bench.system import started

DOCS = Path(__file__).resolve().parents[1] / "docs"
RECORD_S, WARM, MINUTES = 8, 32, 1_600
"""Seconds of looking; minutes of 10,000 readings each, that last longer than that."""


def main() -> None:
    """Record all three at once."""
    spy = python_of("flame").with_name("py-spy")
    work = new_workload(TAGS, WARM + MINUTES, 8)
    with started(work) as system:
        sending = {"processes": 1, "size": SIZE, "streams": 8, "window": 8, "connections": 8}
        with Clients(system.target, work, rows=False, **sending) as clients:
            clients.send(0, WARM)
            known = system.processes()
            pids = {"door": known["door 0"].pid, "committer": known["committer"].pid, "shard": known["shard 0"].pid}
            looking = [
                subprocess.Popen(
                    [
                        str(spy),
                        "record",
                        "--pid",
                        str(pid),
                        "--duration",
                        str(RECORD_S),
                        "--rate",
                        "100",
                        "--threads",
                        "--output",
                        str(DOCS / f"flame-{name}.svg"),
                    ]
                )
                for name, pid in pids.items()
            ]
            sent = clients.send(WARM, WARM + MINUTES)
            assert sent.seconds > RECORD_S, "it was over before it was seen"
            assert [one.wait(60) for one in looking] == [0, 0, 0], "py-spy saw nothing (it needs the right to trace)"
        checked(system, work, WARM + MINUTES)
    print(f"{sent.per_second:,.0f} readings/s while it was looked at; docs/flame-*.svg")


if __name__ == "__main__":
    main()
