"""Closed journeys go into the archive, whole, once, and come out of it as they were."""

from __future__ import annotations

from collections.abc import Callable

from actors.journal import archive as manifest
from actors.journal.store import Store
from cluster.archive import check
from cluster.archive.filesystem import Place
from cluster.archive.run import Account
from cluster.replay import jobs, result
from cluster.replay.jobs import Request
from tests.acceptance.client import Client
from tests.archive.journeys import journeys

Archive = Callable[..., tuple[Place, Account]]


def parts_of(store: Store, place: Place) -> list[dict[str, object]]:
    return [part for part in manifest.parts(store.engine) if part["location"] == place.location]


def test_journeys_of_every_kind_are_archived_and_give_the_same_again(client: Client, store: Store, archive: Archive) -> None:
    made = journeys(client, 1)
    place, account = archive(*made)
    assert account.shipments == len(made)
    parts = parts_of(store, place)
    assert check.verify(parts) == ([], 11)
    for kind in (result.VERIFY, result.ARRIVAL):
        found = jobs.run("r", Request(kind), parts, place.sub(f"result-{kind}"))
        _, differences, shipments = result.read(place.sub(f"result-{kind}"))
        assert differences.to_pylist() == []
        assert found.summary == {"identical": True}
        assert shipments.num_rows == len(made)
