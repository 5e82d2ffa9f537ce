"""`waybill holds`: lots that may not go out until a person decides."""

from __future__ import annotations

import getpass
from enum import StrEnum
from typing import Annotated

import typer
from rich.markup import escape
from rich.text import Text

from cluster.cli.common import Failed, out, when, with_client, word
from cluster.cli.stock import table
from cluster.client import Client
from waybill.v1 import inventory_pb2

app = typer.Typer(no_args_is_help=True, help="Holds of lots: list, show, place, decide.")

STYLE = {
    inventory_pb2.HOLD_STATE_ACTIVE: "bold red",
    inventory_pb2.HOLD_STATE_PARTIALLY_RELEASED: "yellow",
    inventory_pb2.HOLD_STATE_RELEASED: "green",
    inventory_pb2.HOLD_STATE_REJECTED: "red",
}

HoldId = Annotated[str, typer.Argument(help="The hold's id, as `waybill holds list` shows it.")]
Actor = Annotated[str, typer.Option("--actor", help="Who does it; default: your login name.")]


class Verdict(StrEnum):
    """What can be decided."""

    RELEASE = "release"
    PARTIAL = "partial"
    REJECT = "reject"


@app.command("list")
@with_client
def list_(
    client: Client,
    everything: Annotated[bool, typer.Option("--all", help="Decided ones, too.")] = False,
    item: Annotated[str, typer.Option("--item", help="Only this item's.")] = "",
    shipment: Annotated[str, typer.Option("--shipment", help="Only for excursions on this shipment.")] = "",
) -> None:
    """Holds that wait for a decision, newest first.

    Example: waybill holds list --item vaccine-a
    """
    states = [] if everything else [inventory_pb2.HOLD_STATE_ACTIVE, inventory_pb2.HOLD_STATE_PARTIALLY_RELEASED]
    request = inventory_pb2.ListHoldsRequest(states=states, item_id=item, shipment_id=shipment)
    shown = table("hold", "placed", "state", "item", "lot", "why")
    for one in client.pages(client.inventory.ListHolds, request, "holds"):
        state = Text(word(inventory_pb2.HoldState, one.state) + (f", reopened {one.reopened}x" if one.reopened else ""), STYLE[one.state])
        shown.add_row(one.hold_id, when(one.placed_time), state, escape(one.item_id), escape(one.lot_number), escape(one.reason))
    out.print(shown if shown.row_count else "no holds wait for a decision")


@app.command()
@with_client
def show(client: Client, hold: HoldId) -> None:
    """One hold: the excursions it is about, and its history.

    Example: waybill holds show ID
    """
    one = client.call(client.inventory.GetHold, inventory_pb2.GetHoldRequest(hold_id=hold)).hold
    state = word(inventory_pb2.HoldState, one.state)
    out.print(Text.assemble((one.hold_id, "bold"), f"  {one.item_id} {one.lot_number}  ", (state, STYLE[one.state]), f"  etag {one.etag}"))
    for about in one.excursions:
        end = when(about.ended_time) if about.HasField("ended_time") else "still going on"
        worst = f", worst {about.extreme:g}" if about.HasField("extreme") else ""
        gone = "  [dim](never was)[/]" if about.retracted else ""
        out.print(f"  {escape(about.limit_id)} on {escape(about.carrier)}: {when(about.started_time)} to {end}{worst}{gone}")
    for change in one.history:
        by = f" by {change.actor}" if change.actor else ""
        out.print(f"  [dim]{when(change.time, seconds=True)}[/] {change.change}{escape(by)}: {escape(change.text)}")
    if one.state in (inventory_pb2.HOLD_STATE_ACTIVE, inventory_pb2.HOLD_STATE_PARTIALLY_RELEASED):
        out.print(f"Next: waybill holds decide {one.hold_id} release|partial|reject --reason …")


@app.command()
@with_client
def place(
    client: Client,
    item: Annotated[str, typer.Argument(help="The lot's item.")],
    lot: Annotated[str, typer.Argument(help="The lot's number.")],
    reason: Annotated[str, typer.Option(help="Why.")],
    actor: Actor = "",
) -> None:
    """Puts a lot on hold: it cannot be reserved, picked or shipped until a person decides.

    Example: waybill holds place vaccine-a L-1 --reason "label is wrong"
    """
    request = inventory_pb2.PlaceHoldRequest(item_id=item, lot_number=lot, actor=actor or getpass.getuser(), reason=reason)
    out.print(f"hold {client.call(client.inventory.PlaceHold, request).hold.hold_id}")


@app.command()
@with_client
def decide(
    client: Client,
    hold: HoldId,
    verdict: Annotated[Verdict, typer.Argument(help="release: it may go out; partial: only what --release names; reject: never.")],
    reason: Annotated[str, typer.Option(help="Why; kept for good.")],
    release: Annotated[
        list[str] | None, typer.Option(help="partial: WAREHOUSE, WAREHOUSE/ZONE, or unit:HANDLING-UNIT; several allowed.")
    ] = None,
    actor: Actor = "",
    etag: Annotated[str, typer.Option("--etag", help="Decide only if the hold still has this etag; default: the one it has now.")] = "",
) -> None:
    """Decides a hold. When late data then changes what it was about, it waits for a decision again.

    Examples:

    waybill holds decide H-abc release --reason "12 minutes at 8.4 °C, within the budget"

    waybill holds decide H-abc partial --release basel/cold --reason "never on the truck"
    """
    if (verdict is Verdict.PARTIAL) != bool(release):
        raise Failed("partial takes --release, and the others do not")
    if not etag:
        etag = client.call(client.inventory.GetHold, inventory_pb2.GetHoldRequest(hold_id=hold)).hold.etag
    word_of = {Verdict.RELEASE: "RELEASE", Verdict.PARTIAL: "PARTIALLY_RELEASE", Verdict.REJECT: "REJECT"}
    request = inventory_pb2.DecideHoldRequest(
        hold_id=hold,
        etag=etag,
        decision=inventory_pb2.HoldDecision.Value(f"HOLD_DECISION_{word_of[verdict]}"),
        places=[_place(one) for one in release or []],
        actor=actor or getpass.getuser(),
        reason=reason,
    )
    found = client.call(client.inventory.DecideHold, request).hold
    out.print(f"{found.hold_id} is {word(inventory_pb2.HoldState, found.state)}")


def _place(text: str) -> inventory_pb2.HoldPlace:
    if text.startswith("unit:"):
        return inventory_pb2.HoldPlace(handling_unit_id=text.removeprefix("unit:"))
    warehouse_id, _, zone_id = text.partition("/")
    return inventory_pb2.HoldPlace(warehouse_id=warehouse_id, zone_id=zone_id)
