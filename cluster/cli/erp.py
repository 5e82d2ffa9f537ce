"""`waybill erp`: the ERP that stock is kept in step with."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from actors.journal import delivery, outbox
from actors.journal.store import Store
from cluster.cli.common import Failed, err, lasting, out
from cluster.cli.outbox import opened, show_piles
from cluster.client import now_us
from cluster.outside import outside_config, talks_outside
from cluster.settings import load
from services.erp.reconcile import reconcile as compare
from services.erp.run import Config, ErpConfig, ErpSync, cursor_name, status_name
from services.erp.waybill import ApiRefused, Mappings, Waybill
from services.outside import LockedOut, OutsideError

app = typer.Typer(
    no_args_is_help=True,
    help="Keeps stock in step with an ERP, in both directions. Set WAYBILL_ERP_URL, WAYBILL_ERP_USER and WAYBILL_ERP_PASSWORD_FILE, try "
    "with `waybill erp connect`, then `waybill up` does the rest. docs/erp.md says how the two map.",
)

SHOWN = 50


@contextmanager
def _parts() -> Iterator[tuple[Config, ErpConfig, Store, Waybill]]:
    settings = load()
    if not talks_outside(settings) or not settings.erp_url:
        raise Failed(
            "no ERP is set: WAYBILL_ERP_URL, for Tryton https://HOST:PORT/DATABASE, with WAYBILL_ERP_USER and WAYBILL_ERP_PASSWORD_FILE"
        )
    config = Config.of(outside_config(settings, f"{settings.host}:{settings.port}"))
    assert config.erp is not None
    with opened() as store:
        waybill = Waybill(config.access)
        try:
            yield config, config.erp, store, waybill
        except LockedOut as error:
            raise Failed(f"{error}. Mend WAYBILL_ERP_USER, the password or the user's rights; nothing is lost meanwhile") from None
        except OutsideError as error:
            raise Failed(f"{error}. Nothing is lost: it is tried again by `waybill up`, or with this command") from None
        except ApiRefused as error:
            raise Failed(f"Waybill: {error}; is `waybill up` running at {config.target}?") from None
        finally:
            waybill.close()


@app.command()
def connect() -> None:
    """Try address and credentials, look at what is there, make what is needed there, and bring all of it in for the first time.

    Can be done again at any time. Afterwards every movement and hold of mapped places is told to the ERP.

    Example: WAYBILL_ERP_URL=http://localhost:8000/company WAYBILL_ERP_PASSWORD_FILE=secret waybill erp connect
    """
    with _parts() as (_, erp, store, waybill):
        sync = ErpSync(store, waybill, erp, lambda lot: None)
        out.print(f"[bold green]connected[/] {escape(sync.connector.check())}")
        store.write(outbox.register, erp.system, now_us()).result()
        with err.status("bringing its items, places and movements in"):
            told = sync.once()
        out.print(f"brought in: {told}")
        zones = sorted(set(Mappings(waybill, erp.system).zones().values()))
        out.print("places: " + ", ".join("/".join(part for part in zone if part) for zone in zones))
        out.print("Next: `waybill erp reconcile` compares the books, `waybill erp status` shows how it goes")


@app.command()
def sync() -> None:
    """Bring in now what changed in the ERP (`waybill up` does it every WAYBILL_ERP_POLL_S).

    Example: waybill erp sync
    """
    with _parts() as (_, erp, store, waybill):
        told = ErpSync(store, waybill, erp, lambda lot: None).once()
        out.print(str(told))
        if told.refused:
            raise Failed("some movements were refused and are tried again at each sync: `waybill erp status` says which and why")


@app.command()
def status() -> None:
    """Whether the ERP answers, how the last sync went, what waits to be told to it, and what either side refused.

    Example: waybill erp status
    """
    with _parts() as (_, erp, store, waybill):
        kept = json.loads(delivery.remembered(store.engine, status_name(erp.system)) or "{}")
        if kept:
            ago = lasting(now_us() - kept["at_us"])
            out.print(f"last sync {ago} ago: [red]{escape(kept['error'])}[/]" if kept["error"] else f"last sync {ago} ago: {kept['told']}")
        for one in kept.get("refused", ()):
            out.print(f"  [yellow]{escape(one['warehouse'])} {escape(one['key'])}: {escape(one['why'])}[/]")
        if not delivery.remembered(store.engine, cursor_name(erp.system)):
            out.print("never synced to its end: `waybill erp connect`")
        show_piles([pile for pile in delivery.destinations(store.engine) if pile.destination == erp.system])
        out.print(f"[green]answers[/] {escape(ErpSync(store, waybill, erp, lambda lot: None).connector.check())}")


@app.command()
def reconcile(
    every: Annotated[bool, typer.Option("--all", help=f"Show all differences; default: the first {SHOWN}.")] = False,
) -> None:
    """Compare Waybill's ledger with the ERP's book, line by line. Records nothing. Exit code 2 where they differ.

    What waits in the outbox, or was booked there and is not fetched yet, is a difference until it has arrived.

    Example: waybill erp reconcile
    """
    with _parts() as (_, erp, store, waybill):
        mappings = Mappings(waybill, erp.system)
        connector = ErpSync(store, waybill, erp, lambda lot: None).connector
        with err.status("reading both books"):
            report = compare(waybill, connector, mappings, f"reconcile-{uuid.uuid4().hex[:12]}", now_us())
        waiting = sum(
            pile.counts.get(delivery.PENDING, 0) for pile in delivery.destinations(store.engine) if pile.destination == erp.system
        )
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("warehouse", "zone", "item", "lot", "Waybill", erp.system, "difference", "last movements"):
        table.add_column(name, justify="right" if name in ("Waybill", erp.system, "difference") else "left")
    for warehouse_id, one in report.differences if every else report.differences[:SHOWN]:
        keys = ", ".join(movement.key for movement in one.explained_by[:3])
        table.add_row(
            warehouse_id, one.zone_id, one.item_id, one.lot_number, one.left_quantity, one.right_quantity, one.difference, escape(keys)
        )
    if report.differences:
        out.print(table)
    out.print(f"{report.equal:,} lines equal, {len(report.differences):,} differ, {report.unknown:,} of the ERP mean nothing here")
    if waiting:
        out.print(f"{waiting:,} messages have not been delivered yet")
    for line in report.refused[:SHOWN]:
        out.print(f"[yellow]{escape(line)}[/]")
    if report.differences or report.refused:
        raise Failed("the books differ")
