"""The exchange whose ticks land, as the seed `exchange` has it: trading days, sessions, currency and price steps."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from babel.core import get_global
from mysql.connector.abstracts import MySQLConnectionAbstract

from tickledger.errors import ConfigurationError
from tickledger.stores import fetch_rows
from tickledger.tick import LATEST_MS, MAX_AHEAD_MS, MS_A_DAY, datetime_to_ms, day_to_date
from tickledger.trading_days import UTC_DAYS, TradingDays

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MINUTES_A_DAY = 24 * 60
#: ISO 4217 has no currency with more.
MOST_DIGITS = 4
_SESSION = re.compile(
    rf"({'|'.join(WEEKDAYS)})(?:-({'|'.join(WEEKDAYS)}))? ([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)"
)
_PRICE_STEP = re.compile(r"(\d+(?:\.\d+)?) from (\d+(?:\.\d+)?)")


class Session(NamedTuple):
    """A session of one weekday (0 is Monday), in minutes since the trading day began."""

    weekday: int
    opens: int
    closes: int


class PriceStep(NamedTuple):
    """From the price `lowest` on, prices move in steps of `step`."""

    lowest: Decimal
    step: Decimal


@dataclass(frozen=True)
class Exchange:
    """What the seed says of the exchange. `sessions` and `price_steps` are in order, and neither is empty."""

    name: str
    zone: ZoneInfo
    day_begins: time
    sessions: tuple[Session, ...]
    #: The sessions as they are written, in the exchange's own time.
    hours: str
    currency: str
    currency_digits: int
    price_steps: tuple[PriceStep, ...]
    days: TradingDays

    def day_of(self, moment: datetime) -> date:
        """The trading day of a moment that has a time zone."""
        return day_to_date(self.days.day_of(_ms(moment)))

    def begin_of(self, day: date) -> datetime:
        """When a trading day begins, UTC, without a time zone."""
        return datetime(1970, 1, 1) + timedelta(milliseconds=self.days.begin_of((day - date(1970, 1, 1)).days))

    def is_open(self, moment: datetime) -> bool:
        """Whether a session is on. The exchange's holidays are not known."""
        clock, weekday = moment.astimezone(self.zone), self.day_of(moment).weekday()
        minute = (_minutes(clock.time()) - _minutes(self.day_begins)) % MINUTES_A_DAY
        return any(one.weekday == weekday and one.opens <= minute < one.closes for one in self.sessions)

    @property
    def day_zone(self) -> str:
        """Where the trading day is counted, for people."""
        return "UTC" if self.days == UTC_DAYS else self.zone.key.rpartition("/")[2].replace("_", " ")

    @property
    def day_span(self) -> str:
        """From when to when a trading day lasts, for people."""
        begins = "midnight" if self.days == UTC_DAYS else f"{self.day_begins:%H:%M}"
        return f"from {begins} to {begins} {'' if self.days == UTC_DAYS else 'in '}{self.day_zone}"


def _read_name(text: str) -> str:
    if not text:
        raise ValueError("the exchange's name")
    return text


@cache
def _time_zones() -> set[str]:
    # Neither names a place: one is another one on each machine, one has no time at all.
    return available_timezones() - {"localtime", "Factory"}


def _read_time_zone(text: str) -> ZoneInfo:
    if text not in _time_zones():
        raise ValueError("a time zone of the tz database, such as Asia/Jakarta")
    return ZoneInfo(text)


def _read_trading_day_begins(text: str) -> time:
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text):
        raise ValueError("a time of the exchange's clocks, such as 07:00")
    return time.fromisoformat(text)


def _read_sessions(text: str) -> list[tuple[str, list[int], int, int]]:
    """Each session as it is written, its weekdays, and when it opens and closes in minutes since midnight."""
    found = [(part.strip(), _SESSION.fullmatch(part.strip())) for part in text.split(";")]
    sessions = []
    for part, match in found:
        if match is None:
            raise ValueError("sessions such as 'Mon-Thu 09:00-12:00; Fri 09:00-11:30'")
        first, last = (WEEKDAYS.index(match[group] or match[1]) for group in (1, 2))
        hours = [int(number) for number in match.groups()[2:]]
        weekdays = [(first + n) % 7 for n in range((last - first) % 7 + 1)]
        sessions.append((part, weekdays, hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]))
    return sessions


@cache
def _currencies() -> set[str]:
    """Codes of money that somebody pays with today: ISO 4217 also has codes for tests, for none, and for what was."""
    tenders = get_global("territory_currencies").values()
    return {code for some in tenders for code, _, end, is_tender in some if is_tender and end is None}


def _read_currency(text: str) -> str:
    if text not in _currencies():
        raise ValueError("a currency's code by ISO 4217, such as IDR")
    return text


