"""A document as one HTML file that asks for nothing from elsewhere: no script, no font, no picture but its own."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

from services.reports.document import Card, Cell, Document, Facts, Listing, Number, Part, Plot, Section, Table, Words
from services.reports.figure import INKS, css, svg
from services.reports.seal import BEGIN

SIGNS = {"good": "✓", "bad": "✕", "warn": "!", "": "", "dim": "", "gone": ""}
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
MARK = BEGIN.decode()

STYLE = (Path(__file__).parent / "data" / "style.css").read_text(encoding="utf-8")


def render(document: Document, seal: bytes) -> bytes:
    """The file. `seal`: what goes into it once, unchanged (services.reports.seal)."""
    read = f"{document.made}. {document.note}".strip()
    body = "".join(
        [
            f'<header><p class="kind">{escape(document.kind)}</p><h1>{escape(document.title)}</h1>',
            f"<p>{escape(document.subtitle)}</p><p>{escape(read)}</p></header><main>",
            f'<div class="cards">{"".join(map(_card, document.cards))}</div>',
            f'<dl class="numbers">{"".join(map(_number, document.numbers))}</dl>' if document.numbers else "",
            *map(_section, document.sections),
            "</main>",
        ]
    )
    light = "".join(f"--{name}:{ink.light};" for name, ink in INKS.items())
    dark = "".join(f"--{name}:{ink.dark};" for name, ink in INKS.items())
    page = (
        f'<!doctype html>\n<html lang="{escape(document.language)}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n<meta name="color-scheme" content="light dark">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{escape(document.title)}: {escape(document.cards[0].head if document.cards else document.kind)}</title>\n"
        f"<style>\n:root{{{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}{STYLE}{css()}\n</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )
    # What people wrote may look like the seal's place, of which there is one.
    return page.replace(MARK, MARK.replace(":", "&#58;")).encode() + (b"<!-- " + seal + b" -->\n" if seal else b"")


def _card(card: Card) -> str:
    sign = f'<span class="sign" aria-hidden="true">{SIGNS[card.tone]}</span>' if SIGNS[card.tone] else ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in card.lines)
    head = f'<h2>{escape(card.title)}</h2><p class="head">{sign}{escape(card.head)}</p>'
    return f'<section class="card {card.tone}">{head}<ul>{lines}</ul></section>'


def _number(number: Number) -> str:
    note = f'<dd class="note">{escape(number.note)}</dd>' if number.note else ""
    return f'<div class="number {number.tone}"><dt>{escape(number.name)}</dt><dd class="value">{escape(number.value)}</dd>{note}</div>'


def _section(section: Section) -> str:
    lead = f'<p class="lead">{escape(section.lead)}</p>' if section.lead else ""
    return f"<section><h2>{escape(section.title)}</h2>{lead}{_parts(section.parts)}</section>\n"


def _parts(parts: Iterable[Part]) -> str:
    return "".join(map(_part, parts))


def _part(part: Part) -> str:
    if isinstance(part, Table):
        return _table(part)
    if isinstance(part, Words):
        return f'<p class="{part.tone}">{escape(part.text)}</p>'
    if isinstance(part, Listing):
        return "<ul>" + "".join(f'<li class="{part.tone}">{escape(line)}</li>' for line in part.lines) + "</ul>"
    if isinstance(part, Facts):
        pairs = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in part.pairs)
        return f'<dl class="facts{" fixed" if part.fixed else ""}">{pairs}</dl>'
    if isinstance(part, Plot):
        caption = f"<figcaption>{escape(part.caption)}</figcaption>"
        return f'<figure class="{"framed" if part.framed else "open"}">{svg(part.figure, part.caption)}{caption}</figure>'
    return f'<div class="beside"><div>{_parts(part.left)}</div><div>{_parts(part.right)}</div></div>'


def _table(table: Table) -> str:
    heads = "".join(f'<th scope="col"{" class=right" if column.right else ""}>{escape(column.name)}</th>' for column in table.columns)
    rows = "".join(
        "<tr>" + "".join(_cell(cell, column.right) for cell, column in zip(row, table.columns, strict=True)) + "</tr>" for row in table.rows
    )
    made = f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    return f"<details><summary>{escape(table.folded)}</summary>{made}</details>" if table.folded else made


def _cell(cell: Cell, right: bool) -> str:
    kinds = " ".join(filter(None, ["right" if right else "", cell.tone, "strong" if cell.strong else ""]))
    bar = f'<span class="bar"><i style="width:{100 * min(1.0, max(0.0, cell.bar)):.0f}%"></i></span>' if cell.bar is not None else ""
    note = f"<small>{escape(cell.note)}</small>" if cell.note else ""
    return f"<td{f' class={chr(34)}{kinds}{chr(34)}' if kinds else ''}>{escape(cell.text)}{bar}{note}</td>"
