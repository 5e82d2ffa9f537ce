"""Journeys of every kind for the tests of archive and replay: late, shuffled, doubled, moved, corrected, with fences and quality tests."""

from __future__ import annotations

import math
import random

from tests.acceptance.client import Client, at, circle, limit, new_id, us
from waybill.v1 import common_pb2, profile_pb2, shipment_pb2, tag_pb2, telemetry_pb2

CUMULATIVE = profile_pb2.LIMIT_MODE_CUMULATIVE
DELIVERED = shipment_pb2.MILESTONE_KIND_DELIVERED
DEPOT = (52.0, 4.0)
Row = tuple[str, float, float, float | None, float | None]
"""(tag, minute, temperature, latitude, longitude)."""


def profile(client: Client) -> str:
    """Three limits: a single one with hysteresis, one at once, a cumulative one."""
    return client.profile(
        limit("warm", 8, minutes=10, clear=7), limit("cold", 2, below=True), limit("total", 8, minutes=30, mode=CUMULATIVE)
    )


def course(rng: random.Random, tag: str, first: float, minutes: int, every: float = 1.0) -> list[Row]:
    """A tag's readings: spells of warmth and cold, some missing, a drive to the depot and back."""
    rows: list[Row] = []
    warm, cold, visit = (rng.uniform(0.1, 0.8) * minutes for _ in range(3))
    gap = rng.uniform(0.2, 0.7) * minutes
    for k in range(int(minutes / every)):
        minute = k * every
        if rng.random() < 0.03 or gap < minute < gap + minutes * 0.02:
            continue
        value = 5 + math.sin(minute / 17) + rng.uniform(-0.2, 0.2)
        value += 5 * (warm < minute < warm + rng.choice((9, 25))) - 5 * (cold < minute < cold + 8)
        near = visit < minute < visit + 20
        latitude = DEPOT[0] + (0.001 if near else 0.5) + rng.uniform(0, 0.0005)
        fix = k % 2 == 0
        rows.append((tag, first + minute, round(value, 2), latitude if fix else None, DEPOT[1] if fix else None))
    return rows


def send(client: Client, rows: list[Row], rng: random.Random, *, shuffled: bool = True, doubled: float = 0.1, size: int = 40) -> None:
    """Send readings in messages; some twice, some of them much later than their neighbours."""
    made = []
    for tag, minute, value, latitude, longitude in rows:
        reading = telemetry_pb2.Reading(tag_id=tag, sensed_at_us=us(minute), boot=1, sequence=round(minute * 60) + 1, temperature_c=value)
        if latitude is not None:
            reading.position.latitude_deg, reading.position.longitude_deg = latitude, longitude or 0.0
        made.append(reading)
    if shuffled:
        made = [one for _, one in sorted(((k + rng.expovariate(1 / 30), k), one) for k, one in enumerate(made))]
    made += [one for one in made if rng.random() < doubled]
    for start in range(0, len(made), size):
        answer = client.send_rows(made[start : start + size])
        assert not answer.refused


def quality_tests(client: Client, tag: str) -> None:
    """The tag's temperatures are tested for spikes and range."""
    tests = [tag_pb2.QualityTests(metric=common_pb2.METRIC_TEMPERATURE_C, spike_suspect=2, spike_fail=4, fail_low=-30, fail_high=60)]
    client.tags.RegisterTag(tag_pb2.RegisterTagRequest(tag=tag_pb2.Tag(tag_id=tag, quality=tests)), timeout=30)


def deliver(client: Client, shipment: str, minute: float) -> None:
    """The journey is over."""
    client.milestone(shipment, DELIVERED, minute)


def journeys(client: Client, seed: int, *, minutes: int = 180) -> list[str]:
    """Eight closed shipments, of each kind; their ids."""
    rng = random.Random(seed)
    profile_id = profile(client)
    fence = circle(new_id("depot"), *DEPOT, 2000.0)
    made = []

    # Two tags, in order.
    tags = [new_id("t"), new_id("t")]
    shipment = client.shipment(profile_id, *tags, geofences=[fence])
    for tag in tags:
        send(client, course(rng, tag, 0, minutes), rng, shuffled=False, doubled=0)
        client.release(shipment, tag, minutes)
    made.append(shipment)

    # Shuffled and doubled, with quality settings and spikes.
    tag = new_id("t")
    quality_tests(client, tag)
    shipment = client.shipment(profile_id, tag, geofences=[fence])
    whole = enumerate(course(rng, tag, 0, minutes))
    rows = [(name, minute, 40.0 if k % 37 == 11 else value, latitude, longitude) for k, (name, minute, value, latitude, longitude) in whole]
    send(client, rows, rng)
    client.release(shipment, tag, minutes)
    made.append(shipment)

    # Half of the readings come after the custody has ended, and after the tag rides elsewhere.
    tag = new_id("t")
    shipment, other = client.shipment(profile_id, tag, geofences=[fence]), client.shipment(profile_id)
    rows, more = course(rng, tag, 0, minutes), course(rng, tag, minutes, minutes)
    rng.shuffle(rows)
    send(client, rows[::2], rng)
    client.release(shipment, tag, minutes)
    client.assign(other, tag, minutes)
    send(client, [*rows[1::2], *more], rng)
    client.release(other, tag, 2 * minutes)
    made += [shipment, other]

    # Two custodies of one tag on one shipment: the cumulative limit goes on; the first one's end is corrected afterwards.
    tag = new_id("t")
    shipment = client.shipment(profile_id)
    custody = client.assign(shipment, tag, 0)
    send(client, course(rng, tag, 0, minutes), rng)
    custody = client.release(shipment, tag, minutes * 0.4)
    client.assign(shipment, tag, minutes * 0.5)
    client.release(shipment, tag, minutes)
    client.correct(custody, until_time=at(minutes * 0.45))
    made.append(shipment)

    # Told afterwards, with an mkt limit.
    tag = new_id("t")
    mkt = client.profile(limit("mkt", 5.2, mode=profile_pb2.LIMIT_MODE_MKT, window_s=3600.0), limit("warm", 8, minutes=5))
    shipment = client.shipment(mkt)
    send(client, course(rng, tag, 0, minutes), rng)
    client.assign(shipment, tag, minutes * 0.1, minutes * 0.9)
    made.append(shipment)

    # From one carrier to the next, with spikes at the edges that only the tag's readings outside of the custody show, in order and late.
    tag = new_id("t")
    quality_tests(client, tag)
    shipment, other = client.shipment(profile_id), client.shipment(profile_id)
    client.assign(shipment, tag, 3)
    spikes = (3, minutes - 1, 2 * minutes - 1)
    rows = [
        (tag, float(minute), 40.0 if minute in spikes else 5.0, None, None) for minute in range(1, 2 * minutes + 3) if minute != minutes
    ]
    send(client, rows[1 : minutes - 1], rng, shuffled=False)
    client.release(shipment, tag, minutes)
    client.assign(other, tag, minutes)
    send(client, rows[minutes - 1 :], rng)
    client.release(other, tag, 2 * minutes)
    send(client, [(tag, minutes + 0.5, 75.0, None, None), (tag, minutes + 0.25, 5.5, None, None), rows[0]], rng, shuffled=False, size=1)
    made += [shipment, other]

    for one in made:
        deliver(client, one, 2 * minutes + 1)
    return made
