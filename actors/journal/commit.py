"""Applying prepared commits: everything of one commit or nothing of it, many commits in one transaction.

Each commit stands under a savepoint and its shard's fence. What refuses one commit (a stale epoch or etag, a row that is there
already) rolls back that commit alone and is its result; what breaks the connection breaks the whole transaction and is the
caller's to handle (writer.py). Event numbers are given last of all, so the counter's row is locked only until COMMIT and
a reader of `number > cursor` sees every number in order, whoever commits beside.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from sqlalchemy import BigInteger, Connection, bindparam, delete, insert, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError

from actors.journal import outbox, rows, snapshot
from actors.journal.alerts import Outcome
from actors.journal.apply_alerts import alerts_of, apply_actions, apply_conditions, apply_excursions, lock_conditions
from actors.journal.apply_holds import act, lock_carriers, on_excursions
from actors.journal.apply_stock import apply_stock
from actors.journal.columns import dumps
from actors.journal.once import Once
from actors.journal.prepared import AlertAction as AlertAction
from actors.journal.prepared import CommitResult as CommitResult
from actors.journal.prepared import Condition as Condition
from actors.journal.prepared import EventDraft as EventDraft
from actors.journal.prepared import JournalEntry as JournalEntry
from actors.journal.prepared import PreparedCommit as PreparedCommit
from actors.journal.prepared import SnapshotPart as SnapshotPart
from actors.journal.tables import (
    NO_SHARD,
    CommitKey,
    Event,
    EventCounter,
    JournalBatch,
    Mailbox,
    ShardOwner,
    Snapshot,
)
from actors.rules.errors import DomainError, InvalidArgument, Superseded, Unavailable

Answer: TypeAlias = CommitResult | DomainError


TOLD_MOST = 64
"""Where a commit of readings has so many events at most, its result has them, too: watchers need not read them."""
KEYS_KEPT_US = 86_400_000_000
"""A commit key is forgotten after a day; a store sends again for seconds only."""

OWNER, BATCH, KEY = rows.table_of(ShardOwner), rows.table_of(JournalBatch), rows.table_of(CommitKey)
EVENT, COUNTER, SNAPSHOT = rows.table_of(Event), rows.table_of(EventCounter), rows.table_of(Snapshot)
MAILBOX = rows.table_of(Mailbox)

_MINE = (OWNER.c.shard == bindparam("its_shard")) & (OWNER.c.epoch == bindparam("its_epoch"))
_MOVE_HEAD = Once(
    lambda _: (
        update(OWNER)
        .where(_MINE & (OWNER.c.journal_head == bindparam("before")))
        .values(journal_head=bindparam("sequence", type_=BigInteger))
    )
)
_HOLD_FENCE = Once(lambda _: select(OWNER.c.shard).where(_MINE).with_for_update(read=True))
_HEAD = select(OWNER.c.journal_head).where(_MINE)
_INSERT_BATCH = Once(lambda _: insert(BATCH), BATCH.columns.keys())
_NUMBER = Once(lambda _: select(COUNTER.c.number))
_COUNT_ON = Once(
    lambda _: update(COUNTER).values(number=COUNTER.c.number + bindparam("more", type_=BigInteger)).returning(COUNTER.c.number)
)


class _AlreadyDone(Exception):
    """The commit was applied before: nothing to do."""


def apply(connection: Connection, commits: Sequence[PreparedCommit]) -> list[Answer]:
    """Apply commits in the given order inside the connection's transaction; the caller commits, and only then answers.

    Each answer is a CommitResult or the DomainError that refused that commit alone. Raises sqlalchemy's DBAPIError when
    the connection or the disk failed: then nothing of the transaction may be trusted.
    """
    lock_conditions(connection, commits)
    lock_carriers(connection, commits)
    answers: list[Answer] = []
    messages: list[outbox.Message] = []
    numbered: list[tuple[CommitResult, int, bool]] = []
    events: list[dict[str, Any]] = []
    for commit in commits:
        try:
            with rows.savepoint(connection):
                result, drafts, told = _apply_one(connection, commit)
        except _AlreadyDone:
            result, drafts, told = CommitResult(already_done=True, alerts=alerts_of(connection, commit.actions)), [], []
        except DomainError as refused:
            answers.append(refused)
            continue
        except (IntegrityError, DataError) as refused:
            answers.append(rows.as_domain_error(refused))
            continue
        except DBAPIError:
            raise
        except (StatementError, ValueError, TypeError, OverflowError) as refused:
            answers.append(rows.as_domain_error(refused))
            continue
        answers.append(result)
        events += drafts
        messages += told
        numbered.append((result, len(drafts), commit.journal is not None and commit.journal.kind == "readings"))
    if messages:  # after all else, so that destinations are locked for a short time and in one order
        events += _post(connection, messages, max(commit.now_us for commit in commits))
    if numbered:
        _number(connection, events, numbered)
    return answers


def _apply_one(connection: Connection, commit: PreparedCommit) -> tuple[CommitResult, list[dict[str, Any]], list[outbox.Message]]:
    _fence(connection, commit)
    if commit.commit_key is not None and commit.stock is None:  # movements have keys of their own, and give their answers again
        _claim_key(connection, commit.commit_key, commit.now_us)
    for model, key, etag in commit.expect:
        rows.expect(connection, rows.table_of(model), key, etag)
    for model, key in commit.deletes:
        rows.remove(connection, rows.table_of(model), key)
    for table, new in rows.grouped(commit.inserts):
        for row in new:
            rows.insert_new(connection, table, row)
    for table, changed in rows.grouped(commit.upserts):
        rows.upsert(connection, table, changed)
    for model, many in commit.bulk_upserts:
        rows.upsert(connection, rows.table_of(model), many)
    drafts = [*commit.events]
    changes: list[Outcome] = []
    acted_on: list[Outcome] = []
    messages: list[outbox.Message] = []
    recorded: list[dict[str, Any]] = []
    if commit.excursions:
        told, outcomes = apply_excursions(connection, commit.excursions, commit.now_us)
        drafts += told
        changes += outcomes
        held = on_excursions(connection, [draft.body for draft in told], commit.now_us)
        drafts += held.events
        messages += held.messages
    if commit.conditions:
        changes += apply_conditions(connection, commit.conditions, commit.now_us)
    if commit.actions:
        acted_on = apply_actions(connection, commit.actions)
        changes += acted_on
    if commit.hold_acts:
        acted = act(connection, commit.hold_acts)
        drafts += acted.events
        messages += acted.messages
    if commit.stock is not None:
        recorded, told, more = apply_stock(connection, commit.stock, commit.now_us)
        drafts += told
        messages += more
    for outcome in changes:
        alert, history = outcome.alert, outcome.history
        drafts.append(EventDraft("alert." + history.change, history.at_us, outcome.body(), alert.carrier, alert.tag_id))
    _mail(connection, commit)
    if commit.journal is not None:
        _journal(connection, commit, commit.journal)
    if commit.snapshot:
        _snapshot(connection, commit)
    newest = {outcome.alert.alert_id: outcome.alert for outcome in acted_on}
    return CommitResult(alerts=list(newest.values()), stock=recorded), [_event(draft, commit) for draft in drafts], messages


def _post(connection: Connection, messages: list[outbox.Message], now_us: int) -> list[dict[str, Any]]:
    """Write messages to the outbox; the events of alerts about destinations that do not take theirs."""
    posted = outbox.post(connection, messages, now_us)
    outcomes = apply_conditions(connection, posted.conditions, now_us) if posted.conditions else []
    nobody = PreparedCommit(now_us=now_us)
    return [_event(EventDraft("alert." + one.history.change, one.history.at_us, one.body()), nobody) for one in outcomes]


# ---------------------------------------------------------------- fence, keys


def _fence(connection: Connection, commit: PreparedCommit) -> None:
    """Hold the shard's owner row and move its head.

    Raises Superseded, _AlreadyDone for a resend, Unavailable after a gap: the owner must go back to what the journal says.
    """
    if commit.shard == NO_SHARD:
        if commit.journal is not None or commit.snapshot:
            raise InvalidArgument("a journal entry and a snapshot need a shard", field="shard", value=commit.shard)
        return
    mine = {"its_shard": commit.shard, "its_epoch": commit.epoch}
    if commit.journal is None:
        # Shared: two doors may act on one shard at once, no new owner can come between.
        if _HOLD_FENCE.run(connection, mine).fetchone() is None:
            raise _superseded(connection, commit)
        return
    sequence = commit.journal.sequence
    moved = _MOVE_HEAD.run(connection, {**mine, "before": sequence - 1, "sequence": sequence})
    if moved.rowcount == 1:
        return
    head = connection.execute(_HEAD, mine).scalar()
    if head is None:
        raise _superseded(connection, commit)
    if sequence > head:
        gap = f"the journal of shard {commit.shard} ends at {head}: an entry before this one was refused"
        raise Unavailable(gap, field="sequence", value=sequence)
    there = connection.execute(
        select(BATCH.c.checksum, BATCH.c.epoch).where((BATCH.c.shard == commit.shard) & (BATCH.c.sequence == sequence))
    ).first()
    if there is not None and tuple(there) != (commit.journal.checksum, commit.epoch):
        raise Superseded(f"journal entry {sequence} of shard {commit.shard} is another one", field="sequence", value=sequence)
    raise _AlreadyDone


def _superseded(connection: Connection, commit: PreparedCommit) -> Superseded:
    epoch = connection.execute(select(OWNER.c.epoch).where(OWNER.c.shard == commit.shard)).scalar()
    return Superseded(f"shard {commit.shard} is at epoch {epoch}", field="epoch", value=commit.epoch)


def _claim_key(connection: Connection, key: str, now_us: int) -> None:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(KEY).on_conflict_do_nothing().returning(KEY.c.commit_key)
    if connection.execute(statement, {"commit_key": key, "recorded_us": now_us}).first() is None:
        raise _AlreadyDone


# ---------------------------------------------------------------- journal, mail, snapshot


def _journal(connection: Connection, commit: PreparedCommit, entry: JournalEntry) -> None:
    _INSERT_BATCH.run(
        connection,
        {
            "shard": commit.shard, "sequence": entry.sequence, "kind": entry.kind, "worker": entry.worker, "epoch": commit.epoch,
            "received_us": entry.received_us, "min_sensed_us": entry.min_sensed_us, "max_sensed_us": entry.max_sensed_us,
            "readings": entry.readings, "checksum": entry.checksum, "blob": entry.blob,
        },
    )  # fmt: skip


def _mail(connection: Connection, commit: PreparedCommit) -> None:
    for done in rows.chunks(commit.mailbox_done):
        taken = connection.execute(delete(MAILBOX).where(MAILBOX.c.id.in_(done) & (MAILBOX.c.shard == commit.shard)))
        if taken.rowcount != len(done):
            raise Superseded("a message of the mailbox was applied already", field="mailbox", value=list(done))
    if commit.mailbox:
        connection.execute(insert(MAILBOX), [rows.values(message) for message in commit.mailbox])
    if commit.outbox:
        outbox.append(connection, commit.outbox, commit.now_us)


def _snapshot(connection: Connection, commit: PreparedCommit) -> None:
    """Write parts; when a snapshot is whole, move the shard's watermark, drop all but the newest two, and forget old commit keys.

    Raises Unavailable where the snapshot stands after an entry that the journal does not have: that one was refused.
    """
    shard = commit.shard
    head = connection.execute(select(OWNER.c.journal_head).where(OWNER.c.shard == shard)).scalar_one()
    if commit.snapshot[-1].sequence > head:
        ahead = f"the journal of shard {shard} ends at {head}: what this snapshot holds was refused"
        raise Unavailable(ahead, field="sequence", value=commit.snapshot[-1].sequence)
    made = [
        {"shard": shard, "sequence": part.sequence, "part": part.part, "parts": part.parts, "made_us": part.made_us,
         "checksum": part.checksum, "blob": part.blob}
        for part in commit.snapshot
    ]  # fmt: skip
    for part in commit.snapshot:
        if zlib.crc32(part.blob) != part.checksum:
            raise InvalidArgument("the snapshot's part was damaged on its way", field="checksum", value=part.checksum)
    rows.upsert(connection, SNAPSHOT, made)
    complete = snapshot.whole(connection, shard)
    if commit.snapshot[-1].sequence not in complete:
        return
    connection.execute(update(OWNER).where(OWNER.c.shard == shard).values(snapshot_sequence=complete[0]))
    connection.execute(delete(KEY).where(KEY.c.recorded_us < commit.now_us - KEYS_KEPT_US))
    oldest = complete[-1]
    connection.execute(delete(SNAPSHOT).where((SNAPSHOT.c.shard == shard) & (SNAPSHOT.c.sequence < oldest)))


# ---------------------------------------------------------------- events


def _event(draft: EventDraft, commit: PreparedCommit) -> dict[str, Any]:
    """An event's row but for its number. The body becomes text here, so that what is no JSON refuses its own commit only."""
    return {
        "kind": draft.kind, "at_us": draft.at_us, "recorded_us": commit.now_us, "shard": commit.shard, "carrier": draft.carrier,
        "tag_id": draft.tag_id, "body": draft.text or dumps(draft.body),
    }  # fmt: skip


