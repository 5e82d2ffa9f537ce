"""The gateways, in a process of their own: they stream a world's readings through gRPC, tell its custodies, and watch the alerts.

    python -m tests.faults.gateway FOLDER

FOLDER/gateway.json says what to do. What was acknowledged is appended to FOLDER/acks.bin and flushed to the disk before it
counts; that file is the truth that the judge holds the journal against. FOLDER/watched.bin has the numbers of the alert events
that a subscriber saw, across its reconnects, in the order seen. A file FOLDER/stop ends the streams at their next round; they then
send what they had held back, and the subscriber goes on until it has seen the event whose number is in FOLDER/last_event.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import struct
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import RetryInfo

from tests.faults.counters import Counters
from tests.faults.limits import FENCE_ID, LIMITS, MKT_LIMITS, MKT_WINDOW_US, QUALITY
from tests.faults.world import CONFLICT, FENCE_CENTER, FENCE_RADIUS_M, MINUTE_US, NEW, NONE, START_US, Ride, Said, World
from tests.reference.exposure import CUMULATIVE, MKT, Limit
from waybill.v1 import (
    alert_pb2,
    alert_pb2_grpc,
    common_pb2,
    profile_pb2,
    profile_pb2_grpc,
    shipment_pb2,
    shipment_pb2_grpc,
    tag_pb2,
    tag_pb2_grpc,
    telemetry_pb2,
    telemetry_pb2_grpc,
)

ACK = struct.Struct("<qiiiiii")
"""When (monotonic ns), stream, number of the message, accepted, duplicate, conflicting, refused."""
WATCHED = struct.Struct("<q")
AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
LOCAL = "Internal error from Core"
"""What grpcio says of a write to a connection that has just gone."""
CALL_S = 20.0
FLUSH_S = 0.1
PROFILE_ID, MKT_PROFILE_ID = "faults", "faults-mkt"
OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 1_000), ("grpc.initial_reconnect_backoff_ms", 100)]


class Wrong(Exception):
    """An answer that no fault excuses."""


class Gateway:
    """All streams of one world."""

    def __init__(self, folder: Path) -> None:
        told = json.loads((folder / "gateway.json").read_text())
        self.folder = folder
        self.world = World(**told["world"])
        self.shards: int = told["shards"]
        self.window: int = told["window"]
        self.rate: float = told["readings_per_s"]
        self.target: str = told["target"]
        self.counters = Counters(folder / "counters.bin")
        self.acks = open(folder / "acks.bin", "ab")  # noqa: SIM115
        self.complaints = open(folder / "complaints", "a")  # noqa: SIM115
        self.unflushed = bytearray()
        self.readings_unflushed = 0
        self.stops: dict[int, int] = {}
        self.begun = time.monotonic()
        self.sent = 0
        self.random = random.Random(self.world.seed)
        self.refusal = "none"

    def channel(self) -> grpc.aio.Channel:
        """A connection of its own: with several doors the streams spread over them."""
        return grpc.aio.insecure_channel(self.target, [*OPTIONS, ("grpc.use_local_subchannel_pool", 1)])

    def stopping(self) -> bool:
        """Whether to begin no further round."""
        return (self.folder / "stop").exists()

    async def run(self) -> None:
        """Everything, until stopped and drained."""
        async with self.channel() as channel:
            await self.prepare(channel)
        (self.folder / "ready").touch()
        flusher = asyncio.create_task(self.flush())
        watcher = asyncio.create_task(self.watch())
        async with asyncio.TaskGroup() as group:
            for stream in range(self.world.streams):
                group.create_task(self.stream(stream))
        flusher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await flusher
        await self.flush_now()
        (self.folder / "stopped.json").write_text(json.dumps(self.stops))
        (self.folder / "drained").touch()
        await watcher

    def tell_where(self) -> None:
        """Where each task stands, on stderr: for whoever waits for the end in vain."""
        for task in asyncio.all_tasks():
            print(*(f"{frame.f_code.co_qualname}:{frame.f_lineno}" for frame in task.get_stack()), file=sys.stderr)
        print(f"the last refusal of a unary call: {self.refusal}", file=sys.stderr, flush=True)

    async def prepare(self, channel: grpc.aio.Channel) -> None:
        """The profiles, the shipments, and the tags that have settings."""
        profiles, shipments = profile_pb2_grpc.ProfileServiceStub(channel), shipment_pb2_grpc.ShipmentServiceStub(channel)
        exists = (grpc.StatusCode.ALREADY_EXISTS,)
        for name, limits in ((PROFILE_ID, LIMITS), (MKT_PROFILE_ID, MKT_LIMITS)):
            request = profile_pb2.CreateProfileRequest(profile=profile(name, limits), request_id=f"make-{name}")
            await self.until_done(lambda request=request: profiles.CreateProfile(request, timeout=CALL_S), exists)  # type: ignore[misc]
        tags = tag_pb2_grpc.TagServiceStub(channel)
        for tag in filter(self.world.checked, range(self.world.tags)):
            register = tag_pb2.RegisterTagRequest(tag=tag_pb2.Tag(tag_id=self.world.tag_id(tag), quality=[quality()]))
            await self.until_done(lambda register=register: tags.RegisterTag(register, timeout=CALL_S), exists)  # type: ignore[misc]
        for number in range(self.world.shipments):
            profile_id = MKT_PROFILE_ID if self.world.has_mkt(number) else PROFILE_ID
            made = shipment_pb2.Shipment(shipment_id=self.world.shipment_id(number), profile_id=profile_id, geofences=[fence()])
            create = shipment_pb2.CreateShipmentRequest(shipment=made, request_id=f"make-{self.world.shipment_id(number)}")
            await self.until_done(lambda create=create: shipments.CreateShipment(create, timeout=CALL_S))  # type: ignore[misc]

    async def until_done(self, call: Any, fine: tuple[grpc.StatusCode, ...] = ()) -> None:
        """A unary call, made again for as long as the answer says so."""
        pause = 0.05
        while True:
            try:
                async with asyncio.timeout(CALL_S + 5):  # a call may be lost between its channel and its deadline
                    await call()
                return
            except TimeoutError:
                self.refusal = "no answer after the deadline"
            except grpc.aio.AioRpcError as error:
                self.refusal = f"{error.code().name}: {error.details()}"
                if error.code() in fine:
                    return
                if error.code() not in AGAIN:
                    raise Wrong(f"{error.code().name}: {error.details()}") from None
            await asyncio.sleep(self.random.uniform(pause / 2, pause))
            pause = min(2 * pause, 1.0)

    # ------------------------------------------------------------ readings

    async def stream(self, stream: int) -> None:
        """One gateway: its messages on one gRPC stream after another, and its clerk beside it."""
        rounds: asyncio.Queue[int | None] = asyncio.Queue()

        def more(number: int) -> bool:
            rounds.put_nowait(number)
            if self.stopping():
                self.stops[stream] = number
                return False
            return True

        async with asyncio.TaskGroup() as group:
            group.create_task(self.clerk(stream, rounds))
            async with self.channel() as channel:
                await self.send(stream, self.world.says(stream, more), channel)
            rounds.put_nowait(None)

    async def send(self, stream: int, messages: Iterator[Said], channel: grpc.aio.Channel) -> None:
        stub = telemetry_pb2_grpc.TelemetryServiceStub(channel)
        waiting: deque[Waiting] = deque()
        refused: list[Waiting] = []  # to be sent again, all of them after one pause
        following: Said | None = next(messages, None)
        pause = 0.05
        while following is not None or waiting or refused:
            call = stub.Ingest()
            waiting.extend(refused)
            refused.clear()
            asked = 0.0
            try:
                for one in waiting:
                    await call.write(one.request)
                while following is not None or waiting or refused:
                    if refused and not waiting:
                        await asyncio.sleep(max(pause, asked))
                        pause, asked = min(2 * pause, 1.0), 0.0
                        waiting.extend(refused)
                        refused.clear()
                        for one in waiting:
                            await call.write(one.request)
                    while following is not None and not refused and len(waiting) < self.window and not self.held(following, waiting):
                        await self.keep_pace(len(following.tag))
                        one = Waiting(
                            following,
                            self.request(following),
                            sorted({self.world.shard(t, self.shards) for t in set(following.tag.tolist())}),
                        )
                        waiting.append(one)
                        self.count(one, 1)
                        following = next(messages, None)
                        await call.write(one.request)
                    if not waiting:
                        continue
                    answer = await call.read()
                    if answer is grpc.aio.EOF:
                        break
                    one = waiting.popleft()
                    if answer.HasField("error"):
                        self.counters.refusals += 1
                        if answer.error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]:
                            self.counters.full += 1
                        elif answer.error.code != grpc.StatusCode.UNAVAILABLE.value[0]:
                            raise Wrong(f"message {one.said.number} of stream {stream}: {answer.error}")
                        asked = max(asked, asked_s(answer))
                        refused.append(one)
                        continue
                    pause = 0.05
                    self.take(stream, one, answer)
            except grpc.aio.AioRpcError as error:
                if error.code() not in AGAIN and error.details() != LOCAL:
                    raise Wrong(f"stream {stream}: {error.code().name}: {error.details()}") from None
            except asyncio.InvalidStateError:
                pass  # written to a call that has just ended
            finally:
                call.cancel()
            if waiting:
                self.counters.broken += 1
            await asyncio.sleep(self.random.uniform(pause / 2, pause))
            pause = min(2 * pause, 1.0)

    def held(self, said: Said, waiting: deque[Waiting]) -> bool:
        """A contradiction waits until what it contradicts is durable."""
        return said.after >= 0 and any(one.said.number == said.after for one in waiting)

    async def keep_pace(self, readings: int) -> None:
        """No more than the rate asked for, over all streams."""
        self.sent += readings
        ahead_s = self.sent / self.rate - (time.monotonic() - self.begun)
        if ahead_s < -1.0:  # after an outage: go on at the rate, do not rush
            self.begun += -ahead_s - 1.0
        await asyncio.sleep(max(ahead_s, 0))

    def count(self, one: Waiting, by: int) -> None:
        """Keep the counters that the chaos driver looks at."""
        for shard in one.shards:
            self.counters.outstanding[shard] += by
        self.counters.waiting += by

    def take(self, stream: int, one: Waiting, answer: telemetry_pb2.IngestResponse) -> None:
        """Write an answer down."""
        now_ns = time.monotonic_ns()
        said, total = one.said, answer.accepted + answer.duplicate + answer.conflicting + answer.refused
        if total != len(said.tag) or answer.refused or (said.kind != CONFLICT and answer.conflicting):
            # A sign of something lost; the run goes on, so that the judge finds out what.
            self.complaints.write(
                f"message {said.number} of stream {stream}, kind {said.kind}: {str(answer)[:200]}\n".replace("\n", " ") + "\n"
            )
            self.complaints.flush()
        self.count(one, -1)
        for shard in one.shards:
            self.counters.answered_ns[shard] = now_ns
        if said.kind == NEW and answer.duplicate:
            self.counters.found_written += 1
        self.unflushed += ACK.pack(now_ns, stream, said.number, answer.accepted, answer.duplicate, answer.conflicting, answer.refused)
        self.readings_unflushed += len(said.tag)

    def request(self, said: Said) -> telemetry_pb2.IngestRequest:
        """A message as columns."""
        world = self.world
        tags, index = np.unique(said.tag, return_inverse=True)
        sequenced = world.sequenced(said.tag)
        values = [telemetry_pb2.Column(metric=common_pb2.METRIC_TEMPERATURE_C, values=said.temperature_c.tolist())]
        where = np.flatnonzero(world.positional(said.tag))
        if len(where):
            for metric, part in zip(
                (common_pb2.METRIC_LATITUDE_DEG, common_pb2.METRIC_LONGITUDE_DEG),
                world.positions(said.tag[where], said.minute[where]),
                strict=True,
            ):
                values.append(telemetry_pb2.Column(metric=metric, values=part.tolist(), rows=where.tolist()))
        columns = telemetry_pb2.ReadingColumns(
            tag_ids=[world.tag_id(tag) for tag in tags.tolist()],
            tag_index=index.tolist(),
            sensed_at_us=world.sensed_us(said.tag, said.minute).tolist(),
            boot=np.where(sequenced, world.boot(said.minute).astype(np.uint64), NONE).tolist(),
            sequence=np.where(sequenced, said.minute.astype(np.uint64), NONE).tolist(),
            columns=values,
        )
        return telemetry_pb2.IngestRequest(batch_id=str(said.number), columns=columns)

    async def flush(self) -> None:
        """Have the log of acknowledgements on the disk, again and again."""
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush_now()

    async def flush_now(self) -> None:
        """What was answered is on the disk when this returns."""
        data, self.unflushed = bytes(self.unflushed), bytearray()
        readings, self.readings_unflushed = self.readings_unflushed, 0
        if not data:
            return
        self.acks.write(data)
        self.acks.flush()
        await asyncio.to_thread(os.fsync, self.acks.fileno())
        self.counters.acknowledged += readings

    # ------------------------------------------------------------ custodies

    async def clerk(self, stream: int, rounds: asyncio.Queue[int | None]) -> None:
        """Tells where the stream's tags ride, each tag's story in its order, some of it early and some of it late."""
        async with self.channel() as channel:
            stub = shipment_pb2_grpc.ShipmentServiceStub(channel)
            stories = [self.story(tag) for tag in self.world.members(stream)]
            due = [next(story) for story in stories]
            while True:
                number = await rounds.get()
                ended = number is None
                for position, story in enumerate(stories):
                    while True:
                        when, ride, ending = due[position]
                        if ended:
                            if not ending and ride.from_minute >= self.stops[stream] * 10:
                                break
                        elif number is None or when > number:
                            break
                        await self.tell(stub, ride, ending)
                        due[position] = next(story)
                if ended:
                    return

    def story(self, tag: int) -> Iterator[tuple[int, Ride, bool]]:
        """What is told of a tag: in which round, which ride, whether it is its end."""
        for ride in self.world.rides(tag, 1 << 30):
            yield ride.told_in_round, ride, False
            if ride.open:
                yield ride.ended_in_round, ride, True

    async def tell(self, stub: shipment_pb2_grpc.ShipmentServiceStub, ride: Ride, ending: bool) -> None:
        """Assign or release a tag; sent again until it is done."""
        names = {"shipment_id": self.world.shipment_id(ride.shipment), "tag_id": self.world.tag_id(ride.tag), "actor": "clerk"}
        if ending:
            release = shipment_pb2.ReleaseTagRequest(**names, until_time=at(ride.until_minute))
            await self.until_done(lambda: stub.ReleaseTag(release, timeout=CALL_S))
            return
        until = None if ride.open else at(ride.until_minute)
        assign = shipment_pb2.AssignTagRequest(**names, from_time=at(ride.from_minute), until_time=until)
        await self.until_done(lambda: stub.AssignTag(assign, timeout=CALL_S))

    # ------------------------------------------------------------ alerts

    async def watch(self) -> None:
        """One subscriber: it comes back with its cursor whenever it is cut, and cuts itself now and then."""
        cursor, pause = 0, 0.05
        seen = open(self.folder / "watched.bin", "ab")  # noqa: SIM115
        target = self.folder / "last_event"
        while not (target.exists() and cursor >= int(target.read_text())):
            try:
                async with self.channel() as channel:
                    call = alert_pb2_grpc.AlertServiceStub(channel).WatchAlerts(
                        alert_pb2.WatchAlertsRequest(after_event_number=cursor), timeout=self.random.uniform(2, 12)
                    )
                    async for message in call:
                        if message.HasField("alert"):
                            seen.write(WATCHED.pack(message.event_number))
                        cursor, pause = message.event_number, 0.05
            except grpc.aio.AioRpcError as error:
                if error.code() not in AGAIN:
                    raise Wrong(f"the watch after {cursor}: {error.code().name}: {error.details()}") from None
                if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, 1.0)
            seen.flush()
        seen.close()


class Waiting:
    """A message without an answer."""

    __slots__ = ("request", "said", "shards")

    def __init__(self, said: Said, request: telemetry_pb2.IngestRequest, shards: list[int]) -> None:
        self.said, self.request, self.shards = said, request, shards


def asked_s(answer: telemetry_pb2.IngestResponse) -> float:
    """The pause that an error asks for, in seconds."""
    info = RetryInfo()
    for packed in answer.error.details:
        if packed.Unpack(info):
            return float(info.retry_delay.ToTimedelta().total_seconds())
    return 0.0


def at(minute: int) -> Timestamp:
    """A minute of the world's time."""
    us = START_US + minute * MINUTE_US
    return Timestamp(seconds=us // 1_000_000, nanos=us % 1_000_000 * 1000)


def profile(name: str, limits: dict[str, Limit]) -> profile_pb2.Profile:
    """Limits of tests/faults/limits.py as a profile."""
    made = profile_pb2.Profile(profile_id=name, name="limits of the fault tests", max_gap_s=3600.0)
    modes = {CUMULATIVE: profile_pb2.LIMIT_MODE_CUMULATIVE, MKT: profile_pb2.LIMIT_MODE_MKT}
    for limit_id, limit in limits.items():
        made.limits.add(
            limit_id=limit_id,
            metric=common_pb2.METRIC_TEMPERATURE_C,
            direction=profile_pb2.DIRECTION_ABOVE if limit.direction == 1 else profile_pb2.DIRECTION_BELOW,
            inclusive=limit.inclusive,
            mode=modes.get(limit.mode, profile_pb2.LIMIT_MODE_SINGLE),
            threshold=limit.threshold,
            clear=limit.clear,
            allowance_s=None if limit.allowance_us is None else limit.allowance_us / 1e6,
            window_s=MKT_WINDOW_US / 1e6 if limit.mode == MKT else None,
            severity=common_pb2.SEVERITY_WARNING,
        )
    return made


def quality() -> tag_pb2.QualityTests:
    """The quality settings of tests/faults/limits.py."""
    rules = {name.replace("_us", "_s"): value / 1e6 if name.endswith("_us") else value for name, value in QUALITY.items()}
    return tag_pb2.QualityTests(metric=common_pb2.METRIC_TEMPERATURE_C, **rules)  # type: ignore[arg-type]


def fence() -> common_pb2.Geofence:
    """The one fence of all shipments."""
    center = common_pb2.LatLng(latitude_deg=FENCE_CENTER[0], longitude_deg=FENCE_CENTER[1])
    return common_pb2.Geofence(fence_id=FENCE_ID, name="the yard", circle=common_pb2.CircleShape(center=center, radius_m=FENCE_RADIUS_M))


async def _main(folder: Path) -> None:
    gateway = Gateway(folder)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, gateway.tell_where)
    await gateway.run()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
