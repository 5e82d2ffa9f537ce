"""Expected, received and missing sequence numbers, number by number. Imports nothing from actors/."""

from __future__ import annotations

from collections.abc import Iterable


def account(numbers: Iterable[tuple[int, int]]) -> dict[int, tuple[int, int, list[int]]]:
    """Per boot (expected, received, missing numbers) of (boot, sequence) pairs."""
    seen: dict[int, set[int]] = {}
    for boot, sequence in numbers:
        seen.setdefault(boot, set()).add(sequence)
    out = {}
    for boot, mine in seen.items():
        sent = range(min(mine), max(mine) + 1)
        out[boot] = (len(sent), len(mine), [number for number in sent if number not in mine])
    return out
