"""One journey told twice under two names: in order and once; and shuffled, doubled, and delayed into the custody that follows.

A party is some tags that ride together from shipment to shipment. Each tag, and each shipment, has a twin. `tell_in_order` and
`tell_in_disorder` decide when the system hears of what; `found` is all that a client gets to know afterwards. `expected` is what the slow
reference makes of the same readings and custodies.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from tests.acceptance.client import MINUTE_US, PATIENCE_S, Client, cause_of, circle, limit, new_id, stamp
from tests.reference import exposure as plain
from tests.reference import geo
from waybill.v1 import common_pb2, exposure_pb2, profile_pb2, shipment_pb2, tag_pb2, telemetry_pb2

MODES = {
    plain.SINGLE: profile_pb2.LIMIT_MODE_SINGLE,
    plain.CUMULATIVE: profile_pb2.LIMIT_MODE_CUMULATIVE,
    plain.MKT: profile_pb2.LIMIT_MODE_MKT,
}
FENCE_ID = "handover"
MONTH_S = 30 * 86_400.0
"""Longer than any journey here: the MKT of a release decision is then that of a whole custody, which is easily said otherwise."""

HELD_SHARE, LATE_SHARE, FRACTIONS = 0.4, 0.05, 24
"""Of the stretches of a journey (so many), those that wait for a network; and of the other readings, those that come late alone."""

Facts = tuple[Any, ...]


class Fix(NamedTuple):
    """Where a tag was."""

    latitude_deg: float
    longitude_deg: float
    accuracy_m: float | None = None


class Sensed(NamedTuple):
    """One reading. `identity` is (boot, sequence) where the device tells them."""

    at_us: int
    values: dict[str, float]
    fix: Fix | None = None
    identity: tuple[int, int] | None = None

    def of(self, tag_id: str) -> telemetry_pb2.Reading:
        """As a gateway sends it."""
        boot, sequence = self.identity or (None, None)
        position = None
        if self.fix is not None:
            latitude_deg, longitude_deg, accuracy_m = self.fix
            position = telemetry_pb2.Position(latitude_deg=latitude_deg, longitude_deg=longitude_deg, gps_accuracy_m=accuracy_m)
        values: dict[str, Any] = self.values
        return telemetry_pb2.Reading(tag_id=tag_id, sensed_at_us=self.at_us, boot=boot, sequence=sequence, position=position, **values)


class Leg(NamedTuple):
    """A custody: on which of the party's shipments, from when until when."""

    shipment: int
    from_us: int
    until_us: int


class Rule(NamedTuple):
    """A limit in the words of the slow reference, and what it is on."""

    limit: plain.Limit
    metric: str = "temperature_c"
    window_us: int = 0


@dataclass
class Party:
    """Tags that ride together, with their readings in judging order. `late_custody`: where they ride is written down afterwards."""

    name: str
    tags: dict[str, list[Sensed]]
    legs: list[Leg]
    max_gap_us: int
    rules: dict[str, Rule] = field(default_factory=dict)
    fence: dict[str, Any] | None = None
    quality: dict[str, float] = field(default_factory=dict)
    late_custody: bool = False

    def readings(self) -> int:
        """Of all tags."""
        return sum(map(len, self.tags.values()))


