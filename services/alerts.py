"""AlertService: alerts as a stream that resumes anywhere, as lists, and what people do with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from actors.journal import queries_doors as queries
from actors.journal.queries_business import shipment_carrier
from actors.journal.tables import Alert, AlertHistory, Event
from actors.rules.errors import FailedPrecondition, InvalidArgument, NotFound, StaleEtag
from services import check
from services.backend import Backend, Context
from services.feed import Feed
from services.paging import Page
from waybill.v1 import alert_pb2, alert_pb2_grpc, common_pb2

KINDS = {"goods": "GOODS", "sensor": "SENSOR", "silence": "SILENCE", "late": "LATENESS", "fence": "GEOFENCE", "outbox": "OUTBOX"}
"""The journal's word for a kind of alert: the contract's."""
JOURNAL_KINDS = {contract: journal for journal, contract in KINDS.items()}
SEVERITIES = ("INFO", "WARNING", "CRITICAL")
DONE = {
    "acknowledge": alert_pb2.ALERT_CHANGE_ACKNOWLEDGED,
    "assign": alert_pb2.ALERT_CHANGE_ASSIGNED,
    "comment": alert_pb2.ALERT_CHANGE_COMMENTED,
    "resolve": alert_pb2.ALERT_CHANGE_RESOLVED,
}
"""What an action leaves in the history."""


class Alerts(alert_pb2_grpc.AlertServiceServicer):
    """See alert.proto."""

    def __init__(self, backend: Backend, feed: Feed) -> None:
        self._backend = backend
        self._feed = feed

    async def WatchAlerts(self, request: alert_pb2.WatchAlertsRequest, context: Context) -> AsyncIterator[alert_pb2.WatchAlertsResponse]:
        """Changes of alerts after a number, in order, for as long as the caller stays."""
        after = request.after_event_number if request.HasField("after_event_number") else None
        if after is not None and after < 0:
            raise InvalidArgument("must be 0 or more", field="after_event_number", value=after)
        wanted = Filter(request.filter)
        async for piece in self._feed.follow(after, prefix="alert.", wanted=lambda event: wanted.takes(event.body)):
            for event in piece.events:
                yield changed(event)
            if not piece.events or piece.events[-1].number < piece.up_to:
                yield alert_pb2.WatchAlertsResponse(event_number=piece.up_to)

    async def ListAlerts(self, request: alert_pb2.ListAlertsRequest, context: Context) -> alert_pb2.ListAlertsResponse:
        """Newest raised first."""
        page, wanted = Page(request, (int, str)), Filter(request.filter)
        after: Any = page.after
        rows = await self._backend.read(
            queries.alerts,
            after=after,
            limit=page.limit,
            kinds=sorted(wanted.kinds),
            states=sorted(wanted.states),
            min_severity=wanted.min_severity,
            carriers=wanted.carriers,
            active_only=wanted.active_only,
            tag_id=wanted.tag_id,
        )
        shown, token = page.cut(rows, lambda row: (row.raised_us, row.alert_id))
        return alert_pb2.ListAlertsResponse(alerts=[message(row.model_dump()) for row in shown], next_page_token=token)

    async def GetAlert(self, request: alert_pb2.GetAlertRequest, context: Context) -> alert_pb2.GetAlertResponse:
        """One alert with its history."""
        return alert_pb2.GetAlertResponse(alert=await self._alert(request.alert_id))

    async def AcknowledgeAlert(self, request: alert_pb2.AcknowledgeAlertRequest, context: Context) -> alert_pb2.AcknowledgeAlertResponse:
        """A person has seen it."""
        said = check.text(request.comment, "comment", longest=check.NOTE_MAX)
        return alert_pb2.AcknowledgeAlertResponse(alert=await self._act(request, "acknowledge", said, context))

    async def AssignAlert(self, request: alert_pb2.AssignAlertRequest, context: Context) -> alert_pb2.AssignAlertResponse:
        """A person gives it to somebody."""
        assignee = check.text(request.assignee, "assignee", required=True)
        return alert_pb2.AssignAlertResponse(alert=await self._act(request, "assign", assignee, context))

    async def CommentAlert(self, request: alert_pb2.CommentAlertRequest, context: Context) -> alert_pb2.CommentAlertResponse:
        """A person adds a comment."""
        comment = check.text(request.comment, "comment", required=True, longest=check.NOTE_MAX)
        return alert_pb2.CommentAlertResponse(alert=await self._act(request, "comment", comment, context, etag=False))

    async def ResolveAlert(self, request: alert_pb2.ResolveAlertRequest, context: Context) -> alert_pb2.ResolveAlertResponse:
        """A person closes it."""
        reason = check.text(request.reason, "reason", required=True, longest=check.NOTE_MAX)
        return alert_pb2.ResolveAlertResponse(alert=await self._act(request, "resolve", reason, context))

    async def _alert(self, alert_id: str) -> alert_pb2.Alert:
        check.text(alert_id, "alert_id", required=True)
        found = await self._backend.read(queries.alert, alert_id)
        if found is None:
            raise NotFound("no such alert", field="alert_id", value=alert_id)
        row, history = found
        shown = message(row.model_dump())
        shown.history.extend(entry(one) for one in history)
        return shown

    async def _act(self, request: Any, action: str, said: str, context: Context, *, etag: bool = True) -> alert_pb2.Alert:
        """A person's action, by the shard of the alert's carrier (or of its tag); the alert after it."""
        alert_id = check.text(request.alert_id, "alert_id", required=True)
        actor = check.text(request.actor, "actor", required=True)
        if etag and not request.etag:
            raise InvalidArgument("must be given: read the alert, then decide", field="etag")
        found = await self._backend.read(queries.alert, alert_id)
        if found is None:
            raise NotFound("no such alert", field="alert_id", value=alert_id)
        version = check.etag(request.etag)
        arguments = {"alert_id": alert_id, "by": actor, "text": said, "etag": version}
        try:
            await self._backend.command(home(found[0]), f"alert.{action}", arguments, context)
        except (StaleEtag, FailedPrecondition):
            shown = await self._alert(alert_id)
            if not _was_done(shown, version, DONE[action], actor, said):
                raise
            return shown
        return await self._alert(alert_id)


def _was_done(alert: alert_pb2.Alert, version: int | None, change: int, actor: str, said: str) -> bool:
    """Whether the history has this very action as the next change after `version`: its answer was lost, and it was sent again."""
    return version is not None and any(
        (one.etag, one.change, one.actor, one.text) == (str(version + 1), change, actor, said) for one in alert.history
    )


class Filter:
    """Which alerts: fields that are empty let all through."""

    def __init__(self, asked: alert_pb2.AlertFilter) -> None:
        self.kinds = {JOURNAL_KINDS[check.word(alert_pb2.AlertKind, kind)] for kind in _named(asked.kinds, "filter.kinds")}
        self.states = {check.word(alert_pb2.AlertState, state) for state in _named(asked.states, "filter.states")}
        self.min_severity = check.word(common_pb2.Severity, asked.min_severity)
        self.carriers = [
            carrier for carrier in (asked.carrier, shipment_carrier(asked.shipment_id) if asked.shipment_id else "") if carrier
        ]
        if len(set(self.carriers)) > 1:
            raise InvalidArgument(f"is another carrier than {asked.carrier}", field="filter.shipment_id", value=asked.shipment_id)
        self.tag_id = asked.tag_id
        self.active_only = asked.active_only

    def takes(self, alert: Mapping[str, Any]) -> bool:
        """Whether the alert, as its event tells it, is let through."""
        return (
            (not self.kinds or alert["kind"] in self.kinds)
            and (not self.states or alert["state"] in self.states)
            and (not self.min_severity or SEVERITIES.index(alert["severity"]) >= SEVERITIES.index(self.min_severity))
            and (not self.carriers or alert["carrier"] in self.carriers)
            and (not self.tag_id or self.tag_id == alert["tag_id"] or self.tag_id in alert["tags"])
            and (not self.active_only or bool(alert["active"]))
        )


def _named(values: Any, field: str) -> list[int]:
    if 0 in values:
        raise InvalidArgument("must name a value", field=field, value=0)
    return list(values)


def home(alert: Alert) -> str:
    """The id whose shard acts on an alert: that of its shipment, its warehouse, or its tag."""
    if alert.carrier:
        return alert.carrier.split("/")[1] if alert.carrier.startswith("zone/") else alert.carrier.split("/", 1)[1]
    return alert.tag_id or alert.alert_id


def changed(event: Event) -> alert_pb2.WatchAlertsResponse:
    """An event of an alert as a message of the stream."""
    return alert_pb2.WatchAlertsResponse(
        event_number=event.number,
        alert=message(event.body),
        change=check.number(alert_pb2.AlertChange, event.kind.removeprefix("alert.")),
        recorded_time=check.timestamp(event.recorded_us),
    )


def message(alert: Mapping[str, Any]) -> alert_pb2.Alert:
    """An alert's row, or the body of its event, in the contract's form."""
    detail: Mapping[str, Any] = alert["detail"] or {}
    return alert_pb2.Alert(
        alert_id=alert["alert_id"],
        kind=check.number(alert_pb2.AlertKind, KINDS.get(alert["kind"], "")),
        severity=check.number(common_pb2.Severity, alert["severity"]),
        state=check.number(alert_pb2.AlertState, alert["state"]),
        active=alert["active"],
        carrier=alert["carrier"] or "",
        tag_id=alert["tag_id"] or "",
        tag_ids=alert["tags"],
        profile_id=alert["profile_id"] or "",
        limit_id=alert["limit_id"] or "",
        metric=check.number(common_pb2.Metric, alert["metric"]),
        fence_id=alert["fence_id"] or "",
        stop_id=str(detail.get("stop_id", "")),
        reason=alert["reason"],
        text=text_of(alert),
        excursions=alert["excursions"],
        open_excursions=alert["open_excursions"],
        extreme=alert["extreme"],
        extreme_time=check.timestamp(alert["extreme_us"]),
        started_time=check.timestamp(alert["started_us"]),
        ended_time=check.timestamp(alert["ended_us"]),
        raised_time=check.timestamp(alert["raised_us"]),
        updated_time=check.timestamp(alert["updated_us"]),
        assigned_to=alert["assigned_to"],
        acknowledged_by=alert["acknowledged_by"],
        acknowledged_time=check.timestamp(alert["acknowledged_us"]),
        resolved_by=alert["resolved_by"],
        resolved_time=check.timestamp(alert["resolved_us"]),
        resolution=alert["resolution"],
        reopened=alert["reopened"],
        etag=str(alert["etag"]),
    )


def text_of(alert: Mapping[str, Any]) -> str:
    """One line for people."""
    where = alert["carrier"] or (f"tag {alert['tag_id']}" if alert["tag_id"] else "")
    kind, reason = alert["kind"], alert["reason"]
    if kind == "goods":
        worst = "" if alert["extreme"] is None else f", worst {alert['extreme']:g}"
        said = f"limit {alert['limit_id']} of {alert['profile_id']} ({alert['metric']}) exceeded{worst}"
    elif kind == "sensor":
        said = f"tag {alert['tag_id']}: sensor fault {reason}"
    elif kind == "silence":
        said = f"tag {alert['tag_id']} is silent"
    elif kind == "late":
        said = f"late{': ' + reason if reason else ''}"
    else:
        said = f"{reason or 'geofence'} {alert['fence_id'] or ''}".strip()
    return f"{where}: {said}" if where and not said.startswith(where) else said


def entry(row: AlertHistory) -> alert_pb2.AlertHistoryEntry:
    """A row of an alert's history."""
    return alert_pb2.AlertHistoryEntry(
        change=check.number(alert_pb2.AlertChange, row.change),
        cause=row.cause or ("person" if row.by else ""),
        actor=row.by,
        text=row.text,
        recorded_time=check.timestamp(row.at_us),
        state=check.number(alert_pb2.AlertState, row.state),
        active=row.active,
        severity=check.number(common_pb2.Severity, row.severity),
        excursion_id=row.excursion_id or 0,
        etag=str(row.etag),
    )
