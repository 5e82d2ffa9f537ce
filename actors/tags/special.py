"""Tags whose judging needs more than a row of state: mkt limits look back over a window, quality tests over neighbours.

Their open custody's readings are kept in memory as one ordered series (about 40 bytes a reading with one metric). In-order
readings move the head on as for other tags; anything else judges the whole custody again. With quality settings the series begins with
the readings before the custody that flags inside it look at, and a tag that rides nowhere keeps these alone (tags/neighbours.py).
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
    """Accepted readings of a tag in judging order, up to its newest, and which of their values are flagged *fail*.

    Those of its open custody and, before them, those that their flags look at: from `since_us` on all that there are, MIN_US where these
    are all of the tag's. The flags of the very first are those of a series that begins there.
    """

    batch: Batch
    failed: readings.B1
    since_us: int

    def inside(self, from_us: int) -> int:
        """The first row that is sensed at `from_us` or later."""
        return int(np.searchsorted(self.batch.sensed_us, from_us))


def failures(batch: Batch, settings: quality.QualitySettings | None) -> readings.B1:
    """Which values are flagged *fail*, shape of `batch.values`."""
    if settings is None:
        return np.zeros(batch.values.shape, np.bool_)
    return np.asarray(whole.quality_flags(batch, settings) == FAIL)


def nothing() -> Series:
    """The series of a tag that has no reading yet."""
    none = np.zeros(0, np.int64)
    return Series(Batch(np.zeros(0, np.int32), none, none, none, (), np.zeros((0, 0))), np.zeros((0, 0), np.bool_), MIN_US)


def merged(series: Series, new: Batch, settings: quality.QualitySettings | None) -> Series:
    """The series with `new` readings (any order, tag 0)."""
    batch = whole.ordered(readings.concatenate([series.batch, new]))
    return Series(batch, failures(batch, settings), series.since_us)


def take(head: Head, tag: int, known: Series, now: Series, cause: str, changes: Changes) -> None:
    """Judge the tag's open custody on the series `now`, which has more readings than the one that it was judged on, `known`.

    cause: of what readings inside it change; what those before it change is a flag, and its cause `quality`.
    """
    from_us = int(head.tags[tag]["custody_from_us"])
    first, known_first = now.inside(from_us), known.inside(from_us)
    old = len(known.batch) - known_first
    more = len(now.batch) - first > old
    appended = all(
        np.array_equal(getattr(now.batch, name)[first : first + old], getattr(known.batch, name)[known_first:])
        for name in ("sensed_us", "boot", "sequence")
    )
    known_failed = np.zeros((len(now.batch.codes), old), np.bool_)
    known_failed[[now.batch.codes.index(code) for code in known.batch.codes]] = known.failed[:, known_first:]
    same = appended and np.array_equal(now.failed[:, first : first + old], known_failed)
    if same and more:
        _move_on(head, tag, _usable(now, first), old, changes)
    elif not same:
        judge_all(head, tag, now, "quality" if appended else cause, changes)


def _usable(series: Series, first: int) -> Batch:
    """The readings from row `first` on, with every value flagged *fail* made absent."""
    batch = series.batch
    values = np.where(series.failed, np.nan, batch.values)
    return readings.subset(Batch(batch.tag, batch.sensed_us, batch.boot, batch.sequence, batch.codes, values), slice(first, None))


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


def judge_all(head: Head, tag: int, series: Series, cause: str, changes: Changes) -> None:
    """Judge the tag's open custody from its start on all of its readings."""
    custody = head.custodies[tag]
    carrier = head.rulebook.carriers[custody.carrier]
    before = head.live_excursions(tag)
    tracks, visits = head.fresh_rows(custody, carrier, FOREVER_US)
    usable = _usable(series, series.inside(custody.from_us))
    judged = whole.judge_whole(head.rulebook, carrier, custody.custody_id, tracks, visits, usable, FOREVER_US)
    head.keep(np.array([tag], np.int32), Rows.of_one(judged.tracks, judged.visits))
    head.revise(tag, custody, judged.excursions, before, MIN_US, cause, changes)
    head.revise_visits(tag, custody, judged.stated_visits, MIN_US, set(), cause, changes)
