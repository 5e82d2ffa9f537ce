"""A batch survives being bytes, bit for bit, and damaged bytes are never taken for a batch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from actors.rules.codec import VERSION, DamagedBatch, decode, encode
from actors.rules.readings import COLUMNS, NO_SEQUENCE, Batch

I64 = st.integers(-(2**63), 2**63 - 1)


@st.composite
def batches(draw: st.DrawFn) -> tuple[Batch, Any, Any]:
    n = draw(st.integers(0, 9))
    codes = tuple(sorted(draw(st.sets(st.integers(0, len(COLUMNS) - 1), max_size=4))))
    if draw(st.booleans()):
        boot, sequence = draw(arrays.arrays(np.int64, n, elements=I64)), draw(arrays.arrays(np.int64, n, elements=I64))
    else:
        boot = sequence = np.full(n, NO_SEQUENCE)
    batch = Batch(
        draw(arrays.arrays(np.int32, n)),
        draw(arrays.arrays(np.int64, n, elements=I64)),
        boot,
        sequence,
        codes,
        draw(arrays.arrays(np.uint64, (len(codes), n))).view(np.float64),
    )
    flags = draw(st.none() | arrays.arrays(np.uint8, (len(codes), n)))
    status = draw(st.none() | arrays.arrays(np.uint8, n))
    return batch, flags, status


def same_bits(a: npt.NDArray[Any] | None, b: npt.NDArray[Any] | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


@settings(max_examples=150, deadline=None)
@given(batches(), st.none() | st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9), max_size=3))
def test_what_is_decoded_is_what_was_encoded_bit_for_bit(given_batch: tuple[Batch, Any, Any], extra: dict[str, Any] | None) -> None:
    batch, flags, status = given_batch
    found = decode(encode(batch, flags, status, extra))
    for name in ("tag", "sensed_us", "boot", "sequence", "values"):
        assert same_bits(getattr(found.batch, name), getattr(batch, name)), name
    assert found.batch.codes == batch.codes
    assert same_bits(found.flags, flags)
    assert same_bits(found.status, status)
    assert found.extra == (extra or {})


def some_batch() -> Batch:
    return Batch(
        np.arange(3, dtype=np.int32),
        np.arange(3) + 5,
        np.zeros(3, np.int64),
        np.arange(3),
        (0, 7),
        np.array([[1.5, math.nan, -0.0], [0, 1, 0]]),
    )


def test_any_flipped_bit_is_noticed() -> None:
    blob = encode(some_batch(), np.ones((2, 3), np.uint8), np.ones(3, np.uint8), {"shard": 2})
    for bit in range(8 * len(blob)):
        damaged = bytearray(blob)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedBatch):
            decode(bytes(damaged))


def test_a_blob_cut_short_or_grown_is_noticed() -> None:
    blob = encode(some_batch())
    for length in range(len(blob)):
        with pytest.raises(DamagedBatch):
            decode(blob[:length])
    with pytest.raises(DamagedBatch):
        decode(blob + bytes(8))


def test_a_later_format_is_refused_by_name() -> None:
    import zlib

    blob = bytearray(encode(some_batch()))
    blob[8] = VERSION + 1
    blob[4:8] = zlib.crc32(blob[8:]).to_bytes(4, "little")
    with pytest.raises(DamagedBatch, match=f"version {VERSION + 1}"):
        decode(bytes(blob))


def test_boot_and_sequence_take_no_room_where_no_device_tells_them() -> None:
    numbered = some_batch()
    silent = Batch(numbered.tag, numbered.sensed_us, np.full(3, NO_SEQUENCE), np.full(3, NO_SEQUENCE), numbered.codes, numbered.values)
    assert len(encode(numbered)) - len(encode(silent)) == 16 + (16 + 8), "boots that are alike, and three sequences in a byte each"


def test_a_usual_reading_of_temperature_and_position_takes_18_bytes() -> None:
    n = 10_000
    every = np.arange(n)
    minute_us = 1_700_000_000_000_000 + every // 1_000 * 60_000_000
    values = np.array([np.round(2 + every % 617 / 100, 2), np.round(53.5 + every / 99_999, 6), np.round(9.99 - every / 99_999, 6)])
    batch = Batch((every % 1_000).astype(np.int32), minute_us, np.full(n, 17), 40_000 + every, (0, 7, 8), values)
    assert same_bits(decode(encode(batch)).batch.values, values)
    assert len(encode(batch)) <= 18 * n + 200
    assert len(encode(batch, version=2)) >= 32 * n
    assert len(encode(batch, version=1)) >= 52 * n


def _of_values(column: npt.NDArray[np.float64]) -> Batch:
    none = np.full(len(column), NO_SEQUENCE)
    return Batch(np.zeros(len(column), np.int32), np.zeros(len(column), np.int64), none, none, (0,), column.reshape(1, -1))


HUNDREDTHS = np.round(np.linspace(-3.2, 9.4, 100), 2)
ODD = {
    "some absent": (np.where(np.arange(100) % 7 == 3, np.nan, HUNDREDTHS), 2),
    "all absent": (np.full(100, np.nan), 0),
    "all alike": (np.full(100, 21.37), 0),
    "all alike or absent": (np.where(np.arange(100) % 7 == 3, np.nan, 21.37), 1),
    "256 numbers in a byte of 255": (np.arange(256.0), 2),
    "255 numbers": (np.arange(255.0), 1),
    "a negative zero": (np.where(np.arange(100) == 50, -0.0, HUNDREDTHS), 2),
    "negative zeros and some absent": (np.where(np.arange(100) % 7 == 3, np.nan, np.where(np.arange(100) % 5, HUNDREDTHS, -0.0)), 2),
    "negative zeros alone": (np.full(100, -0.0), 1),
    "a negative zero and 255 numbers": (np.append(np.arange(255.0), -0.0), 2),
    "a negative zero and 254 numbers": (np.append(np.arange(254.0), -0.0), 1),
    "an infinity": (np.where(np.arange(100) == 50, math.inf, HUNDREDTHS), 4 + 4),
    "one of more digits than the sample shows": (np.where(np.arange(100) == 50, 0.12345, HUNDREDTHS), 4),
    "one of too many digits": (np.where(np.arange(100) == 50, 1 / 3, HUNDREDTHS), 8),
    "float32": (np.float32(HUNDREDTHS).astype(np.float64), 4),
    "large": (np.arange(100) * 1e13, 8),
    "too large": (np.arange(100) * 1e15 + 0.5, 8),
    "at both ends": (np.where(np.arange(100) % 2, 2.0**52, -(2.0**52)), 8),
    "another NaN": (np.full(100, 0x7FF8000000000001).view(np.float64), 8),
}


@pytest.mark.parametrize("name", ODD)
def test_values_take_as_few_bytes_as_they_need_and_come_back_bit_for_bit(name: str) -> None:
    column, size = ODD[name]
    blob = encode(_of_values(column))
    assert same_bits(decode(blob).batch.values, column.reshape(1, -1))
    rest = len(encode(_of_values(column[:0])))
    assert len(blob) - rest == -(-size * len(column) // 8) * 8


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 9), st.lists(st.integers(-(10**9), 10**9), min_size=64, max_size=70), *[st.sets(st.integers(0, 63))] * 2)
def test_decimals_of_any_digits_come_back_bit_for_bit_as_the_float_that_reading_them_gives(
    digits: int, numbers: list[int], absent: set[int], negative: set[int]
) -> None:
    column = np.array([float(f"{number}e-{digits}") for number in numbers])
    column[list(negative)] = -0.0
    column[list(absent)] = np.nan
    blob = encode(_of_values(column))
    assert same_bits(decode(blob).batch.values, column.reshape(1, -1))
    assert len(blob) < len(encode(_of_values(column), version=2))


@pytest.mark.parametrize(("unit_us", "size"), [(1_000_000, 2), (1_000, 4), (1, 8)])
def test_times_far_apart_are_counted_in_the_largest_unit_that_fits_them(unit_us: int, size: int) -> None:
    def silent(times: npt.NDArray[np.int64]) -> Batch:
        none = np.full(len(times), NO_SEQUENCE)
        return Batch(np.zeros(len(times), np.int32), times, none, none, (), np.empty((0, len(times))))

    times = 1_700_000_000_123_456 + np.array([*range(999), 5_000_000_000 // unit_us]) * unit_us
    blob = encode(silent(times))
    assert decode(blob).batch.sensed_us.tolist() == times.tolist()
    assert len(blob) - len(encode(silent(times[:0]))) == 1_000 * size


FIRST_VERSION = (
    "57425242bedd6c34010007000200000003000000000000000b0000000000000005000000000000000600000000000000070000000000000000000000000000"
    "0000000000000000000000000000000000000000000000000001000000000000000200000000000000000000000000f83f000000000000f87f000000000000"
    "00800000000000000000000000000000f03f0000000000000000000000000100000002000000000000000101010101010000010101000000000000070000"
    "000000007b227368617264223a327d0000000000"
)


SECOND_VERSION = (
    "574252421f92bb7b020007000200000003000000000000000b000000000000000500000000000000010000000100000000010200000000000000000000000000"
    "0100000000000000000000000000000001000000010000000001020000000000000000000000f83f000000000000f87f00000000000000800000000000000000"
    "000000000000f03f0000000000000000000000000000000001000000010000000001020000000000010101010101000001010100000000000007000000000000"
    "7b227368617264223a327d0000000000"
)


@pytest.mark.parametrize(("version", "text"), [(1, FIRST_VERSION), (2, SECOND_VERSION)])
def test_entries_of_earlier_versions_are_read_and_can_be_made_again_byte_for_byte(version: int, text: str) -> None:
    given_then = some_batch(), np.ones((2, 3), np.uint8), np.ones(3, np.uint8), {"shard": 2}
    blob = bytes.fromhex(text)
    found = decode(blob)
    for name in ("tag", "sensed_us", "boot", "sequence", "values"):
        assert same_bits(getattr(found.batch, name), getattr(given_then[0], name)), name
    assert found.extra == {"shard": 2}
    assert encode(*given_then, version=version) == blob


def test_columns_that_do_not_fit_are_refused_when_encoding() -> None:
    with pytest.raises(ValueError, match="beside"):
        encode(some_batch(), np.ones((1, 3), np.uint8))
