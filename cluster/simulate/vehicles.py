"""What tags ride on in the simulated fleet: reefers at sea and on the road, parcels, cold rooms; and the trips they make.

A vehicle goes to and fro on its route for as long as the simulation runs, one shipment a trip. A cold room stands still and
makes no trips. Everything is drawn once from the seed and kept as columns, one row a vehicle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cluster.simulate.routes import OCEAN, PARCEL, ROAD, WAREHOUSES, Place, Route

F8 = npt.NDArray[np.float64]
I4 = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]

HOUR_S, DAY_S = 3600.0, 86_400.0
REEFER_OCEAN, REEFER_ROAD, PARCEL_KIND, COLD_ROOM = 0, 1, 2, 3
KIND_NAMES = ("OCEAN", "ROAD", "PARCEL", "ROOM")
SHARES = (0.20, 0.35, 0.25, 0.20)
"""Share of the tags that ride on each kind of vehicle."""
LEAST_TAGS = (4, 4, 1, 5)
MOST_VEHICLES = 1500
"""Of each kind: above it vehicles carry more tags, so that a million tags make thousands of shipments, not hundreds of thousands."""
LOADING_S = 1800.0
"""Doors stand open and custody begins this long before departure."""
UNLOADING_S = 1200.0
"""Custody ends this long after arrival."""


@dataclass(frozen=True)
class Goods:
    """What is shipped: the air temperature it is kept at and the Waybill profile it is held against."""

    name: str
    profile: str
    set_point_c: float
    humidity_pct: float


MEDICINE = Goods("medicine 2-8", "usp-cold", 5.0, 55.0)
ROOM = Goods("medicine 20-25", "usp-crt", 22.0, 45.0)
FROZEN = Goods("frozen fish", "eu-quick-frozen", -21.5, 80.0)
CHILLED = Goods("chilled food", "fda-cold-holding", 2.8, 82.0)
BANANAS = Goods("bananas", "banana-sea", 13.9, 93.5)
GOODS = (MEDICINE, ROOM, FROZEN, CHILLED, BANANAS)
GOODS_OF_KIND: tuple[tuple[Goods, ...], ...] = (
    (BANANAS, MEDICINE, FROZEN),
    (MEDICINE, CHILLED, FROZEN),
    (ROOM,),
    (ROOM, MEDICINE, FROZEN),
)
ROUTES: tuple[Route, ...] = (*OCEAN, *ROAD, *PARCEL)
ROUTES_OF_KIND = (range(0, len(OCEAN)), range(len(OCEAN), len(OCEAN) + len(ROAD)), range(len(OCEAN) + len(ROAD), len(ROUTES)))


@dataclass(frozen=True)
class Trip:
    """One shipment of the simulation. Times in seconds since the fleet's start; the tags are `first_tag` up to `end_tag`.

    custody_until_s is infinite where the trip goes on past the end of the simulation.
    """

    shipment_id: str
    vehicle: int
    goods: Goods
    stops: tuple[tuple[Place, float], ...]
    custody_from_s: float
    departs_s: float
    arrives_s: float
    custody_until_s: float
    first_tag: int
    end_tag: int


@dataclass(frozen=True)
class Room:
    """One cold room: a zone of a warehouse, with the tags `first_tag` up to `end_tag`."""

    warehouse_id: str
    zone_id: str
    place: Place
    vehicle: int
    goods: Goods
    first_tag: int
    end_tag: int


@dataclass(frozen=True)
class Vehicles:
    """The columns. `first_tag` has one entry more than there are vehicles: vehicle v's tags are first_tag[v]:first_tag[v + 1]."""

    kind: I4
    route: I4  # index into ROUTES; -1 for a cold room
    place: I4  # index into WAREHOUSES; -1 for what moves
    goods: I4  # index into GOODS
    first_trip_s: F8
    cycle_s: F8
    duration_s: F8
    warm_c: F8  # how much warmer than the set point its goods are loaded (0 for most)
    weather: F8
    first_tag: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.kind)

    @classmethod
    def draw(cls, rng: np.random.Generator, tags: int, warm_loading: float) -> Vehicles:
        """Vehicles for `tags` tags, shared out over the kinds as SHARES says (at least one tag is given)."""
        ends = np.rint(np.cumsum(SHARES) * tags).astype(int)
        per_kind = np.diff(ends, prepend=0)
        kinds, sizes = [], []
        for code, count in enumerate(per_kind.tolist()):
            size = max(LEAST_TAGS[code], math.ceil(count / MOST_VEHICLES))
            whole, rest = divmod(count, size)
            sizes += [size] * whole + ([rest] if rest else [])
            kinds += [code] * (whole + bool(rest))
        kind = np.array(kinds, np.int32)
        n = len(kind)
        nth = np.arange(n) - np.searchsorted(kind, kind)  # the vehicle's number within its kind
        route = np.full(n, -1, np.int32)
        goods = np.zeros(n, np.int32)
        for code, choices in enumerate(GOODS_OF_KIND):
            mine = kind == code
            options = np.array([GOODS.index(item) for item in choices], np.int32)
            goods[mine] = options[rng.permutation(int(mine.sum())) % len(options)]
            if code != COLD_ROOM:
                span = ROUTES_OF_KIND[code]
                route[mine] = span.start + nth[mine] % len(span)
        duration = np.array([route.duration_s for route in ROUTES] + [np.inf])[route]
        cycle = duration + rng.uniform(3 * HOUR_S, 8 * HOUR_S, n)
        moving = kind != COLD_ROOM
        # Ships are found anywhere on their way; lorries and parcels leave within the first hours.
        under_way = -rng.uniform(0.0, 0.9, n) * np.where(moving, duration, 0.0)
        first = np.where(kind == REEFER_OCEAN, under_way, rng.uniform(LOADING_S, 6 * HOUR_S, n))
        warm = np.where(rng.random(n) < warm_loading, rng.uniform(3.0, 7.0, n), rng.uniform(-0.4, 0.6, n))
        return cls(
            kind,
            route,
            np.where(moving, -1, nth % len(WAREHOUSES)).astype(np.int32),
            goods,
            np.where(moving, first, np.inf),
            np.where(moving, cycle, np.inf),
            np.where(moving, duration, np.inf),
            warm,
            rng.uniform(0, 2 * np.pi, n),
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        )

    def trip_at(self, at_s: float) -> tuple[npt.NDArray[np.int64], F8]:
        """For each vehicle the trip it makes or made last, -1 before its first (and in a cold room), and the seconds since its departure.

        A trip begins with its loading, so the seconds may be negative down to -LOADING_S.
        """
        with np.errstate(invalid="ignore"):
            trip = np.floor((at_s + LOADING_S - self.first_trip_s) / self.cycle_s)
        trip = np.where(np.isfinite(trip), np.maximum(trip, -1), -1)
        elapsed = np.where(trip >= 0, at_s - self.first_trip_s - trip * np.where(trip >= 0, self.cycle_s, 0.0), -np.inf)
        return trip.astype(np.int64), elapsed

    def position(self, at_s: float) -> tuple[F8, F8]:
        """Latitude and longitude of each vehicle."""
        trip, elapsed = self.trip_at(at_s)
        latitude = np.array([place.latitude_deg for place in WAREHOUSES])[self.place]
        longitude = np.array([place.longitude_deg for place in WAREHOUSES])[self.place]
        for code, route in enumerate(ROUTES):
            mine = np.flatnonzero(self.route == code)
            if len(mine):
                latitude[mine], longitude[mine] = route.position(elapsed[mine], (trip[mine] >= 0) & (trip[mine] % 2 == 1))
        return latitude, longitude

    def trips(self, until_s: float, prefix: str) -> list[Trip]:
        """Every trip that begins before `until_s`, in order of the beginning of custody."""
        found = []
        for v in np.flatnonzero(self.kind != COLD_ROOM).tolist():
            route = ROUTES[self.route[v]]
            number, departs = 0, float(self.first_trip_s[v])
            while max(0.0, departs - LOADING_S) < until_s:
                back = number % 2 == 1
                calls = tuple((place, departs + (route.duration_s - at if back else at)) for place, at in route.stops)
                arrives = departs + route.duration_s
                found.append(
                    Trip(
                        f"{prefix}-{KIND_NAMES[self.kind[v]]}-{v:05d}-{number:02d}",
                        v,
                        GOODS[self.goods[v]],
                        calls[::-1] if back else calls,
                        max(0.0, departs - LOADING_S),
                        departs,
                        arrives,
                        arrives + UNLOADING_S if arrives + UNLOADING_S < until_s else np.inf,
                        int(self.first_tag[v]),
                        int(self.first_tag[v + 1]),
                    )
                )
                number, departs = number + 1, departs + float(self.cycle_s[v])
        return sorted(found, key=lambda trip: (trip.custody_from_s, trip.shipment_id))

    def rooms(self, prefix: str) -> list[Room]:
        """Every cold room."""
        found = []
        for number, v in enumerate(np.flatnonzero(self.kind == COLD_ROOM).tolist()):
            place = WAREHOUSES[self.place[v]]
            found.append(
                Room(
                    f"{prefix}-{place.unlocode}",
                    f"room-{number // len(WAREHOUSES) + 1}",
                    place,
                    v,
                    GOODS[self.goods[v]],
                    int(self.first_tag[v]),
                    int(self.first_tag[v + 1]),
                )
            )
        return found
