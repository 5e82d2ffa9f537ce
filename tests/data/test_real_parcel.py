"""A parcel from Hawaii to Chicago, as its iButton saw it: excursions of the USP room-temperature profile and of 27 °C or warmer.

The expected excursions come from a plain reading of the file, judged by the slow reference of tests/reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from cluster.client import Client, micros
from tests.data.support import counts, waybill_output
from tests.reference import exposure as slow
from tests.reference.mkt import mkt_c
from waybill.v1 import common_pb2, exposure_pb2, profile_pb2, shipment_pb2, tag_pb2

if TYPE_CHECKING:
    from cluster.boot import Running

FILE = "shipment_temp_ibuttons/20220404_hawaii_temp_button2.csv"
TAG = "650000005F2A7041"
HOUR_US = 3_600_000_000
FROM, UNTIL = "2022-03-31T17:00", "2022-04-04T12:00"

Facts = tuple[str, int, int, int | None, int, float, int, int]


def local_us(text: str, form: str) -> int:
    return round(datetime.strptime(text, form).replace(tzinfo=ZoneInfo("America/Chicago")).timestamp() * 1e6)


FROM_US, UNTIL_US = local_us(FROM, "%Y-%m-%dT%H:%M"), local_us(UNTIL, "%Y-%m-%dT%H:%M")


@pytest.fixture(scope="module")
def readings(shared_data: Path) -> list[tuple[int, float]]:
    """(time in microseconds, °C) of the file, read as plainly as can be."""
    lines = (shared_data / FILE).read_text().splitlines()
    return [(local_us(line.split(",")[0], "%m/%d/%y %I:%M:%S %p"), float(line.split(",")[2])) for line in lines[20:]]


def expected(readings: list[tuple[int, float]], limits: dict[str, slow.Limit]) -> list[Facts]:
    """The excursions of the custody, by limit and start."""
    mine = [(t, c) for t, c in readings if FROM_US <= t < UNTIL_US]
    found = []
    for limit_id, limit in limits.items():
        window = [slow.Window(0, 2**62, limit)]
        if limit.mode == slow.MKT:
            means, parts = [], []
            for k, (t, _) in enumerate(mine):
                if k:
                    parts.append((mine[k - 1][1], min(t - mine[k - 1][0], limit.max_gap_us)))
                    if k % 20 == 0:  # every twentieth is enough to see that it never comes near its threshold
                        means.append((t, mkt_c(parts)))
            assert max(c for _, c in means) < limit.threshold - 1
            continue
        for run in slow.judge(mine, window, FROM_US, UNTIL_US).excursions:
            assert run.triggered_us is not None
            end = run.end_us
            found.append((limit_id, run.start_us, run.triggered_us, end, run.run_us, run.extreme, run.extreme_us, run.readings))
    return sorted(found)


def excursions(client: Client, shipment_id: str) -> list[Facts]:
    request = shipment_pb2.ListExcursionsRequest(shipment_id=shipment_id)
    found: Iterator[exposure_pb2.Excursion] = client.pages(client.shipments.ListExcursions, request, "excursions")
    return sorted(
        (
            one.limit_id,
            micros(one.started_time),
            micros(one.triggered_time),
            micros(one.ended_time) if one.HasField("ended_time") else None,
            one.violation_us,
            one.extreme,
            micros(one.extreme_time),
            one.readings,
        )
        for one in found
    )


@pytest.fixture(scope="module")
def account(waybill: Running, shared_data: Path) -> dict[str, int]:
    """The account of the parcel's import, as shipment PARCEL-USP."""
    (found,) = counts(
        waybill_output(
            "import",
            "ibutton",
            shared_data / FILE,
            "--server",
            waybill.target,
            "--timezone",
            "America/Chicago",
            "--shipment",
            "PARCEL-USP",
            "--profile",
            "usp-crt",
            "--from",
            FROM,
            "--until",
            UNTIL,
        )
    )
    return found


