"""The figures of a release document: the journey's map and a plot of every metric that was judged."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from services.reports import maps
from services.reports.document import Part, Plot, Section
from services.reports.plot import Series, Span, Threshold, time_plot
from services.reports.words import lasting, metric_title, plural, unit, us_of, value, when, word
from waybill.v1 import common_pb2, exposure_pb2, profile_pb2, report_pb2

MOST_LINES = 12
MOST_TRACKS = 8
TEMPERATURE = common_pb2.METRIC_TEMPERATURE_C


def journey(report: report_pb2.ShipmentReport) -> Plot | None:
    """The map with the track; where an excursion held it is thick and red."""
    excursions = [
        (us_of(one.started_time), us_of(one.ended_time) if one.HasField("ended_time") else 2**62)
        for one in report.excursions
        if one.state != exposure_pb2.EXCURSION_STATE_RETRACTED
    ]
    by_tag: dict[str, list[tuple[float, float, bool]]] = {}
    for point in report.positions:
        at = us_of(point.sensed_time)
        hot = any(begin <= at < end for begin, end in excursions)
        by_tag.setdefault(point.tag_id, []).append((point.position.latitude_deg, point.position.longitude_deg, hot))
    tracks = []
    for points in sorted(by_tag.values(), key=len, reverse=True)[:MOST_TRACKS]:
        degrees = np.array([point[:2] for point in points])
        tracks.append(maps.Track(degrees[:, 0], degrees[:, 1], np.array([point[2] for point in points], np.bool_)))
    places = [
        maps.Place(
            stop.name or stop.locode or stop.stop_id, stop.location.latitude_deg, stop.location.longitude_deg, stop.HasField("arrived_time")
        )
        for stop in report.shipment.stops
        if stop.HasField("location")
    ]
    figure = maps.journey_map(tracks, places)
    if figure is None:
        return None
    red = " The thick red part of the track is where an excursion held." if any(track.hot.any() for track in tracks) else ""
    return Plot(figure, f"Track of {plural(len(by_tag), 'tag')}.{red}" if by_tag else "The planned stops.", framed=True)


def metrics(report: report_pb2.ShipmentReport, span_us: tuple[int, int]) -> Iterable[Section]:
    """A section for temperature, and for each other metric with limits."""
    present = dict.fromkeys(line.metric for line in report.lines)
    for metric in sorted(present, key=lambda one: (one != TEMPERATURE, one)):
        part = _metric(report, metric, span_us)
        if part is not None:
            yield Section(f"{metric_title(metric)} over time", [part])


def _metric(report: report_pb2.ShipmentReport, metric: int, span_us: tuple[int, int]) -> Part | None:
    lines = [line for line in report.lines if line.metric == metric and line.sensed_at_us]
    if not lines:
        return None
    rows = [row for row in report.exposure.limits if row.limit.metric == metric]
    tag_id = _worst_tag(rows, lines)
    others = [line for line in lines if line.tag_id != tag_id][:MOST_LINES]
    mine = [line for line in lines if line.tag_id == tag_id]
    series = [
        Series(np.array(line.sensed_at_us), np.array(line.values), style, tuple(gap.from_us for gap in line.gaps))
        for style, part in (("other", others), ("value", mine))
        for line in part
    ]
    low, high = min(one.values.min() for one in series), max(one.values.max() for one in series)
    reach = max(8.0, 1.2 * (high - low)) if metric == TEMPERATURE else max(1e-6, 2.0 * (high - low))
    drawn: list[profile_pb2.Limit] = []
    beyond: list[profile_pb2.Limit] = []
    for row in rows:
        if row.limit.mode != profile_pb2.LIMIT_MODE_MKT:
            near = low - reach <= row.limit.threshold <= high + reach
            (drawn if near else beyond).append(row.limit)
    spans = [*_excursions(report, metric, span_us[1])]
    spans += [
        Span(gap.from_us, gap.until_us, "gap", f"no reading for {lasting(gap.until_us - gap.from_us)}")
        for line in mine
        for gap in line.gaps
    ]
    measured = [row for row in rows if row.excursions and row.HasField("extreme") and row.limit.mode != profile_pb2.LIMIT_MODE_MKT]
    worst = max(measured, key=lambda row: row.violation_us, default=None)
    peak = None
    if worst is not None:
        peak = (us_of(worst.extreme_time), worst.extreme, f"{value(worst.extreme, metric)}")
    figure = time_plot(
        series,
        span_us,
        unit=unit(metric),
        limits=[Threshold(one.threshold, one.limit_id) for one in drawn],
        spans=spans,
        stages=[(us_of(one.from_time), word(common_pb2.Stage, one.stage)) for one in report.stages],
        peak=peak,
    )
    said = [f"Blue: tag {tag_id}" + (f", grey: {plural(len({line.tag_id for line in others}), 'other tag')}" if others else "")]
    if drawn:
        said.append("dashed: limits")
    if any(one.style == "excursion" for one in spans):
        said.append("red: excursions")
    if any(one.style == "mkt" for one in spans):
        said.append("red band at the top: excursions of the mean kinetic temperature")
    if any(one.style == "gone" for one in spans):
        said.append("grey areas: excursions that were retracted")
    if any(one.style == "gap" for one in spans):
        said.append("yellow: no reading of this tag")
    if beyond:
        said.append("off the chart: " + ", ".join(f"{one.limit_id} at {value(one.threshold, metric, 0)}" for one in beyond))
    return Plot(figure, "; ".join(said) + ".")


def _worst_tag(rows: Iterable[exposure_pb2.LimitExposure], lines: list[report_pb2.MetricLine]) -> str:
    """The tag with the most excursions and time in violation; without any, the one with the most readings."""
    there = {line.tag_id for line in lines}
    scores: dict[str, tuple[int, int]] = {}
    for row in rows:
        for tag in row.tags:
            if tag.tag_id in there:
                known = scores.get(tag.tag_id, (0, 0))
                scores[tag.tag_id] = (known[0] + tag.excursions, known[1] + tag.violation_us)
    if any(score > (0, 0) for score in scores.values()):
        return max(sorted(scores), key=lambda tag_id: scores[tag_id])
    return max(lines, key=lambda line: line.total).tag_id


def _excursions(report: report_pb2.ShipmentReport, metric: int, end_us: int) -> Iterable[Span]:
    """Stretches in which excursions held, whatever their tag: overlapping ones are one."""
    found: dict[str, list[tuple[int, int, str]]] = {}
    for one in report.excursions:
        if one.metric == metric:
            gone, mkt = one.state == exposure_pb2.EXCURSION_STATE_RETRACTED, one.mode == profile_pb2.LIMIT_MODE_MKT
            until_us = us_of(one.ended_time) if one.HasField("ended_time") else end_us
            title = f"{one.limit_id}, tag {one.tag_id}: from {when(one.started_time)}, {lasting(one.violation_us)} in violation"
            found.setdefault("gone" if gone else "mkt" if mkt else "excursion", []).append((us_of(one.started_time), until_us, title))
    for style, stretches in found.items():
        joined: list[tuple[int, int, list[str]]] = []
        for from_us, until_us, title in sorted(stretches):
            if joined and from_us <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(until_us, joined[-1][1]), [*joined[-1][2], title])
            else:
                joined.append((from_us, until_us, [title]))
        for from_us, until_us, titles in joined:
            yield Span(from_us, until_us, style, "\n".join(titles) + ("\nretracted since" if style == "gone" else ""))
