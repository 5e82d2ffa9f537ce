"""The command line against a running Waybill: what it prints, what it refuses, and with which exit code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sqlmodel import Session

from actors.journal.database import writer
from actors.journal.migrate import migrate
from actors.journal.tables import Quarantine
from cluster.cli import app
from cluster.cli.common import lasting, word
from cluster.cli.draw import line_plot
from cluster.client import Client
from cluster.settings import load
from cluster.simulate import Fleet
from tests.data.support import waybill_command
from waybill.v1 import alert_pb2, common_pb2, shipment_pb2

if TYPE_CHECKING:
    from cluster.boot import Running

Captured = pytest.CaptureFixture[str]
HEADER = "1-Wire/iButton Registration Number: CLI-TAG\n\nDate/Time,Unit,Value\n"
START_US = 1_751_846_400_000_000


@pytest.fixture(scope="module")
def server(waybill: Running) -> tuple[str, str]:
    """The connection option of the running Waybill."""
    return "--server", waybill.target


def logger_file(folder: Path, tag: str, temperatures: list[float]) -> Path:
    rows = [f"1/5/26 {1 + n // 6}:{10 * (n % 6):02d}:00 AM,C,{value}\n" for n, value in enumerate(temperatures)]
    path = folder / f"{tag}.csv"
    path.write_text(HEADER.replace("CLI-TAG", tag) + "".join(rows))
    return path


def ibutton(path: Path, *more: str) -> tuple[str, ...]:
    return ("import", "ibutton", str(path), "--timezone", "UTC", *more)


# ---- import


def test_bad_rows_are_told_with_file_line_and_reason_and_the_good_ones_are_kept(
    server: tuple[str, str], tmp_path: Path, capsys: Captured
) -> None:
    path = tmp_path / "mixed.csv"
    path.write_text("id,at,lat,lon\nmixed,100,1,1\nmixed,soon,1,1\nmixed,300,91,1\nmixed,400,2,2\nmixed,400,3,3\nmixed,400,2,2\n")
    columns = ("--tag-column", "id", "--time-column", "at", "--lat-column", "lat", "--lon-column", "lon", "--time-format", "%Y")
    path.write_text(path.read_text().replace(",100,", ",2020,").replace(",300,", ",2021,").replace(",400,", ",2022,"))
    assert waybill_command("import", "gps-csv", path, *columns, "--timezone", "UTC", *server) == 1
    captured = capsys.readouterr()
    assert f"{path}:3: time 'soon' does not fit the format '%Y'" in captured.err
    assert re.search(re.escape(str(path)) + r":4: latitude_deg .*91", captured.err)
    assert "6 rows read, 5 readings sent of 1 tags: 2 accepted, 1 duplicate, 1 conflicting, 1 refused; 1 bad rows" in captured.out
    assert "lines 6" in captured.out


def test_a_file_that_cannot_be_used_says_why_and_the_others_are_imported(server: tuple[str, str], tmp_path: Path, capsys: Captured) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("nothing of the kind\n")
    good = logger_file(tmp_path, "beside-notes", [5.0, 6.0])
    assert waybill_command("import", "ibutton", other, good, "--timezone", "UTC", *server) == 2
    captured = capsys.readouterr()
    assert f"{other}: no 'Date/Time,Unit,Value' line: this is not an iButton logger export" in captured.err
    assert "2 accepted" in captured.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("import", "ibutton", "none.csv", "--timezone", "UTC"), "No such file"),
        (("import", "ibutton", "none.csv", "--timezone", "Mars/Base"), "unknown time zone 'Mars/Base'"),
        (("import", "gps-csv", "x.csv"), "gps-csv needs --tag-column"),
        (("import", "chirpstack", "x", "--field", "a=b"), "'a=b' is not FIELD=METRIC"),
        (("import", "ibutton", "x", "--profile", "usp-crt"), "belong to --shipment"),
        (("import", "ibutton", "x", "--shipment", "S", "--from", "soon"), "--from: time 'soon'"),
        (("simulate", "--faults", "rain"), "unknown fault 'rain'"),
        (("simulate", "--tags", "2000000"), "1000000"),
        (("alerts", "--kind", "weather"), "not one of goods, sensor"),
        (("shipment", "list", "--state", "lost"), "not planned, in-transit"),
        (("status", "--key", __file__), "--certificate and --key come together"),
    ],
)
def test_wrong_usage_is_explained_with_exit_code_2(
    server: tuple[str, str], capsys: Captured, arguments: tuple[str, ...], message: str
) -> None:
    assert waybill_command(*arguments, *server) == 2
    assert message in re.sub(r"[\s│]+", " ", capsys.readouterr().err)


def test_a_server_address_without_a_port_is_refused(capsys: Captured) -> None:
    assert waybill_command("status", "--server", "localhost") == 2
    assert "is not HOST:PORT" in capsys.readouterr().err


# ---- from a file to a person who acts


@pytest.fixture(scope="module")
def warm(server: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A shipment with one excursion: 16 °C for half an hour under USP cold, 2 to 8 °C."""
    path = logger_file(tmp_path_factory.mktemp("warm"), "warm-tag", [5, 5, 16, 16.5, 16, 5, 5])
    journey = ("--shipment", "WARM", "--profile", "usp-cold", "--from", "2026-01-05T01:00", "--until", "2026-01-05T02:00")
    assert waybill_command(*ibutton(path), *journey, *server) == 0
    return "WARM"


