"""The open custodies of a shard's tags as columns: a hundred thousand of them cost no objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.rules.readings import FOREVER_US, I4

if TYPE_CHECKING:
    from actors.tags.head import Head

NONE = -1


@dataclass(slots=True)
class OpenCustody:
    """A custody that has no end yet. `prior_us`: time in violation by limit id in the tag's earlier custodies on the same carrier."""

    custody_id: int
    tag: int
    carrier: str
    handling_unit: str
    from_us: int
    prior_us: dict[str, int]


class _Names:
    """Texts as small numbers."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        known = self._numbers.get(text)
        if known is None:
            known = self._numbers[text] = len(self.texts)
            self.texts.append(text)
        return known


class Custodies:
    """By tag, at most one each, in the columns of the tags' rows. An OpenCustody that is given is a copy: `put` it to change it."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._units = _Names()
        self._units.number("")
        self._prior_us: dict[int, dict[str, int]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, tag: int) -> bool:
        return tag < self._head.size and bool(self._head.tags["carrier"][tag] != NONE)

    def get(self, tag: int) -> OpenCustody | None:
        """The tag's open custody, None where it has none."""
        if tag not in self:
            return None
        row = self._head.tags[tag]
        return OpenCustody(
            int(row["custody_id"]),
            tag,
            self._head.rulebook.name_of(int(row["carrier"])),
            self._units.texts[int(row["unit"])],
            int(row["custody_from_us"]),
            self._prior_us.get(tag, {}),
        )

    def __getitem__(self, tag: int) -> OpenCustody:
        found = self.get(tag)
        if found is None:
            raise KeyError(tag)
        return found

    def put(self, custody: OpenCustody) -> None:
        """The tag's open custody is this one. Its carrier is in the rulebook."""
        tag = custody.tag
        self._count += tag not in self
        row = self._head.tags[tag]
        row["custody_id"], row["custody_from_us"] = custody.custody_id, custody.from_us
        row["carrier"], row["unit"] = self._head.rulebook.carriers[custody.carrier].number, self._units.number(custody.handling_unit)
        if custody.prior_us:
            self._prior_us[tag] = custody.prior_us
        else:
            self._prior_us.pop(tag, None)

    def pop(self, tag: int) -> OpenCustody:
        """The tag has no open custody any more; what it was."""
        custody = self[tag]
        row = self._head.tags[tag]
        row["carrier"], row["unit"], row["custody_from_us"] = NONE, 0, FOREVER_US
        self._prior_us.pop(tag, None)
        self._count -= 1
        return custody

    def on(self, carrier: str) -> list[int]:
        """The tags on a carrier, in order."""
        known = self._head.rulebook.carriers.get(carrier)
        return [] if known is None else np.flatnonzero(self._carriers == known.number).tolist()

    def items(self) -> Iterator[tuple[int, OpenCustody]]:
        """Every tag with its open custody."""
        for tag in np.flatnonzero(self._carriers != NONE).tolist():
            yield tag, self[tag]

    @property
    def priors(self) -> dict[int, dict[str, int]]:
        """`prior_us` of the custodies that have any, by tag."""
        return self._prior_us

    @property
    def _carriers(self) -> I4:
        carriers: I4 = self._head.tags["carrier"][: self._head.size]
        return carriers

    def dump(self) -> dict[str, Any]:
        """What the tags' rows do not hold, for a snapshot."""
        return {"units": self._units.texts, "prior_us": self._prior_us}

    def restore(self, state: dict[str, Any]) -> None:
        """Back from `dump`; the tags' rows are there."""
        for text in state["units"]:
            self._units.number(text)
        self._prior_us = state["prior_us"]
        self._count = int((self._carriers != NONE).sum())
