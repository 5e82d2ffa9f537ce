"""Neighbours across the edges of custodies: the flags that a custody is judged by are those of its tag's whole series (handbook 4).

A tag with quality settings keeps in memory the few readings that the flags of its next ones look at, whether it rides or not
(`special.Series`); so readings that come in order ask for nothing else. What they change of an earlier flag is found there: the last
reading of a closed custody becomes a spike, or ceases to be one, by the first one after it. Late readings look around themselves in the
ring or the journal. A closed custody in which a *fail* came or went is judged again; one in which none did stays as it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from actors.rules import neighbours, readings
from actors.rules.quality import QualitySettings
from actors.rules.readings import FOREVER_US, I8, U1, Batch
from actors.tags import faults, special, whole
from actors.tags.changes import Changes
from actors.tags.columns import MIN_US
from actors.tags.special import Series

if TYPE_CHECKING:
    from actors.sensor_tag import SensorTags

NO_TIMES: I8 = np.zeros(0, np.int64)


def usable(tags: SensorTags, tag: int, from_us: int, until_us: int) -> Batch:
    """The tag's judged readings of [from_us, until_us) in judging order, without (NaN) the values that its whole series flags *fail*."""
    settings = tags.quality.get(tag)
    if settings is None:
        return whole.ordered(tags.series_of(tag, from_us, until_us))
    wide = whole.usable(_around(tags, tag, settings, from_us, until_us), settings)
    return readings.subset(wide, slice(*np.searchsorted(wide.sensed_us, [from_us, until_us]).tolist()))


def _around(tags: SensorTags, tag: int, settings: QualitySettings, from_us: int, until_us: int) -> Batch:
    newest_us = int(tags.head.tags[tag]["newest_us"])
    return neighbours.gather(settings, lambda low, high: whole.ordered(tags.series_of(tag, low, high)), from_us, until_us, newest_us)


def flagged(tags: SensorTags, tag: int, from_us: int, until_us: int) -> tuple[Batch, U1]:
    """The tag's committed readings of [from_us, until_us) in judging order, with the flags that they have in its whole series."""

    def read(low_us: int, high_us: int) -> Batch:
        return whole.ordered(tags.reads.history([tag], low_us, high_us)[1])

    settings = tags.quality.get(tag)
    if settings is None:
        batch = read(from_us, until_us)
        return batch, flags_of(tags, tag, batch, None)
    wide = neighbours.gather(settings, read, from_us, until_us, int(tags.head.tags[tag]["newest_us"]))
    inside = slice(*np.searchsorted(wide.sensed_us, [from_us, until_us]).tolist())
    return readings.subset(wide, inside), flags_of(tags, tag, wide, settings)[:, inside]


def flags_of(tags: SensorTags, tag: int, batch: Batch, settings: QualitySettings | None) -> U1:
    """The flags of a tag's readings in judging order. A sensed time that is still in the future is an impossible date: *fail* until then.

    Such a reading is outside the rules (handbook 6), so it is nobody's neighbour either.
    """
    held = set(tags.held.get(tag, ()))
    if not held:
        return np.asarray(whole.quality_flags(batch, settings), np.uint8)
    keys = zip(batch.sensed_us.tolist(), batch.boot.tolist(), batch.sequence.tolist(), strict=True)
    future = np.array([key in held for key in keys], np.bool_)
    flags = whole.quality_flags(replace(batch, values=np.where(future, np.nan, batch.values)), settings)
    return np.where(future & ~np.isnan(batch.values), np.uint8(readings.FAIL), flags)


# ---------------------------------------------------------------- the series in memory


def load(tags: SensorTags, tag: int) -> Series:
    """A special tag's series, from the ring or the journal."""
    settings, row = tags.quality.get(tag), tags.head.tags[tag]
    from_us = int(row["custody_from_us"])
    if not row["accepted"]:
        return special.nothing()
    if settings is None:
        batch = whole.ordered(tags.series_of(tag, from_us, FOREVER_US))
        return Series(batch, special.failures(batch, None), from_us)
    from_us = min(from_us, int(row["newest_us"]) + 1)
    wanted = list(tags.latest.of(tag))
    back_us = neighbours.FIRST_US
    while True:
        low_us = max(from_us - neighbours.longest_us(settings) - back_us, 0)
        batch = whole.ordered(tags.series_of(tag, low_us, FOREVER_US))
        found = neighbours.beside(settings, batch.codes, batch.sensed_us, batch.values, from_us, FOREVER_US, wanted)
        if found.before or not low_us:
            break
        back_us *= neighbours.FURTHER
    return _cut(Series(batch, special.failures(batch, settings), low_us or MIN_US), found.low, from_us)


def _cut(series: Series, low: int, edge_us: int) -> Series:
    """The series without the rows before `low`, where these are of no use to what is sensed from edge_us on."""
    if not low:
        return series
    since_us = min(edge_us, int(series.batch.sensed_us[low])) if low < len(series.batch) else edge_us
    return Series(readings.subset(series.batch, slice(low, None)), series.failed[:, low:].copy(), since_us)


def let_go(tags: SensorTags, tag: int) -> None:
    """The tag rides nowhere any more: of its series stays what its next readings look at."""
    settings, series = tags.quality.get(tag), tags.series.pop(tag, None)
    if settings is not None and series is not None:
        tags.series[tag] = _tail(settings, series)


