"""The report of a replay: what would change, or what does not come out as it was recorded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.replay import result
from cluster.replay.result import Result
from cluster.reports.journeys import Journey
from services.reports import html, maps
from services.reports.document import Beside, Card, Cell, Document, Facts, Number, Part, Plot, Section, Table, Tone, Words, columns
from services.reports.plot import Series, Span, Threshold, day_bars, time_plot
from services.reports.words import DASH, lasting, plural, when

MOST_ROWS = 200
MOST_PLOTS = 8
VERDICTS = {result.WITHIN_LIMITS: "within limits", result.EXCURSION_VERDICT: "excursion", result.NO_DATA: "no data"}
KINDS = {
    result.VERIFY: "Replay: verification",
    result.ARRIVAL: "Replay: verification in order of arrival",
    result.WHAT_IF: "Replay: what if",
    result.LIVE: "Replay: live",
}
BADNESS = {result.NO_DATA: 0, result.WITHIN_LIMITS: 1, result.EXCURSION_VERDICT: 2}
US = 1_000_000


def page(found: Result, differences: pa.Table, shipments: pa.Table, journeys: Mapping[str, Journey] | None = None) -> bytes:
    """The report as one HTML file. journeys: of the shipments to plot (see `to_plot`)."""
    return html.render(document(found, differences.to_pylist(), shipments.to_pylist(), journeys or {}), b"")


def to_plot(differences: pa.Table, shipments: pa.Table) -> list[str]:
    """The shipments worth a plot: those whose verdict changes, then those with the most differences of excursions."""
    excursions = differences.filter(pc.equal(differences.column("subject"), result.EXCURSION))
    counts = Counter(excursions.column("shipment_id").to_pylist())
    changed = pc.not_equal(shipments.column("before_verdict"), shipments.column("after_verdict"))
    turned = shipments.filter(changed).column("shipment_id").to_pylist()
    return list(dict.fromkeys([*sorted(turned, key=lambda one: -counts[one]), *(one for one, _ in counts.most_common())]))[:MOST_PLOTS]


def document(
    found: Result, differences: list[dict[str, Any]], shipments: list[dict[str, Any]], journeys: Mapping[str, Journey]
) -> Document:
    """The report as plain data."""
    what_if = found.kind == result.WHAT_IF
    turned = [row for row in shipments if row["before_verdict"] != row["after_verdict"]]
    sections = [
        _alerts(shipments) if what_if else None,
        _turned(turned, what_if),
        _plots(differences, journeys, what_if),
        _excursions(differences),
        _others(differences),
        _asked(found),
        _provenance(found),
    ]
    rate = f"{found.readings_per_s / 1e6:.1f} million readings a second" if found.readings_per_s > 1e5 else ""
    return Document(
        kind=KINDS.get(found.kind, "Replay"),
        title=_title(found, differences, shipments, turned),
        subtitle=" · ".join(part for part in (f"replay {found.replay_id}", found.state.lower(), rate) if part),
        made=f"Finished {when(found.finished_us)} UTC by Waybill {found.versions.get('waybill', '')}".strip(),
        note="Before: as recorded. After: by the other rules." if what_if else "Before: as recorded. After: as the replay gives it.",
        cards=_cards(found, differences, shipments, turned),
        numbers=list(_numbers(found, shipments)),
        sections=[section for section in sections if section is not None],
    )


# ---------------------------------------------------------------- the top


def _title(found: Result, differences: list[dict[str, Any]], shipments: list[dict[str, Any]], turned: list[dict[str, Any]]) -> str:
    if found.state != result.SUCCEEDED:
        return f"It {'was cancelled' if found.state == result.CANCELLED else 'failed' if found.state == result.FAILED else 'is running'}"
    if found.kind == result.WHAT_IF:
        return f"{len(turned):,} of {plural(len(shipments), 'shipment')} would be judged otherwise"
    if not differences:
        return f"{plural(len(shipments), 'shipment')}: the same again"
    return f"{plural(len(differences), 'difference')} in {plural(len({row['shipment_id'] for row in differences}), 'shipment')}"


def _cards(found: Result, differences: list[dict[str, Any]], shipments: list[dict[str, Any]], turned: list[dict[str, Any]]) -> list[Card]:
    if found.error:
        return [Card("Error", "It did not succeed", [found.error], "bad")]
    excursions = Counter(row["change"] for row in differences if row["subject"] == result.EXCURSION)
    said = [f"{excursions[change]:,} {word}" for change, word in (("appeared", "appear"), ("vanished", "vanish"), ("changed", "change"))]
    if found.kind != result.WHAT_IF:
        subjects = Counter(row["subject"] for row in differences)
        head, tone = ("Identical", "good") if not differences else (plural(len(differences), "difference"), "bad")
        lines = [plural(count, f"{subject} difference") for subject, count in subjects.most_common()] or [
            "Every event and sum comes out as recorded"
        ]
        named = sorted({row["shipment_id"] for row in differences})
        where = Card(
            "Where", plural(len(named), "shipment"), named[:6] + (["and more"] if len(named) > 6 else []), "bad" if named else "good"
        )
        return [Card("Verdict", head, lines, tone), where]  # type: ignore[arg-type]
    worse = [row for row in turned if BADNESS[row["after_verdict"]] > BADNESS[row["before_verdict"]]]
    better = len(turned) - len(worse)
    ways = Counter((row["before_verdict"], row["after_verdict"]) for row in turned)
    lines = [f"{count:,} from {VERDICTS[a]} to {VERDICTS[b]}" for (a, b), count in ways.most_common()]
    tone = "bad" if worse else "warn" if better else "good"
    verdicts = Card("Verdicts", plural(len(turned), "verdict changes", "verdicts change"), lines or ["None changes"], tone)  # type: ignore[arg-type]
    lots = sorted({lot for row in shipments for lot in row["lots_affected"] or ()})
    before, after = (sum(row[f"{side}_alerts"] or 0 for row in shipments) for side in ("before", "after"))
    return [
        verdicts,
        Card(
            "Excursions",
            " · ".join(said[:2]),
            [
                said[2],
                f"{sum(row['before_excursions'] or 0 for row in shipments):,} before, "
                f"{sum(row['after_excursions'] or 0 for row in shipments):,} after",
            ],
            "warn" if sum(excursions.values()) else "good",
        ),
        Card(
            "Alerts and lots",
            f"{after - before:+,} alerts".replace("-", "−") if after != before else "As many alerts",
            [
                f"{before:,} before, {after:,} after",
                f"{plural(len(lots), 'lot')} touched{': ' + ', '.join(lots[:4]) if lots else ''}" + (" and more" if len(lots) > 4 else ""),
            ],
            "warn" if after > before or lots else "good",
        ),
    ]


def _numbers(found: Result, shipments: list[dict[str, Any]]) -> Iterable[Number]:
    yield Number("Shipments", f"{len(shipments):,}", f"{found.counts.get('custodies', 0):,} custodies")
    yield Number("Readings", f"{found.counts.get('readings', 0):,}", f"in {found.elapsed_s:.1f} s")
    for side in ("before", "after"):
        broken = sum(row[f"{side}_verdict"] == result.EXCURSION_VERDICT for row in shipments)
        yield Number(f"With excursions {side}", f"{broken:,}", f"of {len(shipments):,}")
    per_day = found.summary.get("alerts_per_day")
    if per_day:
        yield Number("Alerts a day", f"{per_day['before']:.1f} to {per_day['after']:.1f}", f"over {found.summary.get('days', 0):.0f} days")


# ---------------------------------------------------------------- sections


def _alerts(shipments: list[dict[str, Any]]) -> Section | None:
    """Alerts by the day on which the shipment's last reading lies."""
    days: dict[str, list[int]] = {}
    for row in sorted((one for one in shipments if one["last_sensed_at"] is not None), key=lambda one: one["last_sensed_at"]):
        sums = days.setdefault(f"{row['last_sensed_at']:%d %b %y}".lstrip("0"), [0, 0])
        sums[0] += row["before_alerts"] or 0
        sums[1] += row["after_alerts"] or 0
    if not any(sum(sums) for sums in days.values()):
        return None
    figure = day_bars(list(days), [sums[0] for sums in days.values()], [sums[1] for sums in days.values()])
    return Section("Alerts by day", [Plot(figure, "Alerts of the shipments that ended on a day. Grey: before, blue: after.")])


