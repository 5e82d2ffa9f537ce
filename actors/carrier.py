"""What shipments and zones have in common as carriers: which profile versions hold when, and the plan they give their tags."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Engine
from sqlmodel import Session

from actors import requests
from actors.decision import Decision, Handler
from actors.journal import queries_business as queries
from actors.journal import tables
from actors.journal.columns import Row
from actors.requests import Arguments
from actors.rules.errors import AlreadyExists, InvalidArgument, NotFound
from actors.rules.plan import CLOSED, OPEN, Plan, PlannedFence, PlannedRoute, make_plan
from actors.rules.profiles import Profile
from actors.rules.readings import FOREVER_US

BEGINNING_US = 0
"""From when a carrier's first profile holds: readings from before the carrier was recorded are judged by it, too."""

NOTHING = Profile(profile_id="", version=0, name="", limits=())
"""What holds where a carrier is under no profile any more."""

LATEST = 0
"""The version of an assignment that follows its profile from version to version."""

Assignment = tuple[int, str, int]
"""(from_us, profile_id, version or LATEST): what a carrier is judged by from then on."""


def in_force(versions: Sequence[tables.Profile]) -> list[tuple[int, tables.Profile]]:
    """When each version of one profile takes over, oldest first. A version holds until any later version's time; some never hold."""
    found: list[tuple[int, tables.Profile]] = []
    for row in sorted(versions, key=lambda row: -row.version):
        if not found or row.in_force_us < found[-1][0]:
            found.append((row.in_force_us, row))
    return found[::-1]


def version_at(versions: Sequence[tables.Profile], at_us: int) -> tables.Profile | None:
    """The version in force at a time; None before the first."""
    holding = [row for from_us, row in in_force(versions) if from_us <= at_us]
    return holding[-1] if holding else None


def versions_of(session: Session, profile_id: str, field: str = "profile_id") -> list[tables.Profile]:
    """All versions of a profile; NotFound naming the field where there is none."""
    versions = queries.profile_versions(session, profile_id)
    if not versions:
        raise NotFound("no such profile", field=field, value=profile_id)
    return versions


def chosen(session: Session, arguments: Arguments, at_us: int, within: str) -> tuple[str, int] | None:
    """The profile and version that a request names, both of which must be there; None where it names none."""
    profile_id = requests.text(arguments, "profile_id", within=within)
    version = int(requests.number(arguments, "profile_version", within=within, low=0, high=2**31 - 1) or LATEST)
    if not profile_id:
        if version != LATEST:
            raise InvalidArgument("a version needs a profile", field=within + "profile_id")
        return None
    versions = versions_of(session, profile_id, within + "profile_id")
    if version != LATEST and all(row.version != version for row in versions):
        raise NotFound(f"{profile_id} has no such version", field=within + "profile_version", value=version)
    return profile_id, version


def profile_timeline(session: Session, assignments: Sequence[Assignment]) -> list[tuple[int, Profile]]:
    """The profile versions of a carrier by the time from which they hold: assignments x versions in force."""
    timeline: list[tuple[int, Profile]] = []
    for index, (from_us, profile_id, version) in enumerate(assignments):
        until_us = assignments[index + 1][0] if index + 1 < len(assignments) else FOREVER_US
        if not profile_id:
            timeline.append((from_us, NOTHING))
            continue
        rows = versions_of(session, profile_id)
        spans = [(from_us, row) for row in rows if row.version == version] if version != LATEST else in_force(rows)
        mine = [(max(starts_us, from_us), row) for starts_us, row in spans if starts_us < until_us]
        timeline.extend({starts_us: Profile.from_data(row.body) for starts_us, row in mine}.items())
    return timeline


def reassigned(session: Session, assignments: Sequence[Assignment], from_us: int, now: tuple[str, int] | None) -> list[Assignment]:
    """The assignments with another profile (None: none any more) from a time on.

    What was in force before that stays as it was, whatever versions these profiles get later.
    """
    pinned = [
        (starts_us, profile.profile_id, profile.version)
        for starts_us, profile in profile_timeline(session, assignments)
        if starts_us < from_us
    ]
    if assignments and assignments[-1][0] < from_us and now == assignments[-1][1:]:
        return list(assignments)
    if now is None:
        return [*pinned, (from_us, "", LATEST)] if pinned else []
    return [*pinned, (from_us, *now)] if pinned else [(BEGINNING_US if not assignments else from_us, *now)]


