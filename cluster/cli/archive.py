"""`waybill archive`: closed journeys into Parquet, what is there, whether it is whole, and what the journal may give up for it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from sqlalchemy.exc import OperationalError, ProgrammingError

from actors.journal import archive as manifest
from actors.journal.store import Store, open_store
from actors.rules.errors import DomainError
from cluster.archive import check, retain
from cluster.archive import run as archive_run
from cluster.archive.filesystem import Place, UnknownPlace
from cluster.archive.writer import read_manifest
from cluster.cli.common import Failed, lasting, out, when_us
from cluster.settings import Settings, load

app = typer.Typer(
    no_args_is_help=True,
    help="The archive: closed journeys as a Parquet dataset that DuckDB, polars and pandas read as it is (docs/archive.md). "
    "`run` adds what closed, `verify` checks every byte, `retain` lets the journal give up what the archive has.",
)

Location = Annotated[
    str, typer.Option("--archive", metavar="URL", help="Folder or URL of the archive; default: WAYBILL_ARCHIVE, or the running system's.")
]
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def span_us(text: str, option: str) -> int:
    """A duration such as "90d" as microseconds. Raises Failed.

    >>> span_us("2h", "--closed-for")
    7200000000
    """
    found = _SPAN.fullmatch(text)
    if found is None:
        raise Failed(f"{option} {text!r} is no duration: write 30m, 12h, 90d or 2w")
    return round(float(found.group(1)) * _SECONDS[found.group(2)] * 1_000_000)


@contextmanager
def opened(location: str) -> Iterator[tuple[Settings, Store, Place]]:
    """The settings, the way to the database, and the archive's place. Raises Failed where the system is not running."""
    settings = load()
    if settings.is_sqlite and not (settings.data_dir / "waybill.db").exists() and not settings.database_url:
        raise Failed(f"there is no database in {settings.data_dir}: name WAYBILL_DATA_DIR or WAYBILL_DATABASE_URL of the system")
    store = open_store(settings.url_text)
    try:
        known = "" if settings.archive else manifest.root(store.engine)  # what is set here goes before what the system was started with
        yield settings, store, Place.of(location or known or settings.archive_location)
    except UnknownPlace as error:
        raise Failed(str(error)) from None
    except DomainError as error:
        raise Failed(f"{error}; is Waybill running (`waybill up`)?") from None
    except (OperationalError, ProgrammingError) as error:
        reason = str(error.orig).splitlines()[0]
        raise Failed(
            f"the database cannot be read ({reason}): is this its URL, and was it started by this version (`waybill up`)?"
        ) from None
    finally:
        store.close()


def bar(unit: str) -> Progress:
    """A progress bar."""
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit), console=out, transient=True)


@app.command("run")
def run(
    closed_for: Annotated[str, typer.Option("--closed-for", help="Only what closed so long ago, such as 1h or 7d.")] = "0s",
    shipment: Annotated[list[str] | None, typer.Option("--shipment", help="Only this shipment; may be repeated.")] = None,
    location: Location = "",
) -> None:
    """Archive the shipments that closed and are not archived, and again those of which something came afterwards.

    Example: waybill archive run --closed-for 7d
    """
    now_us = time.time_ns() // 1000
    with opened(location) as (_, store, place), bar("shipments") as progress:
        task = progress.add_task("archiving", total=None)

        def told(done: int, total: int, readings: int) -> None:
            progress.update(task, completed=done, total=total, description=f"archiving, {readings:,} readings")

        only = frozenset(shipment) if shipment else None
        account = archive_run.run(
            store, place, now_us - span_us(closed_for, "--closed-for"), lambda: time.time_ns() // 1000, only=only, progress=told
        )
    out.print(
        f"{account.shipments:,} shipments ({account.again:,} of them again), {account.readings:,} readings, {account.parts:,} parts, "
        f"{account.bytes / 1e6:,.1f} MB, in {account.elapsed_s:.1f} s; {account.swept:,} leftover files removed; {place.location}"
    )


@app.command("list")
def list_() -> None:
    """The parts of the archive.

    Example: waybill archive list
    """
    table = Table("month", "part", "shipments", "readings", "MB", "made", box=None)
    with opened("") as (_, store, _place):
        parts = manifest.parts(store.engine)
    for part in parts:
        size = sum(file["bytes"] for file in part["files"]) / 1e6
        table.add_row(
            part["month"], part["part_id"], f"{part['carriers']:,}", f"{part['readings']:,}", f"{size:,.1f}", when_us(part["made_us"])
        )
    out.print(table if parts else "Nothing is archived yet: `waybill archive run`.")


@app.command("verify")
def verify(location: Location = "") -> None:
    """Check every file against the manifest: bytes, checksum, rows and columns. With --archive, against the archive's own manifest.json.

    Example: waybill archive verify
    """
    if location:
        try:
            parts = read_manifest(Place.of(location))
        except (OSError, ValueError, UnknownPlace) as error:
            raise Failed(f"{location} is no archive: {error}") from None
    else:
        with opened("") as (_, store, _place):
            parts = manifest.parts(store.engine)
    if not parts:
        raise Failed("nothing is archived, so there is nothing to check: `waybill archive run`")
    total = sum(file["bytes"] for part in parts for file in part["files"])
    with Progress(TextColumn("checking"), BarColumn(), DownloadColumn(), console=out, transient=True) as progress:
        task = progress.add_task("checking", total=total)
        faults, count = check.verify(parts, lambda size: progress.advance(task, size))
    for fault in faults:
        out.print(f"[red]{fault.name}[/] {fault.why}")
    out.print(f"{count:,} files, {total / 1e6:,.1f} MB: " + (f"{len(faults)} are not what was published" if faults else "all as published"))
    if faults:
        raise typer.Exit(1)


@app.command("retain")
def retain_(
    older_than: Annotated[str, typer.Option("--older-than", help="Give up what was received longer ago, such as 90d.")],
    location: Location = "",
) -> None:
    """Let the journal give up old readings. What is on no archived journey goes into the archive first; history reads both as one.

    Example: waybill archive retain --older-than 90d
    """
    before_us = time.time_ns() // 1000 - span_us(older_than, "--older-than")
    started = time.monotonic()
    with opened(location) as (_, store, place):
        found = retain.retain(store, place, before_us, lambda: time.time_ns() // 1000)
    for one in found:
        held = f" ({one.held_back})" if one.held_back else ""
        out.print(f"shard {one.shard}: entries up to {one.upto:,} are in the archive alone, {one.loose:,} loose readings archived{held}")
    out.print(f"done in {lasting((time.monotonic() - started) * 1e6)}")
