"""Gathers everything that a release document shows: one ShipmentReport, from the shards and the database."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from actors.journal import queries_business as queries
from actors.journal import queries_doors, queries_stock
from actors.journal.queries_business import ShipmentRecord, shipment_carrier
from actors.journal.tables import Excursion, Profile
from actors.rules.plan import Plan
from actors.rules.readings import FAIL, FOREVER_US, POSITION, Batch
from services import alerts, carriers, check, exposure, records, stock_records, track
from services.backend import Backend, Context
from services.exposure import Ride
from services.reports import digest
from services.reports.plot import thinned
from services.tags import custody_message
from waybill.v1 import alert_pb2, common_pb2, exposure_pb2, inventory_pb2, report_pb2, shipment_pb2

MOST = 10_000
"""Custodies, excursions, visits, alerts of one shipment: as many as the other RPCs take into account."""
LINE_POINTS, ALL_POINTS, FEWEST_POINTS = 1_200, 120_000, 40
"""Readings that a line keeps, and all lines together; a line keeps FEWEST_POINTS whatever their number."""
MAP_POINTS = 2_000
MOST_GAPS = 200
USUAL_GAP_US = 3_600_000_000


@cache
def software() -> report_pb2.Software:
    """What computes reports here."""
    try:
        ours = version("waybill")
    except PackageNotFoundError:  # run from a checkout that was never installed
        ours = "unknown"
    return report_pb2.Software(waybill=ours, python=platform.python_version(), numpy=np.__version__)


async def gather(backend: Backend, record: ShipmentRecord, now_us: int, context: Context) -> report_pb2.ShipmentReport:
    """The report of a shipment that exists, as of everything acknowledged before this call; its stops' arrivals as their records say."""
    carrier = shipment_carrier(record.shipment.shipment_id)
    sums = await carriers.ask_all(backend, "tag.exposure", {"carrier": carrier}, context)
    row = await backend.read(queries.plan, carrier)
    plan = Plan(carrier, 0, "open") if row is None else Plan.from_data(row.body)
    custodies = await backend.read(queries.custodies, carrier, limit=MOST, retracted=True)
    histories = await backend.read(queries_doors.custody_histories, [one.custody_id for one in custodies])
    standing = [one for one in custodies if not one.retracted]
    excursions = await backend.read(queries.excursions, carrier, limit=MOST, retracted=True)
    held = [one for one in excursions if one.state != "RETRACTED"]
    rides = await asyncio.gather(*(exposure.ride(backend, one, context) for one in standing))
    judged = await asyncio.to_thread(exposure.summary, plan, standing, rides, sums, held)
    visits = await backend.read(queries.visits, carrier, limit=MOST)
    visited = await backend.read(queries.visited_fences, [carrier])
    arrivals = {fence: entered_us for (_, fence), entered_us in visited.items()}
    shown = records.shipment(record, arrivals)
    report = report_pb2.ShipmentReport(
        made_time=check.timestamp(now_us),
        software=software(),
        shipment=shown,
        exposure=judged,
        excursions=await _excursions(backend, excursions, carrier, context),
        alerts=await _alerts(backend, carrier),
        holds=await _holds(backend, record.shipment.shipment_id, shown),
        milestones=[records.milestone(one, record.stops) for one in record.milestones],
        custodies=[custody_message(one, histories.get(one.custody_id, ())) for one in custodies],
        profiles=await _profiles(backend, plan),
        stages=[
            report_pb2.StageSpan(from_time=check.timestamp(max(0, at_us)), stage=check.number(common_pb2.Stage, stage))
            for at_us, stage in plan.stages
        ],
        last_event_number=await backend.read(queries_doors.newest_event, carrier),
    )
    pairs = [(one.custody, one.batch, one.usable) for one in rides]
    found = await asyncio.to_thread(track.answer, pairs, visits, plan, record.stops, (0, FOREVER_US), MAP_POINTS)
    report.positions.extend(found.positions)
    report.total_positions = found.total_positions
    report.visits.extend(found.visits)
    await asyncio.to_thread(_readings, report, plan, rides)
    _digests(report, plan)
    return report


async def _excursions(backend: Backend, rows: Sequence[Excursion], carrier: str, context: Context) -> list[exposure_pb2.Excursion]:
    """Excursions with their revisions; open ones as they stand now."""
    revisions = await backend.read(queries.excursion_revisions, [row.excursion_id for row in rows])
    now = await carriers.open_now(backend, carrier, context) if any(row.state == "CONFIRMED" for row in rows) else {}
    found = []
    for row in rows:
        before = [one.model_dump() for one in revisions.get(row.excursion_id, []) if one.revision < row.revision]
        found.append(records.excursion(row.model_dump() | now.get(row.excursion_id, {}), before))
    return found


