"""Stock once more, slow and obvious: the whole ledger is added up for every question; nothing is kept."""

from __future__ import annotations

from fractions import Fraction

Line = tuple[str, ...]
Entry = tuple[int, list[tuple[Line, Fraction]]]
"""(when it happened, its legs)"""


def on(ledger: list[Entry], line: Line, as_of: int | None = None) -> Fraction:
    """A line's quantity, now or up to a time."""
    total = Fraction(0)
    for at, legs in ledger:
        if as_of is None or at <= as_of:
            for where, more in legs:
                if where == line:
                    total += more
    return total


def move(kind: str, at: int, here: Line, there: Line | None, quantity: Fraction) -> Entry:
    """An entry that takes from one line and, where there is a target, puts into another."""
    legs = [(here, quantity if kind in ("RECEIVE", "ADJUST") else -quantity)]
    if there is not None:
        legs.append((there, quantity))
    return at, legs


def count(ledger: list[Entry], at: int, line: Line, counted: Fraction) -> Entry:
    """The entry that makes the sum up to `at` what was counted."""
    return at, [(line, counted - on(ledger, line, at))]


def differences(left: dict[Line, Fraction], right: dict[Line, Fraction]) -> dict[Line, Fraction]:
    """right - left where they differ."""
    lines = set(left) | set(right)
    return {line: right.get(line, Fraction(0)) - left.get(line, Fraction(0)) for line in lines if left.get(line, 0) != right.get(line, 0)}


def in_band(series: list[tuple[int, float]], low: float, high: float, begin: int, end: int, gap: int) -> int:
    """Time in (low, high] within [begin, end), microsecond by microsecond: so only for short series."""
    total = 0
    for instant in range(begin, end):
        before = [(sensed, value) for sensed, value in series if sensed <= instant]
        if before:
            sensed, value = max(before)
            total += instant - sensed < gap and low < value <= high
    return total


def budgets(moves: list[tuple[int, str, str, bool]], rate: dict[str, int], now: int) -> dict[str, int]:
    """Use per place, instant by instant: each place uses `rate` per instant; (at, from, to, emptied) copies or merges."""
    used: dict[str, int] = {}
    for instant in range(now + 1):
        for at, source, target, emptied in moves:
            if at == instant:
                brought = used.get(source, 0)
                if emptied:
                    used.pop(source, None)
                used[target] = max(used.get(target, 0), brought)
        if instant < now:
            for place in used:
                used[place] += rate[place]
    return used
