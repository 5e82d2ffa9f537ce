"""From items of a parser to batches of columns, and the account of what became of every row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from actors.rules.readings import CODE, Batch
from cluster.importers.base import Bad, Item, Reading, Remark


@dataclass
class Account:
    """What became of the rows of a file. Every reading that was read ends in exactly one of the last four (or in `unsent`)."""

    path: str
    read: int = 0
    bad: list[Bad] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    remarks: list[Remark] = field(default_factory=list)
    accepted: int = 0
    duplicate: int = 0
    conflicting: list[int] = field(default_factory=list)
    refused: list[Bad] = field(default_factory=list)
    tags: dict[str, tuple[int, int]] = field(default_factory=dict)
    """First and last sensed time by tag."""
    unusable: str = ""

    @property
    def unsent(self) -> int:
        """Readings without an answer; not 0 only where the import was broken off."""
        return self.read - self.accepted - self.duplicate - len(self.conflicting) - len(self.refused)


@dataclass(frozen=True)
class Gathered:
    """A batch to send: `batch.tag` indexes `tag_ids`; `lines[i]` is where reading i came from."""

    tag_ids: list[str]
    batch: Batch
    lines: list[int]


def gather(items: Iterable[Item], account: Account, *, size: int = 5000, prefix: str = "") -> Iterator[Gathered]:
    """Batches of `size` readings in file order; everything else goes into the account. `prefix` goes before each tag's id."""
    pending: list[Reading] = []
    for item in items:
        if isinstance(item, Reading):
            account.read += 1
            tag = prefix + item.tag_id
            first, last = account.tags.get(tag, (item.sensed_us, item.sensed_us))
            account.tags[tag] = (min(first, item.sensed_us), max(last, item.sensed_us))
            pending.append(item)
            if len(pending) == size:
                yield to_columns(pending, prefix)
                pending = []
        elif isinstance(item, Bad):
            account.bad.append(item)
        elif isinstance(item, Remark):
            account.remarks.append(item)
        else:
            account.skipped[item.kind] += 1
    if pending:
        yield to_columns(pending, prefix)


def to_columns(readings: list[Reading], prefix: str = "") -> Gathered:
    """Readings as a batch of columns (at least one reading is given)."""
    index: dict[str, int] = {}
    tag = np.fromiter((index.setdefault(prefix + reading.tag_id, len(index)) for reading in readings), np.int32, len(readings))
    codes = tuple(sorted({CODE[name] for reading in readings for name in reading.values}))
    row = {code: place for place, code in enumerate(codes)}
    values = np.full((len(codes), len(readings)), np.nan)
    for place, reading in enumerate(readings):
        for name, value in reading.values.items():
            values[row[CODE[name]], place] = value
    batch = Batch(
        tag,
        np.array([reading.sensed_us for reading in readings], np.int64),
        np.array([reading.boot for reading in readings], np.int64),
        np.array([reading.sequence for reading in readings], np.int64),
        codes,
        values,
    )
    return Gathered(list(index), batch, [reading.line for reading in readings])
