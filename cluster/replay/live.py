"""Archived journeys played into another running system, over its gRPC contract, in the order in which their readings were sensed.

The profiles, shipments and custodies are made there first; then readings go at the recorded pace times a speed, in batches of what is
due. All times are moved by one offset, so that the last reading is sensed when it is sent, whatever the speed: no reading comes from the
future, and the intervals between readings stay what they were.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actors.rules import readings
from actors.rules.plan import Plan
from actors.rules.readings import Batch
from cluster.archive.reader import Part
from cluster.client import Client, Outgoing, timestamp
from cluster.replay import by_time
from cluster.replay.by_time import Ordered, Source
from cluster.replay.journeys import load, plan_of
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


def play(
    client: Client, parts: Sequence[Mapping[str, Any]], speed: float, *, prefix: str = "replay-", only: frozenset[str] | None = None,
    progress: Callable[[int, int], None] | None = None, now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
) -> Played:  # fmt: skip
    """Play the journeys of some parts. Raises Problem where the other system refuses what is made there."""
    played = Played()
    shipments, custodies, tag_ids, sources = _plan([Part.of(row) for row in parts], prefix, only)
    with tempfile.TemporaryDirectory(prefix="waybill-live-") as folder:
        found = by_time.order(sources, Path(folder))
        if not found.count:
            return played
        span_us = found.last_us - found.first_us
        offset_us = now_us() + round(span_us / speed) - found.last_us  # the last one is sensed when it is sent
        _make(client, shipments, custodies, prefix, offset_us)
        played.shipments, played.span_s = len(shipments), span_us / 1e6
        _send(client, found, tag_ids, speed, offset_us, played, progress)
    _close(client, shipments, custodies, prefix, offset_us, now_us())
    return played


def _send(
    client: Client, found: Ordered, tag_ids: list[str], speed: float, offset_us: int, played: Played,
    progress: Callable[[int, int], None] | None,
) -> None:  # fmt: skip
    """Send all readings, each when it is due."""
    started = time.perf_counter()

    def due() -> Iterator[Outgoing]:
        for batch in found.batches():
            at = 0
            while at < len(batch):
                passed_us = (time.perf_counter() - started) * 1e6 * speed
                until = int(np.searchsorted(batch.sensed_us, found.first_us + passed_us, "right"))
                if until == at:
                    time.sleep(EVERY_S)
                    continue
                until = min(until, at + MOST_A_BATCH)
                played.behind_s = max(played.behind_s, (passed_us - (int(batch.sensed_us[at]) - found.first_us)) / speed / 1e6)
                yield _outgoing(batch, tag_ids, at, until, offset_us)
                played.sent += until - at
                at = until
                if progress is not None:
                    progress(played.sent, found.count)

    for _, answer in client.ingest(due()):
        played.accepted += answer.accepted
        played.duplicate += answer.duplicate
        played.refused += answer.refused
    played.elapsed_s = time.perf_counter() - started


def _plan(
    parts: Sequence[Part], prefix: str, only: frozenset[str] | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str], list[Source]]:
    """The shipments, the custodies that stand, the ids of their tags there, and where their readings are."""
    shipments: list[dict[str, Any]] = []
    custodies: list[dict[str, Any]] = []
    tags: dict[str, int] = {}
    sources = []
    for part in parts:
        journeys = load(part, only)
        rides = journeys.rides
        if not len(rides):
            continue
        shipments += [{"shipment_id": row["shipment_id"], "rules": row["rules"]} for row in journeys.shipments]
        facts = zip(
            journeys.custodies["carrier"], journeys.custodies["tag_id"], rides.from_us.tolist(), rides.until_us.tolist(), strict=True
        )
        custodies += [{"carrier": carrier, "tag_id": tag_id, "from_at": low, "until_at": high} for carrier, tag_id, low, high in facts]
        tag = np.array([tags.setdefault(prefix + one, len(tags)) for one in journeys.custodies["tag_id"]], np.int32)
        sources.append(Source(part, journeys.ranges(0, len(rides)), np.repeat(tag, np.diff(rides.start))))
    return shipments, custodies, list(tags), sources


def _outgoing(batch: Batch, tag_ids: list[str], low: int, high: int, offset_us: int) -> Outgoing:
    part = readings.subset(batch, slice(low, high))
    used, tag = np.unique(part.tag, return_inverse=True)
    moved = Batch(tag.astype(np.int32), part.sensed_us + offset_us, part.boot, part.sequence, part.codes, part.values)
    return Outgoing([tag_ids[at] for at in used.tolist()], moved)


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
