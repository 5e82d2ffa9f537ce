"""Fifteen LoRaWAN tags over two weeks: repeats and conflicts counted, silences found, doors seen.

The expected figures come from a plain reading of the file.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cluster.client import Client, micros, timestamp
from tests.data.support import counts, waybill_output
from tests.reference import exposure as slow
from waybill.v1 import common_pb2, profile_pb2, shipment_pb2, tag_pb2, telemetry_pb2

if TYPE_CHECKING:
    from cluster.boot import Running

FILE = "lorawan_sensor_tags/events_dev.jsonl.gz"
METRICS = {"temperature": 1, "temp": 1, "humidity": 2, "hum": 2, "open": 8, "Bat": 7, "BAT": 7, "battery_v": 7, "batteryLevel": 7}
DAY_US = 86_400_000_000
DOOR_TAG = "7894e80100002501"

Frame = tuple[str, int, int]
Imported = tuple["Running", list[dict[str, int]]]


def time_us(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1e6)


@pytest.fixture(scope="module")
def frames(shared_data: Path) -> list[tuple[Frame, int, dict[int, float]]]:
    """((devEui, devAddr, fCnt), time, values by metric number) of every uplink with a measurement, in file order."""
    found = []
    for line in gzip.decompress((shared_data / FILE).read_bytes()).decode().splitlines():
        event: dict[str, Any] = json.loads(line)
        values = {METRICS[name]: float(value) for name, value in (event.get("object") or {}).items() if name in METRICS}
        if "fCnt" in event and values:
            frame = (event["deviceInfo"]["devEui"], int(event["devAddr"], 16), event["fCnt"])
            found.append((frame, time_us(event["time"]), values))
    return found


@pytest.fixture(scope="module")
def first_of(frames: list[tuple[Frame, int, dict[int, float]]]) -> dict[Frame, tuple[int, dict[int, float]]]:
    """What each frame said when it came first: that is what stays."""
    known: dict[Frame, tuple[int, dict[int, float]]] = {}
    for frame, at_us, values in frames:
        known.setdefault(frame, (at_us, values))
    return known


@pytest.fixture(scope="module")
def imported(waybill: Running, shared_data: Path) -> Imported:
    """The running Waybill after two imports of the file, and the accounts of both."""
    with Client(waybill.target) as client:
        limit = profile_pb2.Limit(
            limit_id="open",
            metric=common_pb2.METRIC_DOOR_OPEN,
            direction=profile_pb2.DIRECTION_ABOVE,
            inclusive=True,
            mode=profile_pb2.LIMIT_MODE_SINGLE,
            threshold=1.0,
            allowance_s=0.0,
        )
        profile = profile_pb2.Profile(profile_id="door-closed", name="door closed", limits=[limit])
        client.call(client.profiles.CreateProfile, profile_pb2.CreateProfileRequest(profile=profile))
        shipment = shipment_pb2.Shipment(shipment_id="DOOR", profile_id="door-closed")
        client.call(client.shipments.CreateShipment, shipment_pb2.CreateShipmentRequest(shipment=shipment))
        request = shipment_pb2.AssignTagRequest(shipment_id="DOOR", tag_id=DOOR_TAG, from_time=timestamp(time_us("2026-01-01T00:00Z")))
        client.call(client.shipments.AssignTag, request)
    accounts = [counts(waybill_output("import", "chirpstack", shared_data / FILE, "--server", waybill.target)) for _ in range(2)]
    return waybill, [account for (account,) in accounts]


def test_repeats_and_conflicts_are_counted_as_a_plain_reading_counts_them(
    imported: Imported,
    frames: list[tuple[Frame, int, dict[int, float]]],
    first_of: dict[Frame, tuple[int, dict[int, float]]],
) -> None:
    account, again = imported[1]
    conflicting = sum(first_of[frame] != (at_us, values) for frame, at_us, values in frames)
    assert conflicting == 4
    assert account["sent"] == len(frames)
    assert account["accepted"] == len(first_of)
    assert account["conflicting"] == conflicting
    assert account["duplicate"] == len(frames) - len(first_of) - conflicting
    # Once more: what was kept is known with the same content, what was put aside is known with other content.
    assert (again["accepted"], again["duplicate"]) == (0, len(frames) - conflicting)
    assert again["conflicting"] == conflicting


def test_what_was_put_aside_is_listed_beside_what_was_kept(
    imported: Imported, frames: list[tuple[Frame, int, dict[int, float]]], first_of: dict[Frame, tuple[int, dict[int, float]]]
) -> None:
    with Client(imported[0].target) as client:
        listed = 0
        for tag_id in sorted({frame[0] for frame in first_of}):
            for conflict in client.pages(client.tags.ListConflicts, tag_pb2.ListConflictsRequest(tag_id=tag_id), "conflicts"):
                listed += 1
                said = {at_us for frame, at_us, _ in frames if frame == (tag_id, conflict.boot, conflict.sequence)}
                assert {micros(conflict.sensed_time), micros(conflict.kept_sensed_time)} == said
    assert listed >= 4


def test_zeros_are_kept_as_they_came(imported: Imported, first_of: dict[Frame, tuple[int, dict[int, float]]]) -> None:
    tag_id = "7894e80000054e0a"  # a temperature sensor that sends humidity 0 for "no such sensor"
    expected = sorted((at_us, values[2]) for frame, (at_us, values) in first_of.items() if frame[0] == tag_id and 2 in values)
    assert any(value == 0.0 for _, value in expected)
    assert series(imported[0], tag_id, common_pb2.METRIC_RELATIVE_HUMIDITY_PCT) == expected


def test_silences_of_more_than_half_a_day_are_found(imported: Imported, first_of: dict[Frame, tuple[int, dict[int, float]]]) -> None:
    longer_us = DAY_US // 2
    total = 0
    with Client(imported[0].target) as client:
        for tag_id in sorted({frame[0] for frame in first_of}):
            times = sorted(at_us for frame, (at_us, _) in first_of.items() if frame[0] == tag_id)
            expected = [(a, b) for a, b in itertools.pairwise(times) if b - a > longer_us]
            request = tag_pb2.ListSilencesRequest(tag_id=tag_id, longer_than_s=longer_us / 1e6)
            found = [
                (micros(silence.from_time), micros(silence.until_time))
                for silence in client.pages(client.tags.ListSilences, request, "silences")
                if silence.HasField("until_time")
            ]
            assert found == expected
            total += len(expected)
    assert total > 10


def test_the_doors_openings_are_those_of_the_file_and_each_is_an_excursion_of_a_limit_on_doors(
    imported: Imported, first_of: dict[Frame, tuple[int, dict[int, float]]]
) -> None:
    ordered = sorted((at_us, frame, values[8]) for frame, (at_us, values) in first_of.items() if frame[0] == DOOR_TAG and 8 in values)
    door = [(at_us, value) for at_us, _, value in ordered]
    assert {value for _, value in door} == {0.0, 1.0}
    assert series(imported[0], DOOR_TAG, common_pb2.METRIC_DOOR_OPEN) == door
    judged = slow.judge(door, [slow.Window(0, 2**62, slow.Limit(1.0, inclusive=True))], 0)
    with Client(imported[0].target) as client:
        request = shipment_pb2.ListExcursionsRequest(shipment_id="DOOR")
        found = [
            (micros(one.started_time), micros(one.ended_time) if one.HasField("ended_time") else None, one.violation_us, one.readings)
            for one in client.pages(client.shipments.ListExcursions, request, "excursions")
        ]
    assert len(found) > 10
    assert found == [(run.start_us, run.end_us, run.run_us, run.readings) for run in judged.excursions]


def test_every_tag_of_the_file_is_known_with_its_counters(imported: Imported, first_of: dict[Frame, tuple[int, dict[int, float]]]) -> None:
    accepted: dict[str, int] = defaultdict(int)
    for frame in first_of:
        accepted[frame[0]] += 1
    with Client(imported[0].target) as client:
        for tag_id, count in accepted.items():
            twin = client.call(client.tags.GetTagTwin, tag_pb2.GetTagTwinRequest(tag_id=tag_id)).twin
            assert twin.counters.accepted == count
            assert micros(twin.last_sensed_time) == max(at_us for frame, (at_us, _) in first_of.items() if frame[0] == tag_id)


def series(running: Running, tag_id: str, metric: common_pb2.Metric.ValueType) -> list[tuple[int, float]]:
    """One metric of a tag in sensed order, where it has a value."""
    found: list[tuple[int, float]] = []
    with Client(running.target) as client:
        request = telemetry_pb2.ReadTagSeriesRequest(tag_id=tag_id, metrics=[metric])
        for message in client.stream(client.telemetry.ReadTagSeries, request):
            for column in message.series.columns:
                pairs = zip(message.series.sensed_at_us, column.values, strict=True)
                found += [(at_us, value) for at_us, value in pairs if value == value]
    return found
