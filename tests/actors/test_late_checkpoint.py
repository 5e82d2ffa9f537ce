"""A checkpoint that a late reading lies before holds no longer, even where the late reading is the custody's very first."""

from __future__ import annotations

from actors.rules.plan import make_plan
from actors.tags import queries
from tests.actors.memory import OneShard
from tests.actors.test_sensor_tag_order import CARRIER, MINUTE_US, NOW, PROFILE, START, batch


def test_a_custodys_first_reading_that_comes_last_is_in_its_sums_for_good() -> None:
    shard = OneShard()
    shard.put_plan(make_plan(CARRIER, 1, [(0, PROFILE)]))
    shard.command("tag.assign", NOW, tag_id="T", carrier=CARRIER, from_us=START)
    shard.ingest(["T"], batch([(minute, minute, 5.0) for minute in range(2, 300) if minute != 200], True), NOW)
    shard.ingest(["T"], batch([(200, 200, 5.0)], True), NOW)  # judged again, and the checkpoint moves on
    shard.ingest(["T"], batch([(1, 1, 5.0)], True), NOW)
    shard.ingest(["T"], batch([(301, 301, 5.0)], True), NOW)
    shard.ingest(["T"], batch([(300, 300, 5.0)], True), NOW)  # judged again from a checkpoint, if there is one
    row = next(row for row in queries.exposure_of(shard.tags, {"carrier": CARRIER}) if row["limit_id"] == "warm")
    assert (row["readings"], row["covered_us"]) == (301, 300 * MINUTE_US)


def test_a_late_reading_is_judged_from_the_ring_however_often_the_ring_has_turned() -> None:
    shard = OneShard(ring_rows=256)
    shard.put_plan(make_plan(CARRIER, 1, [(0, PROFILE)]))
    shard.command("tag.assign", NOW, tag_id="T", carrier=CARRIER, from_us=START)
    asked: list[list[int]] = []
    history = shard.journal.history
    shard.journal.history = lambda tags, *times: (asked.append(tags), history(tags, *times))[1]  # type: ignore[method-assign,func-returns-value]
    late = 1_490
    for minute in range(1, 1_500):
        if minute != late:
            shard.ingest(["T"], batch([(minute, minute, 26.0 if minute > 1_480 else 5.0)], True), NOW)
    shard.ingest(["T"], batch([(late, late, 5.0)], True), NOW)
    assert not asked
    row = next(row for row in queries.exposure_of(shard.tags, {"carrier": CARRIER}) if row["limit_id"] == "warm")
    assert (row["readings"], row["covered_us"]) == (1_499, 1_498 * MINUTE_US)
    whole = shard.restarted()
    assert queries.exposure_of(whole.tags, {"carrier": CARRIER}) == queries.exposure_of(shard.tags, {"carrier": CARRIER})