async def _alerts(backend: Backend, carrier: str) -> list[alert_pb2.Alert]:
    rows = await backend.read(queries_doors.alerts, limit=MOST, carriers=[carrier])
    found = []
    for row in sorted(rows, key=lambda one: (one.raised_us, one.alert_id)):
        shown = alerts.message(row.model_dump())
        both = await backend.read(queries_doors.alert, row.alert_id)
        shown.history.extend(alerts.entry(one) for one in (both[1] if both else ()))
        found.append(shown)
    return found


async def _holds(backend: Backend, shipment_id: str, shown: shipment_pb2.Shipment) -> list[inventory_pb2.Hold]:
    """Holds that its excursions made, and all others of the lots that it carries."""
    rows = await backend.read(queries_stock.holds, limit=MOST, shipment_id=shipment_id)
    carried = {(lot.item_id, lot.lot_number) for unit in shown.handling_units for lot in unit.lots}
    for item_id, lot_number in sorted(carried):
        lot = await backend.read(queries.lot_of, item_id, lot_number)
        if lot is not None:
            rows += await backend.read(queries_stock.holds, limit=MOST, lot_id=lot.lot_id)
    found = []
    for row in sorted({row.hold_id: row for row in rows}.values(), key=lambda one: (one.placed_us, one.hold_id)):
        both = await backend.read(queries_stock.hold, row.hold_id)
        found.append(stock_records.hold(row.model_dump(), both[1] if both else ()))
    return found


async def _profiles(backend: Backend, plan: Plan) -> list[report_pb2.ReportProfile]:
    found = []
    for one in plan.profiles:
        if not one.profile_id:
            continue
        row: Profile | None = await backend.read(queries.profile_version, one.profile_id, one.version)
        if row is not None:
            since = check.timestamp(one.from_us) if one.from_us > 0 else None
            found.append(report_pb2.ReportProfile(from_time=since, profile=records.profile(row)))
    return found


# ---------------------------------------------------------------- readings


def _readings(report: report_pb2.ShipmentReport, plan: Plan, rides: Sequence[Ride]) -> None:
    """Lines for the plots and digests of every custody's readings."""
    gap_us = min((one.max_gap_us for one in plan.profiles if one.profile_id), default=USUAL_GAP_US)
    most = max(FEWEST_POINTS, min(LINE_POINTS, ALL_POINTS // max(1, len(rides))))
    wanted = {common_pb2.METRIC_TEMPERATURE_C, *(row.limit.metric for row in report.exposure.limits)}
    for one in rides:
        custody = one.custody
        report.digests.append(digest.of_readings(f"{custody.tag_id} custody {custody.custody_id}", one.batch, one.flags))
        for k, code in enumerate(one.batch.codes):
            if code not in POSITION and code + 1 in wanted:
                line = _line(one.batch, k, one.flags[k], gap_us, most)
                if line is not None:
                    line.tag_id, line.custody_id = custody.tag_id, custody.custody_id
                    report.lines.append(line)


def _line(batch: Batch, k: int, flags: Any, gap_us: int, most: int) -> report_pb2.MetricLine | None:
    there = ~np.isnan(batch.values[k])
    counted = np.flatnonzero(there & (flags != FAIL))
    failed = int(np.count_nonzero(there & (flags == FAIL)))
    if not len(counted) and not failed:
        return None
    times, values = batch.sensed_us[counted], batch.values[k, counted]
    rows = thinned(times, values, most)
    wide = np.diff(times)
    longest = np.argsort(-wide, kind="stable")[:MOST_GAPS]
    metric: Any = batch.codes[k] + 1
    return report_pb2.MetricLine(
        metric=metric,
        sensed_at_us=times[rows].tolist(),
        values=values[rows].tolist(),
        total=len(counted),
        failed=failed,
        gaps=[
            report_pb2.SeriesGap(from_us=int(times[row]), until_us=int(times[row + 1]))
            for row in sorted(longest.tolist())
            if wide[row] > gap_us
        ],
    )


def _digests(report: report_pb2.ShipmentReport, plan: Plan) -> None:
    """Digests of all that is no reading, and the one over all."""
    kinds: dict[str, Iterable[Any]] = {
        "shipment": [report.shipment],
        "custodies": report.custodies,
        "profiles": report.profiles,
        "milestones": report.milestones,
        "excursions": report.excursions,
        "visits": report.visits,
        "alerts": report.alerts,
        "holds": report.holds,
    }
    report.digests.extend(digest.of_messages(kind, messages) for kind, messages in kinds.items())
    report.digests.append(digest.of_data("plan", [plan.to_data()]))
    report.data_sha256 = digest.of_all(report.digests)