def _turned(turned: list[dict[str, Any]], what_if: bool) -> Section | None:
    if not turned:
        return None
    rows = []
    for row in sorted(turned, key=lambda one: (-BADNESS[one["after_verdict"]], one["shipment_id"]))[:MOST_ROWS]:
        worse = BADNESS[row["after_verdict"]] > BADNESS[row["before_verdict"]]
        lots = ", ".join((row["lots_affected"] or [])[:4]) or DASH
        rows.append([
            Cell(row["shipment_id"], strong=True), Cell(VERDICTS[row["before_verdict"]]),
            Cell(VERDICTS[row["after_verdict"]], "bad" if worse else "good", strong=True),
            Cell(f"{row['before_excursions']} to {row['after_excursions']}"), Cell(f"{row['before_alerts']} to {row['after_alerts']}"),
            Cell(DASH if row["mkt_c"] is None else f"{row['mkt_c']:.2f} °C"), Cell(f"{row['readings']:,}"), Cell(lots),
        ])  # fmt: skip
    heads = columns("Shipment*1.8 | Before | After | >Excursions | >Alerts*0.8 | >MKT*0.8 | >Readings*0.8 | Lots*1.4")
    more = f" The first {MOST_ROWS} of {len(turned):,}." if len(turned) > MOST_ROWS else ""
    lead = f"{'Worst first' if what_if else 'By shipment'}.{more}"
    return Section("Shipments whose verdict changes", [Table(heads, rows)], lead)


