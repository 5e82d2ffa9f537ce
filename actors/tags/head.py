"""The head: the judged state of all open custodies, how batches move it on, and how late readings judge it again.

Each tag in an open custody has a block of TRACK rows (one a limit) and a block of VISIT rows (one a fence). In-order readings move
them on. Late ones go back to the tag's checkpoint where that lies before them, else to the start of its custody, and judge what came
since once more; the difference to what was stated becomes revisions. All late tags of a batch are judged together, as columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

from actors.rules import exposure, geofence, readings
from actors.rules._compile import frozen
from actors.rules.readings import ACCURACY, FOREVER_US, I4, I8, LATITUDE, LONGITUDE, Batch, Groups
from actors.tags.carriers import Carrier, Rulebook
from actors.tags.changes import Changes
from actors.tags.columns import MIN_US, SPECIAL_MKT, SPECIAL_QUALITY, RowPool, empty_tags, fresh_tags, grown
from actors.tags.ring import Ring, rows_of
from actors.tags.stated import (
    StatedExcursion,
    StatedVisit,
    excursion_of_run,
    match_excursions,
    match_visits,
    take_facts,
)

CHECKPOINT_LAG = 64
"""A checkpoint is kept at least this many readings behind a tag's newest, so that slightly late readings find it before them."""

CHECKPOINT_MOVES = 256
"""A checkpoint moves on when at least this many readings have come since it."""

ReadJournal = Callable[[list[int], int, int], tuple[I4, Batch]]
"""(tags, from_us, until_us) -> (position in `tags` of each row, rows): all accepted readings of the tags, this commit's included."""


@dataclass(slots=True)
class OpenCustody:
    """A custody that has no end yet. `prior_us`: time in violation by limit id in the tag's earlier custodies on the same carrier."""

    custody_id: int
    tag: int
    carrier: str
    handling_unit: str
    from_us: int
    prior_us: dict[str, int]


def block_index(first: npt.NDArray[Any], count: npt.NDArray[Any]) -> I8:
    """The indices of all rows of some blocks, block after block.

    >>> block_index(np.array([5, 0]), np.array([2, 1])).tolist()
    [5, 6, 0]
    """
    total = int(count.sum())
    ends = np.cumsum(count, dtype=np.int64)
    index: I8 = np.arange(total, dtype=np.int64) + np.repeat(first.astype(np.int64) - (ends - count), count)
    return index


@nb.njit(cache=True, nogil=True)
def _split_points(start: I8, order: I8, sensed_us: I8, earliest_us: I8, lag: int) -> I8:
    """Per group how many of its first readings a checkpoint may hold: none at or after the earliest late one, all of one time or none."""
    splits = np.zeros(len(start) - 1, dtype=np.int64)
    for g in range(len(start) - 1):
        begin, stop = start[g], start[g + 1]
        at = 0
        while begin + at < stop - lag and sensed_us[order[begin + at]] < earliest_us[g]:
            at += 1
        while at > 0 and begin + at < stop and sensed_us[order[begin + at - 1]] == sensed_us[order[begin + at]]:
            at -= 1
        splits[g] = at
    return splits


