"""`waybill alerts` and `waybill alert`: what a person must act on, and acting on it."""

from __future__ import annotations

import getpass
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cluster.cli.common import out, when, with_client, word
from cluster.cli.shipments import metric_unit
from cluster.client import Client
from waybill.v1 import alert_pb2, common_pb2

app = typer.Typer(no_args_is_help=True, help="One alert: show, acknowledge, assign, comment, resolve.")

SEVERITY_STYLE = {common_pb2.SEVERITY_INFO: "cyan", common_pb2.SEVERITY_WARNING: "yellow", common_pb2.SEVERITY_CRITICAL: "bold red"}
KINDS = ("goods", "sensor", "silence", "lateness", "geofence", "outbox")
STATES = ("open", "acknowledged", "resolved", "withdrawn")

AlertId = Annotated[str, typer.Argument(help="The alert's id, as `waybill alerts` shows it.")]
Actor = Annotated[str, typer.Option("--actor", help="Who does it; default: your login name.")]
Etag = Annotated[str, typer.Option("--etag", help="Act only if the alert still has this etag; default: the one it has now.")]
Comment = Annotated[str, typer.Option("--comment", help="Kept in its history.")]


def alert_line(alert: alert_pb2.Alert, change: int = 0, number: int = 0) -> Text:
    """One line: number, change, severity, what, where."""
    head = f"{number:>7} " if number else ""
    style = SEVERITY_STYLE.get(alert.severity, "")
    where = alert.carrier.removeprefix("shipment/") or alert.tag_id
    what = word(alert_pb2.AlertChange, change) or word(alert_pb2.AlertState, alert.state)
    if change in (alert_pb2.ALERT_CHANGE_CLEARED, alert_pb2.ALERT_CHANGE_WITHDRAWN, alert_pb2.ALERT_CHANGE_RESOLVED):
        style = "green"
    return Text.assemble(
        (head, "dim"),
        (f"{what:<12} ", style),
        (f"{word(alert_pb2.AlertKind, alert.kind):<8} ", style),
        (f"{where}  ", "bold"),
        alert_text(alert),
    )


def alert_text(alert: alert_pb2.Alert) -> str:
    """What an alert is about, in words: for goods the limit, the worst value and since when (sensed time)."""
    if alert.kind == alert_pb2.ALERT_KIND_GOODS and alert.limit_id:
        worst = f", worst {alert.extreme:.1f} {metric_unit(alert.metric)}" if alert.HasField("extreme") else ""
        return f"{alert.limit_id} of {alert.profile_id}{worst}, since {when(alert.started_time)}"
    return alert.text.removeprefix(f"{alert.carrier}: ") or alert.reason


def alert_filter(kind: list[str], state: list[str], severity: str, shipment: str, tag: str, active: bool) -> alert_pb2.AlertFilter:
    """The filter of the options. Raises typer.BadParameter with the words that are known."""

    def number(enum: Any, prefix: str, name: str, known: tuple[str, ...], option: str) -> Any:
        if name.lower() not in known:
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(known)}", param_hint=option)
        return enum.Value(prefix + name.upper())

    found = alert_pb2.AlertFilter(
        kinds=[number(alert_pb2.AlertKind, "ALERT_KIND_", name, KINDS, "--kind") for name in kind],
        states=[number(alert_pb2.AlertState, "ALERT_STATE_", name, STATES, "--state") for name in state],
        shipment_id=shipment,
        tag_id=tag,
        active_only=active,
    )
    if severity:
        found.min_severity = number(common_pb2.Severity, "SEVERITY_", severity, ("info", "warning", "critical"), "--severity")
    return found


