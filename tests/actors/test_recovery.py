"""A killed shard comes back with all acknowledged readings and the same state; what follows is judged as if nothing had happened."""

from __future__ import annotations

import queue
import random
import threading
from typing import Any

import pytest

from actors.journal.tables import Snapshot
from tests.acceptance.client import Client, batches, circle, eventually, limit, told
from tests.actors.system import System
from waybill.v1 import common_pb2, profile_pb2, tag_pb2


def judged(client: Client, tag: str, shipment: str) -> dict[str, Any]:
    """All that a client can learn of a shipment and its one tag, without ids and clock times."""
    twin, exposure = client.twin(tag), client.exposure(shipment)
    return {
        "series": client.series(tag),
        "excursions": [(told(one), one.extreme, round(one.mean, 9), one.readings) for one in client.excursions(shipment)],
        "revisions": sorted(one.revision for one in client.excursions(shipment, all_of_them=True)),
        "visits": client.visits(shipment),
        "sums": [(row.limit.limit_id, row.violation_us, row.covered_us, row.uncovered_us, row.readings) for row in exposure.limits],
        "completeness": [(row.boot, row.expected, row.received, row.missing) for row in exposure.completeness],
        "alerts": sorted((alert.limit_id, alert.active, alert.excursions, alert.state) for alert in client.alerts(shipment)),
        "counters": (twin.counters.accepted, twin.counters.duplicate, twin.counters.conflicting, twin.counters.late, twin.counters.future),
        "values": sorted((last.metric, last.value, last.sensed_time.ToMicroseconds()) for last in twin.last_values),
        "rides": (twin.carrier == f"shipment/{shipment}", twin.last_sensed_time.ToMicroseconds(), twin.usual_interval_s, twin.silent),
    }


def goods(client: Client, tag: str) -> str:
    """A shipment with limits of every mode, a fence and a tag that counts its readings."""
    profile = client.profile(
        limit("single", 8, minutes=5),
        limit("held", 8, minutes=5, clear=6),
        limit("sum", 8, minutes=60, mode=profile_pb2.LIMIT_MODE_CUMULATIVE),
    )
    return client.shipment(profile, tag, geofences=[circle("yard", 47.0, 8.0, 1000)])


def travel(seed: int, count: int) -> list[tuple[float, float]]:
    """Readings a minute apart that wander round the threshold."""
    chance = random.Random(seed)
    value, found = 6.0, []
    for minute in range(count):
        value = min(max(value + chance.uniform(-1.5, 1.5), 3.0), 12.0)
        found.append((float(minute), round(value, 2)))
    return found


def send_mixed(client: Client, tag: str, readings: list[tuple[float, float]]) -> None:
    """Some late, some twice, one in conflict."""
    for number, some in enumerate(batches(readings, 50)):
        chunk = list(some)
        if number % 3 == 1:
            chunk.reverse()
        client.send(tag, *chunk)
        client.send(tag, chunk[0], (chunk[1][0], chunk[1][1] + 1))


def special_goods(client: Client, tag: str) -> str:
    """A shipment with an MKT limit and two custodies of one tag that has quality tests."""
    tests = [tag_pb2.QualityTests(metric=common_pb2.METRIC_TEMPERATURE_C, spike_suspect=5, spike_fail=8)]
    client.tags.RegisterTag(tag_pb2.RegisterTagRequest(tag=tag_pb2.Tag(tag_id=tag, quality=tests, usual_interval_s=3600)), timeout=30)
    mkt = limit("mkt", 6, mode=profile_pb2.LIMIT_MODE_MKT, window_s=3600)
    shipment = client.shipment(client.profile(limit("single", 8), mkt))
    client.assign(shipment, tag, 0, 100)
    client.assign(shipment, tag, 120)
    return shipment


