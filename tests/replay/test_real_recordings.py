"""Real recordings, ingested live, archived, verified by replay: nothing differs. The same when they come shuffled and doubled."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from actors.journal import archive as manifest
from actors.journal.store import Store
from actors.rules.readings import CODE, LATITUDE, LONGITUDE, Batch
from cluster.archive.filesystem import Place
from cluster.client import Client, Outgoing, timestamp
from cluster.replay import jobs, result
from cluster.replay.jobs import Request
from waybill.v1 import common_pb2, profile_pb2, shipment_pb2, tag_pb2

if TYPE_CHECKING:
    from cluster.boot import Running

Row = tuple[str, int, int, int, dict[int, float]]
"""(tag, sensed_us, boot, sequence, values by column code)."""
DAY_US = 86_400_000_000
TEMPERATURE, HUMIDITY, LIGHT, DOOR = (CODE[name] for name in ("temperature_c", "relative_humidity_pct", "light_lux", "door_open"))
MESSAGE = 5_000


def buses(folder: Path) -> Iterator[Row]:
    """A day of Austin's buses: positions, grouped by trip."""
    path = sorted((folder / "capmetro_buses").glob("*.csv.gz"))[0]
    with gzip.open(path, "rt", newline="") as text:
        for row in csv.DictReader(text):
            at_us = round(datetime.fromisoformat(row["timestamp"]).timestamp() * 1e6)
            yield row["vehicle_id"], at_us, -1, -1, {LATITUDE: float(row["latitude"]), LONGITUDE: float(row["longitude"])}


def lorawan(folder: Path) -> Iterator[Row]:
    """Fifteen LoRaWAN tags over two weeks, with repeated frames."""
    names = {"temperature": TEMPERATURE, "temp": TEMPERATURE, "humidity": HUMIDITY, "hum": HUMIDITY}
    for line in gzip.decompress((folder / "lorawan_sensor_tags/events_dev.jsonl.gz").read_bytes()).decode().splitlines():
        event = json.loads(line)
        values = {names[name]: float(value) for name, value in (event.get("object") or {}).items() if name in names}
        if "fCnt" in event and values and all(-200 <= value <= 200 for value in values.values()):
            at_us = round(datetime.fromisoformat(event["time"]).timestamp() * 1e6)
            yield event["deviceInfo"]["devEui"], at_us, int(event["devAddr"], 16), event["fCnt"], values


def parcel(folder: Path) -> Iterator[Row]:
    """A parcel from Hawaii to Chicago."""
    zone = ZoneInfo("America/Chicago")
    for line in (folder / "shipment_temp_ibuttons/20220404_hawaii_temp_button2.csv").read_text().splitlines()[20:]:
        when, _, value = line.split(",")[:3]
        moment = datetime.strptime(when, "%m/%d/%y %I:%M:%S %p").replace(tzinfo=zone)
        yield "button", round(moment.timestamp() * 1e6), -1, -1, {TEMPERATURE: float(value)}


def rooms(folder: Path) -> Iterator[Row]:
    """Room climates: 193,643 rows, some at the same time."""
    text = gzip.decompress((folder / "room_climate_door/room_climate_dev.csv.gz").read_bytes()).decode()
    for row in csv.DictReader(io.StringIO(text)):
        values = {
            TEMPERATURE: float(row["temp_c"]),
            HUMIDITY: float(row["rh_pct"]),
            LIGHT: float(row["light1"]),
            DOOR: float(row["door_open"]),
        }
        yield f"{row['location']}-{row['node']}", int(row["abs_time_ms"]) * 1000, -1, -1, values


def send(client: Client, rows: list[Row]) -> None:
    """Send readings in this order, as columns."""

    def messages() -> Iterator[Outgoing]:
        for start in range(0, len(rows), MESSAGE):
            some = rows[start : start + MESSAGE]
            tags = list(dict.fromkeys(row[0] for row in some))
            index = {tag: at for at, tag in enumerate(tags)}
            codes = tuple(sorted({code for row in some for code in row[4]}))
            values = np.array([[row[4].get(code, np.nan) for row in some] for code in codes])
            tag, sensed, boot, sequence = (
                np.array(column) for column in zip(*((index[r[0]], r[1], r[2], r[3]) for r in some), strict=True)
            )
            yield Outgoing(tags, Batch(tag.astype(np.int32), sensed, boot, sequence, codes, values))

    for _, answer in client.ingest(messages()):
        assert not answer.refused


