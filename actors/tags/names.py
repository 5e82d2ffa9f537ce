"""The ids of a shard's tags and their local indices: bytes and numbers. As Python's strings and dictionary a million take 150 MB."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from actors.rules._compile import compiled, frozen
from actors.rules.readings import I4, I8, U1
from actors.tags.columns import grown
from actors.tags.prefetch import prefetch

UNKNOWN = -1
_LINE_END = 0x0A
_AT_ONCE = 256
_FILLED = 0.75
"""The table of the indices is at most so full."""


class TagNames:
    """Ids by local index, and back. An id holds no line end."""

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._text: U1 = np.zeros(1024, np.uint8)  # all ids, one behind the other
        self._ends: I8 = np.zeros(64, np.int64)
        self._count = 0
        self._table: I4 = np.full(64, UNKNOWN, np.int32)
        self.add(ids)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < self._count:
            raise IndexError(index)
        begin = int(self._ends[index - 1]) if index else 0
        return self._text[begin : int(self._ends[index])].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(self._count))

    def __contains__(self, tag_id: object) -> bool:
        return isinstance(tag_id, str) and self.find(tag_id) is not None

    def find(self, tag_id: str) -> int | None:
        """The local index of an id, None where it is not known."""
        found = int(self.lookup(tag_id.encode())[0]) if tag_id and "\n" not in tag_id else UNKNOWN
        return None if found == UNKNOWN else found

    def lookup(self, lines: bytes) -> I4:
        """The local index of each of some ids, joined by line ends; UNKNOWN where it is not known."""
        raw = np.frombuffer(lines, np.uint8)
        found = np.empty(lines.count(b"\n") + 1, np.int32)
        _lookup(frozen(raw), self._text, self._ends, self._table, found)
        return found

    def add(self, ids: Iterable[str]) -> range:
        """Give ids that are not known the next local indices."""
        encoded = [tag_id.encode() for tag_id in ids]
        first, self._count = self._count, self._count + len(encoded)
        if not encoded:
            return range(first, first)
        sizes = np.array([len(one) for one in encoded], np.int64)
        begin = int(self._ends[first - 1]) if first else 0
        end = begin + int(sizes.sum())
        self._text, self._ends = grown(self._text, end), grown(self._ends, self._count)
        self._text[begin:end] = np.frombuffer(b"".join(encoded), np.uint8)
        self._ends[first : self._count] = begin + np.cumsum(sizes)
        self._index(first)
        return range(first, self._count)

    def _index(self, first: int) -> None:
        size = len(self._table)
        while self._count > _FILLED * size:
            size *= 2
        if size != len(self._table):
            self._table, first = np.full(size, UNKNOWN, np.int32), 0
        _insert(self._text, self._ends, self._table, first, self._count)

    def dump(self) -> tuple[U1, I8]:
        """State for a snapshot."""
        end = int(self._ends[self._count - 1]) if self._count else 0
        return self._text[:end].copy(), self._ends[: self._count].copy()

    def restore(self, state: tuple[U1, I8]) -> None:
        """Back from `dump`."""
        self._text, self._ends = state
        self._count = len(self._ends)
        self._index(0)


@compiled
def _hash(text: U1, begin: int, end: int) -> int:
    """FNV-1a of 32 bits, its bits mixed once more."""
    value = 0x811C9DC5
    for at in range(begin, end):
        value = ((value ^ int(text[at])) * 0x01000193) & 0xFFFFFFFF
    value ^= value >> 15
    value = (value * 0x2C1B3C6D) & 0xFFFFFFFF
    return value ^ (value >> 13)


@compiled
def _insert(text: U1, ends: I8, table: I4, first: int, count: int) -> None:
    mask = len(table) - 1
    for index in range(first, count):
        begin = ends[index - 1] if index else 0
        place = _hash(text, begin, ends[index]) & mask
        while table[place] >= 0:
            place = (place + 1) & mask
        table[place] = index


@compiled
def _lookup(raw: U1, text: U1, ends: I8, table: I4, found: I4) -> None:
    """Look for some lines at a time, step by step: what a step needs is fetched from memory for all of them in the step before."""
    mask = len(table) - 1
    starts, places = np.empty(_AT_ONCE + 1, np.int64), np.empty(_AT_ONCE, np.int64)
    line, start = 0, 0
    while line < len(found):
        some = min(_AT_ONCE, len(found) - line)
        for i in range(some):
            end = start
            while end < len(raw) and raw[end] != _LINE_END:
                end += 1
            starts[i], places[i] = start, _hash(raw, start, end) & mask
            prefetch(table, places[i], 0)
            start = end + 1
        starts[some] = start
        for i in range(some):
            prefetch(ends, max(table[places[i]] - 1, 0), 0)
        for i in range(some):
            index = table[places[i]]
            if index > 0:
                prefetch(text, ends[index - 1], 0)
        for i in range(some):
            found[line + i] = _known(raw, starts[i], starts[i + 1] - 1, text, ends, table, places[i])
        line += some


@compiled
def _known(raw: U1, start: int, end: int, text: U1, ends: I8, table: I4, place: int) -> int:
    """The index of a line, looked for from a place of the table on."""
    mask = len(table) - 1
    size = end - start
    while table[place] >= 0:
        index = table[place]
        begin = ends[index - 1] if index else 0
        if ends[index] - begin == size:
            same = True
            for k in range(size):
                if raw[start + k] != text[begin + k]:
                    same = False
                    break
            if same:
                return int(index)
        place = (place + 1) & mask
    return UNKNOWN
