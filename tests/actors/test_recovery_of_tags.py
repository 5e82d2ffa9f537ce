"""The tags of a shard are a fold over its journal: whatever happened, whenever a successor begins, it finds the state that was there,
and what is stated in the end is what in-order, once-only arrival states.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.journal.tables import Custody
from actors.rules.errors import DomainError
from actors.rules.plan import PlannedFence, make_plan
from actors.rules.profiles import Limit, Profile
from actors.rules.readings import CODE, MINUTE_US, NO_SEQUENCE, Batch
from actors.tags import queries
from tests.actors.memory import OneShard

START = 1_700_000_000_000_000
CARRIERS = ("shipment/S1", "shipment/S2")
TAGS = ("A", "B")
SPIKES = {"metrics": {"temperature_c": {"spike_suspect": 10.0, "spike_fail": 15.0, "fail_high": 60.0}}}
GROSS = {"metrics": {"temperature_c": {"fail_high": 25.0}}}


def limit(limit_id: str, threshold: float, **more: Any) -> Limit:
    return Limit(limit_id=limit_id, metric="temperature_c", direction="above", threshold=threshold, **more)


def profile(threshold: float, mkt: bool) -> Profile:
    limits = [
        limit("hot", threshold, allowance_us=7 * MINUTE_US),
        limit("held", threshold, clear=threshold - 3, allowance_us=20 * MINUTE_US),
        limit("total", threshold, mode="cumulative", allowance_us=25 * MINUTE_US),
    ]
    if mkt:
        limits.append(limit("mkt", threshold, mode="mkt", window_us=60 * MINUTE_US))
    return Profile(profile_id="p", version=1, name="p", limits=tuple(limits), max_gap_us=40 * MINUTE_US)


FENCES = (PlannedFence("yard", "circle", {"center": [47.0, 8.0], "radius_m": 1000.0}),)


def at(minute: float) -> int:
    return START + round(minute * MINUTE_US)


# ---------------------------------------------------------------- what can happen

minutes = st.one_of(st.integers(0, 150), st.sampled_from([0, 30, 60, 90]))
temperatures = st.sampled_from([2.0, 5.0, 7.5, 8.0, 8.5, 9.0, 9.0, 9.5, 26.0])
places = st.sampled_from([None, None, 47.0, 47.001, 47.2, 46.8])
which = st.integers(0, 1)
some_readings = st.tuples(
    st.just("readings"), st.lists(st.tuples(which, st.integers(0, 150), temperatures, places), min_size=3, max_size=16)
)
assigning = st.tuples(st.just("assign"), which, which, st.sampled_from([0, 10, 40, 70, 100, 125]), st.none())
releasing = st.tuples(st.just("release"), which, st.integers(1, 130))
actions = st.one_of(
    some_readings,
    some_readings,
    some_readings,
    st.tuples(st.just("again"), st.integers(0, 1 << 20)),
    assigning,
    assigning,
    st.tuples(st.just("assign"), which, which, st.integers(0, 60), st.integers(40, 130)),
    releasing,
    releasing,
    st.tuples(st.just("correct"), which, st.integers(0, 9), minutes, st.one_of(st.none(), minutes)),
    st.tuples(st.just("retract"), which, st.integers(0, 9)),
    st.tuples(st.just("plan"), which, st.sampled_from([5.0, 8.0]), st.booleans(), st.one_of(st.none(), minutes)),
    st.tuples(st.just("quality"), which, st.sampled_from([None, SPIKES, GROSS])),
    st.tuples(st.just("later"), st.integers(1, 20)),
    st.tuples(st.just("tick")),
)
days = st.lists(actions, min_size=6, max_size=30)


@dataclasses.dataclass
class World:
    """A shard, a clock, and what was done to it. `sequenced`: the devices count their readings (by the minute)."""

    sequenced: bool
    ring_rows: int
    shard: OneShard
    now_us: int = at(130)
    sent: list[list[tuple[int, int, float, float | None]]] = dataclasses.field(default_factory=list)
    plans: dict[str, Any] = dataclasses.field(default_factory=dict)

    def put_plan(self, carrier: str, profiles: list[tuple[int, Profile]]) -> None:
        before = self.plans.get(carrier)
        plan = make_plan(carrier, before.revision + 1 if before else 1, profiles, fences=FENCES)
        self.plans[carrier] = plan
        self.shard.put_plan(plan)
        if before:
            self.shard.command("plan.changed", self.now_us, carrier=carrier, revision=plan.revision)

    def batch(self, rows: list[tuple[int, int, float, float | None]]) -> Batch:
        nan = float("nan")
        n = len(rows)
        sequence = [minute for _, minute, _, _ in rows] if self.sequenced else [NO_SEQUENCE] * n
        return Batch(
            np.array([tag for tag, _, _, _ in rows], np.int32),
            np.array([at(minute) for _, minute, _, _ in rows], np.int64),
            np.full(n, 3 if self.sequenced else NO_SEQUENCE, np.int64),
            np.array(sequence, np.int64),
            (CODE["temperature_c"], CODE["latitude_deg"], CODE["longitude_deg"]),
            np.array(
                [
                    [value for _, _, value, _ in rows],
                    [nan if place is None else place for _, _, _, place in rows],
                    [nan if place is None else 8.0 for _, _, _, place in rows],
                ]
            ),
        )

    def do(self, action: tuple[Any, ...]) -> None:
        name, *given = action
        with contextlib.suppress(DomainError):  # what is refused leaves no trace, and a successor shows it
            getattr(self, name)(*given)

    def readings(self, rows: list[tuple[int, int, float, float | None]]) -> None:
        self.sent.append(rows)
        self.shard.ingest(list(TAGS), self.batch(rows), self.now_us)

    def again(self, number: int) -> None:
        if self.sent:
            self.shard.ingest(list(TAGS), self.batch(self.sent[number % len(self.sent)]), self.now_us)

    def assign(self, tag: int, carrier: int, from_minute: int, until_minute: int | None) -> None:
        until_us = None if until_minute is None else at(until_minute)
        self.shard.command(
            "tag.assign", self.now_us, tag_id=TAGS[tag], carrier=CARRIERS[carrier], from_us=at(from_minute), until_us=until_us
        )

    def release(self, tag: int, minute: int) -> None:
        self.shard.command("tag.release", self.now_us, tag_id=TAGS[tag], until_us=at(minute))

    def _chosen(self, tag: int, number: int) -> Custody | None:
        known = self.shard.journal.custodies([TAGS[tag]])
        return known[number % len(known)] if known else None

    def correct(self, tag: int, number: int, from_minute: int, until_minute: int | None) -> None:
        row = self._chosen(tag, number)
        if row is not None:
            end = {"reopen": True} if until_minute is None else {"until_us": at(until_minute)}
            self.shard.command(
                "tag.correct_custody", self.now_us, tag_id=TAGS[tag], custody_id=row.custody_id, from_us=at(from_minute), **end
            )

    def retract(self, tag: int, number: int) -> None:
        row = self._chosen(tag, number)
        if row is not None:
            self.shard.command("tag.correct_custody", self.now_us, tag_id=TAGS[tag], custody_id=row.custody_id, retract=True)

    def plan(self, carrier: int, threshold: float, mkt: bool, from_minute: int | None) -> None:
        name = CARRIERS[carrier]
        start = [] if from_minute is None else [(0, profile(8.0, False))]
        self.put_plan(name, [*start, (0 if from_minute is None else at(from_minute), profile(threshold, mkt))])

    def quality(self, tag: int, data: Any) -> None:
        self.shard.command("tag.update", self.now_us, tag_id=TAGS[tag], quality=data)

    def later(self, some_minutes: int) -> None:
        self.now_us += some_minutes * MINUTE_US

    def tick(self) -> None:
        self.shard.tick(self.now_us)


def new_world(sequenced: bool, ring_rows: int) -> World:
    world = World(sequenced, ring_rows, OneShard(ring_rows))
    for name in CARRIERS:
        world.put_plan(name, [(0, profile(8.0, False))])
    for tag_id in TAGS:
        world.shard.command("tag.register", world.now_us, tag_id=tag_id)
    return world


PLACES = ("ring_last", "range_head", "carrier", "unit", "shape", "checkpoint")
"""Where things lie, and from where late readings are judged again, is no part of what they are."""


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """What differs, and where; NaN is equal to NaN."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [line for key in a for line in differences(a[key], b[key], f"{where}/{key}")]
    return [] if repr(a) == repr(b) else [f"{where}: {a!r} is not {b!r}"]


