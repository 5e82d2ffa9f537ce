"""The journal gives up what the archive has, and nobody who asks for history notices."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session, col, select

from actors.journal import archive as manifest
from actors.journal import history, segments
from actors.journal.prepared import PreparedCommit
from actors.journal.tables import ArchivedCarrier, Excursion, Shipment
from actors.rules.errors import FailedPrecondition
from actors.rules.readings import ACCEPTED, DUPLICATE, FOREVER_US, MINUTE_US
from actors.tags.commands import COMMANDS
from cluster.archive import check, layout, retain
from cluster.archive import run as archive_run
from cluster.archive.filesystem import Place
from cluster.archive.reader import Part
from cluster.replay import result
from cluster.replay.jobs import Request, judge_part
from tests.actors.test_sorted_and_damaged import CARRIER, START, Shard, drive, shard
from tests.journal.test_segments import count
from tests.replay.tampering import tamper

__all__ = ["shard"]

PAGE = segments.PAGE
FILES = len(layout.JOURNEYS)
"""A part's: A sent something after the end that it was told afterwards, so its neighbours are there, too."""
LATER = START + 10_000 * MINUTE_US


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.of(tmp_path / "archive")


def closed_journey(shard: Shard) -> None:
    """A rides on the shipment for 160 minutes, B rides nowhere; two snapshots stand behind most of it, sorted."""
    shard.assign("A")
    drive(shard, 0, 17, "A", "B")
    release(shard, 160)
    shipment = Shipment(shipment_id="S1", shard=0, state="DELIVERED", closed_us=START + 170 * MINUTE_US, created_us=START)
    shard.store.commit(PreparedCommit(shard=0, epoch=shard.owner.epoch, now_us=START, upserts=[shipment])).result(20)
    shard.snapshot()
    shard.ingest({"B": (171, 5.0)})
    shard.snapshot()
    shard.sort()


def release(shard: Shard, minute: int) -> None:
    until_us = START + minute * MINUTE_US
    moved = COMMANDS["tag.release"](shard.tags, {"tag_id": "A", "until_us": until_us}, LATER)
    shard._commit(moved, LATER)


def whole_history(shard: Shard) -> list[Any]:
    _, rows = history.read_rows(shard.store.engine, 0, [0, 1], 0, FOREVER_US)
    facts = (rows.journal, rows.row, rows.batch.tag, rows.batch.sensed_us, rows.batch.values[rows.batch.codes.index(0)])
    return [column.tolist() for column in facts]


def archived(shard: Shard, place: Place) -> archive_run.Account:
    return archive_run.run(shard.store, place, FOREVER_US, lambda: LATER, sweep_after_s=0)


def stated(shard: Shard) -> list[tuple[int, int | None]]:
    with Session(shard.store.engine) as session:
        found = session.exec(select(Excursion).where(col(Excursion.state) != "RETRACTED").order_by(col(Excursion.started_us)))
        return [(one.started_us, one.ended_us) for one in found]


def test_what_was_given_up_is_read_from_the_archive_as_if_it_were_there(shard: Shard, place: Place) -> None:
    closed_journey(shard)
    before, pages = whole_history(shard), count(shard.store, PAGE)
    assert archived(shard, place).readings == 16
    (kept,) = retain.retain(shard.store, place, FOREVER_US, lambda: LATER)
    assert (kept.upto, kept.loose) == (15, 18), "whole segments but what recovery needs; what rode nowhere is archived first"
    assert count(shard.store, PAGE) < pages
    assert whole_history(shard) == before
    assert check.verify(manifest.parts(shard.store.engine))[0] == []

    again = shard.restarted()
    assert again.state() == shard.state()
    assert again.ingest({"A": (30, 5.0), "B": (20, 5.0)}).tolist() == [DUPLICATE, DUPLICATE], "known from the archive"
    assert again.ingest({"B": (21, 5.0)}).tolist() == [ACCEPTED]
    (nothing,) = retain.retain(shard.store, place, FOREVER_US, lambda: LATER)
    assert (nothing.upto, nothing.loose) == (kept.upto, 0), "twice is as once"


