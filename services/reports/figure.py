"""Figures as plain shapes in a box of points, and their SVG. Colours have names, with a light and a dark value each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
"""(n, 2): x to the right, y down."""


class Ink(NamedTuple):
    """A colour on paper and light screens, and on dark screens. Text colours have a contrast of 4.5 and more on `paper` and `panel`."""

    light: str
    dark: str


INKS: dict[str, Ink] = {
    "paper": Ink("#ffffff", "#11171d"),
    "panel": Ink("#f4f6f8", "#1a222b"),
    "ink": Ink("#17212b", "#e7edf2"),
    "dim": Ink("#566472", "#a3b2bf"),
    "faint": Ink("#d8dfe5", "#34424e"),
    "good": Ink("#0b6b4b", "#63d3a6"),
    "good-wash": Ink("#e5f4ed", "#12352a"),
    "bad": Ink("#b0231c", "#ff9a90"),
    "bad-wash": Ink("#fcebe9", "#44201d"),
    "warn": Ink("#835200", "#ffc566"),
    "warn-wash": Ink("#fdf2dc", "#3f3015"),
    "line": Ink("#1c5d9f", "#82bbf7"),
    "other": Ink("#a9b6c2", "#556572"),
    "sea": Ink("#eaf1f6", "#18222b"),
    "land": Ink("#fbfbf7", "#28343d"),
    "coast": Ink("#b9c4cc", "#465662"),
    "border": Ink("#d6d9d3", "#3a4852"),
}


class Style(NamedTuple):
    """How a shape is drawn: names of inks, line width in points, dashes, size and weight of text (whose stroke is a halo under it)."""

    stroke: str = ""
    fill: str = ""
    width: float = 1.0
    dash: tuple[float, ...] = ()
    opacity: float = 1.0
    size: float = 0.0
    bold: bool = False


STYLES: dict[str, Style] = {
    "axis": Style(stroke="faint", width=1.0),
    "grid": Style(stroke="faint", width=0.6, opacity=0.7),
    "tick": Style(fill="dim", size=10.5),
    "name": Style(fill="dim", size=10.5, bold=True),
    "value": Style(stroke="line", width=1.5),
    "other": Style(stroke="other", width=1.0, opacity=0.75),
    "limit": Style(stroke="bad", width=1.2, dash=(6.0, 4.0)),
    "limit-name": Style(fill="bad", stroke="paper", width=3.0, size=10.5, bold=True),
    "limit-old": Style(stroke="dim", width=1.0, dash=(3.0, 4.0)),
    "limit-old-name": Style(fill="dim", stroke="paper", width=3.0, size=10.5),
    "excursion": Style(fill="bad", opacity=0.16),
    "mkt": Style(fill="bad", opacity=0.8),
    "gone": Style(fill="other", opacity=0.3),
    "gap": Style(fill="warn", opacity=0.18),
    "stage": Style(fill="faint"),
    "other-stage": Style(fill="faint", opacity=0.55),
    "stage-name": Style(fill="dim", size=10.0),
    "sea": Style(fill="sea"),
    "land": Style(fill="land", stroke="coast", width=0.8),
    "border": Style(stroke="border", width=0.8),
    "graticule": Style(stroke="coast", width=0.5, opacity=0.4),
    "track": Style(stroke="line", width=2.2),
    "fix": Style(fill="line"),
    "hot": Style(stroke="bad", width=4.0),
    "end": Style(fill="paper", stroke="ink", width=1.6),
    "place": Style(fill="ink", stroke="paper", width=3.0, size=11.5, bold=True),
    "scale": Style(stroke="dim", width=1.4),
    "after": Style(fill="line"),
    "before": Style(fill="other"),
}
"""Every style a figure may name."""


@dataclass(frozen=True)
class Line:
    """An open line through points."""

    points: Points
    style: str


@dataclass(frozen=True)
class Area:
    """Closed rings; a ring inside another is a hole."""

    rings: Sequence[Points]
    style: str


@dataclass(frozen=True)
class Box:
    """A rectangle; `title` is what a pointer over it tells."""

    x: float
    y: float
    width: float
    height: float
    style: str
    title: str = ""


@dataclass(frozen=True)
class Dot:
    """A circle."""

    x: float
    y: float
    radius: float
    style: str
    title: str = ""


@dataclass(frozen=True)
class Label:
    """A text; y is its baseline."""

    x: float
    y: float
    text: str
    style: str
    anchor: Literal["start", "middle", "end"] = "start"


Shape = Line | Area | Box | Dot | Label


@dataclass(frozen=True)
class Figure:
    """Shapes in a box of `width` by `height` points, drawn in order; nothing shows outside the box."""

    width: float
    height: float
    shapes: Sequence[Shape]


def svg(figure: Figure, caption: str) -> str:
    """The figure as an SVG element whose classes are the styles' names (see `css`)."""
    body = "".join(_shape(shape) for shape in figure.shapes)
    box = f"0 0 {figure.width:g} {figure.height:g}"
    return f'<svg viewBox="{box}" role="img" aria-label="{escape(caption)}" preserveAspectRatio="xMidYMid meet">{body}</svg>'


