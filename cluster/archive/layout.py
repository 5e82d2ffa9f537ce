"""The archive's datasets: their columns, types, order and encodings. docs/archive.md tells readers of it.

    LOCATION/manifest.json                               the files that count
    LOCATION/DATASET/month=2026-01/PART.parquet          DATASET: readings, shipments, custodies, … (DATASETS)

A **part** is one file of the same name in each dataset: some whole journeys that closed in one month, never a piece of one. Times are
timestamps in microseconds, UTC; durations integer microseconds (`*_us`); what is absent is null.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from actors.rules.readings import COLUMNS

FORMAT = 1
MANIFEST = "manifest.json"

TIME = pa.timestamp("us", tz="UTC")
_S, _I8, _I4, _F8, _B = pa.string(), pa.int64(), pa.int32(), pa.float64(), pa.bool_()

VALUE_COLUMNS = tuple(column.name for column in COLUMNS)
FLAG_COLUMNS = tuple(f"{name}_flag" for name in VALUE_COLUMNS)

READINGS = pa.schema(
    [
        ("carrier", _S),  # shipment/ID
        ("tag_id", _S),
        ("custody_id", _I8),
        ("sensed_at", TIME),
        ("received_at", TIME),
        ("boot", _I8),  # null: the device tells none
        ("sequence", _I8),
        *((name, _F8) for name in VALUE_COLUMNS),
        *((name, pa.uint8()) for name in FLAG_COLUMNS),  # QARTOD: 1 good, 2 not evaluated, 3 suspect, 4 fail; null where there is no value
        ("journal_shard", pa.int16()),
        ("journal_sequence", _I8),
        ("journal_row", _I4),
    ]
)
"""Sorted by carrier, tag and custody, in a custody by (sensed_at, boot, sequence)."""

SHIPMENTS = pa.schema(
    [
        ("carrier", _S),
        ("shipment_id", _S),
        ("state", _S),  # DELIVERED, CANCELLED
        ("reference", _S),
        ("description", _S),
        ("origin", _S),
        ("destination", _S),
        ("profile_id", _S),
        ("profile_version", _I8),
        ("created_at", TIME),
        ("departed_at", TIME),
        ("arrived_at", TIME),
        ("closed_at", TIME),
        ("verdict", _S),  # WITHIN_LIMITS, EXCURSION, NO_DATA
        ("excursions", _I8),
        ("custodies", _I8),
        ("readings", _I8),
        ("first_sensed_at", TIME),
        ("last_sensed_at", TIME),
        ("rules_revision", _I8),
        ("rules", _S),  # JSON: rules.plan.Plan without carrier and revision: profile versions in force, limits with windows, fences, route
        ("lots", _S),  # JSON: lot ids by handling unit
        ("record", _S),  # JSON: all rows that people keep of it (stops, milestones, handling units, …)
        ("last_event", _I8),  # the newest event of its carrier that the archive has
    ]
)

CUSTODIES = pa.schema(
    [
        ("custody_id", _I8),
        ("carrier", _S),
        ("tag_id", _S),
        ("handling_unit_id", _S),
        ("from_at", TIME),
        ("until_at", TIME),
        ("retracted", _B),
        ("assigned_by", _S),
        ("assigned_at", TIME),
        ("ended_by", _S),
        ("ended_at", TIME),
        ("note", _S),
        ("etag", _I8),
        ("journal_shard", pa.int16()),
        ("local_index", _I4),  # the tag's number in its shard's journal
        ("quality", _S),  # JSON: rules.quality.QualitySettings in force; null: none
        ("first_row", _I8),  # its readings in this part's file of readings
        ("readings", _I8),
        ("mkt_c", _F8),  # mean kinetic temperature of the custody, hold rule; null: nothing covered
        ("history", _S),  # JSON: what it said at each etag, who changed it, when and why
    ]
)
"""Sorted as READINGS."""

EXPOSURES = pa.schema(
    [
        ("carrier", _S),
        ("tag_id", _S),
        ("custody_id", _I8),
        ("limit_id", _S),
        ("violation_us", _I8),
        ("covered_us", _I8),
        ("uncovered_us", _I8),
        ("extreme", _F8),
        ("extreme_at", TIME),
        ("readings", _I8),
    ]
)

EXCURSIONS = pa.schema(
    [
        ("carrier", _S),
        ("tag_id", _S),
        ("custody_id", _I8),
        ("excursion_id", _I8),
        ("revision", _I8),
        ("final", _B),  # the last revision
        ("state", _S),  # CONFIRMED (open), ENDED, RETRACTED
        ("cause", _S),
        ("handling_unit_id", _S),
        ("lots", pa.list_(_S)),
        ("limit_id", _S),
        ("profile_id", _S),
        ("profile_version", _I8),
        ("metric", _S),
        ("direction", _I8),
        ("threshold", _F8),
        ("mode", _S),
        ("severity", _S),
        ("started_at", TIME),
        ("triggered_at", TIME),
        ("ended_at", TIME),
        ("violation_us", _I8),
        ("uncovered_us", _I8),
        ("extreme", _F8),
        ("extreme_at", TIME),
        ("mean", _F8),
        ("readings", _I8),
        ("found_late", _B),
        ("recorded_at", TIME),
        ("alert_id", _S),
    ]
)
"""Every revision."""

VISITS = pa.schema(
    [
        ("carrier", _S),
        ("tag_id", _S),
        ("custody_id", _I8),
        ("visit_id", _I8),
        ("revision", _I8),
        ("state", _S),  # STATED, RETRACTED
        ("kind", _S),  # VISIT, PASSED
        ("cause", _S),
        ("fence_id", _S),
        ("entered_at", TIME),
        ("exited_at", TIME),
        ("recorded_at", TIME),
    ]
)

EVENTS = pa.schema([("carrier", _S), ("tag_id", _S), ("number", _I8), ("kind", _S), ("at", TIME), ("recorded_at", TIME), ("body", _S)])

ALERTS = pa.schema(
    [
        ("carrier", _S),
        ("tag_id", _S),
        ("alert_id", _S),
        ("kind", _S),
        ("severity", _S),
        ("state", _S),
        ("limit_id", _S),
        ("fence_id", _S),
        ("started_at", TIME),
        ("ended_at", TIME),
        ("raised_at", TIME),
        ("acknowledged_by", _S),
        ("acknowledged_at", TIME),
        ("resolved_by", _S),
        ("resolved_at", TIME),
        ("resolution", _S),
        ("record", _S),  # JSON: the whole row
    ]
)

DECISIONS = pa.schema(
    [
        ("carrier", _S),
        ("alert_id", _S),
        ("etag", _I8),
        ("change", _S),  # raised, acknowledged, resolved, …
        ("cause", _S),
        ("by", _S),
        ("text", _S),
        ("at", TIME),
        ("state", _S),
        ("excursion_id", _I8),
    ]
)
"""Each change of each alert, with who and why."""

COMMANDS = pa.schema(
    [("carrier", _S), ("journal_shard", pa.int16()), ("journal_sequence", _I8), ("kind", _S), ("received_at", TIME), ("body", _S)]
)
"""The journal's commands and ticks that concern a carrier or its tags: with the readings' journal numbers, the order of arrival."""

LOOSE = pa.schema([field for field in READINGS if field.name not in ("carrier", "custody_id", *FLAG_COLUMNS)])
"""Readings that were on no archived journey when the journal gave them up (retain.py); sorted by tag and (sensed_at, boot, sequence)."""

NEIGHBOURS = pa.schema([field for field in READINGS if field.name not in FLAG_COLUMNS])
"""Readings outside of a custody that the flags inside it look at; sorted as READINGS. Of tags with quality settings only."""

DATASETS: dict[str, pa.Schema] = {
    "readings": READINGS,
    "neighbours": NEIGHBOURS,
    "shipments": SHIPMENTS,
    "custodies": CUSTODIES,
    "exposures": EXPOSURES,
    "excursions": EXCURSIONS,
    "visits": VISITS,
    "events": EVENTS,
    "alerts": ALERTS,
    "decisions": DECISIONS,
    "commands": COMMANDS,
    "loose": LOOSE,
}
JOURNEYS = tuple(name for name in DATASETS if name != "loose")
"""The datasets of a part of journeys. A part of loose readings has the other one alone."""

WHERE_THERE_ARE_ANY = ("neighbours",)
"""A part without rows of these has no file of them."""

ROW_GROUP = 262_144
"""Readings a row group: one tag's history unpacks at most so many, and a replay does not notice."""


