"""Shipments as virtual actors: what a shipment decides when it is created, changed, cancelled, moved on, or when time passes.

A ShipmentPopulation is all shipments of one shard. It keeps no state of its own but when to look for lateness next: it reads what
it needs, and since a shard handles the commands of its inhabitants one after the other it may trust what it read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine
from sqlmodel import Session

from actors import carrier, journey, requests
from actors.decision import Decision, Handler
from actors.fences import planned_fence, planned_route, read_fences, read_route, stop_fence
from actors.journal import queries_business as queries
from actors.journal.prepared import Condition, EventDraft
from actors.journal.queries_business import ShipmentRecord, shipment_carrier
from actors.journal.tables import Alert, Milestone, Shipment, Stop
from actors.requests import Arguments
from actors.rules import identifiers
from actors.rules.errors import FailedPrecondition, InvalidArgument, NotFound
from actors.shipment_request import Load, read_load, read_stops, stop_named

CLOCK_TOLERANCE_US = 60_000_000
"""A caller's clock may be ahead of ours by so much (ours)."""

LOOK_AGAIN_US = 10_000_000
"""How often a late shipment is looked at for a visit that ends its lateness."""

LONGEST_TOLERANCE_US = 30 * 86_400_000_000
CHANGEABLE = (
    "reference",
    "description",
    "profile_id",
    "stops",
    "handling_units",
    "geofences",
    "route",
    "container_number",
    "labels",
    "lateness_tolerance_us",
)


