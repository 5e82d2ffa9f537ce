"""How the exposure tests write limits, windows and series: in minutes, and in the words of the plain reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from actors.rules import exposure
from tests.reference import exposure as plain

MINUTE = 60_000_000
HOUR = 60 * MINUTE
ALWAYS = (-exposure.FOREVER_US, exposure.FOREVER_US)


def limit_rows(*limits: plain.Limit, window_us: int = 0) -> Any:
    """LIMIT rows of the reference's limits; metric 0."""
    rows = np.zeros(len(limits), exposure.LIMIT)
    for row, limit in zip(rows, limits, strict=True):
        row["direction"] = limit.direction
        row["inclusive"] = limit.inclusive
        row["mode"] = limit.mode
        row["threshold"] = limit.threshold
        row["clear"] = np.nan if limit.clear is None else limit.clear
        row["allowance_us"] = exposure.NO_ALLOWANCE_US if limit.allowance_us is None else limit.allowance_us
        row["beyond"] = np.nan if limit.beyond is None else limit.beyond
        row["beyond_allowance_us"] = limit.beyond_allowance_us
        row["window_us"] = window_us
        row["max_gap_us"] = limit.max_gap_us
    return rows


def tables(windows: Sequence[plain.Window], window_us: int = 0) -> tuple[Any, Any]:
    """(WINDOW rows, LIMIT rows): a limit row for each window."""
    rows = np.array([(w.from_us, w.until_us, i) for i, w in enumerate(windows)], exposure.WINDOW)
    return rows, limit_rows(*(w.limit for w in windows), window_us=window_us)


def series(readings: Sequence[tuple[int, float]]) -> tuple[Any, Any]:
    return np.array([t for t, _ in readings], np.int64), np.array([v for _, v in readings], np.float64)


def track_of(windows: Sequence[plain.Window], from_us: int, until_us: int | None = None, violation_us: int = 0) -> Any:
    end_us = exposure.FOREVER_US if until_us is None else until_us
    mode = windows[0].limit.mode if windows else exposure.SINGLE
    return exposure.fresh(0, mode, 0, len(windows), from_us, end_us, violation_us)


def judge(
    readings: Sequence[tuple[int, float]],
    limit: plain.Limit | Sequence[plain.Window],
    from_us: int = 0,
    until_us: int | None = None,
    violation_us: int = 0,
    end_value: float | None = None,
) -> plain.Exposure:
    """Judge with the kernel, in the reference's words; unconfirmed runs are not among the runs."""
    windows = [plain.Window(*ALWAYS, limit)] if isinstance(limit, plain.Limit) else limit
    window_rows, limits = tables(windows)
    track, runs = exposure.judge(
        *series(readings),
        track_of(windows, from_us, until_us, violation_us),
        window_rows,
        limits,
        closed=until_us is not None,
        end_value=np.nan if end_value is None else end_value,
    )
    return told(track, runs, window_rows)


def told(track: Any, runs: Any, window_rows: Any) -> plain.Exposure:
    """What the kernel says of one track, in the reference's words."""
    (total,) = exposure.summary(track, 0, window_rows)
    final = np.concatenate([runs[runs["kind"] == exposure.ENDED], exposure.open_runs(track, 0, window_rows)])
    confirmed = runs[runs["kind"] == exposure.CONFIRMED]
    assert confirmed[["start_us", "triggered_us"]].tolist() == final[["start_us", "triggered_us"]].tolist()
    return plain.Exposure(
        violation_us=int(total["violation_us"]),
        covered_us=int(total["covered_us"]),
        uncovered_us=int(total["uncovered_us"]),
        extreme=None if np.isnan(total["extreme"]) else float(total["extreme"]),
        extreme_us=None if np.isnan(total["extreme"]) else int(total["extreme_us"]),
        readings=int(total["readings"]),
        runs=[
            plain.Run(
                start_us=int(run["start_us"]),
                triggered_us=int(run["triggered_us"]),
                end_us=None if run["end_us"] == exposure.FOREVER_US else int(run["end_us"]),
                run_us=int(run["run_us"]),
                uncovered_us=int(run["uncovered_us"]),
                extreme=float(run["extreme"]),
                extreme_us=int(run["extreme_us"]),
                weighted=float(run["weighted"]),
                readings=int(run["readings"]),
            )
            for run in final
        ],
    )