def test_a_shipment_is_shown_with_its_line_limits_excursion_and_verdict(warm: str, server: tuple[str, str], capsys: Captured) -> None:
    assert waybill_command("shipment", "show", warm, *server) == 0
    shown = capsys.readouterr().out
    for part in ("WARM", "EXCURSION", "usp-cold", "delivered", "warm-tag", "hot-15", "16.50", "30 min", "2026-01-05 01:20:00", "┤"):
        assert part in shown


def test_shipments_are_listed_with_their_verdicts(warm: str, server: tuple[str, str], capsys: Captured) -> None:
    assert waybill_command("shipment", "list", "--state", "delivered", *server) == 0
    assert re.search(r"WARM .*usp-cold +delivered +2 +mkt-8 .* EXCURSION", capsys.readouterr().out)


def test_a_person_acknowledges_assigns_comments_and_resolves_an_alert(warm: str, server: tuple[str, str], capsys: Captured) -> None:
    with Client(server[1]) as client:
        request = alert_pb2.ListAlertsRequest(filter=alert_pb2.AlertFilter(shipment_id=warm, kinds=[alert_pb2.ALERT_KIND_GOODS]))
        found = {alert.limit_id: alert for alert in client.pages(client.alerts.ListAlerts, request, "alerts")}
    assert set(found) == {"hot-15", "mkt-8"}  # 16.5 °C lifts the mean kinetic temperature of the one hour above 8 °C too
    alert = found["hot-15"]
    assert waybill_command("alerts", "--shipment", warm, *server) == 0
    assert alert.alert_id in capsys.readouterr().out
    assert waybill_command("alert", "comment", alert.alert_id, "looking", "--actor", "ann", *server) == 0
    assert waybill_command("alert", "assign", alert.alert_id, "night-shift", "--actor", "ann", "--etag", alert.etag, *server) == 1
    assert "STALE_ETAG" in capsys.readouterr().err
    for action in (("ack",), ("assign", "night-shift"), ("comment", "door was open"), ("resolve", "--reason", "within budget")):
        arguments = [action[0], alert.alert_id, *action[1:]]
        assert waybill_command("alert", *arguments, "--actor", "ann", *server) == 0, action
    capsys.readouterr()
    assert waybill_command("alert", "show", alert.alert_id, *server) == 0
    shown = capsys.readouterr().out
    for part in ("raised", "acknowledged by ann", "assigned by ann", "door was open", "resolved by ann", "within budget", "night-shift"):
        assert part in shown
    assert waybill_command("alert", "ack", alert.alert_id, "--actor", "ann", *server) == 1
    assert "FAILED_PRECONDITION" in capsys.readouterr().err


def test_alerts_can_be_watched_from_a_number_on(warm: str, server: tuple[str, str]) -> None:
    command = [sys.executable, "-m", "cluster.cli", "alerts", "--watch", "--after", "0", "--shipment", warm, *server]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "160"}) as watch:
        assert watch.stdout is not None
        line = watch.stdout.readline()
        watch.terminate()
    assert re.search(r"\d+ raised +goods +WARM +(hot-15|mkt-8) of usp-cold, worst \d+\.\d °C, since 2026-01-05 01:\d\d", line)


def test_what_is_not_there_is_a_message_with_advice_and_no_traceback(server: tuple[str, str], capsys: Captured) -> None:
    assert waybill_command("shipment", "show", "NOWHERE", *server) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("NOT_FOUND")
    assert "NOWHERE" in captured.err
    assert "waybill shipment list" in captured.err
    assert "Traceback" not in captured.err


def test_a_tag_is_shown_with_values_counters_and_custody(warm: str, server: tuple[str, str], capsys: Captured) -> None:
    assert waybill_command("tag", "show", "warm-tag", *server) == 0
    shown = capsys.readouterr().out
    for part in ("warm-tag", "temperature c", "7 accepted", "shipment/WARM"):
        assert part in shown


def test_profiles_are_listed_and_explained(server: tuple[str, str], capsys: Captured) -> None:
    assert waybill_command("profiles", *server) == 0
    assert "fda-cold-holding" in capsys.readouterr().out
    assert waybill_command("profiles", "who-type-1", *server) == 0
    assert "temperature ≥ 30 °C for 10 h in total" in capsys.readouterr().out


