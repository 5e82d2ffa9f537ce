"""The ring's columns: what was there before a value's first reading is absent, whatever memory it got."""

from __future__ import annotations

import numpy as np
import pytest

from actors.tags.ring import Ring


@pytest.mark.parametrize("readings", [0, 5, 8, 20], ids=["empty", "partly full", "full", "turned"])
def test_readings_before_a_column_came_have_it_absent(readings: int) -> None:
    ring = Ring(0, least=8)
    ring._room[:] = 7.0  # memory that was used before
    ring.make_room((3,))
    ring.values[0, :] = 1.0  # what readings of the first column wrote
    ring.head[0] = readings
    ring.make_room((3, 5))
    assert ring.codes == (3, 5)
    assert ring.values.flags.c_contiguous, "as the kernels want it"
    assert np.isnan(ring.values[1, : min(readings, 8)]).all()
    assert (ring.values[0] == 1.0).all()
