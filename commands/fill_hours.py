"""`tickledger fill-hours`: sum what holds of landed ticks by company and hour into `company_hours`, beside the stream.

A batch spans hours and its aggregates name no company, so the hours are summed from Cassandra, up to the ledger's
newest batch. The ledger says which: those that are over since a day was filled last, and those of which a later batch
brought or corrected ticks. A tick counts with the values of its newest correction, and not at all if it was cancelled.
One transaction a trading day; running it again changes nothing.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from functools import cached_property
from itertools import chain, groupby
from typing import Annotated, Any, NamedTuple

import typer
from cassandra.cluster import Session
from mysql.connector.abstracts import MySQLConnectionAbstract

from commands.rebuild import companies_by_day
from commands.reconcile import OffsetRanges, read_ranges
from tickledger.command_line import AsJson, print_json
from tickledger.contract import insert_statement
from tickledger.counted import counted
from tickledger.exchange import Exchange, read_exchange
from tickledger.landed_revisions import (
    SELECT_TICKS,
    Revisions,
    landed_tick,
    read_expired,
    revised_days,
    revisions_of,
)
from tickledger.ledger import utc_now
from tickledger.revisions import Place, in_force
from tickledger.settings import Settings, load_settings
from tickledger.stores import cassandra, fetch_rows, locking, mysql
from tickledger.tick import EARLIEST_MS, RAW_TABLE, ms_to_datetime

HOUR = timedelta(hours=1)
#: A statement of more could be larger than a server takes.
ROWS_A_STATEMENT = 1000
#: An hour is over so long after its end: what was made in it has landed by then.
GRACE = timedelta(minutes=1)

#: Prices and turnover are exact until they are rounded, once.
_EXACT, _SIX_DECIMALS = Context(prec=100), Decimal("0.000001")


class Known(NamedTuple):
    """How far a trading day is filled: a row of `filled_days`."""

    to_batch: int
    until: datetime


class DayToFill(NamedTuple):
    """A trading day, the starts of its hours to be summed, and how far it was filled before and will be then."""

    date: date
    hours: list[datetime]
    before: Known | None
    after: Known


class FilledDay(NamedTuple):
    """What was filled of a trading day: hours, and their ticks and shares, with all batches up to `to_batch`."""

    date: date
    hours: int
    ticks: int
    volume: int
    to_batch: int


_HEAD = """
SELECT batch_id, CASE WHEN messages_behind > 0 THEN last_created_at END
  FROM landed_batches WHERE messages_behind IS NOT NULL ORDER BY batch_id DESC LIMIT 1
"""
#: An index gives these without reading every batch's rows.
_NEWEST_BATCH_OF_DAYS = """
SELECT date, MAX(batch_id)
  FROM (SELECT date, sector, MAX(batch_id) AS batch_id FROM aggregated_data GROUP BY date, sector
         UNION ALL SELECT date, sector, last_batch_id FROM daily_volume) AS newest
 GROUP BY date ORDER BY date
"""
#: Between which times the ticks are that a day's sums may lack, in few rows: one for each pair of hours.
_TOUCHED = """
SELECT MIN(CASE WHEN batch_id > %(to_batch)s THEN first_created_at
           ELSE GREATEST(first_created_at, CAST(%(until)s AS DATETIME(3))) END),
       MAX(last_created_at)
  FROM (SELECT batch_id, first_created_at, last_created_at FROM aggregated_data WHERE date = %(day)s
         UNION ALL
        SELECT last_batch_id, first_created_at, last_created_at FROM daily_volume WHERE date = %(day)s) AS parts
 WHERE batch_id > %(to_batch)s OR last_created_at >= %(until)s
 GROUP BY HOUR(first_created_at), HOUR(last_created_at)
"""
_IN_SPAN = "WHERE ticker = ? AND trade_date = ? AND created_at >= ? AND created_at < ?"
_TICKS = f"SELECT created_at, volume, price, kafka_partition, kafka_offset FROM {RAW_TABLE} {_IN_SPAN}"
#: Of a company and day with corrections.
_REVISED_TICKS = f"{SELECT_TICKS} {_IN_SPAN}"
_NOTHING = Known(0, ms_to_datetime(EARLIEST_MS))


def _local(moment: datetime, exchange: Exchange) -> datetime:
    """A moment (UTC, without a zone) by the exchange's clock."""
    return moment.replace(tzinfo=UTC).astimezone(exchange.zone)


def _hour_of(moment: datetime, day: date, exchange: Exchange) -> datetime:
    """The start of the hour of a trading day in which a moment lies; both are UTC, without a zone.

    All hours of a day follow each other, also where the clock is moved by part of an hour.
    """
    begin = exchange.begin_of(day)
    first = begin - timedelta(minutes=_local(begin, exchange).minute)
    return first + (moment - first) // HOUR * HOUR


