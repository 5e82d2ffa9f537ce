"""Identity to shard, and handles: `SensorTag(id)`, `Shipment(id)`, `Warehouse(id)` are virtual actors that any Ray driver can call.

A virtual actor always exists; it lives in the shard its id hashes to, with thousands of others. A handle is only an address.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, cast
from zlib import crc32

import ray

from actors.rules.errors import Unavailable
from actors.rules.readings import concatenate_flagged


def shard_of(identity: str, shards: int) -> int:
    """The shard that an identity lives in: the same everywhere and for ever, for a given number of shards.

    >>> shard_of("tag-1", 4)
    0
    """
    return crc32(identity.encode()) % shards


def shard_name(number: int) -> str:
    """Ray name of a shard's actor."""
    return f"waybill-shard-{number}"


class Directory:
    """The shards of one system. `call` gives an awaitable (and what `ray.get` takes)."""

    def __init__(self, shards: int, namespace: str | None = None) -> None:
        self._shards = shards
        self._namespace = namespace
        self._handles: list[Any] = [None] * shards

    @classmethod
    def connect(cls, namespace: str | None = None) -> Directory:
        """The directory of the system in a Ray namespace (None: the driver's own). Raises Unavailable where there is none."""
        first = cls(1, namespace)
        facts = ray.get(cast("Any", first.call(0, "info")))
        return cls(int(facts["shards"]), namespace)

    @property
    def shards(self) -> int:
        """How many there are."""
        return self._shards

    def shard_of(self, identity: str) -> int:
        """The shard an identity lives in."""
        return shard_of(identity, self._shards)

    def call(self, shard: int, method: str, *arguments: Any) -> Awaitable[Any]:
        """Call a method of a shard. Raises Unavailable where the shard's actor is not there (it is being made)."""
        handle = self._handles[shard]
        if handle is None:
            try:
                handle = ray.get_actor(shard_name(shard), namespace=self._namespace)
            except ValueError:
                raise Unavailable(f"shard {shard} is not there") from None
            self._handles[shard] = handle
        return cast("Awaitable[Any]", getattr(handle, method).remote(*arguments))

    def forget(self, shard: int) -> None:
        """Look the shard up again at the next call: its actor was made anew."""
        self._handles[shard] = None

    def ask(self, identity: str, method: str, *arguments: Any) -> Any:
        """Call the shard of an identity and wait. Raises DomainError as the shard does."""
        try:
            return ray.get(cast("Any", self.call(self.shard_of(identity), method, *arguments)))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None

    def ask_all(self, method: str, *arguments: Any) -> list[Any]:
        """Call every shard and wait."""
        return ray.get([cast("Any", self.call(shard, method, *arguments)) for shard in range(self._shards)])


_default: list[Directory] = []


def default_directory() -> Directory:
    """The directory of the driver's own Ray namespace, looked up once."""
    if not _default:
        _default.append(Directory.connect())
    return _default[0]


def now_us() -> int:
    """Our clock, microseconds since 1970 UTC: the one place in actors/ that looks at it. Shards and handles give its time as data."""
    return time.time_ns() // 1000  # noqa: TID251


class _Handle:
    """An address: an identity and the directory that knows where it lives."""

    def __init__(self, identity: str, directory: Directory | None = None) -> None:
        self.id = identity
        self._directory = directory

    @property
    def directory(self) -> Directory:
        """Where to ask."""
        return self._directory or default_directory()

    def command(self, name: str, **arguments: Any) -> Any:
        """Carry out a command, durably; its answer."""
        return self.directory.ask(self.id, "command", name, arguments, now_us())

    def query(self, name: str, **arguments: Any) -> Any:
        """Ask something."""
        return self.directory.ask(self.id, "query", name, arguments)


class SensorTag(_Handle):
    """A sensor device."""

    def twin(self) -> dict[str, Any]:
        """What is known of it now."""
        return cast("dict[str, Any]", self.query("tag.twin", tag_id=self.id))

    def series(self, from_us: int = 0, until_us: int = 1 << 61) -> Any:
        """Its accepted readings and their flags: (batch, flags). They come in calls of bounded size."""
        parts = []
        start: int | None = from_us
        while start is not None:
            batch, flags, start = self.query("tag.series", tag_id=self.id, from_us=start, until_us=until_us)
            parts.append((batch, flags))
        return concatenate_flagged(parts)

    def register(self, **settings: Any) -> Any:
        """Register it, or repeat that."""
        return self.command("tag.register", tag_id=self.id, **settings)

    def assign(self, carrier: str, **when: Any) -> Any:
        """It rides on a carrier from now, or from and until the given times."""
        return self.command("tag.assign", tag_id=self.id, carrier=carrier, **when)

    def release(self, **when: Any) -> Any:
        """Its open custody ends."""
        return self.command("tag.release", tag_id=self.id, **when)


class Shipment(_Handle):
    """A journey of goods."""

    @property
    def carrier(self) -> str:
        """Its name as a carrier."""
        return f"shipment/{self.id}"

    def create(self, **facts: Any) -> Any:
        """Create it."""
        return self.command("shipment.create", shipment={"shipment_id": self.id, **facts})

    def exposure(self) -> Sequence[Mapping[str, Any]]:
        """Sums per tag, custody and limit of all its tags, from all shards."""
        answers = self.directory.ask_all("query", "tag.exposure", {"carrier": self.carrier})
        return [row for answer in answers for row in answer]


class Warehouse(_Handle):
    """A place with zones."""

    def create(self, **facts: Any) -> Any:
        """Create it."""
        return self.command("warehouse.create", warehouse={"warehouse_id": self.id, **facts})

    def exposure(self, zone_id: str) -> Sequence[Mapping[str, Any]]:
        """Sums per tag, custody and limit of a zone's tags, from all shards."""
        answers = self.directory.ask_all("query", "tag.exposure", {"carrier": f"zone/{self.id}/{zone_id}"})
        return [row for answer in answers for row in answer]
