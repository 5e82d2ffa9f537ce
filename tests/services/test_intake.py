"""What comes in at the same time is decoded together, in bounded groups, and each message has the outcome that it would have alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from actors.rules.errors import DomainError, Overloaded, Unavailable
from actors.rules.readings import ACCEPTED
from services import intake, wire
from services.gather import Gatherer
from services.intake import Given, Intake
from services.shards import now_us
from tests.services.test_gather import Shards
from tests.services.test_gather import run as run_gatherer
from waybill.v1 import telemetry_pb2


def message(number: int, readings: int = 10, temperature_c: float = 5.0) -> bytes:
    """One gateway's, as bytes."""
    rows = [
        telemetry_pb2.Reading(tag_id=f"tag-{number}", sensed_at_us=now_us() - 1_000_000 * i, temperature_c=temperature_c)
        for i in range(readings)
    ]
    return telemetry_pb2.IngestRequest(batch_id=str(number), rows=telemetry_pb2.ReadingRows(readings=rows)).SerializeToString()


def run(work: Callable[[Intake, Shards], Awaitable[None]], **given: Any) -> None:
    """With a gatherer and shards in this process."""

    async def whole(gatherer: Gatherer, shards: Shards) -> None:
        await work(Intake(gatherer), shards)

    run_gatherer(whole, **given)


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The sizes of the messages of each group that is decoded."""
    decode, seen = wire.decode_together, []

    def noted(messages: Sequence[bytes], received_us: int) -> Any:
        seen.append([len(one) for one in messages])
        return decode(messages, received_us)

    monkeypatch.setattr(wire, "decode_together", noted)
    return seen


async def a_call_is_out(taken: Intake, shards: Shards) -> tuple[Given, asyncio.Event]:
    """A first message whose call the shards hold until the event is set."""
    released = asyncio.Event()

    async def held(shard: int, call: int) -> None:
        await released.wait()

    shards.before = held
    first = taken.put(message(0), None, "gateway-0")
    while not shards.most_out:
        await asyncio.sleep(0)
    return first, released


async def refusal(given: Given) -> Exception | None:
    """Why a message was not taken."""
    try:
        await given.outcome
    except (DomainError, wire.Garbage) as error:
        return error
    return None


def test_messages_of_one_turn_are_decoded_at_once_and_answered_each_by_itself(groups: list[list[int]]) -> None:
    async def work(taken: Intake, shards: Shards) -> None:
        given = [taken.put(message(number), None, f"gateway-{number}") for number in range(30)]
        for number, one in enumerate(given):
            outcome = await one.outcome
            assert outcome is not None
            assert outcome.status.tolist() == [ACCEPTED] * 10
            assert one.decoded is not None
            assert one.decoded.batch_id == str(number)
        assert sum(map(len, shards.seen)) == 300

    run(work)
    assert [len(group) for group in groups] == [30]


def test_what_comes_while_a_call_is_out_is_decoded_together_unless_it_is_much(
    groups: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(taken: Intake, shards: Shards) -> None:
        first, released = await a_call_is_out(taken, shards)
        assert len(groups) == 1, "at once, for the shards had nothing to do"
        given = []
        for number in range(1, 20):
            given.append(taken.put(message(number), None, f"gateway-{number}"))
            await asyncio.sleep(0)
        assert len(groups) == 1
        monkeypatch.setattr(intake, "ENOUGH_BYTES", 10)
        given.append(taken.put(message(20), None, "gateway-20"))
        await asyncio.sleep(0)
        assert [len(group) for group in groups] == [1, 20]
        given.append(taken.put(message(21), None, "gateway-21"))
        await asyncio.sleep(0)
        assert [len(group) for group in groups] == [1, 20, 1], "the first that waits, too, where it is much"
        released.set()
        for one in (first, *given):
            await one.outcome

    run(work, gather_s=0.5)


def test_when_the_shards_have_nothing_to_do_any_more_what_waits_goes_at_once(groups: list[list[int]]) -> None:
    async def work(taken: Intake, shards: Shards) -> None:
        first, released = await a_call_is_out(taken, shards)
        second = taken.put(message(1), None, "gateway-1")
        await asyncio.sleep(0.01)
        assert len(groups) == 1
        released.set()
        async with asyncio.timeout(30):
            await asyncio.gather(first.outcome, second.outcome)

    run(work, gather_s=3600.0)


def test_small_messages_of_several_streams_wait_for_each_other_though_the_shards_have_nothing_to_do(
    groups: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(taken: Intake, shards: Shards) -> None:
        first = taken.put(message(0), None, "peer", "stream 0")
        await first.outcome
        one, other = taken.put(message(1), None, "peer", "stream 1"), taken.put(message(2), None, "peer", "stream 0")
        await asyncio.sleep(0.05)
        assert [len(group) for group in groups] == [1], "the first came alone"
        await asyncio.gather(one.outcome, other.outcome)
        assert [len(group) for group in groups] == [1, 2]
        monkeypatch.setattr(intake, "WORTH_BYTES", 10)
        async with asyncio.timeout(0.2):
            await taken.put(message(3), None, "peer", "stream 1").outcome

    run(work, gather_s=0.4)


def test_calls_wait_for_no_stream_and_streams_that_have_fallen_silent_hold_up_nobody(
    groups: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "SPEAKS_S", 0.05)

    async def work(taken: Intake, shards: Shards) -> None:
        async with asyncio.timeout(30):
            await taken.put(message(0), None, "peer", "stream 0").outcome
            waiting = taken.put(message(1), None, "peer", "stream 1")
            await taken.put(message(2), None, "caller").outcome
            await waiting.outcome  # it went with the call
            await asyncio.sleep(0.11)
            await taken.put(message(3), None, "peer", "stream 0").outcome

    run(work, gather_s=3600.0)
    assert [len(group) for group in groups] == [1, 2, 1]


def test_one_stream_and_calls_wait_for_nobody_while_the_shards_have_nothing_to_do(groups: list[list[int]]) -> None:
    async def work(taken: Intake, shards: Shards) -> None:
        async with asyncio.timeout(30):
            for number in range(4):
                await taken.put(message(number), None, "peer", "stream").outcome
                await taken.put(message(10 + number), None, f"caller-{number}").outcome

    run(work, gather_s=3600.0)
    assert [len(group) for group in groups] == [1] * 8


def test_a_deadline_counts_from_when_the_message_came() -> None:
    async def work(taken: Intake, shards: Shards) -> None:
        first, released = await a_call_is_out(taken, shards)
        began = time.monotonic()
        late = taken.put(message(1), 0.5, "gateway-1")
        with pytest.raises(Unavailable):
            await late.outcome
        assert time.monotonic() - began < 0.9, "it waited 0.45 s to be decoded"
        released.set()
        await first.outcome

    run(work, gather_s=0.45)


def test_messages_that_wait_to_be_decoded_when_the_door_closes_are_told_so() -> None:
    async def work(taken: Intake, shards: Shards) -> None:
        first, _ = await a_call_is_out(taken, shards)
        second = taken.put(message(1), None, "gateway-1")
        taken._gatherer.close()
        for one in (first, second):
            assert isinstance(await refusal(one), Unavailable)

    run(work, gather_s=3600.0)


def test_a_bad_message_among_good_ones_is_refused_alone(groups: list[list[int]]) -> None:
    async def work(taken: Intake, shards: Shards) -> None:
        bad = [b"\xff\xff\xff", b"", message(1, temperature_c=-400.0), telemetry_pb2.IngestRequest(batch_id="x" * 65).SerializeToString()]
        given = [taken.put(raw, None, "g") for raw in (message(2), *bad, message(3))]
        told = [await refusal(one) for one in given]
        assert [type(one).__name__ for one in told] == ["NoneType", "Garbage", "InvalidArgument", "NoneType", "InvalidArgument", "NoneType"]
        assert given[4].batch_id == "x" * 65, "what the caller called it, cut in the answer"
        assert given[3].outcome.result() is None, "no reading of it was good"
        assert given[3].decoded is not None
        assert len(given[3].decoded.refusals) == 10
        assert sum(map(len, shards.seen)) == 20

    run(work)
    assert [len(group) for group in groups] == [6]


def test_a_burst_is_decoded_in_groups_of_bounded_size_and_what_does_not_fit_is_refused_undecoded(
    groups: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    many, size = 60, len(message(10, 100))
    monkeypatch.setattr(intake, "GROUP_BYTES", 5 * size)

    async def work(taken: Intake, shards: Shards) -> None:
        released = asyncio.Event()

        async def held(shard: int, call: int) -> None:
            await released.wait()

        shards.before = held
        given = [taken.put(message(10 + number, 100), None, f"gateway-{number}") for number in range(many)]
        while len(groups) < 2 or taken._waiting:
            await asyncio.sleep(0)
        released.set()
        told = [await refusal(one) for one in given]
        assert {type(one) for one in told if one is not None} == {Overloaded}
        assert 0 < told.count(None) < many // 2
        assert told.count(None) <= sum(map(len, groups)) < many, "some were refused before they cost anything"

    run(work, bytes_max=10 * 100 * (28 + 8))  # ten of these messages as columns
    assert max(sum(group) for group in groups) <= 5 * size


def test_a_message_larger_than_a_group_is_decoded_alone(groups: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "GROUP_BYTES", 10)

    async def work(taken: Intake, shards: Shards) -> None:
        given = [taken.put(message(number), None, "g") for number in range(3)]
        assert [await refusal(one) for one in given] == [None] * 3

    run(work)
    assert [len(group) for group in groups] == [1, 1, 1]


def test_a_message_whose_caller_has_gone_is_not_decoded(groups: list[list[int]]) -> None:
    async def work(taken: Intake, shards: Shards) -> None:
        gone, there = taken.put(message(1), None, "g"), taken.put(message(2), None, "g")
        gone.outcome.cancel()
        assert await refusal(there) is None

    run(work)
    assert [len(group) for group in groups] == [1]


def test_what_waits_to_be_decoded_is_bounded_and_what_is_refused_is_let_go(
    groups: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(message(10, 100))
    monkeypatch.setattr(intake, "WAITING_BYTES_MAX", 5 * size)

    async def work(taken: Intake, shards: Shards) -> None:
        given = [taken.put(message(10 + number, 100), None, f"gateway-{number}") for number in range(20)]
        told = [await refusal(one) for one in given]
        refused = [one for one, why in zip(given, told, strict=True) if why is not None]
        assert {type(why) for why in told if why is not None} == {Overloaded}
        assert len(refused) >= 15
        assert [(one.raw, one.decoded) for one in refused] == [(b"", None)] * len(refused)
        assert [one.batch_id for one in refused] == [str(10 + number) for number, why in enumerate(told) if why is not None]
        assert await refusal(taken.put(message(99), None, "g")) is None, "there is room again"

    run(work)
    assert sum(map(len, groups)) <= 6
