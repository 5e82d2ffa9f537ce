"""`waybill demo`: a whole Waybill and a small fleet in accelerated time, with one thing to watch for.

A lorry with medicine leaves Nairobi, the door of its reefer stays open, and the gateway that hears it is out of order for hours.
Until its backlog comes in, Waybill judges the shipment by what it knows: within its limits. Then the backlog arrives,
is judged at the times at which it was sensed, and the verdict changes, before everybody's eyes and with a new alert.
"""

from __future__ import annotations

import fcntl
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from rich.markup import escape
from rich.text import Text

from cluster import boot
from cluster.cli.alerts import alert_line
from cluster.cli.common import err, out, when, when_us
from cluster.cli.draw import line_plot
from cluster.cli.shipments import series, shipments_table, verdict_text
from cluster.client import Client, Problem, micros
from cluster.settings import Settings, load
from cluster.simulate import Faults, Fleet
from cluster.simulate.playback import Playback, Stopped
from cluster.simulate.routes import MOMBASA, NAIROBI
from cluster.simulate.vehicles import GOODS, MEDICINE, REEFER_ROAD, ROUTES, Trip
from waybill.v1 import alert_pb2, common_pb2, exposure_pb2, shipment_pb2

TAGS, GATEWAYS = 64, 5
START_US = 1_751_846_400_000_000  # 2025-07-07: always the same journeys, and always in the past
HOUR_S = 3600.0
MOST_EXCURSIONS = 4
DEAF_GATEWAY = GATEWAYS - 1
"""This gateway is out of order for some hours; the scene's lorry is the one vehicle that it serves."""
SHOWN = (
    alert_pb2.ALERT_CHANGE_RAISED,
    alert_pb2.ALERT_CHANGE_REOPENED,
    alert_pb2.ALERT_CHANGE_CORRECTED,
    alert_pb2.ALERT_CHANGE_WITHDRAWN,
)


class Scene:
    """The fleet, and the lorry to watch: when its gateway falls silent and when it is heard again (microseconds)."""

    def __init__(self, seed: int, days: float) -> None:
        self.fleet = fleet = Fleet(TAGS, seed=seed, days=days, start_us=START_US, gateways=GATEWAYS, faults=Faults(), name="demo")
        vehicles = fleet.vehicles
        hot = next(code for code, route in enumerate(ROUTES) if (route.origin, route.destination) == (NAIROBI, MOMBASA))
        lorry = int(np.flatnonzero((vehicles.kind == REEFER_ROAD) & (vehicles.route == hot))[0])
        vehicles.goods[lorry] = GOODS.index(MEDICINE)
        vehicles.warm_c[lorry] = 0.0
        for schedule in (fleet.door_openings, fleet.compressor_failures, fleet.dead_zones):
            schedule[lorry] = np.inf
        tags = slice(int(vehicles.first_tag[lorry]), int(vehicles.first_tag[lorry + 1]))
        fleet.clock_error_s[tags], fleet.sensor_fault[tags], fleet.tau_s[tags] = 0.0, 0, np.minimum(fleet.tau_s[tags], 1800.0)
        departs = float(vehicles.first_trip_s[lorry])
        deaf_s, heard_s = departs + 1.0 * HOUR_S, departs + 8.5 * HOUR_S
        fleet.door_openings = np.concatenate([fleet.door_openings, np.full((len(vehicles), 1, 2), np.inf)], axis=1)
        fleet.door_openings[lorry, -1] = (deaf_s + 1.0 * HOUR_S, deaf_s + 4.0 * HOUR_S)
        fleet.gateway_of_vehicle = (np.arange(len(vehicles)) % DEAF_GATEWAY).astype(np.int32)
        fleet.gateway_of_vehicle[lorry] = DEAF_GATEWAY
        fleet.gateway_outages = np.full((GATEWAYS, 1, 2), np.inf)
        fleet.gateway_outages[DEAF_GATEWAY, 0] = (deaf_s, heard_s)
        self.deaf_us, self.heard_us = fleet.time_us(deaf_s), fleet.time_us(heard_s)
        self.trip: Trip = next(trip for trip in fleet.trips() if trip.vehicle == lorry)


