"""The readings of every measurement: made from a seed, the same for Waybill, for its peers and for the check.

Tags report every minute; at each minute every tag has one reading of temperature and position, with a boot and a sequence. Seldom and at
random a tag gets too warm (long enough for an excursion, or not), too cold, or drives into the geofence and out again. A gateway
carries its own tags, interleaved minute by minute; 1 % of its readings come late, and 0.1 % are sent twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from actors.rules.readings import LATITUDE, LONGITUDE, Batch

F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]

MINUTE_US = 60_000_000
BOOT = 1
CODES = (0, LATITUDE, LONGITUDE)
DIGITS = (2, 6, 6)
"""As devices report: hundredths of a degree Celsius, millionths of a degree of arc (shared recordings of loggers, buses and trucks)."""
CENTER = (53.5511, 9.9937)
RADIUS_M = 5_000.0

WARM, COLD, TOTAL = "warm", "cold", "total"
WARM_ABOVE_C, WARM_CLEAR_C, WARM_ALLOWANCE_US = 8.0, 7.0, 10 * MINUTE_US
COLD_BELOW_C = 2.0
TOTAL_ALLOWANCE_US = 60 * MINUTE_US

READINGS_PER_EPISODE = 3_500
READINGS_PER_VISIT = 12_000
EXCURSION_EVERY = 5_000
"""There is at least one excursion for so many readings; the check holds it."""
LATE, DUPLICATE = 0.01, 0.001
LATEST_MINUTES = 10

_LONG_WARM, _SHORT_WARM, _COLD = 0, 1, 2


@dataclass(frozen=True)
class Workload:
    """`tags` tags over `minutes` minutes from `start_us`, on shipments of `tags_per_shipment`, behind `gateways` gateways."""

    tags: int
    minutes: int
    start_us: int
    gateways: int = 8
    seed: int = 1
    tags_per_shipment: int = 100

    @property
    def tag_ids(self) -> list[str]:
        """The id of each tag."""
        return [f"bench-{tag:07d}" for tag in range(self.tags)]

    def tags_of(self, gateway: int) -> I8:
        """The tags behind a gateway: contiguous, so that a gateway carries whole shipments."""
        bounds = np.linspace(0, self.tags, self.gateways + 1).astype(np.int64)
        return np.arange(bounds[gateway], bounds[gateway + 1])

    @cached_property
    def _episodes(self) -> tuple[I8, I8, I8, I8]:
        """(tag, first minute, minutes, kind) of every stretch of wrong temperature."""
        rng = np.random.default_rng([self.seed, 1])
        many = max(3, self.tags * self.minutes // READINGS_PER_EPISODE)
        share = [0.45, 0.1, 0.45] if self.minutes > LATEST_MINUTES else [0.05, 0.05, 0.9]  # too short for a warm one to become an excursion
        kind = rng.choice([_LONG_WARM, _SHORT_WARM, _COLD], many, p=share)
        length = np.where(kind == _LONG_WARM, rng.integers(15, 40, many), rng.integers(2, 9, many))
        return rng.integers(0, self.tags, many), rng.integers(0, self.minutes, many), length, kind

    @cached_property
    def _visits(self) -> tuple[I8, I8, I8]:
        """(tag, first minute, minutes) of every drive to the fence and back."""
        rng = np.random.default_rng([self.seed, 2])
        many = max(2, self.tags * self.minutes // READINGS_PER_VISIT)
        return rng.integers(0, self.tags, many), rng.integers(0, self.minutes, many), rng.integers(16, 50, many)

    def values(self, first: int, until: int) -> F8:
        """(minutes, tags, 3): temperature, latitude and longitude, rounded to DIGITS, in the minutes first ... until - 1."""
        values = np.empty((until - first, self.tags, 3))
        for minute in range(first, until):  # each minute from its own seed, so that any stretch of minutes is the same
            drawn = np.random.default_rng([self.seed, 3, minute]).random((3, self.tags))
            values[minute - first, :, 0] = 4.0 + 2.0 * drawn[0]
            values[minute - first, :, 1] = CENTER[0] + 0.5 + 0.1 * drawn[1]
            values[minute - first, :, 2] = CENTER[1] - 0.05 + 0.1 * drawn[2]
        for tag, start, length, kind in zip(*(column.tolist() for column in self._episodes), strict=True):
            low, high = max(start, first), min(start + length, until)
            if low < high:
                minute = np.arange(low, high)
                wave = np.sin(np.pi * (minute - start + 1) / (length + 1))
                values[low - first : high - first, tag, 0] = 1.5 - 3.0 * wave if kind == _COLD else 7.5 + 6.0 * wave
        for tag, start, length in zip(*(column.tolist() for column in self._visits), strict=True):
            low, high = max(start, first), min(start + length, until)
            if low < high:
                away = np.abs(2 * (np.arange(low, high) - start) / length - 1.0)
                values[low - first : high - first, tag, 1] = CENTER[0] + 0.01 + 0.45 * away**2
                values[low - first : high - first, tag, 2] = CENTER[1]
        for at, digits in enumerate(DIGITS):
            values[:, :, at] = np.round(values[:, :, at], digits)
        return values

    def sensed_us(self, first: int, until: int) -> I8:
        """(minutes,) the sensed time of each minute's readings."""
        return self.start_us + np.arange(first, until) * MINUTE_US


