"""The sensor tags of one shard: thousands of virtual actors as columns, and what they do with readings and commands.

`SensorTags` is a fold: a state that journal entries move on. `ingest` and the commands decide what an entry says and move the state;
`replay` moves it by an entry that was decided before. Time and the database's rows arrive as data or through `Reads`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from actors.journal.columns import row_id
from actors.journal.tables import CarrierPlan, Custody, Excursion, Exposure, Tag, Visit
from actors.part import Part
from actors.rules import codec, readings
from actors.rules.custody import Interval
from actors.rules.neighbours import looking
from actors.rules.plan import Plan
from actors.rules.quality import QualitySettings
from actors.rules.readings import (
    CONFLICTING,
    DUPLICATE,
    FOREVER_US,
    FUTURE_TOLERANCE_US,
    I4,
    I8,
    REFUSED,
    U1,
    Batch,
    Groups,
)
from actors.tags import admit, clock, entry, neighbours, past, snapshot, special
from actors.tags.ahead import TAGS_AT_ONCE, Ahead
from actors.tags.changes import Changes
from actors.tags.columns import MIN_US, SPECIAL_MKT, SPECIAL_NEIGHBOURS, SPECIAL_QUALITY
from actors.tags.commands import apply
from actors.tags.head import Head
from actors.tags.identity import resolve
from actors.tags.late import Checkpoints
from actors.tags.latest import Latest
from actors.tags.names import TagNames
from actors.tags.records import block_index
from actors.tags.repeats import repeats
from actors.tags.ring import FUTURE, Ring, rows_of

PAST_IDS = 1 << 39
"""Set in the counter part of ids of what was first stated of a closed custody."""


CHECKPOINT_PART, CHECKPOINT_BYTES_LEAST = 4, 1 << 20
"""Checkpoints take this part of what the ring of recent readings takes."""


@dataclass(slots=True)
class Moved:
    """What an ingest or command did: the journal entry's body (None: the state did not change) and the rows to write with it."""

    kind: str = "readings"
    body: dict[str, Any] | None = None
    blob: bytes | None = None
    rows: int = 0
    min_sensed_us: int | None = None
    max_sensed_us: int | None = None
    changes: Changes = field(default_factory=Changes)
    answer: Any = None


class Reads(Protocol):
    """What the tags ask the database, committed state only; the shard waits for its own commits first."""

    def history(self, tags: list[int], from_us: int, until_us: int) -> tuple[I4, Batch]:
        """All accepted readings of the tags with from_us <= sensed_us < until_us that the journal holds: (position in `tags`, rows)."""
        ...

    def portion(self, tag: int, from_us: int, until_us: int, readings: int) -> int:
        """A time after from_us, at most until_us: up to it the journal holds about `readings` of the tag at most."""
        ...

    def custodies(self, tag_ids: list[str]) -> list[Custody]:
        """The tags' custodies, those of each tag by start."""
        ...

    def custodies_of(self, carrier: str) -> list[Custody]:
        """This shard's custodies on a carrier, by tag and start."""
        ...

    def plan(self, carrier: str) -> CarrierPlan | None:
        """The carrier's plan."""
        ...

    def tag(self, tag_id: str) -> Tag | None:
        """The tag's row."""
        ...

    def excursions(self, custody_ids: list[int]) -> list[Excursion]:
        """What stands stated of some custodies."""
        ...

    def visits(self, custody_ids: list[int]) -> list[Visit]:
        """What stands stated of some custodies."""
        ...

    def exposures(self, custody_ids: list[int]) -> list[Exposure]:
        """Sums of closed custodies, by custody and limit."""
        ...

    def exposures_of(self, carrier: str) -> list[tuple[Exposure, Custody]]:
        """Sums of this shard's closed custodies on a carrier."""
        ...

    def lots(self, carriers: list[str]) -> dict[tuple[str, str], list[str]]:
        """The lots on some carriers, sorted, by (carrier, handling unit)."""
        ...


def without(groups: Groups, tags: I4) -> Groups:
    """The groups of other tags than these."""
    kept = ~np.isin(groups.tag, tags)
    sizes = np.diff(groups.start)[kept]
    start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Groups(groups.tag[kept], start, groups.order[block_index(groups.start[:-1][kept], sizes)])


