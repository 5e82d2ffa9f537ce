"""Where a carrier has been: positions of its tags, thinned for people, visits to fences, stops made, stretches off its route."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.journal.tables import Custody, Stop, Visit
from actors.rules import geofence, route, stops
from actors.rules.plan import Plan
from actors.rules.readings import ACCURACY, FOREVER_US, LATITUDE, LONGITUDE, SPEED, Batch
from services import check, records
from waybill.v1 import common_pb2, shipment_pb2, telemetry_pb2

MOST_POSITIONS = 10_000
USUAL_POSITIONS = 1_000

F8 = npt.NDArray[np.float64]


def most_positions(asked: int) -> int:
    """How many positions to show at most."""
    return min(asked or USUAL_POSITIONS, MOST_POSITIONS)


def answer(
    rides: Sequence[tuple[Custody, Batch, Batch]],
    visits: Sequence[Visit],
    plan: Plan,
    planned: Sequence[Stop],
    span: tuple[int, int],
    most: int,
) -> shipment_pb2.GetTrackResponse:
    """The track in `span` [from_us, until_us). `rides`: custodies with their tags' readings in judging order, all of
    them and without what is flagged fail: that is shown, and makes no stop and no deviation."""
    message = shipment_pb2.GetTrackResponse()
    fixes = [(custody, *_fixes(batch)) for custody, batch, _ in rides]
    counting = [(custody, *_fixes(usable)) for custody, _, usable in rides]
    inside = [(custody, batch, rows[_within(batch.sensed_us[rows], span)]) for custody, batch, rows in fixes]
    message.total_positions = sum(len(rows) for _, _, rows in inside)
    share = max(2, most // max(1, sum(bool(len(rows)) for _, _, rows in inside)))
    points = [(int(batch.sensed_us[row]), custody.tag_id, batch, row) for custody, batch, rows in inside for row in _thinned(rows, share)]
    points.sort(key=lambda one: one[:2])
    message.positions.extend(_point(batch, row, tag_id) for _, tag_id, batch, row in points)
    if points:
        message.last.CopyFrom(message.positions[-1])
    stop_ids = {stop.fence_id: stop.stop_id for stop in planned if stop.fence_id}
    found = [*_visits(visits, stop_ids), *_stops_made(counting), *_off_route(counting, plan)]
    shown = [one for one in found if _touches(one, span)]
    message.visits.extend(sorted(shown, key=lambda one: (one.entered_time.seconds, one.entered_time.nanos, one.kind, one.tag_id)))
    return message


def _fixes(batch: Batch) -> tuple[Batch, npt.NDArray[np.int64]]:
    """The rows of a batch that have a position."""
    return batch, np.flatnonzero(~np.isnan(_column(batch, LATITUDE)))


def _column(batch: Batch, code: int) -> F8:
    """The values of a column; NaN where the batch has none."""
    return batch.values[batch.codes.index(code)] if code in batch.codes else np.full(len(batch), np.nan)


def _within(sensed_us: npt.NDArray[np.int64], span: tuple[int, int]) -> npt.NDArray[np.bool_]:
    return (sensed_us >= span[0]) & (sensed_us < span[1])


def _thinned(rows: npt.NDArray[np.int64], most: int) -> list[int]:
    """At most so many rows, evenly, the first and the last always among them."""
    if len(rows) > most:
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, most).round().astype(np.int64))]
    return [int(row) for row in rows]


def _point(batch: Batch, row: int, tag_id: str) -> shipment_pb2.TrackPoint:
    accuracy, speed = (_column(batch, code)[row] for code in (ACCURACY, SPEED))
    position = telemetry_pb2.Position(
        latitude_deg=_column(batch, LATITUDE)[row],
        longitude_deg=_column(batch, LONGITUDE)[row],
        gps_accuracy_m=None if np.isnan(accuracy) else accuracy,
        speed_mps=None if np.isnan(speed) else speed,
    )
    return shipment_pb2.TrackPoint(sensed_time=check.timestamp(int(batch.sensed_us[row])), position=position, tag_id=tag_id)


def _visits(rows: Iterable[Visit], stop_ids: dict[str, str]) -> list[common_pb2.Visit]:
    """The carrier's visits to each fence are the union of its tags'; passes through are those of each tag."""
    by_fence: dict[str, list[Visit]] = {}
    found = []
    for row in rows:
        if row.kind == "VISIT" and row.fence_id:
            by_fence.setdefault(row.fence_id, []).append(row)
        else:
            found.append(records.visit(row.model_dump(), stop_ids))
    for fence_id, mine in by_fence.items():
        tags = {row.tag_id for row in mine}
        spans = [(row.entered_us, FOREVER_US if row.exited_us is None else row.exited_us) for row in mine]
        for entered_us, left_us in geofence.union(spans):
            found.append(
                common_pb2.Visit(
                    kind=common_pb2.VISIT_KIND_VISIT,
                    fence_id=fence_id,
                    stop_id=stop_ids.get(fence_id, ""),
                    tag_id=next(iter(tags)) if len(tags) == 1 else "",
                    entered_time=check.timestamp(entered_us),
                    left_time=None if left_us == FOREVER_US else check.timestamp(left_us),
                )
            )
    return found


Fixes = Sequence[tuple[Custody, Batch, npt.NDArray[np.int64]]]


def _stops_made(rides: Fixes) -> list[common_pb2.Visit]:
    """Where each tag stood still. A stop that lasts has no end yet."""
    found = []
    for custody, batch, rows in rides:
        if len(rows):
            begun = stops.fresh(1, custody.from_us)
            latitude, longitude = _column(batch, LATITUDE)[rows], _column(batch, LONGITUDE)[rows]
            _, events = stops.judge(batch.sensed_us[rows], latitude, longitude, begun, until_us=custody.until_us)
            found.extend(_spans(events, "STOP", custody.tag_id, stops.BEGAN, stops.ENDED))
    return found


def _off_route(rides: Fixes, plan: Plan) -> list[common_pb2.Visit]:
    """Where each tag was off the planned way."""
    if plan.route is None:
        return []
    table = route.RouteTable()
    way = table.add(route.Route(plan.route.points, plan.route.tolerance_m, plan.route.hold_us))
    found = []
    for custody, batch, rows in rides:
        if len(rows):
            begun = route.fresh([way], custody.from_us)
            latitude, longitude = _column(batch, LATITUDE)[rows], _column(batch, LONGITUDE)[rows]
            _, events = route.judge(batch.sensed_us[rows], latitude, longitude, begun, table, until_us=custody.until_us)
            found.extend(_spans(events, "OFF_ROUTE", custody.tag_id, route.OFF_ROUTE, route.BACK_ON_ROUTE))
    return found


def _spans(events: Any, kind: str, tag_id: str, began: int, ended: int) -> list[common_pb2.Visit]:
    """Stretches that ended, and the one that lasts: each begin is followed by its end or by nothing."""
    names = events.dtype.names or ()
    found = []
    for k, event in enumerate(events):
        lasts = event["kind"] == began and not any(later["kind"] == ended for later in events[k + 1 :])
        if event["kind"] != ended and not lasts:
            continue
        row = {
            "kind": kind,
            "fence_id": None,
            "tag_id": tag_id,
            "entered_us": int(event["from_us"]),
            "exited_us": None if lasts else int(event["to_us"]),
            "latitude_deg": float(event["latitude_deg"]) if "latitude_deg" in names else None,
            "longitude_deg": float(event["longitude_deg"]) if "longitude_deg" in names else None,
            "distance_m": float(event["extreme_m"]) if "extreme_m" in names else None,
        }
        found.append(records.visit(row))
    return found


def _touches(visit: common_pb2.Visit, span: tuple[int, int]) -> bool:
    """Whether a visit overlaps the span."""
    ends_us = visit.left_time.ToMicroseconds() if visit.HasField("left_time") else FOREVER_US
    return visit.entered_time.ToMicroseconds() < span[1] and ends_us >= span[0]
