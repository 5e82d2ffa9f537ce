"""`waybill outbox`: what waits for systems outside, what they refused, and what a person decides about it."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from actors.journal import delivery, outbox
from actors.journal.store import Store, open_store
from actors.rules.errors import DomainError
from cluster.cli.common import Failed, lasting, out, when_us
from cluster.client import now_us
from cluster.settings import load

app = typer.Typer(
    no_args_is_help=True,
    help="Messages to systems outside: an ERP, a webhook. Each is sent in order, again and again until it is taken. One that was refused "
    "is `dead`: the others go on, and a person looks at it, mends the cause and sends it again, or gives it up.",
)

Destination = Annotated[str, typer.Argument(help="The destination, as `waybill outbox list` names it.")]
MessageId = Annotated[list[int], typer.Argument(help="The message's id, as `waybill outbox list` shows it.", min=1)]


@contextmanager
def opened() -> Iterator[Store]:
    """The database of the settings. Writing needs a running `waybill up` where it is a SQLite file."""
    settings = load()
    if settings.is_sqlite and not Path(settings.url.database or "").exists():
        raise Failed(f"no database at {settings.url.database}: WAYBILL_DATA_DIR or WAYBILL_DATABASE_URL says where it is")
    store = open_store(settings.url_text, patience_s=5.0, readers=1)
    try:
        yield store
    except DomainError as error:
        raise Failed(f"{error}; is `waybill up` running on this database?") from None
    finally:
        store.close()


@app.command("list")
def list_(
    destination: Annotated[str, typer.Option(help="Only messages to this one.")] = "",
    state: Annotated[list[str] | None, typer.Option(help="pending, dead, delivered or discarded; default: pending and dead.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=10_000)] = 50,
) -> None:
    """Destinations with what waits for them, and the messages that wait or are dead.

    Example: waybill outbox list --state dead
    """
    states = [one.upper() for one in state or ["pending", "dead"]]
    for one in states:
        if one not in delivery.STATES:
            raise typer.BadParameter(f"{one.lower()!r} is not one of {', '.join(delivery.STATES).lower()}", param_hint="--state")
    with opened() as store:
        show_piles(delivery.destinations(store.engine))
        found = delivery.messages(store.engine, destination=destination, states=states, limit=limit)
    if not found:
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("id", "destination", "state", "kind", "tries", "written", "key", "last answer"):
        table.add_column(name, overflow="fold")
    for row in found:
        state_text = f"[bold red]{row.state.lower()}[/]" if row.state == delivery.DEAD else row.state.lower()
        table.add_row(
            str(row.id), escape(row.destination), state_text, row.kind, str(row.attempts), when_us(row.created_us), escape(row.key),
            escape(row.last_error),
        )  # fmt: skip
    out.print(table)


def show_piles(piles: list[delivery.Pile]) -> None:
    """A line per destination."""
    if not piles:
        out.print("no destinations: nothing outside is told anything (WAYBILL_ERP_URL, WAYBILL_WEBHOOK_URL)")
    for pile in piles:
        counts = ", ".join(f"{pile.counts[state]:,} {state.lower()}" for state in delivery.STATES if pile.counts.get(state))
        waits = f"; the oldest waits for {lasting(now_us() - pile.oldest_us)}, {pile.attempts} tries" if pile.oldest_us else ""
        out.print(f"[bold]{escape(pile.destination)}[/]{'' if pile.enabled else ' (disabled)'}: {counts or 'nothing'}{waits}")
        if pile.last_error:
            out.print(f"  [yellow]{escape(pile.last_error)}[/]")


@app.command()
def show(message_id: Annotated[int, typer.Argument(help="The message's id.", min=1)]) -> None:
    """One message with all that it says.

    Example: waybill outbox show 17
    """
    with opened() as store:
        row = delivery.message(store.engine, message_id)
    if row is None:
        raise Failed(f"no message {message_id}; `waybill outbox list` shows those there are")
    for name in ("id", "destination", "sequence", "key", "kind", "state", "attempts", "last_error"):
        out.print(f"{name:<12} {escape(str(getattr(row, name)))}")
    for name in ("created_us", "next_try_us", "delivered_us"):
        us = getattr(row, name)
        out.print(f"{name.removesuffix('_us'):<12} {datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec='seconds') if us else '-'}")
    out.print_json(json.dumps(row.body))


@app.command()
def retry(message_id: MessageId) -> None:
    """Send dead messages again, now that the cause is mended. They go first: they are older than what waits.

    Example: waybill outbox retry 17 18
    """
    with opened() as store:
        _say(store.write(delivery.retry, message_id).result(), len(message_id), "will be sent again")


@app.command()
def discard(message_id: MessageId, reason: Annotated[str, typer.Option(help="Why; kept with the message.", prompt=True)]) -> None:
    """Give dead messages up: the receiver will never be told. The books then differ by them until somebody books it there by hand.

    Example: waybill outbox discard 17 --reason "booked by hand"
    """
    with opened() as store:
        why = f"given up by {getpass.getuser()}: {reason}"
        _say(store.write(delivery.discard, message_id, why).result(), len(message_id), "given up")


@app.command()
def disable(destination: Destination) -> None:
    """Write no more messages for a destination that is gone for good, so that they do not pile up and stop all movements at last.

    What waits already stays; what happens from now on it is never told.

    Example: waybill outbox disable webhook
    """
    _enable(destination, False)
    out.print(f"{destination} is told of nothing from now on; `waybill outbox enable {destination}` takes that back")


@app.command()
def enable(destination: Destination) -> None:
    """Tell a disabled destination again of what happens from now on. What happened meanwhile it must learn in another way.

    Example: waybill outbox enable webhook
    """
    _enable(destination, True)
    out.print(f"{destination} is told of what happens from now on; of an ERP, `waybill erp reconcile` shows what it missed")


def _enable(destination: str, enabled: bool) -> None:
    with opened() as store:
        if not store.write(outbox.enable, destination, enabled).result():
            raise Failed(f"no destination {destination!r}; `waybill outbox list` shows those there are")


def _say(count: int, asked: int, what: str) -> None:
    out.print(f"{count} {what}")
    if count < asked:
        raise Failed(f"{asked - count} of them are not dead (any more): `waybill outbox list` shows how they stand")
