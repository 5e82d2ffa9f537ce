"""The queries of docs/archive.md, run as they stand: the three tools agree, and agree with a plain count."""

from __future__ import annotations

import ast
import math
import re
from pathlib import Path
from typing import Any

import pytest

from cluster.archive.filesystem import Place
from cluster.archive.writer import write_manifest
from tests.replay.made import profile, simulate, write
from tests.replay.test_whatif import COLD, FENCE, TOTAL, WARM

PAGE = Path(__file__).resolve().parents[2] / "docs" / "archive.md"
TOOLS = ("duckdb", "polars", "pandas")


def queries() -> list[dict[str, str]]:
    """The questions in order: the code of each tool."""
    blocks = re.findall(r"```python (\w+)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [dict(blocks[start : start + 3]) for start in range(0, len(blocks), 3)]


def answer(code: str, archive: Path) -> list[tuple[Any, ...]]:
    """What a block's last expression gives."""
    import duckdb
    import pandas as pd
    import polars as pl

    names = {"duckdb": duckdb, "pl": pl, "pd": pd}
    tree = ast.parse(code.replace("ARCHIVE", str(archive)).strip())
    last = tree.body.pop()
    assert isinstance(last, ast.Expr)
    exec(compile(tree, "docs", "exec"), names)
    return [tuple(row) for row in eval(compile(ast.Expression(last.value), "docs", "eval"), names)]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import random

    folder = tmp_path_factory.mktemp("archive")
    journeys = [simulate(random.Random(number), number) for number in range(12)]
    parts = write(Place.of(folder), journeys, profile(60, WARM, COLD, TOTAL), (FENCE,), parts=2, record=True)
    write_manifest(Place.of(folder), parts)
    return folder


@pytest.mark.parametrize("question", range(3))
def test_the_three_tools_agree(archive: Path, question: int) -> None:
    asked = queries()
    assert [tuple(one) for one in asked] == [TOOLS] * 3
    answers = {tool: answer(code, archive) for tool, code in asked[question].items()}
    first = answers["duckdb"]
    assert len(first) >= 5
    for tool in TOOLS[1:]:
        assert len(answers[tool]) == len(first)
        for ours, theirs in zip(first, answers[tool], strict=True):
            assert all(a == b or math.isclose(float(a), float(b)) for a, b in zip(ours, theirs, strict=True)), (tool, ours, theirs)
