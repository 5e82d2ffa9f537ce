"""Warehouses as virtual actors: a warehouse decides for its zones, and each zone is a carrier with a profile and a plan of its own.

A WarehousePopulation is all warehouses of one shard; like the shipments' it reads what it needs and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Engine
from sqlmodel import Session

from actors import carrier, requests
from actors.decision import Decision, Handler
from actors.fences import planned_fence, read_fences
from actors.journal import queries_business as queries
from actors.journal.prepared import EventDraft
from actors.journal.queries_business import zone_carrier
from actors.journal.tables import Warehouse, Zone
from actors.requests import Arguments
from actors.rules import identifiers
from actors.rules.errors import InvalidArgument, NotFound

MOST_ZONES = 1000
STAGE = "STORED"
"""What goods in a zone go through, always."""

CLOCK_TOLERANCE_US = 60_000_000
CHANGEABLE = ("name", "gln", "locode", "location", "labels", "allow_negative_stock")
ZONE_CHANGEABLE = ("name", "profile_id", "geofences", "labels")


class WarehousePopulation:
    """The warehouses of one shard. `commands`: name to handler."""

    def __init__(self, shard: int, shards: int, engine: Engine) -> None:
        self.shard = shard
        self.shards = shards
        self.engine = engine
        self.commands: dict[str, Handler] = {
            "warehouse.create": carrier.once(engine, "warehouse.create", self.create),
            "warehouse.update": carrier.once(engine, "warehouse.update", self.update),
            "warehouse.create_zone": carrier.once(engine, "warehouse.create_zone", self.create_zone),
            "warehouse.update_zone": carrier.once(engine, "warehouse.update_zone", self.update_zone),
            "warehouse.profile_changed": self.profile_changed,
        }

    def create(self, session: Session, arguments: Arguments, now_us: int) -> Decision:
        """warehouse.create {warehouse, request_id} -> {warehouse, zones}."""
        body, at = _body(arguments, "warehouse")
        warehouse_id = requests.identity(body, "warehouse_id", within=at)
        if queries.warehouse(session, warehouse_id) is not None:
            raise carrier.taken("a warehouse", at + "warehouse_id", warehouse_id)
        row = Warehouse(warehouse_id=warehouse_id, shard=self.shard, created_us=now_us, updated_us=now_us)
        _describe(row, body, at, CHANGEABLE)
        decision = Decision(inserts=[row])
        zones: list[Zone] = []
        for within, entry in requests.each(body, "zones", within=at, most=MOST_ZONES):
            zone_id = requests.identity(entry, "zone_id", within=within)
            if any(zone.zone_id == zone_id for zone in zones):
                raise InvalidArgument("must be unique in its warehouse", field=within + "zone_id", value=zone_id)
            zones.append(self._new_zone(decision, session, warehouse_id, zone_id, entry, within, now_us))
        zones.sort(key=lambda zone: zone.zone_id)
        decision.answer = answer(row, zones)
        decision.events.insert(0, EventDraft(kind="warehouse.created", at_us=now_us, body=decision.answer))
        return decision

    def update(self, session: Session, arguments: Arguments, now_us: int) -> Decision:
        """warehouse.update {warehouse, update_mask, request_id} -> {warehouse, zones}."""
        body, at = _body(arguments, "warehouse")
        row, zones = _existing(session, requests.identity(body, "warehouse_id", within=at), at)
        requests.check_etag(body, row.etag, within=at)
        given = {**body, "location": body.get("latitude_deg")}
        decision = Decision(expect=[(Warehouse, (row.warehouse_id,), row.etag)], upserts=[row])
        _describe(row, body, at, requests.masked(arguments.get("update_mask"), given, CHANGEABLE))
        row.updated_us, row.etag = now_us, row.etag + 1
        decision.answer = answer(row, zones)
        decision.events.append(EventDraft(kind="warehouse.updated", at_us=now_us, body=decision.answer))
        return decision

    def create_zone(self, session: Session, arguments: Arguments, now_us: int) -> Decision:
        """warehouse.create_zone {zone, request_id} -> {zone}."""
        body, at = _body(arguments, "zone")
        row, zones = _existing(session, requests.identity(body, "warehouse_id", within=at), at)
        zone_id = requests.identity(body, "zone_id", within=at)
        if any(zone.zone_id == zone_id for zone in zones):
            raise carrier.taken("a zone of this warehouse", at + "zone_id", zone_id)
        if len(zones) >= MOST_ZONES:
            raise InvalidArgument(f"a warehouse has at most {MOST_ZONES} zones", field=at + "zone_id", value=zone_id)
        decision = Decision()
        zone = self._new_zone(decision, session, row.warehouse_id, zone_id, body, at, now_us)
        decision.answer = {"zone": carrier.record(zone)}
        return decision

    def update_zone(self, session: Session, arguments: Arguments, now_us: int) -> Decision:
        """warehouse.update_zone {zone, update_mask, effective_us, request_id} -> {zone}. Another profile holds from effective_us (now)."""
        body, at = _body(arguments, "zone")
        _, zones = _existing(session, requests.identity(body, "warehouse_id", within=at), at)
        zone_id = requests.identity(body, "zone_id", within=at)
        zone = next((one for one in zones if one.zone_id == zone_id), None)
        if zone is None:
            raise NotFound("the warehouse has no such zone", field=at + "zone_id", value=zone_id)
        requests.check_etag(body, zone.etag, within=at)
        fields = requests.masked(arguments.get("update_mask"), body, ZONE_CHANGEABLE)
        effective_us = requests.time_us(arguments, "effective_us")
        effective_us = now_us if effective_us is None else effective_us
        carrier.not_in_future(effective_us, now_us, "effective_time", CLOCK_TOLERANCE_US)
        decision = Decision(expect=[(Zone, (zone.warehouse_id, zone.zone_id), zone.etag)], upserts=[zone])
        _describe_zone(zone, body, at, fields)
        if "profile_id" in fields:
            now = carrier.chosen(session, body, now_us, at)
            assignments = carrier.reassigned(session, carrier.assignments_of(zone), effective_us, now)
            carrier.put_profile(session, zone, assignments, now_us)
        zone.updated_us, zone.etag = now_us, zone.etag + 1
        self._write_plan(decision, session, zone, now_us)
        decision.answer = {"zone": carrier.record(zone)}
        decision.events.append(_zone_event("zone.updated", zone, now_us))
        return decision

    def profile_changed(self, arguments: Mapping[str, Any], now_us: int) -> Decision:
        """warehouse.profile_changed {profile_id, in_force_us} -> {zones}: new plans for the shard's zones that follow the profile."""
        decision = Decision()
        with queries.reading(self.engine) as session:
            for zone in queries.zones_under(session, self.shard, str(arguments["profile_id"])):
                assignments = carrier.assignments_of(zone)
                if assignments[-1][2] == carrier.LATEST:
                    carrier.put_profile(session, zone, assignments, now_us)
                    decision.upserts.append(zone)
                    self._write_plan(decision, session, zone, now_us)
        decision.answer = {"zones": sum(isinstance(row, Zone) for row in decision.upserts)}
        return decision

    def _new_zone(
        self, decision: Decision, session: Session, warehouse_id: str, zone_id: str, body: Arguments, at: str, now_us: int
    ) -> Zone:
        zone = Zone(warehouse_id=warehouse_id, zone_id=zone_id, created_us=now_us, updated_us=now_us)
        _describe_zone(zone, body, at, ZONE_CHANGEABLE)
        chosen = carrier.chosen(session, body, now_us, at)
        carrier.put_profile(session, zone, carrier.reassigned(session, [], now_us, chosen), now_us)
        decision.inserts.append(zone)
        self._write_plan(decision, session, zone, now_us)
        decision.events.append(_zone_event("zone.created", zone, now_us))
        return zone

    def _write_plan(self, decision: Decision, session: Session, zone: Zone, now_us: int) -> None:
        carrier.write_plan(
            decision,
            session,
            zone_carrier(zone.warehouse_id, zone.zone_id),
            carrier.assignments_of(zone),
            shard=self.shard,
            shards=self.shards,
            now_us=now_us,
            stages=[(carrier.BEGINNING_US, STAGE)],
            fences=[planned_fence(fence) for fence in zone.fences],
        )


