"""The chaos driver: kills parts of a running Waybill while they hold unacknowledged messages, and measures until all is answered again."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from tests.faults.counters import Counters
from tests.faults.planted import COMMITTER, SHARD
from tests.faults.system import System, alive

FIND_S = 30.0
"""How long a victim is waited for: that it is there, and has something unacknowledged."""
TRAP_S = 5.0
RECOVER_S = 120.0
STALE_NS = 300_000_000
"""Answers that come so soon after a kill were under way before it."""


@dataclass
class Cycle:
    """One kill and what followed."""

    kind: str
    how: str
    """`trap`: between the writes of a transaction and its COMMIT; `signal`: from outside, whenever."""
    victim: str
    waiting: int = 0
    """Messages of the victim's that were unacknowledged when it died; a kill with none does not count."""
    outage_s: float = 0.0
    recovered: bool = False
    found_written: int = 0
    """Messages that were committed and not acknowledged: sent again, found to be there."""

    @property
    def counts(self) -> bool:
        """Whether it proves anything."""
        return self.waiting > 0


class Chaos:
    """One driver. `kinds`: what to kill, in turn; see `victims`."""

    def __init__(self, system: System, counters: Counters, kinds: list[str], seed: int) -> None:
        self.system = system
        self.counters = counters
        self.random = random.Random(seed)
        self.cycles: list[Cycle] = []
        self.takeovers: list[tuple[int, int, int]] = []
        self.victims: dict[str, Callable[[], Cycle | None]] = {
            "shard": self.kill_shard,
            "committer": self.kill_committer,
            "door": self.kill_door,
            "database": self.kill_database,
        }
        self._order = list(kinds)
        self._next = 0
        self.log: Callable[[str], None] = lambda line: None
        self.over: Callable[[], bool] = lambda: False
        """Says that nothing more will be answered: the gateways have ended."""

    def step(self) -> Cycle | None:
        """One kill of the next kind, and the wait until all is served again. None: there was nobody to kill."""
        kind = self._order[self._next % len(self._order)]
        self._next += 1
        cycle = self.victims[kind]()
        if cycle is not None:
            self.cycles.append(cycle)
            self.log(f"{cycle}")
            time.sleep(self.random.uniform(0.05, 0.6))
        return cycle

    # ------------------------------------------------------------ kinds

    def kill_shard(self) -> Cycle | None:
        """The owner of a shard."""
        shard = self.random.randrange(self.system.shards)
        owner = self.wait_for(lambda: self.system.owner(shard))
        if owner is None:
            return None
        waiting = lambda: int(self.counters.outstanding[shard])  # noqa: E731
        trap = SHARD + shard if self.random.random() < 0.4 else None
        return self.kill("shard", f"shard {shard}", owner.pid, waiting, [shard], trap)

    def kill_committer(self) -> Cycle | None:
        """The process that writes the SQLite file."""
        found = self.wait_for(lambda: next(iter(self.system.processes("committer")), None))
        if found is None:
            return None
        trap = COMMITTER if self.random.random() < 0.4 else None
        return self.kill("committer", "committer", found.pid, lambda: self.counters.waiting, self.everything(), trap)

    def kill_door(self) -> Cycle | None:
        """A door. With several, one of them."""
        doors = self.wait_for(lambda: self.system.processes("door"))
        if not doors:
            return None
        door = self.random.choice(doors)
        return self.kill("door", door.name, door.pid, lambda: self.counters.waiting, self.everything(), None)

    def kill_database(self) -> Cycle | None:
        """The PostgreSQL server, as a power cut would; it is started again at once."""
        server = self.system.server
        assert server is not None
        if not self.wait_until(lambda: self.counters.waiting > 0, FIND_S):
            return None
        cycle = Cycle("database", "signal", "PostgreSQL", waiting=self.counters.waiting)
        begun, before = time.monotonic_ns(), self.counters.found_written
        server.kill()
        server.start()
        self.watch(cycle, begun, self.everything(), before)
        return cycle

    # ------------------------------------------------------------ how

    def kill(self, kind: str, name: str, pid: int, waiting: Callable[[], int], shards: list[int], trap: int | None) -> Cycle | None:
        """Kill one process by its pid while it holds something, then watch until its shards answer."""
        if not self.wait_until(lambda: waiting() > 0 or not alive(pid), FIND_S) or not alive(pid):
            return None
        before = self.counters.found_written
        cycle = Cycle(kind, "signal" if trap is None else "trap", name)
        if trap is not None:
            self.system.traps.arm(trap)
            if not self.wait_until(lambda: not alive(pid), TRAP_S):
                self.system.traps.disarm(trap)
                cycle.how = "signal"
        begun = time.monotonic_ns()
        if cycle.how == "signal":
            if not self.wait_until(lambda: waiting() > 0, FIND_S):
                return None
            with contextlib.suppress(ProcessLookupError):
                begun = time.monotonic_ns()
                os.kill(pid, signal.SIGKILL)
        cycle.waiting = waiting()
        self.watch(cycle, begun, shards, before)
        return cycle

    def watch(self, cycle: Cycle, begun_ns: int, shards: list[int], found_written: int) -> None:
        """Until messages of every shard concerned are answered again; the longest of their silences is the outage."""
        done: dict[int, float] = {}

        def again() -> bool:
            for shard in shards:
                answered = int(self.counters.answered_ns[shard])
                if shard not in done and answered > begun_ns + STALE_NS:
                    done[shard] = (answered - begun_ns) / 1e9
            return len(done) == len(shards)

        cycle.recovered = self.wait_until(again, RECOVER_S)
        cycle.outage_s = round(max(done.values()), 3) if cycle.recovered else RECOVER_S
        cycle.found_written = self.counters.found_written - found_written

    def everything(self) -> list[int]:
        """All shards."""
        return list(range(self.system.shards))

    def wait_for(self, find: Callable[[], Any]) -> Any:
        """What `find` finds; None where it stays away."""
        found: list[Any] = []
        self.wait_until(lambda: bool(found.append(find()) or found[-1]), FIND_S, 0.05)
        return found[-1]

    def wait_until(self, done: Callable[[], bool], patience_s: float, every_s: float = 0.002) -> bool:
        """Whether it came about."""
        deadline = time.monotonic() + patience_s
        while not done():
            if time.monotonic() > deadline or self.over():
                return False
            time.sleep(every_s)
        return True


def summary(cycles: list[Cycle]) -> dict[str, dict[str, Any]]:
    """By kind: how many kills counted, how many of them fell between write and commit or between commit and answer, the outages."""
    told: dict[str, dict[str, Any]] = {}
    for kind in sorted({cycle.kind for cycle in cycles}):
        mine = [cycle for cycle in cycles if cycle.kind == kind and cycle.counts]
        outages = sorted(cycle.outage_s for cycle in mine) or [0.0]
        told[kind] = {
            "cycles": len(mine),
            "not_counted": sum(1 for cycle in cycles if cycle.kind == kind) - len(mine),
            "between_write_and_commit": sum(1 for cycle in mine if cycle.how == "trap"),
            "written_and_unacknowledged": sum(1 for cycle in mine if cycle.found_written),
            "median_outage_s": outages[len(outages) // 2],
            "longest_outage_s": outages[-1],
            "unrecovered": sum(1 for cycle in mine if not cycle.recovered),
        }
    return told


def as_json(cycles: list[Cycle]) -> list[dict[str, Any]]:
    """Every cycle, for whoever wants to look closer."""
    return [asdict(cycle) for cycle in cycles]
