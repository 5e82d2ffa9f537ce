"""A Tryton for the run (tryton_server.py), and the ledger of a Waybill that is a dictionary, for tests of the connector alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pytest

from actors.journal import outbox
from actors.journal.store import open_store
from cluster.boot import Running
from services.erp.tryton import Tryton
from tests.erp.tryton_server import PASSWORD, TrytonServer, tryton
from tests.erp.world import SYSTEM, Outside

ITEMS = 60


@pytest.fixture(scope="session")
def erp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrytonServer]:
    """A running Tryton with 60 items in three rooms. Tests share it, so each uses lots of its own."""
    with tryton(tmp_path_factory.mktemp("tryton"), ITEMS) as server:
        yield server


@dataclass
class Ledger:
    """What a connector asks of Waybill: what means what, and what must not be picked."""

    places: dict[str, tuple[str, str]]
    blocked: dict[tuple[str, str], dict[tuple[str, str], Decimal | None]] = field(default_factory=dict)

    def item_of(self, external_id: str) -> str | None:
        return f"item-{external_id}"

    def external_item(self, item_id: str) -> str | None:
        return item_id.removeprefix("item-") if item_id.startswith("item-") else None

    def zone_of(self, external_id: str) -> tuple[str, str] | None:
        return self.places.get(external_id)

    def external_place(self, warehouse_id: str, zone_id: str) -> str | None:
        return next((place for place, zone in self.places.items() if zone == (warehouse_id, zone_id)), None)

    def lots(self) -> set[tuple[str, str]]:
        return set(self.blocked)

    def of_lot(self, item_id: str, lot_number: str) -> Mapping[tuple[str, str], Decimal | None]:
        return self.blocked.get((item_id, lot_number), {})


class Books:
    """Tryton's own tables, read by SQL."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        connection = sqlite3.connect(f"file:{self._file}?mode=ro", uri=True, timeout=10)
        try:
            return connection.execute(query, values).fetchall()
        finally:
            connection.close()

    def one(self, query: str, *values: object) -> object:
        return self.rows(query, *values)[0][0]

    def place(self, code: str) -> str:
        return str(self.one("SELECT id FROM stock_location WHERE code = ?", code))

    def on_hand(self, lot: str, place: str) -> float:
        """What the done moves of a lot leave in a place."""
        query = """SELECT coalesce(sum(CASE WHEN m.to_location = ?2 THEN m.internal_quantity ELSE 0 END
                                     - CASE WHEN m.from_location = ?2 THEN m.internal_quantity ELSE 0 END), 0)
                   FROM stock_move m JOIN stock_lot l ON l.id = m.lot WHERE l.number = ?1 AND m.state = 'done'"""
        return float(str(self.one(query, lot, int(place))))


@pytest.fixture(scope="session")
def books(erp: TrytonServer) -> Books:
    return Books(erp.file)


@pytest.fixture
def ledger(books: Books) -> Ledger:
    zones = {"COLD-1": ("NORTH", "COLD-1"), "COLD-2": ("NORTH", "COLD-2"), "COLD-3": ("SOUTH", "COLD-3")}
    return Ledger({books.place(code): zone for code, zone in zones.items()})


@pytest.fixture
def connector(erp: TrytonServer, ledger: Ledger) -> Iterator[Tryton]:
    made = Tryton(erp.url, "waybill", lambda: PASSWORD, ledger, ledger, now_us=lambda: 1_790_000_000_000_000)
    yield made
    made.close()


@pytest.fixture(scope="session")
def own_erp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrytonServer]:
    """A Tryton that nobody else uses: it is killed."""
    with tryton(tmp_path_factory.mktemp("own-tryton"), ITEMS) as server:
        yield server


@pytest.fixture(scope="session")
def outside(waybill: Running, own_erp: TrytonServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """The process between the two; afterwards the run's Waybill tells nobody anything again."""
    process = Outside(tmp_path_factory.mktemp("outside"), waybill.settings.url_text, waybill.target, own_erp)
    process.start()
    yield process
    process.close()
    store = open_store(waybill.settings.url_text)
    store.write(outbox.enable, SYSTEM, False).result()
    store.close()
