"""What the tests on recordings share: the command line in this process, and shipments for many tags."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from cluster.cli import main
from cluster.cli.common import err, out
from cluster.client import Client, timestamp
from waybill.v1 import common_pb2, shipment_pb2

COUNTS = re.compile(
    r"([\d,]+) rows read, ([\d,]+) readings sent of ([\d,]+) tags: ([\d,]+) accepted, ([\d,]+) duplicate, "
    r"([\d,]+) conflicting, ([\d,]+) refused; ([\d,]+) bad rows"
)


def waybill_command(*arguments: object) -> int:
    """Runs `waybill ARGUMENTS` in this process, on a wide terminal, and gives its exit code."""
    out.width = err.width = 160
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def waybill_output(*arguments: object) -> str:
    """Runs `waybill ARGUMENTS`, which must succeed, and gives what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert waybill_command(*arguments) == 0
    return printed.getvalue()


def counts(printed: str) -> list[dict[str, int]]:
    """What `waybill import` printed as its account, one for each file."""
    names = ("rows", "sent", "tags", "accepted", "duplicate", "conflicting", "refused", "bad")
    return [
        dict(zip(names, (int(number.replace(",", "")) for number in found.groups()), strict=True)) for found in COUNTS.finditer(printed)
    ]


def shipment_for_each_tag(client: Client, tag_ids: Iterable[str], from_us: int, fences: Iterable[common_pb2.Geofence] = ()) -> None:
    """One shipment a tag, with the same id, since `from_us`."""
    watched = list(fences)

    def make(tag_id: str) -> None:
        shipment = shipment_pb2.Shipment(shipment_id=tag_id, geofences=watched)
        client.call(client.shipments.CreateShipment, shipment_pb2.CreateShipmentRequest(shipment=shipment))
        request = shipment_pb2.AssignTagRequest(shipment_id=tag_id, tag_id=tag_id, from_time=timestamp(from_us))
        client.call(client.shipments.AssignTag, request)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, tag_ids))


def track(client: Client, shipment_id: str) -> shipment_pb2.GetTrackResponse:
    """Where a shipment has been."""
    return client.call(client.shipments.GetTrack, shipment_pb2.GetTrackRequest(shipment_id=shipment_id))
