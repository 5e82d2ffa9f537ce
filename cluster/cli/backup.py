"""`waybill backup` and `waybill restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from cluster import backup as backups
from cluster.cli.common import Failed, err, out
from cluster.settings import load

DataDir = Annotated[Path | None, typer.Option(help="The data folder; default: WAYBILL_DATA_DIR.")]
DatabaseUrl = Annotated[
    str | None, typer.Option(help="The database; default: WAYBILL_DATABASE_URL, else the SQLite file in the data folder.")
]


def backup(
    file: Annotated[Path, typer.Argument(help="Where to.")],
    replace: Annotated[bool, typer.Option("--replace", help="Replace the file where it is there.")] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Writes a checked copy of the database, while Waybill runs and goes on taking readings.

    It holds one moment: all that was acknowledged before the command began. The archive, if you have one, is files: copy them as files.

    Example: waybill backup backups/2026-11-22.db
    """
    with err.status("copying and checking"):
        try:
            found = backups.backup(load(data_dir=data_dir, database_url=database_url), file, replace=replace)
        except backups.BackupError as error:
            raise Failed(str(error)) from None
    _told(file, found)
    out.print("Keep it on another machine. `waybill restore` puts it back.")


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `waybill backup` wrote.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of a database that is there; SQLite: it is moved aside.")
    ] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Puts a backup back, while nothing runs. Readings that were acknowledged after the backup are not in it: let gateways send them again.

    Example: waybill restore backups/2026-11-22.db --replace
    """
    with err.status("checking and copying"):
        try:
            found, aside = backups.restore(load(data_dir=data_dir, database_url=database_url), file, replace=replace)
        except backups.BackupError as error:
            raise Failed(str(error)) from None
    _told(file, found)
    if aside is not None:
        out.print(f"what was there is now {escape(str(aside))}", soft_wrap=True)
    out.print("Next: `waybill up`")


def _told(file: Path, found: backups.Facts) -> None:
    out.print(f"{escape(str(file))}: {found.bytes:,} bytes, sha256 {found.sha256}", soft_wrap=True)
    if found.events is not None:
        heads = ", ".join(f"{shard}: {head:,}" for shard, head in found.heads.items())
        out.print(f"  newest event {found.events:,}; newest journal entry by shard {heads}", soft_wrap=True)
