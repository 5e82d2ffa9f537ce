"""`waybill replay`: the archive's journeys again: as recorded, under other rules, or into another system."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Annotated, Any

import ray
import typer
from rich.table import Table

from actors.rules.errors import DomainError
from cluster import ray_node
from cluster.archive.filesystem import Place, UnknownPlace
from cluster.archive.writer import read_manifest
from cluster.cli.archive import bar
from cluster.cli.common import Failed, out, when, when_us, with_client, word
from cluster.client import Client
from cluster.replay import jobs, live, result
from cluster.replay.jobs import Request
from cluster.settings import load
from waybill.v1 import replay_pb2, replay_pb2_grpc

app = typer.Typer(
    no_args_is_help=True,
    help="Replay of the archive. `verify` holds what was recorded against what the rules give again; `whatif` says what other rules would "
    "have found; `live` plays journeys into another running system. See docs/replay.md.",
)

Shipments = Annotated[list[str] | None, typer.Option("--shipment", help="Only this shipment; may be repeated.")]
Months = Annotated[
    list[str] | None, typer.Option("--month", help="Only shipments that closed in this month, such as 2026-01; may be repeated.")
]
Archive = Annotated[
    str, typer.Option("--archive", metavar="URL", help="Replay an archive here, on this machine's cores, without a running Waybill.")
]
Out = Annotated[Path | None, typer.Option("--out", help="With --archive: folder for the result; default: replay-ID in this folder.")]
SHOWN = 20
STATES = {replay_pb2.REPLAY_STATE_SUCCEEDED: 0, replay_pb2.REPLAY_STATE_CANCELLED: 1, replay_pb2.REPLAY_STATE_FAILED: 1}


@app.command("verify")
@with_client
def verify(
    client: Client, arrival: Annotated[bool, typer.Option("--arrival", help="In the order of arrival: every revision again.")] = False,
    shipment: Shipments = None, month: Months = None, archive: Archive = "", folder: Out = None,
) -> None:  # fmt: skip
    """The recorded rules over the archived readings: the recorded events and sums again, or the differences by name (exit code 1).

    Example: waybill replay verify --month 2026-01
    """
    kind = result.ARRIVAL if arrival else result.VERIFY
    _replay(client, Request(kind, tuple(shipment or ()), tuple(month or ())), archive, folder)


@app.command("whatif")
@with_client
def whatif_(
    client: Client,
    rules: Annotated[Path, typer.Argument(help="JSON file of other rules; see docs/replay.md.", exists=True, dir_okay=False)],
    shipment: Shipments = None, month: Months = None, archive: Archive = "", folder: Out = None,
) -> None:  # fmt: skip
    """Other profiles, limits, geofences or quality settings over the archive: what would be otherwise.

    Example: waybill replay whatif other-rules.json --month 2026-01
    """
    try:
        asked = json.loads(rules.read_text())
    except (ValueError, OSError) as error:
        raise Failed(f"{rules} is not JSON: {error}") from None
    if not isinstance(asked, dict):
        raise Failed(f"{rules} must hold a JSON object; docs/replay.md shows one")
    _replay(client, Request(result.WHAT_IF, tuple(shipment or ()), tuple(month or ()), asked), archive, folder)


@app.command("list")
@with_client
def list_(client: Client) -> None:
    """Replays, the newest first.

    Example: waybill replay list
    """
    service = replay_pb2_grpc.ReplayServiceStub(client.channel)
    table = Table("replay", "kind", "state", "parts", "readings", "differences", "started", box=None)
    for one in client.call(service.ListReplays, replay_pb2.ListReplaysRequest()).replays:
        table.add_row(
            one.replay_id, word(replay_pb2.ReplayKind, one.kind), word(replay_pb2.ReplayState, one.state), f"{one.parts_done}/{one.parts}",
            f"{one.counts['readings']:,}", f"{one.counts['differences']:,}", when(one.created_time),
        )  # fmt: skip
    out.print(table)


@app.command("cancel")
@with_client
def cancel(client: Client, replay_id: Annotated[str, typer.Argument(help="The replay's id.")]) -> None:
    """End a replay that runs.

    Example: waybill replay cancel ID
    """
    service = replay_pb2_grpc.ReplayServiceStub(client.channel)
    client.call(service.CancelReplay, replay_pb2.CancelReplayRequest(replay_id=replay_id))
    out.print(f"replay {replay_id} is asked to end")


@app.command("show")
def show(folder: Annotated[str, typer.Argument(help="Folder or URL of a result.")]) -> None:
    """Show a result that is there.

    Example: waybill replay show replay-ID
    """
    try:
        found, differences, shipments = result.read(Place.of(folder))
    except (OSError, ValueError, UnknownPlace) as error:
        raise Failed(f"{folder} is no result of a replay: {error}") from None
    _tell(found, differences.to_pylist(), shipments.num_rows)


@app.command("live")
@with_client
def live_(
    client: Client, archive: Annotated[str, typer.Option("--archive", metavar="URL", help="The archive to play from.")],
    speed: Annotated[float, typer.Option("--speed", min=1, max=10_000, help="How many times faster than it was.")] = 60,
    shipment: Shipments = None, month: Months = None,
    prefix: Annotated[str, typer.Option("--prefix", help="Put before the ids of shipments and tags there.")] = "replay-",
) -> None:  # fmt: skip
    """Play archived journeys into a running system (--server), at their own pace times --speed, for tests and training.

    Times are moved so that the last reading is sensed about when it is sent. The shipments are made there with the recorded limits.

    Example: waybill replay live --archive /backup/archive --speed 600 --server test.example:50051
    """
    parts = jobs.chosen(_parts(archive), Request(result.LIVE, months=tuple(month or ())))
    with bar("readings") as progress:
        task = progress.add_task("playing", total=None)
        told = live.play(
            client, parts, speed, prefix=prefix, only=frozenset(shipment) if shipment else None,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )  # fmt: skip
    out.print(
        f"{told.shipments:,} shipments, {told.sent:,} readings in {told.elapsed_s:.1f} s ({told.span_s / (told.elapsed_s or 1):,.0f} x), "
        f"{told.accepted:,} accepted, {told.refused:,} refused, {told.behind_s:.1f} s behind at most"
    )


# ---------------------------------------------------------------- here or there


def _parts(archive: str) -> list[dict[str, Any]]:
    try:
        return [part for part in read_manifest(Place.of(archive)) if part["carriers"]]
    except (OSError, ValueError, UnknownPlace) as error:
        raise Failed(f"{archive} is no archive: {error}") from None


def _replay(client: Client, request: Request, archive: str, folder: Path | None) -> None:
    found = _here(request, archive, folder) if archive else _there(client, request)
    if request.kind != result.WHAT_IF and not found:
        raise typer.Exit(1)


def _here(request: Request, archive: str, folder: Path | None) -> bool:
    parts = _parts(archive)
    replay_id = uuid.uuid4().hex[:12]
    place = Place.of(folder or f"replay-{replay_id}")
    if place.exists(result.RESULT):
        raise Failed(f"{place.location} holds a result already: name another folder with --out, or show it with `waybill replay show`")
    started = not ray.is_initialized()
    settings = load()
    if started:
        ray_node.connect(settings)
    heads = ray_node.head_processes() if started else []
    try:
        with bar("parts") as progress:
            task = progress.add_task("replaying", total=None)

            def told(done: int, many: int, counts: Any) -> None:
                progress.update(task, completed=done, total=many, description=f"replaying, {counts['readings']:,} readings")

            jobs.run(replay_id, request, parts, place, progress=told)
    except DomainError as refused:
        raise Failed(str(refused)) from None
    finally:
        if started:
            ray_node.disconnect(heads, [], 10)
    found, differences, shipments = result.read(place)
    _tell(found, differences.to_pylist(), shipments.num_rows)
    _told_where(place.location, request.kind)
    return bool(found.summary.get("identical", True))


def _told_where(location: str, kind: str) -> None:
    plots = " --html FILE --archive ARCHIVE" if kind == result.WHAT_IF else ""
    out.print(
        f"[dim]{location}: {result.REPORT} for people, Parquet for programs; `waybill report replay {location}{plots}` shows it again[/]"
    )


def _there(client: Client, request: Request) -> bool:
    service = replay_pb2_grpc.ReplayServiceStub(client.channel)
    kinds = {"verify": "REPLAY_KIND_VERIFY", "arrival": "REPLAY_KIND_ARRIVAL", "what-if": "REPLAY_KIND_WHAT_IF"}
    question = replay_pb2.StartReplayRequest(
        kind=replay_pb2.ReplayKind.Value(kinds[request.kind]), shipment_ids=request.shipment_ids, months=request.months,
        rules_json=json.dumps(request.rules) if request.rules else "", request_id=uuid.uuid4().hex[:16],
    )  # fmt: skip
    started = time.monotonic()
    replay = client.call(service.StartReplay, question).replay
    with bar("parts") as progress:
        task = progress.add_task("replaying", total=replay.parts)
        for answer in client.stream(service.WatchReplay, replay_pb2.WatchReplayRequest(replay_id=replay.replay_id)):
            replay = answer.replay
            progress.update(task, completed=replay.parts_done, description=f"replaying, {replay.counts['readings']:,} readings")
    if replay.state != replay_pb2.REPLAY_STATE_SUCCEEDED:
        raise Failed(f"replay {replay.replay_id} {word(replay_pb2.ReplayState, replay.state)}: {replay.error or 'somebody ended it'}")
    found = result.Result(
        replay.replay_id, request.kind, result.SUCCEEDED, elapsed_s=time.monotonic() - started, counts=dict(replay.counts),
        summary=_summary(replay.summary, request.kind),
    )  # fmt: skip
    asked = replay_pb2.ListReplayDifferencesRequest(replay_id=replay.replay_id, page_size=SHOWN)
    rows = [_row(one) for one in client.call(service.ListReplayDifferences, asked).differences]
    _tell(found, rows, replay.counts["shipments"])
    _told_where(replay.location, request.kind)
    return found.summary.get("identical", True) is not False


def _summary(told: replay_pb2.ReplaySummary, kind: str) -> dict[str, Any]:
    if kind != result.WHAT_IF:
        return {"identical": told.identical}
    return {
        "verdict_changes": dict(told.verdict_changes),
        "shipments_changed": sum(told.verdict_changes.values()),
        "excursions": {
            "appeared": told.excursions_appeared, "vanished": told.excursions_vanished, "changed": told.excursions_changed,
        },
        "lots_affected": list(told.lots_affected),
        "alerts_per_day": {"before": told.alerts_per_day_before, "after": told.alerts_per_day_after},
    }  # fmt: skip


def _row(one: replay_pb2.ReplayDifference) -> dict[str, Any]:
    facts = one.after if one.HasField("after") else one.before
    return {
        "shipment_id": one.shipment_id, "tag_id": one.tag_id, "subject": one.subject, "name": one.name,
        "change": word(replay_pb2.DifferenceChange, one.change), "fields": ",".join(one.fields),
        "at": when(facts.started_time) if facts.HasField("started_time") else "-",
    }  # fmt: skip


def _tell(found: result.Result, differences: list[dict[str, Any]], shipments: int) -> None:
    """A result on the terminal."""
    counts, summary = found.counts, found.summary
    rate = f", {found.readings_per_s / 1e6:.1f} million a second" if found.readings_per_s > 1e5 else ""
    out.print(f"{shipments:,} shipments, {counts.get('readings', 0):,} readings in {found.elapsed_s:.1f} s{rate}")
    if "identical" in summary:
        many = counts.get("differences", len(differences))
        out.print("[green]Nothing differs.[/]" if summary["identical"] else f"[red]{many:,} differences[/]")
    else:
        for change, number in sorted(summary["verdict_changes"].items()):
            before, after = change.split(">")
            out.print(f"  {number:,} shipments: {before.replace('_', ' ').lower()} → {after.replace('_', ' ').lower()}")
        excursions, alerts = summary["excursions"], summary["alerts_per_day"]
        out.print(
            f"  excursions: {excursions['appeared']:,} appear, {excursions['vanished']:,} vanish, {excursions['changed']:,} change; "
            f"{len(summary['lots_affected']):,} lots affected; alerts a day {alerts['before']:.2f} → {alerts['after']:.2f}"
        )
    if differences:
        table = Table("shipment", "tag", "what", "", "change", "fields", "at", box=None)
        for row in differences[:SHOWN]:
            table.add_row(
                row["shipment_id"],
                row["tag_id"],
                row["subject"],
                row["name"],
                row["change"],
                row["fields"] or "",
                row.get("at") or _at(row),
            )
        out.print(table)
        if counts.get("differences", 0) > SHOWN:
            out.print(f"[dim]and {counts['differences'] - SHOWN:,} more in the result[/]")


def _at(row: dict[str, Any]) -> str:
    moment = row.get("after_started_at") or row.get("before_started_at")
    return "-" if moment is None else when_us(round(moment.timestamp() * 1e6))
