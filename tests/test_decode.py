"""Messages into ticks and dead letters: every kind of bad input, its reason, and its bytes."""

import json
from datetime import datetime
from decimal import Decimal
from random import Random
from typing import Any

import orjson
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.poison import BAD_TICKS, GOOD, ODD_BUT_GOOD, UNREADABLE, message, mutated
from tests.support.shapes import MESSAGE_TIMES, SPELT_TIMES, messages
from tickledger.decode import BYTES_A_DEAD_LETTER, MOST_DEAD_LETTERS, Decoder
from tickledger.elements import element_bytes
from tickledger.tick import (
    WHOLE_MESSAGE,
    Tick,
    datetime_to_ms,
    day_to_date,
    ms_to_datetime,
    parse_created_at,
)
from tickledger.trading_days import UTC_DAYS

SECTORS = {"TMAS.JK": "Logistics & Deliveries", "DWGL.JK": "Coal"}
CREATED_MS = parse_created_at(GOOD["created_at"])
MESSAGE_MS = CREATED_MS + 1000
REASONS = {reason for _, reason in UNREADABLE.values()} | {reason for _, reason, _ in BAD_TICKS.values()}


def test_a_good_message_becomes_ticks_in_the_order_of_its_array() -> None:
    other = GOOD | {"ticker": "DWGL.JK", "sector": "Coal", "price": 600}

    decoded = Decoder(SECTORS).decode(json.dumps([GOOD, other]).encode(), MESSAGE_MS)

    day = UTC_DAYS.day_of(CREATED_MS)
    assert decoded.dead == []
    assert decoded.ticks == [
        (0, Tick("TMAS.JK", CREATED_MS, 11, 275674, 4932000, 550.5, "Logistics & Deliveries", day)),
        (1, Tick("DWGL.JK", CREATED_MS, 11, 275674, 4932000, 600, "Coal", day)),
    ]
    assert day_to_date(day).isoformat() == "2024-08-25"


