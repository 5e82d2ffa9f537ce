"""`waybill tag show` and `waybill profiles`: devices, and the limits that goods are held against."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from cluster.cli.common import lasting, out, when, with_client, word
from cluster.cli.shipments import limit_text
from cluster.client import Client
from waybill.v1 import common_pb2, profile_pb2, tag_pb2

app = typer.Typer(no_args_is_help=True, help="Sensor tags: how a device is doing, where it rides.")


@app.command("show")
@with_client
def show(client: Client, tag_id: Annotated[str, typer.Argument(help="The device's id.")]) -> None:
    """A tag's twin: last values, battery, counters, silence, conflicts, where it rides and rode.

    Example: waybill tag show 650000005F2A7041
    """
    tag = client.call(client.tags.GetTag, tag_pb2.GetTagRequest(tag_id=tag_id)).tag
    twin = client.call(client.tags.GetTagTwin, tag_pb2.GetTagTwinRequest(tag_id=tag_id)).twin
    interval = lasting(twin.usual_interval_s * 1e6) if twin.HasField("usual_interval_s") else "unknown"
    out.print(
        f"[bold]{escape(tag_id)}[/] {word(tag_pb2.TagKind, tag.kind)} {'[yellow]silent[/]' if twin.silent else 'heard'}, shard {tag.shard}"
    )
    sensed, received = when(twin.last_sensed_time, seconds=True), when(twin.last_received_time, seconds=True)
    out.print(f"last sensed {sensed}, last received {received}, every {interval}")
    for last in twin.last_values:
        flag = word(common_pb2.QualityFlag, last.flag)
        out.print(
            f"  {word(common_pb2.Metric, last.metric):<24}{last.value:>12.3f}  {when(last.sensed_time, seconds=True)}  [dim]{flag}[/]"
        )
    count = twin.counters
    out.print(
        f"readings: {count.accepted:,} accepted ({count.late:,} late, {count.future:,} from the future), {count.duplicate:,} duplicate, "
        f"{count.conflicting:,} conflicting; values: {count.fail:,} fail, {count.suspect:,} suspect"
    )
    for silence in client.pages(client.tags.ListSilences, tag_pb2.ListSilencesRequest(tag_id=tag_id), "silences"):
        until = when(silence.until_time) if silence.HasField("until_time") else "now"
        out.print(f"  silent {when(silence.from_time)} to {until}")
    for custody in client.pages(client.tags.ListCustodies, tag_pb2.ListCustodiesRequest(tag_id=tag_id), "custodies"):
        until = when(custody.until_time) if custody.HasField("until_time") else "now"
        out.print(f"  on {escape(custody.carrier)} {escape(custody.handling_unit_id)} {when(custody.from_time)} to {until}")


@with_client
def profiles(client: Client, profile_id: Annotated[str, typer.Argument(help="Show this one with its limits.")] = "") -> None:
    """Profiles: the limits that goods are stored and shipped under.

    Examples:

    waybill profiles

    waybill profiles usp-crt
    """
    if profile_id:
        profile = client.call(client.profiles.GetProfile, profile_pb2.GetProfileRequest(profile_id=profile_id)).profile
        out.print(f"[bold]{escape(profile.profile_id)}[/] version {profile.version}: {escape(profile.name)}")
        out.print(f"[dim]{escape(profile.source)} ({escape(profile.edition)})[/]")
        for limit in profile.limits:
            stages = ", ".join(word(common_pb2.Stage, stage) for stage in limit.stages)
            out.print(f"  {limit.limit_id:<14} {limit_text(limit)}{f' while {stages}' if stages else ''}  [dim]{escape(limit.name)}[/]")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("profile", "version", "name", "limits", "source"):
        table.add_column(name)
    for profile in client.pages(client.profiles.ListProfiles, profile_pb2.ListProfilesRequest(), "profiles"):
        table.add_row(profile.profile_id, str(profile.version), escape(profile.name), str(len(profile.limits)), escape(profile.source))
    out.print(table)
