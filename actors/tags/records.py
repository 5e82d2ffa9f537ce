"""The judged state of many tags, packed: what a tag's TRACK and VISIT rows do not share with what is to be expected of them.

Hundreds of thousands of tags ride, and few of them are judged in any one moment. So the rows that the kernels move (128 bytes a limit, 64 a
fence) are made for the tags of a batch and packed again behind it: bit for bit the same, in a quarter of the room.

A record is a line of 8-byte words: one mask of 16 bits for each row of the tag (tracks, then visits), padded to a word, then those words of
the rows that differ from what is expected. Bit w: word w of the row is given. Expected of a track is the track before it (TWO_BACK: the one
before that), without its open run; of the first one, and of a visit, a row that has seen nothing. Words that mean nothing (since
when there is a candidate, where there is none) are expected whatever they hold. What all tags of a carrier share, which limits and
fences their rows are of, is in their shape (`Shapes`) alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actors.rules import exposure, geofence
from actors.rules._compile import compiled, frozen
from actors.rules.readings import FOREVER_US, I4, I8
from actors.tags.columns import grown
from actors.tags.prefetch import AHEAD, LINE, prefetch

U2 = npt.NDArray[np.uint16]
U4 = npt.NDArray[np.uint32]

TRACK_WORDS = exposure.TRACK.itemsize // 8
VISIT_WORDS = geofence.VISIT.itemsize // 8
ROWS_A_WORD = 4
TWO_BACK = 1 << 15
LONGEST = np.iinfo(np.uint16).max
"""Words of a record at most."""
PACKED_AT_ONCE = 4_096
"""Room is made for the longest records of so many slots: of a batch of all tags that would be several times what they take."""

WASTE = 1 << 15
"""Words that may lie idle, besides an eighth of those in use, before the records are moved together."""


def _at(dtype: np.dtype[Any], name: str) -> int:
    """The word of a row that a field is in."""
    fields = dtype.fields
    assert fields is not None
    return int(fields[name][1]) // 8


_PREV, _RUN_BEGIN, _RUN_END = _at(exposure.TRACK, "prev_us"), _at(exposure.TRACK, "run_start_us"), _at(exposure.TRACK, "readings")
_SPEC = _at(exposure.TRACK, "windows_start")
_SINCE, _ENTERED, _OUTSIDE = (_at(geofence.VISIT, name) for name in ("candidate_us", "entered_us", "outside_us"))
_LATITUDE, _LONGITUDE = _at(geofence.VISIT, "outside_latitude_deg"), _at(geofence.VISIT, "outside_longitude_deg")
_VISIT_FROM = _at(geofence.VISIT, "from_us")
_SIDE_SHIFT, _CANDIDATE_SHIFT = 48, 56  # of word 0 of a VISIT row: fence i4, count i2, side i1, candidate i1
_OUTSIDE_WORD = (geofence.OUTSIDE & 0xFF) << _SIDE_SHIFT
_INSIDE = int(geofence.INSIDE)
_FENCE_BITS = 0xFFFFFFFF
_TWO_BACK, _ROWS_A_WORD, _TRACK_WORDS, _VISIT_WORDS, _LONGEST = TWO_BACK, ROWS_A_WORD, TRACK_WORDS, VISIT_WORDS, LONGEST

_FRESH_TRACK = exposure.fresh(0, 0, 0, 0, 0, FOREVER_US).view(np.int64).reshape(TRACK_WORDS)
_FRESH_VISIT = geofence.fresh([0], 0, FOREVER_US).view(np.int64).reshape(VISIT_WORDS)
_FRESH_VISIT[0] = _OUTSIDE_WORD


def block_index(first: npt.NDArray[Any], count: npt.NDArray[Any]) -> I8:
    """The indices of all rows of some blocks, block after block.

    >>> block_index(np.array([5, 0]), np.array([2, 1])).tolist()
    [5, 6, 0]
    """
    total = int(count.sum())
    ends = np.cumsum(count, dtype=np.int64)
    index: I8 = np.arange(total, dtype=np.int64) + np.repeat(first.astype(np.int64) - (ends - count), count)
    return index


def _begins(count: I4) -> I4:
    """Where each of some blocks begins that lie one behind the other."""
    begins: I4 = (np.cumsum(count) - count).astype(np.int32)
    return begins


class Rows(NamedTuple):
    """The rows of some tags, block after block. first, lengths: per tag its slice of `tracks`; likewise of `visits`."""

    tracks: exposure.Rows
    first: I4
    lengths: I4
    visits: exposure.Rows
    visit_first: I4
    visit_lengths: I4

    @classmethod
    def of_one(cls, tracks: exposure.Rows, visits: exposure.Rows) -> Rows:
        """Those of one tag."""
        zero = np.zeros(1, np.int32)
        return cls(tracks, zero, np.array([len(tracks)], np.int32), visits, zero, np.array([len(visits)], np.int32))

    def some(self, positions: I4) -> Rows:
        """Copies of those of the tags at some positions."""
        count, visit_count = self.lengths[positions], self.visit_lengths[positions]
        return Rows(
            self.tracks[block_index(self.first[positions], count)], _begins(count), count,
            self.visits[block_index(self.visit_first[positions], visit_count)], _begins(visit_count), visit_count,
        )  # fmt: skip


class Shapes:
    """What the rows of a tag are of, shared by all tags that are judged by the same: per row of TRACK its last word, per VISIT its fence.

    Shape 0 has no rows.
    """

    def __init__(self) -> None:
        self.first = np.zeros(1, np.int32)
        self.count = np.zeros(1, np.int32)
        self.visit_first = np.zeros(1, np.int32)
        self.visit_count = np.zeros(1, np.int32)
        self.specs = np.zeros(0, np.int64)
        self.fences = np.zeros(0, np.int32)
        self._known: dict[bytes, int] = {}

    def of(self, tracks: exposure.Rows, visits: exposure.Rows) -> int:
        """The shape of these rows. Raises ValueError where a tag would have more of them than a record may hold."""
        specs, fences = _words(tracks, TRACK_WORDS)[:, _SPEC].copy(), visits["fence"].astype(np.int32)
        key = specs.tobytes() + b"|" + fences.tobytes()
        known = self._known.get(key)
        if known is None and not len(specs) and not len(fences):
            return 0
        if known is None:
            if longest(len(specs), len(fences)) > LONGEST:
                raise ValueError(f"{len(specs)} limits and {len(fences)} fences are more than a tag can be judged by")
            known = self._known[key] = len(self.first)
            self.first = np.append(self.first, np.int32(len(self.specs)))
            self.count = np.append(self.count, np.int32(len(specs)))
            self.visit_first = np.append(self.visit_first, np.int32(len(self.fences)))
            self.visit_count = np.append(self.visit_count, np.int32(len(fences)))
            self.specs, self.fences = np.concatenate([self.specs, specs]), np.concatenate([self.fences, fences])
        return known

    def empty(self, shape: I4) -> Rows:
        """Room for the rows of tags of these shapes."""
        count, visit_count = self.count[shape], self.visit_count[shape]
        first, visit_first = _begins(count), _begins(visit_count)
        tracks, visits = np.empty(int(count.sum()), exposure.TRACK), np.empty(int(visit_count.sum()), geofence.VISIT)
        return Rows(tracks, first, count, visits, visit_first, visit_count)


def longest(tracks: Any, visits: Any) -> Any:
    """Words of a record of so many rows at most; numbers or arrays of them."""
    return -(-(tracks + visits) // ROWS_A_WORD) + tracks * TRACK_WORDS + visits * VISIT_WORDS


def _words(rows: exposure.Rows, words: int) -> I8:
    return np.ascontiguousarray(rows).view(np.int64).reshape(len(rows), words)


class Records:
    """Records by slot. `live` of the words are in use, `used` are taken; a slot without a record is that of rows as expected."""

    def __init__(self) -> None:
        self.words: I8 = np.zeros(1024, np.int64)
        self.offset: U4 = np.zeros(64, np.uint32)
        self.room: U2 = np.zeros(64, np.uint16)
        self.state = np.zeros(2, np.int64)  # used, wasted

    @property
    def bytes_live(self) -> int:
        """Bytes of all records."""
        return 8 * int(self.state[0] - self.state[1])

    def read(self, slots: I4, shape: I4, from_us: I8, shapes: Shapes) -> Rows:
        """The rows of some slots. shape, from_us: of each, as they were given to `write`."""
        rows = shapes.empty(shape)
        self._room_for(slots)
        _unpack(
            frozen(slots), frozen(shape), frozen(from_us), shapes.specs, shapes.fences, shapes.first, shapes.visit_first,
            rows.tracks.view(np.int64), frozen(rows.first), frozen(rows.lengths),
            rows.visits.view(np.int64), frozen(rows.visit_first), frozen(rows.visit_lengths),
            self.words, self.offset, self.room, _FRESH_TRACK, _FRESH_VISIT,
        )  # fmt: skip
        return rows

    def write(self, slots: I4, from_us: I8, rows: Rows) -> None:
        """Keep the rows of some slots, each slot once. from_us: the start of each one's custody."""
        self._room_for(slots)
        for at in range(0, len(slots), PACKED_AT_ONCE):
            some = slice(at, at + PACKED_AT_ONCE)
            tracks, visits = rows.lengths[some], rows.visit_lengths[some]
            words = longest(tracks, visits)
            self.words = grown(self.words, int(self.state[0]) + int(words.sum(dtype=np.int64)))
            _pack(
                frozen(slots[some]), frozen(from_us[some]), rows.tracks.view(np.int64), frozen(rows.first[some]), frozen(tracks),
                rows.visits.view(np.int64), frozen(rows.visit_first[some]), frozen(visits),
                self.words, self.offset, self.room, self.state, _FRESH_TRACK, _FRESH_VISIT, np.empty(int(words.max()), np.int64),
            )  # fmt: skip
            self._tidy_if_due()

    def copy(self, slots: I4) -> Records:
        """The records of some slots, under their positions among these."""
        made = Records()
        made.put(np.arange(len(slots), dtype=np.int32), self, slots)
        return made

    def put(self, slots: I4, other: Records, others: I4) -> None:
        """Keep copies of another's records."""
        if not len(slots):
            return
        self._room_for(slots)
        other._room_for(others)
        self.words = grown(self.words, int(self.state[0]) + int(other.room[others].sum(dtype=np.int64)))
        _copy(frozen(slots), self.words, self.offset, self.room, self.state, frozen(others), other.words, other.offset, other.room)
        self._tidy_if_due()

    def drop(self, slot: int) -> None:
        """The slot has no record any more."""
        if slot < len(self.room):
            self.state[1] += int(self.room[slot])
            self.room[slot] = 0

    def drop_all(self, slots: I4) -> None:
        """The slots, each named once, have no records any more."""
        slots = slots[slots < len(self.room)]
        self.state[1] += int(self.room[slots].sum(dtype=np.int64))
        self.room[slots] = 0

    def tidy(self) -> None:
        """Move the records together."""
        words = np.zeros(int(self.state[0] - self.state[1]), np.int64)
        self.state[0] = _move_together(self.words, self.offset, self.room, words)
        self.state[1] = 0
        self.words = words

    def _tidy_if_due(self) -> None:
        if self.state[1] > (self.state[0] - self.state[1]) // 8 + WASTE:
            self.tidy()

    def _room_for(self, slots: I4) -> None:
        needed = int(slots.max(initial=-1)) + 1
        self.offset, self.room = grown(self.offset, needed), grown(self.room, needed)

    def dump(self, slots: int) -> dict[str, Any]:
        """State for a snapshot."""
        self.tidy()
        size = min(slots, len(self.room))
        return {"words": self.words, "offset": self.offset[:size].copy(), "room": self.room[:size].copy()}

    def restore(self, state: dict[str, Any]) -> None:
        """Back from `dump`."""
        self.words, self.offset, self.room = state["words"], state["offset"], state["room"]
        self.state = np.array([len(self.words), 0], np.int64)


