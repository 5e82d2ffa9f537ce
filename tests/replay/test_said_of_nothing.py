"""That nothing differs is never said of nothing; and a result is of the question that it stands under, with a page for people."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from actors.rules.errors import FailedPrecondition, NotFound
from cluster.archive.filesystem import Place
from cluster.replay import jobs, result
from cluster.replay.jobs import Request, judge_part
from tests.replay.made import profile, simulate, write
from tests.replay.tampering import tamper
from tests.replay.test_whatif import ASKED, COLD, FENCE, TOTAL, WARM


def archive(folder: Path, many: int = 10) -> list[dict[str, Any]]:
    journeys = [simulate(random.Random(number), number) for number in range(many)]
    return write(Place.of(folder / "archive"), journeys, profile(60, WARM, COLD, TOTAL), (FENCE,), record=True)


def test_an_empty_archive_and_a_month_without_shipments_are_errors(tmp_path: Path) -> None:
    parts = archive(tmp_path)
    for some, request in (([], Request(result.VERIFY)), (parts, Request(result.VERIFY, months=("1999-01",)))):
        with pytest.raises(FailedPrecondition, match="nothing is archived"):
            jobs.run("r", request, some, Place.of(tmp_path / "r"))
    assert not (tmp_path / "r").exists()


def test_a_shipment_that_is_not_there_is_named(ray_session: None, tmp_path: Path) -> None:
    request = Request(result.VERIFY, shipment_ids=("s-0001", "s-none"))
    with pytest.raises(NotFound) as refused:
        jobs.run("r", request, archive(tmp_path), Place.of(tmp_path / "r"))
    assert refused.value.value == "s-none"
    assert not (tmp_path / "r" / result.RESULT).exists()


def test_a_folder_holds_the_answer_to_one_question_and_a_page_for_people(ray_session: None, tmp_path: Path) -> None:
    parts, place = archive(tmp_path), Place.of(tmp_path / "r")
    asked = Request(result.WHAT_IF, rules=ASKED)
    made = jobs.run("r", asked, parts, place)
    page = (tmp_path / "r" / result.REPORT).read_text(encoding="utf-8")
    assert "would be judged otherwise" in page
    assert "<svg" in page
    assert made.digest in page
    assert sorted(name for name, _ in place.ages()) == ["differences.parquet", "report.html", "result.json", "shipments.parquet"]
    assert jobs.run("r", asked, parts, place) == made
    with pytest.raises(FailedPrecondition, match="another question"):
        jobs.run("r", Request(result.VERIFY), parts, place)
    (tmp_path / "r" / result.RESULT).unlink()
    (tmp_path / "r" / jobs.ASKED).write_text(json.dumps(asked.to_data()))  # as one that was cut off leaves it
    with pytest.raises(FailedPrecondition, match="another question"):
        jobs.run("r", Request(result.VERIFY), parts, place)


def test_a_recorded_excursion_of_no_custody_is_named(tmp_path: Path) -> None:
    (part,) = archive(tmp_path)
    moved: list[str] = []

    def elsewhere(row: dict[str, Any]) -> bool:
        if not moved:
            moved.append(row["carrier"].removeprefix("shipment/"))
            row["custody_id"] = 999
        return bool(moved)

    tamper(part, "excursions", elsewhere)
    place = Place.of(tmp_path / "r")
    judge_part(part, Request(result.VERIFY), place)
    body = json.loads(place.read(f"{jobs.TASKS}/{part['part_id']}.json"))
    (stray,) = [row for row in body["differences"] if row["custody_id"] == 999]
    assert (stray["shipment_id"], stray["subject"], stray["change"]) == (moved[0], result.EXCURSION, result.VANISHED)
    assert stray["before_started_at"] > 0