class Teller:
    """Prints what happens to the lorry's shipment as simulated time passes it."""

    def __init__(self, client: Client, scene: Scene) -> None:
        self.client, self.scene = client, scene
        self._told_deaf = self._told_before = self.told_after = False

    def at(self, us: int) -> None:
        """Simulated time is `us` microseconds."""
        scene = self.scene
        if not self._told_deaf and us >= scene.deaf_us:
            self._told_deaf = True
            self._say(us, f"the gateway that hears {scene.trip.shipment_id} falls silent; its tags go on measuring")
        if not self._told_before and us >= scene.heard_us:
            self._told_before = True
            self._say(us, "the gateway is heard again and sends its backlog, 7.5 hours late. Before it is judged:")
            self._verdict(self.exposure(), "before")
        elif self._told_before and not self.told_after:
            exposure = self.exposure()
            if exposure.verdict == common_pb2.VERDICT_EXCURSION:
                self.told_after = True
                self._say(us, "and after:")
                self._verdict(exposure, "after ")
                self._excursions()

    def exposure(self) -> exposure_pb2.CarrierExposure:
        """The shipment's exposure as it is judged now."""
        request = shipment_pb2.GetExposureRequest(shipment_id=self.scene.trip.shipment_id)
        return self.client.call(self.client.shipments.GetExposure, request).exposure

    def _say(self, us: int, text: str) -> None:
        out.print(f"\n[bold magenta]{when_us(us)}[/] {escape(text)}")

    def _verdict(self, exposure: exposure_pb2.CarrierExposure, word: str) -> None:
        line = Text.assemble(
            "   ", (word, "dim"), " ", verdict_text(exposure.verdict), f"  judged until {when(exposure.judged_until_time)}"
        )
        out.print(line)

    def _excursions(self) -> None:
        shipment_id = self.scene.trip.shipment_id
        request = shipment_pb2.ListExcursionsRequest(shipment_id=shipment_id)
        found: list[exposure_pb2.Excursion] = list(self.client.pages(self.client.shipments.ListExcursions, request, "excursions"))
        for one in found[:MOST_EXCURSIONS]:
            late = "found late, " if one.found_late else ""
            out.print(
                f"   [red]{escape(one.tag_id)}[/] {one.limit_id} from {when(one.started_time)}, worst {one.extreme:.1f} °C "
                f"({late}recorded {when(one.recorded_time)})"
            )
        if len(found) > MOST_EXCURSIONS:
            out.print(f"   [dim]and {len(found) - MOST_EXCURSIONS} more[/]")
        lines = series(self.client, shipment_id, common_pb2.METRIC_TEMPERATURE_C)
        if found and found[0].tag_id in lines:
            spans = [(micros(one.started_time), micros(one.ended_time)) for one in found if one.tag_id == found[0].tag_id]
            width = max(20, min(out.width - 16, 100))
            out.print(line_plot(*lines[found[0].tag_id], limits=[2.0, 8.0, 15.0], spans=spans, width=width, height=8, unit="°C"))


def run(data_dir: Path, *, seed: int, days: float, seconds: float, stay: bool = False) -> None:
    """The demo from start to end. Raises SettingsError, StartError and Problem; Ctrl-C ends all of it and exits with 130."""
    signal.signal(signal.SIGTERM, _interrupt)
    begun = time.monotonic()
    settings = load(data_dir=data_dir, database_url=f"sqlite:///{data_dir / 'waybill.db'}", host="127.0.0.1", port=0)
    _clear(settings)
    try:
        out.print("[bold]Waybill[/]: starting a database, Ray, shards and a door on this machine")
        with boot.start(settings, say=lambda text: err.print(f"[dim]  {text}[/]")) as running:
            out.print(f"  serving at {running.target} after {time.monotonic() - begun:.0f} s\n")
            with Client(running.target) as client:
                scene = Scene(seed, days)
                _play(client, scene, seconds)
                out.print(f"[dim]{time.monotonic() - begun:.0f} s from the command to here. Times are UTC, sensors' clocks.[/]")
                _next(data_dir, scene.trip.shipment_id, running.target if stay else "")
            if stay:
                threading.Event().wait()
            out.print("ending")
    except KeyboardInterrupt:
        out.print("\nended")
        sys.exit(130)