def test_a_late_reading_after_that_is_judged_with_the_archived_ones_and_archived_again(shard: Shard, place: Place) -> None:
    closed_journey(shard)
    archived(shard, place)
    retain.retain(shard.store, place, FOREVER_US, lambda: LATER)
    assert (START, START + 10 * MINUTE_US) in stated(shard)
    shard.ingest({"A": (5, 5.0)})  # a cool one between: the first excursion ends there
    assert (START, START + 5 * MINUTE_US) in stated(shard)
    account = archived(shard, place)
    assert (account.shipments, account.again, account.readings) == (1, 1, 17)
    parts = manifest.parts(shard.store.engine)
    assert sum(part["readings"] for part in parts if part["carriers"]) == 17, "the old part is gone"
    for part in parts:
        if part["carriers"]:
            counts = judge_part(part, Request(result.VERIFY), place.sub("result"))
            assert counts["differences"] == 0
            assert counts["readings"] == 17
            times = Part.of(part).rows("readings", ["received_at"])
            assert all(row["received_at"] >= START for row in times), "of archived readings it is known from the archive"


def test_an_archive_that_was_moved_is_found_where_the_setting_says(shard: Shard, place: Place, tmp_path: Path) -> None:
    """As `waybill up` notes the setting: at the old place, and after the folder was moved or came back from a backup elsewhere."""
    closed_journey(shard)
    before = whole_history(shard)
    archived(shard, place)  # before this version: its location is in the manifest
    shard.store.write(manifest.keep_root, place.location).result(20)
    retain.retain(shard.store, place, FOREVER_US, lambda: LATER)
    moved = Path(place.location).rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError):
        [Part.of(part).table("readings") for part in manifest.parts(shard.store.engine) if part["carriers"]]
    shard.store.write(manifest.keep_root, str(moved)).result(20)
    assert {part["location"] for part in manifest.parts(shard.store.engine)} == {str(moved)}
    assert whole_history(shard) == before
    assert check.verify(manifest.parts(shard.store.engine))[0] == []
    shard.ingest({"A": (5, 5.0)})
    assert archived(shard, Place.of(moved)).again == 1
    assert check.verify(manifest.parts(shard.store.engine))[0] == []


