"""The compiled walk over a message's tag ids says what the rule and the directory say of each id by itself."""

from __future__ import annotations

from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.directory import shard_of
from services.tag_ids import TAG_ID_MAX, malformed, shards_of, valid_tag_id

ASCII = st.text(st.characters(max_codepoint=0x7F), max_size=TAG_ID_MAX + 2)
LONG = st.integers(TAG_ID_MAX - 1, TAG_ID_MAX + 1).flatmap(lambda n: st.sampled_from(["x" * n, "ß" * n, "x" * (n - 1) + " "]))
PLAIN = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=TAG_ID_MAX + 2)
IDS = st.lists(st.one_of(PLAIN, PLAIN, ASCII, LONG, st.text())) | st.lists(PLAIN)


@given(IDS, st.integers(1, 1000))
def test_each_id_lives_in_the_shard_that_its_crc32_says(ids: list[str], shards: int) -> None:
    found = shards_of(ids, shards)
    assert found.dtype == np.int32
    assert found.tolist() == [crc32(one.encode()) % shards for one in ids] == [shard_of(one, shards) for one in ids]


@given(IDS)
def test_each_id_that_breaks_a_rule_is_named_with_the_rule(ids: list[str]) -> None:
    assert malformed(ids) == {i: rule for i, one in enumerate(ids) if (rule := valid_tag_id(one))}


@pytest.mark.parametrize("end", ["", "a\nb", "\n", "ß-7"])
def test_every_ascii_character_at_every_place_is_judged_like_alone(end: str) -> None:
    """A line end within an id, which is what the ids are joined by, moves no other id."""
    ids = [text for code in range(128) for text in (chr(code), chr(code) + "b", "a" + chr(code), "a" + chr(code) + "b")]
    plain = [one for one in ids if "\n" not in one] + [end]
    for given_ids in (plain, [*ids, end]):
        assert malformed(given_ids) == {i: rule for i, one in enumerate(given_ids) if (rule := valid_tag_id(one))}
        assert shards_of(given_ids, 97).tolist() == [shard_of(one, 97) for one in given_ids]


def test_no_id_is_no_line_and_an_empty_id_is_one() -> None:
    assert malformed([]) == {}
    assert shards_of([], 4).tolist() == []
    assert malformed([""]) == {0: "must be given"}
    assert shards_of([""], 4).tolist() == [0]
