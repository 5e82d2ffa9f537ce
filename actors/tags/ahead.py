"""Reading ahead: what closed custodies of many tags are judged by is asked of the database once, not tag by tag.

Late readings of a fleet that was offline lie in the closed custodies of hundreds of tags of one call. While such a call is judged the
database does not change in what is read here: whatever the call states is in its changes. So the answers are those that each tag
would get by itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from actors.journal.tables import CarrierPlan, Custody, Excursion, Exposure, Visit
from actors.rules import neighbours, readings
from actors.rules.readings import I4, I8, Batch
from actors.tags.past import until_of
from actors.tags.ring import rows_of

if TYPE_CHECKING:
    from actors.sensor_tag import SensorTags

TAGS_AT_ONCE = 64
"""So many tags are read ahead at a time; with READINGS_HELD this bounds what is held."""

READINGS_AT_ONCE, READINGS_HELD = 1 << 16, 1 << 18
"""About so many readings are read in one go, and held. What would be more each tag reads when it is judged."""


class _Span(NamedTuple):
    """The time of which a tag's readings are asked for, and about how many it has in a microsecond."""

    from_us: int
    until_us: int
    tag: int
    rate: float


@dataclass(slots=True)
class _Answers:
    """What was read, by tag or custody. A key that is not there was not asked."""

    custodies: dict[str, list[Custody]] = field(default_factory=dict)
    excursions: dict[int, list[Excursion]] = field(default_factory=dict)
    visits: dict[int, list[Visit]] = field(default_factory=dict)
    exposures: dict[int, list[Exposure]] = field(default_factory=dict)
    plans: dict[str, CarrierPlan | None] = field(default_factory=dict)
    readings: dict[int, tuple[int, int, Batch]] = field(default_factory=dict)