def _us(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp()) * US + moment.microsecond


def _plots(differences: list[dict[str, Any]], journeys: Mapping[str, Journey], what_if: bool) -> Section | None:
    parts: list[Part] = []
    for shipment_id, journey in journeys.items():
        mine = [row for row in differences if row["shipment_id"] == shipment_id and row["subject"] == result.EXCURSION]
        parts += _journey(shipment_id, journey, mine, what_if)
    lead = "Grey areas: excursions before; red areas: after. Dashed grey: limits before; dashed red: after."
    return Section("Before and after", parts, lead) if parts else None


def _journey(shipment_id: str, journey: Journey, mine: list[dict[str, Any]], what_if: bool) -> Iterable[Part]:
    lines = [line for line in journey.lines if np.isfinite(line.values).any()]
    if not lines:
        return
    tags = Counter(row["tag_id"] for row in mine)
    first = max(lines, key=lambda line: (tags[line.tag_id], len(line.values)))
    span = min(int(line.times_us[0]) for line in lines), max(int(line.times_us[-1]) for line in lines)
    series = []
    for line in lines[:12]:
        counts = np.isfinite(line.values)
        series.append(Series(line.times_us[counts], line.values[counts], "value" if line.tag_id == first.tag_id else "other"))
    spans = []
    for side, style in (("before", "gone"), ("after", "excursion")):
        for row in mine:
            begin = _us(row[f"{side}_started_at"])
            if begin is not None:
                title = f"{side}: {row['name']}, tag {row['tag_id']}, {lasting(row[f'{side}_violation_us'] or 0)} in violation"
                spans.append(Span(begin, _us(row[f"{side}_ended_at"]) or span[1], style, title))
    low, high = (float(f(one.values)) for f, one in ((np.min, series[0]), (np.max, series[0])))
    low, high = min([low, *(float(one.values.min()) for one in series)]), max([high, *(float(one.values.max()) for one in series)])
    reach = max(8.0, 1.2 * (high - low))
    limits = [Threshold(value, name) for name, value in journey.after if low - reach <= value <= high + reach]
    new = {(one.name, one.value) for one in limits}
    old = [Threshold(value, f"{name} before", "limit-old") for name, value in journey.before if (name, value) not in new]
    limits += [one for one in old if what_if and low - reach <= one.value <= high + reach]
    yield Words(f"{shipment_id}: {plural(len(mine), 'difference')} of excursions")
    track = _track(lines, spans)
    width, height = (960.0, 240.0) if track is None else (560.0, 340.0)
    figure = time_plot(series, span, unit="°C", limits=limits, spans=spans, width=width, height=height)
    plot = Plot(figure, f"Blue: tag {first.tag_id}.")
    yield plot if track is None else Beside([plot], [track])


