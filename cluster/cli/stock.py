"""`waybill stock` and `waybill lots`: what is where, lot by lot, and deliveries of the past brought in."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from cluster.cli.common import Failed, err, lasting, out, when, with_client, word
from cluster.client import Client
from cluster.importers import UnusableFile
from cluster.importers import scms as scms_file
from cluster.importers.scms_load import Loader
from waybill.v1 import common_pb2, inventory_pb2

app = typer.Typer(no_args_is_help=True, help="Stock of warehouses: sums, lines, the ledger's check, deliveries of the past.")

BY = ("warehouse", "zone", "item", "lot")
SHOWN_REASONS = 40

AsOf = Annotated[str, typer.Option("--as-of", help="As it was then, e.g. 2026-01-05T00:00Z; default: now.")]
WarehouseId = Annotated[str, typer.Option("--warehouse", help="Only this warehouse's.")]
ItemId = Annotated[str, typer.Option("--item", help="Only this item's.")]
Lot = Annotated[str, typer.Option("--lot", help="Only this lot's; with --item.")]


def moment(text: str, option: str) -> Timestamp | None:
    """A time given as an option; without a zone it is UTC. None where not given."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise Failed(f"{option}: {text!r} is no time; it looks like 2026-01-05T17:00Z") from error
    made = Timestamp()
    made.FromDatetime((found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC).replace(tzinfo=None))
    return made


def table(*columns: str) -> Table:
    """A table without frame; columns that begin with "#" are numbers."""
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in columns:
        made.add_column(name.removeprefix("#"), justify="right" if name.startswith("#") else "left")
    return made


@app.command()
@with_client
def show(
    client: Client,
    warehouse: WarehouseId = "",
    item: ItemId = "",
    lot: Lot = "",
    zone: Annotated[str, typer.Option("--zone", help="Only this zone's.")] = "",
    by: Annotated[str, typer.Option(help="What to sum by, with commas: warehouse, zone, item, lot.")] = "warehouse,item",
    as_of: AsOf = "",
) -> None:
    """Sums: on hand, held, reserved, available (on hand - held - reserved), in transit.

    Examples:

    waybill stock show --warehouse basel

    waybill stock show --item vaccine-a --by warehouse,lot --as-of 2026-01-05T00:00Z
    """
    words = [one.strip() for one in by.split(",") if one.strip()]
    unknown = [one for one in words if one not in BY]
    if unknown:
        raise Failed(f"--by: {unknown[0]!r} is not one of {', '.join(BY)}")
    request = inventory_pb2.QueryStockRequest(
        warehouse_id=warehouse,
        zone_id=zone,
        item_id=item,
        lot_number=lot,
        group_by=[inventory_pb2.StockDimension.Value(f"STOCK_DIMENSION_{one.upper()}") for one in words],
        as_of_time=moment(as_of, "--as-of"),
    )
    shown = table(*dict.fromkeys([*words, "item"]), "#on hand", "#held", "#reserved", "#available", "#in transit", "unit")
    for one in client.pages(client.inventory.QueryStock, request, "sums"):
        values = {"warehouse": one.warehouse_id, "zone": one.zone_id, "item": one.item_id, "lot": one.lot_number}
        named = [escape(values[name]) for name in dict.fromkeys([*words, "item"])]
        shown.add_row(*named, one.on_hand, _marked(one.held, "red"), one.reserved, one.available, one.in_transit, one.unit)
    out.print(shown if shown.row_count else "nothing in stock")


@app.command()
@with_client
def lines(
    client: Client,
    warehouse: Annotated[str, typer.Argument(help="The warehouse.")],
    item: ItemId = "",
    lot: Lot = "",
    as_of: AsOf = "",
) -> None:
    """Line by line: zone, item, lot, handling unit, status, quantity.

    Example: waybill stock lines basel --item vaccine-a
    """
    request = inventory_pb2.ListStockRequest(warehouse_id=warehouse, item_id=item, lot_number=lot, as_of_time=moment(as_of, "--as-of"))
    shown = table("zone", "item", "lot", "handling unit", "status", "#quantity", "unit")
    for one in client.pages(client.inventory.ListStock, request, "lines"):
        status = word(inventory_pb2.StockStatus, one.status) + (", on hold" if one.on_hold else "")
        place = one.zone_id or f"on {one.shipment_id}"
        style = "red" if one.on_hold else ""
        shown.add_row(*map(escape, (place, one.item_id, one.lot_number, one.handling_unit_id)), Text(status, style), one.quantity, one.unit)
    out.print(shown if shown.row_count else "nothing in stock")


@app.command()
@with_client
def verify(client: Client, warehouse: Annotated[str, typer.Argument(help="The warehouse.")]) -> None:
    """Checks the stock that is kept against the sum of the ledger. Exit code 1 where they differ.

    Example: waybill stock verify basel
    """
    found = client.call(client.inventory.VerifyStock, inventory_pb2.VerifyStockRequest(warehouse_id=warehouse))
    out.print(f"{found.lines:,} lines of {found.movements:,} movements: {len(found.mismatches)} differ")
    for one in found.mismatches:
        line = one.line
        where = f"{line.zone_id} {line.item_id} {line.lot_number} {line.handling_unit_id}"
        out.print(f"  {escape(where)}: kept {line.quantity}, ledger {one.ledger_quantity}")
    if found.mismatches:
        raise typer.Exit(1)


