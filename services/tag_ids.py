"""The tag ids of a message as bytes: which are well formed, which shard each lives in, and on to that shard.

In Python each of these costs a fraction of a microsecond an id, and remembering the outcome half a kilobyte of memory a tag. So compiled
walks over the bytes do it anew for every message, and nothing is remembered. An id is a string where protobuf made one of it (columns),
where Python has to judge it (it is not plain ASCII), and to be spoken of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.rules._compile import compiled, frozen
from actors.rules.readings import I4, I8, U1

TAG_ID_MAX = 64
"""Characters of a tag id."""

_LINE_END, _BLANK, _LAST_PRINTABLE = 0x0A, 0x20, 0x7E
_ALL_BITS = 0xFFFFFFFF


def _crc_table() -> I8:
    """CRC-32 of each byte (ISO 3309, the reflected polynomial 0xEDB88320: zlib's)."""
    crc = np.arange(256, dtype=np.int64)
    for _ in range(8):
        crc = np.where(crc & 1, crc >> 1 ^ 0xEDB88320, crc >> 1)
    return crc


_CRC = _crc_table()


def valid_tag_id(tag_id: str) -> str:
    """The rule that a tag id breaks, "" where it breaks none."""
    if not tag_id:
        return "must be given"
    if len(tag_id) > TAG_ID_MAX:
        return f"must have at most {TAG_ID_MAX} characters, has {len(tag_id)}"
    if not tag_id.isprintable() or tag_id != tag_id.strip():
        return "must be printable characters without blanks at the ends"
    return ""


@dataclass(frozen=True, slots=True, eq=False)
class TagIds:
    """Some ids: id k is `text`, UTF-8, from begins[k] to ends[k]. What lies between two ids belongs to none."""

    text: U1
    begins: I8
    ends: I8

    @classmethod
    def of(cls, ids: Iterable[str]) -> TagIds:
        """From strings."""
        strings = list(ids)
        raw = "\n".join(strings).encode()
        if raw.count(b"\n") == len(strings) - 1:  # else there is none, or a line end within one
            text = np.frombuffer(raw, np.uint8)
            begins, ends = _lines(text, len(strings))
            return cls(text, begins, ends)
        encoded = [one.encode() for one in strings]
        sizes = np.array([len(one) for one in encoded], np.int64)
        ends = np.cumsum(sizes)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends - sizes, ends)

    @classmethod
    def concatenate(cls, tables: Sequence[TagIds]) -> TagIds:
        """One table after the other."""
        if len(tables) == 1:
            return tables[0]
        offsets = np.cumsum([0, *(len(one.text) for one in tables)])[:-1].tolist()
        return cls(
            frozen(np.concatenate([one.text for one in tables])),
            np.concatenate([one.begins + offset for one, offset in zip(tables, offsets, strict=True)]),
            np.concatenate([one.ends + offset for one, offset in zip(tables, offsets, strict=True)]),
        )

    def __len__(self) -> int:
        return len(self.begins)

    def __getitem__(self, index: int) -> str:
        return self.text[self.begins[index] : self.ends[index]].tobytes().decode()

    def subset(self, chosen: npt.NDArray[Any]) -> TagIds:
        """The ids of these indices, in their order; the text is still that of all."""
        return TagIds(self.text, self.begins[chosen], self.ends[chosen])

    def compact(self) -> TagIds:
        """The same over a text of their own, with a line end between two."""
        sizes = self.ends - self.begins
        ends = np.cumsum(sizes + 1) - 1
        return TagIds(frozen(_joined(self.text, self.begins, self.ends)), ends - sizes, ends)

    def lines(self) -> bytes:
        """All of them, joined by line ends. Of use where none holds one, as is the rule for those that are well formed."""
        return _joined(self.text, self.begins, self.ends).tobytes()


def malformed(ids: TagIds) -> dict[int, str]:
    """The rule that a tag id breaks, by its index, for those that break one (`valid_tag_id`)."""
    doubtful = np.flatnonzero(_doubtful(ids.text, ids.begins, ids.ends)).tolist()
    return {index: rule for index in doubtful if (rule := valid_tag_id(ids[index]))}


def shards_of(ids: TagIds, shards: int) -> I4:
    """The shard of each id (`actors.directory.shard_of`)."""
    return _shards(ids.text, ids.begins, ids.ends, shards)


@compiled
def _lines(text: U1, lines: int) -> tuple[I8, I8]:
    """Where each line begins and ends; the last has no line end."""
    begins, ends = np.zeros(lines, np.int64), np.full(lines, len(text), np.int64)
    line = 0
    for at in range(len(text)):
        if text[at] == _LINE_END:
            ends[line] = at
            line += 1
            begins[line] = at + 1
    return begins, ends


@compiled
def _joined(text: U1, begins: I8, ends: I8) -> U1:
    size = max(len(begins) - 1, 0)
    for k in range(len(begins)):
        size += ends[k] - begins[k]
    joined, at = np.empty(size, np.uint8), 0
    for k in range(len(begins)):
        if k:
            joined[at] = _LINE_END
            at += 1
        for place in range(begins[k], ends[k]):
            joined[at] = text[place]
            at += 1
    return joined


@compiled
def _doubtful(text: U1, begins: I8, ends: I8) -> U1:
    """1 for each id that is not surely well formed: printable ASCII without blanks at the ends surely is."""
    doubtful = np.zeros(len(begins), np.uint8)
    for k in range(len(begins)):
        begin, end = begins[k], ends[k]
        good = 0 < end - begin <= TAG_ID_MAX and text[begin] != _BLANK and text[end - 1] != _BLANK
        for at in range(begin, end):
            good = good and _BLANK <= text[at] <= _LAST_PRINTABLE
        doubtful[k] = not good
    return doubtful


@compiled
def _shards(text: U1, begins: I8, ends: I8, shards: int) -> I4:
    """CRC-32 of each id modulo the number of shards."""
    found = np.empty(len(begins), np.int32)
    for k in range(len(begins)):
        crc = _ALL_BITS
        for at in range(begins[k], ends[k]):
            crc = int(_CRC[(crc ^ int(text[at])) & 0xFF]) ^ (crc >> 8)
        found[k] = (crc ^ _ALL_BITS) % shards
    return found


def warm_up() -> None:
    """Compile (or load from the cache) what the first message would otherwise wait for."""
    one = TagIds.of(["t"])
    malformed(one)
    shards_of(one, 1)
    one.lines()
