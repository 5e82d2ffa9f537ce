"""The tables of a release document: exposure, excursions with their revisions, decisions, custody, completeness, rules."""

from __future__ import annotations

from typing import NamedTuple

from services.reports.document import Cell, Part, Section, Table, Tone, Words, columns
from services.reports.words import DASH, lasting, plural, rule, us_of, value, when, word
from waybill.v1 import alert_pb2, common_pb2, exposure_pb2, inventory_pb2, profile_pb2, report_pb2, shipment_pb2, tag_pb2

CAUSES = {
    "reading": "readings in order",
    "closed": "the custody ended",
    "late": "late readings",
    "custody": "a custody was told or corrected",
    "profile": "another profile or stage came into force",
    "quality": "a quality flag changed",
}
TEMPERATURE = common_pb2.METRIC_TEMPERATURE_C
METHODS = {profile_pb2.MKT_METHOD_HOLD: "holding times", profile_pb2.MKT_METHOD_TRAPEZOID: "trapezoids"}


# ---------------------------------------------------------------- exposure

MEASURED = "In violation*1.5 | >Worst value*1.2 | >MKT*1.2 | >Uncovered"


def exposure(report: report_pb2.ShipmentReport) -> Section:
    """What every limit came to, over all tags and for each."""
    limits = report.exposure.limits
    if not limits:
        return Section("Exposure by limit", [Words("No limit was in force: nothing was judged.", "warn")])
    parts: list[Part] = [Table(columns(f"Limit*2.6 | {MEASURED} | >Excursions*0.8"), [_limit(row) for row in limits])]
    tags = [_tag(row, tag) for row in limits for tag in row.tags]
    if tags:
        folded = f"Each tag by itself ({plural(len({cell[1].text for cell in tags}), 'tag')})"
        parts.append(Table(columns(f"Limit*1.2 | Tag*1.6 | {MEASURED} | >Readings*0.8"), tags, folded))
    lead = "The shipment shows the worst of its tags. Bars: how much of the allowance is used."
    return Section("Exposure by limit", parts, lead)


def _limit(row: exposure_pb2.LimitExposure) -> list[Cell]:
    broken = row.excursions > 0
    severity = word(common_pb2.Severity, row.limit.severity)
    name = Cell(row.limit.limit_id, strong=True, note=rule(row.limit) + (f" · {severity}" if severity else ""))
    if not row.readings:
        return [name, Cell("never measured", "warn", strong=True), *(Cell(DASH) for _ in range(3)), Cell("0")]
    excursions = Cell(str(row.excursions), "bad" if broken else "", strong=broken)
    mkt = Cell(DASH)
    if row.HasField("mkt"):
        notes = [
            f"over {lasting(row.mkt.window_us)}",
            "" if row.mkt.full_window else "of less data",
            "" if row.mkt.allowed else "not for release",
        ]
        mkt = Cell(value(row.mkt.mkt_c, TEMPERATURE, 2), note=", ".join(filter(None, notes)))
    return [name, _violation(row.limit, row.violation_us, broken), _extreme(row.limit, row), mkt, _uncovered(row.uncovered_us), excursions]


def _extreme(limit: profile_pb2.Limit, row: exposure_pb2.LimitExposure | exposure_pb2.TagExposure) -> Cell:
    return Cell(value(row.extreme, limit.metric, 2), note=when(row.extreme_time)) if row.HasField("extreme") else Cell(DASH)


def _violation(limit: profile_pb2.Limit, violation_us: int, broken: bool) -> Cell:
    text, tone = lasting(violation_us) if violation_us else "none", "bad" if broken else ""
    if not limit.allowance_s:
        return Cell(text, tone, strong=broken)  # type: ignore[arg-type]
    allowed_us = limit.allowance_s * 1e6
    of = f"of {lasting(allowed_us)}{' in total' if limit.mode == profile_pb2.LIMIT_MODE_CUMULATIVE else ' at a time'}"
    return Cell(text, tone, violation_us / allowed_us, of, strong=broken)  # type: ignore[arg-type]


def _uncovered(us: int) -> Cell:
    return Cell(lasting(us), "warn") if us >= 60_000_000 else Cell("none" if not us else lasting(us))


