"""The outlines of land and the borders of countries, from data/world.npz (see make_world.py and data/LICENSE.md)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]


class Outlines(NamedTuple):
    """Lines of (longitude_deg, latitude_deg): closed rings of land (holes among them), open lines of borders."""

    land: tuple[Points, ...]
    borders: tuple[Points, ...]


@cache
def outlines() -> Outlines:
    """The whole world, loaded once."""
    with np.load(Path(__file__).parent / "data" / "world.npz") as stored:
        steps, lengths, land = stored["steps"].astype(np.int64), stored["lengths"], int(stored["land"])
    lines = tuple(np.cumsum(part, axis=0) / 100.0 for part in np.split(steps, np.cumsum(lengths)[:-1]))
    return Outlines(lines[:land], lines[land:])
