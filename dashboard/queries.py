"""What the page asks the two stores, each question a function that returns a DataFrame.

Every statement is a constant here and every value in it is bound; only a :class:`Window`'s bucket is written into CQL,
and windows come from the list below. Numbers arrive as int64 or float64 and moments as UTC timestamps, never as
Decimal or without a zone, which charts would misread. All raise StoreUnavailable while their store does not answer
and ConfigurationError for what only the user can mend; asking again later is always safe.
"""

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, cast

import mysql.connector
import pandas as pd
from cassandra import DriverException, InvalidRequest, RequestExecutionException, Unauthorized
from cassandra.cluster import NoHostAvailable, Session
from cassandra.query import PreparedStatement
from mysql.connector import errorcode
from mysql.connector.abstracts import MySQLConnectionAbstract

from streaming.errors import ConfigurationError, StoreUnavailable
from streaming.settings import Settings
from streaming.stores import connect_cassandra, connect_mysql

#: A page that waits longer for one answer than this looks frozen.
ANSWER_SECONDS = 4

UTC_TIME = "datetime64[ns, UTC]"
_NOT_THERE = (errorcode.ER_NO_SUCH_TABLE, errorcode.ER_BAD_FIELD_ERROR, errorcode.ER_TABLEACCESS_DENIED_ERROR)


@dataclass(frozen=True)
class Window:
    """A stretch of time up to now, cut into buckets of which each shows one price: at most 300 a ticker."""

    length: timedelta
    bucket: str


#: The windows that a viewer may choose.
WINDOWS = {
    "5 min": Window(timedelta(minutes=5), "1s"),
    "15 min": Window(timedelta(minutes=15), "3s"),
    "1 hour": Window(timedelta(hours=1), "15s"),
    "4 hours": Window(timedelta(hours=4), "1m"),
}


class MySQLReader:
    """Reads MySQL over one connection, made when first needed and made anew after a failure. Safe between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: MySQLConnectionAbstract | None = None
        self._lock = threading.Lock()

    def rows(self, statement: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """All rows of one SELECT."""
        with self._lock:
            try:
                if self._connection is not None:
                    # The server may have closed the connection, or started anew, since the question before.
                    with suppress(mysql.connector.OperationalError, mysql.connector.InterfaceError):
                        return self._read(statement, parameters or {})
                    self._drop()
                return self._read(statement, parameters or {})
            except mysql.connector.Error as error:
                self._drop()
                raise self._explained(error) from None

    def _read(self, statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        if self._connection is None:
            self._connection = connect_mysql(self._settings, answer_seconds=ANSWER_SECONDS)
        cursor = self._connection.cursor()
        cursor.execute(statement, dict(parameters))
        rows = cursor.fetchall()
        cursor.close()
        self._connection.rollback()
        return cast("list[tuple[Any, ...]]", rows)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(mysql.connector.Error, OSError):
                connection.shutdown()

    def _explained(self, error: mysql.connector.Error) -> ConfigurationError | StoreUnavailable:
        where = f"{self._settings.mysql_host}:{self._settings.mysql_port}"
        if error.errno in _NOT_THERE:
            return ConfigurationError(
                f"MYSQL_DATABASE is {self._settings.mysql_database!r}; it should hold the project's tables "
                f"('dbt seed' and 'dbt run' create them): {error.msg}"
            )
        reason = " ".join(str(error.msg).split())
        return StoreUnavailable(f"MySQL at {where} (MYSQL_HOST, MYSQL_PORT) does not answer: {reason}")

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        with self._lock:
            self._drop()


class CassandraReader:
    """Reads Cassandra over one session, made when first needed; the session itself reconnects. Safe between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session: Session | None = None
        self._statements: dict[str, PreparedStatement] = {}
        self._lock = threading.Lock()

    def rows(self, statement: str, parameters: Sequence[tuple[Any, ...]]) -> list[Any]:
        """All rows of one SELECT, asked once for each of `parameters`, at the same time."""
        try:
            session, prepared = self._prepared(statement)
            answers = [session.execute_async(prepared, values, timeout=ANSWER_SECONDS) for values in parameters]
            return [row for answer in answers for row in answer.result()]
        except (InvalidRequest, Unauthorized) as error:
            raise ConfigurationError(
                f"CASSANDRA_KEYSPACE is {self._settings.cassandra_keyspace!r}; it should hold the project's tables "
                f"('make services' creates them) and CASSANDRA_USER should be allowed to read them: {error}"
            ) from None
        except (NoHostAvailable, DriverException, RequestExecutionException) as error:
            where = f"{','.join(self._settings.cassandra_hosts)}:{self._settings.cassandra_port}"
            raise StoreUnavailable(
                f"Cassandra at {where} (CASSANDRA_HOSTS, CASSANDRA_PORT) does not answer: {type(error).__name__}"
            ) from None

    def _prepared(self, statement: str) -> tuple[Session, PreparedStatement]:
        with self._lock:
            if self._session is None:
                self._session = connect_cassandra(self._settings)
            if statement not in self._statements:
                self._statements[statement] = self._session.prepare(statement)
            return self._session, self._statements[statement]

    def close(self) -> None:
        """Close the session; the next question opens another."""
        with self._lock:
            session, self._session = self._session, None
            self._statements.clear()
        if session is not None:
            session.cluster.shutdown()


