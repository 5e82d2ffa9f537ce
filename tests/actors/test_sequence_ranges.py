"""The sequences that were received of each tag and boot, kept as ranges: against a plain set."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from actors.rules.readings import ACCEPTED, CODE, CONFLICTING, DUPLICATE, MINUTE_US, U1, Batch
from actors.tags import admit, identity
from actors.tags.columns import empty_tags
from tests.actors.memory import OneShard

Range = tuple[int, int, int]
START_US = 1_700_000_000_000_000


def ranges_of(row: int, tags: object, ranges: admit.Ranges) -> list[Range]:
    """(boot, low, high) of all ranges of a tag: the top one of its row, and those listed."""
    tag = tags[row]  # type: ignore[index]
    found = [(int(tag["top_boot"]), int(tag["top_low"]), int(tag["top_sequence"]))] if tag["top_sequence"] >= 0 else []
    node = int(tag["range_head"])
    while node >= 0:
        found.append((int(ranges.boot[node]), int(ranges.low[node]), int(ranges.high[node])))
        node = int(ranges.next[node])
    return sorted(found)


def plain(received: set[tuple[int, int]]) -> list[Range]:
    """The fewest ranges that hold just these (boot, sequence)."""
    found: list[Range] = []
    for boot, sequence in sorted(received):
        if found and found[-1][0] == boot and found[-1][2] == sequence - 1:
            found[-1] = (boot, found[-1][1], sequence)
        else:
            found.append((boot, sequence, sequence))
    return found


@pytest.mark.parametrize("seed", range(200))
def test_the_ranges_hold_what_was_received_and_nothing_else(seed: int) -> None:
    r = random.Random(seed)
    tags, ranges = empty_tags(2), admit.Ranges()
    ranges.make_room(500)
    received: list[set[tuple[int, int]]] = [set(), set()]
    span, boots = r.choice([5, 12, 40]), r.choice([1, 2, 3])
    for turn in range(r.randint(1, 120)):
        tag, boot = r.randint(0, 1), r.randint(0, boots - 1)
        sequence = r.randint(0, span) if r.random() < 0.7 else turn
        held = admit._note_sequence(tags, tag, boot, sequence, ranges.boot, ranges.low, ranges.high, ranges.next, ranges.state)
        assert held == ((boot, sequence) in received[tag])
        received[tag].add((boot, sequence))
    for tag in range(2):
        assert ranges_of(tag, tags, ranges) == plain(received[tag])


def test_a_tag_that_misses_nothing_has_its_range_in_its_row_alone() -> None:
    tags, ranges = empty_tags(1), admit.Ranges()
    for sequence in range(100):
        admit._note_sequence(tags, 0, 7, sequence, ranges.boot, ranges.low, ranges.high, ranges.next, ranges.state)
    assert ranges_of(0, tags, ranges) == [(7, 0, 99)]
    assert ranges.state[0] == 0


@pytest.mark.parametrize("seed", range(60))
def test_a_tag_with_many_holes_closes_its_lowest_ones(seed: int) -> None:
    """What was received is always said to have been; what was not is said to have been only in a hole that was closed."""
    r = random.Random(seed)
    tags, ranges = empty_tags(1), admit.Ranges()
    turns = 3_000
    ranges.make_room(turns)
    received: set[tuple[int, int]] = set()
    boots, backwards, spread = r.choice([1, 1, 2, 5, 400]), r.choice([0.0, 0.2, 0.9]), r.choice([40, 4_000])
    names = r.sample(range(1_000), boots)  # a boot is an identity, and has no order
    for turn in range(turns):
        boot = names[turn * boots // turns] if r.random() < 0.9 else r.choice(names)
        sequence = max(0, 2 * turn - r.randint(0, spread)) if r.random() < backwards else 2 * turn + r.randint(0, 1)
        before = ranges_of(0, tags, ranges) if turn % 16 == 0 else None
        held = admit._note_sequence(tags, 0, boot, sequence, ranges.boot, ranges.low, ranges.high, ranges.next, ranges.state)
        assert before is None or held == any(one == boot and low <= sequence <= high for one, low, high in before)
        assert held or (boot, sequence) not in received
        if not held:
            received.add((boot, sequence))
    found = ranges_of(0, tags, ranges)
    assert int(tags[0]["ranges"]) == len(found) - 1 <= admit.RANGES_MAX + boots
    assert ranges.state[0] <= admit.RANGES_MAX + boots + 2
    exact = plain(received)
    for boot in names:
        mine, his = ([one for one in some if one[0] == boot] for some in (found, exact))
        assert all(before[2] + 1 < after[1] for before, after in itertools.pairwise(mine)), "they neither touch nor overlap"
        closed = [one for one in mine if one not in his]
        assert closed == mine[: len(closed)], "the lowest ones"
        assert {one for _, low, high in his for one in range(low, high + 1)} <= {
            one for _, low, high in mine for one in range(low, high + 1)
        }


def test_a_session_that_begins_anew_is_known_at_once_whatever_its_number() -> None:
    tags, ranges = empty_tags(1), admit.Ranges()
    ranges.make_room(3_000)
    for boot in (9, 4):
        for sequence in range(0, 1_000, 2 if boot == 9 else 1):
            assert not admit._note_sequence(tags, 0, boot, sequence, ranges.boot, ranges.low, ranges.high, ranges.next, ranges.state)
    assert ranges_of(0, tags, ranges)[0] == (4, 0, 999)


@pytest.mark.parametrize("ring_rows", [1 << 4, 1 << 12])
@pytest.mark.parametrize("restarted", ["", "from its snapshot", "from its journal"])
def test_what_comes_out_of_a_closed_hole_is_looked_up(ring_rows: int, restarted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = OneShard(ring_rows)
    shard.command("tag.register", START_US, tag_id="T")
    now_us = START_US + 2_000 * MINUTE_US

    def send(sequences: list[int], value: float = 5.0, later_us: int = 0) -> U1:
        n = len(sequences)
        times = START_US + np.array(sequences, np.int64) * MINUTE_US + later_us
        batch = Batch(
            np.zeros(n, np.int32), times, np.full(n, 3, np.int64), np.array(sequences, np.int64),
            (CODE["temperature_c"],), np.full((1, n), value),
        )  # fmt: skip
        return shard.ingest(["T"], batch, now_us)

    for start in range(0, 1_000, 100):
        assert (send(list(range(start, start + 100, 2))) == ACCEPTED).all()
    monkeypatch.setattr(identity, "READINGS_AT_ONCE", 100)
    closed = ranges_of(0, shard.tags.head.tags, shard.tags.ranges)
    assert closed[0] == (3, 0, 998 - 2 * (len(closed) - 1))
    if restarted:
        snapshot = shard.tags.dump() if restarted == "from its snapshot" else None
        shard = shard.restarted(snapshot, len(shard.journal.entries) if snapshot else 0)
        assert ranges_of(0, shard.tags.head.tags, shard.tags.ranges) == closed
    assert (send([0, 2, 4, 998]) == DUPLICATE).all()
    assert (send([0, 2, 998], value=9.0) == CONFLICTING).all()
    assert (send([0, 2, 998], later_us=700 * MINUTE_US) == CONFLICTING).all()
    assert (send([1, 3, 997]) == ACCEPTED).all()
    assert (send([1, 3, 5, 997]) == [DUPLICATE, DUPLICATE, ACCEPTED, DUPLICATE]).all()
    assert int(shard.tags.head.tags[0]["accepted"]) == 504
