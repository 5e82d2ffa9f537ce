"""The two ends of an MQTT ingest as its users have it today, in an environment of their own: a publisher and a consumer.

A message is one reading as JSON on its tag's topic, quality of service 1. The consumer judges each in plain Python and inserts it into
SQLite (synchronous = FULL), a transaction for whatever has come since the last one, and only then acknowledges to the broker.

`python mqtt_peer.py publish|consume PORT`, with a JSON line on standard input; says "ready" when it is, and a JSON line at the end.
"""

from __future__ import annotations

import json
import queue
import sqlite3
import sys
import threading
import time
from typing import Any

import paho.mqtt.client as mqtt
from plain_tag import PlainTag, Rules

MOST_IN_FLIGHT = 1_000


def client(port: int, **more: Any) -> mqtt.Client:
    """A connected client with its network thread running."""
    made = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311, **more)
    made.max_inflight_messages_set(MOST_IN_FLIGHT)
    made.max_queued_messages_set(0)
    there = threading.Event()
    made.on_connect = lambda *_: there.set()
    made.connect("127.0.0.1", port)
    made.loop_start()
    if not there.wait(10):
        raise RuntimeError("the broker does not answer")
    return made


def publish(port: int, order: dict[str, Any]) -> dict[str, Any]:
    """Send the readings, at most 1,000 unacknowledged."""
    messages = [
        (f"tags/{tag}", json.dumps({"sensed_us": at_us, "temperature_c": c, "latitude_deg": lat, "longitude_deg": lon}))
        for tag, at_us, c, lat, lon in order["readings"]
    ]
    room = threading.Semaphore(MOST_IN_FLIGHT)
    sender = client(port)
    sender.on_publish = lambda *_: room.release()
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.monotonic()
    for topic, payload in messages:
        room.acquire()
        sender.publish(topic, payload, qos=1)
    for _ in range(MOST_IN_FLIGHT):
        room.acquire()
    sender.disconnect()
    return {"start": start}


def consume(port: int, order: dict[str, Any]) -> dict[str, Any]:
    """Take as many readings as were promised: judge, store, acknowledge."""
    rules = Rules(**order["rules"])
    tags: dict[int, PlainTag] = {}
    database = sqlite3.connect(order["database"])
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE reading (tag INTEGER, sensed_us INTEGER, c REAL, lat REAL, lon REAL, PRIMARY KEY (tag, sensed_us))")
    arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
    taker = client(port, client_id="consumer", clean_session=False, manual_ack=True)
    taker.on_message = lambda _client, _data, message: arrived.put(message)
    there = threading.Event()
    taker.on_subscribe = lambda *_: there.set()
    taker.subscribe("tags/+", qos=1)
    if not there.wait(10):
        raise RuntimeError("the broker refuses the subscription")
    print("ready", flush=True)
    left = order["many"]
    while left:
        messages = [arrived.get()]
        while not arrived.empty() and len(messages) < MOST_IN_FLIGHT:
            messages.append(arrived.get())
        rows = []
        for message in messages:
            tag, told = int(message.topic.rpartition("/")[2]), json.loads(message.payload)
            row = (told["sensed_us"], told["temperature_c"], told["latitude_deg"], told["longitude_deg"])
            rows.append((tag, *row))
            (tags.get(tag) or tags.setdefault(tag, PlainTag(tag, rules))).read(*row)
        with database:
            database.executemany("INSERT INTO reading VALUES (?, ?, ?, ?, ?)", rows)
        for message in messages:
            taker.ack(message.mid, message.qos)
        left -= len(messages)
    end = time.monotonic()
    taker.disconnect()
    return {"end": end, "results": [tag.result() for tag in tags.values()]}


if __name__ == "__main__":
    what, its_port = sys.argv[1], int(sys.argv[2])
    answer = {"publish": publish, "consume": consume}[what](its_port, json.loads(sys.stdin.readline()))
    print(json.dumps(answer), flush=True)
