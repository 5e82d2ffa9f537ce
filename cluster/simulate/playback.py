"""Plays a fleet into a running Waybill, as gateways and a shipper's system would: a real client of the public API.

One thread a gateway streams readings; shipments are created, given their tags, departed and delivered as simulated time reaches
them. What the server cannot take now is sent again later (`Client.ingest`).
"""

from __future__ import annotations

import heapq
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from cluster.client import Client, Outgoing, Problem, now_us, timestamp
from cluster.simulate.columns import take
from cluster.simulate.fleet import STEPS_OF_KIND, Fleet, Slice
from cluster.simulate.vehicles import COLD_ROOM, PARCEL_KIND, Room, Trip
from waybill.v1 import common_pb2, shipment_pb2, tag_pb2, telemetry_pb2, warehouse_pb2

MESSAGE_READINGS = 10_000
REGISTERED_TAGS = 5_000
"""Up to so many tags are registered with their kind and interval; a larger fleet registers itself by its first readings."""
CARRIED_TAGS = 20_000
CALLERS = 16
STOP_RADIUS_M = 3_000.0
ACTOR = "simulator"
QUALITY = tag_pb2.QualityTests(
    metric=common_pb2.METRIC_TEMPERATURE_C,
    fail_low=-60.0,
    fail_high=60.0,
    spike_suspect=8.0,
    spike_fail=15.0,
    flat_tolerance=0.01,
    flat_suspect_s=6 * 3600.0,
)
"""What a careful operator tests for: a broken wire, a spike, a stuck sensor are the sensor's fault, not the goods'."""


@dataclass
class Totals:
    """What became of the readings sent, over all gateways."""

    sent: int = 0
    accepted: int = 0
    duplicate: int = 0
    conflicting: int = 0
    refused: int = 0
    backlog: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, message: Outgoing, answer: telemetry_pb2.IngestResponse) -> None:
        """Counts one answered message."""
        with self.lock:
            self.sent += len(message.batch)
            self.backlog += len(message.batch) if message.token else 0
            self.accepted += answer.accepted
            self.duplicate += answer.duplicate
            self.conflicting += answer.conflicting
            self.refused += answer.refused


class Stopped(Exception):
    """The playback was told to stop."""