class SensorTags:
    """See the module. `shard` is this shard's number; `ring_bytes` bounds the recent readings held."""

    def __init__(
        self, shard: int, ring_bytes: int, reads: Reads, auto_register: bool = True, silence_floor_us: int = clock.SILENCE_FLOOR_US
    ) -> None:
        self.shard = shard
        self.auto_register = auto_register
        self.silence_floor_us = silence_floor_us
        self.reads = reads
        self.ahead = Ahead(self)
        self.ids = TagNames()
        self.counter = 0
        self.past_counter = 0
        self.ring = Ring(ring_bytes)
        self.ranges = admit.Ranges()
        self.head = Head(self.ring, self.next_id, max(ring_bytes // CHECKPOINT_PART, CHECKPOINT_BYTES_LEAST))
        self.late = Checkpoints(self.head)
        self.series: dict[int, special.Series] = {}
        self.quality: dict[int, QualitySettings] = {}
        self.faults: dict[int, set[int]] = {}
        """Per tag the column codes whose newest value is flagged *fail*."""
        self.latest = Latest()
        self.held: dict[int, dict[clock.Key, dict[int, float]]] = {}
        """Per tag the (sensed_us, boot, sequence) of readings that are still in the future, with their values by column code."""
        self.priors: dict[int, dict[str, int]] = {}
        """Of the entry in work: new sums that open custodies go on from, by tag. Journaled, for a replay judges no closed custody."""
        self.slow: list[tuple[int, int]] = []
        """Of the entry in work, where readings were looked up: the tags judged as late, with the earliest time. Journaled."""
        self.clock_us = MIN_US
        self.replaying = False
        self.moving = False
        """The entry in work has begun to move the state: where it ends in an error, the state is not to be trusted."""
        self._scratch = readings.Scratch()
        self.batch_begins = 0

    def next_id(self) -> int:
        """A 64-bit id that no other shard makes; a replay makes the same ids."""
        self.counter += 1
        return row_id(self.shard, self.counter)

    def next_past_id(self) -> int:
        """The same for what is stated of closed custodies: a replay states nothing of them, so these have numbers of their own."""
        self.past_counter += 1
        return row_id(self.shard, PAST_IDS | self.past_counter)

    def begin(self) -> None:
        """A new journal entry is in work: what was put into the ring before is in the journal."""
        self.priors, self.slow = {}, []
        self.moving = False
        self.head.forget_idle()
        self.batch_begins = int(self.ring.head[0])

    def find(self, tag_id: str) -> int | None:
        """Local index of a tag, None where it is not known here."""
        return self.ids.find(tag_id)

    def local(self, tag_id: str) -> int:
        """Local index of a tag that is known. Raises KeyError where it is not."""
        known = self.ids.find(tag_id)
        if known is None:
            raise KeyError(tag_id)
        return known

    def add(self, tag_ids: Iterable[str]) -> list[int]:
        """Local indices of tags that were not known."""
        self.moving = True
        made = self.ids.add(tag_ids)
        self.head.add_tags(len(made))
        return list(made)

    # ---------------------------------------------------------------- readings

    def ingest(self, parts: list[Part], received_us: int) -> tuple[list[U1], Moved]:
        """Take the readings of a call: a status per reading and part, and what to commit."""
        self.begin()
        moved = Moved()
        batches = []
        for part in parts:
            local = self.ids.lookup(part.ids)
            if self.auto_register and (local < 0).any():
                names = part.ids.decode().split("\n")
                moved.changes.new_tags.extend(self.add(dict.fromkeys(names[at] for at in np.flatnonzero(local < 0).tolist())))
                local = self.ids.lookup(part.ids)
            one = part.batch
            batches.append(Batch(local[one.tag], one.sensed_us, one.boot, one.sequence, one.codes, one.values))
        offered = readings.concatenate(batches)
        batch = Batch(offered.tag, offered.sensed_us, offered.boot, offered.sequence, offered.codes, np.array(offered.values, order="C"))
        status = np.zeros(len(batch), np.uint8)
        refused = batch.tag < 0
        if refused.any():  # not registered, and this system registers no tag by its readings
            status[refused] = REFUSED
            batch, offered = readings.subset(batch, ~refused), readings.subset(offered, ~refused)
        taken = status if not refused.any() else np.zeros(len(batch), np.uint8)
        past_counter = self.past_counter
        self._take(batch, received_us, taken, False, moved.changes)
        entry.put_conflicts_aside(self, offered, taken, received_us, moved)
        entry.write(self, batch, taken, past_counter, moved)
        if taken is not status:
            status[~refused] = taken
        answers = []
        at = 0
        for part in parts:
            answers.append(status[at : at + len(part.batch)])
            at += len(part.batch)
        return answers, moved

    def _take(self, batch: Batch, received_us: int, status: U1, certain: bool, changes: Changes) -> None:
        self.moving = True
        self.clock_us = max(self.clock_us, received_us)
        repeated = None if certain else repeats(batch.tag, batch.boot, batch.sequence)
        found = self._admit(
            self._group(batch, None if repeated is None else np.flatnonzero(~repeated)), batch, received_us, certain, status
        )
        unsure_rows = found.unsure
        if repeated is not None:  # after the others: the first of a message is in the ring by then
            unsure_rows += self._admit(self._group(batch, np.flatnonzero(repeated)), batch, received_us, False, status).unsure
        slow_tag, slow_from = found.slow_tag, found.slow_from
        self._hold(batch, found.future)
        if unsure_rows:
            unsure = np.flatnonzero(status == admit.UNSURE)
            fresh = resolve(batch, status, unsure, self._known, self.reads.portion)
            for state, name in ((DUPLICATE, "duplicate"), (CONFLICTING, "conflicting")):
                np.add.at(self.head.tags[name], batch.tag[unsure[status[unsure] == state]], 1)
            if len(fresh):
                later = self._admit(self._group(batch, fresh), batch, received_us, True, status)
                self._hold(batch, later.future)
                # What was looked up is judged as late, whatever it is: the groups of the first round may be newer.
                starts = batch.sensed_us[later.fast.order[later.fast.start[:-1]]]
                slow_tag = np.concatenate([slow_tag, later.slow_tag, later.fast.tag])
                slow_from = np.concatenate([slow_from, later.slow_from, starts])
                self.slow = list(zip(slow_tag.tolist(), slow_from.tolist(), strict=True))
        self.latest.note(self.ring, self.batch_begins, self.head.size)
        fast = found.fast
        if self.slow:  # looked up, now or when the entry was made: these tags are judged as late and no other way
            slow_tag, slow_from = (np.array(column) for column in zip(*self.slow, strict=True))
            fast = without(fast, slow_tag)
        self.head.advance(fast, batch, changes)
        if len(slow_tag):
            self.judge_slow(slow_tag, slow_from, "late", changes)
        for tag in found.woken.tolist():
            clock.speaks_again(self, tag, changes)
        self.late.secure()

    def _group(self, batch: Batch, rows: I8 | None = None) -> Groups:
        """Some rows of a batch (None: all) by tag, in judging order."""
        size = max(self.head.size, 1)
        if rows is None:
            return readings.group(batch.tag, batch.sensed_us, batch.boot, batch.sequence, size, self._scratch)
        some = readings.group(batch.tag[rows], batch.sensed_us[rows], batch.boot[rows], batch.sequence[rows], size, self._scratch)
        return Groups(some.tag, some.start, rows[some.order])

    def _admit(self, groups: Groups, batch: Batch, received_us: int, certain: bool, status: U1) -> admit.Admission:
        return admit.run(
            groups, batch, self.head.tags, self.ranges, self.ring,
            received_us, received_us + FUTURE_TOLERANCE_US, certain, status,
        )  # fmt: skip

    def _known(self, tags: list[int], from_us: int, until_us: int) -> tuple[I4, Batch]:
        """Accepted readings of some tags: the journal's and this commit's, the ones in the future included."""
        position, batch = self.ahead.history(tags, from_us, until_us)
        begin, head = self.batch_begins, int(self.ring.head[0])
        slots = np.arange(begin, head) % self.ring.capacity
        where = {tag: at for at, tag in enumerate(tags)}
        mine = slots[np.isin(self.ring.tag[slots], tags)]
        if len(mine):
            mine = mine[(self.ring.sensed_us[mine] >= from_us) & (self.ring.sensed_us[mine] < until_us)]
        if len(mine):
            ring = self.ring
            own = np.array([where[int(tag)] for tag in ring.tag[mine]], np.int32)
            recent = Batch(
                own, ring.sensed_us[mine], ring.boot[mine], ring.sequence[mine], ring.codes,
                np.ascontiguousarray(ring.values[:, mine]),
            )  # fmt: skip
            batch = readings.concatenate([batch, recent])
            position = np.concatenate([position, own])
        return position, batch

    def _judged(self, tags: list[int], from_us: int, until_us: int) -> tuple[I4, Batch]:
        """As `_known`, without what is still in the future."""
        position, batch = self._known(tags, from_us, until_us)
        held = [self.held.get(tag) for tag in tags]
        if any(held):
            keys = zip(position.tolist(), batch.sensed_us.tolist(), batch.boot.tolist(), batch.sequence.tolist(), strict=True)
            keep = np.array([key not in (held[where] or ()) for where, *rest in keys for key in (tuple(rest),)], np.bool_)
            position, batch = position[keep], readings.subset(batch, keep)
        return position, batch

    def _hold(self, batch: Batch, rows: I8) -> None:
        for row in rows.tolist():
            key = (int(batch.sensed_us[row]), int(batch.boot[row]), int(batch.sequence[row]))
            values = {code: float(batch.values[k, row]) for k, code in enumerate(batch.codes)}
            mine = self.held.setdefault(int(batch.tag[row]), {}).setdefault(key, {})
            mine.update({code: value for code, value in values.items() if value == value})

    def judge_slow(self, tags: I4, from_us: I8, cause: str, changes: Changes, released: Mapping[int, Batch] | None = None) -> None:
        """Judge again what late readings touch: open custodies together, special tags and closed custodies one by one.

        released: the readings that it is about, by tag, where they are others than this batch's.
        """
        if not len(tags):
            return
        order = np.lexsort((from_us, tags))  # by tag, not as they stood in the batch: a replay must give the same ids
        first = order[np.concatenate([[True], np.diff(tags[order]) != 0])]
        tags, from_us = tags[first].astype(np.int32), from_us[first]
        rows = self.head.tags[tags]
        riding, special, closed = rows["custody_from_us"] < FOREVER_US, rows["special"] != 0, from_us < rows["past_until_us"]
        tested = (rows["special"] & SPECIAL_NEIGHBOURS) != 0
        single = np.flatnonzero((riding & special) | tested | closed)
        for start in range(0, len(single), TAGS_AT_ONCE):
            some = single[start : start + TAGS_AT_ONCE]
            late = some[closed[some] & (not self.replaying)]
            with self.ahead.reading(tags[late], from_us[late]):
                for at in some.tolist():
                    tag = int(tags[at])
                    new, touched = None, neighbours.NO_TIMES
                    if (riding[at] and special[at]) or tested[at]:
                        new = self._of_this_batch(tag) if released is None else released[tag]
                        touched = neighbours.take(self, tag, new, cause, changes)
                    if self.replaying:
                        past.take_prior(self, tag, "late", changes)
                    elif closed[at] and not tested[at]:
                        past.judge_late(self, tag, int(from_us[at]), changes)
                    elif new is not None and (closed[at] or len(touched)):
                        past.judge_touched(self, tag, new.sensed_us, touched, changes)
        plain = riding & ~special
        if plain.any():
            start = np.maximum(from_us[plain], rows["custody_from_us"][plain])
            self.late.judge_again(tags[plain], start, cause, changes, self._judged)

    def _of_this_batch(self, tag: int) -> Batch:
        """The tag's judged readings of this batch, in order of arrival."""
        ring = self.ring
        rows = []
        number = int(self.head.tags[tag]["ring_last"])
        while number >= self.batch_begins:
            slot = number % ring.capacity
            if ring.mark[slot] != FUTURE:
                rows.append(slot)
            number = int(ring.previous[slot])
        return self._ring_rows(np.array(rows[::-1], np.int64))

    def _ring_rows(self, slots: I8) -> Batch:
        ring = self.ring
        values = np.ascontiguousarray(ring.values[:, slots])
        zero = np.zeros(len(slots), np.int32)
        return Batch(zero, ring.sensed_us[slots], ring.boot[slots], ring.sequence[slots], ring.codes, values)

    # ---------------------------------------------------------------- clock

    def tick(self, now_us: int) -> Moved:
        """What the clock decides: tags gone silent, readings no longer in the future."""
        self.begin()
        moved = Moved(kind="tick")
        body = clock.decide(self, now_us)
        if body is not None:
            clock.apply(self, body, moved.changes)
            self.seal(moved, body)
            moved.answer = len(body["silent"]) == clock.SILENCES_AT_ONCE  # there may be more
        return moved

    def seal(self, moved: Moved, body: dict[str, Any]) -> None:
        """The journal entry of a tick or command, after its effect."""
        counters = {"counter": self.counter, "past_counter": self.past_counter}
        whole_body = {**body, **counters, "priors": list(self.priors.items())}
        moved.blob = json.dumps(whole_body, separators=(",", ":"), allow_nan=False).encode()

    # ---------------------------------------------------------------- replay of the journal

    def replay(self, kind: str, blob: bytes, received_us: int) -> None:
        """Move the state on by an entry that was decided before. What it would write is written already."""
        self.replaying = True
        try:
            changes = Changes()
            self.begin()
            if kind == "readings":
                encoded = codec.decode(blob)
                self.priors = dict(encoded.extra.get("priors", ()))
                self.slow = [(tag, from_us) for tag, from_us in encoded.extra.get("slow", ())]
                self.add(name for name in encoded.extra.get("new_tags", ()) if name not in self.ids)  # see adopt.registered
                self.past_counter = encoded.extra.get("past_counter", self.past_counter)
                kept = encoded.batch
                batch = Batch(kept.tag, kept.sensed_us, kept.boot, kept.sequence, kept.codes, np.array(kept.values, order="C"))
                if len(batch):
                    self._take(batch, received_us, np.zeros(len(batch), np.uint8), True, changes)
                for name in ("duplicate", "conflicting"):
                    tags, counts = encoded.extra.get(name, ((), ()))
                    for tag, count in zip(tags, counts, strict=True):
                        row = self.head.tags[tag]
                        row[name] += count
                        row["received_us"] = max(int(row["received_us"]), received_us)  # a copy is a sign of life too
                        row["silent"] = 0
            else:
                body = json.loads(blob)
                self.priors = dict(body["priors"])
                if kind == "tick":
                    clock.apply(self, body, changes)
                else:
                    apply(self, body, changes)
                    for tag in self.priors:
                        past.take_prior(self, tag, "profile" if body["command"] == "plan" else "custody", changes)
                # What is stated at the end of a custody took ids that a replay does not take again.
                self.counter, self.past_counter = body["counter"], body["past_counter"]
        finally:
            self.replaying = False

    # ---------------------------------------------------------------- small helpers of the commands

    def set_quality(self, tag: int, settings: QualitySettings | None) -> None:
        """The tag's quality settings from now on; None: only what is always tested."""
        row = self.head.tags[tag]
        if settings is None:
            self.quality.pop(tag, None)
            row["special"] &= SPECIAL_MKT
        else:
            self.quality[tag] = settings
            looks = SPECIAL_NEIGHBOURS if looking(settings, range(len(readings.COLUMNS))) else 0
            row["special"] = (row["special"] & SPECIAL_MKT) | SPECIAL_QUALITY | looks

    def series_of(self, tag: int, from_us: int, until_us: int) -> Batch:
        """All judged readings of a tag in [from_us, until_us), in any order: the ring's where it holds them all, else the journal's."""
        row = self.head.tags[tag : tag + 1]
        _, slots, complete = rows_of(self.ring, row, np.array([from_us], np.int64), np.array([until_us], np.int64))
        return self._ring_rows(slots) if complete[0] else self._judged([tag], from_us, until_us)[1]

    @staticmethod
    def interval(row: Custody) -> Interval:
        """A custody row as the rules' interval."""
        until_us = FOREVER_US if row.until_us is None else row.until_us
        return Interval(str(row.custody_id), row.carrier, row.handling_unit_id or "", row.from_us, until_us)

    @staticmethod
    def plan_of(row: CarrierPlan) -> Plan:
        """A plan row as the rules' plan."""
        return Plan.from_data(row.body)

    def judge_open(self, tag: int, cause: str, changes: Changes) -> None:
        """Judge the tag's open custody, if it has one, again from its start."""
        custody = self.head.custodies.get(tag)
        if custody is None:
            return
        self.head.note_remade([tag])
        if self.head.tags[tag]["special"]:
            if tag not in self.series:
                self.series[tag] = neighbours.load(self, tag)
            special.judge_all(self.head, tag, self.series[tag], cause, changes)
            return
        self.series.pop(tag, None)
        start = np.array([custody.from_us], np.int64)
        self.late.judge_again(np.array([tag], np.int32), start, cause, changes, self._judged)

    # ---------------------------------------------------------------- snapshots

    def dump(self) -> bytes:
        """The state as bytes, for a snapshot."""
        return snapshot.dump(self)

    def restore(self, data: bytes) -> None:
        """Back from `dump`. Raises ValueError for one of another version."""
        snapshot.restore(self, data)
