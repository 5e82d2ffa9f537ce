"""The rows of one shard kept in memory: what its tags ask of the database, for a shard that is replayed or tried without one."""

from __future__ import annotations

from typing import Any

from actors.journal.prepared import PreparedCommit
from actors.journal.tables import CarrierPlan, Custody, Excursion, Exposure, Tag, Visit

_KEYS: dict[type, tuple[str, ...]] = {
    Tag: ("tag_id",), Custody: ("custody_id",), Exposure: ("custody_id", "limit_id"), Visit: ("visit_id",), Excursion: ("excursion_id",),
}  # fmt: skip
_FOUND_BY: dict[type, tuple[str, ...]] = {
    Tag: (), Custody: ("tag_id", "carrier"), Exposure: ("custody_id", "carrier"), Visit: ("custody_id",), Excursion: ("custody_id",),
}  # fmt: skip
"""Columns that never change in a row, by which rows are asked for."""


class KeptRows:
    """The part of `actors.sensor_tag.Reads` that asks for rows, answered from what commits wrote. Answers are copies."""

    def __init__(self) -> None:
        self.rows: dict[type, dict[Any, Any]] = {table: {} for table in _KEYS}
        self.plans: dict[str, CarrierPlan] = {}
        self.revisions: list[Excursion] = []
        self._found: dict[tuple[type, str, Any], dict[Any, Any]] = {}

    def keep(self, row: Any) -> None:
        """A row as it is from now on."""
        table = type(row)
        key = tuple(getattr(row, name) for name in _KEYS[table])
        key = key if len(key) > 1 else key[0]
        self.rows[table][key] = row
        for name in _FOUND_BY[table]:
            self._found.setdefault((table, name, getattr(row, name)), {})[key] = row

    def write(self, commit: PreparedCommit) -> None:
        """Keep what a commit would write."""
        for row in [*commit.inserts, *commit.upserts, *commit.excursions]:
            if type(row) in _KEYS:
                self.keep(row)
        self.revisions += commit.excursions

    def _by(self, table: type, name: str, value: Any) -> list[Any]:
        return [row.model_copy() for row in self._found.get((table, name, value), {}).values()]

    def custodies(self, tag_ids: list[str]) -> list[Custody]:
        """See Reads."""
        standing = (row for tag_id in tag_ids for row in self._by(Custody, "tag_id", tag_id) if not row.retracted)
        return sorted(standing, key=lambda row: (row.tag_id, row.from_us))

    def custodies_of(self, carrier: str) -> list[Custody]:
        """See Reads."""
        standing = (row for row in self._by(Custody, "carrier", carrier) if not row.retracted)
        return sorted(standing, key=lambda row: (row.tag_id, row.from_us))

    def plan(self, carrier: str) -> CarrierPlan | None:
        """See Reads."""
        return self.plans.get(carrier)

    def tag(self, tag_id: str) -> Tag | None:
        """See Reads."""
        found = self.rows[Tag].get(tag_id)
        return None if found is None else found.model_copy()

    def excursions(self, custody_ids: list[int]) -> list[Excursion]:
        """See Reads."""
        return [row for number in custody_ids for row in self._by(Excursion, "custody_id", number) if row.state != "RETRACTED"]

    def visits(self, custody_ids: list[int]) -> list[Visit]:
        """See Reads."""
        return [row for number in custody_ids for row in self._by(Visit, "custody_id", number) if row.state != "RETRACTED"]

    def exposures(self, custody_ids: list[int]) -> list[Exposure]:
        """See Reads."""
        found = (row for number in custody_ids for row in self._by(Exposure, "custody_id", number))
        return sorted(found, key=lambda row: (row.custody_id, row.limit_id))

    def exposures_of(self, carrier: str) -> list[tuple[Exposure, Custody]]:
        """See Reads."""
        return [(row, self.rows[Custody][row.custody_id]) for row in self._by(Exposure, "carrier", carrier)]

    def lots(self, carriers: list[str]) -> dict[tuple[str, str], list[str]]:
        """See Reads: nobody has put any there."""
        return {}
