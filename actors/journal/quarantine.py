"""What is damaged: named, recorded once with the bytes as they were found, told as an event, and only then left out.

Who meets damage (a look into history, a recovery, the sorting in the background) gets DamagedJournal. Nothing reads past it
until `record` has committed a row of the table `quarantine` and an event of kind `journal.damaged`; what stands there is left out.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam, select

from actors.journal import rows
from actors.journal.prepared import EventDraft, PreparedCommit
from actors.journal.store import Store
from actors.journal.tables import Quarantine

log = logging.getLogger("waybill.quarantine")

QUARANTINE = rows.table_of(Quarantine)
_KNOWN = select(QUARANTINE.c.kind, QUARANTINE.c.number, QUARANTINE.c.page).where(QUARANTINE.c.shard == bindparam("its_shard"))

ENTRY, PAGE, ENTRIES = "entry", "page", "entries"
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Known:
    """What of a shard is in quarantine: journal entries, (segment, page), and first sequences of sorted entries' heads."""

    entries: frozenset[int] = field(default_factory=frozenset)
    pages: frozenset[tuple[int, int]] = field(default_factory=frozenset)
    heads: frozenset[int] = field(default_factory=frozenset)


class DamagedJournal(Exception):
    """Stored bytes are not those that were written. Names what they are of, and the sensed times of the readings in it (if any).

    kind, number, page: see Quarantine; `blob`: the bytes as found.
    """

    def __init__(
        self, shard: int, kind: str, number: int, page: int, name: str, from_us: int | None, until_us: int | None, readings: int,
        blob: bytes, why: str,
    ) -> None:  # fmt: skip
        times = "no readings" if from_us is None else f"sensed {from_us} to {until_us} us"
        super().__init__(f"{name} of shard {shard} ({times}) is damaged: {why}")
        self.shard, self.kind, self.number, self.page, self.name = shard, kind, number, page, name
        self.from_us, self.until_us, self.readings, self.blob, self.why = from_us, until_us, readings, bytes(blob), why

    @property
    def place(self) -> tuple[str, int, int]:
        """What is damaged: kind, number, page."""
        return self.kind, self.number, self.page

    @property
    def sequence(self) -> int:
        """The journal entry, where it is one."""
        return self.number


def damaged_entry(
    shard: int, sequence: int, from_us: int | None, until_us: int | None, readings: int, blob: bytes, why: str
) -> DamagedJournal:
    """A journal entry whose bytes are not those that were committed."""
    return DamagedJournal(shard, ENTRY, sequence, 0, f"journal entry {sequence}", from_us, until_us, readings, blob, why)


def known(connection: Connection, shard: int) -> Known:
    """What of a shard is in quarantine, in this transaction's state of the database."""
    found = connection.execute(_KNOWN, {"its_shard": shard}).all()
    return Known(
        frozenset(row.number for row in found if row.kind == ENTRY),
        frozenset((row.number, row.page) for row in found if row.kind == PAGE),
        frozenset(row.number for row in found if row.kind == ENTRIES),
    )


def record(store: Store, epoch: int, damage: DamagedJournal, now_us: int) -> None:
    """Put it into quarantine and tell it as an event, durably; a second time changes nothing.

    Raises what a commit raises: then it is not recorded, and must not be left out.
    """
    log.error("%s", damage)
    row = Quarantine(
        shard=damage.shard, kind=damage.kind, number=damage.number, page=damage.page, name=damage.name, from_us=damage.from_us,
        until_us=damage.until_us, readings=damage.readings, why=damage.why, found_us=now_us, blob=damage.blob,
    )  # fmt: skip
    body = {
        "shard": damage.shard, "name": damage.name, "from_us": damage.from_us, "until_us": damage.until_us, "readings": damage.readings,
        "why": damage.why,
    }  # fmt: skip
    key = f"damaged|{damage.shard}|{damage.kind}|{damage.number}|{damage.page}"
    commit = PreparedCommit(
        shard=damage.shard, epoch=epoch, now_us=now_us, commit_key=key, upserts=[row], events=[EventDraft("journal.damaged", now_us, body)]
    )
    store.commit(commit).result(TIMEOUT_S)
