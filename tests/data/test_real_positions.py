"""Positions out of order and in doubt: four days of Austin's buses, and the ships round the Ever Given."""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cluster.client import Client, micros
from tests.data.support import counts, shipment_for_each_tag, track, waybill_command
from tests.reference import geo
from waybill.v1 import common_pb2

if TYPE_CHECKING:
    from cluster.boot import Running

CAPITOL, AIRPORT, UNIVERSITY = (30.2747, -97.7404), (30.2024, -97.6666), (30.2849, -97.7341)
RADIUS_M = {"capitol": 600.0, "airport": 1500.0, "university": 900.0}
CENTERS = {"capitol": CAPITOL, "airport": AIRPORT, "university": UNIVERSITY}
BUSES = ("--tag-column", "vehicle_id", "--time-column", "timestamp", "--lat-column", "latitude", "--lon-column", "longitude")
SHIPS = ("--tag-column", "ID", "--time-column", "ais_pos_timestamp", "--lat-column", "latitude", "--lon-column", "longitude",
         "--time-format", "%d/%m/%Y %H:%M", "--timezone", "UTC")  # fmt: skip
EVER_GIVEN = "235"

Fix = tuple[int, float, float, None]
VisitFacts = tuple[str, int, int, int | None]


def us(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)


def visits(client: Client, shipment_id: str) -> list[VisitFacts]:
    """(fence, kind, entered, left or None) of a shipment's visits and passes, ordered."""
    kinds = (common_pb2.VISIT_KIND_VISIT, common_pb2.VISIT_KIND_PASSED_THROUGH)
    return sorted(
        (visit.fence_id, visit.kind, micros(visit.entered_time), micros(visit.left_time) if visit.HasField("left_time") else None)
        for visit in track(client, shipment_id).visits
        if visit.kind in kinds  # of one tag: the shipment's are the tag's
    )


def test_four_days_of_buses_in_file_order_make_the_visits_of_time_sorted_input(
    waybill: Running, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted((shared_data / "capmetro_buses").glob("*.csv.gz"))
    rows: list[dict[str, str]] = []
    for path in files:
        with gzip.open(path, "rt", newline="") as text:
            rows += csv.DictReader(text)
    fixes: dict[str, list[Fix]] = defaultdict(list)
    backwards = 0
    for row in rows:
        fix = (us(datetime.fromisoformat(row["timestamp"])), float(row["latitude"]), float(row["longitude"]), None)
        backwards += bool(fixes[row["vehicle_id"]]) and fix[0] < fixes[row["vehicle_id"]][-1][0]
        fixes[row["vehicle_id"]].append(fix)
    assert backwards > 4000
    ordered = tmp_path / "sorted.csv"
    with ordered.open("w", newline="") as text:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: datetime.fromisoformat(row["timestamp"])))

    fences = [
        common_pb2.Geofence(
            fence_id=name,
            circle=common_pb2.CircleShape(
                center=common_pb2.LatLng(latitude_deg=CENTERS[name][0], longitude_deg=CENTERS[name][1]), radius_m=RADIUS_M[name]
            ),
        )
        for name in CENTERS
    ]
    first_us = min(series[0][0] for series in fixes.values()) - 86_400_000_000
    with Client(waybill.target) as client:
        for prefix in ("file-", "time-"):
            shipment_for_each_tag(client, [prefix + vehicle for vehicle in fixes], first_us, fences)
        common = (*BUSES, "--speed-column", "speed", "--server", waybill.target)
        assert waybill_command("import", "gps-csv", *files, *common, "--tag-prefix", "file-") == 0
        by_file = counts(capsys.readouterr().out)
        assert waybill_command("import", "gps-csv", ordered, *common, "--tag-prefix", "time-") == 0
        (by_time,) = counts(capsys.readouterr().out)
        assert sum(account["accepted"] for account in by_file) == by_time["accepted"] == len(rows) == 115_088

        with ThreadPoolExecutor(8) as pool:
            from_file, from_sorted = (list(pool.map(partial(visits, client), [prefix + v for v in fixes])) for prefix in ("file-", "time-"))
        assert from_file == from_sorted
        assert sum(map(len, from_file)) > 3000

        # And for some of them: those of a plain reading, every distance by the geodesic.
        for vehicle in sorted(fixes)[::60]:
            assert visits(client, "file-" + vehicle) == plain_visits(sorted(fixes[vehicle]))


def plain_visits(fixes: list[Fix]) -> list[VisitFacts]:
    found: list[VisitFacts] = []
    for name, center in CENTERS.items():
        fence = {"kind": "circle", "center": center, "radius": RADIUS_M[name]}
        entered = None
        for event in geo.visits(fixes, fence):  # type: ignore[no-untyped-call]
            if event[0] == "ENTER":
                entered = event[1]
            elif event[0] == "EXIT":
                found.append((name, common_pb2.VISIT_KIND_VISIT, event[1], event[2]))
                entered = None
            else:
                found.append((name, common_pb2.VISIT_KIND_PASSED_THROUGH, event[1], event[2]))
        if entered is not None:
            found.append((name, common_pb2.VISIT_KIND_VISIT, entered, None))
    return sorted(found, key=lambda visit: visit[:3])


def test_the_ship_that_is_stuck_in_the_canal_is_found_as_stopped(
    waybill: Running, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shared_data / "suez_ais_2021" / "boat-positions.csv"
    fixes: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
    duplicate = conflicting = total = 0
    for row in csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()):
        at_us = us(datetime.strptime(row["ais_pos_timestamp"], "%d/%m/%Y %H:%M").replace(tzinfo=UTC))
        place = (float(row["latitude"]), float(row["longitude"]))
        kept = fixes[row["ID"]].setdefault(at_us, place)
        total += 1
        if kept is not place:
            duplicate, conflicting = duplicate + (kept == place), conflicting + (kept != place)
    with Client(waybill.target) as client:
        ships = {ship: f"ship-{ship}" for ship in fixes}
        shipment_for_each_tag(client, ships.values(), us(datetime(2021, 3, 1, tzinfo=UTC)))
        assert waybill_command("import", "gps-csv", path, *SHIPS, "--tag-prefix", "ship-", "--server", waybill.target) == 0
        (account,) = counts(capsys.readouterr().out)
        assert (account["duplicate"], account["conflicting"]) == (duplicate, conflicting)
        assert account["accepted"] == total - duplicate - conflicting

        stops = [visit for visit in track(client, ships[EVER_GIVEN]).visits if visit.kind == common_pb2.VISIT_KIND_STOP]
        stuck = stops[-1]
        assert geo.distance((stuck.location.latitude_deg, stuck.location.longitude_deg), (30.0176, 32.5802)) < 100
        assert micros(stuck.entered_time) <= us(datetime(2021, 3, 23, 6, 2, tzinfo=UTC))
        assert not stuck.HasField("left_time")  # there it lies still, 30.8 hours later, when the recording ends
        assert max(fixes[EVER_GIVEN]) == us(datetime(2021, 3, 24, 12, 52, tzinfo=UTC))

        for ship in [EVER_GIVEN, *sorted(fixes)[::40]]:
            plain = geo.stops([(at_us, *place, None) for at_us, place in sorted(fixes[ship].items())])
            found = [visit for visit in track(client, ships[ship]).visits if visit.kind == common_pb2.VISIT_KIND_STOP]
            assert [micros(stop.entered_time) for stop in found] == [first for first, _ in plain]