def state(shard: OneShard) -> dict[str, Any]:
    """All that a shard knows, in comparable form."""
    tags, head = shard.tags, shard.tags.head
    found: dict[str, Any] = {"counters": (tags.counter, tags.past_counter), "ids": list(tags.ids)}
    names = [name for name in head.tags.dtype.names if name not in PLACES]
    for tag, tag_id in enumerate(tags.ids):
        rows = head.rows_of(tag)
        found[tag_id] = {
            "row": {name: head.tags[tag][name].item() for name in names},
            "tracks": [row.tolist() for row in rows.tracks],
            "visits": [row.tolist() for row in rows.visits],
            "custody": head.custodies.get(tag),
            "excursions": head.excursions.get(tag, []),
            "stated_visits": head.stated_visits.get(tag, []),
            "held": sorted(tags.held.get(tag, ())),
            "quality": tags.quality.get(tag),
            "twin": queries.twin(tags, {"tag_id": tag_id}),
        }
    return found


@pytest.mark.parametrize("ring_rows", [4096, 24])
@pytest.mark.parametrize("sequenced", [True, False])
@settings(max_examples=80)
@given(data=st.data())
def test_a_successor_finds_the_state_that_was_there(data: Any, sequenced: bool, ring_rows: int) -> None:
    world = new_world(sequenced, ring_rows)
    snapshots: list[tuple[bytes, int]] = []
    for action in data.draw(days):
        world.do(action)
        if data.draw(st.integers(0, 3)) == 0:
            snapshots.append((world.shard.tags.dump(), len(world.shard.journal.entries)))
    here = state(world.shard)
    assert not differences(state(world.shard.restarted()), here), "from the journal alone"
    if snapshots:
        chosen = snapshots[data.draw(st.integers(0, len(snapshots) - 1))]
        assert not differences(state(world.shard.restarted(*chosen)), here), "from a snapshot and the journal after it"


