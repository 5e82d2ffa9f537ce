"""Importers' parsers: what they make of good rows, bad rows, and files of another kind. What is sent is tested in test_cli.py."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.rules.readings import CODE, NO_SEQUENCE
from cluster.importers import (
    Account,
    Bad,
    ChirpStack,
    FridgeTag,
    GpsCsv,
    IButton,
    Item,
    Reading,
    Remark,
    RowError,
    Skipped,
    UnusableFile,
    gather,
    parse_mapping,
    zone,
)
from cluster.importers.base import Clock

US = 1_000_000
CHICAGO = zone("America/Chicago")
HEADER = "1-Wire/iButton Part Number: DS1923\r\n1-Wire/iButton Registration Number: 650000005F2A7041\r\n\r\nDate/Time,Unit,Value\r\n"


def write(folder: Path, text: str | bytes, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def readings(items: Iterator[Item]) -> list[Reading]:
    return [item for item in items if isinstance(item, Reading)]


def bad(items: Iterator[Item]) -> list[Bad]:
    return [item for item in items if isinstance(item, Bad)]


# ---- iButton


def test_an_ibutton_row_is_read_in_the_zone_that_is_given(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + "3/24/22 2:20:01 PM,C,19.094\n3/24/22 2:22:01 PM,F,68\n3/24/22 2:22:01 PM,%RH,41.5\n")
    assert readings(IButton(CHICAGO)(path)) == [
        Reading(5, "650000005F2A7041", 1_648_149_601 * US, {"temperature_c": 19.094}),
        Reading(6, "650000005F2A7041", 1_648_149_721 * US, {"temperature_c": 20.0}),
        Reading(7, "650000005F2A7041", 1_648_149_721 * US, {"relative_humidity_pct": 41.5}),
    ]


def test_bad_ibutton_rows_are_named_and_the_good_ones_kept(tmp_path: Path) -> None:
    rows = "3/24/22 2:20:01 PM,C,19\nyesterday,C,19\n3/24/22 2:24:01 PM,C,warm\n3/24/22 2:26:01 PM,K,290\n1,2\n3/24/22 2:28:01 PM,C,nan\n\n"
    items = list(IButton(CHICAGO)(write(tmp_path, HEADER + rows)))
    assert len(readings(iter(items))) == 1
    assert bad(iter(items)) == [
        Bad(6, "time 'yesterday' does not fit the format '%m/%d/%y %I:%M:%S %p'"),
        Bad(7, "value 'warm' is not a number"),
        Bad(8, "temperature unit 'K' is neither C nor F"),
        Bad(9, "2 columns where time, unit and value are due: '1,2'"),
        Bad(10, "value 'nan' is not a finite number"),
    ]
    assert items[-1] == Skipped(11, "empty line")


def test_the_hour_that_comes_twice_is_told_apart_by_the_order_of_rows(tmp_path: Path) -> None:
    rows = "".join(f"11/6/22 {text} AM,C,5\n" for text in ("12:50:00", "1:20:00", "1:50:00", "1:20:00", "1:50:00", "2:20:00"))
    times = [reading.sensed_us for reading in readings(IButton(CHICAGO)(write(tmp_path, HEADER + rows)))]
    assert np.diff(times).tolist() == [1800 * US] * 5


def test_the_hour_that_never_comes_is_a_bad_row(tmp_path: Path) -> None:
    (only,) = IButton(CHICAGO)(write(tmp_path, HEADER + "3/13/22 2:30:00 AM,C,5\n"))
    assert only == Bad(5, "time '3/13/22 2:30:00 AM' does not exist in America/Chicago (the clock is put forward there)")


def test_local_times_without_a_zone_are_never_guessed(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match="carry no time zone: say which"):
        list(IButton(None)(write(tmp_path, HEADER + "3/24/22 2:20:01 PM,C,19\n")))


def test_another_kind_of_file_is_not_an_ibutton_export(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match="not an iButton logger export"):
        list(IButton(CHICAGO)(write(tmp_path, "a,b,c\n" * 100)))
    with pytest.raises(UnusableFile, match="give the tag with --tag"):
        list(IButton(CHICAGO)(write(tmp_path, "Date/Time,Unit,Value\n3/24/22 2:20:01 PM,C,19\n")))
    assert len(readings(IButton(CHICAGO, tag="T1")(write(tmp_path, "Date/Time,Unit,Value\n3/24/22 2:20:01 PM,C,19\n")))) == 1


# ---- files


def test_missing_empty_binary_and_damaged_files_say_what_they_are(tmp_path: Path) -> None:
    parser = IButton(CHICAGO)
    with pytest.raises(UnusableFile, match="No such file"):
        list(parser(tmp_path / "none"))
    with pytest.raises(UnusableFile, match="the file is empty"):
        list(parser(write(tmp_path, b"")))
    with pytest.raises(UnusableFile, match="not UTF-8 text"):
        list(parser(write(tmp_path, b"\x00\xff\xfe" * 50)))
    with pytest.raises(UnusableFile, match="Is a directory"):
        list(parser(tmp_path))


def test_what_came_before_the_damage_of_a_compressed_file_is_kept(tmp_path: Path) -> None:
    rows = "".join(f"3/24/22 2:{minute:02d}:{second:02d} PM,C,{minute}.{second}\n" for minute in range(60) for second in range(0, 60, 2))
    whole = gzip.compress((HEADER + rows).encode())
    items: list[Item] = []
    with pytest.raises(UnusableFile, match="compressed data damaged after line"):
        items.extend(IButton(CHICAGO)(write(tmp_path, whole[: len(whole) // 2])))
    assert len(items) > 100
    assert len(readings(IButton(CHICAGO)(write(tmp_path, whole, "named.csv")))) == 1800


# ---- ChirpStack


def uplink(**changes: Any) -> dict[str, Any]:
    event: dict[str, Any] = {
        "time": "2026-01-26T01:55:51.131+00:00",
        "deviceInfo": {"devEui": "a84041bbbf5946fc"},
        "devAddr": "00981150",
        "fCnt": 1906,
        "object": {"temperature": 0.0, "humidity": 0, "Bat": 3.321, "eventType": "PERIODIC_REPORT"},
    }
    event.update(changes)
    return event


def parse(folder: Path, *events: Any, **options: Any) -> list[Item]:
    return list(ChirpStack(**options)(write(folder, "\n".join(event if isinstance(event, str) else json.dumps(event) for event in events))))


def test_an_uplink_is_a_reading_with_boot_and_sequence_and_its_zeros(tmp_path: Path) -> None:
    assert parse(tmp_path, uplink()) == [
        Reading(
            1,
            "a84041bbbf5946fc",
            1_769_392_551_131_000,
            {"temperature_c": 0.0, "relative_humidity_pct": 0.0, "battery_v": 3.321},
            0x00981150,
            1906,
        )
    ]


def test_fields_are_mapped_as_told(tmp_path: Path) -> None:
    table = parse_mapping(["level=pressure_hpa", "humidity="])
    (reading,) = parse(tmp_path, uplink(object={"level": 990, "humidity": 3, "open": True}), fields=table)
    assert isinstance(reading, Reading)
    assert reading.values == {"pressure_hpa": 990.0, "door_open": 1.0}
    with pytest.raises(ValueError, match="'x=warmth' is not FIELD=METRIC"):
        parse_mapping(["x=warmth"])


def test_events_that_are_no_uplinks_are_counted_by_kind(tmp_path: Path) -> None:
    info = {"deviceInfo": {"devEui": "a8"}}
    items = parse(tmp_path, uplink(object=None), {**info, "margin": 3}, {**info, "devAddr": "01"}, {**info, "level": "ERROR"}, "")
    assert [item.kind for item in items if isinstance(item, Skipped)] == [
        "uplink without a measurement",
        "device status event",
        "join event",
        "log event",
    ]


def test_bad_events_are_named_and_the_good_ones_kept(tmp_path: Path) -> None:
    items = parse(
        tmp_path,
        uplink(),
        "{not json",
        "[1, 2]",
        uplink(fCnt="many"),
        uplink(devAddr="xyz"),
        uplink(deviceInfo={}),
        uplink(time="yesterday"),
        uplink(object={"temperature": "hot"}),
        uplink(object={"temperature": 1, "temp": 2}),
        uplink(object={"latitude": 1.0}),
        uplink(time="2026-01-26T01:55:51"),
    )
    assert len(readings(iter(items))) == 1
    reasons = [item.reason for item in bad(iter(items))]
    assert [item.line for item in bad(iter(items))] == list(range(2, 12))
    for reason, expected in zip(
        reasons,
        (
            "not JSON",
            "no 'deviceInfo'",
            "fCnt 'many'",
            "devAddr 'xyz'",
            "no 'deviceInfo.devEui'",
            "time 'yesterday'",
            "'hot' is not a number",
            "two fields give temperature_c",
            "come together",
            "carry no time zone",
        ),
        strict=True,
    ):
        assert expected in reason


def test_json_of_another_kind_is_refused_as_a_whole(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match="not ChirpStack events"):
        parse(tmp_path, {"a": 1}, {"b": 2})


# ---- Fridge-tag


FRIDGE = """Device: Q-tag Fridge-tag 2
Conf:
 Serial: 1604
 Temp unit: C
 Alarm:
  0:
   T AL: -0.5, t AL: 60
  1:
   T AL: +8.0, t AL: 600
