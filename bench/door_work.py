"""What a door does with a message of columns, without gRPC and the calls: `python -m bench.door_work [tags in a message]`.

Sixteen messages of 10,000 readings are decoded, put together and dealt to four shards; the best of some turns is told, in nanoseconds
a reading. With 10,000 tags in a message every reading names another one.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from actors.rules.readings import Batch
from cluster.client import encode_columns
from services import wire
from services.deal import split, together
from services.shards import now_us
from services.tag_ids import shards_of

READINGS, MESSAGES, SHARDS, TURNS = 10_000, 16, 4, 20
STEPS = ("decode", "put together", "find the shards", "deal")


def message(gateway: int, tags: int) -> bytes:
    """Readings of three metrics, each tag's in turn."""
    ids = [f"tag-{gateway:03d}-{one:06d}" for one in range(tags)]
    each = np.arange(READINGS, dtype=np.int64)
    values = np.random.default_rng(gateway).random((3, READINGS)).round(2)
    return encode_columns(
        ids, Batch((each % tags).astype(np.int32), now_us() - 1_000_000 + each, each * 0 + 1, each // tags, (0, 1, 2), values)
    )


def turn(messages: list[bytes]) -> list[float]:
    """Seconds of each step."""
    times = [time.perf_counter()]
    decoded = [one for one in wire.decode_together(messages, now_us()) if isinstance(one, wire.Decoded)]
    assert sum(len(one.batch) for one in decoded) == READINGS * MESSAGES
    times.append(time.perf_counter())
    ids, batch = together([(one.ids, one.batch) for one in decoded])
    times.append(time.perf_counter())
    shard_of_tag = shards_of(ids, SHARDS)
    times.append(time.perf_counter())
    split(ids, batch, shard_of_tag)
    times.append(time.perf_counter())
    return np.diff(times).tolist()


def main() -> None:
    """Measure and print."""
    tags = int(sys.argv[1]) if len(sys.argv) > 1 else READINGS
    messages = [message(gateway, tags) for gateway in range(MESSAGES)]
    turn(messages)
    best = np.min([turn(messages) for _ in range(TURNS)], axis=0) * 1e9 / (READINGS * MESSAGES)
    for step, nanoseconds in zip(STEPS, best.tolist(), strict=True):
        print(f"{step:16} {nanoseconds:5.0f} ns a reading")
    print(f"{'all':16} {best.sum():5.0f} ns a reading, {tags:,} tags in a message of {READINGS:,} readings")


if __name__ == "__main__":
    main()
