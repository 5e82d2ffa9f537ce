"""What a door sends a shard, and what it answers. In a module of its own: a door need not load what judges readings."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from actors.journal.prepared import CommitResult
from actors.rules.readings import U1, Batch


@dataclass(slots=True)
class Part:
    """Readings of one or more gateway messages; their tag column is an index into `ids` (joined by newlines)."""

    ids: bytes
    batch: Batch


@dataclass(slots=True)
class IngestReply:
    """A status per reading of a part (readings.ACCEPTED, ...) and the newest event number known when it was durable. The first reply of a
    call has the events of its commit where these are few (prepared.CommitResult)."""

    status: U1
    last_event_number: int
    events: list[dict[str, Any]] = field(default_factory=list)


def replies(statuses: list[U1], last_event_number: int, committed: Future[CommitResult] | None) -> list[IngestReply]:
    """The answer to a call, at the newest event number known. `committed`: its commit, which is durable; None: it changed nothing."""
    events = []
    if committed is not None:
        result = committed.result()
        last_event_number, events = max(last_event_number, result.last_event), result.events
    return [IngestReply(status, last_event_number, [] if at else events) for at, status in enumerate(statuses)]


def pack(parts: Sequence[Part]) -> bytes:
    """The parts of one call. Ray carries bytes as they are; of anything else it makes a pickle in Python, at ten times the price."""
    return pickle.dumps(parts, pickle.HIGHEST_PROTOCOL)


def unpack(packed: bytes) -> list[Part]:
    """What `pack` was given."""
    parts: list[Part] = pickle.loads(packed)
    return parts
