"""The simulated fleet: the same for a seed, plausible, and honest about what it sends."""

from __future__ import annotations

import numpy as np
import pytest

from actors.rules.readings import COLUMNS, Batch
from cluster.simulate import Faults, Fleet
from cluster.simulate.climate import relax
from cluster.simulate.columns import ROW, join
from cluster.simulate.routes import OCEAN, ROAD, great_circle_km
from cluster.simulate.vehicles import FROZEN, GOODS, KIND_NAMES, REEFER_ROAD

NONE = Faults.parse("none")
TEMPERATURE = ROW["temperature_c"]


def sent(fleet: Fleet) -> Batch:
    return join([piece.batch for piece in fleet.slices()])


def identities(batch: Batch) -> list[tuple[int, int, int, bytes]]:
    values = np.ascontiguousarray(batch.values.T)
    return [
        (tag, boot, sequence, values[row].tobytes())
        for row, (tag, boot, sequence) in enumerate(zip(batch.tag.tolist(), batch.boot.tolist(), batch.sequence.tolist(), strict=True))
    ]


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return Fleet(120, seed=11, days=4.0, gateways=3)


def test_a_seed_always_makes_the_same_slices_in_the_same_order() -> None:
    first, second = Fleet(30, seed=5, days=0.5), Fleet(30, seed=5, days=0.5)
    for a, b in zip(first.slices(), second.slices(), strict=True):
        assert (a.gateway, a.at_us, a.backlog) == (b.gateway, b.at_us, b.backlog)
        assert identities(a.batch) == identities(b.batch)
        np.testing.assert_array_equal(a.batch.sensed_us, b.batch.sensed_us)


def test_another_seed_makes_other_readings() -> None:
    assert identities(sent(Fleet(30, seed=5, days=0.1))) != identities(sent(Fleet(30, seed=6, days=0.1)))


def test_what_is_sent_is_the_truth_once_and_the_stated_number_of_copies(fleet: Fleet) -> None:
    truth, everything = fleet.truth(), sent(fleet)
    assert len(everything) == len(truth.accepted) + truth.duplicate + truth.conflicting + truth.refused
    assert truth.duplicate > 100
    seen: dict[tuple[int, int, int], bytes] = {}
    duplicate = conflicting = refused = 0
    for row, (tag, boot, sequence, content) in enumerate(identities(everything)):
        if everything.values[TEMPERATURE, row] < -200:
            refused += 1
        elif (tag, boot, sequence) not in seen:
            seen[tag, boot, sequence] = content
        elif seen[tag, boot, sequence] == content:
            duplicate += 1
        else:
            conflicting += 1
    assert (duplicate, conflicting, refused) == (truth.duplicate, truth.conflicting, truth.refused)
    assert seen == {(tag, boot, sequence): content for tag, boot, sequence, content in identities(truth.accepted)}


def test_accepted_values_are_plausible_by_the_handbooks_bounds(fleet: Fleet) -> None:
    batch = fleet.truth().accepted
    for code, values in zip(batch.codes, batch.values, strict=True):
        present = values[~np.isnan(values)]
        assert len(present), COLUMNS[code].name
        assert present.min() >= COLUMNS[code].low
        assert present.max() <= COLUMNS[code].high
    assert set(np.unique(batch.values[ROW["door_open"]][~np.isnan(batch.values[ROW["door_open"]])])) <= {0.0, 1.0}


def test_sequences_of_a_boot_have_no_holes_and_times_go_forward(fleet: Fleet) -> None:
    batch = fleet.truth().accepted
    everything = sent(fleet)
    refused = {
        (tag, boot, sequence)
        for (tag, boot, sequence, _), t in zip(identities(everything), everything.values[TEMPERATURE], strict=True)
        if t < -200
    }
    for tag in range(0, fleet.tags, 7):
        mine = batch.tag == tag
        assert (np.diff(batch.sensed_us[mine]) > 0).all()
        for boot in np.unique(batch.boot[mine]).tolist():
            sequences = set(batch.sequence[mine & (batch.boot == boot)].tolist())
            sequences |= {sequence for t, b, sequence in refused if (t, b) == (tag, boot)}
            assert sequences == set(range(max(sequences) + 1))


def test_vehicles_move_no_faster_than_they_can(fleet: Fleet) -> None:
    fastest_kmh = {"OCEAN": 60, "ROAD": 120, "PARCEL": 1000}
    batch = fleet.truth().accepted
    latitude, longitude = batch.values[ROW["latitude_deg"]], batch.values[ROW["longitude_deg"]]
    for vehicle in range(0, len(fleet.vehicles), 3):
        kind = KIND_NAMES[fleet.vehicles.kind[vehicle]]
        rows = np.flatnonzero((batch.tag == fleet.vehicles.first_tag[vehicle]) & ~np.isnan(latitude))
        assert (len(rows) > 0) is (kind != "ROOM")
        for a, b in zip(rows[:-1].tolist(), rows[1:].tolist(), strict=True):
            km = great_circle_km((latitude[a], longitude[a]), (latitude[b], longitude[b]))
            hours = (batch.sensed_us[b] - batch.sensed_us[a]) / 3.6e9
            assert km / hours < fastest_kmh[kind]