def _read_currency_digits(text: str) -> int:
    if not re.fullmatch(rf"[0-{MOST_DIGITS}]", text):
        raise ValueError(f"a whole number from 0 to {MOST_DIGITS}")
    return int(text)


def _read_price_steps(text: str) -> tuple[PriceStep, ...]:
    found = [_PRICE_STEP.fullmatch(part.strip()) for part in text.split(";")]
    steps = tuple(PriceStep(Decimal(match[2]), Decimal(match[1])) for match in found if match)
    ascending = all(one.lowest < other.lowest for one, other in pairwise(steps))
    if len(steps) < len(found) or not ascending or not all(min(one) > 0 for one in steps):
        raise ValueError("steps above 0 from ever higher prices, such as '1 from 50; 2 from 200'")
    return steps


#: How each column of the seed is read; what is raised says what the column should be.
_READERS: dict[str, Callable[[str], Any]] = {
    "name": _read_name,
    "time_zone": _read_time_zone,
    "trading_day_begins": _read_trading_day_begins,
    "sessions": _read_sessions,
    "currency": _read_currency,
    "currency_digits": _read_currency_digits,
    "price_steps": _read_price_steps,
}
FACTS = tuple(_READERS)


def exchange_of(facts: Mapping[str, str], days: TradingDays | None = None) -> Exchange:
    """The exchange of a row of the seed; `days` are known where the row is one of the table.

    Raises ConfigurationError with the first of :func:`problems_of`.
    """
    # `dbt seed` has looked at what the table holds.
    read, problems = _read(facts, together=days is None)
    if problems:
        raise ConfigurationError(problems[0])
    zone, begins = read["time_zone"], read["trading_day_begins"]
    return Exchange(
        name=read["name"],
        zone=zone,
        day_begins=begins,
        sessions=tuple(sorted(one for _, some in _from_day_begin(read) for one in some)),
        hours=facts["sessions"],
        currency=read["currency"],
        currency_digits=read["currency_digits"],
        price_steps=read["price_steps"],
        days=days or trading_days(zone, begins),
    )


def problems_of(facts: Mapping[str, str]) -> list[str]:
    """What is wrong with a row of the seed, a line each: which column, what it is, what it should be."""
    return _read(facts)[1]


def _read(facts: Mapping[str, str], *, together: bool = True) -> tuple[dict[str, Any], list[str]]:
    read: dict[str, Any] = {}
    should_be: dict[str, str] = {}
    for column, reader in _READERS.items():
        try:
            read[column] = reader(facts.get(column) or "")
        except ValueError as error:
            should_be[column] = str(error)
    if together:
        should_be |= {column: text for column, text in _together(read) if column not in should_be}
    wrong = [column for column in FACTS if column in should_be]
    return read, [f"{column} is {facts.get(column)!r}; it should be {should_be[column]}" for column in wrong]


