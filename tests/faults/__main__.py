"""The long form by hand: `python -m tests.faults --database sqlite --duration 600 --seed 1 [--kinds shard,committer,door]`."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.faults.disk import SmallDisk
from tests.faults.island import HERE, NETWORK, Cable
from tests.faults.planted import PLANTS
from tests.faults.run import Plan, run
from tests.faults.system import Nodes, launched
from tests.postgres import PostgreSQL

USUAL = {
    "sqlite": "shard,committer,door,shard,both,committer,freeze,doors,full,io,fsync",
    "postgresql": "shard,door,database,shard,freeze,doors",
}
RARE = {"sqlite": "eio,gcs", "postgresql": "eio,raylet,gcs,cut"}
"""These take longer or need more of the machine; one of them in turn after each round of the usual ones."""


NEEDS = {"eio": "strace", "cut": "ip"}
"""Tools that a kind cannot do without: said at once, not after an hour."""


def kinds_of(database: str) -> list[str]:
    """A round of the usual kinds for each rare one."""
    usual = USUAL[database].split(",")
    return [kind for rare in RARE[database].split(",") for kind in (*usual, rare)]


def main() -> int:
    """Run; exit code 1 where a promise was broken, or too little was shown of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=sorted(USUAL), default="sqlite")
    parser.add_argument("--duration", type=float, default=60.0, help="seconds of chaos")
    parser.add_argument("--readings", type=int, default=0, help="go on until so many readings are acknowledged")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", default="", help="what to kill, in turn")
    parser.add_argument("--cycles", type=int, default=0, help="go on until so many kills counted; with it the duration is the least")
    parser.add_argument("--rate", type=float, default=20_000.0, help="readings a second")
    parser.add_argument("--tags", type=int, default=320)
    parser.add_argument("--shipments", type=int, default=0, help="that the tags ride on; usually one for ten tags, 24 at least")
    parser.add_argument("--batch", type=int, default=640, help="readings a message, at most")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--doors", type=int, default=2)
    parser.add_argument("--snapshot", type=int, default=50_000, help="readings between a shard's snapshots")
    parser.add_argument("--disk", type=int, default=0, help="put the database on a tmpfs of so many MB, for the kind enospc (needs root)")
    parser.add_argument("--plant", choices=PLANTS, default="")
    parser.add_argument("--out", type=Path, help="file for the summary as JSON")
    parser.add_argument("--keep", type=Path, help="folder to keep everything in")
    options = parser.parse_args()
    kinds = [kind for kind in options.kinds.split(",") if kind not in ("", "none")] if options.kinds else kinds_of(options.database)
    for kind, tool in NEEDS.items():
        if kind in kinds and shutil.which(tool) is None:
            parser.error(f"the kind {kind} needs {tool}, which is not installed: install it, or name the kinds without {kind} with --kinds")
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(tempfile.mkdtemp(prefix="waybill-faults-"))
        folder.mkdir(parents=True, exist_ok=True)
        if not options.keep:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        disk = SmallDisk(Path(tempfile.mkdtemp(prefix="waybill-disk-")), options.disk) if options.disk else None
        if disk is not None:
            stack.callback(disk.close)
        server = nodes = cable = None
        settings: dict[str, object] = {
            "shards": options.shards,
            "doors": options.doors,
            "owner_timeout_s": 90.0,
            "snapshot_readings": options.snapshot,
        }
        if options.database == "postgresql":
            if "cut" in kinds:
                cable = Cable()
                stack.callback(cable.close)
            place = Path(tempfile.mkdtemp(prefix="waybill-postgresql-", dir=disk.folder if disk else None))
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            server = PostgreSQL(place, (HERE, NETWORK) if cable else None)
            server.start()
            stack.callback(server.stop)
            settings["database_url"] = server.new_database()
        elif disk is not None:
            settings["database_url"] = f"sqlite:///{disk.folder}/waybill.db"
        if {"raylet", "cut"} & set(kinds):
            nodes = Nodes(2, folder / "gcs" if "gcs" in kinds else None, cable)
            stack.callback(nodes.close)
            settings["ray_address"] = nodes.address
        system = stack.enter_context(launched(folder / "system", settings, server, nodes, disk))
        system.traps.plant = options.plant
        shipments = options.shipments or max(24, options.tags // 10)
        world = {"tags": options.tags, "shipments": shipments, "ride_minutes": 1_500, "batch_rows": options.batch}
        plan = Plan(
            kinds,
            options.duration,
            options.seed,
            least_cycles=options.cycles,
            readings=options.readings,
            world=world,
            readings_per_s=options.rate,
            drain_s=600,
        )

        def interrupted(*_: object) -> None:
            print("interrupted: no further kills, and what there is is judged", flush=True)
            plan.enough.set()

        signal.signal(signal.SIGINT, interrupted)
        report = run(system, folder / "run", plan, say=lambda line: print(line, flush=True))
        print(report.text())
        if options.out:
            facts = {"database": options.database, "seed": options.seed, "duration_s": options.duration, **report.facts()}
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(facts, indent=1))
        return 0 if report.sound and not report.too_little else 1


if __name__ == "__main__":
    sys.exit(main())
