"""Which version of a limit holds at one moment. Imports nothing from actors/."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def stage_at(moment: int, timeline: Sequence[tuple[int, str]]) -> str | None:
    """The stage that began last, at or before the moment."""
    stage, since = None, None
    for at, name in timeline:
        if at <= moment and (since is None or at >= since):
            stage, since = name, at
    return stage


def threshold_at(
    moment: int,
    limit_id: str,
    versions: Sequence[tuple[int, Mapping[str, tuple[float, tuple[str, ...]]]]],
    timeline: Sequence[tuple[int, str]],
) -> float | None:
    """The threshold of a limit at a moment. A version maps limit ids to (threshold, stages); None where the limit does not hold."""
    newest, since = None, None
    for start, limits in versions:
        if start <= moment and (since is None or start >= since):
            newest, since = limits, start
    if newest is None or limit_id not in newest:
        return None
    threshold, stages = newest[limit_id]
    return threshold if not stages or stage_at(moment, timeline) in stages else None
