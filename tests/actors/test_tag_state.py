"""What a shard keeps of each tag in little room is, bit for bit, what it was given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from actors.rules import exposure, geofence
from actors.rules.readings import FOREVER_US
from actors.tags.names import UNKNOWN, TagNames
from actors.tags.records import Records, Rows, Shapes

BEGIN_US = 1_000
SIZES = [(3, 1), (1, 0), (0, 2), (5, 3), (2, 2), (0, 0)]
"""Limits and fences of a tag."""


def rows_of(r: np.random.Generator, tags: int, limits: int, fences: int) -> Rows:
    """Rows of some tags in any state: a share of the fields hold something, the rest nothing."""
    share = r.random()
    tracks = exposure.fresh(
        np.tile(np.arange(limits) % 2, tags), 1, np.tile(np.arange(limits) * 3, tags), 2, BEGIN_US, FOREVER_US, np.zeros(tags * limits)
    )
    visits = geofence.fresh(list(range(fences)) * tags, BEGIN_US)
    for table in (tracks, visits):
        for name in table.dtype.names or ():
            if name not in ("windows_start", "windows_count", "metric", "mode", "fence", "side", "candidate", "count"):
                hit = r.random(len(table)) < share
                table[name][hit] = r.integers(0, 5, int(hit.sum()))
    for name in ("side", "candidate", "count"):
        visits[name] = r.integers(-1, 2, len(visits))
    count, visit_count = np.full(tags, limits, np.int32), np.full(tags, fences, np.int32)
    first, visit_first = np.arange(tags, dtype=np.int32) * limits, np.arange(tags, dtype=np.int32) * fences
    return Rows(tracks, first, count, visits, visit_first, visit_count)


@pytest.mark.parametrize("seed", range(6))
def test_rows_are_read_as_they_were_written(seed: int) -> None:
    r = np.random.default_rng(seed)
    shapes, records, kept = Shapes(), Records(), dict[int, tuple[int, Any, Any]]()
    for turn in range(40):
        limits, fences = SIZES[turn % len(SIZES)]
        slots = r.choice(300, 40, replace=False).astype(np.int32)
        given = rows_of(r, 40, limits, fences)
        shape = shapes.of(given.tracks[:limits], given.visits[:fences])
        records.write(slots, np.full(40, BEGIN_US), given)  # what means nothing in a visit is set to nothing here
        for at, slot in enumerate(slots.tolist()):
            mine = slice(at * limits, (at + 1) * limits), slice(at * fences, (at + 1) * fences)
            kept[slot] = shape, given.tracks[mine[0]].copy(), given.visits[mine[1]].copy()
        if turn == 20:
            dumped, records = records.dump(300), Records()
            records.restore(dumped)
        if turn == 30:
            records = records.copy(np.arange(300, dtype=np.int32))
    slots = np.array(sorted(kept), np.int32)
    read = records.read(slots, np.array([kept[slot][0] for slot in slots.tolist()], np.int32), np.full(len(slots), BEGIN_US), shapes)
    for at, slot in enumerate(slots.tolist()):
        one = read.some(np.array([at], np.int32))
        assert one.tracks.tobytes() == kept[slot][1].tobytes()
        assert one.visits.tobytes() == kept[slot][2].tobytes()


def test_what_was_dropped_leaves_no_room_behind() -> None:
    r = np.random.default_rng(1)
    shapes, records = Shapes(), Records()
    for turn in range(30):
        given = rows_of(r, 2_000, 3, 1)
        shapes.of(given.tracks[:3], given.visits[:1])
        records.write(np.arange(2_000, dtype=np.int32) + 2_000 * (turn % 2), np.full(2_000, BEGIN_US), given)
    assert records.words.nbytes < 2.5 * records.bytes_live + (1 << 20)
    for slot in range(4_000):
        records.drop(slot)
    assert records.bytes_live == 0


def test_a_tag_cannot_have_more_limits_than_a_record_holds() -> None:
    many = exposure.fresh(np.arange(5_000) % 2, 1, 0, 2, 0)
    with pytest.raises(ValueError, match="5000 limits"):
        Shapes().of(many, geofence.fresh([], 0))


def test_ids_are_found_again_whatever_they_look_like() -> None:
    ids = [f"tag-{number}" for number in range(3_000)] + ["ä", "日本", "a b", "x" * 64, "tag-1 "]
    names = TagNames(ids[:10])
    assert list(names.add(ids[10:])) == list(range(10, len(ids)))
    assert list(names) == ids
    assert names.lookup("\n".join(reversed(ids)).encode()).tolist() == list(reversed(range(len(ids))))
    assert names.lookup(b"tag-\ntag-1\nnobody").tolist() == [UNKNOWN, 1, UNKNOWN]
    assert [names.find("tag-2999"), names.find("tag-3000"), names.find(""), names.find("a\nb")] == [2_999, None, None, None]
    other = TagNames()
    other.restore(names.dump())
    assert list(other) == ids
    assert other.find("日本") == ids.index("日本")
    assert other.add(["new"])[0] == len(ids)
