"""Judging many journeys as columns: the kernels of live judging, given all custodies of a block in one call.

The later custodies of a tag on one carrier go on from the sums of its earlier ones, so rides are judged in rounds: first custodies first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.rules import exposure, geofence, mkt
from actors.rules.quality import QualitySettings
from actors.rules.readings import ACCURACY, CODE, F8, FOREVER_US, I4, I8, LATITUDE, LONGITUDE, Batch
from actors.tags import whole
from actors.tags.carriers import Carrier, Rulebook, TrackSpec
from cluster.replay.flags import usable
from cluster.replay.rides import Columns, Rides, block_index, blocks, groups_of

Rows = npt.NDArray[Any]

TEMPERATURE = CODE["temperature_c"]
VISIT, PASSED = 0, 1
"""Kinds of a visit."""

DEFAULT_GAP_US = 3_600_000_000
"""How long a reading holds where no profile says so (handbook 3)."""


@dataclass(slots=True)
class Judged:
    """What the rules say of the rides: structured arrays, each with `ride`, sorted by it; `name` indexes `names` (limit or fence ids)."""

    names: list[str]
    excursions: Rows
    visits: Rows
    sums: Rows
    mkt_c: F8
    readings: int


EXCURSION_ROW = np.dtype(
    [
        ("ride", "i4"), ("name", "i4"), ("limit", "i4"), ("readings", "i8"),
        ("started_us", "i8"), ("triggered_us", "i8"), ("ended_us", "i8"), ("violation_us", "i8"), ("uncovered_us", "i8"),
        ("extreme", "f8"), ("extreme_us", "i8"), ("mean", "f8"),
    ]
)  # fmt: skip
VISIT_ROW = np.dtype([("ride", "i4"), ("name", "i4"), ("kind", "i4"), ("entered_us", "i8"), ("exited_us", "i8")])
SUM_ROW = np.dtype(
    [
        ("ride", "i4"), ("name", "i4"), ("readings", "i8"), ("violation_us", "i8"), ("covered_us", "i8"), ("uncovered_us", "i8"),
        ("extreme", "f8"), ("extreme_us", "i8"),
    ]
)  # fmt: skip


def needed_codes(book: Rulebook, carriers: Sequence[Carrier], qualities: Sequence[QualitySettings | None]) -> tuple[int, ...]:
    """The value columns that these rules look at, ascending; temperature always, for the MKT."""
    wanted = {TEMPERATURE} | {spec.metric for carrier in carriers for spec in carrier.tracks}
    speed = any(one is not None and one.tests_position for one in qualities)
    if speed or any(carrier.fence_rows for carrier in carriers):
        wanted |= {LATITUDE, LONGITUDE, ACCURACY}
    return tuple(sorted(wanted))


class Judging:
    """Closed custodies judged from their beginning to their end, block by block: memory is a block and what is found.

    names: go on from these, so that two judgements number alike.
    """

    def __init__(self, book: Rulebook, carriers: Sequence[Carrier], names: list[str] | None = None) -> None:
        self.book = book
        self.carriers = carriers
        self.specs = _Specs(carriers, [] if names is None else names)
        self.rides = self.readings = 0
        self._found: list[tuple[Rows, Rows, Rows, F8]] = []

    def take(self, columns: Columns, rides: Rides) -> None:
        """Judge the next rides, whose readings are these; none of them parts a carrier's."""
        values = usable(columns, rides)
        excursions, sums = _judge_rounds(columns, values, rides, self.book, self.carriers, self.specs)
        visits = _judge_fences(columns, values, rides, self.book, self.specs)
        for rows in (excursions, visits, sums):
            rows["ride"] += self.rides
        self._found.append(
            (
                excursions[np.lexsort((excursions["started_us"], excursions["name"], excursions["ride"]))],
                visits,
                sums[np.lexsort((sums["name"], sums["ride"]))],
                _mkt(columns, values, rides, self.carriers, self.specs),
            )
        )
        self.rides += len(rides)
        self.readings += len(columns.sensed_us)

    def judged(self) -> Judged:
        """What was found."""
        nothing = (np.zeros(0, EXCURSION_ROW), np.zeros(0, VISIT_ROW), np.zeros(0, SUM_ROW), np.zeros(0))
        excursions, visits, sums, mkt_c = (np.concatenate(parts) for parts in zip(nothing, *self._found, strict=True))
        return Judged(self.specs.names, excursions, visits, sums, mkt_c, self.readings)


