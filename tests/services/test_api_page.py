"""docs/api.md is true: its example, taken from the page alone, creates a shipment, streams readings and receives the alert."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.rpc.error_details_pb2 import ErrorInfo

from services.door import SERVICES
from services.status import DOMAIN, TABLE
from waybill.v1 import tag_pb2, tag_pb2_grpc

if TYPE_CHECKING:
    from cluster.boot import Running

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def channel(waybill: Running) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(waybill.target) as made:
        yield made


def test_the_pages_example_leads_from_a_shipment_to_its_acknowledged_alert(
    channel: grpc.Channel, capsys: pytest.CaptureFixture[str]
) -> None:
    example = PAGE.split("<!-- example: begin -->")[1].split("<!-- example: end -->")[0]
    names: dict[str, Any] = {"channel": channel}
    for block in BLOCK.findall(example):
        exec(compile(block, "docs/api.md", "exec"), names)
    told = capsys.readouterr().out
    assert "rows 4 accepted 0 refused" in told
    assert "columns 4 accepted 0 refused" in told
    assert "ALERT_STATE_OPEN" in told
    assert "VERDICT_EXCURSION" in told
    assert names["alert"].acknowledged_by == "docs"


def test_the_pages_reader_of_errors_names_reason_field_and_rule(channel: grpc.Channel) -> None:
    [block] = [block for block in BLOCK.findall(PAGE) if "def explain" in block]
    names: dict[str, Any] = {"grpc": grpc}
    exec(compile(block, "docs/api.md", "exec"), names)
    with pytest.raises(grpc.RpcError) as error:
        tag_pb2_grpc.TagServiceStub(channel).GetTag(tag_pb2.GetTagRequest(), timeout=30)
    assert names["explain"](error.value) == "INVALID_ARGUMENT INVALID_ARGUMENT: tag_id: must be given"


def test_the_page_names_every_call_and_which_side_streams() -> None:
    section = PAGE.split("## Every call")[1].split("\n## ")[0]
    named = {
        service: dict(re.findall(r"`(\w+)`( [↑↓]+)?", calls))
        for service, calls in re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE)
    }
    contract = [descriptor_pool.Default().FindServiceByName(service) for service in SERVICES]
    assert named == {
        service.name: {
            method.name: (" " if method.client_streaming or method.server_streaming else "")
            + "↑" * method.client_streaming
            + "↓" * method.server_streaming
            for method in service.methods
        }
        for service in contract
    }


def test_the_pages_table_of_errors_is_the_table_that_is_applied() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| `([A-Z_]+)` \|", PAGE, re.MULTILINE))
    assert rows == {kind.reason: wire.code.name for kind, wire in TABLE.items()}
    assert f"domain `{DOMAIN}`" in PAGE
    assert ErrorInfo.DESCRIPTOR.name in PAGE


def test_the_contracts_table_of_errors_is_the_same() -> None:
    contract = (Path(__file__).parents[2] / "protos/waybill/v1/common.proto").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^// {3}([A-Z_]+) +status ([A-Z_]+)", contract, re.MULTILINE))
    assert rows == {kind.reason: wire.code.name for kind, wire in TABLE.items()}
