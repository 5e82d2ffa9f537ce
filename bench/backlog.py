"""A backlog of six hours, newest first: `python -m bench.backlog`.

10,000 tags on shipments report every minute; their gateways were away for six hours and then send what they kept, once in order and once
newest first, each on a Waybill of its own. Meanwhile 200 other tags go on reporting; what counts for them is how long their messages wait.
In the end the database must state exactly the excursions and visits of in-order arrival.

The exit code says whether newest first took at most TIMES_MOST times as long as in order, and 99 of 100 live messages waited at most
LIVE_P99_S meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from actors.rules.readings import Batch
from bench.ingest import checked, new_workload, percentile
from bench.sender import CHANNEL
from bench.system import started
from bench.workload import Workload, deliver
from cluster.client import INGEST, encode_columns, retry_after_s
from waybill.v1 import telemetry_pb2

SIZE = 2_500
WINDOW = 4
"""Messages unanswered of one gateway."""
LIVE_TAGS = 200
LIVE_EVERY_S = 0.1
BEFORE_S = 4.0
TIMES_MOST, LIVE_P99_S = 3.0, 1.0


def messages(work: Workload, gateway: int, newest_first: bool) -> list[bytes]:
    """What a gateway kept, in the order in which it sends it."""
    delivery = deliver(work, gateway, 0, work.minutes)
    made = []
    for batch in delivery.messages(SIZE):
        if newest_first:
            back = slice(None, None, -1)
            batch = Batch(
                batch.tag[back].copy(), batch.sensed_us[back].copy(), batch.boot[back].copy(), batch.sequence[back].copy(), batch.codes,
                np.ascontiguousarray(batch.values[:, back]),
            )  # fmt: skip
        made.append(encode_columns(delivery.tag_ids, batch))
    return made[::-1] if newest_first else made


def _open(channel: grpc.aio.Channel) -> Any:
    parse = telemetry_pb2.IngestResponse.FromString
    open_call: Any = channel.stream_stream(INGEST, request_serializer=None, response_deserializer=parse)
    return open_call()


async def send(target: str, todo: list[bytes]) -> int:
    """Have all messages of a gateway taken; what is refused is sent again when that was asked for. How often that was."""
    refused = 0
    async with grpc.aio.insecure_channel(target, options=CHANNEL) as channel:
        call = _open(channel)
        left, waiting, again, pause_s = deque(todo), deque[bytes](), deque[bytes](), 0.0
        while left or waiting or again:
            if again and not waiting:
                await asyncio.sleep(pause_s * (0.5 + np.random.random()))
                left.extendleft(reversed(again))
                again, pause_s = deque(), 0.0
            while left and not again and len(waiting) < WINDOW:
                waiting.append(left.popleft())
                await call.write(waiting[-1])
            answer = await call.read()
            message = waiting.popleft()
            if answer.HasField("error"):
                refused += 1
                pause_s = max(pause_s, retry_after_s(answer.error), 0.05)
                again.append(message)
            else:
                assert not answer.refused, answer
        await call.done_writing()
    return refused


async def live(target: str, over: asyncio.Event, waits: list[tuple[float, float]]) -> None:
    """One message of the other tags every tenth of a second, however long the one before takes: (when, seconds waited) of each."""
    names = [f"live-{tag}" for tag in range(LIVE_TAGS)]
    none, tag = np.full(LIVE_TAGS, -1, np.int64), np.arange(LIVE_TAGS, dtype=np.int32)
    async with grpc.aio.insecure_channel(target, options=CHANNEL) as channel:
        call, sent = _open(channel), deque[float]()

        async def read() -> None:
            async for answer in call:
                since = sent.popleft()
                assert not answer.HasField("error"), answer.error
                waits.append((since, time.monotonic() - since))

        reader = asyncio.create_task(read())
        while not over.is_set():
            times = time.time_ns() // 1000 + tag.astype(np.int64)
            sent.append(time.monotonic())
            await call.write(encode_columns(names, Batch(tag, times, none, none, (0,), np.full((1, LIVE_TAGS), 5.0))))
            await asyncio.sleep(LIVE_EVERY_S)
        await call.done_writing()
        await reader


async def both(target: str, backlog: list[list[bytes]]) -> dict[str, float]:
    """The live tags alone for a while, then with the backlog beside them."""
    waits: list[tuple[float, float]] = []
    over = asyncio.Event()
    other = asyncio.create_task(live(target, over, waits))
    await asyncio.sleep(BEFORE_S)
    begun = time.monotonic()
    refused = await asyncio.gather(*(send(target, todo) for todo in backlog))
    took = time.monotonic() - begun
    over.set()
    await other
    before = sorted(wait for at, wait in waits if at < begun)
    during = sorted(wait for at, wait in waits if at >= begun)
    return {
        "seconds": took,
        "refused": sum(refused),
        "live_p99_before_ms": 1000 * percentile(before, 99),
        "live_p50_ms": 1000 * percentile(during, 50),
        "live_p99_ms": 1000 * percentile(during, 99),
        "live_longest_ms": 1000 * during[-1],
    }


def measure(tags: int, minutes: int) -> dict[str, dict[str, float]]:
    """Both orders, each checked."""
    work = new_workload(tags, minutes, 8)
    found = {}
    for name, newest_first in (("in order", False), ("newest first", True)):
        backlog = [messages(work, gateway, newest_first) for gateway in range(work.gateways)]
        with started(work, queue_s=0.5) as system:
            found[name] = asyncio.run(both(system.target, backlog))
            wanted = checked(system, work, minutes)
            found[name] |= {"readings": tags * minutes, "excursions": len(wanted.excursions)}
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tags", type=int, default=10_000)
    parser.add_argument("--minutes", type=int, default=360)
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    options = parser.parse_args()
    found = measure(options.tags, options.minutes)
    for name, facts in found.items():
        print(f"{name}: " + ", ".join(f"{key} {value:,.1f}" for key, value in facts.items()))
    times = found["newest first"]["seconds"] / found["in order"]["seconds"]
    print(f"newest first took {times:.2f} times as long as in order")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1))
    waited_s = max(facts["live_p99_ms"] for facts in found.values()) / 1000
    return 0 if times <= TIMES_MOST and waited_s <= LIVE_P99_S else 1


if __name__ == "__main__":
    sys.exit(main())
