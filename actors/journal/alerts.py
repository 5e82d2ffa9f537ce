"""The life of an alert, decided purely: old alert and change in, new alert and its history row out. The SQL is in commit.py.

One alert stands for one condition `key` at a time; the next one of the same key has the next ordinal.

    OPEN ── acknowledge ─→ ACKNOWLEDGED ── resolve ─→ RESOLVED          (a person; resolve also from OPEN)
      ↑ recurred: the condition is back after it was over, or another excursion came after all were over
      └─ reopened: a late change to an excursion of a RESOLVED or WITHDRAWN alert
    any state ─→ WITHDRAWN: all its excursions are retracted, the condition never was

`active` says whether the condition holds now, beside the state: an alert that is cleared waits for a person all the same.
A new excursion after RESOLVED raises a new alert. One commit changes an alert at most once by readings: its history row sums up.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

from actors.journal.prepared import AlertAction, Condition
from actors.journal.rows import json_values, record, values
from actors.journal.tables import Alert, AlertHistory, Excursion
from actors.rules.errors import FailedPrecondition, InvalidArgument, StaleEtag

LATE_CAUSES = frozenset({"late", "custody", "profile", "quality"})
"""Causes of an excursion's revision that change what was stated before; `reading` and `closed` only carry it on."""

STANDING = frozenset({"OPEN", "ACKNOWLEDGED"})
SEVERITIES = ("INFO", "WARNING", "CRITICAL")

TAGS_LISTED = 100
"""An alert lists at most so many tags; its excursions name all."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """An alert after a change, and the change's row of history."""

    alert: Alert
    history: AlertHistory

    def body(self) -> dict[str, Any]:
        """The event's body: the alert's whole new state, and what changed it."""
        history = self.history
        told = {"change": history.change, "cause": history.cause, "by": history.by, "text": history.text}
        return {**json_values(self.alert), **told, "excursion_id": history.excursion_id}


def goods_key(carrier: str, limit_id: str) -> str:
    """The condition of goods: one carrier, one limit, however many tags saw it."""
    return f"goods|{carrier}|{limit_id}"


def alert_id_of(key: str, ordinal: int) -> str:
    """16 letters and digits, the same whenever the journal is replayed."""
    return base64.b32encode(hashlib.blake2b(f"{key}|{ordinal}".encode(), digest_size=10).digest()).decode().lower()


# ---------------------------------------------------------------- goods


