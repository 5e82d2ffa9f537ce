"""Late, unordered and repeated readings: the final excursions are those of in-order arrival, and people are told what changed."""

from __future__ import annotations

import random

import pytest

from tests.acceptance.client import Client, batches, cause_of, circle, limit, minute_of, new_id, told, us
from waybill.v1 import alert_pb2, common_pb2, exposure_pb2, profile_pb2, tag_pb2, telemetry_pb2

WARM, GOOD = 9.0, 5.0


@pytest.fixture(scope="module")
def cold(client: Client) -> str:
    """A profile: at most 8 degrees, ten minutes allowed."""
    return client.profile(limit("above-8", 8, minutes=10))


def revisions(client: Client, shipment: str) -> list[list[tuple[str, str]]]:
    """Per excursion, retracted ones too, its revisions in short: (state, cause)."""
    found = []
    for one in client.excursions(shipment, all_of_them=True):
        found.append([(told(each)[1], cause_of(each)) for each in [*one.revisions, one]])
        assert [each.revision for each in [*one.revisions, one]] == list(range(1, one.revision + 1)), "nothing is overwritten"
    return found


def test_a_late_reading_opens_an_excursion(client: Client, cold: str) -> None:
    tag = new_id("t")
    shipment = client.shipment(cold, tag)
    client.send(tag, (0, GOOD), (20, GOOD))
    assert client.told(shipment) == []
    client.send(tag, (5, WARM))
    assert client.told(shipment) == [("above-8", "ENDED", 5, 15, 20, 15)]
    [excursion] = client.excursions(shipment)
    assert excursion.found_late
    assert cause_of(excursion) == "LATE"
    [alert] = client.alerts(shipment)
    assert (alert.active, alert.state) == (False, alert_pb2.ALERT_STATE_OPEN), "it is over, and people hear of it all the same"


def test_a_late_reading_lengthens_and_shortens_an_excursion(client: Client, cold: str) -> None:
    tag = new_id("t")
    shipment = client.shipment(cold, tag)
    client.send(tag, (0, GOOD), (10, WARM), (25, GOOD))
    assert client.told(shipment) == [("above-8", "ENDED", 10, 20, 25, 15)]
    client.send(tag, (5, 11.0))
    assert client.told(shipment) == [("above-8", "ENDED", 5, 15, 25, 20)]
    client.send(tag, (22, GOOD))
    assert client.told(shipment) == [("above-8", "ENDED", 5, 15, 22, 17)]
    assert revisions(client, shipment) == [[("ENDED", "READING"), ("ENDED", "LATE"), ("ENDED", "LATE")]]
    [alert] = client.alerts(shipment)
    assert (alert.extreme, minute_of(alert.extreme_time), minute_of(alert.started_time)) == (11.0, 5, 5)
    assert client.history(alert.alert_id)[-1] == ("CORRECTED", "late")


def test_a_late_reading_splits_an_excursion_and_a_later_one_retracts_a_half(client: Client, cold: str) -> None:
    tag = new_id("t")
    shipment = client.shipment(cold, tag)
    client.send(tag, (0, WARM), (30, GOOD))
    client.send(tag, (12, GOOD), (15, WARM))
    assert client.told(shipment) == [("above-8", "ENDED", 0, 10, 12, 12), ("above-8", "ENDED", 15, 25, 30, 15)]
    client.send(tag, (20, GOOD))
    assert client.told(shipment) == [("above-8", "ENDED", 0, 10, 12, 12)]
    assert revisions(client, shipment) == [
        [("ENDED", "READING"), ("ENDED", "LATE")],
        [("ENDED", "LATE"), ("RETRACTED", "LATE")],
    ]
    [alert] = client.alerts(shipment)
    assert alert.excursions == 1


def test_a_late_reading_joins_two_excursions_into_the_earlier(client: Client, cold: str) -> None:
    tag = new_id("t")
    tests = [tag_pb2.QualityTests(metric=common_pb2.METRIC_TEMPERATURE_C, spike_suspect=2, spike_fail=3)]
    client.tags.RegisterTag(tag_pb2.RegisterTagRequest(tag=tag_pb2.Tag(tag_id=tag, quality=tests)), timeout=30)
    shipment = client.shipment(cold, tag)
    client.send(tag, (0, WARM), (10, WARM), (20, GOOD), (24, GOOD), (30, WARM), (40, WARM), (50, GOOD), (51, GOOD))
    assert [(one[2], one[4]) for one in client.told(shipment)] == [(0, 20), (30, 50)]
    client.send(tag, (22, WARM))  # 5 degrees once, between readings of 9: a spike, before it and after it
    assert client.told(shipment) == [("above-8", "ENDED", 0, 10, 50, 50)]
    first, second = revisions(client, shipment)
    assert [state for state, _ in first] == ["ENDED", "ENDED"]
    assert [state for state, _ in second] == ["ENDED", "RETRACTED"]


