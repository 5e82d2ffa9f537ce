"""The catalog: items and profiles as virtual actors, each in the shard its id hashes to.

A profile is versioned: a version never changes, an update adds the next one, in force from a stated time, and tells every shard,
so that the carriers that follow the profile make their new plans.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Engine
from sqlmodel import Session

from actors import carrier, requests
from actors.decision import Decision, Handler
from actors.journal import queries_business as queries
from actors.journal import queries_stock, tables
from actors.journal.prepared import EventDraft, PreparedCommit
from actors.journal.tables import Item
from actors.requests import Arguments
from actors.rules import identifiers
from actors.rules.errors import FailedPrecondition, InvalidArgument, NotFound
from actors.rules.profiles import LONGEST_US, MODES, SEVERITIES, WEIGHTS, Limit, MktSettings, Profile, shipped, validate, with_allowance
from actors.rules.readings import CODE, COLUMNS

MOST_BANDS = 16
MOST_UNITS = 32
MOST_LIMITS = 64
ITEM_CHANGEABLE = ("gtin", "sku", "name", "unit", "profile_id", "stability_budget", "labels", "units")


class CatalogPopulation:
    """The items and profiles of one shard. `commands`: name to handler."""

    def __init__(self, shard: int, shards: int, engine: Engine) -> None:
        self.shard = shard
        self.shards = shards
        self.engine = engine
        self.commands: dict[str, Handler] = {
            "item.create": carrier.once(engine, "item.create", self.create_item),
            "item.update": carrier.once(engine, "item.update", self.update_item),
            "profile.create": carrier.once(engine, "profile.create", self.create_profile),
            "profile.update": carrier.once(engine, "profile.update", self.update_profile),
        }

    def create_item(self, session: Session, arguments: Arguments, now_us: int) -> Decision:
        """item.create {item, request_id} -> {item}."""
        body, at = _body(arguments, "item")
        item_id = requests.identity(body, "item_id", within=at)
        if queries.item(session, item_id) is not None:
            raise carrier.taken("an item", at + "item_id", item_id)
        item = Item(item_id=item_id, created_us=now_us, updated_us=now_us)
        _describe(session, item, body, at, ITEM_CHANGEABLE)
        decision = Decision(answer={"item": carrier.record(item)}, inserts=[item])
        decision.events.append(EventDraft(kind="item.created", at_us=now_us, body=decision.answer))
        return decision

    def update_item(self, session: Session, arguments: Arguments, now_us: int) -> Decision:
        """item.update {item, update_mask, request_id} -> {item}."""
        body, at = _body(arguments, "item")
        item_id = requests.identity(body, "item_id", within=at)
        item = queries.item(session, item_id)
        if item is None:
            raise NotFound("no such item", field=at + "item_id", value=item_id)
        requests.check_etag(body, item.etag, within=at)
        decision = Decision(expect=[(Item, (item_id,), item.etag)], upserts=[item])
        _describe(session, item, body, at, requests.masked(arguments.get("update_mask"), body, ITEM_CHANGEABLE))
        item.updated_us, item.etag = now_us, item.etag + 1
        decision.answer = {"item": carrier.record(item)}
        decision.events.append(EventDraft(kind="item.updated", at_us=now_us, body=decision.answer))
        return decision

    def create_profile(self, session: Session, arguments: Arguments, now_us: int) -> Decision:
        """profile.create {profile, based_on: {profile_id, version, allowance_us}, actor, request_id} -> {profile}: version 1."""
        body, at = _body(arguments, "profile")
        profile_id = requests.text(body, "profile_id", within=at, required=True)
        if queries.newest_profile(session, profile_id) is not None:
            raise carrier.taken("a profile", at + "profile_id", profile_id)
        basis = requests.section(arguments, "based_on")
        found = None if basis is None else _basis(session, basis)
        profile = _checked(_read_profile(profile_id, 1, body, at, None if found is None else found[1]), at)
        row = _row(profile, body, at, carrier.BEGINNING_US, now_us, requests.text(arguments, "actor"))
        if found is not None:
            row.attributes |= {"based_on_profile_id": found[0].profile_id, "based_on_version": found[0].version}
        return _stated(row, "profile.created", now_us)

    def update_profile(self, session: Session, arguments: Arguments, now_us: int) -> Decision:
        """profile.update {profile, in_force_us, actor, request_id} -> {profile}: the next version, whole, in force from in_force_us."""
        body, at = _body(arguments, "profile")
        profile_id = requests.text(body, "profile_id", within=at, required=True)
        newest = queries.newest_profile(session, profile_id)
        if newest is None:
            raise NotFound("no such profile", field=at + "profile_id", value=profile_id)
        requests.check_etag(body, newest.version, within=at)
        if newest.attributes.get("shipped"):
            raise FailedPrecondition("ships with Waybill: base one of your own on it", field=at + "profile_id", value=profile_id)
        in_force_us = requests.time_us(arguments, "in_force_us")
        in_force_us = now_us if in_force_us is None else in_force_us
        profile = _checked(_read_profile(profile_id, newest.version + 1, body, at, None), at)
        row = _row(profile, body, at, in_force_us, now_us, requests.text(arguments, "actor"))
        row.attributes |= {key: value for key, value in newest.attributes.items() if key.startswith("based_on")}
        decision = _stated(row, "profile.updated", now_us)
        _announce(decision, self.shards, row, now_us)
        return decision


def seed(engine: Engine, shards: int, now_us: int) -> PreparedCommit | None:
    """The commit that brings the shipped profiles into a database: new ones, and a new version where their content changed.

    None where all are there. To be applied before the first shard serves; applying it twice changes nothing more.
    """
    decision = Decision()
    with queries.reading(engine) as session:
        for profile in shipped().values():
            newest = queries.newest_profile(session, profile.profile_id)
            version = 1 if newest is None else newest.version + 1
            if newest is not None and Profile.from_data(newest.body) == dataclasses.replace(profile, version=newest.version):
                continue
            row = tables.Profile(
                profile_id=profile.profile_id,
                version=version,
                name=profile.name,
                in_force_us=carrier.BEGINNING_US if newest is None else now_us,
                body=dataclasses.replace(profile, version=version).to_data(),
                attributes={"shipped": True, "description": ""},
                created_us=now_us,
                created_by="waybill",
            )
            decision.upserts.append(row)
            if newest is not None:
                _announce(decision, shards, row, now_us)
    if not decision.changes:
        return None
    names = ",".join(f"{row.profile_id}@{row.version}" for row in decision.upserts if isinstance(row, tables.Profile))
    return decision.commit(tables.NO_SHARD, 0, now_us, None, commit_key=f"seed/{requests.digest({'profiles': names})}")


def _body(arguments: Arguments, name: str) -> tuple[Arguments, str]:
    body = requests.section(arguments, name)
    if body is None:
        raise InvalidArgument("must be given", field=name)
    return body, f"{name}."


def _stated(row: tables.Profile, kind: str, now_us: int) -> Decision:
    decision = Decision(answer={"profile": carrier.record(row)}, inserts=[row])
    decision.events.append(EventDraft(kind=kind, at_us=row.in_force_us or now_us, body=decision.answer))
    return decision


def _announce(decision: Decision, shards: int, row: tables.Profile, now_us: int) -> None:
    """Tell the shipments and zones of every shard that a profile has a new version."""
    for command in ("shipment.profile_changed", "warehouse.profile_changed"):
        body = {"command": command, "profile_id": row.profile_id, "in_force_us": row.in_force_us}
        decision.post(shards, f"profile/{row.profile_id}", now_us, body)


# ---------------------------------------------------------------- items


def _describe(session: Session, item: Item, body: Arguments, at: str, fields: Sequence[str]) -> None:
    if "gtin" in fields:
        gtin = requests.identifier(body, "gtin", identifiers.gtin, within=at)
        item.gtin = None if gtin is None else gtin.zfill(14)
        other = None if item.gtin is None else queries.item_of_gtin(session, item.gtin)
        if other is not None and other.item_id != item.item_id:
            raise carrier.taken(f"the item {other.item_id}", at + "gtin", item.gtin or "")
    if "sku" in fields:
        item.sku = requests.text(body, "sku", within=at) or None
    if "name" in fields:
        item.name = requests.text(body, "name", within=at, longest=requests.NAME_MAX)
    if "unit" in fields:
        unit = requests.unit(body, within=at)
        if unit != item.unit and queries_stock.in_a_ledger(session, item.item_id):
            raise FailedPrecondition("has stock or had it: its base unit stays", field=at + "unit", value=unit)
        item.unit = unit
    if "profile_id" in fields:
        item.profile_id = requests.text(body, "profile_id", within=at) or None
        if item.profile_id is not None:
            carrier.versions_of(session, item.profile_id, at + "profile_id")
    if "stability_budget" in fields:
        item.stability_budget = _read_bands(body, at)
    if "labels" in fields:
        item.attributes = {**item.attributes, "labels": requests.labels(body, within=at)}
    if "units" in fields:
        item.attributes = {**item.attributes, "units": _read_units(body, at, item.unit)}


def _read_units(body: Arguments, at: str, base: str) -> list[dict[str, str]]:
    """Other units of an item: how many base units one of each is."""
    units: dict[str, str] = {}
    for within, entry in requests.each(body, "units", within=at, most=MOST_UNITS):
        unit = requests.unit(entry, within=within, default="?")
        if unit == base or unit in units:
            raise InvalidArgument("must not be the base unit, nor be told twice", field=within + "unit", value=unit)
        units[unit] = requests.quantity(entry, "factor", within=within)
    return [{"unit": unit, "factor": factor} for unit, factor in units.items()]


def _read_bands(body: Arguments, at: str) -> list[dict[str, Any]]:
    """Bands (low, high] of one metric each, sorted; bands of one metric must not overlap."""
    bands: list[dict[str, Any]] = []
    for within, entry in requests.each(body, "stability_budget", within=at, most=MOST_BANDS):
        metric = requests.one_of(entry, "metric", tuple(CODE), within=within, default="temperature_c")
        column = COLUMNS[CODE[metric]]
        low = requests.number(entry, "low", within=within, low=column.low, high=column.high)
        high = requests.number(entry, "high", within=within, low=column.low, high=column.high)
        if low is not None and high is not None and low >= high:
            raise InvalidArgument(f"must be above its low end {low:g}", field=within + "high", value=high)
        allowance_us = requests.duration_us(entry, "allowance_us", within=within, high_us=LONGEST_US)
        if allowance_us is None:
            raise InvalidArgument("must be given", field=within + "allowance_s")
        for other in bands:
            if other["metric"] == metric and _overlap(other, low, high):
                raise InvalidArgument("must not overlap another band of its metric", field=within + "low", value=low)
        bands.append({"metric": metric, "low": low, "high": high, "allowance_us": allowance_us})
    return bands


def _overlap(band: Mapping[str, Any], low: float | None, high: float | None) -> bool:
    ends_before = band["high"] is not None and low is not None and band["high"] <= low
    begins_after = band["low"] is not None and high is not None and high <= band["low"]
    return not (ends_before or begins_after)


# ---------------------------------------------------------------- profiles


def _row(profile: Profile, body: Arguments, at: str, in_force_us: int, now_us: int, actor: str) -> tables.Profile:
    return tables.Profile(
        profile_id=profile.profile_id,
        version=profile.version,
        name=profile.name,
        in_force_us=in_force_us,
        body=profile.to_data(),
        attributes={"description": requests.text(body, "description", within=at, longest=requests.NOTE_MAX)},
        created_us=now_us,
        created_by=actor,
    )


def _checked(profile: Profile, at: str) -> Profile:
    """The profile when it keeps all rules; the refusal names the field as the request has it."""
    try:
        validate(profile)
    except InvalidArgument as refusal:
        raise InvalidArgument(refusal.rule, field=at + refusal.field, value=refusal.value) from None
    return profile


def _basis(session: Session, basis: Arguments) -> tuple[tables.Profile, Profile]:
    """The profile that a new one starts from, with the allowance chosen for it."""
    profile_id = requests.text(basis, "profile_id", within="based_on.", required=True)
    version = int(requests.number(basis, "version", within="based_on.", low=0, high=2**31 - 1) or 0)
    versions = carrier.versions_of(session, profile_id, "based_on.profile_id")
    row = versions[-1] if version == 0 else next((one for one in versions if one.version == version), None)
    if row is None:
        raise NotFound(f"{profile_id} has no such version", field="based_on.version", value=version)
    profile = Profile.from_data(row.body)
    allowance_us = requests.duration_us(basis, "allowance_us", within="based_on.", high_us=LONGEST_US)
    if allowance_us is None:
        if profile.allowance_chosen_by_user:
            raise InvalidArgument("must be given: this profile leaves it to its user", field="based_on.allowance_s")
        return row, profile
    try:
        return row, with_allowance(profile, allowance_us)
    except InvalidArgument as refusal:
        raise InvalidArgument(refusal.rule, field="based_on.allowance_s", value=allowance_us) from None


def _read_profile(profile_id: str, version: int, body: Arguments, at: str, basis: Profile | None) -> Profile:
    """A profile from a request: what it does not say comes from the basis; its limits replace the basis's by id, or are added."""
    limits = {limit.limit_id: limit for limit in basis.limits} if basis else {}
    seen: set[str] = set()
    for within, entry in requests.each(body, "limits", within=at, most=MOST_LIMITS):
        limit = _read_limit(entry, within)
        if limit.limit_id in seen:
            raise InvalidArgument("must be unique within the profile", field=within + "limit_id", value=limit.limit_id)
        seen.add(limit.limit_id)
        limits[limit.limit_id] = limit
    given = basis or Profile(profile_id=profile_id, version=version, name="", limits=())
    max_gap_us = requests.duration_us(body, "max_gap_us", within=at, high_us=LONGEST_US)
    ignore_us = requests.duration_us(body, "ignore_us", within=at, high_us=LONGEST_US)
    return Profile(
        profile_id=profile_id,
        version=version,
        name=requests.text(body, "name", within=at, longest=200) or given.name or profile_id,
        limits=tuple(limits.values()),
        source=requests.text(body, "source", within=at, longest=requests.NAME_MAX) or given.source,
        edition=requests.text(body, "edition", within=at, longest=requests.NAME_MAX) or given.edition,
        max_gap_us=given.max_gap_us if max_gap_us is None else max_gap_us,
        ignore_us=given.ignore_us if ignore_us is None else ignore_us,
        mkt=_read_mkt(body, at, given.mkt),
        hold_on_excursion=requests.flag(body, "hold_on_excursion", within=at) or given.hold_on_excursion,
    )


