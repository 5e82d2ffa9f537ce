"""A replay's result as tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
from rich.markup import escape
from rich.table import Table

from cluster.replay import result
from cluster.replay.result import Result
from cluster.reports.replay import document
from services.reports.words import lasting, when

MOST_ROWS = 20
STYLES = {"good": "bold green", "bad": "bold red", "warn": "bold yellow"}
CHANGES = {result.APPEARED: "red", result.VANISHED: "green", result.CHANGED: "yellow"}


def tables(found: Result, differences: pa.Table, shipments: pa.Table) -> Iterable[Any]:
    """What to print, one after the other: the answer, the numbers, the verdicts that change, the differences."""
    rows, journeys = differences.to_pylist(), shipments.to_pylist()
    told = document(found, rows, journeys, {})
    yield f"[bold]{escape(told.title)}[/]  [dim]{escape(told.subtitle)}[/]"
    for card in told.cards:
        lines = "; ".join(card.lines)
        yield f"  {card.title}: [{STYLES.get(card.tone, 'bold')}]{escape(card.head)}[/]{f'  [dim]{escape(lines)}[/]' if lines else ''}"
    yield "  " + "   ".join(f"{escape(number.name)} {escape(number.value)}" for number in told.numbers)
    turned = [row for row in journeys if row["before_verdict"] != row["after_verdict"]]
    if turned:
        yield _turned(turned)
    if rows:
        yield _differences(rows)


def _turned(turned: list[dict[str, Any]]) -> Table:
    table = Table(
        title=_title("verdicts that change", len(turned)),
        title_justify="left",
        title_style="bold",
        box=None,
        padding=(0, 2, 0, 0),
        header_style="dim",
    )
    for name in ("shipment", "before", "after", "excursions", "alerts"):
        table.add_column(name)
    for row in turned[:MOST_ROWS]:
        before, after = (row[f"{side}_verdict"].lower().replace("_", " ") for side in ("before", "after"))
        style = "red" if row["after_verdict"] == result.EXCURSION_VERDICT else "green"
        counts = (f"{row[f'before_{what}']} to {row[f'after_{what}']}" for what in ("excursions", "alerts"))
        table.add_row(escape(row["shipment_id"]), before, f"[{style}]{after}[/]", *counts)
    return table


def _differences(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        title=_title("differences", len(rows)), title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0), header_style="dim"
    )
    for name in ("change", "what", "name", "shipment", "tag", "before", "after"):
        table.add_column(name)
    for row in rows[:MOST_ROWS]:
        style = CHANGES.get(row["change"], "")
        sides = (_side(row, side) for side in ("before", "after"))
        table.add_row(
            f"[{style}]{row['change']}[/]",
            row["subject"],
            escape(row["name"] or ""),
            escape(row["shipment_id"]),
            escape(row["tag_id"] or ""),
            *sides,
        )
    return table


def _side(row: dict[str, Any], side: str) -> str:
    begin = row[f"{side}_started_at"]
    parts = [when(int(begin.timestamp() * 1e6))] if begin is not None else []
    if row[f"{side}_violation_us"] is not None:
        parts.append(lasting(row[f"{side}_violation_us"]))
    if row[f"{side}_extreme"] is not None:
        parts.append(f"{row[f'{side}_extreme']:g}")
    return ", ".join(parts) or "–"


def _title(what: str, count: int) -> str:
    return f"{what} (the first {MOST_ROWS} of {count:,})" if count > MOST_ROWS else f"{what} ({count:,})"
