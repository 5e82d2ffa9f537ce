"""The outbox's delivery: in order, again and again, dead letters that a person decides about, alerts, webhooks. Real rows, real HTTP."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from sqlmodel import Session, select

from actors.journal import delivery, outbox
from actors.journal.store import Store
from actors.journal.tables import Alert, Outbox
from services.outbox import MOST_ATTEMPTS, Courier, wait_s
from services.outside import Away, Done, Failed, LockedOut, Message, Outcome, OutsideError, Refused
from services.webhook import Webhook
from tests.journal.conftest import database as database
from tests.journal.conftest import store as store

NAME = "erp"


class Receiver:
    """Takes messages as it is told to: an answer per key, BOOKED where there is none."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Outcome | OutsideError]] = {}
        self.taken: list[str] = []

    def deliver(self, messages: Sequence[Message]) -> Iterator[Outcome]:
        for message in messages:
            planned = self.answers.get(message.key, [])
            answer = planned.pop(0) if planned else Done.BOOKED
            if isinstance(answer, (Away, LockedOut)):
                raise answer
            if answer is Done.BOOKED:
                self.taken.append(message.key)
            yield answer  # type: ignore[misc]

    def close(self) -> None:
        pass


class Clock:
    def __init__(self) -> None:
        self.us = 1_790_000_000_000_000

    def __call__(self) -> int:
        return self.us


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def courier(store: Store, receiver: Receiver, clock: Clock) -> Courier:
    store.write(outbox.register, NAME, clock()).result()
    return Courier(store, NAME, receiver, now_us=clock)


def post(store: Store, *keys: str) -> None:
    store.write(post_rows, list(keys)).result()


def post_rows(connection: Any, keys: list[str]) -> None:
    outbox.append(connection, [Outbox(destination=NAME, key=key, kind="movement", body={"key": key}) for key in keys], 1)


def states(store: Store) -> dict[str, str]:
    with Session(store.engine) as session:
        return {row.key: row.state for row in session.exec(select(Outbox))}


def due(store: Store, courier: Courier, clock: Clock) -> bool:
    """One round of what the courier's thread does."""
    found = delivery.waiting(store.engine, NAME, 50)
    return bool(found) and found[0].next_try_us <= clock() and courier.deliver(found)


def alerts(store: Store) -> dict[str, str]:
    with Session(store.engine) as session:
        return {row.key.removeprefix(f"outbox|{NAME}"): row.state for row in session.exec(select(Alert)) if row.active}


def test_messages_are_taken_in_their_order(store: Store, courier: Courier, receiver: Receiver, clock: Clock) -> None:
    post(store, "a", "b", "c")
    assert due(store, courier, clock)
    assert receiver.taken == ["a", "b", "c"]
    assert set(states(store).values()) == {"DELIVERED"}


def test_while_the_receiver_is_away_all_wait_and_none_is_given_up(store: Store, courier: Courier, receiver: Receiver, clock: Clock) -> None:
    post(store, "a", "b")
    receiver.answers["a"] = [Away("no answer")] * 20
    waits = []
    for _ in range(20):
        assert not due(store, courier, clock)
        [first, _] = delivery.waiting(store.engine, NAME, 50)
        waits.append((first.next_try_us - clock()) / 1e6)
        assert not due(store, courier, clock), "not before its time"
        clock.us = first.next_try_us
    assert receiver.taken == []
    assert waits[0] <= 0.5
    assert waits[1] <= 1.0
    assert 30 <= waits[-1] <= 60
    assert due(store, courier, clock)
    assert receiver.taken == ["a", "b"]


def test_a_refused_message_is_dead_and_the_ones_behind_it_go_on(store: Store, courier: Courier, receiver: Receiver, clock: Clock) -> None:
    post(store, "a", "b", "c")
    receiver.answers["b"] = [Refused("period closed")]
    due(store, courier, clock)
    assert states(store) == {"a": "DELIVERED", "b": "DEAD", "c": "DELIVERED"}
    assert alerts(store) == {"|dead": "OPEN"}

    [row] = delivery.messages(store.engine, states=["DEAD"])
    assert (row.last_error, row.attempts) == ("period closed", 1)
    assert store.write(delivery.retry, [row.id]).result() == 1
    due(store, courier, clock)
    assert states(store)["b"] == "DELIVERED"
    assert receiver.taken == ["a", "c", "b"]
    assert alerts(store) == {}