def judge(columns: Columns, rides: Rides, book: Rulebook, carriers: Sequence[Carrier]) -> Judged:
    """Judge rides whose readings are all at hand, a block at a time. Rides of one carrier stand together."""
    judging = Judging(book, carriers)
    for low, high in blocks(rides):
        first, last = int(rides.start[low]), int(rides.start[high])
        values = np.ascontiguousarray(columns.values[:, first:last])
        flags = None if columns.flags is None else columns.flags[:, first:last]
        judging.take(Columns(columns.sensed_us[first:last], columns.codes, values, flags), rides.some(low, high))
    return judging.judged()


def _judge_rounds(
    columns: Columns, values: F8, rides: Rides, book: Rulebook, carriers: Sequence[Carrier], specs: _Specs
) -> tuple[Rows, Rows]:
    """All limits, first custodies first: a later one of a tag on the same carrier goes on from the sums before it."""
    prior: dict[tuple[int, int], dict[str, int]] = {}
    parts = []
    rounds = _rounds(rides)
    for number, chosen in enumerate(rounds):
        before = [prior.get(_key(rides, ride), {}) for ride in chosen.tolist()] if number else None
        found = _judge_limits(columns, values, rides, book, carriers, specs, chosen, before)
        parts.append(found)
        if number + 1 < len(rounds):
            _add_up(rides, specs, found[1], prior)
    excursions = np.concatenate([np.zeros(0, EXCURSION_ROW), *(part[0] for part in parts)])
    sums = np.concatenate([np.zeros(0, SUM_ROW), *(part[1] for part in parts)])
    return excursions, sums


# ---------------------------------------------------------------- limits


class _Specs:
    """The carriers' tracks and fences as flat tables; carriers under the same rules share theirs."""

    def __init__(self, carriers: Sequence[Carrier], names: list[str]) -> None:
        self.names = names
        self._name = {name: at for at, name in enumerate(names)}
        known: dict[tuple[TrackSpec, ...], int] = {}
        parts: list[list[tuple[int, ...]]] = []
        sizes: list[int] = []
        self.rule_set = np.zeros(len(carriers), np.int64)
        self.doubled = False
        for at, carrier in enumerate(carriers):
            key = tuple(carrier.tracks)
            if key not in known:
                known[key] = len(parts)
                numbers = [self.name(spec.limit_id) for spec in carrier.tracks]
                self.doubled |= len(set(numbers)) < len(numbers)
                parts.append(
                    [(name, s.metric, s.mode, s.windows_start, s.windows_count) for name, s in zip(numbers, carrier.tracks, strict=True)]
                )
                sizes.append(len(carrier.tracks))
            self.rule_set[at] = known[key]
        self.size = np.array(sizes, np.int64)
        self.first = np.cumsum(self.size) - self.size
        flat = np.array([row for part in parts for row in part], np.int64).reshape(-1, 5)
        self.track_name, self.metric, self.mode, self.windows_start, self.windows_count = flat.T
        self.fences = np.array([len(carrier.fences) for carrier in carriers], np.int64)
        self.first_fence = np.cumsum(self.fences) - self.fences
        self.fence_row = np.array([row for carrier in carriers for row in carrier.fence_rows], np.int32)
        self.fence_name = np.array([self.name(fence.fence_id) for carrier in carriers for fence in carrier.fences], np.int64)
        plans = [carrier.plan for carrier in carriers]
        self.ignores = np.array([any(one.ignore_us for one in plan.profiles) for plan in plans], np.bool_)
        self.gap_us = np.array([plan.profiles[0].max_gap_us if len(plan.profiles) == 1 else -1 for plan in plans], np.int64)

    def name(self, text: str) -> int:
        """The number of a limit's or fence's id."""
        if text not in self._name:
            self._name[text] = len(self.names)
            self.names.append(text)
        return self._name[text]

    def of(self, carrier: I4) -> tuple[I8, I8]:
        """For rides on these carriers: how many tracks each has, and the row of each track in the flat table."""
        sets = self.rule_set[carrier]
        count = self.size[sets]
        return count, block_index(self.first[sets], count)


def _key(rides: Rides, ride: int) -> tuple[int, int]:
    return int(rides.carrier[ride]), int(rides.tag[ride])


def _rounds(rides: Rides) -> list[I8]:
    """Rides by how many earlier custodies their tag has on the same carrier."""
    order = np.lexsort((rides.from_us, rides.tag, rides.carrier))
    same = np.zeros(len(order), np.bool_)
    if len(order) > 1:
        same[1:] = (np.diff(rides.tag[order]) == 0) & (np.diff(rides.carrier[order]) == 0)
    index = np.arange(len(order))
    rank = index - np.maximum.accumulate(np.where(same, 0, index))
    return [np.sort(order[rank == number]) for number in range(int(rank.max(initial=-1)) + 1)]


