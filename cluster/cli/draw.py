"""A line over time drawn in the terminal with Braille dots: eight to a character, two wide and four high."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
from rich.text import Text

DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""Bit of a dot by its row and column in the character."""


def _joined(
    at_us: npt.NDArray[np.int64], values: npt.NDArray[np.float64], columns: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The readings (in order of time), and a point in each column between two that are not far apart: at most 3 usual steps."""
    if len(at_us) < 2:
        return at_us, values
    steps = np.diff(at_us)
    grid = np.linspace(at_us[0], at_us[-1], 2 * columns).astype(np.int64)
    near = steps[np.clip(np.searchsorted(at_us, grid, side="right") - 1, 0, len(steps) - 1)] <= 3 * np.median(steps)
    grid = grid[near]
    return np.concatenate([at_us, grid]), np.concatenate([values, np.interp(grid, at_us, values)])


def line_plot(
    at_us: npt.NDArray[np.int64],
    values: npt.NDArray[np.float64],
    *,
    limits: Sequence[float] = (),
    spans: Sequence[tuple[int, int]] = (),
    width: int = 72,
    height: int = 12,
    unit: str = "",
) -> Text:
    """Values over time, `width` characters wide and `height` high, without the axis.

    limits: thresholds, drawn as dashed lines where they lie near the values. spans: stretches of time [from, until) in which the line
    is red. Where more readings than columns exist, each column shows the lowest to the highest of its readings.

    >>> import numpy as np
    >>> text = line_plot(np.array([0, 60_000_000]), np.array([1.0, 2.0]), width=10, height=2)
    >>> len(text.plain.splitlines())
    3
    """
    keep = ~np.isnan(values)
    at_us, values = at_us[keep], values[keep]
    if not len(values):
        return Text("(no values)")
    low, high = float(values.min()), float(values.max())
    near = [limit for limit in limits if low - (high - low) - 5 <= limit <= high + (high - low) + 5]
    low, high = min([low, *near]), max([high, *near])
    margin = max((high - low) * 0.04, 0.2)
    low, high = low - margin, high + margin
    first, last = int(at_us.min()), int(at_us.max())
    columns, rows = 2 * width, 4 * height

    def column(us: npt.NDArray[np.int64] | int) -> npt.NDArray[np.int64]:
        return np.asarray(np.clip((np.asarray(us) - first) * (columns - 1) // max(last - first, 1), 0, columns - 1))

    def row(value: npt.NDArray[np.float64] | float) -> npt.NDArray[np.int64]:
        return np.asarray(np.clip(np.rint((high - np.asarray(value)) / (high - low) * (rows - 1)).astype(np.int64), 0, rows - 1))

    cells = np.zeros((height, width), np.int64)
    joined_us, joined = _joined(at_us, values, columns)
    x, y = column(joined_us), row(joined)
    top, bottom = np.full(columns, rows), np.full(columns, -1)
    np.minimum.at(top, x, y)
    np.maximum.at(bottom, x, y)
    for at in np.flatnonzero(bottom >= 0).tolist():
        for dot in range(top[at], bottom[at] + 1):
            cells[dot // 4, at // 2] |= DOTS[dot % 4, at % 2]
    dashed = {int(row(limit)) // 4 for limit in near}
    red = np.zeros(width, bool)
    for begin, end in spans:
        if end > first and begin <= last:
            red[int(column(begin)) // 2 : int(column(min(end, last))) // 2 + 1] = True

    text = Text()
    for r in range(height):
        value = high - (4 * r + 1.5) / (rows - 1) * (high - low)
        text.append(f"{value:8.1f}{unit} ", style="dim")
        text.append("┤", style="dim")
        for c in range(width):
            if cells[r, c]:
                text.append(chr(0x2800 + int(cells[r, c])), style="red" if red[c] else "cyan")
            elif r in dashed and c % 2 == 0:
                text.append("╌", style="yellow")
            else:
                text.append(" ")
        text.append("\n")
    left, right = (datetime.fromtimestamp(us // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M") for us in (first, last))
    text.append(" " * (10 + len(unit)) + left + right.rjust(max(1, width - len(left))), style="dim")
    return text
