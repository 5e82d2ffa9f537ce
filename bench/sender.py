"""A client process: encodes the readings of some gateways, says so, and on command streams them and tells how it went.

Its specification comes as one JSON line on standard input, then commands, each a JSON line: {"encode": [first, until]} makes the
messages of these minutes, {"send": true} sends them. Each command is answered by a JSON line. Encoding is not part of any figure.
Connections and streams are opened by the first send and stay open, as those of gateways do.
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

from bench.workload import Workload, deliver
from cluster.client import INGEST, encode_columns
from services.wire import to_rows
from waybill.v1 import telemetry_pb2

INGEST_BATCH = "/waybill.v1.TelemetryService/IngestBatch"
CHANNEL = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", 64 << 20))


@dataclass(frozen=True)
class Spec:
    """What a client process sends: the messages of `gateways` (of the workload's), `size` readings each, as columns or as rows.

    streams: how many streams; the gateways are dealt out to them. window: messages unanswered on a stream. unary: instead of a stream,
    a caller that makes a call for each message, one after the other.
    """

    target: str
    workload: dict[str, Any]
    gateways: list[int]
    size: int
    rows: bool
    streams: int
    window: int
    connections: int
    unary: bool = False


class Sender:
    """See the module."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.work = Workload(**spec.workload)
        self.streams: list[list[bytes]] = []
        self.channels: list[Any] = []
        self.open: dict[int, Any] = {}

    def encode(self, first: int, until: int) -> dict[str, Any]:
        """Make the messages of some minutes. What a stream sends is the messages of its gateways in turn."""
        spec = self.spec
        values = self.work.values(first, until)
        lanes: list[list[list[bytes]]] = [[] for _ in range(spec.streams)]
        told = {"readings": 0, "late": 0, "copies": 0, "bytes": 0, "messages": 0}
        for at, gateway in enumerate(spec.gateways):
            delivery = deliver(self.work, gateway, first, until, values)
            told["readings"] += len(delivery.batch)
            told["late"] += delivery.late
            told["copies"] += delivery.copies
            made = []
            for batch in delivery.messages(spec.size):
                if spec.unary:
                    request = telemetry_pb2.IngestRequest(rows=to_rows(delivery.tag_ids, batch))
                    made.append(telemetry_pb2.IngestBatchRequest(batch=request).SerializeToString())
                elif spec.rows:
                    made.append(telemetry_pb2.IngestRequest(rows=to_rows(delivery.tag_ids, batch)).SerializeToString())
                else:
                    made.append(encode_columns(delivery.tag_ids, batch))
            told["bytes"] += sum(map(len, made))
            told["messages"] += len(made)
            lanes[at % spec.streams].append(made)
        self.streams = [[lane[k] for k in range(max(map(len, gateways))) for lane in gateways if k < len(lane)] for gateways in lanes]
        return told

    async def send(self) -> dict[str, Any]:
        """Send all messages; the time from the first message to the last answer, and what the answers say."""
        told: dict[str, Any] = {"accepted": 0, "duplicate": 0, "conflicting": 0, "refused": 0}
        waits: list[float] = []
        if not self.channels:
            self.channels = [grpc.aio.insecure_channel(self.spec.target, options=CHANNEL) for _ in range(self.spec.connections)]
            await asyncio.gather(*(channel.channel_ready() for channel in self.channels))
        told["start"] = time.monotonic()
        one = self._caller if self.spec.unary else self._stream
        await asyncio.gather(*(one(at, messages, told, waits) for at, messages in enumerate(self.streams) if messages))
        told["end"] = time.monotonic()
        told["waits"] = waits
        return told

    async def close(self) -> None:
        """End the streams and connections."""
        for call in self.open.values():
            await call.done_writing()
            assert not isinstance(await call.read(), telemetry_pb2.IngestResponse), "an answer without a message"
        for channel in self.channels:
            await channel.close()

    async def _caller(self, number: int, messages: list[bytes], told: dict[str, Any], waits: list[float]) -> None:
        parse = telemetry_pb2.IngestBatchResponse.FromString
        channel: Any = self.channels[number % len(self.channels)]
        call = channel.unary_unary(INGEST_BATCH, request_serializer=None, response_deserializer=parse)
        for message in messages:
            start = time.monotonic()
            answer = await call(message)
            waits.append(time.monotonic() - start)
            self._count(answer.result, told)

    @staticmethod
    def _count(answer: telemetry_pb2.IngestResponse, told: dict[str, Any]) -> None:
        assert not answer.HasField("error"), answer.error
        for name in ("accepted", "duplicate", "conflicting", "refused"):
            told[name] += getattr(answer, name)

    async def _stream(self, number: int, messages: list[bytes], told: dict[str, Any], waits: list[float]) -> None:
        if number not in self.open:
            channel: Any = self.channels[number % len(self.channels)]
            parse = telemetry_pb2.IngestResponse.FromString
            self.open[number] = channel.stream_stream(INGEST, request_serializer=None, response_deserializer=parse)()
        call = self.open[number]
        room = asyncio.Semaphore(self.spec.window)
        sent: deque[float] = deque()

        async def write() -> None:
            for message in messages:
                await room.acquire()
                sent.append(time.monotonic())
                await call.write(message)

        writer = asyncio.create_task(write())
        for _ in messages:
            answer = await call.read()
            assert isinstance(answer, telemetry_pb2.IngestResponse), "the stream ended before its answers"
            waits.append(time.monotonic() - sent.popleft())
            room.release()
            self._count(answer, told)
        await writer


async def obey(sender: Sender) -> None:
    """Carry out the commands on standard input until it ends."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        told = sender.encode(*command["encode"]) if "encode" in command else await sender.send()
        print(json.dumps(told), flush=True)
    await sender.close()


def main() -> None:
    """Take the specification, then obey."""
    asyncio.run(obey(Sender(Spec(**json.loads(sys.stdin.readline())))))


if __name__ == "__main__":
    main()
