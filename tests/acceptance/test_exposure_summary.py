"""The summary a release decision reads: per limit the time in violation, extreme, uncovered time and MKT, and how complete it all is."""

from __future__ import annotations

import pytest

from tests.acceptance.client import MINUTE_US, Client, circle, every, limit, minute_of, new_id, us
from waybill.v1 import alert_pb2, common_pb2, profile_pb2, tag_pb2, telemetry_pb2


def test_the_summary_names_each_limits_time_extreme_and_gaps(client: Client) -> None:
    profile = client.profile(limit("above-8", 8, minutes=60), limit("below-2", 2, below=True, minutes=60), limit("seen", 6, minutes=None))
    tag = new_id("t")
    shipment = client.shipment(profile, tag)
    client.send(tag, (10, 9.0), (20, 12.0), (30, 5.0), (40, 12.0), (50, 1.0), (55, 5.0), (145, 5.0))
    exposure = client.exposure(shipment)
    assert (exposure.verdict, exposure.excursions, exposure.closed) == (common_pb2.VERDICT_WITHIN_LIMITS, 0, False)
    rows = {row.limit.limit_id: row for row in exposure.limits}
    above = rows["above-8"]
    assert (above.violation_us, above.extreme, minute_of(above.extreme_time)) == (30 * MINUTE_US, 12.0, 20), "the earliest of equals"
    assert above.uncovered_us == (10 + 30) * MINUTE_US, "before the first reading, and what exceeds an hour"
    assert above.covered_us == (45 + 60) * MINUTE_US
    assert above.readings == 7
    assert (rows["below-2"].violation_us, rows["below-2"].extreme) == (5 * MINUTE_US, 1.0)
    assert rows["seen"].violation_us == 30 * MINUTE_US, "a limit without an allowance is counted all the same"
    client.release(shipment, tag, 150)
    [closed, *_] = client.exposure(shipment).limits
    assert closed.covered_us == (45 + 60 + 5) * MINUTE_US, "the last reading holds to the custody's end"


def test_the_worst_tag_stands_for_the_shipment(client: Client) -> None:
    profile = client.profile(limit("above-8", 8, minutes=60))
    a, b = sorted((new_id("t"), new_id("t")))
    shipment = client.shipment(profile, a, b)
    client.send(a, (0, 9.0), (20, 5.0), (30, 5.0))
    client.send(b, (0, 5.0), (10, 11.0), (15, 5.0), (30, 5.0))
    [row] = client.exposure(shipment).limits
    assert (row.violation_us, row.extreme) == (20 * MINUTE_US, 11.0)
    assert {one.tag_id: (one.violation_us, one.extreme) for one in row.tags} == {a: (20 * MINUTE_US, 9.0), b: (5 * MINUTE_US, 11.0)}


def test_the_mkt_of_a_constant_temperature_is_that_temperature(client: Client) -> None:
    profile = client.profile(limit("above-25", 25, minutes=60), mkt_window_s=24 * 3600, mkt_allowed=True)
    tag = new_id("t")
    shipment = client.shipment(profile, tag)
    client.send(tag, *every(30, [25.0] * 10))
    client.release(shipment, tag, 300)
    [row] = client.exposure(shipment).limits
    assert row.mkt.mkt_c == pytest.approx(25.0, abs=1e-9)
    assert (row.mkt.full_window, row.mkt.allowed) == (False, True), "five hours are less than a day: it says so"
    assert row.mkt.covered_us == 300 * MINUTE_US


def test_a_trailing_mkt_over_its_threshold_is_an_excursion(client: Client) -> None:
    profile = client.profile(limit("mkt-8", 8, mode=profile_pb2.LIMIT_MODE_MKT, window_s=3600))
    tag = new_id("t")
    shipment = client.shipment(profile, tag)
    client.send(tag, *every(10, [8.0] * 6))
    assert client.told(shipment) == [], "a constant 8 has an MKT of exactly 8"
    client.send(tag, *every(10, [12.0, 12.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0], start=60))
    [(limit_id, state, started, _, ended, _)] = client.told(shipment)
    assert (limit_id, state, started) == ("mkt-8", "ENDED", 70)
    assert ended is not None
    assert ended > 90