def test_status_says_that_it_serves(server: tuple[str, str], capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WAYBILL_DATA_DIR", str(tmp_path))
    assert waybill_command("status", *server) == 0
    assert "SERVING" in capsys.readouterr().out


def test_status_tells_by_name_and_time_what_was_found_damaged(
    server: tuple[str, str], capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WAYBILL_DATA_DIR", str(tmp_path))
    url = load({}, data_dir=tmp_path).url_text
    migrate(url)
    damaged = Quarantine(
        shard=1, kind="entry", number=7, name="entry 7 of shard 1", from_us=1_750_000_000_000_000, until_us=1_750_003_600_000_000,
        readings=4_321, why="its checksum is another one",
    )  # fmt: skip
    engine = writer(url)
    with Session(engine) as session:
        session.add(damaged)
        session.commit()
    engine.dispose()
    assert waybill_command("status", *server) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "damaged in shard 1: entry 7 of shard 1: 4,321 readings, sensed from 2025-06-15 15:06 to 2025-06-15 16:06" in said
    assert "its checksum is another one" in said


def test_status_without_a_server_says_how_to_start_one(capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WAYBILL_DATA_DIR", str(tmp_path))
    assert waybill_command("status", "--server", "127.0.0.1:1") == 2
    captured = capsys.readouterr()
    assert "UNAVAILABLE" in captured.out
    assert "waybill up" in captured.err


# ---- simulate


def test_a_simulated_fleet_arrives_as_the_truth_says_and_a_second_time_changes_nothing(server: tuple[str, str], capsys: Captured) -> None:
    how = ("--tags", "16", "--days", "0.8", "--interval", "900", "--seed", "3", "--start", "2025-07-07T00:00Z", "--gateways", "3")
    fleet = Fleet(16, seed=3, days=0.8, start_us=START_US, gateways=3, interval_s=900.0, name="fleet")
    truth = fleet.truth()
    accepted, copies = len(truth.accepted), truth.duplicate
    expected = f"{accepted:,} accepted, {copies:,} duplicate, {truth.conflicting} conflicting, {truth.refused} refused"
    assert waybill_command("simulate", *how, "--name", "fleet", *server) == 0
    assert expected in capsys.readouterr().out
    with Client(server[1]) as client:
        listed = client.pages(client.shipments.ListShipments, shipment_pb2.ListShipmentsRequest(), "shipments")
        states = {one.shipment_id: one.state for one in listed if one.shipment_id.startswith("FLEET-")}
    trips = {trip.shipment_id: trip for trip in fleet.trips()}
    assert set(states) == set(trips)
    assert copies
    delivered = {shipment_id for shipment_id, state in states.items() if state == shipment_pb2.SHIPMENT_STATE_DELIVERED}
    assert delivered == {shipment_id for shipment_id, trip in trips.items() if trip.custody_until_s < fleet.days * 86_400} != set()
    assert waybill_command("simulate", *how, "--name", "fleet", *server) == 0
    assert f" 0 accepted, {accepted + copies:,} duplicate" in capsys.readouterr().out


# ---- the parts


def commands(application: object = app, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    import typer

    group = typer.main.get_command(application)  # type: ignore[arg-type]
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            yield from ((*path, name, inner) for inner in command.commands)
        else:
            yield (*path, name)


@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_every_command_teaches_by_example(command: tuple[str, ...], capsys: Captured) -> None:
    assert waybill_command(*command, "--help") == 0
    shown = capsys.readouterr().out
    assert "Example" in shown
    assert f"waybill {' '.join(command)}" in re.sub(r"\s+", " ", shown)


def test_a_line_is_drawn_with_its_limits_and_its_axis() -> None:
    at_us = np.arange(0, 600) * 60_000_000
    values = np.where((at_us > 200 * 60_000_000) & (at_us < 260 * 60_000_000), 12.0, 5.0)
    plot = line_plot(at_us, values, limits=[8.0, 400.0], spans=[(200 * 60_000_000, 260 * 60_000_000)], width=60, height=10, unit="°C")
    lines = plot.plain.splitlines()
    assert len(lines) == 11
    assert "╌" in plot.plain
    assert all(len(line) == len(lines[0]) for line in lines[:10])
    assert "1970-01-01 00:00" in lines[-1]
    assert "1970-01-01 09:59" in lines[-1]
    reds = [span for span in plot.spans if span.style == "red"]
    assert reds
    assert line_plot(at_us[:0], values[:0]).plain == "(no values)"
    assert line_plot(at_us[:1], values[:1], width=10, height=3).plain


@pytest.mark.parametrize(("us", "text"), [(0, "0 s"), (90e6, "90 s"), (5400e6, "90 min"), (36_000e6, "10 h"), (200_000e6, "2 d 7 h")])
def test_durations_are_written_for_people(us: float, text: str) -> None:
    assert lasting(us) == text


def test_enum_values_are_words_and_unknown_numbers_stay_numbers() -> None:
    assert word(common_pb2.Verdict, common_pb2.VERDICT_WITHIN_LIMITS) == "within limits"
    assert word(common_pb2.Verdict, 0) == ""
    assert word(common_pb2.Verdict, 99) == "99"


def test_the_module_is_the_command() -> None:
    run = subprocess.run([sys.executable, "-m", "cluster.cli", "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert "waybill demo" in run.stdout
