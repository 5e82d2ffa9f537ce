"""A what-if over 1,000 simulated shipments says exactly what the plain reference says of both rules."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from actors.rules.errors import InvalidArgument
from actors.rules.plan import PlannedFence
from actors.rules.profiles import Limit
from cluster.archive.filesystem import Place
from cluster.replay import jobs, result, whatif
from cluster.replay.jobs import Request
from tests.reference import exposure as plain
from tests.reference import geo
from tests.reference import quality as plain_quality
from tests.replay.made import BEGIN_US, DEPOT, MINUTE_US, Journey, profile, simulate, us, write

WARM = Limit("warm", "temperature_c", "above", 8.0, clear=7.0, allowance_us=10 * MINUTE_US, severity="CRITICAL")
COLD = Limit("cold", "temperature_c", "below", 2.0, allowance_us=0)
TOTAL = Limit("total", "temperature_c", "above", 8.0, mode="cumulative", allowance_us=25 * MINUTE_US)
FENCE = PlannedFence("depot", "circle", {"center": list(DEPOT), "radius_m": 1_500.0}, alert_on=("ENTER",))

ASKED = {
    "limits": {
        "warm": {"threshold": 8.5, "clear": None, "allowance_us": 15 * MINUTE_US}, "cold": None, "total": {"allowance_us": 12 * MINUTE_US},
    },
    "max_gap_us": 30 * MINUTE_US,
    "geofences": {"depot": {"kind": "circle", "geometry": {"center": list(DEPOT), "radius_m": 4_000.0}, "alert_on": ["ENTER"]}},
    "quality": {"*": {"metrics": {"temperature_c": {"fail_high": 40.0, "spike_fail": 12.0}}}},
}  # fmt: skip

Fact = tuple[Any, ...]


def truth(journey: Journey, other: bool) -> set[Fact]:
    """What the reference says: (subject, name, started, triggered, ended, violation, uncovered, extreme, readings)."""
    gap_us = (30 if other else 60) * MINUTE_US
    limits = {
        "warm": plain.Limit(8.5 if other else 8.0, clear=None if other else 7.0, allowance_us=(15 if other else 10) * MINUTE_US),
        "total": plain.Limit(8.0, mode=plain.CUMULATIVE, allowance_us=(12 if other else 25) * MINUTE_US),
    }  # fmt: skip
    if not other:
        limits["cold"] = plain.Limit(2.0, direction=-1, allowance_us=0)
    times = [us(one[0]) for one in journey.readings]
    values: list[float] = [one[1] for one in journey.readings]
    if other:
        flags = plain_quality.flags({"fail_high": 40.0, "spike_fail": 12.0}, times, values)
        values = [float("nan") if flag == plain_quality.FAIL else value for flag, value in zip(flags, values, strict=True)]
    until_us = us(journey.minutes)
    found: set[Fact] = set()
    for name, limit in limits.items():
        limit.max_gap_us = gap_us
        judged = plain.judge(list(zip(times, values, strict=True)), [plain.Window(0, 1 << 62, limit)], BEGIN_US, until_us)
        for run in judged.excursions:
            facts = (run.triggered_us, run.end_us, run.run_us, run.uncovered_us, run.extreme, run.readings)
            found.add(("excursion", name, run.start_us, *facts))
    fixes = [(at, one[2], one[3], None) for at, one in zip(times, journey.readings, strict=True) if one[2] is not None]
    fence = {"kind": "circle", "center": DEPOT, "radius": 4_000.0 if other else 1_500.0}
    for event in geo.visits(fixes, fence, from_us=BEGIN_US, until_us=until_us):  # type: ignore[no-untyped-call]
        if event[0] != "ENTER":
            found.add(("visit", "depot", event[1], None, event[2], None, None, None, None))
    return found


def told(row: dict[str, Any], side: str) -> Fact:
    """A difference's facts as `truth` has them."""
    times = [
        None if row[f"{side}_{name}"] is None else round(row[f"{side}_{name}"].timestamp() * 1e6)
        for name in ("started_at", "triggered_at", "ended_at")
    ]
    return (
        row["subject"],
        row["name"],
        *times,
        *(row[f"{side}_{name}"] for name in ("violation_us", "uncovered_us", "extreme", "readings")),
    )


