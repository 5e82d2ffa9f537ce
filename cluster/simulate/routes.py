"""Places and routes that the simulated fleet travels: real coordinates, plausible speeds and waits.

A route is a list of places with a wait at each. Between two places the vehicle follows the great circle at constant speed;
a route is therefore a table of (seconds since departure, latitude, longitude) in which one interpolates. Longitudes in the
table run on past ±180 so that a crossing of the antimeridian needs no special case; `position` folds them back.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

F8 = npt.NDArray[np.float64]

EARTH_KM = 6371.0088
"""Mean radius of the earth; good enough for where a simulated lorry is."""


class Place(NamedTuple):
    """A place by name, in degrees WGS-84. `unlocode` is its UN/LOCODE."""

    name: str
    unlocode: str
    latitude_deg: float
    longitude_deg: float


class Call(NamedTuple):
    """A place on a route and how long the vehicle stands there. `stop` false is a waypoint at sea or on the road."""

    place: Place
    wait_h: float = 0.0
    stop: bool = True


def _sea(latitude_deg: float, longitude_deg: float) -> Call:
    return Call(Place("", "", latitude_deg, longitude_deg), stop=False)


ROTTERDAM = Place("Rotterdam", "NLRTM", 51.9496, 4.1453)
ANTWERP = Place("Antwerp", "BEANR", 51.2663, 4.3379)
MUNICH = Place("Munich", "DEMUC", 48.1374, 11.5755)
FRANKFURT = Place("Frankfurt am Main", "DEFRA", 50.0379, 8.5622)
ALMERIA = Place("Almeria", "ESLEI", 36.8381, -2.4597)
VALENCIA = Place("Valencia", "ESVLC", 39.4699, -0.3763)
LYON = Place("Lyon", "FRLIO", 45.7640, 4.8357)
RUNGIS = Place("Rungis", "FRRUN", 48.7482, 2.3502)
CHICAGO = Place("Chicago", "USCHI", 41.8781, -87.6298)
MEMPHIS = Place("Memphis", "USMEM", 35.1495, -90.0490)
DALLAS = Place("Dallas", "USDAL", 32.7767, -96.7970)
NAIROBI = Place("Nairobi", "KENBO", -1.2921, 36.8219)
MOMBASA = Place("Mombasa", "KEMBA", -4.0435, 39.6682)
MUMBAI = Place("Mumbai", "INBOM", 19.0760, 72.8777)
BENGALURU = Place("Bengaluru", "INBLR", 12.9716, 77.5946)
GUAYAQUIL = Place("Guayaquil", "ECGYE", -2.2800, -79.9100)
SANTOS = Place("Santos", "BRSSZ", -23.9800, -46.3000)
ALGECIRAS = Place("Algeciras", "ESALG", 36.1300, -5.4300)
NHAVA_SHEVA = Place("Nhava Sheva", "INNSA", 18.9500, 72.9500)
GENOA = Place("Genoa", "ITGOA", 44.4000, 8.9200)
AUCKLAND = Place("Auckland", "NZAKL", -36.8400, 174.7700)
LOS_ANGELES = Place("Los Angeles", "USLAX", 33.7400, -118.2600)
HONOLULU = Place("Honolulu", "USHNL", 21.3200, -157.9200)
BASEL = Place("Basel", "CHBSL", 47.5596, 7.5886)
NEW_YORK = Place("New York", "USNYC", 40.6413, -73.7781)
SINGAPORE = Place("Singapore", "SGSIN", 1.3644, 103.9915)
DUBAI = Place("Dubai", "AEDXB", 25.2532, 55.3657)
LONDON = Place("London", "GBLON", 51.4700, -0.4543)

WAREHOUSES: tuple[Place, ...] = (ROTTERDAM, CHICAGO, MOMBASA, SINGAPORE, GENOA, MEMPHIS, BENGALURU, RUNGIS)


@dataclass(frozen=True)
class Route:
    """A route as a table to interpolate in.

    seconds: since departure, ascending; latitude_deg, longitude_deg: there (longitude unwrapped); stops: the named calls with
    the seconds of arrival at each. `land` is true where days are hot and nights cold (a road, not the sea).
    """

    name: str
    mode: str
    land: bool
    seconds: F8
    latitude_deg: F8
    longitude_deg: F8
    stops: tuple[tuple[Place, float], ...]

    @property
    def duration_s(self) -> float:
        """From departure at the first place to arrival at the last."""
        return float(self.seconds[-1])

    @property
    def origin(self) -> Place:
        """Where the route begins."""
        return self.stops[0][0]

    @property
    def destination(self) -> Place:
        """Where the route ends."""
        return self.stops[-1][0]

    def position(self, elapsed_s: F8, backwards: npt.NDArray[np.bool_]) -> tuple[F8, F8]:
        """Latitude and longitude `elapsed_s` after departure (clamped to the route), on the way out or `backwards`."""
        along = np.clip(elapsed_s, 0.0, self.duration_s)
        along = np.where(backwards, self.duration_s - along, along)
        latitude = np.interp(along, self.seconds, self.latitude_deg)
        longitude = np.interp(along, self.seconds, self.longitude_deg)
        return latitude, (longitude + 180.0) % 360.0 - 180.0


def great_circle_km(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Haversine distance between two (latitude_deg, longitude_deg)."""
    la, lb = math.radians(a[0]), math.radians(b[0])
    h = math.sin((lb - la) / 2) ** 2 + math.cos(la) * math.cos(lb) * math.sin(math.radians(b[1] - a[1]) / 2) ** 2
    return 2 * EARTH_KM * math.asin(math.sqrt(h))


