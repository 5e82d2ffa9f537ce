"""The shard: the one Ray actor class. It holds thousands of virtual actors, gives them their calls, and commits what they decide.

A call that changes something is answered only after its commit is durable. Batches are judged while the batches before them are being
committed; when a commit fails, the state that ran ahead of it is thrown away and rebuilt from the database. An owner that has been
superseded (its epoch is no longer the shard's) ends its process at once.

Its clock thread asks for the time; everything below is given it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import ray

from actors import recovery, warm_up
from actors.catalog import CatalogPopulation
from actors.decision import Decision
from actors.directory import now_us, shard_name
from actors.inventory import InventoryPopulation
from actors.journal import allocator, compaction, cycles, fence, quarantine, snapshot
from actors.journal.database import reachable
from actors.journal.prepared import AlertAction, CommitResult, JournalEntry, PreparedCommit
from actors.journal.queries_tags import TagReads
from actors.journal.store import open_store
from actors.journal.tables import Custody, Tag
from actors.line import AVAILABLE, Line
from actors.part import IngestReply, replies, unpack
from actors.rules.errors import DomainError, InvalidArgument, StorageFull, Superseded, Unavailable
from actors.rules.readings import U1
from actors.sensor_tag import Moved, SensorTags
from actors.shipment import ShipmentPopulation
from actors.snapshots import Snapshots
from actors.tags import queries as tag_queries
from actors.tags import rows as tag_rows
from actors.tags.commands import COMMANDS as TAG_COMMANDS
from actors.warehouse import WarehousePopulation

log = logging.getLogger("waybill.shard")

COMMIT_TIMEOUT_S = 60.0
TAKE_OVER_AGAIN_S = 0.5
"""Pause of a starting shard that finds no database."""
PENDING_MOST = 256
"""Commits of one shard that wait: doors give up waiting and ask again, the database may take longer."""
SORT_S = 2.0
"""Pause of the sorting of history when there is nothing to sort."""
BUSY_SHARE, BURST_S = 4, 300.0
"""Sorting gives way where live readings take more than a fourth of the time, for so many seconds: then it must go on, or never ends."""

SWITCH_S = 0.0005
"""A call that waits for its commit must not wait five milliseconds more, Python's default, while another thread computes."""
WRITING_MOST = 4_096
"""Past so many tags whose rows were written, those that are durable are forgotten."""

ALERT_ACTIONS = ("acknowledge", "assign", "comment", "resolve")


@dataclass(frozen=True, slots=True)
class ShardConfig:
    """What a shard is told. `namespace`: the Ray namespace of the system's shards, where they find each other."""

    database_url: str
    shards: int
    namespace: str | None = None
    ring_bytes: int = 64 << 20
    snapshot_readings: int = 1_000_000
    snapshot_entries: int = 8_192  # a snapshot is taken after so many readings, or so many entries
    compaction: compaction.Settings = compaction.Settings()  # noqa: RUF009
    tick_s: float = 5.0
    heartbeat_s: float = 1.0
    auto_register: bool = True
    silence_floor_s: float = 60.0


