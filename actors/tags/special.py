"""Tags whose judging needs more than a row of state: mkt limits look back over a window, quality tests over neighbours.

Their open custody's readings are kept in memory as one ordered series (about 40 bytes a reading with one metric). In-order
readings move the head on as for other tags; anything else judges the whole custody again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actors.rules import exposure, quality, readings
from actors.rules.readings import FAIL, FOREVER_US, Batch
from actors.tags import whole
from actors.tags.changes import Changes
from actors.tags.columns import MIN_US
from actors.tags.head import Head
from actors.tags.records import Rows


@dataclass(slots=True)
class Series:
    """All accepted readings of an open custody in judging order, and which of their values are flagged *fail*."""

    batch: Batch
    failed: readings.B1


def failures(batch: Batch, settings: quality.QualitySettings | None) -> readings.B1:
    """Which values are flagged *fail*, shape of `batch.values`."""
    if settings is None:
        return np.zeros(batch.values.shape, np.bool_)
    return np.asarray(whole.quality_flags(batch, settings) == FAIL)


def nothing() -> Series:
    """The series of a custody that has no reading yet."""
    none = np.zeros(0, np.int64)
    return Series(Batch(np.zeros(0, np.int32), none, none, none, (), np.zeros((0, 0))), np.zeros((0, 0), np.bool_))


def take(
    head: Head, tag: int, series: Series, new: Batch, settings: quality.QualitySettings | None, cause: str, changes: Changes
) -> Series:
    """Judge the tag's open custody with `new` readings of it (any order, tag 0) after those of `series`."""
    merged = whole.ordered(readings.concatenate([series.batch, new]))
    old = len(series.batch)
    appended = bool(
        np.array_equal(merged.sensed_us[:old], series.batch.sensed_us)
        and np.array_equal(merged.sequence[:old], series.batch.sequence)
        and np.array_equal(merged.boot[:old], series.batch.boot)
    )
    failed = failures(merged, settings)
    known_failed = np.zeros((len(merged.codes), old), np.bool_)
    known_failed[[merged.codes.index(code) for code in series.batch.codes]] = series.failed
    if not appended or not np.array_equal(failed[:, :old], known_failed):
        return judge_all(head, tag, merged, settings, "quality" if appended and settings is not None else cause, changes)
    usable = Batch(merged.tag, merged.sensed_us, merged.boot, merged.sequence, merged.codes, np.where(failed, np.nan, merged.values))
    _move_on(head, tag, usable, old, changes)
    return Series(merged, failed)


def _move_on(head: Head, tag: int, usable: Batch, old: int, changes: Changes) -> None:
    """In-order readings `usable[old:]` after all that the head has judged of the tag."""
    group = whole.single_group(old, len(usable))
    own = readings.Groups(np.full(len(group.tag), tag, np.int32), group.start, group.order)
    head.advance(own, usable, changes)
    rows = head.rows_of(tag)
    for row, track in enumerate(rows.tracks):
        if int(track["mode"]) == exposure.MKT and int(track["metric"]) in usable.codes:
            held = ~np.isnan(usable.values[usable.codes.index(int(track["metric"]))])
            held[:old] = False
            at_us = usable.sensed_us[held]
            series = whole.trailing(head.rulebook, track, usable, at_us)
            for run in exposure.advance_series(rows.tracks, row, at_us, series, head.rulebook.windows, head.rulebook.limits):
                head.state_run(tag, row, run, "reading", changes)
    head.keep(np.array([tag], np.int32), rows)


def judge_all(head: Head, tag: int, batch: Batch, settings: quality.QualitySettings | None, cause: str, changes: Changes) -> Series:
    """Judge the tag's open custody from its start on `batch`, all of its readings in judging order."""
    custody = head.custodies[tag]
    carrier = head.rulebook.carriers[custody.carrier]
    before = head.live_excursions(tag)
    tracks, visits = head.fresh_rows(custody, carrier, FOREVER_US)
    usable = whole.usable(batch, settings)
    judged = whole.judge_whole(head.rulebook, carrier, custody.custody_id, tracks, visits, usable, FOREVER_US)
    head.keep(np.array([tag], np.int32), Rows.of_one(judged.tracks, judged.visits))
    head.revise(tag, custody, judged.excursions, before, MIN_US, cause, changes)
    head.revise_visits(tag, custody, judged.stated_visits, MIN_US, set(), cause, changes)
    return Series(batch, failures(batch, settings))
