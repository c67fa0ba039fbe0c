"""Messages that nobody should send, each with what becomes of it, and mutations of good ones."""

import gzip
import json
from random import Random
from typing import Any

GOOD: dict[str, Any] = {
    "id": 11,
    "created_at": "2024-08-25 07:04:45.250",
    "volume": 275674,
    "market_cap": 4932000,
    "ticker": "TMAS.JK",
    "price": 550.5,
    "sector": "Logistics & Deliveries",
}
#: The fate of a message whose only element is a tick like any other.
LANDS = "lands"


def message(**changes: Any) -> bytes:
    """A message of one tick that differs from a good one in these fields."""
    return json.dumps([GOOD | changes]).encode()


def without(name: str) -> bytes:
    """A message of one tick that lacks a field."""
    return json.dumps([{key: value for key, value in GOOD.items() if key != name}]).encode()


def nested(depth: int, begins: bytes = b"[", ends: bytes = b"]", within: bytes = b"") -> bytes:
    """Brackets within brackets, this many of them, as in `[[[]]]`."""
    return begins * depth + within + ends * depth


def with_value(name: str, value: bytes) -> bytes:
    """A message of one tick with a field's value as it is written."""
    return message(**{name: "?"}).replace(b'"?"', value)


_GOOD_TEXT = message().decode()

#: What cannot be read as an array at all: one dead letter for the message, with its bytes. By name: value, reason.
UNREADABLE: dict[str, tuple[bytes | None, str]] = {
    "a tombstone": (None, "no_value"),
    "nothing": (b"", "not_json"),
    "white space": (b" \n\t ", "not_json"),
    "a word": (b"hello", "not_json"),
    "a message cut off at its end": (message()[:-1], "not_json"),
    "a message cut off in a text": (message()[:60], "not_json"),
    "trailing garbage": (message() + b"]", "not_json"),
    "two arrays": (message() + message(), "not_json"),
    "lines of JSON": (message()[1:-1] + b"\n" + message()[1:-1], "not_json"),
    "a trailing comma": (message()[:-1] + b",]", "not_json"),
    "single quotes": (message().replace(b'"', b"'"), "not_json"),
    "a comment": (b"/* ticks */" + message(), "not_json"),
    "NaN": (message().replace(b"550.5", b"NaN"), "not_json"),
    "Infinity": (message().replace(b"550.5", b"-Infinity"), "not_json"),
    "a number beyond a double": (message().replace(b"550.5", b"1e999"), "not_json"),
    "a number with a leading zero": (message().replace(b"550.5", b"0550.5"), "not_json"),
    "a hexadecimal number": (message().replace(b"275674", b"0x434da"), "not_json"),
    "a raw newline in a text": (message().replace(b"Logistics", b"Log\nistics"), "not_json"),
    "half a surrogate pair": (message().replace(b"Logistics", b"\\ud83d"), "not_json"),
    "a byte order mark": (b"\xef\xbb\xbf" + message(), "not_json"),
    "arrays nested 100,000 deep": (nested(100_000), "not_json"),
    "arrays nested deeper than can be read": (nested(1_025), "not_json"),
    "objects nested deeper than can be read": (b"[" + nested(1_024, b'{"":', b"}", b"0") + b"]", "not_json"),
    "half a million zeros": (b"[" + b"0," * 499_999 + b"0]", "too_many_broken"),
    "empty objects without end": (b"[" + b"{}," * 300_000 + b"{}]", "too_many_broken"),
    "a million values and more": (b"[" + b"0," * 1_000_000 + b"0]", "too_many_values"),
    "more broken elements than a message of its size has ticks": (b"[1, 2]", "too_many_broken"),
    "400 digits for the id": (with_value("id", b"9" * 400), "not_json"),
    "zeros": (bytes(64), "not_json"),
    "gzip": (gzip.compress(message(), mtime=0), "bad_utf8"),
    "gzip cut off": (b"\x1f\x8b\x08\x00garbage", "bad_utf8"),
    "a byte that is not UTF-8": (message().replace(b"Logistics", b"\xff"), "bad_utf8"),
    "an overlong encoding": (message().replace(b"Logistics", b"\xc0\xaf"), "bad_utf8"),
    "Latin-1": (message(sector="Café").decode("unicode_escape").encode("latin-1"), "bad_utf8"),
    "UTF-16": (_GOOD_TEXT.encode("utf-16"), "bad_utf8"),
    "UTF-16 without a mark": (_GOOD_TEXT.encode("utf-16-le"), "not_json"),
    "a root object": (json.dumps(GOOD).encode(), "not_an_array"),
    "an envelope": (json.dumps({"ticks": [GOOD]}).encode(), "not_an_array"),
    "null": (b"null", "not_an_array"),
    "a text of JSON": (json.dumps(_GOOD_TEXT).encode(), "not_an_array"),
    "a number": (b"42", "not_an_array"),
    "an empty array": (b"[]", "empty_array"),
    "an empty array with spaces": (b" [ ] ", "empty_array"),
}

