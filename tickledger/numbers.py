"""Numbers with all of their digits: JSON that a 64-bit float would cut is read as decimals."""

import json
import re
from decimal import Decimal
from typing import Any

import orjson

#: Any decimal of so many significant digits is the shortest one of its 64-bit float, and so is read back.
FLOAT_DIGITS = 15
#: A decimal has at most so many digits, and so many behind its point.
MOST_DIGITS = 50
#: The whole numbers that orjson reads as such.
_MOST_WHOLE = 2**64 - 1
_LEAST_WHOLE = -(2**63)


def _with_a_point(first: int, last: int) -> str:
    """A regular expression of what comes behind the point of numbers of 16 digits: from `first` to `last` before it."""
    return "|".join(
        rf"\d{{{behind}}}(?<=\d{{{before}}}\.\d{{{behind}}})"
        for before in range(first, last + 1)
        for behind in [FLOAT_DIGITS + 1 - before]
    )


# Each begins with the one byte that is found fastest. Of the digits of a long number eight stand on one side of the
# point; only where they do the rest is asked for, in the order that says no soonest. Zeros in front count too.
_MAY_BE_LONG = re.compile(rb"\.(?:\d{8}|(?<=\d{8}\.)\d)")
_LONG = re.compile(
    (
        rf"\.(?:(?=\d{{8}})(?:{_with_a_point(1, 7)})"
        rf"|(?<=\d{{8}}\.)(?:(?=\d{{5}})(?:{_with_a_point(8, 11)})|(?<=\d{{12}}\.)(?:{_with_a_point(12, 15)})))"
    ).encode()
)
_AS_ZEROS = bytes(ord("0") if chr(byte).isdigit() else byte for byte in range(128)) + bytes(range(128, 256))
_LONG_WHOLE = b"0" * 20
#: Without a point, before an exponent.
_LONG_MANTISSAS = (b"0" * (FLOAT_DIGITS + 1) + b"e", b"0" * (FLOAT_DIGITS + 1) + b"E")


def has_long_numbers(value: bytes, *, whole: bool = True) -> bool:
    """Whether JSON may hold a number that a float would cut; `whole` asks for whole ones of over 19 digits too.

    True also where only a text looks like one.
    """
    found = _MAY_BE_LONG.search(value)
    if found is not None and _LONG.search(value, found.start()) is not None:
        return True
    zeros = value.translate(_AS_ZEROS)
    return (whole and _LONG_WHOLE in zeros) or any(mark in zeros for mark in _LONG_MANTISSAS)


def exact_json(value: bytes) -> Any:
    """JSON that orjson has read, again, with a Decimal for each number that a float would cut."""
    try:
        return json.loads(value, parse_float=exact, parse_int=exact)
    except RecursionError:
        # Nobody nests numbers that deep for their digits.
        return orjson.loads(value)


def exact(text: str) -> int | float | Decimal:
    """The number of a spelling in JSON: an int of up to 64 bits, a float that has all of its digits, or a Decimal."""
    if text.lstrip("-").isdigit():
        if len(text) > MOST_DIGITS:
            return _decimal(text)
        number = int(text)
        return number if _LEAST_WHOLE <= number <= _MOST_WHOLE else _decimal(text)
    mantissa = re.split("[eE]", text, maxsplit=1)[0]
    digits = mantissa.lstrip("-").replace(".", "").lstrip("0")
    return float(text) if len(digits) <= FLOAT_DIGITS else _decimal(text)


def _decimal(text: str) -> float | Decimal:
    try:
        return Decimal(text)
    except ArithmeticError:
        # Its exponent is beyond all bounds: what a float makes of it, zero or infinity.
        return float(text)


def is_short(value: Any) -> bool:
    """Whether a Decimal, or any other number, has no more digits than are kept."""
    if type(value) is not Decimal:
        return True
    _, digits, exponent = value.as_tuple()
    return isinstance(exponent, int) and len(digits) <= MOST_DIGITS and -MOST_DIGITS <= exponent <= MOST_DIGITS
