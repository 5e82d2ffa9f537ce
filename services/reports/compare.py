"""What differs between a report as it was sealed and the same report computed from the database today."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from waybill.v1 import report_pb2

VOLATILE = ("made_time", "software", "digests", "data_sha256", "last_event_number", "lines")
"""Fields that say when and by what, or repeat the readings; the digests are compared by themselves."""
MKT_K = 1e-9
"""Another machine's exp and log may differ in the last bits."""
MOST = 200
NAMES = {
    "excursions": ("excursion_id",),
    "alerts": ("alert_id",),
    "holds": ("hold_id",),
    "custodies": ("custody_id",),
    "milestones": ("ordinal",),
    "stops": ("stop_id",),
    "limits": ("limit", "limit_id"),
    "tags": ("tag_id",),
    "revisions": ("revision",),
}
"""What names an element of a repeated field; others go by their place."""


def data(then: report_pb2.ShipmentReport, now: report_pb2.ShipmentReport) -> list[str]:
    """Differences of the data, one line a digest."""
    old = {(one.kind, one.name): one for one in then.digests}
    new = {(one.kind, one.name): one for one in now.digests}
    found = []
    for key in [*old, *(key for key in new if key not in old)]:
        what = " of ".join(part for part in key if part)
        if key not in new:
            found.append(f"{what}: {old[key].count} then, not there today")
        elif key not in old:
            found.append(f"{what}: not there then, {new[key].count} today")
        elif old[key].sha256 != new[key].sha256:
            same = old[key].count == new[key].count
            counts = f"{old[key].count}, changed" if same else f"{old[key].count} then, {new[key].count} today"
            found.append(f"{what}: {counts}")
    return found


def judgement(then: report_pb2.ShipmentReport, now: report_pb2.ShipmentReport) -> list[str]:
    """Differences of what is shown, each by the path to the field with both values; at most MOST lines."""
    found: list[str] = []
    for line in _differences(_shown(then), _shown(now), ""):
        if len(found) == MOST:
            return [*found, "and more"]
        found.append(line)
    return found


def _shown(report: Message) -> dict[str, Any]:
    told: dict[str, Any] = MessageToDict(report, preserving_proto_field_name=True)
    return {name: value for name, value in told.items() if name not in VOLATILE}


def _differences(then: Any, now: Any, path: str) -> Iterator[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*then, *now]):
            yield from _differences(then.get(name), now.get(name), f"{path}.{name}".lstrip("."))
    elif isinstance(then, list) and isinstance(now, list):
        old, new = dict(_named(then, path)), dict(_named(now, path))
        for name in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(name), new.get(name), f"{path}[{name}]")
    elif then != now and not _close(then, now, path):
        yield f"{path}: {_told(then)} then, {_told(now)} today"


def _named(elements: Iterable[Any], path: str) -> Iterator[tuple[str, Any]]:
    names = NAMES.get(path.rpartition(".")[2])
    for place, element in enumerate(elements):
        name: Any = element
        for part in names or ():
            name = name.get(part, "") if isinstance(name, dict) else ""
        yield (str(name) if names and name else str(place)), element


def _close(then: Any, now: Any, path: str) -> bool:
    both = isinstance(then, float) and isinstance(now, float)
    return both and path.endswith("mkt_c") and math.isclose(then, now, rel_tol=0.0, abs_tol=MKT_K)


def _told(value: Any) -> str:
    if value is None:
        return "nothing"
    text = "something" if isinstance(value, dict | list) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
