"""A carrier's exposure summary and verdict: the shards' sums per tag, custody and limit, rolled up; MKT and completeness from the series.

Each tag is judged by itself and its custodies add up; the carrier shows the worst of its tags (handbook 3). Nothing is judged here:
verdict and counts are those of the excursions that the shards have stated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.journal import queries_business as queries
from actors.journal.tables import Custody, Excursion
from actors.rules import mkt, windows
from actors.rules.plan import Plan, ProfileInForce
from actors.rules.profiles import SEVERITIES, Limit
from actors.rules.readings import CODE, Batch
from services import check, records
from services.backend import Backend, Context
from services.carriers import ask_all
from services.tags import completeness_messages
from waybill.v1 import common_pb2, exposure_pb2, profile_pb2

MOST_CUSTODIES = 10_000
MINUTE_US = 60_000_000

Sums = Mapping[str, Any]
Memo = dict[tuple[str, int, str], exposure_pb2.Mkt | None]
"""MKT by tag, window and excursions: limits share them."""


@dataclass(slots=True)
class Ride:
    """One custody with its readings, their flags (shape of `batch.values`), and the temperatures that count (NaN: absent or fail)."""

    custody: Custody
    batch: Batch
    temperature_c: npt.NDArray[np.float64]
    flags: npt.NDArray[np.uint8]

    @property
    def usable(self) -> Batch:
        """Its readings without the values that are flagged fail: as if they were not there."""
        return replace(self.batch, values=np.where(self.flags == common_pb2.QUALITY_FLAG_FAIL, np.nan, self.batch.values))

    @property
    def until_us(self) -> int:
        """The custody's end, or the newest reading that counts: what comes after that is not known yet."""
        counts = ((self.flags != common_pb2.QUALITY_FLAG_FAIL) & (self.flags != common_pb2.QUALITY_FLAG_MISSING)).any(axis=0)
        return self._end_us(counts)

    @property
    def held_until_us(self) -> int:
        """The custody's end, or the newest temperature that counts: it holds nothing yet."""
        return self._end_us(~np.isnan(self.temperature_c))

    def _end_us(self, counts: npt.NDArray[np.bool_]) -> int:
        if self.custody.until_us is not None:
            return self.custody.until_us
        there = np.flatnonzero(counts)
        return int(self.batch.sensed_us[there[-1]]) if len(there) else self.custody.from_us


@dataclass(slots=True)
class Total:
    """What one tag, or a carrier, adds up to under one limit."""

    violation_us: int = 0
    covered_us: int = 0
    uncovered_us: int = 0
    readings: int = 0
    extreme: float | None = None
    extreme_us: int | None = None
    units: set[str] = field(default_factory=set)

    def see(self, extreme: float | None, extreme_us: int | None, sign: int) -> None:
        """Keep the worse extreme; of equals the earlier."""
        if extreme is None or extreme_us is None:
            return
        new = (-sign * extreme, extreme_us)
        if self.extreme is None or self.extreme_us is None or new < (-sign * self.extreme, self.extreme_us):
            self.extreme, self.extreme_us = extreme, extreme_us


async def of_carrier(backend: Backend, carrier: str, context: Context) -> exposure_pb2.CarrierExposure:
    """The exposure of a carrier that exists, as of everything acknowledged before this call."""
    sums = await ask_all(backend, "tag.exposure", {"carrier": carrier}, context)
    row = await backend.read(queries.plan, carrier)
    plan = Plan(carrier, 0, "open") if row is None else Plan.from_data(row.body)
    custodies = await backend.read(queries.custodies, carrier, limit=MOST_CUSTODIES)
    excursions = await backend.read(queries.excursions, carrier, limit=MOST_CUSTODIES)
    rides = await asyncio.gather(*(ride(backend, custody, context) for custody in custodies))
    return await asyncio.to_thread(summary, plan, custodies, rides, sums, excursions)


async def ride(backend: Backend, custody: Custody, context: Context) -> Ride:
    """A custody with its readings."""
    batch, flags = await backend.series(custody.tag_id, custody.from_us, custody.until_us, context)
    row = batch.codes.index(CODE["temperature_c"]) if CODE["temperature_c"] in batch.codes else None
    values = np.full(len(batch), np.nan) if row is None else np.where(flags[row] == common_pb2.QUALITY_FLAG_FAIL, np.nan, batch.values[row])
    return Ride(custody, batch, values, flags)


