"""What a door sends a shard. In a module of its own: a door that starts need not load what judges readings."""

from __future__ import annotations

from dataclasses import dataclass

from actors.rules.readings import Batch


@dataclass(slots=True)
class Part:
    """Readings of one or more gateway messages; their tag column is an index into `ids` (joined by newlines)."""

    ids: bytes
    batch: Batch
