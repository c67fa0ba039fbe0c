"""Numbers keep their digits: what a float would cut is found, and read as a Decimal."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickledger.numbers import MOST_DIGITS, exact, exact_json, has_long_numbers, is_short


@st.composite
def spellings(draw: st.DrawFn) -> str:
    """A number as JSON spells it."""
    whole = draw(st.integers(0, 10 ** draw(st.integers(0, 25))))
    behind = draw(st.from_regex(r"\A(\.[0-9]{1,25})?([eE][-+]?[0-9]{1,2})?\Z"))
    return f"{draw(st.sampled_from(['', '-']))}{whole}{behind}"


def as_decimal(number: float | Decimal) -> Decimal:
    return number if type(number) is Decimal else Decimal(repr(number))


@pytest.mark.parametrize(
    "text", ["1.12345678901234567e-99999999999999999999", "1234567890123456789e99999999999999999999"]
)
def test_an_exponent_beyond_all_bounds_is_what_a_float_makes_of_it(text: str) -> None:
    assert exact(text) == float(text)


@given(spellings())
def test_no_digit_is_lost(text: str) -> None:
    value = f'[{{"price": {text}}}]'.encode()

    read = exact_json(value) if has_long_numbers(value) else json.loads(value)

    assert as_decimal(read[0]["price"]) == Decimal(text)
    assert as_decimal(exact(text)) == Decimal(text)


@pytest.mark.parametrize("text", ["1234250000000.5", "550.5", "4932000", "0.00000001", "9223372036854775807"])
def test_a_number_that_a_float_or_an_integer_holds_is_no_long_one(text: str) -> None:
    assert not has_long_numbers(f'{{"ticker":"TMAS.JK","at":"07:04:45.250","price":{text}}}'.encode())
    assert type(exact(text)) in (int, float)


def test_brackets_beyond_what_python_nests_are_read_all_the_same() -> None:
    value = b"[" * 1_000 + b"0.12345678901234567890" + b"]" * 1_000

    assert has_long_numbers(value)
    assert exact_json(value)


def test_a_decimal_has_bounded_digits() -> None:
    assert is_short(Decimal("0." + "1" * MOST_DIGITS))
    assert not is_short(Decimal("1" * (MOST_DIGITS + 1)))
    assert not is_short(Decimal(f"1e{MOST_DIGITS + 1}"))
    assert not is_short(Decimal(f"1e-{MOST_DIGITS + 1}"))