def _number(connection: Connection, events: list[dict[str, Any]], numbered: Iterable[tuple[CommitResult, int, bool]]) -> None:
    """Give the events their numbers: the last statements before COMMIT."""
    if not events:
        last = _NUMBER.run(connection, {}).fetchone()[0]
        for result, *_ in numbered:
            result.last_event = last
        return
    last = _COUNT_ON.run(connection, {"more": len(events)}).fetchone()[0]
    number = last - len(events)
    for position, event in enumerate(events):
        event["number"] = number + 1 + position
    told = 0
    for result, count, of_readings in numbered:
        if count:
            result.first_event = number + told + 1
            result.events = events[told : told + count] if of_readings and count <= TOLD_MOST else []
            told += count
        result.last_event = number + told
    _INSERT_EVENTS.many(connection, events)


def _insert_event(dialect: str) -> Any:
    body = "CAST(:body AS JSON)" if dialect == "postgresql" else ":body"
    names = "number, kind, at_us, recorded_us, shard, carrier, tag_id"
    return text(f"INSERT INTO event ({names}, body) VALUES (:{names.replace(', ', ', :')}, {body})")


_INSERT_EVENTS = Once(_insert_event)


__all__ = [
    "AlertAction", "Answer", "CommitResult", "Condition", "EventDraft", "JournalEntry", "PreparedCommit", "SnapshotPart", "apply",
]  # fmt: skip