def summary(
    plan: Plan, custodies: Sequence[Custody], rides: Sequence[Ride], sums: Sequence[Sums], excursions: Sequence[Excursion]
) -> exposure_pb2.CarrierExposure:
    """All that is known, rolled up."""
    by_limit: dict[str, list[Sums]] = {}
    for one in sums:
        by_limit.setdefault(one["limit_id"], []).append(one)
    held = [limit_id for limit_id, mine in plan.limits.items() if mine]
    judged = any(one["readings"] for one in sums)
    accounted = [int(one["accounted_us"]) for one in sums if one["readings"] and one["accounted_us"] is not None]
    worst = max((SEVERITIES.index(one.severity) for one in excursions), default=None)
    verdict = "EXCURSION" if excursions else "WITHIN_LIMITS" if judged else "NO_DATA"
    memo: Memo = {}
    message = exposure_pb2.CarrierExposure(
        carrier=plan.carrier,
        verdict=check.number(common_pb2.Verdict, verdict),
        worst_severity=check.number(common_pb2.Severity, "" if worst is None else SEVERITIES[worst]),
        closed=bool(custodies) and all(one.until_us is not None for one in custodies),
        excursions=len(excursions),
        judged_until_time=check.timestamp(max(accounted, default=None)),
        limits=[_limit(plan, limit_id, by_limit.get(limit_id, []), rides, excursions, memo) for limit_id in held],
    )
    for each in rides:
        everything = np.ones(len(each.batch), np.bool_)
        message.completeness.extend(completeness_messages(each.custody.tag_id, each.custody.custody_id, each.batch, everything))
    message.remarks.extend(_remarks(plan, rides, message))
    return message


def _limit(
    plan: Plan,
    limit_id: str,
    sums: Sequence[Sums],
    rides: Sequence[Ride],
    excursions: Sequence[Excursion],
    memo: Memo,
) -> exposure_pb2.LimitExposure:
    """One limit over all tags; its definition is the newest one that held."""
    window = plan.limits[limit_id][-1]
    limit = window.limit
    sign = 1 if limit.direction == "above" else -1
    profile = plan.profile_at(window.from_us) or plan.profiles[0]
    totals = {tag_id: _of_tag(plan, limit_id, mine, sign) for tag_id, mine in _by_tag(sums).items()}
    mine = [one for one in excursions if one.limit_id == limit_id]
    tags = []
    for tag_id, total in sorted(totals.items()):
        own = [one for one in mine if one.tag_id == tag_id]
        tags.append(
            exposure_pb2.TagExposure(
                tag_id=tag_id,
                handling_unit_id=next(iter(total.units)) if len(total.units) == 1 else "",
                violation_us=total.violation_us,
                extreme=total.extreme,
                extreme_time=check.timestamp(total.extreme_us),
                uncovered_us=total.uncovered_us,
                covered_us=total.covered_us,
                readings=total.readings,
                excursions=len(own),
                mkt=_mkt(limit, profile, tag_id, [one for one in rides if one.custody.tag_id == tag_id], own, memo),
                in_violation=any(one.state == "CONFIRMED" for one in own),
            )
        )
    whole = Total()
    for total in totals.values():
        whole.see(total.extreme, total.extreme_us, sign)
    largest = max((tag.mkt for tag in tags if tag.HasField("mkt")), key=lambda one: one.mkt_c, default=None)
    return exposure_pb2.LimitExposure(
        profile_id=profile.profile_id,
        profile_version=profile.version,
        limit=records.limit(limit),
        violation_us=max((tag.violation_us for tag in tags), default=0),
        extreme=whole.extreme,
        extreme_time=check.timestamp(whole.extreme_us),
        uncovered_us=max((tag.uncovered_us for tag in tags), default=0),
        covered_us=min((tag.covered_us for tag in tags), default=0),
        readings=sum(tag.readings for tag in tags),
        excursions=len(mine),
        mkt=largest,
        tags=tags,
    )


def _by_tag(sums: Iterable[Sums]) -> dict[str, list[Sums]]:
    found: dict[str, list[Sums]] = {}
    for one in sums:
        found.setdefault(one["tag_id"], []).append(one)
    return {tag_id: sorted(mine, key=lambda one: one["from_us"]) for tag_id, mine in found.items()}


def _of_tag(plan: Plan, limit_id: str, sums: Sequence[Sums], sign: int) -> Total:
    """A tag's custodies add up; what lies between them is uncovered where the limit held."""
    total = Total()
    before_us: int | None = None
    for one in sums:
        total.violation_us += one["violation_us"]
        total.covered_us += one["covered_us"]
        total.uncovered_us += one["uncovered_us"]
        total.readings += one["readings"]
        total.see(one["extreme"], one["extreme_us"], sign)
        total.units.add(one["handling_unit_id"] or "")
        if before_us is not None and before_us < one["from_us"]:
            total.uncovered_us += _held_us(plan.limits[limit_id], before_us, one["from_us"])
        before_us = one["until_us"]
    return total


def _held_us(mine: Iterable[windows.LimitWindow], from_us: int, until_us: int) -> int:
    """For how long of [from, until) the limit held."""
    return sum(max(0, min(one.until_us, until_us) - max(one.from_us, from_us)) for one in mine)


