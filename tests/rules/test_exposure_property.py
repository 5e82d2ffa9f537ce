"""The exposure kernel equals the plain reference on any series, in one part or in many."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.rules import exposure
from actors.rules.readings import Groups
from tests.reference import exposure as plain
from tests.rules.exposures import judge, series, tables, told, track_of

END = 60

times = st.integers(0, END)
values = st.sampled_from([0.0, 2.0, 4.0, 5.0, 6.0, 8.0, float("nan")])


@st.composite
def limits(draw: st.DrawFn, mode: int, direction: int) -> plain.Limit:
    sign = direction
    threshold = draw(st.sampled_from([4.0, 5.0]))
    return plain.Limit(
        threshold=threshold,
        direction=direction,
        inclusive=draw(st.booleans()),
        mode=mode,
        clear=draw(st.sampled_from([None, threshold - sign * 2.0, threshold])),
        allowance_us=draw(st.sampled_from([None, 0, 1, 5, 10, 25])),
        beyond=draw(st.sampled_from([None, threshold + sign * 1.0])),
        beyond_allowance_us=draw(st.sampled_from([0, 3, 8])),
        max_gap_us=draw(st.sampled_from([1, 7, 15, 100])),
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[tuple[int, float]], list[plain.Window], dict[str, Any]]:
    """(readings, windows, custody): everything within [0, END], so that boundaries meet often."""
    readings = [(t, draw(values)) for t in sorted(draw(st.lists(times, max_size=14)))]
    mode, direction = draw(st.sampled_from([plain.SINGLE, plain.CUMULATIVE])), draw(st.sampled_from([1, -1]))
    cuts = sorted(draw(st.lists(st.integers(-5, END + 5), min_size=2, max_size=8, unique=True)))
    windows = [
        plain.Window(low, high, draw(limits(mode, direction))) for low, high in pairwise(cuts) if draw(st.booleans()) or draw(st.booleans())
    ]
    start = draw(st.sampled_from([-3, 0, 4, 17]))
    until = draw(st.sampled_from([None, END // 2, END, END + 30]))
    judged_until = END + 1 if until is None else until
    custody = {
        "from_us": start,
        "until_us": until if until is None or until > start else None,
        "violation_us": draw(st.sampled_from([0, 0, 4, 30])) if mode == plain.CUMULATIVE else 0,
        "end_value": draw(st.sampled_from([None, None, 2.0, 4.0, 8.0])) if until is not None else None,
    }
    return [(t, v) for t, v in readings if t <= judged_until], windows, custody


@settings(max_examples=600, deadline=None)
@given(cases())
def test_kernel_says_what_the_plain_reference_says(case: tuple[list[tuple[int, float]], list[plain.Window], dict[str, Any]]) -> None:
    readings, windows, custody = case
    expected = plain.judge(readings, windows, **custody)
    expected.runs = expected.excursions
    assert judge(readings, windows, **custody) == expected


@settings(max_examples=200, deadline=None)
@given(cases(), st.lists(st.integers(0, 14), max_size=4))
def test_judging_in_parts_from_copied_rows_is_bit_identical(
    case: tuple[list[tuple[int, float]], list[plain.Window], dict[str, Any]], cuts: list[int]
) -> None:
    readings, windows, custody = case
    end_value = custody.pop("end_value")
    window_rows, limit_table = tables(windows)
    whole = track_of(windows, **custody)
    whole_runs = exposure.advance_series(whole, 0, *series(readings), window_rows, limit_table)
    parts = track_of(windows, **custody)
    runs = []
    bounds = [0, *sorted(min(cut, len(readings)) for cut in cuts), len(readings)]
    for low, high in pairwise(bounds):
        parts = parts.copy()
        runs.append(exposure.advance_series(parts, 0, *series(readings[low:high]), window_rows, limit_table))
    assert parts.tobytes() == whole.tobytes()
    assert np.concatenate(runs).tobytes() == whole_runs.tobytes()
    if custody["until_us"] is not None:
        closing = np.nan if end_value is None else end_value
        arguments = (0, custody["until_us"], window_rows, limit_table, closing)
        assert exposure.close(parts, *arguments).tobytes() == exposure.close(whole, *arguments).tobytes()
        assert parts.tobytes() == whole.tobytes()


@st.composite
def fleets(draw: st.DrawFn) -> tuple[list[list[plain.Window]], list[tuple[int, int, float]], int]:
    """(limits of each tag, (time, tag, value) in order, batch size)."""
    tags = [[[plain.Window(0, END, draw(limits(mode, 1)))] for mode in (1, 2, 1)][: draw(st.integers(0, 3))] for _ in range(4)]
    rows = draw(st.lists(st.tuples(times, st.integers(0, 3), values), max_size=40))
    return [[windows[0] for windows in tag] for tag in tags], sorted(rows, key=lambda row: row[0]), draw(st.integers(1, 40))


@settings(max_examples=150, deadline=None)
@given(fleets())
def test_a_fleet_judged_in_batches_is_each_tag_judged_alone(
    fleet: tuple[list[list[plain.Window]], list[tuple[int, int, float]], int],
) -> None:
    tags, rows, size = fleet
    flat = [window for tag in tags for window in tag]
    window_rows, limit_table = tables(flat)
    tracks = exposure.fresh(0, [w.limit.mode for w in flat], np.arange(len(flat)), 1, 0)
    count = np.array([len(tag) for tag in tags], np.int32)
    first = (np.cumsum(count) - count).astype(np.int32)
    runs = []
    for at in range(0, len(rows), size):
        batch = rows[at : at + size]
        runs.append(exposure.advance(tracks, first, count, *grouped(batch), window_rows, limit_table))
    found = np.concatenate(runs) if runs else np.zeros(0, exposure.RUN)
    for tag, windows in enumerate(tags):
        mine = [(t, v) for t, which, v in rows if which == tag]
        for k, window in enumerate(windows):
            expected = plain.judge(mine, [window], 0)
            expected.runs = expected.excursions
            row = first[tag] + k
            of_track = found[found["track"] == row].copy()
            alone = tracks[row : row + 1]
            assert told(alone, of_track, window_rows) == expected


def grouped(batch: list[tuple[int, int, float]]) -> tuple[Groups, Any, tuple[int, ...], Any]:
    """The batch as `advance` takes it, with a column of another metric before the one judged."""
    tag = np.array([row[1] for row in batch], np.int32)
    order = np.argsort(tag, kind="stable")
    present, begins = np.unique(tag[order], return_index=True)
    groups = Groups(present.astype(np.int32), np.append(begins, len(batch)).astype(np.int64), order.astype(np.int64))
    values_of = np.array([[50.0] * len(batch), [row[2] for row in batch]])
    return groups, np.array([row[0] for row in batch], np.int64), (3, 0), values_of
