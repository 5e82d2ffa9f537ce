"""Both books stay one while people work on both sides and the parts between them are killed. Judged by tests/erp/judge.py."""

from __future__ import annotations

import random
import threading

import pytest

from cluster.boot import Running
from tests.erp.conftest import ITEMS
from tests.erp.people import Clerk, Storeman
from tests.erp.tryton_server import TrytonServer
from tests.erp.world import Outside, settled, until

pytestmark = pytest.mark.parametrize("waybill", ["sqlite"], indirect=True, scope="session")
ZONES = {"NORTH": ["COLD-1", "COLD-2"], "SOUTH": ["COLD-3"]}
LOTS = [(f"V{number:04d}", f"L{number:04d}A") for number in range(ITEMS)]


def test_the_first_sync_brings_in_all_that_is_there(waybill: Running, outside: Outside, own_erp: TrytonServer) -> None:
    until(lambda: bool(outside.status().get("told")), 60, "a first sync")
    verdict, _ = settled(own_erp, waybill.target, 30)
    assert verdict.clean, verdict
    assert verdict.lines >= ITEMS * 3 // 2  # other tests may have put some of it elsewhere before


def test_the_books_are_one_after_kills_and_mixed_work(waybill: Running, outside: Outside, own_erp: TrytonServer) -> None:
    chance = random.Random(5)
    storeman, clerk = Storeman(waybill.target, 5, ZONES, LOTS), Clerk(own_erp.url, 6)

    def kill(number: int) -> None:
        until(lambda: outside.pending() > 0 or storeman.act() is None, 20, "a message in flight")
        if number % 2:
            own_erp.kill()
            own_erp.start()
        else:
            outside.kill()
            outside.start()

    failed: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                clerk.act()
        except BaseException as error:
            failed.append(error)

    person = threading.Thread(target=work)
    person.start()
    for number in range(4):
        for _ in range(chance.randrange(4, 9)):
            storeman.act()
        kill(number)
    person.join()
    assert not failed, failed
    storeman.close()
    verdict, _ = settled(own_erp, waybill.target, 40)
    assert verdict.clean, f"{verdict}\n{outside.counts()} {outside.status()}\n{outside.log()[-3000:]}"
    assert verdict.booked > 10