def _mkt(
    limit: Limit, profile: ProfileInForce, tag_id: str, rides: Sequence[Ride], excursions: Sequence[Excursion], memo: Memo
) -> exposure_pb2.Mkt | None:
    """The MKT for a release decision: the largest over the windows that contain one of the excursions (handbook 3), or, where there are
    none, over all windows of a tag's custodies, by the profile's method; None where it offers none (frozen goods) or nothing is covered.
    """
    if limit.metric != "temperature_c" or profile.mkt is None:
        return None
    window_us = limit.window_us or profile.mkt.window_us
    spans = sorted((one.custody_id, one.started_us, one.ended_us) for one in excursions)
    key = (tag_id, window_us, str(spans))
    if key in memo:
        return memo[key]
    weights: mkt.Weights = "trapezoid" if profile.mkt.weights == "trapezoid" else "hold"
    best: mkt.LargestMkt | None = None
    for one in rides:
        from_us = one.custody.from_us + profile.ignore_us
        if one.held_until_us <= from_us:
            continue
        mine = [
            (first, one.held_until_us if last is None else last)
            for custody_id, first, last in spans
            if custody_id == one.custody.custody_id
        ]
        for contained in mine if spans else [None]:
            found = mkt.largest_mkt_c(
                one.batch.sensed_us, one.temperature_c, window_us, profile.max_gap_us, from_us, one.held_until_us, contained, weights
            )
            if not np.isnan(found.mkt_c) and (best is None or found.mkt_c > best.mkt_c):
                best = found
    memo[key] = None
    if best is not None:
        memo[key] = exposure_pb2.Mkt(
            mkt_c=best.mkt_c,
            window_us=window_us,
            window_start_time=check.timestamp(best.window_start_us),
            covered_us=best.covered_us,
            full_window=best.full_window,
            method=check.number(profile_pb2.MktMethod, weights),
            allowed=profile.mkt.usable,
        )
    return memo[key]


# ---------------------------------------------------------------- what people must know


def _remarks(plan: Plan, rides: Sequence[Ride], message: exposure_pb2.CarrierExposure) -> list[str]:
    """Sentences for people, each about one thing that the numbers alone do not show."""
    checks: tuple[Callable[[Plan, Sequence[Ride], exposure_pb2.CarrierExposure], str], ...] = (
        _without_profile,
        _never_held,
        _without_readings,
        _partial_tags,
        _gaps,
        _missing,
        _short_max_gap,
        _short_mkt,
    )
    return [said for one in checks if (said := one(plan, rides, message))]


def _without_profile(plan: Plan, rides: Sequence[Ride], message: exposure_pb2.CarrierExposure) -> str:
    return "" if any(profile.profile_id for profile in plan.profiles) else "no profile: no limit is judged"


def _never_held(plan: Plan, rides: Sequence[Ride], message: exposure_pb2.CarrierExposure) -> str:
    never = [limit_id for limit_id, mine in plan.limits.items() if not mine]
    return f"never held so far, for want of their stages: {', '.join(never)}" if never else ""


def _without_readings(plan: Plan, rides: Sequence[Ride], message: exposure_pb2.CarrierExposure) -> str:
    silent = sorted({one.custody.tag_id for one in rides if not len(one.batch)})
    return f"no reading of {', '.join(silent[:5])}{' and others' if len(silent) > 5 else ''}" if silent else ""


def _partial_tags(plan: Plan, rides: Sequence[Ride], message: exposure_pb2.CarrierExposure) -> str:
    """6 h on one tag and 6 h on another are not 10 h on one: people must see it."""
    spans: dict[str, list[Ride]] = {}
    for one in rides:
        spans.setdefault(one.custody.tag_id, []).append(one)
    if len(spans) < 2:
        return ""
    first, last = min(one.custody.from_us for one in rides), max(one.until_us for one in rides)
    for mine in spans.values():
        if min(one.custody.from_us for one in mine) <= first + MINUTE_US and max(one.until_us for one in mine) >= last - MINUTE_US:
            return ""
    return "no tag covers the whole way: sums are per tag"


def _gaps(plan: Plan, rides: Sequence[Ride], message: exposure_pb2.CarrierExposure) -> str:
    most = max((one.uncovered_us for one in message.limits), default=0)
    return f"up to {most / 3_600_000_000:.1f} h of a tag's time are uncovered" if most >= MINUTE_US else ""


def _missing(plan: Plan, rides: Sequence[Ride], message: exposure_pb2.CarrierExposure) -> str:
    missing = sum(one.missing for one in message.completeness)
    return f"{missing} of {sum(one.expected for one in message.completeness)} numbered readings are missing" if missing else ""


def _short_max_gap(plan: Plan, rides: Sequence[Ride], message: exposure_pb2.CarrierExposure) -> str:
    """A profile whose max_gap is below a tag's usual interval leaves time uncovered even where nothing is missing."""
    shortest = min((profile.max_gap_us for profile in plan.profiles if profile.profile_id), default=None)
    if shortest is None:
        return ""
    slow = [one.custody.tag_id for one in rides if len(one.batch) > 2 and float(np.median(np.diff(one.batch.sensed_us))) > shortest]
    return f"the profile's max_gap is below the usual interval of {', '.join(sorted(set(slow))[:5])}" if slow else ""


def _short_mkt(plan: Plan, rides: Sequence[Ride], message: exposure_pb2.CarrierExposure) -> str:
    partial = any(one.HasField("mkt") and not one.mkt.full_window for one in message.limits)
    return "MKT rests on less data than its window asks for" if partial else ""
