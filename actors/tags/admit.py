"""Identity: which readings of a batch are new, which are known, which conflict, and which are late.

Handbook 6: a reading's identity is (tag, boot, sequence) where the device tells both, else (tag, sensed_at, metric), a position
being one metric. The accepted readings go to the ring at once, so that a copy later in the same batch is found there.
What neither the sequence ranges nor the ring can decide is UNSURE: the caller looks it up in the journal and calls again.
So is, where the ring does not know it, a sequence out of a hole that a tag with too many ranges has closed.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

from actors.rules._compile import frozen
from actors.rules.readings import ACCEPTED, CONFLICTING, DUPLICATE, F8, I4, I8, LATITUDE, SPEED, U1, Groups
from actors.tags.columns import MIN_US, SPECIAL_NEIGHBOURS, TAG, grown
from actors.tags.prefetch import AHEAD, LINE, prefetch
from actors.tags.ring import Ring

UNSURE = 0
FIRST_POSITION_CODE, LAST_POSITION_CODE = LATITUDE, SPEED
RANGES_MAX = 256
"""Of a tag, besides its top one, before holes are closed. A tag that loses a tenth of its readings has so many after 2,560."""
_RANGES_MAX, _COUNTED = RANGES_MAX, np.iinfo(np.uint16).max
_NONE_US = MIN_US
_ROW_BYTES = TAG.itemsize
_LEARN = 8


class Ranges:
    """Sequence ranges of all tags but their top ones: linked lists of (boot, low, high), in no order.

    A tag's top range, the highest of the boot that it was heard of last, is in its row; most tags have no other.
    Where a tag has more than RANGES_MAX others, each new one has the two lowest of its boot become one: the hole between them is closed,
    and what comes out of it later looks as if it had been received. So a tag has at most RANGES_MAX, and one for each boot.
    """

    def __init__(self) -> None:
        self.boot: I8 = np.zeros(64, dtype=np.int64)
        self.low: I8 = np.zeros(64, dtype=np.int64)
        self.high: I8 = np.zeros(64, dtype=np.int64)
        self.next: I4 = np.zeros(64, dtype=np.int32)
        self.state = np.array([0, -1], dtype=np.int64)  # used, head of the free list

    def make_room(self, more: int) -> None:
        """Room for `more` new ranges."""
        needed = int(self.state[0]) + more
        self.boot, self.low, self.high, self.next = (grown(a, needed) for a in (self.boot, self.low, self.high, self.next))


@nb.njit(cache=True, nogil=True)
def _take_range(tags: Any, t: int, taken: int, r_next: I4, r_state: I8) -> None:
    """Remove a range from the list of tag t."""
    before = -1
    node = tags[t].range_head
    while node != taken:
        before = node
        node = r_next[node]
    if before < 0:
        tags[t].range_head = r_next[taken]
    else:
        r_next[before] = r_next[taken]
    r_next[taken] = r_state[1]
    r_state[1] = taken
    tags[t].ranges -= 1


@nb.njit(cache=True, nogil=True)
def _close_lowest_hole(tags: Any, t: int, boot: int, r_boot: I8, r_low: I8, r_high: I8, r_next: I4, r_state: I8) -> None:
    """Make one of the two lowest ranges of a boot of tag t, where it has two."""
    first, second = -1, -1
    node = tags[t].range_head
    while node >= 0:
        if r_boot[node] == boot:
            if first < 0 or r_low[node] < r_low[first]:
                first, second = node, first
            elif second < 0 or r_low[node] < r_low[second]:
                second = node
        node = r_next[node]
    if second >= 0:
        r_high[first] = r_high[second]
        _take_range(tags, t, second, r_next, r_state)


@nb.njit(cache=True, nogil=True)
def _put_range(tags: Any, t: int, boot: int, low: int, high: int, r_boot: I8, r_low: I8, r_high: I8, r_next: I4, r_state: I8) -> None:
    """Add a range to the list of tag t."""
    if r_state[1] >= 0:
        node = r_state[1]
        r_state[1] = r_next[node]
    else:
        node = r_state[0]
        r_state[0] += 1
    r_boot[node], r_low[node], r_high[node] = boot, low, high
    r_next[node] = tags[t].range_head
    tags[t].range_head = node
    tags[t].ranges = min(tags[t].ranges + 1, _COUNTED)
    if tags[t].ranges > _RANGES_MAX:
        _close_lowest_hole(tags, t, boot, r_boot, r_low, r_high, r_next, r_state)


@nb.njit(cache=True, nogil=True)
def _note_sequence(tags: Any, t: int, boot: int, sequence: int, r_boot: I8, r_low: I8, r_high: I8, r_next: I4, r_state: I8) -> bool:
    """Add (boot, sequence) to the ranges of tag t. True where a range held it already, or it is out of a hole that was closed."""
    top = tags[t]
    any_top = top.top_sequence >= 0
    on_top = any_top and top.top_boot == boot
    if on_top and sequence > top.top_sequence:
        if sequence > top.top_sequence + 1:
            _put_range(tags, t, boot, top.top_low, top.top_sequence, r_boot, r_low, r_high, r_next, r_state)
            top.top_low = sequence
        top.top_sequence = sequence
        return False
    if on_top and sequence >= top.top_low:
        return True
    below, above = -1, -1  # the ranges that end just before the sequence, and begin just after it
    node = top.range_head
    while node >= 0:
        if r_boot[node] == boot:
            if r_low[node] <= sequence <= r_high[node]:
                return True
            if r_high[node] == sequence - 1:
                below = node
            elif r_low[node] == sequence + 1:
                above = node
        node = r_next[node]
    if on_top and sequence == top.top_low - 1:
        top.top_low = sequence
        if below >= 0:
            top.top_low = r_low[below]
            _take_range(tags, t, below, r_next, r_state)
        return False
    if below >= 0 and above >= 0:
        r_high[below] = r_high[above]
        _take_range(tags, t, above, r_next, r_state)
    elif below >= 0:
        r_high[below] = sequence
    elif above >= 0:
        r_low[above] = sequence
    elif on_top:
        _put_range(tags, t, boot, sequence, sequence, r_boot, r_low, r_high, r_next, r_state)
    if on_top:
        return False
    # Another boot than that of the top range: its highest range is the top one from now on.
    low, high, highest = sequence, sequence, -1
    node = top.range_head
    while node >= 0:
        if r_boot[node] == boot and r_high[node] >= high:
            low, high, highest = r_low[node], r_high[node], node
        node = r_next[node]
    if highest >= 0:
        _take_range(tags, t, highest, r_next, r_state)
        if below < 0 and above < 0:
            _put_range(tags, t, boot, sequence, sequence, r_boot, r_low, r_high, r_next, r_state)
    if any_top:
        _put_range(tags, t, top.top_boot, top.top_low, top.top_sequence, r_boot, r_low, r_high, r_next, r_state)
    top.top_boot, top.top_low, top.top_sequence = boot, low, high
    return False


@nb.njit(cache=True, nogil=True)
def _same(a: float, b: float) -> bool:
    """Equal bit for bit as far as plausible values go; two absences are equal."""
    if np.isnan(a):
        return bool(np.isnan(b))
    if a == 0.0 and b == 0.0:
        return bool(np.signbit(a) == np.signbit(b))
    return a == b


@nb.njit(cache=True, nogil=True)
def admit(
    g_tag: I4,
    g_start: I8,
    g_order: I8,
    sensed_us: I8,
    boot: I8,
    sequence: I8,
    values: F8,
    code_of_row: I8,
    tags: Any,
    r_boot: I8,
    r_low: I8,
    r_high: I8,
    r_next: I4,
    r_state: I8,
    head: I8,
    capacity: int,
    ring_tag: I4,
    ring_mark: U1,
    ring_sensed: I8,
    ring_boot: I8,
    ring_sequence: I8,
    ring_previous: I8,
    ring_before: I8,
    ring_values: F8,
    row_of_code: I8,
    received_us: int,
    horizon_us: int,
    certain: bool,
    status: U1,
    fast_tag: I4,
    fast_start: I8,
    fast_order: I8,
    slow_tag: I4,
    slow_from: I8,
    woken: I4,
    future: I8,
    counts: I8,
) -> None:
    """Give each row a status, put the new ones into the ring, and part the groups into fast and slow ones.

    certain: every row is known to be new (a replay of the journal, or looked up there).
    A group is fast where all its new readings are newer than everything known of the tag and inside its open custody:
    it advances the head. The others, and all of tags whose quality tests look at neighbours, are slow, with the earliest new sensed time.
    `values` loses (NaN) what a partly known reading repeats.
    counts: [fast groups, fast rows, slow groups, woken tags, future rows, unsure rows].
    """
    columns = values.shape[0]
    n_fast, n_rows, n_slow, n_woken, n_future, n_unsure = 0, 0, 0, 0, 0, 0
    fast_start[0] = 0
    for g in range(len(g_tag)):
        t = g_tag[g]
        if g + AHEAD < len(g_tag):
            for byte in range(0, _ROW_BYTES, LINE):
                prefetch(tags, g_tag[g + AHEAD], byte)
        slow = False
        earliest = received_us + (1 << 60)
        rows_before = n_rows
        rides = tags[t].shape > 0
        for k in range(g_start[g], g_start[g + 1]):
            r = g_order[k]
            at = sensed_us[r]
            verdict = ACCEPTED
            if sequence[r] >= 0:
                held = _note_sequence(tags, t, boot[r], sequence[r], r_boot, r_low, r_high, r_next, r_state)
                if held and not certain:
                    verdict = UNSURE
                    number, upper = tags[t].ring_last, tags[t].known_us
                    while True:
                        if upper <= _NONE_US:
                            verdict = ACCEPTED
                            break
                        if number < 0 or number < head[0] - capacity:
                            break
                        slot = number % capacity
                        if ring_boot[slot] == boot[r] and ring_sequence[slot] == sequence[r]:
                            same = ring_sensed[slot] == at
                            held_columns = 0
                            for m in range(columns):
                                if not _same(values[m, r], ring_values[row_of_code[code_of_row[m]], slot]):
                                    same = False
                                if not np.isnan(values[m, r]):
                                    held_columns += 1
                            for m in range(ring_values.shape[0]):
                                if not np.isnan(ring_values[m, slot]):
                                    held_columns -= 1
                            verdict = DUPLICATE if same and held_columns == 0 else CONFLICTING
                            break
                        upper = ring_before[slot]
                        number = ring_previous[slot]
            elif not certain and at <= tags[t].known_us:
                found_new, found_other = False, False
                held_mask = 0  # columns of this reading that are known already, by row of values
                position_known, position_same = False, True
                number, upper = tags[t].ring_last, tags[t].known_us
                unsure = False
                while upper >= at:
                    if number < 0 or number < head[0] - capacity:
                        unsure = True
                        break
                    slot = number % capacity
                    if ring_sensed[slot] == at and ring_sequence[slot] < 0:
                        lat_row = row_of_code[FIRST_POSITION_CODE]
                        ring_position = lat_row >= 0 and not np.isnan(ring_values[lat_row, slot])
                        for m in range(columns):
                            code = code_of_row[m]
                            other = ring_values[row_of_code[code], slot]
                            if code >= FIRST_POSITION_CODE:
                                if ring_position:
                                    position_known = True
                                    if not _same(values[m, r], other):
                                        position_same = False
                            elif not np.isnan(values[m, r]) and not np.isnan(other):
                                held_mask |= 1 << m
                                if not _same(values[m, r], other):
                                    found_other = True
                        if ring_position:
                            # A column of the held fix that this batch does not carry at all.
                            for code in range(FIRST_POSITION_CODE, LAST_POSITION_CODE + 1):
                                row = row_of_code[code]
                                if row >= 0 and not np.isnan(ring_values[row, slot]):
                                    carried = False
                                    for m in range(columns):
                                        if code_of_row[m] == code:
                                            carried = True
                                    if not carried:
                                        position_same = False
                    upper = ring_before[slot]
                    number = ring_previous[slot]
                if unsure:
                    verdict = UNSURE
                else:
                    has_position = False
                    for m in range(columns):
                        if not np.isnan(values[m, r]):
                            if code_of_row[m] >= FIRST_POSITION_CODE:
                                has_position = True
                            elif held_mask & (1 << m) == 0:
                                found_new = True
                    if has_position:
                        if not position_known:
                            found_new = True
                        elif not position_same:
                            found_other = True
                    if found_new:
                        for m in range(columns):
                            if held_mask & (1 << m) or (position_known and code_of_row[m] >= FIRST_POSITION_CODE):
                                values[m, r] = np.nan
                    verdict = CONFLICTING if found_other else (ACCEPTED if found_new else DUPLICATE)
                    if found_other and found_new:
                        status[r] = CONFLICTING
                        verdict = ACCEPTED  # what is new of it is kept; the answer still says conflicting
                        tags[t].conflicting += 1
            if verdict == UNSURE:
                status[r] = UNSURE
                n_unsure += 1
                continue
            if verdict == DUPLICATE:
                status[r] = DUPLICATE
                tags[t].duplicate += 1
                continue
            if verdict == CONFLICTING:
                status[r] = CONFLICTING
                tags[t].conflicting += 1
                continue
            if status[r] != CONFLICTING:
                status[r] = ACCEPTED
            tags[t].accepted += 1
            slot = head[0] % capacity
            ring_tag[slot] = t
            ring_sensed[slot] = at
            ring_boot[slot] = boot[r]
            ring_sequence[slot] = sequence[r]
            ring_previous[slot] = tags[t].ring_last
            ring_before[slot] = tags[t].known_us
            ring_mark[slot] = 0
            for m in range(ring_values.shape[0]):
                ring_values[m, slot] = np.nan
            for m in range(columns):
                ring_values[row_of_code[code_of_row[m]], slot] = values[m, r]
            tags[t].ring_last = head[0]
            head[0] += 1
            if at > tags[t].known_us:
                tags[t].known_us = at
            if at > horizon_us:
                ring_mark[slot] = 1
                future[n_future] = r
                n_future += 1
                continue
            if at < earliest:
                earliest = at
            newest = tags[t].newest_us
            in_order = at > newest or (
                at == newest
                and (boot[r] > tags[t].newest_boot or (boot[r] == tags[t].newest_boot and sequence[r] > tags[t].newest_sequence))
            )
            if in_order:
                if newest > _NONE_US and at > newest:
                    step = at - newest
                    usual = tags[t].usual_interval_us
                    tags[t].usual_interval_us = step if usual == 0 else usual + (step - usual) // _LEARN
                tags[t].newest_us = at
                tags[t].newest_boot = boot[r]
                tags[t].newest_sequence = sequence[r]
            else:
                tags[t].late += 1
            if at < tags[t].past_until_us or (rides and (not in_order or at < tags[t].custody_from_us)):
                slow = True
            fast_order[n_rows] = r
            n_rows += 1
        if received_us > tags[t].received_us:
            tags[t].received_us = received_us
        if tags[t].silent:
            tags[t].silent = 0
            woken[n_woken] = t
            n_woken += 1
        if n_rows > rows_before:
            if slow or (tags[t].special & SPECIAL_NEIGHBOURS) != 0 or (rides and tags[t].special != 0):
                n_rows = rows_before
                slow_tag[n_slow] = t
                slow_from[n_slow] = earliest
                n_slow += 1
            elif rides:
                fast_tag[n_fast] = t
                n_fast += 1
                fast_start[n_fast] = n_rows
            else:
                n_rows = rows_before
    counts[0], counts[1], counts[2], counts[3], counts[4], counts[5] = n_fast, n_rows, n_slow, n_woken, n_future, n_unsure


class Admission:
    """What `admit` found: `fast` groups to advance, slow tags with their earliest new time, woken tags, future rows."""

    __slots__ = ("fast", "future", "slow_from", "slow_tag", "status", "unsure", "woken")

    def __init__(self, status: U1, fast: Groups, slow_tag: I4, slow_from: I8, woken: I4, future: I8, unsure: int) -> None:
        self.status = status
        self.fast = fast
        self.slow_tag = slow_tag
        self.slow_from = slow_from
        self.woken = woken
        self.future = future
        self.unsure = unsure


def run(
    groups: Groups,
    batch: Any,
    tags: npt.NDArray[Any],
    ranges: Ranges,
    ring: Ring,
    received_us: int,
    horizon_us: int,
    certain: bool,
    status: U1,
) -> Admission:
    """`admit` with its buffers. `batch.values` may be written to; `status` is filled for the rows of `groups`."""
    rows, many = len(groups.order), len(groups.tag)
    ring.make_room(batch.codes)
    ranges.make_room(rows)
    fast_tag, fast_start, fast_order = np.empty(many, np.int32), np.empty(many + 1, np.int64), np.empty(rows, np.int64)
    slow_tag, slow_from, woken = np.empty(many, np.int32), np.empty(many, np.int64), np.empty(many, np.int32)
    future, counts = np.empty(rows, np.int64), np.zeros(6, np.int64)
    admit(
        frozen(groups.tag), frozen(groups.start), frozen(groups.order), frozen(batch.sensed_us), frozen(batch.boot),
        frozen(batch.sequence), batch.values, frozen(np.array(batch.codes, dtype=np.int64)), tags,
        ranges.boot, ranges.low, ranges.high, ranges.next, ranges.state,
        ring.head, ring.capacity, ring.tag, ring.mark, ring.sensed_us, ring.boot, ring.sequence, ring.previous, ring.before_us,
        ring.values, frozen(ring.row_of_code), received_us, horizon_us, certain,
        status, fast_tag, fast_start, fast_order, slow_tag, slow_from, woken, future, counts,
    )  # fmt: skip
    n_fast, n_rows, n_slow, n_woken, n_future, n_unsure = (int(count) for count in counts)
    return Admission(
        status,
        Groups(fast_tag[:n_fast], fast_start[: n_fast + 1], fast_order[:n_rows]),
        slow_tag[:n_slow],
        slow_from[:n_slow],
        woken[:n_woken],
        future[:n_future],
        n_unsure,
    )
