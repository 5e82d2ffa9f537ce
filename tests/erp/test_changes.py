"""Reading changes by their dates: nothing is left out, whoever commits late and however long the connector was away."""

from __future__ import annotations

import datetime as dt
from typing import Any, cast

import pytest

from services.erp import tryton_read
from services.erp.inbound import undo_key
from services.erp.jsonrpc import TrytonRpc
from services.erp.tryton_read import OVERLAP_S, Places, Seen, read_changes

NOON = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)
PLACES = Places(warehouse={"1": 9}, outside={"2": "supplier"})


class Clocked:
    """A table of moves as Tryton dates them: by the begin of the transaction. `between`: what happens between pages."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.moves: dict[int, dict[str, Any]] = {}
        self.context = {"company": 1}
        self.between: list[Any] = []
        self.known = Seen()
        self.whole = 0  # records that were read with all their fields

    def commit(self, number: int, began_s: float, state: str = "done") -> None:
        date = NOON + dt.timedelta(seconds=began_s)
        made = self.moves[number]["create_date"] if number in self.moves else date
        self.moves[number] = {
            "id": number, "create_date": made, "write_date": date, "state": state, "from_location": 2, "to_location": 1, "product": 5,
            "internal_quantity": 1.0, "product.": {"default_uom.": {"symbol": "u"}}, "effective_date": None, "shipment": None,
        }  # fmt: skip

    def call(
        self, method: str, domain: list[Any], start: int, limit: int | None, order: Any, fields: list[str], context: Any = None
    ) -> list[dict[str, Any]]:
        if method != "model.stock.move.search_read":
            return []
        rows = self._found(domain, limit)
        self.whole += len(rows) if "product" in fields else 0
        return rows

    def _found(self, domain: list[Any], limit: int | None) -> list[dict[str, Any]]:
        if domain[0][1] == "in" and domain[0][0] == "id":
            return [self.moves[number] for number in domain[0][2]]
        [after] = [one[2] for one in domain if one[0] == "id"]
        dates = next((one[1] for one in domain if one[0] == "OR"), None)
        found = [row for number, row in sorted(self.moves.items()) if number > after and (dates is None or self._in(row, dates))][:limit]
        if self.between:
            self.between.pop(0)()
        return found

    def _in(self, row: dict[str, Any], wanted: list[Any]) -> bool:
        date, operator, since = row["write_date"], wanted[1], wanted[2]
        return bool(date > since if operator == ">" else date >= since)

    def told(self, cursor: dict[str, Any], at_s: float) -> tuple[set[tuple[int, bool]], dict[str, Any]]:
        """All pages at a time of ours."""
        self.now_s, found = at_s, set()
        while True:
            changes = read_changes(cast(TrytonRpc, self), PLACES, cursor, int(self.now_s * 1e6) + 10**15, self.known)
            found |= {(int(move.external_id), move.done) for move in changes.moves}
            cursor = dict(changes.cursor)
            if not changes.more:
                return found, cursor


def test_who_commits_late_is_found_though_the_connector_was_away_for_hours() -> None:
    table = Clocked()
    table.commit(1, began_s=10)
    found, cursor = table.told({}, at_s=11)
    table.commit(2, began_s=9)  # began before what was seen, and committed after it
    again, cursor = table.told(cursor, at_s=9_000)
    assert found == {(1, True)}
    assert (2, True) in again
    assert table.told(cursor, at_s=9_010)[0] == set()  # and then nothing is read again and again


def test_a_date_is_looked_back_from_until_it_is_old_enough() -> None:
    table = Clocked()
    table.commit(1, began_s=10)
    _, cursor = table.told({}, at_s=11)
    for at_s in (12, OVERLAP_S / 2, OVERLAP_S + 10.9, OVERLAP_S + 12):
        table.known = Seen()  # another process, which does not know what was told
        found, cursor = table.told(cursor, at_s=at_s)
        assert found == {(1, True)}
    table.known = Seen()
    assert table.told(cursor, at_s=OVERLAP_S + 17)[0] == set()


def test_what_was_taken_is_not_read_again_and_what_was_not_is() -> None:
    table = Clocked()
    for number in range(1, 6):
        table.commit(number, began_s=number)
    found, cursor = table.told({}, at_s=6)
    assert (len(found), table.whole) == (5, 5)
    table.commit(3, began_s=7, state="cancelled")
    found, taken = table.told(cursor, at_s=8)
    assert (found, table.whole) == ({(3, False)}, 6)
    table.commit(4, began_s=9, state="cancelled")
    lost, _ = table.told(taken, at_s=10)  # nobody took it: the cursor before it comes again
    found, _ = table.told(taken, at_s=11)
    assert lost == {(4, False)}
    assert (4, False) in found


def test_what_changes_behind_the_page_that_is_read_is_found_however_long_the_pages_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tryton_read, "PAGE", 2)
    table = Clocked()
    for number in (1, 2, 3):
        table.commit(number, began_s=0)

    def slowly() -> None:
        table.commit(1, began_s=5, state="cancelled")
        table.commit(4, began_s=900)
        table.now_s = 1_000

    table.between = [slowly]
    _, cursor = table.told({}, at_s=1)
    found, cursor = table.told(cursor, at_s=1_005)
    assert (1, False) in found
    _, cursor = table.told(cursor, at_s=1_005 + OVERLAP_S)
    assert table.told(cursor, at_s=1_010 + OVERLAP_S)[0] == set()


def test_what_undoes_a_movement_has_a_key_for_each_leg_however_long_the_movements_key() -> None:
    assert undo_key("tryton", "k", 1) == "tryton/undo/k/1"
    keys = {undo_key("tryton", "k" * 127 + end, number) for end in "ab" for number in (0, 1)}
    assert len(keys) == 4
    assert all(len(key) <= 128 for key in keys)
