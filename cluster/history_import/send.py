"""One piece through the ordinary door, and what became of its rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from actors.rules import readings
from cluster.client import Client, Outgoing, now_us
from cluster.history_import.mapping import Mapping
from cluster.history_import.parse import Parsed, parse
from cluster.history_import.pieces import Piece
from cluster.importers.base import Bad

MESSAGE_READINGS = 10_000
VALUE = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?|nan|inf")
CONFLICT = "known already with other content: put aside"


@dataclass(frozen=True)
class Target:
    """Where to send: as the client's options."""

    server: str
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass
class Account:
    """What became of rows: rows = stored + conflicting + refused + empty, whenever it is asked and however often a job was broken off.

    stored: in Waybill now. known: of these, how many were there already when they were (last) sent. reasons: of refused rows, by rule.
    """

    rows: int = 0
    empty: int = 0
    stored: int = 0
    known: int = 0
    conflicting: int = 0
    refused: int = 0
    tags: dict[str, tuple[int, int]] = field(default_factory=dict)
    """First and last sensed time by tag, of rows that were sent."""

    def add(self, other: Account) -> None:
        """Add another's rows."""
        for name in ("rows", "empty", "stored", "known", "conflicting", "refused"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for tag_id, (first, last) in other.tags.items():
            mine = self.tags.get(tag_id, (first, last))
            self.tags[tag_id] = (min(mine[0], first), max(mine[1], last))


@dataclass
class Done:
    """A piece that was sent: its account, and the rows that were refused or put aside, with their text."""

    number: int
    account: Account
    left_out: list[tuple[int, str, str]]


def send(target: Target, mapping: Mapping, file_name: str, piece: Piece) -> Done:
    """Import one piece. Sending it again does no harm: its readings carry their identity. Raises Problem, UnusableFile."""
    parsed = parse(piece, mapping, file_name, now_us())
    account = Account(rows=parsed.rows, empty=parsed.empty, refused=len(parsed.bad), tags=_spans(parsed))
    left_out = list(parsed.bad)
    with Client(target.server, ca=target.ca, certificate=target.certificate, key=target.key) as client:
        for message, answer in client.ingest(_messages(parsed)):
            lines: Any = message.token
            account.stored += answer.accepted + answer.duplicate
            account.known += answer.duplicate
            account.conflicting += len(answer.conflicting_indexes)
            account.refused += len(answer.refused_indexes)
            reasons = {one.index: f"{one.field} {one.value} {one.rule}" for one in answer.refusals}
            left_out += [Bad(int(lines[k]), reasons.get(k, "refused by the server")) for k in answer.refused_indexes]
            left_out += [Bad(int(lines[k]), CONFLICT) for k in answer.conflicting_indexes]
    texts = _texts(piece, {one.line for one in left_out}, mapping)
    return Done(piece.number, account, [(one.line, one.reason, texts.get(one.line, "")) for one in sorted(left_out)])


def _messages(parsed: Parsed) -> Iterator[Outgoing]:
    """Readings in the order of the file, in messages that name only the tags they hold."""
    for start in range(0, len(parsed.batch), MESSAGE_READINGS):
        part = readings.subset(parsed.batch, slice(start, start + MESSAGE_READINGS))
        used, index = np.unique(part.tag, return_inverse=True)
        names = [parsed.tag_ids[k] for k in used.tolist()]
        batch = readings.Batch(index.astype(np.int32), part.sensed_us, part.boot, part.sequence, part.codes, part.values)
        yield Outgoing(names, batch, token=parsed.lines[start : start + MESSAGE_READINGS])


def _spans(parsed: Parsed) -> dict[str, tuple[int, int]]:
    if not len(parsed.batch):
        return {}
    first = np.full(len(parsed.tag_ids), np.iinfo(np.int64).max)
    last = np.full(len(parsed.tag_ids), np.iinfo(np.int64).min)
    np.minimum.at(first, parsed.batch.tag, parsed.batch.sensed_us)
    np.maximum.at(last, parsed.batch.tag, parsed.batch.sensed_us)
    return {parsed.tag_ids[k]: (int(first[k]), int(last[k])) for k in np.unique(parsed.batch.tag).tolist()}


def _texts(piece: Piece, lines: set[int], mapping: Mapping) -> dict[int, str]:
    """The rows as they stand in the file."""
    if not lines:
        return {}
    if isinstance(piece.data, bytes):
        every = piece.data.split(b"\n")
        return {line: every[line - piece.first_line].rstrip(b"\r").decode(mapping.file.encoding, "replace") for line in lines}
    return {line: str(piece.data.slice(line - piece.first_line, 1).to_pylist()[0]) for line in lines}


def reasons(done: list[tuple[int, str, str]]) -> Counter[str]:
    """How often each reason, with the values taken out."""
    return Counter(_rule(reason) for _, reason, _ in done)


def _rule(reason: str) -> str:
    """The reason without the value that it names, so that equal rules count as one.

    >>> _rule("temperature_c '1O' is not a number"), _rule("temperature_c 999.0 must be a number from -200 to 200")
    ('temperature_c is not a number', 'temperature_c must be a number from -200 to 200')
    """
    field, _, rest = reason.partition(" ")
    value, _, rule = rest.rpartition("' ") if rest.startswith("'") else rest.partition(" ")
    return f"{field} {rule}" if rule and (rest.startswith("'") or VALUE.fullmatch(value)) else reason
