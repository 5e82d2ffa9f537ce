"""The commands on tags: registration, custody, and their carriers' plans.

Each command is decided once (checked against what is stored, journaled with all that its effect needs) and applied by `apply`,
live and in every replay alike. What only the database keeps of it (rows, closed custodies) is written when it is decided.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from actors import requests
from actors.journal.prepared import EventDraft
from actors.journal.tables import Custody, CustodyRevision, Tag
from actors.rules import custody as custody_rules
from actors.rules import exposure, geofence
from actors.rules.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, StaleEtag
from actors.rules.plan import OPEN, Plan
from actors.rules.quality import QualitySettings, validate
from actors.tags import neighbours, past
from actors.tags.changes import Changes
from actors.tags.custodies import OpenCustody
from actors.tags.stated import StatedExcursion, StatedVisit

if TYPE_CHECKING:
    from actors.sensor_tag import Moved, SensorTags

Arguments = Mapping[str, Any]

COUNTER_MASK = (1 << 40) - 1
LONGEST_INTERVAL_US = 366 * 86_400_000_000


# ---------------------------------------------------------------- registration


def register(tags: SensorTags, arguments: Arguments, now_us: int) -> Moved:
    """Register a tag, or say more of one that its first reading registered. Repeating the same registration changes nothing."""
    tag_id = tag_name(arguments)
    row = _with_settings(Tag(tag_id=tag_id, shard=tags.shard, local_index=-1, created_us=now_us), arguments, now_us)
    known = tags.reads.tag(tag_id)
    if known is not None:
        said = ("kind", "description", "usual_interval_us", "quality", "attributes")
        if all(getattr(known, name) == getattr(row, name) for name in said):
            return _moved(None, known)
        if known.etag > 1 or any(getattr(known, name) for name in said):
            raise AlreadyExists("a tag of this id is registered with other settings: update it", field="tag_id", value=tag_id)
        row.created_us, row.etag = known.created_us, known.etag + 1
    return _settle(tags, row, now_us, "tag.registered")


def update(tags: SensorTags, arguments: Arguments, now_us: int) -> Moved:
    """Change what is given of a registered tag; a stale etag is refused."""
    tag_id = tag_name(arguments)
    known = tags.reads.tag(tag_id)
    if known is None:
        raise NotFound("there is no such tag", field="tag_id", value=tag_id)
    expected = requests.etag(arguments)
    if expected is not None and expected != known.etag:
        raise StaleEtag(f"the tag has changed since: its etag is {known.etag}", field="etag", value=expected)
    row = _with_settings(Tag(**known.model_dump()), arguments, now_us)
    row.etag = known.etag + 1
    return _settle(tags, row, now_us, "tag.updated")


def _with_settings(row: Tag, arguments: Arguments, now_us: int) -> Tag:
    if "kind" in arguments:
        row.kind = requests.text(arguments, "kind")
    if "description" in arguments:
        row.description = requests.text(arguments, "description", longest=requests.DESCRIPTION_MAX)
    if "attributes" in arguments:
        row.attributes = requests.labels(arguments, "attributes")
    if "usual_interval_us" in arguments:
        interval_us = requests.duration_us(arguments, "usual_interval_us", high_us=LONGEST_INTERVAL_US)
        row.usual_interval_us = interval_us or None
    if "quality" in arguments:
        data = requests.section(arguments, "quality")
        if data is None:
            row.quality = None
        else:
            try:
                settings = QualitySettings.from_data(data)
            except TypeError as wrong:
                raise InvalidArgument(f"not quality settings: {wrong}", field="quality", value=data) from None
            validate(settings)
            row.quality = settings.to_data()
    row.updated_us = now_us
    return row


def _settle(tags: SensorTags, row: Tag, now_us: int, event: str) -> Moved:
    body = {
        "command": "tag",
        "tag_id": row.tag_id,
        "usual_interval_us": row.usual_interval_us or 0,
        "quality": row.quality,
        "now_us": now_us,
    }
    moved = _moved(body, row)
    apply(tags, body, moved.changes)
    row.local_index = tags.local(row.tag_id)
    moved.changes.new_tags.clear()  # the whole row is written here
    moved.changes.upserts.append(row)
    moved.changes.events.append(EventDraft(event, now_us, row.model_dump(mode="json"), tag_id=row.tag_id))
    return moved


# ---------------------------------------------------------------- custody


def assign(tags: SensorTags, arguments: Arguments, now_us: int) -> Moved:
    """The tag rides on a carrier from `from_us` (default now), until `until_us` where given. Repeated, it gives the first answer."""
    tag_id = tag_name(arguments)
    carrier = requests.text(arguments, "carrier", required=True, longest=256)
    from_us = requests.time_us(arguments, "from_us")
    from_us = now_us if from_us is None else from_us
    until_us = requests.time_us(arguments, "until_us")
    unit = requests.text(arguments, "handling_unit_id")
    plan_row = tags.reads.plan(carrier)
    if plan_row is None:
        raise NotFound("there is no such carrier", field="carrier", value=carrier)
    plan = Plan.from_data(plan_row.body)
    if unit and unit not in plan.handling_units:
        raise NotFound(f"{carrier} has no such handling unit", field="handling_unit_id", value=unit)
    known = [row for row in tags.reads.custodies([tag_id]) if not row.retracted]
    for row in known:
        same_start = row.from_us == from_us or (arguments.get("from_us") is None and row.until_us is None)
        if row.carrier == carrier and (row.handling_unit_id or "") == unit and same_start and until_us in (None, row.until_us):
            return _moved(None, row)
    if plan.state != OPEN and until_us is None:
        raise FailedPrecondition("the carrier is closed: a custody on it needs an end", field="carrier", value=carrier)
    new = Custody(
        custody_id=tags.next_id(), shard=tags.shard, tag_id=tag_id, carrier=carrier, handling_unit_id=unit or None, from_us=from_us,
        until_us=until_us, assigned_by=requests.text(arguments, "assigned_by", longest=128), assigned_us=now_us,
        note=requests.text(arguments, "note", longest=requests.DESCRIPTION_MAX),
    )  # fmt: skip
    try:
        custody_rules.assign(tuple(tags.interval(row) for row in known), tags.interval(new), now_us)
    except Exception:
        tags.counter -= 1
        raise
    everything = sorted([*known, new], key=lambda row: row.from_us)
    body = _custody_body(tags, "assign", new, plan, everything)
    moved = _moved(body, new)
    _record(moved.changes, new, "assigned", new.assigned_by, now_us)
    apply(tags, body, moved.changes)
    tag = tags.local(tag_id)
    if until_us is not None:
        past.judge_rows(tags, tag, everything, lambda row: "custody" if row is new else None, moved.changes)
    return moved


def release(tags: SensorTags, arguments: Arguments, now_us: int) -> Moved:
    """The tag's open custody ends at `until_us` (default now; not later). Releasing again at the same time gives the first answer."""
    tag_id = tag_name(arguments)
    known = [row for row in tags.reads.custodies([tag_id]) if not row.retracted]
    wanted = arguments.get("custody_id")
    carrier = requests.text(arguments, "carrier", longest=256)
    until_us = requests.time_us(arguments, "until_us")
    chosen = [row for row in known if (row.custody_id == _number(wanted) if wanted else row.until_us is None)]
    if carrier:
        chosen = [row for row in chosen if row.carrier == carrier]
        if not chosen:  # repeated: the last custody there, ended just so
            chosen = [row for row in known if row.carrier == carrier and until_us is not None and row.until_us == until_us]
    if not chosen:
        raise NotFound("the tag is in no such open custody", field="custody_id" if wanted else "tag_id", value=wanted or tag_id)
    old = chosen[-1]
    if old.until_us is not None and old.until_us == until_us:
        return _moved(None, old)
    until_us = now_us if until_us is None else until_us
    custody_rules.release(tuple(tags.interval(row) for row in known), str(old.custody_id), until_us, now_us)
    by = requests.text(arguments, "ended_by", longest=128)
    new = Custody(**{**old.model_dump(), "until_us": until_us, "ended_by": by, "ended_us": now_us, "etag": old.etag + 1})
    return _change(tags, old, new, known, "released", by, now_us)


