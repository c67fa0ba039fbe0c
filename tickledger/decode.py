"""From the bytes of a Kafka message to valid ticks and dead letters. Pure functions, no server needed."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from tickledger.tick import (
    EARLIEST_MS,
    MAX_AHEAD_MS,
    TICK_FIELDS,
    WHOLE_MESSAGE,
    BadTime,
    Tick,
    TickField,
    parse_created_at,
    trade_day_of,
)

#: A detail may quote the input; this bounds it.
MAX_QUOTE = 80

KINDS: dict[str, tuple[type, ...]] = {"whole": (int,), "decimal": (int, float), "text": (str,), "time": (str,)}
_KIND_NAMES = {"whole": "a whole number", "decimal": "a number", "text": "a text", "time": "a text"}
_CHECKS = tuple((field.name, KINDS[field.kind], field) for field in TICK_FIELDS)


class DeadLetter(NamedTuple):
    """What could not land. `position` counts from 0 in the message's array; -1 is the message itself.

    `tick` is there where only `profile` stands against it: it would land once the company is seeded.
    """

    position: int
    raw_value: bytes
    reason: str
    detail: str
    tick: Tick | None = None


class Decoded(NamedTuple):
    """One message taken apart; ticks come with their position in the array. read = len(ticks) + len(dead)."""

    ticks: list[tuple[int, Tick]]
    dead: list[DeadLetter]


class RowRuleBroken(Exception):
    """A tick that breaks a row rule: a stable reason, and a detail for people."""

    def __init__(self, reason: str, detail: str, tick: Tick | None = None) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.tick = tick


class Decoder:
    """Decodes messages against the companies of `profile` (ticker → sector).

    Keep one for a micro-batch: it remembers the times it has parsed, which the ticks of one round share.
    """

    def __init__(self, sectors: Mapping[str, str]) -> None:
        self._sectors = sectors
        self._times: dict[str, int] = {}

    def decode(self, value: bytes | None, message_ms: int) -> Decoded:
        """Take one message apart. `message_ms` is Kafka's timestamp of it, in milliseconds since 1970-01-01 UTC.

        Never raises: what cannot be read or breaks a rule comes back as a dead letter with its reason.
        """
        if value is None:
            return _whole(b"", "no_value", "the message has no value")
        try:
            elements = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            return _whole(value, *_why_unreadable(value, error))
        if not isinstance(elements, list):
            return _whole(value, "not_an_array", f"the message is {_json_kind(elements)}; it should be an array")
        if not elements:
            return _whole(value, "empty_array", "the array holds no tick")
        return self._decode_elements(value, elements, message_ms)

    def _decode_elements(self, value: bytes, elements: list[Any], message_ms: int) -> Decoded:
        ticks: list[tuple[int, Tick]] = []
        broken: list[tuple[int, RowRuleBroken]] = []
        for position, element in enumerate(elements):
            try:
                ticks.append((position, self.tick(element, message_ms)))
            except RowRuleBroken as rule:
                broken.append((position, rule))
        if not broken:
            return Decoded(ticks, [])
        raw = element_bytes(value, elements)
        return Decoded(ticks, [DeadLetter(at, raw[at], rule.reason, rule.detail, rule.tick) for at, rule in broken])

    def tick(self, element: Any, message_ms: int) -> Tick:
        """The tick of one element of the array. Raises RowRuleBroken with the first rule that it breaks."""
        if type(element) is not dict:
            raise RowRuleBroken("not_an_object", f"the element is {_json_kind(element)}; it should be an object")
        values: list[Any] = []
        for name, kinds, field in _CHECKS:
            value: Any = element.get(name)
            if type(value) not in kinds:
                raise _wrong_kind(element, field, value)
            if field.kind == "time":
                value = self._created_ms(value, message_ms)
            elif not field.minimum <= (len(value) if field.kind == "text" else value) <= field.maximum:
                raise _out_of_range(field, value)
            values.append(value)
        ticker, created_ms, id_, volume, market_cap, price, sector = values
        tick = Tick(ticker, created_ms, id_, volume, market_cap, price, sector, trade_day_of(created_ms))
        known_sector = self._sectors.get(ticker)
        if known_sector == sector:
            return tick
        if known_sector is None:
            raise RowRuleBroken("unknown_ticker", f"ticker {_quote(ticker)} is not in profile", tick)
        raise RowRuleBroken("wrong_sector", f"sector is {_quote(sector)}; profile says {_quote(known_sector)}", tick)

    def _created_ms(self, text: str, message_ms: int) -> int:
        created_ms = self._times.get(text)
        if created_ms is None:
            try:
                created_ms = parse_created_at(text)
            except BadTime as error:
                raise RowRuleBroken("bad_time", f"created_at is {_quote(text)}; {error}") from None
            self._times[text] = created_ms
        if created_ms < EARLIEST_MS:
            raise RowRuleBroken("out_of_range", f"created_at is {_quote(text)}; it should not lie before 1970")
        # Compared with the message's own time, not the clock's, so that a retry decides alike.
        if created_ms > message_ms + MAX_AHEAD_MS:
            raise RowRuleBroken("out_of_range", f"created_at is {_quote(text)}; its message is over a day older")
        return created_ms


def element_bytes(value: bytes, elements: list[Any]) -> list[bytes]:
    """The exact bytes of each element of a JSON array that orjson could read."""
    text = value.decode()
    decoder = json.JSONDecoder()
    found = []
    try:
        at = text.index("[") + 1
        for _ in elements:
            while text[at] in " \t\n\r,":
                at += 1
            _, end = decoder.raw_decode(text, at)
            found.append(text[at:end].encode())
            at = end
    except (ValueError, RecursionError):
        # The standard library refuses what orjson took (nesting): keep the element, not its spelling.
        return [orjson.dumps(element) for element in elements]
    return found


def _whole(raw: bytes, reason: str, detail: str) -> Decoded:
    return Decoded([], [DeadLetter(WHOLE_MESSAGE, raw, reason, detail)])


def _why_unreadable(value: bytes, error: orjson.JSONDecodeError) -> tuple[str, str]:
    try:
        value.decode()
    except UnicodeDecodeError as bad:
        return "bad_utf8", f"byte {bad.start} is not UTF-8"
    return "not_json", str(error)


def _wrong_kind(element: dict[str, Any], field: TickField, value: Any) -> RowRuleBroken:
    if field.name not in element:
        return RowRuleBroken("missing_field", f"{field.name} is missing")
    if value is None:
        return RowRuleBroken("null_field", f"{field.name} is null")
    found = f"{_json_kind(value)} ({_quote(value)})"
    return RowRuleBroken("wrong_type", f"{field.name} is {found}; it should be {_KIND_NAMES[field.kind]}")


def _out_of_range(field: TickField, value: Any) -> RowRuleBroken:
    measure = " characters long" if field.kind == "text" else ""
    bounds = f"from {field.minimum} to {field.maximum}{measure}"
    return RowRuleBroken("out_of_range", f"{field.name} is {_quote(value)}; it should be {bounds}")


def _json_kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "an array", dict: "an object"}
    return kinds[type(value)]


def _quote(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_QUOTE else text[: MAX_QUOTE - 1] + "…"
