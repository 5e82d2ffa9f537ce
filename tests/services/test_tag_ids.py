"""The compiled walk over a message's tag ids says what the rule and the directory say of each id by itself."""

from __future__ import annotations

from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.directory import shard_of
from services.tag_ids import TAG_ID_MAX, TagIds, malformed, shards_of, valid_tag_id

ASCII = st.text(st.characters(max_codepoint=0x7F), max_size=TAG_ID_MAX + 2)
LONG = st.integers(TAG_ID_MAX - 1, TAG_ID_MAX + 1).flatmap(lambda n: st.sampled_from(["x" * n, "ß" * n, "x" * (n - 1) + " "]))
PLAIN = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=TAG_ID_MAX + 2)
IDS = st.lists(st.one_of(PLAIN, PLAIN, ASCII, LONG, st.text())) | st.lists(PLAIN)


@given(IDS, st.integers(1, 1000))
def test_each_id_lives_in_the_shard_that_its_crc32_says(ids: list[str], shards: int) -> None:
    found = shards_of(TagIds.of(ids), shards)
    assert found.dtype == np.int32
    assert found.tolist() == [crc32(one.encode()) % shards for one in ids] == [shard_of(one, shards) for one in ids]


@given(IDS)
def test_each_id_that_breaks_a_rule_is_named_with_the_rule(ids: list[str]) -> None:
    assert malformed(TagIds.of(ids)) == {i: rule for i, one in enumerate(ids) if (rule := valid_tag_id(one))}


@pytest.mark.parametrize("end", ["", "a\nb", "\n", "ß-7"])
def test_every_ascii_character_at_every_place_is_judged_like_alone(end: str) -> None:
    """A line end within an id, which is what the ids are joined by, moves no other id."""
    ids = [text for code in range(128) for text in (chr(code), chr(code) + "b", "a" + chr(code), "a" + chr(code) + "b")]
    plain = [one for one in ids if "\n" not in one] + [end]
    for given_ids in (plain, [*ids, end]):
        assert malformed(TagIds.of(given_ids)) == {i: rule for i, one in enumerate(given_ids) if (rule := valid_tag_id(one))}
        assert shards_of(TagIds.of(given_ids), 97).tolist() == [shard_of(one, 97) for one in given_ids]


def test_no_id_is_no_line_and_an_empty_id_is_one() -> None:
    none, empty = TagIds.of([]), TagIds.of([""])
    assert (len(none), malformed(none), shards_of(none, 4).tolist(), none.lines()) == (0, {}, [], b"")
    assert (len(empty), malformed(empty), shards_of(empty, 4).tolist(), empty.lines()) == (1, {0: "must be given"}, [0], b"")


@given(st.lists(IDS, min_size=1, max_size=4), st.data())
def test_a_table_keeps_its_ids_whatever_is_done_with_it(lists: list[list[str]], data: st.DataObject) -> None:
    ids = [one for some in lists for one in some]
    whole = TagIds.concatenate([TagIds.of(some) for some in lists])
    chosen = data.draw(st.lists(st.integers(0, len(ids) - 1), max_size=10)) if ids else []
    some = whole.subset(np.array(chosen, np.int64))
    for table, expected in ((whole, ids), (some, [ids[at] for at in chosen]), (some.compact(), [ids[at] for at in chosen])):
        assert [table[at] for at in range(len(table))] == expected
        assert table.lines() == "\n".join(expected).encode()
        assert shards_of(table, 97).tolist() == [shard_of(one, 97) for one in expected]
        assert malformed(table) == {i: rule for i, one in enumerate(expected) if (rule := valid_tag_id(one))}
    assert len(some.compact().text) == max(sum(len(ids[at].encode()) + 1 for at in chosen) - 1, 0)
