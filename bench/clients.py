"""The client processes of a measurement, seen from the one that measures."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from bench.sender import Spec
from bench.workload import Workload


@dataclass(frozen=True)
class Sent:
    """What came of one round of sending, over all clients. seconds: from the first message sent to the last answer taken."""

    readings: int
    late: int
    copies: int
    accepted: int
    duplicate: int
    seconds: float
    waits_s: list[float]

    @property
    def per_second(self) -> float:
        """Readings a second that were durable and judged when they were answered."""
        return self.readings / self.seconds


class Clients:
    """`processes` client processes that share a workload's gateways. Use in a `with`."""

    def __init__(
        self,
        target: str,
        work: Workload,
        *,
        processes: int,
        size: int,
        rows: bool,
        streams: int,
        window: int,
        connections: int = 1,
        unary: bool = False,
    ) -> None:
        self._processes = []
        for number in range(processes):
            gateways = list(range(number, work.gateways, processes))
            spec = Spec(target, asdict(work), gateways, size, rows, max(1, streams // processes), window, connections, unary)
            process = subprocess.Popen([sys.executable, "-m", "bench.sender"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._processes.append(process)
            self._tell(process, asdict(spec))

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.communicate()

    def send(self, first: int, until: int, before: Callable[[], None] | None = None) -> Sent:
        """Have the readings of some minutes encoded, then sent; checks that each is accepted, or a duplicate where it is a copy.

        `before` is called between the two.
        """
        made = self._all({"encode": [first, until]})
        if before is not None:
            before()
        told = self._all({"send": True})
        total = {
            name: sum(one[name] for one in (*made, *told) if name in one)
            for name in ("readings", "late", "copies", "accepted", "duplicate")
        }
        sent = Sent(
            **total,
            seconds=max(one["end"] for one in told) - min(one["start"] for one in told),
            waits_s=sorted(wait for one in told for wait in one["waits"]),
        )
        assert all(one["conflicting"] == one["refused"] == 0 for one in told), told
        assert (sent.accepted, sent.duplicate) == (sent.readings - sent.copies, sent.copies), sent
        return sent

    @staticmethod
    def _tell(process: subprocess.Popen[str], what: dict[str, Any]) -> None:
        assert process.stdin is not None
        process.stdin.write(json.dumps(what) + "\n")
        process.stdin.flush()

    def _all(self, command: dict[str, Any]) -> list[dict[str, Any]]:
        for process in self._processes:
            self._tell(process, command)
        answers = []
        for process in self._processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"a client process ended with code {process.wait()}")
            answers.append(json.loads(line))
        return answers
