"""A page token goes on exactly where it was given, and belongs to its question."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.rules.errors import InvalidArgument
from services.paging import SIZE_DEFAULT, SIZE_MAX, Page
from waybill.v1 import alert_pb2, tag_pb2

ROWS = [f"t{number:03}" for number in range(10)]


def ask(size: int = 3, token: str = "", prefix: str = "t") -> tuple[list[str], str]:
    """A list request over ROWS, as a servicer answers it."""
    request = tag_pb2.ListTagsRequest(page_size=size, page_token=token, id_prefix=prefix)
    page = Page(request, (str,))
    after = page.after[0] if page.after else ""
    shown, following = page.cut([row for row in ROWS if row > after][: page.limit], lambda row: (row,))
    return list(shown), following


@given(st.integers(1, 12))
def test_pages_of_any_size_give_every_row_once(size: int) -> None:
    seen: list[str] = []
    token = ""
    while True:
        rows, token = ask(size, token)
        seen += rows
        if not token:
            break
    assert seen == ROWS


def test_size_zero_is_the_default_and_too_large_is_cut() -> None:
    assert Page(tag_pb2.ListTagsRequest(), (str,)).size == SIZE_DEFAULT
    assert Page(tag_pb2.ListTagsRequest(page_size=10**6), (str,)).size == SIZE_MAX


def test_the_page_size_may_change_between_pages() -> None:
    _, token = ask(3)
    assert ask(5, token)[0] == ROWS[3:8]


def foreign() -> str:
    return Page(alert_pb2.ListAlertsRequest(page_size=1), (int, str)).cut([1, 2], lambda _: (5, "x"))[1]


@pytest.mark.parametrize(
    "token", ["x", "ä", "!!!!", base64.b64encode(b"[]").decode(), base64.b64encode(b'{"a":1}').decode(), foreign(), ask()[1][:-4]]
)
def test_a_token_from_elsewhere_is_refused_by_name(token: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        ask(token=token)
    assert refusal.value.field == "page_token"


def test_a_token_with_other_fields_is_refused() -> None:
    _, token = ask()
    with pytest.raises(InvalidArgument) as refusal:
        ask(token=token, prefix="t0")
    assert refusal.value.field == "page_token"


def test_a_negative_page_size_is_refused() -> None:
    with pytest.raises(InvalidArgument) as refusal:
        ask(-1)
    assert refusal.value.field == "page_size"
