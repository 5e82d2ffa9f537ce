"""The door: one process that serves the contract over gRPC. It holds no state; a Ray driver, it calls the shards and reads the database.

    python -m services.door < config.json           # what the roof does; passwords never stand in an argument
    python -m services.door --settings-json '{...}'

The configuration is one JSON object, see `Config`. SIGTERM ends it gracefully: it answers what it has taken, then leaves. A spare door
(`spare` in its configuration) does everything but listen until SIGUSR1 tells it to: it takes the place of a dead one at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import ray
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from actors.directory import Directory
from actors.journal import allocator, cycles, database
from services import gather, rows, tag_ids
from services.alerts import Alerts
from services.backend import READERS, Backend
from services.feed import Feed
from services.gather import Gatherer
from services.inventory import Inventory
from services.items import Items
from services.lines import Lines
from services.profiles import Profiles
from services.replay import Coordinator, Replays
from services.reports import seal
from services.reports.service import Reports
from services.shards import Shards
from services.shipments import Shipments
from services.status import Doorman
from services.tags import Tags
from services.telemetry import Telemetry
from services.warehouses import Warehouses
from waybill.v1 import (
    alert_pb2_grpc,
    inventory_pb2_grpc,
    item_pb2_grpc,
    profile_pb2_grpc,
    replay_pb2_grpc,
    report_pb2_grpc,
    shipment_pb2_grpc,
    tag_pb2_grpc,
    telemetry_pb2_grpc,
    warehouse_pb2_grpc,
)

log = logging.getLogger("waybill.door")

MESSAGE_BYTES_MAX = 16 << 20
"""What the transport takes; between this and wire.BYTES_MAX a message is refused with a reason instead of by the transport."""
STREAMS_MAX = 1_000
"""Concurrent calls of one connection."""
SPARE_READY = "spare door ready, process"
"""What a spare door prints with its pid when it may be called."""
GRACE_S = 5.0
"""How long calls may take to end when the door closes."""
SERVICES = tuple(
    f"waybill.v1.{name}Service"
    for name in ("Telemetry", "Shipment", "Warehouse", "Tag", "Profile", "Item", "Alert", "Report", "Inventory", "Replay")
)
INGEST = frozenset({"/waybill.v1.TelemetryService/Ingest", "/waybill.v1.TelemetryService/IngestBatch"})
"""Methods whose requests come to them as bytes, and are checked by services.wire, as arrays."""


class ConfigError(ValueError):
    """A configuration that cannot be served; the text says why."""


@dataclass(frozen=True)
class Config:
    """What a door is told. Paths are PEM files; `reuse_port`: several doors share the port.

    replay_opener: the roof's "module:function" that makes the coordinator of replays, whose archive is at `archive`.
    `shards` and `auto_register` are the shards' business; they are taken so that one configuration fits all, and have no effect here.
    """

    database_url: str
    ray_address: str
    ray_namespace: str = "waybill"
    shards: int | None = None
    host: str = "127.0.0.1"
    port: int = 50051
    reuse_port: bool = False
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    reflection: bool = False
    auto_register: bool = True
    report_key: str | None = None
    archive: str = ""
    replay_opener: str = ""
    gather_ms: float = 40.0
    in_flight_bytes: int = 256 << 20
    queue_s: float = 0.25
    unread_bytes: int = 64 << 10
    spare: bool = False
    log_level: str = "INFO"

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Config:
        """The configuration from JSON data. Raises ConfigError."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(given) - known)
        if unknown:
            raise ConfigError(f"{unknown[0]}: there is no such setting of a door")
        try:
            config = cls(**given)
        except TypeError as error:
            raise ConfigError(str(error)) from None
        if config.tls_cert is None and not is_loopback(config.host):
            raise ConfigError(f"refusing to listen on {config.host} without TLS: give tls_cert and tls_key, or listen on 127.0.0.1")
        if (config.tls_cert is None) != (config.tls_key is None):
            raise ConfigError("tls_cert and tls_key are given together or not at all")
        if config.tls_client_ca is not None and config.tls_cert is None:
            raise ConfigError("tls_client_ca needs tls_cert and tls_key")
        return config

    @property
    def address(self) -> str:
        """Where to listen, as gRPC names it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def credentials(self) -> grpc.ServerCredentials | None:
        """TLS, mutual where a client CA is given; None on loopback without. Raises ConfigError."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        try:
            pair = Path(self.tls_key).read_bytes(), Path(self.tls_cert).read_bytes()
            authority = Path(self.tls_client_ca).read_bytes() if self.tls_client_ca else None
        except OSError as error:
            raise ConfigError(f"{error.filename}: {error.strerror}") from None
        return grpc.ssl_server_credentials([pair], root_certificates=authority, require_client_auth=authority is not None)

    def signing_key(self) -> Ed25519PrivateKey | None:
        """What reports are signed with; None: nothing. Raises ConfigError."""
        if self.report_key is None:
            return None
        try:
            return seal.private_key(Path(self.report_key).read_bytes())
        except OSError as error:
            raise ConfigError(f"{error.filename}: {error.strerror}") from None
        except seal.KeyUnusable as error:
            raise ConfigError(f"{self.report_key}: {error}") from None


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def request_class(method: str) -> type[Message] | None:
    """The request class of a method of the contract; None for other services' methods."""
    service, _, name = method.lstrip("/").partition("/")
    if service not in SERVICES:
        return None
    descriptor = descriptor_pool.Default().FindServiceByName(service).methods_by_name.get(name)
    return None if descriptor is None else GetMessageClass(descriptor.input_type)


