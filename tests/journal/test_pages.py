"""Pages of a segment: every bit comes back, in a few bytes a reading, and a changed bit is found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.journal import pages
from actors.journal.pages import DamagedPage, Rows
from actors.rules.readings import Batch

I64 = st.integers(-(2**63), 2**63 - 1)


@st.composite
def rows(draw: st.DrawFn) -> Rows:
    n = draw(st.integers(1, 12))
    codes = tuple(sorted(draw(st.sets(st.integers(0, 14), max_size=3))))
    column = st.lists(I64, min_size=n, max_size=n)
    bits = np.array([draw(column) for _ in codes], np.int64).reshape(len(codes), n)
    values = bits.view(np.float64) if draw(st.booleans()) else np.round(bits / 2**60, draw(st.integers(0, 6)))
    for odd in (-0.0, np.nan):
        values[np.array(draw(st.lists(st.booleans(), min_size=values.size, max_size=values.size)), np.bool_).reshape(values.shape)] = odd
    tag = draw(st.lists(st.integers(0, 2**31 - 1), min_size=n, max_size=n))
    sensed, boot, sequence, journal = (np.array(draw(column), np.int64) for _ in range(4))
    row = np.array(draw(st.lists(st.integers(0, 2**31 - 1), min_size=n, max_size=n)), np.int32)
    status = np.array(draw(st.lists(st.integers(0, 255), min_size=n, max_size=n)), np.uint8)
    return Rows(Batch(np.array(tag, np.int32), sensed, boot, sequence, codes, values), journal, row, status)


def bits_of(part: Rows) -> list[object]:
    absent = np.array(np.nan).view(np.int64)[()]
    values = part.batch.values.view(np.int64)
    held = {code: values[k].tolist() for k, code in enumerate(part.batch.codes) if (values[k] != absent).any()}
    columns = (part.batch.tag, part.batch.sensed_us, part.batch.boot, part.batch.sequence, part.journal, part.row, part.status)
    return [held, *(column.tolist() for column in columns)]


@given(rows(), st.sampled_from([0, 1]))
def test_a_page_comes_back_bit_for_bit(part: Rows, level: int) -> None:
    assert bits_of(pages.decode(pages.encode(part, level))) == bits_of(part)


FIRST_VERSION = (
    "5742535045533bd701780163616060e0646064025210c0ccc2c872e07c1684d3d0e0c0d052edc420f7909f81e13f031303334c152394c1c0c0c8c8c8c208e732"
    "fe67648573181819feb3010908509081eb619007325b81f835100702f10e208e6310fa61cae050efd0a02d01e4a281030cf60ef58e00692310f6"
)


def test_pages_of_the_first_version_are_read() -> None:
    values = np.array([[4.5, np.nan, 21.37, -0.0], [0.5, 2, np.nan, 8]])
    tag, sensed = np.array([2, 2, 5, 9], np.int32), np.array([7, 9, 7, 8]) * 1_000_000
    batch = Batch(tag, sensed, np.full(4, 3), np.arange(4), (0, 11), values)
    part = Rows(batch, np.array([1, 2, 1, 2]), np.array([0, 1, 1, 0], np.int32), np.ones(4, np.uint8))
    assert bits_of(pages.decode(bytes.fromhex(FIRST_VERSION))) == bits_of(part)


def hourly(tags: int, hours: int) -> Rows:
    chance = np.random.default_rng(7)
    n = tags * hours
    hour = np.repeat(np.arange(hours), tags)
    tag = np.concatenate([chance.permutation(tags) for _ in range(hours)]).astype(np.int32)
    sensed = 1_700_000_000_000_000 + hour * 3_600_000_000 + chance.integers(0, 5_000_000, n)
    values = np.round(chance.normal(5, 2, (1, n)), 2)
    batch = Batch(tag, sensed, np.full(n, 3, np.int64), hour.astype(np.int64), (0,), values)
    return Rows(batch, hour + 1, np.tile(np.arange(tags, dtype=np.int32), hours), np.ones(n, np.uint8))


def test_sorted_readings_take_a_quarter_of_their_room() -> None:
    part = pages.subset(pages.by_tag(hourly(100, 40)), slice(0, pages.PAGE_ROWS))
    assert len(pages.encode(part, 1)) < 7 * len(part)


def test_readings_by_tag_are_in_judging_order_and_go_back_to_journal_order() -> None:
    part = hourly(50, 20)
    ordered = pages.by_tag(part)
    keys = list(zip(ordered.batch.tag.tolist(), ordered.batch.sensed_us.tolist(), strict=True))
    assert keys == sorted(keys)
    assert bits_of(pages.in_journal_order(ordered)) == bits_of(part)


def test_any_changed_bit_and_any_cut_is_found() -> None:
    blob = pages.encode(pages.by_tag(hourly(5, 5)))
    for at in range(0, len(blob), 7):
        changed = bytearray(blob)
        changed[at] ^= 1 << at % 8
        with pytest.raises(DamagedPage):
            pages.decode(bytes(changed))
        with pytest.raises(DamagedPage):
            pages.decode(blob[:at])
