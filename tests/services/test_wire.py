"""Rows and columns say the same, the good readings of a message are kept, and each other one is answered with field, value and rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors.rules.errors import InvalidArgument
from actors.rules.readings import COLUMNS, MEASUREMENTS, Batch
from services import wire
from services.deal import together
from waybill.v1 import common_pb2, telemetry_pb2

NOW_US = 1_790_000_000_000_000
DAY_US = 86_400_000_000


def one(**values: float) -> telemetry_pb2.IngestRequest:
    """A message of one reading as rows."""
    reading = telemetry_pb2.Reading(tag_id="t1", sensed_at_us=NOW_US)
    for name, value in values.items():
        setattr(reading.position if name in telemetry_pb2.Position.DESCRIPTOR.fields_by_name else reading, name, value)
    return telemetry_pb2.IngestRequest(rows=telemetry_pb2.ReadingRows(readings=[reading]))


def columns(n: int = 3) -> telemetry_pb2.ReadingColumns:
    """A message of n good readings of two tags as columns."""
    message = telemetry_pb2.ReadingColumns(tag_ids=["a", "b"])
    message.tag_index.extend([i % 2 for i in range(n)])
    message.sensed_at_us.extend([NOW_US + i for i in range(n)])
    message.columns.add(metric=common_pb2.METRIC_TEMPERATURE_C, values=[5.0] * n)
    return message


def decode(columns: telemetry_pb2.ReadingColumns) -> wire.Decoded:
    return wire.decode(telemetry_pb2.IngestRequest(columns=columns), NOW_US)


def plausible(code: int) -> st.SearchStrategy[float]:
    if COLUMNS[code].name == "door_open":
        return st.sampled_from([0.0, 1.0])
    return st.floats(COLUMNS[code].low, min(COLUMNS[code].high, 1e6))


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[str], Batch]:
    """Good batches: every reading carries something, coordinates come together."""
    n = draw(st.integers(1, 6))
    ids = draw(st.lists(st.sampled_from(["a", "b", "ß-7", "urn:1/2"]), min_size=1, max_size=4, unique=True))
    values = np.full((len(COLUMNS), n), np.nan)
    boot, sequence = np.full(n, -1), np.full(n, -1)
    for i in range(n):
        for code in draw(st.sets(st.sampled_from(list(MEASUREMENTS)), min_size=1)):
            values[code, i] = draw(plausible(code))
        if draw(st.booleans()):
            values[-4, i], values[-3, i] = draw(plausible(11)), draw(plausible(12))
            for code in draw(st.sets(st.sampled_from([13, 14]))):
                values[code, i] = draw(plausible(code))
        if draw(st.booleans()):
            boot[i], sequence[i] = draw(st.integers(0, 2**63 - 1)), draw(st.integers(0, 2**63 - 1))
    sensed = np.array([NOW_US - draw(st.integers(0, 1000)) * DAY_US for _ in range(n)])
    tag = np.array([draw(st.integers(0, len(ids) - 1)) for _ in range(n)], np.int32)
    codes = np.flatnonzero(~np.isnan(values).all(axis=1))
    return ids, Batch(tag, sensed, boot, sequence, tuple(codes.tolist()), np.ascontiguousarray(values[codes]))


@given(batches())
@settings(max_examples=150, deadline=None)
def test_rows_and_columns_and_the_inside_say_the_same(sample: tuple[list[str], Batch]) -> None:
    ids, batch = sample
    by_rows = wire.decode(telemetry_pb2.IngestRequest(rows=wire.to_rows(ids, batch)), NOW_US)
    by_columns = wire.decode(telemetry_pb2.IngestRequest(columns=wire.to_columns(ids, batch)), NOW_US)
    for decoded in (by_rows, by_columns):
        assert len(decoded.batch) == decoded.total
        assert [decoded.ids[i] for i in decoded.batch.tag] == [ids[i] for i in batch.tag]
        assert decoded.batch.codes == batch.codes
        for name in ("sensed_us", "boot", "sequence", "values"):
            np.testing.assert_array_equal(getattr(decoded.batch, name), getattr(batch, name), err_msg=name)


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_whatever_bytes_parse_as_rows_are_read_as_protobuf_reads_them(raw: bytes) -> None:
    """The compiled row reader against reading attribute by attribute, unknown fields and odd encodings included."""
    head = telemetry_pb2.ReadingRows(readings=[telemetry_pb2.Reading(tag_id="t", sensed_at_us=5, light_lux=0.0)]).SerializeToString()
    try:
        message = telemetry_pb2.ReadingRows.FromString(head + raw)
    except Exception:
        return
    got = wire.row_reader.read_parsed(message)
    for i, reading in enumerate(message.readings):
        assert got.ids[got.tag[i]] == reading.tag_id
        assert got.sensed_us[i] == reading.sensed_at_us
        for code in MEASUREMENTS:
            present = code in got.codes and bool(got.present[got.codes.index(code), i])
            assert present == reading.HasField(COLUMNS[code].name)
            if present:
                np.testing.assert_array_equal(got.values[got.codes.index(code), i], getattr(reading, COLUMNS[code].name))


ONE_MESSAGE = telemetry_pb2.IngestRequest(
    batch_id="b",
    rows=telemetry_pb2.ReadingRows(
        readings=[
            telemetry_pb2.Reading(tag_id="é", sensed_at_us=NOW_US, boot=1, sequence=2, temperature_c=5.0),
            telemetry_pb2.Reading(tag_id="t", sensed_at_us=NOW_US, position=telemetry_pb2.Position(latitude_deg=1.0, gps_accuracy_m=2.0)),
        ]
    ),
).SerializeToString()


def outcome_of(decoded: wire.Decoded | Exception) -> Any:
    """What came of decoding, so that two can be compared; columns without any value are left out."""
    if isinstance(decoded, InvalidArgument):
        return str(decoded), decoded.field, decoded.value
    if isinstance(decoded, wire.Garbage):
        return "garbage"
    assert isinstance(decoded, wire.Decoded)
    batch = decoded.batch
    columns = [batch.sensed_us, batch.boot, batch.sequence, decoded.rows]
    values = {code: column.tolist() for code, column in zip(batch.codes, np.nan_to_num(batch.values, nan=-1), strict=True)}
    known = {code: column for code, column in values.items() if set(column) != {-1.0}}
    ids = [decoded.ids[at] for at in batch.tag]
    return decoded.batch_id, ids, decoded.total, decoded.refusals, [column.tolist() for column in columns], known


def by_protobuf(raw: bytes) -> wire.Decoded | Exception:
    """A message decoded by itself, parsed by protobuf."""
    try:
        return wire.decode(wire.parse(raw), NOW_US)
    except (InvalidArgument, wire.Garbage) as error:
        return error


changed = st.lists(st.tuples(st.integers(0, len(ONE_MESSAGE)), st.integers(0, 3), st.binary(max_size=12)), max_size=3)


@given(st.lists(changed, min_size=1, max_size=4))
@example([[(0, 0, b"\x0a\x01b")]])  # a batch id twice
@example([[(len(ONE_MESSAGE), 0, ONE_MESSAGE)], []])  # everything twice: protobuf merges
@example([[(len(ONE_MESSAGE), 0, b"\x22\x00")], []])
@example([[(1, 1, b"\x00")], []])
@example([[], [(7, 1, b"\xff")], []])  # an id that is no UTF-8
@settings(max_examples=1000, deadline=None)
def test_messages_read_together_from_their_bytes_are_what_protobuf_makes_of_each(many: list[list[tuple[int, int, bytes]]]) -> None:
    messages = []
    for changes in many:
        raw = bytearray(ONE_MESSAGE)
        for at, drop, put in changes:
            raw[at : at + drop] = put
        messages.append(bytes(raw))
    found = wire.decode_together(messages, NOW_US)
    assert [outcome_of(one) for one in found] == [outcome_of(by_protobuf(raw)) for raw in messages]


def test_messages_taken_apart_share_no_text() -> None:
    """One bad reading has all messages of a group taken one by one; what each keeps is its own, however many there are."""
    good = [telemetry_pb2.Reading(tag_id=f"tag-{number}", sensed_at_us=NOW_US, temperature_c=5.0) for number in range(100)]
    readings = [*good, telemetry_pb2.Reading(tag_id="bad", sensed_at_us=NOW_US, temperature_c=5000.0)]
    messages = [telemetry_pb2.IngestRequest(rows=telemetry_pb2.ReadingRows(readings=[one])).SerializeToString() for one in readings]
    decoded = [one for one in wire.decode_together(messages, NOW_US) if isinstance(one, wire.Decoded)]
    ids, batch = together([(one.ids, one.batch) for one in decoded if len(one.batch)])
    assert [ids[at] for at in batch.tag.tolist()] == [one.tag_id for one in good]
    assert len(ids.text) == sum(len(one.tag_id) for one in good)


def test_plain_messages_of_rows_are_read_without_protobuf() -> None:
    """Else the test above would compare protobuf with itself. One that is not plain keeps the others from nothing."""
    together = wire.row_reader.read_together([ONE_MESSAGE, ONE_MESSAGE + b"\x0a\x01b", ONE_MESSAGE], 10)
    assert together.batch_ids == ["b", None, "b"]
    assert together.starts == [0, 2, 2, 4]
    assert wire.row_reader.read_together([ONE_MESSAGE], 1).batch_ids == [None]
    no_text = ONE_MESSAGE.replace("é".encode(), b"\xff\xff")
    assert wire.row_reader.read_together([no_text, ONE_MESSAGE], 10).batch_ids == [None, "b"]


@pytest.mark.parametrize("size", [0, 1, 127, 128, 20_000])
def test_the_message_of_a_call_is_found_in_its_bytes(size: int) -> None:
    request = telemetry_pb2.IngestRequest(batch_id="x" * size)
    whole = telemetry_pb2.IngestBatchRequest(batch=request).SerializeToString()
    assert wire.batch_of(whole) == request.SerializeToString()
    assert wire.batch_of(whole + whole) == request.SerializeToString()  # protobuf merges them


@pytest.mark.parametrize("raw", [b"\x0a", b"\x0a\x05a", b"\x0a\xff\xff\xff\xff\xff\xff", b"\x0b"])
def test_bytes_that_are_no_call_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidArgument, match="IngestBatchRequest"):
        wire.batch_of(raw)


def test_a_call_without_a_message_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="must be given"):
        wire.batch_of(b"")


def test_metrics_of_the_contract_are_the_columns_of_the_rules() -> None:
    names = {number: name.removeprefix("METRIC_").lower() for name, number in common_pb2.Metric.items() if number}
    assert names == {wire.METRIC_OF_CODE[code]: column.name for code, column in enumerate(COLUMNS)}


def test_protobuf_gives_repeated_fields_as_arrays() -> None:
    """Columns rely on `__array__` of the repeated fields; without it each number would be a Python object."""
    message = columns()
    assert hasattr(message.sensed_at_us, "__array__")
    assert np.array(message.sensed_at_us).dtype == np.int64
    assert np.array(message.tag_index).dtype == np.uint32
    assert np.array(message.boot).dtype == np.uint64
    assert np.array(message.columns[0].values).dtype == np.float64


def test_zero_is_a_temperature_and_absent_is_none() -> None:
    decoded = wire.decode(one(temperature_c=0.0), NOW_US)
    assert decoded.batch.codes == (0,)
    assert decoded.batch.values.tolist() == [[0.0]]


def test_a_position_on_the_equator_or_the_prime_meridian_is_a_position() -> None:
    decoded = wire.decode(one(latitude_deg=0.0, longitude_deg=0.0), NOW_US)
    assert decoded.batch.values.tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature_c", -400.0),
        ("temperature_c", float("nan")),
        ("temperature_c", float("inf")),
        ("relative_humidity_pct", 100.5),
        ("latitude_deg", 91.0),
        ("longitude_deg", -180.5),
        ("door_open", 0.5),
        ("shock_g", -1.0),
        ("light_lux", float("-inf")),
    ],
)
def test_an_impossible_value_refuses_its_reading_alone_and_names_itself(field: str, value: float) -> None:
    message = columns(4)
    metric = common_pb2.Metric.Value(f"METRIC_{field.upper()}")
    if metric == common_pb2.METRIC_TEMPERATURE_C:
        del message.columns[:]
    if field == "latitude_deg":
        message.columns.add(metric=common_pb2.METRIC_LONGITUDE_DEG, values=[1.0], rows=[2])
    if field == "longitude_deg":
        message.columns.add(metric=common_pb2.METRIC_LATITUDE_DEG, values=[1.0], rows=[2])
    message.columns.add(metric=common_pb2.METRIC_BATTERY_V, values=[3.0] * 4)
    message.columns.add(metric=metric, values=[value], rows=[2])
    decoded = decode(message)
    assert decoded.rows.tolist() == [0, 1, 3]
    [refusal] = decoded.refusals
    assert (refusal.row, refusal.field) == (2, field)
    assert refusal.value == repr(value)
    assert refusal.rule


def test_rows_refuse_nan_too() -> None:
    decoded = wire.decode(one(temperature_c=float("nan")), NOW_US)
    assert [refusal.field for refusal in decoded.refusals] == ["temperature_c"]


@pytest.mark.parametrize("tag_id", ["", "x" * 65, "a\nb", " a", "a\t"])
def test_a_malformed_tag_id_refuses_its_readings_alone(tag_id: str) -> None:
    message = columns(4)
    message.tag_ids[1] = tag_id
    decoded = decode(message)
    assert decoded.rows.tolist() == [0, 2]
    assert [(refusal.row, refusal.field) for refusal in decoded.refusals] == [(1, "tag_id"), (3, "tag_id")]


def test_an_index_outside_the_table_of_tags_refuses_its_reading_alone() -> None:
    message = columns(3)
    message.tag_index[1] = 7
    decoded = decode(message)
    assert decoded.rows.tolist() == [0, 2]
    assert decoded.refusals[0][:3] == (1, "tag_index", "7")


def test_a_reading_without_any_value_is_refused() -> None:
    message = columns(2)
    message.columns[0].rows.append(1)
    message.columns[0].values.pop()
    assert [refusal.row for refusal in decode(message).refusals] == [0]


def test_boot_without_sequence_is_refused_and_all_bits_set_means_none() -> None:
    message = columns(3)
    message.boot.extend([1, 1, 2**64 - 1])
    message.sequence.extend([1, 2**64 - 1, 2**64 - 1])
    decoded = decode(message)
    assert decoded.rows.tolist() == [0, 2]
    assert decoded.batch.sequence.tolist() == [1, -1]


def broken(change: str) -> telemetry_pb2.IngestRequest:
    """A message that is wrong as a whole."""
    good = columns()
    if change == "tag_index":
        good.tag_index.pop()
    elif change == "values":
        good.columns[0].values.append(1.0)
    elif change == "boot":
        good.boot.append(1)
        good.sequence.extend([1, 2, 3])
    elif change == "metric":
        good.columns[0].metric = 99  # type: ignore[assignment]
    elif change == "metric unspecified":
        good.columns[0].metric = common_pb2.METRIC_UNSPECIFIED
    elif change == "metric twice":
        good.columns.add(metric=common_pb2.METRIC_TEMPERATURE_C, values=[1.0] * 3)
    elif change == "rows beyond":
        good.columns[0].rows.extend([0, 1, 3])
    elif change == "rows not ascending":
        good.columns[0].rows.extend([0, 2, 1])
    elif change == "rows of other length":
        good.columns[0].rows.extend([0, 1])
    elif change == "empty columns":
        return telemetry_pb2.IngestRequest(columns=telemetry_pb2.ReadingColumns())
    elif change == "empty rows":
        return telemetry_pb2.IngestRequest(rows=telemetry_pb2.ReadingRows())
    elif change == "no payload":
        return telemetry_pb2.IngestRequest(batch_id="x")
    elif change == "too many":
        return telemetry_pb2.IngestRequest(columns=columns(wire.READINGS_MAX + 1))
    elif change == "too big":
        good.tag_ids.append("x" * wire.BYTES_MAX)
    elif change == "batch id":
        return telemetry_pb2.IngestRequest(batch_id="y" * 65, columns=good)
    return telemetry_pb2.IngestRequest(columns=good)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("tag_index", "columns.tag_index"),
        ("values", "columns.columns[0].values"),
        ("boot", "columns.boot"),
        ("metric", "columns.columns[0].metric"),
        ("metric unspecified", "columns.columns[0].metric"),
        ("metric twice", "columns.columns[1].metric"),
        ("rows beyond", "columns.columns[0].rows"),
        ("rows not ascending", "columns.columns[0].rows"),
        ("rows of other length", "columns.columns[0].values"),
        ("empty columns", "payload"),
        ("empty rows", "payload"),
        ("no payload", "payload"),
        ("too many", "payload"),
        ("too big", ""),
        ("batch id", "batch_id"),
    ],
)
def test_a_message_that_is_wrong_as_a_whole_is_refused_by_field(change: str, field: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        wire.decode(broken(change), NOW_US)
    assert refusal.value.field == field


def test_only_the_first_thousand_refusals_are_explained_and_all_are_marked() -> None:
    message = columns(5_000)
    del message.columns[:]
    message.columns.add(metric=common_pb2.METRIC_TEMPERATURE_C, values=[-400.0] * 5_000)
    decoded = decode(message)
    assert decoded.total - len(decoded.batch) == 5_000
    assert len(decoded.refusals) == wire.REFUSALS_MAX
    assert [refusal.row for refusal in decoded.refusals] == list(range(wire.REFUSALS_MAX))
    assert len(decoded.batch) == 0


def test_refusals_by_tag_and_by_value_are_explained_in_the_order_of_the_readings() -> None:
    message = columns(4_000)
    message.tag_ids[1] = ""
    message.columns.add(metric=common_pb2.METRIC_BATTERY_V, values=[-1.0] * 4_000)
    decoded = decode(message)
    assert [refusal.row for refusal in decoded.refusals] == list(range(wire.REFUSALS_MAX))
    assert [refusal.field for refusal in decoded.refusals[:4]] == ["battery_v", "tag_id", "battery_v", "tag_id"]
