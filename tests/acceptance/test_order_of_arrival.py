"""Order-independence through the whole system, on the simulator's fleet and on real recordings.

Every tag has a twin. One is heard in order and once; the other shuffled, every message twice, and much of it so late that the tag rides on
another shipment by then; of some tags even the custodies are written down afterwards. In the end nobody can tell the twins apart, and
both are what the slow reference makes of the same readings and custodies.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from cluster.simulate import Faults, Fleet
from cluster.simulate.columns import METRICS
from tests.acceptance.client import Client
from tests.acceptance.plain_twins import Expected, expected, rounded
from tests.acceptance.twins import Fix, Found, Party, Sensed, found, party, tell_in_disorder, tell_in_order, twins

POSITION = ("latitude_deg", "longitude_deg", "gps_accuracy_m", "speed_mps")
ROOM = "room"
SPIKES = {"fail_low": -60.0, "fail_high": 60.0, "spike_suspect": 3.0, "spike_fail": 6.0}
NO_SENSOR = {"fail_low": 0.5}
"""These recordings say 0 degrees for "no such sensor"."""

Judged = list[tuple[Party, Expected]]


def in_order(readings: Iterable[Sensed]) -> list[Sensed]:
    return sorted(readings, key=lambda one: (one.at_us, one.identity or (0, 0)))


# ---------------------------------------------------------------- the simulator's fleet


@pytest.fixture(scope="module")
def fleet() -> Judged:
    """Those tags that tell where they are (a reefer at sea, some on the road, parcels) over a day and a half; some sensors fail."""
    made = Fleet(14, seed=1, days=1.5, start_us=1_700_000_000_000_000, faults=Faults(sensors=0.3, compressors=0.6, reboots=1.0, clocks=0.2))
    truth = made.truth().accepted
    by_vehicle: dict[int, dict[str, list[Sensed]]] = defaultdict(lambda: defaultdict(list))
    for row, tag in enumerate(truth.tag.tolist()):
        values = {name: float(value) for name, value in zip(METRICS, truth.values[:, row], strict=True) if value == value}
        place = [values.pop(name, None) for name in POSITION]
        fix = None if place[0] is None or place[1] is None else Fix(place[0], place[1], place[2])
        one = Sensed(int(truth.sensed_us[row]), values, fix, (int(truth.boot[row]), int(truth.sequence[row])))
        by_vehicle[int(made.vehicle_of_tag[tag])][made.tag_id(tag)].append(one)
    parties = []
    for number, (vehicle, tags) in enumerate(by_vehicle.items()):
        if not any(ROOM in name for name in tags):
            ordered = {name: in_order(readings) for name, readings in tags.items()}
            quality = SPIKES if number % 2 else {}
            parties.append(party(f"vehicle-{vehicle}", ordered, back=number % 2 == 0, quality=quality, late_custody=number % 3 == 1))
    return [(one, expected(one)) for one in parties]


def test_twins_of_the_simulators_fleet_are_judged_alike_however_late_and_often_one_is_heard(client: Client, fleet: Judged) -> None:
    causes = twins_are_judged_alike(client, fleet, seed=20261123)
    judged = [one for _, one in fleet]
    assert {key[2] for one in judged for key in one.excursions} >= {
        "at-once", "alone", "sooner", "total", "cold", "kinetic", "relative_humidity_pct", "door_open", "shock_g",
    }  # fmt: skip
    assert causes["RETRACTED"] > 5


# ---------------------------------------------------------------- real recordings


@pytest.fixture(scope="module")
def recordings(shared_data: Path) -> Judged:
    """A parcel's logger, LoRaWAN tags, buses and ships."""
    parties = [parcel(shared_data), *lorawan(shared_data), *buses(shared_data), *ships(shared_data)]
    return [(one, expected(one)) for one in parties]


def us(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)


def parcel(data: Path) -> Party:
    """One reading each two minutes, without sequences."""
    lines = (data / "shipment_temp_ibuttons" / "20220404_hawaii_temp_button2.csv").read_text().splitlines()[20:]
    local = ZoneInfo("America/Chicago")
    first, last = datetime(2022, 3, 31, 17, tzinfo=local), datetime(2022, 4, 4, 12, tzinfo=local)
    readings = []
    for line in lines:
        moment = datetime.strptime(line.split(",")[0], "%m/%d/%y %I:%M:%S %p").replace(tzinfo=local)
        if first <= moment < last:
            readings.append(Sensed(us(moment), {"temperature_c": float(line.split(",")[2])}))
    return party("parcel", {"button": in_order(readings)}, back=True, late_custody=True)


def lorawan(data: Path) -> list[Party]:
    """Temperature, humidity and doors over two weeks, half of the frames missing. Of frames that contradict the first is told."""
    metrics = {"temperature": "temperature_c", "temp": "temperature_c", "humidity": "relative_humidity_pct", "hum": "relative_humidity_pct"}
    metrics["open"] = "door_open"
    tags: dict[str, dict[tuple[int, int], Sensed]] = defaultdict(dict)
    for line in gzip.decompress((data / "lorawan_sensor_tags" / "events_dev.jsonl.gz").read_bytes()).decode().splitlines():
        event = json.loads(line)
        values = {metrics[name]: float(value) for name, value in (event.get("object") or {}).items() if name in metrics}
        if "fCnt" in event and values:
            frame = (int(event["devAddr"], 16), int(event["fCnt"]))
            tags[event["deviceInfo"]["devEui"]].setdefault(frame, Sensed(us(datetime.fromisoformat(event["time"])), values, None, frame))
    return [
        party(name, {name: in_order(frames.values())}, back=number % 2 == 0, quality=NO_SENSOR, late_custody=number % 3 == 1)
        for number, (name, frames) in enumerate(sorted((name, frames) for name, frames in tags.items() if len(frames) > 120))
    ]


