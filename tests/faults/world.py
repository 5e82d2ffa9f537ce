"""A fleet whose truth is known: which tag measured what and when, where it rode, and in which order all of it is told.

Everything follows from the seed, so the judge makes the same readings again instead of trusting anything that was sent. Imports
nothing of Waybill.

A stream is a gateway: it speaks for some tags, in batches. Time goes in rounds of `ROUND` sensed minutes. Most of a tag's readings of a
round are told in that round, some rounds later, a few very late; batches are shuffled inside, sent twice, and some hold
readings that contradict what was sent before (a conflict: the first one stays, so it is told only when the first is durable).

Some tags are special: some tell where they are, in and out of a fence; some have quality settings, for which spells begin with a spike;
some ride on shipments with an mkt limit.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

START_US = 1_700_000_000_000_000
MINUTE_US = 60_000_000
ROUND = 10
BLOCK = 240
"""Minutes whose temperatures are drawn at a time."""

HALF_CELSIUS = 2.0  # temperatures are rounded to half degrees, so that equal extremes and values on a threshold come up
FENCE_CENTER, FENCE_RADIUS_M = (53.5, 10.0), 5_000.0
FAR_DEG = 0.2
"""Further north or south of the fence's middle than this is surely outside; fixes are either nearer than 3 km or further than this."""
NEW, COPY, CONFLICT = 0, 1, 2
NONE = np.uint64((1 << 64) - 1)
"""On the wire: this reading has no boot and no sequence."""

I4 = npt.NDArray[np.int32]
F8 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Said:
    """One message of a stream: rows as (tag, minute, temperature). `after`: only once that message is acknowledged; -1: at any time."""

    number: int
    kind: int
    round: int
    tag: I4
    minute: I4
    temperature_c: F8
    after: int = -1


@dataclass(frozen=True, slots=True)
class Ride:
    """A tag on a shipment over [from_minute, until_minute). `open`: told without its end, which is told later."""

    tag: int
    shipment: int
    from_minute: int
    until_minute: int
    open: bool
    told_in_round: int
    ended_in_round: int


