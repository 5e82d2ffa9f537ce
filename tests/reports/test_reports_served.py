"""ReportService and the commands on a running Waybill: documents are signed, verified, and told apart from what changed afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from cluster.cli import main
from services.reports import seal
from tests.services.running import BEGIN_US, MINUTE_US, Client, at, refusal, shipment_with
from waybill.v1 import (
    alert_pb2,
    common_pb2,
    inventory_pb2,
    inventory_pb2_grpc,
    item_pb2,
    item_pb2_grpc,
    report_pb2,
    report_pb2_grpc,
    shipment_pb2,
)

if TYPE_CHECKING:
    from cluster.boot import Running

HTML, PDF, MESSAGE = report_pb2.REPORT_FORMAT_HTML, report_pb2.REPORT_FORMAT_PDF, report_pb2.REPORT_FORMAT_MESSAGE


@pytest.fixture(scope="module")
def client(waybill: Running) -> Client:
    return Client(waybill.target)


@pytest.fixture(scope="module")
def shipment_id(client: Client) -> str:
    """A delivered shipment with an excursion above 45 °C whose alert maria resolved."""
    made = shipment_with(client, "who-type-1", "report-1")
    client.send("report-1", [5.0] * 20 + [48.0] * 90 + [5.0] * 20, sequence=1)
    [raised] = client.watched(0, 1, alert_pb2.AlertFilter(shipment_id=made))
    alert = client.alerts.GetAlert(alert_pb2.GetAlertRequest(alert_id=raised.alert.alert_id), timeout=30).alert
    client.alerts.ResolveAlert(
        alert_pb2.ResolveAlertRequest(alert_id=alert.alert_id, etag=alert.etag, actor="maria", reason="stability data, QA-77"), timeout=30
    )
    delivered = shipment_pb2.Milestone(kind=shipment_pb2.MILESTONE_KIND_DELIVERED, time=at(BEGIN_US + 200 * MINUTE_US), actor="dock")
    client.shipments.RecordMilestone(shipment_pb2.RecordMilestoneRequest(shipment_id=made, milestone=delivered), timeout=30)
    return made


def main_said(arguments: list[str]) -> int:
    """Exit code of the command."""
    try:
        main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def fetched(
    client: Client, shipment_id: str, form: report_pb2.ReportFormat.ValueType
) -> tuple[bytes, report_pb2.GetShipmentReportResponse]:
    stub = report_pb2_grpc.ReportServiceStub(client.channel)
    pieces = list(stub.GetShipmentReport(report_pb2.GetShipmentReportRequest(shipment_id=shipment_id, format=form), timeout=60))
    return b"".join(piece.data for piece in pieces), pieces[0]


def verified(client: Client, document: bytes) -> report_pb2.VerifyShipmentReportResponse:
    stub = report_pb2_grpc.ReportServiceStub(client.channel)
    return stub.VerifyShipmentReport(report_pb2.VerifyShipmentReportRequest(document=document), timeout=60)


@pytest.mark.parametrize(("form", "media"), [(HTML, "text/html; charset=utf-8"), (PDF, "application/pdf")])
def test_a_document_is_signed_and_verifies(client: Client, shipment_id: str, form: report_pb2.ReportFormat.ValueType, media: str) -> None:
    data, first = fetched(client, shipment_id, form)
    assert (first.media_type, first.total_bytes, first.signed) == (media, len(data), True)
    answer = verified(client, data)
    assert (answer.intact, answer.signature, answer.same_data, answer.same_judgement) == (
        True,
        report_pb2.SIGNATURE_STATE_VALID,
        True,
        True,
    )
    assert (answer.shipment_id, answer.verdict, list(answer.differences)) == (shipment_id, common_pb2.VERDICT_EXCURSION, [])
    stub = report_pb2_grpc.ReportServiceStub(client.channel)
    assert stub.GetReportKey(report_pb2.GetReportKeyRequest(), timeout=30).key_fingerprint == answer.key_fingerprint


def test_the_message_holds_what_the_decision_rests_on(client: Client, shipment_id: str) -> None:
    found = report_pb2.ShipmentReport.FromString(fetched(client, shipment_id, MESSAGE)[0])
    assert found.exposure.excursions == len(found.excursions) > 0
    [alert] = found.alerts
    assert [(one.actor, one.text) for one in alert.history if one.actor] == [("maria", "stability data, QA-77")]
    assert [one.tag_id for one in found.custodies] == ["report-1"]
    assert {one.kind for one in found.digests} >= {"readings", "custodies", "plan", "excursions", "alerts", "profiles"}
    [readings] = [one for one in found.digests if one.kind == "readings"]
    assert readings.count == 130
    assert found.profiles[0].profile.profile_id == "who-type-1"
    [line] = found.lines
    assert (max(line.values), line.total) == (48.0, 130)


def test_holds_of_the_lots_it_carries_are_in_it_with_who_and_why(client: Client) -> None:
    item_pb2_grpc.ItemServiceStub(client.channel).CreateItem(
        item_pb2.CreateItemRequest(item=item_pb2.Item(item_id="report-item", name="Vaccine", unit="EA")), timeout=30
    )
    unit = shipment_pb2.HandlingUnit(handling_unit_id="report-unit", kind="pallet")
    unit.lots.add(item_id="report-item", lot_number="L-7", quantity="10", unit="EA")
    made = client.shipments.CreateShipment(
        shipment_pb2.CreateShipmentRequest(shipment=shipment_pb2.Shipment(profile_id="who-type-1", handling_units=[unit])), timeout=30
    ).shipment
    stock = inventory_pb2_grpc.InventoryServiceStub(client.channel)
    stock.PlaceHold(
        inventory_pb2.PlaceHoldRequest(item_id="report-item", lot_number="L-7", actor="ana", reason="label smudged"), timeout=30
    )
    found = report_pb2.ShipmentReport.FromString(fetched(client, made.shipment_id, MESSAGE)[0])
    [hold] = found.holds
    assert (hold.lot_number, hold.state, [step.actor for step in hold.history]) == ("L-7", inventory_pb2.HOLD_STATE_ACTIVE, ["ana"])
    page = fetched(client, made.shipment_id, HTML)[0].decode()
    for said in ("1 lot on hold or blocked", "label smudged", "placed a hold", "waits for a decision", "ana"):
        assert said in page


def test_what_changes_afterwards_is_named_and_is_no_forgery(client: Client, shipment_id: str) -> None:
    data, _ = fetched(client, shipment_id, HTML)
    client.send("report-1", [47.0], from_us=BEGIN_US + 25 * MINUTE_US + 1)  # a late reading, inside the excursion
    answer = verified(client, data)
    assert (answer.intact, answer.signature) == (True, report_pb2.SIGNATURE_STATE_VALID)
    assert not answer.same_data
    assert any(line.startswith("readings of report-1 custody") and line.endswith("130 then, 131 today") for line in answer.differences)
    assert verified(client, fetched(client, shipment_id, HTML)[0]).same_data


def test_a_forged_document_is_caught(client: Client, shipment_id: str) -> None:
    data, _ = fetched(client, shipment_id, HTML)
    forged = data.replace(b">Excursion<", b">Harmless!<", 1)
    assert len(forged) == len(data) != 0
    assert not verified(client, forged).intact
    report = seal.opened(data).report
    other = seal.sealed(lambda blank: data.split(b"<!-- WAYBILL-SEAL:")[0] + blank, report, seal.private_key(seal.new_key()))
    assert verified(client, other).signature == report_pb2.SIGNATURE_STATE_VALID_OTHER_KEY
    unsigned = seal.sealed(lambda blank: b"a page " + blank, report, None)
    assert verified(client, unsigned).signature == report_pb2.SIGNATURE_STATE_UNSIGNED


def test_refusals_name_the_field(client: Client) -> None:
    stub = report_pb2_grpc.ReportServiceStub(client.channel)
    ask = report_pb2.GetShipmentReportRequest
    code = grpc.StatusCode
    assert refusal(lambda: list(stub.GetShipmentReport(ask(shipment_id="x"), timeout=9)))[::2] == (code.INVALID_ARGUMENT, "format")
    assert refusal(lambda: list(stub.GetShipmentReport(ask(shipment_id="x", format=HTML), timeout=9)))[::2] == (
        code.NOT_FOUND,
        "shipment_id",
    )
    assert refusal(lambda: verified(client, b"some page"))[::2] == (code.INVALID_ARGUMENT, "document")


def test_the_commands_write_and_verify(
    waybill: Running, shipment_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ["--server", waybill.target]
    page, paper, told = tmp_path / "r.html", tmp_path / "r.pdf", tmp_path / "r.json"
    assert main_said(["shipment", "report", shipment_id, "--html", str(page), "--pdf", str(paper), "--json", str(told), *server]) == 0
    assert json.loads(told.read_text())["shipment"]["shipment_id"] == shipment_id
    assert main_said(["report", "verify", str(paper), *server]) == 0
    capsys.readouterr()
    key = waybill.settings.signing_key
    assert main_said(["report", "verify", str(page), "--offline", "--public-key", str(key)]) == 0
    assert "every byte is what was sealed" in capsys.readouterr().out
    page.write_bytes(page.read_bytes().replace(b"maria", b"mario"))
    assert main_said(["report", "verify", str(page), *server]) == 1
    assert "changed after it was sealed" in capsys.readouterr().out
    assert main_said(["report", "verify", str(told), *server]) == 2
    assert main_said(["shipment", "report", shipment_id, *server]) == 2
    assert main_said(["keys", "make", "--file", str(key)]) == 2
    assert "never replaced" not in capsys.readouterr().err
