"""What all commands share: the connection options, how refusals are shown, and how times and durations are written."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.markup import escape

from cluster.client import Client, Problem, utc
from cluster.settings import load
from services.reports.words import lasting as lasting
from services.reports.words import word as word

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Server = Annotated[
    str, typer.Option("--server", metavar="HOST:PORT", help="Where Waybill listens; default: WAYBILL_HOST and WAYBILL_PORT.")
]
Ca = Annotated[Path | None, typer.Option("--ca", help="PEM file of the server's authority: the connection is TLS.", exists=True)]
Certificate = Annotated[Path | None, typer.Option("--certificate", help="PEM file of the client's certificate (mutual TLS).", exists=True)]
Key = Annotated[Path | None, typer.Option("--key", help="PEM file of its private key.", exists=True)]

_CONNECTION: dict[str, Any] = {"server": Server, "ca": Ca, "certificate": Certificate, "key": Key}


class Failed(Exception):
    """The command cannot be done; the text says why and what to do. Ends it with exit code 2."""


def connect(server: str = "", ca: Path | None = None, certificate: Path | None = None, key: Path | None = None) -> Client:
    """A client by the connection options; without --server the address in the settings."""
    if (certificate is None) != (key is None) or (certificate is not None and ca is None):
        raise Failed("--certificate and --key come together, and with --ca")
    if not server:
        settings = load()
        server = f"{settings.host}:{settings.port}"
    host, colon, port = server.rpartition(":")
    if not host or not colon or not port.isdigit():
        raise Failed(f"--server {server!r} is not HOST:PORT")
    return Client(server, ca=ca, certificate=certificate, key=key)


def with_client(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command its client (first parameter) and adds the connection options to what it takes."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        with connect(**{name: kwargs.pop(name) for name in _CONNECTION}) as client:
            return command(client, *args, **kwargs)

    signature = inspect.signature(command, eval_str=True)
    own = list(signature.parameters.values())[1:]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default="" if name == "server" else None)
        for name, kind in _CONNECTION.items()
    ]
    parameters = [*own, *added]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def show_problem(problem: Problem) -> None:
    """A refusal for a person: what, which field and value and rule, and what to do next."""
    err.print(f"[bold red]{problem.reason}[/] {escape(problem.message)}")
    for line in problem.lines:
        if line not in problem.message:
            err.print(f"  {escape(line)}")
    if problem.advice:
        err.print(f"[dim]{escape(problem.advice)}[/]")


def when(moment: Timestamp | None, *, seconds: bool = False) -> str:
    """A time in UTC; a dash where there is none."""
    if moment is None or not moment.ByteSize():
        return "-"
    return utc(moment).strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")


def when_us(us: int) -> str:
    """Microseconds since 1970 as a time in UTC."""
    return datetime.fromtimestamp(us // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M")
