"""The long form by hand: `python -m tests.faults --database sqlite --duration 600 --seed 1 [--kinds shard,committer,door]`."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

from tests.faults.planted import PLANTS
from tests.faults.run import Plan, run
from tests.faults.system import Nodes, launched
from tests.postgres import PostgreSQL

KINDS = {"sqlite": "shard,committer,door,freeze,both,full,io", "postgresql": "shard,door,database,freeze,raylet"}


def main() -> int:
    """Run; exit code 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=sorted(KINDS), default="sqlite")
    parser.add_argument("--duration", type=float, default=60.0, help="seconds of chaos")
    parser.add_argument("--readings", type=int, default=0, help="go on until so many readings are acknowledged")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", default="", help="what to kill, in turn")
    parser.add_argument("--rate", type=float, default=20_000.0, help="readings a second")
    parser.add_argument("--tags", type=int, default=320)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--snapshot", type=int, default=50_000, help="readings between a shard's snapshots")
    parser.add_argument("--plant", choices=PLANTS, default="")
    parser.add_argument("--out", type=Path, help="file for the summary as JSON")
    parser.add_argument("--keep", type=Path, help="folder to keep everything in")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(tempfile.mkdtemp(prefix="waybill-faults-"))
        folder.mkdir(parents=True, exist_ok=True)
        server = None
        settings: dict[str, object] = {"shards": options.shards, "owner_timeout_s": 90.0, "snapshot_readings": options.snapshot}
        if not options.keep:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        if options.database == "postgresql":
            place = Path(tempfile.mkdtemp(prefix="waybill-postgresql-"))
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            server = PostgreSQL(place)
            server.start()
            stack.callback(server.stop)
            settings["database_url"] = server.new_database()
        nodes = None
        kinds = [kind for kind in (options.kinds or KINDS[options.database]).split(",") if kind != "none"]
        if "raylet" in kinds:
            nodes = Nodes(2)
            stack.callback(nodes.close)
            settings["ray_address"] = nodes.address
        system = stack.enter_context(launched(folder / "system", settings, options.plant, server, nodes))
        world = {"tags": options.tags, "ride_minutes": 1_500}
        plan = Plan(kinds, options.duration, options.seed, readings=options.readings, world=world, readings_per_s=options.rate, drain_s=600)
        report = run(system, folder / "run", plan, say=lambda line: print(line, flush=True))
        print(report.text())
        if options.out:
            facts = {"database": options.database, "seed": options.seed, "duration_s": options.duration, **report.facts()}
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(facts, indent=1))
        return 0 if report.sound else 1


if __name__ == "__main__":
    sys.exit(main())
