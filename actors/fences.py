"""Reading fences and routes from a request, and handing them to a plan. As data a fence is
{fence_id, name, kind, geometry, confirm, dwell_us, alert_on}, its geometry as `rules.geofence.Fence.of` reads it; points are
[latitude_deg, longitude_deg].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from actors import requests
from actors.requests import Arguments
from actors.rules.errors import InvalidArgument
from actors.rules.geofence import Fence, FenceTable
from actors.rules.plan import FENCE_EVENTS, PlannedFence, PlannedRoute

MOST_FENCES = 100
MOST_POINTS = 10_000
MOST_HOLES = 100
WIDEST_CIRCLE_M = 1_000_000.0
WIDEST_CORRIDOR_M = 100_000.0
DEFAULT_CONFIRM = 2
DEFAULT_ROUTE_HOLD_US = 300_000_000
LONGEST_DWELL_US = 30 * 86_400_000_000

Point = list[float]


def read_fences(arguments: Arguments, name: str = "geofences", *, within: str = "") -> list[dict[str, Any]]:
    """The extra fences of a carrier as data; each id once, none of those that stops have ("stop/...")."""
    fences: list[dict[str, Any]] = []
    seen: set[str] = set()
    for at, entry in requests.each(arguments, name, within=within, most=MOST_FENCES):
        fence_id = requests.identity(entry, "fence_id", within=at)
        if fence_id in seen:
            raise InvalidArgument("must be unique among the carrier's fences", field=at + "fence_id", value=fence_id)
        seen.add(fence_id)
        kind = requests.one_of(entry, "kind", ("circle", "polygon", "corridor"), within=at)
        confirm = requests.number(entry, "confirm", within=at, low=1, high=100)
        alert_on = entry.get("alert_on") or []
        for event in alert_on:
            requests.one_of({"alert_on": event}, "alert_on", FENCE_EVENTS, within=at)
        fences.append(
            {
                "fence_id": fence_id,
                "name": requests.text(entry, "name", within=at, longest=requests.NAME_MAX),
                "kind": kind,
                "geometry": _geometry(kind, requests.section(entry, "geometry", within=at) or {}, f"{at}{kind}."),
                "confirm": DEFAULT_CONFIRM if confirm is None else int(confirm),
                "dwell_us": requests.duration_us(entry, "dwell_us", within=at, high_us=LONGEST_DWELL_US),
                "alert_on": list(alert_on),
            }
        )
        _check(fences[-1], at)
    return fences


def _geometry(kind: str, shape: Arguments, at: str) -> dict[str, Any]:
    if kind == "circle":
        center = _point(shape.get("center"), at + "center")
        return {"center": center, "radius_m": _width(shape, "radius_m", at, WIDEST_CIRCLE_M)}
    if kind == "corridor":
        points = _points(shape.get("points"), at + "points", 2)
        return {"points": points, "half_width_m": _width(shape, "half_width_m", at, WIDEST_CORRIDOR_M)}
    rings = shape.get("rings") or [None]
    if len(rings) > MOST_HOLES + 1:
        raise InvalidArgument(f"must have at most {MOST_HOLES} holes", field=at + "holes", value=len(rings) - 1)
    return {"rings": [_ring(ring, f"{at}holes[{k - 1}]" if k else at + "outer") for k, ring in enumerate(rings)]}


def _check(fence: Mapping[str, Any], at: str) -> None:
    """What the rule itself demands of a fence: edges and rings that are not too long."""
    try:
        FenceTable().add(Fence.of(fence["fence_id"], fence["kind"], fence["geometry"], fence["confirm"], fence["dwell_us"]))
    except InvalidArgument as refusal:
        raise InvalidArgument(refusal.rule, field=f"{at}{fence['kind']}", value=refusal.value) from None


def _width(shape: Arguments, name: str, at: str, widest_m: float) -> float:
    width = requests.number(shape, name, within=at, high=widest_m, required=True) or 0.0
    if width <= 0:
        raise InvalidArgument("must be above 0 metres", field=at + name, value=width)
    return width


def _point(pair: Any, field: str) -> Point:
    if pair is None:
        raise InvalidArgument("must be given", field=field)
    if not isinstance(pair, Sequence) or len(pair) != 2:
        raise InvalidArgument("must be a latitude and a longitude", field=field, value=pair)
    both = {"latitude_deg": pair[0], "longitude_deg": pair[1]}
    latitude, longitude = requests.point(both, within=field + ".", required=True) or (0.0, 0.0)
    return [latitude, longitude]


def _points(value: Any, field: str, fewest: int) -> list[Point]:
    points = [] if value is None else value
    if not isinstance(points, Sequence) or isinstance(points, str):
        raise InvalidArgument("must be a list of points", field=field, value=points)
    if not fewest <= len(points) <= MOST_POINTS:
        raise InvalidArgument(f"must have {fewest} to {MOST_POINTS} points", field=field, value=len(points))
    return [_point(pair, f"{field}[{k}]") for k, pair in enumerate(points)]


def _ring(value: Any, field: str) -> list[Point]:
    points = _points(value, field, 3)
    if len({tuple(point) for point in points}) < 3:
        raise InvalidArgument("must have at least 3 different points", field=field, value=len(points))
    return points


def read_route(arguments: Arguments, name: str = "route", *, within: str = "") -> dict[str, Any] | None:
    """The planned way as data: {points, tolerance_m, hold_us}."""
    route = requests.section(arguments, name, within=within)
    if route is None:
        return None
    at = f"{within}{name}."
    hold_us = requests.duration_us(route, "hold_us", within=at, high_us=LONGEST_DWELL_US)
    return {
        "points": _points(route.get("points"), at + "points", 2),
        "tolerance_m": _width(route, "tolerance_m", at, WIDEST_CIRCLE_M),
        "hold_us": DEFAULT_ROUTE_HOLD_US if hold_us is None else hold_us,
    }


def planned_fence(fence: Mapping[str, Any]) -> PlannedFence:
    """A fence of `read_fences` as a plan carries it."""
    return PlannedFence(
        fence_id=fence["fence_id"],
        kind=fence["kind"],
        geometry=fence["geometry"],
        confirm=fence["confirm"],
        dwell_us=fence["dwell_us"],
        alert_on=tuple(fence["alert_on"]),
    )


def stop_fence(stop_id: str, latitude_deg: float, longitude_deg: float, radius_m: float) -> PlannedFence:
    """The circle round a planned stop."""
    geometry = {"center": [latitude_deg, longitude_deg], "radius_m": radius_m}
    return PlannedFence(fence_id=stop_fence_id(stop_id), kind="circle", geometry=geometry, stop_id=stop_id)


def stop_fence_id(stop_id: str) -> str:
    """The id of a stop's fence: "/" cannot be in the ids of other fences."""
    return f"stop/{stop_id}"


def planned_route(route: Mapping[str, Any] | None) -> PlannedRoute | None:
    """A route of `read_route` as a plan carries it."""
    if route is None:
        return None
    points = tuple((latitude, longitude) for latitude, longitude in route["points"])
    return PlannedRoute(points=points, tolerance_m=route["tolerance_m"], hold_us=route["hold_us"])