def write_plan(
    decision: Decision,
    session: Session,
    carrier: str,
    assignments: Sequence[Assignment],
    *,
    shard: int,
    shards: int,
    now_us: int,
    stages: Sequence[tuple[int, str]] = (),
    closed_us: int | None = None,
    fences: Sequence[PlannedFence] = (),
    route: PlannedRoute | None = None,
    handling_units: Sequence[str] = (),
) -> Plan:
    """Add the carrier's new plan to a decision and tell every shard; nothing is added where the plan says what it said before.

    From `closed_us` on no limit holds: the goods are in other hands. A carrier's first plan is not announced: no tag rides on it yet.
    """
    before = queries.plan(session, carrier)
    timeline = profile_timeline(session, assignments)
    if closed_us is not None and timeline:
        last = [profile for from_us, profile in timeline if from_us <= closed_us] or [timeline[0][1]]
        timeline = [entry for entry in timeline if entry[0] < closed_us]
        timeline.append((closed_us, dataclasses.replace(last[-1], limits=())))
    plan = make_plan(
        carrier,
        before.revision + 1 if before else 1,
        timeline,
        stages,
        state=OPEN if closed_us is None else CLOSED,
        fences=fences,
        route=route,
        handling_units=handling_units,
    )
    if before and dataclasses.replace(plan, revision=before.revision) == Plan.from_data(before.body):
        return Plan.from_data(before.body)
    row = tables.CarrierPlan(carrier=carrier, shard=shard, revision=plan.revision, body=plan.to_data(), updated_us=now_us)
    if before is None:
        decision.inserts.append(row)
    else:
        decision.upserts.append(row)
        decision.post(shards, carrier, now_us, {"command": "plan.changed", "carrier": carrier, "revision": plan.revision})
    return plan


def stored_plan(session: Session, carrier: str) -> Plan:
    """The plan of a carrier that exists."""
    row = queries.plan(session, carrier)
    if row is None:
        raise NotFound("no such carrier", field="carrier", value=carrier)
    return Plan.from_data(row.body)


def not_in_future(at_us: int, now_us: int, field: str, tolerance_us: int) -> None:
    """Refuse what is said to have happened later than our clock allows."""
    if at_us > now_us + tolerance_us:
        raise InvalidArgument("must not lie in the future", field=field, value=at_us)


def put_profile(session: Session, row: tables.Shipment | tables.Zone, assignments: Sequence[Assignment], now_us: int) -> None:
    """Keep a carrier's assignments in its row, and show which profile and version hold now."""
    row.attributes = {**row.attributes, "profiles": [list(entry) for entry in assignments]}
    row.profile_id = (assignments[-1][1] or None) if assignments else None
    held = [profile for from_us, profile in profile_timeline(session, assignments) if from_us <= now_us]
    row.profile_version = held[-1].version if held and row.profile_id else None


def assignments_of(row: tables.Shipment | tables.Zone) -> list[Assignment]:
    """The assignments that a carrier's row keeps."""
    return [(int(from_us), str(profile_id), int(version)) for from_us, profile_id, version in row.attributes.get("profiles", [])]


def once(engine: Engine, name: str, decide: Callable[[Session, Arguments, int], Decision]) -> Handler:
    """A command that answers a repeated request id as it did the first time, and refuses it with another request."""

    def handler(arguments: Arguments, now_us: int) -> Decision:
        request_id = requests.text(arguments, "request_id")
        digest = requests.digest(arguments)
        with queries.reading(engine) as session:
            answer = queries.first_answer(session, name, request_id, digest)
            if answer is not None:
                return Decision(answer=answer)
            decision = decide(session, arguments, now_us)
        if request_id and decision.changes:
            decision.inserts.append(
                tables.Request(scope=name, request_id=request_id, digest=digest, answer=decision.answer, recorded_us=now_us)
            )
        return decision

    return handler


def taken(what: str, field: str, value: str) -> AlreadyExists:
    """The refusal of an id that is in use."""
    return AlreadyExists(f"is the id of {what} already", field=field, value=value)


def record(row: Row) -> dict[str, Any]:
    """A row as plain data (decimals as text), the form in which answers and events carry records."""
    data: Mapping[str, Any] = row.model_dump(mode="json")
    return dict(data)
