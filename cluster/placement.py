"""Which node of a joined Ray cluster a shard runs on."""

from __future__ import annotations

from typing import Any

from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

SOME_BYTES = 1 << 20
"""Asked for of a node's memory, only to ask for something: an actor that asks for nothing Ray puts on a node drawn by lot, whatever its
strategy says (2.60: SPREAD and a soft affinity alike)."""


def placement(number: int, nodes: list[dict[str, Any]]) -> dict[str, Any]:
    """Shard `number`'s place among `ray.nodes()`: one after the other over those that may work (a node of no CPUs is there for doors or for
    Ray's head, and takes shards only where there is nothing else), as options of its actor.

    Soft: a shard whose node died is made again on another.
    """
    living = [node for node in nodes if node["Alive"]]
    working = [node for node in living if node["Resources"].get("CPU", 0) > 0] or living
    names = sorted(str(node["NodeID"]) for node in working)
    return {"memory": SOME_BYTES, "scheduling_strategy": NodeAffinitySchedulingStrategy(names[number % len(names)], soft=True)}
