"""Many messages at once become the very ticks and dead letters that they become one by one."""

import json
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.decode_columns import ColumnDecoder
from streaming.tick_columns import whole
from tests.support.poison import BAD_TICKS, GOOD, ODD_BUT_GOOD, UNREADABLE, message, mutated
from tests.support.shapes import MESSAGE_TIMES, SPELT_TIMES, messages
from tickledger.decode import DeadLetter, Decoder
from tickledger.tick import MAX_AHEAD_MS, Tick, parse_created_at

SECTORS = {"TMAS.JK": "Logistics & Deliveries", "DWGL.JK": "Coal"}
MESSAGE_MS = parse_created_at(GOOD["created_at"]) + 1000
OTHER = message(ticker="DWGL.JK", sector="Coal", price=600, market_cap=2**63)
POISON: list[bytes | None] = [
    *(value for value, _ in UNREADABLE.values()),
    *(value for value, *_ in BAD_TICKS.values()),
    *ODD_BUT_GOOD.values(),
]

Found = tuple[list[tuple[Tick, int]], dict[tuple[int, int], DeadLetter]]


def at_once(values: Sequence[bytes | None], times_ms: Sequence[int] | None = None) -> Found:
    """Ticks with their offsets, and dead letters, of messages from offset 7 on."""
    times = whole(times_ms or [MESSAGE_MS] * len(values))
    decoded = ColumnDecoder(SECTORS).decode(whole(range(7, 7 + len(values))), times, values)
    return list(zip(decoded.ticks.ticks(), decoded.ticks.offset.tolist(), strict=True)), decoded.dead


def one_by_one(values: Sequence[bytes | None], times_ms: Sequence[int] | None = None) -> Found:
    """The same of each message alone."""
    ticks: list[tuple[Tick, int]] = []
    dead: dict[tuple[int, int], DeadLetter] = {}
    for number, value in enumerate(values):
        decoded = Decoder(SECTORS).decode(value, times_ms[number] if times_ms else MESSAGE_MS)
        ticks += [(tick, 7 + number) for _, tick in decoded.ticks]
        dead |= {(7 + number, letter.position): letter for letter in decoded.dead}
    return ticks, dead


def test_good_messages_become_ticks_in_the_order_of_their_offsets() -> None:
    ticks, dead = at_once([message(), OTHER, message(id=12)])

    assert [(tick.ticker, tick.id, tick.price, offset) for tick, offset in ticks] == [
        ("TMAS.JK", 11, 550.5, 7), ("DWGL.JK", 11, 600, 8), ("TMAS.JK", 12, 550.5, 9),
    ]  # fmt: skip
    assert (ticks, dead) == one_by_one([message(), OTHER, message(id=12)]) == (ticks, {})
    assert [type(tick.price) for tick, _ in ticks] == [float, int, float], "no number becomes another kind"


@pytest.mark.parametrize("value", POISON)
def test_a_message_between_good_ones_becomes_what_it_becomes_alone(value: bytes | None) -> None:
    both = value.strip()[:-1] + b", " + message()[1:] if value and value.strip()[-1:] == b"]" else value
    values = [message(), value, OTHER, both, OTHER]

    assert at_once(values) == one_by_one(values)


def test_all_that_nobody_should_send_at_once_becomes_what_it_becomes_alone() -> None:
    ticks, dead = at_once(POISON)

    assert (ticks, dead) == one_by_one(POISON)
    assert ticks
    assert dead


def test_a_tick_too_far_ahead_of_its_own_message_is_refused() -> None:
    times = [MESSAGE_MS, MESSAGE_MS - MAX_AHEAD_MS - 1001, MESSAGE_MS - MAX_AHEAD_MS]

    ticks, dead = at_once([message()] * 3, times)

    assert [offset for _, offset in ticks] == [7, 9]
    assert list(dead) == [(8, 0)]
    assert (ticks, dead) == one_by_one([message()] * 3, times)


def test_no_message_is_no_tick() -> None:
    assert at_once([]) == ([], {})


@given(st.lists(st.integers(0, 2**32), min_size=1, max_size=6))
@settings(max_examples=300)
def test_mutations_at_once_become_what_they_become_alone(seeds: list[int]) -> None:
    good = json.dumps([GOOD, GOOD | {"id": 12}, GOOD | {"id": 13}]).encode()
    values: list[Any] = [mutated(Random(seed), good) if seed % 3 else good for seed in seeds]

    assert at_once(values) == one_by_one(values)


@given(st.lists(st.sampled_from([message(), OTHER, *POISON]), max_size=8))
@settings(max_examples=40, deadline=None)
def test_any_order_of_messages_becomes_what_it_becomes_alone(values: list[bytes | None]) -> None:
    assert at_once(values) == one_by_one(values)


@given(st.lists(st.tuples(messages(), MESSAGE_TIMES), min_size=1, max_size=3))
@settings(max_examples=150, deadline=None)
def test_any_shapes_at_once_become_what_they_become_alone(sent: list[tuple[bytes, int]]) -> None:
    values, times_ms = [value for value, _ in sent], [time_ms for _, time_ms in sent]
    assert at_once(values, times_ms) == one_by_one(values, times_ms)


@given(st.lists(st.tuples(SPELT_TIMES, MESSAGE_TIMES), min_size=1, max_size=5))
def test_any_times_at_once_become_what_they_become_alone(sent: list[tuple[str, int]]) -> None:
    values, times_ms = [message(created_at=text) for text, _ in sent], [time_ms for _, time_ms in sent]
    assert at_once(values, times_ms) == one_by_one(values, times_ms)