@ray.remote(max_concurrency=32, concurrency_groups={"ask": 8, "command": 16, "look": 2})  # type: ignore[call-overload]
class Shard:
    """See the module. All public methods can be called from any Ray driver; see `actors.directory` for handles."""

    def __init__(self, number: int, config: ShardConfig) -> None:
        allocator.give_back_regularly()
        sys.setswitchinterval(SWITCH_S)
        self.number = number
        self.config = config
        self._state = threading.RLock()  # one call at a time sees and moves the tags
        self._business = threading.RLock()  # one decision at a time
        self._pending: list[Future[CommitResult]] = []
        self._writing: dict[str, Future[CommitResult]] = {}  # by tag the newest commit that writes its row or custodies
        self._failed: BaseException | None = None
        self._stopping = threading.Event()
        self._mail = threading.Event()
        self._snapshots = Snapshots(number, config.snapshot_readings, config.snapshot_entries, self._state, self._commit_rows)
        self._judged_s = 0.0  # so long the state was held for live readings
        self.last_event = 0
        context = ray.get_runtime_context()
        self.worker = f"{context.get_node_id()[:12]}:{os.getpid()}:{context.get_actor_id()}"
        self.store = open_store(config.database_url)
        claimant = fence.Claimant(os.getpid(), context.get_node_id(), self.worker, fence.process_started())
        self.reads = TagReads(self.store.engine, number, self._settled, self._quarantine)
        self._take_over(claimant)
        engine = self.store.engine
        self.shipments = ShipmentPopulation(number, config.shards, engine)
        self.warehouses = WarehousePopulation(number, config.shards, engine)
        self.catalog = CatalogPopulation(number, config.shards, engine)
        self.inventory = InventoryPopulation(engine)
        self._commands = {
            **self.shipments.commands, **self.warehouses.commands, **self.catalog.commands, **self.inventory.commands,
        }  # fmt: skip
        cycles.look_seldom()
        self._node = context.get_node_id()
        self._line = Line(self._ingest_from_line) if AVAILABLE else None
        loaded_before_it_is_needed = warm_up.judge, "warm-up"  # the first readings would else wait for it, for a tenth of a second
        for target, name in (loaded_before_it_is_needed, (self._beat, "heartbeat"), (self._clock, "clock"), (self._sort, "compaction")):
            threading.Thread(target=target, name=name, daemon=True).start()

    # ---------------------------------------------------------------- calls

    @reachable()
    def ingest(self, packed: bytes, received_us: int) -> list[IngestReply]:
        """Take the readings of packed parts; returns when they are durable and judged. Raises Unavailable or StorageFull: send again."""
        statuses, future = self._judge(packed, received_us)
        self._wait(future)
        self._snapshot_if_due()
        return replies(statuses, self.last_event, future)

    @reachable()
    def _judge(self, packed: bytes, received_us: int) -> tuple[list[U1], Future[CommitResult] | None]:
        """Judge packed parts and give the journal what came of it: a status per reading and part, and when it is durable."""
        parts = unpack(packed)
        with self._state:
            started = time.monotonic()
            self._ready()
            if len(self._pending) >= PENDING_MOST and sum(not one.done() for one in self._pending) >= PENDING_MOST:
                raise Unavailable("too many commits wait for the database", retry_after_s=1.0)
            statuses, moved = self._guarded(lambda: self.tags.ingest(parts, received_us))
            future = self._commit_moved(moved, received_us)
            self._judged_s += time.monotonic() - started
        return statuses, future

    def _ingest_from_line(self, packed: bytes, received_us: int, answer: Callable[[Any], None]) -> None:
        """As `ingest`, but nobody waits: whoever learns that it is durable answers."""
        try:
            statuses, future = self._judge(packed, received_us)
        except Exception as error:
            answer(error)
            return

        def durable(done: Future[CommitResult] | None) -> None:
            try:
                self._wait(done)
            except Exception as error:
                answer(error)
            else:
                answer(replies(statuses, self.last_event, done))

        future.add_done_callback(durable) if future is not None else durable(None)
        try:
            self._snapshot_if_due()
        except Exception:
            log.exception("shard %d: no snapshot this time", self.number)

    @ray.method(concurrency_group="command")  # type: ignore[untyped-decorator, unused-ignore]
    @reachable()
    def command(self, name: str, arguments: dict[str, Any], at_us: int) -> Any:
        """Carry out a command by name, durably; its answer. Raises DomainError."""
        if name in TAG_COMMANDS:
            with self._state:
                self._ready()
                moved = self._guarded(lambda: TAG_COMMANDS[name](self.tags, arguments, at_us))
                future = self._commit_moved(moved, at_us)
            self._wait(future)
            return moved.answer
        kind, _, action = name.partition(".")
        if kind == "alert" and action in ALERT_ACTIONS:
            return self._act_on_alert(action, arguments, at_us)
        if name in self.inventory.writes:
            function, given = self.inventory.writes[name](arguments, at_us)
            return self.store.write(function, *given).result(COMMIT_TIMEOUT_S)
        if name == "stock.move":  # decided inside the commit: no lock here, what waits goes in one transaction
            work = self.inventory.move(arguments)
            return self._commit_rows(PreparedCommit(shard=self.number, epoch=self.epoch, now_us=at_us, stock=work))
        handler = self._commands.get(name)
        if handler is None:
            raise InvalidArgument("there is no such command", field="command", value=name)
        with self._business:
            decision = handler(arguments, at_us)
            if decision.changes:
                self._commit_decision(decision, at_us)
        return decision.answer

    @ray.method(concurrency_group="ask")  # type: ignore[untyped-decorator, unused-ignore]
    @reachable()
    def query(self, name: str, arguments: dict[str, Any]) -> Any:
        """Answer a question about this shard's inhabitants. Raises DomainError."""
        if name in tag_queries.FREE:
            return tag_queries.FREE[name](self.tags, arguments)
        if name not in tag_queries.LOCKED:
            raise InvalidArgument("there is no such query", field="query", value=name)
        with self._state:
            self._ready()
            return tag_queries.LOCKED[name](self.tags, arguments)

    @ray.method(concurrency_group="look")  # type: ignore[untyped-decorator, unused-ignore]
    def info(self) -> dict[str, Any]:
        """Facts about this shard: its process, epoch, sizes."""
        return {
            "shard": self.number,
            "shards": self.config.shards,
            "epoch": self.epoch,
            "pid": os.getpid(),
            "worker": self.worker,
            "node": self._node,
            "line": None if self._line is None else self._line.address,
            "tags": len(self.tags.ids),
            "open_custodies": len(self.tags.head.custodies),
            "sequence": self.sequence,
            "last_event": self.last_event,
            "ring_rows": min(int(self.tags.ring.head[0]), self.tags.ring.capacity),
            "since_snapshot": self._snapshots.readings,
        }

    @ray.method(concurrency_group="look")  # type: ignore[untyped-decorator, unused-ignore]
    def poke(self) -> None:
        """There may be mail."""
        self._mail.set()

    @reachable()
    def tick(self, at_us: int) -> None:
        """What the clock decides, as the shard's own clock does at every tick."""
        more = True
        while more:
            with self._state:
                self._ready()
                moved = self._guarded(lambda: self.tags.tick(at_us))
                future = self._commit_moved(moved, at_us)
            self._wait(future)
            more = bool(moved.answer)
        with self._business:
            decision = self.shipments.tick(at_us)
            if decision is not None and decision.changes:
                self._commit_decision(decision, at_us)

    # ---------------------------------------------------------------- commits

    def _commit_moved(self, moved: Moved, at_us: int, mailbox_done: list[int] | None = None) -> Future[CommitResult] | None:
        """Give what the tags did to the journal; the state lock is held, so entries go in the order of judging."""
        if moved.blob is None and not mailbox_done:
            return None
        commit = PreparedCommit(shard=self.number, epoch=self.epoch, now_us=at_us, mailbox_done=mailbox_done or [])
        if moved.blob is not None:
            commit.journal = JournalEntry(
                sequence=self.sequence + 1, kind=moved.kind, blob=moved.blob, received_us=at_us, min_sensed_us=moved.min_sensed_us,
                max_sensed_us=moved.max_sensed_us, readings=moved.rows, worker=self.worker,
            )  # fmt: skip
            self._guarded(lambda: tag_rows.fill(commit, self.tags, moved.changes, at_us))
            self.sequence += 1
            self._snapshots.readings += moved.rows
        future = self.store.commit(commit)
        future.add_done_callback(self._done)
        self._pending = [one for one in self._pending if not one.done()]
        self._pending.append(future)
        if len(self._writing) > WRITING_MOST:
            self._writing = {tag_id: one for tag_id, one in self._writing.items() if not one.done()}
        self._writing.update((row.tag_id, future) for row in (*commit.inserts, *commit.upserts) if isinstance(row, Tag | Custody))
        self._writing.update((row["tag_id"], future) for model, many in commit.bulk_upserts if model is Tag for row in many)
        return future

    def _done(self, future: Future[CommitResult]) -> None:
        error = future.exception()
        if error is None:
            self.last_event = max(self.last_event, future.result().last_event)
        elif isinstance(error, Superseded) and self._failed is None:
            self._step_down(error)
        elif self._failed is None:
            self._failed = error

    def _step_down(self, error: BaseException) -> None:
        log.error("shard %d steps down: %s", self.number, error)
        os._exit(3)

    def _wait(self, future: Future[CommitResult] | None) -> None:
        if future is None:
            return
        try:
            future.result(COMMIT_TIMEOUT_S)
        except (Unavailable, Superseded) as error:
            raise Unavailable(f"the commit did not go through: {error}", retry_after_s=0.2) from error

    def _settled(self, tag_id: str | None = None) -> None:
        """Every commit given so far is durable, or of one tag those that write its own row and custodies. Raises Unavailable where one
        failed. So commands of many tags are committed together.
        """
        for future in [self._writing.get(tag_id)] if tag_id is not None else list(self._pending):
            self._wait(future)

    def _commit_decision(self, decision: Decision, at_us: int, mailbox_done: list[int] | None = None) -> CommitResult:
        commit = decision.commit(self.number, self.epoch, at_us, None)
        commit.mailbox_done = mailbox_done or []
        result = self._commit_rows(commit)
        if decision.mailbox:
            self._mail.set()
            self._poke_others()
        return result

    def _commit_rows(self, commit: PreparedCommit) -> CommitResult:
        """Commit rows that are not journaled; a refusal is the caller's."""
        try:
            result = self.store.commit(commit).result(COMMIT_TIMEOUT_S)
        except Superseded as error:
            self._step_down(error)
            raise
        self.last_event = max(self.last_event, result.last_event)
        return result

    def _act_on_alert(self, action: str, arguments: dict[str, Any], at_us: int) -> Any:
        act = AlertAction(
            alert_id=str(arguments.get("alert_id", "")), action=action, by=str(arguments.get("by", "")), at_us=at_us,
            text=str(arguments.get("text", "")), etag=arguments.get("etag"),
        )  # fmt: skip
        result = self._commit_rows(PreparedCommit(shard=self.number, epoch=self.epoch, now_us=at_us, actions=[act]))
        return result.alerts[0] if result.alerts else None

    def _poke_others(self) -> None:
        for other in range(self.config.shards):
            if other != self.number:
                try:
                    ray.get_actor(shard_name(other), namespace=self.config.namespace).poke.remote()
                except (ValueError, ray.exceptions.RayError):
                    continue  # it looks into its mailbox at its next tick anyhow

    # ---------------------------------------------------------------- recovery

    def _take_over(self, claimant: fence.Claimant) -> None:
        """Become the owner and fold the journal. Waits for a database that is away: an actor that fails to start stays dead."""
        while True:
            try:
                owner = self.store.write(fence.acquire, self.number, claimant, now_us()).result(COMMIT_TIMEOUT_S)
                self.epoch = owner.epoch
                with reachable():
                    self._recover(owner.journal_head)
                return
            except (Unavailable, TimeoutError) as error:
                log.warning("shard %d cannot start yet: %r", self.number, error)
                time.sleep(TAKE_OVER_AGAIN_S)

    def _ready(self) -> None:
        """The state is the journal's, or is made so. The state lock is held."""
        if self._failed is None:
            return
        for future in list(self._pending):
            try:
                future.result(COMMIT_TIMEOUT_S)
            except DomainError:
                continue
        self._pending, self._writing = [], {}  # a commit that failed stands in nobody's way once the state is rebuilt without it
        error = self._failed
        owner = fence.owner(self.store.engine, self.number)
        if owner is None or owner.epoch != self.epoch:
            self._step_down(error)
            raise error
        self._recover(owner.journal_head)
        self._failed = None

    def _guarded(self, work: Any) -> Any:
        """Run what moves the state; an error other than a refusal before anything was moved leaves it untrusted."""
        try:
            return work()
        except DomainError as error:
            if self.tags.moving:
                self._failed = error
            raise
        except Exception as error:
            log.exception("shard %d: judging failed; its state is rebuilt from the journal", self.number)
            self._failed = error
            raise

    def _recover(self, head: int) -> None:
        """Fold the newest snapshot and the journal after it, up to entry `head`."""
        started = time.monotonic()
        found = snapshot.load(self.store.engine, self.number, head)
        self.sequence = 0
        self.tags = self._no_tags()
        if found is not None:
            try:
                self.tags.restore(found[1])
                self.sequence = found[0]
            except ValueError as error:
                log.warning("shard %d: %s; folding the whole journal", self.number, error)
                self.tags = self._no_tags()
        self.sequence, count, left_out = recovery.fold(self.tags, self.reads, self.sequence)
        if self.sequence != head:
            raise Unavailable(f"the journal of shard {self.number} ends at {self.sequence}, its head is {head}")
        self._snapshots.at, state = found if found is not None else (0, b"")
        # With a snapshot soon, no later recovery meets what was left out.
        self._snapshots.readings, self._snapshots.size = (count, len(state)) if not left_out else (self.config.snapshot_readings, 0)
        log.info("shard %d: %d readings replayed in %.2f s", self.number, count, time.monotonic() - started)

    def _no_tags(self) -> SensorTags:
        given = self.config
        return SensorTags(self.number, given.ring_bytes, self.reads, given.auto_register, round(given.silence_floor_s * 1e6))

    def _snapshot_if_due(self) -> None:
        with self._state:
            if self._failed is None and self._snapshots.due(self.sequence):
                self._snapshots.take(self.epoch, self.sequence, self.tags.dump(), list(self._pending))

    def _quarantine(self, damage: quarantine.DamagedJournal) -> None:
        """Record what is damaged; only then it may be left out."""
        try:
            quarantine.record(self.store, self.epoch, damage, now_us())
        except Superseded as error:
            self._step_down(error)

    def _sort(self) -> None:
        """Keep the history sorted by tag: at most a quarter of one core's time, and a sixteenth while live readings come in a burst."""
        sorting = compaction.Compactor(self.store, self.number, self.epoch, now_us, self.config.compaction)
        pause_s = SORT_S
        looked, judged_s, busy_s = time.monotonic(), self._judged_s, 0.0
        while not self._stopping.wait(pause_s):
            started = time.monotonic()
            try:
                worked = sorting.step()
            except Superseded as error:
                self._step_down(error)
            except Exception as error:
                log.warning("shard %d: history is not sorted this time: %r", self.number, error)
                worked = False
            now = time.monotonic()
            busy = self._judged_s - judged_s > (now - looked) / BUSY_SHARE
            busy_s = busy_s + now - looked if busy else 0.0
            looked, judged_s = now, self._judged_s
            pause_s = (15 if busy and busy_s < BURST_S else 3) * (now - started) if worked else SORT_S

    # ---------------------------------------------------------------- clock, mail, heartbeat

    def _beat(self) -> None:
        while not self._stopping.wait(self.config.heartbeat_s):
            try:
                self.store.write(fence.heartbeat, self.number, self.epoch, now_us()).result(COMMIT_TIMEOUT_S)
            except Superseded as error:
                self._step_down(error)
            except Exception as error:
                log.warning("shard %d: no heartbeat: %s", self.number, error)

    def _clock(self) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            self._mail.wait(max(due - time.monotonic(), 0.0))
            mail = self._mail.is_set()
            self._mail.clear()
            try:
                if time.monotonic() >= due:
                    due = time.monotonic() + self.config.tick_s
                    self.tick(now_us())
                    mail = True
                if mail:
                    while self._deliver():
                        pass
            except Exception:
                log.exception("shard %d: the clock stumbled; it goes on", self.number)
                self._stopping.wait(0.2)

    def _deliver(self) -> bool:
        """Apply what waits in the mailbox, each message once. True where there may be more to do now."""
        mail = self.reads.mail()
        moved_on = False
        for letter in mail:
            assert letter.id is not None
            name, at_us = str(letter.body.get("command", "")), now_us()
            try:
                if name in TAG_COMMANDS:
                    with self._state:
                        self._ready()
                        moved = self._guarded(lambda name=name, body=letter.body, at_us=at_us: TAG_COMMANDS[name](self.tags, body, at_us))
                        again = name == "carrier.closed" and bool(moved.answer)
                        future = self._commit_moved(moved, at_us, [] if again else [letter.id])
                    self._wait(future)
                    moved_on |= moved.body is not None or not again
                else:
                    with self._business:
                        handler = self._commands[name]
                        self._commit_decision(handler(letter.body, at_us), at_us, [letter.id])
                    moved_on = True
            except (StorageFull, Unavailable):
                raise
            except (DomainError, KeyError) as error:
                log.error("shard %d: message %s was refused and is dropped: %s", self.number, json.dumps(letter.body), error)
                self._commit_rows(PreparedCommit(shard=self.number, epoch=self.epoch, now_us=at_us, mailbox_done=[letter.id]))
                moved_on = True
        return moved_on
