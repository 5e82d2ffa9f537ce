"""Plots of a value over time with limits, excursions, gaps and stages; and bars by day."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from services.reports.figure import Box, Dot, Figure, Label, Line, Points, Shape

LEFT, RIGHT, TOP, BOTTOM = 46.0, 14.0, 22.0, 40.0
HOUR_US = 3_600_000_000
TICKS_US = tuple(
    round(hours * HOUR_US) for hours in (1 / 12, 1 / 6, 0.25, 0.5, 1, 2, 3, 6, 12, 24, 48, 96, 168, 336, 672, 1344, 2688, 5376)
)
MOST_POINTS = 1_400
"""A line is thinned to lowest and highest values in about half as many columns: more than a page can show."""


@dataclass(frozen=True)
class Series:
    """A line: times (microseconds, ascending) and values. It breaks after each time in `gaps_us`."""

    times_us: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    style: str = "value"
    gaps_us: tuple[int, ...] = ()


@dataclass(frozen=True)
class Threshold:
    """A horizontal limit and its name. Style: limit, limit-old (one that was in force before)."""

    value: float
    name: str
    style: str = "limit"


@dataclass(frozen=True)
class Span:
    """A stretch of time and what a pointer over it tells. Style: excursion, mkt (a band at the top), gone (retracted), gap."""

    from_us: int
    until_us: int
    style: str
    title: str = ""


def thinned(times_us: npt.NDArray[np.int64], values: npt.NDArray[np.float64], most: int = MOST_POINTS) -> npt.NDArray[np.int64]:
    """Indices of at most about `most` readings: of each of equal stretches of rows the lowest and the highest, and both ends."""
    count = len(times_us)
    if count <= most:
        return np.arange(count)
    edges = np.linspace(0, count, most // 2 + 1).astype(np.int64)
    keep = {0, count - 1}
    for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if last > first:
            keep |= {first + int(np.argmin(values[first:last])), first + int(np.argmax(values[first:last]))}
    return np.array(sorted(keep))


class Frame:
    """The axes: from times and values to points."""

    def __init__(self, span_us: tuple[int, int], values: tuple[float, float], width: float, height: float, bottom: float) -> None:
        self.from_us, self.until_us = span_us[0], max(span_us[1], span_us[0] + 1)
        self.low, self.high = values
        self.width, self.height = width, height
        self.right, self.bottom = width - RIGHT, height - bottom

    def x(self, us: float) -> float:
        """Of a time, kept inside."""
        share = (us - self.from_us) / (self.until_us - self.from_us)
        return LEFT + min(1.0, max(0.0, share)) * (self.right - LEFT)

    def y(self, value: float) -> float:
        """Of a value."""
        return self.bottom - (value - self.low) / (self.high - self.low) * (self.bottom - TOP)

    def points(self, times_us: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> Points:
        """(n, 2) points of readings."""
        x = LEFT + (times_us - self.from_us) / (self.until_us - self.from_us) * (self.right - LEFT)
        y = self.bottom - (values - self.low) / (self.high - self.low) * (self.bottom - TOP)
        return np.column_stack([x, y])


def time_plot(
    series: Sequence[Series],
    span_us: tuple[int, int],
    *,
    unit: str,
    limits: Sequence[Threshold] = (),
    spans: Sequence[Span] = (),
    stages: Sequence[tuple[int, str]] = (),
    peak: tuple[int, float, str] | None = None,
    width: float = 960.0,
    height: float = 300.0,
) -> Figure:
    """Lines over [from_us, until_us) with their limits; `stages` as (from_us, name); `peak`: the worst value, marked, with its words."""
    bottom = BOTTOM + (16.0 if stages else 0.0)
    shown = [one.values[np.isfinite(one.values)] for one in series]
    everything = np.concatenate([*shown, np.array([one.value for one in limits])])
    low, high, step = scale(float(everything.min()), float(everything.max())) if len(everything) else (0.0, 1.0, 0.5)
    frame = Frame(span_us, (low, high), width, height, bottom)
    shapes: list[Shape] = []
    for one in spans:
        left, right = frame.x(one.from_us), frame.x(one.until_us)
        tall = 5.0 if one.style == "mkt" else frame.bottom - TOP
        shapes.append(Box(left, TOP, max(1.5, right - left), tall, one.style, one.title))
    shapes += _values(frame, step, unit)
    shapes += _times(frame)
    for line in sorted(series, key=lambda each: each.style == "value"):
        shapes += _line(frame, line)
    shapes += _limits(frame, limits)
    if peak is not None:
        x, y = frame.x(peak[0]), frame.y(peak[1])
        above = y - TOP > 26
        shapes.append(Dot(x, y, 3.6, "end", peak[2]))
        anchor = "start" if x < LEFT + 90 else "end" if x > frame.right - 90 else "middle"
        shapes.append(Label(x, y - 9 if above else y + 18, peak[2], "place", anchor))  # type: ignore[arg-type]
    shapes += _stages(frame, stages)
    return Figure(width, height, shapes)


def scale(low: float, high: float) -> tuple[float, float, float]:
    """Round ends and step of an axis that holds both values, with room above and below.

    >>> scale(2.1, 14.2)
    (0.0, 16.0, 2.0)
    """
    room = max(high - low, 0.5) * 0.08
    low, high = low - room, high + room
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * one for one in (1, 2, 5, 10) if power * one >= rough)
    return math.floor(low / step) * step, math.ceil(high / step) * step, step


def _line(frame: Frame, one: Series) -> Iterable[Shape]:
    rows = thinned(one.times_us, one.values)
    times, values = one.times_us[rows], one.values[rows]
    breaks = np.searchsorted(times, np.array(sorted(one.gaps_us), np.int64), "right")
    for piece in np.split(np.arange(len(rows)), breaks):
        points = frame.points(times[piece], values[piece])
        if len(points) == 1:
            yield Dot(float(points[0, 0]), float(points[0, 1]), 1.6, "fix")
        elif len(points):
            yield Line(points, one.style)


def _values(frame: Frame, step: float, unit: str) -> Iterable[Shape]:
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    for k in range(round(frame.low / step), round(frame.high / step) + 1):
        y = frame.y(k * step)
        yield Line(np.array([[LEFT, y], [frame.right, y]]), "grid")
        yield Label(LEFT - 7, y + 3.5, f"{k * step:.{digits}f}".replace("-", "−"), "tick", "end")
    yield Label(LEFT - 7, TOP - 11, unit, "name", "end")


def _times(frame: Frame) -> Iterable[Shape]:
    """Ticks at round times (UTC); the date under the first of each day."""
    most = (frame.right - LEFT) / 62
    span_us = frame.until_us - frame.from_us
    step = next((one for one in TICKS_US if span_us / one <= most), TICKS_US[-1])
    last_day = ""
    for us in range(-(-frame.from_us // step) * step, frame.until_us + 1, step):
        x = frame.x(us)
        moment = datetime.fromtimestamp(us / 1e6, UTC)
        yield Line(np.array([[x, frame.bottom], [x, frame.bottom + 4]]), "axis")
        day = f"{moment.day} {moment:%b}" if span_us < 300 * 24 * HOUR_US else f"{moment:%b %Y}"
        if step < 24 * HOUR_US:
            yield Label(x, frame.bottom + 15, f"{moment:%H:%M}", "tick", "middle")
        if day != last_day and (step >= 24 * HOUR_US or moment.hour == 0 or not last_day):
            yield Label(x, frame.bottom + (15 if step >= 24 * HOUR_US else 29), day, "name", "middle")
            last_day = day
    yield Line(np.array([[LEFT, frame.bottom], [frame.right, frame.bottom]]), "axis")


def _limits(frame: Frame, limits: Sequence[Threshold]) -> Iterable[Shape]:
    by_value: dict[tuple[float, str], list[str]] = {}
    for one in limits:
        by_value.setdefault((one.value, one.style), []).append(one.name)
    for (value, style), names in by_value.items():
        y = frame.y(value)
        yield Line(np.array([[LEFT, y], [frame.right, y]]), style)
        yield Label(frame.right - 2, y - 4, ", ".join(dict.fromkeys(names)), f"{style}-name", "end")


def _stages(frame: Frame, stages: Sequence[tuple[int, str]]) -> Iterable[Shape]:
    ends = [*(from_us for from_us, _ in stages[1:]), frame.until_us][: len(stages)]
    for k, ((from_us, name), until_us) in enumerate(zip(stages, ends, strict=True)):
        left, right = frame.x(from_us), frame.x(until_us)
        if right - left < 1:
            continue
        yield Box(left + 0.5, frame.height - 16, right - left - 1, 13, "stage" if k % 2 == 0 else "other-stage", name)
        if right - left > 6 * len(name) + 8:
            yield Label((left + right) / 2, frame.height - 6.5, name, "stage-name", "middle")


def day_bars(days: Sequence[str], before: Sequence[float], after: Sequence[float], width: float = 960.0, height: float = 220.0) -> Figure:
    """Two bars for each day, before (grey) and after (blue), with their scale."""
    top = max([1.0, *before, *after])
    low, high, step = 0.0, *scale(0.0, top)[1:]
    step = max(1.0, step)
    high = math.ceil(top / step) * step
    frame = Frame((0, max(1, len(days))), (low, high), width, height, 30.0)
    shapes: list[Shape] = list(_values(frame, step, ""))
    slot = (frame.right - LEFT) / max(1, len(days))
    every = max(1, math.ceil(len(days) * 58 / (frame.right - LEFT)))
    for k, (day, old, new) in enumerate(zip(days, before, after, strict=True)):
        x = LEFT + k * slot
        wide = min(26.0, slot * 0.38)
        middle = x + slot / 2
        for value, left, word in ((old, middle - wide, "before"), (new, middle, "after")):
            y = frame.y(value)
            shapes.append(Box(left, y, wide - 1, frame.bottom - y, word, f"{day}: {value:g} {word}"))
        if k % every == 0:
            shapes.append(Label(middle, frame.bottom + 16, day, "tick", "middle"))
    shapes.append(Line(np.array([[LEFT, frame.bottom], [frame.right, frame.bottom]]), "axis"))
    return Figure(width, height, shapes)