def _tag(row: exposure_pb2.LimitExposure, tag: exposure_pb2.TagExposure) -> list[Cell]:
    mkt = Cell(value(tag.mkt.mkt_c, TEMPERATURE, 2)) if tag.HasField("mkt") else Cell(DASH)
    violation = Cell(lasting(tag.violation_us) if tag.violation_us else "none", "bad" if tag.excursions else "")
    name = Cell(tag.tag_id, note=tag.handling_unit_id)
    return [
        Cell(row.limit.limit_id),
        name,
        violation,
        _extreme(row.limit, tag),
        mkt,
        _uncovered(tag.uncovered_us),
        Cell(f"{tag.readings:,}"),
    ]


# ---------------------------------------------------------------- excursions


def excursions(report: report_pb2.ShipmentReport) -> Section:
    """All excursions with everything that was ever said of them."""
    if not report.excursions:
        return Section("Excursions", [Words("None, at any time.", "good")])
    heads = columns(
        "Limit and tag*1.5 | Started*1.4 | Confirmed*1.4 | Ended*1.4 | >In violation*1.1 | >Worst*0.9 | >Mean*0.9 | Revision*1.9"
    )
    rows = [_excursion(one, "gone" if one.state == exposure_pb2.EXCURSION_STATE_RETRACTED else "") for one in report.excursions]
    earlier = [_excursion(said, "dim") for one in report.excursions for said in one.revisions]
    parts: list[Part] = [Table(heads, rows)]
    if earlier:
        parts.append(Table(heads, earlier, f"What was said before ({plural(len(earlier), 'earlier revision')})"))
    return Section("Excursions", parts, "As they stand; every change is a new revision with its cause, and nothing is overwritten.")


def _excursion(one: exposure_pb2.Excursion, tone: Tone) -> list[Cell]:
    cause = word(exposure_pb2.RevisionCause, one.cause)
    state = {"confirmed": "still open", "retracted": "retracted"}.get(word(exposure_pb2.ExcursionState, one.state), "")
    said = ", ".join(part for part in (CAUSES.get(cause, cause), state) if part)
    lots = ", ".join(f"{lot.item_id} lot {lot.lot_number}" for lot in one.lots)
    name = Cell(one.limit_id, tone, note=f"{one.tag_id}{f' · {lots}' if lots else ''}", strong=tone != "dim")
    cells = [
        when(one.started_time),
        when(one.triggered_time),
        when(one.ended_time) if one.HasField("ended_time") else "open",
        lasting(one.violation_us),
        value(one.extreme, one.metric) if one.HasField("extreme") else DASH,
        value(one.mean, one.metric) if one.HasField("mean") else DASH,
    ]
    late = " · found late" if one.found_late and one.revision == 1 else ""
    revision = Cell(f"{one.revision}: {said}{late}", "dim" if tone else "", note=f"recorded {when(one.recorded_time)}")
    return [name, *(Cell(text, tone) for text in cells), revision]


# ---------------------------------------------------------------- what people did


class Act(NamedTuple):
    """Something that a person did or said."""

    at_us: int
    who: str
    what: str
    about: str
    why: str


def acts(report: report_pb2.ShipmentReport) -> list[Act]:
    """What people decided, by time: about alerts, holds, corrections of custody, profiles put in force, a cancellation."""
    found = []
    for alert in report.alerts:
        for entry in alert.history:
            if entry.actor:
                change = word(alert_pb2.AlertChange, entry.change)
                what = "commented on the alert" if change == "commented" else f"{change} the alert"
                found.append(Act(us_of(entry.recorded_time), entry.actor, what, _about(alert), entry.text))
    for hold in report.holds:
        for step in hold.history:
            if step.actor:
                about = f"lot {hold.lot_number} of {hold.item_id}"
                what = f"{step.change.replace('_', ' ')} {'a' if step.change == 'placed' else 'the'} hold"
                found.append(Act(us_of(step.time), step.actor, what, about, step.text))
    for custody in report.custodies:
        for said in custody.history:
            if said.cause in ("corrected", "retracted"):
                about = f"tag {custody.tag_id}"
                if said.cause == "corrected":
                    about += f": {when(said.from_time)} to {when(said.until_time) if said.HasField('until_time') else 'now'}"
                found.append(Act(us_of(said.recorded_time), said.actor, f"{said.cause} a custody", about, said.reason))
    for one in report.profiles:
        profile = one.profile
        if profile.actor and not profile.shipped:
            about = f"{profile.profile_id} version {profile.version}"
            found.append(Act(us_of(profile.created_time), profile.actor, "made the profile version", about, profile.description))
    for milestone in report.milestones:
        kind = word(shipment_pb2.MilestoneKind, milestone.kind)
        if kind == "note" or milestone.note:
            what = "noted" if kind == "note" else f"recorded: {kind}"
            found.append(Act(us_of(milestone.time), milestone.actor, what, "", milestone.note))
    return sorted(found)