def test_the_differences_of_a_thousand_shipments_are_those_of_the_reference(ray_session: None, tmp_path: Any) -> None:
    rng = random.Random(20)
    journeys = [simulate(rng, number) for number in range(1_000)]
    parts = write(Place.of(tmp_path / "archive"), journeys, profile(60, WARM, COLD, TOTAL), (FENCE,), parts=3)
    made = jobs.run("w", Request(result.WHAT_IF, rules=ASKED), parts, Place.of(tmp_path / "result"))
    _, differences, shipments = result.read(Place.of(tmp_path / "result"))
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in differences.to_pylist():
        rows.setdefault(row["shipment_id"], []).append(row)

    changes: dict[str, int] = {}
    alerts = {"before": 0, "after": 0}
    lots: set[str] = set()
    for journey, shipment in zip(sorted(journeys, key=lambda one: one.shipment_id), shipments.to_pylist(), strict=True):
        before, after = truth(journey, False), truth(journey, True)
        mine = rows.get(journey.shipment_id, [])
        assert {told(row, "before") for row in mine if row["change"] != "appeared"} == before - after, journey.shipment_id
        assert {told(row, "after") for row in mine if row["change"] != "vanished"} == after - before, journey.shipment_id
        for row in mine:
            if row["change"] == "changed":
                assert row["before_started_at"] <= row["after_ended_at"] and row["after_started_at"] <= row["before_ended_at"]  # noqa: PT018
            if row["subject"] == "excursion":
                lots |= set(journey.lots)
        verdicts = []
        for side, facts in (("before", before), ("after", after)):
            excursions = [one for one in facts if one[0] == "excursion"]
            verdicts.append("EXCURSION" if excursions else "WITHIN_LIMITS")
            assert shipment[f"{side}_excursions"] == len(excursions)
            alerts[side] += len({one[:2] for one in facts if one[0] == "excursion" or one[2] != one[4]})
        assert [shipment["before_verdict"], shipment["after_verdict"]] == verdicts
        if verdicts[0] != verdicts[1]:
            key = ">".join(verdicts)
            changes[key] = changes.get(key, 0) + 1

    assert made.counts["shipments"] == 1_000
    assert made.summary["verdict_changes"] == changes
    assert len(changes) == 2, "both ways"
    assert min(made.summary["excursions"].values()) > 20
    assert made.summary["lots_affected"] == sorted(lots)
    days = made.summary["days"]
    assert made.summary["alerts_per_day"] == {side: pytest.approx(number / days, rel=1e-3) for side, number in alerts.items()}
    assert result.digest_of(differences, shipments) == made.digest


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ({"limit": {}}, "limit"),
        ({}, "rules"),
        ({"limits": {}, "ignore_us": None}, "rules"),
        ({"limits": {"warm": {}}}, "limits.warm"),
        ({"limits": {"warm": {"treshold": 1.0}}}, "limits.warm"),
        ({"max_gap_us": 0}, "max_gap_us"),
        ({"geofences": {"a": {"kind": "circle", "geometry": {"center": [91, 0], "radius_m": 5}}}}, "geofences.a.geometry"),
        ({"quality": {"*": {"metrics": {"temperature_c": {"spike_fail": -1}}}}}, "quality.*.quality.metrics.temperature_c.spike_fail"),
        ({"profiles": {"*": {"limits": [{"limit_id": "a", "metric": "heat", "direction": "above", "threshold": 1}]}}}, "profiles.*"),
    ],
)
def test_other_rules_that_break_a_rule_are_refused_by_name(rules: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        whatif.read(json.loads(json.dumps(rules)))
    assert refused.value.field.startswith(field)


@pytest.mark.parametrize(
    ("rules", "field", "known"),
    [
        ({"limits": {"wram": {"threshold": 9.0}, "warm": {"threshold": 9.0}}}, "limits.wram", "cold, warm"),
        ({"limits": {"wram": None}}, "limits.wram", "cold, warm"),
        ({"profiles": {"q": profile(60, TOTAL).to_data()}}, "profiles.q", "p"),
        ({"profiles": {"*": profile(60, TOTAL).to_data()}, "limits": {"warm": None}}, "limits.warm", "total"),
        ({"geofences": {"yard": None}}, "geofences.yard", "depot"),
        ({"quality": {"tag-none": None}}, "quality.tag-none", "tag-of-s-0000, tag-of-s-0001, tag-of-s-0002"),
    ],
)
def test_a_name_that_nothing_has_is_refused_before_anything_is_judged(
    tmp_path: Path, rules: dict[str, Any], field: str, known: str
) -> None:
    journeys = [simulate(random.Random(number), number) for number in range(3)]
    parts = write(Place.of(tmp_path / "archive"), journeys, profile(60, WARM, COLD), (FENCE,))
    with pytest.raises(InvalidArgument) as refused:
        jobs.run("r", Request(result.WHAT_IF, rules=rules), parts, Place.of(tmp_path / "r"))
    assert (refused.value.field, refused.value.value) == (field, field.rpartition(".")[2])
    assert refused.value.rule.endswith(f"they know {known}")
    assert not (tmp_path / "r").exists()


def test_a_profile_that_is_replaced_holds_where_the_old_one_did(ray_session: None, tmp_path: Any) -> None:
    journeys = [simulate(random.Random(1), number) for number in range(20)]
    parts = write(Place.of(tmp_path / "archive"), journeys, profile(60, WARM, COLD), (FENCE,))
    same = {"profiles": {"p": {**profile(60, WARM, COLD).to_data(), "version": 7}}}
    made = jobs.run("a", Request(result.WHAT_IF, rules=same), parts, Place.of(tmp_path / "same"))
    assert made.counts["differences"] == 0, "the same limits under another version"
    other = {"profiles": {"*": profile(60, TOTAL).to_data()}}
    made = jobs.run("b", Request(result.WHAT_IF, rules=other), parts, Place.of(tmp_path / "other"))
    _, differences, _ = result.read(Place.of(tmp_path / "other"))
    assert {(row["name"], row["change"]) for row in differences.to_pylist()} <= {
        ("warm", "vanished"), ("cold", "vanished"), ("total", "appeared"),
    }  # fmt: skip
    assert made.counts["differences"] > 10
