"""Stock: what movements change, what is refused, sums and the comparison of two books; held against tests/reference/stock.py."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.rules.errors import FailedPrecondition, InvalidArgument
from actors.rules.stock import (
    ANY,
    FREE,
    HELD,
    IN_TRANSIT,
    LARGEST,
    PICKED,
    RESERVED,
    Block,
    Book,
    BookKey,
    Line,
    Movement,
    convert,
    decide,
    quantity,
    reconcile,
    sums,
    text,
)
from tests.reference import stock as reference

LOT = "IT/L1"
FREE_A = Line("W", "A", LOT)


def moved(kind: str, amount: str = "1", **more: object) -> Movement:
    return Movement("W", kind, LOT, Decimal(amount), 1_000, **({"zone_id": "A"} | more))  # type: ignore[arg-type]


def book(amount: str = "10", **more: object) -> Book:
    return Book({FREE_A: Decimal(amount)}, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("told", ["1e3", "1,5", "NaN", "Infinity", "", " 1", "0x1", "1.0000001", "1234567890123", "+1", "٣"])
def test_what_is_no_plain_decimal_is_refused(told: str) -> None:
    with pytest.raises(InvalidArgument, match="must be a decimal"):
        quantity(told, "quantity")


def test_signs_and_zeros_are_refused_where_none_may_be() -> None:
    with pytest.raises(InvalidArgument, match="negative"):
        quantity("-1", "quantity")
    with pytest.raises(InvalidArgument, match="zero"):
        quantity("0.000", "quantity")
    assert quantity("-1.50", "quantity", signed=True) == Decimal("-1.5")
    assert text(quantity("100", "quantity")) == "100"


def test_units_convert_exactly_or_not_at_all() -> None:
    factors = {"BX": Decimal(12), "MGM": Decimal("0.001")}
    assert convert(Decimal("1.5"), "BX", "EA", factors, "quantity") == 18
    with pytest.raises(InvalidArgument, match="no unit of this item: it has EA, BX, MGM"):
        convert(Decimal(1), "KGM", "EA", factors, "unit")
    with pytest.raises(InvalidArgument, match="more than 6 decimals"):
        convert(Decimal("0.0001"), "MGM", "GRM", factors, "quantity")
    with pytest.raises(InvalidArgument, match="12 digits"):
        convert(Decimal(999_999_999_999), "BX", "EA", factors, "quantity")


def test_goods_go_from_reserved_through_picked_into_transit() -> None:
    mine = book()
    for kind, more in (("RESERVE", {}), ("PICK", {"status": RESERVED, "to_handling_unit_id": "P1"}),
                       ("SHIP", {"handling_unit_id": "P1", "shipment_id": "S"})):  # fmt: skip
        mine.take(decide(moved(kind, "4", **more), mine).legs)
    assert {line: amount for line, amount in mine.lines.items() if amount} == {
        FREE_A: 6, Line("W", "", LOT, "P1", "S", IN_TRANSIT): 4,
    }  # fmt: skip


def test_the_last_piece_is_not_picked_twice() -> None:
    mine = book("1")
    mine.take(decide(moved("PICK"), mine).legs)
    with pytest.raises(FailedPrecondition, match="takes 1 where there are 0"):
        decide(moved("PICK"), mine)
    assert decide(moved("PICK"), Book(allow_negative=True)).legs


def test_a_hold_blocks_everywhere_but_where_it_was_released() -> None:
    mine = book(blocks={LOT: [Block("H1", "PARTIALLY_RELEASED", (("P1", "", ""), ("", "W", "B")))]})
    mine.lines |= {Line("W", "B", LOT): Decimal(1), Line("W", "C", LOT, "P1"): Decimal(1), Line("W", "B", LOT, "P2"): Decimal(1)}
    for kind in ("RESERVE", "PICK", "SHIP"):
        with pytest.raises(FailedPrecondition, match="is on hold"):
            decide(moved(kind, status=FREE), mine)
    assert decide(moved("PICK", zone_id="B"), mine).legs
    assert decide(moved("PICK", zone_id="C", handling_unit_id="P1"), mine).legs
    with pytest.raises(FailedPrecondition, match="is on hold"):
        decide(moved("PICK", zone_id="B", handling_unit_id="P2"), mine)
    assert decide(moved("PUT_AWAY", to_zone_id="Q"), mine).legs  # into quarantine it may go
    assert decide(moved("SCRAP", status=FREE), mine).legs


def test_expired_goods_stay_unless_it_is_allowed() -> None:
    mine = book(expires_us={LOT: 1_000})
    with pytest.raises(FailedPrecondition, match="has expired"):
        decide(moved("PICK"), mine)
    assert decide(moved("PICK", allow_expired=True), mine).legs
    mine.expires_us = {LOT: 1_001}
    assert decide(moved("PICK"), mine).legs


def test_a_receipt_tells_short_and_over_and_holds_what_is_damaged() -> None:
    carried = [(Line("V", "", LOT, "P1", "S", IN_TRANSIT), Decimal(3)), (Line("U", "", LOT, "P1", "S", IN_TRANSIT), Decimal(5))]
    told = decide(moved("RECEIVE", "5", shipment_id="S", damaged=Decimal(1)), Book(), aboard=carried)
    assert (told.short, told.over) == (Decimal(2), Decimal(0))
    assert [(leg.line.warehouse_id, leg.line.status, int(leg.quantity)) for leg in told.legs] == [
        ("V", IN_TRANSIT, -3), ("U", IN_TRANSIT, -3), ("W", FREE, 5), ("W", HELD, 1),
    ]  # fmt: skip
    assert decide(moved("RECEIVE", "9", shipment_id="S"), Book(), aboard=carried).over == 1


def test_what_a_ledger_cannot_count_is_refused_line_by_line() -> None:
    mine = Book(allow_negative=True)
    most = str(LARGEST - 1)
    mine.take(decide(moved("RECEIVE", most), mine).legs)
    for kind, status in (("RECEIVE", ""), ("ADJUST", "")):
        with pytest.raises(FailedPrecondition, match="more than a ledger can count"):
            decide(moved(kind, most, status=status), mine)
    with pytest.raises(FailedPrecondition, match="more than a ledger can count"):
        decide(moved("RECEIVE", "1", shipment_id="S", damaged=LARGEST), Book())


def test_a_kind_refuses_a_status_that_it_does_not_take_from() -> None:
    with pytest.raises(InvalidArgument, match="must be of FREE, RESERVED"):
        decide(moved("PICK", status=PICKED), book())
    with pytest.raises(InvalidArgument, match="another place"):
        decide(moved("PUT_AWAY", to_zone_id="A"), book())


def test_available_is_on_hand_less_held_less_reserved_counting_nothing_twice() -> None:
    lines = [(FREE_A, Decimal(10)), (FREE_A._replace(status=RESERVED), Decimal(4)), (FREE_A._replace(status=HELD), Decimal(1)),
             (Line("W", "", LOT, "P", "S", IN_TRANSIT), Decimal(7))]  # fmt: skip
    free = sums(lines, {})
    assert [free.on_hand, free.held, free.reserved, free.available, free.in_transit] == [Decimal(n) for n in (15, 1, 4, 10, 7)]
    held = sums(lines, {LOT: [Block("H", "ACTIVE")]})
    assert [held.on_hand, held.held, held.reserved, held.available] == [Decimal(n) for n in (15, 15, 0, 0)]


AMOUNTS = st.decimals(min_value=0, max_value=1000, places=3, allow_nan=False)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["RECEIVE", "RESERVE", "UNRESERVE", "PICK", "ADJUST", "COUNT", "HOLD", "RELEASE", "SCRAP"]),
        AMOUNTS, st.integers(0, 20),
    ), max_size=25,
)  # fmt: skip


@given(STEPS)
def test_any_ledger_adds_up_to_the_book_and_counts_survive_as_of_their_time(steps: list[tuple[str, Decimal, int]]) -> None:
    mine = Book(allow_negative=True)
    ledger: list[reference.Entry] = []
    legs_at: list[tuple[int, Line, Decimal]] = []
    for kind, amount, at in steps:
        movement = Movement("W", kind, LOT, amount, at, zone_id="A")
        as_of = sum((more for when, line, more in legs_at if line == FREE_A and when <= at), Decimal(0))
        found = decide(movement, mine, as_of=as_of)
        mine.take(found.legs)
        legs_at += [(at, leg.line, leg.quantity) for leg in found.legs]
        slow = Fraction(amount)
        if kind == "COUNT":
            ledger.append(reference.count(ledger, at, FREE_A, slow))
            assert reference.on(ledger, FREE_A, at) == slow
        else:
            source = {"UNRESERVE": RESERVED, "RELEASE": HELD, "SCRAP": HELD}.get(kind, FREE)
            target = {"RESERVE": RESERVED, "UNRESERVE": FREE, "PICK": PICKED, "HOLD": HELD, "RELEASE": FREE}.get(kind)
            there = None if target is None else FREE_A._replace(status=target)
            ledger.append(reference.move(kind, at, FREE_A._replace(status=source), there, slow))
    for status in (FREE, RESERVED, PICKED, HELD):
        line = FREE_A._replace(status=status)
        assert Fraction(mine.of(line)) == reference.on(ledger, line)


KEYS = st.builds(BookKey, st.sampled_from(["A", "B"]), st.sampled_from(["I/1", "I/2"]), st.sampled_from([FREE, HELD]))
BOOKS = st.dictionaries(KEYS, st.integers(0, 3).map(Decimal), max_size=8)


@given(BOOKS, BOOKS)
def test_reconciling_finds_exactly_what_differs(left: dict[BookKey, Decimal], right: dict[BookKey, Decimal]) -> None:
    equal, found = reconcile(left, right)
    slow = reference.differences(
        {k: Fraction(v) for k, v in left.items()}, {k: Fraction(v) for k, v in right.items()}
    )  # fmt: skip
    assert {tuple(one.key): Fraction(one.right - one.left) for one in found} == {tuple(k): v for k, v in slow.items() if v}
    assert equal == sum(1 for key in left if left[key] and left[key] == right.get(key))
    assert {one.kind for one in found if not one.left} <= {"ONLY_THERE"}


@given(BOOKS)
def test_a_book_that_knows_no_statuses_equals_the_sum_over_them(left: dict[BookKey, Decimal]) -> None:
    right: dict[BookKey, Decimal] = {}
    for key, amount in left.items():
        coarse = key._replace(status=ANY)
        right[coarse] = right.get(coarse, Decimal(0)) + amount
    assert reconcile(left, right)[1] == []
