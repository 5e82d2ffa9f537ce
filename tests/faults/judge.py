"""The verdict: the journal and what was decided from it, held against the gateways' own log and the slow reference.

What the product itself is used for: its tables and the codec of its journal's blobs are read. Nothing of it judges.
"""

from __future__ import annotations

import json
import multiprocessing
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine, text
from sqlalchemy.orm import configure_mappers

from actors.journal import segments
from actors.journal.database import reader
from actors.rules import codec
from tests.faults.gateway import ACK
from tests.faults.limits import LIMITS
from tests.faults.world import MINUTE_US, NEW, START_US, World
from tests.reference import exposure as plain

ACCEPTED = 1
I8 = npt.NDArray[np.int64]
F8 = npt.NDArray[np.float64]
EXAMPLES = 5
PARALLEL_FROM = 2_000_000
"""Readings from which on the reference is run on all cores."""


@dataclass
class Verdict:
    """What was found. All counts but the first five and `share_in_excursions` must be 0, and `problems` empty."""

    acknowledged: int = 0
    messages: int = 0
    excursions: int = 0
    events: int = 0
    alert_events_seen: int = 0
    share_in_excursions: float = 0.0
    lost: int = 0
    doubled: int = 0
    foreign: int = 0
    differing_excursions: int = 0
    differing_sums: int = 0
    alerts_missed: int = 0
    alerts_twice: int = 0
    superseded_writes: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether every promise was kept."""
        broken = self.lost + self.doubled + self.foreign + self.differing_excursions + self.differing_sums
        return not (broken or self.alerts_missed or self.alerts_twice or self.superseded_writes or self.problems)

    def note(self, what: str, examples: Iterable[Any]) -> None:
        """Keep a few examples for whoever has to find out."""
        shown = [str(example) for _, example in zip(range(EXAMPLES), examples, strict=False)]
        if shown:
            self.problems.append(f"{what}: {'; '.join(shown)}")


@dataclass
class Truth:
    """What the gateways sent, sorted by key (tag, minute), and which of it was acknowledged."""

    key: I8
    temperature_c: F8
    acknowledged: npt.NDArray[np.bool_]


Takeover = tuple[int, int, int]
"""Shard, the new owner's epoch, and the head of the journal that it found."""


def judge(folder: Path, database_url: str, takeovers: Iterable[Takeover] = ()) -> Verdict:
    """Hold everything in the database against the gateways' folder. The system may still run; the gateways have ended."""
    verdict = Verdict()
    told = json.loads((folder / "gateway.json").read_text())
    world = World(**told["world"])
    stops = {int(stream): stop for stream, stop in json.loads((folder / "stopped.json").read_text()).items()}
    truth = truth_of(folder, world, stops, verdict)
    configure_mappers()  # the journal makes records without the constructors that would
    engine = reader(database_url, connections=2)
    try:
        key, temperature_c = journal(engine, world, verdict, list(takeovers))
        compare_readings(verdict, truth, key, temperature_c)
        series = one_by_one(world, key, temperature_c)
        judged = expected(world, stops, series, len(key))
        compare_excursions(engine, world, verdict, judged, series)
        verdict.note("answers that should not have come", (folder / "complaints").read_text().splitlines())
        compare_events(engine, verdict, np.fromfile(folder / "watched.bin", np.int64))
    finally:
        engine.dispose()
    return verdict


# ---------------------------------------------------------------- readings


def truth_of(folder: Path, world: World, stops: dict[int, int], verdict: Verdict) -> Truth:
    """The streams' messages made once more, and those of them that the gateways' log has."""
    log = np.fromfile(folder / "acks.bin", np.dtype([("ns", "<i8"), ("rest", "<i4", 6)]))
    assert log.dtype.itemsize == ACK.size
    answered = {(int(row[0]), int(row[1])): row[2:] for row in log["rest"]}
    keys, values, acknowledged = [], [], []
    for stream in range(world.streams):
        for said in world.says(stream, lambda number, stream=stream: number < stops[stream]):  # type: ignore[misc]
            counts = answered.get((stream, said.number))
            if counts is not None:
                verdict.messages += 1
                verdict.acknowledged += len(said.tag)
            if said.kind == NEW:
                keys.append(said.tag.astype(np.int64) << 32 | said.minute)
                values.append(said.temperature_c)
                acknowledged.append(np.full(len(said.tag), counts is not None))
            elif counts is not None and said.after >= 0 and counts[2] != len(said.tag):
                verdict.problems.append(f"message {said.number} of stream {stream} contradicts, and only {counts[2]} were conflicts")
    key = np.concatenate(keys)
    order = np.argsort(key)
    return Truth(key[order], np.concatenate(values)[order], np.concatenate(acknowledged)[order])


