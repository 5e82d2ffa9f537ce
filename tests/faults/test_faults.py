"""The short form: a fleet streams while its Waybill is killed, frozen and starved of disk; then the slow reference judges what is left.

Each run is held to all promises at once (see judge.py), and must have met what it is about. Two runs have a bug planted,
and are held to finding it.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.planted import Traps, instrumented
from tests.faults.run import Plan, Report, run
from tests.faults.system import supervised
from tests.postgres import PostgreSQL

if TYPE_CHECKING:
    from cluster.boot import Running

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

SMALL = {"tags": 96, "shipments": 8, "streams": 4, "batch_rows": 120, "ride_minutes": 400}
KINDS = {
    "sqlite": ["shard", "committer", "door", "freeze", "both", "full", "io"],
    "postgresql": ["shard", "database", "door", "freeze"],
}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    """A PostgreSQL of these tests' own, which they kill."""
    folder = Path(tempfile.mkdtemp(prefix="waybill-postgresql-"))
    server = PostgreSQL(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def disturbed(
    start_waybill: Callable[..., Running], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Callable[..., Report]:
    """Carry out kills of the given kinds on a Waybill of its own."""

    def go(database: str, kinds: list[str], plant: str = "") -> Report:
        folder = tmp_path_factory.mktemp("faults")
        traps = Traps(folder / "traps", create=True)
        server: PostgreSQL | None = request.getfixturevalue("server") if database == "postgresql" else None
        given: dict[str, object] = {"owner_timeout_s": 90.0, "snapshot_readings": 1_500}
        # (a frozen owner is to be thawed, not ended by the supervisor)
        if server is not None:
            given["database_url"] = server.new_database()
        with contextlib.ExitStack() as stack:
            stack.enter_context(instrumented(traps, plant))
            running = stack.enter_context(start_waybill(database, **given))
            system = stack.enter_context(supervised(running, traps, plant, server))
            plan = Plan(kinds, duration_s=90, cycles=len(kinds), world=SMALL, readings_per_s=3_000, drain_s=60)
            return run(system, folder / "run", plan, say=print)

    return go


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def report(request: pytest.FixtureRequest, disturbed: Callable[..., Report]) -> Report:
    """What is left of one Waybill after all its kinds of fault."""
    found = disturbed(request.param, KINDS[request.param])
    print(found.text())
    found.database = request.param  # type: ignore[attr-defined]
    return found


def test_nothing_acknowledged_is_lost_or_doubled_and_nothing_is_made_up(report: Report) -> None:
    verdict = report.verdict
    assert report.gateway_error == ""
    assert verdict.acknowledged > 10_000
    assert (verdict.lost, verdict.doubled, verdict.foreign) == (0, 0, 0), verdict.problems


def test_the_excursions_and_sums_are_those_of_the_slow_reference(report: Report) -> None:
    verdict = report.verdict
    assert verdict.excursions > 20
    assert verdict.share_in_excursions >= 0.1
    assert (verdict.differing_excursions, verdict.differing_sums) == (0, 0), verdict.problems


def test_a_subscriber_with_a_cursor_sees_each_change_of_an_alert_once(report: Report) -> None:
    verdict = report.verdict
    assert verdict.alert_events_seen > 20
    assert (verdict.alerts_missed, verdict.alerts_twice) == (0, 0), verdict.problems


def test_a_superseded_owner_writes_nothing(report: Report) -> None:
    assert "freeze" in {cycle.kind for cycle in report.cycles}
    assert report.verdict.superseded_writes == 0


def test_every_kind_of_fault_met_unacknowledged_readings_and_was_survived(report: Report) -> None:
    counted = Counter(cycle.kind for cycle in report.cycles if cycle.counts)
    assert set(counted) == set(KINDS[report.database]), report.text()  # type: ignore[attr-defined]
    assert all(cycle.recovered for cycle in report.cycles), report.text()
    assert report.sound, report.text()


def test_a_planted_acknowledgement_before_the_commit_is_caught(disturbed: Callable[..., Report]) -> None:
    report = disturbed("sqlite", ["both"], plant="acknowledge-before-commit")
    assert report.verdict.lost > 0, report.text()


@pytest.mark.long  # whether the thawed owner has something to write is chance: some runs have nothing to catch
def test_a_planted_commit_that_checks_no_epoch_is_caught(disturbed: Callable[..., Report]) -> None:
    report = disturbed("sqlite", ["freeze", "freeze"], plant="epoch-not-checked")
    assert report.verdict.superseded_writes > 0, report.text()
    assert not report.sound
