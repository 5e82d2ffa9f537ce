"""`waybill shipment`: what became of a journey, and which there are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cluster.cli.common import lasting, out, when, with_client, word
from cluster.cli.draw import line_plot
from cluster.client import Client, micros, now_us
from waybill.v1 import common_pb2, exposure_pb2, profile_pb2, shipment_pb2, telemetry_pb2

app = typer.Typer(no_args_is_help=True, help="Shipments: what became of a journey, and which there are.")

SHOWN_VISITS = 12
WIDE = 120
"""Columns of a terminal that has room for the whole tables of limits and excursions."""
TABLE_WIDTHS = {"shipment": 20, "journey": 27, "profile": 16, "state": 10, "excursions": 10, "worst": 29, "verdict": 13}
VERDICT_STYLE = {
    common_pb2.VERDICT_WITHIN_LIMITS: "bold green",
    common_pb2.VERDICT_EXCURSION: "bold red",
    common_pb2.VERDICT_NO_DATA: "yellow",
}
UNITS = {"temperature c": "°C", "relative humidity pct": "%", "shock g": "g", "light lux": "lx", "co2 pct": "%", "o2 pct": "%"}


def verdict_text(verdict: int) -> Text:
    """The verdict in its colour."""
    return Text(word(common_pb2.Verdict, verdict).upper() or "-", style=VERDICT_STYLE.get(verdict, ""))  # type: ignore[call-overload]


def metric_unit(metric: int) -> str:
    """The unit to write behind a value of the metric."""
    return UNITS.get(word(common_pb2.Metric, metric), "")


def limit_text(limit: profile_pb2.Limit) -> str:
    """The rule in words: `above 8.0 °C for 10 h`."""
    unit = metric_unit(limit.metric)
    sign = ("≥" if limit.inclusive else ">") if limit.direction == profile_pb2.DIRECTION_ABOVE else ("≤" if limit.inclusive else "<")
    what = "MKT" if limit.mode == profile_pb2.LIMIT_MODE_MKT else word(common_pb2.Metric, limit.metric).rsplit(" ", 1)[0]
    text = f"{what} {sign} {limit.threshold:g} {unit}"
    if not limit.HasField("allowance_s"):
        return text + ", counted only"
    if limit.allowance_s:
        text += f" for {lasting(limit.allowance_s * 1e6)}"
        text += " in total" if limit.mode == profile_pb2.LIMIT_MODE_CUMULATIVE else ""
    return text


@app.command("show")
@with_client
def show(
    client: Client,
    shipment_id: Annotated[str, typer.Argument(help="The shipment's id.")],
    metric: Annotated[str, typer.Option(help="What to draw: temperature_c, relative_humidity_pct, shock_g, ...")] = "temperature_c",
    tag: Annotated[str, typer.Option(help="Draw this tag's line; default: the tag with the worst value.")] = "",
) -> None:
    """Facts, track, temperature line with limits, exposure, excursions with their revisions, MKT and verdict.

    Times are UTC and, but for "recorded", the sensors' own.

    Example: waybill shipment show PARCEL-1
    """
    shipment = client.call(client.shipments.GetShipment, shipment_pb2.GetShipmentRequest(shipment_id=shipment_id)).shipment
    exposure = client.call(client.shipments.GetExposure, shipment_pb2.GetExposureRequest(shipment_id=shipment_id)).exposure
    track = client.call(client.shipments.GetTrack, shipment_pb2.GetTrackRequest(shipment_id=shipment_id, max_positions=2000))
    request = shipment_pb2.ListExcursionsRequest(shipment_id=shipment_id, include_revisions=True, include_retracted=True)
    excursions: list[exposure_pb2.Excursion] = list(client.pages(client.shipments.ListExcursions, request, "excursions"))
    _facts(shipment, exposure)
    _track(track)
    _line(client, shipment_id, exposure, excursions, metric, tag)
    _limits(exposure)
    _excursions(excursions)
    for remark in exposure.remarks:
        out.print(f"[yellow]![/] {escape(remark)}")


def _facts(shipment: shipment_pb2.Shipment, exposure: exposure_pb2.CarrierExposure) -> None:
    out.print()
    out.print(Text.assemble((shipment.shipment_id, "bold"), "  ", verdict_text(exposure.verdict), "  " + shipment.reference))
    version = f" version {shipment.profile_version}" if shipment.profile_version else ""
    out.print(
        f"{word(shipment_pb2.ShipmentState, shipment.state)}, profile {shipment.profile_id or '-'}{version}  {escape(shipment.description)}"
    )
    out.print(
        f"departed {when(shipment.departed_time)}   delivered {when(shipment.delivered_time)}   "
        f"judged until {when(exposure.judged_until_time)}{'' if exposure.closed else ' (still open)'}"
    )
    units = sum(len(unit.lots) for unit in shipment.handling_units)
    if shipment.handling_units:
        out.print(f"{len(shipment.handling_units)} handling units with {units} lots")
    if shipment.stops:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("stop", "planned", "arrived", "left"):
            table.add_column(name)
        for stop in shipment.stops:
            name = stop.name or stop.stop_id
            planned = stop.planned_arrival_time if stop.HasField("planned_arrival_time") else None
            table.add_row(escape(f"{name} {stop.locode}".strip()), when(planned), when(stop.arrived_time), when(stop.departed_time))
        out.print(table)


def _track(track: shipment_pb2.GetTrackResponse) -> None:
    if not track.total_positions:
        out.print("[dim]no positions[/]")
        return
    at = track.last.position
    out.print(
        f"{track.total_positions:,} positions, last {at.latitude_deg:.4f}, {at.longitude_deg:.4f} at {when(track.last.sensed_time)}; "
        f"{len(track.visits)} visits, stops and passes"
    )
    for visit in track.visits[:SHOWN_VISITS]:
        where = visit.fence_id or f"{visit.location.latitude_deg:.4f}, {visit.location.longitude_deg:.4f}"
        left = when(visit.left_time) if visit.HasField("left_time") else "now"
        out.print(f"  {word(common_pb2.VisitKind, visit.kind):<15} {when(visit.entered_time)} to {left}  [dim]{escape(where)}[/]")
    if len(track.visits) > SHOWN_VISITS:
        out.print(f"  [dim]and {len(track.visits) - SHOWN_VISITS} more[/]")


def series(client: Client, shipment_id: str, metric: int) -> dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]:
    """Sensed times (microseconds) and values of one metric on a shipment, by tag, in sensed order."""
    request = telemetry_pb2.ReadShipmentSeriesRequest(shipment_id=shipment_id, metrics=[metric])  # type: ignore[list-item]
    parts: dict[str, list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]] = {}
    for message in client.stream(client.telemetry.ReadShipmentSeries, request):
        columns = message.series
        for column in columns.columns:
            if column.metric == metric:
                parts.setdefault(columns.tag_id, []).append((np.array(columns.sensed_at_us), np.array(column.values)))
    return {
        tag_id: (np.concatenate([times for times, _ in pieces]), np.concatenate([values for _, values in pieces]))
        for tag_id, pieces in parts.items()
    }


def _line(
    client: Client,
    shipment_id: str,
    exposure: exposure_pb2.CarrierExposure,
    excursions: Iterable[exposure_pb2.Excursion],
    metric_name: str,
    tag: str,
) -> None:
    wanted = "METRIC_" + metric_name.upper()
    if wanted not in list(common_pb2.Metric.keys()):
        raise typer.BadParameter(f"unknown metric {metric_name!r}", param_hint="--metric")
    metric = common_pb2.Metric.Value(wanted)
    lines = series(client, shipment_id, metric)
    if not lines:
        out.print(f"[dim]no {metric_name} readings[/]")
        return
    standing = [one for one in excursions if one.state != exposure_pb2.EXCURSION_STATE_RETRACTED and one.metric == metric]
    if not tag:
        worst = [row for limit in exposure.limits if limit.limit.metric == metric for row in limit.tags]
        tag = max(worst, key=lambda row: (row.excursions, row.violation_us)).tag_id if worst else next(iter(lines))
        tag = tag if tag in lines else next(iter(lines))
    if tag not in lines:
        raise typer.BadParameter(f"tag {tag!r} has no readings on this shipment", param_hint="--tag")
    spans = [
        (micros(one.started_time), micros(one.ended_time) if one.HasField("ended_time") else now_us())
        for one in standing
        if one.tag_id == tag
    ]
    limits = [row.limit.threshold for row in exposure.limits if row.limit.metric == metric and row.limit.mode != profile_pb2.LIMIT_MODE_MKT]
    out.print(f"\n{escape(tag)} [dim]({metric_name}; one of {len(lines)} tags; limits dashed, excursions red)[/]")
    width = max(20, min(out.width - 16, 100))
    out.print(line_plot(*lines[tag], limits=limits, spans=spans, width=width, unit=metric_unit(metric)))


def _limits(exposure: exposure_pb2.CarrierExposure) -> None:
    if not exposure.limits:
        return
    table = Table(
        title="exposure by limit (worst tag)", title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0), header_style="dim"
    )
    columns = ["limit", "rule", "violated", "extreme", "at", "uncovered", "MKT", "excursions"]
    if out.width < WIDE:
        columns = ["limit", "rule", "violated", "extreme", "excursions"]
    for name in columns:
        table.add_column(name, justify="left" if name in ("limit", "rule", "at") else "right")
    for row in exposure.limits:
        unit = metric_unit(row.limit.metric)
        extreme = f"{row.extreme:.2f} {unit}" if row.HasField("extreme") else "-"
        mkt = f"{row.mkt.mkt_c:.2f} °C{'' if row.mkt.full_window else '*'}" if row.HasField("mkt") else "-"
        cells: dict[str, str | Text] = {
            "limit": row.limit.limit_id,
            "rule": limit_text(row.limit),
            "violated": lasting(row.violation_us),
            "extreme": extreme,
            "at": when(row.extreme_time),
            "uncovered": lasting(row.uncovered_us),
            "MKT": mkt,
            "excursions": Text(str(row.excursions), style="bold red" if row.excursions else ""),
        }
        table.add_row(*(cells[name] for name in columns))
    out.print(table)
    if any(row.HasField("mkt") and not row.mkt.full_window for row in exposure.limits):
        out.print("[dim]* over less than a whole window: of what there is[/]")
    if any(row.HasField("mkt") and not row.mkt.allowed for row in exposure.limits):
        out.print("[dim]the profile does not allow MKT for a release decision[/]")


def _excursions(excursions: list[exposure_pb2.Excursion]) -> None:
    if not excursions:
        out.print("\n[green]no excursions[/]")
        return
    out.print("\n[bold]excursions[/] [dim](earlier revisions grey)[/]")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    columns = ["tag", "limit", "started", "confirmed", "ended", "violated", "extreme", "mean", "readings", "revision"]
    if out.width < WIDE:
        columns = ["tag", "limit", "started", "violated", "extreme", "revision"]
    for name in columns:
        table.add_column(name, justify="right" if name in ("violated", "extreme", "mean", "readings") else "left")
    for one in excursions:
        for earlier in one.revisions:
            table.add_row(*(_excursion_cells(earlier)[name] for name in columns), style="dim")
        retracted = one.state == exposure_pb2.EXCURSION_STATE_RETRACTED
        table.add_row(*(_excursion_cells(one)[name] for name in columns), style="strike dim" if retracted else "red")
    out.print(table)


def _excursion_cells(one: exposure_pb2.Excursion) -> dict[str, str]:
    unit = metric_unit(one.metric)
    late = ", found late" if one.found_late and one.revision == 1 else ""
    state = ", retracted" if one.state == exposure_pb2.EXCURSION_STATE_RETRACTED else ""
    return {
        "tag": one.tag_id,
        "limit": one.limit_id,
        "started": when(one.started_time, seconds=True),
        "confirmed": when(one.triggered_time, seconds=True),
        "ended": when(one.ended_time, seconds=True) if one.HasField("ended_time") else "open",
        "violated": lasting(one.violation_us),
        "extreme": f"{one.extreme:.2f} {unit}" if one.HasField("extreme") else "-",
        "mean": f"{one.mean:.2f} {unit}" if one.HasField("mean") else "-",
        "readings": str(one.readings),
        "revision": f"{one.revision} ({word(exposure_pb2.RevisionCause, one.cause)}{late}{state})",
    }


@app.command("list")
@with_client
def list_(
    client: Client,
    state: Annotated[list[str] | None, typer.Option(help="planned, in-transit, delivered or cancelled; several allowed.")] = None,
    reference: Annotated[str, typer.Option(help="Only those with exactly this reference.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 50,
) -> None:
    """Shipments, newest first, with verdict and number of excursions.

    Example: waybill shipment list --state in-transit
    """
    request = shipment_pb2.ListShipmentsRequest(reference=reference, page_size=min(limit, 500))
    for name in state or []:
        wanted = "SHIPMENT_STATE_" + name.upper().replace("-", "_")
        if wanted not in list(shipment_pb2.ShipmentState.keys()):
            raise typer.BadParameter(f"{name!r} is not planned, in-transit, delivered or cancelled", param_hint="--state")
        request.states.append(shipment_pb2.ShipmentState.Value(wanted))
    found = []
    for shipment in client.pages(client.shipments.ListShipments, request, "shipments"):
        found.append(shipment)
        if len(found) == limit:
            break
    out.print(shipments_table(client, found) if found else "no shipments")


def shipments_table(client: Client, shipments: Iterable[Any], *, worst_first: bool = False) -> Table:
    """Shipments with their verdicts, in the order given or those with the most excursions first; one call for each."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    shown = list(TABLE_WIDTHS)
    for name in ("journey", "state", "worst"):
        if sum(TABLE_WIDTHS[column] + 2 for column in shown) > out.width:
            shown.remove(name)
    for name in shown:
        justify: Literal["left", "right"] = "right" if name == "excursions" else "left"
        width = TABLE_WIDTHS[name]
        table.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis", min_width=min(width, 20), max_width=width)
    judged = []
    for shipment in shipments:
        request = shipment_pb2.GetExposureRequest(shipment_id=shipment.shipment_id)
        judged.append((shipment, client.call(client.shipments.GetExposure, request).exposure))
    if worst_first:
        judged.sort(key=lambda pair: (-pair[1].excursions, pair[0].shipment_id))
    for shipment, exposure in judged:
        cells: dict[str, str | Text] = {
            "shipment": shipment.shipment_id,
            "journey": escape(shipment.reference),
            "profile": shipment.profile_id,
            "state": word(shipment_pb2.ShipmentState, shipment.state),
            "excursions": str(exposure.excursions or ""),
            "worst": worst_text(exposure),
            "verdict": verdict_text(exposure.verdict),
        }
        table.add_row(*(cells[name] for name in shown))
    return table


def worst_text(exposure: exposure_pb2.CarrierExposure) -> str:
    """The limit with the longest violation among those with excursions: `warm-8 14.2 °C`."""
    rows = [row for row in exposure.limits if row.excursions]
    if not rows:
        return ""
    row = max(rows, key=lambda row: row.violation_us)
    extreme = f" {row.extreme:.1f} {metric_unit(row.limit.metric)}" if row.HasField("extreme") else ""
    return f"{row.limit.limit_id}{extreme}, {lasting(row.violation_us)}"