class Door:
    """The gRPC server with all that it serves."""

    def __init__(self, config: Config, shards: Shards, backend: Backend) -> None:
        self._config = config
        self._backend = backend
        self._feed = Feed(backend)
        self._gatherer = Gatherer(shards, gather_s=config.gather_ms / 1000, bytes_max=config.in_flight_bytes, queue_s=config.queue_s)
        self._gatherer.listen(self._feed.told)
        self._telemetry = Telemetry(backend, self._gatherer)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # the stubs lack it
        self._server = grpc.aio.server(interceptors=[Doorman(request_class, INGEST)], options=_options(config))
        server: Any = self._server
        telemetry_pb2_grpc.add_TelemetryServiceServicer_to_server(self._telemetry, server)
        alert_pb2_grpc.add_AlertServiceServicer_to_server(Alerts(backend, self._feed), server)
        tag_pb2_grpc.add_TagServiceServicer_to_server(Tags(backend), server)
        shipment_pb2_grpc.add_ShipmentServiceServicer_to_server(Shipments(backend, self._feed), server)
        warehouse_pb2_grpc.add_WarehouseServiceServicer_to_server(Warehouses(backend), server)
        profile_pb2_grpc.add_ProfileServiceServicer_to_server(Profiles(backend), server)
        item_pb2_grpc.add_ItemServiceServicer_to_server(Items(backend), server)
        inventory_pb2_grpc.add_InventoryServiceServicer_to_server(Inventory(backend, self._feed), server)
        report_pb2_grpc.add_ReportServiceServicer_to_server(Reports(backend, config.signing_key()), server)
        coordinator = Coordinator(config.replay_opener, config.ray_namespace, config.database_url, config.archive)
        replay_pb2_grpc.add_ReplayServiceServicer_to_server(Replays(backend, coordinator), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if config.reflection:
            reflection.enable_server_reflection([*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME], server)

    async def open(self) -> int:
        """Listen and serve; the port. Raises ConfigError where it cannot listen."""
        credentials = self._config.credentials()
        try:
            if credentials is None:
                port = self._server.add_insecure_port(self._config.address)
            else:
                port = self._server.add_secure_port(self._config.address, credentials)
        except RuntimeError as error:
            raise ConfigError(f"cannot listen on {self._config.address}: {error}") from None
        await self._server.start()
        for name in ("", *SERVICES):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return port

    async def close(self) -> None:
        """Take no more, answer what was taken, end the streams, let go of everything."""
        await self._health.enter_graceful_shutdown()
        self._telemetry.close()
        self._feed.close()
        await self._server.stop(GRACE_S)
        self._gatherer.close()
        self._backend.close()


def _options(config: Config) -> list[tuple[str, Any]]:
    return [
        ("grpc.so_reuseport", int(config.reuse_port)),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", STREAMS_MAX),
        ("grpc.http2.lookahead_bytes", config.unread_bytes),
        ("grpc.http2.bdp_probe", 0),  # else the transport raises that bound by itself, to megabytes
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 0),
    ]


async def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT."""
    ray.init(address=config.ray_address, namespace=config.ray_namespace, log_to_driver=False, configure_logging=False)
    rows.warm_up()
    tag_ids.warm_up()
    gather.warm_up()
    allocator.give_back_regularly()
    directory = Directory.connect(config.ray_namespace)
    door = Door(config, Lines(directory), Backend(directory, database.reader(config.database_url, connections=READERS + 1)))
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    if config.spare:
        await _called(loop, asked)
    if not asked.is_set():
        cycles.look_seldom()
        port = await door.open()
        log.info("serving on %s (port %d)", config.address, port)
        await asked.wait()
    log.info("closing")
    await door.close()


async def _called(loop: asyncio.AbstractEventLoop, asked: asyncio.Event) -> None:
    """Wait for SIGUSR1, or for the end."""
    called = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, called.set)
    print(SPARE_READY, os.getpid(), flush=True)
    waits = [asyncio.create_task(called.wait()), asyncio.create_task(asked.wait())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


def main() -> int:
    """The process."""
    parser = argparse.ArgumentParser(prog="services.door", description="One door of Waybill.")
    parser.add_argument("--settings-json", help="the configuration; without it, it is read from standard input")
    given = parser.parse_args().settings_json
    try:
        config = Config.of(json.loads(given if given is not None else sys.stdin.read()))
        logging.basicConfig(level=config.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        asyncio.run(serve(config))
    except (ConfigError, json.JSONDecodeError) as error:
        print(f"door: {error}", file=sys.stderr)
        return 2
    logging.shutdown()
    os._exit(0)  # what was taken is answered, and a door holds nothing: the farewell of Ray's driver would only take time


if __name__ == "__main__":
    sys.exit(main())
