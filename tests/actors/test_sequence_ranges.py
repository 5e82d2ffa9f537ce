"""The sequences that were received of each tag and boot, kept as ranges: against a plain set."""

from __future__ import annotations

import random

import numpy as np
import pytest

from actors.rules.readings import ACCEPTED, CODE, CONFLICTING, DUPLICATE, MINUTE_US, U1, Batch
from actors.tags import admit
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
        if ranges.low[node] >= 0:
            found.append((int(ranges.boot[node]), int(ranges.low[node]), int(ranges.high[node])))
        node = int(ranges.next[node])
    return sorted(found)


def floor_of(row: int, tags: object, ranges: admit.Ranges) -> tuple[int, int]:
    """(boot, sequence) up to which a tag has forgotten; before everything where it has forgotten nothing."""
    node = int(tags[row]["range_head"])  # type: ignore[index]
    while node >= 0:
        if ranges.low[node] < 0:
            return int(ranges.boot[node]), int(ranges.high[node])
        node = int(ranges.next[node])
    return -1, -1


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


@pytest.mark.parametrize("seed", range(40))
def test_a_tag_with_many_holes_forgets_its_lowest_ranges_and_is_unsure_of_nothing_above(seed: int) -> None:
    r = random.Random(seed)
    tags, ranges = empty_tags(1), admit.Ranges()
    turns = 3_000
    ranges.make_room(turns)
    received: set[tuple[int, int]] = set()
    boots, backwards, spread = r.choice([1, 1, 2, 5]), r.choice([0.0, 0.2, 0.9]), r.choice([40, 4_000])
    unsure = 0
    for turn in range(turns):
        boot = turn * boots // turns if r.random() < 0.9 else r.randint(0, boots - 1)
        sequence = max(0, 2 * turn - r.randint(0, spread)) if r.random() < backwards else 2 * turn + r.randint(0, 1)
        above = (boot, sequence) > floor_of(0, tags, ranges)
        on_top = tags[0]["top_boot"] == boot and tags[0]["top_low"] <= sequence
        held = admit._note_sequence(tags, 0, boot, sequence, ranges.boot, ranges.low, ranges.high, ranges.next, ranges.state)
        if above or on_top:
            assert held == ((boot, sequence) in received)
        else:
            assert held
            unsure += (boot, sequence) not in received
        received.add((boot, sequence))
    assert int(tags[0]["ranges"]) == len(ranges_of(0, tags, ranges)) - 1 <= admit.RANGES_MAX
    assert ranges.state[0] <= admit.RANGES_MAX + 2
    floor = floor_of(0, tags, ranges)
    held_now = {(boot, one) for boot, low, high in ranges_of(0, tags, ranges) for one in range(low, high + 1)}
    assert {one for one in held_now if one > floor} == {one for one in received if one > floor}
    assert held_now <= received
    assert floor > (-1, -1)
    assert backwards == 0.0 or spread == 40 or unsure


@pytest.mark.parametrize("ring_rows", [1 << 4, 1 << 12])
@pytest.mark.parametrize("restarted", [False, True])
def test_what_a_tag_has_forgotten_is_looked_up(ring_rows: int, restarted: bool) -> None:
    shard = OneShard(ring_rows)
    shard.command("tag.register", START_US, tag_id="T")
    now_us = START_US + 2_000 * MINUTE_US

    def send(sequences: list[int], value: float = 5.0) -> U1:
        n = len(sequences)
        times = START_US + np.array(sequences, np.int64) * MINUTE_US
        batch = Batch(
            np.zeros(n, np.int32), times, np.full(n, 3, np.int64), np.array(sequences, np.int64),
            (CODE["temperature_c"],), np.full((1, n), value),
        )  # fmt: skip
        return shard.ingest(["T"], batch, now_us)

    for start in range(0, 1_000, 100):
        assert (send(list(range(start, start + 100, 2))) == ACCEPTED).all()
    if restarted:
        shard = shard.restarted(shard.tags.dump(), len(shard.journal.entries))
    assert (send([0, 2, 4, 998]) == DUPLICATE).all()
    assert (send([0, 2, 998], value=9.0) == CONFLICTING).all()
    assert (send([1, 3, 997]) == ACCEPTED).all()
    assert (send([1, 3, 5, 997]) == [DUPLICATE, DUPLICATE, ACCEPTED, DUPLICATE]).all()
    assert int(shard.tags.head.tags[0]["accepted"]) == 504
