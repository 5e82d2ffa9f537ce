"""`waybill history import`: recordings from elsewhere in bulk, by a mapping of columns."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cluster.cli.common import Failed, connect, err, lasting, out, when_us
from cluster.history_import import job as jobs
from cluster.history_import import mapping as mappings
from cluster.history_import.send import Target
from cluster.importers.base import UnusableFile
from cluster.settings import Settings, load

app = typer.Typer(no_args_is_help=True, help="History: recordings from elsewhere, in bulk.")

SHOWN_REASONS = 8


@app.command("import")
def import_(
    files: Annotated[list[Path], typer.Argument(help="CSV (gzip is recognised) or Parquet.")],
    mapping: Annotated[Path, typer.Option(help="TOML file that says what the columns are: docs/history-import.md.")],
    server: Annotated[str, typer.Option("--server", metavar="HOST:PORT", help="Where Waybill listens; default: from the settings.")] = "",
    ca: Annotated[Path | None, typer.Option("--ca", help="PEM file of the server's authority: the connection is TLS.", exists=True)] = None,
    certificate: Annotated[Path | None, typer.Option("--certificate", help="The client's certificate (mutual TLS).", exists=True)] = None,
    key: Annotated[Path | None, typer.Option("--key", help="PEM file of its private key.", exists=True)] = None,
    tasks: Annotated[
        int, typer.Option(help="So many Ray tasks at a time; 0: no Ray, one piece after the other in this process.", min=0)
    ] = 4,
    state: Annotated[Path | None, typer.Option(help="Folder for what was done; default: imports/ in the data folder.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Forget what an earlier run of this import has done.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only say whether the files fit the mapping.")] = False,
) -> None:
    """Imports recordings with progress and an account of every row. Broken off (Ctrl-C, kill), the same command goes on where it was.

    A file that does not fit its mapping is refused whole, before anything is sent; a row that is no plausible reading is refused alone,
    with its line and the reason, in a file of its own. Everything goes through the ordinary door: it is journaled and judged as any
    reading is.

    Tasks run in the Ray cluster at WAYBILL_RAY_ADDRESS, else in a Ray of its own on this machine. Exit code: 0 all rows are in, 1 some are
    not, 2 a file was refused.

    Examples:

    waybill history import 2024/*.csv.gz --mapping loggers.toml

    waybill history import warehouse.parquet --mapping warehouse.toml --check
    """
    try:
        columns = mappings.load(mapping)
        with connect(server, ca, certificate, key) as client:
            target = Target(client.server, *(path and path.absolute() for path in (ca, certificate, key)))
        settings = load()
        paths = [path.absolute() for path in files]
        for path in paths:
            if not path.is_file():
                raise Failed(f"{path}: no such file")
        folder = (state or settings.data_dir / "imports") / jobs.job_id(paths, columns, target)
        work = jobs.Job(paths, columns, target, folder)
    except (mappings.MappingError, UnusableFile) as error:
        raise Failed(str(error)) from None
    refused = [file for file in work.files if file.unusable]
    for file in refused:
        err.print(f"[bold red]{escape(file.path)}[/]: {escape(file.unusable)}", soft_wrap=True)
    if check:
        for file in work.files:
            if not file.unusable:
                out.print(f"{escape(file.path)}: fits", soft_wrap=True)
        raise typer.Exit(2 if refused else 0)
    if len(refused) < len(work.files):
        if again:
            work.forget()
        _run(work, settings, tasks)
    raise typer.Exit(2 if any(file.unusable for file in work.files) else 1 if any(_left_out(file) for file in work.files) else 0)


def _left_out(file: jobs.FileAccount) -> int:
    return file.account.refused + file.account.conflicting


def _run(work: jobs.Job, settings: Settings, tasks: int) -> None:
    columns = (
        SpinnerColumn(),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %  {task.fields[rows]:,} rows"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("import", total=None, rows=0)

        def progress(done: jobs.Progress) -> None:
            bar.update(task, total=done.total, completed=done.read, rows=done.rows)

        if tasks == 0:
            work.run(jobs.Runner(), progress)
        else:
            with jobs.cluster(settings, tasks) as runner:
                work.run(runner, progress)
    for file in work.files:
        _account(file)
    if any(_left_out(file) for file in work.files):
        out.print(f"rows left out, with line and reason: {escape(str(work.refused))}", soft_wrap=True)


def _account(file: jobs.FileAccount) -> None:
    done = file.account
    if not done.rows and file.unusable:
        return
    out.print(
        f"[bold]{escape(file.path)}[/]: {done.rows:,} rows: {done.stored:,} stored, {done.conflicting:,} conflicting, "
        f"{done.refused:,} refused, {done.empty:,} empty",
        soft_wrap=True,
    )
    for reason, count in Counter(file.reasons).most_common(SHOWN_REASONS):
        out.print(f"  {count:>9,} × {escape(reason)}", soft_wrap=True)
    if len(file.reasons) > SHOWN_REASONS:
        out.print(f"  and {len(file.reasons) - SHOWN_REASONS} more reasons")
    if done.known:
        out.print(f"  {done.known:,} of the stored were there already when they were sent")
    if file.resumed:
        out.print(f"  {file.resumed:,} pieces were done by an earlier run")
    if done.tags:
        first, last = min(a for a, _ in done.tags.values()), max(b for _, b in done.tags.values())
        out.print(f"  {len(done.tags):,} tags, sensed {when_us(first)} to {when_us(last)} UTC ({lasting(last - first)})")
