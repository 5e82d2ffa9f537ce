"""How a carrier's exposure rolls up over tags and custodies, and what people are told of it. The sums are given as shards give them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from actors.journal.tables import Custody, Excursion
from actors.rules.plan import Plan, make_plan
from actors.rules.profiles import shipped
from actors.rules.readings import CODE, NO_SEQUENCE, NOT_EVALUATED, Batch
from services.exposure import Ride, summary
from waybill.v1 import common_pb2, exposure_pb2

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
LIMIT = "cold-2"


def plan(profile_id: str = "usp-cold") -> Plan:
    return make_plan("shipment/S", 1, [(0, shipped()[profile_id])])


def ride(tag_id: str, from_h: int, until_h: int | None, every_us: int = 10 * MINUTE_US, sequences: list[int] | None = None) -> Ride:
    last_us = (from_h + 2 if until_h is None else until_h) * HOUR_US
    sensed_us = np.arange(from_h * HOUR_US, last_us, every_us, dtype=np.int64)
    if sequences is not None:
        sensed_us = sensed_us[: len(sequences)]
    n = len(sensed_us)
    numbers = np.full(n, NO_SEQUENCE, np.int64) if sequences is None else np.array(sequences, np.int64)
    boot = np.full(n, NO_SEQUENCE if sequences is None else 1, np.int64)
    values = np.full((1, n), 5.0)
    batch = Batch(np.zeros(n, np.int32), sensed_us, boot, numbers, (CODE["temperature_c"],), values)
    until_us = None if until_h is None else until_h * HOUR_US
    custody = Custody(
        custody_id=100 * from_h + ord(tag_id[0]),
        shard=0,
        tag_id=tag_id,
        carrier="shipment/S",
        from_us=from_h * HOUR_US,
        until_us=until_us,
    )
    return Ride(custody, batch, values[0], np.full(values.shape, NOT_EVALUATED, np.uint8))


def sums(one: Ride, **fields: Any) -> dict[str, Any]:
    custody = one.custody
    said = {
        "limit_id": LIMIT,
        "tag_id": custody.tag_id,
        "custody_id": custody.custody_id,
        "handling_unit_id": None,
        "from_us": custody.from_us,
        "until_us": custody.until_us,
        "accounted_us": one.until_us,
        "violation_us": 0,
        "covered_us": one.until_us - custody.from_us,
        "uncovered_us": 0,
        "readings": len(one.batch),
        "extreme": 5.0,
        "extreme_us": custody.from_us,
    }
    return said | fields


def rolled_up(rides: list[Ride], given: list[dict[str, Any]], excursions: list[Excursion] | None = None) -> exposure_pb2.CarrierExposure:
    return summary(plan(), [one.custody for one in rides], rides, given, excursions or [])


def limit(message: exposure_pb2.CarrierExposure, limit_id: str = LIMIT) -> exposure_pb2.LimitExposure:
    return next(one for one in message.limits if one.limit.limit_id == limit_id)


def test_carrier_shows_the_worst_of_its_tags() -> None:
    first, second = ride("a", 0, 4), ride("b", 0, 4)
    given = [
        sums(first, violation_us=HOUR_US, extreme=1.0, extreme_us=7, uncovered_us=5),
        sums(second, violation_us=2 * HOUR_US, extreme=1.5, covered_us=HOUR_US),
    ]
    found = limit(rolled_up([first, second], given))
    assert (found.violation_us, found.extreme, found.extreme_time.ToMicroseconds()) == (2 * HOUR_US, 1.0, 7)
    assert (found.uncovered_us, found.covered_us, found.readings) == (5, HOUR_US, 48)
    assert [tag.tag_id for tag in found.tags] == ["a", "b"]


def test_extreme_is_the_earliest_of_equals() -> None:
    first, second = ride("a", 0, 4), ride("b", 0, 4)
    given = [sums(first, extreme=1.0, extreme_us=9), sums(second, extreme=1.0, extreme_us=3)]
    assert limit(rolled_up([first, second], given)).extreme_time.ToMicroseconds() == 3


def test_custodies_of_one_tag_add_up_with_the_time_between_uncovered() -> None:
    first, second = ride("a", 0, 2), ride("a", 5, 7)
    given = [sums(second, violation_us=30 * MINUTE_US), sums(first, violation_us=20 * MINUTE_US)]
    found = limit(rolled_up([first, second], given))
    assert (found.violation_us, found.uncovered_us) == (50 * MINUTE_US, 3 * HOUR_US)
    assert len(found.tags) == 1


def test_verdict_is_that_of_the_excursions_that_stand() -> None:
    one = ride("a", 0, 4)
    excursion = Excursion(
        excursion_id=1,
        shard=0,
        tag_id="a",
        carrier="shipment/S",
        custody_id=1,
        limit_id=LIMIT,
        started_us=0,
        triggered_us=0,
        severity="CRITICAL",
    )
    assert rolled_up([one], []).verdict == common_pb2.VERDICT_NO_DATA
    assert rolled_up([one], [sums(one)]).verdict == common_pb2.VERDICT_WITHIN_LIMITS
    found = rolled_up([one], [sums(one)], [excursion])
    assert (found.verdict, found.worst_severity) == (common_pb2.VERDICT_EXCURSION, common_pb2.SEVERITY_CRITICAL)
    assert (limit(found).excursions, limit(found).tags[0].in_violation) == (1, True)


def test_two_tags_that_each_cover_a_part_are_told_apart_from_one_that_covers_all() -> None:
    halves, whole = [ride("a", 0, 6), ride("b", 6, 12)], [ride("a", 0, 12), ride("b", 6, 12)]
    said = "no tag covers the whole way: sums are per tag"
    assert said in rolled_up(halves, [sums(one) for one in halves]).remarks
    assert said not in rolled_up(whole, [sums(one) for one in whole]).remarks


def test_missing_sequence_numbers_are_counted_and_told() -> None:
    one = ride("a", 0, 4, sequences=[1, 2, 3, 6, 7])
    found = rolled_up([one], [sums(one)])
    (record,) = found.completeness
    assert (record.expected, record.received, record.missing) == (7, 5, 2)
    assert "2 of 7 numbered readings are missing" in found.remarks


def test_profile_that_asks_for_more_readings_than_a_tag_makes_is_told() -> None:
    slow = ride("slow", 0, 40, every_us=4 * HOUR_US)
    assert any("max_gap" in said and "slow" in said for said in rolled_up([slow], [sums(slow)]).remarks)


def test_frozen_goods_have_no_mkt() -> None:
    one = ride("a", 0, 4)
    cold = rolled_up([one], [sums(one)])
    assert limit(cold).mkt.mkt_c == pytest.approx(5.0, abs=1e-9)
    frozen = summary(plan("freezer"), [one.custody], [one], [], [])
    assert not any(each.HasField("mkt") for each in frozen.limits)


def test_mkt_of_a_release_decision_is_that_of_windows_that_contain_the_excursion() -> None:
    """Warmest on the first day; the excursion is on the fourth."""
    one = ride("a", 0, 96)
    one.temperature_c[:] = one.batch.values[0] = np.where(one.batch.sensed_us < 24 * HOUR_US, 7.9, 4.0)
    warm = (one.batch.sensed_us >= 80 * HOUR_US) & (one.batch.sensed_us < 81 * HOUR_US)
    one.temperature_c[warm] = one.batch.values[0, warm] = 8.5
    excursion = Excursion(
        excursion_id=1, shard=0, tag_id="a", carrier="shipment/S", custody_id=one.custody.custody_id, limit_id=LIMIT,
        started_us=80 * HOUR_US, triggered_us=80 * HOUR_US, ended_us=81 * HOUR_US,
    )  # fmt: skip
    without, within = limit(rolled_up([one], [sums(one)])).mkt, limit(rolled_up([one], [sums(one)], [excursion])).mkt
    assert without.mkt_c == pytest.approx(7.9, abs=1e-6)
    assert without.window_start_time.ToMicroseconds() == 0
    assert 4.0 < within.mkt_c < 4.6
    assert within.window_start_time.ToMicroseconds() + within.window_us >= 81 * HOUR_US
    assert within.window_start_time.ToMicroseconds() <= 80 * HOUR_US


def test_carrier_is_closed_when_all_its_custodies_are() -> None:
    ended, lasting = ride("a", 0, 4), ride("b", 0, None)
    assert rolled_up([ended], [sums(ended)]).closed
    assert not rolled_up([ended, lasting], [sums(ended), sums(lasting)]).closed
    assert not rolled_up([], []).closed