@dataclass(frozen=True)
class Delivery:
    """What one gateway sends in one go, in its order: the rows of `batch`, with what is late and what is a copy among them.

    The tag column indexes `tag_ids`, the gateway's own.
    """

    tag_ids: list[str]
    batch: Batch
    late: int
    copies: int

    def messages(self, size: int) -> list[Batch]:
        """Batches of `size` readings each, the last one of what is left."""
        whole = self.batch
        return [
            Batch(
                whole.tag[at : at + size], whole.sensed_us[at : at + size], whole.boot[at : at + size], whole.sequence[at : at + size],
                whole.codes, np.ascontiguousarray(whole.values[:, at : at + size]),
            )
            for at in range(0, len(whole), size)
        ]  # fmt: skip


def deliver(work: Workload, gateway: int, first: int, until: int, values: F8 | None = None) -> Delivery:
    """The readings of a gateway's tags in the minutes first ... until - 1 as it sends them.

    `values`: work.values(first, until) where that is known.
    """
    tags = work.tags_of(gateway)
    values = (work.values(first, until) if values is None else values)[:, tags]
    minutes, many = values.shape[:2]
    rng = np.random.default_rng([work.seed, 4, gateway, first])
    n = minutes * many
    place = np.arange(n, dtype=np.float64)
    delayed = rng.random(n) < LATE
    place[delayed] += rng.integers(1, LATEST_MINUTES + 1, int(delayed.sum())) * many + 0.5
    again = np.flatnonzero(rng.random(n) < DUPLICATE)
    place_again = place[again] + rng.integers(1, LATEST_MINUTES + 1, len(again)) * many + 0.25
    rows = np.concatenate([np.arange(n), again])
    order = rows[np.argsort(np.concatenate([place, place_again]), kind="stable")]
    minute, tag = order // many, order % many
    batch = Batch(
        tag.astype(np.int32),
        work.sensed_us(first, until)[minute],
        np.full(len(order), BOOT, np.int64),
        first + minute,
        CODES,
        np.ascontiguousarray(values.reshape(n, 3)[order].T),
    )
    names = [f"bench-{one:07d}" for one in tags.tolist()]
    return Delivery(names, batch, _late(tag, batch.sequence), len(again))


def _late(tag: I8, sequence: I8) -> int:
    """How many readings come after a newer one of their tag, copies not counted."""
    key = tag * (1 << 40) + sequence
    _, firsts = np.unique(key, return_index=True)
    key = key[np.sort(firsts)]
    key = key[np.argsort(key >> 40, kind="stable")]  # by tag, each in its order of arrival
    return int((key[1:] < np.maximum.accumulate(key)[:-1]).sum())
