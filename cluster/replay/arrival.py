"""Replay in the order of arrival: the journal's entries again, each reading in the commit it came in, so that every revision comes again.

The state machine is the shards' own (`SensorTags`), over a journal in memory that knows, at each entry, what was before it. Only what
concerns the archived journeys is there: other tags and carriers have no part in what is stated of these.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.journal.prepared import JournalEntry, PreparedCommit
from actors.journal.tables import CarrierPlan, Excursion
from actors.part import Part as Offered
from actors.rules import readings
from actors.rules.errors import DomainError
from actors.rules.readings import COLUMNS, I4, I8, Batch
from actors.sensor_tag import Moved, SensorTags
from actors.tags import clock
from actors.tags import rows as tag_rows
from actors.tags.commands import COMMANDS, COUNTER_MASK, apply
from actors.tags.kept import KeptRows
from cluster.archive import reader
from cluster.archive.reader import Part
from cluster.replay import result

RING_BYTES = 64 << 20
_FACTS = ("started_at", "triggered_at", "ended_at", "violation_us", "uncovered_us", "extreme", "extreme_at", "mean", "readings")
_COMPARED = (*_FACTS, "state", "cause", "found_late")


class _Journal(KeptRows):
    """What the tags of one shard ask of the database, answered from the archive as of an entry; see `actors.sensor_tag.Reads`."""

    def __init__(self, batch: Batch, journal: I8, row: I4) -> None:
        super().__init__()
        order = np.lexsort((row, journal))
        self.batch = readings.subset(batch, order)
        self.journal = journal[order]
        self.before = 0
        self.names: list[str] = []  # local index of the archive's tags to their ids
        self.index: dict[str, int] = {}
        self.tags_known: SensorTags | None = None

    def history(self, tags: list[int], from_us: int, until_us: int) -> tuple[I4, Batch]:
        """See Reads."""
        assert self.tags_known is not None
        end = int(np.searchsorted(self.journal, self.before, "left"))
        wanted = {self.index[self.tags_known.ids[tag]]: at for at, tag in enumerate(tags)}
        mine = np.isin(self.batch.tag[:end], list(wanted))
        mine &= (self.batch.sensed_us[:end] >= from_us) & (self.batch.sensed_us[:end] < until_us)
        found = readings.subset(self.batch, np.flatnonzero(mine))
        return np.array([wanted[tag] for tag in found.tag.tolist()], np.int32), found

    def portion(self, tag: int, from_us: int, until_us: int, readings: int) -> int:
        """See Reads: nobody asks a replayed shard for series, and all is in memory."""
        return until_us


def replay(part: Part, only: frozenset[str] | None = None) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, int]]:
    """Replay a part's journeys as they arrived: the rows of DIFFERENCES (subject revision) and SHIPMENTS, and the counts."""
    shipments = [row for row in part.rows("shipments") if only is None or row["shipment_id"] in only]
    carriers = {row["carrier"]: row for row in shipments}
    custodies = [row for row in part.rows("custodies") if row["carrier"] in carriers]
    recorded = [row for row in part.rows("excursions") if row["carrier"] in carriers]
    commands = [row for row in part.rows("commands") if row["carrier"] in carriers]
    again: list[dict[str, Any]] = []
    count = 0
    for shard in sorted({int(row["journal_shard"]) for row in custodies}):
        mine = [row for row in custodies if row["journal_shard"] == shard]
        journal, received_us, kept = _readings(part, mine)
        count += kept
        again += _shard(shard, mine, [row for row in commands if row["journal_shard"] == shard], journal, received_us, carriers)
    found = _differences(custodies, carriers, recorded, again)
    return found, _shipments(shipments, custodies, recorded, again, found), {
        "parts": 1, "shipments": len(shipments), "custodies": len(custodies), "readings": count, "revisions": len(again),
        "differences": len(found),
        **{f"{result.REVISION}.{change}": sum(row["change"] == change for row in found) for change in {row["change"] for row in found}},
    }  # fmt: skip


