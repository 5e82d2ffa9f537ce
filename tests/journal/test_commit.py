"""One commit is all or nothing, stands under its shard's fence, and is applied once."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlmodel import Session

from actors.journal.commit import TOLD_MOST, Condition, EventDraft, PreparedCommit
from actors.journal.queries_doors import event_of, newest_events
from actors.journal.store import Store
from actors.journal.tables import (
    NO_SHARD,
    Alert,
    CommitKey,
    Event,
    HandlingUnit,
    HandlingUnitLot,
    Item,
    JournalBatch,
    Lot,
    Mailbox,
    Outbox,
    Setting,
    ShardOwner,
    Shipment,
    Stop,
    Tag,
)
from actors.rules.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    StaleEtag,
    Superseded,
    Unavailable,
)
from tests.journal.conftest import NOW_US, entry, take

Write = Callable[..., Any]


def count(store: Store, model: type) -> int:
    with Session(store.engine) as session:
        return session.execute(select(func.count()).select_from(model)).scalar_one()


def events(store: Store) -> list[Event]:
    with Session(store.engine) as session:
        return list(session.execute(select(Event).order_by(Event.number)).scalars())  # type: ignore[arg-type]


def head(store: Store, shard: int = 0) -> int:
    with Session(store.engine) as session:
        found = session.get(ShardOwner, shard)
        assert found is not None
        return found.journal_head


def told(kind: str = "tag.registered", **body: object) -> EventDraft:
    return EventDraft(kind, NOW_US, {"what": kind, **body}, carrier="shipment/S1", tag_id="T1")


def shipment(name: str = "S1", **more: object) -> Shipment:
    return Shipment(shipment_id=name, shard=0, **more)


# ---------------------------------------------------------------- all or nothing


def test_everything_of_a_commit_is_there_afterwards(store: Store, owner: ShardOwner) -> None:
    commit = PreparedCommit(
        shard=0, epoch=owner.epoch, now_us=NOW_US, journal=entry(1, b"\x00blob", min_sensed_us=1, max_sensed_us=2, readings=3),
        inserts=[Tag(tag_id="T1", shard=0, local_index=0)], upserts=[shipment(reference="R")], events=[told()],
        bulk_upserts=[(Setting, [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}])],
        mailbox=[Mailbox(shard=1, key="shipment/S1", body={"plan": 1})], outbox=[Outbox(destination="erp", key="k1", body={"a": 1})],
        conditions=[Condition("silence|T1", "silence", "raise", NOW_US, tag_id="T1")],
    )  # fmt: skip
    result = store.commit(pickle.loads(pickle.dumps(commit))).result(20)
    assert (result.first_event, result.last_event, result.already_done) == (1, 2, False)
    assert [(event.number, event.kind) for event in events(store)] == [(1, "tag.registered"), (2, "alert.raised")]
    assert result.alerts == []  # only those that a person's action changed are told back
    with Session(store.engine) as session:
        assert [alert.key for alert in session.scalars(select(Alert))] == ["silence|T1"]
    with Session(store.engine) as session:
        batch = session.get(JournalBatch, (0, 1))
        assert batch is not None
        assert (batch.blob, batch.worker, batch.epoch, batch.readings) == (b"\x00blob", "a test", owner.epoch, 3)
        assert session.get(Tag, "T1") == Tag(tag_id="T1", shard=0, local_index=0)
        assert session.execute(select(Mailbox.shard, Mailbox.body)).all() == [(1, {"plan": 1})]  # type: ignore[call-overload]
    assert [count(store, model) for model in (Shipment, Setting, Outbox)] == [1, 3, 1]  # one setting is the feed's
    assert head(store) == 1


def test_a_commit_of_readings_brings_its_events_as_they_are_read_where_they_are_few(store: Store, owner: ShardOwner) -> None:
    def commit(sequence: int, kind: str, many: int) -> list[Event]:
        drafts = [EventDraft("visit.entered", NOW_US + at, {"é": at, "none": None}, "shipment/S1", "T1") for at in range(many)]
        made = PreparedCommit(shard=0, epoch=owner.epoch, now_us=NOW_US, journal=replace(entry(sequence), kind=kind), events=drafts)
        result = store.commit(made).result(20)
        assert result.last_event == len(events(store))
        return [event_of(row) for row in result.events]

    brought = commit(1, "readings", TOLD_MOST)
    assert len(brought) == TOLD_MOST
    with Session(store.engine) as session:
        assert [one.model_dump() for one in brought] == [one.model_dump() for one in newest_events(session, 0, 1_000)]
    assert [one.model_dump() for one in brought] == [one.model_dump() for one in events(store)]
    assert commit(2, "readings", TOLD_MOST + 1) == commit(3, "command", 2) == []
    assert [one.number for one in commit(4, "readings", 2)] == [2 * TOLD_MOST + 4, 2 * TOLD_MOST + 5]


def test_a_refused_commit_leaves_nothing_behind(store: Store, owner: ShardOwner, write: Write) -> None:
    write(inserts=[shipment()])
    commit = PreparedCommit(
        shard=0, epoch=owner.epoch, now_us=NOW_US, journal=entry(1), events=[told()], mailbox=[Mailbox(shard=1, key="x")],
        commit_key="key", upserts=[Tag(tag_id="T1", shard=0, local_index=0)], inserts=[shipment()],
    )  # fmt: skip
    with pytest.raises(AlreadyExists, match="S1"):
        store.commit(commit).result(20)
    assert head(store) == 0
    assert events(store) == []
    assert [count(store, model) for model in (Tag, Mailbox, JournalBatch)] == [0, 0, 0]
    commit.inserts = []
    assert not store.commit(commit).result(20).already_done, "its key was not taken by the refused try"


def test_one_bad_commit_among_good_ones_is_refused_alone(store: Store, owner: ShardOwner) -> None:
    def one(number: int, *, bad: bool) -> PreparedCommit:
        parts = PreparedCommit(shard=0, epoch=owner.epoch, now_us=NOW_US, events=[told(number=number)])
        parts.inserts = [Tag(tag_id=f"T{number}", shard=0, local_index=0 if bad else number)]
        return parts

    futures = [store.commit(one(number, bad=number % 10 == 7)) for number in range(40)]
    outcomes = [future.exception(20) for future in futures]
    assert [number for number, error in enumerate(outcomes) if error is not None] == [7, 17, 27, 37]
    assert all(isinstance(error, AlreadyExists) for error in outcomes if error is not None)
    assert [event.number for event in events(store)] == list(range(1, 37))
    assert [event.body["number"] for event in events(store)] == [number for number in range(40) if number % 10 != 7]


def test_rows_that_no_database_can_hold_refuse_their_commit_alone(store: Store, owner: ShardOwner, write: Write) -> None:
    for parts in (
        {"events": [told(value=float("nan"))]},
        {"upserts": [Setting(name="x", value=None)]},  # type: ignore[arg-type]
        {"upserts": [shipment(created_us=2**70)]},
        {"upserts": [shipment(attributes={"a": object()})]},
    ):
        with pytest.raises(InvalidArgument):
            write(**parts)
    assert write(events=[told()]).last_event == 1


# ---------------------------------------------------------------- guards


def test_an_etag_guard_lets_the_current_one_pass_and_refuses_any_other(write: Write) -> None:
    write(inserts=[shipment()])
    write(expect=[(Shipment, ("S1",), 1)], upserts=[shipment(etag=2)])
    with pytest.raises(StaleEtag, match="its etag is 2, not 1"):
        write(expect=[(Shipment, ("S1",), 1)], upserts=[shipment(etag=2)])
    write(expect=[(Shipment, ("S1",), None)])


def test_a_guard_on_a_row_that_is_not_there_says_so(write: Write) -> None:
    with pytest.raises(NotFound):
        write(expect=[(Shipment, ("S1",), None)])


def test_a_reference_to_nothing_and_the_removal_of_what_is_named_are_refused(write: Write) -> None:
    with pytest.raises(FailedPrecondition, match="names a row that is not there"):
        write(upserts=[Stop(shipment_id="S9", ordinal=0)])
    write(upserts=[Stop(shipment_id="S1", ordinal=0), shipment()])
    with pytest.raises(FailedPrecondition):
        write(deletes=[(Shipment, ("S1",))])
    write(deletes=[(Stop, ("S1", 0)), (Shipment, ("S1",))])


def test_quantities_are_exact_and_never_rounded(store: Store, write: Write) -> None:
    rows = [Item(item_id="I"), Lot(lot_id="L", item_id="I", lot_number="1"), HandlingUnit(handling_unit_id="H")]
    write(upserts=[*rows, HandlingUnitLot(handling_unit_id="H", lot_id="L", quantity=Decimal("0.1"))])
    with Session(store.engine) as session:
        assert session.execute(select(func.sum(HandlingUnitLot.quantity))).scalar_one() == Decimal("0.1")  # type: ignore[call-overload]
    with pytest.raises(InvalidArgument, match="6 decimals"):
        write(upserts=[HandlingUnitLot(handling_unit_id="H", lot_id="L", quantity=Decimal("0.0000001"))])


# ---------------------------------------------------------------- the fence


def test_a_superseded_owner_cannot_write_anything(store: Store, owner: ShardOwner) -> None:
    newer = take(store, 0)
    assert newer.epoch == owner.epoch + 1
    for parts in ({"journal": entry(1)}, {"events": [told()]}, {"upserts": [shipment()]}):
        with pytest.raises(Superseded):
            store.commit(PreparedCommit(shard=0, epoch=owner.epoch, now_us=NOW_US, **parts)).result(20)  # type: ignore[arg-type]
    store.commit(PreparedCommit(shard=0, epoch=newer.epoch, now_us=NOW_US, journal=entry(1))).result(20)
    assert head(store) == 1


def test_a_shard_that_nobody_ever_took_cannot_be_written(store: Store) -> None:
    with pytest.raises(Superseded):
        store.commit(PreparedCommit(shard=3, epoch=0, now_us=NOW_US, journal=entry(1))).result(20)


def test_the_journal_has_no_gaps_and_no_second_entry_of_a_number(store: Store, owner: ShardOwner) -> None:
    def at(sequence: int, blob: bytes) -> PreparedCommit:
        return PreparedCommit(shard=0, epoch=owner.epoch, now_us=NOW_US, journal=entry(sequence, blob))

    store.commit(at(1, b"one")).result(20)
    with pytest.raises(Unavailable, match="ends at 1"):
        store.commit(at(3, b"three")).result(20)
    with pytest.raises(Superseded, match="is another one"):
        store.commit(at(1, b"other")).result(20)
    assert head(store) == 1


# ---------------------------------------------------------------- once


def test_a_journaled_commit_that_is_sent_again_is_not_applied_again(store: Store, owner: ShardOwner) -> None:
    commit = PreparedCommit(shard=0, epoch=owner.epoch, now_us=NOW_US, journal=entry(1), events=[told()])
    first = store.commit(commit).result(20)
    again = store.commit(commit).result(20)
    assert (first.already_done, again.already_done) == (False, True)
    assert again.last_event >= first.last_event
    assert (len(events(store)), count(store, JournalBatch)) == (1, 1)


def test_a_commit_without_a_journal_entry_is_known_by_its_key(store: Store) -> None:
    commit = PreparedCommit(shard=NO_SHARD, now_us=NOW_US, commit_key="once", events=[told()])
    assert not store.commit(commit).result(20).already_done
    assert store.commit(commit).result(20).already_done
    assert (len(events(store)), count(store, CommitKey)) == (1, 1)


def test_a_message_of_the_mailbox_is_applied_once(store: Store, owner: ShardOwner, write: Write) -> None:
    write(mailbox=[Mailbox(shard=0, key="shipment/S1")])
    with Session(store.engine) as session:
        (message,) = session.execute(select(Mailbox.id)).scalars()  # type: ignore[call-overload]
    write(mailbox_done=[message])
    with pytest.raises(Superseded, match="applied already"):
        write(mailbox_done=[message])


def test_readers_cannot_write(store: Store) -> None:
    with store.engine.connect() as connection, pytest.raises(Exception, match=r"readonly|read-only"):
        connection.exec_driver_sql("UPDATE event_counter SET number = 5")
