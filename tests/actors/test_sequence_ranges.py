"""The sequences that were received of each tag and boot, kept as ranges: against a plain set."""

from __future__ import annotations

import random

import pytest

from actors.tags import admit
from actors.tags.columns import empty_tags

Range = tuple[int, int, int]


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
