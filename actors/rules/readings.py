"""The reading batch as columns: what every floor passes on instead of one object a reading.

Metrics, units and plausible bounds are the handbook's, section 2. A value that is absent is NaN *inside* Waybill;
NaN on the wire is refused at the door, so the two cannot be confused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from actors.rules._compile import compiled, frozen

I8 = npt.NDArray[np.int64]
I4 = npt.NDArray[np.int32]
F8 = npt.NDArray[np.float64]
U1 = npt.NDArray[np.uint8]
B1 = npt.NDArray[np.bool_]

MINUTE_US = 60_000_000
FUTURE_TOLERANCE_US = 10 * MINUTE_US
"""A sensed time further ahead of our clock than this is kept, flagged, and outside the rules (handbook 6)."""

NO_SEQUENCE = -1
"""Value of the `boot` and `sequence` columns where the device does not tell them."""

FOREVER_US = np.iinfo(np.int64).max // 4
"""The open end of an interval; a quarter of the range so that sums with durations cannot overflow."""


class Column(NamedTuple):
    """One value column: wire and storage name, plausible bounds (both inclusive)."""

    name: str
    low: float
    high: float


INF = float("inf")
COLUMNS: tuple[Column, ...] = (
    Column("temperature_c", -200.0, 200.0),
    Column("relative_humidity_pct", 0.0, 100.0),
    Column("shock_g", 0.0, INF),
    Column("light_lux", 0.0, INF),
    Column("tilt_deg", 0.0, 180.0),
    Column("pressure_hpa", 100.0, 1200.0),
    Column("battery_v", 0.0, INF),
    Column("door_open", 0.0, 1.0),  # exactly 0 or 1
    Column("vibration_mm_s", 0.0, INF),
    Column("co2_pct", 0.0, 100.0),
    Column("o2_pct", 0.0, 100.0),
    Column("latitude_deg", -90.0, 90.0),
    Column("longitude_deg", -180.0, 180.0),
    Column("gps_accuracy_m", 0.0, INF),
    Column("speed_mps", 0.0, INF),
)
CODE: dict[str, int] = {column.name: code for code, column in enumerate(COLUMNS)}
"""Column code by name. Codes are stored in the journal: append, never reorder."""

MEASUREMENTS = range(CODE["o2_pct"] + 1)
LATITUDE, LONGITUDE, ACCURACY, SPEED = (
    CODE["latitude_deg"],
    CODE["longitude_deg"],
    CODE["gps_accuracy_m"],
    CODE["speed_mps"],
)
POSITION = (LATITUDE, LONGITUDE, ACCURACY, SPEED)
"""A position fix is one metric of a reading's identity (handbook 6), whatever of these it carries."""

GOOD, NOT_EVALUATED, SUSPECT, FAIL, MISSING = 1, 2, 3, 4, 9
"""QARTOD flags (handbook 4)."""

ACCEPTED, DUPLICATE, CONFLICTING, REFUSED = 1, 2, 3, 4
"""What became of a reading. Conflicting where any of its values conflicts, else accepted where any is new, else duplicate."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Readings as columns. All arrays have length n but `values`, which is (len(codes), n), C-contiguous.

    tag: int32, index into a table of ids that travels beside the batch (a door) or is the shard's own (inside a shard).
    sensed_us: int64, microseconds since 1970 UTC by the sensor's clock.
    boot, sequence: int64, NO_SEQUENCE where the device tells none (both or neither).
    codes: the column codes of the rows of `values`, ascending.
    values: float64, NaN where absent.
    """

    tag: I4
    sensed_us: I8
    boot: I8
    sequence: I8
    codes: tuple[int, ...]
    values: F8

    def __len__(self) -> int:
        return len(self.tag)


class Groups(NamedTuple):
    """Rows of a batch grouped by tag, each group in judging order (sensed_us, boot, sequence).

    The rows of group k are `order[start[k]:start[k + 1]]`; they all belong to tag `tag[k]`.
    """

    tag: I4  # (g,)
    start: I8  # (g + 1,)
    order: I8  # (n,)