def encodings(dataset: str) -> dict[str, Any]:
    """Arguments of the Parquet writer: sorted numbers as differences, values as byte planes, words that repeat as dictionaries.

    lz4, for it unpacks faster than the rules judge (70 M readings/s a core with three values; zstd 30 M and 2 bytes of 19 less).
    """
    if dataset not in ("readings", "neighbours", "loose"):
        return {"compression": "zstd"}
    delta = ("custody_id", "sensed_at", "received_at", "boot", "sequence", "journal_sequence", "journal_row")
    held = DATASETS[dataset].names
    encoded = {**dict.fromkeys(delta, "DELTA_BINARY_PACKED"), **dict.fromkeys(VALUE_COLUMNS, "BYTE_STREAM_SPLIT")}
    return {
        "compression": "lz4",
        "use_dictionary": [name for name in ("carrier", "tag_id", "journal_shard", *FLAG_COLUMNS) if name in held],
        "column_encoding": {name: one for name, one in encoded.items() if name in held},
    }


def month_of(us: int) -> str:
    """The month of a time, as partitions are named: "2026-01"."""
    return datetime.fromtimestamp(us // 1_000_000, UTC).strftime("%Y-%m")


def file_of(dataset: str, month: str, part_id: str) -> str:
    """The name of a part's file of a dataset."""
    return f"{dataset}/month={month}/{part_id}.parquet"


def times(us: npt.ArrayLike) -> pa.Array:
    """Microseconds as a column of timestamps."""
    return pa.array(np.asarray(us, np.int64)).cast(TIME)