def fill_hours(
    settings: Settings, day: date | None = None, told: Callable[[FilledDay], None] = lambda _day: None
) -> list[FilledDay]:
    """Sum the hours that are over and not summed up to the ledger's newest batch; the days of which there were any.

    With `day`, sum all hours of that trading day again and nothing else. `told` gets each day once it is committed. A
    day that another run fills meanwhile is left to it. Raises StoreUnavailable if a store is away: days that are
    committed stay, and the next run goes on from there.
    """
    filled: list[FilledDay] = []
    with mysql(settings, settings.dbt_mysql) as connection, cassandra(settings) as session:
        exchange = read_exchange(connection)
        # Both servers refuse `SET TRANSACTION` in a transaction.
        connection.rollback()
        ranges, expired, days = _plan(connection, exchange, utc_now(), day)
        held = _Held(session, ranges, expired)
        if not days:
            return filled
        companies = companies_by_day(session)
        for one in days:
            rows = [
                dict(row, date=one.date, ticker=ticker)
                for ticker in companies.get(one.date, ())
                for row in _sum(held.ticks(ticker, one), one.hours, exchange)
            ]
            with locking(connection):
                replaced = _replace(connection, one, rows)
            if replaced and one.hours:
                ticks, volume = sum(row["ticks"] for row in rows), sum(row["volume"] for row in rows)
                filled.append(FilledDay(one.date, len(one.hours), ticks, volume, one.after.to_batch))
                told(filled[-1])
    return filled


class HeldTick(NamedTuple):
    """What is summed of a tick, as it holds."""

    created_at: datetime
    volume: int
    price: Decimal


class _Held:
    """Reads what holds of landed ticks. Only where a company's day has corrections are these read too."""

    def __init__(self, session: Session, ranges: OffsetRanges, expired: Collection[Place]) -> None:
        self._session, self._ranges, self._expired = session, ranges, expired
        self._ticks, self._revised_ticks = session.prepare(_TICKS), session.prepare(_REVISED_TICKS)

    @cached_property
    def _revised(self) -> set[tuple[str, date]]:
        return revised_days(self._session)

    def ticks(self, ticker: str, day: DayToFill) -> Iterator[HeldTick]:
        """Those of the hours to be summed, in the order of created_at and id, page by page."""
        if (ticker, day.date) not in self._revised:
            for one in self._read(self._ticks, ticker, day):
                if self._ranges.batch_of(one.kafka_partition, one.kafka_offset) is not None:
                    yield HeldTick(one.created_at, one.volume, one.price)
            return
        revisions = revisions_of(self._session, ticker, day.date, self._ranges.batch_of, self._expired)
        yield from _as_corrected(self._read(self._revised_ticks, ticker, day), revisions, self._ranges)

    def _read(self, statement: Any, ticker: str, day: DayToFill) -> Iterator[Any]:
        return chain.from_iterable(
            self._session.execute(statement, (ticker, day.date, *span)) for span in _spans(day.hours)
        )


def _as_corrected(rows: Iterable[Any], revisions: Revisions, ranges: OffsetRanges) -> Iterator[HeldTick]:
    for row in rows:
        key, tick = landed_tick(row, ranges.batch_of)
        if values := in_force(tick, revisions.get(key, ())):
            yield HeldTick(key.created_at, values.volume, values.price)


def _plan(
    connection: MySQLConnectionAbstract, exchange: Exchange, now: datetime, day: date | None
) -> tuple[OffsetRanges, set[Place], list[DayToFill]]:
    """What has landed, which corrections came to nothing, and what is left to be summed, all as of one moment."""
    connection.cursor().execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    ranges, expired = read_ranges(connection), read_expired(connection)
    over_at = now - GRACE
    for _, newest_tick in fetch_rows(connection, _HEAD):
        # A stream that is behind has not landed the ticks after this one.
        over_at = min(over_at, newest_tick or over_at)
    known = {row[0]: Known(*row[1:]) for row in fetch_rows(connection, _KNOWN)}
    days = []
    for of, newest_batch in fetch_rows(connection, _NEWEST_BATCH_OF_DAYS):
        before = known.get(of)
        # What was over stays so, where the stream has fallen behind since.
        after = Known(ranges.newest_batch, max(_hour_of(over_at, of, exchange), (before or _NOTHING).until))
        if of == day or (
            day is None and _is_left(int(newest_batch), before, exchange.begin_of(of + timedelta(days=1)))
        ):
            since = before if before and not day else _NOTHING
            touched = fetch_rows(connection, _TOUCHED, {"day": of} | since._asdict())
            days.append(DayToFill(of, _hours(touched, after.until, of, exchange), before, after))
    connection.rollback()
    return ranges, expired, days


