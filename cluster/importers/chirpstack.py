"""ChirpStack (v4) events as JSON lines: LoRaWAN uplinks with what their codec decoded.

The tag is the devEui, the boot the devAddr (a frame counter restarts when a device rejoins under a new address), the sequence
the fCnt, the sensed time the event's `time`. Which decoded fields are which metrics differs by codec: FIELDS has the usual
names, options add others. A value of 0.0 is kept as it came, even where a device sends it for "no sensor": judging that is the
quality flags' office, not the importer's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.rules.readings import CODE
from cluster.importers.base import Bad, Clock, Item, Reading, RowError, Skipped, UnusableFile, number, numbered_lines, open_text

FIELDS: dict[str, str] = {
    "temperature": "temperature_c",
    "temp": "temperature_c",
    "TempC_SHT": "temperature_c",
    "TempC1": "temperature_c",
    "humidity": "relative_humidity_pct",
    "hum": "relative_humidity_pct",
    "Hum_SHT": "relative_humidity_pct",
    "open": "door_open",
    "DOOR_OPEN_STATUS": "door_open",
    "light": "light_lux",
    "illumination": "light_lux",
    "pressure": "pressure_hpa",
    "tilt": "tilt_deg",
    "Bat": "battery_v",
    "BAT": "battery_v",
    "BatV": "battery_v",
    "battery_v": "battery_v",
    "batteryLevel": "battery_v",
    "latitude": "latitude_deg",
    "longitude": "longitude_deg",
}
"""Metric by the name of the decoded field, as in the codecs of RadioBridge/MultiTech, Dragino, Makerfabs and others."""

_HEX = re.compile(r"[0-9a-fA-F]{1,16}")


def parse_mapping(texts: list[str]) -> dict[str, str]:
    """`FIELD=METRIC` options as a table over FIELDS; `FIELD=` leaves a field out. Raises ValueError naming the wrong one."""
    table = dict(FIELDS)
    for text in texts:
        name, equals, metric = text.partition("=")
        if not name or not equals or (metric and metric not in CODE):
            raise ValueError(f"{text!r} is not FIELD=METRIC with a metric of {', '.join(CODE)}")
        if metric:
            table[name] = metric
        else:
            table.pop(name, None)
    return table


@dataclass(frozen=True)
class ChirpStack:
    """Parser with its options. `fields`: metric by name of the decoded field."""

    fields: Mapping[str, str] = field(default_factory=lambda: FIELDS)

    def __call__(self, path: Path) -> Iterator[Item]:
        """Items of one file."""
        clock, events = Clock("iso", None), False
        with open_text(path) as text:
            for line, row in numbered_lines(text):
                if not row.strip():
                    continue
                try:
                    event = json.loads(row)
                except ValueError as error:
                    yield Bad(line, f"not JSON: {error}")
                    continue
                events = events or (isinstance(event, dict) and "deviceInfo" in event)
                yield self._event(line, event, clock)
        if not events:
            raise UnusableFile("not one event with a 'deviceInfo': these are not ChirpStack events as JSON lines")

    def _event(self, line: int, event: Any, clock: Clock) -> Item:
        if not isinstance(event, dict) or not isinstance(event.get("deviceInfo"), dict):
            return Bad(line, "no ChirpStack event: it has no 'deviceInfo'")
        if "fCnt" not in event:
            return Skipped(line, _kind(event))
        dev_eui, address, counter = event["deviceInfo"].get("devEui"), event.get("devAddr"), event["fCnt"]
        if not isinstance(dev_eui, str) or not dev_eui:
            return Bad(line, "no 'deviceInfo.devEui'")
        if not isinstance(address, str) or not _HEX.fullmatch(address):
            return Bad(line, f"devAddr {address!r} is not a hexadecimal address")
        if isinstance(counter, bool) or not isinstance(counter, int) or counter < 0:
            return Bad(line, f"fCnt {counter!r} is not a counter")
        try:
            values = self._values(event.get("object"))
            if not values:
                return Skipped(line, "uplink without a measurement")
            return Reading(line, dev_eui, clock.read(str(event.get("time", ""))), values, int(address, 16), counter)
        except (RowError, UnusableFile) as error:
            return Bad(line, str(error))

    def _values(self, decoded: Any) -> dict[str, float]:
        values: dict[str, float] = {}
        if not isinstance(decoded, dict):
            return values
        for name, value in decoded.items():
            metric = self.fields.get(name)
            if metric is None or value is None:
                continue
            if isinstance(value, str) and not value.strip():
                continue
            if metric in values:
                raise RowError(f"two fields give {metric}; leave one out with --field {name}=")
            values[metric] = number(str(float(value) if isinstance(value, bool) else value), name)
        if ("latitude_deg" in values) != ("longitude_deg" in values):
            raise RowError("latitude and longitude come together")
        return values


def _kind(event: dict[str, Any]) -> str:
    if "margin" in event:
        return "device status event"
    if "level" in event:
        return "log event"
    return "join event" if "devAddr" in event else "other event"
