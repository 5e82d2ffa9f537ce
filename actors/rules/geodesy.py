"""Distances on WGS-84: bounds that are proven and fast, and geopy's geodesic where they do not decide.

Notation: a fix is (latitude_deg, longitude_deg); its *normal* is the unit vector perpendicular to the ellipsoid there,
n = (cos lat cos lon, cos lat sin lon, sin lat). The geodesic distance d between two fixes obeys two bounds:

* Angle. theta, the angle between the normals, is what haversine computes. Along any path, a step on the ellipsoid is
  sqrt(M² dlat² + N² cos² lat dlon²) with both radii of curvature in [b²/a, a²/b]; the same step on the unit sphere is
  sqrt(dlat² + cos² lat dlon²). Distances are infima over paths, so (b²/a) theta <= d <= (a²/b) theta, everywhere, poles and
  antipodes included. (This is the handbook's 0.56 %.)
* Chord. c, the straight line through the Earth, is <= d. A geodesic's curvature in space is its normal curvature, at most
  1/R with R = b²/a, so by Schur's comparison theorem c >= 2R sin(d / 2R), that is d <= 2R asin(c / 2R). At 10 km the two sides
  differ by 1 mm, at 500 m by 0.1 micrometre. Used below 1000 km.

Rounding is covered by `SLACK_M`; tests/rules/test_geodesy.py checks all bounds against geopy over the whole globe.
"""

from __future__ import annotations

import math

import numpy as np
from geographiclib.geodesic import Geodesic
from geopy.distance import geodesic

from actors.rules._arrays import own
from actors.rules._compile import compiled
from actors.rules.readings import F8

MAJOR_M = 6378137.0
FLATTENING = 1 / 298.257223563
E2 = FLATTENING * (2 - FLATTENING)
MINOR_M = MAJOR_M * (1 - FLATTENING)
LEAST_RADIUS_M = MINOR_M * MINOR_M / MAJOR_M
"""Smallest radius of curvature, b²/a: of the meridian at the equator. No degree of latitude is shorter than it makes it."""
GREATEST_RADIUS_M = MAJOR_M * MAJOR_M / MINOR_M
"""Largest radius of curvature, a²/b: at the poles."""
LEAST_DEGREE_M = LEAST_RADIUS_M * math.pi / 180
GREATEST_DEGREE_M = GREATEST_RADIUS_M * math.pi / 180
LEAST_TURN_M = MAJOR_M / 90
"""See `cheap_bounds`."""
SLACK_M = 1e-6
"""Added to every bound: 300 times the rounding of the vectors, 60 times the error of the geodesic itself (15 nm)."""
CHORD_LIMIT_M = 1_000_000.0

WGS84 = Geodesic.WGS84
"""The solver that geopy.distance.geodesic calls, for what geopy does not offer (azimuths, points along a line)."""


@compiled
def normal(latitude_deg: float, longitude_deg: float) -> tuple[float, float, float]:
    """The unit normal (x, y, z) of the ellipsoid at a fix."""
    latitude, longitude = math.radians(latitude_deg), math.radians(longitude_deg)
    c = math.cos(latitude)
    return c * math.cos(longitude), c * math.sin(longitude), math.sin(latitude)


@compiled
def chord_m(px: float, py: float, pz: float, qx: float, qy: float, qz: float) -> float:
    """The straight line in space between the points of the ellipsoid with normals p and q."""
    np_, nq = MAJOR_M / math.sqrt(1 - E2 * pz * pz), MAJOR_M / math.sqrt(1 - E2 * qz * qz)
    dx, dy, dz = np_ * px - nq * qx, np_ * py - nq * qy, (1 - E2) * (np_ * pz - nq * qz)
    return math.sqrt(dx * dx + dy * dy + dz * dz)


@compiled
def arc_of_chord_m(chord: float) -> float:
    """The longest geodesic with this chord (chord < CHORD_LIMIT_M)."""
    return 2 * LEAST_RADIUS_M * math.asin(chord / (2 * LEAST_RADIUS_M))


@compiled
def angle(px: float, py: float, pz: float, qx: float, qy: float, qz: float) -> float:
    """The angle between two unit vectors, radians, accurate from 0 to pi."""
    minus = (px - qx) ** 2 + (py - qy) ** 2 + (pz - qz) ** 2
    plus = (px + qx) ** 2 + (py + qy) ** 2 + (pz + qz) ** 2
    return 2 * math.atan2(math.sqrt(minus), math.sqrt(plus))


@compiled
def bounds(px: float, py: float, pz: float, qx: float, qy: float, qz: float) -> tuple[float, float]:
    """(lower, upper) metres that hold the geodesic distance between the points with normals p and q (module docstring)."""
    chord = chord_m(px, py, pz, qx, qy, qz)
    if chord < CHORD_LIMIT_M:
        return max(0.0, chord - SLACK_M), arc_of_chord_m(chord) + SLACK_M
    theta = angle(px, py, pz, qx, qy, qz)
    return max(chord, LEAST_RADIUS_M * theta) - SLACK_M, GREATEST_RADIUS_M * theta + SLACK_M


