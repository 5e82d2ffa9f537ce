"""A report made by hand: two tags from Lisbon to Rotterdam, one excursion with an earlier revision, a decision, a gap."""

from __future__ import annotations

import math

from services.reports import digest
from tests.services.running import at
from waybill.v1 import alert_pb2, common_pb2, exposure_pb2, inventory_pb2, profile_pb2, report_pb2, shipment_pb2, tag_pb2

MINUTE_US, HOUR_US = 60_000_000, 3_600_000_000
BEGIN_US = 1_767_225_600_000_000  # 2026-01-01
TEMPERATURE = common_pb2.METRIC_TEMPERATURE_C
EVIL = "<script>alert('x')</script> & \"quotes\" ₂ é 漢"


def report(*, verdict: common_pb2.Verdict.ValueType = common_pb2.VERDICT_EXCURSION, name: str = "S-1") -> report_pb2.ShipmentReport:
    """The report; a text of it holds what HTML must escape."""
    limit = profile_pb2.Limit(
        limit_id="warm-8",
        metric=TEMPERATURE,
        direction=profile_pb2.DIRECTION_ABOVE,
        mode=profile_pb2.LIMIT_MODE_SINGLE,
        threshold=8.0,
        allowance_s=3600,
        severity=common_pb2.SEVERITY_CRITICAL,
    )
    broken = verdict == common_pb2.VERDICT_EXCURSION
    excursion = exposure_pb2.Excursion(
        excursion_id=7,
        revision=2,
        state=exposure_pb2.EXCURSION_STATE_ENDED,
        cause=exposure_pb2.REVISION_CAUSE_LATE,
        tag_id="T-1",
        limit_id="warm-8",
        metric=TEMPERATURE,
        threshold=8.0,
        severity=common_pb2.SEVERITY_CRITICAL,
        started_time=at(BEGIN_US + 10 * HOUR_US),
        triggered_time=at(BEGIN_US + 11 * HOUR_US),
        ended_time=at(BEGIN_US + 13 * HOUR_US),
        violation_us=3 * HOUR_US,
        extreme=12.4,
        extreme_time=at(BEGIN_US + 12 * HOUR_US),
        mean=10.1,
        found_late=True,
        recorded_time=at(BEGIN_US + 40 * HOUR_US),
    )
    earlier = exposure_pb2.Excursion()
    earlier.CopyFrom(excursion)
    earlier.revision, earlier.violation_us = 1, 2 * HOUR_US
    excursion.revisions.append(earlier)
    times = [BEGIN_US + k * 10 * MINUTE_US for k in range(180) if not 60 <= k < 72]
    values = [5.0 + 7.4 * math.exp(-(((us - BEGIN_US - 12 * HOUR_US) / (1.5 * HOUR_US)) ** 2)) for us in times]
    gap = report_pb2.SeriesGap(from_us=BEGIN_US + 590 * MINUTE_US, until_us=BEGIN_US + 720 * MINUTE_US)
    made = report_pb2.ShipmentReport(
        made_time=at(BEGIN_US + 50 * HOUR_US),
        software=report_pb2.Software(waybill="0.1.0", python="3.11", numpy="2"),
        shipment=shipment_pb2.Shipment(
            shipment_id=name,
            reference=EVIL,
            state=shipment_pb2.SHIPMENT_STATE_DELIVERED,
            stops=[
                shipment_pb2.Stop(stop_id="a", name="Lisbon", location=common_pb2.LatLng(latitude_deg=38.7, longitude_deg=-9.1)),
                shipment_pb2.Stop(stop_id="b", name="Rotterdam", location=common_pb2.LatLng(latitude_deg=51.9, longitude_deg=4.5)),
            ],
        ),
        exposure=exposure_pb2.CarrierExposure(
            carrier=f"shipment/{name}",
            verdict=verdict,
            worst_severity=common_pb2.SEVERITY_CRITICAL if broken else 0,  # type: ignore[arg-type]
            closed=True,
            excursions=int(broken),
            limits=[
                exposure_pb2.LimitExposure(
                    profile_id="cold",
                    profile_version=3,
                    limit=limit,
                    violation_us=3 * HOUR_US if broken else 20 * MINUTE_US,
                    extreme=12.4,
                    extreme_time=at(BEGIN_US + 12 * HOUR_US),
                    uncovered_us=2 * HOUR_US,
                    covered_us=28 * HOUR_US,
                    readings=336,
                    excursions=int(broken),
                    mkt=exposure_pb2.Mkt(mkt_c=7.25, window_us=24 * HOUR_US, method=profile_pb2.MKT_METHOD_HOLD, full_window=True),
                )
            ],
            remarks=["up to 2.0 h of a tag's time are uncovered"],
        ),
        excursions=[excursion] if broken else [],
        alerts=[
            alert_pb2.Alert(
                alert_id="A-1",
                kind=alert_pb2.ALERT_KIND_GOODS,
                state=alert_pb2.ALERT_STATE_RESOLVED,
                severity=common_pb2.SEVERITY_CRITICAL,
                limit_id="warm-8",
                profile_id="cold",
                metric=TEMPERATURE,
                tag_ids=["T-1"],
                history=[
                    alert_pb2.AlertHistoryEntry(
                        change=alert_pb2.ALERT_CHANGE_RESOLVED,
                        actor="maria",
                        text="stability data cover it, QA-77",
                        recorded_time=at(BEGIN_US + 45 * HOUR_US),
                    )
                ],
            )
        ]
        if broken
        else [],
        holds=[
            inventory_pb2.Hold(
                hold_id="H-1",
                item_id="vaccine",
                lot_number="L-7",
                state=inventory_pb2.HOLD_STATE_RELEASED,
                placed_time=at(BEGIN_US + 41 * HOUR_US),
                reason="excursion of warm-8",
                decided_by="omar",
                decided_time=at(BEGIN_US + 46 * HOUR_US),
                decision_reason="within the stability budget",
                history=[
                    inventory_pb2.HoldChange(
                        change="released", actor="omar", text="within the stability budget", time=at(BEGIN_US + 46 * HOUR_US)
                    )
                ],
            )
        ]
        if broken
        else [],
        custodies=[tag_pb2.Custody(custody_id=1, tag_id="T-1", from_time=at(BEGIN_US), until_time=at(BEGIN_US + 30 * HOUR_US))],
        profiles=[report_pb2.ReportProfile(profile=profile_pb2.Profile(profile_id="cold", version=3, name="Cold", limits=[limit]))],
        lines=[
            report_pb2.MetricLine(
                tag_id="T-1", custody_id=1, metric=TEMPERATURE, sensed_at_us=times, values=values, total=len(times), gaps=[gap]
            )
        ],
        digests=[digest.of_data("plan", [{"carrier": name}])],
    )
    made.data_sha256 = digest.of_all(made.digests)
    return made
