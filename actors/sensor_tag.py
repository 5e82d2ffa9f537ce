"""The sensor tags of one shard: thousands of virtual actors as columns, and what they do with readings and commands.

`SensorTags` is a fold: a state that journal entries move on. `ingest` and the commands decide what an entry says and move the state;
`replay` moves it by an entry that was decided before. Time and the database's rows arrive as data or through `Reads`.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from actors.journal.columns import row_id
from actors.journal.prepared import Condition
from actors.journal.tables import CarrierPlan, Conflict, Custody, Excursion, Exposure, Tag, Visit
from actors.rules import codec, readings
from actors.rules.custody import Interval
from actors.rules.plan import Plan
from actors.rules.quality import QualitySettings
from actors.rules.readings import (
    ACCEPTED,
    CONFLICTING,
    DUPLICATE,
    FOREVER_US,
    FUTURE_TOLERANCE_US,
    REFUSED,
    I4,
    I8,
    U1,
    Batch,
    Groups,
)
from actors.tags import admit, past, special, whole
from actors.tags.changes import Changes
from actors.tags.commands import apply

from actors.tags.columns import MIN_US, SPECIAL_QUALITY, fresh_tags, grown
from actors.tags.head import Head, block_index
from actors.tags.identity import resolve
from actors.tags.ring import FUTURE, Ring, rows_of

SNAPSHOT_VERSION = 1
"""Of the layout of `dump`; another one is not read, the journal is folded instead."""

PAST_IDS = 1 << 39
"""Set in the counter part of ids of what was first stated of a closed custody."""

SILENT_AFTER = 3
"""A tag is silent after this many of its usual intervals (handbook 4)."""

LEARNT_AFTER = 5
"""Readings after which a learnt interval is believed."""


@dataclass(slots=True)
class Part:
    """What a door sends a shard of one or more gateway messages: readings whose tag column is an index into `ids` (joined by newlines)."""

    ids: bytes
    batch: Batch


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

    def custodies(self, tag_id: str) -> list[Custody]:
        """The tag's custodies, by start."""
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

    def excursions(self, custody_id: int) -> list[Excursion]:
        """What stands stated of a custody."""
        ...

    def visits(self, custody_id: int) -> list[Visit]:
        """What stands stated of a custody."""
        ...

    def exposures(self, custody_ids: list[int]) -> list[Exposure]:
        """Sums of closed custodies."""
        ...

    def lots(self, carrier: str, handling_unit_id: str | None) -> list[str]:
        """The lots that ride on a carrier, or on one of its handling units."""
        ...


def without(groups: Groups, tags: I4) -> Groups:
    """The groups of other tags than these."""
    kept = ~np.isin(groups.tag, tags)
    sizes = np.diff(groups.start)[kept]
    start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Groups(groups.tag[kept], start, groups.order[block_index(groups.start[:-1][kept], sizes)])


