"""The verdict: the journal and what was decided from it, held against the gateways' own log and the slow reference.

What the product itself is used for: its tables and the codec of its journal's blobs are read, and its doors are asked for what is in no
table: counters and flags. Nothing of it judges. The reference's side is in expected.py.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
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
from actors.rules.readings import LATITUDE, LONGITUDE
from tests.faults.answers import Counts, counters_of, flags_of
from tests.faults.expected import Facts, Judged, expected
from tests.faults.gateway import ACK
from tests.faults.parallel import on_all_cores
from tests.faults.world import CONFLICT, COPY, MINUTE_US, NEW, START_US, World

ACCEPTED = 1
I8 = npt.NDArray[np.int64]
F8 = npt.NDArray[np.float64]
EXAMPLES = 5
CONFLICT_OF = 1.0
"""By how much the temperature of a contradicting reading differs."""


@dataclass
class Verdict:
    """What was found. What is lost, doubled, foreign, differing, missed or superseded must be 0, and `problems` empty."""

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
    visits: int = 0
    differing_visits: int = 0
    conflicts: int = 0
    differing_conflicts: int = 0
    differing_counters: int = 0
    flags: int = 0
    differing_flags: int = 0
    alerts_missed: int = 0
    alerts_twice: int = 0
    superseded_writes: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether every promise was kept."""
        broken = self.lost + self.doubled + self.foreign + self.differing_excursions + self.differing_sums
        broken += self.differing_visits + self.differing_conflicts + self.differing_counters + self.differing_flags
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
    contradicted: dict[int, bool]
    """Readings (key) that were contradicted, and whether that was acknowledged."""
    copied: Counter[int]
    """Copies that were acknowledged, by tag."""


@dataclass
class Found:
    """What the journal holds, sorted by key (tag, minute)."""

    key: I8
    temperature_c: F8
    counts: Counts
    """By tag: accepted, duplicate, conflicting."""
    conflicting: Counter[tuple[int, int]]
    """Conflicting readings that each entry (shard, sequence) counted."""


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
        found = journal(engine, world, verdict, list(takeovers))
        compare_readings(verdict, truth, found.key, found.temperature_c)
        series = one_by_one(world, found.key, found.temperature_c)
        judged = expected(world, stops, series, len(found.key))
        compare_excursions(engine, world, verdict, judged, series)
        compare_visits(engine, verdict, judged)
        compare_conflicts(engine, world, verdict, truth, found)
        compare_counters(verdict, world, told["target"], truth, found)
        compare_flags(verdict, world, told["target"], judged, series)
        verdict.note("answers that should not have come", (folder / "complaints").read_text().splitlines())
        last = folder / "last_event"  # not there where the run was cut short
        compare_events(engine, verdict, np.fromfile(folder / "watched.bin", np.int64), int(last.read_text()) if last.exists() else 0)
    finally:
        engine.dispose()
    return verdict


# ---------------------------------------------------------------- readings


def truth_of(folder: Path, world: World, stops: dict[int, int], verdict: Verdict) -> Truth:
    """The streams' messages made once more, and those of them that the gateways' log has."""
    log = np.fromfile(folder / "acks.bin", np.dtype([("ns", "<i8"), ("rest", "<i4", 6)]))
    assert log.dtype.itemsize == ACK.size
    work = [(world, stream, stops[stream], log["rest"][log["rest"][:, 0] == stream]) for stream in range(world.streams)]
    keys, values, acknowledged = [], [], []
    contradicted: dict[int, bool] = {}
    copied: Counter[int] = Counter()
    for one in on_all_cores(_stream, work, len(log)):
        verdict.messages += one.messages
        verdict.acknowledged += one.readings
        verdict.problems += one.problems
        keys.append(one.key)
        values.append(one.temperature_c)
        acknowledged.append(one.acknowledged)
        contradicted |= one.contradicted
        copied.update(one.copied)
    key = np.concatenate(keys)
    order = np.argsort(key)
    return Truth(key[order], np.concatenate(values)[order], np.concatenate(acknowledged)[order], contradicted, copied)


@dataclass
class Stream:
    """What one stream sent, and what of it was acknowledged."""

    key: I8
    temperature_c: F8
    acknowledged: npt.NDArray[np.bool_]
    contradicted: dict[int, bool]
    copied: Counter[int]
    messages: int
    readings: int
    problems: list[str]