def _between(a: tuple[float, float], b: tuple[float, float], share: float) -> tuple[float, float]:
    """The point `share` of the way along the great circle (spherical linear interpolation)."""

    def vector(p: tuple[float, float]) -> tuple[float, float, float]:
        la, lo = math.radians(p[0]), math.radians(p[1])
        return math.cos(la) * math.cos(lo), math.cos(la) * math.sin(lo), math.sin(la)

    angle = great_circle_km(a, b) / EARTH_KM
    u, v = math.sin((1 - share) * angle) / math.sin(angle), math.sin(share * angle) / math.sin(angle)
    x, y, z = (u * p + v * q for p, q in zip(vector(a), vector(b), strict=True))
    return math.degrees(math.atan2(z, math.hypot(x, y))), math.degrees(math.atan2(y, x))


def make_route(name: str, mode: str, speed_kmh: float, calls: tuple[Call, ...]) -> Route:
    """The table of a route: a point at least every 100 km of each leg, two points where the vehicle waits."""
    seconds, latitude, longitude = [0.0], [calls[0].place.latitude_deg], [calls[0].place.longitude_deg]
    stops = [(calls[0].place, 0.0)]

    def go(at_s: float, where: tuple[float, float]) -> None:
        seconds.append(at_s)
        latitude.append(where[0])
        longitude.append(where[1] + 360.0 * round((longitude[-1] - where[1]) / 360.0))

    for before, call in itertools.pairwise(calls):
        a = (before.place.latitude_deg, before.place.longitude_deg)
        b = (call.place.latitude_deg, call.place.longitude_deg)
        length_km, left_s = great_circle_km(a, b), seconds[-1]
        parts = max(1, math.ceil(length_km / 100.0))
        for part in range(1, parts + 1):
            go(left_s + 3600.0 * length_km / speed_kmh * part / parts, b if part == parts else _between(a, b, part / parts))
        if call.stop:
            stops.append((call.place, seconds[-1]))
        if call.wait_h:
            go(seconds[-1] + 3600.0 * call.wait_h, b)
    return Route(name, mode, mode != "ocean", np.array(seconds), np.array(latitude), np.array(longitude), tuple(stops))


ROAD: tuple[Route, ...] = (
    make_route("Rotterdam-Munich", "road", 68, (Call(ROTTERDAM), Call(FRANKFURT, 1.5), Call(MUNICH))),
    make_route("Almeria-Rungis", "road", 72, (Call(ALMERIA), Call(VALENCIA, 1.0), Call(LYON, 9.0), Call(RUNGIS))),
    make_route("Chicago-Dallas", "road", 80, (Call(CHICAGO), Call(MEMPHIS, 2.0), Call(DALLAS))),
    make_route("Nairobi-Mombasa", "road", 45, (Call(NAIROBI), Call(Place("Voi", "", -3.3961, 38.5561), 1.0), Call(MOMBASA))),
    make_route("Mumbai-Bengaluru", "road", 48, (Call(MUMBAI), Call(Place("Hubli", "INHBX", 15.3647, 75.1240), 3.0), Call(BENGALURU))),
)
OCEAN: tuple[Route, ...] = (
    make_route(
        "Guayaquil-Antwerp",
        "ocean",
        33,
        (
            Call(GUAYAQUIL),
            _sea(-2.6, -81.2),
            _sea(6.8, -80.3),
            Call(Place("Balboa", "PABLB", 8.95, -79.57), 10.0),
            _sea(9.5, -79.9),
            _sea(18.3, -67.9),
            _sea(48.7, -5.9),
            _sea(51.0, 1.5),
            _sea(51.45, 3.3),
            Call(ANTWERP),
        ),
    ),
    make_route(
        "Santos-Rotterdam",
        "ocean",
        34,
        (
            Call(SANTOS),
            _sea(-23.5, -41.0),
            _sea(-7.5, -34.0),
            _sea(28.6, -17.0),
            _sea(36.0, -9.8),
            Call(ALGECIRAS, 14.0),
            _sea(36.6, -9.5),
            _sea(43.4, -9.9),
            _sea(48.7, -5.9),
            _sea(51.0, 1.5),
            Call(ROTTERDAM),
        ),
    ),
    make_route(
        "Nhava Sheva-Genoa",
        "ocean",
        35,
        (
            Call(NHAVA_SHEVA),
            _sea(12.4, 45.2),
            _sea(12.6, 43.3),
            _sea(27.8, 34.0),
            Call(Place("Suez", "EGSUZ", 29.93, 32.56), 12.0),
            _sea(31.4, 32.4),
            _sea(37.6, 15.6),
            Call(GENOA),
        ),
    ),
    make_route("Auckland-Los Angeles", "ocean", 36, (Call(AUCKLAND), _sea(-34.0, 178.5), Call(LOS_ANGELES))),
)
PARCEL: tuple[Route, ...] = (
    make_route("Honolulu-Chicago", "parcel", 690, (Call(HONOLULU), Call(LOS_ANGELES, 26.0), Call(MEMPHIS, 18.0), Call(CHICAGO))),
    make_route("Basel-New York", "parcel", 640, (Call(BASEL), Call(FRANKFURT, 20.0), Call(NEW_YORK))),
    make_route("Singapore-London", "parcel", 720, (Call(SINGAPORE), Call(DUBAI, 15.0), Call(LONDON))),
    make_route("Bengaluru-Frankfurt", "parcel", 700, (Call(BENGALURU), Call(DUBAI, 22.0), Call(FRANKFURT))),
)
