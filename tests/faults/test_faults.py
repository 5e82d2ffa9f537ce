"""The short form: a fleet streams while its Waybill is killed, frozen and starved of disk; then the slow reference judges what is left.

Each run is held to all promises at once (see judge.py), and must have met what it is about. On the SQLite system a bug is planted
afterwards, and then another, and the same check is held to finding them. One Waybill for each database serves all of it.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tests.faults.planted import FULL, Traps, instrumented
from tests.faults.run import Plan, Report, run
from tests.faults.system import System, supervised
from tests.postgres import PostgreSQL
from waybill.v1 import shipment_pb2, shipment_pb2_grpc, tag_pb2, tag_pb2_grpc

if TYPE_CHECKING:
    from cluster.boot import Running

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

START_S = 1_760_000_000
SMALL = {"tags": 96, "shipments": 8, "streams": 4, "batch_rows": 120, "ride_minutes": 400}
KINDS = {"sqlite": ["shard", "committer", "door", "freeze", "full", "io", "fsync"], "postgresql": ["shard", "database", "freeze"]}


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


Disturb = Callable[[str, list[str], int], Report]


@pytest.fixture(scope="module")
def systems(
    start_waybill: Callable[..., Running], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], System]]:
    """An instrumented Waybill for each database, started when it is first asked for."""
    with contextlib.ExitStack() as stack:
        started: dict[str, System] = {}

        def of(database: str) -> System:
            if database not in started:
                traps = Traps(tmp_path_factory.mktemp("faults") / "traps", create=True)
                server: PostgreSQL | None = request.getfixturevalue("server") if database == "postgresql" else None
                given: dict[str, object] = {"owner_timeout_s": 90.0, "snapshot_readings": 1_500}
                # (a frozen owner is to be thawed, not ended by the supervisor)
                if server is not None:
                    given["database_url"] = server.new_database()
                stack.enter_context(instrumented(traps))
                running = stack.enter_context(start_waybill(database, **given))
                started[database] = stack.enter_context(supervised(running, traps, server))
            return started[database]

        yield of


@pytest.fixture(scope="module")
def disturbed(systems: Callable[[str], System], tmp_path_factory: pytest.TempPathFactory) -> Disturb:
    """Carry out kills of the given kinds on a database's Waybill, with a fleet of its own (by its seed)."""

    def go(database: str, kinds: list[str], seed: int) -> Report:
        plan = Plan(kinds, 240, seed, cycles=len(kinds), readings=15_000, world=SMALL, readings_per_s=3_000, drain_s=120)
        return run(systems(database), tmp_path_factory.mktemp("faults") / "run", plan, say=print)

    return go


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def report(request: pytest.FixtureRequest, disturbed: Disturb) -> Report:
    """What is left of one Waybill after all its kinds of fault."""
    found = disturbed(request.param, KINDS[request.param], 1)
    print(found.text())
    found.database = request.param  # type: ignore[attr-defined]
    return found


def test_nothing_acknowledged_is_lost_or_doubled_and_nothing_is_made_up(report: Report) -> None:
    verdict = report.verdict
    assert report.gateway_error == ""
    assert verdict.acknowledged > 5_000
    assert (verdict.lost, verdict.doubled, verdict.foreign) == (0, 0, 0), verdict.problems


def test_what_is_stated_and_counted_is_that_of_the_slow_reference(report: Report) -> None:
    verdict = report.verdict
    assert verdict.excursions > 20
    assert verdict.share_in_excursions >= 0.1
    assert (verdict.differing_excursions, verdict.differing_sums, verdict.differing_visits) == (0, 0, 0), verdict.problems
    assert (verdict.differing_conflicts, verdict.differing_counters, verdict.differing_flags) == (0, 0, 0), verdict.problems
    assert min(verdict.conflicts, verdict.flags) > 0


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
    mid_commit = {cycle.kind for cycle in report.cycles if cycle.how == "trap"}
    assert mid_commit == counted.keys() - {"full"}, "the first of each kind falls between write and commit; " + report.text()
    assert report.sound, report.text()


def test_a_command_that_a_full_disk_refused_is_carried_out_when_there_is_room(systems: Callable[[str], System]) -> None:
    system = systems("sqlite")
    with grpc.insecure_channel(system.target) as channel:
        tags, shipments = tag_pb2_grpc.TagServiceStub(channel), shipment_pb2_grpc.ShipmentServiceStub(channel)
        create = shipment_pb2.CreateShipmentRequest(shipment=shipment_pb2.Shipment(shipment_id="FULL-1"), request_id="make-FULL-1")
        shipments.CreateShipment(create, timeout=20)
        names = [f"full-{number}" for number in range(400)]
        for name in names:
            tags.RegisterTag(tag_pb2.RegisterTagRequest(tag=tag_pb2.Tag(tag_id=name)), timeout=20)

        def assign(name: str) -> grpc.StatusCode:
            given = shipment_pb2.AssignTagRequest(shipment_id="FULL-1", tag_id=name, from_time=Timestamp(seconds=START_S), actor="clerk")
            try:
                shipments.AssignTag(given, timeout=20)
            except grpc.RpcError as error:
                return error.code()
            return grpc.StatusCode.OK

        system.traps.arm(FULL)
        try:  # until the free pages are used up
            refused = next(name for name in names if assign(name) is grpc.StatusCode.RESOURCE_EXHAUSTED)
        finally:
            system.traps.disarm(FULL)
        answers = [assign(refused)]
        while answers[-1] is not grpc.StatusCode.OK and len(answers) < 20:
            time.sleep(0.25)
            answers.append(assign(refused))
        assert answers[-1] is grpc.StatusCode.OK, Counter(answers)


def test_a_planted_commit_that_checks_no_epoch_is_caught(systems: Callable[[str], System], disturbed: Disturb) -> None:
    traps = systems("sqlite").traps
    traps.plant = "epoch-not-checked"
    try:
        report = disturbed("sqlite", ["freeze"], 2)
    finally:
        traps.plant = ""
    assert [cycle.how for cycle in report.cycles] == ["trap"], "the owner was not frozen with a commit in hand"
    assert report.verdict.superseded_writes > 0, report.text()
    assert not report.sound


def test_a_planted_acknowledgement_before_the_commit_is_caught(systems: Callable[[str], System], disturbed: Disturb) -> None:
    traps = systems("sqlite").traps
    traps.plant = "acknowledge-before-commit"
    try:
        report = disturbed("sqlite", ["both"], 3)
    finally:
        traps.plant = ""
    assert report.verdict.lost > 0, report.text()
