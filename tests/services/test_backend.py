"""Reads of the database are few at a time, and those that wait for their turn are bounded; the newest events wait for none of them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from actors.journal.database import reader
from actors.journal.migrate import migrate
from actors.rules.errors import Overloaded
from services.backend import READERS, READS_MAX, Backend
from services.feed import Feed, Piece


async def full_of_reads(url: str) -> tuple[Backend, threading.Event, list[asyncio.Task[bool]]]:
    """A backend that takes no further read until the event is set, and the reads that wait for it."""
    backend, slow = Backend(None, reader(url, connections=READERS + 1)), threading.Event()  # type: ignore[arg-type]
    waiting = [asyncio.create_task(backend.read(lambda _: slow.wait(30))) for _ in range(READS_MAX)]
    await asyncio.sleep(0)
    return backend, slow, waiting


def test_a_read_too_many_is_refused_and_told_when_to_come_again(new_database: Any) -> None:
    url = new_database("sqlite")
    migrate(url)

    async def go() -> None:
        backend, slow, waiting = await full_of_reads(url)
        with pytest.raises(Overloaded) as refused:
            await backend.read(lambda _: None)
        assert refused.value.retry_after_s == 1.0
        assert await backend.read_first(lambda _: "an event") == "an event"
        for one in waiting[-10:]:
            one.cancel()
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):  # nobody waits for these any more, and they wait
            await backend.read(lambda _: None)
        del waiting[-10:]
        slow.set()
        assert await asyncio.gather(*waiting) == [True] * len(waiting)
        assert await backend.read(lambda _: "again") == "again"
        backend.close()

    asyncio.run(go())


def test_who_watches_from_now_on_waits_for_no_reports(new_database: Any) -> None:
    url = new_database("sqlite")
    migrate(url)

    async def go() -> None:
        backend, slow, waiting = await full_of_reads(url)
        feed = Feed(backend)
        async with asyncio.timeout(10):
            watcher = feed.follow(None)
            assert await anext(watcher) == Piece([], 0)
            feed._newest = 1
            behind = feed.follow(0)
            with pytest.raises(Overloaded):
                await anext(behind)
        slow.set()
        await asyncio.gather(*waiting)
        feed.close()
        backend.close()

    asyncio.run(go())
