"""Check digits by trying: which digit makes the whole number valid. Imports nothing from actors/."""

from __future__ import annotations


def gs1_valid(number: str) -> bool:
    """Whether the weighted sum of all digits, check digit with weight 1, is a multiple of ten."""
    weights = [1, 3] * len(number)
    return sum(int(digit) * weight for digit, weight in zip(reversed(number), weights, strict=False)) % 10 == 0


def gs1_check_digit(digits: str) -> str:
    """The one digit that makes it valid."""
    return next(c for c in "0123456789" if gs1_valid(digits + c))


LETTERS = {
    **{"A": 10, "B": 12, "C": 13, "D": 14, "E": 15, "F": 16, "G": 17, "H": 18, "I": 19, "J": 20, "K": 21, "L": 23, "M": 24},
    **{"N": 25, "O": 26, "P": 27, "Q": 28, "R": 29, "S": 30, "T": 31, "U": 32, "V": 34, "W": 35, "X": 36, "Y": 37, "Z": 38},
}
"""ISO 6346's table, as printed."""


def container_check_digit(code: str) -> str:
    """The check digit of owner, category and serial."""
    total = 0
    for place, character in enumerate(code):
        total += (LETTERS[character] if character in LETTERS else int(character)) * 2**place
    return str(total % 11)[-1]
