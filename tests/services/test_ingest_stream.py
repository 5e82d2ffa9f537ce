"""A stream of readings is read no faster than it is answered: what a door cannot work on yet waits at the sender, not in the door."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from services.door import INGEST, Config, _options, request_class
from services.gather import Gatherer
from services.status import Doorman
from services.telemetry import MESSAGES_AT_ONCE, READY_S, Telemetry
from tests.services.test_gather import Shards
from tests.services.test_gather import run as run_gatherer
from tests.services.test_intake import message
from waybill.v1 import telemetry_pb2, telemetry_pb2_grpc

KIB = 1024


class Caller:
    """What a handler asks of its context."""

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def time_remaining(self) -> float | None:
        return None


class Sender:
    """A gateway that always has a next message; `taken`: so many were taken from it."""

    def __init__(self) -> None:
        self.taken = 0
        self.more = asyncio.Event()  # it has but one message until then

    async def messages(self, many: int) -> AsyncIterator[bytes]:
        for number in range(many):
            self.taken += 1
            yield message(number)
            await self.more.wait()
            await asyncio.sleep(READY_S / 10)


def run(work: Callable[[Any, Shards, Sender], Awaitable[None]]) -> None:
    """With a TelemetryService over a gatherer and shards in this process."""

    async def whole(gatherer: Gatherer, shards: Shards) -> None:
        backend: Any = None  # only series are read from it
        await work(Telemetry(backend, gatherer), shards, Sender())

    run_gatherer(whole)


async def settled(sender: Sender) -> int:
    """How many were taken when no more are."""
    before = -1
    while before != sender.taken:
        before = sender.taken
        await asyncio.sleep(0.1)
    return before


def test_answers_that_could_go_out_go_before_what_is_not_read_yet() -> None:
    async def work(telemetry: Any, shards: Shards, sender: Sender) -> None:
        many = 50
        answers = telemetry.Ingest(sender.messages(many), Caller())
        first = await anext(answers)  # it is being sent until the next is asked for
        await asyncio.sleep(2 * READY_S)
        sender.more.set()
        assert await settled(sender) == 2, "the one that is being answered, and one that was read before that was seen"
        rest = [answer async for answer in answers]
        assert [answer.batch_id for answer in (first, *rest)] == [str(number) for number in range(many)]

    run(work)


def test_one_answer_that_goes_out_keeps_nothing_from_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.telemetry.READY_S", 3600.0)

    async def work(telemetry: Any, shards: Shards, sender: Sender) -> None:
        sender.more.set()
        answers = telemetry.Ingest(sender.messages(2 * MESSAGES_AT_ONCE), Caller())
        await anext(answers)
        assert await settled(sender) > MESSAGES_AT_ONCE
        await answers.aclose()

    run(work)


def test_answers_behind_one_that_waits_for_its_shard_hold_nothing_up() -> None:
    async def work(telemetry: Any, shards: Shards, sender: Sender) -> None:
        released = asyncio.Event()

        async def held(shard: int, call: int) -> None:
            if sum(map(len, shards.calls)) == 1:
                await released.wait()

        shards.before = held
        answers = telemetry.Ingest(sender.messages(2 * MESSAGES_AT_ONCE), Caller())
        sender.more.set()
        waiting = asyncio.create_task(anext(answers))
        assert await settled(sender) > MESSAGES_AT_ONCE
        assert not waiting.done()
        released.set()
        rest = [await waiting, *[answer async for answer in answers]]
        assert [answer.batch_id for answer in rest] == [str(number) for number in range(2 * MESSAGES_AT_ONCE)]

    run(work)


@pytest.mark.parametrize("unread_bytes", [64 * KIB, 512 * KIB])
def test_what_is_not_read_waits_at_the_sender(unread_bytes: int) -> None:
    """However fast the stream was before: a door that does not read is sent so much and no more."""
    raw = message(0, readings=800)
    written = 0

    async def work(gatherer: Gatherer, shards: Shards) -> None:
        nonlocal written
        backend: Any = None
        telemetry = Telemetry(backend, gatherer)
        config = Config(database_url="", ray_address="", unread_bytes=unread_bytes)
        server = grpc.aio.server(interceptors=[Doorman(request_class, INGEST)], options=_options(config))
        telemetry_pb2_grpc.add_TelemetryServiceServicer_to_server(telemetry, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
            open_call: Any = channel.stream_stream(
                "/waybill.v1.TelemetryService/Ingest",
                request_serializer=None,
                response_deserializer=telemetry_pb2.IngestResponse.FromString,
            )
            call = open_call()
            for _ in range(60):  # the transport learns how much may be under way
                for _ in range(8):
                    await call.write(raw)
                for _ in range(8):
                    await call.read()
            released = asyncio.Event()

            async def held(shard: int, number: int) -> None:
                await released.wait()

            shards.before = held
            until = time.monotonic() + 20
            try:
                while time.monotonic() < until:
                    async with asyncio.timeout(2):
                        await call.write(raw)
                    written += 1
            except TimeoutError:
                pass
            released.set()
            call.cancel()
            await server.stop(None)

    run_gatherer(work)
    ahead = (written - MESSAGES_AT_ONCE - 2) * len(raw)  # one is at the door, one was being written
    assert unread_bytes / 2 < ahead + 64 * KIB, "it is sent ahead at all"
    assert ahead < 1.25 * unread_bytes + 256 * KIB, "the sender's own buffers hold some more"