class ShipmentPopulation:
    """The shipments of one shard. `commands`: name to handler; `tick` for what time alone decides."""

    def __init__(self, shard: int, shards: int, engine: Engine) -> None:
        self.shard = shard
        self.shards = shards
        self.engine = engine
        self.look_us = 0
        """When lateness is to be looked for next; 0: at the next tick."""
        self.commands: dict[str, Handler] = {
            "shipment.create": carrier.once(engine, "shipment.create", self.create),
            "shipment.update": carrier.once(engine, "shipment.update", self.update),
            "shipment.cancel": carrier.once(engine, "shipment.cancel", self.cancel),
            "shipment.milestone": carrier.once(engine, "shipment.milestone", self.milestone),
            "shipment.profile_changed": self.profile_changed,
        }

    # ------------------------------------------------------------ commands

    def create(self, session: Session, arguments: Arguments, now_us: int) -> Decision:
        """shipment.create {shipment, request_id} -> {shipment, stops, milestones}."""
        body, at = _body(arguments)
        shipment_id = requests.identity(body, "shipment_id", within=at)
        if queries.shipment(session, shipment_id) is not None:
            raise carrier.taken("a shipment", at + "shipment_id", shipment_id)
        stops = read_stops(shipment_id, body, at, session)
        load = read_load(shipment_id, body, at, session, now_us)
        now = carrier.chosen(session, body, now_us, at) or _profile_of_goods(load, at)
        row = Shipment(shipment_id=shipment_id, shard=self.shard, created_us=now_us, created_by=requests.text(arguments, "actor"))
        self._describe(row, body, at, CHANGEABLE)
        _put_load(row, load)
        carrier.put_profile(session, row, carrier.reassigned(session, [], now_us, now), now_us)
        _put_ends(row, stops)
        decision = Decision(inserts=[row, *stops, *load.inserts], upserts=list(load.upserts))
        decision.expect, decision.deletes = list(load.expect), list(load.deletes)
        return self._finish(decision, session, ShipmentRecord(row, stops, []), now_us, "shipment.created", now_us)

    def update(self, session: Session, arguments: Arguments, now_us: int) -> Decision:
        """shipment.update {shipment, update_mask, effective_us, request_id} -> as create. Another profile holds from effective_us (now)."""
        body, at = _body(arguments)
        record = self._open_record(session, requests.identity(body, "shipment_id", within=at), at + "shipment_id")
        requests.check_etag(body, record.shipment.etag, within=at)
        fields = requests.masked(arguments.get("update_mask"), body, CHANGEABLE)
        effective_us = requests.time_us(arguments, "effective_us")
        effective_us = now_us if effective_us is None else effective_us
        carrier.not_in_future(effective_us, now_us, "effective_time", CLOCK_TOLERANCE_US)
        row, decision = record.shipment, Decision()
        decision.expect.append((Shipment, (row.shipment_id,), row.etag))
        self._describe(row, body, at, fields)
        if "handling_units" in fields:
            load = read_load(row.shipment_id, body, at, session, now_us)
            removed = {unit["handling_unit_id"] for unit in row.attributes["handling_units"]}
            _put_load(row, load)
            removed -= {unit["handling_unit_id"] for unit in load.document}
            decision.inserts.extend(load.inserts)
            decision.upserts.extend(load.upserts)
            decision.expect.extend(load.expect)
            decision.deletes.extend(load.deletes)
            for unit in queries.handling_units(session, removed).values():
                if unit.carrier == shipment_carrier(row.shipment_id):
                    decision.expect.append((type(unit), (unit.handling_unit_id,), unit.etag))
                    unit.carrier, unit.updated_us, unit.etag = None, now_us, unit.etag + 1
                    decision.upserts.append(unit)
        if "profile_id" in fields:
            now = carrier.chosen(session, body, now_us, at)
            before = carrier.assignments_of(row)
            carrier.put_profile(session, row, carrier.reassigned(session, before, effective_us, now), now_us)
        if "stops" in fields:
            stops = read_stops(row.shipment_id, body, at, session)
            _keep_told_stops(record, stops, at)
            decision.deletes.extend((Stop, (row.shipment_id, stop.ordinal)) for stop in record.stops[len(stops) :])
            decision.upserts.extend(stops)
            record.stops = stops
            _put_ends(row, stops)
        row.etag += 1
        decision.upserts.append(row)
        journey.apply(row, record.stops, record.milestones)
        return self._finish(decision, session, record, now_us, "shipment.updated", now_us)

    def cancel(self, session: Session, arguments: Arguments, now_us: int) -> Decision:
        """shipment.cancel {shipment_id, etag, actor, reason, cancel_us, request_id} -> as create. What was judged stays."""
        record = self._record(session, requests.identity(arguments, "shipment_id"), "shipment_id")
        row = record.shipment
        actor = requests.text(arguments, "actor", required=True)
        reason = requests.text(arguments, "reason", required=True, longest=1024)
        cancelled_us = requests.time_us(arguments, "cancel_us")
        cancelled_us = now_us if cancelled_us is None else cancelled_us
        carrier.not_in_future(cancelled_us, now_us, "cancel_time", CLOCK_TOLERANCE_US)
        if row.state == "CANCELLED":
            return Decision(answer=answer(record))
        if row.state == "DELIVERED":
            raise FailedPrecondition("is delivered", field="shipment_id", value=row.shipment_id)
        requests.check_etag(arguments, row.etag, required=False)
        decision = Decision(expect=[(Shipment, (row.shipment_id,), row.etag)], upserts=[row])
        row.state, row.closed_us, row.etag = "CANCELLED", cancelled_us, row.etag + 1
        row.attributes = {**row.attributes, "cancelled": {"by": actor, "reason": reason, "at_us": cancelled_us}}
        self._finish(decision, session, record, now_us, "shipment.cancelled", cancelled_us)
        self._free_tags(decision, row, actor, now_us)
        return decision

    def milestone(self, session: Session, arguments: Arguments, now_us: int) -> Decision:
        """shipment.milestone {shipment_id, milestone: {kind, at_us, stop_id, note, actor}, request_id} -> as create and {milestone}."""
        record = self._open_record(session, requests.identity(arguments, "shipment_id"), "shipment_id", delivered=True)
        row, at = record.shipment, "milestone."
        body = requests.section(arguments, "milestone")
        if body is None:
            raise InvalidArgument("must be given", field="milestone")
        kind = requests.one_of(body, "kind", journey.KINDS, within=at)
        at_us = requests.time_us(body, "at_us", within=at, required=True) or 0
        carrier.not_in_future(at_us, now_us, at + "time", CLOCK_TOLERANCE_US)
        stop_id = requests.identity(body, "stop_id", within=at, required=False)
        if kind in journey.NEED_STOP and not stop_id:
            raise InvalidArgument(f"{kind} needs the stop", field=at + "stop_id")
        stop = stop_named(record.stops, stop_id, at + "stop_id") if stop_id else None
        if kind == "DEPARTED" and stop is None and record.stops:
            stop = record.stops[0]
        note = requests.text(body, "note", within=at, longest=requests.NOTE_MAX)
        if kind == "NOTE" and not note:
            raise InvalidArgument("a milestone of kind NOTE says what in its note", field=at + "note")
        new = Milestone(
            shipment_id=row.shipment_id,
            ordinal=max((one.ordinal for one in record.milestones), default=0) + 1,
            kind=kind,
            at_us=at_us,
            recorded_us=now_us,
            recorded_by=requests.text(body, "actor", within=at),
            stop_ordinal=None if stop is None else stop.ordinal,
            note=note,
        )
        journey.check_order(record.milestones, new, at + "time")
        record.milestones = sorted([*record.milestones, new], key=lambda one: (one.at_us, one.ordinal))
        journey.apply(row, record.stops, record.milestones)
        decision = Decision(expect=[(Shipment, (row.shipment_id,), row.etag)], inserts=[new], upserts=[row, *record.stops])
        row.etag += 1
        self._finish(decision, session, record, now_us, "shipment.milestone", at_us)
        if kind == "DELIVERED":
            self._free_tags(decision, row, new.recorded_by, now_us)
        decision.answer["milestone"] = carrier.record(new)
        return decision

    def profile_changed(self, arguments: Mapping[str, Any], now_us: int) -> Decision:
        """shipment.profile_changed {profile_id, in_force_us} -> {shipments}: new plans for the shard's shipments that follow it."""
        profile_id, in_force_us = str(arguments["profile_id"]), int(arguments["in_force_us"])
        decision = Decision()
        with queries.reading(self.engine) as session:
            rows = queries.shipments_under(session, self.shard, profile_id, in_force_us)
            for record in queries.shipment_records(session, rows):
                row = record.shipment
                assignments = carrier.assignments_of(row)
                if assignments[-1][2] == carrier.LATEST:
                    carrier.put_profile(session, row, assignments, now_us)
                    decision.upserts.append(row)
                    self._write_plan(decision, session, record, now_us)
        decision.answer = {"shipments": sum(isinstance(row, Shipment) for row in decision.upserts)}
        return decision

    # ------------------------------------------------------------ time

    def tick(self, now_us: int) -> Decision | None:
        """What time alone decides: arrivals that are late now, lateness that a visit has ended. None: nothing to do."""
        if now_us < self.look_us:
            return None
        decision = Decision()
        with queries.reading(self.engine) as session:
            records = queries.awaiting(session, self.shard)
            carriers = [shipment_carrier(record.shipment.shipment_id) for record in records]
            alerts = queries.active_alerts(session, "late", carriers)
            next_us = now_us + LOOK_AGAIN_US if alerts else now_us + 60 * LOOK_AGAIN_US
            late = [record for record in records if (journey.earliest_due_us(record.shipment, record.stops) or now_us) < now_us]
            visited = queries.visited_fences(session, [shipment_carrier(record.shipment.shipment_id) for record in late])
            for record in records:
                found = self._judge_lateness(decision, record, alerts, visited, now_us)
                next_us = min(next_us, next_us if found.next_us is None else found.next_us + 1)
        self.look_us = 0 if decision.changes else next_us
        return decision if decision.changes else None

    def _judge_lateness(
        self,
        decision: Decision,
        record: ShipmentRecord,
        alerts: Mapping[str, Alert],
        visited: Mapping[tuple[str, str], int],
        now_us: int,
    ) -> journey.Lateness:
        """Raise, change or end the shipment's one lateness condition."""
        name = shipment_carrier(record.shipment.shipment_id)
        reached = {fence: entered_us for (owner, fence), entered_us in visited.items() if owner == name}
        found = journey.lateness(record.shipment, record.stops, reached, now_us)
        alert = alerts.get(late_key(name))
        overdue = [stop.stop_id for stop in found.overdue]
        if overdue and found.since_us is not None:
            if alert is None or alert.detail.get("stops") != overdue:
                decision.conditions.append(
                    Condition(
                        key=late_key(name),
                        kind="late",
                        change="raise",
                        at_us=found.since_us,
                        carrier=name,
                        reason=f"{overdue[0]} was to be reached by now",
                        detail={"stops": overdue, "stop_id": overdue[0], "planned_arrival_us": found.overdue[0].planned_arrival_us},
                    )
                )
        elif alert is not None:
            decision.conditions.append(_end_of_lateness(alert, record, reached, now_us))
        return found

    # ------------------------------------------------------------ parts

    def _record(self, session: Session, shipment_id: str, field: str) -> ShipmentRecord:
        record = queries.shipment(session, shipment_id)
        if record is None:
            raise NotFound("no such shipment", field=field, value=shipment_id)
        return record

    def _open_record(self, session: Session, shipment_id: str, field: str, *, delivered: bool = True) -> ShipmentRecord:
        record = self._record(session, shipment_id, field)
        if record.shipment.state == "CANCELLED" or (record.shipment.state == "DELIVERED" and not delivered):
            raise FailedPrecondition(f"is {record.shipment.state.lower()}", field=field, value=shipment_id)
        return record

    def _describe(self, row: Shipment, body: Arguments, at: str, fields: tuple[str, ...] | list[str]) -> None:
        """The fields that are text, numbers and fences."""
        own = dict(row.attributes)
        if "reference" in fields:
            row.reference = requests.text(body, "reference", within=at)
        if "description" in fields:
            row.description = requests.text(body, "description", within=at, longest=requests.NOTE_MAX)
        if "geofences" in fields:
            row.fences = read_fences(body, within=at)
        if "route" in fields:
            row.route = read_route(body, within=at)
        if "container_number" in fields:
            own["container_number"] = requests.identifier(body, "container_number", identifiers.container, within=at)
        if "labels" in fields:
            own["labels"] = requests.labels(body, within=at)
        if "lateness_tolerance_us" in fields:
            row.lateness_tolerance_us = requests.duration_us(body, "lateness_tolerance_us", within=at, high_us=LONGEST_TOLERANCE_US) or 0
        row.attributes = own

    def _write_plan(self, decision: Decision, session: Session, record: ShipmentRecord, now_us: int) -> None:
        row = record.shipment
        fences = [
            stop_fence(stop.stop_id, stop.latitude_deg, stop.longitude_deg, stop.radius_m)
            for stop in record.stops
            if stop.latitude_deg is not None and stop.longitude_deg is not None and stop.radius_m is not None
        ]
        stages = journey.stages(record.milestones)
        if row.state == "CANCELLED" and row.closed_us is not None:
            stages = [*(entry for entry in stages if entry[0] < row.closed_us), (row.closed_us, "CANCELLED")]
        carrier.write_plan(
            decision,
            session,
            shipment_carrier(row.shipment_id),
            carrier.assignments_of(row),
            shard=self.shard,
            shards=self.shards,
            now_us=now_us,
            stages=stages,
            closed_us=row.closed_us,
            fences=[*fences, *(planned_fence(fence) for fence in row.fences)],
            route=planned_route(row.route),
            handling_units=[unit["handling_unit_id"] for unit in row.attributes["handling_units"]],
        )

    def _free_tags(self, decision: Decision, row: Shipment, actor: str, now_us: int) -> None:
        """Tell every shard that the shipment has ended: what still rides on it rides on nothing from then on."""
        name = shipment_carrier(row.shipment_id)
        letter = {"command": "carrier.closed", "carrier": name, "until_us": row.closed_us, "ended_by": actor}
        decision.post(self.shards, name, now_us, letter)

    def _finish(self, decision: Decision, session: Session, record: ShipmentRecord, now_us: int, kind: str, at_us: int) -> Decision:
        """What every change of a shipment entails: its plan, its lateness, its event and the answer."""
        row = record.shipment
        row.updated_us = now_us
        self._write_plan(decision, session, record, now_us)
        name = shipment_carrier(row.shipment_id)
        alerts = queries.active_alerts(session, "late", [name])
        if alerts:
            self._judge_lateness(decision, record, alerts, queries.visited_fences(session, [name]), now_us)
        found = journey.lateness(row, record.stops, {}, now_us)
        due_us = now_us if found.overdue else found.next_us
        self.look_us = self.look_us if due_us is None else min(self.look_us, due_us + 1)
        decision.answer = answer(record)
        decision.events.append(EventDraft(kind=kind, at_us=at_us, body=decision.answer, carrier=name))
        return decision


