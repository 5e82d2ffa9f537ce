"""A map of a journey: land and borders round a track in the Mercator projection, drawn from what is bundled.

The view is the smallest that holds the track and the stops, with a margin and at least MIN_SPAN_DEG; longitudes are those nearest to the
track's own, so a journey over the antimeridian stays in one piece.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.reports.figure import Area, Box, Dot, Figure, Label, Line, Points, Shape
from services.reports.world import outlines

MIN_SPAN_DEG = 0.02
MARGIN = 0.16
MAX_LATITUDE_DEG = 84.0
EARTH_M = 40_075_016.7
"""Circumference at the equator, metres (WGS-84)."""
STEPS_DEG = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)


@dataclass(frozen=True)
class Place:
    """A named place; `reached`: the journey was there."""

    name: str
    latitude_deg: float
    longitude_deg: float
    reached: bool = True


@dataclass(frozen=True)
class Track:
    """Positions of one tag in order, with a mask of those at which an excursion held."""

    latitude_deg: npt.NDArray[np.float64]
    longitude_deg: npt.NDArray[np.float64]
    hot: npt.NDArray[np.bool_]


class View:
    """Projects degrees to points of the figure."""

    def __init__(self, latitude_deg: npt.NDArray[np.float64], longitude_deg: npt.NDArray[np.float64], width: float, height: float) -> None:
        x, y = longitude_deg, mercator(latitude_deg)
        spans = max(np.ptp(x), MIN_SPAN_DEG) * (1 + 2 * MARGIN), max(np.ptp(y), MIN_SPAN_DEG) * (1 + 2 * MARGIN)
        self.scale = min(width / spans[0], height / spans[1], height / 60.0 * 40)  # points per degree of longitude
        self.width, self.height = width, height
        self.centre = (float(x.min() + x.max()) / 2, float(y.min() + y.max()) / 2)

    def points(self, longitude_deg: npt.NDArray[np.float64], latitude_deg: npt.NDArray[np.float64]) -> Points:
        """(n, 2) points; longitudes are taken as they are."""
        x = (longitude_deg - self.centre[0]) * self.scale + self.width / 2
        y = self.height / 2 - (mercator(latitude_deg) - self.centre[1]) * self.scale
        return np.column_stack([x, y])

    @property
    def latitude_deg(self) -> float:
        """Of the middle of the map."""
        return float(inverse(np.array(self.centre[1])))


def mercator(latitude_deg: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Northing in degrees of longitude at the equator. Equation: ln tan(π/4 + φ/2)."""
    phi = np.radians(np.clip(latitude_deg, -MAX_LATITUDE_DEG, MAX_LATITUDE_DEG))
    return np.asarray(np.degrees(np.log(np.tan(np.pi / 4 + phi / 2))))


def inverse(northing_deg: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The latitude of a northing."""
    return np.asarray(np.degrees(2 * np.arctan(np.exp(np.radians(northing_deg))) - np.pi / 2))


def journey_map(tracks: Sequence[Track], places: Sequence[Place], width: float = 520.0, height: float = 340.0) -> Figure | None:
    """The map; None where there is neither a position nor a place."""
    latitude = np.concatenate([*(one.latitude_deg for one in tracks), np.array([one.latitude_deg for one in places])])
    longitude = np.concatenate([*(one.longitude_deg for one in tracks), np.array([one.longitude_deg for one in places])])
    if not len(latitude):
        return None
    longitude = unwrapped(longitude)
    view = View(latitude, longitude, width, height)
    shapes: list[Shape] = [Box(0, 0, width, height, "sea"), *_ground(view), *_graticule(view)]
    at = 0
    ends: list[Shape] = []
    for one in tracks:
        points = view.points(longitude[at : at + len(one.hot)], one.latitude_deg)
        at += len(one.hot)
        shapes.append(Line(_slim(points, 0.7), "track"))
        shapes += [Line(points[first : last + 1], "hot") for first, last in _stretches(one.hot)]
        ends += [Dot(float(x), float(y), 3.2, "fix") for x, y in points[[0, -1]]]
    shapes += ends
    shapes += _places(view, places, longitude[at:])
    shapes += _scale(view)
    shapes.append(Label(width - 6, height - 6, "Natural Earth", "tick", "end"))
    return Figure(width, height, shapes)


def unwrapped(longitude_deg: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Longitudes as those nearest to the middle of the smallest arc that holds them all."""
    around = np.sort(np.mod(longitude_deg, 360.0))
    gaps = np.diff(np.append(around, around[0] + 360.0))
    widest = int(np.argmax(gaps))
    start = float(around[(widest + 1) % len(around)])
    shifted = np.mod(longitude_deg - start + 1e-9, 360.0) + start - 1e-9
    middle = (shifted.min() + shifted.max()) / 2
    return np.asarray(shifted - 360.0 * round(middle / 360.0))


def _ground(view: View) -> Iterable[Shape]:
    world = outlines()
    box = (-4.0, -4.0, view.width + 4.0, view.height + 4.0)
    rings: list[Points] = []
    lines: list[Points] = []
    for turn in (-360.0, 0.0, 360.0):
        for ring in world.land:
            points = view.points(ring[:, 0] + turn, ring[:, 1])
            if _meets(points, box):
                cut = clipped(_slim(points, 0.4), box)
                if len(cut) > 2:
                    rings.append(cut)
        for line in world.borders:
            points = view.points(line[:, 0] + turn, line[:, 1])
            if _meets(points, box):
                lines += _inside(_slim(points, 0.4), box)
    return [*([Area(rings, "land")] if rings else []), *(Line(line, "border") for line in lines)]


def _meets(points: Points, box: tuple[float, float, float, float]) -> bool:
    low, high = points.min(axis=0), points.max(axis=0)
    return bool(low[0] <= box[2] and high[0] >= box[0] and low[1] <= box[3] and high[1] >= box[1])


def clipped(ring: Points, box: tuple[float, float, float, float]) -> Points:
    """A closed ring cut to a box (Sutherland and Hodgman, edge by edge)."""
    points = ring
    for axis, bound, sign in ((0, box[0], 1.0), (0, box[2], -1.0), (1, box[1], 1.0), (1, box[3], -1.0)):
        if not len(points):
            break
        inside = sign * (points[:, axis] - bound) >= 0
        if inside.all():
            continue
        after = np.roll(points, -1, axis=0)
        crosses = inside != np.roll(inside, -1)
        run = np.where(crosses, after[:, axis] - points[:, axis], 1.0)
        cuts = points + ((bound - points[:, axis]) / run)[:, None] * (after - points)
        made = np.empty((2 * len(points), 2))
        made[0::2], made[1::2] = points, cuts
        keep = np.empty(2 * len(points), np.bool_)
        keep[0::2], keep[1::2] = inside, crosses
        points = made[keep]
    return points


def _inside(line: Points, box: tuple[float, float, float, float]) -> list[Points]:
    """The parts of an open line that are in the box or lead into it."""
    within = (line[:, 0] >= box[0]) & (line[:, 0] <= box[2]) & (line[:, 1] >= box[1]) & (line[:, 1] <= box[3])
    near = within.copy()
    near[1:] |= within[:-1]
    near[:-1] |= within[1:]
    return [line[first : last + 1] for first, last in _stretches(near) if last > first]


def _stretches(mask: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last index of every stretch of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(first), int(last) - 1) for first, last in edges.reshape(-1, 2)]


