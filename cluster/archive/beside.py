"""Readings beside a custody that its judgement looked at.

Those that its quality flags look at: neighbours are the tag's, in whatever custody they lie (handbook 4). And those that it held before it
was told to end earlier, begin later or never to have been: revisions were stated of them, which a replay in order of arrival gives again.
And, of an entry that brought readings from before a custody with its own, the last of these: such an entry is judged as late.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Engine

from actors.journal import archived, history, pages, segments
from actors.journal.archive import Journey
from actors.journal.pages import Rows
from actors.rules import neighbours, quality
from actors.rules.quality import QualitySettings
from actors.rules.readings import B1, COLUMNS, FOREVER_US, FUTURE_TOLERANCE_US, I8, U1, Batch
from actors.tags.past import JUDGED_AGAIN

BEFORE_US = 24 * 3_600_000_000
"""How far before a custody a reading is looked for that came with its own."""


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


@dataclass(frozen=True, slots=True)
class Extent:
    """What a custody held until it was told otherwise: readings sensed from_us <= t < until_us that were received before known_us."""

    from_us: int
    until_us: int
    known_us: int

    @property
    def open(self) -> bool:
        """Whether it had no end: nothing lay after it."""
        return self.until_us >= self.known_us


def earlier(journey: Journey, custody: Mapping[str, Any]) -> list[Extent]:
    """The extents that a custody had before the one that it has. None held readings that were in the future when it ended."""
    said = [one for one in journey.custody_revisions if one["custody_id"] == custody["custody_id"]]
    found = []
    for before, after in itertools.pairwise(sorted(said, key=lambda one: int(one["etag"]))):
        held, at_us = before["body"], int(after["at_us"])
        if not held["retracted"]:
            until_us = FOREVER_US if held["until_us"] is None else int(held["until_us"])
            found.append(Extent(int(held["from_us"]), min(until_us, at_us + FUTURE_TOLERANCE_US), at_us + 1))
    return found


def _settings(told: Mapping[str, Any] | None) -> QualitySettings | None:
    return None if told is None else QualitySettings.from_data(told)


def margin_us(journeys: Sequence[Journey]) -> int:
    """How far beside custodies it is worth reading at once: most have their neighbours there. 0 where no tag has quality settings."""
    told = [_settings(event["body"].get("quality")) for journey in journeys for event in journey.tag_events]
    return max((neighbours.FIRST_US + neighbours.longest_us(one) for one in told if one is not None), default=0)


def received(engine: Engine, shard: int, tags: Sequence[int], rows: Rows) -> I8:
    """When readings of some tags were received."""
    known = segments.received_us(engine, shard, np.unique(rows.journal).tolist())
    missing = {one for one in np.unique(rows.journal).tolist() if one not in known}
    if missing:  # the journal has given them up: as the archive keeps it
        with engine.connect() as connection:
            known |= {number: at for number, at in archived.received_of_tags(connection, shard, tags) if number in missing}
    return np.array([known.get(one, 0) for one in rows.journal.tolist()], np.int64)


def of_custody(
    engine: Engine, shard: int, local_index: int, custody: Mapping[str, Any], before: Sequence[Extent], rules: InForce, near: Rows,
    near_us: I8,
) -> tuple[Rows, I8]:  # fmt: skip
    """The readings outside of a custody that its extents (`before`: the earlier ones) held, that came with theirs from before them, or that
    flags in them looked at at some time.

    near, near_us: the tag's readings in judging order as far as they have been read, the extents' at least, and when these were received.
    The answer is in judging order, too.
    """
    from_us, until_us = int(custody["from_us"]), FOREVER_US if custody["until_us"] is None else int(custody["until_us"])
    if custody["retracted"]:
        until_us = from_us
    sensed_us = near.batch.sensed_us
    outside = (sensed_us < from_us) | (sensed_us >= until_us)
    final = Extent(from_us, until_us, rules.until_us)
    found = []
    for one in (final, *before):
        inside = (sensed_us >= one.from_us) & (sensed_us < one.until_us) & (near_us < one.known_us)
        if not inside.any():
            continue
        held = inside & outside
        if one is final or held.any():  # else all that its flags looked at is in the custody as it is, or beside that
            found.append(_looked_at(engine, shard, local_index, rules.settings, one, near, near_us))
        held[_came_with(near, inside)] = True
        found.append((pages.subset(near, held), near_us[held]))
    found = [(rows, times) for rows, times in found if len(rows)]
    if not found:
        return pages.subset(near, slice(0, 0)), near_us[:0]
    rows, received_us = pages.concatenate([rows for rows, _ in found]), np.concatenate([times for _, times in found])
    _, once = np.unique(np.stack([rows.journal, rows.row]), axis=1, return_index=True)
    batch, sensed_us = rows.batch, rows.batch.sensed_us[once]
    chosen = once[(sensed_us < from_us) | (sensed_us >= until_us)]
    chosen = chosen[np.lexsort((batch.sequence[chosen], batch.boot[chosen], batch.sensed_us[chosen]))]
    return pages.subset(rows, chosen), received_us[chosen]


def _came_with(near: Rows, inside: B1) -> I8:
    """Of each entry that brought some of the readings `inside` and earlier ones: the last of these, by their rows in `near`."""
    journal = near.journal
    earlier = np.arange(int(np.argmax(inside)))
    earlier = earlier[journal[earlier] >= journal[inside].min()]
    earlier = earlier[np.isin(journal[earlier], journal[inside])][::-1]
    last: I8 = earlier[np.unique(journal[earlier], return_index=True)[1]]
    return last


def _looked_at(
    engine: Engine, shard: int, local_index: int, settings: QualitySettings | None, extent: Extent, near: Rows, near_us: I8
) -> tuple[Rows, I8]:  # fmt: skip
    """The readings beside an extent that its flags look at, or looked at before nearer ones came, in judging order, and when received."""
    from_us, until_us = extent.from_us, extent.until_us
    if settings is None or not neighbours.looking(settings, range(len(COLUMNS))):
        return pages.subset(near, slice(0, 0)), near_us[:0]
    read = _Read(engine, shard, local_index, near)
    found = _beside(settings, near, from_us, until_us)
    if not (found.before and (found.after or extent.open)):
        newest_us = until_us if extent.open else time.time_ns() // 1000 + FUTURE_TOLERANCE_US
        neighbours.gather(settings, read, from_us, until_us, newest_us)
        found = _beside(settings, read.rows, from_us, until_us)
    rows = read.rows
    received_us = near_us if rows is near else received(engine, shard, [local_index], rows)
    nearest = slice(int(np.searchsorted(rows.batch.sensed_us, until_us)), found.high)
    latest_us = int(received_us[nearest].max(initial=0)) + FUTURE_TOLERANCE_US
    if len(rows) and latest_us > int(rows.batch.sensed_us[-1]):  # what came before the nearest one was the nearest until then
        read(int(rows.batch.sensed_us[0]), latest_us)
        rows, received_us = read.rows, received(engine, shard, [local_index], read.rows)
    known = received_us < extent.known_us
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
