"""Geodesic polylines and rings as many short pieces, and how far a fix is from them.

Every edge is the geodesic between its two vertices. It is cut into pieces of at most `PIECE_M`, whose ends lie on it. The fast
form takes each piece for the great-circle arc between its ends' normals (see geodesy) and is off by at most

    delta = 0.004 L² / (8 b²/a)      (L the piece's length; 0.2 m at 50 km, 0.1 mm at 1 km)

because, seen on the sphere of normals, a geodesic curves by at most e²/2 (1 + 3 e²) = 0.0034: with azimuth a,
d(beta)/d(sigma) - tan lat sin beta = e² sin lat cos lat sin a (1 + O(e²)). So the set's distance D on the sphere gives
(b²/a) D - delta <= distance <= (a²/b) D + delta.

Below 99 km a second, tighter pair of bounds comes from the straight line in space to the foot found on the sphere. Angles on the
sphere differ from those on the ellipsoid by at most (a² - b²) / (a² + b²) = 0.0034, so what is perpendicular there is so here up to
twice that (and 0.0002 for the curvature's change on the way): this foot is farther than the true one by at most 1 - cos(0.0069),
2.4 parts in 10^5. What these bounds leave open is decided by the geodesic itself.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from geographiclib.geodesic import Geodesic

from actors.rules._arrays import own
from actors.rules._compile import compiled
from actors.rules.errors import InvalidArgument
from actors.rules.geodesy import (
    GREATEST_RADIUS_M,
    LEAST_RADIUS_M,
    SLACK_M,
    WGS84,
    angle,
    arc_of_chord_m,
    azimuth_deg,
    chord_m,
    distance_m,
    normal,
    segment_distance_m,
)
from actors.rules.readings import F8, I8

Fix = tuple[float, float]
"""(latitude_deg, longitude_deg)"""

PIECE_M = 50_000.0
LONGEST_EDGE_M = 10_000_000.0
"""Longer edges are refused: near half the Earth the shortest line is not unique, and people do not mean it."""
FOOT_SLACK = 3e-5
REFINE_BELOW = 0.0156  # radians, 99 km
TOUCH_M = 1e-6

# Columns of a piece: its ends' normals, the normal of its plane, and the inward directions at both ends.
A, B, PLANE, IN_A, IN_B, WIDTH = 0, 3, 6, 9, 12, 15


@compiled
def _square(px: float, py: float, pz: float, pieces: F8, i: int) -> float:
    """Squared straight line from the unit vector p to the nearest point of arc i (on the unit sphere)."""
    if (
        px * pieces[i, 9] + py * pieces[i, 10] + pz * pieces[i, 11] >= 0.0
        and px * pieces[i, 12] + py * pieces[i, 13] + pz * pieces[i, 14] >= 0.0
    ):
        s: float = px * pieces[i, 6] + py * pieces[i, 7] + pz * pieces[i, 8]
        return 2.0 * s * s / (1.0 + math.sqrt(max(0.0, 1.0 - s * s)))
    a: float = (px - pieces[i, 0]) ** 2 + (py - pieces[i, 1]) ** 2 + (pz - pieces[i, 2]) ** 2
    b: float = (px - pieces[i, 3]) ** 2 + (py - pieces[i, 4]) ** 2 + (pz - pieces[i, 5]) ** 2
    return min(a, b)


@compiled
def _squares(px: float, py: float, pz: float, pieces: F8, out: F8) -> None:
    for i in range(len(pieces)):
        out[i] = _square(px, py, pz, pieces, i)


@compiled
def _foot_chord_m(px: float, py: float, pz: float, pieces: F8, i: int) -> float:
    """Straight line in space, metres, from p to the point of the ellipsoid at the foot on arc i."""
    if (
        px * pieces[i, 9] + py * pieces[i, 10] + pz * pieces[i, 11] >= 0.0
        and px * pieces[i, 12] + py * pieces[i, 13] + pz * pieces[i, 14] >= 0.0
    ):
        s: float = px * pieces[i, 6] + py * pieces[i, 7] + pz * pieces[i, 8]
        fx, fy, fz = px - s * pieces[i, 6], py - s * pieces[i, 7], pz - s * pieces[i, 8]
        size = math.sqrt(fx * fx + fy * fy + fz * fz)
        return chord_m(px, py, pz, fx / size, fy / size, fz / size)
    return min(
        chord_m(px, py, pz, pieces[i, 0], pieces[i, 1], pieces[i, 2]),
        chord_m(px, py, pz, pieces[i, 3], pieces[i, 4], pieces[i, 5]),
    )


@compiled
def path_bounds(px: float, py: float, pz: float, pieces: F8, delta_m: float) -> tuple[float, float, float]:
    """(lower, upper, middle) metres of the geodesic distance from p to the path; middle is good to 3e-5 below 99 km."""
    best = 4.0
    for i in range(len(pieces)):
        best = min(best, _square(px, py, pz, pieces, i))
    theta = 2.0 * math.atan2(math.sqrt(best), math.sqrt(max(0.0, 4.0 - best)))
    lower = LEAST_RADIUS_M * theta - delta_m - SLACK_M
    upper = GREATEST_RADIUS_M * theta + delta_m + SLACK_M
    middle = (lower + upper) / 2
    if theta < REFINE_BELOW:
        reach = ((GREATEST_RADIUS_M * theta + 2 * delta_m + 2 * SLACK_M) / LEAST_RADIUS_M) ** 2
        chord = math.inf
        for i in range(len(pieces)):
            if _square(px, py, pz, pieces, i) <= reach:
                chord = min(chord, _foot_chord_m(px, py, pz, pieces, i))
        middle = arc_of_chord_m(chord)
        lower = max(lower, chord * (1.0 - FOOT_SLACK) - delta_m - SLACK_M)
        upper = min(upper, middle + delta_m + SLACK_M)
    return max(0.0, lower), upper, middle


@compiled
def odd_crossings(px: float, py: float, pz: float, pieces: F8, begin: int, end: int) -> bool:
    """Whether the ring of arcs begin..end winds round p an odd number of times, seen along the meridian to the north of p.

    An arc that does not pass through p or its antipode is seen from p under an angle below 180 degrees, whose sign is that of
    xA yB - xB yA in any plane tangent at p. The ring must keep away from p's antipode.
    """
    h = math.sqrt(px * px + py * py)
    ex, ey = (-py / h, px / h) if h > 1e-9 else (1.0, 0.0)
    nx, ny, nz = -pz * ey, pz * ex, px * ey - py * ex
    odd = False
    for i in range(begin, end):
        xa = pieces[i, 0] * ex + pieces[i, 1] * ey
        xb = pieces[i, 3] * ex + pieces[i, 4] * ey
        if (xa < 0.0) != (xb < 0.0):
            ya = pieces[i, 0] * nx + pieces[i, 1] * ny + pieces[i, 2] * nz
            yb = pieces[i, 3] * nx + pieces[i, 4] * ny + pieces[i, 5] * nz
            if (xa * yb - xb * ya > 0.0) == (xa > xb):
                odd = not odd
    return odd


@compiled
def _measure(latitude: F8, longitude: F8, pieces: F8, delta_m: float, lower: F8, upper: F8, middle: F8) -> None:
    for i in range(len(latitude)):
        px, py, pz = normal(latitude[i], longitude[i])
        lower[i], upper[i], middle[i] = path_bounds(px, py, pz, pieces, delta_m)


@compiled
def _odd(latitude: F8, longitude: F8, pieces: F8, begin: int, end: int, odd: npt.NDArray[np.bool_]) -> None:
    for i in range(len(latitude)):
        px, py, pz = normal(latitude[i], longitude[i])
        odd[i] = odd_crossings(px, py, pz, pieces, begin, end)


@compiled
def _gap(one: F8, other: F8, gaps: F8, crossed: npt.NDArray[np.bool_]) -> None:
    for i in range(len(one)):
        for k in range(len(other)):
            best = _square(one[i, 0], one[i, 1], one[i, 2], other, k)
            best = min(best, _square(one[i, 3], one[i, 4], one[i, 5], other, k))
            best = min(best, _square(other[k, 0], other[k, 1], other[k, 2], one, i))
            best = min(best, _square(other[k, 3], other[k, 4], other[k, 5], one, i))
            gaps[i, k] = 2.0 * math.atan2(math.sqrt(best), math.sqrt(max(0.0, 4.0 - best)))
            a = one[i, 0] * other[k, 6] + one[i, 1] * other[k, 7] + one[i, 2] * other[k, 8]
            b = one[i, 3] * other[k, 6] + one[i, 4] * other[k, 7] + one[i, 5] * other[k, 8]
            c = other[k, 0] * one[i, 6] + other[k, 1] * one[i, 7] + other[k, 2] * one[i, 8]
            d = other[k, 3] * one[i, 6] + other[k, 4] * one[i, 7] + other[k, 5] * one[i, 8]
            near = one[i, 0] * other[k, 0] + one[i, 1] * other[k, 1] + one[i, 2] * other[k, 2] > 0.0
            crossed[i, k] = near and (a < 0.0) != (b < 0.0) and (c < 0.0) != (d < 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """A polyline, or the rings of a polygon. `rings` holds where each ring's pieces begin, and their number at the end."""

    pieces: F8
    fixes: F8
    """(m, 4): latitude and longitude of each piece's two ends."""
    rings: I8
    longest_m: float
    delta_m: float

    @staticmethod
    def of(lines: tuple[tuple[Fix, ...], ...], *, closed: bool = False, limit_m: float = LONGEST_EDGE_M) -> Path:
        """Cut the edges of each line into pieces. A closed line's last vertex joins its first (which may be repeated).

        Raises InvalidArgument for an edge longer than limit_m and for a line without two different vertices.
        """
        fixes: list[tuple[float, float, float, float]] = []
        rings, longest = [0], 0.0
        for given in lines:
            line = [(float(latitude), float(longitude)) for latitude, longitude in given]
            ends = [*line[1:], line[0]] if closed else line[1:]
            for a, b in zip(line, ends, strict=False):
                length = _cut(a, b, fixes, limit_m)
                longest = max(longest, length)
            if len(fixes) == rings[-1]:
                raise InvalidArgument("a line needs two different vertices", field="geometry")
            rings.append(len(fixes))
        table = np.array(fixes)
        delta_m = 0.004 * longest**2 / (8 * LEAST_RADIUS_M) + SLACK_M
        return Path(_pieces(table), table, np.array(rings, np.int64), longest, delta_m)

    def measure_m(self, latitude: F8, longitude: F8) -> tuple[F8, F8, F8]:
        """(lower, upper, middle) of each fix's distance to the path, metres; arrays of n."""
        lower, upper, middle = np.empty(len(latitude)), np.empty(len(latitude)), np.empty(len(latitude))
        _measure(own(latitude), own(longitude), self.pieces, self.delta_m, lower, upper, middle)
        return lower, upper, middle

    def winds_round(self, latitude: F8, longitude: F8, ring: int) -> npt.NDArray[np.bool_]:
        """Whether ring number `ring` encloses each fix (fast form: sure where a fix is farther than delta_m from the ring)."""
        odd = np.empty(len(latitude), np.bool_)
        _odd(own(latitude), own(longitude), self.pieces, self.rings[ring], self.rings[ring + 1], odd)
        return odd

    def exact_m(self, latitude: float, longitude: float) -> float:
        """Distance from one fix to the path, by the geodesic."""
        return min(
            segment_distance_m(latitude, longitude, (f[0], f[1]), (f[2], f[3]))
            for f in self.fixes[self._candidates(latitude, longitude, 0.0)].tolist()
        )

    def exactly_winds_round(self, latitude: float, longitude: float, ring: int) -> bool:
        """Whether the ring encloses a fix that is near its edges but not on them: the geodesic azimuths of its vertices, summed."""
        begin, end = int(self.rings[ring]), int(self.rings[ring + 1])
        px, py, pz = normal(latitude, longitude)
        h = math.hypot(px, py)
        east = np.array([-py / h, px / h, 0.0]) if h > 1e-9 else np.array([1.0, 0.0, 0.0])
        north = np.cross((px, py, pz), east)
        ends = self.pieces[begin:end, A : A + 3]
        azimuths = np.degrees(np.arctan2(ends @ east, ends @ north))
        if h > 1e-9:  # At a pole the geodesic's azimuths depend on the longitude given; there the sphere's are exact.
            for i in self._candidates(latitude, longitude, 1000.0):
                if begin <= i < end:
                    azimuths[i - begin] = azimuth_deg(latitude, longitude, *self.fixes[i, :2])
                    azimuths[(i - begin + 1) % len(azimuths)] = azimuth_deg(latitude, longitude, *self.fixes[i, 2:])
        steps = (np.roll(azimuths, -1) - azimuths + 180.0) % 360.0 - 180.0
        return round(float(np.sum(steps)) / 360.0) % 2 == 1

    def _candidates(self, latitude: float, longitude: float, beyond_m: float) -> list[int]:
        """Pieces that may be the nearest, and all within beyond_m."""
        squares = np.empty(len(self.pieces))
        _squares(*normal(latitude, longitude), self.pieces, squares)
        theta = 2 * np.arcsin(np.minimum(1.0, np.sqrt(squares) / 2))
        reach = max(GREATEST_RADIUS_M * theta.min() + self.delta_m, beyond_m) + SLACK_M
        return [int(i) for i in np.flatnonzero(LEAST_RADIUS_M * theta - self.delta_m <= reach)]

    def gap_bounds_m(self, other: Path) -> tuple[float, float]:
        """Bounds of the least distance between two paths; upper is 0 where they surely cross."""
        margin = self.delta_m + other.delta_m + SLACK_M
        gaps, crossed = self._gaps(other)
        if bool(np.any(crossed & (gaps * LEAST_RADIUS_M > margin))):
            return 0.0, 0.0
        theta = 0.0 if bool(np.any(crossed)) else float(gaps.min())
        return max(0.0, LEAST_RADIUS_M * theta - margin), GREATEST_RADIUS_M * theta + margin

    def exact_gap_m(self, other: Path) -> float:
        """The least distance between two paths, by the geodesic; 0 where they meet.

        Where two geodesic segments do not cross, an end of one of them is nearest: between two inner points the second variation of
        the distance is negative on a surface of positive curvature.
        """
        margin = self.delta_m + other.delta_m + SLACK_M
        gaps, crossed = self._gaps(other)
        nearest = np.where(crossed, 0.0, gaps)
        reach = GREATEST_RADIUS_M * float(nearest.min()) + margin
        best = math.inf
        for i, k in np.argwhere(LEAST_RADIUS_M * nearest - margin <= reach).tolist():
            best = min(best, _exact_pair_m(self.fixes[i].tolist(), other.fixes[k].tolist()))
        return best

    def _gaps(self, other: Path) -> tuple[F8, npt.NDArray[np.bool_]]:
        """For each pair of pieces the least angle from an end of one to the other, and whether the arcs cross."""
        shape = (len(self.pieces), len(other.pieces))
        gaps, crossed = np.empty(shape), np.empty(shape, np.bool_)
        _gap(self.pieces, other.pieces, gaps, crossed)
        return gaps, crossed


