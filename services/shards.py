"""Calling shards from a door: the outcome is an answer, a domain error, or the deadline; what may be called again is called again.

The directory (`actors.directory`) knows the shards; this module adds what a caller at the door needs: its deadline, and retries
with backoff while a shard is dead, moving or starting. Only calls that may be made twice are retried: readings carry their own
identity, queries change nothing, and a command is retried only where it surely did not run or carries a `request_id`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable
from typing import Any, Protocol

from ray.exceptions import RayActorError, RayError, RayTaskError

from actors.rules.errors import DomainError, Unavailable

BACKOFF_FIRST_S = 0.05
BACKOFF_MOST_S = 0.25
PATIENCE_S = 30.0
"""How long a call without a deadline waits for a shard that is away."""


class Shards(Protocol):
    """What a door needs of `actors.directory.Directory`."""

    @property
    def shards(self) -> int:
        """How many there are."""

    def call(self, shard: int, method: str, *arguments: Any) -> Awaitable[Any]:
        """Call a method of a shard; the awaitable gives its result or raises."""

    def forget(self, shard: int) -> None:
        """Look the shard up again at the next call."""


def now_us() -> int:
    """Our clock: microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def meaning_of(error: BaseException) -> BaseException:
    """What an error of a call to a shard means: the domain error raised there, Unavailable where the shard is away, else itself."""
    if isinstance(error, RayTaskError):
        cause = error.cause
        return cause if isinstance(cause, BaseException) else error
    if isinstance(error, RayActorError):
        return Unavailable("the shard is starting or moving")
    if isinstance(error, RayError):
        return Unavailable(f"the cluster could not carry the call: {type(error).__name__}")
    return error


class Backoff:
    """Waiting times that double, with jitter: 0.05 s to 0.25 s."""

    def __init__(self) -> None:
        self._next = BACKOFF_FIRST_S

    async def wait(self, until: float) -> bool:
        """Wait; False where the monotonic time `until` would pass."""
        pause = self._next * random.uniform(0.5, 1.0)
        self._next = min(2 * self._next, BACKOFF_MOST_S)
        if time.monotonic() + pause >= until:
            return False
        await asyncio.sleep(pause)
        return True


async def ask(shards: Shards, shard: int, method: str, *arguments: Any, remaining_s: float | None = None, again: bool = True) -> Any:
    """The result of a shard's method. `remaining_s`: the caller's deadline. `again`: the call may be made twice.

    Raises DomainError (Unavailable where the shard stays away past the deadline) or TimeoutError (the outcome is unknown).
    """
    until = time.monotonic() + (PATIENCE_S if remaining_s is None else remaining_s)
    backoff = Backoff()
    while True:
        try:
            async with asyncio.timeout(max(until - time.monotonic(), 0.001)):
                return await shards.call(shard, method, *arguments)
        except (DomainError, RayError) as error:
            meaning = meaning_of(error)
            if isinstance(error, RayActorError):
                shards.forget(shard)
            if not (isinstance(meaning, Unavailable) and again and await backoff.wait(until)):
                raise meaning from None
