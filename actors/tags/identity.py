"""Readings whose identity neither the sequence ranges nor the ring can decide, looked up in the journal (handbook 6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from actors.rules.readings import CONFLICTING, DUPLICATE, FOREVER_US, I4, I8, LATITUDE, POSITION, U1, Batch
from actors.tags.columns import MIN_US

Known = Callable[[list[int], int, int], tuple[I4, Batch]]
"""(tags, from_us, until_us) -> (position in `tags`, accepted readings)."""

Portion = Callable[[int, int, int, int], int]
"""See actors.sensor_tag.Reads."""

READINGS_AT_ONCE = 1 << 18
"""About so many readings of a tag are looked through at a time."""
TOGETHER_US = 86_400_000_000
"""What is asked for of all tags together lies within so long."""

Content = tuple[tuple[int, bytes], ...]


def _content(batch: Batch, row: int) -> Content:
    """The values of a reading, bit for bit, by column code."""
    return tuple((code, batch.values[k, row].tobytes()) for k, code in enumerate(batch.codes) if not np.isnan(batch.values[k, row]))


def _by_metric(content: Content) -> dict[int, Content]:
    """A reading's content parted into metrics: each measurement alone, a position fix as one."""
    parts: dict[int, Content] = {}
    for code, value in content:
        metric = LATITUDE if code in POSITION else code
        parts[metric] = (*parts.get(metric, ()), (code, value))
    return parts


class _Index:
    """What is known of some tags, by identity."""

    def __init__(self) -> None:
        self.sequenced: dict[tuple[int, int, int], tuple[int, Content]] = {}
        self.plain: dict[tuple[int, int, int], Content] = {}

    def add(self, tag: int, batch: Batch, row: int) -> None:
        """An accepted reading."""
        content = _content(batch, row)
        if batch.sequence[row] >= 0:
            self.sequenced[(tag, int(batch.boot[row]), int(batch.sequence[row]))] = (int(batch.sensed_us[row]), content)
        else:
            for metric, part in _by_metric(content).items():
                self.plain[(tag, int(batch.sensed_us[row]), metric)] = part


def resolve(batch: Batch, status: U1, unsure: I8, known: Known, portion: Portion) -> I8:
    """Give each row of `unsure` its status, or leave it and return it as new, in order. `batch.values` loses what a partly known
    reading repeats; a partly conflicting one is CONFLICTING and returned too.
    """
    index = _Index()

    def load(tags: Any, from_us: int, until_us: int) -> None:
        numbers = [int(tag) for tag in np.unique(tags)]
        position, rows = known(numbers, from_us, until_us)
        sequenced = rows.sequence >= 0
        asked = np.where(sequenced, np.isin(rows.sequence, batch.sequence[unsure]), np.isin(rows.sensed_us, batch.sensed_us[unsure]))
        for row in np.flatnonzero(asked).tolist():
            index.add(numbers[int(position[row])], rows, row)

    def load_portions(tag: int, from_us: int, until_us: int) -> None:
        while from_us < until_us:
            to_us = portion(tag, from_us, until_us, READINGS_AT_ONCE)
            load([tag], from_us, to_us)
            from_us = to_us

    tags, times = batch.tag[unsure], batch.sensed_us[unsure]
    if times.max() - times.min() <= TOGETHER_US:
        load(tags, int(times.min()), int(times.max()) + 1)
    else:
        for tag in np.unique(tags).tolist():
            load_portions(tag, int(times[tags == tag].min()), int(times[tags == tag].max()) + 1)
    elsewhere = {
        int(batch.tag[row])
        for row in unsure.tolist()
        if batch.sequence[row] >= 0 and (int(batch.tag[row]), int(batch.boot[row]), int(batch.sequence[row])) not in index.sequenced
    }
    for tag in sorted(elsewhere):  # the same sequence number may have come with another sensed time: a conflict
        load_portions(tag, MIN_US, FOREVER_US)
    fresh = []
    for row in unsure.tolist():
        if _decide(index, batch, row, status):
            fresh.append(row)
            index.add(int(batch.tag[row]), batch, row)
    return np.array(fresh, np.int64)


def _decide(index: _Index, batch: Batch, row: int, status: U1) -> bool:
    """Whether the row, or a part of it, is new."""
    tag, sensed_us = int(batch.tag[row]), int(batch.sensed_us[row])
    content = _content(batch, row)
    if batch.sequence[row] >= 0:
        there = index.sequenced.get((tag, int(batch.boot[row]), int(batch.sequence[row])))
        if there is None:
            return True
        status[row] = DUPLICATE if there == (sensed_us, content) else CONFLICTING
        return False
    parts = _by_metric(content)
    held = {metric: index.plain[(tag, sensed_us, metric)] for metric in parts if (tag, sensed_us, metric) in index.plain}
    conflict = any(held[metric] != parts[metric] for metric in held)
    if len(held) == len(parts):
        status[row] = CONFLICTING if conflict else DUPLICATE
        return False
    for k, code in enumerate(batch.codes):
        if (LATITUDE if code in POSITION else code) in held:
            batch.values[k, row] = np.nan
    if conflict:
        status[row] = CONFLICTING
    return True
