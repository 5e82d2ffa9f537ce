"""The floors stand: imports point down, files stay small, what is used is declared, nothing personal is in the tree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
OURS = {"actors", "cluster", "services", "waybill", "tests", "bench"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@cache
def tracked() -> list[Path]:
    """Files of the project: those git knows, or all but what is made by tools where there is no git."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode == 0 and listed.stdout:
        return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]
    made = {".venv", ".node", ".git", "build", "waybill-data"}
    return [path for path in ROOT.rglob("*") if path.is_file() and not made & set(path.relative_to(ROOT).parts)]


def sources(*folders: str) -> list[Path]:
    """Python files of our own hand in these folders."""
    return [path for path in tracked() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders and "_pb2" not in path.name]


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_imports_point_down_only() -> None:
    checked = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_journal_uses_nothing_of_the_second_floor() -> None:
    for path in sources("actors"):
        if "journal" in path.relative_to(ROOT).parts:
            above = {
                name for name in imports(path) if name.startswith("actors.") and not name.startswith(("actors.journal", "actors.rules"))
            }
            assert not above, f"{path.relative_to(ROOT)} imports {sorted(above)}"


def test_sql_is_written_in_the_journal_only() -> None:
    """The floors above may hold a session or an engine and pass it down; statements are made below."""
    handles = {"sqlmodel", "sqlmodel.Session", "sqlalchemy", "sqlalchemy.Engine", "sqlalchemy.engine", "sqlalchemy.engine.Engine"}
    handles |= {"sqlalchemy.exc", "sqlalchemy.exc.OperationalError", "sqlalchemy.exc.SQLAlchemyError"}
    for path in sources("actors", "services"):
        if "journal" not in path.relative_to(ROOT).parts:
            used = {name for name in imports(path) if name.partition(".")[0] in ("sqlalchemy", "sqlmodel", "psycopg", "sqlite3")}
            assert used <= handles, f"{path.relative_to(ROOT)} imports {sorted(used - handles)}"


def test_no_file_is_longer_than_five_hundred_lines() -> None:
    """A migration is exempt: it is one step of history, never edited."""
    long = {
        str(path.relative_to(ROOT)): lines
        for path in sources("actors", "cluster", "services", "tests", "bench")
        if (lines := _lines(path)) > 500 and "versions" not in path.parts
    }
    assert not long


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def declared(*extras: str) -> set[str]:
    """Canonical names of the distributions that pyproject.toml asks for."""
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return {canonicalize_name(Requirement(line).name) for line in lines}


ELSEWHERE = ("bench/mqtt_peer.py", "bench/replay_peers.py", "tests/erp/seed_tryton.py")
"""Scripts that run in environments of their own, which their measurement or test makes."""


@pytest.mark.parametrize(("folders", "extras"), [(("actors", "cluster", "services"), ()), (("tests", "bench", "protos"), ("dev",))])
def test_every_imported_distribution_is_declared(folders: tuple[str, ...], extras: tuple[str, ...]) -> None:
    providers = packages_distributions()
    missing = set()
    for path in sources(*folders):
        for name in imports(path) if str(path.relative_to(ROOT)) not in ELSEWHERE else ():
            top = name.partition(".")[0]
            if top in OURS or top in sys.stdlib_module_names or top == "google":
                continue
            if not {canonicalize_name(provider) for provider in providers.get(top, [])} & declared(*extras):
                missing.add(f"{path.relative_to(ROOT)}: {top}")
    assert not missing


def test_every_distribution_that_is_installed_is_pinned() -> None:
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+( ?;.*)?", line), f"not an exact pin: {line}"
            pins[canonicalize_name(line.partition("==")[0])] = line
    waiting, seen = declared("dev"), set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        needs = [Requirement(line) for line in requires(name) or ()]
        wanted = {canonicalize_name(need.name) for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})}
        waiting |= wanted - seen
    assert sorted(seen - pins.keys()) == []


def test_every_dependency_is_explained() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    assert [name for name in sorted(declared("dev")) if f"`{name}`" not in page] == []


def test_no_file_names_a_place_of_one_machine() -> None:
    places = re.compile(r"(?<![\w.])/(?:work|root|home/\w+)/|file:///|https?://[^\s/]*(?:pypi|registry)\.")
    for path in tracked():
        if path.suffix in {".py", ".md", ".toml", ".txt", ".yaml", ".proto", ""} and path != Path(__file__):
            try:
                found = places.search(path.read_text(encoding="utf-8"))
            except UnicodeDecodeError:
                continue
            assert not found, f"{path.relative_to(ROOT)}: {found.group() if found else ''}"
