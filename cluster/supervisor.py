"""`waybill up`: keeps a Waybill running. What dies is started again; an owner that hangs is ended by pid and start time.

The supervisor polls. Ray's head is the exception to single restarts: without it nothing can be mended in place, so all is ended and started
again (the database is the memory). It is found dead within a poll, long before Ray's own minute of patience, at whose end
Ray would end this process too.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from types import FrameType

from cluster import boot, owners, ray_node
from cluster.boot import Running
from cluster.settings import Settings

log = logging.getLogger("waybill.supervisor")

POLL_S = 0.1
OWNERS_S = 0.5
"""Processes are looked at often, the database less so."""
BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
CALM_S = 60.0
"""A part that ran this long is started at once when it dies; one that dies sooner waits longer each time."""

Say = Callable[[str], None]


class Supervisor:
    """Watches one Waybill. `check` is one look at everything; `run` looks until it is told to stop."""

    def __init__(self, running: Running, *, say: Say = log.warning, clock: Callable[[], float] = time.monotonic) -> None:
        """Watch `running`; `clock` gives seconds from anywhere."""
        self.running = running
        self.stopping = threading.Event()
        self._say = say
        self._clock = clock
        self._deaths: dict[str, tuple[int, float]] = {}
        self._due: dict[str, float] = {}
        self._down = False  # all of it was ended and has not been started again
        self._owners = owners.Owners(running.settings)
        self._asked: dict[int, int] = {}  # by shard, which owner Ray was asked to end
        self._committer_ended = False  # because no heartbeat got through, and none has since

    def run(self) -> None:
        """Watch until `stopping` is set."""
        due = self._clock()
        while not self.stopping.wait(POLL_S):
            if self._clock() >= due or not all(process.alive() for process in self.running.processes()):
                self.check()
                due = self._clock() + OWNERS_S

    def check(self) -> None:
        """Look once at every part and mend what is broken, each part no sooner than its backoff allows."""
        if self._down or any(not head.alive() for head in self.running.heads):
            self._mend("Ray", self._restart_all)
            return
        committer = self.running.committer
        if committer is not None and not committer.alive():
            self._mend("the committer", self.running.start_committer)
            self._owners.forget()
        if self.running.outside is not None and not self.running.outside.alive():
            self._mend("the outbox's delivery", self.running.start_outside)
        for number, door in list(self.running.doors.items()):
            if not door.alive():
                self._mend(f"door {number}", partial(self.running.start_door, number))
        overdue = self._owners.overdue()
        if committer is not None and overdue and len(overdue) == self.running.settings.shards and not self._committer_ended:
            # Nobody's heartbeat gets through: it is the committer that hangs, more likely than all owners. If not, they are next.
            self._say("no heartbeat of any shard: the committer is ended")
            committer.end(0, first=signal.SIGKILL)
            self._committer_ended = True
            self._owners.forget()
            return
        self._committer_ended = self._committer_ended and bool(overdue or self._owners.waiting())
        for owner in overdue:
            self._say(f"shard {owner.shard}: no heartbeat for {owner.late_s:.0f} s")
            if owner.elsewhere and self._asked.get(owner.shard) != owner.acquired_us:
                self._asked[owner.shard] = owner.acquired_us  # once: it may be its successor, which has not taken the shard yet
                self._say(f"shard {owner.shard}: Ray is asked to end its owner on node {owner.node[:12]}")
                boot.end_shard(self.running, owner.shard)
            elif not owner.end():
                self._mend(f"shard {owner.shard}", partial(boot.ensure_shard, self.running, owner.shard))
        self._keep_spares()

    def close(self) -> None:
        """Let go of the database. What was watched keeps running."""
        self._owners.close()

    def _keep_spares(self) -> None:
        """Replace what was taken from the reserve."""
        moved = self._owners.moved()
        if not self.running.settings.spares:
            return
        try:
            self.running.start_spare()
            if moved:
                ray_node.start_spare(moved)
        except Exception as error:  # the reserve only makes things faster
            log.warning("the reserve could not be filled: %r", error)

    def _mend(self, name: str, start: Callable[[], object]) -> None:
        now = self._clock()
        if name not in self._due:
            count, last = self._deaths.get(name, (0, -CALM_S))
            count = 0 if now - last >= CALM_S else count
            self._due[name] = now if count == 0 else now + BACKOFF_S[min(count, len(BACKOFF_S)) - 1]
            self._deaths[name] = (count + 1, now)
            self._say(f"{name} is dead")
        if now < self._due[name]:
            return
        del self._due[name]
        try:
            start()
        except Exception as error:  # whatever it is, the other parts still need their supervisor
            log.debug("starting %s", name, exc_info=True)
            self._say(f"{name} could not be started: {error}")
            return
        self._say(f"{name} was started again")

    def _restart_all(self) -> None:
        self._down = True
        self.running.stop()
        self.running = boot.start(self.running.settings)
        self._down = False
        self._owners.forget()


def up(settings: Settings, *, say: Say, ready: Callable[[Running], None]) -> None:
    """Start a Waybill, call `ready` when it serves, and keep it running until SIGINT or SIGTERM; then end all of it.

    Must be called in the main thread. Raises SettingsError and StartError, with nothing left running.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    supervisor: Supervisor | None = None
    running = boot.start(settings, say=say)
    try:
        supervisor = Supervisor(running, say=say)

        def stop(_number: int, _frame: FrameType | None) -> None:
            assert supervisor is not None
            supervisor.stopping.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        ready(running)
        supervisor.run()
        say("ending")
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it running
        if supervisor is not None:
            supervisor.close()
            running = supervisor.running
        running.stop()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