class Stated(NamedTuple):
    """What an alert needs to know of an excursion."""

    excursion_id: int
    state: str
    tag_id: str
    direction: int
    severity: str
    started_us: int
    ended_us: int | None
    extreme: float | None
    extreme_us: int | None

    @property
    def stands(self) -> bool:
        """Not retracted."""
        return self.state != "RETRACTED"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the excursions of one alert add up to."""

    excursions: int = 0
    open_excursions: int = 0
    started_us: int | None = None
    ended_us: int | None = None  # the latest end
    extreme: float | None = None
    extreme_us: int | None = None
    severity: str = "INFO"
    tags: tuple[str, ...] = ()

    def plus(self, one: Stated) -> Facts:
        """With one more excursion, or with one grown in order (then without counting it)."""
        if not one.stands:
            return self
        extreme, extreme_us = _worse(one.direction, (self.extreme, self.extreme_us), (one.extreme, one.extreme_us))
        tags = self.tags if one.tag_id in self.tags else tuple(sorted({*self.tags, one.tag_id}))[:TAGS_LISTED]
        return Facts(
            self.excursions + 1,
            self.open_excursions + (one.state == "CONFIRMED"),
            one.started_us if self.started_us is None else min(self.started_us, one.started_us),
            _latest(self.ended_us, one.ended_us),
            extreme,
            extreme_us,
            max(self.severity, one.severity, key=SEVERITIES.index),
            tags,
        )

    def grown(self, old: Stated, new: Stated) -> Facts:
        """After an excursion went on in order: only its end, extreme and readings can have changed, and only outward."""
        more = self.plus(new)
        still = self.open_excursions + (new.state == "CONFIRMED") - (old.state == "CONFIRMED")
        return Facts(self.excursions, still, more.started_us, more.ended_us, more.extreme, more.extreme_us, more.severity, more.tags)


def facts_of(excursions: Iterable[Stated]) -> Facts:
    """What excursions add up to; retracted ones do not count.

    As adding one after the other (`plus`), at a tenth of the price: a zone's alert has thousands, and each late revision asks for it.
    """
    standing = [one for one in excursions if one.state != "RETRACTED"]
    if len({one.direction for one in standing}) != 1:  # none, or a limit that was turned round
        facts = Facts()
        for one in sorted(standing):
            facts = facts.plus(one)
        return facts
    direction = standing[0].direction
    ends = [one.ended_us for one in standing if one.ended_us is not None]
    extremes = [(-direction * one.extreme, one.extreme_us or 0, one.extreme, one.extreme_us) for one in standing if one.extreme is not None]
    extreme, extreme_us = min(extremes, key=itemgetter(0, 1))[2:] if extremes else (None, None)
    return Facts(
        len(standing),
        sum(one.state == "CONFIRMED" for one in standing),
        min(one.started_us for one in standing),
        max(ends) if ends else None,
        extreme,
        extreme_us,
        max({"INFO", *(one.severity for one in standing)}, key=SEVERITIES.index),
        tuple(sorted({one.tag_id for one in standing})[:TAGS_LISTED]),
    )


def facts_on(alert: Alert) -> Facts:
    """What an alert says of its excursions."""
    return Facts(
        alert.excursions,
        alert.open_excursions,
        alert.started_us,
        alert.detail.get("latest_end_us"),
        alert.extreme,
        alert.extreme_us,
        alert.severity,
        tuple(alert.tags),
    )


def grew_in_order(old: Stated, new: Stated, cause: str) -> bool:
    """Whether `grown` may be used: the excursion stood, stands, and only went on."""
    return (
        old.stands
        and new.stands
        and cause not in LATE_CAUSES
        and old.state == "CONFIRMED"
        and old.started_us == new.started_us
        and _worse(new.direction, (old.extreme, old.extreme_us), (new.extreme, new.extreme_us)) == (new.extreme, new.extreme_us)
    )


@dataclass(frozen=True, slots=True)
class GoodsChange:
    """All that one commit does to the excursions of one alert. `last` is the newest of them, told in the history."""

    facts: Facts
    last: Excursion
    added: bool  # an excursion that was not stated before
    late: bool  # a late change to one that was
    cause: str
    other_stands: bool  # another alert of this condition is open


def on_goods(old: Alert | None, ordinal: int, change: GoodsChange, now_us: int) -> Outcome | None:
    """The alert of a goods condition after a commit's excursion changes; None where nothing is to be told."""
    facts, last = change.facts, change.last
    told: dict[str, Any] = {
        "excursions": facts.excursions,
        "open_excursions": facts.open_excursions,
        "active": facts.open_excursions > 0,
        "ended_us": None if facts.open_excursions else facts.ended_us,
        "extreme": facts.extreme,
        "extreme_us": facts.extreme_us,
        "severity": facts.severity,
        "tags": list(facts.tags),
        "detail": {"latest_end_us": facts.ended_us, "threshold": last.threshold, "direction": last.direction, "mode": last.mode},
    }
    if facts.started_us is not None:
        told["started_us"] = facts.started_us
    if old is None:
        if not facts.excursions:
            return None
        key = goods_key(last.carrier, last.limit_id)
        told |= {
            "alert_id": alert_id_of(key, ordinal), "key": key, "ordinal": ordinal, "kind": "goods", "carrier": last.carrier,
            "limit_id": last.limit_id, "tag_id": last.tag_id, "profile_id": last.profile_id, "metric": last.metric,
            "raised_us": now_us, "updated_us": now_us,
        }  # fmt: skip
        alert = record(Alert, told)
        return Outcome(alert, _history(alert, "raised", now_us, cause=change.cause, excursion_id=last.excursion_id))
    if not facts.excursions:
        # The last facts stay readable: what was believed until it was withdrawn.
        told = {"excursions": 0, "open_excursions": 0, "active": False, "state": "WITHDRAWN"}
        name = "withdrawn"
        if old.state == "WITHDRAWN":
            return None
    elif old.state not in STANDING:
        name = _told_after_close(old, change)
        if name == "reopened":
            told |= _open_again(old)
    elif not old.active and (change.added or facts.open_excursions):
        name = "recurred"
        told["state"] = "OPEN"
    elif old.active and not facts.open_excursions:
        name = "cleared"
    else:
        name = "corrected" if change.late else "updated"
    return _changed(old, told, name, now_us, cause=change.cause, excursion_id=last.excursion_id, quiet=name == "updated")


def _told_after_close(old: Alert, change: GoodsChange) -> str:
    if change.late or change.added:
        return "corrected" if change.other_stands else "reopened"
    return "cleared" if old.active and not change.facts.open_excursions else "updated"


# ---------------------------------------------------------------- other conditions


def on_condition(old: Alert | None, change: Condition, now_us: int) -> Outcome | None:
    """The newest alert of a condition after a change of it; None where nothing is to be told. Raises InvalidArgument."""
    if change.change == "raise":
        return _raise(old, change, now_us)
    if change.change == "clear":
        if old is None or not old.active:
            return None
        told = {"active": False, "ended_us": change.at_us, "detail": {**old.detail, **change.detail}}
        return _changed(old, told, "cleared", now_us, cause=change.cause)
    if change.change == "withdraw":
        if old is None or old.state == "WITHDRAWN":
            return None
        told = {"active": False, "state": "WITHDRAWN", "detail": {**old.detail, **change.detail}}
        return _changed(old, told, "withdrawn", now_us, cause=change.cause)
    raise InvalidArgument("must be raise, clear or withdraw", field="change", value=change.change)


