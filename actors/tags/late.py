"""Late readings: open custodies judged again from a checkpoint, as columns, all tags of a batch together.

A tag's checkpoint is a copy of its rows that holds every reading up to `checkpoint_us`. A reading later than that goes back to it, an
earlier one to the start of the custody, on the ring's rows or, where the ring does not reach, on the journal's. Checkpoints move on
when late readings come, and twice in a turn of the ring (`Checkpoints.secure`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt

from actors.rules import exposure, geofence, readings
from actors.rules._compile import frozen
from actors.rules.readings import FOREVER_US, I4, I8, Batch, Groups
from actors.tags.changes import Changes
from actors.tags.columns import MIN_US
from actors.tags.head import Head, visits_of_events
from actors.tags.records import Records, Rows, block_index
from actors.tags.ring import rows_of
from actors.tags.stated import StatedExcursion, excursion_of_run

CHECKPOINT_LAG = 16
"""A checkpoint is kept at least this many readings behind a tag's newest, so that slightly late readings find it before them."""

CHECKPOINT_MOVES = 64
"""A checkpoint moves on when at least this many readings have come since it."""

SLICES = 64
"""In one half turn of the ring every tag is looked at once, in so many steps."""

STAGED_SLICES = 8
"""A copy of the head becomes a checkpoint so many steps later: readings that come late by less find the checkpoint before them."""

ReadJournal = Callable[[list[int], int, int], tuple[I4, Batch]]
"""(tags, from_us, until_us) -> (position in `tags` of each row, rows): all judged readings of the tags, this commit's included."""

Bools = npt.NDArray[np.bool_]


class Told(NamedTuple):
    """What judging a tag again found: its position in `work`, all runs and events of that work, what had been stated, and from when on."""

    tag: int
    i: int
    work: Rows
    visits_before: exposure.Rows
    runs: exposure.Rows
    events: exposure.Rows
    before: list[tuple[StatedExcursion, tuple[Any, ...]]]
    begin_us: int


@nb.njit(cache=True, nogil=True)
def _splits(start: I8, order: I8, sensed_us: I8, before_us: I8, lag: int) -> I8:
    """Per group how many of its first readings a checkpoint may hold: those before `before_us` but the last `lag`; all readings of one
    sensed time or none.
    """
    splits = np.zeros(len(start) - 1, dtype=np.int64)
    for g in range(len(start) - 1):
        begin, stop = start[g], start[g + 1]
        at = 0
        while begin + at < stop - lag and sensed_us[order[begin + at]] < before_us[g]:
            at += 1
        while at > 0 and begin + at < stop and sensed_us[order[begin + at - 1]] == sensed_us[order[begin + at]]:
            at -= 1
        splits[g] = at
    return splits


class _Staged(NamedTuple):
    """A copy of the head's records of some tags, by position, taken when the ring was at row `number`."""

    number: int
    tags: I4
    newest_us: I8
    records: Records


@nb.njit(cache=True, nogil=True)
def _only_newer(ring_last: I8, newest_us: I8, begin: int, capacity: int, sensed_us: I8, previous: I8) -> Bools:
    """Per tag whether all its readings from ring row `begin` on are newer than `newest_us`."""
    newer = np.ones(len(ring_last), dtype=np.bool_)
    for i in range(len(ring_last)):
        number = ring_last[i]
        while number >= begin:
            slot = number % capacity
            if sensed_us[slot] <= newest_us[i]:
                newer[i] = False
                break
            number = previous[slot]
    return newer