_KNOWN = "SELECT date, filled_to_batch, filled_until FROM filled_days"


def _is_left(newest_batch: int, known: Known | None, end: datetime) -> bool:
    """Whether a day that ends then may have hours that are not summed, or not with all their ticks."""
    return known is None or newest_batch > known.to_batch or known.until < end


def _hours(
    touched: Iterable[tuple[datetime, datetime]], until: datetime, day: date, exchange: Exchange
) -> list[datetime]:
    """The starts of all hours before `until` that lie, in part, between two times of a pair."""
    found = set()
    for first, last in touched:
        start = _hour_of(first, day, exchange)
        while start <= last and start < until:
            found.add(start)
            start += HOUR
    return sorted(found)


def _spans(hours: list[datetime]) -> Iterator[tuple[datetime, datetime]]:
    """The start and the end of each stretch of hours that follow each other."""
    for _, numbered in groupby(enumerate(hours), key=lambda one: one[1] - one[0] * HOUR):
        span = [start for _, start in numbered]
        yield span[0], span[-1] + HOUR


def _sum(ticks: Iterable[HeldTick], hours: list[datetime], exchange: Exchange) -> Iterator[dict[str, Any]]:
    """One row per hour of a company's ticks, which come in the order of created_at and id."""
    for start, of_hour in groupby(ticks, key=lambda one: hours[bisect_right(hours, one.created_at) - 1]):
        yield {"starts_at": start, "hour": _local(start, exchange).hour} | _add_up(of_hour)


def _add_up(ticks: Iterator[HeldTick]) -> dict[str, Any]:
    one = first = next(ticks)
    count, volume, turnover, high, low = 0, 0, Decimal(0), first.price, first.price
    for one in chain((first,), ticks):
        count, volume, turnover = count + 1, volume + one.volume, _EXACT.fma(one.price, one.volume, turnover)
        high, low = max(high, one.price), min(low, one.price)
    money = {"turnover": turnover, "open": first.price, "high": high, "low": low, "close": one.price}
    rounded = {name: _EXACT.quantize(value, _SIX_DECIMALS) for name, value in money.items()}
    return {"ticks": count, "volume": volume} | rounded


def _replace(connection: MySQLConnectionAbstract, day: DayToFill, rows: list[dict[str, Any]]) -> bool:
    """Put these rows in the place of the day's hours, in one transaction; False if another run has filled the day."""
    # Runs take turns, at a row that a stream locks for its second batch alone.
    fetch_rows(connection, "SELECT batch_id FROM landed_batches WHERE batch_id = 1 FOR UPDATE")
    known = [Known(*row[1:]) for row in fetch_rows(connection, f"{_KNOWN} WHERE date = %s", (day.date,))]
    if known != ([day.before] if day.before else []):
        connection.rollback()
        return False
    cursor = connection.cursor()
    gone = "DELETE FROM company_hours WHERE date = %s AND starts_at = %s"
    cursor.executemany(gone, [(day.date, start) for start in day.hours])
    for start in range(0, len(rows), ROWS_A_STATEMENT):
        part = rows[start : start + ROWS_A_STATEMENT]
        cursor.executemany(insert_statement("company_hours", part[0]), part)
    row: dict[str, Any] = {"date": day.date, "filled_to_batch": day.after.to_batch, "filled_until": day.after.until}
    cursor.execute(insert_statement("filled_days", row) + _FILLED_FURTHER, row)
    connection.commit()
    return True


_FILLED_FURTHER = """
ON DUPLICATE KEY UPDATE filled_to_batch = VALUES(filled_to_batch), filled_until = VALUES(filled_until)
"""


def main(
    day: Annotated[
        datetime | None,
        typer.Option("--date", formats=["%Y-%m-%d"], help="All hours of this trading day again, and no others."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Sum what has landed by company and hour into company_hours: hours that are over, and those with late ticks.

    No number is final while ticks may come late; run it once an hour. The stream goes on beside it. Ctrl-C ends it
    between two days; the next run goes on from there. Exit code 2: a store is away.
    """

    def tell(one: FilledDay) -> None:
        hours, ticks = counted(one.hours, "hour"), counted(one.ticks, "tick")
        print(f"{one.date}: {hours} of {ticks} and {counted(one.volume, 'share')}", flush=True)

    filled = fill_hours(load_settings(), day and day.date(), (lambda _day: None) if as_json else tell)
    if as_json:
        print_json(one._asdict() for one in filled)
    else:
        print(summary(filled))


def summary(filled: list[FilledDay]) -> str:
    """One line of what a run has filled."""
    if not filled:
        return "every hour that is over is filled"
    hours, days = counted(sum(one.hours for one in filled), "hour"), counted(len(filled), "day")
    return f"{hours} of {days} filled by company, with all batches up to {filled[-1].to_batch:,}"
