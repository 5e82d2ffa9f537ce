"""What is asked of the figures, and what they are: the table at the head of docs/performance.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Rows = dict[str, dict[str, Any]]
"""Rows of the results by label."""


class Target(NamedTuple):
    """One measure. `value` finds it among the rows, and raises KeyError where it was not measured."""

    measure: str
    value: Callable[[Rows], float]
    reach: float
    aim: float
    unit: str
    less: bool = False

    def met(self, value: float, bound: float) -> bool:
        """Whether a value is at least (`less`: at most) the bound."""
        return value <= bound if self.less else value >= bound


COLUMNS = "columns, 10,000 a batch, 64 in flight"
ACTORS = "one Ray actor a tag, a call a reading, not durable"
FAST_ALERTS = "send to alert at 100,000 readings/s"
QUIET = "cores, 1,000,000 tags reporting once a minute (16,666 readings/s)"


def _median(label: str) -> Callable[[Rows], float]:
    return lambda rows: float(rows[label]["median"])


TARGETS = (
    Target("gRPC columns, 10,000 a batch, durable, full rules", _median(COLUMNS), 1.5e6, 3e6, "readings/s"),
    Target(
        "gRPC rows from 1,000 small gateways, 100 a batch",
        _median("rows, 100 a message, 1,000 gateways with 1 in flight each"), 250e3, 600e3, "readings/s",
    ),
    Target("one reading a call, unary, 64 callers", _median("one reading a call, 64 callers"), 2e3, 3e3, "readings/s"),
    Target("send to alert at 100,000 readings/s, p50", _median(FAST_ALERTS), 15, 8, "ms", less=True),
    Target("send to alert at 100,000 readings/s, p99", lambda rows: float(rows[FAST_ALERTS]["p99_median"]), 50, 25, "ms", less=True),
    Target(
        "durable live ingest against one Ray actor per tag",
        lambda rows: float(rows[COLUMNS]["median"] / rows[ACTORS]["median"]), 300, 700, "×",
    ),
    Target(
        "replay from Parquet against Bytewax (4 processes)",
        lambda rows: float(rows["Bytewax, 4 processes, stateful_batch"]["ratio"]), 20, 40, "×",
    ),
    Target("replay from Parquet against polars", lambda rows: float(rows["polars, batch, all cores"]["ratio"]), 1.5, 3, "×"),
    Target("readings/s at 1 M tags against 1 k", _median("readings/s at 1,000,000 tags against 1,000"), 0.7, 0.9, "×"),
    Target("memory per tag", _median("memory of a tag: (RSS at 1,000,000 tags - at 1,000) / 999,000"), 1000, 400, "bytes", less=True),
    Target(
        "start with 1 M tags, from Ray ready to the first acknowledgement",
        _median("start with 1,000,000 tags, from Ray ready to the first acknowledgement"), 15, 5, "s", less=True,
    ),
    Target("4 shards against 1: judge and commit", _median("4 shards against 1, judge and commit"), 2.2, 3, "×"),
    Target("processor time of 1 M tags reporting once a minute", _median(QUIET), 1, 0.4, "cores", less=True),
    Target(
        "`make demo`: command to first alert, after installation",
        _median("`make demo`: from the command to the first alert, after installation"), 30, 15, "s", less=True,
    ),
)  # fmt: skip


def against(results: Sequence[dict[str, Any]], number: Callable[[float, str], str]) -> str:
    """Every target with its figure, as a Markdown table. `number` writes a figure with its unit."""
    rows: Rows = {row["label"]: row for result in results for row in result["rows"] if not result["quick"]}
    lines = ["| measure | to reach | aim | here | |", "|---|---|---|---|---|"]
    for one in TARGETS:
        try:
            value = one.value(rows)
        except KeyError:
            here, said = "not measured", ""
        else:
            here = number(value, one.unit)
            said = "aim met" if one.met(value, one.aim) else "reached" if one.met(value, one.reach) else "**not reached**"
        lines.append(f"| {one.measure} | {number(one.reach, one.unit)} | {number(one.aim, one.unit)} | {here} | {said} |")
    return "\n".join(lines)