def _readings(part: Part, custodies: list[dict[str, Any]]) -> tuple[_Journal, dict[int, int], int]:
    """The readings of some custodies of one shard, how many these are, and when each entry was received. Those beside the custodies that
    their flags look at, that they held before they were corrected, or that came with theirs, came in, too.
    """
    table = part.table("readings")
    keep = np.concatenate([np.arange(row["first_row"], row["first_row"] + row["readings"]) for row in custodies] or [np.zeros(0, np.int64)])
    table = table.take(keep.astype(np.int64))
    kept = table.num_rows
    if "neighbours" in part.files:
        table = _with_neighbours(table, part.table("neighbours"), custodies)
    codes = tuple(code for code, column in enumerate(COLUMNS) if table.column(column.name).null_count < table.num_rows)
    names = sorted({row["tag_id"] for row in custodies})
    index = {name: at for at, name in enumerate(names)}
    tag = np.array([index[name] for name in table.column("tag_id").to_pylist()], np.int32)
    batch = Batch(
        tag, reader.integers(table.column("sensed_at")), reader.integers(table.column("boot")), reader.integers(table.column("sequence")),
        codes, reader.values(table, codes),
    )  # fmt: skip
    journal = reader.integers(table.column("journal_sequence"))
    made = _Journal(batch, journal, reader.integers(table.column("journal_row")).astype(np.int32))
    made.names, made.index = names, index
    received = dict(zip(journal.tolist(), reader.integers(table.column("received_at")).tolist(), strict=True))
    return made, received, kept


def _with_neighbours(readings: pa.Table, beside: pa.Table, custodies: list[dict[str, Any]]) -> pa.Table:
    """A shard's readings with those beside the custodies, each once: one custody's reading may be another one's neighbour."""
    beside = beside.filter(pc.is_in(beside.column("custody_id"), pa.array([row["custody_id"] for row in custodies], pa.int64())))
    table = pa.concat_tables([readings.select(beside.column_names), beside])
    place = np.stack([reader.integers(table.column(name)) for name in ("journal_sequence", "journal_row")])
    return table.take(np.sort(np.unique(place, axis=1, return_index=True)[1]))


