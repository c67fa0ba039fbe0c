"""Trading days and sessions of exchanges: pure, so no server is needed."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from tests.support.exchanges import JAKARTA, NEW_YORK, NEW_YORK_FACTS, SEEDED
from tickledger.errors import ConfigurationError
from tickledger.exchange import Exchange, days_of_rows, exchange_of, landed_problems, problems_of, rows_of, trading_days
from tickledger.tick import day_to_date
from tickledger.trading_days import UTC_DAYS, TradingDays


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_a_trading_day_of_the_seed_is_a_utc_date() -> None:
    assert JAKARTA.days == UTC_DAYS
    for text in ("1970-01-01 00:00", "2026-03-01 23:59:59.999", "2026-03-02 00:00", "2199-12-31 23:59:59.999"):
        assert str(day_to_date(JAKARTA.days.day_of(ms(text)))) == text[:10]
    assert JAKARTA.days.begin_of(0) == 0


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        # In winter New York is five hours behind UTC: the evening session ends at 01:00 UTC.
        ("2026-03-07 00:59:59.999", "2026-03-06"),
        ("2026-03-07 04:59:59.999", "2026-03-06"),
        ("2026-03-07 05:00", "2026-03-07"),
        # Summer time begins on Sunday, 2026-03-08, at 07:00 UTC: that day has 23 hours.
        ("2026-03-08 04:59:59.999", "2026-03-07"),
        ("2026-03-08 05:00", "2026-03-08"),
        ("2026-03-09 03:59:59.999", "2026-03-08"),
        ("2026-03-09 04:00", "2026-03-09"),
        # It ends on Sunday, 2026-11-01, which has 25.
        ("2026-11-01 03:59:59.999", "2026-10-31"),
        ("2026-11-01 04:00", "2026-11-01"),
        ("2026-11-02 04:59:59.999", "2026-11-01"),
        ("2026-11-02 05:00", "2026-11-02"),
    ],
)
def test_a_trading_day_follows_the_exchanges_clocks(moment: str, day: str) -> None:
    assert str(day_to_date(NEW_YORK.days.day_of(ms(moment)))) == day
    assert str(NEW_YORK.day_of(datetime.fromisoformat(moment).replace(tzinfo=UTC))) == day


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/Sao_Paulo"])
@pytest.mark.parametrize("begins", [time(0), time(7), time(17, 30)])
def test_days_are_those_of_the_tz_database_and_begin_where_the_one_before_ends(zone: str, begins: time) -> None:
    days = trading_days(ZoneInfo(zone), begins)
    moments = np.arange(ms("2015-01-01 00:00"), ms("2027-01-01 00:00"), 7 * 3_600_000 + 1)
    of_many = days.days_of(moments)
    assert of_many.tolist() == [days.day_of(moment) for moment in moments.tolist()]
    for moment, day in zip(moments.tolist(), of_many.tolist(), strict=True):
        clock = datetime.fromtimestamp(moment / 1000, ZoneInfo(zone)).replace(tzinfo=None)
        assert day_to_date(day) == (clock - timedelta(hours=begins.hour, minutes=begins.minute)).date()
    for day in range(int(of_many[0]), int(of_many[-1]) + 1):
        assert [days.day_of(days.begin_of(day) + step) for step in (-1, 0)] == [day - 1, day]


def test_the_table_says_all_of_the_days() -> None:
    rows = [(datetime.fromisoformat(from_at), shift) for from_at, shift in rows_of(NEW_YORK)]
    assert rows[0] == (datetime(1970, 1, 1), -5 * 3600)
    assert (datetime(2026, 3, 8, 7), -4 * 3600) in rows
    assert days_of_rows(rows) == NEW_YORK.days
    assert list(rows_of(JAKARTA)) == [("1970-01-01 00:00:00", 0)]


@pytest.mark.parametrize(
    ("exchange", "moment", "is_open"),
    [
        (JAKARTA, "2026-03-02 01:59:59", False),
        (JAKARTA, "2026-03-02 02:00", True),
        (JAKARTA, "2026-03-02 08:59:59", True),
        (JAKARTA, "2026-03-02 09:00", False),
        (JAKARTA, "2026-03-01 05:00", False),
        # Friday's evening session, over midnight UTC, in winter and in summer.
        (NEW_YORK, "2026-03-07 00:59:59", True),
        (NEW_YORK, "2026-03-07 01:00", False),
        (NEW_YORK, "2026-03-14 00:30", False),
        (NEW_YORK, "2026-03-13 23:59:59", True),
        # The first session, before and after the change to summer time.
        (NEW_YORK, "2026-03-06 08:30", False),
        (NEW_YORK, "2026-03-09 08:30", True),
    ],
)
def test_sessions_are_on_by_the_exchanges_clocks(exchange: Exchange, moment: str, is_open: bool) -> None:
    assert exchange.is_open(datetime.fromisoformat(moment).replace(tzinfo=UTC)) == is_open


def test_a_session_may_cross_midnight_and_end_with_the_trading_day() -> None:
    night = exchange_of(SEEDED | {"trading_day_begins": "08:00", "sessions": "Fri 20:00-02:00; Fri 06:00-08:00"})
    saturday = datetime(2026, 3, 7, tzinfo=ZoneInfo("Asia/Jakarta"))
    clocks = (timedelta(hours=1, minutes=59), timedelta(hours=2), timedelta(hours=7, minutes=59), timedelta(hours=8))
    assert [night.is_open(saturday + clock) for clock in clocks] == [True, False, True, False]
    assert night.day_of(saturday + clocks[0]) == date(2026, 3, 6)


BAD = {
    "no time zone": ({"time_zone": "Asia/Jakata"}, "time_zone is 'Asia/Jakata'; it should be a time zone of the tz"),
    "a path for a time zone": ({"time_zone": "../UTC"}, "time_zone is '../UTC'; it should be a time zone of the tz"),
    "no currency": ({"currency": "IDX"}, "currency is 'IDX'; it should be a currency's code by ISO 4217, such as IDR"),
    "no digits": ({"currency_digits": "two"}, "currency_digits is 'two'; it should be a whole number from 0 to 4"),
    "no time": ({"trading_day_begins": "24:00"}, "trading_day_begins is '24:00'; it should be a time of the exchange"),
    "an hour that comes twice": (
        {"time_zone": "America/New_York", "trading_day_begins": "01:30"},
        "trading_day_begins is '01:30'; it should be a time that the clocks of America/New_York show once a day",
    ),
    "no session": ({"sessions": ""}, "sessions is ''; it should be sessions such as"),
    "an hour too late": ({"sessions": "Mon 09:00-24:00"}, "it should be sessions such as 'Mon-Thu 09:00-12:00;"),
    "sessions that overlap": (
        {"sessions": "Mon-Fri 09:00-12:00; Fri 11:00-16:00"},
        "it should be sessions that do not overlap, as 'Mon-Fri 09:00-12:00' and 'Fri 11:00-16:00' do",
    ),
    "a session of two trading days": (
        {"sessions": "Mon 06:00-08:00"},
        "it should be sessions within one trading day, which begins at 07:00: 'Mon 06:00-08:00' is not",
    ),
    "no step": ({"price_steps": "1 from 50; from 200"}, "it should be steps above 0 from ever higher prices, such as"),
    "steps out of order": ({"price_steps": "1 from 50; 2 from 50"}, "it should be steps above 0 from ever higher"),
    "a step of nothing": ({"price_steps": "0 from 50"}, "it should be steps above 0 from ever higher prices"),
    "steps below the smallest unit": (
        {"price_steps": "0.001 from 1"},
        "price_steps is '0.001 from 1'; it should be prices and steps of no more digits than currency_digits, 2",
    ),
    "no name": ({"name": ""}, "name is ''; it should be the exchange's name"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_one_line(name: str) -> None:
    change, line = BAD[name]
    (problem,) = problems_of(SEEDED | change)
    assert line in problem
    assert "\n" not in problem
    with pytest.raises(ConfigurationError, match="it should be"):
        exchange_of(SEEDED | change)


def test_all_that_is_wrong_is_told() -> None:
    problems = problems_of(SEEDED | {"time_zone": "Mars", "currency": "XYZ", "sessions": "always"})
    assert [problem.split()[0] for problem in problems] == ["time_zone", "sessions", "currency"]
    assert problems_of(SEEDED) == problems_of(NEW_YORK_FACTS) == []


def test_days_that_ticks_have_landed_by_stay() -> None:
    assert landed_problems(JAKARTA, None) == landed_problems(JAKARTA, [(datetime(1970, 1, 1), 0, "IDR")]) == []
    # Another name and other sessions change no day.
    assert landed_problems(exchange_of(SEEDED | {"name": "x", "sessions": "Sat 10:00-11:00"}), None) == []
    (line,) = landed_problems(NEW_YORK, None)
    assert line.startswith("time_zone is 'America/New_York' and trading_day_begins is '00:00'; they should leave the")
    rows = [(datetime.fromisoformat(from_at), shift, "USD") for from_at, shift in rows_of(NEW_YORK)]
    # Clocks that will be changed no more, by a newer tz database: what has been is as it was.
    assert landed_problems(NEW_YORK, [row for row in rows if row[0] <= datetime(2026, 11, 1, 6)]) == []
    assert len(landed_problems(NEW_YORK, rows[1:])) == 1


def test_the_currency_of_landed_prices_stays() -> None:
    rows = [(datetime.fromisoformat(from_at), shift, "EUR") for from_at, shift in rows_of(NEW_YORK)]
    (line,) = landed_problems(NEW_YORK, rows)
    assert line.startswith("currency is 'USD'; it should be 'EUR', in which prices have landed")


@pytest.mark.parametrize("code", ["XXX", "XTS", "DEM", "BTC", "usd", ""])
def test_a_currency_is_one_that_somebody_pays_with(code: str) -> None:
    assert [line.split()[0] for line in problems_of(SEEDED | {"currency": code})] == ["currency"]


@pytest.mark.parametrize("zone", ["localtime", "Factory"])
def test_a_time_zone_is_that_of_a_place(zone: str) -> None:
    assert [line.split()[0] for line in problems_of(SEEDED | {"time_zone": zone})] == ["time_zone"]


def test_a_day_before_the_first_stretch_has_a_beginning() -> None:
    assert TradingDays((0,), (-3_600_000,)).begin_of(-1) == 3_600_000 - 86_400_000
