"""Changes as rows: what the journal writes of revised excursions and visits, new tags and fence alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.journal.prepared import Condition, EventDraft, PreparedCommit
from actors.journal.rows import record, values
from actors.journal.tables import Conflict, Excursion, Tag, Visit
from actors.rules.plan import ENTER, EXIT, PASSED_THROUGH, PlannedFence
from actors.tags import past
from actors.tags.changes import Changes, RevisedExcursion, RevisedVisit
from actors.tags.stated import StatedVisit

if TYPE_CHECKING:
    from actors.sensor_tag import SensorTags


def fill(commit: PreparedCommit, tags: SensorTags, changes: Changes, now_us: int) -> None:
    """Put what changed into the commit."""
    commit.inserts.extend(changes.inserts)
    commit.upserts.extend(changes.upserts)
    commit.expect.extend(changes.expect)
    commit.events.extend(changes.events)
    commit.conditions.extend(changes.conditions)
    if commit.journal is not None:
        for row in changes.inserts:
            if isinstance(row, Conflict):
                row.sequence = commit.journal.sequence
    if changes.new_tags:
        columns = values(record(Tag, {"tag_id": "", "shard": tags.shard, "local_index": 0, "created_us": now_us, "updated_us": now_us}))
        commit.bulk_upserts.append((Tag, [{**columns, "tag_id": tags.ids[at], "local_index": at} for at in changes.new_tags]))
    lots = tags.reads.lots(sorted({one.carrier for one in changes.excursions.values()})) if changes.excursions else {}
    for excursion in changes.excursions.values():
        if excursion.stated.revision > 1 or not excursion.stated.retracted:
            commit.excursions.append(excursion_row(tags, excursion, lots, now_us))
    for visit in changes.visits.values():
        if visit.stated.revision > 1 or not visit.stated.retracted:
            _put_visit(commit, tags, visit, now_us)


def excursion_row(tags: SensorTags, revised: RevisedExcursion, lots: dict[tuple[str, str], list[str]], now_us: int) -> Excursion:
    """A revision as a record."""
    stated = revised.stated
    carrier = past.carrier_of(tags, revised.carrier)
    limit = carrier.plan.limit_at(stated.limit_id, stated.started_us)
    if limit is None and stated.limit_row >= 0:
        limit = tags.head.rulebook.limit_meaning[stated.limit_row]
    profile = carrier.plan.profile_at(stated.started_us)
    facts: dict[str, Any] = {}
    if limit is not None:
        facts = {
            "metric": limit.metric, "threshold": limit.threshold, "mode": limit.mode, "severity": limit.severity,
            "direction": 1 if limit.direction in (1, "above") else -1,
        }  # fmt: skip
    if profile is not None:
        facts |= {"profile_id": profile.profile_id, "profile_version": profile.version}
    return record(
        Excursion,
        {
            "excursion_id": stated.excursion_id,
            "revision": stated.revision,
            "state": "RETRACTED" if stated.retracted else "CONFIRMED" if stated.ended_us is None else "ENDED",
            "cause": revised.cause,
            "shard": tags.shard,
            "tag_id": tags.ids[revised.tag],
            "carrier": revised.carrier,
            "custody_id": stated.custody_id,
            "handling_unit_id": revised.handling_unit or None,
            "lots": touched_lots(lots, revised),
            "limit_id": stated.limit_id,
            "started_us": stated.started_us,
            "triggered_us": stated.triggered_us,
            "ended_us": stated.ended_us,
            "violation_us": stated.violation_us,
            "uncovered_us": stated.uncovered_us,
            "extreme": stated.extreme if stated.extreme == stated.extreme else None,
            "extreme_us": stated.extreme_us,
            "mean": stated.mean if stated.mean == stated.mean else None,
            "readings": stated.readings,
            "found_late": stated.found_late,
            "recorded_us": now_us,
            **facts,
        },
    )


def touched_lots(lots: dict[tuple[str, str], list[str]], revised: RevisedExcursion) -> list[str]:
    """The lots that an excursion touched: those of the tag's handling unit, or of the whole carrier."""
    if revised.handling_unit:
        return lots.get((revised.carrier, revised.handling_unit), [])
    return sorted({lot for (carrier, _), some in lots.items() if carrier == revised.carrier for lot in some})


def _put_visit(commit: PreparedCommit, tags: SensorTags, revised: RevisedVisit, now_us: int) -> None:
    stated = revised.stated
    row = record(
        Visit,
        {
            "visit_id": stated.visit_id,
            "revision": stated.revision,
            "state": "RETRACTED" if stated.retracted else "STATED",
            "kind": stated.kind,
            "cause": revised.cause,
            "shard": tags.shard,
            "tag_id": tags.ids[revised.tag],
            "carrier": revised.carrier,
            "custody_id": stated.custody_id,
            "fence_id": stated.fence_id,
            "entered_us": stated.entered_us,
            "exited_us": stated.exited_us,
            "recorded_us": now_us,
        },
    )
    commit.upserts.append(row)
    what = "retracted" if stated.retracted else "passed" if stated.kind == "PASSED" else "entered" if stated.exited_us is None else "left"
    at_us = stated.entered_us if stated.exited_us is None else stated.exited_us
    commit.events.append(EventDraft(f"visit.{what}", at_us, values(row), revised.carrier, row.tag_id))
    fence = next((one for one in past.carrier_of(tags, revised.carrier).fences if one.fence_id == stated.fence_id), None)
    if fence is not None and fence.alert_on:
        commit.conditions.extend(_fence_alerts(fence, stated, revised, row.tag_id))


def _fence_alerts(fence: PlannedFence, stated: StatedVisit, revised: RevisedVisit, tag_id: str) -> list[Condition]:
    """A fence raises on what its plan says: being inside (until it is left), having left, having been passed through."""
    if stated.kind == "PASSED":
        reason, change = PASSED_THROUGH, "withdraw" if stated.retracted else "raise"
    elif ENTER in fence.alert_on:
        reason, change = ENTER, "withdraw" if stated.retracted else "raise" if stated.exited_us is None else "clear"
    else:
        reason, change = EXIT, "withdraw" if stated.retracted else "raise"
        if stated.exited_us is None and not stated.retracted:
            return []
    if reason not in fence.alert_on:
        return []
    at_us = stated.exited_us if stated.exited_us is not None and reason != PASSED_THROUGH else stated.entered_us

    def condition(change: str, at_us: int) -> Condition:
        return Condition(
            key=f"fence|{revised.carrier}|{stated.fence_id}", kind="fence", change=change, at_us=at_us, carrier=revised.carrier,
            tag_id=tag_id, fence_id=stated.fence_id, reason=reason, cause=revised.cause,
            detail={"entered_us": stated.entered_us, "exited_us": stated.exited_us, "visit_id": stated.visit_id},
        )  # fmt: skip

    if change == "clear" and stated.revision == 1:  # entered and left within one commit: people still hear of it
        return [condition("raise", stated.entered_us), condition("clear", at_us)]
    return [condition(change, at_us)]