def _shard(
    shard: int, custodies: list[dict[str, Any]], commands: list[dict[str, Any]], journal: _Journal, received_us: Mapping[int, int],
    carriers: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:  # fmt: skip
    """Fold one shard's entries; every revision that is stated."""
    tags = SensorTags(shard, RING_BYTES, journal)
    journal.tags_known = tags
    told = {(row["custody_id"], said["etag"]): said for row in custodies for said in json.loads(row["history"] or "[]")}
    turn: dict[int, int] = {}
    local = {int(row["local_index"]): row["tag_id"] for row in custodies}
    by_sequence = {int(row["journal_sequence"]): row for row in commands}
    for sequence, batch in _entries(journal, by_sequence):
        journal.before = sequence
        if batch is not None:
            at_us = received_us[sequence]
            _, moved = tags.ingest([Offered("\n".join(journal.names).encode(), batch)], at_us)
        else:
            row = by_sequence[sequence]
            at_us = int(row["received_at"])
            moved = _command(tags, journal, row["kind"], json.loads(row["body"]), at_us, told, turn, local)
        commit = PreparedCommit(shard=shard, epoch=1, now_us=at_us, journal=JournalEntry(sequence, moved.kind, b"", at_us))
        tag_rows.fill(commit, tags, moved.changes, at_us)
        journal.write(commit)
    return [_stated(row) for row in journal.revisions if row.carrier in carriers]


def _entries(journal: _Journal, commands: Mapping[int, Any]) -> Iterator[tuple[int, Batch | None]]:
    """All entries in order: those of readings with their batch, the others with None."""
    found = np.unique(journal.journal, return_index=True, return_counts=True)
    rows = {sequence: slice(first, first + count) for sequence, first, count in zip(*(one.tolist() for one in found), strict=True)}
    for sequence in sorted({*rows, *commands}):
        if sequence in rows:
            yield sequence, readings.subset(journal.batch, rows[sequence])
        else:
            yield sequence, None


def _command(
    tags: SensorTags, journal: _Journal, kind: str, body: dict[str, Any], at_us: int, told: Mapping[tuple[int, int], Mapping[str, Any]],
    turn: dict[int, int], local: Mapping[int, str],
) -> Moved:  # fmt: skip
    """Carry out a journaled command again, as it was asked for."""
    if kind == "tick":
        return _tick(tags, body, local)
    if body["command"] == "tag":
        moved = Moved(kind="command", body=body)
        tags.begin()
        apply(tags, body, moved.changes)
        return moved
    plan = body["plan"]
    name = plan["carrier"]
    known = journal.plans.get(name)
    if known is None or known.revision <= plan["revision"]:
        journal.plans[name] = CarrierPlan(carrier=name, shard=0, revision=plan["revision"], body=plan)
    if body["command"] == "plan":
        return COMMANDS["plan.changed"](tags, {"carrier": name}, at_us)
    custody_id = int(body["custody_id"])
    turn[custody_id] = etag = turn.get(custody_id, 0) + 1
    said = told.get((custody_id, etag), {"cause": "assigned" if body["command"] == "assign" else "corrected"})
    arguments: dict[str, Any] = {"tag_id": body["tag_id"], "custody_id": custody_id, "from_us": body["from_us"]}
    if body["until_us"] is not None:
        arguments["until_us"] = body["until_us"]
    try:
        if body["command"] == "assign":
            tags.counter = max(tags.counter, (custody_id & COUNTER_MASK) - 1)
            unit = {"handling_unit_id": body["handling_unit"]} if body["handling_unit"] else {}
            return COMMANDS["tag.assign"](tags, {**arguments, **unit, "carrier": body["carrier"]}, at_us)
        if said["cause"] == "released":
            return COMMANDS["tag.release"](tags, arguments, at_us)
        if body["retracted"]:
            return COMMANDS["tag.correct_custody"](tags, {**arguments, "retract": True}, at_us)
        reopen = {"reopen": True} if body["until_us"] is None else {}
        return COMMANDS["tag.correct_custody"](tags, {**arguments, **reopen}, at_us)
    except DomainError as refused:
        raise ValueError(f"journal entry of custody {custody_id} at {at_us} cannot be carried out again: {refused}") from refused


def _tick(tags: SensorTags, body: Mapping[str, Any], local: Mapping[int, str]) -> Moved:
    """What the clock decided for the tags that are here."""

    def here(number: int) -> int | None:
        return tags.find(local[number]) if number in local else None

    moved = Moved(kind="tick")
    tags.begin()
    released = {str(at): keys for name, keys in body["released"].items() if (at := here(int(name))) is not None}
    known = {name: [key for key in keys if tuple(key) in tags.held.get(int(name), {})] for name, keys in released.items()}
    known = {name: keys for name, keys in known.items() if keys}
    silent = [at for number in body["silent"] if (at := here(number)) is not None]
    clock.apply(tags, {"now_us": body["now_us"], "silent": silent, "released": known}, moved.changes)
    return moved


# ---------------------------------------------------------------- comparing


def _stated(row: Excursion) -> dict[str, Any]:
    """A revision in the archive's form."""
    return {
        "carrier": row.carrier, "tag_id": row.tag_id, "custody_id": row.custody_id, "excursion_id": row.excursion_id,
        "revision": row.revision, "state": row.state, "cause": row.cause, "handling_unit_id": row.handling_unit_id,
        "limit_id": row.limit_id, "severity": row.severity, "started_at": row.started_us, "triggered_at": row.triggered_us,
        "ended_at": row.ended_us, "violation_us": row.violation_us, "uncovered_us": row.uncovered_us, "extreme": row.extreme,
        "extreme_at": row.extreme_us, "mean": row.mean, "readings": row.readings, "found_late": row.found_late,
        "recorded_at": row.recorded_us,
    }  # fmt: skip


def _by_turn(rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Revisions by what tells them: custody, limit, the how-manieth excursion of these, revision. Ids are given anew, so they are none."""
    first: dict[Any, tuple[Any, ...]] = {}
    for row in rows:
        if row["revision"] == 1:
            first[row["excursion_id"]] = (row["custody_id"], row["limit_id"], row["recorded_at"], row["started_at"], row["excursion_id"])
    order: dict[Any, int] = {}
    seen: dict[tuple[Any, Any], int] = {}
    for excursion_id, key in sorted(first.items(), key=lambda item: item[1]):
        seen[key[:2]] = seen.get(key[:2], -1) + 1
        order[excursion_id] = seen[key[:2]]
    return {(row["custody_id"], row["limit_id"], order.get(row["excursion_id"], -1), row["revision"]): row for row in rows}


def _differences(
    custodies: list[dict[str, Any]], carriers: Mapping[str, Mapping[str, Any]], recorded: list[dict[str, Any]], again: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    before, after = _by_turn(recorded), _by_turn(again)
    found = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        fields = [name for name in _COMPARED if old is not None and new is not None and old[name] != new[name]]
        if old is not None and new is not None and not fields:
            continue
        told = old or new or {}
        row: dict[str, Any] = {
            "shipment_id": carriers[told["carrier"]]["shipment_id"], "tag_id": told["tag_id"], "custody_id": told["custody_id"],
            "handling_unit_id": told["handling_unit_id"], "subject": result.REVISION, "name": f"{told['limit_id']}#{key[2] + 1}.{key[3]}",
            "change": result.CHANGED if fields else result.VANISHED if new is None else result.APPEARED, "fields": ",".join(fields),
            "severity": told["severity"], "lots": None,
        }  # fmt: skip
        for side, one in (("before", old), ("after", new)):
            if one is not None:
                row |= {f"{side}_{name}": one[name] for name in _FACTS}
        found.append(row)
    return found


def _shipments(
    shipments: list[dict[str, Any]], custodies: list[dict[str, Any]], recorded: list[dict[str, Any]], again: list[dict[str, Any]],
    found: list[dict[str, Any]],
) -> list[dict[str, Any]]:  # fmt: skip
    made = []
    for shipment in shipments:
        carrier = shipment["carrier"]
        row: dict[str, Any] = {
            "shipment_id": shipment["shipment_id"], "readings": shipment["readings"],
            "custodies": sum(one["carrier"] == carrier for one in custodies),
            "differences": sum(one["shipment_id"] == shipment["shipment_id"] for one in found), "lots_affected": [],
            "first_sensed_at": shipment["first_sensed_at"], "last_sensed_at": shipment["last_sensed_at"],
        }  # fmt: skip
        for side, rows in (("before", recorded), ("after", again)):
            newest: dict[Any, dict[str, Any]] = {}
            for one in rows:
                if one["carrier"] == carrier and one["revision"] >= newest.get(one["excursion_id"], {"revision": 0})["revision"]:
                    newest[one["excursion_id"]] = one
            standing = [one for one in newest.values() if one["state"] != "RETRACTED"]
            verdict = result.EXCURSION_VERDICT if standing else result.WITHIN_LIMITS if shipment["readings"] else result.NO_DATA
            row |= {
                f"{side}_verdict": verdict, f"{side}_excursions": len(standing), f"{side}_visits": 0,
                f"{side}_alerts": len({one["limit_id"] for one in standing}),
            }  # fmt: skip
        made.append(row)
    return made
