"""The results as a table, a page and plots. The plots are SVG made here: bars on a logarithmic scale need no library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from bench.cases import CASES
from bench.targets import against

MARK = "<!-- written by `make bench`; edit bench/report.py instead -->"
PEER = "one Ray actor a tag"


def number(value: float, unit: str) -> str:
    """A figure for people: three digits that mean something.

    >>> number(1_234_567, "readings/s"), number(12.345, "ms")
    ('1.23 M readings/s', '12.3 ms')
    """
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if value >= size and unit == "readings/s":
            return f"{value / size:.3g}{letter} {unit}"
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def table(results: Sequence[dict[str, Any]]) -> str:
    """All rows as a Markdown table."""
    peer = next((row["median"] for result in results for row in result["rows"] if row["label"].startswith(PEER)), None)
    lines = ["| measure | median | spread | repeats | more |", "|---|---|---|---|---|"]
    for result in results:
        for row in result["rows"]:
            unit = row["unit"]
            more = []
            if "ratio" in row:
                more.append(f"{row['ratio_of']}: {row['ratio']:.3g} × this; the same events on {row['prefix'] / 1e6:.3g} million readings")
            elif "memory_bytes" in row:
                more.append(f"memory of all workers together {row['memory_bytes'] / 2**30:.2g} GB")
            elif peer and unit == "readings/s" and row["median"] != peer:
                more.append(f"{row['median'] / peer:,.0f} × one actor per tag")
            if "wait_p50_ms" in row:
                more.append(f"answer p50 {row['wait_p50_ms']:.0f} ms, p99 {row['wait_p99_ms']:.0f} ms")
            if "cpu_s_a_million" in row:
                parts = ", ".join(f"{name} {number(value, '').strip()}" for name, value in row["cpu_s_a_million"].items())
                more.append(f"processor seconds for a million: {parts}")
            if "p99_median" in row:
                answers = f"; answers p50 {row['answer_p50_ms']:.0f} ms" if "answer_p50_ms" in row else ""
                counted = row["counted"] if "counted" in row else f"{row['alerts']} alerts"
                more.append(f"these are p50; p99 {number(row['p99_median'], 'ms')} of {counted}{answers}")
            if "by_process" in row:
                parts = ", ".join(f"{name} {value:.2f}" for name, value in row["by_process"].items())
                more.append(f"{parts}; {row['idle']:.2f} when nothing comes")
            if "pss_median" in row:
                parts = ", ".join(f"{name} {value:,.0f}" for name, value in row.get("rss_by_process", {}).items())
                more.append(f"PSS {number(row['pss_median'], 'bytes')}; {parts}")
            spread = f"{number(row['least'], unit)} to {number(row['most'], unit)}"
            quick = " (quick)" if result["quick"] else ""
            lines.append(
                f"| {row['label']}{quick} | **{number(row['median'], unit)}** | {spread} | {len(row['repeats'])} | {'; '.join(more)} |"
            )
    return "\n".join(lines)


def plot(rows: Sequence[dict[str, Any]], title: str) -> str:
    """Horizontal bars on a logarithmic scale, a tick for each repeat, as an SVG document."""
    width, left, line = 900, 380, 34
    low = 10 ** math.floor(math.log10(min(row["least"] for row in rows)))
    high = 10 ** math.ceil(math.log10(max(row["most"] for row in rows) * 1.0001))
    height = 60 + line * len(rows)

    def x(value: float) -> float:
        return left + (width - left - 130) * math.log10(value / low) / math.log10(high / low)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="12" y="22" font-size="15" font-weight="bold">{escape(title)}</text>',
    ]
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        at = x(10.0**power)
        label = number(10.0**power, rows[0]["unit"]).replace(f" {rows[0]['unit']}", "")
        out.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="34" y2="{height - 22}" stroke="#ddd"/>')
        out.append(f'<text x="{at:.1f}" y="{height - 6}" text-anchor="middle" fill="#666">{label}</text>')
    for k, row in enumerate(rows):
        top = 40 + k * line
        bar = max(x(row["median"]) - left, 1.0)
        out.append(f'<text x="{left - 8}" y="{top + 16}" text-anchor="end">{escape(row["label"])}</text>')
        out.append(f'<rect x="{left}" y="{top}" width="{bar:.1f}" height="22" fill="#4a7fb5"/>')
        out += [f'<line x1="{x(one):.1f}" x2="{x(one):.1f}" y1="{top + 3}" y2="{top + 19}" stroke="#14304d"/>' for one in row["repeats"]]
        out.append(f'<text x="{x(row["most"]) + 8:.1f}" y="{top + 16}">{number(row["median"], row["unit"])}</text>')
    return "\n".join([*out, "</svg>", ""])


def write(docs: Path, results: Sequence[dict[str, Any]]) -> None:
    """docs/performance.md and its plots from the results."""
    if not results:
        return
    rates = [row for result in results for row in result["rows"] if row["unit"] == "readings/s"]
    waits = [row for result in results for row in result["rows"] if row["unit"] == "ms"]
    pictures = []
    for name, title, rows in (
        ("rates", "Readings per second (logarithmic)", rates),
        ("latency", "Sent to alert, p50 (ms, logarithmic)", waits),
    ):
        if rows:
            (docs / f"performance-{name}.svg").write_text(plot(rows, title), encoding="utf-8")
            pictures.append(f"![{title}](performance-{name}.svg)")
    machine = results[0]["machine"]
    versions = ", ".join(f"{name} {one}" for name, one in machine["versions"].items())
    dates = sorted({result["machine"]["date"][:10] for result in results})
    loads = ", ".join(f"{result['name']} {result['machine']['load_before']}" for result in results)
    cases = "\n".join(f"- **{CASES[result['name']].title}** (`{result['name']}`): {CASES[result['name']].about}" for result in results)
    notes = docs / "performance-notes.md"
    page = f"""{MARK}
# Performance

Made by `make bench`; the raw results are in `bench/results/`. Clients, senders and subscribers share the cores with what they measure.

{machine["cores"]} cores ({machine["processor"]}), {machine["memory_gb"]} GB, {machine["system"]}, Python {machine["python"]},
SQLite {machine["sqlite"]}; {versions}.
Measured {" to ".join(dict.fromkeys((dates[0], dates[-1])))}. Load average of the machine just before
each: {loads}.
A load well above 0 means that others used the cores too: figures are then lower bounds, and since the measurements run one
after the other under different loads, the ratios between them are rough.

## What is asked, and what is reached

{against(results, number)}

Where a figure is not reached, the last section says where the time goes.

## All figures

{table(results)}

{chr(10).join(pictures)}

## What is measured

{cases}

Every reading is new: tags interleaved, 1 % late, 0.1 % sent twice, at least one excursion per 5,000 readings; three limits (one with
hysteresis and an allowance, one at once, one cumulative) and a geofence on every tag. The committer's own connection is asked whether its
commits are on the disk (`synchronous = FULL`) before anything is sent. Before a figure is printed, the accepted and duplicate counts of the
answers are held against what was sent, and the excursions and visits in the database against an independent computation
(`bench/expected.py`), event for event, which itself is held against the slow reference of the tests on the tags to which most
happens. A rate counts from the first message sent to the last answer taken; an answer comes when its readings are durable and
judged. Batches are encoded by the client processes beforehand.
"""
    if notes.is_file():
        page += "\n" + notes.read_text(encoding="utf-8")
    (docs / "performance.md").write_text(page, encoding="utf-8")
