"""Tag ids by the message: which are well formed, and which shard each lives in.

In Python that costs a microsecond an id, and remembering the outcome half a kilobyte of memory a tag. So a compiled walk over the bytes
of all ids, joined by line ends, does it anew for every message and nothing is remembered. What the walk cannot tell, Python does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from actors.directory import shard_of
from actors.rules._compile import compiled
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


def malformed(tag_ids: Sequence[str]) -> dict[int, str]:
    """The rule that a tag id breaks, by its index, for those that break one (`valid_tag_id`)."""
    raw = _lines(tag_ids)
    doubtful = range(len(tag_ids)) if raw is None else np.flatnonzero(_doubtful(raw, len(tag_ids))).tolist()
    return {index: rule for index in doubtful if (rule := valid_tag_id(tag_ids[index]))}


def shards_of(tag_ids: Sequence[str], shards: int) -> I4:
    """The shard of each id (`actors.directory.shard_of`)."""
    raw = _lines(tag_ids)
    if raw is None:
        return np.array([shard_of(tag_id, shards) for tag_id in tag_ids], np.int32)
    return _shards(raw, len(tag_ids), shards)


def _lines(tag_ids: Sequence[str]) -> U1 | None:
    """The ids, a line each without an end to the last; None where there is none or a line end within one."""
    raw = "\n".join(tag_ids).encode()
    return np.frombuffer(raw, np.uint8) if raw.count(b"\n") == len(tag_ids) - 1 else None


@compiled
def _doubtful(raw: U1, lines: int) -> U1:
    """1 for each line that is not surely well formed: printable ASCII without blanks at the ends surely is."""
    doubtful = np.zeros(lines, np.uint8)
    line, start, good = 0, 0, True
    for at in range(len(raw) + 1):
        if at == len(raw) or raw[at] == _LINE_END:
            if not good or at == start or at - start > TAG_ID_MAX or raw[start] == _BLANK or raw[at - 1] == _BLANK:
                doubtful[line] = 1
            line, start, good = line + 1, at + 1, True
        elif raw[at] < _BLANK or raw[at] > _LAST_PRINTABLE:
            good = False
    return doubtful


@compiled
def _shards(raw: U1, lines: int, shards: int) -> I4:
    """CRC-32 of each line modulo the number of shards."""
    found = np.empty(lines, np.int32)
    line, crc = 0, _ALL_BITS
    for at in range(len(raw) + 1):
        if at == len(raw) or raw[at] == _LINE_END:
            found[line] = (crc ^ _ALL_BITS) % shards
            line, crc = line + 1, _ALL_BITS
        else:
            crc = int(_CRC[(crc ^ int(raw[at])) & 0xFF]) ^ (crc >> 8)
    return found


def warm_up() -> None:
    """Compile (or load from the cache) what the first message would otherwise wait for."""
    malformed(["t"])
    shards_of(["t"], 1)
