"""The head: the judged state of all open custodies, how in-order readings move it on, and what it has stated.

Each tag in an open custody has a block of TRACK rows (one a limit) and a block of VISIT rows (one a fence). In-order readings move
them on; late ones are judged in `late.py`, and the difference to what was stated becomes revisions here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from actors.rules import exposure, geofence
from actors.rules.readings import ACCURACY, FOREVER_US, I4, I8, LATITUDE, LONGITUDE, Batch, Groups
from actors.tags.carriers import Carrier, Rulebook, fresh_rows
from actors.tags.changes import Changes
from actors.tags.checkpoints import CheckpointStore
from actors.tags.columns import MIN_US, SPECIAL_MKT, empty_tags, fresh_tags, grown
from actors.tags.custodies import Custodies, OpenCustody
from actors.tags.records import Records, Rows, block_index
from actors.tags.ring import Ring
from actors.tags.stated import (
    StatedExcursion,
    StatedVisit,
    excursion_of_run,
    match_excursions,
    match_visits,
    take_facts,
)


class Head:
    """State of the tags of one shard, without their ids."""

    def __init__(self, ring: Ring, next_id: Callable[[], int], checkpoint_bytes: int) -> None:
        self.ring = ring
        self.next_id = next_id
        self.rulebook = Rulebook()
        self.size = 0
        self.tags = empty_tags(64)
        self.set_interval_us: dict[int, int] = {}
        """The configured interval of the tags that have one."""
        self.records = Records()
        self.custodies = Custodies(self)
        self.excursions: dict[int, list[StatedExcursion]] = {}
        self.stated_visits: dict[int, list[StatedVisit]] = {}
        self.stated_us: dict[int, int] = {}
        """When the last of what is stated of an open custody ends, FOREVER_US where something is open; MIN_US of tags not named."""
        self.checkpoints = CheckpointStore(self, checkpoint_bytes)
        self.remade: dict[int, int] = {}
        """Tags whose judged rows were made anew other than by late readings, with the ring's row number then: see Checkpoints.secure."""

    def add_tags(self, more: int) -> None:
        """Room for `more` new tags at the end."""
        before, self.size = self.size, self.size + more
        self.tags = grown(self.tags, self.size)
        fresh_tags(self.tags[before : self.size])

    def forget_idle(self) -> None:
        """Forget carriers that no tag rides on any more, now and then. Whoever holds a carrier or rows of the rulebook asks anew."""
        if self.rulebook.grown:
            carriers = np.unique(self.tags["carrier"][: self.size])
            shapes = self.rulebook.forget(set(carriers[carriers >= 0].tolist()))
            if shapes is not None:
                self.tags["shape"][: self.size] = shapes[self.tags["shape"][: self.size]]

    # ---------------------------------------------------------------- rows

    def rows(self, tags: I4) -> Rows:
        """The rows of some tags, each named once, as they are judged up to now. Changed ones are to be given back (`keep`)."""
        return self.records.read(tags, self.tags["shape"][tags], self.tags["custody_from_us"][tags], self.rulebook.shapes)

    def keep(self, tags: I4, rows: Rows) -> None:
        """The rows of some tags are these from now on."""
        self.records.write(tags, self.tags["custody_from_us"][tags], rows)

    def rows_of(self, tag: int) -> Rows:
        """The rows of one tag."""
        return self.rows(np.array([tag], np.int32))

    def refresh(self, tags: I4, rows: Rows, positions: I8) -> None:
        """Of `rows` of some tags, read from no record, make those at `positions` ones of custodies that have seen nothing."""
        rows.visits["side"][block_index(rows.visit_first[positions], rows.visit_lengths[positions])] = 0
        odd = self.rulebook.ignoring
        for at in positions.tolist() if odd or self.custodies.priors else ():
            tag = int(tags[at])
            if tag not in self.custodies.priors and int(self.tags["carrier"][tag]) not in odd:
                continue
            custody = self.custodies[tag]
            low, high = int(rows.first[at]), int(rows.first[at] + rows.lengths[at])
            rows.tracks[low:high] = self.fresh_rows(custody, self.rulebook.carriers[custody.carrier], FOREVER_US)[0]

    # ---------------------------------------------------------------- custody

    def bind(self, custody: OpenCustody, carrier: Carrier) -> None:
        """The tag rides on `carrier` from now on: fresh tracks and visits that have seen nothing."""
        self.bind_all([custody], carrier)

    def bind_all(self, custodies: list[OpenCustody], carrier: Carrier) -> None:
        """`bind` for many tags."""
        tags = np.array([custody.tag for custody in custodies], np.int32)
        self.note_remade(tags.tolist())
        for custody in custodies:
            self.checkpoints.drop(custody.tag)
            self.records.drop(custody.tag)
            self.custodies.put(custody)
        self.tags["shape"][tags] = carrier.shape
        rows = self.rows(tags)
        self.refresh(tags, rows, np.arange(len(tags)))
        self.keep(tags, rows)
        mkt = any(spec.mode == exposure.MKT for spec in carrier.tracks)
        self.tags["special"][tags] = (self.tags["special"][tags] & ~np.uint8(SPECIAL_MKT)) | (SPECIAL_MKT if mkt else 0)

    def note_remade(self, tags: Iterable[int]) -> None:
        """Copies of these tags' rows that were taken before are of no use."""
        number = int(self.ring.head[0])
        self.remade.update((tag, number) for tag in tags)

    def unbind(self, tag: int) -> OpenCustody:
        """The tag rides nowhere from now on; its rows are given back. What it stated is the caller's to keep."""
        self.note_remade([tag])
        self.checkpoints.drop(tag)
        self.records.drop(tag)
        row = self.tags[tag]
        row["shape"] = 0
        row["special"] &= ~np.uint8(SPECIAL_MKT)
        return self.custodies.pop(tag)

    def fresh_rows(self, custody: OpenCustody, carrier: Carrier, until_us: int) -> tuple[exposure.Rows, exposure.Rows]:
        """TRACK and VISIT rows of a custody that have seen nothing."""
        begin_us = custody.from_us + carrier.plan.ignore_us(custody.from_us)
        return fresh_rows(carrier, custody.from_us, begin_us, until_us, custody.prior_us)

    # ---------------------------------------------------------------- in order

    def advance(self, groups: Groups, batch: Batch, changes: Changes) -> None:
        """Move the head on by readings that are newer than everything judged of their tags."""
        if not len(groups.tag):
            return
        rows = self.rows(groups.tag)
        alone = Groups(np.arange(len(groups.tag), dtype=np.int32), groups.start, groups.order)
        runs, visits = self.feed(*rows, alone, batch)
        self.keep(groups.tag, rows)
        # By tag, not as they stood in the batch: a replay, which has the accepted readings only, must give the same ids.
        place = np.searchsorted(rows.first, runs["track"], side="right") - 1
        for k in np.argsort(groups.tag[place], kind="stable").tolist():
            self.state_run(int(groups.tag[place[k]]), int(runs[k]["track"] - rows.first[place[k]]), runs[k], "reading", changes)
        place = np.searchsorted(rows.visit_first, visits["visit"], side="right") - 1
        for k in np.argsort(groups.tag[place], kind="stable").tolist():
            self.state_visit(int(groups.tag[place[k]]), int(visits[k]["visit"] - rows.visit_first[place[k]]), visits[k], "reading", changes)

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
        if latest > MIN_US:
            self.stated_us[tag] = latest
        else:
            self.stated_us.pop(tag, None)

    # ---------------------------------------------------------------- statements

    def live_excursions(self, tag: int) -> list[tuple[StatedExcursion, tuple[Any, ...]]]:
        """What the tag has stated, each with its facts as the head has them now (an open run's extreme grows unstated)."""
        live = []
        by_start = {}
        custody = self.custodies[tag]
        specs = self.rulebook.carriers[custody.carrier].tracks
        mine = self.excursions.get(tag, [])
        if any(one.ended_us is None for one in mine):
            tracks = self.rows_of(tag).tracks
            for run in exposure.open_runs(tracks, np.arange(len(tracks)), self.rulebook.windows):
                found = excursion_of_run(run, specs[int(run["track"])].limit_id, custody.custody_id)
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
