"""`waybill keys`: the Ed25519 key that release documents are signed with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from cluster.cli.common import Failed, out
from cluster.settings import REPORT_KEY, load
from services.reports import seal

app = typer.Typer(no_args_is_help=True, help="The key that release documents are signed with.")


@app.command("make")
def make(
    file: Annotated[Path | None, typer.Option(help="Where to; default: report-key.pem in the data folder.")] = None,
) -> None:
    """Makes a new key, readable by you alone. A key that is there is never replaced: documents signed with it must stay checkable.

    The doors read it when they start. Give the public key (`waybill keys show`) to those who must trust your documents.

    Example: waybill keys make
    """
    path = file or _usual()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Failed(f"{path} is there already and is not replaced; move it away first, and keep its public key") from None
    except OSError as error:
        raise Failed(f"{path}: {error.strerror}") from None
    with os.fdopen(handle, "wb") as made:
        made.write(seal.new_key())
    out.print(f"made {escape(str(path))}")
    _show(path)
    if path != _usual():
        out.print(f"Next: WAYBILL_REPORT_KEY={escape(str(path))} waybill up")
    else:
        out.print("[dim]A Waybill that is running signs from its next start on.[/]")


@app.command("show")
def show(file: Annotated[Path | None, typer.Option(help="The key; default: the one that `make` makes.")] = None) -> None:
    """The public key and its fingerprint.

    Example: waybill keys show > waybill-public.pem
    """
    _show(file or _usual())


def _usual() -> Path:
    settings = load()
    return settings.report_key or settings.data_dir / REPORT_KEY


def _show(path: Path) -> None:
    try:
        public = seal.public_key(path.read_bytes())
    except OSError as error:
        raise Failed(f"{path}: {error.strerror}; `waybill keys make` makes one") from None
    except seal.KeyUnusable as error:
        raise Failed(f"{path}: {error}") from None
    out.print(f"[dim]# fingerprint {seal.fingerprint(seal.public_bytes(public))}[/]", soft_wrap=True)
    out.print(seal.public_pem(public).strip(), soft_wrap=True)