def _tail(settings: QualitySettings, series: Series) -> Series:
    batch = series.batch
    end_us = int(batch.sensed_us[-1]) + 1 if len(batch) else 0
    return _cut(series, neighbours.beside(settings, batch.codes, batch.sensed_us, batch.values, end_us, end_us, batch.codes).low, end_us)


def reload(tags: SensorTags, tag: int) -> None:
    """The tag's quality settings are others: its series is what these look at."""
    tags.series.pop(tag, None)
    if tag in tags.quality:
        tags.series[tag] = load(tags, tag)


# ---------------------------------------------------------------- new readings


def take(tags: SensorTags, tag: int, new: Batch, cause: str, changes: Changes) -> I8:
    """`new` readings of a special tag (any order, tag 0): its series has them, and its open custody is judged with them.

    Returns the sensed times of earlier readings outside of the open custody of which a *fail* came or went with them.
    """
    head, settings = tags.head, tags.quality.get(tag)
    from_us = int(head.tags[tag]["custody_from_us"])
    fresh = tags.series.get(tag)
    known = fresh if fresh is not None and _reaches(fresh, new, settings, from_us) else _without(load(tags, tag), new, settings)
    touched = NO_TIMES if settings is None or tags.replaying else _touched(tags, tag, known, new, settings, from_us)
    kept = readings.subset(new, new.sensed_us >= min(from_us, known.since_us))
    if tag not in head.custodies:
        assert settings is not None
        tags.series[tag] = _tail(settings, special.merged(known, kept, None))  # nobody asks for flags before it rides
        return touched
    tags.series[tag] = now = special.merged(known, kept, settings)
    if fresh is None and known.inside(from_us) < len(known.batch):
        special.judge_all(head, tag, now, cause, changes)
    else:
        special.take(head, tag, known, now, cause, changes)
    inside = new.sensed_us >= from_us
    if settings is not None and inside.any():
        faults.state(tags, tag, _cut(now, now.inside(from_us), from_us), readings.subset(new, inside), changes)
    return touched


def _reaches(series: Series, new: Batch, settings: QualitySettings | None, from_us: int) -> bool:
    """Whether the series holds all that flags look at, with these new readings: it does but where a reading from before it may be the
    only one of its metric there.
    """
    early = new.sensed_us < min(from_us, series.since_us)
    if settings is None or not early.any():
        return True
    batch = series.batch
    values = new.values[:, early]
    codes = [code for k, code in enumerate(new.codes) if not np.isnan(values[k]).all()]
    edge_us = min(from_us, int(batch.sensed_us[-1]) + 1) if len(batch) else from_us
    return neighbours.beside(settings, batch.codes, batch.sensed_us, batch.values, edge_us, edge_us, codes).before


def _without(series: Series, new: Batch, settings: QualitySettings | None) -> Series:
    """The series before the `new` readings came."""
    batch = readings.subset(series.batch, ~_among(series.batch, new))
    return Series(batch, special.failures(batch, settings), series.since_us)


def _among(batch: Batch, new: Batch) -> readings.B1:
    """Which of the readings are `new` ones."""
    keys = set(zip(new.sensed_us.tolist(), new.boot.tolist(), new.sequence.tolist(), strict=True))
    mine = zip(batch.sensed_us.tolist(), batch.boot.tolist(), batch.sequence.tolist(), strict=True)
    return np.array([key in keys for key in mine], np.bool_)


# ---------------------------------------------------------------- closed custodies


def _touched(tags: SensorTags, tag: int, known: Series, new: Batch, settings: QualitySettings, from_us: int) -> I8:
    """The sensed times, before `from_us`, of earlier readings that flags *fail* came to or left with the `new` ones."""
    past_until_us = int(tags.head.tags[tag]["past_until_us"])
    if past_until_us == MIN_US or _earliest(known, new, settings) >= past_until_us:
        return NO_TIMES
    if known.since_us == MIN_US or (len(known.batch) and int(new.sensed_us.min()) > int(known.batch.sensed_us[-1])):
        wide = whole.ordered(readings.concatenate([known.batch, new]))
        low_us, high_us = MIN_US, FOREVER_US
    else:
        near = _around(tags, tag, settings, int(new.sensed_us.min()), int(new.sensed_us.max()) + 1)
        low_us, high_us = int(near.sensed_us[0]), int(near.sensed_us[-1]) + neighbours.longest_us(settings) + 1
        wide = _around(tags, tag, settings, low_us, high_us)
    old = ~_among(wide, new)
    before = readings.subset(wide, old)
    differ = (special.failures(wide, settings)[:, old] != special.failures(before, settings)).any(axis=0)
    times: I8 = before.sensed_us[differ]
    return times[(times >= low_us) & (times < min(high_us, from_us, past_until_us))]


def _earliest(known: Series, new: Batch, settings: QualitySettings) -> int:
    """No flag of an earlier reading changes with the `new` ones before this time: that of the value before the first of them."""
    earliest = FOREVER_US
    for code in neighbours.looking(settings, new.codes):
        valued = new.sensed_us[~np.isnan(new.values[new.codes.index(code)])]
        if not len(valued):
            continue
        first_us = int(valued.min())
        before = NO_TIMES
        if code in known.batch.codes:
            before = known.batch.sensed_us[~np.isnan(known.batch.values[known.batch.codes.index(code)])]
            before = before[before < first_us]
        earliest = min(earliest, int(before[-1]) if len(before) else first_us if known.since_us == MIN_US else MIN_US)
    return earliest