@compiled
def north_m(latitude_deg: float, latitude0_deg: float) -> float:
    """A lower bound: no way is shorter than the meridian between the two parallels."""
    return abs(latitude_deg - latitude0_deg) * LEAST_DEGREE_M * (1 - 1e-12) - SLACK_M


@compiled
def cheap_bounds(latitude_deg: float, longitude_deg: float, latitude0_deg: float, longitude0_deg: float) -> tuple[float, float]:
    """(lower, upper) metres without trigonometry: for what is clearly far or clearly near.

    Lower: no way is shorter than the meridian between the two parallels; and two points whose distances from the axis are at
    least r are 2 r sin(dlon / 2) apart, with r >= a cos(lat) >= a (1 - lat / 90°) and sin(x) >= 2 x / pi up to pi / 2.
    Upper: along the parallel, then along the meridian.
    """
    north = abs(latitude_deg - latitude0_deg)
    east = abs(longitude_deg - longitude0_deg)
    east = min(east, 360.0 - east)
    from_pole = 90.0 - max(abs(latitude_deg), abs(latitude0_deg))
    lower = max(north * LEAST_DEGREE_M, east * from_pole * (LEAST_TURN_M / 90))
    return lower * (1 - 1e-12) - SLACK_M, (north + east) * GREATEST_DEGREE_M + SLACK_M


@compiled
def _distance_bounds(latitude: F8, longitude: F8, latitude0: float, longitude0: float, lower: F8, upper: F8) -> None:
    qx, qy, qz = normal(latitude0, longitude0)
    for i in range(len(latitude)):
        px, py, pz = normal(latitude[i], longitude[i])
        lower[i], upper[i] = bounds(px, py, pz, qx, qy, qz)


def distance_bounds_m(latitude: F8, longitude: F8, latitude0: float, longitude0: float) -> tuple[F8, F8]:
    """Bounds of the distance of each fix (n,) to one point: (lower, upper), metres. NaN gives NaN.

    >>> low, high = distance_bounds_m(np.array([51.0]), np.array([0.0]), 51.0, 0.1)
    >>> bool(low[0] <= distance_m(51.0, 0.0, 51.0, 0.1) <= high[0])
    True
    """
    lower, upper = np.empty(len(latitude)), np.empty(len(latitude))
    _distance_bounds(own(latitude), own(longitude), latitude0, longitude0, lower, upper)
    return lower, upper


def distance_m(latitude: float, longitude: float, latitude0: float, longitude0: float) -> float:
    """The geodesic distance, metres: geopy decides (74 microseconds).

    >>> round(distance_m(0.0, 0.0, 0.0, 1.0), 3)
    111319.491
    """
    return float(geodesic((latitude, longitude), (latitude0, longitude0)).meters)


def azimuth_deg(latitude: float, longitude: float, latitude0: float, longitude0: float) -> float:
    """Direction in which the geodesic leaves the first point for the second, degrees from north, clockwise."""
    return float(WGS84.Inverse(latitude, longitude, latitude0, longitude0, Geodesic.AZIMUTH)["azi1"])


def segment_distance_m(latitude: float, longitude: float, a: tuple[float, float], b: tuple[float, float]) -> float:
    """Distance from a fix to the geodesic segment a-b, metres; exact to the geodesic solver and 1 micrometre.

    The foot is found by stepping along the line by the leg of the right spherical triangle (Baselga and Martinez-Llario 2018,
    "Intersection and point-to-line solutions for geodesics on the ellipsoid"); the step shrinks some 300-fold each time.
    """
    line = WGS84.InverseLine(a[0], a[1], b[0], b[1])
    length = line.s13
    ends = min(distance_m(latitude, longitude, *a), distance_m(latitude, longitude, *b))
    mean_radius = (2 * MAJOR_M + MINOR_M) / 3
    s = _first_guess(latitude, longitude, a, b) * length
    best = ends
    for _ in range(40):
        at = line.Position(s, Geodesic.STANDARD)
        to = WGS84.Inverse(at["lat2"], at["lon2"], latitude, longitude, Geodesic.AZIMUTH | Geodesic.DISTANCE)
        best = min(best, float(to["s12"]))
        turn, far = math.radians(to["azi1"] - at["azi2"]), to["s12"] / mean_radius
        step = mean_radius * math.atan2(math.sin(far) * math.cos(turn), math.cos(far))
        reached = min(max(s + step, 0.0), length)
        if abs(reached - s) < 1e-6:
            break
        s = reached
    return best


def _first_guess(latitude: float, longitude: float, a: tuple[float, float], b: tuple[float, float]) -> float:
    """Where on a-b (0 to 1) the foot lies on the sphere of normals."""
    p, m, n = np.array(normal(latitude, longitude)), np.array(normal(*a)), np.array(normal(*b))
    pole = np.cross(m, n)
    size = float(np.linalg.norm(pole))
    if size == 0.0:
        return 0.0
    along = math.atan2(float(np.dot(np.cross(pole / size, m), p)), float(np.dot(m, p)))
    whole = math.atan2(size, float(np.dot(m, n)))
    return min(max(along / whole, 0.0), 1.0)
