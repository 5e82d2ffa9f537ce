"""The judging is done in the shards: each journal batch names the process that made it, and each shard holds its own tags and no others."""

from __future__ import annotations

import threading
import time

import psutil

from actors.journal.tables import JournalBatch, Tag
from tests.acceptance.client import every, limit
from tests.actors.system import System


def test_each_journal_batch_names_the_shard_process_that_made_it(system: System) -> None:
    tags = [system.tag_in(shard) for shard in (0, 1)]
    before = {(row.shard, row.sequence) for row in system.rows(JournalBatch)}
    for tag in tags:
        system.client.send(tag, *every(1, [5.0] * 10))
    new = [row for row in system.rows(JournalBatch) if (row.shard, row.sequence) not in before and row.kind == "readings"]
    assert {row.shard for row in new} == {0, 1}
    for row in new:
        owner, info = system.owner(row.shard), system.info(row.shard)
        assert row.worker == owner.worker == info["worker"]
        assert f":{owner.pid}:" in row.worker
        assert (row.epoch, owner.pid) == (owner.epoch, info["pid"])
        assert any("Shard" in part for part in psutil.Process(owner.pid).cmdline()), "it is the Ray actor's own process"
    assert len({system.owner(shard).pid for shard in (0, 1)}) == 2


def test_shards_hold_disjoint_tags(system: System) -> None:
    tags = [system.tag_in(number % 2) for number in range(20)]
    for tag in tags:
        system.client.send(tag, (0, 5.0))
    rows = system.rows(Tag)
    assert set(tags) <= {row.tag_id for row in rows}
    assert all(row.shard == system.directory.shard_of(row.tag_id) for row in rows)
    for shard in (0, 1):
        mine = [row.local_index for row in rows if row.shard == shard]
        assert sorted(mine) == list(range(system.info(shard)["tags"])), "each has its own place, and nobody else is there"


def test_one_message_to_both_shards_is_answered_when_both_are_durable(system: System) -> None:
    from tests.acceptance.client import us
    from waybill.v1 import telemetry_pb2

    tags = [system.tag_in(number % 2) for number in range(6)]
    answer = system.client.send_rows(telemetry_pb2.Reading(tag_id=tag, sensed_at_us=us(0), temperature_c=5.0) for tag in tags)
    assert answer.accepted == 6
    assert {system.client.series(tag)[0] for tag in tags} == {(0.0, 5.0)}


def test_killing_one_shard_stops_only_its_own_tags(system: System) -> None:
    mine, others = system.tag_in(0), system.tag_in(1)
    shipment = system.client.shipment(system.client.profile(limit("above-8", 8)), mine, others)
    for tag in (mine, others):
        system.client.send(tag, (0, 5.0))
    old, stop, slowest = system.owner(0), threading.Event(), [0.0]
    sent = []

    def go_on() -> None:
        minute = 1
        while not stop.is_set():
            began = time.monotonic()
            assert system.client.send(others, (minute, 5.0)).accepted == 1
            slowest[0] = max(slowest[0], time.monotonic() - began)
            sent.append(minute)
            minute += 1

    sender = threading.Thread(target=go_on)
    sender.start()
    time.sleep(0.3)
    system.kill(0)
    at_the_kill = len(sent)
    assert system.send_surely(mine, [(1, 9.0), (2, 5.0)]) in {(2, 0), (0, 2)}
    stop.set()
    sender.join(60)
    assert len(sent) - at_the_kill > 10, "the other shard's tags went on meanwhile"
    assert slowest[0] < 5
    new = system.owner(0)
    assert (new.epoch, new.pid == old.pid) == (old.epoch + 1, False)
    assert system.client.told(shipment) == [("above-8", "ENDED", 1, 1, 2, 1)]
    assert system.client.series(others) == [(0, 5.0), *[(minute, 5.0) for minute in sent]]