def carrier_closed(tags: SensorTags, arguments: Arguments, now_us: int) -> Moved:
    """A carrier was closed: the first of its custodies here that is still open ends at `until_us`; one that began later stays.

    Answers whether the message is to come again: until none is open that began before, and not before that time.
    """
    name, until_us = str(arguments["carrier"]), int(arguments["until_us"])
    custodies = tags.head.custodies
    tag = next((tag for tag in custodies.on(name) if custodies[tag].from_us < until_us), None)
    if tag is None or until_us > now_us:
        return _moved(None, tag is not None)
    custody_id = custodies[tag].custody_id
    ending = {"tag_id": tags.ids[tag], "custody_id": custody_id, "until_us": until_us, "ended_by": arguments.get("ended_by")}
    moved = release(tags, ending, now_us)
    moved.answer = True
    return moved


def correct(tags: SensorTags, arguments: Arguments, now_us: int) -> Moved:
    """Give a custody other times, or retract it (`retract`): both carriers are judged again. A stale etag is refused.

    `until_us` absent leaves the end as it is; `reopen` takes it away.
    """
    tag_id = tag_name(arguments)
    known = [row for row in tags.reads.custodies([tag_id]) if not row.retracted]
    number = _number(arguments.get("custody_id"))
    old = next((row for row in known if row.custody_id == number), None)
    if old is None:
        raise NotFound("the tag has no such custody", field="custody_id", value=arguments.get("custody_id", ""))
    expected = requests.etag(arguments)
    if expected is not None and expected != old.etag:
        raise StaleEtag(f"the custody has changed since: its etag is {old.etag}", field="etag", value=expected)
    by = requests.text(arguments, "corrected_by", longest=128)
    new = Custody(**{**old.model_dump(), "etag": old.etag + 1})
    new.note = requests.text(arguments, "note", longest=requests.DESCRIPTION_MAX) or old.note
    if requests.flag(arguments, "retract"):
        new.retracted = True
        return _change(tags, old, new, known, "retracted", by, now_us)
    from_us, until_us = requests.time_us(arguments, "from_us"), requests.time_us(arguments, "until_us")
    new.from_us = old.from_us if from_us is None else from_us
    new.until_us = None if requests.flag(arguments, "reopen") else old.until_us if until_us is None else until_us
    if (new.from_us, new.until_us) == (old.from_us, old.until_us):
        return _moved(None, old)
    if new.until_us is not None and old.until_us is None:
        new.ended_by, new.ended_us = by, now_us
    intervals = tuple(tags.interval(row) for row in known)
    custody_rules.correct(intervals, str(old.custody_id), new.from_us, past.until_of(new), now_us)
    return _change(tags, old, new, known, "corrected", by, now_us)


