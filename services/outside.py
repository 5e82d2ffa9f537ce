"""What the outbox and those who deliver for it agree on: messages, what becomes of them, and how systems outside fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol


class OutsideError(Exception):
    """A system outside did not do what it was asked. The text says what and why, and holds no credential."""


class Away(OutsideError):
    """It is away, slow, overloaded, or something else answers in its place: the same may succeed later. Nobody's fault."""


class LockedOut(OutsideError):
    """It does not let us in, or not do this: nothing will work until a person has mended that."""


class Refused(OutsideError):
    """It understood and said no: trying the same again is of no use."""


class Failed(OutsideError):
    """It failed in a way that it does not explain: worth some more attempts, not endless ones."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the outbox (see actors.journal.tables_stock.Outbox). `attempts`: how often it has been tried before."""

    sequence: int
    key: str
    kind: str
    body: Mapping[str, Any]
    attempts: int = 0


class Done(Enum):
    """What became of a message that was delivered."""

    BOOKED = "booked"
    NOTHING_TO_DO = "nothing to do"


Outcome = Done | Refused | Failed
"""Of one message. What concerns all that follow is raised: Away, LockedOut."""


class Receiver(Protocol):
    """A system outside that takes messages."""

    def deliver(self, messages: Sequence[Message]) -> Iterator[Outcome]:
        """Make messages take effect in their order; an outcome for each as soon as it is known. A message may have been delivered before:
        its key tells. Raises Away or LockedOut for the first that has no outcome and all after it."""

    def close(self) -> None:
        """Let go of connections."""