@pytest.mark.parametrize(("value", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_message_is_one_dead_letter_with_its_bytes(value: bytes | None, reason: str) -> None:
    decoded = Decoder(SECTORS).decode(value, MESSAGE_MS)

    assert decoded.ticks == []
    (dead,) = decoded.dead
    assert (dead.position, dead.reason, dead.raw_value) == (WHOLE_MESSAGE, reason, value or b"")
    assert dead.detail


@pytest.mark.parametrize(("value", "reason", "named"), BAD_TICKS.values(), ids=BAD_TICKS)
def test_a_bad_tick_is_a_dead_letter_and_its_good_neighbour_lands(value: bytes, reason: str, named: str) -> None:
    good = json.dumps(GOOD).encode()
    both = b"[" + good + b", " + value.strip()[1:-1] + b"]"

    decoded = Decoder(SECTORS).decode(both, MESSAGE_MS)

    assert [position for position, _ in decoded.ticks] == [0]
    (dead,) = decoded.dead
    assert (dead.position, dead.reason) == (1, reason)
    assert named in dead.detail
    assert dead.raw_value == value.strip()[1:-1], "the dead letter holds the element's own bytes"


def test_past_a_number_of_broken_elements_the_message_is_kept_whole_and_its_good_ones_land() -> None:
    good, unknown = json.dumps(GOOD), json.dumps(GOOD | {"ticker": "NEW.JK"})
    some = f"[{', '.join([good] + [unknown] * MOST_DEAD_LETTERS + [good])}]".encode()
    many = f"[{', '.join([good] + [unknown] * (MOST_DEAD_LETTERS + 1) + [good])}]".encode()

    few, whole = Decoder(SECTORS).decode(some, MESSAGE_MS), Decoder(SECTORS).decode(many, MESSAGE_MS)

    assert [position for position, _ in few.ticks] == [0, MOST_DEAD_LETTERS + 1]
    assert [dead.position for dead in few.dead] == list(range(1, MOST_DEAD_LETTERS + 1))
    assert [position for position, _ in whole.ticks] == [0, MOST_DEAD_LETTERS + 2]
    (dead,) = whole.dead
    assert (dead.position, dead.reason, dead.raw_value) == (WHOLE_MESSAGE, "too_many_broken", many)
    assert dead.detail.startswith("101 of 103 elements cannot land (101 unknown_ticker); element 1: ticker 'NEW.JK'")
    assert len(dead.ticks) == MOST_DEAD_LETTERS + 1, "all of them would land once the company is seeded"


@pytest.mark.parametrize("reason", ["unknown_ticker", "wrong_sector"])
def test_only_a_tick_that_profile_alone_refuses_comes_with_its_dead_letter(reason: str) -> None:
    changes = {"unknown_ticker": {"ticker": "NEW.JK"}, "wrong_sector": {"sector": "Coal"}}

    (dead,) = Decoder(SECTORS).decode(message(**changes[reason]), MESSAGE_MS).dead
    (broken,) = Decoder(SECTORS).decode(message(volume=-1), MESSAGE_MS).dead

    assert dead.reason == reason
    assert [tick.id for tick in dead.ticks] == [GOOD["id"]]
    assert broken.ticks == ()


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


@pytest.mark.parametrize("value", ODD_BUT_GOOD.values(), ids=ODD_BUT_GOOD)
def test_an_odd_spelling_of_a_good_tick_lands(value: bytes) -> None:
    decoded = Decoder(SECTORS).decode(value, MESSAGE_MS)

    assert (len(decoded.ticks), decoded.dead) == (1, [])


@given(st.integers(0, 2**32))
@settings(max_examples=500)
def test_any_mutation_of_a_good_message_is_accounted_for(seed: int) -> None:
    value = mutated(Random(seed), json.dumps([GOOD, GOOD | {"id": 12}, GOOD | {"id": 13}]).encode())

    decoded = Decoder(SECTORS).decode(value, MESSAGE_MS)

    assert len(decoded.ticks) + len(decoded.dead) >= 1
    for dead in decoded.dead:
        assert dead.raw_value == value if dead.position == WHOLE_MESSAGE else dead.raw_value in value
        assert dead.reason in REASONS


@given(SPELT_TIMES, MESSAGE_TIMES)
@settings(max_examples=500)
def test_whenever_a_message_was_sent_a_tick_lands_only_at_a_time_that_all_can_hold(text: str, message_ms: int) -> None:
    decoded = Decoder(SECTORS).decode(message(created_at=text), message_ms)

    assert [dead.reason for dead in decoded.dead] in ([], ["out_of_range"])
    for _, tick in decoded.ticks:
        assert 1970 <= day_to_date(tick.trade_day).year <= 2199
        assert pd.Timestamp(tick.created_ms, unit="ms").as_unit("ns").value == tick.created_ms * 10**6


@given(st.integers(0, datetime_to_ms(datetime(9999, 12, 31))))
def test_a_millisecond_comes_back_from_a_datetime(created_ms: int) -> None:
    assert datetime_to_ms(ms_to_datetime(created_ms)) == created_ms


@given(messages(), MESSAGE_TIMES)
@settings(max_examples=600, deadline=None)
def test_any_shape_is_accounted_for_within_the_bounds_of_its_size(value: bytes, message_ms: int) -> None:
    decoded = Decoder(SECTORS).decode(value, message_ms)

    assert len(decoded.ticks) + len(decoded.dead) >= 1
    assert len(decoded.ticks) <= len(value) // BYTES_A_DEAD_LETTER
    assert len(decoded.dead) <= min(1 + len(value) // BYTES_A_DEAD_LETTER, MOST_DEAD_LETTERS)
    assert sum(len(dead.raw_value) for dead in decoded.dead) <= len(value)
    for dead in decoded.dead:
        assert dead.raw_value == value if dead.position == WHOLE_MESSAGE else dead.raw_value in value
        assert dead.reason in REASONS
        assert 0 < len(dead.detail) < 400


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

    pieces = list(element_bytes(value))

    assert [orjson.loads(piece) for piece in pieces] == read


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(GOOD, json_values)), MESSAGE_TIMES)
def test_any_mutation_of_a_good_tick_is_accounted_for(changes: dict[str, Any], message_ms: int) -> None:
    value = json.dumps([GOOD | changes]).encode("utf-8", "replace")

    decoded = Decoder(SECTORS).decode(value, message_ms)

    assert len(decoded.ticks) + len(decoded.dead) == 1


def test_a_number_keeps_the_digits_that_a_float_would_cut() -> None:
    price, market_cap = "550.123456789012345678", "123456789012345678901234"
    value = message(price="?p", market_cap="?m").replace(b'"?p"', price.encode()).replace(b'"?m"', market_cap.encode())

    ((_, tick),) = Decoder(SECTORS).decode(value, MESSAGE_MS).ticks

    assert (tick.price, tick.market_cap) == (Decimal(price), Decimal(market_cap))
    assert type(tick.price) is Decimal


def test_fields_that_nobody_described_are_kept_in_one_text() -> None:
    value = message(desk=7, bid={"b": 1, "a": None}).replace(b": 7", b": 7.0000000000000000001")

    ((_, tick),) = Decoder(SECTORS).decode(value, MESSAGE_MS).ticks

    assert tick.extra == '{"bid":{"a":null,"b":1},"desk":7.0000000000000000001}'
    assert Decoder(SECTORS).decode(message(revision=None), MESSAGE_MS).ticks[0][1].extra is None


def test_a_correction_and_a_cancellation_keep_theirs_too() -> None:
    key = {name: GOOD[name] for name in ("ticker", "created_at", "id")}
    elements = [GOOD | {"revision": "correction", "side": "B"}, key | {"revision": "cancellation", "side": "S"}]

    decoded = Decoder(SECTORS).decode(json.dumps(elements).encode(), MESSAGE_MS)

    assert [one.extra for _, one in decoded.revisions] == ['{"side":"B"}', '{"side":"S"}']
