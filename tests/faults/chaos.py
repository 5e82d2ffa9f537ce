"""The chaos driver: kills parts of a running Waybill while they hold unacknowledged messages, and measures until all is answered again."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import psutil

from cluster.processes import Recorded
from tests.faults.counters import Counters
from tests.faults.cycles import Cycle
from tests.faults.disk import failing_calls
from tests.faults.planted import COMMITTER, FULL, SHARD, UNFLUSHED
from tests.faults.system import Owner, System, alive
from waybill.v1 import alert_pb2, alert_pb2_grpc

FIND_S = 30.0
"""How long a victim is waited for: that it is there, and has something unacknowledged."""
TRAP_S = 5.0
RECOVER_S = 120.0
CALL_S = 20.0
NOTICE_S = 2.2
"""Within that a worker notices that its raylet is gone; sooner than a transaction is let go that is held meanwhile."""
STALE_NS = 300_000_000
"""Answers that come so soon after a kill were under way before it."""


@dataclass(frozen=True)
class Victim:
    """Whom to kill. `waiting`: its unacknowledged messages; `renewed`: whether its successor is there; `trap`: see planted.py."""

    kind: str
    name: str
    pid: int
    waiting: Callable[[], int]
    shards: list[int]
    renewed: Callable[[], bool]
    trap: int | None


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
            "both": self.kill_committer_and_shards,
            "freeze": self.freeze_owner,
            "full": self.fill_disk,
            "io": self.fail_writes,
            "fsync": self.fail_flushes,
            "raylet": self.kill_raylet,
            "doors": self.kill_doors,
            "gcs": self.kill_gcs,
            "eio": self.fail_calls,
            "enospc": self.fill_small_disk,
            "cut": self.cut_network,
        }
        self._order = list(kinds)
        self._next = 0
        self._traps: dict[str, bool] = {}
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

        def renewed() -> bool:
            found = self.system.owner(shard)
            return found is not None and found.epoch > owner.epoch

        victim = Victim(
            "shard", f"shard {shard}", owner.pid, lambda: int(self.counters.outstanding[shard]), [shard], renewed, SHARD + shard
        )
        return self.kill(victim)

    def kill_committer(self) -> Cycle | None:
        """The process that writes the SQLite file."""
        found = self.wait_for(lambda: next(iter(self.system.processes("committer")), None))
        if found is None:
            return None
        return self.kill(self.recorded("committer", found, COMMITTER))

    def kill_door(self) -> Cycle | None:
        """A door. With several, one of them."""
        doors = self.wait_for(lambda: self.system.processes("door"))
        if not doors:
            return None
        door = self.random.choice(doors)
        return self.kill(self.recorded("door", door, None))

    def kill_doors(self) -> Cycle | None:
        """All doors at once."""
        doors = self.wait_for(lambda: self.system.processes("door"))
        if not doors or not self.wait_until(lambda: self.counters.waiting > 0, FIND_S):
            return None
        cycle, before = Cycle("doors", "signal", f"{len(doors)} doors"), self.counters.found_written
        with self.between_write_and_commit(cycle):
            begun = time.monotonic_ns()
            for door in doors:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(door.pid, signal.SIGKILL)
            cycle.waiting = self.counters.waiting
        gone = {door.pid for door in doors}

        def renewed() -> bool:
            return any(one.pid not in gone for one in self.system.processes("door"))

        self.watch(cycle, begun, self.everything(), renewed, before)
        return cycle

    def kill_gcs(self) -> Cycle | None:
        """Ray's head service. In a cluster that keeps its state it is started again; else the supervisor starts everything again."""
        nodes = self.system.nodes
        if not self.wait_until(lambda: self.counters.waiting > 0, FIND_S):
            return None
        before = self.counters.found_written
        if nodes is not None:
            cycle = Cycle("gcs", "signal", "the cluster's head service")
            with self.between_write_and_commit(cycle):
                cycle.waiting, begun = self.counters.waiting, time.monotonic_ns()
                nodes.kill_gcs()
            nodes.start_gcs()
            self.watch(cycle, begun, self.everything(), lambda: True, before)
            return cycle
        head = self.wait_for(lambda: next(iter(self.system.processes("ray gcs_server")), None))
        return None if head is None else self.kill(self.recorded("ray gcs_server", head, None), "gcs")

    def kill_database(self) -> Cycle | None:
        """The PostgreSQL server, as a power cut would; it is started again at once."""
        server = self.system.server
        assert server is not None
        if not self.wait_until(lambda: self.counters.waiting > 0, FIND_S):
            return None
        cycle, before = Cycle("database", "signal", "PostgreSQL"), self.counters.found_written
        with self.between_write_and_commit(cycle):
            cycle.waiting, begun = self.counters.waiting, time.monotonic_ns()
            server.kill()
        server.start()
        self.watch(cycle, begun, self.everything(), lambda: True, before)
        return cycle

    def kill_committer_and_shards(self) -> Cycle | None:
        """The committer inside a transaction and, while it is away, every shard."""
        found = self.wait_for(lambda: next(iter(self.system.processes("committer")), None))
        if found is None or not self.wait_until(lambda: self.counters.waiting > 0, FIND_S):
            return None
        owners = [owner for shard in self.everything() if (owner := self.system.owner(shard)) is not None]
        cycle, before = Cycle("both", "trap", "committer and shards"), self.counters.found_written
        self.system.traps.arm(COMMITTER)
        if not self.wait_until(lambda: not alive(found.pid), TRAP_S):
            cycle.how = "signal"
            os.kill(found.pid, signal.SIGKILL)
        self.system.traps.disarm(COMMITTER)
        begun = time.monotonic_ns()
        for owner in owners:
            with contextlib.suppress(ProcessLookupError):
                os.kill(owner.pid, signal.SIGKILL)
        cycle.waiting = self.counters.waiting

        def renewed() -> bool:
            now = [self.system.owner(owner.shard) for owner in owners]
            return all(new is not None and new.epoch > old.epoch for new, old in zip(now, owners, strict=True))

        self.watch(cycle, begun, self.everything(), renewed, before)
        return cycle

    def freeze_owner(self) -> Cycle | None:
        """SIGSTOP an owner with work in hand, let another take the shard, then thaw the first: it may write no more, and must go."""
        shard = self.random.randrange(self.system.shards)
        owner = self.wait_for(lambda: self.system.owner(shard))
        if owner is None or not self.wait_until(lambda: self.counters.outstanding[shard] > 0, FIND_S):
            return None
        cycle, before = Cycle("freeze", "signal", f"shard {shard}"), self.counters.found_written
        trap = SHARD + shard
        self.system.traps.arm_to_freeze(trap)
        if self.wait_until(lambda: frozen(owner.pid), TRAP_S):
            cycle.how = "trap"
        self.system.traps.disarm(trap)
        begun = time.monotonic_ns()
        os.kill(owner.pid, signal.SIGSTOP)
        cycle.waiting = int(self.counters.outstanding[shard])
        self.system.succeed(shard)
        read = [self.epoch_of(shard)]
        taken = self.wait_until(lambda: read.append(self.epoch_of(shard)) or read[-1][0] > owner.epoch, RECOVER_S, 0.05)
        if taken:
            self.takeovers.append((shard, *read[-1]))
        with contextlib.suppress(ProcessLookupError):
            os.kill(owner.pid, signal.SIGCONT)
        gone = self.wait_until(lambda: not alive(owner.pid), RECOVER_S, 0.02)

        def renewed() -> bool:
            found = self.system.owner(shard)
            return found is not None and found.epoch > owner.epoch + 1

        self.watch(cycle, begun, [shard], renewed, before)
        cycle.recovered = cycle.recovered and taken and gone
        return cycle

    def epoch_of(self, shard: int) -> tuple[int, int]:
        """A shard's epoch, and the head of its journal when it was read."""
        return self.system.epoch(shard)

    def fill_disk(self) -> Cycle | None:
        """The SQLite file may not grow for a while: refused and told so, then taken again."""
        cycle, before = Cycle("full", "signal", "disk", waiting=self.counters.waiting), self.counters.full
        self.system.traps.arm(FULL)
        told = self.wait_until(lambda: self.counters.full > before, FIND_S)
        taken = self.counters.acknowledged
        cycle.waiting = max(cycle.waiting, self.counters.waiting)
        read = self.reads()
        time.sleep(0.5)
        if not told and self.wait_until(lambda: self.counters.acknowledged > taken, TRAP_S):
            self.system.traps.disarm(FULL)
            return None  # there was room in the file for all of that time: nothing was shown
        begun, written = time.monotonic_ns(), self.counters.found_written
        self.system.traps.disarm(FULL)
        self.watch(cycle, begun, self.everything(), lambda: True, written)
        cycle.recovered = cycle.recovered and told and read
        return cycle

    def fail_writes(self) -> Cycle | None:
        """Writes of the committer's past the present size of its files fail (EFBIG) for a second: nothing may be acknowledged by luck."""
        return self.fail_committer("io", "files", lambda one, fails: one.rlimit(psutil.RLIMIT_FSIZE, (4096 if fails else -1, -1)))

    def fail_flushes(self) -> Cycle | None:
        """The committer's flushes fail for a second (shim.py)."""
        traps = self.system.traps
        return self.fail_committer("fsync", "flushes", lambda _, fails: (traps.arm if fails else traps.disarm)(UNFLUSHED))

    def fail_committer(self, kind: str, what: str, switch: Callable[[psutil.Process, bool], object]) -> Cycle | None:
        """Something of the committer's fails for a second; `switch` begins and ends it."""
        found = self.wait_for(lambda: next(iter(self.system.processes("committer")), None))
        if found is None or not self.wait_until(lambda: self.counters.waiting > 0, FIND_S):
            return None
        cycle, before = Cycle(kind, "signal", f"committer's {what}"), self.counters.found_written
        process = psutil.Process(found.pid)
        try:
            with self.between_write_and_commit(cycle):
                begun = time.monotonic_ns()
                switch(process, True)
            time.sleep(1.0)
            cycle.waiting = self.counters.waiting
        finally:
            switch(process, False)
        self.watch(cycle, begun, self.everything(), lambda: True, before)
        return cycle

    def fail_calls(self) -> Cycle | None:
        """Flushes or writes of whoever writes the database fail at the system call for a second (strace)."""
        pids = self.system.server.pids() if self.system.server is not None else [one.pid for one in self.system.processes("committer")]
        if not pids or not self.wait_until(lambda: self.counters.waiting > 0, FIND_S):
            return None
        calls, error = self.random.choice([("fsync,fdatasync", "EIO"), ("pwrite64", "EIO"), ("pwrite64", "ENOSPC")])
        cycle, before = Cycle("eio", "signal", f"{calls} {error}"), self.counters.found_written
        with contextlib.ExitStack() as failing:
            with self.between_write_and_commit(cycle):
                failing.enter_context(failing_calls(pids, calls, error))
                begun = time.monotonic_ns()
            time.sleep(0.8)
            cycle.waiting = self.counters.waiting
        self.watch(cycle, begun, self.everything(), lambda: True, before)
        return cycle

    def fill_small_disk(self) -> Cycle | None:
        """The disk that the database lies on has no byte left for a while."""
        disk = self.system.disk
        assert disk is not None, "the kind enospc needs --disk"
        if not self.wait_until(lambda: self.counters.waiting > 0, FIND_S):
            return None
        cycle = Cycle("enospc", "signal", "small disk", waiting=self.counters.waiting)
        refused, full = self.counters.refusals, self.counters.full
        disk.fill()
        sqlite = self.system.server is None  # (a PostgreSQL whose disk is full ends itself: it is away, not full)
        told = self.wait_until(lambda: self.counters.full > full if sqlite else self.counters.refusals > refused, FIND_S)
        cycle.waiting = max(cycle.waiting, self.counters.waiting)
        read = self.reads() if sqlite else True
        time.sleep(0.5)
        begun, before = time.monotonic_ns(), self.counters.found_written
        disk.free()
        self.watch(cycle, begun, self.everything(), lambda: True, before)
        cycle.recovered = cycle.recovered and told and read
        return cycle

    def cut_network(self) -> Cycle | None:
        """The network of a node that has an owner is cut until its shards are served elsewhere; then it comes back, old owner and all."""
        nodes = self.system.nodes
        island = nodes.island if nodes is not None else None
        assert island is not None, "the kind cut needs a node in a network namespace"
        owners = self.wait_for(lambda: self.on_island(island.node_id()))
        if not owners or not self.wait_until(lambda: any(self.counters.outstanding[one.shard] > 0 for one in owners), FIND_S):
            return None
        cycle, before = Cycle("cut", "signal", f"{len(owners)} shards' node"), self.counters.found_written
        busy = next((one.shard for one in owners if self.counters.outstanding[one.shard] > 0), owners[0].shard)
        with self.between_write_and_commit(cycle, busy):
            begun = time.monotonic_ns()
            island.cut()
            cycle.waiting = self.counters.waiting

        def renewed() -> bool:
            now = [self.system.owner(one.shard) for one in owners]
            return all(new is not None and new.epoch > old.epoch for new, old in zip(now, owners, strict=True))

        taken = self.wait_until(renewed, RECOVER_S, 0.05)
        for owner in owners if taken else ():
            epoch, head = self.epoch_of(owner.shard)
            self.takeovers.append((owner.shard, epoch, head))
        island.mend()
        self.watch(cycle, begun, [one.shard for one in owners], renewed, before)
        cycle.recovered = cycle.recovered and taken
        island.join_again()
        return cycle

    def on_island(self, node_id: str) -> list[Owner]:
        """Owners on one node."""
        owners = [owner for shard in self.everything() if (owner := self.system.owner(shard)) is not None]
        return [one for one in owners if one.node == node_id]

    def kill_raylet(self) -> Cycle | None:
        """The raylet of a node that has an owner: its workers go with it, the shards move to living nodes."""
        nodes = self.system.nodes
        assert nodes is not None
        owners = [owner for shard in self.everything() if (owner := self.system.owner(shard)) is not None]
        self.random.shuffle(owners)
        for owner in owners:
            place = nodes.raylet(owner.node)
            if place is None:
                continue
            moving = [one for one in owners if one.node == owner.node]
            if not self.wait_until(lambda: self.counters.outstanding[owner.shard] > 0, FIND_S):  # noqa: B023
                return None
            cycle, before = Cycle("raylet", "signal", f"node of shard {owner.shard}"), self.counters.found_written
            with self.between_write_and_commit(cycle, owner.shard):
                begun = time.monotonic_ns()
                os.kill(place[1], signal.SIGKILL)
                cycle.waiting = int(self.counters.outstanding[owner.shard])
                self.wait_until(lambda: not alive(owner.pid), NOTICE_S)  # noqa: B023  (its workers look for it every second)

            def renewed(moving: list[Owner] = moving) -> bool:
                now = [self.system.owner(one.shard) for one in moving]
                return all(new is not None and new.epoch > old.epoch for new, old in zip(now, moving, strict=True))

            self.watch(cycle, begun, [one.shard for one in moving], renewed, before)
            nodes.replace(place[0])
            return cycle
        return None

    def recorded(self, kind: str, process: Recorded, trap: int | None) -> Victim:
        """A process that Waybill wrote down."""

        def renewed() -> bool:
            return any(one.name == process.name and one.pid != process.pid for one in self.system.processes(kind))

        return Victim(kind, process.name, process.pid, lambda: self.counters.waiting, self.everything(), renewed, trap)

    # ------------------------------------------------------------ how

    @contextmanager
    def between_write_and_commit(self, cycle: Cycle, shard: int | None = None) -> Iterator[None]:
        """Every other time of a kind: what is done within it is done while readings (of `shard`, where one is given) are written and their
        transaction is held before its COMMIT. The committer holds it on SQLite, the shard on PostgreSQL."""
        turn = self._traps[cycle.kind] = not self._traps.get(cycle.kind, False)
        if self.system.server is None:
            trap = COMMITTER
        else:
            trap = SHARD + (shard if shard is not None else int(self.counters.outstanding[: self.system.shards].argmax()))
        held = False
        if turn:
            self.system.traps.arm_to_hold(trap)
            held = self.wait_until(lambda: self.system.traps.held(trap), TRAP_S)
        if not held:
            self.system.traps.disarm(trap)
        try:
            yield
            cycle.how = "trap" if held and self.system.traps.held(trap) else "signal"
        finally:
            self.system.traps.disarm(trap)

    def reads(self) -> bool:
        """Whether reading goes on."""
        with grpc.insecure_channel(self.system.target, options=[("grpc.enable_http_proxy", 0)]) as channel:
            try:
                alert_pb2_grpc.AlertServiceStub(channel).ListAlerts(
                    alert_pb2.ListAlertsRequest(page_size=1), timeout=CALL_S, wait_for_ready=True
                )
            except grpc.RpcError as error:
                self.log(f"a read failed: {error}")
                return False
        return True

    def kill(self, victim: Victim, kind: str = "") -> Cycle | None:
        """Kill one process by its pid while it holds something, then watch until its shards answer. Every other time by its trap."""
        if not self.wait_until(lambda: victim.waiting() > 0 or not alive(victim.pid), FIND_S) or not alive(victim.pid):
            return None
        before = self.counters.found_written
        cycle = Cycle(kind or victim.kind, "signal", victim.name)
        begun = 0
        if victim.trap is not None:
            turn = self._traps[victim.kind] = not self._traps.get(victim.kind, False)
            if turn and self.sprung(victim, victim.trap):
                begun = max(int(self.counters.answered_ns[shard]) for shard in victim.shards)
                cycle.how, cycle.waiting = "trap", victim.waiting()
        if cycle.how == "signal":
            if not self.wait_until(lambda: victim.waiting() > 0, FIND_S):
                return None
            held = contextlib.nullcontext() if victim.trap is not None else self.between_write_and_commit(cycle)
            with contextlib.suppress(ProcessLookupError), held:
                cycle.waiting, begun = victim.waiting(), time.monotonic_ns()
                os.kill(victim.pid, signal.SIGKILL)
        self.watch(cycle, begun, victim.shards, victim.renewed, before)
        return cycle

    def sprung(self, victim: Victim, trap: int) -> bool:
        """Whether the victim ran into its trap."""
        self.system.traps.arm(trap)
        try:
            return self.wait_until(lambda: not alive(victim.pid), TRAP_S)
        finally:
            self.system.traps.disarm(trap)

    def watch(self, cycle: Cycle, begun_ns: int, shards: list[int], renewed: Callable[[], bool], found_written: int) -> None:
        """Until the victim has a successor and messages of every shard concerned are answered again: that is the outage."""
        if not self.wait_until(renewed, RECOVER_S, 0.02):
            cycle.outage_s = RECOVER_S
            return
        since_ns = max(begun_ns + STALE_NS, time.monotonic_ns())
        done: dict[int, float] = {}

        def again() -> bool:
            for shard in shards:
                answered = int(self.counters.answered_ns[shard])
                if shard not in done and answered > since_ns:
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


def frozen(pid: int) -> bool:
    """Whether a process is stopped."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False