def css() -> str:
    """The rules for every style, on the inks as CSS variables."""
    rules = []
    for name, style in STYLES.items():
        parts = [f"fill:var(--{style.fill})" if style.fill else "fill:none"]
        if style.stroke:
            parts.append(f"stroke:var(--{style.stroke});stroke-width:{style.width:g}")
        if style.dash:
            parts.append(f"stroke-dasharray:{' '.join(f'{one:g}' for one in style.dash)}")
        if style.opacity != 1.0:
            parts.append(f"opacity:{style.opacity:g}")
        if style.size:
            parts.append(
                f"font-size:{style.size:g}px{';font-weight:600' if style.bold else ''}{';paint-order:stroke' if style.stroke else ''}"
            )
        rules.append(f"svg .{name}{{{';'.join(parts)}}}")
    return "\n".join(rules)


def path(points: Points, closed: bool = False) -> str:
    """SVG path data with a tenth of a point."""
    if not len(points):
        return ""
    tenths = np.round(points * 10).astype(np.int64)
    steps = np.diff(tenths, axis=0)
    steps = steps[np.any(steps != 0, axis=1)]
    text = f"M{tenths[0, 0] / 10:g} {tenths[0, 1] / 10:g}"
    text += "".join(f"l{x / 10:g} {y / 10:g}" for x, y in steps.tolist())
    return text + ("z" if closed else "")


def _shape(shape: Shape) -> str:
    if isinstance(shape, Line):
        return f'<path class="{shape.style}" d="{path(shape.points)}"/>'
    if isinstance(shape, Area):
        return f'<path class="{shape.style}" fill-rule="evenodd" d="{"".join(path(ring, True) for ring in shape.rings)}"/>'
    if isinstance(shape, Box):
        at = f'x="{shape.x:.1f}" y="{shape.y:.1f}" width="{max(0.0, shape.width):.1f}" height="{max(0.0, shape.height):.1f}"'
        return _titled("rect", shape.style, at, shape.title)
    if isinstance(shape, Dot):
        return _titled("circle", shape.style, f'cx="{shape.x:.1f}" cy="{shape.y:.1f}" r="{shape.radius:g}"', shape.title)
    anchor = f' text-anchor="{shape.anchor}"' if shape.anchor != "start" else ""
    return f'<text class="{shape.style}" x="{shape.x:.1f}" y="{shape.y:.1f}"{anchor}>{escape(shape.text)}</text>'


def _titled(element: str, style: str, at: str, title: str) -> str:
    if not title:
        return f'<{element} class="{style}" {at}/>'
    return f'<{element} class="{style}" {at}><title>{escape(title)}</title></{element}>'
