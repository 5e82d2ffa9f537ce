"""The ERP is away, slow, answers with something else, or no longer lets us in: a stated answer each, and nothing is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cluster.boot import Running
from services.erp.jsonrpc import TrytonRpc
from services.outside import Away, Failed, LockedOut, OutsideError
from tests.erp.people import Storeman
from tests.erp.test_in_step import LOTS, ZONES
from tests.erp.tryton_server import PASSWORD, TrytonServer
from tests.erp.world import Outside, settled, until

JSON, HTML = "application/json", "text/html"
WAIT_S = 60
"""Tryton itself makes a user wait who comes with a wrong password again and again."""


@pytest.fixture
def pretender() -> Iterator[Callable[[int, str, bytes, float], TrytonRpc]]:
    """A client of something that is not Tryton: it gives one answer to everything, after some seconds."""
    servers: list[ThreadingHTTPServer] = []

    def start(code: int, kind: str, body: bytes, after_s: float = 0) -> TrytonRpc:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                time.sleep(after_s)
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return TrytonRpc(f"http://127.0.0.1:{server.server_port}/db", "waybill", lambda: PASSWORD, read_s=0.3)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("code", "kind", "body", "means", "told"),
    [
        (200, HTML, b"<html>maintenance</html>", Away, "text/html instead of JSON"),
        (200, JSON, b"{\"result\": [1, ", Away, "cut or broken"),
        (200, JSON, b"[]", Away, "other JSON"),
        (200, JSON, b'{"id": 1, "result": "hello"}', Away, "something else"),
        (502, HTML, b"bad gateway", Away, "HTTP 502"),
        (503, JSON, b"{}", Away, "HTTP 503"),
        (429, JSON, b"{}", Away, "HTTP 429"),
        (404, HTML, b"no", Away, "no such database"),
        (401, JSON, b"{}", LockedOut, "wrong user or password"),
        (403, JSON, b"{}", LockedOut, "wrong user or password"),
        (400, JSON, b"{}", Failed, "HTTP 400"),
        (200, JSON, b'{"id": 1, "error": ["ConcurrencyException", ["x"]]}', Away, "another change"),
        (200, JSON, b'{"id": 1, "error": ["division by zero", "Traceback ..."]}', Failed, "division by zero"),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_named_for_what_it_is(
    pretender: Callable[..., TrytonRpc], code: int, kind: str, body: bytes, means: type[OutsideError], told: str
) -> None:
    with pytest.raises(means, match=told) as caught:
        pretender(code, kind, body).call("model.stock.move.search", [])
    assert PASSWORD not in str(caught.value)


def test_a_slow_answer_is_given_up(pretender: Callable[..., TrytonRpc]) -> None:
    with pytest.raises(Away, match="in time"):
        pretender(200, JSON, b"{}", 5).call("model.stock.move.search", [])


@pytest.mark.parametrize("waybill", ["sqlite"], indirect=True, scope="session")
class TestWithEverythingRunning:
    @pytest.fixture
    def storeman(self, waybill: Running, outside: Outside) -> Iterator[Storeman]:
        until(lambda: bool(outside.status().get("told")), 60, "a first sync")
        person = Storeman(waybill.target, time.monotonic_ns() % 10_000, ZONES, LOTS[30:])
        yield person
        person.close()

    def test_a_revoked_credential_stops_nothing_else_and_a_new_one_brings_all(
        self, waybill: Running, outside: Outside, own_erp: TrytonServer, storeman: Storeman
    ) -> None:
        admin = TrytonRpc(own_erp.url, "admin", lambda: PASSWORD)
        [user] = admin.call("model.res.user.search", [["login", "=", "waybill"]])
        admin.call("model.res.user.write", [user], {"password": "another-secret"})
        try:
            while sum(storeman.did.values()) - storeman.did["refused"] < 5:  # Waybill goes on
                storeman.act()
            until(lambda: "wrong user or password" in str(outside.status().get("error")), WAIT_S, "the sync says so")
            assert outside.pending() > 0
        finally:
            outside.password("another-secret")
        until(lambda: outside.pending() == 0, WAIT_S, "all is delivered")
        verdict, _ = settled(own_erp, waybill.target, WAIT_S)
        assert verdict.clean, verdict
        assert "another-secret" not in outside.log()
        assert PASSWORD not in outside.log()
        admin.call("model.res.user.write", [user], {"password": PASSWORD})
        outside.password(PASSWORD)

    def test_a_tryton_that_hangs_loses_and_doubles_nothing(
        self, waybill: Running, outside: Outside, own_erp: TrytonServer, storeman: Storeman
    ) -> None:
        own_erp.pause()
        try:
            for _ in range(10):
                storeman.act()
            time.sleep(1)
        finally:
            own_erp.resume()
        verdict, _ = settled(own_erp, waybill.target, WAIT_S)
        assert verdict.clean, verdict