def _add_up(rides: Rides, specs: _Specs, sums: Rows, prior: dict[tuple[int, int], dict[str, int]]) -> None:
    for row in sums:
        mine = prior.setdefault(_key(rides, int(row["ride"])), {})
        name = specs.names[int(row["name"])]
        mine[name] = mine.get(name, 0) + int(row["violation_us"])


def _ignore_from_us(rides: Rides, carriers: Sequence[Carrier], specs: _Specs, chosen: I8) -> I8:
    """From when limits hold in each ride: its start plus the ignore period, at most its end."""
    ignore = np.zeros(len(chosen), np.int64)
    for at in np.flatnonzero(specs.ignores[rides.carrier[chosen]]).tolist():
        ride = int(chosen[at])
        ignore[at] = carriers[int(rides.carrier[ride])].plan.ignore_us(int(rides.from_us[ride]))
    return np.asarray(np.minimum(rides.from_us[chosen] + ignore, rides.until_us[chosen]))


def _judge_limits(
    columns: Columns, values: F8, rides: Rides, book: Rulebook, carriers: Sequence[Carrier], specs: _Specs, chosen: I8,
    before: list[dict[str, int]] | None,
) -> tuple[Rows, Rows]:  # fmt: skip
    count, flat = specs.of(rides.carrier[chosen])
    if not len(flat):
        return np.zeros(0, EXCURSION_ROW), np.zeros(0, SUM_ROW)
    first = (np.cumsum(count) - count).astype(np.int32)
    ride_of = np.repeat(chosen, count)
    prior_us = np.zeros(len(flat), np.int64)
    if before is not None:
        owner = np.repeat(np.arange(len(chosen)), count)
        prior_us[:] = [
            before[at].get(specs.names[name], 0) for at, name in zip(owner.tolist(), specs.track_name[flat].tolist(), strict=True)
        ]
    until = rides.until_us[ride_of]
    tracks = exposure.fresh(
        specs.metric[flat], specs.mode[flat], specs.windows_start[flat], specs.windows_count[flat],
        np.repeat(_ignore_from_us(rides, carriers, specs, chosen), count), until, prior_us,
    )  # fmt: skip
    groups, _ = groups_of(rides, chosen)
    windows, limits = book.windows, book.limits
    parts = [exposure.advance(tracks, first, count.astype(np.int32), groups, columns.sensed_us, columns.codes, values, windows, limits)]
    end_values = np.full(len(tracks), np.nan)
    for row in np.flatnonzero(specs.mode[flat] == exposure.MKT).tolist():
        parts += _judge_mkt(columns, values, rides, book, tracks, row, int(ride_of[row]), end_values)
    parts.append(exposure.close(tracks, np.arange(len(tracks)), until, windows, limits, end_values))
    runs = np.concatenate(parts)
    ended = runs[runs["kind"] == exposure.ENDED]
    return _excursions(ended, ride_of, specs.track_name[flat]), _sums(tracks, windows, ride_of, specs, flat, prior_us)


def _judge_mkt(columns: Columns, values: F8, rides: Rides, book: Rulebook, tracks: Any, row: int, ride: int, end_values: F8) -> list[Rows]:
    """One track of mode mkt: its trailing MKT at each reading, and at the end."""
    metric = int(tracks[row]["metric"])
    low, high = int(rides.start[ride]), int(rides.start[ride + 1])
    if metric not in columns.codes or low == high:
        return []
    own = values[columns.codes.index(metric), low:high]
    held = ~np.isnan(own)
    at_us = columns.sensed_us[low:high][held]
    none = np.zeros(len(at_us), np.int64)
    batch = Batch(none.astype(np.int32), at_us, none, none, (metric,), own[held].reshape(1, -1))
    series = whole.trailing(book, tracks[row], batch, at_us)
    end_values[row] = whole.trailing(book, tracks[row], batch, np.array([rides.until_us[ride]], np.int64), ends=True)[0]
    return [exposure.advance_series(tracks, row, at_us, series, book.windows, book.limits)]


def _excursions(runs: Rows, ride_of: I8, name_of: I8) -> Rows:
    found = np.zeros(len(runs), EXCURSION_ROW)
    found["ride"], found["name"], found["limit"] = ride_of[runs["track"]], name_of[runs["track"]], runs["limit"]
    for mine, its in (
        ("readings", "readings"), ("started_us", "start_us"), ("triggered_us", "triggered_us"), ("ended_us", "end_us"),
        ("violation_us", "run_us"), ("uncovered_us", "uncovered_us"), ("extreme", "extreme"), ("extreme_us", "extreme_us"),
    ):  # fmt: skip
        found[mine] = runs[its]
    with np.errstate(invalid="ignore", divide="ignore"):
        found["mean"] = np.where(runs["run_us"] > 0, runs["weighted"] / runs["run_us"], runs["extreme"])
    return found


