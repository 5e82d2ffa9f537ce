"""What one batch or command changed, gathered for one commit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from actors.journal.columns import Row
from actors.journal.prepared import Condition, EventDraft
from actors.tags.stated import StatedExcursion, StatedVisit


@dataclass(slots=True)
class RevisedExcursion:
    """A stated excursion with a new revision."""

    stated: StatedExcursion
    tag: int
    carrier: str
    handling_unit: str
    cause: str


@dataclass(slots=True)
class RevisedVisit:
    """A stated visit with a new revision."""

    stated: StatedVisit
    tag: int
    carrier: str
    cause: str


@dataclass(slots=True)
class Changes:
    """Revisions are kept by id: however often one excursion changes in a commit, it gets one revision."""

    excursions: dict[int, RevisedExcursion] = field(default_factory=dict)
    visits: dict[int, RevisedVisit] = field(default_factory=dict)
    conditions: list[Condition] = field(default_factory=list)
    events: list[EventDraft] = field(default_factory=list)
    inserts: list[Row] = field(default_factory=list)
    upserts: list[Row] = field(default_factory=list)
    expect: list[tuple[Any, tuple[Any, ...], int | None]] = field(default_factory=list)
    new_tags: list[int] = field(default_factory=list)

    def excursion(self, stated: StatedExcursion, tag: int, carrier: str, handling_unit: str, cause: str) -> None:
        """`stated` has changed for `cause`."""
        if stated.excursion_id not in self.excursions:
            stated.revision += 1
            self.excursions[stated.excursion_id] = RevisedExcursion(stated, tag, carrier, handling_unit, cause)

    def visit(self, stated: StatedVisit, tag: int, carrier: str, cause: str) -> None:
        """`stated` has changed for `cause`."""
        if stated.visit_id not in self.visits:
            stated.revision += 1
            self.visits[stated.visit_id] = RevisedVisit(stated, tag, carrier, cause)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (
            self.excursions or self.visits or self.conditions or self.events or self.inserts or self.upserts or self.expect or self.new_tags
        )