def _together(read: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What columns that can be read should be beside others."""
    if read.keys() >= {"time_zone", "trading_day_begins"}:
        zone = read["time_zone"]
        if (moment := trading_days(zone, read["trading_day_begins"]).turns_back()) is not None:
            day = day_to_date(moment // MS_A_DAY)
            yield "trading_day_begins", f"a time that the clocks of {zone.key} show once a day, also on {day}"
    if read.keys() >= {"sessions", "trading_day_begins"}:
        yield from _misplaced(read)
    if read.keys() >= {"price_steps", "currency_digits"}:
        digits = max(-int(number.normalize().as_tuple().exponent) for one in read["price_steps"] for number in one)
        if digits > read["currency_digits"]:
            yield "price_steps", f"prices and steps of no more digits than currency_digits, {read['currency_digits']}"


def _from_day_begin(read: Mapping[str, Any]) -> list[tuple[str, list[Session]]]:
    """Each session as it is written, and what it is on its weekdays."""
    begin = _minutes(read["trading_day_begins"])
    return [
        (
            text,
            # One that closes as the next trading day begins has gone on for all of its own.
            [Session(day, (opens - begin) % MINUTES_A_DAY, (closes - begin - 1) % MINUTES_A_DAY + 1) for day in days],
        )
        for text, days, opens, closes in read["sessions"]
    ]


def _misplaced(read: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    sessions = sorted((one, text) for text, some in _from_day_begin(read) for one in some)
    for one, text in sessions:
        if one.opens >= one.closes:
            begins = f"{read['trading_day_begins']:%H:%M}"
            yield "sessions", f"sessions within one trading day, which begins at {begins}: '{text}' is not"
    for (one, text), (other, later) in pairwise(sessions):
        if one.weekday == other.weekday and other.opens < one.closes:
            yield "sessions", f"sessions that do not overlap, as '{text}' and '{later}' do"


@cache
def trading_days(zone: ZoneInfo, begins: time) -> TradingDays:
    """The trading days, from 1970 to 2199, of clocks in a time zone and a time of theirs at which the days begin."""
    starts, offsets = [0], [_offset(zone, 0)]
    # A day at a time: no clock is put forward and back within one.
    for day in range(MS_A_DAY // 1000, LATEST_MS // 1000, MS_A_DAY // 1000):
        if (offset := _offset(zone, day)) != offsets[-1]:
            before, after = day - MS_A_DAY // 1000, day
            while after - before > 1:
                middle = (before + after) // 2
                before, after = (before, middle) if _offset(zone, middle) == offset else (middle, after)
            starts.append(after * 1000)
            offsets.append(offset)
    return TradingDays(tuple(starts), tuple((offset - _minutes(begins) * 60) * 1000 for offset in offsets))


def _offset(zone: ZoneInfo, second: int) -> int:
    offset = datetime.fromtimestamp(second, zone).utcoffset()
    assert offset is not None
    return int(offset.total_seconds())


def _minutes(clock: time) -> int:
    return clock.hour * 60 + clock.minute


def _ms(moment: datetime) -> int:
    return datetime_to_ms(moment.astimezone(UTC).replace(tzinfo=None))


# Table `exchange`: one row per stretch of time in which the exchange's clocks are not put forward or back.

QUERY = f"SELECT {', '.join(FACTS)}, from_at, day_shift_seconds FROM exchange ORDER BY from_at"
DAYS_QUERY = "SELECT from_at, day_shift_seconds FROM exchange ORDER BY from_at"


def read_exchange(connection: MySQLConnectionAbstract) -> Exchange:
    """The exchange as table `exchange` has it now. Raises as :func:`exchange_of_rows` and the driver do."""
    return exchange_of_rows(fetch_rows(connection, QUERY))


def exchange_of_rows(rows: Sequence[tuple[Any, ...]]) -> Exchange:
    """The exchange of what :data:`QUERY` finds. Raises ConfigurationError if that is nothing, or does not hold."""
    if not rows:
        raise ConfigurationError("table 'exchange' is empty; run 'dbt seed' in dbt_project/")
    facts = {name: str(value) for name, value in zip(FACTS, rows[0], strict=False)}
    try:
        return exchange_of(facts, days_of_rows([row[-2:] for row in rows]))
    except ConfigurationError as problem:
        raise ConfigurationError(f"table 'exchange': {problem}; run 'dbt seed' in dbt_project/") from None


def days_of_rows(rows: Sequence[tuple[Any, ...]]) -> TradingDays:
    """The trading days of what :data:`DAYS_QUERY` finds."""
    return TradingDays(
        tuple(datetime_to_ms(from_at) for from_at, _ in rows), tuple(int(shift) * 1000 for _, shift in rows)
    )


def rows_of(exchange: Exchange) -> Iterator[tuple[str, int]]:
    """from_at (UTC) and day_shift_seconds of each row of the table."""
    for start, shift in zip(exchange.days.starts_ms, exchange.days.shifts_ms, strict=True):
        yield f"{datetime(1970, 1, 1) + timedelta(milliseconds=start):%Y-%m-%d %H:%M:%S}", shift // 1000


def same_days(one: TradingDays, other: TradingDays) -> bool:
    """Whether all ticks that may have landed have the same trading days; what lies ahead of them may differ."""
    end = _ms(datetime.now(UTC)) + MAX_AHEAD_MS
    before, after = (
        [stretch for stretch in zip(days.starts_ms, days.shifts_ms, strict=True) if stretch[0] <= end]
        for days in (one, other)
    )
    return before == after


def landed_problems(exchange: Exchange, live: Sequence[tuple[Any, ...]] | None) -> list[str]:
    """Why the exchange cannot take the place of the one that a stream has landed by; empty if it can.

    `live` are the rows of the table: from_at, day_shift_seconds and currency; or None if that ledger is older than the
    table: its days were UTC dates. What lies ahead of all ticks may change, as a new edition of the tz database may
    have it.
    """
    problems = []
    if not same_days(UTC_DAYS if live is None else days_of_rows([row[:2] for row in live]), exchange.days):
        problems.append(
            f"time_zone is {exchange.zone.key!r} and trading_day_begins is '{exchange.day_begins:%H:%M}'; they should"
            f" leave the trading days as they are, by which a stream has landed: {_ANOTHER}"
        )
    if live and (landed := str(live[0][2])) != exchange.currency:
        problems.append(
            f"currency is {exchange.currency!r}; it should be {landed!r}, in which prices have landed: {_ANOTHER}"
        )
    return problems


_ANOTHER = (
    "another exchange takes another MYSQL_DATABASE and CASSANDRA_KEYSPACE, or a start without data"
    " ('make services-clean')"
)
