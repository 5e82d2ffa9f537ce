"""Where a limit holds: stages × profile versions, and nothing that does not touch a limit splits its runs (handbook 3, Windows)."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from actors.rules.profiles import STAGES, Limit, Profile
from actors.rules.readings import FOREVER_US
from actors.rules.windows import LimitWindow, resolve
from tests.reference import windows as slow

WARM = Limit("warm", "temperature_c", "above", 8.0)
FROZEN_TRANSIT = Limit("frost", "temperature_c", "below", 0.0, stages=("IN_TRANSIT",))


def profile(*limits: Limit, version: int = 1, max_gap_us: int = 3_600_000_000) -> Profile:
    return Profile("p", version, "p", limits, max_gap_us=max_gap_us)


def bounds(windows: dict[str, tuple[LimitWindow, ...]], limit_id: str) -> list[tuple[int, int]]:
    return [(window.from_us, window.until_us) for window in windows[limit_id]]


def test_a_limit_without_stages_holds_always() -> None:
    assert bounds(resolve([(0, profile(WARM))], []), "warm") == [(0, FOREVER_US)]
    assert bounds(resolve([(0, profile(WARM))], [(5, "PACKING"), (9, "STORED")]), "warm") == [(0, FOREVER_US)]


def test_a_gated_limit_holds_only_during_its_stage() -> None:
    timeline = [(10, "PACKING"), (20, "IN_TRANSIT"), (30, "STORED"), (40, "IN_TRANSIT"), (50, "DELIVERED")]
    assert bounds(resolve([(0, profile(FROZEN_TRANSIT))], timeline), "frost") == [(20, 30), (40, 50)]


def test_the_stage_that_lasts_has_no_end_and_one_that_never_came_has_no_window() -> None:
    assert bounds(resolve([(0, profile(FROZEN_TRANSIT))], [(20, "IN_TRANSIT")]), "frost") == [(20, FOREVER_US)]
    assert bounds(resolve([(0, profile(FROZEN_TRANSIT))], [(20, "PACKING")]), "frost") == []


def test_two_stages_of_one_limit_in_a_row_are_one_window() -> None:
    both = dataclasses.replace(FROZEN_TRANSIT, stages=("PACKING", "IN_TRANSIT"))
    assert bounds(resolve([(0, profile(both))], [(10, "PACKING"), (20, "IN_TRANSIT"), (30, "STORED")]), "frost") == [(10, 30)]


def test_a_repeated_milestone_does_not_split_a_window() -> None:
    assert bounds(resolve([(0, profile(FROZEN_TRANSIT))], [(10, "IN_TRANSIT"), (20, "IN_TRANSIT"), (30, "STORED")]), "frost") == [(10, 30)]


def test_a_new_version_splits_only_the_limits_that_it_changes() -> None:
    second = profile(WARM, dataclasses.replace(FROZEN_TRANSIT, threshold=-1.0), version=2)
    windows = resolve([(0, profile(WARM, FROZEN_TRANSIT)), (25, second)], [(20, "IN_TRANSIT"), (30, "STORED")])
    assert bounds(windows, "warm") == [(0, FOREVER_US)]
    assert [(w.from_us, w.until_us, w.limit.threshold) for w in windows["frost"]] == [(20, 25, 0.0), (25, 30, -1.0)]


def test_a_new_name_is_no_new_rule_and_a_new_gap_or_severity_is() -> None:
    renamed = profile(dataclasses.replace(WARM, name="too warm"), version=2)
    graver = profile(dataclasses.replace(WARM, severity="INFO"), version=2)
    assert bounds(resolve([(0, profile(WARM)), (5, renamed)], []), "warm") == [(0, FOREVER_US)]
    assert bounds(resolve([(0, profile(WARM)), (5, graver)], []), "warm") == [(0, 5), (5, FOREVER_US)]
    assert bounds(resolve([(0, profile(WARM)), (5, profile(WARM, max_gap_us=1))], []), "warm") == [(0, 5), (5, FOREVER_US)]


def test_a_limit_that_a_version_leaves_out_ends_there_and_may_come_back() -> None:
    other = profile(dataclasses.replace(WARM, limit_id="hot"), version=2)
    windows = resolve([(0, profile(WARM)), (5, other), (9, profile(WARM, version=3))], [])
    assert bounds(windows, "warm") == [(0, 5), (9, FOREVER_US)]
    assert bounds(windows, "hot") == [(5, 9)]


LIMITS = st.dictionaries(
    st.sampled_from(["a", "b"]),
    st.tuples(st.sampled_from([1.0, 2.0]), st.lists(st.sampled_from(STAGES), unique=True, max_size=2).map(tuple)),
    max_size=2,
)


@given(
    st.lists(st.tuples(st.integers(0, 30), LIMITS), max_size=4),
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from(STAGES)), max_size=6),
)
def test_windows_hold_at_every_moment_what_the_reference_says(
    versions: list[tuple[int, dict[str, tuple[float, tuple[str, ...]]]]], timeline: list[tuple[int, str]]
) -> None:
    made = [
        (start, profile(*(Limit(name, "temperature_c", "above", threshold, stages=stages) for name, (threshold, stages) in limits.items())))
        for start, limits in versions
    ]
    windows = resolve(made, timeline)
    for limit_id in ("a", "b"):
        mine = windows.get(limit_id, ())
        for moment in range(45):
            holding = [window.limit.threshold for window in mine if window.from_us <= moment < window.until_us]
            expected = slow.threshold_at(moment, limit_id, versions, timeline)
            assert holding == ([] if expected is None else [expected])
        for before, after in pairwise(mine):  # sorted, disjoint, and merged where equal
            assert before.until_us < after.from_us or (before.until_us == after.from_us and before.limit.rule() != after.limit.rule())
