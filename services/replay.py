"""ReplayService: replays as long-running operations. The coordinator is an actor of the cluster; what is told of a replay is its row."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from actors.journal import archive as queries
from actors.journal.tables import Replay
from actors.rules.errors import InvalidArgument, NotFound
from services import check
from services.backend import Backend, Context
from services.paging import Page
from services.shards import PATIENCE_S, meaning_of
from waybill.v1 import replay_pb2, replay_pb2_grpc

NAME = "waybill-replays"
"""Ray name of the coordinator."""
KINDS = {
    replay_pb2.REPLAY_KIND_VERIFY: "verify",
    replay_pb2.REPLAY_KIND_ARRIVAL: "arrival",
    replay_pb2.REPLAY_KIND_WHAT_IF: "what-if",
}
MOST_SHIPMENTS, MOST_MONTHS, RULES_BYTES = 10_000, 1_200, 1 << 20
WATCH_S = 0.5
ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")


@dataclass(frozen=True, slots=True)
class Coordinator:
    """How the coordinator is made where there is none. opener: "module:function" of the roof, called in a worker with the other three."""

    opener: str
    namespace: str
    database_url: str
    archive: str

    def find(self) -> Any:
        """Its handle. Raises RayError."""
        try:
            return ray.get_actor(NAME, namespace=self.namespace)
        except ValueError:
            # In a worker: what the coordinator imports is not this door's.
            opening: Any = _open
            ray.get(opening.remote(self.opener, NAME, self.namespace, self.database_url, self.archive))
            return ray.get_actor(NAME, namespace=self.namespace)


@ray.remote(num_cpus=0, max_retries=3)
def _open(opener: str, *arguments: str) -> None:
    module, _, function = opener.partition(":")
    handle = getattr(importlib.import_module(module), function)(*arguments)
    ray.get(handle.__ray_ready__.remote())


class Replays(replay_pb2_grpc.ReplayServiceServicer):
    """See replay.proto."""

    def __init__(self, backend: Backend, coordinator: Coordinator) -> None:
        self._backend = backend
        self._coordinator = coordinator

    async def StartReplay(self, request: replay_pb2.StartReplayRequest, context: Context) -> replay_pb2.StartReplayResponse:
        """A new replay, or the one that was started by this request before."""
        replay_id = request.request_id or uuid.uuid4().hex[:16]
        if not ID.fullmatch(replay_id):
            raise InvalidArgument("must be up to 64 of A-Z, a-z, 0-9, - and _", field="request_id", value=replay_id)
        parameters = parameters_of(request)
        await self._call("start", replay_id, parameters, check.text(request.actor, "actor"))
        return replay_pb2.StartReplayResponse(replay=await self._replay(replay_id))

    async def GetReplay(self, request: replay_pb2.GetReplayRequest, context: Context) -> replay_pb2.GetReplayResponse:
        """One replay."""
        return replay_pb2.GetReplayResponse(replay=await self._replay(request.replay_id))

    async def ListReplays(self, request: replay_pb2.ListReplaysRequest, context: Context) -> replay_pb2.ListReplaysResponse:
        """Replays, newest first."""
        page = Page(request, (int, str))
        after = (page.after[0], page.after[1]) if page.after else None
        rows = await self._backend.read(queries.replays, after=after, limit=page.limit)
        shown, token = page.cut(rows, lambda row: (row.created_us, row.replay_id))
        return replay_pb2.ListReplaysResponse(replays=[message(row, self._coordinator.archive) for row in shown], next_page_token=token)

    async def WatchReplay(self, request: replay_pb2.WatchReplayRequest, context: Context) -> AsyncIterator[replay_pb2.WatchReplayResponse]:
        """A replay as it moves on."""
        told = None
        while True:
            now = await self._replay(request.replay_id)
            if now != told:
                yield replay_pb2.WatchReplayResponse(replay=now)
                told = now
            if now.state != replay_pb2.REPLAY_STATE_RUNNING:
                return
            await asyncio.sleep(WATCH_S)

    async def CancelReplay(self, request: replay_pb2.CancelReplayRequest, context: Context) -> replay_pb2.CancelReplayResponse:
        """A replay is asked to end."""
        check.text(request.replay_id, "replay_id", required=True)
        await self._call("cancel", request.replay_id)
        return replay_pb2.CancelReplayResponse(replay=await self._replay(request.replay_id))

    async def ListReplayDifferences(
        self, request: replay_pb2.ListReplayDifferencesRequest, context: Context
    ) -> replay_pb2.ListReplayDifferencesResponse:
        """What is not the same."""
        check.text(request.replay_id, "replay_id", required=True)
        page = Page(request, (int,))
        after: int = page.after[0] if page.after else 0
        rows = await self._call("differences", request.replay_id, check.text(request.shipment_id, "shipment_id"), after, page.limit)
        shown, token = page.cut(rows, lambda row: (after + page.size,))
        return replay_pb2.ListReplayDifferencesResponse(differences=[difference(row) for row in shown], next_page_token=token)

    async def _replay(self, replay_id: str) -> replay_pb2.Replay:
        check.text(replay_id, "replay_id", required=True)
        row = await self._backend.read(queries.replay, replay_id)
        if row is None:
            raise NotFound("no such replay", field="replay_id", value=replay_id)
        return message(row, self._coordinator.archive)

    async def _call(self, method: str, *arguments: Any) -> Any:
        """Ask the coordinator; all that it is asked may be asked again. Raises DomainError."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                handle = await asyncio.to_thread(self._coordinator.find)
                return await getattr(handle, method).remote(*arguments)
            except RayTaskError as error:
                raise meaning_of(error) from None
            except (RayError, ValueError) as error:  # it is being made, or made anew
                if time.monotonic() > until:
                    raise meaning_of(error) from None
            await asyncio.sleep(WATCH_S)