def _track(lines: list[Any], spans: list[Span]) -> Plot | None:
    tracks = []
    for line in lines[:8]:
        there = np.isfinite(line.latitude_deg)
        if there.any():
            times = line.times_us[there]
            hot = np.zeros(len(times), np.bool_)
            for one in spans:
                if one.style == "excursion":
                    hot |= (times >= one.from_us) & (times < one.until_us)
            tracks.append(maps.Track(line.latitude_deg[there], line.longitude_deg[there], hot))
    figure = maps.journey_map(tracks, [])
    return None if figure is None else Plot(figure, "Track; red: in an excursion after.", framed=True)


def _excursions(differences: list[dict[str, Any]]) -> Section | None:
    rows = [row for row in differences if row["subject"] == result.EXCURSION]
    if not rows:
        return None
    order = {result.APPEARED: 0, result.VANISHED: 1, result.CHANGED: 2}
    rows.sort(key=lambda row: (order[row["change"]], row["shipment_id"], row["tag_id"]))
    tones: dict[str, Tone] = {result.APPEARED: "bad", result.VANISHED: "good", result.CHANGED: "warn"}
    told = [
        [
            Cell(row["change"], tones[row["change"]], strong=True, note=row["fields"] or ""),
            Cell(row["shipment_id"], strong=True, note=row["tag_id"]),
            Cell(row["name"], note=(row["severity"] or "").lower()), *_side(row, "before"), *_side(row, "after"),
        ]
        for row in rows[:MOST_ROWS]
    ]  # fmt: skip
    heads = columns(
        "Change | Shipment and tag*1.7 | Limit | Before: from*1.5 | >For*0.9 | >Worst*0.9 | After: from*1.5 | >For*0.9 | >Worst*0.9"
    )
    more = f"The first {MOST_ROWS} of {len(rows):,}; all are in {result.DIFFERENCES_FILE}." if len(rows) > MOST_ROWS else ""
    return Section("Excursions", [Table(heads, told)], more)


def _side(row: Mapping[str, Any], side: str) -> list[Cell]:
    begin = _us(row[f"{side}_started_at"])
    if begin is None:
        return [Cell(DASH), Cell(""), Cell("")]
    extreme = row[f"{side}_extreme"]
    return [Cell(when(begin)), Cell(lasting(row[f"{side}_violation_us"] or 0)), Cell(DASH if extreme is None else f"{extreme:.2f}")]


def _others(differences: list[dict[str, Any]]) -> Section | None:
    """Sums, MKT, visits, readings: what is no excursion."""
    rows = [row for row in differences if row["subject"] != result.EXCURSION]
    if not rows:
        return None
    told = []
    for row in rows[:MOST_ROWS]:
        names = [name for name in (row["fields"] or "").split(",") if name]
        values = "; ".join(f"{name}: {_text(row.get(f'before_{name}'))} to {_text(row.get(f'after_{name}'))}" for name in names)
        told.append([Cell(row["subject"], strong=True), Cell(row["change"]), Cell(row["shipment_id"], note=row["tag_id"] or ""),
                     Cell(row["name"] or DASH), Cell(values or DASH)])  # fmt: skip
    more = f"The first {MOST_ROWS} of {len(rows):,}." if len(rows) > MOST_ROWS else ""
    return Section("Other differences", [Table(columns("What*0.8 | Change*0.8 | Shipment and tag*1.6 | Name | Facts*3"), told)], more)


def _text(value: Any) -> str:
    return when(_us(value)) if isinstance(value, datetime) else DASH if value is None else f"{value}"


def _asked(found: Result) -> Section:
    rules = found.parameters.get("rules") or {}
    pairs = [(name.replace("_", " "), json.dumps(value)) for name, value in found.parameters.items() if name != "rules" and value]
    pairs += [(f"other {name}", json.dumps(value)) for name, value in rules.items()]
    return Section("What was asked", [Facts(pairs, fixed=True)] if pairs else [Words("Everything, by the recorded rules.")])


def _provenance(found: Result) -> Section:
    versions = ", ".join(f"{name} {version}" for name, version in sorted(found.versions.items()))
    pairs = [
        ("Digest over the result", found.digest or DASH),
        ("Versions", versions or DASH),
        ("Counts", json.dumps(found.counts, sort_keys=True)),
    ]
    return Section("Where it comes from", [Facts(pairs, fixed=True)])