def test_all_that_a_late_reading_can_do_to_a_cumulative_limit(client: Client) -> None:
    profile = client.profile(limit("sum-30", 8, minutes=30, mode=profile_pb2.LIMIT_MODE_CUMULATIVE))
    tag = new_id("t")
    shipment = client.shipment(profile, tag)
    client.send(tag, (0, WARM), (20, GOOD), (60, WARM), (80, GOOD), (100, WARM), (105, GOOD))
    assert client.told(shipment) == [("sum-30", "ENDED", 60, 70, 80, 20), ("sum-30", "ENDED", 100, 100, 105, 5)]
    client.send(tag, (5, GOOD))  # 15 minutes less: the sum reaches 30 only in the third run
    assert client.told(shipment) == [("sum-30", "ENDED", 100, 105, 105, 5)]
    client.send(tag, (30, WARM), (40, GOOD))  # 10 minutes more, before: 15 in all, then 35 in the second
    assert client.told(shipment) == [("sum-30", "ENDED", 60, 75, 80, 20), ("sum-30", "ENDED", 100, 100, 105, 5)]
    [row] = client.exposure(shipment).limits
    assert row.violation_us == 40 * 60_000_000


def test_an_alert_whose_excursions_all_are_retracted_is_withdrawn(client: Client, cold: str) -> None:
    tag = new_id("t")
    shipment = client.shipment(cold, tag)
    client.send(tag, (0, WARM), (15, GOOD))
    client.send(tag, (5, GOOD))
    assert client.told(shipment) == []
    assert revisions(client, shipment) == [[("ENDED", "READING"), ("RETRACTED", "LATE")]]
    [alert] = client.alerts(shipment)
    assert (alert.state, alert.active, alert.excursions) == (alert_pb2.ALERT_STATE_WITHDRAWN, False, 0)
    client.send(tag, (2, WARM), (3, WARM), (4, WARM))
    assert client.told(shipment) == [], "0 to 5: five minutes"


def test_late_data_reopens_what_a_person_had_resolved(client: Client, cold: str) -> None:
    tag = new_id("t")
    shipment = client.shipment(cold, tag)
    client.send(tag, (0, GOOD), (10, WARM), (22, GOOD))
    [alert] = client.alerts(shipment)
    client.alerting.ResolveAlert(
        alert_pb2.ResolveAlertRequest(alert_id=alert.alert_id, etag=alert.etag, actor="ana", reason="12 minutes at 9"), timeout=30
    )
    client.send(tag, (16, 25.0))
    [again] = client.alerts(shipment)
    assert (again.alert_id, again.state, again.reopened, again.extreme) == (alert.alert_id, alert_pb2.ALERT_STATE_OPEN, 1, 25.0)
    assert client.history(alert.alert_id)[-1] == ("REOPENED", "late")


def journey(seed: int) -> list[tuple[float, float]]:
    """Two hundred readings over ten hours, warm in a third of them, some at the very threshold."""
    chance = random.Random(seed)
    minutes = sorted(chance.sample(range(600), 200))
    warm, found = False, []
    for minute in minutes:
        warm = warm ^ (chance.random() < 0.12)
        found.append((float(minute), chance.choice([8.0, 8.5, 12.0]) if warm else chance.choice([8.0, 5.0, 3.0])))
    return found


def facts(excursions: list[exposure_pb2.Excursion]) -> list[tuple[object, ...]]:
    return [
        (*told(one), one.uncovered_us, one.extreme, minute_of(one.extreme_time), round(one.mean, 9), one.readings) for one in excursions
    ]