def _play(client: Client, scene: Scene, seconds: float) -> None:
    fleet = scene.fleet
    teller = Teller(client, scene)
    playback = Playback(client, fleet, speed=fleet.days * 86_400.0 / seconds, at=teller.at)
    begin, end = (f"{datetime.fromtimestamp(us / 1e6, UTC):%Y-%m-%d}" for us in (fleet.start_us, fleet.time_us(fleet.days * 86_400)))
    out.print(
        f"{fleet.tags} tags on lorries, ships, parcels and in cold rooms; {fleet.days:g} days from {begin} to {end} in {seconds:.0f} s.\n"
        f"Watch {scene.trip.shipment_id}: {scene.trip.goods.name} from {scene.trip.stops[0][0].name} to {scene.trip.stops[-1][0].name}.\n"
        "Alerts as they happen:"
    )
    with _alerts(client):
        try:
            playback.prepare()
            totals = playback.run()
        except (KeyboardInterrupt, Stopped):
            playback.stop.set()
            raise
        if not teller.told_after:
            teller.at(fleet.time_us(fleet.days * 86_400))
        time.sleep(0.5)  # the last alerts are on their way
    out.print(
        f"\n{totals.sent:,} readings sent: {totals.accepted:,} accepted, {totals.backlog:,} of them late, {totals.duplicate:,} duplicate, "
        f"{totals.conflicting:,} conflicting, {totals.refused:,} refused"
    )
    found: list[Any] = list(client.pages(client.shipments.ListShipments, shipment_pb2.ListShipmentsRequest(), "shipments"))
    out.print(shipments_table(client, found, worst_first=True))


@contextmanager
def _alerts(client: Client) -> Iterator[None]:
    """Prints changes of alerts while the body runs."""
    calls: list[Any] = []

    def watch() -> None:
        try:
            for message in client.watch_alerts(0, started=calls.append):
                if message.HasField("alert") and message.change in SHOWN:
                    out.print(alert_line(message.alert, message.change, message.event_number), no_wrap=True, overflow="ellipsis", crop=True)
        except (Problem, ValueError) as problem:  # ValueError: the channel was closed first
            if calls:
                out.print(f"[dim]alerts: {escape(str(problem))}[/]")

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        for call in calls:
            call.cancel()
        thread.join(timeout=5)


def _next(data_dir: Path, shipment_id: str, target: str) -> None:
    server = f" --server {target}" if target else ""
    if not target:
        out.print(f"\nWhere to look next: [bold]waybill up --data-dir {data_dir}[/] in one terminal, and in another:")
    else:
        out.print("\nWhere to look next, in another terminal (Ctrl-C here ends the demo):")
    out.print(f"  waybill shipment show {shipment_id}{server}   track, temperature line, excursions with revisions, MKT")
    out.print(f"  waybill alerts{server}                 what is waiting for people; `waybill alert ack ID` acts on one")
    out.print(f"  waybill simulate --tags 1000{server}   more goods on their way")
    out.print("  docs/api.md                  the same from your own program, over gRPC")


def _clear(settings: Settings) -> None:
    """Takes away the database of an earlier demo, unless one is running there."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with open(settings.data_dir / "lock", "a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return  # boot.start says who is using it
        for path in settings.data_dir.glob("waybill.db*"):
            path.unlink()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
