"""Inventory: a book of 100,000 lines synchronised, movements in batches, how far the change feed lags, from a reading to its hold.

On SQLite and on PostgreSQL, each in a Waybill of its own; results are held against the ledger and the lots that must be on hold.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from bench.ingest import percentile
from cluster import boot, ray_node
from cluster.client import Client
from cluster.settings import load
from tests.postgres import PostgreSQL
from waybill.v1 import common_pb2, inventory_pb2, item_pb2, profile_pb2, shipment_pb2, telemetry_pb2, warehouse_pb2

BATCH, WRITERS = 1_000, 2
ZONES, ITEMS = 10, 100
MINUTE_US = 60_000_000
RECEIVE, FREE = inventory_pb2.MOVEMENT_KIND_RECEIVE, inventory_pb2.STOCK_STATUS_FREE


def inventory(quick: bool) -> dict[str, Any]:
    """All four on both databases."""
    rows: list[dict[str, Any]] = []
    for kind in ("SQLite", "PostgreSQL"):
        with _running(kind) as (client, target):
            _prepare(client)
            rows += _movements(client, kind, 20_000 if quick else 100_000)
            rows += _lag(target, client, kind, 100 if quick else 300)
            rows += _sync(client, kind, 20_000 if quick else 100_000)
            rows += _holds(target, client, kind, 60 if quick else 300)
            verified = client.call(client.inventory.VerifyStock, inventory_pb2.VerifyStockRequest(warehouse_id="bench-0"), patience_s=120)
            assert not verified.mismatches, f"{len(verified.mismatches)} lines differ from their ledger"
    return {"rows": rows, "clients": 1}


@contextmanager
def _running(kind: str) -> Iterator[tuple[Client, str]]:
    with tempfile.TemporaryDirectory(prefix="waybill-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        server = PostgreSQL(folder / "postgresql") if kind == "PostgreSQL" else None
        if server is not None:
            server.start()
        given = {} if server is None else {"database_url": server.new_database()}
        settings = load({}, data_dir=folder / "data", port=0, ray_namespace="bench", log_level="WARNING", **given)
        ray_node.connect(settings)
        heads = ray_node.head_processes()
        try:
            with boot.start(settings) as running, Client(running.target) as client:
                yield client, running.target
        except BaseException:
            for log in sorted((folder / "data" / "logs").glob("*.log")):
                print(f"{log.name} ends with:\n{log.read_text(errors='replace')[-3000:]}", file=sys.stderr)
            raise
        finally:
            ray_node.disconnect(heads, [], 10)
            if server is not None:
                server.stop()


def _row(label: str, unit: str, repeats: list[float], **more: Any) -> dict[str, Any]:
    return {
        "label": label, "unit": unit, "repeats": repeats, "median": median(repeats), "least": min(repeats), "most": max(repeats), **more,
    }  # fmt: skip


def _prepare(client: Client) -> None:
    limit = profile_pb2.Limit(
        limit_id="warm", metric=common_pb2.METRIC_TEMPERATURE_C, direction=profile_pb2.DIRECTION_ABOVE, threshold=8, allowance_s=0,
        mode=profile_pb2.LIMIT_MODE_SINGLE, severity=common_pb2.SEVERITY_CRITICAL,
    )  # fmt: skip
    profile = profile_pb2.Profile(profile_id="holds", name="holds", limits=[limit], hold_on_excursion=True)
    client.call(client.profiles.CreateProfile, profile_pb2.CreateProfileRequest(profile=profile))
    for number in range(WRITERS):
        zones = [warehouse_pb2.Zone(zone_id=f"z{zone}") for zone in range(ZONES)]
        body = warehouse_pb2.Warehouse(warehouse_id=f"bench-{number}", zones=zones)
        client.call(client.warehouses.CreateWarehouse, warehouse_pb2.CreateWarehouseRequest(warehouse=body))
    for number in range(ITEMS):
        client.call(client.items.CreateItem, item_pb2.CreateItemRequest(item=item_pb2.Item(item_id=f"item-{number}")))


def _movements(client: Client, kind: str, total: int) -> list[dict[str, Any]]:
    """Receipts of lots, then moves and picks of them, in batches of 1,000 to two warehouses at a time."""

    def tell(warehouse: int, base: int, count: int) -> None:
        movements = []
        for number in range(base, base + count):
            lot = f"L{number // 4:06d}"  # four movements of a lot: in, in, put away, pick
            one = inventory_pb2.Movement(
                key=f"m{number}", item_id=f"item-{number // 4 % ITEMS}", lot_number=lot, quantity="5", zone_id=f"z{number // 4 % ZONES}",
                kind=RECEIVE,
            )  # fmt: skip
            if number % 4 == 2:
                one.kind, one.to_zone_id, one.quantity = inventory_pb2.MOVEMENT_KIND_PUT_AWAY, f"z{(number // 4 + 1) % ZONES}", "2"
            elif number % 4 == 3:
                one.kind, one.quantity = inventory_pb2.MOVEMENT_KIND_PICK, "1.5"
            movements.append(one)
        request = inventory_pb2.RecordMovementsRequest(warehouse_id=f"bench-{warehouse}", movements=movements)
        answer = client.call(client.inventory.RecordMovements, request, patience_s=120)
        assert not any(result.HasField("error") for result in answer.results), answer.results[0]

    rates, base, share = [], 0, total // 3 // WRITERS // BATCH * BATCH

    def write(warehouse: int) -> None:
        for at in range(base, base + share, BATCH):
            tell(warehouse, at, BATCH)

    for _ in range(3):
        started = time.perf_counter()
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(write, range(WRITERS)))
        rates.append(share * WRITERS / (time.perf_counter() - started))
        base += share
    return [_row(f"movements in batches of 1,000, {kind}", "movements/s", rates)]


def _watch(target: str, heard: Callable[[Any, float], None]) -> Callable[[], None]:
    """A subscriber of the change feed; `heard` is given each event and when it came. What ends it."""
    client = Client(target)
    call: Any = client.inventory.WatchInventory(inventory_pb2.WatchInventoryRequest())
    ready = threading.Event()

    def listen() -> None:
        try:
            for message in call:
                ready.set()
                if message.WhichOneof("event"):
                    heard(message, time.perf_counter())
        except Exception:
            return  # it was cancelled

    threading.Thread(target=listen, daemon=True).start()
    ready.wait(30)

    def end() -> None:
        call.cancel()
        client.__exit__(None, None, None)

    return end


def _lag(target: str, client: Client, kind: str, count: int) -> list[dict[str, Any]]:
    """Single movements, 50 a second: from calling RecordMovement to its event at a subscriber."""
    came: dict[str, float] = {}

    def heard(message: Any, at: float) -> None:
        came.setdefault(message.movement.key, at)

    end = _watch(target, heard)
    sent: dict[str, float] = {}
    answers = []
    for number in range(count):
        movement = inventory_pb2.Movement(
            warehouse_id="bench-1", key=f"lag{number}", kind=RECEIVE, item_id="item-0", lot_number="lag", quantity="1", zone_id="z0"
        )
        sent[movement.key] = time.perf_counter()
        client.call(client.inventory.RecordMovement, inventory_pb2.RecordMovementRequest(movement=movement))
        answers.append(1000 * (time.perf_counter() - sent[movement.key]))
        time.sleep(max(0.0, sent[movement.key] + 0.02 - time.perf_counter()))
    _wait(lambda: len(came) >= count)
    end()
    waits = sorted(1000 * (came[key] - at) for key, at in sent.items())
    return [
        _row(f"movement to the change feed, {kind}", "ms", [percentile(waits, 50)], p99_median=percentile(waits, 99),
             counted=f"{count} movements",
             answer_p50_ms=percentile(sorted(answers), 50), answer_p99_ms=percentile(sorted(answers), 99))
    ]  # fmt: skip


def _sync(client: Client, kind: str, total: int) -> list[dict[str, Any]]:
    """A whole book of another system, every hundredth line differing, first as new stock here, then compared again."""
    now = Timestamp()
    now.GetCurrentTime()
    rates = []
    for turn, winner in ((0, inventory_pb2.SYNC_WINNER_OTHER), (1, inventory_pb2.SYNC_WINNER_WAYBILL)):
        lines = [
            inventory_pb2.BookLine(
                item_id=f"item-{number % ITEMS}", zone_id=f"z{number % ZONES}", lot_number=f"B{number:06d}",
                quantity="7.25" if turn and number % 100 == 0 else "7", status=FREE,
            )
            for number in range(total)
        ]  # fmt: skip
        now.GetCurrentTime()
        header = inventory_pb2.SyncHeader(
            warehouse_id="bench-book", system="erp", sync_id=f"s{turn}", scope=inventory_pb2.SYNC_SCOPE_FULL, as_of_time=now,
            quantity_winner=winner,
        )  # fmt: skip
        if not turn:
            zones = [warehouse_pb2.Zone(zone_id=f"z{zone}") for zone in range(ZONES)]
            body = warehouse_pb2.Warehouse(warehouse_id="bench-book", zones=zones)
            client.call(client.warehouses.CreateWarehouse, warehouse_pb2.CreateWarehouseRequest(warehouse=body))
        started = time.perf_counter()
        requests = [inventory_pb2.SyncRequest(header=header)]
        requests += [inventory_pb2.SyncRequest(lines=lines[at : at + 5_000]) for at in range(0, total, 5_000)]
        answers = list(client.inventory.Sync(iter(requests), timeout=600))
        rates.append(total / (time.perf_counter() - started))
        summary = answers[-1].summary
        wanted = (0, total, total) if not turn else (total - total // 100, 0, 0)
        assert (summary.equal, summary.only_there, summary.recorded_here) == wanted, summary
    return [
        _row(f"sync of a book of {total:,} lines, all of it new here, {kind}", "lines/s", rates[:1], seconds=total / rates[0]),
        _row(f"sync of a book of {total:,} lines, one in a hundred differs, {kind}", "lines/s", rates[1:], seconds=total / rates[1]),
    ]


def _holds(target: str, client: Client, kind: str, count: int) -> list[dict[str, Any]]:
    """Readings 20 a second, each an excursion on a shipment with one lot: from sending it to its hold at a subscriber."""
    now_us = time.time_ns() // 1000
    ship = Timestamp(seconds=now_us // 1_000_000 - 7200)
    for number in range(count):
        unit = shipment_pb2.HandlingUnit(handling_unit_id=f"hu{number}")
        unit.lots.add(item_id="item-0", lot_number=f"H{number}", quantity="1")
        shipment = shipment_pb2.Shipment(shipment_id=f"hold-{number}", profile_id="holds", handling_units=[unit])
        client.call(client.shipments.CreateShipment, shipment_pb2.CreateShipmentRequest(shipment=shipment))
        ride = shipment_pb2.AssignTagRequest(shipment_id=f"hold-{number}", tag_id=f"hold-tag-{number}", from_time=ship)
        client.call(client.shipments.AssignTag, ride)
    came: dict[str, float] = {}

    def heard(message: Any, at: float) -> None:
        if message.HasField("hold"):
            came.setdefault(message.hold.hold.lot_number, at)

    end = _watch(target, heard)
    sent: dict[str, float] = {}
    for number in range(count):
        rows = telemetry_pb2.ReadingRows()
        rows.readings.add(tag_id=f"hold-tag-{number}", sensed_at_us=now_us - 30 * MINUTE_US, temperature_c=12.0, boot=1, sequence=1)
        request = telemetry_pb2.IngestBatchRequest(batch=telemetry_pb2.IngestRequest(rows=rows))
        sent[f"H{number}"] = time.perf_counter()
        client.call(client.telemetry.IngestBatch, request)
        time.sleep(max(0.0, sent[f"H{number}"] + 0.05 - time.perf_counter()))
    _wait(lambda: len(came) >= count)
    end()
    assert came.keys() == sent.keys(), f"{len(came)} lots on hold, {count} expected"
    waits = sorted(1000 * (came[lot] - at) for lot, at in sent.items())
    return [_row(f"reading to hold, {kind}", "ms", [percentile(waits, 50)], p99_median=percentile(waits, 99), counted=f"{count} holds")]


def _wait(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done() and time.monotonic() < deadline:
        time.sleep(0.02)