def _change(tags: SensorTags, old: Custody, new: Custody, known: list[Custody], cause: str, by: str, now_us: int) -> Moved:
    """`old` becomes `new`: what was open may close, what was closed may open, and everything that adds up is judged again."""
    tag = tags.local(old.tag_id)
    plan_row = tags.reads.plan(old.carrier)
    if plan_row is None:
        raise NotFound("there is no such carrier", field="carrier", value=old.carrier)
    everything = sorted([new if row.custody_id == new.custody_id else row for row in known], key=lambda row: row.from_us)
    was_open = tag in tags.head.custodies and tags.head.custodies[tag].custody_id == old.custody_id
    body = _custody_body(tags, "change", new, Plan.from_data(plan_row.body), everything)
    body["retracted"] = new.retracted
    before, visits = None, None
    if was_open:
        before, visits = tags.head.excursions.get(tag, []), tags.head.stated_visits.get(tag, [])
    else:
        before = [past.stated_excursion(row) for row in tags.reads.excursions([old.custody_id])]
        visits = [past.stated_visit(row) for row in tags.reads.visits([old.custody_id])]
        if new.until_us is None and not new.retracted:
            body["stated"] = [dataclasses.asdict(one) for one in before]
            body["stated_visits"] = [dataclasses.asdict(one) for one in visits]
    moved = _moved(body, new)
    changes = moved.changes
    _record(changes, new, cause, by, now_us)
    quick = _close_in_order(tags, tag, new, changes) if was_open and cause == "released" else False
    apply(tags, body, changes)
    standing = [row for row in everything if not row.retracted]
    if new.retracted:
        _retract(tags, tag, old, before, visits, changes)
    elif new.until_us is not None and not quick:
        past.judge_closed(tags, tag, new, standing, "closed" if cause == "released" else "custody", changes, before, visits)
    if cause != "released":  # what came after it on the same carrier adds up from another sum
        later = [row for row in standing if row.carrier == new.carrier and row.from_us > min(old.from_us, new.from_us) and row is not new]
        for row in later:
            if row.until_us is not None:
                past.judge_closed(tags, tag, row, standing, "custody", changes)
        past.judge_open_after(tags, tag, {new.carrier: "custody"}, standing, changes)
    return moved


def _close_in_order(tags: SensorTags, tag: int, new: Custody, changes: Changes) -> bool:
    """End the open custody by moving its rows to the end, where no reading lies after it. False: it must be judged as a whole."""
    head = tags.head
    row = head.tags[tag]
    assert new.until_us is not None
    if row["special"] or int(row["newest_us"]) >= new.until_us:
        return False
    tags.moving = True
    custody = head.custodies[tag]
    carrier = head.rulebook.carriers[custody.carrier]
    rows = head.rows_of(tag)
    if len(rows.tracks):
        runs = exposure.close(rows.tracks, np.arange(len(rows.tracks)), new.until_us, head.rulebook.windows, head.rulebook.limits)
        for run in runs:
            head.state_run(tag, int(run["track"]), run, "closed", changes)
    if len(rows.visits):
        for event in geofence.close(rows.visits, range(len(rows.visits)), new.until_us):
            head.state_visit(tag, int(event["visit"]), event, "closed", changes)
    past.state_exposure(tags, custody, carrier, rows.tracks, changes)
    return True


