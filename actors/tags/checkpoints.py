"""The checkpoints of a shard's tags, within a bound of bytes: what late readings have not asked for in a long time goes first.

A checkpoint spares reading a tag's history from its custody's start. Without one a late reading is judged just so, only slower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actors.rules._compile import compiled
from actors.rules.readings import I4, I8, U1
from actors.tags.columns import MIN_US, grown
from actors.tags.records import U2, Records, Rows

if TYPE_CHECKING:
    from actors.tags.head import Head

SLOT_BYTES = 4 + 8 + 1 + 4 + 2
"""What a place takes besides its record."""

_ASKED, _GOING = 1, 2
"""Of a place: its checkpoint was read or made since the hand came by; it is on its way out."""

_NOTHING = 0
"""A place without a record: rows that have seen nothing are read from it."""

Bools = Any


class CheckpointStore:
    """See the module. The row of a tag names the place of its checkpoint."""

    def __init__(self, head: Head, bytes_bound: int) -> None:
        self._head = head
        self.bytes_bound = bytes_bound
        self.records = Records()
        self.tag: I4 = np.full(1, -1, np.int32)  # whose each place is, -1: free
        self._until_us: I8 = np.full(1, MIN_US, np.int64)
        self._asked: U1 = np.zeros(1, np.uint8)
        self._places = 1
        self._free: list[int] = []
        self._hand = 0

    @property
    def bytes(self) -> int:
        """What the checkpoints take."""
        return self.records.bytes_live + SLOT_BYTES * (self._places - len(self._free))

    @property
    def full(self) -> bool:
        """Whether there is hardly room for a further one."""
        return self.bytes > self.bytes_bound - self.bytes_bound // 16

    def that_fit(self, tags: I4, records: Records) -> Bools:
        """Which of these may have their `records` kept without driving out another: those that have a checkpoint, and others for which
        there is room.
        """
        fit: Bools = self._head.tags["checkpoint"][tags] >= 0
        each = SLOT_BYTES + records.bytes_live // max(len(tags), 1)
        room = max(0, self.bytes_bound - self.bytes) // each
        fit[np.flatnonzero(~fit)[:room]] = True
        return fit

    def until_us(self, tags: I4) -> I8:
        """The sensed time up to which each tag's checkpoint holds every reading, MIN_US where it has none."""
        places = self._head.tags["checkpoint"][tags]
        until_us: I8 = np.where(places >= 0, self._until_us[np.maximum(places, 0)], MIN_US)
        return until_us

    def read(self, tags: I4, use: Bools) -> Rows:
        """Rows of the tags' checkpoints where `use`; as read from no record where not (see `Head.refresh`)."""
        rows = self._head.tags[tags]
        places = np.where(use, rows["checkpoint"], _NOTHING).astype(np.int32)
        self._asked[places] = _ASKED
        return self.records.read(places, rows["shape"], rows["custody_from_us"], self._head.rulebook.shapes)

    def put(self, tags: I4, rows: Rows, until_us: I8) -> None:
        """Keep `rows` as the tags' checkpoints, which hold every reading up to `until_us`."""
        places = self._places_of(tags, until_us)
        self.records.write(places, self._head.tags["custody_from_us"][tags], rows)
        self._asked[places] = _ASKED
        if self.bytes > self.bytes_bound:
            self._make_room()

    def put_records(self, tags: I4, records: Records, positions: I4, until_us: I8) -> None:
        """The same with records as they are; nobody asked for these."""
        self.records.put(self._places_of(tags, until_us), records, positions)
        if self.bytes > self.bytes_bound:
            self._make_room()

    def _places_of(self, tags: I4, until_us: I8) -> I4:
        places: I4 = self._head.tags["checkpoint"][tags]
        new = np.flatnonzero(places < 0)
        if len(new):
            places[new] = self._take(len(new))
            self._head.tags["checkpoint"][tags] = places
            self.tag[places] = tags
        self._until_us[places] = until_us
        return places

    def drop(self, tag: int) -> None:
        """The tag has no checkpoint any more."""
        place = int(self._head.tags["checkpoint"][tag])
        if place >= 0:
            self._head.tags["checkpoint"][tag] = -1
            self.records.drop(place)
            self.tag[place], self._asked[place] = -1, 0
            self._free.append(place)

    def drop_all(self, tags: I4) -> None:
        """The tags have no checkpoints any more."""
        places = self._head.tags["checkpoint"][tags]
        places = places[places >= 0]
        self._head.tags["checkpoint"][tags] = -1
        self.records.drop_all(places)
        self.tag[places], self._asked[places] = -1, 0
        self._free.extend(places.tolist())

    def _take(self, count: int) -> I4:
        again = [self._free.pop() for _ in range(min(count, len(self._free)))]
        first, self._places = self._places, self._places + count - len(again)
        self.tag, self._until_us = grown(self.tag, self._places), grown(self._until_us, self._places)
        self._asked = grown(self._asked, self._places)
        return np.array([*again, *range(first, self._places)], np.int32)

    def _make_room(self) -> None:
        """Drop what was not asked for since the hand last came by, until the rest is within the bound."""
        gone = np.empty(self._places, np.int32)
        over = self.bytes - self.bytes_bound
        count, self._hand = _sweep(self.tag[: self._places], self._asked, self.records.room, over, SLOT_BYTES, self._hand, gone)
        self.drop_all(self.tag[gone[:count]])

    def dump(self) -> dict[str, Any]:
        """State for a snapshot."""
        places = self._places
        return {
            "records": self.records.dump(places), "tag": self.tag[:places].copy(), "until_us": self._until_us[:places].copy(),
            "free": self._free,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Back from `dump`."""
        self.records.restore(state["records"])
        self.tag, self._until_us, self._free = state["tag"], state["until_us"], state["free"]
        self._places = len(self.tag)
        self._asked = np.zeros(self._places, np.uint8)


@compiled
def _sweep(tag: I4, asked: U1, room: U2, over: int, slot_bytes: int, hand: int, gone: I4) -> tuple[int, int]:
    """The clock's hand goes round at most twice, from place `hand` on; returns how many places it names in `gone`, and where it stands."""
    count = 0
    for _ in range(2 * len(tag)):
        if over <= 0:
            break
        if asked[hand] == _ASKED:
            asked[hand] = 0
        elif tag[hand] >= 0 and asked[hand] != _GOING:
            asked[hand] = _GOING
            gone[count] = hand
            count += 1
            over -= slot_bytes + 8 * int(room[hand])
        hand = hand + 1 if hand + 1 < len(tag) else 0
    return count, hand
