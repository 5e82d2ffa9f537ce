"""What a document says, apart from how it is written down: a headline, cards, and sections of tables, figures and words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from services.reports.figure import Figure

Tone = Literal["", "good", "bad", "warn", "dim", "gone"]
"""How a text is meant. Never by colour alone: the words say it too. `gone`: it was said once and holds no more."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table. `bar`: a share from 0 to 1 (more is cut), drawn behind the text's line; `note`: a second, smaller line."""

    text: str
    tone: Tone = ""
    bar: float | None = None
    note: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a table. `weight`: its share of the width on paper."""

    name: str
    right: bool = False
    weight: float = 1.0


def columns(text: str) -> list[Column]:
    """Columns from one line: names with their weights after a `*`, parted by `|`; a `>` before a name aligns it to the right.

    >>> columns("Limit*2.5 | >Worst")
    [Column(name='Limit', right=False, weight=2.5), Column(name='Worst', right=True, weight=1.0)]
    """
    found = []
    for part in text.split("|"):
        name, _, weight = part.strip().partition("*")
        found.append(Column(name.lstrip(">"), name.startswith(">"), float(weight or 1)))
    return found


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns. `folded`: shown on demand on a screen, always on paper, under this summary."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    folded: str = ""


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Listing:
    """Short lines, each a point of its own."""

    lines: Sequence[str]
    tone: Tone = ""


@dataclass(frozen=True)
class Facts:
    """Names with values. `fixed`: values are identifiers or digests, in a face of even width."""

    pairs: Sequence[tuple[str, str]]
    fixed: bool = False


@dataclass(frozen=True)
class Plot:
    """A figure with the words that say what it shows (also read aloud instead of it). `framed`: with a line round it, as maps have."""

    figure: Figure
    caption: str
    framed: bool = False


@dataclass(frozen=True)
class Beside:
    """Two parts side by side where there is room."""

    left: Sequence[Part]
    right: Sequence[Part]


Part = Table | Words | Listing | Facts | Plot | Beside


@dataclass(frozen=True)
class Section:
    """A part of the document under a heading. `lead`: one sentence that says what is in it."""

    title: str
    parts: Sequence[Part]
    lead: str = ""


@dataclass(frozen=True)
class Card:
    """One of the few answers at the top: a short head, and lines under it."""

    title: str
    head: str
    lines: Sequence[str] = ()
    tone: Tone = ""


@dataclass(frozen=True)
class Number:
    """One number that people look for first."""

    name: str
    value: str
    note: str = ""
    tone: Tone = ""


@dataclass(frozen=True)
class Document:
    """A whole document. `kind`: what sort it is ("Release report"); `made`: when and by what; `note`: how to read it, one sentence."""

    kind: str
    title: str
    subtitle: str
    made: str
    cards: Sequence[Card]
    numbers: Sequence[Number] = ()
    sections: Sequence[Section] = field(default_factory=tuple)
    note: str = ""
    language: str = "en"
