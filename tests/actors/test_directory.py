"""Identity to shard, and handles that any Ray driver can call."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from actors.directory import SensorTag, Shipment, Warehouse, shard_of
from actors.rules.errors import CustodyOverlap, NotFound
from tests.acceptance.client import limit, new_id, us
from tests.actors.system import System


def test_an_identity_lives_in_the_same_shard_for_ever() -> None:
    assert [shard_of(f"tag-{number}", 4) for number in range(1, 9)] == [0, 2, 0, 3, 1, 3, 1, 0]


def test_identities_spread_evenly() -> None:
    counts = Counter(shard_of(f"tag-{number}", 8) for number in range(80_000))
    assert all(abs(count - 10_000) < 500 for count in counts.values())


def test_a_sensor_tag_is_called_by_its_id(system: System) -> None:
    tag = SensorTag(new_id("tag"), system.directory)
    tag.register(kind="LOGGER", usual_interval_us=60_000_000)
    shipment = Shipment(new_id("shipment"), system.directory)
    shipment.create(profile_id=system.client.profile(limit("above-8", 8)))
    tag.assign(shipment.carrier, from_us=us(0))
    system.client.send(tag.id, (0, 9.0), (10, 5.0))
    twin = tag.twin()
    assert (twin["tag_id"], twin["accepted"], twin["carrier"]) == (tag.id, 2, shipment.carrier)
    batch, flags = tag.series()
    assert batch.values[0].tolist() == [9.0, 5.0]
    assert flags.shape == batch.values.shape
    [row] = shipment.exposure()
    assert (row["limit_id"], row["violation_us"]) == ("above-8", 600_000_000)
    with pytest.raises(CustodyOverlap):
        tag.assign("shipment/" + system.client.shipment(), from_us=us(5))
    tag.release(until_us=us(20))
    assert tag.twin()["carrier"] is None


def test_a_virtual_actor_that_nobody_has_heard_of_says_so(system: System) -> None:
    with pytest.raises(NotFound):
        SensorTag(new_id("tag"), system.directory).twin()


def test_a_warehouse_is_called_by_its_id(system: System) -> None:
    warehouse = Warehouse(new_id("warehouse"), system.directory)
    profile = system.client.profile(limit("above-8", 8))
    warehouse.create(name="Basel", zones=[{"zone_id": "cold", "profile_id": profile}])
    tags = [SensorTag(system.tag_in(shard), system.directory) for shard in range(2)]
    for tag in tags:
        tag.assign(f"zone/{warehouse.id}/cold", from_us=us(0))
        system.client.send(tag.id, (0, 9.0), (10, 5.0))
    sums = {row["tag_id"]: row["violation_us"] for row in warehouse.exposure("cold")}
    assert sums == {tag.id: 600_000_000 for tag in tags}, "from all shards"


def test_handles_work_in_any_ray_driver(system: System) -> None:
    tag_id, warehouse_id = new_id("tag"), new_id("warehouse")
    shipment_id = system.client.shipment(system.client.profile(limit("above-8", 8)), tag_id)
    system.client.send(tag_id, (0, 9.0), (10, 5.0))
    program = f"""
import ray
ray.init(address={system.running.ray_address!r}, namespace={system.running.settings.ray_namespace!r}, log_to_driver=False)
from actors.directory import SensorTag, Shipment, Warehouse
print("accepted", SensorTag({tag_id!r}).twin()["accepted"])
print("violated", [row["violation_us"] for row in Shipment({shipment_id!r}).exposure()])
Warehouse({warehouse_id!r}).create(name="Basel", zones=[{{"zone_id": "cold"}}])
print("zone", Warehouse({warehouse_id!r}).exposure("cold"))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert run.stdout.splitlines()[-3:] == ["accepted 2", "violated [600000000]", "zone []"], run.stderr
