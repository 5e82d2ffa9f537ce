"""TagService: what a device is, how it is doing, where it rides, and what of it is missing, silent or in conflict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from actors.journal import queries_business as business
from actors.journal import queries_doors as queries
from actors.journal.tables import Conflict, Custody, CustodyRevision, Tag
from actors.rules import completeness
from actors.rules.errors import DomainError, InvalidArgument, NotFound
from actors.rules.readings import CODE, FOREVER_US, NOT_EVALUATED, Batch
from services import check
from services.backend import Backend, Context
from services.convert import told
from services.paging import Page
from services.tag_ids import valid_tag_id
from services.wire import METRIC_OF_CODE
from waybill.v1 import common_pb2, tag_pb2, tag_pb2_grpc

KINDS = tag_pb2.TagKind
UPDATABLE = ("kind", "usual_interval_s", "quality", "labels", "description")
CORRECTABLE = ("from_time", "until_time", "retracted")
SILENT_AFTER = 3
"""A silence is longer than so many usual intervals (handbook 4)."""
MISSING_SHOWN = 100

NUMBERS = (
    "fail_low", "fail_high", "suspect_low", "suspect_high", "spike_suspect", "spike_fail",
    "rate_per_s", "flat_tolerance", "flat_suspect_s", "flat_fail_s", "gap_s",
)  # fmt: skip
"""Fields of QualityTests that are the same in rules.quality.MetricSettings, where durations are in microseconds."""
DURATIONS = frozenset({"flat_suspect_s", "flat_fail_s", "gap_s"})


class Tags(tag_pb2_grpc.TagServiceServicer):
    """See tag.proto."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def RegisterTag(self, request: tag_pb2.RegisterTagRequest, context: Context) -> tag_pb2.RegisterTagResponse:
        """Repeating a registration does no harm."""
        tag_id = tag_name(request.tag.tag_id, "tag.tag_id")
        arguments = {"tag_id": tag_id, **settings(request.tag, UPDATABLE)}
        row: Tag = await self._backend.command(tag_id, "tag.register", arguments, context, again=True)
        return tag_pb2.RegisterTagResponse(tag=message(row))

    async def GetTag(self, request: tag_pb2.GetTagRequest, context: Context) -> tag_pb2.GetTagResponse:
        """One tag's registration."""
        return tag_pb2.GetTagResponse(tag=message(await self._tag(request.tag_id)))

    async def ListTags(self, request: tag_pb2.ListTagsRequest, context: Context) -> tag_pb2.ListTagsResponse:
        """Tags by id."""
        page = Page(request, (str,))
        after = page.after[0] if page.after else ""
        rows = await self._backend.read(queries.tags, after=after, limit=page.limit, prefix=request.id_prefix, carrier=request.carrier)
        shown, token = page.cut(rows, lambda row: (row.tag_id,))
        return tag_pb2.ListTagsResponse(tags=[message(row) for row in shown], next_page_token=token)

    async def UpdateTag(self, request: tag_pb2.UpdateTagRequest, context: Context) -> tag_pb2.UpdateTagResponse:
        """Change what the mask names."""
        tag_id = tag_name(request.tag.tag_id, "tag.tag_id")
        fields = check.masked(request.tag, request.update_mask, UPDATABLE)
        arguments = {"tag_id": tag_id, "etag": check.etag(request.tag.etag, "tag.etag"), **settings(request.tag, fields)}
        row: Tag = await self._change(tag_id, "tag.update", arguments, "tag.", context)
        return tag_pb2.UpdateTagResponse(tag=message(row))

    async def GetTagTwin(self, request: tag_pb2.GetTagTwinRequest, context: Context) -> tag_pb2.GetTagTwinResponse:
        """What the tag's shard knows of it now."""
        tag_id = tag_name(request.tag_id)
        twin = await self._backend.query(tag_id, "tag.twin", {"tag_id": tag_id}, context)
        counts = await self._backend.query(tag_id, "tag.flag_counts", {"tag_id": tag_id}, context)
        flags = await self._newest_flags(tag_id, twin, context)
        interval_us = twin["usual_interval_us"]
        values = [
            tag_pb2.LastValue(
                metric=METRIC_OF_CODE[CODE[name]],  # type: ignore[arg-type]
                value=last["value"],
                sensed_time=check.timestamp(last["sensed_us"]),
                flag=flags.get(name, NOT_EVALUATED),  # type: ignore[arg-type]
            )
            for name, last in twin["values"].items()
        ]
        return tag_pb2.GetTagTwinResponse(
            twin=tag_pb2.TagTwin(
                tag_id=tag_id,
                last_sensed_time=check.timestamp(twin["newest_us"]),
                last_received_time=check.timestamp(twin["received_us"]),
                last_values=values,
                battery_v=twin["values"].get("battery_v", {}).get("value"),
                counters=tag_pb2.TagCounters(
                    accepted=twin["accepted"],
                    duplicate=twin["duplicate"],
                    conflicting=twin["conflicting"],
                    late=twin["late"],
                    fail=counts["fail"],
                    suspect=counts["suspect"],
                    future=twin["in_future"],
                ),
                silent=twin["silent"],
                usual_interval_s=None if interval_us is None else interval_us / 1e6,
                usual_interval_learned=interval_us is not None and twin["usual_interval_learnt"],
                carrier=twin["carrier"] or "",
                handling_unit_id=twin["handling_unit_id"] or "",
                custody_id=twin["custody_id"] or 0,
                shard=twin["shard"],
            )
        )

    async def ListSilences(self, request: tag_pb2.ListSilencesRequest, context: Context) -> tag_pb2.ListSilencesResponse:
        """Gaps in the tag's stored readings, and the one that lasts."""
        tag_id = tag_name(request.tag_id)
        from_us, until_us = check.interval_us(request)
        page = Page(request, (int,))
        twin = await self._backend.query(tag_id, "tag.twin", {"tag_id": tag_id}, context)
        batch, _ = await self._backend.series(tag_id, from_us, until_us, context)
        if request.HasField("longer_than_s"):
            if request.longer_than_s <= 0:
                raise InvalidArgument("must be above 0", field="longer_than_s", value=request.longer_than_s)
            longer_us = round(request.longer_than_s * 1e6)
        else:
            longer_us = SILENT_AFTER * (twin["usual_interval_us"] or usual_us(batch) or FOREVER_US // SILENT_AFTER)
        ends = np.unique(batch.sensed_us)
        long = np.flatnonzero(np.diff(ends) > longer_us)
        found: list[tuple[int, int | None]] = [(int(ends[i]), int(ends[i + 1])) for i in long]
        if until_us is None and twin["silent"] and len(ends):
            found.append((int(ends[-1]), None))
        after = page.after[0] if page.after else -1
        rows = [silence for silence in found if silence[0] > after]
        shown, token = page.cut(rows, lambda silence: (silence[0],))
        return tag_pb2.ListSilencesResponse(
            silences=[tag_pb2.Silence(from_time=check.timestamp(a), until_time=check.timestamp(b)) for a, b in shown],
            next_page_token=token,
        )

    async def ListConflicts(self, request: tag_pb2.ListConflictsRequest, context: Context) -> tag_pb2.ListConflictsResponse:
        """What was put aside, beside what was kept."""
        tag = await self._tag(request.tag_id)
        page = Page(request, (int, int))
        after: Any = page.after
        rows = await self._backend.read(queries.conflicts, tag.tag_id, after=after, limit=page.limit)
        shown, token = page.cut(rows, lambda row: (row.sequence, row.ordinal))
        if not shown:
            return tag_pb2.ListConflictsResponse()
        from_us, until_us = min(row.sensed_us for row in shown), max(row.sensed_us for row in shown) + 1
        if any(row.reading_sequence >= 0 for row in shown):  # the one that was kept may have any time
            from_us, until_us = 0, FOREVER_US
        batch, _ = await self._backend.series(tag.tag_id, from_us, until_us, context)
        return tag_pb2.ListConflictsResponse(conflicts=[conflict_message(row, batch) for row in shown], next_page_token=token)

    async def GetCompleteness(self, request: tag_pb2.GetCompletenessRequest, context: Context) -> tag_pb2.GetCompletenessResponse:
        """Sequences expected, received and missing, per custody and boot."""
        tag = await self._tag(request.tag_id)
        custodies = [row for row in await self._all_custodies(tag.tag_id) if not row.retracted]
        if request.custody_id:
            custodies = [row for row in custodies if row.custody_id == request.custody_id]
            if not custodies:
                raise NotFound("the tag has no such custody", field="custody_id", value=request.custody_id)
        batch, _ = await self._backend.series(tag.tag_id, None, None, context)
        outside = np.ones(len(batch), np.bool_)
        rows: list[tag_pb2.Completeness] = []
        for custody in custodies:
            end_us = FOREVER_US if custody.until_us is None else custody.until_us
            inside = (batch.sensed_us >= custody.from_us) & (batch.sensed_us < end_us)
            outside &= ~inside
            rows.extend(completeness_messages(tag.tag_id, custody.custody_id, batch, inside))
        if not request.custody_id:
            rows.extend(completeness_messages(tag.tag_id, 0, batch, outside))
        return tag_pb2.GetCompletenessResponse(completeness=rows)

    async def ListCustodies(self, request: tag_pb2.ListCustodiesRequest, context: Context) -> tag_pb2.ListCustodiesResponse:
        """Of one tag or of one carrier."""
        page = Page(request, (int, int))
        after: Any = page.after
        if check.one_of(request, ("tag_id", "carrier")) == "tag_id":
            tag = await self._tag(request.tag_id)
            rows = await self._backend.read(queries.tag_custodies, tag.tag_id, after=after, limit=page.limit)
        else:
            if await self._backend.read(business.plan, request.carrier) is None:
                raise NotFound("no such carrier", field="carrier", value=request.carrier)
            rows = await self._backend.read(business.custodies, request.carrier, after=after, limit=page.limit, retracted=True)
        shown, token = page.cut(rows, lambda row: (row.from_us, row.custody_id))
        histories: Mapping[int, Sequence[CustodyRevision]] = {}
        if request.include_history:
            histories = await self._backend.read(queries.custody_histories, [row.custody_id for row in shown])
        return tag_pb2.ListCustodiesResponse(
            custodies=[custody_message(row, histories.get(row.custody_id, ())) for row in shown], next_page_token=token
        )

    async def CorrectCustody(self, request: tag_pb2.CorrectCustodyRequest, context: Context) -> tag_pb2.CorrectCustodyResponse:
        """Another start or end, or that it never was."""
        given = request.custody
        tag_id = tag_name(given.tag_id, "custody.tag_id")
        if not given.custody_id:
            raise InvalidArgument("must be given", field="custody.custody_id")
        if not given.etag:
            raise InvalidArgument("must be given: read the custody, then decide", field="custody.etag")
        fields = check.masked(given, request.update_mask, CORRECTABLE)
        arguments: dict[str, Any] = {
            "tag_id": tag_id,
            "custody_id": given.custody_id,
            "etag": check.etag(given.etag, "custody.etag"),
            "corrected_by": check.text(request.actor, "actor", required=True),
            "note": check.text(request.reason, "reason", required=True, longest=check.NOTE_MAX),
        }
        if "retracted" in fields:
            arguments["retract"] = given.retracted
        if "from_time" in fields:
            arguments["from_us"] = check.time_us(given, "from_time", "custody.")
            if arguments["from_us"] is None:
                raise InvalidArgument("must be given", field="custody.from_time")
        if "until_time" in fields:
            arguments["until_us"] = check.time_us(given, "until_time", "custody.")
            arguments["reopen"] = arguments["until_us"] is None
        row: Custody = await self._change(tag_id, "tag.correct_custody", arguments, "custody.", context)
        return tag_pb2.CorrectCustodyResponse(custody=custody_message(row))

    async def _change(self, tag_id: str, name: str, arguments: Mapping[str, Any], within: str, context: Context) -> Any:
        """A command whose refusals name etag and times as they stand in the request."""
        try:
            return await self._backend.command(tag_id, name, arguments, context)
        except DomainError as refusal:
            if refusal.field not in ("etag", "from", "until"):
                raise
            refusal = told(refusal)
            raise type(refusal)(refusal.rule, field=within + refusal.field, value=refusal.value) from None

    async def _tag(self, tag_id: str) -> Tag:
        tag_name(tag_id)
        row = await self._backend.read(queries.tag, tag_id)
        if row is None:
            raise NotFound("no such tag", field="tag_id", value=tag_id)
        return row

    async def _all_custodies(self, tag_id: str) -> list[Custody]:
        return await self._backend.read(queries.tag_custodies, tag_id, limit=100_000)

    async def _newest_flags(self, tag_id: str, twin: Mapping[str, Any], context: Context) -> dict[str, int]:
        """QARTOD flag of the newest value of each metric; without quality settings none is evaluated."""
        row = await self._backend.read(queries.tag, tag_id)
        if row is None or row.quality is None or not twin["values"]:
            return {}
        found: dict[str, int] = {}
        for at_us in sorted({last["sensed_us"] for last in twin["values"].values()}):
            batch, flags = await self._backend.series(tag_id, at_us, at_us + 1, context)
            for name, last in twin["values"].items():
                if last["sensed_us"] == at_us and CODE[name] in batch.codes:
                    k = batch.codes.index(CODE[name])
                    there = np.flatnonzero(~np.isnan(batch.values[k]))
                    if len(there):
                        found[name] = int(flags[k, there[-1]])
        return found


def tag_name(tag_id: str, field: str = "tag_id") -> str:
    """A well-formed tag id; else InvalidArgument."""
    rule = valid_tag_id(tag_id)
    if rule:
        raise InvalidArgument(rule, field=field, value=tag_id)
    return tag_id


def usual_us(batch: Batch) -> int | None:
    """The median distance of a series' readings; None below three."""
    times = np.unique(batch.sensed_us)
    return int(np.median(np.diff(times))) if len(times) >= 3 else None


def settings(tag: tag_pb2.Tag, fields: Sequence[str]) -> dict[str, Any]:
    """Arguments of the commands that register and update tags."""
    given: dict[str, Any] = {}
    if "kind" in fields:
        given["kind"] = check.word(KINDS, tag.kind)
    if "description" in fields:
        given["description"] = check.text(tag.description, "tag.description", longest=check.NOTE_MAX)
    if "labels" in fields:
        given["attributes"] = dict(tag.labels)
    if "usual_interval_s" in fields:
        given["usual_interval_us"] = None
        if tag.HasField("usual_interval_s"):
            if tag.usual_interval_s <= 0:
                raise InvalidArgument("must be above 0", field="tag.usual_interval_s", value=tag.usual_interval_s)
            given["usual_interval_us"] = round(tag.usual_interval_s * 1e6)
    if "quality" in fields:
        given["quality"] = quality(tag.quality)
    return given


def quality(tests: Sequence[tag_pb2.QualityTests]) -> dict[str, Any] | None:
    """Quality settings as rules.quality.QualitySettings.to_data gives them; None: none."""
    if not tests:
        return None
    data: dict[str, Any] = {"metrics": {}}
    for place, test in enumerate(tests):
        field = f"tag.quality[{place}].metric"
        name = check.word(common_pb2.Metric, test.metric).lower()
        if not name:
            raise InvalidArgument("must be given", field=field)
        if name in data["metrics"]:
            raise InvalidArgument(f"{name} is there twice", field=field, value=test.metric)
        metric: dict[str, Any] = {}
        for number in NUMBERS:
            if test.HasField(number):  # type: ignore[arg-type]
                metric[number] = getattr(test, number)
        for duration in DURATIONS & metric.keys():
            metric[f"{duration[:-2]}_us"] = round(metric.pop(duration) * 1e6)
        data["metrics"][name] = metric
        for speed in ("speed_suspect_mps", "speed_fail_mps"):
            if test.HasField(speed):
                if test.metric != common_pb2.METRIC_LATITUDE_DEG:
                    raise InvalidArgument("is a test of METRIC_LATITUDE_DEG only", field=f"tag.quality[{place}].{speed}")
                data[speed] = getattr(test, speed)
    return data


def tests_of(data: Mapping[str, Any] | None) -> list[tag_pb2.QualityTests]:
    """The contract's form of quality settings."""
    if data is None:
        return []
    found = []
    for name, metric in sorted(data.get("metrics", {}).items(), key=lambda pair: CODE[pair[0]]):
        tests = tag_pb2.QualityTests(metric=METRIC_OF_CODE[CODE[name]])  # type: ignore[arg-type]
        for key, value in metric.items():
            if value is not None:
                outside, shown = (f"{key[:-3]}_s", value / 1e6) if key.endswith("_us") else (key, value)
                setattr(tests, outside, shown)
        if name == "latitude_deg":
            for speed in ("speed_suspect_mps", "speed_fail_mps"):
                if data.get(speed) is not None:
                    setattr(tests, speed, data[speed])
        found.append(tests)
    return found


def message(row: Tag) -> tag_pb2.Tag:
    """A tag's row in the contract's form."""
    return tag_pb2.Tag(
        tag_id=row.tag_id,
        kind=check.number(KINDS, row.kind),
        usual_interval_s=None if row.usual_interval_us is None else row.usual_interval_us / 1e6,
        quality=tests_of(row.quality),
        labels=row.attributes,
        description=row.description,
        shard=row.shard,
        created_time=check.timestamp(row.created_us),
        etag=str(row.etag),
    )


def custody_message(row: Custody, history: Sequence[CustodyRevision] = ()) -> tag_pb2.Custody:
    """A custody's row in the contract's form; with `history` what it said at each etag."""
    return tag_pb2.Custody(
        custody_id=row.custody_id,
        tag_id=row.tag_id,
        carrier=row.carrier,
        handling_unit_id=row.handling_unit_id or "",
        from_time=check.timestamp(row.from_us),
        until_time=check.timestamp(row.until_us),
        etag=str(row.etag),
        actor=row.ended_by or row.assigned_by,
        reason=row.note,
        recorded_time=check.timestamp(row.ended_us or row.assigned_us),
        retracted=row.retracted,
        history=[
            tag_pb2.CustodyRevision(
                carrier=said.body.get("carrier", ""),
                handling_unit_id=said.body.get("handling_unit_id") or "",
                from_time=check.timestamp(said.body.get("from_us")),
                until_time=check.timestamp(said.body.get("until_us")),
                actor=said.by,
                reason=said.body.get("note", ""),
                recorded_time=check.timestamp(said.at_us),
                retracted=bool(said.body.get("retracted", False)),
                cause=said.cause,
                etag=str(said.etag),
            )
            for said in history
        ],
    )


def conflict_message(row: Conflict, accepted: Batch) -> tag_pb2.ReadingConflict:
    """A reading that was put aside, with the values in which it differs from what was kept of `accepted`, the tag's series."""
    found = tag_pb2.ReadingConflict(sensed_time=check.timestamp(row.sensed_us), received_time=check.timestamp(row.received_us))
    if row.reading_sequence >= 0:
        found.boot, found.sequence = row.boot, row.reading_sequence
        same = (accepted.boot == row.boot) & (accepted.sequence == row.reading_sequence)
    else:
        same = accepted.sensed_us == row.sensed_us
    kept: dict[int, float] = {}
    for at in np.flatnonzero(same).tolist():
        found.kept_sensed_time.FromMicroseconds(int(accepted.sensed_us[at]))
        for k, code in enumerate(accepted.codes):
            if not np.isnan(accepted.values[k, at]):
                kept.setdefault(code, float(accepted.values[k, at]))
    aside = {CODE[name]: float(value) for name, value in row.content.items() if name in CODE and value is not None}
    for code in sorted(kept.keys() | aside.keys()):
        if kept.get(code) != aside.get(code):
            metric: Any = METRIC_OF_CODE[code]
            found.values.add(metric=metric, kept=kept.get(code), aside=aside.get(code))
    return found


def completeness_messages(tag_id: str, custody_id: int, batch: Batch, inside: Any) -> list[tag_pb2.Completeness]:
    """One row per boot of a tag's readings in one custody (or outside any)."""
    found = completeness.complete(batch.boot[inside], batch.sequence[inside])
    rows = []
    for boot, record in sorted(found.boots.items()):
        holes = [(a[1] + 1, b[0] - 1) for a, b in zip(record.ranges, record.ranges[1:], strict=False)]
        rows.append(
            tag_pb2.Completeness(
                tag_id=tag_id,
                custody_id=custody_id,
                boot=boot,
                first_sequence=record.ranges[0][0],
                last_sequence=record.ranges[-1][1],
                expected=record.expected,
                received=record.received,
                missing=record.expected - record.received,
                missing_ranges=[tag_pb2.SequenceRange(first=a, last=b) for a, b in holes[:MISSING_SHOWN]],
            )
        )
    return rows