def journal(engine: Engine, world: World, verdict: Verdict, takeovers: list[Takeover]) -> tuple[I8, F8]:
    """Every accepted reading of the journal as (key, temperature), in order of key; its chain of entries is checked on the way."""
    number_of = {world.tag_id(tag): tag for tag in range(world.tags)}
    keys, values = [], []
    with engine.connect().execution_options(yield_per=64) as connection:
        heads = dict(connection.execute(text("SELECT shard, journal_head FROM shard_owner")).all())
        tags: dict[tuple[int, int], int] = {
            (shard, local): number_of.get(name, -1)
            for shard, local, name in connection.execute(text("SELECT shard, local_index, tag_id FROM tag"))
        }
        for shard, head in heads.items():
            mine = np.full(1 + max((local for place, local in tags if place == shard), default=0), -1, np.int64)
            for (place, local), tag in tags.items():
                if place == shard:
                    mine[local] = tag
            before, newest = 0, 0
            for one in segments.entries(engine, shard, 0):  # sorted by tag or not, each held against the checksum it was committed with
                sequence, epoch, kind, blob = one.sequence, one.epoch, one.kind, one.blob
                if sequence != before + 1:
                    verdict.problems.append(f"shard {shard}: entry {sequence} follows {before}")
                fence = max((new for place, new, found in takeovers if place == shard and sequence > found), default=0)
                if epoch < max(newest, fence):
                    verdict.superseded_writes += 1
                before, newest = sequence, max(newest, epoch)
                if kind != "readings":
                    continue
                entry = codec.decode(blob)
                batch = entry.batch
                kept = np.ones(len(batch), np.bool_) if entry.status is None else entry.status == ACCEPTED
                tag = mine[batch.tag[kept]]
                minute, rest = np.divmod(batch.sensed_us[kept] - START_US - tag * 1_000, MINUTE_US)
                sequenced = tag % 2 == 0
                wrong = (tag < 0) | (rest != 0)
                wrong |= sequenced & ((batch.sequence[kept] != minute) | (batch.boot[kept] != 1 + minute // 5_000))
                wrong |= ~sequenced & (batch.sequence[kept] != -1)
                verdict.foreign += int(wrong.sum())
                keys.append((tag << 32 | minute)[~wrong])
                values.append(batch.values[batch.codes.index(0)][kept][~wrong])
            if before != head:
                verdict.problems.append(f"shard {shard}: the journal ends at {before}, its owner's head is {head}")
    if not keys:
        return np.empty(0, np.int64), np.empty(0)
    key, value = np.concatenate(keys), np.concatenate(values)
    order = np.argsort(key, kind="stable")
    return key[order], value[order]


def compare_readings(verdict: Verdict, truth: Truth, key: I8, temperature_c: F8) -> None:
    """Acknowledged: there once, as sent. Sent and not acknowledged: there once or not. Nothing else."""
    doubled = key[1:] == key[:-1]
    verdict.doubled = int(doubled.sum())
    verdict.note("doubled (tag, minute)", (divmod(int(k), 1 << 32) for k in key[1:][doubled]))
    place = np.minimum(np.searchsorted(key, truth.key), max(len(key) - 1, 0))
    there = (key[place] == truth.key) & (temperature_c[place] == truth.temperature_c) if len(key) else np.zeros(len(truth.key), np.bool_)
    lost = truth.acknowledged & ~there
    verdict.lost = int(lost.sum())
    verdict.note("lost (tag, minute)", (divmod(int(k), 1 << 32) for k in truth.key[lost]))
    place = np.minimum(np.searchsorted(truth.key, key), len(truth.key) - 1)
    foreign = (truth.key[place] != key) | (truth.temperature_c[place] != temperature_c)
    verdict.foreign += int(foreign.sum())
    verdict.note("never sent (tag, minute)", (divmod(int(k), 1 << 32) for k in key[foreign]))


def one_by_one(world: World, key: I8, temperature_c: F8) -> dict[int, tuple[I8, F8]]:
    """Each tag's readings, in order, once: (minutes, temperatures)."""
    first = np.ones(len(key), np.bool_)
    first[1:] = key[1:] != key[:-1]
    key, temperature_c = key[first], temperature_c[first]
    ends = np.searchsorted(key, np.arange(world.tags + 1, dtype=np.int64) << 32)
    return {tag: (key[ends[tag] : ends[tag + 1]] & 0xFFFFFFFF, temperature_c[ends[tag] : ends[tag + 1]]) for tag in range(world.tags)}


# ---------------------------------------------------------------- excursions

Facts = tuple[Any, ...]


def expected(
    world: World, stops: dict[int, int], series: dict[int, tuple[I8, F8]], readings: int
) -> list[tuple[dict[Facts, Facts], dict[Facts, Facts]]]:
    """What the slow reference makes of each tag's accepted readings."""
    work = [(world, tag, stops[tag % world.streams], *series[tag]) for tag in range(world.tags)]
    if readings < PARALLEL_FROM:
        return [_judge_tag(one) for one in work]
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(_judge_tag, work, chunksize=4))


def _judge_tag(work: tuple[World, int, int, I8, F8]) -> tuple[dict[Facts, Facts], dict[Facts, Facts]]:
    """Excursions by (tag, carrier, limit, start), and sums by (tag, start of custody, limit)."""
    world, tag, rounds, minutes, temperatures = work
    excursions: dict[Facts, Facts] = {}
    sums: dict[Facts, Facts] = {}
    before: Counter[tuple[int, str]] = Counter()
    tag_id = world.tag_id(tag)
    for ride in world.rides(tag, rounds):
        low, high = np.searchsorted(minutes, [ride.from_minute, ride.until_minute])
        mine = [
            (START_US + int(minute) * MINUTE_US + tag * 1_000, float(value))
            for minute, value in zip(minutes[low:high], temperatures[low:high], strict=True)
        ]
        from_us, until_us = START_US + ride.from_minute * MINUTE_US, START_US + ride.until_minute * MINUTE_US
        carrier = f"shipment/{world.shipment_id(ride.shipment)}"
        for name, limit in LIMITS.items():
            judged = plain.judge(mine, [plain.Window(-(1 << 60), 1 << 60, limit)], from_us, until_us, before[ride.shipment, name])
            for run in judged.excursions:
                facts = (run.triggered_us, run.end_us, run.run_us, run.uncovered_us, run.extreme, run.extreme_us, run.readings)
                excursions[tag_id, carrier, name, run.start_us] = (*facts, round(run.mean, 6))
            if mine:
                violation_us = judged.violation_us - before[ride.shipment, name]
                sums[tag_id, from_us, name] = (violation_us, judged.covered_us, judged.uncovered_us, judged.readings)
            before[ride.shipment, name] = judged.violation_us
    return excursions, sums


def compare_excursions(
    engine: Engine,
    world: World,
    verdict: Verdict,
    judged: list[tuple[dict[Facts, Facts], dict[Facts, Facts]]],
    series: dict[int, tuple[I8, F8]],
) -> None:
    """The excursions that stand, their revisions, the sums of each custody, and the alerts, against the reference."""
    excursions: dict[Facts, Facts] = {}
    sums: dict[Facts, Facts] = {}
    for mine, its in judged:
        excursions.update(mine)
        sums.update(its)
    stated: dict[Facts, Facts] = {}
    revisions: dict[int, int] = {}
    with engine.connect() as connection:
        for row in connection.execute(text("SELECT * FROM excursion")).mappings():
            revisions[row["excursion_id"]] = row["revision"]
            if row["state"] == "RETRACTED":
                continue
            key = (row["tag_id"], row["carrier"], row["limit_id"], row["started_us"])
            if key in stated:
                verdict.differing_excursions += 1
                verdict.note("stated twice", [key])
            named = ("triggered_us", "ended_us", "violation_us", "uncovered_us", "extreme", "extreme_us", "readings")
            stated[key] = (*(row[name] for name in named), round(row["mean"], 6))
        kept = Counter(
            {
                row[0]: row[1]
                for row in connection.execute(text("SELECT excursion_id, COUNT(*) FROM excursion_revision GROUP BY excursion_id"))
            }
        )
        exposures = {
            (row["tag_id"], row["from_us"], row["limit_id"]): (row["violation_us"], row["covered_us"], row["uncovered_us"], row["readings"])
            for row in connection.execute(
                text("SELECT e.*, c.from_us FROM exposure e JOIN custody c ON c.custody_id = e.custody_id WHERE NOT c.retracted")
            ).mappings()
        }
        alerts = connection.execute(
            text(
                "SELECT carrier, limit_id, SUM(excursions) AS stand, SUM(open_excursions) AS open FROM alert"
                " WHERE kind = 'goods' GROUP BY carrier, limit_id"
            )
        ).mappings()
        standing = {(row["carrier"], row["limit_id"]): (row["stand"], row["open"]) for row in alerts if row["stand"]}
    verdict.excursions = len(stated)
    differing = [key for key in excursions.keys() | stated.keys() if excursions.get(key) != stated.get(key)]
    verdict.differing_excursions += len(differing)
    verdict.note("excursion, expected, stated", ((key, excursions.get(key), stated.get(key)) for key in differing))
    wrong = [number for number, revision in revisions.items() if kept[number] != revision]
    verdict.note("excursions whose revisions are not all there", wrong)
    differing = [key for key in sums if sums[key] != exposures.get(key)]
    verdict.differing_sums = len(differing)
    verdict.note("sums, expected, stated", ((key, sums[key], exposures.get(key)) for key in differing))
    should = Counter((carrier, limit) for _, carrier, limit, _ in stated)
    verdict.note("alert, expected excursions, stated", (
        (key, should[key], standing.get(key)) for key in should.keys() | standing.keys() if standing.get(key) != (should[key], 0)
    ))  # fmt: skip
    verdict.share_in_excursions = _share(world, excursions, series)


def _share(world: World, excursions: dict[Facts, Facts], series: dict[int, tuple[I8, F8]]) -> float:
    """How many of the readings lie in at least one excursion."""
    inside = total = 0
    spans: dict[str, list[tuple[int, int]]] = {}
    for (tag_id, _, _, start), facts in excursions.items():
        spans.setdefault(tag_id, []).append((start, facts[1]))
    for tag, (minutes, _) in series.items():
        times = START_US + minutes * MINUTE_US + tag * 1_000
        marked = np.zeros(len(times), np.bool_)
        for start, end in spans.get(world.tag_id(tag), ()):
            marked[np.searchsorted(times, start) : np.searchsorted(times, end)] = True
        inside += int(marked.sum())
        total += len(times)
    return inside / max(total, 1)


# ---------------------------------------------------------------- events


def compare_events(engine: Engine, verdict: Verdict, seen: I8) -> None:
    """Numbers without a gap; every revision and every change of an alert is an event; the subscriber saw each alert event once."""
    with engine.connect() as connection:
        numbers = np.array(connection.execute(text("SELECT number FROM event ORDER BY number")).scalars().all(), np.int64)
        alerts = np.array(
            connection.execute(text("SELECT number FROM event WHERE kind LIKE 'alert.%' ORDER BY number")).scalars().all(), np.int64
        )
        told = connection.execute(text("SELECT COUNT(*) FROM event WHERE kind LIKE 'excursion.%'")).scalar_one()
        revisions = connection.execute(text("SELECT COUNT(*) FROM excursion_revision")).scalar_one()
        changes = connection.execute(text("SELECT COUNT(*) FROM alert_history")).scalar_one()
    verdict.events = len(numbers)
    if not np.array_equal(numbers, np.arange(1, len(numbers) + 1)):
        verdict.note("events are not numbered 1, 2, 3, …; after", (numbers[:-1][np.diff(numbers) != 1]).tolist())
    if told != revisions:
        verdict.problems.append(f"{revisions} revisions of excursions, {told} events tell of them")
    if changes != len(alerts):
        verdict.problems.append(f"{changes} changes of alerts, {len(alerts)} events tell of them")
    verdict.alert_events_seen = len(seen)
    verdict.alerts_twice = len(seen) - len(np.unique(seen))
    if (np.diff(seen) < 0).any():
        verdict.problems.append("the subscriber saw events out of order")
    due = alerts[alerts <= (seen[-1] if len(seen) else 0)]
    missed = np.setdiff1d(due, seen)
    verdict.alerts_missed = len(missed) + len(np.setdiff1d(seen, alerts))
    verdict.note("alert events that the subscriber missed", missed.tolist())
