"""Makes data/world.npz, the land outlines and borders of the maps, from the npm package world-atlas 2.0.2 (Natural Earth, public domain).

    npm pack world-atlas@2.0.2 && tar xzf world-atlas-2.0.2.tgz
    python -m services.reports.make_world package/countries-50m.json

Points are rounded to a hundredth of a degree and thinned to a tolerance of 0.03 degrees: enough for maps of some hundred kilometres.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

I8 = npt.NDArray[np.int64]

TOLERANCE = 3
"""In hundredths of a degree."""
SMALLEST = 6
"""A ring within so many hundredths of a degree is left out."""


def arcs_of(topology: dict[str, Any]) -> list[I8]:
    """The arcs as hundredths of a degree, thinned."""
    scale, shift = np.array(topology["transform"]["scale"]), np.array(topology["transform"]["translate"])
    return [thinned(np.round((np.cumsum(arc, axis=0) * scale + shift) * 100).astype(np.int64)) for arc in topology["arcs"]]


def thinned(points: I8) -> I8:
    """Douglas and Peucker: what is within the tolerance of the line between its neighbours goes; both ends stay."""
    keep = np.zeros(len(points), np.bool_)
    keep[[0, -1]] = True
    stack = [(0, len(points) - 1)]
    while stack:
        first, last = stack.pop()
        if last - first < 2:
            continue
        a, b, inner = points[first], points[last], points[first + 1 : last]
        along = b - a
        length = float(np.hypot(*along))
        away = np.hypot(*(inner - a).T) if length == 0 else np.abs(along[0] * (inner - a)[:, 1] - along[1] * (inner - a)[:, 0]) / length
        worst = int(np.argmax(away))
        if away[worst] > TOLERANCE:
            keep[first + 1 + worst] = True
            stack += [(first, first + 1 + worst), (first + 1 + worst, last)]
    return points[keep]


def rings_of(geometry: dict[str, Any], arcs: list[I8]) -> Iterator[tuple[I8, list[int]]]:
    """Every ring of a geometry with the numbers of its arcs."""
    if geometry["type"] == "GeometryCollection":
        for one in geometry["geometries"]:
            yield from rings_of(one, arcs)
        return
    polygons = [geometry["arcs"]] if geometry["type"] == "Polygon" else geometry.get("arcs", [])
    for polygon in polygons:
        for ring in polygon:
            pieces = [arcs[number] if number >= 0 else arcs[~number][::-1] for number in ring]
            joined = np.concatenate([piece if k == 0 else piece[1:] for k, piece in enumerate(pieces)])
            yield joined, [number if number >= 0 else ~number for number in ring]


def main() -> None:
    """Write data/world.npz beside this file."""
    topology = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    arcs = arcs_of(topology)
    land = [ring for ring, _ in rings_of(topology["objects"]["land"], arcs) if np.ptp(ring, axis=0).max() > SMALLEST]
    used = Counter(number for _, numbers in rings_of(topology["objects"]["countries"], arcs) for number in numbers)
    borders = [arcs[number] for number, times in sorted(used.items()) if times > 1]
    lines = land + borders
    np.savez_compressed(
        Path(__file__).parent / "data" / "world.npz",
        steps=np.concatenate([np.diff(line, axis=0, prepend=np.zeros((1, 2), np.int64)) for line in lines]).astype(np.int16),
        lengths=np.array([len(line) for line in lines], np.int32),
        land=np.array(len(land)),
    )
    print(f"{len(land)} rings of land, {len(borders)} borders, {sum(map(len, lines))} points")


if __name__ == "__main__":
    main()
