"""Custody: which tag rides on which carrier, over half-open intervals of sensed time (handbook 6).

All functions take and give a tag's intervals as a tuple sorted by `from_us`, pairwise disjoint. The carrier of a reading is
decided by its sensed time alone, whenever it arrives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from actors.rules.errors import CustodyOverlap, FailedPrecondition, InvalidArgument, NotFound
from actors.rules.readings import EARLIEST_US, FOREVER_US, FUTURE_TOLERANCE_US, I4, I8


@dataclass(frozen=True, slots=True)
class Interval:
    """One custody, [from_us, until_us); `until_us` is FOREVER_US while it is open. `handling_unit` is empty for the whole carrier."""

    custody_id: str
    carrier: str
    handling_unit: str
    from_us: int
    until_us: int = FOREVER_US

    @property
    def is_open(self) -> bool:
        """Whether the tag still rides there."""
        return self.until_us >= FOREVER_US


Intervals = tuple[Interval, ...]


def overlapping(intervals: Iterable[Interval], other: Interval) -> Interval | None:
    """The first interval, another than `other` itself, that shares any time with it."""
    for interval in intervals:
        if interval.custody_id != other.custody_id and interval.from_us < other.until_us and other.from_us < interval.until_us:
            return interval
    return None


def assign(intervals: Intervals, new: Interval, now_us: int) -> Intervals:
    """The tag also rides on `new`'s carrier, backdated or from now.

    Raises InvalidArgument for an empty or impossible interval or an end later than now, CustodyOverlap where the tag rides
    elsewhere in a part of it.
    """
    _check_times(new, now_us)
    other = overlapping(intervals, new)
    if other is not None:
        raise CustodyOverlap(_overlap_rule(other), field="from", value=new.from_us)
    return tuple(sorted((*intervals, new), key=_from))


def release(intervals: Intervals, custody_id: str, until_us: int, now_us: int) -> Intervals:
    """The open custody ends. Raises FailedPrecondition where it has ended already (that takes a correction)."""
    interval = find(intervals, custody_id)
    if not interval.is_open:
        raise FailedPrecondition(f"custody {custody_id} has ended already: correct it instead", field="custody_id", value=custody_id)
    return correct(intervals, custody_id, interval.from_us, until_us, now_us)


def correct(intervals: Intervals, custody_id: str, from_us: int, until_us: int, now_us: int) -> Intervals:
    """The named custody gets other times (FOREVER_US opens it again). Raises as `assign` does, NotFound for an unknown one."""
    new = dataclasses.replace(find(intervals, custody_id), from_us=from_us, until_us=until_us)
    return assign(remove(intervals, custody_id), new, now_us)


def remove(intervals: Intervals, custody_id: str) -> Intervals:
    """The named custody never was. Raises NotFound for an unknown one."""
    gone = find(intervals, custody_id)
    return tuple(interval for interval in intervals if interval is not gone)


def find(intervals: Iterable[Interval], custody_id: str) -> Interval:
    """The interval of this id. Raises NotFound."""
    for interval in intervals:
        if interval.custody_id == custody_id:
            return interval
    raise NotFound("this tag has no such custody", field="custody_id", value=custody_id)


def carrier_of(sensed_us: I8, intervals: Sequence[Interval]) -> I4:
    """For each sensed time the index of the interval it lies in, -1 for none. Intervals sorted and disjoint.

    >>> import numpy as np
    >>> carrier_of(np.array([9, 10, 19, 20]), (Interval("c1", "shipment/A", "", 10, 20),)).tolist()
    [-1, 0, 0, -1]
    """
    if not intervals:
        return np.full(len(sensed_us), -1, np.int32)
    starts = np.array([interval.from_us for interval in intervals], np.int64)
    ends = np.array([interval.until_us for interval in intervals], np.int64)
    index = np.searchsorted(starts, sensed_us, side="right") - 1
    return np.where((index >= 0) & (sensed_us < ends[index]), index, -1).astype(np.int32)


@dataclass(frozen=True, slots=True)
class Change:
    """A stretch of sensed time whose custody is another after a change: what was there before and what is there now."""

    from_us: int
    until_us: int
    before: Interval | None
    after: Interval | None


def changes(before: Sequence[Interval], after: Sequence[Interval]) -> list[Change]:
    """Where the carrier or handling unit differs between two states of a tag's custody, in time order, adjacent equals merged.

    A custody that only got another end changes nothing but the stretch between the two ends. What must be judged again are the
    carriers named in `before` and `after`: custody bounds decide holds and runs, so the whole custody of each is judged anew.
    """
    edges = sorted({edge for interval in (*before, *after) for edge in (interval.from_us, interval.until_us)})
    found: list[Change] = []
    for from_us, until_us in pairwise(edges):
        was, now = _at(before, from_us), _at(after, from_us)
        if _ride(was) == _ride(now):
            continue
        if found and found[-1].until_us == from_us and (_ride(found[-1].before), _ride(found[-1].after)) == (_ride(was), _ride(now)):
            from_us = found.pop().from_us
        found.append(Change(from_us, until_us, was, now))
    return found


def _at(intervals: Sequence[Interval], sensed_us: int) -> Interval | None:
    return next((interval for interval in intervals if interval.from_us <= sensed_us < interval.until_us), None)


def _ride(interval: Interval | None) -> tuple[str, str, str] | None:
    return None if interval is None else (interval.custody_id, interval.carrier, interval.handling_unit)


def _from(interval: Interval) -> int:
    return interval.from_us


def _check_times(interval: Interval, now_us: int) -> None:
    if interval.from_us < EARLIEST_US:
        raise InvalidArgument("must not be before the year 2000", field="from", value=interval.from_us)
    if interval.from_us > now_us + FUTURE_TOLERANCE_US:
        raise InvalidArgument(f"must not be later than now ({now_us})", field="from", value=interval.from_us)
    if interval.is_open:
        return
    if interval.until_us > now_us:
        raise InvalidArgument(f"must not be later than now ({now_us})", field="until", value=interval.until_us)
    if interval.until_us <= interval.from_us:
        raise InvalidArgument(f"must be later than from ({interval.from_us})", field="until", value=interval.until_us)


def _overlap_rule(other: Interval) -> str:
    end = "open end" if other.is_open else str(other.until_us)
    return f"the tag rides on {other.carrier} from {other.from_us} to {end} (custody {other.custody_id})"