#: Arrays of one element that cannot land. By name: value, reason, and what the detail names.
BAD_TICKS: dict[str, tuple[bytes, str, str]] = {
    "an element that is a number": (b"[1]", "not_an_object", "a number"),
    "an element that is null": (b"[null]", "not_an_object", "null"),
    "an array in the array": (b"[[]]", "not_an_object", "an array"),
    "a tick in an array of its own": (b"[" + message() + b"]", "not_an_object", "an array"),
    "arrays nested 900 deep": (b"[" + nested(900) + b"]", "not_an_object", "an array"),
    **{
        f"{what} nested {depth} deep": (b"[" + nested(depth, begins, ends, within) + b"]", reason, named)
        for depth in (100, 254, 255, 493, 494, 495, 500, 511)
        for what, begins, ends, within, reason, named in [
            ("arrays", b"[[", b"]]", b"", "not_an_object", "an array"),
            ("objects and arrays", b'{"a":[', b"]}", b"0", "missing_field", "ticker"),
            ("objects", b'{"a":{"a":', b"}}", b"0", "missing_field", "ticker"),
        ]
    },
    "an array nested 990 deep for the price": (with_value("price", nested(990)), "wrong_type", "price is an array"),
    "an object nested 1,020 deep for the id": (
        with_value("id", nested(1_020, b'{"":', b"}", b"1")),
        "wrong_type",
        "id",
    ),
    "a time of 900 kB": (message(created_at="2024-08-25 07:04:45." + "1" * 900_000), "bad_time", "2024-08-25"),
    "an element that is a text": (b'["tick"]', "not_an_object", "a text"),
    "a text of 900 kB": (b'["' + b"x" * 900_000 + b'"]', "not_an_object", "a text"),
    "an object without fields": (b"[{}]", "missing_field", "ticker"),
    "an object in the ticker's place": (message(ticker={"ticker": "TMAS.JK"}), "wrong_type", "ticker"),
    "names in other letters": (message().replace(b'"ticker"', b'"Ticker"'), "missing_field", "ticker"),
    **{f"{name} missing": (without(name), "missing_field", name) for name in GOOD},
    **{f"{name} null": (message(**{name: None}), "null_field", name) for name in GOOD},
    "a text for the id": (message(id="11"), "wrong_type", "id"),
    "a boolean for the id": (message(id=True), "wrong_type", "id"),
    "a fraction for the id": (message(id=11.0), "wrong_type", "id"),
    "a negative id": (message(id=-1), "out_of_range", "id"),
    "an id beyond a bigint": (message(id=2**63), "out_of_range", "id"),
    "an id of 30 digits": (message().replace(b'"id": 11', b'"id": 123456789012345678901234567890'), "wrong_type", "id"),
    "a duplicate key, its last value bad": (message().replace(b'"id": 11', b'"id": 11, "id": "x"'), "wrong_type", "id"),
    "a text for the volume": (message(volume="100"), "wrong_type", "volume"),
    "a fraction for the volume": (message(volume=1.5), "wrong_type", "volume"),
    "a volume in exponents": (message().replace(b"275674", b"2e5"), "wrong_type", "volume"),
    "a negative volume": (message(volume=-5), "out_of_range", "volume is -5"),
    "too large a volume": (message(volume=10**12 + 1), "out_of_range", "volume"),
    "a text for the price": (message(price="550"), "wrong_type", "price"),
    "a boolean for the price": (message(price=True), "wrong_type", "price"),
    "a negative price": (message(price=-0.5), "out_of_range", "price"),
    "too large a price": (message(price=1e300), "out_of_range", "price"),
    "an array for the market's capitalisation": (message(market_cap=[]), "wrong_type", "market_cap"),
    "a negative market capitalisation": (message(market_cap=-1), "out_of_range", "market_cap"),
    "a number for the ticker": (message(ticker=7), "wrong_type", "ticker"),
    "an empty ticker": (message(ticker=""), "out_of_range", "ticker"),
    "a long ticker": (message(ticker="X" * 33), "out_of_range", "ticker"),
    "an unknown ticker": (message(ticker="NOPE.JK"), "unknown_ticker", "NOPE.JK"),
    "a ticker in small letters": (message(ticker="tmas.jk"), "unknown_ticker", "tmas.jk"),
    "a ticker with a space": (message(ticker="TMAS.JK "), "unknown_ticker", "TMAS.JK "),
    "a ticker with a null character": (message(ticker="TMAS.JK\0"), "unknown_ticker", "TMAS.JK"),
    "a ticker in Cyrillic letters": (message(ticker="ТMAS.JK"), "unknown_ticker", "MAS.JK"),
    "SQL for a ticker": (message(ticker="'; DROP TABLE profile; --"), "unknown_ticker", "DROP TABLE"),
    "an object for the sector": (message(sector={}), "wrong_type", "sector"),
    "another company's sector": (message(sector="Coal"), "wrong_sector", "Coal"),
    "seconds since 1970": (message(created_at=1724569485), "wrong_type", "created_at"),
    "a word for a time": (message(created_at="yesterday"), "bad_time", "yesterday"),
    "30 February": (message(created_at="2024-02-30 07:04:45"), "bad_time", "2024-02-30"),
    "25 o'clock": (message(created_at="2024-08-25 25:04:45"), "bad_time", "25:04"),
    "a leap second": (message(created_at="2016-12-31 23:59:60"), "bad_time", "23:59:60"),
    "a date alone": (message(created_at="2024-08-25"), "bad_time", "2024-08-25"),
    "a date in another order": (message(created_at="25/08/2024 07:04:45"), "bad_time", "25/08"),
    "a week date": (message(created_at="2024-W34-7T07:04:45"), "bad_time", "W34"),
    "the year 1": (message(created_at="0001-01-01T00:00:00+14:00"), "out_of_range", "from 1970"),
    "before 1970": (message(created_at="1969-12-31 23:59:59"), "out_of_range", "from 1970"),
    "after 2199": (message(created_at="2200-01-01 00:00:00"), "out_of_range", "to 2199"),
    "the year 10000": (message(created_at="9999-12-31T23:30:00-01:00"), "out_of_range", "to 2199"),
    "a field that nobody knows, nested 1,000 deep": (
        with_value("unheard_of", nested(1_000)),
        "too_much_extra",
        "nested too deep",
    ),
    "a text of 3,000 characters that nobody asked for": (message(unheard_of="x" * 3_000), "too_much_extra", "unheard"),
    "a price of 60 digits": (with_value("price", b"550.5" + b"1" * 60), "out_of_range", "at most 50 digits"),
    "two days ahead of its message": (message(created_at="2024-08-27 07:04:45"), "out_of_range", "over a day older"),
}