def test_ids_taken_when_a_custody_ends_are_not_given_again_after_a_restart() -> None:
    world = new_world(True, 4096)
    world.assign(0, 0, 0, None)
    world.readings([(0, 0, 9.0, None)])
    world.release(0, 30)
    [excursion_id, *more] = [one.excursion_id for one in world.shard.excursions()]
    world.shard = world.shard.restarted()
    world.assign(0, 1, 30, None)
    world.readings([(0, 40, 9.0, None), (0, 60, 5.0, None)])
    assert len({one.excursion_id for one in world.shard.excursions()} - {excursion_id, *more}) == 2, (
        "those of the second custody are others"
    )


def test_a_silent_tag_that_sent_only_copies_is_not_silent_after_a_restart() -> None:
    world = new_world(True, 4096)
    world.shard.command("tag.update", world.now_us, tag_id="A", usual_interval_us=MINUTE_US)
    world.readings([(0, 0, 5.0, None)])
    world.later(10)
    world.tick()
    assert world.shard.tags.head.tags[0]["silent"] != 0  # 2: it rides nowhere, nobody was told
    world.again(0)
    for shard in (world.shard, world.shard.restarted()):
        assert shard.tags.head.tags[0]["silent"] == 0
        assert shard.tags.head.tags[0]["received_us"] == world.now_us