def late_key(name: str) -> str:
    """The key of a carrier's lateness condition."""
    return f"late|{name}"


def answer(record: ShipmentRecord) -> dict[str, Any]:
    """A shipment as plain data: {shipment, stops, milestones}."""
    return {
        "shipment": carrier.record(record.shipment),
        "stops": [carrier.record(stop) for stop in record.stops],
        "milestones": [carrier.record(one) for one in record.milestones],
    }


def record_of(data: Mapping[str, Any]) -> ShipmentRecord:
    """The record that `answer` gave."""
    return ShipmentRecord(
        Shipment(**data["shipment"]),
        [Stop(**stop) for stop in data["stops"]],
        [Milestone(**one) for one in data["milestones"]],
    )


def _body(arguments: Arguments) -> tuple[Arguments, str]:
    body = requests.section(arguments, "shipment")
    if body is None:
        raise InvalidArgument("must be given", field="shipment")
    return body, "shipment."


def _profile_of_goods(load: Load, at: str) -> tuple[str, int] | None:
    """The profile of the items on board, where the shipment names none and they agree."""
    if len(load.profile_ids) > 1:
        named = ", ".join(sorted(load.profile_ids))
        raise InvalidArgument(f"must be given: the items on board are kept under different ones ({named})", field=at + "profile_id")
    return (next(iter(load.profile_ids)), carrier.LATEST) if load.profile_ids else None


