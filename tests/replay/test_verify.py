"""Verify names exactly what a change in the archive touches, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from actors.journal import archive as manifest
from actors.journal.store import Store
from cluster.archive import check
from cluster.archive.filesystem import Place
from cluster.replay import result
from cluster.replay.jobs import Request, judge_part
from tests.acceptance.client import Client, limit, new_id, us
from tests.archive.journeys import deliver, quality_tests

Archive = Callable[..., Any]
MINUTE_US = 60_000_000


@pytest.fixture
def part(client: Client, store: Store, archive: Archive) -> dict[str, Any]:
    """Two shipments alike: 90 minutes at 5 degrees, warm from 20 to 40 and from 60 to 75, one value flagged fail at 30."""
    profile = client.profile(limit("warm", 8, minutes=10), limit("hot", 30))
    made = []
    for _ in range(2):
        tag = new_id("t")
        quality_tests(client, tag)
        shipment = client.shipment(profile, tag)
        warm = [20 <= minute < 40 or 60 <= minute < 75 for minute in range(90)]
        client.send(tag, *((minute, 50.0 if minute == 30 else 10.0 if warm[minute] else 5.0) for minute in range(90)))
        client.release(shipment, tag, 90)
        deliver(client, shipment, 91)
        made.append(shipment)
    place, _ = archive(*made)
    return next(row for row in manifest.parts(store.engine) if row["location"] == place.location)


def verify(part: dict[str, Any], place: Place) -> list[dict[str, Any]]:
    judge_part(part, Request(result.VERIFY), place)
    found: list[dict[str, Any]] = json.loads(place.read(f"tasks/{part['part_id']}.json"))["differences"]
    return found


def named(found: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    return [(row["subject"], row["name"], row["change"], row["fields"]) for row in found]


def at(minute: float) -> Callable[[dict[str, Any]], bool]:
    return lambda row: bool(row["sensed_at"] == us(minute))


def change(name: str, value: Any, wanted: Callable[[dict[str, Any]], bool]) -> Callable[[dict[str, Any]], bool]:
    """Change one column of the first row that is wanted."""
    done: list[bool] = []

    def apply(row: dict[str, Any]) -> bool:
        if done or not wanted(row):
            return False
        row[name] = value(row) if callable(value) else value
        done.append(True)
        return True

    return apply


def test_what_was_not_changed_has_no_difference(part: dict[str, Any], tmp_path: Any) -> None:
    assert verify(part, Place.of(tmp_path / "r")) == []


def test_a_changed_reading_names_its_excursion_and_sums(part: dict[str, Any], tmp_path: Any) -> None:
    from tests.replay.tampering import tamper

    tamper(part, "readings", change("temperature_c", 12.0, at(65)))
    found = verify(part, Place.of(tmp_path / "r"))
    assert len({row["custody_id"] for row in found}) == 1
    assert named(found) == [
        ("excursion", "warm", "changed", "extreme,extreme_at,mean"),
        ("mkt", "", "changed", "mean"),
        ("sum", "hot", "changed", "extreme,extreme_at"),
        ("sum", "warm", "changed", "extreme,extreme_at"),
    ]
    assert (found[0]["before_extreme"], found[0]["after_extreme"], found[0]["after_started_at"]) == (10.0, 12.0, us(60))
    assert [fault.why for fault in check.verify([part])[0]] != [], "and the checksum tells as well"


def test_a_changed_threshold_names_the_excursions_of_its_limit(part: dict[str, Any], tmp_path: Any) -> None:
    from tests.replay.tampering import tamper

    tamper(part, "shipments", change("rules", lambda row: row["rules"].replace('"threshold":8.0', '"threshold":11.0'), lambda row: True))
    found = verify(part, Place.of(tmp_path / "r"))
    assert len({row["shipment_id"] for row in found}) == 1
    assert named(found) == [
        ("excursion", "warm", "vanished", ""), ("excursion", "warm", "vanished", ""), ("sum", "warm", "changed", "violation_us"),
    ]  # fmt: skip


def test_a_changed_flag_names_itself_and_the_excursion_that_it_makes(part: dict[str, Any], tmp_path: Any) -> None:
    from tests.replay.tampering import tamper

    tamper(part, "readings", change("temperature_c_flag", 1, at(30)))
    found = verify(part, Place.of(tmp_path / "r"))
    assert named(found) == [
        ("excursion", "hot", "appeared", ""), ("excursion", "warm", "changed", "extreme,extreme_at,mean,readings"),
        ("flag", "temperature_c", "changed", "readings"), ("mkt", "", "changed", "mean"),
        ("sum", "hot", "changed", "violation_us,extreme,extreme_at,readings"), ("sum", "warm", "changed", "extreme,extreme_at,readings"),
    ]  # fmt: skip
    assert found[2]["before_started_at"] == us(30)


def test_a_changed_custody_end_names_what_it_cuts(part: dict[str, Any], tmp_path: Any) -> None:
    from tests.replay.tampering import tamper

    tamper(part, "custodies", change("until_at", us(70), lambda row: True))
    found = verify(part, Place.of(tmp_path / "r"))
    assert len({row["custody_id"] for row in found}) == 1
    assert ("excursion", "warm", "changed", "ended_at,violation_us,mean,readings") in [
        (subject, name, how, fields) for subject, name, how, fields in named(found)
    ] or ("excursion", "warm", "changed", "ended_at,violation_us,readings") in named(found)
    assert [row["after_started_at"] for row in found if row["subject"] == "excursion"] == [us(60)], "the one before the new end stands"


def test_a_changed_neighbour_names_the_flag_that_looks_at_it(client: Client, store: Store, archive: Archive, tmp_path: Any) -> None:
    from tests.replay.tampering import tamper

    tag = new_id("t")
    quality_tests(client, tag)
    shipment = client.shipment(client.profile(limit("hot", 30)), tag)
    client.send(tag, *((minute, 50.0 if minute == 89 else 5.0) for minute in range(90)))
    client.release(shipment, tag, 90)
    deliver(client, shipment, 91)
    client.send(tag, (92, 5.0))
    place, _ = archive(shipment)
    part = next(row for row in manifest.parts(store.engine) if row["location"] == place.location)
    assert verify(part, Place.of(tmp_path / "as it was")) == []
    tamper(part, "neighbours", change("temperature_c", 95.0, at(92)))
    assert ("flag", "temperature_c", "changed", "readings") in named(verify(part, Place.of(tmp_path / "changed")))
