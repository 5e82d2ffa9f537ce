"""Watchers hear every event once and in order, whether the shards' answers bring it, in any order, or the database has to be read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.journal import queries_business, queries_doors
from actors.journal.tables import Event
from actors.rules.errors import Unavailable
from services import feed as feed_module
from services.feed import Feed, Piece


@pytest.fixture(autouse=True)
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """The feed does not look by itself while a test lasts."""
    monkeypatch.setattr(feed_module, "POLL_S", 60)


def row(number: int) -> dict[str, Any]:
    told = {"number": number, "kind": "alert.raised", "at_us": 7, "recorded_us": 8, "shard": 0, "carrier": "shipment/S", "tag_id": None}
    return {**told, "body": json.dumps({"n": number})}


class Log:
    """Stands for the backend: a log in which so many events are durable, that counts who reads it."""

    def __init__(self, durable: int = 0) -> None:
        self.durable, self.reads, self.fails = durable, 0, False

    async def read_first(self, function: Callable[..., Any], *arguments: Any) -> Any:
        await asyncio.sleep(0)
        if function is queries_business.last_event_number:
            return self.durable
        assert function is queries_doors.newest_events
        if self.fails:
            raise Unavailable("the database does not answer")
        self.reads += 1
        after, limit = arguments
        found = [queries_doors.event_of(row(number)) for number in range(after + 1, min(self.durable, after + limit) + 1)]
        await asyncio.sleep(0)  # what is told meanwhile is not seen by this read
        return found


async def heard(watcher: Any, until: int, gone: list[int]) -> list[Event]:
    """The watcher's events up to number `until`."""
    found: list[Event] = []
    async with asyncio.timeout(5):
        while not gone or gone[-1] < until:
            piece: Piece = await anext(watcher)
            found += piece.events
            gone += [event.number for event in piece.events]
    return found


@asynccontextmanager
async def watching(durable: int = 0) -> AsyncIterator[tuple[Log, Feed, AsyncIterator[Piece]]]:
    """A log, its feed, and a watcher from now on. The feed knows what was there before: it reads for a reason."""
    log = Log(durable)
    feed = Feed(log)  # type: ignore[arg-type]
    watcher = feed.follow(None)
    await anext(watcher)
    feed.look()
    await asyncio.sleep(0.05)
    yield log, feed, watcher
    await watcher.aclose()  # type: ignore[attr-defined]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_every_event_is_heard_once_and_in_order_however_it_is_told(data: st.DataObject) -> None:
    many, before = data.draw(st.integers(1, 12)), data.draw(st.integers(0, 3))
    groups: list[list[int]] = []  # each of the events of one commit, or of several
    number = before
    while number < before + many:
        size = data.draw(st.integers(1, before + many - number))
        groups.append(list(range(number + 1, number + size + 1)))
        number += size
    order = data.draw(st.permutations(groups))
    carried = data.draw(st.lists(st.booleans(), min_size=len(groups), max_size=len(groups)))
    pauses = data.draw(st.lists(st.integers(0, 2), min_size=len(groups), max_size=len(groups)))

    async def go() -> None:
        log = Log(before)
        feed = Feed(log)  # type: ignore[arg-type]
        watcher = feed.follow(before)
        assert (await anext(watcher)).events == []
        listening = asyncio.create_task(heard(watcher, number, gone := []))
        for group, brings, pause in zip(order, carried, pauses, strict=True):
            log.durable = number  # they may all be there when the first is told, but no later
            feed.told(group[-1], [row(one) for one in group] if brings else [])
            for _ in range(pause):
                await asyncio.sleep(0)
        events = await listening
        assert gone == list(range(before + 1, number + 1))
        assert [event.body for event in events] == [{"n": one} for one in gone]
        await watcher.aclose()

    asyncio.run(go())


def test_what_the_answers_bring_without_a_gap_is_not_read_from_the_database() -> None:
    async def go() -> None:
        async with watching(4) as (log, feed, watcher):
            reads, gone = log.reads, []  # type: ignore[var-annotated]
            for number in range(5, 25):
                log.durable = number
                feed.told(number, [row(number)])
                await heard(watcher, number, gone)
            assert gone == list(range(5, 25))
            assert log.reads == reads

    asyncio.run(go())


def test_an_event_that_was_not_brought_is_read_at_once_where_there_is_one_and_soon_where_there_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def go() -> None:
        async with watching() as (log, feed, watcher):
            gone: list[int] = []
            log.durable = 2
            feed.told(2, [row(2)])  # and the first was another door's
            await heard(watcher, 2, gone)
            log.durable = 4
            feed.told(2, [row(4)])  # the third was another's, and the answer knew of no newer event than before
            await heard(watcher, 4, gone)
            log.durable = 5
            feed.look()
            await heard(watcher, 5, gone)
            monkeypatch.setattr(feed_module, "POLL_S", 0.05)
            feed.look()
            log.durable = 6  # nobody says so
            await heard(watcher, 6, gone)
            assert gone == [1, 2, 3, 4, 5, 6]

    asyncio.run(go())


def test_a_database_that_was_away_is_read_when_it_is_back() -> None:
    async def go() -> None:
        async with watching() as (log, feed, watcher):
            log.fails, log.durable = True, 2
            feed.told(2, [])
            await asyncio.sleep(0.05)
            log.fails = False
            feed.look()
            await heard(watcher, 2, gone := [])
            assert gone == [1, 2]

    asyncio.run(go())


def test_more_than_one_read_holds_is_read_on_at_once() -> None:
    async def go() -> None:
        async with watching() as (log, feed, watcher):
            log.durable = 2 * feed_module.READ + 5
            feed.look()
            await heard(watcher, log.durable, gone := [])
            assert gone == list(range(1, log.durable + 1))

    asyncio.run(go())


def test_what_is_told_while_the_database_does_not_answer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        async with watching() as (log, feed, watcher):
            monkeypatch.setattr(feed_module, "KEPT", 100)
            log.fails = True
            feed.told(1, [])
            await asyncio.sleep(0.05)
            for number in range(3, 503):
                feed.told(number, [row(number)])
                assert len(feed._told) <= 100
            log.fails, log.durable = False, 502
            await heard(watcher, 502, gone := [])
            assert gone == list(range(1, 503))

    asyncio.run(go())
