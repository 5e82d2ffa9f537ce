"""Sends a file's readings to Waybill and keeps the account; makes a shipment for its tags where that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.client import Client, Outgoing, Problem, timestamp
from cluster.importers.base import Bad, Item, Parser, UnusableFile
from cluster.importers.gather import Account, gather
from waybill.v1 import shipment_pb2, telemetry_pb2

BATCH_READINGS = 5_000
ACTOR = "waybill import"


@dataclass(frozen=True)
class Journey:
    """The shipment to make: the tags of the files ride on it over [from_us, until_us).

    from_us None: each tag from its first reading; until_us None: the journey is not over.
    """

    shipment_id: str
    profile_id: str
    from_us: int | None = None
    until_us: int | None = None


def import_file(
    client: Client, path: Path, parser: Parser, *, prefix: str = "", progress: Callable[[Account], None] = lambda account: None
) -> Account:
    """Sends what the file has. `progress` is called after every answered batch. Raises Problem where the server refuses or stays away."""
    account = Account(str(path))
    for message, answer in client.ingest(_messages(path, parser, account, prefix)):
        _tally(account, message, answer)
        progress(account)
    return account


def scan(path: Path, parser: Parser, *, prefix: str = "") -> dict[str, tuple[int, int]]:
    """The tags of a file with the times of their first and last readings; none where it is unusable. Nothing is sent."""
    account = Account(str(path))
    for _ in gather(_usable(path, parser, account), account, size=BATCH_READINGS, prefix=prefix):
        pass
    return account.tags


def begin_journey(client: Client, journey: Journey, tags: dict[str, tuple[int, int]]) -> bool:
    """Creates the shipment and puts the tags on it. False: it was there already, and has these tags now too. Raises Problem."""
    shipment = shipment_pb2.Shipment(shipment_id=journey.shipment_id, profile_id=journey.profile_id)
    created = True
    try:
        client.call(client.shipments.CreateShipment, shipment_pb2.CreateShipmentRequest(shipment=shipment))
    except Problem as problem:
        if problem.reason != "ALREADY_EXISTS":
            raise
        created = False
    for tag_id, (first_us, _) in tags.items():
        request = shipment_pb2.AssignTagRequest(shipment_id=journey.shipment_id, tag_id=tag_id, actor=ACTOR)
        request.from_time.CopyFrom(timestamp(first_us if journey.from_us is None else journey.from_us))
        if journey.until_us is not None:
            request.until_time.CopyFrom(timestamp(journey.until_us))
        client.call(client.shipments.AssignTag, request)
    if created and tags:
        departed_us = min(first for first, _ in tags.values()) if journey.from_us is None else journey.from_us
        _record(client, journey.shipment_id, shipment_pb2.MILESTONE_KIND_DEPARTED, departed_us)
        if journey.until_us is not None:
            _record(client, journey.shipment_id, shipment_pb2.MILESTONE_KIND_DELIVERED, journey.until_us)
    return created


def _record(client: Client, shipment_id: str, kind: shipment_pb2.MilestoneKind.ValueType, at_us: int) -> None:
    milestone = shipment_pb2.Milestone(kind=kind, time=timestamp(at_us), actor=ACTOR)
    client.call(client.shipments.RecordMilestone, shipment_pb2.RecordMilestoneRequest(shipment_id=shipment_id, milestone=milestone))


def _messages(path: Path, parser: Parser, account: Account, prefix: str) -> Iterator[Outgoing]:
    for gathered in gather(_usable(path, parser, account), account, size=BATCH_READINGS, prefix=prefix):
        yield Outgoing(gathered.tag_ids, gathered.batch, token=gathered.lines)


def _usable(path: Path, parser: Parser, account: Account) -> Iterator[Item]:
    """Items up to where the file cannot be used any more; what came before is kept."""
    try:
        yield from parser(path)
    except UnusableFile as error:
        account.unusable = str(error)


def _tally(account: Account, message: Outgoing, answer: telemetry_pb2.IngestResponse) -> None:
    lines: list[int] = message.token
    account.accepted += answer.accepted
    account.duplicate += answer.duplicate
    account.conflicting += [lines[index] for index in answer.conflicting_indexes]
    reasons: dict[int, list[str]] = {}
    for refusal in answer.refusals:
        reasons.setdefault(refusal.index, []).append(f"{refusal.field} {refusal.rule} (got {refusal.value})")
    for index in answer.refused_indexes:
        account.refused.append(Bad(lines[index], "; ".join(reasons.get(index, ["refused by the server"]))))
