"""The head: the judged state of all open custodies, how in-order readings move it on, and what it has stated.

Each tag in an open custody has a block of TRACK rows (one a limit) and a block of VISIT rows (one a fence). In-order readings move
them on; late ones are judged in `late.py`, and the difference to what was stated becomes revisions here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.rules import exposure, geofence
from actors.rules.readings import ACCURACY, FOREVER_US, I4, I8, LATITUDE, LONGITUDE, Batch, Groups
from actors.tags.carriers import Carrier, Rulebook
from actors.tags.changes import Changes
from actors.tags.columns import MIN_US, SPECIAL_MKT, SPECIAL_QUALITY, RowPool, empty_tags, fresh_tags, grown
from actors.tags.custodies import Custodies, OpenCustody
from actors.tags.ring import Ring
from actors.tags.stated import (
    StatedExcursion,
    StatedVisit,
    excursion_of_run,
    match_excursions,
    match_visits,
    take_facts,
)


def block_index(first: npt.NDArray[Any], count: npt.NDArray[Any]) -> I8:
    """The indices of all rows of some blocks, block after block.

    >>> block_index(np.array([5, 0]), np.array([2, 1])).tolist()
    [5, 6, 0]
    """
    total = int(count.sum())
    ends = np.cumsum(count, dtype=np.int64)
    index: I8 = np.arange(total, dtype=np.int64) + np.repeat(first.astype(np.int64) - (ends - count), count)
    return index


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
        self.custodies = Custodies()
        self.excursions: dict[int, list[StatedExcursion]] = {}
        self.stated_visits: dict[int, list[StatedVisit]] = {}
        self.remade: dict[int, int] = {}
        """Tags whose judged rows were made anew other than by late readings, with the ring's row number then: see Checkpoints.secure."""
        self._blanks: dict[tuple[int, ...], tuple[int, int]] = {}
        self._blank_tracks = RowPool(exposure.TRACK)
        self._blank_visits = RowPool(geofence.VISIT)

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
        self.note_remade([tag])
        self.custodies.put(custody)
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

    def note_remade(self, tags: Iterable[int]) -> None:
        """Copies of these tags' rows that were taken before are of no use."""
        number = int(self.ring.head[0])
        self.remade.update((tag, number) for tag in tags)

    def unbind(self, tag: int) -> OpenCustody:
        """The tag rides nowhere from now on; its rows are given back. What it stated is the caller's to keep."""
        custody = self.custodies.pop(tag)
        self.note_remade([tag])
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

    def fresh_blocks(self, tags: list[int]) -> tuple[exposure.Rows, exposure.Rows]:
        """`fresh_rows` of the open custodies of some tags, block after block: copies of what carriers with the same limits share."""
        blank: list[tuple[int, int]] = []
        begins: list[int] = []
        ignored: list[int] = []
        priors: list[tuple[int, int]] = []
        at = 0
        for tag in tags:
            custody = self.custodies[tag]
            carrier = self.rulebook.carriers[custody.carrier]
            blank.append(self._blank(carrier))
            begins.append(custody.from_us)
            ignored.append(carrier.plan.ignore_us(custody.from_us))
            if custody.prior_us:
                priors += [(at + k, custody.prior_us.get(spec.limit_id, 0)) for k, spec in enumerate(carrier.tracks)]
            at += len(carrier.tracks)
        first, visit_first = np.array(blank, np.int64).reshape(-1, 2).T
        from_us = np.array(begins, np.int64)
        count, visit_count = self.count[tags], self.visit_count[tags]
        tracks = self._blank_tracks.rows[block_index(first, count)]
        tracks["from_us"] = tracks["prev_us"] = np.repeat(from_us + np.array(ignored, np.int64), count)
        for row, violation_us in priors:
            tracks[row]["violation_us"] = violation_us
        visits = self._blank_visits.rows[block_index(visit_first, visit_count)]
        visits["from_us"] = np.repeat(from_us, visit_count)
        return tracks, visits

    def _blank(self, carrier: Carrier) -> tuple[int, int]:
        """Where the rows of a custody on a carrier with these limits and fences are kept that began at time 0."""
        key = (id(carrier.tracks), *carrier.fence_rows)  # the rulebook keeps one list for all carriers with the same limits
        found = self._blanks.get(key)
        if found is None:
            tracks, visits = self.fresh_rows(OpenCustody(0, 0, carrier.name, "", 0, {}), carrier, FOREVER_US)
            found = self._blanks[key] = self._blank_tracks.take(len(tracks)), self._blank_visits.take(len(visits))
            self._blank_tracks.rows[found[0] : found[0] + len(tracks)] = tracks
            self._blank_visits.rows[found[1] : found[1] + len(visits)] = visits
        return found

    # ---------------------------------------------------------------- in order

    def advance(self, groups: Groups, batch: Batch, changes: Changes) -> None:
        """Move the head on by readings that are newer than everything judged of their tags."""
        if not len(groups.tag):
            return
        runs, visits = self.feed(
            self.tracks.rows, self.first, self.count, self.visits.rows, self.visit_first, self.visit_count, groups, batch
        )
        # By tag, not as they stood in the batch: a replay, which has the accepted readings only, must give the same ids.
        for run in runs[np.argsort(self.track_tag[runs["track"]], kind="stable")]:
            tag = int(self.track_tag[run["track"]])
            self.state_run(tag, int(run["track"]) - int(self.first[tag]), run, "reading", changes)
        for event in visits[np.argsort(self.visit_tag[visits["visit"]], kind="stable")]:
            tag = int(self.visit_tag[event["visit"]])
            self.state_visit(tag, int(event["visit"]) - int(self.visit_first[tag]), event, "reading", changes)

    def feed(
        self, tracks: Any, first: I4, count: I4, visits: Any, visit_first: I4, visit_count: I4, groups: Groups, batch: Batch
    ) -> tuple[exposure.Rows, exposure.Rows]:
        """Judge a grouped batch on some TRACK and VISIT rows, the head's or copies: (RUN rows, VISIT_EVENT rows)."""
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
        self.note_stated(tag)

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
                    self.note_stated(tag)
                    return
        stated = visit_of_event(event, fence.fence_id, custody.custody_id)
        stated.visit_id = self.next_id()
        mine.append(stated)
        changes.visit(stated, tag, custody.carrier, cause)
        self.note_stated(tag)

    def note_stated(self, tag: int) -> None:
        """Keep the latest time at which something stated of the tag ends: what is judged from later on cannot change any of it."""
        latest = MIN_US
        for one in self.excursions.get(tag, ()):
            latest = max(latest, FOREVER_US if one.ended_us is None else one.ended_us)
        for seen in self.stated_visits.get(tag, ()):
            latest = max(latest, FOREVER_US if seen.exited_us is None else seen.exited_us)
        self.tags[tag]["stated_us"] = latest

    # ---------------------------------------------------------------- statements

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
        self.note_stated(tag)

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
        self.note_stated(tag)


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