def party(name: str, tags: dict[str, list[Sensed]], *, back: bool = False, **more: Any) -> Party:
    """A party with custodies, limits and fence by its own readings. Of three custodies the last is on the first shipment if it goes `back`.

    Thresholds are quantiles of what was measured, and the fence lies where the first shipment hands over to the second, so that every
    journey has something for each rule. Nothing rides between the first custody and the second, before the first and after the third.
    """
    first_us = min(readings[0].at_us for readings in tags.values())
    last_us = max(readings[-1].at_us for readings in tags.values())

    def at(share: float) -> int:
        return (first_us + round(share * (last_us - first_us))) // MINUTE_US * MINUTE_US + MINUTE_US

    legs = [Leg(0, at(0.02), at(0.38)), Leg(1, at(0.4), at(0.7)), Leg(0 if back else 2, at(0.7), at(0.95))]
    steps = sorted(b.at_us - a.at_us for readings in tags.values() for a, b in itertools.pairwise(readings))
    step_us = max(1, round(steps[len(steps) // 2] / MINUTE_US)) * MINUTE_US
    made = Party(name, tags, legs, max_gap_us=5 * step_us, **more)
    everything = [one for readings in tags.values() for one in readings]
    made.rules = _rules(everything, step_us, (last_us - first_us) // 30 // MINUTE_US * MINUTE_US, made.max_gap_us)
    made.fence = made.fence or _fence(everything, legs[0].until_us)
    return made


def _quantile(values: Iterable[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[int(share * (len(ordered) - 1))]


def _rules(readings: Sequence[Sensed], step_us: int, budget_us: int, max_gap_us: int) -> dict[str, Rule]:
    """A limit of every kind on temperature, and one on each other metric that was measured."""
    found: dict[str, Rule] = {}
    measured: dict[str, list[float]] = {}
    for one in readings:
        for metric, value in one.values.items():
            measured.setdefault(metric, []).append(value)
    if "temperature_c" in measured:

        def q(share: float) -> float:
            return _quantile(measured["temperature_c"], share)

        common: dict[str, Any] = {"max_gap_us": max_gap_us}
        found = {
            "at-once": Rule(plain.Limit(q(0.9), clear=min(q(0.75), q(0.9) - 0.25), **common)),
            "alone": Rule(plain.Limit(q(0.75), allowance_us=3 * step_us, **common)),
            "sooner": Rule(
                plain.Limit(q(0.7), allowance_us=12 * step_us, beyond=q(0.95) + 0.01, beyond_allowance_us=2 * step_us, **common)
            ),
            "total": Rule(plain.Limit(q(0.6), inclusive=True, mode=plain.CUMULATIVE, allowance_us=budget_us, **common)),
            "cold": Rule(plain.Limit(q(0.2), direction=-1, allowance_us=2 * step_us, **common)),
            "counted": Rule(plain.Limit(q(0.5), allowance_us=None, **common)),
            "kinetic": Rule(plain.Limit(q(0.75), mode=plain.MKT, **common), window_us=24 * step_us),
        }
    for metric in sorted(measured.keys() - {"temperature_c"}):
        threshold = 0.0 if metric == "door_open" else _quantile(measured[metric], 0.85)
        found[metric] = Rule(plain.Limit(threshold, max_gap_us=max_gap_us), metric)
    return found


def _fence(readings: Sequence[Sensed], handover_us: int) -> dict[str, Any] | None:
    """Round the place of handover; a tenth of all fixes lies inside."""
    fixes = [(one.at_us, one.fix) for one in readings if one.fix is not None]
    if not fixes:
        return None
    _, center = min(fixes, key=lambda one: abs(one[0] - handover_us))
    far = _quantile((geo.distance(fix[:2], center[:2]) for _, fix in fixes), 0.2)  # type: ignore[no-untyped-call]
    return {"kind": "circle", "center": center[:2], "radius": round(max(far, 200.0), 1)}


# ---------------------------------------------------------------- telling


@dataclass
class Side:
    """A party by the names that one of its twins bears in the system."""

    party: Party
    tags: dict[str, str]
    shipments: list[str]


@dataclass
class Told:
    """What was sent, and what became of it. `crossed`: readings that came first when their custody was over and the next had begun."""

    messages: int = 0
    accepted: int = 0
    duplicate: int = 0
    crossed: int = 0


def twins(client: Client, party: Party) -> tuple[Side, Side]:
    """Both sides of a party, ready to ride: two times the same shipments under one profile."""
    limits = [_limit(limit_id, rule) for limit_id, rule in party.rules.items()]
    mkt = {"mkt_window_s": MONTH_S, "mkt_allowed": True} if "kinetic" in party.rules else {}
    profile_id = client.profile(*limits, max_gap_s=party.max_gap_us / 1e6, **mkt) if limits else ""
    return _side(client, party, profile_id), _side(client, party, profile_id)


def _side(client: Client, party: Party, profile_id: str) -> Side:
    fences = []
    if party.fence is not None:
        latitude_deg, longitude_deg = party.fence["center"]
        fences = [circle(FENCE_ID, latitude_deg, longitude_deg, party.fence["radius"])]
    side = Side(party, {name: new_id("tag") for name in party.tags}, [])
    for _ in range(1 + max(leg.shipment for leg in party.legs)):
        side.shipments.append(client.shipment(profile_id, geofences=fences))
    if party.quality:
        tests = tag_pb2.QualityTests(metric=common_pb2.METRIC_TEMPERATURE_C, **party.quality)
        for tag_id in side.tags.values():
            client.tags.RegisterTag(tag_pb2.RegisterTagRequest(tag=tag_pb2.Tag(tag_id=tag_id, quality=[tests])), timeout=PATIENCE_S)
    return side


def _limit(limit_id: str, rule: Rule) -> profile_pb2.Limit:
    one = rule.limit
    more: dict[str, Any] = {"inclusive": one.inclusive, "clear": one.clear, "window_s": rule.window_us / 1e6 or None}
    if one.beyond is not None:
        more |= {"beyond": one.beyond, "beyond_allowance_s": one.beyond_allowance_us / 1e6}
    minutes = None if one.allowance_us is None else one.allowance_us / MINUTE_US
    metric = common_pb2.Metric.Value(f"METRIC_{rule.metric.upper()}")
    return limit(limit_id, one.threshold, below=one.direction < 0, minutes=minutes, mode=MODES[one.mode], metric=metric, **more)


def _assign(client: Client, side: Side, name: str, leg: Leg, *, closed: bool) -> None:
    request = shipment_pb2.AssignTagRequest(
        shipment_id=side.shipments[leg.shipment], tag_id=side.tags[name], from_time=stamp(leg.from_us),
        until_time=stamp(leg.until_us) if closed else None, actor="test",
    )  # fmt: skip
    client.shipments.AssignTag(request, timeout=PATIENCE_S)


def _release(client: Client, side: Side, name: str, leg: Leg) -> None:
    request = shipment_pb2.ReleaseTagRequest(
        shipment_id=side.shipments[leg.shipment], tag_id=side.tags[name], until_time=stamp(leg.until_us), actor="test"
    )
    client.shipments.ReleaseTag(request, timeout=PATIENCE_S)


def _send(client: Client, rows: Sequence[telemetry_pb2.Reading], told: Told) -> None:
    answer = client.send_rows(rows)
    assert (answer.accepted + answer.duplicate, answer.conflicting, answer.refused) == (len(rows), 0, 0)
    told.messages += 1
    told.accepted += answer.accepted
    told.duplicate += answer.duplicate


Act = Callable[[], None] | telemetry_pb2.Reading
"""A call, or a reading that waits for its message."""
Moment = tuple[float, int, int]
"""How far the journey has come (0 to 1, and more when it is over), which goes first of what comes together, and a number."""


def _when(party: Party, at_us: int) -> float:
    """A time as a share of the whole, so that journeys of different years are told side by side."""
    first_us = min(readings[0].at_us for readings in party.tags.values())
    last_us = max(readings[-1].at_us for readings in party.tags.values())
    return (at_us - first_us) / (last_us - first_us)


def tell_in_order(client: Client, sides: Sequence[Side], most: int = 500) -> Told:
    """Everything once and when it happens: a tag is assigned, its readings of that time follow, it is released."""
    acts: list[tuple[Moment, Act]] = []
    for side in sides:
        for name, readings in side.party.tags.items():
            for leg in side.party.legs:
                for first, at_us, call in ((0, leg.until_us, _release), (1, leg.from_us, _assign)):
                    more = {} if first == 0 else {"closed": False}
                    acts.append(((_when(side.party, at_us), first, len(acts)), _later(call, client, side, name, leg, **more)))
            for one in readings:
                acts.append(((_when(side.party, one.at_us), 2, len(acts)), one.of(side.tags[name])))
    told, rows = Told(), []
    for _, act in sorted(acts, key=lambda one: one[0]):
        if isinstance(act, telemetry_pb2.Reading):
            rows.append(act)
        if rows and (len(rows) == most or not isinstance(act, telemetry_pb2.Reading)):
            _send(client, rows, told)
            rows = []
        if not isinstance(act, telemetry_pb2.Reading):
            act()
    if rows:
        _send(client, rows, told)
    return told


def _later(call: Callable[..., None], *arguments: Any, **more: Any) -> Callable[[], None]:
    return lambda: call(*arguments, **more)


def tell_in_disorder(client: Client, sides: Sequence[Side], seed: int, most: int = 700) -> Told:
    """Shuffled, every message twice, and much of it only when its custody is over and the next one has begun, on another shipment.

    Where custody is late too, it is told when the next one is well under way, as a whole; that of every second tag only when all is over,
    the last custody first.
    """
    chance = random.Random(seed)
    told = Told()
    acts: list[tuple[Moment, Act]] = []
    for side in sides:
        for number, (name, readings) in enumerate(side.party.tags.items()):
            acts.extend(_custodies_in_disorder(client, side, name, number, len(acts)))
            for one, when in zip(readings, _arrivals(side.party, readings, chance), strict=True):
                acts.append(((when, 2, len(acts)), one.of(side.tags[name])))
                leg = next((k for k, leg in enumerate(side.party.legs[:-1]) if leg.from_us <= one.at_us < leg.until_us), None)
                told.crossed += leg is not None and when >= _when(side.party, side.party.legs[leg + 1].from_us)
    rows: list[telemetry_pb2.Reading] = []
    again: list[tuple[int, list[telemetry_pb2.Reading]]] = []
    size = chance.randint(1, most)
    for _, act in sorted(acts, key=lambda one: one[0]):
        if not isinstance(act, telemetry_pb2.Reading):
            act()
            continue
        rows.append(act)
        if len(rows) >= size:
            chance.shuffle(rows)
            _send(client, rows, told)
            again.append((told.messages + chance.randint(0, 20), rows))
            due = [message for after, message in again if after <= told.messages]
            again = [(after, message) for after, message in again if after > told.messages]
            for message in due:
                _send(client, message, told)
            rows, size = [], chance.randint(1, most)
    for message in [rows, *(message for _, message in again), rows]:
        _send(client, message, told)
    return told


def _custodies_in_disorder(client: Client, side: Side, name: str, number: int, start: int) -> list[tuple[Moment, Act]]:
    legs, party = side.party.legs, side.party
    found: list[tuple[Moment, Act]] = []
    for k, leg in enumerate(legs):
        if not party.late_custody:
            for first, at_us, call in ((0, leg.until_us, _release), (1, leg.from_us, _assign)):
                more = {} if first == 0 else {"closed": False}
                found.append(((_when(party, at_us), first, start + k), _later(call, client, side, name, leg, **more)))
            continue
        when = 2.0 - k / 10
        if number % 2 == 0 and k + 1 < len(legs):
            when = _when(party, (legs[k + 1].from_us + legs[k + 1].until_us) // 2)
        found.append(((when, 1, start + k), _later(_assign, client, side, name, leg, closed=True)))
    return found


def _arrivals(party: Party, readings: Sequence[Sensed], chance: random.Random) -> list[float]:
    """When each reading of a tag arrives: what waited for a network, in the course of the next custody, or when the last is over."""
    held = [chance.random() < HELD_SHARE for _ in range(FRACTIONS + 1)]
    after = [_when(party, leg.from_us) for leg in party.legs]
    until = [_when(party, leg.until_us) for leg in party.legs]
    found = []
    for one in readings:
        sensed = _when(party, one.at_us)
        if held[int(sensed * FRACTIONS)] or chance.random() < LATE_SHARE:
            following = next((k for k, begins in enumerate(after) if begins > sensed), None)
            low, high = (1.0, 1.3) if following is None else (after[following], until[following])
            found.append(chance.uniform(low, high))
        else:
            found.append(sensed + chance.uniform(0, 0.5 / FRACTIONS))
    return found


# ---------------------------------------------------------------- asking


@dataclass
class Found:
    """What a client gets to know of one side, in names that both sides share."""

    excursions: dict[Facts, Facts] = field(default_factory=dict)
    """(shipment, tag, limit, start): (triggered, ended, in violation, uncovered, readings, extreme, its time, mean)."""
    rules: dict[Facts, Facts] = field(default_factory=dict)
    """By the same: how it stands, and by which rule."""
    sums: dict[Facts, Facts] = field(default_factory=dict)
    """(shipment, tag, limit): (in violation, covered, uncovered, readings, excursions, extreme, its time)."""
    mkt: dict[Facts, Facts] = field(default_factory=dict)
    """By the same: (mkt, start of its window, covered, whether it is a full window)."""
    carriers: list[Facts] = field(default_factory=list)
    """Per shipment what is said of it as a whole."""
    visits: list[Facts] = field(default_factory=list)
    """(shipment, kind, tag or none, entered, left, where)."""
    twins: dict[str, Facts] = field(default_factory=dict)
    """Per tag: counters and newest values."""
    late: int = 0
    """Accepted readings that were older than the newest known."""
    revised: int = 0
    """Revisions after the first, those of retracted excursions too."""
    causes: Counter[str] = field(default_factory=Counter)
    """All revisions by what made them, and under RETRACTED those that take back. How it came to know is all in which twins may differ."""


def _us(message: Message, name: str) -> int | None:
    at: Timestamp = getattr(message, name)
    return at.ToMicroseconds() if message.HasField(name) else None


def found(client: Client, side: Side) -> Found:
    """Everything the API says of a side."""
    names = {tag_id: name for name, tag_id in side.tags.items()} | {"": ""}
    known = Found()
    for number, shipment_id in enumerate(side.shipments):
        for one in client.excursions(shipment_id, all_of_them=True):
            known.revised += one.revision - 1
            known.causes.update(cause_of(each) for each in [*one.revisions, one])
            known.causes["RETRACTED"] += one.state == exposure_pb2.EXCURSION_STATE_RETRACTED
        for one in client.excursions(shipment_id):
            key = (number, names[one.tag_id], one.limit_id, _us(one, "started_time"))
            assert key not in known.excursions, f"told twice: {key}"
            known.excursions[key] = (
                _us(one, "triggered_time"), _us(one, "ended_time"), one.violation_us, one.uncovered_us, one.readings, one.extreme,
                _us(one, "extreme_time"), one.mean,
            )  # fmt: skip
            known.rules[key] = (
                one.state, one.handling_unit_id, one.profile_id, one.profile_version, one.metric, one.direction, one.threshold, one.mode,
                one.severity,
            )  # fmt: skip
        _see_exposure(known, number, client.exposure(shipment_id), names)
        track = client.shipments.GetTrack(shipment_pb2.GetTrackRequest(shipment_id=shipment_id), timeout=PATIENCE_S)
        for visit in track.visits:
            where = (visit.location.latitude_deg, visit.location.longitude_deg) if visit.HasField("location") else None
            kind = common_pb2.VisitKind.Name(visit.kind).removeprefix("VISIT_KIND_")
            known.visits.append((number, kind, names[visit.tag_id], _us(visit, "entered_time"), _us(visit, "left_time"), where))
    known.visits.sort(key=repr)
    for name, tag_id in side.tags.items():
        twin = client.twin(tag_id)
        values = [(one.metric, one.value, _us(one, "sensed_time"), one.flag) for one in twin.last_values]
        counters = twin.counters
        counted = (counters.accepted, counters.conflicting, counters.fail, counters.suspect, counters.future)
        known.twins[name] = (*counted, twin.carrier, _us(twin, "last_sensed_time"), sorted(values))
        known.late += counters.late
    return known


def _see_exposure(known: Found, number: int, exposure: exposure_pb2.CarrierExposure, names: dict[str, str]) -> None:
    complete = sorted(
        (names[one.tag_id], one.boot, one.first_sequence, one.last_sequence, one.expected, one.received, one.missing,
         [(part.first, part.last) for part in one.missing_ranges])
        for one in exposure.completeness
    )  # fmt: skip
    known.carriers.append(
        (exposure.verdict, exposure.worst_severity, exposure.closed, exposure.excursions, _us(exposure, "judged_until_time"), complete)
    )
    for row in exposure.limits:
        known.carriers.append(
            (number, row.limit.SerializeToString(deterministic=True), row.violation_us, row.covered_us, row.uncovered_us, row.readings,
             row.excursions, row.extreme, _us(row, "extreme_time"), row.mkt.SerializeToString(deterministic=True))
        )  # fmt: skip
        for one in row.tags:
            key = (number, names[one.tag_id], row.limit.limit_id)
            extreme = one.extreme if one.HasField("extreme") else None
            known.sums[key] = (
                one.violation_us, one.covered_us, one.uncovered_us, one.readings, one.excursions, extreme, _us(one, "extreme_time"),
            )  # fmt: skip
            if one.HasField("mkt"):
                known.mkt[key] = (one.mkt.mkt_c, _us(one.mkt, "window_start_time"), one.mkt.covered_us, one.mkt.full_window)
