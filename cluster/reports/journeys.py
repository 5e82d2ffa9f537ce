"""One shipment's readings and limits out of the archive, for the plots of a replay's report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.rules.plan import Plan
from actors.rules.readings import FAIL
from cluster.archive import reader
from cluster.archive.reader import Part
from cluster.replay import whatif
from cluster.replay.journeys import plan_of

METRIC = "temperature_c"


@dataclass(frozen=True)
class Line:
    """A tag's readings of one custody that count: times and temperatures, and where it was (NaN: not known)."""

    tag_id: str
    times_us: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    latitude_deg: npt.NDArray[np.float64]
    longitude_deg: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Journey:
    """A shipment's lines, and its temperature limits (id, threshold) by the recorded rules and by the others."""

    lines: tuple[Line, ...]
    before: tuple[tuple[str, float], ...]
    after: tuple[tuple[str, float], ...]


def find(parts: Iterable[Part], shipment_ids: Sequence[str], rules: Mapping[str, Any] | None) -> dict[str, Journey]:
    """The journeys of some shipments, by id; one part in memory at a time. rules: those of a what-if; None: the recorded ones."""
    wanted, found = set(shipment_ids), {}
    other = whatif.read(rules) if rules else None
    for part in parts:
        if not wanted:
            break
        for row in part.rows("shipments", ["carrier", "shipment_id", "rules"]):
            shipment_id = row["shipment_id"]
            if shipment_id in wanted:
                wanted.remove(shipment_id)
                plan = plan_of(row["rules"])
                changed = plan if other is None else other.plan(shipment_id, plan)
                found[shipment_id] = Journey(tuple(_lines(part, row["carrier"])), _limits(plan), _limits(changed))
    return found


def _limits(plan: Plan) -> tuple[tuple[str, float], ...]:
    shown = [(limit_id, mine[-1].limit) for limit_id, mine in plan.limits.items() if mine]
    return tuple((limit_id, limit.threshold) for limit_id, limit in shown if limit.metric == METRIC and limit.mode != "mkt")


def _lines(part: Part, carrier: str) -> Iterable[Line]:
    custodies = [row for row in part.rows("custodies", ["carrier", "tag_id", "first_row", "readings"]) if row["carrier"] == carrier]
    columns = ["sensed_at", METRIC, f"{METRIC}_flag", "latitude_deg", "longitude_deg"]
    table = part.table("readings", columns) if custodies else None
    for row in custodies:
        if table is None or not row["readings"]:
            continue
        rows = table.slice(row["first_row"], row["readings"])
        flags = _plain(rows.column(f"{METRIC}_flag"))
        values, latitude, longitude = (_plain(rows.column(name)) for name in (METRIC, "latitude_deg", "longitude_deg"))
        yield Line(row["tag_id"], reader.integers(rows.column("sensed_at")), np.where(flags == FAIL, np.nan, values), latitude, longitude)


def _plain(column: Any) -> npt.NDArray[np.float64]:
    """Numbers, NaN where null."""
    return np.asarray(column.cast("float64").to_numpy(), np.float64)
