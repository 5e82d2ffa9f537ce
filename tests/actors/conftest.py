"""A running Waybill whose shards are looked at, and killed, from a Ray driver; one for each database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.actors.system import System
from tests.conftest import DATABASES

if TYPE_CHECKING:
    from cluster.boot import Running


@pytest.fixture(scope="package", params=DATABASES)
def system(request: pytest.FixtureRequest, start_waybill: Callable[..., Running]) -> Iterator[System]:
    """Two shards that take a snapshot after every thousand readings."""
    with start_waybill(request.param, snapshot_readings=1_000, tick_s=0.5) as running:
        made = System(running)
        yield made
        made.close()
