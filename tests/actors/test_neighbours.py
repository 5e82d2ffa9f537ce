"""The neighbours of a reading in quality tests are the tag's, whatever custody they lie in (handbook 4): what is excluded from exposure
at the edges of a custody is what the plain reference excludes that looks at the tag's whole series, in whatever order all of it was told.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.journal.tables import Excursion
from actors.rules.errors import DomainError
from actors.rules.plan import make_plan
from actors.rules.readings import MINUTE_US
from actors.tags import queries
from tests.actors.memory import OneShard
from tests.actors.test_sensor_tag_order import CARRIER, NOW, PROFILE, START, Journey, Reading, batch, compare, journeys, tell_custody
from tests.reference import quality as plain

TESTS: dict[str, dict[str, float]] = {
    "spikes": {"spike_suspect": 3.0, "spike_fail": 7.0},
    "flat lines": {"flat_tolerance": 1.0, "flat_suspect_us": 4 * MINUTE_US, "flat_fail_us": 9 * MINUTE_US},
    "all": {
        "fail_high": 25.5, "spike_fail": 15.0, "rate_per_s": 0.1, "gap_us": 30 * MINUTE_US, "flat_tolerance": 1.0,
        "flat_fail_us": 25 * MINUTE_US,
    },
}  # fmt: skip


def in_force(rules: dict[str, float], journey: Journey) -> Journey:
    """The journey with the values that count: those flagged *fail* by the tag's whole series are not there."""
    times = [START + minute * MINUTE_US for minute, _, _ in journey.readings]
    values = plain.usable(rules, times, [value for _, _, value in journey.readings])
    return Journey([(m, n, value) for (m, n, _), value in zip(journey.readings, values, strict=True)], journey.custodies)


def shard_with(rules: dict[str, float], ring_rows: int = 4096) -> OneShard:
    shard = OneShard(ring_rows)
    shard.put_plan(make_plan(CARRIER, 1, [(0, PROFILE)]))
    shard.command("tag.register", NOW, tag_id="T", quality={"metrics": {"temperature_c": rules}})
    return shard


@pytest.mark.parametrize("rules", TESTS)
@settings(max_examples=50)
@given(data=st.data())
def test_any_arrival_excludes_what_the_whole_series_excludes(data: Any, rules: str) -> None:
    sequenced, ring_rows = data.draw(st.booleans()), data.draw(st.sampled_from([4096, 16]))
    journey = data.draw(journeys())
    arrival = journey.readings if data.draw(st.booleans()) else data.draw(st.permutations(journey.readings))
    acts: list[Any] = []
    while arrival:
        size = data.draw(st.integers(1, 6))
        acts.append(arrival[:size])
        arrival = arrival[size:]
    for number in range(len(journey.custodies)):
        acts.insert(data.draw(st.integers(0, len(acts))), number)
    shard = shard_with(TESTS[rules], ring_rows)
    for act in acts:
        if isinstance(act, int):
            tell(shard, journey, act, data.draw(st.sampled_from(["told", "released", "delivered"])))
        else:
            shard.ingest(["T"], batch(act, sequenced), NOW)
        if data.draw(st.integers(0, 5)) == 0:
            shard = shard.restarted() if data.draw(st.booleans()) else shard.restarted(shard.tags.dump(), len(shard.journal.entries))
    compare(shard, in_force(TESTS[rules], journey))


def tell(shard: OneShard, journey: Journey, number: int, how: str) -> None:
    """A custody, closed at once (told), by a release, or by its carrier that was closed (delivered)."""
    low, high = journey.custodies[number]
    if how == "delivered" and high is not None:
        try:
            shard.command("tag.assign", NOW, tag_id="T", carrier=CARRIER, from_us=START + low * MINUTE_US)
        except DomainError:  # a later custody is known already
            how = "told"
        else:
            shard.command("carrier.closed", NOW, carrier=CARRIER, until_us=START + high * MINUTE_US)
            return
    tell_custody(shard, journey, number, how == "released")


# ---------------------------------------------------------------- what that means, one by one


def revisions(shard: OneShard) -> list[tuple[str, int, str, str]]:
    def facts(row: Excursion) -> tuple[str, int, str, str]:
        return (row.limit_id, (row.started_us - START) // MINUTE_US, row.state, row.cause)

    return [facts(row) for row in shard.journal.revisions if row.limit_id == "hot"]


def custody(shard: OneShard, from_minute: int, until_minute: int | None) -> None:
    tell_custody(shard, Journey([], [(from_minute, until_minute)]), 0, until_minute is not None)


def send(shard: OneShard, *readings: tuple[int, float]) -> None:
    rows: list[Reading] = [(minute, minute, value) for minute, value in readings]
    shard.ingest(["T"], batch(rows, True), NOW)


def test_the_first_reading_after_a_custody_shows_that_its_last_one_was_a_spike() -> None:
    shard = shard_with(TESTS["spikes"])
    send(shard, (0, 5.0), (1, 5.0), (2, 40.0))
    custody(shard, 0, 3)
    assert revisions(shard)[-1][:3] == ("hot", 2, "ENDED")
    send(shard, (4, 5.0))
    assert revisions(shard)[-1] == ("hot", 2, "RETRACTED", "quality")


def test_a_late_successor_shows_that_it_was_none() -> None:
    shard = shard_with(TESTS["spikes"])
    custody(shard, 0, 3)
    send(shard, (0, 5.0), (1, 5.0), (2, 40.0), (9, 5.0))
    assert shard.excursions() == []
    send(shard, (5, 78.0))  # nearer: the mean of both neighbours is the value now
    assert revisions(shard)[-1][1:] == (2, "ENDED", "quality")
    [found] = [row for row in shard.excursions() if row.limit_id == "hot"]
    assert found.found_late


def test_a_flat_line_that_began_before_the_custody_is_none_of_its_exposure() -> None:
    shard = shard_with(TESTS["flat lines"])
    send(shard, *((minute, 26.0) for minute in range(20) if minute != 11))
    custody(shard, 12, None)
    assert shard.excursions() == []
    send(shard, (20, 26.0), (21, 26.5))
    assert shard.excursions() == []
    send(shard, (11, 3.0))  # late, before the custody: it broke the line
    assert revisions(shard) == [("hot", 12, "CONFIRMED", "quality")]


def test_the_stated_flags_are_those_that_were_judged_by() -> None:
    shard = shard_with(TESTS["flat lines"])
    send(shard, *((minute, 26.0 if minute != 14 else 5.0) for minute in range(40)))
    custody(shard, 5, 22)
    part, flags, _ = queries.series(shard.tags, {"tag_id": "T", "from_us": START + 5 * MINUTE_US, "until_us": START + 22 * MINUTE_US})
    judged = [row for row in queries.exposure_of(shard.tags, {"carrier": CARRIER}) if row["limit_id"] == "hot"]
    assert judged[0]["readings"] == int((flags != plain.FAIL).sum()) < len(part)


def test_a_reading_that_is_still_in_the_future_is_nobody_s_neighbour() -> None:
    shard = shard_with(TESTS["spikes"])
    custody(shard, 0, 3)
    early_us = START + 10 * MINUTE_US
    rows = batch([(0, 0, 5.0), (1, 1, 5.0), (2, 2, 40.0), (60, 60, 5.0)], True)
    shard.ingest(["T"], rows, early_us)
    assert [row.limit_id for row in shard.excursions()] == ["hot"]
    for one in (shard.restarted(), shard):
        one.tick(START + 70 * MINUTE_US)
        assert one.excursions() == []
