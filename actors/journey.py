"""What milestones say of a shipment: its state, its stages, when its stops were reached and left, and which are overdue. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from actors.journal.tables import Milestone, Shipment, Stop
from actors.rules.errors import InvalidArgument

KINDS = ("PACKING", "LOADING", "DEPARTED", "ARRIVED", "UNLOADING", "STORED", "DELIVERED", "NOTE")
STAGE_OF = {
    "PACKING": "PACKING",
    "LOADING": "LOADING",
    "DEPARTED": "IN_TRANSIT",
    "UNLOADING": "UNLOADING",
    "STORED": "STORED",
    "DELIVERED": "DELIVERED",
}
NEED_STOP = ("ARRIVED",)
OPEN_STATES = ("PLANNED", "IN_TRANSIT")
UNTOLD_STAGE = "IN_TRANSIT"
"""The stage of a shipment of which nobody told any: limits for transit hold, so that silence excuses nothing (ours)."""


def effective(milestones: Iterable[Milestone]) -> list[Milestone]:
    """The milestones that count, by time: of several of one kind at one stop the one recorded last corrects the others."""
    newest: dict[tuple[str, int | None, int], Milestone] = {}
    for milestone in sorted(milestones, key=lambda one: one.ordinal):
        own = milestone.ordinal if milestone.kind == "NOTE" else 0
        newest[(milestone.kind, milestone.stop_ordinal, own)] = milestone
    return sorted(newest.values(), key=lambda one: (one.at_us, one.ordinal))


def stages(milestones: Iterable[Milestone]) -> list[tuple[int, str]]:
    """The stage timeline as (at_us, stage). Before the first told stage there is none; where none is told it is in transit."""
    told = [(one.at_us, STAGE_OF[one.kind]) for one in effective(milestones) if one.kind in STAGE_OF]
    return told or [(0, UNTOLD_STAGE)]


def check_order(milestones: Iterable[Milestone], new: Milestone, field: str) -> None:
    """Refuse a milestone that contradicts the others: something after the delivery, a stop left before it was reached."""
    counting = [one for one in effective([*milestones, new]) if one.kind != "NOTE"]
    delivered = [one.at_us for one in counting if one.kind == "DELIVERED"]
    if delivered and new.kind != "NOTE":
        others = [one.at_us for one in counting if one.kind != "DELIVERED"]
        if others and max(others) > delivered[-1]:
            rule = "must not lie before another milestone" if new.kind == "DELIVERED" else "must not lie after the delivery"
            raise InvalidArgument(rule, field=field, value=new.at_us)
    at_stop = {one.kind: one.at_us for one in counting if one.stop_ordinal is not None and one.stop_ordinal == new.stop_ordinal}
    if at_stop.get("DEPARTED", new.at_us) < at_stop.get("ARRIVED", 0) and new.kind in ("ARRIVED", "DEPARTED"):
        raise InvalidArgument("a stop must not be left before it is reached", field=field, value=new.at_us)


def apply(shipment: Shipment, stops: Sequence[Stop], milestones: Iterable[Milestone]) -> None:
    """Write what the milestones say into the shipment and its stops. A cancelled shipment keeps its state."""
    counting = effective(milestones)
    for stop in stops:
        stop.arrived_us = _first(counting, "ARRIVED", stop.ordinal)
        stop.departed_us = _first(counting, "DEPARTED", stop.ordinal)
    departed = [one.at_us for one in counting if one.kind == "DEPARTED"]
    delivered = [one.at_us for one in counting if one.kind == "DELIVERED"]
    moved = any(one.kind in ("DEPARTED", "ARRIVED", "UNLOADING") for one in counting)
    shipment.departed_us = min(departed, default=None)
    if stops:
        last = stops[-1]
        if delivered and last.arrived_us is None:
            last.arrived_us = delivered[-1]
        shipment.arrived_us = last.arrived_us
    told = [STAGE_OF[one.kind] for one in counting if one.kind in STAGE_OF]
    shipment.stage = told[-1] if told else ""
    if shipment.state == "CANCELLED":
        return
    shipment.closed_us = delivered[-1] if delivered else None
    shipment.state = "DELIVERED" if delivered else "IN_TRANSIT" if moved else "PLANNED"


def _first(counting: Iterable[Milestone], kind: str, ordinal: int) -> int | None:
    return next((one.at_us for one in counting if one.kind == kind and one.stop_ordinal == ordinal), None)


@dataclass(frozen=True, slots=True)
class Lateness:
    """Which stops are overdue, since when the first of them; `next_us`: when the next one will be, None where none can."""

    overdue: tuple[Stop, ...]
    since_us: int | None
    next_us: int | None


def due_us(shipment: Shipment, stop: Stop) -> int | None:
    """When the arrival at a stop begins to be late."""
    return None if stop.planned_arrival_us is None else stop.planned_arrival_us + shipment.lateness_tolerance_us


def earliest_due_us(shipment: Shipment, stops: Iterable[Stop]) -> int | None:
    """When the first arrival that is planned and not told begins to be late."""
    return min((due for stop in stops if stop.arrived_us is None and (due := due_us(shipment, stop)) is not None), default=None)


def lateness(shipment: Shipment, stops: Sequence[Stop], visited: Mapping[str, int], now_us: int) -> Lateness:
    """What is overdue at `now_us`. A stop is reached by its milestone, or by the first visit to its fence (`visited`, by fence id).

    A stop that was passed over is not waited for: reaching a later one ends it.
    """
    if shipment.state not in OPEN_STATES:
        return Lateness((), None, None)
    reached = [stop.ordinal for stop in stops if (stop.arrived_us or stop.departed_us) is not None or (stop.fence_id or "") in visited]
    furthest = max(reached, default=-1)
    waiting = [(due_us(shipment, stop), stop) for stop in stops if stop.ordinal > furthest]
    known = [(due, stop) for due, stop in waiting if due is not None]
    overdue = [(due, stop) for due, stop in known if due < now_us]
    return Lateness(
        tuple(stop for _, stop in overdue),
        min((due for due, _ in overdue), default=None),
        min((due for due, _ in known if due >= now_us), default=None),
    )
