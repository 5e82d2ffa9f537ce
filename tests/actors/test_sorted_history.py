"""A running shard sorts its history by tag in the background; nothing that is asked of it changes, nor does what a successor finds."""

from __future__ import annotations

from typing import Any

import numpy as np
from sqlmodel import col

from actors.directory import now_us
from actors.journal.tables import JournalBatch, Segment
from actors.part import Part, pack
from actors.rules.readings import DUPLICATE, MINUTE_US, Batch, concatenate_flagged
from tests.acceptance.client import eventually
from tests.actors.system import System

TAGS, ROWS = 50, 800
"""Two messages of so many readings each are enough to be sorted (compaction.Settings)."""


def message(tag_ids: list[str], first: int, start_us: int) -> Part:
    """ROWS readings a tag, a second apart, from second `first` on; the tags take turns."""
    tag = np.tile(np.arange(TAGS, dtype=np.int32), ROWS)
    second = np.repeat(np.arange(first, first + ROWS, dtype=np.int64), TAGS)
    values = np.round(4.0 + (second * 7 + tag) % 300 / 100.0, 2)[None, :]
    return Part(
        "\n".join(tag_ids).encode(), Batch(tag, start_us + second * 1_000_000, np.full(len(tag), 1, np.int64), second, (0,), values)
    )


def test_history_is_sorted_in_the_background_and_a_killed_shard_finds_it(system: System) -> None:
    tag_ids = [system.tag_in(0) for _ in range(TAGS)]
    start_us = now_us() - 100 * MINUTE_US
    parts = [message(tag_ids, number * ROWS, start_us) for number in range(4)]

    def send(part: Part) -> int:
        [reply] = system.directory.ask(tag_ids[0], "ingest", pack([part]), now_us())
        return int((reply.status == DUPLICATE).sum())

    def series(tag: int) -> tuple[list[int], list[float]]:
        parts = []
        asked: dict[str, Any] = {"tag_id": tag_ids[tag], "from_us": 0, "rows": 700}
        while asked["from_us"] is not None:
            batch, flags, asked["from_us"] = system.directory.ask(tag_ids[tag], "query", "tag.series", asked)
            parts.append((batch, flags))
        assert len(parts) >= 3
        batch, _ = concatenate_flagged(parts)
        return batch.sequence.tolist(), batch.values[batch.codes.index(0)].tolist()

    assert [send(part) for part in (parts[0], parts[1], parts[3])] == [0, 0, 0]
    before = [series(tag) for tag in (0, 17, TAGS - 1)]
    assert [len(told[0]) for told in before] == [3 * ROWS] * 3
    head = system.owner(0).journal_head
    assert eventually(lambda: system.owner(0).sorted_sequence >= head - 2)
    assert sum(segment.readings for segment in system.rows(Segment, Segment.shard == 0)) >= 2 * TAGS * ROWS
    first = JournalBatch.shard == 0, col(JournalBatch.kind) == "readings", col(JournalBatch.readings) == TAGS * ROWS
    assert eventually(lambda: len(system.rows(JournalBatch, *first)) < 3), "what is behind the older snapshot is removed"
    assert [series(tag) for tag in (0, 17, TAGS - 1)] == before

    system.kill(0)
    assert system.patiently(lambda: [series(tag) for tag in (0, 17, TAGS - 1)]) == before
    assert system.patiently(lambda: send(parts[1])) == TAGS * ROWS, "known, from a segment"
    assert send(parts[2]) == 0
    assert series(17)[0] == list(range(4 * ROWS)), "the late ones in their places"