def test_a_person_gives_a_dead_message_up_and_it_stays_to_be_seen(store: Store, courier: Courier, receiver: Receiver, clock: Clock) -> None:
    post(store, "a")
    receiver.answers["a"] = [Refused("no such product")]
    due(store, courier, clock)
    [row] = delivery.messages(store.engine, states=["DEAD"])
    assert store.write(delivery.discard, [row.id], "booked by hand").result() == 1
    assert store.write(delivery.retry, [row.id]).result() == 0, "what is given up is not sent by a retry"
    assert not due(store, courier, clock)
    assert delivery.message(store.engine, row.id or 0).last_error == "booked by hand"  # type: ignore[union-attr]


def test_an_unexplained_failure_is_tried_some_times_in_its_place_and_then_dead(
    store: Store, courier: Courier, receiver: Receiver, clock: Clock
) -> None:
    post(store, "a", "b")
    receiver.answers["a"] = [Failed("internal error")] * MOST_ATTEMPTS
    for _ in range(MOST_ATTEMPTS - 1):
        due(store, courier, clock)
        assert receiver.taken == [], "b waits for a"
        clock.us += 60_000_000
    due(store, courier, clock)
    assert states(store) == {"a": "DEAD", "b": "DELIVERED"}


def test_a_revoked_credential_raises_an_alert_at_once_and_gives_nothing_up(
    store: Store, courier: Courier, receiver: Receiver, clock: Clock
) -> None:
    post(store, "a", "b")
    receiver.answers["a"] = [LockedOut("wrong password")]
    due(store, courier, clock)
    assert states(store) == {"a": "PENDING", "b": "PENDING"}
    assert alerts(store) == {"|away": "OPEN"}
    clock.us += 60_000_000
    due(store, courier, clock)
    assert receiver.taken == ["a", "b"]
    assert alerts(store) == {}


def test_delivered_messages_are_forgotten_after_their_time_and_no_others(store: Store, courier: Courier, clock: Clock) -> None:
    post(store, "a", "b")
    due(store, courier, clock)
    post(store, "c")
    assert store.write(delivery.prune, NAME, clock.us + 1).result() == 2
    assert states(store) == {"c": "PENDING"}


def test_waits_double_up_to_the_longest_and_chance_shortens_them() -> None:
    assert [wait_s(attempt, 60, chance=lambda: 0.0) for attempt in (1, 2, 3, 8, 100)] == [0.5, 1, 2, 60, 60]
    assert wait_s(3, 60, chance=lambda: 1.0) == 1


# ---------------------------------------------------------------- webhooks


@pytest.fixture
def listener() -> Iterator[Callable[..., tuple[str, list[tuple[dict[str, str], bytes]]]]]:
    """Start an HTTP server that answers POSTs with these status codes in turn; its URL, and what it got."""
    servers: list[ThreadingHTTPServer] = []

    def start(*codes: int) -> tuple[str, list[tuple[dict[str, str], bytes]]]:
        answers, got = list(codes), list[tuple[dict[str, str], bytes]]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                got.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(answers.pop(0) if answers else 204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/hook", got

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


MESSAGE = Message(7, "movement|W|k1", "movement", {"quantity": "2.5"})


def test_a_webhook_is_signed_and_carries_its_key(listener: Callable[..., Any]) -> None:
    url, got = listener(200)
    hook = Webhook(url, b"shared", clock=lambda: 1_700_000_000.5)
    assert list(hook.deliver([MESSAGE])) == [Done.BOOKED]
    [(headers, body)] = got
    assert json.loads(body) == {"destination": "webhook", "sequence": 7, "key": MESSAGE.key, "kind": "movement", "body": MESSAGE.body}
    assert (headers["Idempotency-Key"], headers["Waybill-Sequence"]) == (MESSAGE.key, "7")
    expected = hmac.new(b"shared", b"1700000000." + body, hashlib.sha256).hexdigest()
    assert headers["Waybill-Signature"] == f"v1={expected}"
    hook.close()


@pytest.mark.parametrize(("code", "means"), [(422, Refused), (410, Refused), (401, LockedOut), (500, Away), (429, Away), (302, Away)])
def test_what_a_webhooks_answer_means(listener: Callable[..., Any], code: int, means: type[OutsideError]) -> None:
    url, _ = listener(code)
    hook = Webhook(url, b"shared")
    try:
        [outcome] = hook.deliver([MESSAGE])
    except OutsideError as error:
        outcome = error
    assert type(outcome) is means
    hook.close()


def test_a_webhook_that_is_not_there_is_away() -> None:
    hook = Webhook("http://127.0.0.1:9/hook", b"shared")
    with pytest.raises(Away):
        list(hook.deliver([MESSAGE]))
    hook.close()