#: Odd messages whose tick lands all the same.
ODD_BUT_GOOD: dict[str, bytes] = {
    "a duplicate key, its last value good": message().replace(b'"id": 11', b'"id": "x", "id": 11'),
    "a field that nobody knows": message(unheard_of="IDX"),
    "a field that nobody knows, nested 200 deep": with_value("unheard_of", nested(200)),
    "a price of 30 digits": with_value("price", b"550.500000000000000000000000001"),
    "a market capitalisation of 24 digits": with_value("market_cap", b"123456789012345678901234"),
    "a field that nobody knows, of 30 digits": with_value("unheard_of", b"550.500000000000000000000000001"),
    "spaces and newlines": json.dumps([GOOD], indent=4).encode() + b"\n\n",
    "escapes for plain letters": message().replace(b"TMAS.JK", b"\\u0054MAS.JK"),
    "a price in exponents": message().replace(b"550.5", b"5.505e2"),
    "minus zero for a price": message(price=-0.0),
    "a million spaces less a few": b"[" + b" " * 900_000 + message()[1:],
}


def mutated(random: Random, value: bytes) -> bytes:
    """The value with one to four of its bytes flipped, cut out, doubled or put in."""
    data = bytearray(value)
    for _ in range(random.randint(1, 4)):
        at, length = random.randrange(len(data) + 1), random.randint(1, 8)
        change = random.randrange(4)
        if change == 0 and at < len(data):
            data[at] ^= 1 << random.randrange(8)
        elif change == 1:
            del data[at : at + length]
        elif change == 2:
            data[at:at] = data[at : at + length]
        else:
            data[at:at] = random.choice([b'"', b",", b"[", b"]", b"{", b"}", b"\0", b"\xff", b"9", b"null", b"-"])
    return bytes(data)