def companies(reader: MySQLReader) -> pd.DataFrame:
    """The seed `profile`. One row per company: ticker, company_name, sector."""
    rows = reader.rows("SELECT ticker, company_name, sector FROM profile ORDER BY ticker")
    return _frame(rows, ticker="str", company_name="str", sector="str")


def volume_by_sector(reader: MySQLReader) -> pd.DataFrame:
    """The view `volume_today`, largest first. One row per sector: sector, total_volume (shares)."""
    rows = reader.rows("SELECT sector, total_volume FROM volume_today ORDER BY total_volume DESC, sector")
    return _frame(rows, sector="str", total_volume="float64")


_TODAY = """
    SELECT traded.volume, traded.ticks, landed.batches, landed.checked, landed.warned, landed.failed, newest.landed_at
    FROM (SELECT COALESCE(SUM(total_volume), 0) AS volume, COALESCE(SUM(ticks), 0) AS ticks
          FROM aggregated_data WHERE date = UTC_DATE()) AS traded,
         (SELECT COUNT(*) AS batches, COALESCE(SUM(verdict <> 'unchecked'), 0) AS checked,
                 COALESCE(SUM(verdict = 'warned'), 0) AS warned, COALESCE(SUM(verdict = 'failed'), 0) AS failed
          FROM landed_batches WHERE last_created_at >= UTC_DATE()) AS landed,
         (SELECT MAX(landed_at) AS landed_at FROM landed_batches
          WHERE batch_id = (SELECT MAX(batch_id) FROM landed_batches)) AS newest
"""


def today(reader: MySQLReader) -> pd.DataFrame:
    """The figures of the current trading day, the UTC date. One row.

    volume (shares) and ticks are of ticks made today; batches, checked, warned and failed count the batches whose
    newest tick was made today; landed_at is when the newest batch of all landed, NaT where none has.
    """
    rows = reader.rows(_TODAY)
    whole = dict.fromkeys(("volume", "ticks", "batches", "checked", "warned", "failed"), "int64")
    return _frame(rows, **whole, landed_at=UTC_TIME)


_NEWEST_BATCHES = """
    SELECT batch_id, verdict, landed_at, messages, ticks_landed, dead_letters, duplicates, landing_seconds
    FROM landed_batches ORDER BY batch_id DESC LIMIT %(limit)s
"""


def newest_batches(reader: MySQLReader, limit: int = 20) -> pd.DataFrame:
    """The ledger's newest batches, newest first. One row per landed batch; landing_seconds in s."""
    rows = reader.rows(_NEWEST_BATCHES, {"limit": limit})
    counts = dict.fromkeys(("messages", "ticks_landed", "dead_letters", "duplicates"), "int64")
    types = {"batch_id": "int64", "verdict": "str", "landed_at": UTC_TIME} | counts
    return _frame(rows, **types, landing_seconds="float64")


#: The newest tick of each bucket: Cassandra cuts the buckets, so that no more rows travel than a chart can show.
_PRICES = """
    SELECT ticker, created_at, price FROM real_time_data
    WHERE ticker = ? AND trade_date = ? AND created_at >= ? AND created_at < ?
    GROUP BY ticker, trade_date, floor(created_at, {bucket}) ORDER BY created_at DESC
"""


def prices(reader: CassandraReader, tickers: Sequence[str], window: Window, until: datetime) -> pd.DataFrame:
    """The prices (IDR) of some tickers in a window that ends before `until` (UTC, without a zone), oldest first.

    One row per ticker and bucket with a tick in it: that bucket's newest tick's ticker, created_at and price. Reads
    only the partitions (ticker, trade_date) and the time that the window covers.
    """
    since = until - window.length
    parameters = [(ticker, day, since, until) for ticker in tickers for day in _days(since, until)]
    rows = reader.rows(_PRICES.format(bucket=window.bucket), parameters)
    frame = _frame([tuple(row) for row in rows], ticker="str", created_at=UTC_TIME, price="float64")
    return frame.sort_values(["ticker", "created_at"], ignore_index=True)


def _days(since: datetime, until: datetime) -> list[date]:
    return [since.date() + timedelta(days=n) for n in range((until.date() - since.date()).days + 1)]


def _frame(rows: Sequence[tuple[Any, ...]], **types: str) -> pd.DataFrame:
    """Rows as a DataFrame with these columns and types, which hold for no rows too."""
    frame = pd.DataFrame(list(rows), columns=list(types))
    for name in [name for name, kind in types.items() if kind == UTC_TIME]:
        frame[name] = pd.to_datetime(frame[name], utc=True)
    return frame.astype(types)
