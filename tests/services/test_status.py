"""Every domain error has one row in the table, and what a caller gets names reason, field, value and rule."""

from __future__ import annotations

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, ResourceInfo, RetryInfo

import services.feed  # noqa: F401  (brings in all that raise)
from actors.rules import errors
from services.status import TABLE, SlowConsumer, status_of


def all_kinds(kind: type[errors.DomainError] = errors.DomainError) -> set[type[errors.DomainError]]:
    return {kind}.union(*(all_kinds(below) for below in kind.__subclasses__()))


def test_every_domain_error_has_a_row_of_its_own() -> None:
    ours = {kind for kind in all_kinds() if kind.__module__.split(".")[0] in ("actors", "services", "cluster")}
    assert ours - {errors.DomainError} == set(TABLE)


def test_reasons_are_unique_and_stable_words() -> None:
    reasons = [kind.reason for kind in TABLE]
    assert len(set(reasons)) == len(reasons)
    assert all(reason.isupper() and reason.replace("_", "").isalpha() for reason in reasons)


EXPECTED = [
    (errors.InvalidArgument, "INVALID_ARGUMENT", grpc.StatusCode.INVALID_ARGUMENT, BadRequest),
    (errors.NotFound, "NOT_FOUND", grpc.StatusCode.NOT_FOUND, ResourceInfo),
    (errors.AlreadyExists, "ALREADY_EXISTS", grpc.StatusCode.ALREADY_EXISTS, ResourceInfo),
    (errors.StaleEtag, "STALE_ETAG", grpc.StatusCode.ABORTED, None),
    (errors.FailedPrecondition, "FAILED_PRECONDITION", grpc.StatusCode.FAILED_PRECONDITION, PreconditionFailure),
    (errors.CustodyOverlap, "CUSTODY_OVERLAP", grpc.StatusCode.FAILED_PRECONDITION, PreconditionFailure),
    (errors.OutOfRange, "OUT_OF_RANGE", grpc.StatusCode.OUT_OF_RANGE, BadRequest),
    (errors.Overloaded, "OVERLOADED", grpc.StatusCode.RESOURCE_EXHAUSTED, RetryInfo),
    (SlowConsumer, "SLOW_CONSUMER", grpc.StatusCode.RESOURCE_EXHAUSTED, RetryInfo),
    (errors.StorageFull, "STORAGE_FULL", grpc.StatusCode.RESOURCE_EXHAUSTED, RetryInfo),
    (errors.Unavailable, "UNAVAILABLE", grpc.StatusCode.UNAVAILABLE, RetryInfo),
    (errors.Superseded, "SUPERSEDED", grpc.StatusCode.UNAVAILABLE, RetryInfo),
]


@pytest.mark.parametrize(("kind", "reason", "code", "detail"), EXPECTED, ids=[row[1] for row in EXPECTED])
def test_the_table_says_what_the_contract_says(
    kind: type[errors.DomainError], reason: str, code: grpc.StatusCode, detail: type | None
) -> None:
    status = status_of(kind("must be so", field="tag_id", value="x", retry_after_s=2.5))
    assert status.code == code.value[0]
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain, dict(info.metadata)) == (reason, "waybill", {"field": "tag_id", "value": "x"})
    assert [packed.TypeName() for packed in status.details[1:]] == ([detail.DESCRIPTOR.full_name] if detail else [])  # type: ignore[attr-defined]
    if detail is BadRequest:
        bad = BadRequest()
        status.details[1].Unpack(bad)
        assert [(each.field, each.description) for each in bad.field_violations] == [("tag_id", "must be so")]
    if detail is RetryInfo:
        again = RetryInfo()
        status.details[1].Unpack(again)
        assert again.retry_delay.ToMilliseconds() == 2500


def test_an_error_that_does_not_say_when_to_try_again_gets_a_default() -> None:
    again = RetryInfo()
    status_of(errors.Unavailable("away")).details[1].Unpack(again)
    assert again.retry_delay.ToMilliseconds() > 0