def _slim(points: Points, least: float) -> Points:
    """Without the points that are nearer than `least` to the one kept before; both ends stay."""
    if len(points) < 3:
        return points
    cells = np.floor(points / least).astype(np.int64)
    keep = np.append(np.any(np.diff(cells, axis=0) != 0, axis=1), True)
    keep[0] = True
    return np.asarray(points[keep])


def _graticule(view: View) -> Iterable[Shape]:
    step = next((one for one in STEPS_DEG if one * view.scale >= 90), STEPS_DEG[-1])
    digits = max(0, -math.floor(math.log10(step))) if step < 1 else 0
    left, right = (view.centre[0] + side * view.width / 2 / view.scale for side in (-1, 1))
    for k in range(math.ceil(left / step), math.floor(right / step) + 1):
        x = float((k * step - view.centre[0]) * view.scale + view.width / 2)
        shown = (k * step + 180.0) % 360.0 - 180.0
        yield Line(np.array([[x, 0.0], [x, view.height]]), "graticule")
        if 30 < x < view.width - 30:
            yield Label(x, 12, _degrees(shown, digits, "E", "W"), "tick", "middle")
    low, high = (float(inverse(np.array(view.centre[1] + side * view.height / 2 / view.scale))) for side in (-1, 1))
    for k in range(math.ceil(low / step), math.floor(high / step) + 1):
        y = float(view.points(np.array([view.centre[0]]), np.array([k * step]))[0, 1])
        yield Line(np.array([[0.0, y], [view.width, y]]), "graticule")
        if 24 < y < view.height - 30:
            yield Label(5, y - 3, _degrees(k * step, digits, "N", "S"), "tick")


def _degrees(value: float, digits: int, positive: str, negative: str) -> str:
    return f"{abs(value):.{digits}f}°{'' if abs(value) < 1e-9 else positive if value > 0 else negative}"


def _places(view: View, places: Sequence[Place], longitude_deg: npt.NDArray[np.float64]) -> Iterable[Shape]:
    taken: list[tuple[float, float, float, float]] = []
    points = view.points(longitude_deg, np.array([one.latitude_deg for one in places])) if places else np.empty((0, 2))
    for place, (x, y) in zip(places, points.tolist(), strict=True):
        yield Dot(x, y, 4.2 if place.reached else 3.2, "end", place.name)
        if not place.name:
            continue
        wide = 6.3 * len(place.name)
        for dx, dy, anchor in ((8, 4, "start"), (-8, 4, "end"), (0, -9, "middle"), (0, 17, "middle"), (8, 18, "start"), (-8, -8, "end")):
            left = x + dx - (wide if anchor == "end" else wide / 2 if anchor == "middle" else 0)
            box = (left, y + dy - 11, left + wide, y + dy + 3)
            free = all(box[2] < one[0] or box[0] > one[2] or box[3] < one[1] or box[1] > one[3] for one in taken)
            if free and box[0] > 2 and box[2] < view.width - 2 and box[1] > 2 and box[3] < view.height - 2:
                taken.append(box)
                yield Label(x + dx, y + dy, place.name, "place", anchor)  # type: ignore[arg-type]
                break


def _scale(view: View) -> Iterable[Shape]:
    """A scale that holds in the middle of the map."""
    per_m = view.scale * 360.0 / EARTH_M / math.cos(math.radians(view.latitude_deg))
    reach = 10 ** math.floor(math.log10(140 / per_m))
    length = next(reach * step for step in (10, 5, 2, 1) if reach * step * per_m <= 140)
    x, y, wide = 10.0, view.height - 12.0, length * per_m
    yield Line(np.array([[x, y - 4], [x, y], [x + wide, y], [x + wide, y - 4]]), "scale")
    yield Label(x + wide / 2, y - 5, f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m", "tick", "middle")
