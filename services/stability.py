"""What is left of a lot's stability budget: its way through places by the ledgers, and what each carrier's tags saw told by shards."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from actors.journal import queries_business as business
from actors.journal import queries_stock as queries
from actors.journal.tables import Custody, Item, Movement, StockLeg
from actors.rules.plan import Plan
from actors.rules.readings import FOREVER_US
from actors.rules.stability import Band, Place, Step, Use, exposures, worst_of
from actors.rules.stock import ON_HAND
from services.backend import Backend, Context, left
from services.shards import ask, now_us

DEFAULT_MAX_GAP_US = 3_600_000_000
"""How long a reading holds on a carrier without a profile: the handbook's default."""

Span = tuple[Place, int, int]


async def of_lot(backend: Backend, lot_id: str, item: Item, context: Context) -> tuple[list[Band], dict[Place, Use]]:
    """The item's bands, and what each part of the lot has used of them by now. Empty where the item has no budget."""
    bands = [Band(one["metric"], one["low"], one["high"], one["allowance_us"]) for one in item.stability_budget]
    if not bands:
        return [], {}
    legs = await backend.read(queries.legs_of_lot, lot_id)
    papers = await backend.read(queries.in_transit_by_lot, lot_id)
    way = steps(legs)
    shipped = {place for step in way for place in step.targets if place.carrier.startswith("shipment/")}
    aboard = [(Place(*one), 0) for one in papers if Place(*one) not in shipped]
    until_us = now_us()
    wanted: dict[Span, None] = {}

    def noted(place: Place, from_us: int, to_us: int) -> Use:
        wanted[place, from_us, to_us] = None
        return Use((0,) * len(bands), (0,) * len(bands))

    exposures(way, aboard, len(bands), noted, until_us)  # which spans count does not depend on what they hold
    seen = await _seen(backend, list(wanted), bands, context)
    return bands, exposures(way, aboard, len(bands), lambda *span: seen[span], until_us)


def steps(legs: Sequence[tuple[StockLeg, Movement]]) -> list[Step]:
    """A lot's movements as steps between places. Legs stand by time; those of one movement stand together.

    What came off a shipment by its papers alone has been there from the shipment's beginning.
    """
    amounts: dict[Place, Any] = {}
    found: list[Step] = []
    at = 0
    while at < len(legs):
        first, movement = legs[at]
        mine = []
        while at < len(legs) and (legs[at][0].ledger, legs[at][0].number) == (first.ledger, first.number):
            mine.append(legs[at])
            at += 1
        sources: dict[Place, None] = {}
        targets: dict[Place, None] = {}
        for row, _ in mine:
            place = place_of(row)
            amounts[place] = amounts.get(place, 0) + row.quantity
            (sources if row.quantity < 0 else targets)[place] = None
        if movement.kind == "RECEIVE" and movement.shipment_id and not sources:
            sources[Place(f"shipment/{movement.shipment_id}", movement.body["handling_unit_id"])] = None
        emptied = tuple(place for place in sources if amounts.get(place, 0) <= 0 and place not in targets)
        found.append(Step(first.at_us, tuple(sources), tuple(targets), emptied))
    return found


def place_of(row: StockLeg) -> Place:
    """Where a leg's goods are."""
    carrier = f"zone/{row.warehouse_id}/{row.zone_id}" if row.status in ON_HAND else f"shipment/{row.shipment_id}"
    return Place(carrier, row.handling_unit_id)


async def _seen(backend: Backend, spans: Sequence[Span], bands: Sequence[Band], context: Context) -> dict[Span, Use]:
    """What the goods of each span used: per band the largest over the unit's own tags, or else over the carrier's."""
    riding: dict[Span, list[dict[str, Any]]] = {}
    known: dict[str, tuple[list[Custody], Plan | None]] = {}
    for span in spans:
        place, from_us, until_us = span
        if place.carrier not in known:
            custodies = await backend.read(business.custodies, place.carrier, limit=100_000)
            plan = await backend.read(business.plan, place.carrier)
            known[place.carrier] = custodies, None if plan is None else Plan.from_data(plan.body)
        riding[span] = _tags(*known[place.carrier], place, from_us, until_us)
    by_shard: dict[int, list[tuple[Span, dict[str, Any]]]] = {}
    for span, tags in riding.items():
        for tag in tags:
            by_shard.setdefault(backend.shard_of(tag["tag_id"]), []).append((span, tag))
    answers = await asyncio.gather(
        *(
            ask(
                backend.shards, shard, "query", "tag.band_use",
                {"bands": [tuple(band) for band in bands], "spans": [tag for _, tag in asked]}, remaining_s=left(context),
            )
            for shard, asked in by_shard.items()
        )
    )  # fmt: skip
    per_tag: dict[tuple[Span, str], list[list[int]]] = {}
    for asked, answer in zip(by_shard.values(), answers, strict=True):
        for (span, tag), found in zip(asked, answer, strict=True):
            sums = per_tag.setdefault((span, tag["tag_id"]), [[0, 0] for _ in bands])
            for total, (used, covered) in zip(sums, found, strict=True):
                total[0] += used
                total[1] += covered
    return {span: _largest(span, riding[span], per_tag, len(bands)) for span in spans}


def _tags(custodies: Sequence[Custody], plan: Plan | None, place: Place, from_us: int, until_us: int) -> list[dict[str, Any]]:
    """The stretches of tags that tell of a place within a span: the unit's own tags, or else the carrier's."""
    there = [one for one in custodies if one.from_us < until_us and (one.until_us or FOREVER_US) > from_us]
    own = [one for one in there if place.handling_unit_id and one.handling_unit_id == place.handling_unit_id]
    profile = None if plan is None else plan.profile_at(until_us)
    gap_us = DEFAULT_MAX_GAP_US if profile is None else profile.max_gap_us
    return [
        {
            "tag_id": one.tag_id, "custody_from_us": one.from_us, "from_us": max(one.from_us, from_us),
            "until_us": min(one.until_us or FOREVER_US, until_us), "max_gap_us": gap_us,
        }
        for one in own or [one for one in there if not one.handling_unit_id] or there
    ]  # fmt: skip


def _largest(span: Span, tags: Sequence[Mapping[str, Any]], per_tag: Mapping[tuple[Span, str], list[list[int]]], bands: int) -> Use:
    """Per band the largest of the tags; what they do not cover is counted from when the first of them rode there, or the span began."""
    _, from_us, until_us = span
    if not tags:
        return Use((0,) * bands, ((until_us - from_us) if from_us else 0,) * bands)
    begin_us = from_us or min(tag["from_us"] for tag in tags)
    names = dict.fromkeys(tag["tag_id"] for tag in tags)
    uses = [per_tag[span, name] for name in names]
    return worst_of(
        [Use(tuple(used for used, _ in one), tuple(until_us - begin_us - covered for _, covered in one)) for one in uses], bands
    )
