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

from actors.rules.codec import DamagedBatch, decode, encode
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
    blob[8] = 2
    blob[4:8] = zlib.crc32(blob[8:]).to_bytes(4, "little")
    with pytest.raises(DamagedBatch, match="version 2"):
        decode(bytes(blob))


def test_boot_and_sequence_take_no_room_where_no_device_tells_them() -> None:
    numbered = some_batch()
    silent = Batch(numbered.tag, numbered.sensed_us, np.full(3, NO_SEQUENCE), np.full(3, NO_SEQUENCE), numbered.codes, numbered.values)
    assert len(encode(numbered)) - len(encode(silent)) == 2 * 3 * 8


def test_decoding_copies_nothing() -> None:
    blob = encode(some_batch())
    found = decode(blob).batch
    whole = np.frombuffer(blob, np.uint8)
    assert np.shares_memory(found.values, whole)
    assert np.shares_memory(found.sensed_us, whole)
    assert found.values.flags.aligned


def test_columns_that_do_not_fit_are_refused_when_encoding() -> None:
    with pytest.raises(ValueError, match="beside"):
        encode(some_batch(), np.ones((1, 3), np.uint8))
