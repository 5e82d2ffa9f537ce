"""Closed journeys out of the journal: their readings with flags and journal numbers, and their records in the archive's form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import Engine

from actors.journal import archive, history, pages
from actors.journal.archive import Journey
from actors.journal.pages import Rows
from actors.rules import mkt, readings
from actors.rules.plan import Plan
from actors.rules.quality import QualitySettings
from actors.rules.readings import CODE, FAIL, FOREVER_US, Batch
from cluster.archive import beside, layout, writer
from cluster.archive.beside import Extent
from cluster.archive.writer import PartWriter
from cluster.replay.journeys import rules_of
from cluster.replay.judge import DEFAULT_GAP_US

TEMPERATURE = CODE["temperature_c"]


@dataclass(slots=True)
class Placed:
    """Where a journey went within its part. custodies: (custody_id, shard, local_index, from_us, until_us, first_row, readings)."""

    carrier: str
    readings: int
    last_event: int
    custodies: list[tuple[int, int, int, int, int, int, int]] = field(default_factory=list)


@dataclass(slots=True)
class _Ride:
    """One custody with its readings in judging order."""

    custody: Mapping[str, Any]
    tag: Mapping[str, Any]
    rows: Rows
    received_us: Any
    settings: QualitySettings | None
    beside: Rows
    """The readings outside of it that its judgement looked at, or that it held before; see beside.py."""
    beside_us: Any
    """When these were received."""

    @property
    def until_us(self) -> int:
        until_us = self.custody["until_us"]
        return FOREVER_US if until_us is None else int(until_us)


def collect(engine: Engine, journeys: Sequence[Journey], out: PartWriter, commands: Mapping[str, list[dict[str, Any]]]) -> list[Placed]:
    """Write some journeys, in the order given, to a part. commands: the journal's, by carrier."""
    rides = _rides(engine, journeys)
    placed = []
    for journey in journeys:
        mine = rides.get(journey.carrier, [])
        placed.append(_put(journey, mine, out, commands.get(journey.carrier, [])))
    return placed


def _rides(engine: Engine, journeys: Sequence[Journey]) -> dict[str, list[_Ride]]:
    """All custodies with their readings, by carrier; one look at the history of each shard."""
    wanted: dict[int, list[tuple[Journey, Mapping[str, Any], Mapping[str, Any], list[Extent]]]] = {}
    for journey in journeys:
        for custody in journey.custodies:
            tag = journey.tags[custody["tag_id"]]
            wanted.setdefault(int(tag["shard"]), []).append((journey, custody, tag, beside.earlier(journey, custody)))
    found: dict[str, list[_Ride]] = {}
    for shard, asked in wanted.items():
        standing = [(custody, tag) for _, custody, tag, _ in asked if not custody["retracted"]]
        tags = sorted({int(tag["local_index"]) for _, custody, tag, before in asked if before or not custody["retracted"]})
        ends = [FOREVER_US if custody["until_us"] is None else int(custody["until_us"]) for custody, _ in standing]
        low = min([int(custody["from_us"]) for custody, _ in standing] + [one.from_us for *_, before in asked for one in before], default=0)
        high = max(ends + [one.until_us for *_, before in asked for one in before], default=0)
        margin_us = beside.margin_us(journeys)
        _, rows = history.read_rows(engine, shard, tags, low - max(margin_us, beside.BEFORE_US), min(high + margin_us, FOREVER_US))
        rows = pages.by_tag(rows) if len(rows) else rows
        received_us = beside.received(engine, shard, tags, rows)
        for journey, held, device, before in asked:
            local_index = int(device["local_index"])
            which = _span(rows, local_index, held)
            mine, times = pages.subset(rows, which), received_us[which]
            rules = beside.in_force(journey, held, int(times.max(initial=0)))
            its = slice(*np.searchsorted(rows.batch.tag, [local_index, local_index + 1]).tolist())
            near, near_us = pages.subset(rows, its), received_us[its]
            others, others_us = beside.of_custody(engine, shard, local_index, held, before, rules, near, near_us)
            found.setdefault(journey.carrier, []).append(_Ride(held, device, mine, times, rules.settings, others, others_us))
    return found


def _span(rows: Rows, local_index: int, custody: Mapping[str, Any]) -> slice:
    """The rows of a tag, sorted by tag and time, that are sensed in a custody."""
    if custody["retracted"] or not len(rows):
        return slice(0, 0)
    start, end = np.searchsorted(rows.batch.tag, [local_index, local_index + 1]).tolist()
    until_us = FOREVER_US if custody["until_us"] is None else int(custody["until_us"])
    low, high = np.searchsorted(rows.batch.sensed_us[start:end], [int(custody["from_us"]), until_us]).tolist()
    return slice(start + low, start + high)


