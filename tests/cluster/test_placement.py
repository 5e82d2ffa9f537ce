"""Shards are dealt out over the nodes that may work."""

from __future__ import annotations

from collections import Counter
from typing import Any

from cluster.placement import placement


def node(name: str, cpus: float, *, alive: bool = True) -> dict[str, Any]:
    return {"NodeID": name.encode().hex().zfill(56), "Alive": alive, "Resources": {"CPU": cpus} if cpus else {}}


def places(shards: int, nodes: list[dict[str, Any]]) -> Counter[str]:
    found = [placement(number, nodes)["scheduling_strategy"] for number in range(shards)]
    assert all(place.soft for place in found)
    return Counter(bytes.fromhex(place.node_id).lstrip(b"\0").decode() for place in found)


def test_every_node_gets_its_share() -> None:
    assert places(8, [node("c", 4), node("a", 2), node("b", 2)]) == {"a": 3, "b": 3, "c": 2}


def test_nodes_without_cpus_and_dead_ones_get_none() -> None:
    assert places(4, [node("head", 0), node("a", 2), node("gone", 8, alive=False)]) == {"a": 4}


def test_where_nothing_else_lives_the_head_serves() -> None:
    assert places(2, [node("head", 0)]) == {"head": 2}
