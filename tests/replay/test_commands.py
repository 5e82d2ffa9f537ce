"""`waybill archive` and `waybill replay` at the terminal: what a person does, from a closed shipment to a what-if and a second system."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.client import Client, circle, limit, new_id
from tests.archive.journeys import deliver
from tests.data.support import waybill_command, waybill_output

if TYPE_CHECKING:
    from cluster.boot import Running


@pytest.fixture
def place(waybill: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive of the test's own; the commands find the system by its settings."""
    settings = waybill.settings
    monkeypatch.setenv("WAYBILL_DATABASE_URL", settings.url_text)
    monkeypatch.setenv("WAYBILL_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("WAYBILL_ARCHIVE", str(tmp_path / "archive"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "archive"


def closed(client: Client) -> str:
    """A shipment that was warm for 20 minutes and called at a depot."""
    tag = new_id("t")
    fence = circle(new_id("depot"), 52.0, 4.0, 1000.0)
    shipment = client.shipment(client.profile(limit("warm", 8, minutes=10)), tag, geofences=[fence])
    client.send(tag, *((minute, 10.0 if 20 <= minute < 40 else 5.0) for minute in range(60)))
    client.send_fixes(tag, *((minute + 0.5, 52.0 if 10 <= minute < 20 else 52.5, 4.0) for minute in range(0, 60, 2)))
    client.release(shipment, tag, 60)
    deliver(client, shipment, 61)
    return shipment


def test_from_a_closed_shipment_to_a_what_if_and_a_second_system(client: Client, waybill: Running, place: Path, tmp_path: Path) -> None:
    shipment = closed(client)
    server = ("--server", waybill.target)
    told = waybill_output("archive", "run", "--shipment", shipment)
    assert "1 shipments (0 of them again), 90 readings, 1 parts" in told
    assert "all as published" in waybill_output("archive", "verify", "--archive", place)
    assert waybill_output("archive", "list").count("20") >= 1

    verified = waybill_output("replay", "verify", "--archive", place, "--out", tmp_path / "v")
    assert "Nothing differs." in verified
    assert "Nothing differs." in waybill_output("replay", "verify", "--arrival", "--archive", place, "--out", tmp_path / "a")
    rules = tmp_path / "other.json"
    rules.write_text(json.dumps({"limits": {"warm": {"threshold": 11.0}}}))
    what_if = waybill_output("replay", "whatif", rules, "--archive", place, "--out", tmp_path / "w")
    assert "1 shipments: excursion → within limits" in what_if
    assert "0 appear, 1 vanish, 0 change" in what_if
    assert "`waybill report replay " in " ".join(what_if.split()), "how to see it again"
    assert "vanished" in waybill_output("replay", "show", tmp_path / "w")

    prefix = new_id("again") + "-"
    played = waybill_output("replay", "live", "--archive", place, "--speed", 10_000, "--prefix", prefix, *server)
    assert "1 shipments, 90 readings" in played
    assert "90 accepted, 0 refused" in played
    again, original = client.excursions(prefix + shipment), client.excursions(shipment)
    assert [(one.limit_id, one.violation_us, one.readings, one.extreme) for one in again] == [
        (one.limit_id, one.violation_us, one.readings, one.extreme) for one in original
    ]
    kinds = [[visit[0] for visit in client.visits(one)] for one in (prefix + shipment, shipment)]
    assert kinds[0] == kinds[1]
    assert kinds[0].count("VISIT") == 1


@pytest.mark.parametrize("waybill", ["sqlite"], indirect=True)
def test_mistakes_are_told_with_what_to_do(place: Path, tmp_path: Path, waybill: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert waybill_command("archive", "retain", "--older-than", "soon") == 2
    assert "write 30m, 12h, 90d or 2w" in capsys.readouterr().err
    assert waybill_command("replay", "verify", "--archive", tmp_path / "nothing", "--server", waybill.target) == 2
    assert "is no archive" in capsys.readouterr().err
    rules = tmp_path / "bad.json"
    rules.write_text("{")
    assert waybill_command("replay", "whatif", rules, "--server", waybill.target) == 2
    assert "is not JSON" in capsys.readouterr().err
    rules.write_text('{"limits": {"warm": {"top": 1}}}')
    assert waybill_command("replay", "whatif", rules, "--server", waybill.target) == 1
    assert "limits.warm" in capsys.readouterr().err