def _put(journey: Journey, rides: list[_Ride], out: PartWriter, commands: list[dict[str, Any]]) -> Placed:
    carrier = journey.carrier
    plan = Plan.from_data(journey.plan)
    rides = sorted(rides, key=lambda one: (one.custody["tag_id"], one.custody["from_us"], one.custody["custody_id"]))
    last_event = max((int(row["number"]) for row in journey.events), default=0)
    placed = Placed(carrier, sum(len(ride.rows) for ride in rides), last_event)
    custodies = []
    for ride in rides:
        batch = readings.subset(ride.rows.batch, slice(0, len(ride.rows)))
        flags = beside.flags(ride.rows, ride.beside, ride.settings, int(ride.custody["from_us"]))
        shard, local_index = int(ride.tag["shard"]), int(ride.tag["local_index"])
        first = out.readings
        custody = ride.custody
        whose = (carrier, custody["tag_id"], custody["custody_id"])
        if len(batch):
            out.add("readings", writer.readings_table(*whose, batch, flags, ride.received_us, shard, ride.rows.journal, ride.rows.row))
        if len(ride.beside):
            out.add(
                "neighbours",
                writer.readings_table(
                    *whose, ride.beside.batch, None, ride.beside_us, shard, ride.beside.journal, ride.beside.row
                ).select(layout.NEIGHBOURS.names),
            )  # fmt: skip
        if not custody["retracted"]:
            placed.custodies.append((custody["custody_id"], shard, local_index, int(custody["from_us"]), ride.until_us, first, len(batch)))
        history_rows = sorted(
            (row for row in journey.custody_revisions if row["custody_id"] == custody["custody_id"]), key=lambda row: int(row["etag"])
        )
        custodies.append(
            {
                "custody_id": custody["custody_id"], "carrier": carrier, "tag_id": custody["tag_id"],
                "handling_unit_id": custody["handling_unit_id"], "from_at": custody["from_us"], "until_at": custody["until_us"],
                "retracted": bool(custody["retracted"]), "assigned_by": custody["assigned_by"], "assigned_at": custody["assigned_us"],
                "ended_by": custody["ended_by"], "ended_at": custody["ended_us"], "note": custody["note"], "etag": custody["etag"],
                "journal_shard": shard, "local_index": local_index,
                "quality": None if ride.settings is None else writer.as_json(ride.settings.to_data()),
                "first_row": first, "readings": len(batch), "mkt_c": _mkt_c(plan, custody, batch, flags, ride.until_us),
                "history": writer.as_json(history_rows),
            }
        )  # fmt: skip
    out.add_rows("custodies", custodies)
    _put_records(journey, plan, out, custodies, rides, placed, commands)
    return placed


def _mkt_c(plan: Plan, custody: Mapping[str, Any], batch: Batch, flags: Any, until_us: int) -> float | None:
    """The MKT of a custody; None where nothing is covered."""
    if TEMPERATURE not in batch.codes or not len(batch):
        return None
    row = batch.codes.index(TEMPERATURE)
    values = batch.values[row] if flags is None else np.where(flags[row] == FAIL, np.nan, batch.values[row])
    from_us = int(custody["from_us"])
    profile = plan.profile_at(from_us) or (plan.profiles[0] if plan.profiles else None)
    gap_us = profile.max_gap_us if profile else DEFAULT_GAP_US
    begin_us = min(from_us + plan.ignore_us(from_us), until_us)
    found = mkt.mkt_of_segments_c(
        np.array([0, len(batch)], np.int64), batch.sensed_us, values, np.array([begin_us], np.int64), np.array([until_us], np.int64),
        np.array([gap_us], np.int64),
    )[0]  # fmt: skip
    return None if np.isnan(found) else float(found)