def _sums(tracks: Any, windows: Any, ride_of: I8, specs: _Specs, flat: I8, prior_us: I8) -> Rows:
    """The sums of each ride under each limit id, without what went before."""
    summary = exposure.summary(tracks, np.arange(len(tracks)), windows)
    found = np.zeros(len(tracks), SUM_ROW)
    found["ride"], found["name"] = ride_of, specs.track_name[flat]
    for name in ("covered_us", "uncovered_us", "extreme", "extreme_us", "readings"):
        found[name] = summary[name]
    found["extreme_us"][np.isnan(found["extreme"])] = 0  # nothing was read: there is no such time
    found["violation_us"] = summary["violation_us"] - prior_us
    if specs.doubled:  # a limit id that changed its metric or mode: its times add up, the rest is its newest's
        key = found["ride"].astype(np.int64) * (len(specs.names) + 1) + found["name"]
        last = len(key) - 1 - np.unique(key[::-1], return_index=True)[1]
        _, group = np.unique(key, return_inverse=True)
        merged = found[last]
        for name in ("violation_us", "covered_us", "uncovered_us"):
            total = np.zeros(len(merged), np.int64)
            np.add.at(total, group, found[name])
            merged[name] = total
        return merged
    return found


# ---------------------------------------------------------------- fences, MKT


def _judge_fences(columns: Columns, values: F8, rides: Rides, book: Rulebook, specs: _Specs) -> Rows:
    if not len(specs.fence_row) or LATITUDE not in columns.codes or LONGITUDE not in columns.codes:
        return np.zeros(0, VISIT_ROW)
    count = specs.fences[rides.carrier]
    index = block_index(specs.first_fence[rides.carrier], count)
    first = (np.cumsum(count) - count).astype(np.int32)
    ride_of = np.repeat(np.arange(len(rides)), count)
    visits = geofence.fresh(specs.fence_row[index], 0, FOREVER_US)
    visits["from_us"], visits["until_us"] = rides.from_us[ride_of], rides.until_us[ride_of]
    column = dict(zip(columns.codes, values, strict=True))
    accuracy = column.get(ACCURACY)
    if accuracy is None:
        accuracy = np.full(len(columns.sensed_us), np.nan)
    groups, _ = groups_of(rides, np.arange(len(rides)))
    events = [
        geofence.advance(
            visits, first, count.astype(np.int32), groups, columns.sensed_us, column[LATITUDE], column[LONGITUDE], accuracy, book.fences
        )
    ]
    inside = np.flatnonzero(visits["side"] == geofence.INSIDE)
    events.append(geofence.close(visits, inside, rides.until_us[ride_of[inside]]))
    told = np.concatenate(events)
    told = told[told["kind"] != geofence.ENTER]  # every visit of a closed custody has its exit, which tells both
    found = np.zeros(len(told), VISIT_ROW)
    found["ride"], found["name"] = ride_of[told["visit"]], specs.fence_name[index[told["visit"]]]
    found["kind"] = np.where(told["kind"] == geofence.PASSED_THROUGH, PASSED, VISIT)
    found["entered_us"] = told["from_us"]
    found["exited_us"] = np.where(told["kind"] == geofence.PASSED_THROUGH, told["to_us"], told["at_us"])
    return found[np.lexsort((found["entered_us"], found["kind"], found["name"], found["ride"]))]


def _mkt(columns: Columns, values: F8, rides: Rides, carriers: Sequence[Carrier], specs: _Specs) -> F8:
    """The MKT of each whole custody, by the max_gap of the profile version in force at its start; NaN where nothing is covered."""
    if TEMPERATURE not in columns.codes or not len(rides):
        return np.full(len(rides), np.nan)
    gap_us = specs.gap_us[rides.carrier]
    for ride in np.flatnonzero(gap_us < 0).tolist():
        plan = carriers[int(rides.carrier[ride])].plan
        profile = plan.profile_at(int(rides.from_us[ride])) or (plan.profiles[0] if plan.profiles else None)
        gap_us[ride] = profile.max_gap_us if profile else DEFAULT_GAP_US
    begin_us = _ignore_from_us(rides, carriers, specs, np.arange(len(rides)))
    return mkt.mkt_of_segments_c(rides.start, columns.sensed_us, values[columns.codes.index(TEMPERATURE)], begin_us, rides.until_us, gap_us)