def _exact_pair_m(one: list[float], other: list[float]) -> float:
    """Least distance between two short geodesic segments (latitude, longitude, latitude, longitude)."""
    a, b, c, d = (one[0], one[1]), (one[2], one[3]), (other[0], other[1]), (other[2], other[3])
    ends = min(segment_distance_m(*a, c, d), segment_distance_m(*b, c, d), segment_distance_m(*c, a, b), segment_distance_m(*d, a, b))
    if ends <= TOUCH_M:
        return 0.0
    crossing = _left(a, c, d) != _left(b, c, d) and _left(c, a, b) != _left(d, a, b)
    return 0.0 if crossing else ends


def _left(p: Fix, a: Fix, b: Fix) -> bool:
    """Whether p, seen from which the short segment a-b turns anticlockwise, lies to its left."""
    turn = (azimuth_deg(*p, *b) - azimuth_deg(*p, *a) + 180.0) % 360.0 - 180.0
    return turn < 0.0


def _cut(a: Fix, b: Fix, fixes: list[tuple[float, float, float, float]], limit_m: float) -> float:
    """Append the pieces of edge a-b; their length, metres (0 for an edge without length)."""
    m, n = normal(*a), normal(*b)
    far = GREATEST_RADIUS_M * angle(*m, *n)
    if far <= SLACK_M:
        return 0.0
    if far <= PIECE_M:
        fixes.append((*a, *b))
        return far
    length = distance_m(*a, *b)
    if length > limit_m:
        raise InvalidArgument("an edge may be 10,000 km long at most; add vertices between", field="geometry", value=f"{a} to {b}")
    line = WGS84.InverseLine(*a, *b)
    count = math.ceil(length / PIECE_M)
    stops = [a]
    for k in range(1, count):
        at = line.Position(length * k / count, Geodesic.LATITUDE | Geodesic.LONGITUDE)
        stops.append((at["lat2"], at["lon2"]))
    stops.append(b)
    fixes.extend((*p, *q) for p, q in itertools.pairwise(stops))
    return length / count


def _pieces(fixes: F8) -> F8:
    """The kernel's table of the pieces, (m, WIDTH)."""
    table = np.empty((len(fixes), WIDTH))
    latitude, longitude = np.radians(fixes[:, 0::2]), np.radians(fixes[:, 1::2])
    ends = np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=2)
    table[:, A : A + 3], table[:, B : B + 3] = ends[:, 0], ends[:, 1]
    plane = np.cross(ends[:, 0], ends[:, 1] - ends[:, 0])
    plane /= np.linalg.norm(plane, axis=1)[:, None]
    table[:, PLANE : PLANE + 3] = plane
    table[:, IN_A : IN_A + 3] = np.cross(plane, ends[:, 0])
    table[:, IN_B : IN_B + 3] = np.cross(ends[:, 1], plane)
    return table
