"""A gRPC client written from docs/api.md and the protos alone: short words for what the acceptance tests say often.

Times in these tests are minutes after BEGIN_US, some hours before the run began.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from waybill.v1 import (
    alert_pb2,
    alert_pb2_grpc,
    common_pb2,
    exposure_pb2,
    item_pb2,
    item_pb2_grpc,
    profile_pb2,
    profile_pb2_grpc,
    shipment_pb2,
    shipment_pb2_grpc,
    tag_pb2,
    tag_pb2_grpc,
    telemetry_pb2,
    telemetry_pb2_grpc,
    warehouse_pb2_grpc,
)

MINUTE_US = 60_000_000
BEGIN_US = (time.time_ns() // 1000 // MINUTE_US - 12 * 60) * MINUTE_US
"""Twelve hours before the run, on a whole minute."""

PATIENCE_S = 30.0

Answer = TypeVar("Answer")


def us(minute: float) -> int:
    """A time of the tests as microseconds since 1970."""
    return BEGIN_US + round(minute * MINUTE_US)


def stamp(at_us: int) -> Timestamp:
    """Microseconds since 1970 as a timestamp."""
    return Timestamp(seconds=at_us // 1_000_000, nanos=at_us % 1_000_000 * 1000)


def at(minute: float) -> Timestamp:
    """A time of the tests as a timestamp."""
    return stamp(us(minute))


def minute_of(time: Timestamp) -> float:
    """A timestamp as a time of the tests."""
    return (time.seconds * 1_000_000 + time.nanos // 1000 - BEGIN_US) / MINUTE_US


def new_id(prefix: str) -> str:
    """An id that no other test uses."""
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


def refused(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str, str]:
    """(status, reason, field) of a call that must fail."""
    try:
        call()
    except grpc.RpcError as error:
        packed = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")  # type: ignore[attr-defined]
        info, bad = ErrorInfo(), BadRequest()
        for detail in Status.FromString(packed).details:
            detail.Unpack(info)
            detail.Unpack(bad)
        field = bad.field_violations[0].field if bad.field_violations else info.metadata.get("field", "")
        return error.code(), info.reason, field  # type: ignore[attr-defined]
    raise AssertionError("the call was not refused")


def eventually(question: Callable[[], Answer], right: Callable[[Answer], bool] = bool, within_s: float = PATIENCE_S) -> Answer:
    """Ask again until the answer is right; the last answer where time runs out."""
    deadline = time.monotonic() + within_s
    while True:
        answer = question()
        if right(answer) or time.monotonic() > deadline:
            return answer
        time.sleep(0.05)


def limit(
    limit_id: str,
    threshold: float,
    *,
    below: bool = False,
    minutes: float | None = 0,
    mode: profile_pb2.LimitMode = profile_pb2.LIMIT_MODE_SINGLE,
    metric: common_pb2.Metric = common_pb2.METRIC_TEMPERATURE_C,
    **more: Any,
) -> profile_pb2.Limit:
    """A limit; `minutes` is its allowance, None: counted only."""
    return profile_pb2.Limit(
        limit_id=limit_id,
        metric=metric,
        direction=profile_pb2.DIRECTION_BELOW if below else profile_pb2.DIRECTION_ABOVE,
        mode=mode,
        threshold=threshold,
        allowance_s=None if minutes is None else minutes * 60,
        severity=more.pop("severity", common_pb2.SEVERITY_CRITICAL),
        **more,
    )


def circle(fence_id: str, latitude: float, longitude: float, radius_m: float, **more: Any) -> common_pb2.Geofence:
    """A round geofence."""
    center = common_pb2.LatLng(latitude_deg=latitude, longitude_deg=longitude)
    return common_pb2.Geofence(fence_id=fence_id, circle=common_pb2.CircleShape(center=center, radius_m=radius_m), **more)


Told = tuple[str, str, float, float, float | None, float]
"""An excursion in short: (limit, state, started, triggered, ended, minutes in violation); times in minutes."""


def told(excursion: exposure_pb2.Excursion) -> Told:
    """An excursion in short."""
    state = exposure_pb2.ExcursionState.Name(excursion.state).removeprefix("EXCURSION_STATE_")
    ended = minute_of(excursion.ended_time) if excursion.HasField("ended_time") else None
    return (
        excursion.limit_id, state, minute_of(excursion.started_time), minute_of(excursion.triggered_time), ended,
        excursion.violation_us / MINUTE_US,
    )  # fmt: skip


def cause_of(excursion: exposure_pb2.Excursion) -> str:
    """Why the newest revision was made."""
    return exposure_pb2.RevisionCause.Name(excursion.cause).removeprefix("REVISION_CAUSE_")


class Client:
    """All services over one connection."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.channel = grpc.insecure_channel(target, options=[("grpc.max_receive_message_length", 64 << 20), ("grpc.enable_http_proxy", 0)])
        self.telemetry = telemetry_pb2_grpc.TelemetryServiceStub(self.channel)
        self.tags = tag_pb2_grpc.TagServiceStub(self.channel)
        self.alerting = alert_pb2_grpc.AlertServiceStub(self.channel)
        self.shipments = shipment_pb2_grpc.ShipmentServiceStub(self.channel)
        self.profiles = profile_pb2_grpc.ProfileServiceStub(self.channel)
        self.items = item_pb2_grpc.ItemServiceStub(self.channel)
        self.warehouses = warehouse_pb2_grpc.WarehouseServiceStub(self.channel)

    def close(self) -> None:
        """Let go of the connection."""
        self.channel.close()

    # ---------------------------------------------------------------- goods

    def profile(self, *limits: profile_pb2.Limit, **more: Any) -> str:
        """A new profile of these limits; its id."""
        profile_id = new_id("profile")
        made = profile_pb2.Profile(profile_id=profile_id, name="of a test", limits=limits, **more)
        self.profiles.CreateProfile(profile_pb2.CreateProfileRequest(profile=made, request_id=new_id("r")), timeout=PATIENCE_S)
        return profile_id

    def item(self) -> str:
        """A new item; its id."""
        item_id = new_id("item")
        self.items.CreateItem(item_pb2.CreateItemRequest(item=item_pb2.Item(item_id=item_id, name="Vaccine")), timeout=PATIENCE_S)
        return item_id

    def shipment(self, profile_id: str = "", *tag_ids: str, from_minute: float = 0, **more: Any) -> str:
        """A new shipment with tags on it from a minute on; its id."""
        made = shipment_pb2.Shipment(shipment_id=new_id("shipment"), profile_id=profile_id, **more)
        request = shipment_pb2.CreateShipmentRequest(shipment=made, request_id=new_id("r"))
        shipment_id = self.shipments.CreateShipment(request, timeout=PATIENCE_S).shipment.shipment_id
        for tag_id in tag_ids:
            self.assign(shipment_id, tag_id, from_minute)
        return str(shipment_id)

    def get(self, shipment_id: str) -> shipment_pb2.Shipment:
        """The shipment as it is now."""
        return self.shipments.GetShipment(shipment_pb2.GetShipmentRequest(shipment_id=shipment_id), timeout=PATIENCE_S).shipment

    def assign(
        self, shipment_id: str, tag_id: str, from_minute: float, until_minute: float | None = None, unit: str = ""
    ) -> tag_pb2.Custody:
        """Put a tag on a shipment."""
        request = shipment_pb2.AssignTagRequest(
            shipment_id=shipment_id, tag_id=tag_id, handling_unit_id=unit, from_time=at(from_minute),
            until_time=None if until_minute is None else at(until_minute), actor="test",
        )  # fmt: skip
        return self.shipments.AssignTag(request, timeout=PATIENCE_S).custody

    def release(self, shipment_id: str, tag_id: str, until_minute: float) -> tag_pb2.Custody:
        """Take a tag off a shipment."""
        request = shipment_pb2.ReleaseTagRequest(shipment_id=shipment_id, tag_id=tag_id, until_time=at(until_minute), actor="test")
        return self.shipments.ReleaseTag(request, timeout=PATIENCE_S).custody

    def correct(self, custody: tag_pb2.Custody, **changed: Any) -> tag_pb2.Custody:
        """Correct a custody's from_time, until_time or retracted."""
        wanted = tag_pb2.Custody(custody_id=custody.custody_id, tag_id=custody.tag_id, etag=custody.etag, **changed)
        request = tag_pb2.CorrectCustodyRequest(
            custody=wanted, update_mask=FieldMask(paths=list(changed)), actor="test", reason="it was written down wrongly"
        )
        return self.tags.CorrectCustody(request, timeout=PATIENCE_S).custody

    def milestone(self, shipment_id: str, kind: shipment_pb2.MilestoneKind, minute: float, stop_id: str = "") -> None:
        """Something happened to a shipment."""
        said = shipment_pb2.Milestone(kind=kind, time=at(minute), stop_id=stop_id, actor="test")
        self.shipments.RecordMilestone(
            shipment_pb2.RecordMilestoneRequest(shipment_id=shipment_id, milestone=said, request_id=new_id("r")), timeout=PATIENCE_S
        )

    # ---------------------------------------------------------------- readings

    def send(self, tag_id: str, *readings: tuple[float, float]) -> telemetry_pb2.IngestResponse:
        """Temperatures of one tag, (minute, degrees Celsius), whose device counts its readings by the minute (boot 1)."""
        return self.send_rows(
            telemetry_pb2.Reading(tag_id=tag_id, sensed_at_us=us(minute), boot=1, sequence=round(minute * 60), temperature_c=value)
            for minute, value in readings
        )

    def send_rows(self, readings: Iterable[telemetry_pb2.Reading]) -> telemetry_pb2.IngestResponse:
        """One batch as a unary call."""
        batch = telemetry_pb2.IngestRequest(rows=telemetry_pb2.ReadingRows(readings=readings))
        return self.telemetry.IngestBatch(telemetry_pb2.IngestBatchRequest(batch=batch), timeout=PATIENCE_S).result

    def send_fixes(self, tag_id: str, *fixes: tuple[float, float, float]) -> telemetry_pb2.IngestResponse:
        """Positions of one tag, (minute, latitude, longitude)."""
        rows = []
        for minute, latitude, longitude in fixes:
            position = telemetry_pb2.Position(latitude_deg=latitude, longitude_deg=longitude)
            rows.append(telemetry_pb2.Reading(tag_id=tag_id, sensed_at_us=us(minute), position=position))
        return self.send_rows(rows)

    def stream(self, requests: Iterable[telemetry_pb2.IngestRequest]) -> list[telemetry_pb2.IngestResponse]:
        """All answers of one Ingest stream."""
        return list(self.telemetry.Ingest(iter(requests), timeout=PATIENCE_S))

    def series(self, tag_id: str) -> list[tuple[float, float]]:
        """A tag's temperatures, (minute, degrees Celsius)."""
        found: list[tuple[float, float]] = []
        for message in self.telemetry.ReadTagSeries(telemetry_pb2.ReadTagSeriesRequest(tag_id=tag_id), timeout=PATIENCE_S):
            minutes = [(time_us - BEGIN_US) / MINUTE_US for time_us in message.series.sensed_at_us]
            for column in message.series.columns:
                if column.metric == common_pb2.METRIC_TEMPERATURE_C:
                    found.extend((minute, value) for minute, value in zip(minutes, column.values, strict=True) if value == value)
        return found

    def twin(self, tag_id: str) -> tag_pb2.TagTwin:
        """What is known of a tag now."""
        return self.tags.GetTagTwin(tag_pb2.GetTagTwinRequest(tag_id=tag_id), timeout=PATIENCE_S).twin

    # ---------------------------------------------------------------- judgements

    def excursions(self, shipment_id: str, *, all_of_them: bool = False) -> list[exposure_pb2.Excursion]:
        """A shipment's excursions by start; with their revisions, and the retracted ones, where asked for."""
        request = shipment_pb2.ListExcursionsRequest(
            shipment_id=shipment_id, include_revisions=all_of_them, include_retracted=all_of_them, page_size=1000
        )
        return list(self.shipments.ListExcursions(request, timeout=PATIENCE_S).excursions)

    def told(self, shipment_id: str) -> list[Told]:
        """The excursions that stand, in short."""
        return [told(one) for one in self.excursions(shipment_id)]

    def exposure(self, shipment_id: str) -> exposure_pb2.CarrierExposure:
        """A shipment's exposure summary."""
        return self.shipments.GetExposure(shipment_pb2.GetExposureRequest(shipment_id=shipment_id), timeout=PATIENCE_S).exposure

    def visits(self, shipment_id: str) -> list[tuple[str, str, float, float | None]]:
        """A shipment's visits: (kind, fence, entered, left)."""
        track = self.shipments.GetTrack(shipment_pb2.GetTrackRequest(shipment_id=shipment_id), timeout=PATIENCE_S)
        return [
            (
                common_pb2.VisitKind.Name(one.kind).removeprefix("VISIT_KIND_"), one.fence_id, minute_of(one.entered_time),
                minute_of(one.left_time) if one.HasField("left_time") else None,
            )
            for one in track.visits
        ]  # fmt: skip

    def alerts(self, shipment_id: str = "", *kinds: alert_pb2.AlertKind, tag_id: str = "") -> list[alert_pb2.Alert]:
        """Alerts, newest raised first."""
        chosen = alert_pb2.AlertFilter(shipment_id=shipment_id, kinds=kinds, tag_id=tag_id)
        return list(self.alerting.ListAlerts(alert_pb2.ListAlertsRequest(filter=chosen, page_size=1000), timeout=PATIENCE_S).alerts)

    def alert(self, alert_id: str) -> alert_pb2.Alert:
        """An alert with its history."""
        return self.alerting.GetAlert(alert_pb2.GetAlertRequest(alert_id=alert_id), timeout=PATIENCE_S).alert

    def history(self, alert_id: str) -> list[tuple[str, str]]:
        """What happened to an alert: (change, cause)."""
        return [
            (alert_pb2.AlertChange.Name(entry.change).removeprefix("ALERT_CHANGE_"), entry.cause) for entry in self.alert(alert_id).history
        ]

    def watch(
        self, cursor: int | None, want: int, *, shipment_id: str = "", until_number: int | None = None
    ) -> tuple[list[alert_pb2.WatchAlertsResponse], int]:
        """The next `want` changes of alerts after a number (or all up to a number), and the cursor to go on from."""
        chosen = alert_pb2.AlertFilter(shipment_id=shipment_id)
        call = self.alerting.WatchAlerts(alert_pb2.WatchAlertsRequest(after_event_number=cursor, filter=chosen), timeout=PATIENCE_S)
        found, reached = [], cursor or 0
        try:
            for message in call:
                reached = message.event_number
                if message.HasField("alert"):
                    found.append(message)
                if len(found) >= want or (until_number is not None and reached >= until_number):
                    break
        finally:
            call.cancel()
        return found, reached


def batches(readings: Sequence[Answer], size: int) -> list[Sequence[Answer]]:
    """Readings in batches of a size."""
    return [readings[start : start + size] for start in range(0, len(readings), size)]


def every(minutes: float, values: Iterable[float], start: float = 0) -> list[tuple[float, float]]:
    """Values at a regular interval: (minute, value)."""
    return [(start + i * minutes, value) for i, value in zip(itertools.count(), values)]
