"""Judging a custody as a whole: for closed custodies that change afterwards, and for tags with an mkt limit or quality settings.

It is the same kernels as the head's, on all of a custody's readings at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.rules import exposure, geofence, mkt, quality, readings
from actors.rules.readings import ACCURACY, FAIL, FOREVER_US, LATITUDE, LONGITUDE, Batch, Groups
from actors.tags.carriers import Carrier, Rulebook
from actors.tags.head import visits_of_events
from actors.tags.stated import StatedExcursion, StatedVisit, excursion_of_run


@dataclass(slots=True)
class Judgement:
    """A custody judged: its rows as they stand, and what they state."""

    tracks: exposure.Rows
    visits: exposure.Rows
    excursions: list[StatedExcursion]
    stated_visits: list[StatedVisit]


def usable(batch: Batch, settings: quality.QualitySettings | None) -> Batch:
    """One tag's readings in judging order with every value flagged *fail* made absent (handbook 4)."""
    if settings is None or not len(batch):
        return batch
    flags = quality_flags(batch, settings)
    return Batch(batch.tag, batch.sensed_us, batch.boot, batch.sequence, batch.codes, np.where(flags == FAIL, np.nan, batch.values))


def quality_flags(batch: Batch, settings: quality.QualitySettings | None) -> Any:
    """QARTOD flags of one tag's readings in judging order, (columns, n) uint8."""
    return quality.flags(settings, batch.codes, batch.sensed_us, batch.values)


def ordered(batch: Batch) -> Batch:
    """One tag's readings in judging order, all under tag 0."""
    zero = np.zeros(len(batch), np.int32)
    groups = readings.group(zero, batch.sensed_us, batch.boot, batch.sequence, 1)
    batch = Batch(zero, batch.sensed_us, batch.boot, batch.sequence, batch.codes, batch.values)
    return batch if np.array_equal(groups.order, np.arange(len(batch))) else readings.subset(batch, groups.order)


def single_group(start: int, stop: int) -> Groups:
    """Rows start … stop - 1 of an ordered batch of tag 0."""
    if start == stop:
        return Groups(np.zeros(0, np.int32), np.zeros(1, np.int64), np.zeros(0, np.int64))
    return Groups(np.zeros(1, np.int32), np.array([0, stop - start], np.int64), np.arange(start, stop, dtype=np.int64))


def trailing(rulebook: Rulebook, track: Any, batch: Batch, at_us: Any, *, ends: bool = False) -> Any:
    """The trailing MKT of an mkt track at the given times (ends: of custodies), from all readings of the custody that have its metric.

    Each is by the limit in force at its time, over what the limit's windows hold: what lies outside of its stages is not looked back on.
    """
    if int(track["metric"]) not in batch.codes:
        return np.full(len(at_us), np.nan)
    values = batch.values[batch.codes.index(int(track["metric"]))]
    held = ~np.isnan(values)
    return mkt.evaluate(batch.sensed_us[held], values[held], at_us, track, rulebook.windows, rulebook.limits, ends=ends)


def judge_whole(
    rulebook: Rulebook,
    carrier: Carrier,
    custody_id: int,
    tracks: exposure.Rows,
    visits: exposure.Rows,
    batch: Batch,
    until_us: int,
) -> Judgement:
    """Judge fresh `tracks` and `visits` on `batch` (usable, ordered, inside the custody); until_us FOREVER_US: it is still open."""
    count = np.array([len(tracks)], np.int32)
    zero = np.zeros(1, np.int32)
    visit_count = np.array([len(visits)], np.int32)
    groups = single_group(0, len(batch))
    visits_before = visits.copy()
    parts = []
    if len(batch):
        parts.append(
            exposure.advance(tracks, zero, count, groups, batch.sensed_us, batch.codes, batch.values, rulebook.windows, rulebook.limits)
        )
    end_values = np.full(len(tracks), np.nan)
    for row in np.flatnonzero(tracks["mode"] == exposure.MKT):
        metric = int(tracks[row]["metric"])
        if metric in batch.codes:
            mine = ~np.isnan(batch.values[batch.codes.index(metric)])
            at_us = batch.sensed_us[mine]
            series = trailing(rulebook, tracks[row], batch, at_us)
            if until_us < FOREVER_US:
                end_values[row] = trailing(rulebook, tracks[row], batch, np.array([until_us], np.int64), ends=True)[0]
            parts.append(exposure.advance_series(tracks, int(row), at_us, series, rulebook.windows, rulebook.limits))
    events = [np.zeros(0, geofence.VISIT_EVENT)]
    if len(visits) and len(batch) and LATITUDE in batch.codes and LONGITUDE in batch.codes:
        column = {code: batch.values[row] for row, code in enumerate(batch.codes)}
        accuracy = column.get(ACCURACY, np.full(len(batch), np.nan))
        events.append(
            geofence.advance(
                visits, zero, visit_count, groups, batch.sensed_us, column[LATITUDE], column[LONGITUDE], accuracy, rulebook.fences
            )
        )
    if until_us < FOREVER_US:
        if len(tracks):
            parts.append(exposure.close(tracks, np.arange(len(tracks)), until_us, rulebook.windows, rulebook.limits, end_values))
        if len(visits):
            events.append(geofence.close(visits, np.arange(len(visits)), until_us))
    runs = np.concatenate([np.zeros(0, exposure.RUN), *parts])
    ended = runs[runs["kind"] == exposure.ENDED]
    still = exposure.open_runs(tracks, np.arange(len(tracks)), rulebook.windows)
    found = [excursion_of_run(run, carrier.tracks[int(run["track"])].limit_id, custody_id) for run in np.concatenate([ended, still])]
    return Judgement(tracks, visits, found, visits_of_events(np.concatenate(events), visits_before, 0, carrier, custody_id))
