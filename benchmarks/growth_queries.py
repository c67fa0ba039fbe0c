"""How the dashboard's questions grow with the days in MySQL and with the ticks in Cassandra."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import pandas as pd

from benchmarks.__main__ import Bench
from benchmarks.growth_landing import Told, median_seconds
from benchmarks.made_up_year import OPENS, SESSION, Year, fill_ticks
from commands.roll_up import roll_up
from dashboard import queries
from dashboard.draw_history import DAYS_SHOWN
from dashboard.readers import ANSWER_SECONDS, CassandraReader, MySQLReader
from tickledger.errors import StoreUnavailable
from tickledger.settings import Settings

#: Companies whose candles are on the page.
TICKERS_SHOWN = 6
#: Days that stay by batch after a roll-up, as the README has it.
KEEP_DAYS = 30
#: An answer that takes no longer grew by noise alone, or will not be noticed.
SHORT_SECONDS = 0.05
Questions = dict[str, Callable[[], Any]]


def of_mysql(reader: MySQLReader, today: date) -> Questions:
    """All that the page asks MySQL, by what it is called there, and the view `volume_today`."""
    newest = int(reader.rows("SELECT MAX(batch_id) FROM landed_batches")[0][0])
    first = today - timedelta(days=DAYS_SHOWN - 1)
    by_batch = ("batch", "batch_offsets", "batch_findings")
    alone = (
        "today", "volume_by_verdict", "average_day", "newest_batches", "newest_batch_with_findings",
        "ranges_with_dead_letters", "landed_ends", "companies",
    )  # fmt: skip
    asked: Questions = (
        {"volume_today": partial(reader.rows, "SELECT sector, total_volume FROM volume_today")}
        | {name: partial(getattr(queries, name), reader) for name in alone}
        | {name: partial(getattr(queries, name), reader, newest) for name in by_batch}
        | {f"volume_by_day, {DAYS_SHOWN} days": partial(queries.volume_by_day, reader, first, today)}
    )
    return asked


def of_cassandra(settings: Settings, reader: CassandraReader, tickers: list[str], today: date) -> Questions:
    """All that the page asks Cassandra of ticks: candles of each window up to the end of the session, and quotes."""
    until = datetime.combine(today, OPENS) + SESSION
    shown = tickers[:TICKERS_SHOWN]
    ranges = pd.DataFrame({"kafka_partition": [0, 1], "from_offset": [0, 0], "until_offset": [50_000, 50_000]})
    asked: Questions = {
        "quotes": partial(queries.quotes, reader, tickers, today),
        "dead_letters": partial(queries.dead_letters, reader, settings.kafka_topic, ranges),
    }
    for name, window in queries.WINDOWS.items():
        asked[f"candles, {name}"] = partial(queries.candles, reader, shown, window, until)
    return asked


def seconds_of(question: Callable[[], Any]) -> float:
    """The median of some answers after a first one; infinite where the page would not have waited for one."""
    try:
        return median_seconds(question)
    except StoreUnavailable:
        return float("inf")


def days_table(bench: Bench, days: list[int], today: date, told: Told, *, rolled_up: bool) -> pd.DataFrame:
    """One row per question to MySQL, a column per number of days: seconds. `rolled_up` adds the last one rolled up."""
    columns: dict[str, dict[str, float]] = {}
    with bench.stores() as pipeline:
        reader, year = MySQLReader(pipeline.settings), Year(pipeline, max(days), today)
        for count in sorted(days):
            began = time.monotonic()
            year.grow_to(count, told)
            told(f"MySQL: {count:,} days, {year.rows:,} rows, made in {time.monotonic() - began:.0f} s; asking")
            columns[f"{count:,} days"] = _ask(of_mysql(reader, today), told)
        if rolled_up:
            roll_up(pipeline.settings, KEEP_DAYS, told)
            columns[f"{max(days):,} days, rolled up"] = _ask(of_mysql(reader, today), told)
        reader.close()
    return pd.DataFrame(columns).rename_axis("question").reset_index()


def ticks_table(bench: Bench, ticks: int, today: date, told: Told) -> pd.DataFrame:
    """One row per question to Cassandra, columns with a tenth of the ticks and with all of them: seconds."""
    columns: dict[str, dict[str, float]] = {}
    with bench.stores() as pipeline:
        reader, done = CassandraReader(pipeline.settings), 0
        for count in (ticks // 10, ticks):
            began = time.monotonic()
            told(f"Cassandra: {count - done:,} ticks more")
            fill_ticks(pipeline.settings, count, today, skip=done)
            told(f"Cassandra: {count - done:,} ticks in {time.monotonic() - began:.0f} s; asking")
            done = count
            tickers = [str(row[0]) for row in pipeline.rows("SELECT ticker FROM profile ORDER BY ticker")]
            asked = of_cassandra(pipeline.settings, reader, tickers, today)
            columns[f"{count:,} ticks"] = _ask(asked, told)
        reader.close()
    return pd.DataFrame(columns).rename_axis("question").reset_index()


def _ask(asked: Questions, told: Told) -> dict[str, float]:
    answers = {}
    for name, question in asked.items():
        answers[name] = seconds_of(question)
        if answers[name] == float("inf"):
            told(f"{name}: no answer within {ANSWER_SECONDS} s")
    return answers


def faster_than_work(rows: pd.DataFrame, columns: list[str], work: float) -> Iterator[str]:
    """Names what is slow and grew over a quarter more, between the last two columns, than its work: `work` times."""
    for before, own in list(pairwise(columns))[-1:]:
        for row in rows.to_dict("records"):
            if row[own] > SHORT_SECONDS and row[own] > 1.25 * work * row[before]:
                yield f"{row['question']}: {row[before]:.3f} s with {before}, {row[own]:.3f} s with {own}"


def utc_today() -> date:
    """Today's trading day."""
    return datetime.now(UTC).date()