@dataclass(frozen=True)
class World:
    """The fleet of one seed."""

    seed: int = 1
    tags: int = 320
    shipments: int = 24
    streams: int = 8
    batch_rows: int = 400
    ride_minutes: int = 700
    prefix: str = "f"
    _blocks: dict[tuple[int, int], F8] = field(default_factory=dict, compare=False, repr=False)
    _fixes: dict[tuple[int, int], F8] = field(default_factory=dict, compare=False, repr=False)

    def tag_id(self, tag: int) -> str:
        """Name of a tag."""
        return f"{self.prefix}{self.seed}-tag-{tag}"

    def shipment_id(self, shipment: int) -> str:
        """Name of a shipment."""
        return f"{self.prefix}{self.seed}-ship-{shipment}"

    def shard(self, tag: int, shards: int) -> int:
        """Where a tag lives: part of what Waybill documents."""
        return zlib.crc32(self.tag_id(tag).encode()) % shards

    def positional(self, tag: Any) -> Any:
        """Whether the tag tells its position (also of arrays)."""
        return tag % 8 == 4

    def checked(self, tag: int) -> bool:
        """Whether the tag has quality settings."""
        return tag % 8 == 5

    def kinetic(self, tag: int) -> bool:
        """Whether the tag rides on shipments with an mkt limit."""
        return tag % 16 == 6

    def has_mkt(self, shipment: int) -> bool:
        """Whether a shipment's profile has the mkt limit."""
        return shipment >= self.shipments - self.shipments // 4

    def sequenced(self, tag: Any) -> Any:
        """Whether the device tells boot and sequence (also of arrays)."""
        return tag % 2 == 0

    def boot(self, minute: Any) -> Any:
        """Which boot of its device a sequence belongs to (also of arrays): they restart every few days."""
        return 1 + minute // 5_000

    def sensed_us(self, tag: I4, minute: I4) -> npt.NDArray[np.int64]:
        """Sensed times: minutes, a little apart from tag to tag."""
        return START_US + minute.astype(np.int64) * MINUTE_US + tag.astype(np.int64) * 1_000

    def members(self, stream: int) -> range:
        """The tags that a stream speaks for."""
        return range(stream, self.tags, self.streams)

    def temperatures(self, tag: int, block: int) -> F8:
        """Half degrees by the minute of one block; NaN: nothing was measured."""
        key = (tag, block)
        found = self._blocks.get(key)
        if found is None:
            if len(self._blocks) > 8 * self.tags:
                self._blocks.clear()
            found = self._blocks[key] = _temperatures(self.seed, tag, block)
        return found

    def fixes(self, tag: int, block: int) -> F8:
        """(2, minutes of one block): latitude and longitude by the minute."""
        found = self._fixes.get((tag, block))
        if found is None:
            if len(self._fixes) > 8 * self.tags:
                self._fixes.clear()
            found = self._fixes[tag, block] = _fixes(self.seed, tag, block)
        return found

    def positions(self, tag: I4, minute: I4) -> F8:
        """(2, n): latitude and longitude of some readings."""
        found = np.empty((2, len(tag)))
        keys = tag.astype(np.int64) << 32 | minute // BLOCK
        for key in np.unique(keys).tolist():
            rows = keys == key
            found[:, rows] = self.fixes(key >> 32, key & 0xFFFFFFFF)[:, minute[rows] % BLOCK]
        return found

    def piece(self, tag: int, number: int) -> tuple[I4, F8]:
        """Minutes and temperatures of a tag in a round."""
        first = number * ROUND
        values = self.temperatures(tag, first // BLOCK)[first % BLOCK : first % BLOCK + ROUND]
        there = np.flatnonzero(~np.isnan(values))
        return (there + first).astype(np.int32), values[there]

    def series(self, tag: int, rounds: int) -> tuple[I4, F8]:
        """All of a tag's readings of the first `rounds` rounds, in order."""
        values = np.concatenate([_temperatures(self.seed, tag, block) for block in range(-(-rounds * ROUND // BLOCK))] or [np.empty(0)])
        values = values[: rounds * ROUND]
        there = np.flatnonzero(~np.isnan(values))
        return there.astype(np.int32), values[there]

    def rides(self, tag: int, rounds: int) -> Iterator[Ride]:
        """Where a tag rides in the first `rounds` rounds, in order. Between two rides it sometimes lies about for an hour."""
        rng = np.random.default_rng([self.seed, 3, tag])
        minute, home = int(rng.integers(0, 30)), int(rng.integers(0, self.shipments))
        mkt = self.shipments // 4
        first, many = (self.shipments - mkt, mkt) if self.kinetic(tag) else (0, self.shipments - mkt)
        number = 0
        while minute < rounds * ROUND:
            length = int(self.ride_minutes * rng.uniform(0.6, 1.4))
            begins, ends = minute // ROUND, (minute + length) // ROUND
            told = max(0, begins + int(rng.choice([-2, 0, 3, 15])))
            opened = bool(rng.random() < 0.6)
            ended = max(told, ends + int(rng.choice([-3, 0, 4]))) if opened else told
            yield Ride(tag, first + (home + number) % many, minute, minute + length, opened, told, ended)
            minute += length + int(rng.choice([0, 0, 60]))
            number += 1

    def says(self, stream: int, more: Callable[[int], bool]) -> Iterator[Said]:
        """The messages of a stream, round after round while `more(round)`, and then whatever was held back."""
        rng = np.random.default_rng([self.seed, 7, stream])
        late: dict[int, list[tuple[int, I4, F8]]] = {}
        said: list[Said] = []  # the latest, to be repeated or contradicted
        number = current = 0
        going = True
        while (going := going and more(current)) or late:
            pieces = late.pop(current, [])
            if going:
                for tag in self.members(stream):
                    minutes, values = self.piece(tag, current)
                    fate = rng.random()
                    if not len(minutes):
                        continue
                    due = current + (0 if fate < 0.85 else int(rng.integers(1, 7)) if fate < 0.97 else int(rng.integers(20, 60)))
                    if due == current:
                        pieces.append((tag, minutes, values))
                    else:
                        late.setdefault(due, []).append((tag, minutes, values))
            for message in self._messages(pieces, rng, number, current):
                said.append(message)
                number += 1
                yield message
            if said and rng.random() < 0.15:
                again = said[int(rng.integers(0, len(said)))]
                yield Said(number, COPY, current, again.tag, again.minute, again.temperature_c)
                number += 1
            if said and rng.random() < 0.08:
                other = said[int(rng.integers(0, len(said)))]
                rows = rng.integers(0, len(other.tag), 3)
                rows = np.unique(rows)
                values = other.temperature_c[rows] + 1.0
                yield Said(number, CONFLICT, current, other.tag[rows], other.minute[rows], values, after=other.number)
                number += 1
            del said[:-20]
            current += 1

    def _messages(self, pieces: list[tuple[int, I4, F8]], rng: np.random.Generator, number: int, current: int) -> Iterator[Said]:
        if not pieces:
            return
        order = rng.permutation(len(pieces))
        tag = np.concatenate([np.full(len(pieces[k][1]), pieces[k][0], np.int32) for k in order])
        minute = np.concatenate([pieces[k][1] for k in order])
        values = np.concatenate([pieces[k][2] for k in order])
        for start in range(0, len(tag), self.batch_rows):
            rows = np.arange(start, min(start + self.batch_rows, len(tag)))
            if rng.random() < 0.3:
                rng.shuffle(rows)
            yield Said(number, NEW, current, tag[rows], minute[rows], values[rows])
            number += 1


@lru_cache(maxsize=4)
def _kinds() -> tuple[F8, F8]:
    """Cumulative odds of what happens in a block: nothing, warm, hot, cold; and the middle of its temperatures."""
    return np.cumsum([0.25, 0.4, 0.15, 0.2]), np.array([5.0, 9.5, 25.0, 0.5])


def _temperatures(seed: int, tag: int, block: int) -> F8:
    """A block: around 5 degrees, with a spell that is warm, hot or cold in it, readings missing, and now and then a long silence."""
    rng = np.random.default_rng([seed, 11, tag, block])
    values = 5.0 + rng.normal(0.0, 0.9, BLOCK)
    odds, middles = _kinds()
    kind = int(np.searchsorted(odds, rng.random()))
    if kind:
        length = int(rng.integers(20, 170))
        start = int(rng.integers(0, BLOCK - length))
        values[start : start + length] = middles[kind] + rng.normal(0.0, 1.2, length)
    values = np.round(values * HALF_CELSIUS) / HALF_CELSIUS
    values[rng.random(BLOCK) < 0.04] = np.nan
    if rng.random() < 0.06:
        start = int(rng.integers(0, BLOCK - 100))
        values[start : start + int(rng.integers(65, 100))] = np.nan
    return values


def _fixes(seed: int, tag: int, block: int) -> F8:
    """Where a tag is in a block: north or south of the fence, and often inside it for a while."""
    rng = np.random.default_rng([seed, 13, tag, block])
    side = 1.0 if rng.random() < 0.5 else -1.0
    drawn = rng.random((2, BLOCK))
    found = np.empty((2, BLOCK))
    found[0] = FENCE_CENTER[0] + side * (0.3 + 0.1 * drawn[0])
    found[1] = FENCE_CENTER[1] + 0.05 * (2 * drawn[1] - 1)
    if rng.random() < 0.6:
        length = int(rng.integers(1, 60))
        start = int(rng.integers(0, BLOCK - length))
        inside = slice(start, start + length)
        found[0, inside] = FENCE_CENTER[0] + 0.02 * (2 * drawn[0, inside] - 1)
        found[1, inside] = FENCE_CENTER[1] + 0.02 * (2 * drawn[1, inside] - 1)
    return found
