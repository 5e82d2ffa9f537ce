"""A document as PDF (A4, vector figures, the seal as an attachment), written by fpdf2: pure Python, no library of the system.

The bytes depend on the document alone: the file carries the time that the document says, and nothing of this machine.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fpdf import FPDF
from fpdf.enums import PathPaintRule, XPos, YPos

from services.reports.document import Beside, Card, Cell, Column, Document, Facts, Listing, Number, Part, Plot, Section, Table, Words
from services.reports.figure import INKS, STYLES, Area, Box, Dot, Figure, Label, Line, Points
from services.reports.seal import BEGIN

logging.getLogger("fpdf").setLevel(logging.ERROR)  # it warns of every sign that the font lacks; these are drawn as boxes
logging.getLogger("fontTools").setLevel(logging.ERROR)
FONTS = Path(__file__).parent / "data"
FAMILY = "Roboto"
WIDE_MM, LEFT_MM, TOP_MM, BOTTOM_MM = 184.0, 13.0, 13.0, 16.0
POINT_MM = 25.4 / 72
TEXT, SMALL, TINY = 9.0, 8.0, 7.2
"""Sizes of type in points."""
SEAL_NAME = "waybill-seal.txt"
TONES: dict[str, str] = {"": "ink", "good": "good", "bad": "bad", "warn": "warn", "dim": "dim", "gone": "dim"}


def render(document: Document, seal: bytes, made: datetime) -> bytes:
    """The file. `seal`: what is attached, unchanged and not compressed (services.reports.seal)."""
    return _Writer(document, made).write(seal)


class _Page(FPDF):
    """A page with the document's title and its number at the foot."""

    foot = ""

    def footer(self) -> None:
        """Called by fpdf2 at the end of each page."""
        self.set_y(-11)
        self.set_font(FAMILY, "", TINY)
        self.set_text_color(INKS["dim"].light)
        self.cell(WIDE_MM - 20, 4, self.foot)
        self.cell(20, 4, f"{self.page_no()} / {{nb}}", align="R")


