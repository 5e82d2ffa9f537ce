"""What a carrier's or a catalog's command decided, as data: the shard adds shard, epoch and journal entry and commits it.

A decision is made from what is stored and what the caller says, never from a clock or chance: the same input decides the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.journal.columns import Row
from actors.journal.prepared import Condition, EventDraft, HoldAct, JournalEntry, Key, PreparedCommit, Table
from actors.journal.tables import Mailbox


@dataclass(slots=True)
class Decision:
    """The outcome of one command: `answer` is what the caller gets (plain data), the rest is written, all of it or nothing.

    The fields mean what PreparedCommit's mean. A decision without changes (a repeated request) is answered and not committed.
    """

    answer: dict[str, Any] = field(default_factory=dict)
    expect: list[tuple[Table, Key, int | None]] = field(default_factory=list)
    deletes: list[tuple[Table, Key]] = field(default_factory=list)
    inserts: list[Row] = field(default_factory=list)
    upserts: list[Row] = field(default_factory=list)
    events: list[EventDraft] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    mailbox: list[Mailbox] = field(default_factory=list)
    hold_acts: list[HoldAct] = field(default_factory=list)

    @property
    def changes(self) -> bool:
        """Whether there is something to commit."""
        parts = (self.deletes, self.inserts, self.upserts, self.events, self.conditions, self.mailbox, self.hold_acts)
        return any(parts)

    def commit(self, shard: int, epoch: int, now_us: int, journal: JournalEntry | None, commit_key: str | None = None) -> PreparedCommit:
        """The decision as a commit of a shard's owner."""
        return PreparedCommit(
            shard=shard,
            epoch=epoch,
            now_us=now_us,
            journal=journal,
            commit_key=commit_key,
            expect=self.expect,
            deletes=self.deletes,
            inserts=self.inserts,
            upserts=self.upserts,
            events=self.events,
            conditions=self.conditions,
            mailbox=self.mailbox,
            hold_acts=self.hold_acts,
        )

    def post(self, shards: int, key: str, now_us: int, body: Mapping[str, Any]) -> None:
        """Send a message to every shard, applied there once: `body["command"]` names the command, the rest are its arguments."""
        self.mailbox.extend(Mailbox(shard=shard, key=key, posted_us=now_us, body=dict(body)) for shard in range(shards))


Handler = Callable[[Mapping[str, Any], int], Decision]
"""A command: (arguments, now_us) -> Decision, or a DomainError."""
