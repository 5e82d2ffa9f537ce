"""A part of the archive made ready for judging: its rides, their carriers' rules, and what was recorded of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from actors.rules.plan import Plan
from actors.rules.quality import QualitySettings
from actors.rules.readings import COLUMNS, FOREVER_US, I8, MISSING
from actors.tags.carriers import Carrier, Rulebook
from cluster.archive import reader
from cluster.archive.reader import Part
from cluster.replay import judge, rides
from cluster.replay.judge import EXCURSION_ROW, SUM_ROW, VISIT_ROW, Judged
from cluster.replay.rides import Columns, Rides

Change = Callable[[str, Plan], Plan]
"""Other rules: given a shipment's id and its recorded plan, the plan that is asked about."""
ChangeQuality = Callable[[str, QualitySettings | None], QualitySettings | None]
"""Other quality settings: given a tag's id and its recorded ones."""


@dataclass(slots=True)
class Rules:
    """The rules under which a part is judged: one Carrier for each of its shipments, and the tables that the kernels read."""

    book: Rulebook
    carriers: list[Carrier]
    quality: list[QualitySettings | None]


@dataclass(slots=True)
class Journeys:
    """The shipments of a part. Ride k is row k of `custodies` (retracted ones are left out).

    first_row: where each ride's readings begin in the file.
    """

    part: Part
    shipments: list[dict[str, Any]]
    custodies: dict[str, list[Any]]
    rides: Rides
    first_row: I8
    shipment_of: dict[str, int]
    plans: list[Plan]
    lots: list[dict[str, list[str]]] = field(default_factory=list)

    def rules(self, change: Change | None = None, change_quality: ChangeQuality | None = None) -> Rules:
        """The recorded rules, or others made from them."""
        book = Rulebook()
        made: dict[tuple[str, str], Carrier] = {}
        carriers = []
        for shipment, plan in zip(self.shipments, self.plans, strict=True):
            key = ("" if change is None else shipment["shipment_id"], shipment["rules"])
            if key not in made:
                made[key] = book.of(plan if change is None else change(shipment["shipment_id"], plan))
            carriers.append(made[key])
        settings = self.rides.quality
        if change_quality is not None:
            settings = [change_quality(tag, one) for tag, one in zip(self.custodies["tag_id"], settings, strict=True)]
        return Rules(book, carriers, settings)

    def blocks(self, *rules: Rules, flagged: bool = False) -> Iterator[tuple[int, int, Columns]]:
        """Ranges of rides with their readings, and of these the values that any of the rules looks at; flagged: with their recorded flags.

        No range parts a carrier's rides.
        """
        codes = tuple(sorted({code for one in rules for code in judge.needed_codes(one.book, one.carriers, one.quality)}))
        names = [COLUMNS[code].name for code in codes]
        flags = [f"{name}_flag" for name in names] if flagged else []
        with reader.Rows(self.part, "readings", ["sensed_at", *names, *flags]) as rows:
            for low, high in rides.blocks(self.rides):
                n = int(self.rides.start[high] - self.rides.start[low])
                made = Columns(
                    np.empty(n, np.int64), codes, np.empty((len(codes), n)), np.empty((len(codes), n), np.uint8) if flags else None
                )
                at = 0
                for first, last in self.ranges(low, high):
                    for table in rows.between(first, last):
                        _fill(table, made, names, slice(at, at + table.num_rows))
                        at += table.num_rows
                yield low, high, made

    def ranges(self, low: int, high: int) -> list[tuple[int, int]]:
        """Where in the file the readings of some rides lie."""
        first, last = self.first_row[low:high], self.first_row[low:high] + np.diff(self.rides.start[low : high + 1])
        edges = np.flatnonzero(first[1:] != last[:-1]) + 1
        return list(zip(first[np.append(0, edges)].tolist(), last[np.append(edges, high - low) - 1].tolist(), strict=True))

    def ruled(self, rules: Rules, low: int = 0, high: int | None = None) -> Rides:
        """The rides of a range under the quality settings of some rules."""
        return self.rides.some(low, len(self.rides) if high is None else high, rules.quality)


