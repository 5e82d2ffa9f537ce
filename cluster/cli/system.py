"""`waybill up`, `waybill demo`, `waybill status`: the whole of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.markup import escape
from rich.table import Table

from cluster.cli.common import Failed, lasting, out, when_us, with_client
from cluster.client import Client
from cluster.overview import Overview, overview
from cluster.settings import load
from waybill.v1 import shipment_pb2

STALE_S = 15.0


def up(
    data_dir: Annotated[Path | None, typer.Option(help="Folder for the database and logs; default: waybill-data.")] = None,
    database_url: Annotated[str | None, typer.Option(help="sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; anything but loopback needs TLS.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0: any free one.")] = None,
    shards: Annotated[int | None, typer.Option(help="Number of shards; fixed for a database when it is first used.")] = None,
    doors: Annotated[int | None, typer.Option(help="Number of door processes.")] = None,
    address: Annotated[str | None, typer.Option(help="Join the Ray cluster at this address, do not start one.")] = None,
) -> None:
    """Start everything on this machine, keep it running, and say where to connect. Ctrl-C ends all of it.

    All other settings come from the environment: see docs/operations.md.

    Example: waybill up --port 50051
    """
    from cluster.boot import Running
    from cluster.supervisor import up as keep_up

    settings = load(data_dir=data_dir, database_url=database_url, host=host, port=port, shards=shards, doors=doors, ray_address=address)

    def ready(running: Running) -> None:
        shown = running.settings.url.render_as_string(hide_password=True)
        tls = "" if running.settings.tls_cert is None else " (TLS)"
        out.print(f"[bold green]Waybill serves at {running.target}[/]{tls}  database {escape(shown)}, {running.settings.shards} shards")
        out.print(f"[dim]Ray at {running.ray_address}, namespace {escape(running.settings.ray_namespace)}[/]")
        out.print(f"Next: waybill simulate --server {running.target}    waybill alerts --watch --server {running.target}")

    keep_up(settings, say=lambda text: out.print(f"[dim]{escape(text)}[/]"), ready=ready)


def demo(
    data_dir: Annotated[Path, typer.Option(help="Folder for the demo's database; what is in it is replaced.")] = Path("waybill-data/demo"),
    seed: Annotated[int, typer.Option(help="The same seed gives the same journeys.", min=0)] = 7,
    days: Annotated[float, typer.Option(help="Days of travel.", min=0.5, max=30)] = 3.0,
    seconds: Annotated[float, typer.Option(help="How long these days take.", min=1)] = 40.0,
    stay: Annotated[bool, typer.Option("--stay", help="Keep it running at the end, until Ctrl-C.")] = False,
) -> None:
    """Start everything, send a small fleet on its way in accelerated time, and show what Waybill makes of it.

    Example: waybill demo
    """
    from cluster.demo import run

    run(data_dir, seed=seed, days=days, seconds=seconds, stay=stay)


@with_client
def status(client: Client) -> None:
    """Whether it serves; shards and their owners, journal heads, tags, shipments, alerts.

    What lies in the database is shown where the settings (WAYBILL_DATA_DIR, WAYBILL_DATABASE_URL) lead to it.

    Example: waybill status
    """
    serving = _health(client)
    style = "bold green" if serving == "SERVING" else "bold red"
    out.print(f"doors at {client.server}: [{style}]{serving}[/]")
    if serving == "SERVING":
        begun = time.perf_counter()
        client.call(client.shipments.ListShipments, shipment_pb2.ListShipmentsRequest(page_size=1), patience_s=2)
        out.print(f"one call there and back: {(time.perf_counter() - begun) * 1e3:.1f} ms")
    view = overview(load())
    if isinstance(view, str):
        out.print(f"[dim]{escape(view)}[/]")
    else:
        _database(view)
    if serving != "SERVING":
        raise Failed(f"nothing serves at {client.server}; `waybill up` starts it, --server HOST:PORT says where it is")


def _health(client: Client) -> str:
    try:
        answer = health_pb2_grpc.HealthStub(client.channel).Check(health_pb2.HealthCheckRequest(), timeout=3)
    except grpc.RpcError as error:
        code = error.code() if isinstance(error, grpc.Call) else None
        return str(code.name) if code else "UNREACHABLE"
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def _database(view: Overview) -> None:
    shipments = ", ".join(f"{count:,} {state.lower().replace('_', ' ')}" for state, count in sorted(view.shipments.items())) or "none"
    out.print(f"tags: {sum(view.tags.values()):,}   shipments: {shipments}")
    out.print(f"excursions: {view.excursions:,}   alerts waiting for people: {view.open_alerts:,}   last event: {view.last_event:,}")
    size = "" if view.bytes is None else f"   database: {view.bytes / 1e6:,.1f} MB"
    out.print(f"outbox: {view.outbox:,}{size}")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("shard", "tags", "journal head", "snapshot at", "epoch", "owner", "heartbeat"):
        table.add_column(name, justify="right" if name not in ("owner", "heartbeat") else "left")
    now = time.time_ns() // 1000
    for owner in view.owners:
        age_us = max(0, now - owner.heartbeat_us)
        beat = f"{lasting(age_us)} ago"
        table.add_row(
            str(owner.shard),
            f"{view.tags.get(owner.shard, 0):,}",
            f"{owner.journal_head:,}",
            f"{owner.snapshot_sequence:,}",
            str(owner.epoch),
            f"pid {owner.pid} on {owner.node}"[:40],
            beat if age_us < STALE_S * 1e6 else f"[red]{beat}[/]",
        )
    out.print(table)
    for one in view.damaged:
        sensed = "" if one.from_us is None or one.until_us is None else f", sensed from {when_us(one.from_us)} to {when_us(one.until_us)}"
        told = f"{one.name}: {one.readings:,} readings{sensed}, are in quarantine and left out: {one.why}"
        out.print(f"[red]damaged in shard {one.shard}:[/] {escape(told)}")
