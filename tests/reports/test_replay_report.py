"""The report of a replay: the answer first, verdicts that change, excursions before and after; as page and on the terminal."""

from __future__ import annotations

import io
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from actors.rules.profiles import Limit
from cluster.archive import writer
from cluster.archive.filesystem import Place
from cluster.cli import main
from cluster.replay import jobs, result
from cluster.replay.result import DIFFERENCES, SHIPMENTS, Result
from cluster.reports import replay, terminal
from cluster.reports.journeys import Journey, Line
from tests.replay import made
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


def test_the_command_makes_the_page_from_a_real_replay(ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A what-if over an archive on the disk: its plots are those of the shipments that change, with both rules' limits."""
    rng = random.Random(3)
    place = Place.of(tmp_path / "archive")
    warm = Limit("warm", "temperature_c", "above", 8.0, allowance_us=10 * 60_000_000)
    parts = made.write(place, [made.simulate(rng, number) for number in range(12)], made.profile(60.0, warm), (), parts=2)
    writer.write_manifest(place, parts)
    asked = jobs.Request(result.WHAT_IF, rules={"limits": {"warm": {"threshold": 10.5}}})
    done = jobs.run("r-9", asked, parts, Place.of(tmp_path / "result"))
    assert done.counts["excursion.vanished"] > 0
    with pytest.raises(SystemExit) as ended:
        main(["report", "replay", str(tmp_path / "result"), "--html", str(tmp_path / "page.html"), "--archive", str(tmp_path / "archive")])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "of 12 shipments would be judged otherwise" in told
    assert "vanished" in told
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert {"warm", "warm before"} <= set(page.of("text"))
    assert sum("difference of excursions" in text or "differences of excursions" in text for text in page.of("p")) > 0
    assert page.outside == []