def _fill(table: pa.Table, made: Columns, names: list[str], where: slice) -> None:
    reader.into(table.column("sensed_at"), made.sensed_us[where], 0)
    there = set(table.column_names)
    for k, name in enumerate(names):
        if name in there:
            reader.into(table.column(name), made.values[k, where], np.nan)
        else:
            made.values[k, where] = np.nan
        if made.flags is not None and f"{name}_flag" in there:
            reader.into(table.column(f"{name}_flag"), made.flags[k, where], MISSING)
        elif made.flags is not None:
            made.flags[k, where] = MISSING


def load(part: Part, only: frozenset[str] | None = None) -> Journeys:
    """A part's journeys, of the shipments `only` where given."""
    shipments = [row for row in part.rows("shipments") if only is None or row["shipment_id"] in only]
    number = {row["carrier"]: at for at, row in enumerate(shipments)}
    table = part.table("custodies")
    mask = pc.invert(pc.fill_null(table.column("retracted"), False))
    if only is not None:
        mask = pc.and_(mask, pc.is_in(table.column("carrier"), pa.array(list(number), pa.string())))
    table = table.filter(mask)
    custodies = {name: table.column(name).to_pylist() for name in ("custody_id", "carrier", "tag_id", "handling_unit_id", "mkt_c")}
    tags: dict[str, int] = {}
    tag = np.array([tags.setdefault(one, len(tags)) for one in custodies["tag_id"]], np.int32)
    known: dict[str, QualitySettings] = {}
    texts = table.column("quality").to_pylist()
    settings = [
        None if text is None else known.setdefault(text, QualitySettings.from_data(json.loads(text))) if text not in known else known[text]
        for text in texts
    ]
    first = reader.integers(table.column("first_row"))
    count = reader.integers(table.column("readings"))
    if only is None:
        _must_follow(first, count, part)
    found = Rides(
        reader.integers(table.column("custody_id")),
        np.array([number[one] for one in custodies["carrier"]], np.int32),
        tag,
        reader.integers(table.column("from_at")),
        reader.integers(table.column("until_at"), FOREVER_US),
        np.concatenate([np.zeros(1, np.int64), np.cumsum(count)]),
        settings,
        *_beside(part, reader.integers(table.column("custody_id"))),
    )
    lots = [json.loads(row["lots"] or "{}") for row in shipments]
    return Journeys(part, shipments, custodies, found, first, number, _plans(shipments), lots)


def _beside(part: Part, custody_id: I8) -> tuple[Columns | None, I8 | None]:
    """The readings beside the custodies of these ids that their flags look at, and where each one's begin. Old archives have none."""
    if "neighbours" not in part.files:
        return None, None
    table = part.table("neighbours")
    ids = reader.integers(table.column("custody_id"))
    by_id = np.argsort(custody_id)
    place = np.minimum(np.searchsorted(custody_id, ids, sorter=by_id), max(len(by_id) - 1, 0))
    mine = np.flatnonzero(custody_id[by_id[place]] == ids) if len(by_id) else np.zeros(0, np.int64)
    ride = by_id[place[mine]]
    order = np.argsort(ride, kind="stable")
    codes = tuple(range(len(COLUMNS)))
    table = table.take(mine[order])
    made = Columns(reader.integers(table.column("sensed_at")), codes, reader.values(table, codes))
    return made, np.searchsorted(ride[order], np.arange(len(custody_id) + 1)).astype(np.int64)


def _must_follow(first: I8, count: I8, part: Part) -> None:
    """A part's readings are those of its custodies, one after the other. Raises ValueError where they are not."""
    if not np.array_equal(first, np.cumsum(count) - count):
        raise ValueError(f"part {part.part_id}: the custodies' readings do not follow each other")


def _plans(shipments: list[dict[str, Any]]) -> list[Plan]:
    """Each shipment's recorded plan; equal rules are parsed once."""
    known: dict[str, Plan] = {}
    return [known[row["rules"]] if row["rules"] in known else known.setdefault(row["rules"], plan_of(row["rules"])) for row in shipments]


def plan_of(rules: str) -> Plan:
    """The plan that `rules_of` made text of; without its carrier's name."""
    return Plan.from_data({"carrier": "", "revision": 0, **json.loads(rules)})


def rules_of(plan: Mapping[str, Any]) -> str:
    """A plan's data as text, without carrier and revision: equal rules are equal texts."""
    return json.dumps(
        {key: value for key, value in plan.items() if key not in ("carrier", "revision")}, separators=(",", ":"), sort_keys=True
    )


