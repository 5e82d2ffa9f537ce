"""The door gathers: one call per shard for all that waits, answers only what is durable, nothing twice, bounded.

The shards here are in-process and misbehave on command; the real ones are in the tests of the running system.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorUnavailableError

from actors.directory import shard_of
from actors.part import Part, unpack
from actors.rules.errors import DomainError, Overloaded, StorageFull, Unavailable
from actors.rules.readings import ACCEPTED, DUPLICATE, Batch
from services.admission import Admission
from services.gather import CALLS_IN_FLIGHT, Gatherer
from services.shards import now_us
from services.tag_ids import TagIds
from services.turns import Turns

N = 3


@dataclass
class Reply:
    status: Any
    last_event_number: int
    events: list[dict[str, Any]] = field(default_factory=list)


class Shards:
    """Shards that remember readings by (tag, sensed time). `before` and `after` the commit may raise or wait."""

    def __init__(self) -> None:
        self.shards = N
        self.seen: list[dict[tuple[str, int], float]] = [{} for _ in range(N)]
        self.calls: list[list[int]] = [[] for _ in range(N)]
        self.out = [0] * N
        self.most_out = 0
        self.forgotten = 0
        self.before: Callable[[int, int], Awaitable[None]] = nothing
        self.after: Callable[[int, int], Awaitable[None]] = nothing

    def forget(self, shard: int) -> None:
        self.forgotten += 1

    async def call(self, shard: int, method: str, *arguments: Any) -> Any:
        assert method == "ingest"
        parts = unpack(arguments[0])
        number = len(self.calls[shard])
        self.calls[shard].append(sum(len(part.batch) for part in parts))
        self.out[shard] += 1
        self.most_out = max(self.most_out, self.out[shard])
        try:
            await self.before(shard, number)
            replies = [self._take(shard, part) for part in parts]
            await self.after(shard, number)
            return replies
        finally:
            self.out[shard] -= 1

    def _take(self, shard: int, part: Part) -> Reply:
        ids = part.ids.decode().split("\n")
        status = np.zeros(len(part.batch), np.uint8)
        for i in range(len(part.batch)):
            tag_id = ids[part.batch.tag[i]]
            assert shard_of(tag_id, N) == shard
            key = tag_id, int(part.batch.sensed_us[i])
            status[i] = DUPLICATE if key in self.seen[shard] else ACCEPTED
            self.seen[shard][key] = float(part.batch.values[0, i])
        return Reply(status, sum(map(len, self.seen)))


async def nothing(shard: int, call: int) -> None:
    await asyncio.sleep(0)


def batch(tags: list[int], start_us: int = 0) -> Batch:
    n = len(tags)
    none = np.full(n, -1, np.int64)
    return Batch(np.array(tags, np.int32), np.arange(n) + start_us, none, none, (0,), np.arange(float(n)).reshape(1, n))


IDS = TagIds.of(f"tag-{i}" for i in range(20))


def run(work: Callable[[Gatherer, Shards], Awaitable[Any]], **given: Any) -> Any:
    async def whole() -> Any:
        shards = Shards()
        gatherer = Gatherer(shards, **given)
        try:
            return await work(gatherer, shards)
        finally:
            gatherer.close()
            assert gatherer.bytes_in_flight == 0

    return asyncio.run(whole())


def test_a_message_is_split_by_shard_and_its_statuses_come_back_in_its_own_order() -> None:
    async def work(gatherer: Gatherer, shards: Shards) -> None:
        tags = [3, 7, 3, 0, 19, 11, 7, 2]
        first = await gatherer.ingest(IDS, batch(tags))
        assert first.status.tolist() == [ACCEPTED] * 8
        assert first.last_event_number > 0
        again = await gatherer.ingest(IDS, batch(tags))
        assert again.status.tolist() == [DUPLICATE] * 8
        stored = {key: value for seen in shards.seen for key, value in seen.items()}
        assert stored == {(IDS[tag], i): float(i) for i, tag in enumerate(tags)}

    run(work)


def test_what_many_streams_have_waiting_goes_in_one_call_per_shard() -> None:
    async def work(gatherer: Gatherer, shards: Shards) -> None:
        await asyncio.gather(*(gatherer.ingest(IDS, batch(list(range(20)), 100 * i)) for i in range(200)))
        assert sum(map(sum, shards.calls)) == 200 * 20
        assert max(len(calls) for calls in shards.calls) <= 3

    run(work)


def test_at_most_two_calls_are_out_to_one_shard() -> None:
    async def work(gatherer: Gatherer, shards: Shards) -> None:
        async def slow(shard: int, call: int) -> None:
            await asyncio.sleep(0.01)

        shards.before = slow

        async def send(i: int) -> None:
            await asyncio.sleep(0.003 * i)
            await gatherer.ingest(IDS, batch(list(range(20)), 100 * i))

        await asyncio.gather(*(send(i) for i in range(20)))
        assert shards.most_out == CALLS_IN_FLIGHT

    run(work, gather_s=0.002)


def test_a_message_that_came_while_a_call_was_out_goes_when_the_shards_fall_idle() -> None:
    async def work(gatherer: Gatherer, shards: Shards) -> None:
        released = asyncio.Event()

        async def held(shard: int, call: int) -> None:
            await released.wait()

        shards.before = held
        first = asyncio.create_task(gatherer.ingest(IDS, batch(list(range(20)))))
        while not shards.most_out:
            await asyncio.sleep(0)
        second = asyncio.create_task(gatherer.ingest(IDS, batch(list(range(20)), 10_000)))
        await asyncio.sleep(0.01)
        assert shards.most_out == 1, "it waits for the call before it"
        released.set()
        async with asyncio.timeout(30):
            await asyncio.gather(first, second)

    run(work, gather_s=3600.0)


def test_a_shard_that_dies_before_its_commit_is_called_again_until_it_is_back() -> None:
    async def work(gatherer: Gatherer, shards: Shards) -> None:
        async def dying(shard: int, call: int) -> None:
            if call < 2:
                raise ActorUnavailableError("killed", b"0" * 16)

        shards.before = dying
        outcome = await gatherer.ingest(IDS, batch(list(range(20))), 10)
        assert outcome.status.tolist() == [ACCEPTED] * 20
        assert shards.forgotten > 0

    run(work)


def test_a_shard_that_dies_between_commit_and_answer_counts_nothing_twice() -> None:
    async def work(gatherer: Gatherer, shards: Shards) -> None:
        async def dying(shard: int, call: int) -> None:
            if call == 0:
                raise ActorUnavailableError("killed", b"0" * 16)

        shards.after = dying
        outcome = await gatherer.ingest(IDS, batch(list(range(20))), 10)
        assert set(outcome.status.tolist()) == {DUPLICATE}  # known already: committed by the call that was lost
        assert sum(map(len, shards.seen)) == 20

    run(work)


def test_a_shard_that_stays_away_is_never_acknowledged_for() -> None:
    async def work(gatherer: Gatherer, shards: Shards) -> None:
        async def away(shard: int, call: int) -> None:
            if shard == shard_of(IDS[0], N):
                raise Unavailable("away")

        shards.before = away
        with pytest.raises(Unavailable):
            await gatherer.ingest(IDS, batch(list(range(20))), 0.3)
        other = next(i for i in range(20) if shard_of(IDS[i], N) != shard_of(IDS[0], N))
        assert (await gatherer.ingest(IDS, batch([other], 500), 1)).status.tolist() == [ACCEPTED]

    run(work)


def test_a_frozen_shard_is_answered_unavailable_at_the_callers_deadline() -> None:
    async def work(gatherer: Gatherer, shards: Shards) -> None:
        async def frozen(shard: int, call: int) -> None:
            await asyncio.sleep(30)

        shards.before = frozen
        with pytest.raises(Unavailable, match="unknown"):
            await gatherer.ingest(IDS, batch([0]), 0.1)

    run(work)


@pytest.mark.parametrize("error", [StorageFull("disk full"), Overloaded("busy")])
def test_what_a_shard_refuses_reaches_the_caller_as_it_is(error: DomainError) -> None:
    async def work(gatherer: Gatherer, shards: Shards) -> None:
        async def refuse(shard: int, call: int) -> None:
            raise error

        shards.before = refuse
        with pytest.raises(type(error)):
            await gatherer.ingest(IDS, batch([0]), 1)

    run(work)


def test_past_the_bound_in_bytes_a_message_is_refused_and_later_taken() -> None:
    async def work(gatherer: Gatherer, shards: Shards) -> None:
        gate = asyncio.Event()

        async def wait(shard: int, call: int) -> None:
            await gate.wait()

        shards.before = wait
        first = asyncio.create_task(gatherer.ingest(IDS, batch([0] * 100), 5))
        await asyncio.sleep(0.02)
        with pytest.raises(Overloaded) as refusal:
            await gatherer.ingest(IDS, batch([0] * 100, 1000), 5)
        assert refusal.value.retry_after_s
        gate.set()
        await first
        assert (await gatherer.ingest(IDS, batch([0] * 100, 1000), 5)).status.tolist() == [ACCEPTED] * 100

    run(work, bytes_max=6000)


def test_an_abandoned_message_frees_its_bytes_and_does_not_disturb_the_others() -> None:
    async def work(gatherer: Gatherer, shards: Shards) -> None:
        gate = asyncio.Event()

        async def wait(shard: int, call: int) -> None:
            await gate.wait()

        shards.before = wait
        tasks = [asyncio.create_task(gatherer.ingest(IDS, batch([0], i), 5)) for i in range(6)]
        await asyncio.sleep(0.02)
        tasks[0].cancel()
        tasks[4].cancel()
        gate.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(one, asyncio.CancelledError) for one in outcomes] == [True, False, False, False, True, False]
        await asyncio.sleep(0.05)
        assert gatherer.bytes_in_flight == 0

    run(work)


def test_when_the_door_closes_what_waits_is_answered_unavailable() -> None:
    async def work(gatherer: Gatherer, shards: Shards) -> None:
        async def frozen(shard: int, call: int) -> None:
            await asyncio.sleep(30)

        shards.before = frozen
        task = asyncio.create_task(gatherer.ingest(IDS, batch([0])))
        await asyncio.sleep(0.02)
        gatherer.close()
        with pytest.raises(Unavailable, match="closing"):
            await task

    run(work)


def test_listeners_are_woken_by_newer_events() -> None:
    async def work(gatherer: Gatherer, shards: Shards) -> None:
        news = asyncio.Event()
        gatherer.listen(lambda number, events: news.set())
        await gatherer.ingest(IDS, batch([0]))
        assert news.is_set()

    run(work)


def test_live_readings_go_before_backlog_that_came_first() -> None:
    async def work(gatherer: Gatherer, shards: Shards) -> None:
        order: list[str] = []
        blocked = asyncio.Event()

        async def hold(shard: int, call: int) -> None:
            await blocked.wait()

        shards.before = hold
        held = [asyncio.create_task(gatherer.ingest(IDS, batch(list(range(20)), 10_000 * i), source="a")) for i in range(CALLS_IN_FLIGHT)]
        for task in held:
            await asyncio.sleep(0.01)
            assert not task.done()

        async def send(name: str, start_us: int) -> None:
            await gatherer.ingest(IDS, batch(list(range(20)), start_us), source=name)
            order.append(name)

        waiting = [asyncio.create_task(send("backlog", 100_000)), asyncio.create_task(send("live", now_us()))]
        await asyncio.sleep(0.01)
        blocked.set()
        await asyncio.gather(*held, *waiting)
        assert order == ["live", "backlog"]

    run(work)


def test_a_gateway_that_sends_much_lets_the_others_have_their_turns() -> None:
    turns: Turns[str] = Turns()
    for number in range(6):
        turns.put(f"noisy {number}", "noisy", False, 100)
    turns.put("quiet", "quiet", False, 100)
    turns.put("old", "noisy", True, 100)
    assert turns.take(300, 100) == ["noisy 0", "quiet", "noisy 1", "old"]
    assert turns.take(300, 100) == ["noisy 2", "noisy 3", "noisy 4"]
    assert turns.take(300, 100) == ["noisy 5"]
    assert not turns


def test_one_gateway_cannot_take_all_of_the_room() -> None:
    admission = Admission(1_000_000, 1.0)
    for _ in range(15):
        admission.admit("noisy", 50_000, False)
    with pytest.raises(Overloaded) as refused:
        admission.admit("noisy", 50_000, False)
    assert refused.value.retry_after_s
    admission.admit("quiet", 50_000, False)
    with pytest.raises(Overloaded):  # its share is half of the room now
        admission.admit("noisy", 50_000, False)
    with pytest.raises(Overloaded):
        admission.admit("third", 50_000, True)  # backlog leaves the rest to live readings
    admission.admit("third", 50_000, False)


def test_what_would_wait_too_long_is_refused_by_the_measured_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("services.admission.time.monotonic", lambda: clock[0])
    admission = Admission(1 << 30, queue_s=0.5)
    admission.admit("a", 100_000_000, False)
    for _ in range(20):  # 4 MB a second
        clock[0] += 0.5
        admission.release(2_000_000, done=True)
    assert admission.room == pytest.approx(2_000_000)
    with pytest.raises(Overloaded):
        admission.admit("b", 10_000, False)


def test_one_slow_message_says_nothing_of_how_much_can_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("services.admission.time.monotonic", lambda: clock[0])
    admission = Admission(1 << 30, queue_s=0.5)
    admission.hold(60)
    clock[0] += 0.8
    admission.release(60, done=True)
    for source in ("b", "c"):  # a burst
        admission.admit(source, 50_000_000, False)
    for _ in range(4):  # 1 MB a second
        clock[0] += 0.5
        admission.release(500_000, done=True)
    assert admission.room == pytest.approx(1 << 20)
    admission.release(98_000_000)
    for _ in range(80):  # never much at once, and it is quickly done: more is done in a second than was known
        admission.hold(450_000)
        clock[0] += 0.025
        admission.hold(450_000)
        admission.release(450_000, done=True)
        clock[0] += 0.025
        admission.hold(1)
        admission.release(450_000, done=True)
    assert admission.room > 4_000_000
