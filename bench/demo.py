"""How soon someone who types `make demo` sees something: from the command to the first alert."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from statistics import median
from typing import Any

PATIENCE_S = 120.0
RAISED = re.compile(r"^ +\d+ raised ")


def _first_alert_s() -> float:
    """Seconds from the command to the first alert's line, on a new database; everything is ended again."""
    with tempfile.TemporaryDirectory(prefix="waybill-bench-") as folder:
        command = [sys.executable, "-m", "cluster.cli", "demo", "--data-dir", folder]
        begun = time.monotonic()
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True) as run:
            assert run.stdout is not None
            try:
                for line in run.stdout:
                    if RAISED.match(line):
                        return time.monotonic() - begun
                    if time.monotonic() - begun > PATIENCE_S:
                        break
                raise AssertionError("the demo raised no alert")
            finally:
                if run.poll() is None:
                    os.killpg(run.pid, signal.SIGINT)
                run.communicate(timeout=60)


def first_alert(quick: bool) -> dict[str, Any]:
    """The demo, started anew for each repeat."""
    waits = [_first_alert_s() for _ in range(1 if quick else 3)]
    row = {"label": "`make demo`: from the command to the first alert, after installation", "unit": "s", "repeats": waits}
    return {"rows": [{**row, "median": median(waits), "least": min(waits), "most": max(waits)}]}
