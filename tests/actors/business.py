"""A small world for the tests of what carriers and the catalog decide: a migrated database, and commands carried out in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import select
from sqlmodel import Session, SQLModel

from actors.catalog import CatalogPopulation, seed
from actors.decision import Decision
from actors.journal import commit, fence
from actors.journal.database import reader, writer
from actors.journal.migrate import migrate
from actors.journal.prepared import PreparedCommit
from actors.journal.tables import Alert, CarrierPlan, Event, Mailbox
from actors.rules.errors import DomainError
from actors.rules.plan import Plan
from actors.shipment import ShipmentPopulation
from actors.warehouse import WarehousePopulation

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
START_US = 1_800_000_000_000_000
"""When the world begins: 2027-01-15 08:00 UTC."""

SHARD, SHARDS = 0, 2
R = TypeVar("R", bound=SQLModel)


class World:
    """One shard's populations on one database. Time is what the test says."""

    def __init__(self, url: str) -> None:
        migrate(url)
        self.write, self.read = writer(url), reader(url)
        self.now_us = START_US
        self.shipments = ShipmentPopulation(SHARD, SHARDS, self.read)
        self.warehouses = WarehousePopulation(SHARD, SHARDS, self.read)
        self.catalog = CatalogPopulation(SHARD, SHARDS, self.read)
        self.commands = {**self.shipments.commands, **self.warehouses.commands, **self.catalog.commands}
        with self.write.begin() as connection:
            self.epoch = fence.acquire(connection, SHARD, fence.Claimant(pid=1), START_US).epoch
        seeds = seed(self.read, SHARDS, START_US)
        if seeds is not None:
            self.apply(seeds)

    def do(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Decide a command and commit it; what the caller would get. A minute passes."""
        self.now_us += 60_000_000
        decision = self.commands[command](arguments, self.now_us)
        self.keep(decision)
        return decision.answer

    def tick(self, at_us: int) -> bool:
        """Let time pass until then. Whether something was decided."""
        self.now_us = at_us
        decision = self.shipments.tick(at_us)
        if decision is not None:
            self.keep(decision)
        return decision is not None

    def keep(self, decision: Decision) -> None:
        """Commit a decision."""
        if decision.changes:
            self.apply(decision.commit(SHARD, self.epoch, self.now_us, None))

    def apply(self, prepared: PreparedCommit) -> None:
        """Apply a commit, or raise what refused it."""
        with self.write.begin() as connection:
            (answer,) = commit.apply(connection, [prepared])
        if isinstance(answer, DomainError):
            raise answer

    def deliver_mail(self) -> list[dict[str, Any]]:
        """Carry out what was posted to our shard, as the shard does; gives what was there, and empties the box."""
        mine = [row for row in self.rows(Mailbox) if row.shard == SHARD]
        for row in mine:
            handler = self.commands.get(row.body["command"])
            if handler is not None:
                self.keep(handler({key: value for key, value in row.body.items() if key != "command"}, self.now_us))
        with self.write.begin() as connection:
            connection.exec_driver_sql("DELETE FROM mailbox")
        return [row.body for row in mine]

    def rows(self, table: type[R]) -> list[R]:
        """All rows of a table."""
        with Session(self.read, expire_on_commit=False) as session:
            return list(session.scalars(select(table)))

    def plan(self, carrier: str) -> Plan:
        """The plan of a carrier."""
        (row,) = [row for row in self.rows(CarrierPlan) if row.carrier == carrier]
        return Plan.from_data(row.body)

    def events(self) -> list[str]:
        """The kinds of all events, in order."""
        return [event.kind for event in sorted(self.rows(Event), key=lambda event: event.number)]

    def alerts(self) -> list[Alert]:
        """All alerts."""
        return self.rows(Alert)


@contextmanager
def world_on(url: str) -> Iterator[World]:
    """A world that closes its connections."""
    world = World(url)
    try:
        yield world
    finally:
        world.read.dispose()
        world.write.dispose()
