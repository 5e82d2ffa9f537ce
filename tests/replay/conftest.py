"""The archive's fixtures serve the replays' tests too."""

from __future__ import annotations

from tests.archive.conftest import archive, client, store

__all__ = ["archive", "client", "store"]
