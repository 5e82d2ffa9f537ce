"""ReportService: release documents of shipments, sealed, and whether a document still tells the truth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import DecodeError

from actors.journal import queries_business as queries
from actors.rules.errors import FailedPrecondition, InvalidArgument, NotFound
from services import check
from services.backend import Backend, Context
from services.reports import compare, facts, html, release, seal
from services.shards import now_us
from waybill.v1 import report_pb2, report_pb2_grpc

PIECE_BYTES = 1 << 20
DOCUMENT_BYTES_MAX = 15 << 20
AT_ONCE = 1
"""Documents that a door writes at a time: more would keep it from its streams."""
MEDIA = {
    report_pb2.REPORT_FORMAT_HTML: "text/html; charset=utf-8",
    report_pb2.REPORT_FORMAT_PDF: "application/pdf",
    report_pb2.REPORT_FORMAT_MESSAGE: "application/x-protobuf; messageType=waybill.v1.ShipmentReport",
    report_pb2.REPORT_FORMAT_JSON: "application/json",
}


class Reports(report_pb2_grpc.ReportServiceServicer):
    """See report.proto. `key`: what this system signs with."""

    def __init__(self, backend: Backend, key: Ed25519PrivateKey | None) -> None:
        self._backend = backend
        self._key = key
        self._writing = asyncio.Semaphore(AT_ONCE)

    async def GetShipmentReport(
        self, request: report_pb2.GetShipmentReportRequest, context: Context
    ) -> AsyncIterator[report_pb2.GetShipmentReportResponse]:
        """The document in pieces."""
        if request.format not in MEDIA:
            raise InvalidArgument("must name a format", field="format", value=request.format)
        report = await self._report(check.text(request.shipment_id, "shipment_id", required=True), context)
        async with self._writing:
            data = await asyncio.to_thread(written, report, request.format, self._key)
        sealed = request.format in (report_pb2.REPORT_FORMAT_HTML, report_pb2.REPORT_FORMAT_PDF)
        for start in range(0, len(data), PIECE_BYTES):
            piece = report_pb2.GetShipmentReportResponse(data=data[start : start + PIECE_BYTES])
            if not start:
                piece.media_type, piece.total_bytes = MEDIA[request.format], len(data)
                piece.signed = sealed and self._key is not None
            yield piece

    async def VerifyShipmentReport(
        self, request: report_pb2.VerifyShipmentReportRequest, context: Context
    ) -> report_pb2.VerifyShipmentReportResponse:
        """Opens the seal, computes the report anew, compares."""
        if len(request.document) > DOCUMENT_BYTES_MAX:
            raise InvalidArgument("must be at most 15 MiB", field="document", value=f"{len(request.document)} bytes")
        try:
            found = await asyncio.to_thread(seal.opened, request.document)
            then = report_pb2.ShipmentReport.FromString(found.report)
        except seal.NotSealed as error:
            raise InvalidArgument(str(error), field="document") from None
        except DecodeError:
            raise InvalidArgument("its seal holds no report", field="document") from None
        now = await self._report(then.shipment.shipment_id, context)
        changed, shown = compare.data(then, now), compare.judgement(then, now)
        return report_pb2.VerifyShipmentReportResponse(
            intact=found.intact,
            signature=self._state(found),
            key_fingerprint=found.fingerprint,
            same_data=not changed,
            same_judgement=not shown,
            differences=[*changed, *shown],
            shipment_id=then.shipment.shipment_id,
            made_time=then.made_time,
            verdict=then.exposure.verdict,
            software_then=then.software,
            software_now=now.software,
        )

    async def GetReportKey(self, request: report_pb2.GetReportKeyRequest, context: Context) -> report_pb2.GetReportKeyResponse:
        """The public half."""
        if self._key is None:
            raise FailedPrecondition("this system signs nothing: make a key with `waybill keys make`", field="report_key")
        public = self._key.public_key()
        return report_pb2.GetReportKeyResponse(public_key_pem=seal.public_pem(public), key_fingerprint=self._fingerprint())

    def _fingerprint(self) -> str:
        return "" if self._key is None else seal.fingerprint(seal.public_bytes(self._key.public_key()))

    def _state(self, found: seal.Seal) -> report_pb2.SignatureState.ValueType:
        if found.public_key is None:
            return report_pb2.SIGNATURE_STATE_UNSIGNED
        if not found.genuine:
            return report_pb2.SIGNATURE_STATE_INVALID
        ours = found.fingerprint == self._fingerprint()
        return report_pb2.SIGNATURE_STATE_VALID if ours else report_pb2.SIGNATURE_STATE_VALID_OTHER_KEY

    async def _report(self, shipment_id: str, context: Context) -> report_pb2.ShipmentReport:
        record = await self._backend.read(queries.shipment, shipment_id)
        if record is None:
            raise NotFound("no such shipment", field="shipment_id", value=shipment_id)
        return await facts.gather(self._backend, record, now_us(), context)


def written(report: report_pb2.ShipmentReport, form: int, key: Ed25519PrivateKey | None) -> bytes:
    """A report in one of its forms; HTML and PDF sealed."""
    if form == report_pb2.REPORT_FORMAT_MESSAGE:
        return report.SerializeToString(deterministic=True)
    if form == report_pb2.REPORT_FORMAT_JSON:
        return MessageToJson(report, preserving_proto_field_name=True, ensure_ascii=False).encode()
    signer = "" if key is None else seal.fingerprint(seal.public_bytes(key.public_key()))
    document = release.document(report, signer)
    made = datetime.fromtimestamp(report.made_time.seconds, UTC)

    def make(blank: bytes) -> bytes:
        if form == report_pb2.REPORT_FORMAT_HTML:
            return html.render(document, blank)
        from services.reports import pdf  # a door that writes no PDF never pays for loading fpdf2

        return pdf.render(document, blank, made)

    return seal.sealed(make, report.SerializeToString(deterministic=True), key)
