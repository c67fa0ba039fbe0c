"""From an element of a message to the value of one field, as a feed's description says: paths, texts, numbers, times.

Pure functions. What cannot be read as described raises :class:`tickledger.row_rules.RowRuleBroken`.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Context, Decimal
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from tickledger.feed import EPOCHS, ISO, Feed, Source
from tickledger.numbers import FLOAT_DIGITS, exact
from tickledger.row_rules import Broken, RowRuleBroken, json_kind, quote
from tickledger.tick import (
    EARLIEST_MS,
    LATEST_MS,
    MAX_BIGINT,
    MAX_TIME_LENGTH,
    BadTime,
    ms_to_datetime,
    parse_created_at,
)

#: No number is longer as a text.
MOST_NUMBER = 100
#: Times that a reader remembers, which mostly repeat.
REMEMBERED = 65_536
_MAY_BE_PARTED = re.compile(r"[-+]?\d{1,3}(\.\d{3})+")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
#: What strptime does not read.
_BELOW_MICROSECONDS = re.compile(r"(\.\d{6})\d{1,3}(?!\d)")
#: Computes with all digits that a number may have; decimals' own context rounds to 28.
_EXACT = Context(prec=400)

#: A value out of an element and the message around it; None where there is none. Raises RowRuleBroken.
Getter = Callable[[Any, Any], Any]


def value_getter(feed: Feed, name: str, source: Source, kind: str) -> Getter:
    """Gets the field `name`, of a kind of :class:`tickledger.tick.TickField`, from where and as `source` says."""
    get = _raw_getter(feed, source)
    if source.constant is not None or source.digest_of is not None:
        return get
    if kind == "time":
        return partial(_converted, get, _time_of(name, source))
    if kind == "text":
        if not source.values:
            return get
        return partial(_converted, get, partial(_mapped, source.values))
    text = feed.reads_text(source)
    if not text and source.times is None:
        return get
    return partial(_converted, get, partial(_number, name, source, kind, text))


def _raw_getter(feed: Feed, source: Source) -> Getter:
    if source.constant is not None:
        return partial(_constant, source.constant)
    if source.path:
        return path_getter(feed, source.path)
    getters = [path_getter(feed, path) for path in source.paths()]
    make = _digest if source.digest_of else _joined if source.joined else _first
    return partial(make, getters)


def path_getter(feed: Feed, path: str) -> Getter:
    """Gets what stands at a path."""
    if feed.messages == "csv":
        return partial(_member, path)
    names = path.removeprefix("/").split(".")
    if path.startswith("/"):
        return lambda _, around: look_up(names, around)
    if len(names) == 1:
        return partial(_member, names[0])
    return lambda element, _: look_up(names, element)


def _member(name: str, element: Any, _around: Any) -> Any:
    return element.get(name)


def _constant(value: Any, _element: Any, _around: Any) -> Any:
    return value


def _first(getters: Sequence[Getter], element: Any, around: Any) -> Any:
    return next((value for get in getters if (value := get(element, around)) not in (None, "")), None)


def _joined(getters: Sequence[Getter], element: Any, around: Any) -> Any:
    values = [get(element, around) for get in getters]
    if any(value is None for value in values):
        return None
    if odd := next((value for value in values if type(value) in (dict, list)), None):
        raise RowRuleBroken("wrong_type", f"a part of what is joined is {json_kind(odd)}; it should be a text")
    return " ".join(str(value)[:MAX_TIME_LENGTH] for value in values)


def _digest(getters: Sequence[Getter], element: Any, around: Any) -> Any:
    """A whole number of 63 bits that is the same for the same values."""
    values = [get(element, around) for get in getters]
    if all(value is None for value in values):
        return None
    # 100 and 100.0 are one number, however a sender writes it.
    values = [format(_decimal(one).normalize(), "f") if type(one) in (int, float, Decimal) else one for one in values]
    try:
        spelt = orjson.dumps(values, default=str, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        raise RowRuleBroken("wrong_type", "a value that the id is made of is nested too deep") from None
    return int.from_bytes(blake2b(spelt, digest_size=8).digest(), "big") & MAX_BIGINT


def _converted(get: Getter, convert: Callable[[Any], Any], element: Any, around: Any) -> Any:
    value = get(element, around)
    return None if value is None else convert(value)


def look_up(names: Sequence[str], value: Any) -> Any:
    """What stands in objects below one another; None if nothing does."""
    for name in names:
        if type(value) is not dict:
            return None
        value = value.get(name)
    return value


# Texts and numbers


def _text(value: Any) -> Any:
    return value


def _mapped(values: Mapping[str, str], value: Any) -> Any:
    return values.get(value if type(value) is str else str(value), value) if type(value) in (str, int) else value


def _number(name: str, source: Source, kind: str, text: bool, value: Any) -> Any:
    number = value
    if type(value) is str and text:
        if value == "":
            return None
        spelt = value.strip()
        if source.decimal_point == ",":
            # Whoever writes 1,5 writes 1.000 for a thousand.
            spelt = "" if "." in spelt else spelt.replace(",", ".", 1)
        # 1.000 may be a thousand, or one as a feed writes it whose description says `times: 1`.
        parted = kind == "whole" and source.times is None and _MAY_BE_PARTED.fullmatch(spelt)
        if parted or len(spelt) > MOST_NUMBER or not _NUMBER.fullmatch(spelt):
            raise RowRuleBroken("wrong_type", f"{name} is {quote(value)}; it should be a number")
        number = Decimal(spelt) if kind == "whole" or source.times else exact(spelt.lstrip("+"))
    if type(number) not in (int, float, Decimal):
        return value
    if source.times is not None:
        number = _EXACT.multiply(_decimal(number), Decimal(source.times))
    if kind != "whole" or type(number) is not Decimal:
        return _plain(number) if type(number) is Decimal else number
    if number != number.to_integral_value():
        by = f", times {source.times:,}," if source.times else ""
        raise RowRuleBroken("wrong_type", f"{name} is {quote(value)}{by} and should be a whole number")
    return int(number)


def _decimal(number: float | Decimal) -> Decimal:
    return number if type(number) is Decimal else Decimal(repr(number))


def times_shares(price: float | Decimal, shares: int) -> int | float | Decimal:
    """A market capitalisation with all digits that it has."""
    return price * shares if type(price) is int else _plain(_EXACT.multiply(_decimal(price), Decimal(shares)))


def _plain(number: Decimal) -> int | float | Decimal:
    """A decimal as JSON would have been read: an int or a float that has all of its digits, else itself."""
    _, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int) or abs(exponent) > MOST_NUMBER:
        return number
    if len(digits) > FLOAT_DIGITS:
        short = number.normalize(_EXACT)
        return short if len(short.as_tuple().digits) > FLOAT_DIGITS else _plain(short)
    return int(number) if number == number.to_integral_value() else float(number)


# Times


def _time_of(name: str, source: Source) -> Callable[[Any], Any]:
    zone = ZoneInfo(source.zone) if source.zone else None
    if source.time in EPOCHS:
        return partial(_counted, name, source.time)
    if source.time is None or source.time == ISO:
        return _text if zone is None else partial(_remembered, lru_cache(REMEMBERED)(partial(_iso_in, name, zone)))
    return partial(_remembered, lru_cache(REMEMBERED)(partial(_formatted, name, source.time, zone)))


def _remembered(read: Callable[[str], str | Broken], value: Any) -> Any:
    if type(value) is not str:
        return value
    found = read(value[: MAX_TIME_LENGTH + 1])
    if type(found) is Broken:
        raise RowRuleBroken(*found)
    return found


def _counted(name: str, unit: str, value: Any) -> Any:
    """The time that is a number of some unit since 1970, in UTC."""
    number = value
    if type(value) is str and len(value) <= MAX_TIME_LENGTH and _NUMBER.fullmatch(value.strip()):
        number = Decimal(value.strip())
    if type(number) not in (int, float, Decimal):
        raise RowRuleBroken(
            "bad_time", f"{name} is {quote(value)}; it should be a number of {unit.partition('_')[2]} since 1970"
        )
    ms_of_one, parts = EPOCHS[unit]
    bound = LATEST_MS * parts
    # Compared first: of a float like 1e300 nobody writes all digits.
    if not -bound <= number * ms_of_one <= bound + parts:
        raise RowRuleBroken("out_of_range", f"{name} is {quote(value)}; it should lie from 1970 to 2199")
    if type(number) is int:
        return _spelt_time(name, number * ms_of_one // parts, value)
    milliseconds = _EXACT.divide(_EXACT.multiply(_decimal(number), Decimal(ms_of_one)), Decimal(parts))
    return _spelt_time(name, math.floor(milliseconds), value)


def _spelt_time(name: str, milliseconds: int, value: Any) -> str:
    if not EARLIEST_MS <= milliseconds <= LATEST_MS:
        raise RowRuleBroken("out_of_range", f"{name} is {quote(value)}; it should lie from 1970 to 2199")
    return ms_to_datetime(milliseconds).isoformat(" ", "milliseconds")


def _iso_in(name: str, zone: ZoneInfo, text: str) -> str | Broken:
    try:
        parse_created_at(text)
        moment = datetime.fromisoformat(text)
        return text if moment.tzinfo is not None else _utc(moment, zone)
    except (BadTime, ValueError, OverflowError) as error:
        return Broken("bad_time", f"{name} is {quote(text)}; {error}")


def _formatted(name: str, form: str, zone: ZoneInfo | None, text: str) -> str | Broken:
    try:
        moment = datetime.strptime(_BELOW_MICROSECONDS.sub(r"\1", text), form)  # noqa: DTZ007  # it may have a zone
        if moment.tzinfo is not None:
            return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "milliseconds")
        return moment.isoformat(" ", "milliseconds") if zone is None else _utc(moment, zone)
    except (ValueError, OverflowError) as error:
        return Broken("bad_time", f"{name} is {quote(text)}; {error}"[:300])


def _utc(moment: datetime, zone: ZoneInfo) -> str:
    """A local time in UTC. Raises ValueError where the clocks showed it twice, or never."""
    first, second = (moment.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    if first.utcoffset() != second.utcoffset():
        times = "twice" if first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == moment else "never"
        raise ValueError(f"the clocks of {zone.key} showed that time {times}")
    return first.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "milliseconds")