@with_client
def alerts(
    client: Client,
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and print changes as they happen. Ctrl-C ends it.")] = False,
    after: Annotated[int | None, typer.Option(help="With --watch: begin behind this event number; 0: from the first.", min=0)] = None,
    kind: Annotated[list[str] | None, typer.Option(help="goods, sensor, silence, lateness, geofence, outbox; several allowed.")] = None,
    state: Annotated[list[str] | None, typer.Option(help="open, acknowledged, resolved, withdrawn; several allowed.")] = None,
    severity: Annotated[str, typer.Option(help="info, warning or critical: this or worse.")] = "",
    shipment: Annotated[str, typer.Option(help="Only this shipment's.")] = "",
    tag: Annotated[str, typer.Option(help="Only this tag's.")] = "",
    active: Annotated[bool, typer.Option("--active", help="Only those whose condition holds now.")] = False,
    limit: Annotated[int, typer.Option(help="At most so many in the list.", min=1)] = 50,
) -> None:
    """Alerts, newest first; or their changes as they happen.

    Examples:

    waybill alerts --state open --severity critical

    waybill alerts --watch

    waybill alerts --watch --after 4711        (go on where you left off)
    """
    chosen = alert_filter(kind or [], state or [], severity, shipment, tag, active)
    if watch:
        for message in client.watch_alerts(after, chosen):
            if message.HasField("alert"):
                out.print(alert_line(message.alert, message.change, message.event_number))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("alert", "raised", "state", "kind", "severity", "where", "what"):
        table.add_column(name, no_wrap=name == "alert")
    count = 0
    request = alert_pb2.ListAlertsRequest(filter=chosen, page_size=min(limit, 500))
    for alert in client.pages(client.alerts.ListAlerts, request, "alerts"):
        table.add_row(
            alert.alert_id,
            when(alert.raised_time),
            word(alert_pb2.AlertState, alert.state) + (", active" if alert.active else ""),
            word(alert_pb2.AlertKind, alert.kind),
            Text(word(common_pb2.Severity, alert.severity), style=SEVERITY_STYLE.get(alert.severity, "")),
            escape(alert.carrier or alert.tag_id),
            escape(alert_text(alert)),
        )
        count += 1
        if count == limit:
            break
    out.print(table if count else "no alerts")


@app.command("show")
@with_client
def show(client: Client, alert_id: AlertId) -> None:
    """One alert with its whole history.

    Example: waybill alert show 12
    """
    _show(client.call(client.alerts.GetAlert, alert_pb2.GetAlertRequest(alert_id=alert_id)).alert)


def _show(alert: alert_pb2.Alert) -> None:
    out.print(alert_line(alert))
    out.print(f"  began {when(alert.started_time)}, {'lasts' if alert.active else 'ended ' + when(alert.ended_time)}; etag {alert.etag}")
    if alert.tag_ids:
        out.print(f"  seen by {escape(', '.join(alert.tag_ids))}")
    if alert.assigned_to:
        out.print(f"  assigned to {escape(alert.assigned_to)}")
    for entry in alert.history:
        who = f" by {entry.actor}" if entry.actor else f" ({entry.cause})"
        out.print(
            f"  {when(entry.recorded_time, seconds=True)}  {word(alert_pb2.AlertChange, entry.change)}{escape(who)}  {escape(entry.text)}"
        )


def _act(client: Client, method: Any, request: Any, etag: str) -> None:
    """Carries out what a person decided, on the alert as it is now unless an etag says on which."""
    request.etag = etag or client.call(client.alerts.GetAlert, alert_pb2.GetAlertRequest(alert_id=request.alert_id)).alert.etag
    request.actor = request.actor or getpass.getuser()
    out.print(alert_line(client.call(method, request).alert))


@app.command("ack")
@with_client
def ack(client: Client, alert_id: AlertId, actor: Actor = "", comment: Comment = "", etag: Etag = "") -> None:
    """Acknowledge: I have seen it.

    Example: waybill alert ack 12 --comment "driver called"
    """
    request = alert_pb2.AcknowledgeAlertRequest(alert_id=alert_id, actor=actor, comment=comment)
    _act(client, client.alerts.AcknowledgeAlert, request, etag)


@app.command("assign")
@with_client
def assign(
    client: Client,
    alert_id: AlertId,
    assignee: Annotated[str, typer.Argument(help='Who is to deal with it; "" for nobody.')],
    actor: Actor = "",
    comment: Comment = "",
    etag: Etag = "",
) -> None:
    """Give it to somebody.

    Example: waybill alert assign 12 night-shift
    """
    request = alert_pb2.AssignAlertRequest(alert_id=alert_id, actor=actor, assignee=assignee, comment=comment)
    _act(client, client.alerts.AssignAlert, request, etag)


@app.command("comment")
@with_client
def comment(
    client: Client, alert_id: AlertId, text: Annotated[str, typer.Argument(help="The comment.")], actor: Actor = "", etag: Etag = ""
) -> None:
    """Add a comment to its history.

    Example: waybill alert comment 12 "reefer reset, temperature falling"
    """
    _act(client, client.alerts.CommentAlert, alert_pb2.CommentAlertRequest(alert_id=alert_id, actor=actor, comment=text), etag)


@app.command("resolve")
@with_client
def resolve(
    client: Client,
    alert_id: AlertId,
    reason: Annotated[str, typer.Option("--reason", help="Why it is closed; kept in its history.")],
    actor: Actor = "",
    etag: Etag = "",
) -> None:
    """Close it, with a reason.

    Example: waybill alert resolve 12 --reason "within the stability budget, released by QA"
    """
    _act(client, client.alerts.ResolveAlert, alert_pb2.ResolveAlertRequest(alert_id=alert_id, actor=actor, reason=reason), etag)