def _stream(work: tuple[World, int, int, npt.NDArray[np.int32]]) -> Stream:
    world, stream, stop, log = work
    answered = {int(row[1]): row[2:] for row in log}
    keys, values, acknowledged = [np.empty(0, np.int64)], [np.empty(0)], [np.empty(0, np.bool_)]
    contradicted: dict[int, bool] = {}
    copied: Counter[int] = Counter()
    messages = readings = 0
    problems = []
    for said in world.says(stream, lambda number: number < stop):
        counts = answered.get(said.number)
        if counts is not None:
            messages += 1
            readings += len(said.tag)
        key = said.tag.astype(np.int64) << 32 | said.minute
        if said.kind == NEW:
            keys.append(key)
            values.append(said.temperature_c)
            acknowledged.append(np.full(len(said.tag), counts is not None))
        elif said.kind == CONFLICT:
            for one in key.tolist():
                contradicted[one] = contradicted.get(one, False) or counts is not None
            if counts is not None and counts[2] != len(said.tag):
                problems.append(f"message {said.number} of stream {stream} contradicts, and only {counts[2]} were conflicts")
        elif said.kind == COPY and counts is not None and counts[1] == len(said.tag):
            copied.update(said.tag.tolist())
    return Stream(
        np.concatenate(keys), np.concatenate(values), np.concatenate(acknowledged), contradicted, copied, messages, readings, problems
    )


def journal(engine: Engine, world: World, verdict: Verdict, takeovers: list[Takeover]) -> Found:
    """Every accepted reading of the journal, in order of key; its chain of entries is checked on the way."""
    number_of = {world.tag_id(tag): tag for tag in range(world.tags)}
    keys, values = [np.empty(0, np.int64)], [np.empty(0)]
    counts = np.zeros((world.tags, 3), np.int64)
    conflicting: Counter[tuple[int, int]] = Counter()
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
                wrong |= misplaced(world, batch, kept, tag, minute)
                verdict.foreign += int(wrong.sum())
                keys.append((tag << 32 | minute)[~wrong])
                values.append(batch.values[batch.codes.index(0)][kept][~wrong])
                np.add.at(counts[:, 0], tag[~wrong], 1)
                for column, name in ((1, "duplicate"), (2, "conflicting")):
                    locals_, many = entry.extra.get(name, ((), ()))
                    np.add.at(counts[:, column], mine[list(locals_)], list(many))
                    conflicting[shard, sequence] += sum(many) if column == 2 else 0
            with engine.connect() as later:  # not the connection that sees what was there when it began
                latest = later.execute(text("SELECT journal_head FROM shard_owner WHERE shard = :shard"), {"shard": shard}).scalar_one()
            if not head <= before <= latest:  # the clock goes on while it is judged, and its ticks are entries
                verdict.problems.append(
                    f"shard {shard}: the journal ends at {before}, its owner's head was {head} before and {latest} after"
                )
    key, value = np.concatenate(keys), np.concatenate(values)
    order = np.argsort(key, kind="stable")
    return Found(key[order], value[order], counts, conflicting)


def misplaced(world: World, batch: Any, kept: npt.NDArray[np.bool_], tag: I8, minute: I8) -> npt.NDArray[np.bool_]:
    """Which of the kept readings are not where their tag was."""
    wrong = np.zeros(len(tag), np.bool_)
    where = np.flatnonzero(world.positional(tag) & (tag >= 0))
    fixes = world.positions(tag[where].astype(np.int32), minute[where].astype(np.int32))
    for code, truth in zip((LATITUDE, LONGITUDE), fixes, strict=True):
        if code in batch.codes:
            found = batch.values[batch.codes.index(code)][kept]
            wrong[where] |= found[where] != truth
            elsewhere = np.ones(len(tag), np.bool_)
            elsewhere[where] = False
            wrong |= elsewhere & ~np.isnan(found)
        else:
            wrong[where] = True
    return wrong


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


# ---------------------------------------------------------------- excursions and visits


