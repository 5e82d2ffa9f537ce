"""The order of arrival gives every revision again, also where readings that are in no custody now had a part in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from actors.journal import archive as manifest
from actors.journal.store import Store
from cluster.archive.filesystem import Place
from cluster.archive.reader import Part
from cluster.replay import arrival, result
from cluster.replay.jobs import Request, judge_part
from tests.acceptance.client import Client, at, limit, new_id
from tests.archive.journeys import deliver, quality_tests

Archive = Callable[..., Any]
Revision = tuple[str, int, str, str]
"""(limit, revision, state, cause)."""


def warm(first: int, last: int, *at_50: int) -> list[tuple[float, float]]:
    """A reading a minute: 10 degrees from 20 to 40 and from 60 to 75, else 5; 50 degrees at some minutes."""
    wanted = range(first, last)
    return [(minute, 50.0 if minute in at_50 else 10.0 if 20 <= minute < 40 or 60 <= minute < 75 else 5.0) for minute in wanted]


def released_earlier(client: Client, shipment: str, tag: str) -> None:
    """Open while the second excursion is stated, then released from before it."""
    client.assign(shipment, tag, 0)
    client.send(tag, *warm(0, 90))
    client.release(shipment, tag, 50)


def corrected_shorter(client: Client, shipment: str, tag: str) -> None:
    """Closed after both excursions; then its end is told to lie in the second, then before it; then it is as it was, but for the start."""
    client.assign(shipment, tag, 0)
    client.send(tag, *warm(0, 100))
    custody = client.release(shipment, tag, 90)
    for until in (68, 50):
        custody = client.correct(custody, until_time=at(until))
    client.correct(custody, from_time=at(30), until_time=at(70))


def retracted(client: Client, shipment: str, tag: str) -> None:
    """It never was."""
    client.assign(shipment, tag, 0)
    client.send(tag, *warm(0, 90))
    client.correct(client.release(shipment, tag, 80), retracted=True)


def spiked_at_an_end_that_is_no_more(client: Client, shipment: str, tag: str) -> None:
    """A leap at the old end, of which only the reading after it shows that it is a spike: stated until that one came."""
    quality_tests(client, tag)
    client.assign(shipment, tag, 0)
    client.send(tag, *warm(0, 90, 89))
    custody = client.release(shipment, tag, 90)
    client.send(tag, (91, 5.0))
    client.correct(custody, until_time=at(50))


def sent_with_what_was_before_it(client: Client, shipment: str, tag: str) -> None:
    """A message from before the custody on: what it states is found late."""
    client.assign(shipment, tag, 10)
    client.send(tag, *warm(0, 50))
    client.send(tag, *warm(50, 90))
    client.release(shipment, tag, 90)


@pytest.mark.parametrize(
    ("ride", "revisions"),
    [
        (released_earlier, [("warm", 1, "ENDED", "reading")] * 2 + [("warm", 2, "RETRACTED", "closed")]),
        (
            corrected_shorter,
            [("warm", 1, "ENDED", "custody")]  # what is left of the second one, after all
            + [("warm", 1, "ENDED", "reading"), ("warm", 2, "ENDED", "custody")] * 2
            + [("warm", 3, "RETRACTED", "custody")],
        ),
        (retracted, [("warm", 1, "ENDED", "reading"), ("warm", 2, "RETRACTED", "custody")] * 2),
        (
            spiked_at_an_end_that_is_no_more,
            [("hot", 1, "CONFIRMED", "reading"), ("hot", 2, "ENDED", "closed"), ("hot", 3, "RETRACTED", "quality")]
            + [("warm", 1, "ENDED", "reading")] * 2
            + [("warm", 2, "RETRACTED", "custody")],
        ),
        (sent_with_what_was_before_it, [("warm", 1, "ENDED", "late"), ("warm", 1, "ENDED", "reading")]),
    ],
)
def test_every_revision_comes_again(
    client: Client, store: Store, archive: Archive, tmp_path: Any, ride: Callable[[Client, str, str], None], revisions: list[Revision]
) -> None:
    tag = new_id("t")
    shipment = client.shipment(client.profile(limit("warm", 8, minutes=5, clear=7), limit("hot", 30)))
    ride(client, shipment, tag)
    deliver(client, shipment, 100)
    place, _ = archive(shipment)
    part = next(row for row in manifest.parts(store.engine) if row["location"] == place.location)
    stated = [(row["limit_id"], row["revision"], row["state"], row["cause"]) for row in Part.of(part).rows("excursions")]
    assert sorted(stated) == sorted(revisions)
    found, _, counts = arrival.replay(Part.of(part))
    assert [(row["name"], row["change"], row["fields"]) for row in found] == []
    assert counts["revisions"] == len(revisions)
    assert judge_part(part, Request(result.VERIFY), Place.of(tmp_path / "r"))["differences"] == 0