class Refusal(NamedTuple):
    """Why one reading of a batch is not taken: the first rule it breaks, with the field and the value that breaks it."""

    row: int
    field: str
    value: str
    rule: str


EARLIEST_US = 946_684_800_000_000
"""2000-01-01 UTC. Before it no sensor of ours was made: a clock that says so was never set."""
LATEST_US = 7_258_118_400_000_000
"""2200-01-01 UTC. What lies between our clock and this is kept as a reading of the future (handbook 6)."""

_DOOR = CODE["door_open"]
_DATE, _HALF_SEQUENCE, _NEGATIVE_SEQUENCE, _EMPTY, _NO_LATITUDE, _NO_LONGITUDE = 1, 2, 3, 4, 5, 6
_NAN, _OUTSIDE = 32, 64  # plus the column code
_LOW = np.array([column.low for column in COLUMNS])
_HIGH = np.array([min(column.high, np.finfo(np.float64).max) for column in COLUMNS])  # so that +Inf is outside
_NOT_ASKED = np.zeros((0, 0), np.bool_)


def check(batch: Batch, received_us: int, present: B1 | None = None, most: int | None = None) -> tuple[list[Refusal], B1]:
    """Which readings are plausible (handbook 2): the refusals in row order, and a mask of the rows that are fine.

    One refusal a row, by the first rule it breaks: date, boot and sequence, no value at all, the columns in their order, half a position.
    A sensed time ahead of `received_us` is no reason to refuse (it is kept outside the rules until it has come); only a date
    outside EARLIEST_US … LATEST_US is, and then `received_us` is named for comparison.

    present: (len(codes), n), true where the wire carried a value. With it a value that is present and NaN is refused; without it
    NaN is absent. A latitude needs a longitude and the other way round; accuracy and speed may come alone.
    most: how many refusals are made, the first ones; the mask tells of all.
    """
    why = np.zeros(len(batch), np.uint8)
    codes = np.array(batch.codes, np.int64)
    asked = _NOT_ASKED if present is None else present
    columns = frozen(batch.sensed_us), frozen(batch.boot), frozen(batch.sequence)
    wrong = _check(*columns, codes, frozen(batch.values), frozen(asked), _LOW, _HIGH, why)
    if not wrong:
        return [], np.ones(len(batch), np.bool_)
    refusals = [_refusal(batch, int(row), int(why[row]), received_us) for row in np.flatnonzero(why)[:most]]
    return refusals, why == 0


@compiled
def _check(sensed_us: I8, boot: I8, sequence: I8, codes: I8, values: F8, present: B1, low: F8, high: F8, why: U1) -> int:
    """Fill `why` with 0 or the first broken rule of each row; return the number of broken rows."""
    n = len(sensed_us)
    asked = present.size > 0
    any_value = np.zeros(n, np.bool_)
    fix = np.zeros(n, np.uint8)
    for i in range(n):
        if sensed_us[i] < EARLIEST_US or sensed_us[i] > LATEST_US:
            why[i] = _DATE
        elif (boot[i] == NO_SEQUENCE) != (sequence[i] == NO_SEQUENCE):
            why[i] = _HALF_SEQUENCE
        elif boot[i] < NO_SEQUENCE or sequence[i] < NO_SEQUENCE:
            why[i] = _NEGATIVE_SEQUENCE
    for k in range(len(codes)):
        code = codes[k]
        lowest, highest = low[code], high[code]
        for i in range(n):
            value = values[k, i]
            if value != value:
                if asked and present[k, i]:
                    any_value[i] = True
                    if why[i] == 0:
                        why[i] = _NAN + code
                continue
            any_value[i] = True
            if code == LATITUDE:
                fix[i] |= 1
            elif code == LONGITUDE:
                fix[i] |= 2
            if why[i] == 0 and not (lowest <= value <= highest and (code != _DOOR or value == 0.0 or value == 1.0)):
                why[i] = _OUTSIDE + code
    wrong = 0
    for i in range(n):
        if why[i] == 0:
            if not any_value[i]:
                why[i] = _EMPTY
            elif fix[i] == 1:
                why[i] = _NO_LONGITUDE
            elif fix[i] == 2:
                why[i] = _NO_LATITUDE
        if why[i] != 0:
            wrong += 1
    return wrong


