"""Reads one landed batch back from both stores, as the data frames that the suites expect. Writes nothing."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import mysql.connector
from cassandra import DriverException, InvalidRequest, RequestExecutionException, Unauthorized
from cassandra.cluster import EXEC_PROFILE_DEFAULT, NoHostAvailable, Session
from cassandra.concurrent import execute_concurrent_with_args
from cassandra.query import tuple_factory
from mysql.connector.abstracts import MySQLConnectionAbstract

from expectations.rhythm import (
    USUAL_BATCHES,
    Landing,
    dead_letter_share,
    duplicate_share,
    minutes_ahead,
    minutes_behind,
    pace_to_usual,
)
from expectations.suites import MOST_MINUTES_BEHIND, PRICE_WINDOW
from streaming.errors import ConfigurationError, StoreUnavailable, TickledgerError
from streaming.settings import Settings
from streaming.stores import connect_mysql
from streaming.tick import DEAD_LETTER_BUCKET, DEAD_LETTER_TABLE, RAW_TABLE, TICK_FIELDS

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

#: Slices that are asked for at the same time.
READS_IN_FLIGHT = 32

_KEY = ("ticker", "trade_date")
_READ_COLUMNS = (*(f.name for f in TICK_FIELDS if f.name not in _KEY), "kafka_partition", "kafka_offset")
_ADDED_COLUMNS = ("profile_sector", "created_on", "market_cap_error", "price_ratio")
_DECIMALS = {*(f.name for f in TICK_FIELDS if f.kind == "decimal"), "market_cap_error", "price_ratio"}
_WHOLES = {*(f.name for f in TICK_FIELDS if f.kind == "whole"), "kafka_partition", "kafka_offset"}
_CREATED_AT, _PRICE, _MARKET_CAP = (_READ_COLUMNS.index(name) for name in ("created_at", "price", "market_cap"))
_CASSANDRA_ERRORS = (DriverException, RequestExecutionException, NoHostAvailable)


_BATCHES_BEFORE = (
    "SELECT landed_at, last_created_at, ticks_read FROM landed_batches"
    " WHERE batch_id < %s AND last_created_at IS NOT NULL ORDER BY batch_id DESC LIMIT %s"
)


class UnknownBatch(TickledgerError):
    """The ledger has no batch of that number. Exit code 2."""

    exit_code = 2


class RolledUp(TickledgerError):
    """The batch's aggregates are no longer kept by batch, so it cannot be checked again. Exit code 2."""

    exit_code = 2

    def __init__(self, batch_id: int) -> None:
        super().__init__(
            f"batch {batch_id} was rolled up into daily_volume and cannot be checked again; its verdict stays"
        )


class Company(NamedTuple):
    """What `profile` says of a ticker: its sector and its shares outstanding."""

    sector: str
    shares: int


class Slice(NamedTuple):
    """The rows of one company and day in `real_time_data`, created from `first` to `last`, both included (UTC)."""

    ticker: str
    trade_date: date
    first: datetime
    last: datetime


@dataclass(frozen=True)
class LedgerView:
    """What MySQL says of one batch. `ranges` maps a partition to its offsets [from, until)."""

    batch: dict[str, Any]
    ranges: dict[int, tuple[int, int]]
    aggregate_columns: tuple[str, ...]
    aggregates: list[dict[str, Any]]
    companies: dict[str, Company]
    #: The landings before, oldest first.
    before: list[Landing]

    def slices(self) -> Iterator[Slice]:
        """Where the batch's ticks must be: every company on every day that the batch has an aggregate of.

        A sector's own row bounds the times. Sectors without a row are looked up between the day's first and last
        created_at, so that a missing row is noticed.
        """
        own = {
            (row["date"], row["sector"]): (row["first_created_at"], row["last_created_at"]) for row in self.aggregates
        }
        for day in sorted({day for day, _ in own}):
            bounds = [times for (of, _), times in own.items() if of == day]
            whole_day = (min(first for first, _ in bounds), max(last for _, last in bounds))
            for ticker, company in self.companies.items():
                yield Slice(ticker, day, *own.get((day, company.sector), whole_day))


