"""The readings of many messages put together and dealt to the shards that their tags live in: arrays and ids, nothing is sent here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from actors.rules import readings
from actors.rules._compile import compiled, frozen
from actors.rules.readings import Batch
from services.tag_ids import TagIds

I8 = npt.NDArray[np.int64]
I4 = npt.NDArray[np.int32]
F8 = npt.NDArray[np.float64]


def together(messages: Sequence[tuple[TagIds, Batch]]) -> tuple[TagIds, Batch]:
    """All readings as one batch in the order of the messages, over one table of ids (which may name an id more than once)."""
    if len(messages) == 1:
        ids_of_one, batch = messages[0]
        return ids_of_one, replace(batch, values=np.ascontiguousarray(batch.values))
    tables: dict[int, tuple[int, TagIds]] = {}  # and where each begins: messages that were decoded together have the same
    batches = []
    end = 0
    for its_ids, batch in messages:
        begin, _ = tables.setdefault(id(its_ids), (end, its_ids))
        if begin == end:
            end += len(its_ids)
        moved = batch.tag + np.int32(begin) if begin else batch.tag
        batches.append(Batch(moved, batch.sensed_us, batch.boot, batch.sequence, batch.codes, batch.values))
    return TagIds.concatenate([table for _, table in tables.values()]), readings.concatenate(batches)


def split(ids: TagIds, batch: Batch, shard_of_tag: npt.NDArray[np.int32]) -> list[tuple[int, bytes, Batch, I8 | slice]]:
    """(shard, its ids joined by line ends, its readings, which rows these are) for each shard that has any."""
    n, many = len(batch), len(batch.codes)
    shards = int(shard_of_tag.max(initial=0)) + 1
    rows_of, ids_of = np.zeros(shards + 1, np.int64), np.zeros(shards + 1, np.int64)
    number = np.full(len(ids), -1, np.int32)
    _count(frozen(batch.tag), shard_of_tag, number, rows_of, ids_of)
    rows, tag = np.empty(n, np.int64), np.empty(n, np.int32)
    times, values = np.empty((3, n), np.int64), np.empty(many * n)
    _deal(
        frozen(batch.tag), frozen(batch.sensed_us), frozen(batch.boot), frozen(batch.sequence), frozen(batch.values),
        shard_of_tag, number, rows_of, rows, tag, times, values,
    )  # fmt: skip
    chosen = np.empty(int(ids_of[-1]), np.int64)
    known = np.flatnonzero(number >= 0)
    chosen[ids_of[shard_of_tag[known]] + number[known]] = known
    parts: list[tuple[int, bytes, Batch, I8 | slice]] = []
    for shard in np.flatnonzero(np.diff(rows_of)).tolist():
        low, high = int(rows_of[shard]), int(rows_of[shard + 1])
        mine = values[many * low : many * high].reshape(many, high - low)
        part = Batch(tag[low:high], times[0, low:high], times[1, low:high], times[2, low:high], batch.codes, mine)
        names = ids.subset(chosen[ids_of[shard] : ids_of[shard + 1]]).lines()
        parts.append((shard, names, part, rows[low:high]))
    return parts


@compiled
def _count(tag: I4, shard_of_tag: I4, number: I4, rows_of: I8, ids_of: I8) -> None:
    """Number the tags that have readings, each shard's by themselves; rows_of, ids_of: where each shard's rows and ids begin."""
    for row in range(len(tag)):
        shard = shard_of_tag[tag[row]]
        rows_of[shard + 1] += 1
        number[tag[row]] = 0
    for at in range(len(number)):
        if number[at] == 0:
            shard = shard_of_tag[at]
            number[at] = ids_of[shard + 1]
            ids_of[shard + 1] += 1
    for shard in range(len(rows_of) - 1):
        rows_of[shard + 1] += rows_of[shard]
        ids_of[shard + 1] += ids_of[shard]


@compiled
def _deal(
    tag: I4, sensed_us: I8, boot: I8, sequence: I8, values: F8, shard_of_tag: I4, number: I4, rows_of: I8,
    rows: I8, tags: I4, times: I8, dealt: F8,
) -> None:  # fmt: skip
    """Each shard's rows together, in their order: where they came from, and their columns. A shard's values are a block of their own."""
    place = rows_of.copy()
    many = len(values)
    for row in range(len(tag)):
        shard = shard_of_tag[tag[row]]
        at = place[shard]
        place[shard] += 1
        rows[at], tags[at] = row, number[tag[row]]
        times[0, at], times[1, at], times[2, at] = sensed_us[row], boot[row], sequence[row]
        low = rows_of[shard]
        size = rows_of[shard + 1] - low
        begin = many * low + at - low
        for k in range(many):
            dealt[begin + k * size] = values[k, row]
