"""Closed custodies that change afterwards: by late readings, corrected times, or a plan that says otherwise of the past.

Nothing of a closed custody is kept in memory. It is judged again as a whole from the ring or the journal, and compared with
what the database has stated of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from actors.journal.prepared import EventDraft
from actors.journal.tables import Custody, Excursion, Exposure, Visit
from actors.rules import exposure
from actors.rules.errors import NotFound
from actors.rules.readings import FOREVER_US, I8
from actors.tags import neighbours, whole
from actors.tags.carriers import Carrier
from actors.tags.changes import Changes
from actors.tags.custodies import OpenCustody
from actors.tags.stated import StatedExcursion, StatedVisit, match_excursions, match_visits, take_facts

if TYPE_CHECKING:
    from actors.sensor_tag import SensorTags

JUDGED_AGAIN = "custody.judged"
"""The event of a closed custody that was judged again for readings outside of it."""


def judge_late(tags: SensorTags, tag: int, from_us: int, changes: Changes) -> None:
    """Late readings from `from_us` on came in: judge again every closed custody of the tag that they may lie in."""
    custodies = tags.ahead.custodies(tags.ids[tag])
    judge_rows(tags, tag, custodies, lambda row: "late" if until_of(row) > from_us else None, changes)


def judge_touched(tags: SensorTags, tag: int, late_us: I8, touched_us: I8, changes: Changes) -> None:
    """Readings of these sensed times came in, and flags changed at those: judge again the closed custodies in which any of them lies.

    A custody that got no reading itself has an event of it, for whoever keeps a copy of what it states (the archive).
    """
    custodies = tags.ahead.custodies(tags.ids[tag])

    def within(row: Custody, times_us: I8) -> bool:
        return bool(((times_us >= row.from_us) & (times_us < until_of(row))).any())

    def cause_of(row: Custody) -> str | None:
        return "late" if within(row, late_us) else "quality" if within(row, touched_us) else None

    for row in judge_rows(tags, tag, custodies, cause_of, changes):
        if not within(row, late_us):
            body = row.model_dump(mode="json")
            changes.events.append(EventDraft(JUDGED_AGAIN, until_of(row), body, carrier=row.carrier, tag_id=row.tag_id))


def judge_rows(
    tags: SensorTags, tag: int, custodies: list[Custody], cause_of: Callable[[Custody], str | None], changes: Changes
) -> list[Custody]:
    """Judge those closed ones of a tag's `custodies` (all that stand, by start) that have a cause to be, and what adds up on them: the
    later ones on the same carrier, the open one included. Returns the closed ones.
    """
    causes: dict[str, str] = {}
    judged = []
    for row in custodies:
        if row.until_us is None:
            continue
        cause = cause_of(row) or causes.get(row.carrier)
        if cause is not None:
            causes[row.carrier] = cause
            judged.append(row)
            judge_closed(tags, tag, row, custodies, cause, changes)
    judge_open_after(tags, tag, causes, custodies, changes)
    return judged


def judge_open_after(tags: SensorTags, tag: int, causes: Mapping[str, str], custodies: list[Custody], changes: Changes) -> None:
    """The tag's open custody, if on one of the carriers that have a cause, goes on from what the closed ones before it add up to now."""
    open_custody = tags.head.custodies.get(tag)
    if open_custody is None or open_custody.carrier not in causes:
        return
    prior_us = prior_of(tags, tag, open_custody.carrier, open_custody.from_us, custodies, changes)
    if prior_us != open_custody.prior_us:
        tags.priors[tag] = prior_us
        take_prior(tags, tag, causes[open_custody.carrier], changes)


def take_prior(tags: SensorTags, tag: int, cause: str, changes: Changes) -> None:
    """The tag's open custody goes on from other sums of its earlier custodies: `tags.priors`, which is journaled for the replay."""
    prior_us = tags.priors.get(tag)
    if prior_us is not None:
        custody = tags.head.custodies[tag]
        custody.prior_us = prior_us
        tags.head.custodies.put(custody)
        tags.judge_open(tag, cause, changes)


def carrier_of(tags: SensorTags, name: str) -> Carrier:
    """The carrier by its newest plan."""
    known = tags.head.rulebook.carriers.get(name)
    if known is not None:
        return known
    plan = tags.ahead.plan(name)
    if plan is None:
        raise NotFound("there is no such carrier", field="carrier", value=name)
    return tags.head.rulebook.of(tags.plan_of(plan))


def prior_of(
    tags: SensorTags, tag: int, carrier: str, from_us: int, custodies: list[Custody], changes: Changes | None = None
) -> dict[str, int]:
    """Time in violation by limit id in the tag's closed custodies on `carrier` that began before `from_us`, this commit's included."""
    earlier = [
        row.custody_id
        for row in custodies
        if row.carrier == carrier and row.from_us < from_us and row.until_us is not None and not row.retracted
    ]
    if not earlier:
        return {}
    sums = {(row.custody_id, row.limit_id): row.violation_us for row in tags.ahead.exposures(earlier)}
    for row in changes.upserts if changes is not None else ():
        if isinstance(row, Exposure) and row.custody_id in earlier:
            sums[(row.custody_id, row.limit_id)] = row.violation_us
    prior_us: dict[str, int] = {}
    for (_, limit_id), violation_us in sums.items():
        prior_us[limit_id] = prior_us.get(limit_id, 0) + violation_us
    return prior_us


