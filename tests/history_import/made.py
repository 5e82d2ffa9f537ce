"""Recordings to import: a CSV of loggers with a known number of bad rows of each kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np

MAPPING = """
[tag]
column = "logger"
[time]
column = "at"
[values]
temperature_c = { column = "temp", unit = "F" }
relative_humidity_pct = "rh"
"""
BEGIN_S = 1_577_836_800  # 2020-01-01
BAD = ("columns", "number", "time", "missing", "implausible", "empty")


def write(path: Path, rows: int, *, seed: int = 1, tags: int = 50, bad_share: float = 0.01, name: str = "log") -> dict[str, int]:
    """Writes the file; gives how many rows there are of each kind ("good" and BAD)."""
    rng = np.random.default_rng(seed)
    kinds = np.full(rows, -1)
    spoilt = rng.choice(rows, round(rows * bad_share), replace=False)
    kinds[spoilt] = rng.integers(0, len(BAD), len(spoilt))
    celsius = np.round(5 + 2 * rng.standard_normal(rows), 2)
    humidity = np.round(rng.uniform(20, 90, rows), 1)
    with path.open("w", encoding="utf-8") as out:
        out.write("at,logger,temp,rh,remark\n")
        for k in range(rows):
            stamp = np.datetime64(BEGIN_S + 60 * (k // tags), "s")
            line = [f"{stamp}Z", f"{name}-{k % tags}", f"{celsius[k] * 1.8 + 32:.3f}", str(humidity[k]), '"a, b"']
            kind = kinds[k]
            if kind >= 0:
                which = BAD[kind]
                if which == "columns":
                    line = line[:3]
                elif which == "number":
                    line[2] = "4l.0"
                elif which == "time":
                    line[0] = "2020-13-45T99:00:00Z"
                elif which == "missing":
                    line[1] = ""
                elif which == "implausible":
                    line[2] = "999"
                else:
                    line = [""]
            out.write(",".join(line) + "\n")
    counts = {which: int((kinds == kind).sum()) for kind, which in enumerate(BAD)}
    return {"good": rows - sum(counts.values()), **counts}