def decisions(report: report_pb2.ShipmentReport) -> Section:
    """Who decided what, and why; and what still waits for somebody."""
    parts: list[Part] = []
    done = acts(report)
    if done:
        rows = [
            [Cell(when(one.at_us)), Cell(one.who or DASH, strong=True), Cell(one.what), Cell(one.about), Cell(one.why or DASH)]
            for one in done
        ]
        parts.append(Table(columns("When*1.2 | Who | What*1.4 | About*2.2 | Why*2.2"), rows))
    else:
        parts.append(Words("Nobody has decided anything yet." if report.alerts else "There was nothing to decide.", "dim"))
    if report.holds:
        parts.append(
            Table(columns("Lot*2 | Hold*1.4 | Placed*1.3 | Why*2 | Decided by*1.2 | Reason*2"), [_hold(one) for one in report.holds])
        )
    if report.alerts:
        folded = "" if len(report.alerts) <= 8 else f"All {len(report.alerts)} alerts"
        heads = columns("Alert*3.2 | State*1.3 | Since*1.3 | Until*1.3 | With")
        parts.append(Table(heads, [_alert(one) for one in report.alerts], folded))
    return Section("Decisions, holds and alerts" if report.holds else "Decisions and alerts", parts)


def _hold(hold: inventory_pb2.Hold) -> list[Cell]:
    state = word(inventory_pb2.HoldState, hold.state)
    open_ = hold.state == inventory_pb2.HOLD_STATE_ACTIVE
    tone: Tone = "warn" if open_ else "bad" if hold.state == inventory_pb2.HOLD_STATE_REJECTED else ""
    reopened = f"decision made void {plural(hold.reopened, 'time')} by late data" if hold.reopened else ""
    decided = Cell(hold.decided_by or DASH, note=when(hold.decided_time) if hold.decided_by else "")
    return [
        Cell(hold.lot_number, note=hold.item_id, strong=True),
        Cell("waits for a decision" if open_ else state, tone, note=reopened, strong=open_),
        Cell(when(hold.placed_time)),
        Cell(hold.reason or DASH),
        decided,
        Cell(hold.decision_reason or DASH),
    ]


def _about(alert: alert_pb2.Alert) -> str:
    """What an alert is about, without its carrier."""
    if alert.kind != alert_pb2.ALERT_KIND_GOODS:
        about = alert.text.removeprefix(f"{alert.carrier}: ")
        return about[:1].upper() + about[1:]
    worst = f", worst {value(alert.extreme, alert.metric)}" if alert.HasField("extreme") else ""
    return f"Limit {alert.limit_id} of {alert.profile_id} exceeded{worst}, seen by {plural(len(alert.tag_ids), 'tag')}"


def _alert(alert: alert_pb2.Alert) -> list[Cell]:
    state = word(alert_pb2.AlertState, alert.state)
    waits = alert.state in (alert_pb2.ALERT_STATE_OPEN, alert_pb2.ALERT_STATE_ACKNOWLEDGED)
    severity = word(common_pb2.Severity, alert.severity)
    return [
        Cell(_about(alert), note=f"{severity}, {word(alert_pb2.AlertKind, alert.kind)}"),
        Cell(state, "warn" if waits else "", note="condition holds" if alert.active else "", strong=waits),
        Cell(when(alert.started_time)),
        Cell(when(alert.ended_time)),
        Cell(alert.resolved_by or alert.assigned_to or alert.acknowledged_by or DASH),
    ]


# ---------------------------------------------------------------- custody and completeness