def _put_records(
    journey: Journey, plan: Plan, out: PartWriter, custodies: list[dict[str, Any]], rides: list[_Ride], placed: Placed,
    commands: list[dict[str, Any]],
) -> None:  # fmt: skip
    carrier, shipment = journey.carrier, journey.shipment
    held = {spec.limit_id for spec in plan.tables().tracks}
    standing = {row["custody_id"]: row for row in custodies if not row["retracted"]}
    sums = [row for row in journey.exposures if row["custody_id"] in standing and row["limit_id"] in held]
    out.add_rows(
        "exposures",
        [_renamed(row, layout.EXPOSURES.names) for row in sorted(sums, key=lambda r: (r["tag_id"], r["custody_id"], r["limit_id"]))],
    )
    newest = {row["excursion_id"]: row["revision"] for row in journey.excursions}
    told = [
        {**_renamed(row, layout.EXCURSIONS.names), "final": row["revision"] == newest[row["excursion_id"]]} for row in journey.excursions
    ]
    out.add_rows("excursions", told)
    visits = sorted(journey.visits, key=lambda row: (row["tag_id"], row["entered_us"], row["visit_id"]))
    out.add_rows("visits", [_renamed(row, layout.VISITS.names) for row in visits])
    events = [{**_renamed(row, layout.EVENTS.names), "at": row["at_us"], "body": writer.as_json(row["body"])} for row in journey.events]
    out.add_rows("events", events)
    alerts = [
        {**_renamed(row, layout.ALERTS.names), "record": writer.as_json(row)} for row in sorted(journey.alerts, key=lambda r: r["alert_id"])
    ]
    out.add_rows("alerts", alerts)
    decisions = sorted(journey.decisions, key=lambda row: (row["alert_id"], row["etag"]))
    out.add_rows("decisions", [{**_renamed(row, layout.DECISIONS.names), "carrier": carrier, "at": row["at_us"]} for row in decisions])
    out.add_rows("commands", [{**row, "carrier": carrier} for row in commands])
    final = [row for row in told if row["final"] and row["state"] != "RETRACTED"]
    judged = any(row["readings"] for row in sums)
    sensed = [ride.rows.batch.sensed_us for ride in rides if len(ride.rows)]
    out.add_rows(
        "shipments",
        [
            {
                **_renamed(shipment, layout.SHIPMENTS.names), "carrier": carrier,
                "verdict": "EXCURSION" if final else "WITHIN_LIMITS" if judged else "NO_DATA", "excursions": len(final),
                "custodies": len(standing), "readings": placed.readings,
                "first_sensed_at": min((int(one[0]) for one in sensed), default=None),
                "last_sensed_at": max((int(one[-1]) for one in sensed), default=None),
                "rules_revision": journey.plan.get("revision", 0), "rules": rules_of(journey.plan), "lots": writer.as_json(journey.lots),
                "record": writer.as_json({**journey.record, "shipment": shipment}), "last_event": placed.last_event,
            }
        ],
    )  # fmt: skip


def _renamed(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A table's row with the archive's names: a column `x_at` is `x_us` there."""
    return {name: row.get(name, row.get(f"{name[:-3]}_us") if name.endswith("_at") else None) for name in names}


def commands_of(engine: Engine, journeys: Sequence[Journey]) -> dict[str, list[dict[str, Any]]]:
    """The journal's commands and ticks that concern some journeys, by carrier, in the archive's form."""
    found: dict[str, list[dict[str, Any]]] = {journey.carrier: [] for journey in journeys}
    of_tag: dict[str, set[str]] = {}
    of_index: dict[tuple[int, int], set[str]] = {}
    since: dict[int, int] = {}
    for journey in journeys:
        created_us = int(journey.shipment["created_us"])
        for tag in journey.tags.values():
            of_tag.setdefault(tag["tag_id"], set()).add(journey.carrier)
            of_index.setdefault((tag["shard"], tag["local_index"]), set()).add(journey.carrier)
            since[tag["shard"]] = min(created_us, since.get(tag["shard"], created_us))
    for shard, since_us in since.items():
        found = _settings_before(journeys, shard, since_us, found)
        for sequence, kind, received_us, body in archive.commands(engine, shard, since_us):
            for carrier, told in _concerned(shard, kind, body, found, of_tag, of_index):
                found[carrier].append(_command(shard, sequence, kind, received_us, told))
    return found


def _command(shard: int, sequence: int, kind: str, received_us: int, body: Mapping[str, Any]) -> dict[str, Any]:
    text = json.dumps(body, separators=(",", ":"))
    return {"journal_shard": shard, "journal_sequence": sequence, "kind": kind, "received_at": received_us, "body": text}


def _settings_before(
    journeys: Sequence[Journey], shard: int, since_us: int, found: dict[str, list[dict[str, Any]]]
) -> dict[str, list[dict[str, Any]]]:
    """Quality settings that tags had before the first command looked at: as a command before all entries (journal number 0)."""
    for journey in journeys:
        for tag in journey.tags.values():
            held = [row for row in journey.tag_events if row["tag_id"] == tag["tag_id"] and int(row["recorded_us"]) < since_us]
            if tag["shard"] == shard and held and held[-1]["body"].get("quality") is not None:
                body = {"command": "tag", "tag_id": tag["tag_id"], "usual_interval_us": 0, "quality": held[-1]["body"]["quality"]}
                found[journey.carrier].append(_command(shard, 0, "command", int(held[-1]["recorded_us"]), body))
    return found


def _concerned(
    shard: int, kind: str, body: Mapping[str, Any], carriers: Mapping[str, Any], of_tag: Mapping[str, set[str]],
    of_index: Mapping[tuple[int, int], set[str]],
) -> list[tuple[str, Mapping[str, Any]]]:  # fmt: skip
    """Which carriers an entry concerns, each with what of it."""
    if kind == "tick":
        found: dict[str, dict[str, Any]] = {}
        for name, keys in body.get("released", {}).items():
            for carrier in of_index.get((shard, int(name)), ()):
                found.setdefault(carrier, {"now_us": body["now_us"], "silent": [], "released": {}})["released"][name] = keys
        return list(found.items())
    if body["command"] == "tag":
        return [(carrier, body) for carrier in sorted(of_tag.get(body["tag_id"], ()))]
    carrier = body["plan"]["carrier"]
    return [(carrier, body)] if carrier in carriers else []
