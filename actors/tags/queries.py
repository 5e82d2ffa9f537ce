"""What a shard answers about its tags: their twins, their exposure on a carrier, their series."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.rules import exposure, readings
from actors.rules.errors import NotFound
from actors.rules.readings import FAIL, FOREVER_US, SUSPECT, U1, Batch
from actors.tags import neighbours, past, whole
from actors.tags.band_use import band_use
from actors.tags.columns import MIN_US
from actors.tags.stated import excursion_of_run

if TYPE_CHECKING:
    from actors.sensor_tag import SensorTags

Arguments = Mapping[str, Any]

FLAGGED_US = 31 * 86_400_000_000
"""How far back flags are counted when a twin is asked for: what it takes stays the same however long a tag lives."""


SERIES_ROWS = 50_000
"""Readings that one call for a series brings at most, but that those of one sensed time come together."""


def index_of(tags: SensorTags, tag_id: str) -> int:
    """Local index of a tag, or NotFound."""
    known = tags.find(tag_id)
    if known is None:
        raise NotFound("there is no such tag", field="tag_id", value=tag_id)
    return known


def twin(tags: SensorTags, arguments: Arguments) -> dict[str, Any]:
    """The tag as known now: counters, newest times, latest values, custody, silence. Times are None where there is none."""
    tag = index_of(tags, str(arguments["tag_id"]))
    row = tags.head.tags[tag]
    custody = tags.head.custodies.get(tag)

    def time_us(name: str) -> int | None:
        return int(row[name]) if MIN_US < int(row[name]) < FOREVER_US else None

    values = _latest(tags, tag)
    return {
        "tag_id": tags.ids[tag],
        "shard": tags.shard,
        "newest_us": time_us("newest_us"),
        "received_us": time_us("received_us"),
        "usual_interval_us": tags.head.set_interval_us.get(tag) or int(row["usual_interval_us"]) or None,
        "usual_interval_learnt": tag not in tags.head.set_interval_us,
        "silent": bool(row["silent"]),
        "accepted": int(row["accepted"]),
        "duplicate": int(row["duplicate"]),
        "conflicting": int(row["conflicting"]),
        "late": int(row["late"]),
        "in_future": len(tags.held.get(tag, ())),
        "values": {readings.COLUMNS[code].name: {"sensed_us": at_us, "value": value} for code, (at_us, value) in sorted(values.items())},
        "carrier": custody.carrier if custody else None,
        "custody_id": custody.custody_id if custody else None,
        "handling_unit_id": (custody.handling_unit or None) if custody else None,
        "custody_from_us": custody.from_us if custody else None,
    }


def _latest(tags: SensorTags, tag: int) -> dict[int, tuple[int, float]]:
    """The tag's newest (sensed_us, value) by column code. Of equal times the last in judging order, whatever came first."""
    found = {}
    for code, (at_us, value, tied) in tags.latest.of(tag).items():
        if tied:
            batch = whole.ordered(tags.reads.history([tag], at_us, at_us + 1)[1])
            there = batch.values[batch.codes.index(code)] if code in batch.codes else np.empty(0)
            there = there[~np.isnan(there)]
            value = float(there[-1]) if len(there) else value
        found[code] = (at_us, value)
    return found


def exposure_of(tags: SensorTags, arguments: Arguments) -> list[dict[str, Any]]:
    """Sums per tag, custody and limit of one carrier: closed custodies as written, open ones as the head has them.

    violation_us, covered_us, uncovered_us are a custody's own. `accounted_us`: up to when an open one is accounted for.
    """
    name = str(arguments["carrier"])
    carrier = tags.head.rulebook.carriers.get(name)
    found = []
    for tag in tags.head.custodies.on(name) if carrier is not None else ():
        custody = tags.head.custodies[tag]
        assert carrier is not None
        tracks = tags.head.rows_of(tag).tracks
        accounted_us = int(tracks["prev_us"].max()) if len(tracks) else custody.from_us
        for row in past.exposure_rows(tags, custody, carrier, tracks):
            found.append(
                _sums(row, custody.from_us, None, custody.handling_unit or None)
                | {"accounted_us": accounted_us, "metric": _metric(carrier, row.limit_id)}
            )
    for row, closed in tags.reads.exposures_of(name):
        if closed.until_us is None:  # it was closed once, and is open again: the head has its sums
            continue
        plan_carrier = past.carrier_of(tags, name)
        if all(spec.limit_id != row.limit_id for spec in plan_carrier.tracks):  # of a plan that is no more
            continue
        found.append(
            _sums(row, closed.from_us, closed.until_us, closed.handling_unit_id)
            | {"accounted_us": closed.until_us, "metric": _metric(plan_carrier, row.limit_id)}
        )
    return found