def custody(report: report_pb2.ShipmentReport) -> Section:
    """Which tag rode from when to when, and what was said of it before."""
    rows = []
    for one in report.custodies:
        note = one.handling_unit_id or ("retracted: it never was" if one.retracted else "")
        rows.append(
            [Cell(one.tag_id, "gone" if one.retracted else "", note=note, strong=True), *_ridden(one, "gone" if one.retracted else "")]
        )
        if any(said.cause in ("corrected", "retracted") for said in one.history):
            rows += [[Cell("", "dim", note=said.cause), *_ridden(said, "dim")] for said in reversed(one.history[:-1])]
    if not rows:
        return Section("Custody", [Words("No tag rode on this shipment.", "warn")])
    folded = "" if len(rows) <= 12 else f"All {len(rows)} entries"
    lead = "By sensed time, half-open: until is the first moment that no longer counts. Earlier statements in grey."
    return Section("Custody", [Table(columns("Tag*1.6 | From*1.3 | Until*1.3 | By*1.1 | Recorded*1.3 | Why*1.6"), rows, folded)], lead)


def _ridden(one: tag_pb2.Custody | tag_pb2.CustodyRevision, tone: Tone) -> list[Cell]:
    until = when(one.until_time) if one.HasField("until_time") else "still"
    texts = (when(one.from_time), until, one.actor or DASH, when(one.recorded_time), one.reason or DASH)
    return [Cell(text, tone) for text in texts]


def completeness(report: report_pb2.ShipmentReport) -> Section | None:
    """How much of what the devices counted came in."""
    rows = []
    for one in report.exposure.completeness:
        holes = ", ".join(f"{hole.first}" if hole.first == hole.last else f"{hole.first} to {hole.last}" for hole in one.missing_ranges[:4])
        more = " and more" if len(one.missing_ranges) > 4 else ""
        missing = Cell(f"{one.missing:,}" if one.missing else "none", "warn" if one.missing else "", note=f"{holes}{more}" if holes else "")
        texts = (str(one.boot), f"{one.first_sequence} to {one.last_sequence}", f"{one.expected:,}", f"{one.received:,}")
        rows.append([Cell(one.tag_id, strong=True), *map(Cell, texts), missing])
    if not rows:
        return None
    heads = columns("Tag*1.6 | Boot | Sequence numbers*1.3 | >Expected | >Received | >Missing*1.6")
    folded = "" if len(rows) <= 12 else f"All {len(rows)} rows"
    return Section("Completeness", [Table(heads, rows, folded)], "By the numbers that the devices give their own readings.")


# ---------------------------------------------------------------- rules


def rules(report: report_pb2.ShipmentReport) -> Section:
    """The versions of the profiles in force, with their limits."""
    if not report.profiles:
        return Section("Rules in force", [Words("No profile: nothing but positions is judged.", "warn")])
    parts: list[Part] = []
    first: dict[tuple[str, int], report_pb2.ReportProfile] = {}
    for one in report.profiles:
        first.setdefault((one.profile.profile_id, one.profile.version), one)
    for one in first.values():
        parts.append(Words(_in_force(one)))
        parts.append(Table(columns("Limit | Rule*3 | While*1.2 | Severity*0.8"), [_rule(limit) for limit in one.profile.limits]))
    return Section("Rules in force", parts)


def _in_force(one: report_pb2.ReportProfile) -> str:
    profile = one.profile
    since = f"from {when(one.from_time)}" if one.HasField("from_time") else "from the beginning"
    source = " ".join(part for part in (profile.source, f"({profile.edition})" if profile.edition else "") if part)
    gap = f"a reading holds at most {lasting((profile.max_gap_s if profile.HasField('max_gap_s') else 3600) * 1e6)}"
    ignored = f", the first {lasting(profile.ignore_s * 1e6)} of a custody are not judged" if profile.ignore_s else ""
    weights = METHODS.get(profile.mkt_method, "holding times")
    mkt = f"MKT weighs by {weights} and may {'' if profile.mkt_allowed else 'not '}be used for release"
    return f"{profile.name} ({profile.profile_id} version {profile.version}), {since}: {gap}{ignored}; {mkt}. Source: {source or DASH}"


def _rule(limit: profile_pb2.Limit) -> list[Cell]:
    stages = ", ".join(word(common_pb2.Stage, stage) for stage in limit.stages)
    clear = f"a run goes on until {value(limit.clear, limit.metric)}" if limit.HasField("clear") else ""
    severity = word(common_pb2.Severity, limit.severity) or DASH
    return [Cell(limit.limit_id, strong=True, note=limit.name), Cell(rule(limit), note=clear), Cell(stages or "always"), Cell(severity)]
