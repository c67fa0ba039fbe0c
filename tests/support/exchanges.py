"""Exchanges for tests: the seed's as it comes, and one whose evening session crosses midnight UTC."""

from contextlib import closing
from typing import Any

from tests.support.pipeline import Pipeline
from tickledger.exchange import Exchange, exchange_of, rows_of

#: What the seed has as it comes; a test that changes the seed changes nothing here.
SEEDED = {
    "name": "Indonesia Stock Exchange",
    "time_zone": "Asia/Jakarta",
    "trading_day_begins": "07:00",
    "sessions": "Mon-Fri 09:00-16:00",
    "currency": "IDR",
    "currency_digits": "2",
    "price_steps": "1 from 50; 2 from 200; 5 from 500; 10 from 2000; 25 from 5000",
}
JAKARTA = exchange_of(SEEDED)
#: With the sessions before and after the main one: 20:00 in New York is 00:00 or, in winter, 01:00 UTC.
NEW_YORK_FACTS = {
    "name": "New York Stock Exchange",
    "time_zone": "America/New_York",
    "trading_day_begins": "00:00",
    "sessions": "Mon-Fri 04:00-09:30; Mon-Fri 09:30-16:00; Mon-Fri 16:00-20:00",
    "currency": "USD",
    "currency_digits": "2",
    "price_steps": "0.01 from 1",
}
NEW_YORK = exchange_of(NEW_YORK_FACTS)


def put_exchange(pipeline: Pipeline, exchange: Exchange, facts: dict[str, str]) -> None:
    """Put the exchange into the table, as `dbt seed` does."""
    rows: list[Any] = [(*facts.values(), *one) for one in rows_of(exchange)]
    names = (*facts, "from_at", "day_shift_seconds")
    with closing(pipeline.mysql()) as connection:
        cursor = connection.cursor()
        cursor.execute("DELETE FROM exchange")
        cursor.executemany(f"INSERT INTO exchange ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))})", rows)
        connection.commit()
