"""What is not the same between two judgements of the same rides, by name; and what each shipment comes to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from actors.rules import exposure
from actors.rules.readings import COLUMNS, FOREVER_US, NOT_EVALUATED
from actors.tags.carriers import Carrier
from cluster.archive import reader
from cluster.replay import judge, result
from cluster.replay.flags import flags_of
from cluster.replay.journeys import Journeys, Rules
from cluster.replay.judge import Judged
from cluster.replay.rides import Columns

MKT_TOLERANCE_K = 1e-9
"""Two machines' exponentials may differ so much in the MKT (issue 5)."""

_EXCURSION = {
    "started_at": "started_us", "triggered_at": "triggered_us", "ended_at": "ended_us", "violation_us": "violation_us",
    "uncovered_us": "uncovered_us", "extreme": "extreme", "extreme_at": "extreme_us", "mean": "mean", "readings": "readings",
}  # fmt: skip
_VISIT = {"started_at": "entered_us", "ended_at": "exited_us"}
_SUM = {
    "violation_us": "violation_us", "covered_us": "covered_us", "uncovered_us": "uncovered_us", "extreme": "extreme",
    "extreme_at": "extreme_us", "readings": "readings",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Subject:
    """How one subject's rows are compared. key: what tells one from another within a ride; tolerance: of modes mkt's extremes."""

    name: str
    facts: Mapping[str, str]
    key: tuple[str, ...]


_SUBJECTS = (
    _Subject(result.EXCURSION, _EXCURSION, ("ride", "name", "started_us")),
    _Subject(result.VISIT, _VISIT, ("ride", "name", "kind", "entered_us")),
    _Subject(result.SUM, _SUM, ("ride", "name")),
)


def differences(journeys: Journeys, before: Judged, after: Judged, rules: Rules, *, sums: bool = True) -> list[dict[str, Any]]:
    """The rows of DIFFERENCES between two judgements that number names alike. rules: those of `after`. sums: compare these and MKT too."""
    found: list[dict[str, Any]] = []
    tolerant = _mkt_names(rules, after.names)
    for subject, old, new in zip(
        _SUBJECTS, (before.excursions, before.visits, before.sums), (after.excursions, after.visits, after.sums), strict=True
    ):
        if sums or subject.name != result.SUM:
            found += _of_subject(journeys, subject, old, new, after.names, rules, tolerant)
    if sums:
        differ = ~((np.abs(before.mkt_c - after.mkt_c) <= MKT_TOLERANCE_K) | (np.isnan(before.mkt_c) & np.isnan(after.mkt_c)))
        for ride in np.flatnonzero(differ).tolist():
            row = _row(journeys, ride, result.MKT, "", result.CHANGED, rules)
            row |= {"fields": "mean", "before_mean": _number(before.mkt_c[ride]), "after_mean": _number(after.mkt_c[ride])}
            found.append(row)
    found.sort(key=lambda row: row.pop("start"))
    return in_order(found)


def in_order(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of DIFFERENCES by shipment, tag, custody, subject and name; equal ones keep their order."""
    return sorted(found, key=lambda row: (row["shipment_id"], row["tag_id"], row["custody_id"], row["subject"], row["name"]))


def flags(journeys: Journeys, low: int, high: int, columns: Columns, rules: Rules) -> list[dict[str, Any]]:
    """Where the recorded flags of some rides are not those that the recorded settings give: a row for each custody and metric.

    columns: of the rides from `low` to before `high`. A row's times are those of the first that differs.
    """
    assert columns.flags is not None
    mine = journeys.ruled(rules, low, high)
    given = flags_of(columns, mine)
    found = []
    for k, code in enumerate(columns.codes):
        wrong = columns.flags[k] != (NOT_EVALUATED if given is None else given[k])
        if not wrong.any():
            continue
        rows = np.flatnonzero(wrong & ~np.isnan(columns.values[k]))
        ride_of = np.searchsorted(mine.start, rows, "right") - 1
        for ride in np.unique(ride_of).tolist():
            its = rows[ride_of == ride]
            row = _row(journeys, low + ride, result.FLAG, COLUMNS[code].name, result.CHANGED, rules)
            del row["start"]
            first = int(columns.sensed_us[its[0]])
            found.append(row | {"fields": "readings", "before_started_at": first, "after_started_at": first, "before_readings": len(its)})
    return found


def strays(journeys: Journeys) -> list[dict[str, Any]]:
    """Recorded excursions that stand and are of no custody that does: no rule gives them again. One row each."""
    table = journeys.part.table("excursions")
    mask = pc.and_(table.column("final"), pc.not_equal(table.column("state"), "RETRACTED"))
    mask = pc.and_(mask, pc.is_in(table.column("carrier"), pa.array(list(journeys.shipment_of), pa.string())))
    mask = pc.and_(mask, pc.invert(pc.is_in(table.column("custody_id"), pa.array(journeys.rides.custody_id))))
    found = []
    for row in reader.records(table.filter(mask)):
        told: dict[str, Any] = {name: row[name] for name in ("tag_id", "custody_id", "handling_unit_id", "severity", "lots")}
        told |= {f"before_{fact}": row[fact] for fact in _EXCURSION}
        told |= {"subject": result.EXCURSION, "name": row["limit_id"], "change": result.VANISHED, "fields": ""}
        found.append(told | {"shipment_id": journeys.shipments[journeys.shipment_of[row["carrier"]]]["shipment_id"]})
    return in_order(found)


def _mkt_names(rules: Rules, names: Sequence[str]) -> set[int]:
    modes = {spec.limit_id for carrier in rules.carriers for spec in carrier.tracks if spec.mode == exposure.MKT}
    return {at for at, name in enumerate(names) if name in modes}


def _keys(rows: npt.NDArray[Any], key: tuple[str, ...]) -> npt.NDArray[Any]:
    """The key columns as one void column, comparable."""
    packed = np.zeros(len(rows), np.dtype([(name, "i8") for name in key]))
    for name in key:
        packed[name] = rows[name]
    return packed


def _same(old: npt.NDArray[Any], new: npt.NDArray[Any], field: str, tolerant: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    a, b = old[field], new[field]
    if a.dtype.kind != "f":
        return np.asarray(a == b)
    equal = (a == b) | (np.isnan(a) & np.isnan(b))
    return np.asarray(equal | (tolerant & (np.abs(a - b) <= MKT_TOLERANCE_K)))


def _of_subject(
    journeys: Journeys,
    subject: _Subject,
    old: npt.NDArray[Any],
    new: npt.NDArray[Any],
    names: Sequence[str],
    rules: Rules,
    tolerant: set[int],
) -> list[dict[str, Any]]:
    old_keys, new_keys = _keys(old, subject.key), _keys(new, subject.key)
    _, old_at, new_at = np.intersect1d(old_keys, new_keys, assume_unique=True, return_indices=True)
    paired_old, paired_new = old[old_at], new[new_at]
    loose = np.isin(paired_new["name"], list(tolerant))
    same = np.ones(len(paired_old), np.bool_)
    for field in subject.facts.values():
        same &= _same(paired_old, paired_new, field, loose)
    pairs = [(int(old_at[k]), int(new_at[k])) for k in np.flatnonzero(~same).tolist()]
    gone = np.setdiff1d(np.arange(len(old)), old_at).tolist()
    come = np.setdiff1d(np.arange(len(new)), new_at).tolist()
    if subject.name != result.SUM:
        touching, gone, come = _touching(subject, old, new, gone, come)
        pairs += touching
    found = []
    for one, other in pairs:
        fields = [
            fact
            for fact, field in subject.facts.items()
            if not _same(old[one : one + 1], new[other : other + 1], field, np.array([int(new[other]["name"]) in tolerant]))[0]
        ]
        row = _row(journeys, int(new[other]["ride"]), subject.name, names[int(new[other]["name"])], result.CHANGED, rules)
        found.append(row | {"fields": ",".join(fields)} | _facts(subject, "before", old[one]) | _facts(subject, "after", new[other]))
        found[-1]["start"] = _start(subject, new[other])
    for at, rows, change in [*((at, old, result.VANISHED) for at in gone), *((at, new, result.APPEARED) for at in come)]:
        if subject.name == result.SUM and not rows[at]["covered_us"] and not rows[at]["uncovered_us"]:
            continue  # a limit that never held says nothing
        row = _row(journeys, int(rows[at]["ride"]), subject.name, names[int(rows[at]["name"])], change, rules)
        found.append(row | _facts(subject, "before" if change == result.VANISHED else "after", rows[at]))
        found[-1]["start"] = _start(subject, rows[at])
    return found


def _touching(
    subject: _Subject, old: npt.NDArray[Any], new: npt.NDArray[Any], gone: list[int], come: list[int]
) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """What begins at another time but overlaps is the same, changed; the earliest goes on."""
    start, end = (subject.facts["started_at"], subject.facts["ended_at"])
    waiting: dict[tuple[int, int], list[int]] = {}
    for at in come:
        waiting.setdefault((int(new[at]["ride"]), int(new[at]["name"])), []).append(at)
    pairs, left = [], []
    for at in gone:
        mine = waiting.get((int(old[at]["ride"]), int(old[at]["name"])), [])
        best = max(
            mine,
            key=lambda other: (min(int(old[at][end]), int(new[other][end])) - max(int(old[at][start]), int(new[other][start])), -other),
            default=None,
        )
        if best is None or min(int(old[at][end]), int(new[best][end])) < max(int(old[at][start]), int(new[best][start])):
            left.append(at)
            continue
        mine.remove(best)
        pairs.append((at, best))
    taken = {other for _, other in pairs}
    return pairs, left, [at for at in come if at not in taken]


def _start(subject: _Subject, row: Any) -> int:
    return int(row[subject.facts["started_at"]]) if "started_at" in subject.facts else 0


def _facts(subject: _Subject, side: str, row: Any) -> dict[str, Any]:
    found = {}
    for fact, field in subject.facts.items():
        value = row[field]
        if fact.endswith("_at"):
            absent = int(value) >= FOREVER_US or (fact == "extreme_at" and not np.isfinite(row["extreme"]))
            found[f"{side}_{fact}"] = None if absent else int(value)
        else:
            found[f"{side}_{fact}"] = _number(value)
    return found


def _number(value: Any) -> Any:
    plain = value.item()
    return None if plain != plain else plain


def _row(journeys: Journeys, ride: int, subject: str, name: str, change: str, rules: Rules) -> dict[str, Any]:
    at = int(journeys.rides.carrier[ride])
    unit = journeys.custodies["handling_unit_id"][ride]
    row: dict[str, Any] = {
        "shipment_id": journeys.shipments[at]["shipment_id"],
        "tag_id": journeys.custodies["tag_id"][ride],
        "custody_id": int(journeys.rides.custody_id[ride]),
        "handling_unit_id": unit,
        "subject": subject,
        "name": name,
        "change": change,
        "fields": "",
        "severity": _severity(rules.carriers[at], journeys, at, name) if subject == result.EXCURSION else None,
        "lots": touched_lots(journeys, at, unit) if subject == result.EXCURSION else None,
        "start": 0,
    }
    return row


def _severity(carrier: Carrier, journeys: Journeys, at: int, name: str) -> str | None:
    for plan in (carrier.plan, journeys.plans[at]):
        if plan.limits.get(name):
            return plan.limits[name][-1].limit.severity
    return None


def touched_lots(journeys: Journeys, at: int, unit: str | None) -> list[str]:
    """The lots that an excursion of a ride touches: those of its handling unit, or of the whole shipment."""
    lots = journeys.lots[at]
    if unit:
        return sorted(lots.get(unit, []))
    return sorted({lot for mine in lots.values() for lot in mine})


# ---------------------------------------------------------------- shipments


def shipments(
    journeys: Journeys, before: Judged, after: Judged, rules: tuple[Rules, Rules], found: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The rows of SHIPMENTS. rules: those of `before` and of `after`."""
    many = len(journeys.shipments)
    told: dict[str, list[Mapping[str, Any]]] = {}
    for one in found:
        told.setdefault(one["shipment_id"], []).append(one)
    sides = [_tally(journeys, judged, mine, many) for judged, mine in ((before, rules[0]), (after, rules[1]))]
    rides = np.bincount(journeys.rides.carrier, minlength=many)
    mkt_c = np.full(many, -np.inf)
    np.fmax.at(mkt_c, journeys.rides.carrier, after.mkt_c)
    made: list[dict[str, Any]] = []
    for at, shipment in enumerate(journeys.shipments):
        mine = told.get(shipment["shipment_id"], [])
        row: dict[str, Any] = {
            "shipment_id": shipment["shipment_id"],
            "readings": shipment["readings"],
            "custodies": int(rides[at]),
            "differences": len(mine),
            "lots_affected": sorted({lot for one in mine for lot in one["lots"] or ()}),
            "first_sensed_at": shipment["first_sensed_at"],
            "last_sensed_at": shipment["last_sensed_at"],
            "mkt_c": float(mkt_c[at]) if np.isfinite(mkt_c[at]) else None,
        }
        for side, tally in zip(("before", "after"), sides, strict=True):
            row |= {f"{side}_{name}": tally[name][at] for name in ("verdict", "excursions", "visits", "alerts")}
        made.append(row)
    return sorted(made, key=lambda row: str(row["shipment_id"]))


def _tally(journeys: Journeys, judged: Judged, rules: Rules, many: int) -> dict[str, list[Any]]:
    carrier = journeys.rides.carrier
    excursions = np.bincount(carrier[judged.excursions["ride"]], minlength=many)
    visits = np.bincount(carrier[judged.visits["ride"]], minlength=many)
    readings = np.zeros(many, np.int64)
    np.add.at(readings, carrier[judged.sums["ride"]], judged.sums["readings"])
    alerts: list[set[tuple[str, int]]] = [set() for _ in range(many)]  # one stands for one (carrier, limit) or (carrier, fence)
    for ride, name in zip(judged.excursions["ride"].tolist(), judged.excursions["name"].tolist(), strict=True):
        alerts[int(carrier[ride])].add(("goods", name))
    raising = [{fence.fence_id: fence.alert_on for fence in one.fences if fence.alert_on} for one in rules.carriers]
    if any(raising):
        for row in judged.visits:
            at = int(carrier[row["ride"]])
            wanted = raising[at].get(judged.names[int(row["name"])], ())
            passed = int(row["kind"]) == judge.PASSED
            if ("PASSED_THROUGH" in wanted) if passed else ("ENTER" in wanted or "EXIT" in wanted):
                alerts[at].add(("fence", int(row["name"])))
    verdict = np.where(excursions > 0, result.EXCURSION_VERDICT, np.where(readings > 0, result.WITHIN_LIMITS, result.NO_DATA))
    return {
        "verdict": verdict.tolist(), "excursions": excursions.tolist(), "visits": visits.tolist(), "alerts": [len(one) for one in alerts],
    }  # fmt: skip


def without_rides(journeys: Journeys, found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of SHIPMENTS of shipments that nothing rode on. found: their differences."""
    nothing: dict[str, Any] = {f"{side}_{name}": 0 for side in ("before", "after") for name in ("excursions", "visits", "alerts")}
    nothing |= {"before_verdict": result.NO_DATA, "after_verdict": result.NO_DATA, "readings": 0, "custodies": 0}
    many = Counter(row["shipment_id"] for row in found)
    return [
        {**nothing, "shipment_id": one["shipment_id"], "differences": many[one["shipment_id"]], "lots_affected": []}
        for one in journeys.shipments
    ]