def journeys(client: Client, rows: list[Row], profile_id: str) -> list[str]:
    """One shipment a tag, over all of its readings."""
    spans: dict[str, tuple[int, int]] = {}
    for tag, at_us, *_ in rows:
        low, high = spans.get(tag, (at_us, at_us))
        spans[tag] = (min(low, at_us), max(high, at_us))
    center = common_pb2.LatLng(latitude_deg=30.2747, longitude_deg=-97.7404)
    fence = common_pb2.Geofence(fence_id="capitol", circle=common_pb2.CircleShape(center=center, radius_m=600))

    def make(tag: str) -> None:
        shipment = shipment_pb2.Shipment(shipment_id=tag, profile_id=profile_id, geofences=[fence])
        client.call(client.shipments.CreateShipment, shipment_pb2.CreateShipmentRequest(shipment=shipment))
        begin = timestamp(spans[tag][0] - 3_600_000_000)
        client.call(client.shipments.AssignTag, shipment_pb2.AssignTagRequest(shipment_id=tag, tag_id=tag, from_time=begin))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, spans))
    send(client, rows)

    def close(tag: str) -> None:
        end = timestamp(spans[tag][1] - (spans[tag][1] - spans[tag][0]) // 10)  # the last tenth comes after the end
        client.call(client.shipments.ReleaseTag, shipment_pb2.ReleaseTagRequest(shipment_id=tag, tag_id=tag, until_time=end))
        said = shipment_pb2.Milestone(kind=shipment_pb2.MILESTONE_KIND_DELIVERED, time=timestamp(spans[tag][1] + 1))
        client.call(client.shipments.RecordMilestone, shipment_pb2.RecordMilestoneRequest(shipment_id=tag, milestone=said))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(close, spans))
    return list(spans)


def profile(client: Client, name: str) -> str:
    """Limits that each of the recordings breaks."""
    above, below = profile_pb2.DIRECTION_ABOVE, profile_pb2.DIRECTION_BELOW
    single, cumulative = profile_pb2.LIMIT_MODE_SINGLE, profile_pb2.LIMIT_MODE_CUMULATIVE
    celsius, humid = common_pb2.METRIC_TEMPERATURE_C, common_pb2.METRIC_RELATIVE_HUMIDITY_PCT
    made = profile_pb2.Limit
    limits = [
        made(limit_id="warm", metric=celsius, direction=above, mode=single, threshold=23, clear=22, allowance_s=600, severity=3),
        made(limit_id="cold", metric=celsius, direction=below, mode=single, threshold=20, allowance_s=0, severity=2),
        made(limit_id="humid", metric=humid, direction=above, mode=cumulative, threshold=45, allowance_s=7200, severity=2),
    ]
    whole = profile_pb2.Profile(profile_id=name, name=name, limits=limits)
    client.call(client.profiles.CreateProfile, profile_pb2.CreateProfileRequest(profile=whole))
    return name


@pytest.mark.parametrize("waybill", ["sqlite"], indirect=True)
@pytest.mark.parametrize("recording", [buses, lorawan, parcel, pytest.param(rooms, marks=pytest.mark.long)])
def test_a_recording_is_verified_in_order_and_shuffled_and_doubled(
    waybill: Running,
    store: Store,
    archive: Callable[..., Any],
    shared_data: Path,
    tmp_path: Path,
    recording: Callable[[Path], Iterator[Row]],
) -> None:
    rows = list(recording(shared_data))
    if recording is rooms:
        assert len(rows) == 193_643
    rng = random.Random(7)
    found = {}
    for kind in ("plain", "shuffled"):
        name = f"{kind}-{recording.__name__}"
        mine = [(f"{name}-{row[0]}", *row[1:]) for row in rows]
        with Client(waybill.target) as client:
            if recording is not buses:
                tests = [tag_pb2.QualityTests(metric=common_pb2.METRIC_TEMPERATURE_C, spike_suspect=1, spike_fail=3, fail_high=60)]
                for tag in sorted({row[0] for row in mine})[::2]:
                    client.call(client.tags.RegisterTag, tag_pb2.RegisterTagRequest(tag=tag_pb2.Tag(tag_id=tag, quality=tests)))
            if kind == "shuffled":
                rng.shuffle(mine)
                mine += rng.sample(mine, len(mine) // 5)
            shipments = journeys(client, mine, profile(client, name))
        place, _ = archive(*shipments)
        parts = [part for part in manifest.parts(store.engine) if part["location"] == place.location]
        made = jobs.run("r", Request(result.VERIFY, shipment_ids=tuple(shipments)), parts, Place.of(tmp_path / kind))
        assert made.summary == {"identical": True}, made.counts
        found[kind] = {name: made.counts[name] for name in ("custodies", "readings", "excursions", "visits", "sums")}
    assert found["plain"]["readings"] > 0.8 * len({row[:4] for row in rows})
    assert found["plain"]["excursions"] + found["plain"]["visits"] > 1
    if recording is not rooms:  # of rows of one time in one room, which stays depends on which came first
        assert found["plain"] == found["shuffled"]