class Checkpoints:
    """Judges the open custodies of a head again, and keeps their checkpoints."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self._cursor = 0
        self._due = 0
        self._staged: deque[_Staged] = deque()

    def judge_again(self, tags: I4, earliest_us: I8, cause: str, changes: Changes, read_journal: ReadJournal) -> None:
        """Judge the open custodies of `tags` again, each from before its earliest changed sensed time."""
        head = self.head
        riding = head.tags["shape"][tags] > 0
        tags, earliest_us = tags[riding], earliest_us[riding]
        if not len(tags):
            return
        if cause != "late":
            head.note_remade(tags.tolist())
        rows = head.tags[tags]
        until_us = head.checkpoints.until_us(tags)
        use = (until_us > MIN_US) & (until_us < earliest_us)
        from_us = np.where(use, until_us + 1, rows["custody_from_us"])
        position, slots, complete = rows_of(head.ring, rows, from_us, np.full(len(tags), FOREVER_US, np.int64))
        whole = np.flatnonzero(complete)
        told: list[Told] = []
        if len(whole):
            position, slots = self._of_whole(position, slots, complete)
            told += self._judge(tags[whole], use[whole], earliest_us[whole], self._ring_batch(position, slots))
        far = np.flatnonzero(~complete)
        if len(far):
            found, batch = read_journal(tags[far].tolist(), int(from_us[far].min()), FOREVER_US)
            kept = batch.sensed_us >= from_us[far][found]
            batch = readings.subset(Batch(found, batch.sensed_us, batch.boot, batch.sequence, batch.codes, batch.values), kept)
            told += self._judge(tags[far], use[far], earliest_us[far], batch)
        # By tag: whether the ring reached far enough may be otherwise in a replay, which must give the same ids.
        for one in sorted(told, key=lambda one: one.tag):
            self._revise(one, cause, changes)

    def secure(self) -> None:
        """Keep the checkpoint of every tag within the ring: a few tags at a time, all of them in half a turn.

        A copy of the head is taken, and kept as the checkpoint some readings later if nothing earlier than it came meanwhile: no reading is
        judged for it. A tag whose checkpoint is not in the ring all the same (readings came late) is judged from the journal.
        """
        head, ring = self.head, self.head.ring
        step = max(ring.capacity // (2 * SLICES), 1)
        now = int(ring.head[0])
        if now - self._due > ring.capacity:  # a ring that was filled by something else than batches: begin here
            self._due = now - ring.capacity
        steps = (now - self._due) // step
        self._due += steps * step
        for _ in range(min(steps, SLICES)):  # a batch longer than the ring: every tag once
            size = -(-head.size // SLICES)
            tags = np.arange(self._cursor, min(self._cursor + size, head.size), dtype=np.int32)
            self._cursor = 0 if self._cursor + size >= head.size else self._cursor + size
            if now >= ring.capacity // 2:
                self._stage(tags)
        while self._staged and now - self._staged[0].number >= STAGED_SLICES * step:
            self._keep_staged(self._staged.popleft())
        if not self._staged:
            head.remade.clear()
        elif self._cursor == 0:
            oldest = self._staged[0].number
            head.remade = {tag: number for tag, number in head.remade.items() if number >= oldest}

    def _stage(self, tags: I4) -> None:
        head = self.head
        rows = head.tags[tags]
        wanted = (rows["shape"] > 0) & (rows["special"] == 0) & (rows["newest_us"] >= rows["custody_from_us"])
        if head.checkpoints.full:  # it is for those that late readings ask for
            wanted &= rows["checkpoint"] >= 0
        tags = tags[wanted]
        if len(tags):
            self._staged.append(_Staged(int(head.ring.head[0]), tags, rows["newest_us"][wanted], head.records.copy(tags)))

    def _keep_staged(self, staged: _Staged) -> None:
        """What was copied becomes the checkpoint of those tags that have had only newer readings since."""
        head, ring = self.head, self.head.ring
        rows = head.tags[staged.tags]
        good = (rows["special"] == 0) & (head.checkpoints.until_us(staged.tags) < staged.newest_us)
        good &= head.checkpoints.that_fit(staged.tags, staged.records)
        good &= _only_newer(
            np.ascontiguousarray(rows["ring_last"]), staged.newest_us, staged.number, ring.capacity, ring.sensed_us, ring.previous
        )
        if head.remade:
            good &= np.array([head.remade.get(tag, -1) < staged.number for tag in staged.tags.tolist()], np.bool_)
        head.checkpoints.put_records(staged.tags[good], staged.records, np.flatnonzero(good).astype(np.int32), staged.newest_us[good])

    # ---------------------------------------------------------------- parts

    def _of_whole(self, position: I4, slots: I8, complete: Bools) -> tuple[I4, I8]:
        """The rows of the complete tags, their positions counted among these."""
        if complete.all():
            return position, slots
        kept = complete[position]
        return (np.cumsum(complete) - 1)[position[kept]].astype(np.int32), slots[kept]

    def _ring_batch(self, position: I4, slots: I8) -> Batch:
        ring = self.head.ring
        values = ring.values.take(slots, axis=1)
        return Batch(position, ring.sensed_us[slots], ring.boot[slots], ring.sequence[slots], ring.codes, values)

    @staticmethod
    def _groups(batch: Batch, tags: int) -> Groups:
        return readings.group(batch.tag, batch.sensed_us, batch.boot, batch.sequence, tags)

    def _work(self, tags: I4, use: Bools) -> Rows:
        """Copies of the tags' checkpoints (`use`), or rows that have seen nothing."""
        head = self.head
        rows = head.checkpoints.read(tags, use)
        head.refresh(tags, rows, np.flatnonzero(~use))
        return rows

    def _move(self, tags: I4, groups: Groups, splits: I8, work: Rows, batch: Batch) -> tuple[exposure.Rows, exposure.Rows]:
        """Judge the first `splits` readings of each group on `work`, and keep what it is then as their tags' checkpoints."""
        moving = splits > 0
        starts = groups.start[:-1][moving]
        ahead = Groups(
            groups.tag[moving],
            np.concatenate([[0], np.cumsum(splits[moving])]).astype(np.int64),
            groups.order[block_index(starts, splits[moving])],
        )
        told = self._feed(work, ahead, batch)
        held_us = batch.sensed_us[groups.order[starts + splits[moving] - 1]]
        chosen = groups.tag[moving]
        self.head.checkpoints.put(tags[chosen], work.some(chosen), held_us)
        return told

    def _feed(self, work: Rows, groups: Groups, batch: Batch) -> tuple[exposure.Rows, exposure.Rows]:
        return self.head.feed(*work, groups, batch)

    def _judge(self, tags: I4, use: Bools, earliest_us: I8, batch: Batch) -> list[Told]:
        """Judge `tags` from their checkpoints (`use`) or custody starts on `batch`, whose tag column is the position in `tags`."""
        head = self.head
        groups = self._groups(batch, len(tags))
        work = self._work(tags, use)
        visits_before = work.visits.copy()
        begin_us = np.where(use, head.checkpoints.until_us(tags), MIN_US)
        splits = _splits(frozen(groups.start), frozen(groups.order), frozen(batch.sensed_us), earliest_us[groups.tag], CHECKPOINT_LAG)
        splits[use[groups.tag] & (splits < CHECKPOINT_MOVES)] = 0
        head.checkpoints.drop_all(tags[~use])  # one that was there does not hold what came before it
        if splits.any():
            moved = self._move(tags, groups, splits, work, batch)
            starts, lengths = groups.start[:-1], np.diff(groups.start) - splits
            rest = Groups(
                groups.tag,
                np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
                groups.order[block_index(starts + splits, lengths)],
            )
            runs, events = (np.concatenate(parts) for parts in zip(moved, self._feed(work, rest, batch), strict=True))
        else:
            runs, events = self._feed(work, groups, batch)
        stated = head.stated_us
        concerned = {i for i, (tag, at) in enumerate(zip(tags.tolist(), begin_us.tolist(), strict=True)) if stated.get(tag, at) > at}
        concerned.update((np.searchsorted(work.first, runs["track"], side="right") - 1).tolist())
        concerned.update((np.searchsorted(work.visit_first, events["visit"], side="right") - 1).tolist())
        # An exit is dated at its first outside fix, which a checkpoint may hold while its confirmation came after it.
        inside = np.flatnonzero(visits_before["side"] == geofence.INSIDE)
        concerned.update((np.searchsorted(work.visit_first, inside, side="right") - 1).tolist())
        before = {i: head.live_excursions(int(tags[i])) for i in concerned}
        head.keep(tags, work)
        return [Told(int(tags[i]), i, work, visits_before, runs, events, before[i], int(begin_us[i])) for i in concerned]

    def _revise(self, told: Told, cause: str, changes: Changes) -> None:
        """State what one of the tags judged again changes."""
        tag, i, work, visits_before, runs, events, before, begin_us = told
        head = self.head
        custody = head.custodies[tag]
        carrier = head.rulebook.carriers[custody.carrier]
        low, high = int(work.first[i]), int(work.first[i] + work.lengths[i])
        ended = runs[(runs["track"] >= low) & (runs["track"] < high) & (runs["kind"] == exposure.ENDED)]
        still = exposure.open_runs(work.tracks, np.arange(low, high), head.rulebook.windows)
        found = [
            excursion_of_run(run, carrier.tracks[int(run["track"]) - low].limit_id, custody.custody_id)
            for some in (ended, still)
            for run in some
        ]
        head.revise(tag, custody, found, before, begin_us, cause, changes)
        low, high = int(work.visit_first[i]), int(work.visit_first[i] + work.visit_lengths[i])
        if low == high:
            return
        mine = events[(events["visit"] >= low) & (events["visit"] < high)]
        found_visits = visits_of_events(mine, visits_before[low:high], low, carrier, custody.custody_id)
        inside = {
            (carrier.fences[at].fence_id, int(row["entered_us"]))
            for at, row in enumerate(visits_before[low:high])
            if int(row["side"]) == geofence.INSIDE
        }
        head.revise_visits(tag, custody, found_visits, begin_us, inside, cause, changes)
