"""All tests, as `make test` runs them: two pytest processes side by side, for what needs a running Waybill mostly waits.

    python -m tests [ARGUMENTS OF PYTEST]

One runs the rules, the journal, real recordings, archives, replays, reports and ERPs, the other everything else: about as long each.
Each starts a Ray and a PostgreSQL of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time

BESIDE = (
    "tests/rules", "tests/journal", "tests/test_architecture.py",
    "tests/data", "tests/archive", "tests/history_import", "tests/erp", "tests/replay", "tests/reports",
)  # fmt: skip
"""What the second process runs."""
COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped|deselected|xfailed)")
PYTEST = (sys.executable, "-m", "pytest", "-m", "not long")


def total(closings: list[str], seconds: float) -> str:
    """The sum of pytest's closing lines.

    >>> total(["2 failed, 3 passed in 1.00s", "4 passed, 1 skipped in 2.00s"], 62.0)
    '2 failed, 7 passed, 1 skipped in 1 min 2 s'
    """
    counts: dict[str, int] = {}
    for number, word in (found for closing in closings for found in COUNT.findall(closing)):
        counts[word] = counts.get(word, 0) + int(number)
    order = sorted(counts, key=lambda word: (word in ("skipped", "deselected"), word == "passed"))
    told = ", ".join(f"{counts[word]} {word}" for word in order) or "nothing was run"
    return f"{told} in {int(seconds // 60)} min {int(seconds % 60)} s"


def main(arguments: list[str]) -> int:
    """Run both; the worse exit code."""
    started = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as kept:
        apart = ("-o", "cache_dir=.pytest_cache/beside")
        beside = subprocess.Popen([*PYTEST, *apart, *arguments, *BESIDE], stdout=kept, stderr=subprocess.STDOUT)
        shown = []
        try:
            command = [*PYTEST, *arguments, *(f"--ignore={path}" for path in BESIDE)]
            environment = {**os.environ, "PYTHONUNBUFFERED": "1"}  # the dots as they come
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment) as first:
                assert first.stdout is not None
                while some := first.stdout.read(1):
                    shown.append(some)
                    print(some, end="", flush=True)
            beside.wait()
        except KeyboardInterrupt:
            beside.wait()  # the terminal has told it, too
            return 130
        finally:
            beside.kill()
        kept.seek(0)
        told = kept.read()
    print(f"and of {', '.join(BESIDE)}:\n{told}", end="")
    closings = ["".join(shown).rstrip().rpartition("\n")[2], told.rstrip().rpartition("\n")[2]]
    print(total(closings, time.monotonic() - started))
    return 1 if first.returncode or beside.returncode else 0  # one that a signal ended has a negative code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
