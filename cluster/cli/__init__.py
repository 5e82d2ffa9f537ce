"""The command `waybill`."""

from __future__ import annotations

import sys

import typer
from rich.markup import escape

from cluster.cli import alerts, archive, backup, erp, feeding, history, holds, keys, outbox, replay, reports, shipments, stock, system, tags
from cluster.cli.common import Failed, err, show_problem
from cluster.client import Problem
from cluster.processes import StartError
from cluster.settings import SettingsError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Waybill tracks goods by their sensors: readings become excursions, geofence visits and alerts. "
    "Begin with `waybill demo`, or `waybill up` in one terminal and `waybill simulate` in another.",
)
app.command("up")(system.up)
app.command("demo")(system.demo)
app.command("status")(system.status)
app.command("backup")(backup.backup)
app.command("restore")(backup.restore)
app.command("simulate")(feeding.simulate)
app.command("import")(feeding.import_)
app.add_typer(shipments.app, name="shipment")
shipments.app.command("report")(reports.shipment_report)
app.add_typer(reports.app, name="report")
app.add_typer(history.app, name="history")
app.add_typer(archive.app, name="archive")
app.add_typer(replay.app, name="replay")
app.add_typer(keys.app, name="keys")
app.command("alerts")(alerts.alerts)
app.add_typer(alerts.app, name="alert")
app.add_typer(tags.app, name="tag")
app.command("profiles")(tags.profiles)
app.add_typer(stock.app, name="stock")
app.command("lots")(stock.lots)
app.add_typer(holds.app, name="holds")
app.add_typer(erp.app, name="erp")
app.add_typer(outbox.app, name="outbox")


def main(arguments: list[str] | None = None) -> None:
    """Runs the command. Exit codes: 0 done, 1 refused or not all taken, 2 wrong usage or an unusable file."""
    try:
        app(arguments)
    except Problem as problem:
        show_problem(problem)
        sys.exit(1)
    except (Failed, SettingsError, StartError) as error:
        err.print(f"[bold red]Error[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
