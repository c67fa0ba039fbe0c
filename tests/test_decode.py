"""Messages into ticks and dead letters: every kind of bad input, its reason, and its bytes."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.decode import Decoder, element_bytes
from streaming.tick import WHOLE_MESSAGE, Tick, day_to_date, parse_created_at, trade_day_of

SECTORS = {"TMAS.JK": "Logistics & Deliveries", "DWGL.JK": "Coal"}
GOOD: dict[str, Any] = {
    "id": 11,
    "created_at": "2024-08-25 07:04:45.250",
    "volume": 275674,
    "market_cap": 4932000,
    "ticker": "TMAS.JK",
    "price": 550.5,
    "sector": "Logistics & Deliveries",
}
CREATED_MS = parse_created_at(GOOD["created_at"])
MESSAGE_MS = CREATED_MS + 1000


def message(**changes: Any) -> bytes:
    return json.dumps([GOOD | changes]).encode()


def without(name: str) -> bytes:
    return json.dumps([{key: value for key, value in GOOD.items() if key != name}]).encode()


def test_a_good_message_becomes_ticks_in_the_order_of_its_array() -> None:
    other = GOOD | {"ticker": "DWGL.JK", "sector": "Coal", "price": 600}

    decoded = Decoder(SECTORS).decode(json.dumps([GOOD, other]).encode(), MESSAGE_MS)

    day = trade_day_of(CREATED_MS)
    assert decoded.dead == []
    assert decoded.ticks == [
        (0, Tick("TMAS.JK", CREATED_MS, 11, 275674, 4932000, 550.5, "Logistics & Deliveries", day)),
        (1, Tick("DWGL.JK", CREATED_MS, 11, 275674, 4932000, 600, "Coal", day)),
    ]
    assert day_to_date(day).isoformat() == "2024-08-25"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no_value"),
        (b"", "not_json"),
        (b"hello", "not_json"),
        (message()[:-1], "not_json"),
        (message() + b"]", "not_json"),
        (message().replace(b"550.5", b"NaN"), "not_json"),
        (message().replace(b"550.5", b"1e999"), "not_json"),
        (b"\x1f\x8b\x08\x00garbage", "bad_utf8"),
        (message().replace(b"Logistics", b"\xff"), "bad_utf8"),
        (message().decode().encode("utf-16"), "bad_utf8"),
        (json.dumps(GOOD).encode(), "not_an_array"),
        (b"null", "not_an_array"),
        (b'"[]"', "not_an_array"),
        (b"42", "not_an_array"),
        (b"[]", "empty_array"),
        (b" [ ] ", "empty_array"),
    ],
)
def test_an_unreadable_message_is_one_dead_letter_with_its_bytes(value: bytes | None, reason: str) -> None:
    decoded = Decoder(SECTORS).decode(value, MESSAGE_MS)

    assert decoded.ticks == []
    (dead,) = decoded.dead
    assert (dead.position, dead.reason, dead.raw_value) == (WHOLE_MESSAGE, reason, value or b"")
    assert dead.detail


@pytest.mark.parametrize(
    ("value", "reason", "named"),
    [
        (b"[1]", "not_an_object", "a number"),
        (b"[null]", "not_an_object", "null"),
        (b"[[]]", "not_an_object", "an array"),
        (b'["tick"]', "not_an_object", "a text"),
        (b"[{}]", "missing_field", "ticker"),
        *[(without(name), "missing_field", name) for name in GOOD],
        *[(message(**{name: None}), "null_field", name) for name in GOOD],
        (message(id="11"), "wrong_type", "id"),
        (message(id=True), "wrong_type", "id"),
        (message(id=11.0), "wrong_type", "id"),
        (message(id=-1), "out_of_range", "id"),
        (message(id=2**63), "out_of_range", "id"),
        (message().replace(b'"id": 11', b'"id": 123456789012345678901234567890'), "wrong_type", "id"),
        (message(volume="100"), "wrong_type", "volume"),
        (message(volume=1.5), "wrong_type", "volume"),
        (message(volume=-5), "out_of_range", "volume is -5"),
        (message(volume=10**12 + 1), "out_of_range", "volume"),
        (message(price="550"), "wrong_type", "price"),
        (message(price=True), "wrong_type", "price"),
        (message(price=-0.5), "out_of_range", "price"),
        (message(price=1e300), "out_of_range", "price"),
        (message(market_cap=[]), "wrong_type", "market_cap"),
        (message(market_cap=-1), "out_of_range", "market_cap"),
        (message(ticker=7), "wrong_type", "ticker"),
        (message(ticker=""), "out_of_range", "ticker"),
        (message(ticker="X" * 33), "out_of_range", "ticker"),
        (message(ticker="NOPE.JK"), "unknown_ticker", "NOPE.JK"),
        (message(ticker="tmas.jk"), "unknown_ticker", "tmas.jk"),
        (message(ticker="TMAS.JK "), "unknown_ticker", "TMAS.JK "),
        (message(sector={}), "wrong_type", "sector"),
        (message(sector="Coal"), "wrong_sector", "Coal"),
        (message(created_at=1724569485), "wrong_type", "created_at"),
        (message(created_at="yesterday"), "bad_time", "yesterday"),
        (message(created_at="2024-02-30 07:04:45"), "bad_time", "2024-02-30"),
        (message(created_at="2024-08-25 25:04:45"), "bad_time", "25:04"),
        (message(created_at="2024-08-25"), "bad_time", "2024-08-25"),
        (message(created_at="25/08/2024 07:04:45"), "bad_time", "25/08"),
        (message(created_at="2024-W34-7T07:04:45"), "bad_time", "W34"),
        (message(created_at="0001-01-01T00:00:00+14:00"), "out_of_range", "before 1970"),
        (message(created_at="1969-12-31 23:59:59"), "out_of_range", "before 1970"),
        (message(created_at="2024-08-27 07:04:45"), "out_of_range", "message is over a day older"),
    ],
)
def test_a_bad_tick_is_a_dead_letter_and_its_good_neighbour_lands(value: bytes, reason: str, named: str) -> None:
    good = json.dumps(GOOD).encode()
    both = b"[" + good + b", " + value.strip()[1:-1] + b"]"

    decoded = Decoder(SECTORS).decode(both, MESSAGE_MS)

    assert [position for position, _ in decoded.ticks] == [0]
    (dead,) = decoded.dead
    assert (dead.position, dead.reason) == (1, reason)
    assert named in dead.detail
    assert dead.raw_value == value.strip()[1:-1], "the dead letter holds the element's own bytes"


@pytest.mark.parametrize("reason", ["unknown_ticker", "wrong_sector"])
def test_only_a_tick_that_profile_alone_refuses_comes_with_its_dead_letter(reason: str) -> None:
    changes = {"unknown_ticker": {"ticker": "NEW.JK"}, "wrong_sector": {"sector": "Coal"}}

    (dead,) = Decoder(SECTORS).decode(message(**changes[reason]), MESSAGE_MS).dead
    (broken,) = Decoder(SECTORS).decode(message(volume=-1), MESSAGE_MS).dead

    assert dead.reason == reason
    assert dead.tick is not None
    assert dead.tick.id == GOOD["id"]
    assert broken.tick is None


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("2024-08-25 07:04:45", "2024-08-25 07:04:45.000"),
        ("2024-08-25T07:04:45Z", "2024-08-25 07:04:45"),
        ("2024-08-25T14:04:45+07:00", "2024-08-25 07:04:45"),
        ("2024-08-25 07:04:45.123999", "2024-08-25 07:04:45.123"),
    ],
)
def test_times_without_an_offset_are_utc_and_end_at_milliseconds(text: str, same_as: str) -> None:
    assert parse_created_at(text) == parse_created_at(same_as)


def test_unknown_fields_are_left_aside() -> None:
    assert len(Decoder(SECTORS).decode(message(venue="IDX"), MESSAGE_MS).ticks) == 1


@given(st.binary(max_size=200))
def test_any_bytes_are_accounted_for(value: bytes) -> None:
    decoded = Decoder(SECTORS).decode(value, MESSAGE_MS)

    assert len(decoded.ticks) + len(decoded.dead) >= 1


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)


@given(st.lists(json_values, min_size=1, max_size=6), st.sampled_from([None, 2]))
def test_every_element_keeps_its_own_bytes(elements: list[Any], indent: int | None) -> None:
    value = json.dumps(elements, indent=indent, ensure_ascii=False).encode("utf-8", "replace")
    read = orjson.loads(value)

    pieces = element_bytes(value, read)

    assert [orjson.loads(piece) for piece in pieces] == read


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(GOOD, json_values)))
def test_any_mutation_of_a_good_tick_is_accounted_for(changes: dict[str, Any]) -> None:
    value = json.dumps([GOOD | changes]).encode("utf-8", "replace")

    decoded = Decoder(SECTORS).decode(value, MESSAGE_MS)

    assert len(decoded.ticks) + len(decoded.dead) == 1