# ---------------------------------------------------------------- what was recorded


def recorded(journeys: Journeys, names: list[str]) -> Judged:
    """What the archive has of the rides as stated, in the form in which the rules give it; new names are added to `names`."""
    excursions = journeys.part.table("excursions")
    standing = pc.and_(excursions.column("final"), pc.not_equal(excursions.column("state"), "RETRACTED"))
    visits = journeys.part.table("visits")
    stated = pc.and_(pc.equal(visits.column("state"), "STATED"), pc.is_in(visits.column("kind"), pa.array(["VISIT", "PASSED"])))
    sums = journeys.part.table("exposures")
    find = _Finder(journeys, names)
    found = find.rows(
        EXCURSION_ROW, excursions.filter(standing), "limit_id",
        {
            "readings": "readings", "started_us": "started_at", "triggered_us": "triggered_at", "ended_us": "ended_at",
            "violation_us": "violation_us", "uncovered_us": "uncovered_us", "extreme": "extreme", "extreme_us": "extreme_at",
            "mean": "mean",
        },
    )  # fmt: skip
    found["limit"] = -1
    table = visits.filter(stated)
    seen = find.rows(VISIT_ROW, table, "fence_id", {"entered_us": "entered_at", "exited_us": "exited_at"})
    kept = find.kept(table)
    seen["kind"] = np.where(pc.equal(table.column("kind"), "PASSED").to_numpy(zero_copy_only=False)[kept], judge.PASSED, judge.VISIT)
    totals = find.rows(
        SUM_ROW, sums, "limit_id",
        {
            "readings": "readings", "violation_us": "violation_us", "covered_us": "covered_us", "uncovered_us": "uncovered_us",
            "extreme": "extreme", "extreme_us": "extreme_at",
        },
    )  # fmt: skip
    totals["extreme_us"][np.isnan(totals["extreme"])] = 0  # as the rules give it
    mkt_c = np.array([np.nan if one is None else one for one in journeys.custodies["mkt_c"]], np.float64)
    return Judged(
        names,
        found[np.lexsort((found["started_us"], found["name"], found["ride"]))],
        seen[np.lexsort((seen["entered_us"], seen["kind"], seen["name"], seen["ride"]))],
        totals[np.lexsort((totals["name"], totals["ride"]))],
        mkt_c,
        int(journeys.rides.start[-1] - journeys.rides.start[0]),
    )


class _Finder:
    """Turns recorded tables into rows of rides, column by column."""

    def __init__(self, journeys: Journeys, names: list[str]) -> None:
        self.ids = journeys.rides.custody_id
        self.order = np.argsort(self.ids)
        self.names = names
        self.index = {name: at for at, name in enumerate(names)}

    def kept(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        """Which rows are of these rides."""
        return np.asarray(np.isin(reader.integers(table.column("custody_id")), self.ids))

    def rows(self, dtype: np.dtype[Any], table: pa.Table, name: str, columns: Mapping[str, str]) -> npt.NDArray[Any]:
        """The rows of these rides. name: the column of limit or fence ids; columns: by field. An absent end is FOREVER_US."""
        kept = self.kept(table)
        custody = reader.integers(table.column("custody_id"))[kept]
        found = np.zeros(len(custody), dtype)
        found["ride"] = self.order[np.searchsorted(self.ids, custody, sorter=self.order)]
        found["name"] = self._numbers(table.column(name))[kept]
        for field_name, column in columns.items():
            if found[field_name].dtype.kind == "f":
                found[field_name] = table.column(column).to_numpy()[kept]
            else:
                absent = FOREVER_US if field_name in ("ended_us", "exited_us") else 0
                found[field_name] = reader.integers(table.column(column), absent)[kept]
        return found

    def _numbers(self, column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
        coded = pc.fill_null(column, "").combine_chunks().dictionary_encode()
        if isinstance(coded, pa.ChunkedArray):
            coded = coded.combine_chunks()
        mine = []
        for text in coded.dictionary.to_pylist():
            if text not in self.index:
                self.index[text] = len(self.names)
                self.names.append(text)
            mine.append(self.index[text])
        return np.array(mine, np.int64)[coded.indices.to_numpy()] if len(mine) else np.zeros(0, np.int64)