class Ahead:
    """Answers as `Reads` does, from what was read ahead where it holds the answer."""

    def __init__(self, tags: SensorTags) -> None:
        self.tags = tags
        self._read: _Answers | None = None

    @contextmanager
    def reading(self, tags: I4, from_us: I8) -> Iterator[None]:
        """For the time of this context, read ahead what judging the tags' closed custodies that end after `from_us` asks for."""
        try:
            if len(tags):
                self._read = _Answers()
                self._read_ahead(self._read, tags, from_us)
            yield
        finally:
            self._read = None

    # ---------------------------------------------------------------- answers

    def custodies(self, tag_id: str) -> list[Custody]:
        """See Reads, of one tag."""
        known = None if self._read is None else self._read.custodies.get(tag_id)
        return self.tags.reads.custodies([tag_id]) if known is None else known

    def excursions(self, custody_id: int) -> list[Excursion]:
        """See Reads, of one custody."""
        known = None if self._read is None else self._read.excursions.get(custody_id)
        return self.tags.reads.excursions([custody_id]) if known is None else known

    def visits(self, custody_id: int) -> list[Visit]:
        """See Reads, of one custody."""
        known = None if self._read is None else self._read.visits.get(custody_id)
        return self.tags.reads.visits([custody_id]) if known is None else known

    def exposures(self, custody_ids: list[int]) -> list[Exposure]:
        """See Reads."""
        known = {} if self._read is None else self._read.exposures
        if not all(number in known for number in custody_ids):
            return self.tags.reads.exposures(custody_ids)
        return [row for number in sorted(custody_ids) for row in known[number]]

    def plan(self, carrier: str) -> CarrierPlan | None:
        """See Reads."""
        if self._read is None:
            return self.tags.reads.plan(carrier)
        if carrier not in self._read.plans:
            self._read.plans[carrier] = self.tags.reads.plan(carrier)
        return self._read.plans[carrier]

    def history(self, tags: list[int], from_us: int, until_us: int) -> tuple[I4, Batch]:
        """See Reads."""
        known = self._read.readings.get(tags[0]) if self._read is not None and len(tags) == 1 else None
        if known is None or from_us < known[0] or until_us > known[1]:
            return self.tags.reads.history(tags, from_us, until_us)
        batch = known[2]
        inside = readings.subset(batch, (batch.sensed_us >= from_us) & (batch.sensed_us < until_us))
        return np.zeros(len(inside), np.int32), inside

    # ---------------------------------------------------------------- reading

    def _read_ahead(self, read: _Answers, tags: I4, from_us: I8) -> None:
        reads, ids = self.tags.reads, self.tags.ids
        names = {tag: ids[tag] for tag in tags.tolist()}
        read.custodies = _by(reads.custodies(list(names.values())), "tag_id", names.values())
        judged: dict[int, list[Custody]] = {}
        summed: list[int] = []
        for tag, low_us in zip(tags.tolist(), from_us.tolist(), strict=True):
            closed = [row for row in read.custodies[names[tag]] if row.until_us is not None]
            judged[tag] = [row for row in closed if until_of(row) > low_us]
            carriers = {row.carrier for row in judged[tag]}
            summed += [row.custody_id for row in closed if row.carrier in carriers]  # what they add up on
        stated = [row.custody_id for mine in judged.values() for row in mine]
        read.excursions = _by(reads.excursions(stated), "custody_id", stated)
        read.visits = _by(reads.visits(stated), "custody_id", stated)
        read.exposures = _by(reads.exposures(summed), "custody_id", summed)
        self._read_readings(read, list(self._far(judged, read, names)))

    def _far(self, judged: dict[int, list[Custody]], read: _Answers, names: dict[int, str]) -> Iterator[_Span]:
        """The spans of the tags' judged custodies of which the ring does not hold all readings."""
        spans = []
        for tag, mine in judged.items():
            if not mine:
                continue
            low_us, high_us = mine[0].from_us, max(map(until_of, mine))
            settings, row = self.tags.quality.get(tag), self.tags.head.tags[tag]
            if settings is not None:  # its flags look further: at first so far
                low_us = max(low_us - neighbours.longest_us(settings) - neighbours.FIRST_US, 0)
                high_us += neighbours.FIRST_US
            lived_us = int(row["newest_us"]) - read.custodies[names[tag]][0].from_us
            spans.append(_Span(low_us, high_us, tag, int(row["accepted"]) / max(lived_us, high_us - low_us, 1)))
        if not spans:
            return
        rows = self.tags.head.tags[np.array([span.tag for span in spans])]
        begins, ends = (np.array([span[at] for span in spans], np.int64) for at in (0, 1))
        complete = rows_of(self.tags.ring, rows, begins, ends)[2]
        yield from (span for span, whole in zip(spans, complete.tolist(), strict=True) if not whole)

    def _read_readings(self, read: _Answers, spans: list[_Span]) -> None:
        """Read those spans together that lie near each other, as far as they may be held."""
        held = 0.0
        group: list[_Span] = []
        for span in [*sorted(spans), None]:
            wider = group if span is None else [*group, span]
            if group and (span is None or _weight(wider) > READINGS_AT_ONCE):
                held += _weight(group)
                if held > READINGS_HELD:
                    return
                self._read_group(read, group)
                wider = [] if span is None else [span]
            group = wider

    def _read_group(self, read: _Answers, group: list[_Span]) -> None:
        low_us, high_us = group[0].from_us, max(span.until_us for span in group)
        position, batch = self.tags.reads.history([span.tag for span in group], low_us, high_us)
        order = np.argsort(position, kind="stable")  # each tag's stay in journal order
        edges = np.searchsorted(position[order], np.arange(len(group) + 1)).tolist()
        for at, span in enumerate(group):
            mine = readings.subset(batch, order[edges[at] : edges[at + 1]])
            read.readings[span.tag] = low_us, high_us, mine


def _weight(group: list[_Span]) -> float:
    """About how many readings a read of these spans, sorted, as one finds."""
    return (max(span.until_us for span in group) - group[0].from_us) * sum(span.rate for span in group)


def _by(rows: list[Any], name: str, keys: Any) -> Any:
    """Rows by a column of theirs, in their order; a key that has none has an empty list."""
    found: dict[Any, list[Any]] = defaultdict(list)
    for row in rows:
        found[getattr(row, name)].append(row)
    return {key: found[key] for key in keys}
