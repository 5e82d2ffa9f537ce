"""ReplayService: a replay is started, followed, read and ended by any gRPC client."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from actors.journal.store import Store
from cluster.archive import run as archive_run
from cluster.archive.filesystem import Place
from cluster.replay import jobs
from tests.acceptance.client import Client, new_id, refused
from tests.archive.journeys import journeys
from waybill.v1 import replay_pb2, replay_pb2_grpc

if TYPE_CHECKING:
    from cluster.boot import Running

Ask = Callable[..., replay_pb2.Replay]


@pytest.fixture(scope="module")
def shipments(waybill: Running, client: Client, store: Store) -> list[str]:
    """Closed shipments in the running system's own archive."""
    made = journeys(client, 3, minutes=120)
    place = Place.of(waybill.settings.archive_location)
    archive_run.run(store, place, 1 << 60, jobs.now_us, only=frozenset(made))
    return made


@pytest.fixture(scope="module")
def replays(client: Client) -> replay_pb2_grpc.ReplayServiceStub:
    return replay_pb2_grpc.ReplayServiceStub(client.channel)


def ended(replays: Any, request: replay_pb2.StartReplayRequest) -> replay_pb2.Replay:
    """Start a replay and follow it to its end."""
    started = replays.StartReplay(request, timeout=120).replay
    told = [answer.replay for answer in replays.WatchReplay(replay_pb2.WatchReplayRequest(replay_id=started.replay_id), timeout=120)]
    assert told[-1].state != replay_pb2.REPLAY_STATE_RUNNING
    return told[-1]


def differences(replays: Any, replay_id: str) -> list[replay_pb2.ReplayDifference]:
    found: list[replay_pb2.ReplayDifference] = []
    token = ""
    while True:
        request = replay_pb2.ListReplayDifferencesRequest(replay_id=replay_id, page_size=3, page_token=token)
        answer = replays.ListReplayDifferences(request, timeout=60)
        found += answer.differences
        token = answer.next_page_token
        if not token:
            return found


def test_a_verify_is_followed_to_its_end_and_finds_nothing(replays: Any, shipments: list[str]) -> None:
    replay_id = new_id("r")
    request = replay_pb2.StartReplayRequest(kind=replay_pb2.REPLAY_KIND_VERIFY, shipment_ids=shipments, actor="test", request_id=replay_id)
    done = ended(replays, request)
    assert (done.state, done.error) == (replay_pb2.REPLAY_STATE_SUCCEEDED, "")
    assert done.summary.identical
    assert done.counts["shipments"] == len(shipments)
    assert done.counts["excursions"] > 0
    assert differences(replays, replay_id) == []
    assert replays.StartReplay(request, timeout=60).replay == done, "asked again it is the same replay"
    other = replay_pb2.StartReplayRequest(kind=replay_pb2.REPLAY_KIND_ARRIVAL, request_id=replay_id)
    assert refused(lambda: replays.StartReplay(other, timeout=60))[0] == grpc.StatusCode.ALREADY_EXISTS
    listed = replays.ListReplays(replay_pb2.ListReplaysRequest(page_size=5), timeout=60).replays
    assert replay_id in [one.replay_id for one in listed]


def test_a_what_if_tells_what_would_be_otherwise_page_by_page(replays: Any, shipments: list[str]) -> None:
    rules = {"limits": {"warm": {"threshold": 30.0, "clear": None}}}
    done = ended(
        replays,
        replay_pb2.StartReplayRequest(kind=replay_pb2.REPLAY_KIND_WHAT_IF, shipment_ids=shipments, rules_json=json.dumps(rules)),
    )
    assert (done.state, done.error) == (replay_pb2.REPLAY_STATE_SUCCEEDED, "")
    found = differences(replays, done.replay_id)
    assert len(found) == done.counts["differences"] > 3
    assert {(one.subject, one.name, one.change) for one in found} == {("excursion", "warm", replay_pb2.DIFFERENCE_CHANGE_VANISHED)}
    assert done.summary.excursions_vanished == len(found)
    assert all(one.HasField("before") and not one.HasField("after") for one in found)


@pytest.mark.parametrize(
    ("request_", "status", "field"),
    [
        (replay_pb2.StartReplayRequest(), grpc.StatusCode.INVALID_ARGUMENT, "kind"),
        (replay_pb2.StartReplayRequest(kind=1, months=["2026-13"]), grpc.StatusCode.INVALID_ARGUMENT, "months[0]"),
        (replay_pb2.StartReplayRequest(kind=3, rules_json="[]"), grpc.StatusCode.INVALID_ARGUMENT, "rules_json"),
        (
            replay_pb2.StartReplayRequest(kind=3, rules_json='{"limits": {"a": {"top": 1}}}'),
            grpc.StatusCode.INVALID_ARGUMENT,
            "limits.a",
        ),
        (replay_pb2.StartReplayRequest(kind=1, rules_json='{"ignore_us": 1}'), grpc.StatusCode.INVALID_ARGUMENT, "rules_json"),
        (replay_pb2.StartReplayRequest(kind=1, shipment_ids=["never-was"]), grpc.StatusCode.NOT_FOUND, "shipment_ids[0]"),
        (replay_pb2.StartReplayRequest(kind=1, months=["1999-01"]), grpc.StatusCode.FAILED_PRECONDITION, "months"),
    ],
)
def test_a_question_that_cannot_be_is_refused_by_field(
    replays: Any, shipments: list[str], request_: replay_pb2.StartReplayRequest, status: grpc.StatusCode, field: str
) -> None:
    found = refused(lambda: replays.StartReplay(request_, timeout=60))
    assert (found[0], found[2]) == (status, field)


def test_what_is_not_there_is_not_found(replays: Any) -> None:
    for method, request in (
        (replays.GetReplay, replay_pb2.GetReplayRequest(replay_id="none")),
        (replays.CancelReplay, replay_pb2.CancelReplayRequest(replay_id="none")),
        (replays.ListReplayDifferences, replay_pb2.ListReplayDifferencesRequest(replay_id="none")),
    ):
        assert refused(lambda method=method, request=request: method(request, timeout=60))[0] == grpc.StatusCode.NOT_FOUND  # type: ignore[misc]