def test_the_parcels_excursions_under_usp_room_temperature_are_those_of_a_plain_reading(
    waybill: Running, account: dict[str, int], readings: list[tuple[int, float]]
) -> None:
    assert account == {"rows": 7872, "sent": 7872, "tags": 1, "accepted": 7872, "duplicate": 0, "conflicting": 0, "refused": 0, "bad": 0}
    limits = {
        "cold-15": slow.Limit(15.0, direction=-1),
        "warm-30": slow.Limit(30.0, allowance_us=24 * HOUR_US),
        "hot-40": slow.Limit(40.0),
        "mkt-25": slow.Limit(25.0, mode=slow.MKT),
    }
    facts = expected(readings, limits)
    assert len(facts) >= 3
    with Client(waybill.target) as client:
        assert excursions(client, "PARCEL-USP") == facts
        exposure = client.call(client.shipments.GetExposure, shipment_pb2.GetExposureRequest(shipment_id="PARCEL-USP")).exposure
    assert exposure.verdict == common_pb2.VERDICT_EXCURSION
    assert exposure.closed
    mine = [(t, c) for t, c in readings if FROM_US <= t < UNTIL_US]
    by_limit = {row.limit.limit_id: row for row in exposure.limits}
    for limit_id, limit in {"cold-15": limits["cold-15"], "label-20": slow.Limit(20.0, direction=-1, allowance_us=None)}.items():
        judged = slow.judge(mine, [slow.Window(0, 2**62, limit)], FROM_US, UNTIL_US)
        row = by_limit[limit_id]
        assert (row.violation_us, row.covered_us, row.uncovered_us) == (judged.violation_us, judged.covered_us, judged.uncovered_us)
        assert (row.extreme, micros(row.extreme_time), row.readings) == (judged.extreme, judged.extreme_us, judged.readings)
    parts = [(c, min(u - t, HOUR_US)) for (t, c), (u, _) in zip(mine, [*mine[1:], (UNTIL_US, 0.0)], strict=True)]
    assert by_limit["mkt-25"].mkt.mkt_c == pytest.approx(mkt_c(parts), abs=1e-9)
    assert not by_limit["mkt-25"].mkt.full_window


def test_27_degrees_or_warmer_is_an_excursion_at_once_and_27_itself_counts(
    waybill: Running, shared_data: Path, readings: list[tuple[int, float]]
) -> None:
    limit = profile_pb2.Limit(
        limit_id="warm-27",
        metric=common_pb2.METRIC_TEMPERATURE_C,
        direction=profile_pb2.DIRECTION_ABOVE,
        inclusive=True,
        mode=profile_pb2.LIMIT_MODE_SINGLE,
        threshold=27.0,
        allowance_s=0.0,
        severity=common_pb2.SEVERITY_CRITICAL,
    )
    with Client(waybill.target) as client:
        profile = profile_pb2.Profile(profile_id="at-most-27", name="below 27 °C", limits=[limit])
        client.call(client.profiles.CreateProfile, profile_pb2.CreateProfileRequest(profile=profile))
        # The whole recording: before the journey the logger lies in a room that is warmer than 27 °C at times.
        arguments = ("--timezone", "America/Chicago", "--tag", "button-27", "--shipment", "ROOM-27", "--profile", "at-most-27")
        waybill_output("import", "ibutton", shared_data / FILE, "--server", waybill.target, *arguments)
        found = excursions(client, "ROOM-27")
    judged = slow.judge(readings, [slow.Window(0, 2**62, slow.Limit(27.0, inclusive=True))], readings[0][0])
    assert len(judged.excursions) >= 2
    assert found == [
        ("warm-27", run.start_us, run.triggered_us, run.end_us, run.run_us, run.extreme, run.extreme_us, run.readings)
        for run in judged.excursions
    ]


def test_the_same_file_again_changes_nothing(waybill: Running, shared_data: Path, account: dict[str, int]) -> None:
    with Client(waybill.target) as client:
        before = excursions(client, "PARCEL-USP")
        arguments = ("--timezone", "America/Chicago", "--server", waybill.target)
        (again,) = counts(waybill_output("import", "ibutton", shared_data / FILE, *arguments))
        assert (again["accepted"], again["duplicate"]) == (account["duplicate"], account["accepted"]) == (0, 7872)
        assert excursions(client, "PARCEL-USP") == before
        twin = client.call(client.tags.GetTagTwin, tag_pb2.GetTagTwinRequest(tag_id=TAG)).twin
    assert (twin.counters.accepted, twin.counters.duplicate) == (7872, 7872)


def test_the_parcel_is_drawn_in_the_terminal_with_its_excursions_and_verdict(waybill: Running, account: dict[str, int]) -> None:
    shown = waybill_output("shipment", "show", "PARCEL-USP", "--server", waybill.target)
    for part in ("PARCEL-USP", "EXCURSION", "cold-15", TAG, "┤", "⣀", "2022-04-01", "excursions"):
        assert part in shown