def _refusal(batch: Batch, row: int, why: int, received_us: int) -> Refusal:
    if why >= _NAN:
        code = why - (_OUTSIDE if why >= _OUTSIDE else _NAN)
        column = COLUMNS[code]
        value = float(batch.values[batch.codes.index(code), row])
        return Refusal(row, column.name, repr(value), _bounds(column, code))
    if why == _DATE:
        rule = f"impossible date: must lie between the years 2000 and 2200 (received at {received_us})"
        return Refusal(row, "sensed_us", str(batch.sensed_us[row]), rule)
    if why in (_HALF_SEQUENCE, _NEGATIVE_SEQUENCE):
        field = "boot" if batch.sequence[row] >= 0 else "sequence"
        told = int(batch.boot[row] if field == "boot" else batch.sequence[row])
        rule = "boot and sequence must be given both or neither" if why == _HALF_SEQUENCE else "must be 0 or more"
        return Refusal(row, field, "" if told == NO_SEQUENCE else str(told), rule)
    if why == _EMPTY:
        return Refusal(row, "values", "", "a reading must carry at least one value")
    field, other = ("latitude_deg", "longitude_deg") if why == _NO_LATITUDE else ("longitude_deg", "latitude_deg")
    return Refusal(row, field, "", f"is missing beside {other}: a position needs both")


def _bounds(column: Column, code: int) -> str:
    if code == _DOOR:
        return "must be exactly 0 or 1"
    if column.high == INF:
        return f"must be a finite number, {column.low:g} or more"
    return f"must be a number from {column.low:g} to {column.high:g}"


class Scratch:
    """Memory that `group` uses again from call to call, so that a small batch among a million tags costs nothing extra."""

    def __init__(self) -> None:
        self.slot = np.full(0, -1, np.int32)

    def room_for(self, n_tags: int) -> I4:
        """The slot table, all -1, for tags 0 … n_tags - 1."""
        if len(self.slot) < n_tags:
            self.slot = np.full(max(n_tags, 2 * len(self.slot)), -1, np.int32)
        return self.slot


def group(tag: I4, sensed_us: I8, boot: I8, sequence: I8, n_tags: int, scratch: Scratch | None = None) -> Groups:
    """Rows grouped by tag, each group ordered by (sensed_us, boot, sequence); equal rows keep their order.

    Groups come in the order of their first rows. `n_tags` is more than the largest tag. O(n) where each tag's rows come
    nearly in order, O(n log n) at worst. A scratch is for one thread at a time.
    """
    if len(tag) and not 0 <= int(tag.min()) <= int(tag.max()) < n_tags:
        raise IndexError(f"tag index outside 0 … {n_tags - 1}")
    slot = (scratch or Scratch()).room_for(n_tags)
    return Groups(*_group(frozen(tag), frozen(sensed_us), frozen(boot), frozen(sequence), slot))


@compiled
def _before(a: int, b: int, sensed_us: I8, boot: I8, sequence: I8) -> bool:
    if sensed_us[a] != sensed_us[b]:
        return bool(sensed_us[a] < sensed_us[b])
    if boot[a] != boot[b]:
        return bool(boot[a] < boot[b])
    return bool(sequence[a] < sequence[b])


@compiled
def _group(tag: I4, sensed_us: I8, boot: I8, sequence: I8, slot: I4) -> tuple[I4, I8, I8]:
    n = len(tag)
    tags = np.empty(n, np.int32)
    count = np.zeros(n + 1, np.int64)
    groups = 0
    for i in range(n):
        g = slot[tag[i]]
        if g < 0:
            g = groups
            slot[tag[i]] = g
            tags[g] = tag[i]
            groups += 1
        count[g + 1] += 1
    start = np.cumsum(count[: groups + 1])
    place = start.copy()
    order = np.empty(n, np.int64)
    for i in range(n):
        g = slot[tag[i]]
        order[place[g]] = i
        place[g] += 1
    for g in range(groups):
        slot[tags[g]] = -1
        _sort(order[start[g] : start[g + 1]], sensed_us, boot, sequence)
    return tags[:groups].copy(), start, order


