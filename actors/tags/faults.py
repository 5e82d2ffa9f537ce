"""A failing sensor raises a sensor alert, never a goods alert (handbook 4; EPCIS makes the same split)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actors.journal.prepared import Condition
from actors.rules.readings import COLUMNS, Batch
from actors.tags.changes import Changes
from actors.tags.special import Series

if TYPE_CHECKING:
    from actors.sensor_tag import SensorTags

REASON = "FAIL"


def state(tags: SensorTags, tag: int, series: Series, new: Batch, changes: Changes) -> None:
    """Raise for each column of which a `new` reading is flagged *fail*; it is over when the newest value of that column is not."""
    batch = series.batch
    fresh = np.isin(batch.sensed_us, new.sensed_us)
    faulty = tags.faults.get(tag, set())
    for k, code in enumerate(batch.codes):
        failed = np.flatnonzero(series.failed[k] & fresh)
        valued = np.flatnonzero(~np.isnan(batch.values[k]))
        if not len(valued):
            continue
        newest = int(valued[-1])
        if len(failed):
            at = int(failed[0])
            changes.conditions.append(_condition(tags, tag, code, "raise", int(batch.sensed_us[at]), float(batch.values[k, at])))
            faulty.add(code)
        if code in faulty and not series.failed[k, newest]:
            changes.conditions.append(_condition(tags, tag, code, "clear", int(batch.sensed_us[newest]), float(batch.values[k, newest])))
            faulty.discard(code)
    if faulty:
        tags.faults[tag] = faulty
    else:
        tags.faults.pop(tag, None)


def _condition(tags: SensorTags, tag: int, code: int, change: str, at_us: int, value: float) -> Condition:
    name = COLUMNS[code].name
    return Condition(
        key=f"sensor|{tags.ids[tag]}|{name}", kind="sensor", change=change, at_us=at_us, carrier=tags.head.custodies[tag].carrier,
        tag_id=tags.ids[tag], metric=name, reason=REASON, cause="quality", detail={"value": value},
    )  # fmt: skip
