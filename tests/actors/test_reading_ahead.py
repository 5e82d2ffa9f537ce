"""Late readings of many tags in closed custodies: the database is asked for all of them at once, and each is judged as if it came alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event

from actors.journal.prepared import PreparedCommit
from actors.journal.tables import CarrierPlan
from actors.rules.plan import make_plan
from actors.rules.readings import MINUTE_US
from actors.tags import ahead
from actors.tags.ahead import Ahead
from actors.tags.commands import COMMANDS
from tests.actors.memory import OneShard
from tests.actors.test_sensor_tag_order import NOW, PROFILE, START, Batch
from tests.actors.test_sorted_and_damaged import CARRIER, Shard, drive, shard

__all__ = ["shard"]

TAGS = [f"T{number}" for number in range(24)]
CARRIERS = ["shipment/S1", "shipment/S2"]


@contextmanager
def statements(made: Shard) -> Iterator[list[str]]:
    """What the database is asked meanwhile."""
    told: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        told.append(statement)

    event.listen(made.store.engine, "before_cursor_execute", note)
    yield told
    event.remove(made.store.engine, "before_cursor_execute", note)


def test_many_late_tags_ask_the_database_as_often_as_a_few(shard: Shard) -> None:
    plan = make_plan(CARRIERS[1], 1, [(0, PROFILE)])
    row = CarrierPlan(carrier=CARRIERS[1], shard=0, revision=1, body=plan.to_data())
    shard.store.commit(PreparedCommit(shard=0, epoch=shard.owner.epoch, now_us=START, upserts=[row])).result(20)
    drive(shard, 0, 8, *TAGS)
    for tag in TAGS:
        for number, carrier in enumerate((CARRIER, CARRIERS[1], CARRIER)):
            times = {"from_us": START + 20 * number * MINUTE_US, "until_us": START + 20 * (number + 1) * MINUTE_US}
            shard._commit(COMMANDS["tag.assign"](shard.tags, {"tag_id": tag, "carrier": carrier, **times}, NOW), NOW)
    counts = []
    for minute, some in ((5, TAGS[:6]), (6, TAGS)):
        with statements(shard) as told:
            shard.ingest(dict.fromkeys(some, (minute, 30.0)))
        counts.append(len([one for one in told if "excursion" in one or "visit" in one or "exposure" in one or "custody" in one]))
        assert len(told) < 60, told
    assert counts[0] == counts[1]


def told_late(seed: int) -> OneShard:
    """Many tags, of which some have quality settings and some ride again on the carrier of a closed custody, told in some late calls."""
    rng = np.random.default_rng(seed)
    made = OneShard(160)  # hardly more than one call
    for carrier in CARRIERS:
        made.put_plan(make_plan(carrier, 1, [(0, PROFILE)]))
    for number, tag in enumerate(TAGS):
        tests = {"spike_suspect": 3.0, "spike_fail": 7.0}
        made.command("tag.register", NOW, tag_id=tag, **({"quality": {"metrics": {"temperature_c": tests}}} if number % 4 == 0 else {}))
        edges = np.sort(rng.choice(np.arange(1, 90), 4, replace=False)).tolist()
        for low, high in zip(edges, [*edges[1:], None], strict=True):
            until = {} if high is None else {"until_us": START + high * MINUTE_US}
            carrier = CARRIERS[int(rng.integers(2))]
            made.command("tag.assign", NOW, tag_id=tag, carrier=carrier, from_us=START + low * MINUTE_US, **until)
    readings = [(tag, minute) for tag in range(len(TAGS)) for minute in range(0, 100, 3)]
    for part in np.array_split(rng.permutation(readings), 6):
        n = len(part)
        none = np.full(n, -1, np.int64)
        values = rng.choice([5.0, 26.0, 27.0, 40.0], n)[None, :]
        batch = Batch(part[:, 0].astype(np.int32), START + part[:, 1].astype(np.int64) * MINUTE_US, none, none, (0,), values)
        made.ingest(TAGS, batch, NOW)
    return made


@pytest.mark.parametrize("bounds", [{}, {"READINGS_AT_ONCE": 40, "READINGS_HELD": 200}])
@pytest.mark.parametrize("seed", range(4))
def test_what_was_read_ahead_changes_nothing(seed: int, bounds: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in bounds.items():
        monkeypatch.setattr(ahead, name, value)
    mine = told_late(seed)
    monkeypatch.setattr(Ahead, "_read_ahead", lambda *_: None)
    plain = told_late(seed)
    assert mine.journal.entries == plain.journal.entries
    assert [repr(commit) for commit in mine.journal.commits] == [repr(commit) for commit in plain.journal.commits]
    assert any(row.found_late for row in mine.excursions())