def _retract(tags: SensorTags, tag: int, old: Custody, before: list[StatedExcursion], visits: list[StatedVisit], changes: Changes) -> None:
    """The custody never was: nothing stated of it stands."""
    for one in before:
        one.retracted = True
        changes.excursion(one, tag, old.carrier, old.handling_unit_id or "", "custody")
    for seen in visits:
        seen.retracted = True
        changes.visit(seen, tag, old.carrier, "custody")
    for row in tags.reads.exposures([old.custody_id]):
        row.violation_us = row.covered_us = row.uncovered_us = row.readings = 0
        row.extreme = row.extreme_us = None
        changes.upserts.append(row)


# ---------------------------------------------------------------- plans


def plan_changed(tags: SensorTags, arguments: Arguments, now_us: int) -> Moved:
    """The carrier's plan is another: judge its tags' custodies by it. Nothing happens where none of its tags are here."""
    del now_us
    name = str(arguments["carrier"])
    row = tags.reads.plan(name)
    here = tags.reads.custodies_of(name)
    if row is None or not any(not custody.retracted for custody in here):
        return _moved(None, None)
    known = tags.head.rulebook.carriers.get(name)
    body = {"command": "plan", "plan": row.body}
    moved = _moved(body, None)
    if known is not None and known.told >= row.revision:
        return _moved(None, None)
    # Where an assignment brought this plan before its message, nobody has judged the closed custodies by it yet.
    newer = known is not None and known.plan.revision < row.revision
    same = newer and known is not None and known.judged_key == tags.head.rulebook.of(Plan.from_data(row.body)).judged_key
    apply(tags, body, moved.changes)
    if not same:
        by_tag: dict[str, list[Custody]] = {}
        for custody in here:
            by_tag.setdefault(custody.tag_id, []).append(custody)
        for tag_id, mine in by_tag.items():
            past.judge_rows(tags, tags.local(tag_id), mine, lambda row: "profile", moved.changes)
    return moved


# ---------------------------------------------------------------- the effect on the state, live and in replay


def apply(tags: SensorTags, body: Mapping[str, Any], changes: Changes) -> None:
    """Move the state on by a journaled command."""
    tags.moving = True
    kind = body["command"]
    if kind == "tag":
        tag = _tag(tags, body["tag_id"], changes)
        if body["usual_interval_us"]:
            tags.head.set_interval_us[tag] = body["usual_interval_us"]
        else:
            tags.head.set_interval_us.pop(tag, None)
        settings = None if body["quality"] is None else QualitySettings.from_data(body["quality"])
        if settings != tags.quality.get(tag):
            tags.set_quality(tag, settings)
            neighbours.reload(tags, tag)
            tags.judge_open(tag, "quality", changes)
    elif kind == "assign":
        tag = _tag(tags, body["tag_id"], changes)
        tags.counter = max(tags.counter, int(body["custody_id"]) & COUNTER_MASK)
        _replan(tags, Plan.from_data(body["plan"]), changes)
        _begin(tags, tag, body, changes)
    elif kind == "change":
        tag = tags.local(body["tag_id"])
        open_custody = tags.head.custodies.get(tag)
        stated, visits = (
            [StatedExcursion(**one) for one in body.get("stated", ())],
            [StatedVisit(**one) for one in body.get("stated_visits", ())],
        )
        if open_custody is not None and open_custody.custody_id == body["custody_id"]:
            tags.head.unbind(tag)
            neighbours.let_go(tags, tag)
            stated, visits = tags.head.excursions.pop(tag, []), tags.head.stated_visits.pop(tag, [])
        _replan(tags, Plan.from_data(body["plan"]), changes)  # after this custody let go: it is judged by its own command
        if body["until_us"] is None and not body["retracted"]:
            tags.head.excursions[tag], tags.head.stated_visits[tag] = stated, visits
        tags.head.note_stated(tag)
        if not body["retracted"]:
            _begin(tags, tag, body, changes)
    elif kind == "plan":
        plan = Plan.from_data(body["plan"])
        _replan(tags, plan, changes)
        tags.head.rulebook.carriers[plan.carrier].told = plan.revision
    else:
        raise ValueError(f"unknown journaled command {kind!r}")