class ReadBack:
    """Reads batches on one Cassandra session and, for each batch, a MySQL connection of its own.

    Every method raises StoreUnavailable where a store does not answer (the same call may succeed later) and
    ConfigurationError where a table or column is not there.
    """

    def __init__(self, settings: Settings, session: Session) -> None:
        self._settings = settings
        self._session = session
        self._profile = session.execution_profile_clone_update(EXEC_PROFILE_DEFAULT, row_factory=tuple_factory)
        with cassandra_errors():
            self._ticks_in_slice = session.prepare(
                f"SELECT {', '.join(_READ_COLUMNS)} FROM {RAW_TABLE}"
                " WHERE ticker = ? AND trade_date = ? AND created_at >= ? AND created_at <= ?"
            )
            self._price_before = session.prepare(
                f"SELECT created_at, price FROM {RAW_TABLE} WHERE ticker = ? AND trade_date = ?"
                " AND created_at >= ? AND created_at < ? ORDER BY created_at DESC LIMIT 1"
            )
            self._count_dead = session.prepare(
                f"SELECT COUNT(*) FROM {DEAD_LETTER_TABLE} WHERE topic = ? AND kafka_partition = ?"
                " AND offset_bucket = ? AND kafka_offset >= ? AND kafka_offset < ?"
            )

    def frames(self, batch_id: int) -> "dict[str, pd.DataFrame]":
        """The batch's frame for each suite. Raises UnknownBatch where the ledger has no such batch, or RolledUp."""
        ledger = self._ledger(batch_id)
        ticks = self._ticks(ledger)
        return {
            "raw_ticks": ticks,
            "aggregates": _aggregates(ledger),
            "books": _frame([_books(ledger, len(ticks), self._dead_letters(ledger))]),
            "books_by_sector": _books_by_sector(ledger, ticks),
        }

    def _ledger(self, batch_id: int) -> LedgerView:
        with mysql_errors(self._settings):
            connection = connect_mysql(self._settings)
            try:
                batches, _ = _select(connection, "SELECT * FROM landed_batches WHERE batch_id = %s", (batch_id,))
                if not batches:
                    raise UnknownBatch(f"the ledger has no batch {batch_id}")
                if batches[0].get("rolled_up_at"):
                    raise RolledUp(batch_id)
                ranges, _ = _select(connection, "SELECT * FROM landed_offsets WHERE batch_id = %s", (batch_id,))
                query = "SELECT * FROM aggregated_data WHERE batch_id = %s ORDER BY date, sector"
                aggregates, columns = _select(connection, query, (batch_id,))
                companies, _ = _select(connection, "SELECT ticker, sector, shares FROM profile")
                before, _ = _select(connection, _BATCHES_BEFORE, (batch_id, USUAL_BATCHES + 1))
            finally:
                connection.close()
        return LedgerView(
            batch=batches[0],
            ranges={r["kafka_partition"]: (r["from_offset"], r["until_offset"]) for r in ranges},
            aggregate_columns=columns,
            aggregates=aggregates,
            companies={c["ticker"]: Company(c["sector"], int(c["shares"])) for c in companies},
            before=[Landing(b["landed_at"], b["last_created_at"], b["ticks_read"]) for b in reversed(before)],
        )

    def _ticks(self, ledger: LedgerView) -> "pd.DataFrame":
        slices = list(ledger.slices())
        earlier = [(one.ticker, one.trade_date, one.first - PRICE_WINDOW, one.first) for one in slices]
        columns: dict[str, list[Any]] = {name: [] for name in (*_KEY, *_READ_COLUMNS, *_ADDED_COLUMNS)}
        with cassandra_errors():
            before = [next(iter(found), None) for found in self._read(self._price_before, earlier)]
            for one, found, last in zip(slices, self._read(self._ticks_in_slice, slices), before, strict=True):
                _add_slice(columns, ledger, one, list(found), last)
        return _tick_frame(columns)

    def _dead_letters(self, ledger: LedgerView) -> int:
        wanted = [
            (ledger.batch["topic"], partition, bucket, start, until)
            for partition, (start, until) in ledger.ranges.items()
            for bucket in range(start // DEAD_LETTER_BUCKET, (until - 1) // DEAD_LETTER_BUCKET + 1)
        ]
        with cassandra_errors():
            return sum(row[0] for found in self._read(self._count_dead, wanted) for row in found)

    def _read(self, statement: Any, parameters: list[Any]) -> Iterator[Any]:
        results = execute_concurrent_with_args(
            self._session,
            statement,
            parameters,
            concurrency=READS_IN_FLIGHT,
            results_generator=True,
            execution_profile=self._profile,
        )
        return (found for _, found in results)


def _is_of_batch(ledger: LedgerView, row: tuple[Any, ...]) -> bool:
    start, until = ledger.ranges.get(row[-2], (0, 0))
    return start <= row[-1] < until


def _add_slice(
    columns: dict[str, list[Any]], ledger: LedgerView, one: Slice, rows: list[tuple[Any, ...]], last: Any
) -> None:
    """Add the batch's rows of a slice, which come in the order of created_at; `last` is the tick before them."""
    ratios = _price_ratios(rows, last)
    mine = [at for at, row in enumerate(rows) if _is_of_batch(ledger, row)]
    for name, values in zip(_READ_COLUMNS, zip(*(rows[at] for at in mine), strict=True), strict=False):
        columns[name].extend(values)
    company = ledger.companies[one.ticker]
    added: dict[str, list[Any]] = {
        "ticker": [one.ticker] * len(mine),
        "trade_date": [one.trade_date] * len(mine),
        "profile_sector": [company.sector] * len(mine),
        "created_on": [rows[at][_CREATED_AT].date() for at in mine],
        "market_cap_error": [_market_cap_error(rows[at][_MARKET_CAP], rows[at][_PRICE], company.shares) for at in mine],
        "price_ratio": [ratios[at] for at in mine],
    }
    for name, found in added.items():
        columns[name].extend(found)


def _price_ratios(rows: list[tuple[Any, ...]], last: tuple[datetime, Any] | None) -> "np.ndarray[Any, Any]":
    """For each row the larger of its price and that of the row before it, as a multiple of the smaller.

    NaN where the tick before is missing or older than PRICE_WINDOW, or a price is missing or not above zero.
    """
    import numpy as np

    pairs = [last or (None, None), *((row[_CREATED_AT], row[_PRICE]) for row in rows)]
    moments = np.array([moment for moment, _ in pairs], dtype="datetime64[ms]")
    prices = np.array([price for _, price in pairs], dtype="float64")
    lower, higher = np.minimum(prices[1:], prices[:-1]), np.maximum(prices[1:], prices[:-1])
    comparable = (np.diff(moments) <= np.timedelta64(PRICE_WINDOW)) & (lower > 0)
    return np.divide(higher, lower, out=np.full(len(rows), np.nan), where=comparable)


def _tick_frame(columns: dict[str, list[Any]]) -> "pd.DataFrame":
    """The ticks with numbers as numpy's own, which are judged ten times as fast as objects."""
    import numpy as np
    import pandas as pd

    def typed(name: str, values: list[Any]) -> "pd.Series[Any]":
        if name in _DECIMALS:
            return pd.Series(np.array(values, dtype="float64"))
        # Whole numbers stay whole beside a missing one.
        is_whole = name in _WHOLES and None not in values
        return pd.Series(values, dtype="int64" if is_whole else object)

    return pd.DataFrame({name: typed(name, values) for name, values in columns.items()})


def _market_cap_error(market_cap: Decimal | None, price: Decimal | None, shares: int) -> float | None:
    """How far market_cap is from price × shares, in IDR; None where either is missing."""
    if market_cap is None or price is None:
        return None
    return float(abs(market_cap - price * shares))


def _books(ledger: LedgerView, ticks: int, dead_letters: int) -> dict[str, Any]:
    """One row per batch: what the ledger says beside what the stores hold. Volume in shares."""
    batch, aggregates = ledger.batch, ledger.aggregates
    return {
        "ticks_read": batch["ticks_read"],
        "ticks_accounted_for": batch["ticks_landed"] + batch["dead_letters"] + batch["duplicates"],
        "ticks_landed": batch["ticks_landed"],
        "ticks_in_cassandra": ticks,
        "ticks_in_aggregates": sum(row["ticks"] for row in aggregates),
        "volume": int(batch["volume"]),
        "volume_in_aggregates": int(sum(row["total_volume"] for row in aggregates)),
        "dead_letters": batch["dead_letters"],
        "dead_letters_in_cassandra": dead_letters,
        "first_created_at": batch["first_created_at"],
        "first_in_aggregates": min((row["first_created_at"] for row in aggregates), default=None),
        "last_created_at": batch["last_created_at"],
        "last_in_aggregates": max((row["last_created_at"] for row in aggregates), default=None),
        "messages": batch["messages"],
        "offsets_covered": sum(until - start for start, until in ledger.ranges.values()),
        "minutes_behind": minutes_behind(batch, ledger.before, MOST_MINUTES_BEHIND),
        "minutes_ahead": minutes_ahead(batch),
        "pace_to_usual": pace_to_usual(batch, ledger.before),
        "dead_letter_share": dead_letter_share(batch),
        "duplicate_share": duplicate_share(batch),
    }


def _aggregates(ledger: LedgerView) -> "pd.DataFrame":
    """The batch's rows of `aggregated_data` as they are, and `profile_sector`: the sector, if `profile` has it."""
    sectors = {company.sector for company in ledger.companies.values()}
    rows = [row | {"profile_sector": row["sector"] if row["sector"] in sectors else None} for row in ledger.aggregates]
    return _frame(rows, (*ledger.aggregate_columns, "profile_sector"))


def _books_by_sector(ledger: LedgerView, ticks: "pd.DataFrame") -> "pd.DataFrame":
    """One row per date and sector that either store has. Volume in shares.

    The sector is the profile's: a tick that names another one is a finding of its own and does not move volumes.
    """
    sums: dict[tuple[date, str], list[int]] = {}
    for row in ledger.aggregates:
        amounts = sums.setdefault((row["date"], row["sector"]), [0, 0, 0, 0])
        amounts[1] += row["ticks"]
        amounts[3] += int(row["total_volume"])
    for day, sector, volume in zip(ticks["trade_date"], ticks["profile_sector"], ticks["volume"], strict=True):
        amounts = sums.setdefault((day, sector), [0, 0, 0, 0])
        amounts[0] += 1
        # A missing volume is a finding of the raw ticks.
        amounts[2] += 0 if volume is None else volume
    names = ("ticks_in_cassandra", "ticks_in_aggregates", "volume_in_cassandra", "volume_in_aggregates")
    rows = [{"date": day, "sector": sector} | dict(zip(names, sums[day, sector], strict=True)) for day, sector in sums]
    return _frame(rows, ("date", "sector", *names))


def _frame(rows: Sequence[Any], columns: tuple[str, ...] | None = None) -> "pd.DataFrame":
    import pandas as pd

    # As objects: whole numbers stay whole beside a missing value, times keep no zone, days stay days.
    return pd.DataFrame(rows, columns=list(columns) if columns else None, dtype=object)


def _select(
    connection: MySQLConnectionAbstract, query: str, values: tuple[Any, ...] = ()
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    cursor: Any = connection.cursor()
    cursor.execute(query, values)
    columns = tuple(column[0] for column in cursor.description)
    rows = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
    cursor.close()
    return rows, columns


@contextmanager
def mysql_errors(settings: Settings) -> Iterator[None]:
    """Turn the driver's errors into those a user can act on."""
    try:
        yield
    except mysql.connector.errors.ProgrammingError as error:
        raise ConfigurationError(
            f"MYSQL_DATABASE is {settings.mysql_database!r}; MySQL refuses the query: {error.msg};"
            " run 'dbt seed' and 'dbt run' in dbt_project/"
        ) from None
    except mysql.connector.Error as error:
        raise StoreUnavailable(f"MySQL does not answer: {error.msg}") from None


@contextmanager
def cassandra_errors() -> Iterator[None]:
    """Turn the driver's errors into those a user can act on."""
    try:
        yield
    except (InvalidRequest, Unauthorized) as error:
        raise ConfigurationError(
            f"Cassandra refuses the query: {' '.join(str(error).split())}; 'make services' creates its tables"
        ) from None
    except _CASSANDRA_ERRORS as error:
        raise StoreUnavailable(f"Cassandra does not answer: {type(error).__name__}") from None
