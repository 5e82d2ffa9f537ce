"""A live replay sends readings as they were sensed, and its memory is a stretch of time and not the archive."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.rules.readings import COLUMNS
from cluster.archive.filesystem import Place
from cluster.archive.reader import Part
from cluster.replay import by_time, live
from tests.replay.made import profile, simulate, write
from tests.replay.test_whatif import COLD, FENCE, TOTAL, WARM


def facts(codes: tuple[int, ...], values: Any) -> list[tuple[int, float]]:
    return [(code, value) for code, value in zip(codes, values, strict=True) if not np.isnan(value)]


@pytest.mark.parametrize("only", [None, frozenset({"s-0002", "s-0007"})])
def test_the_readings_of_all_parts_come_in_the_order_of_time_a_stretch_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: frozenset[str] | None
) -> None:
    journeys = [simulate(random.Random(number), number) for number in range(12)]
    parts = [Part.of(row) for row in write(Place.of(tmp_path / "archive"), journeys, profile(60, WARM, COLD, TOTAL), (FENCE,), parts=3)]
    monkeypatch.setattr(by_time, "AT_ONCE", 60)
    monkeypatch.setattr(by_time, "BINS", 1_024)
    shipments, _, tag_ids, sources = live._plan(parts, "x-", only)
    found = by_time.order(sources, tmp_path)
    batches = list(found.batches())

    mine = {f"x-{one.tag_id}" for one in journeys if only is None or one.shipment_id in only}
    wanted = []
    for part in parts:
        rows = part.rows("readings")
        named = [(row["sensed_at"], f"x-{row['tag_id']}", row["sequence"], [row[one.name] for one in COLUMNS]) for row in rows]
        wanted += [(*row[:3], [(k, v) for k, v in enumerate(row[3]) if v is not None]) for row in named if row[1] in mine]
    given = [
        (int(at), tag_ids[tag], int(sequence), facts(batch.codes, values))
        for batch in batches
        for at, tag, sequence, values in zip(batch.sensed_us, batch.tag, batch.sequence, batch.values.T, strict=True)
    ]
    assert sorted(given) == sorted(wanted)
    assert [one[0] for one in given] == sorted(one[0] for one in given)
    assert (found.count, found.first_us, found.last_us) == (len(wanted), min(wanted)[0], max(wanted)[0])
    assert len(shipments) == len(mine)
    assert len(batches) > 1
    assert max(map(len, batches)) < 120


def test_nothing_is_sorted_where_nothing_was_read(tmp_path: Path) -> None:
    assert list(by_time.order([], tmp_path).batches()) == []
