"""The open custodies of a shard's tags as columns: a hundred thousand of them cost no objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from actors.tags.columns import grown

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

    def known(self, text: str) -> int:
        return self._numbers.get(text, NONE)


class Custodies:
    """By tag, at most one each. An OpenCustody that is given is a copy: `put` it to change it."""

    def __init__(self) -> None:
        self._custody_id = np.zeros(64, np.int64)
        self._from_us = np.zeros(64, np.int64)
        self._carrier = np.full(64, NONE, np.int32)
        self._unit = np.zeros(64, np.int32)
        self._carriers, self._units = _Names(), _Names()
        self._prior_us: dict[int, dict[str, int]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, tag: int) -> bool:
        return tag < len(self._carrier) and bool(self._carrier[tag] != NONE)

    def get(self, tag: int) -> OpenCustody | None:
        """The tag's open custody, None where it has none."""
        if tag not in self:
            return None
        return OpenCustody(
            int(self._custody_id[tag]),
            tag,
            self._carriers.texts[int(self._carrier[tag])],
            self._units.texts[int(self._unit[tag])],
            int(self._from_us[tag]),
            self._prior_us.get(tag, {}),
        )

    def __getitem__(self, tag: int) -> OpenCustody:
        found = self.get(tag)
        if found is None:
            raise KeyError(tag)
        return found

    def put(self, custody: OpenCustody) -> None:
        """The tag's open custody is this one."""
        tag = custody.tag
        self._carrier = grown(self._carrier, tag + 1, NONE)
        self._custody_id, self._from_us = grown(self._custody_id, tag + 1), grown(self._from_us, tag + 1)
        self._unit = grown(self._unit, tag + 1)
        self._count += tag not in self
        self._custody_id[tag], self._from_us[tag] = custody.custody_id, custody.from_us
        self._carrier[tag], self._unit[tag] = self._carriers.number(custody.carrier), self._units.number(custody.handling_unit)
        if custody.prior_us:
            self._prior_us[tag] = custody.prior_us
        else:
            self._prior_us.pop(tag, None)

    def pop(self, tag: int) -> OpenCustody:
        """The tag has no open custody any more; what it was."""
        custody = self[tag]
        self._carrier[tag] = NONE
        self._prior_us.pop(tag, None)
        self._count -= 1
        return custody

    def on(self, carrier: str) -> list[int]:
        """The tags on a carrier, in order."""
        number = self._carriers.known(carrier)
        return [] if number == NONE else np.flatnonzero(self._carrier == number).tolist()

    def items(self) -> Iterator[tuple[int, OpenCustody]]:
        """Every tag with its open custody."""
        for tag in np.flatnonzero(self._carrier != NONE).tolist():
            yield tag, self[tag]