class Head:
    """State of the tags of one shard, without their ids."""

    def __init__(self, ring: Ring, next_id: Callable[[], int]) -> None:
        self.ring = ring
        self.next_id = next_id
        self.rulebook = Rulebook()
        self.size = 0
        self.tags = empty_tags(64)
        self.first = np.zeros(64, np.int32)
        self.count = np.zeros(64, np.int32)
        self.visit_first = np.zeros(64, np.int32)
        self.visit_count = np.zeros(64, np.int32)
        self.tracks = RowPool(exposure.TRACK)
        self.visits = RowPool(geofence.VISIT)
        self.track_tag = np.zeros(64, np.int32)
        self.visit_tag = np.zeros(64, np.int32)
        self.old_tracks = RowPool(exposure.TRACK)  # the checkpoints
        self.old_visits = RowPool(geofence.VISIT)
        self.custodies: dict[int, OpenCustody] = {}  # by tag
        self.excursions: dict[int, list[StatedExcursion]] = {}
        self.stated_visits: dict[int, list[StatedVisit]] = {}

    def add_tags(self, more: int) -> None:
        """Room for `more` new tags at the end."""
        before = self.size
        self.size += more
        if len(self.tags) < self.size:
            old = len(self.tags)
            self.tags = grown(self.tags, self.size)
            fresh_tags(self.tags[old:])
            self.first, self.count = grown(self.first, self.size), grown(self.count, self.size)
            self.visit_first, self.visit_count = grown(self.visit_first, self.size), grown(self.visit_count, self.size)
        assert before <= self.size

    # ---------------------------------------------------------------- custody

    def bind(self, custody: OpenCustody, carrier: Carrier) -> None:
        """The tag rides on `carrier` from now on: fresh tracks and visits that have seen nothing."""
        tag = custody.tag
        self.custodies[tag] = custody
        carrier.tags.add(tag)
        tracks, visits = self.fresh_rows(custody, carrier, FOREVER_US)
        self.first[tag], self.count[tag] = self.tracks.take(len(tracks)), len(tracks)
        self.visit_first[tag], self.visit_count[tag] = self.visits.take(len(visits)), len(visits)
        self.track_tag = grown(self.track_tag, len(self.tracks.rows))
        self.visit_tag = grown(self.visit_tag, len(self.visits.rows))
        at, till = int(self.first[tag]), int(self.first[tag]) + len(tracks)
        self.tracks.rows[at:till] = tracks
        self.track_tag[at:till] = tag
        at, till = int(self.visit_first[tag]), int(self.visit_first[tag]) + len(visits)
        self.visits.rows[at:till] = visits
        self.visit_tag[at:till] = tag
        row = self.tags[tag]
        row["custody_from_us"] = custody.from_us
        row["checkpoint_us"] = MIN_US
        mkt = any(spec.mode == exposure.MKT for spec in carrier.tracks)
        row["special"] = (row["special"] & SPECIAL_QUALITY) | (SPECIAL_MKT if mkt else 0)

    def unbind(self, tag: int) -> OpenCustody:
        """The tag rides nowhere from now on; its rows are given back. What it stated is the caller's to keep."""
        custody = self.custodies.pop(tag)
        carrier = self.rulebook.carriers[custody.carrier]
        carrier.tags.discard(tag)
        row = self.tags[tag]
        self.tracks.give(int(self.first[tag]), int(self.count[tag]))
        self.visits.give(int(self.visit_first[tag]), int(self.visit_count[tag]))
        if row["checkpoint_tracks"] >= 0:
            self.old_tracks.give(int(row["checkpoint_tracks"]), int(self.count[tag]))
            self.old_visits.give(int(row["checkpoint_visits"]), int(self.visit_count[tag]))
        self.count[tag] = self.visit_count[tag] = 0
        row["checkpoint_tracks"] = row["checkpoint_visits"] = -1
        row["checkpoint_us"] = MIN_US
        row["custody_from_us"] = FOREVER_US
        row["special"] &= SPECIAL_QUALITY
        return custody

    def fresh_rows(self, custody: OpenCustody, carrier: Carrier, until_us: int) -> tuple[exposure.Rows, exposure.Rows]:
        """TRACK and VISIT rows of a custody that have seen nothing."""
        from_us = custody.from_us + carrier.plan.ignore_us(custody.from_us)
        specs = carrier.tracks
        tracks = (
            exposure.fresh(
                [spec.metric for spec in specs],
                [spec.mode for spec in specs],
                [spec.windows_start for spec in specs],
                [spec.windows_count for spec in specs],
                min(from_us, until_us),
                until_us,
                [custody.prior_us.get(spec.limit_id, 0) for spec in specs],
            )
            if specs
            else np.zeros(0, exposure.TRACK)
        )
        visits = geofence.fresh(carrier.fence_rows, custody.from_us, until_us)
        return tracks, visits

    # ---------------------------------------------------------------- in order

    def advance(self, groups: Groups, batch: Batch, changes: Changes) -> None:
        """Move the head on by readings that are newer than everything judged of their tags."""
        if not len(groups.tag):
            return
        runs, visits = self._feed(
            self.tracks.rows, self.first, self.count, self.visits.rows, self.visit_first, self.visit_count, groups, batch
        )
        for run in runs:
            tag = int(self.track_tag[run["track"]])
            self.state_run(tag, int(run["track"]) - int(self.first[tag]), run, "reading", changes)
        for event in visits:
            tag = int(self.visit_tag[event["visit"]])
            self.state_visit(tag, int(event["visit"]) - int(self.visit_first[tag]), event, "reading", changes)

    def _feed(
        self, tracks: Any, first: I4, count: I4, visits: Any, visit_first: I4, visit_count: I4, groups: Groups, batch: Batch
    ) -> tuple[exposure.Rows, exposure.Rows]:
        runs = exposure.advance(
            tracks, first, count, groups, batch.sensed_us, batch.codes, batch.values, self.rulebook.windows, self.rulebook.limits
        )
        events = np.zeros(0, geofence.VISIT_EVENT)
        if len(visits) and LATITUDE in batch.codes and LONGITUDE in batch.codes:
            column = {code: batch.values[row] for row, code in enumerate(batch.codes)}
            accuracy = column.get(ACCURACY)
            if accuracy is None:
                accuracy = np.full(len(batch.sensed_us), np.nan)
            events = geofence.advance(
                visits, visit_first, visit_count, groups, batch.sensed_us, column[LATITUDE], column[LONGITUDE], accuracy,
                self.rulebook.fences,
            )  # fmt: skip
        return runs, events

    def state_run(self, tag: int, position: int, run: Any, cause: str, changes: Changes) -> None:
        """Turn one RUN row of an open custody into a statement."""
        custody = self.custodies[tag]
        spec = self.rulebook.carriers[custody.carrier].tracks[position]
        found = excursion_of_run(run, spec.limit_id, custody.custody_id)
        mine = self.excursions.setdefault(tag, [])
        for stated in reversed(mine):
            same = stated.limit_id == found.limit_id and stated.started_us == found.started_us
            if same and stated.ended_us is None and not stated.retracted:
                take_facts(stated, found)
                break
        else:
            stated = found
            stated.excursion_id = self.next_id()
            mine.append(stated)
        changes.excursion(stated, tag, custody.carrier, custody.handling_unit, cause)

    def state_visit(self, tag: int, position: int, event: Any, cause: str, changes: Changes) -> None:
        """Turn one VISIT_EVENT row of an open custody into a statement."""
        custody = self.custodies[tag]
        fence = self.rulebook.carriers[custody.carrier].fences[position]
        mine = self.stated_visits.setdefault(tag, [])
        kind = int(event["kind"])
        if kind == geofence.EXIT:
            for stated in reversed(mine):
                if stated.fence_id == fence.fence_id and stated.kind == "VISIT" and stated.exited_us is None and not stated.retracted:
                    stated.exited_us = int(event["at_us"])
                    changes.visit(stated, tag, custody.carrier, cause)
                    return
        stated = visit_of_event(event, fence.fence_id, custody.custody_id)
        stated.visit_id = self.next_id()
        mine.append(stated)
        changes.visit(stated, tag, custody.carrier, cause)

    # ---------------------------------------------------------------- late

    def judge_again(self, tags: I4, earliest_us: I8, cause: str, changes: Changes, read_journal: ReadJournal) -> None:
        """Judge the open custodies of `tags` again, each from before its earliest changed sensed time."""
        riding = (self.count[tags] + self.visit_count[tags]) > 0
        tags, earliest_us = tags[riding], earliest_us[riding]
        if not len(tags):
            return
        rows = self.tags[tags]
        use = (rows["checkpoint_us"] > MIN_US) & (rows["checkpoint_us"] < earliest_us)
        from_us = np.where(use, rows["checkpoint_us"] + 1, rows["custody_from_us"])
        until_us = np.full(len(tags), FOREVER_US, np.int64)
        position, slots, complete = rows_of(self.ring, rows, from_us, until_us)
        whole = np.flatnonzero(complete)
        if len(whole):
            if len(whole) < len(tags):
                renumber = np.cumsum(complete) - 1
                kept = complete[position]
                position, slots = renumber[position[kept]].astype(np.int32), slots[kept]
            ring = self.ring
            batch = Batch(
                position, ring.sensed_us[slots], ring.boot[slots], ring.sequence[slots], ring.codes,
                np.ascontiguousarray(ring.values[:, slots]),
            )  # fmt: skip
            self._judge(tags[whole], use[whole], earliest_us[whole], batch, cause, changes)
        for i in np.flatnonzero(~complete).tolist():
            one = slice(i, i + 1)
            found, batch = read_journal([int(tags[i])], int(from_us[i]), FOREVER_US)
            batch = Batch(found, batch.sensed_us, batch.boot, batch.sequence, batch.codes, batch.values)
            self._judge(tags[one], use[one], earliest_us[one], batch, cause, changes)

    def _judge(self, tags: I4, use: npt.NDArray[np.bool_], earliest_us: I8, batch: Batch, cause: str, changes: Changes) -> None:
        """Judge `tags` from their checkpoints (`use`) or custody starts on `batch`, whose tag column is the position in `tags`."""
        groups = readings.group(batch.tag, batch.sensed_us, batch.boot, batch.sequence, len(tags))
        count, visit_count = self.count[tags], self.visit_count[tags]
        first = (np.cumsum(count) - count).astype(np.int32)
        visit_first = (np.cumsum(visit_count) - visit_count).astype(np.int32)
        work = np.zeros(int(count.sum()), exposure.TRACK)
        visits = np.zeros(int(visit_count.sum()), geofence.VISIT)
        kept = np.flatnonzero(use)
        rows = self.tags[tags]
        work[block_index(first[kept], count[kept])] = self.old_tracks.rows[block_index(rows["checkpoint_tracks"][kept], count[kept])]
        visits[block_index(visit_first[kept], visit_count[kept])] = self.old_visits.rows[
            block_index(rows["checkpoint_visits"][kept], visit_count[kept])
        ]
        for i in np.flatnonzero(~use).tolist():
            custody = self.custodies[int(tags[i])]
            fresh, fresh_visits = self.fresh_rows(custody, self.rulebook.carriers[custody.carrier], FOREVER_US)
            work[first[i] : first[i] + count[i]] = fresh
            visits[visit_first[i] : visit_first[i] + visit_count[i]] = fresh_visits
        visits_before = visits.copy()
        begin_us = np.where(use, rows["checkpoint_us"], MIN_US)

        splits = _split_points(
            frozen(groups.start), frozen(groups.order), frozen(batch.sensed_us), frozen(earliest_us[groups.tag]), CHECKPOINT_LAG
        )
        splits[use[groups.tag] & (splits < CHECKPOINT_MOVES)] = 0
        starts, lengths = groups.start[:-1], np.diff(groups.start)
        parts = []
        moving = splits > 0
        if moving.any():
            ahead = Groups(
                groups.tag[moving],
                np.concatenate([[0], np.cumsum(splits[moving])]).astype(np.int64),
                groups.order[block_index(starts[moving], splits[moving])],
            )
            parts.append(self._feed(work, first, count, visits, visit_first, visit_count, ahead, batch))
            held_us = batch.sensed_us[groups.order[starts[moving] + splits[moving] - 1]]
            self._keep_checkpoints(tags, groups.tag[moving], held_us, work, first, visits, visit_first)
        rest = Groups(
            groups.tag,
            np.concatenate([[0], np.cumsum(lengths - splits)]).astype(np.int64),
            groups.order[block_index(starts + splits, lengths - splits)],
        )
        parts.append(self._feed(work, first, count, visits, visit_first, visit_count, rest, batch))

        runs = np.concatenate([part[0] for part in parts])
        events = np.concatenate([part[1] for part in parts])
        concerned = {i for i, tag in enumerate(tags.tolist()) if tag in self.excursions or tag in self.stated_visits}
        concerned.update((np.searchsorted(first, runs["track"], side="right") - 1).tolist() if len(runs) else ())
        concerned.update((np.searchsorted(visit_first, events["visit"], side="right") - 1).tolist() if len(events) else ())
        before = {i: self.live_excursions(int(tags[i])) for i in concerned}
        self.tracks.rows[block_index(self.first[tags], count)] = work
        self.visits.rows[block_index(self.visit_first[tags], visit_count)] = visits
        for i in sorted(concerned):
            tag = int(tags[i])
            custody = self.custodies[tag]
            carrier = self.rulebook.carriers[custody.carrier]
            low, high = int(first[i]), int(first[i] + count[i])
            mine = runs[(runs["track"] >= low) & (runs["track"] < high) & (runs["kind"] == exposure.ENDED)]
            still = exposure.open_runs(work, np.arange(low, high), self.rulebook.windows)
            found = [
                excursion_of_run(run, carrier.tracks[int(run["track"]) - low].limit_id, custody.custody_id)
                for run in np.concatenate([mine, still])
            ]
            self.revise(tag, custody, found, before[i], int(begin_us[i]), cause, changes)
            low, high = int(visit_first[i]), int(visit_first[i] + visit_count[i])
            mine = events[(events["visit"] >= low) & (events["visit"] < high)]
            found_visits = visits_of_events(mine, visits_before[low:high], low, carrier, custody.custody_id)
            inside = {
                (carrier.fences[at].fence_id, int(row["entered_us"]))
                for at, row in enumerate(visits_before[low:high])
                if int(row["side"]) == geofence.INSIDE
            }
            self.revise_visits(tag, custody, found_visits, int(begin_us[i]), inside, cause, changes)

    def _keep_checkpoints(
        self, tags: I4, chosen: I4, held_us: I8, work: exposure.Rows, first: I4, visits: exposure.Rows, visit_first: I4
    ) -> None:
        """The working rows of `tags[chosen]` become their checkpoints, holding every reading up to `held_us`."""
        for i, at_us in zip(chosen.tolist(), held_us.tolist(), strict=True):
            tag = int(tags[i])
            row = self.tags[tag]
            tracks, fences = int(self.count[tag]), int(self.visit_count[tag])
            if row["checkpoint_tracks"] < 0:
                row["checkpoint_tracks"] = self.old_tracks.take(tracks)
                row["checkpoint_visits"] = self.old_visits.take(fences)
            at = int(row["checkpoint_tracks"])
            self.old_tracks.rows[at : at + tracks] = work[first[i] : first[i] + tracks]
            at = int(row["checkpoint_visits"])
            self.old_visits.rows[at : at + fences] = visits[visit_first[i] : visit_first[i] + fences]
            row["checkpoint_us"] = at_us

    def live_excursions(self, tag: int) -> list[tuple[StatedExcursion, tuple[Any, ...]]]:
        """What the tag has stated, each with its facts as the head has them now (an open run's extreme grows unstated)."""
        live = []
        by_start = {}
        custody = self.custodies[tag]
        specs = self.rulebook.carriers[custody.carrier].tracks
        first, count = int(self.first[tag]), int(self.count[tag])
        mine = self.excursions.get(tag, [])
        if any(one.ended_us is None for one in mine):
            for run in exposure.open_runs(self.tracks.rows, np.arange(first, first + count), self.rulebook.windows):
                found = excursion_of_run(run, specs[int(run["track"]) - first].limit_id, custody.custody_id)
                by_start[(found.limit_id, found.started_us)] = found.facts()
        for one in mine:
            facts = one.facts()
            if one.ended_us is None:
                facts = by_start.get((one.limit_id, one.started_us), facts)
            live.append((one, facts))
        return live

    def revise(
        self,
        tag: int,
        custody: OpenCustody,
        found: list[StatedExcursion],
        before: list[tuple[StatedExcursion, tuple[Any, ...]]],
        begin_us: int,
        cause: str,
        changes: Changes,
    ) -> None:
        """State the difference between the excursions stated (that had not ended by `begin_us`) and those found now."""
        facts = {id(one): known for one, known in before}
        open_to_change = [one for one, _ in before if one.ended_us is None or one.ended_us > begin_us]
        pairs, gone, new = match_excursions(open_to_change, found)
        where = (tag, custody.carrier, custody.handling_unit, cause)
        for old, one in pairs:
            changed = one.facts() != facts[id(old)]
            if changed or one.ended_us is not None:
                take_facts(old, one)
            if changed:
                changes.excursion(old, *where)
        for old in gone:
            old.retracted = True
            changes.excursion(old, *where)
        mine = self.excursions.setdefault(tag, []) if new else self.excursions.get(tag, [])
        for one in sorted(new, key=lambda one: (one.started_us, one.limit_id)):
            one.excursion_id, one.found_late = self.next_id(), cause != "reading"
            mine.append(one)
            changes.excursion(one, *where)
        if gone:
            self.excursions[tag] = [one for one in mine if not one.retracted]

    def revise_visits(
        self,
        tag: int,
        custody: OpenCustody,
        found: list[StatedVisit],
        begin_us: int,
        inside: set[tuple[str, int]],
        cause: str,
        changes: Changes,
    ) -> None:
        """As `revise`, for visits. inside: (fence_id, entered_us) of what had been entered where the judging began: an exit is dated at
        its first outside fix, which may lie before the checkpoint while its confirmation lies after it.
        """
        mine = self.stated_visits.get(tag, [])
        pairs, gone, new = match_visits(
            (
                one
                for one in mine
                if one.exited_us is None or one.exited_us > begin_us or (one.kind == "VISIT" and (one.fence_id, one.entered_us) in inside)
            ),
            found,
        )
        for old, one in pairs:
            if old.facts() != one.facts():
                old.kind, old.entered_us, old.exited_us = one.kind, one.entered_us, one.exited_us
                changes.visit(old, tag, custody.carrier, cause)
        for old in gone:
            old.retracted = True
            changes.visit(old, tag, custody.carrier, cause)
        for one in sorted(new, key=lambda one: (one.entered_us, one.fence_id)):
            one.visit_id, one.found_late = self.next_id(), cause != "reading"
            mine.append(one)
            changes.visit(one, tag, custody.carrier, cause)
        if new or gone:
            self.stated_visits[tag] = [one for one in mine if not one.retracted]


