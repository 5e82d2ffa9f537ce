"""What a replay leaves behind: a folder (or URL) with result.json, differences.parquet, shipments.parquet, and report.html for people.

`differences` has a row for each thing that is not the same (DIFFERENCES), `shipments` one for each shipment replayed (SHIPMENTS). In a
verify `before` is what was recorded and `after` what the replay gives; in a what-if `before` is the outcome of the recorded rules and
`after` that of the other rules. The same replay of the same archive gives the same files but for times and versions: `digest` says so.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.archive.filesystem import Place

RESULT, DIFFERENCES_FILE, SHIPMENTS_FILE, REPORT = "result.json", "differences.parquet", "shipments.parquet", "report.html"
FORMAT = 1

VERIFY, ARRIVAL, WHAT_IF, LIVE = "verify", "arrival", "what-if", "live"
"""Kinds of replay."""
RUNNING, SUCCEEDED, CANCELLED, FAILED = "RUNNING", "SUCCEEDED", "CANCELLED", "FAILED"
"""States of a replay."""

EXCURSION, VISIT, SUM, MKT, FLAG, REVISION = "excursion", "visit", "sum", "mkt", "flag", "revision"
"""Subjects of a difference. sum: the exposure of a custody under a limit. flag: recorded quality flags of a custody and metric that are not
those its settings give (before_readings: how many). revision: of an excursion, `arrival` only."""
APPEARED, VANISHED, CHANGED = "appeared", "vanished", "changed"
"""Only after, only before, in both with other facts."""

_TIME = pa.timestamp("us", tz="UTC")
_FACTS = [
    ("started_at", _TIME),  # visit: entered
    ("triggered_at", _TIME),
    ("ended_at", _TIME),  # visit: left; null: open
    ("violation_us", pa.int64()),
    ("covered_us", pa.int64()),  # sum
    ("uncovered_us", pa.int64()),
    ("extreme", pa.float64()),
    ("extreme_at", _TIME),
    ("mean", pa.float64()),  # mkt: the mean kinetic temperature
    ("readings", pa.int64()),
]
FACTS = tuple(name for name, _ in _FACTS)
"""What is compared of a subject; those that do not apply are null."""

DIFFERENCES = pa.schema(
    [
        ("shipment_id", pa.string()),
        ("tag_id", pa.string()),
        ("custody_id", pa.int64()),
        ("handling_unit_id", pa.string()),
        ("subject", pa.string()),
        ("name", pa.string()),  # limit id or fence id
        ("change", pa.string()),
        ("fields", pa.string()),  # changed: the names of the facts that differ, joined by commas
        ("severity", pa.string()),
        ("lots", pa.list_(pa.string())),  # excursions: the lots that they touch
        *((f"before_{name}", kind) for name, kind in _FACTS),
        *((f"after_{name}", kind) for name, kind in _FACTS),
    ]
)
"""Sorted by shipment, tag, custody, subject, name and start."""

WITHIN_LIMITS, EXCURSION_VERDICT, NO_DATA = "WITHIN_LIMITS", "EXCURSION", "NO_DATA"
SHIPMENTS = pa.schema(
    [
        ("shipment_id", pa.string()),
        ("readings", pa.int64()),
        ("custodies", pa.int64()),
        ("before_verdict", pa.string()),  # WITHIN_LIMITS, EXCURSION, NO_DATA
        ("after_verdict", pa.string()),
        ("before_excursions", pa.int64()),
        ("after_excursions", pa.int64()),
        ("before_visits", pa.int64()),
        ("after_visits", pa.int64()),
        ("before_alerts", pa.int64()),  # one alert stands for one (carrier, limit)
        ("after_alerts", pa.int64()),
        ("differences", pa.int64()),
        ("lots_affected", pa.list_(pa.string())),  # lots of excursions that appeared, vanished or changed
        ("first_sensed_at", _TIME),
        ("last_sensed_at", _TIME),
        ("mkt_c", pa.float64()),  # the largest of its custodies, after
    ]
)
"""Sorted by shipment."""


@dataclass
class Result:
    """result.json. Times are microseconds since 1970 UTC.

    parameters: as asked: archive, selection, and of a what-if the other rules. versions: of waybill, Python, numpy, numba, pyarrow.
    counts: parts, shipments, custodies, readings, excursions, visits and sums judged, and differences in all and by "subject.change".
    summary: verify: {"identical": bool}. What-if: verdict_changes {"WITHIN_LIMITS>EXCURSION": n, …}, shipments_changed, excursions
    {"appeared", "vanished", "changed"}, lots_affected (sorted ids), days, alerts_per_day {"before", "after"}.
    digest: SHA-256 over both tables' content.
    """

    replay_id: str
    kind: str
    state: str = RUNNING
    started_us: int = 0
    finished_us: int | None = None
    elapsed_s: float = 0.0
    parameters: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    digest: str = ""
    error: str = ""
    format: int = FORMAT

    @property
    def readings_per_s(self) -> float:
        """Rate of the whole job, starting and writing included."""
        return self.counts.get("readings", 0) / self.elapsed_s if self.elapsed_s > 0 else 0.0

    def to_data(self) -> dict[str, Any]:
        """JSON-ready data; `from_data` gives an equal result."""
        return dataclasses.asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Result:
        """A result from `to_data`. Raises ValueError for another format."""
        if data.get("format") != FORMAT:
            raise ValueError(f"a replay result of format {data.get('format')!r} is not known here")
        return cls(**data)


def digest_of(differences: pa.Table, shipments: pa.Table) -> str:
    """SHA-256 over the content of both tables, the same for the same rows."""
    seen = hashlib.sha256()
    for table in (differences, shipments):
        for name, column in zip(table.column_names, table.columns, strict=True):
            plain = column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
            seen.update(json.dumps([name, plain.to_pylist()], separators=(",", ":")).encode())
    return seen.hexdigest()


def write(place: Place, result: Result, differences: pa.Table, shipments: pa.Table) -> None:
    """Write the three files, result.json last: where it is, the others are whole."""
    for name, table in ((DIFFERENCES_FILE, differences), (SHIPMENTS_FILE, shipments)):
        with place.create(name) as file:
            pq.write_table(table, file, compression="zstd")
    place.put(RESULT, json.dumps(result.to_data(), indent=1, sort_keys=True).encode())


def read(place: Place) -> tuple[Result, pa.Table, pa.Table]:
    """What `write` wrote: (result, differences, shipments). Raises FileNotFoundError, ValueError."""
    result = Result.from_data(json.loads(place.read(RESULT)))
    return result, pq.read_table(place.open(DIFFERENCES_FILE)), pq.read_table(place.open(SHIPMENTS_FILE))
