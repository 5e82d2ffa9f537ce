"""`waybill simulate` and `waybill import`: readings made up, and readings recorded."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from cluster.cli.common import Failed, err, lasting, out, when_us, with_client
from cluster.client import Client, now_us
from cluster.importers import Account, ChirpStack, FridgeTag, GpsCsv, IButton, Parser, RowError, UnusableFile, parse_mapping, zone
from cluster.importers.base import Clock
from cluster.importers.gps_csv import MPS
from cluster.importers.send import Journey, begin_journey, import_file, scan
from cluster.simulate import Faults, Fleet
from cluster.simulate.playback import CARRIED_TAGS, Playback

SHOWN_BAD = 20
MAX_TAGS = 1_000_000


def _time(text: str | None, option: str, zone_name: str | None) -> int | None:
    """A time given as an option, in microseconds since 1970; without a zone in it, in --timezone, else UTC."""
    if text is None:
        return None
    try:
        return Clock("iso", zone(zone_name or "UTC")).read(text)
    except (RowError, UnusableFile) as error:
        raise Failed(f"{option}: {error}; it looks like 2022-03-31T17:00 or 2022-03-31T22:00Z") from error


@with_client
def simulate(
    client: Client,
    tags: Annotated[int, typer.Option(help="Number of tags.", min=1, max=MAX_TAGS)] = 200,
    days: Annotated[float, typer.Option(help="Days of travel.", min=0.01, max=3660)] = 3.0,
    speed: Annotated[float, typer.Option(help="Simulated seconds a second; 0: as fast as Waybill takes them.", min=0)] = 0.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same readings.", min=0)] = 1,
    start: Annotated[str | None, typer.Option(help="Begin, e.g. 2026-01-05T00:00Z; default: so that it ends now.")] = None,
    gateways: Annotated[int, typer.Option(help="Gateways, each with a stream of its own.", min=1, max=1000)] = 4,
    interval: Annotated[float, typer.Option(help="Seconds between readings of a reefer's tag.", min=1)] = 300.0,
    faults: Annotated[str, typer.Option(help="all, none, or names with commas: " + ", ".join(Faults.__dataclass_fields__))] = "all",
    carried: Annotated[int, typer.Option(help="At most so many tags ride on shipments; the rest only report.", min=0)] = CARRIED_TAGS,
    name: Annotated[str, typer.Option(help="How the ids of tags and shipments begin; default: simSEED.")] = "",
) -> None:
    """A seeded fleet: reefers at sea and on the road, parcels and cold rooms, with all that goes wrong on the way.

    It creates warehouses and shipments, puts tags on them, and streams their readings from several gateways: through dead zones with
    backlog, with wrong clocks, repeats, failing sensors, doors left open and compressors that fail.

    Examples:

    waybill simulate --tags 50 --days 7

    waybill simulate --tags 1000 --days 1 --speed 600      (an hour in six seconds)

    waybill simulate --tags 1000000 --days 0.1 --gateways 16 --faults none
    """
    try:
        chosen = Faults.parse(faults)
    except ValueError as error:
        raise Failed(f"--faults: {error}") from error
    now = now_us()
    begin = _time(start, "--start", None)
    if begin is None:
        begin = now if speed == 1 else now - round(days * 86_400e6)
    fleet = Fleet(
        tags, seed=seed, days=days, start_us=begin, gateways=gateways, interval_s=interval, faults=chosen, name=name or f"sim{seed}"
    )
    moments = fleet.steps
    with _bar(TextColumn("{task.fields[text]}")) as bar:
        task = bar.add_task("fleet", total=moments, text="making warehouses and tags")

        def at(us: int) -> None:
            done = playback.totals
            step = (us - fleet.start_us) / 1e6 / interval
            bar.update(
                task, completed=min(step, moments), text=f"{when_us(us)}  {done.sent:,} readings, {len(playback.shipments):,} shipments"
            )

        playback = Playback(client, fleet, speed=speed, carried=carried, at=at)
        try:
            playback.prepare()
            totals = playback.run()
        except KeyboardInterrupt:
            playback.stop.set()
            raise
        bar.update(task, completed=moments)
    out.print(
        f"{totals.sent:,} readings sent of {tags:,} tags on {len(playback.shipments):,} shipments: {totals.accepted:,} accepted, "
        f"{totals.duplicate:,} duplicate, {totals.conflicting:,} conflicting, {totals.refused:,} refused; {totals.backlog:,} came late"
    )
    out.print("Next: `waybill shipment list`, `waybill alerts`")


class Format(StrEnum):
    """Formats that `waybill import` reads."""

    IBUTTON = "ibutton"
    CHIRPSTACK = "chirpstack"
    FRIDGE_TAG = "fridge-tag"
    GPS_CSV = "gps-csv"


@with_client
def import_(
    client: Client,
    format: Annotated[Format, typer.Argument(help="What the files are.")],
    files: Annotated[list[Path], typer.Argument(help="The files; gzip is recognised.")],
    timezone: Annotated[str | None, typer.Option(help="Zone of times that carry none: America/Chicago, Europe/Berlin, UTC, ...")] = None,
    tag: Annotated[str | None, typer.Option(help="ibutton, fridge-tag: use this tag id in place of the device's own number.")] = None,
    tag_prefix: Annotated[str, typer.Option(help="Put this before every tag id.")] = "",
    field: Annotated[list[str] | None, typer.Option(help="chirpstack: FIELD=METRIC for a decoded field; FIELD= leaves it out.")] = None,
    tag_column: Annotated[str | None, typer.Option(help="gps-csv: column of the tag id.")] = None,
    time_column: Annotated[str | None, typer.Option(help="gps-csv: column of the time.")] = None,
    lat_column: Annotated[str | None, typer.Option(help="gps-csv: column of the latitude, degrees.")] = None,
    lon_column: Annotated[str | None, typer.Option(help="gps-csv: column of the longitude, degrees.")] = None,
    speed_column: Annotated[str | None, typer.Option(help="gps-csv: column of the speed.")] = None,
    speed_unit: Annotated[str, typer.Option(help="gps-csv: mps, kmh, knots or mph.")] = "mps",
    accuracy_column: Annotated[str | None, typer.Option(help="gps-csv: column of the accuracy, metres.")] = None,
    time_format: Annotated[str | None, typer.Option(help="iso, unix, unix_ms or a strptime format such as '%d/%m/%Y %H:%M'.")] = None,
    delimiter: Annotated[str, typer.Option(help="gps-csv: what separates columns.")] = ",",
    shipment: Annotated[str | None, typer.Option(help="Create this shipment and put the files' tags on it.")] = None,
    profile: Annotated[str, typer.Option(help="With --shipment: what it is judged by (`waybill profiles`).")] = "",
    from_: Annotated[str | None, typer.Option("--from", help="With --shipment: since when; default: each tag's first reading.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="With --shipment: until when; default: it is not over.")] = None,
) -> None:
    """Streams recordings into Waybill. Bad rows are reported with file, line and reason; the good ones are kept.

    ibutton: CSV of iButton loggers; their clock is local: give --timezone. chirpstack: LoRaWAN events as JSON lines.
    fridge-tag: export of Berlinger Fridge-tags: the lowest and highest value of each day at its time. gps-csv: any CSV of positions.

    Sending a file twice does no harm: what is known is a duplicate. Exit code: 0 all taken, 1 some rows were not, 2 a file was unusable.

    Examples:

    waybill import ibutton logger.csv --timezone America/Chicago

    waybill import ibutton logger.csv --timezone America/Chicago --shipment P-1 --profile usp-crt --from 2022-03-31T17:00

    waybill import chirpstack uplinks.jsonl.gz --field level=pressure_hpa

    waybill import gps-csv ships.csv --tag-column id --time-column at --lat-column lat --lon-column lon --time-format unix
    """
    try:
        columns = (tag_column, time_column, lat_column, lon_column)
        parser = _parser(format, timezone, tag, field or [], columns, speed_column, speed_unit, accuracy_column, time_format, delimiter)
    except ValueError as error:
        raise Failed(str(error)) from error
    if shipment is None and (profile or from_ or until):
        raise Failed("--profile, --from and --until belong to --shipment")
    if shipment is not None:
        journey = Journey(shipment, profile, _time(from_, "--from", timezone), _time(until, "--until", timezone))
        found: dict[str, tuple[int, int]] = {}
        for path in files:
            for tag_id, (first, last) in scan(path, parser, prefix=tag_prefix).items():
                known = found.get(tag_id, (first, last))
                found[tag_id] = (min(first, known[0]), max(last, known[1]))
        if found:
            created = begin_journey(client, journey, found)
            out.print(f"shipment {escape(shipment)} {'created' if created else 'was there already'}, with {len(found)} tags")
    accounts = []
    with _bar(TextColumn("{task.fields[text]}")) as bar:
        for path in files:
            task = bar.add_task(path.name, total=None, text="")

            def progress(account: Account, task: object = task) -> None:
                bar.update(task, text=f"{account.read - account.unsent:,} readings")  # type: ignore[arg-type]

            account = import_file(client, path, parser, prefix=tag_prefix, progress=progress)
            bar.update(task, total=1, completed=1, text=f"{account.read:,} readings")
            accounts.append(account)
    for account in accounts:
        _report(account)
    if any(account.unusable for account in accounts):
        raise typer.Exit(2)
    if any(account.bad or account.refused for account in accounts):
        raise typer.Exit(1)


def _parser(
    format: Format,
    timezone: str | None,
    tag: str | None,
    fields: list[str],
    columns: tuple[str | None, str | None, str | None, str | None],
    speed_column: str | None,
    speed_unit: str,
    accuracy_column: str | None,
    time_format: str | None,
    delimiter: str,
) -> Parser:
    where = zone(timezone)
    if format is Format.IBUTTON:
        return IButton(where, tag, time_format) if time_format else IButton(where, tag)
    if format is Format.CHIRPSTACK:
        return ChirpStack(parse_mapping(fields))
    if format is Format.FRIDGE_TAG:
        return FridgeTag(where, tag)
    tag_column, time_column, lat_column, lon_column = columns
    if not (tag_column and time_column and lat_column and lon_column):
        raise ValueError("gps-csv needs --tag-column, --time-column, --lat-column and --lon-column")
    if speed_unit not in MPS:
        raise ValueError(f"--speed-unit {speed_unit!r} is not one of {', '.join(MPS)}")
    if len(delimiter) != 1:
        raise ValueError("--delimiter is one character")
    return GpsCsv(
        tag_column, time_column, lat_column, lon_column, speed_column, speed_unit, accuracy_column, time_format or "iso", where, delimiter
    )


def _report(account: Account) -> None:
    """What became of a file's rows."""
    for item in (*account.bad[:SHOWN_BAD], *account.refused[:SHOWN_BAD]):
        err.print(f"{escape(account.path)}:{item.line}: {escape(item.reason)}", soft_wrap=True)
    hidden = max(0, len(account.bad) - SHOWN_BAD) + max(0, len(account.refused) - SHOWN_BAD)
    if hidden:
        err.print(f"{escape(account.path)}: and {hidden:,} more rows like these")
    if account.unusable:
        err.print(f"[bold red]{escape(account.path)}[/]: {escape(account.unusable)}", soft_wrap=True)
    for remark in account.remarks[:3]:
        out.print(f"[dim]{escape(account.path)}:{remark.line}: {escape(remark.text)}[/]", soft_wrap=True)
    if len(account.remarks) > 3:
        out.print(f"[dim]and {len(account.remarks) - 3} more remarks of the device[/]")
    rows = account.read + len(account.bad)
    out.print(
        f"[bold]{escape(account.path)}[/]: {rows:,} rows read, {account.read:,} readings sent of {len(account.tags):,} tags: "
        f"{account.accepted:,} accepted, {account.duplicate:,} duplicate, {len(account.conflicting):,} conflicting, "
        f"{len(account.refused):,} refused; {len(account.bad):,} bad rows",
        soft_wrap=True,
    )
    if account.conflicting:
        lines = ", ".join(map(str, account.conflicting[:8]))
        more = " ..." if len(account.conflicting) > 8 else ""
        out.print(f"  put aside, because the same reading is known with other content: lines {lines}{more}")
    if account.skipped:
        out.print("  no readings: " + ", ".join(f"{count:,} × {kind}" for kind, count in account.skipped.most_common()))
    if account.tags:
        first, last = min(times[0] for times in account.tags.values()), max(times[1] for times in account.tags.values())
        stretch = f"{datetime.fromtimestamp(first / 1e6, UTC):%Y-%m-%d %H:%M} to {datetime.fromtimestamp(last / 1e6, UTC):%Y-%m-%d %H:%M}"
        out.print(f"  sensed {stretch} UTC ({lasting(last - first)})")


def _bar(*columns: TextColumn) -> Progress:
    return Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), *columns, TimeElapsedColumn(), console=err, transient=True
    )
