"""Rows by a mapping: formats of times, units, decimals, long and wide forms, Parquet; each bad row with its line and reason."""

from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.rules.readings import CODE
from cluster.history_import import job, mapping, pieces
from cluster.history_import.parse import Parsed, parse
from cluster.history_import.send import reasons
from cluster.importers.base import UnusableFile
from tests.history_import.made import MAPPING, write

NOW_US = 1_780_000_000_000_000
WIDE = {"tag": {"column": "tag"}, "time": {"column": "at"}, "values": {"temperature_c": "t"}}


def parsed(tmp_path: Path, text: str | bytes, told: dict[str, Any]) -> Parsed:
    path = tmp_path / "logger-7.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    how = mapping.of(told)
    [piece] = pieces.pieces(path, how)
    return parse(piece, how, "logger-7", NOW_US)


def rows(found: Parsed) -> list[tuple[str, int, dict[str, float]]]:
    names = {code: name for name, code in CODE.items()}
    return [
        (
            found.tag_ids[found.batch.tag[k]],
            int(found.batch.sensed_us[k]),
            {
                names[code]: float(found.batch.values[j, k])
                for j, code in enumerate(found.batch.codes)
                if not np.isnan(found.batch.values[j, k])
            },
        )
        for k in range(len(found.batch))
    ]


@pytest.mark.parametrize(
    ("text", "form", "zone", "expected"),
    [
        ("2024-03-01T12:00:00Z", "iso", None, 1_709_294_400_000_000),
        ("2024-03-01 13:00:00.1234567+01:00", "iso", None, 1_709_294_400_123_456),
        ("2024-03-01 13:00", "iso", "Europe/Berlin", 1_709_294_400_000_000),
        ("1709294400.5", "unix", None, 1_709_294_400_500_000),
        ("1709294400500", "unix_ms", None, 1_709_294_400_500_000),
        ("01/03/2024 13:00", "%d/%m/%Y %H:%M", "Europe/Berlin", 1_709_294_400_000_000),
        ("01/03/2024 13:00 +0100", "%d/%m/%Y %H:%M %z", None, 1_709_294_400_000_000),
    ],
)
def test_times_in_their_formats(tmp_path: Path, text: str, form: str, zone: str | None, expected: int) -> None:
    told = {**WIDE, "time": {"column": "at", "format": form, **({"zone": zone} if zone else {})}}
    for more in ("", "broken"):  # the fast way, and the one that finds out which row is wrong
        found = parsed(tmp_path, f"tag,at,t\nA,{text},5\n" + (f"A,{more},5\n" if more else ""), told)
        assert rows(found) == [("A", expected, {"temperature_c": 5.0})]
        assert [bad.line for bad in found.bad] == ([3] if more else [])


def test_an_hour_that_does_not_exist_is_refused_and_one_that_is_there_twice_is_the_first(tmp_path: Path) -> None:
    told = {**WIDE, "time": {"column": "at", "zone": "Europe/Berlin"}}
    found = parsed(tmp_path, "tag,at,t\nA,2024-03-31 02:30,5\nA,2024-10-27 02:30,6\n", told)
    assert rows(found) == [("A", 1_729_989_000_000_000, {"temperature_c": 6.0})]
    assert [(bad.line, "does not exist" in bad.reason) for bad in found.bad] == [(2, True)]


def test_times_without_a_zone_refuse_the_file(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match="zone"):
        parsed(tmp_path, "tag,at,t\nA,2024-03-31 02:30,5\n", WIDE)


def test_units_scales_decimal_commas_and_missing_values(tmp_path: Path) -> None:
    told = {
        "tag": {"value": "L", "prefix": "x-"},
        "time": {"column": "at", "format": "unix"},
        "values": {
            "temperature_c": {"column": "f", "unit": "F"},
            "pressure_hpa": {"column": "p", "unit": "Pa"},
            "speed_mps": {"column": "v", "unit": "km/h"},
            "battery_v": {"column": "b", "scale": 0.1},
        },
        "file": {"delimiter": ";", "decimal": ","},
    }
    found = parsed(tmp_path, "at;f;p;v;b\n1700000000;41,0;101325;+36;37\n1700000060;NA;;1,8e1;\n", told)
    assert rows(found) == [
        ("x-L", 1_700_000_000_000_000, {"temperature_c": 5.0, "pressure_hpa": 1013.25, "speed_mps": 10.0, "battery_v": pytest.approx(3.7)}),
        ("x-L", 1_700_000_060_000_000, {"speed_mps": 5.0}),
    ]


def test_one_value_a_row(tmp_path: Path) -> None:
    told = {
        "tag": {"file_name": True},
        "time": {"column": "at", "format": "unix"},
        "long": {"metric": "k", "value": "v", "names": {"T": "temperature_c", "TF": {"metric": "temperature_c", "unit": "F"}}},
    }
    found = parsed(tmp_path, "at,k,v\n1700000000,T,5\n1700000060,TF,50\n1700000120,Q,1\n", told)
    assert [(tag, values) for tag, _, values in rows(found)] == [
        ("logger-7", {"temperature_c": 5.0}),
        ("logger-7", {"temperature_c": 10.0}),
    ]
    assert [(bad.line, bad.reason) for bad in found.bad] == [(4, "metric 'Q' is not named in the mapping")]


