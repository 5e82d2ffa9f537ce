"""The release document of a shipment: a ShipmentReport told to a person who must decide about the goods."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from services.reports import release_plots, release_tables
from services.reports.document import Beside, Card, Cell, Document, Facts, Listing, Number, Part, Section, Table, Words, columns
from services.reports.words import DASH, lasting, metric_title, plural, rule, share, unit, us_of, value, when, word
from waybill.v1 import alert_pb2, common_pb2, exposure_pb2, inventory_pb2, profile_pb2, report_pb2, shipment_pb2

HEADS = {
    common_pb2.VERDICT_WITHIN_LIMITS: ("Within limits", "good"),
    common_pb2.VERDICT_EXCURSION: ("Excursion", "bad"),
    common_pb2.VERDICT_NO_DATA: ("No data", "warn"),
}
TEMPERATURE = common_pb2.METRIC_TEMPERATURE_C
MINUTE_US = 60_000_000


def document(report: report_pb2.ShipmentReport, signer: str) -> Document:
    """The whole document. `signer`: fingerprint of the key that it will be sealed with; empty: it is not signed."""
    shipment = report.shipment
    ends = [stop.name or stop.locode or stop.stop_id for stop in shipment.stops]
    way = f"{ends[0]} to {ends[-1]}" if len(ends) > 1 else ""
    profiles = ", ".join(dict.fromkeys(f"{one.profile.profile_id} v{one.profile.version}" for one in report.profiles))
    parts = [
        part for part in dict.fromkeys((shipment.reference, way, f"judged by {profiles}" if profiles else "", shipment.description)) if part
    ]
    return Document(
        kind="Release report",
        title=f"Shipment {shipment.shipment_id}",
        subtitle=" · ".join(parts),
        made=f"Made {when(report.made_time)} UTC by Waybill {report.software.waybill}",
        note="All times are UTC; those of readings by their sensors' clocks.",
        cards=[_verdict(report), _why(report), _uncertain(report)],
        numbers=list(_numbers(report)),
        sections=[section for section in _sections(report, signer) if section is not None],
    )


# ---------------------------------------------------------------- the three answers


def _verdict(report: report_pb2.ShipmentReport) -> Card:
    head, tone = HEADS.get(report.exposure.verdict, ("Unknown", "warn"))
    shipment = report.shipment
    state = word(shipment_pb2.ShipmentState, shipment.state)
    ended = {"delivered": shipment.delivered_time, "cancelled": shipment.cancelled_time}.get(state)
    lines = [f"{state.capitalize()}{f' {when(ended)}' if ended is not None and ended.ByteSize() else ''}"]
    lines.append("Final but for late data and corrections" if report.exposure.closed else "Not final: tags still ride on it")
    if report.exposure.verdict == common_pb2.VERDICT_EXCURSION:
        lines.insert(0, f"{plural(report.exposure.excursions, 'excursion')}, {_severity(report.exposure.worst_severity)}")
    held = sum(one.state != inventory_pb2.HOLD_STATE_RELEASED for one in report.holds)
    if held:
        lines.append(f"{plural(held, 'lot')} on hold or blocked")
    waiting = _waiting(report)
    if waiting:
        lines.append(f"{plural(waiting, 'alert')} still {'waits' if waiting == 1 else 'wait'} for a decision")
    return Card("Verdict", head, lines, tone)  # type: ignore[arg-type]


def _severity(severity: int) -> str:
    return {"critical": "critical", "warning": "of severity warning", "info": "for information"}.get(
        word(common_pb2.Severity, severity), "of unknown severity"
    )


def _why(report: report_pb2.ShipmentReport) -> Card:
    rows = [row for row in report.exposure.limits if row.excursions]
    if not rows:
        return _why_not(report)
    worst = max(rows, key=lambda row: (row.limit.severity, row.limit.mode != profile_pb2.LIMIT_MODE_MKT, row.violation_us))
    metric = worst.limit.metric
    head = f"{_crossed(worst)}"
    if worst.HasField("extreme"):
        head += f", {'up' if _above(worst) else 'down'} to {value(worst.extreme, metric)}"
    lines = [f"Limit {worst.limit.limit_id}: {rule(worst.limit)}"]
    if worst.HasField("extreme"):
        lines.append(f"Worst on {when(worst.extreme_time)}")
    others = [row.limit.limit_id for row in rows if row is not worst]
    if others:
        lines.append(f"Also broken: {', '.join(others)}")
    late = sum(one.found_late for one in _standing(report))
    if late:
        lines.append(f"{plural(late, 'excursion')} found by late data or a correction")
    return Card("Why", head, lines, "bad")


def _above(row: exposure_pb2.LimitExposure) -> bool:
    return row.limit.direction == profile_pb2.DIRECTION_ABOVE


def _crossed(row: exposure_pb2.LimitExposure) -> str:
    side = "Above" if _above(row) else "Below"
    if row.limit.mode == profile_pb2.LIMIT_MODE_MKT:
        return f"MKT {side.lower()} {value(row.limit.threshold, row.limit.metric)}"
    subject = "" if row.limit.metric == TEMPERATURE else f"{metric_title(row.limit.metric)} "
    text = f"{subject}{side.lower() if subject else side} {row.limit.threshold:g}".replace("-", "−")
    return f"{text} {unit(row.limit.metric)}".strip() + f" for {lasting(row.violation_us)}"


def _why_not(report: report_pb2.ShipmentReport) -> Card:
    if report.exposure.verdict == common_pb2.VERDICT_NO_DATA:
        return Card("Why", "Nothing was judged", ["No reading under any limit has come in"], "warn")
    used = [(row.violation_us / (row.limit.allowance_s * 1e6), row) for row in report.exposure.limits if row.limit.allowance_s]
    lines = []
    if used:
        part, row = max(used, key=lambda pair: pair[0])
        if part > 0:
            lines.append(f"Nearest: {row.limit.limit_id}, {lasting(row.violation_us)} of {lasting(row.limit.allowance_s * 1e6)} used")
        else:
            lines.append("No value was beyond any limit with an allowance")
    retracted = len(report.excursions) - len(_standing(report))
    if retracted:
        lines.append(f"{plural(retracted, 'excursion')} retracted since: see Excursions")
    return Card("Why", "No limit was broken", lines, "good")


def _standing(report: report_pb2.ShipmentReport) -> list[exposure_pb2.Excursion]:
    return [one for one in report.excursions if one.state != exposure_pb2.EXCURSION_STATE_RETRACTED]


def _uncertain(report: report_pb2.ShipmentReport) -> Card:
    lines = [remark[:1].upper() + remark[1:] for remark in report.exposure.remarks]
    unmeasured = [row.limit.limit_id for row in report.exposure.limits if not row.readings]
    if unmeasured and report.exposure.verdict != common_pb2.VERDICT_NO_DATA:
        lines.insert(0, f"Never measured: {', '.join(unmeasured)}")
    failed = sum(line.failed for line in report.lines)
    if failed:
        lines.append(f"{plural(failed, 'value')} excluded: the sensor failed its tests")
    if not report.exposure.closed and report.exposure.verdict != common_pb2.VERDICT_NO_DATA:
        lines.append(f"Judged until {when(report.exposure.judged_until_time)}; later readings will change it")
    numbered = {one.custody_id for one in report.exposure.completeness}
    unnumbered = {one.tag_id for one in report.custodies if not one.retracted and one.custody_id not in numbered}
    if unnumbered:
        lines.append(f"{plural(len(unnumbered), 'tag')} without sequence numbers: loss of readings shows only as gaps")
    if not lines:
        return Card("What is uncertain", "Nothing known", ["Covered the whole way, no reading missing"], "good")
    covered = max((row.uncovered_us for row in report.exposure.limits), default=0)
    if unmeasured:
        head = plural(len(unmeasured), "limit never measured", "limits never measured")
    else:
        head = f"{lasting(covered)} uncovered" if covered >= MINUTE_US else ""
    head = head or plural(len(lines), "thing to know", "things to know")
    return Card("What is uncertain", head, lines, "warn")


# ---------------------------------------------------------------- numbers


def span_us(report: report_pb2.ShipmentReport) -> tuple[int, int]:
    """From the first custody's start to the last one's end, or the newest reading."""
    standing = [one for one in report.custodies if not one.retracted]
    newest = max((line.sensed_at_us[-1] for line in report.lines if line.sensed_at_us), default=0)
    begin = min((us_of(one.from_time) for one in standing), default=us_of(report.made_time))
    ends = [us_of(one.until_time) if one.HasField("until_time") else newest for one in standing]
    return begin, max([begin + MINUTE_US, *ends])


def _numbers(report: report_pb2.ShipmentReport) -> Iterable[Number]:
    begin, end = span_us(report)
    yield Number("On the way", lasting(end - begin), f"since {when(begin)}")
    values = [one for line in report.lines if line.metric == TEMPERATURE for one in line.values]
    if values:
        low, high = value(min(values), TEMPERATURE).removesuffix(" °C"), value(max(values), TEMPERATURE)
        yield Number("Temperature", f"{low} to {high}", "lowest and highest reading")
    mkt = max((row.mkt for row in report.exposure.limits if row.HasField("mkt")), key=lambda one: one.mkt_c, default=None)
    if mkt is not None:
        note = (
            f"over {lasting(mkt.window_us)}" + ("" if mkt.full_window else ", of less data") + ("" if mkt.allowed else "; not for release")
        )
        yield Number("Mean kinetic temp.", value(mkt.mkt_c, TEMPERATURE, 2), note)
    rows = [row for row in report.exposure.limits if row.readings]
    if rows:
        uncovered, covered = max(row.uncovered_us for row in rows), min(row.covered_us for row in rows)
        yield Number(
            "Covered",
            share(covered, covered + uncovered),
            f"{lasting(uncovered)} uncovered, worst tag",
            "warn" if uncovered >= MINUTE_US else "",
        )
    expected = sum(one.expected for one in report.exposure.completeness)
    if expected:
        missing = sum(one.missing for one in report.exposure.completeness)
        yield Number(
            "Readings received", share(expected - missing, expected), f"{missing:,} of {expected:,} missing", "warn" if missing else ""
        )
    else:
        total = sum(line.total for line in report.lines if line.metric == TEMPERATURE)
        yield Number("Readings", f"{total:,}", "without sequence numbers")
    waiting = _waiting(report)
    yield Number("Alerts waiting", str(waiting), f"of {len(report.alerts)}", "warn" if waiting else "")


def _waiting(report: report_pb2.ShipmentReport) -> int:
    return sum(one.state in (alert_pb2.ALERT_STATE_OPEN, alert_pb2.ALERT_STATE_ACKNOWLEDGED) for one in report.alerts)


# ---------------------------------------------------------------- sections


def _sections(report: report_pb2.ShipmentReport, signer: str) -> Iterable[Section | None]:
    yield _journey(report)
    yield from release_plots.metrics(report, span_us(report))
    yield release_tables.exposure(report)
    yield release_tables.excursions(report)
    yield release_tables.decisions(report)
    yield release_tables.custody(report)
    yield release_tables.completeness(report)
    yield release_tables.rules(report)
    yield _provenance(report, signer)


def _journey(report: report_pb2.ShipmentReport) -> Section | None:
    plot = release_plots.journey(report)
    right: list[Part] = []
    if report.shipment.stops:
        rows = [_stop(stop) for stop in report.shipment.stops]
        right.append(Table(columns("Stop*1.5 | Arrived*1.3 | Left*1.3"), rows))
    if report.milestones:
        rows = [
            [Cell(when(one.time)), Cell(word(shipment_pb2.MilestoneKind, one.kind), strong=True), Cell(one.actor or DASH, note=one.note)]
            for one in report.milestones
        ]
        right.append(Table(columns("When*1.3 | What | Who*1.2"), rows))
    units = report.shipment.handling_units
    if units:
        lots = sorted({f"{lot.item_id} lot {lot.lot_number}" for one in units for lot in one.lots})
        more = f" and {len(lots) - 12} more" if len(lots) > 12 else ""
        right.append(Facts([("Goods", f"{plural(len(units), 'handling unit')}: {', '.join(lots[:12])}{more}")]))
    if plot is None:
        return Section("Journey", right, "No positions were measured.") if right else None
    lead = f"{report.total_positions:,} positions." if report.total_positions else "No positions were measured; the map shows the stops."
    return Section("Journey", [Beside([plot], right)] if right else [plot], lead)


def _stop(stop: shipment_pb2.Stop) -> Sequence[Cell]:
    planned = when(stop.planned_arrival_time) if stop.HasField("planned_arrival_time") else ""
    late = planned and stop.HasField("arrived_time") and us_of(stop.arrived_time) > us_of(stop.planned_arrival_time) + MINUTE_US
    behind = f", {lasting(us_of(stop.arrived_time) - us_of(stop.planned_arrival_time))} late" if late else ""
    return [
        Cell(stop.name or stop.stop_id, note=stop.locode, strong=True),
        Cell(when(stop.arrived_time), note=f"planned {planned}{behind}" if planned else "", tone="warn" if late else ""),
        Cell(when(stop.departed_time)),
    ]


def _provenance(report: report_pb2.ShipmentReport, signer: str) -> Section:
    software = report.software
    facts = Facts(
        [
            ("Digest over the data", report.data_sha256.hex()),
            ("Signed with key", signer or "not signed: this Waybill has no key"),
            ("Computed by", f"Waybill {software.waybill}, Python {software.python}, numpy {software.numpy}"),
            ("Newest event", f"{report.last_event_number}"),
        ],
        fixed=True,
    )
    rows = [[Cell(one.kind), Cell(one.name), Cell(f"{one.count:,}"), Cell(one.sha256.hex()[:32])] for one in report.digests]
    heads = columns("Data*0.8 | Of*1.6 | >Records*0.6 | SHA-256, first half*2.2")
    how = (
        "To check this document: waybill report verify FILE. It tells whether every byte is what was signed, by which key, and whether "
        "the database still says the same."
    )
    tells = [
        "A reading holds until the next one, at most for the profile's longest gap; what lies beyond is uncovered and never guessed.",
        "Each tag is judged by itself; the shipment shows the worst of its tags. Excursions are dated from the start of their run.",
        "MKT: ΔH = 83.144 kJ/mol, ΔH/R = 10 000 K, weights are holding times; the largest over all windows of its length.",
    ]
    unsigned = [] if signer else [Words("This document is not signed: anybody could have changed it.", "warn")]
    parts: list[Part] = [
        *unsigned,
        facts,
        Words(how),
        Listing(tells, "dim"),
        Table(heads, rows, f"{plural(len(rows), 'digest')} of parts"),
    ]
    return Section("Where it comes from", parts)
