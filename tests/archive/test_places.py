"""An archive lies in a folder or behind a URL: the same files, the same replay."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cluster.archive import check
from cluster.archive.filesystem import Place, UnknownPlace
from cluster.archive.writer import read_manifest, write_manifest
from cluster.replay import result
from cluster.replay.jobs import Request, judge_part
from tests.replay.made import profile, simulate, write
from tests.replay.test_whatif import ASKED, COLD, FENCE, TOTAL, WARM


def test_a_url_serves_as_a_folder_does(tmp_path: Path) -> None:
    journeys = [simulate(random.Random(number), number) for number in range(10)]
    found = []
    for location in (str(tmp_path / "archive"), "memory://waybill-places/archive", f"file://{tmp_path}/other"):
        place = Place.of(location)
        parts = write(place, journeys, profile(60, WARM, COLD, TOTAL), (FENCE,))
        write_manifest(place, parts)
        assert [part["part_id"] for part in read_manifest(place)] == ["2025-02-0"]
        assert check.verify(read_manifest(place)) == ([], 10)
        counts = judge_part(parts[0], Request(result.WHAT_IF, rules=ASKED), place.sub("result"))
        found.append((counts, {name for name, _ in place.ages()}))
        place.remove(parts[0]["files"][0]["name"])
        (fault,) = check.verify(read_manifest(place))[0]
        assert fault.why == "is not there"
    assert found[0] == found[1] == found[2]
    assert found[0][0]["differences"] > 5


def test_a_location_that_no_file_system_serves_is_refused_by_name() -> None:
    with pytest.raises(UnknownPlace, match="nowhere://bucket"):
        Place.of("nowhere://bucket/waybill")