def test_a_killed_shard_comes_back_with_the_same_state_and_judges_on(system: System) -> None:
    client, way = system.client, travel(1, 700)
    killed, spared = [(tag, goods(client, tag)) for tag in (system.tag_in(0), system.tag_in(1))]
    its_special, other_special = [(tag, special_goods(client, tag)) for tag in (system.tag_in(0), system.tag_in(1))]
    had = {row.sequence for row in system.rows(Snapshot, Snapshot.shard == 0)}
    for tag, _ in (killed, spared):
        send_mixed(client, tag, way[:300])
        client.send_fixes(tag, (0, 47.1, 8.0), (10, 47.0, 8.0), (20, 47.0, 8.0))
    for tag, _ in (its_special, other_special):
        client.send(tag, *travel(2, 250), (300, 30.0), (5000, 20.0))
    for _ in range(3):  # more than a thousand: the shard takes a snapshot
        client.send(system.tag_in(0), *[(minute, 5.0) for minute in range(400)])
    assert eventually(lambda: {row.sequence for row in system.rows(Snapshot, Snapshot.shard == 0)} - had)
    for tag, _ in (killed, spared):
        send_mixed(client, tag, way[300:400])
        send_mixed(client, tag, way[450:500])
    before, special = judged(client, *killed), judged(client, *its_special)
    assert before == judged(client, *spared), "two tags of two shards that saw the same"
    assert special == judged(client, *other_special)
    assert len(before["excursions"]) > 3

    system.kill(0)
    assert system.patiently(lambda: judged(client, *killed)) == before
    assert judged(client, *its_special) == special

    for tag, _ in (killed, spared):
        system.send_surely(tag, way[400:450])  # late
        send_mixed(client, tag, way[500:])
        client.send_fixes(tag, (500, 47.1, 8.0), (510, 47.1, 8.0))
        client.send(tag, *way[:5])  # known since before the snapshot
    for tag, _ in (its_special, other_special):
        client.send(tag, (301, 5.0), (50.5, 9.0), (300, 30.0), (5000, 20.0), (110, 9.5))
    assert judged(client, *killed) == judged(client, *spared)
    assert judged(client, *its_special) == judged(client, *other_special)
    assert client.twin(its_special[0]).counters.future == 1


@pytest.mark.parametrize("what", ["shard", "database connection"])
def test_kills_in_flight_lose_nothing_that_was_acknowledged_and_double_nothing(system: System, what: str) -> None:
    client = system.client
    tags = [system.tag_in(number % 2) for number in range(4)]
    shipments = {tag: goods(client, tag) for tag in tags}
    way = travel(3, 400)
    work: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    first_answers: dict[str, int] = dict.fromkeys(tags, 0)
    failures: list[BaseException] = []

    def stream(tag: str) -> None:
        try:
            for number, some in enumerate(batches(way, 10)):
                first_answers[tag] += system.send_surely(tag, some)[0]
                if number == 12 and tag == tags[0]:
                    work.put("now")
        except BaseException as error:
            failures.append(error)

    senders = [threading.Thread(target=stream, args=(tag,)) for tag in tags]
    for sender in senders:
        sender.start()
    work.get(timeout=60)
    if what == "shard":
        system.kill(1)
    else:
        system.kill_the_database_connection()
    for sender in senders:
        sender.join(120)
    assert not failures
    quiet = system.tag_in(0)
    control = goods(client, quiet)
    for some in batches(way, 10):
        system.send_surely(quiet, some)
    expected = judged(client, quiet, control)
    for tag in tags:
        assert client.series(tag) == way, "everything acknowledged is there exactly once, in sensed order"
        assert first_answers[tag] <= len(way), "nothing was accepted twice"
        found = judged(client, tag, shipments[tag])
        duplicates = found["counters"][1]
        assert found | {"counters": 0} == expected | {"counters": 0}
        assert (found["counters"][0], found["counters"][2:]) == (400, (0, 0, 0))
        assert duplicates % 10 == 0, "a batch whose answer was lost is sent again as a whole"


def test_an_alert_stream_that_watched_through_the_kills_saw_each_number_once(system: System) -> None:
    """The events of everything above, kills included: numbers rise one by one."""
    messages, _ = system.client.watch(0, 10**9, until_number=system.info(0)["last_event"])
    numbers = [message.event_number for message in messages]
    assert numbers == sorted(set(numbers))
    states: dict[str, int] = {}
    for message in messages:
        etag = int(message.alert.etag)
        assert etag == states.get(message.alert.alert_id, 0) + 1, "no change of an alert is missing, none came twice"
        states[message.alert.alert_id] = etag
