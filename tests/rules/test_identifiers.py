"""Identifiers and their check digits (handbook 6)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.rules import identifiers
from actors.rules.errors import InvalidArgument
from tests.reference import identifiers as slow

DIGITS = st.text("0123456789", min_size=1, max_size=17)


@given(DIGITS)
def test_the_gs1_check_digit_makes_the_weighted_sum_a_multiple_of_ten(digits: str) -> None:
    assert str(identifiers.gs1_check_digit(digits)) == slow.gs1_check_digit(digits)


@given(st.from_regex(r"[A-Z]{3}[UJZR][0-9]{6}", fullmatch=True))
def test_the_container_check_digit_agrees_with_the_printed_table(code: str) -> None:
    assert str(identifiers.iso6346_check_digit(code)) == slow.container_check_digit(code)


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (identifiers.sscc, "106141412345678908"),  # GS1 US's example
        (identifiers.gtin, "96385074"),
        (identifiers.gtin, "036000291452"),
        (identifiers.gtin, "6291041500213"),
        (identifiers.gtin, "10614141000415"),
        (identifiers.gln, "0614141000012"),
        (identifiers.grai, "04012345000054"),
        (identifiers.grai, "04012345000054X17-A/3"),
        (identifiers.container, "CSQU3054383"),  # the standard's own example
        (identifiers.container, "TOLU4734787"),
        (identifiers.locode, "NLRTM"),
        (identifiers.locode, "USNY2"),
    ],
)
def test_real_identifiers_are_taken_as_they_are(check: object, value: str) -> None:
    assert callable(check)
    assert check(value) == value


@pytest.mark.parametrize(
    ("check", "value", "rule"),
    [
        (identifiers.sscc, "106141412345678907", "7 where 8 is expected"),
        (identifiers.gtin, "6291041500214", "4 where 3 is expected"),
        (identifiers.gln, "0614141000019", "9 where 2 is expected"),
        (identifiers.grai, "04012345000057SER", "7 where 4 is expected"),
        (identifiers.container, "CSQU3054384", "4 where 3 is expected"),
        (identifiers.sscc, "10614141234567890", "18 digits"),
        (identifiers.sscc, "", "18 digits"),
        (identifiers.sscc, "10614141234567890٨", "18 digits"),  # an Arabic-Indic digit is a digit to str.isdigit
        (identifiers.gtin, "123456789", "8, 12, 13 or 14 digits"),
        (identifiers.gln, "061414100001X", "13 digits"),
        (identifiers.grai, "14012345000054", "begins with 0"),
        (identifiers.grai, "0401234500005", "14 digits"),
        (identifiers.grai, "04012345000054" + "1" * 17, "up to 16"),
        (identifiers.grai, "04012345000054 1", "up to 16"),
        (identifiers.container, "csqu3054383", "3 letters"),
        (identifiers.container, "CSQX3054383", "U J Z R"),
        (identifiers.locode, "NLRT", "two letters"),
        (identifiers.locode, "NLRT1", "two letters"),
        (identifiers.locode, "NL RTM", "two letters"),
    ],
)
def test_a_wrong_identifier_is_refused_with_field_value_and_rule(check: object, value: str, rule: str) -> None:
    assert callable(check)
    with pytest.raises(InvalidArgument) as error:
        check(value, "unit")
    assert rule in error.value.rule
    assert (error.value.field, error.value.value) == ("unit", value)


@pytest.mark.parametrize("value", ["a", "x" * 64, "LOT 7/β-2"])
def test_free_text_is_up_to_64_printable_characters(value: str) -> None:
    assert identifiers.free_text(value, "lot") == value


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("", "must be given"),
        ("x" * 65, "at most 64"),
        ("a\nb", "printable"),
        ("a\x00", "printable"),
        (" a", "space"),
        ("a\u200b", "printable"),
    ],
)
def test_other_text_is_refused(value: str, rule: str) -> None:
    with pytest.raises(InvalidArgument, match=rule):
        identifiers.free_text(value, "lot")


def test_an_optional_text_may_be_empty() -> None:
    assert identifiers.free_text("", "reference", required=False) == ""