@compiled
def _move_together(old: I8, offset: U4, room: U2, words: I8) -> int:
    at = 0
    for slot in range(len(room)):
        length = int(room[slot])
        begin = int(offset[slot])
        for k in range(length):
            words[at + k] = old[begin + k]
        offset[slot] = at
        at += length
    return at


@compiled
def _copy(slots: I4, words: I8, offset: U4, room: U2, state: I8, others: I4, from_words: I8, from_offset: U4, from_room: U2) -> None:
    for i in range(len(slots)):
        slot, length = slots[i], from_room[others[i]]
        if length > room[slot] or length == 0:
            state[1] += room[slot]
            offset[slot], room[slot] = state[0], length
            state[0] += length
        begin, source = int(offset[slot]), int(from_offset[others[i]])
        for k in range(length):
            words[begin + k] = from_words[source + k]


@compiled
def _fetch_ahead(slots: I4, i: int, words: I8, offset: U4, room: U2) -> None:
    """Have the record of position i + AHEAD fetched, and of position i + 2 * AHEAD what says where its record is."""
    if i + 2 * AHEAD < len(slots):
        prefetch(offset, slots[i + 2 * AHEAD], 0)
        prefetch(room, slots[i + 2 * AHEAD], 0)
    if i + AHEAD < len(slots):
        slot = slots[i + AHEAD]
        for byte in range(0, 8 * int(room[slot]), LINE):
            prefetch(words, offset[slot], byte)


