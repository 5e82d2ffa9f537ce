"""The report of a replay: the answer first, verdicts that change, excursions before and after; as page and on the terminal."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from cluster.replay import result
from cluster.replay.result import DIFFERENCES, SHIPMENTS, Result
from cluster.reports import replay, terminal
from cluster.reports.journeys import Journey, Line
from tests.reports.test_document import Page

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def difference(shipment: str, change: str, **facts: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(DIFFERENCES.names)
    return (
        row
        | {"shipment_id": shipment, "tag_id": "T-1", "subject": result.EXCURSION, "name": "warm", "change": change, "severity": "CRITICAL"}
        | facts
    )


def facts(side: str, hours: int) -> dict[str, Any]:
    begun = BEGIN + 6 * HOUR
    return {
        f"{side}_started_at": begun,
        f"{side}_ended_at": begun + hours * HOUR,
        f"{side}_violation_us": hours * 3_600_000_000,
        f"{side}_extreme": 9.0 + hours,
    }


def shipment(name: str, before: str, after: str, counts: tuple[int, int]) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(SHIPMENTS.names)
    row |= {
        "shipment_id": name,
        "before_verdict": before,
        "after_verdict": after,
        "readings": 100,
        "custodies": 1,
        "lots_affected": [f"lot-{name}"],
    }
    row |= {"before_excursions": counts[0], "after_excursions": counts[1], "before_alerts": counts[0], "after_alerts": counts[1]}
    return row | {"first_sensed_at": BEGIN, "last_sensed_at": BEGIN + 30 * HOUR}


@pytest.fixture(scope="module")
def what_if() -> tuple[Result, pa.Table, pa.Table]:
    rows = [
        difference("S-1", result.APPEARED, **facts("after", 3)),
        difference("S-2", result.VANISHED, **facts("before", 2)),
        difference("S-3", result.CHANGED, fields="violation_us", **facts("before", 1), **facts("after", 2)),
    ]
    shipments = [
        shipment("S-1", result.WITHIN_LIMITS, result.EXCURSION_VERDICT, (0, 1)),
        shipment("S-2", result.EXCURSION_VERDICT, result.WITHIN_LIMITS, (1, 0)),
        shipment("S-3", result.EXCURSION_VERDICT, result.EXCURSION_VERDICT, (1, 1)),
    ]
    found = Result("r-1", result.WHAT_IF, state=result.SUCCEEDED, finished_us=1_767_225_600_000_000, elapsed_s=2.0)
    found.parameters = {"rules": {"limits": {"warm": {"threshold": 9.0}}}}
    found.counts = {"readings": 300, "custodies": 3}
    found.summary = {"alerts_per_day": {"before": 1.6, "after": 1.6}, "days": 1.25}
    return found, pa.Table.from_pylist(rows, DIFFERENCES), pa.Table.from_pylist(shipments, SHIPMENTS)


def journey() -> Journey:
    times = np.arange(180) * 600_000_000 + int(BEGIN.timestamp()) * 1_000_000
    hump = 5 + 7 * np.exp(-(((np.arange(180) - 45) / 12.0) ** 2))
    line = Line("T-1", times, hump, np.linspace(52.5, 48.1, 180), np.linspace(13.4, 11.6, 180))
    return Journey((line,), (("warm", 8.0),), (("warm", 9.0),))


def test_the_page_answers_first_and_names_every_change(what_if: tuple[Result, pa.Table, pa.Table]) -> None:
    assert replay.to_plot(what_if[1], what_if[2]) == ["S-1", "S-2", "S-3"]
    page = Page(replay.page(*what_if, {"S-1": journey()}).decode())
    assert page.of("h1") == ["2 of 3 shipments would be judged otherwise"]
    texts = [text.replace("\u00a0", " ") for _, text in page.texts]
    said = " | ".join(texts)
    for wanted in (
        "2 verdicts change",
        "1 from within limits to excursion",
        "1 from excursion to within limits",
        "1 appear · 1 vanish",
        "3 lots touched",
    ):
        assert wanted in said
    assert page.of("h2")[3:] == [
        "Alerts by day",
        "Shipments whose verdict changes",
        "Before and after",
        "Excursions",
        "What was asked",
        "Where it comes from",
    ]
    assert {"warm", "warm before"} <= set(page.of("text"))  # limits after and before
    assert page.outside == []


def test_a_verification_without_differences_says_identical(what_if: tuple[Result, pa.Table, pa.Table]) -> None:
    found = Result("r-2", result.VERIFY, state=result.SUCCEEDED, finished_us=1)
    page = Page(replay.page(found, DIFFERENCES.empty_table(), what_if[2].slice(2)).decode())
    assert page.of("h1") == ["1 shipment: the same again"]
    assert "Identical" in [text for _, text in page.texts]
    named = Page(replay.page(found, what_if[1].slice(0, 1), what_if[2]).decode())
    assert named.of("h1") == ["1 difference in 1 shipment"]


def test_the_terminal_says_the_same_in_tables(what_if: tuple[Result, pa.Table, pa.Table]) -> None:
    out = io.StringIO()
    console = Console(file=out, width=160, highlight=False)
    for piece in terminal.tables(*what_if):
        console.print(piece)
    told = out.getvalue()
    for wanted in (
        "2 of 3 shipments would be judged otherwise",
        "verdicts that change (2)",
        "differences (3)",
        "appeared",
        "S-2",
        "1 to 0",
    ):
        assert wanted in told


def test_a_replay_that_failed_says_why() -> None:
    found = Result("r-3", result.VERIFY, state=result.FAILED, error="part 7 is damaged: page 3")
    page = Page(replay.page(found, DIFFERENCES.empty_table(), SHIPMENTS.empty_table()).decode())
    assert page.of("h1") == ["It failed"]
    assert "part 7 is damaged: page 3" in [text for _, text in page.texts]