class Playback:
    """One run of a fleet. `speed`: simulated seconds a second, 0: as fast as the server takes it.

    `at` is called with the simulated time (microseconds) whenever it moves on. `carried`: at most about so many tags ride on shipments
    and in cold rooms, those of evenly chosen vehicles; the rest only report.
    """

    def __init__(
        self,
        client: Client,
        fleet: Fleet,
        *,
        speed: float = 0.0,
        carried: int = CARRIED_TAGS,
        at: Callable[[int], None] = lambda us: None,
    ) -> None:
        self.client, self.fleet, self.speed, self.at = client, fleet, speed, at
        vehicles = len(fleet.vehicles)
        chosen = min(vehicles, max(1, round(vehicles * carried / fleet.tags)))
        self._carrying = set(np.linspace(0, vehicles - 1, chosen).round().astype(int).tolist())
        self.totals = Totals()
        self.shipments: list[Trip] = []
        self.stop = threading.Event()
        self._names = fleet.tag_ids()
        self._error: BaseException | None = None

    # ---- carriers

    def prepare(self) -> None:
        """Registers tags and creates the warehouses with their cold rooms. Raises Problem."""
        with ThreadPoolExecutor(CALLERS) as pool:
            if self.fleet.tags <= REGISTERED_TAGS:
                list(pool.map(self._register, range(self.fleet.tags)))
            rooms: dict[str, list[Room]] = {}
            for room in (room for room in self.fleet.rooms() if room.vehicle in self._carrying):
                rooms.setdefault(room.warehouse_id, []).append(room)
            list(pool.map(self._open_warehouse, rooms.values()))

    def _register(self, tag: int) -> None:
        kind = int(self.fleet.vehicles.kind[self.fleet.vehicle_of_tag[tag]])
        facts = tag_pb2.Tag(
            tag_id=self._names[tag],
            kind={COLD_ROOM: tag_pb2.TAG_KIND_FIXED, PARCEL_KIND: tag_pb2.TAG_KIND_TRACKER}.get(kind, tag_pb2.TAG_KIND_BEACON),
            usual_interval_s=self.fleet.interval_s * int(STEPS_OF_KIND[kind]),
            quality=[QUALITY],
        )
        self._unless_there(self.client.tags.RegisterTag, tag_pb2.RegisterTagRequest(tag=facts))

    def _open_warehouse(self, rooms: list[Room]) -> None:
        place = rooms[0].place
        warehouse = warehouse_pb2.Warehouse(
            warehouse_id=rooms[0].warehouse_id,
            name=f"{place.name} cold store",
            locode=place.unlocode,
            location=common_pb2.LatLng(latitude_deg=place.latitude_deg, longitude_deg=place.longitude_deg),
            zones=[warehouse_pb2.Zone(zone_id=room.zone_id, name=room.goods.name, profile_id=room.goods.profile) for room in rooms],
        )
        self._unless_there(self.client.warehouses.CreateWarehouse, warehouse_pb2.CreateWarehouseRequest(warehouse=warehouse))
        for room in rooms:
            for tag in range(room.first_tag, room.end_tag):
                request = warehouse_pb2.AssignZoneTagRequest(
                    warehouse_id=room.warehouse_id,
                    zone_id=room.zone_id,
                    tag_id=self._names[tag],
                    from_time=timestamp(self.fleet.start_us),
                    actor=ACTOR,
                    request_id=f"{self.fleet.name}-{self.fleet.start_us}-room-{tag}"[-64:],
                )
                self.client.call(self.client.warehouses.AssignZoneTag, request)

    def _unless_there(self, method: Callable[..., object], request: object) -> None:
        try:
            self.client.call(method, request)  # type: ignore[arg-type]
        except Problem as problem:
            if problem.reason != "ALREADY_EXISTS":
                raise

    def _begin(self, trip: Trip) -> None:
        now = now_us()
        stops = []
        for number, (place, at_s) in enumerate(trip.stops):
            stop = shipment_pb2.Stop(
                stop_id=f"stop-{number + 1}",
                name=place.name,
                locode=place.unlocode,
                location=common_pb2.LatLng(latitude_deg=place.latitude_deg, longitude_deg=place.longitude_deg),
                radius_m=STOP_RADIUS_M,
            )
            # A plan that lies in the past when it is made would be late from the start: playing history has no plans.
            if number and self.fleet.time_us(at_s) > now:
                stop.planned_arrival_time.CopyFrom(timestamp(self.fleet.time_us(at_s)))
            stops.append(stop)
        shipment = shipment_pb2.Shipment(
            shipment_id=trip.shipment_id,
            reference=f"{trip.stops[0][0].name} to {trip.stops[-1][0].name}",
            description=trip.goods.name,
            profile_id=trip.goods.profile,
            stops=stops,
        )
        self._unless_there(self.client.shipments.CreateShipment, shipment_pb2.CreateShipmentRequest(shipment=shipment))
        for tag in range(trip.first_tag, trip.end_tag):
            request = shipment_pb2.AssignTagRequest(
                shipment_id=trip.shipment_id,
                tag_id=self._names[tag],
                from_time=timestamp(self.fleet.time_us(trip.custody_from_s)),
                actor=ACTOR,
                request_id=f"{trip.shipment_id}-{self.fleet.start_us}-{tag}"[-64:],
            )
            self.client.call(self.client.shipments.AssignTag, request)
        self.shipments.append(trip)

    def _milestone(self, trip: Trip, kind: shipment_pb2.MilestoneKind.ValueType, at_s: float, stop: int = 0) -> None:
        milestone = shipment_pb2.Milestone(kind=kind, time=timestamp(self.fleet.time_us(at_s)), actor=ACTOR)
        if stop:
            milestone.stop_id = f"stop-{stop}"
        request = shipment_pb2.RecordMilestoneRequest(
            shipment_id=trip.shipment_id, milestone=milestone, request_id=f"{trip.shipment_id}-{self.fleet.start_us}-{kind}-{stop}"[-64:]
        )
        self.client.call(self.client.shipments.RecordMilestone, request)

    def _depart(self, trip: Trip) -> None:
        self._milestone(trip, shipment_pb2.MILESTONE_KIND_DEPARTED, max(0.0, trip.departs_s))

    def _deliver(self, trip: Trip) -> None:
        self._milestone(trip, shipment_pb2.MILESTONE_KIND_ARRIVED, trip.arrives_s, len(trip.stops))
        self._milestone(trip, shipment_pb2.MILESTONE_KIND_DELIVERED, trip.custody_until_s)

    def _agenda(self) -> list[tuple[float, int, Callable[[Trip], None], Trip]]:
        """What happens to shipments by simulated seconds: begin, depart, deliver."""
        agenda: list[tuple[float, int, Callable[[Trip], None], Trip]] = []
        end_s = self.fleet.days * 86_400.0
        for trip in (trip for trip in self.fleet.trips() if trip.vehicle in self._carrying):
            agenda.append((trip.custody_from_s, len(agenda), self._begin, trip))
            if trip.departs_s < end_s:
                agenda.append((max(trip.custody_from_s, trip.departs_s), len(agenda), self._depart, trip))
            if trip.custody_until_s < end_s:
                agenda.append((trip.custody_until_s, len(agenda), self._deliver, trip))
        heapq.heapify(agenda)
        return agenda

    # ---- readings

    def run(self, slices: Iterable[Slice] | None = None) -> Totals:
        """Plays all slices (of the fleet, unless others are given) and returns when all are answered.

        Raises Problem where the server refuses or stays away, and Stopped after `stop` was set.
        """
        agenda = self._agenda()
        started = time.monotonic()
        queues: list[queue.Queue[Slice | None]] = [queue.Queue(maxsize=4) for _ in range(self.fleet.gateways)]
        senders = [threading.Thread(target=self._gateway, args=(waiting,), daemon=True) for waiting in queues]
        for sender in senders:
            sender.start()
        reached_us = -1
        try:
            with ThreadPoolExecutor(CALLERS) as pool:
                for piece in self.fleet.slices() if slices is None else slices:
                    if piece.at_us > reached_us:
                        reached_us = piece.at_us
                        self._happen(agenda, (piece.at_us - self.fleet.start_us) / 1e6, pool)
                        self._pace(started, piece.at_us)
                        self.at(piece.at_us)
                    self._put(queues[piece.gateway], piece)
                self._happen(agenda, self.fleet.days * 86_400.0, pool)
        finally:
            for waiting in queues:
                self._put(waiting, None, ending=True)
            for sender in senders:
                sender.join()
        if self._error is not None:
            raise self._error
        return self.totals

    def _happen(self, agenda: list[tuple[float, int, Callable[[Trip], None], Trip]], until_s: float, pool: ThreadPoolExecutor) -> None:
        """Everything on the agenda up to a simulated time: different shipments at once, each one's own steps in order."""
        due: dict[str, list[tuple[Callable[[Trip], None], Trip]]] = {}
        while agenda and agenda[0][0] <= until_s:
            _, _, act, trip = heapq.heappop(agenda)
            due.setdefault(trip.shipment_id, []).append((act, trip))

        def in_order(steps: list[tuple[Callable[[Trip], None], Trip]]) -> None:
            for act, trip in steps:
                if self.stop.is_set():
                    raise Stopped
                act(trip)

        # The vehicle's next trip needs its tags back from the one before: deliveries first.
        for delivering in (True, False):
            chosen = [steps for steps in due.values() if (steps[0][0] == self._deliver) is delivering]
            list(pool.map(in_order, chosen))

    def _pace(self, started: float, at_us: int) -> None:
        if self.speed > 0:
            due = started + (at_us - self.fleet.start_us) / 1e6 / self.speed
            self.stop.wait(max(0.0, due - time.monotonic()))

    def _put(self, waiting: queue.Queue[Slice | None], piece: Slice | None, *, ending: bool = False) -> None:
        while True:
            if self._error is not None and not ending:
                raise self._error
            if self.stop.is_set() and not ending:
                raise Stopped
            try:
                return waiting.put(piece, timeout=0.2)
            except queue.Full:
                if ending and (self.stop.is_set() or self._error is not None):
                    waiting.get_nowait()  # nobody will send it any more

    def _gateway(self, waiting: queue.Queue[Slice | None]) -> None:
        try:
            for message, answer in self.client.ingest(self._messages(waiting)):
                self.totals.add(message, answer)
                if self.stop.is_set():
                    break
        except BaseException as error:
            self._error = self._error or error

    def _messages(self, waiting: queue.Queue[Slice | None]) -> Iterator[Outgoing]:
        while (piece := waiting.get()) is not None:
            for first in range(0, len(piece.batch), MESSAGE_READINGS):
                rows = np.arange(first, min(first + MESSAGE_READINGS, len(piece.batch)))
                part = take(piece.batch, rows)
                tags, part_tag = np.unique(part.tag, return_inverse=True)
                named = [self._names[tag] for tag in tags.tolist()]
                columns = type(part)(part_tag.astype(np.int32), part.sensed_us, part.boot, part.sequence, part.codes, part.values)
                yield Outgoing(named, columns, token=piece.backlog)