def _begin(tags: SensorTags, tag: int, body: Mapping[str, Any], changes: Changes) -> None:
    """A custody as the body tells it: open, it is judged from its start; closed, only its end is remembered."""
    row = tags.head.tags[tag]
    if body["until_us"] is not None:
        row["past_until_us"] = max(int(row["past_until_us"]), int(body["until_us"]))
        return
    carrier = tags.head.rulebook.carriers[body["carrier"]]
    custody = OpenCustody(body["custody_id"], tag, body["carrier"], body["handling_unit"], body["from_us"], dict(body["prior_us"]))
    tags.head.bind(custody, carrier)
    if int(row["newest_us"]) >= custody.from_us:
        tags.series.pop(tag, None)  # what is in memory may not reach back so far
    if int(row["newest_us"]) >= custody.from_us or tags.head.excursions.get(tag) or tags.head.stated_visits.get(tag):
        tags.judge_open(tag, "custody", changes)


def _replan(tags: SensorTags, plan: Plan, changes: Changes) -> None:
    """The carrier has this plan, unless a newer one is known: those that ride on it are judged by it from their custodies' starts."""
    head = tags.head
    known = head.rulebook.carriers.get(plan.carrier)
    before = None if known is None else known.judged_key
    carrier = head.rulebook.put(plan)
    if known is None or carrier.judged_key == before:
        return
    for tag in head.custodies.on(plan.carrier):
        custody = head.unbind(tag)
        head.bind(custody, carrier)
    for tag in head.custodies.on(plan.carrier):
        if int(head.tags[tag]["newest_us"]) >= head.custodies[tag].from_us or head.excursions.get(tag) or head.stated_visits.get(tag):
            tags.judge_open(tag, "profile", changes)


# ---------------------------------------------------------------- small things


def tag_name(arguments: Arguments) -> str:
    """The tag's id."""
    return requests.text(arguments, "tag_id", required=True)


def _tag(tags: SensorTags, tag_id: str, changes: Changes) -> int:
    known = tags.find(tag_id)
    if known is not None:
        return known
    (made,) = tags.add([tag_id])
    changes.new_tags.append(made)
    return made


def _number(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise InvalidArgument("must be a custody id", field="custody_id", value=value) from None


def _custody_body(tags: SensorTags, command: str, new: Custody, plan: Plan, everything: list[Custody]) -> dict[str, Any]:
    """All that the effect of a custody command needs, so that a replay asks nobody."""
    tag = tags.find(new.tag_id)
    prior_us = {} if tag is None else past.prior_of(tags, tag, new.carrier, new.from_us, [row for row in everything if row is not new])
    return {
        "command": command,
        "tag_id": new.tag_id,
        "custody_id": new.custody_id,
        "carrier": new.carrier,
        "handling_unit": new.handling_unit_id or "",
        "from_us": new.from_us,
        "until_us": new.until_us,
        "prior_us": prior_us,
        "plan": plan.to_data(),
    }


def _record(changes: Changes, row: Custody, cause: str, by: str, now_us: int) -> None:
    """The custody row, its revision and its event."""
    body = row.model_dump(mode="json")
    (changes.inserts if row.etag == 1 else changes.upserts).append(row)  # before its revision, which names it
    changes.inserts.append(CustodyRevision(custody_id=row.custody_id, etag=row.etag, cause=cause, by=by, at_us=now_us, body=body))
    at_us = row.from_us if row.until_us is None else row.until_us
    changes.events.append(EventDraft(f"custody.{cause}", at_us, body, carrier=row.carrier, tag_id=row.tag_id))


def _moved(body: dict[str, Any] | None, answer: Any) -> Moved:
    from actors.sensor_tag import Moved

    return Moved(kind="command", body=body, answer=answer)


def _sealed(decide: Callable[[SensorTags, Arguments, int], Moved]) -> Callable[[SensorTags, Arguments, int], Moved]:
    """A command whose journal entry is written after its effect."""

    def command(tags: SensorTags, arguments: Arguments, now_us: int) -> Moved:
        tags.begin()
        moved = decide(tags, arguments, now_us)
        if moved.body is not None:
            tags.seal(moved, moved.body)
        return moved

    return command


_DECIDED = {
    "tag.register": register,
    "tag.update": update,
    "tag.assign": assign,
    "tag.release": release,
    "tag.correct_custody": correct,
    "plan.changed": plan_changed,
    "carrier.closed": carrier_closed,
}

COMMANDS = {name: _sealed(decide) for name, decide in _DECIDED.items()}
"""Every command on tags by its name: (tags, arguments, now_us) -> Moved."""
