"""Whose turn it is: live readings before backlog, and in each the sources in turn, so that one that sends much starves nobody."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Queues by source, for live readings and for backlog. `take` gives each source that waits one message at a time, round and round."""

    def __init__(self) -> None:
        self._live: dict[str, deque[tuple[T, int]]] = {}
        self._backlog: dict[str, deque[tuple[T, int]]] = {}

    def __bool__(self) -> bool:
        return bool(self._live or self._backlog)

    def put(self, item: T, source: str, backlog: bool, readings: int) -> None:
        """Queue a message of so many readings."""
        queues = self._backlog if backlog else self._live
        queues.setdefault(source, deque()).append((item, readings))

    @property
    def first(self) -> T:
        """The message whose turn is next. Something must wait."""
        queues = self._live or self._backlog
        return next(iter(queues.values()))[0][0]

    def take(self, live_max: int, backlog_max: int) -> list[T]:
        """The next messages: live ones up to so many readings, then backlog up to so many, at least one of each that waits."""
        return [*self._some(self._live, live_max), *self._some(self._backlog, backlog_max)]

    @staticmethod
    def _some(queues: dict[str, deque[tuple[T, int]]], room: int) -> list[T]:
        taken: list[T] = []
        while queues:
            source, queue = next(iter(queues.items()))
            if taken and queue[0][1] > room:
                break
            item, readings = queue.popleft()
            taken.append(item)
            room -= readings
            del queues[source]
            if queue:
                queues[source] = queue  # behind the others
        return taken
