"""A journal in memory: what the tags of one shard ask of the database, answered from what they have decided so far."""

from __future__ import annotations

from typing import Any

import numpy as np

from actors.journal.prepared import JournalEntry, PreparedCommit
from actors.journal.tables import CarrierPlan, Excursion
from actors.part import Part
from actors.rules import codec, readings
from actors.rules.plan import Plan
from actors.rules.readings import I4, U1, Batch
from actors.sensor_tag import Moved, SensorTags
from actors.tags import rows as tag_rows
from actors.tags.commands import COMMANDS
from actors.tags.kept import KeptRows
from actors.tags.ring import Ring

NO_BATCH = Batch(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), (), np.zeros((0, 0)))


class MemoryJournal(KeptRows):
    """Entries and rows of one shard; see `actors.sensor_tag.Reads`."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[str, bytes, int]] = []
        self.visible: int | None = None
        self.commits: list[PreparedCommit] = []

    def history(self, tags: list[int], from_us: int, until_us: int) -> tuple[I4, Batch]:
        """See Reads."""
        found, position = [], []
        for kind, blob, _ in self.entries[: self.visible]:
            if kind == "readings":
                batch = codec.decode(blob).batch
                mine = np.isin(batch.tag, tags) & (batch.sensed_us >= from_us) & (batch.sensed_us < until_us)
                if mine.any():
                    found.append(readings.subset(batch, mine))
                    position += [tags.index(tag) for tag in batch.tag[mine].tolist()]
        return np.array(position, np.int32), readings.concatenate(found) if found else NO_BATCH

    def portion(self, tag: int, from_us: int, until_us: int, readings: int) -> int:
        """See Reads: it would not matter to read all, but then nothing was shown of going on."""
        sensed_us = np.sort(self.history([tag], from_us, until_us)[1].sensed_us)
        later = sensed_us[min(readings, len(sensed_us)) :]
        return int(later[0]) if len(later) and later[0] > from_us else until_us

    def write(self, commit: PreparedCommit) -> None:
        """Keep what a commit would write."""
        for row in commit.excursions:
            before = self.rows[Excursion].get(row.excursion_id)
            assert row.revision == (before.revision if before else 0) + 1, "revisions are numbered without gaps"
        super().write(commit)
        for table, many in commit.bulk_upserts:
            for values in many:
                self.keep(table(**values))
        self.commits.append(commit)


class OneShard:
    """The tags of shard 0 over a journal in memory, driven by hand. `ring_rows` small: the journal is asked often."""

    def __init__(self, ring_rows: int = 1 << 12, journal: MemoryJournal | None = None) -> None:
        self.journal = journal or MemoryJournal()
        self.ring_rows = ring_rows
        self.tags = SensorTags(0, 0, self.journal)
        self.tags.ring = self.tags.head.ring = Ring(0, least=ring_rows)

    def put_plan(self, plan: Plan) -> None:
        """The carrier's shard has written this plan."""
        self.journal.plans[plan.carrier] = CarrierPlan(carrier=plan.carrier, shard=0, revision=plan.revision, body=plan.to_data())

    def ingest(self, ids: list[str], batch: Batch, received_us: int) -> U1:
        """A message of readings."""
        (status,), moved = self.tags.ingest([Part("\n".join(ids).encode(), batch)], received_us)
        self.settle(moved, received_us)
        return status

    def command(self, name: str, now_us: int, **arguments: Any) -> Any:
        """A command."""
        moved = COMMANDS[name](self.tags, arguments, now_us)
        self.settle(moved, now_us)
        return moved.answer

    def tick(self, now_us: int) -> Moved:
        """The clock."""
        moved = self.tags.tick(now_us)
        self.settle(moved, now_us)
        return moved

    def settle(self, moved: Moved, now_us: int) -> None:
        """Commit."""
        if moved.blob is None:
            return
        commit = PreparedCommit(shard=0, epoch=1, now_us=now_us)
        commit.journal = JournalEntry(len(self.journal.entries) + 1, moved.kind, moved.blob, now_us)
        tag_rows.fill(commit, self.tags, moved.changes, now_us)
        self.journal.entries.append((moved.kind, moved.blob, now_us))
        self.journal.write(commit)

    def restarted(self, snapshot: bytes | None = None, after: int = 0) -> OneShard:
        """The successor: the snapshot taken after entry `after`, and the journal since."""
        other = OneShard(self.ring_rows, self.journal)
        if snapshot is not None:
            other.tags.restore(snapshot)
        for number in range(after, len(self.journal.entries)):
            self.journal.visible = number
            other.tags.replay(*self.journal.entries[number])
        self.journal.visible = None
        return other

    def excursions(self) -> list[Excursion]:
        """What stands stated, in order of limit and start."""
        standing = [row for row in self.journal.rows[Excursion].values() if row.state != "RETRACTED"]
        return sorted(standing, key=lambda row: (row.tag_id, row.carrier, row.limit_id, row.started_us))
