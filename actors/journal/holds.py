"""The life of a hold, decided purely: old hold and change in, new hold and its history row out. The SQL is in apply_holds.py.

A lot has one undecided hold at most. Excursions place it, join it and change what it is about; a person decides.

    ACTIVE ── release ─→ RELEASED                         blocks nothing
       ↑  ├─ partially release ─→ PARTIALLY_RELEASED      blocks everywhere but at its places; may be decided further
       │  └─ reject ─→ REJECTED                           blocks for good
       └─ reopened: an excursion that the decision was about has changed since
An excursion that no decision knew of places the next hold of the lot.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.journal.alerts import LATE_CAUSES
from actors.journal.prepared import HoldAct
from actors.journal.rows import json_values, record, values
from actors.journal.tables import Hold, HoldHistory
from actors.rules.errors import FailedPrecondition, InvalidArgument, StaleEtag
from actors.rules.stock import Block, item_of

EXCURSIONS_LISTED = 100
"""A hold lists the newest of its excursions; which it is about besides is kept in hold_of_excursion."""

DECISIONS = {"release": "RELEASED", "partially_release": "PARTIALLY_RELEASED", "reject": "REJECTED"}
UNDECIDED = frozenset({"ACTIVE", "PARTIALLY_RELEASED"})
"""States in which a person may decide."""


@dataclass(slots=True)
class Change:
    """What became of a hold, and how it is told. `excursion_id`: of the excursion that did it."""

    hold: Hold
    history: HoldHistory
    system: str = ""
    excursion_id: int | None = None

    def body(self) -> dict[str, Any]:
        """The event's body: the hold as it is now, and what changed."""
        return {"hold": json_values(self.hold), "change": self.history.change}


def hold_id_of(lot_id: str, ordinal: int) -> str:
    """The id of the n-th hold of a lot: the same for every attempt."""
    digest = hashlib.blake2b(f"{lot_id}|{ordinal}".encode(), digest_size=10).digest()
    return "H-" + base64.b32encode(digest).decode().lower()


def entry_of(excursion: Mapping[str, Any]) -> dict[str, Any]:
    """What a hold keeps of an excursion's revision."""
    names = ("excursion_id", "revision", "carrier", "limit_id", "tag_id", "started_us", "ended_us", "extreme", "violation_us")
    return {name: excursion[name] for name in names} | {"retracted": excursion["state"] == "RETRACTED"}


def block_of(hold: Mapping[str, Any]) -> Block:
    """A hold's row as movements see it."""
    places = tuple((one["handling_unit_id"], one["warehouse_id"], one["zone_id"]) for one in hold["places"])
    return Block(hold["hold_id"], hold["state"], places if hold["state"] == "PARTIALLY_RELEASED" else ())


def on_excursion(hold: Hold | None, lot_id: str, excursion: Mapping[str, Any], about: bool, now_us: int) -> Change | None:
    """An excursion has a new revision. hold: the lot's newest; about: whether that hold is about this excursion already."""
    entry = entry_of(excursion)
    if hold is None or (hold.state != "ACTIVE" and not about):
        if entry["retracted"]:
            return None
        reason = f"excursion of {entry['limit_id']} on {entry['carrier']}"
        made = _first(lot_id, 1 if hold is None else hold.ordinal + 1, "EXCURSION", reason, entry["started_us"], now_us)
        return _changed(made, "placed", now_us, text=reason, entry=entry)
    late = excursion["cause"] in LATE_CAUSES
    told = f"excursion {entry['excursion_id']} of {entry['limit_id']} on {entry['carrier']}, revision {entry['revision']}"
    if about and entry in hold.excursions:
        return None  # known already: something else came onto the carrier
    if not about:
        return None if entry["retracted"] else _changed(_next(hold), "joined", now_us, text=told, entry=entry)
    if hold.state == "ACTIVE" or (hold.state == "REJECTED" and not late):
        return _changed(_next(hold), "corrected" if late else "updated", now_us, text=told, entry=entry)
    again = _next(hold)
    again.state, again.places, again.reopened = "ACTIVE", [], hold.reopened + 1
    return _changed(again, "reopened", now_us, text=f"{told}: it changed after the decision ({excursion['cause']})", entry=entry)


def on_act(hold: Hold | None, act: HoldAct) -> Change:
    """What a person does. Raises StaleEtag, FailedPrecondition, InvalidArgument."""
    if act.action == "place":
        if hold is None or hold.state != "ACTIVE":
            made = _first(act.lot_id, 1 if hold is None else hold.ordinal + 1, "PERSON", act.text, act.at_us, act.at_us)
            made.placed_by = act.by
            return _changed(made, "placed", act.at_us, text=act.text, by=act.by, system=act.system)
        return _changed(_next(hold), "joined", act.at_us, text=act.text, by=act.by, system=act.system)
    assert hold is not None
    if act.etag != hold.etag:
        raise StaleEtag(f"has changed since: its etag is {hold.etag}, not {act.etag}; read it again", field="etag", value=act.etag)
    if act.action not in DECISIONS:
        raise InvalidArgument(f"must be one of {', '.join(DECISIONS)}", field="decision", value=act.action)
    if hold.state not in UNDECIDED:
        raise FailedPrecondition(f"is {hold.state} already", field="hold_id", value=hold.hold_id)
    made = _next(hold)
    made.state = DECISIONS[act.action]
    made.places = [*hold.places, *(place for place in act.places if place not in hold.places)] if act.action == "partially_release" else []
    made.decided_us, made.decided_by, made.decision_reason = act.at_us, act.by, act.text
    change = _changed(made, made.state.lower(), act.at_us, text=act.text, by=act.by, system=act.system)
    change.history.body = {**change.history.body, "exposure": act.exposure}
    return change


def _first(lot_id: str, ordinal: int, source: str, reason: str, started_us: int, now_us: int) -> Hold:
    item_id = item_of(lot_id)
    facts = {
        "hold_id": hold_id_of(lot_id, ordinal), "lot_id": lot_id, "ordinal": ordinal, "item_id": item_id,
        "lot_number": lot_id[len(item_id) + 1 :], "source": source, "reason": reason, "started_us": started_us,
        "placed_us": now_us, "etag": 1,
    }  # fmt: skip
    return record(Hold, facts)


def _next(hold: Hold) -> Hold:
    return record(Hold, values(hold) | {"etag": hold.etag + 1})


def _changed(
    hold: Hold, change: str, now_us: int, *, text: str, by: str = "", system: str = "", entry: dict[str, Any] | None = None
) -> Change:
    if entry is not None:
        others = [one for one in hold.excursions if one["excursion_id"] != entry["excursion_id"]]
        hold.excursions = sorted([*others, entry], key=lambda one: (one["started_us"], one["excursion_id"]))[-EXCURSIONS_LISTED:]
        hold.started_us = min(hold.started_us, entry["started_us"])
    facts = {
        "hold_id": hold.hold_id, "etag": hold.etag, "change": change, "state": hold.state, "by": by, "text": text, "at_us": now_us,
        "body": json_values(hold),
    }  # fmt: skip
    return Change(hold, record(HoldHistory, facts), system, None if entry is None else entry["excursion_id"])