def answer(row: Warehouse, zones: Sequence[Zone]) -> dict[str, Any]:
    """A warehouse as plain data: {warehouse, zones}."""
    return {"warehouse": carrier.record(row), "zones": [carrier.record(zone) for zone in zones]}


def _body(arguments: Arguments, name: str) -> tuple[Arguments, str]:
    body = requests.section(arguments, name)
    if body is None:
        raise InvalidArgument("must be given", field=name)
    return body, f"{name}."


def _existing(session: Session, warehouse_id: str, at: str) -> tuple[Warehouse, list[Zone]]:
    found = queries.warehouse(session, warehouse_id)
    if found is None:
        raise NotFound("no such warehouse", field=at + "warehouse_id", value=warehouse_id)
    return found


def _describe(row: Warehouse, body: Arguments, at: str, fields: Sequence[str]) -> None:
    if "name" in fields:
        row.name = requests.text(body, "name", within=at, longest=requests.NAME_MAX)
    if "gln" in fields:
        row.gln = requests.identifier(body, "gln", identifiers.gln, within=at)
    if "locode" in fields:
        row.locode = requests.identifier(body, "locode", identifiers.locode, within=at)
    if "location" in fields:
        place = requests.point(body, within=at)
        row.latitude_deg, row.longitude_deg = place or (None, None)
    if "labels" in fields:
        row.attributes = {**row.attributes, "labels": requests.labels(body, within=at)}
    if "allow_negative_stock" in fields:
        row.attributes = {**row.attributes, "allow_negative_stock": requests.flag(body, "allow_negative_stock", within=at)}


def _describe_zone(zone: Zone, body: Arguments, at: str, fields: Sequence[str]) -> None:
    if "name" in fields:
        zone.name = requests.text(body, "name", within=at, longest=requests.NAME_MAX)
    if "geofences" in fields:
        zone.fences = read_fences(body, within=at)
    if "labels" in fields:
        zone.attributes = {**zone.attributes, "labels": requests.labels(body, within=at)}


def _zone_event(kind: str, zone: Zone, now_us: int) -> EventDraft:
    name = zone_carrier(zone.warehouse_id, zone.zone_id)
    return EventDraft(kind=kind, at_us=now_us, body={"zone": carrier.record(zone)}, carrier=name)
