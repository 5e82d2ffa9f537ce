"""`waybill up` with instrumented parts, in a process of its own: told what to do as JSON on standard input."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from pathlib import Path

from cluster import supervisor
from cluster.boot import Running
from cluster.settings import load
from tests.faults.planted import Traps, instrumented, successor


def main() -> None:
    """Run until told to end."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    told = json.loads(sys.stdin.read())
    if told["core"] is not None:
        os.sched_setaffinity(0, {told["core"]})  # and all that it starts
    supervisor.BACKOFF_S = (0.2,)  # many deaths a minute are what is asked for here

    def ready(running: Running) -> None:
        settings = running.settings
        facts = {
            "target": running.target,
            "database_url": settings.url_text,
            "data_dir": str(settings.data_dir),
            "shards": settings.shards,
        }
        scratch = Path(told["ready"] + ".part")
        scratch.write_text(json.dumps(facts))
        scratch.rename(told["ready"])
        threading.Thread(target=succeed, args=(running,), daemon=True).start()

    def succeed(running: Running) -> None:
        successors = []
        while True:
            for asked in Path(told["ready"]).parent.glob("succeed-*"):
                asked.unlink()
                number = int(asked.name.rpartition("-")[2])
                successors.append(successor(running, Traps(Path(told["traps"])), number))
            time.sleep(0.1)

    with instrumented(Traps(Path(told["traps"]))):
        supervisor.up(load({}, **told["settings"]), say=lambda line: logging.info("%s", line), ready=ready)


if __name__ == "__main__":
    main()