Hist:
 1:
  Date: 2026-04-29
  Min T: +21.8, TS Min T: 09:49
  Max T: +23.5, TS Max T: 15:49
  Avrg T: +22.4
  Alarm:
   0:
    t Acc: 0
   1:
    t Acc: 974, TS A: 00:00, C A: 0
 2:
  Date: 2026-04-28
  Min T: --, TS Min T: --:--
  Max T: +2x, TS Max T: 10:00
Cert:
 Vers: 1.0
"""


def test_a_fridge_tags_daily_extremes_are_readings_at_their_times_and_its_alarms_are_remarks(tmp_path: Path) -> None:
    assert list(FridgeTag(zone("UTC"))(write(tmp_path, FRIDGE))) == [
        Reading(13, "1604", 1_777_456_140 * US, {"temperature_c": 21.8}),
        Reading(14, "1604", 1_777_477_740 * US, {"temperature_c": 23.5}),
        Remark(20, "2026-04-29: the device counted 974 min beyond its limit 1 (+8.0 °C for 600 min)"),
        Skipped(23, "day without data"),
        Bad(24, "temperature '+2x' is not a number"),
    ]


def test_another_kind_of_file_is_not_a_fridge_tag_export(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match="not a Fridge-tag export"):
        list(FridgeTag(zone("UTC"))(write(tmp_path, "a,b\n1,2\n")))
    with pytest.raises(UnusableFile, match="no 'Hist:' section"):
        list(FridgeTag(zone("UTC"))(write(tmp_path, "Device: x\nConf:\n Serial: 1\n")))


# ---- GPS in CSV


def test_named_columns_are_positions_with_speed_in_metres_per_second(tmp_path: Path) -> None:
    text = '\ufefftime;bus;lat;lon;kmh;acc\n2016-11-24T00:00:51-06:00;"7";30.2;-97.7;36;5\n1970-01-01T00:00:01Z;8;1;2;;\n'
    parser = GpsCsv("bus", "time", "lat", "lon", "kmh", "kmh", "acc", delimiter=";")
    assert list(parser(write(tmp_path, text))) == [
        Reading(2, "7", 1_479_967_251 * US, {"latitude_deg": 30.2, "longitude_deg": -97.7, "speed_mps": 10.0, "gps_accuracy_m": 5.0}),
        Reading(3, "8", US, {"latitude_deg": 1.0, "longitude_deg": 2.0}),
    ]


def test_bad_rows_of_positions_are_named(tmp_path: Path) -> None:
    text = 'id,at,lat,lon\n1,5,1,1\n,5,1,1\n1,5,1\n1,5,north,1\n1,soon,1,1\n1,5,1,inf\n"1,5,1,1\n'
    items = list(GpsCsv("id", "at", "lat", "lon", time_format="unix")(write(tmp_path, text)))
    assert items[0] == Reading(2, "1", 5 * US, {"latitude_deg": 1.0, "longitude_deg": 1.0})
    assert [item.reason for item in bad(iter(items))] == [
        "no tag in column 'id'",
        "3 columns where the header has 4",
        "latitude 'north' is not a number",
        "time 'soon' is not a number",
        "longitude 'inf' is not a finite number",
        "not CSV: unexpected end of data",
    ]


def test_a_missing_column_names_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match=r"no column 'lat'; its columns are id, at"):
        list(GpsCsv("id", "at", "lat", "lon")(write(tmp_path, "id,at\n")))


@pytest.mark.parametrize(
    ("form", "text", "us"),
    [
        ("iso", "2026-01-01T00:00:00.000001Z", 1_767_225_600_000_001),
        ("iso", "2026-01-01 01:00+01:00", 1_767_225_600_000_000),
        ("unix", "1767225600.5", 1_767_225_600_500_000),
        ("unix_ms", "1767225600500", 1_767_225_600_500_000),
        ("%d/%m/%Y %H:%M", "01/01/2026 00:00", 1_767_225_600_000_000),
    ],
)
def test_times_are_read_to_the_microsecond(form: str, text: str, us: int) -> None:
    assert Clock(form, zone("UTC")).read(text) == us


def test_an_unknown_zone_is_answered_with_an_example() -> None:
    with pytest.raises(ValueError, match="unknown time zone 'Mars/Base'; give an IANA name such as Europe/Berlin"):
        zone("Mars/Base")
    with pytest.raises(RowError, match="no time"):
        Clock("iso", None).read("  ")


# ---- batches


def test_readings_become_columns_in_file_order_and_everything_is_in_the_account() -> None:
    items: list[Item] = [
        Reading(3, "b", 20, {"temperature_c": 1.5}),
        Bad(4, "reason"),
        Reading(5, "a", 10, {"latitude_deg": 1.0, "longitude_deg": 2.0}, 7, 8),
        Skipped(6, "kind"),
        Reading(7, "b", 30, {"temperature_c": 0.0}),
    ]
    account = Account("file")
    first, second = gather(items, account, size=2, prefix="x-")
    assert (first.tag_ids, first.lines, first.batch.tag.tolist()) == (["x-b", "x-a"], [3, 5], [0, 1])
    assert first.batch.codes == (CODE["temperature_c"], CODE["latitude_deg"], CODE["longitude_deg"])
    np.testing.assert_array_equal(first.batch.values, [[1.5, np.nan], [np.nan, 1.0], [np.nan, 2.0]])
    assert first.batch.boot.tolist() == [NO_SEQUENCE, 7]
    assert first.batch.sequence.tolist() == [NO_SEQUENCE, 8]
    assert (second.tag_ids, second.lines, second.batch.values.tolist()) == (["x-b"], [7], [[0.0]])
    assert (account.read, account.bad, account.skipped) == (3, [Bad(4, "reason")], {"kind": 1})
    assert account.tags == {"x-b": (20, 30), "x-a": (10, 10)}
