"""What the tags of a shard ask the database: committed rows and readings, this shard's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import Engine, func
from sqlalchemy import select as select_columns
from sqlalchemy.orm import Mapped
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from actors.journal import history, segments
from actors.journal.quarantine import DamagedJournal
from actors.journal.queries_stock import stock_lots
from actors.journal.tables import (
    CarrierPlan,
    Custody,
    Excursion,
    Exposure,
    HandlingUnit,
    HandlingUnitLot,
    JournalBatch,
    Mailbox,
    Tag,
    Visit,
    row_id,
)
from actors.rules.readings import I4, Batch

Record = TypeVar("Record")

KEYS_AT_ONCE = 500
"""So many keys are asked for in one statement."""


class TagReads:
    """See `actors.sensor_tag.Reads`. `settled` returns when every commit this shard has given is durable; given a tag id, when those are
    that write the tag's own row and custodies.

    `until_sequence`: readings of later journal entries are not there yet (a replay sees what the first judging saw).
    `damaged` records what was found damaged (quarantine.record); only then it is left out.
    """

    def __init__(self, engine: Engine, shard: int, settled: Callable[..., None], damaged: Callable[[DamagedJournal], None]) -> None:
        self.engine = engine
        self.shard = shard
        self.settled = settled
        self.damaged = damaged
        self.until_sequence: int | None = None
        self._lots: dict[tuple[str, str | None], list[str]] = {}

    def history(self, tags: list[int], from_us: int, until_us: int) -> tuple[I4, Batch]:
        """Accepted readings of the tags, in journal order: (position in `tags`, rows)."""
        self.settled()
        met: set[tuple[str, int, int]] = set()
        while True:
            try:
                return history.read(self.engine, self.shard, tags, from_us, until_us, before_sequence=self.until_sequence)
            except DamagedJournal as damage:
                self._leave_out(damage, met)

    def portion(self, tag: int, from_us: int, until_us: int, readings: int) -> int:
        """Up to which time about `readings` of a tag's readings from from_us on are read; after from_us, at most until_us."""
        return history.portion(self.engine, self.shard, tag, from_us, until_us, readings)

    def _leave_out(self, damage: DamagedJournal, met: set[tuple[str, int, int]]) -> None:
        """Record what was met; a second time it must not be met."""
        if damage.place in met:
            raise damage
        met.add(damage.place)
        self.damaged(damage)

    def custodies(self, tag_ids: list[str]) -> list[Custody]:
        """Some tags' custodies, those of each tag by start."""
        for tag_id in tag_ids:
            self.settled(tag_id)
        standing = select(Custody).where(col(Custody.retracted).is_(False)).order_by(col(Custody.tag_id), col(Custody.from_us))
        return self._of_each(standing, col(Custody.tag_id), tag_ids)

    def custodies_of(self, carrier: str) -> list[Custody]:
        """This shard's custodies on a carrier, by tag and start."""
        self.settled()
        with Session(self.engine) as session:
            found = session.exec(
                select(Custody)
                .where(col(Custody.retracted).is_(False))
                .order_by(col(Custody.from_us))
                .where(col(Custody.carrier) == carrier, col(Custody.shard) == self.shard)
            )
            return sorted(found, key=lambda row: (row.tag_id, row.from_us))

    def plan(self, carrier: str) -> CarrierPlan | None:
        """A carrier's plan."""
        with Session(self.engine) as session:
            return session.get(CarrierPlan, carrier)

    def tag(self, tag_id: str) -> Tag | None:
        """A tag's row."""
        self.settled(tag_id)
        with Session(self.engine) as session:
            return session.get(Tag, tag_id)

    def excursions(self, custody_ids: list[int]) -> list[Excursion]:
        """What stands stated of some custodies."""
        self.settled()
        standing = select(Excursion).where(col(Excursion.state) != "RETRACTED")
        return self._of_each(standing, col(Excursion.custody_id), custody_ids)

    def visits(self, custody_ids: list[int]) -> list[Visit]:
        """What stands stated of some custodies."""
        self.settled()
        standing = select(Visit).where(col(Visit.kind).in_(("VISIT", "PASSED")), col(Visit.state) != "RETRACTED")
        return self._of_each(standing, col(Visit.custody_id), custody_ids)

    def exposures(self, custody_ids: list[int]) -> list[Exposure]:
        """Sums of closed custodies, by custody and limit."""
        self.settled()
        by_limit = select(Exposure).order_by(col(Exposure.custody_id), col(Exposure.limit_id))
        return self._of_each(by_limit, col(Exposure.custody_id), sorted(custody_ids))

    def _of_each(self, query: SelectOfScalar[Record], column: Mapped[Any], keys: Sequence[Any]) -> list[Record]:
        """The rows that a query finds of these keys, in portions."""
        found: list[Record] = []
        with Session(self.engine) as session:
            for start in range(0, len(keys), KEYS_AT_ONCE):
                found += session.exec(query.where(column.in_(keys[start : start + KEYS_AT_ONCE]))).all()
        return found

    def exposures_of(self, carrier: str) -> list[tuple[Exposure, Custody]]:
        """Sums of this shard's closed custodies on a carrier."""
        with Session(self.engine) as session:
            query = select_columns(Exposure, Custody).join(Custody, col(Custody.custody_id) == col(Exposure.custody_id))
            mine = (col(Exposure.carrier) == carrier) & (col(Custody.shard) == self.shard) & (col(Custody.retracted).is_(False))
            return [(row[0], row[1]) for row in session.execute(query.where(mine)).all()]

    def lots(self, carriers: list[str]) -> dict[tuple[str, str], list[str]]:
        """The lots on some carriers, sorted, by (carrier, handling unit)."""
        query = (
            select_columns(col(HandlingUnit.carrier), col(HandlingUnit.handling_unit_id), col(HandlingUnitLot.lot_id))
            .join(HandlingUnitLot, col(HandlingUnit.handling_unit_id) == col(HandlingUnitLot.handling_unit_id))
            .order_by(col(HandlingUnitLot.lot_id))
        )
        found: dict[tuple[str, str], list[str]] = {}
        with Session(self.engine) as session:
            for start in range(0, len(carriers), KEYS_AT_ONCE):
                some = carriers[start : start + KEYS_AT_ONCE]
                for carrier, unit, lot in session.execute(query.where(col(HandlingUnit.carrier).in_(some))).all():
                    found.setdefault((carrier, unit), []).append(lot)
            stock_lots(session, carriers, found)
        return found

    def mail(self, limit: int = 100) -> list[Mailbox]:
        """What waits in this shard's mailbox, oldest first."""
        with Session(self.engine) as session:
            query = select(Mailbox).where(col(Mailbox.shard) == self.shard).order_by(col(Mailbox.id)).limit(limit)
            return list(session.exec(query))

    def journal_after(self, sequence: int) -> Iterator[JournalBatch]:
        """The entries of this shard's journal after one, in order, sorted or not; what is in quarantine without its body."""
        met: set[tuple[str, int, int]] = set()
        while True:
            try:
                for entry in segments.entries(self.engine, self.shard, sequence):
                    yield entry
                    sequence = entry.sequence
            except DamagedJournal as damage:
                self._leave_out(damage, met)
            else:
                return

    def tag_ids(self) -> list[str]:
        """This shard's tags by local index."""
        with Session(self.engine) as session:
            query = select_columns(col(Tag.tag_id)).where(col(Tag.shard) == self.shard).order_by(col(Tag.local_index))
            return list(session.execute(query).scalars())

    def largest_counter(self, from_counter: int, until_counter: int) -> int:
        """The largest counter in [from_counter, until_counter) that an id of this shard's excursions and visits was made with, else 0."""
        low, high = row_id(self.shard, from_counter), row_id(self.shard, until_counter - 1)
        with Session(self.engine) as session:
            found = [
                session.execute(select_columns(func.max(column)).where(column.between(low, high))).scalar()
                for column in (col(Excursion.excursion_id), col(Visit.visit_id))
            ]
        return max((number - row_id(self.shard, 0) for number in found if number is not None), default=0)
