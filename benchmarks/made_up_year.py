"""A year of trading days straight into both stores, far faster than landing them: for measuring what questions cost.

MySQL makes a day's rows of a table of numbers by itself; Cassandra is filled by a process a core with the stream's own
sink. A day is a session of seven hours with a batch every two seconds, the default trigger, each of a message a second.
The newest day is today, whatever the hour, so that every run finds the same.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import date, datetime, time, timedelta
from itertools import islice
from typing import Any

from pipeline import Pipeline

from producer.companies import read_companies
from producer.market import Company
from streaming.tick_columns import TickColumns
from streaming.tick_sink import TickSink, session_of_this_process
from tickledger.settings import Settings
from tickledger.stores import connect_mysql
from tickledger.tick import Tick, datetime_to_ms

OPENS, SESSION, TRIGGER_SECONDS = time(2), timedelta(hours=7), 2
BATCHES_A_DAY = int(SESSION.total_seconds()) // TRIGGER_SECONDS
#: Ticks made and packed together.
TICKS_AT_ONCE = 10_000
#: Days whose ticks are in Cassandra: those of the dashboard's longest window.
DAYS_OF_TICKS = 5
_SHARES = "200 * (MOD(numbers.n, 900) + 1)"
_OPENED = "TIMESTAMP(%(day)s, %(opens)s) + INTERVAL numbers.n * 2 SECOND"
_STATEMENTS = (
    f"""
    INSERT INTO aggregated_data (processing_id, processed_at, sector, total_volume, date, batch_id, ticks,
                                 first_created_at, last_created_at)
    SELECT (%(first)s + numbers.n) * 1000 + sectors.place, {_OPENED} + INTERVAL 2 SECOND, sectors.sector,
           sectors.companies * {_SHARES}, %(day)s, %(first)s + numbers.n, 2 * sectors.companies, {_OPENED},
           {_OPENED} + INTERVAL 1 SECOND
    FROM made_up_numbers AS numbers CROSS JOIN made_up_sectors AS sectors""",
    f"""
    INSERT INTO landed_batches (batch_id, topic, topic_id, messages, ticks_read, ticks_landed, dead_letters, duplicates,
                                late_ticks, volume, first_created_at, last_created_at, landed_at, landing_seconds,
                                contract_hash, verdict, checked_at)
    SELECT %(first)s + numbers.n, %(topic)s, '00000000-0000-0000-0000-000000000001', 2, 2 * %(companies)s,
           2 * %(companies)s, 0, 0, 0, %(companies)s * {_SHARES}, {_OPENED}, {_OPENED} + INTERVAL 1 SECOND,
           {_OPENED} + INTERVAL 2 SECOND, 0.5, '-', 'passed', {_OPENED} + INTERVAL 3 SECOND
    FROM made_up_numbers AS numbers""",
    """
    INSERT INTO landed_offsets (batch_id, kafka_partition, from_offset, until_offset)
    SELECT %(first)s + numbers.n, partitions.p, %(first)s + numbers.n - 1, %(first)s + numbers.n
    FROM made_up_numbers AS numbers CROSS JOIN (SELECT 0 AS p UNION ALL SELECT 1) AS partitions""",
)


class Year:
    """Days in MySQL, none at first. Batches are numbered as if all `most_days` had been landed in their order."""

    def __init__(self, pipeline: Pipeline, most_days: int, today: date) -> None:
        self._pipeline, self._most_days, self._today = pipeline, most_days, today
        self._companies, self._days = len(read_companies(pipeline.settings)), 0
        pipeline.execute("CREATE TABLE made_up_numbers (n bigint PRIMARY KEY)")
        pipeline.execute(
            "CREATE TABLE made_up_sectors AS SELECT sector, COUNT(*) AS companies,"
            " ROW_NUMBER() OVER (ORDER BY sector) AS place FROM profile GROUP BY sector"
        )
        connection = pipeline.mysql()
        numbers = [(n,) for n in range(BATCHES_A_DAY)]
        connection.cursor().executemany("INSERT INTO made_up_numbers VALUES (%s)", numbers)
        connection.commit()

    def grow_to(self, days: int, told: Callable[[str], None]) -> None:
        """Add earlier days until there are so many, the oldest first, as landing would have."""
        for age in range(days - 1, self._days - 1, -1):
            told(f"MySQL: the day {age:,} days ago, up to {self._days:,}")
            values = {
                "first": (self._most_days - 1 - age) * BATCHES_A_DAY + 1,
                "day": self._today - timedelta(days=age),
                "opens": OPENS,
                "topic": self._pipeline.settings.kafka_topic,
                "companies": self._companies,
            }
            self._insert(values)
        self._days = days
        for table in ("aggregated_data", "landed_batches", "landed_offsets"):
            self._pipeline.rows(f"ANALYZE TABLE {table}")

    def _insert(self, values: dict[str, Any]) -> None:
        # A day's statement may take longer than any of the stream's, and reads tables that the stream may not.
        connection = connect_mysql(self._pipeline.settings, answer_seconds=600, account="DBT_MYSQL")
        for statement in _STATEMENTS:
            connection.cursor().execute(statement, values)
        connection.commit()
        connection.close()

    @property
    def rows(self) -> int:
        """Rows of `aggregated_data`."""
        return int(self._pipeline.rows("SELECT COUNT(*) FROM aggregated_data")[0][0])


def fill_ticks(settings: Settings, ticks: int, today: date, *, skip: int = 0) -> None:
    """Spread ticks evenly over the companies and the sessions of the last days: the first `ticks` of them but `skip`.

    Each day's ticks of a company grow together, so that a second call with more goes on where the first one ended.
    """
    companies = read_companies(settings)
    places = [(place, company, age) for age in range(DAYS_OF_TICKS) for place, company in enumerate(companies)]
    first, until = skip // len(places), ticks // len(places)
    # Forked processes would share connections.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        days = [(today - timedelta(days=age), place, company) for place, company, age in places]
        for done in [pool.submit(_fill, settings, day, place, one, first, until) for day, place, one in days]:
            done.result()


def _fill(settings: Settings, day: date, place: int, company: Company, first: int, until: int) -> None:
    sink = TickSink(session_of_this_process(settings))
    ticks = _ticks(day, place, company, first, until)
    while some := [(tick, 0) for tick in islice(ticks, TICKS_AT_ONCE)]:
        sink.write(TickColumns.of(some), 0)
    sink.drain()


def _ticks(day: date, place: int, company: Company, first: int, until: int) -> Iterator[Tick]:
    """A company's ticks of a day. Their moments fill the session in strides that never meet: the golden section."""
    opens = datetime_to_ms(datetime.combine(day, OPENS))
    length, number_of_day = int(SESSION.total_seconds() * 1000), (day - date(1970, 1, 1)).days
    for n in range(first, until):
        price = 1_000 + n % 200
        made = opens + int(n * 0.6180339887498949 % 1 * length)
        id_ = (number_of_day * 10_000 + place) * 10**8 + n
        yield Tick(company.ticker, made, id_, 100, price * company.shares, price, company.sector, number_of_day)
