"""Other systems' books and ids: what an ERP last told of its stock, and which of its ids mean which things of ours.

Functions for Store.write: each is one transaction, and bears being run twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, select, tuple_, update

from actors.journal import rows
from actors.journal.tables import BookLine, BookSync, Item, Lot, Warehouse, Zone
from actors.journal.tables import Mapping as MappingRow
from actors.rules.errors import AlreadyExists, FailedPrecondition, NotFound, StaleEtag
from actors.rules.stock import ANY

LINE, SYNC, MAPPING = rows.table_of(BookLine), rows.table_of(BookSync), rows.table_of(MappingRow)
ITEM, LOT, WAREHOUSE, ZONE = (rows.table_of(model) for model in (Item, Lot, Warehouse, Zone))


def put(connection: Connection, sync: Mapping[str, Any], lines: Sequence[Sequence[Any]], last: bool, now_us: int) -> int:
    """Write a part of a system's book; with the last part of a full one, lines that it did not tell are gone. A change that tells a lot
    for any status replaces what was told of it by status, and the other way round (rules.stock.changed). The sync's number.

    sync: {system, warehouse_id, number, sync_id, digest, as_of_us, full}. lines: (zone_id, lot_id, status, item_id, quantity, expires_us).
    Raises FailedPrecondition where a newer sync has been taken.
    """
    system, warehouse_id, number = sync["system"], sync["warehouse_id"], sync["number"]
    mine = (SYNC.c.system == system) & (SYNC.c.warehouse_id == warehouse_id)
    there = connection.execute(select(SYNC.c.number, SYNC.c.sync_id).where(mine).with_for_update()).first()
    if there is not None and (there.number > number or (there.number == number and there.sync_id != sync["sync_id"])):
        raise FailedPrecondition("a newer sync of this system has been taken", field="sync_id", value=sync["sync_id"])
    head = {name: sync[name] for name in ("system", "warehouse_id", "number", "sync_id", "digest", "as_of_us")}
    rows.upsert(connection, SYNC, [{**head, "recorded_us": now_us, "complete": last}])
    names = ("zone_id", "lot_id", "status", "item_id", "quantity", "expires_us")
    written = [{"system": system, "warehouse_id": warehouse_id, **dict(zip(names, line, strict=True)), "number": number} for line in lines]
    if not sync["full"]:
        for any_status in (True, False):
            told = sorted({(line["zone_id"], line["lot_id"]) for line in written if (line["status"] == ANY) == any_status})
            other = (LINE.c.status != ANY) if any_status else (LINE.c.status == ANY)
            for some in rows.chunks(told):
                there = (LINE.c.system == system) & (LINE.c.warehouse_id == warehouse_id) & other
                connection.execute(delete(LINE).where(there & tuple_(LINE.c.zone_id, LINE.c.lot_id).in_(some)))
    rows.upsert(connection, LINE, written)
    if last and sync["full"]:
        old = (LINE.c.system == system) & (LINE.c.warehouse_id == warehouse_id) & (LINE.c.number < number)
        connection.execute(delete(LINE).where(old))
    return int(number)


def set_expiry(connection: Connection, lots: Sequence[tuple[str, int | None]], now_us: int) -> None:
    """Lots expire when another system says so."""
    for lot_id, expires_us in lots:
        changed = {"expires_us": expires_us, "updated_us": now_us, "etag": LOT.c.etag + 1}
        connection.execute(update(LOT).where(LOT.c.lot_id == lot_id).values(**changed))


def put_mappings(connection: Connection, given: Sequence[Mapping[str, Any]], now_us: int) -> list[dict[str, Any]]:
    """Write mappings, all or none; as they are now. Raises NotFound, AlreadyExists, StaleEtag."""
    found = []
    for one in given:
        meant = _meant(connection, one)
        key = (MAPPING.c.system == one["system"]) & (MAPPING.c.kind == one["kind"])
        same = key & (MAPPING.c.item_id == meant["item_id"]) & (MAPPING.c.warehouse_id == meant["warehouse_id"])
        other = connection.execute(select(MAPPING.c.external_id).where(same & (MAPPING.c.zone_id == meant["zone_id"]))).scalar()
        if other not in (None, one["external_id"]):
            told = f"is mapped to {other} there already"
            raise AlreadyExists(told, field=one["at"] + "external_id", value=one["external_id"])
        row = (
            connection.execute(select(MAPPING).where(key & (MAPPING.c.external_id == one["external_id"])).with_for_update())
            .mappings()
            .first()
        )
        etag = 0 if row is None else row["etag"]
        if one["etag"] is not None and one["etag"] != etag:
            raise StaleEtag(f"is not the current one ({etag})", field=one["at"] + "etag", value=one["etag"])
        if row is not None and all(row[name] == value for name, value in meant.items()):
            found.append(dict(row))
            continue
        key_of = {name: one[name] for name in ("system", "kind", "external_id")}
        written = {**key_of, **meant, "updated_us": now_us, "etag": etag + 1}
        rows.upsert(connection, MAPPING, [written])
        found.append(written)
    return found


def _meant(connection: Connection, one: Mapping[str, Any]) -> dict[str, str]:
    """What a mapping means, by our ids."""
    at = one["at"]
    if one["kind"] == "ITEM":
        name = "item_id" if one["item_id"] else "gtin"
        found = connection.execute(select(ITEM.c.item_id).where(ITEM.c[name] == one[name])).scalar()
        if found is None:
            raise NotFound("no such item", field=at + name, value=one[name])
        return {"item_id": found, "warehouse_id": "", "zone_id": ""}
    name = "warehouse_id" if one["warehouse_id"] else "gln"
    found = connection.execute(select(WAREHOUSE.c.warehouse_id).where(WAREHOUSE.c[name] == one[name])).scalar()
    if found is None:
        raise NotFound("no such warehouse", field=at + name, value=one[name])
    if one["zone_id"]:
        there = (ZONE.c.warehouse_id == found) & (ZONE.c.zone_id == one["zone_id"])
        if connection.execute(select(ZONE.c.zone_id).where(there)).first() is None:
            raise NotFound("the warehouse has no such zone", field=at + "zone_id", value=one["zone_id"])
    return {"item_id": "", "warehouse_id": found, "zone_id": one["zone_id"]}


def delete_mappings(connection: Connection, given: Sequence[Mapping[str, Any]]) -> None:
    """Forget mappings; those that are not there are not minded."""
    for one in given:
        key = (MAPPING.c.system == one["system"]) & (MAPPING.c.kind == one["kind"]) & (MAPPING.c.external_id == one["external_id"])
        connection.execute(delete(MAPPING).where(key))