@compiled
def _sort(rows: I8, sensed_us: I8, boot: I8, sequence: I8) -> None:
    """Insertion sort while it is cheap (nearly sorted input), else merge sort; both stable."""
    n = len(rows)
    moves = 8 * n
    for i in range(1, n):
        row = rows[i]
        j = i
        while j > 0 and _before(row, rows[j - 1], sensed_us, boot, sequence):
            rows[j] = rows[j - 1]
            j -= 1
        rows[j] = row
        moves -= i - j
        if moves < 0:
            _merge_sort(rows, sensed_us, boot, sequence)
            return


@compiled
def _merge_sort(rows: I8, sensed_us: I8, boot: I8, sequence: I8) -> None:
    n = len(rows)
    spare = np.empty(n, np.int64)
    width = 1
    while width < n:
        for low in range(0, n, 2 * width):
            middle, high = min(low + width, n), min(low + 2 * width, n)
            a, b = low, middle
            for k in range(low, high):
                if a < middle and (b >= high or not _before(rows[b], rows[a], sensed_us, boot, sequence)):
                    spare[k] = rows[a]
                    a += 1
                else:
                    spare[k] = rows[b]
                    b += 1
        rows[:] = spare
        width *= 2


def subset(batch: Batch, rows: I8 | B1 | slice) -> Batch:
    """The given rows (indices, in the order given, or a mask, or a slice) with all columns."""
    if isinstance(rows, slice):
        values = np.ascontiguousarray(batch.values[:, rows])
    else:  # take and compress are several times faster than indexing along the second axis
        values = batch.values.compress(rows, 1) if rows.dtype == np.bool_ else batch.values.take(rows, 1)
    return Batch(batch.tag[rows], batch.sensed_us[rows], batch.boot[rows], batch.sequence[rows], batch.codes, values)


def concatenate(batches: Sequence[Batch]) -> Batch:
    """One batch of all rows in the order given; it has every column that any of them has, NaN where absent.

    The tag columns are taken as they are: all batches must index the same table of ids.
    """
    if len(batches) == 1:
        return batches[0]
    codes = tuple(sorted({code for batch in batches for code in batch.codes}))
    values = np.empty((len(codes), sum(map(len, batches))))
    at = 0
    for batch in batches:
        have = {code: k for k, code in enumerate(batch.codes)}
        for k, code in enumerate(codes):
            values[k, at : at + len(batch)] = batch.values[have[code]] if code in have else np.nan
        at += len(batch)
    return Batch(
        np.concatenate([np.empty(0, np.int32), *(batch.tag for batch in batches)]),
        np.concatenate([np.empty(0, np.int64), *(batch.sensed_us for batch in batches)]),
        np.concatenate([np.empty(0, np.int64), *(batch.boot for batch in batches)]),
        np.concatenate([np.empty(0, np.int64), *(batch.sequence for batch in batches)]),
        codes,
        values,
    )


def concatenate_flagged(parts: Sequence[tuple[Batch, U1]]) -> tuple[Batch, U1]:
    """As `concatenate`, with the flags beside the values: (m, n) each, MISSING where a part has no such column."""
    flags = concatenate([replace(batch, values=flags.astype(np.float64)) for batch, flags in parts]).values
    return concatenate([batch for batch, _ in parts]), np.where(np.isnan(flags), MISSING, flags).astype(np.uint8)


def warm_up() -> None:
    """Compile (or load from the cache) what the first real call would otherwise wait for."""
    one = np.zeros(1, np.int64)
    batch = Batch(np.zeros(1, np.int32), one + EARLIEST_US, one, one, (0,), np.zeros((1, 1)))
    check(batch, 0)
    group(batch.tag, batch.sensed_us, one, one, 1)