def compare_excursions(
    engine: Engine,
    world: World,
    verdict: Verdict,
    judged: list[Judged],
    series: dict[int, tuple[I8, F8]],
) -> None:
    """The excursions that stand, their revisions, the sums of each custody, and the alerts, against the reference."""
    excursions: dict[Facts, Facts] = {}
    sums: dict[Facts, Facts] = {}
    unheard: set[Facts] = set()
    for one in judged:
        excursions.update(one.excursions)
        sums.update(one.sums)
        unheard |= one.unheard
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
            stated[key] = (*(rounded(row[name]) for name in named), rounded(row["mean"]))
        kept = Counter(
            {
                row[0]: row[1]
                for row in connection.execute(text("SELECT excursion_id, COUNT(*) FROM excursion_revision GROUP BY excursion_id"))
            }
        )
        named = ("violation_us", "covered_us", "uncovered_us", "readings", "extreme", "extreme_us")
        exposures = {
            (row["tag_id"], row["from_us"], row["limit_id"]): tuple(rounded(row[name]) for name in named)
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
    differing = [key for key in sums if sums[key] != exposures.get(key) and not (key in unheard and key not in exposures)]
    made_up = [key for key, sum_ in exposures.items() if key not in sums and any(sum_)]
    verdict.differing_sums = len(differing) + len(made_up)
    verdict.note("sums, expected, stated", ((key, sums[key], exposures.get(key)) for key in differing))
    verdict.note("sums of what was never there", ((key, exposures[key]) for key in made_up))
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


def rounded(value: Any) -> Any:
    """Sums of floats may differ in their last digits."""
    return round(value, 6) if isinstance(value, float) else value


def compare_visits(engine: Engine, verdict: Verdict, judged: list[Judged]) -> None:
    """The stays in the fence, and the drives through it, that stand."""
    should = Counter(visit for one in judged for visit in one.visits)
    with engine.connect() as connection:
        query = "SELECT tag_id, carrier, kind, entered_us, exited_us FROM visit WHERE state <> 'RETRACTED' AND kind IN ('VISIT', 'PASSED')"
        stated = Counter(tuple(row) for row in connection.execute(text(query)))
    verdict.visits = sum(stated.values())
    differing = [visit for visit in should.keys() | stated.keys() if should[visit] != stated[visit]]
    verdict.differing_visits = len(differing)
    verdict.note("visit, expected, stated", ((visit, should[visit], stated[visit]) for visit in differing))


# ---------------------------------------------------------------- conflicts, counters, flags


def compare_conflicts(engine: Engine, world: World, verdict: Verdict, truth: Truth, found: Found) -> None:
    """Every acknowledged contradiction is kept aside with its content; nothing else is; each entry's count is that of its rows."""
    number_of = {world.tag_id(tag): tag for tag in range(world.tags)}
    temperature = dict(zip(truth.key.tolist(), truth.temperature_c.tolist(), strict=True))
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT shard, sequence, tag_id, sensed_us, content FROM conflict")).all()
    kept: set[int] = set()
    wrong = []
    of_entry: Counter[tuple[int, int]] = Counter()
    for shard, sequence, tag_id, sensed_us, content in rows:
        tag = number_of.get(tag_id, -1)
        minute, rest = divmod(sensed_us - START_US - tag * 1_000, MINUTE_US)
        key = tag << 32 | minute
        value = (json.loads(content) if isinstance(content, str) else content).get("temperature_c")
        if rest or key not in truth.contradicted or value != temperature.get(key, np.nan) + CONFLICT_OF:
            wrong.append((tag_id, sensed_us, value))
        kept.add(key)
        of_entry[shard, sequence] += 1
    missing = [key for key, acknowledged in truth.contradicted.items() if acknowledged and key not in kept]
    uneven = [entry for entry in of_entry.keys() | found.conflicting.keys() if of_entry[entry] != found.conflicting[entry]]
    verdict.conflicts = len(kept)
    verdict.differing_conflicts = len(wrong) + len(missing) + len(uneven)
    verdict.note("conflicts that were never sent", wrong)
    verdict.note("conflicts that were not kept (tag, minute)", (divmod(key, 1 << 32) for key in missing))
    verdict.note("entries (shard, sequence) whose conflicts are not all kept", uneven)


def compare_counters(verdict: Verdict, world: World, target: str, truth: Truth, found: Found) -> None:
    """The counters that the doors tell are those of the journal, and no less than what was acknowledged."""
    told = counters_of(world, target)
    contradicted = Counter(key >> 32 for key, acknowledged in truth.contradicted.items() if acknowledged)
    differing = [tag for tag in range(world.tags) if told[tag].tolist() != found.counts[tag].tolist()]
    few = [tag for tag in range(world.tags) if told[tag][1] < truth.copied[tag] or told[tag][2] < contradicted[tag]]
    verdict.differing_counters = len(set(differing) | set(few))
    verdict.note("tag, accepted, duplicate and conflicting by the journal, as told", (
        (tag, found.counts[tag].tolist(), told[tag].tolist()) for tag in differing
    ))  # fmt: skip
    verdict.note("tag with fewer copies or conflicts than were acknowledged", few)


def compare_flags(verdict: Verdict, world: World, target: str, judged: list[Judged], series: dict[int, tuple[I8, F8]]) -> None:
    """The flags of tags with quality settings, as the doors tell them, against the reference's."""
    for tag in filter(world.checked, range(world.tags)):
        sensed_us, flags = flags_of(world.tag_id(tag), target)
        should = np.array(judged[tag].flags, np.uint8)
        verdict.flags += len(should)
        times = START_US + series[tag][0] * MINUTE_US + tag * 1_000
        if not np.array_equal(times, sensed_us):
            verdict.differing_flags += 1
            verdict.note("series as told is not the journal's, of tag", [tag])
            continue
        wrong = np.flatnonzero(flags != should)
        verdict.differing_flags += len(wrong)
        verdict.note("(tag, minute), expected flag, told", (
            ((tag, int(series[tag][0][k])), int(should[k]), int(flags[k])) for k in wrong
        ))  # fmt: skip


# ---------------------------------------------------------------- events


def compare_events(engine: Engine, verdict: Verdict, seen: I8, last: int) -> None:
    """Numbers without a gap; every revision and every change of an alert is an event; the subscriber saw each alert event once, up to
    event `last`, which it was told to wait for.
    """
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
    due = alerts[alerts <= max(last, seen[-1] if len(seen) else 0)]
    missed = np.setdiff1d(due, seen)
    verdict.alerts_missed = len(missed) + len(np.setdiff1d(seen, alerts))
    verdict.note("alert events that the subscriber missed", missed.tolist())
