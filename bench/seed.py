"""Tags put on shipments in bulk, while no Waybill runs: the state that as many assignments would have left, as rows and snapshots.

A million `AssignTag` calls would take longer than everything that is measured. The state is made by what makes an assignment's effect.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from sqlalchemy import Connection, Table, insert, update

from actors.directory import shard_of
from actors.journal import rows, snapshot
from actors.journal.database import reader, writer
from actors.journal.tables import Custody, ShardOwner, Tag
from actors.rules import readings
from actors.rules.plan import Plan
from actors.sensor_tag import SensorTags
from actors.tags.custodies import OpenCustody
from bench.workload import Workload

ROWS_AT_ONCE = 50_000
NOTHING: Any = None
"""What the tags would ask the database: a fresh custody asks nothing."""


def carrier_of(work: Workload, tag: int) -> str:
    """The carrier that a tag rides on."""
    return f"shipment/bench-{tag // work.tags_per_shipment}"


def assign(url: str, shards: int, ring_bytes: int, work: Workload, first: int, until: int) -> None:
    """Put the tags first ... until - 1 on their shipments, whose plans are in the database. No shard has tags yet."""
    engine = reader(url)
    with engine.connect() as connection:
        plans = {carrier: json.loads(body) for carrier, body in connection.exec_driver_sql("SELECT carrier, body FROM carrier_plan").all()}
    engine.dispose()
    with ProcessPoolExecutor(min(shards, 4), mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_state, shard, shards, ring_bytes, work, first, until, plans) for shard in range(shards)]
        made = [job.result() for job in jobs]
    now_us = time.time_ns() // 1000
    engine = writer(url)
    for shard, (tags, custody_ids, state) in enumerate(made):
        names = [f"bench-{tag:07d}" for tag in tags]
        tag_row = rows.values(Tag(tag_id="", shard=shard, local_index=0, created_us=now_us, updated_us=now_us))
        custody_row = rows.values(Custody(custody_id=0, shard=shard, tag_id="", carrier="", from_us=work.start_us, assigned_us=now_us))
        with engine.connect() as connection:
            _insert(connection, rows.table_of(Tag), tag_row, {"tag_id": names, "local_index": range(len(tags))})
            carriers = [carrier_of(work, tag) for tag in tags]
            _insert(connection, rows.table_of(Custody), custody_row, {"custody_id": custody_ids, "tag_id": names, "carrier": carriers})
            with connection.begin():
                owner = rows.table_of(ShardOwner)
                connection.execute(update(owner).where(owner.c.shard == shard).values(journal_head=1, snapshot_sequence=1))
                for commit in snapshot.save(shard, 1, 1, state, now_us):
                    rows.upsert(
                        connection,
                        snapshot.SNAPSHOT,
                        [
                            {"shard": shard, "sequence": 1, "part": part.part, "parts": part.parts, "made_us": now_us,
                             "checksum": part.checksum, "blob": part.blob}
                            for part in commit.snapshot
                        ],
                    )  # fmt: skip
    engine.dispose()


def _insert(connection: Connection, table: Table, row: dict[str, Any], own: dict[str, Sequence[Any]]) -> None:
    """Insert a row for each place of the columns `own`, in all else like `row`: the first one, and the others as SQLite's copies of it."""
    many = len(next(iter(own.values())))
    columns = [column.name for column in table.columns]
    key = next(iter(own))
    copy = (
        f"INSERT INTO {table.name} ({', '.join(columns)}) "
        f"SELECT {', '.join('?' if name in own else name for name in columns)} FROM {table.name} WHERE {key} = ?"
    )
    ordered = [own[name] for name in columns if name in own]
    first = own[key][0] if many else None
    for at in range(0, many, ROWS_AT_ONCE):
        with connection.begin():
            if at == 0:
                connection.execute(insert(table), [{**row, **{name: values[0] for name, values in own.items()}}])
            low, high = max(at, 1), min(at + ROWS_AT_ONCE, many)
            if low < high:
                connection.exec_driver_sql(copy, [(*values, first) for values in zip(*(one[low:high] for one in ordered), strict=True)])


def _state(
    shard: int, shards: int, ring_bytes: int, work: Workload, first: int, until: int, plans: dict[str, Any]
) -> tuple[list[int], list[int], bytes]:
    """The tags of a shard, their custody ids and the snapshot of the shard's state."""
    readings.warm_up()
    state = SensorTags(shard, ring_bytes, NOTHING)
    mine = [tag for tag in range(first, until) if shard_of(f"bench-{tag:07d}", shards) == shard]
    state.add(f"bench-{tag:07d}" for tag in mine)
    custody_ids = [state.next_id() for _ in mine]
    riding: dict[str, list[OpenCustody]] = {}
    for at, tag in enumerate(mine):
        carrier = carrier_of(work, tag)
        riding.setdefault(carrier, []).append(OpenCustody(custody_ids[at], at, carrier, "", work.start_us, {}))
    for carrier, custodies in riding.items():
        state.head.bind_all(custodies, state.head.rulebook.put(Plan.from_data(plans[carrier])))
    return mine, custody_ids, state.dump()