class SensorTags:
    """See the module. `shard` is this shard's number; `ring_bytes` bounds the recent readings held."""

    def __init__(self, shard: int, ring_bytes: int, reads: Reads, auto_register: bool = True) -> None:
        self.shard = shard
        self.auto_register = auto_register
        self.reads = reads
        self.ids: list[str] = []
        self.index: dict[str, int] = {}
        self.counter = 0
        self.past_counter = 0
        self.ring = Ring(ring_bytes)
        self.ranges = admit.Ranges()
        self.head = Head(self.ring, self.next_id)
        self.series: dict[int, special.Series] = {}
        self.quality: dict[int, QualitySettings] = {}
        self.held: dict[int, set[tuple[int, int, int]]] = {}
        """Per tag the (sensed_us, boot, sequence) of readings that are still in the future."""
        self.priors: dict[int, dict[str, int]] = {}
        """Of the entry in work: new sums that open custodies go on from, by tag. Journaled, for a replay judges no closed custody."""
        self.slow: list[tuple[int, int]] = []
        """Of the entry in work, where readings were looked up: the tags judged as late, with the earliest time. Journaled."""
        self.clock_us = MIN_US
        self.replaying = False
        self._scratch = readings.Scratch()
        self._batch_begins = 0

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
        self._batch_begins = int(self.ring.head[0])

    def find(self, tag_id: str) -> int | None:
        """Local index of a tag, None where it is not known here."""
        return self.index.get(tag_id)

    def add(self, tag_ids: Iterable[str]) -> list[int]:
        """Local indices of tags that were not known."""
        made = []
        for tag_id in tag_ids:
            self.index[tag_id] = len(self.ids)
            made.append(len(self.ids))
            self.ids.append(tag_id)
        self.head.add_tags(len(made))
        return made

    # ---------------------------------------------------------------- readings

    def ingest(self, parts: list[Part], received_us: int) -> tuple[list[U1], Moved]:
        """Take the readings of a call: a status per reading and part, and what to commit."""
        moved = Moved()
        batches = []
        for part in parts:
            names = part.ids.decode().split("\n")
            known = list(map(self.index.get, names))
            if None in known and self.auto_register:
                unknown = dict.fromkeys(name for name, at in zip(names, known, strict=True) if at is None)
                moved.changes.new_tags.extend(self.add(unknown))
                known = list(map(self.index.get, names))
            local = np.array([-1 if at is None else at for at in known] if None in known else known, np.int32)
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
        self.begin()
        self._take(batch, received_us, taken, False, moved.changes)
        self._put_conflicts_aside(offered, taken, received_us, moved)
        self._journal(batch, taken, past_counter, moved)
        if taken is not status:
            status[~refused] = taken
        answers = []
        at = 0
        for part in parts:
            answers.append(status[at : at + len(part.batch)])
            at += len(part.batch)
        return answers, moved

    def _take(self, batch: Batch, received_us: int, status: U1, certain: bool, changes: Changes) -> None:
        self.clock_us = max(self.clock_us, received_us)
        groups = readings.group(batch.tag, batch.sensed_us, batch.boot, batch.sequence, max(self.head.size, 1), self._scratch)
        found = self._admit(groups, batch, received_us, certain, status)
        slow_tag, slow_from = found.slow_tag, found.slow_from
        self._hold(batch, found.future)
        if found.unsure:
            unsure = np.flatnonzero(status == admit.UNSURE)
            fresh = resolve(batch, status, unsure, self._known)
            for state, name in ((DUPLICATE, "duplicate"), (CONFLICTING, "conflicting")):
                np.add.at(self.head.tags[name], batch.tag[unsure[status[unsure] == state]], 1)
            if len(fresh):
                again = readings.group(
                    batch.tag[fresh], batch.sensed_us[fresh], batch.boot[fresh], batch.sequence[fresh], self.head.size, self._scratch
                )
                later = self._admit(Groups(again.tag, again.start, fresh[again.order]), batch, received_us, True, status)
                self._hold(batch, later.future)
                # What was looked up is judged as late, whatever it is: the groups of the first round may be newer.
                starts = batch.sensed_us[later.fast.order[later.fast.start[:-1]]]
                slow_tag = np.concatenate([slow_tag, later.slow_tag, later.fast.tag])
                slow_from = np.concatenate([slow_from, later.slow_from, starts])
                self.slow = list(zip(slow_tag.tolist(), slow_from.tolist(), strict=True))
        fast = found.fast
        if self.slow:  # looked up, now or when the entry was made: these tags are judged as late and no other way
            slow_tag, slow_from = (np.array(column) for column in zip(*self.slow, strict=True))
            fast = without(fast, slow_tag)
        self.head.advance(fast, batch, changes)
        if len(slow_tag):
            self._judge_slow(slow_tag, slow_from, "late", changes)
        for tag in found.woken.tolist():
            self._speaks_again(tag, changes)

    def _admit(self, groups: Groups, batch: Batch, received_us: int, certain: bool, status: U1) -> admit.Admission:
        return admit.run(
            groups, batch, self.head.tags, self.head.count, self.head.visit_count, self.ranges, self.ring,
            received_us, received_us + FUTURE_TOLERANCE_US, certain, status,
        )  # fmt: skip

    def _known(self, tags: list[int], from_us: int, until_us: int) -> tuple[I4, Batch]:
        """Accepted readings of some tags: the journal's and this commit's, the ones in the future included."""
        position, batch = self.reads.history(tags, from_us, until_us)
        begin, head = self._batch_begins, int(self.ring.head[0])
        slots = np.arange(begin, head) % self.ring.capacity
        where = {tag: at for at, tag in enumerate(tags)}
        mine = np.array([slot for slot in slots.tolist() if int(self.ring.tag[slot]) in where], np.int64)
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
            keep = np.array(
                [
                    (int(at), int(boot), int(sequence)) not in (held[where] or ())
                    for where, at, boot, sequence in zip(position, batch.sensed_us, batch.boot, batch.sequence, strict=True)
                ],
                np.bool_,
            )
            position, batch = position[keep], readings.subset(batch, keep)
        return position, batch

    def _hold(self, batch: Batch, rows: I8) -> None:
        for row in rows.tolist():
            key = (int(batch.sensed_us[row]), int(batch.boot[row]), int(batch.sequence[row]))
            self.held.setdefault(int(batch.tag[row]), set()).add(key)

    def _judge_slow(self, tags: I4, from_us: I8, cause: str, changes: Changes) -> None:
        """Judge again what late readings touch: open custodies together, special tags and closed custodies one by one."""
        earliest: dict[int, int] = {}
        for tag, at in zip(tags.tolist(), from_us.tolist(), strict=True):
            earliest[tag] = min(at, earliest.get(tag, at))
        plain: list[int] = []
        for tag, at in earliest.items():
            row = self.head.tags[tag]
            if tag in self.head.custodies:
                if not row["special"]:
                    plain.append(tag)
                else:
                    self._judge_special(tag, cause, changes)
            if at < row["past_until_us"]:
                if self.replaying:
                    past.take_prior(self, tag, cause, changes)
                else:
                    past.judge_late(self, tag, at, changes)
        if plain:
            start = np.array([max(earliest[tag], int(self.head.tags[tag]["custody_from_us"])) for tag in plain], np.int64)
            self.head.judge_again(np.array(plain, np.int32), start, cause, changes, self._judged)

    def _judge_special(self, tag: int, cause: str, changes: Changes) -> None:
        """Give the tag's series the readings of this batch that fall into its open custody."""
        from_us = int(self.head.tags[tag]["custody_from_us"])
        settings = self.quality.get(tag)
        known = self.series.get(tag)
        if known is None:
            _, batch = self._series_since(tag, from_us)
        else:
            _, batch = self._of_this_batch(tag, from_us)
            if not len(batch):
                return
        self.series[tag] = special.take(self.head, tag, known, batch, settings, cause, changes)

    def _of_this_batch(self, tag: int, from_us: int) -> tuple[I4, Batch]:
        ring = self.ring
        rows = []
        number = int(self.head.tags[tag]["ring_last"])
        while number >= self._batch_begins:
            slot = number % ring.capacity
            if ring.mark[slot] != FUTURE and ring.sensed_us[slot] >= from_us:
                rows.append(slot)
            number = int(ring.previous[slot])
        return self._ring_rows(np.array(rows[::-1], np.int64))

    def _ring_rows(self, slots: I8) -> tuple[I4, Batch]:
        ring = self.ring
        zero = np.zeros(len(slots), np.int32)
        values = np.ascontiguousarray(ring.values[:, slots])
        return zero, Batch(zero, ring.sensed_us[slots], ring.boot[slots], ring.sequence[slots], ring.codes, values)

    def _series_since(self, tag: int, from_us: int, until_us: int = FOREVER_US) -> tuple[I4, Batch]:
        """All judged readings of a tag in [from_us, until_us), from the ring where it holds them all, else from the journal."""
        row = self.head.tags[tag : tag + 1]
        _, slots, complete = rows_of(self.ring, row, np.array([from_us], np.int64), np.array([until_us], np.int64))
        return self._ring_rows(slots) if complete[0] else self._judged([tag], from_us, until_us)

    def _put_conflicts_aside(self, offered: Batch, status: U1, received_us: int, moved: Moved) -> None:
        for ordinal, row in enumerate(np.flatnonzero(status == CONFLICTING).tolist()):
            values = {readings.COLUMNS[code].name: float(offered.values[k, row]) for k, code in enumerate(offered.codes)}
            moved.changes.inserts.append(
                Conflict(
                    shard=self.shard,
                    sequence=0,  # the shard fills in the entry's number
                    ordinal=ordinal,
                    tag_id=self.ids[int(offered.tag[row])],
                    sensed_us=int(offered.sensed_us[row]),
                    boot=int(offered.boot[row]),
                    reading_sequence=int(offered.sequence[row]),
                    received_us=received_us,
                    content={name: value for name, value in values.items() if value == value},
                )
            )

    def _journal(self, batch: Batch, status: U1, past_counter: int, moved: Moved) -> None:
        """The entry: the accepted readings, and the counts of the others by tag."""
        whole = bool((status == ACCEPTED).all())
        if whole:
            kept = batch
        else:
            kept_rows = status == ACCEPTED
            partly = np.flatnonzero(status == CONFLICTING)
            if len(partly):  # what is new of a partly conflicting reading was put into the ring
                kept_rows[[row for row in partly.tolist() if self._in_ring(batch, row)]] = True
            kept = readings.subset(batch, kept_rows)
        extra: dict[str, Any] = {"past_counter": self.past_counter} if self.past_counter != past_counter else {}
        if self.priors:
            extra["priors"] = list(self.priors.items())
        if self.slow:
            extra["slow"] = self.slow
        if moved.changes.new_tags:
            extra["new_tags"] = [self.ids[at] for at in moved.changes.new_tags]
        for name, state in (("duplicate", DUPLICATE), ("conflicting", CONFLICTING)):
            if not whole and (status == state).any():
                tags, counts = np.unique(batch.tag[status == state], return_counts=True)
                extra[name] = [tags.tolist(), counts.tolist()]
        if not len(kept) and not extra:
            return
        moved.blob = codec.encode(kept, None, None, extra)
        moved.rows = len(kept)
        if len(kept):
            moved.min_sensed_us, moved.max_sensed_us = int(kept.sensed_us.min()), int(kept.sensed_us.max())

    def _in_ring(self, batch: Batch, row: int) -> bool:
        """Whether this batch's row was put into the ring (a reading without a sequence that conflicts only in part)."""
        if batch.sequence[row] >= 0:
            return False
        ring = self.ring
        number = int(self.head.tags[int(batch.tag[row])]["ring_last"])
        while number >= self._batch_begins:
            slot = number % ring.capacity
            if ring.sensed_us[slot] == batch.sensed_us[row] and ring.sequence[slot] < 0:
                values = ring.values[[int(ring.row_of_code[code]) for code in batch.codes], slot]
                if np.array_equal(values, batch.values[:, row], equal_nan=True):
                    return True
            number = int(ring.previous[slot])
        return False

    # ---------------------------------------------------------------- clock

    def tick(self, now_us: int) -> Moved:
        """What the clock decides: tags gone silent, readings no longer in the future."""
        moved = Moved(kind="tick")
        tags = self.head.tags[: self.head.size]
        usual = np.where(
            tags["set_interval_us"] > 0, tags["set_interval_us"], np.where(tags["accepted"] >= LEARNT_AFTER, tags["usual_interval_us"], 0)
        )
        silent = (
            (usual > 0) & (tags["silent"] == 0) & (tags["received_us"] > MIN_US) & (now_us - tags["received_us"] > SILENT_AFTER * usual)
        )
        self.begin()
        released = {
            tag: sorted(key for key in keys if key[0] <= now_us) for tag, keys in self.held.items() if any(key[0] <= now_us for key in keys)
        }
        if not silent.any() and not released:
            return moved
        body = {"now_us": now_us, "silent": np.flatnonzero(silent).tolist(), "released": {str(tag): keys for tag, keys in released.items()}}
        self._apply_tick(body, moved.changes)
        self.seal(moved, body)
        return moved

    def seal(self, moved: Moved, body: dict[str, Any]) -> None:
        """The journal entry of a tick or command, after its effect."""
        moved.blob = json.dumps({**body, "past_counter": self.past_counter, "priors": list(self.priors.items())}, separators=(",", ":"), allow_nan=False).encode()

    def _apply_tick(self, body: Mapping[str, Any], changes: Changes) -> None:
        now_us = int(body["now_us"])
        self.clock_us = max(self.clock_us, now_us)
        for tag in body["silent"]:
            row = self.head.tags[tag]
            row["silent"] = 1
            custody = self.head.custodies.get(tag)
            if custody is not None:
                usual_us = int(row["set_interval_us"]) or int(row["usual_interval_us"])
                changes.conditions.append(
                    Condition(
                        key=f"silence|{self.ids[tag]}", kind="silence", change="raise", at_us=int(row["newest_us"]), carrier=custody.carrier,
                        tag_id=self.ids[tag], reason="SILENT", cause="clock",
                        detail={"usual_interval_us": usual_us, "last_received_us": int(row["received_us"])},
                    )
                )  # fmt: skip
        slow_tag, slow_from = [], []
        for name, keys in body["released"].items():
            tag = int(name)
            mine = self.held.get(tag, set())
            for key in keys:
                mine.discard(tuple(key))
            if not mine:
                self.held.pop(tag, None)
            slow_tag.append(tag)
            slow_from.append(self._release(tag, [tuple(key) for key in keys]))
        if slow_tag:
            for tag in slow_tag:
                self.series.pop(tag, None)
            self._judge_slow(np.array(slow_tag, np.int32), np.array(slow_from, np.int64), "reading", changes)

    def _release(self, tag: int, keys: list[tuple[int, int, int]]) -> int:
        """The named readings are no longer in the future. Returns the earliest of their sensed times."""
        row, ring = self.head.tags[tag], self.ring
        number, floor = int(row["ring_last"]), int(ring.head[0]) - ring.capacity
        while number >= 0 and number >= floor:
            slot = number % ring.capacity
            if (int(ring.sensed_us[slot]), int(ring.boot[slot]), int(ring.sequence[slot])) in keys:
                ring.mark[slot] = 0
            number = int(ring.previous[slot])
        newest = max(keys)
        if newest > (int(row["newest_us"]), int(row["newest_boot"]), int(row["newest_sequence"])):
            row["newest_us"], row["newest_boot"], row["newest_sequence"] = newest
        return min(keys)[0]

    def _speaks_again(self, tag: int, changes: Changes) -> None:
        custody = self.head.custodies.get(tag)
        changes.conditions.append(
            Condition(
                key=f"silence|{self.ids[tag]}", kind="silence", change="clear", at_us=int(self.head.tags[tag]["received_us"]),
                carrier=custody.carrier if custody else None, tag_id=self.ids[tag], reason="SILENT", cause="reading",
            )
        )  # fmt: skip

    # ---------------------------------------------------------------- replay of the journal

    def replay(self, kind: str, blob: bytes, received_us: int) -> None:
        """Move the state on by an entry that was decided before. What it would write is written already."""
        self.replaying = True
        try:
            changes = Changes()
            self.begin()
            if kind == "readings":
                encoded = codec.decode(blob)
                self.priors = {tag: prior_us for tag, prior_us in encoded.extra.get("priors", ())}
                self.slow = [(tag, from_us) for tag, from_us in encoded.extra.get("slow", ())]
                self.add(encoded.extra.get("new_tags", ()))
                self.past_counter = encoded.extra.get("past_counter", self.past_counter)
                kept = encoded.batch
                batch = Batch(kept.tag, kept.sensed_us, kept.boot, kept.sequence, kept.codes, np.array(kept.values, order="C"))
                if len(batch):
                    self._take(batch, received_us, np.zeros(len(batch), np.uint8), True, changes)
                for name in ("duplicate", "conflicting"):
                    tags, counts = encoded.extra.get(name, ((), ()))
                    for tag, count in zip(tags, counts, strict=True):
                        self.head.tags[tag][name] += count
            else:
                body = json.loads(blob)
                self.priors = {tag: prior_us for tag, prior_us in body["priors"]}
                if kind == "tick":
                    self._apply_tick(body, changes)
                else:
                    apply(self, body, changes)
                    for tag in self.priors:
                        past.take_prior(self, tag, "profile" if body["command"] == "plan" else "custody", changes)
                self.past_counter = body["past_counter"]
        finally:
            self.replaying = False

    # ---------------------------------------------------------------- small helpers of the commands

    def set_quality(self, tag: int, settings: QualitySettings | None) -> None:
        """The tag's quality settings from now on; None: only what is always tested."""
        row = self.head.tags[tag]
        if settings is None:
            self.quality.pop(tag, None)
            row["special"] &= ~SPECIAL_QUALITY & 0xFF
        else:
            self.quality[tag] = settings
            row["special"] |= SPECIAL_QUALITY

    def series_of(self, tag: int, from_us: int, until_us: int) -> Batch:
        """All judged readings of a tag in [from_us, until_us), in any order."""
        return self._series_since(tag, from_us, until_us)[1]

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
        if self.head.tags[tag]["special"]:
            known = self.series.get(tag)
            batch = known.batch if known is not None else self._series_since(tag, custody.from_us)[1]
            kept = batch.sensed_us >= custody.from_us
            batch = readings.subset(batch, kept) if not kept.all() else batch
            self.series[tag] = special.judge_all(self.head, tag, whole.ordered(batch), self.quality.get(tag), cause, changes)
            return
        self.series.pop(tag, None)
        start = np.array([custody.from_us], np.int64)
        self.head.judge_again(np.array([tag], np.int32), start, cause, changes, self._judged)

    # ---------------------------------------------------------------- snapshots

    def dump(self) -> bytes:
        """The state as bytes; the ring is left out, its readings are in the journal."""
        head = self.head
        tags = head.tags[: head.size].copy()
        tags["ring_last"] = -1
        state = {
            "version": SNAPSHOT_VERSION,
            "shard": self.shard,
            "counters": (self.counter, self.past_counter),
            "clock_us": self.clock_us,
            "ids": "\n".join(self.ids),
            "tags": tags,
            "blocks": [column[: head.size].copy() for column in (head.first, head.count, head.visit_first, head.visit_count)],
            "pools": [pool.dump() for pool in (head.tracks, head.visits, head.old_tracks, head.old_visits)],
            "owners": [head.track_tag[: head.tracks.used].copy(), head.visit_tag[: head.visits.used].copy()],
            "rulebook": head.rulebook,
            "custodies": head.custodies,
            "excursions": head.excursions,
            "visits": head.stated_visits,
            "ranges": self.ranges,
            "series": self.series,
            "quality": self.quality,
            "held": self.held,
        }
        return pickle.dumps(state, protocol=5)

    def restore(self, data: bytes) -> None:
        """Back from `dump`. Raises ValueError for a snapshot of another version: the journal is folded from its start then."""
        state = pickle.loads(data)
        if state["version"] != SNAPSHOT_VERSION:
            raise ValueError(f"snapshot version {state['version']}, this is {SNAPSHOT_VERSION}")
        head = self.head
        (self.counter, self.past_counter), self.clock_us = state["counters"], state["clock_us"]
        self.ids = state["ids"].split("\n") if state["ids"] else []
        self.index = {name: at for at, name in enumerate(self.ids)}
        head.size = len(self.ids)
        head.tags = grown(state["tags"], 64)
        fresh_tags(head.tags[head.size :])
        head.first, head.count, head.visit_first, head.visit_count = (grown(column, 64) for column in state["blocks"])
        for pool, kept in zip((head.tracks, head.visits, head.old_tracks, head.old_visits), state["pools"], strict=True):
            pool.restore(kept)
        head.track_tag, head.visit_tag = (grown(column, 64) for column in state["owners"])
        head.rulebook, head.custodies = state["rulebook"], state["custodies"]
        head.excursions, head.stated_visits = state["excursions"], state["visits"]
        self.ranges, self.series, self.quality, self.held = state["ranges"], state["series"], state["quality"], state["held"]