def _put_load(row: Shipment, load: Load) -> None:
    row.attributes = {**row.attributes, "handling_units": load.document}


def _put_ends(row: Shipment, stops: list[Stop]) -> None:
    """Origin, destination and planned times of the whole journey."""
    row.origin = stops[0].name or stops[0].locode or stops[0].stop_id if stops else ""
    row.destination = stops[-1].name or stops[-1].locode or stops[-1].stop_id if stops else ""
    row.planned_departure_us = stops[0].planned_departure_us if stops else None
    row.planned_arrival_us = stops[-1].planned_arrival_us if stops else None


def _keep_told_stops(record: ShipmentRecord, stops: list[Stop], at: str) -> None:
    """A stop that a milestone names keeps its id and its place in the order."""
    for ordinal in {one.stop_ordinal for one in record.milestones if one.stop_ordinal is not None}:
        told = record.stops[ordinal].stop_id
        if ordinal >= len(stops) or stops[ordinal].stop_id != told:
            raise FailedPrecondition(f"must keep {told} at place {ordinal + 1}: a milestone names it", field=at + "stops", value=told)


def _end_of_lateness(alert: Alert, record: ShipmentRecord, reached: Mapping[str, int], now_us: int) -> Condition:
    """Reached late, or no longer awaited: it is over. Reached in time, as we learn now: it never was."""
    awaited = [stop for stop in record.stops if stop.stop_id in alert.detail.get("stops", [])]
    times = [stop.arrived_us or stop.departed_us or reached.get(stop.fence_id or "") for stop in awaited]
    arrivals = [time for time in times if time is not None]
    change, at_us, reason = "clear", max(arrivals, default=now_us), "reached" if arrivals else "no longer awaited"
    if awaited and len(arrivals) == len(awaited):
        in_time = all(at <= (journey.due_us(record.shipment, stop) or at) for at, stop in zip(arrivals, awaited, strict=True))
        if in_time and at_us < alert.started_us:
            change, reason = "withdraw", "was reached in time"
    return Condition(key=alert.key, kind="late", change=change, at_us=at_us, carrier=alert.carrier, reason=reason)
