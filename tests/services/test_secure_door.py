"""A door with TLS asks for client certificates where it was given their authority; health and reflection; it ends gracefully."""

from __future__ import annotations

import datetime
import ipaddress
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from cluster import boot
from services.door import SERVICES
from waybill.v1 import alert_pb2, alert_pb2_grpc, tag_pb2, tag_pb2_grpc, telemetry_pb2, telemetry_pb2_grpc

if TYPE_CHECKING:
    from cluster.boot import Running

pytestmark = pytest.mark.parametrize("waybill", ["sqlite"], indirect=True)


class Authority:
    """A certificate authority made for a test."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(name, self.key, authority=True)
        self.path = self._write(f"{name}.pem", self.certificate.public_bytes(serialization.Encoding.PEM))

    def give(self, name: str) -> tuple[Path, Path]:
        """A key and a certificate for localhost, as files."""
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        signed = self._sign(name, key, authority=False).public_bytes(serialization.Encoding.PEM)
        return self._write(f"{self.name}-{name}.key", pem), self._write(f"{self.name}-{name}.pem", signed)

    def _sign(self, name: str, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def _write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Authority]:
    """Ours, and a stranger's."""
    folder = tmp_path_factory.mktemp("certificates")
    return Authority(folder, "ours"), Authority(folder, "stranger")


@pytest.fixture(scope="module")
def secure(waybill: Running, authorities: tuple[Authority, Authority], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One more door of the running Waybill, with mutual TLS and reflection."""
    ours, _ = authorities
    key, certificate = ours.give("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    chosen = {"port": port, "tls_cert": certificate, "tls_key": key, "tls_client_ca": ours.path, "reflection": True}
    chosen["data_dir"] = tmp_path_factory.mktemp("secure-door")
    door = boot.Running(waybill.settings.model_copy(update=chosen), waybill.ray_address)
    door.start_door(0)
    try:
        door.wait_until_serving()
        yield door
    finally:
        door.doors[0].end(10)


def channel_of(running: Running, root: Authority, client: Authority | None) -> grpc.Channel:
    key, certificate = client.give("client") if client else (None, None)
    credentials = grpc.ssl_channel_credentials(
        root.path.read_bytes(), key.read_bytes() if key else None, certificate.read_bytes() if certificate else None
    )
    return grpc.secure_channel(running.target, credentials)


def listed(channel: grpc.Channel) -> Any:
    return tag_pb2_grpc.TagServiceStub(channel).ListTags(tag_pb2.ListTagsRequest(), timeout=30)


def test_with_a_certificate_of_our_authority_a_client_is_served(secure: Running, authorities: tuple[Authority, Authority]) -> None:
    ours, _ = authorities
    with channel_of(secure, ours, ours) as channel:
        assert isinstance(listed(channel), tag_pb2.ListTagsResponse)


@pytest.mark.parametrize("who", ["nobody", "stranger"])
def test_without_one_of_ours_it_is_not(secure: Running, authorities: tuple[Authority, Authority], who: str) -> None:
    ours, stranger = authorities
    with channel_of(secure, ours, stranger if who == "stranger" else None) as channel, pytest.raises(grpc.RpcError) as error:
        listed(channel)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]


def test_without_tls_there_is_no_way_in(secure: Running) -> None:
    with grpc.insecure_channel(secure.target) as channel, pytest.raises(grpc.RpcError) as error:
        listed(channel)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]


def test_health_tells_of_the_whole_and_of_each_service(secure: Running, authorities: tuple[Authority, Authority]) -> None:
    ours, _ = authorities
    with channel_of(secure, ours, ours) as channel:
        for name in ("", *SERVICES):
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name), timeout=30)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING, name


def test_reflection_names_every_service_where_it_is_on(secure: Running, authorities: tuple[Authority, Authority]) -> None:
    ours, _ = authorities
    with channel_of(secure, ours, ours) as channel:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        [answer] = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]), timeout=30)
    assert {service.name for service in answer.list_services_response.service} >= set(SERVICES)


def test_asked_to_end_a_door_answers_what_it_has_taken_and_tells_its_streams_to_go_elsewhere(
    secure: Running, authorities: tuple[Authority, Authority]
) -> None:
    ours, _ = authorities
    with channel_of(secure, ours, ours) as channel:
        watch = alert_pb2_grpc.AlertServiceStub(channel).WatchAlerts(alert_pb2.WatchAlertsRequest(), timeout=60)
        next(watch)  # it watches
        first = telemetry_pb2.Reading(tag_id="last", sensed_at_us=time.time_ns() // 1000, temperature_c=5.0)

        def messages() -> Iterator[telemetry_pb2.IngestRequest]:
            yield telemetry_pb2.IngestRequest(rows=telemetry_pb2.ReadingRows(readings=[first]))
            time.sleep(60)  # the stream stays open: it is the door that ends it

        stream = telemetry_pb2_grpc.TelemetryServiceStub(channel).Ingest(messages(), timeout=60)
        assert next(stream).accepted == 1
        door = secure.doors[0]
        os.kill(door.pid, signal.SIGTERM)
        for call in (stream, watch):
            with pytest.raises(grpc.RpcError) as error:
                next(call)
            assert error.value.code() == grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
        deadline = time.monotonic() + 15
        while door.alive():
            assert time.monotonic() < deadline, "the door does not end"
            time.sleep(0.05)
