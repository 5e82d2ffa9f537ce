"""The coordinator of replays: one actor of the cluster, made by a door when the first replay is asked for, found by name afterwards.

What it does stands in the table `replay`: an actor that is made anew after its death goes on with what ran, and what tasks had written
by then is not judged again.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from actors.journal import archive as manifest
from actors.journal.archive import note_replay, replay_row, running_replays
from actors.journal.store import Store, open_store
from actors.journal.tables import Replay
from actors.rules.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from cluster.archive.filesystem import Place
from cluster.archive.reader import Part, records
from cluster.replay import jobs, result, whatif
from cluster.replay.jobs import Cancelled, Request

log = logging.getLogger("waybill.replay")

MOST_RUNNING = 4
NOTE_EVERY_S = 0.5
TIMEOUT_S = 30.0


@ray.remote(num_cpus=0, max_restarts=-1, max_concurrency=16)  # type: ignore[call-overload]
class Replays:
    """See the module. `archive`: folder or URL of the archive; results lie below it."""

    def __init__(self, database_url: str, archive: str) -> None:
        self.store: Store = open_store(database_url)
        self.place = Place.of(archive)
        self.lock = threading.Lock()
        self.cancelled: dict[str, threading.Event] = {}
        for row in running_replays(self.store.engine):
            self._go(row)

    def start(self, replay_id: str, parameters: dict[str, Any], actor: str) -> None:
        """Start a replay; again with the same question it changes nothing. Raises InvalidArgument, AlreadyExists, FailedPrecondition."""
        request = Request(parameters["kind"], tuple(parameters["shipment_ids"]), tuple(parameters["months"]), parameters["rules"])
        asked = whatif.read(request.rules) if request.kind == result.WHAT_IF else None
        if asked is not None:
            whatif.must_be_there(asked, map(Part.of, jobs.chosen(self._parts(request), request)), frozenset(request.shipment_ids) or None)
        elif request.rules:
            raise InvalidArgument("only a what-if has other rules", field="rules_json", value=json.dumps(request.rules))
        with self.lock:
            known = replay_row(self.store.engine, replay_id)
            if known is not None:
                if known["parameters"] != parameters:
                    raise AlreadyExists("is the id of a replay that was asked another question", field="request_id", value=replay_id)
                return
            if len(running_replays(self.store.engine)) >= MOST_RUNNING:
                raise FailedPrecondition(f"{MOST_RUNNING} replays run already: wait for one, or cancel it", field="replay", value=replay_id)
            parts = jobs.chosen(self._parts(request), request)
            if not parts:
                raise FailedPrecondition("nothing is archived that this concerns: run `waybill archive run`", field="months", value="")
            now = jobs.now_us()
            row = Replay(
                replay_id=replay_id, kind=request.kind, location=self._result(replay_id).location, parameters=parameters,
                parts=len(parts), created_by=actor, created_us=now, updated_us=now,
            )  # fmt: skip
            self._note(replay_id, row.model_dump())
            self._go(row.model_dump())

    def cancel(self, replay_id: str) -> None:
        """Ask a replay to end. Raises NotFound."""
        row = replay_row(self.store.engine, replay_id)
        if row is None:
            raise NotFound("no such replay", field="replay_id", value=replay_id)
        if row["state"] == result.RUNNING:
            self._note(replay_id, {"cancel_requested": True})
            self.cancelled.setdefault(replay_id, threading.Event()).set()

    def differences(self, replay_id: str, shipment_id: str, after: int, limit: int) -> list[dict[str, Any]]:
        """Rows of a result's differences after the first `after`. Raises NotFound, FailedPrecondition."""
        row = replay_row(self.store.engine, replay_id)
        if row is None:
            raise NotFound("no such replay", field="replay_id", value=replay_id)
        if row["state"] != result.SUCCEEDED:
            raise FailedPrecondition(f"the replay is {row['state']}: it has no result", field="replay_id", value=replay_id)
        _, table, _ = result.read(self._result(replay_id))
        if shipment_id:
            table = table.filter(pa.array(np.array(table.column("shipment_id").to_pylist()) == shipment_id))
        return records(table.slice(after, limit))

    def _result(self, replay_id: str) -> Place:
        """Where a replay's result lies: below the archive, wherever that is today."""
        return self.place.sub(f"replays/{replay_id}")

    def _go(self, row: Mapping[str, Any]) -> None:
        ended = self.cancelled.setdefault(row["replay_id"], threading.Event())
        if row["cancel_requested"]:
            ended.set()
        threading.Thread(target=self._run, args=(row, ended), name=f"replay-{row['replay_id']}", daemon=True).start()

    def _run(self, row: Mapping[str, Any], ended: threading.Event) -> None:
        """Run one replay to its end, and say how it ended."""
        replay_id = row["replay_id"]
        asked = row["parameters"]
        request = Request(asked["kind"], tuple(asked["shipment_ids"]), tuple(asked["months"]), asked["rules"])
        try:
            place = self._result(replay_id)
            made = jobs.run(replay_id, request, self._parts(request), place, progress=self._progress(replay_id), cancelled=ended.is_set)
            self._note(replay_id, {"state": result.SUCCEEDED, "counts": made.counts, "summary": made.summary, "finished_us": jobs.now_us()})
        except Cancelled:
            self._note(replay_id, {"state": result.CANCELLED, "finished_us": jobs.now_us()})
        except Exception as error:  # whatever it is, whoever asked is told
            log.exception("replay %s failed", replay_id)
            self._note(replay_id, {"state": result.FAILED, "error": str(error)[:2_000], "finished_us": jobs.now_us()})
        finally:
            self.cancelled.pop(replay_id, None)

    def _parts(self, request: Request) -> list[dict[str, Any]]:
        """The parts of journeys that the archive has; of some shipments only theirs. Raises NotFound for one that is not archived."""
        parts = [part for part in manifest.parts(self.store.engine) if part["carriers"]]
        if not request.shipment_ids:
            return parts
        where = manifest.part_of(self.store.engine, [f"shipment/{one}" for one in request.shipment_ids])
        for at, shipment_id in enumerate(request.shipment_ids):
            if f"shipment/{shipment_id}" not in where:
                raise NotFound("this shipment is not in the archive", field=f"shipment_ids[{at}]", value=shipment_id)
        return [part for part in parts if part["part_id"] in where.values()]

    def _progress(self, replay_id: str) -> Callable[[int, int, Mapping[str, int]], None]:
        told = 0.0

        def note(done: int, parts: int, counts: Mapping[str, int]) -> None:
            nonlocal told
            if done == parts or time.monotonic() - told > NOTE_EVERY_S:
                told = time.monotonic()
                self._note(replay_id, {"parts_done": done, "parts": parts, "counts": dict(counts)})

        return note

    def _note(self, replay_id: str, values: Mapping[str, Any]) -> None:
        self.store.write(note_replay, replay_id, {**values, "updated_us": jobs.now_us()}).result(TIMEOUT_S)


def open_replays(name: str, namespace: str, database_url: str, archive: str) -> Any:
    """The system's coordinator, made where there is none."""
    made: Any = Replays
    options = {"name": name, "namespace": namespace, "lifetime": "detached", "get_if_exists": True}
    return made.options(**options).remote(database_url, archive)
