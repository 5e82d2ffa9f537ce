"""What the harness puts into the processes it starts: traps that kill at a chosen instruction, and planted bugs it must catch.

Nothing of this is in the product: the harness starts a shard class and a committer of its own, which are the product's with a few
functions replaced in their own process.

A trap is a byte in a file that all processes have mapped. The driver arms it; the process whose trap it is kills itself with SIGKILL
between the writes of a transaction and its COMMIT (with readings in it), and disarms it as it goes.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.journal import commit as journal_commit
from actors.journal import store as journal_store
from actors.journal import writer as journal_writer
from actors.journal.prepared import CommitResult, PreparedCommit

if TYPE_CHECKING:
    from cluster.boot import Running
    from cluster.processes import Recorded

COMMITTER = 0
SHARD = 1
"""Trap of shard n: SHARD + n."""
FULL = 100
"""Not a trap: while it is set the SQLite file may not grow."""
PLANTED = 101
"""Not a trap: which of PLANTS is in force."""
UNFLUSHED = 102
"""Not a trap: while it is set the committer's SQLite flushes nothing, and says so."""
TRAPS = 128
HELD = 4
HOLD_S = 2.5
"""So long a transaction is held at most: PostgreSQL gives up one that does nothing for three seconds."""
HASTE_S = 0.5
"""So long a process with the planted acknowledgement lives on before its trap springs: what it told too soon reaches who was told."""
UNBOUNDED_PAGES = 1_073_741_823
PLANTS = ("", "acknowledge-before-commit", "epoch-not-checked")


class Traps:
    """The bytes, one a process that can be trapped."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        if create:
            path.write_bytes(bytes(TRAPS))
        self.path = path
        with open(path, "r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), TRAPS)

    def arm(self, index: int) -> None:
        """The process kills itself at its next commit of readings."""
        self._bytes[index] = 1

    def armed(self, index: int) -> bool:
        """Whether it is still waiting."""
        return self._bytes[index] == 1

    def to_freeze(self, index: int) -> bool:
        """Whether it will freeze its process."""
        return self._bytes[index] == 2

    def disarm(self, index: int) -> None:
        """Never mind."""
        self._bytes[index] = 0

    def arm_to_freeze(self, index: int) -> None:
        """The process stops itself (SIGSTOP) at its next commit of readings, inside the transaction where it writes itself."""
        self._bytes[index] = 2

    def arm_to_hold(self, index: int) -> None:
        """The process waits at its next commit of readings, inside the transaction, until disarmed (or for HOLD_S)."""
        self._bytes[index] = 3

    def held(self, index: int) -> bool:
        """Whether it waits there."""
        return self._bytes[index] == HELD

    @property
    def plant(self) -> str:
        """The planted bug that is in force, in all processes."""
        return PLANTS[self._bytes[PLANTED]]

    @plant.setter
    def plant(self, name: str) -> None:
        self._bytes[PLANTED] = PLANTS.index(name)

    def spring(self, index: int) -> None:
        """Die, freeze or wait here, if armed."""
        armed = self._bytes[index]
        if armed == 3:
            self._bytes[index], until = HELD, time.monotonic() + HOLD_S
            while self.held(index) and time.monotonic() < until:
                time.sleep(0.001)
            if self.held(index):
                self._bytes[index] = 0
            return
        self._bytes[index] = 0
        if armed == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        elif armed == 2:  # given to this very thread: one that the process takes may let this thread go on for a while, and commit
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


def install(traps: Traps, index: int) -> None:
    """Put the trap, and the planted bugs, into this process."""
    genuine, fence = journal_writer.apply, journal_commit._fence

    def apply(connection: Any, commits: list[PreparedCommit]) -> Any:
        if connection.dialect.name == "sqlite":
            most = connection.exec_driver_sql("PRAGMA page_count").scalar_one() if traps.armed(FULL) else UNBOUNDED_PAGES
            connection.exec_driver_sql(f"PRAGMA max_page_count={most}")
        answers = genuine(connection, commits)
        if any(map(_written, commits, answers)):
            if traps.armed(index) and traps.plant == "acknowledge-before-commit":
                time.sleep(HASTE_S)
            traps.spring(index)
        return answers

    def checked(connection: Any, commit: PreparedCommit) -> None:
        (_no_fence if traps.plant == "epoch-not-checked" else fence)(connection, commit)

    journal_writer.apply = apply
    journal_commit._fence = checked
    for kind in (journal_store.CommitterStore, journal_store.PostgresStore):
        kind.commit = _hasty(kind.commit, traps)  # type: ignore[method-assign]


def _written(commit: PreparedCommit, answer: Any) -> bool:
    """Whether readings were written by it, in the transaction that is open."""
    told = isinstance(answer, CommitResult) and not answer.already_done
    return told and commit.journal is not None and commit.journal.kind == "readings"


def _no_fence(connection: Any, commit: PreparedCommit) -> None:
    """The planted bug: whoever writes is taken for the owner; its entry goes after whatever is there."""
    if commit.journal is None:
        return
    owner = journal_commit.OWNER
    moved = (
        journal_commit.update(owner)
        .where(owner.c.shard == commit.shard)
        .values(journal_head=owner.c.journal_head + 1)
        .returning(owner.c.journal_head)
    )
    commit.journal.sequence = connection.execute(moved).scalar_one()


def _hasty(genuine: Any, traps: Traps) -> Any:
    """The planted bug: whoever waits for the commit is told at once that it is durable."""

    def commit(self: Any, prepared: PreparedCommit) -> Future[CommitResult]:
        future = genuine(self, prepared)
        if traps.plant != "acknowledge-before-commit" or prepared.journal is None or prepared.journal.kind != "readings":
            return future  # type: ignore[no-any-return]
        told: Future[CommitResult] = Future()
        told.set_result(CommitResult())
        return told

    return commit


class InstrumentedShards:
    """Stands in for the shard class where a Waybill is started: every shard gets its trap."""

    def __init__(self, traps: Traps) -> None:
        self._traps = traps

    def options(self, **options: Any) -> InstrumentedShards:
        """As an actor class's."""
        other = InstrumentedShards(self._traps)
        other._options = options  # type: ignore[attr-defined]
        return other

    def remote(self, number: int, config: Any) -> Any:
        """Start a shard."""
        from tests.faults.trapped_shard import TrappedShard

        return TrappedShard.options(**self._options).remote(number, config, str(self._traps.path))  # type: ignore[attr-defined]


