"""Readings beside a custody that its quality flags look at: neighbours are the tag's, in whatever custody they lie (handbook 4)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Engine

from actors.journal import archive, archived, history, pages
from actors.journal.archive import Journey
from actors.journal.pages import Rows
from actors.rules import neighbours, quality
from actors.rules.quality import QualitySettings
from actors.rules.readings import COLUMNS, FOREVER_US, FUTURE_TOLERANCE_US, I8, U1, Batch
from actors.tags.past import JUDGED_AGAIN


@dataclass(frozen=True, slots=True)
class InForce:
    """The quality settings that a closed custody was last judged by, and until when these were its tag's: no flag looks at later ones."""

    settings: QualitySettings | None
    until_us: int


def in_force(journey: Journey, custody: Mapping[str, Any], newest_received_us: int) -> InForce:
    """Settings that were told after the custody was last judged leave it as it is. newest_received_us: of its own readings."""
    judged_us = max(int(custody["ended_us"] or 0), int(custody["assigned_us"]), newest_received_us)
    for said in journey.custody_revisions:
        if said["custody_id"] == custody["custody_id"]:
            judged_us = max(judged_us, int(said["at_us"]))
    for event in journey.events:
        if event["kind"] == JUDGED_AGAIN and event["body"]["custody_id"] == custody["custody_id"]:
            judged_us = max(judged_us, int(event["recorded_us"]))
    held = None
    for event in journey.tag_events:
        if event["tag_id"] != custody["tag_id"]:
            continue
        told = event["body"].get("quality")
        if int(event["recorded_us"]) > judged_us and told != held:
            return InForce(_settings(held), int(event["recorded_us"]))
        held = told
    return InForce(_settings(held), FOREVER_US)


def _settings(told: Mapping[str, Any] | None) -> QualitySettings | None:
    return None if told is None else QualitySettings.from_data(told)


def margin_us(journeys: Sequence[Journey]) -> int:
    """How far beside custodies it is worth reading at once: most have their neighbours there. 0 where no tag has quality settings."""
    told = [_settings(event["body"].get("quality")) for journey in journeys for event in journey.tag_events]
    return max((neighbours.FIRST_US + neighbours.longest_us(one) for one in told if one is not None), default=0)


def received(engine: Engine, shard: int, tags: Sequence[int], rows: Rows) -> I8:
    """When readings of some tags were received."""
    known = archive.received_us(engine, shard, np.unique(rows.journal).tolist())
    missing = {one for one in np.unique(rows.journal).tolist() if one not in known}
    if missing:  # the journal has given them up: as the archive keeps it
        with engine.connect() as connection:
            known |= {number: at for number, at in archived.received_of_tags(connection, shard, tags) if number in missing}
    return np.array([known.get(one, 0) for one in rows.journal.tolist()], np.int64)


def of_custody(engine: Engine, shard: int, local_index: int, custody: Mapping[str, Any], rules: InForce, near: Rows) -> tuple[Rows, I8]:
    """The readings beside a custody that its flags look at, or looked at before nearer ones came, in judging order, and when received.

    near: the tag's readings in judging order as far as they have been read.
    """
    settings, from_us, until_us = rules.settings, int(custody["from_us"]), int(custody["until_us"] or FOREVER_US)
    if settings is None or not neighbours.looking(settings, range(len(COLUMNS))):
        return pages.subset(near, slice(0, 0)), np.zeros(0, np.int64)
    read = _Read(engine, shard, local_index, near)
    found = _beside(settings, near, from_us, until_us)
    if not (found.before and found.after):
        neighbours.gather(settings, read, from_us, until_us, time.time_ns() // 1000 + FUTURE_TOLERANCE_US)
        found = _beside(settings, read.rows, from_us, until_us)
    rows, received_us = read.rows, received(engine, shard, [local_index], read.rows)
    nearest = slice(int(np.searchsorted(rows.batch.sensed_us, until_us)), found.high)
    latest_us = int(received_us[nearest].max(initial=0)) + FUTURE_TOLERANCE_US
    if len(rows) and latest_us > int(rows.batch.sensed_us[-1]):  # what came before the nearest one was the nearest until then
        read(int(rows.batch.sensed_us[0]), latest_us)
        rows, received_us = read.rows, received(engine, shard, [local_index], read.rows)
    known = received_us < rules.until_us
    rows, received_us = pages.subset(rows, known), received_us[known]
    arrival = np.argsort(np.lexsort((rows.row, rows.journal)), kind="stable")
    chosen = neighbours.ever_beside(settings, rows.batch, arrival, from_us, until_us)
    return pages.subset(rows, chosen), received_us[chosen]


def _beside(settings: QualitySettings, rows: Rows, from_us: int, until_us: int) -> neighbours.Beside:
    return neighbours.beside(settings, rows.batch.codes, rows.batch.sensed_us, rows.batch.values, from_us, until_us, None)


class _Read:
    """A tag's readings of a span in judging order, as `neighbours.gather` asks for them; the last ones stay in `rows`."""

    def __init__(self, engine: Engine, shard: int, local_index: int, rows: Rows) -> None:
        self.engine, self.shard, self.local_index, self.rows = engine, shard, local_index, rows

    def __call__(self, from_us: int, until_us: int) -> Batch:
        _, rows = history.read_rows(self.engine, self.shard, [self.local_index], from_us, until_us)
        self.rows = pages.by_tag(rows) if len(rows) else rows
        return self.rows.batch


def flags(rows: Rows, beside: Rows, settings: QualitySettings | None, from_us: int) -> U1 | None:
    """The flags of a custody's readings among those beside it, (m, n) of `rows.batch`; None where there are no settings."""
    if settings is None or not len(rows):
        return None
    first = int(np.searchsorted(beside.batch.sensed_us, from_us))
    parts = [pages.subset(beside, slice(0, first)), rows, pages.subset(beside, slice(first, None))]
    batch = pages.concatenate([part for part in parts if len(part)]).batch
    found = quality.flags(settings, batch.codes, batch.sensed_us, batch.values)
    mine = [batch.codes.index(code) for code in rows.batch.codes]
    return found[mine, first : first + len(rows)]
