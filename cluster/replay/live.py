"""Archived journeys played into another running system, over its gRPC contract, in the order in which their readings were sensed.

The profiles, shipments and custodies are made there first; then readings go at the recorded pace times a speed, in batches of what is
due. All times are moved by one offset, so that the last reading is sensed when it is sent, whatever the speed: no reading comes from the
future, and the intervals between readings stay what they were.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from actors.rules import readings
from actors.rules.plan import Plan
from actors.rules.readings import COLUMNS, Batch
from cluster.archive import reader
from cluster.archive.reader import Part
from cluster.client import Client, Outgoing, timestamp
from cluster.replay.journeys import plan_of
from services import records
from waybill.v1 import profile_pb2, shipment_pb2

EVERY_S = 0.1
"""Readings are sent so often, with all that is due."""
MOST_A_BATCH = 10_000


@dataclass(slots=True)
class Played:
    """What was played. behind_s: how much later than due a batch was sent, at most."""

    shipments: int = 0
    sent: int = 0
    accepted: int = 0
    duplicate: int = 0
    refused: int = 0
    elapsed_s: float = 0.0
    span_s: float = 0.0
    behind_s: float = 0.0


@dataclass(slots=True)
class _Readings:
    """All readings that are played, in the order of their sensed times."""

    batch: Batch
    tag_ids: list[str]


def play(
    client: Client, parts: Sequence[Mapping[str, Any]], speed: float, *, prefix: str = "replay-", only: frozenset[str] | None = None,
    progress: Callable[[int, int], None] | None = None, now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
) -> Played:  # fmt: skip
    """Play the journeys of some parts. Raises Problem where the other system refuses what is made there."""
    played = Played()
    shipments, custodies, found = _load([Part.of(row) for row in parts], prefix, only)
    if not len(found.batch):
        return played
    first, last = int(found.batch.sensed_us[0]), int(found.batch.sensed_us[-1])
    span_us = last - first
    offset_us = now_us() + round(span_us / speed) - last  # the last one is sensed when it is sent
    _make(client, shipments, custodies, prefix, offset_us)
    played.shipments, played.span_s = len(shipments), span_us / 1e6
    started = time.perf_counter()
    total = len(found.batch)

    def due() -> Iterator[Outgoing]:
        at = 0
        while at < total:
            passed_us = (time.perf_counter() - started) * 1e6 * speed
            until = int(np.searchsorted(found.batch.sensed_us, first + passed_us, "right"))
            if until == at:
                time.sleep(EVERY_S)
                continue
            until = min(until, at + MOST_A_BATCH)
            played.behind_s = max(played.behind_s, (passed_us - (int(found.batch.sensed_us[at]) - first)) / speed / 1e6)
            yield _outgoing(found, at, until, offset_us)
            at = until
            played.sent = at
            if progress is not None:
                progress(at, total)

    for _, answer in client.ingest(due()):
        played.accepted += answer.accepted
        played.duplicate += answer.duplicate
        played.refused += answer.refused
    played.elapsed_s = time.perf_counter() - started
    _close(client, shipments, custodies, prefix, offset_us, now_us())
    return played


def _load(parts: Sequence[Part], prefix: str, only: frozenset[str] | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]], _Readings]:
    """The shipments, the custodies that stand, and all their readings in order."""
    shipments: list[dict[str, Any]] = []
    custodies: list[dict[str, Any]] = []
    batches: list[Batch] = []
    tags: dict[str, int] = {}
    for part in parts:
        mine = [row for row in part.rows("shipments") if only is None or row["shipment_id"] in only]
        carriers = {row["carrier"] for row in mine}
        rides = [row for row in part.rows("custodies") if row["carrier"] in carriers and not row["retracted"]]
        if not rides:
            continue
        shipments += mine
        custodies += rides
        batches.append(_batch(part, rides, tags, prefix))
    if not batches:
        none = np.zeros(0, np.int64)
        return shipments, custodies, _Readings(Batch(none.astype(np.int32), none, none, none, (), np.zeros((0, 0))), [])
    whole = readings.concatenate(batches)
    order = np.argsort(whole.sensed_us, kind="stable")
    return shipments, custodies, _Readings(readings.subset(whole, order), list(tags))


def _batch(part: Part, rides: list[dict[str, Any]], tags: dict[str, int], prefix: str) -> Batch:
    columns = ["sensed_at", "boot", "sequence", *(column.name for column in COLUMNS)]
    table = part.table("readings", columns)
    rows = np.concatenate([np.arange(row["first_row"], row["first_row"] + row["readings"]) for row in rides]).astype(np.int64)
    table = table.take(rows)
    codes = tuple(code for code, column in enumerate(COLUMNS) if table.column(column.name).null_count < table.num_rows)
    tag = [np.full(row["readings"], tags.setdefault(prefix + row["tag_id"], len(tags)), np.int32) for row in rides]
    return Batch(
        np.concatenate(tag), reader.integers(table.column("sensed_at")), reader.integers(table.column("boot")),
        reader.integers(table.column("sequence")), codes, reader.values(table, codes),
    )  # fmt: skip


def _outgoing(found: _Readings, low: int, high: int, offset_us: int) -> Outgoing:
    part = readings.subset(found.batch, slice(low, high))
    used, tag = np.unique(part.tag, return_inverse=True)
    moved = Batch(tag.astype(np.int32), part.sensed_us + offset_us, part.boot, part.sequence, part.codes, part.values)
    return Outgoing([found.tag_ids[at] for at in used.tolist()], moved)


# ---------------------------------------------------------------- what is made in the other system


def _make(
    client: Client, shipments: Sequence[Mapping[str, Any]], custodies: Sequence[Mapping[str, Any]], prefix: str, offset_us: int
) -> None:
    """Profiles, shipments and custodies, open from the moved beginnings on. Repeated with the same prefix, it is as if done once."""
    profiles: dict[str, str] = {}
    for row in shipments:
        plan = plan_of(row["rules"])
        profile = _profile(plan)
        key = profile.SerializeToString(deterministic=True).hex()
        if profile.limits and key not in profiles:
            profiles[key] = profile.profile_id = f"{prefix}{hashlib.sha256(key.encode()).hexdigest()[:12]}"
            request = profile_pb2.CreateProfileRequest(profile=profile, request_id=profile.profile_id)
            client.call(client.profiles.CreateProfile, request)
        fences = [records.geofence({"name": "", **asdict(fence), "fence_id": fence.fence_id.replace("/", "-")}) for fence in plan.fences]
        shipment = shipment_pb2.Shipment(shipment_id=prefix + row["shipment_id"], profile_id=profiles.get(key, ""), geofences=fences)
        request_id = f"{prefix}{row['shipment_id']}"[:64]
        client.call(client.shipments.CreateShipment, shipment_pb2.CreateShipmentRequest(shipment=shipment, request_id=request_id))
    for custody in custodies:
        client.call(client.shipments.AssignTag, _assignment(custody, prefix, offset_us))


def _assignment(custody: Mapping[str, Any], prefix: str, offset_us: int) -> shipment_pb2.AssignTagRequest:
    return shipment_pb2.AssignTagRequest(
        shipment_id=prefix + custody["carrier"].removeprefix("shipment/"), tag_id=prefix + custody["tag_id"],
        from_time=timestamp(custody["from_at"] + offset_us), actor="replay",
    )  # fmt: skip


def _close(
    client: Client, shipments: Sequence[Mapping[str, Any]], custodies: Sequence[Mapping[str, Any]], prefix: str, offset_us: int, now: int
) -> None:
    """The custodies end where they did, at latest now, and the shipments are delivered."""
    last: dict[str, int] = {}
    for custody in custodies:
        shipment_id = prefix + custody["carrier"].removeprefix("shipment/")
        until_us = min(custody["until_at"] + offset_us, now)
        last[shipment_id] = max(until_us, last.get(shipment_id, 0))
        request = shipment_pb2.ReleaseTagRequest(
            shipment_id=shipment_id, tag_id=prefix + custody["tag_id"], until_time=timestamp(until_us), actor="replay"
        )
        client.call(client.shipments.ReleaseTag, request)
    for shipment_id, until_us in last.items():
        said = shipment_pb2.Milestone(kind=shipment_pb2.MILESTONE_KIND_DELIVERED, time=timestamp(until_us), actor="replay")
        client.call(
            client.shipments.RecordMilestone,
            shipment_pb2.RecordMilestoneRequest(shipment_id=shipment_id, milestone=said, request_id=f"{shipment_id}-delivered"[:64]),
        )


def _profile(plan: Plan) -> profile_pb2.Profile:
    """The newest rule of each limit, without stages: nobody plays the milestones."""
    newest = plan.profiles[-1] if plan.profiles else None
    made = profile_pb2.Profile(name=newest.name if newest else "replay")
    for mine in plan.limits.values():
        if mine:
            made.limits.append(records.limit(dataclasses.replace(mine[-1].limit, stages=())))
    if newest is not None:
        made.max_gap_s, made.ignore_s = newest.max_gap_us / 1e6, newest.ignore_us / 1e6
    return made