def test_completeness_names_what_is_missing_per_boot(client: Client) -> None:
    tag = new_id("t")
    shipment = client.shipment(client.profile(limit("above-8", 8)), tag)

    def send(boot: int, *sequences: int) -> None:
        client.send_rows(
            telemetry_pb2.Reading(tag_id=tag, sensed_at_us=us(boot * 100 + number), boot=boot, sequence=number, temperature_c=5)
            for number in sequences
        )

    send(1, 1, 2, 3, 7, 8)
    send(2, 0, 1)
    rows = client.exposure(shipment).completeness
    assert [(row.boot, row.expected, row.received, row.missing) for row in rows] == [(1, 8, 5, 3), (2, 2, 2, 0)]
    assert [(one.first, one.last) for one in rows[0].missing_ranges] == [(4, 6)]
    send(1, 6, 4)
    [row, _] = client.exposure(shipment).completeness
    assert (row.received, row.missing, [(one.first, one.last) for one in row.missing_ranges]) == (7, 1, [(5, 5)])


def test_a_failing_sensor_raises_a_sensor_alert_and_is_kept_out_of_the_verdict(client: Client) -> None:
    tag = new_id("t")
    tests = [tag_pb2.QualityTests(metric=common_pb2.METRIC_TEMPERATURE_C, fail_low=-40, fail_high=60)]
    client.tags.RegisterTag(tag_pb2.RegisterTagRequest(tag=tag_pb2.Tag(tag_id=tag, quality=tests)), timeout=30)
    shipment = client.shipment(client.profile(limit("above-8", 8)), tag)
    client.send(tag, (0, 5.0), (5, 120.0), (10, 5.0))
    [alert] = client.alerts(shipment)
    assert (alert.kind, alert.tag_id, alert.metric) == (alert_pb2.ALERT_KIND_SENSOR, tag, common_pb2.METRIC_TEMPERATURE_C)
    assert [change for change, _ in client.history(alert.alert_id)] == ["RAISED", "CLEARED"], "its newest value is good again"
    assert client.told(shipment) == []
    exposure = client.exposure(shipment)
    [row] = exposure.limits
    assert (row.violation_us, row.extreme) == (0, 5.0)
    assert exposure.verdict == common_pb2.VERDICT_WITHIN_LIMITS
    assert client.series(tag) == [(0, 5.0), (5, 120.0), (10, 5.0)], "raw values stay"
    assert client.twin(tag).counters.fail == 1


def test_limits_on_any_metric_are_judged_like_temperature(client: Client) -> None:
    shock, light, door = common_pb2.METRIC_SHOCK_G, common_pb2.METRIC_LIGHT_LUX, common_pb2.METRIC_DOOR_OPEN
    profile = client.profile(
        limit("shock", 5, metric=shock), limit("light", 100, minutes=5, metric=light), limit("door", 0, minutes=10, metric=door)
    )
    tag = new_id("t")
    shipment = client.shipment(profile, tag)
    values = [(0, 1.0, 0.0, 0.0), (5, 7.0, 200.0, 1.0), (11, 1.0, 0.0, 1.0), (16, 1.0, 0.0, 0.0)]
    client.send_rows(
        telemetry_pb2.Reading(tag_id=tag, sensed_at_us=us(minute), shock_g=g, light_lux=lux, door_open=opened)
        for minute, g, lux, opened in values
    )
    assert sorted(client.told(shipment)) == [
        ("door", "ENDED", 5, 15, 16, 11), ("light", "ENDED", 5, 10, 11, 6), ("shock", "ENDED", 5, 5, 11, 6),
    ]  # fmt: skip


def test_a_fence_with_alerts_tells_entering_and_leaving_and_a_pass_through(client: Client) -> None:
    fence = circle("yard", 47.0, 8.0, 1000, alert_on=[common_pb2.FENCE_EVENT_ENTER, common_pb2.FENCE_EVENT_PASSED_THROUGH])
    tag = new_id("t")
    shipment = client.shipment("", tag, geofences=[fence])
    client.send_fixes(tag, (0, 47.1, 8.0), (1, 47.001, 8.0), (2, 47.0, 8.0))
    assert [visit for visit in client.visits(shipment) if visit[0] == "VISIT"] == [("VISIT", "yard", 1, None)], (
        "dated at the first fix inside"
    )
    [alert] = client.alerts(shipment)
    assert (alert.fence_id, alert.active) == ("yard", True)
    client.send_fixes(tag, (3, 46.9, 8.0), (4, 46.8, 8.0))
    assert [visit for visit in client.visits(shipment) if visit[0] == "VISIT"] == [("VISIT", "yard", 1, 3)]
    assert not client.alert(alert.alert_id).active
    client.send_fixes(tag, (30, 47.2, 8.0))
    assert ("PASSED_THROUGH", "yard", 4, 30) in client.visits(shipment)