def successor(running: Running, traps: Traps, number: int) -> Any:
    """Start a second owner of a shard beside the one that is there, as a partitioned cluster would; its handle keeps it alive."""
    from cluster import boot
    from tests.faults.trapped_shard import TrappedShard

    options = {"namespace": running.settings.ray_namespace, "num_cpus": 0, "max_restarts": 0}
    return TrappedShard.options(**options).remote(number, boot._shard_config(running), str(traps.path))  # type: ignore[attr-defined]


@contextmanager
def instrumented(traps: Traps) -> Iterator[None]:
    """Within it, whatever `cluster.boot` starts in this process is instrumented."""
    from cluster import boot  # not in a committer, which should start fast

    shard, spawn = boot.Shard, boot.spawn

    def start(name: str, module: str, arguments: Any, *rest: Any, **more: Any) -> Recorded:
        if module == "actors.journal.committer":
            module, arguments = "tests.faults.planted", [str(traps.path), *arguments]
        return spawn(name, module, arguments, *rest, **more)

    boot.Shard, boot.spawn = InstrumentedShards(traps), start  # type: ignore[assignment]
    try:
        yield
    finally:
        boot.Shard, boot.spawn = shard, spawn


def main(arguments: list[str]) -> int:
    """The committer, instrumented: the traps' file, and the committer's own arguments."""
    from actors.journal import committer
    from tests.faults import shim

    traps = Traps(Path(arguments[0]))
    install(traps, COMMITTER)
    shim.install(lambda: traps.armed(UNFLUSHED))
    return committer.main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
