"""What a door sends a shard, and what it answers. In a module of its own: a door need not load what judges readings."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass

from actors.rules.readings import U1, Batch


@dataclass(slots=True)
class Part:
    """Readings of one or more gateway messages; their tag column is an index into `ids` (joined by newlines)."""

    ids: bytes
    batch: Batch


@dataclass(slots=True)
class IngestReply:
    """A status per reading of a part (readings.ACCEPTED, ...) and the newest event number known when it was durable."""

    status: U1
    last_event_number: int


def pack(parts: Sequence[Part]) -> bytes:
    """The parts of one call. Ray carries bytes as they are; of anything else it makes a pickle in Python, at ten times the price."""
    return pickle.dumps(parts, pickle.HIGHEST_PROTOCOL)


def unpack(packed: bytes) -> list[Part]:
    """What `pack` was given."""
    parts: list[Part] = pickle.loads(packed)
    return parts
