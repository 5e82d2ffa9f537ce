"""The weather outside and the warmth inside: first-order heat exchange, on arrays.

A box (container, parcel, cold room) follows what surrounds it as a first-order system: dT/dt = (target - T) / tau. Over a step
in which the target holds, the exact solution is T' = target + (T - target)·exp(-dt/tau): no step is too long to be stable.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F8 = npt.NDArray[np.float64]

DAY_S = 86_400.0
YEAR_S = 365.2425 * DAY_S


def relax(temperature_c: F8, target_c: F8, seconds: F8 | float, tau_s: F8 | float) -> F8:
    """Temperature after `seconds` of first-order exchange with `target_c`, time constant `tau_s`.

    >>> import numpy as np
    >>> relax(np.array([0.0]), np.array([10.0]), 1e9, 60.0).round(3)
    array([10.])
    """
    return np.asarray(target_c + (temperature_c - target_c) * np.exp(-np.asarray(seconds) / tau_s))


def ambient_c(latitude_deg: F8, longitude_deg: F8, at_s: float, land: npt.NDArray[np.bool_], weather: F8) -> F8:
    """Outside air at a place and time (Unix seconds UTC).

    Mean falls with the distance from the sun's noon latitude; the day's swing is 6 K on land and 1.5 K at sea, warmest at 15 h
    solar time. `weather` is a phase per vehicle of a slow (5 day) swing of 3 K, so that no two summers are alike.
    """
    declination = 23.4 * np.sin(2 * np.pi * (at_s / YEAR_S - 80 / 365.2425))
    solar_h = (at_s / 3600.0 + longitude_deg / 15.0) % 24.0
    daily = np.where(land, 6.0, 1.5) * np.cos(2 * np.pi * (solar_h - 15.0) / 24.0)
    slow = 3.0 * np.sin(2 * np.pi * (at_s / (5 * DAY_S)) + weather)
    return np.asarray(28.0 - 0.42 * np.abs(latitude_deg - 0.6 * declination) + daily + slow)


def sun_load_c(longitude_deg: F8, at_s: float) -> F8:
    """What the sun adds to a closed, uncooled box by day: up to 9 K at solar noon, nothing at night."""
    solar_h = (at_s / 3600.0 + longitude_deg / 15.0) % 24.0
    return np.asarray(9.0 * np.maximum(0.0, np.sin(np.pi * (solar_h - 6.0) / 12.0)))


def humidity_pct(inside_c: F8, outside_c: F8, base_pct: F8, open_share: F8) -> F8:
    """Relative humidity of the air in a box: its base, drier as it warms above where it was closed, damp air in by the door."""
    return np.asarray(np.clip(base_pct - 0.35 * (inside_c - 5.0) + 12.0 * open_share * (outside_c > inside_c), 3.0, 100.0))