def _raise(old: Alert | None, change: Condition, now_us: int) -> Outcome | None:
    told: dict[str, Any] = {"active": True, "severity": change.severity, "reason": change.reason, "detail": change.detail}
    if change.carrier is not None:
        told["carrier"] = change.carrier  # a tag's condition is told of the carrier that it rides on now
    if old is not None and old.state in STANDING:
        if old.active:
            return _changed(old, told, "updated", now_us, cause=change.cause, quiet=True)
        told |= {"state": "OPEN", "ended_us": None}
        return _changed(old, told, "recurred", now_us, cause=change.cause)
    if old is not None and old.state == "RESOLVED" and old.active:
        return None  # A person resolved it while it went on; it goes on still.
    if old is not None and change.cause in LATE_CAUSES:
        told |= {**_open_again(old), "ended_us": None}
        return _changed(old, told, "reopened", now_us, cause=change.cause)
    ordinal = 1 if old is None else old.ordinal + 1
    alert = record(
        Alert,
        {
            "alert_id": alert_id_of(change.key, ordinal), "key": change.key, "ordinal": ordinal, "kind": change.kind,
            "carrier": change.carrier, "tag_id": change.tag_id, "fence_id": change.fence_id, "metric": change.metric,
            "started_us": change.at_us, "tags": [change.tag_id] if change.tag_id else [], "raised_us": now_us, "updated_us": now_us, **told,
        },
    )  # fmt: skip
    return Outcome(alert, _history(alert, "raised", now_us, cause=change.cause))


# ---------------------------------------------------------------- people


def on_action(old: Alert, action: AlertAction) -> Outcome:
    """The alert after a person's action. Raises StaleEtag, InvalidArgument, FailedPrecondition."""
    if action.etag is not None and action.etag != old.etag:
        raise StaleEtag(f"the alert has changed since: its etag is {old.etag}; read it again", field="etag", value=action.etag)
    if not action.by:
        raise InvalidArgument("must say who", field="by")
    if action.action not in ("acknowledge", "assign", "comment", "resolve"):
        raise InvalidArgument("must be acknowledge, assign, comment or resolve", field="action", value=action.action)
    if action.action != "acknowledge" and not action.text.strip():
        raise InvalidArgument("must be given", field={"assign": "to", "comment": "text", "resolve": "reason"}[action.action])
    if action.action != "comment" and old.state not in STANDING:
        raise FailedPrecondition(f"the alert is {old.state}: it can only be commented", field="state", value=old.state)
    if action.action == "acknowledge":
        if old.state == "ACKNOWLEDGED":
            raise FailedPrecondition(f"the alert is acknowledged already, by {old.acknowledged_by}", field="state", value=old.state)
        told: dict[str, Any] = {"state": "ACKNOWLEDGED", "acknowledged_by": action.by, "acknowledged_us": action.at_us}
        name = "acknowledged"
    elif action.action == "assign":
        told, name = {"assigned_to": action.text}, "assigned"
    elif action.action == "comment":
        told, name = {}, "commented"
    else:
        told = {"state": "RESOLVED", "resolved_by": action.by, "resolved_us": action.at_us, "resolution": action.text}
        name = "resolved"
    outcome = _changed(old, told, name, action.at_us, by=action.by, text=action.text)
    assert outcome is not None
    return outcome


# ---------------------------------------------------------------- parts


def _open_again(old: Alert) -> dict[str, Any]:
    """Open as if new; who had resolved it stays in the history."""
    undone = {"resolved_by": "", "resolved_us": None, "resolution": "", "acknowledged_by": "", "acknowledged_us": None}
    return {**undone, "state": "OPEN", "reopened": old.reopened + 1}


def _changed(
    old: Alert, told: dict[str, Any], change: str, now_us: int, *,
    cause: str = "", by: str = "", text: str = "", excursion_id: int | None = None, quiet: bool = False,
) -> Outcome | None:  # fmt: skip
    before = values(old)
    if quiet and all(before[name] == value for name, value in told.items()):
        return None
    alert = record(Alert, {**before, **told, "updated_us": now_us, "etag": old.etag + 1})
    return Outcome(alert, _history(alert, change, now_us, cause=cause, by=by, text=text, excursion_id=excursion_id))


def _history(
    alert: Alert, change: str, at_us: int, *, cause: str = "", by: str = "", text: str = "", excursion_id: int | None = None
) -> AlertHistory:
    told = {
        "alert_id": alert.alert_id, "etag": alert.etag, "change": change, "cause": cause, "by": by, "text": text, "at_us": at_us,
        "state": alert.state, "active": alert.active, "severity": alert.severity, "excursion_id": excursion_id,
    }  # fmt: skip
    return record(AlertHistory, told)


def _worse(direction: int, one: tuple[float | None, int | None], other: tuple[float | None, int | None]) -> tuple[float | None, int | None]:
    """The worse of two extremes in the limit's direction, of equals the earlier."""
    if one[0] is None:
        return other
    if other[0] is None:
        return one
    return min((one, other), key=lambda pair: (-direction * (pair[0] or 0.0), pair[1] or 0))


def _latest(one: int | None, other: int | None) -> int | None:
    return one if other is None else other if one is None else max(one, other)