@compiled
def _expect_track(tracks: I8, at: int, back: int, from_us: int, fresh: I8, expected: I8) -> None:
    """What is expected of the track at word `at`: of the first (back: 0) rows that have seen nothing, else the one `back` before it."""
    for w in range(_SPEC):
        expected[w] = fresh[w]
    if back == 0:
        expected[0] = expected[_PREV] = from_us
        return
    source = at - back * _TRACK_WORDS
    for w in range(_RUN_BEGIN):
        expected[w] = tracks[source + w]
    for w in range(_RUN_END, _SPEC):
        expected[w] = tracks[source + w]


@compiled
def _expect_visit(visits: I8, at: int, v: int, from_us: int, prev_us: int, fresh: I8, expected: I8) -> None:
    """What is expected of the visit at word `at`, without its fence. prev_us: up to when the tag's first track is accounted for."""
    for w in range(_VISIT_WORDS):
        expected[w] = fresh[w]
    expected[_VISIT_FROM] = from_us
    expected[_OUTSIDE] = prev_us
    if v > 0:
        for w in range(_OUTSIDE, _VISIT_WORDS):
            expected[w] = visits[at - _VISIT_WORDS + w]


@compiled
def _pack(
    slots: I4, from_us: I8, tracks: I8, first: I4, count: I4, visits: I8, visit_first: I4, visit_count: I4,
    words: I8, offset: U4, room: U2, state: I8, fresh_track: I8, fresh_visit: I8, record: I8,
) -> None:  # fmt: skip
    nan = fresh_visit[_LATITUDE]
    expected, other = np.zeros(_TRACK_WORDS, np.int64), np.zeros(_TRACK_WORDS, np.int64)
    for i in range(len(slots)):
        _fetch_ahead(slots, i, words, offset, room)
        slot, begin_us = slots[i], from_us[i]
        base, n = first[i] * _TRACK_WORDS, count[i]
        visit_base, m = visit_first[i] * _VISIT_WORDS, visit_count[i]
        header = (n + m + _ROWS_A_WORD - 1) // _ROWS_A_WORD
        for k in range(header):
            record[k] = 0
        length = header
        any_mask = 0
        for k in range(n):
            at = base + k * _TRACK_WORDS
            mask = 0
            _expect_track(tracks, at, min(k, 1), begin_us, fresh_track, expected)
            if k > 1:
                _expect_track(tracks, at, 2, begin_us, fresh_track, other)
                one, two = 0, 0
                for w in range(_SPEC):
                    one += tracks[at + w] != expected[w]
                    two += tracks[at + w] != other[w]
                if two < one:
                    mask = _TWO_BACK
                    for w in range(_SPEC):
                        expected[w] = other[w]
            for w in range(_SPEC):
                differs = int(tracks[at + w] != expected[w])
                record[length] = tracks[at + w]
                mask |= differs << w
                length += differs
            any_mask |= mask
            record[k // _ROWS_A_WORD] |= mask << 16 * (k % _ROWS_A_WORD)
        prev_us = tracks[base + _PREV] if n > 0 else begin_us
        for v in range(m):
            at = visit_base + v * _VISIT_WORDS
            _expect_visit(visits, at, v, begin_us, prev_us, fresh_visit, expected)
            # What means nothing is as expected, so that the rows are the same whenever they were packed.
            if visits[at] >> _CANDIDATE_SHIFT == 0:
                visits[at + _SINCE] = expected[_SINCE]
            if (visits[at] >> _SIDE_SHIFT) & 0xFF != _INSIDE:
                visits[at + _ENTERED] = expected[_ENTERED]
            if visits[at + _LATITUDE] == nan:
                visits[at + _OUTSIDE] = expected[_OUTSIDE]
                visits[at + _LONGITUDE] = expected[_LONGITUDE]
            expected[0] |= visits[at] & _FENCE_BITS
            mask = 0
            for w in range(_VISIT_WORDS):
                differs = int(visits[at + w] != expected[w])
                record[length] = visits[at + w]
                mask |= differs << w
                length += differs
            any_mask |= mask
            record[(n + v) // _ROWS_A_WORD] |= mask << 16 * ((n + v) % _ROWS_A_WORD)
        if any_mask == 0:
            length = 0
        if length > room[slot] or length == 0:
            state[1] += room[slot]
            offset[slot], room[slot] = state[0], length
            state[0] += length
        to = int(offset[slot])
        for k in range(length):
            words[to + k] = record[k]


@compiled
def _unpack(
    slots: I4, shape: I4, from_us: I8, specs: I8, fences: I4, spec_first: I4, fence_first: I4,
    tracks: I8, first: I4, count: I4, visits: I8, visit_first: I4, visit_count: I4,
    words: I8, offset: U4, room: U2, fresh_track: I8, fresh_visit: I8,
) -> None:  # fmt: skip
    expected = np.zeros(_TRACK_WORDS, np.int64)
    for i in range(len(slots)):
        _fetch_ahead(slots, i, words, offset, room)
        slot, begin_us = slots[i], from_us[i]
        base, n = first[i] * _TRACK_WORDS, count[i]
        visit_base, m = visit_first[i] * _VISIT_WORDS, visit_count[i]
        begin, known = int(offset[slot]), room[slot] > 0
        at_word = begin + (n + m + _ROWS_A_WORD - 1) // _ROWS_A_WORD
        spec, fence = spec_first[shape[i]], fence_first[shape[i]]
        for k in range(n):
            at = base + k * _TRACK_WORDS
            mask = (words[begin + k // _ROWS_A_WORD] >> 16 * (k % _ROWS_A_WORD)) & 0xFFFF if known else 0
            _expect_track(tracks, at, min(k, 2 if mask & _TWO_BACK else 1), begin_us, fresh_track, expected)
            for w in range(_SPEC):
                tracks[at + w] = expected[w]
            at_word = _patch(tracks, at, mask & ~_TWO_BACK, words, at_word)
            tracks[at + _SPEC] = specs[spec + k]
        prev_us = tracks[base + _PREV] if n > 0 else begin_us
        for v in range(m):
            at = visit_base + v * _VISIT_WORDS
            row = n + v
            mask = (words[begin + row // _ROWS_A_WORD] >> 16 * (row % _ROWS_A_WORD)) & 0xFFFF if known else 0
            _expect_visit(visits, at, v, begin_us, prev_us, fresh_visit, expected)
            for w in range(_VISIT_WORDS):
                visits[at + w] = expected[w]
            at_word = _patch(visits, at, mask, words, at_word)
            visits[at] |= int(fences[fence + v])


@compiled
def _patch(rows: I8, at: int, mask: int, words: I8, at_word: int) -> int:
    """Put the words that a mask names into a row; where the next one is read."""
    w = 0
    while mask:
        if mask & 1:
            rows[at + w] = words[at_word]
            at_word += 1
        mask >>= 1
        w += 1
    return at_word
