"""Client processes of the latency figure: one sends readings at a steady rate, one watches the alerts. Both print JSON.

python -m bench.paced send    # specification on standard input
python -m bench.paced watch   # target on standard input; prints a line for each alert that is raised
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np

from actors.rules.readings import Batch
from bench.sender import CHANNEL
from bench.workload import BOOT, CENTER, CODES, DUPLICATE, LATE, MINUTE_US
from cluster.client import INGEST, encode_columns
from waybill.v1 import alert_pb2, alert_pb2_grpc, telemetry_pb2

SLOT_US = 100_000
"""Every gateway sends a message so often."""
GATEWAYS = 10
COLD_C = -5.0


@dataclass(frozen=True)
class Pace:
    """`per_second` readings of `tags` tags for `seconds`, from `begin_s` (time since 1970) on; 0: a second after saying that
    all is encoded. `probes`: tags that get too cold once each.

    A tag's readings are a minute apart by the sensors' clock, from `start_us` on: tags that report every second would be silent,
    and make alerts of that, as soon as the bench pauses.
    """

    target: str
    tags: int
    per_second: int
    seconds: int
    begin_s: float
    start_us: int
    probes: list[int]
    first_turn: int = 0
    """Sequence of a tag's first reading here: its sensed time is `start_us`."""

    @property
    def per_message(self) -> int:
        """Readings in a message before what is late or sent again."""
        return self.per_second // GATEWAYS // (1_000_000 // SLOT_US)

    @property
    def slots(self) -> int:
        """Messages of each gateway."""
        return self.seconds * 1_000_000 // SLOT_US


def reading_of(pace: Pace, gateway: int, slot: int) -> tuple[Any, Any]:
    """(tags, turn of each) that a gateway reads in a slot: its tags in turn."""
    mine = pace.tags // GATEWAYS
    place = slot * pace.per_message + np.arange(pace.per_message)
    return gateway * mine + place % mine, place // mine


def cold_turns(pace: Pace) -> dict[int, int]:
    """In which of its turns each probe is too cold: spread over the run, the first and the last turns left out."""
    turns = pace.slots * pace.per_message // (pace.tags // GATEWAYS)
    order = np.random.default_rng(7).permutation(len(pace.probes))
    return {probe: 1 + int(at) * (turns - 2) // len(pace.probes) for probe, at in zip(pace.probes, order, strict=True)}


def messages(pace: Pace, gateway: int) -> list[tuple[bytes, list[int]]]:
    """Each slot's message of a gateway and the probes whose cold reading it carries. Late readings and copies go with the next slot."""
    rng = np.random.default_rng([11, gateway])
    cold = cold_turns(pace)
    turn_of = np.full(pace.tags, -1, np.int64)
    turn_of[list(cold)] = list(cold.values())
    made = []
    kept: list[Any] = []
    for slot in range(pace.slots):
        tags, turns = reading_of(pace, gateway, slot)
        n = len(tags)
        at_us = pace.start_us + turns * MINUTE_US
        values = np.empty((3, n))
        values[0] = np.where(turn_of[tags] == turns, COLD_C, 5.0 + rng.uniform(-1.0, 1.0, n))
        values[1] = CENTER[0] + 0.5 + rng.uniform(0.0, 0.1, n)
        values[2] = CENTER[1]
        columns = [tags, at_us, turns + pace.first_turn, *values]
        probing = values[0] == COLD_C
        late = (rng.random(n) < LATE) & ~probing & (slot < pace.slots - 1)
        again = rng.random(n) < DUPLICATE
        now = [column[~late] for column in columns]
        sent = [np.concatenate([column, *(one[k] for one in kept)]) for k, column in enumerate(now)]
        kept = [[column[late] for column in columns], [column[again & ~late] for column in columns]] if slot < pace.slots - 1 else []
        unique, index = np.unique(sent[0], return_inverse=True)
        batch = Batch(
            index.astype(np.int32), sent[1], np.full(len(index), BOOT, np.int64), sent[2], CODES, np.ascontiguousarray(np.stack(sent[3:]))
        )
        data = encode_columns([f"bench-{tag:07d}" for tag in unique.tolist()], batch)
        made.append((data, tags[probing].tolist()))
    return made


async def send(pace: Pace) -> dict[str, Any]:
    """Send at the pace; when each probe's message was written, how far behind the plan, and the counts of all answers."""
    made = [messages(pace, gateway) for gateway in range(GATEWAYS)]
    if pace.begin_s:
        wait_s = pace.begin_s - time.time()
        assert wait_s > 0, f"encoding took {-wait_s:.1f} s too long"
    else:
        print(json.dumps("encoded"), flush=True)
        wait_s = 1.0
    begin = time.monotonic() + wait_s
    channel = grpc.aio.insecure_channel(pace.target, options=CHANNEL)
    await channel.channel_ready()
    written: dict[int, float] = {}
    behind: list[float] = []
    told = {"accepted": 0, "duplicate": 0, "conflicting": 0, "refused": 0}
    waits: list[float] = []

    async def gateway(number: int) -> None:
        call = channel.stream_stream(INGEST, request_serializer=None, response_deserializer=telemetry_pb2.IngestResponse.FromString)()
        times: deque[float] = deque()

        async def write() -> None:
            for slot, (data, probes) in enumerate(made[number]):
                due = begin + (slot + number / GATEWAYS) * SLOT_US / 1e6
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                now = time.monotonic()
                behind.append(now - due)
                times.append(now)
                written.update(dict.fromkeys(probes, now))
                await call.write(data)
            await call.done_writing()

        writer = asyncio.create_task(write())
        async for answer in call:
            waits.append(time.monotonic() - times.popleft())
            assert not answer.HasField("error"), answer.error
            for name in told:
                told[name] += getattr(answer, name)
        await writer

    await asyncio.gather(*(gateway(number) for number in range(GATEWAYS)))
    await channel.close()
    return {**told, "written": written, "behind": sorted(behind), "waits": sorted(waits)}


def watch(target: str) -> None:
    """Print [carrier, time] of each alert that is raised, until standard output closes."""
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        call = alert_pb2_grpc.AlertServiceStub(channel).WatchAlerts(alert_pb2.WatchAlertsRequest(after_event_number=0))
        print(json.dumps("watching"), flush=True)
        for message in call:
            now = time.monotonic()
            if message.change == alert_pb2.ALERT_CHANGE_RAISED:
                print(json.dumps([message.alert.carrier, now]), flush=True)


def main() -> None:
    """Send or watch."""
    if sys.argv[1] == "watch":
        watch(sys.stdin.readline().strip())
    else:
        print(json.dumps(asyncio.run(send(Pace(**json.loads(sys.stdin.readline()))))), flush=True)


if __name__ == "__main__":
    main()
