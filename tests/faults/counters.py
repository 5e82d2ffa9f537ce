"""What the gateway process tells the chaos driver while both run: a few numbers in a file that both have mapped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

SHARDS = 64


class Counters:
    """Written by the gateway process alone. Times are nanoseconds of the system's monotonic clock."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        if create:
            path.write_bytes(bytes(8 * (2 * SHARDS + 16)))
        self._all: npt.NDArray[np.int64] = np.memmap(path, np.int64, "r+")
        self.outstanding = self._all[:SHARDS]
        """Messages without an answer that hold readings of a shard."""
        self.answered_ns = self._all[SHARDS : 2 * SHARDS]
        """When a message with readings of a shard was last answered."""
        self._rest = self._all[2 * SHARDS :]

    def _get(self, index: int) -> int:
        return int(self._rest[index])

    @property
    def waiting(self) -> int:
        """Messages without an answer."""
        return self._get(0)

    @waiting.setter
    def waiting(self, value: int) -> None:
        self._rest[0] = value

    @property
    def acknowledged(self) -> int:
        """Readings acknowledged and flushed to the gateway's own log."""
        return self._get(1)

    @acknowledged.setter
    def acknowledged(self, value: int) -> None:
        self._rest[1] = value

    @property
    def broken(self) -> int:
        """Streams that broke with messages unanswered."""
        return self._get(2)

    @broken.setter
    def broken(self, value: int) -> None:
        self._rest[2] = value

    @property
    def found_written(self) -> int:
        """Messages whose readings were found to be committed already, when they (or a door for them) were sent again."""
        return self._get(3)

    @found_written.setter
    def found_written(self, value: int) -> None:
        self._rest[3] = value

    @property
    def refusals(self) -> int:
        """Messages answered with an error that asks for a retry."""
        return self._get(4)

    @refusals.setter
    def refusals(self, value: int) -> None:
        self._rest[4] = value

    @property
    def full(self) -> int:
        """Messages answered RESOURCE_EXHAUSTED."""
        return self._get(5)

    @full.setter
    def full(self, value: int) -> None:
        self._rest[5] = value
