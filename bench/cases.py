"""The fixed set of measurements. A new figure is a new line here: its name, what makes it, what it is about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Measure = Callable[[bool], dict[str, Any]]
"""Given whether to be quick; the result has `rows`, each with label, unit, repeats, median, least, most and what else is known."""


class Case(NamedTuple):
    """A measurement that runs in a process group of its own."""

    title: str
    module: str
    function: str
    about: str
    timeout_s: int


CASES: dict[str, Case] = {
    "columns": Case(
        "Readings as columns, through gRPC, durable and judged",
        "bench.ingest",
        "columns",
        "10,000 tags behind 8 gateways; a batch holds 8 readings of each of a gateway's 1,250 tags. Two doors, one client process.",
        1200,
    ),
    "rows": Case(
        "Readings as rows from small gateways",
        "bench.ingest",
        "small_gateways",
        "Each gateway has 10 tags and a stream of its own; a message holds 100 readings. Two doors, two client processes.",
        1200,
    ),
    "single": Case(
        "One reading a call",
        "bench.ingest",
        "single_readings",
        "64 callers with a tag each, unary calls, one at a time each. Two doors, two client processes.",
        600,
    ),
    "alerts": Case(
        "From sending a reading to having its alert",
        "bench.alerts",
        "latency",
        "10 gateways send a message every 100 ms; the clock starts when the message with the excursion's reading is written to its "
        "stream, and stops when a subscriber in another process has the alert. One sending process, one watching.",
        1200,
    ),
    "inventory": Case(
        "Inventory: books, movements, the change feed, holds",
        "bench.inventory",
        "inventory",
        "Two warehouses with 10 zones, 100 items. Movements: receipts, put-aways and picks, two callers. The change feed: a subscriber "
        "in the same process, single movements, 50 a second. Holds: one reading a call, 20 a second, each an excursion on a shipment "
        "with one lot.",
        1200,
    ),
    "actors": Case(
        "One Ray actor per tag",
        "bench.peers",
        "actors",
        "20 tags, the same rules in plain Python, readings in order, one call for each, up to 1,000 calls in flight, "
        "nothing written to disk.",
        600,
    ),
    "mqtt": Case(
        "MQTT, one reading a message",
        "bench.mqtt",
        "ingest",
        "200 tags through a real mosquitto on loopback, quality of service 1, up to 1,000 messages in flight; the consumer judges in plain "
        "Python, inserts into SQLite (synchronous = FULL) and then acknowledges. One publishing process, one consuming.",
        600,
    ),
    "core": Case(
        "Judging alone, on one core",
        "bench.peers",
        "one_core",
        "Readings in order, in memory: how far the rules are from what is around them.",
        600,
    ),
    "million": Case(
        "A million tags",
        "bench.million",
        "million",
        "Tags on shipments with three limits and a geofence: a start from their snapshots, readings/s against a thousand tags (10,000 a "
        "batch, 64 in flight, one client process), and the processor time of all processes while each tag reports once a minute in "
        "messages of 166.",
        1200,
    ),
    "shards": Case(
        "Four shards against one",
        "bench.shards",
        "against_one",
        "10,000 tags. Pre-routed: the bench gives each shard its columns itself, 15,000 readings a call, four calls without an answer at "
        "each shard; then the same readings go on through gRPC. Both are durable and judged when they are answered.",
        1200,
    ),
    "demo": Case(
        "The demo's first alert",
        "bench.demo",
        "first_alert",
        "`waybill demo` on a new database, installed and compiled before.",
        600,
    ),
    "memory": Case(
        "Memory of a tag",
        "bench.memory",
        "per_tag",
        "Tags on shipments with three limits and a geofence, each with three readings; RSS of doors, committer, shards and Ray together.",
        3000,
    ),
    "replay": Case(
        "Replay of an archive from Parquet",
        "bench.replay",
        "replay",
        "Journeys of 1,000 minutes, 10 tags a shipment: quality tests, three limits, MKT, a geofence; what is recorded is compared with "
        "what the rules give. Peers judge the same readings from Parquet on a prefix of the first part, and agree event for event.",
        1800,
    ),
}