def test_however_little_is_looked_at_together_the_same_is_given_up(shard: Shard, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    closed_journey(shard)
    archived(shard, place)
    before = whole_history(shard)
    monkeypatch.setattr(retain, "AT_ONCE", 5)
    (kept,) = retain.retain(shard.store, place, FOREVER_US, lambda: LATER)
    assert (kept.upto, kept.loose) == (15, 18)
    loose = [part for part in manifest.parts(shard.store.engine) if not part["carriers"]]
    assert len(loose) > 3
    assert max(part["readings"] for part in loose) < 8, "a part of its own for each round"
    assert whole_history(shard) == before


def test_without_an_archive_everything_goes_into_the_dataset_of_loose_readings(shard: Shard, place: Place) -> None:
    closed_journey(shard)
    before = whole_history(shard)
    (kept,) = retain.retain(shard.store, place, FOREVER_US, lambda: LATER)
    assert kept.loose == 34
    assert whole_history(shard) == before
    archived(shard, place)
    assert whole_history(shard) == before, "no reading is there twice"


def test_nothing_is_given_up_that_is_young_or_that_a_recovery_needs(shard: Shard, place: Place) -> None:
    closed_journey(shard)
    archived(shard, place)
    (kept,) = retain.retain(shard.store, place, START, lambda: LATER)
    assert (kept.upto, kept.held_back) == (0, "the rest was received later than that")


def test_of_two_runs_at_once_the_second_publishes_nothing(shard: Shard, place: Place) -> None:
    closed_journey(shard)
    archived(shard, place)
    second = shard.store.write(manifest.publish, [], [ArchivedCarrier(carrier=CARRIER, part_id="elsewhere")], [], [], {})
    with pytest.raises(FailedPrecondition, match="another run"):
        second.result(20)


def test_a_crash_leaves_the_old_archive_and_the_next_run_sweeps(shard: Shard, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    closed_journey(shard)

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(archive_run.PartWriter, "abandon", lambda self: None)  # a crash cleans nothing up
        patched.setattr(archive_run, "_carrier", dies)  # all files are written, nothing is published
        with pytest.raises(KeyboardInterrupt):
            archived(shard, place)
    left = [name for name, _ in place.ages()]
    assert len(left) == FILES, "its files are there, and nobody reads them"
    assert manifest.parts(shard.store.engine) == []
    account = archived(shard, place)
    assert (account.shipments, account.swept) == (1, FILES)
    assert check.verify(manifest.parts(shard.store.engine)) == ([], FILES)


def test_every_changed_byte_and_missing_file_is_named(shard: Shard, place: Place) -> None:
    closed_journey(shard)
    archived(shard, place)
    (part,) = manifest.parts(shard.store.engine)
    names = {file["dataset"]: Path(place.location) / file["name"] for file in part["files"]}
    content = bytearray(names["readings"].read_bytes())
    content[len(content) // 2] ^= 1
    names["readings"].write_bytes(content)
    names["events"].unlink()
    faults, _ = check.verify([part])
    assert {fault.name.partition("/")[0]: fault.why.partition(":")[0] for fault in faults} == {
        "readings": "its checksum is not the one that was published", "events": "is not there",
    }  # fmt: skip


# ---------------------------------------------------------------- crashes and clocks


def test_files_are_on_the_disk_before_the_manifest_names_them(shard: Shard, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    closed_journey(shard)
    synced: list[str] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    archived(shard, place)
    (part,) = manifest.parts(shard.store.engine)
    for file in part["files"]:
        path = Path(place.location) / file["name"]
        assert {str(path), *map(str, list(path.parents)[:4])} <= set(synced)


def test_files_stay_where_nobody_knows_whether_they_were_published(shard: Shard, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    closed_journey(shard)
    write = shard.store.write

    def slow(function: Any, *arguments: Any) -> Any:
        write(function, *arguments).result(20)
        raise TimeoutError

    with monkeypatch.context() as patched:
        patched.setattr(shard.store, "write", slow)
        with pytest.raises(TimeoutError):
            archived(shard, place)
    assert check.verify(manifest.parts(shard.store.engine)) == ([], FILES), "it was published after all"


def test_a_part_that_was_replaced_can_be_read_for_an_hour_more_however_old_it_is(shard: Shard, place: Place) -> None:
    closed_journey(shard)
    archived(shard, place)
    (old,) = manifest.parts(shard.store.engine)
    for file in old["files"]:
        os.utime(Path(place.location) / file["name"], (1, 1))
    shard.ingest({"A": (5, 5.0)})
    for minutes, swept in ((0, 0), (59, 0), (60, FILES), (61, 0)):
        at_us = LATER + minutes * MINUTE_US
        account = archive_run.run(shard.store, place, FOREVER_US, lambda at_us=at_us: at_us)
        assert (account.again, account.swept) == (int(minutes == 0), swept)
        assert (check.verify([old])[0] == []) == (minutes < 60)


def test_nothing_is_given_up_for_a_file_that_was_changed(shard: Shard, place: Place) -> None:
    closed_journey(shard)
    archived(shard, place)
    (part,) = manifest.parts(shard.store.engine)
    tamper(part, "readings", lambda row: bool(row.update(temperature_c=-40.0) is None))
    before = whole_history(shard)
    with pytest.raises(FailedPrecondition, match=r"checksum|bytes"):
        retain.retain(shard.store, place, FOREVER_US, lambda: LATER)
    assert manifest.retained(shard.store.engine, 0)[1] == 0
    assert whole_history(shard) == before


def test_what_came_late_and_changed_no_event_is_archived_again_though_the_journal_gave_it_up(shard: Shard, place: Place) -> None:
    closed_journey(shard)
    archived(shard, place)
    events = manifest.due(shard.store.engine, FOREVER_US)
    shard.ingest({"A": (159, 5.0)})
    assert manifest.due(shard.store.engine, FOREVER_US) == events == [], "no event tells of it"
    late = shard.sequence
    shard.snapshot()
    shard.sort()
    for minute in (172, 173):
        shard.ingest({"B": (minute, 5.0)})
        shard.snapshot()
    (kept,) = retain.retain(shard.store, place, FOREVER_US, lambda: LATER)
    assert kept.upto >= late, "its entry is gone"
    assert (archived(shard, place).again, manifest.due(shard.store.engine, FOREVER_US)) == (1, [])
    parts = [part for part in manifest.parts(shard.store.engine) if part["carriers"]]
    assert sum(part["readings"] for part in parts) == 17
