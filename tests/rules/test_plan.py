"""A plan is all that a carrier asks of its tags, as one value that survives the database."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from actors.rules import exposure
from actors.rules.plan import ENTER, Plan, PlannedFence, PlannedRoute, make_plan
from actors.rules.profiles import Limit, Profile, shipped
from actors.rules.readings import CODE, FOREVER_US

HOT = Limit("hot", "temperature_c", "above", 8.0, allowance_us=60_000_000)
SHOCK = Limit("shock", "shock_g", "above", 5.0, stages=("IN_TRANSIT",))


def a_plan() -> Plan:
    first = Profile("p", 1, "P", (HOT, SHOCK), ignore_us=7, hold_on_excursion=True)
    second = dataclasses.replace(
        first, version=2, limits=(dataclasses.replace(HOT, threshold=9.0), SHOCK), ignore_us=3, hold_on_excursion=False
    )
    return make_plan(
        "shipment/A",
        4,
        [(100, first), (200, second)],
        [(150, "IN_TRANSIT"), (300, "STORED")],
        fences=[PlannedFence("f", "circle", {"latitude_deg": 1.0, "longitude_deg": 2.0, "radius_m": 50.0}, alert_on=(ENTER,), dwell_us=5)],
        route=PlannedRoute(((1.0, 2.0), (3.0, 4.0)), 500.0, 60_000_000),
        handling_units=["106141412345678908"],
    )


@pytest.mark.parametrize("profile_id", sorted(shipped()))
def test_a_plan_of_every_shipped_profile_survives_json(profile_id: str) -> None:
    plan = make_plan("zone/W/1", 1, [(0, shipped()[profile_id])], [(5, "IN_TRANSIT")], state="closed")
    assert Plan.from_json(plan.to_json()) == plan


def test_a_plan_survives_json_with_everything_in_it() -> None:
    plan = a_plan()
    assert Plan.from_json(plan.to_json()) == plan
    assert Plan.from_json(plan.to_json()).to_json() == plan.to_json()


def test_the_profile_version_in_force_decides_ignore_period_and_hold() -> None:
    plan = a_plan()
    assert [plan.ignore_us(at) for at in (50, 100, 199, 200)] == [7, 7, 7, 3]
    assert [plan.hold_on_excursion(at) for at in (50, 100, 200)] == [False, True, False]
    found = plan.profile_at(250)
    assert found is not None
    assert found.version == 2
    assert plan.profile_at(99) is None


def test_the_limit_that_holds_at_a_time_is_found() -> None:
    plan = a_plan()
    thresholds = [limit and limit.threshold for limit in (plan.limit_at("hot", at) for at in (99, 100, 199, 200))]
    assert thresholds == [None, 8.0, 8.0, 9.0]
    assert plan.limit_at("shock", 300) is None
    assert plan.limit_at("unknown", 150) is None


def test_tables_give_each_limit_id_its_windows_and_rows() -> None:
    tables = a_plan().tables()
    assert [(t.limit_id, t.windows_start, t.windows_count, t.metric) for t in tables.tracks] == [
        ("hot", 0, 2, CODE["temperature_c"]),
        ("shock", 2, 1, CODE["shock_g"]),
    ]
    assert tables.windows == [(100, 200, 0), (200, FOREVER_US, 1), (150, 300, 2)]
    assert [row[4] for row in tables.limits] == [8.0, 9.0, 5.0]
    assert tables.limits[0][6] == 60_000_000
    assert np.isnan(tables.limits[0][5])


def test_limit_rows_fit_the_judging_kernels_fields() -> None:
    rows = np.array(a_plan().tables().limits, exposure.LIMIT)
    assert rows["threshold"].tolist() == [8.0, 9.0, 5.0]
    assert rows["direction"].tolist() == [1, 1, 1]
    assert rows["mode"].tolist() == [1, 1, 1]
    assert rows["max_gap_us"].tolist() == [3_600_000_000] * 3
    assert rows["beyond_allowance_us"].tolist() == [-1] * 3


def test_a_limit_id_that_changes_its_metric_gets_a_track_for_each() -> None:
    humid = Profile("p", 2, "P", (dataclasses.replace(HOT, metric="relative_humidity_pct"),))
    plan = make_plan("shipment/A", 1, [(0, Profile("p", 1, "P", (HOT,))), (50, humid), (90, Profile("p", 3, "P", (HOT,)))])
    tables = plan.tables()
    assert [(t.limit_id, t.metric, t.windows_start, t.windows_count) for t in tables.tracks] == [("hot", 0, 0, 2), ("hot", 1, 2, 1)]
    assert tables.windows == [(0, 50, 0), (90, FOREVER_US, 0), (50, 90, 1)]


def test_a_plan_without_profile_judges_nothing() -> None:
    plan = make_plan("shipment/A", 1, [])
    assert plan.tables() == ([], [], [])
    assert plan.ignore_us(5) == 0
    assert Plan.from_json(plan.to_json()) == plan
