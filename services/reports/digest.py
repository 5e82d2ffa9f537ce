"""Digests over the data that a report was computed from (report.proto, DataDigest, says how in words).

A digest depends on the data alone: not on which columns a batch happens to carry, or the order of rows in the database.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from actors.rules.readings import COLUMNS, Batch
from waybill.v1 import report_pb2


def of_readings(name: str, batch: Batch, flags: npt.NDArray[np.uint8]) -> report_pb2.DataDigest:
    """Of readings in judging order; `flags` are (len(batch.codes), n)."""
    made = hashlib.sha256()
    for column in (batch.sensed_us, batch.boot, batch.sequence):
        made.update(np.ascontiguousarray(column, "<i8").tobytes())
    for code, values, flag in sorted(zip(batch.codes, batch.values, flags, strict=True), key=lambda row: COLUMNS[row[0]].name):
        absent = np.isnan(values)
        if absent.all():
            continue
        made.update(COLUMNS[code].name.encode() + b"\0")
        made.update(np.where(absent, np.nan, values).astype("<f8").tobytes())
        made.update(np.where(absent, np.uint8(9), flag).astype(np.uint8).tobytes())
    return report_pb2.DataDigest(kind="readings", name=name, count=len(batch), sha256=made.digest())


def of_messages(kind: str, messages: Iterable[Message]) -> report_pb2.DataDigest:
    """Of records in the order given."""
    return of_data(kind, (MessageToDict(one, preserving_proto_field_name=True) for one in messages))


def of_data(kind: str, records: Iterable[dict[str, object]]) -> report_pb2.DataDigest:
    """Of records that JSON can hold, in the order given."""
    made, count = hashlib.sha256(), 0
    for one in records:
        made.update(json.dumps(one, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode() + b"\n")
        count += 1
    return report_pb2.DataDigest(kind=kind, count=count, sha256=made.digest())


def of_all(digests: Iterable[report_pb2.DataDigest]) -> bytes:
    """One number over all the parts."""
    lines = (f"{one.kind} {one.name} {one.count} {one.sha256.hex()}\n" for one in digests)
    return hashlib.sha256("".join(lines).encode()).digest()
