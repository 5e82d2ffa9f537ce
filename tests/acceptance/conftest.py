"""A client of the running Waybill."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.client import Client

if TYPE_CHECKING:
    from cluster.boot import Running


@pytest.fixture(scope="session")
def client(waybill: Running) -> Iterator[Client]:
    """A gRPC client."""
    made = Client(waybill.target)
    yield made
    made.close()