def test_trips_of_one_vehicle_never_share_their_tags_time(fleet: Fleet) -> None:
    last: dict[int, float] = {}
    for trip in fleet.trips():
        assert trip.custody_from_s >= last.get(trip.vehicle, 0.0)
        assert trip.custody_from_s <= max(0.0, trip.departs_s) < trip.custody_until_s
        last[trip.vehicle] = trip.custody_until_s
    assert len(fleet.trips()) > len(last)


def test_what_is_held_in_a_dead_zone_leaves_when_it_ends_and_half_the_fleet_sends_newest_first() -> None:
    fleet = Fleet(40, seed=3, days=2.0, gateways=2, faults=Faults.parse("dead_zones"))
    directions = set()
    late = 0
    for piece in fleet.slices():
        age_us = piece.at_us - piece.batch.sensed_us
        if not piece.backlog:
            assert age_us.max() <= 2 * fleet.interval_s * 1e6
            continue
        late += len(piece.batch)
        for vehicle in np.unique(fleet.vehicle_of_tag[piece.batch.tag]).tolist():
            steps = np.diff(piece.batch.sensed_us[fleet.vehicle_of_tag[piece.batch.tag] == vehicle])
            if len(steps) > 20:
                directions.add(bool((steps <= 0).all()))
                assert (steps <= 0).all() or (steps >= 0).all()
    assert late > 500
    assert directions == {True, False}


def test_without_faults_everything_is_sent_once_in_time_and_stays_near_its_set_point() -> None:
    fleet = Fleet(60, seed=2, days=2.0, faults=NONE)
    truth = fleet.truth()
    assert (truth.duplicate, truth.conflicting, truth.refused) == (0, 0, 0)
    assert not any(piece.backlog for piece in fleet.slices())
    assert (truth.accepted.boot == 1).all()


def test_a_failed_compressor_warms_the_load_and_a_door_left_open_warms_it_faster() -> None:
    """Frozen goods on the road, January: 6 h without cooling, 2 h with the door open."""

    def warmest(compressor: bool, door: bool) -> float:
        fleet = Fleet(60, seed=4, days=1.0, faults=NONE)
        hours = np.full((len(fleet.vehicles), 1, 2), np.inf)
        hours[:, 0] = (10 * 3600.0, 16 * 3600.0) if compressor else (10 * 3600.0, 12 * 3600.0)
        if compressor:
            fleet.compressor_failures = hours
        if door:
            fleet.door_openings = hours
        batch = fleet.truth().accepted
        frozen = int(np.flatnonzero((fleet.vehicles.kind == REEFER_ROAD) & (fleet.vehicles.goods == GOODS.index(FROZEN)))[0])
        mine = (fleet.vehicle_of_tag[batch.tag] == frozen) & (batch.sensed_us < fleet.time_us(17 * 3600.0))
        return float(batch.values[TEMPERATURE, mine].max() - np.median(batch.values[TEMPERATURE, mine]))

    calm, failed, opened = warmest(False, False), warmest(True, False), warmest(False, True)
    assert calm < 8
    assert failed > calm + 1
    assert opened > failed


def test_relax_is_exact_over_any_split_of_the_time() -> None:
    start, target = np.array([-20.0, 5.0]), np.array([30.0, 5.0])
    at_once = relax(start, target, 5000.0, 1800.0)
    in_parts = relax(relax(start, target, 1234.0, 1800.0), target, 5000.0 - 1234.0, 1800.0)
    np.testing.assert_allclose(at_once, in_parts, rtol=1e-12)


def test_routes_begin_and_end_where_they_say_and_cross_the_antimeridian_in_small_steps() -> None:
    for route in (*ROAD, *OCEAN):
        assert (np.diff(route.seconds) > 0).all()
        assert (np.abs(np.diff(route.longitude_deg)) < 5).all()
        latitude, longitude = route.position(np.array([0.0, 1e12]), np.array([False, False]))
        assert great_circle_km((latitude[0], longitude[0]), route.origin[2:]) < 1
        assert great_circle_km((latitude[1], longitude[1]), route.destination[2:]) < 1
    auckland = next(route for route in OCEAN if route.origin.name == "Auckland")
    assert auckland.longitude_deg.max() > 180


def test_a_large_fleet_is_made_in_slices_and_has_thousands_of_shipments_not_hundreds_of_thousands() -> None:
    fleet = Fleet(100_000, seed=1, days=300 * 2 / 86_400, gateways=8, faults=NONE)
    rows = sum(len(piece.batch) for piece in fleet.slices())
    assert 100_000 < rows <= 200_000
    assert len(fleet.trips()) < 5_000


@pytest.mark.parametrize("tags", [10, 11, 37, 1000])
def test_every_tag_rides_on_one_vehicle(tags: int) -> None:
    fleet = Fleet(tags, days=0.01)
    assert len(fleet.vehicle_of_tag) == tags
    assert len(set(fleet.tag_ids())) == tags
    assert fleet.tag_ids()[tags - 1] == fleet.tag_id(tags - 1)


def test_faults_are_named_or_the_known_names_are_told() -> None:
    assert Faults.parse("all") == Faults()
    assert Faults.parse("dead-zones,duplicates").dead_zones == Faults().dead_zones
    assert Faults.parse("duplicates").doors == 0
    with pytest.raises(ValueError, match=r"unknown fault 'rain'; known are all, none, doors"):
        Faults.parse("doors,rain")
