"""The profiles that ship are the handbook's table, and a user's own are checked field by field."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from actors.rules.errors import InvalidArgument
from actors.rules.profiles import Limit, MktSettings, Profile, shipped, validate, with_allowance

HOUR = 3600
T, H = "temperature_c", "relative_humidity_pct"
AT_ONCE, COUNTED = 0, None
# (metric, direction, inclusive, threshold, mode, allowance in seconds)
TABLE: dict[str, list[tuple[str, str, bool, float, str, int | None]]] = {
    "who-type-1": [
        (T, "above", True, 45, "single", HOUR),
        (T, "above", True, 30, "cumulative", 10 * HOUR),
        (T, "below", True, -0.5, "single", HOUR),
    ],
    "who-type-2": [
        (T, "above", True, 45, "single", HOUR),
        (T, "above", True, 30, "cumulative", 10 * HOUR),
        (T, "above", True, 10, "cumulative", 20 * HOUR),
    ],
    "who-refrigerator": [(T, "above", True, 8, "single", 10 * HOUR), (T, "below", True, -0.5, "single", HOUR)],
    "usp-crt": [
        (T, "above", False, 25, "mkt", AT_ONCE),
        (T, "below", False, 15, "single", AT_ONCE),
        (T, "above", False, 30, "single", 24 * HOUR),
        (T, "above", False, 40, "single", AT_ONCE),
        (T, "above", False, 25, "single", COUNTED),
        (T, "below", False, 20, "single", COUNTED),
    ],
    "usp-cold": [
        (T, "above", False, 8, "mkt", AT_ONCE),
        (T, "below", False, 2, "single", AT_ONCE),
        (T, "above", False, 8, "single", 24 * HOUR),
        (T, "above", False, 15, "single", AT_ONCE),
    ],
    "cool": [(T, "below", False, 8, "single", AT_ONCE), (T, "above", False, 15, "single", AT_ONCE)],
    "freezer": [(T, "below", False, -25, "single", AT_ONCE), (T, "above", False, -10, "single", AT_ONCE)],
    "ultra-cold": [(T, "below", False, -90, "single", AT_ONCE), (T, "above", False, -60, "single", AT_ONCE)],
    "eu-quick-frozen": [(T, "above", False, -18, "single", HOUR // 2), (T, "above", False, -15, "single", AT_ONCE)],
    "fda-cold-holding": [(T, "above", False, 5, "single", 6 * HOUR)],
    "banana-sea": [
        (T, "below", False, 13, "single", AT_ONCE),
        (T, "above", False, 15, "single", AT_ONCE),
        (H, "below", False, 85, "single", AT_ONCE),
        (H, "above", False, 95, "single", AT_ONCE),
        ("o2_pct", "below", False, 1, "single", AT_ONCE),
        ("co2_pct", "above", False, 7, "single", AT_ONCE),
    ],
}


def test_the_shipped_profiles_are_the_handbooks() -> None:
    assert set(shipped()) == set(TABLE)


@pytest.mark.parametrize("profile_id", TABLE)
def test_a_shipped_profile_has_the_handbooks_limits_and_names_its_source(profile_id: str) -> None:
    profile = shipped()[profile_id]
    found = [
        (x.metric, x.direction, x.inclusive, x.threshold, x.mode, x.allowance_us if x.allowance_us is None else x.allowance_us // 1_000_000)
        for x in profile.limits
    ]
    assert found == TABLE[profile_id]
    assert profile.source
    assert profile.edition
    assert profile.max_gap_us == 60 * 60_000_000
    assert all(limit.name for limit in profile.limits)


def test_the_special_clauses_of_the_table() -> None:
    fda = shipped()["fda-cold-holding"].limits[0]
    assert (fda.beyond, fda.beyond_allowance_us) == (21.0, 4 * HOUR * 1_000_000)
    assert [limit.stages for limit in shipped()["eu-quick-frozen"].limits] == [("IN_TRANSIT",), ()]
    assert shipped()["usp-crt"].limits[0].window_us == 30 * 86_400 * 1_000_000
    assert shipped()["usp-cold"].limits[0].window_us == 86_400 * 1_000_000
    assert all(limit.severity == "INFO" for limit in shipped()["usp-crt"].limits if limit.allowance_us is None)


def test_mkt_is_not_offered_for_frozen_goods() -> None:
    for profile in shipped().values():
        if max(limit.threshold for limit in profile.limits if limit.metric == T) <= 0:
            assert profile.mkt is None


def test_the_user_chooses_the_allowance_of_a_range_and_of_no_other() -> None:
    own = with_allowance(shipped()["cool"], 600_000_000, "my-cool")
    assert [limit.allowance_us for limit in own.limits] == [600_000_000] * 2
    assert own.profile_id == "my-cool"
    with pytest.raises(InvalidArgument, match="fixed by its source"):
        with_allowance(shipped()["usp-cold"], 600_000_000)
    with pytest.raises(InvalidArgument) as error:
        with_allowance(shipped()["cool"], -1)
    assert error.value.field == "limits[0].allowance"


@pytest.mark.parametrize("profile_id", TABLE)
def test_a_profile_survives_json(profile_id: str) -> None:
    profile = shipped()[profile_id]
    assert Profile.from_data(json.loads(json.dumps(profile.to_data()))) == profile


GOOD = Limit("warm", T, "above", 8.0)
MKT = Limit("mkt", T, "above", 8.0, mode="mkt", window_us=10)
SECOND = Limit("fda", T, "above", 5.0, allowance_us=60, beyond=21.0, beyond_allowance_us=40)


@pytest.mark.parametrize(
    "limit", [GOOD, MKT, SECOND, dataclasses.replace(GOOD, clear=0.0, threshold=0.5), dataclasses.replace(GOOD, threshold=0.0)]
)
def test_sound_limits_are_taken_zero_degrees_included(limit: Limit) -> None:
    validate(Profile("p", 1, "P", (limit,)))


@pytest.mark.parametrize(
    ("limit", "change", "field", "rule"),
    [
        (GOOD, {"limit_id": ""}, "limit_id", "1 to 64"),
        (GOOD, {"limit_id": "Warm One"}, "limit_id", "1 to 64"),
        (GOOD, {"metric": "warmth"}, "metric", "must be one of temperature_c"),
        (GOOD, {"metric": "latitude_deg"}, "metric", "must be one of temperature_c"),
        (GOOD, {"direction": "over"}, "direction", "above or below"),
        (GOOD, {"mode": "once"}, "mode", "single, cumulative, mkt"),
        (GOOD, {"severity": "BAD"}, "severity", "INFO, WARNING, CRITICAL"),
        (GOOD, {"stages": ("FLYING",)}, "stages", "IN_TRANSIT"),
        (GOOD, {"stages": ("STORED", "STORED")}, "stages", "once"),
        (GOOD, {"threshold": float("nan")}, "threshold", "finite"),
        (GOOD, {"threshold": 200.5}, "threshold", "from -200 to 200"),
        (GOOD, {"clear": 8.0}, "clear", "below the threshold 8"),
        (GOOD, {"clear": 9.0}, "clear", "below the threshold 8"),
        (GOOD, {"direction": "below", "clear": 7.0}, "clear", "above the threshold 8"),
        (GOOD, {"clear": float("inf")}, "clear", "finite"),
        (GOOD, {"allowance_us": -1}, "allowance", "0 to 100 years"),
        (GOOD, {"allowance_us": 2**62}, "allowance", "0 to 100 years"),
        (GOOD, {"window_us": 5}, "window", "only a limit of mode mkt"),
        (SECOND, {"beyond": 5.0}, "beyond", "above the threshold 5"),
        (SECOND, {"direction": "below"}, "beyond", "below the threshold 5"),
        (SECOND, {"beyond": None}, "beyond_allowance", "both or neither"),
        (SECOND, {"beyond_allowance_us": None}, "beyond", "both or neither"),
        (SECOND, {"beyond_allowance_us": 60}, "beyond_allowance", "shorter than the allowance 60"),
        (SECOND, {"allowance_us": None}, "beyond_allowance", "shorter"),
        (SECOND, {"mode": "cumulative"}, "beyond", "mode single"),
        (MKT, {"window_us": None}, "window", "needs a window"),
        (MKT, {"window_us": 0}, "window", "needs a window"),
        (MKT, {"metric": H}, "metric", "temperature_c only"),
        (MKT, {"direction": "below"}, "direction", "above only"),
        (MKT, {"threshold": -18.0}, "threshold", "frozen"),
    ],
)
def test_a_wrong_limit_is_refused_with_field_and_rule(limit: Limit, change: dict[str, Any], field: str, rule: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        validate(Profile("p", 1, "P", (Limit("other", T, "above", 99.0), dataclasses.replace(limit, **change))))
    assert error.value.field == f"limits[1].{field}"
    assert rule in error.value.rule


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"profile_id": "My Profile"}, "profile_id"),
        ({"version": 0}, "version"),
        ({"name": ""}, "name"),
        ({"limits": ()}, "limits"),
        ({"limits": (GOOD,) * 65}, "limits"),
        ({"limits": (GOOD, GOOD)}, "limits[1].limit_id"),
        ({"max_gap_us": 0}, "max_gap"),
        ({"ignore_us": -1}, "ignore"),
        ({"mkt": MktSettings(0)}, "mkt.window"),
        ({"mkt": MktSettings(5, "guess")}, "mkt.weights"),
    ],
)
def test_a_wrong_profile_is_refused_with_its_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        validate(dataclasses.replace(Profile("p", 1, "P", (GOOD,)), **change))
    assert error.value.field == field
