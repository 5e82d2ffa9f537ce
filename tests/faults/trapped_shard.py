"""The product's shard with the harness's trap in its process."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import ray

from actors.journal import store as journal_store
from actors.shard import Shard, ShardConfig
from tests.faults.planted import SHARD, Traps, install

genuine: Any = Shard.__ray_metadata__.modified_class


@ray.remote(max_concurrency=32, concurrency_groups={"ask": 8, "command": 8, "look": 2})
class TrappedShard(genuine):  # type: ignore[misc]
    """See `actors.shard.Shard`. On SQLite the trap kills some moments after a commit was given to the committer, and freezes just before:
    a frozen owner holds a commit that it will give when it is thawed."""

    def __init__(self, number: int, config: ShardConfig, traps: str) -> None:
        mine = Traps(Path(traps))
        install(mine, SHARD + number)
        _trap_on_the_way(mine, SHARD + number)
        super().__init__(number, config)


def _trap_on_the_way(traps: Traps, index: int) -> None:
    give = journal_store.CommitterStore._submit

    def submit(self: Any, payload: Any) -> Any:
        entry = getattr(payload, "journal", None)
        due = entry is not None and entry.kind == "readings"
        if due and traps.to_freeze(index):
            traps.spring(index)
        future = give(self, payload)
        if due and traps.armed(index):
            threading.Timer(0.002, traps.spring, (index,)).start()
        return future

    journal_store.CommitterStore._submit = submit  # type: ignore[method-assign]