def judge_closed(
    tags: SensorTags,
    tag: int,
    row: Custody,
    custodies: list[Custody],
    cause: str,
    changes: Changes,
    before: list[StatedExcursion] | None = None,
    visits_before: list[StatedVisit] | None = None,
) -> None:
    """Judge one closed custody as a whole and revise what was stated (`before`: of one that was open until now; else the database's)."""
    assert row.until_us is not None
    carrier = carrier_of(tags, row.carrier)
    prior_us = prior_of(tags, tag, row.carrier, row.from_us, custodies, changes)
    custody = OpenCustody(row.custody_id, tag, row.carrier, row.handling_unit_id or "", row.from_us, prior_us)
    tracks, visits = tags.head.fresh_rows(custody, carrier, row.until_us)
    batch = neighbours.usable(tags, tag, row.from_us, row.until_us)
    judged = whole.judge_whole(tags.head.rulebook, carrier, row.custody_id, tracks, visits, batch, row.until_us)
    if before is None:
        before = [stated_excursion(one) for one in tags.ahead.excursions(row.custody_id)]
    if visits_before is None:
        visits_before = [stated_visit(one) for one in tags.ahead.visits(row.custody_id)]
    state_difference(tags, custody, before, visits_before, judged, cause, changes)
    state_exposure(tags, custody, carrier, judged.tracks, changes)


def state_difference(
    tags: SensorTags,
    custody: OpenCustody,
    before: list[StatedExcursion],
    visits_before: list[StatedVisit],
    judged: whole.Judgement,
    cause: str,
    changes: Changes,
) -> None:
    """What is found now against what was stated, as revisions; nothing of it is kept in memory."""
    tag, hu = custody.tag, custody.handling_unit
    late = cause not in ("reading", "closed")
    pairs, gone, new = match_excursions(before, judged.excursions)
    for old, one in pairs:
        if old.facts() != one.facts():
            take_facts(old, one)
            changes.excursion(old, tag, custody.carrier, hu, cause)
    for old in gone:
        old.retracted = True
        changes.excursion(old, tag, custody.carrier, hu, cause)
    for one in sorted(new, key=lambda one: (one.started_us, one.limit_id)):
        one.excursion_id, one.found_late = tags.next_past_id(), late
        changes.excursion(one, tag, custody.carrier, hu, cause)
    visit_pairs, visits_gone, visits_new = match_visits(visits_before, judged.stated_visits)
    for seen, visit in visit_pairs:
        if seen.facts() != visit.facts():
            seen.kind, seen.entered_us, seen.exited_us = visit.kind, visit.entered_us, visit.exited_us
            changes.visit(seen, tag, custody.carrier, cause)
    for seen in visits_gone:
        seen.retracted = True
        changes.visit(seen, tag, custody.carrier, cause)
    for visit in sorted(visits_new, key=lambda one: (one.entered_us, one.fence_id)):
        visit.visit_id, visit.found_late = tags.next_past_id(), late
        changes.visit(visit, tag, custody.carrier, cause)


def exposure_rows(tags: SensorTags, custody: OpenCustody, carrier: Carrier, tracks: exposure.Rows) -> list[Exposure]:
    """A custody's own sums per limit id (without its prior), as records."""
    sums = exposure.summary(tracks, np.arange(len(tracks)), tags.head.rulebook.windows)
    rows: dict[str, Exposure] = {}
    for spec, one in zip(carrier.tracks, sums, strict=True):
        violation_us = int(one["violation_us"]) - custody.prior_us.get(spec.limit_id, 0)
        extreme = float(one["extreme"])
        known = rows.get(spec.limit_id)
        if known is not None:  # a limit id that changed its metric or mode: its times add up, its extreme is the newest's
            violation_us += known.violation_us
        rows[spec.limit_id] = Exposure(
            custody_id=custody.custody_id,
            limit_id=spec.limit_id,
            tag_id=tags.ids[custody.tag],
            carrier=custody.carrier,
            violation_us=violation_us,
            covered_us=int(one["covered_us"]) + (known.covered_us if known else 0),
            uncovered_us=int(one["uncovered_us"]) + (known.uncovered_us if known else 0),
            extreme=None if np.isnan(extreme) else extreme,
            extreme_us=None if np.isnan(extreme) else int(one["extreme_us"]),
            readings=int(one["readings"]),
        )
    return list(rows.values())


def state_exposure(tags: SensorTags, custody: OpenCustody, carrier: Carrier, tracks: exposure.Rows, changes: Changes) -> None:
    """Write the sums of a closed custody."""
    mine = {(custody.custody_id, spec.limit_id) for spec in carrier.tracks}
    changes.upserts = [row for row in changes.upserts if not (isinstance(row, Exposure) and (row.custody_id, row.limit_id) in mine)]
    changes.upserts.extend(exposure_rows(tags, custody, carrier, tracks))


def stated_excursion(row: Excursion) -> StatedExcursion:
    """A record as what was stated."""
    return StatedExcursion(
        excursion_id=row.excursion_id,
        revision=row.revision,
        custody_id=row.custody_id,
        limit_id=row.limit_id,
        limit_row=-1,
        started_us=row.started_us,
        triggered_us=row.triggered_us,
        ended_us=row.ended_us,
        violation_us=row.violation_us,
        uncovered_us=row.uncovered_us,
        extreme=float("nan") if row.extreme is None else row.extreme,
        extreme_us=row.extreme_us or 0,
        mean=float("nan") if row.mean is None else row.mean,
        readings=row.readings,
        found_late=row.found_late,
    )


def stated_visit(row: Visit) -> StatedVisit:
    """A record as what was stated."""
    return StatedVisit(
        row.visit_id, row.revision, row.custody_id, row.fence_id or "", row.kind, row.entered_us, row.exited_us, row.cause == "late"
    )


def until_of(row: Custody) -> int:
    """A custody's end; FOREVER_US while it is open."""
    return FOREVER_US if row.until_us is None else row.until_us
