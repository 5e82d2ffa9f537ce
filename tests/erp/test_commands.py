"""`waybill erp` and `waybill outbox` against a running Waybill and a real Tryton: what they print, and with which exit code they end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.journal import delivery, outbox
from actors.journal.store import Store, open_store
from actors.journal.tables import Outbox
from cluster.boot import Running
from tests.data.support import waybill_command, waybill_output
from tests.erp.people import Storeman
from tests.erp.test_in_step import ZONES
from tests.erp.test_outbox import post_rows
from tests.erp.tryton_server import PASSWORD, TrytonServer
from tests.erp.world import Outside, settled, until

pytestmark = pytest.mark.parametrize("waybill", ["sqlite"], indirect=True, scope="session")
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def told(waybill: Running, own_erp: TrytonServer, outside: Outside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment of somebody who has set an ERP; gives the password's file."""
    until(lambda: bool(outside.status().get("told")), 60, "a first sync")
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    monkeypatch.setenv("WAYBILL_DATABASE_URL", waybill.settings.url_text)
    monkeypatch.setenv("WAYBILL_PORT", str(waybill.settings.port))
    monkeypatch.setenv("WAYBILL_ERP_URL", own_erp.url)
    monkeypatch.setenv("WAYBILL_ERP_PASSWORD_FILE", str(password))
    return password


@pytest.fixture
def store(waybill: Running) -> Iterator[Store]:
    opened = open_store(waybill.settings.url_text)
    yield opened
    opened.close()


def test_connect_says_what_answers_and_can_be_done_again() -> None:
    printed = waybill_output("erp", "connect")
    assert "connected Tryton 8." in printed
    assert "NORTH/COLD-1" in printed
    assert "0 movements" in waybill_output("erp", "sync")


def test_reconcile_tells_one_book_from_two(waybill: Running, own_erp: TrytonServer, outside: Outside, capsys: Captured) -> None:
    settled(own_erp, waybill.target, 30)
    assert "0 differ" in waybill_output("erp", "reconcile")
    outside.kill()
    try:
        person = Storeman(waybill.target, 77, ZONES, [("V0040", "L0040A")])
        while not person.did["RECEIVE"]:
            person.act()
        person.close()
        assert waybill_command("erp", "reconcile") == 2
        printed = capsys.readouterr()
        assert "L0040A" in printed.out
        assert "not been delivered yet" in printed.out
        assert "the books differ" in printed.err
    finally:
        outside.start()
    assert settled(own_erp, waybill.target, 30)[0].clean


def test_status_shows_the_last_sync_and_what_waits(outside: Outside) -> None:
    until(lambda: outside.pending() == 0, 30, "all is delivered")
    printed = waybill_output("erp", "status")
    assert "last sync" in printed
    assert "delivered" in printed
    assert "answers Tryton" in printed


def test_a_wrong_password_is_told_with_what_to_do(told: Path, capsys: Captured) -> None:
    told.write_text("not-the-password")
    assert waybill_command("erp", "connect") == 2
    printed = capsys.readouterr()
    assert "wrong user or password" in printed.err
    assert "Mend" in printed.err
    assert "not-the-password" not in printed.out + printed.err


def test_without_an_erp_it_says_how_to_set_one(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.delenv("WAYBILL_ERP_URL")
    assert waybill_command("erp", "status") == 2
    assert "WAYBILL_ERP_URL" in capsys.readouterr().err


def test_a_dead_message_is_listed_shown_sent_again_or_given_up(store: Store, capsys: Captured) -> None:
    store.write(post_rows, ["dead-1", "dead-2"]).result()
    rows = delivery.messages(store.engine, destination="erp", states=["PENDING"])
    dead = [delivery.Settled(row.id or 0, delivery.DEAD, "period closed") for row in rows]
    store.write(delivery.settle, "erp", dead, 1).result()
    numbers = [str(row.id) for row in rows]

    printed = waybill_output("outbox", "list", "--state", "dead", "--destination", "erp")
    assert "dead-1" in printed
    assert "period closed" in printed
    assert '"key": "dead-1"' in waybill_output("outbox", "show", numbers[0])
    assert "1 will be sent again" in waybill_output("outbox", "retry", numbers[0])
    assert "1 given up" in waybill_output("outbox", "discard", numbers[1], "--reason", "booked by hand")
    assert waybill_command("outbox", "retry", numbers[1]) == 2
    assert "not dead" in capsys.readouterr().err
    found: list[Outbox] = delivery.messages(store.engine, destination="erp", states=["PENDING", "DISCARDED"])
    assert {row.key: row.state for row in found} == {"dead-1": "PENDING", "dead-2": "DISCARDED"}
    waybill_output("outbox", "disable", "erp")


def test_a_destination_that_is_gone_is_told_no_more(store: Store) -> None:
    store.write(outbox.register, "gone", 1).result()
    for command, says, listed in (("enable", "from now on", "gone:"), ("disable", "told of nothing", "gone (disabled)")):
        assert says in waybill_output("outbox", command, "gone")
        assert listed in waybill_output("outbox", "list")


def test_what_is_not_there_is_named(capsys: Captured) -> None:
    assert waybill_command("outbox", "show", "999999999") == 2
    assert "no message 999999999" in capsys.readouterr().err
    assert waybill_command("outbox", "disable", "nobody") == 2
    assert "no destination 'nobody'" in capsys.readouterr().err
    assert waybill_command("outbox", "list", "--state", "lost") == 2
    assert "lost" in capsys.readouterr().err