def test_each_bad_row_is_told_with_its_line_and_its_first_reason(tmp_path: Path) -> None:
    text = b"tag,at,t\nA,2024-01-01T00:00:00Z,5\n,2024-01-01T00:00:00Z,5\nA,yesterday,x\nA,2024-01-01T00:01:00Z,1e999\n\nA,2\n"
    text += b"A,1999-01-01T00:00:00Z,5\nA,2024-01-01T00:02:00Z,201\nA,2024-01-01T00:03:00Z,\nA,2024-01-01T00:04:00Z,\xff\n"
    found = parsed(tmp_path, text + b"A" * 70 + b",2024-01-01T00:05:00Z,5\n", WIDE)
    told = {bad.line: bad.reason for bad in found.bad}
    assert list(told) == [3, 4, 5, 7, 8, 9, 10, 11, 12]
    for line, words in {
        3: "tag '' is missing",
        4: "time 'yesterday' does not fit",
        5: "not a finite number",
        7: "2 columns where the header has 3",
        8: "impossible date",
        9: "temperature_c 201.0 must be a number from -200 to 200",
        10: "at least one value",
        11: "not utf-8 text",
        12: "64",
    }.items():
        assert words in told[line]
    assert (found.rows, found.empty, len(found.batch)) == (11, 1, 1)
    assert reasons([(9, told[9], "")]) == {"temperature_c must be a number from -200 to 200": 1}


def test_pieces_cut_a_file_without_losing_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 10_000)
    counts = write(tmp_path / "a.csv", 2_000, bad_share=0.05)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    (tmp_path / "m.toml").write_text(MAPPING)
    how = mapping.load(tmp_path / "m.toml")
    whole = None
    for name in ("a.csv", "a.csv.gz"):
        found = [parse(piece, how, "", NOW_US) for piece in pieces.pieces(tmp_path / name, how)]
        assert len(found) > 5
        assert sum(one.rows for one in found) == 2_000
        assert sum(one.empty for one in found) == counts["empty"]
        assert sum(len(one.batch) for one in found) == counts["good"]
        lines = np.concatenate([one.lines for one in found] + [np.array([bad.line for one in found for bad in one.bad], np.int64)])
        assert len(np.unique(lines)) == 2_000 - counts["empty"]
        assert whole is None or whole == lines.tolist()
        whole = lines.tolist()


def test_parquet_by_the_same_mapping(tmp_path: Path) -> None:
    table = pa.table(
        {
            "tag": ["A", "A", None, "B"],
            "at": pa.array([1_700_000_000_000_000_000, 1_700_000_060_000_000_000, 1, 1_700_000_120_000_000_000], pa.timestamp("ns", "UTC")),
            "t": [5.0, None, 6.0, 300.0],
        }
    )
    pq.write_table(table, tmp_path / "h.parquet")
    how = mapping.of(WIDE)
    [piece] = pieces.pieces(tmp_path / "h.parquet", how)
    found = parse(piece, how, "", NOW_US)
    assert rows(found) == [("A", 1_700_000_000_000_000, {"temperature_c": 5.0})]
    assert [bad.line for bad in found.bad] == [2, 3, 4]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("tag,at\nA,1\n", "no column 't'"),
        ("", "empty"),
        ("tag,at,t,t\nA,2024-01-01T00:00:00Z,5,6\n", "twice"),
        (
            "tag,at,t\n" + "A,01.02.2024,5\n" * 9 + "A,2024-01-01T00:00:00Z,5\n",
            "9 of its first 10 rows cannot be used; line 2: time '01.02.2024'",
        ),
        ("tag;at;t\nA;1;2\n", "its columns are tag;at;t"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_whole_with_the_reason(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "f.csv").write_text(text)
    assert why in job.check(tmp_path / "f.csv", mapping.of(WIDE))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"values": {"temprature_c": "t"}}, "temprature_c is no metric"),
        ({"values": {"temperature_c": {"column": "t", "unit": "R"}}}, "not one of C, F, K"),
        ({"values": {}}, r"give \[values\]"),
        ({"values": {"latitude_deg": "t"}}, "come together"),
        ({"tag": {}}, "exactly one of column, value, file_name"),
        ({"time": {"column": "at", "format": "ISO"}}, "iso, unix"),
        ({"time": {"column": "at", "zone": "Berlin"}}, "unknown time zone"),
        ({"file": {"seperator": ";"}}, "file.seperator"),
    ],
)
def test_a_wrong_mapping_names_what_is_wrong(change: dict[str, Any], why: str) -> None:
    with pytest.raises(mapping.MappingError, match=why):
        mapping.of({**WIDE, **change})


def test_times_of_which_some_carry_a_zone_are_refused_alone_where_they_carry_none(tmp_path: Path) -> None:
    path = tmp_path / "logger-7.csv"
    for broken in ("", "A,soon,5\n"):  # the fast way, and the one that finds out which row is wrong
        path.write_text(f"tag,at,t\nA,2024-03-01T12:00:00Z,5\nA,2024-03-01 12:01,6\n{broken}")
        how = mapping.of(WIDE)
        [piece] = pieces.pieces(path, how)
        found = parse(piece, how, "logger-7", NOW_US)
        assert [row[2] for row in rows(found)] == [{"temperature_c": 5.0}]
        assert [(bad.line, "carries no zone" in bad.reason) for bad in found.bad][:1] == [(3, True)]
    path.write_text("tag,at,t\nA,2024-03-01 12:00,5\nA,2024-03-01 12:01,6\n")
    [piece] = pieces.pieces(path, how)
    with pytest.raises(UnusableFile, match="zone"):
        parse(piece, how, "logger-7", NOW_US)
    later = parse(dataclasses.replace(piece, number=3, first_line=1_000), how, "logger-7", NOW_US)
    assert [bad.line for bad in later.bad] == [1_000, 1_001], "a file that began well is not given up in its middle"
