"""The simulated fleet: for a seed always the same readings, in the order in which gateways would send them.

Time goes in steps. In each step the vehicles' air follows its set point, the weather, open doors and failed compressors, every
tag follows its vehicle's air, and the tags that are due report. All of it is numpy on columns; a step of a million tags
takes a fraction of a second, and nothing is kept but the state of each tag and what waits in dead zones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from actors.rules.readings import Batch
from cluster.simulate.climate import ambient_c, humidity_pct, relax, sun_load_c
from cluster.simulate.columns import CODES, METRICS, ROW, join, take
from cluster.simulate.faults import Faults, active, covered_share, ends_of_holding, schedule
from cluster.simulate.vehicles import (
    COLD_ROOM,
    DAY_S,
    GOODS,
    HOUR_S,
    KIND_NAMES,
    LOADING_S,
    PARCEL_KIND,
    REEFER_OCEAN,
    ROUTES,
    UNLOADING_S,
    Room,
    Trip,
    Vehicles,
)

F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]

METRES_PER_DEGREE = 111_195.0
STEPS_OF_KIND = np.array([1, 1, 2, 3])
"""A tag on each kind of vehicle reports every so many steps."""
ONCE, TWICE, CONFLICTING = 0, 1, 2
"""How a reading is sent: once; again later, the same; again later under the same identity with another temperature."""
STUCK, SPIKES, BROKEN = 1, 2, 3


@dataclass(frozen=True)
class Slice:
    """What one gateway sends at one moment of simulated time. `batch.tag` is the fleet's tag number.

    backlog: it holds readings that waited in a dead zone or for the gateway.
    """

    gateway: int
    at_us: int
    backlog: bool
    batch: Batch


@dataclass(frozen=True)
class Truth:
    """What a perfect receiver of all slices ends up with.

    accepted: every plausible reading once, ordered by tag and sequence; duplicate, conflicting, refused: readings sent besides.
    """

    accepted: Batch
    duplicate: int
    conflicting: int
    refused: int


@dataclass(frozen=True)
class _Step:
    """Readings of one step before they are sent: with the step at which each leaves and how it is sent."""

    batch: Batch
    leaves: I8
    held: npt.NDArray[np.bool_]
    sending: npt.NDArray[np.int8]
    again: I8
    refused: npt.NDArray[np.bool_]


class Fleet:
    """A fleet of `tags` tags over `days` days from `start_us`, sending through `gateways` gateways.

    `interval_s` is how often a tag on a reefer reports; parcels report half, cold rooms a third as often. `name` begins the ids
    of tags, shipments and warehouses.
    """

    def __init__(
        self,
        tags: int,
        *,
        seed: int = 1,
        days: float = 3.0,
        start_us: int = 1_767_225_600_000_000,
        gateways: int = 4,
        interval_s: float = 300.0,
        faults: Faults | None = None,
        name: str = "sim",
    ) -> None:
        if tags < 1 or gateways < 1 or days <= 0 or interval_s < 1:
            raise ValueError("a fleet has at least one tag and one gateway, some time, and an interval of at least 1 s")
        self.tags, self.seed, self.days, self.start_us = tags, seed, days, start_us
        self.gateways, self.interval_s, self.name = gateways, interval_s, name
        self.faults = faults or Faults()
        self.steps = max(1, int(days * DAY_S / interval_s))
        rng = np.random.default_rng([seed, 0])
        self.vehicles = Vehicles.draw(rng, tags, self.faults.warm_loading)
        self.vehicle_of_tag = np.repeat(np.arange(len(self.vehicles)), np.diff(self.vehicles.first_tag)).astype(np.int32)
        self.gateway_of_vehicle = (np.arange(len(self.vehicles)) % gateways).astype(np.int32)
        self._draw_schedules(rng)
        self._draw_tags(rng)

    def _draw_schedules(self, rng: np.random.Generator) -> None:
        n, days, faults, kind = len(self.vehicles), self.days, self.faults, self.vehicles.kind
        self.door_openings = schedule(rng, n, days, faults.doors, 120.0, 2400.0)
        self.compressor_failures = schedule(rng, n, days, faults.compressors, 1 * HOUR_S, 9 * HOUR_S)
        self.dead_zones = schedule(rng, n, days, faults.dead_zones, 0.3 * HOUR_S, 12 * HOUR_S)
        self.dead_zones[kind == COLD_ROOM] = np.inf
        self.gateway_outages = schedule(rng, self.gateways, days, faults.gateways, 1 * HOUR_S, 7 * HOUR_S)
        self.newest_first = rng.random(n) < 0.5

    def _draw_tags(self, rng: np.random.Generator) -> None:
        n, faults = self.tags, self.faults
        kind = self.vehicles.kind[self.vehicle_of_tag]
        self.period = STEPS_OF_KIND[kind]
        self.offset = rng.integers(0, 6, n) % self.period
        self.phase_s = rng.uniform(0.05, 0.85, n) * self.interval_s
        self.tau_s = np.exp(rng.uniform(np.log(600.0), np.log(9000.0), n))
        self.bias_c = rng.normal(0.0, 0.15, n) + rng.normal(0.0, 0.3, n)  # the sensor's own, and its place in the load
        self.battery_start_v = rng.uniform(3.35, 3.65, n)
        self.battery_per_day_v = rng.uniform(0.001, 0.006, n)
        drift = rng.normal(0.0, 2e-5, n)
        slow, ahead = -rng.uniform(60.0, 1200.0, n), rng.uniform(0.5 * HOUR_S, 6 * HOUR_S, n)
        wrong = np.where(rng.random(n) < 0.7, slow, ahead)
        self.clock_error_s = np.where(rng.random(n) < faults.clocks, wrong, 0.0)
        self.clock_drift = drift if faults.clocks else np.zeros(n)
        self.sensor_fault = np.where(rng.random(n) < faults.sensors, rng.integers(STUCK, BROKEN + 1, n), 0).astype(np.int8)
        self.sensor_fault_from_s = rng.uniform(0.1, 0.9, n) * self.days * DAY_S
        self.sensor_fault_until_s = self.sensor_fault_from_s + rng.uniform(2 * HOUR_S, 18 * HOUR_S, n)

    # ---- who is who

    def tag_id(self, tag: int) -> str:
        """The id of a tag by its number."""
        return f"{self.name}-{KIND_NAMES[self.vehicles.kind[self.vehicle_of_tag[tag]]].lower()}-{tag:07d}"

    def tag_ids(self) -> list[str]:
        """The ids of all tags, by number."""
        names = [f"{self.name}-{kind.lower()}-" for kind in KIND_NAMES]
        return [f"{names[kind]}{tag:07d}" for tag, kind in enumerate(self.vehicles.kind[self.vehicle_of_tag].tolist())]

    def trips(self) -> list[Trip]:
        """The shipments of the simulation, in order of the beginning of custody."""
        return self.vehicles.trips(self.days * DAY_S, self.name.upper())

    def rooms(self) -> list[Room]:
        """The cold rooms of the simulation."""
        return self.vehicles.rooms(self.name.upper())

    def time_us(self, seconds: float) -> int:
        """Seconds since the start as microseconds since 1970."""
        return self.start_us + round(seconds * 1e6)

    # ---- what is sent

    def slices(self) -> Iterator[Slice]:
        """What the gateways send, in order of sending. After the last step, what is still held is sent as backlog."""
        waiting: dict[int, list[tuple[Batch, bool]]] = defaultdict(list)
        step_number = -1
        for step_number, step in enumerate(self._generate()):
            self._queue(step, step_number, waiting)
            yield from self._send(step_number, waiting.pop(step_number, []))
        for late in sorted(waiting):
            yield from self._send(late, waiting[late])

    def truth(self) -> Truth:
        """The readings themselves, all at once: for tests and benchmarks, in memory."""
        kept, duplicate, conflicting, refused = [], 0, 0, 0
        for step in self._generate():
            good = ~step.refused
            kept.append(take(step.batch, np.flatnonzero(good)))
            duplicate += int((step.sending[good] == TWICE).sum())
            conflicting += int((step.sending[good] == CONFLICTING).sum())
            refused += int((1 + (step.sending[step.refused] != ONCE)).sum())
        batch = join(kept)
        return Truth(take(batch, np.lexsort((batch.sequence, batch.boot, batch.tag))), duplicate, conflicting, refused)

    def _queue(self, step: _Step, number: int, waiting: dict[int, list[tuple[Batch, bool]]]) -> None:
        for leaves in np.unique(step.leaves).tolist():
            rows = np.flatnonzero(step.leaves == leaves)
            waiting[max(leaves, number)].append((take(step.batch, rows), leaves > number))
        copies = np.flatnonzero(step.sending != ONCE)
        if len(copies):
            repeated = take(step.batch, copies)
            repeated.values[ROW["temperature_c"]] += step.sending[copies] == CONFLICTING
            for again in np.unique(step.again[copies]).tolist():
                waiting[again].append((take(repeated, np.flatnonzero(step.again[copies] == again)), False))

    def _send(self, number: int, parts: list[tuple[Batch, bool]]) -> Iterator[Slice]:
        at_us = self.time_us((number + 1) * self.interval_s)
        for backlog in (False, True):
            chosen = [batch for batch, late in parts if late is backlog]
            if not chosen:
                continue
            batch = join(chosen)
            vehicle = self.vehicle_of_tag[batch.tag]
            gateway = self.gateway_of_vehicle[vehicle]
            if backlog:
                direction = np.where(self.newest_first[vehicle], -1, 1)
                order = np.lexsort((direction * batch.sensed_us, vehicle, gateway))
            else:
                order = np.argsort(gateway, kind="stable")
            bounds = np.searchsorted(gateway[order], np.arange(self.gateways + 1))
            for g in range(self.gateways):
                if bounds[g] < bounds[g + 1]:
                    yield Slice(g, at_us, backlog, take(batch, order[bounds[g] : bounds[g + 1]]))

    # ---- physics, one step after another

    def _generate(self) -> Iterator[_Step]:
        vehicles, dt = self.vehicles, self.interval_s
        set_point = np.array([goods.set_point_c for goods in GOODS])[vehicles.goods]
        base_humidity = np.array([goods.humidity_pct for goods in GOODS])[vehicles.goods]
        parcel = vehicles.kind == PARCEL_KIND
        land = np.array([route.land for route in ROUTES] + [True])[vehicles.route]
        air = set_point.copy()
        goods_c = air[self.vehicle_of_tag].copy()
        sequence = np.zeros(self.tags, np.int64)
        boot = np.ones(self.tags, np.int64)
        trip_before = vehicles.trip_at(-dt)[0]
        here = vehicles.position(0.0)
        for k in range(self.steps):
            rng = np.random.default_rng([self.seed, 1, k])
            now_s = k * dt
            there = vehicles.position(now_s + dt)
            trip, elapsed = vehicles.trip_at(now_s)
            outside = ambient_c(here[0], here[1], self.start_us / 1e6 + now_s, land, vehicles.weather)
            # Doors: by chance under way, and wide open while loading and unloading.
            loading = (elapsed < 0) & (elapsed > -np.inf)
            handling = loading | (elapsed >= vehicles.duration_s) & (elapsed < vehicles.duration_s + UNLOADING_S)
            share = np.maximum(covered_share(self.door_openings, now_s, now_s + dt), 0.6 * (handling & ~parcel))
            sun = outside + np.where(land, sun_load_c(here[1], self.start_us / 1e6 + now_s), 0.0)
            idle = active(self.compressor_failures, now_s)
            ripple = 0.35 * np.sin(2 * np.pi * now_s / 5400.0 + vehicles.weather)
            # A parcel is never cooled actively: it stands in tempered halls and holds, or (its compressor failure) on the tarmac.
            hall = 21.0 + 0.18 * (sun - 21.0)
            target = np.where(idle, sun, np.where(parcel, hall, set_point + ripple))
            tau = np.where(parcel, 5 * HOUR_S, np.where(idle, 7 * HOUR_S, 0.6 * HOUR_S))
            air = relax(air, outside, share * dt, 1.2 * HOUR_S)
            air = relax(air, target, (1.0 - share) * dt, tau)
            loaded = (trip != trip_before)[self.vehicle_of_tag]
            trip_before = trip
            goods_c = np.where(loaded, (set_point + vehicles.warm_c)[self.vehicle_of_tag], goods_c)
            goods_c = relax(goods_c, air[self.vehicle_of_tag], dt, self.tau_s)
            due = np.flatnonzero((k + self.offset) % self.period == 0)
            restart = due[rng.random(len(due)) < self.faults.reboots * dt * self.period[due] / DAY_S]
            boot[restart] += 1
            sequence[restart] = 0
            humidity = humidity_pct(air, outside, base_humidity, share)
            batch, refused = self._report(rng, now_s, due, goods_c, humidity, share, outside, here, there, boot, sequence)
            sequence[due] += 1
            here = there
            yield self._fate(rng, k, batch, refused)

    def _report(
        self,
        rng: np.random.Generator,
        now_s: float,
        due: I8,
        goods_c: F8,
        humidity: F8,
        door: F8,
        outside: F8,
        here: tuple[F8, F8],
        there: tuple[F8, F8],
        boot: I8,
        sequence: I8,
    ) -> tuple[Batch, npt.NDArray[np.bool_]]:
        """The readings of the tags that are due, and which of them hold an impossible value."""
        n, vehicle = len(due), self.vehicle_of_tag[due]
        kind = self.vehicles.kind[vehicle]
        moving, parcel = kind != COLD_ROOM, kind == PARCEL_KIND
        after_s = self.phase_s[due] + rng.uniform(-0.04, 0.04, n) * self.interval_s
        true_s = now_s + after_s
        clock_s = true_s * (1.0 + self.clock_drift[due]) + self.clock_error_s[due]
        values = np.full((len(METRICS), n), np.nan)

        temperature = goods_c[due] + self.bias_c[due] + rng.normal(0.0, 0.05, n)
        failing = (self.sensor_fault_from_s[due] <= now_s) & (now_s < self.sensor_fault_until_s[due])
        fault = np.where(failing, self.sensor_fault[due], 0)
        temperature = np.where(fault == STUCK, 7.25, temperature)
        temperature += np.where((fault == SPIKES) & (rng.random(n) < 0.1), rng.uniform(20.0, 55.0, n), 0.0)
        temperature = np.where(fault == BROKEN, 85.0, temperature)
        refused = rng.random(n) < self.faults.implausible
        values[ROW["temperature_c"]] = np.where(refused, -400.0, np.round(temperature, 2))
        values[ROW["relative_humidity_pct"]] = np.round(np.clip(humidity[vehicle] + rng.normal(0.0, 0.8, n), 0.0, 100.0), 1)
        drop = parcel & (rng.random(n) < 0.01)
        values[ROW["shock_g"]] = np.where(parcel, np.round(np.where(drop, rng.uniform(3, 40, n), rng.gamma(1.5, 0.15, n)), 2), np.nan)
        values[ROW["light_lux"]] = np.where(parcel, np.where(rng.random(n) < 0.004, 350.0, 0.0), np.nan)
        battery = self.battery_start_v[due] - self.battery_per_day_v[due] * true_s / DAY_S - 0.004 * np.maximum(0.0, -goods_c[due])
        values[ROW["battery_v"]] = np.round(np.maximum(battery, 0.0), 3)
        door_tag = ~parcel & (due == self.vehicles.first_tag[vehicle])
        values[ROW["door_open"]] = np.where(door_tag, np.where(door[vehicle] > after_s / self.interval_s, 1.0, 0.0), np.nan)

        # Parcels have a fix only under the open sky; cold rooms have none.
        fixed = np.flatnonzero(moving & (~parcel | (rng.random(n) < 0.6)))
        v, share = vehicle[fixed], after_s[fixed] / self.interval_s
        north, east = there[0][v] - here[0][v], (there[1][v] - here[1][v] + 180.0) % 360.0 - 180.0
        cosine = np.cos(np.radians(here[0][v]))
        accuracy = np.round(np.exp(rng.normal(np.log(7.0), 0.5, len(fixed))), 1)
        error_deg = accuracy / 2.0 / METRES_PER_DEGREE
        latitude = here[0][v] + share * north + rng.normal(0.0, 1.0, len(fixed)) * error_deg
        longitude = here[1][v] + share * east + rng.normal(0.0, 1.0, len(fixed)) * error_deg / cosine
        values[ROW["latitude_deg"], fixed] = np.round(latitude, 6)
        values[ROW["longitude_deg"], fixed] = np.round((longitude + 180.0) % 360.0 - 180.0, 6)
        values[ROW["gps_accuracy_m"], fixed] = accuracy
        speed = np.hypot(north, east * cosine) * METRES_PER_DEGREE / self.interval_s
        values[ROW["speed_mps"], fixed] = np.round(np.maximum(speed + rng.normal(0.0, 0.15, len(fixed)), 0.0), 2)

        sensed_us = self.start_us + np.round(clock_s * 1e3).astype(np.int64) * 1000
        return Batch(due.astype(np.int32), sensed_us, boot[due], sequence[due], CODES, values), refused

    def _fate(self, rng: np.random.Generator, k: int, batch: Batch, refused: npt.NDArray[np.bool_]) -> _Step:
        """When each reading leaves and whether it is sent again: dead zone first, then the gateway's own outage."""
        dt, n = self.interval_s, len(batch)
        vehicle = self.vehicle_of_tag[batch.tag]
        free_s = np.fmax(ends_of_holding(self.dead_zones, k * dt), k * dt)
        outages = self.gateway_outages[self.gateway_of_vehicle]
        if outages.shape[1]:
            inside = (outages[..., 0] <= free_s[:, None]) & (free_s[:, None] < outages[..., 1])
            free_s = np.fmax(free_s, np.where(inside, outages[..., 1], -np.inf).max(axis=1))
        leaves = np.ceil(free_s / dt).astype(np.int64)[vehicle]
        chance = rng.random(n)
        sending = np.where(chance < self.faults.duplicates, TWICE, ONCE)
        sending[(chance >= self.faults.duplicates) & (chance < self.faults.duplicates + self.faults.conflicts)] = CONFLICTING
        again = leaves + rng.integers(1, 7, n)
        return _Step(batch, leaves, leaves > k, sending.astype(np.int8), again, refused)


__all__ = ["LOADING_S", "REEFER_OCEAN", "Fleet", "Slice", "Truth"]
