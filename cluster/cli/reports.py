"""`waybill shipment report` and `waybill report verify`: release documents, and whether one still tells the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from cluster.cli.common import Failed, connect, out, show_problem, when, with_client, word
from cluster.client import Client, Problem
from services.reports import seal
from waybill.v1 import common_pb2, report_pb2

app = typer.Typer(no_args_is_help=True, help="Release documents: whether one is genuine and still true.")

FORMATS = {"html": report_pb2.REPORT_FORMAT_HTML, "pdf": report_pb2.REPORT_FORMAT_PDF, "json": report_pb2.REPORT_FORMAT_JSON}
SHOWN = 30


@with_client
def shipment_report(
    client: Client,
    shipment_id: Annotated[str, typer.Argument(help="The shipment's id.")],
    html: Annotated[Path | None, typer.Option(help="Write the document as HTML here: one file that needs nothing else.")] = None,
    pdf: Annotated[Path | None, typer.Option(help="Write the document as PDF here.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write everything that it says as JSON here, for programs; not signed.")] = None,
) -> None:
    """The release document: verdict, why, what is uncertain, and all that it rests on, signed.

    Journey, temperature with limits and excursions, exposure by limit, MKT, uncovered time, revisions, decisions with who and why, the
    versions of rules and software, and a digest over the data. It is signed with this system's key (`waybill keys make`);
    `waybill report verify FILE` checks it.

    Examples:

    waybill shipment report PARCEL-1 --pdf parcel-1.pdf

    waybill shipment report PARCEL-1 --html parcel-1.html --json parcel-1.json
    """
    wanted = {name: path for name, path in (("html", html), ("pdf", pdf), ("json", json)) if path is not None}
    if not wanted:
        raise Failed("say where to write it: --html FILE, --pdf FILE or --json FILE")
    for name, path in wanted.items():
        data, signed = fetch(client, shipment_id, FORMATS[name])
        try:
            path.write_bytes(data)
        except OSError as error:
            raise Failed(f"{path}: {error.strerror}") from error
        said = "" if name == "json" else ", signed" if signed else ", [yellow]not signed[/] (make a key with `waybill keys make`)"
        out.print(f"{escape(str(path))}: {len(data):,} bytes{said}")


def fetch(client: Client, shipment_id: str, form: report_pb2.ReportFormat.ValueType) -> tuple[bytes, bool]:
    """A report in one form, and whether it is signed. Raises Problem."""
    pieces, signed = [], False
    for piece in client.stream(client.reports.GetShipmentReport, report_pb2.GetShipmentReportRequest(shipment_id=shipment_id, format=form)):
        pieces.append(piece.data)
        signed = signed or piece.signed
    return b"".join(pieces), signed


Server = Annotated[
    str, typer.Option("--server", metavar="HOST:PORT", help="Where Waybill listens; default: WAYBILL_HOST and WAYBILL_PORT.")
]


@app.command("verify")
def verify(
    file: Annotated[Path, typer.Argument(help="The document, HTML or PDF.", exists=True, dir_okay=False)],
    public_key: Annotated[
        Path | None, typer.Option(help="PEM file of the key that you trust; default: the one of the Waybill that is asked.", exists=True)
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Check bytes and signature only, and ask no Waybill; needs --public-key.")
    ] = False,
    server: Server = "",
    ca: Annotated[Path | None, typer.Option("--ca", help="PEM file of the server's authority: the connection is TLS.", exists=True)] = None,
    certificate: Annotated[Path | None, typer.Option("--certificate", help="The client's certificate (mutual TLS).", exists=True)] = None,
    key: Annotated[Path | None, typer.Option("--key", help="PEM file of its private key.", exists=True)] = None,
) -> None:
    """Three questions: is every byte what was signed, by whom, and does the database say the same today?

    Exit code: 0 all of it holds, 1 something does not, 2 it is no document of Waybill.

    Examples:

    waybill report verify parcel-1.pdf

    waybill report verify parcel-1.pdf --offline --public-key their-key.pem
    """
    if offline and public_key is None:
        raise Failed("--offline needs --public-key: without a key to compare with, a signature says nothing")
    document = file.read_bytes()
    try:
        found = seal.opened(document)
        trusted = None if public_key is None else seal.fingerprint(seal.public_bytes(seal.public_key(public_key.read_bytes())))
    except seal.NotSealed as error:
        raise Failed(f"{file}: {error}") from error
    except seal.KeyUnusable as error:
        raise Failed(f"{public_key}: {error}") from error
    good = _said(found.intact, "every byte is what was sealed", "it was changed after it was sealed")
    if offline:
        good &= _signature(found, trusted or "", "the key in --public-key")
        raise typer.Exit(0 if good else 1)
    with connect(server, ca, certificate, key) as client:
        try:
            answer = client.call(client.reports.VerifyShipmentReport, report_pb2.VerifyShipmentReportRequest(document=document))
            ours = trusted
            if ours is None:
                ours = found.fingerprint if answer.signature == report_pb2.SIGNATURE_STATE_VALID else "none of this Waybill"
        except Problem as problem:
            show_problem(problem)
            raise typer.Exit(2 if problem.reason == "INVALID_ARGUMENT" else 1) from None
    good &= _signature(found, ours, "this Waybill's key" if public_key is None else "the key in --public-key")
    made = f"{when(answer.made_time)} UTC, verdict {word(common_pb2.Verdict, answer.verdict)}"
    out.print(f"  shipment {escape(answer.shipment_id)}, made {made}")
    good &= _said(answer.same_data, "the data that it was computed from is the same today", "the data has changed since")
    good &= _said(answer.same_judgement, "computed again, it says the same", "computed again, it says something else")
    for line in answer.differences[:SHOWN]:
        out.print(f"    {escape(line)}", soft_wrap=True)
    if len(answer.differences) > SHOWN:
        out.print(f"    and {len(answer.differences) - SHOWN} more")
    if not answer.same_judgement and answer.software_then != answer.software_now:
        out.print(f"  [dim]software then: Waybill {answer.software_then.waybill}, now: {answer.software_now.waybill}[/]")
    raise typer.Exit(0 if good else 1)


@app.command("replay")
def replay(
    folder: Annotated[str, typer.Argument(help="Folder or URL with the replay's result.")],
    html: Annotated[Path | None, typer.Option(help="Write the report as HTML here: one file that needs nothing else.")] = None,
    archive: Annotated[
        str, typer.Option(help="The archive that was replayed (folder or URL): for plots of the shipments that change.")
    ] = "",
) -> None:
    """What a replay found: tables here, and a page with plots of temperature, limits and tracks before and after.

    Example: waybill report replay waybill-data/archive/replays/r-1 --html what-if.html --archive waybill-data/archive
    """
    from cluster.archive.filesystem import Place, UnknownPlace
    from cluster.archive.reader import Part
    from cluster.archive.writer import read_manifest
    from cluster.replay import result
    from cluster.reports import journeys, terminal
    from cluster.reports import replay as page

    try:
        found, differences, shipments = result.read(Place.of(folder))
        parts = read_manifest(Place.of(archive)) if archive else []
    except (UnknownPlace, FileNotFoundError, ValueError) as error:
        raise Failed(f"{folder}: {error}") from error
    for piece in terminal.tables(found, differences, shipments):
        out.print(piece)
    if html is not None:
        rules = found.parameters.get("rules") if found.kind == result.WHAT_IF else None
        shown = journeys.find(map(Part.of, parts), page.to_plot(differences, shipments), rules)
        html.write_bytes(page.page(found, differences, shipments, shown))
        out.print(f"{escape(str(html))}: {html.stat().st_size:,} bytes")


def _said(holds: bool, yes: str, no: str) -> bool:
    out.print(f"[bold green]✓[/] {yes}" if holds else f"[bold red]✗ {no}[/]")
    return holds


def _signature(found: seal.Seal, trusted: str, whose: str) -> bool:
    if found.public_key is None:
        return _said(False, "", "it is not signed")
    if not found.genuine:
        return _said(False, "", "its signature does not fit")
    return _said(
        found.fingerprint == trusted, f"signed with {whose}, {found.fingerprint[:16]}", f"signed with another key: {found.fingerprint}"
    )