def visit_of_event(event: Any, fence_id: str, custody_id: int) -> StatedVisit:
    """An ENTER or PASSED_THROUGH event as a visit without an id."""
    passed = int(event["kind"]) == geofence.PASSED_THROUGH
    return StatedVisit(
        visit_id=-1,
        revision=0,
        custody_id=custody_id,
        fence_id=fence_id,
        kind="PASSED" if passed else "VISIT",
        entered_us=int(event["from_us"]) if passed else int(event["at_us"]),
        exited_us=int(event["to_us"]) if passed else None,
        found_late=False,
    )


def visits_of_events(events: exposure.Rows, before: exposure.Rows, low: int, carrier: Carrier, custody_id: int) -> list[StatedVisit]:
    """The visits that some VISIT_EVENTs tell of, in a judging that began with the VISIT rows `before` (rows `low` on)."""
    found: list[StatedVisit] = []
    inside: dict[int, StatedVisit] = {}
    for position, row in enumerate(before):
        if int(row["side"]) == geofence.INSIDE:
            visit = StatedVisit(-1, 0, custody_id, carrier.fences[position].fence_id, "VISIT", int(row["entered_us"]), None, False)
            inside[position] = visit
            found.append(visit)
    for event in events:
        position = int(event["visit"]) - low
        if int(event["kind"]) == geofence.EXIT:
            inside.pop(position).exited_us = int(event["at_us"])
            continue
        visit = visit_of_event(event, carrier.fences[position].fence_id, custody_id)
        found.append(visit)
        if visit.kind == "VISIT":
            inside[position] = visit
    return found