def _sums(row: Any, from_us: int, until_us: int | None, handling_unit_id: str | None) -> dict[str, Any]:
    sums: dict[str, Any] = row.model_dump()
    return sums | {"from_us": from_us, "until_us": until_us, "handling_unit_id": handling_unit_id}


def _metric(carrier: Any, limit_id: str) -> str:
    return next((readings.COLUMNS[spec.metric].name for spec in carrier.tracks if spec.limit_id == limit_id), "")


def open_runs(tags: SensorTags, arguments: Arguments) -> list[dict[str, Any]]:
    """The open excursions of a carrier's tags as they stand now, accounted for up to each tag's newest reading."""
    name = str(arguments["carrier"])
    carrier = tags.head.rulebook.carriers.get(name)
    found = []
    for tag in tags.head.custodies.on(name) if carrier is not None else ():
        assert carrier is not None
        by_start = {}
        tracks = tags.head.rows_of(tag).tracks
        for run in exposure.open_runs(tracks, np.arange(len(tracks)), tags.head.rulebook.windows):
            live = excursion_of_run(run, carrier.tracks[int(run["track"])].limit_id, 0)
            by_start[(live.limit_id, live.started_us)] = live
        for stated in tags.head.excursions.get(tag, ()):
            now = by_start.get((stated.limit_id, stated.started_us))
            if stated.ended_us is None and now is not None:
                facts = ("violation_us", "uncovered_us", "extreme", "extreme_us", "mean", "readings")
                told = {fact: getattr(now, fact) for fact in facts}
                found.append({"excursion_id": stated.excursion_id, "tag_id": tags.ids[tag], **told})
    return found


def series(tags: SensorTags, arguments: Arguments) -> tuple[Batch, U1, int | None]:
    """A tag's accepted readings in [from_us, until_us) in judging order, as many as one call brings (`rows`, by default SERIES_ROWS).

    Returns (batch, QARTOD flags (m, n) by its present quality settings, from_us of the next call or None). Readings of one sensed time come
    together, so the next call goes on at a time. A flag does not depend on what was asked for: neighbours outside are looked at.
    """
    tag = index_of(tags, str(arguments["tag_id"]))
    from_us, until_us = int(arguments.get("from_us", MIN_US)), int(arguments.get("until_us", FOREVER_US))
    most = int(arguments.get("rows", SERIES_ROWS))
    end_us = tags.reads.portion(tag, from_us, until_us, most)
    batch = whole.ordered(tags.reads.history([tag], from_us, end_us)[1])
    if len(batch) > most:
        here_us = int(batch.sensed_us[most])
        end_us = here_us if here_us > int(batch.sensed_us[0]) else here_us + 1
        batch = readings.subset(batch, batch.sensed_us < end_us)
    if tag in tags.quality and len(batch):
        batch, flags = neighbours.flagged(tags, tag, from_us, end_us)
    else:
        flags = neighbours.flags_of(tags, tag, batch, None)
    return batch, flags, end_us if end_us < until_us else None


def flag_counts(tags: SensorTags, arguments: Arguments) -> dict[str, int]:
    """How many values of a tag in the FLAGGED_US before its newest are flagged fail and suspect by its present quality settings."""
    tag = index_of(tags, str(arguments["tag_id"]))
    if tag not in tags.quality:
        return {"fail": 0, "suspect": 0}
    newest_us = int(tags.head.tags[tag]["newest_us"])
    _, flags = neighbours.flagged(tags, tag, max(newest_us - FLAGGED_US, MIN_US), FOREVER_US)
    return {"fail": int((flags == FAIL).sum()), "suspect": int((flags == SUSPECT).sum())}


LOCKED = {"tag.twin": twin, "tag.exposure": exposure_of, "tag.open_runs": open_runs}
"""Queries that look at the state: the shard answers them between two batches."""

FREE = {"tag.series": series, "tag.flag_counts": flag_counts, "tag.band_use": band_use}
"""Queries that read committed rows only."""