def buses(data: Path) -> list[Party]:
    """Two days of two of Austin's buses that often come by the Capitol; they tell no sequences either."""
    fixes: dict[str, list[Sensed]] = defaultdict(list)
    for day in ("2016-11-24", "2016-11-25"):
        with gzip.open(data / "capmetro_buses" / f"{day}.csv.gz", "rt", newline="") as text:
            for row in csv.DictReader(text):
                fix = Fix(float(row["latitude"]), float(row["longitude"]))
                fixes[row["vehicle_id"]].append(Sensed(us(datetime.fromisoformat(row["timestamp"])), {}, fix))
    capitol = {"kind": "circle", "center": (30.2747, -97.7404), "radius": 600.0}

    def often(vehicle: str) -> tuple[int, str]:
        near = sum(abs(fix.latitude_deg - 30.2747) < 0.005 for _, _, fix, _ in fixes[vehicle] if fix is not None)
        return -near, vehicle

    chosen = sorted(fixes, key=often)[:2]
    return [party(f"bus-{one}", {one: in_order(fixes[one])}, fence=capitol, late_custody=number == 1) for number, one in enumerate(chosen)]


def ships(data: Path) -> list[Party]:
    """The Ever Given and two others; of fixes of the same minute the first is told."""
    fixes: dict[str, dict[int, Sensed]] = {ship: {} for ship in ("235", "132", "146")}
    for row in csv.DictReader((data / "suez_ais_2021" / "boat-positions.csv").read_text(encoding="utf-8-sig").splitlines()):
        if row["ID"] in fixes:
            at_us = us(datetime.strptime(row["ais_pos_timestamp"], "%d/%m/%Y %H:%M").replace(tzinfo=UTC))
            fixes[row["ID"]].setdefault(at_us, Sensed(at_us, {}, Fix(float(row["latitude"]), float(row["longitude"]))))
    return [
        party(f"ship-{ship}", {ship: in_order(mine.values())}, back=number % 2 == 0, late_custody=number == 2)
        for number, (ship, mine) in enumerate(fixes.items())
    ]


def test_twins_of_real_recordings_are_judged_alike_however_late_and_often_one_is_heard(client: Client, recordings: Judged) -> None:
    causes = twins_are_judged_alike(client, recordings, seed=1869)
    for name in ("parcel", "7894e80100002501"):
        assert any(one.excursions for told, one in recordings if told.name == name), name
    assert {visit[1] for _, one in recordings for visit in one.visits} == {"VISIT", "PASSED_THROUGH"}
    assert causes["RETRACTED"] > 5


# ---------------------------------------------------------------- what both must be


def twins_are_judged_alike(client: Client, judged: Judged, seed: int) -> Counter[str]:
    """Tell every party to both of its twins and compare all that is known of them.

    Gives what made the revisions of the twins that were heard late, and how many of their excursions were retracted.
    """
    with ThreadPoolExecutor(4) as pool:
        sides = list(pool.map(lambda one: twins(client, one[0]), judged))
        straight = tell_in_order(client, [one for one, _ in sides])
        shuffled = tell_in_disorder(client, [other for _, other in sides], seed)
        known = list(pool.map(lambda both: (found(client, both[0]), found(client, both[1])), sides))
    readings = sum(party.readings() for party, _ in judged)
    assert (straight.accepted, straight.duplicate) == (readings, 0)
    assert (shuffled.accepted, shuffled.duplicate) == (readings, readings)
    assert shuffled.crossed > readings / 5, "a good part came when its custody was over and the next had begun"
    for (told, wanted), (its, mine) in zip(judged, known, strict=True):
        are_as_expected(told, its, wanted)
        are_as_expected(told, mine, wanted)
        for what in ("excursions", "rules", "sums", "mkt", "carriers", "visits", "twins"):
            assert getattr(mine, what) == getattr(its, what), f"{what} of {told.name}"
    assert sum(its.late for its, _ in known) == 0
    assert sum(mine.late for _, mine in known) > readings / 5
    assert sum(len(wanted.excursions) for _, wanted in judged) > 100
    assert sum(len(wanted.visits) for _, wanted in judged) > 10
    assert sum(its.causes["LATE"] + its.causes["CUSTODY"] for its, _ in known) == 0
    assert sum(mine.revised for _, mine in known) > 100
    causes = sum((mine.causes for _, mine in known), Counter[str]())
    assert causes["LATE"] > 100
    assert causes["CUSTODY"] > 10
    return causes


def are_as_expected(told: Party, known: Found, wanted: Expected) -> None:
    """What one twin is known for is what the reference says."""
    assert {key: rounded(facts) for key, facts in known.excursions.items()} == wanted.excursions, told.name
    assert {key: rounded(facts) for key, facts in known.sums.items()} == wanted.sums, told.name
    kinetic = {key: round(facts[0], 6) for key, facts in known.mkt.items() if key in wanted.mkt}
    assert kinetic == wanted.mkt, told.name
    assert {name: facts[0] for name, facts in known.twins.items()} == {name: len(readings) for name, readings in told.tags.items()}
    seen = [
        (shipment, kind, tag if kind == "PASSED_THROUGH" else "", entered, left)
        for shipment, kind, tag, entered, left, _ in known.visits
        if kind in ("VISIT", "PASSED_THROUGH")
    ]
    assert sorted(seen, key=repr) == wanted.visits, told.name