@with_client
def lots(
    client: Client,
    item: Annotated[str, typer.Argument(help="An item; with LOT: one lot with what is left of its stability budget.")] = "",
    lot: Annotated[str, typer.Argument(help="The lot's number.")] = "",
    held: Annotated[bool, typer.Option("--held", help="Only lots on hold.")] = False,
    warehouse: WarehouseId = "",
) -> None:
    """Lots by item and number; or one lot: where it is, its holds, what is left of its stability budget.

    Examples:

    waybill lots --held

    waybill lots vaccine-a L-2031
    """
    if lot:
        _one_lot(client.call(client.inventory.GetLot, inventory_pb2.GetLotRequest(item_id=item, lot_number=lot)).lot)
        return
    request = inventory_pb2.ListLotsRequest(item_id=item, on_hold_only=held, warehouse_id=warehouse)
    shown = table("item", "lot", "expires", "hold", "why")
    for one in client.pages(client.inventory.ListLots, request, "lots"):
        blocking = [hold for hold in one.holds if hold.state != inventory_pb2.HOLD_STATE_RELEASED]
        state = ", ".join(word(inventory_pb2.HoldState, hold.state) for hold in blocking)
        why = blocking[0].reason if blocking else ""
        shown.add_row(escape(one.item_id), escape(one.lot_number), when(one.expiry_time), Text(state, "red"), escape(why))
    out.print(shown if shown.row_count else "no such lots")


def _one_lot(lot: inventory_pb2.Lot) -> None:
    expires = f", expires {when(lot.expiry_time)}" if lot.HasField("expiry_time") else ""
    out.print(f"[bold]{escape(lot.item_id)} {escape(lot.lot_number)}[/]{expires}{'  [bold red]on hold[/]' if lot.on_hold else ''}")
    for line in lot.stock:
        where = f"{line.warehouse_id}/{line.zone_id}" if line.zone_id else f"on shipment {line.shipment_id}"
        unit = f" ({line.handling_unit_id})" if line.handling_unit_id else ""
        out.print(f"  {line.quantity} {line.unit} {word(inventory_pb2.StockStatus, line.status)} in {escape(where + unit)}")
    for hold in lot.holds:
        out.print(f"  hold {hold.hold_id} {word(inventory_pb2.HoldState, hold.state)}: {escape(hold.reason)}")
    for one in lot.exposures:
        for band in one.bands:
            low = f"{band.low:g}" if band.HasField("low") else "…"
            high = f"{band.high:g}" if band.HasField("high") else "…"
            left = f"{lasting(abs(band.remaining_s) * 1e6)} {'left' if band.remaining_s >= 0 else 'overdrawn'}"
            used = f"used {lasting(band.used_s * 1e6)} of {lasting(band.allowance_s * 1e6)}"
            told = f"{word(common_pb2.Metric, band.metric)} {low} to {high}: {used}, {left}"
            unit = f" ({one.handling_unit_id})" if one.handling_unit_id else ""
            uncovered = f", {lasting(band.uncovered_s * 1e6)} without readings" if band.uncovered_s else ""
            style = "red" if band.remaining_s < 0 else ""
            out.print(Text(f"  {one.carrier}{unit}: {told}{uncovered}{'  (worst)' if one.worst else ''}", style))


@app.command("import")
@with_client
def import_(
    client: Client,
    file: Annotated[Path, typer.Argument(help="CSV of the SCMS delivery history; gzip is recognised.")],
    prefix: Annotated[str, typer.Option(help="How the ids of what it makes begin.")] = "scms",
    limit: Annotated[int, typer.Option(help="Only so many lines; 0: all.", min=0)] = 0,
) -> None:
    """Health-commodity deliveries (USAID SCMS delivery history) as items, shipments and receipts.

    A delivery (ASN) becomes a shipment with its lines as lots, delivered when it was; each line is received into its country's warehouse.
    What is not a number or a date in weights, costs and dates is mended where the file itself tells how, else left out; the account at
    the end says of every value what became of it. Sending the file twice does no harm.

    Example: waybill stock import scms_delivery_history.csv.gz
    """
    try:
        read = scms_file.read(file, limit)
    except UnusableFile as error:
        raise Failed(f"{file}: {error}") from error
    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=err, transient=True)
    with bar:
        tasks: dict[str, object] = {}

        def at(what: str, done: int, total: int) -> None:
            task = tasks.setdefault(what, bar.add_task(what, total=total))
            bar.update(task, completed=done, total=total)  # type: ignore[arg-type]

        loaded = Loader(client, prefix, at).load(read)
    for line in read.account.report(SHOWN_REASONS):
        out.print(escape(line))
    out.print(escape(str(loaded)))
    for refusal in loaded.refused[:20]:
        err.print(f"  {escape(refusal)}")
    if loaded.refused or read.account.refused_rows:
        raise typer.Exit(1)


def _marked(quantity: str, style: str) -> Text:
    return Text(quantity, "" if quantity == "0" else style)
