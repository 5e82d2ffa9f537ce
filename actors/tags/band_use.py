"""How long tags' readings lay in the bands of a stability budget: asked of the shards, from committed readings, computed anew each time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.rules.readings import CODE, FAIL
from actors.rules.stability import Band, in_band_us
from actors.tags import neighbours

if TYPE_CHECKING:
    from actors.sensor_tag import SensorTags


def band_use(tags: SensorTags, arguments: Mapping[str, Any]) -> list[list[tuple[int, int]]]:
    """Per span and band (time in the band, covered time) in microseconds.

    bands: (metric, low, high, allowance_us) each. spans: {tag_id, custody_from_us, from_us, until_us, max_gap_us} each; a tag that this
    shard does not know was never heard of, and covers nothing.
    """
    bands = [Band(*band) for band in arguments["bands"]]
    return [_of_span(tags, span, bands) for span in arguments["spans"]]


def _of_span(tags: SensorTags, span: Mapping[str, Any], bands: list[Band]) -> list[tuple[int, int]]:
    tag = tags.find(str(span["tag_id"]))
    if tag is None:
        return [(0, 0)] * len(bands)
    gap_us = int(span["max_gap_us"])
    begin_us = max(int(span["custody_from_us"]), int(span["from_us"]) - gap_us)
    batch, flags = neighbours.flagged(tags, tag, begin_us, int(span["until_us"]))
    if not len(batch):
        return [(0, 0)] * len(bands)
    found = []
    for band in bands:
        if CODE[band.metric] not in batch.codes:
            found.append((0, 0))
            continue
        row = list(batch.codes).index(CODE[band.metric])
        values = np.where(flags[row] == FAIL, np.nan, batch.values[row])
        found.append(in_band_us(batch.sensed_us, values, band, int(span["from_us"]), int(span["until_us"]), gap_us))
    return found
