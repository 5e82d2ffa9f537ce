"""One running Waybill for all acceptance tests of a database, and a client of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.client import Client
from tests.conftest import DATABASES

if TYPE_CHECKING:
    from cluster.boot import Running


@pytest.fixture(scope="package", params=DATABASES)
def waybill(request: pytest.FixtureRequest, start_waybill: Callable[..., Running]) -> Iterator[Running]:
    """A running Waybill of two shards whose clock ticks often."""
    with start_waybill(request.param, tick_s=0.3) as running:
        yield running


@pytest.fixture(scope="package")
def client(waybill: Running) -> Iterator[Client]:
    """A gRPC client."""
    made = Client(waybill.target)
    yield made
    made.close()