def _read_mkt(body: Arguments, at: str, given: MktSettings | None) -> MktSettings | None:
    mkt = requests.section(body, "mkt", within=at)
    if mkt is None:
        return given
    window_us = requests.duration_us(mkt, "window_us", within=at + "mkt.", low_us=1, high_us=LONGEST_US)
    if window_us is None:
        raise InvalidArgument("must be given", field=at + "mkt.window")
    weights = requests.one_of(mkt, "weights", WEIGHTS, within=at + "mkt.", default="hold")
    return MktSettings(window_us=window_us, weights=weights, usable=requests.flag(mkt, "usable", within=at + "mkt."))


def _read_limit(entry: Arguments, at: str) -> Limit:
    """One limit; an allowance that is not given is counted and shown, and never makes an excursion."""
    threshold = requests.number(entry, "threshold", within=at, required=True)
    return Limit(
        limit_id=requests.text(entry, "limit_id", within=at, required=True),
        metric=requests.one_of(entry, "metric", [name for name in CODE if not name.endswith("_deg") or name == "tilt_deg"], within=at),
        direction=requests.one_of(entry, "direction", ("above", "below"), within=at),
        threshold=0.0 if threshold is None else threshold,
        inclusive=requests.flag(entry, "inclusive", within=at),
        mode=requests.one_of(entry, "mode", tuple(MODES), within=at, default="single"),
        clear=requests.number(entry, "clear", within=at),
        allowance_us=requests.duration_us(entry, "allowance_us", within=at, high_us=LONGEST_US),
        beyond=requests.number(entry, "beyond", within=at),
        beyond_allowance_us=requests.duration_us(entry, "beyond_allowance_us", within=at, high_us=LONGEST_US),
        window_us=requests.duration_us(entry, "window_us", within=at, high_us=LONGEST_US),
        stages=tuple(entry.get("stages") or ()),
        severity=requests.one_of(entry, "severity", SEVERITIES, within=at, default="WARNING"),
        name=requests.text(entry, "name", within=at, longest=200),
    )
