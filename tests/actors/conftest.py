"""A running Waybill whose shards are looked at, and killed, from a Ray driver; one for each database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.actors.system import System

if TYPE_CHECKING:
    from cluster.boot import Running


@pytest.fixture(scope="session")
def system(mortal: Running) -> Iterator[System]:
    """See System."""
    made = System(mortal)
    yield made
    made.close()