class _Writer:
    def __init__(self, document: Document, made: datetime) -> None:
        self._document = document
        self._pdf = pdf = _Page(format="A4", unit="mm")
        pdf.set_margins(LEFT_MM, TOP_MM, 210 - LEFT_MM - WIDE_MM)
        pdf.set_auto_page_break(True, BOTTOM_MM)
        pdf.c_margin = 0.0
        self._left, self._wide = LEFT_MM, WIDE_MM  # of the column that is being written
        pdf.set_creation_date(made.astimezone(UTC))
        pdf.set_producer("Waybill")
        # The one text that is not compressed: it must not look like the seal's place.
        pdf.set_title(f"{document.kind}: {document.title}".replace(BEGIN.decode(), BEGIN.decode().rstrip(":")))
        pdf.set_lang(document.language)
        pdf.foot = f"{document.kind} · {document.title} · {document.made}"
        for style, name in (("", "Regular"), ("B", "Bold")):
            pdf.add_font(FAMILY, style, FONTS / f"Roboto-{name}.ttf")

    def write(self, seal: bytes) -> bytes:
        pdf, document = self._pdf, self._document
        pdf.add_page()
        self._text(document.kind.upper(), TINY, bold=True, tone="dim")
        self._text(document.title, 19, bold=True)
        self._text(document.subtitle, TEXT, tone="dim")
        self._text(f"{document.made}. {document.note}".strip(), SMALL, tone="dim")
        pdf.ln(1.5)
        self._rule("ink", 0.5)
        pdf.ln(3)
        self._cards(document.cards)
        self._numbers(document.numbers)
        for section in document.sections:
            self._section(section)
        if seal:
            pdf.embed_file(bytes=seal, basename=SEAL_NAME, desc="What this document was made from, and its signature", compress=False)
        return bytes(pdf.output())

    # ------------------------------------------------------------ words

    def _ink(self, name: str) -> str:
        return INKS[name].light

    def _font(self, size: float, *, bold: bool = False, tone: str = "") -> None:
        self._pdf.set_font(FAMILY, "B" if bold else "", size)
        self._pdf.set_text_color(self._ink(TONES[tone]))

    def _text(self, text: str, size: float = TEXT, *, bold: bool = False, tone: str = "") -> None:
        if text:
            self._font(size, bold=bold, tone=tone)
            self._pdf.set_x(self._left)
            self._pdf.multi_cell(self._wide, size * POINT_MM * 1.32, _shown(text), align="L", new_x=XPos.LEFT, new_y=YPos.NEXT)

    def _rule(self, ink: str, width: float) -> None:
        pdf = self._pdf
        pdf.set_draw_color(self._ink(ink))
        pdf.set_line_width(width)
        pdf.line(self._left, pdf.get_y(), self._left + self._wide, pdf.get_y())

    def _room(self, height_mm: float) -> None:
        """A new page where so much does not fit on this one."""
        if self._pdf.get_y() + height_mm > self._pdf.h - BOTTOM_MM:
            self._pdf.add_page()

    # ------------------------------------------------------------ the top

    def _cards(self, cards: Sequence[Card]) -> None:
        pdf = self._pdf
        weights = [0.9, *([1.15] * (len(cards) - 1))]
        gap = 3.5
        widths = [(WIDE_MM - gap * (len(cards) - 1)) * weight / sum(weights) for weight in weights]
        top = pdf.get_y()
        bottoms: list[float] = []
        for draw in (False, True):  # once to measure, once on coloured ground
            x = LEFT_MM
            for k, (card, width) in enumerate(zip(cards, widths, strict=True)):
                if draw:
                    wash = f"{card.tone}-wash" if card.tone in ("good", "bad", "warn") else "panel"
                    pdf.set_fill_color(self._ink(wash))
                    pdf.rect(x, top, width, max(bottoms) - top, style="F")
                    pdf.set_fill_color(self._ink(TONES[card.tone] if card.tone else "faint"))
                    pdf.rect(x, top, 1.5, max(bottoms) - top, style="F")
                bottom = self._card(card, x, top, width, 17 if k == 0 else 12, draw)
                if not draw:
                    bottoms.append(bottom)
                x += width + gap
        pdf.set_xy(LEFT_MM, max(bottoms) + 3.5)

    def _card(self, card: Card, x: float, top: float, width: float, size: float, draw: bool) -> float:
        """The bottom of the card."""
        pdf = self._pdf
        y = top + 3.0
        words = [
            (card.title.upper(), TINY, True, "dim"),
            (card.head, size, True, card.tone),
            *((line, SMALL, False, "") for line in card.lines),
        ]
        for text, points, bold, tone in words:
            self._font(points, bold=bold, tone=tone)
            pdf.set_xy(x + 4.5, y)
            height = points * POINT_MM * 1.25
            lines: Any = pdf.multi_cell(width - 7.5, height, _shown(text), dry_run=True, output="LINES", align="L")
            if draw:
                pdf.multi_cell(width - 7.5, height, _shown(text), align="L", new_x=XPos.LEFT, new_y=YPos.NEXT)
            y += height * len(lines) + 0.7
        return y + 2.3

    def _numbers(self, numbers: Sequence[Number]) -> None:
        if not numbers:
            return
        pdf = self._pdf
        self._room(18)
        top, width = pdf.get_y(), WIDE_MM / len(numbers)
        for k, number in enumerate(numbers):
            x = LEFT_MM + k * width
            rows = ((number.name, TINY, False, "dim"), (number.value, 11.5, True, number.tone), (number.note, 6.4, False, "dim"))
            y = top + 1.5
            for text, points, bold, tone in rows:
                self._font(points, bold=bold, tone=tone)
                while points > 5 and pdf.get_string_width(_shown(text)) > width - 4:
                    points -= 0.4
                    self._font(points, bold=bold, tone=tone)
                pdf.set_xy(x + 2, y)
                pdf.cell(width - 3, points * POINT_MM * 1.3, _shown(text))
                y += 3.4 if bold is False else 5.2
        pdf.set_draw_color(self._ink("faint"))
        pdf.set_line_width(0.25)
        pdf.rect(LEFT_MM, top, WIDE_MM, 13.6)
        for k in range(1, len(numbers)):
            pdf.line(LEFT_MM + k * width, top, LEFT_MM + k * width, top + 13.6)
        pdf.set_xy(LEFT_MM, top + 15)

    # ------------------------------------------------------------ sections

    def _section(self, section: Section) -> None:
        pdf = self._pdf
        first = section.parts[0] if section.parts else None
        needed = 24.0 + (self._height(first.figure) if isinstance(first, Plot) else 8.0)
        self._room(min(needed, 120.0))
        pdf.ln(3.5)
        self._rule("faint", 0.25)
        pdf.ln(2)
        self._text(section.title, 12, bold=True)
        self._text(section.lead, SMALL, tone="dim")
        pdf.ln(1)
        self._parts(section.parts)

    def _parts(self, parts: Iterable[Part]) -> None:
        for part in parts:
            if isinstance(part, Table):
                if part.folded:
                    self._text(part.folded, SMALL, tone="dim")
                self._table(part)
            elif isinstance(part, Words):
                self._text(part.text, TEXT, tone=part.tone)
                self._pdf.ln(1)
            elif isinstance(part, Listing):
                for line in part.lines:
                    self._text(f"• {line}", SMALL, tone=part.tone)
                self._pdf.ln(1)
            elif isinstance(part, Facts):
                self._facts(part)
            elif isinstance(part, Plot):
                self._plot(part)
            elif isinstance(part, Beside):
                self._beside(part)

    def _beside(self, part: Beside) -> None:
        """Side by side where both fit on the rest of the page, else one after the other."""
        pdf, (left, wide) = self._pdf, (self._left, self._wide)
        tall = sum(8.0 * len(one.rows) + 8.0 if isinstance(one, Table) else 10.0 for one in part.right)
        top = pdf.get_y()
        if top + max(80.0, tall) > pdf.h - BOTTOM_MM:
            self._parts(part.left)
            self._parts(part.right)
            return
        page, bottoms = pdf.page, []
        for parts, share, shift in ((part.left, 0.53, 0.0), (part.right, 0.43, 0.57)):
            self._left, self._wide = left + wide * shift, wide * share
            pdf.page = page
            pdf.set_xy(self._left, top)
            self._parts(parts)
            bottoms.append(pdf.get_y())
        self._left, self._wide = left, wide
        pdf.set_xy(left, max(bottoms))

    def _facts(self, facts: Facts) -> None:
        pdf = self._pdf
        for name, value in facts.pairs:
            self._room(5)
            y, name_wide = pdf.get_y(), min(38.0, self._wide / 4)
            self._font(SMALL, tone="dim")
            pdf.set_x(self._left)
            pdf.cell(name_wide, 4.2, _shown(name))
            self._font(SMALL)
            pdf.set_xy(self._left + name_wide, y)
            pdf.multi_cell(self._wide - name_wide, 4.2, _shown(value), align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        pdf.ln(1.5)

    def _table(self, table: Table) -> None:
        pdf = self._pdf
        if not table.rows:
            return
        total = sum(column.weight for column in table.columns)
        widths = [self._wide * column.weight / total for column in table.columns]
        self._head(table.columns, widths)
        for row in table.rows:
            places = list(zip(row, table.columns, widths, strict=True))
            height = max(self._cell(cell, column, 0, 0, width, draw=False) for cell, column, width in places)
            if pdf.get_y() + height > pdf.h - BOTTOM_MM:
                pdf.add_page()
                self._head(table.columns, widths)
            y, x = pdf.get_y(), self._left
            for cell, column, width in places:
                self._cell(cell, column, x, y, width, draw=True)
                x += width
            pdf.set_xy(self._left, y + height)
            self._rule("faint", 0.15)
        pdf.ln(2)

    def _head(self, columns: Sequence[Column], widths: Sequence[float]) -> None:
        pdf = self._pdf
        self._room(14)
        self._font(TINY, bold=True, tone="dim")
        pdf.set_x(self._left)
        for column, width in zip(columns, widths, strict=True):
            pdf.cell(width - 2, 5, _shown(column.name), align="R" if column.right else "L")
            pdf.cell(2, 5, "")
        pdf.ln(5)
        self._rule("ink", 0.25)

    def _cell(self, cell: Cell, column: Column, x: float, y: float, width: float, *, draw: bool) -> float:
        """Height of the cell in mm; with `draw` it is drawn at (x, y)."""
        pdf = self._pdf
        align, top = "R" if column.right else "L", y + 1.1
        for text, size, tone in ((cell.text, SMALL, cell.tone), (cell.note, 6.8, "dim")):
            if size != SMALL and cell.bar is not None:
                if draw:
                    self._bar(cell, x, top + 0.4, width)
                top += 2.2
            if not text:
                continue
            self._font(size, bold=cell.strong and size == SMALL, tone=tone)
            height = size * POINT_MM * 1.28
            if draw:
                pdf.set_xy(x, top)
                pdf.set_font(
                    FAMILY, ("B" if cell.strong and size == SMALL else "") + ("S" if cell.tone == "gone" and size == SMALL else ""), size
                )
            lines: Any = pdf.multi_cell(
                width - 2, height, _shown(text), align=align, dry_run=not draw, output="LINES", new_x=XPos.LEFT, new_y=YPos.NEXT
            )
            top += height * len(lines)
        return top - y + 1.1

    def _bar(self, cell: Cell, x: float, y: float, width: float) -> None:
        pdf = self._pdf
        long = min(26.0, width - 3)
        pdf.set_fill_color(self._ink("faint"))
        pdf.rect(x, y, long, 1.2, style="F")
        pdf.set_fill_color(self._ink("bad" if cell.tone == "bad" else "good"))
        if cell.bar:
            pdf.rect(x, y, long * min(1.0, max(0.0, cell.bar)), 1.2, style="F")

    # ------------------------------------------------------------ figures

    def _height(self, figure: Figure) -> float:
        return figure.height * self._scale(figure)

    def _scale(self, figure: Figure) -> float:
        """Millimetres a point: a wide figure fills the page, a narrow one a part of it."""
        return (self._wide if figure.width >= 800 else min(self._wide, 0.62 * WIDE_MM)) / figure.width

    def _plot(self, plot: Plot) -> None:
        pdf, scale = self._pdf, self._scale(plot.figure)
        height = plot.figure.height * scale
        self._room(height + 8)
        x, y = self._left, pdf.get_y()
        with pdf.rect_clip(x, y, plot.figure.width * scale, height):
            for shape in plot.figure.shapes:
                self._shape(shape, x, y, scale)
        pdf.set_xy(self._left, y + height + 1.5)
        self._text(plot.caption, SMALL, tone="dim")
        pdf.ln(1.5)

    def _shape(self, shape: Any, x: float, y: float, scale: float) -> None:
        pdf, style = self._pdf, STYLES[shape.style]
        if isinstance(shape, Label):
            pdf.set_font(FAMILY, "B" if style.bold else "", style.size * scale / POINT_MM)
            pdf.set_text_color(self._ink(style.fill))
            wide = pdf.get_string_width(_shown(shape.text))
            back = {"start": 0.0, "middle": wide / 2, "end": wide}[shape.anchor]
            pdf.text(x + shape.x * scale - back, y + shape.y * scale, _shown(shape.text))
            return
        with pdf.new_path(paint_rule=_paint(style.fill, style.stroke)) as path:
            path.style.auto_close = False
            path.style.fill_color = self._ink(style.fill) if style.fill else None
            path.style.stroke_color = self._ink(style.stroke) if style.stroke else None
            path.style.stroke_width = style.width * scale
            path.style.fill_opacity = path.style.stroke_opacity = style.opacity
            path.style.stroke_join_style, path.style.stroke_cap_style = "round", "round" if not style.dash else "butt"
            path.style.stroke_dash_pattern = [one * scale for one in style.dash] if style.dash else None
            if isinstance(shape, Box):
                path.rectangle(x + shape.x * scale, y + shape.y * scale, max(0.01, shape.width * scale), max(0.01, shape.height * scale))
            elif isinstance(shape, Dot):
                path.circle(x + shape.x * scale, y + shape.y * scale, shape.radius * scale)
            elif isinstance(shape, Line):
                _trace(path, shape.points, x, y, scale)
            elif isinstance(shape, Area):
                for ring in shape.rings:
                    _trace(path, ring, x, y, scale)
                    path.close()


def _paint(fill: str, stroke: str) -> PathPaintRule:
    if fill and stroke:
        return PathPaintRule.STROKE_FILL_EVENODD
    return PathPaintRule.FILL_EVENODD if fill else PathPaintRule.STROKE


def _trace(path: Any, points: Points, x: float, y: float, scale: float) -> None:
    first, *rest = points.tolist()
    path.move_to(x + first[0] * scale, y + first[1] * scale)
    for px, py in rest:
        path.line_to(x + px * scale, y + py * scale)


def _shown(text: str) -> str:
    """Without what a font of paper has no sign for in control characters."""
    return "".join(one if one.isprintable() else " " for one in text)
