"""Delivering the outbox: one thread per destination takes its messages in order and hands them to who receives them.

A message is in the outbox because the transaction that it tells of committed it there: nothing is sent before, and nothing is
forgotten, for it stays until its receiver has taken it or a person gave it up. What becomes of an attempt:

| receiver | then |
|---|---|
| takes it | DELIVERED |
| refuses it (`Refused`) | DEAD at once: a person looks at it (`waybill outbox`); the ones behind it go on |
| fails without saying why (`Failed`) | tried again, DEAD after `MOST_ATTEMPTS` |
| is away (`Away`), locks us out (`LockedOut`), or anything else | tried again for ever; the ones behind it wait, for their order is kept |

Waits between attempts double from `FIRST_WAIT_S` up to a longest one, each shortened by chance to as little as half. A process
that dies between the receiver's answer and our commit sends the message again: receivers know it by its key.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence

from actors.journal import delivery
from actors.journal.prepared import Condition, PreparedCommit
from actors.journal.store import Store
from actors.journal.tables import Outbox
from actors.rules.errors import DomainError
from services.outside import Failed, LockedOut, Message, Outcome, OutsideError, Receiver, Refused

log = logging.getLogger("waybill.outbox")

BATCH = 25
POLL_S = 0.1
"""How often the outbox is looked at while nothing waits."""
FIRST_WAIT_S = 0.5
MOST_ATTEMPTS = 5
ALERT_AFTER_S = 60.0
"""A destination that has taken nothing for so long while something waits raises an alert; one that locks us out does at once."""
KEPT_US = 30 * 86_400_000_000
"""Delivered messages are kept for so long."""
PRUNE_EVERY_S = 600.0


def wait_s(attempts: int, longest_s: float, chance: Callable[[], float] = random.random) -> float:
    """How long to wait after the n-th attempt (from 1): it doubles, up to the longest, and chance takes up to half away."""
    return min(FIRST_WAIT_S * 2.0 ** min(attempts - 1, 30), longest_s) * (1 - 0.5 * chance())


class Courier:
    """Delivers for one destination, in a thread of its own."""

    def __init__(
        self,
        store: Store,
        destination: str,
        receiver: Receiver,
        *,
        now_us: Callable[[], int],
        longest_wait_s: float = 60.0,
        ready: Callable[[], bool] = lambda: True,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """Nothing is sent before `ready`. `between` is called in the courier's thread whenever it looks at the outbox."""
        self.destination = destination
        self._store, self._receiver, self._now_us, self._longest_s = store, receiver, now_us, longest_wait_s
        self._ready, self._between = ready, between
        self._stopping = threading.Event()
        self._failing_since: float | None = None
        self._alerted: dict[str, bool] = {}
        self._pruned_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"courier-{destination}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End after the message that is under way; what is not settled by then is sent again by the next courier."""
        self._stopping.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                busy = self._look()
            except DomainError as error:
                log.warning("%s: the database: %s", self.destination, error)
                busy = False
            except Exception:
                log.exception("%s: a defect", self.destination)
                self._stopping.wait(1.0)
                busy = False
            if not busy:
                self._stopping.wait(POLL_S)

    def _look(self) -> bool:
        """Deliver what is due; whether there may be more at once."""
        self._tidy()
        if not self._ready():
            return False
        try:
            self._between()
        except OutsideError as error:
            self._note_failure(error)
            return False
        found = delivery.waiting(self._store.engine, self.destination, BATCH)
        if not found or found[0].next_try_us > self._now_us():
            return False
        return self.deliver(found)

    def deliver(self, rows: Sequence[Outbox]) -> bool:
        """Deliver these messages and write what became of them; whether all had an outcome."""
        outcomes: list[Outcome] = []
        messages = [Message(row.sequence, row.key, row.kind, row.body, row.attempts) for row in rows]
        stopped: OutsideError | None = None
        try:
            for outcome in self._receiver.deliver(messages):
                outcomes.append(outcome)
                if self._stopping.is_set() or (isinstance(outcome, Failed) and messages[len(outcomes) - 1].attempts + 1 < MOST_ATTEMPTS):
                    break  # it is tried again before what stands behind it
        except OutsideError as error:
            stopped = error
        except Exception as error:
            log.exception("%s: a defect in delivering %s", self.destination, rows[len(outcomes)].key)
            stopped = Failed(f"a defect of Waybill: {type(error).__name__} {error}")
        settled = [self._settled(row, outcome) for row, outcome in zip(rows, outcomes, strict=False)]
        if stopped is not None:
            settled.append(self._settled(rows[len(outcomes)], stopped))
        now_us = self._now_us()
        conditions = self._store.write(delivery.settle, self.destination, settled, now_us).result()
        if any(one.state == delivery.DEAD for one in settled):
            conditions.append(self._condition("dead", "raise", "a message was refused: see `waybill outbox list`"))
        self._tell(conditions)
        if stopped is not None:
            self._note_failure(stopped)
        elif any(one.state == delivery.DELIVERED for one in settled):
            self._note_success()
        return stopped is None and len(settled) == len(rows)

    def _settled(self, row: Outbox, outcome: Outcome | OutsideError) -> delivery.Settled:
        assert row.id is not None
        if not isinstance(outcome, OutsideError):
            return delivery.Settled(row.id, delivery.DELIVERED, outcome.value)
        attempts = row.attempts + 1
        if isinstance(outcome, Refused) or (isinstance(outcome, Failed) and attempts >= MOST_ATTEMPTS):
            log.error("%s: %s is dead after %d attempts: %s", self.destination, row.key, attempts, outcome)
            return delivery.Settled(row.id, delivery.DEAD, str(outcome))
        again_us = self._now_us() + int(wait_s(attempts, self._longest_s) * 1e6)
        return delivery.Settled(row.id, delivery.PENDING, str(outcome), again_us)

    # ------------------------------------------------------------ alerts

    def _note_failure(self, error: OutsideError) -> None:
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
            log.warning("%s: %s", self.destination, error)
        if isinstance(error, LockedOut) or now - self._failing_since >= ALERT_AFTER_S:
            self._tell([self._condition("away", "raise", str(error)[:300])])

    def _note_success(self) -> None:
        if self._failing_since is not None:
            log.warning("%s takes messages again", self.destination)
        self._failing_since = None
        conditions = [self._condition("away", "clear", "it takes messages again")]
        if not self._store.write(delivery.dead, self.destination).result():
            conditions.append(self._condition("dead", "clear", "no message waits for a person"))
        self._tell(conditions)

    def _condition(self, what: str, change: str, reason: str) -> Condition:
        return Condition(
            key=f"outbox|{self.destination}|{what}",
            kind="outbox",
            change=change,
            at_us=self._now_us(),
            severity="CRITICAL" if what == "dead" else "WARNING",
            reason=reason,
            detail={"destination": self.destination},
        )

    def _tell(self, conditions: Sequence[Condition]) -> None:
        """Raise and clear alerts. What stands as it should is not told again; what a courier before left is not known, and told once."""
        news = [one for one in conditions if self._alerted.get(one.key) != (one.change == "raise")]
        if news:
            self._store.commit(PreparedCommit(now_us=self._now_us(), conditions=news)).result()
            self._alerted |= {one.key: one.change == "raise" for one in news}

    def _tidy(self) -> None:
        if time.monotonic() - self._pruned_at >= PRUNE_EVERY_S:
            gone = self._store.write(delivery.prune, self.destination, self._now_us() - KEPT_US).result()
            if gone < delivery.PRUNED_AT_ONCE:
                self._pruned_at = time.monotonic()