def parameters_of(request: replay_pb2.StartReplayRequest) -> dict[str, Any]:
    """The question as data. Raises InvalidArgument."""
    if request.kind not in KINDS:
        raise InvalidArgument("must be VERIFY, ARRIVAL or WHAT_IF", field="kind", value=request.kind)
    for field, longest in (("shipment_ids", MOST_SHIPMENTS), ("months", MOST_MONTHS)):
        if len(getattr(request, field)) > longest:
            raise InvalidArgument(f"must be at most {longest}", field=field, value=len(getattr(request, field)))
    for at, month in enumerate(request.months):
        if not MONTH.fullmatch(month):
            raise InvalidArgument("must be YYYY-MM", field=f"months[{at}]", value=month)
    for at, shipment_id in enumerate(request.shipment_ids):
        check.text(shipment_id, f"shipment_ids[{at}]", required=True)
    return {
        "kind": KINDS[request.kind],
        "shipment_ids": sorted(set(request.shipment_ids)),
        "months": sorted(set(request.months)),
        "rules": _rules(request),
    }


def _rules(request: replay_pb2.StartReplayRequest) -> dict[str, Any]:
    if not request.rules_json:
        return {}
    if len(request.rules_json) > RULES_BYTES:
        raise InvalidArgument("must be at most 1 MiB", field="rules_json", value=f"{len(request.rules_json)} characters")
    try:
        rules = json.loads(request.rules_json)
    except (ValueError, RecursionError) as wrong:
        raise InvalidArgument(f"must be JSON: {wrong}", field="rules_json", value=request.rules_json[:40]) from None
    if not isinstance(rules, dict):
        raise InvalidArgument("must be a JSON object", field="rules_json", value=request.rules_json[:40])
    return rules


def message(row: Replay, archive: str) -> replay_pb2.Replay:
    """A replay's row in the contract's form. archive: where it lies today; results lie below it."""
    asked = row.parameters
    made = replay_pb2.Replay(
        replay_id=row.replay_id,
        kind=next(number for number, kind in KINDS.items() if kind == row.kind),
        state=check.number(replay_pb2.ReplayState, row.state),
        shipment_ids=asked["shipment_ids"],
        months=asked["months"],
        rules_json=json.dumps(asked["rules"], sort_keys=True) if asked["rules"] else "",
        actor=row.created_by,
        created_time=check.timestamp(row.created_us),
        finished_time=check.timestamp(row.finished_us),
        parts_done=row.parts_done,
        parts=row.parts,
        counts=row.counts,
        location=f"{archive}/replays/{row.replay_id}",
        error=row.error,
    )
    if row.summary:
        made.summary.CopyFrom(_summary(row.summary))
    return made


def _summary(found: Mapping[str, Any]) -> replay_pb2.ReplaySummary:
    excursions, alerts = found.get("excursions", {}), found.get("alerts_per_day", {})
    return replay_pb2.ReplaySummary(
        identical=found.get("identical"),
        verdict_changes=found.get("verdict_changes", {}),
        excursions_appeared=excursions.get("appeared", 0),
        excursions_vanished=excursions.get("vanished", 0),
        excursions_changed=excursions.get("changed", 0),
        lots_affected=found.get("lots_affected", ()),
        alerts_per_day_before=alerts.get("before"),
        alerts_per_day_after=alerts.get("after"),
    )


def difference(row: Mapping[str, Any]) -> replay_pb2.ReplayDifference:
    """A row of a result's differences in the contract's form."""
    made = replay_pb2.ReplayDifference(
        shipment_id=row["shipment_id"],
        tag_id=row["tag_id"],
        custody_id=str(row["custody_id"]),
        subject=row["subject"],
        name=row["name"],
        change=check.number(replay_pb2.DifferenceChange, row["change"].upper()),
        fields=[field for field in (row["fields"] or "").split(",") if field],
        lots=row["lots"] or (),
    )
    for side in ("before", "after"):
        if any(value is not None for name, value in row.items() if name.startswith(f"{side}_")):
            getattr(made, side).CopyFrom(_facts(row, side))
    return made


def _facts(row: Mapping[str, Any], side: str) -> replay_pb2.ReplayFacts:
    return replay_pb2.ReplayFacts(
        started_time=check.timestamp(row[f"{side}_started_at"]),
        triggered_time=check.timestamp(row[f"{side}_triggered_at"]),
        ended_time=check.timestamp(row[f"{side}_ended_at"]),
        violation_us=row[f"{side}_violation_us"],
        covered_us=row[f"{side}_covered_us"],
        uncovered_us=row[f"{side}_uncovered_us"],
        extreme=row[f"{side}_extreme"],
        extreme_time=check.timestamp(row[f"{side}_extreme_at"]),
        mean=row[f"{side}_mean"],
        readings=row[f"{side}_readings"],
    )