def test_shuffled_repeated_and_divided_readings_give_the_excursions_of_in_order_arrival(client: Client) -> None:
    profile = client.profile(
        limit("single", 8, minutes=7),
        limit("held", 8, minutes=7, clear=4),
        limit("sum", 8, minutes=45, mode=profile_pb2.LIMIT_MODE_CUMULATIVE),
        limit("cold", 3, below=True, inclusive=True, minutes=5),
        limit("mkt", 6, minutes=0, mode=profile_pb2.LIMIT_MODE_MKT, window_s=3600),
    )
    readings = journey(20261122)
    straight, shuffled = new_id("straight"), new_id("shuffled")
    one, other = client.shipment(profile, straight), client.shipment(profile, shuffled)
    for some in batches(readings, 20):
        client.send(straight, *some)
    chance = random.Random(7)
    arrival = readings * 2
    chance.shuffle(arrival)
    while arrival:
        take = chance.randint(1, 60)
        client.send(shuffled, *arrival[:take])
        arrival = arrival[take:]
    client.release(one, straight, 600)
    client.release(other, shuffled, 600)
    expected = sorted(facts(client.excursions(one)))
    assert {row[0] for row in expected} == {"single", "held", "sum", "cold", "mkt"}, "the journey has something for every limit"
    assert sorted(facts(client.excursions(other))) == expected
    straight_sums, shuffled_sums = client.exposure(one), client.exposure(other)
    for mine, its in zip(straight_sums.limits, shuffled_sums.limits, strict=True):
        assert (mine.limit.limit_id, mine.violation_us, mine.covered_us, mine.uncovered_us, mine.extreme, mine.readings) == (
            its.limit.limit_id, its.violation_us, its.covered_us, its.uncovered_us, its.extreme, its.readings,
        )  # fmt: skip
        assert mine.mkt.mkt_c == pytest.approx(its.mkt.mkt_c, abs=1e-9)
    counters = client.twin(shuffled).counters
    assert (counters.accepted, counters.duplicate) == (200, 200)
    assert client.series(shuffled) == readings == client.series(straight)


def test_geofence_visits_of_shuffled_fixes_are_those_of_fixes_in_order(client: Client) -> None:
    fence = circle("yard", 47.0, 8.0, 1000, confirm=2)
    chance = random.Random(3)
    fixes, inside = [], False
    for minute in range(0, 400, 4):
        inside = inside ^ (chance.random() < 0.25)
        fixes.append((float(minute), 47.0 + (0.002 if inside else 0.05), 8.0))
    straight, shuffled = new_id("straight"), new_id("shuffled")
    one, other = (client.shipment("", tag, geofences=[fence]) for tag in (straight, shuffled))
    client.send_fixes(straight, *fixes)
    chance.shuffle(fixes)
    for start in range(0, len(fixes), 17):
        client.send_fixes(shuffled, *fixes[start : start + 17])

    def visits(shipment: str) -> list[tuple[str, str, float, float | None]]:
        return [visit for visit in client.visits(shipment) if visit[0] in ("VISIT", "PASSED_THROUGH")]

    assert len(visits(one)) >= 5
    assert visits(other) == visits(one)


def test_duplicates_and_conflicts_are_answered_counted_and_kept_aside(client: Client, cold: str) -> None:
    tag = new_id("t")
    shipment = client.shipment(cold, tag)
    first = client.send(tag, (0, GOOD), (5, GOOD), (10, GOOD))
    assert (first.accepted, first.duplicate, first.conflicting) == (3, 0, 0)
    mixed = client.send(tag, (0, GOOD), (5, WARM), (15, GOOD), (15, GOOD), (15, WARM))
    assert (mixed.accepted, mixed.duplicate, mixed.conflicting) == (1, 2, 2)
    assert list(mixed.conflicting_indexes) == [1, 4]
    counters = client.twin(tag).counters
    assert (counters.accepted, counters.duplicate, counters.conflicting) == (4, 2, 2)
    assert client.series(tag) == [(0, GOOD), (5, GOOD), (10, GOOD), (15, GOOD)], "the one committed first stays"
    assert client.told(shipment) == []


def test_without_sequences_a_reading_is_known_by_time_and_metric(client: Client) -> None:
    tag = new_id("t")

    def reading(minute: float, **values: float) -> telemetry_pb2.Reading:
        return telemetry_pb2.Reading(tag_id=tag, sensed_at_us=us(minute), **values)

    assert client.send_rows([reading(0, temperature_c=5.0)]).accepted == 1
    both = client.send_rows([reading(0, temperature_c=5.0, relative_humidity_pct=60.0)])
    assert (both.accepted, both.duplicate) == (1, 0), "the humidity is new"
    again = client.send_rows([reading(0, relative_humidity_pct=60.0), reading(0, temperature_c=5.5)])
    assert (again.duplicate, again.conflicting) == (1, 1)
