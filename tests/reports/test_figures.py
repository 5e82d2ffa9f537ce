"""Figures: maps that cross the antimeridian, outlines cut to the frame, lines thinned without losing their peaks."""

from __future__ import annotations

import numpy as np
import pytest

from services.reports import maps
from services.reports.figure import INKS, Area, Label, Line, svg
from services.reports.plot import Series, Span, Threshold, scale, thinned, time_plot

HOUR_US = 3_600_000_000


def track(*points: tuple[float, float]) -> maps.Track:
    at = np.array(points)
    return maps.Track(at[:, 0], at[:, 1], np.zeros(len(at), np.bool_))


def test_a_journey_over_the_antimeridian_stays_in_one_piece() -> None:
    figure = maps.journey_map([track((-17.7, 177.4), (-15.0, 179.9), (-14.3, -170.7))], [])
    assert figure is not None
    [line] = [shape for shape in figure.shapes if isinstance(shape, Line) and shape.style == "track"]
    assert np.all(np.diff(line.points[:, 0]) > 0)
    assert line.points.min() >= 0
    assert line.points[:, 0].max() <= figure.width


@pytest.mark.parametrize("point", [(52.5, 13.4), (-77.8, 166.7), (89.9, 0.0), (0.0, 180.0)])
def test_a_single_place_anywhere_has_a_map(point: tuple[float, float]) -> None:
    figure = maps.journey_map([], [maps.Place("here", *point)])
    assert figure is not None
    assert any(isinstance(shape, Label) and shape.text == "here" for shape in figure.shapes)
    assert "NaN" not in svg(figure, "")
    assert "nan" not in svg(figure, "")


def luminance(colour: str) -> float:
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("ink", ["ink", "dim", "good", "bad", "warn"])
def test_texts_have_the_contrast_that_wcag_asks_for(ink: str, mode: int) -> None:
    for ground in ("paper", "panel", *([f"{ink}-wash"] if f"{ink}-wash" in INKS else ["good-wash", "bad-wash", "warn-wash"])):
        light, dark = sorted((luminance(INKS[name][mode]) for name in (ink, ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)


def test_no_position_no_map() -> None:
    assert maps.journey_map([], []) is None


def test_land_is_cut_to_the_frame_and_is_where_it_is() -> None:
    figure = maps.journey_map([track((48.0, 2.0), (52.0, 13.0))], [])  # Paris to Berlin: all land
    assert figure is not None
    [land] = [shape for shape in figure.shapes if isinstance(shape, Area)]
    everything = np.concatenate(list(land.rings))
    assert everything.min() >= -4.001
    area = sum(abs(float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())) / 2 for x, y in (ring.T for ring in land.rings))
    assert area > 0.6 * figure.width * figure.height


def test_thinning_keeps_both_ends_lowest_and_highest() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(5, 1, 100_000)
    values[70_001], values[123] = 99.0, -40.0
    rows = thinned(np.arange(100_000), values, 1_000)
    assert len(rows) <= 1_002
    assert {0, 123, 70_001, 99_999} <= set(rows.tolist())


def test_a_line_breaks_where_nothing_was_read() -> None:
    times = np.arange(10) * HOUR_US
    one = Series(times, np.full(10, 5.0), gaps_us=(4 * HOUR_US,))
    figure = time_plot([one], (0, 10 * HOUR_US), unit="°C", limits=[Threshold(8.0, "warm")], spans=[Span(0, HOUR_US, "excursion", "a<b")])
    lines = [shape for shape in figure.shapes if isinstance(shape, Line) and shape.style == "value"]
    assert [len(line.points) for line in lines] == [5, 5]
    assert "a&lt;b" in svg(figure, "x")


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (-196.0, -150.0), (1e-9, 2e-9), (5.0, 5.0), (-0.4, 1200.0)])
def test_axes_hold_their_values_on_round_steps(low: float, high: float) -> None:
    bottom, top, step = scale(low, high)
    assert bottom < low
    assert top > high
    assert 2 <= round((top - bottom) / step) <= 12
