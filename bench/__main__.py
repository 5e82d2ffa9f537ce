"""`make bench`: run the measurements, keep their results in bench/results, write docs/performance.md.

python -m bench [--quick] [NAME ...]      # all, or the named ones; --quick takes less than two minutes and writes bench/results/quick
python -m bench --report                  # docs/performance.md from the results that are there, a quick one where there is no other
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.cases import CASES
from bench.facts import facts
from bench.report import table, write

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
QUICK = ("columns", "actors", "core")


def measure(name: str, quick: bool, output: Path, data: Path | None) -> None:
    """Run one measurement in this process and write its result. data: where what it judges is kept, for those that know such a place."""
    case = CASES[name]
    before, started = facts(), time.monotonic()
    result: dict[str, Any] = getattr(importlib.import_module(case.module), case.function)(quick, *([data] if data else []))
    took_s = round(time.monotonic() - started, 1)
    output.write_text(json.dumps({"name": name, "quick": quick, "machine": before, "took_s": took_s, **result}, indent=1) + "\n")


def run(name: str, quick: bool, data: Path | None) -> dict[str, Any] | None:
    """Run one measurement in a process group of its own, which is ended with it; None where it failed."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "result.json"
        command = [sys.executable, "-m", "bench", "--measure", name, "--output", str(output), *(["--quick"] if quick else [])]
        command += ["--data", str(data)] if data else []
        process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        try:
            code = process.wait(CASES[name].timeout_s)
        except (KeyboardInterrupt, subprocess.TimeoutExpired) as why:
            os.killpg(process.pid, signal.SIGINT)  # it ends what it started
            process.wait(60)
            if isinstance(why, KeyboardInterrupt):
                raise
            code = -1
        if code != 0:
            print(f"{name}: failed (exit code {code}); no figure", file=sys.stderr)
            return None
        found: dict[str, Any] = json.loads(output.read_text())
        return found


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)}")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="replay: its archive lies here, or is made here and kept")
    parser.add_argument("--measure", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.quick, options.output, options.data)
        return 0
    unknown = set(options.names) - set(CASES)
    if unknown:
        parser.error(f"there is no measurement {sorted(unknown)}")
    folder = RESULTS / "quick" if options.quick else RESULTS
    failed = 0
    if not options.report:
        folder.mkdir(parents=True, exist_ok=True)
        for name in options.names or (QUICK if options.quick else CASES):
            print(f"{name}: {CASES[name].title}", flush=True)
            result = run(name, options.quick, options.data if name == "replay" else None)
            failed += result is None
            if result is not None:
                (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
                print(table([result]), flush=True)
    if not options.quick:
        kept = ([RESULTS / f"{name}.json", RESULTS / "quick" / f"{name}.json"] for name in CASES)
        write(ROOT / "docs", [json.loads(found[0].read_text()) for paths in kept if (found := [path for path in paths if path.is_file()])])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
